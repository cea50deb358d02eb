"""Domains as they are compared."""

from __future__ import annotations

import pytest

from srsd.syntax.domain import DomainSet, fold_domain, parents, parse_domain

FOLDED = [
    ("example.org", b"example.org"),
    ("Example.ORG", b"example.org"),
    ("example.org.", b"example.org"),
    ("[192.0.2.7]", b"[192.0.2.7]"),
    ("[IPv6:2001:DB8::1]", b"[ipv6:2001:db8::1]"),
    ("_dmarc.example.org", b"_dmarc.example.org"),
    ("münchen.example", b"xn--mnchen-3ya.example"),
    ("MÜNCHEN.Example.", b"xn--mnchen-3ya.example"),
    ("mu\u0308nchen.example", b"xn--mnchen-3ya.example"),  # u and its dots apart
    ("XN--MNCHEN-3YA.example", b"xn--mnchen-3ya.example"),
    ("münchen。example", b"xn--mnchen-3ya.example"),
    ("straße.example", b"xn--strae-oqa.example"),  # IDNA 2008, not strasse
    ("例え.example", b"xn--r8jz45g.example"),
    ("", b""),
    ("a b", b"a b"),  # ASCII is never refused here
]
REFUSED = [
    "ü_.example",  # no underscore beside U-labels
    "ü..example",
    "\u202eü.example",  # right-to-left override
    "xn--ü.example",
    "ü" * 64 + ".example",  # a label of over 63 octets
    "☃.example",  # a symbol, not a letter
]


@pytest.mark.parametrize(("written", "folded"), FOLDED)
def test_a_domain_folds(written, folded):
    assert fold_domain(written.encode()) == folded


@pytest.mark.parametrize("written", REFUSED)
def test_what_idna_refuses_equals_nothing(written):
    folded = fold_domain(written.encode())
    assert folded is None
    assert folded not in DomainSet(["example", ".example"])


def test_octets_that_are_not_utf_8_equal_nothing():
    assert fold_domain(b"m\xfcnchen.example") is None


def test_a_name_too_long_for_any_domain_is_not_worked_on():
    assert fold_domain("ü.".encode() * 100_000) is None


@pytest.mark.parametrize(
    ("written", "folded"),
    [
        ("Example.ORG.", b"example.org"),
        ("münchen.example", b"xn--mnchen-3ya.example"),
        ("a" * 63 + ".example", b"a" * 63 + b".example"),
        ("localhost", b"localhost"),
        ("_spf.example.org", b"_spf.example.org"),
        (".".join(["a" * 49] * 5) + ".abc", b".".join([b"a" * 49] * 5) + b".abc"),  # 253 octets
    ],
)
def test_an_admin_writes_a_domain(written, folded):
    assert parse_domain(written) == folded


@pytest.mark.parametrize(
    "written",
    [
        "",
        ".",
        "..",
        "a..b",
        ".example.org",
        "example.org..",
        "-a.example",
        "a-.example",
        "a" * 64 + ".example",
        ".".join(["a" * 49] * 5) + ".abcd",  # 254 octets
        "exa mple.org",
        "example.org\n",
        "@example.org",
        "[192.0.2.1]",
        "*.example.org",
        "ü_.example",
        "\udcff.example",  # an octet that is not UTF-8, as files give it
    ],
)
def test_what_is_no_domain_is_refused(written):
    with pytest.raises(ValueError, match="is not a domain name"):
        parse_domain(written)


@pytest.mark.parametrize(
    ("domain", "above"),
    [
        (b"a.b.c", [b"b.c", b"c"]),
        (b"c", []),
        (b"", []),
        (b"a.", [b""]),
    ],
)
def test_the_domains_above(domain, above):
    assert list(parents(domain)) == above


@pytest.mark.parametrize(
    ("domain", "belongs"),
    [
        (b"example.org", True),
        (b"sub.example.org", False),
        (b"example.net", False),
        (b"sub.example.net", True),
        (b"deep.sub.example.net", True),
        (b"notexample.net", False),
        (b"net", False),
        (b"xn--mnchen-3ya.example", True),
        (b"", False),
        (None, False),
    ],
)
def test_a_set_of_domains(domain, belongs):
    domains = DomainSet(["Example.org", ".EXAMPLE.net.", "münchen.example"])
    assert (domain in domains) is belongs


def test_an_empty_set_has_nothing():
    assert b"" not in DomainSet([])
    assert None not in DomainSet([])


@pytest.mark.parametrize("pattern", ["", ".", "..example.org", "a b", "*.example.org"])
def test_a_set_refuses_what_is_no_domain(pattern):
    with pytest.raises(ValueError, match="is not a domain name"):
        DomainSet(["example.org", pattern])
