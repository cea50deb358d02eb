"""From the start to the end of the process: its files, its sockets, its exit statuses, its signals."""

from __future__ import annotations

import contextlib
import grp
import os
import re
import signal
import socket
import stat
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from harness.daemon import DEADLINE, LOOPBACK, Srsd, command, run, to_toml
from harness.wire_clients import (
    BOTH,
    OTHER_SECRET,
    SOCKETMAP,
    SRS_DOMAIN,
    TCP_TABLE,
    Reply,
    check_log,
    connect,
    srs0,
    until,
)

if TYPE_CHECKING:
    from pathlib import Path

ALICE = b"alice@origin.example"
ANSWER = Reply("found", srs0(b"alice", b"origin.example"))
MAIN = "from srsd.daemon.main import main; main()"


def python(*options: str, before: str = "") -> list[str]:
    """Return what runs srsd in this Python with some options, after some lines."""
    return [sys.executable, *options, "-c", before + MAIN]


def on_both_wires(directory: Path, options: str = "") -> dict[str, list[str]]:
    return {
        "srs_forward": [LOOPBACK],
        "srs_reverse": [LOOPBACK],
        "socketmap": [f"unix:{directory}/socketmap{options}"],
    }


# The start.


def test_ready_line_names_every_endpoint_with_its_real_port(start, config, directory):
    srsd = start(config(listen=on_both_wires(directory)))
    ready = [line for line in srsd.log if " ready: " in line]
    assert len(ready) == 1
    inet = r"inet:127\.0\.0\.1:[1-9]\d*"
    assert re.fullmatch(
        rf"info: srsd \d+\.\d+\.\d+ ready: srs_forward={inet} srs_reverse={inet} "
        rf"socketmap=unix:{re.escape(str(directory))}/socketmap",
        ready[0],
    )
    for wire in BOTH:
        assert wire.ask(srsd, "forward", ALICE) == ANSWER
        assert wire.ask(srsd, "reverse", ANSWER.text) == Reply("found", ALICE)


def test_without_uvloop(start, config, directory):
    blocked = python(before="import sys; sys.modules['uvloop'] = None; ")
    srsd = start(config(listen=on_both_wires(directory)), argv=blocked)
    for wire in BOTH:
        assert wire.ask(srsd, "forward", ALICE) == ANSWER
    with SOCKETMAP.client(srsd) as client:
        client.ask(ALICE)
        assert srsd.terminate() == 0
        assert client.is_closed()
    assert not (directory / "socketmap").exists()


def test_no_warnings_of_python(start, config, directory):
    """As errors they would end srsd; the log is looked through for the word too."""
    srsd = start(config(listen=on_both_wires(directory)), argv=python("-W", "error"))
    since = srsd.hup()
    srsd.wait_for_log("everything was read again", since=since)
    for wire in BOTH:
        with wire.client(srsd) as client:
            assert client.ask(ALICE) == ANSWER
    with TCP_TABLE.client(srsd) as client:
        client.ask(ALICE)
        assert srsd.terminate() == 0
    assert {line.partition(":")[0] for line in srsd.log} <= {"info"}, srsd.log


def forged() -> dict[str, bytes]:
    good = srs0(b"alice", b"origin.example")
    return {
        "another user": good.replace(b"=alice@", b"=mallory@"),
        "another host": good.replace(b"origin.example", b"evil.example"),
        "unknown secret": srs0(b"alice", b"origin.example", secret="of somebody else"),
        "too old": srs0(b"alice", b"origin.example", age=22),
        "of tomorrow": srs0(b"alice", b"origin.example", age=-2),
        "short hash": good[:5] + good[6:],
        "no hash": good[:5] + good[9:],
        "odd separator": good.replace(b"SRS0=", b"SRS0?"),
        "foreign": good.replace(SRS_DOMAIN.encode(), b"other.example"),
    }


def test_optimized_python_refuses_the_same_forgeries(start, config, directory):
    """Under -O there are no assertions: no verdict may rest on one."""
    file = config(listen=on_both_wires(directory))
    optimized = start(file, argv=python("-O"))
    verdicts = {name: TCP_TABLE.ask(optimized, "reverse", key) for name, key in forged().items()}
    assert optimized.terminate() == 0
    plain = start(file)
    assert verdicts == {name: TCP_TABLE.ask(plain, "reverse", key) for name, key in forged().items()}
    assert {verdict.status for verdict in verdicts.values()} == {"not found"}
    assert TCP_TABLE.ask(plain, "reverse", ANSWER.text) == Reply("found", ALICE)


# The check, and faults.


