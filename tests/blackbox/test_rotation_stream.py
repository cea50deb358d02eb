"""Secrets are rotated while mail flows: every address that was ever made is reversed, at every moment."""

from __future__ import annotations

import contextlib
import random
import stat
import threading
import time
from typing import TYPE_CHECKING, Self

import pytest

from harness.daemon import DEADLINE, Srsd, run
from harness.running import (
    ask_over,
    connection_of_each,
    control,
    new_directory,
    open_connection,
    patched,
    running,
    until,
    workers,
)
from srsd.srs import fingerprint, parse_secrets

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


class Mail:
    """Forwards all the time, and bounces to all that was forwarded before."""

    def __init__(self, srsd: Srsd) -> None:
        self._srsd = srsd
        self._ended = threading.Event()
        self._lock = threading.Lock()
        self._threads = [threading.Thread(target=self._run, args=(number,)) for number in range(4)]
        self.addresses: dict[str, str] = {}  # SRS address -> sender
        self.bounced = 0
        self.refused: list[str] = []

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        for thread in self._threads:
            thread.join(2 * DEADLINE)

    def goes_on(self, bounces: int = 100) -> Callable[[], bool]:
        goal = self.bounced + bounces
        return lambda: self.bounced >= goal or self.refused

    def _run(self, number: int) -> None:
        """Forward over one connection; bounce, at once and later, over one to each worker."""
        chance = random.Random(number)
        with contextlib.ExitStack() as stack:
            forward = stack.enter_context(open_connection(self._srsd, "forward"))
            reverse = [stack.enter_context(open_connection(self._srsd, "reverse")) for _ in range(6)]
            count = 0
            while not self._ended.wait(0.001):
                count += 1
                sender = f"user{number}-{count}@origin.example"
                reply = ask_over(forward, f"{sender}")
                if not reply.startswith("200 SRS0="):
                    self.refused.append(reply)
                    continue
                made = reply.removeprefix("200 ")
                with self._lock:
                    self.addresses[made] = sender
                    earlier = chance.choice(list(self.addresses))
                for address in (made, earlier):
                    reply = ask_over(chance.choice(reverse), address)
                    if reply != f"200 {self.addresses[address]}":
                        self.refused.append(f"{address}: {reply}")
                    self.bounced += 1


class Reader:
    """Reads the file of secrets all the time, as a daemon may at any moment."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self.faults: set[str] = set()
        self.seen: list[list[bytes]] = []

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join(DEADLINE)

    def _run(self) -> None:
        while not self._ended.is_set():
            try:
                with self._path.open("rb") as file:
                    mode = stat.S_IMODE(self._path.stat().st_mode)
                    text = file.read()
            except OSError as error:
                self.faults.add(repr(error))
                continue
            secrets = parse_secrets(text)
            if mode != 0o600 or not text.endswith(b"\n"):
                self.faults.add(f"mode {mode:o}, {len(text)} octets")
            if not self.seen or secrets != self.seen[-1]:
                self.seen.append(secrets)
            time.sleep(0)  # lets the other threads have their turn


def rotate(srsd: Srsd) -> list[str]:
    """Take one step; return the fingerprints that are then in the file, in its order."""
    done = run("srsctl", "--config", srsd.config, "secret", "rotate", "--delay", "0")
    assert done.returncode == 0, done.stderr
    secrets = parse_secrets(srsd.config.with_name("srs.secrets").read_bytes())
    return [fingerprint(secret) for secret in secrets]


def in_force(srsd: Srsd) -> list[str]:
    return [secret["fingerprint"] for secret in control(srsd, "status")["secrets"]]


# A busy worker: it has new material in force for a while before the supervisor knows, and goes on to
# the next worker. In this time the two must understand each other's addresses.
SLOW_TO_TELL = """
import asyncio
from srsd.daemon.channel import Channel
good = Channel.send
def send(self, message):
    if "in_force" in message:
        asyncio.get_running_loop().call_later(0.3, good, self, message)
    else:
        good(self, message)
Channel.send = send
"""
# First as documented: a step, time for every host and worker to have it, the next step. Then in a
# hurry: both steps before anybody has looked at the file.
PATIENTLY, IN_A_HURRY = (1, 1), (2, 2)


@pytest.mark.parametrize(
    ("number", "steps"),
    [(1, IN_A_HURRY), (2, PATIENTLY), (2, IN_A_HURRY)],
    ids=["one process, in a hurry", "two workers, patiently", "two workers, in a hurry"],
)
def test_no_bounce_is_refused(number, steps):
    with new_directory() as directory:
        tables = {"workers": number, "secrets": ["the only secret at first"]}
        argv = patched(worker=SLOW_TO_TELL, directory=directory)
        with running(directory=directory, argv=argv, **tables) as srsd:
            rotate_under_mail(srsd, steps)


def rotate_under_mail(srsd: Srsd, steps: tuple[int, ...]) -> None:
    with Mail(srsd) as mail, Reader(srsd.config.with_name("srs.secrets")) as reader:
        until("mail", mail.goes_on())
        for count in steps:
            take(count, srsd, mail)
    assert mail.refused == []
    assert reader.faults == set()
    assert len(reader.seen) == 1 + sum(steps), "each step shows, and nothing between"
    assert len(in_force(srsd)) == 1 + sum(steps) // 2
    # In the end each process reverses everything, of whatever secret.
    with contextlib.ExitStack() as stack:
        connections = list((connection_of_each(srsd, "reverse") if workers(srsd) else {}).values())
        for connection in connections or [open_connection(srsd, "reverse")]:
            stack.enter_context(connection)
            for address in list(mail.addresses)[:: max(1, len(mail.addresses) // 300)]:
                assert ask_over(connection, address) == f"200 {mail.addresses[address]}"


def take(steps: int, srsd: Srsd, mail: Mail) -> None:
    """Take steps of rotation at once, and wait until they are in force."""
    for _ in range(steps):
        expected = rotate(srsd)
    until("the step in force", lambda: in_force(srsd) == expected)
    until("mail", mail.goes_on())
    assert mail.refused == []
