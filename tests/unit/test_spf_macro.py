"""Macro strings: the examples of RFC 7208 §7.4, the grammar of §7.1, the details of §7.3."""

from __future__ import annotations

import re
from ipaddress import ip_address

import pytest

from srsd.spf.macro import (
    DOMAIN_SPEC,
    MACRO_STRING,
    NAME_MAXIMUM,
    MacroValues,
    domain_spec,
    parse_explain_string,
)
from srsd.syntax.address import Address

EXAMPLE = {
    "client": ip_address("192.0.2.3"),
    "sender": Address(b"strong-bad", b"email.example.com"),
    "helo": b"helo.example.net",
    "domain": b"email.example.com",
    "receiver": b"mx.example.org",
    "now": 1_700_000_000,
}


def values(**changes) -> MacroValues:
    made = MacroValues(**(EXAMPLE | changes))
    made.validated = b"mx.example.org"
    return made


def name(text: bytes, **changes) -> bytes:
    return values(**changes).name(domain_spec(text))


@pytest.mark.parametrize(
    ("macro", "expansion"),
    [  # RFC 7208 §7.4, both tables
        (b"%{s}", b"strong-bad@email.example.com"),
        (b"%{o}", b"email.example.com"),
        (b"%{d}", b"email.example.com"),
        (b"%{d4}", b"email.example.com"),
        (b"%{d3}", b"email.example.com"),
        (b"%{d2}", b"example.com"),
        (b"%{d1}", b"com"),
        (b"%{dr}", b"com.example.email"),
        (b"%{d2r}", b"example.email"),
        (b"%{l}", b"strong-bad"),
        (b"%{l-}", b"strong.bad"),
        (b"%{lr}", b"strong-bad"),
        (b"%{lr-}", b"bad.strong"),
        (b"%{l1r-}", b"strong"),
        (b"%{ir}.%{v}._spf.%{d2}", b"3.2.0.192.in-addr._spf.example.com"),
        (b"%{lr-}.lp._spf.%{d2}", b"bad.strong.lp._spf.example.com"),
        (
            b"%{lr-}.lp.%{ir}.%{v}._spf.%{d2}",
            b"bad.strong.lp.3.2.0.192.in-addr._spf.example.com",
        ),
        (b"%{ir}.%{v}.%{l1r-}.lp._spf.%{d2}", b"3.2.0.192.in-addr.strong.lp._spf.example.com"),
        (b"%{d2}.trusted-domains.example.net", b"example.com.trusted-domains.example.net"),
    ],
)
def test_the_examples_of_the_rfc(macro, expansion):
    assert name(macro) == expansion


def test_the_example_of_the_rfc_with_ipv6():
    # §7.4; DNS ignores case, and the conformance suite wants capitals.
    assert name(b"%{ir}.%{v}._spf.%{d2}", client=ip_address("2001:db8::cb01")).lower() == (
        b"1.0.b.c.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.b.d.0.1.0.0.2.ip6._spf.example.com"
    )


@pytest.mark.parametrize(
    ("macro", "expansion"),
    [
        (b"%{h}", b"helo.example.net"),
        (b"%{p}", b"mx.example.org"),
        (b"%{p2}", b"example.org"),
        (b"%%x%_y%-z.example", b"%x y%20z.example"),
        (b"%{D2}", b"example.com"),
        (b"%{S}", b"strong-bad%40email.example.com"),
        (b"%{dR}", b"com.example.email"),
        (b"%{d01r}", b"email"),
        (b"%{d127}", b"email.example.com"),
        (b"%{d128}", b"email.example.com"),
        (b"%{d99999999999999999999999}", b"email.example.com"),
        (b"%{l1-}", b"bad"),
        (b"%{s-.}", b"strong.bad@email.example.com"),
        (b"%{h=}.example", b"helo.example.net.example"),
        (b"a.example.", b"a.example"),
        (b"a..example", b"a..example"),
    ],
)
def test_details(macro, expansion):
    assert name(macro) == expansion


@pytest.mark.parametrize(
    ("local_part", "macro", "expansion"),
    [
        # §7.3: leading, trailing and consecutive delimiters give empty parts.
        (b"-a--b-", b"%{l-}", b".a..b."),
        (b"-a--b-", b"%{l2-}", b"b."),
        (b"a+b-c=d/e_f,g.h", b"%{lr-.+,/_=}", b"h.g.f.e.d.c.b.a"),
        (b"a+b-c", b"%{l+}", b"a.b-c"),
        (b"philip-gladstone-test", b"%{l2r-}", b"gladstone.philip"),
        (b"~jack&jill=up-a_b3.c", b"%{L}", b"~jack%26jill%3Dup-a_b3.c"),
        (b'a"b\\ @\x01', b"%{L}", b"a%22b%5C%20%40%01"),
        (b"\xc3\xa9", b"%{L}", b"%C3%A9"),
        (b"A-B", b"%{L1-}", b"B"),
    ],
)
def test_local_parts(local_part, macro, expansion):
    assert name(macro + b".example", sender=Address(local_part, b"example.com")) == expansion + b".example"


