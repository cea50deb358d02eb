"""Writing a file in one step: whoever reads it sees the old text or the new one, never a part."""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable


def write_file(path: str, text: bytes, *, mode: int, owner: tuple[int, int] | None = None) -> None:
    """Make or replace a file, with a mode and perhaps an owner (uid, gid). Raises OSError."""
    _write(path, text, mode, owner, os.replace)


def create_file(path: str, text: bytes, *, mode: int, owner: tuple[int, int] | None = None) -> None:
    """Make a file that must not be there yet. Raises OSError, FileExistsError among them."""
    _write(path, text, mode, owner, os.link)  # unlike a rename, a link never replaces a file


def _write(
    path: str, text: bytes, mode: int, owner: tuple[int, int] | None, put: Callable[[str, str], None]
) -> None:
    unfinished = f"{path}.{os.getpid()}.new"
    with contextlib.suppress(FileNotFoundError):
        os.unlink(unfinished)
    # The name must be free: in a directory of the daemon's, root does not follow what lies there.
    descriptor = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with open(descriptor, "wb") as file:
            if owner is not None:
                os.fchown(descriptor, *owner)
            os.fchmod(descriptor, mode)
            file.write(text)
            file.flush()
            os.fsync(descriptor)
        put(unfinished, path)
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(unfinished)
    directory = os.open(os.path.dirname(path), os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)
