"""A milter connection on a loop: one write for many packets, waiting for late decisions, bugs, the end."""

from __future__ import annotations

import asyncio
import functools
import logging
import socket

import pytest

from harness import milter_client as mta
from harness.milter_client import macro_data, negotiation, packet, split_packets, strings
from srsd.daemon import milter_connection
from srsd.daemon.milter_connection import MilterConnection
from srsd.wire.milter import Action, Continue, InsertHeader, Step
from srsd.wire.milter_session import Decision, Delay

GO_ON = (b"c", b"")
TEMPFAIL = (b"t", b"")
PROGRESS = (b"p", b"")
ANSWER = [(b"i", b"\0\0\0\0X-Message\0 %d\0"), GO_ON]
DEADLINE = 10.0


class BugError(Exception):
    """What a filter raises in these tests."""


class Message:
    """A message whose decision is there at once, or comes when the test says so."""

    def __init__(self, judge: Judge, number: int) -> None:
        self.judge = judge
        self.number = number
        self.aborted = False
        self.late: asyncio.Future[Decision] | None = None

    def headers(self, fields) -> None:
        if any(field.name == b"Bug" for field in fields):
            raise BugError

    def end_of_headers(self) -> None:
        pass

    def body(self, chunk) -> None:
        pass

    @property
    def decision(self) -> Decision:
        return Decision((InsertHeader(0, b"X-Message", b" %d" % self.number),), Continue())

    def end_of_message(self, _macros):
        if not self.judge.late:
            return self.decision
        self.late = asyncio.get_running_loop().create_future()
        return self._decide_later(self.late)

    async def _decide_later(self, late: asyncio.Future[Decision]) -> Decision:
        return await late

    def abort(self) -> None:
        self.aborted = True

    def decide(self) -> None:
        assert self.late is not None
        self.late.set_result(self.decision)


class Refused:
    """Holds the answer to each refused recipient back."""

    slows = True

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self.begun = self.ended = 0

    def see(self, _client, _macros, _path) -> Delay:
        self.begun += 1
        return Delay(self.seconds, self.end)

    def end(self) -> None:
        self.ended += 1


class Judge:
    """A filter that numbers its messages."""

    actions = Action.ADD_HEADERS
    unwanted = Step(0)
    macros: dict = {}  # noqa: RUF012 - never changed

    def __init__(self, *, late: bool = False, holds: float = 0.0) -> None:
        self.late = late
        self.messages: list[Message] = []
        self.refused = Refused(holds) if holds else None
        self.agreements: dict = {}

    def begin(self, _envelope) -> Message:
        self.messages.append(Message(self, len(self.messages)))
        return self.messages[-1]


class Registry:
    """Counts."""

    def __init__(self) -> None:
        self.is_open = 0
        self.cuts = 0
        self.bugs = 0

    def opened(self, _connection) -> None:
        self.is_open += 1

    def closed(self, _connection) -> None:
        self.is_open -= 1

    def cut(self) -> None:
        self.cuts += 1

    def bug(self) -> None:
        self.bugs += 1


class Transport:
    """Notes what a connection asks of it."""

    def __init__(self) -> None:
        self.writes: list[bytes] = []
        self.reading = True
        self.ended = ""

    def write(self, octets: bytes) -> None:
        assert not self.ended
        self.writes.append(octets)

    def pause_reading(self) -> None:
        self.reading = False

    def resume_reading(self) -> None:
        self.reading = True

    def get_write_buffer_size(self) -> int:
        return 0

    def close(self) -> None:
        self.ended = self.ended or "closed"

    def abort(self) -> None:
        self.ended = self.ended or "aborted"

    def take(self) -> list[tuple[bytes, bytes]]:
        """Return what was written since, as packets."""
        octets, self.writes = b"".join(self.writes), []
        return split_packets(octets)


def message(*, queue_id: bytes = b"QUEUE1", field: bytes = b"Subject") -> bytes:
    return b"".join(
        (
            packet(b"M", strings(b"<a@x.example>")),
            packet(b"R", strings(b"<b@y.example>")),
            packet(b"D", macro_data(b"T", {b"i": queue_id})),
            packet(b"T"),
            packet(b"L", strings(field, b" x")),
            packet(b"N"),
            packet(b"B", b"text\r\n"),
            packet(b"E"),
        )
    )


ABORT, QUIT = packet(b"A"), packet(b"Q")


