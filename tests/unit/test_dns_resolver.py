"""The resolver against a name server on loopback: answers, failures, forgeries, truncation, sharing."""

from __future__ import annotations

import asyncio
import errno
import os
import subprocess
import sys
import time
from ipaddress import IPv4Address, IPv6Address, ip_address
from itertools import pairwise
from types import SimpleNamespace

import dns.flags
import dns.name
import dns.rcode
import dns.rdata
import dns.rrset
import pytest

from harness.dns_client import HURRIED, PATIENT, Clock, asking, descriptors, loop_factories, runner
from harness.dns_server import DnsServer, Records, Script, garbage, wrong_id, wrong_question
from harness.ports import free_port
from srsd.daemon.dns import resolver as resolver_module
from srsd.daemon.dns import udp
from srsd.daemon.dns.counters import DnsCounters, add_up_dns
from srsd.daemon.dns.messages import TXT, Question, wire_name
from srsd.daemon.dns.record_lookups import reverse_name
from srsd.daemon.dns.servers import Server
from srsd.resolving import Answer, MailExchange, Outcome
from srsd.syntax.name_server import parse_name_server

LONG_TEXT = "v=spf1 " + "ip4:192.0.2.1 " * 200 + "-all"
ZONES = {
    ("example.org", "TXT"): ["v=spf1 mx -all"],
    ("example.org", "MX"): [(10, "Mail.Example.ORG."), (20, "mail.example.org")],
    ("null.example.org", "MX"): [(0, ".")],
    ("mail.example.org", "A"): ["192.0.2.1", "192.0.2.2"],
    ("mail.example.org", "AAAA"): ["2001:db8::1"],
    ("1.2.0.192.in-addr.arpa", "PTR"): ["Mail.Example.ORG"],
    (ip_address("2001:db8::1").reverse_pointer, "PTR"): ["mail.example.org"],
    ("two.example.org", "TXT"): [["v=spf1", " -all"], "v=DMARC1; p=none"],
    ("deep.below.example.net", "TXT"): ["x"],
    ("alias.example.org", "CNAME"): ["alias2.example.org"],
    ("alias2.example.org", "CNAME"): Records(["example.org"], ttl=7),
    ("lost.example.org", "CNAME"): ["nowhere.example.com"],
    ("empty.example.org", "CNAME"): ["mail.example.org"],
    ("loop.example.org", "CNAME"): ["loop2.example.org"],
    ("loop2.example.org", "CNAME"): ["loop.example.org"],
    ("long.example.org", "TXT"): [LONG_TEXT],
    ("short.example.org", "TXT"): Records(["x"], ttl=5),
    ("broken.example.org", "TXT"): Outcome.SERVER_FAILURE,
    ("refused.example.org", "TXT"): Outcome.REFUSED,
    ("silent.example.org", "TXT"): Outcome.TIMED_OUT,
    ("odd.example.org", "TXT"): Outcome.UNUSABLE,
}
TRUE = Answer(Outcome.FOUND, (b"v=spf1 mx -all",), ttl=300)


@pytest.fixture(params=loop_factories())
def run(request):
    return runner(request.param)


@pytest.fixture
def server():
    with DnsServer(ZONES) as server:
        yield server


def ask(run, server, name: bytes, kind: str = "txt", **parameters):
    """Ask one question of a new resolver."""

    async def main():
        async with asking(server, **parameters) as resolver:
            return await getattr(resolver, kind)(name)

    return run(main())


# Answers ---------------------------------------------------------------------------------------


def test_records_of_each_type(run, server):
    async def main():
        async with asking(server) as resolver:
            assert await resolver.txt(b"example.org") == TRUE
            assert await resolver.txt(b"two.example.org") == Answer(
                Outcome.FOUND, (b"v=spf1 -all", b"v=DMARC1; p=none"), ttl=300
            )
            mail = b"mail.example.org"
            assert (await resolver.mx(b"example.org")).records == (
                MailExchange(10, mail),
                MailExchange(20, mail),
            )
            assert (await resolver.mx(b"null.example.org")).records == (MailExchange(0, b""),)
            assert (await resolver.ipv4(mail)).records == (IPv4Address("192.0.2.1"), IPv4Address("192.0.2.2"))
            assert (await resolver.ipv6(mail)).records == (IPv6Address("2001:db8::1"),)
            assert (await resolver.ptr(IPv4Address("192.0.2.1"))).records == (mail,)
            assert (await resolver.ptr(IPv6Address("2001:db8::1"))).records == (mail,)
            assert (await resolver.lookup(b"example.org", TXT)) == TRUE

    run(main())


def test_reverse_names():
    for address in map(ip_address, ("192.0.2.1", "255.0.1.20", "2001:db8::1", "::", "fe80::abcd")):
        assert reverse_name(address) == address.reverse_pointer.encode()
    assert reverse_name(ip_address("fe80::1%eth0")) == ip_address("fe80::1").reverse_pointer.encode()


