"""Where recipients lead, asked of the Postfix on this host and kept for a short time."""

from __future__ import annotations

import asyncio
import logging
import os
from typing import TYPE_CHECKING, NamedTuple

from srsd.daemon.expansion.postmap import Postmap
from srsd.daemon.expansion.settings import read_settings
from srsd.daemon.expansion.tables import LookupFailedError
from srsd.daemon.expansion.walk import Routes
from srsd.filter.forwarding import Expansion
from srsd.syntax.address import parse_path
from srsd.syntax.endpoint import InetEndpoint, UnixEndpoint

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from srsd.config import Listen
    from srsd.daemon.expansion.settings import Settings
    from srsd.daemon.expansion.walk import Walked
    from srsd.filter.forwarding import ForwardingParameters

_LOG = logging.getLogger(__name__)
KEPT_SECONDS = 30.0  # for which it is remembered where a recipient leads
PROBLEM_SECONDS = 5.0  # for which it is remembered that a table did not answer
_GENERATION = 10_000  # recipients that are remembered, twice over: the present generation and the one before
_AT_ONCE = 16  # recipients of one message
_COPIES = b"\0"  # before a sender: the copies of what it sends, in place of a recipient. In no path of an MTA
_MAPS = ("forward", "reverse", "srsencoder", "srsdecoder")  # the socketmaps that srsd serves
_SUFFIXES = ("", ".db", ".lmdb", ".cdb", ".pag", ".dir", ".sdbm")  # of what postmap(1) makes
_LISTS = ("_maps", "_domains", "mydestination")  # the names of parameters that list tables end so
_FILE_TYPES = frozenset(
    {"btree", "cdb", "cidr", "dbm", "hash", "lmdb", "pcre", "regexp", "sdbm", "sqlite", "texthash"}
)


class _Kept(NamedTuple):
    expansion: Expansion
    until: float


