"""A resolver that gives only what is known already."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from srsd.daemon.dns.messages import AAAA, MX, PTR, TXT, A
from srsd.daemon.dns.resolver import reverse_name
from srsd.resolving import NotCachedError

if TYPE_CHECKING:
    from ipaddress import IPv4Address, IPv6Address

    from srsd.daemon.dns.resolver import StubResolver
    from srsd.resolving import Answer, IpAddress, MailExchange


class CacheResolver:
    """A Resolver (srsd.resolving) that never waits: it raises NotCachedError where it would have to ask."""

    __slots__ = ("_resolver",)

    def __init__(self, resolver: StubResolver) -> None:
        self._resolver = resolver

    async def txt(self, name: bytes) -> Answer[bytes]:
        """Give TXT."""
        return self._known(name, TXT)

    async def ipv4(self, name: bytes) -> Answer[IPv4Address]:
        """Give A."""
        return self._known(name, A)

    async def ipv6(self, name: bytes) -> Answer[IPv6Address]:
        """Give AAAA."""
        return self._known(name, AAAA)

    async def mx(self, name: bytes) -> Answer[MailExchange]:
        """Give MX."""
        return self._known(name, MX)

    async def ptr(self, address: IpAddress) -> Answer[bytes]:
        """Give the names of an address."""
        return self._known(reverse_name(address), PTR)

    def _known(self, name: bytes, record_type: int) -> Answer[Any]:
        answer = self._resolver.cached(name, record_type)
        if answer is None:
            raise NotCachedError
        return answer
