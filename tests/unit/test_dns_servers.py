"""Which name servers are asked: fail-over, back-off, resolv.conf."""

from __future__ import annotations

import asyncio
import logging
import time

import dns.flags
import dns.rcode
import pytest

from harness.dns_client import HURRIED, Clock, asking, descriptors, loop_factories, runner
from harness.dns_server import DnsServer, Script, garbage
from harness.ports import free_port
from srsd.daemon.dns.counters import DnsCounters
from srsd.daemon.dns.servers import Servers, parse_resolv_conf
from srsd.resolving import Answer, Outcome

ZONES = {("example.org", "TXT"): ["true"], ("long.example.org", "TXT"): ["x" * 3000]}
TRUE = Answer(Outcome.FOUND, (b"true",), ttl=300)
DROP = Script(drop=True)
SERVFAIL = Script(rcode=dns.rcode.SERVFAIL)
REFUSED = Script(rcode=dns.rcode.REFUSED)


@pytest.fixture(params=loop_factories())
def run(request):
    return runner(request.param)


@pytest.fixture
def first():
    with DnsServer(ZONES) as server:
        yield server


@pytest.fixture
def second():
    with DnsServer(ZONES) as server:
        yield server


def numbers(*servers: DnsServer) -> tuple[int, ...]:
    return tuple(len(server.queries) for server in servers)


# Fail-over -------------------------------------------------------------------------------------


def test_the_first_server_is_asked_alone_while_it_answers(run, first, second):
    async def main():
        async with asking(first, second) as resolver:
            for number in range(10):
                await resolver.txt(b"host%d.example.org" % number)

    run(main())
    assert numbers(first, second) == (10, 0)


@pytest.mark.parametrize(("timeout", "first_has"), [(1.6, 0.2), (40.0, 1.0)])
def test_the_next_server_is_asked_when_the_first_is_silent(run, first, second, timeout, first_has):
    first.default = DROP

    async def main():
        async with asking(first, second, timeout=timeout) as resolver:
            begin = time.monotonic()
            assert await resolver.txt(b"example.org") == TRUE
            assert first_has - 0.05 < time.monotonic() - begin < first_has + 1

    run(main())
    assert numbers(first, second) == (1, 1)


def test_the_answer_of_a_slow_server_is_taken_though_others_were_asked_since(run, first, second):
    first.default = Script(delay=0.4)
    second.default = DROP

    async def main():
        async with asking(first, second, timeout=1.6) as resolver:
            begin = time.monotonic()
            assert await resolver.txt(b"example.org") == TRUE
            assert time.monotonic() - begin < 1.2

    run(main())
    assert second.queries


@pytest.mark.parametrize(
    "script",
    [
        SERVFAIL,
        REFUSED,
        Script(rcode=dns.rcode.NOTIMP),
        Script(rcode=dns.rcode.NOTAUTH),
        Script(spoil=garbage),
    ],
    ids=["SERVFAIL", "REFUSED", "NOTIMP", "NOTAUTH", "garbage"],
)
def test_the_next_server_is_asked_at_once_when_the_first_fails(run, first, second, script):
    first.default = script

    async def main():
        async with asking(first, second, timeout=40.0) as resolver:
            begin = time.monotonic()
            assert await resolver.txt(b"example.org") == TRUE
            assert time.monotonic() - begin < 0.9  # not after the second that the first has to itself

    run(main())


def test_the_next_server_is_asked_at_once_when_nobody_listens(run, second):
    async def main():
        async with asking(f"127.0.0.1:{free_port()}", second, timeout=40.0) as resolver:
            begin = time.monotonic()
            assert await resolver.txt(b"example.org") == TRUE
            assert time.monotonic() - begin < 0.9

    run(main())


def test_the_next_server_is_asked_when_the_first_does_not_speak_tcp(run, second):
    with DnsServer(ZONES, tcp=False) as first:

        async def main():
            async with asking(first, second, timeout=40.0) as resolver:
                begin = time.monotonic()
                assert (await resolver.txt(b"long.example.org")).records == (b"x" * 3000,)
                assert time.monotonic() - begin < 0.9

        run(main())


def test_the_next_server_is_asked_when_the_first_truncates_over_tcp_too(run, first, second):
    def truncate(response):
        response.flags |= dns.flags.TC

    first.default = Script(truncate=True, edit=truncate)

    async def main():
        async with asking(first, second, timeout=40.0) as resolver:
            assert (await resolver.txt(b"long.example.org")).records == (b"x" * 3000,)

    run(main())


