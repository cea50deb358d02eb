"""Running a check that must not wait, and what a resolver gives that asks nobody."""

from __future__ import annotations

import asyncio
import gc
import warnings
from ipaddress import IPv4Address, IPv6Address, ip_address

import pytest

from harness.dns_server import DnsServer
from srsd.daemon.dns.cache_resolver import CacheResolver
from srsd.daemon.dns.messages import AAAA, MX, PTR, TXT, A
from srsd.daemon.dns.resolver import StubResolver
from srsd.resolving import Answer, DnsParameters, MailExchange, NotCachedError, Outcome, run_from_cache


async def give(value: object) -> object:
    return value


@pytest.mark.parametrize("value", [None, 0, "", [], Answer(Outcome.FOUND, (b"x",)), StopAsyncIteration()])
def test_what_a_check_gives(value):
    async def check():
        return await give(await give(value))

    assert run_from_cache(check()) is value


@pytest.mark.parametrize("error", [NotCachedError(), ValueError("x"), KeyError("x"), RecursionError()])
def test_what_a_check_raises_goes_through(error):
    tidied = []

    async def check():
        try:
            await give(1)
            raise error
        finally:
            tidied.append(True)

    with pytest.raises(type(error)) as raised:
        run_from_cache(check())
    assert raised.value is error
    assert tidied == [True]


def test_a_check_that_waits_for_something_else():
    """It is ended there and then, and nothing is left that somebody would have to await."""
    tidied = []

    async def check():
        try:
            await asyncio.sleep(0)
        finally:
            tidied.append(True)

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        kept = check()
        with pytest.raises(RuntimeError, match="not DNS"):
            run_from_cache(kept)
        assert tidied == [True]
        del kept
        gc.collect()


def test_it_runs_where_an_event_loop_runs():
    async def main():
        return run_from_cache(give(7))

    assert asyncio.run(main()) == 7


@pytest.mark.parametrize("outcome", Outcome)
def test_which_outcomes_are_temporary(outcome):
    """Nothing is known of the name, so that a later try may find something."""
    lasting = {Outcome.FOUND, Outcome.NO_DATA, Outcome.NX_DOMAIN, Outcome.NOT_A_NAME}
    assert outcome.temporary is (outcome not in lasting)


ZONES = {
    ("example.org", "TXT"): ["v=spf1 -all"],
    ("example.org", "A"): ["192.0.2.1"],
    ("example.org", "AAAA"): ["2001:db8::1"],
    ("example.org", "MX"): [(10, "mail.example.org")],
    ("1.2.0.192.in-addr.arpa", "PTR"): ["mail.example.org"],
    (ip_address("2001:db8::1").reverse_pointer, "PTR"): ["six.example.org"],
    ("broken.example", "TXT"): Outcome.SERVER_FAILURE,
}
ASKED = [
    ("txt", b"example.org", TXT, Outcome.FOUND, (b"v=spf1 -all",)),
    ("ipv4", b"example.org", A, Outcome.FOUND, (IPv4Address("192.0.2.1"),)),
    ("ipv6", b"example.org", AAAA, Outcome.FOUND, (IPv6Address("2001:db8::1"),)),
    ("mx", b"example.org", MX, Outcome.FOUND, (MailExchange(10, b"mail.example.org"),)),
    ("ptr", IPv4Address("192.0.2.1"), PTR, Outcome.FOUND, (b"mail.example.org",)),
    ("ptr", IPv6Address("2001:db8::1"), PTR, Outcome.FOUND, (b"six.example.org",)),
    ("txt", b"nowhere.example", TXT, Outcome.NX_DOMAIN, ()),
    ("txt", b"broken.example", TXT, Outcome.SERVER_FAILURE, ()),
]


@pytest.mark.parametrize(("method", "question", "record_type", "outcome", "records"), ASKED)
def test_the_cache_gives_what_was_asked_before(method, question, record_type, outcome, records):
    async def main(server: DnsServer) -> None:
        stub = StubResolver(DnsParameters(nameservers=(str(server),)))
        cache = CacheResolver(stub)
        try:
            with pytest.raises(NotCachedError):
                run_from_cache(getattr(cache, method)(question))
            answer = await getattr(stub, method)(question)
            assert (answer.outcome, answer.records) == (outcome, records)
            kept = run_from_cache(getattr(cache, method)(question))
            assert kept[:3] == answer[:3]
            assert 0 <= kept.ttl <= answer.ttl
            others = [name for name in ("txt", "ipv4", "ipv6", "mx") if name != method]
            for other in others if isinstance(question, bytes) else ():
                with pytest.raises(NotCachedError):  # the type counts, too
                    run_from_cache(getattr(cache, other)(question))
            asked = stub.counters.queries
            if isinstance(question, bytes):
                assert run_from_cache(getattr(cache, method)(question.upper() + b".")).outcome is outcome
            assert stub.counters.queries == asked
            stub.forget()
            with pytest.raises(NotCachedError):
                run_from_cache(getattr(cache, method)(question))
        finally:
            await stub.close()

    with DnsServer(ZONES) as server:
        asyncio.run(main(server))


@pytest.mark.parametrize("name", [b"", b".", b"a..b", b"a" * 64 + b".example", b"\xff\0", b"x." * 200])
def test_what_is_no_name_is_not_cached(name):
    """Whoever asks then finds out; nothing else is raised."""
    cache = CacheResolver(StubResolver(DnsParameters(nameservers=("127.0.0.1",))))
    for method in ("txt", "ipv4", "ipv6", "mx"):
        with pytest.raises(NotCachedError):
            run_from_cache(getattr(cache, method)(name))