@pytest.mark.parametrize(
    ("name", "kind", "answer"),
    [
        (b"mail.example.org", "txt", Answer(Outcome.NO_DATA, ttl=60)),
        (b"below.example.net", "txt", Answer(Outcome.NO_DATA, ttl=60)),  # an empty non-terminal exists
        (b"example.net", "mx", Answer(Outcome.NO_DATA, ttl=60)),
        (b"nobody.example.org", "txt", Answer(Outcome.NX_DOMAIN, ttl=60)),
        (b"a.mail.example.org", "ipv4", Answer(Outcome.NX_DOMAIN, ttl=60)),
        (b"lost.example.org", "txt", Answer(Outcome.NX_DOMAIN, ttl=60)),
        (b"empty.example.org", "txt", Answer(Outcome.NO_DATA, ttl=60)),
        (b"broken.example.org", "txt", Answer(Outcome.SERVER_FAILURE, ttl=5)),
        (b"refused.example.org", "txt", Answer(Outcome.REFUSED, ttl=5)),
        (b"silent.example.org", "txt", Answer(Outcome.TIMED_OUT, ttl=5)),
        (b"odd.example.org", "txt", Answer(Outcome.UNUSABLE, ttl=5)),
        (b"loop.example.org", "txt", Answer(Outcome.UNUSABLE, ttl=5)),
    ],
)
def test_each_kind_of_nothing_is_told_from_the_others(run, server, name, kind, answer):
    timeout = HURRIED if answer.outcome is Outcome.TIMED_OUT else PATIENT
    assert ask(run, server, name, kind, timeout=timeout) == answer


@pytest.mark.parametrize("name", [b"", b".", b"a..b", b".a", b"x" * 64 + b".org", b"a." * 127 + b"a", b"a.."])
def test_what_is_no_name_is_never_sent(run, server, name):
    assert ask(run, server, name) == Answer(Outcome.NOT_A_NAME)
    assert server.asked == []


@pytest.mark.parametrize("name", [b"example.org.", b"EXAMPLE.org", b"Example.Org."])
def test_how_a_name_is_written_does_not_matter(run, server, name):
    assert ask(run, server, name) == TRUE
    assert server.asked == [("example.org", "TXT")]  # no search list, nothing else


def test_any_octets_may_be_asked_for(run, server):
    assert ask(run, server, b"\xff\0 \\.example.org").outcome is Outcome.NX_DOMAIN
    (asked,) = server.queries
    assert asked.message.question[0].name.labels == (b"\xff\0 \\", b"example", b"org", b"")


def test_odd_names_in_answers_are_made_safe(run, server):
    target = dns.name.Name([b"a.b\n\xff", b"example", b"org", b""]).to_wire()

    def edit(response):
        rdata = dns.rdata.from_wire("IN", "PTR", target, 0, len(target))
        response.answer = [dns.rrset.from_rdata(response.question[0].name, 300, rdata)]

    server.script["1.2.0.192.in-addr.arpa"] = [Script(edit=edit)]
    assert ask(run, server, IPv4Address("192.0.2.1"), "ptr").records == (rb"a\046b\010\255.example.org",)


@pytest.mark.parametrize("authenticated", [True, False])
def test_the_ad_bit_is_asked_for_and_kept(run, server, authenticated):
    server.default = Script(authenticated=authenticated)
    assert ask(run, server, b"example.org").authenticated is authenticated
    (query,) = server.queries
    assert query.message.flags == dns.flags.RD | dns.flags.AD
    assert (query.message.edns, query.message.payload) == (0, 1232)


# Forgeries and rubbish -------------------------------------------------------------------------


def forged(data: bytes) -> bytes:
    return data.replace(b"v=spf1 mx -all", b"v=spf1 +all   ")


@pytest.mark.parametrize(
    "spoil",
    [
        lambda data: wrong_id(forged(data)),
        lambda data: wrong_question(forged(data)),
        lambda data: forged(data)[:2] + b"\x01\x00" + forged(data)[4:],  # a query
        lambda data: forged(data)[:4] + b"\0\0" + forged(data)[6:],  # without a question
        lambda data: data[:11],
        lambda data: data[:0],
        lambda data: bytes(len(data)),
    ],
    ids=["id", "question", "query", "no question", "short", "empty", "zeros"],
)
def test_what_does_not_answer_is_ignored_and_the_true_answer_taken(run, server, spoil):
    server.script["example.org"] = [Script(before=[spoil] * 5)]

    async def main():
        async with asking(server) as resolver:
            assert await resolver.txt(b"example.org") == TRUE
            assert (resolver.counters.queries, resolver.counters.strays) == (1, 5)

    run(main())


