"""Signing a message: what the field says, what it covers, and that it verifies."""

from __future__ import annotations

import base64
import hashlib
import re

import pytest

from harness.dkim_forge import canonical_body, canonical_field, choose
from srsd.crypto import KeyType, generate_key, parse_public_key
from srsd.dkim.canonicalization import BodyHash, BodyHashes
from srsd.dkim.result import Reason
from srsd.dkim.sign import DEFAULT_CHOICE, DkimSigningParameters, FieldChoice, Signer, plan_signing
from srsd.dkim.verify import DkimVerificationParameters, plan_verification
from srsd.resolving import Answer, Outcome
from srsd.syntax.header import HeaderField
from srsd.syntax.taglist import decode_base64, parse_tag_list

NOW = 1_800_000_000
RSA = generate_key(KeyType.RSA, 1024)
ED25519 = generate_key(KeyType.ED25519)
SIGNERS = [Signer(b"example.org", b"rsa2026", RSA), Signer(b"example.org", b"ed2026", ED25519)]
FIELDS = [
    HeaderField(b"Received", b" from localhost"),
    HeaderField(b"From", b" Alice <alice@example.org>"),
    HeaderField(b"To", b" bob@example.net,\n\tcarol@example.net"),
    HeaderField(b"Subject", b" =?utf-8?q?caf=C3=A9?="),
    HeaderField(b"Message-ID", b" <1@example.org>"),
    HeaderField(b"Date", b" Fri, 15 Jan 2027 08:00:00 +0000"),
    HeaderField(b"List-Unsubscribe", b" <https://example.org/u>"),
    HeaderField(b"List-Unsubscribe-Post", b" List-Unsubscribe=One-Click"),
    HeaderField(b"Bcc", b" hidden@example.net"),
    HeaderField(b"X-Mailer", b" test"),
]
BODY = b"Hello \r\n\r\n  world\t!\r\n\r\n"


def sign(
    fields=FIELDS,
    body: bytes = BODY,
    signers=SIGNERS,
    *,
    expiry: int = 0,
    choice: FieldChoice = DEFAULT_CHOICE,
) -> list[bytes]:
    plan = plan_signing(fields, signers, NOW, DkimSigningParameters(expiry=expiry), choice)
    hashes = BodyHashes([plan.body_hash])
    hashes.feed(body)
    return plan.finish(hashes.finish()[plan.body_hash])


def tags_of(value: bytes) -> dict[bytes, bytes]:
    tags = parse_tag_list(value)
    assert isinstance(tags, dict)
    return tags


def names_of(value: bytes) -> list[bytes]:
    return re.split(rb"\s*:\s*", tags_of(value)[b"h"])


def verify(values: list[bytes], fields=FIELDS, body: bytes = BODY) -> list[Reason]:
    header = [*(HeaderField(b"DKIM-Signature", value) for value in values), *fields]
    plan = plan_verification(header, NOW, DkimVerificationParameters())
    hashes = BodyHashes(plan.body_hashes)
    hashes.feed(body)
    answers = {}
    for domain, selector, key in SIGNERS:
        record = b"k=%b; p=%b" % (key.key_type.value, base64.b64encode(key.public_octets()))
        answers[selector + b"._domainkey." + domain] = Answer(Outcome.FOUND, (record,))
    return [result.reason for result in plan.finish(answers, hashes.finish())]


def test_the_tags():
    rsa, ed25519 = (tags_of(value) for value in sign())
    assert list(rsa) == [b"v", b"a", b"c", b"d", b"s", b"t", b"h", b"bh", b"b"]
    assert rsa[b"v"] == b"1"
    assert (rsa[b"a"], ed25519[b"a"]) == (b"rsa-sha256", b"ed25519-sha256")
    assert (rsa[b"s"], ed25519[b"s"]) == (b"rsa2026", b"ed2026")
    assert rsa[b"c"] == b"relaxed/relaxed"
    assert rsa[b"d"] == ed25519[b"d"] == b"example.org"
    assert rsa[b"t"] == b"1800000000"
    assert decode_base64(rsa[b"bh"]) == hashlib.sha256(canonical_body(BODY, b"relaxed")).digest()


