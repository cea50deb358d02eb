"""Thousands of random messages, signed and verified by srsd and by dkimpy, and by a third hand that is neither.

Both must say pass or not pass of the same signatures. Where they do not, DIFFERENCES has the class of
messages, the section of the RFC that decides it, and an example that shows both answers.
"""

from __future__ import annotations

import re
from collections import Counter
from random import Random
from typing import TYPE_CHECKING, Any

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from harness.differences import Case, Difference, hold_same_or_explained, now, rename_field, swap_fields
from harness.dkim_forge import Forge, Key, ed25519_key, rsa_key
from srsd.crypto import PrivateKey, load_private_key
from srsd.dkim.canonicalization import BodyHashes
from srsd.dkim.result import Result
from srsd.dkim.sign import DkimSigningParameters, Signer, plan_signing
from srsd.dkim.verify import DkimVerificationParameters, plan_verification
from srsd.syntax.header import HeaderField

if TYPE_CHECKING:
    from collections.abc import Callable

dkim: Any = pytest.importorskip("dkim", reason="dkimpy is not installed: nothing was compared with it")
pytest.importorskip("nacl", reason="PyNaCl is not installed: dkimpy knows no Ed25519 without it")


CANONICALIZATIONS = [b"simple/simple", b"simple/relaxed", b"relaxed/simple", b"relaxed/relaxed"]
KEYS = {b"rsa-sha256": rsa_key(), b"ed25519-sha256": ed25519_key()}


def ours(case: Case) -> list[bool]:
    plan = plan_verification(case.fields, now(), DkimVerificationParameters())
    hashes = BodyHashes(plan.body_hashes)
    hashes.feed(case.body)
    return [
        result.result is Result.PASS for result in plan.finish(case.answers(plan.key_names), hashes.finish())
    ]


def dkimpy(case: Case) -> list[bool]:
    def one(index: int) -> bool:
        try:
            verifier = dkim.DKIM(bytes(case))
            return bool(verifier.verify(index, case.txt))
        except Exception:  # noqa: BLE001 - it raises whatever comes: no pass
            return False

    return [one(index) for index in range(count_signatures(case))]


def count_signatures(case: Case) -> int:
    return sum(field.name.lower() == b"dkim-signature" for field in case.fields)


# Random messages.

WORDS = [b"word", b"a", b"=3D", b"ab,cd", "grün".encode(), b"\xff\xfe", b"<x@example.net>", b"x" * 80]
BLANKS = [b" ", b" ", b"  ", b"\t", b" \t ", b" " * 20]
LINE_ENDS = [b"\r\n", b"\r\n", b"\r\n\r\n", b" \r\n", b"\t\r\n", b"\r\n \r\n", b"\r\n" * 5]
ODD = [b"\n", b"\r", b"\0", b"\x0b", b"\x0c", b"\r\r\n"]  # the LF is one of the differences
NAMES = [b"From", b"To", b"Cc", b"Subject", b"Date", b"Message-ID", b"X-Odd_Name!", b"List-Id", b"Received"]


def random_body(random: Random, odd: list[bytes]) -> bytes:
    pieces = [*WORDS, *BLANKS, *LINE_ENDS, *odd]
    body = b"".join(random.choices(pieces, k=random.choice((0, 1, 2, 3, 5, 20, 60))))
    # Most mail ends with a line end: SMTP wants it.
    return body if random.random() < 0.2 else body + b"\r\n"


def random_value(random: Random) -> bytes:
    pieces = [*WORDS, *BLANKS, *([b"\r\n ", b"\r\n\t", b" \r\n  "] if random.random() < 0.5 else [])]
    value = b"".join(random.choices(pieces, k=random.randint(0, 8)))
    value = b"".join(re.split(rb"\r\n\s*\Z", value))
    return random.choice([b" ", b" ", b" ", b"", b"\t", b"  "]) + value.replace(b"\r\n \r\n", b"\r\n ")


