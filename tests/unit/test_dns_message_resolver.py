"""One mail's share of DNS: how often, and for how long."""

from __future__ import annotations

import asyncio
import time
from ipaddress import IPv4Address, IPv6Address

import pytest

from harness.dns_client import asking, loop_factories, runner
from harness.dns_server import DnsServer, Script
from srsd.daemon.dns.message_resolver import MessageResolver
from srsd.resolving import Answer, MailExchange, Outcome

ZONES = {
    ("example.org", "TXT"): ["true"],
    ("example.org", "MX"): [(10, "mail.example.org")],
    ("mail.example.org", "A"): ["192.0.2.1"],
    ("mail.example.org", "AAAA"): ["2001:db8::1"],
    ("1.2.0.192.in-addr.arpa", "PTR"): ["mail.example.org"],
}
TRUE = Answer(Outcome.FOUND, (b"true",), ttl=300)


@pytest.fixture(params=loop_factories())
def run(request):
    return runner(request.param)


@pytest.fixture
def server():
    with DnsServer(ZONES) as server:
        yield server


def test_it_answers_as_the_shared_one_does(run, server):
    async def main():
        async with asking(server) as shared:
            resolver = MessageResolver(shared, deadline=20.0)
            assert await resolver.txt(b"example.org") == TRUE
            assert (await resolver.mx(b"example.org")).records == (MailExchange(10, b"mail.example.org"),)
            assert (await resolver.ipv4(b"mail.example.org")).records == (IPv4Address("192.0.2.1"),)
            assert (await resolver.ipv6(b"mail.example.org")).records == (IPv6Address("2001:db8::1"),)
            assert (await resolver.ptr(IPv4Address("192.0.2.1"))).records == (b"mail.example.org",)
            assert (await resolver.txt(b"a..b")).outcome is Outcome.NOT_A_NAME
            assert 0 < resolver.seconds < 5
            assert await shared.txt(b"EXAMPLE.org") == TRUE

    run(main())
    assert len(server.queries) == 5


def test_only_what_the_cache_does_not_know_is_counted(run, server):
    async def main():
        async with asking(server) as shared:
            await shared.txt(b"example.org")
            resolver = MessageResolver(shared, deadline=20.0, queries_maximum=2)
            for _ in range(10):
                assert await resolver.txt(b"example.org") == TRUE
                assert await resolver.mx(b"Example.org.")
            assert resolver.queries == 1
            assert (await resolver.txt(b"nobody.example.org")).outcome is Outcome.NX_DOMAIN
            assert await resolver.txt(b"nobody2.example.org") == Answer(Outcome.BUDGET_SPENT)
            assert resolver.queries == 2
            assert await resolver.txt(b"example.org") == TRUE  # what is known stays known
            assert (
                await MessageResolver(shared, deadline=20.0).txt(b"nobody2.example.org")
            ).outcome is Outcome.NX_DOMAIN

    run(main())
    assert [name for name, _ in server.asked] == [
        "example.org",
        "example.org",
        "nobody.example.org",
        "nobody2.example.org",
    ]


def test_the_budget_holds_for_lookups_side_by_side_too(run, server):
    async def main():
        async with asking(server) as shared:
            resolver = MessageResolver(shared, deadline=20.0, queries_maximum=3)
            answers = await asyncio.gather(*(resolver.txt(b"host%d.example.org" % n) for n in range(5)))
            assert [each.outcome for each in answers] == [Outcome.NX_DOMAIN] * 3 + [Outcome.BUDGET_SPENT] * 2

    run(main())
    assert len(server.queries) == 3


def test_the_deadline_ends_a_lookup_for_this_message_alone(run, server):
    server.default = Script(delay=0.8)  # less than the second after which a server is asked again

    async def main():
        async with asking(server, timeout=10.0) as shared:
            hurried, patient = MessageResolver(shared, deadline=0.1), MessageResolver(shared, deadline=20.0)
            begin = time.monotonic()
            other = asyncio.ensure_future(patient.txt(b"example.org"))
            assert await hurried.txt(b"example.org") == Answer(Outcome.TIMED_OUT)
            assert 0.08 < time.monotonic() - begin < 0.75
            assert await other == TRUE
            assert await hurried.txt(b"example.org") == TRUE  # the cache has no deadline
            assert await hurried.txt(b"host.example.org") == Answer(Outcome.TIMED_OUT)
            assert hurried.queries == 1

    run(main())
    assert len(server.queries) == 1


def test_time_is_counted_only_while_an_answer_is_awaited(run, server):
    server.default = Script(delay=0.2)

    async def main():
        async with asking(server, timeout=10.0) as shared:
            resolver = MessageResolver(shared, deadline=1.0)
            await asyncio.gather(*(resolver.txt(b"host%d.example.org" % n) for n in range(10)))
            assert 0.19 < resolver.seconds < 0.5  # side by side, not one after the other
            await asyncio.sleep(0.3)
            lookup = asyncio.ensure_future(resolver.txt(b"host.example.org"))
            await asyncio.sleep(0.1)
            assert 0.27 < resolver.seconds < 0.6
            await lookup
            assert 0.38 < resolver.seconds < 0.8

    run(main())


def test_who_gives_up_is_not_counted_as_waiting(run, server):
    server.default = Script(delay=0.1)

    async def main():
        async with asking(server, timeout=10.0) as shared:
            resolver = MessageResolver(shared, deadline=1.0)
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(resolver.txt(b"example.org"), 0.02)
            spent = resolver.seconds
            await asyncio.sleep(0.05)
            assert resolver.seconds == spent

    run(main())
