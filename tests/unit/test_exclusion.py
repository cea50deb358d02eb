"""The exclusion map: the text that postmap(1) takes."""

from __future__ import annotations

from ipaddress import ip_address

import pytest

from srsd.errors import ConfigError
from srsd.exclusion import ExclusionMap, Skip, parse_exclusion_map
from srsd.syntax.domain import fold_domain

NOTHING = frozenset()
SRS = frozenset({Skip.SRS})
ALL = frozenset(Skip)


def for_address(exclusions: ExclusionMap, address: str) -> frozenset[Skip]:
    local_part, _, domain = address.encode().rpartition(b"@")
    return exclusions.for_address(local_part, fold_domain(domain))


def for_client(exclusions: ExclusionMap, client: str) -> frozenset[Skip]:
    return exclusions.for_client(ip_address(client))


# As in the lists that come with pfix-srsd: a domain, and the same again as its value.
PFIX_NO_SRS = b"""\
# Domains that publish an SPF record that allows us, or do not mind.
@example.com                @example.com
@Example.ORG\t@example.org

    # an indented comment
alice@example.net           alice@example.net
"""


@pytest.mark.parametrize(
    ("address", "skipped"),
    [
        ("anyone@example.com", SRS),
        ("ANYONE@EXAMPLE.COM", SRS),
        ("anyone@example.com.", SRS),
        ("anyone@sub.example.com", NOTHING),
        ("bob@example.org", SRS),
        ("alice@example.net", SRS),
        ("Alice@Example.net", SRS),
        ("bob@example.net", NOTHING),
        ("alice+tag@example.net", NOTHING),  # no magic with extensions
        ("alice@other.example", NOTHING),
    ],
)
def test_a_list_of_pfix_srsd_works_unchanged(address, skipped):
    assert for_address(parse_exclusion_map(PFIX_NO_SRS), address) == skipped


@pytest.mark.parametrize(
    ("line", "matching", "others"),
    [
        ("example.com", ["u@example.com"], ["u@sub.example.com", "u@example.org"]),
        ("@example.com", ["u@example.com"], ["u@sub.example.com"]),
        (".example.com", ["u@sub.example.com", "u@a.b.example.com"], ["u@example.com", "u@xexample.com"]),
        ("u@example.com", ["u@example.com", "U@EXAMPLE.com"], ["v@example.com", "u@sub.example.com"]),
        ('"john doe"@example.com', ["john doe@example.com", "John Doe@example.com"], ["john@example.com"]),
        ('"john doe@example.com"', ["john doe@example.com"], ["doe@example.com"]),
        ('"u@example.com"', ["u@example.com"], []),
        ('"@example.com"', ["u@example.com"], []),
        ('"u"@example.com', ["u@example.com"], []),
        ('"a\\"b"@example.com', ['a"b@example.com'], []),
        ("münchen.example", ["u@xn--mnchen-3ya.example", "u@MÜNCHEN.example"], []),
        ("@xn--mnchen-3ya.example", ["u@münchen.example"], []),
        (".münchen.example", ["u@a.xn--mnchen-3ya.example"], []),
        ("josé@example.com", ["josé@example.com"], ["jose@example.com"]),
        ("u@[192.0.2.1]", ["u@[192.0.2.1]"], []),
        ("example.com.", ["u@example.com"], []),
        ("_x.example.com", ["u@_x.example.com"], []),
    ],
)
def test_patterns_for_addresses(line, matching, others):
    exclusions = parse_exclusion_map(line.encode())
    assert [for_address(exclusions, address) for address in matching] == [SRS] * len(matching)
    assert [for_address(exclusions, address) for address in others] == [NOTHING] * len(others)
    assert len(exclusions) == 1


def test_a_domain_that_idna_refuses_is_never_excluded():
    exclusions = parse_exclusion_map(b"example.com\n.com\n")
    assert exclusions.for_address(b"u", fold_domain("ü_.example.com".encode())) == NOTHING


