"""The daemon while it runs: signals, the second hand, reloads, status; until it ends."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
from collections import deque
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from srsd import __version__
from srsd.daemon.control import ControlServer
from srsd.daemon.counters import LATENCY_BOUNDS, add_up
from srsd.daemon.event_loop import settle
from srsd.daemon.listeners import SERVED, Listener, endpoints_line
from srsd.daemon.log import READY
from srsd.daemon.notify import notify
from srsd.daemon.secret_ages import describe_secrets
from srsd.daemon.status import Reload, Status
from srsd.daemon.tracebacks import dump_on_sigquit

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Sequence

    from srsd.daemon.files import Sources
    from srsd.daemon.metrics import MetricsServer
    from srsd.daemon.workforce import Workforce

_LOG = logging.getLogger(__name__)
_RATE_SECONDS = (1, 10, 60)


class Daemon:
    """Ties the files, the workforce and the control socket together."""

    def __init__(
        self,
        path: str,
        sources: Sources,
        workforce: Workforce,
        listeners: Sequence[Listener],
        make_metrics: Callable[[Callable[[], Status]], MetricsServer] | None,
    ) -> None:
        self._path = path
        self._sources = sources
        self._workforce = workforce
        self._listeners = listeners
        self._control = ControlServer({"status": self._answer_status, "reload": self._answer_reload})
        self._metrics = make_metrics(self.status) if make_metrics is not None else None
        self._started = datetime.now(UTC)
        self._last_reload = Reload(time=_now(), good=True, faults=[])
        self._reloading = asyncio.Lock()
        self._totals: deque[int] = deque(maxlen=max(_RATE_SECONDS) + 1)  # lookups, second by second
        self._tasks: set[asyncio.Task[object]] = set()

    async def run(self) -> None:
        """Serve until SIGTERM or SIGINT, then finish what is in flight."""
        loop = asyncio.get_running_loop()
        ended = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, ended.set)
        loop.add_signal_handler(signal.SIGHUP, lambda: self._spawn(self._reload()))
        dump_on_sigquit(self._workforce.dump_tracebacks)
        served = [listener for listener in self._listeners if listener.kind in SERVED]
        starting = loop.create_task(self._workforce.start(served, self._sources.files.material))
        ending = loop.create_task(ended.wait())
        await asyncio.wait((starting, ending), return_when=asyncio.FIRST_COMPLETED)
        if not starting.done():
            starting.cancel()
            await self._workforce.drain()
            return
        await starting  # raises what it raised
        await self._start_control()
        settle()
        ticking = loop.create_task(self._tick())
        READY.info("srsd %s ready: %s", __version__, endpoints_line(self._listeners))
        notify("READY=1")
        await ending
        notify("STOPPING=1")
        ticking.cancel()
        self._control.close()
        if self._metrics is not None:
            self._metrics.close()
        await self._workforce.drain()
        _LOG.info("srsd has ended")

    async def _start_control(self) -> None:
        for listener in self._listeners:
            if listener.kind == "control":
                await self._control.start(listener)
            elif listener.kind == "metrics" and self._metrics is not None:
                await self._metrics.start(listener)

    def _spawn(self, work: Coroutine[Any, Any, object]) -> None:
        """Run a coroutine beside the rest, and keep it alive until it is done."""
        task: asyncio.Task[object] = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _tick(self) -> None:
        """Do what is due every second, come what may: without it srsd would not see the day change."""
        while True:
            await asyncio.sleep(1)
            try:
                notify("WATCHDOG=1")
                self._workforce.tick()
                self._totals.append(self._total())
                if self._sources.poll():
                    self._spawn(self._put_in_force())
            except Exception:  # noqa: BLE001 - whatever it is, the next second comes
                _LOG.exception("a bug in srsd, please report it; it goes on")

    async def _put_in_force(self) -> None:
        async with self._reloading:
            await self._workforce.put_in_force(self._sources.files.material)

    async def _reload(self) -> list[str]:
        """Read everything again; gives the faults."""
        async with self._reloading:
            notify("RELOADING=1")
            faults = self._sources.reload()
            self._last_reload = Reload(time=_now(), good=not faults, faults=faults)
            if not faults:
                await self._workforce.put_in_force(self._sources.files.material)
            notify("READY=1")
            return faults

    async def _answer_status(self) -> Status:
        return self.status()

    async def _answer_reload(self) -> dict[str, list[str]]:
        return {"faults": await self._reload()}

    def _total(self) -> int:
        return sum(count for each in self._workforce.snapshots() for *_, count in each["lookups"])

    def status(self) -> Status:
        """Tell everything about the daemon."""
        files = self._sources.files
        fingerprints = files.keyring.fingerprints if files.keyring else ()
        totals = [*self._totals, self._total()]
        rates = {}
        for seconds in _RATE_SECONDS:
            span = min(seconds, len(totals) - 1)
            rates[str(seconds)] = (totals[-1] - totals[-1 - span]) / span if span else 0.0
        return Status(
            version=__version__,
            pid=os.getpid(),
            started=self._started.isoformat(timespec="seconds"),
            started_timestamp=self._started.timestamp(),
            uptime_seconds=int((datetime.now(UTC) - self._started).total_seconds()),
            event_loop=type(asyncio.get_running_loop()).__module__.partition(".")[0],
            configuration=self._path,
            last_reload=self._last_reload,
            listeners=[str(listener) for listener in self._listeners],
            workers=self._workforce.states(),
            secrets=describe_secrets(files.config.state_directory, fingerprints),
            counters=add_up(self._workforce.snapshots()),
            latency_bounds=list(LATENCY_BOUNDS),
            lookups_per_second=rates,
        )


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
