"""The trace of an evaluation: the walks, each name and its answer, and why it was decided."""

from __future__ import annotations

import json

from harness.fake_resolver import FakeResolver
from srsd.dmarc.discovery import discover
from srsd.dmarc.evaluate import evaluate
from srsd.dmarc.outcome import Identifier, State
from srsd.dmarc.trace import Trace
from srsd.resolving import Outcome, run_from_cache


def traced(zone: dict[tuple[str, str], object], author: bytes, *identifiers: Identifier) -> Trace:
    trace, resolver = Trace(), FakeResolver(zone)
    discovery = run_from_cache(discover(author, resolver, trace))
    run_from_cache(evaluate(author, discovery, identifiers, resolver, trace))
    return trace


ZONE = {
    ("_dmarc.example.org", "TXT"): ["other", "v=DMARC1; p=none; sp=quarantine; np=reject; t=y"],
    ("_dmarc.b.example.org", "TXT"): ["v=DMARC1; p=none; psd=n"],
    ("_dmarc.org", "TXT"): ["v=DMARC1; p=none", "v=DMARC1; p=reject"],
}


def test_lines():
    trace = traced(
        ZONE,
        b"a.example.org",
        Identifier("spf", b"b.example.org", State.PASSED),
        Identifier("dkim", b"evil.test", State.PASSED),
        Identifier("dkim", b"example.org", State.FAILED),
    )
    assert trace.lines() == [
        "tree walk of the author domain a.example.org: the organizational domain is example.org",
        "    TXT _dmarc.a.example.org: no such domain",
        "    TXT _dmarc.example.org: found; a DMARC record",
        "        v=DMARC1; p=none; sp=quarantine; np=reject; t=y",
        "        other",
        "    TXT _dmarc.org: found; several DMARC records, which count as none",
        "        v=DMARC1; p=none",
        "        v=DMARC1; p=reject",
        "does the author domain exist: no",
        "    TXT a.example.org: no such domain",
        "dkim evil.test passed: not aligned, it is outside the organizational domain",
        "tree walk of spf b.example.org: the organizational domain is b.example.org",
        "    TXT _dmarc.b.example.org: found; a DMARC record; psd=n ends the walk",
        "        v=DMARC1; p=none; psd=n",
        "spf b.example.org passed: not aligned, by the tree walk",
        "dkim example.org did not pass: not looked at",
        "the record of example.org applies: np=reject, lowered to quarantine by t=y",
        "dmarc=fail: spf and dkim passed, not aligned",
    ]


def test_dicts():
    dicts = traced(ZONE, b"a.example.org").as_dicts()
    assert json.loads(json.dumps(dicts)) == dicts
    assert dicts[0]["queries"][1] == {
        "type": "TXT",
        "name": "_dmarc.example.org",
        "outcome": "found",
        "answers": ["v=DMARC1; p=none; sp=quarantine; np=reject; t=y", "other"],
        "authenticated": False,
        "why": "a DMARC record",
    }
    assert dicts[-1] == {"step": "dmarc=fail", "queries": [], "why": "neither spf nor dkim passed"}


def test_what_was_asked_before_is_told_as_such():
    trace = traced(ZONE, b"example.org", Identifier("spf", b"c.example.org", State.PASSED))
    assert trace.lines()[-7:] == [
        "tree walk of spf c.example.org: the organizational domain is example.org",
        "    TXT _dmarc.c.example.org: no such domain",
        "    TXT _dmarc.example.org: asked before; a DMARC record",
        "    TXT _dmarc.org: asked before; no DMARC record",
        "spf c.example.org passed: aligned, by the tree walk",
        "the record of example.org applies: p=none",
        "dmarc=pass: spf passed, aligned",
    ]


def test_failures():
    zone = {("_dmarc.example.org", "TXT"): Outcome.TIMED_OUT}
    assert traced(zone, b"example.org", Identifier("spf", b"example.org", State.PASSED)).lines() == [
        "tree walk of the author domain example.org: DNS did not answer",
        "    TXT _dmarc.example.org: timed out",
        "spf example.org passed: not looked at",
        "dmarc=temperror: the DMARC record could not be asked for: timed out",
    ]
    zone = {
        ("_dmarc.example.org", "TXT"): ["v=DMARC1; p=none; np=reject"],
        ("a.example.org", "TXT"): Outcome.REFUSED,
    }
    assert traced(zone, b"a.example.org").lines()[-4:] == [
        "does the author domain exist: not known",
        "    TXT a.example.org: refused by the name server",
        "the record of example.org applies: its policy is not known",
        "dmarc=temperror: whether the author domain exists is not known: refused by the name server",
    ]


def test_records_that_ask_for_little():
    void = traced({("_dmarc.example.org", "TXT"): ["v=DMARC1; p=x"]}, b"example.org").lines()
    assert void[0] == "tree walk of the author domain example.org: the organizational domain is not needed"
    assert void[-2] == "the record of example.org applies: it asks for nothing"
    reports = traced({("_dmarc.example.org", "TXT"): ["v=DMARC1; rua=mailto:a@b"]}, b"example.org").lines()
    assert reports[-2].endswith("it has no valid policy, but an address for reports, so its policy is none")


def test_odd_octets_and_floods_are_spelt_and_cut():
    flood = [
        b'\x1b[1m\\"\r\n\xff',
        *(b"t%d" % number for number in range(998)),
        b"v=DMARC1; p=none; x=" + b"y" * 5000,
    ]
    trace = traced(
        {("_dmarc.a.example", "TXT"): flood}, b"a.example", Identifier("dkim", b"\0\xff", State.FAILED)
    )
    lines = trace.lines()
    assert all(line.isascii() and line.isprintable() and len(line) < 1100 for line in lines)
    assert lines[2].startswith("        v=DMARC1; p=none; x=yyy")
    assert lines[2].endswith("y...")
    assert lines[3] == '        \\x1b[1m\\\\"\\x0d\\x0a\\xff'
    assert "        ... 995 more" in lines
    assert "dkim \\x00\\xff did not pass: not looked at" in lines


def test_an_author_without_a_domain_name():
    assert traced({}, b"").lines() == ["dmarc=none: the author has no domain name"]
