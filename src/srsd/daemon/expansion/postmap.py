"""Postfix's own programs, asked: postmap(1) for tables of any type, postconf(1) for parameters.

A `postmap -q -` prints nothing before its output has filled a buffer, and nothing at all for what it does
not find. So each is started with three tables: one with a single key whose value fills the buffer, the one
that is asked about, and one that has every key. Then it can be kept: an answer costs less than a start.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import secrets
from typing import TYPE_CHECKING

from srsd.daemon.expansion.tables import LookupFailedError
from srsd.daemon.log import loggable

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

_LOG = logging.getLogger(__name__)
PROCESSES_MAXIMUM = 4  # for each table: so many lookups at once, or so many that hang
KEPT_SECONDS = 30.0  # for which a process serves: it may not see that its table was made anew
ANSWER_MAXIMUM = 1 << 22  # octets of the answer to a lookup, or of a file
_FILLER = 1 << 14  # octets; Postfix's buffers have 4096
_ERRORS_MAXIMUM = 4096  # octets of error messages that are read
_IMPOSSIBLE = (b"\n", b"\0")
# Where Postfix's programs are on all systems that have it; the admin's own PATH goes first.
_SYSTEM_PATHS = ("/usr/sbin", "/usr/local/sbin", "/usr/lib/postfix/sbin", "/opt/local/sbin")


def environment() -> dict[str, str]:
    """Give the environment for Postfix's programs. MAIL_CONFIG, if it is set, tells them of which Postfix."""
    path = os.pathsep.join([os.environ.get("PATH", os.defpath), *_SYSTEM_PATHS])
    return {**os.environ, "PATH": path}


async def run(*arguments: str) -> bytes:
    """Run a program to its end; gives its output. Raises LookupFailedError where it fails."""
    name = arguments[0]
    try:
        process = await asyncio.create_subprocess_exec(
            *arguments,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env=environment(),
        )
    except OSError as error:
        raise LookupFailedError(f"{name} cannot be run: {error.strerror or error}") from None
    try:
        output, errors = await process.communicate()
    except asyncio.CancelledError:
        _kill(process)
        raise
    if process.returncode != 0:
        raise LookupFailedError(f"{name} failed: {_last_line(errors) or f'status {process.returncode}'}")
    return output


async def read(path: str) -> bytes:
    """Read a file that may be anywhere, also where reading hangs. Raises LookupFailedError."""
    content = await run("head", "-c", str(ANSWER_MAXIMUM + 1), "--", path)
    if len(content) > ANSWER_MAXIMUM:
        raise LookupFailedError(f"{path} has more than {ANSWER_MAXIMUM} octets")
    return content


class _Process:
    """One postmap that is kept open. Serves one lookup at a time."""

    def __init__(self, process: asyncio.subprocess.Process, marker: bytes, born: float) -> None:
        self._process = process
        self._marker = marker
        self.born = born

    @classmethod
    async def start(cls, table: str, directory: str, now: float) -> _Process:
        name = f"srsd.{secrets.token_hex(8)}"
        tables = (f"inline:{{{name}={'x' * _FILLER}}}", table, f"static:{name}")
        try:
            process = await asyncio.create_subprocess_exec(
                "postmap",
                "-q",
                "-",
                *tables,
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
                env=environment(),
                cwd=directory,
                limit=ANSWER_MAXIMUM,
            )
        except OSError as error:
            raise LookupFailedError(f"postmap cannot be run: {error.strerror or error}") from None
        return cls(process, name.encode(), now)

    async def ask(self, keys: Sequence[bytes]) -> dict[bytes, bytes]:
        """Look keys up. Whatever is raised, the process is of no more use."""
        stdin, stdout = self._process.stdin, self._process.stdout
        assert stdin is not None  # noqa: S101 - for mypy: they are pipes
        assert stdout is not None  # noqa: S101 - as above
        stdin.write(b"".join([key + b"\n" for key in keys]) + self._marker + b"\n")
        try:
            text = await stdout.readuntil(self._marker + b"\t")
            await stdin.drain()
        except asyncio.LimitOverrunError:
            raise LookupFailedError(f"an answer of more than {ANSWER_MAXIMUM} octets") from None
        except (asyncio.IncompleteReadError, OSError):
            raise LookupFailedError(await self._why_it_ended()) from None
        return self._parse(text, keys)

    def _parse(self, text: bytes, keys: Sequence[bytes]) -> dict[bytes, bytes]:
        """Read lines of `key TAB value`, in the order of keys, behind the tail of what filled the buffer."""
        lines = text.split(b"\n")[:-1]
        if lines and not lines[0].strip(b"x"):
            del lines[0]
        found: dict[bytes, bytes] = {}
        following = iter(keys)
        for line in lines:
            for key in following:
                if line.startswith(key + b"\t"):
                    value = line[len(key) + 1 :]
                    if value and value != self._marker:
                        found[key] = value
                    break
            else:
                raise LookupFailedError("an answer with a line that no key has")
        return found

    async def _why_it_ended(self) -> str:
        stderr = self._process.stderr
        assert stderr is not None  # noqa: S101 - for mypy: it is a pipe
        with contextlib.suppress(TimeoutError, OSError):
            async with asyncio.timeout(1):
                line = _last_line(await stderr.read(_ERRORS_MAXIMUM))
                return line or f"status {await self._process.wait()}"
        return "it ended"

    @property
    def alive(self) -> bool:
        return self._process.returncode is None

    async def end(self) -> None:
        _kill(self._process)
        await self._process.communicate()  # the rest of its output, and its end


