"""Validating a chain (RFC 8617 §5.2): what passes, what must not, and what it may cost."""

from __future__ import annotations

import time

import pytest

from harness.arc_forge import AMS, AS, PAYLOAD, ArcForge
from harness.dkim_forge import ed25519_key, rsa_key
from srsd.arc.result import ArcResult, ArcSet, ChainStatus
from srsd.arc.validate import OLDER_MAXIMUM, plan_validation
from srsd.authres import Result
from srsd.dkim.canonicalization import BodyHashes, BodyHashKey
from srsd.dkim.result import Reason
from srsd.resolving import Answer, Outcome
from srsd.syntax.header import HeaderField
from srsd.syntax.taglist import TagListFlaw

NOW = 1_800_000_000
FIELDS = [
    HeaderField(b"Received", b" from a.example\r\n\tby b.example"),
    HeaderField(b"From", b" Alice <alice@example.org>"),
    HeaderField(b"To", b" bob@example.net,\r\n  carol@example.net "),
    HeaderField(b"Subject", b" two  blanks\tand a tab "),
]
BODY = b"Hello,  Bob \r\n\r\nhow are\tyou?\r\n\r\n\r\n"
LONGER = BODY + b"-- \r\na list\r\n"
FIRST = ArcForge(rsa_key(), b"first.example", b"one")
SECOND = ArcForge(rsa_key(1024, 1), b"second.example", b"two")
THIRD = ArcForge(rsa_key(1024, 2), b"third.example", b"three")
ANSWERS = {forge.key_name: Answer(Outcome.FOUND, (forge.key.record,)) for forge in (FIRST, SECOND, THIRD)}
NO_ANSWER = Answer(Outcome.TIMED_OUT)


def validate(
    fields: list[HeaderField],
    body: bytes = BODY,
    answers: dict[bytes, Answer[bytes]] | None = None,
    *,
    now: int = NOW,
    minimum: int = 1024,
) -> ArcResult:
    plan = plan_validation(fields, now, minimum_key_bits=minimum)
    hashes = BodyHashes(plan.body_hashes)
    hashes.feed(body)
    return plan.finish(ANSWERS if answers is None else answers, hashes.finish())


def fails(fields: list[HeaderField], phrase: str, *args, **kwargs) -> None:
    result = validate(fields, *args, **kwargs)
    assert (result.status, result.phrase) == (ChainStatus.FAIL, phrase)
    assert result.oldest_pass is None
    assert not result.temporary


def passes(fields: list[HeaderField], *args, **kwargs) -> ArcResult:
    result = validate(fields, *args, **kwargs)
    assert (result.status, result.phrase) == (ChainStatus.PASS, "the chain is valid")
    return result


def replace(fields: list[HeaderField], index: int, before: bytes, after: bytes) -> list[HeaderField]:
    name, value = fields[index]
    assert before in value
    return [*fields[:index], HeaderField(name, value.replace(before, after)), *fields[index + 1 :]]


ONE = FIRST.seal(FIELDS, BODY)
TWO = SECOND.seal(ONE, BODY)
THREE = THIRD.seal(TWO, BODY)
SEAL, SIGNATURE, RESULTS = range(3)  # of the newest set; those of the one before it begin at 3


# What passes.


def test_no_chain():
    plan = plan_validation(FIELDS, NOW)
    assert plan.key_names == ()
    assert plan.body_hashes == frozenset()
    assert plan.finish({}, {}) == ArcResult(ChainStatus.NONE, "there is no chain")


