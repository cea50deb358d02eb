"""The packets of the milter protocol, against octets written down by hand from libmilter's mfdef.h."""

from __future__ import annotations

import tracemalloc
from ipaddress import IPv4Address, IPv6Address

import pytest

from harness import milter_client as mta
from harness.milter_client import packet
from srsd.errors import ProtocolError
from srsd.syntax.header import HeaderField
from srsd.wire.milter import (
    CONTINUE,
    NO_REPLY,
    PACKET_MAXIMUM,
    Accept,
    Action,
    AddHeader,
    AddRecipient,
    ChangeFrom,
    ChangeHeader,
    Command,
    Connect,
    Continue,
    Decoder,
    DeleteRecipient,
    Discard,
    InsertHeader,
    MacroStage,
    Negotiation,
    Path,
    Progress,
    Quarantine,
    Reject,
    ReplaceBody,
    Reply,
    ReplyCode,
    ShutDown,
    Skip,
    Step,
    TemporaryFailure,
    format_negotiation,
    format_packet,
    format_reply,
    needed_action,
    parse_connect,
    parse_header,
    parse_macros,
    parse_negotiation,
    parse_path,
    parse_text,
)

# The numbers, by the names of mfdef.h and mfapi.h (Sendmail 8.14 and later).
SMFIC = {
    "ABORT": "A", "BODY": "B", "CONNECT": "C", "MACRO": "D", "BODYEOB": "E", "HELO": "H", "QUIT_NC": "K",
    "HEADER": "L", "MAIL": "M", "EOH": "N", "OPTNEG": "O", "QUIT": "Q", "RCPT": "R", "DATA": "T", "UNKNOWN": "U",
}  # fmt: skip
SMFIR = {
    "ADDRCPT": "+", "DELRCPT": "-", "ADDRCPT_PAR": "2", "SHUTDOWN": "4", "ACCEPT": "a", "REPLBODY": "b",
    "CONTINUE": "c", "DISCARD": "d", "CHGFROM": "e", "CONN_FAIL": "f", "ADDHEADER": "h", "INSHEADER": "i",
    "CHGHEADER": "m", "PROGRESS": "p", "QUARANTINE": "q", "REJECT": "r", "SKIP": "s", "TEMPFAIL": "t",
    "REPLYCODE": "y",
}  # fmt: skip
SMFIF = {
    "ADDHDRS": 1, "CHGBODY": 2, "ADDRCPT": 4, "DELRCPT": 8, "CHGHDRS": 16, "QUARANTINE": 32, "CHGFROM": 64,
    "ADDRCPT_PAR": 128, "SETSYMLIST": 256,
}  # fmt: skip
SMFIP = {
    "NOCONNECT": 0x1, "NOHELO": 0x2, "NOMAIL": 0x4, "NORCPT": 0x8, "NOBODY": 0x10, "NOHDRS": 0x20, "NOEOH": 0x40,
    "NR_HDR": 0x80, "NOUNKNOWN": 0x100, "NODATA": 0x200, "SKIP": 0x400, "RCPT_REJ": 0x800, "NR_CONN": 0x1000,
    "NR_HELO": 0x2000, "NR_MAIL": 0x4000, "NR_RCPT": 0x8000, "NR_DATA": 0x10000, "NR_UNKN": 0x20000,
    "NR_EOH": 0x40000, "NR_BODY": 0x80000, "HDR_LEADSPC": 0x100000,
}  # fmt: skip
SMFIM = {"CONNECT": 0, "HELO": 1, "ENVFROM": 2, "ENVRCPT": 3, "DATA": 4, "EOM": 5, "EOH": 6}


def test_the_numbers_are_those_of_libmilter():
    assert {member.value for member in Command} == {ord(letter) for letter in SMFIC.values()}
    assert {member.value for member in Reply} == {ord(letter) for letter in SMFIR.values()}
    assert {member.value for member in Action} == set(SMFIF.values())
    assert {member.value for member in Step} == set(SMFIP.values())
    assert {member.value for member in MacroStage} == set(SMFIM.values())


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (Command.END_OF_MESSAGE, "E"),
        (Command.END_OF_HEADERS, "N"),
        (Command.QUIT_NEW_CONNECTION, "K"),
        (Command.HEADER, "L"),
        (Command.MACRO, "D"),
        (Reply.CHANGE_FROM, "e"),
        (Reply.CHANGE_HEADER, "m"),
        (Reply.INSERT_HEADER, "i"),
        (Reply.ADD_HEADER, "h"),
        (Reply.SHUT_DOWN, "4"),
        (Reply.REPLY_CODE, "y"),
    ],
)
def test_names_that_could_be_mixed_up(ours, theirs):
    assert chr(ours) == theirs


