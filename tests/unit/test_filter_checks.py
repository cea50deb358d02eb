"""DMARC, ARC and sealing in the whole filter: what is asked, what is said, and what is added."""

from __future__ import annotations

import asyncio
import re
from dataclasses import replace
from typing import Any

import dkim
import pytest

from harness.arc_forge import ArcForge
from harness.dkim_forge import rsa_key
from harness.fake_resolver import FakeResolver
from harness.filter_bench import (
    AUTHSERV_ID,
    BODY,
    KEY,
    NOW,
    OURS,
    TEMPLATE,
    Bench,
    Forgetful,
    Slow,
    field_of,
    header_after,
    properties_of,
    results_in,
    signed,
)
from srsd.arc.result import ChainStatus
from srsd.authres import parse_results
from srsd.crypto import KeyType, generate_key
from srsd.dkim.keystore import parse_key_store
from srsd.dkim.result import Reason
from srsd.dmarc.outcome import DmarcResult
from srsd.filter import message as message_module
from srsd.filter.authenticate import EXCLUDED, HEADER_TOO_LARGE, SWITCHED_OFF
from srsd.filter.message import HEADER_MAXIMUM
from srsd.filter.origin import MilterParameters, Origin
from srsd.filter.report import Timings
from srsd.filter.sealing import SealingService
from srsd.filter.verdict import Action, PolicyParameters
from srsd.resolving import Answer, Outcome
from srsd.spf.outcome import SpfResult
from srsd.syntax.header import HeaderField
from srsd.wire.milter import Continue, InsertHeader
from srsd.wire.milter_session import Decision

HERE, OTHER = "192.0.2.1", "198.51.100.1"  # SPF passes for the one
REJECT = "v=DMARC1; p=reject"
ZONES: dict[tuple[str, str], Any] = {
    **{
        (f"{name}.example", "TXT"): ["v=spf1 ip4:192.0.2.1 -all"]
        for name in ("author", "held", "watched", "plain", "stranger", "tested", "helo", "list")
    },
    ("sub.author.example", "TXT"): ["v=spf1 ip4:192.0.2.1 -all"],
    ("slowspf.author.example", "TXT"): Outcome.TIMED_OUT,
    ("xn--bcher-kva.example", "TXT"): ["v=spf1 ip4:192.0.2.1 -all"],
    ("_dmarc.author.example", "TXT"): [REJECT],
    ("_dmarc.held.example", "TXT"): ["v=DMARC1; p=quarantine"],
    ("_dmarc.watched.example", "TXT"): ["v=DMARC1; p=none"],
    ("_dmarc.tested.example", "TXT"): [f"{REJECT}; t=y"],
    ("_dmarc.xn--bcher-kva.example", "TXT"): [REJECT],
    ("_dmarc.void.example", "TXT"): ["v=DMARC1"],
    ("_dmarc.broken.example", "TXT"): Outcome.SERVER_FAILURE,
    ("s1._domainkey.author.example", "TXT"): [KEY.record],
    ("s1._domainkey.stranger.example", "TXT"): [KEY.record],
    ("s2._domainkey.author.example", "TXT"): Outcome.TIMED_OUT,
}
SPF_NOT_FOR_AUTHOR = {"sender": b"<x@stranger.example>"}
ENFORCED = PolicyParameters(shadow=False, dmarc_reject="reject", dmarc_quarantine="quarantine")
IN_SHADOW = replace(ENFORCED, shadow=True)


def header(author: bytes, *others: HeaderField) -> list[HeaderField]:
    return [*others, HeaderField(b"From", b" " + author), HeaderField(b"Subject", b" x")]


def signed_by(
    domain: bytes, author: bytes = b"a@author.example", selector: bytes = b"s1", body: bytes = BODY
) -> list[HeaderField]:
    template = TEMPLATE.replace(b"example.com", domain).replace(b"s=s1", b"s=" + selector)
    return signed(template, fields=header(author), body=body)


def judged(how: dict[str, Any], bench: Bench | None = None) -> tuple[str, dict[str, bytes]]:
    """Send a message: what stands about DMARC in our field, its word and its properties."""
    bench = bench or Bench(ZONES, dmarc=True)
    report = bench.send(**({"sender": b"<x@stranger.example>", "fields": header(b"a@author.example")} | how))
    words = [result for method, result in field_of(report) if method == "dmarc"]
    return (words[0], properties_of(report, "dmarc")) if words else ("", {})


# DMARC.

