"""DMARC records: what is one, what its tags say, and what its faults do (RFC 9989 §4.7, §4.8, §4.10.1)."""

from __future__ import annotations

from time import process_time

import pytest

from srsd.dmarc.record import DmarcRecord, Policy, PublicSuffix, parse_record

NONE, QUARANTINE, REJECT = Policy.NONE, Policy.QUARANTINE, Policy.REJECT


def parsed(text: bytes) -> DmarcRecord:
    record = parse_record(text)
    assert record is not None
    return record


def test_defaults():
    assert parsed(b"v=DMARC1; p=reject") == DmarcRecord(
        policy=REJECT,
        subdomain_policy=REJECT,
        nonexistent_policy=REJECT,
        flaw="",
        public_suffix=PublicSuffix.UNKNOWN,
        testing=False,
        strict_dkim=False,
        strict_spf=False,
        aggregate_reports=(),
        failure_reports=(),
        failure_options=frozenset({b"0"}),
        policy_tags=frozenset({b"p"}),
    )


def test_every_tag():
    text = (
        b"v=DMARC1; p=none; sp=quarantine; np=reject; adkim=s; aspf=s; t=y; psd=n; fo=1:d:s; "
        b"rua=mailto:a@example.org , https://example.org/r; ruf=mailto:f@example.org!10m"
    )
    assert parsed(text) == DmarcRecord(
        policy=NONE,
        subdomain_policy=QUARANTINE,
        nonexistent_policy=REJECT,
        flaw="",
        public_suffix=PublicSuffix.NO,
        testing=True,
        strict_dkim=True,
        strict_spf=True,
        aggregate_reports=(b"mailto:a@example.org", b"https://example.org/r"),
        failure_reports=(b"mailto:f@example.org",),
        failure_options=frozenset({b"1", b"d", b"s"}),
        policy_tags=frozenset({b"p", b"sp", b"np"}),
    )


@pytest.mark.parametrize(
    "text",
    [b"v=DMARC1", b"v=DMARC1;", b"v = DMARC1 ;", b"v\t=\tDMARC1\t", b"V=DMARC1; x", b"v=DMARC1;\xff\0"],
)
def test_it_is_a_record(text):
    assert parse_record(text) is not None


@pytest.mark.parametrize(
    "text",
    [
        *(b"", b"v", b"v=", b"v=DMARC", b"v=DMARC1x", b"v=DMARC1 x", b"v=DMARC1,", b"v=dmarc1", b"v=DMARC 1"),
        *(b" v=DMARC1", b";v=DMARC1", b"p=none; v=DMARC1", b"v=DMARC1\n", b"v=DMARC1\0;", b"\xefv=DMARC1;"),
        *(b"v=spf1 -all", b"v=DMARC2; p=reject", b"vv=DMARC1", b"v==DMARC1", b"v:DMARC1"),
    ],
)
def test_it_is_no_record(text):
    assert parse_record(text) is None


@pytest.mark.parametrize(
    ("tags", "policies"),
    [
        (b"p=none", (NONE, NONE, NONE)),
        (b"p=reject;sp=none", (REJECT, NONE, NONE)),
        (b"p=reject;np=none", (REJECT, REJECT, NONE)),
        (b"p=none;sp=quarantine;np=reject", (NONE, QUARANTINE, REJECT)),
        (b"np=reject;sp=quarantine;p=none", (NONE, QUARANTINE, REJECT)),
        (b"P=Reject; Sp=NONE", (REJECT, NONE, NONE)),
        # Of a tag that stands twice the first counts; §4.8: errors after v= are ignored.
        (b"p=reject;p=none", (REJECT, REJECT, REJECT)),
        (b"p=reject;sp=none;sp=bogus", (REJECT, NONE, NONE)),
        (b"p=reject; v=DMARC2; p=none", (REJECT, REJECT, REJECT)),
    ],
)
def test_policies(tags, policies):
    record = parsed(b"v=DMARC1;" + tags)
    assert record[:3] == policies
    assert record.flaw == ""


@pytest.mark.parametrize(
    "tags",
    [b"", b"p=", b"p", b"p=;", b"p=rejct", b"p=reject none", b"p=re\x00ject", b"p=reject;sp=", b"p=none;np=all", b"p=r\xe9ject",
     b"p=reject\n", b"q=reject", b"p=bogus;p=reject", b"=reject", b"p;=reject", b"xp=reject", b"p-=reject"],
)  # fmt: skip
def test_a_faulty_policy(tags):
    record = parsed(b"v=DMARC1; " + tags)
    assert record.flaw
    assert record[:3] == (NONE, NONE, NONE)
    assert not record.policy_tags
    with_reports = parsed(b"v=DMARC1; rua=mailto:a@example.org; " + tags)
    assert with_reports.flaw == ""
    assert with_reports[:3] == (NONE, NONE, NONE)
    assert not with_reports.policy_tags


