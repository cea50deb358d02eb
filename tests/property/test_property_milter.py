"""A milter session does the same however its octets come, and answers by a model written down here."""

from __future__ import annotations

import hashlib
import struct
from dataclasses import dataclass
from ipaddress import ip_address
from itertools import pairwise

from hypothesis import example, given
from hypothesis import strategies as st

from harness import milter_client as mta
from harness.milter_client import (
    ALL_ACTIONS,
    ALL_STEPS,
    connect_data,
    macro_data,
    packet,
    split_packets,
    strings,
)
from srsd.errors import ProtocolError
from srsd.wire.milter import Action, Connect, Continue, Decoder, InsertHeader, Path, Step
from srsd.wire.milter_session import Decision, Envelope, Session

LEADING_SPACE = 0x100000


# What is tested: a decoder and a session, with a filter that shows all that it was told.


class Digest:
    """A message that answers with a digest of what it saw. Body chunks count as one text."""

    def __init__(self, envelope) -> None:
        self.seen = hashlib.sha256(repr(envelope).encode())
        self.content = b""

    def headers(self, fields) -> None:
        for field in fields:
            self.seen.update(repr(tuple(field)).encode())

    def end_of_headers(self) -> None:
        self.seen.update(b"EOH")

    def body(self, chunk) -> None:
        self.content += chunk

    def end_of_message(self, macros):
        self.seen.update(self.content + repr(sorted(macros.items())).encode())
        return Decision((InsertHeader(0, b"X", b" " + self.seen.hexdigest().encode()),), Continue())

    def abort(self) -> None:
        pass


class Judge:
    """A filter that wants everything."""

    actions = Action.ADD_HEADERS
    unwanted = Step(0)
    refused = None
    macros: dict = {}  # noqa: RUF012 - never changed

    def __init__(self) -> None:
        self.agreements: dict = {}

    def begin(self, envelope) -> Digest:
        return Digest(envelope)


def drive(chunks) -> tuple[list[bytes], bool, bool]:
    """Feed chunks; return the replies, whether part of a packet is pending, and whether it was refused."""
    decoder, session = Decoder(), Session(Judge())
    replies = []
    for chunk in chunks:
        try:
            packets = decoder.feed(chunk)
            for command, data in packets:
                if session.finished:
                    return replies, False, False
                reply = session.receive(command, data)
                if reply:
                    replies.append(reply)
        except ProtocolError:
            return replies, False, True
    return replies, decoder.pending, False


def cut(octets: bytes, places) -> list[bytes]:
    edges = [0, *sorted(place % (len(octets) + 1) for place in places), len(octets)]
    return [octets[begin:end] for begin, end in pairwise(edges)]


# Any packets.

WORD = st.sampled_from(
    [b"", b"x", b"<a@b.example>", b"i", b"{daemon_name}", b"4", b"6", b"U", b"192.0.2.1", b"\xff"]
)
DATA = st.binary(max_size=30) | st.lists(WORD | st.binary(max_size=5), max_size=5).map(
    lambda texts: strings(*texts)
)
COMMAND = st.sampled_from(list(b"ABCDEHKLMNRTU")).map(lambda octet: bytes([octet]))
OFFER = st.tuples(
    st.integers(2, 7), st.sampled_from([0x1FF, 0x1, 0x101]), st.integers(0, ALL_STEPS) | st.just(ALL_STEPS)
).map(lambda offer: packet(b"O", struct.pack(">III", *offer)))
ORDERED = st.sampled_from(
    [
        (b"M", b"<a@b>\0"),
        (b"R", b"<c@d>\0"),
        (b"T", b""),
        (b"L", b"A\0 b\0"),
        (b"N", b""),
        (b"B", b"x"),
        (b"E", b""),
    ]
)
PACKET = st.one_of(
    st.tuples(COMMAND, DATA).map(lambda each: packet(*each)),
    ORDERED.map(lambda each: packet(*each)),
    ORDERED.map(lambda each: packet(*each)),
    OFFER,
)
GARBAGE = st.binary(max_size=12)
STREAM = st.one_of(
    st.binary(max_size=100),
    st.tuples(OFFER, st.lists(PACKET | GARBAGE, max_size=25).map(b"".join)).map(b"".join),
    st.tuples(OFFER, st.lists(PACKET, max_size=25).map(b"".join)).map(b"".join),
)
PLACES = st.lists(st.integers(0, 2000), max_size=12)


@given(STREAM, PLACES)
@example(
    packet(b"O", struct.pack(">III", 2, 0x1FF, 0)) + packet(b"M", b"<>\0") + packet(b"E", b"x"), [1, 2, 3]
)
@example(b"\0\0\0\0", [1])
@example(b"\xff\xff\xff\xff", [2, 3])
def test_replies_do_not_depend_on_how_the_octets_come(octets, places):
    whole = drive([octets])
    single = drive([octets[index : index + 1] for index in range(len(octets))])
    parts = drive(cut(octets, places))
    if whole[
        2
    ]:  # packets before a length that none has may have been answered, or not; one of them may be QUIT
        for other in (whole[0], parts[0]):
            assert single[0][: len(other)] == other
    else:
        assert whole == single == parts
    for reply in single[0]:
        assert split_packets(reply)


@given(STREAM)
def test_each_packet_gets_no_more_than_is_due(octets):
    """One negotiation, one CONTINUE, or what ends a message; nothing for the others."""
    decoder, session = Decoder(), Session(Judge())
    try:
        for command, data in decoder.feed(octets):
            replies = split_packets(session.receive(command, data))
            kinds = b"".join(reply for reply, _ in replies)
            if command == ord("O"):
                assert kinds == b"O"
            elif command == ord("E"):
                assert kinds == b"ic"
            else:
                assert kinds in (b"", b"c")
                assert command not in b"ADKQ" or not kinds
    except ProtocolError:
        pass


