"""Questions over UDP: kept sockets, each with a random port, and the answers that may come on them."""

from __future__ import annotations

import asyncio
import os
import socket
from typing import TYPE_CHECKING, Any, NamedTuple

from srsd.daemon.dns.messages import HEADER_SIZE

if TYPE_CHECKING:
    from collections.abc import Callable

    from srsd.daemon.dns.counters import DnsCounters
    from srsd.daemon.dns.messages import Question
    from srsd.syntax.name_server import NameServer

# Whoever forges answers must guess a port (the kernel's choice, at random) and an id (ours). So no port is
# used for long, several are in use at once, and one on which too much arrives that fits nothing is given up.
_SOCKETS_MAXIMUM = 8  # for each name server
_QUERIES_MAXIMUM = 100  # for each socket
_SECONDS_MAXIMUM = 30.0
_STRAYS_MAXIMUM = 20
_PENDING_MAXIMUM = 16384  # for each socket: of 65536 ids, so that a free one is found at once

_DATAGRAM_MAXIMUM = 4096  # octets; we ask for 1232 at most
_DATAGRAMS_AT_ONCE = 64  # then others have their turn


class SocketAddress(NamedTuple):
    """An address as sockets have it."""

    family: socket.AddressFamily
    address: tuple[Any, ...]


class Response(NamedTuple):
    """What came of a query."""

    name_server: NameServer  # that was asked
    edns: bool  # of the query
    data: bytes | None  # a message that answers the question; None: the server cannot be reached


class Inbox:
    """The queries of one question that are under way, and the responses to them as they arrive."""

    __slots__ = ("_loop", "_queries", "_waiter", "responses")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._queries: list[tuple[UdpSocket, int]] = []
        self._waiter: asyncio.Future[None] | None = None
        self.responses: list[Response] = []

    def expect(self, udp: UdpSocket, identifier: int) -> None:
        """Remember a query, for close."""
        self._queries.append((udp, identifier))

    def put(self, response: Response) -> None:
        """Take a response in."""
        self.responses.append(response)
        self._wake()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    async def wait(self, seconds: float) -> None:
        """Wait for a response, or until the time is over."""
        self._waiter = self._loop.create_future()
        timer = self._loop.call_later(seconds, self._wake)
        try:
            await self._waiter
        finally:
            timer.cancel()
            self._waiter = None

    def close(self) -> None:
        """Give up the queries that nobody has answered."""
        for udp, identifier in self._queries:
            udp.forget(identifier, self)


class Query(NamedTuple):
    """What is sent, and where the response goes."""

    question: Question
    edns: bool
    inbox: Inbox