def random_fields(random: Random) -> list[HeaderField]:
    names = [b"From", *random.choices(NAMES[1:], k=random.randint(0, 8))]
    random.shuffle(names)
    cased = [random.choice([name, name, name.upper(), name.lower()]) for name in names]
    return [HeaderField(name, clean(random_value(random))) for name in cased]


def clean(value: bytes) -> bytes:
    """Leave no line of blanks alone: what comes after it would be the body."""
    return re.sub(rb"\r\n[ \t]*(?=\r\n|\Z)", b"", value)


def random_message(random: Random) -> Case:
    odd = ODD if random.random() < 0.1 else ODD[1:]
    return Case(random_fields(random), random_body(random, odd), {})


def random_names(random: Random, fields: list[HeaderField]) -> list[bytes]:
    """Choose what is signed: some of what is there, now and then more than there is."""
    names = [field.name for field in fields if random.random() < 0.8]
    names += random.choices(NAMES, k=random.randint(0, 3))
    names += [b"from"] * sum(field.name.lower() == b"from" for field in fields)
    random.shuffle(names)
    return names


def random_template(random: Random, algorithm: bytes, fields: list[HeaderField]) -> bytes:
    """Write a signature in any of the ways that RFC 6376 §3.5 has for it."""
    fold = random.choice([b" ", b" ", b"\r\n\t", b"\r\n   "])
    colon = random.choice([b":", b" : ", b":\r\n\t"])
    tags = [
        b"v=1",
        b"a=" + algorithm,
        b"d=" + random.choice([b"example.org", b"Example.ORG"]),
        b"s=sel",
        b"h=" + colon.join(random_names(random, fields)),
        random.choice([b"bh=%BH%", b"bh=%BH%", b"bh = %BH%", b"bh=\r\n %BH%"]),
        random.choice([*[b"b=%B%"] * 60, b"b = %B%", b"b=\r\n\t%B%", b"b=%B% ", b"b= %B%\r\n "]),
    ]
    for probability, tag in (
        (0.9, b"c=" + random.choice([*CANONICALIZATIONS, b"simple", b"relaxed"])),
        (0.3, b"i=" + random.choice([b"@example.org", b"joe@example.org", b"joe@sub.example.org"])),
        (0.3, b"q=dns/txt"),
        (0.3, b"t=%d" % (now() - 100)),
        (0.2, b"x=%d" % (now() + 100_000)),
        (0.1, b"unknown_1="),
        (0.1, b"z=From:a=20b|To:c"),
        (0.02, b"l=%d" % random.choice((0, 1, 10, 10, 1000))),
    ):
        if random.random() < probability:
            tags.insert(random.randint(0, len(tags)), tag)
    end = random.choice([*[b"", b";"] * 20, b"; "])
    return random.choice([b" ", b" ", b"", fold]) + (b";" + fold).join(tags) + end


# What happens to mail on its way.


def change_value(random: Random, case: Case) -> Case:
    index = random.randrange(len(case.fields))
    name, value = case.fields[index]
    at = random.randint(0, len(value))
    piece = random.choice([b"x", b" ", b"\t", b"\r\n ", b";", b""])
    changed = HeaderField(name, clean(value[:at] + piece + value[at + random.randint(0, 1) :]))
    return case._replace(fields=[*case.fields[:index], changed, *case.fields[index + 1 :]])


def add_field(random: Random, case: Case) -> Case:
    fields = [*case.fields]
    fields.insert(random.randint(0, len(fields)), HeaderField(random.choice(NAMES), random_value(random)))
    return case._replace(fields=[HeaderField(name, clean(value)) for name, value in fields])


def remove_field(random: Random, case: Case) -> Case:
    fields = [*case.fields]
    if len(fields) > 2:
        del fields[random.randrange(len(fields))]
    return case._replace(fields=fields)


def change_body(random: Random, case: Case) -> Case:
    body = case.body
    at = random.randint(0, len(body))
    piece = random.choice([*WORDS[:3], *BLANKS, *LINE_ENDS, b""])
    return case._replace(body=body[:at] + piece + body[at + random.choice((0, 0, 1, 2)) :])


