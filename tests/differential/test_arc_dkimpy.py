"""Random chains, sealed by srsd, by dkimpy and by a third hand, validated by srsd and by dkimpy.

Both must give the same status. Where they do not, DIFFERENCES has the class of messages, the section of the
RFC that decides it, and an example that shows both answers.
"""

from __future__ import annotations

import re
from collections import Counter
from random import Random
from typing import TYPE_CHECKING, Any

import pytest

from harness.arc_forge import AMS, KINDS, ArcForge, instance_of
from harness.arc_forge import AS as AS_OF_2027
from harness.differences import Case, Difference, hold_same_or_explained, now, rename_field, swap_fields
from harness.dkim_forge import ed25519_key, rsa_key
from srsd.arc.seal import plan_sealing
from srsd.arc.validate import plan_validation
from srsd.authres import Result, format_results
from srsd.crypto import load_private_key
from srsd.dkim.canonicalization import BodyHashes
from srsd.dkim.sign import Signer
from srsd.resolving import Answer, Outcome
from srsd.syntax.header import HeaderField, Message, parse_message

if TYPE_CHECKING:
    from collections.abc import Callable

dkim: Any = pytest.importorskip("dkim", reason="dkimpy is not installed: nothing was compared with it")
pytest.importorskip("authres", reason="authres is not installed: dkimpy does not know ARC without it")


AS = AS_OF_2027.replace(b"1799999999", b"%d" % (now() - 10))
HOPS = [ArcForge(rsa_key(1024, number), b"hop%d.example" % number, b"s%d" % number) for number in range(3)]
RECORDS = {forge.key_name: forge.key.record for forge in HOPS}
FIELDS = [
    HeaderField(b"From", b" Alice <a@example.org>"),
    HeaderField(b"To", b" b@example.net,\r\n\tc@example.net"),
    HeaderField(b"Subject", b" two  blanks"),
]
BODY = b"Hello,  Bob \r\n\r\nhow are\tyou?\r\n\r\n"


def ours(case: Case) -> str:
    plan = plan_validation(case.fields, now())
    hashes = BodyHashes(plan.body_hashes)
    hashes.feed(case.body)
    return plan.finish(case.answers(plan.key_names), hashes.finish()).status.value


def dkimpy(case: Case) -> str:
    """Ask dkimpy; of a chain that has ended with cv=fail it says None, and for an exception there is no word."""
    try:
        status, _, _ = dkim.arc_verify(bytes(case), dnsfunc=case.txt)
    except Exception:  # noqa: BLE001 - it raises whatever comes: no pass
        return "fail"
    return status.decode() if status else "fail"


# Three who seal.


def seal_with_forge(case: Case, hop: ArcForge, _status: str) -> Case:
    return case._replace(fields=hop.seal(case.fields, case.body, seal=AS))


def seal_with_ours(case: Case, hop: ArcForge, status: str) -> Case:
    validation = plan_validation(case.fields, now())
    signer = Signer(hop.domain, hop.selector, load_private_key(hop.key.pem))
    sealing = plan_sealing(case.fields, validation, signer, now())
    assert not isinstance(sealing, str)
    hashes = BodyHashes(validation.body_hashes | {sealing.body_hash})
    hashes.feed(case.body)
    found = hashes.finish()
    result = validation.finish(case.answers(validation.key_names), found)
    assert result.status.value == status
    payload = format_results(b"mx." + hop.domain, [Result("arc", status), Result("dmarc", "pass")])
    made = sealing.finish(result, found[sealing.body_hash], payload)
    assert not isinstance(made, str)
    # On the wire Postfix makes CRLF of each LF.
    crlf = [HeaderField(name, value.replace(b"\n", b"\r\n")) for name, value in made]
    return case._replace(fields=[*crlf, *case.fields])


