"""Whom to believe: the way down a chain, and what an attacker may make of it."""

from __future__ import annotations

import time

import pytest

from harness.arc_forge import AMS, AS, ArcForge
from harness.dkim_forge import rsa_key
from srsd.arc.result import ArcResult, ArcSet, ChainStatus
from srsd.arc.trust import dmarc_passed_for, vouching_sealer
from srsd.arc.validate import plan_validation
from srsd.dkim.canonicalization import BodyHashes
from srsd.resolving import Answer, Outcome
from srsd.syntax.header import HeaderField

NOW = 1_800_000_000
LIST = ArcForge(rsa_key(), b"list.example", b"one")
FORWARDER = ArcForge(rsa_key(1024, 1), b"forwarder.example", b"two")
EVIL = ArcForge(rsa_key(1024, 2), b"evil.example", b"three")
ANSWERS = {forge.key_name: Answer(Outcome.FOUND, (forge.key.record,)) for forge in (LIST, FORWARDER, EVIL)}
TRUSTED = frozenset({b"list.example", b"forwarder.example"})
BANK = b"bank.example"
FIELDS = [
    HeaderField(b"From", b" ceo@bank.example"),
    HeaderField(b"To", b" bob@example.net"),
    HeaderField(b"Subject", b" hello"),
]
BODY = b"Pay.\r\n"
PASSED = b" mx.example; dmarc=pass header.from=bank.example"
FAILED = b" mx.example; dmarc=fail header.from=bank.example"


def validate(fields: list[HeaderField], body: bytes = BODY) -> ArcResult:
    plan = plan_validation(fields, NOW)
    hashes = BodyHashes(plan.body_hashes)
    hashes.feed(body)
    return plan.finish(ANSWERS, hashes.finish())


def vouches(
    fields: list[HeaderField], body: bytes = BODY, trusted: frozenset[bytes] = TRUSTED, author: bytes = BANK
) -> bytes | None:
    return vouching_sealer(validate(fields, body), trusted, author)


def test_the_newest_set():
    fields = LIST.seal(FIELDS, BODY, payload=PASSED)
    assert vouches(fields) == b"list.example"
    assert vouches(fields, trusted=frozenset()) is None
    assert vouches(fields, trusted=frozenset({b"example", b"forwarder.example"})) is None
    assert vouches(fields, author=b"other.example") is None
    assert vouches(fields, author=b"sub.bank.example") is None


def test_a_set_below_trusted_ones():
    """A list changed the message, so that DMARC failed where it came next."""
    fields = LIST.seal(FIELDS, BODY, payload=PASSED)
    changed = BODY + b"-- \r\nlist\r\n"
    fields = FORWARDER.seal(LIST.seal(fields, changed, payload=FAILED), changed, payload=FAILED)
    assert validate(fields, changed).status is ChainStatus.PASS
    assert vouches(fields, changed) == b"list.example"
    assert vouches(fields, changed, trusted=frozenset({b"list.example"})) is None
    assert vouches(fields, changed, trusted=frozenset({b"forwarder.example"})) is None


def test_no_chain_and_failed_chains_vouch_for_nothing():
    assert vouches(FIELDS) is None
    fields = LIST.seal(FIELDS, BODY, payload=PASSED)
    assert vouches(fields, BODY + b"x") is None
    assert vouches(FORWARDER.seal(fields, BODY, payload=PASSED, cv=b"fail")) is None
    sets = validate(fields).sets
    assert vouching_sealer(ArcResult(ChainStatus.FAIL, "", sets=sets), TRUSTED, BANK) is None
    assert vouching_sealer(ArcResult(ChainStatus.PASS, "", sets=()), TRUSTED, BANK) is None


# What an attacker has: an honest message of the bank with its chain, and a key of his own.

HONEST = LIST.seal(FIELDS, BODY, payload=PASSED)
FORGED = [HeaderField(b"From", b" ceo@bank.example"), HeaderField(b"Subject", b" my account")]
FORGED_BODY = b"Pay me.\r\n"