def test_which_flaw():
    assert parsed(b"v=DMARC1; sp=reject").flaw == "p= is missing"
    assert parsed(b"v=DMARC1; p=reject; sp=x").flaw == "p=, sp= or np= is invalid"


@pytest.mark.parametrize(
    ("value", "uris"),
    [
        (b"mailto:a@example.org", 1),
        (b"MAILTO:a@example.org", 1),
        (b"mailto:a@example.org?subject=x", 1),
        (b"mailto:a@example.org!10M,mailto:b@example.org!5", 2),
        (b"mailto:a%2Cb@example.org", 1),
        (b"\t mailto:a@example.org \t,\tftp://x", 2),
        *((text, 0) for text in (b"", b",", b",,", b"mailto", b"mailto:", b"mailto:a", b"mailto:@example.org", b"mailto:a@")),
        *((text, 0) for text in (b"a@example.org", b"1mailto:a@b", b":a@b", b"http:", b"mailto:a b@example.org", b"mailto:<a@b>")),
        *((text, 0) for text in (b"mailto:a@b!x", b"mailto:a@b!10k!", b"mailto:a@b!", b"mailto:%zz@b", b"mailto:a@b%2", b"mailto:\xe4@b")),
    ],
)  # fmt: skip
def test_reporting_uris(value, uris):
    record = parsed(b"v=DMARC1; p=none; rua=%b; ruf=%b" % (value, value))
    assert len(record.aggregate_reports) == len(record.failure_reports) == uris
    assert bool(parsed(b"v=DMARC1; rua=" + value).flaw) == (uris == 0)


@pytest.mark.parametrize(
    ("value", "options"),
    [
        (b"0", b"0"), (b"1", b"1"), (b"d", b"d"), (b"S", b"s"), (b"1:d:s", b"1ds"), (b"s:0", b"s0"), (b"d:1:s", b"d1s"),
        *((text, b"0") for text in (b"", b":", b"0:1", b"d:d", b"x", b"1:", b"1: d", b"1:d:s:1", b"d" * 1000)),
    ],
)  # fmt: skip
def test_failure_options(value, options):
    record = parsed(b"v=DMARC1; p=none; ruf=mailto:a@example.org; fo=" + value)
    assert record.failure_options == {bytes([octet]) for octet in options}
    assert parsed(b"v=DMARC1; p=none; fo=" + value).failure_options == {
        b"0"
    }  # §4.7: without ruf= it is ignored


@pytest.mark.parametrize(
    ("policy", "lowered"), [(NONE, NONE), (QUARANTINE, NONE), (REJECT, QUARANTINE)], ids=str
)
def test_testing_lowers_by_one_level(policy, lowered):
    assert parsed(b"v=DMARC1; p=none; t=y").applied(policy) is lowered
    assert parsed(b"v=DMARC1; p=none; t=n").applied(policy) is policy


def test_faulty_flags_are_the_defaults():
    assert parsed(b"v=DMARC1; p=reject; adkim=ss; aspf=; t=yes; psd=yes; fo=9") == parsed(
        b"v=DMARC1; p=reject"
    )


@pytest.mark.parametrize(
    "text",
    [
        b"v=DMARC1;" + b" " * 65_000 + b"p=reject",
        b"v=DMARC1" + b"; " * 32_000,
        b"v=DMARC1" + b";p" * 32_000,
        b"v=DMARC1" + b";p=" * 21_000,
        b"v=DMARC1;rua=" + b"," * 65_000,
        b"v=DMARC1;rua=" + b"a:b," * 16_000,
        b"v=DMARC1;rua=mailto:" + b"%aa" * 21_000,
        b"v=DMARC1;rua=" + b"a" * 65_000,
        b"v=DMARC1;rua=mailto:a@b!" + b"1" * 65_000,
        b"v" + b" " * 65_000,
        b"v" * 65_000,
        b"v=DMARC1;p" + b"\t" * 65_000,
        b"v=DMARC1;fo=" + b"d:" * 32_000,
    ],
    ids=lambda text: repr(text[:30]),
)
def test_long_records_cost_little(text):
    begun = process_time()
    for _ in range(10):
        parse_record(text)
    assert process_time() - begun < 1.0