# Sessions as MTAs have them, against a model.

TEXT = st.binary(max_size=20).map(lambda octets: octets.replace(b"\0", b""))
NAME = st.sampled_from([b"Subject", b"From", b"Authentication-Results", b"X-\xff"])
FIELD = st.tuples(NAME, TEXT.map(lambda text: b" " + text))


@dataclass
class OneMessage:
    """A message, and where it is given up, if it is."""

    sender: bytes
    recipients: list[bytes]
    fields: list[tuple[bytes, bytes]]
    chunks: list[bytes]
    queue_id: bytes
    login: bytes
    given_up: int  # after so many events; a message has fewer than 1000
    ended: bool  # ABORT is said afterwards


MESSAGE = st.builds(
    OneMessage,
    sender=TEXT,
    recipients=st.lists(TEXT, min_size=1, max_size=3),
    fields=st.lists(FIELD, max_size=5),
    chunks=st.lists(st.binary(max_size=30), min_size=1, max_size=3),
    queue_id=TEXT,
    login=TEXT,
    given_up=st.just(1000) | st.integers(0, 12),
    ended=st.booleans(),
)
CLIENT = st.tuples(
    TEXT, st.sampled_from(["192.0.2.1", "2001:db8::1", None, "/run/x"]), TEXT, st.lists(MESSAGE, max_size=4)
)
STEPS_OFFERED = st.sampled_from(
    [0, ALL_STEPS, ALL_STEPS & ~LEADING_SPACE, LEADING_SPACE, 0x7F]
) | st.integers(0, ALL_STEPS)


def events_of(message: OneMessage, steps: int) -> list[tuple[bytes, bytes]]:
    events = [(b"M", strings(message.sender))]
    events += [(b"R", strings(each)) for each in message.recipients]
    events += [(b"T", b"")]
    events += [
        (b"L", strings(name, value if steps & LEADING_SPACE else value.removeprefix(b" ")))
        for name, value in message.fields
    ]
    events += [(b"N", b"")]
    events += [(b"B", chunk) for chunk in message.chunks[:-1]]
    return [*events, (b"E", message.chunks[-1])]


def expected_digest(client, message: OneMessage) -> bytes:
    """Compute what the filter answers, from the message and not from its packets."""
    name, address, helo, _ = client
    macros = {b"j": name, b"auth_authen": message.login, b"i": message.queue_id}
    told = Connect(name, mta_address(address))
    paths = tuple(Path(each, ()) for each in message.recipients)
    digest = Digest(Envelope(told, helo, Path(message.sender, ()), paths, macros))
    digest.headers(message.fields)
    digest.end_of_headers()
    digest.body(b"".join(message.chunks))
    decision = digest.end_of_message({b"auth_authen": message.login, b"i": message.queue_id})
    return decision.modifications[0].value


def mta_address(address: str | None):
    return None if address is None or address.startswith("/") else ip_address(address)


class Speaker:
    """Spells a connection, and the replies that are due."""

    def __init__(self, steps: int) -> None:
        self.steps = steps
        self.octets = packet(b"O", struct.pack(">III", 6, ALL_ACTIONS, steps))
        self.due: list[tuple[bytes, bytes]] = []

    def say(self, command: bytes, data: bytes = b"") -> None:
        self.octets += packet(command, data)
        if command in mta.NO_REPLY and not mta.NO_REPLY[command] & self.steps:
            self.due.append((b"c", b""))

    def client(self, client) -> None:
        name, address, helo, messages = client
        self.say(b"D", macro_data(b"C", {b"j": name}))
        self.say(b"C", connect_data(name, address))
        self.say(b"D", macro_data(b"H", {b"{tls_version}": b"TLSv1.3"}))
        self.say(b"H", strings(helo))
        for message in messages:
            for command, data in events_of(message, self.steps)[: message.given_up]:
                self.event(command, data, client, message)
            if message.ended:
                self.say(b"A")

    def event(self, command: bytes, data: bytes, client, message: OneMessage) -> None:
        if command == b"M":
            self.say(b"D", macro_data(b"M", {b"{auth_authen}": message.login, b"{mail_addr}": b"x"}))
        if command == b"T":
            self.say(b"D", macro_data(b"T", {b"i": message.queue_id}))
        self.say(command, data)
        if command == b"E":
            value = expected_digest(client, message)
            if not self.steps & LEADING_SPACE:
                value = value.removeprefix(b" ")
            self.due += [(b"i", b"\0\0\0\0" + strings(b"X", value)), (b"c", b"")]


@given(st.lists(CLIENT, min_size=1, max_size=3), STEPS_OFFERED, PLACES)
def test_sessions_are_answered_as_the_model_says(clients, steps, places):
    speaker = Speaker(steps)
    for number, client in enumerate(clients):
        if number:
            speaker.say(b"K")
        speaker.client(client)
    speaker.say(b"Q")
    octets = speaker.octets
    whole, pending, refused = drive([octets])
    assert not pending
    assert not refused
    got = split_packets(b"".join(whole))
    ((_, agreed),) = got[:1]
    (answered_steps,) = struct.unpack_from(">I", agreed, 8)
    assert answered_steps & ~steps == 0
    assert got[1:] == speaker.due
    assert drive(cut(octets, places)) == (whole, pending, refused)
