"""SIGHUP and changed files: what takes effect, and what stays in force when the new is bad."""

from __future__ import annotations

import os
import re
import sys
import threading
import time
from typing import TYPE_CHECKING

import pytest

from harness.daemon import LOOPBACK, Srsd
from harness.wire_clients import (
    OTHER_SECRET,
    SECRET,
    SOCKETMAP,
    SRS_DOMAIN,
    TCP_TABLE,
    Reply,
    srs0,
    until,
)

if TYPE_CHECKING:
    from pathlib import Path

ALICE = b"alice@origin.example"
ANSWER = Reply("found", srs0(b"alice", b"origin.example"))
NEW_ANSWER = Reply("found", srs0(b"alice", b"origin.example", secret=OTHER_SECRET))
NEW_DOMAIN = "new.example.net"
BACK = Reply("found", ALICE)


@pytest.fixture
def srsd(start, config) -> Srsd:
    """One that knows the first secret only."""
    return start(config(secrets=[SECRET], exclude="@friend.example\n"))


def rewrite(path: Path, text: str) -> None:
    """Replace a file as editors do: a new one, renamed onto it."""
    new = path.with_name(f".{path.name}.new")
    new.write_text(text)
    new.chmod(0o600)
    new.rename(path)


def edit(srsd: Srsd, old: str, new: str) -> None:
    text = srsd.config.read_text()
    assert old in text
    srsd.config.write_text(text.replace(old, new))


def reload(srsd: Srsd) -> None:
    since = srsd.hup()
    srsd.wait_for_log("everything was read again", since=since)


def refused_reload(srsd: Srsd, faults: int = 1) -> list[str]:
    """Send SIGHUP; return what it says against the new files, once it has said so much."""
    since = srsd.hup()

    def said() -> list[str]:
        return [line for line in srsd.log[since:] if "nothing was reloaded, what was in force stays" in line]

    until(f"{faults} faults", lambda: len(said()) >= faults)
    return said()


def forward(srsd: Srsd, key: bytes = ALICE) -> Reply:
    return TCP_TABLE.ask(srsd, "forward", key)


def reverse(srsd: Srsd, key: bytes) -> Reply:
    return TCP_TABLE.ask(srsd, "reverse", key)


# What takes effect.


def test_new_secret_first_signs_and_the_old_one_verifies(srsd, directory):
    assert forward(srsd) == ANSWER
    assert reverse(srsd, NEW_ANSWER.text).status == "not found"
    rewrite(directory / "srs.secrets", f"{OTHER_SECRET}\n{SECRET}\n")
    reload(srsd)
    assert forward(srsd) == NEW_ANSWER
    assert reverse(srsd, NEW_ANSWER.text) == BACK
    assert reverse(srsd, ANSWER.text) == BACK
    rewrite(directory / "srs.secrets", f"{OTHER_SECRET}\n")
    reload(srsd)
    assert forward(srsd) == NEW_ANSWER
    assert reverse(srsd, ANSWER.text) == Reply("not found", b"hash invalid")


def test_connections_stay_and_ask_the_new(srsd, directory):
    with TCP_TABLE.client(srsd) as client:
        assert client.ask(ALICE) == ANSWER
        client.send_raw(b"get alice@")  # half before the reload, half after it
        assert forward(srsd) == ANSWER
        rewrite(directory / "srs.secrets", f"{OTHER_SECRET}\n{SECRET}\n")
        reload(srsd)
        client.send_raw(b"origin.example\n")
        assert client.reply() == NEW_ANSWER


def test_no_lookup_is_lost_or_wrong_while_it_reloads(srsd, directory):
    """Every answer is that of the old files or that of the new ones."""
    done = threading.Event()
    answers: set[Reply] = set()

    def ask_on() -> None:
        with TCP_TABLE.client(srsd) as client:
            while not done.is_set():
                answers.add(client.ask(ALICE))

    asker = threading.Thread(target=ask_on)
    asker.start()
    try:
        for number in range(10):
            pair = (SECRET, OTHER_SECRET) if number % 2 else (OTHER_SECRET, SECRET)
            rewrite(directory / "srs.secrets", "{}\n{}\n".format(*pair))
            reload(srsd)
    finally:
        done.set()
        asker.join()
    assert answers == {ANSWER, NEW_ANSWER}


