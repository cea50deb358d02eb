"""Tag=value lists (RFC 6376 §3.2)."""

from __future__ import annotations

import pytest

from srsd.syntax.taglist import (
    TAGS_MAXIMUM,
    TagListFlaw,
    decode_base64,
    parse_tag_list,
    split_list,
    without_value,
)


@pytest.mark.parametrize(
    ("text", "tags"),
    [
        (b"v=1", {b"v": b"1"}),
        (b"v=1;", {b"v": b"1"}),
        (b"v=1; ", {b"v": b"1"}),
        (b"v=1;\r\n ", {b"v": b"1"}),
        (b" v = 1 ; a\t=\tb\t", {b"v": b"1", b"a": b"b"}),
        (b"\r\n v=1;\r\n\tb=\r\n abc\r\n\tdef", {b"v": b"1", b"b": b"abc\r\n\tdef"}),
        (b"\n v=1;\n\tb=\n abc\n\tdef", {b"v": b"1", b"b": b"abc\n\tdef"}),
        (b"p=", {b"p": b""}),  # an empty value is not the same as no tag
        (b"p= ;v=1", {b"p": b"", b"v": b"1"}),
        (b"p=a=b==", {b"p": b"a=b=="}),
        (b"n=a  b", {b"n": b"a  b"}),  # blanks inside stay
        (b"V=1;v=2", {b"V": b"1", b"v": b"2"}),  # names are case-sensitive
        (b"unknown_9=x;a0=y", {b"unknown_9": b"x", b"a0": b"y"}),
        ("i=jörg@example.org".encode(), {b"i": "jörg@example.org".encode()}),  # RFC 8616 §5
    ],
)
def test_lists(text, tags):
    parsed = parse_tag_list(text)
    assert parsed == tags
    assert list(parsed) == list(tags)


@pytest.mark.parametrize(
    ("text", "flaw"),
    [
        (b"", TagListFlaw.SPEC),
        (b";", TagListFlaw.SPEC),
        (b" ; ", TagListFlaw.SPEC),
        (b"v=1;;", TagListFlaw.SPEC),
        (b"v=1;;a=b", TagListFlaw.SPEC),
        (b";v=1", TagListFlaw.SPEC),
        (b"v", TagListFlaw.SPEC),
        (b"v=1;a", TagListFlaw.SPEC),
        (b"=1", TagListFlaw.SPEC),
        (b"1v=1", TagListFlaw.SPEC),
        (b"_v=1", TagListFlaw.SPEC),
        (b"a-b=1", TagListFlaw.SPEC),
        (b"a b=1", TagListFlaw.SPEC),
        ("é=1".encode(), TagListFlaw.SPEC),
        (b"v=1;v=1", TagListFlaw.DUPLICATE),
        (b"v=1;x=y; v =2", TagListFlaw.DUPLICATE),
        (b"u=1;u=", TagListFlaw.DUPLICATE),  # also of tags that nobody knows
        (b"v=1\0", TagListFlaw.CHARACTER),
        (b"d=example.org\0.evil.example", TagListFlaw.CHARACTER),
        (b"v=\x7f", TagListFlaw.CHARACTER),
        (b"v=\x0b1", TagListFlaw.CHARACTER),
        (b"v=\x1b[2J", TagListFlaw.CHARACTER),
        (b"v=1\r\n", TagListFlaw.LINE_END),  # nothing is folded here
        (b"v=1\r\na=b", TagListFlaw.LINE_END),
        (b"v=1\r a=b", TagListFlaw.LINE_END),
        (b"v=1\na=b", TagListFlaw.LINE_END),
        (b"v=1\r\r\n a=b", TagListFlaw.LINE_END),
        (b";".join(b"t%d=" % number for number in range(TAGS_MAXIMUM + 1)), TagListFlaw.TOO_MANY),
    ],
)
def test_what_is_no_list(text, flaw):
    assert parse_tag_list(text) is flaw


def test_the_most_tags():
    assert len(parse_tag_list(b";".join(b"t%d=" % number for number in range(TAGS_MAXIMUM)) + b";")) == 100


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (b"v=1; b=abc; d=x", b"v=1; b=; d=x"),
        (b"v=1; b = \r\n abc \r\n def \r\n ; d=x", b"v=1; b =; d=x"),  # §3.7: with all surrounding blanks
        (b"b=abc=", b"b="),
        (b" b=abc  ", b" b="),
        (b"bh=b=abc; b=", b"bh=b=abc; b="),
        (b"bh=abc;\n\tb=a\n\tb", b"bh=abc;\n\tb="),
        (b"z=x b=y; b=q", b"z=x b=y; b="),  # only the tag, not what looks like it
        (b"B=abc", b"B=abc"),
        (b"v=1", b"v=1"),
        (b"", b""),
    ],
)
def test_without_value(text, expected):
    assert without_value(text, b"b") == expected


def test_split_list():
    assert split_list(b"from : to:\r\n\tsubject") == [b"from", b"to", b"subject"]
    assert split_list(b"") == [b""]
    assert split_list(b"a::b") == [b"a", b"", b"b"]


@pytest.mark.parametrize(
    ("text", "octets"),
    [
        (b"", b""),
        (b"Zm9v", b"foo"),
        (b"Z m\r\n\t9 v", b"foo"),
        (b"Zm9vYg==", b"foob"),
        (b"Zm9vYg = =", b"foob"),
        (b"Zm9vYg=", b"foob"),  # RFC 6376 §2.10 has the padding as optional
        (b"Zm9vYg", b"foob"),
        (b"Zm9vYmE", b"fooba"),
        (b"Z", None),
        (b"Zm9vY", None),
        (b"Zm9v=", None),
        (b"Zm9v====", None),
        (b"=", None),
        (b"Zm=9v", None),
        (b"Zm9vYg==Zm9v", None),
        (b"Zm-v", None),
        (b"Zm_v", None),
        (b"Zm9\xff", None),
        (b"Zm9*", None),
    ],
)
def test_decode_base64(text, octets):
    assert decode_base64(text) == octets