def test_three_sets():
    plan = plan_validation(THREE, NOW)
    # The newest first; a key that several signatures want is asked for once.
    assert plan.key_names == (
        *(b"three._domainkey.third.example", b"two._domainkey.second.example"),
        b"one._domainkey.first.example",
    )
    assert plan.body_hashes == {BodyHashKey(b"relaxed")}
    result = passes(THREE)
    assert result.oldest_pass == 0
    assert result.sets == tuple(
        ArcSet(number, domain, selector, domain, True, PAYLOAD)
        for number, domain, selector in (
            (1, b"first.example", b"one"),
            (2, b"second.example", b"two"),
            (3, b"third.example", b"three"),
        )
    )
    assert result.sets[0].authentication_results is not None
    assert result.sets[0].authentication_results.results == (
        Result("spf", "pass", "", (("smtp", "mailfrom", b"a@example.org"),)),
        Result("dmarc", "pass", "", (("header", "from", b"example.org"),)),
    )


def test_the_order_of_fields_does_not_matter():
    passes([THREE[index] for index in (4, 2, 9, 8, 0, 1, 7, 6, 3, 5, *range(10, len(THREE)))])


def test_the_postfix_spelling_of_folds_is_the_same():
    spelt = [HeaderField(name, value.replace(b"\r\n", b"\n")) for name, value in THREE]
    assert spelt != THREE
    passes(spelt)


def test_names_in_any_case_and_with_a_blank():
    passes([HeaderField(name.upper() + b" ", value) for name, value in THREE])


@pytest.mark.parametrize("header", [b"simple", b"relaxed"])
@pytest.mark.parametrize("body", [b"simple", b"relaxed"])
def test_canonicalizations(header, body):
    ams = AMS.replace(b"relaxed/relaxed", header + b"/" + body)
    passes(SECOND.seal(FIRST.seal(FIELDS, BODY, ams=ams), BODY, ams=ams))


def test_ed25519():
    forge = ArcForge(ed25519_key())
    answers = ANSWERS | {forge.key_name: Answer(Outcome.FOUND, (forge.key.record,))}
    passes(forge.seal(ONE, BODY), answers=answers)


def test_a_payload_may_be_anything():
    """RFC 8617 §3.4: neither its accuracy nor its syntax matters."""
    result = passes(FIRST.seal(FIELDS, BODY, payload=b' ("((;\xff;i=2; cv=fail'))
    assert result.sets[0].authentication_results is None


@pytest.mark.parametrize(
    "position", [b"i=1;", b" i = 1 ;", b"\r\n\ti=\r\n 01;", b" (a;) (\\)) i(b)=(c)1(i=2)(;);"]
)
def test_the_instance_of_results_may_have_comments(position):
    fields = FIRST.seal(FIELDS, BODY)
    sealed = FIRST.seal(FIELDS, BODY)
    aar = HeaderField(b"ARC-Authentication-Results", position + PAYLOAD)
    signed = sealed[SIGNATURE]
    fields = [FIRST._seal([aar, signed], FIRST._fill(AS, b"1", b"none")), signed, aar, *FIELDS]
    assert passes(fields).sets[0].payload == PAYLOAD


@pytest.mark.parametrize(
    ("ams", "seal"),
    [
        (AMS.replace(b" i=%I%; a=%A%;", b" a=%A%; i = %I%;"), AS),
        (AMS.replace(b"i=%I%;", b"i=\r\n\t0%I%;"), AS),
        (AMS, AS.replace(b"cv=%CV%", b"cv = \r\n %CV%")),
        (AMS, AS.replace(b" t=1799999999;", b"")),
        (AMS, AS.replace(b" t=1799999999;", b" t=999999999999;")),  # §4.1.3 wants it to be a number
        (AMS + b"; v=7; unknown=x", AS + b"; v=7; unknown=x"),  # §4.1.2
        (AMS.replace(b"from:to:subject", b"From : To :\r\n\tSubject"), AS),
        (AMS.replace(b"from:to:subject", b"to"), AS),
        (AMS.replace(b"from:to:subject", b""), AS),
        (AMS.replace(b"from:to:subject", b"from:arc-authentication-results:arc-message-signature"), AS),
        (AMS + b"; x=1800000001", AS),
        (AMS + b"; q=dns/txt", AS),
        (AMS, AS + b"; q=http; x=1; l=x; bh=; c=; v="),  # §4.1.3 knows none of these
    ],
)
def test_ways_of_writing(ams, seal):
    passes(SECOND.seal(FIRST.seal(FIELDS, BODY, ams=ams, seal=seal), BODY, ams=ams, seal=seal))


