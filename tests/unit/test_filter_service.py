"""A message from its envelope to the decision: what is asked, when, and that nothing is left behind."""

from __future__ import annotations

import asyncio
import gc
import re
import sys
import tracemalloc
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any

import pytest

from harness.dkim_forge import Forge
from harness.fake_resolver import FakeResolver
from harness.filter_bench import (
    BODY,
    ED,
    FIELDS,
    KEY,
    OURS,
    TEMPLATE,
    ZONES,
    Bench,
    Forgetful,
    Slow,
    field_of,
    signed,
)
from srsd.filter import message as message_module
from srsd.filter.authenticate import HEADER_TOO_LARGE
from srsd.filter.message import HEADER_MAXIMUM
from srsd.filter.origin import MilterParameters, Origin
from srsd.filter.report import Timings
from srsd.filter.signing import FROM_OUTSIDE
from srsd.resolving import Answer, Outcome
from srsd.spf.outcome import SpfResult
from srsd.syntax.header import HeaderField
from srsd.wire.milter import ChangeHeader, Connect, Continue, InsertHeader, MacroStage, Path, Step
from srsd.wire.milter_session import Decision, Envelope

if TYPE_CHECKING:
    from collections.abc import Awaitable

    from srsd.filter.report import Report

BOTH = [("spf", "pass"), ("spf", "pass")]

# With all answers in the cache: no task, no resolver, no event loop.


def test_what_is_known_is_decided_at_once():
    bench = Bench()
    report = bench.send(fields=signed())
    assert field_of(report) == [*BOTH, ("dkim", "pass")]
    assert (report.queue_id, report.forgeries) == (b"Q1", 0)
    assert report.transaction.origin is Origin.OUTSIDE
    assert isinstance(report.decision.verdict, Continue)
    assert bench.resolvers_made == 0
    assert bench.resolver.asked == []
    assert sorted(bench.cache.asked) == [
        ("example.com", "TXT"),
        ("helo.example", "A"),
        ("helo.example", "TXT"),
        ("s1._domainkey.example.com", "TXT"),
    ]


def test_dns_begins_with_the_envelope():
    bench = Bench()
    bench.filter.begin(
        Envelope(Connect(b"x", ip_address("192.0.2.1")), b"x", Path(b"<a@example.com>", ()), (), {})
    )
    assert ("example.com", "TXT") in bench.cache.asked


# With answers that must be asked for.


@pytest.mark.parametrize(
    "has",
    [
        (),
        ("example.com",),
        ("helo.example",),
        ("example.com", "helo.example"),
        ("s1._domainkey.example.com",),
    ],
)
def test_what_is_not_known_is_asked_for(has):
    bench = Bench(cache=Forgetful(FakeResolver(ZONES), has=has))
    assert field_of(bench.wait(fields=signed())) == [*BOTH, ("dkim", "pass")]
    asked = {name for name, _ in bench.resolver.asked}
    # One for SPF and one for all the rest, each with a budget for all that it asks.
    assert bench.resolvers_made == ("helo.example" in asked) + ("s1._domainkey.example.com" in asked)
    assert ("s1._domainkey.example.com" in asked) is ("s1._domainkey.example.com" not in has)
    # SPF is begun anew, for both identities, if one answer of it is missing.
    assert ("example.com" in asked) is not ({"example.com", "helo.example"} <= set(has))


def test_cache_and_resolver_give_the_same():
    """Messages of many kinds, once from each."""
    kinds = [
        {},
        {"sender": b"<>"},
        {"sender": b"<a@broken.example>"},
        {"sender": b"<a@nowhere.example>", "helo": b"broken.example"},
        {"client": "198.51.100.1"},
        {"client": "2001:db8::1"},
        {"fields": signed()},
        {"fields": signed(TEMPLATE.replace(b"example.com", b"broken.example"))},
        {"fields": signed(TEMPLATE.replace(b"s=s1", b"s=s9"))},
        {"fields": signed(), "body": b"other"},
    ]
    for kind in kinds:
        known, asked = (
            Bench(received_spf=True).send(**kind),
            Bench(cache=Forgetful(), received_spf=True).wait(**kind),
        )
        assert known._replace(timings=Timings()) == asked._replace(timings=Timings())


