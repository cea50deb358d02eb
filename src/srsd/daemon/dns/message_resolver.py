"""The resolver of one mail: it shares the answers of all, but not their patience."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from srsd.daemon.dns.record_lookups import RecordLookups
from srsd.resolving import Answer, Outcome

if TYPE_CHECKING:
    from srsd.daemon.dns.resolver import StubResolver

QUERIES_MAXIMUM = 100  # SPF may ask for some 110, but no honest record does; the rest stays below it


class MessageResolver(RecordLookups):
    """A Resolver (srsd.resolving) with a budget of lookups and of time; the cache's answers are free.

    Time runs only while an answer is awaited, so that a slow client does not use it up.
    """

    __slots__ = (
        "_begun", "_deadline", "_queries_maximum", "_resolver", "_seconds", "_waiting", "queries",
    )  # fmt: skip

    def __init__(
        self, resolver: StubResolver, *, deadline: float, queries_maximum: int = QUERIES_MAXIMUM
    ) -> None:
        """Take the limits: seconds in which answers are awaited, and lookups that need a name server."""
        self._resolver = resolver
        self._deadline = deadline
        self._queries_maximum = queries_maximum
        self._waiting = 0  # for so many answers
        self._begun = 0.0  # when that began, in the loop's time
        self._seconds = 0.0
        self.queries = 0  # lookups that the cache did not answer

    @property
    def seconds(self) -> float:
        """Seconds in which at least one answer was awaited."""
        if self._waiting:
            return self._seconds + asyncio.get_running_loop().time() - self._begun
        return self._seconds

    def cached(self, name: bytes, record_type: int) -> Answer[Any] | None:
        """Give an answer without asking anybody, or None."""
        return self._resolver.cached(name, record_type)

    async def ask(self, name: bytes, record_type: int) -> Answer[Any]:
        """Ask name servers, as long as the budget lasts."""
        if self.queries >= self._queries_maximum:
            return Answer(Outcome.BUDGET_SPENT)
        left = self._deadline - self.seconds
        if left <= 0:
            return Answer(Outcome.TIMED_OUT)
        self.queries += 1
        loop = asyncio.get_running_loop()
        if not self._waiting:
            self._begun = loop.time()
        self._waiting += 1
        try:
            if left > self._resolver.parameters.timeout:
                return await self._resolver.ask(name, record_type)
            async with asyncio.timeout(left):
                return await self._resolver.ask(name, record_type)
        except TimeoutError:
            self._deadline = 0.0  # it is over, also where the loop's clock is coarse and came too early
            return Answer(Outcome.TIMED_OUT)
        finally:
            self._waiting -= 1
            if not self._waiting:
                self._seconds += loop.time() - self._begun
