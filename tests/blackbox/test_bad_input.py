"""What no Postfix sends: a clear answer or a closed connection, and nobody else notices."""

from __future__ import annotations

import contextlib
import random
import threading
import time

import pytest

from harness.wire_clients import (
    BOTH,
    SOCKETMAP,
    TCP_TABLE,
    WIRES,
    Client,
    Reply,
    Wire,
    leave_with_reset,
    netstring,
    srs0,
    until,
)

ALICE = b"alice@origin.example"
LIMIT = 65536  # octets of a tcp_table line with its newline, or inside a netstring


def user(number: int) -> bytes:
    return b"user%d@origin.example" % number


def rewritten(number: int) -> Reply:
    return Reply("found", srs0(b"user%d" % number, b"origin.example"))


def have_it_read(client: Client) -> None:
    """Return when srsd has read what other connections sent before: it goes round them all."""
    for _ in range(2):
        assert client.ask(ALICE).status == "found"


@pytest.fixture(autouse=True)
def still_serving(shared):
    """After every test srsd still answers, over each wire."""
    yield
    for wire in WIRES:
        assert wire.ask(shared, "forward", ALICE).text == srs0(b"alice", b"origin.example")


@pytest.mark.parametrize("wire", BOTH, ids=str)
def test_a_request_split_at_any_octet(shared, wire):
    request = wire.request("forward", ALICE)
    with wire.client(shared) as other, wire.client(shared) as client:
        for cut in range(1, len(request)):
            client.send_raw(request[:cut])
            have_it_read(other)
            client.send_raw(request[cut:])
            assert client.reply() == Reply("found", srs0(b"alice", b"origin.example")), cut


@pytest.mark.parametrize("wire", WIRES, ids=str)
def test_a_request_octet_by_octet(shared, wire):
    with wire.client(shared) as client:
        for octet in wire.request("forward", ALICE):
            client.send_raw(bytes([octet]))
        assert client.reply() == Reply("found", srs0(b"alice", b"origin.example"))


@pytest.mark.parametrize("wire", BOTH, ids=str)
def test_two_and_a_half_requests_at_once(shared, wire):
    request = wire.request("forward", ALICE)
    with wire.client(shared) as client:
        client.send_raw(request * 2 + request[:9])
        assert client.replies(2) == [Reply("found", srs0(b"alice", b"origin.example"))] * 2
        client.send_raw(request[9:])
        assert client.reply() == Reply("found", srs0(b"alice", b"origin.example"))


@pytest.mark.parametrize("wire", WIRES, ids=str)
@pytest.mark.parametrize("kept", [1, 4, 5, -1])
def test_a_truncated_request_gets_no_answer(shared, wire, kept):
    with wire.client(shared) as client:
        client.send_raw(wire.request("forward", ALICE)[:kept])
        client.no_more()
        assert client.is_closed()


@pytest.mark.parametrize("wire", WIRES, ids=str)
def test_replies_come_to_a_half_closed_connection(shared, wire):
    with wire.client(shared) as client:
        client.send(*(user(number) for number in range(1000)))
        client.no_more()
        assert client.replies(1000) == [rewritten(number) for number in range(1000)]
        assert client.is_closed()


@pytest.mark.parametrize("wire", WIRES, ids=str)
def test_nothing_at_all(shared, wire):
    with wire.client(shared) as client:
        client.no_more()
        assert client.is_closed()


@pytest.mark.parametrize("wire", WIRES, ids=str)
def test_pipelined_requests_are_answered_in_order(shared, wire):
    numbers = [*range(1000), *range(100), 7, 7, 7]  # some again: what is remembered keeps its place too
    with wire.client(shared) as client:
        client.send(*(user(number) for number in numbers))
        assert client.replies(len(numbers)) == [rewritten(number) for number in numbers]


# Over-long.


def tcp_line(length: int) -> bytes:
    return b"get " + b"x" * (length - 5) + b"\n"


def test_a_line_as_long_as_allowed(shared):
    with TCP_TABLE.client(shared) as client:
        client.send_raw(tcp_line(LIMIT))
        assert client.reply() == Reply("not found", b"not an address")
        client.send_raw(b"get " + b"a" * (LIMIT - 5 - len(b"@o.example")) + b"@o.example\n")
        assert client.reply() == Reply("not found", b"reply too long")


def test_a_line_of_one_octet_too_many_ends_the_connection(shared):
    with TCP_TABLE.client(shared) as client:
        client.send_raw(tcp_line(LIMIT + 1))
        assert client.is_closed()


def test_a_line_that_never_ends_ends_the_connection_in_time(shared):
    with TCP_TABLE.client(shared) as client, TCP_TABLE.client(shared) as other:
        client.send_raw(b"x" * LIMIT)
        have_it_read(other)
        with pytest.raises(BlockingIOError):  # nothing is wrong yet
            client.socket.setblocking(False)
            client.socket.recv(1)
        client.socket.settimeout(10)
        client.send_raw(b"x")
        assert client.is_closed()


def test_a_netstring_as_long_as_allowed(shared):
    with SOCKETMAP.client(shared) as client:
        client.send_raw(netstring(b"forward " + b"x" * (LIMIT - 8)))
        assert client.reply() == Reply("not found", b"not an address")


def test_a_netstring_of_one_octet_too_many_is_refused_by_its_length_alone(shared):
    with SOCKETMAP.client(shared) as client:
        client.send_raw(b"%d:" % (LIMIT + 1))
        assert client.is_closed()


