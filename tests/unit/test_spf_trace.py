"""The trace of a check: each term, what it asked, what it got, and why it decided."""

from __future__ import annotations

import asyncio
import json
from ipaddress import ip_address

import pytest

from harness.fake_resolver import FakeResolver
from srsd.resolving import Outcome
from srsd.spf.check_host import SpfOutcome, check_mail_from
from srsd.spf.trace import Trace
from srsd.syntax.address import Address


def traced(zones, client="192.0.2.1", local_part=b"alice") -> tuple[SpfOutcome, Trace]:
    trace = Trace()
    checked = check_mail_from(
        FakeResolver(zones),
        ip_address(client),
        Address(local_part, b"example.org"),
        b"mail.example.org",
        receiver=b"mx.example.net",
        now=1_700_000_000,
        trace=trace,
    )
    return asyncio.run(checked), trace


ZONES = {
    ("example.org", "TXT"): [
        "other",
        "v=spf1 ip6:2001:db8::/32 mx include:_spf.example.net -all exp=e.example.org",
    ],
    ("example.org", "MX"): [(10, "m.example.org")],
    ("m.example.org", "A"): ["192.0.2.9"],
    ("_spf.example.net", "TXT"): ["v=spf1 ip4:198.51.100.0/24 ~all"],
    ("e.example.org", "TXT"): ["%{i} is not ours"],
}


def test_lines():
    outcome, trace = traced(ZONES)
    assert outcome.result.value == "fail"
    assert trace.lines() == [
        "record of example.org",
        "    TXT example.org: found",
        "        other",
        "        v=spf1 ip6:2001:db8::/32 mx include:_spf.example.net -all exp=e.example.org",
        "ip6:2001:db8::/32: no match, the client is 192.0.2.1",
        "mx: no match, the client is 192.0.2.1",
        "    MX example.org: found",
        "        10 m.example.org",
        "    A m.example.org: found",
        "        192.0.2.9",
        "include:_spf.example.net: no match, the result there is softfail",
        "  record of _spf.example.net",
        "      TXT _spf.example.net: found",
        "          v=spf1 ip4:198.51.100.0/24 ~all",
        "  ip4:198.51.100.0/24: no match, the client is 192.0.2.1",
        "  ~all: match, the client is 192.0.2.1",
        "-all: match, the client is 192.0.2.1",
        "exp=e.example.org",
        "    TXT e.example.org: found",
        "        %{i} is not ours",
    ]


def test_dicts():
    _, trace = traced(ZONES)
    dicts = trace.as_dicts()
    assert json.loads(json.dumps(dicts)) == dicts
    assert dicts[2] == {
        "depth": 0,
        "domain": "example.org",
        "term": "mx",
        "queries": [
            {"type": "MX", "name": "example.org", "outcome": "found", "answers": ["10 m.example.org"], "authenticated": False},
            {"type": "A", "name": "m.example.org", "outcome": "found", "answers": ["192.0.2.9"], "authenticated": False},
        ],
        "matched": False,
        "why": "the client is 192.0.2.1",
    }  # fmt: skip
    assert [each["depth"] for each in dicts] == [0, 0, 0, 0, 1, 1, 1, 0, 0]


@pytest.mark.parametrize(
    ("zones", "end"),
    [
        ({}, ["record of example.org: no such domain", "    TXT example.org: no such domain"]),
        (
            {("example.org", "TXT"): ["v=spf1 a -all"], ("example.org", "A"): Outcome.TIMED_OUT},
            ["a: example.org: timed out", "    A example.org: timed out"],
        ),
        (
            {("example.org", "TXT"): ["v=spf1 redirect=example.net"], ("example.net", "TXT"): ["v=spf1 moo"]},
            [
                'redirect=example.net: example.net: "moo": not a mechanism',
                'record of example.net: example.net: "moo": not a mechanism',
                "    TXT example.net: found",
                "        v=spf1 moo",
            ],
        ),
        (
            {
                ("example.org", "TXT"): ["v=spf1 ptr ?all"],
                ("1.2.0.192.in-addr.arpa", "PTR"): ["a.example.org"],
            },
            [
                "ptr: no match, the client is 192.0.2.1",
                "    PTR 192.0.2.1: found",
                "        a.example.org",
                "    A a.example.org: no such domain",
                "?all: match, the client is 192.0.2.1",
            ],
        ),
        (
            {("example.org", "TXT"): ["v=spf1 -all exp=%{p}.x.y"]},
            [
                "exp=%{p}.x.y: no explanation: not one text that can be expanded",
                "    PTR 192.0.2.1: no such domain",
                "    TXT unknown.x.y: no such domain",
            ],
        ),
        (
            {("example.org", "TXT"): ["v=spf1 redirect=x.org"], ("x.org", "TXT"): ["v=spf1 ?all"]},
            [
                "redirect=x.org: no mechanism matched before",
                "record of x.org",
                "    TXT x.org: found",
                "        v=spf1 ?all",
                "?all: match, the client is 192.0.2.1",
            ],
        ),
    ],
)
def test_how_it_ends(zones, end):
    _, trace = traced(zones)
    assert trace.lines()[-len(end) :] == end


def test_a_local_part_beyond_ascii_is_told():
    _, trace = traced({("example.org", "TXT"): ["v=spf1 exists:%{l}.x.y ?all"]}, local_part=b"\xff")
    assert trace.lines()[-2] == "exists:%{l}.x.y: no match, it would need a local-part or a HELO in ASCII"


def test_what_dns_says_cannot_reach_the_terminal():
    evil = b"\x1b]0;owned\x07\r\n\x9b31m\xe2\x80\xae\x00\\"
    zones = {
        ("example.org", "TXT"): [evil, b"v=spf1 mx ptr a:%{l}.x.y -all"],
        ("example.org", "MX"): [(0, evil)],
        ("1.2.0.192.in-addr.arpa", "PTR"): [evil],
    }
    _, trace = traced(zones, local_part=b"\x1b[2J\n")
    for line in [*trace.lines(), json.dumps(trace.as_dicts(), ensure_ascii=False)]:
        assert line.isascii()
        assert line.isprintable()
    assert r"\x1b]0;owned\x07\x0d\x0a\x9b31m\xe2\x80\xae\x00\\" in "".join(trace.lines())


def test_long_answers_are_cut():
    zones = {
        ("example.org", "TXT"): ["v=spf1 a -all", "x" * 60_000],
        ("example.org", "A"): [f"10.0.{number}.1" for number in range(200)],
    }
    _, trace = traced(zones)
    lines = trace.lines()
    assert max(map(len, lines)) < 4100
    assert "        ... 188 more" in lines
    assert len(lines) < 25