def test_a_chain_on_another_message():
    fields = [*HONEST[:3], *FORGED]
    assert validate(fields, FORGED_BODY).status is ChainStatus.FAIL
    assert vouches(fields, FORGED_BODY) is None


def test_a_set_of_the_attackers_own_on_top():
    for payload in (PASSED, FAILED):
        fields = EVIL.seal([*HONEST[:3], *FORGED], FORGED_BODY, payload=payload)
        assert validate(fields, FORGED_BODY).status is ChainStatus.PASS
        assert vouches(fields, FORGED_BODY) is None


def test_through_a_trusted_forwarder():
    fields = EVIL.seal([*HONEST[:3], *FORGED], FORGED_BODY, payload=PASSED)
    fields = FORWARDER.seal(fields, FORGED_BODY, payload=FAILED)
    assert validate(fields, FORGED_BODY).status is ChainStatus.PASS
    assert vouches(fields, FORGED_BODY) is None


def test_a_seal_over_the_signature_of_a_trusted_sealer():
    """The message is honest, the results are not: only d= of the ARC-Seal vouches for those."""
    ams = HONEST[1]
    aar = HeaderField(b"ARC-Authentication-Results", b" i=1;" + PASSED)
    fields = [EVIL._seal([aar, ams], EVIL._fill(AS, b"1", b"none")), ams, aar, *FIELDS]
    assert validate(fields).status is ChainStatus.PASS
    assert vouches(fields) is None


def test_a_seal_of_a_trusted_sealer_over_the_signature_of_another():
    aar = HeaderField(b"ARC-Authentication-Results", b" i=1;" + PASSED)
    ams = EVIL.seal(FIELDS, BODY)[1]
    fields = [LIST._seal([aar, ams], LIST._fill(AS, b"1", b"none")), ams, aar, *FIELDS]
    assert validate(fields).status is ChainStatus.PASS
    assert vouches(fields) is None
    assert vouches(fields, trusted=TRUSTED | {b"evil.example"}) is None


def test_a_seal_that_claims_to_be_anothers():
    fields = EVIL.seal(
        FIELDS, BODY, payload=PASSED, seal=AS.replace(b"d=%D%; s=%S%", b"d=list.example; s=one")
    )
    assert vouches(fields) is None


def test_another_author_where_the_sealer_signs_no_from():
    honest = LIST.seal(FIELDS, BODY, payload=PASSED, ams=AMS.replace(b"from:to:subject", b"subject"))
    assert vouches(honest) is None
    honest = LIST.seal(FIELDS, BODY, payload=PASSED)
    twice = [HeaderField(b"From", b" attacker@bank.example"), *honest]
    assert vouches(twice) is None
    below = LIST.seal(FIELDS, BODY, payload=PASSED, ams=AMS.replace(b"from:to:subject", b"subject"))
    assert vouches(FORWARDER.seal(below, BODY, payload=FAILED)) is None


def test_case_and_spelling():
    seal = AS.replace(b"%D%", b"List.EXAMPLE")
    ams = AMS.replace(b"%D%", b"LIST.example")
    fields = LIST.seal(FIELDS, BODY, payload=b" mx; DMARC=Pass Header.From=Bank.Example", seal=seal, ams=ams)
    assert vouches(fields) == b"list.example"
    payload = " mx; dmarc=pass header.from=bücher.example".encode()
    assert (
        vouches(LIST.seal(FIELDS, BODY, payload=payload), author=b"xn--bcher-kva.example") == b"list.example"
    )


def test_the_way_down_is_short():
    sets = tuple(
        ArcSet(number, b"list.example", b"s", b"list.example", True, b" mx; x=" + b"a" * 60_000)
        for number in range(1, 51)
    )
    began = time.process_time()
    assert vouching_sealer(ArcResult(ChainStatus.PASS, "", sets=sets), TRUSTED, BANK) is None
    assert time.process_time() - began < 1


# What payloads say.


