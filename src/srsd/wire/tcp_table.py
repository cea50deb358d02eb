"""tcp_table(5): `get KEY` lines in, `200 RESULT`, `500 REASON` and `400 REASON` lines back.

Keys and the whole text of replies are percent-encoded. Measured in Postfix 3.7: a reply over
4096 octets, or one with a bare `%`, costs the client ten tries, ten seconds and then a 451.
"""

from __future__ import annotations

import re

from srsd.errors import ProtocolError
from srsd.wire.answer import Answer, Status

REQUEST_MAXIMUM = 65536  # octets without a newline; no address that Postfix sends comes near
REPLY_MAXIMUM = 4096  # octets with the newline, tcp_table(5)

_CODE = {
    Status.FOUND: b"200 ",
    Status.NOT_FOUND: b"500 ",
    Status.TEMPORARY: b"400 ",
    Status.PERMANENT: b"400 ",  # the protocol has no word for it
}
_PLAIN = bytes(octet for octet in range(0x21, 0x7F) if octet != ord("%"))
_ENCODED = re.compile(rb"[^!-$&-~]")
_ESCAPE = re.compile(rb"%(.?.?)", re.DOTALL)
_TOO_LONG = b"500 reply%20too%20long\n"
NOT_A_REQUEST = Answer(Status.NOT_FOUND, b"not a request", "not a request")


def is_whole(data: bytes) -> bool:
    """Tell whether octets are one request, no more and no less: the quick way for nearly every read."""
    return 0 <= data.find(b"\n") == len(data) - 1 < REQUEST_MAXIMUM


class Decoder:
    """Cuts a stream into request lines, each with its newline. Work is linear in the octets fed."""

    __slots__ = ("_buffer", "_searched")

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._searched = 0

    @property
    def pending(self) -> bool:
        """Tell whether part of a request waits for the rest."""
        return bool(self._buffer)

    def feed(self, data: bytes) -> list[bytes]:
        """Take octets, give the requests that they complete.

        Raises ProtocolError when more than REQUEST_MAXIMUM octets hold no newline.
        """
        buffer = self._buffer
        buffer += data
        end = buffer.rfind(b"\n", self._searched) + 1
        requests = [line + b"\n" for line in bytes(buffer[: end - 1]).split(b"\n")] if end else []
        del buffer[:end]
        self._searched = len(buffer)
        if len(buffer) > REQUEST_MAXIMUM or any(len(request) > REQUEST_MAXIMUM for request in requests):
            raise ProtocolError(f"a request of more than {REQUEST_MAXIMUM} octets")
        return requests


def parse_request(line: bytes) -> bytes | None:
    """Give the key of a request line, decoded. None for what is not `get KEY`."""
    if line[:4] != b"get ":
        return None
    key = line[4:].strip(b" \t\r\n")
    if b"%" in key:
        try:
            return _ESCAPE.sub(_decode_octet, key)
        except ValueError:
            return None
    return key


def _decode_octet(escape: re.Match[bytes]) -> bytes:
    """Decode one `%XX`. Raises ValueError for anything else behind a `%`."""
    digits = escape[1]
    if len(digits) != 2 or not digits.isalnum():
        raise ValueError(digits)
    return bytes((int(digits, 16),))


def format_reply(answer: Answer) -> bytes:
    """Spell an answer as a reply line. A result that Postfix would choke on becomes not found."""
    text = answer.text
    if text.translate(None, _PLAIN):
        text = _ENCODED.sub(lambda octet: b"%%%02x" % octet[0][0], text)
    reply = _CODE[answer.status] + text + b"\n"
    return reply if len(reply) <= REPLY_MAXIMUM else _TOO_LONG