class PostfixExpander:
    """Follows recipients through the tables of Postfix.

    A recipient that is asked for again within KEPT_SECONDS is answered at once, unless a file has changed
    that Postfix goes by.
    """

    def __init__(
        self,
        parameters: ForwardingParameters,
        timer: Callable[[], float],
        own_tables: Callable[[Settings], Iterable[str]] | None = None,
    ) -> None:
        """own_tables names the tables that srsd itself serves, as Postfix's main.cf does.

        Whoever changes parameters must call forget().
        """
        self.parameters = parameters
        self._timer = timer
        self._own_tables = own_tables
        self._kept: dict[bytes, _Kept] = {}
        self._former: dict[bytes, _Kept] = {}
        self._under_way: dict[bytes, asyncio.Task[Expansion]] = {}
        self._reading: asyncio.Task[Routes] | None = None
        self._read_at = 0.0
        self._postmap: Postmap | None = None
        self._stamps: dict[str, object] = {}
        self._has_copies = False  # that no recipient is the cause of
        self._copies_by_sender = False  # and whether it matters who sends
        self._generation = 0  # raised when nothing that was found before may be kept
        self.asked = 0  # recipients that were not known

    def known(self, recipients: Sequence[bytes], sender: bytes) -> Expansion | None:
        """Tell where recipients and copies lead, if that is known already."""
        now = self._timer()
        steps: list[tuple[str, ...]] = []
        problem = ""
        for recipient in (*recipients, *self._copies_for(sender)):
            kept = self._kept.get(recipient) or self._former.get(recipient)
            if kept is None or kept.until < now:
                return None
            if kept.expansion.leaves:
                return kept.expansion
            problem = problem or kept.expansion.problem
            steps.append(kept.expansion.steps)
        return Expansion(steps=sum(steps, ()), problem=problem)

    async def expand(self, recipients: Sequence[bytes], sender: bytes) -> Expansion:
        """Find out where recipients and copies lead, some at once, until one leaves this host."""
        steps: tuple[str, ...] = ()
        problem = ""
        for start in range(0, len(recipients), _AT_ONCE):
            some = recipients[start : start + _AT_ONCE]
            for found in await asyncio.gather(*[asyncio.shield(self._one(each)) for each in some]):
                if found.leaves:
                    return found
                steps += found.steps
                problem = problem or found.problem
        for copies in self._copies_for(sender):  # which are known by now, if the recipients are
            found = await asyncio.shield(self._one(copies))
            if found.leaves:
                return found
            steps, problem = steps + found.steps, problem or found.problem
        return Expansion(steps=steps, problem=problem)

    def _copies_for(self, sender: bytes) -> tuple[bytes, ...]:
        """Name the copies of what a sender sends, if there are any: followed as one more recipient is."""
        if not self._has_copies:
            return ()
        return (_COPIES + sender if self._copies_by_sender else _COPIES,)

    def _one(self, recipient: bytes) -> asyncio.Task[Expansion]:
        """Begin to follow a recipient, once for all messages that wait for it."""
        task = self._under_way.get(recipient)
        if task is None:
            task = asyncio.get_running_loop().create_task(self._follow(recipient))
            self._under_way[recipient] = task
            task.add_done_callback(lambda done: self._ended(recipient, done))
        return task

    def _ended(self, recipient: bytes, task: asyncio.Task[Expansion]) -> None:
        if self._under_way.get(recipient) is task:
            del self._under_way[recipient]

    async def _follow(self, recipient: bytes) -> Expansion:
        kept = self._kept.get(recipient) or self._former.get(recipient)
        if kept is not None and kept.until >= self._timer():
            return kept.expansion
        self.asked += 1
        seconds = self.parameters.expansion_timeout
        generation = self._generation
        try:
            async with asyncio.timeout(seconds):
                walked = await self._walk(recipient)
        except TimeoutError:
            expansion = Expansion(recipient=recipient, problem=f"no answer within {seconds:g} s")
        except LookupFailedError as error:
            expansion = Expansion(recipient=recipient, problem=str(error))
        else:
            copies = recipient.startswith(_COPIES)
            cause = b"<" + walked.leaves + b">" if copies and walked.leaves else recipient
            expansion = Expansion(walked.leaves, cause, walked.steps)
        if generation == self._generation:  # else something has changed since
            self._keep(recipient, expansion)
        return expansion

    async def _walk(self, recipient: bytes) -> Walked:
        path = recipient.removeprefix(_COPIES)
        address = parse_path(path)
        text = address.local_part + b"@" + address.domain if address else path.strip(b"<>")
        routes = await asyncio.shield(self._routes())
        return await (routes.follow(text) if path == recipient else routes.follow_copies(text))

    def _keep(self, recipient: bytes, expansion: Expansion) -> None:
        if len(self._kept) >= _GENERATION:
            self._former, self._kept = self._kept, {}
        seconds = PROBLEM_SECONDS if expansion.problem else KEPT_SECONDS
        self._kept[recipient] = _Kept(expansion, self._timer() + seconds)

    # What Postfix says of itself.

    def _routes(self) -> asyncio.Task[Routes]:
        """Give Postfix's configuration, read once; what could not be read is read again after a while."""
        reading = self._reading
        failed = reading is not None and reading.done() and (reading.cancelled() or reading.exception())
        if reading is None or (failed and self._timer() - self._read_at >= PROBLEM_SECONDS):
            self._read_at = self._timer()
            reading = self._reading = asyncio.get_running_loop().create_task(self._read())
        return reading

    async def _read(self) -> Routes:
        settings = await read_settings()
        own_tables = self._own_tables(settings) if self._own_tables is not None else ()
        if self._postmap is None:  # kept, since recipients that are being followed still ask it
            self._postmap = Postmap(settings["queue_directory"], self._timer)
        self._postmap.directory = settings["queue_directory"]
        self._stamps = {path: _stamp(path) for path in _files_of(settings)}
        stays = self.parameters.relayed == "stays"
        routes = Routes(settings, self._postmap, relayed_stays=stays, own_tables=own_tables)
        self._has_copies, self._copies_by_sender = routes.has_copies, routes.has_copies_by_sender
        return routes

    async def check(self) -> str:
        """Read Postfix's configuration; gives what is wrong with that, "" where nothing is."""
        try:
            async with asyncio.timeout(self.parameters.expansion_timeout):
                await asyncio.shield(self._routes())
        except TimeoutError:
            return f"postconf did not answer within {self.parameters.expansion_timeout:g} s"
        except LookupFailedError as error:
            return str(error)
        return ""

    def tick(self) -> None:
        """Look whether a file has changed that Postfix goes by; once a second."""
        if self._postmap is None:
            return
        self._postmap.tick()
        for path, stamp in self._stamps.items():
            if _stamp(path) != stamp:
                self.forget()
                return

    def forget(self) -> None:
        """Ask everything anew from now on."""
        self._generation += 1
        self._kept, self._former = {}, {}
        self._stamps = {}
        if self._postmap is not None:
            self._postmap.forget()
        self._reading = None
        self._under_way = {}

    async def close(self) -> None:
        """End what was started; nothing is asked any more."""
        self.forget()
        if self._postmap is not None:
            await self._postmap.close()


def own_tables(listen: Listen) -> Callable[[Settings], Iterable[str]]:
    """Name the tables that srsd serves, as main.cf may name them.

    They have SRS addresses only, so for others they need not be asked.
    """

    def names(settings: Settings) -> Iterator[str]:
        for endpoint in (*listen.srs_forward, *listen.srs_reverse):
            if isinstance(endpoint, InetEndpoint):
                yield f"tcp:{endpoint.host}:{endpoint.port}"
        for endpoint in listen.socketmap:
            places = [str(endpoint).partition("?")[0]]
            if isinstance(endpoint, UnixEndpoint):
                directory = settings["queue_directory"].rstrip("/") + "/"
                places.append(f"unix:{endpoint.path.removeprefix(directory)}")
            yield from (f"socketmap:{place}:{name}" for place in places for name in _MAPS)

    return names


def _files_of(settings: Settings) -> Iterator[str]:
    """Give the paths of main.cf, master.cf, and of the tables that are files."""
    for name in ("main.cf", "master.cf"):
        yield os.path.join(settings["config_directory"], name)
    values = [value for name, value in settings.parameters.items() if name.endswith(_LISTS)]
    for value in values:
        for word in value.replace(",", " ").split():
            kind, _, path = word.removeprefix("proxy:").rpartition(":")
            if path.startswith("/") and kind in _FILE_TYPES:
                yield from (path + suffix for suffix in _SUFFIXES)
            elif word.startswith("/"):
                yield word


def _stamp(path: str) -> object:
    """Give what tells one version of a file from another."""
    try:
        found = os.stat(path)
    except OSError as error:
        return error.errno
    return found.st_mtime_ns, found.st_size, found.st_ino