def test_check_of_a_good_configuration(config, directory):
    file = config(listen=on_both_wires(directory))
    checked = run("srsd", "--config", file, "--check")
    assert (checked.returncode, checked.stderr) == (0, "")
    assert checked.stdout == f"{file}: good\n"
    assert not (directory / "socketmap").exists()


FAULTY = """
worker = 2
[listen]
srs_forward = ["unix:/run/x"]
srs_reverse = ["inet:127.0.0.1:70000"]
[srs]
domain = "no_dot"
hash_length = 99
local_domains = "own.example"
[log]
level = "loud"
"""
FAULTY_KEYS = [
    "listen.srs_forward",
    "listen.srs_reverse",
    "log.level",
    "srs.domain",
    "srs.hash_length",
    "srs.local_domains",
    "worker",
]


@pytest.mark.parametrize("options", [["--check"], []], ids=["check", "start"])
def test_all_faults_of_a_configuration_at_once_each_in_a_line(refused, directory, options):
    file = directory / "srsd.toml"
    file.write_text(FAULTY)
    status, lines = refused(file, *options)
    assert status == 78
    parts = [line.split(": ", 2) for line in lines]
    assert sorted(key for _, key, _ in parts) == FAULTY_KEYS
    assert {name for name, _, _ in parts} == {str(file)}
    assert all("would be right: " in problem for _, _, problem in parts)


@pytest.mark.parametrize("options", [["--check"], []], ids=["check", "start"])
def test_faults_of_the_files_that_it_names_at_once(refused, config, directory, options):
    file = config(exclude="@good.example\nrubbish@\n@also good?\nx.example tea\n", secrets=[])
    status, lines = refused(file, *options)
    assert status == 78
    assert [line.partition(":")[0] for line in lines] == [
        f"{directory}/srs.secrets",
        *[f"{directory}/exclude"] * 3,
    ]
    assert [line.split(": ")[1] for line in lines[1:]] == ["line 2", "line 3", "line 4"]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (b"[srs\n", "is not TOML"),
        (b"x = '\xff'\n", "is not UTF-8"),
        (b"\xef\xbb\xbfworkers = 1\n", "is not TOML"),
        (b"[listen]\nsrs_forward=[]\nsrs_reverse=[]\ncontrol=[]\n", "has no endpoint"),
        (b'"evil\\nname\\u001b" = 1\n', "is not a known key"),
    ],
    ids=["broken", "octets", "byte order mark", "no endpoints", "key with a newline"],
)
def test_odd_configurations(refused, directory, text, says):
    file = directory / "srsd.toml"
    file.write_bytes(text)
    status, lines = refused(file)
    assert (status, len(lines)) == (78, 1)
    assert lines[0].startswith(f"{file}: ")
    assert says in lines[0]
    assert lines[0].isprintable()


def test_missing_files(refused, config, directory):
    missing = directory / "none.toml"
    expected = f"{missing}: does not exist, would be right: srsctl config example > {missing}"
    for options in [], ["--check"]:
        assert refused(missing, *options) == (78, [expected])
    file = config()
    (directory / "srs.secrets").unlink()
    status, lines = refused(file)
    assert (status, len(lines)) == (78, 1)
    assert lines[0].startswith(f"{directory}/srs.secrets: does not exist")


def test_configuration_is_a_directory(refused, directory):
    status, lines = refused(directory)
    assert status == 78
    assert lines == [f"{directory}: cannot be read (Is a directory)"]


@pytest.mark.parametrize("mode", [0o644, 0o660, 0o601])
def test_open_secrets_are_refused_and_doing_what_it_says_mends_it(refused, start, config, directory, mode):
    file = config()
    (directory / "srs.secrets").chmod(mode)
    status, lines = refused(file)
    assert (status, len(lines)) == (78, 1)
    assert f"srs.secrets: has mode {mode:04o}" in lines[0]
    _, _, mend = lines[0].partition("would be right: ")
    assert mend == f"chmod 0640 {directory}/srs.secrets"
    subprocess.run(mend.split(), check=True)
    assert TCP_TABLE.ask(start(file), "forward", ANSWER.text).status == "not found"


# Sockets.


@pytest.mark.parametrize("mode", [0o600, 0o777])
def test_mode_of_a_unix_socket(start, config, directory, mode):
    umask = os.umask(0o077)
    try:
        srsd = start(config(listen=on_both_wires(directory, f"?mode={mode:04o}")))
    finally:
        os.umask(umask)
    made = os.stat(srsd.unix("socketmap"))
    assert stat.S_ISSOCK(made.st_mode)
    assert stat.S_IMODE(made.st_mode) == mode