def seal_with_dkimpy(case: Case, hop: ArcForge, status: str) -> Case:
    server = b"mx." + hop.domain
    content = b"Authentication-Results: %b;\r\n arc=%b;\r\n dmarc=pass\r\n" % (server, status.encode())
    lines = dkim.arc_sign(content + bytes(case), hop.selector, hop.domain, hop.key.pem, server)
    made = parse_message(b"".join(lines) + b"\r\n")
    assert len(made.fields) == 3
    return case._replace(fields=[*made.fields, *case.fields])


SEALERS: dict[str, Callable[[Case, ArcForge, str], Case]] = {
    "ours": seal_with_ours,
    "dkimpy": seal_with_dkimpy,
    "forge": seal_with_forge,
}


@pytest.mark.parametrize("first", SEALERS)
@pytest.mark.parametrize("second", SEALERS)
@pytest.mark.parametrize("third", SEALERS)
def test_three_hops_pass_with_both(first, second, third):
    """Each hop changes the message, as lists do, and the one after it finds the chain whole."""
    case = Case(FIELDS, BODY, RECORDS)
    status = "none"
    for number, sealer in enumerate((first, second, third)):
        subject = HeaderField(b"Subject", b" [list%d] hello" % number)
        fields = [HeaderField(b"Received", b" hop %d" % number), *case.fields[:-1], subject]
        # The change is the hop's own: what it received it has validated before.
        assert ours(case) == dkimpy(case) == status
        validated = case
        case = case._replace(fields=fields, body=case.body + b"footer %d\r\n" % number)
        if sealer == "ours":
            case = seal_changed_with_ours(validated, case, HOPS[number], status)
        else:
            case = SEALERS[sealer](case, HOPS[number], status)
        status = "pass"
    assert ours(case) == dkimpy(case) == "pass"
    assert (
        ours(case._replace(body=case.body + b"x")) == dkimpy(case._replace(body=case.body + b"x")) == "fail"
    )


def seal_changed_with_ours(received: Case, leaving: Case, hop: ArcForge, status: str) -> Case:
    """Validate what came, seal what leaves."""
    validation = plan_validation(received.fields, now())
    hashes = BodyHashes(validation.body_hashes)
    hashes.feed(received.body)
    answers = {name: Answer(Outcome.FOUND, (record,)) for name, record in RECORDS.items()}
    result = validation.finish(answers, hashes.finish())
    assert result.status.value == status
    signer = Signer(hop.domain, hop.selector, load_private_key(hop.key.pem))
    sealing = plan_sealing(leaving.fields, validation, signer, now())
    assert not isinstance(sealing, str)
    hashes = BodyHashes([sealing.body_hash])
    hashes.feed(leaving.body)
    payload = format_results(b"mx." + hop.domain, [Result("arc", status)])
    made = sealing.finish(result, hashes.finish()[sealing.body_hash], payload)
    assert not isinstance(made, str)
    crlf = [HeaderField(name, value.replace(b"\n", b"\r\n")) for name, value in made]
    return leaving._replace(fields=[*crlf, *leaving.fields])


# Where they differ, and why ours is right.


def one(
    ams: bytes = AMS,
    seal: bytes = AS,
    *,
    body: bytes = BODY,
    fields: list[HeaderField] = FIELDS,
    **kwargs: Any,
) -> Case:
    return Case(HOPS[0].seal(fields, body, ams=ams, seal=seal, **kwargs), body, RECORDS)


def two(ams: bytes = AMS, seal: bytes = AS, **kwargs: Any) -> Case:
    """A chain whose older set is as told."""
    case = one(ams, seal, **kwargs)
    return case._replace(fields=HOPS[1].seal(case.fields, case.body, seal=AS))


def with_aar(change: Callable[[bytes], bytes]) -> Case:
    """A set whose results are changed before they are sealed."""
    sealed = HOPS[0].seal(FIELDS, BODY, seal=AS)
    aar = sealed[2]._replace(value=change(sealed[2].value))
    seal = HOPS[0]._seal([aar, sealed[1]], HOPS[0]._fill(AS, b"1", b"none"))
    return Case([seal, sealed[1], aar, *FIELDS], BODY, RECORDS)