def append_to_body(random: Random, case: Case) -> Case:
    return case._replace(body=case.body + random.choice([*LINE_ENDS, b"-- \r\nfooter\r\n", b" ", b"\t"]))


def another_key(random: Random, case: Case) -> Case:
    keys = [rsa_key(1024, 1), ed25519_key(1)]
    return case._replace(records={name: random.choice(keys).record for name in case.records})


def change_record(random: Random, case: Case) -> Case:
    def change(record: bytes) -> bytes:
        tag = random.choice(
            [
                *(
                    b"t=y",
                    b"t=s",
                    b"s=email",
                    b"s=*",
                    b"s=email:x",
                    b"n=x",
                    b"h=sha256",
                    b"h=sha1",
                    b"h=sha256:x",
                ),
                *(b"k=rsa", b"p=", b"", b"x", b"g="),
            ]
        )
        return random.choice([record + b"; " + tag, tag + b"; " + record, record.replace(b"; ", b";"), tag])

    return case._replace(records={name: change(record) for name, record in case.records.items()})


def no_key(_: Random, case: Case) -> Case:
    return case._replace(records={})


CHANGES: list[Callable[[Random, Case], Case]] = [
    *(change_value, change_value, change_value, add_field, add_field, remove_field, swap_fields),
    *(rename_field, change_body, change_body, append_to_body, another_key, change_record, no_key),
]


def changed(random: Random, case: Case) -> Case:
    for _ in range(random.choice((0, 1, 1, 2))):
        case = random.choice(CHANGES)(random, case)
    return case


# Where they differ, and why ours is right.


TEMPLATE = b" v=1; a=rsa-sha256; c=relaxed/relaxed; d=example.org; s=sel; h=from:to; bh=%BH%; b=%B%"
FIELDS = [HeaderField(b"From", b" a@example.org"), HeaderField(b"To", b" b@example.net")]
KEY_NAME = b"sel._domainkey.example.org"
RSA = Forge(rsa_key())


def signed(
    template: bytes = TEMPLATE,
    body: bytes = b"body\r\n",
    fields: list[HeaderField] = FIELDS,
    records: dict[bytes, bytes] | None = None,
    change: Callable[[bytes], bytes] = bytes,
) -> Case:
    name, value = RSA.sign(fields, body, template)
    records = {KEY_NAME: rsa_key().record} if records is None else records
    return Case([HeaderField(name, change(value)), *fields], body, records)


def with_tag(tag: bytes) -> bytes:
    return TEMPLATE.replace(b" bh=", b" " + tag + b"; bh=")


def with_record(change: Callable[[bytes], bytes], template: bytes = TEMPLATE) -> Case:
    return signed(template, records={KEY_NAME: change(rsa_key().record)})


def rsa_sha1() -> Case:
    """dkimpy signs it, and verifies what it signed."""
    message = b"".join(name + b":" + value + b"\r\n" for name, value in FIELDS) + b"\r\nbody\r\n"
    signer = dkim.DKIM(message, signature_algorithm=b"rsa-sha1")
    _, _, value = signer.sign(b"sel", b"example.org", rsa_key().pem).partition(b":")
    field = HeaderField(b"DKIM-Signature", value.removesuffix(b"\r\n"))
    return Case([field, *FIELDS], b"body\r\n", {KEY_NAME: rsa_key().record})


def signature_over_another() -> Case:
    lower = RSA.sign(FIELDS, b"", TEMPLATE)
    upper = RSA.sign([lower, *FIELDS], b"", TEMPLATE.replace(b" h=", b" h=dkim-signature:"))
    return Case([lower, upper, *FIELDS], b"", {KEY_NAME: rsa_key().record})


def great_key() -> Case:
    key = rsa_key(4224)
    field = Forge(key).sign(FIELDS, b"", TEMPLATE)
    return Case([field, *FIELDS], b"", {KEY_NAME: key.record})


def ends(value: bytes, blanks: bytes | None = None) -> bytes:
    return value.replace(b"\r\n", b"").strip(blanks)