def test_steps_and_stages_by_name():
    names = {
        Step.NO_CONNECT: "NOCONNECT", Step.NO_HELO: "NOHELO", Step.NO_MAIL: "NOMAIL", Step.NO_RECIPIENT: "NORCPT",
        Step.NO_BODY: "NOBODY", Step.NO_HEADERS: "NOHDRS", Step.NO_END_OF_HEADERS: "NOEOH",
        Step.NO_REPLY_HEADER: "NR_HDR", Step.NO_UNKNOWN: "NOUNKNOWN", Step.NO_DATA: "NODATA", Step.SKIP: "SKIP",
        Step.REJECTED_RECIPIENTS: "RCPT_REJ", Step.NO_REPLY_CONNECT: "NR_CONN", Step.NO_REPLY_HELO: "NR_HELO",
        Step.NO_REPLY_MAIL: "NR_MAIL", Step.NO_REPLY_RECIPIENT: "NR_RCPT", Step.NO_REPLY_DATA: "NR_DATA",
        Step.NO_REPLY_UNKNOWN: "NR_UNKN", Step.NO_REPLY_END_OF_HEADERS: "NR_EOH", Step.NO_REPLY_BODY: "NR_BODY",
        Step.HEADER_LEADING_SPACE: "HDR_LEADSPC",
    }  # fmt: skip
    assert {step: SMFIP[name] for step, name in names.items()} == {step: step.value for step in Step}
    actions = {
        Action.ADD_HEADERS: "ADDHDRS", Action.CHANGE_BODY: "CHGBODY", Action.ADD_RECIPIENTS: "ADDRCPT",
        Action.DELETE_RECIPIENTS: "DELRCPT", Action.CHANGE_HEADERS: "CHGHDRS", Action.QUARANTINE: "QUARANTINE",
        Action.CHANGE_FROM: "CHGFROM", Action.ADD_RECIPIENTS_WITH_ARGUMENTS: "ADDRCPT_PAR",
        Action.SET_MACROS: "SETSYMLIST",
    }  # fmt: skip
    assert {action: SMFIF[name] for action, name in actions.items()} == {each: each.value for each in Action}
    stages = {
        MacroStage.CONNECT: "CONNECT", MacroStage.HELO: "HELO", MacroStage.MAIL: "ENVFROM",
        MacroStage.RECIPIENT: "ENVRCPT", MacroStage.DATA: "DATA", MacroStage.END_OF_MESSAGE: "EOM",
        MacroStage.END_OF_HEADERS: "EOH",
    }  # fmt: skip
    assert {stage: SMFIM[name] for stage, name in stages.items()} == {each: each.value for each in MacroStage}


def test_each_command_that_waits_for_an_answer_has_its_no_reply_step():
    assert {bytes([command]): step.value for command, step in NO_REPLY.items()} == mta.NO_REPLY


# The stream.

STREAM = (
    b"\0\0\0\x0dO\0\0\0\x06\0\0\x01\xff\0\x1f\xff\xff"
    b"\0\0\0\x06DCj\0x\0"
    b"\0\0\0\x13Cmx.example\0" + b"4\x9c\x401.2\0"
    b"\0\0\0\x01N"
    b"\0\0\0\x05B\0\0\r\n"
    b"\0\0\0\x01E"
    b"\0\0\0\x01Q"
)
PACKETS = [
    (ord("O"), b"\0\0\0\x06\0\0\x01\xff\0\x1f\xff\xff"),
    (ord("D"), b"Cj\0x\0"),
    (ord("C"), b"mx.example\0004\x9c\x401.2\0"),
    (ord("N"), b""),
    (ord("B"), b"\0\0\r\n"),
    (ord("E"), b""),
    (ord("Q"), b""),
]