@pytest.mark.parametrize(
    ("text", "is_domain_spec"),
    [
        (b"a.example", True),
        (b"a.example.", True),
        (b".example", True),  # an empty macro-string and a toplabel; no name, but that is another matter
        (b"a.xn--zckzah", True),
        (b"a.x--y", True),
        (b"a.1-2", True),
        (b"a.b1", True),
        (b"a:b/c=d.example", True),
        (b"_spf.example", True),
        (b"%{d}", True),
        (b"a%%", True),
        (b"a%_", True),
        (b"%{d}.example", True),
        (b"%{l1r+-}%{d}", True),
        (b"%{D9R.-+,/_=}", True),
        (b"", False),
        (b"example", False),
        (b"example.", False),
        (b"a.example..", False),
        (b"a.123", False),
        (b"a.-b", False),
        (b"a.b-", False),
        (b"a.b_c", False),
        (b"%{d}example", False),
        (b"%{d}.", False),
        (b"%", False),
        (b"%a.example", False),
        (b"a.example%", False),
        (b"%{d", False),
        (b"%{}.example", False),
        (b"%{x}", False),
        (b"%{dd}", False),
        (b"%{d0}", False),
        (b"%{d00}", False),
        (b"%{dr2}", False),
        (b"%{d:}", False),
        (b"%{c}", False),
        (b"%{r}", False),
        (b"%{T}", False),
        (b"%(d).example", False),
        (b"a b.example", False),
        (b"a\t.example", False),
        (b"a\x7f.example", False),
        (b"\xc3\xa9.example", False),
        (b"a.example\n", False),
        (b"a.example\0", False),
    ],
)
def test_the_grammar_of_domain_spec(text, is_domain_spec):
    assert bool(re.fullmatch(DOMAIN_SPEC, text, re.IGNORECASE)) == is_domain_spec


@pytest.mark.parametrize(
    ("text", "is_macro_string"),
    [(b"", True), (b"a", True), (b"%{d}%%x", True), (b"a b", False), (b"%", False), (b"%{c}", False)],
)
def test_the_grammar_of_macro_string(text, is_macro_string):
    assert bool(re.fullmatch(MACRO_STRING, text, re.IGNORECASE)) == is_macro_string


@pytest.mark.parametrize(
    ("labels", "kept"),
    [(50, 50), (51, 50), (500, 50), (60, 50)],  # each of five octets with its dot: 250, and the last one
)
def test_a_long_name_loses_labels_at_its_left(labels, kept):
    sender = Address(b".".join([b"abcd"] * labels), b"example.com")
    expected = b".".join([b"abcd"] * kept) + b".xy"
    assert len(expected) == 252
    assert name(b"%{l}.xy", sender=sender) == expected
    assert name(b"%{l}.xy.", sender=sender) == expected


def test_a_name_of_the_greatest_length_is_kept():
    sender = Address(b".".join([b"abcd"] * 50), b"example.com")
    assert name(b"%{l}.xyz", sender=sender) == sender.local_part + b".xyz"
    assert len(sender.local_part + b".xyz") == NAME_MAXIMUM
    assert name(b"%{l}.wxyz", sender=sender) == b".".join([b"abcd"] * 49) + b".wxyz"


@pytest.mark.parametrize("labels", [126, 127, 128, 129, 130, 200])
def test_a_long_name_of_many_macros_is_cut_at_the_same_octet(labels):
    spec = b".".join([b"%{l}"] * labels)
    expected = b".".join([b"a"] * min(labels, 127))  # of two octets each, less a dot
    assert name(spec, sender=Address(b"a", b"example.com")) == expected


@pytest.mark.parametrize(
    ("count", "kept"), [(9, 9), (99, 99), (100, 100), (119, 119), (120, 120), (121, 120), (9999, 120)]
)
def test_how_many_parts_are_kept(count, kept):
    sender = Address(b"-".join([b"a"] * 120), b"example.com")
    assert name(b"%%{l%d-}" % count, sender=sender) == b".".join([b"a"] * kept)


def test_what_has_no_dot_to_cut_at_is_no_name_but_stays_small():
    sender = Address(b"a" * 5000, b"example.com")
    assert len(name(b"%{l}" * 50, sender=sender)) > NAME_MAXIMUM
    assert len(name(b"%{l}" * 50, sender=sender)) < 6000


@pytest.mark.parametrize(
    ("text", "explanation"),
    [
        (b"Mail from %{d} should only be sent by its own servers.", None),
        (b"%{i} is not one of %{d}'s designated mail servers.", b"192.0.2.3 is not one of email.example.com's designated mail servers."),
        (b"See http://%{d}/why.html?s=%{S}&i=%{I}", b"See http://email.example.com/why.html?s=strong-bad%40email.example.com&i=192.0.2.3"),
        (b"%{c} %{r} %{t} 100%%", b"192.0.2.3 mx.example.org 1700000000 100%"),
        (b"a trailing dot.", b"a trailing dot."),
        (b"", b""),
    ],
)  # fmt: skip
def test_explanations(text, explanation):
    parsed = parse_explain_string(text)
    assert parsed is not None
    expected = text.replace(b"%{d}", b"email.example.com") if explanation is None else explanation
    assert values().text(parsed, 450) == expected


@pytest.mark.parametrize("text", [b"a\tb", b"a\r\nb", b"\xc3\xa9", b"100%", b"%{x}", b"a\0", b"%{c0}"])
def test_what_is_no_explanation(text):
    assert parse_explain_string(text) is None


@pytest.mark.parametrize(
    ("client", "shown"),
    [("192.0.2.3", b"192.0.2.3"), ("2001:DB8:0::1", b"2001:db8::1"), ("CAFE:BABE::1", b"cafe:babe::1")],
)
def test_the_readable_address(client, shown):
    parsed = parse_explain_string(b"%{c}")
    assert parsed is not None
    assert values(client=ip_address(client)).text(parsed, 450) == shown


def test_without_a_receiver_or_a_validated_name_there_is_the_word_unknown():
    made = MacroValues(**(EXAMPLE | {"receiver": b""}))
    parsed = parse_explain_string(b"%{r} %{p}")
    assert parsed is not None
    assert made.text(parsed, 450) == b"unknown unknown"


def test_an_explanation_is_cut():
    parsed = parse_explain_string(b"ab%{l}" * 100)
    assert parsed is not None
    assert values().text(parsed, 20) == b"abstrong-badabstrong"
