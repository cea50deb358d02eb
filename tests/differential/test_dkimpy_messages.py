"""Every message and key of dkimpy's own tests, signed and verified by srsd and by dkimpy: both must agree.

They come with Debian's package python3-dkim, which scripts/install-test-deps installs for them.
"""

from __future__ import annotations

import base64
import re
from pathlib import Path
from typing import Any

import pytest

from harness.differences import now
from srsd.crypto import PrivateKey, load_private_key
from srsd.dkim.canonicalization import BodyHashes
from srsd.dkim.key_record import parse_key_record
from srsd.dkim.publication import record_of
from srsd.dkim.result import DkimResult, Reason, Result
from srsd.dkim.sign import DkimSigningParameters, Signer, plan_signing
from srsd.dkim.signature import FIELD_NAME, Flaw
from srsd.dkim.verify import DkimVerificationParameters, plan_verification
from srsd.resolving import Answer, Outcome
from srsd.syntax.header import HeaderField, Message, parse_message

dkim: Any = pytest.importorskip("dkim", reason="dkimpy is not installed: nothing was compared with it")
pytest.importorskip("nacl", reason="PyNaCl is not installed: dkimpy knows no Ed25519 without it")

DATA = Path("/usr/lib/python3/dist-packages/dkim/tests/data")
if not DATA.is_dir():
    pytest.skip(f"{DATA} is absent (apt-get install python3-dkim): its messages were not compared")


CANONICALIZATIONS = [b"simple/simple", b"simple/relaxed", b"relaxed/simple", b"relaxed/relaxed"]


def read(path: Path) -> bytes:
    """Read a message as it is on the wire."""
    text = re.sub(rb"\r?\n", b"\r\n", path.read_bytes())
    return re.sub(rb"\AFrom .*\r\n", b"", text)  # the first line of an mbox


MESSAGES = {
    path.name: read(path)
    for path in sorted(DATA.iterdir())
    if re.search(r"\.(msg|message|mbox|baddomain)$", path.name)
}
SIGNED = {
    name: message
    for name, message in MESSAGES.items()
    if re.search(rb"^dkim-signature:", message.partition(b"\r\n\r\n")[0], re.IGNORECASE | re.MULTILINE)
}
RECORDS = {
    path.name: b"".join(path.read_bytes().split(b"\n"))
    for path in sorted(DATA.iterdir())
    if path.suffix in {".txt", ".dns"}
}
KEYS = {
    path.name: path.read_bytes() for path in sorted(DATA.iterdir()) if path.suffix in {".key", ".private"}
}
NO_KEY = {"badk.txt", "badversion.txt", "test_bad.txt", "test_tlsrpt.txt"}  # by their names


def ours(text: bytes, record: bytes) -> list[DkimResult]:
    message = parse_message(text)
    plan = plan_verification(message.fields, now(), DkimVerificationParameters())
    hashes = BodyHashes(plan.body_hashes)
    hashes.feed(message.body)
    answers = {name: Answer(Outcome.FOUND, (record,)) for name in plan.key_names}
    return plan.finish(answers, hashes.finish())


def dkimpy(text: bytes, record: bytes) -> list[bool]:
    def one(index: int) -> bool:
        try:
            return bool(dkim.DKIM(text).verify(index, lambda *_, **__: record))
        except Exception:  # noqa: BLE001 - it raises whatever comes: no pass
            return False

    return [one(index) for index in range(len(ours(text, record)))]


def is_short(record: bytes) -> bool:
    """Tell whether a key is shorter than RFC 8301 §3.2 lets anybody accept."""
    parsed = parse_key_record(record)
    return isinstance(parsed, Flaw) and parsed.reason is Reason.KEY_TOO_SHORT


def test_there_is_something_to_compare():
    assert len(SIGNED) >= 6
    assert len(MESSAGES) - len(SIGNED) >= 5
    assert len(RECORDS) >= 11
    assert len(KEYS) >= 5


@pytest.mark.parametrize("record", RECORDS)
@pytest.mark.parametrize("message", SIGNED)
def test_their_signatures(message, record):
    """With each record there is: the right one, and all the wrong ones."""
    mine, theirs = ours(SIGNED[message], RECORDS[record]), dkimpy(SIGNED[message], RECORDS[record])
    assert mine
    passed = [each.result is Result.PASS for each in mine]
    if passed != theirs:
        assert is_short(RECORDS[record]) or any(each.reason is Reason.HISTORIC_ALGORITHM for each in mine)
        assert not any(passed)
    if record in NO_KEY:
        assert not any(passed)


def test_most_of_their_signatures_pass_with_one_of_their_keys():
    """So that the agreement above is not that nothing passes."""
    passing = {
        name
        for name, message in SIGNED.items()
        for record in RECORDS.values()
        if any(each.result is Result.PASS for each in ours(message, record))
    }
    assert {"rfc6376.signed.msg", "rfc6376.signed.rsa.msg", "ed25519test2.msg"} <= passing


def private_key(name: str) -> PrivateKey | None:
    text = KEYS[name]
    if not text.startswith(b"-----"):  # dkimpy's form of an Ed25519 key: its seed in Base64
        head = bytes.fromhex("302e020100300506032b657004220420")  # RFC 8410 §7
        body = base64.b64encode(head + base64.b64decode(text))
        text = b"-----BEGIN PRIVATE KEY-----\n" + body + b"\n-----END PRIVATE KEY-----\n"
    try:
        return load_private_key(text)
    except ValueError:
        return None


def has_one_from(text: bytes) -> bool:
    return sum(field.name.lower() == b"from" for field in parse_message(text).fields) == 1


@pytest.mark.parametrize("key", KEYS)
@pytest.mark.parametrize("canonicalization", CANONICALIZATIONS)
@pytest.mark.parametrize("message", MESSAGES)
def test_what_dkimpy_signs_is_verified(message, canonicalization, key):
    text = MESSAGES[message]
    known = private_key(key)
    if known is None:
        assert b"RSA" in KEYS[key]  # too short for us, and no other reason
        return
    kind = {} if KEYS[key].startswith(b"-----") else {"signature_algorithm": b"ed25519-sha256"}
    try:
        field = dkim.sign(
            text,
            b"sel",
            b"football.example.com",
            KEYS[key],
            canonicalize=tuple(canonicalization.split(b"/")),
            **kind,
        )
    except dkim.DKIMException:
        assert not has_one_from(text)
        return
    first, *_ = ours(field + text, record_of(known))
    assert first.result is Result.PASS, first.phrase


@pytest.mark.parametrize("key", KEYS)
@pytest.mark.parametrize("message", MESSAGES)
def test_what_srsd_signs_is_verified(message, key):
    text = MESSAGES[message]
    known = private_key(key)
    if known is None or not has_one_from(text):
        return
    parsed: Message = parse_message(text)
    signer = Signer(b"football.example.com", b"sel", known)
    fields = [field for field in parsed.fields if field.name.lower() != FIELD_NAME]
    plan = plan_signing(fields, [signer], now(), DkimSigningParameters())
    hashes = BodyHashes([plan.body_hash])
    hashes.feed(parsed.body)
    (value,) = plan.finish(hashes.finish()[plan.body_hash])
    signed = [HeaderField(b"DKIM-Signature", value.replace(b"\n", b"\r\n")), *fields]
    whole = b"".join(name + b":" + value + b"\r\n" for name, value in signed) + b"\r\n" + parsed.body
    assert dkim.DKIM(whole).verify(0, lambda *_, **__: record_of(known))
