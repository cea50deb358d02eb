"""What an SPF check ends with (RFC 7208 §2.6), and how its words are shown to an admin."""

from __future__ import annotations

from enum import Enum
from typing import NamedTuple


class SpfResult(Enum):
    """The results of RFC 7208 §2.6; the value is the word for headers."""

    NONE = "none"
    NEUTRAL = "neutral"
    PASS = "pass"  # noqa: S105 - no password
    FAIL = "fail"
    SOFTFAIL = "softfail"
    TEMPERROR = "temperror"
    PERMERROR = "permerror"


class SpfOutcome(NamedTuple):
    """A result and what led to it."""

    result: SpfResult
    reason: str
    """A short phrase for an admin: printable ASCII, REASON_MAXIMUM characters at most."""
    checked_domain: bytes = b""
    """The domain of the identity, in A-labels and lower case; b"" when there was none to check."""
    domain: bytes = b""
    """Whose record, or whose failing answer, decided: any octets, as macros may have made the name."""
    mechanism: bytes = b""
    """The term of that record that matched, with its qualifier; b"" when none did.

    Visible ASCII, but of any length.
    """
    explanation: bytes = b""
    """What the domain says of its fail (§6.2): printable ASCII in one line, b"" without one.

    It comes from a third party: EXPLANATION_MAXIMUM octets at most.
    """


REASON_MAXIMUM = 250
EXPLANATION_MAXIMUM = 450  # so that it fits in one line of an SMTP reply: RFC 5321 §4.5.3.1.5
_SHOWN_MAXIMUM = 80

_SPELT = [chr(octet) if 0x20 <= octet < 0x7F else f"\\x{octet:02x}" for octet in range(256)]
_SPELT[ord("\\")] = "\\\\"
_PLAIN = bytes(octet for octet, spelt in enumerate(_SPELT) if spelt == chr(octet))


def shown(octets: bytes, maximum: int = _SHOWN_MAXIMUM) -> str:
    r"""Spell octets that a stranger chose: printable ASCII as it is, the rest as \xNN; the first ones."""
    first = octets[:maximum]
    if first.translate(None, _PLAIN):
        text = "".join([_SPELT[octet] for octet in first])
    else:
        text = first.decode("ascii")  # as nearly all is
    return text if len(octets) <= maximum else text + "..."


def bounded(reason: str) -> str:
    """Cut a reason to its greatest length."""
    return reason if len(reason) <= REASON_MAXIMUM else reason[: REASON_MAXIMUM - 3] + "..."
