"""SPF for any record, sender and answer: nothing raised, nothing odd said, limits kept, time bounded."""

from __future__ import annotations

import asyncio
import re
from ipaddress import IPv4Address, IPv6Address, ip_network

from hypothesis import given
from hypothesis import strategies as st

from harness.fake_resolver import FakeResolver
from srsd.resolving import Answer, MailExchange, Outcome
from srsd.spf.check_host import SpfResult, check_helo, check_mail_from
from srsd.spf.macro import DOMAIN_SPEC, NAME_MAXIMUM, MacroValues, domain_spec
from srsd.spf.outcome import EXPLANATION_MAXIMUM, REASON_MAXIMUM
from srsd.spf.received_spf import format_received_spf
from srsd.spf.record import Mechanism, RecordFault, SpfRecord, parse_record
from srsd.spf.trace import Trace
from srsd.syntax.address import Address
from srsd.syntax.shown import shown

OCTETS = st.binary(max_size=60)
CLIENTS = st.builds(IPv4Address, st.integers(0, 2**32 - 1)) | st.builds(
    IPv6Address, st.integers(0, 2**128 - 1)
)
LETTERS = st.sampled_from("slodiphvcrtSLODIPHVCRTx")
MACROS = st.builds(
    lambda letter, count, reverse, delimiters: f"%{{{letter}{count}{reverse}{delimiters}}}",
    LETTERS,
    st.sampled_from(["", "1", "2", "9", "127", "128", "0", "999999"]),
    st.sampled_from(["", "r", "R"]),
    st.text("-.+,/_=", max_size=3),
)
PIECES = MACROS | st.sampled_from(
    ["%%", "%_", "%-", "a", ".", "example", "org", "-", "1", ":", "/24", "%", "=", "é", "\t"]
)
SPECS = st.lists(PIECES, max_size=6).map("".join)
NAMES = st.sampled_from(
    [
        "all",
        "include:",
        "a",
        "a:",
        "mx",
        "mx:",
        "ptr",
        "ptr:",
        "exists:",
        "ip4:",
        "ip6:",
        "redirect=",
        "exp=",
        "x=",
    ]
)
TERMS = st.builds(
    lambda qualifier, name, rest: qualifier + name + rest,
    st.sampled_from(["", "-", "~", "?", "+"]),
    NAMES,
    SPECS,
)
GOOD_TERMS = st.sampled_from(
    ["-all", "~all", "a", "mx", "ptr", "a:example.org", "include:example.org", "include:%{d}", "exists:%{p}.org",
     "redirect=example.org", "exp=e.org", "exp=%{s}.org", "ip4:192.0.2.0/24", "ip6:::/0", "include:%{l}.org", "x=y"]
)  # fmt: skip
RECORDS = st.lists(GOOD_TERMS | TERMS, max_size=14).map(
    lambda terms: " ".join(["v=spf1", *terms]).encode("utf-8")
)
LOCAL_PARTS = OCTETS | st.sampled_from([b"", b"alice", b"a.b-c+d", b"." * 300, b"x" * 1000])


class AnyResolver:
    """Answers with anything at all."""

    def __init__(self, data, texts) -> None:
        self._data = data
        self._texts = texts
        self.asked = 0

    def _answer(self, records):
        self.asked += 1
        assert self.asked < 150  # 11 records, 10 terms of 11 queries, exp=, %{p} in either
        outcome = self._data.draw(st.sampled_from([Outcome.FOUND] * 6 + list(Outcome)))
        if outcome is not Outcome.FOUND:
            return Answer(outcome)
        return Answer(outcome, tuple(self._data.draw(st.lists(records, min_size=1, max_size=3))))

    async def txt(self, name):
        assert isinstance(name, bytes)
        return self._answer(self._texts)

    async def ipv4(self, _name):
        return self._answer(st.sampled_from([IPv4Address("192.0.2.1"), IPv4Address("0.0.0.0")]))

    async def ipv6(self, _name):
        return self._answer(st.sampled_from([IPv6Address("2001:db8::1"), IPv6Address("::")]))

    async def mx(self, _name):
        return self._answer(st.builds(MailExchange, st.just(0), st.sampled_from([b"", b"m.org"]) | OCTETS))

    async def ptr(self, _address):
        return self._answer(st.sampled_from([b"a.example.org", b"example.org"]) | OCTETS)


