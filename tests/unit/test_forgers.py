"""Counting by client: what counts together, for how long, and who is forgotten."""

from __future__ import annotations

from ipaddress import ip_address

import pytest

from srsd.filter.forgers import CLIENTS_MAXIMUM, SHARE_SECONDS, Forgers, name_of

HOUR = 3600.0
ONE, OTHER = ip_address("192.0.2.1"), ip_address("192.0.2.2")


def test_each_client_has_its_own_count():
    forgers = Forgers()
    assert [forgers.count(each, 0.0) for each in (ONE, ONE, OTHER, ONE)] == [1, 2, 1, 3]
    assert forgers.most(10, 0.0) == [("192.0.2.1", 3), ("192.0.2.2", 1)]
    assert forgers.most(1, 0.0) == [("192.0.2.1", 3)]


@pytest.mark.parametrize(
    ("address", "name"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:db8:1:2::", "2001:db8:1:2::/64"),
        ("::1", "::/64"),
    ],
)
def test_an_ipv6_client_is_its_network(address, name):
    assert name_of(ip_address(address)) == name


def test_addresses_of_one_network_count_together():
    forgers = Forgers()
    assert [forgers.count(ip_address(f"2001:db8::{host}"), 0.0) for host in (1, 2, 3)] == [1, 2, 3]
    assert forgers.most(10, 0.0) == [("2001:db8::/64", 3)]


def test_an_hour_later_nothing_is_left():
    forgers = Forgers()
    forgers.count(ONE, 0.0)
    assert forgers.count(ONE, HOUR - SHARE_SECONDS - 1) == 2
    assert forgers.count(ONE, HOUR) == 2
    assert forgers.most(10, 3 * HOUR) == []
    assert forgers.count(ONE, 3 * HOUR) == 1


def test_the_one_that_was_seen_longest_ago_is_forgotten():
    forgers = Forgers(clients_maximum=2)
    forgers.count(ONE, 0.0)
    forgers.count(OTHER, 0.0)
    forgers.count(ONE, 0.0)
    forgers.count(ip_address("192.0.2.3"), 0.0)
    assert len(forgers) == 2
    assert forgers.most(10, 0.0) == [("192.0.2.1", 2), ("192.0.2.3", 1)]
    assert forgers.count(OTHER, 0.0) == 1


def test_a_thousand_networks_and_no_more():
    forgers = Forgers()
    for number in range(2 * CLIENTS_MAXIMUM):
        forgers.count(ip_address((0x20010DB8 << 96) | (number << 64)), float(number))
    assert len(forgers) == CLIENTS_MAXIMUM
