"""Many connections, and clients that take no replies: what srsd holds stays bounded, others are served."""

from __future__ import annotations

import contextlib
import resource
import select
import time

import pytest

from harness.daemon import LOOPBACK, Srsd, command
from harness.wire_clients import (
    BOTH,
    Client,
    Reply,
    Wire,
    descriptor_count,
    leave_with_reset,
    resident_megabytes,
    srs0,
    until,
)

CONNECTIONS = 1200
ALICE = b"alice@origin.example"
ANSWER = Reply("found", srs0(b"alice", b"origin.example"))


@pytest.fixture
def srsd(start, config, directory) -> Srsd:
    # Rewrites are not logged: what the log costs is not what is measured here.
    return start(
        config(
            listen={
                "srs_forward": [LOOPBACK],
                "srs_reverse": [LOOPBACK],
                "socketmap": [f"unix:{directory}/socketmap"],
            },
            log={"level": "error"},
        )
    )


@pytest.fixture
def many_descriptors():
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = CONNECTIONS + 200
    if hard != resource.RLIM_INFINITY and hard < wanted:
        pytest.skip(f"the hard limit of open files is {hard}, this takes {wanted}")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, wanted), hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.parametrize("wire", BOTH, ids=str)
def test_clients_that_connect_and_leave(srsd, wire: Wire):
    request = wire.request("forward", ALICE)

    def come_and_go(times: int) -> None:
        for number in range(times):
            client = wire.client(srsd)
            if number % 4 == 1:
                client.send_raw(request)
            elif number % 4 == 2:
                client.send_raw(request[:7])
            elif number % 4 == 3:
                client.send_raw(request * 20 + request[:7])
            leave_with_reset(client.socket)

    come_and_go(1000)  # so that what Python keeps for itself is there
    assert wire.ask(srsd, "forward", ALICE) == ANSWER
    until("end of the connections", lambda: descriptor_count(srsd.pid) < 40)
    descriptors, memory = descriptor_count(srsd.pid), resident_megabytes(srsd.pid)
    come_and_go(10_000)
    assert wire.ask(srsd, "forward", ALICE) == ANSWER
    until("end of the connections", lambda: descriptor_count(srsd.pid) <= descriptors)
    assert resident_megabytes(srsd.pid) < memory + 2


@pytest.mark.usefixtures("many_descriptors")
@pytest.mark.parametrize("wire", BOTH, ids=str)
def test_many_connections_at_once_are_all_served(srsd, wire: Wire):
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(wire.client(srsd)) for _ in range(CONNECTIONS)]
        for number, client in enumerate(clients):
            client.send(b"user%d@origin.example" % number)
        for number, client in enumerate(clients):
            assert client.reply() == Reply("found", srs0(b"user%d" % number, b"origin.example"))
        assert descriptor_count(srsd.pid) > CONNECTIONS
        for client in clients:  # and all of them are still there
            assert client.ask(ALICE) == ANSWER
    until("end of the connections", lambda: descriptor_count(srsd.pid) < 40)


def push(client: Client, octets: bytes, patience: float = 0.5) -> int:
    """Send for as long as srsd takes it; stop when it has not for `patience` seconds."""
    client.socket.setblocking(False)
    rest = memoryview(octets)
    while rest and select.select([], [client.socket], [], patience)[1]:
        with contextlib.suppress(BlockingIOError):
            rest = rest[client.socket.send(rest[:262144]) :]
    client.socket.settimeout(10)
    return len(octets) - len(rest)


@pytest.mark.parametrize("wire", BOTH, ids=str)
def test_a_client_that_never_reads_is_not_read_from_either(srsd, wire: Wire):
    assert wire.ask(srsd, "forward", ALICE) == ANSWER
    request = wire.request("forward", ALICE)
    octets = request * (100_000_000 // len(request))
    memory = resident_megabytes(srsd.pid)
    with wire.client(srsd) as deaf:
        taken = push(deaf, octets)
        assert taken < 50_000_000, "srsd read on, so it keeps requests or replies somewhere"
        assert resident_megabytes(srsd.pid) < memory + 10
        waited = []
        with wire.client(srsd) as other:
            for _ in range(200):
                start = time.perf_counter()
                assert other.ask(ALICE) == ANSWER
                waited.append(time.perf_counter() - start)
        assert sorted(waited)[190] < 0.05
        # When it reads after all, nothing is missing and nothing is out of order.
        for _ in range(10_000):
            assert deaf.reply() == ANSWER
        leave_with_reset(deaf.socket)
    assert wire.ask(srsd, "forward", ALICE) == ANSWER


@pytest.mark.parametrize("wire", BOTH, ids=str)
def test_a_client_that_reads_late_gets_every_reply_in_order(srsd, wire: Wire):
    count = 60_000
    requests = b"".join(wire.request("forward", b"user%d@origin.example" % n) for n in range(count))
    with wire.client(srsd) as late:
        sent = push(late, requests)
        late.socket.setblocking(False)
        answered = 0
        while answered < count:
            with contextlib.suppress(BlockingIOError):
                while sent < len(requests):
                    sent += late.socket.send(requests[sent : sent + 262144])
            late.socket.settimeout(10)
            for _ in range(500):
                assert late.reply().text == srs0(b"user%d" % answered, b"origin.example")
                answered += 1
            late.socket.setblocking(False)


def test_too_many_connections(start, config):
    """With the descriptors used up new clients are served, and those that were silent longest go."""
    limited = ["sh", "-c", 'ulimit -n 128; exec "$@"', "sh", *command()]
    srsd = start(config(), argv=limited)
    wire = BOTH[0]
    limit = 128 - 64  # what is left for files
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(wire.client(srsd)) for _ in range(limit)]
        for client in clients:
            assert client.ask(ALICE) == ANSWER
        assert not [line for line in srsd.log if "connections are open" in line]
        newcomers = [stack.enter_context(wire.client(srsd)) for _ in range(30)]
        for client in newcomers[-limit // 4 :]:
            assert client.ask(ALICE) == ANSWER
        srsd.wait_for_log("connections are open: the one that was silent longest was closed")
        assert descriptor_count(srsd.pid) < 128


def test_the_real_clock_ends_slow_requests(start, config):
    """A slow-loris against a whole srsd; only its constants are shortened."""
    shortened = (
        "import srsd.daemon.main as main, srsd.daemon.server as server, srsd.daemon.serving as serving\n"
        "from srsd.daemon.connection import LookupConnection\n"
        "serving.LOOK_INTERVAL = server.LOOK_INTERVAL = 1\n"
        "LookupConnection.slow_seconds, LookupConnection.idle_seconds = 2, 5\n"
        "main.main()"
    )
    python = command()[0].removesuffix("srsd") + "python"
    srsd = start(config(), argv=[python, "-c", shortened])
    wire = BOTH[0]
    with wire.client(srsd) as loris, wire.client(srsd) as silent, wire.client(srsd) as polite:
        asked = time.monotonic()
        octets = iter(b"get " + b"x" * 100)
        while not select.select([loris.socket], [], [], 0.1)[0]:
            loris.send_raw(bytes([next(octets)]))
            assert polite.ask(ALICE) == ANSWER
            assert time.monotonic() - asked < 8
        assert loris.is_closed()
        with pytest.raises(BlockingIOError):  # there is more time for saying nothing
            silent.socket.setblocking(False)
            silent.socket.recv(1)
        while not select.select([silent.socket], [], [], 0.1)[0]:
            assert polite.ask(ALICE) == ANSWER
            assert time.monotonic() - asked < 15
        assert silent.is_closed()
        assert polite.ask(ALICE) == ANSWER
