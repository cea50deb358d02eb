"""SPF records: the grammar of RFC 7208 §12, and what is kept of a record."""

from __future__ import annotations

from ipaddress import ip_address, ip_network

import pytest

from srsd.spf.outcome import SpfResult
from srsd.spf.record import Mechanism, RecordFault, SpfRecord, is_spf_record, parse_record


def parse(terms: bytes) -> SpfRecord:
    parsed = parse_record(b"v=spf1 " + terms)
    assert isinstance(parsed, SpfRecord), parsed
    return parsed


def problem(terms: bytes) -> str:
    parsed = parse_record(b"v=spf1 " + terms)
    assert isinstance(parsed, RecordFault), parsed
    return parsed.problem


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (b"v=spf1", True),
        (b"v=spf1 ", True),
        (b"V=SpF1 -all", True),
        (b"v=spf10", False),
        (b"v=spf1\t-all", False),
        (b"v=spf1-all", False),
        (b" v=spf1 -all", False),
        (b"v=spf", False),
        (b"", False),
        (b"v=spf2.0/pra -all", False),
    ],
)
def test_which_texts_are_records(text, expected):
    assert is_spf_record(text) == expected


@pytest.mark.parametrize(
    "terms",
    [
        b"", b" ", b"   -all   ", b"+all", b"?ALL", b"~All",
        b"include:a.example", b"-Include:%{d}", b"exists:%{ir}.a.example", b"EXISTS:a.b",
        b"a", b"-a", b"A", b"a:a.example", b"a/24", b"a//64", b"a/24//64", b"a:a.example/0//0", b"a:a.example/32//128",
        b"a:%{d}/24", b"a:foo:bar/baz.example", b"a:a/24.example", b"a:a.example./24", b"a:%%/24",
        b"mx", b"mx:a.example//128", b"ptr", b"ptr:a.example", b"?ptr:%{d2}",
        b"ip4:192.0.2.1", b"ip4:0.0.0.0/0", b"-ip4:255.255.255.255/32", b"IP4:1.2.3.4/9",
        b"ip6:::", b"ip6:::1", b"ip6:1::", b"ip6:2001:db8::cd30", b"ip6:2001:DB8:0:0:0:0:0:1/128",
        b"ip6:1:2:3:4:5:6:7:8/0", b"ip6:1:2:3:4:5:6:7::", b"ip6:::2:3:4:5:6:7:8", b"ip6:1::3:4:5:6:7:8",
        b"ip6:1:2:3:4:5:6:192.0.2.1", b"ip6:::192.0.2.1/96", b"ip6:1:2:3:4::5:192.0.2.1", b"ip6:::ffff:192.0.2.1",
        b"ip6:1:2:3:4:5::192.0.2.1", b"ip6:a:b:c:d:e:f::",
        b"redirect=a.example", b"exp=a.example", b"redirect=%{d} exp=%{d}", b"-all redirect=a.b", b"EXP=a.b -all",
        b"moo=", b"moo=a/b:c=d", b"m.o-o_1=%{d}%%", b"a=b", b"ip4=1", b"all=", b"include=", b"x=1 x=1",
    ],
)  # fmt: skip
def test_what_the_grammar_allows(terms):
    parse(terms)


