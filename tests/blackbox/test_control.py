"""The control socket: what it tells, whom it obeys, what it survives; and srsctl status, top, reload."""

from __future__ import annotations

import contextlib
import grp
import json
import os
import pwd
import re
import socket
import stat
import subprocess
import sys
import time
from datetime import datetime
from typing import TYPE_CHECKING

import pytest

from harness.daemon import DEADLINE, Srsd, command, run
from harness.running import (
    ALICE,
    SECRETS,
    ask,
    configure,
    control,
    new_directory,
    open_connection,
    patched,
    running,
    until,
)
from srsd.daemon.status import Reload, SecretState, Status

if TYPE_CHECKING:
    from pathlib import Path

NOBODY = "nobody"
GROUP = "daemon"  # one that nobody is not in

root_only = pytest.mark.skipif(os.geteuid() != 0, reason="not root: it takes other users to be refused")


def connect(srsd: Srsd) -> socket.socket:
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    connection.connect(srsd.unix("control"))  # blocks while the backlog is full
    connection.settimeout(DEADLINE)
    return connection


def exchange(srsd: Srsd, octets: bytes) -> bytes:
    """Send octets and no more; return all that comes back until srsd closes."""
    with connect(srsd) as connection:
        with contextlib.suppress(ConnectionError):  # it need not read all of it
            connection.sendall(octets)
            connection.shutdown(socket.SHUT_WR)
        answers = b""
        with contextlib.suppress(ConnectionResetError):
            while octets := connection.recv(65536):
                answers += octets
        return answers


def srsctl(srsd: Srsd, *arguments: str) -> subprocess.CompletedProcess[str]:
    return run("srsctl", "--config", srsd.config, *arguments)


# What status says.


def test_status_has_every_documented_name(each):
    status = control(each, "status")
    assert set(status) == set(Status.__annotations__)
    assert set(status["last_reload"]) == set(Reload.__annotations__)
    for secret in status["secrets"]:
        assert set(secret) == set(SecretState.__annotations__)


def test_status_tells_what_is_so(each):
    status = control(each, "status")
    assert status["version"] == "0.1.0"
    assert status["pid"] == each.pid
    assert status["configuration"] == str(each.config)
    assert status["event_loop"] in {"uvloop", "asyncio"}
    started = datetime.fromisoformat(status["started"])
    assert abs(started.timestamp() - status["started_timestamp"]) < 1
    assert abs(time.time() - status["started_timestamp"] - status["uptime_seconds"]) < 2
    assert sorted(status["listeners"]) == sorted(
        f"{name}={endpoint}" for name, all_of_it in each.endpoints.items() for endpoint in all_of_it
    )
    assert status["last_reload"]["good"] is True
    assert status["last_reload"]["faults"] == []
    assert [secret["role"] for secret in status["secrets"]] == ["signs and verifies", "verifies"]
    assert [secret["age_days"] for secret in status["secrets"]] == [0, 0]
    for worker in status["workers"]:
        assert worker["state"] == "running"
        assert worker["restarts"] == 0
        assert datetime.fromisoformat(worker["started"]) >= started.replace(microsecond=0)
    assert len(status["counters"]["latency"]) == len(status["latency_bounds"]) + 1
    assert set(status["lookups_per_second"]) == {"1", "10", "60"}
    text = json.dumps(status)
    assert not any(secret in text for secret in SECRETS)


def test_status_counts_lookups_by_kind_and_reason(each):
    def counts() -> dict[tuple[str, ...], int]:
        return {tuple(kind): count for *kind, count in control(each, "status")["counters"]["lookups"]}

    before = counts()
    for _ in range(5):
        srs = ask(each, "forward", "counted@origin.example").removeprefix("200 ")
        ask(each, "reverse", srs)
        ask(each, "reverse", "nobody@elsewhere.example")
    with open_connection(each, "forward") as connection:
        connection.sendall(b"put x y\n")
        assert connection.recv(100).startswith(b"500 ")

    def raised() -> dict[tuple[str, ...], int]:
        return {kind: count - before.get(kind, 0) for kind, count in counts().items()}

    def total(*start: str) -> int:
        return sum(count for kind, count in raised().items() if kind[: len(start)] == start)

    until("all counts", lambda: sum(raised().values()) == 16)
    assert total("srs_forward", "forward", "found") == 5
    assert total("srs_reverse", "reverse", "found") == 5
    assert total("srs_reverse", "reverse", "not_found") == 5
    assert total("srs_forward", "", "not_found") == 1
    assert all(kind[3] for kind in raised())