def test_several_signatures_are_asked_for_side_by_side():
    async def main() -> None:
        slow = Slow(ZONES)
        bench = Bench(cache=Forgetful(), resolver=slow, spf=False)
        second = Forge(ED).sign(
            FIELDS, BODY, TEMPLATE.replace(b"s=s1", b"s=s2").replace(b"rsa-", b"ed25519-")
        )
        broken = Forge(KEY).sign(FIELDS, BODY, TEMPLATE.replace(b"example.com", b"broken.example"))
        first, *_ = signed()
        later = bench.begin(fields=[first, second, broken, first, *FIELDS]).end_of_message({})
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert slow.waiting == 3  # the same key is asked for once
        slow.gate.set()
        await later
        words = [each.result.value for each in bench.reports[0].results.dkim.signatures]
        assert words == ["pass", "pass", "temperror", "pass"]

    asyncio.run(main())


def test_spf_and_keys_are_asked_for_side_by_side():
    async def main() -> None:
        slow = Slow(ZONES)
        bench = Bench(cache=Forgetful(), resolver=slow)
        later = bench.begin(fields=signed()).end_of_message({})
        for _ in range(4):
            await asyncio.sleep(0)
        assert slow.waiting == 3  # MAIL FROM, HELO, and the key
        slow.gate.set()
        await later
        assert field_of(bench.reports[0]) == [*BOTH, ("dkim", "pass")]

    asyncio.run(main())


def test_answers_that_come_before_the_end_are_decided_at_once():
    async def main() -> Decision | Awaitable[Decision]:
        bench = Bench(cache=Forgetful())
        message = bench.begin(fields=signed())
        for _ in range(20):
            await asyncio.sleep(0)
        return message.end_of_message({})

    assert isinstance(asyncio.run(main()), Decision)


# DNS that fails.


@pytest.mark.parametrize("outcome", [each for each in Outcome if each.temporary])
def test_dns_that_fails_is_a_temporary_error(outcome):
    zones = {
        ("example.com", "TXT"): outcome,
        ("helo.example", "TXT"): outcome,
        ("s1._domainkey.example.com", "TXT"): outcome,
    }
    for report in (
        Bench(cache=FakeResolver(zones)).send(fields=signed()),
        Bench(cache=Forgetful(), resolver=FakeResolver(zones)).wait(fields=signed()),
    ):
        assert field_of(report) == [("spf", "temperror"), ("spf", "temperror"), ("dkim", "temperror")]
        assert isinstance(report.decision.verdict, Continue)


def test_a_bug_while_dns_is_asked_reaches_whoever_waits():
    class Bug(FakeResolver):
        def _answer(self, name: bytes, kind: str) -> Answer[Any]:
            raise ZeroDivisionError(name, kind)

    bench = Bench(cache=Forgetful(), resolver=Bug(ZONES))
    with pytest.raises(ZeroDivisionError):
        bench.wait()
    assert bench.reports == []
    with pytest.raises(ZeroDivisionError):
        Bench(cache=Bug(ZONES)).send()


# Messages that do not end.


def test_abort_ends_all_that_was_begun():
    async def main() -> None:
        slow = Slow(ZONES)
        bench = Bench(cache=Forgetful(), resolver=slow)
        others = asyncio.all_tasks()
        message = bench.begin(fields=signed())
        for _ in range(4):
            await asyncio.sleep(0)
        assert slow.waiting == 3
        message.abort()
        for _ in range(4):
            await asyncio.sleep(0)
        assert (slow.waiting, slow.cancelled) == (0, 3)
        assert asyncio.all_tasks() == others
        assert bench.reports == []

    asyncio.run(main())


def test_abort_without_anything_under_way():
    Bench().begin().abort()
    Bench(cache=Forgetful(), spf=False).begin().abort()


