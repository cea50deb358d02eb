"""What structured header fields are written with: folds, comments, quoted-strings, tokens, atoms.

The grammar is that of RFC 5322 §3.2, with RFC 6532 §3.2 for what is not ASCII and the token of
RFC 2045 §5.1. A field is read in two steps: `unfold_strictly` and `without_comments` make one line
of it in which each comment is a blank, which is all that a comment means; the caller's own regular
expressions, made of the fragments below, read that line. Everything here takes linear time.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable


def many(fragment: bytes) -> bytes:
    """Make a fragment that repeats, also not at all, and gives nothing back.

    It is spelt `(?>(?:...)*)` and not `(?:...)*+`: before Python 3.11.5, so on Debian 12, the latter
    forgets to go back to where an attempt began that failed (CPython issue 106052).
    """
    return rb"(?>(?:" + fragment + rb")*)"


def optional(fragment: bytes) -> bytes:
    """Make a fragment that may be missing, and gives nothing back."""
    return rb"(?>(?:" + fragment + rb")?)"


# Fragments for regular expressions. None gives back what it took, so what is made of them does not
# backtrack. Beyond ASCII any octet goes: is_utf8 tells whether they are characters.
TOKEN = rb"[!#-'*+.0-9A-Z^-~\x80-\xff-]++"
ATOM = rb"[!#-'*+/-9=?A-Z^-~\x80-\xff-]++"
DOT_ATOM = ATOM + many(rb"\." + ATOM)
QUOTED_STRING = rb'"[^"\\]*+' + many(rb'\\.[^"\\]*+') + rb'"'

LINE_MAXIMUM = 77  # octets without the line end: RFC 5322 §2.1.1 has 78 with one to spare
FOLD = b"\n\t"  # Postfix takes bare LF from milters

PARENTHESES_MAXIMUM = 1000  # that open, in one field; what people and programs write has a handful

_NOT_CONTROLS = bytes(octet for octet in range(256) if octet == 9 or (octet >= 32 and octet != 127))
# What stands outside comments; it ends before a parenthesis, a quote that is not closed, or the end.
_OUTSIDE = re.compile(many(rb'[^()"]++|' + QUOTED_STRING), re.DOTALL)
_PLAIN_COMMENT = re.compile(rb"\([^()\\]*+" + many(rb"\\.[^()\\]*+") + rb"\)", re.DOTALL)
_COMMENT_MARK = re.compile(rb"[()]|\\.", re.DOTALL)
_QUOTED_PAIR = re.compile(rb"\\(.)", re.DOTALL)
_NEEDS_QUOTED_PAIR = re.compile(rb'(["\\])')


def unfold_strictly(value: bytes) -> bytes | None:
    """Join the lines of a field's value (RFC 5322 §2.2.3); lines may end with CRLF or LF.

    None where a line end is no fold, for a bare CR, and for any control but the tab: what a
    program makes of those nobody knows.
    """
    if b"\n" in value:
        value = value.replace(b"\r\n", b"\n").replace(b"\n\t", b"\t").replace(b"\n ", b" ")
    return None if value.translate(None, _NOT_CONTROLS) else value


def without_comments(line: bytes) -> bytes | None:
    """Put a blank in the place of each comment (RFC 5322 §3.2.2), however they nest.

    Quoted-strings stay as they are. None for a parenthesis or a quote without its other half, and
    for more than PARENTHESES_MAXIMUM.
    """
    if b"(" not in line:
        return line if _OUTSIDE.fullmatch(line) else None
    if line.count(b"(") > PARENTHESES_MAXIMUM:
        return None
    if b'"' not in line:
        blanked = _PLAIN_COMMENT.sub(b" ", line)
        if b"(" not in blanked and b")" not in blanked:
            return blanked
    kept = []
    position = 0
    while outside := _OUTSIDE.match(line, position):  # it matches the empty string, too
        kept.append(outside[0])
        position = outside.end()
        if position == len(line):
            break
        position = _comment_end(line, position)
        if position < 0:
            return None
    return b" ".join(kept)


def _comment_end(line: bytes, position: int) -> int:
    """Give where the comment that opens at a position ends; -1 if none does."""
    plain = _PLAIN_COMMENT.match(line, position)
    if plain is not None:
        return plain.end()
    if line[position : position + 1] != b"(":
        return -1
    depth = 0
    for mark in _COMMENT_MARK.finditer(line, position):
        if mark[0] == b"(":
            depth += 1
        elif mark[0] == b")":
            depth -= 1
            if not depth:
                return mark.end()
    return -1


def unquote(quoted: bytes) -> bytes:
    """Give what a QUOTED_STRING says (RFC 5322 §3.2.4)."""
    inner = quoted[1:-1]
    return _QUOTED_PAIR.sub(rb"\1", inner) if b"\\" in inner else inner


def quote(text: bytes) -> bytes:
    """Make a quoted-string. What may stand in one is the caller's to know."""
    if b'"' in text or b"\\" in text:
        text = _NEEDS_QUOTED_PAIR.sub(rb"\\\1", text)
    return b'"' + text + b'"'


def fold_words(words: Iterable[bytes], *, used: int, reserve: int = 0, fold: bytes = FOLD) -> bytes:
    """Join words by blanks, and by folds where a line would grow longer than LINE_MAXIMUM.

    used are the octets before the first word, reserve those that may still come after the last one.
    """
    words = iter(words)
    line = next(words)
    lines = []
    for word in words:
        if used + len(line) + 1 + len(word) + reserve > LINE_MAXIMUM:
            lines.append(line)
            line = word
            used = 1  # the blank of the fold
        else:
            line += b" " + word
    lines.append(line)
    return fold.join(lines)


def is_utf8(line: bytes) -> bool:
    """Tell whether these octets are characters."""
    if line.isascii():
        return True
    try:
        line.decode()
    except UnicodeDecodeError:
        return False
    return True
