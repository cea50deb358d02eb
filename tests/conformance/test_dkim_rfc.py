"""The signed messages that RFC 6376 and RFC 8463 print in their appendices A, from the texts of the RFCs."""

from __future__ import annotations

import base64
import hashlib
import re
from pathlib import Path

import pytest

from srsd.crypto import KeyType, load_private_key
from srsd.dkim.canonicalization import RELAXED, SIMPLE, BodyHashes, BodyHashKey, canonical_field
from srsd.dkim.result import DkimResult, Reason
from srsd.dkim.sign import DkimSigningParameters, FieldChoice, Signer, plan_signing
from srsd.dkim.verify import DkimVerificationParameters, plan_verification
from srsd.resolving import Answer, Outcome
from srsd.syntax.header import HeaderField, Message, parse_message
from srsd.syntax.taglist import parse_tag_list

RFC = Path(__file__).parents[3] / "shared/rfc"
NOW = 1_800_000_000


def text_of(number: int) -> str:
    """Give the text of an RFC without its page breaks."""
    file = RFC / f"rfc{number}.txt"
    if not file.exists():
        pytest.skip(f"{file} is absent: its examples were not verified")
    lines = [line.rstrip() for line in file.read_text("utf-8").replace("\f", "").split("\n")]
    kept = [
        line for line in lines if not re.fullmatch(r"\S.*\[Page \d+\]|RFC \d+ .* [A-Z][a-z]+ \d{4}", line)
    ]
    return "\n".join(kept)


def between(text: str, begin: str, end: str) -> str:
    at = text.index(begin)
    return text[at : text.index(end, at)]


def message_of(text: str, indent: int = 3) -> Message:
    lines = [line[indent:] if line.startswith(" " * indent) else line for line in text.rstrip().split("\n")]
    return parse_message("\r\n".join(lines).encode() + b"\r\n")


def records_of(text: str) -> dict[bytes, Answer[bytes]]:
    """Read TXT records of a zone file: NAME IN TXT ("string" ...)."""
    found = re.findall(r"^(\S+)\s+IN\s+TXT\s+\(([^)]*)\)", text, re.MULTILINE)
    return {
        name.rstrip(".").encode(): Answer(
            Outcome.FOUND, ("".join(re.findall('"([^"]*)"', strings)).encode(),)
        )
        for name, strings in found
    }


def verify(message: Message, answers: dict[bytes, Answer[bytes]]) -> list[DkimResult]:
    plan = plan_verification(message.fields, NOW, DkimVerificationParameters())
    hashes = BodyHashes(plan.body_hashes)
    hashes.feed(message.body)
    return plan.finish(answers, hashes.finish())


# RFC 8463: both signatures, and the keys that made them.


def signed_message_of_8463() -> Message:
    return message_of(between(text_of(8463), "   DKIM-Signature: v=1; a=ed25519-sha256", "Author's Address"))


def test_rfc_8463_appendix_a():
    answers = records_of(text_of(8463))
    assert len(answers) == 2
    results = verify(signed_message_of_8463(), answers)
    assert results == [
        DkimResult(
            reason=Reason.VERIFIED,
            domain=b"football.example.com",
            selector=b"brisbane",
            algorithm=b"ed25519-sha256",
            identity=b"@football.example.com",
            signature_start=b"/gCrinpc",
            key_bits=256,
            header_verified=True,
        ),
        DkimResult(
            reason=Reason.VERIFIED,
            domain=b"football.example.com",
            selector=b"test",
            algorithm=b"rsa-sha256",
            identity=b"@football.example.com",
            signature_start=b"F45dVWDf",
            key_bits=1024,
            header_verified=True,
        ),
    ]


@pytest.mark.parametrize(
    "change",
    [
        lambda message: message._replace(body=message.body.replace(b"lost", b"won")),
        lambda message: message._replace(
            fields=[
                field._replace(value=b" Is lunch ready?") if field.name == b"Subject" else field
                for field in message.fields
            ]
        ),
        lambda message: message._replace(fields=[*message.fields, HeaderField(b"Subject", b" added")]),
        lambda message: message._replace(fields=[HeaderField(b"Date", b" added"), *message.fields]),
    ],
    ids=["body", "subject", "second subject", "second date"],
)
def test_rfc_8463_changed(change):
    results = verify(change(signed_message_of_8463()), records_of(text_of(8463)))
    assert [result.reason for result in results] in (
        [Reason.BODY_CHANGED] * 2,
        [Reason.HEADER_CHANGED] * 2,
    )


def test_rfc_8463_private_keys_make_the_signatures_again():
    """Both algorithms have but one signature for a message, so what is made must be what is printed.

    Its header is hashed as the RFC's own field has it, not as ours would.
    """
    text = text_of(8463)
    pem = between(text, "-----BEGIN RSA", "A.2.").strip().encode()
    rsa = load_private_key(re.sub(rb"(?m)^ +", b"", pem))
    seed = base64.b64decode(re.search(r"^ +(\S{43}=)$", text, re.MULTILINE)[1])
    pkcs8 = base64.b64encode(bytes.fromhex("302e020100300506032b657004220420") + seed)
    ed25519 = load_private_key(b"-----BEGIN PRIVATE KEY-----\n%b\n-----END PRIVATE KEY-----\n" % pkcs8)
    message = signed_message_of_8463()
    answers = records_of(text)
    for key, name in ((ed25519, b"brisbane"), (rsa, b"test")):
        record = parse_tag_list(answers[name + b"._domainkey.football.example.com"].records[0])
        assert record[b"p"] == base64.b64encode(key.public_octets())
        (field,) = [each for each in message.fields if b"s=" + name in each.value]
        tags = parse_tag_list(field.value)
        digest = hashed_header(message, field)
        assert base64.b64encode(key.sign(digest)) == re.sub(rb"\s", b"", tags[b"b"])


