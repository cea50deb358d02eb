"""Messages cut into header fields and a body."""

from __future__ import annotations

import time
from email import message_from_bytes
from email.policy import compat32

import pytest
from hypothesis import given
from hypothesis import strategies as st

from srsd.syntax.header import HeaderField, Message, parse_message, unfold

MESSAGES = [
    (b"", [], b""),
    (b"\r\n", [], b""),
    (b"\r\n\r\n", [], b"\r\n"),
    (b"A: b\r\n\r\nbody\r\n", [(b"A", b" b")], b"body\r\n"),
    (b"A: b\r\n\r\nbody", [(b"A", b" b")], b"body"),
    (b"A: b\r\n\r\n", [(b"A", b" b")], b""),
    (b"A: b\r\n", [(b"A", b" b")], b""),
    (b"A: b", [(b"A", b" b")], b""),
    (b"A:\r\nB:x\r\n\r\n", [(b"A", b""), (b"B", b"x")], b""),
    (b"A: b \r\nB: \tc\t\r\n\r\n", [(b"A", b" b "), (b"B", b" \tc\t")], b""),
    (b"A: b: c:\r\n\r\n", [(b"A", b" b: c:")], b""),
    # Folding
    (b"A: b\r\n c\r\n\td\r\nE: f\r\n\r\n", [(b"A", b" b\r\n c\r\n\td"), (b"E", b" f")], b""),
    (b"A:\r\n b\r\n\r\n", [(b"A", b"\r\n b")], b""),
    (b"A: b\r\n \r\n\r\nx", [(b"A", b" b\r\n ")], b"x"),  # blanks do not end the header
    # The body is left as it is.
    (b"A: b\r\n\r\n\r\n c: d\r\n\r\n", [(b"A", b" b")], b"\r\n c: d\r\n\r\n"),
    (b"\r\nA: b\r\n", [], b"A: b\r\n"),
    (b"A: b\r\n\r\n\xff\0\r\n", [(b"A", b" b")], b"\xff\0\r\n"),
    # Names are in the case that they were written in, and blanks before the colon are none of them.
    (b"fRoM : x\r\nTO\t: y\r\n\r\n", [(b"fRoM", b" x"), (b"TO", b" y")], b""),
    (b"!#$%&'*+-/=?^_`{|}~.()<>[]@,;\\\": x\r\n\r\n", [(b"!#$%&'*+-/=?^_`{|}~.()<>[]@,;\\\"", b" x")], b""),
    # What is no field ends the header and begins the body.
    (b"A: b\r\nnonsense\r\nC: d\r\n\r\n", [(b"A", b" b")], b"nonsense\r\nC: d\r\n\r\n"),
    (b"A: b\r\n: x\r\n\r\n", [(b"A", b" b")], b": x\r\n\r\n"),
    (b"A: b\r\n\xc3\xa9: x\r\n", [(b"A", b" b")], b"\xc3\xa9: x\r\n"),
    (b"A: b\r\na b: x\r\n", [(b"A", b" b")], b"a b: x\r\n"),
    (b"A: b\r\na\0: x\r\n", [(b"A", b" b")], b"a\0: x\r\n"),
    (b"A: b\r\na\x7f: x\r\n", [(b"A", b" b")], b"a\x7f: x\r\n"),
    (b" x: y\r\nA: b\r\n\r\n", [], b" x: y\r\nA: b\r\n\r\n"),
    (b"hello", [], b"hello"),
    # Odd octets in a value are its own; a bare CR or LF ends no line where CRLF does.
    (b"A: \0\xff\r\n\r\n", [(b"A", b" \0\xff")], b""),
    (b"A: b\rC: d\r\n\r\n", [(b"A", b" b\rC: d")], b""),
    (b"A: b\r\n\r\nx\ny\rz", [(b"A", b" b")], b"x\ny\rz"),
    # LF
    (b"A: b\n c\nD: e\n\nx\ny\n", [(b"A", b" b\r\n c"), (b"D", b" e")], b"x\r\ny\r\n"),
    (b"\nx\n", [], b"x\r\n"),
    (b"A: b\n\nx\r\ny\n", [(b"A", b" b")], b"x\r\r\ny\r\n"),  # the first line end says what lines end with
    # Mailboxes
    (b"From a@b Thu Jan  1 00:00:00 1970\nA: b\n\nx\n", [(b"A", b" b")], b"x\r\n"),
    (b"From a@b\r\nA: b\r\n\r\n", [(b"A", b" b")], b""),
    (b">From a@b\nA: b\n\n", [(b"A", b" b")], b""),
    (b"From a@b", [], b""),
    (b"A: b\nFrom a@b\n\n", [(b"A", b" b")], b"From a@b\r\n\r\n"),
    (b"From: a@b\n\n", [(b"From", b" a@b")], b""),
]


