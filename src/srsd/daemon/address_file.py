"""The file in which addresses are stored, an SQLite database that several processes share.

Everything here waits for the disk, so it is called from a thread of its own, or from a command line. Imported
only where addresses are stored: SQLite is a megabyte.
"""

from __future__ import annotations

import contextlib
import errno
import os
import sqlite3
import time
from typing import TYPE_CHECKING, Any, NamedTuple, Self
from urllib.parse import quote

from srsd.address_store import StoreError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

_APPLICATION = 0x73727364  # "srsd", PRAGMA application_id
_FORM = 1  # of the tables, PRAGMA user_version
BUSY_SECONDS = 5.0  # for another process to finish what it writes
_EXPIRED_AT_ONCE = 1000  # removed in one step, so that who waits for an address meanwhile waits not long
_PAGE = 4096
_ROOM = 64_000_000  # octets: with as much left, it is not the disk that is full

# Triggers count, so that nobody ever has to read the whole table to know its size.
_SCHEMA = f"""
CREATE TABLE addresses (token BLOB PRIMARY KEY, address BLOB NOT NULL, expires INTEGER NOT NULL)
    WITHOUT ROWID;
CREATE INDEX by_expiry ON addresses (expires);
CREATE TABLE total (addresses INTEGER NOT NULL);
INSERT INTO total VALUES (0);
CREATE TRIGGER counted_in AFTER INSERT ON addresses BEGIN UPDATE total SET addresses = addresses + 1; END;
CREATE TRIGGER counted_out AFTER DELETE ON addresses BEGIN UPDATE total SET addresses = addresses - 1; END;
PRAGMA application_id = {_APPLICATION};
PRAGMA user_version = {_FORM};
"""  # noqa: S608 - two numbers
_KEEP = """
INSERT INTO addresses VALUES (?, ?, ?)
ON CONFLICT (token) DO UPDATE SET expires = excluded.expires WHERE excluded.expires > expires
"""
_EXPIRE = "DELETE FROM addresses WHERE token IN (SELECT token FROM addresses WHERE expires < ? LIMIT ?)"


class UnusableFileError(StoreError):
    """There is a file, and it never was, or is no more, a store of this version."""


class Entry(NamedTuple):
    """One address to keep."""

    token: bytes
    address: bytes
    expires: int  # days since 1970-01-01: the last on which it is needed


class Size(NamedTuple):
    """How much there is."""

    addresses: int
    octets: int  # of the file that are in use; what expiry left free is used again