def many_sets() -> Case:
    fields = FIELDS
    for _ in range(51):
        fields = HOPS[0].seal(fields, BODY, seal=AS)
    return Case(fields, BODY, RECORDS)


def ed25519() -> Case:
    hop = ArcForge(ed25519_key())
    return Case(hop.seal(FIELDS, BODY, seal=AS), BODY, {hop.key_name: hop.key.record})


def u_label() -> Case:
    hop = ArcForge(rsa_key(), "münchen.example".encode())
    return Case(
        hop.seal(FIELDS, BODY, seal=AS), BODY, {b"sel._domainkey.xn--mnchen-3ya.example": hop.key.record}
    )


def top_level() -> Case:
    hop = ArcForge(rsa_key(), b"example")
    return Case(hop.seal(FIELDS, BODY, seal=AS), BODY, {hop.key_name: hop.key.record})


def arc_values(case: Case) -> list[bytes]:
    return [field.value for field in case.fields if field.name.lower().startswith(b"arc-")]


def has_odd_instance(case: Case) -> bool:
    """Tell whether one of the fields does not begin with its instance as everybody writes it."""
    return not all(re.match(rb"\s*i=[1-9][0-9]?;", value) for value in arc_values(case))


def is_in_order(case: Case) -> bool:
    """Tell whether of each kind the newest field is on top."""
    for kind in KINDS:
        instances = [instance_of(field) for field in case.fields if field.name.lower() == kind]
        if instances != sorted(instances, reverse=True):
            return False
    return True


