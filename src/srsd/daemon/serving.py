"""One process's share of the work: its tables and its filter on the listeners, connections, counters."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from srsd.daemon.connection import LookupConnection
from srsd.daemon.counters import Counters, Snapshot
from srsd.daemon.milter_connection import MilterConnection
from srsd.daemon.server import LOOK_INTERVAL, Server
from srsd.daemon.service import Service

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Sequence

    from srsd.daemon.files import Material
    from srsd.daemon.listeners import Listener


class Serving:
    """Answers lookups and judges mail in this process."""

    def __init__(self, material: Material) -> None:
        self._counters = Counters()
        self._service = Service(material, self._counters)
        self._server = Server(self._counters)
        self._seconds = 0

    async def start(self, listeners: Sequence[Listener]) -> None:
        """Begin to accept on listeners."""
        await self._service.start()
        await self._server.start(listeners, self._factories())

    def _factories(self) -> dict[str, Callable[[], asyncio.Protocol]]:
        """Tell what serves a connection, for each kind of listener."""
        server, service = self._server, self._service
        factories: dict[str, Callable[[], asyncio.Protocol]] = {
            name: partial(LookupConnection, server, table) for name, table in service.tables.items()
        }
        factories["milter"] = lambda: MilterConnection(server, service.mail_filter)
        return factories

    def tick(self) -> None:
        """Do what is due every second."""
        self._seconds += 1
        self._service.tick()
        if self._seconds % LOOK_INTERVAL == 0:
            self._server.look_over()

    def put_in_force(self, material: Material) -> None:
        """Answer from new material from now on; connections stay."""
        self._service.put_in_force(material)

    def snapshot(self) -> Snapshot:
        """Give the counters as they are now."""
        return self._counters.snapshot()

    async def drain(self) -> None:
        """Finish what is in flight and close everything."""
        await self._server.drain()
        await self._service.close()
