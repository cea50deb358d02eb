"""Where a name server is: an IP address, and a port where it is not 53."""

from __future__ import annotations

import re
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable

_BRACKETS = re.compile(r"\[([^\[\]]*)\](?::([0-9]{1,5}))?")
_WITH_PORT = re.compile(r"([^:]*):([0-9]{1,5})")
_SCOPE = re.compile(r"[A-Za-z0-9._@-]{1,15}")  # the name of an interface, or its number
_RIGHT = "would be right: an IP address such as 127.0.0.1, 127.0.0.1:5353, ::1 or [::1]:5353"


class NameServer(NamedTuple):
    """The address of a name server. A link-local one has its interface as the scope (RFC 4007 §11)."""

    address: IPv4Address | IPv6Address
    port: int = 53

    def __str__(self) -> str:
        return f"[{self.address}]:{self.port}" if self.address.version == 6 else f"{self.address}:{self.port}"


def parse_name_server(text: str) -> NameServer:
    """Parse a name server. Raises ValueError: what is wrong, and what would be right."""
    host, port = text, "53"
    if cut := _BRACKETS.fullmatch(text):
        host, port = cut[1], cut[2] or port
    elif cut := _WITH_PORT.fullmatch(text):
        host, port = cut[1], cut[2]
    try:
        address = ip_address(host)
        if isinstance(address, IPv6Address) and not _SCOPE.fullmatch(address.scope_id or "0"):
            raise ValueError
    except ValueError:
        raise ValueError(f'"{text}" is not a name server, {_RIGHT}') from None
    if text.startswith("[") and address.version == 4:
        raise ValueError(f'"{text}" has an IPv4 address in brackets, {_RIGHT}')
    if not 0 < int(port) <= 65535:
        raise ValueError(f'"{text}" has a port that is not from 1 to 65535, {_RIGHT}')
    return NameServer(address, int(port))


def check_name_servers(texts: Iterable[str]) -> str | None:
    """Say what is wrong with a list of name servers, and what would be right; None where all are good."""
    for text in texts:
        try:
            parse_name_server(text)
        except ValueError as error:
            return str(error)
    return None
