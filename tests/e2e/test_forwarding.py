"""What leaves a forwarding host: which envelope senders are rewritten, and that headers never are."""

import pytest

from harness.net import SRS0, Net

pytestmark = pytest.mark.e2e

STRANGER = "127.0.0.2"
LOCAL_CLIENT = "127.0.0.1"  # Postfix rewrites headers in mail of such (local_header_rewrite_clients)


@pytest.mark.parametrize("source", [STRANGER, LOCAL_CLIENT])
def test_forwarded_mail_leaves_with_an_srs_sender_and_untouched_headers(net: Net, alice, source):
    left = net.forward(alice, source=source)
    assert left.recipients == ("bob@far.example",)
    rewritten = SRS0.fullmatch(left.sender)
    assert rewritten is not None, left.sender
    assert rewritten.group(3, 4, 5) == ("origin.example", alice.partition("@")[0], "srs.first.example")
    assert left.headers["From"] == f"Original Sender <{alice}>"
    assert left.headers["To"] == "bob@first.example"
    assert b"SRS0" not in left.content
    net.first.srsd.wait_for_log(f"{alice} -> {left.sender}")


def test_an_srs_address_in_a_recipient_header_stays(net: Net, alice):
    srs_address = net.forward(alice).sender
    left = net.forward(alice, header_to=srs_address, source=LOCAL_CLIENT)
    assert left.headers["To"] == srs_address


@pytest.mark.parametrize(
    "sender",
    [
        pytest.param("", id="null sender"),
        pytest.param("bob@first.example", id="own domain"),
        pytest.param("Bob@First.EXAMPLE", id="own domain in another case"),
        pytest.param("carol@lists.first.example", id="own subdomain"),
        pytest.param("carol@friend.example", id="excluded domain"),
        pytest.param("vip@origin.example", id="excluded address"),
    ],
)
def test_these_senders_are_not_rewritten(net: Net, sender):
    assert net.forward(sender).sender == sender


def test_the_neighbour_of_an_excluded_address_is_rewritten(net: Net):
    assert SRS0.fullmatch(net.forward("vip2@origin.example").sender)
    assert SRS0.fullmatch(net.forward("carol@sub.friend.example").sender)


def test_a_map_listed_before_srsd_keeps_the_full_addresses_in_it(net: Net):
    """A pfix-srsd site's pfix-no-srs.cf that stayed in main.cf."""
    kept = net.forward("carol@legacy.example", "chain@second.example", host=net.second)
    assert kept.sender == "carol@legacy.example"


def test_a_map_listed_before_srsd_does_not_keep_the_domains_in_it(net: Net):
    """Postfix asks all maps for the full address before it asks any of them for "@legacy.example"."""
    rewritten = net.forward("dave@legacy.example", "chain@second.example", host=net.second)
    assert SRS0.fullmatch(rewritten.sender)


def test_a_sites_header_rewriting_in_canonical_maps_goes_on_beside_srsd(net: Net):
    left = net.forward("jdoe@first.example", source=LOCAL_CLIENT)
    assert left.sender == "John.Doe@first.example"
    assert left.headers["From"] == "Original Sender <John.Doe@first.example>"


def test_an_unknown_sender_of_an_own_domain_is_refused(net: Net):
    """An answer of "found" for an own sender, even unchanged, would make Postfix take it for a known one."""
    refused = net.send("nobody@first.example", "bob@first.example").last
    assert (refused.command, refused.code) == ("RCPT", 550)
    assert "Sender address rejected: User unknown" in refused.text


def test_postmap_asks_both_maps_by_the_names_in_main_cf(net: Net, alice):
    postfix = net.first.postfix
    forward, reverse = (
        postfix.run("postconf", "-h", f"{direction}_canonical_maps").strip()
        for direction in ("sender", "recipient")
    )
    srs_address = postfix.run("postmap", "-q", alice, forward).strip()
    assert SRS0.fullmatch(srs_address)
    assert postfix.run("postmap", "-q", srs_address, reverse).strip() == alice
