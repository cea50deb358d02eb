"""srsd reloads, dies and comes back while Postfix works on: no mail is lost, none leaves unrewritten."""

from __future__ import annotations

import collections
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pytest

from harness.net import SRS0, Net
from harness.smtp_client import message, send

if TYPE_CHECKING:
    from collections.abc import Callable

    from harness.smtp_client import Transaction

pytestmark = pytest.mark.e2e

CLIENTS = 8
PATIENCE = 100.0  # seconds until a client gives up its message
PAUSE = 0.2  # seconds until a client comes back after a 4xx; mail hosts take minutes

# What Postfix does while srsd is away: a tcp_table lookup is tried 10 times, 1 s apart, before it fails;
# a socketmap lookup fails at once.
WAITING = "tcp_table"


def test_a_reload_brings_a_new_exclusion_into_force(net: Net):
    host = net.first
    assert SRS0.fullmatch(net.forward("carol@late.example").sender)
    with host.exclude_file.open("a") as exclude:
        exclude.write("@late.example\n")
    since = host.srsd.hup()
    host.srsd.wait_for_log("everything was read again", since=since)
    assert net.forward("carol@late.example").sender == "carol@late.example"


def test_a_changed_exclusion_file_comes_into_force_by_itself(net: Net):
    host = net.first
    assert SRS0.fullmatch(net.forward("carol@later.example").sender)
    since = len(host.srsd.log)
    with host.exclude_file.open("a") as exclude:
        exclude.write("@later.example\n")
    host.srsd.wait_for_log("read again", since=since)
    assert net.forward("carol@later.example").sender == "carol@later.example"


@dataclass
class Traffic:
    """Many clients that each bring one message, and come back with it after every 4xx, as mail hosts do."""

    net: Net
    run: str
    transactions: list[Transaction] = field(default_factory=list)
    _change: threading.Condition = field(default_factory=threading.Condition)

    def bring(self, number: int) -> None:
        """Hand over message number; raise if it is refused for good or not accepted in time."""
        sender = f"{self.run}-{number}@origin.example"
        content = message(sender, "bob@first.example", self.run)
        give_up = time.monotonic() + PATIENCE
        while time.monotonic() < give_up:
            transaction = send(self.net.first.postfix.address, sender, "bob@first.example", content)
            with self._change:
                self.transactions.append(transaction)
                self._change.notify_all()
            if transaction.accepted:
                return
            assert transaction.last.code == 451, transaction
            time.sleep(PAUSE)
        pytest.fail(f"message {number} was not accepted within {PATIENCE} s")

    def wait_until(self, enough: Callable[[Traffic], bool]) -> None:
        """Wait for something that shows in the transactions."""
        with self._change:
            assert self._change.wait_for(lambda: enough(self), PATIENCE)

    @property
    def accepted(self) -> int:
        """Messages that Postfix took over."""
        return sum(t.accepted for t in self.transactions)

    @property
    def deferred(self) -> collections.Counter[str]:
        """How often which command got 451."""
        return collections.Counter(t.last.command for t in self.transactions if not t.accepted)

    @property
    def longest_wait(self) -> float:
        """Seconds of the slowest reply to one command."""
        return max(step.seconds for t in self.transactions for step in t.steps)

    @property
    def figures(self) -> str:
        """What was seen, in one line."""
        wiring, deferred = self.net.first.wiring, dict(self.deferred) or "none"
        return f"{self.run} ({wiring}): longest wait {self.longest_wait:.1f} s, 451 after: {deferred}"

    def check_all_arrived(self, count: int) -> None:
        """Every message reached the sink once, and with its rewritten sender."""
        arrived = self.net.sink.wait_for_all(lambda m: m.headers["Subject"] == self.run, count)
        originals: collections.Counter[str] = collections.Counter()
        for left in arrived:
            rewritten = SRS0.fullmatch(left.sender)
            assert rewritten is not None, f"left unrewritten: {left.sender}"
            originals[f"{rewritten[4]}@{rewritten[3]}"] += 1
        assert originals == {f"{self.run}-{number}@origin.example": 1 for number in range(count)}


def send_200_and_kill_amid(net: Net, run: str, outage: Callable[[Traffic], None]) -> Traffic:
    """Bring 200 messages, kill srsd -9 when 60 are in, start it again after the outage; check them all."""
    traffic = Traffic(net, run)
    with ThreadPoolExecutor(CLIENTS) as clients:
        brought = [clients.submit(traffic.bring, number) for number in range(200)]
        traffic.wait_until(lambda t: t.accepted >= 60)
        net.first.srsd.kill()
        outage(traffic)
        net.first.srsd.start()
        for one in brought:
            one.result()
    traffic.check_all_arrived(200)
    return traffic


def test_kill_9_amid_200_messages_loses_none_and_lets_none_out_unrewritten(net: Net, figures):
    """Away until clients have seen that Postfix gives up: 451, and nothing accepted."""
    traffic = send_200_and_kill_amid(net, "killed", lambda t: t.wait_until(lambda t: t.deferred.total() >= 5))
    figures.append(traffic.figures)
    if net.first.wiring == WAITING:
        assert 8 < traffic.longest_wait < 12
    else:
        assert traffic.longest_wait < 5


def test_a_quick_restart_amid_200_messages(net: Net, figures):
    """Back at once, as under a supervisor: within Postfix's patience where it has any."""
    traffic = send_200_and_kill_amid(net, "restarted", lambda _: None)
    figures.append(traffic.figures)
    if net.first.wiring == WAITING:
        assert traffic.deferred.total() == 0
    assert traffic.longest_wait < 5


def test_a_bounce_that_postfix_makes_while_srsd_is_away_is_sent_later(net: Net, alice):
    postfix, srsd = net.first.postfix, net.first.srsd
    net.sink.refuse["late@far.example"] = "450 4.2.0 not now"
    assert net.send(alice, "late@first.example").accepted
    postfix.wait_for_log("450 4.2.0 not now")
    net.sink.refuse["late@far.example"] = "550 5.1.1 no such user"
    since = len(postfix.log())
    srsd.kill()
    postfix.flush()
    postfix.wait_for_log("Connection refused", since)
    assert not net.sink.received(alice)
    srsd.start()
    postfix.flush()
    net.wait_for_own_bounce(alice)