def test_abort_before_a_task_has_begun():
    async def main() -> None:
        bench = Bench(cache=Forgetful())
        others = asyncio.all_tasks()
        bench.begin(fields=signed()).abort()
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert asyncio.all_tasks() == others

    asyncio.run(main())


def test_nothing_is_kept_of_messages_that_were_given_up_or_decided():
    async def main() -> int:
        bench = Bench(cache=Forgetful(), resolver=Slow(ZONES))
        bench.resolver.asked = NoList()
        before = 0
        for number in range(300):
            if number == 100:
                gc.collect()
                before = tracemalloc.get_traced_memory()[0]
            message = bench.begin(fields=[*signed_once, HeaderField(b"X", b" " * 20_000)])
            await asyncio.sleep(0)
            if number % 2:
                message.abort()
            else:
                bench.resolver.gate.set()
                await message.end_of_message({})
                bench.resolver.gate.clear()
                bench.reports.clear()
            await asyncio.sleep(0)
        del message
        gc.collect()
        return tracemalloc.get_traced_memory()[0] - before

    signed_once = signed()
    tracemalloc.start()
    try:
        assert asyncio.run(main()) < 500_000  # octets; one header that is kept 200 times takes 4 MB
    finally:
        tracemalloc.stop()


class NoList(list):
    """Keeps nothing."""

    def append(self, item: object) -> None:
        pass


# The header.


def large(octets: int) -> list[HeaderField]:
    """Make a header that takes so much, as it is counted: each field 128 more than it has."""
    rest = octets - sum(len(name) + len(value) + 128 for name, value in FIELDS)
    fields = list(FIELDS)
    while rest:
        size = min(rest, 60_000 + 129)
        if 0 < rest - size < 129:
            size -= 129
        fields.append(HeaderField(b"X", b" " * (size - 129)))
        rest -= size
    return fields


@pytest.mark.parametrize("more", [0, 1])
def test_a_header_that_is_too_large_is_not_verified(more):
    first, *_ = signed()
    filler = large(HEADER_MAXIMUM + more - len(first.name) - len(first.value) - 128)
    report = Bench().send(fields=[first, *filler])
    assert field_of(report) == [*BOTH, ("dkim", "policy" if more else "pass")]
    assert report.results.dkim.why_unchecked == (HEADER_TOO_LARGE if more else "")


@pytest.mark.parametrize("more", [0, 1])
def test_a_header_that_is_too_large_is_not_signed(more):
    report = Bench(signing=True).send(client="127.0.0.1", fields=large(HEADER_MAXIMUM + more))
    assert len(report.signatures.values) == 1 - more
    assert (report.signatures.why == HEADER_TOO_LARGE) is bool(more)


def test_of_mail_of_others_it_is_not_said_that_it_was_not_signed():
    report = Bench(signing=True).send(fields=large(HEADER_MAXIMUM + 1))
    assert report.signatures.why == Bench(signing=True).send().signatures.why == ""


def test_forgeries_are_found_in_a_header_that_is_too_large():
    fields = [OURS, *large(2 * HEADER_MAXIMUM), OURS]
    for client in ("192.0.2.1", "127.0.0.1"):
        report = Bench(signing=True).send(client=client, fields=fields)
        assert report.forgeries == 2
        assert report.decision.modifications[:2] == (
            ChangeHeader(2, b"Authentication-Results"),
            ChangeHeader(1, b"Authentication-Results"),
        )


def test_many_small_fields_count_for_what_they_take():
    assert len([HeaderField(b"X", b"")] * 10_000) * (128 + 1) > HEADER_MAXIMUM
    report = Bench().send(fields=[HeaderField(b"X", b"")] * 10_000)
    assert field_of(report) == [*BOTH, ("dkim", "policy")]


def test_the_header_is_not_kept_while_the_body_comes():
    """Many messages may be under way at once, and one without a signature needs nothing of its header."""
    field = HeaderField(b"X", b" " * 1000)
    for client in ("192.0.2.1", "127.0.0.1"):
        before = sys.getrefcount(field)
        message = Bench().begin(client=client, fields=[*FIELDS, field])
        assert sys.getrefcount(field) == before
        message.end_of_message({})


