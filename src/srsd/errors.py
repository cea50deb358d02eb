"""What can go wrong, sorted by whose fault it is.

ProtocolError: the peer's; its connection is closed and nothing else happens.
ConfigError: the admin's; srsd does not start, or keeps what it had.
Anything else that is raised is a bug of ours.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable


class ProtocolError(Exception):
    """The peer sent what its protocol does not allow; only its own connection suffers."""


class Fault(NamedTuple):
    """One mistake in a file of the admin's."""

    where: str  # "srs.hash_length", "line 3", or "" for the file as a whole
    text: str  # what is wrong, and what would be right
    file: str = ""  # filled in by whoever read the file

    def line(self) -> str:
        """Give the one line that an admin reads, whatever the names in the file hold."""
        text = ": ".join(part for part in (self.file, self.where, self.text) if part)
        return text if text.isprintable() else ascii(text)[1:-1]


class ConfigError(Exception):
    """The admin's files do not say something that srsd can do; every fault found is listed."""

    def __init__(self, faults: Iterable[Fault]) -> None:
        self.faults = list(faults)
        super().__init__("; ".join(self.lines()))

    def name_file(self, file: str) -> None:
        """Say in which file the faults are, where that is not known yet."""
        self.faults = [fault._replace(file=fault.file or file) for fault in self.faults]

    def lines(self) -> list[str]:
        """Give one line for each fault: `file: key: what is wrong, what would be right`."""
        return [fault.line() for fault in self.faults]
