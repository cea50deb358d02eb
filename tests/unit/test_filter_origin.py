"""Whose mail it is, by client, service and login."""

from __future__ import annotations

from dataclasses import fields
from ipaddress import ip_address

import pytest

from srsd.filter.origin import MilterParameters, Origin, Origins

INSIDE, RELAY, OUTSIDE = ip_address("10.1.2.3"), ip_address("192.0.2.1"), ip_address("198.51.100.1")
PARAMETERS = MilterParameters(
    internal_networks=("10.0.0.0/8", "2001:db8:1::/48"),
    originating=("ORIGINATING", "submission/smtpd"),
    trusted_relays=("192.0.2.1", "10.9.0.0/16", "2001:db8:2::1"),
)

CASES = [
    (OUTSIDE, b"", b"", Origin.OUTSIDE),
    (OUTSIDE, b"smtpd", b"", Origin.OUTSIDE),
    (INSIDE, b"", b"", Origin.INTERNAL),
    (ip_address("2001:db8:1::7"), b"", b"", Origin.INTERNAL),
    (RELAY, b"", b"", Origin.TRUSTED_RELAY),
    (ip_address("2001:db8:2::1"), b"", b"", Origin.TRUSTED_RELAY),
    (ip_address("192.0.2.2"), b"", b"", Origin.OUTSIDE),
    (ip_address("2001:db8:2::2"), b"", b"", Origin.OUTSIDE),
    # The first that fits counts: login, service, network, relay.
    (OUTSIDE, b"", b"alice", Origin.AUTHENTICATED),
    (OUTSIDE, b"ORIGINATING", b"alice", Origin.AUTHENTICATED),
    (INSIDE, b"", b"alice", Origin.AUTHENTICATED),
    (RELAY, b"", b"alice", Origin.AUTHENTICATED),
    (OUTSIDE, b"ORIGINATING", b"", Origin.ORIGINATING),
    (INSIDE, b"ORIGINATING", b"", Origin.ORIGINATING),
    (RELAY, b"ORIGINATING", b"", Origin.ORIGINATING),
    (OUTSIDE, b"submission/smtpd", b"", Origin.ORIGINATING),
    (ip_address("10.9.0.1"), b"", b"", Origin.INTERNAL),  # in both
    # The name of a service is compared whole, and by its octets.
    (OUTSIDE, b"originating", b"", Origin.OUTSIDE),
    (OUTSIDE, b"ORIGINATING ", b"", Origin.OUTSIDE),
    (OUTSIDE, b"ORIGIN", b"", Origin.OUTSIDE),
    # A client without an address.
    (None, b"", b"", Origin.OUTSIDE),
    (None, b"ORIGINATING", b"", Origin.ORIGINATING),
    (None, b"", b"alice", Origin.AUTHENTICATED),
    # A login is whatever the MTA calls one.
    (OUTSIDE, b"", b"\0", Origin.AUTHENTICATED),
]


@pytest.mark.parametrize(("client", "service", "login", "origin"), CASES)
def test_origins(client, service, login, origin):
    assert Origins(PARAMETERS).of(client, service, login) is origin


@pytest.mark.parametrize("client", [None, ip_address("0.0.0.0"), ip_address("::"), ip_address("::2")])
def test_by_default_only_the_host_itself_is_internal(client):
    origins = Origins(MilterParameters())
    assert origins.of(client, b"", b"") is Origin.OUTSIDE
    for own in ("127.0.0.1", "127.255.255.255", "::1"):
        assert origins.of(ip_address(own), b"", b"") is Origin.INTERNAL


def test_no_network_is_wide_enough_for_a_client_without_an_address():
    everybody = ("0.0.0.0/0", "::/0")
    origins = Origins(MilterParameters(internal_networks=everybody, trusted_relays=everybody))
    assert origins.of(None, b"", b"") is Origin.OUTSIDE
    assert origins.of(OUTSIDE, b"", b"") is Origin.INTERNAL


def test_an_mta_that_names_no_service_is_none_of_those_that_are_ours():
    """`originating = [""]` must not make the mail of the whole world ours."""
    assert Origins(MilterParameters(originating=("",))).of(OUTSIDE, b"", b"") is Origin.OUTSIDE


def test_which_are_ours():
    ours = {Origin.INTERNAL, Origin.AUTHENTICATED, Origin.ORIGINATING}
    assert {origin for origin in Origin if origin.ours} == ours


# What the configuration may say.

CHECKS = {field.name: field.metadata for field in fields(MilterParameters)}


def check(name: str, value: object) -> str | None:
    """Give what the setting's own check says."""
    (checked,) = [each for each in CHECKS[name].values() if callable(each)]
    return checked(value)


@pytest.mark.parametrize("name", ["internal_networks", "trusted_relays"])
@pytest.mark.parametrize(
    ("value", "good"),
    [
        ((), True),
        (("192.0.2.0/24", "2001:db8::/32", "192.0.2.1", "::1"), True),
        (("192.0.2.1/24",), False),
        (("192.0.2.0/24", "example.org"), False),
        (("",), False),
        (("192.0.2.0/33",), False),
        (("192.0.2",), False),
    ],
)
def test_networks_are_checked(name, value, good):
    assert (check(name, value) is None) is good


@pytest.mark.parametrize(
    "value", ["", "mx", "mx.example.org", "mx_1.example.org", "MX-1.EXAMPLE.", "a" * 255]
)
def test_names_that_we_may_have(value):
    assert check("authserv_id", value) is None


@pytest.mark.parametrize(
    "value",
    [
        "mx example.org",
        "mx;none",
        'mx"',
        "mx(c)",
        "mx\n",
        "mx.example.org\r\nX: y",
        "bücher.example",
        "a@b",
        "mx=1",
        "mx/1",
        "\0",
        "a" * 256,  # longer than what can be written: each message would fail
    ],
)
def test_names_that_we_cannot_have(value):
    assert check("authserv_id", value) is not None
