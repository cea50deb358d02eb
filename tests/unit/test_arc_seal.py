"""Sealing (RFC 8617 §5.1): what a set says and covers, and when there is none."""

from __future__ import annotations

import base64
import hashlib
import re

import pytest

from harness.arc_forge import ArcForge, seal_verifies, sets_of
from harness.dkim_forge import canonical_body, canonical_field, choose, rsa_key
from srsd.arc.result import ArcResult, ChainStatus
from srsd.arc.seal import SEALING_CHOICE, plan_sealing, sealing_signer
from srsd.arc.validate import plan_validation
from srsd.authres import Result, format_results
from srsd.crypto import KeyType, generate_key, load_private_key
from srsd.dkim.canonicalization import BodyHashes
from srsd.dkim.sign import FieldChoice, Signer
from srsd.resolving import Answer, Outcome
from srsd.syntax.header import HeaderField
from srsd.syntax.taglist import parse_tag_list

NOW = 1_800_000_000
OURS = rsa_key(2048)
SIGNER = Signer(b"fwd.example.net", b"arc2026", load_private_key(OURS.pem))
OTHER = ArcForge(rsa_key(), b"first.example", b"one")
ANSWERS = {
    b"arc2026._domainkey.fwd.example.net": Answer(Outcome.FOUND, (OURS.record,)),
    OTHER.key_name: Answer(Outcome.FOUND, (OTHER.key.record,)),
}
FIELDS = [
    HeaderField(b"Received", b" from a.example\n\tby b.example"),
    HeaderField(b"DKIM-Signature", b" v=1; a=rsa-sha256; d=example.org;\n\tb=abc"),
    HeaderField(b"Authentication-Results", b" mx.other.example; spf=pass"),
    HeaderField(b"From", b" Alice <alice@example.org>"),
    HeaderField(b"To", b" bob@example.net,\n\tcarol@example.net"),
    HeaderField(b"Subject", b" hello"),
    HeaderField(b"Date", b" Fri, 15 Jan 2027 08:00:00 +0000"),
    HeaderField(b"List-Id", b" <a.example.org>"),
]
BODY = b"Hello \r\n\r\n  world\t!\r\n\r\n"
RESULTS = [
    Result("spf", "pass", "", (("smtp", "mailfrom", b"alice@example.org"),)),
    Result("dkim", "fail", "the body hash did not verify", (("header", "d", b"example.org"),)),
    Result("arc", "none"),
    Result("dmarc", "pass", "", (("header", "from", b"example.org"),)),
]
PAYLOAD = format_results(b"mx.example.net", RESULTS)


def validate(fields, body: bytes = BODY, answers=ANSWERS) -> ArcResult:
    plan = plan_validation(fields, NOW)
    hashes = BodyHashes(plan.body_hashes)
    hashes.feed(body)
    return plan.finish(answers, hashes.finish())


def seal(
    fields=FIELDS,
    body: bytes = BODY,
    *,
    signer: Signer = SIGNER,
    payload: bytes = PAYLOAD,
    answers=ANSWERS,
    choice: FieldChoice = SEALING_CHOICE,
) -> tuple[HeaderField, ...] | str:
    validation = plan_validation(fields, NOW)
    sealing = plan_sealing(fields, validation, signer, NOW, choice)
    if isinstance(sealing, str):
        return sealing
    hashes = BodyHashes(validation.body_hashes | {sealing.body_hash})
    hashes.feed(body)
    found = hashes.finish()
    return sealing.finish(validation.finish(answers, found), found[sealing.body_hash], payload)


def made(*args, **kwargs) -> tuple[HeaderField, ...]:
    fields = seal(*args, **kwargs)
    assert not isinstance(fields, str), fields
    return fields


def tags_of(field: HeaderField) -> dict[bytes, bytes]:
    tags = parse_tag_list(field.value)
    assert isinstance(tags, dict)
    return tags


def names_of(field: HeaderField) -> list[bytes]:
    return re.split(rb"\s*:\s*", tags_of(field)[b"h"])


