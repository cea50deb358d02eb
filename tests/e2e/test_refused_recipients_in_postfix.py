"""Recipients that a real Postfix has refused: it tells the milter, and waits for it where that is asked for."""

from __future__ import annotations

import smtplib
import time
from typing import TYPE_CHECKING

import pytest

from harness.alias_host import SRS_DOMAIN, AliasHost
from harness.milter_host import OURS, make_message, told
from harness.smtp_client import STRANGER

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.e2e

ALICE = "alice@origin.example"
DELAY = 3.0  # seconds
AT_ONCE = 2.0  # less than that, more than a busy machine takes
VIRTUAL = {"bob@virtual.example": "bob@far.example", "stay@virtual.example": "bob@here.example"}
FORGED = f"SRS0=aaaa=JM=origin.example=alice@{SRS_DOMAIN}"
FORGER = "127.0.0.3"


@pytest.fixture(scope="module")
def running_host() -> Iterator[AliasHost]:
    with AliasHost("hash", virtual=VIRTUAL, srs={"forgery_delay": DELAY}) as host:
        yield host


@pytest.fixture
def host(running_host: AliasHost) -> Iterator[AliasHost]:
    with told(running_host):
        yield running_host


def session(host: AliasHost, client: str, sender: str = "") -> smtplib.SMTP:
    """Open a session with a sender."""
    smtp = smtplib.SMTP(*host.postfix.address, timeout=60, source_address=(client, 0))
    smtp.ehlo("client.example")
    assert smtp.mail(sender)[0] == 250
    return smtp


def rcpt(smtp: smtplib.SMTP, recipient: str) -> tuple[int, float]:
    """Give a recipient; return the code of the answer, and how long it took."""
    begun = time.monotonic()
    return smtp.rcpt(recipient)[0], time.monotonic() - begun


def test_the_third_forged_address_waits_and_a_good_recipient_goes_through(host: AliasHost):
    since = len(host.srsd.log)
    with session(host, FORGER, ALICE) as smtp:
        for _ in range(2):
            code, seconds = rcpt(smtp, FORGED)
            assert (code, seconds < AT_ONCE) == (550, True)
        code, seconds = rcpt(smtp, FORGED)
        assert code == 550
        assert DELAY <= seconds < DELAY + 20
        for recipient, wanted in [
            ("stay@virtual.example", 250),  # Postfix says "error" of its transport as well
            ("nobody@here.example", 550),
            ("postmaster@elsewhere.example", 554),
        ]:
            code, seconds = rcpt(smtp, recipient)
            assert (code, seconds < AT_ONCE) == (wanted, True)
        subject, content = make_message()
        assert smtp.data(content)[0] == 250
    line = host.srsd.wait_for_log("in_last_hour=3", since=since)
    assert line == (
        f"info: refused SRS address: client=[{FORGER}], origin=outside, reason=hash invalid, in_last_hour=3, "
        f"delay=3, recipient=<{FORGED}>"
    )
    # Had a refused recipient counted, the message would leave this host, and its sender be rewritten.
    assert "srs_why=no recipient leaves this host" in host.srsd.wait_for_log("verdict=", since=since)
    message = host.mailboxes.wait_for(lambda each: f"Subject: {subject}\r\n".encode() in each.content)
    assert (message.sender, message.recipients) == (ALICE, ("bob@here.example",))


def test_a_virtual_alias_that_leaves_is_still_seen_to_leave(host: AliasHost):
    assert host.leaves(ALICE, "bob@virtual.example").startswith("SRS0=")


def test_a_good_srs_address_is_not_counted(host: AliasHost):
    good = host.leaves(ALICE, "bob@virtual.example")
    since = len(host.srsd.log)
    assert host.message("", good, host.sink).recipients == (ALICE,)
    host.srsd.wait_for_log("verdict=", since=since)
    assert not [line for line in host.srsd.log[since:] if "refused SRS address" in line]


def test_our_own_clients_do_not_wait(host: AliasHost):
    since = len(host.srsd.log)
    with session(host, OURS) as smtp:
        answers = [rcpt(smtp, FORGED) for _ in range(4)]
    assert [code for code, _ in answers] == [550] * 4
    assert all(seconds < AT_ONCE for _, seconds in answers)
    assert "origin=internal network" in host.srsd.wait_for_log("in_last_hour=4", since=since)


def test_a_client_that_leaves_while_it_waits(host: AliasHost):
    """smtpd sees that when it has the milter's answer. Others are served meanwhile."""
    since, since_in_mail = len(host.srsd.log), len(host.postfix.log())
    smtp = session(host, "127.0.0.5")
    for _ in range(2):
        assert rcpt(smtp, FORGED)[0] == 550
    smtp.putcmd(f"RCPT TO:<{FORGED}>")
    host.srsd.wait_for_log("in_last_hour=3, delay=3", since=since)
    smtp.close()
    begun = time.monotonic()
    with session(host, STRANGER) as other:
        assert rcpt(other, "bob@here.example")[0] == 250
    assert time.monotonic() - begun < AT_ONCE
    host.postfix.wait_for_log("lost connection after RCPT from unknown[127.0.0.5]", since=since_in_mail)
    assert host.stays(ALICE, "stay@virtual.example") == ALICE
