"""Has the filter of the daemon judge one message, outside a milter session."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, NamedTuple

from srsd.cli.dns_answers import NoAnswers, live_answers
from srsd.daemon.service import make_expander, make_rules
from srsd.dmarc.discovery import discover
from srsd.dmarc.trace import Trace as DmarcTrace
from srsd.filter.authenticate import check_spf
from srsd.filter.results import check_dmarc
from srsd.filter.rules import World
from srsd.filter.service import MailFilter
from srsd.spf.trace import Trace
from srsd.wire.milter_session import Decision

if TYPE_CHECKING:
    from srsd.cli.dns_answers import KeptAnswers
    from srsd.daemon.files import Parsed
    from srsd.filter.forwarding import RecipientExpander
    from srsd.filter.report import Report
    from srsd.syntax.header import HeaderField
    from srsd.wire.milter_session import Envelope

_CHUNK = 65_535  # octets of the body that Postfix sends at once


class Case(NamedTuple):
    """What the milter is told of a message."""

    envelope: Envelope
    fields: list[HeaderField]
    body: bytes


class Judgement(NamedTuple):
    """What the filter made of it."""

    report: Report
    traces: dict[str, Trace]
    """Of SPF, by identity; empty where it was not asked."""
    dmarc: DmarcTrace
    """Empty where DMARC was not asked for."""


class _Pretended:
    """An AddressStore that keeps nothing: looking at a message leaves no trace."""

    async def keep(self, token: bytes, address: bytes, expires: int) -> None:
        """Keep nothing."""

    async def recall(self, token: bytes) -> bytes | None:  # noqa: ARG002 - a store's signature
        """Know nothing."""
        return None


async def judge(case: Case, parsed: Parsed, kept: KeptAnswers | None) -> tuple[KeptAnswers, Judgement]:
    """Judge a message by kept answers, or by those of DNS now; gives the answers, too.

    Postfix's alias maps are asked only with those of now, and only where the recipients are known.
    """
    if kept is not None:
        return kept, await _judge_by(case, parsed, kept, None)
    expander = make_expander(parsed.config) if case.envelope.recipients else None
    try:
        async with live_answers(parsed.config.dns) as answers:
            return answers, await _judge_by(case, parsed, answers, expander)
    finally:
        if expander is not None:
            await expander.close()


async def _judge_by(
    case: Case, parsed: Parsed, answers: KeptAnswers, expander: RecipientExpander | None
) -> Judgement:
    """Have the daemon's filter judge the message; then ask SPF for its steps, from the same answers."""
    reports: list[Report] = []
    world = World(
        make_resolver=lambda: answers,
        cache=NoAnswers(),
        clock=lambda: answers.now,
        timer=time.monotonic,
        report=reports.append,
        authserv_id=case.envelope.macros[b"j"],
    )
    message = MailFilter(make_rules(parsed, expander, _Pretended()), world).begin(case.envelope)
    message.headers(case.fields)
    message.end_of_headers()
    for start in range(0, len(case.body), _CHUNK):
        message.body(case.body[start : start + _CHUNK])
    decision = message.end_of_message(case.envelope.macros)
    if not isinstance(decision, Decision):
        await decision
    (report,) = reports
    traces: dict[str, Trace] = {}
    if not report.results.spf.why_unchecked:
        mail_from, helo = Trace(), Trace()
        await check_spf(report.transaction, answers, answers.now, mail_from_trace=mail_from, helo_trace=helo)
        traces = {"MAIL FROM": mail_from, "HELO": helo}
    return Judgement(report, traces, await _trace_dmarc(report, answers))


async def _trace_dmarc(report: Report, answers: KeptAnswers) -> DmarcTrace:
    """Ask DMARC for its steps, from the same answers."""
    trace = DmarcTrace()
    if report.results.dmarc.asked:
        discovery = await discover(report.results.author.domain, answers, trace)
        await check_dmarc(report.results, discovery, answers, trace=trace)
    return trace
