"""The whole ARC test-suite against validation and sealing. It lies beside the checkout and is not copied."""

from __future__ import annotations

import re
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from harness.arc_forge import seal_verifies, sets_of
from harness.arc_suite import (
    SIGNING,
    VALIDATION,
    SigningCase,
    ValidationCase,
    signing_cases,
    validation_cases,
)
from srsd.arc.result import ArcResult, ChainStatus
from srsd.arc.seal import plan_sealing
from srsd.arc.validate import plan_validation
from srsd.crypto import load_private_key
from srsd.dkim.canonicalization import BodyHashes
from srsd.dkim.sign import FieldChoice, Signer
from srsd.resolving import Answer, Outcome
from srsd.syntax.header import HeaderField, Message
from srsd.syntax.taglist import parse_tag_list

NOW = 1_800_000_000
VALIDATION_CASES = validation_cases()
SIGNING_CASES = signing_cases()

pytestmark = pytest.mark.skipif(
    not VALIDATION_CASES or not SIGNING_CASES,
    reason=f"{VALIDATION} or {SIGNING} is absent: the ARC suite was not run",
)


def validate(message: Message, answers: dict[bytes, Answer[bytes]]) -> ArcResult:
    plan = plan_validation(message.fields, NOW)
    hashes = BodyHashes(plan.body_hashes)
    hashes.feed(message.body)
    nothing = {name: Answer(Outcome.NX_DOMAIN) for name in plan.key_names}
    return plan.finish(nothing | answers, hashes.finish())


def test_the_suite_is_whole():
    assert len(VALIDATION_CASES) == 175
    assert len({case.scenario for case in VALIDATION_CASES}) == 10
    assert len(SIGNING_CASES) == 17
    words = [case.status for case in VALIDATION_CASES]
    assert {word: words.count(word) for word in words} == {"none": 5, "pass": 58, "fail": 109, "": 3}


@pytest.mark.parametrize("case", VALIDATION_CASES, ids=str)
def test_validation(case: ValidationCase):
    result = validate(case.message, case.answers)
    # Where a seal says cv=fail the suite has no word, as of old; RFC 8617 §5.2 has: fail.
    assert result.status.value == case.status or (case.status == "" and result.status is ChainStatus.FAIL)
    assert not result.temporary


# Sealing. The suite takes what is to be said from Authentication-Results, which in srsd is what was found;
# the order of tags and their folding it leaves to the sealer, and so b= too.


def payload_of(case: SigningCase) -> bytes:
    """Join the results of the Authentication-Results fields of the host."""
    values = [field.value for field in case.message.fields if field.name == b"Authentication-Results"]
    joined = b""
    for value in values:
        authserv_id, _, results = value.partition(b";")
        if authserv_id.strip() == case.authserv_id:
            joined += b";" + results.rstrip().replace(b"\r\n", b"\n")
    return b" " + case.authserv_id + joined


def seal(case: SigningCase) -> tuple[HeaderField, ...] | str:
    message = case.message
    validation = plan_validation(message.fields, NOW)
    signer = Signer(case.domain, case.selector, load_private_key(case.private_key))
    choice = FieldChoice((), case.signed_fields)
    sealing = plan_sealing(message.fields, validation, signer, case.time, choice)
    if isinstance(sealing, str):
        return sealing
    hashes = BodyHashes([*validation.body_hashes, sealing.body_hash])
    hashes.feed(message.body)
    found = hashes.finish()
    result = validation.finish(case.answers, found)
    return sealing.finish(result, found[sealing.body_hash], payload_of(case))


def tags_of(value: bytes) -> dict[bytes, Any]:
    tags = parse_tag_list(value)
    assert isinstance(tags, dict)
    return {name: re.sub(rb"\s", b"", text) for name, text in tags.items() if name != b"b"}


def words_of(value: bytes) -> list[bytes]:
    return re.sub(rb"\s*;\s*", b" ; ", value).split()


@pytest.mark.parametrize("case", SIGNING_CASES, ids=str)
def test_signing(case: SigningCase):
    made = seal(case)
    if not case.seal:
        assert made == "the chain was sealed as failed before"
        return
    assert not isinstance(made, str), made
    seal_field, message_signature, authentication_results = made
    assert [field.name for field in made] == [
        *(b"ARC-Seal", b"ARC-Message-Signature", b"ARC-Authentication-Results")
    ]
    assert tags_of(seal_field.value) == tags_of(case.seal)
    assert tags_of(message_signature.value) == tags_of(case.message_signature)
    assert words_of(authentication_results.value) == words_of(case.authentication_results)


SEALED_CASES = [case for case in SIGNING_CASES if case.seal]


@pytest.mark.parametrize("case", SEALED_CASES, ids=str)
def test_ours_and_theirs_cover_the_same_octets(case: SigningCase):
    """Of a failed chain the seal covers the newest set alone (RFC 8617 §5.1.2)."""
    theirs = (
        HeaderField(b"ARC-Seal", case.seal),
        HeaderField(b"ARC-Message-Signature", case.message_signature),
        HeaderField(b"ARC-Authentication-Results", case.authentication_results),
    )
    made = seal(case)
    assert not isinstance(made, str), made
    key = load_pem_private_key(case.private_key, None).public_key()
    assert isinstance(key, RSAPublicKey)
    for new in (theirs, made):
        seal_field, message_signature, authentication_results = new
        before = [] if tags_of(case.seal)[b"cv"] == b"fail" else sets_of(case.message.fields)
        covered = [*before, authentication_results, message_signature]
        assert seal_verifies(covered, seal_field, key)
        covered[-2] = authentication_results._replace(value=authentication_results.value + b" x")
        assert not seal_verifies(covered, seal_field, key)


@pytest.mark.parametrize(
    "case", [case for case in SEALED_CASES if tags_of(case.seal)[b"cv"] != b"fail"], ids=str
)
def test_what_is_sealed_validates(case: SigningCase):
    message = case.message
    made = seal(case)
    assert not isinstance(made, str), made
    theirs = (
        HeaderField(b"ARC-Seal", case.seal),
        HeaderField(b"ARC-Message-Signature", case.message_signature),
        HeaderField(b"ARC-Authentication-Results", case.authentication_results),
    )
    for new in (theirs, made):
        result = validate(message._replace(fields=[*new, *message.fields]), case.answers)
        assert result.status is ChainStatus.PASS, result.phrase
