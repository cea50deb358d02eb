"""What an SPF check ends with (RFC 7208 §2.6), and how its words are shown to an admin."""

from __future__ import annotations

from enum import StrEnum
from typing import NamedTuple


class SpfResult(StrEnum):
    """The results of RFC 7208 §2.6; the value is the word for headers."""

    NONE = "none"
    NEUTRAL = "neutral"
    PASS = "pass"
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


def bounded(reason: str) -> str:
    """Cut a reason to its greatest length."""
    return reason if len(reason) <= REASON_MAXIMUM else reason[: REASON_MAXIMUM - 3] + "..."
