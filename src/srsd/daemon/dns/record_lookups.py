"""The methods of a Resolver (srsd.resolving), one for each type of record, from two that know none."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any

from srsd.daemon.dns.messages import AAAA, MX, PTR, TXT, A

if TYPE_CHECKING:
    from ipaddress import IPv4Address, IPv6Address

    from srsd.resolving import Answer, IpAddress, MailExchange


class RecordLookups(ABC):
    """Looks into the cache, and asks what is not there."""

    __slots__ = ()

    @abstractmethod
    def cached(self, name: bytes, record_type: int) -> Answer[Any] | None:
        """Give an answer without asking anybody, or None."""

    @abstractmethod
    async def ask(self, name: bytes, record_type: int) -> Answer[Any]:
        """Ask for what the cache does not have."""

    async def lookup(self, name: bytes, record_type: int) -> Answer[Any]:
        """Give the records of a type in srsd.daemon.dns.messages."""
        return self.cached(name, record_type) or await self.ask(name, record_type)

    async def txt(self, name: bytes) -> Answer[bytes]:
        """Give TXT."""
        return self.cached(name, TXT) or await self.ask(name, TXT)

    async def ipv4(self, name: bytes) -> Answer[IPv4Address]:
        """Give A."""
        return self.cached(name, A) or await self.ask(name, A)

    async def ipv6(self, name: bytes) -> Answer[IPv6Address]:
        """Give AAAA."""
        return self.cached(name, AAAA) or await self.ask(name, AAAA)

    async def mx(self, name: bytes) -> Answer[MailExchange]:
        """Give MX."""
        return self.cached(name, MX) or await self.ask(name, MX)

    async def ptr(self, address: IpAddress) -> Answer[bytes]:
        """Give the names of an address."""
        name = reverse_name(address)
        return self.cached(name, PTR) or await self.ask(name, PTR)


def reverse_name(address: IpAddress) -> bytes:
    """Give the name that has the PTR records of an address (RFC 1035 §3.5, RFC 3596 §2.5)."""
    if address.version == 4:
        return b"%d.%d.%d.%d.in-addr.arpa" % tuple(reversed(address.packed))
    return ".".join(reversed(address.packed.hex())).encode() + b".ip6.arpa"
