"""What no MTA sends, and what only hostile mail makes one send: an answer or a closed connection, and nobody
else notices."""

from __future__ import annotations

import contextlib
import random
import socket
import struct
import threading
import time
from typing import TYPE_CHECKING, Any, Self

import pytest

from fuzz.mutator import Mutator
from harness.daemon import LOOPBACK, Srsd, write_config
from harness.dns_server import DnsServer
from harness.milter_client import (
    CHUNK,
    MACROS,
    NO_REPLY,
    STEPS,
    MilterClient,
    Outcome,
    connect_data,
    macro_data,
    negotiation,
    packet,
    strings,
)
from harness.running import new_directory
from harness.wire_clients import (
    check_log,
    connect,
    descriptor_count,
    leave_with_reset,
    resident_megabytes,
    until,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

STRANGER = "192.0.2.1"
HEADERS = [(b"From", b" a@good.example"), (b"Subject", b" x")]
FORGED = (b"Authentication-Results", b" mx.example.net; spf=pass")
PATIENCE = 2.0  # seconds that others may wait while somebody misbehaves; alone they wait for milliseconds
ZONES = {("good.example", "TXT"): ["v=spf1 ip4:192.0.2.1 -all"]}


@pytest.fixture(scope="module")
def srsd() -> Iterator[Srsd]:
    with new_directory() as directory, DnsServer(ZONES) as dns:
        config = write_config(
            directory,
            listen={"srs_forward": [], "srs_reverse": [], "milter": [f"unix:{directory}/milter", LOOPBACK]},
            srs={"domain": "fwd.example.net"},
            dns={"nameservers": [str(dns)], "timeout": 1.0},
            log={"level": "warning"},
        )
        with Srsd(config) as srsd:
            yield srsd
        check_log(srsd.log)
        assert srsd.returncode == 0


def endpoint(srsd: Srsd, *, unix: bool = True) -> str:
    if unix:
        return f"unix:{srsd.unix('milter')}"
    host, port = srsd.inet("milter")
    return f"inet:{host}:{port}"


def client(srsd: Srsd, **how: Any) -> MilterClient:
    mta = MilterClient.of(endpoint(srsd), **how)
    mta.connect(b"mail.good.example", STRANGER)
    mta.helo(b"mail.good.example")
    return mta


def good_message(mta: MilterClient) -> Outcome:
    """Send a plain message; hold that it gets its one field."""
    outcome = mta.message(b"<a@good.example>", headers=[FORGED, *HEADERS])
    assert outcome.verdict == "continue"
    assert [each.what for each in outcome.modifications] == ["delete header", "insert header"]
    assert b"spf=pass" in outcome.headers[0][1]
    return outcome


class Others:
    """A connection that sends one message after the other meanwhile; none of them may wait for long."""

    def __init__(self, srsd: Srsd) -> None:
        self.mta = client(srsd)
        self.count = 0
        self.longest = 0.0
        self._ended = threading.Event()
        self._fault: BaseException | None = None
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Self:
        good_message(self.mta)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()
        self.mta.socket.close()
        if self._fault is not None:
            raise self._fault
        assert self.count > 0
        assert self.longest < PATIENCE

    def _run(self) -> None:
        try:
            while not self._ended.is_set():
                begin = time.monotonic()
                good_message(self.mta)
                self.longest = max(self.longest, time.monotonic() - begin)
                self.count += 1
                self._ended.wait(0.005)
        except BaseException as fault:  # noqa: BLE001 - it is raised in the test
            self._fault = fault


@pytest.fixture(autouse=True)
def _still_serving(srsd) -> Iterator[None]:
    """While each test runs and after it others are served, and srsd stays as small as it was."""
    memory = resident_megabytes(srsd.pid)
    with Others(srsd):
        yield
    with client(srsd) as mta:
        good_message(mta)
    until("end of the connections", lambda: descriptor_count(srsd.pid) < 40)
    assert resident_megabytes(srsd.pid) < memory + 25
    assert resident_megabytes(srsd.pid) < 90


def is_cut(mta: MilterClient) -> bool:
    """Tell whether srsd closes the connection; replies may come before."""
    try:
        while True:
            mta.read_packet()
    except (EOFError, ConnectionResetError, BrokenPipeError):
        return True


# Frames.


@pytest.mark.parametrize(
    "octets",
    [
        b"\0\0\0\0",
        b"\0\0\0\0" * 1000,
        b"\xff\xff\xff\xff",
        b"\x80\0\0\0",
        struct.pack(">I", 131_073) + b"B",
        struct.pack(">I", 1 << 24) + b"B" + b"x" * 65536,
        b"EHLO mail.example\r\n",
        b"GET / HTTP/1.0\r\n\r\n",
        b"\x16\x03\x01\x02\0\x01\0\x01\xfc\x03\x03",  # TLS
        packet(b"?"),
        packet(b"\0"),
        packet(b"O", b"\0\0\0\6"),
        packet(b"O", bytes(12)),
        packet(b"O", struct.pack(">III", 1, 0x1FF, 0x7F)),
        packet(b"O", struct.pack(">III", 6, 0, 0x1FFFFF)),
        packet(b"M", b"<a@b>\0"),
        negotiation() + packet(b"C"),
        negotiation() + packet(b"C", b"x"),
        negotiation() + packet(b"D"),
        negotiation() + packet(b"R", b"<a@b>\0"),
        negotiation() + packet(b"T"),
        negotiation() + packet(b"L", b"A\0b\0"),
        negotiation() + packet(b"N"),
        negotiation() + packet(b"B", b"x"),
        negotiation() + packet(b"E"),
        negotiation() + packet(b"M", b"<a@b>\0") + packet(b"L", b"no value"),
    ],
    ids=repr,
)
def test_what_is_no_milter_protocol_is_cut_off(srsd, octets):
    with MilterClient(connect(endpoint(srsd)), negotiate=False) as mta:
        mta.send_raw(octets)
        assert is_cut(mta)


def test_a_length_alone_makes_nothing(srsd):
    with contextlib.ExitStack() as stack:
        for _ in range(500):
            mta = stack.enter_context(MilterClient(connect(endpoint(srsd)), negotiate=False))
            mta.send_raw(struct.pack(">I", 131_072))
        with client(srsd) as other:
            good_message(other)


def conversation(*fields: tuple[bytes, bytes]) -> bytes:
    return b"".join(
        (
            negotiation(),
            packet(b"D", macro_data(b"C", MACROS)),
            packet(b"C", connect_data(b"mail.good.example", STRANGER)),
            packet(b"H", strings(b"mail.good.example")),
            packet(b"D", macro_data(b"M", {b"{auth_type}": b""})),
            packet(b"M", strings(b"<a@good.example>", b"SIZE=5")),
            packet(b"R", strings(b"<b@y.example>")),
            packet(b"T"),
            *(packet(b"L", strings(*field)) for field in fields),
            packet(b"N"),
            packet(b"B", b"text\r\n"),
            packet(b"E"),
            packet(b"A"),
        )
    )


def test_fuzzed_frames(srsd):
    seeds = [conversation(FORGED, *HEADERS), conversation(*HEADERS) + packet(b"K") + conversation(FORGED)]
    words = [packet(bytes([command])) for command in b"ABCDEHKLMNOQRTU"] + [
        b"\0",
        b"\0\0\0\1",
        b"<>",
        b"\xff\xff",
    ]
    mutator = Mutator(seeds, words, 100_000)
    source = random.Random(20261123)
    for number in range(600):
        octets = mutator.make(source)
        with (
            connect(endpoint(srsd)) as connection,
            contextlib.suppress(BrokenPipeError, ConnectionResetError),
        ):
            while octets:
                size = source.choice((1, 7, 100, 65536))
                connection.sendall(octets[:size])
                octets = octets[size:]
            if number % 3:
                connection.shutdown(socket.SHUT_WR)
                while connection.recv(65536):  # it comes to an end
                    pass
    assert sum("cut off" in line for line in srsd.log) > 50


def test_any_octets(srsd):
    source = random.Random(1)
    for _ in range(200):
        with MilterClient(connect(endpoint(srsd)), negotiate=False) as mta:
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                mta.send_raw(source.randbytes(source.randint(4, 5000)))
                mta.no_more()
            assert is_cut(mta)


# Big messages, strange messages.


def test_ten_thousand_headers(srsd):
    with client(srsd) as mta:
        headers = [(b"X-%d" % number, b" %d" % number) for number in range(10_000)]
        outcome = mta.message(b"<a@good.example>", headers=[FORGED, *headers, FORGED])
        assert outcome.verdict == "continue"
        assert outcome.headers[2:] == headers
        good_message(mta)


def test_thousands_of_forged_results(srsd):
    with client(srsd) as mta:
        outcome = mta.message(b"<a@good.example>", headers=[FORGED] * 3000)
        assert outcome.verdict == "continue"
        assert len(outcome.headers) == 2
        good_message(mta)


LONG = {
    "letters": b" " + b"x" * 59_000,
    "blanks": b" " * 59_000,
    "folds": b" x\n" * 20_000 + b" x",
    "parentheses": b" " + b"(" * 59_000,
    "pairs of parentheses": b" " + b"()" * 29_000,
    "quotes": b' "' + b'\\"' * 29_000,
    "semicolons": b" mx.example.org" + b";" * 59_000,
    "results": b" mx.example.org" + b"; spf=pass" * 5_900,
    "equal signs": b" " + b"=" * 59_000,
    "8 bits": b" " + b"\xff" * 59_000,
    "angles": b" " + b"<" * 59_000,
}
NAMES = [b"Authentication-Results", b"From", b"Received", b"DKIM-Signature", b"X"]


@pytest.mark.parametrize("value", LONG.values(), ids=LONG)
def test_headers_of_sixty_thousand_octets(srsd, value):
    with client(srsd) as mta:
        for name in NAMES:
            outcome = mta.message(b"<a@good.example>", headers=[(name, value)] * 5)
            assert outcome.verdict == "continue"
            # An Authentication-Results that is none may go; anything else stays.
            left = [each for each in outcome.headers[2:] if each[0] == name]
            assert len(left) == 5 or name == b"Authentication-Results"
        good_message(mta)


def test_a_header_as_large_as_a_packet(srsd):
    with client(srsd) as mta:
        value = b" " + b"x" * (131_072 - 10)
        outcome = mta.message(b"<a@good.example>", headers=[(b"X", value), *HEADERS])
        assert outcome.verdict == "continue"
    with client(srsd) as mta:
        mta.mail(b"<a@good.example>")
        mta.header(b"X", value + b"x" * 20)
        assert is_cut(mta)


ODD = {
    "8 bits": b"\xff\xfe\xe9",
    "UTF-8": "ä\u2028\U0001f600".encode(),
    "line ends": b"\r\nX: y\r\n\r\n",
    "bare line ends": b"\rx\ny",
    "controls": bytes(range(1, 32)) + b"\x7f",
    "an escape": b"\x1b]0;x\x07",
    "a result": b"a; spf=pass (x) smtp.mailfrom=b",
    "quotes": b'"\\',
    "nothing": b"",
    "per cent": b"%s%n%(x)s{0}",
    "long": b"x" * 60_000,
    "many @": b"@" * 10_000,
    "many labels": b"a." * 30_000 + b"example",
    "a macro of SPF": b"%{i}.good.example",
    "xn--": b"xn--\xff.xn--0",
}
FIELDS: dict[str, Callable[[MilterClient, bytes], Outcome]] = {
    "client name": lambda mta, odd: _reconnect(mta, odd, b"helo.example"),
    "HELO": lambda mta, odd: _reconnect(mta, b"mail.good.example", odd),
    "sender": lambda mta, odd: mta.message(b"<" + odd + b">", headers=HEADERS),
    "sender's local-part": lambda mta, odd: mta.message(b"<" + odd + b"@good.example>", headers=HEADERS),
    "sender's quoted local-part": lambda mta, odd: mta.message(
        b'<"' + odd + b'"@good.example>', headers=HEADERS
    ),
    "sender's domain": lambda mta, odd: mta.message(b"<a@" + odd + b">", headers=HEADERS),
    "sender as of cleanup": lambda mta, odd: mta.message(odd, headers=HEADERS),
    "argument": lambda mta, odd: mta.message(
        b"<a@good.example>", headers=HEADERS, arguments=[odd, b"SMTPUTF8"]
    ),
    "recipient": lambda mta, odd: mta.message(recipients=[b"<" + odd + b">", odd], headers=HEADERS),
    "queue id": lambda mta, odd: mta.message(queue_id=odd, headers=HEADERS),
    "header's name": lambda mta, odd: mta.message(headers=[(odd, b" x"), *HEADERS]),
    "header's value": lambda mta, odd: mta.message(
        headers=[(name, b" " + odd) for name in (*NAMES, b"Authentication-Results ", b"Subject")]
    ),
    "body": lambda mta, odd: mta.message(headers=HEADERS, body=odd * 3),
    "macros": lambda mta, odd: mta.message(
        headers=HEADERS, macros={b"{auth_type}": b"", b"{daemon_name}": odd, b"{mail_addr}": odd}
    ),
}


def _reconnect(mta: MilterClient, name: bytes, helo: bytes) -> Outcome:
    mta.connect(name, STRANGER)
    mta.helo(helo)
    return mta.message(b"<>", headers=HEADERS)


@pytest.mark.parametrize("field", FIELDS)
def test_odd_octets_in_every_field(srsd, field):
    since = len(srsd.log)
    for way in ({}, {"version": 2}):
        for name, odd in ODD.items():
            with client(srsd, **way) as mta:
                outcome = FIELDS[field](mta, odd)
                assert outcome.verdict == "continue", name
                top = outcome.headers[0]
                assert top[0] == b"Authentication-Results", name
                assert top[1].startswith((b" mx.example.net;", b" \n\tmx.example.net;")), name
                assert b"\r" not in top[1]
                assert b"\0" not in top[1]
                assert all(line[:1] in (b" ", b"\t") and line.strip() for line in top[1].split(b"\n")[1:]), (
                    name
                )
                assert all(len(line) <= 998 for line in top[1].split(b"\n")), name
                assert top[1].count(b"spf=") <= 2, name
                mta.connect(b"mail.good.example", STRANGER)
                mta.helo(b"mail.good.example")
                good_message(mta)
    assert not [line for line in srsd.log[since:] if "bug" in line]


ODD_NAMES = {
    "8 bits": "mäil.example".encode(),
    "an address": b"a@b",
    "long": b"x" * 400,
    "a line end": b"\r\n",
    "nothing": b"",
}


@pytest.mark.parametrize("name", ODD_NAMES.values(), ids=ODD_NAMES)
def test_a_name_of_the_mta_that_can_be_no_authserv_id(srsd, name):
    """An admin may give his MTA an odd name. His mail goes on, under srsd's own name for the host."""
    with client(srsd, macros={**MACROS, b"j": name}) as mta:
        outcome = mta.message(b"<a@good.example>", headers=HEADERS)
        assert outcome.verdict == "continue"
        assert [each.what for each in outcome.modifications] == ["insert header"]


def test_nul_in_every_packet(srsd):
    """A NUL ends a string on the wire; what comes behind it belongs to nothing."""
    with MilterClient.of(endpoint(srsd), steps=STEPS[4]) as mta:
        for command, data in (
            (b"D", b"Cj\0mx.example.net\0\0\0\0"),
            (b"C", b"a\0b\x004\0\0192.0.2.1\0"),
            (b"C", b"\0\0\0\0"),
            (b"H", b"a\0b\0\0"),
            (b"U", b"\0\0"),
            (b"M", b"<a@good.example>\0\0\0X\0\0"),
            (b"R", b"\0\0\0"),
            (b"R", b"<b\0@y>\0"),
            (b"T", b"\0"),
            (b"L", b"Subject\0 a\0b\0"),
            (b"L", b"\0\0\0"),
            (b"N", b"\0"),
            (b"B", b"\0" * 1000),
        ):
            mta.put(command, data)
            if command in NO_REPLY and not (command == b"U" and mta.steps & 0x100):
                assert mta.read_packet() == (b"c", b""), command
        mta.put(b"E", b"\0\0")
        assert mta._replies_to(b"E").verdict == "continue"


def test_a_thousand_recipients(srsd):
    with client(srsd) as mta:
        recipients = [b"<" + b"r" * 200 + b"%d@y.example>" % number for number in range(1000)]
        for _ in range(3):
            assert mta.message(b"<a@good.example>", recipients, HEADERS).verdict == "continue"
        good_message(mta)


def test_recipients_without_end(srsd):
    with client(srsd) as mta:
        mta.mail(b"<a@good.example>")
        octets = packet(b"R", strings(b"<b@y.example>")) * 1000
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            for _ in range(100):
                mta.send_raw(octets)
        assert is_cut(mta)


# Macros.


@pytest.mark.parametrize("stage", [b"C", b"H", b"M", b"R", b"T", b"L", b"N", b"B", b"E", b"?"])
def test_macros_that_never_end(srsd, stage):
    with client(srsd) as mta:
        mta.mail(b"<a@good.example>")
        octets = b"".join(
            packet(b"D", macro_data(stage, {b"{macro-%d}" % number: b"x" * 100})) for number in range(5000)
        )
        for _ in range(4):
            mta.send_raw(octets)
        mta.abort()
        mta.connect(b"mail.good.example", STRANGER)
        mta.helo(b"mail.good.example")
        good_message(mta)


def test_huge_macros(srsd):
    with client(srsd) as mta:
        mta.mail(b"<a@good.example>")
        names = [b"i", b"j", b"{daemon_name}", b"{auth_authen}", b"{auth_type}", b"{x}"]
        for number in range(300):
            mta.send_raw(packet(b"D", macro_data(b"M", {names[number % 6]: b"x" * 130_000})))
        many = {b"{%d}" % number: b"" for number in range(15_000)}
        for _ in range(20):
            mta.send_raw(packet(b"D", macro_data(b"M", many)))
        mta.abort()
        good_message(mta)


# Clients that stop.

EVENTS: list[tuple[str, Callable[[MilterClient], object]]] = [
    ("MAIL", lambda mta: mta.mail(b"<a@good.example>")),
    ("RCPT", lambda mta: mta.rcpt(b"<b@y.example>")),
    ("DATA", lambda mta: mta.data()),
    ("header", lambda mta: mta.header(*FORGED)),
    ("EOH", lambda mta: mta.end_of_headers()),
    ("body", lambda mta: mta.put(b"B", b"x" * CHUNK)),
    ("part of the body", lambda mta: mta.send_raw(packet(b"B", b"x" * CHUNK)[:1000])),
    ("EOM", lambda mta: mta.put(b"E")),
]


def go_until(mta: MilterClient, state: str) -> None:
    for name, event in EVENTS:
        if name == "EOM" and state == name:
            mta.put(b"E")
        elif name not in ("part of the body", "EOM") or name == state:
            event(mta)
        if name == state:
            break
    mta.flush()


def test_clients_that_stop_anywhere(srsd):
    with contextlib.ExitStack() as stack:
        for _ in range(40):
            for state, _ in EVENTS:
                go_until(stack.enter_context(client(srsd)), state)
        time.sleep(0.5)
        with client(srsd) as mta:
            for _ in range(50):
                good_message(mta)


@pytest.mark.parametrize("how", ["closed", "reset"])
@pytest.mark.parametrize("state", ["nothing", "negotiation", "connected", *[name for name, _ in EVENTS]])
def test_an_mta_that_leaves(srsd, state, how):
    for unix in (True, False):
        for _ in range(10):
            where = endpoint(srsd, unix=unix)
            if state == "nothing":
                mta = MilterClient(connect(where), negotiate=False)
            else:
                mta = MilterClient.of(where)
            if state not in ("nothing", "negotiation"):
                mta.connect(b"mail.good.example", STRANGER)
                mta.flush()
            if state not in ("nothing", "negotiation", "connected"):
                go_until(mta, state)
            if how == "reset":
                leave_with_reset(mta.socket)
            else:
                mta.socket.close()
    with client(srsd) as mta:
        good_message(mta)


def test_two_thousand_that_connect_and_leave(srsd):
    def come_and_go(times: int) -> None:
        for number in range(times):
            with connect(endpoint(srsd)) as connection:
                if number % 4 == 1:
                    connection.sendall(negotiation())
                elif number % 4 == 2:
                    connection.sendall(conversation(*HEADERS))
                elif number % 4 == 3:
                    connection.sendall(conversation(*HEADERS)[:-30])

    come_and_go(500)
    memory = resident_megabytes(srsd.pid)
    come_and_go(2000)
    with client(srsd) as mta:
        good_message(mta)
    assert resident_megabytes(srsd.pid) < memory + 5


# How octets come.


def test_two_hundred_messages_in_one_write(srsd):
    with MilterClient.of(endpoint(srsd)) as mta:
        one = conversation(FORGED, *HEADERS)[len(negotiation()) :]
        writer = threading.Thread(target=mta.send_raw, args=(one * 200,))
        writer.start()
        for _ in range(200):
            outcome = mta._replies_to(b"E")
            assert outcome.verdict == "continue"
            assert [each.what for each in outcome.modifications] == ["delete header", "insert header"]
        writer.join()


@pytest.mark.parametrize("unix", [True, False], ids=["unix", "tcp"])
def test_octet_by_octet(srsd, unix):
    with MilterClient(connect(endpoint(srsd, unix=unix)), negotiate=False) as mta:
        mta.steps = 0x100000
        mta.actions = 0x111
        for octet in conversation(FORGED, *HEADERS):
            mta.send_raw(bytes([octet]))
        assert mta.read_packet()[0] == b"O"
        outcome = mta._replies_to(b"E")
        assert [each.what for each in outcome.modifications] == ["delete header", "insert header"]


def test_many_slow_clients(srsd):
    octets = conversation(FORGED, *HEADERS)
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(connect(endpoint(srsd))) for _ in range(200)]
        for octet in octets:
            for each in clients:
                each.send(bytes([octet]))
        for each in clients:
            mta = MilterClient(each, negotiate=False)
            assert mta.read_packet()[0] == b"O"
            mta.steps, mta.actions = 0x100000, 0x111
            assert mta._replies_to(b"E").verdict == "continue"


