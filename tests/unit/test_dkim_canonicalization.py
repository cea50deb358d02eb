"""Canonicalization (RFC 6376 §3.4) of header fields, and of bodies however they are cut."""

from __future__ import annotations

import hashlib
import time
import tracemalloc
from base64 import b64encode
from random import Random

import pytest

from harness.dkim_forge import canonical_body
from srsd.dkim.canonicalization import (
    RELAXED,
    SIMPLE,
    BodyHash,
    BodyHashes,
    BodyHashKey,
    canonical_field,
)

BOTH = (SIMPLE, RELAXED)


def hashed(chunks: list[bytes], canonicalization: bytes, length: int | None = None) -> BodyHash:
    key = BodyHashKey(canonicalization, length)
    hashes = BodyHashes([key])
    for chunk in chunks:
        hashes.feed(chunk)
    return hashes.finish()[key]


def expected(text: bytes, length: int | None = None) -> BodyHash:
    return BodyHash(hashlib.sha256(text if length is None else text[:length]).digest(), len(text))


# Bodies. The first ones are of RFC 6376 §3.4.5.

BODIES = [
    # body, simple, relaxed
    (
        b" C \r\nD \t E\r\n\r\n\r\n",
        b" C \r\nD \t E\r\n",
        b" C\r\nD E\r\n",
    ),
    (b"", b"\r\n", b""),
    (b"\r\n", b"\r\n", b""),
    (b"\r\n\r\n\r\n", b"\r\n", b""),
    (b" ", b" \r\n", b""),
    (b" \r\n", b" \r\n", b""),
    (b" \t\r\n\t\r\n", b" \t\r\n\t\r\n", b""),
    (b"a", b"a\r\n", b"a\r\n"),
    (b"a\r\n", b"a\r\n", b"a\r\n"),
    (b"a \r\n", b"a \r\n", b"a\r\n"),
    (b"a ", b"a \r\n", b"a\r\n"),
    (b"a\r\n ", b"a\r\n \r\n", b"a\r\n"),
    (b"a\r\n \r\n\r\n", b"a\r\n \r\n", b"a\r\n"),
    (b" a", b" a\r\n", b" a\r\n"),
    (b"\t\ta\t \tb", b"\t\ta\t \tb\r\n", b" a b\r\n"),
    (b"a\r\n\r\nb\r\n", b"a\r\n\r\nb\r\n", b"a\r\n\r\nb\r\n"),
    (b"\r\na", b"\r\na\r\n", b"\r\na\r\n"),
    (b"a\r\n \t \r\nb", b"a\r\n \t \r\nb\r\n", b"a\r\n\r\nb\r\n"),
    # CRs and LFs that end no line are octets like any.
    (b"a\n", b"a\n\r\n", b"a\n\r\n"),
    (b"a \nb", b"a \nb\r\n", b"a \nb\r\n"),
    (b"a\r", b"a\r\r\n", b"a\r\r\n"),
    (b"a \r", b"a \r\r\n", b"a \r\r\n"),
    (b"a  \r", b"a  \r\r\n", b"a \r\r\n"),
    (b"a\r\r\n", b"a\r\r\n", b"a\r\r\n"),
    (b"a \r\r\n", b"a \r\r\n", b"a \r\r\n"),
    (b"\n\r\n", b"\n\r\n", b"\n\r\n"),
    (b"\n\r\n\r\n", b"\n\r\n", b"\n\r\n"),
    (b"\r\n\r", b"\r\n\r\r\n", b"\r\n\r\r\n"),
    (b"\r\n\n\r\n\r\n", b"\r\n\n\r\n", b"\r\n\n\r\n"),
    (b"\r\r\n\r\n", b"\r\r\n", b"\r\r\n"),
    (b"\n\r", b"\n\r\r\n", b"\n\r\r\n"),
    # Neither NUL nor 8-bit nor other blanks of Unicode or ASCII are white space.
    (b"a\0\0b\0\r\n", b"a\0\0b\0\r\n", b"a\0\0b\0\r\n"),
    (b"a\x0b\x0c\r\n", b"a\x0b\x0c\r\n", b"a\x0b\x0c\r\n"),
    (b"\xa0\x85\xff\r\n", b"\xa0\x85\xff\r\n", b"\xa0\x85\xff\r\n"),
    ("\u2003ü \r\n".encode(), "\u2003ü \r\n".encode(), "\u2003ü\r\n".encode()),
    (b"." * 5000 + b" \r\n", b"." * 5000 + b" \r\n", b"." * 5000 + b"\r\n"),
]