@given(
    st.data(),
    CLIENTS | st.just(IPv4Address("192.0.2.1")),
    st.builds(Address, LOCAL_PARTS, st.sampled_from([b"example.org", b"Example.ORG."]) | OCTETS),
    st.sampled_from([b"mail.example.org"]) | OCTETS,
    st.sampled_from([None, Trace]),
)
def test_any_answers_give_an_outcome_that_is_fit_to_be_shown(data, client, sender, helo, make_trace):
    resolver = AnyResolver(data, RECORDS | OCTETS)
    trace = make_trace and make_trace()
    outcome = asyncio.run(
        check_mail_from(resolver, client, sender, helo, receiver=b"mx.example.net", now=1, trace=trace)
    )
    assert outcome.reason.isascii()
    assert outcome.reason.isprintable()
    assert 0 < len(outcome.reason) <= REASON_MAXIMUM
    assert re.fullmatch(rb"[!-~]*", outcome.mechanism)
    assert re.fullmatch(rb"[ -~]*", outcome.explanation)
    assert len(outcome.explanation) <= EXPLANATION_MAXIMUM
    assert not outcome.explanation or outcome.result is SpfResult.FAIL
    assert bool(outcome.mechanism) == (outcome.reason[:7] == "matched")
    if trace is not None:
        assert all(line.isascii() and line.isprintable() for line in trace.lines())
        assert all(step.why.isascii() and step.why.isprintable() for step in trace.steps)
    value = format_received_spf(outcome, "mailfrom", client, sender, helo, b"mx.example.net")
    assert re.fullmatch(rb"[ -~]+(?:\n\t[ -~]+)*", value)


@given(RECORDS | OCTETS.map(lambda octets: b"v=spf1 " + octets))
def test_a_record_is_parsed_or_faulty(text):
    parsed = parse_record(text)
    if isinstance(parsed, RecordFault):
        assert parsed.problem.isascii()
        assert parsed.problem.isprintable()
        # What is faulty alone is so in company.
        assert isinstance(parse_record(b"v=spf1 a" + text[6:] + b" -all"), RecordFault)
        return
    assert parse_record(text + b"  ") == parsed._replace(text=text + b"  ")
    for directive in parsed.directives:
        assert b" " + directive.text in text
        alone = parse_record(b"v=spf1 " + directive.text)
        assert isinstance(alone, SpfRecord)
        assert alone.directives == (directive,)
    if parsed.directives and parsed.directives[-1].mechanism is Mechanism.ALL:
        assert parsed.redirect is None


@given(CLIENTS, st.integers(0, 128), CLIENTS)
def test_networks_match_as_those_of_the_standard_library(address, length, client):
    length = min(length, address.max_prefixlen)
    network = ip_network((address, length), strict=False)
    zones = {("example.org", "TXT"): [f"v=spf1 ip{address.version}:{address}/{length} -all"]}
    sender = Address(b"a", b"example.org")
    for each in (client, address, network.broadcast_address, network.network_address):
        outcome = asyncio.run(check_mail_from(FakeResolver(zones), each, sender, b"h", receiver=b"", now=1))
        seen = each.ipv4_mapped or each if isinstance(each, IPv6Address) else each
        assert (outcome.result is SpfResult.PASS) == (seen in network)


@given(CLIENTS, st.integers(0, 32), st.integers(0, 128), st.lists(CLIENTS, min_size=1, max_size=5))
def test_prefix_lengths_of_a_match_as_those_of_the_standard_library(client, ipv4_length, ipv6_length, hosts):
    seen = client.ipv4_mapped or client if isinstance(client, IPv6Address) else client
    length = ipv4_length if seen.version == 4 else ipv6_length
    zones = {
        ("example.org", "TXT"): [f"v=spf1 a/{ipv4_length}//{ipv6_length} -all"],
        ("example.org", "A"): [str(host) for host in hosts if host.version == 4],
        ("example.org", "AAAA"): [str(host) for host in hosts if host.version == 6],
    }
    outcome = asyncio.run(check_helo(FakeResolver(zones), client, b"example.org", receiver=b"", now=1))
    expected = any(
        seen in ip_network((host, length), strict=False) for host in hosts if host.version == seen.version
    )
    assert (outcome.result is SpfResult.PASS) == expected


