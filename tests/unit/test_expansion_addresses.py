"""Addresses in Postfix's tables: lists, keys and extensions, by virtual(5), aliases(5) and local(8)."""

from __future__ import annotations

import time

import pytest

from srsd.daemon.expansion.addresses import keys_of, parse_list, split_extension


@pytest.mark.parametrize(
    ("text", "items"),
    [
        (b"bob@far.example", [b"bob@far.example"]),
        (b"bob", [b"bob"]),
        (b"a@x.example, b@y.example", [b"a@x.example", b"b@y.example"]),
        (b"a@x.example,b,\n  c", [b"a@x.example", b"b", b"c"]),
        (b"a@x.example b@y.example", [b"a@x.example", b"b@y.example"]),  # Postfix adds missing commas
        (b"a @ x . example", [b"a@x.example"]),
        (b"Bob <bob@far.example>, carol", [b"bob@far.example", b"carol"]),
        (b'"Bob, the first" <bob@far.example>', [b"bob@far.example"]),
        (b"<bob@far.example>", [b"bob@far.example"]),
        (b"bob@far.example (a (nested) comment, with a comma) , carol", [b"bob@far.example", b"carol"]),
        (b'"john doe"@far.example', [b"john doe@far.example"]),
        (rb'"a\"b"@far.example', [b'a"b@far.example']),
        (b"user@[192.0.2.1]", [b"user@[192.0.2.1]"]),
        (rb"\keep, keep@far.example", [b"keep", b"keep@far.example"]),
        (b'"|/usr/bin/vacation -a x bob", \\bob', [b"|/usr/bin/vacation -a x bob", b"bob"]),
        (b"|/usr/bin/procmail", [b"|/usr/bin/procmail"]),
        (b"/var/mail/archive", [b"/var/mail/archive"]),
        (b":include:/etc/mail/list", [b":include:/etc/mail/list"]),
        (b'":include:/etc/mail/a list"', [b":include:/etc/mail/a list"]),
        (b"", []),
        (b" , ,, ", []),
        (b"(", []),
        (b'"', []),
        (b"\\", [b"\\"]),
        (b"a@x.example,", [b"a@x.example"]),
    ],
)
def test_lists(text, items):
    assert parse_list(text) == items


@pytest.mark.parametrize("text", [b"(", b'"', b"\\", b"[", b"<", b"a ", b"a,", b"@", b"\\a", b"(a)", b'"\\"'])
def test_lists_take_linear_time(text):
    begin = time.process_time()
    parse_list(text * 200_000)
    assert time.process_time() - begin < 5  # below 0.5; squares take minutes


@pytest.mark.parametrize(
    ("local_part", "delimiters", "parts"),
    [
        (b"bob+tag", b"+", (b"bob", b"tag")),
        (b"bob+tag+more", b"+", (b"bob", b"tag+more")),
        (b"bob-tag+more", b"+-", (b"bob", b"tag+more")),
        (b"bob", b"+", (b"bob", b"")),
        (b"bob+", b"+", (b"bob+", b"")),
        (b"+tag", b"+", (b"+tag", b"")),  # nobody would be left
        (b"bob+tag", b"", (b"bob+tag", b"")),
        (b"postmaster", b"o", (b"postmaster", b"")),
        (b"MAILER-DAEMON", b"-", (b"MAILER-DAEMON", b"")),
        (b"owner-list", b"-", (b"owner-list", b"")),
        (b"list-request", b"-", (b"list-request", b"")),
        (b"list-request", b"+", (b"list-request", b"")),
        (b"owner-list+x", b"+", (b"owner-list", b"x")),
    ],
)
def test_extensions(local_part, delimiters, parts):
    assert split_extension(local_part, delimiters) == parts


def test_owner_and_request_are_split_where_they_are_nothing_special():
    assert split_extension(b"owner-list", b"-", owner_request_special=False) == (b"owner", b"list")


def test_the_order_of_keys_is_that_of_virtual_5():
    keys = keys_of(b"bob+tag", b"here.example", b"+", local=True)
    assert [key.text for key in keys] == [
        b"bob+tag@here.example",
        b"bob@here.example",
        b"bob+tag",
        b"bob",
        b"@here.example",
    ]
    assert [key.partial for key in keys] == [False, True, True, True, True]
    assert [key.extension for key in keys] == [b"", b"tag", b"", b"tag", b""]


def test_users_alone_are_keys_only_in_domains_of_this_host():
    keys = keys_of(b"john doe", b"far.example", b"+", local=False)
    assert [key.text for key in keys] == [b'"john doe"@far.example', b"@far.example"]