DMARC: list[tuple[str, dict[str, Any], str, dict[str, bytes]]] = [
    (
        "SPF of the author domain passes",
        {"sender": b"<x@author.example>"},
        "pass",
        {"header.from": b"author.example", "policy.dmarc": b"reject"},
    ),
    (
        "SPF of a subdomain passes",
        {"sender": b"<x@sub.author.example>"},
        "pass",
        {"header.from": b"author.example", "policy.dmarc": b"reject"},
    ),
    (
        "the null sender passes as HELO",
        {"sender": b"<>", "helo": b"author.example"},
        "pass",
        {"header.from": b"author.example", "policy.dmarc": b"reject"},
    ),
    (
        "DKIM passes, SPF of another",
        {"fields": signed_by(b"author.example")},
        "pass",
        {"header.from": b"author.example", "policy.dmarc": b"reject"},
    ),
    ("nothing is aligned", {}, "fail", {"header.from": b"author.example", "policy.dmarc": b"reject"}),
    (
        "SPF of the author domain fails",
        {"sender": b"<x@author.example>", "client": OTHER},
        "fail",
        {"header.from": b"author.example", "policy.dmarc": b"reject"},
    ),
    (
        "HELO alone is nobody's identity",
        {"helo": b"author.example"},
        "fail",
        {"header.from": b"author.example", "policy.dmarc": b"reject"},
    ),
    (
        "another's signature passes",
        {"fields": signed_by(b"stranger.example")},
        "fail",
        {"header.from": b"author.example", "policy.dmarc": b"reject"},
    ),
    (
        "the author's signature fails",
        {"fields": signed_by(b"author.example"), "body": b"other"},
        "fail",
        {"header.from": b"author.example", "policy.dmarc": b"reject"},
    ),
    (
        "the policy is quarantine",
        {"fields": header(b"a@held.example")},
        "fail",
        {"header.from": b"held.example", "policy.dmarc": b"quarantine"},
    ),
    (
        "the policy is none",
        {"fields": header(b"a@watched.example")},
        "fail",
        {"header.from": b"watched.example", "policy.dmarc": b"none"},
    ),
    (
        "the policy is being tested",
        {"fields": header(b"a@tested.example")},
        "fail",
        {"header.from": b"tested.example", "policy.dmarc": b"quarantine"},
    ),
    ("there is no record", {"fields": header(b"a@plain.example")}, "none", {"header.from": b"plain.example"}),
    ("the record is void", {"fields": header(b"a@void.example")}, "none", {"header.from": b"void.example"}),
    (
        "the record is not answered",
        {"fields": header(b"a@broken.example")},
        "temperror",
        {"header.from": b"broken.example"},
    ),
    (
        "SPF is not answered",
        {"sender": b"<x@slowspf.author.example>"},
        "temperror",
        {"header.from": b"author.example", "policy.dmarc": b"reject"},
    ),
    (
        "the key is not answered",
        {"fields": signed_by(b"author.example", selector=b"s2")},
        "temperror",
        {"header.from": b"author.example", "policy.dmarc": b"reject"},
    ),
    (
        "the domain in capitals, and with a dot",
        {"sender": b"<x@AUTHOR.example>", "fields": header(b"a@Author.Example.")},
        "pass",
        {"header.from": b"author.example", "policy.dmarc": b"reject"},
    ),
    (
        "the domain in U-labels",
        {"sender": b"<x@xn--bcher-kva.example>", "fields": header("a@bücher.example".encode())},
        "pass",
        {"header.from": b"xn--bcher-kva.example", "policy.dmarc": b"reject"},
    ),
    (
        "several addresses of one domain",
        {"sender": b"<x@author.example>", "fields": header(b"a@author.example, b@author.example")},
        "pass",
        {"header.from": b"author.example", "policy.dmarc": b"reject"},
    ),
    ("addresses of several domains", {"fields": header(b"a@author.example, b@stranger.example")}, "permerror", {}),
    ("a group", {"fields": header(b"friends: a@author.example;")}, "permerror", {}),
    ("an address literal", {"fields": header(b"a@[192.0.2.1]")}, "permerror", {}),
    ("no From", {"fields": [HeaderField(b"Subject", b" x")]}, "permerror", {}),
    ("two From", {"fields": header(b"a@author.example", HeaderField(b"from ", b" b@author.example"))}, "permerror", {}),
]  # fmt: skip


@pytest.mark.parametrize(("name", "how", "word", "properties"), DMARC, ids=[name for name, *_ in DMARC])
def test_what_is_said_of_dmarc(name, how, word, properties):
    assert judged(how) == (word, properties)


@pytest.mark.parametrize(("name", "how", "word", "properties"), DMARC, ids=[name for name, *_ in DMARC])
def test_the_cache_and_a_resolver_give_the_same(name, how, word, properties):
    facts = {"sender": b"<x@stranger.example>", "fields": header(b"a@author.example")} | how
    policy = PolicyParameters(shadow=False, dmarc_reject="reject", dns_error="tempfail", null_mx="reject")
    known = Bench(ZONES, dmarc=True, arc=True, policy=policy).send(**facts)
    waiting = Bench(ZONES, cache=Forgetful(), dmarc=True, arc=True, policy=policy)
    asked = waiting.wait(**facts)
    assert known._replace(timings=Timings()) == asked._replace(timings=Timings())
    assert known.results.dmarc == asked.results.dmarc
    assert asked.timings.dns_queries == len(waiting.resolver.asked) > 0


def test_the_reason_stands_beside_what_is_no_pass():
    for how, reason in (
        ({"sender": b"<x@author.example>"}, ""),
        ({}, "spf passed, not aligned"),
        ({"client": OTHER}, "neither spf nor dkim passed"),
        ({"fields": header(b"a@plain.example")}, "there is no DMARC record"),
        ({"fields": header(b"nobody")}, "the From field cannot be parsed"),
    ):
        report = Bench(ZONES, dmarc=True).send(
            **({"sender": b"<x@stranger.example>", "fields": header(b"a@author.example")} | how)
        )
        (result,) = [each for each in results_in(report) if each.method == "dmarc"]
        assert result.reason == reason


def test_the_order_of_methods():
    report = Bench(ZONES, dmarc=True, arc=True).send(fields=signed_by(b"author.example"))
    assert [method for method, _ in field_of(report)] == ["spf", "spf", "dkim", "arc", "dmarc"]


@pytest.mark.parametrize(
    ("exclusions", "how", "checked"),
    [
        (b"author.example dmarc", {}, False),
        (b"@author.example dmarc, srs", {}, False),
        (b"author.example all", {}, False),
        (b".example dmarc", {}, False),
        (b"a@author.example dmarc", {}, False),
        (b"A@AUTHOR.example dmarc", {}, False),
        (b"192.0.2.0/24 dmarc", {}, False),
        (b"192.0.2.0/24 dmarc", {"fields": header(b"nobody")}, False),
        (b"author.example dmarc", {"fields": header(b"a@author.example, b@author.example")}, False),
        (b"b@author.example dmarc", {}, True),
        (b"author.example spf, arc, srs, sign", {}, True),
        (b"stranger.example dmarc", {}, True),  # MAIL FROM is no author
        (b"198.51.100.0/24 dmarc", {}, True),
        (b"author.example dmarc", {"fields": header(b"a@author.example, b@stranger.example")}, True),
        (b"author.example dmarc", {"fields": header(b"a@sub.author.example")}, True),
    ],
)
def test_the_exclusion_map_switches_dmarc_off(exclusions, how, checked):
    bench = Bench(ZONES, dmarc=True, exclusions=exclusions, policy=IN_SHADOW)
    word, properties = judged(how, bench)
    assert bool(word) is checked
    report = bench.reports[0]
    assert report.verdict.wanted is (Action.REJECT if word == "fail" else Action.ACCEPT)
    if not checked:
        assert properties == {}
        assert report.results.dmarc.why_unchecked == EXCLUDED
        assert not [name for name, _ in bench.cache.asked if name.startswith("_dmarc.")]


