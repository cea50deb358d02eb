"""What ARC promises, whatever a message is.

fuzz.run adds ARC_TARGETS to the others.
"""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING

from fuzz.targets import REQUEST_SIZE, Target
from harness.arc_forge import AMS, AS, PAYLOAD, ArcForge
from harness.dkim_forge import rsa_key
from srsd.arc.result import ArcResult, ChainStatus
from srsd.arc.seal import SealingPlan, plan_sealing
from srsd.arc.sets import SETS_MAXIMUM
from srsd.arc.trust import dmarc_passed_for, vouching_sealer
from srsd.arc.validate import ValidationPlan, plan_validation
from srsd.authres import parse_results
from srsd.crypto import KeyType, generate_key
from srsd.dkim.canonicalization import BodyHash, BodyHashes, BodyHashKey
from srsd.dkim.sign import Signer
from srsd.resolving import Answer, Outcome
from srsd.syntax.domain import fold_domain
from srsd.syntax.header import HeaderField, Message, parse_message

if TYPE_CHECKING:
    from random import Random

NOW = 1_800_000_000
KEY = generate_key(KeyType.RSA, 1024)
SIGNER = Signer(b"fuzz.example", b"fuzz", KEY)
OURS = Answer(Outcome.FOUND, (b"v=DKIM1; k=rsa; p=" + base64.b64encode(KEY.public_octets()),))
OUR_NAME = b"fuzz._domainkey.fuzz.example"
SEALER = ArcForge(rsa_key(1024, 7))
TRUSTED = frozenset({b"sealer.example", b"other.example"})


def _hash(message: Message, keys: frozenset[BodyHashKey]) -> dict[BodyHashKey, BodyHash]:
    hashes = BodyHashes(keys)
    hashes.feed(message.body)
    return hashes.finish()


def _plan(message: Message) -> tuple[ValidationPlan, SealingPlan | str]:
    validation = plan_validation(message.fields, NOW)
    return validation, plan_sealing(message.fields, validation, SIGNER, NOW)


def _validate(message: Message, answers: dict[bytes, Answer[bytes]]) -> ArcResult:
    plan = plan_validation(message.fields, NOW)
    return plan.finish(answers, _hash(message, plan.body_hashes))


def _parse(data: bytes) -> None:
    message = parse_message(data)
    validation, _ = _plan(message)
    answers = dict.fromkeys(validation.key_names, OURS)
    result = validation.finish(answers, _hash(message, validation.body_hashes))
    vouching_sealer(result, TRUSTED, b"example.org")


def _check(data: bytes, random: Random) -> None:
    message = parse_message(data)
    validation, sealing = _plan(message)
    assert len(validation.key_names) <= 2 * SETS_MAXIMUM
    hashes = _hash(message, validation.body_hashes | {SealingPlan.body_hash})
    answers = {name: random.choice([OURS, Answer(Outcome.NX_DOMAIN)]) for name in validation.key_names}
    result = validation.finish(answers, hashes)
    _check_result(result, message)
    assert result.status is not ChainStatus.PASS  # nobody has this key
    if isinstance(sealing, str):
        assert validation.ended or validation.highest_instance >= SETS_MAXIMUM
        return
    unanswered = validation.finish({}, hashes)
    waits = isinstance(sealing.finish(unanswered, hashes[sealing.body_hash], b" x; none"), str)
    assert waits == unanswered.temporary
    made = sealing.finish(result, hashes[sealing.body_hash], b" mx.example; none")
    assert not isinstance(made, str)
    sealed = message._replace(fields=[*made, *message.fields])
    if result.status is ChainStatus.NONE:
        again = _validate(sealed, {OUR_NAME: OURS})
        _check_result(again, sealed)
        froms = sum(field.name.lower() == b"from" for field in message.fields)
        assert again.status is ChainStatus.PASS or froms > 50
    else:
        after = plan_validation(sealed.fields, NOW)
        assert after.ended or after.highest_instance >= SETS_MAXIMUM
        assert isinstance(plan_sealing(sealed.fields, after, SIGNER, NOW), str)


def _check_result(result: ArcResult, message: Message) -> None:
    assert result.phrase.isascii()
    assert result.phrase.isprintable()
    assert len(result.phrase) < 100
    names = [field.name.lower()[:4] for field in message.fields]
    assert (result.status is ChainStatus.NONE) <= (result.sets == ())
    assert result.status is ChainStatus.NONE or b"arc-" in names
    for number, each in enumerate(result.sets, 1):
        assert each.instance == number <= SETS_MAXIMUM
        for name in (each.domain, each.selector, each.signature_domain):
            assert name.isascii()
            assert name == b"" or name.decode().isprintable()
        _check_payload(each.payload, None)


