"""Addresses in lookup keys, and their quoting both ways (RFC 5321 §4.1.2)."""

from __future__ import annotations

import pytest

from srsd.syntax.address import Address, parse_address, quote_local_part

# As SMTP spells it, and the local-part that is meant.
BOTH_WAYS = [
    (b"alice@example.com", b"alice"),
    (b"alice+tag@example.com", b"alice+tag"),
    (b"SRS0=Gt5l=JM=example.com=alice@fwd.example", b"SRS0=Gt5l=JM=example.com=alice"),
    (b"!#$%&'*+-/=?^_`{|}~@example.com", b"!#$%&'*+-/=?^_`{|}~"),
    ("josé@example.com".encode(), "josé".encode()),
    (b"\xff\x80@example.com", b"\xff\x80"),
    (b"first.last@example.com", b"first.last"),
    (b'"john doe"@example.com', b"john doe"),
    (b'"a@b"@example.com', b"a@b"),
    (b'"a\\"b"@example.com', b'a"b'),
    (b'"a\\\\b"@example.com', b"a\\b"),
    (b'"\\""@example.com', b'"'),
    (b'"\\"\\""@example.com', b'""'),
    (b'" "@example.com', b" "),
    (b'"a\tb"@example.com', b"a\tb"),
    (b'"a,b;c:d<e>f(g)[h]"@example.com', b"a,b;c:d<e>f(g)[h]"),
    (b'"\x01\x7f"@example.com', b"\x01\x7f"),
    (b'"SRS0=x=JM=[192.0.2.7]=u"@fwd.example', b"SRS0=x=JM=[192.0.2.7]=u"),
]


@pytest.mark.parametrize(("spelt", "local_part"), BOTH_WAYS)
def test_both_ways(spelt, local_part):
    address = parse_address(spelt)
    assert address == Address(local_part, spelt.rpartition(b"@")[2])
    assert bytes(address) == spelt


# Other spellings of the same: needless quotes, and Postfix's internal form without any.
ONE_WAY = [
    (b'"alice"@example.com', b"alice"),
    (b'"a\\lice"@example.com', b"alice"),
    (b'".a..b."@example.com', b".a..b."),
    (b"john doe@example.com", b"john doe"),
    (b"a@b@example.com", b"a@b"),
    (b'a"b@example.com', b'a"b'),
    (b"a\\b@example.com", b"a\\b"),
    (b'"\xc3\xa9"@example.com', b"\xc3\xa9"),
]


@pytest.mark.parametrize(("spelt", "local_part"), ONE_WAY)
def test_other_spellings(spelt, local_part):
    address = parse_address(spelt)
    assert address == Address(local_part, b"example.com")
    assert parse_address(bytes(address)) == address


@pytest.mark.parametrize(
    "domain", [b"EXAMPLE.com", b"example.com.", b"[192.0.2.7]", b"m\xc3\xbcnchen.example", b"a=b", b"\xff"]
)
def test_the_domain_stands_as_it_was_written(domain):
    assert parse_address(b"u@" + domain) == (b"u", domain)


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b'""',
        b"<>",
        b"@",
        b"@example.com",
        b"alice@",
        b"postmaster",
        b'""@example.com',
        b'"alice@example.com',
        b'"@example.com',
        b'"a"b"@example.com',
        b'"a"b@example.com',
        b'"a\\"@example.com',
        b'"a" @example.com',
        b"a\0@example.com",
        b"a@example.com\0",
        b"a\n@example.com",
        b'"a\rb"@example.com',
        b"a@example.com\r\n",
    ],
)
def test_what_is_no_address(text):
    assert parse_address(text) is None


@pytest.mark.parametrize("octet", [bytes((octet,)) for octet in range(256)])
def test_each_octet_is_quoted_where_it_must_be(octet):
    atext = octet.isalnum() or octet in b"!#$%&'*+-/=?^_`{|}~." or octet >= b"\x80"
    escaped = b"\\" + octet if octet in b'"\\' else octet
    assert quote_local_part(b"a" + octet) == (b"a" + octet if atext else b'"a' + escaped + b'"')
