"""What the SPF record of a sender's domain says of this host, should it send the mail on (RFC 7208)."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from srsd.spf.check_host import check_mail_from
from srsd.spf.outcome import SpfResult

if TYPE_CHECKING:
    from collections.abc import Sequence

    from srsd.resolving import IpAddress, Resolver
    from srsd.syntax.address import Address

# What a receiver may refuse, or defer. The other results are no reason to.
_NEEDS_REWRITING = frozenset({SpfResult.FAIL, SpfResult.SOFTFAIL, SpfResult.PERMERROR, SpfResult.TEMPERROR})
UNKNOWN_ADDRESSES = "this host's outbound addresses are not known"


class OutboundResult(NamedTuple):
    """Whether a sender needs rewriting, and the result of SPF that says so."""

    needs_rewriting: bool
    text: str  # for admins: `softfail for 192.0.2.1`


class OutboundSpf:
    """Asks SPF about ourselves."""

    def __init__(self, addresses: Sequence[IpAddress], host: bytes) -> None:
        """Prepare to ask. addresses are those from which this host sends, host is its name in HELO."""
        self._addresses = tuple(addresses)
        self._host = host

    async def judge(self, sender: Address, resolver: Resolver, now: int) -> OutboundResult:
        """Tell what SPF says of each of our addresses; the first that it does not let send decides."""
        if not self._addresses:
            return OutboundResult(True, UNKNOWN_ADDRESSES)
        results: list[str] = []
        for address in self._addresses:
            outcome = await check_mail_from(
                resolver, address, sender, self._host, receiver=self._host, now=now, explain=False
            )
            text = f"{outcome.result.value} for {address}"
            if outcome.result in _NEEDS_REWRITING:
                return OutboundResult(True, text)
            results.append(text)
        return OutboundResult(False, ", ".join(results))