def values(case: Case) -> list[bytes]:
    return [b";" + field.value for field in case.fields if field.name.lower() == b"dkim-signature"]


def in_records(pattern: bytes) -> Callable[[Case], object]:
    return lambda case: any(re.search(pattern, record) for record in case.records.values())


DIFFERENCES = {
    # What is hashed.
    "a bare LF in the body": Difference(
        "RFC 6376 §3.4.3, §3.4.4 and §5.3: lines end with CRLF, other octets stay as they are; "
        "dkimpy makes CRLF of LF before it hashes, and so verifies a body that nobody signed",
        lambda: signed(body=b"a\nb\r\n"),
        True,
        lambda case: re.search(rb"(?<!\r)\n", case.body),
    ),
    "blanks at the end of a last line without CRLF": Difference(
        "RFC 6376 §3.4.4: (a) white space at the end of lines goes, (b) then a missing CRLF is added",
        lambda: signed(body=b"body \t"),
        True,
        lambda case: case.body.endswith((b" ", b"\t")),
    ),
    "blanks after the value of b=": Difference(
        "RFC 6376 §3.7 step 2: the value is deleted with all surrounding white space",
        lambda: signed(TEMPLATE + b" \t; z=x"),
        True,
        lambda case: any(re.search(rb"[;\s]b\s*=[^;]*?\s(;|\Z)", value) for value in values(case)),
    ),
    "blanks at the end of a simple signature": Difference(
        "RFC 6376 §3.4.1 and §3.7 step 2: only the CRLF is left out",
        lambda: signed(TEMPLATE.replace(b"c=relaxed", b"c=simple") + b"; "),
        True,
        lambda case: any(re.search(rb"\s\Z", value) for value in values(case)),
    ),
    "b= inside of another tag": Difference(
        "RFC 6376 §3.5: only the value of the tag b= is treated as empty",
        lambda: signed(with_tag(b"z=From:x b=AAAA")),
        True,
    ),
    "other octets than blanks at the ends of a field": Difference(
        "RFC 6376 §2.8: white space is space and tab; vertical tab, form feed and CR are not",
        lambda: signed(fields=[*FIELDS[:1], HeaderField(b"To", b" b@example.net\x0b\x0c")]),
        True,
        lambda case: any(ends(field.value) != ends(field.value, b" \t") for field in case.fields),
    ),
    "a blank before the colon": Difference(
        "RFC 6376 §3.4.2: white space before the colon is deleted (RFC 5322 §4.5 has such fields)",
        lambda: signed(fields=[HeaderField(b"From ", b" a@example.org"), *FIELDS[1:]]),
        True,
    ),
    "a signature over another one below it": Difference(
        "RFC 6376 §3.5: h= never means the signature's own field",
        signature_over_another,
        True,
    ),
    # What the signature says.
    "l= below the length of the body": Difference(
        "RFC 6376 §6.1.3 and §8.2: a verifier may treat what goes on after l= as unsigned content, and we do",
        lambda: signed(with_tag(b"l=2")),
        False,
        lambda case: any(re.search(rb";\s*l=", value) for value in values(case)),
    ),
    "rsa-sha1": Difference("RFC 8301 §3.1: it must not be used for verifying", rsa_sha1, False),
    "From is not in h=": Difference(
        "RFC 6376 §6.1.1: such a signature must be ignored",
        lambda: signed(TEMPLATE.replace(b"h=from:", b"h=")),
        False,
    ),
    "an expired signature, by less than ten hours": Difference(
        "RFC 6376 §3.5, x=: invalid past that date, with some room for clocks; ours is five minutes",
        lambda: signed(with_tag(b"x=%d" % (now() - 3600))),
        False,
    ),
    "a signature from the future, by less than ten hours": Difference(
        "RFC 6376 §3.5, t=: may be ignored", lambda: signed(with_tag(b"t=%d" % (now() + 3600))), False
    ),
    "x= equal to t=": Difference(
        "RFC 6376 §3.5, x=: it must be greater than t=",
        lambda: signed(with_tag(b"t=%d; x=%d" % (now(), now()))),
        False,
    ),
    "t= of more than 12 digits": Difference(
        "RFC 6376 §3.5: 1*12DIGIT", lambda: signed(with_tag(b"t=0000001600000000")), False
    ),
    "a quote in d=": Difference(
        "RFC 6376 §3.5, d=: domain-name of RFC 5321",
        lambda: signed(
            TEMPLATE.replace(b"d=example.org", b"d=legit.example'a.attack.example"),
            records={b"sel._domainkey.legit.example'a.attack.example": rsa_key().record},
        ),
        False,
    ),
    "a parenthesis in s=": Difference(
        "RFC 6376 §3.1: selector is sub-domain of RFC 5321",
        lambda: signed(
            TEMPLATE.replace(b"s=sel", b"s=a(b"),
            records={b"a(b._domainkey.example.org": rsa_key().record},
        ),
        False,
    ),
    "a top-level domain as d=": Difference(
        "RFC 6376 §3.5, d=: sub-domain 1*('.' sub-domain)",
        lambda: signed(
            TEMPLATE.replace(b"d=example.org", b"d=org"), records={b"sel._domainkey.org": rsa_key().record}
        ),
        False,
    ),
    "a control character in a tag": Difference(
        "RFC 6376 §3.2: VALCHAR", lambda: signed(with_tag(b"z=a\x07b")), False
    ),
    "a U-label in d=": Difference(
        "RFC 8616 §5: U-labels are legal there, and are asked for as A-labels",
        lambda: signed(
            TEMPLATE.replace(b"d=example.org", "d=münchen.example".encode()),
            records={b"sel._domainkey.xn--mnchen-3ya.example": rsa_key().record},
        ),
        True,
    ),
    "quoted-printable in i=": Difference(
        "RFC 6376 §3.5, i=: dkim-quoted-printable (§2.11)",
        lambda: signed(with_tag(b"i=joe=40example.org")),
        True,
    ),
    "q= with several methods": Difference(
        "RFC 6376 §3.5, q=: a colon-separated list, unknown ones are ignored",
        lambda: signed(with_tag(b"q=http/x:dns/txt")),
        True,
    ),
    "base64 without its padding": Difference(
        "RFC 6376 §2.10: the padding of a base64string is optional",
        lambda: signed(change=lambda value: value.rstrip(b"=")),
        True,
    ),
    # What the key says.
    "v= is not the first tag of the key": Difference(
        "RFC 6376 §3.6.1, v=: it must be the first tag",
        lambda: with_record(lambda record: b"n=x; " + record),
        False,
        lambda case: any(
            b"v=DKIM1" in record and not record.startswith(b"v=") for record in case.records.values()
        ),
    ),
    "h=sha1 in the key": Difference(
        "RFC 6376 §6.1.2 step 6: the key is not for this hash",
        lambda: with_record(lambda record: record + b"; h=sha1"),
        False,
        in_records(rb"h=sha1"),
    ),
    "t=s in the key": Difference(
        "RFC 6376 §3.6.1, t=s: i= must not be in a subdomain",
        lambda: with_record(lambda record: record + b"; t=s", with_tag(b"i=@sub.example.org")),
        False,
        in_records(rb"t=s"),
    ),
    "a list in the s= of the key": Difference(
        "RFC 6376 §3.6.1, s=: a colon-separated list",
        lambda: with_record(lambda record: record + b"; s=email:x"),
        True,
        in_records(rb"s=email:x"),
    ),
    "a key of more than 4096 bits": Difference(
        "RFC 8301 §3.2: larger keys may be validated; ours may not cost more time than that", great_key, False
    ),
}


