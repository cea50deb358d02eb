"""Key records (RFC 6376 §3.6.1), and which of them fit which signature (§6.1.2)."""

from __future__ import annotations

import base64

import pytest

from harness.dkim_forge import ed25519_key, rsa_key
from srsd.crypto import KeyType
from srsd.dkim.canonicalization import SIMPLE, BodyHashKey
from srsd.dkim.key_record import KeyRecord, key_for, parse_key_record
from srsd.dkim.result import Reason
from srsd.dkim.signature import Flaw, Signature
from srsd.resolving import Answer, Outcome

RSA = rsa_key().record.partition(b"p=")[2]
ED25519 = ed25519_key().record.partition(b"p=")[2]


def signature(key_type: KeyType = KeyType.RSA, *, below: bool = False) -> Signature:
    return Signature(
        key_type, b"s", b"h", BodyHashKey(SIMPLE), SIMPLE, (b"from",), b"s._domainkey.example.org", below
    )


def found(*records: bytes) -> Answer[bytes]:
    return Answer(Outcome.FOUND, records)


@pytest.mark.parametrize(
    ("record", "key_type", "bits"),
    [
        (b"p=" + RSA, KeyType.RSA, 1024),
        (b"v=DKIM1;p=" + RSA, KeyType.RSA, 1024),
        (b"v=DKIM1; k=rsa; p=" + RSA + b";", KeyType.RSA, 1024),
        (b" v = DKIM1 ; p = " + RSA[:20] + b" " + RSA[20:] + b" ", KeyType.RSA, 1024),
        (b"k=rsa; p=" + RSA + b"; g=*; n=a note=20that nobody reads; x_1=", KeyType.RSA, 1024),
        (b"h=sha1 : sha256; p=" + RSA, KeyType.RSA, 1024),
        (b"h=sha256; s=email; p=" + RSA, KeyType.RSA, 1024),
        (b"s=tlsrpt:*; p=" + RSA, KeyType.RSA, 1024),
        (b"v=DKIM1; k=ed25519; p=" + ED25519, KeyType.ED25519, 256),
        (b"v=DKIM1; k=ed25519; p=" + ED25519.rstrip(b"="), KeyType.ED25519, 256),
    ],
)
def test_records_that_are_good(record, key_type, bits):
    parsed = parse_key_record(record)
    assert isinstance(parsed, KeyRecord)
    assert (parsed.public_key.key_type, parsed.public_key.bits) == (key_type, bits)
    assert not parsed.testing
    assert not parsed.strict


@pytest.mark.parametrize(
    ("flags", "testing", "strict"),
    [
        (b"", False, False),
        (b"y", True, False),
        (b"s", False, True),
        (b"y:s", True, True),
        (b" s : unknown : y ", True, True),
        (b"Y:S", False, False),
        (b"ys", False, False),
    ],
)
def test_flags(flags, testing, strict):
    parsed = parse_key_record(b"v=DKIM1; t=" + flags + b"; p=" + RSA)
    assert isinstance(parsed, KeyRecord)
    assert (parsed.testing, parsed.strict) == (testing, strict)


@pytest.mark.parametrize(
    ("record", "flaw"),
    [
        (b"", Flaw(Reason.KEY_MALFORMED, "something between semicolons that is not name=value")),
        (b"no key", Flaw(Reason.KEY_MALFORMED, "something between semicolons that is not name=value")),
        (
            b"v=DKIM1\\; k=rsa\\; p=" + RSA,
            Flaw(Reason.KEY_VERSION),
        ),
        (b"p=" + RSA + b"; p=" + RSA, Flaw(Reason.KEY_MALFORMED, "a tag that stands twice")),
        (b"k=rsa; k=rsa; p=" + RSA, Flaw(Reason.KEY_MALFORMED, "a tag that stands twice")),
        (b"p=" + RSA + b"\0", Flaw(Reason.KEY_MALFORMED, "a character that no tag-list may hold")),
        (b"n=" + b"x" * 4096 + b"; p=" + RSA, Flaw(Reason.KEY_MALFORMED, "above 4096 octets")),
        (b"v=DKIM1", Flaw(Reason.KEY_MALFORMED, "p=")),
        (b"v=DKIM1; k=rsa", Flaw(Reason.KEY_MALFORMED, "p=")),
        (b"v=DKIM1; p=***", Flaw(Reason.KEY_MALFORMED, "p=")),
        (b"v=DKIM1; p=" + RSA[:-1], Flaw(Reason.KEY_UNUSABLE)),
        (b"v=DKIM1; p=" + RSA[:-4], Flaw(Reason.KEY_UNUSABLE)),
        (b"v=DKIM1; p=" + ED25519, Flaw(Reason.KEY_UNUSABLE)),
        (b"v=DKIM1; k=ed25519; p=" + RSA, Flaw(Reason.KEY_UNUSABLE)),
        (b"v=DKIM1; p=AAAA", Flaw(Reason.KEY_UNUSABLE)),
        (b"v=spf1 -all", Flaw(Reason.KEY_VERSION)),
        (b"v=DKIM1.0; p=" + RSA, Flaw(Reason.KEY_VERSION)),
        (b"v=DKIM2; p=" + RSA, Flaw(Reason.KEY_VERSION)),
        (b"v=dkim1; p=" + RSA, Flaw(Reason.KEY_VERSION)),
        (b"v=; p=" + RSA, Flaw(Reason.KEY_VERSION)),
        (b"p=" + RSA + b"; v=DKIM1", Flaw(Reason.KEY_VERSION)),  # not the first
        (b"k=rsa; v=DKIM1; p=" + RSA, Flaw(Reason.KEY_VERSION)),
        (b"v=DKIM1; h=sha1; p=" + RSA, Flaw(Reason.KEY_HASH)),
        (b"v=DKIM1; h=; p=" + RSA, Flaw(Reason.KEY_HASH)),
        (b"v=DKIM1; h=SHA256; p=" + RSA, Flaw(Reason.KEY_HASH)),
        (b"v=DKIM1; s=tlsrpt; p=" + RSA, Flaw(Reason.KEY_SERVICE)),
        (b"v=DKIM1; s=; p=" + RSA, Flaw(Reason.KEY_SERVICE)),
        (b"v=DKIM1; s=emails; p=" + RSA, Flaw(Reason.KEY_SERVICE)),
        (b"v=DKIM1; p=", Flaw(Reason.KEY_REVOKED)),
        (b"v=DKIM1; p= ;", Flaw(Reason.KEY_REVOKED)),
        (b"v=DKIM1; k=dsa; p=" + RSA, Flaw(Reason.KEY_TYPE)),
        (b"v=DKIM1; k=RSA; p=" + RSA, Flaw(Reason.KEY_TYPE)),
        (b"v=DKIM1; k=; p=" + RSA, Flaw(Reason.KEY_TYPE)),
    ],
)
def test_records_that_are_not(record, flaw):
    assert parse_key_record(record) == flaw