def test_a_signature_never_covers_itself():
    """RFC 6376 §3.5: its own h= never means it; a second name of the kind means the set before."""
    ams = AMS.replace(b"h=from", b"h=arc-message-signature:from:arc-message-signature")
    one = FIRST.seal(FIELDS, BODY, ams=ams)
    passes(one)
    assert passes(SECOND.seal(one, BODY, ams=ams)).oldest_pass == 2  # that of set 1 now covers set 2's


@pytest.mark.parametrize("cv", [b"none", b"None", b"NONE"])
def test_the_status_in_any_case(cv):
    """RFC 8617 §3.9 and RFC 5234 §2.3: but for those with %s, strings of ABNF ignore case."""
    passes(FIRST.seal(FIELDS, BODY, cv=cv))


# The body and the header.


def test_only_the_newest_signature_must_verify():
    changed = [*FIELDS[:3], HeaderField(b"Subject", b" [list] hello")]
    sealed = SECOND.seal([*ONE[:3], *changed], LONGER)
    result = passes(sealed, LONGER)
    assert result.oldest_pass == 2
    assert passes(THIRD.seal(sealed, LONGER), LONGER).oldest_pass == 2


def test_a_changed_message_fails():
    fails(THREE, "AMS 3: the body hash did not verify", LONGER)
    for index in (10, 11, 12):
        fails(replace(THREE, index, b"", b"x"), "AMS 3: the signature did not verify")
    passes(replace(THREE, 9, b"a.example", b"x.example"))  # Received, which nobody signed


@pytest.mark.parametrize("index", range(9))
def test_no_field_of_any_set_can_change(index):
    """An AMS that is changed breaks its seal and those above, but no newer AMS."""
    if index % 3 == RESULTS:
        changed = replace(THREE, index, b"spf=pass", b"spf=fail")
    else:
        changed = replace(THREE, index, b"; b=", b"; u=1; b=")
    result = validate(changed)
    assert result.status is ChainStatus.FAIL
    assert result.phrase == ("AMS 3" if index == SIGNATURE else "AS 3") + ": the signature did not verify"


@pytest.mark.parametrize("signer", [FIRST, SECOND, THIRD])
def test_each_seal_must_verify(signer):
    others = ANSWERS | {signer.key_name: Answer(Outcome.FOUND, (rsa_key(1024, 9).record,))}
    where = {FIRST: "AS 1", SECOND: "AS 2", THIRD: "AMS 3"}[signer]
    fails(THREE, f"{where}: the signature did not verify", answers=others)


def test_a_seal_covers_all_sets_before_it():
    fails(SECOND.seal(ONE, BODY, covered=[]), "AS 2: the signature did not verify")
    fails(SECOND.seal(ONE, BODY, covered=ONE[:3]), "AS 2: the signature did not verify")  # another order


def test_two_messages_cannot_lend_each_other_sets():
    other = FIRST.seal([HeaderField(b"From", b" x"), *FIELDS[2:]], BODY)
    fails([*TWO[:3], *other[:3], *FIELDS], "AS 2: the signature did not verify")


# The structure (§5.2 steps 1 to 3).


def drop(fields: list[HeaderField], index: int) -> list[HeaderField]:
    return [*fields[:index], *fields[index + 1 :]]


