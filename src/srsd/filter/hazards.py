"""What the next hops may alter in a message after it was signed, which breaks the signature."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from srsd.syntax.header import HeaderField

LINE_MAXIMUM = 998  # octets without the line end: RFC 5321 §4.5.3.1.6; Postfix folds what is longer

EIGHT_BIT = "8-bit body, which a host without 8BITMIME will have converted"
LONG_LINES = "lines of more than 998 octets, which will be folded"
LONG_HEADER_LINES = "header lines of more than 998 octets, which will be folded"
NUL = "NUL octets, which may be removed"


def has_long_lines(fields: Iterable[HeaderField]) -> bool:
    """Tell whether a line of the header is longer than lines may be."""
    return any(
        len(line) > LINE_MAXIMUM
        for name, value in fields
        if len(name) + 1 + len(value) > LINE_MAXIMUM
        for line in (name + b":" + value).split(b"\n")
    )


class BodyHazards:
    """Watches a body stream by."""

    __slots__ = ("_eight_bit", "_line", "_long_lines", "_nul")

    def __init__(self) -> None:
        self._eight_bit = self._long_lines = self._nul = False
        self._line = 0  # octets of the line that the last chunk ended in

    def feed(self, chunk: bytes) -> None:
        """Look at a piece of the body, cut anywhere; lines end with CRLF."""
        self._eight_bit = self._eight_bit or not chunk.isascii()
        self._nul = self._nul or b"\0" in chunk
        if not self._long_lines:
            self._measure_lines(chunk)

    def _measure_lines(self, chunk: bytes) -> None:
        """Jump from line end to line end, as far as a line may be long at a time."""
        start, end = -self._line, len(chunk)  # where the line begins
        reach = LINE_MAXIMUM + 2  # with its CRLF
        while end - start > reach:
            found = chunk.rfind(b"\n", max(start, 0), start + reach)
            if found < 0:
                self._long_lines = True
                return
            start = found + 1
        last = chunk.rfind(b"\n", max(start, 0))
        self._line = end - (last + 1 if last >= 0 else start)

    @property
    def found(self) -> list[str]:
        """Name what was seen; each is a phrase for an admin."""
        long_lines = self._long_lines or self._line > LINE_MAXIMUM  # the last line may lack its end
        seen = ((self._eight_bit, EIGHT_BIT), (long_lines, LONG_LINES), (self._nul, NUL))
        return [phrase for was_seen, phrase in seen if was_seen]
