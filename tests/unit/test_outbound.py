"""From which addresses this host sends."""

from __future__ import annotations

from ipaddress import ip_address

from srsd.daemon import outbound
from srsd.daemon.outbound import outbound_addresses
from srsd.filter.forwarding import ForwardingParameters


def test_what_is_configured_is_taken():
    parameters = ForwardingParameters(outbound_addresses=("10.0.0.1", "2001:db8::1"))
    assert outbound_addresses(parameters) == [ip_address("10.0.0.1"), ip_address("2001:db8::1")]


def test_what_is_found_is_ours_and_not_private(monkeypatch):
    monkeypatch.setattr(
        outbound, "_of_routes", lambda: [ip_address("10.0.0.1"), ip_address("8.8.8.8"), ip_address("fe80::1")]
    )
    assert outbound_addresses(ForwardingParameters()) == [ip_address("8.8.8.8")]


def test_a_route_is_asked_for_and_nothing_else(monkeypatch):
    monkeypatch.setattr(outbound, "_ELSEWHERE", ((outbound.socket.AF_INET, "127.0.0.5"),))
    assert outbound._of_routes() == [ip_address("127.0.0.1")]


def test_a_host_without_a_route_has_none(monkeypatch):
    monkeypatch.setattr(outbound, "_ELSEWHERE", ((outbound.socket.AF_INET, "255.255.255.255"),))
    assert outbound._of_routes() == []
