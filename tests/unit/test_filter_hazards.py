"""What may break a signature on the way, found in a body that comes in pieces."""

from __future__ import annotations

import time

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from srsd.filter.hazards import EIGHT_BIT, LONG_LINES, NUL, BodyHazards, has_long_lines
from srsd.syntax.header import HeaderField

MAXIMUM = 998  # RFC 5321 §4.5.3.1.6, without the CRLF


def found(*chunks: bytes) -> list[str]:
    hazards = BodyHazards()
    for chunk in chunks:
        hazards.feed(chunk)
    return hazards.found


def naively(body: bytes) -> list[str]:
    """Look at a whole body whose lines end with CRLF, line by line."""
    lines = body.split(b"\r\n")
    return (
        ([EIGHT_BIT] if any(octet > 127 for octet in body) else [])
        + ([LONG_LINES] if any(len(line) > 998 for line in lines) else [])
        + ([NUL] if 0 in body else [])
    )


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (b"", []),
        (b"\r\n", []),
        (b"Hello\r\n", []),
        (b"no line end", []),
        (bytes(range(1, 128)) + b"\r\n", []),
        (b"caf\xc3\xa9\r\n", [EIGHT_BIT]),
        (b"\x80", [EIGHT_BIT]),
        (b"a\0b\r\n", [NUL]),
        (b"x" * 998 + b"\r\n", []),
        (b"x" * 999 + b"\r\n", [LONG_LINES]),
        (b"\xff\0" + b"x" * 1000, [EIGHT_BIT, LONG_LINES, NUL]),
        ((b"x" * 998 + b"\r\n") * 100, []),
        ((b"x" * 998 + b"\r\n") * 100 + b"x" * 999 + b"\r\n", [LONG_LINES]),
    ],
)
def test_what_is_found(body, expected):
    assert found(body) == expected
    assert found(*(body[at : at + 1] for at in range(len(body)))) == expected


@pytest.mark.parametrize("length", range(995, 1004))
@pytest.mark.parametrize("before", [b"", b"\r\n", b"x\r\n", b"x" * 998 + b"\r\n"])
def test_the_longest_line_cut_anywhere(length, before):
    body = before + b"y" * length + b"\r\nz\r\n"
    for at in range(len(body) + 1):
        assert found(body[:at], body[at:]) == ([LONG_LINES] if length > MAXIMUM else []), at


@pytest.mark.parametrize("length", range(995, 1004))
def test_a_last_line_without_a_line_end(length):
    """The next hop ends it, and then it is a line like any."""
    assert found(b"a\r\n" + b"y" * length) == ([LONG_LINES] if length > MAXIMUM else [])


@pytest.mark.parametrize("cut", [1, 2, 3, 997, 998, 999, 1000, 1001, 4096, 65536])
def test_equal_chunks(cut):
    for length in (997, 998, 999, 1000):
        body = (b"x" * length + b"\r\n") * 20
        chunks = [body[at : at + cut] for at in range(0, len(body), cut)]
        assert found(*chunks) == ([LONG_LINES] if length > MAXIMUM else []), length


PIECES = st.sampled_from(
    [b"\r\n", b"x", b"x" * 497, b"x" * 499, b"x" * 996, b"x" * 998, b"x" * 999, b"\0", b"\xe9", b"\r", b""]
)


@given(st.lists(PIECES, max_size=12), st.lists(st.integers(0, 1 << 20), max_size=12))
@example([b"x" * 998, b"\r\n"], [998, 999])
@example([b"x" * 998, b"x", b"\r\n"], [1, 999])
@example([b"\r\n", b"x" * 997, b"\r", b"\r\n"], [999])
def test_however_it_is_cut(pieces, cuts):
    body = b"".join(pieces) + b"\r\n"
    places = sorted(place % (len(body) + 1) for place in cuts)
    chunks = [body[begin:end] for begin, end in zip([0, *places], [*places, len(body)], strict=True)]
    assert found(*chunks) == naively(body)


def test_what_was_seen_is_not_forgotten():
    hazards = BodyHazards()
    for chunk, expected in [
        (b"\0", [NUL]),
        (b"x" * 2000, [LONG_LINES, NUL]),
        (b"\xff", [EIGHT_BIT, LONG_LINES, NUL]),
        (b"\r\nplain\r\n", [EIGHT_BIT, LONG_LINES, NUL]),
    ]:
        hazards.feed(chunk)
        assert hazards.found == expected


def test_an_empty_chunk_ends_no_line():
    assert found(b"x" * 500, b"", b"x" * 499, b"", b"\r\n") == [LONG_LINES]


@pytest.mark.parametrize(
    "unit",
    [
        b"\r\n",
        b"x" * 998 + b"\r\n",
        b"\n" + b"x" * 998,  # the worst: nearly each window is searched in vain
        b"x\r\n",
        b"x" * 499 + b"\n",
        b"x",
        b"\r",
        b"\xff\0",
    ],
)
@pytest.mark.parametrize("cut", [65_535, 1_000, 5_000_000])
def test_five_megabytes_take_little_time(unit, cut):
    body = (unit * (5_000_000 // len(unit) + 1))[:5_000_000]
    took = []
    for _ in range(3):
        begin = time.process_time()
        found(*(body[at : at + cut] for at in range(0, len(body), cut)))
        took.append(time.process_time() - begin)
    assert min(took) < 0.5  # seconds; it takes some milliseconds


@pytest.mark.parametrize(
    ("value", "long"),
    [
        (b" " + b"x" * 995, False),  # with `A:` 998 octets
        (b" " + b"x" * 996, True),
        (b" " + b"x" * 900 + b"\n\t" + b"y" * 900, False),
        (b" " + b"x" * 900 + b"\n\t" + b"y" * 998, True),
        (b" x\n" * 1000, False),
    ],
)
def test_header_lines(value, long):
    assert has_long_lines([HeaderField(b"A", b" b"), HeaderField(b"A", value)]) is long