@pytest.mark.parametrize(("body", "simple", "relaxed"), BODIES)
def test_bodies(body, simple, relaxed):
    assert hashed([body], SIMPLE) == expected(simple)
    assert hashed([body], RELAXED) == expected(relaxed)
    # The model of the other tests says the same.
    assert canonical_body(body, SIMPLE) == simple
    assert canonical_body(body, RELAXED) == relaxed


@pytest.mark.parametrize(("body", "simple", "relaxed"), BODIES)
def test_bodies_octet_by_octet(body, simple, relaxed):
    for chunks in ([body[at : at + 1] for at in range(len(body))], [b"", *[body], b""]):
        assert hashed(chunks, SIMPLE) == expected(simple)
        assert hashed(chunks, RELAXED) == expected(relaxed)


@pytest.mark.parametrize(("body", "simple", "relaxed"), [case for case in BODIES if len(case[0]) < 20])
def test_bodies_cut_anywhere(body, simple, relaxed):
    for first in range(len(body) + 1):
        for second in range(first, len(body) + 1):
            chunks = [body[:first], body[first:second], body[second:]]
            assert hashed(chunks, SIMPLE) == expected(simple)
            assert hashed(chunks, RELAXED) == expected(relaxed)


def test_all_short_bodies():
    """Every body of up to six of these octets, whole and octet by octet: 19,531 of them."""
    octets = b"\r\n \tx"
    bodies = [b""]
    for body in bodies:
        if len(body) < 6:
            bodies += [body + bytes([octet]) for octet in octets]
    assert len(bodies) == 19531
    keys = [BodyHashKey(canonicalization) for canonicalization in BOTH]
    for body in bodies:
        hashes, cut = BodyHashes(keys), BodyHashes(keys)
        hashes.feed(body)
        for at in range(len(body)):
            cut.feed(body[at : at + 1])
        wanted = {key: expected(canonical_body(body, key.canonicalization)) for key in keys}
        assert hashes.finish() == cut.finish() == wanted, body


def test_the_hashes_that_the_rfc_gives():
    """RFC 6376 §3.4.3 and §3.4.4: the SHA-256 of an empty body."""
    assert b64encode(hashed([], SIMPLE).digest) == b"frcCV1k9oG9oKj3dpUqdJg1PxRT2RSN/XKdLCPjaYaY="
    assert b64encode(hashed([], RELAXED).digest) == b"47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU="


@pytest.mark.parametrize("canonicalization", BOTH)
@pytest.mark.parametrize("length", [0, 1, 2, 5, 6, 7, 8, 9, 1000])
def test_length(canonicalization, length):
    body = b"ab \r\n\r\nc\r\n\r\n\r\n"
    text = canonical_body(body, canonicalization)
    assert hashed([body], canonicalization, length) == expected(text, length)
    octets = [body[at : at + 1] for at in range(len(body))]
    assert hashed(octets, canonicalization, length) == expected(text, length)


def test_several_hashes_of_one_body():
    keys = {BodyHashKey(name, length) for name in BOTH for length in (None, 0, 3, 10**70)}
    hashes = BodyHashes([*keys, *keys])
    hashes.feed(b"ab  \r")
    hashes.feed(b"\ncd")
    found = hashes.finish()
    assert found.keys() == keys
    for key in keys:
        assert found[key] == expected(canonical_body(b"ab  \r\ncd", key.canonicalization), key.length)


def test_no_hash_is_wanted():
    hashes = BodyHashes([])
    hashes.feed(b"body\r\n")
    assert hashes.finish() == {}