class AddressFile:
    """A connection to the file, for one thread at a time. Everything raises StoreError."""

    def __init__(self, path: str, megabytes: int = 0, *, read_only: bool = False) -> None:
        """Open the file, and make it where it is missing. megabytes bounds what this connection adds.

        With read_only, a missing file is an error, and nothing is changed.
        """
        self.path = path
        self.megabytes = megabytes
        self._database: sqlite3.Connection | None = None
        with self._complaining():
            if not read_only:
                _make_private(path)
            uri = f"file:{quote(path)}?mode={'ro' if read_only else 'rw'}"
            # Statements are kept by the module, transactions are begun by us.
            self._database = sqlite3.connect(
                uri, uri=True, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False
            )
            try:
                status = os.stat(path)
                self._identity = (status.st_dev, status.st_ino)
                self._set_up(read_only=read_only)
            except BaseException:
                self.close()
                raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the connection. The last one of all processes leaves a single file behind."""
        if self._database is not None:
            with contextlib.suppress(sqlite3.Error):
                self._database.close()

    def _set_up(self, *, read_only: bool) -> None:
        """See whether the file is ours, make its tables where it is new, and set how it is written."""
        form = self._form()
        if form is None and not read_only:
            _patiently(lambda: self._execute("PRAGMA journal_mode = WAL"))
            with self._transaction():
                form = self._form()  # another process may have been quicker
                if form is None:
                    for statement in _statements(_SCHEMA):
                        self._execute(statement)
                    form = _FORM
        if form != _FORM:
            raise UnusableFileError(
                f"was written by another version of srsd (form {form or 0}, this version has form {_FORM}), "
                "would be right: the version that wrote it, or to move the file away, which refuses "
                "bounces to what is in it"
            )
        if not read_only:
            # What was acknowledged outlives the machine, not only the process.
            self._execute("PRAGMA synchronous = FULL")
            self._execute(f"PRAGMA max_page_count = {self._pages}")

    @property
    def _pages(self) -> int:
        return self.megabytes * 1_000_000 // _PAGE

    def _form(self) -> int | None:
        """Tell the form of the tables; None for a file without any. Raises StoreError for another's file."""
        (application,) = self._row("PRAGMA application_id")
        (form,) = self._row("PRAGMA user_version")
        (tables,) = self._row("SELECT count(*) FROM sqlite_schema")
        if (application, form, tables) == (0, 0, 0):
            return None
        if application != _APPLICATION:
            raise UnusableFileError(
                "is a database of something else, would be right: a state_directory for srsd alone"
            )
        return int(form)

    def is_current(self) -> bool:
        """Tell whether the name still leads to this file: it may have been removed, or replaced."""
        try:
            status = os.stat(self.path)
        except OSError:
            return False
        return (status.st_dev, status.st_ino) == self._identity

    def keep(self, entries: Sequence[Entry]) -> bool:
        """Keep addresses, all of them or none; tell whether anything had to be written.

        When it returns they are on the disk, whoever wrote them.
        """
        with self._complaining():
            missing = [entry for entry in entries if not self._has(entry)]
            if missing:
                with self._transaction():
                    self._connection.executemany(_KEEP, missing)
            return bool(missing)

    def _has(self, entry: Entry) -> bool:
        row = self._row("SELECT expires FROM addresses WHERE token = ?", entry.token)
        return bool(row and row[0] >= entry.expires)

    def recall(self, token: bytes) -> bytes | None:
        """Give the address of a token, or None."""
        with self._complaining():
            row = self._row("SELECT address FROM addresses WHERE token = ?", token)
            return bytes(row[0]) if row else None

    def expire(self, today: int) -> int:
        """Remove some of the addresses that nobody needs any more; tell how many, 0 when there is none."""
        with self._complaining():
            if self._row("SELECT 1 FROM addresses WHERE expires < ? LIMIT 1", today) is None:
                return 0
            with self._transaction():
                return self._execute(_EXPIRE, today, _EXPIRED_AT_ONCE).rowcount

    def probe(self) -> None:
        """See whether there is room for one more address."""
        with self._complaining(), self._transaction():
            self._execute("INSERT INTO addresses VALUES (x'', zeroblob(?), 0)", 2 * _PAGE)
            self._execute("DELETE FROM addresses WHERE token = x''")

    def size(self) -> Size:
        """Tell how much there is."""
        with self._complaining():
            (addresses,) = self._row("SELECT addresses FROM total")
            (pages,) = self._row("PRAGMA page_count")
            (free,) = self._row("PRAGMA freelist_count")
            return Size(addresses, (pages - free) * _PAGE)

    @property
    def _connection(self) -> sqlite3.Connection:
        if self._database is None:
            raise StoreError("is not open")
        return self._database

    def _execute(self, statement: str, *values: object) -> sqlite3.Cursor:
        return self._connection.execute(statement, values)

    def _row(self, statement: str, *values: object) -> Any:  # noqa: ANN401 - whatever is asked for, or None
        cursor = self._execute(statement, *values)
        try:
            return cursor.fetchone()
        finally:
            cursor.close()  # what is half read would keep the log of changes from being folded in

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[None]:
        """Write all of it or nothing."""
        self._execute("BEGIN IMMEDIATE")
        try:
            yield
            self._execute("COMMIT")
        except BaseException:
            if self._connection.in_transaction:
                with contextlib.suppress(sqlite3.Error):
                    self._execute("ROLLBACK")
            raise

    @contextlib.contextmanager
    def _complaining(self) -> Iterator[None]:
        """Turn what SQLite and the system say into what an admin can mend."""
        try:
            yield
        except sqlite3.Error as error:
            name = getattr(error, "sqlite_errorname", "")
            if name.startswith(("SQLITE_CORRUPT", "SQLITE_NOTADB")):
                right = "would be right: a copy of it from before, or to move it away"
                raise UnusableFileError(f"is damaged ({error}), {right}") from error
            raise StoreError(self._complaint(error, name)) from error
        except OSError as error:
            raise StoreError(_unwritable(self.path, error)) from error

    def _complaint(self, error: sqlite3.Error, name: str) -> str:
        if name.startswith("SQLITE_FULL"):
            if self._is_at_its_bound():
                return f"is full, would be right: more than {self.megabytes} in srs.store_size"
            return "finds no room on the disk, would be right: more free space"
        if name.startswith(("SQLITE_READONLY", "SQLITE_CANTOPEN", "SQLITE_PERM")):
            return _unwritable(self.path, None)
        if name.startswith(("SQLITE_BUSY", "SQLITE_LOCKED")):
            right = "would be right: to end that process"
            return f"has been locked by another process for {BUSY_SECONDS:.0f} s, {right}"
        return f"{error} ({name or type(error).__name__}), would be right: a disk that can be written to"

    def _is_at_its_bound(self) -> bool:
        """Tell whether it is srs.store_size that leaves no room, and not the disk."""
        try:
            disk = os.statvfs(self.path)
        except OSError:
            return False
        return bool(self.megabytes) and disk.f_bavail * disk.f_frsize > _ROOM