def test_the_first_set():
    seal_field, signature, results = made()
    assert [field.name for field in (seal_field, signature, results)] == [
        *(b"ARC-Seal", b"ARC-Message-Signature", b"ARC-Authentication-Results")
    ]
    assert results.value == b" i=1;" + PAYLOAD
    assert results.value.startswith(b" i=1; mx.example.net;\n\tspf=pass smtp.mailfrom=")
    tags = tags_of(signature)
    assert list(tags) == [b"i", b"a", b"c", b"d", b"s", b"t", b"h", b"bh", b"b"]
    assert (tags[b"i"], tags[b"a"], tags[b"c"]) == (b"1", b"rsa-sha256", b"relaxed/relaxed")
    assert (tags[b"d"], tags[b"s"], tags[b"t"]) == (b"fwd.example.net", b"arc2026", b"1800000000")
    assert tags[b"bh"] == base64.b64encode(hashlib.sha256(canonical_body(BODY, b"relaxed")).digest())
    tags = tags_of(seal_field)
    assert list(tags) == [b"i", b"a", b"cv", b"d", b"s", b"t", b"b"]
    assert (tags[b"i"], tags[b"cv"], tags[b"t"]) == (b"1", b"none", b"1800000000")


def test_what_the_message_signature_covers():
    """RFC 8617 §4.1.2: DKIM-Signature should be there, Authentication-Results and ARC must not."""
    names = names_of(made()[1])
    assert names == [
        *(b"from", b"from", b"subject", b"subject", b"date", b"date", b"to", b"to", b"cc", b"reply-to"),
        *(b"message-id", b"content-type", b"mime-version", b"list-id", b"dkim-signature"),
    ]
    again = names_of(made([*made(), *FIELDS])[1])
    assert again == names


def test_the_signatures_by_the_letter():
    seal_field, signature, results = made([*OTHER.seal(FIELDS, BODY)])
    before = sets_of(OTHER.seal(FIELDS, BODY))
    assert seal_verifies([*before, results, signature], seal_field, OURS.private.public_key())
    assert not seal_verifies([results, signature], seal_field, OURS.private.public_key())
    # The message signature is verified as a seal is: fields, then itself without its b=.
    assert seal_verifies(choose(FIELDS, names_of(signature)), signature, OURS.private.public_key())
    assert canonical_field(results, b"relaxed").startswith(
        b"arc-authentication-results:i=2; mx.example.net; "
    )


def test_a_chain_goes_on():
    fields = FIELDS
    for number in range(1, 6):
        fields = [*made(fields), *fields]
        result = validate(fields)
        assert result.status is ChainStatus.PASS, result.phrase
        assert [each.instance for each in result.sets] == list(range(1, number + 1))
        assert result.oldest_pass == 0
        assert result.sets[-1].authentication_results is not None
        assert result.sets[-1].authentication_results.results == tuple(RESULTS)
        assert result.sets[-1].signs_from
    assert [tags_of(field)[b"cv"] for field in fields if field.name == b"ARC-Seal"] == [
        *([b"pass"] * 4),
        b"none",
    ]


def test_it_goes_on_from_the_highest_instance_wherever_it_stands():
    fields = OTHER.seal(OTHER.seal(FIELDS, BODY), BODY)
    assert tags_of(made([*fields[3:], *fields[:3]])[0])[b"i"] == b"3"


# Chains that failed (§5.1.2).

BROKEN = OTHER.seal(FIELDS, BODY, cv=b"pass")


@pytest.mark.parametrize(
    ("fields", "body", "instance"),
    [
        (BROKEN, BODY, b"2"),
        (OTHER.seal(FIELDS, BODY), BODY + b"more\r\n", b"2"),
        (BROKEN[1:], BODY, b"2"),
        (OTHER.seal(FIELDS, BODY, instance=b"7"), BODY, b"8"),
        ([HeaderField(b"ARC-Seal", b" nonsense"), *FIELDS], BODY, b"1"),
    ],
)
def test_a_failed_chain_is_sealed_once(fields, body, instance):
    new = made(fields, body)
    seal_field, signature, results = new
    assert (tags_of(seal_field)[b"cv"], tags_of(seal_field)[b"i"]) == (b"fail", instance)
    assert tags_of(signature)[b"i"] == instance
    assert results.value.startswith(b" i=" + instance + b";")
    assert seal_verifies([results, signature], seal_field, OURS.private.public_key())
    assert validate([*new, *fields], body).phrase == "the newest AS says that the chain failed before"
    assert seal([*new, *fields], body) == "the chain was sealed as failed before"


@pytest.mark.parametrize("status", [b"fail", b"Fail"])
def test_nobody_seals_after_a_failed_seal(status):
    """§5.1 step 2; whoever wrote it: what would be added says no more."""
    assert seal(OTHER.seal(FIELDS, BODY, cv=status)) == "the chain was sealed as failed before"


