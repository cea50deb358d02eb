"""Reads Authentication-Results strictly: RFC 8601 §2.2, and nothing else."""

from __future__ import annotations

import re
from typing import NamedTuple

from srsd.authres.result import Result
from srsd.syntax.address import Address
from srsd.syntax.structured import (
    DOT_ATOM,
    QUOTED_STRING,
    TOKEN,
    is_utf8,
    many,
    optional,
    unfold_strictly,
    unquote,
    without_comments,
)


class AuthenticationResults(NamedTuple):
    """An Authentication-Results field.

    The authserv-id is without its quoting, in the case that it was written in. Words are in lower
    case, values are as Result has them, as octets. Only version 1 of the field is defined, and of
    each method; a result of another version of its method is left out (RFC 8601 §2.2 and §2.6).
    """

    authserv_id: bytes
    version: int
    results: tuple[Result, ...]


# Comments are blanks by the time these read.
_BLANKS = rb"[ \t]*+"
_EQUALS = _BLANKS + rb"=" + _BLANKS
_VERSION = rb"[0-9]{1,9}(?![0-9])"
_KEYWORD = rb"-*+[0-9A-Za-z]++" + many(rb"-++[0-9A-Za-z]++")  # RFC 5321 §4.1.1.1 Ldh-str
_SUB_DOMAIN = rb"[0-9A-Za-z\x80-\xff]++" + many(rb"-++[0-9A-Za-z\x80-\xff]++")
_DOMAIN = _SUB_DOMAIN + many(rb"\." + _SUB_DOMAIN)
_VALUE = rb"(?:" + TOKEN + rb"|" + QUOTED_STRING + rb")"
_ADDRESS = optional(DOT_ATOM + rb"|" + QUOTED_STRING) + rb"@" + _DOMAIN

# Each of these begins where the one before it ended, with what must stand there.
_AUTHSERV_ID = re.compile(
    _BLANKS + rb"(" + _VALUE + rb")(?:[ \t]++(" + _VERSION + rb"))?" + _BLANKS + rb"(?=;)", re.DOTALL
)
_NO_RESULT = re.compile(rb";" + _BLANKS + rb"none" + _BLANKS, re.IGNORECASE)
_METHOD = re.compile(
    (_BLANKS + rb";" + _BLANKS + rb"(" + _KEYWORD + rb")")
    + (rb"(?:" + _BLANKS + rb"/" + _BLANKS + rb"(" + _VERSION + rb"))?")
    + (_EQUALS + rb"(" + _KEYWORD + rb")")
)
_REASON = re.compile(rb"[ \t]++reason" + _EQUALS + rb"(" + _VALUE + rb")", re.IGNORECASE | re.DOTALL)
_PROPERTY = re.compile(
    (rb"[ \t]++(" + _KEYWORD + rb")" + _BLANKS + rb"\." + _BLANKS + rb"(" + _KEYWORD + rb")")
    + (_EQUALS + rb"(?:(" + _ADDRESS + rb")|(" + _VALUE + rb"))"),
    re.DOTALL,
)
_REST = re.compile(_BLANKS)


def parse_results(value: bytes) -> AuthenticationResults | None:
    """Parse the value of an Authentication-Results field; None for what is none.

    The value may be folded with CRLF or LF, and have comments and blanks wherever RFC 8601 lets
    them be. It is stricter than that in one thing: values are set apart by a blank or a comment
    also where a quoted-string ends. A domain of one label is taken.
    """
    line = unfold_strictly(value)
    if line is None or not is_utf8(line):
        return None
    line = without_comments(line)
    found = line is not None and _AUTHSERV_ID.match(line)
    if not line or not found:
        return None
    results = _parse_results(line, found.end())
    if results is None:
        return None
    return AuthenticationResults(_plain(found[1]), int(found[2] or 1), results)


def _parse_results(line: bytes, position: int) -> tuple[Result, ...] | None:
    """Parse what stands after the authserv-id and the version."""
    if _NO_RESULT.fullmatch(line, position):
        return ()
    results = []
    while method := _METHOD.match(line, position):
        position = method.end()
        reason = _REASON.match(line, position)
        if reason is not None:
            position = reason.end()
        properties = []
        while found := _PROPERTY.match(line, position):
            position = found.end()
            value = _canonical_address(found[3]) if found[3] is not None else _plain(found[4])
            properties.append((_word(found[1]), _word(found[2]), value))
        if int(method[2] or 1) == 1:
            text = _plain(reason[1]).decode() if reason else ""
            results.append(Result(_word(method[1]), _word(method[3]), text, tuple(properties)))
    return tuple(results) if _REST.fullmatch(line, position) else None


def _word(keyword: bytes) -> str:
    return keyword.decode().lower()


def _plain(value: bytes) -> bytes:
    return unquote(value) if value.startswith(b'"') else value


def _canonical_address(address: bytes) -> bytes:
    """Spell an address as Result has it: with quotes where they must be, and only there."""
    if not address.startswith(b'"'):
        return address
    quoted, _, domain = address.rpartition(b"@")
    return bytes(Address(unquote(quoted), domain))