def answer(number: int) -> list[tuple[bytes, bytes]]:
    return [(b"i", b"\0\0\0\0X-Message\0 %d\0" % number), GO_ON]


class Served:
    """A connection with all that is around it."""

    def __init__(self, *, late: bool = False, holds: float = 0.0) -> None:
        self.judge = Judge(late=late, holds=holds)
        self.registry = Registry()
        self.transport = Transport()
        self.connection = MilterConnection(self.registry, self.judge)
        self.connection.connection_made(self.transport)
        self.give(negotiation())
        ((command, _),) = self.transport.take()
        assert command == b"O"

    def give(self, octets: bytes) -> None:
        self.connection.data_received(octets)


def on_a_loop(test):
    """Run an async test."""

    @functools.wraps(test)
    def run(*arguments, **named):
        asyncio.run(asyncio.wait_for(test(*arguments, **named), DEADLINE))

    return run


async def settle() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


# At once.


def test_all_replies_to_what_was_read_leave_in_one_write():
    served = Served()
    served.give((message() + ABORT) * 50)
    assert len(served.transport.writes) == 1
    assert served.transport.take() == [each for number in range(50) for each in answer(number)]
    assert served.transport.reading


def test_a_message_octet_by_octet():
    served = Served()
    for octet in message() + ABORT + message():
        served.give(bytes([octet]))
    assert served.transport.take() == [*answer(0), *answer(1)]


def test_quit_closes_after_the_reply():
    served = Served()
    served.give(message() + QUIT + message())
    assert served.transport.take() == answer(0)
    assert served.transport.ended == "closed"
    assert len(served.judge.messages) == 1


@pytest.mark.parametrize(
    "octets",
    [packet(b"?"), packet(b"E"), b"\0\0\0\0", b"\xff\xff\xff\xff", packet(b"C", b"x"), negotiation(1)],
)
def test_what_no_mta_sends_ends_the_connection_and_is_counted(caplog, octets):
    served = Served()
    served.give(octets)
    assert served.transport.ended == "aborted"
    assert served.registry.cuts == 1
    assert served.registry.bugs == 0
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert record.exc_info is None


def test_a_bug_costs_its_message_only(caplog):
    served = Served()
    served.give(message(queue_id=b"QUEUE7", field=b"Bug") + ABORT + message())
    assert served.transport.take() == [TEMPFAIL, *answer(1)]
    assert served.transport.ended == ""
    assert served.registry.bugs == 1
    (record,) = caplog.records
    assert record.levelno == logging.ERROR
    assert record.exc_info[0] is BugError
    assert "QUEUE7" in record.getMessage()


# Later.


@on_a_loop
async def test_nothing_is_read_while_a_decision_is_waited_for():
    served = Served(late=True)
    served.give(message())
    await settle()
    assert not served.transport.reading
    assert served.transport.take() == []
    served.judge.messages[0].decide()
    await settle()
    assert served.transport.take() == answer(0)
    assert served.transport.reading


@on_a_loop
async def test_messages_behind_one_that_waits_keep_their_order():
    served = Served(late=True)
    served.give((message() + ABORT) * 3 + message()[:10])
    served.give(message()[10:] + ABORT)  # it had arrived before reading was paused
    for number in range(4):
        await settle()
        assert len(served.judge.messages) == number + 1
        assert served.transport.take() == []
        assert not served.transport.reading
        served.judge.messages[number].decide()
        await settle()
        assert served.transport.take() == answer(number)
    assert served.transport.reading


@on_a_loop
async def test_quit_behind_a_message_that_waits():
    served = Served(late=True)
    served.give(message() + ABORT + QUIT)
    await settle()
    assert served.transport.ended == ""
    served.judge.messages[0].decide()
    await settle()
    assert served.transport.take() == answer(0)
    assert served.transport.ended == "closed"


@on_a_loop
async def test_progress_is_said_while_a_decision_is_late(monkeypatch):
    monkeypatch.setattr(milter_connection, "PROGRESS_SECONDS", 0.02)
    served = Served(late=True)
    served.give(message())
    async with asyncio.timeout(DEADLINE):
        while len(served.transport.writes) < 3:
            await asyncio.sleep(0.005)
    served.judge.messages[0].decide()
    await settle()
    said = served.transport.take()
    progress = said[: -len(answer(0))]
    assert len(progress) >= 3
    assert set(progress) == {PROGRESS}
    assert said[len(progress) :] == answer(0)
    await asyncio.sleep(0.1)
    assert served.transport.take() == []


