"""A file that is read again when it changes. A bad new version leaves the old one in force."""

from __future__ import annotations

import contextlib
import grp
import logging
import os
import stat
from typing import TYPE_CHECKING, Generic, TypeVar

from srsd.errors import ConfigError, Fault

if TYPE_CHECKING:
    from collections.abc import Callable

_LOG = logging.getLogger(__name__)
_SIZE_MAXIMUM = 64 * 1024 * 1024
_FORBIDDEN_MODE = stat.S_IRWXO | stat.S_IWGRP  # of a file of secrets

T = TypeVar("T")
_Signature = tuple[int, ...] | None


class WatchedFile(Generic[T]):
    """A file and the value that its text parses to.

    parse raises ConfigError, or ValueError, for bad text. A file that may be absent counts as
    empty then; any other is a fault. private demands the mode of a file of secrets.
    """

    def __init__(
        self,
        path: str,
        parse: Callable[[bytes], T],
        *,
        may_be_absent: bool = False,
        private: bool = False,
    ) -> None:
        self.path = path
        self._parse = parse
        self._may_be_absent = may_be_absent
        self._private = private
        self._loaded: _Signature = None
        self._changing: _Signature = None
        self.text = b""
        self.value: T

    def load(self) -> None:
        """Read the file now. Raises ConfigError, and then keeps the value that it had."""
        try:
            signature, text = self._read()
            self.value = self._parse_text(text)
        except ConfigError as error:
            error.name_file(self.path)
            raise
        self._loaded = self._changing = signature
        self.text = text

    def poll(self) -> bool:
        """Look whether the file has changed, and read it then; tell whether there is a new value.

        A change is read when it has stood still from one poll to the next, so that a file which
        is just being written is not read in halves. Faults are logged.
        """
        signature = self._signature()
        if signature == self._loaded:
            return False
        if signature != self._changing:
            self._changing = signature
            return False
        self._loaded = signature  # a bad version is reported once
        try:
            self.load()
        except ConfigError as error:
            for line in error.lines():
                _LOG.error("%s; the version before it stays in force", line)
            return False
        if signature is None:
            _LOG.warning("%s: was removed, so it counts as empty", self.path)
        else:
            _LOG.info("%s: read again after a change", self.path)
        return True

    def _signature(self) -> _Signature:
        try:
            return _signature_of(os.stat(self.path))
        except (OSError, ValueError):
            return None

    def _read(self) -> tuple[_Signature, bytes]:
        try:
            # Without waiting: a FIFO would hang the start.
            descriptor = os.open(self.path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
            with open(descriptor, "rb") as file:
                status = os.fstat(descriptor)
                if not stat.S_ISREG(status.st_mode):
                    raise ConfigError([Fault("", "is no regular file, would be right: a text file")])
                if self._private:
                    _refuse_open_mode(self.path, status.st_mode)
                data = file.read(_SIZE_MAXIMUM + 1)
        except FileNotFoundError:
            if self._may_be_absent:
                return None, b""
            raise ConfigError([Fault("", "does not exist")]) from None
        except OSError as error:
            raise ConfigError([unreadable(self.path, error)]) from None
        except ValueError as error:  # a NUL in the name
            raise ConfigError([Fault("", str(error))]) from None
        if len(data) > _SIZE_MAXIMUM:
            raise ConfigError([Fault("", f"has more than {_SIZE_MAXIMUM} octets")])
        return _signature_of(status), data

    def _parse_text(self, text: bytes) -> T:
        try:
            return self._parse(text)
        except ValueError as error:
            raise ConfigError([Fault("", str(error))]) from None


def _signature_of(status: os.stat_result) -> tuple[int, ...]:
    return (status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)


def _refuse_open_mode(path: str, mode: int) -> None:
    if mode & _FORBIDDEN_MODE:
        raise ConfigError(
            [
                Fault(
                    "",
                    f"has mode {stat.S_IMODE(mode):04o}, so others may read it or its group may write it, "
                    f"would be right: chmod 0640 {path}",
                )
            ]
        )


def unreadable(path: str, error: OSError) -> Fault:
    """Say why a file cannot be read, and what mends it."""
    problem = f"cannot be read ({error.strerror})"
    if isinstance(error, PermissionError):
        group: str | int = os.getegid()
        with contextlib.suppress(KeyError):
            group = grp.getgrgid(os.getegid()).gr_name
        closed = _closed_directory(path)
        target, mode = (closed, "0750") if closed else (path, "0640")
        problem += f", would be right: chown root:{group} {target} && chmod {mode} {target}"
    return Fault("", problem)


def _closed_directory(path: str) -> str | None:
    """Name the first directory on the way to a file that this user may not enter."""
    parts = os.path.dirname(path).split("/")
    for end in range(2, len(parts) + 1):
        directory = "/".join(parts[:end])
        if os.path.isdir(directory) and not os.access(directory, os.X_OK):
            return directory
    return None
