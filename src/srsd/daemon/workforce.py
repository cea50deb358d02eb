"""Who answers: this process itself, or workers that it watches over. The rest need not know."""

from __future__ import annotations

import os
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Protocol

from srsd.daemon.serving import Serving
from srsd.daemon.status import WorkerState

if TYPE_CHECKING:
    from collections.abc import Sequence

    from srsd.daemon.counters import Snapshot
    from srsd.daemon.files import Material
    from srsd.daemon.listeners import Listener


class WorkforceError(Exception):
    """There is nobody to answer lookups; the log says why."""


class Workforce(Protocol):
    """Those who answer lookups."""

    async def start(self, listeners: Sequence[Listener], material: Material) -> None:
        """Begin to answer on the listeners; returns when lookups are answered.

        Raises WorkforceError when nobody can.
        """
        ...

    async def put_in_force(self, material: Material) -> None:
        """Have everyone answer from new material; returns when they do."""
        ...

    def tick(self) -> None:
        """Do what is due every second."""
        ...

    def snapshots(self) -> list[Snapshot]:
        """Give the counters of everyone who ever answered."""
        ...

    def states(self) -> list[WorkerState]:
        """Describe everyone."""
        ...

    async def drain(self) -> None:
        """Finish what is in flight and end."""
        ...

    def dump_tracebacks(self) -> None:
        """Have others than this process write where they are to the log."""
        ...


class InProcess:
    """The workforce of workers = 1: this process."""

    def __init__(self) -> None:
        self._serving: Serving
        self._started = datetime.now(UTC)

    async def start(self, listeners: Sequence[Listener], material: Material) -> None:
        """Begin to answer."""
        self._serving = Serving(material)
        await self._serving.start(listeners)

    async def put_in_force(self, material: Material) -> None:
        """Answer from new material."""
        self._serving.put_in_force(material)

    def tick(self) -> None:
        """Do what is due every second."""
        self._serving.tick()

    def snapshots(self) -> list[Snapshot]:
        """Give the counters."""
        return [self._serving.snapshot()]

    def states(self) -> list[WorkerState]:
        """Describe this process."""
        lookups = sum(count for *_, count in self._serving.snapshot()["lookups"])
        started = self._started.isoformat(timespec="seconds")
        return [WorkerState(pid=os.getpid(), state="running", started=started, restarts=0, lookups=lookups)]

    async def drain(self) -> None:
        """Finish what is in flight."""
        await self._serving.drain()

    def dump_tracebacks(self) -> None:
        """Do nothing: there is no other process."""