@on_a_loop
async def test_no_progress_is_said_before_it_is_late(monkeypatch):
    class Clock:
        now = 0.0

    loop = asyncio.get_running_loop()
    monkeypatch.setattr(loop, "time", lambda: Clock.now)
    served = Served(late=True)
    served.give(message())
    for now, said in ((9.9, 0), (10.1, 1), (19.9, 1), (20.2, 2), (30.3, 3)):
        Clock.now = now
        await settle()
        assert len(served.transport.writes) == said, now
    served.judge.messages[0].decide()
    await settle()
    Clock.now = 100.0
    await settle()
    assert served.transport.take() == [PROGRESS] * 3 + answer(0)


@on_a_loop
async def test_a_decision_that_fails_late(caplog):
    served = Served(late=True)
    served.give(message(queue_id=b"QUEUE8") + ABORT + message())
    await settle()
    served.judge.messages[0].late.set_exception(BugError())
    await settle()
    assert served.transport.take() == [TEMPFAIL]
    served.judge.messages[1].decide()
    await settle()
    assert served.transport.take() == answer(1)
    assert served.registry.bugs == 1
    (record,) = caplog.records
    assert record.exc_info[0] is BugError
    assert "QUEUE8" in record.getMessage()


@on_a_loop
async def test_a_broken_packet_behind_a_message_that_waits():
    served = Served(late=True)
    served.give(message() + packet(b"?"))
    await settle()
    served.judge.messages[0].decide()
    await settle()
    assert served.transport.take() == answer(0)
    assert served.transport.ended == "aborted"
    assert served.registry.cuts == 1


@on_a_loop
async def test_a_connection_that_is_lost_while_a_decision_is_waited_for(monkeypatch):
    monkeypatch.setattr(milter_connection, "PROGRESS_SECONDS", 0.01)
    served = Served(late=True)
    served.give(message() + ABORT + message())
    await settle()
    served.connection.connection_lost(None)
    served.transport.ended = "lost"  # now write() would fail
    await asyncio.sleep(0.05)
    assert [each.aborted for each in served.judge.messages] == [True]
    assert served.registry.is_open == 0
    assert served.registry.bugs == 0


# Answers to recipients that are held back.

MAIL = packet(b"M", strings(b"<a@x.example>"))
REFUSED = packet(b"D", macro_data(b"R", {b"{rcpt_mailer}": b"error", b"{rcpt_host}": b"5.1.1"})) + packet(
    b"R", strings(b"<c@y.example>")
)
LONG = 3600.0  # seconds that no test waits for


@on_a_loop
async def test_an_answer_is_held_back_and_all_behind_it_waits():
    served = Served(holds=0.05)
    loop = asyncio.get_running_loop()
    begun = loop.time()
    served.give(MAIL + REFUSED + REFUSED + message() + ABORT)
    assert not served.transport.reading
    served.give(message())  # had been read already
    assert served.transport.take() == []
    async with asyncio.timeout(DEADLINE):
        while len(served.judge.messages) < 2:
            await asyncio.sleep(0.005)
    assert loop.time() - begun >= 0.1
    # Each of message() has a recipient that is answered, too.
    assert served.transport.take() == [GO_ON, GO_ON, GO_ON, *answer(0), GO_ON, *answer(1)]
    assert served.judge.refused.ended == 2
    assert served.transport.reading


@on_a_loop
async def test_an_mta_that_waits_is_read_so_that_its_end_is_seen():
    served = Served(holds=LONG)
    served.give(MAIL + REFUSED)
    assert served.transport.reading
    served.give(ABORT)
    assert not served.transport.reading
    served.connection.pause_writing()
    served.connection.resume_writing()
    assert not served.transport.reading  # what has come already waits
    served.connection.connection_lost(None)
    served.transport.ended = "lost"
    await settle()
    assert (served.judge.refused.begun, served.judge.refused.ended) == (1, 1)
    assert served.registry.is_open == 0


