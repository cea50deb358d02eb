"""Canonicalization (RFC 6376 §3.4): header fields one by one, the body as it streams by, hashed.

A body is never kept. Whatever its lines are, each octet is looked at a bounded number of times, and what
is carried from one chunk to the next is at most two octets and a count of empty lines.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

SIMPLE = b"simple"
RELAXED = b"relaxed"

# `octet in text` is ten times as fast with a number as with a bytes object of one octet.
_TAB, _LF = b"\t\n"
_CHUNK = 65_536  # octets that are worked on at a time: they stay in the processor's cache
_FEW = 1000  # places in a chunk where splitting and joining is faster than replacing
_LONG_RUN = b" " * 16  # measured: shorter takes more passes over hostile text, longer is found slower
_EMPTY_LINES = b"\r\n" * 4096  # as many as are hashed at a time


def _replace(text: bytes, old: bytes, new: bytes) -> bytes:
    """As bytes.replace, in one pass over the text instead of two where there is little to do."""
    if text.rfind(old) < 0:  # which takes half the time of find(), or of `in`
        return text
    pieces = text.split(old, _FEW)
    if len(pieces) > _FEW:
        return text.replace(old, new)
    return new.join(pieces)


def _reduce_blanks(text: bytes) -> bytes:
    """Turn each run of blanks and tabs into one blank. Few passes, each of them in C."""
    if _TAB in text:
        text = text.replace(b"\t", b" ")
    shorter = _replace(text, b"  ", b" ")
    if len(shorter) < len(text):
        while _LONG_RUN in shorter:
            shorter = shorter.replace(_LONG_RUN, b" ")
        while b"  " in shorter:
            shorter = shorter.replace(b"  ", b" ")
    return shorter


def relaxed_value(value: bytes) -> bytes:
    """Give the value of a header field without folds, and with one blank for each run of them (§3.4.2).

    Lines are folded with CRLF, or with LF, which stands for it. Other CRs are octets like any.
    """
    if _LF in value:
        value = _reduce_blanks(value.replace(b"\r\n", b"").replace(b"\n", b""))
    elif _TAB in value or value.find(b"  ") >= 0:
        value = _reduce_blanks(value)
    return value.strip(b" ")


def canonical_field(canonicalization: bytes, name: bytes, value: bytes) -> bytes:
    """Give a header field as it is hashed, without the CRLF that ends it (§3.4.1, §3.4.2)."""
    if canonicalization == RELAXED:
        return name.lower().rstrip(b" \t") + b":" + relaxed_value(value)
    if _LF in value:
        value = value.replace(b"\r\n", b"\n").replace(b"\n", b"\r\n")
    return name + b":" + value


class BodyHashKey(NamedTuple):
    """Which hash of the body is wanted. SHA-256 is the only one (RFC 8301 §3.1)."""

    canonicalization: bytes  # SIMPLE or RELAXED
    length: int | None = None  # l=, in octets of the canonicalized body; None: all of it


class BodyHash(NamedTuple):
    """A hash of the body."""

    digest: bytes
    length: int  # octets of the whole canonicalized body, hashed or not


class BodyHashes:
    """All the hashes that a message's signatures want, made while its body streams by once."""

    __slots__ = ("_digests", "_streams")

    def __init__(self, wanted: Iterable[BodyHashKey]) -> None:
        self._digests: dict[BodyHashKey, hashlib._Hash] = {}
        self._streams: dict[bytes, _CanonicalBody] = {}
        for key in wanted:
            if key in self._digests:
                continue
            digest = self._digests[key] = hashlib.sha256()
            stream = self._streams.get(key.canonicalization)
            if stream is None:
                stream = _CanonicalBody(relaxed=key.canonicalization == RELAXED)
                self._streams[key.canonicalization] = stream
            stream.consumers.append(
                digest.update if key.length is None else _until(key.length, digest.update)
            )

    def feed(self, chunk: bytes) -> None:
        """Take a piece of the body, cut anywhere. Lines end with CRLF; other CRs and LFs are any octets."""
        for stream in self._streams.values():
            if len(chunk) <= _CHUNK:
                stream.feed(chunk)
            else:
                for at in range(0, len(chunk), _CHUNK):
                    stream.feed(chunk[at : at + _CHUNK])

    def finish(self) -> dict[BodyHashKey, BodyHash]:
        """End the body; to be called once."""
        for stream in self._streams.values():
            stream.finish()
        return {
            key: BodyHash(digest.digest(), self._streams[key.canonicalization].length)
            for key, digest in self._digests.items()
        }


def _until(length: int, update: Callable[[bytes], object]) -> Callable[[bytes], object]:
    """Hand only the first octets on: the l= of RFC 6376 §3.5."""
    room = length

    def limited(data: bytes) -> None:
        nonlocal room
        if room:
            update(data[:room])
            room -= min(room, len(data))

    return limited


class _CanonicalBody:
    """The body, canonicalized. CRLFs that may be the last ones are kept back, as a number."""

    __slots__ = ("_empty_lines", "_held", "_relaxed", "consumers", "length")

    def __init__(self, *, relaxed: bool) -> None:
        self.consumers: list[Callable[[bytes], object]] = []
        self.length = 0
        self._relaxed = relaxed
        self._held = b""  # " ", "\r" or " \r" at the end of a chunk: what follows decides
        self._empty_lines = 0  # CRLFs at the end so far

    def feed(self, chunk: bytes) -> None:
        if not chunk:
            return
        if self._held:
            chunk = self._held + chunk
            self._held = b""
        if self._relaxed:
            chunk = _replace(_reduce_blanks(chunk), b" \r\n", b"\r\n")
        undecided = len(chunk) - self._decided(chunk)
        if undecided:
            self._held = chunk[-undecided:]
            chunk = chunk[:-undecided]
        end = _end_of_content(chunk)
        if end:
            self._hand_on(chunk[:end])
        self._empty_lines += (len(chunk) - end) // 2

    def finish(self) -> None:
        if self._held.endswith(b"\r"):  # nothing follows it: an octet like any
            self._hand_on(self._held)
        if self.length or not self._relaxed:  # §3.4.3 has a CRLF in any case, §3.4.4 for what is not empty
            self._empty_lines = 0
            self._hand_on(b"\r\n")

    def _decided(self, chunk: bytes) -> int:
        """Tell how much of a chunk can be judged without knowing what follows."""
        end = len(chunk)
        if chunk.endswith(b"\r"):
            end -= 1
        if self._relaxed and chunk.endswith(b" ", 0, end):
            end -= 1
        return end

    def _hand_on(self, content: bytes) -> None:
        lines, self._empty_lines = self._empty_lines, 0
        self.length += 2 * lines + len(content)
        for consume in self.consumers:
            rest = lines
            while rest > 0:
                consume(_EMPTY_LINES[: 2 * rest])
                rest -= len(_EMPTY_LINES) // 2
            consume(content)


def _end_of_content(chunk: bytes) -> int:
    """Find where the CRLFs begin that a chunk ends with."""
    if not chunk.endswith(b"\r\n"):
        return len(chunk)
    end = len(chunk.rstrip(b"\r\n"))
    if len(chunk) - end == 2:
        return end
    # CRs and LFs, not all of them in pairs: mark the pairs, and see what is no mark.
    return end + len(chunk[end:].replace(b"\r\n", b"\0\0").rstrip(b"\0"))
