"""rotation.json in the state directory: which secrets wait, and which have retired. srsctl writes it."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from srsd.daemon.atomic_file import write_file
from srsd.rotation import RotationState

if TYPE_CHECKING:
    from collections.abc import Iterator

_FILE = "rotation.json"


def read_rotation(state_directory: str) -> RotationState:
    """Read the state; an empty one where there is none. Raises OSError or ValueError."""
    try:
        with open(os.path.join(state_directory, _FILE), encoding="utf-8") as file:
            data = json.load(file)
        return RotationState(_moments(data["waiting"]), _moments(data["retired"]))
    except FileNotFoundError:
        return RotationState()
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{_FILE} is not what srsctl wrote: {error!r}") from None


def _moments(table: dict[str, str]) -> dict[str, datetime]:
    return {name: parse_moment(moment) for name, moment in table.items()}


def parse_moment(text: str) -> datetime:
    """Parse a moment in a file of ours; one without a zone, by whoever edited it, counts as UTC.

    Raises ValueError.
    """
    moment = datetime.fromisoformat(text)
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def write_rotation(state_directory: str, state: RotationState) -> None:
    """Write the state, owned as the directory is. Raises OSError."""
    data = {
        "waiting": {name: moment.isoformat() for name, moment in state.waiting.items()},
        "retired": {name: moment.isoformat() for name, moment in state.retired.items()},
    }
    status = os.stat(state_directory)
    owner = (status.st_uid, status.st_gid) if os.geteuid() == 0 else None
    path = os.path.join(state_directory, _FILE)
    write_file(path, json.dumps(data, indent=1).encode() + b"\n", mode=0o640, owner=owner)


@contextlib.contextmanager
def one_at_a_time(directory: str) -> Iterator[None]:
    """Hold a lock on a directory, so that two of the same command do not cross. Raises OSError."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