def test_what_comes_from_another_port_is_ignored(run, server):
    server.script["example.org"] = [Script(from_other_port=True), Script()]

    async def main():
        async with asking(server, timeout=2.0) as resolver:
            assert await resolver.txt(b"example.org") == TRUE
            assert (resolver.counters.queries, resolver.counters.timeouts) == (2, 1)

    run(main())


def test_garbage_behind_the_right_question_is_a_failure_at_once(run, server):
    server.script["example.org"] = [Script(spoil=garbage)]
    begin = time.monotonic()
    assert ask(run, server, b"example.org", timeout=10.0) == Answer(Outcome.UNUSABLE, ttl=5)
    assert time.monotonic() - begin < 2


def test_a_server_that_does_not_recurse_is_of_no_use(run, server):
    def edit(response):
        response.flags &= ~dns.flags.RA
        response.answer = []
        response.authority = [dns.rrset.from_text("org.", 300, "IN", "NS", "ns.org.")]

    server.script["example.org"] = [Script(edit=edit)]
    assert ask(run, server, b"example.org").outcome is Outcome.UNUSABLE


def test_only_records_of_the_name_are_taken(run, server):
    def edit(response):
        response.answer.insert(0, dns.rrset.from_text("victim.example.", 300, "IN", "TXT", "forged"))
        response.additional.append(dns.rrset.from_text("example.org.", 300, "IN", "TXT", "forged"))

    server.script["example.org"] = [Script(edit=edit)]

    async def main():
        async with asking(server) as resolver:
            assert await resolver.txt(b"example.org") == TRUE
            assert (await resolver.txt(b"victim.example")).outcome is Outcome.NX_DOMAIN

    run(main())


def test_ports_and_ids_are_many_and_do_not_follow_each_other(run, server, monkeypatch):
    async def main():
        async with asking(server) as resolver:
            for number in range(400):
                await resolver.txt(b"host%d.example.org" % number)

    monkeypatch.setattr(udp, "_QUERIES_MAXIMUM", 20)
    run(main())
    ports = [query.source[1] for query in server.queries]
    ids = [query.message.id for query in server.queries]
    assert len(set(ports)) >= 20  # the kernel may choose one twice
    assert max(map(ports.count, set(ports))) <= 2 * 20
    assert len(set(ids)) > 380
    assert len({(b - a) % 65536 for a, b in pairwise(ids)}) > 350
    assert sum(a != b for a, b in pairwise(ports)) > 200


def test_ports_are_replaced_in_time(run, server):
    clock = Clock()

    async def main():
        async with asking(server, clock=clock) as resolver:
            for number in range(20):
                await resolver.txt(b"host%d.example.org" % number)
            clock.now += 31
            resolver.tick()
            assert not descriptors()
            await resolver.txt(b"host.example.org")

    run(main())
    former, now = {query.source[1] for query in server.queries[:20]}, server.queries[-1].source[1]
    assert len(former) == 8
    assert now not in former


def test_queries_that_nobody_answered_keep_no_port_open(run, server):
    clock = Clock()

    async def main():
        async with asking(server, clock=clock, timeout=HURRIED) as resolver:
            await resolver.txt(b"silent.example.org")
            assert descriptors()
            clock.now += 31
            resolver.tick()
            assert not descriptors()

    run(main())


def test_a_port_that_somebody_sends_rubbish_to_is_given_up(run, server):
    server.default = Script(before=[wrong_id] * 30)

    async def main():
        async with asking(server) as resolver:
            for number in range(12):
                await resolver.txt(b"host%d.example.org" % number)

    run(main())
    assert len({query.source[1] for query in server.queries}) == 12


def test_an_id_that_is_used_again_belongs_to_its_new_query(run, server, monkeypatch):
    """Whoever had it before gives it up only when he is woken, which may be later."""
    monkeypatch.setattr(udp, "os", SimpleNamespace(urandom=bytes))  # id 0, as long as it is free
    monkeypatch.setattr(udp, "_SOCKETS_MAXIMUM", 1)

    async def main():
        asked = Server(parse_name_server(str(server)), DnsCounters(), Clock())
        first, second = udp.Inbox(asyncio.get_running_loop()), udp.Inbox(asyncio.get_running_loop())
        assert asked.ask(Question(wire_name(b"first"), TXT), first, edns=True)
        await first.wait(10)
        assert asked.ask(Question(wire_name(b"second"), TXT), second, edns=True)
        first.close()
        await second.wait(10)
        assert (len(first.responses), len(second.responses)) == (1, 1)
        asked.close()

    run(main())
    assert [query.message.id for query in server.queries] == [0, 0]


# Truncation ------------------------------------------------------------------------------------