@pytest.mark.parametrize("client", ["192.0.2.1", "127.0.0.1"])
def test_fields_may_come_in_any_portions(client):
    fields = [OURS, *signed(), HeaderField(b"Received", b" x"), OURS]
    expected = Bench(signing=True).send(client=client, fields=fields)
    assert expected.forgeries == 2
    for size in (1, 2, 3):
        bench = Bench(signing=True)
        message = bench.begin(client=client, fields=fields, portion=size)
        message.end_of_message({b"i": b"Q1"})
        assert bench.reports == [expected]


# The body.


@pytest.fixture
def hashes_made(monkeypatch):
    """Count what is hashed."""
    made = []

    class Counting(message_module.BodyHashes):
        def __init__(self, wanted) -> None:
            made.append(list(wanted))
            super().__init__(made[-1])

    monkeypatch.setattr(message_module, "BodyHashes", Counting)
    return made


@pytest.mark.parametrize(
    ("bench", "how", "number"),
    [
        ({}, {"fields": FIELDS}, None),
        ({}, {"fields": signed()}, 1),
        ({}, {"fields": [signed()[0], *signed()]}, 1),
        ({}, {"fields": [*signed(TEMPLATE.replace(b"relaxed;", b"simple;")), *signed()]}, None),
        ({"dkim": False}, {"fields": signed()}, None),
        ({}, {"fields": [HeaderField(b"DKIM-Signature", b" nonsense"), *FIELDS]}, None),
        ({}, {"fields": signed(), "client": "127.0.0.1"}, None),  # ours, and nobody signs
        ({"signing": True}, {"client": "127.0.0.1"}, 1),
        ({"signing": True}, {"client": "127.0.0.1", "fields": [*FIELDS, FIELDS[0]]}, None),
        ({"signing": True}, {"client": "127.0.0.1", "fields": [OURS, *FIELDS]}, None),
        ({"signing": True, "dkim": False}, {"fields": signed()}, None),
    ],
)
def test_the_body_is_hashed_only_where_that_is_wanted(hashes_made, bench, how, number):
    if number is None and b"simple;" in how.get("fields", FIELDS)[0].value:
        number = 2
    Bench(**bench).send(**how)
    assert [len(each) for each in hashes_made] == ([] if number is None else [number])


@pytest.mark.parametrize(
    ("dkim", "signing", "wanted"),
    [(False, False, False), (True, False, True), (False, True, True), (True, True, True)],
)
def test_the_body_is_asked_for_only_where_dkim_may_need_it(dkim, signing, wanted):
    unwanted = Bench(dkim=dkim, signing=signing).filter.unwanted
    assert unwanted == (Step.NO_UNKNOWN if wanted else Step.NO_UNKNOWN | Step.NO_BODY)


def test_a_message_without_header_or_body():
    for fields, body in (([], b""), ([], BODY), (FIELDS, b"")):
        assert field_of(Bench().send(fields=fields, body=body)) == [*BOTH, ("dkim", "none")]


def test_empty_bodies_verify():
    for canonicalization in (b"relaxed/relaxed", b"simple/simple"):
        fields = signed(TEMPLATE.replace(b"relaxed/relaxed", canonicalization), body=b"")
        assert field_of(Bench().send(fields=fields, body=b""))[-1] == ("dkim", "pass")


# Whose mail it is.