@pytest.mark.parametrize(
    "payload",
    [
        b" mx.example; dmarc=pass header.from=bank.example",
        b"mx.example 1;dmarc=pass header.from=bank.example;spf=fail",
        b" mx.example;\r\n\tspf=pass smtp.mailfrom=a@x.example;\r\n\tdmarc=pass header.from=bank.example ",
        b" mx.example;\n spf=none;\n dmarc = pass\n header . from = bank.example.",
        b' mx.example; dmarc=pass reason="a;b=c (d" header.from="bank.example"',
        b" mx.example; dmarc/1=pass (p=reject; dmarc=fail) header.from=bank.example",
        b" mx.example; dmarc=pass policy.dmarc=reject header.from=bank.example policy.x=y",
        # As Google and Microsoft write it, in other words.
        (
            b" mx.example; dkim=pass header.i=@bank.example header.s=2 header.b=a/b+c; arc=pass (i=1);"
            b" dmarc=pass (p=NONE sp=NONE dis=NONE) header.from=bank.example; dara=neutral header.i=@x.example"
        ),
        (
            b" mx.example 1; spf=pass smtp.mailfrom=; dmarc=pass action=none header.from=bank.example;"
            b" dkim=pass header.d=bank.example; arc=none"
        ),
        b" mx.example; something else; ; dmarc=pass header.from=bank.example",
    ],
)
def test_dmarc_passed(payload):
    assert dmarc_passed_for(payload) == BANK


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b";",
        b" mx.example",
        b" mx.example; none",
        b" dmarc=pass header.from=bank.example",  # that is an authserv-id, if anything
        b" mx.example; dmarc=fail header.from=bank.example",
        b" mx.example; dmarc=passed header.from=bank.example",
        b" mx.example; dmarc=pass-not header.from=bank.example",
        b" mx.example; dmarc=none header.from=bank.example",
        b" mx.example; dmarc=pass",
        b" mx.example; dmarc=pass header.from=",
        b" mx.example; dmarc=pass header.from=other.example",
        b" mx.example; dmarc=pass header.from=ceo@bank.example",
        b" mx.example; dmarc=pass header.d=bank.example",
        b" mx.example; dmarc=pass xheader.from=bank.example",
        b" mx.example; xdmarc=pass header.from=bank.example",
        b" mx.example; dmarc/2=pass header.from=bank.example",
        b" mx.example; dmarc=pass; header.from=bank.example",
        b" mx.example; dmarc=fail; dmarc=pass header.from=bank.example",
        b" mx.example; dmarc=pass header.from=bank.example; dmarc=pass header.from=bank.example",
        b" mx.example; dmarc=pass header.from=bank.example header.from=other.example",
        b" mx.example; dmarc=pass header.from=other.example header.from=bank.example",
        b" mx.example; dmarc=pass header.from=bank.example and more",
        b" mx.example; dmarc=pass header.from=bank.example\\",
        b' mx.example; spf=pass smtp.helo="; dmarc=pass header.from=bank.example"',
        b" mx.example; spf=pass (; dmarc=pass header.from=bank.example)",
        b" mx.example; spf=pass (x; dmarc=pass header.from=bank.example",
        b' mx.example; spf=pass "x; dmarc=pass header.from=bank.example',
        b" mx.example; spf=pass x); dmarc=pass header.from=bank.example",
        b" mx.example; dmarc=pass\r\nheader.from=bank.example",
        b" mx.example; dmarc=pass\0header.from=bank.example",
        b" mx.example; dmarc=pass \xff header.from=bank.example",
        b" mx.example; dmarc=pass header.from=bank.example.evil",
        b" mx.example; dmarc=pass header.from=bank.example\xc2\xa0",
    ],
)
def test_dmarc_did_not_pass_for_the_bank(payload):
    assert dmarc_passed_for(payload) != BANK


@pytest.mark.parametrize(
    "piece",
    [b";", b"(", b"()", b'"', b'""', b"\\", b" ", b"dmarc=", b"; dmarc=pass", b" a=b", b"a/@", b'a""'],
)
def test_payloads_take_linear_time(piece):
    payload = b" mx; dmarc=pass" + piece * (60_000 // len(piece))
    began = time.process_time()
    dmarc_passed_for(payload)
    assert time.process_time() - began < 1
