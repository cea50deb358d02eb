"""The table of DMARC cases against the evaluator, each by the section of RFC 9989 that it rests on."""

from __future__ import annotations

from collections import Counter

import pytest

from harness.dmarc_cases import CASES, DmarcCase
from harness.fake_resolver import FakeResolver
from srsd.dmarc.discovery import discover
from srsd.dmarc.evaluate import evaluate
from srsd.dmarc.outcome import DmarcOutcome, Identifier, State
from srsd.dmarc.trace import Trace
from srsd.resolving import run_from_cache

STATES = {"pass": State.PASSED, "temperror": State.TEMPERROR}


def identifiers_of(case: DmarcCase) -> list[Identifier]:
    spf = Identifier("spf", case.mail_from.encode(), STATES.get(case.spf, State.FAILED))
    dkim = [
        Identifier("dkim", domain.encode(), STATES.get(state, State.FAILED)) for domain, state in case.dkim
    ]
    return [spf, *dkim]


def check(case: DmarcCase, resolver: FakeResolver, trace: Trace | None = None) -> DmarcOutcome:
    author_domain = case.author.encode()
    discovery = run_from_cache(discover(author_domain, resolver, trace))
    return run_from_cache(evaluate(author_domain, discovery, identifiers_of(case), resolver, trace))


@pytest.mark.parametrize("case", CASES, ids=str)
def test_case(case):
    outcome = check(case, FakeResolver(case.zone))
    assert (outcome.result.value, outcome.policy.value if outcome.policy else "") == (
        case.result,
        case.policy,
    ), outcome.reason
    assert (outcome.record_domain.decode(), outcome.organizational_domain.decode()) == (
        case.record_domain,
        case.organizational_domain,
    )
    assert outcome.author_domain == case.author.encode()
    assert bool(outcome.aligned) == (case.result == "pass")


@pytest.mark.parametrize("case", CASES, ids=str)
def test_a_trace_changes_nothing(case):
    trace, traced, untraced = Trace(), FakeResolver(case.zone), FakeResolver(case.zone)
    assert check(case, traced, trace) == check(case, untraced)
    assert traced.asked == untraced.asked
    assert all(line.isascii() and line.isprintable() for line in trace.lines())
    asked = [query["name"] for step in trace.as_dicts() for query in step["queries"]]
    assert set(asked) >= {name for name, _ in traced.asked}


@pytest.mark.parametrize("case", CASES, ids=str)
def test_nothing_is_asked_twice_and_little_in_all(case):
    resolver = FakeResolver(case.zone)
    check(case, resolver)
    assert len(set(resolver.asked)) == len(resolver.asked)
    within = [name for name, _ in resolver.asked if name.startswith("_dmarc.")]
    assert len(within) <= 8 * (1 + sum(each.state is not State.FAILED for each in identifiers_of(case)))


def test_the_table_is_large_and_no_case_stands_twice():
    assert len(CASES) >= 120
    assert not [name for name, count in Counter(map(str, CASES)).items() if count > 1]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_the_case_can_be_put_to_a_milter(case):
    """Records of SPF and keys are still to be added: they must not stand in the zone, nor change existence."""
    names = [case.mail_from, *(domain for domain, _ in case.dkim)]
    assert (case.mail_from, "TXT") not in case.zone
    assert case.spf in {"none", "neutral", "pass", "fail", "softfail", "temperror", "permerror"}
    assert all(state in {"pass", "fail", "temperror"} for _, state in case.dkim)
    assert all("." in name for name in names)
    if any("np=" in str(value) for value in case.zone.values()) and case.policy:
        existing = {name for name, _ in case.zone}
        adds = [name for name in names if f".{name}".endswith(f".{case.author}")]
        exists = any(f".{name}".endswith(f".{case.author}") for name in existing)
        assert not adds or exists