DIFFERENCES = {
    "more than fifty sets": Difference("RFC 8617 §4.2.1, §5.2 step 1: the chain fails", many_sets, False),
    "an instance of three digits": Difference(
        "RFC 8617 §3.9: position = 1*2DIGIT",
        lambda: one(AMS.replace(b"%I%", b"001"), AS.replace(b"%I%", b"001"), instance=b"001"),
        False,
        has_odd_instance,
    ),
    "results whose instance is not in front": Difference(
        "RFC 8617 §4.1.1: arc-info = instance [CFWS] ';' authres-payload",
        lambda: with_aar(lambda _: b" mx.example; dkim=pass header.i=1; x"),
        False,
        has_odd_instance,
    ),
    "results without the semicolon after the instance": Difference(
        "RFC 8617 §4.1.1: arc-info = instance [CFWS] ';' authres-payload",
        lambda: with_aar(lambda value: value.replace(b";", b"", 1)),
        False,
        has_odd_instance,
    ),
    "a field that belongs to no set": Difference(
        "RFC 8617 §3.9, §4.1.3: each field has an instance; what cannot be put in its place breaks the chain",
        lambda: Case([HeaderField(b"ARC-Seal", b" a=rsa-sha256"), *one().fields], BODY, RECORDS),
        False,
        has_odd_instance,
    ),
    "sets in another order than they were added": Difference(
        "RFC 8617 §5.1.1: seals cover fields in increasing instance order, wherever those stand",
        lambda: two()._replace(fields=[*two().fields[3:], *two().fields[:3]]),
        True,
        lambda case: not is_in_order(case),
    ),
    "blanks within i=": Difference(
        "RFC 8617 §3.9: instance = [CFWS] 'i' [CFWS] '=' [CFWS] position",
        lambda: one(AMS.replace(b"i=%I%", b"i = %I%")),
        True,
        has_odd_instance,
    ),
    "a fold before i=": Difference(
        "RFC 8617 §4.1.2: 'ARC-Message-Signature:' [CFWS] arc-ams-info",
        lambda: one(AMS.replace(b" i=%I%", b"\r\n\ti=%I%")),
        True,
        has_odd_instance,
    ),
    "cv=NONE": Difference(
        "RFC 8617 §3.9, RFC 5234 §2.3: strings of ABNF ignore case, unless they have a %s",
        lambda: one(cv=b"NONE"),
        True,
    ),
    "ed25519-sha256": Difference("RFC 8463 §3, RFC 8617 §4.1.3: a= is that of DKIM", ed25519, True),
    "v= in the message signature": Difference(
        "RFC 8617 §4.1.2: if seen, a version tag must be ignored", lambda: one(AMS + b"; v=2"), True
    ),
    "v= in the seal": Difference(
        "RFC 6376 §3.2: unrecognized tags must be ignored", lambda: one(seal=AS + b"; v=2"), True
    ),
    "bh= in the seal": Difference(
        "RFC 8617 §4.1.3: there is no bh= tag; RFC 6376 §3.2: unrecognized tags must be ignored",
        lambda: one(seal=AS + b"; bh=AAAA"),
        True,
    ),
    "c=simple in the seal": Difference(
        "RFC 8617 §4.1.3: only relaxed is used",
        lambda: one(seal=AS.replace(b" cv", b"  c=simple/simple; cv")),
        True,
    ),
    "a seal from the future": Difference(
        "RFC 6376 §3.5, t=: may be ignored; a chain that is broken for a clock stays broken",
        lambda: one(seal=AS.replace(b"t=1", b"t=9")),
        True,
    ),
    "an older message signature that nobody can verify": Difference(
        "RFC 8617 §5.2 steps 4 and 5: only the newest must validate",
        lambda: two(AMS.replace(b"a=%A%", b"a=rsa-sha1")),
        True,
    ),
    "a failed seal below a good one": Difference(
        "RFC 8617 §5.2 step 3: it fails, and dkimpy has no word for it; both do not pass",
        lambda: two(cv=b"fail"),
        False,
    ),
    "l= below the length of the body": Difference(
        "RFC 6376 §6.1.3 and §8.2: a verifier may treat what goes on after l= as unsigned content",
        lambda: one(AMS + b"; l=2"),
        False,
    ),
    "an expired signature, by less than ten hours": Difference(
        "RFC 6376 §3.5, x=: invalid past that date, with some room for clocks; ours is five minutes",
        lambda: one(AMS + b"; x=%d" % (now() - 3600)),
        False,
    ),
    "a message signature from the future, by less than ten hours": Difference(
        "RFC 6376 §3.5, t=: may be ignored", lambda: one(AMS + b"; t=%d" % (now() + 3600)), False
    ),
    "a U-label in d=": Difference("RFC 8617 §4.1.4: d= and s= can contain U-labels", u_label, True),
    "a top-level domain as d=": Difference(
        "RFC 6376 §3.5, d=: sub-domain 1*('.' sub-domain)", top_level, False
    ),
    # What is hashed, as with DKIM.
    "a bare LF in the body": Difference(
        "RFC 6376 §3.4.3, §3.4.4 and §5.3: lines end with CRLF, other octets stay as they are",
        lambda: one(body=b"a\nb\r\n"),
        True,
        lambda case: re.search(rb"(?<!\r)\n", case.body),
    ),
    "blanks at the end of a last line without CRLF": Difference(
        "RFC 6376 §3.4.4: (a) white space at the end of lines goes, (b) then a missing CRLF is added",
        lambda: one(body=b"body \t"),
        True,
        lambda case: case.body.endswith((b" ", b"\t")),
    ),
    "blanks after the value of b=": Difference(
        "RFC 6376 §3.7 step 2: the value is deleted with all surrounding white space",
        lambda: one(AMS + b" \t; z=x"),
        True,
        lambda case: any(re.search(rb"[;\s]b\s*=[^;]*?\s(;|\Z)", value) for value in arc_values(case)),
    ),
    "a blank before the colon": Difference(
        "RFC 6376 §3.4.2: white space before the colon is deleted (RFC 5322 §4.5 has such fields)",
        lambda: one(fields=[HeaderField(b"From ", b" a@example.org"), *FIELDS[1:]]),
        True,
        lambda case: any(field.name.endswith(b" ") for field in case.fields),
    ),
    "base64 without its padding": Difference(
        "RFC 6376 §2.10: the padding of a base64string is optional",
        lambda: one(AMS.replace(b"bh=%BH%; b=%B%", b"b=%B%; bh=%BH%"), body=BODY)._replace(
            fields=unpadded(), body=BODY
        ),
        True,
        lambda case: any(re.search(rb"[^=\s]{43}(;|\Z)", value) for value in arc_values(case)),
    ),
}


