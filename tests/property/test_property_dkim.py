"""DKIM: nothing is raised, nothing illegal comes out, cuts do not matter, what is signed verifies."""

from __future__ import annotations

import base64
import hashlib
import re

from hypothesis import example, given, settings
from hypothesis import strategies as st

from harness.dkim_forge import Forge, canonical_body, canonical_field, choose, ed25519_key, rsa_key
from srsd.crypto import KeyFlaw, KeyType, PublicKey, generate_key, parse_public_key
from srsd.dkim import canonicalization as canon
from srsd.dkim.canonicalization import RELAXED, SIMPLE, BodyHash, BodyHashes, BodyHashKey
from srsd.dkim.header_fields import HeaderFields
from srsd.dkim.key_record import KeyRecord, parse_key_record
from srsd.dkim.result import Reason, Result
from srsd.dkim.sign import DkimSigningParameters, Signer, plan_signing
from srsd.dkim.signature import Flaw, Signature, parse_signature
from srsd.dkim.verify import DkimVerificationParameters, plan_verification
from srsd.resolving import Answer, Outcome
from srsd.syntax.header import HeaderField
from srsd.syntax.taglist import TagListFlaw, decode_base64, parse_tag_list, without_value

NOW = 1_800_000_000
KEY = generate_key(KeyType.ED25519)
RECORD = b"v=DKIM1; k=ed25519; p=" + base64.b64encode(KEY.public_octets())
KEY_NAME = b"sel._domainkey.example.org"
OCTETS = st.binary(max_size=200)
BODIES = st.lists(
    st.sampled_from([b" ", b"\t", b"\r\n", b"\r", b"\n", b"a", b"word", b"\0", b"\xff"])
    | st.binary(max_size=5),
    max_size=40,
).map(b"".join)
NAMES = st.sampled_from([b"From", b"from", b"To", b"Subject", b"X", b"List-Id", b"DKIM-Signature", b"Date"])
VALUES = st.lists(
    st.sampled_from([b" ", b"\t", b"  ", b"\r\n ", b"\n\t", b"a", b"b c", b"\r", b"\xff", b":", b";"]),
    max_size=12,
).map(b"".join)
FIELDS = st.lists(st.builds(HeaderField, NAMES, VALUES), max_size=8)


def cut(body: bytes, cuts: list[int]) -> list[bytes]:
    places = sorted(place % (len(body) + 1) for place in cuts)
    return [body[begin:end] for begin, end in zip([0, *places], [*places, len(body)], strict=True)]


@given(
    BODIES,
    st.lists(st.integers(0, 10_000), max_size=8),
    st.sampled_from([SIMPLE, RELAXED]),
    st.integers(0, 60),
)
@example(b"a \r\n\r\n \r\n", [1, 2, 3, 4, 5], RELAXED, 3)
def test_bodies_are_canonicalized_as_the_rfc_says(body, cuts, canonicalization, length):
    keys = [BodyHashKey(canonicalization), BodyHashKey(canonicalization, length)]
    hashes = BodyHashes(keys)
    for chunk in cut(body, cuts):
        hashes.feed(chunk)
    text = canonical_body(body, canonicalization)
    assert hashes.finish() == {
        keys[0]: BodyHash(hashlib.sha256(text).digest(), len(text)),
        keys[1]: BodyHash(hashlib.sha256(text[:length]).digest(), len(text)),
    }


@given(NAMES | st.just(b"Name \t"), VALUES | OCTETS, st.sampled_from([SIMPLE, RELAXED]))
def test_fields_are_canonicalized_as_the_rfc_says(name, value, canonicalization):
    field = HeaderField(name, value)
    assert canon.canonical_field(canonicalization, name, value) == canonical_field(field, canonicalization)


@given(VALUES)
def test_relaxed_twice_is_relaxed_once(value):
    _, _, once = canon.canonical_field(RELAXED, b"x", value).partition(b":")
    assert canon.canonical_field(RELAXED, b"x", once) == b"x:" + once


@given(FIELDS, st.lists(NAMES, max_size=12))
def test_fields_are_chosen_as_the_rfc_says(fields, names):
    expected = b"".join(canonical_field(field, RELAXED) + b"\r\n" for field in choose(fields, names))
    assert HeaderFields(fields).canonical([name.lower() for name in names], RELAXED) == expected


# Tag lists.


