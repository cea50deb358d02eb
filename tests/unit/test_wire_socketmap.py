"""socketmap_table(5): each case of the wire once, run whole, octet by octet, with more behind, and in parts."""

from __future__ import annotations

import pytest

from harness.wire_cases import Wire
from srsd.errors import ProtocolError
from srsd.wire.answer import Answer, Status
from srsd.wire.socketmap import (
    NO_MAP,
    REPLY_MAXIMUM,
    REQUEST_MAXIMUM,
    Decoder,
    format_reply,
    parse_request,
)

# What is sent, and the map and key of each request in it.
CASES = {
    "one": (b"19:forward alice@x.org,", [(b"forward", b"alice@x.org")]),
    "two": (b"11:forward a@x,11:reverse b@x,", [(b"forward", b"a@x"), (b"reverse", b"b@x")]),
    "nothing": (b"0:,", [(b"", b"")]),
    "nothing, twice": (b"0:,0:,", [(b"", b""), (b"", b"")]),
    "no blank": (b"7:forward,", [(b"", b"forward")]),
    "no key": (b"8:forward ,", [(b"forward", b"")]),
    "no map": (b"4: a@x,", [(b"", b"a@x")]),
    "null sender": (b'10:forward "",', [(b"forward", b'""')]),
    "blanks in the key": (b"13:forward a  b ,", [(b"forward", b"a  b ")]),
    "commas and colons": (b"13:forward ,:,1:,", [(b"forward", b",:,1:")]),
    "newlines": (b"10:forward \r\n,", [(b"forward", b"\r\n")]),
    "binary": (b"10:forward \0\xff,", [(b"forward", b"\0\xff")]),
    "a percent sign stays": (b"11:forward %41,", [(b"forward", b"%41")]),
    "two digits of length": (b"12:forward 1@yz,", [(b"forward", b"1@yz")]),
    "three digits of length": (b"108:forward " + b"k" * 100 + b",", [(b"forward", b"k" * 100)]),
    "pipelined": (b"11:forward k@x," * 200, [(b"forward", b"k@x")] * 200),
}


WIRE = Wire(Decoder, parse_request, end=b",")


@pytest.mark.parametrize("name", CASES)
def test_whole(name):
    WIRE.check_whole(*CASES[name])


@pytest.mark.parametrize("name", CASES)
def test_octet_by_octet(name):
    WIRE.check_octet_by_octet(*CASES[name])


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("more", [b"1", b"11", b"11:", b"11:for", b"11:forward a@x"])
def test_with_more_behind(name, more):
    WIRE.check_with_more_behind(*CASES[name], more, rest=b"11:forward a@x,"[len(more) :])


@pytest.mark.parametrize("name", CASES)
def test_in_two_parts(name):
    WIRE.check_in_two_parts(*CASES[name])


BROKEN = {
    "a line of tcp_table": b"get a@x\n",
    "no length": b":forward a@x,",
    "a blank before": b" 11:forward a@x,",
    "a sign": b"+11:forward a@x,",
    "a minus": b"-1:,",
    "a leading zero": b"011:forward a@x,",
    "zeros": b"00:,",
    "hexadecimal": b"0xb:forward a@x,",
    "an underscore": b"1_1:forward a@x,",
    "a digit that is not ASCII": b"1\xb2:forward a@x,",
    "no comma": b"11:forward a@x;",
    "a comma too late": b"11:forward a@xy,",
    "a newline for the comma": b"11:forward a@x\n",
    "more digits than any request has": b"123456",
    "digits for ever": b"1" * 5000,
    "one octet too many": b"65537:",
    "far too many": b"99999:",
    "binary": b"\0\xff\x80",
    "behind a good one": b"11:forward a@x,x",
}


@pytest.mark.parametrize("name", BROKEN)
def test_what_is_broken_ends_it(name):
    sent = BROKEN[name]
    with pytest.raises(ProtocolError):
        Decoder().feed(sent)
    decoder = Decoder()
    with pytest.raises(ProtocolError):
        for index in range(len(sent)):
            decoder.feed(sent[index : index + 1])


@pytest.mark.parametrize("head", [b"x", b":", b"01", b"1x", b"65537:", b"123456", b"\n", b"-", b" "])
def test_what_cannot_become_a_netstring_is_told_at_once(head):
    decoder = Decoder()
    with pytest.raises(ProtocolError):
        for index in range(len(head)):
            decoder.feed(head[index : index + 1])


@pytest.mark.parametrize("size", [1 << 30, 4096, 997])
def test_a_request_of_the_limit_is_read(size):
    key = b"k" * (REQUEST_MAXIMUM - len(b"forward "))
    sent = b"%d:forward %b," % (REQUEST_MAXIMUM, key)
    decoder = Decoder()
    requests = [
        each for start in range(0, len(sent), size) for each in decoder.feed(sent[start : start + size])
    ]
    assert WIRE.parsed(requests) == [(b"forward", key)]


REPLIES = [
    (Status.FOUND, b"a@x", b"6:OK a@x,"),
    (Status.FOUND, b'"a b"@x \xff%\0', b'14:OK "a b"@x \xff%\0,'),
    (Status.NOT_FOUND, b"own domain", b"19:NOTFOUND own domain,"),
    (Status.NOT_FOUND, b"", b"9:NOTFOUND ,"),
    (Status.TEMPORARY, b"internal error", b"19:TEMP internal error,"),
    (Status.PERMANENT, b"no such map", b"16:PERM no such map,"),
    (Status.FOUND, b"a" * (REPLY_MAXIMUM - 3), b"100000:OK " + b"a" * (REPLY_MAXIMUM - 3) + b","),
    (Status.FOUND, b"a" * (REPLY_MAXIMUM - 2), b"23:NOTFOUND reply too long,"),
]


@pytest.mark.parametrize(("status", "text", "netstring"), REPLIES)
def test_replies(status, text, netstring):
    assert format_reply(Answer(status, text)) == netstring


def test_an_unknown_map_is_the_fault_of_the_admin():
    assert format_reply(NO_MAP) == b"16:PERM no such map,"