def test_a_long_answer_is_fetched_over_tcp(run, server):
    async def main():
        async with asking(server) as resolver:
            assert (await resolver.txt(b"long.example.org")).records == (LONG_TEXT.encode(),)
            assert resolver.counters.tcp_fallbacks == 1
            assert resolver.counters.queries == 2

    run(main())
    assert [query.tcp for query in server.queries] == [False, True]


def test_the_longest_message_is_taken(run):
    texts = [["x" * 255] * 255]  # 65280 octets of data: with the rest the message nearly fills its length
    with DnsServer({("example.org", "TXT"): texts}) as server:
        assert ask(run, server, b"example.org", timeout=5.0).records == (b"x" * 65025,)


@pytest.mark.parametrize(
    ("scripts", "outcome"),
    [
        ([Script(truncate=True), Script(tcp="close")], Outcome.UNUSABLE),
        ([Script(truncate=True), Script(tcp="part")], Outcome.UNUSABLE),
        ([Script(truncate=True), Script(tcp="hang")], Outcome.TIMED_OUT),
        ([Script(truncate=True), Script(spoil=wrong_id)], Outcome.UNUSABLE),
        ([Script(truncate=True), Script(spoil=wrong_question)], Outcome.UNUSABLE),
        ([Script(truncate=True), Script(spoil=garbage)], Outcome.UNUSABLE),
        ([Script(truncate=True), Script(spoil=lambda data: data[:0])], Outcome.UNUSABLE),
        (
            [Script(truncate=True), Script(spoil=lambda data: data[:2] + b"\x83" + data[3:])],
            Outcome.UNUSABLE,  # truncated there too
        ),
        ([Script(truncate=True), Script(rcode=dns.rcode.SERVFAIL)], Outcome.SERVER_FAILURE),
    ],
    ids=["closed", "part", "hangs", "id", "question", "garbage", "empty", "truncated", "servfail"],
)
def test_what_can_go_wrong_over_tcp(run, server, scripts, outcome):
    server.script["example.org"] = list(scripts)
    begin = time.monotonic()
    timeout = 2.0 if outcome is Outcome.TIMED_OUT else PATIENT
    assert ask(run, server, b"example.org", timeout=timeout) == Answer(outcome, ttl=5)
    assert time.monotonic() - begin < timeout + 1
    assert [query.tcp for query in server.queries] == [False, True]


def test_nobody_listens_on_tcp(run):
    with DnsServer(ZONES, tcp=False) as server:
        assert ask(run, server, b"long.example.org", timeout=10.0).outcome is Outcome.UNUSABLE


# EDNS ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rcode", [dns.rcode.FORMERR, dns.rcode.NOTIMP])
def test_a_server_without_edns_is_asked_without_it(run, server, rcode):
    clock = Clock()
    server.default = Script(no_edns=True, no_edns_rcode=rcode)

    async def main():
        async with asking(server, clock=clock, timeout=5.0) as resolver:
            assert await resolver.txt(b"example.org") == TRUE
            assert (await resolver.mx(b"example.org")).records
            clock.now += 601
            assert (await resolver.ipv4(b"mail.example.org")).records

    run(main())
    assert [query.message.edns for query in server.queries] == [0, -1, -1, 0, -1]


def test_a_format_error_without_edns_is_final(run, server):
    server.script["example.org"] = [Script(rcode=dns.rcode.FORMERR)]
    assert ask(run, server, b"example.org", timeout=5.0).outcome is Outcome.UNUSABLE
    assert [query.message.edns for query in server.queries] == [0, -1]


def test_an_error_without_its_question_is_heard(run, server):
    """A server that understands nothing sends back the header alone."""
    server.script["example.org"] = [
        Script(spoil=lambda data: data[:3] + b"\x81" + bytes(8)),
        Script(),
    ]
    assert ask(run, server, b"example.org", timeout=5.0) == TRUE


# CNAME -----------------------------------------------------------------------------------------


def only_the_first(response):
    del response.answer[1:]
    del response.authority[:]


def test_aliases_are_followed_within_the_answer(run, server):
    assert ask(run, server, b"alias.example.org") == TRUE._replace(ttl=7)
    assert len(server.queries) == 1


def test_aliases_that_the_server_did_not_follow_are_asked_for(run, server):
    server.default = Script(edit=only_the_first)
    assert ask(run, server, b"alias.example.org") == TRUE._replace(ttl=7)
    assert [name for name, _ in server.asked] == ["alias.example.org", "alias2.example.org", "example.org"]


def test_a_loop_that_the_server_does_not_see_ends(run, server):
    server.default = Script(edit=only_the_first)
    assert ask(run, server, b"loop.example.org").outcome is Outcome.UNUSABLE
    assert [name for name, _ in server.asked] == ["loop.example.org", "loop2.example.org"]