def test_who_is_excluded_may_have_any_author():
    """Without DMARC nobody asks for an author it could protect."""
    policy = PolicyParameters(shadow=False, author_invalid="reject")
    for exclusions, action in ((b"192.0.2.1 dmarc", Action.ACCEPT), (b"192.0.2.1 spf", Action.REJECT)):
        bench = Bench(ZONES, dmarc=True, exclusions=exclusions, policy=policy)
        assert bench.send(fields=header(b"nobody")).verdict.action is action


def test_dmarc_that_is_switched_off():
    bench = Bench(ZONES, dmarc=False, policy=ENFORCED)
    report = bench.send(**SPF_NOT_FOR_AUTHOR, fields=header(b"a@author.example"))
    assert "dmarc" not in dict(field_of(report))
    assert report.results.dmarc.why_unchecked == SWITCHED_OFF
    assert report.verdict.action is Action.ACCEPT
    assert not [name for name, _ in bench.cache.asked if name.startswith("_dmarc.")]


ALIGNED = {"sender": b"<x@author.example>"}


@pytest.mark.parametrize("sender", [b"<x@stranger.example>", b"<>", b"<x>", b"<x@[192.0.2.1]>"])
@pytest.mark.parametrize(
    "bench", [{"spf": False}, {"exclusions": b"192.0.2.1 spf\nstranger.example spf"}], ids=["off", "excluded"]
)
def test_spf_that_could_not_have_been_aligned_excuses_nothing(bench, sender):
    """Else an exclusion of one domain would let everybody who names it in MAIL FROM write as anybody."""
    made = Bench(ZONES, dmarc=True, policy=ENFORCED, **bench)
    report = made.send(sender, fields=header(b"a@author.example"))
    assert report.results.dmarc.fails
    assert report.verdict.action is Action.REJECT


@pytest.mark.parametrize(
    ("bench", "how", "why"),
    [
        ({"milter": MilterParameters(trusted_relays=(HERE,))}, {}, "SPF is not checked: trusted relay"),
        ({"spf": False}, ALIGNED, "SPF is not checked: switched off"),
        ({"exclusions": b"192.0.2.1 spf"}, ALIGNED, "SPF is not checked: excluded"),
        ({}, ALIGNED | {"client": None}, "SPF is not checked: the client has no IP address"),
        (
            {"spf": False},
            {"sender": b"<>", "helo": b"author.example"},
            "SPF is not checked: switched off",
        ),
        ({"dkim": False}, {}, "DKIM is not checked: switched off"),
        ({"exclusions": b"author.example dkim"}, {}, "DKIM is not checked: excluded"),
        ({"exclusions": b"192.0.2.1 dkim"}, {}, "DKIM is not checked: excluded"),
        ({"exclusions": b"192.0.2.1 spf, dkim"}, ALIGNED, "SPF is not checked: excluded"),
    ],
)
def test_what_was_not_checked_might_have_passed(bench, how, why):
    made = Bench(ZONES, dmarc=True, policy=ENFORCED, **bench)
    assert judged(how, made) == ("", {})
    report = made.reports[0]
    assert report.results.dmarc.why_unchecked == why
    assert report.results.dmarc.outcome is None
    assert report.verdict.action is report.verdict.wanted is Action.ACCEPT


@pytest.mark.parametrize(
    ("bench", "how"),
    [
        ({"milter": MilterParameters(trusted_relays=(HERE,))}, {}),
        ({"spf": False}, {}),
        ({"exclusions": b"192.0.2.1 spf"}, {}),
        ({}, {"client": None}),
    ],
)
def test_what_passes_without_spf_passes(bench, how):
    made = Bench(ZONES, dmarc=True, **bench)
    expected = ("pass", {"header.from": b"author.example", "policy.dmarc": b"reject"})
    assert judged(how | {"fields": signed_by(b"author.example")}, made) == expected


def test_what_passes_without_dkim_passes():
    how = {"sender": b"<x@author.example>", "fields": signed_by(b"author.example"), "body": b"other"}
    assert judged(how, Bench(ZONES, dmarc=True, dkim=False))[0] == "pass"


