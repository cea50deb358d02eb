"""The workforce of several processes: starts workers on shared listeners and watches over them."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import socket
import sys
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from srsd.daemon.channel import Channel, pack
from srsd.daemon.counters import Snapshot, add_up, no_counts
from srsd.daemon.server import DRAIN_SECONDS
from srsd.daemon.status import WorkerState
from srsd.daemon.workforce import WorkforceError
from srsd.srs import parse_secrets

if TYPE_CHECKING:
    from collections.abc import Sequence

    from srsd.daemon.files import Material
    from srsd.daemon.listeners import Listener

_LOG = logging.getLogger(__name__)
FROZEN_SECONDS = 10  # without a heartbeat, of which there is one a second
_START_SECONDS = 30  # until the first heartbeat
_TRACEBACK_SECONDS = 1  # for a frozen worker to write where it hangs
_EXIT_SECONDS = 2  # between the last word of a worker and its end
_BACK_OFF_FIRST, _BACK_OFF_MAXIMUM = 1, 60  # seconds between restarts, doubled each time
_STEADY_SECONDS = 60  # a worker that lived this long starts again with the first back-off


class _Worker:
    """One place in the workforce, and the process that has it at present."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.restarts = 0
        self.state = "starting"
        self.process: asyncio.subprocess.Process | None = None
        self.channel: Channel | None = None
        self.started: datetime | None = None
        self.heard = 0.0  # when it last gave a sign of life, in the loop's time
        self.counters: Snapshot = no_counts()  # of the present process
        self.former: Snapshot = no_counts()  # of the processes before it
        self.ready = asyncio.Event()
        self.tried = asyncio.Event()  # it was ready, or has failed to become so
        self.in_force = asyncio.Event()

    def describe(self) -> WorkerState:
        return WorkerState(
            pid=self.process.pid if self.process else None,
            state=self.state,
            started=self.started.isoformat(timespec="seconds") if self.started else None,
            restarts=self.restarts,
            lookups=sum(count for *_, count in self.counters["lookups"]),
        )

    def signal(self, number: int) -> None:
        """Send a signal to the process, while it lives."""
        if self.process is not None and self.process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                self.process.send_signal(number)


def _kill(process: asyncio.subprocess.Process | None) -> None:
    """End a process and all that it started, also when it has ended itself."""
    if process is not None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)