@pytest.mark.parametrize(
    "octets",
    [
        b"get alice@origin.example\n",
        b"forward alice\n",
        b":",
        b",",
        b"-1:,",
        b"+1:x,",
        b" 9:forward x,",
        b"09:forward x,",
        b"00:,",
        b"9 :forward x,",
        b"9:forward x;",
        b"9:forward xy,",
        b"0x9:forward x,",
        b"9forward x,",
        b"999999",
        b"99999999999999999999:",
        "٩:forward x,".encode(),
        b"\0",
        b"\x16\x03\x01\x02\0\x01\0",  # a TLS client hello
    ],
    ids=repr,
)
def test_what_is_no_netstring_ends_the_connection(shared, octets):
    with SOCKETMAP.client(shared) as client:
        client.send_raw(octets)
        assert client.is_closed()


def test_good_requests_before_rubbish_do_not_come_back_wrong(shared):
    good = netstring(b"forward " + ALICE)
    with SOCKETMAP.client(shared) as client:
        client.send_raw(good)
        assert client.reply() == Reply("found", srs0(b"alice", b"origin.example"))
        client.send_raw(good + b"rubbish")
        try:
            assert client.reply() == Reply("found", srs0(b"alice", b"origin.example"))
        except (EOFError, ConnectionResetError):
            return
        assert client.is_closed()


# Binary.


@pytest.mark.parametrize("seed", range(5))
def test_binary_lines_get_an_answer_each(shared, seed):
    rubbish = random.Random(seed).randbytes(30000)
    with TCP_TABLE.client(shared) as client:
        client.send_raw(rubbish)
        client.no_more()
        replies = client.replies(rubbish.count(b"\n"))
        assert {reply.status for reply in replies} == {"not found"}
        assert client.is_closed()


@pytest.mark.parametrize("seed", range(5))
def test_binary_keys(shared, seed):
    numbers = random.Random(seed)
    keys = [numbers.randbytes(numbers.randrange(1, 200)) + b"@origin.example" for _ in range(200)]
    for wire in BOTH:
        with wire.client(shared) as client:
            client.send(*keys)
            replies = client.replies(len(keys))
            assert {reply.status for reply in replies} <= {"found", "not found"}
            backwards = {
                reply.text: wire.ask(shared, "reverse", reply.text).status
                for reply in replies[:20]
                if reply.status == "found"
            }
            assert set(backwards.values()) == {"found"}


# A client's rubbish is its own affair.


def _send_rubbish(shared, wire: Wire, seed: int, until_set: threading.Event, sent: list[int]) -> None:
    numbers = random.Random(seed)
    kinds = [
        lambda: numbers.randbytes(5000),
        lambda: b"x" * 70000,
        lambda: b"99999:",
        lambda: wire.request("forward", b"mallory@origin.example") * 50 + b"9:forward x;",
        lambda: wire.request("forward", ALICE)[:-3],
    ]
    while not until_set.is_set():
        with wire.client(shared) as client:
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                client.send_raw(numbers.choice(kinds)())
            sent.append(1)
            leave_with_reset(client.socket)


@pytest.mark.parametrize("wire", BOTH, ids=str)
def test_rubbish_disturbs_nobody_elses_answers(shared, wire):
    done, sent = threading.Event(), []
    offenders = [
        threading.Thread(target=_send_rubbish, args=(shared, wire, seed, done, sent)) for seed in range(3)
    ]
    for offender in offenders:
        offender.start()
    try:
        with wire.client(shared) as one, wire.client(shared) as two:
            until("rubbish", lambda: sent)
            for number in range(1000):
                one.send(user(number))
                two.send(user(number + 1))
                assert one.reply() == rewritten(number)
                assert two.reply() == rewritten(number + 1)
    finally:
        done.set()
        for offender in offenders:
            offender.join()
    assert len(sent) > 10


def seconds_to_ask(client, key: bytes) -> float:
    start = time.perf_counter()
    client.ask(key)
    return time.perf_counter() - start


@pytest.mark.parametrize("wire", BOTH, ids=str)
def test_no_request_holds_the_others_up(shared, wire):
    """The dearest requests of 64 KiB that we can think of: each costs little more than its octets."""
    each = 3 if wire is TCP_TABLE else 1  # octets on the wire for one that must be encoded
    dear = {
        "labels": b"a@" + b"a." * 32000 + b"a",
        "labels, not ASCII": b"a@" + "ä.".encode() * (20000 // each),
        "long stamp": b"SRS0=AbCd=" + b"A" * 60000 + b"=h=u@fwd.example.net",
        "long hash": b"SRS0=" + b"A" * 60000 + b"=AA=h=u@fwd.example.net",
        "separators": b"SRS1=" + b"=" * 60000 + b"@fwd.example.net",
        "quoted pairs": b'"' + b"\\\\" * (30000 // each) + b'"@origin.example',
        "open quote": b'"' + b"\\\\" * (30000 // each) + b"@origin.example",
        "ats": b"@" * 60000,
        "percent": b"%" * 20000 + b"@origin.example",
    }
    with wire.client(shared) as client, wire.client(shared, "reverse") as reverse:
        took = {}
        for name, key in dear.items():
            for asked in (client, reverse):
                # The best of some tries: what a busy machine adds is not the request's.
                best = min(seconds_to_ask(asked, key) for _ in range(5))
                took[name] = max(took.get(name, 0), best)
    assert {name: seconds for name, seconds in took.items() if seconds > 0.15} == {}
