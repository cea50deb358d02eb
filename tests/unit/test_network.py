"""Networks, and who belongs to them."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from srsd.syntax.network import NetworkSet


@pytest.mark.parametrize(
    ("networks", "client", "inside"),
    [
        ([], "192.0.2.1", False),
        (["192.0.2.0/24"], "192.0.2.0", True),
        (["192.0.2.0/24"], "192.0.2.255", True),
        (["192.0.2.0/24"], "192.0.3.0", False),
        (["192.0.2.0/24"], "192.0.1.255", False),
        (["192.0.2.7"], "192.0.2.7", True),
        (["192.0.2.7"], "192.0.2.6", False),
        (["192.0.2.7/32"], "192.0.2.7", True),
        (["192.0.2.6/31"], "192.0.2.7", True),
        (["0.0.0.0/0"], "255.255.255.255", True),
        (["2001:db8::/32"], "2001:db8:ffff::1", True),
        (["2001:db8::/32"], "2001:db9::", False),
        (["2001:db8::1"], "2001:db8::1", True),
        (["::1/128"], "::2", False),
        (["10.0.0.0/8", "192.0.2.0/24", "2001:db8::/32"], "192.0.2.1", True),
        (["10.0.0.0/8", "192.0.2.0/24", "2001:db8::/32"], "2001:db8::1", True),
        # A number is not enough: the version counts.
        (["0.0.0.0/0"], "::1", False),
        (["::/0"], "192.0.2.1", False),
        (["0.0.0.1"], "::1", False),
        (["::c000:201"], "192.0.2.1", False),
        # IPv4 in IPv6 is IPv4 where all of the network is.
        (["::ffff:192.0.2.0/120"], "192.0.2.1", True),
        (["::ffff:192.0.2.0/120"], "192.0.3.1", False),
        (["::ffff:192.0.2.1"], "192.0.2.1", True),
        (["::ffff:0:0/96"], "198.51.100.1", True),
        (["::ffff:0:0/96"], "2001:db8::1", False),
        (["::/64"], "192.0.2.1", False),
        (["::/64"], "::1", True),
    ],
)
def test_who_belongs(networks, client, inside):
    assert (ip_address(client) in NetworkSet(networks)) is inside


@pytest.mark.parametrize("networks", [[], ["0.0.0.0/0", "::/0"]])
def test_a_client_without_an_address_never_belongs(networks):
    assert None not in NetworkSet(networks)


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "example.org",
        "192.0.2",
        "192.0.2.0/33",
        "192.0.2.1/24",
        "2001:db8::1/32",
        "2001:db8::/129",
        "192.0.2.0/-1",
        "192.0.2.0/24 ",
        "192.0.2.256",
        "1.2.3.4/8/8",
        "::ffff:192.0.2.1/112",
    ],
)
def test_what_is_no_network(text):
    with pytest.raises(ValueError, match=r".") as error:
        NetworkSet(["192.0.2.0/24", text])
    assert str(error.value)


ADDRESSES = st.integers(0, 2**32 - 1).map(IPv4Address) | st.integers(0, 2**128 - 1).map(IPv6Address)


@given(ADDRESSES, st.integers(0, 128), ADDRESSES, st.integers(0, 127))
def test_as_pythons_own_networks_have_it(base, length, other, flipped):
    length %= base.max_prefixlen + 1
    network = ip_network((base, length), strict=False)
    near = type(base)(int(base) ^ 1 << flipped % base.max_prefixlen)
    for client in (base, near, other):
        if getattr(base, "ipv4_mapped", None) is None:
            assert (client in NetworkSet([str(network)])) is (client in network)