class UdpSocket:
    """A socket that is connected to one name server: the kernel drops what comes from elsewhere."""

    def __init__(
        self, name_server: NameServer, address: SocketAddress, counters: DnsCounters, now: float
    ) -> None:
        """Open it. Raises OSError."""
        self._loop = loop = asyncio.get_running_loop()
        self._name_server = name_server
        self._counters = counters
        self._pending: dict[int, Query] = {}
        self._strays = 0
        self._queries = 0
        self._opened = now
        self.closed = False
        self.retired = False
        self._socket = socket.socket(address.family, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        try:
            self._socket.connect(address.address)
            self._peer = self._socket.getpeername()
            loop.add_reader(self._socket, self._readable)
        except BaseException:
            self._socket.close()
            raise

    def is_spent(self, now: float) -> bool:
        """Tell whether this port was used for long enough."""
        return (
            self._queries >= _QUERIES_MAXIMUM
            or self._strays >= _STRAYS_MAXIMUM
            or now - self._opened > _SECONDS_MAXIMUM
        )

    def send(self, query: Query) -> None:
        """Send a query. Raises OSError."""
        if len(self._pending) >= _PENDING_MAXIMUM:
            raise BlockingIOError
        identifier = int.from_bytes(os.urandom(2), "big")
        while identifier in self._pending:
            identifier = int.from_bytes(os.urandom(2), "big")
        data = query.question.query(identifier, edns=query.edns)
        self._queries += 1
        self._counters.queries += 1
        try:
            self._socket.send(data)
        except BlockingIOError:
            pass  # lost, as it could be on its way
        except ConnectionRefusedError:
            # The kernel tells of an earlier query. Those before it are lost, this one may be lucky.
            self._fail()
            self._socket.send(data)
        self._pending[identifier] = query
        query.inbox.expect(self, identifier)

    def forget(self, identifier: int, inbox: Inbox) -> None:
        """Expect no response to a query any more, unless the id is another one's by now."""
        query = self._pending.get(identifier)
        if query is not None and query.inbox is inbox:
            del self._pending[identifier]
            self._close_when_done()

    def _readable(self) -> None:
        for _ in range(_DATAGRAMS_AT_ONCE):
            if self.closed:
                return
            try:
                data, source = self._socket.recvfrom(_DATAGRAM_MAXIMUM)
            except (BlockingIOError, InterruptedError):
                return
            except OSError:  # ICMP says that nobody listens there
                self._fail()
                return
            self._take(data, source)

    def _take(self, data: bytes, source: object) -> None:
        pending = self._pending.get(data[0] << 8 | data[1]) if len(data) >= HEADER_SIZE else None
        if pending is None or source != self._peer or not pending.question.is_answered_by(data):
            self._strays += 1
            self._counters.strays += 1
            return
        del self._pending[data[0] << 8 | data[1]]
        pending.inbox.put(Response(self._name_server, pending.edns, data))
        self._close_when_done()

    def _fail(self) -> None:
        """End all queries that wait here."""
        pending, self._pending = self._pending, {}
        for each in pending.values():
            each.inbox.put(Response(self._name_server, each.edns, None))
        self._close_when_done()

    def retire(self) -> None:
        """Close this as soon as nothing is expected on it."""
        self.retired = True
        self._close_when_done()

    def _close_when_done(self) -> None:
        if self.retired and not self._pending:
            self._close()

    def close(self) -> None:
        """Close this now; what is expected on it will not come."""
        self._fail()
        self._close()

    def _close(self) -> None:
        if not self.closed:
            self.closed = True
            self._loop.remove_reader(self._socket)
            self._socket.close()


class UdpSockets:
    """The sockets that are connected to one name server."""

    def __init__(self, name_server: NameServer, counters: DnsCounters, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._name_server = name_server
        self._counters = counters
        self._open: list[UdpSocket] = []
        self._leaving: list[UdpSocket] = []  # answers are expected on them, but they take no more queries
        self._retired = False

    def send(self, address: SocketAddress, query: Query) -> None:
        """Send a query on a new socket, or on any of those there are. Raises OSError."""
        now = self._clock()
        self.look_over(now)
        opened = None
        if len(self._open) < _SOCKETS_MAXIMUM:
            try:
                opened = UdpSocket(self._name_server, address, self._counters, now)
                self._open.append(opened)
            except OSError:  # too many open files, perhaps
                if not self._open:
                    raise
        chosen = opened or self._open[os.urandom(1)[0] % len(self._open)]
        try:
            chosen.send(query)
        finally:
            if self._retired:
                self._retire([chosen])

    def look_over(self, now: float) -> None:
        """Retire the sockets that were used for long enough."""
        if spent := [each for each in self._open if each.is_spent(now)]:
            self._retire(spent)

    def _retire(self, sockets: list[UdpSocket]) -> None:
        for udp in sockets:
            self._open.remove(udp)
            self._leaving.append(udp)
            udp.retire()
        self._leaving = [each for each in self._leaving if not each.closed]

    def retire(self) -> None:
        """Use each socket for one query only, from now on."""
        self._retired = True
        self._retire(list(self._open))

    def close(self) -> None:
        """Close all sockets."""
        for udp in (*self._open, *self._leaving):
            udp.close()
        self._open.clear()
        self._leaving.clear()
