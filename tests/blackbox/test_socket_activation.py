"""Sockets that systemd opened, and what systemd is told."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess

import pytest

from harness.activation import NotifySocket, activated, listen_inet, listen_unix
from harness.daemon import DEADLINE, Srsd, command
from harness.load import Load
from harness.ports import free_port
from harness.running import ALICE, ask, configure, control, is_alive, new_directory, running, until, workers


class Unit:
    """A socket unit: it listens on all that srsd has, and keeps listening whatever srsd does."""

    def __init__(self, directory, **tables) -> None:
        self.directory = directory
        self.forward, self.reverse = listen_inet(), listen_inet()
        self.socketmap = listen_unix(directory / "socketmap")
        self.sockets = [self.socketmap, self.reverse, self.forward]  # in an order of its own
        self.config = configure(
            directory,
            listen={
                "srs_forward": [endpoint(self.forward)],
                "srs_reverse": [endpoint(self.reverse)],
                "socketmap": [f"unix:{directory}/socketmap"],
            },
            **tables,
        )

    def srsd(self, *further: socket.socket, sockets: list[socket.socket] | None = None) -> Srsd:
        handed = [*(self.sockets if sockets is None else sockets), *further]
        return Srsd(self.config, argv=activated(handed), pass_fds=[each.fileno() for each in handed])

    def close(self) -> None:
        for each in self.sockets:
            each.close()


def endpoint(listener: socket.socket) -> str:
    host, port = listener.getsockname()
    return f"inet:{host}:{port}"


@pytest.fixture
def unit():
    with new_directory() as directory:
        made = Unit(directory)
        yield made
        made.close()


@pytest.fixture
def unit_of_two():
    with new_directory() as directory:
        made = Unit(directory, workers=2)
        yield made
        made.close()


def ask_socketmap(path: str) -> bytes:
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(DEADLINE)
        connection.connect(path)
        connection.sendall(b"%d:forward %b," % (8 + len(ALICE), ALICE.encode()))
        return connection.recv(4096)


@pytest.mark.parametrize("number", [1, 2], ids=["one process", "two workers"])
def test_sockets_are_taken_over_whatever_their_order(request, number):
    with new_directory() as directory:
        unit = Unit(directory, workers=number)
        try:
            for sockets in (unit.sockets, unit.sockets[::-1]):
                with unit.srsd(sockets=sockets) as srsd:
                    assert srsd.endpoints["srs_forward"] == [endpoint(unit.forward)]
                    assert srsd.endpoints["srs_reverse"] == [endpoint(unit.reverse)]
                    address = ask(srsd, "forward", ALICE).removeprefix("200 ")
                    assert ask(srsd, "reverse", address) == f"200 {ALICE}"
                    assert b"OK SRS0=" in ask_socketmap(srsd.unix("socketmap"))
                    assert not [line for line in srsd.log if "warning" in line]
                assert srsd.returncode == 0
                # It is systemd's, and systemd still listens there.
                assert (directory / "socketmap").is_socket()
                assert not (directory / "control").exists(), "this one was srsd's own"
        finally:
            unit.close()


def test_an_inherited_unix_socket_outlives_workers_too(unit_of_two):
    with unit_of_two.srsd() as srsd:
        before = workers(srsd)
        os.kill(before[0], signal.SIGTERM)
        until("replacement", lambda: len(workers(srsd)) == 2 and set(workers(srsd)) != set(before))
        assert b"OK SRS0=" in ask_socketmap(srsd.unix("socketmap"))
        srsd.kill()
    assert (unit_of_two.directory / "socketmap").is_socket()
    with unit_of_two.srsd() as srsd:
        assert b"OK SRS0=" in ask_socketmap(srsd.unix("socketmap"))


def test_what_waited_while_srsd_was_away_is_answered(unit):
    with contextlib.ExitStack() as stack:
        waiting = []
        for _ in range(200):
            connection = stack.enter_context(socket.create_connection(unit.forward.getsockname()))
            connection.settimeout(DEADLINE)
            connection.sendall(b"get alice@origin.example\n")
            waiting.append(connection)
        with unit.srsd():
            assert all(connection.recv(100).startswith(b"200 SRS0=") for connection in waiting)


@pytest.mark.parametrize("number", [1, 2], ids=["one process", "two workers"])
def test_restarts_under_load_refuse_no_connection(number):
    with new_directory() as directory:
        unit = Unit(directory, workers=number)
        try:
            with Load(unit.forward.getsockname()[:2]) as load:
                for _ in range(3):
                    with unit.srsd() as srsd:
                        until("answers", load.goes_on())
                    assert srsd.returncode == 0
                with unit.srsd():
                    until("answers", load.goes_on())
                    load.stop()
            # Who was connected when srsd ended may find the connection closed, at most twice for each
            # restart (a new connection may reach the worker that ends last), and asks again, as
            # Postfix does. Nobody is refused, no answer is wrong.
            assert {failure.stage for failure in load.failures} <= {"request"}, load.failures
            assert sum(failure.kept for failure in load.failures) <= 2 * 3 * 4
            assert sum(not failure.kept for failure in load.failures) <= 2 * 3 * 4
            print(f"{len(load.failures)} of {load.answered} asked again:", load.failures)  # noqa: T201
            assert load.slowest < DEADLINE
        finally:
            unit.close()


def start_and_fail(srsd: Srsd) -> tuple[int, str]:
    line = [*srsd.argv, "--config", str(srsd.config)]
    ended = subprocess.run(
        line, capture_output=True, text=True, timeout=DEADLINE, check=False, pass_fds=srsd.pass_fds
    )
    return ended.returncode, ended.stderr


def test_a_socket_that_no_endpoint_matches_is_a_fault(unit):
    with listen_inet() as stranger:
        status, log = start_and_fail(unit.srsd(stranger))
        assert status == 78
        assert f"{endpoint(stranger)} was handed over" in log
        assert len(log.splitlines()) == 1
    with listen_unix(unit.directory / "other") as stranger:
        status, log = start_and_fail(unit.srsd(stranger))
        assert status == 78
        assert str(unit.directory / "other") in log
    assert (unit.directory / "other").is_socket()
    assert (unit.directory / "socketmap").is_socket()


def test_what_is_not_handed_over_is_bound_by_srsd(unit):
    unit.reverse.close()
    unit.sockets.remove(unit.reverse)
    with unit.srsd() as srsd:
        assert ask(srsd, "reverse", "x@elsewhere.example").startswith("500 ")
        assert ask(srsd, "forward", ALICE).startswith("200 ")


def test_descriptors_that_are_meant_for_another_process_are_not_touched(unit):
    """LISTEN_PID names somebody else: srsd binds by itself, and finds the address taken here."""
    argv = ["sh", "-c", 'LISTEN_FDS=1 LISTEN_PID=1 exec "$@"', "sh", *command()]
    status, log = start_and_fail(Srsd(unit.config, argv=argv))
    assert status == 71
    assert "end the process that has it" in log
    with running(argv=argv) as srsd:
        assert ask(srsd, "forward", ALICE).startswith("200 ")


@pytest.mark.skipif(
    shutil.which("systemd-socket-activate") is None,
    reason="systemd-socket-activate (package systemd) is not installed",
)
def test_with_systemds_own_activation(tmp_path):
    """It listens, and becomes srsd when the first client comes."""
    ports = [free_port(), free_port()]
    path = tmp_path / "socketmap"
    config = configure(
        tmp_path,
        workers=2,
        listen={
            "srs_forward": [f"inet:127.0.0.1:{ports[0]}"],
            "srs_reverse": [f"inet:127.0.0.1:{ports[1]}"],
            "socketmap": [f"unix:{path}"],
        },
    )
    listens = [f"--listen={each}" for each in (f"127.0.0.1:{ports[1]}", path, f"127.0.0.1:{ports[0]}")]
    activator = subprocess.Popen(
        ["systemd-socket-activate", *listens, *command(), "--config", str(config)],
        stderr=subprocess.DEVNULL,
    )
    try:
        until("listening", path.is_socket)

        def connected() -> socket.socket | None:
            with contextlib.suppress(ConnectionRefusedError):
                return socket.create_connection(("127.0.0.1", ports[0]), timeout=DEADLINE)
            return None

        with until("connection", connected) as connection:
            connection.sendall(b"get alice@origin.example\n")
            assert connection.recv(100).startswith(b"200 SRS0=")
        assert b"OK SRS0=" in ask_socketmap(str(path))
        activator.terminate()
        assert activator.wait(DEADLINE) == 0
        assert path.is_socket()
    finally:
        activator.kill()
        activator.wait()


# What systemd is told.


@pytest.mark.parametrize(("kind", "number"), [("path", 2), ("abstract", 1)])
def test_the_supervisor_is_told_everything(kind, number):
    with new_directory() as directory:
        address = str(directory / "notify") if kind == "path" else f"@srsd-test-{os.getpid()}"
        with NotifySocket(address) as notifications:
            with running(directory=directory, workers=number, env={"NOTIFY_SOCKET": address}) as srsd:
                notifications.wait_for(lambda messages: messages[:1] == ["READY=1"])
                notifications.wait_for(lambda messages: "WATCHDOG=1" in messages)
                srsd.hup()
                notifications.wait_for(lambda messages: messages.count("READY=1") == 2)
                before = notifications.messages[:]
                reloading = before.index("RELOADING=1")
                assert "READY=1" in before[reloading:]
                srsd.config.write_text("rubbish\n")
                assert control(srsd, "reload")["faults"]
                notifications.wait_for(lambda messages: messages.count("READY=1") == 3)
                assert notifications.messages.count("RELOADING=1") == 2
            notifications.wait_for(lambda messages: "STOPPING=1" in messages)
            assert notifications.messages[-1] == "STOPPING=1"
            assert set(notifications.messages) == {"READY=1", "WATCHDOG=1", "RELOADING=1", "STOPPING=1"}


def test_a_supervisor_that_is_gone_does_not_matter():
    with running(env={"NOTIFY_SOCKET": "/nonexistent/notify"}) as srsd:
        assert ask(srsd, "forward", ALICE).startswith("200 ")
        assert is_alive(srsd.pid)