@pytest.mark.parametrize(
    ("line", "matching", "others"),
    [
        ("192.0.2.7", ["192.0.2.7", "::ffff:192.0.2.7"], ["192.0.2.8", "2001:db8::7"]),
        ("192.0.2.0/24", ["192.0.2.0", "192.0.2.255"], ["192.0.1.255", "192.0.3.0"]),
        ("192.0.2.99/24", ["192.0.2.0", "192.0.2.255"], ["192.0.3.0"]),  # host bits do not matter
        ("0.0.0.0/0", ["1.2.3.4"], ["::1"]),
        ("2001:db8::1", ["2001:db8::1", "2001:0DB8:0:0::1"], ["2001:db8::2"]),
        ("2001:DB8::/32", ["2001:db8:ffff::1"], ["2001:db9::"]),
        ("::/0", ["::1", "2001:db8::"], ["192.0.2.1"]),
        ("192.0.2.0/255.255.255.0", ["192.0.2.9"], ["192.0.3.1"]),
        ("::ffff:192.0.2.7", ["192.0.2.7", "::ffff:192.0.2.7"], ["192.0.2.8"]),
        ("::ffff:192.0.2.0/120", ["192.0.2.7", "::ffff:192.0.2.7"], ["192.0.3.7"]),
    ],
)
def test_patterns_for_clients(line, matching, others):
    exclusions = parse_exclusion_map(line.encode() + b" spf")
    spf = frozenset({Skip.SPF})
    assert [for_client(exclusions, client) for client in matching] == [spf] * len(matching)
    assert [for_client(exclusions, client) for client in others] == [NOTHING] * len(others)
    assert len(exclusions) == 1


@pytest.mark.parametrize(
    ("value", "skipped"),
    [
        ("", SRS),
        ("   ", SRS),
        ("@example.com", SRS),
        ("someone@elsewhere.example", SRS),
        ("all, @x", SRS),
        ("srs", SRS),
        ("SRS", SRS),
        ("spf", {Skip.SPF}),
        ("srs,spf", {Skip.SRS, Skip.SPF}),
        ("srs , spf", {Skip.SRS, Skip.SPF}),
        ('"srs, spf"', {Skip.SRS, Skip.SPF}),
        ('"srs" ,\t"dkim"', {Skip.SRS, Skip.DKIM}),
        ("dkim,dmarc,arc,sign", {Skip.DKIM, Skip.DMARC, Skip.ARC, Skip.SIGN}),
        ("srs,srs", SRS),
        ("all", ALL),
        ("ALL,srs", ALL),
    ],
)
def test_values(value, skipped):
    assert for_address(parse_exclusion_map(f"example.com {value}".encode()), "u@example.com") == skipped


@pytest.mark.parametrize(
    ("text", "skipped"),
    [
        (b"example.com\n  spf", {Skip.SPF}),
        (b"example.com\n\tspf,\n\tdkim", {Skip.SPF, Skip.DKIM}),
        (b"example.com spf\n# a comment between\n , dkim", {Skip.SPF, Skip.DKIM}),
        (b"example.com spf\n\n , dkim", {Skip.SPF, Skip.DKIM}),  # nor does a blank line end it
        (b"  example.com spf", {Skip.SPF}),  # nothing that it could continue
        (b"example.com spf\r\n# x\r\n", {Skip.SPF}),
        (b"example.com spf # no comment behind", None),
    ],
)
def test_lines_are_joined_as_postmap_does(text, skipped):
    if skipped is None:
        with pytest.raises(ConfigError):
            parse_exclusion_map(text)
    else:
        assert for_address(parse_exclusion_map(text), "u@example.com") == skipped


@pytest.mark.parametrize("blank", ["\u00a0", "\u2003", "\x85", "\x1c"])
def test_only_ascii_blanks_separate(blank):
    """postmap(1) knows no others; UTF-8 in a local-part may contain them."""
    exclusions = parse_exclusion_map(f"jo{blank}se@example.com".encode())
    assert for_address(exclusions, f"jo{blank}se@example.com") == SRS
    assert exclusions.for_domain(b"jo") == NOTHING


