"""A resolver that gives only what is known already."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NoReturn

from srsd.daemon.dns.record_lookups import RecordLookups
from srsd.resolving import NotCachedError

if TYPE_CHECKING:
    from srsd.daemon.dns.resolver import StubResolver
    from srsd.resolving import Answer


class CacheResolver(RecordLookups):
    """A Resolver (srsd.resolving) that never waits: it raises NotCachedError where it would have to ask."""

    __slots__ = ("_resolver",)

    def __init__(self, resolver: StubResolver) -> None:
        self._resolver = resolver

    def cached(self, name: bytes, record_type: int) -> Answer[Any] | None:
        """Give an answer without asking anybody, or None."""
        return self._resolver.cached(name, record_type)

    async def ask(self, name: bytes, record_type: int) -> NoReturn:  # noqa: ARG002 - there is nobody to ask
        """Ask nobody."""
        raise NotCachedError
