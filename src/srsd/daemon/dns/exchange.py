"""One question, and the name servers that are asked until one of them knows."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from dns.exception import FormError

from srsd.daemon.dns.messages import (
    BADVERS,
    FORMERR,
    NOERROR,
    NOTIMP,
    NXDOMAIN,
    REFUSED,
    SERVFAIL,
    Message,
    read_message,
)
from srsd.daemon.dns.udp import Inbox, Response
from srsd.resolving import Outcome

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from srsd.daemon.dns.counters import DnsCounters
    from srsd.daemon.dns.messages import Question
    from srsd.daemon.dns.servers import Server

# The first server has this part of the whole time to itself, then the next one is asked too, and so on; when
# all were asked they are asked again, with twice the time for each. Whoever answers first is taken, so
# a server that is merely slow is never cut short.
_FIRST_PART = 1 / 8
_FIRST_MAXIMUM = 1.0  # seconds

_FAILURES = {SERVFAIL: Outcome.SERVER_FAILURE, REFUSED: Outcome.REFUSED}  # all others are UNUSABLE


class Exchange:
    """Asks until there is a message that tells something about the name. Used once."""

    def __init__(
        self,
        servers: Sequence[Server],
        question: Question,
        deadline: float,
        counters: DnsCounters,
    ) -> None:
        """Take the servers in the order in which to ask them. deadline is in the loop's time."""
        self._servers = servers
        self._by_address = {server.name_server: server for server in servers}
        self._question = question
        self._deadline = deadline
        self._counters = counters
        self._loop = asyncio.get_running_loop()
        self._inbox = Inbox(self._loop)
        self._failures: dict[Server, Outcome] = {}  # what the servers said that need not be asked again

    async def run(self) -> Message | Outcome:
        """Give a message with the rcode NOERROR or NXDOMAIN, or how this failed."""
        try:
            for server, seconds in self._plan():
                message = await self._ask(server, seconds)
                if message is not None:
                    return message
        finally:
            self._inbox.close()
        return next(reversed(self._failures.values()), Outcome.TIMED_OUT)

    def _plan(self) -> Iterator[tuple[Server, float]]:
        """Give the next server to ask, and for how long to wait before the one after it."""
        seconds = min((self._deadline - self._loop.time()) * _FIRST_PART, _FIRST_MAXIMUM)
        while len(self._failures) < len(self._servers):
            for server in self._servers:
                left = self._deadline - self._loop.time()
                if left <= 0:
                    return
                if server not in self._failures:
                    yield server, min(seconds, left)
            seconds *= 2

    async def _ask(self, server: Server, seconds: float) -> Message | None:
        """Ask a server and wait for whoever answers; None when it is time to ask the next one."""
        answers_before = server.answers
        until = self._loop.time() + seconds
        if not server.ask(self._question, self._inbox, edns=server.speaks_edns):
            self._failures[server] = Outcome.UNUSABLE
        while server not in self._failures:
            while self._inbox.responses:
                message = await self._judge(self._inbox.responses.pop(0))
                if message is not None:
                    return message
            if server in self._failures:
                break
            left = until - self._loop.time()
            if left <= 0:
                self._counters.timeouts += 1
                if server.answers == answers_before:  # not to us, nor to anyone else
                    server.was_silent()
                break
            await self._inbox.wait(left)
        return None

    async def _judge(self, response: Response) -> Message | None:
        """Give the message if it tells something about the name; else note what is wrong with the server."""
        server, edns, data = self._by_address[response.name_server], response.edns, response.data
        if data is None:
            self._failures[server] = Outcome.UNUSABLE
            return None
        server.answered()
        try:
            message = read_message(data, self._question)
            if message.truncated:
                message = await self._ask_over_tcp(server, edns=edns)
        except TimeoutError:
            failure = Outcome.TIMED_OUT
        except (FormError, OSError):
            failure = Outcome.UNUSABLE
        else:
            if message.rcode in (NOERROR, NXDOMAIN) and not message.lame:
                if not edns:
                    server.dislikes_edns()
                return message
            not_understood = edns and message.rcode in (FORMERR, NOTIMP, BADVERS)  # RFC 6891 §7
            if not_understood and server.ask(self._question, self._inbox, edns=False):
                return None
            failure = _FAILURES.get(message.rcode, Outcome.UNUSABLE)
        self._failures[server] = failure
        return None

    async def _ask_over_tcp(self, server: Server, *, edns: bool) -> Message:
        """Fetch the whole of a truncated message. Raises FormError or OSError, TimeoutError among them."""
        self._counters.tcp_fallbacks += 1
        others = len(self._failures) + 1 < len(self._servers)
        now = self._loop.time()
        until = now + (self._deadline - now) / 2 if others else self._deadline
        async with asyncio.timeout_at(until):
            data = await server.ask_over_tcp(self._question, edns=edns)
        if data is None:
            raise FormError
        message = read_message(data, self._question)
        if message.truncated:
            raise FormError
        return message
