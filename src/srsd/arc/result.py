"""What is known of a chain: the Chain Validation Status (RFC 8617 §4.4), why, and who sealed what."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, NamedTuple

from srsd.authres import parse_results

if TYPE_CHECKING:
    from srsd.authres import AuthenticationResults


class ChainStatus(StrEnum):
    """The three words there are, in cv= and in Authentication-Results."""

    NONE = "none"
    PASS = "pass"
    FAIL = "fail"


class ArcSet(NamedTuple):
    """One set: who sealed it, and what that handler says it found.

    Names are A-labels in lower case and may be shown. A payload is what its sealer wrote: as good as the
    sealer, and anything at all where the chain did not pass.
    """

    instance: int
    domain: bytes  # d= of the ARC-Seal, whose key vouches for the payload
    selector: bytes  # s= of the ARC-Seal
    signature_domain: bytes  # d= of the ARC-Message-Signature, whose key vouches for the message
    signs_from: bool  # the ARC-Message-Signature covers each From field that the message now has
    payload: bytes  # of ARC-Authentication-Results: what stands after i=

    @property
    def authentication_results(self) -> AuthenticationResults | None:
        """The payload by the letter of RFC 8601; None for what is not: that does not break a chain (§3.4)."""
        return parse_results(self.payload)


class ArcResult(NamedTuple):
    """What validation found."""

    status: ChainStatus
    phrase: str  # the reason as an admin reads it: printable ASCII, no quotes, less than 100 characters
    temporary: bool = False  # it failed because DNS did not answer, and for nothing else
    sets: tuple[ArcSet, ...] = ()  # from instance 1 on; empty where the sets are not complete
    oldest_pass: int | None = None  # header.oldest-pass (§5.2 step 5); None: not determined