@pytest.mark.parametrize("name", DIFFERENCES)
def test_an_example_shows_the_difference(name):
    difference = DIFFERENCES[name]
    case = difference.example()
    assert difference.why.startswith("RFC ")
    assert ours(case)[-1] is difference.pass_of_ours
    assert dkimpy(case)[-1] is not difference.pass_of_ours


def compare(case: Case, counts: Counter[str]) -> list[bool]:
    """Hold that both say the same, or that a difference explains why not; gives ours."""
    found, theirs = ours(case), dkimpy(case)
    counts["signatures"] += len(found)
    counts["passed"] += sum(found)
    hold_same_or_explained(case, found, theirs, DIFFERENCES, counts)
    return found


def test_signatures_of_any_shape():
    """3,000 messages, signed by the letter of the RFC in all its ways, some of them changed afterwards."""
    random = Random("any shape")
    counts: Counter[str] = Counter()
    for _ in range(3000):
        message = random_message(random)
        algorithm, key = random.choice([*KEYS.items()])
        template = random_template(random, algorithm, message.fields)
        field = Forge(key).sign(message.fields, message.body, template)
        records = {KEY_NAME: key.record}
        case = Case([field, *message.fields], message.body, records)
        passed = compare(case, counts)
        assert passed == [True] or b"l=" in template, bytes(case)
        compare(changed(random, case), counts)
    assert counts["signatures"] > 5900
    assert counts["passed"] > 3500  # so that neither word is the only one
    assert counts["signatures"] - counts["passed"] > 1500
    assert counts["differed"] < 600