def test_default_mode_and_group_of_a_unix_socket(start, config, directory):
    made = os.stat(start(config(listen=on_both_wires(directory))).unix("socketmap"))
    assert stat.S_IMODE(made.st_mode) == 0o660
    assert made.st_gid == os.getegid()


@pytest.mark.usefixtures("as_root")
def test_group_of_a_unix_socket(start, config, directory):
    made = os.stat(start(config(listen=on_both_wires(directory, "?group=mail"))).unix("socketmap"))
    assert grp.getgrgid(made.st_gid).gr_name == "mail"
    assert stat.S_IMODE(made.st_mode) == 0o660


def test_unknown_group(refused, config, directory):
    status, lines = refused(config(listen=on_both_wires(directory, "?group=no-such-group")))
    assert (status, len(lines)) == (78, 1)
    assert 'listen.socketmap: there is no group "no-such-group"' in lines[0]


def test_socket_of_a_killed_srsd_is_replaced(start, config, directory):
    file = config(listen=on_both_wires(directory))
    with Srsd(file) as killed:
        killed.kill()
    assert (directory / "socketmap").is_socket()
    srsd = start(file)
    assert SOCKETMAP.ask(srsd, "forward", ALICE) == ANSWER


def test_socket_that_somebody_listens_on_is_left_alone(refused, start, config, directory):
    file = config(listen=on_both_wires(directory))
    srsd = start(file)
    inode = os.stat(directory / "socketmap").st_ino
    status, lines = refused(file)
    assert (status, len(lines)) == (71, 1)
    assert f"listen.socketmap: unix:{directory}/socketmap" in lines[0]
    assert os.stat(directory / "socketmap").st_ino == inode
    assert SOCKETMAP.ask(srsd, "forward", ALICE) == ANSWER


@pytest.mark.parametrize("kind", ["file", "directory", "dangling link"])
def test_what_is_no_socket_is_left_alone(refused, config, directory, kind):
    there = directory / "socketmap"
    if kind == "file":
        there.write_text("precious")
    elif kind == "directory":
        there.mkdir()
    else:
        there.symlink_to(directory / "nothing")
    before = os.lstat(there)
    status, lines = refused(config(listen=on_both_wires(directory)))
    assert (status, len(lines)) == (78, 1)
    assert "listen.socketmap" in lines[0]
    assert "no socket is there" in lines[0]
    assert os.lstat(there) == before


def test_missing_directory_of_a_socket(refused, config, directory):
    status, lines = refused(config(listen=on_both_wires(directory / "none")))
    assert (status, len(lines)) == (78, 1)
    assert "cannot be bound (No such file or directory)" in lines[0]


def test_socket_file_is_removed_at_the_end_unless_it_is_another_by_then(start, config, directory):
    path = directory / "socketmap"
    file = config(listen=on_both_wires(directory))
    srsd = start(file)
    assert path.is_socket()
    assert srsd.terminate() == 0
    assert not path.exists()
    srsd = start(file)
    path.unlink()
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(str(path))
        assert srsd.terminate() == 0
        assert path.is_socket()


def test_refused_start_leaves_no_socket(refused, config, directory):
    file = config(listen=on_both_wires(directory))
    (directory / "srs.secrets").chmod(0o644)
    assert refused(file)[0] == 78
    assert not (directory / "socketmap").exists()


def test_port_in_use(refused, config, directory):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        endpoint = f"inet:127.0.0.1:{taken.getsockname()[1]}"
        status, lines = refused(config(listen={**on_both_wires(directory), "srs_reverse": [endpoint]}))
    assert (status, len(lines)) == (71, 1)
    assert f"listen.srs_reverse: {endpoint}: Address already in use" in lines[0]


def test_port_can_be_had_again_at_once(start, config):
    srsd = start(config())
    host, port = srsd.inet("srs_forward")
    with TCP_TABLE.client(srsd) as client:  # srsd closes first, so the kernel remembers the connection
        client.ask(ALICE)
        assert srsd.terminate() == 0
    again = start(config(listen={"srs_forward": [f"inet:{host}:{port}"], "srs_reverse": [LOOPBACK]}))
    assert TCP_TABLE.ask(again, "forward", ALICE) == ANSWER


# The end.


