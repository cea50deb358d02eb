"""The answer to a table lookup, before either protocol spells it."""

from __future__ import annotations

from enum import Enum
from typing import NamedTuple


class Status(Enum):
    """What Postfix is told."""

    FOUND = "found"
    NOT_FOUND = "not found"
    TEMPORARY = "temporary failure"  # the mail waits and is tried again
    PERMANENT = "permanent failure"  # the admin's fault; never for what a stranger can send


class Answer(NamedTuple):
    """The answer to one lookup."""

    status: Status
    text: bytes  # the result; for any other status fixed words that never echo the key
    reason: str = ""  # for the log: why this answer
