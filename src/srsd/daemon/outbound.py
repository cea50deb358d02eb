"""The addresses from which this host sends, as its own routes have it."""

from __future__ import annotations

import socket
from ipaddress import ip_address
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from srsd.filter.forwarding import ForwardingParameters
    from srsd.resolving import IpAddress

# Documentation addresses (RFC 5737, 3849): their routes are those to the Internet. Nothing is sent to them.
_ELSEWHERE = ((socket.AF_INET, "192.0.2.1"), (socket.AF_INET6, "2001:db8::1"))
_DISCARD = 9


def outbound_addresses(parameters: ForwardingParameters) -> list[IpAddress]:
    """Give the addresses that are configured, or else found.

    Nobody elsewhere sees private ones, so they are not found.
    """
    if parameters.outbound_addresses:
        return [ip_address(text) for text in parameters.outbound_addresses]
    return [address for address in _of_routes() if address.is_global]


def _of_routes() -> list[IpAddress]:
    """Ask the kernel from which address it would send; this sends nothing."""
    found = []
    for family, elsewhere in _ELSEWHERE:
        try:
            with socket.socket(family, socket.SOCK_DGRAM) as probe:
                probe.connect((elsewhere, _DISCARD))
                found.append(ip_address(probe.getsockname()[0].partition("%")[0]))
        except OSError:  # no route, or no such family here
            continue
    return found