def _make_private(path: str) -> None:
    """Make the file where it is missing: it says who writes to whom, so it is for its owner alone.

    One that is there is not opened: closing it would drop the locks that SQLite has on it in this process.
    """
    try:
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
    except FileExistsError:
        return


def _unwritable(path: str, error: OSError | None) -> str:
    """Say why a file cannot be written, and what mends it."""
    directory = os.path.dirname(path)
    if error is not None and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return "finds no room on the disk, would be right: more free space"
    if not os.path.isdir(directory):
        return (
            f"cannot be made, would be right: install -d -o USER -m 0750 {directory}, USER being that of srsd"
        )
    if os.statvfs(directory).f_flag & os.ST_RDONLY:
        return "is on a disk that is mounted read-only, would be right: one that can be written to"
    why = (error.strerror if error else None) or os.strerror(errno.EACCES)
    mends = f"chown USER {directory} {path}*, USER being that of srsd"
    return f"cannot be opened for writing ({why}), would be right: {mends}"


def _statements(script: str) -> list[str]:
    """Cut a script into its statements; executescript would commit in between."""
    statements, begun = [], ""
    for line in script.strip().splitlines():
        begun += line
        if sqlite3.complete_statement(begun):
            statements.append(begun)
            begun = ""
    return statements


def _patiently(work: Callable[[], object]) -> None:
    """Try for as long as another process is in the way. SQLite itself does not wait where modes change."""
    end = time.monotonic() + BUSY_SECONDS
    while True:
        try:
            work()
        except sqlite3.OperationalError as error:
            if not error.sqlite_errorname.startswith("SQLITE_BUSY") or time.monotonic() > end:
                raise
            time.sleep(0.01)
        else:
            return


def check_address_file(path: str) -> str | None:
    """Tell what keeps srsd from storing addresses here, for an admin to mend before the start; or None.

    A disk that is full or mounted read-only is no such reason: it may pass, and other mail goes on.
    """
    directory = os.path.dirname(path)
    try:
        if os.statvfs(directory).f_flag & os.ST_RDONLY:
            return None
        there = os.path.lexists(path)
        if there and not os.path.isfile(path):
            return "is no file, would be right: to move it away"
        if not os.access(directory, os.W_OK | os.X_OK) or (there and not os.access(path, os.W_OK)):
            return _unwritable(path, None)
        if there and os.stat(path).st_size:  # else it is made in a moment
            AddressFile(path, read_only=True).close()
    except UnusableFileError as error:
        return str(error)
    except StoreError:
        return None  # the store says so when it is needed
    except OSError as error:
        return _unwritable(path, error)
    return None
