"""The parsers of DKIM and what each promises, whatever it is given.

fuzz.run adds DKIM_TARGETS to the others.
"""

from __future__ import annotations

import base64
import hashlib
import re
from typing import TYPE_CHECKING

from fuzz.targets import FILE_SIZE, REQUEST_SIZE, Target
from harness.dkim_forge import canonical_body, canonical_field
from srsd.crypto import KeyFlaw, KeyType, PublicKey, generate_key, parse_public_key
from srsd.dkim import canonicalization
from srsd.dkim.canonicalization import RELAXED, SIMPLE, BodyHash, BodyHashes, BodyHashKey
from srsd.dkim.key_record import KeyRecord, parse_key_record
from srsd.dkim.result import DkimResult, Reason, Result
from srsd.dkim.sign import DkimSigningParameters, Signer, plan_signing
from srsd.dkim.signature import Flaw, Labels, parse_signature
from srsd.dkim.verify import SIGNATURES_MAXIMUM, DkimVerificationParameters, plan_verification
from srsd.resolving import Answer, Outcome
from srsd.syntax.header import HeaderField, Message, parse_message
from srsd.syntax.taglist import TagListFlaw, decode_base64, parse_tag_list, without_value

if TYPE_CHECKING:
    from random import Random

NOW = 1_800_000_000
KEYS = {key_type: generate_key(key_type, 1024) for key_type in KeyType}
RECORDS = {
    key_type: b"v=DKIM1; k=%b; p=%b" % (key_type.value, base64.b64encode(key.public_octets()))
    for key_type, key in KEYS.items()
}
_NAME = re.compile(rb"[a-z0-9_](?:[a-z0-9_-]*[a-z0-9_])?(?:\.[a-z0-9_](?:[a-z0-9_-]*[a-z0-9_])?)*")
_VERIFICATION = DkimVerificationParameters()
_BODY_KEYS = [BodyHashKey(SIMPLE), BodyHashKey(RELAXED), BodyHashKey(RELAXED, 7), BodyHashKey(SIMPLE, 100)]


# Tag lists.


def _check_tag_list(data: bytes, _: Random) -> None:
    tags = parse_tag_list(data)
    decode_base64(data)
    if isinstance(tags, TagListFlaw):
        return
    assert tags
    for name, value in tags.items():
        assert re.fullmatch(rb"[A-Za-z][A-Za-z0-9_]*", name)
        assert value == value.strip(b" \t\r\n")
        assert not re.search(rb"[\0-\x08\x0b\x0c\x0e-\x1f\x7f;]", value)
        assert not re.search(rb"\r(?!\n)|\n(?![ \t])", value)
    name = next(iter(tags))
    assert parse_tag_list(without_value(data, name) + b" ") == tags | {name: b""}


# Signatures and keys.


def _check_labels(labels: Labels) -> None:
    domain, selector, algorithm, identity, start = labels
    assert not domain or (_NAME.fullmatch(domain) and b"." in domain)
    assert not selector or _NAME.fullmatch(selector)
    assert re.fullmatch(rb"(?:[A-Za-z0-9]{1,16}-[A-Za-z0-9]{1,16})?", algorithm)
    assert re.fullmatch(rb"[A-Za-z0-9+/=]{0,8}", start)
    assert identity.decode().isprintable()
    assert not identity or _NAME.fullmatch(identity[identity.rfind(b"@") + 1 :])


def _check_signature(data: bytes, _: Random) -> None:
    labels, parsed = parse_signature(data, NOW)
    _check_labels(labels)
    if isinstance(parsed, Flaw):
        assert parsed.reason.result not in (Result.PASS, Result.NONE)
        assert parsed.detail.isascii()
        return
    assert parsed.key_name == labels.selector + b"._domainkey." + labels.domain
    assert len(parsed.key_name) <= 253
    assert b"from" in parsed.signed_fields
    assert len(parsed.body_hash) == 32
    assert labels.identity.endswith((b"@" + labels.domain, b"." + labels.domain))


def _parse_key(data: bytes) -> None:
    parse_key_record.cache_clear()
    parse_key_record(data)
    for key_type in KeyType:
        parse_public_key(key_type, data)


