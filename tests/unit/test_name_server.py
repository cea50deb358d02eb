"""Name servers as an admin writes them."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address

import pytest

from srsd.syntax.name_server import NameServer, check_name_servers, parse_name_server


@pytest.mark.parametrize(
    ("text", "address", "port", "shown"),
    [
        ("127.0.0.1", "127.0.0.1", 53, "127.0.0.1:53"),
        ("127.0.0.1:5353", "127.0.0.1", 5353, "127.0.0.1:5353"),
        ("192.0.2.1:65535", "192.0.2.1", 65535, "192.0.2.1:65535"),
        ("::1", "::1", 53, "[::1]:53"),
        ("[::1]", "::1", 53, "[::1]:53"),
        ("[::1]:53", "::1", 53, "[::1]:53"),
        ("[2001:DB8::1]:1", "2001:db8::1", 1, "[2001:db8::1]:1"),
        ("2001:db8::1:5353", "2001:db8::1:5353", 53, "[2001:db8::1:5353]:53"),
        ("fe80::1%eth0", "fe80::1%eth0", 53, "[fe80::1%eth0]:53"),
        ("[fe80::1%2]:5353", "fe80::1%2", 5353, "[fe80::1%2]:5353"),
    ],
)
def test_a_name_server_is_an_address_and_perhaps_a_port(text, address, port, shown):
    server = parse_name_server(text)
    assert server == NameServer((IPv6Address if ":" in address else IPv4Address)(address), port)
    assert str(server) == shown
    assert parse_name_server(shown) == server


@pytest.mark.parametrize(
    "text",
    [
        "",
        "localhost",
        "ns.example.org",
        "ns.example.org:53",
        "127.0.0.1:",
        "127.0.0.1:0",
        "127.0.0.1:65536",
        "127.0.0.1:99999",
        "127.0.0.1:053530",
        "127.0.0.1:-1",
        "127.0.0.1:٣",
        "127.0.0.1 ",
        "127.0.0.1:53:53",
        "127.0.0",
        "127.0.0.01",
        "[127.0.0.1]:53",
        "[::1",
        "::1]:53",
        "[::1]:",
        "[::1]:0",
        "[::1]53",
        "[[::1]]:53",
        "::1%",
        "1::2::3",
        "fe80::1%a b",
        "fe80::1%a\0",
        "fe80::1%[",
        "fe80::1%eth0%eth0",
        "fe80::1%sixteen-letters-",
        "inet:127.0.0.1:53",
        "127.0.0.1\n",
        "127.0.0.1\0",
    ],
)
def test_what_is_none_is_refused_with_what_would_be_right(text):
    with pytest.raises(ValueError, match="would be right: ") as caught:
        parse_name_server(text)
    assert str(caught.value).startswith(f'"{text}" ')
    for right in ("127.0.0.1", "127.0.0.1:5353", "::1", "[::1]:5353"):
        assert right in str(caught.value)
        parse_name_server(right)


def test_a_list_is_as_good_as_its_worst_one():
    assert check_name_servers([]) is None
    assert check_name_servers(["127.0.0.1", "::1"]) is None
    fault = check_name_servers(["127.0.0.1", "resolver", "::1:"])
    assert fault is not None
    assert fault.startswith('"resolver" is not a name server, would be right: ')