@on_a_loop
async def test_nothing_is_said_to_an_mta_that_has_left():
    complaints = []
    asyncio.get_running_loop().set_exception_handler(lambda _loop, context: complaints.append(context))
    served = Served(holds=0.01)
    served.give(MAIL + REFUSED)
    served.connection.connection_lost(None)
    served.transport.ended = "lost"  # now write() would fail
    await asyncio.sleep(0.05)
    assert complaints == []
    assert served.judge.refused.ended == 1


@on_a_loop
async def test_the_end_of_srsd_does_not_wait_for_a_delay():
    served = Served(holds=LONG)
    served.give(MAIL + REFUSED)
    served.connection.finish()
    assert served.transport.take() == [GO_ON]
    assert served.judge.refused.ended == 1
    served.give(REFUSED)
    await settle()
    assert served.transport.take() == [GO_ON]
    served.give(ABORT)
    assert served.transport.ended == "closed"


@on_a_loop
async def test_a_broken_packet_behind_a_delay():
    served = Served(holds=LONG)
    served.give(MAIL + REFUSED)
    served.give(b"\0\0\0\0")
    assert served.transport.ended == "aborted"
    served.connection.connection_lost(None)
    assert served.judge.refused.ended == 1


# Back-pressure, and the end.


@on_a_loop
async def test_an_mta_that_does_not_read_is_not_read_from():
    served = Served(late=True)
    served.connection.pause_writing()
    assert not served.transport.reading
    served.connection.resume_writing()
    assert served.transport.reading
    served.give(message())
    await settle()
    served.connection.pause_writing()
    served.connection.resume_writing()
    assert not served.transport.reading  # there is still no decision
    served.connection.pause_writing()
    served.judge.messages[0].decide()
    await settle()
    assert not served.transport.reading  # there is one, but it is not read
    served.connection.resume_writing()
    assert served.transport.reading


def test_a_connection_without_a_message_ends_at_once():
    served = Served()
    assert not served.connection.busy
    served.connection.finish()
    assert served.transport.ended == "closed"


@pytest.mark.parametrize("cut", [3, 30, 60, 80, len(message()) - 1])
def test_a_message_that_has_begun_is_finished(cut):
    served = Served()
    served.give(message()[:cut])
    assert served.connection.busy
    served.connection.finish()
    assert served.transport.ended == ""
    served.give(message()[cut:])
    assert served.transport.take() == answer(0)
    assert served.transport.ended == "closed"


@on_a_loop
async def test_a_message_that_waits_for_its_decision_is_finished():
    served = Served(late=True)
    served.give(message())
    served.connection.finish()
    await settle()
    assert served.transport.ended == ""
    served.judge.messages[0].decide()
    await settle()
    assert served.transport.take() == answer(0)
    assert served.transport.ended == "closed"


def test_an_mta_that_does_not_read_is_not_waited_for():
    served = Served()
    served.connection.close()
    assert served.transport.ended == "closed"
    served = Served()
    served.connection.pause_writing()
    served.connection.close()
    assert served.transport.ended == "aborted"


def test_what_an_mta_owes():
    served = Served()
    assert not served.connection.stuck
    served.give(message()[:3])
    assert served.connection.stuck
    served.give(message()[3:30])
    assert served.connection.busy
    served.connection.active = False
    served.give(packet(b"R", b"<c@y>\0")[:-1])
    assert served.connection.stuck


def test_octets_that_end_no_packet_are_no_sign_of_life():
    """Else a client that sends an octet every few seconds is never found slow (registry.Served)."""
    served = Served()
    served.connection.active = False
    for octet in packet(b"H", b"x" * 100)[:-1]:
        served.give(bytes([octet]))
    assert not served.connection.active
    served.give(b"x")
    assert served.connection.active


# On real sockets, with each loop.


def loops():
    yield pytest.param(asyncio.new_event_loop, id="asyncio")
    try:
        import uvloop  # noqa: PLC0415 - it may be missing
    except ImportError:
        why = pytest.mark.skip(reason="uvloop is not installed")
        yield pytest.param(None, id="uvloop", marks=why)
    else:
        yield pytest.param(uvloop.new_event_loop, id="uvloop")


@pytest.fixture(params=loops())
def run(request):
    """Run a coroutine on a loop of each kind; whatever that loop complains of fails the test."""

    def run(coroutine):
        loop = request.param()
        complaints = []
        loop.set_exception_handler(lambda _loop, context: complaints.append(context))
        try:
            loop.run_until_complete(asyncio.wait_for(coroutine, DEADLINE))
            loop.run_until_complete(asyncio.sleep(0.01))
        finally:
            loop.close()
        assert complaints == []

    return run


