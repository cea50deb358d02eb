"""ARC: what holds for any chain, any message and any way down."""

from __future__ import annotations

import base64
import re

from hypothesis import assume, given, settings
from hypothesis import strategies as st

from harness.arc_forge import AMS, AS, ArcForge
from harness.dkim_forge import canonical_body, canonical_field, rsa_key
from srsd.arc.result import ArcResult, ArcSet, ChainStatus
from srsd.arc.seal import plan_sealing
from srsd.arc.trust import vouching_sealer
from srsd.arc.validate import plan_validation
from srsd.crypto import KeyType, generate_key
from srsd.dkim.canonicalization import BodyHashes
from srsd.dkim.sign import Signer
from srsd.resolving import Answer, Outcome
from srsd.syntax.header import HeaderField

NOW = 1_800_000_000
KEY = generate_key(KeyType.RSA, 1024)
SIGNER = Signer(b"sealer.example", b"sel", KEY)
FORGE = ArcForge(rsa_key())
KEY_NAME = b"sel._domainkey.sealer.example"
RECORD = b"v=DKIM1; k=rsa; p=" + base64.b64encode(KEY.public_octets())

BODIES = st.lists(
    st.sampled_from([b" ", b"\t", b"\r\n", b"\r", b"\n", b"a", b"word", b"\0", b"\xff"])
    | st.binary(max_size=5),
    max_size=40,
).map(b"".join)
NAMES = st.sampled_from([b"to", b"Subject", b"X", b"List-Id", b"DKIM-Signature", b"Date", b"Received"])
VALUES = st.lists(
    st.sampled_from([b" ", b"\t", b"  ", b"\r\n ", b"\n\t", b"a", b"b c", b"\r", b"\xff", b":", b";"]),
    max_size=12,
).map(b"".join)
FIELDS = st.lists(st.builds(HeaderField, NAMES, VALUES), max_size=8).map(
    lambda fields: [HeaderField(b"From", b" a@example.org"), *fields]
)
PAYLOADS = st.binary(max_size=60).map(lambda octets: b" mx;" + octets.replace(b"\n", b"\n\t"))


def validate(fields: list[HeaderField], body: bytes, record: bytes = RECORD) -> ArcResult:
    plan = plan_validation(fields, NOW)
    hashes = BodyHashes(plan.body_hashes)
    hashes.feed(body)
    answers = {name: Answer(Outcome.FOUND, (record,)) for name in plan.key_names}
    return plan.finish(answers, hashes.finish())


def seal(fields: list[HeaderField], body: bytes, payload: bytes) -> list[HeaderField] | str:
    validation = plan_validation(fields, NOW)
    sealing = plan_sealing(fields, validation, SIGNER, NOW)
    if isinstance(sealing, str):
        return sealing
    hashes = BodyHashes(validation.body_hashes | {sealing.body_hash})
    hashes.feed(body)
    found = hashes.finish()
    answers = {KEY_NAME: Answer(Outcome.FOUND, (RECORD,))}
    made = sealing.finish(validation.finish(answers, found), found[sealing.body_hash], payload)
    assert not isinstance(made, str)
    return [*made, *fields]


@given(FIELDS, BODIES, st.lists(st.tuples(PAYLOADS, st.booleans()), min_size=1, max_size=5))
def test_what_is_sealed_validates(fields, body, hops):
    for number, (payload, travels) in enumerate(hops, 1):
        sealed = seal(fields, body, payload)
        assert not isinstance(sealed, str)
        fields = sealed
        if travels:  # over SMTP, where lines end with CRLF, and through those who trace
            fields = [HeaderField(name, re.sub(rb"\r?\n", b"\r\n", value)) for name, value in fields]
            fields = [HeaderField(b"Received", b" x"), *fields]
        result = validate(fields, body)
        assert (result.status, result.oldest_pass) == (ChainStatus.PASS, 0)
        assert [each.instance for each in result.sets] == list(range(1, number + 1))
        assert all(each.domain == b"sealer.example" and each.signs_from for each in result.sets)


@given(FIELDS, BODIES, st.integers(1, 3), st.data())
@settings(max_examples=200)
def test_no_octet_that_counts_can_change(fields, body, hops, data):
    """The sets are relaxed, the message is simple: what remains the same then is the same."""
    fields = [field for field in fields if field.name in (b"From", b"X")]
    names = b":".join(field.name for field in fields)
    ams = AMS.replace(b"relaxed/relaxed", b"simple/simple").replace(b"from:to:subject", names)
    for _ in range(hops):
        fields = FORGE.seal(fields, body, ams=ams)
    record = FORGE.key.record
    assert validate(fields, body, record).status is ChainStatus.PASS
    index = data.draw(st.integers(0, len(fields)))
    if index == len(fields):
        damaged = damage(body, data)
        assume(canonical_body(damaged, b"simple") != canonical_body(body, b"simple"))
        assert validate(fields, damaged, record).status is ChainStatus.FAIL
        return
    name, value = fields[index]
    other = HeaderField(name, damage(value, data))
    of_arc = name.startswith(b"ARC-")
    c = b"relaxed" if of_arc and index != 1 else b"simple"  # the newest AMS covers itself, too
    assume(canonical_field(other, c) != canonical_field(fields[index], c))
    if index in (0, 1):  # other white space in the b= of the newest, and its padding, say the same
        assume(re.sub(rb"[\s=]", b"", other.value) != re.sub(rb"[\s=]", b"", value))
    assert validate([*fields[:index], other, *fields[index + 1 :]], body, record).status is ChainStatus.FAIL