def unpadded() -> list[HeaderField]:
    """The padding of a seal's b= is what no other signature covers, where it is the newest."""
    seal, *others = HOPS[0].seal(FIELDS, BODY, seal=AS)
    assert seal.value.endswith(b"=")
    return [seal._replace(value=seal.value.rstrip(b"=")), *others]


SAME_STATUS = {"a failed seal below a good one"}


@pytest.mark.parametrize("name", [name for name in DIFFERENCES if name not in SAME_STATUS])
def test_an_example_shows_the_difference(name):
    difference = DIFFERENCES[name]
    case = difference.example()
    assert difference.why.startswith("RFC ")
    assert (ours(case) == "pass") is difference.pass_of_ours
    assert (dkimpy(case) == "pass") is not difference.pass_of_ours


# Random chains, and what happens to them.


def change_value(random: Random, case: Case) -> Case:
    index = random.randrange(len(case.fields))
    name, value = case.fields[index]
    at = random.randint(0, len(value))
    piece = random.choice([b"x", b" ", b"\t", b"\r\n ", b";", b"=", b"1", b""])
    changed = value[:at] + piece + value[at + random.randint(0, 1) :]
    changed = re.sub(rb"\r\n[ \t]*(?=\r\n|\Z)|\r(?!\n)|(?<!\r)\n(?![ \t])|\r\n(?![ \t])", b"", changed)
    changed = re.sub(rb"(?<!\r)\n", b"\r\n", changed)
    return case._replace(fields=[*case.fields[:index], HeaderField(name, changed), *case.fields[index + 1 :]])


def remove_field(random: Random, case: Case) -> Case:
    fields = [*case.fields]
    del fields[random.randrange(len(fields))]
    return case._replace(fields=fields)


def double_field(random: Random, case: Case) -> Case:
    fields = [*case.fields]
    fields.insert(random.randint(0, len(fields)), random.choice(fields))
    return case._replace(fields=fields)


def change_body(random: Random, case: Case) -> Case:
    at = random.randint(0, len(case.body))
    piece = random.choice([b"x", b" ", b"\t", b"\r\n", b"\r\n\r\n", b""])
    return case._replace(body=case.body[:at] + piece + case.body[at + random.choice((0, 0, 1, 2)) :])


def another_key(random: Random, case: Case) -> Case:
    name = random.choice([*case.records])
    return case._replace(records=case.records | {name: random.choice([rsa_key(1024, 8).record, b"p=", b"x"])})


def change_tag(random: Random, case: Case) -> Case:
    """Change what a tag says, unsigned: of the newest seal only t= and unknown tags are not to be changed."""
    index = random.choice(
        [index for index, field in enumerate(case.fields) if field.name[:4].upper() == b"ARC-"]
    )
    name, value = case.fields[index]
    before, after = random.choice(
        [(b"i=1", b"i=2"), (b"i=2", b"i=1"), (b"i=3", b"i=4"), (b"cv=pass", b"cv=none"), (b"cv=none", b"cv=pass"),
         (b"cv=pass", b"cv=fail"), (b"rsa-sha256", b"rsa-sha1"), (b"hop1", b"hop0"), (b"h=", b"hh="), (b"d=", b"D=")]
    )  # fmt: skip
    changed = HeaderField(name, value.replace(before, after, 1))
    return case._replace(fields=[*case.fields[:index], changed, *case.fields[index + 1 :]])