def test_an_endless_chain_ends(run):
    zones = {(f"c{number}.example", "CNAME"): [f"c{number + 1}.example"] for number in range(100)}
    with DnsServer(zones) as server:
        server.default = Script(edit=only_the_first)
        assert ask(run, server, b"c0.example", timeout=5.0).outcome is Outcome.UNUSABLE
        assert len(server.queries) < 15


def test_a_chain_is_authenticated_only_as_a_whole(run, server):
    server.script["alias.example.org"] = [Script(edit=only_the_first, authenticated=True)]
    server.script["alias2.example.org"] = [Script(edit=only_the_first, authenticated=False)]
    server.script["example.org"] = [Script(authenticated=True)]
    assert not ask(run, server, b"alias.example.org").authenticated
    server.script["alias2.example.org"] = [Script(edit=only_the_first, authenticated=True)]
    assert ask(run, server, b"alias.example.org").authenticated


def test_an_alias_may_have_any_octets(run, server):
    odd = dns.name.Name([b"a.b\xff", b"example", b"org", b""])

    def edit(response):
        rdata = dns.rdata.from_wire("IN", "CNAME", odd.to_wire(), 0, len(odd.to_wire()))
        response.answer = [dns.rrset.from_rdata(response.question[0].name, 300, rdata)]
        response.authority = []
        response.set_rcode(dns.rcode.NOERROR)

    server.script["alias.example.org"] = [Script(edit=edit)]
    assert ask(run, server, b"alias.example.org").outcome is Outcome.NX_DOMAIN
    assert server.queries[1].message.question[0].name == odd


# The cache -------------------------------------------------------------------------------------


def test_an_answer_is_kept_for_its_ttl(run, server):
    clock = Clock()

    async def main():
        async with asking(server, clock=clock) as resolver:
            assert (await resolver.txt(b"short.example.org")).ttl == 5
            clock.now += 3
            assert await resolver.txt(b"SHORT.example.org.") == Answer(Outcome.FOUND, (b"x",), ttl=2)
            assert len(server.queries) == 1
            clock.now += 2
            assert (await resolver.txt(b"short.example.org")).ttl == 5
            assert len(server.queries) == 2
            assert (resolver.counters.hits, resolver.counters.misses) == (1, 2)

    run(main())


@pytest.mark.parametrize(
    ("name", "seconds"), [(b"nobody.example.org", 60), (b"mail.example.org", 60), (b"broken.example.org", 5)]
)
def test_what_is_not_there_is_kept_too(run, server, name, seconds):
    clock = Clock()

    async def main():
        async with asking(server, clock=clock) as resolver:
            first = await resolver.txt(name)
            clock.now += seconds - 1
            assert (await resolver.txt(name)).outcome is first.outcome
            assert len(server.queries) == 1
            clock.now += 1
            await resolver.txt(name)
            assert len(server.queries) == 2

    run(main())


def test_a_negative_answer_without_a_soa_is_hardly_kept(run, server):
    server.script["nobody.example.org"] = [Script(edit=lambda response: response.authority.clear())]
    assert ask(run, server, b"nobody.example.org") == Answer(Outcome.NX_DOMAIN, ttl=5)


def test_a_failure_is_forgotten_when_it_is_mended(run, server):
    clock = Clock()
    server.script["example.org"] = [Script(rcode=dns.rcode.SERVFAIL), Script()]

    async def main():
        async with asking(server, clock=clock) as resolver:
            assert (await resolver.txt(b"example.org")).outcome is Outcome.SERVER_FAILURE
            clock.now += 5
            assert await resolver.txt(b"example.org") == TRUE

    run(main())


def test_without_a_cache_each_lookup_is_a_query(run, server):
    async def main():
        async with asking(server, cache_size=0) as resolver:
            for _ in range(3):
                assert await resolver.txt(b"example.org") == TRUE

    run(main())
    assert len(server.queries) == 3


def test_everything_can_be_forgotten(run, server):
    async def main():
        async with asking(server) as resolver:
            await resolver.txt(b"example.org")
            assert resolver.cached(b"example.org", TXT) == TRUE
            resolver.forget()
            assert resolver.cached(b"example.org", TXT) is None

    run(main())


def test_a_hit_does_not_suspend(run, server):
    async def main():
        async with asking(server) as resolver:
            await resolver.txt(b"example.org")
            with pytest.raises(StopIteration) as done:
                resolver.txt(b"example.org").send(None)
            assert done.value.value.outcome is Outcome.FOUND

    run(main())


# Many at once ----------------------------------------------------------------------------------


def test_who_asks_the_same_at_once_shares_one_query(run, server):
    server.default = Script(delay=0.1)

    async def main():
        async with asking(server, timeout=5.0) as resolver:
            answers = await asyncio.gather(*(resolver.txt(b"example.org") for _ in range(100)))
            assert answers == [TRUE] * 100
            counters = resolver.counters
            assert (counters.queries, counters.misses, counters.shared) == (1, 1, 99)

    run(main())