@given(OCTETS | st.lists(st.sampled_from(list(b"vab=; \t\r\n_1\0\xff")), max_size=60).map(bytes))
def test_tag_lists(text):
    tags = parse_tag_list(text)
    if isinstance(tags, TagListFlaw):
        return
    assert tags
    for name, value in tags.items():
        assert re.fullmatch(rb"[A-Za-z][A-Za-z0-9_]*", name)
        assert value == value.strip(b" \t\r\n")
        assert b";" not in value
        assert not set(value) & set(b"\0\x07\x0b\x0c\x7f")
    assert parse_tag_list(text + b" ; ") == tags or text.rstrip(b" \t\r\n").endswith(b";")
    for name in tags:
        emptied = parse_tag_list(without_value(text, name) + b" ")
        assert emptied == tags | {name: b""}


@given(OCTETS)
def test_base64(octets):
    text = base64.b64encode(octets)
    assert decode_base64(text) == octets
    assert decode_base64(b"\r\n ".join(text[at : at + 5] for at in range(0, len(text), 5))) == octets
    assert decode_base64(text.rstrip(b"=")) == octets
    decoded = decode_base64(octets)
    if decoded is not None:
        assert not octets.translate(None, b" \t\r\n" + re.sub(rb"[^A-Za-z0-9+/=]", b"", bytes(range(128))))


# Signatures and key records: of anything comes a judgement.

TAG_VALUES = OCTETS | st.sampled_from(
    [
        *(
            b"1",
            b"rsa-sha256",
            b"ed25519-sha256",
            b"rsa-sha1",
            b"example.org",
            b"sel",
            b"from:to",
            b"relaxed",
        ),
        *(
            b"joe@example.org",
            b"=22a=22@example.org",
            b"dns/txt",
            b"1800000000",
            b"0",
            b"",
            b"\xc3\xbc.example",
        ),
        base64.b64encode(bytes(32)),
        base64.b64encode(bytes(64)),
    ]
)
SIGNATURES = st.dictionaries(
    st.sampled_from([b"v", b"a", b"b", b"bh", b"c", b"d", b"h", b"i", b"l", b"q", b"s", b"t", b"x", b"z"]),
    TAG_VALUES,
).map(lambda tags: b";".join(name + b"=" + value for name, value in tags.items()))
GOOD = {
    b"v": b"1",
    b"a": b"ed25519-sha256",
    b"d": b"example.org",
    b"s": b"sel",
    b"h": b"from",
    b"bh": base64.b64encode(bytes(32)),
    b"b": base64.b64encode(bytes(64)),
}
NEARLY_GOOD = st.dictionaries(
    st.sampled_from([*GOOD, b"c", b"i", b"l", b"q", b"t", b"x"]), TAG_VALUES, max_size=2
).map(lambda tags: b";".join(name + b"=" + value for name, value in (GOOD | tags).items()))
NAME = rb"(?:[a-z0-9_](?:[a-z0-9_-]*[a-z0-9_])?)(?:\.[a-z0-9_](?:[a-z0-9_-]*[a-z0-9_])?)*"


def check_labels(labels) -> None:
    """What may be shown is fit to be shown."""
    domain, selector, algorithm, identity, start = labels
    assert domain == b"" or (re.fullmatch(NAME, domain) and b"." in domain and len(domain) <= 253)
    assert selector == b"" or (re.fullmatch(NAME, selector) and len(selector) <= 253)
    assert re.fullmatch(rb"(?:[A-Za-z][A-Za-z0-9]{0,15}-[A-Za-z][A-Za-z0-9]{0,15})?", algorithm)
    assert re.fullmatch(rb"[A-Za-z0-9+/=]{0,8}", start)
    assert identity.decode().isprintable()
    assert len(identity) <= 320 + 254
    if identity:
        local_part, _, below = identity.rpartition(b"@")
        assert re.fullmatch(NAME, below)
        quoted = re.fullmatch(rb'"(?:[^"\\]|\\.)*"', local_part)
        assert quoted or not set(local_part) & set(b' "(),:;<>@[\\]')


@given(OCTETS | SIGNATURES | NEARLY_GOOD)
def test_signatures(value):
    labels, parsed = parse_signature(value, NOW)
    check_labels(labels)
    assert isinstance(parsed, Signature | Flaw)
    if isinstance(parsed, Flaw):
        assert parsed.reason.result not in (Result.PASS, Result.NONE)
        return
    assert labels.domain
    assert labels.selector
    assert parsed.key_name == labels.selector + b"._domainkey." + labels.domain
    assert b"from" in parsed.signed_fields
    assert len(parsed.body_hash) == 32
    assert labels.identity.endswith((b"@" + labels.domain, b"." + labels.domain))


@given(OCTETS | SIGNATURES | st.builds(lambda value: RECORD + b";" + value, OCTETS))
def test_key_records(record):
    parsed = parse_key_record(record)
    assert isinstance(parsed, KeyRecord | Flaw)
    if isinstance(parsed, Flaw):
        assert parsed.reason.name.startswith("KEY_")