CHANGES: list[Callable[[Random, Case], Case]] = [
    *(change_value, change_value, change_value, remove_field, double_field, swap_fields, swap_fields),
    *(rename_field, change_body, change_body, another_key, change_tag, change_tag),
]


def random_templates(random: Random) -> tuple[bytes, bytes]:
    c = random.choice(
        [b"simple/simple", b"simple/relaxed", b"relaxed/simple", b"relaxed/relaxed", b"relaxed"]
    )
    names = [random.choice([b"from", b"From", b"to", b"subject", b"date", b"list-id"]) for _ in range(5)]
    fold = random.choice([b" ", b"\r\n\t", b"\r\n   "])
    ams = AMS.replace(b"relaxed/relaxed", c).replace(b"from:to:subject", b":".join([b"from", *names]))
    ams = ams.replace(b"; ", b";" + fold)
    seal = AS.replace(b"; ", b";" + fold)
    if random.random() < 0.3:
        ams, seal = ams + b";", seal + b"; unknown=1"
    return ams, seal


def random_chain(random: Random) -> Case:
    case = Case(FIELDS, random.choice([BODY, b"", b"x\r\n", b"no line end", b"a \r\n\r\n\r\n"]), RECORDS)
    for hop in HOPS[: random.choice((1, 2, 2, 3))]:
        if random.random() < 0.2:
            case = seal_with_ours(case, hop, ours(case))
        else:
            ams, seal = random_templates(random)
            case = case._replace(fields=hop.seal(case.fields, case.body, ams=ams, seal=seal))
        if random.random() < 0.3:
            case = case._replace(fields=[HeaderField(b"Received", b" x"), *case.fields])
    return case


def compare(case: Case, counts: Counter[str]) -> None:
    """Hold that both say the same, or that a difference explains why not."""
    found, theirs = ours(case), dkimpy(case)
    counts["chains"] += 1
    counts[found] += 1
    hold_same_or_explained(case, found, theirs, DIFFERENCES, counts)


def test_chains_of_any_shape():
    random = Random("chains")
    counts: Counter[str] = Counter()
    for _ in range(250):
        case = random_chain(random)
        assert ours(case) == "pass", bytes(case)
        compare(case, counts)
        for _ in range(3):
            changed = case
            for _ in range(random.choice((1, 1, 2))):
                changed = random.choice(CHANGES)(random, changed)
            compare(changed, counts)
    assert counts["chains"] == 1000
    assert counts["pass"] > 350  # so that no word is the only one
    assert counts["fail"] > 350
    assert counts["differed"] < 100, counts


def test_chains_of_dkimpy():
    """dkimpy takes 50 ms for a hop: a few chains, each changed in many ways."""
    random = Random("dkimpy")
    counts: Counter[str] = Counter()
    for _ in range(8):
        case = Case(FIELDS, BODY, RECORDS)
        for number, hop in enumerate(HOPS):
            case = seal_with_dkimpy(case, hop, "pass" if number else "none")
        assert ours(case) == "pass"
        for _ in range(25):
            compare(random.choice(CHANGES)(random, case), counts)
    assert counts["pass"] > 30
    assert counts["fail"] > 60


def test_a_chain_that_failed_is_sealed_alike():
    """dkimpy says no more of it than that it has ended, to which both agree."""
    broken = one()._replace(body=b"another\r\n")
    for sealer in (seal_with_ours, seal_with_dkimpy):
        case = sealer(broken, HOPS[1], "fail")
        assert ours(case) == dkimpy(case) == "fail"
        assert plan_validation(case.fields, now()).ended
    message = Message(case.fields, case.body)
    assert isinstance(
        plan_sealing(
            message.fields,
            plan_validation(message.fields, now()),
            Signer(b"hop2.example", b"s2", load_private_key(HOPS[2].key.pem)),
            now(),
        ),
        str,
    )