def test_tcp_that_hangs_leaves_time_for_the_next_server(run, first, second):
    first.script["long.example.org"] = [Script(truncate=True), Script(tcp="hang")]

    async def main():
        async with asking(first, second, timeout=1.0) as resolver:
            assert (await resolver.txt(b"long.example.org")).records == (b"x" * 3000,)

    run(main())


@pytest.mark.parametrize(
    ("scripts", "outcome"),
    [
        ((SERVFAIL, SERVFAIL), Outcome.SERVER_FAILURE),
        ((REFUSED, REFUSED), Outcome.REFUSED),
        ((REFUSED, SERVFAIL), Outcome.SERVER_FAILURE),
    ],
)
def test_a_server_that_fails_is_not_asked_again(run, first, second, scripts, outcome):
    first.default, second.default = scripts

    async def main():
        async with asking(first, second, timeout=40.0) as resolver:
            begin = time.monotonic()
            assert (await resolver.txt(b"example.org")).outcome is outcome
            assert time.monotonic() - begin < 0.9

    run(main())
    assert numbers(first, second) == (1, 1)


def test_a_failure_of_one_is_told_where_the_other_is_silent(run, first, second):
    first.default, second.default = SERVFAIL, DROP

    async def main():
        async with asking(first, second, timeout=1.6) as resolver:
            assert (await resolver.txt(b"example.org")).outcome is Outcome.SERVER_FAILURE

    run(main())
    assert len(first.queries) == 1
    assert len(second.queries) > 1


# Back-off --------------------------------------------------------------------------------------


def test_a_silent_server_is_asked_last_for_a_while_and_longer_each_time(run, first, second):
    clock = Clock()
    first.default = DROP

    async def main():
        async with asking(first, second, clock=clock, timeout=4.8) as resolver:
            for number, (seconds, asked) in enumerate(
                [
                    (0, 1),
                    (9, 0),
                    (1, 1),
                    (19, 0),
                    (1, 1),
                    (39, 0),
                    (1, 1),
                    (79, 0),
                    (1, 1),
                    (119, 0),
                    (1, 1),
                    (119, 0),
                ]
            ):
                clock.now += seconds
                before = len(first.queries)
                assert (await resolver.txt(b"host%d.example.org" % number)).outcome is Outcome.NX_DOMAIN
                assert len(first.queries) - before == asked, number

    run(main())


def test_a_server_that_is_back_is_the_first_again(run, first, second):
    clock = Clock()
    first.script["example.org"] = [DROP]

    async def main():
        async with asking(first, second, clock=clock, timeout=4.8) as resolver:
            await resolver.txt(b"example.org")
            clock.now += 10
            for number in range(5):
                await resolver.txt(b"host%d.example.org" % number)

    run(main())
    assert numbers(first, second) == (6, 1)


def test_a_late_answer_clears_a_server(run, first, second):
    first.script["example.org"] = [Script(delay=0.3)]
    second.script["example.org"] = [Script(delay=0.8)]

    async def main():
        async with asking(first, second, timeout=1.6) as resolver:
            assert await resolver.txt(b"example.org") == TRUE  # the first one's, after the second was asked
            await resolver.txt(b"host.example.org")

    run(main())
    assert [len(server.asked) for server in (first, second)] == [2, 1]


def test_a_name_that_is_slow_does_not_put_off_a_server_that_answers_others(run, first, second):
    """Otherwise anybody's slow zone decides which server is asked."""
    first.script["slow.example.org"] = [DROP]
    second.default = DROP

    async def main():
        async with asking(first, second, timeout=1.6) as resolver:
            slow = asyncio.ensure_future(resolver.txt(b"slow.example.org"))
            await asyncio.sleep(0.1)
            assert await resolver.txt(b"example.org") == TRUE
            while not second.queries:  # the time that the first had to itself is over
                await asyncio.sleep(0.01)
            await resolver.txt(b"host.example.org")
            assert {name for name, _ in second.asked} == {"slow.example.org"}
            assert (await slow).outcome is Outcome.TIMED_OUT

    run(main())


def test_servers_that_are_all_silent_are_all_asked(run, first, second):
    first.default = second.default = DROP

    async def main():
        async with asking(first, second, timeout=HURRIED) as resolver:
            for number in range(2):
                assert (await resolver.txt(b"host%d.example.org" % number)).outcome is Outcome.TIMED_OUT
            first.default = Script()
            assert await resolver.txt(b"example.org") == TRUE

    run(main())


# resolv.conf -----------------------------------------------------------------------------------

RESOLV_CONF = b"""
# comment
; comment
domain x
search a.example b.example
options timeout:1 rotate
nameserver 192.0.2.1
nameserver\t2001:db8::1  # first
  nameserver 192.0.2.3 \r
"""