def test_connections_are_counted(each):
    def counters() -> dict[str, int]:
        return control(each, "status")["counters"]

    until("quiet", lambda: counters()["connections_open"] == 0)
    before = counters()
    with contextlib.ExitStack() as stack:
        for _ in range(10):
            ask_one = stack.enter_context(open_connection(each, "forward"))
            ask_one.sendall(b"get x@origin.example\n")
            assert ask_one.recv(100)
        until("open ones", lambda: counters()["connections_open"] == 10)
    until("closed ones", lambda: counters()["connections_open"] == 0)
    with open_connection(each, "forward") as rude, contextlib.suppress(OSError):
        rude.sendall(b"x" * 200_000)
        rude.recv(1)
    until("cut one", lambda: counters()["connections_cut"] == before["connections_cut"] + 1)
    assert counters()["connections_opened"] == before["connections_opened"] + 11


def test_the_rate_rises_with_lookups(each):
    until("silence", lambda: control(each, "status")["lookups_per_second"]["1"] == 0)

    def rate() -> float:
        for _ in range(20):
            ask(each, "forward", ALICE)
        rates = control(each, "status")["lookups_per_second"]
        assert all(value >= 0 for value in rates.values())
        return rates["1"] > 0 and rates["10"] > 0

    until("rate", rate)


def test_a_good_and_a_bad_reload(each):
    good = each.config.read_text()
    try:
        first = control(each, "status")["last_reload"]
        assert control(each, "reload") == {"faults": []}
        each.config.write_text(good.replace("[srs]", "[srs]\nhash_length = 99\n"))
        (fault,) = control(each, "reload")["faults"]
        assert str(each.config) in fault
        assert "hash_length" in fault
        last = control(each, "status")["last_reload"]
        assert (last["good"], last["faults"]) == (False, [fault])
        assert last["time"] >= first["time"]
        assert ask(each, "forward", ALICE).startswith("200 ")
    finally:
        each.config.write_text(good)
        assert control(each, "reload") == {"faults": []}
    assert control(each, "status")["last_reload"]["good"] is True


# Whom it obeys.


def test_the_socket_is_for_its_owner_and_group(srsd):
    assert stat.S_IMODE(os.stat(srsd.unix("control")).st_mode) == 0o660


ASK_AS = """
import os, socket, sys
uid, gid, path = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
os.setgroups([])
os.setresgid(gid, gid, gid)
os.setresuid(uid, uid, uid)
with socket.socket(socket.AF_UNIX) as connection:
    connection.settimeout(10)
    try:
        connection.connect(path)
    except PermissionError:
        sys.exit("not let in")
    try:
        connection.sendall(b'{"command": "status"}\\n')
        answer = connection.recv(100)
    except ConnectionError:
        answer = b""
    sys.exit(0 if answer.startswith(b'{"version"') else "closed without an answer" if not answer else "?")
"""


def ask_as(user: str, group: str, path: str) -> str:
    """Ask for the status as another user; return what came of it, "" when it was answered."""
    ids = [str(pwd.getpwnam(user).pw_uid), str(grp.getgrnam(group).gr_gid)]
    asked = subprocess.run(
        [sys.executable, "-c", ASK_AS, *ids, path],
        capture_output=True,
        text=True,
        timeout=DEADLINE,
        check=False,
    )
    return asked.stderr.strip()


@root_only
@pytest.mark.usefixtures("no_coverage_in_children")
def test_other_users_are_refused():
    nobodys_group = grp.getgrgid(pwd.getpwnam(NOBODY).pw_gid).gr_name
    with new_directory() as directory:
        listen = {
            "control": [
                f"unix:{directory}/control",
                f"unix:{directory}/open?mode=0666",  # an admin's mistake: credentials decide still
                f"unix:{directory}/group?mode=0660&group={GROUP}",
            ]
        }
        with running(directory=directory, listen=listen, workers=2) as srsd:
            asked = {name: f"{directory}/{name}" for name in ("control", "open", "group")}
            assert ask_as("root", "root", asked["control"]) == ""
            assert ask_as(NOBODY, nobodys_group, asked["control"]) == "not let in"
            assert ask_as(NOBODY, nobodys_group, asked["open"]) == "closed without an answer"
            uid = pwd.getpwnam(NOBODY).pw_uid
            srsd.wait_for_log(f"user {uid} was refused on the control socket")
            assert ask_as(NOBODY, nobodys_group, asked["group"]) == "not let in"
            assert ask_as(NOBODY, GROUP, asked["group"]) == ""
            assert os.stat(asked["group"]).st_gid == grp.getgrnam(GROUP).gr_gid


