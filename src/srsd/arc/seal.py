"""Sealing: adding an ARC Set to a message (RFC 8617 §5.1).

validation = plan_validation(fields, now); sealing = plan_sealing(fields, validation, signer, now)
hashes = BodyHashes(validation.body_hashes | {sealing.body_hash}); the body goes through hashes.feed()
result = validation.finish(answers, hashes.finish())
fields_to_insert = sealing.finish(result, hashes[sealing.body_hash], payload)
"""

from __future__ import annotations

import hashlib
from binascii import b2a_base64
from typing import TYPE_CHECKING

from srsd.arc.result import ChainStatus
from srsd.arc.sets import SETS_MAXIMUM
from srsd.crypto import KeyType
from srsd.dkim.canonicalization import RELAXED, BodyHashKey, canonical_field
from srsd.dkim.header_fields import HeaderFields
from srsd.dkim.sign import (
    DEFAULT_CHOICE,
    FOLD,
    FieldChoice,
    UnsignedField,
    first_room,
    fold_tags,
    names_tag,
    names_to_sign,
)
from srsd.syntax.header import HeaderField
from srsd.syntax.structured import LINE_MAXIMUM

if TYPE_CHECKING:
    from collections.abc import Iterable

    from srsd.arc.result import ArcResult
    from srsd.arc.validate import ValidationPlan
    from srsd.dkim.canonicalization import BodyHash
    from srsd.dkim.sign import Signer

_AAR, _AMS, _AS = b"ARC-Authentication-Results", b"ARC-Message-Signature", b"ARC-Seal"

# What DKIM signs, and the DKIM-Signature fields that are there (§4.1.2); never Authentication-Results,
# which the next handler may remove, and nothing of ARC.
SEALING_CHOICE = FieldChoice(DEFAULT_CHOICE.oversigned, (*DEFAULT_CHOICE.signed, b"dkim-signature"))


class SealingPlan:
    """A set that only wants results. The header fields are not needed any more."""

    __slots__ = ("_canonical_header", "_hashed_sets", "_instance", "_names", "_now", "_signer")

    body_hash = BodyHashKey(RELAXED)

    def __init__(
        self,
        signer: Signer,
        names: tuple[bytes, ...],
        canonical_header: bytes,
        validation: ValidationPlan,
        now: int,
    ) -> None:
        self._signer = signer
        self._names = names
        self._canonical_header = canonical_header
        self._instance = validation.highest_instance + 1
        self._hashed_sets = validation.hashed_sets
        self._now = now

    def finish(self, result: ArcResult, body: BodyHash, payload: bytes) -> tuple[HeaderField, ...] | str:
        """Make the set, in the order in which it stands in the message from the top, or say why not.

        result is that of the validation the plan was made with. payload is what the value of our
        Authentication-Results is, with the blank before it and all our results for this message, that of
        ARC too (§4.1.1). Lines end with LF.
        """
        if result.temporary:
            return "the chain could not be validated now, and a seal would end it"
        hashed = self._hashed_sets.copy()
        if result.status is ChainStatus.FAIL:
            hashed = hashlib.sha256()  # §5.1.2: as if this were the only set
        authentication_results = HeaderField(_AAR, self._authentication_results(payload))
        hashed.update(canonical_field(RELAXED, *authentication_results) + b"\r\n")
        message_signature = HeaderField(_AMS, self._message_signature(body))
        hashed.update(canonical_field(RELAXED, *message_signature) + b"\r\n")
        seal = HeaderField(_AS, self._seal(result.status, hashed))
        return seal, message_signature, authentication_results

    def _authentication_results(self, payload: bytes) -> bytes:
        value = b" i=%d;%b" % (self._instance, payload)
        first = value.partition(b"\n")[0]
        if len(_AAR) + 1 + len(first) > LINE_MAXIMUM:
            return b" i=%d;%b%b" % (self._instance, FOLD, payload.lstrip(b" \t\r\n"))
        return value

    def _message_signature(self, body: BodyHash) -> bytes:
        first = b" i=%d; a=%b; c=relaxed/relaxed;" % (self._instance, KeyType.RSA.algorithm)
        tags = fold_tags(first, self._signer_tags(), first_room(_AMS))
        body_hash = b"bh=%b;" % b2a_base64(body.digest, newline=False)
        value = FOLD.join((tags, names_tag(self._names), body_hash, b"b="))
        return self._sign(_AMS, value, hashlib.sha256(self._canonical_header))

    def _seal(self, status: ChainStatus, hashed: hashlib._Hash) -> bytes:
        first = b" i=%d; a=%b; cv=%b;" % (self._instance, KeyType.RSA.algorithm, status.value.encode())
        value = fold_tags(first, self._signer_tags(), first_room(_AS)) + FOLD + b"b="
        return self._sign(_AS, value, hashed)

    def _signer_tags(self) -> tuple[bytes, ...]:
        return (
            b" d=%b;" % self._signer.domain,
            b" s=%b;" % self._signer.selector,
            b" t=%d;" % self._now,
        )

    def _sign(self, name: bytes, value: bytes, hashed: hashlib._Hash) -> bytes:
        hashed.update(canonical_field(RELAXED, name, value))
        unsigned = UnsignedField(self._signer.key, hashed.digest(), value)
        return unsigned.complete(unsigned.key.sign(unsigned.digest))


def sealing_signer(signers: Iterable[Signer]) -> Signer | None:
    """Choose who seals: the first with an RSA key.

    Of a seal with another algorithm most validators make a chain that failed, and that is for good; one
    message can have seals of one algorithm only (§4.2.1 leaves several to work that was never finished).
    """
    return next((signer for signer in signers if signer.key.key_type is KeyType.RSA), None)


def plan_sealing(
    fields: Iterable[HeaderField],
    validation: ValidationPlan,
    signer: Signer,
    now: int,
    choice: FieldChoice = SEALING_CHOICE,
) -> SealingPlan | str:
    """Choose and canonicalize what is signed, or say why the message cannot be sealed.

    fields are those of the message as it leaves, apart from Authentication-Results and Received. now is
    in seconds since 1970. A chain that failed is sealed as failed, once (§5.1.2). Raises ValueError for
    a key that is none of RSA.
    """
    if signer.key.key_type is not KeyType.RSA:
        raise ValueError(f"{signer.key.key_type.name} seals nothing, would be right: RSA")
    if validation.ended:
        return "the chain was sealed as failed before"
    if validation.highest_instance >= SETS_MAXIMUM:
        return f"the chain has {SETS_MAXIMUM} sets"
    header = HeaderFields(fields)
    names = names_to_sign(header, choice)
    return SealingPlan(signer, names, header.canonical(names, RELAXED), validation, now)
