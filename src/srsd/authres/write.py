"""Writes the value of Authentication-Results: every value is plain, quoted, or left out."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import TYPE_CHECKING

from srsd.authres.result import METHODS, Result
from srsd.syntax.address import parse_address
from srsd.syntax.domain import fold_domain
from srsd.syntax.structured import DOT_ATOM, FOLD, LINE_MAXIMUM, TOKEN, fold_words, many, optional, quote

if TYPE_CHECKING:
    from collections.abc import Sequence

_NAME_LENGTH = len("Authentication-Results:")
_AUTHSERV_ID_MAXIMUM = 255  # octets
_VALUE_MAXIMUM = 320  # octets: the longest address, RFC 5321 §4.5.3.1; twice that when all is escaped
_REASON_MAXIMUM = 200  # characters
_KEPT_OCTETS = 64  # of values that are kept, spelled: most mail is of few domains

_SUB_DOMAIN = rb"[0-9A-Za-z]++" + many(rb"-++[0-9A-Za-z]++")
_BARE_DOMAIN = _SUB_DOMAIN + many(rb"\." + _SUB_DOMAIN)
# RFC 8601 §2.2 pvalue, but for quoted-strings.
_BARE = re.compile(TOKEN + rb"|" + optional(DOT_ATOM) + rb"@" + _BARE_DOMAIN)
_DOMAIN = re.compile(_BARE_DOMAIN)
_DOT_ATOM = re.compile(DOT_ATOM)

# Readers that cut at `;` or drop what is in parentheses, whether it is quoted or not, would find
# other results than ours behind these three. No value that is worth showing has them.
_QUOTABLE = bytes(octet for octet in range(32, 256) if octet != 127 and octet not in b";()")
# Readers that look for words anywhere find these.
_READS_AS_PASS = re.compile(rb"(?:%s)\s*+(?:/\s*+\d++\s*+)?=\s*+pass" % "|".join(METHODS).encode())
_TO_REASON = {ord(";"): ",", ord("("): "[", ord(")"): "]", ord('"'): "'", ord("\\"): "/"}

# What the words look like on the wire. A KeyError in any of these is a word that is not registered.
_RESULTS = {
    (method, result): f"{method}={result}".encode()
    for method, words in METHODS.items()
    for result in words.results
}
_PROPERTIES = {
    (method, *name.split(".")): f"{name}=".encode()
    for method, words in METHODS.items()
    for name in words.properties
}
_ADDRESSES = frozenset({b"smtp.mailfrom=", b"header.i="})


def format_results(authserv_id: bytes, results: Sequence[Result], *, utf8: bool = False) -> bytes:
    """Write the value of an Authentication-Results field, with the blank after its colon.

    Folds are LF and a tab, in a long reason LF and a blank. Each line is shorter than 78 octets
    unless a single value is longer than that, and never longer than 998. `none` stands where there
    is no result (RFC 8601 §2.2).

    A value that a reader could take for anything but a value is left out: controls, octets that
    are not UTF-8, what is not ASCII unless utf8 says that the message may have it (RFC 6532), `;`
    and parentheses, the text of a passed result, more than 320 octets. Of smtp.mailfrom the
    domain remains, of header.i `@` and the domain. Domains of addresses become A-labels.

    Raises ValueError for a word that is not registered, and for an authserv-id that cannot be
    written: the faults of a caller, never of a message.
    """
    head = _head(authserv_id)
    if results:
        return b";".join([head, *[_format_result(result, utf8) for result in results]])
    fits = _NAME_LENGTH + len(head) + len("; none") <= LINE_MAXIMUM
    return head + (b"; none" if fits else b";" + FOLD + b"none")


@lru_cache(maxsize=16)  # a host has one name
def _head(authserv_id: bytes) -> bytes:
    """Write the authserv-id, on a line of its own where the field's name leaves it no room."""
    spelt = None
    if 0 < len(authserv_id) <= _AUTHSERV_ID_MAXIMUM and b"@" not in authserv_id:
        spelt = _spell(authserv_id, utf8=False)
    if spelt is None:
        raise ValueError(f"{authserv_id!r} cannot be an authserv-id")
    if _NAME_LENGTH + len(b" " + spelt + b";") > LINE_MAXIMUM:
        return b" " + FOLD + spelt
    return b" " + spelt