@root_only
@pytest.mark.usefixtures("no_coverage_in_children")
def test_the_daemons_own_user_may_ask():
    nobodys_group = grp.getgrgid(pwd.getpwnam(NOBODY).pw_gid).gr_name
    with new_directory() as directory:
        config = configure(
            directory, user=NOBODY, listen={"control": [f"unix:{directory}/control?mode=0666"]}
        )
        os.chown(directory / "srs.secrets", 0, pwd.getpwnam(NOBODY).pw_gid)
        os.chmod(directory / "srs.secrets", 0o640)
        os.chown(directory / "state", pwd.getpwnam(NOBODY).pw_uid, -1)
        with Srsd(config) as srsd:
            assert ask_as(NOBODY, nobodys_group, srsd.unix("control")) == ""
            assert ask_as("daemon", "daemon", srsd.unix("control")) == "closed without an answer"
        assert srsd.returncode == 0


# What it survives.


@pytest.mark.parametrize(
    "octets",
    [
        b"\n",
        b"status\n",
        b"{}\n",
        b"[]\n",
        b"null\n",
        b'"status"\n',
        b'{"command": null}\n',
        b'{"command": []}\n',
        b'{"command": {}}\n',
        b'{"command": "shutdown"}\n',
        b'{"command": "__class__"}\n',
        b'{"command": 1e999}\n',
        b"[" * 4000 + b"\n",
        b"9" * 4090 + b"\n",
        b"\xff\xfe\x00\n",
        b"\x00" * 100 + b"\n",
        b"GET / HTTP/1.1\r\n",
    ],
    ids=lambda octets: repr(octets[:20]),
)
def test_rubbish_is_answered_with_an_error(srsd, octets):
    answers = [json.loads(line) for line in exchange(srsd, octets * 2).splitlines()]
    assert answers == [{"error": "not a command"}] * 2
    assert control(srsd, "status")["pid"] == srsd.pid


@pytest.mark.parametrize("octets", [b"", b'{"command": "sta', b"x" * 100], ids=repr)
def test_half_lines_end_with_their_connection(srsd, octets):
    assert exchange(srsd, octets) in {b"", b'{"error": "not a command"}\n'}
    assert control(srsd, "status")["pid"] == srsd.pid


def test_an_overlong_line_ends_its_connection(srsd):
    for octets in (b"x" * 5000 + b"\n", b"x" * 10_000_000):
        assert exchange(srsd, octets) == b""
    assert control(srsd, "status")["pid"] == srsd.pid


def test_many_commands_over_one_connection(srsd):
    answers = exchange(srsd, b'{"command": "status"}\nrubbish\n' * 50).splitlines()
    assert len(answers) == 100
    assert all(json.loads(line)["pid"] == srsd.pid for line in answers[::2])


def test_a_thousand_connections_do_no_harm(srsd):
    with contextlib.ExitStack() as stack:
        for _ in range(1000):
            stack.enter_context(connect(srsd))
        assert ask(srsd, "forward", ALICE).startswith("200 ")
        descriptors = len(os.listdir(f"/proc/{srsd.pid}/fd"))
        assert descriptors < 100, "each of them is kept open"
    until("status", lambda: answered(srsd))


def answered(srsd: Srsd) -> bool:
    """Tell whether a status comes; while old connections are being cleared away none may."""
    return exchange(srsd, b'{"command": "status"}\n').startswith(b'{"version"')


def test_sigterm_with_open_connections_ends_cleanly():
    with running(listen={"metrics": ["inet:127.0.0.1:0"]}) as srsd, contextlib.ExitStack() as stack:
        silent, used = (stack.enter_context(connect(srsd)) for _ in range(2))
        used.sendall(b'{"command": "status"}\n')
        assert used.recv(65536)
        scrape = stack.enter_context(socket.create_connection(srsd.inet("metrics"), timeout=DEADLINE))
        scrape.sendall(b"GET /met")
        begun = time.monotonic()
        assert srsd.terminate() == 0
        assert time.monotonic() - begun < 4, "they are no lookups that must be finished"
        assert silent.recv(1) == b""


# Where it cannot be had.


@pytest.mark.parametrize("error", ["PermissionError(13, 'Permission denied')", "OSError(98, 'In use')"])
def test_the_default_socket_that_cannot_be_bound_is_only_a_warning(error):
    """Somebody's own srsd, started by hand, without a right to /run, or beside another."""
    unlucky = f"""
import srsd.daemon.listeners as listeners
good = listeners._bind_unix
def bind(kind, endpoint):
    if endpoint.path == "/run/srsd/control.sock":
        raise {error}
    return good(kind, endpoint)
listeners._bind_unix = bind
"""
    with new_directory() as directory:
        config = configure(directory)
        config.write_text(re.sub(r"(?m)^control = .*\n", "", config.read_text()))
        with Srsd(config, argv=patched(unlucky)) as srsd:
            assert "control" not in srsd.endpoints
            assert ask(srsd, "forward", ALICE).startswith("200 ")
            srsd.wait_for_log("warning: srsctl status and reload will not work")
        assert srsd.returncode == 0