def test_all_matching_lines_add_up():
    exclusions = parse_exclusion_map(
        b"u@sub.example.com spf\n"
        b"U@SUB.example.com dkim\n"
        b"@sub.example.com dmarc\n"
        b"sub.example.com sign\n"
        b".example.com arc\n"
        b".com srs\n"
        b"other.example all\n"
        b"192.0.2.0/24 spf\n192.0.2.7 dkim\n192.0.2.7/32 arc\n0.0.0.0/0 srs\n::/0 all\n"
    )
    assert for_address(exclusions, "u@sub.example.com") == ALL
    assert for_address(exclusions, "v@sub.example.com") == ALL - {Skip.SPF, Skip.DKIM}
    assert exclusions.for_domain(b"sub.example.com") == ALL - {Skip.SPF, Skip.DKIM}
    assert for_client(exclusions, "192.0.2.7") == {Skip.SPF, Skip.DKIM, Skip.ARC, Skip.SRS}
    assert for_client(exclusions, "192.0.2.8") == {Skip.SPF, Skip.SRS}
    assert len(exclusions) == 9


@pytest.mark.parametrize("text", [b"", b"\n\n", b"# only\n  # comments\n", b" \t \n"])
def test_an_empty_map(text):
    exclusions = parse_exclusion_map(text)
    assert len(exclusions) == 0
    assert for_address(exclusions, "u@example.com") == NOTHING
    assert for_client(exclusions, "::1") == NOTHING


FAULTS = [
    (b"exa_mple..com", "is not a domain name"),
    (b".", "is not a domain name"),
    (b"@", "is not a domain name"),
    (b'""', "is not a domain name"),
    (b"@exam=ple", "is not a domain name"),
    (b"*.example.com", "is not a domain name"),
    (b"\xff.example", "is not a domain name"),
    (b"u@", "is not an address"),
    (b'"u@example.com', "a quote is not closed"),
    (b'"u"v"@example.com', "a quote is not closed"),
    (b"u@\xff.example", "is not an address"),
    (b"192.0.2", "is not an IP address or network"),
    (b"192.0.2.256", "is not an IP address or network"),
    (b"192.0.2.0/33", "is not an IP address or network"),
    (b"2001:db8::/129", "is not an IP address or network"),
    (b"host:25", "is not an IP address or network"),
    (b"example.com OK", "'ok' cannot be skipped"),
    (b"example.com srs,", "'' cannot be skipped"),
    (b"example.com srs spf", "'srs spf' cannot be skipped"),
    (b"example.com srs,spam", "'spam' cannot be skipped"),
]


@pytest.mark.parametrize(("line", "problem"), FAULTS)
def test_a_fault_says_where_and_what_would_be_right(line, problem):
    with pytest.raises(ConfigError) as caught:
        parse_exclusion_map(b"# a comment\nexample.org\n" + line + b"\n\nexample.net\n")
    (fault,) = caught.value.faults
    assert fault.where == "line 3"
    assert problem in fault.text
    assert "would be right: " in fault.text
    assert all(each.isprintable() for each in caught.value.lines())


def test_every_fault_is_reported_with_its_line():
    text = b"\n".join(line for line, _ in FAULTS)
    with pytest.raises(ConfigError) as caught:
        parse_exclusion_map(text)
    assert [fault.where for fault in caught.value.faults] == [f"line {n + 1}" for n in range(len(FAULTS))]
    for fault, (_, problem) in zip(caught.value.faults, FAULTS, strict=True):
        assert problem in fault.text


def test_a_long_unclosed_quote_costs_no_time():
    with pytest.raises(ConfigError):
        parse_exclusion_map(b'"' + b"a" * 200_000)
    with pytest.raises(ConfigError):
        parse_exclusion_map(b'"' + b'\\"' * 100_000)