def test_a_stream_at_once():
    decoder = Decoder()
    assert decoder.feed(STREAM) == PACKETS
    assert not decoder.pending


def test_a_stream_octet_by_octet():
    decoder = Decoder()
    got = []
    for index in range(len(STREAM)):
        got += decoder.feed(STREAM[index : index + 1])
    assert got == PACKETS
    assert not decoder.pending


def test_a_stream_in_two_and_in_three_parts():
    for first in range(len(STREAM) + 1):
        for second in range(first, len(STREAM) + 1):
            decoder = Decoder()
            got = decoder.feed(STREAM[:first])
            assert decoder.pending == (STREAM[:first] != b"".join(map(_whole, got)))
            got += decoder.feed(STREAM[first:second])
            got += decoder.feed(STREAM[second:])
            assert got == PACKETS, (first, second)
            assert not decoder.pending


def _whole(part: tuple[int, bytes]) -> bytes:
    return packet(bytes([part[0]]), part[1])


def test_no_octet_is_kept_of_what_was_given():
    decoder = Decoder()
    data = bytearray(packet(b"B", b"first"))
    ((_, taken),) = decoder.feed(bytes(data))
    data[5:10] = b"other"
    assert taken == b"first"
    decoder.feed(packet(b"B", b"second")[:7])
    ((_, taken),) = decoder.feed(packet(b"B", b"second")[7:])
    decoder.feed(packet(b"B", b"xxxxxxxxx")[:8])
    assert taken == b"second"


def test_unknown_commands_are_packets_like_others():
    assert Decoder().feed(packet(b"?", b"x") + packet(b"\xff")) == [(ord("?"), b"x"), (0xFF, b"")]


def test_a_packet_of_the_maximum():
    data = b"x" * (PACKET_MAXIMUM - 1)
    for size in (1 << 30, 65536, 4096):
        decoder = Decoder()
        got = []
        octets = packet(b"B", data) + packet(b"E")
        for start in range(0, len(octets), size):
            got += decoder.feed(octets[start : start + size])
        assert got == [(ord("B"), data), (ord("E"), b"")]


def test_what_postfix_sends_at_most_fits():
    header = mta.strings(b"X" * 60000, b"y" * 60000)  # more than its limit of 60,000 for both
    assert len(header) < PACKET_MAXIMUM
    assert mta.CHUNK < PACKET_MAXIMUM


LENGTHS = {
    "nothing": 0,
    "one too many": PACKET_MAXIMUM + 1,
    "2 GiB": 1 << 31,
    "4 GiB": 0xFFFF_FFFF,
    "a line of SMTP": int.from_bytes(b"HELO", "big"),
}


@pytest.mark.parametrize("length", LENGTHS.values(), ids=LENGTHS)
@pytest.mark.parametrize("before", [b"", packet(b"N")], ids=["first", "behind another"])
def test_a_length_that_no_packet_has_is_told_by_its_fourth_octet(length, before):
    octets = before + length.to_bytes(4, "big")
    with pytest.raises(ProtocolError):
        Decoder().feed(octets)
    decoder = Decoder()
    with pytest.raises(ProtocolError):
        for index in range(len(octets)):
            decoder.feed(octets[index : index + 1])
    assert index == len(octets) - 1


def test_nothing_is_allocated_for_a_length():
    many = [Decoder() for _ in range(100)]
    tracemalloc.start()
    try:
        for decoder in many:
            decoder.feed(PACKET_MAXIMUM.to_bytes(4, "big") + b"B")
        kept, _ = tracemalloc.get_traced_memory()
        with pytest.raises(ProtocolError):
            many[0].feed(packet(b"B", b"x" * PACKET_MAXIMUM)[:100] * 2000)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert kept < 100_000
    assert peak < 1_000_000


# What each command carries.


def test_negotiation():
    data = b"\0\0\0\x06\0\0\x01\xff\0\x1f\xff\xff"
    assert parse_negotiation(data) == Negotiation(6, 0x1FF, 0x1FFFFF)
    assert parse_negotiation(data + b"what newer versions may add") == Negotiation(6, 0x1FF, 0x1FFFFF)
    assert parse_negotiation(b"\xff" * 12) == Negotiation(0xFFFFFFFF, 0xFFFFFFFF, 0xFFFFFFFF)
    for short in range(12):
        with pytest.raises(ProtocolError):
            parse_negotiation(data[:short])