def test_nothing_is_sealed_for_want_of_an_answer():
    """The chain may be good, and cv=fail would be for good (§5.2.1)."""
    fields = OTHER.seal(FIELDS, BODY)
    waiting = {OTHER.key_name: Answer(Outcome.TIMED_OUT)}
    assert seal(fields, answers=waiting) == "the chain could not be validated now, and a seal would end it"
    gone = {OTHER.key_name: Answer(Outcome.NX_DOMAIN)}
    assert tags_of(made(fields, answers=gone)[0])[b"cv"] == b"fail"


def test_fifty_sets_and_no_more():
    fields = FIELDS
    for _ in range(49):
        fields = OTHER.seal(fields, BODY)
    fields = [*made(fields), *fields]
    assert tags_of(fields[0])[b"i"] == b"50"
    assert validate(fields).status is ChainStatus.PASS
    assert seal(fields) == "the chain has 50 sets"
    assert seal([*fields, *fields]) == "the chain has 50 sets"
    assert seal([HeaderField(b"ARC-Seal", b" i=99"), *FIELDS]) == "the chain has 50 sets"


# Keys.


@pytest.mark.parametrize("bits", [1024, 3072, 4096])
def test_rsa_keys_of_any_length(bits):
    key = rsa_key(bits)
    signer = SIGNER._replace(key=load_private_key(key.pem))
    new = made(signer=signer)
    answers = {b"arc2026._domainkey.fwd.example.net": Answer(Outcome.FOUND, (key.record,))}
    assert validate([*new, *FIELDS], answers=answers).status is ChainStatus.PASS


def test_only_rsa_seals():
    ed25519 = Signer(b"fwd.example.net", b"ed", generate_key(KeyType.ED25519))
    with pytest.raises(ValueError, match="would be right: RSA"):
        plan_sealing(FIELDS, plan_validation(FIELDS, NOW), ed25519, NOW)
    assert sealing_signer([ed25519, SIGNER]) is SIGNER
    assert sealing_signer([ed25519]) is None


# Form.


def test_lines_are_short():
    for results in (RESULTS, RESULTS * 30):
        payload = format_results(b"mx.example.net", results)
        for fields in (FIELDS, OTHER.seal(FIELDS, BODY)):
            for name, value in made(fields, payload=payload):
                lines = (name + b":" + value).expandtabs(8).split(b"\n")
                assert max(map(len, lines)) <= 78
                assert all(line.strip() for line in lines)
                assert b"\r" not in value


def test_a_long_host_name_has_a_line_of_its_own():
    host = b"a" * 40 + b".example.net"
    payload = format_results(host, RESULTS)
    results = made(payload=payload)[2]
    assert results.value.startswith(b" i=1;\n\t" + host + b";\n\t")
    result = validate([*made(payload=payload), *FIELDS])
    assert result.status is ChainStatus.PASS
    assert result.sets[0].authentication_results is not None
    assert result.sets[0].authentication_results.authserv_id == host


def test_long_results():
    """OpenARC crashed above 512 octets."""
    payload = format_results(b"mx.example.net", RESULTS * 200)
    assert len(payload) > 20_000
    assert validate([*made(payload=payload), *FIELDS]).status is ChainStatus.PASS


def test_any_octet_in_the_message():
    fields = [HeaderField(b"Subject", b" \xff\xfe\r x"), HeaderField(b"From", b""), *FIELDS[3:]]
    body = bytes(range(256)) * 10
    assert validate([*made(fields, body), *fields], body).status is ChainStatus.PASS


def test_what_is_added_later_breaks_it():
    new = made()
    for name in (b"From", b"Subject", b"Content-Type", b"Message-ID"):
        added = [*new, HeaderField(name, b" x"), *FIELDS]
        assert validate(added).phrase == "AMS 1: the signature did not verify"
    for name in (b"Received", b"Authentication-Results", b"X-Any", b"Return-Path"):
        assert validate([HeaderField(name, b" x"), *new, *FIELDS]).status is ChainStatus.PASS


def test_a_plan_does_not_change_what_it_was_made_with():
    validation = plan_validation(FIELDS, NOW)
    plans = [plan_sealing(FIELDS, validation, SIGNER, NOW) for _ in range(2)]
    hashes = BodyHashes({plans[0].body_hash})
    hashes.feed(BODY)
    found = hashes.finish()
    result = validation.finish(ANSWERS, found)
    sets = [plan.finish(result, found[plan.body_hash], PAYLOAD) for plan in (*plans, *plans)]
    assert all(each == sets[0] for each in sets)
