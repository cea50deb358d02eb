"""tcp_table(5): each case of the wire once, run whole, octet by octet, with more behind, and in two parts."""

from __future__ import annotations

import pytest

from harness.wire_cases import Wire
from srsd.errors import ProtocolError
from srsd.wire.answer import Answer, Status
from srsd.wire.tcp_table import (
    NOT_A_REQUEST,
    REPLY_MAXIMUM,
    REQUEST_MAXIMUM,
    Decoder,
    format_reply,
    parse_request,
)

# What is sent, and the key of each request in it; None for a line that is not `get KEY`.
CASES = {
    "one": (b"get alice@example.com\n", [b"alice@example.com"]),
    "two": (b"get a@x\nget b@x\n", [b"a@x", b"b@x"]),
    "carriage return": (b"get a@x\r\n", [b"a@x"]),
    "blanks around": (b"get  \ta@x \t\n", [b"a@x"]),
    "blank inside, not encoded": (b"get a b@x\n", [b"a b@x"]),
    "null sender": (b'get ""\n', [b'""']),
    "no key": (b"get \n", [b""]),
    "nothing but get": (b"get\n", [None]),
    "empty line": (b"\n", [None]),
    "empty lines": (b"\n\n\n", [None, None, None]),
    "put": (b"put a@x b@x\n", [None]),
    "upper case": (b"GET a@x\n", [None]),
    "blank before": (b" get a@x\n", [None]),
    "tab behind get": (b"get\ta@x\n", [None]),
    "getter": (b"getter a@x\n", [None]),
    "binary": (b"\0\xff\x80\n", [None]),
    "8 bit, not encoded": (b"get jos\xc3\xa9@x\n", [b"jos\xc3\xa9@x"]),
    "encoded": (b"get jos%c3%A9%20a%25b%0a%00@x\n", [b"jos\xc3\xa9 a%b\n\0@x"]),
    "encoded blanks stay": (b"get %20a@x%20\n", [b" a@x "]),
    "encoded once only": (b"get %2541@x\n", [b"%41@x"]),
    "a bare %": (b"get a%@x\n", [None]),
    "% at the end": (b"get a@x%\n", [None]),
    "% and one digit": (b"get a@x%4\n", [None]),
    "% and no digits": (b"get %zz@x\n", [None]),
    "% and a sign": (b"get %+1@x\n", [None]),
    "% and an underscore": (b"get %1_@x\n", [None]),
    "% and a blank": (b"get % 1@x\n", [None]),
    "% and 8 bit": (b"get %\xb2\xb2@x\n", [None]),
    "good after bad": (b"rubbish\nget a@x\n", [None, b"a@x"]),
    "pipelined": (b"get k@x\n" * 300, [b"k@x"] * 300),
}


WIRE = Wire(Decoder, parse_request, end=b"\n")


@pytest.mark.parametrize("name", CASES)
def test_whole(name):
    WIRE.check_whole(*CASES[name])


@pytest.mark.parametrize("name", CASES)
def test_octet_by_octet(name):
    WIRE.check_octet_by_octet(*CASES[name])


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("more", [b"g", b"get ", b"get c@", b"\r", b"\0"])
def test_with_more_behind(name, more):
    WIRE.check_with_more_behind(*CASES[name], more, rest=b"\n")


@pytest.mark.parametrize("name", CASES)
def test_in_two_parts(name):
    WIRE.check_in_two_parts(*CASES[name])


LIMIT = REQUEST_MAXIMUM
TOO_LONG = {
    "no newline": b"x" * (LIMIT + 1),
    "a newline at last": b"x" * LIMIT + b"\n",
    "behind a good one": b"get a@x\n" + b"x" * (LIMIT + 1),
    "before a good one": b"x" * (LIMIT + 1) + b"\nget a@x\n",
}


@pytest.mark.parametrize("name", TOO_LONG)
@pytest.mark.parametrize("size", [1 << 30, 4096, 4095, 997])
def test_a_request_over_the_limit_ends_it(name, size):
    sent = TOO_LONG[name]
    decoder = Decoder()
    with pytest.raises(ProtocolError, match="65536 octets"):
        for start in range(0, len(sent), size):
            decoder.feed(sent[start : start + size])


@pytest.mark.parametrize("size", [1 << 30, 4096, 997])
def test_a_request_of_the_limit_is_read(size):
    sent = b"get " + b"k" * (LIMIT - 5) + b"\n"
    decoder = Decoder()
    requests = [
        each for start in range(0, len(sent), size) for each in decoder.feed(sent[start : start + size])
    ]
    assert WIRE.parsed(requests) == [b"k" * (LIMIT - 5)]


REPLIES = [
    (Status.FOUND, b"a@x", b"200 a@x\n"),
    (Status.FOUND, b'"a b"@x', b'200 "a%20b"@x\n'),
    (Status.FOUND, b"50%@x", b"200 50%25@x\n"),
    (Status.FOUND, "josé@x".encode(), b"200 jos%c3%a9@x\n"),
    (Status.FOUND, b"\0\n\r\t\x7f\xff", b"200 %00%0a%0d%09%7f%ff\n"),
    (Status.FOUND, b"!\"#$&'()*+,-./:;<=>?@[\\]^_`{|}~", b"200 !\"#$&'()*+,-./:;<=>?@[\\]^_`{|}~\n"),
    (Status.NOT_FOUND, b"own domain", b"500 own%20domain\n"),
    (Status.TEMPORARY, b"internal error", b"400 internal%20error\n"),
    (Status.PERMANENT, b"no such map", b"400 no%20such%20map\n"),
    (Status.FOUND, b"a" * (REPLY_MAXIMUM - 5), b"200 " + b"a" * (REPLY_MAXIMUM - 5) + b"\n"),
    (Status.FOUND, b"a" * (REPLY_MAXIMUM - 4), b"500 reply%20too%20long\n"),
    (Status.FOUND, b" " * 1363, b"200 " + b"%20" * 1363 + b"\n"),  # the limit holds for what is encoded
    (Status.FOUND, b" " * 1364, b"500 reply%20too%20long\n"),
]


@pytest.mark.parametrize(("status", "text", "line"), REPLIES)
def test_replies(status, text, line):
    reply = format_reply(Answer(status, text))
    assert reply == line
    assert len(reply) <= REPLY_MAXIMUM
    assert reply.count(b"\n") == 1


@pytest.mark.parametrize("octet", range(256))
def test_a_reply_decodes_to_what_it_was(octet):
    text = b"a" + bytes((octet,)) + b"z"
    reply = format_reply(Answer(Status.FOUND, text))
    assert parse_request(b"get " + reply[4:]) == text


def test_what_is_no_request_is_not_found():
    assert format_reply(NOT_A_REQUEST) == b"500 not%20a%20request\n"
