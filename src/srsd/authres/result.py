"""One result of one method, and the words that IANA has registered for those we have."""

from __future__ import annotations

from typing import NamedTuple


class Result(NamedTuple):
    """What one authentication method found (RFC 8601 §2.2 resinfo).

    A property is its ptype, its name, and its value without the quoting of the header field. The
    value of smtp.mailfrom, smtp.rcptto or header.i is an address as SMTP spells it, its local-part
    quoted where it must be.
    """

    method: str
    result: str
    reason: str = ""
    properties: tuple[tuple[str, str, bytes | str], ...] = ()


class Method(NamedTuple):
    """The words that go with a method."""

    results: tuple[str, ...]
    properties: tuple[str, ...]  # "ptype.property"


_ERRORS = ("temperror", "permerror")
_VERDICTS = ("none", "pass", "fail")

# https://www.iana.org/assignments/email-auth/ of 2025-04-04, but for the methods of which srsd can
# have no result (S/MIME, vouching, RRVS, lists in DNS) and those that are deprecated.
METHODS = {
    "arc": Method(_VERDICTS, ("smtp.remote-ip", "header.oldest-pass")),
    "auth": Method((*_VERDICTS, *_ERRORS), ("smtp.auth", "smtp.mailfrom")),
    "dkim": Method(
        (*_VERDICTS, "policy", "neutral", *_ERRORS),
        ("header.d", "header.i", "header.b", "header.a", "header.s"),
    ),
    "dmarc": Method((*_VERDICTS, *_ERRORS), ("header.from", "policy.dmarc")),
    "iprev": Method(("pass", "fail", *_ERRORS), ("policy.iprev",)),
    "spf": Method(
        (*_VERDICTS, "softfail", "policy", "neutral", *_ERRORS),
        ("smtp.mailfrom", "smtp.helo"),
    ),
}