def test_who_gives_up_does_so_for_himself_alone(run, server):
    server.default = Script(delay=0.1)

    async def main():
        async with asking(server, timeout=5.0) as resolver:
            first, second, third = (asyncio.ensure_future(resolver.txt(b"example.org")) for _ in range(3))
            await asyncio.sleep(0.02)
            first.cancel()
            third.cancel()
            assert await second == TRUE
            for each in (first, third):
                with pytest.raises(asyncio.CancelledError):
                    await each

    run(main())


def test_an_answer_that_nobody_waits_for_any_more_is_kept(run, server):
    server.default = Script(delay=0.1)

    async def main():
        async with asking(server, timeout=5.0) as resolver:
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(resolver.txt(b"example.org"), 0.02)
            assert await resolver.txt(b"example.org") == TRUE
            assert resolver.counters.shared == 1
        assert len(server.queries) == 1

    run(main())


@pytest.mark.parametrize("names", [1, 500])
def test_500_lookups_of_a_slow_name_take_as_long_as_one(run, server, names):
    server.default = Script(delay=2.0)

    async def main():
        async with asking(server, timeout=20.0) as resolver:
            begin = time.monotonic()
            answers = await asyncio.gather(
                *(resolver.txt(b"host%d.example.org" % (number % names)) for number in range(500))
            )
            took = time.monotonic() - begin
        assert {answer.outcome for answer in answers} == {Outcome.NX_DOMAIN}
        assert 1.9 < took < 4

    run(main())


def test_lookups_under_way_are_bounded(run, server, monkeypatch):
    monkeypatch.setattr(resolver_module, "_LOOKUPS_MAXIMUM", 5)
    server.default = Script(delay=0.05)

    async def main():
        async with asking(server, timeout=5.0) as resolver:
            answers = await asyncio.gather(*(resolver.txt(b"host%d.example.org" % n) for n in range(8)))
            assert [answer.outcome for answer in answers] == [Outcome.NX_DOMAIN] * 5 + [Outcome.TIMED_OUT] * 3
            assert resolver.counters.overloads == 3
            assert (await resolver.txt(b"host7.example.org")).outcome is Outcome.NX_DOMAIN

    run(main())


# Time ------------------------------------------------------------------------------------------


def test_a_lost_query_is_sent_again(run, server):
    server.script["example.org"] = [Script(drop=True), Script(drop=True), Script()]

    async def main():
        async with asking(server, timeout=2.0) as resolver:
            assert await resolver.txt(b"example.org") == TRUE
            assert (resolver.counters.queries, resolver.counters.timeouts) == (3, 2)

    run(main())
    assert len({query.message.id for query in server.queries}) == 3


def test_the_late_answer_to_an_earlier_query_is_taken(run, server):
    """It is sent again after 0.25 s, and once more after 0.75; only the first one is ever answered."""
    server.script["example.org"] = [Script(delay=0.5), Script(drop=True)]
    begin = time.monotonic()
    assert ask(run, server, b"example.org", timeout=2.0) == TRUE
    assert 0.45 < time.monotonic() - begin < 1.5
    assert len(server.queries) == 2


def test_a_lookup_ends_in_time(run, server):
    begin = time.monotonic()
    assert ask(run, server, b"silent.example.org", timeout=HURRIED).outcome is Outcome.TIMED_OUT
    assert HURRIED - 0.05 < time.monotonic() - begin < HURRIED + 1
    assert 2 <= len(server.queries) <= 6


def test_nobody_listens(run):
    begin = time.monotonic()
    assert ask(run, f"127.0.0.1:{free_port()}", b"example.org", timeout=20.0) == Answer(
        Outcome.UNUSABLE, ttl=5
    )
    assert time.monotonic() - begin < 5


def test_who_sends_after_it_is_known_that_nobody_listens_may_be_lucky(run, monkeypatch):
    """The kernel tells of a query that was refused when the next one is sent on the same socket."""
    monkeypatch.setattr(udp, "_SOCKETS_MAXIMUM", 1)

    async def main():
        asked = Server(parse_name_server(f"127.0.0.1:{free_port()}"), DnsCounters(), Clock())
        first, second = udp.Inbox(asyncio.get_running_loop()), udp.Inbox(asyncio.get_running_loop())
        assert asked.ask(Question(wire_name(b"first"), TXT), first, edns=True)
        assert asked.ask(Question(wire_name(b"second"), TXT), second, edns=True)
        assert [response.data for response in first.responses] == [None]
        assert not second.responses
        await second.wait(10)
        assert [response.data for response in second.responses] == [None]
        asked.close()

    run(main())


def test_an_address_that_cannot_be_asked(run):
    """The kernel lets nobody connect to the broadcast address who does not ask for that."""
    assert ask(run, "255.255.255.255", b"example.org") == Answer(Outcome.UNUSABLE, ttl=5)