def test_replies_come_to_a_half_closed_connection(srsd):
    with MilterClient(connect(endpoint(srsd)), negotiate=False) as mta:
        mta.send_raw(conversation(FORGED, *HEADERS))
        mta.no_more()
        assert mta.read_packet()[0] == b"O"
        mta.steps, mta.actions = 0x100000, 0x111
        assert mta._replies_to(b"E").verdict == "continue"
        assert mta.is_closed()


def test_replies_come_to_a_half_closed_connection_after_slow_dns(srsd):
    """The name server knows nothing of slow.invalid, but answers; HELO and MAIL FROM are new each time."""
    with MilterClient.of(endpoint(srsd)) as mta:
        mta.connect(b"x", STRANGER)
        mta.helo(b"helo-%d.invalid" % time.monotonic_ns())
        mta.mail(b"<a@from-%d.invalid>" % time.monotonic_ns())
        mta.rcpt(b"<b@y.example>")
        mta.data()
        mta.put(b"E")
        mta.no_more()
        assert mta._replies_to(b"E").verdict == "continue"
        assert mta.is_closed()


def test_an_mta_that_never_reads_is_not_read_from_either(srsd):
    with client(srsd, steps=0) as mta:  # every event is answered
        octets = packet(b"U") * 10_000
        mta.flush()
        mta.socket.settimeout(1.0)
        taken = 0
        with pytest.raises(TimeoutError):
            while taken < 50_000_000:
                taken += mta.socket.send(octets[taken % 5 :])
        assert taken < 5_000_000, "srsd read on, so it keeps replies somewhere"
        mta.socket.settimeout(10.0)
        for _ in range(3):  # CONNECT and HELO were answered too
            assert mta.read_packet() == (b"c", b"")


