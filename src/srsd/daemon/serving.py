"""One process's share of the work: its tables on the listeners, its connections, its counters."""

from __future__ import annotations

from typing import TYPE_CHECKING

from srsd.daemon.counters import Counters, Snapshot
from srsd.daemon.server import LOOK_INTERVAL, Server
from srsd.daemon.service import Service

if TYPE_CHECKING:
    from collections.abc import Sequence

    from srsd.daemon.files import Material
    from srsd.daemon.listeners import Listener


class Serving:
    """Answers lookups in this process."""

    def __init__(self, material: Material) -> None:
        self._counters = Counters()
        self._service = Service(material, self._counters)
        self._server = Server(self._counters)
        self._seconds = 0

    async def start(self, listeners: Sequence[Listener]) -> None:
        """Begin to accept on the listeners of tables."""
        await self._server.start(listeners, self._service.tables)

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