@given(st.binary(max_size=400) | st.builds(bytes.__add__, st.just(bytes.fromhex("30820122300d0609")), OCTETS))
def test_public_keys(octets):
    for key_type in KeyType:
        public = parse_public_key(key_type, octets)
        assert isinstance(public, PublicKey | KeyFlaw)
        if isinstance(public, PublicKey):
            assert not public.verify(bytes(64), bytes(32))


@given(st.integers(0, 2**1300), st.integers(0, 2**40), st.binary(max_size=200))
@settings(max_examples=50)
def test_rsa_keys_of_any_number(modulus, exponent, signature):
    def integer(number: int) -> bytes:
        octets = number.to_bytes(number.bit_length() // 8 + 1, "big")
        return b"\x02\x82" + len(octets).to_bytes(2, "big") + octets

    contents = integer(modulus | 1 << 1024 | 1) + integer(exponent | 1)
    public = parse_public_key(KeyType.RSA, b"\x30\x82" + len(contents).to_bytes(2, "big") + contents)
    assert isinstance(public, PublicKey | KeyFlaw)
    if isinstance(public, PublicKey):
        assert not public.verify(signature, hashlib.sha256(signature).digest())


# Messages.


def verify(fields, body, record=RECORD) -> list:
    plan = plan_verification(fields, NOW, DkimVerificationParameters())
    hashes = BodyHashes(plan.body_hashes)
    hashes.feed(body)
    answers = {name: Answer(Outcome.FOUND, (record,)) for name in plan.key_names}
    results = plan.finish(answers, hashes.finish())
    assert len(results) + plan.not_examined == sum(
        field.name.lower() == b"dkim-signature" for field in fields
    )
    return results


@given(
    FIELDS | st.lists(st.builds(HeaderField, NAMES, OCTETS | SIGNATURES | NEARLY_GOOD), max_size=14),
    BODIES,
    OCTETS,
)
def test_no_message_passes_by_chance(fields, body, record):
    for answer in (RECORD, record):
        for result in verify(fields, body, answer):
            assert result.result not in (Result.PASS, Result.NONE)
            check_labels(result[2:7])
            assert result.phrase.isascii()
            assert result.phrase.isprintable()
            assert len(result.phrase) < 100


@given(FIELDS, BODIES)
def test_what_is_signed_verifies(fields, body):
    """One From, as those who sign see to; everything else is as it comes."""
    fields = [
        HeaderField(b"From", b" a@example.org"),
        *(each for each in fields if each.name.lower() != b"from"),
    ]
    plan = plan_signing(fields, [Signer(b"example.org", b"sel", KEY)], NOW, DkimSigningParameters())
    hashes = BodyHashes([plan.body_hash])
    hashes.feed(body)
    (value,) = plan.finish(hashes.finish()[plan.body_hash])
    assert verify([HeaderField(b"DKIM-Signature", value), *fields], body)[0].reason is Reason.VERIFIED


@given(FIELDS, BODIES, st.data())
@settings(max_examples=200)
def test_no_octet_that_is_signed_can_change(fields, body, data):
    """With c=simple/simple nothing but CRLFs at the end may; with rsa and with ed25519."""
    key = data.draw(st.sampled_from([rsa_key(), ed25519_key()]))
    algorithm = key.record.partition(b"k=")[2].partition(b";")[0] + b"-sha256"
    fields = [HeaderField(b"From", b" a@example.org"), *(each for each in fields if each.name == b"X")]
    names = b":".join(each.name for each in fields)
    template = b" v=1; a=" + algorithm + b"; d=example.org; s=sel; h=" + names + b"; bh=%BH%; b=%B%"
    signed = [Forge(key).sign(fields, body, template), *fields]
    assert verify(signed, body, key.record)[0].reason is Reason.VERIFIED
    index = data.draw(st.integers(0, len(signed)))
    if index == len(signed):
        damaged = damage(body, data)
        same = canonical_body(damaged, SIMPLE) == canonical_body(body, SIMPLE)
        results = verify(signed, damaged, key.record)
    else:
        name, value = signed[index]
        damaged = damage(value, data)
        same = canonical_field(HeaderField(name, damaged), SIMPLE) == canonical_field(signed[index], SIMPLE)
        if index == 0:  # other white space in b=, and padding, say the same
            same = same or re.sub(rb"[\s=]", b"", damaged) == re.sub(rb"[\s=]", b"", value)
        results = verify(
            [*signed[:index], HeaderField(name, damaged), *signed[index + 1 :]], body, key.record
        )
    assert same or results[0].result is not Result.PASS


def damage(text: bytes, data) -> bytes:
    at = data.draw(st.integers(0, len(text)))
    width = data.draw(st.integers(0, 1))
    return text[:at] + data.draw(st.binary(max_size=1)) + text[at + width :]