@pytest.mark.parametrize("canonicalization", BOTH)
@pytest.mark.parametrize(
    "piece",
    [b" ", b"\t", b" \r\n", b"\r\n", b"\r", b"\n", b"\n\r", b"x  ", b" " * 17 + b"x", b"\0", b"a \t\r\n\r\n"],
)
def test_long_repetitions(canonicalization, piece):
    body = b"x" + piece * (300_000 // len(piece)) + b"y\r\n"
    wanted = expected(canonical_body(body, canonicalization))
    for size in (300_100, 65_536, 65_535, 4096, 1021):
        chunks = [body[at : at + size] for at in range(0, len(body), size)]
        assert hashed(chunks, canonicalization) == wanted


@pytest.mark.parametrize("count", [1, 4095, 4096, 4097, 10_000])
def test_many_empty_lines(count):
    for canonicalization in BOTH:
        body = b"a\r\n" + b"\r\n" * count + b"b\r\n"
        assert hashed([body], canonicalization) == expected(body)
        assert hashed([body, b"\r\n" * count], canonicalization) == expected(body)


@pytest.mark.parametrize("piece", [b" ", b"\r\n", b"word  and word \r\n", b"\r"])
def test_memory_does_not_grow_with_the_body(piece):
    chunk = piece * (65_536 // len(piece))
    hashes = BodyHashes([BodyHashKey(SIMPLE), BodyHashKey(RELAXED)])
    hashes.feed(chunk)
    tracemalloc.start()
    for _ in range(160):  # ten megabytes
        hashes.feed(chunk)
    now, peak = tracemalloc.get_traced_memory()
    hashes.feed(b"end\r\n")
    hashes.finish()
    tracemalloc.stop()
    assert now < 10_000
    assert peak < 2_000_000


@pytest.mark.parametrize(
    "body",
    [
        b" " * 1_000_000,
        b" \t" * 500_000,
        (b" " * 15 + b"x") * 62_500,
        (b" " * 31 + b"x") * 31_250,
        b"a  " * 333_333,
        b" \r\n" * 333_333,
        b"\r\n" * 500_000,
        b"\r" * 1_000_000,
        b"\n" + b"\r\n" * 500_000,
        b"a " * 250_000 + b" " * 500_000,
    ],
    ids=[
        "blanks",
        "tabs",
        "runs of 15",
        "runs of 31",
        "pairs",
        "blank lines",
        "empty lines",
        "CRs",
        "LF",
        "half",
    ],
)
def test_a_hostile_megabyte_takes_little_time(body):
    """The target is 20 ms; thirty times that leaves room for busy machines, not for squares."""
    took = []
    for _ in range(3):
        begin = time.process_time()
        hashed([body], RELAXED)
        took.append(time.process_time() - begin)
    assert min(took) < 0.6


def test_random_bodies_agree_with_the_model():
    random = Random(6376)
    words = (
        b"a",
        b"word",
        b" ",
        b"  ",
        b"\t",
        b"\r\n",
        b"\r\n\r\n",
        b"\r",
        b"\n",
        b" \r\n",
        b"=3D",
        b" " * 70,
    )
    for _ in range(3000):
        body = b"".join(random.choices(words, k=random.randint(0, 60)))
        cuts = sorted(random.choices(range(len(body) + 1), k=random.randint(0, 5)))
        chunks = [body[begin:end] for begin, end in zip([0, *cuts], [*cuts, len(body)], strict=True)]
        for canonicalization in BOTH:
            wanted = expected(canonical_body(body, canonicalization))
            assert hashed(chunks, canonicalization) == wanted, (body, cuts)


# Header fields.


@pytest.mark.parametrize(
    ("name", "value", "relaxed"),
    [
        (b"A", b" X", b"a:X"),  # §3.4.5
        (b"B ", b" Y\t\r\n\tZ  ", b"b:Y Z"),
        (b"SUBJect", b" AbC", b"subject:AbC"),
        (b"Subject", b"", b"subject:"),
        (b"Subject", b" ", b"subject:"),
        (b"Subject", b"\t \r\n \t", b"subject:"),
        (b"Subject", b"x", b"subject:x"),
        (b"Subject", b"  a  b  ", b"subject:a b"),
        (b"Subject", b"\ta\tb\t", b"subject:a b"),
        (b"Subject", b" a\n b", b"subject:a b"),  # as Postfix folds for a milter
        (b"Subject", b" a \n\t b", b"subject:a b"),
        (b"Subject", b" a\r\n\r\n b", b"subject:a b"),
        (b"Subject", b" a\rb", b"subject:a\rb"),
        (b"Subject", b" a\r\r\n b", b"subject:a\r b"),
        (b"Subject", b" a\x0b\x0c ", b"subject:a\x0b\x0c"),
        (b"Subject", b" \xa0\xff ", b"subject:\xa0\xff"),
        (b"Subject", b" a: b ", b"subject:a: b"),
        (b"Subject\t ", b"x", b"subject:x"),
        (b"Subject", b" " * 100 + b"a" + b"\t" * 100 + b"b", b"subject:a b"),
    ],
)
def test_relaxed_fields(name, value, relaxed):
    assert canonical_field(RELAXED, name, value) == relaxed


@pytest.mark.parametrize(
    ("name", "value", "simple"),
    [
        (b"A", b" X", b"A: X"),
        (b"B ", b" Y\t\r\n\tZ  ", b"B : Y\t\r\n\tZ  "),
        (b"SUBJect", b"AbC  ", b"SUBJect:AbC  "),
        (b"Subject", b" a\n b\n\tc", b"Subject: a\r\n b\r\n\tc"),  # the milter's LF stands for CRLF
        (b"Subject", b" a\n b\r\n\tc", b"Subject: a\r\n b\r\n\tc"),
        (b"Subject", b" a\rb", b"Subject: a\rb"),
    ],
)
def test_simple_fields(name, value, simple):
    assert canonical_field(SIMPLE, name, value) == simple