@pytest.mark.parametrize(
    ("text", "servers"),
    [
        (b"nameserver 192.0.2.1\n", ["192.0.2.1:53"]),
        (
            RESOLV_CONF,
            ["192.0.2.1:53", "[2001:db8::1]:53", "192.0.2.3:53"],
        ),
        (b"nameserver fe80::1%eth0", ["[fe80::1%eth0]:53"]),
        (b"nameserver [192.0.2.1]:5353\nnameserver [::1]:5353", ["[::1]:5353"]),
        (b"nameserver 192.0.2.1\nnameserver 192.0.2.1\n", ["192.0.2.1:53"]),
        (b"".join(b"nameserver 192.0.2.%d\n" % n for n in range(20)), [f"192.0.2.{n}:53" for n in range(8)]),
        (b"", ["127.0.0.1:53"]),
        (b"search example.org\nnameserver\nnameservers 192.0.2.1\n#nameserver 192.0.2.1\n", ["127.0.0.1:53"]),
        (b"\xff\0\nnameserver 192.0.2.1\n", ["192.0.2.1:53"]),
    ],
)
def test_name_servers_of_resolv_conf(text, servers):
    assert [str(server) for server in parse_resolv_conf(text)] == servers


@pytest.mark.parametrize("word", ["resolver.example.org", "192.0.2", "fe80::1%a\0b", "\x1b[31m"])
def test_a_bad_name_server_in_resolv_conf_is_passed_over(caplog, word):
    text = f"nameserver {word}\nnameserver 192.0.2.1\n".encode()
    assert [str(server) for server in parse_resolv_conf(text)] == ["192.0.2.1:53"]
    assert repr(word) in caplog.text


def addresses(servers: Servers) -> list[str]:
    return [str(server.name_server) for server in servers.in_order()]


def servers_of(path: object, *configured: str) -> Servers:
    return Servers(configured, DnsCounters(), Clock(), str(path))


def test_a_missing_resolv_conf_means_this_host(tmp_path):
    assert addresses(servers_of(tmp_path / "absent")) == ["127.0.0.1:53"]


def test_an_unreadable_resolv_conf_means_this_host_and_is_told(tmp_path, caplog):
    assert addresses(servers_of(tmp_path)) == ["127.0.0.1:53"]
    assert caplog.messages == [f"{tmp_path}: cannot be read (Is a directory); 127.0.0.1 is asked instead"]


def test_configured_servers_win_and_resolv_conf_is_not_read(tmp_path, caplog):
    servers = servers_of(tmp_path, "192.0.2.1:5353", "::1", "192.0.2.1:5353")
    assert addresses(servers) == ["192.0.2.1:5353", "[::1]:53"]
    servers.tick()
    assert not caplog.messages


def test_a_bad_configured_server_is_refused():
    with pytest.raises(ValueError, match="would be right"):
        servers_of("/absent", "resolver")


def test_resolv_conf_is_read_again_when_it_changes(tmp_path, caplog):
    caplog.set_level(logging.INFO)
    path = tmp_path / "resolv.conf"
    servers = servers_of(path)
    path.write_text("nameserver 192.0.2.1\nnameserver 192.0.2.2\n")
    servers.tick()
    servers.tick()
    assert addresses(servers) == ["192.0.2.1:53", "192.0.2.2:53"]
    kept = servers.in_order()[1]
    path.write_text("nameserver 192.0.2.2\nnameserver 192.0.2.30\n")
    servers.tick()
    servers.tick()
    assert addresses(servers) == ["192.0.2.2:53", "192.0.2.30:53"]
    assert servers.in_order()[0] is kept
    path.unlink()
    servers.tick()
    servers.tick()
    assert addresses(servers) == ["127.0.0.1:53"]
    assert len(caplog.messages) == 3


def test_a_resolver_follows_resolv_conf(run, tmp_path):
    path = tmp_path / "resolv.conf"
    with DnsServer(ZONES) as old, DnsServer(ZONES) as new:

        async def main():
            path.write_text(f"nameserver {old}\n")
            async with asking(resolv_conf=str(path), timeout=20.0) as resolver:
                assert await resolver.txt(b"example.org") == TRUE
                old.default = DROP
                under_way = asyncio.ensure_future(resolver.txt(b"host.example.org"))
                await asyncio.sleep(0.05)
                path.write_text(f"nameserver {new}\n# changed\n")
                resolver.tick()
                resolver.tick()
                assert not descriptors()  # of the server that is gone
                assert (await under_way).outcome is Outcome.UNUSABLE
                assert (await resolver.txt(b"host2.example.org")).outcome is Outcome.NX_DOMAIN

        run(main())
        assert numbers(old, new) == (2, 1)
