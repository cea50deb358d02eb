"""Root gives itself up: srsd becomes the configured user, and can do all its work as that user."""

from __future__ import annotations

import os
import pwd
import signal
import stat
import subprocess
from typing import TYPE_CHECKING

import pytest

from harness.daemon import LOOPBACK, run
from harness.wire_clients import (
    BOTH,
    OTHER_SECRET,
    SECRET,
    TCP_TABLE,
    Reply,
    process_status,
    srs0,
    until,
)

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.usefixtures("as_root", "no_coverage_in_children")

USER = "nobody"
ALICE = b"alice@origin.example"
ANSWER = Reply("found", srs0(b"alice", b"origin.example"))


@pytest.fixture
def account() -> pwd.struct_passwd:
    try:
        return pwd.getpwnam(USER)
    except KeyError:
        pytest.skip(f"there is no user {USER} here to become")


@pytest.fixture
def file(config, directory, account) -> Path:
    """Write a configuration for that user, which may read what it should and nothing more."""
    made = config(
        user=USER,
        exclude="@friend.example\n",
        listen={
            "srs_forward": [LOOPBACK],
            "srs_reverse": [LOOPBACK],
            "socketmap": [f"unix:{directory}/socketmap?mode=0666"],
            "control": [f"unix:{directory}/control"],
        },
    )
    secrets = directory / "srs.secrets"
    os.chown(secrets, 0, account.pw_gid)
    secrets.chmod(0o640)
    os.chown(directory / "state", account.pw_uid, account.pw_gid)
    return made


def test_every_id_is_dropped_for_good(start, file, account):
    srsd = start(file)
    assert process_status(srsd.pid, "Uid") == [str(account.pw_uid)] * 4
    assert process_status(srsd.pid, "Gid") == [str(account.pw_gid)] * 4
    groups = {str(group) for group in os.getgrouplist(USER, account.pw_gid)}
    assert set(process_status(srsd.pid, "Groups")) == groups
    for kind in "CapInh", "CapPrm", "CapEff", "CapAmb":
        assert process_status(srsd.pid, kind) == ["0" * 16], kind


def test_groups_of_root_are_dropped_too(start, file, account):
    """Root with more groups, as a login has them: none of them may stay."""
    former = os.getgroups()
    os.setgroups([0, 1, 4])
    try:
        srsd = start(file)
    finally:
        os.setgroups(former)
    groups = {str(group) for group in os.getgrouplist(USER, account.pw_gid)}
    assert set(process_status(srsd.pid, "Groups")) == groups


def test_it_works_as_that_user(start, file, directory):
    srsd = start(file)
    for wire in BOTH:
        assert wire.ask(srsd, "forward", ALICE) == ANSWER
        assert wire.ask(srsd, "reverse", ANSWER.text) == Reply("found", ALICE)
        assert wire.ask(srsd, "forward", b"a@friend.example").status == "not found"
    status = run("srsctl", "--config", file, "status", "--json")
    assert status.returncode == 0, status.stderr
    assert (directory / "state" / "secrets.json").exists()
    assert [line for line in srsd.log if not line.startswith("info: ")] == []


@pytest.mark.parametrize(
    "key",
    [
        "a@bücher.example".encode(),
        "a@ß\u200d。example".encode(),
        b"a@\xff.example",
        b"\xff@origin.example",
        b"\x1b@origin.example",
        b"a\nb@origin.example",
    ],
    ids=["IDNA", "mapped by IDNA", "no UTF-8 in the domain", "no UTF-8", "control character", "newline"],
)
def test_what_python_loads_at_its_first_use_was_loaded_before(start, file, key):
    """That user may be unable to read Python's library, so nothing can be imported any more."""
    file.write_text(file.read_text() + '\n[log]\nlevel = "debug"\n')
    srsd = start(file)
    assert TCP_TABLE.ask(srsd, "forward", key).status in ("found", "not found")


def test_socket_and_state_directory_belong_to_whom_they_should(start, file, directory, account):
    (directory / "state").rmdir()
    srsd = start(file)
    state = (directory / "state").stat()
    assert (state.st_uid, state.st_gid) == (account.pw_uid, account.pw_gid)
    assert stat.S_IMODE(state.st_mode) == 0o750
    assert stat.S_IMODE((directory / "socketmap").stat().st_mode) == 0o666
    assert srsd.terminate() == 0


def mend(line: str) -> str:
    """Do what a fault says; it is commands for a root shell."""
    _, _, commands = line.partition("would be right: ")
    assert commands.startswith("chown root:"), line
    subprocess.run(["sh", "-ec", commands], check=True)
    return commands