def sign_with_ours(message: Case, keys: dict[bytes, Key]) -> list[HeaderField]:
    signers = [Signer(b"example.org", algorithm, loaded(key)) for algorithm, key in keys.items()]
    plan = plan_signing(message.fields, signers, now(), DkimSigningParameters(expiry=7))
    hashes = BodyHashes([plan.body_hash])
    hashes.feed(message.body)
    return [HeaderField(b"DKIM-Signature", value) for value in plan.finish(hashes.finish()[plan.body_hash])]


def loaded(key: Key) -> PrivateKey:
    return load_private_key(key.private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))


def test_what_srsd_signs():
    """1,200 messages, each with an RSA and an Ed25519 signature; then changed."""
    random = Random("srsd signs")
    counts: Counter[str] = Counter()
    for _ in range(1200):
        message = random_message(random)
        fields = [*sign_with_ours(message, KEYS), *message.fields]
        records = {algorithm + b"._domainkey.example.org": key.record for algorithm, key in KEYS.items()}
        case = Case(fields, message.body, records)
        assert compare(case, counts) == [True, True], bytes(case)
        # A milter sends the folds of a field as LF, and Postfix makes CRLF of them.
        on_the_wire = [HeaderField(name, value.replace(b"\n", b"\r\n")) for name, value in fields]
        compare(changed(random, case._replace(fields=on_the_wire)), counts)
    assert counts["differed"] < 240


def test_what_dkimpy_signs():
    """1,000 messages, with all four canonicalizations and both algorithms; then changed."""
    random = Random("dkimpy signs")
    counts: Counter[str] = Counter()
    for number in range(1000):
        message = random_message(random)._replace(fields=random_fields(random))
        algorithm, key = [*KEYS.items()][number % 2]
        signer = dkim.DKIM(bytes(message), signature_algorithm=algorithm)
        _, _, value = signer.sign(
            b"sel",
            b"example.org",
            key.pem,
            canonicalize=tuple(CANONICALIZATIONS[number // 2 % 4].split(b"/")),
            include_headers=signable(random_names(random, message.fields)) if random.random() < 0.5 else None,
        ).partition(b":")
        field = HeaderField(b"DKIM-Signature", value.removesuffix(b"\r\n"))
        case = Case([field, *message.fields], message.body, {KEY_NAME: key.record})
        assert compare(case, counts) == [True] or explained(case), bytes(case)
        compare(changed(random, case), counts)
    assert counts["differed"] < 300


def signable(names: list[bytes]) -> list[bytes]:
    """Leave out what dkimpy refuses to sign."""
    return [name for name in names if name.lower() != b"received"]


def explained(case: Case) -> bool:
    return any(difference.applies(case) for difference in DIFFERENCES.values())