@pytest.mark.parametrize(
    ("how", "results", "why_no_spf"),
    [
        ({}, [*BOTH, ("dkim", "none")], ""),
        ({"client": None}, [("dkim", "none")], "the client has no IP address"),
        ({"client": "203.0.113.1"}, [("dkim", "none")], "trusted relay"),
        ({"client": "203.0.113.2"}, [("dkim", "none")], "excluded"),
        ({"sender": b"<a@excluded.example>"}, [("dkim", "none")], "excluded"),
        ({"sender": b"<A@b.excluded.example>"}, [("spf", "none"), ("spf", "pass"), ("dkim", "none")], ""),
        ({"sender": b"<Bob@example.com>"}, [("dkim", "none")], "excluded"),
        ({"sender": b"<>"}, [("spf", "pass"), ("dkim", "none")], ""),
        ({"sender": b""}, [("spf", "pass"), ("dkim", "none")], ""),
        ({"sender": b"<alice>"}, [("spf", "none"), ("spf", "pass"), ("dkim", "none")], ""),
        ({"sender": b"<(any@legit>"}, [("spf", "permerror"), ("spf", "pass"), ("dkim", "none")], ""),
        ({"helo": b"[192.0.2.1]"}, [("spf", "pass"), ("dkim", "none")], ""),
        ({"helo": b"broken.example"}, [("spf", "pass"), ("spf", "temperror"), ("dkim", "none")], ""),
    ],
)
def test_which_checks_apply(how, results, why_no_spf):
    bench = Bench(
        milter=MilterParameters(trusted_relays=("203.0.113.1",)),
        exclusions=b"203.0.113.2 spf\nexcluded.example spf\nbob@example.com spf\nexample.net dkim\n",
    )
    report = bench.send(**how)
    assert field_of(report) == results
    assert report.results.spf.why_unchecked == why_no_spf


@pytest.mark.parametrize(
    ("exclusions", "author", "checked"),
    [
        (b"example.com dkim", b" alice@example.com", False),
        (b"example.com all", b" alice@example.com", False),
        (b"alice@example.com dkim", b" Alice <Alice@EXAMPLE.com>", False),
        (b"192.0.2.0/24 dkim", b" alice@example.com", False),
        (b"192.0.2.0/24 dkim", b" no author", False),
        (b"alice@example.com dkim", b" bob@example.com", True),
        (b"example.com srs, spf, sign, dmarc, arc", b" alice@example.com", True),
        (b"example.com dkim", b" alice@example.net", True),  # the envelope's sender does not count
        (b"example.com dkim", b" alice@example.com, bob@example.net", True),  # nobody knows whose it is
        (b"198.51.100.0/24 dkim", b" alice@example.com", True),
    ],
)
def test_the_exclusion_map_switches_dkim_off_for_authors_and_clients(exclusions, author, checked):
    bench = Bench(exclusions=exclusions, spf=False)
    fields = [HeaderField(b"From", author), OURS, HeaderField(b"DKIM-Signature", b" nonsense")]
    report = bench.send(fields=fields)
    assert field_of(report) == ([("dkim", "permerror")] if checked else [])
    assert report.results.dkim.why_unchecked == ("" if checked else "excluded")
    assert report.forgeries == 1
    assert bench.cache.asked == []


def test_checks_that_are_switched_off():
    report = Bench(spf=False, dkim=False).send(fields=signed())
    assert field_of(report) == []
    assert report.results.spf.why_unchecked == report.results.dkim.why_unchecked == "switched off"


@pytest.mark.parametrize("macros", [{}, {b"auth_authen": b"alice"}, {b"daemon_name": b"ORIGINATING"}])
def test_mail_of_ours_is_signed_and_not_checked(macros):
    bench = Bench(signing=True)
    client = "192.0.2.1" if macros else "127.0.0.1"
    report = bench.send(client=client, macros=macros, fields=[HeaderField(b"DKIM-Signature", b" x"), *FIELDS])
    (change,) = report.decision.modifications
    assert isinstance(change, InsertHeader)
    assert (change.position, change.name) == (0, b"DKIM-Signature")
    assert re.search(rb"\bd=example\.com;\s+s=e1;", change.value)
    assert bench.cache.asked == []
    origin = report.transaction.origin.value
    assert report.results.spf.why_unchecked == report.results.dkim.why_unchecked == origin


def test_mail_of_others_is_never_signed():
    bench = Bench(signing=True, milter=MilterParameters(trusted_relays=("203.0.113.1",)))
    for client in ("192.0.2.1", "203.0.113.1", None):
        assert bench.send(client=client).signatures.values == ()