def test_exclusions(srsd, directory):
    assert forward(srsd, b"a@friend.example") == Reply("not found", b"excluded")
    rewrite(directory / "exclude", "@origin.example\n")
    reload(srsd)
    assert forward(srsd) == Reply("not found", b"excluded")
    assert forward(srsd, b"a@friend.example").status == "found"
    (directory / "exclude").unlink()
    reload(srsd)
    assert forward(srsd) == ANSWER


def test_changed_domain(srsd):
    edit(srsd, f'domain = "{SRS_DOMAIN}"', f'domain = "{NEW_DOMAIN}"')
    reload(srsd)
    assert forward(srsd) == Reply("found", srs0(b"alice", b"origin.example", domain=NEW_DOMAIN))
    assert reverse(srsd, ANSWER.text) == Reply("not found", b"SRS address of another domain")
    edit(srsd, "[srs]", f'[srs]\nprevious_domains = ["{SRS_DOMAIN}"]')
    reload(srsd)
    assert reverse(srsd, ANSWER.text) == BACK
    assert forward(srsd, ANSWER.text) == Reply("not found", b"already rewritten here")


def test_log_level_and_format(srsd):
    edit(srsd, "[srs]", '[log]\nformat = "json"\n\n[srs]')
    reload(srsd)
    since = len(srsd.log)
    assert forward(srsd) == ANSWER
    assert srsd.wait_for_log("alice", since=since).startswith("{")


def test_changed_files_are_noticed(srsd, directory):
    rewrite(directory / "srs.secrets", f"{OTHER_SECRET}\n{SECRET}\n")
    rewrite(directory / "exclude", "@friend.example\n@other.example\n")
    srsd.wait_for_log("srs.secrets: read again after a change", deadline=5)
    srsd.wait_for_log("exclude: read again after a change", deadline=5)
    until("new answers", lambda: forward(srsd) == NEW_ANSWER, 2)
    assert reverse(srsd, ANSWER.text) == BACK
    assert forward(srsd, b"a@other.example") == Reply("not found", b"excluded")
    (directory / "exclude").unlink()
    srsd.wait_for_log("exclude: was removed, so it counts as empty", deadline=5)
    until("new answers", lambda: forward(srsd, b"a@friend.example").status == "found", 2)


def test_half_written_secrets_are_never_used(srsd, directory):
    """Whatever is there so far would be a secret too: nothing may be signed with it.

    It takes more than two looks at the file to write it, so that each of them finds a part.
    """
    answers: list[Reply] = []
    with TCP_TABLE.client(srsd) as client, (directory / "srs.secrets").open("w") as secrets:
        for character in OTHER_SECRET:
            secrets.write(character)
            secrets.flush()
            part_end = time.monotonic() + 2.2 / len(OTHER_SECRET)
            while time.monotonic() < part_end:
                answers.append(client.ask(ALICE))
        secrets.write(f"\n{SECRET}\n")
        secrets.flush()
        until("the new secret", lambda: answers.append(client.ask(ALICE)) or answers[-1] == NEW_ANSWER, 5)
    assert set(answers) == {ANSWER, NEW_ANSWER}
    assert reverse(srsd, ANSWER.text) == BACK
    assert not [line for line in srsd.log if line.startswith("error")]


# What takes a second takes a fifth of it.
HASTY = """
import asyncio
sleep = asyncio.sleep
asyncio.sleep = lambda seconds, *result: sleep(seconds / 5, *result)
from srsd.daemon.main import main
main()
"""


# What is bad keeps the old in force.


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("[srs]", "[srs", "is not TOML"),
        ("[srs]", "[srs]\nhash_lenght = 5", "srs.hash_lenght: is not a known key"),
        (SRS_DOMAIN, "nodot", "srs.domain: "),
        ("srs.secrets", "absent.secrets", "absent.secrets: does not exist"),
    ],
    ids=["not TOML", "unknown key", "bad domain", "other secrets file"],
)
def test_bad_configuration(srsd, old, new, says):
    edit(srsd, old, new)
    (line,) = refused_reload(srsd)
    assert line.startswith("error: ")
    assert says in line
    assert forward(srsd) == ANSWER
    edit(srsd, new, old)
    reload(srsd)


def test_missing_configuration(srsd):
    moved = srsd.config.rename(srsd.config.with_name("moved"))
    (line,) = refused_reload(srsd)
    assert f"{srsd.config}: does not exist" in line
    assert forward(srsd) == ANSWER
    moved.rename(srsd.config)
    reload(srsd)