def _check_key(data: bytes, random: Random) -> None:
    parsed = parse_key_record(data)
    assert isinstance(parsed, KeyRecord | Flaw)
    for key_type in KeyType:
        public = parse_public_key(key_type, data)
        if isinstance(public, KeyFlaw):
            continue
        assert isinstance(public, PublicKey)
        assert 256 <= public.bits <= 4096
        assert not public.verify(random.randbytes(public.bits // 8), random.randbytes(32))


# Bodies and header fields.


def _hash(chunks: list[bytes]) -> dict[BodyHashKey, BodyHash]:
    hashes = BodyHashes(_BODY_KEYS)
    for chunk in chunks:
        hashes.feed(chunk)
    return hashes.finish()


def _check_body(data: bytes, random: Random) -> None:
    cuts = sorted(random.choices(range(len(data) + 1), k=random.randint(0, 9)))
    chunks = [data[begin:end] for begin, end in zip([0, *cuts], [*cuts, len(data)], strict=True)]
    found = _hash(chunks)
    for key in _BODY_KEYS:
        text = canonical_body(data, key.canonicalization)
        assert found[key] == BodyHash(hashlib.sha256(text[: key.length]).digest(), len(text))


def _parse_field(data: bytes) -> None:
    for name in (SIMPLE, RELAXED):
        canonicalization.canonical_field(name, b"Subject", data)


def _check_field(data: bytes, _: Random) -> None:
    field = HeaderField(b"Subject ", data)
    for name in (SIMPLE, RELAXED):
        assert canonicalization.canonical_field(name, *field) == canonical_field(field, name)


# Messages.


def _verify(message: Message, key_type: KeyType) -> list[DkimResult]:
    plan = plan_verification(message.fields, NOW, _VERIFICATION)
    hashes = BodyHashes(plan.body_hashes)
    hashes.feed(message.body)
    answers = {name: Answer(Outcome.FOUND, (RECORDS[key_type],)) for name in plan.key_names}
    return plan.finish(answers, hashes.finish())


def _parse_message(data: bytes) -> None:
    _verify(parse_message(data), KeyType.RSA)


def _check_message(data: bytes, random: Random) -> None:
    message = parse_message(data)
    key_type = random.choice([*KeyType])
    results = _verify(message, key_type)
    assert len(results) <= SIGNATURES_MAXIMUM
    for result in results:
        assert result.result not in (Result.PASS, Result.NONE)  # the seeds have other keys
        _check_labels(Labels(*result[2:7]))
        assert result.phrase.isascii()
        assert result.phrase.isprintable()
    signed = _sign(message, key_type)
    first = _verify(signed, key_type)[0]
    several = sum(field.name.lower() == b"from" for field in message.fields) > 50
    assert first.reason is Reason.VERIFIED or several
    damaged = bytes(octet ^ 1 if octet > 32 else octet for octet in signed.body)
    if damaged != signed.body:
        assert _verify(signed._replace(body=damaged), key_type)[0].result is not Result.PASS


def _sign(message: Message, key_type: KeyType) -> Message:
    signers = [Signer(b"example.org", b"fuzz", KEYS[key_type])]
    plan = plan_signing(message.fields, signers, NOW, DkimSigningParameters(expiry=1))
    hashes = BodyHashes([plan.body_hash])
    hashes.feed(message.body)
    (value,) = plan.finish(hashes.finish()[plan.body_hash])
    assert len(value) < 16_000
    return message._replace(fields=[HeaderField(b"DKIM-Signature", value), *message.fields])


_RSA_B = base64.b64encode(bytes(range(128)))
_BH = base64.b64encode(bytes(range(32)))
_SIGNATURES = [
    b" v=1; a=rsa-sha256; c=relaxed/relaxed; d=example.org; s=sel; h=from:to; bh=%b; b=%b" % (_BH, _RSA_B),
    b"v=1;a=ed25519-sha256;d=example.org;s=s;h=from;bh=%b;b=%b" % (_BH, base64.b64encode(bytes(64))),
    b" v=1; a=rsa-sha256; c=simple;\r\n\td=example.org; s=sel; i=joe=2Bx@sub.example.org; l=10;\r\n"
    b"\tq=dns/txt; t=1799999990; x=1800000100; h=From : To :\r\n\tSubject; z=From:a|To:b;\r\n"
    b"\tbh=%b;\r\n\tb=%b\r\n\t %b;" % (_BH, _RSA_B[:60], _RSA_B[60:]),
    " v=1; a=rsa-sha256; d=münchen.example; s=größe; i=jörg@münchen.example; h=from; bh=".encode()
    + _BH
    + b"; b="
    + _RSA_B,
    b" v=1; a=rsa-sha256; d=example.org; s=sel; h=from" + b":x" * 8000 + b"; bh=%b; b=%b" % (_BH, _RSA_B),
    b";" * 9000,
    b"a=" * 9000,
    b"".join(b"t%d=;" % number for number in range(3000)),
    b" v=1; i=" + b"=41" * 5000 + b"@example.org",
    b"d=" + "é.".encode() * 4000,
    b"s=" + "a\u0300".encode() * 400,
]
_TAG_WORDS = [
    *(b";", b"=", b":", b" ", b"\r\n ", b"\n\t", b"\r", b"\n", b"\0", b"\xff", b"@", b".", b'"', b"\\", b"("),
    *(
        b"v=1;",
        b"a=rsa-sha1;",
        b"c=relaxed/simple;",
        b"d=org;",
        b"i=@",
        b"l=0;",
        b"h=from;",
        b"t=1;",
        b"x=1;",
    ),
    *(b"=3D", b"=0D=0A", b"=00", b"=", b"xn--", "ß".encode(), "\u2028".encode(), "\u3002".encode()),
    *(b"999999999999", b"b=", b"bh=", b"z=", b"q=dns/txt;", b"simple", b"example.org", b"dkim-signature:"),
]
_BODY_WORDS = [
    *(b" ", b"  ", b"\t", b"\r\n", b"\r", b"\n", b" \r\n", b"\r\n\r\n", b"\r\n \r\n", b"\0", b"\xff", b"x"),
    *(b" " * 15, b" " * 17, b"word", b"\r\r\n", b"\n\r\n"),
]
_HEADER = b"From: a@example.org\r\nTo: b@example.net,\r\n\tc@example.net\r\nSubject:  two  blanks \r\n"
_MESSAGES = [
    b"DKIM-Signature:" + signature + b"\r\n" + _HEADER + b"\r\nHello \r\n\r\n"
    for signature in _SIGNATURES[:4]
]

DKIM_TARGETS: dict[str, Target] = {
    "tag-list": Target(parse_tag_list, _check_tag_list, _SIGNATURES, _TAG_WORDS, REQUEST_SIZE),
    "dkim-signature": Target(
        lambda data: parse_signature(data, NOW), _check_signature, _SIGNATURES, _TAG_WORDS, REQUEST_SIZE
    ),
    "dkim-key": Target(
        _parse_key,
        _check_key,
        [
            *RECORDS.values(),
            *(key.public_octets() for key in KEYS.values()),
            b"v=DKIM1; h=sha1:sha256; s=email:*; t=y:s; n=note; p=",
            b"v=DKIM1; k=ed25519; p=11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=",
            b"\x30\x82\xff\xff\x02\x82\xff\xfa" + b"\xff" * 8000,
        ],
        [
            *_TAG_WORDS[:8],
            *(b"v=DKIM1;", b"p=;", b"k=rsa;", b"k=ed25519;", b"h=sha1;", b"t=s;", b"s=tlsrpt;"),
            *(b"\x30\x82", b"\x02\x82", b"\x02\x01", b"\x03\x81", b"\x80", b"\x00", b"\x05\x00"),
            bytes.fromhex("06092a864886f70d010101"),
        ],
        FILE_SIZE,
        10,  # a small record may hold the longest key
    ),
    "dkim-body": Target(
        lambda data: _hash([data]),
        _check_body,
        [
            b"",
            b"a \r\n\r\n",
            b"Hello,  Bob \r\n\r\n\t \r\nx\r\n\r\n\r\n",
            b" " * 2000,
            b"\r\n" * 2000,
            b"\r" * 2000,
        ],
        _BODY_WORDS,
        300_000,
    ),
    "dkim-field": Target(
        _parse_field, _check_field, [b" a", b" a\r\n\tb\n  c ", b"\t" * 2000, b" " * 2000 + b"x"], _BODY_WORDS
    ),
    "dkim-message": Target(
        _parse_message,
        _check_message,
        [*_MESSAGES, b"".join(_MESSAGES[:3]), _MESSAGES[0][:60] * 200 + _HEADER, _HEADER * 300],
        [
            *_TAG_WORDS,
            *_BODY_WORDS,
            b"DKIM-Signature: ",
            b"From: x\r\n",
            b"From : x\r\n",
            b"\r\nDKIM-Signature:",
        ],
        REQUEST_SIZE,
        5,
    ),
}