def test_there_is_never_a_length():
    for value in sign(expiry=9):
        assert b"l" not in tags_of(value)


def test_expiry():
    assert tags_of(sign(expiry=14)[0])[b"x"] == b"%d" % (NOW + 14 * 86400)
    assert b"x" not in tags_of(sign(expiry=0)[0])


def test_what_is_signed():
    for value in sign():
        assert names_of(value) == [
            *(b"from", b"from", b"subject", b"subject", b"date", b"date", b"to", b"to"),
            *(b"cc", b"reply-to", b"message-id", b"message-id", b"content-type", b"mime-version"),
            *(b"list-unsubscribe", b"list-unsubscribe-post"),
        ]


def test_all_instances_are_signed():
    fields = [*FIELDS, HeaderField(b"to", b" dave@example.net"), HeaderField(b"list-unsubscribe", b" <x:>")]
    (value, _) = sign(fields)
    names = names_of(value)
    assert names.count(b"to") == 3
    assert names.count(b"list-unsubscribe") == 2
    assert verify([value], fields) == [Reason.VERIFIED]


def test_what_must_not_be_signed_is_not():
    """RFC 6376 §5.4.1 and milters that change them; also where they are."""
    never = (b"return-path", b"received", b"bcc", b"resent-bcc", b"dkim-signature", b"authentication-results")
    never += (b"arc-seal", b"arc-message-signature", b"arc-authentication-results", b"comments", b"keywords")
    assert not {*never} & {*DEFAULT_CHOICE.signed, *DEFAULT_CHOICE.oversigned}
    fields = [*FIELDS, *(HeaderField(name, b" x") for name in never)]
    assert not {*never} & {*names_of(sign(fields)[0])}


def test_the_choice_is_in_lower_case_and_without_repetition():
    names = [*DEFAULT_CHOICE.oversigned, *DEFAULT_CHOICE.signed]
    assert len(set(names)) == len(names)
    assert [name.lower() for name in names] == names
    assert not [name for name in DEFAULT_CHOICE.oversigned if name.startswith(b"list-") or name == b"sender"]


def test_another_choice():
    (value, _) = sign(choice=FieldChoice(oversigned=(b"from",), signed=(b"x-mailer", b"x-absent")))
    assert names_of(value) == [b"from", b"from", b"x-mailer"]
    assert verify([value]) == [Reason.VERIFIED]


def test_the_signature_is_over_what_the_rfc_says():
    """RFC 6376 §3.7, written out: the fields of h=, then this one without its b= and without CRLF."""
    for value, (_, _, key) in zip(sign(), SIGNERS, strict=True):
        chosen = [canonical_field(field, b"relaxed") + b"\r\n" for field in choose(FIELDS, names_of(value))]
        assert len(chosen) == 7
        unsigned = HeaderField(b"DKIM-Signature", re.sub(rb"(?s)\bb=[^;]*\Z", b"b=", value))
        data = b"".join(chosen) + canonical_field(unsigned, b"relaxed")
        public = parse_public_key(key.key_type, key.public_octets())
        assert public.verify(decode_base64(tags_of(value)[b"b"]), hashlib.sha256(data).digest())


@pytest.mark.parametrize("body", [b"", b"\r\n", b"no end", b"\xff\0\r\n", b"a \r\n\r\n\r\n", b"x" * 100_000])
def test_bodies(body):
    assert verify(sign(body=body), body=body) == [Reason.VERIFIED] * 2


@pytest.mark.parametrize(
    "fields",
    [
        [HeaderField(b"From", b" a@example.org")],
        [HeaderField(b"from", b"a@example.org")],
        [HeaderField(b"FROM", b"\ta@example.org \n\t (comment)  ")],
        [HeaderField(b"From", b" \xc3\xa4@example.org"), HeaderField(b"Subject", b" \xff\xfe")],
        [HeaderField(b"From", b" a@example.org"), HeaderField(b"Subject", b"")],
        [HeaderField(b"From", b" a@example.org"), HeaderField(b"To", b" x,\r\n y,\n\tz")],
    ],
)
def test_headers(fields):
    assert verify(sign(fields), fields) == [Reason.VERIFIED] * 2


