"""Which mail of ours is signed, and with which keys; and signing it (RFC 6376 §5.1)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from srsd.dkim.header_fields import field_name
from srsd.dkim.keystore import key_name
from srsd.dkim.publication import record_of
from srsd.dkim.sign import DkimSigningParameters, plan_signing
from srsd.dkim.signing_rules import DkimKeyParameters
from srsd.dkim.verify import DkimVerificationParameters, plan_verification
from srsd.exclusion import Skip
from srsd.filter.authenticate import EXCLUDED, HEADER_TOO_LARGE, LOGIN_MISMATCH, skips_of
from srsd.filter.hazards import LONG_HEADER_LINES, BodyHazards, has_long_lines
from srsd.resolving import Answer, Outcome
from srsd.syntax.header import HeaderField
from srsd.syntax.setting import setting

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from srsd.dkim.canonicalization import BodyHash, BodyHashKey
    from srsd.dkim.keystore import KeyChoice
    from srsd.dkim.sign import Signer as KeyOwner
    from srsd.dkim.sign import SigningPlan
    from srsd.dkim.signing_rules import SigningRules
    from srsd.exclusion import ExclusionMap
    from srsd.filter.author import Author
    from srsd.filter.transaction import Transaction

DKIM_SIGNATURE = b"DKIM-Signature"
FROM_OUTSIDE = "it bears Authentication-Results of ours, so it came from outside before"
_SAMPLE = 64  # every so many signatures is verified


@dataclass(frozen=True, kw_only=True)
class SigningParameters(DkimKeyParameters, DkimSigningParameters):
    """Signing the mail that is ours."""

    sign: bool = setting(True, "Sign mail that is ours, where there is a key for its author domain.")


class Signatures(NamedTuple):
    """What became of signing."""

    values: tuple[bytes, ...] = ()  # of DKIM-Signature fields, from the top
    signed_as: tuple[str, ...] = ()  # "s=... d=... a=...", for the log
    why: str = ""  # why those, or why none
    hazards: tuple[str, ...] = ()  # what may break them on the way
    unverified: tuple[str, ...] = ()  # signatures that failed with our own key, and are not added


class SigningService:
    """Decides for each message who signs it."""

    def __init__(
        self,
        parameters: SigningParameters,
        rules: SigningRules,
        exclusions: ExclusionMap,
        *,
        verify_all: bool = False,
    ) -> None:
        """Take what the admin wants; verify_all is for looking closely: every signature is then verified."""
        self._sample = 1 if verify_all else _SAMPLE
        self._parameters = parameters
        self._rules = rules
        self._exclusions = exclusions
        self._until_sample = 0

    def begin(  # noqa: PLR0913 - these are the facts that it goes by
        self,
        transaction: Transaction,
        fields: Sequence[HeaderField] | None,
        author: Author,
        now: int,
        *,
        came_from_outside: bool,
        login_mismatch: bool,
    ) -> MessageSigning | Signatures:
        """Begin to sign a message of ours whose header is there, or say why it is not signed.

        fields is None where the header is too large to be kept.
        """
        if came_from_outside:
            return Signatures(why=FROM_OUTSIDE)
        if fields is None:
            return Signatures(why=HEADER_TOO_LARGE)
        if author.address is None:
            return Signatures(why=author.problem)
        if Skip.SIGN in skips_of(transaction.client, author, self._exclusions):
            return Signatures(why=EXCLUDED)
        if login_mismatch:
            return Signatures(why=LOGIN_MISMATCH)
        choice = self._rules.choose(author.address)
        if not choice.signers:
            return Signatures(why=choice.reason)
        plan = plan_signing(fields, choice.signers, now, self._parameters)
        hazards = (LONG_HEADER_LINES,) if has_long_lines(fields) else ()
        self._until_sample -= 1
        if self._until_sample >= 0:
            return MessageSigning(plan, choice, hazards)
        self._until_sample = self._sample - 1
        return MessageSigning(plan, choice, hazards, sample=list(fields), now=now)


class MessageSigning:
    """One message that is being signed."""

    def __init__(
        self,
        plan: SigningPlan,
        choice: KeyChoice,
        header_hazards: tuple[str, ...],
        *,
        sample: list[HeaderField] | None = None,
        now: int = 0,
    ) -> None:
        self.body_hash = plan.body_hash
        self.hazards = BodyHazards()
        self._header_hazards = header_hazards
        self._plan = plan
        self._choice = choice
        self._sample = sample  # the header, where the signatures are to be verified
        self._now = now

    def finish(self, body_hashes: Mapping[BodyHashKey, BodyHash]) -> Signatures:
        """Sign."""
        values, signed_as, unverified = [], [], []
        prepared = self._plan.prepare(body_hashes[self.body_hash])
        for signer, unsigned in zip(self._choice.signers, prepared, strict=True):
            value = unsigned.complete(unsigned.key.sign(unsigned.digest))
            name = f"s={signer.selector.decode()} d={signer.domain.decode()} {unsigned.key.key_type.name}"
            if self._sample is not None:
                problem = verify_own(self._sample, value, signer, body_hashes, self._now)
                if problem:
                    unverified.append(f"{name}: {problem}")
                    continue
            values.append(value)
            signed_as.append(name)
        hazards = (*self._header_hazards, *self.hazards.found)
        return Signatures(tuple(values), tuple(signed_as), self._choice.reason, hazards, tuple(unverified))


def verify_own(
    fields: Sequence[HeaderField],
    value: bytes,
    signer: KeyOwner,
    body_hashes: Mapping[BodyHashKey, BodyHash],
    now: int,
) -> str:
    """Verify a signature of ours as others will; gives what is wrong, "" if nothing is.

    Signatures that the message had before are left out: they may want other hashes of the body.
    """
    signed = [HeaderField(DKIM_SIGNATURE, value)]
    signed += [field for field in fields if field_name(field) != DKIM_SIGNATURE.lower()]
    plan = plan_verification(signed, now, DkimVerificationParameters())
    answer = Answer(Outcome.FOUND, (record_of(signer.key),))
    ours, *_ = plan.finish({key_name(signer.domain, signer.selector): answer}, body_hashes)
    return "" if ours.result.value == "pass" else ours.phrase