def _format_result(result: Result, utf8: bool) -> bytes:
    """Write one result on a line of its own, or on several."""
    method = result.method
    try:
        pieces = [_RESULTS[method, result.result]]
        if result.reason:
            reason = _spell_reason(result.reason[:_REASON_MAXIMUM], utf8)
            if reason is not None:
                pieces.append(reason)
        for ptype, name, value in result.properties:
            prefix = _PROPERTIES[method, ptype, name]
            spelt = _spell_value(value, prefix, utf8)
            if spelt is not None:
                pieces.append(prefix + spelt)
    except KeyError as unknown:
        raise ValueError(f"{unknown.args[0]!r} is not registered for Authentication-Results") from None
    line = b" ".join(pieces)
    if len(line) + 2 > LINE_MAXIMUM:  # with its tab and its semicolon
        line = fold_words(pieces, used=1, reserve=1)
    return FOLD + line


@lru_cache(maxsize=256)  # most messages have one of a few
def _spell_reason(text: str, utf8: bool) -> bytes | None:
    """Spell reason="...", folded at its blanks when it is longer than a line; None for a blank one."""
    if not (text.isascii() and text.isprintable()):
        text = "".join(each if each.isprintable() and (utf8 or each.isascii()) else "?" for each in text)
    words = text.translate(_TO_REASON).split()
    if not words:
        return None
    spelt = f'reason="{" ".join(words)}"'.encode()
    if b"=" in spelt and _READS_AS_PASS.search(spelt.lower()):
        spelt = b"reason=" + spelt.removeprefix(b"reason=").replace(b"=", b":")
    if len(spelt) + 2 <= LINE_MAXIMUM:
        return spelt
    # Inside quotes the blank itself must begin the line (RFC 5322 §2.2.3).
    return fold_words(spelt.split(b" "), used=1, reserve=1, fold=b"\n ")


def _spell_value(value: bytes | str, prefix: bytes, utf8: bool) -> bytes | None:
    """Spell the value of a property; None for what must not be written."""
    if isinstance(value, str):
        value = value.encode(errors="surrogatepass")  # which is not UTF-8
    if len(value) > _KEPT_OCTETS:
        return _spell_any_value(value, prefix, utf8)
    return value if value.isalnum() else _spell_usual_value(value, prefix, utf8)


def _spell_any_value(value: bytes, prefix: bytes, utf8: bool) -> bytes | None:
    if len(value) <= _VALUE_MAXIMUM and b"=" not in value and value.isascii() and _BARE.fullmatch(value):
        return value  # as nearly all are
    if prefix in _ADDRESSES and b"@" in value:
        return _spell_address(value, prefix, utf8)
    return _spell(value, utf8)


_spell_usual_value = lru_cache(maxsize=1024)(_spell_any_value)


def _spell(value: bytes, utf8: bool) -> bytes | None:
    """Spell a value as a token, an address or a quoted-string, whichever is the first that can hold it."""
    if len(value) > _VALUE_MAXIMUM or not (value.isascii() or (utf8 and _is_printable(value))):
        return None
    if b"=" in value and _READS_AS_PASS.search(value.lower()):
        return None
    if _BARE.fullmatch(value):
        return value
    if value.translate(None, _QUOTABLE):
        return None
    return quote(value)


def _is_printable(value: bytes) -> bool:
    """Tell whether these are characters, and none of them a control, a separator or a direction mark."""
    try:
        return value.decode().isprintable()
    except UnicodeDecodeError:
        return False


def _spell_address(value: bytes, prefix: bytes, utf8: bool) -> bytes | None:
    """Spell an address, or the domain that remains when its local-part must not be written."""
    domain = value.rpartition(b"@")[2]
    if not domain.isascii():
        folded = fold_domain(domain)
        if folded is None:
            return None
        domain = folded
    address = parse_address(value)
    if address is not None:
        local_part = address.local_part
        if not _DOT_ATOM.fullmatch(local_part):
            local_part = quote(local_part)
        whole = local_part + b"@" + domain
        spelt = _spell(whole, utf8)
        if spelt is not None:
            # The one thing in quotes here that is no quoted-string as a whole.
            return whole if _DOMAIN.fullmatch(domain) else spelt
    remaining = domain if prefix == b"smtp.mailfrom=" else b"@" + domain
    return _spell(remaining if domain else value, utf8)