def test_short_keys():
    short = base64.b64encode(  # RSAPublicKey of 512 bits
        bytes.fromhex("3048024100" + "c5" * 64 + "0203010001")
    )
    assert parse_key_record(b"p=" + short) == Flaw(Reason.KEY_TOO_SHORT)


def test_long_keys():
    modulus = b"\x02\x82\x08\x01\x00" + b"\xc5" * 2048
    octets = b"\x30\x82" + (len(modulus) + 5).to_bytes(2, "big") + modulus + bytes.fromhex("0203010001")
    record = b"p=" + base64.b64encode(octets)
    assert len(record) < 4096
    assert parse_key_record(record) == Flaw(Reason.KEY_TOO_LONG)


def test_what_was_parsed_lately_is_kept_and_bounded():
    record = rsa_key().record
    assert parse_key_record(record) is parse_key_record(bytes(bytearray(record)))
    for number in range(2000):
        parse_key_record(b"v=DKIM1; n=%d; p=" % number)
    assert parse_key_record.cache_info().currsize <= 512


# Which key for which signature.


@pytest.mark.parametrize(
    ("outcome", "reason"),
    [
        (Outcome.NX_DOMAIN, Reason.NO_KEY),
        (Outcome.NO_DATA, Reason.NO_KEY),
        (Outcome.NOT_A_NAME, Reason.NO_KEY),
        (Outcome.SERVER_FAILURE, Reason.KEY_UNAVAILABLE),
        (Outcome.REFUSED, Reason.KEY_UNAVAILABLE),
        (Outcome.TIMED_OUT, Reason.KEY_UNAVAILABLE),
        (Outcome.UNUSABLE, Reason.KEY_UNAVAILABLE),
        (Outcome.BUDGET_SPENT, Reason.KEY_UNAVAILABLE),
    ],
)
def test_no_answer_is_not_no_key(outcome, reason):
    assert key_for(signature(), Answer(outcome), 1024) == Flaw(reason, outcome.value)


def test_every_outcome_is_judged():
    for outcome in Outcome:
        if outcome is not Outcome.FOUND:
            assert isinstance(key_for(signature(), Answer(outcome), 1024), Flaw)


def test_several_records_are_no_key():
    record = rsa_key().record
    assert isinstance(key_for(signature(), found(record), 1024), KeyRecord)
    assert key_for(signature(), found(record, b"v=spf1 -all"), 1024) == Flaw(Reason.SEVERAL_KEYS)
    assert key_for(signature(), found(record, rsa_key(1024, 1).record), 1024) == Flaw(Reason.SEVERAL_KEYS)


def test_the_key_is_of_the_type_of_the_signature():
    assert key_for(signature(), found(ed25519_key().record), 1024) == Flaw(Reason.KEY_TYPE)
    assert key_for(signature(KeyType.ED25519), found(rsa_key().record), 1024) == Flaw(Reason.KEY_TYPE)
    assert isinstance(key_for(signature(KeyType.ED25519), found(ed25519_key().record), 4096), KeyRecord)


def test_a_strict_key_wants_the_domain_itself():
    record = rsa_key().record + b"; t=s"
    assert isinstance(key_for(signature(), found(record), 1024), KeyRecord)
    assert key_for(signature(below=True), found(record), 1024) == Flaw(Reason.KEY_STRICT)
    assert isinstance(key_for(signature(below=True), found(rsa_key().record), 1024), KeyRecord)


def test_the_minimum_is_the_admins():
    assert isinstance(key_for(signature(), found(rsa_key().record), 1024), KeyRecord)
    assert key_for(signature(), found(rsa_key().record), 1025) == Flaw(
        Reason.KEY_BELOW_MINIMUM, "1024 of 1025 bits"
    )