class WorkerProcesses:
    """Workers that share the listeners. One that dies is replaced, one that freezes is ended first."""

    def __init__(self, number: int) -> None:
        self._workers = [_Worker(index + 1) for index in range(number)]
        self._listeners: Sequence[Listener] = ()
        self._material: Material
        self._tending: list[asyncio.Task[None]] = []
        self._ending: set[asyncio.Task[None]] = set()
        self._draining = False
        self._ticked = 0.0  # when tick was called last, in the loop's time

    async def start(self, listeners: Sequence[Listener], material: Material) -> None:
        """Start all workers; returns when each of them answers, or has failed to once.

        Raises WorkforceError when none of them answers.
        """
        self._listeners = listeners
        self._material = material
        loop = asyncio.get_running_loop()
        self._ticked = loop.time()
        self._tending = [loop.create_task(self._tend(worker)) for worker in self._workers]
        waiting = [loop.create_task(worker.tried.wait()) for worker in self._workers]
        _, late = await asyncio.wait(waiting, timeout=_START_SECONDS)
        for task in late:
            task.cancel()
        if not any(worker.ready.is_set() for worker in self._workers):
            await self.drain()
            raise WorkforceError("workers: none of them could be started; the lines before this one say why")

    async def _tend(self, worker: _Worker) -> None:
        """Keep one place filled."""
        loop = asyncio.get_running_loop()
        back_off = _BACK_OFF_FIRST
        while True:
            begun = loop.time()
            try:
                await self._run(worker)
            except OSError as error:
                _LOG.error("worker %d could not be started: %s", worker.number, error)
            worker.tried.set()
            if self._draining:
                return
            if loop.time() - begun >= _STEADY_SECONDS:
                back_off = _BACK_OFF_FIRST
            worker.state = "waiting"
            _LOG.warning(
                "worker %d ended (%s); it is started again in %d s, the others go on",
                worker.number,
                _how(worker.process),
                back_off,
            )
            await asyncio.sleep(back_off)
            worker.restarts += 1
            back_off = min(2 * back_off, _BACK_OFF_MAXIMUM)

    async def _run(self, worker: _Worker) -> None:
        """Start a worker process and listen to it until it ends. Raises OSError."""
        worker.state = "starting"
        worker.ready.clear()
        worker.in_force.clear()
        ours, theirs = socket.socketpair()
        descriptors = [theirs.fileno(), *(listener.socket.fileno() for listener in self._listeners)]
        handed = [f"{each.kind}:{each.socket.fileno()}" for each in self._listeners]
        try:
            worker.process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "srsd.daemon.worker", str(theirs.fileno()), *handed),
                stdin=asyncio.subprocess.DEVNULL,
                pass_fds=descriptors,
                start_new_session=True,  # so that all that it starts can be ended with it
            )
        except OSError:
            ours.close()
            raise
        finally:
            theirs.close()
        worker.started = datetime.now(UTC)
        await self._listen(worker, worker.process, ours)

    async def _listen(self, worker: _Worker, process: asyncio.subprocess.Process, end: socket.socket) -> None:
        """Be the other end of a worker's channel until it has ended."""
        loop = asyncio.get_running_loop()
        worker.heard = loop.time() + _START_SECONDS - FROZEN_SECONDS
        channel = worker.channel = await Channel.open(end)
        channel.send({"material": pack(self._material)})
        hearing = loop.create_task(self._hear(worker, channel))
        exiting = loop.create_task(process.wait())
        # Usually both happen at once; but a child of its may hold the channel, or it may hang without it.
        await asyncio.wait((hearing, exiting), return_when=asyncio.FIRST_COMPLETED)
        await asyncio.wait((hearing, exiting), timeout=_EXIT_SECONDS)
        _kill(process)
        await exiting
        hearing.cancel()
        channel.close()
        worker.channel = None
        worker.in_force.set()  # nobody need wait for it any more
        worker.counters["connections_open"] = 0
        worker.counters["forgers"] = []
        worker.former = add_up([worker.former, worker.counters])
        worker.counters = no_counts()

    @staticmethod
    async def _hear(worker: _Worker, channel: Channel) -> None:
        """Take in what a worker says, until its channel ends."""
        loop = asyncio.get_running_loop()
        while message := await channel.receive():
            worker.heard = max(worker.heard, loop.time())
            if "ready" in message:
                worker.state = "running"
                worker.heard = loop.time()
                worker.ready.set()
                worker.tried.set()
            if "counters" in message:
                worker.counters = message["counters"]
            if "in_force" in message:
                worker.in_force.set()

    async def put_in_force(self, material: Material) -> None:
        """Send new material to one worker after the other; each goes on answering meanwhile."""
        for step in _steps(self._material, material):
            self._material = step
            for worker in self._workers:
                if worker.channel is not None:  # others get it when they start
                    await self._send(worker, worker.channel, step)

    @staticmethod
    async def _send(worker: _Worker, channel: Channel, material: Material) -> None:
        worker.in_force.clear()
        channel.send({"material": pack(material)})
        try:
            await asyncio.wait_for(worker.in_force.wait(), FROZEN_SECONDS)
        except TimeoutError:
            _LOG.warning("worker %d does not take the new configuration in", worker.number)

    def tick(self) -> None:
        """Look for workers without a heartbeat."""
        now = asyncio.get_running_loop().time()
        late = now - self._ticked - 1
        self._ticked = now
        for worker in self._workers:
            if late > 1:  # this process stood still itself: heartbeats may wait to be read
                worker.heard += late + 1
            if worker.state in ("starting", "running") and now - worker.heard > FROZEN_SECONDS:
                worker.state = "frozen"
                task = asyncio.get_running_loop().create_task(self._end_frozen(worker))
                self._ending.add(task)
                task.add_done_callback(self._ending.discard)

    async def _end_frozen(self, worker: _Worker) -> None:
        """End a worker that gives no sign of life, after it had the chance to say where it hangs."""
        process = worker.process
        _LOG.error(
            "worker %d (pid %s) gave no sign of life for %d s; it is ended and replaced; "
            "what it was answering is asked again by Postfix",
            worker.number,
            process.pid if process else None,
            FROZEN_SECONDS,
        )
        worker.signal(signal.SIGQUIT)
        await asyncio.sleep(_TRACEBACK_SECONDS)
        if process is not None and process.returncode is None:
            _kill(process)

    def snapshots(self) -> list[Snapshot]:
        """Give the counters of all workers, past and present."""
        return [each for worker in self._workers for each in (worker.former, worker.counters)]

    def states(self) -> list[WorkerState]:
        """Describe the workers."""
        return [worker.describe() for worker in self._workers]

    async def drain(self) -> None:
        """Have all workers finish and end; those that do not are killed."""
        self._draining = True
        for worker in self._workers:
            worker.signal(signal.SIGTERM)
            if worker.channel is None and self._tending:
                self._tending[worker.number - 1].cancel()
        if self._tending:
            _, late = await asyncio.wait(self._tending, timeout=DRAIN_SECONDS + 2)
            for worker in self._workers:
                if worker.process is not None and worker.process.returncode is None:
                    _kill(worker.process)
            if late:
                await asyncio.wait(late, timeout=2)

    def dump_tracebacks(self) -> None:
        """Have the workers write where they are."""
        for worker in self._workers:
            worker.signal(signal.SIGQUIT)


def _steps(former: Material, new: Material) -> list[Material]:
    """Give the material to put in force in turn.

    A secret signs only when every worker knows it: otherwise one would refuse what another made.
    """
    signing = parse_secrets(new.secrets)[:1]
    if not signing or signing[0] in parse_secrets(former.secrets):
        return [new]
    return [new._replace(secrets=former.secrets + b"\n" + new.secrets), new]


def _how(process: asyncio.subprocess.Process | None) -> str:
    """Say how a process ended."""
    code = process.returncode if process else None
    if code is None:
        return "it never ran"
    return f"signal {-code}" if code < 0 else f"status {code}"