@pytest.mark.parametrize(
    "terms",
    [
        b"moo", b"-", b"--all", b"-=a", b"=a", b"1=a", b"_a=b", b"-moo=a", b"moo:a.b=c", b"moo/a=c", b"+redirect=a.b",
        b"all.", b"all:", b"all:a.b", b"all/0", b"-all,", b"allx",
        b"include", b"include:", b"include:example", b"include:a.b/24", b"include:a.b//64",
        b"exists", b"exists:", b"exists:a.b/0", b"exists:%{c}.a.b", b"exists:%{d0}.a.b",
        b"a:", b"a/", b"a//", b"a/33", b"a//129", b"a/024", b"a/+4", b"a/24/64", b"a/24//", b"a/-1", b"a:a.b/033", b"a24",
        b"a:192.0.2.1", b"a:a.b:8080", b"a:a.-b", b"a:a.b,", b"a:a.b//0128", b"a /24", b"mx:a.1/24", b"mx/32//129",
        b"ptr:", b"ptr/24", b"ptr:a.b/24", b"ptr:%{x}",
        b"ip4", b"ip4:", b"ip4:192.0.2", b"ip4:192.0.2.1.1", b"ip4:192.0.2.01", b"ip4:192.0.2.256", b"ip4:192.0.2.1/33",
        b"ip4:192.0.2.1/", b"ip4:192.0.2.1/032", b"ip4:192.0.2.1//24", b"ip4:192.0.2.1:25", b"ip4:::1", b"ip4/24",
        b"ip4:192.0.2.1/24/24", b"ip4:+1.2.3.4", b"ip4:%{i}", b"ip4:1_0.0.2.1",
        b"ip6", b"ip6:", b"ip6::", b"ip6:::/129", b"ip6:::/0128", b"ip6:1::2::3", b"ip6:12345::", b"ip6:g::", b"ip6:1",
        b"ip6:1:2:3:4:5:6:7", b"ip6:1:2:3:4:5:6:7:8:9", b"ip6:::1%eth0", b"ip6:[::1]", b"ip6:192.0.2.1", b"ip6:::1//64",
        b"ip6:1:2:3:4:5:6:7:192.0.2.1", b"ip6:::192.0.2", b"ip6:::192.0.2.01", b"ip6:1:", b"ip6::1", b"ip6:1:::2",
        b"ip6:1:2:3:4:5:6:7:8::", b"ip6:1:2:3:4::5:6:7:8", b"ip6:192.0.2.1::", b"ip6:::1:192.0.2.1:2",
        b"redirect=", b"redirect=example", b"redirect=a.b redirect=a.b", b"redirect=%{c}", b"exp=", b"exp=-all",
        b"exp=a.b exp=c.d", b"exp=a.b -all EXP=c.d", b"redirect:a.b", b"exp", b"redirect",
        b"moo=%", b"moo=%{x}", b"moo=\xc3\xa9", b"moo=\x7f", b"moo=\t", b"moo=%{c}",
        b"-all\r", b"\t-all", b"a\rptr", b"-all\n", b"a\0", b"\xa0-all", b"ip4:192.0.2.1\n include:a.b",
    ],
)  # fmt: skip
@pytest.mark.parametrize("around", [b"%b", b"ip4:192.0.2.1 %b", b"%b -all", b"-all %b  moo=a "])
def test_what_it_does_not_allow(terms, around):
    said = problem(around.replace(b"%b", terms))
    assert said.isascii()
    assert said.isprintable()


@pytest.mark.parametrize(
    ("terms", "said"),
    [
        (b"-all moo", '"moo": not a mechanism'),
        (b"a:192.0.2.1 -all", '"a:192.0.2.1": not a domain, or a prefix length out of range'),
        (b"ip4:192.0.2", '"ip4:192.0.2": not an IPv4 network'),
        (b"ip6:1::2::3", '"ip6:1::2::3": not an IPv6 network'),
        (b"-all:x", '"-all:x": all takes no argument'),
        (b"include:", '"include:": not a domain'),
        (b"redirect=x", '"redirect=x": not a domain'),
        (b"x=%", '"x=%": not a macro string'),
        (b"exp=a.b exp=a.b", "exp= stands twice"),
        (b"a\x1b[31m\\", r'"a\x1b[31m\\": not a domain, or a prefix length out of range'),
        (b"\x80", r'"\x80": not a mechanism'),
        (b"m" * 200, '"' + "m" * 80 + '...": not a mechanism'),
    ],
)
def test_what_is_said_of_a_fault(terms, said):
    assert problem(terms) == said


