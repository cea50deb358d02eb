"""What comes back: bounces of every kind reach the original sender, forgeries are refused at RCPT."""

import base64
import hashlib
import hmac
import time

import pytest

from harness.net import FIRST_SECRET, SRS0, SRS1, Net

pytestmark = pytest.mark.e2e


def test_a_refusal_at_smtp_time_is_reported_to_the_original_sender(net: Net, alice):
    assert net.send(alice, "refused@first.example").accepted
    report = net.wait_for_own_bounce(alice)
    assert b"550 5.1.1 no such user" in report.content
    assert b"Return-Path: <SRS0=" in report.content  # it had left rewritten


def test_a_later_notification_reaches_the_original_sender(net: Net, alice):
    assert net.bounce(net.forward(alice).sender) == alice


def test_a_notification_to_a_former_srs_domain_reaches_the_original_sender(net: Net, alice):
    former = net.forward(alice).sender.replace("@srs.first.example", "@old.first.example")
    assert net.bounce(former) == alice


@pytest.mark.parametrize("smash", [str.lower, str.upper])
def test_an_srs_address_in_another_case_comes_back(net: Net, alice, smash):
    smashed = smash(net.forward(alice).sender)
    assert net.bounce(smashed).lower() == alice


def test_a_second_hop_makes_srs1_and_comes_back_through_both(net: Net, alice):
    left = net.forward(alice, "chain@first.example")
    rewritten = SRS1.fullmatch(left.sender)
    assert rewritten is not None, left.sender
    assert rewritten.group(2, 4) == ("srs.first.example", "srs.second.example")
    assert left.headers["From"] == f"Original Sender <{alice}>"
    assert net.bounce(left.sender, host=net.second) == alice


def test_a_refusal_after_two_hops_is_reported_to_the_original_sender(net: Net, alice):
    assert net.send(alice, "chain-refused@first.example").accepted
    report = net.wait_for_own_bounce(alice)
    assert b"mx.second.example" in report.content
    assert b"Return-Path: <SRS1=" in report.content


EASY_SENDERS = [
    '"john doe"@origin.example',
    '".dots."@origin.example',
    r'"quo\"te"@origin.example',
    "jörg@origin.example",
    '"jörg müller"@origin.example',
    "carol@exämple.example",
    "carol@[192.0.2.7]",
    "carol+list=x@origin.example",
    f"{'l' * 64}@{'d' * 60}.example",
]
# Postfix takes what follows @, % or ! for a route, unless the fragment's optional lines are in force.
ROUTE_SENDERS = [
    '"a@b"@origin.example',
    '"a b%c"@origin.example',
    "a%b@origin.example",
    "a!b@origin.example",
]


@pytest.mark.parametrize("sender", EASY_SENDERS + ROUTE_SENDERS)
def test_odd_senders_survive_there_and_back(net: Net, sender):
    left = net.forward(sender)
    assert SRS0.fullmatch(left.sender)
    assert net.bounce(left.sender) == sender


@pytest.mark.parametrize("sender", EASY_SENDERS)
def test_odd_senders_survive_without_the_optional_lines(net: Net, sender):
    left = net.forward(sender, "chain@second.example", host=net.second)
    assert net.bounce(left.sender, host=net.second) == sender


@pytest.mark.parametrize("sender", ROUTE_SENDERS)
def test_without_the_optional_lines_only_postfixs_own_reports_reach_route_like_senders(net: Net, sender):
    left = net.forward(sender, "chain@second.example", host=net.second)
    refused = net.send("", left.sender, host=net.second).last
    assert (refused.command, refused.code // 100) == ("RCPT", 5)
    assert net.send(sender, "chain-refused@second.example", host=net.second).accepted
    net.wait_for_own_bounce(sender)


def srs0(secret: str, days_ago: int, domain: str = "srs.first.example") -> str:
    """Make an SRS0 address of mallory@origin.example as the first host would have made it some days ago."""
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567"
    day = int(time.time()) // 86400 - days_ago
    stamp = alphabet[day // 32 % 32] + alphabet[day % 32]
    mac = hmac.digest(secret.encode(), f"{stamp}origin.examplemallory".lower().encode(), hashlib.sha1)
    return f"SRS0={base64.b64encode(mac)[:4].decode()}={stamp}=origin.example=mallory@{domain}"


def test_an_address_made_by_the_rules_is_accepted(net: Net):
    """The proof that the forgeries below are refused for what is wrong with them."""
    assert net.bounce(srs0(FIRST_SECRET, days_ago=20)) == "mallory@origin.example"


@pytest.mark.parametrize(
    "recipient",
    [
        pytest.param(srs0("another secret", days_ago=0), id="forged hash"),
        pytest.param(srs0(FIRST_SECRET, days_ago=30), id="expired"),
        pytest.param(srs0(FIRST_SECRET, days_ago=-2), id="from the future"),
        pytest.param("SRS0=AAAA=AA=victim.example=bob@srs.first.example", id="made up"),
        pytest.param("SRS0=x@srs.first.example", id="malformed"),
        pytest.param("SRS0==@srs.first.example", id="empty fields"),
        pytest.param("SRS1=AAAA=srs.first.example==AAAA=AA=victim.example=bob@srs.first.example", id="SRS1"),
        pytest.param("SRS1=x=y@srs.first.example", id="malformed SRS1"),
        pytest.param("nobody@srs.first.example", id="no SRS address"),
        pytest.param("nobody@first.example", id="unknown user"),
    ],
)
def test_a_forged_recipient_gets_550_at_rcpt(net: Net, recipient):
    refused = net.send("", recipient).last
    assert (refused.command, refused.code) == ("RCPT", 550), refused
    assert "User unknown" in refused.text


@pytest.mark.parametrize(
    "recipient",
    [
        pytest.param(srs0(FIRST_SECRET, days_ago=0, domain="srs.elsewhere.example"), id="foreign SRS domain"),
        "victim%far.example@srs.first.example",
        '"victim@far.example"@srs.first.example',
        "far.example!victim@srs.first.example",
        "@srs.first.example:victim@far.example",
    ],
)
def test_no_recipient_makes_the_host_an_open_relay(net: Net, recipient):
    refused = net.send("mallory@origin.example", recipient).last
    assert refused.command == "RCPT"
    assert refused.code // 100 == 5, refused
