"""The whole RFC 7208 suite against the evaluator. It lies beside the checkout and is not copied."""

from __future__ import annotations

import asyncio
from ipaddress import ip_address

import pytest

from harness.fake_resolver import FakeResolver
from harness.spf_suite import DEFAULT, FILE, Case, load
from srsd.spf.check_host import check_mail_from
from srsd.spf.trace import Trace

CASES = load()

pytestmark = pytest.mark.skipif(not CASES, reason=f"{FILE} is absent: the RFC 7208 suite was not run")


def check(case: Case, trace: Trace | None = None):
    return asyncio.run(
        check_mail_from(
            FakeResolver(case.zones),
            ip_address(case.client),
            case.sender,
            case.helo.encode(),
            receiver=b"mail.example.net",
            now=1_700_000_000,
            trace=trace,
        )
    )


def test_the_suite_is_whole():
    assert len(CASES) == 203
    assert len({case.scenario for case in CASES}) == 16


@pytest.mark.parametrize("case", CASES, ids=str)
def test_case(case):
    outcome = check(case)
    assert outcome.result.value in case.results, outcome.reason
    if case.explanation == DEFAULT:
        assert outcome.explanation == b""
    elif case.explanation is not None:
        assert outcome.explanation.decode() == case.explanation


@pytest.mark.parametrize("case", CASES, ids=str)
def test_a_trace_changes_nothing(case):
    trace = Trace()
    assert check(case, trace) == check(case)
    assert all(line.isascii() and line.isprintable() for line in trace.lines())
