"""Tells which Authentication-Results fields of a message from outside must go (RFC 8601 §5)."""

from __future__ import annotations

import re

from srsd.syntax.domain import fold_domain
from srsd.syntax.structured import (
    QUOTED_STRING,
    TOKEN,
    many,
    optional,
    unfold_strictly,
    unquote,
    without_comments,
)

_NAME = b"authentication-results"

# Before the first `;` readers must not be able to differ about what is a comment: none here has
# quotes, escapes, a `;`, or another comment inside.
_GAP = rb'[ \t]++|\([^()"\\;]*+\)'
_BEFORE_RESULTS = re.compile(
    (many(_GAP) + rb"(" + TOKEN + rb"|" + QUOTED_STRING + rb")")
    + (optional(rb"(?:" + _GAP + rb")" + many(_GAP) + rb"[0-9]++") + many(_GAP) + rb";"),
    re.DOTALL,
)
_QUOTED_ID = re.compile(TOKEN)

# After it the shape is that of RFC 8601 §2.2, but words and values have any octets that do not end
# them, a property may lack its ptype, a value may be empty, and so may what is between two `;`.
_BLANKS = rb"[ \t]*+"
_EQUALS = _BLANKS + rb"=" + _BLANKS
_WORD = rb"[0-9A-Za-z_\x80-\xff-]++"
_METHOD = _WORD + optional(_BLANKS + rb"/" + _BLANKS + rb"[0-9]++") + _EQUALS + rb"[0-9A-Za-z_.\x80-\xff-]++"
_VALUE = many(rb'[^ \t;()"]++|' + QUOTED_STRING)
_PROPERTY = rb"[ \t]++" + _WORD + many(_BLANKS + rb"\." + _BLANKS + _WORD) + _EQUALS + _VALUE
_RESULT = rb"[Nn][Oo][Nn][Ee](?=[ \t;]|\Z)|" + _METHOD + many(_PROPERTY)
_RESULTS = re.compile(
    _BLANKS + optional(_RESULT) + _BLANKS + many(rb";" + _BLANKS + optional(_RESULT) + _BLANKS), re.DOTALL
)


def is_authentication_results(name: bytes) -> bool:
    """Tell whether a field has this name, in whatever case, with or without blanks before its colon."""
    return name[:1] in (b"A", b"a") and name.rstrip().lower() == _NAME


def claims(value: bytes, authserv_id: bytes) -> bool:
    """Tell whether an Authentication-Results field must be removed: it is ours by name, or unclear.

    The authserv-id is ours, folded by fold_domain, and not empty. A field stays only if all of this holds:

    - It is one line when unfolded, without any control but the tab.
    - It begins with an authserv-id, a token or a quoted-string of the octets of a token, then
      perhaps a version, then `;`. Comments may stand around these, plain ones only: they hold no
      comment, quote, backslash or `;`.
    - Nothing up to that `;`, comments included, has our authserv-id in it: not in another case, with
      quoted-pairs, with a trailing dot, in U-labels; nor as a part of a longer name in whole labels
      (sub.OURS, OURS.example) or of something that is no name (OURS!, OURS/1). An authserv-id of
      ours that is a single label, as `mail`, is no part of a longer name.
    - An authserv-id beyond ASCII is a domain name (RFC 5891).
    - What follows has the shape of results: `none`, or method=result with properties, between
      `;`s; quotes and parentheses in pairs. Methods and properties need not be registered, values may
      have any octets that do not end them, properties without ptype are taken, and so is
      nothing at all.

    So a field that names nobody (`spf=pass ...`, as Exchange Online writes) goes: it could be anyone's.
    """
    line = unfold_strictly(value)
    before = line is not None and _BEFORE_RESULTS.match(line)
    if not line or not before or _is_ours_or_unclear(before[0], before[1], authserv_id):
        return True
    results = without_comments(line[before.end() :])
    return results is None or _RESULTS.fullmatch(results) is None


def _is_ours_or_unclear(before: bytes, spelt: bytes, ours: bytes) -> bool:
    """Judge an authserv-id as it is spelt, and what stands before and after it."""
    if spelt.startswith(b'"'):
        spelt = unquote(spelt)
        if not _QUOTED_ID.fullmatch(spelt):
            return True
    folded = fold_domain(spelt)
    if folded is None or folded.startswith(b".") or b".." in folded:
        return True
    return _names(folded, ours) or _names(before.lower(), ours)


def _names(text: bytes, ours: bytes) -> bool:
    """Tell whether a name stands in a text in lower case, whole or as whole labels of a longer one."""
    at = text.find(ours)
    if at < 0:
        return False
    inner = _LABEL_OCTETS if b"." in ours else _NAME_OCTETS
    while at >= 0:
        end = at + len(ours)
        if (at == 0 or text[at - 1] not in inner) and (end == len(text) or text[end] not in inner):
            return True
        at = text.find(ours, at + 1)
    return False


_LABEL_OCTETS = frozenset(b"abcdefghijklmnopqrstuvwxyz0123456789-_" + bytes(range(128, 256)))
_NAME_OCTETS = _LABEL_OCTETS | {ord(".")}