CONNECTS = {
    "IPv4": (b"mx.example\0004\x9c\x40192.0.2.1\0", b"mx.example", IPv4Address("192.0.2.1")),
    "IPv6": (b"mx.example\0006\x9c\x402001:db8::1\0", b"mx.example", IPv6Address("2001:db8::1")),
    "IPv6 as Sendmail has it": (b"x\x006\0\x19IPv6:2001:db8::1\0", b"x", IPv6Address("2001:db8::1")),
    "IPv6 in capitals": (b"x\x006\0\x19IPV6:2001:DB8::1\0", b"x", IPv6Address("2001:db8::1")),
    "IPv4 in IPv6": (b"x\x006\0\x19::ffff:192.0.2.1\0", b"x", IPv4Address("192.0.2.1")),
    "IPv4 in IPv6 as Sendmail has it": (
        b"x\x006\0\x19IPv6:::ffff:192.0.2.1\0",
        b"x",
        IPv4Address("192.0.2.1"),
    ),
    "IPv6 with a zone": (b"x\x006\0\x19fe80::1%eth0\0", b"x", IPv6Address("fe80::1")),
    "a port with NUL and dots": (b"x\x004\0.192.0.2.1\0", b"x", IPv4Address("192.0.2.1")),
    "no NUL at the end": (b"x\x004\0\x19192.0.2.1", b"x", IPv4Address("192.0.2.1")),
    "unix": (b"localhost\0L\0\0/run/socket\0", b"localhost", None),
    "unknown": (b"unknown\0U", b"unknown", None),
    "unknown with more": (b"unknown\0U\0\0192.0.2.1\0", b"unknown", None),
    "a family that is none": (b"x\0?\0\x19192.0.2.1\0", b"x", None),
    "no port": (b"x\x004", b"x", None),
    "no address": (b"x\x004\0\x19\0", b"x", None),
    "an address that is none": (b"x\x004\0\x19unknown\0", b"x", None),
    "an address of 8 bits": (b"x\x004\0\x19192.0.2.\xb2\0", b"x", None),
    "leading zeros": (b"x\x004\0\x19192.0.2.01\0", b"x", None),
    "a network": (b"x\x004\0\x19192.0.2.0/24\0", b"x", None),
    "an empty name": (b"\x004\0\x19192.0.2.1\0", b"", IPv4Address("192.0.2.1")),
    "a name of 8 bits": (
        b"\xe5\xff.example\x004\0\x19192.0.2.1\0",
        b"\xe5\xff.example",
        IPv4Address("192.0.2.1"),
    ),
    "a bad A-label": (b"xn--0.example\x004\0\x19192.0.2.1\0", b"xn--0.example", IPv4Address("192.0.2.1")),
}


@pytest.mark.parametrize(("data", "host", "address"), CONNECTS.values(), ids=CONNECTS)
def test_connect(data, host, address):
    assert parse_connect(data) == Connect(host, address)


@pytest.mark.parametrize("data", [b"", b"x", b"x\0", b"\0", b"mx.example"])
def test_a_connect_that_is_cut_short(data):
    with pytest.raises(ProtocolError):
        parse_connect(data)


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (b"mx.example\0", b"mx.example"),
        (b"mx.example", b"mx.example"),
        (b"\0", b""),
        (b"", b""),
        (b"\xff\xfe [x]\0", b"\xff\xfe [x]"),
        (b"a\0b\0", b"a"),
    ],
)
def test_text(data, text):
    assert parse_text(data) == text


PATHS = {
    "smtpd": (b"<a@b.example>\0", b"<a@b.example>", ()),
    "smtpd with arguments": (b"<a@b>\0SIZE=5\0BODY=8BITMIME\0", b"<a@b>", (b"SIZE=5", b"BODY=8BITMIME")),
    "cleanup": (b"a@b.example\0", b"a@b.example", ()),
    "the null sender of smtpd": (b"<>\0", b"<>", ()),
    "the null sender of cleanup": (b"\0", b"", ()),
    "8 bits": (b"<\xc3\xa9\xff@b>\0SMTPUTF8\0", b"<\xc3\xa9\xff@b>", (b"SMTPUTF8",)),
    "an empty argument": (b"<a@b>\0\0X\0", b"<a@b>", (b"", b"X")),
    "nothing": (b"", b"", ()),
    "no NUL": (b"<a@b>", b"<a@b>", ()),
}


