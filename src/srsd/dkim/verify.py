"""Verifying the signatures of a message (RFC 6376 §6), in two steps.

plan = plan_verification(fields, now, parameters)
hashes = BodyHashes(plan.body_hashes); the body goes through hashes.feed(); DNS is asked for plan.key_names
results = plan.finish(answers, hashes.finish())
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from srsd.crypto import RSA_BITS_MAXIMUM, RSA_BITS_MINIMUM
from srsd.dkim.header_fields import HeaderFields, canonical_signature_field
from srsd.dkim.key_record import key_for
from srsd.dkim.result import DkimResult, Reason
from srsd.dkim.signature import FIELD_NAME, Flaw, Labels, Signature, parse_signature
from srsd.resolving import Answer, Outcome
from srsd.syntax.setting import between, setting

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from srsd.dkim.canonicalization import BodyHash, BodyHashKey
    from srsd.syntax.header import HeaderField

SIGNATURES_MAXIMUM = 10  # looked at, from the top; RFC 6376 §8.4 wants a limit


@dataclass(frozen=True, kw_only=True)
class DkimVerificationParameters:
    """What passes."""

    minimum_key_bits: int = setting(
        RSA_BITS_MINIMUM, "Shorter RSA keys do not pass.", between(RSA_BITS_MINIMUM, RSA_BITS_MAXIMUM)
    )


_NOT_ASKED: Answer[bytes] = Answer(Outcome.BUDGET_SPENT)
_FOUND = {reason: Flaw(reason) for reason in Reason}


class _Candidate(NamedTuple):
    """A signature, and what its header fields hash to."""

    labels: Labels
    signature: Signature | Flaw
    header_digest: bytes
    second_from: bool


class VerificationPlan:
    """What the signatures of a message need to be judged. The header fields are not needed any more."""

    __slots__ = ("_candidates", "_minimum_key_bits", "body_hashes", "key_names", "not_examined")

    def __init__(self, candidates: Sequence[_Candidate], not_examined: int, minimum_key_bits: int) -> None:
        self._candidates = candidates
        self._minimum_key_bits = minimum_key_bits
        signatures = [each.signature for each in candidates if isinstance(each.signature, Signature)]
        self.key_names = tuple(dict.fromkeys([each.key_name for each in signatures]))
        self.body_hashes: frozenset[BodyHashKey] = frozenset([each.body_hash_key for each in signatures])
        self.not_examined = not_examined  # signatures beyond SIGNATURES_MAXIMUM

    def finish(
        self, answers: Mapping[bytes, Answer[bytes]], body_hashes: Mapping[BodyHashKey, BodyHash]
    ) -> list[DkimResult]:
        """Judge: one result for each signature, in the order of the header. No signature, no result.

        answers are those to TXT queries, by key name; a name that is missing counts as not answered.
        """
        return [
            _result(candidate, *_judge(candidate, answers, body_hashes, self._minimum_key_bits))
            for candidate in self._candidates
        ]


def plan_verification(
    fields: Sequence[HeaderField], now: int, parameters: DkimVerificationParameters
) -> VerificationPlan:
    """Look for signatures in a header. now is in seconds since 1970."""
    header = HeaderFields(fields)
    own = header.named(FIELD_NAME)
    examined = own[:SIGNATURES_MAXIMUM]
    candidates = [_examine(field, header, now) for field in examined]
    return VerificationPlan(candidates, len(own) - len(examined), parameters.minimum_key_bits)


def _examine(field: HeaderField, header: HeaderFields, now: int) -> _Candidate:
    labels, signature = parse_signature(field.value, now)
    if isinstance(signature, Flaw):
        return _Candidate(labels, signature, b"", second_from=False)
    canonicalization = signature.header_canonicalization
    digest = hashlib.sha256(
        header.canonical(signature.signed_fields, canonicalization, apart_from=field)
        + canonical_signature_field(canonicalization, field.name, field.value)
    ).digest()
    second_from = len(header.named(b"from")) > signature.signed_fields.count(b"from")
    return _Candidate(labels, signature, digest, second_from)


class _Key(NamedTuple):
    """What is known of the key where a signature was judged with one."""

    bits: int
    authenticated: bool
    testing: bool
    header_verified: bool


def _judge(
    candidate: _Candidate,
    answers: Mapping[bytes, Answer[bytes]],
    body_hashes: Mapping[BodyHashKey, BodyHash],
    minimum_key_bits: int,
) -> tuple[Flaw, _Key | None]:
    signature = candidate.signature
    if isinstance(signature, Flaw):
        return signature, None
    body = body_hashes[signature.body_hash_key]
    answer = answers.get(signature.key_name, _NOT_ASKED)
    record = key_for(signature, answer, minimum_key_bits)
    if isinstance(record, Flaw):
        return _without_key(record, _compare(candidate, signature, body, verified=True)), None
    verified = record.public_key.verify(signature.signature, candidate.header_digest)
    key = _Key(record.public_key.bits, answer.authenticated, record.testing, verified)
    return _FOUND[_compare(candidate, signature, body, verified=verified)], key


def _without_key(flaw: Flaw, with_any_key: Reason) -> Flaw:
    """Judge a signature whose key is not there, by what would be said of it even if it verified.

    A key that DNS did not give makes nothing temporary that no key could mend.
    """
    if flaw.reason is Reason.KEY_UNAVAILABLE and with_any_key is not Reason.VERIFIED:
        return Flaw(with_any_key)
    return flaw


def _compare(candidate: _Candidate, signature: Signature, body: BodyHash, *, verified: bool) -> Reason:
    length = signature.body_hash_key.length
    if length is not None and length > body.length:
        return Reason.BODY_TOO_SHORT
    if body.digest != signature.body_hash:
        return Reason.BODY_CHANGED
    if not verified:
        return Reason.HEADER_CHANGED
    if length is not None and length < body.length:
        return Reason.BODY_NOT_SIGNED
    if candidate.second_from:  # §8.15: readers may show the one that nobody signed
        return Reason.SECOND_FROM
    return Reason.VERIFIED


def _result(candidate: _Candidate, flaw: Flaw, key: _Key | None) -> DkimResult:
    if key is None:
        return DkimResult(flaw.reason, flaw.detail, *candidate.labels)
    return DkimResult(flaw.reason, flaw.detail, *candidate.labels, *key)
