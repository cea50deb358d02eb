"""The resolver of a process: answers from the cache, or from name servers, one lookup for all who ask."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any

from srsd.daemon.dns.cache import Cache, time_to_keep
from srsd.daemon.dns.counters import DnsCounters
from srsd.daemon.dns.exchange import Exchange
from srsd.daemon.dns.messages import ALIASES_MAXIMUM, Question, wire_name
from srsd.daemon.dns.record_lookups import RecordLookups
from srsd.daemon.dns.servers import Servers
from srsd.resolving import Answer, Outcome

if TYPE_CHECKING:
    from collections.abc import Callable

    from srsd.resolving import DnsParameters

RESOLV_CONF = "/etc/resolv.conf"
_LOOKUPS_MAXIMUM = 8192  # under way at once: each takes some kilobytes
_RETIRED_CACHE_SIZE = 100
_NOT_A_NAME: Answer[Any] = Answer(Outcome.NOT_A_NAME)


class StubResolver(RecordLookups):
    """A Resolver (srsd.resolving) that asks name servers. All that is asked goes into the same cache.

    It opens sockets in the event loop of whoever asks first, and must be closed there.
    """

    def __init__(
        self,
        parameters: DnsParameters,
        *,
        counters: DnsCounters | None = None,
        clock: Callable[[], float] = time.monotonic,
        resolv_conf: str = RESOLV_CONF,
    ) -> None:
        """Read resolv.conf, if need be. clock says when answers are too old, and servers forgiven.

        counters go on where those of a resolver before this one ended.

        Raises ValueError for what check_name_servers finds fault with.
        """
        self.parameters = parameters
        self.counters = counters or DnsCounters()
        self._clock = clock
        self._cache = Cache(parameters.cache_size, clock)
        self._servers = Servers(parameters.nameservers, self.counters, clock, resolv_conf)
        self._lookups: dict[tuple[bytes, int], asyncio.Future[Answer[Any]]] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    def cached(self, name: bytes, record_type: int) -> Answer[Any] | None:
        """Give an answer without asking anybody, or None."""
        if name.endswith(b"."):
            name = name[:-1]
        answer = self._cache.get((name.lower(), record_type))
        if answer is not None:
            self.counters.hits += 1
            return answer
        return None

    async def ask(self, name: bytes, record_type: int) -> Answer[Any]:
        """Ask name servers, whatever is in the cache, or wait for the answer to the same question."""
        name = name.removesuffix(b".").lower()
        wire = wire_name(name)
        if wire is None:
            return _NOT_A_NAME
        key = (name, record_type)
        future = self._lookups.get(key)
        if future is not None:
            self.counters.shared += 1
        elif len(self._lookups) >= _LOOKUPS_MAXIMUM:
            self.counters.overloads += 1
            return Answer(Outcome.TIMED_OUT)
        else:
            future = self._begin(key, wire)
        return await asyncio.shield(future)  # whoever gives up does so for himself alone

    def _begin(self, key: tuple[bytes, int], wire: bytes) -> asyncio.Future[Answer[Any]]:
        self.counters.misses += 1
        loop = asyncio.get_running_loop()
        future = self._lookups[key] = loop.create_future()
        task = loop.create_task(self._look_up(key, wire, future))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return future

    async def _look_up(
        self, key: tuple[bytes, int], wire: bytes, future: asyncio.Future[Answer[Any]]
    ) -> None:
        """Find an answer for all who wait for this future."""
        begin = self._clock()
        try:
            answer = await self._resolve(wire, key[1])
        except Exception as error:  # noqa: BLE001 - whoever waits must not wait for ever; it is theirs to log
            future.set_exception(error)
            return
        finally:
            del self._lookups[key]
        self.counters.lookups[answer.outcome] += 1
        self.counters.seconds += self._clock() - begin
        self._cache.put(key, answer)
        future.set_result(answer)

    async def _resolve(self, name: bytes, record_type: int) -> Answer[Any]:
        """Ask for a name, and for what it is an alias of if the name server did not do so itself."""
        deadline = asyncio.get_running_loop().time() + self.parameters.timeout
        authenticated = True
        ttl: int | None = None
        seen = {name}
        aliases = 0
        while True:
            exchange = Exchange(
                self._servers.in_order(), Question(name, record_type), deadline, self.counters
            )
            message = await exchange.run()
            if isinstance(message, Outcome):
                return _answer(message, None)
            authenticated = authenticated and message.authenticated
            ttl = message.ttl if ttl is None or message.ttl is None else min(ttl, message.ttl)
            if message.alias is None:
                return _answer(message.outcome, ttl, message.records, authenticated=authenticated)
            name = message.alias
            aliases += message.aliases
            if name in seen or aliases > ALIASES_MAXIMUM:
                return _answer(Outcome.UNUSABLE, None)
            seen.add(name)

    def tick(self) -> None:
        """Look at resolv.conf, and close old sockets; once a second."""
        self._servers.tick()

    def retire(self) -> None:
        """Go on for those who still ask, but keep no socket open, and few answers: there is a successor."""
        self._servers.retire()
        self._cache = Cache(min(self.parameters.cache_size, _RETIRED_CACHE_SIZE), self._clock)

    def forget(self) -> None:
        """Forget all answers."""
        self._cache.clear()

    async def close(self) -> None:
        """Close all sockets. Whoever waits gets UNUSABLE, and so does who asks from now on."""
        for future in self._lookups.values():
            if not future.done():
                future.set_result(Answer(Outcome.UNUSABLE))
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._servers.close()


def _answer(
    outcome: Outcome, ttl: int | None, records: tuple[Any, ...] = (), *, authenticated: bool = False
) -> Answer[Any]:
    return Answer(outcome, records, authenticated, time_to_keep(outcome, ttl))