def _check_payload(data: bytes, _: Random | None) -> None:
    """Hold that what is read strictly and says what counts is read leniently, too, and the same."""
    found = dmarc_passed_for(data)
    assert found is None or (found.isascii() and found == found.lower())
    strict = parse_results(data)
    if strict is None:
        return
    said = [each for each in strict.results if each.method == "dmarc"]
    domains = [
        value
        for each in said
        for ptype, name, value in each.properties
        if (ptype, name) == ("header", "from")
    ]
    if found is not None:
        assert [each.result for each in said] in ([], ["pass"])
        assert not said or [fold_domain(bytes(each)) for each in domains] == [found]


def _header(fields: list[HeaderField]) -> bytes:
    return b"".join(name + b":" + value + b"\r\n" for name, value in fields)


_FIELDS = [HeaderField(b"From", b" a@example.org"), HeaderField(b"Subject", b" x")]
_BODY = b"body\r\n"
_ONE = SEALER.seal(_FIELDS, _BODY)
_TWO = SEALER.seal(_ONE, _BODY, ams=AMS.replace(b"relaxed/relaxed", b"simple/simple") + b"; l=3")
_ENDED = SEALER.seal(_ONE, _BODY, cv=b"fail")
_MANY = _FIELDS
for _number in range(1, 51):
    _set = b"%d" % _number, b"pass" if _number > 1 else b"none"
    _MANY = [
        HeaderField(b"ARC-Seal", SEALER._fill(AS, *_set).replace(b"%B%", b"AAAA")),
        HeaderField(b"ARC-Message-Signature", SEALER._fill(AMS, *_set).replace(b"%B%", b"AAAA")),
        HeaderField(b"ARC-Authentication-Results", b" i=%b;" % _set[0] + PAYLOAD),
        *_MANY,
    ]

_WORDS = [
    *(
        b";",
        b"=",
        b":",
        b" ",
        b"\r\n ",
        b"\n\t",
        b"\r",
        b"\n",
        b"\0",
        b"\xff",
        b"(",
        b")",
        b'"',
        b"\\",
        b"i=1;",
    ),
    *(
        b"i=0;",
        b"i=2;",
        b"i=50;",
        b"i=51;",
        b"i=007;",
        b"i = 1 ;",
        b"cv=none;",
        b"cv=pass;",
        b"cv=fail;",
        b"h=;",
    ),
    *(
        b"h=arc-seal;",
        b"l=1;",
        b"t=x;",
        b"x=1;",
        b"c=simple;",
        b"a=rsa-sha1;",
        b"d=org;",
        b"s=;",
        b"b=;",
        b"bh=;",
    ),
    *(
        b"ARC-Seal:",
        b"ARC-Message-Signature:",
        b"ARC-Authentication-Results:",
        b"\r\nARC-Seal: i=1; ",
        b"From: x\r\n",
    ),
    *(
        b"dmarc=pass",
        b"; dmarc=fail ",
        b" header.from=example.org",
        b"none",
        b"@",
        b"xn--",
        "ß".encode(),
        b"\r\n",
    ),
]

ARC_TARGETS: dict[str, Target] = {
    "arc-message": Target(
        _parse,
        _check,
        [
            *(_header(fields) + b"\r\n" + _BODY for fields in (_ONE, _TWO, _ENDED, _FIELDS, _MANY)),
            _header([*_ONE[:3]] * 50),
            b"ARC-Seal:\r\n" * 5000,
            b"ARC-Authentication-Results:" + b"(" * 60_000,
        ],
        _WORDS,
        REQUEST_SIZE,
        10,
    ),
    "arc-payload": Target(
        dmarc_passed_for,
        _check_payload,
        [
            PAYLOAD,
            b" mx 1; dmarc=pass (p=none; x) action=none header.from=Example.ORG; spf=pass",
            b' mx; dmarc/1 = pass reason="a;b" header . from = "example.org"; dmarc=fail',
            b" mx" + b"; x=y" * 15_000,
            b" mx; dmarc=pass" + b" a.b=c" * 10_000,
            b" mx; dmarc=pass a=" + b'""' * 30_000,
        ],
        _WORDS,
        REQUEST_SIZE,
        4,
    ),
}
