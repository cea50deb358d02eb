"""The addresses of a From field (RFC 5322 §3.4, §3.6.2), read by the letter.

Readers differ about what is not by the letter, so whoever guesses may see another author than the reader
of the message does. Two liberties are taken: dots in a display name, which half the world writes
without quotes, and UTF-8 (RFC 6532).
"""

from __future__ import annotations

import re

from srsd.syntax.address import Address
from srsd.syntax.structured import (
    ATOM,
    DOT_ATOM,
    QUOTED_STRING,
    is_utf8,
    many,
    optional,
    unfold_strictly,
    unquote,
    without_comments,
)

MAILBOXES_MAXIMUM = 100  # in one field; RFC 5322 sets no limit, and one is what nearly all have
_WORD = rb"(?:" + ATOM + rb"|" + QUOTED_STRING + rb")"
_BLANKS = rb"[ \t]*+"
_LABEL = rb"[0-9A-Za-z_\x80-\xff-]++"
_DOMAIN = _LABEL + many(rb"\." + _LABEL) + rb"\.?|\[[0-9A-Za-z.:-]++\]"
_ADDRESS = rb"(" + DOT_ATOM + rb"|" + QUOTED_STRING + rb")@(" + _DOMAIN + rb")"
_DISPLAY_NAME = optional(_WORD + many(_BLANKS + rb"(?:" + _WORD + rb"|\.)"))
_MAILBOX = re.compile(
    _BLANKS
    + (rb"(?:" + _DISPLAY_NAME + _BLANKS + rb"<" + _BLANKS + _ADDRESS + _BLANKS + rb">|" + _ADDRESS + rb")")
    + (_BLANKS + rb"(,|\Z)"),
    re.DOTALL,
)


def parse_mailbox_list(value: bytes) -> list[Address] | None:
    """Parse the value of a From field; None for what is no mailbox-list, as a group or an empty one.

    The local-parts have no quoting, the domains stand as they were written.
    """
    line = unfold_strictly(value)
    if line is None or not is_utf8(line):
        return None
    line = without_comments(line)
    if line is None:
        return None
    addresses: list[Address] = []
    position = 0
    while len(addresses) < MAILBOXES_MAXIMUM:
        mailbox = _MAILBOX.match(line, position)
        if mailbox is None:
            return None
        local_part, domain = mailbox[1] or mailbox[3], mailbox[2] or mailbox[4]
        if local_part.startswith(b'"'):
            local_part = unquote(local_part)
        addresses.append(Address(local_part, domain))
        if not mailbox[5]:
            return addresses
        position = mailbox.end()
    return None
