"""What evaluators ask of DNS: the Resolver, and answers that tell one kind of nothing from another."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from ipaddress import IPv4Address, IPv6Address
from typing import TYPE_CHECKING, Any, Generic, NamedTuple, Protocol, TypeVar

from srsd.syntax.name_server import check_name_servers
from srsd.syntax.setting import between, setting

if TYPE_CHECKING:
    from collections.abc import Coroutine

IpAddress = IPv4Address | IPv6Address
Record = TypeVar("Record")


class Outcome(Enum):
    """How a query ended. The value is what an admin reads."""

    FOUND = "found"
    NO_DATA = "no such record"  # the name exists, or something below it: RFC 2308 §2.2
    NX_DOMAIN = "no such domain"  # RFC 8020: nothing below it either
    NOT_A_NAME = "not a DNS name"  # a label above 63 octets, an empty one, above 255 in all: never sent
    SERVER_FAILURE = "server failure"
    REFUSED = "refused by the name server"
    TIMED_OUT = "timed out"
    UNUSABLE = "unusable answer"  # malformed, FORMERR, NOTIMP, a CNAME loop, no server reachable
    BUDGET_SPENT = "too many DNS queries for one message"

    __hash__ = object.__hash__  # what Enum has takes longer, and is no better: there is one object each

    @property
    def temporary(self) -> bool:
        """Tell whether another try, later, may end otherwise: nothing is known about the name."""
        return self in _TEMPORARY


_TEMPORARY = frozenset(
    {Outcome.SERVER_FAILURE, Outcome.REFUSED, Outcome.TIMED_OUT, Outcome.UNUSABLE, Outcome.BUDGET_SPENT}
)


class Answer(NamedTuple, Generic[Record]):
    """The answer to one query. Only FOUND has records, and then at least one."""

    outcome: Outcome
    records: tuple[Record, ...] = ()
    authenticated: bool = (
        False  # the AD bit: the name server says that DNSSEC vouches for it (RFC 4035 §3.2.3)
    )
    ttl: int = 0  # seconds for which it may still be kept


class MailExchange(NamedTuple):
    """An MX record. The null MX of RFC 7505 has the exchange b""."""

    preference: int
    exchange: bytes


class Resolver(Protocol):
    """DNS, as the evaluators see it.

    A name is a domain name in A-labels, as octets, with or without a trailing dot; names in answers are
    in lower case, without it. Nothing is raised: whatever goes wrong is an Outcome.
    """

    async def txt(self, name: bytes) -> Answer[bytes]:
        """Ask for TXT; the strings of each record are joined without blanks (RFC 7208 §3.3)."""
        ...

    async def ipv4(self, name: bytes) -> Answer[IPv4Address]:
        """Ask for A."""
        ...

    async def ipv6(self, name: bytes) -> Answer[IPv6Address]:
        """Ask for AAAA."""
        ...

    async def mx(self, name: bytes) -> Answer[MailExchange]:
        """Ask for MX, in the order of the answer."""
        ...

    async def ptr(self, address: IpAddress) -> Answer[bytes]:
        """Ask for the names of an address (in-addr.arpa, ip6.arpa)."""
        ...


class NotCachedError(Exception):
    """Raised by a Resolver that asks nobody, where it would have to: nothing was asked."""


T = TypeVar("T")


def run_from_cache(check: Coroutine[Any, Any, T]) -> T:
    """Run a check whose Resolver raises NotCachedError instead of waiting; that goes through.

    Most mail needs no answer that was not given a moment ago, and a task costs more than such a check.
    """
    try:
        check.send(None)
    except StopIteration as done:
        result: T = done.value
        return result
    check.close()
    raise RuntimeError("a check waited for something that is not DNS")


@dataclass(frozen=True, kw_only=True)
class DnsParameters:
    """How DNS is asked."""

    nameservers: tuple[str, ...] = setting(
        (),
        'Name servers such as "127.0.0.1", "127.0.0.1:5353", "[::1]:53". Empty: those of resolv.conf.',
        check_name_servers,
    )
    timeout: float = setting(5.0, "Seconds for one lookup with its retries.", between(0.1, 60))
    message_deadline: float = setting(
        20.0, "Seconds of DNS for one message; SPF has as many for itself.", between(1, 300)
    )
    cache_size: int = setting(20000, "Answers kept; 0 keeps none.", between(0, 10_000_000))