@pytest.mark.parametrize("number", [1, 2, 3])
@pytest.mark.parametrize(("kind", "index"), [("AS", SEAL), ("AMS", SIGNATURE), ("AAR", RESULTS)])
def test_each_set_has_each_field_once(number, kind, index):
    place = 3 * (3 - number) + index
    fails(drop(THREE, place), f"set {number} has no {kind}")
    fails([*THREE, THREE[place]], f"set {number} has more than one {kind}")
    fails([*THREE, replace(THREE, place, b"=", b" =")[place]], f"set {number} has more than one {kind}")


def test_gaps():
    fails(TWO[:3] + FIELDS, "set 1 has no AAR")
    fails(THREE[:3] + THREE[6:], "set 2 has no AAR")


@pytest.mark.parametrize("index", range(9))
@pytest.mark.parametrize(
    "instance",
    [b"", b"0", b"00", b"+1", b"-1", b"007", b"001", b"51", b"99", b"100", b"1.0", b"1 1", b"1e0", b"0x1",
     b"a", b"\xc2\xb9", b"\xd9\xa1", b"1,2", b"9" * 5000],
)  # fmt: skip
def test_instances(index, instance):
    number = b"%d" % (3 - index // 3)
    changed = replace(THREE, index, b" i=" + number + b";", b" i=" + instance + b";")
    kind = ["AS", "AMS", "AAR"][index % 3]
    fails(changed, f"an {kind} has no instance from 1 to 50")


@pytest.mark.parametrize(
    "value",
    [b"", b"i", b"=1;", b" lists.example.org; i=1;", b" i=1 lists.example.org;", b" I=1; x", b" (((i=1;", b" ii=1;",
     b" i=1", b" i=1,;", b" (a(b)) i=1; x", b" \xa0i=1; x"],
)  # fmt: skip
def test_results_without_an_instance(value):
    fails([*ONE[:2], ONE[RESULTS]._replace(value=value), *FIELDS], "an AAR has no instance from 1 to 50")


@pytest.mark.parametrize("field", ONE[:3])
def test_a_lonely_field_is_a_failed_chain(field):
    assert validate([field, *FIELDS]).status is ChainStatus.FAIL


@pytest.mark.parametrize(
    ("instance", "cv", "phrase"),
    [
        (1, b"pass", "AS 1: cv= is not none"),
        (2, b"none", "AS 2: cv= is not pass"),
        (1, b"fail", "the newest AS says that the chain failed before"),
        (2, b"fail", "the newest AS says that the chain failed before"),
        (2, b"FAIL", "the newest AS says that the chain failed before"),
        (1, b"", "AS 1: cv= is not none"),
        (2, b"passed", "AS 2: cv= is not pass"),
        (2, b"pass fail", "AS 2: cv= is not pass"),
    ],
)
def test_the_status_in_seals(instance, cv, phrase):
    fails(FIRST.seal(FIELDS, BODY, cv=cv) if instance == 1 else SECOND.seal(ONE, BODY, cv=cv), phrase)
    if b"fail" not in cv.lower():
        below = FIRST.seal(FIELDS, BODY, cv=cv) if instance == 1 else SECOND.seal(ONE, BODY, cv=cv)
        fails(THIRD.seal(below, BODY), phrase)


def test_a_failed_seal_below_is_no_end():
    """§5.2 step 2 looks at the newest one; any other has no place in a chain (step 3)."""
    fields = THIRD.seal(SECOND.seal(ONE, BODY, cv=b"fail"), BODY)
    fails(fields, "AS 2: cv= is not pass")
    assert not plan_validation(fields, NOW).ended


def test_fifty_sets_pass_and_no_more():
    fields = FIELDS
    for _ in range(50):
        fields = FIRST.seal(fields, BODY)
    result = passes(fields)
    assert [each.instance for each in result.sets] == list(range(1, 51))
    assert plan_validation(fields, NOW).key_names == (FIRST.key_name,)
    assert result.oldest_pass is None  # not determined: that many are not looked at
    fails(FIRST.seal(fields, BODY), "there are more than 50 sets")
    assert plan_validation(FIRST.seal(fields, BODY), NOW).highest_instance == 50


@pytest.mark.parametrize("name", [b"ARC-Seal", b"arc-message-signature", b"ARC-Authentication-Results "])
def test_more_than_fifty_of_one_kind(name):
    fails([*[HeaderField(name, b" i=1; x")] * 51, *FIELDS], "there are more than 50 sets")
    assert "more than 50" not in validate([*[HeaderField(name, b" i=1; x")] * 50, *FIELDS]).phrase


# The signatures' own fields.


@pytest.mark.parametrize(
    ("before", "after", "phrase"),
    [
        (b"; a=%A%", b"", "a required tag is missing (a=)"),
        (b"a=%A%", b"a=rsa-sha1", "rsa-sha1 is not secure"),
        (b"a=%A%", b"a=rsa-sha512", "the algorithm is unknown"),
        (b"d=%D%", b"d=", "a tag has an invalid value (d=)"),
        (b"d=%D%", b"d=example", "a tag has an invalid value (d=)"),
        (b"d=%D%", b"d=a_b;c.example", None),
        (b"s=%S%", b"s=a..b", "a tag has an invalid value (s=)"),
        (b"; s=%S%", b"", "a required tag is missing (s=)"),
        (b"b=%B%", b"b=", "a tag has an invalid value (b=)"),
        (b"b=%B%", b"b=!!!", "a tag has an invalid value (b=)"),
        (b"b=%B%", b"b=AAAA", "the signature did not verify"),
    ],
)
def test_flaws_of_both_signatures(before, after, phrase):
    flawed = AMS.replace(b"; ", b";").replace(b";", b"; ").replace(before, after)
    assert flawed != AMS
    result = validate(FIRST.seal(FIELDS, BODY, ams=flawed))
    assert (result.status, result.phrase) == (
        ChainStatus.FAIL,
        f"AMS 1: {phrase}" if phrase else
        "an AMS has no instance from 1 to 50 (something between semicolons that is not name=value)",
    )  # fmt: skip
    flawed = AS.replace(before, after)
    assert flawed != AS
    result = validate(FIRST.seal(FIELDS, BODY, seal=flawed))
    assert (result.status, result.phrase) == (
        ChainStatus.FAIL,
        f"AS 1: {phrase}" if phrase else
        "an AS has no instance from 1 to 50 (something between semicolons that is not name=value)",
    )  # fmt: skip


@pytest.mark.parametrize(
    ("before", "after", "phrase"),
    [
        (b"; bh=%BH%", b"", "a required tag is missing (bh=)"),
        (b"bh=%BH%", b"bh=AAAA", "a tag has an invalid value (bh=)"),
        (b"; h=from:to:subject", b"", "a required tag is missing (h=)"),
        (b"h=from", b"h=arc-seal:from", "a tag has an invalid value (h=)"),
        (b"h=from", b"h=ARC-Seal :from", "a tag has an invalid value (h=)"),
        (b"h=from", b"h=fr om", "a tag has an invalid value (h=)"),
        (b"c=relaxed/relaxed", b"c=nofws", "the canonicalization is unknown"),
        (b"b=%B%", b"b=%B%; l=9999", "l= is more than the body has"),
        (b"b=%B%", b"b=%B%; l=5", "the body goes on where l= ends"),
        (b"b=%B%", b"b=%B%; x=1799999699", "the signature has expired"),
        (b"b=%B%", b"b=%B%; x=1", "the signature has expired"),
        (b"b=%B%", b"b=%B%; t=1800000301", "the signature was made in the future"),
        (b"b=%B%", b"b=%B%; t=x", "a tag has an invalid value (t=)"),
        (b"b=%B%", b"b=%B%; q=http", "the key cannot be asked for in a known way"),
    ],
)
def test_flaws_of_message_signatures(before, after, phrase):
    flawed = AMS.replace(before, after)
    assert flawed != AMS
    fields = FIRST.seal(FIELDS, BODY, ams=flawed)
    fails(fields, f"AMS 1: {phrase}")
    # Of the older ones it only tells which is the oldest that passes.
    assert passes(SECOND.seal(fields, BODY)).oldest_pass == (None if b"l=" in after else 2)


@pytest.mark.parametrize(
    ("after", "phrase"),
    [
        (b"; h=from", "a tag has an invalid value (h=)"),
        (b"; h=", "a tag has an invalid value (h=)"),
        (b"; t=x", "a tag has an invalid value (t=)"),
        (b"; t=", "a tag has an invalid value (t=)"),
    ],
)
def test_flaws_of_seals(after, phrase):
    fields = FIRST.seal(FIELDS, BODY, seal=AS.replace(b" t=1799999999;", b"") + after)
    fails(fields, f"AS 1: {phrase}")
    fails(SECOND.seal(fields, BODY), f"AS 1: {phrase}")


def test_the_algorithm_and_the_key_belong_together():
    forge = ArcForge(ed25519_key())
    answers = {forge.key_name: Answer(Outcome.FOUND, (rsa_key().record,))}
    fails(forge.seal(FIELDS, BODY), "AMS 1: the key is not for the signature's algorithm", answers=answers)


def test_keys():
    name = FIRST.key_name
    record = FIRST.key.record
    for answer, phrase in (
        (Answer(Outcome.NX_DOMAIN), "there is no key (no such domain)"),
        (Answer(Outcome.NO_DATA), "there is no key (no such record)"),
        (Answer(Outcome.FOUND, (b"v=DKIM1; p=",)), "the key is revoked"),
        (Answer(Outcome.FOUND, (record, record)), "there are several TXT records where the key should be"),
    ):  # fmt: skip
        fails(ONE, f"AMS 1: {phrase}", answers={name: answer})
    fails(ONE, "AMS 1: the key is shorter than we accept (1024 of 2048 bits)", minimum=2048)
    passes(ONE, answers={name: Answer(Outcome.FOUND, (record.replace(b";", b"; t=s;", 1),))})


# DNS that does not answer (§5.2.1).


@pytest.mark.parametrize("outcome", [outcome for outcome in Outcome if outcome.temporary])
@pytest.mark.parametrize("signer", [FIRST, SECOND, THIRD])
def test_without_an_answer_the_chain_fails_for_now(outcome, signer):
    result = validate(THREE, answers=ANSWERS | {signer.key_name: Answer(outcome)})
    assert result.status is ChainStatus.FAIL
    assert result.temporary
    where = {FIRST: "AS 1", SECOND: "AS 2", THIRD: "AMS 3"}[signer]
    assert result.phrase == f"{where}: the key could not be asked for ({outcome.value})"


def test_a_name_that_was_not_asked_for_is_not_answered():
    assert validate(THREE, answers={}).temporary


def test_what_fails_anyhow_is_not_temporary():
    without = ANSWERS | {THIRD.key_name: NO_ANSWER}
    fails(THREE, "AMS 3: the body hash did not verify", LONGER, answers=without)
    fails(replace(THREE, 8, b"spf=pass", b"spf=fail"), "AS 2: the signature did not verify", answers=without)
    fails(drop(THREE, 4), "set 2 has no AMS", answers=without)


def test_oldest_pass_wants_answers_too():
    ams = AMS.replace(b"d=%D%", b"d=lost.example")
    fields = SECOND.seal(FIRST.seal(FIELDS, BODY, ams=ams), BODY)
    lost = {b"one._domainkey.lost.example": NO_ANSWER}
    assert passes(fields, answers=ANSWERS | lost).oldest_pass is None
    assert (
        passes(
            fields, answers=ANSWERS | {b"one._domainkey.lost.example": Answer(Outcome.NX_DOMAIN)}
        ).oldest_pass
        == 2
    )


# What it may cost.


def test_older_signatures_are_looked_at_up_to_a_limit():
    fields = FIELDS
    for number in range(OLDER_MAXIMUM + 1):
        c = [b"simple/relaxed", b"relaxed/simple"][number % 2]
        fields = FIRST.seal(fields, BODY, ams=AMS.replace(b"relaxed/relaxed", c))
    assert passes(fields).oldest_pass == 0
    more = FIRST.seal(fields, BODY)
    assert passes(more).oldest_pass is None
    broken = FIELDS
    for number in range(OLDER_MAXIMUM + 5):
        body = BODY if number > 6 else LONGER
        broken = FIRST.seal(broken, body)
    assert passes(broken).oldest_pass == 8


def test_older_signatures_never_want_other_hashes_than_the_two_of_the_whole_body():
    fields = FIELDS
    for number in range(30):
        fields = FIRST.seal(fields, BODY, ams=AMS + b"; l=%d" % number)
    plan = plan_validation(FIRST.seal(fields, BODY), NOW)
    assert plan.body_hashes == {BodyHashKey(b"relaxed")}


def test_names_are_bounded():
    """RFC 8617 §9.2: two names a set at most, and far fewer here."""
    fields = FIELDS
    for number in range(50):
        forge = ArcForge(rsa_key(), b"d%d.example" % number)
        fields = forge.seal(fields, BODY, ams=AMS.replace(b"s=%S%", b"s=other"))
    assert len(plan_validation(fields, NOW).key_names) == 50 + 1 + OLDER_MAXIMUM


def spent(work) -> float:
    began = time.process_time()
    work()
    return time.process_time() - began


def test_fifty_sets_are_cheap():
    fields = FIELDS
    forges = [ArcForge(rsa_key(1024, number % 4), b"d%d.example" % number) for number in range(50)]
    for forge in forges:
        fields = forge.seal(fields, BODY)
    answers = {forge.key_name: Answer(Outcome.FOUND, (forge.key.record,)) for forge in forges}
    passes(fields, answers=answers)
    assert spent(lambda: passes(fields, answers=answers)) < 0.25  # about 0.005


@pytest.mark.parametrize(
    "fields",
    [
        [HeaderField(b"ARC-Seal", b" i=1; a=rsa-sha256")] * 10_000,
        [HeaderField(b"ARC-Authentication-Results", b" i=%d; x" % number) for number in range(10_000)],
        [HeaderField(b"ARC-Authentication-Results", b"(" * 60_000)] * 50,
        [HeaderField(b"ARC-Authentication-Results", b"(\\" * 30_000)] * 50,
        [HeaderField(b"ARC-Authentication-Results", b"()" * 30_000)] * 50,
        [HeaderField(b"ARC-Authentication-Results", b" \r\n" * 20_000 + b"i=1")] * 50,
        [HeaderField(b"ARC-Message-Signature", b"i=1;" + b" " * 60_000)] * 50,
        [HeaderField(b"ARC-Message-Signature", b"a=;" * 20_000)] * 50,
        [HeaderField(b"ARC-Seal", b" i=1; b=" + b"A " * 30_000)] * 50,
        [HeaderField(b"ARC-Seal", b" i=" + b"1" * 60_000)] * 50,
        [HeaderField(b"ARC-Message-Signature", b" i=1; d=" + "é.".encode() * 20_000)] * 50,
    ],
    ids=range(11),
)
def test_hostile_fields_take_linear_time(fields):
    assert spent(lambda: validate([*fields, *FIELDS])) < 2  # squares take minutes


def test_hostile_chains_take_linear_time():
    """Complete sets as large as they come, each naming fields by the ten thousand; nothing verifies."""
    fields = [HeaderField(b"X%d" % number, b" x " * 300) for number in range(100)]
    names = b":".join([b"x%d" % (number % 100) for number in range(10_000)])
    for number in range(1, 51):
        cv = b"none" if number == 1 else b"pass"
        ams = b" i=%d; a=rsa-sha256; d=a.example; s=s; h=%b; bh=%b; b=AAAA" % (number, names, b"A" * 43)
        fields += [
            HeaderField(b"ARC-Authentication-Results", b" i=%d;" % number + b" " * 50_000),
            HeaderField(b"ARC-Message-Signature", ams),
            HeaderField(b"ARC-Seal", b" i=%d; cv=%b; a=rsa-sha256; d=a.example; s=s; b=AAAA" % (number, cv)),
        ]
    assert validate(fields).phrase == "AMS 50: the body hash did not verify"
    assert spent(lambda: validate(fields)) < 2  # about 0.05


def test_a_field_that_is_too_long():
    long = b"; z=" + b"x" * 70_000
    fails(replace(ONE, SIGNATURE, b"; b=", long + b"; b="), "an AMS has no instance from 1 to 50")
    fails(replace(ONE, SEAL, b"; b=", long + b"; b="), "an AS has no instance from 1 to 50")
    fails(replace(ONE, RESULTS, b";\r\n", long + b";\r\n"), "an AAR has no instance from 1 to 50")


def test_phrases_are_fit_for_print():
    seen = set()
    for fields in (FIELDS, ONE, drop(THREE, 4), [*ONE, ONE[0]], SECOND.seal(ONE, BODY, cv=b"fail")):
        for answers in (ANSWERS, {}):
            for body in (BODY, LONGER):
                seen.add(validate(fields, body, answers).phrase)
    assert len(seen) > 6
    for phrase in seen:
        assert phrase.isascii()
        assert phrase.isprintable()
        assert not set(phrase) & set('"\\;')
        assert len(phrase) < 100


def test_phrases_are_short_whatever_they_are_about():
    about = {
        Reason.MALFORMED: TagListFlaw,
        Reason.KEY_MALFORMED: TagListFlaw,
        Reason.KEY_UNAVAILABLE: Outcome,
    }
    longest = max(len(reason.phrase_with(each.value)) for reason, kind in about.items() for each in kind)
    assert len("AMS 50: ") + max(longest, *(len(reason.phrase) + 25 for reason in Reason)) < 100
    assert len("an AMS has no instance from 1 to 50 ()") + max(len(each.value) for each in TagListFlaw) < 100


# Who signs From.


@pytest.mark.parametrize(
    ("names", "added", "signs"),
    [
        (b"from:to", [], True),
        (b"to:FROM", [], True),
        (b"to", [], False),
        (b"from:from", [HeaderField(b"From", b" x@evil.example")], True),
        (b"to", [HeaderField(b"From", b" x@evil.example")], False),
    ],
)
def test_whether_from_is_signed(names, added, signs):
    ams = AMS.replace(b"from:to:subject", names)
    below = [*added, *FIELDS]
    (arc_set,) = passes(FIRST.seal(below, BODY, ams=ams)).sets
    assert arc_set.signs_from is signs


def test_without_from_nothing_signs_it():
    for names in (b"to", b"from:to"):
        ams = AMS.replace(b"from:to:subject", names)
        (arc_set,) = passes(FIRST.seal(FIELDS[2:], BODY, ams=ams)).sets
        assert arc_set.signs_from is (names == b"from:to")


@pytest.mark.parametrize("place", [0, 4, len(ONE)])
def test_a_second_from_is_not_signed(place):
    """RFC 6376 §8.15: readers may show the one that nobody signed."""
    second = HeaderField(b"From", b" x@evil.example")
    fails([*ONE[:place], second, *ONE[place:]], "AMS 1: there is a From field that is not signed")
    signed = FIRST.seal([second, *FIELDS], BODY)
    fails(signed, "AMS 1: there is a From field that is not signed")
    assert passes(SECOND.seal(signed, BODY, ams=AMS.replace(b"h=from:", b"h=from:from:"))).oldest_pass == 2