def test_directives():
    parsed = parse(b"a/24//64 -mx:%{d}/8 ~ip4:192.0.2.99/24 ?ip6:2001:db8::1/32 +include:A.Example. ptr -all")
    shown = [(each.mechanism, each.result, each.text) for each in parsed.directives]
    assert shown == [
        (Mechanism.A, SpfResult.PASS, b"a/24//64"),
        (Mechanism.MX, SpfResult.FAIL, b"-mx:%{d}/8"),
        (Mechanism.IP4, SpfResult.SOFTFAIL, b"~ip4:192.0.2.99/24"),
        (Mechanism.IP6, SpfResult.NEUTRAL, b"?ip6:2001:db8::1/32"),
        (Mechanism.INCLUDE, SpfResult.PASS, b"+include:A.Example."),
        (Mechanism.PTR, SpfResult.PASS, b"ptr"),
        (Mechanism.ALL, SpfResult.FAIL, b"-all"),
    ]
    a, mx, ip4, ip6, include, ptr, _ = parsed.directives
    assert (a.domain_spec, a.ipv4_host_bits, a.ipv6_host_bits) == (None, 8, 64)
    assert (mx.ipv4_host_bits, mx.ipv6_host_bits) == (24, 0)
    assert mx.domain_spec is not None
    assert mx.domain_spec.tokens == (b"%{d}",)
    assert (ip4.host_bits, ip4.network) == (8, int(ip_address("192.0.2.0")) >> 8)
    assert (ip6.host_bits, ip6.network) == (96, 0x20010DB8)
    assert include.domain_spec is not None
    assert include.domain_spec.name == b"A.Example"
    assert ptr.domain_spec is None


@pytest.mark.parametrize(
    "network",
    [
        "0.0.0.0/0", "192.0.2.1/32", "255.255.255.255/1", "10.0.0.0/8", "203.0.113.77/25", "1.2.3.4/31",
        "::/0", "::/128", "::1/128", "1::/16", "2001:db8::cd30/60", "1:2:3:4:5:6:7:8/127", "ffff::ffff/1", "::ffff:192.0.2.1/96",
        "1:2:3:4:5:6:7::/128", "::2:3:4:5:6:7:8/128", "64:ff9b::192.0.2.33/128", "ABCD:EF01:2345:6789:abcd:ef01:2345:6789/64",
    ],
)  # fmt: skip
def test_networks_are_those_of_the_standard_library(network):
    expected = ip_network(network, strict=False)
    (directive,) = parse(f"ip{expected.version}:{network}".encode()).directives
    host_bits = expected.max_prefixlen - expected.prefixlen
    assert (directive.host_bits, directive.network) == (host_bits, int(expected.network_address) >> host_bits)
    if not host_bits:
        (bare,) = parse(f"ip{expected.version}:{network.partition('/')[0]}".encode()).directives
        assert bare[4:] == directive[4:]


def test_modifiers():
    parsed = parse(b"EXP=%{d} mx moo=cow Redirect=a.example")
    assert parsed.explanation is not None
    assert parsed.explanation.text == b"%{d}"
    assert parsed.redirect is not None
    assert parsed.redirect.name == b"a.example"


@pytest.mark.parametrize("terms", [b"redirect=a.b -all", b"-all redirect=a.b", b"a redirect=a.b ?ALL mx"])
def test_an_all_anywhere_puts_redirect_out_of_force(terms):
    """RFC 7208 §6.1."""
    assert parse(terms).redirect is None


def test_what_stands_after_all_is_checked_and_dropped():
    """RFC 7208 §5.1 and §4.6."""
    assert [each.text for each in parse(b"a -all mx ip4:192.0.2.1").directives] == [b"a", b"-all"]
    assert "ip4" in problem(b"a -all mx ip4:192.0.2")


def test_nothing_is_kept_after_the_term_that_is_one_too_many():
    parsed = parse(b"a " * 5 + b"ip4:192.0.2.1 " + b"mx " * 500 + b"ip4:192.0.2.2 -all")
    assert [each.text for each in parsed.directives] == [b"a"] * 5 + [b"ip4:192.0.2.1"] + [b"mx"] * 6


def test_the_same_octets_are_parsed_once():
    text = b"v=spf1 ip4:192.0.2.1 -all moo=once"
    assert parse_record(text) is parse_record(bytes(bytearray(text)))


def test_a_long_record_is_not_kept():
    text = b"v=spf1 moo=" + b"x" * 2000
    assert parse_record(text) is not parse_record(text)
    assert parse_record(text) == parse_record(text)
