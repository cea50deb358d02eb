"""The store of addresses as the event loop sees it: a thread waits for the disk, the loop never does.

What many connections ask at the same time is written in one go.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

from srsd.address_store import StoreError
from srsd.daemon.address_file import AddressFile, Entry, Size
from srsd.daemon.counters import StoreSnapshot

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from srsd.daemon.counters import Counters

_LOG = logging.getLogger(__name__)
_ANSWER_SECONDS = 20  # then Postfix is told to come again: it waits for 100 s itself
_WAITING_MAXIMUM = 20_000  # questions; more than there are connections
_AT_ONCE = 1000  # written in one go
_SAY_AGAIN_SECONDS = 60
_END_SECONDS = 3.0


class _Token(NamedTuple):
    """The question for an address."""

    token: bytes


class _Expire(NamedTuple):
    """The order to remove what nobody needs after a day."""

    today: int


class _Look(NamedTuple):
    """The order to see how much there is."""


_Question: TypeAlias = Entry | _Token
_Waiter: TypeAlias = "asyncio.Future[bytes | None]"
_Outcome: TypeAlias = bytes | StoreError | None


class _Job(NamedTuple):
    question: _Question
    waiter: _Waiter


class StoreThread:
    """An AddressStore over the file, for one event loop. Start and end are those of the loop.

    generation changes when what is in the file is no more what was: whoever keeps answers forgets them.
    """

    def __init__(self, path: str, megabytes: int, counters: Counters) -> None:
        """Begin; the file is opened when it is first needed."""
        self.megabytes = megabytes
        self.generation = 0
        self._path = path
        self._counters = counters
        self._loop = asyncio.get_running_loop()
        self._jobs: SimpleQueue[_Job | _Expire | _Look | None] = SimpleQueue()
        self._waiting = 0
        self._ended = asyncio.Event()
        self._size: Size | None = None
        self._trouble = _Trouble(path)
        # A disk that hangs must not keep the process from ending.
        self._thread = threading.Thread(target=self._work, name="address store", daemon=True)
        self._thread.start()

    async def keep(self, token: bytes, address: bytes, expires: int) -> None:
        """Keep an address; returns when it is on the disk. Raises StoreError."""
        await self._ask(Entry(token, address, expires))
        self._counters.count("address_store", "kept")

    async def recall(self, token: bytes) -> bytes | None:
        """Give the address that a token stands for, or None. Raises StoreError."""
        address = await self._ask(_Token(token))
        self._counters.count("address_store", "unknown" if address is None else "recalled")
        return address

    async def _ask(self, question: _Question) -> bytes | None:
        try:
            if self._waiting >= _WAITING_MAXIMUM:
                raise StoreError("too many questions wait for the disk")
            waiter: _Waiter = self._loop.create_future()
            self._waiting += 1
            self._jobs.put(_Job(question, waiter))
            async with asyncio.timeout(_ANSWER_SECONDS):
                return await waiter
        except TimeoutError:
            self._counters.count("address_store", "failed")
            error = StoreError(f"has not answered for {_ANSWER_SECONDS} s, would be right: a disk that does")
            self._trouble.note(error)
            raise error from None
        except StoreError:
            self._counters.count("address_store", "failed")
            raise

    def expire(self, today: int) -> None:
        """Remove what nobody needs any more, beside the rest."""
        self._jobs.put(_Expire(today))

    def look(self) -> None:
        """See how much there is, since other processes write too, and whether trouble is over."""
        if self._jobs.empty():
            self._jobs.put(_Look())

    def snapshot(self) -> StoreSnapshot:
        """Tell how much there is, and whether it works."""
        size = self._size or Size(0, 0)
        return StoreSnapshot(
            addresses=size.addresses,
            octets=size.octets,
            maximum_octets=self.megabytes * 1_000_000,
            failing=int(self._trouble.lasts),
        )

    async def close(self) -> None:
        """Finish what was asked, and end. A disk that hangs is not waited for."""
        self._jobs.put(None)
        try:
            await asyncio.wait_for(self._ended.wait(), _END_SECONDS)
        except TimeoutError:
            _LOG.warning("%s: the disk does not answer; srsd ends all the same", self._path)

    # In the thread from here on --------------------------------------------------------------

    def _work(self) -> None:
        file: AddressFile | None = None
        go_on = True
        while go_on:
            jobs = self._next()
            go_on = None not in jobs
            asked = [job for job in jobs if isinstance(job, _Job)]
            orders = dict.fromkeys(job for job in jobs if isinstance(job, (_Expire, _Look)))
            try:
                file = self._open(file)
                outcomes = _answer(file, asked)
                failed = next((each for each in outcomes if isinstance(each, StoreError)), None)
                if failed is None:
                    for order in orders:
                        self._obey(file, order)
                self._size = file.size()
            except StoreError as error:
                failed, outcomes = error, [error] * len(asked)
            except Exception as error:  # noqa: BLE001 - whatever it is, the thread goes on
                _LOG.exception("%s: a bug in srsd, please report it; the mail waits", self._path)
                failed, outcomes = StoreError(repr(error)), [StoreError(repr(error))] * len(asked)
            if failed is not None:
                self._trouble.note(failed)
                if file is not None:
                    file.close()
                file = None  # opened anew for whoever asks next
            self._tell(asked, outcomes)
        if file is not None:
            file.close()
        self._call(self._ended.set)

    def _next(self) -> list[_Job | _Expire | _Look | None]:
        """Wait for something to do; take all of it that is there."""
        jobs = [self._jobs.get()]
        try:
            while len(jobs) < _AT_ONCE:
                jobs.append(self._jobs.get_nowait())
        except Empty:
            pass
        return jobs

    def _open(self, file: AddressFile | None) -> AddressFile:
        """Give the file, opened anew where the name no longer leads to it."""
        if file is not None:
            current = file.is_current()
            if current and file.megabytes == self.megabytes:
                return file
            file.close()
            if current:
                return AddressFile(self._path, self.megabytes)
            _LOG.warning("%s: was removed or replaced; what is there now is in force", self._path)
            self.generation += 1
        return AddressFile(self._path, self.megabytes)

    def _obey(self, file: AddressFile, order: _Expire | _Look) -> None:
        if isinstance(order, _Expire):
            if file.expire(order.today):
                self._jobs.put(order)  # the rest after whoever waits by now
        elif self._trouble.lasts:
            file.probe()
            self._trouble.end()

    def _tell(self, asked: list[_Job], outcomes: list[_Outcome]) -> None:
        if asked:
            self._call(self._settle, asked, outcomes)

    def _call(self, function: Callable[..., object], *arguments: object) -> None:
        try:
            self._loop.call_soon_threadsafe(function, *arguments)
        except RuntimeError:  # the loop has ended without us
            return

    # In the loop again -----------------------------------------------------------------------

    def _settle(self, asked: list[_Job], outcomes: list[_Outcome]) -> None:
        self._waiting -= len(asked)
        for job, outcome in zip(asked, outcomes, strict=True):
            if job.waiter.done():  # nobody waits any more
                continue
            if isinstance(outcome, StoreError):
                job.waiter.set_exception(outcome)
            else:
                job.waiter.set_result(outcome)


def _answer(file: AddressFile, asked: Iterable[_Job]) -> list[_Outcome]:
    """Answer questions, in their order. What cannot be written does not keep others from being read."""
    questions = [job.question for job in asked]
    entries = list(dict.fromkeys(each for each in questions if isinstance(each, Entry)))
    kept: _Outcome = None
    try:
        if entries:
            file.keep(entries)
    except StoreError as error:
        kept = error
    outcomes: list[_Outcome] = []
    for question in questions:
        if isinstance(question, Entry):
            outcomes.append(kept)
            continue
        try:
            outcomes.append(file.recall(question.token))
        except StoreError as error:
            outcomes.append(error)
    return outcomes


class _Trouble:
    """Says what is wrong once, again each minute, and when it is over. Called from both threads."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._said = 0.0
        self.lasts = False

    def note(self, error: StoreError) -> None:
        now = time.monotonic()
        if not self.lasts or now - self._said >= _SAY_AGAIN_SECONDS:
            self._said = now
            _LOG.error("%s: %s; until then senders that must be stored wait", self._path, error)
        self.lasts = True

    def end(self) -> None:
        self.lasts = False
        _LOG.info("%s: works again", self._path)