def test_without_descriptors_the_sockets_that_are_open_do(run, server, monkeypatch):
    def refuse(*_):
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    async def main():
        async with asking(server) as resolver:
            assert await resolver.txt(b"example.org") == TRUE
            with monkeypatch.context() as patch:
                patch.setattr(udp, "UdpSocket", refuse)
                assert (await resolver.mx(b"example.org")).records
        async with asking(server) as resolver:
            monkeypatch.setattr(udp, "UdpSocket", refuse)
            assert (await resolver.txt(b"example.org")).outcome is Outcome.UNUSABLE

    run(main())
    assert len({query.source for query in server.queries}) == 1


def test_a_socket_has_only_so_many_ids(run, server, monkeypatch):
    monkeypatch.setattr(udp, "_SOCKETS_MAXIMUM", 1)
    monkeypatch.setattr(udp, "_PENDING_MAXIMUM", 2)
    server.default = Script(delay=0.1)

    async def main():
        async with asking(server) as resolver:
            answers = await asyncio.gather(*(resolver.txt(b"host%d.example.org" % n) for n in range(3)))
            outcomes = [answer.outcome for answer in answers]
            assert outcomes == [Outcome.NX_DOMAIN, Outcome.NX_DOMAIN, Outcome.UNUSABLE]

    run(main())


def test_a_query_that_the_kernel_has_no_room_for_counts_as_lost(run, server, monkeypatch):
    class Full:
        def send(self, _):
            only._socket = real
            raise BlockingIOError

    async def main():
        nonlocal only, real
        async with asking(server, timeout=2.0) as resolver:
            await resolver.txt(b"example.org")
            monkeypatch.setattr(udp, "_SOCKETS_MAXIMUM", 1)
            (name_server,) = resolver._servers.in_order()
            (only,) = name_server._udp._open
            real, only._socket = only._socket, Full()
            assert (await resolver.mx(b"example.org")).records
            assert (resolver.counters.queries, resolver.counters.timeouts) == (3, 1)

    only = real = None
    run(main())
    assert len(server.queries) == 2


# The end ---------------------------------------------------------------------------------------


def test_who_waits_when_it_is_closed_learns_it(run, server):
    server.script["long.example.org"] = [Script(truncate=True), Script(tcp="hang")]

    async def main():
        async with asking(server, timeout=20.0) as resolver:
            await resolver.txt(b"example.org")
            waiting = [
                asyncio.ensure_future(resolver.txt(name))
                for name in (b"silent.example.org", b"long.example.org")
            ]
            while not any(query.tcp for query in server.queries):
                await asyncio.sleep(0.01)
            waiting.append(asyncio.ensure_future(resolver.txt(b"not.yet.begun.example.org")))
            await asyncio.sleep(0)
            await resolver.close()
            assert await asyncio.gather(*waiting) == [Answer(Outcome.UNUSABLE)] * 3
            assert not descriptors()
            assert await resolver.txt(b"example.org") == TRUE  # it is still known
            assert (await resolver.txt(b"mail.example.org")).outcome is Outcome.UNUSABLE
            await resolver.close()

    run(main())


def test_one_that_never_asked_is_closed_as_well(run):
    async def main():
        async with asking("127.0.0.1") as resolver:
            resolver.tick()

    run(main())


def test_one_that_is_replaced_answers_but_keeps_nothing_open(run, server):
    server.default = Script(delay=0.05)

    async def main():
        async with asking(server, timeout=5.0) as resolver:
            under_way = asyncio.ensure_future(resolver.txt(b"example.org"))
            await asyncio.sleep(0.02)
            resolver.retire()
            assert await under_way == TRUE
            assert not descriptors()
            assert (await resolver.mx(b"example.org")).records
            assert not descriptors()

    run(main())


def test_a_bug_reaches_who_waits_and_nobody_else(run, server, monkeypatch):
    async def resolve(*_):
        raise ZeroDivisionError

    async def main():
        async with asking(server) as resolver:
            with monkeypatch.context() as patch:
                patch.setattr(resolver, "_resolve", resolve)
                for answer in await asyncio.gather(
                    *(resolver.txt(b"example.org") for _ in range(2)), return_exceptions=True
                ):
                    assert isinstance(answer, ZeroDivisionError)
            assert await resolver.txt(b"example.org") == TRUE

    run(main())


# IPv6, counters, imports -----------------------------------------------------------------------


def test_a_server_on_ipv6(run):
    try:
        server = DnsServer(ZONES, host="::1").__enter__()
    except OSError as error:
        pytest.skip(f"no IPv6 on loopback: {error}")
    try:
        assert ask(run, server, b"example.org") == TRUE
        assert ask(run, server, b"long.example.org").records == (LONG_TEXT.encode(),)
    finally:
        server.stop()