# Memory.


def test_many_messages_cost_no_memory(srsd):
    body = b"x" * 70 + b"\r\n"
    with client(srsd) as mta:
        for number in range(6000):
            if number == 1000:
                memory = resident_megabytes(srsd.pid)
            headers = [FORGED, *HEADERS, (b"X-Number", b" %d" % number)]
            mta.message(b"<a%d@good.example>" % number, headers=headers, body=body * 20)
    assert resident_megabytes(srsd.pid) < memory + 4


@pytest.mark.parametrize(
    ("name", "count"), [(b"a", 150_000), (b"Authentication-Results", 30_000), (b"DKIM-Signature", 30_000)]
)
def test_small_headers_without_end(srsd, name, count):
    """A message of half a megabyte may have 150,000 of them, and each may cost more than its octets."""
    octets = packet(b"L", strings(name, b"")) * 10_000
    largest = 0.0
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(client(srsd)) for _ in range(8)]
        for mta in clients:
            mta.mail(b"<a@good.example>")
            mta.rcpt(b"<b@y.example>")
            mta.data()
            for _ in range(count // 10_000):
                mta.send_raw(octets)
            largest = max(largest, resident_megabytes(srsd.pid))
        for mta in clients:
            mta.end_of_headers()
            mta.abort()
            good_message(mta)
            largest = max(largest, resident_megabytes(srsd.pid))
    assert largest < 90


def test_sixty_four_large_messages_at_once(srsd):
    count, size = 64, 5_000_000
    line = b"x" * 76 + b"\r\n"
    body = packet(b"B", (line * (CHUNK // len(line) + 1))[:CHUNK])
    largest = 0.0
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(client(srsd)) for _ in range(count)]
        for mta in clients:
            go_until(mta, "EOH")
        if not clients[0].steps & 0x10:
            for _ in range(size // CHUNK):
                for mta in clients:
                    mta.send_raw(body)
                largest = max(largest, resident_megabytes(srsd.pid))
        for mta in clients:
            assert mta.end_of_message().verdict == "continue"
        largest = max(largest, resident_megabytes(srsd.pid))
    assert largest < 90