def damage(text: bytes, data) -> bytes:
    at = data.draw(st.integers(0, len(text)))
    width = data.draw(st.integers(0, 1))
    return text[:at] + data.draw(st.binary(max_size=1)) + text[at + width :]


# The structure, against the words of RFC 8617 §5.2 as they stand.

KINDS = (b"ARC-Authentication-Results", b"ARC-Message-Signature", b"ARC-Seal")
PLACES = st.lists(
    st.tuples(st.sampled_from(KINDS), st.integers(0, 4), st.sampled_from([b"none", b"pass", b"fail", b"x"])),
    max_size=12,
)


def unsigned(kind: bytes, instance: int, status: bytes) -> HeaderField:
    template = {KINDS[0]: b" i=%I%; mx; none", KINDS[1]: AMS, KINDS[2]: AS}[kind]
    return HeaderField(kind, FORGE._fill(template, b"%d" % instance, status).replace(b"%B%", b"A" * 172))


def is_chain(places: list[tuple[bytes, int, bytes]]) -> bool:
    highest = max(instance for _, instance, _ in places)
    wanted = sorted((kind, instance) for kind in KINDS for instance in range(1, highest + 1))
    if sorted((kind, instance) for kind, instance, _ in places) != wanted:
        return False
    statuses = {instance: status for kind, instance, status in places if kind == KINDS[2]}
    return all(status == (b"none" if instance == 1 else b"pass") for instance, status in statuses.items())


def whole(highest: int) -> list[tuple[bytes, int, bytes]]:
    return [
        (kind, instance, b"none" if instance == 1 else b"pass")
        for instance in range(1, highest + 1)
        for kind in KINDS
    ]


@given(PLACES | st.integers(1, 4).map(whole).flatmap(st.permutations))
@settings(max_examples=400)
def test_only_a_chain_is_looked_at(places):
    fields = [unsigned(*place) for place in places]
    fields = [HeaderField(name, value.replace(b"%BH%", b"A" * 43)) for name, value in fields]
    plan = plan_validation(fields, NOW)
    result = plan.finish({}, {key: hash_of(b"") for key in plan.body_hashes})
    if not places:
        assert result.status is ChainStatus.NONE
        return
    assert result.status is ChainStatus.FAIL
    assert bool(plan.key_names) is is_chain(places)
    highest = max(instance for _, instance, _ in places)
    assert plan.highest_instance == highest
    ended = (KINDS[2], highest, b"fail") in places
    assert plan.ended is ended
    assert isinstance(plan_sealing(fields, plan, SIGNER, NOW), str) is ended


def hash_of(body: bytes):
    hashes = BodyHashes(plan_validation(FORGE.seal([HeaderField(b"From", b"x")], b""), NOW).body_hashes)
    hashes.feed(body)
    (found,) = hashes.finish().values()
    return found


# The way down.

DOMAINS = st.sampled_from([b"good.example", b"fine.example", b"evil.example"])
TRUSTED = frozenset({b"good.example", b"fine.example"})
SAYS = st.sampled_from(
    [b" mx; dmarc=pass header.from=bank.example", b" mx; dmarc=fail header.from=bank.example", b" mx; none",
     b" mx; dmarc=pass header.from=other.example"]
)  # fmt: skip
SETS = st.lists(st.tuples(DOMAINS, DOMAINS, st.booleans(), SAYS), max_size=6).map(
    lambda sets: tuple(
        ArcSet(number, domain, b"s", domain if same else other, signs_from=number % 5 != 0, payload=says)
        for number, (domain, other, same, says) in enumerate(sets, 1)
    )
)


@given(SETS)
def test_nobody_vouches_below_a_stranger(sets):
    found = vouching_sealer(ArcResult(ChainStatus.PASS, "", sets=sets), TRUSTED, b"bank.example")
    voucher = None
    for number in range(len(sets)):  # from the oldest: the newest that may vouch wins
        above = sets[number:]
        if all(
            each.domain in TRUSTED and each.signature_domain == each.domain and each.signs_from
            for each in above
        ) and sets[number].payload.endswith(b"=pass header.from=bank.example"):
            voucher = sets[number].domain
    assert found == voucher
    assert vouching_sealer(ArcResult(ChainStatus.FAIL, "", sets=sets), TRUSTED, b"bank.example") is None
    assert vouching_sealer(ArcResult(ChainStatus.PASS, "", sets=sets), frozenset(), b"bank.example") is None
