"""socketmap_table(5): netstrings with `MAP KEY` in, `OK RESULT`, `NOTFOUND `, `TEMP `, `PERM REASON` back."""

from __future__ import annotations

from srsd.errors import ProtocolError
from srsd.wire.answer import Answer, Status

REQUEST_MAXIMUM = 65536  # octets in one netstring; no address that Postfix sends comes near
REPLY_MAXIMUM = 100_000  # octets, socketmap_table(5)

_WORD = {
    Status.FOUND: b"OK ",
    Status.NOT_FOUND: b"NOTFOUND ",
    Status.TEMPORARY: b"TEMP ",
    Status.PERMANENT: b"PERM ",
}
_LENGTH_DIGITS = len(str(REQUEST_MAXIMUM))
_DIGITS = b"0123456789"
_TOO_LONG = b"23:NOTFOUND reply too long,"
NO_MAP = Answer(Status.PERMANENT, b"no such map", "no such map")


def is_whole(data: bytes) -> bool:
    """Tell whether octets are one netstring, no more and no less: the quick way for nearly every read.

    False may also mean that it takes a Decoder to tell.
    """
    length, _, content = data.partition(b":")
    return (
        0 < len(length) < _LENGTH_DIGITS
        and length.isdigit()
        and length[:1] != b"0"
        and len(content) == int(length) + 1
        and content.endswith(b",")
    )


class Decoder:
    """Cuts a stream into whole netstrings. Work is linear in the octets fed."""

    __slots__ = ("_buffer", "_wanted")

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._wanted = 0  # octets of the netstring that is coming, 0: its length is not known yet

    @property
    def pending(self) -> bool:
        """Tell whether part of a request waits for the rest."""
        return bool(self._buffer)

    def feed(self, data: bytes) -> list[bytes]:
        """Take octets, give the netstrings that they complete, as they came.

        Raises ProtocolError for what cannot become a netstring, or one that is too long,
        as soon as that can be told.
        """
        buffer = self._buffer
        buffer += data
        requests = []
        start = 0
        while True:
            if not self._wanted:
                self._wanted = _netstring_length(buffer[start : start + _LENGTH_DIGITS + 1])
                if not self._wanted:
                    break
            end = start + self._wanted
            if len(buffer) < end:
                break
            if buffer[end - 1] != ord(","):
                raise ProtocolError("a netstring without its comma")
            requests.append(bytes(buffer[start:end]))
            start = end
            self._wanted = 0
        del buffer[:start]
        return requests


def _netstring_length(head: bytearray) -> int:
    """Give the octets that a whole netstring takes, by its first ones; 0 when more of them are needed.

    Raises ProtocolError for what is no length, or too much.
    """
    digits, colon, _ = head.partition(b":")
    if digits.translate(None, _DIGITS) or (colon and not digits) or (digits[:1] == b"0" and len(digits) > 1):
        raise ProtocolError("not a netstring")
    if not colon and len(digits) <= _LENGTH_DIGITS:
        return 0
    if not colon or int(digits) > REQUEST_MAXIMUM:
        raise ProtocolError(f"a request of more than {REQUEST_MAXIMUM} octets")
    return len(digits) + 1 + int(digits) + 1


def parse_request(netstring: bytes) -> tuple[bytes, bytes]:
    """Give the name of the map and the key of a whole netstring; an empty name when there is none."""
    content = netstring[netstring.index(b":") + 1 : -1]
    name, space, key = content.partition(b" ")
    return (name, key) if space else (b"", content)


def format_reply(answer: Answer) -> bytes:
    """Spell an answer as a netstring. A result that Postfix would choke on becomes not found."""
    content = _WORD[answer.status] + answer.text
    return b"%d:%b," % (len(content), content) if len(content) <= REPLY_MAXIMUM else _TOO_LONG