@pytest.mark.parametrize(("data", "text", "arguments"), PATHS.values(), ids=PATHS)
def test_path(data, text, arguments):
    assert parse_path(data) == Path(text, arguments)


HEADERS = {
    "one line": (b"Subject\0 hello\0", b"Subject", b" hello"),
    "folded by Postfix": (b"To\0 a@b,\n\tc@d\0", b"To", b" a@b,\n\tc@d"),
    "no blank": (b"X\0y\0", b"X", b"y"),
    "a tab": (b"X\0\ty\0", b"X", b"\ty"),
    "an empty value": (b"X\0\0", b"X", b""),
    "an empty name": (b"\0y\0", b"", b"y"),
    "8 bits": (b"X-\xff\0 \xc3\xa9\xff\0", b"X-\xff", b" \xc3\xa9\xff"),
    "more behind": (b"X\0 y\0z\0", b"X", b" y"),
}


@pytest.mark.parametrize(("data", "name", "value"), HEADERS.values(), ids=HEADERS)
def test_header(data, name, value):
    assert parse_header(data, b"") == HeaderField(name, value)
    assert parse_header(data, b" ") == HeaderField(name, b" " + value)


@pytest.mark.parametrize("data", [b"", b"Subject", b"Subject\0", b"Subject\0 no end", b"\0"])
def test_a_header_that_is_cut_short(data):
    with pytest.raises(ProtocolError):
        parse_header(data, b"")


MACROS = {
    "none": (b"C", "C", {}),
    "one letter": (b"Mi\0004XyZ\0", "M", {b"i": b"4XyZ"}),
    "one letter in braces": (b"M{i}\0004XyZ\0", "M", {b"i": b"4XyZ"}),
    "a name": (b"C{daemon_name}\0ORIGINATING\0", "C", {b"daemon_name": b"ORIGINATING"}),
    "a name without braces": (b"Cdaemon_name\0X\0", "C", {b"daemon_name": b"X"}),
    "several": (b"Cj\0mx\0{daemon_name}\0X\0_\0y [1.2.3.4]\0", "C", {b"j": b"mx", b"daemon_name": b"X", b"_": b"y [1.2.3.4]"}),
    "an empty value": (b"M{auth_authen}\0\0", "M", {b"auth_authen": b""}),
    "8 bits": (b"M{mail_addr}\0\xe5\xff\0", "M", {b"mail_addr": b"\xe5\xff"}),
    "for a command that is none": (b"?i\0x\0", "?", {b"i": b"x"}),
}  # fmt: skip


@pytest.mark.parametrize(("data", "command", "macros"), MACROS.values(), ids=MACROS)
def test_macros(data, command, macros):
    assert parse_macros(data) == (ord(command), macros)


def test_macros_that_are_cut_short():
    with pytest.raises(ProtocolError):
        parse_macros(b"")


def test_a_macro_without_its_value_takes_none_of_another():
    stage, macros = parse_macros(b"Ci\0one\0j")
    assert stage == ord("C")
    assert macros[b"i"] == b"one"
    assert macros.get(b"j", b"") == b""


# What a milter answers.

