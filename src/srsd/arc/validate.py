"""Validating a chain (RFC 8617 §5.2), in the two steps of DKIM's verification.

plan = plan_validation(fields, now, minimum_key_bits=1024)
hashes = BodyHashes(plan.body_hashes | those of DKIM); DNS is asked for plan.key_names
result = plan.finish(answers, hashes.finish())
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, NamedTuple

from srsd.arc.result import ArcResult, ArcSet, ChainStatus
from srsd.arc.sets import Chain, FieldsOfSet, find_chain
from srsd.crypto import RSA_BITS_MINIMUM
from srsd.dkim.canonicalization import RELAXED, canonical_field
from srsd.dkim.header_fields import HeaderFields, canonical_signature_field
from srsd.dkim.key_record import key_for
from srsd.dkim.result import Reason
from srsd.dkim.signature import Flaw, Signature

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from srsd.arc.fields import Seal
    from srsd.dkim.canonicalization import BodyHash, BodyHashKey
    from srsd.resolving import Answer
    from srsd.syntax.header import HeaderField

# For oldest-pass, which is optional (§5.2 step 5); each is as dear as a DKIM signature.
OLDER_MAXIMUM = 9


class _Signed(NamedTuple):
    """An ARC-Message-Signature, and what the fields under it hash to."""

    signature: Signature
    digest: bytes


class _Sealed(NamedTuple):
    """An ARC-Seal, and what the sets under it hash to."""

    seal: Seal
    digest: bytes


class _Signatures(NamedTuple):
    """What is to be verified."""

    newest: _Signed
    older: tuple[_Signed, ...]  # from the newest but one downwards, until one cannot be verified
    older_unexamined: bool  # there are more below them, which might verify
    seals: tuple[_Sealed, ...]  # from instance 1 on


class ValidationPlan:
    """What a chain needs to be judged. The header fields are not needed any more."""

    __slots__ = (
        "_minimum_key_bits",
        "_result",
        "_signatures",
        "body_hashes",
        "ended",
        "hashed_sets",
        "highest_instance",
        "key_names",
    )

    def __init__(
        self,
        chain: Chain,
        result: ArcResult,
        signatures: _Signatures | None,
        hashed_sets: hashlib._Hash,
        minimum_key_bits: int,
    ) -> None:
        self._minimum_key_bits = minimum_key_bits
        self._result = result  # as it is, unless there are signatures to verify
        self._signatures = signatures
        self.highest_instance = chain.highest_instance
        self.ended = chain.ended  # nobody seals after it (§5.1)
        self.hashed_sets = hashed_sets  # all sets as the next seal covers them (§5.1.1); only to be copied
        names: list[bytes] = []
        self.body_hashes: frozenset[BodyHashKey] = frozenset()
        if signatures is not None:
            signed = [signatures.newest, *signatures.older]
            names += [each.seal.key_name for each in reversed(signatures.seals)]
            names += [each.signature.key_name for each in signed]
            self.body_hashes = frozenset(each.signature.body_hash_key for each in signed)
        self.key_names = tuple(dict.fromkeys(names))

    def finish(
        self, answers: Mapping[bytes, Answer[bytes]], body_hashes: Mapping[BodyHashKey, BodyHash]
    ) -> ArcResult:
        """Judge. answers are those to TXT queries, by key name; one that is missing counts as not answered.

        There is no temporary status: a chain that cannot be validated fails (§5.2.1). The result tells
        where that is only for want of an answer, so that a message may be deferred for it, and is not
        sealed: a seal with cv=fail would end the chain for all who come after us.
        """
        signatures = self._signatures
        if signatures is None:
            return self._result
        minimum = self._minimum_key_bits
        unanswered = ""
        for where, flaw in _find_flaws(signatures, answers, body_hashes, minimum):
            phrase = f"{where}: {flaw.phrase}"
            if flaw.reason is not Reason.KEY_UNAVAILABLE:
                return self._result._replace(phrase=phrase)
            unanswered = unanswered or phrase
        if unanswered:
            return self._result._replace(phrase=unanswered, temporary=True)
        oldest_pass = _find_oldest_pass(signatures, answers, body_hashes, minimum)
        return self._result._replace(
            status=ChainStatus.PASS, phrase="the chain is valid", oldest_pass=oldest_pass
        )


def plan_validation(
    fields: Sequence[HeaderField], now: int, *, minimum_key_bits: int = RSA_BITS_MINIMUM
) -> ValidationPlan:
    """Look for a chain in a header. now is in seconds since 1970.

    Keys are judged as those of DKIM are: shorter RSA keys than minimum_key_bits make a chain fail.
    """
    chain = find_chain(fields, now)
    if chain is None:
        return ValidationPlan(_NO_SETS, _NO_CHAIN, None, _NOTHING_HASHED, minimum_key_bits)
    hashed = hashlib.sha256()
    if chain.fault:
        result = ArcResult(ChainStatus.FAIL, chain.fault)
        return ValidationPlan(chain, result, None, hashed, minimum_key_bits)
    header = HeaderFields(fields)
    result = ArcResult(ChainStatus.FAIL, "", sets=tuple(_show(each, header) for each in chain.sets))
    signatures = _hash_signatures(chain.sets, header, hashed)
    if isinstance(signatures, str):
        return ValidationPlan(chain, result._replace(phrase=signatures), None, hashed, minimum_key_bits)
    return ValidationPlan(chain, result, signatures, hashed, minimum_key_bits)


_NO_CHAIN = ArcResult(ChainStatus.NONE, "there is no chain")
_NO_SETS = Chain()
_NOTHING_HASHED = hashlib.sha256()


def _show(fields: FieldsOfSet, header: HeaderFields) -> ArcSet:
    """Give what may be known of a set before it is verified."""
    signature, seal = fields.message_signature.signature, fields.seal
    return ArcSet(
        seal.instance,
        seal.labels.domain,
        seal.labels.selector,
        fields.message_signature.labels.domain,
        isinstance(signature, Signature) and _covers_from(signature, header),
        fields.authentication_results.payload,
    )


def _covers_from(signature: Signature, header: HeaderFields) -> bool:
    return signature.signed_fields.count(b"from") >= max(1, len(header.named(b"from")))


def _hash_signatures(
    sets: tuple[FieldsOfSet, ...], header: HeaderFields, hashed: hashlib._Hash
) -> _Signatures | str:
    """Hash what the signatures cover; gives the flaw instead, if the chain cannot pass for it.

    hashed takes all sets in.
    """
    seals = []
    for each in sets:
        seal, digest = each.seal.seal, _hash_set(each, hashed)
        if isinstance(seal, Flaw):
            return f"AS {each.seal.instance}: {seal.phrase}"
        seals.append(_Sealed(seal, digest))
    *older, newest = sets
    newest_signed = _hash_message_signature(newest, header)
    if isinstance(newest_signed, Flaw):
        return f"AMS {newest.seal.instance}: {newest_signed.phrase}"
    older_signed: list[_Signed] = []
    for each in reversed(older[-OLDER_MAXIMUM:]):
        signed = _hash_message_signature(each, header)
        if isinstance(signed, Flaw):
            return _Signatures(newest_signed, tuple(older_signed), False, tuple(seals))
        # With l= each of them might want another hash of the body.
        if signed.signature.body_hash_key.length is not None:
            return _Signatures(newest_signed, tuple(older_signed), True, tuple(seals))
        older_signed.append(signed)
    more = len(older) > len(older_signed)
    return _Signatures(newest_signed, tuple(older_signed), more, tuple(seals))


def _hash_set(fields: FieldsOfSet, hashed: hashlib._Hash) -> bytes:
    """Hash a set as the seals of later ones cover it (§5.1.1). Gives the hash that its own seal signs."""
    hashed.update(canonical_field(RELAXED, *fields.authentication_results.field) + b"\r\n")
    hashed.update(canonical_field(RELAXED, *fields.message_signature.field) + b"\r\n")
    own = hashed.copy()
    own.update(canonical_signature_field(RELAXED, *fields.seal.field))
    hashed.update(canonical_field(RELAXED, *fields.seal.field) + b"\r\n")
    return own.digest()


def _hash_message_signature(fields: FieldsOfSet, header: HeaderFields) -> _Signed | Flaw:
    field, signature = fields.message_signature.field, fields.message_signature.signature
    if isinstance(signature, Flaw):
        return signature
    if b"from" in signature.signed_fields and not _covers_from(signature, header):
        return Flaw(Reason.SECOND_FROM)  # RFC 6376 §8.15, as for DKIM
    canonicalization = signature.header_canonicalization
    digest = hashlib.sha256(
        header.canonical(signature.signed_fields, canonicalization, apart_from=field)
        + canonical_signature_field(canonicalization, *field)
    ).digest()
    return _Signed(signature, digest)


def _find_flaws(
    signatures: _Signatures,
    answers: Mapping[bytes, Answer[bytes]],
    body_hashes: Mapping[BodyHashKey, BodyHash],
    minimum_key_bits: int,
) -> Iterator[tuple[str, Flaw]]:
    """Find what makes a chain fail: the newest ARC-Message-Signature, each ARC-Seal (§5.2 steps 4 and 6)."""
    instance = len(signatures.seals)
    flaw = _judge_message_signature(signatures.newest, answers, body_hashes, minimum_key_bits)
    if flaw is not None:
        yield f"AMS {instance}", flaw
    for each in reversed(signatures.seals):
        flaw = _verify(each.seal, each.digest, answers, minimum_key_bits)
        if flaw is not None:
            yield f"AS {instance}", flaw
        instance -= 1


def _find_oldest_pass(
    signatures: _Signatures,
    answers: Mapping[bytes, Answer[bytes]],
    body_hashes: Mapping[BodyHashKey, BodyHash],
    minimum_key_bits: int,
) -> int | None:
    """Find the oldest ARC-Message-Signature that still verifies (§5.2 step 5); 0 if all do.

    None where that would take more signatures than are looked at, or an answer that did not come.
    """
    instance = len(signatures.seals)
    for each in signatures.older:
        flaw = _judge_message_signature(each, answers, body_hashes, minimum_key_bits)
        if flaw is not None:
            return None if flaw.reason is Reason.KEY_UNAVAILABLE else instance
        instance -= 1
    if signatures.older_unexamined:
        return None
    return 0 if instance == 1 else instance


def _judge_message_signature(
    signed: _Signed,
    answers: Mapping[bytes, Answer[bytes]],
    body_hashes: Mapping[BodyHashKey, BodyHash],
    minimum_key_bits: int,
) -> Flaw | None:
    """Find what is wrong with an ARC-Message-Signature: the body first, for which no key is needed."""
    signature = signed.signature
    body, length = body_hashes[signature.body_hash_key], signature.body_hash_key.length
    if length is not None and length > body.length:
        return Flaw(Reason.BODY_TOO_SHORT)
    if body.digest != signature.body_hash:
        return Flaw(Reason.BODY_CHANGED)
    if length is not None and length < body.length:  # RFC 6376 §8.2
        return Flaw(Reason.BODY_NOT_SIGNED)
    return _verify(signature, signed.digest, answers, minimum_key_bits)


def _verify(
    signature: Signature | Seal, digest: bytes, answers: Mapping[bytes, Answer[bytes]], minimum_key_bits: int
) -> Flaw | None:
    answer = answers.get(signature.key_name)
    if answer is None:
        return Flaw(Reason.KEY_UNAVAILABLE)
    record = key_for(signature, answer, minimum_key_bits)
    if isinstance(record, Flaw):
        return record
    verified = record.public_key.verify(signature.signature, digest)
    return None if verified else Flaw(Reason.HEADER_CHANGED)
