"""Whom to believe: a chain that passed says who wrote what, and not who is honest (RFC 8617 §9.4)."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from srsd.arc.result import ChainStatus
from srsd.syntax.domain import fold_domain
from srsd.syntax.structured import (
    QUOTED_STRING,
    TOKEN,
    is_utf8,
    many,
    optional,
    unfold_strictly,
    unquote,
    without_comments,
)

if TYPE_CHECKING:
    from srsd.arc.result import ArcResult, ArcSet

_BLANKS = rb"[ \t]*+"
_KEYWORD = rb"[0-9A-Za-z_-]++"
_VALUE = many(TOKEN + rb"|[@/]|" + QUOTED_STRING)
_STATEMENT = re.compile(many(rb'[^";]++|' + QUOTED_STRING), re.DOTALL)
_VERSION = optional(rb"/" + _BLANKS + rb"1" + _BLANKS)
_DMARC = re.compile(_BLANKS + rb"dmarc" + _BLANKS + _VERSION + rb"=", re.IGNORECASE)
_RESULT = re.compile(_BLANKS + rb"([a-z]++)", re.IGNORECASE)
_PROPERTY = re.compile(
    rb"[ \t]++(" + _KEYWORD + optional(_BLANKS + rb"\." + _BLANKS + _KEYWORD) + rb")"
    + _BLANKS + rb"=" + _BLANKS + rb"(" + _VALUE + rb")",
    re.DOTALL,
)  # fmt: skip
_REST = re.compile(_BLANKS)


def vouching_sealer(result: ArcResult, trusted: frozenset[bytes], author_domain: bytes) -> bytes | None:
    """Find the trusted sealer that saw DMARC pass for the author domain; None if there is none.

    trusted are folded domains, author_domain is one. What the sealers say is looked at from the newest set
    downwards, and only as long as there is no stranger in between: each seal covers all sets below it, so
    whoever holds one key can put any sets that he ever received below his own, with another message. A
    trusted handler above them has verified the newest ARC-Message-Signature of what it received, so the
    set below its own was made for that message. One above whom there is nobody is believed because we
    have verified his.

    What an attacker might try, and what it comes to:
    - A chain of trusted sealers on another message: the newest ARC-Message-Signature fails, and the chain.
    - The same, with a set of his own on top: he is the stranger, and what is below him is not looked at.
    - The same, sent through a trusted forwarder: its set is looked at, it says what it found, and below
      it is the stranger.
    - A set sealed by himself that repeats the ARC-Message-Signature of a trusted sealer: d= of the seal
      counts, whose key alone vouches for the results in it, and both d= have to be the same.
    - Another From, where a sealer does not sign it: sets that leave a From field out end the way down.
    - A trusted sealer's results for another author domain, or for none: they vouch for nobody else.
    """
    if result.status is not ChainStatus.PASS:
        return None
    for arc_set in reversed(result.sets):
        if not _is_trusted(arc_set, trusted):
            return None
        if dmarc_passed_for(arc_set.payload) == author_domain:
            return arc_set.domain
    return None


def _is_trusted(arc_set: ArcSet, trusted: frozenset[bytes]) -> bool:
    return arc_set.domain in trusted and arc_set.signature_domain == arc_set.domain and arc_set.signs_from


def dmarc_passed_for(payload: bytes) -> bytes | None:
    """Give the author domain, folded, that a payload says DMARC passed for; None where it does not say so.

    Handlers who are asked to be trusted write what RFC 8601 does not know (`action=none`, empty values),
    so this reads less strictly than srsd.authres, and only the result that matters. It has to be there
    once: where two say something about DMARC, one may have been smuggled in by a value.
    """
    line = unfold_strictly(payload)
    if line is None or not is_utf8(line):
        return None
    line = without_comments(line)
    if line is None:
        return None
    found = None
    for statement in _statements(line)[1:]:  # without the authserv-id
        method = _DMARC.match(statement)
        if method is not None:
            if found is not None:
                return None
            found = (statement, method.end())
    return None if found is None else _author_domain(*found)


def _statements(line: bytes) -> list[bytes]:
    """Cut at the semicolons that stand outside of quotes; each quote has its other half."""
    statements = []
    position = 0
    while found := _STATEMENT.match(line, position):  # it matches the empty string, too
        statements.append(found[0])
        position = found.end() + 1
        if position > len(line):
            break
    return statements


def _author_domain(statement: bytes, position: int) -> bytes | None:
    """Read header.from of a dmarc=pass."""
    result = _RESULT.match(statement, position)
    if result is None or result[1].lower() != b"pass":
        return None
    domain = None
    position = result.end()
    while found := _PROPERTY.match(statement, position):
        position = found.end()
        if found[1].translate(None, b" \t").lower() == b"header.from":
            if domain is not None:
                return None
            value = found[2]
            domain = unquote(value) if value.startswith(b'"') else value
    if domain is None or not _REST.fullmatch(statement, position):
        return None
    return fold_domain(domain)
