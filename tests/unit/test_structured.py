"""Folds, comments and quoted-strings of structured header fields."""

from __future__ import annotations

import re
import time

import pytest

from srsd.syntax.structured import (
    ATOM,
    DOT_ATOM,
    PARENTHESES_MAXIMUM,
    QUOTED_STRING,
    TOKEN,
    is_utf8,
    quote,
    unfold_strictly,
    unquote,
    without_comments,
)


@pytest.mark.parametrize(
    ("value", "line"),
    [
        (b"", b""),
        (b" a b ", b" a b "),
        (b" a\n\tb", b" a\tb"),
        (b" a\n b", b" a b"),
        (b" a\r\n b\n\tc", b" a b\tc"),
        (b"\n a", b" a"),
        (b" a\n \n b", b" a  b"),  # RFC 5322 §4.2: a line of blanks was once allowed
        (b" \xff\x80", b" \xff\x80"),
    ],
)
def test_a_value_is_unfolded(value, line):
    assert unfold_strictly(value) == line


@pytest.mark.parametrize(
    "value",
    [
        *(
            b"a\nb",
            b"a\n",
            b"a\r\n",
            b"a\n\n b",
            b"a\n\r\n b",
            b"a\r b",
            b"a\r\r\n b",
            b"a\n\rb",
            b"\r",
            b"a\n\vb",
        ),
        *(bytes([control]) for control in range(32) if control != 9),
        b"a\x00b",
        b"\x7f",
    ],
)
def test_no_value_has_other_controls(value):
    assert unfold_strictly(value) is None


@pytest.mark.parametrize(
    ("line", "blanked"),
    [
        (b"a b", b"a b"),
        (b"a(x)b", b"a b"),
        (b"(x) a ((y)(z)) b", b"  a   b"),
        (b"()", b" "),
        (b"(a\\)b)c", b" c"),
        (b"(a\\(b)c", b" c"),
        (b"(((\\))))c", b" c"),
        (b'"(a" b', b'"(a" b'),
        (b'"(a\\"(" (b)', b'"(a\\"("  '),
        (b'(" (a)) b', b"  b"),  # a quote means nothing in a comment
        (b'(a") "(b', None),
        (b'"a)" (b)', b'"a)"  '),
        (b'"a" (b (c)) "d"', b'"a"   "d"'),
        (b"a\\(b)", b"a\\ "),  # neither does a backslash outside of them
        (b"(a", None),
        (b"a)", None),
        (b"((a)", None),
        (b"(a))", None),
        (b"(a\\)", None),
        (b"(a\\", None),
        (b'"a', None),
        (b'"a\\"', None),
        (b'a"b"c"', None),
        (b'"a" ("b)" c', None),
        (b'("', None),
        (b")(", None),
        (b'")"(', None),
        (b"(" * PARENTHESES_MAXIMUM + b")" * PARENTHESES_MAXIMUM, b" "),
        (b"()" * PARENTHESES_MAXIMUM, b" " * PARENTHESES_MAXIMUM),
        (b'""' + b"()" * PARENTHESES_MAXIMUM, b'""' + b" " * PARENTHESES_MAXIMUM),
        (b"(" * (PARENTHESES_MAXIMUM + 1) + b")" * (PARENTHESES_MAXIMUM + 1), None),
        (b"()" * (PARENTHESES_MAXIMUM + 1), None),
    ],
)
def test_a_comment_becomes_a_blank(line, blanked):
    assert without_comments(line) == blanked


@pytest.mark.parametrize(
    ("text", "quoted"),
    [(b"", b'""'), (b"a b", b'"a b"'), (b'a"b\\c', b'"a\\"b\\\\c"'), (b"\\", b'"\\\\"')],
)
def test_quoting_and_back(text, quoted):
    assert quote(text) == quoted
    assert unquote(quoted) == text
    assert re.fullmatch(QUOTED_STRING, quoted, re.DOTALL)


def test_needless_quoted_pairs_are_undone():
    assert unquote(b'"\\a\\ b"') == b"a b"


# RFC 2045 §5.1 and RFC 5322 §3.2.3, spelt as they spell them: by what is not in, and by what is in.
_TSPECIALS = b'()<>@,;:\\"/[]?='
_ATEXT = b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789!#$%&'*+-/=?^_`{|}~"


@pytest.mark.parametrize("octet", range(256))
def test_the_octets_of_tokens_and_atoms(octet):
    octets = bytes([octet])
    beyond_ascii = octet >= 128
    assert bool(re.fullmatch(TOKEN, octets)) == (
        beyond_ascii or (33 <= octet <= 126 and octet not in _TSPECIALS)
    )
    assert bool(re.fullmatch(ATOM, octets)) == (beyond_ascii or octet in _ATEXT)


@pytest.mark.parametrize(
    ("text", "is_one"), [(b"a.b.c", True), (b"a", True), (b"a..b", False), (b".a", False), (b"a.", False)]
)
def test_dot_atoms(text, is_one):
    assert bool(re.fullmatch(DOT_ATOM, text)) == is_one


@pytest.mark.parametrize(
    ("line", "is_it"),
    [(b"a", True), ("ä".encode(), True), (b"\xff", False), (b"\xc0\xa8", False), (b"a\xc3", False)],
)
def test_what_is_utf8(line, is_it):
    assert is_utf8(line) == is_it


@pytest.mark.parametrize(
    "line",
    [
        *(b"(" * 60_000, b")" * 60_000, b"()" * 30_000, b"(" * 30_000 + b")" * 30_000, b'"' * 60_000),
        *(b"\\" * 60_000, b"(" + b"\\" * 60_000, b'"' + b"\\" * 60_000, b"(a" * 500 + b"a" * 59_000),
        *(b"(\\)" * 900 + b"x" * 57_000, b'("' * 900 + b"x" * 58_000, b'"("' * 20_000, b'"(" (x)' * 900),
        *(b"\n " * 30_000, b"\r\n" * 30_000, b"\r" * 60_000, b"\n" * 60_000),
    ],
)
def test_hostile_lines_take_little_time(line):
    took = []
    for _ in range(3):
        begin = time.thread_time()
        unfold_strictly(line)
        without_comments(line)
        took.append(time.thread_time() - begin)
    assert min(took) < 0.1, took
