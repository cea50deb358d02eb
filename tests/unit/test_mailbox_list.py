"""The addresses of From: what is one by the letter, and what is refused."""

from __future__ import annotations

import time

import pytest

from srsd.syntax.address import Address
from srsd.syntax.mailbox_list import parse_mailbox_list

ALICE = Address(b"alice", b"example.org")
BOB = Address(b"bob", b"example.net")

GOOD = [
    (b" alice@example.org", [ALICE]),
    (b"alice@example.org", [ALICE]),
    (b" <alice@example.org>", [ALICE]),
    (b" Alice <alice@example.org>", [ALICE]),
    (b" Alice A. Liddell <alice@example.org>", [ALICE]),
    (b' "Liddell, Alice" <alice@example.org>', [ALICE]),
    (b' "alice@evil.example" <alice@example.org>', [ALICE]),
    (b' "a \\" <bob@example.net>" <alice@example.org>', [ALICE]),
    (b" =?utf-8?q?Alice?= <alice@example.org>", [ALICE]),
    (b" Al\xc3\xafce <alice@example.org>", [ALICE]),
    (b" alice@example.org (Alice)", [ALICE]),
    (b" (bob@example.net) alice@example.org", [ALICE]),
    (b" Alice (a (nested) \\) comment <bob@example.net>) <alice@example.org>", [ALICE]),
    (b" Alice\r\n <alice@example.org>", [ALICE]),
    (b" Alice\n\t<alice@example.org>", [ALICE]),
    (b" < alice@example.org >", [ALICE]),
    (b" alice@example.org, Bob <bob@example.net>", [ALICE, BOB]),
    (b" alice@example.org , bob@example.net ", [ALICE, BOB]),
    (b' "a b"@example.org', [Address(b"a b", b"example.org")]),
    (b' "a@b"@example.org', [Address(b"a@b", b"example.org")]),
    (b' "a\\"b"@example.org', [Address(b'a"b', b"example.org")]),
    (b" alice@[192.0.2.1]", [Address(b"alice", b"[192.0.2.1]")]),
    (b" alice@example.org.", [Address(b"alice", b"example.org.")]),
    (b" ali\xc3\xa7e@ex\xc3\xa4mple.org", [Address(b"ali\xc3\xa7e", b"ex\xc3\xa4mple.org")]),
    (b" a+b=c@example.org", [Address(b"a+b=c", b"example.org")]),
]


@pytest.mark.parametrize(("value", "addresses"), GOOD)
def test_what_is_a_mailbox_list(value, addresses):
    assert parse_mailbox_list(value) == addresses


REFUSED = [
    b"",
    b" ",
    b" alice",
    b" Alice",
    b" <>",
    b" <alice>",
    b" @example.org",
    b" alice@",
    b" alice@@example.org",
    b" alice@bob@example.org",
    b" alice@example.org bob@example.net",
    b" alice@example.org; bob@example.net",
    b" alice@example.org,",
    b" ,alice@example.org",
    b" alice@example.org,,bob@example.net",
    b" friends: alice@example.org;",  # a group
    b" undisclosed:;",
    b" <@relay.example:alice@example.org>",  # a source route
    b" <alice@example.org",
    b" alice@example.org>",
    b" <<alice@example.org>>",
    b" <alice@example.org> <bob@example.net>",
    b" alice@example.org <bob@example.net>",
    b" <alice@example.org> bob",
    b" <alice@example.org>b@example.net",
    b" alice @example.org",
    b" alice@ example.org",
    b" al ice@example.org",
    b" alice@example..org",
    b" .alice@example.org",
    b" alice.@example.org",
    b' "alice@example.org',
    b' "alice"bob"@example.org',
    b" (alice@example.org",
    b" alice@example.org)",
    b" alice@example.org\0",
    b" alice\0@example.org",
    b" alice@example.org\r",
    b" Alice\nBob <alice@example.org>",
    b" \xff <alice@example.org>",  # no UTF-8
    b" =?utf-8?q?alice=40example.org?=",  # an encoded-word is no address
    b" alice@exam(ple).org",
    b" alice@example.org(x).evil.example",
]


@pytest.mark.parametrize("value", REFUSED)
def test_what_is_none(value):
    assert parse_mailbox_list(value) is None


@pytest.mark.parametrize(
    "value",
    [
        b"(" * 60000,
        b'"' * 60001,
        b"a " * 30000,
        b"a." * 30000 + b"@x",
        b"<" * 60000,
        b"a@b," * 15000,
        b" " * 60000,
        b"\\" * 60000,
        b'"a" ' * 15000 + b"<",
        b"()" * 30000,
    ],
)
def test_the_time_is_linear(value):
    best = min(_time(value) for _ in range(5))
    assert best < 0.25


def _time(value):
    begin = time.perf_counter()
    parse_mailbox_list(value)
    return time.perf_counter() - begin