def by_the_letter(text: bytes, values: dict[str, bytes]) -> bytes:
    """Expand a domain-spec as RFC 7208 §7.3 says it, step by step and without a thought of cost."""

    def expand(found: re.Match[bytes]) -> bytes:
        if found[0] in (b"%%", b"%_", b"%-"):
            return {b"%%": b"%", b"%_": b" ", b"%-": b"%20"}[found[0]]
        letter, digits, reverse, delimiters = found[1].decode(), found[2], found[3], found[4]
        value = values[letter.lower()]
        if digits or reverse or delimiters:
            parts = re.split(b"[" + re.escape(delimiters or b".") + b"]", value)
            if reverse:
                parts = parts[::-1]
            if digits:
                parts = parts[-min(int(digits), len(parts)) :]
            value = b".".join(parts)
        if letter.isupper():
            value = re.sub(rb"[^A-Za-z0-9._~-]", lambda octet: b"%%%02X" % octet[0][0], value)
        return value

    name = re.sub(rb"%(?:[%_-]|\{([a-zA-Z])([0-9]*)([rR]?)([^}]*)\})", expand, text)
    name = name.removesuffix(b".")
    while len(name) > NAME_MAXIMUM and b"." in name:
        name = name.partition(b".")[2]
    return name


GOOD_PIECES = st.builds(
    lambda letter, count, reverse, delimiters: f"%{{{letter}{count}{reverse}{delimiters}}}",
    st.sampled_from("slodiphvSLODIPHV"),
    st.sampled_from(["", "", "1", "2", "3", "9", "01", "127", "128", "999999"]),
    st.sampled_from(["", "r", "R"]),
    st.text("-.+,/_=", max_size=3),
) | st.sampled_from(["%%", "%_", "%-", "a", ".", "..", "x.y", "{d}", "}", "long" * 20, "a." * 100])
GOOD_SPECS = st.builds(
    lambda pieces, end: "".join(pieces) + end,
    st.lists(GOOD_PIECES, max_size=8),
    st.sampled_from([".example", ".org.", "%{d}", "%%", "%{l1r-}"]),
)


@given(GOOD_SPECS, LOCAL_PARTS, st.sampled_from([b"example.org", b"a-b.c+d.example.org"]), OCTETS, CLIENTS)
def test_macros_expand_as_the_letter_of_the_rfc_says(spec, local_part, domain, helo, client):
    text = spec.encode()
    assert re.fullmatch(DOMAIN_SPEC, text, re.IGNORECASE)
    made = MacroValues(
        client=client, sender=Address(local_part, domain), helo=helo, domain=domain, receiver=b"", now=1
    )
    made.validated = b"p.example"
    values = {
        "s": local_part + b"@" + domain,
        "l": local_part,
        "o": domain,
        "d": domain,
        "h": helo,
        "p": b"p.example",
        "v": b"in-addr" if client.version == 4 else b"ip6",
        "i": str(client).encode() if client.version == 4 else b".".join(b"%X" % (int(client) >> n & 15) for n in range(124, -1, -4)),
    }  # fmt: skip
    expected = by_the_letter(text, values)
    found = made.name(domain_spec(text))
    if len(expected) > NAME_MAXIMUM:
        assert len(found) > NAME_MAXIMUM  # no name, whichever
    else:
        assert found == expected


@given(OCTETS, st.integers(0, 80))
def test_octets_are_shown_one_to_one(octets, maximum):
    text = shown(octets, maximum)
    assert text.isascii()
    assert text.isprintable() or not text
    cut = text.removesuffix("...") if len(octets) > maximum else text
    back = re.sub(r"\\(?:\\|x([0-9a-f]{2}))", lambda found: chr(int(found[1], 16)) if found[1] else "\\", cut)
    assert back.encode("latin-1") == octets[:maximum]