def test_every_fault_is_said_and_nothing_of_the_good_is_used(srsd, directory):
    """A reload is all or nothing: the good new configuration waits for the good secrets."""
    edit(srsd, SRS_DOMAIN, NEW_DOMAIN)
    (directory / "srs.secrets").chmod(0o644)
    rewrite(directory / "exclude", "@origin.example\nbad@\n")
    lines = refused_reload(srsd, 2)
    assert len(lines) == 2
    assert "srs.secrets: has mode 0644" in lines[0]
    assert "exclude: line 2: " in lines[1]
    assert forward(srsd) == ANSWER
    (directory / "srs.secrets").chmod(0o600)
    rewrite(directory / "exclude", "")
    reload(srsd)
    assert forward(srsd) == Reply("found", srs0(b"alice", b"origin.example", domain=NEW_DOMAIN))


def test_bad_files_that_are_noticed_keep_the_old_in_force(start, config, directory):
    """Only the second between two looks at the files is shortened."""
    srsd = start(config(secrets=[SECRET]), argv=[sys.executable, "-c", HASTY])
    secrets, exclude = directory / "srs.secrets", directory / "exclude"
    rewrite(secrets, "\n \n")
    rewrite(exclude, "@origin.example\nbad@\n")
    since = len(srsd.log)
    for wanted in "srs.secrets: has no secret", "exclude: line 2: ":
        line = srsd.wait_for_log(wanted, deadline=5)
        assert line.startswith("error: ")
        assert line.endswith("the version before it stays in force")
    assert forward(srsd) == ANSWER
    rewrite(secrets, f"{OTHER_SECRET}\n")
    secrets.chmod(0o644)
    srsd.wait_for_log("srs.secrets: has mode 0644", deadline=5)
    assert forward(srsd) == ANSWER
    secrets.chmod(0o600)  # nothing but the mode: that is a change too
    srsd.wait_for_log("srs.secrets: read again after a change", deadline=5)
    until("new answers", lambda: forward(srsd) == NEW_ANSWER, 2)
    assert sum("exclude: line 2" in line for line in srsd.log[since:]) <= 1, "each bad version is said once"
    secrets.unlink()
    srsd.wait_for_log("srs.secrets: does not exist", deadline=5)
    assert forward(srsd) == NEW_ANSWER


# What needs a restart.


@pytest.mark.parametrize(
    ("key", "old", "new"),
    [
        ("listen", LOOPBACK, "inet:127.0.0.2:0"),
        ("user", "state_directory", 'user = "nobody"\nstate_directory'),
        ("workers", "state_directory", "workers = 2\nstate_directory"),
        ("state_directory", "/state", "/state2"),
    ],
)
def test_what_needs_a_restart_is_said_and_the_rest_takes_effect(srsd, directory, key, old, new):
    endpoints = dict(srsd.endpoints)
    edit(srsd, old, new)
    edit(srsd, "[srs]", '[srs]\nlocal_domains = ["own.example"]')
    reload(srsd)
    said = [line for line in srsd.log if "needs a restart" in line]
    assert said == [f"warning: {srsd.config}: {key} has changed, which needs a restart of srsd"]
    assert forward(srsd, b"a@own.example") == Reply("not found", b"own domain")
    assert forward(srsd) == ANSWER
    assert srsd.endpoints == endpoints
    assert not (directory / "state2").exists()


def test_hundred_reloads_leave_nothing_behind(srsd):
    def descriptors() -> int:
        return len(os.listdir(f"/proc/{srsd.pid}/fd"))

    reload(srsd)
    before = descriptors()
    for _ in range(100):
        reload(srsd)
    assert descriptors() <= before
    assert forward(srsd) == ANSWER


def test_a_storm_of_signals(srsd):
    for _ in range(200):
        srsd.hup()
    assert forward(srsd) == ANSWER
    reload(srsd)


def test_socketmap_answers_from_the_new_files_too(start, config, directory):
    srsd = start(config(secrets=[SECRET], listen={"socketmap": [f"unix:{directory}/socketmap"]}))
    with SOCKETMAP.client(srsd) as client:
        assert client.ask(ALICE) == ANSWER
        rewrite(directory / "srs.secrets", f"{OTHER_SECRET}\n{SECRET}\n")
        reload(srsd)
        assert client.ask(ALICE) == NEW_ANSWER
    assert not any(re.search(r"\brestart\b", line) for line in srsd.log)