async def serve(judge: Judge) -> tuple[socket.socket, MilterConnection, Registry]:
    ours, theirs = socket.socketpair()
    for each in (ours, theirs):
        each.setblocking(False)
    registry = Registry()
    _, connection = await asyncio.get_running_loop().create_connection(
        lambda: MilterConnection(registry, judge), sock=ours
    )
    return theirs, connection, registry


async def read_all(connection: socket.socket) -> list[tuple[bytes, bytes]]:
    """Read packets until the other end closes."""
    octets = b""
    with connection:
        while more := await asyncio.get_running_loop().sock_recv(connection, 65536):
            octets += more
    return split_packets(octets)


async def deciding(judge: Judge, count: int) -> Message:
    while len(judge.messages) < count or judge.messages[-1].late is None:
        await asyncio.sleep(0.001)
    return judge.messages[-1]


async def gone(registry: Registry) -> None:
    while registry.is_open:
        await asyncio.sleep(0.001)


@pytest.mark.parametrize("end", [QUIT, QUIT + message(), b""], ids=["QUIT", "QUIT and more", "half-closed"])
def test_replies_come_before_the_end(run, end):
    async def test():
        judge = Judge(late=True)
        theirs, _, registry = await serve(judge)
        theirs.send(negotiation() + (message() + ABORT) * 2 + end)
        if not end:
            theirs.shutdown(socket.SHUT_WR)
        for count in (1, 2):
            (await deciding(judge, count)).decide()
        got = await read_all(theirs)
        assert got[0][0] == b"O"
        assert got[1:] == [*answer(0), *answer(1)]
        await gone(registry)
        assert len(judge.messages) == 2

    run(test())


def test_the_mta_leaves_while_a_decision_is_waited_for(run, monkeypatch):
    monkeypatch.setattr(milter_connection, "PROGRESS_SECONDS", 0.01)  # what it writes finds out

    async def test():
        judge = Judge(late=True)
        theirs, _, registry = await serve(judge)
        theirs.send(negotiation() + message() + ABORT + message())
        await deciding(judge, 1)
        theirs.close()
        await gone(registry)
        assert judge.messages[0].aborted
        assert registry.bugs == registry.cuts == 0

    run(test())


def test_the_mta_leaves_while_an_answer_is_held_back(run):
    async def test():
        judge = Judge(holds=LONG)
        theirs, _, registry = await serve(judge)
        theirs.send(negotiation() + MAIL + REFUSED)
        while not judge.refused.begun:
            await asyncio.sleep(0.001)
        theirs.close()
        await gone(registry)
        assert judge.refused.ended == 1
        assert registry.bugs == registry.cuts == 0

    run(test())


def test_the_mta_leaves_with_a_broken_packet_behind_a_message_that_waits(run):
    async def test():
        judge = Judge(late=True)
        theirs, _, registry = await serve(judge)
        theirs.send(negotiation() + message() + packet(b"?"))
        (await deciding(judge, 1)).decide()
        await gone(registry)
        assert registry.cuts == 1
        theirs.close()

    run(test())


def test_finish_while_a_decision_is_waited_for(run):
    async def test():
        judge = Judge(late=True)
        theirs, connection, registry = await serve(judge)
        theirs.send(negotiation() + message() + ABORT)
        waiting = await deciding(judge, 1)
        connection.finish()
        waiting.decide()
        assert (await read_all(theirs))[1:] == answer(0)
        await gone(registry)

    run(test())


def test_an_mta_that_sends_for_ever_and_never_reads(run):
    """Replies to everything, as at version 2: the connection stops reading, and what it keeps stays small."""

    async def test():
        judge = Judge()
        theirs, connection, registry = await serve(judge)
        theirs.send(negotiation(2, steps=mta.STEPS[2]))
        octets = (message() + ABORT) * 1000
        loop = asyncio.get_running_loop()
        sent = 0
        try:
            while sent < 200_000_000:
                async with asyncio.timeout(0.5):
                    await loop.sock_sendall(theirs, octets)
                sent += len(octets)
        except TimeoutError:
            pass
        assert sent < 20_000_000
        assert connection._transport.get_write_buffer_size() < 1_000_000
        assert len(connection._waiting) == 0
        theirs.close()
        await gone(registry)

    run(test())