def start_and_fail(config: Path) -> tuple[int, str]:
    line = [*command(), "--config", str(config)]
    ended = subprocess.run(line, capture_output=True, text=True, timeout=DEADLINE, check=False)
    return ended.returncode, ended.stderr


def test_a_configured_socket_that_cannot_be_bound_is_fatal(tmp_path):
    missing = tmp_path / "missing" / "control"
    status, log = start_and_fail(configure(tmp_path, listen={"control": [f"unix:{missing}"]}))
    assert status == 78
    assert "listen.control" in log
    assert str(missing) in log


def test_a_configured_socket_that_another_process_has_is_fatal_for_now(tmp_path):
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(str(tmp_path / "control"))
        other.listen()
        status, log = start_and_fail(configure(tmp_path))
    assert status == 71
    assert "listen.control" in log
    assert (tmp_path / "control").exists(), "it was not ours to remove"


# srsctl.


def test_srsctl_status_shows_everything(each):
    ask(each, "forward", ALICE)
    until("count", lambda: control(each, "status")["counters"]["lookups"])
    shown = srsctl(each, "status")
    assert (shown.returncode, shown.stderr) == (0, "")
    for worker in control(each, "status")["workers"]:
        assert str(worker["pid"]) in shown.stdout
    for text in (
        str(each.pid),
        each.endpoints["srs_forward"][0],
        "signs and verifies",
        "rewritten",
        "connections",
        str(each.config.name),
    ):
        assert text in shown.stdout, text
    assert not any(secret in shown.stdout for secret in SECRETS)


def test_srsctl_status_as_json(each):
    shown = srsctl(each, "status", "--json")
    assert (shown.returncode, shown.stderr) == (0, "")
    status = json.loads(shown.stdout)
    assert set(status) == set(Status.__annotations__)
    assert status["pid"] == each.pid


def test_srsctl_top_ends_after_its_count(srsd):
    begun = time.monotonic()
    shown = srsctl(srsd, "top", "--count", "2", "--interval", "0.3")
    assert (shown.returncode, shown.stderr) == (0, "")
    assert time.monotonic() - begun > 0.3
    assert str(srsd.pid) in shown.stdout
    assert "lookups/s" in shown.stdout


def test_srsctl_reload(each):
    good = each.config.read_text()
    try:
        done = srsctl(each, "reload")
        assert (done.returncode, done.stdout, done.stderr) == (0, "everything was read again\n", "")
        each.config.write_text("rubbish\n")
        # The configuration is where srsctl learns of the socket: a faulty one is its own answer.
        assert srsctl(each, "reload").returncode == 78
        each.config.write_text(good)
        (each.config.with_name("srs.secrets")).chmod(0o644)
        refused = srsctl(each, "reload")
        assert (refused.returncode, refused.stdout) == (1, "")
        assert "chmod 0640" in refused.stderr
        assert len(refused.stderr.splitlines()) == 1
        as_json = srsctl(each, "reload", "--json")
        assert as_json.returncode == 1
        assert json.loads(as_json.stdout) == {"good": False, "faults": refused.stderr.splitlines()}
    finally:
        each.config.write_text(good)
        each.config.with_name("srs.secrets").chmod(0o600)
    done = srsctl(each, "reload", "--json")
    assert (done.returncode, json.loads(done.stdout)) == (0, {"good": True, "faults": []})


@pytest.mark.parametrize("arguments", [["status"], ["status", "--json"], ["top", "--count", "1"], ["reload"]])
def test_without_a_daemon_srsctl_says_so_in_one_line(tmp_path, arguments):
    said = run("srsctl", "--config", configure(tmp_path), *arguments)
    assert (said.returncode, said.stdout) == (1, "")
    assert len(said.stderr.splitlines()) == 1
    assert str(tmp_path / "control") in said.stderr


def test_without_a_control_socket_srsctl_says_so(tmp_path):
    said = run("srsctl", "--config", configure(tmp_path, listen={"control": []}), "status")
    assert (said.returncode, said.stdout) == (1, "")
    assert len(said.stderr.splitlines()) == 1
    assert "listen.control" in said.stderr


def test_a_daemon_that_died_leaves_a_socket_that_answers_nothing(tmp_path):
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(tmp_path / "control"))
    said = run("srsctl", "--config", configure(tmp_path), "status")
    assert (said.returncode, said.stdout, len(said.stderr.splitlines())) == (1, "", 1)
    with running(directory=tmp_path) as srsd:  # and the next daemon takes the place over
        assert control(srsd, "status")["pid"] == srsd.pid