def link_local() -> str | None:
    """Find a link-local address with its scope."""
    try:
        with open("/proc/net/if_inet6", encoding="ascii") as lines:
            for line in lines:
                address, _, _, scope, _, interface = line.split()
                if scope == "20":
                    return f"{IPv6Address(int(address, 16))}%{interface}"
    except FileNotFoundError:
        return None
    return None


def test_a_server_on_a_link_local_address(run):
    address = link_local()
    if address is None:
        pytest.skip("no interface has a link-local address")
    with DnsServer(ZONES, host=address) as server:
        assert ask(run, server, b"example.org") == TRUE
        assert ask(run, server, b"long.example.org").records == (LONG_TEXT.encode(),)


def test_an_interface_that_does_not_exist(run):
    assert ask(run, "fe80::1%nosuch0", b"example.org") == Answer(Outcome.UNUSABLE, ttl=5)


def test_counters_add_up(run, server):
    counters = DnsCounters()

    async def main():
        async with asking(server, clock=time.monotonic) as resolver:
            resolver.counters = counters
            for name in (
                b"example.org",
                b"example.org",
                b"nobody.example.org",
                b"broken.example.org",
                b"a..b",
            ):
                await resolver.txt(name)

    run(main())
    snapshot = counters.snapshot()
    assert snapshot["lookups"] == {"found": 1, "nx_domain": 1, "server_failure": 1}
    assert (snapshot["hits"], snapshot["misses"]) == (1, 3)
    assert 0 < snapshot["seconds"] < 5
    total = add_up_dns([snapshot, snapshot, DnsCounters().snapshot()])
    assert total["lookups"] == {"found": 2, "nx_domain": 2, "server_failure": 2}
    for name, count in snapshot.items():
        if name != "lookups":
            assert total[name] == 2 * count


PROGRAM = """
import asyncio, sys
from ipaddress import ip_address
from srsd.daemon.dns.message_resolver import MessageResolver
from srsd.daemon.dns.resolver import StubResolver
from srsd.daemon.event_loop import loop_factory
from srsd.resolving import DnsParameters

class Forbidden:
    def find_spec(self, name, path=None, target=None):
        print("imports", name)
        return None

async def main():
    shared = StubResolver(DnsParameters(nameservers=tuple(sys.argv[2:]), timeout=1.0), resolv_conf=sys.argv[1])
    await asyncio.sleep(0)
    sys.meta_path.insert(0, Forbidden())
    resolver = MessageResolver(shared, deadline=20.0)
    for name in (b"odd-types.example.org", b"example.org", b"long.example.org", b"broken.example.org",
                 b"silent.example.org", b"alias.example.org", b"nobody.example.org", b"\\xff.example.org"):
        print((await resolver.txt(name)).outcome.name)
    for asked in (resolver.mx(b"example.org"), resolver.ipv4(b"mail.example.org"),
                  resolver.ipv6(b"mail.example.org"), resolver.ptr(ip_address("192.0.2.1"))):
        print((await asked).outcome.name)
    short = MessageResolver(shared, deadline=0.1)
    print((await short.mx(b"silent2.example.org")).outcome.name)
    shared.tick()
    await shared.close()

with asyncio.Runner(loop_factory=loop_factory() if "uvloop" in sys.argv[1] else asyncio.new_event_loop) as runner:
    runner.run(main())
"""


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_nothing_is_imported_once_it_runs(server, loop, tmp_path):
    """A daemon that gave up its privileges may be unable to read Python's library."""

    def edit(response):
        for kind, data in (
            ("NSEC", "a. A"), ("CAA", '0 issue "x"'), ("SRV", "1 2 3 a."), ("TYPE65400", r"\# 2 abcd"),
            ("LOC", "1 N 1 E 1m"), ("SVCB", "1 . alpn=h2"), ("HINFO", "a b"), ("NAPTR", '1 2 "a" "b" "c" a.'),
        ):  # fmt: skip
            rrset = dns.rrset.from_text(response.question[0].name, 300, "IN", kind, data)
            for section in (response.answer, response.authority, response.additional):
                section.append(rrset)

    server.script["odd-types.example.org"] = [Script(edit=edit)]
    server.script["silent2.example.org"] = [Script(drop=True)]
    (tmp_path / loop).mkdir()
    conf = tmp_path / loop / "resolv.conf"
    conf.write_text("nameserver 127.0.0.1\n")
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(conf), str(server)], capture_output=True, text=True, check=False
    )
    assert done.stderr == ""
    assert done.stdout.split("\n") == [
        *("NX_DOMAIN", "FOUND", "FOUND", "SERVER_FAILURE", "TIMED_OUT", "FOUND", "NX_DOMAIN", "NX_DOMAIN"),
        *("FOUND", "FOUND", "FOUND", "FOUND"),
        *("TIMED_OUT", ""),
    ]