def refuses(endpoint: str) -> bool:
    try:
        connect(endpoint).close()
    except (ConnectionRefusedError, FileNotFoundError):
        return True
    return False


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("wire", BOTH, ids=str)
def test_end_answers_what_has_begun(start, config, directory, wire, number):
    srsd = start(config(listen=on_both_wires(directory)))
    request = wire.request("forward", ALICE)
    with contextlib.ExitStack() as stack:
        idle, whole, half, new = (stack.enter_context(wire.client(srsd)) for _ in range(4))
        for client in (idle, whole, half):
            assert client.ask(ALICE) == ANSWER
        half.send_raw(request[:9])
        assert wire.ask(srsd, "forward", ALICE) == ANSWER  # so the half has arrived
        # Requests that arrive while srsd does not run, so that it finds signal and requests together.
        os.kill(srsd.pid, signal.SIGSTOP)
        whole.send(*[ALICE] * 50)
        new.send(ALICE)
        os.kill(srsd.pid, number)
        os.kill(srsd.pid, signal.SIGCONT)
        assert whole.replies(50) == [ANSWER] * 50
        assert new.reply() == ANSWER
        assert whole.is_closed()
        assert idle.is_closed()
        until("end of listening", lambda: refuses(wire.endpoint(srsd, "forward")))
        half.send_raw(request[9:])
        assert half.reply() == ANSWER
        assert half.is_closed()
        assert srsd.wait(2) == 0
    assert srsd.log[-1] == "info: srsd has ended"


def test_half_a_request_does_not_keep_srsd_for_ever(start, config):
    """Only the time that a request may take is shortened."""
    argv = python(before="import srsd.daemon.server as server; server.DRAIN_SECONDS = 0.2; ")
    srsd = start(config(), argv=argv)
    with TCP_TABLE.client(srsd) as client:
        client.send_raw(b"get alice@")
        assert TCP_TABLE.ask(srsd, "forward", ALICE) == ANSWER
        assert srsd.terminate(3) == 0
        assert client.is_closed()


def test_sigterm_twice(start, config):
    srsd = start(config())
    with TCP_TABLE.client(srsd) as client:
        assert client.ask(ALICE) == ANSWER
        client.send_raw(b"get alice@")
        assert TCP_TABLE.ask(srsd, "forward", ALICE) == ANSWER
        os.kill(srsd.pid, signal.SIGTERM)
        until("end of listening", lambda: refuses(TCP_TABLE.endpoint(srsd, "forward")))
        os.kill(srsd.pid, signal.SIGTERM)
        client.send_raw(b"origin.example\n")
        assert client.reply() == ANSWER
        assert srsd.wait(3) == 0


def test_end_right_after_the_start_of_python(config):
    """Before srsd handles signals SIGTERM ends it as it does any program: no half state stays."""
    line = [*command(), "--config", str(config())]
    with subprocess.Popen(line, stderr=subprocess.PIPE) as process:
        process.terminate()
        assert process.wait(DEADLINE) in (0, -signal.SIGTERM)
        assert process.stderr is not None
        assert b"Traceback" not in process.stderr.read()


# The tools beside it.


def test_srsctl_never_shows_a_secret(config, directory):
    file = config(srs={"hash_length": 27, "hash_minimum": 4})
    shown = []
    for arguments in (
        ["config", "check"],
        ["config", "show"],
        ["config", "show", "--json"],
        ["srs", "forward", "alice@origin.example"],
        ["srs", "explain", srs0(b"a", b"b.example", secret=OTHER_SECRET).decode(), "--json"],
        ["secret", "list"],
        ["secret", "new"],
        ["secret", "--help"],
    ):
        done = run("srsctl", "--config", file, *arguments)
        shown += [done.stdout, done.stderr]
    assert any("number 2 in the file" in text for text in shown)
    check_log(shown)


def test_version():
    done = run("srsd", "--version")
    assert done.returncode == 0
    assert re.fullmatch(r"srsd \d+\.\d+\.\d+\n", done.stdout)


def test_relative_path_of_the_configuration(directory, config):
    config()
    done = subprocess.run(
        [*command(), "--config", "srsd.toml", "--check"],
        cwd=directory,
        capture_output=True,
        text=True,
        timeout=DEADLINE,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, f"{directory}/srsd.toml: good\n"), done.stderr


def test_what_has_no_effect_is_said_once(start, config):
    srsd = start(config(policy={"login_mismatch": "reject"}))
    assert sum("policy.login_mismatch: has no effect: " in line for line in srsd.log) == 1


def test_without_a_domain_every_lookup_is_not_found(start, directory):
    file = directory / "srsd.toml"
    listen = {"srs_forward": [LOOPBACK], "srs_reverse": [LOOPBACK], "control": []}
    file.write_text(to_toml({"state_directory": str(directory), "listen": listen}))
    srsd = start(file)
    srsd.wait_for_log("srs.domain is empty")
    for direction, key in (("forward", ALICE), ("reverse", ANSWER.text)):
        assert TCP_TABLE.ask(srsd, direction, key) == Reply("not found", b"no SRS domain configured")