@pytest.mark.parametrize("name", [b"From", b"Subject", b"To", b"Cc", b"Date", b"Reply-To", b"MIME-Version"])
def test_nothing_oversigned_can_be_added_above_or_below(name):
    values = sign()
    added = HeaderField(name, b" added")
    for fields in ([added, *FIELDS], [*FIELDS, added]):
        assert verify(values, fields) == [Reason.HEADER_CHANGED] * 2


def test_what_is_added_on_the_way_does_no_harm():
    added = [
        HeaderField(b"Received", b" by mx"),
        HeaderField(b"Sender", b" list@example.net"),
        HeaderField(b"List-Id", b" <list.example.net>"),
        HeaderField(b"X-Spam", b" no"),
        HeaderField(b"Authentication-Results", b" mx; none"),
    ]
    assert verify(sign(), [*added, *FIELDS]) == [Reason.VERIFIED] * 2


# The shape of the field.


def lines_of(value: bytes) -> list[bytes]:
    return (b"DKIM-Signature:" + value).split(b"\n")


@pytest.mark.parametrize(
    ("domain", "selector"),
    [(b"example.org", b"s"), (b"a-rather-long-name-of-a-department.of-some-company.example.com", b"s" * 40)],
)
@pytest.mark.parametrize("expiry", [0, 7])
def test_lines_are_short(domain, selector, expiry):
    many = [*FIELDS, *(HeaderField(b"Resent-Message-ID", b" <x>") for _ in range(9))]
    for key in (RSA, ED25519):
        (value,) = sign(many, signers=[Signer(domain, selector, key)], expiry=expiry)
        assert value.startswith(b" v=1; ")
        first, *rest = lines_of(value)
        assert max(map(len, (first, *(b" " * 7 + line for line in rest)))) <= 77
        assert all(re.fullmatch(rb"\t[!-~]+( [!-~]+)*", line) for line in rest)
        assert re.fullmatch(rb"[!-~]+( [!-~]+)*", first)
        assert not value.endswith((b"\n", b"\t", b" ", b";"))


def test_a_long_domain_is_not_cut():
    domain = b".".join([b"d" * 60] * 4)
    (value,) = sign(signers=[Signer(domain, b"s" * 60, RSA)])
    assert tags_of(value)[b"d"] == domain
    assert max(map(len, lines_of(value))) < 300


@pytest.mark.parametrize("bits", [1024, 1032, 1040, 2048])
def test_the_signature_is_folded_whatever_its_length(bits):
    key = generate_key(KeyType.RSA, bits)
    (value,) = sign(signers=[Signer(b"example.org", b"s", key)])
    assert len(decode_base64(tags_of(value)[b"b"])) == bits // 8


def test_many_instances_do_not_make_an_endless_field():
    fields = [*FIELDS, *(HeaderField(b"To", b" x@example.net") for _ in range(5000))]
    (value, _) = sign(fields)
    assert names_of(value).count(b"to") == 51
    assert verify([value], fields) == [Reason.VERIFIED]


def test_the_rsa_may_be_done_elsewhere():
    plan = plan_signing(FIELDS, SIGNERS, NOW, DkimSigningParameters())
    body = BodyHash(hashlib.sha256(canonical_body(BODY, b"relaxed")).digest(), 0)
    unsigned = plan.prepare(body)
    assert [each.key for each in unsigned] == [RSA, ED25519]
    assert all(len(each.digest) == 32 for each in unsigned)
    values = [each.complete(each.key.sign(each.digest)) for each in unsigned]
    assert verify(values) == [Reason.VERIFIED] * 2
    assert values == plan.finish(body)  # both algorithms give the same signature each time


def test_nobody_signs():
    assert sign(signers=[]) == []


def test_the_header_is_not_needed_after_the_plan():
    fields = [*FIELDS]
    plan = plan_signing(fields, SIGNERS, NOW, DkimSigningParameters())
    fields.clear()
    hashes = BodyHashes([plan.body_hash])
    hashes.feed(BODY)
    assert verify(plan.finish(hashes.finish()[plan.body_hash])) == [Reason.VERIFIED] * 2