REPLIES = {
    "add header": (AddHeader(b"X", b" y"), b"\0\0\0\x06hX\0 y\0"),
    "insert header": (InsertHeader(0, b"X", b" y"), b"\0\0\0\x0ai\0\0\0\0X\0 y\0"),
    "insert header further down": (InsertHeader(258, b"X", b" y"), b"\0\0\0\x0ai\0\0\x01\x02X\0 y\0"),
    "change header": (ChangeHeader(2, b"X", b" y"), b"\0\0\0\x0am\0\0\0\x02X\0 y\0"),
    "delete header": (ChangeHeader(1, b"X"), b"\0\0\0\x08m\0\0\0\x01X\0\0"),
    "change sender": (ChangeFrom(b"<a@b>"), b"\0\0\0\x07e<a@b>\0"),
    "add recipient": (AddRecipient(b"<a@b>"), b"\0\0\0\x07+<a@b>\0"),
    "add recipient with arguments": (AddRecipient(b"<a@b>", b"NOTIFY=NEVER"), b"\0\0\0\x142<a@b>\0NOTIFY=NEVER\0"),
    "delete recipient": (DeleteRecipient(b"<a@b>"), b"\0\0\0\x07-<a@b>\0"),
    "replace body": (ReplaceBody(b"a\0b\r\n"), b"\0\0\0\x06ba\0b\r\n"),
    "quarantine": (Quarantine(b"why"), b"\0\0\0\x05qwhy\0"),
    "progress": (Progress(), b"\0\0\0\x01p"),
    "accept": (Accept(), b"\0\0\0\x01a"),
    "continue": (Continue(), b"\0\0\0\x01c"),
    "skip": (Skip(), b"\0\0\0\x01s"),
    "discard": (Discard(), b"\0\0\0\x01d"),
    "reject": (Reject(), b"\0\0\0\x01r"),
    "temporary failure": (TemporaryFailure(), b"\0\0\0\x01t"),
    "shut down": (ShutDown(), b"\0\0\0\x014"),
    "a reply of our own": (ReplyCode(550, b"5.7.1", b"no"), b"\0\0\0\x0ey550 5.7.1 no\0"),
    "a per cent sign is doubled": (ReplyCode(451, b"4.7.1", b"9%s"), b"\0\0\0\x10y451 4.7.1 9%%s\0"),
}  # fmt: skip


@pytest.mark.parametrize(("reply", "octets"), REPLIES.values(), ids=REPLIES)
def test_replies(reply, octets):
    assert format_reply(reply) == octets
    assert mta.split_packets(octets)  # the lengths above are right


VALUES = [
    (AddHeader(b"X", b" y"), b"hX\0y\0"),
    (InsertHeader(0, b"X", b" y"), b"i\0\0\0\0X\0y\0"),
    (ChangeHeader(1, b"X", b" y"), b"m\0\0\0\x01X\0y\0"),
    (ChangeHeader(1, b"X"), b"m\0\0\0\x01X\0\0"),
    (AddHeader(b"X", b"  y"), b"hX\0 y\0"),  # the MTA puts one blank in front
    (AddHeader(b"X", b"y"), b"hX\0y\0"),
    (AddHeader(b"X", b"\n\ty"), b"hX\0\n\ty\0"),
    (AddRecipient(b" x"), b"+ x\0"),
]


@pytest.mark.parametrize(("reply", "octets"), VALUES, ids=str)
def test_replies_to_an_mta_that_puts_a_blank_before_values(reply, octets):
    assert format_reply(reply, leading_space=False)[4:] == octets


def test_every_reply_has_an_expectation_here():
    spelled = {octets[4:5] for _, octets in REPLIES.values()}
    assert spelled == {bytes([reply]) for reply in Reply} - {b"f"}  # Postfix knows no CONN_FAIL


NEEDED = {
    "add header": 0x01,
    "insert header": 0x01,
    "insert header further down": 0x01,
    "change header": 0x10,
    "delete header": 0x10,
    "replace body": 0x02,
    "add recipient": 0x04,
    "add recipient with arguments": 0x80,
    "delete recipient": 0x08,
    "quarantine": 0x20,
    "change sender": 0x40,
}


@pytest.mark.parametrize("name", REPLIES)
def test_what_has_to_be_agreed_before(name):
    assert needed_action(REPLIES[name][0]) == NEEDED.get(name, 0)


def test_a_negotiation_is_answered():
    assert format_negotiation(6, 0x11, 0x1FF080, {}) == b"\0\0\0\x0dO\0\0\0\x06\0\0\0\x11\0\x1f\xf0\x80"
    macros = {MacroStage.CONNECT: b"j {daemon_name}", MacroStage.END_OF_HEADERS: b"i"}
    assert format_negotiation(2, 0, 0, macros) == (
        b"\0\0\0\x27O\0\0\0\x02\0\0\0\0\0\0\0\0" + b"\0\0\0\0j {daemon_name}\0" + b"\0\0\0\x06i\0"
    )


def test_packets():
    assert format_packet(Reply.CONTINUE) == CONTINUE == b"\0\0\0\x01c"
    assert format_packet(Reply.REPLACE_BODY, b"x" * 65535)[:5] == b"\0\x01\0\0b"
