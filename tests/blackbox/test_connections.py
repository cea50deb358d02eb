"""The rules for slow, silent and too many clients, with the clock in the test's hand."""

from __future__ import annotations

import asyncio

import pytest

from srsd.daemon.connection import LookupConnection
from srsd.daemon.counters import Counters
from srsd.daemon.server import LOOK_INTERVAL, Server
from srsd.daemon.tables import Table
from srsd.wire import tcp_table
from srsd.wire.answer import Answer, Status

ANSWER = Answer(Status.FOUND, b"answer")
REPLY = b"200 answer\n"

IDLE_LOOKS = LookupConnection.idle_seconds // LOOK_INTERVAL
SLOW_LOOKS = LookupConnection.slow_seconds // LOOK_INTERVAL


class Transport(asyncio.Transport):
    """A client that reads for as long as `reads` is true."""

    def __init__(self, connection: LookupConnection) -> None:
        super().__init__()
        self.connection = connection
        self.written = b""
        self.unread = 0
        self.reads = True
        self.state = "open"
        self.reading = True
        self._paused = False
        connection.connection_made(self)

    def write(self, data) -> None:
        self.written += data
        if not self.reads:
            self.unread += len(data)
            if self.unread > 65536 and not self._paused:
                self._paused = True
                self.connection.pause_writing()

    def read_all(self) -> None:
        self.reads, self.unread = True, 0
        if self._paused:
            self._paused = False
            self.connection.resume_writing()

    def get_write_buffer_size(self) -> int:
        return self.unread

    def pause_reading(self) -> None:
        self.reading = False

    def resume_reading(self) -> None:
        self.reading = True

    def close(self) -> None:
        self._end("closed")

    def abort(self) -> None:
        self._end("aborted")

    def _end(self, state: str) -> None:
        if self.state == "open":
            self.state = state
            self.connection.connection_lost(None)


class House:
    """A Server with clients that exist only here."""

    def __init__(self) -> None:
        counters = Counters()
        self.server = Server(counters)
        self.table = Table("srs_forward", tcp_table, lambda _: ("forward", ANSWER), counters)

    def client(self) -> Transport:
        return Transport(LookupConnection(self.server, self.table))

    def looks(self, count: int) -> None:
        for _ in range(count):
            self.server.look_over()


@pytest.fixture
def house() -> House:
    return House()


def send(client: Transport, octets: bytes) -> None:
    assert client.state == "open"
    assert client.reading, "srsd does not read from this client now"
    client.connection.data_received(octets)


def test_the_times_are_those_that_are_documented():
    assert LookupConnection.idle_seconds == 1800
    assert LookupConnection.slow_seconds == 30


def test_a_silent_client_stays_for_half_an_hour(house):
    client = house.client()
    house.looks(IDLE_LOOKS)
    assert client.state == "open"
    house.looks(1)
    assert client.state == "closed"


def test_a_client_that_asks_now_and_then_stays(house):
    client = house.client()
    for _ in range(4):
        house.looks(IDLE_LOOKS - 1)
        send(client, b"get a@b\n")
    assert client.state == "open"
    assert client.written == REPLY * 4


def test_a_request_that_trickles_in_ends_after_half_a_minute(house):
    client = house.client()
    for _ in range(SLOW_LOOKS):
        send(client, b"x")
        house.looks(1)
    assert client.state == "aborted"


def test_a_request_may_take_less(house):
    client = house.client()
    for _ in range(SLOW_LOOKS - 1):
        send(client, b"x")
        house.looks(1)
    send(client, b"\n")
    house.looks(SLOW_LOOKS)
    assert client.state == "open"
    assert client.written.count(b"\n") == 1


def test_a_client_that_is_served_all_the_time_is_not_slow(house):
    # Each look falls into the middle of a request, but never of the same one.
    client = house.client()
    for _ in range(3 * SLOW_LOOKS):
        send(client, b"get a@b\nget a")
        house.looks(1)
        send(client, b"@b\n")
        send(client, b"get ")
        house.looks(1)
        send(client, b"a@b\n")
    assert client.state == "open"


def test_a_reply_that_is_not_read_ends_after_half_a_minute(house):
    client = house.client()
    client.reads = False
    send(client, b"get a@b\n")
    house.looks(SLOW_LOOKS)  # at the first of them it has just asked
    assert client.state == "open"
    house.looks(1)
    assert client.state == "aborted"


def test_pipelined_requests_wait_while_the_client_does_not_read(house):
    client = house.client()
    client.reads = False
    count = 100_000
    send(client, b"get a@b\n" * count)
    assert client.unread < 3 * 65536
    assert not client.reading
    for _ in range(count):
        if len(client.written) == count * len(REPLY):
            break
        client.unread = 0
        client._paused = False
        client.connection.resume_writing()
    assert client.written == REPLY * count
    client.read_all()
    assert client.reading


def test_a_client_that_does_not_read_is_aborted_not_closed(house):
    # A close would wait for the replies to leave, which they never do.
    client = house.client()
    client.reads = False
    send(client, b"get a@b\n" * 50_000)
    house.looks(SLOW_LOOKS + 1)
    assert client.state == "aborted"


def test_one_too_many_ends_the_one_that_was_silent_longest(house, caplog):
    house.server._limit = 3
    first, second, third = (house.client() for _ in range(3))
    for client in (first, third):
        house.looks(1)
        send(client, b"get a@b\n")
    house.looks(1)
    fourth = house.client()
    assert [each.state for each in (first, second, third, fourth)] == ["open", "closed", "open", "open"]
    assert "3 connections are open: the one that was silent longest was closed" in caplog.text
    send(fourth, b"get a@b\n")
    assert fourth.written == REPLY


def test_one_too_many_spares_those_with_a_request_under_way(house):
    # Before the first look nobody counts as silent; who waits for an answer must not be the one to go.
    house.server._limit = 8
    clients = [house.client() for _ in range(8)]
    for client in clients[:7]:
        send(client, b"get a")
    house.client()
    assert [client.state for client in clients] == ["open"] * 7 + ["closed"]


def test_rubbish_ends_its_own_connection(house, caplog):
    good, bad = house.client(), house.client()
    send(bad, b"x" * 65537)
    assert bad.state == "aborted"
    send(good, b"get a@b\n")
    assert good.written == REPLY
    assert "xxx" not in caplog.text


@pytest.mark.parametrize("finished", [True, False])
def test_draining(house, finished):
    """Idle clients go at once; a request that has begun may end, within bounds."""

    async def drain() -> None:
        idle, busy = house.client(), house.client()
        send(busy, b"get a")
        ending = asyncio.create_task(house.server.drain())
        while idle.state == "open":
            await asyncio.sleep(0)
        assert busy.state == "open"
        if finished:
            send(busy, b"@b\n")
            await asyncio.wait_for(ending, 1)
            assert (busy.state, busy.written) == ("closed", REPLY)
        else:
            await ending
            assert (busy.state, busy.written) == ("aborted", b"")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("srsd.daemon.server.DRAIN_SECONDS", 0.1)
        asyncio.run(drain())