def _kill(process: asyncio.subprocess.Process) -> None:
    """End a process that only reads."""
    with contextlib.suppress(ProcessLookupError):
        process.kill()
    if process.stdin is not None:
        process.stdin.close()


def _last_line(errors: bytes) -> str:
    lines = errors.strip().splitlines()
    line = loggable(lines[-1]) if lines else ""
    return line.removeprefix("postmap: fatal: ").removeprefix("postconf: fatal: ")


class _Pool:
    """The processes of one table."""

    def __init__(self, table: str) -> None:
        self.table = table
        self.free: list[_Process] = []
        self.places = asyncio.Semaphore(PROCESSES_MAXIMUM)
        self.generation = 0  # raised when processes that serve now shall not serve again


class Postmap:
    """Asks tables through a few postmap processes each, which are kept for KEPT_SECONDS."""

    def __init__(self, directory: str, timer: Callable[[], float]) -> None:
        """Prepare to ask. Paths of sockets are relative to directory, which is Postfix's queue directory."""
        self.directory = directory
        self._timer = timer
        self._pools: dict[str, _Pool] = {}
        self._running: set[_Process] = set()
        self._ending: set[asyncio.Task[None]] = set()
        self.started = 0  # processes, ever

    async def ask(self, table: str, keys: Sequence[bytes]) -> dict[bytes, bytes]:
        """Look keys up in a table, `type:name`; gives what was found. Raises LookupFailedError.

        Whoever cancels it ends the process that has not answered.
        """
        askable = list(dict.fromkeys(key for key in keys if not any(octet in key for octet in _IMPOSSIBLE)))
        pool = self._pools.get(table)
        if pool is None:
            pool = self._pools[table] = _Pool(table)
        async with pool.places:
            generation = pool.generation
            process = await self._take(pool)
            good = False
            try:
                found = await process.ask(askable)
                good = generation == pool.generation
            except LookupFailedError as error:
                raise LookupFailedError(f"{_short(table)}: {error}") from None
            finally:
                if good:
                    pool.free.append(process)
                else:
                    self._end(process)
            return found

    async def _take(self, pool: _Pool) -> _Process:
        now = self._timer()
        while pool.free:
            process = pool.free.pop()
            if process.alive and now - process.born < KEPT_SECONDS:
                return process
            self._end(process)
        self.started += 1
        process = await _Process.start(pool.table, self.directory, now)
        self._running.add(process)
        return process

    def _end(self, process: _Process) -> None:
        if process not in self._running:
            return
        self._running.discard(process)
        ending = asyncio.get_running_loop().create_task(process.end())
        self._ending.add(ending)
        ending.add_done_callback(self._ending.discard)

    async def read(self, path: str) -> bytes:
        """Read a file. Raises LookupFailedError."""
        return await read(path)

    def tick(self) -> None:
        """End what has served for long enough."""
        now = self._timer()
        for pool in self._pools.values():
            old = [process for process in pool.free if now - process.born >= KEPT_SECONDS]
            pool.free = [process for process in pool.free if process not in old]
            for process in old:
                self._end(process)

    def forget(self) -> None:
        """End all processes; those that have something to answer, after that."""
        for pool in self._pools.values():
            pool.generation += 1
            for process in pool.free:
                self._end(process)
            pool.free.clear()

    async def close(self) -> None:
        """End all processes, and wait until they have ended."""
        self.forget()
        for process in list(self._running):
            self._end(process)
        await asyncio.gather(*self._ending)


def _short(table: str) -> str:
    """Name a table in few characters: inline ones hold all their content."""
    name = loggable(table.encode(errors="surrogateescape"))
    return name if len(name) <= 100 else name[:100] + "..."
