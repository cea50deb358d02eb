"""IP networks to compare a client with."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_network
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

_MAPPED_PREFIX_LENGTH = 96  # ::ffff:0:0/96, RFC 4291 §2.5.5.2


class NetworkSet:
    """Networks such as 192.0.2.0/24, 2001:db8::/32, or single addresses.

    Raises ValueError for an entry that is none, or has bits beyond its length.
    """

    __slots__ = ("_networks",)

    def __init__(self, networks: Iterable[str]) -> None:
        self._networks: list[tuple[int, int, int]] = []  # version, bits behind the prefix, prefix
        for text in networks:
            network = ip_network(text)
            version, prefix = network.version, int(network.network_address)
            host_bits = network.max_prefixlen - network.prefixlen
            mapped = network.network_address.ipv4_mapped if isinstance(network, IPv6Network) else None
            if mapped is not None and network.prefixlen >= _MAPPED_PREFIX_LENGTH:
                version, prefix = 4, int(mapped)
            self._networks.append((version, host_bits, prefix >> host_bits))

    def __contains__(self, client: IPv4Address | IPv6Address | None) -> bool:
        """Tell whether a client belongs; one without an address never does."""
        if client is None or not self._networks:
            return False
        if isinstance(client, IPv6Address):
            client = client.ipv4_mapped or client
        number, version = int(client), client.version
        for each_version, host_bits, prefix in self._networks:
            if version == each_version and number >> host_bits == prefix:
                return True
        return False
