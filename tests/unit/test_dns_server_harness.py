"""The name server of the tests is tested too, with dnspython's own resolver: it must not be wrong as ours is."""

from __future__ import annotations

import dns.flags
import dns.message
import dns.query
import dns.resolver
import pytest

from harness.dns_server import NEGATIVE_TTL, DnsServer, Records
from srsd.resolving import Outcome

ZONES = {
    ("example.org", "TXT"): ["v=spf1 -all", ["two ", "strings"], "x" * 300],
    ("Example.ORG.", "MX"): Records([(20, "b.example.org"), (10, "a.example.org.")], ttl=7),
    ("a.example.org", "A"): ["192.0.2.1"],
    ("a.example.org", "AAAA"): ["2001:db8::1"],
    ("alias.example.org", "CNAME"): ["a.example.org"],
    ("deep.down.example.net", "PTR"): ["host.example.org"],
    ("exists.example.org", "TXT"): [],
    ("broken.example.org", "TXT"): Outcome.SERVER_FAILURE,
    ("long.example.org", "TXT"): ["x" * 3000],
}


@pytest.fixture(scope="module")
def resolver():
    with DnsServer(ZONES) as server:
        resolver = dns.resolver.Resolver(configure=False)
        resolver.nameservers = ["127.0.0.1"]
        resolver.port = server.port
        resolver.lifetime = 10
        yield resolver


def texts(answer):
    return [rdata.to_text() for rdata in answer]


def test_records(resolver):
    assert [b"".join(rdata.strings) for rdata in resolver.resolve("example.org", "TXT")] == [
        b"v=spf1 -all",
        b"two strings",
        b"x" * 300,
    ]
    answer = resolver.resolve("example.org", "MX")
    assert (texts(answer), answer.rrset.ttl) == (["20 b.example.org.", "10 a.example.org."], 7)
    assert texts(resolver.resolve("a.example.org", "A")) == ["192.0.2.1"]
    assert texts(resolver.resolve("alias.example.org", "AAAA")) == ["2001:db8::1"]
    assert texts(resolver.resolve("deep.down.example.net", "PTR")) == ["host.example.org."]


@pytest.mark.parametrize(
    "name", ["a.example.org", "exists.example.org", "down.example.net", "net", "alias.example.org"]
)
def test_names_that_exist_without_such_records(resolver, name):
    with pytest.raises(dns.resolver.NoAnswer):
        resolver.resolve(name, "MX")


@pytest.mark.parametrize("name", ["nobody.example.org", "x.a.example.org", "com"])
def test_names_that_do_not_exist(resolver, name):
    with pytest.raises(dns.resolver.NXDOMAIN) as caught:
        resolver.resolve(name, "A")
    response = caught.value.response(dns.name.from_text(name))
    assert response.authority[0][0].minimum == NEGATIVE_TTL


def test_failures(resolver):
    with pytest.raises(dns.resolver.NoNameservers, match="SERVFAIL"):
        resolver.resolve("broken.example.org", "TXT")


def test_truncation_is_what_the_client_asked_for(resolver):
    for edns, size in ((None, 512), (0, 1232), (0, 4096)):
        query = dns.message.make_query("long.example.org", "TXT", use_edns=edns, payload=size)
        response = dns.query.udp(query, "127.0.0.1", port=resolver.port, timeout=10)
        assert bool(response.flags & dns.flags.TC) is (size < 3000)
        assert bool(response.answer) is (size > 3000)
    assert len(dns.query.tcp(query, "127.0.0.1", port=resolver.port, timeout=10).answer) == 1
