"""The servers behind the listeners, and the connections that they have open."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import resource
import socket
import sys
from typing import TYPE_CHECKING

from srsd.daemon.listeners import BACKLOG

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from srsd.daemon.counters import Counters
    from srsd.daemon.listeners import Listener
    from srsd.daemon.registry import Connection

_LOG = logging.getLogger(__name__)
LOOK_INTERVAL = 5  # seconds between looks over the connections
DRAIN_SECONDS = 5.0  # for requests that have begun when srsd is told to end
_CONNECTIONS_MAXIMUM = 16384
_OTHER_DESCRIPTORS = 64


class Server:
    """Serves listeners, whatever they speak."""

    def __init__(self, counters: Counters) -> None:
        self._counters = counters
        self._connections: dict[Connection, None] = {}  # in the order in which they came
        self._servers: list[asyncio.Server] = []
        self._listeners: list[Listener] = []
        self._limit = _raise_descriptor_limit()
        self._drained: asyncio.Event | None = None  # only while srsd ends

    async def start(
        self, listeners: Sequence[Listener], factories: dict[str, Callable[[], asyncio.Protocol]]
    ) -> None:
        """Begin to accept. factories has what serves a connection, for each kind of listener."""
        loop = asyncio.get_running_loop()
        self._listeners = list(listeners)
        for listener in listeners:
            factory = factories[listener.kind]
            listener.socket.setblocking(False)
            if listener.socket.family != socket.AF_UNIX:
                server = await loop.create_server(factory, sock=listener.socket, backlog=BACKLOG)
            elif sys.version_info >= (3, 13):
                # An inherited socket file is not ours to remove, and Listener.close removes our own.
                server = await loop.create_unix_server(
                    factory, sock=listener.socket, backlog=BACKLOG, cleanup_socket=False
                )
            else:
                server = await loop.create_unix_server(factory, sock=listener.socket, backlog=BACKLOG)
            self._servers.append(server)

    def opened(self, connection: Connection) -> None:
        """Take a connection in. With too many of them, the one that was silent longest ends.

        Postfix comes back at once when an idle connection ends, but waits when a new one is refused.
        """
        if len(self._connections) >= self._limit:
            idlest = max(self._connections, key=lambda each: (not each.busy, each.idle))
            _LOG.warning(
                "%d connections are open: the one that was silent longest was closed", len(self._connections)
            )
            self._connections.pop(idlest)
            idlest.close()
        self._connections[connection] = None
        self._counters.connections_opened += 1
        self._counters.connections_open = len(self._connections)

    def closed(self, connection: Connection) -> None:
        """Forget a connection."""
        self._connections.pop(connection, None)
        self._counters.connections_open = len(self._connections)
        if self._drained and not self._connections:
            self._drained.set()

    def cut(self) -> None:
        """Count a connection that is ended for what its client did."""
        self._counters.connections_cut += 1

    def bug(self) -> None:
        """Count a bug of ours that a client met."""
        self._counters.bugs += 1

    def look_over(self) -> None:
        """Close connections that have been silent, or stuck, for too long. Every LOOK_INTERVAL seconds."""
        for connection in list(self._connections):
            connection.idle = 0 if connection.active else connection.idle + 1
            connection.slow = connection.slow + 1 if connection.stuck and not connection.active else 0
            connection.active = False
            if connection.slow * LOOK_INTERVAL >= connection.slow_seconds:
                self.cut()
                connection.abort()  # it would never take what is still to be written
            elif connection.idle * LOOK_INTERVAL >= connection.idle_seconds:
                connection.close()

    async def drain(self) -> None:
        """Stop accepting, finish the requests that have begun, and close everything."""
        for server in self._servers:
            server.close()
        for listener in self._listeners:
            listener.close()
        # What has arrived already is read in the next turns of the loop, and answered.
        for _ in range(3):
            await asyncio.sleep(0)
        for connection in list(self._connections):
            connection.finish()
        if self._connections:
            self._drained = asyncio.Event()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._drained.wait(), DRAIN_SECONDS)
        for connection in list(self._connections):
            connection.abort()


def _raise_descriptor_limit() -> int:
    """Allow as many open files as the system lets us; give the number of connections that fit."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _CONNECTIONS_MAXIMUM + _OTHER_DESCRIPTORS
    if soft != resource.RLIM_INFINITY and soft < wanted:
        raised = wanted if hard == resource.RLIM_INFINITY else min(hard, wanted)
        with contextlib.suppress(OSError, ValueError):  # a sandbox may forbid it
            resource.setrlimit(resource.RLIMIT_NOFILE, (raised, hard))
            soft = raised
    if soft == resource.RLIM_INFINITY:
        return _CONNECTIONS_MAXIMUM
    return max(1, min(_CONNECTIONS_MAXIMUM, soft - _OTHER_DESCRIPTORS))