def test_mail_of_ours_that_came_from_outside_before_is_not_signed():
    report = Bench(signing=True).send(client="127.0.0.1", fields=[*FIELDS, OURS])
    assert report.signatures.why == FROM_OUTSIDE
    assert report.decision.modifications == (ChangeHeader(1, b"Authentication-Results"),)


def test_nobody_signs_where_signing_is_switched_off():
    report = Bench().send(client="127.0.0.1")
    assert report.decision.modifications == ()
    assert (report.signatures.values, report.signatures.why) == ((), "switched off")


# Names.


@pytest.mark.parametrize(
    ("configured", "told", "fallback", "name"),
    [
        ("ours.example", b"mx.example.net", b"fallback.example", b"ours.example"),
        ("", b"mx.example.net", b"fallback.example", b"mx.example.net"),
        ("", b"", b"fallback.example", b"fallback.example"),
        ("", b"a b", b"fallback.example", b"fallback.example"),
        ("", b"", b"not a name", b"localhost"),
        ("", b"", b"", b"localhost"),
    ],
)
def test_the_authserv_id(configured, told, fallback, name):
    bench = Bench(
        milter=MilterParameters(authserv_id=configured), authserv_id=fallback, spf=False, dkim=False
    )
    (change,) = bench.send(macros={b"j": told}).decision.modifications
    assert change.value == b" " + name + b"; none"


def test_every_macro_that_is_read_is_asked_for():
    asked = {stage: names.split() for stage, names in Bench().filter.macros.items()}
    assert {b"j", b"{daemon_name}"} <= set(asked[MacroStage.CONNECT])
    assert {b"{auth_type}", b"{auth_authen}"} <= set(asked[MacroStage.MAIL])
    assert b"i" in asked[MacroStage.DATA]
    assert all(asked.values())  # Postfix takes an empty list for none given


# Several messages.


def test_messages_do_not_mix():
    """Twenty at once, whose content and whose answers come in turns."""

    async def main() -> list[Report]:
        slow = Slow(ZONES)
        bench = Bench(cache=Forgetful(), resolver=slow, signing=True)
        kinds = [
            {"fields": signed()},
            {"sender": b"<x@broken.example>", "helo": b"x"},
            {"client": "198.51.100.1", "fields": [OURS, *signed()], "body": b"other"},
            {"client": "127.0.0.1"},
        ]
        messages = [bench.begin(**kinds[number % 4]) for number in range(20)]
        later = [
            message.end_of_message({b"i": b"Q%d" % number})
            for number, message in reversed([*enumerate(messages)])
        ]
        slow.gate.set()
        await asyncio.gather(*(each for each in later if not isinstance(each, Decision)))
        return bench.reports

    reports = asyncio.run(main())
    assert {report.queue_id for report in reports} == {b"Q%d" % number for number in range(20)}
    for report in reports:
        kind = int(report.queue_id[1:]) % 4
        if kind == 3:
            assert [each.name for each in report.decision.modifications] == [b"DKIM-Signature"]
            continue
        assert (
            field_of(report)
            == [
                [*BOTH, ("dkim", "pass")],
                [("spf", "temperror"), ("dkim", "none")],
                [("spf", "fail"), ("spf", "fail"), ("dkim", "fail")],
            ][kind]
        )
        assert report.forgeries == (1 if kind == 2 else 0)


def test_messages_of_one_filter_one_after_the_other():
    bench = Bench(signing=True)
    good = bench.send(fields=signed())
    for how in (
        {"fields": [OURS]},
        {"client": "127.0.0.1"},
        {"sender": b"<>"},
        {"fields": large(HEADER_MAXIMUM + 1)},
    ):
        bench.send(**how)
    assert bench.send(fields=signed()) == good


def test_each_message_has_a_resolver_of_its_own():
    bench = Bench(cache=Forgetful())
    for number in range(1, 4):
        assert bench.wait().results.spf.mail_from.result is SpfResult.PASS
        assert bench.resolvers_made == number