@pytest.mark.parametrize(("data", "fields", "body"), MESSAGES)
def test_messages(data, fields, body):
    assert parse_message(data) == Message([HeaderField(*field) for field in fields], body)


NAMES = st.text(st.characters(min_codepoint=33, max_codepoint=126, exclude_characters=":"), min_size=1)
LINES = st.binary(max_size=20).map(lambda line: line.translate(None, b"\r\n"))
FIELDS = st.tuples(
    NAMES.map(str.encode).filter(lambda name: not name.startswith((b"From", b">From"))),
    st.lists(LINES, min_size=1, max_size=3).map(b"\r\n ".join),
)


@given(st.lists(FIELDS, max_size=6), st.binary(max_size=60))
def test_what_was_put_together_is_found_again(fields, body):
    fields = [HeaderField(*field) for field in fields]
    data = b"".join(name + b":" + value + b"\r\n" for name, value in fields) + b"\r\n" + body
    assert parse_message(data) == Message(fields, body)


@given(st.lists(FIELDS, max_size=6), st.lists(LINES, max_size=5))
def test_lf_and_crlf_are_the_same_message(fields, body):
    data = b"".join(name + b":" + value + b"\r\n" for name, value in fields) + b"\r\n" + b"\r\n".join(body)
    assert parse_message(data.replace(b"\r\n", b"\n")) == parse_message(data)


@given(
    st.binary(max_size=200)
    | st.lists(st.sampled_from([b"A", b":", b" ", b"\n", b"\r", b"From "])).map(b"".join)
)
def test_nothing_is_lost_and_no_name_is_odd(data):
    fields, body = parse_message(data)
    for name, value in fields:
        assert name
        assert all(33 <= octet <= 126 and octet != ord(":") for octet in name)
        assert all(line[:1] in (b" ", b"\t") for line in value.split(b"\r\n")[1:])
    kept = b"".join(name + value for name, value in fields) + body
    dropped = len(data.translate(None, b"\r\n \t:")) - len(kept.translate(None, b"\r\n \t:"))
    assert dropped == 0 or data.startswith((b"From ", b">From "))


@given(
    st.lists(st.tuples(st.sampled_from([b"A", b"Bc", b"X-Y"]), st.sampled_from([b" b", b" b\r\n\tc", b""])))
)
def test_as_pythons_own_parser_has_it(fields):
    data = b"".join(name + b":" + value + b"\r\n" for name, value in fields) + b"\r\nbody\r\n"
    theirs = message_from_bytes(data, policy=compat32)
    ours = parse_message(data)
    assert [(name.decode(), unfold(value).decode()) for name, value in ours.fields] == [
        (name, value.replace("\r\n", "").strip()) for name, value in theirs.items()
    ]


@pytest.mark.parametrize(
    "data",
    [
        b"A: b\r\n" * 200_000,
        b"A: b\r\n" + b" x\r\n" * 400_000,
        b"\r\n" * 700_000,
        b"A:" + b"x" * 5_000_000,
        b":" * 5_000_000,
        b"A" * 5_000_000,
        b"A: b\n\n" + b"\n" * 2_000_000,
        b"A" + b" " * 5_000_000 + b":x\r\n",
        b" " * 5_000_000,
    ],
)
def test_hostile_sizes_take_little_time(data):
    begin = time.process_time()
    parse_message(data)
    assert time.process_time() - begin < 3  # seconds; what is more than linear takes minutes


@pytest.mark.parametrize(
    ("value", "line"),
    [
        (b"", b""),
        (b" x ", b"x"),
        (b"\tx y\t", b"x y"),
        (b" a\r\n b\n\tc\r d ", b"a b\tc d"),
        (b"\r\n x", b"x"),
        (b" \r\n ", b""),
        (b"a\r\n\r\nb", b"ab"),
        (b"\x0ba\x0c", b"\x0ba\x0c"),
        (b" a  b ", b"a  b"),
    ],
)
def test_unfold(value, line):
    assert unfold(value) == line