def hashed_header(message: Message, field: HeaderField) -> bytes:
    named = {each.name.lower(): each for each in message.fields}
    names = re.split(rb"\s*:\s*", parse_tag_list(field.value)[b"h"])
    data = b"".join(canonical_field(RELAXED, *named[name]) + b"\r\n" for name in dict.fromkeys(names))
    own = re.sub(rb"(?s)\bb=.*\Z", b"b=", field.value)
    return hashlib.sha256(data + canonical_field(RELAXED, b"DKIM-Signature", own)).digest()


# RFC 6376: the message of appendix A.2 as it was when it was signed. Two things in it changed when it was
# typeset, and c=simple/simple tells: folded lines began with six blanks, and one blank stood after "game."
# (with one, its bh= is also that of RFC 8463, where the canonicalization makes one of two).


def message_of_6376(*, restored: bool) -> Message:
    message = message_of(
        between(text_of(6376), "   DKIM-Signature: v=1; a=rsa-sha256; s=brisbane", "Figure 2")
    )
    if not restored:
        return message
    fields = [
        field._replace(value=re.sub(rb"\r\n +", b"\r\n" + b" " * 6, field.value)) for field in message.fields
    ]
    return Message(fields, message.body.replace(b"game.  Are", b"game. Are"))


def answers_of_6376() -> dict[bytes, Answer[bytes]]:
    text = text_of(6376)
    strings = between(text, 'brisbane IN  TXT  ("v=DKIM1', ")")
    record = "".join(re.findall('"([^"]*)"', strings)).encode()
    return {b"brisbane._domainkey.example.com": Answer(Outcome.FOUND, (record,))}


def test_rfc_6376_appendix_a():
    (result,) = verify(message_of_6376(restored=True), answers_of_6376())
    assert result == DkimResult(
        reason=Reason.VERIFIED,
        domain=b"example.com",
        selector=b"brisbane",
        algorithm=b"rsa-sha256",
        identity=b"joe@football.example.com",
        signature_start=b"AuUoFEfD",
        key_bits=1024,
        header_verified=True,
    )


def test_rfc_6376_as_it_is_printed_does_not_verify():
    """c=simple/simple forgives nothing."""
    (result,) = verify(message_of_6376(restored=False), answers_of_6376())
    assert (result.reason, result.header_verified) == (Reason.BODY_CHANGED, False)


def test_rfc_6376_appendix_c_the_private_key_fits():
    text = text_of(6376)
    pem = between(text, "-----BEGIN RSA", "To extract").strip()
    key = load_private_key(re.sub(r"(?m)^ +", "", pem).encode())
    record = parse_tag_list(answers_of_6376()[b"brisbane._domainkey.example.com"].records[0])
    assert base64.b64encode(key.public_octets()) == record[b"p"]
    assert key.key_type is KeyType.RSA
    message = parse_message(b"From: joe@football.example.com\r\n\r\nHi.\r\n")
    plan = plan_signing(
        message.fields,
        [Signer(b"example.com", b"brisbane", key)],
        NOW,
        DkimSigningParameters(),
        FieldChoice((b"from",), ()),
    )
    hashes = BodyHashes([plan.body_hash])
    hashes.feed(message.body)
    (value,) = plan.finish(hashes.finish()[plan.body_hash])
    signed = message._replace(fields=[HeaderField(b"DKIM-Signature", value), *message.fields])
    assert verify(signed, answers_of_6376())[0].reason is Reason.VERIFIED


# RFC 6376 §3.4.5, with its marks for blanks and line ends made into what they stand for.


def marked(text: str) -> bytes:
    text = re.sub(r"\s", "", text)
    for mark, octets in (("<SP>", " "), ("<HTAB>", "\t"), ("<CRLF>", "\r\n")):
        text = text.replace(mark, octets)
    return text.encode()


def examples_of_6376() -> list[bytes]:
    section = between(text_of(6376), "3.4.5.  Canonicalization Examples", "3.5.  The DKIM-Signature")
    blocks = re.findall(r"(?:^ {3}.*<CRLF>\n(?:\n(?=.*<CRLF>))*)+", section, re.MULTILINE)
    return [marked(block) for block in blocks]


def test_rfc_6376_canonicalization_examples():
    whole, header_1, body_1, header_2, body_2, header_3, body_3 = examples_of_6376()
    cut = re.match(rb"(A): ?(.*?)\r\n(B ):(.*?)\r\n\r\n(.*)", whole, re.DOTALL)
    assert cut
    fields = [(cut[1], b" " + cut[2]), (cut[3], cut[4])]
    relaxed = b"".join(canonical_field(RELAXED, *field) + b"\r\n" for field in fields)
    simple = b"".join(canonical_field(SIMPLE, *field) + b"\r\n" for field in fields)
    assert relaxed == header_1 == header_3
    assert simple.replace(b"A: ", b"A:") == header_2.replace(b"A: ", b"A:")
    for canonicalization, body in ((RELAXED, body_1), (SIMPLE, body_2), (SIMPLE, body_3)):
        hashes = BodyHashes([BodyHashKey(canonicalization)])
        hashes.feed(cut[5])
        (found,) = hashes.finish().values()
        assert found.digest == hashlib.sha256(body).digest()
