"""What srsctl writes in the key directory: keys, and which of them sign."""

from __future__ import annotations

import contextlib
import os
from datetime import UTC, datetime
from typing import TYPE_CHECKING, NamedTuple

from srsd.daemon.atomic_file import create_file, write_file
from srsd.daemon.privileges import find_user
from srsd.dkim.keystore import ACTIVE, KEY_SUFFIX

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from srsd.config import Config
    from srsd.dkim.sign import Signer


class Owner(NamedTuple):
    """Who may read what is written: the daemon's group, where there is one."""

    ids: tuple[int, int] | None
    file_mode: int
    directory_mode: int


def find_owner(config: Config) -> Owner:
    """Say who is to own key files. Raises ConfigError where the configured user does not exist."""
    account = find_user(config.user) if os.geteuid() == 0 else None
    if account is None:
        return Owner(None, 0o600, 0o700)
    return Owner((0, account.pw_gid), 0o640, 0o750)


def key_path(directory: str, selector: bytes) -> str:
    """Give the path of a key."""
    return f"{directory}/{selector.decode()}{KEY_SUFFIX}"


def default_selectors() -> Iterator[bytes]:
    """Give selectors for a key that is made now, the best first: s202611, s202611-2, ..."""
    month = f"s{datetime.now(UTC):%Y%m}".encode()
    yield month
    for number in range(2, 1000):
        yield month + b"-%d" % number


def make_directories(directory: str, key_directory: str, owner: Owner) -> None:
    """Make the directory of a domain where it is missing, and those above it. Raises OSError."""
    os.makedirs(os.path.dirname(key_directory), mode=0o755, exist_ok=True)
    for path in (key_directory, directory):
        with contextlib.suppress(FileExistsError):
            os.mkdir(path, owner.directory_mode)
            os.chmod(path, owner.directory_mode)  # whatever the umask is
            if owner.ids is not None:
                os.chown(path, *owner.ids)


def create_key(directory: str, signer: Signer, owner: Owner) -> None:
    """Write a key; one that is there is never changed. Raises OSError, FileExistsError among them."""
    path = key_path(directory, signer.selector)
    create_file(path, signer.key.pem(), mode=owner.file_mode, owner=owner.ids)


def create_active(directory: str, signers: Iterable[Signer], owner: Owner) -> None:
    """Write which keys sign, unless that is written already. Raises OSError."""
    with contextlib.suppress(FileExistsError):
        create_file(f"{directory}/{ACTIVE}", _lines(signers), mode=owner.file_mode, owner=owner.ids)


def replace_active(directory: str, signers: Iterable[Signer], owner: Owner) -> None:
    """Write which keys sign, in one step. A file that is there keeps its owner and mode. Raises OSError."""
    path = f"{directory}/{ACTIVE}"
    mode, ids = owner.file_mode, owner.ids
    with contextlib.suppress(FileNotFoundError):
        status = os.stat(path)
        mode = status.st_mode & 0o777
        ids = (status.st_uid, status.st_gid) if os.geteuid() == 0 else None
    write_file(path, _lines(signers), mode=mode, owner=ids)


def _lines(signers: Iterable[Signer]) -> bytes:
    return b"".join(signer.selector + b"\n" for signer in signers)
