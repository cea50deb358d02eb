"""The usual changes of a message on its way, in plain words."""

from __future__ import annotations

from enum import Enum
from typing import NamedTuple

_EXCERPT = 60  # octets


class Cause(Enum):
    """What happened to a signed message. The value is what an admin reads."""

    # The body.
    FOOTER = "lines were added at the end of the body, such as a mailing list's or a scanner's footer"
    BANNER = "lines were added at the start of the body, such as a warning about mail from outside"
    INSERTED = "lines were added inside the body, such as a footer in one of its parts"
    PART_ADDED = "a part was added to the body before its end, such as a mailing list's footer"
    WRAPPED = "the body was made a part of another one, as mailing lists do to add theirs"
    DOWNGRADED = "8-bit text was encoded for a hop that does not take 8BITMIME"
    DECODED = "encoded text was decoded to 8-bit"
    REENCODED = "the body was encoded anew"
    LINE_ENDS = "bare LF or CR stands where CRLF was signed"
    LONG_LINES = "lines above 998 octets were broken, as Postfix does (smtp_line_length_limit)"
    BLANKS_ADDED = "blanks were added at the ends of lines"
    BLANKS_REMOVED = 'the blank of the line "-- " above a signature was taken away'
    FROM_QUOTED = 'a > was put before lines that begin with "From ", as mailboxes in one file have it'
    FROM_UNQUOTED = 'a > was taken from lines that begin with ">From "'
    DOTS_ADDED = "dots at the start of lines were doubled, as SMTP has them on the wire"
    DOTS_REMOVED = "a dot at the start of lines was taken away, as at the end of an SMTP transfer"
    TABS = "blanks became tabs"
    EMPTY_LINE_REMOVED = "an empty line at the start of the body was taken away"

    # The header.
    PREFIX = "a tag was added to the subject, as mailing lists and spam filters do"
    FIELD_ADDED = "a field was added that was signed as absent, or with fewer of its name"
    LIST_FIELDS_ADDED = "the fields of a mailing list were added, which were signed as absent"
    FIELD_REWRITTEN = "a field was rewritten; another one keeps what it was"
    COPY_DIFFERS = "a field differs from the copy in the signature's z="
    FOLDED = "a field was folded in another way"
    NAME_SPELLED = "the name of a field was spelled in another way"
    QUOTES = "the quotes around a name in an address were changed"
    HEADER_ENCODED = "8-bit text in a header field was encoded (RFC 2047)"
    TRANSFER_ENCODING = "Content-Transfer-Encoding was changed, as with the encoding of the body"
    CONTENT_TYPE = "Content-Type was changed: the body was put into a multipart"
    EMPTY_FIELD_REMOVED = "an empty field was taken away"
    ORDER = "several fields of one name stand in another order"


class Change(NamedTuple):
    """One change, and what it is about: any octets of the message."""

    cause: Cause
    detail: bytes = b""


class Work:
    """How much may still be tried, in octets that are looked at: a bound in time without a clock."""

    __slots__ = ("left", "tries")

    def __init__(self, octets: int) -> None:
        self.left = octets
        self.tries = 0

    def take(self, octets: int) -> bool:
        """Take some of it; False, and nothing is left, if there is not as much."""
        if octets > self.left:
            self.left = 0
            return False
        self.left -= octets
        return True


def excerpt(text: bytes) -> bytes:
    """Give the beginning of a text."""
    return text if len(text) <= _EXCERPT else text[:_EXCERPT] + b"..."