@pytest.mark.parametrize("options", [["--check"], []], ids=["check", "start"])
@pytest.mark.parametrize("name", ["srs.secrets", "srsd.toml", "exclude"])
def test_unreadable_file_is_refused_and_doing_what_it_says_mends_it(
    refused, start, file, directory, account, *, name, options
):
    path = directory / name
    os.chown(path, 0, 0)
    path.chmod(0o600)
    status, lines = refused(file, *options)
    assert (status, len(lines)) == (78, 1)
    assert lines[0].startswith(f"{path}: cannot be read (Permission denied), would be right: ")
    commands = mend(lines[0])
    assert commands == f"chown root:nogroup {path} && chmod 0640 {path}" or account.pw_gid != 65534
    made = path.stat()
    assert (made.st_uid, made.st_gid, stat.S_IMODE(made.st_mode)) == (0, account.pw_gid, 0o640)
    assert run("srsd", "--config", file, "--check").returncode == 0
    assert TCP_TABLE.ask(start(file), "forward", ALICE) == ANSWER


def test_all_unreadable_files_are_named_at_once(refused, file, directory):
    for name in "srs.secrets", "exclude":
        os.chown(directory / name, 0, 0)
        (directory / name).chmod(0o600)
    status, lines = refused(file)
    assert status == 78
    assert [line.partition(":")[0] for line in lines] == [f"{directory}/srs.secrets", f"{directory}/exclude"]


def test_check_drops_root_before_it_reads(refused, file, directory):
    """Nothing that only root can read may count as good."""
    assert run("srsd", "--config", file, "--check").returncode == 0
    directory.chmod(0o700)
    status, lines = refused(file, "--check")
    assert status == 78
    assert all("Permission denied" in line for line in lines)


def test_sighup_reads_everything_again(start, file, directory):
    srsd = start(file)
    file.write_text(file.read_text().replace("[srs]", '[srs]\nlocal_domains = ["new.example"]'))
    (directory / "srs.secrets").write_text(f"{OTHER_SECRET}\n{SECRET}\n")
    (directory / "exclude").write_text("@other.example\n")
    since = srsd.hup()
    srsd.wait_for_log("everything was read again", since=since)
    new = srs0(b"a", b"friend.example", secret=OTHER_SECRET)
    assert TCP_TABLE.ask(srsd, "forward", b"a@friend.example") == Reply("found", new)
    for excluded in b"a@new.example", b"a@other.example":
        assert TCP_TABLE.ask(srsd, "forward", excluded).status == "not found"
    assert srsd.terminate() == 0


def test_sighup_with_a_file_that_the_user_cannot_read_keeps_the_old(start, file, directory):
    srsd = start(file)
    (directory / "srs.secrets").chmod(0o600)
    since = srsd.hup()
    line = srsd.wait_for_log("what was in force stays", since=since)
    assert "srs.secrets: cannot be read (Permission denied), would be right: chown root:" in line
    assert TCP_TABLE.ask(srsd, "forward", ALICE) == ANSWER


def test_sockets_are_bound_as_root_and_go_away_where_that_user_may_remove_them(
    start, file, directory, account
):
    """A port below 1024 needs root; a socket in a directory of root's stays, and is no obstacle later."""
    first = start(file)
    assert first.terminate() == 0
    assert (directory / "socketmap").is_socket(), "nobody may not remove it"
    second = start(file)
    assert BOTH[1].ask(second, "forward", ALICE) == ANSWER
    os.chown(directory, account.pw_uid, account.pw_gid)
    assert second.terminate() == 0
    assert not (directory / "socketmap").exists()


def test_unknown_user(refused, config):
    name = "no-such-user-of-srsd"
    for options in [], ["--check"]:
        status, lines = refused(config(user=name), *options)
        assert (status, len(lines)) == (78, 1)
        assert f'user: there is no user "{name}", would be right: adduser --system' in lines[0]


def test_another_user_cannot_become_that_user(start, file):
    """The running srsd is nobody: it cannot get root back, nor be taken for root."""
    srsd = start(file)
    os.kill(srsd.pid, signal.SIGHUP)
    srsd.wait_for_log("everything was read again")
    until("status", lambda: process_status(srsd.pid, "Uid")[0] != "0")
    tried = subprocess.run(["cat", f"/proc/{srsd.pid}/environ"], user=USER, capture_output=True, check=False)
    # A process that gave up root is not dumpable: not even its own user looks into it.
    assert tried.returncode != 0
