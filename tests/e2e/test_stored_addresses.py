"""A real Postfix with senders too long for an SRS address: out under a token, and back."""

from __future__ import annotations

import itertools
import re
from typing import TYPE_CHECKING

import pytest

from harness.forwarder import WIRINGS
from harness.net import SRS0, SRS1, Net, two_hosts

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.e2e

TOKEN = re.compile(r"SRS0=[A-Za-z0-9_-]{4}=[A-Z2-7]{2}=_=[a-z2-7]{16}@srs\.first\.example")
_numbers = itertools.count(1)


@pytest.fixture(scope="module", params=WIRINGS)
def net(request: pytest.FixtureRequest) -> Iterator[Net]:
    """Both hosts, which store what does not fit."""
    with two_hosts(request.param) as net:
        for host in (net.first, net.second):
            text = host.config.read_text()
            host.config.write_text(text.replace("[srs]", '[srs]\nenvelope = "auto"'))
            # A restart: where the user of srsd may not read Python's library, a reload cannot load SQLite.
            assert host.srsd.terminate() == 0
            host.srsd.start()
        yield net


@pytest.fixture
def long_sender() -> str:
    """A sender as mailing lists make them, which no other test uses."""
    return f"Announce-Bounces+{next(_numbers)}-Someone.Else=customers.example@lists.origin.example"


def state_of(net: Net) -> Path:
    return net.first.config.with_name("state")


def test_a_long_sender_leaves_under_a_token_and_a_bounce_reaches_it(net: Net, long_sender):
    left = net.forward(long_sender)
    assert TOKEN.fullmatch(left.sender), left.sender
    assert len(left.sender.partition("@")[0]) <= 64
    assert left.headers["From"] == f"Original Sender <{long_sender}>"
    assert net.bounce(left.sender) == long_sender
    assert net.bounce(left.sender.lower()) == long_sender
    assert net.bounce(left.sender.upper()) == long_sender


def test_a_sender_that_fits_is_embedded(net: Net, alice):
    left = net.forward(alice)
    assert SRS0.fullmatch(left.sender)
    assert "=origin.example=" in left.sender
    assert net.bounce(left.sender) == alice


def test_a_refusal_at_smtp_time_is_reported_to_the_long_sender(net: Net, long_sender):
    assert net.send(long_sender, "refused@first.example").accepted
    report = net.wait_for_own_bounce(long_sender)
    assert b"550 5.1.1 no such user" in report.content


def test_a_second_forwarder_sends_the_bounce_back(net: Net, long_sender):
    left = net.forward(long_sender, "chain@first.example")
    rewritten = SRS1.fullmatch(left.sender)
    assert rewritten is not None, left.sender
    assert rewritten.group(2, 4) == ("srs.first.example", "srs.second.example")
    assert len(left.sender.partition("@")[0]) <= 64
    assert net.bounce(left.sender, host=net.second) == long_sender


def test_a_forged_token_is_refused_at_rcpt(net: Net, long_sender):
    made = net.forward(long_sender).sender
    at = made.index("@") - 1
    forged = made[:at] + ("a" if made[at] != "a" else "b") + made[at + 1 :]
    refused = net.send("", forged).last
    assert (refused.command, refused.code) == ("RCPT", 550)
    net.first.srsd.wait_for_log(f"{forged.lower()} left as it is (hash invalid)")


def test_mail_waits_while_nothing_can_be_stored_and_other_mail_goes_on(net: Net, long_sender, alice):
    state = state_of(net)
    away = state.with_name("away")
    state.rename(away)
    try:
        refused = net.send(long_sender, "bob@first.example").last
        assert (refused.code, refused.command) == (451, "RCPT"), refused
        assert net.bounce(net.forward(alice).sender) == alice
    finally:
        away.rename(state)
    assert net.bounce(net.forward(long_sender).sender) == long_sender