def test_a_header_that_is_too_large_has_an_author():
    """Else padding would be a way around the policy: what fails is refused, with nothing to say for it."""
    padding = [HeaderField(b"X", b" " * 60_000)] * (HEADER_MAXIMUM // 60_000 + 1)
    for fields in (
        [*padding, *signed_by(b"author.example")],
        [*signed_by(b"author.example"), *padding],
        [*signed_by(b"author.example")[:2], *padding, HeaderField(b"Subject", b" x")],
    ):
        bench = Bench(ZONES, dmarc=True, arc=True, policy=ENFORCED)
        report = bench.send(**SPF_NOT_FOR_AUTHOR, fields=fields)
        assert report.results.author.domain == b"author.example"
        assert report.results.dkim.why_unchecked == report.results.arc.why_unchecked == HEADER_TOO_LARGE
        assert report.results.dmarc.outcome.result is DmarcResult.FAIL
        assert report.verdict.action is Action.REJECT
        expected = ("pass", {"header.from": b"author.example", "policy.dmarc": b"reject"})
        assert judged({"sender": b"<x@author.example>", "fields": fields}) == expected
    second = HeaderField(b"From", b" b@author.example")
    assert judged({"fields": [*header(b"a@author.example"), *padding, second]}) == ("permerror", {})


@pytest.mark.parametrize("origin", [{"client": "127.0.0.1"}, {"macros": {b"auth_authen": b"alice"}}])
def test_mail_of_ours_is_not_checked(origin):
    bench = Bench(ZONES, dmarc=True, arc=True, policy=ENFORCED)
    report = bench.send(**SPF_NOT_FOR_AUTHOR, **origin, fields=header(b"a@author.example"))
    assert report.transaction.origin.ours
    assert report.decision == Decision((), Continue())
    assert bench.cache.asked == []
    assert report.results.dmarc.why_unchecked == report.transaction.origin.value
    assert report.results.arc.why_unchecked == report.transaction.origin.value


def test_a_failing_message_through_a_trusted_relay_is_taken():
    policy = PolicyParameters(
        shadow=False, author_invalid="reject", dkim_fail="reject", dmarc_reject="reject"
    )
    bench = Bench(ZONES, dmarc=True, policy=policy, milter=MilterParameters(trusted_relays=(HERE,)))
    for fields in (header(b"nobody"), signed_by(b"author.example")):
        report = bench.send(fields=fields, body=b"other")
        assert report.transaction.origin is Origin.TRUSTED_RELAY
        assert (report.verdict.action, report.verdict.wanted) == (Action.ACCEPT, Action.REJECT)
        assert isinstance(report.decision.verdict, Continue)


@pytest.mark.parametrize(
    ("author", "action", "code"),
    [
        (b"a@author.example", Action.REJECT, b"5.7.26"),
        (b"a@held.example", Action.QUARANTINE, b""),
        (b"a@tested.example", Action.QUARANTINE, b""),
        (b"a@watched.example", Action.ACCEPT, b""),
        (b"a@plain.example", Action.ACCEPT, b""),
        (b"a@stranger.example", Action.ACCEPT, b""),
    ],
)
def test_the_policy_of_the_author_domain_is_enforced(author, action, code):
    report = Bench(ZONES, dmarc=True, policy=ENFORCED).send(**SPF_NOT_FOR_AUTHOR, fields=header(author))
    assert report.verdict.action is action
    if code:
        assert report.decision.verdict.enhanced == code
        assert report.decision.verdict.text == (
            b"DMARC: author.example asks to reject what fails: spf passed, not aligned"
        )


# Waiting.


async def turns(number: int = 8) -> None:
    for _ in range(number):
        await asyncio.sleep(0)


def test_dmarc_is_asked_for_beside_the_others():
    async def main() -> None:
        slow = Slow(ZONES)
        bench = Bench(ZONES, cache=Forgetful(), resolver=slow, dmarc=True, arc=True)
        later = bench.begin(b"<x@stranger.example>", fields=signed_by(b"author.example")).end_of_message({})
        await turns()
        assert slow.waiting == 4  # MAIL FROM, HELO, the key, and the record of DMARC
        slow.gate.set()
        await later
        assert dict(field_of(bench.reports[0]))["dmarc"] == "pass"

    asyncio.run(main())


def test_a_slow_answer_delays_its_own_message_alone():
    """The one waits for DMARC, whose records for the other are in the cache."""

    async def main() -> None:
        names = {name for name, _ in ZONES} | {"_dmarc.example"}
        cache = Forgetful(FakeResolver(ZONES), has=names - {"_dmarc.author.example"})
        slow = Slow(ZONES, b"_dmarc.author.")
        bench = Bench(ZONES, cache=cache, resolver=slow, dmarc=True)
        first = bench.begin(fields=header(b"a@author.example")).end_of_message({b"i": b"SLOW"})
        assert not isinstance(first, Decision)
        waiting = asyncio.ensure_future(first)
        await turns()
        bench.send(b"<x@held.example>", helo=b"x", fields=header(b"a@held.example"))
        assert [report.queue_id for report in bench.reports] == [b"Q1"]
        assert not waiting.done()
        slow.gate.set()
        await waiting
        assert [report.queue_id for report in bench.reports] == [b"Q1", b"SLOW"]

    asyncio.run(main())


@pytest.mark.parametrize(
    ("prefix", "how"),
    [
        (b"_dmarc.author.", {}),
        (b"s1._domainkey.", {"fields": signed_by(b"author.example")}),
        # The record of a domain that SPF authenticated is asked for when all the rest is there.
        (b"_dmarc.sub.", {"sender": b"<x@sub.author.example>"}),
    ],
)
def test_nothing_is_left_behind(prefix, how):
    """Whether the message ends while it waits, or before its end was given."""

    async def main() -> None:
        facts = {"sender": b"<x@stranger.example>", "fields": header(b"a@author.example")} | how
        before = asyncio.all_tasks()
        for ended in (False, True):
            slow = Slow(ZONES, prefix)
            bench = Bench(ZONES, cache=Forgetful(), resolver=slow, dmarc=True, arc=True)
            message = bench.begin(**facts)
            await turns()
            later = None
            if ended:
                outcome = message.end_of_message({})
                assert not isinstance(outcome, Decision)
                later = asyncio.ensure_future(outcome)
                await turns()
            assert slow.waiting == (0 if prefix == b"_dmarc.sub." and not ended else 1)
            if later is not None:  # as a connection does that is closed
                later.cancel()
            message.abort()
            await turns()
            assert slow.waiting == 0
            assert asyncio.all_tasks() == before
            assert bench.reports == []

    asyncio.run(main())


def test_a_record_that_only_alignment_needs_is_asked_for_at_the_end():
    names = {name for name, _ in ZONES} | {"_dmarc.example"}
    cache = Forgetful(FakeResolver(ZONES), has=names)
    bench = Bench(ZONES, cache=cache, dmarc=True)
    how = {"sender": b"<x@sub.author.example>", "helo": b"x", "fields": header(b"a@author.example")}
    report = bench.wait(**how)
    assert dict(field_of(report))["dmarc"] == "pass"
    assert [name for name, _ in bench.resolver.asked] == ["_dmarc.sub.author.example"]
    assert report.timings.dns_queries == 1


def test_dns_is_not_asked_where_the_cache_knows():
    bench = Bench(ZONES, dmarc=True, arc=True, policy=ENFORCED)
    report = bench.send(fields=signed_by(b"author.example"))
    assert bench.resolvers_made == 0
    assert report.timings.dns_queries == 0


# What one check asks for is no other's loss.


class Patient(FakeResolver):
    """Answers so many questions, as the one of a message does."""

    def _answer(self, name: bytes, kind: str) -> Answer[Any]:
        if len(self.asked) >= 100:
            return Answer(Outcome.BUDGET_SPENT)
        return super()._answer(name, kind)


class Sluggish(Patient):
    """Waits for what is below slow.example until it has waited as long as it does for one message."""

    late = False

    def _answer(self, name: bytes, kind: str) -> Answer[Any]:
        self.late = self.late or name.endswith(b"slow.example")
        return Answer(Outcome.TIMED_OUT) if self.late else super()._answer(name, kind)


GREEDY_ZONES = ZONES | {
    ("greedy.example", "TXT"): ["v=spf1 " + " ".join(f"mx:m{number}.greedy.example" for number in range(9)) + " -all"],
    **{
        (f"m{number}.greedy.example", "MX"): [(place, f"h{place}.m{number}.greedy.example") for place in range(10)]
        for number in range(9)
    },
    **{
        (f"h{place}.m{number}.greedy.example", "A"): ["203.0.113.99"]
        for number in range(9)
        for place in range(10)
    },
    ("late.example", "TXT"): ["v=spf1 include:slow.example -all"],
}  # fmt: skip


@pytest.mark.parametrize(
    ("resolver", "sender"), [(Patient, b"<x@greedy.example>"), (Sluggish, b"<x@late.example>")]
)
@pytest.mark.parametrize("author", [b"a@author.example", b"a@nowhere.author.example"])
def test_spf_of_a_stranger_does_not_keep_dmarc_from_failing(resolver, sender, author):
    """Neither its questions nor its time: DMARC would be temperror, and the policy is not enforced then."""

    async def main() -> None:
        bench = Bench(
            cache=Forgetful(),
            make_resolver=lambda: resolver(GREEDY_ZONES),
            dmarc=True,
            arc=True,
            policy=ENFORCED,
        )
        # A signature that might have passed, had its key been asked for.
        fields = signed_by(b"author.example", author, selector=b"s3")
        message = bench.begin(sender, helo=b"[192.0.2.1]", fields=fields)
        later = message.end_of_message({})
        assert not isinstance(later, Decision)
        await later
        (report,) = bench.reports
        assert report.results.spf.mail_from.result in (SpfResult.TEMPERROR, SpfResult.FAIL)
        assert report.results.dkim.signatures[0].reason is Reason.NO_KEY
        assert report.results.dmarc.outcome.result is DmarcResult.FAIL
        assert report.verdict.action is Action.REJECT

    asyncio.run(main())


def test_what_dns_took_is_told_of_both():
    """The questions of both, and the time of the one that took longer: they wait side by side."""
    made: list[FakeResolver] = []

    def make() -> FakeResolver:
        made.append(FakeResolver(ZONES))
        made[-1].seconds = 1.5 * len(made)
        return made[-1]

    bench = Bench(cache=Forgetful(), make_resolver=make, dmarc=True)
    timings = bench.wait(fields=signed_by(b"author.example")).timings
    assert len(made) == 2
    assert timings == Timings(0.0, 3.0, len(made[0].asked) + len(made[1].asked))
    assert {name for name, _ in made[0].asked}.isdisjoint({name for name, _ in made[1].asked})


# ARC.

FIRST = ArcForge(rsa_key(1024, 1), b"list.example", b"l1")
SECOND = ArcForge(rsa_key(1024, 2), b"second.example", b"a1")
SEAL = b" i=%I%; a=%A%; cv=%CV%; d=%D%; s=%S%; t=1600000000; b=%B%"
ARC_ZONES = ZONES | {
    (forge.key_name.decode(), "TXT"): [forge.key.record] for forge in (FIRST, SECOND)
} | {("_dmarc.list.example", "TXT"): ["v=DMARC1; p=none"]}  # fmt: skip
SAW_PASS = b" list.example; spf=pass; dmarc=pass header.from=author.example"
LISTED = {"sender": b"<x@list.example>"}


def relayed(payload: bytes = SAW_PASS, forge: ArcForge = FIRST, body: bytes = BODY) -> list[HeaderField]:
    return forge.seal(header(b"a@author.example"), body, payload=payload, seal=SEAL)


TWICE = SECOND.seal([HeaderField(b"X-List", b" 1"), *relayed()], BODY, payload=SAW_PASS, seal=SEAL)
CHANGED_BETWEEN = SECOND.seal(relayed(), b"other\r\n", payload=SAW_PASS, seal=SEAL)


@pytest.mark.parametrize(
    ("how", "word", "properties"),
    [
        ({"fields": header(b"a@author.example")}, "none", {}),
        ({"fields": relayed()}, "pass", {"header.oldest-pass": b"0", "smtp.remote-ip": b"192.0.2.1"}),
        ({"fields": TWICE}, "pass", {"header.oldest-pass": b"0", "smtp.remote-ip": b"192.0.2.1"}),
        (
            {"fields": CHANGED_BETWEEN, "body": b"other\r\n"},
            "pass",
            {"header.oldest-pass": b"2", "smtp.remote-ip": b"192.0.2.1"},
        ),
        ({"fields": relayed(), "body": b"other"}, "fail", {"smtp.remote-ip": b"192.0.2.1"}),
        ({"fields": relayed()[1:]}, "fail", {"smtp.remote-ip": b"192.0.2.1"}),
        ({"fields": relayed(), "client": "2001:db8::1"}, "pass", {"header.oldest-pass": b"0", "smtp.remote-ip": b"2001:db8::1"}),
        ({"fields": relayed(), "client": None}, "pass", {"header.oldest-pass": b"0"}),
    ],
)  # fmt: skip
def test_what_is_said_of_arc(how, word, properties):
    report = Bench(ARC_ZONES, arc=True).send(**LISTED, **how)
    assert dict(field_of(report))["arc"] == word
    assert properties_of(report, "arc") == properties


def test_an_arc_chain_without_dns_fails_for_now():
    zones = ARC_ZONES | {(FIRST.key_name.decode(), "TXT"): Outcome.TIMED_OUT}
    report = Bench(zones, arc=True).send(**LISTED, fields=relayed())
    assert dict(field_of(report))["arc"] == "fail"
    assert report.results.arc.chain.temporary
    assert not report.results.arc.broken


@pytest.mark.parametrize(
    ("exclusions", "checked"),
    [
        (b"author.example arc", False),
        (b"a@author.example arc", False),
        (b"192.0.2.1 all", False),
        (b"list.example arc", True),
        (b"author.example dkim, dmarc, spf", True),
    ],
)
def test_the_exclusion_map_switches_arc_off(exclusions, checked):
    bench = Bench(ARC_ZONES, arc=True, spf=False, exclusions=exclusions)
    report = bench.send(**LISTED, fields=relayed())
    assert ("arc" in dict(field_of(report))) is checked
    assert report.results.arc.why_unchecked == ("" if checked else EXCLUDED)
    assert bool(bench.cache.asked) is checked


def test_arc_that_is_switched_off():
    bench = Bench(ARC_ZONES, arc=False, spf=False)
    report = bench.send(**LISTED, fields=relayed())
    assert field_of(report) == [("dkim", "none")]
    assert report.results.arc.why_unchecked == SWITCHED_OFF
    assert bench.cache.asked == []


def trusting(*sealers: str, **how: Any) -> Bench:
    return Bench(ARC_ZONES, dmarc=True, arc=True, trusted_sealers=sealers, policy=ENFORCED, **how)


def test_a_trusted_sealer_keeps_a_failing_message_from_being_refused():
    for bench, how in (
        (trusting("list.example"), {"fields": relayed()}),
        (trusting("LIST.example"), {"fields": relayed()}),
        (trusting("second.example", "list.example"), {"fields": TWICE}),
        (trusting("second.example"), {"fields": TWICE}),
    ):
        report = bench.send(**LISTED, **how)
        (result,) = [each for each in results_in(report) if each.method == "dmarc"]
        assert result.result == "fail"
        assert result.reason.startswith("local_policy: trusted sealer ")
        assert result.reason.endswith(" saw it pass")
        assert properties_of(report, "dmarc") == {"header.from": b"author.example", "policy.dmarc": b"reject"}
        assert report.results.dmarc.vouched_by in (b"list.example", b"second.example")
        assert report.verdict.action is report.verdict.wanted is Action.ACCEPT


@pytest.mark.parametrize(
    ("sealers", "how"),
    [
        ((), {"fields": relayed()}),
        (("other.example",), {"fields": relayed()}),
        (("example",), {"fields": relayed()}),
        (("author.example",), {"fields": relayed()}),
        (("list.example",), {"fields": relayed(), "body": b"other"}),
        (("list.example",), {"fields": relayed(b" list.example; dmarc=fail header.from=author.example")}),
        (("list.example",), {"fields": relayed(b" list.example; dmarc=pass header.from=stranger.example")}),
        (("list.example",), {"fields": relayed(b" list.example; spf=pass")}),
        (("list.example",), {"fields": TWICE}),  # a stranger stands between
    ],
)
def test_nobody_else_does(sealers, how):
    report = trusting(*sealers).send(**LISTED, **how)
    assert report.results.dmarc.vouched_by == b""
    assert report.verdict.action is Action.REJECT


def test_a_voucher_is_sought_only_for_what_fails():
    bench = trusting("list.example")
    report = bench.send(b"<x@author.example>", fields=relayed())
    assert (report.results.dmarc.outcome.result, report.results.dmarc.vouched_by) == (DmarcResult.PASS, b"")


def test_a_trusted_sealer_vouches_for_dmarc_alone():
    policy = PolicyParameters(shadow=False, spf_fail="reject", dmarc_reject="reject")
    bench = Bench(ARC_ZONES, dmarc=True, arc=True, trusted_sealers=("list.example",), policy=policy)
    report = bench.send(**LISTED, client=OTHER, fields=relayed())
    assert report.results.dmarc.vouched_by == b"list.example"
    assert (report.verdict.action, report.verdict.finding.key) == (Action.REJECT, "spf_fail")


def test_a_broken_chain_may_be_refused():
    policy = PolicyParameters(shadow=False, arc_fail="reject", dns_error="tempfail")
    for zones, how, code in (
        (ARC_ZONES, {"fields": relayed(), "body": b"other"}, b"5.7.29"),
        (ARC_ZONES | {(FIRST.key_name.decode(), "TXT"): Outcome.TIMED_OUT}, {"fields": relayed()}, b"4.4.3"),
    ):
        report = Bench(zones, arc=True, policy=policy).send(**LISTED, **how)
        assert report.decision.verdict.enhanced == code
    assert Bench(ARC_ZONES, arc=True, policy=policy).send(**LISTED, fields=relayed()).verdict.finding is None


# Sealing.

OUR_KEY, OUR_ED = rsa_key(2048, 9), generate_key(KeyType.ED25519).pem()
SEALED_ZONES = ARC_ZONES | {("s9._domainkey.fwd.example", "TXT"): [OUR_KEY.record]}


def sealer(domain: str = "fwd.example", **files: bytes) -> SealingService:
    texts = {f"/keys/fwd.example/{name}.pem": pem for name, pem in (files or {"s9": OUR_KEY.pem}).items()}
    return SealingService(domain, parse_key_store(texts))


def sealing(zones=SEALED_ZONES, service: SealingService | None = None, **how: Any) -> Bench:
    return Bench(zones, sealing=service or sealer(), **({"dmarc": True, "arc": True} | how))


def records(zones=SEALED_ZONES) -> dict[bytes, bytes]:
    return {
        name.encode(): value[0] if isinstance(value[0], bytes) else value[0].encode()
        for (name, kind), value in zones.items()
        if kind == "TXT" and not isinstance(value, Outcome)
    }


def dkimpy_says(fields: list[HeaderField], body: bytes = BODY, zones=SEALED_ZONES) -> str:
    """Ask dkimpy what becomes of the chain."""
    text = b"".join(
        name + b":" + value.replace(b"\r\n", b"\n").replace(b"\n", b"\r\n") + b"\r\n"
        for name, value in fields
    )
    status, *_ = dkim.arc_verify(
        text + b"\r\n" + body, dnsfunc=lambda name, **_: records(zones).get(name.rstrip(b".").lower())
    )
    return status.decode()


@pytest.mark.parametrize(
    "how",
    [
        {"fields": header(b"a@author.example")},
        {"fields": signed_by(b"author.example")},
        {"fields": relayed(), **LISTED},
        {"fields": TWICE, **LISTED},
        {"fields": header(b"a@author.example"), "body": b""},
        {"fields": header(b"a@author.example, b@stranger.example")},
        {"fields": [OURS, *signed_by(b"author.example"), OURS]},
        {"fields": header(b"a@author.example"), "client": None},
    ],
)
def test_what_we_seal_verifies(how):
    report = sealing().send(**how)
    fields = header_after(report, how["fields"])
    assert [field.name for field in fields[:4]] == [
        b"ARC-Seal",
        b"ARC-Message-Signature",
        b"ARC-Authentication-Results",
        b"Authentication-Results",
    ]
    body = how.get("body", BODY)
    assert dkimpy_says(fields, body) == "pass"
    again = Bench(SEALED_ZONES, arc=True).send(fields=fields, body=body)
    assert again.results.arc.chain.status is ChainStatus.PASS
    assert re.fullmatch(r"i=\d s=s9 d=fwd\.example", report.seal.sealed_as)
    assert report.seal.why_not == ""


def test_the_order_from_the_top():
    bench = sealing(received_spf=True)
    fields = [HeaderField(b"Received", b" by us"), *header(b"a@author.example")]
    changed = header_after(bench.send(**SPF_NOT_FOR_AUTHOR, fields=fields), fields)
    assert [field.name for field in changed] == [
        b"ARC-Seal",
        b"ARC-Message-Signature",
        b"ARC-Authentication-Results",
        b"Authentication-Results",
        b"Received-SPF",
        b"Received-SPF",
        b"Received",
        b"From",
        b"Subject",
    ]


def added(report, name: bytes) -> list[bytes]:
    return [
        each.value
        for each in report.decision.modifications
        if isinstance(each, InsertHeader) and each.name == name
    ]


@pytest.mark.parametrize("how", [{"fields": signed_by(b"author.example")}, {"fields": TWICE, **LISTED}])
def test_a_seal_says_what_our_field_says(how):
    report = sealing().send(**how)
    (ours,), (sealed,) = (
        added(report, b"Authentication-Results"),
        added(report, b"ARC-Authentication-Results"),
    )
    instance = b" i=3;" if "sender" in how else b" i=1;"
    assert sealed.startswith(instance)
    assert sealed.removeprefix(instance).split() == ours.split()
    parsed = parse_results(ours)
    assert parsed == parse_results(sealed.removeprefix(instance))
    assert parsed.authserv_id == AUTHSERV_ID
    assert {each.method for each in parsed.results} == {"spf", "dkim", "arc", "dmarc"}


def test_what_others_say_of_a_message_is_not_sealed():
    """Only what we found ourselves (RFC 8617 §4.1.1), whoever signed it."""
    other = HeaderField(b"Authentication-Results", b" other.example; dkim=pass header.d=evil.example")
    report = sealing().send(fields=[OURS, other, *header(b"a@author.example")])
    (sealed,) = added(report, b"ARC-Authentication-Results")
    assert b"evil" not in sealed
    assert report.forgeries == 1


def test_three_hops():
    """A message that two lists and a forwarder hand on, each with its own additions."""
    fields, body = signed_by(b"author.example"), BODY
    zones = dict(ZONES)
    statuses = []
    for number, domain in enumerate(("one.example", "two.example", "three.example")):
        key = rsa_key(1024, 20 + number)
        zones[f"s._domainkey.{domain}", "TXT"] = [key.record]
        service = SealingService(domain, parse_key_store({f"/keys/{domain}/s.pem": key.pem}))
        bench = Bench(zones, sealing=service, dmarc=True, arc=True)
        report = bench.send(b"<x@stranger.example>", fields=fields, body=body)
        statuses.append(dict(field_of(report))["arc"])
        fields = header_after(report, fields)
        assert dkimpy_says(fields, body, zones) == "pass"
        fields = [HeaderField(b"Received", b" by " + domain.encode()), *fields]
    assert statuses == ["none", "pass", "pass"]
    report = Bench(
        zones, arc=True, dmarc=True, trusted_sealers=("one.example", "two.example", "three.example")
    ).send(b"<x@stranger.example>", fields=fields, body=body)
    assert properties_of(report, "arc")["header.oldest-pass"] == b"0"
    assert [each.domain for each in report.results.arc.chain.sets] == [
        b"one.example",
        b"two.example",
        b"three.example",
    ]


@pytest.mark.parametrize(
    "origin",
    [
        {"client": "127.0.0.1"},
        {"macros": {b"auth_authen": b"alice"}},
        {"macros": {b"daemon_name": b"ORIGINATING"}},
    ],
)
def test_mail_of_ours_is_never_sealed(origin):
    report = sealing(signing=True).send(**origin)
    assert report.seal == ((), "", "")
    assert [each.name for each in report.decision.modifications] == [b"DKIM-Signature"]


def test_mail_through_a_trusted_relay_is_sealed():
    bench = sealing(milter=MilterParameters(trusted_relays=(HERE,)))
    assert bench.send(fields=header(b"a@author.example")).seal.sealed_as == "i=1 s=s9 d=fwd.example"


@pytest.mark.parametrize(
    ("policy", "changed"),
    [
        (PolicyParameters(shadow=False, dmarc_reject="reject"), False),
        (PolicyParameters(shadow=False, dmarc_reject="tempfail"), False),
        (PolicyParameters(shadow=False, dmarc_reject="quarantine"), True),
        (PolicyParameters(shadow=True, dmarc_reject="reject"), True),
    ],
)
def test_what_is_refused_is_not_sealed(policy, changed):
    report = sealing(policy=policy).send(**SPF_NOT_FOR_AUTHOR, fields=header(b"a@author.example"))
    assert bool(report.seal.fields) is changed
    assert bool(report.decision.modifications) is changed


def ended() -> list[HeaderField]:
    return SECOND.seal(relayed(body=b"other"), BODY, cv=b"fail", seal=SEAL)


def fifty() -> list[HeaderField]:
    """Make as many sets as there may be; whether they verify does not matter."""
    return [
        HeaderField(name, b" i=%d; " % number + rest)
        for number in range(50, 0, -1)
        for name, rest in (
            (b"ARC-Seal", b"a=rsa-sha256; cv=%b; d=x.example; s=s; b=AAAA" % (b"pass" if number > 1 else b"none")),
            (b"ARC-Message-Signature", b"a=rsa-sha256; d=x.example; s=s; h=from; bh=AAAA; b=AAAA"),
            (b"ARC-Authentication-Results", b"x.example; none"),
        )
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("bench", "how", "why"),
    [
        ({}, {"fields": ended()}, "the chain was sealed as failed before"),
        ({}, {"fields": [*fifty(), *header(b"a@author.example")]}, "the chain has 50 sets"),
        (
            {"zones": SEALED_ZONES | {(FIRST.key_name.decode(), "TXT"): Outcome.TIMED_OUT}},
            {"fields": relayed()},
            "the chain could not be validated now, and a seal would end it",
        ),
        ({"arc": False}, {"fields": relayed()}, "the chain was not validated: switched off"),
        (
            {"arc": False, "dkim": False, "dmarc": False},
            {"fields": relayed()},
            "the chain was not validated: switched off",
        ),
        ({"exclusions": b"192.0.2.1 arc"}, {"fields": relayed()}, "the chain was not validated: excluded"),
        (
            {},
            {"fields": [HeaderField(b"X", b" " * 60_000)] * 10},
            "the chain was not validated: the header is too large",
        ),
        ({"service": sealer(e1=OUR_ED)}, {"fields": relayed()}, "no RSA key of fwd.example signs"),
        ({"service": sealer("other.example")}, {"fields": relayed()}, "there is no key for other.example"),
    ],
)
def test_why_a_message_is_not_sealed(bench, how, why):
    report = sealing(**bench).send(**LISTED, **how)
    assert report.seal == ((), "", why)
    assert len(report.decision.modifications) == 1  # Authentication-Results


def test_nobody_seals_where_sealing_is_switched_off():
    report = Bench(SEALED_ZONES, dmarc=True, arc=True).send(**LISTED, fields=relayed())
    assert report.seal == ((), "", "")


def test_the_first_rsa_key_of_several_seals():
    texts = {
        "/keys/fwd.example/active": b"e1\ns9\n",
        "/keys/fwd.example/e1.pem": OUR_ED,
        "/keys/fwd.example/s9.pem": OUR_KEY.pem,
    }
    report = sealing(service=SealingService("fwd.example", parse_key_store(texts))).send(
        **LISTED, fields=relayed()
    )
    assert report.seal.sealed_as == "i=2 s=s9 d=fwd.example"


def test_a_broken_chain_is_sealed_as_broken_and_then_never_again():
    fields = relayed(body=b"other")
    report = sealing().send(**LISTED, fields=fields)
    assert report.seal.sealed_as.startswith("i=2 ")
    changed = header_after(report, fields)
    assert re.search(rb"cv=fail;", changed[0].value)
    again = sealing().send(**LISTED, fields=changed)
    assert again.seal.why_not == "the chain was sealed as failed before"
    assert dict(field_of(again))["arc"] == "fail"


def test_the_time_of_a_seal_is_the_filters():
    (seal,) = added(sealing().send(fields=header(b"a@author.example")), b"ARC-Seal")
    assert re.search(rb"\bt=%d;" % NOW, seal)


# The body.


@pytest.fixture
def hashes_made(monkeypatch):
    """Note what is hashed, and how often the body goes through it."""
    made: list[list[Any]] = []

    class Counting(message_module.BodyHashes):
        def __init__(self, wanted) -> None:
            made.append(list(wanted))
            super().__init__(made[-1])

    monkeypatch.setattr(message_module, "BodyHashes", Counting)
    return made


SIMPLE = TEMPLATE.replace(b"relaxed/relaxed", b"simple/simple").replace(b"example.com", b"author.example")


@pytest.mark.parametrize(
    ("bench", "fields", "number"),
    [
        (Bench(SEALED_ZONES, arc=True), header(b"a@author.example"), 0),
        (Bench(SEALED_ZONES, arc=True), relayed(), 1),
        (Bench(SEALED_ZONES, arc=True, dkim=False), relayed(), 1),
        (Bench(SEALED_ZONES, arc=False), relayed(), 0),
        (sealing(), header(b"a@author.example"), 1),
        (sealing(), TWICE, 1),
        (sealing(), FIRST.seal(signed_by(b"author.example"), BODY, seal=SEAL), 1),
        (sealing(), FIRST.seal(signed(SIMPLE, fields=header(b"a@author.example")), BODY, seal=SEAL), 2),
    ],
)
def test_the_body_is_hashed_once_for_all(hashes_made, bench, fields, number):
    report = bench.send(fields=fields)
    assert [len(each) for each in hashes_made] == ([number] if number else [])
    assert dict(field_of(report)).get("arc") in (None, "none", "pass")


def test_a_key_that_two_need_is_asked_for_once():
    fields = ArcForge(KEY, b"author.example", b"s1").seal(signed_by(b"author.example"), BODY, seal=SEAL)
    known = Bench(ARC_ZONES, arc=True, spf=False)
    waiting = Bench(ARC_ZONES, cache=Forgetful(), arc=True, spf=False)
    for report in (known.send(fields=fields), waiting.wait(fields=fields)):
        assert field_of(report) == [("dkim", "pass"), ("arc", "pass")]
    assert known.cache.asked == waiting.resolver.asked == [("s1._domainkey.author.example", "TXT")]


@pytest.mark.parametrize("portion", [1, 2, 100])
def test_fields_may_come_in_any_portions(portion):
    fields = FIRST.seal(signed_by(b"author.example"), BODY, payload=SAW_PASS, seal=SEAL)
    expected = sealing().send(fields=fields)
    assert sealing().send(fields=fields, portion=portion) == expected
