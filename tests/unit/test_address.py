"""Addresses in lookup keys, and their quoting both ways (RFC 5321 §4.1.2)."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from srsd.syntax.address import Address, is_null_path, parse_address, parse_path, quote_local_part

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


# Paths: smtpd's spelling has angle brackets and quotes, cleanup's has neither.

PATHS = [
    (b"<alice@example.com>", b"alice", b"example.com"),
    (b"<Alice.B+c@EXAMPLE.com>", b"Alice.B+c", b"EXAMPLE.com"),
    (b"<!#$%&'*+-/=?^_`{|}~@example.com>", b"!#$%&'*+-/=?^_`{|}~", b"example.com"),
    (b"<SRS0=x=JM=[192.0.2.7]=u@fwd.example>", None, b""),
    (b'<"SRS0=x=JM=[192.0.2.7]=u"@fwd.example>', b"SRS0=x=JM=[192.0.2.7]=u", b"fwd.example"),
    # Quoted local-parts
    (b'<"a b"@example.com>', b"a b", b"example.com"),
    (b'<"a@b"@example.com>', b"a@b", b"example.com"),
    (b'<"a@attack.example"@legit.example>', b"a@attack.example", b"legit.example"),
    (b'<"a\\"@b"@example.com>', b'a"@b', b"example.com"),
    (b'<"a>b"@example.com>', b"a>b", b"example.com"),
    (b'<"@a:b"@example.com>', b"@a:b", b"example.com"),
    (b'<"a\xff"@example.com>', b"a\xff", b"example.com"),
    (b"<a b@example.com>", None, b""),
    (b"<a@b@example.com>", None, b""),
    (b'<a"b@example.com>', None, b""),
    (b'<"a"b@example.com>', None, b""),
    (b'<a."b"@example.com>', None, b""),
    (b'<"a@example.com>', None, b""),
    (b'<""@example.com>', None, b""),
    (b'<"a"@b"@example.com>', None, b""),
    # cleanup's
    (b"alice@example.com", b"alice", b"example.com"),
    (b"a b@example.com", b"a b", b"example.com"),
    (b"a@b@example.com", b"a@b", b"example.com"),
    (b'a"b@example.com', b'a"b', b"example.com"),
    (b"(any@legit.example", b"(any", b"legit.example"),
    (b"alice@example.com>", None, b""),
    (b"alice@example.com ", None, b""),
    # UTF-8
    ("<jos\xe9@b\xfccher.example>".encode(), "jos\xe9".encode(), "b\xfccher.example".encode()),
    ("jos\xe9@b\xfccher.example".encode(), "jos\xe9".encode(), "b\xfccher.example".encode()),
    # Literals, and other domains that are none by DNS
    (b"<a@[192.0.2.1]>", b"a", b"[192.0.2.1]"),
    (b"<a@[IPv6:2001:db8::1]>", b"a", b"[IPv6:2001:db8::1]"),
    (b"<a@[]>", None, b""),
    (b"<a@[192.0.2.1>", None, b""),
    (b"<a@192.0.2.1]>", None, b""),
    (b"<a@[192.0.2.1]x>", None, b""),
    (b"<a@[x@y]>", None, b""),
    (b"<a@localhost>", b"a", b"localhost"),
    (b"<a@example.com.>", b"a", b"example.com."),
    (b"<a@_x.example.com>", b"a", b"_x.example.com"),
    # Source routes: the last address counts.
    (b"<@relay.example:alice@example.com>", b"alice", b"example.com"),
    (b"<@a.example,@b.example:alice@example.com>", b"alice", b"example.com"),
    (b'<@a.example:"x y"@example.com>', b"x y", b"example.com"),
    (b"<@a.example:>", None, b""),
    (b"<@a.example>", None, b""),
    (b"<@a.example:@b.example:c@example.com>", None, b""),
    (b"<@a.example:b@c:d@example.com>", None, b""),
    (b'<@a.example:"b@example.com>', None, b""),
    # What made others see two domains in one path
    (b"<(any@legit.example>", None, b""),
    (b"<any@legit.example(a.attack.example>", None, b""),
    (b"<any@legit.example(a.attack.example)>", None, b""),
    (b"<any@legit.example,a@attack.example>", None, b""),
    (b"<@legit.example,@any.legit.example:any@attack.example>", b"any", b"attack.example"),
    (b"<any@legit.example:any@attack.example>", None, b""),
    (b"<any@legit.example'@a.attack.example>", None, b""),
    (b"<any@legit.example\0@a.attack.example>", None, b""),
    (b"<any@legit.example\0.attack.example>", None, b""),
    (b"<any@legit.example> <any@attack.example>", None, b""),
    (b"<any@legit.example><any@attack.example>", None, b""),
    (b"<<any@legit.example>>", None, b""),
    (b"<any@legit.example", None, b""),
    (b"any <any@legit.example>", None, b""),
    (b" <any@legit.example>", None, b""),
    (b"<any@legit.example;x>", None, b""),
    (b"<any@legit.example\r\n>", None, b""),
    (b"<any@legit.example/x>", None, b""),
    (b'<any@"legit.example">', None, b""),
    (b"<any@%legit.example>", None, b""),
    # No path
    (b"<>", None, b""),
    (b"", None, b""),
    (b"<", None, b""),
    (b">", None, b""),
    (b"<@>", None, b""),
    (b"<alice>", None, b""),
    (b"<@example.com>", None, b""),
    (b"<alice@>", None, b""),
]


@pytest.mark.parametrize(("path", "local_part", "domain"), PATHS)
def test_paths(path, local_part, domain):
    assert parse_path(path) == (None if local_part is None else Address(local_part, domain))


@pytest.mark.parametrize(
    "route", [b"@", b"@ ", b"@(", b'@"x', b"@a b", b"@a,b", b"@a@b", b"@a>", b"@a,", b"@a,@", b"@a\0"]
)
def test_a_source_route_is_one_by_the_letter_or_the_path_is_none(route):
    """RFC 5321 4.1.2 A-d-l: in `<@"x:a@b.example>` another program finds a quoted-string without an end."""
    assert parse_path(b"<" + route + b":any@example.com>") is None


@pytest.mark.parametrize(
    ("path", "null"),
    [(b"<>", True), (b"", True), (b"< >", False), (b"<@>", False), (b"<a@b>", False), (b"<<>>", False)],
)
def test_the_null_path(path, null):
    assert is_null_path(path) is null


_DOMAINS = st.sampled_from([b"example.com", b"EXAMPLE.com.", b"[192.0.2.1]", "b\xfccher.example".encode()])
_LOCAL_PARTS = (
    st.binary(min_size=1, max_size=20).map(lambda text: text.translate(None, b"\0\r\n")).filter(bool)
)


@pytest.mark.parametrize(
    ("text", "address"),
    [
        (b"@example.com", Address(b"", b"example.com")),  # RFC 7208 §4.3
        (b"@@example.com", Address(b"@", b"example.com")),  # as cleanup spells a quoted one
        (b"@", None),
        (b"<@example.com>", None),
    ],
)
def test_a_path_that_begins_with_an_at_sign(text, address):
    assert parse_path(text) == address


@given(_LOCAL_PARTS, _DOMAINS, st.sampled_from([b"", b"@r.example:", b"@r.example,@s.example:"]))
def test_what_smtp_spells_is_found_again(local_part, domain, route):
    address = Address(local_part, domain)
    assert parse_path(b"<" + route + bytes(address) + b">") == address
    if not local_part.startswith((b'"', b"<")):
        assert parse_path(local_part + b"@" + domain) == address


@given(st.binary(max_size=30) | st.text('<>@":,.ab []\\\\(', max_size=20).map(str.encode))
def test_whatever_it_is_a_domain_is_never_odd(path):
    address = parse_path(path)
    if address is not None:
        assert address.local_part or path.startswith(b"@")  # RFC 7208 §4.3
        assert (
            not address.domain.translate(None, b"[]")
            .translate(None, bytes(range(0x80, 0x100)))
            .translate(None, b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._:-")
        )
        assert path.rstrip(b">").endswith(b"@" + address.domain)
