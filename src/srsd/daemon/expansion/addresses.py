"""Addresses as Postfix's tables have them: lists of them, their keys, and their extensions.

As in virtual(5), canonical(5), aliases(5) and local(8). Addresses are in Postfix's internal form, as octets:
the local-part without quotes, then `@` and the domain.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple

from srsd.syntax.address import quote_local_part

if TYPE_CHECKING:
    from collections.abc import Iterator

# Operators join the words left and right of them: `bob @ example.org` is one address.
_TOKEN = re.compile(
    rb'"([^"\\]*(?:\\.[^"\\]*)*)"?'  # a quoted string
    rb"|(\[[^\]\\]*(?:\\.[^\]\\]*)*\]?)"  # a domain literal
    rb"|(\()"  # the beginning of a comment
    rb"|([@%!|:;<>.,])"  # an operator
    rb'|((?:\\.|[^\s"\[(@%!|:;<>.,\\])+|\\)',  # a word
    re.DOTALL,
)
_QUOTED_PAIR = re.compile(rb"\\(.)", re.DOTALL)
_COMMENT_PART = re.compile(rb"\\.|[()]", re.DOTALL)
_NEVER_SPLIT = frozenset({b"postmaster", b"mailer-daemon", b"double-bounce"})


class Key(NamedTuple):
    """A key to look an address up by. Tables of patterns are not asked by partial ones."""

    text: bytes
    partial: bool
    extension: bytes = b""  # what was left out of the address, without the delimiter


def split_extension(
    local_part: bytes, delimiters: bytes, *, owner_request_special: bool = True
) -> tuple[bytes, bytes]:
    """Part a local-part at the first of recipient_delimiter: `user`, `extension`; b"" where it has none."""
    folded = local_part.lower()
    if not delimiters or folded in _NEVER_SPLIT:
        return local_part, b""
    if (
        b"-" in delimiters
        and owner_request_special
        and (folded.startswith(b"owner-") or (folded.endswith(b"-request") and len(folded) > len("-request")))
    ):
        return local_part, b""
    places = [place for place in map(local_part.find, _octets(delimiters)) if place >= 0]
    place = min(places, default=0)
    if place == 0 or place + 1 == len(local_part):
        return local_part, b""
    return local_part[:place], local_part[place + 1 :]


def _octets(delimiters: bytes) -> Iterator[bytes]:
    return (delimiters[at : at + 1] for at in range(len(delimiters)))


def spell(local_part: bytes, domain: bytes) -> bytes:
    """Spell an address as Postfix looks it up: quoted where it must be."""
    return quote_local_part(local_part) + b"@" + domain


def keys_of(
    local_part: bytes, domain: bytes, delimiters: bytes, *, local: bool, owner_request_special: bool = True
) -> list[Key]:
    """Give the keys of an address, in the order of virtual(5) and canonical(5).

    local tells whether the domain is myorigin or one of this host's own, so that `user` alone is a key.
    """
    user, extension = split_extension(local_part, delimiters, owner_request_special=owner_request_special)
    keys = [Key(spell(local_part, domain), partial=False)]
    if extension:
        keys.append(Key(spell(user, domain), partial=True, extension=extension))
    if local:
        keys.append(Key(quote_local_part(local_part), partial=True))
        if extension:
            keys.append(Key(quote_local_part(user), partial=True, extension=extension))
    keys.append(Key(b"@" + domain, partial=True))
    return keys


def parse_list(text: bytes) -> list[bytes]:
    """Cut the result of a table into its items: addresses, `|command`, `/file`, `:include:/file`.

    Commas part them, as do blanks where a comma is missing; comments and the names beside `<address>` are
    dropped, and quotes are taken away.
    """
    items: list[bytes] = []
    words: list[bytes] = []  # of the present item
    joined = True  # to what comes next
    place, end = 0, len(text)
    while place < end:
        token = _TOKEN.match(text, place)
        if token is None:
            place += 1
            continue
        place = token.end()
        quoted, literal, comment, operator, word = token.groups()
        if comment:
            place = _end_of_comment(text, place)
        elif operator == b",":
            _finish(items, words)
            joined = True
        elif operator == b"<":
            words.clear()  # it was a name, not an address
            joined = True
        elif operator == b">":
            _finish(items, words)
            joined = True
        elif operator:
            words.append(operator)
            joined = True
        else:
            if not joined:
                _finish(items, words)
            words.append(literal or _QUOTED_PAIR.sub(rb"\1", word if quoted is None else quoted))
            joined = False
    _finish(items, words)
    return items


def _finish(items: list[bytes], words: list[bytes]) -> None:
    item = b"".join(words)
    words.clear()
    if item and item != b";":
        items.append(item)


def _end_of_comment(text: bytes, place: int) -> int:
    """Find the end of a comment that has begun; they nest."""
    depth = 1
    for part in _COMMENT_PART.finditer(text, place):
        if part[0] == b"(":
            depth += 1
        elif part[0] == b")":
            depth -= 1
            if not depth:
                return part.end()
    return len(text)
