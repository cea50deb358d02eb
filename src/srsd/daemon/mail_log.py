"""The one line in the log of each message that the milter saw, and what is counted of it."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, TypeAlias

from srsd.arc.result import ChainStatus
from srsd.daemon.log import loggable
from srsd.filter.verdict import BUDGET_SPENT

if TYPE_CHECKING:
    from srsd.daemon.counters import Counters
    from srsd.filter.authenticate import DkimResults
    from srsd.filter.author import Author
    from srsd.filter.forwarding import Rewriting
    from srsd.filter.report import Report, Timings
    from srsd.filter.verdict import Verdict
    from srsd.resolving import IpAddress

Facts: TypeAlias = dict[str, str | int]
_LOG = logging.getLogger(__name__)


def note_message(report: Report, counters: Counters) -> None:
    """Count a message, and write its line."""
    _count(report, counters)
    signatures = report.signatures
    if signatures.unverified:
        _LOG.error(
            "%s: a signature of ours fails with our own key, so it is left out: %s; please report it",
            loggable(report.queue_id),
            "; ".join(signatures.unverified),
        )
    if report.verdict.why_not == BUDGET_SPENT:
        _LOG.warning(
            "%s: accepted with temperror: DNS has failed for policy.defer_budget messages in a row (%s); "
            "see whether the name servers answer",
            loggable(report.queue_id),
            report.verdict.finding.text if report.verdict.finding else "",
        )
    level = logging.WARNING if signatures.hazards or report.rewriting.expansion.problem else logging.INFO
    if _LOG.isEnabledFor(level):
        facts = _facts(report)
        said = spelt({name: value for name, value in facts.items() if name != "queue_id"})
        _LOG.log(level, "%s: %s", facts["queue_id"] or "no queue id", said, extra={"facts": facts})


def spelt(facts: Facts) -> str:
    """Spell facts for a line of text."""
    return ", ".join([f"{name}={value}" for name, value in facts.items()])


def _count(report: Report, counters: Counters) -> None:
    spf, dkim = report.results.spf, report.results.dkim
    counters.count("messages", report.transaction.origin)
    if spf.mail_from is not None:
        counters.count("spf_mail_from", spf.mail_from.result)
    if spf.helo is not None:
        counters.count("spf_helo", spf.helo.result)
    for signature in dkim.signatures:
        counters.count("dkim_signatures", signature.result)
    if report.forgeries:
        counters.count("forgeries_removed", "Authentication-Results", report.forgeries)
    signatures = report.signatures
    if signatures.values:
        counters.count("dkim_signed", "signed", len(signatures.values))
    if signatures.unverified:
        counters.count("dkim_signed", "not verified", len(signatures.unverified))
    _count_dmarc_and_arc(report, counters)
    _count_verdict(report.verdict, counters)
    rewriting = report.rewriting
    if rewriting.why:
        counters.count("srs_milter", "rewritten" if rewriting.new else rewriting.why)
    if rewriting.expansion.problem:
        counters.count("srs_expansion_failed", rewriting.why)


def _count_dmarc_and_arc(report: Report, counters: Counters) -> None:
    dmarc, chain = report.results.dmarc.outcome, report.results.arc.chain
    if dmarc is not None:
        counters.count("dmarc", dmarc.result)
    if chain is not None and chain.status is not ChainStatus.NONE:
        counters.count("arc", chain.status)
    if report.seal.fields:
        counters.count("arc_sealed", "sealed")
    elif report.seal.why_not:
        counters.count("arc_sealed", report.seal.why_not)


def _count_verdict(verdict: Verdict, counters: Counters) -> None:
    counters.count("verdicts", verdict.action.word)
    if verdict.finding is None:
        return
    counters.count("verdicts_by", verdict.finding.key)
    if verdict.wanted is not verdict.action:
        counters.count("verdicts_shadow", verdict.wanted.word)
    if verdict.why_not == BUDGET_SPENT:
        counters.count("defer_budget_spent", "DNS")


def _facts(report: Report) -> Facts:
    """Give what is known of a message, by name; nothing in it can end the line."""
    transaction = report.transaction
    facts: Facts = {
        "queue_id": loggable(report.queue_id),
        "client": client_name(transaction.client, transaction.client_name),
        "helo": loggable(transaction.helo),
        "from": path_name(transaction.sender_path),
        "origin": transaction.origin.value,
    }
    if transaction.login:
        facts["login"] = loggable(transaction.login)
    facts |= _author_facts(report.results.author)
    facts |= _spf_facts(report)
    facts |= _dkim_facts(report.results.dkim)
    facts |= _arc_facts(report)
    facts |= _dmarc_facts(report)
    facts |= _signing_facts(report)
    facts |= _rewriting_facts(report.rewriting)
    facts |= _verdict_facts(report.verdict)
    return facts | _timing_facts(report.timings)


def client_name(client: IpAddress | None, name: bytes) -> str:
    """Name a client as Postfix's log does; Postfix has the address for a name that it does not know."""
    address = f"[{client or 'no address'}]"
    shown = loggable(name)
    return address if shown == address else shown + address


def path_name(path: bytes) -> str:
    """Name a reverse-path or forward-path in angle brackets, whether the MTA gave them or not."""
    return f"<{loggable(path).removeprefix('<').removesuffix('>')}>"


def _spf_facts(report: Report) -> Facts:
    spf = report.results.spf
    facts: Facts = {}
    for name, outcome in (("spf", spf.mail_from), ("spf_helo", spf.helo)):
        if outcome is not None:
            facts[name] = outcome.result.value
            facts[f"{name}_reason"] = outcome.reason
    if spf.mail_from is None and not report.transaction.origin.ours:
        facts["spf_unchecked"] = spf.why_unchecked
    return facts


def _dkim_facts(dkim: DkimResults) -> Facts:
    facts: Facts = {}
    if dkim.signatures:
        facts["dkim"] = "; ".join(
            f"{each.result.value} ({each.phrase}) d={loggable(each.domain)} s={loggable(each.selector)}"
            for each in dkim.signatures
        )
    if dkim.not_examined:
        facts["dkim_not_examined"] = dkim.not_examined
    return facts


def _author_facts(author: Author) -> Facts:
    """Name the author as From does; what is wrong with From stands for one."""
    if author.address is not None:
        return {"author": f"<{loggable(bytes(author.address))}>"}
    return {"author_problem": author.problem}


def _arc_facts(report: Report) -> Facts:
    facts: Facts = {}
    chain, seal = report.results.arc.chain, report.seal
    if chain is not None and chain.status is not ChainStatus.NONE:
        facts["arc"] = chain.status.value
        facts["arc_reason"] = chain.phrase
        facts["arc_sealers"] = " ".join([loggable(each.domain) for each in chain.sets])
    if seal.sealed_as:
        facts["sealed"] = seal.sealed_as
    elif seal.why_not:
        facts["unsealed"] = seal.why_not
    return facts


def _dmarc_facts(report: Report) -> Facts:
    dmarc = report.results.dmarc
    outcome = dmarc.outcome
    if outcome is None:
        return {} if report.transaction.origin.ours else {"dmarc_unchecked": dmarc.why_unchecked}
    facts: Facts = {"dmarc": outcome.result.value, "dmarc_reason": outcome.reason}
    if outcome.policy is not None:
        facts["dmarc_policy"] = outcome.policy.value
        facts["dmarc_record"] = loggable(outcome.record_domain)
    if dmarc.vouched_by:
        facts["dmarc_local_policy"] = f"trusted sealer {loggable(dmarc.vouched_by)}"
    return facts


def _rewriting_facts(rewriting: Rewriting) -> Facts:
    """Say whether the sender was rewritten, and why."""
    if not rewriting.why:
        return {}
    facts: Facts = {"srs": "rewritten" if rewriting.new else "left as it is", "srs_why": rewriting.why}
    if rewriting.new:
        facts["srs_sender"] = f"<{loggable(rewriting.new)}>"
    expansion = rewriting.expansion
    if expansion.leaves:
        facts["srs_leaves"] = f"<{loggable(expansion.leaves)}>"
        facts["srs_recipient"] = path_name(expansion.recipient)
    if rewriting.spf:
        facts["srs_spf"] = rewriting.spf
    if expansion.problem:
        facts["srs_problem"] = expansion.problem
    return facts


def _verdict_facts(verdict: Verdict) -> Facts:
    facts: Facts = {"verdict": verdict.action.word}
    if verdict.finding is not None:
        facts["verdict_by"] = verdict.finding.key
        facts["verdict_reason"] = verdict.finding.text
        if verdict.why_not:
            facts["shadow_verdict"] = verdict.wanted.word
            facts["verdict_why_not"] = verdict.why_not
    return facts


def _timing_facts(timings: Timings) -> Facts:
    facts: Facts = {"seconds": f"{timings.seconds:.3f}"}
    if timings.dns_queries:
        facts["dns_queries"] = timings.dns_queries
        facts["dns_seconds"] = f"{timings.dns_seconds:.3f}"
    return facts


def _signing_facts(report: Report) -> Facts:
    signatures = report.signatures
    facts: Facts = {}
    if signatures.signed_as:
        facts["signed"] = "; ".join(signatures.signed_as)
    if signatures.why:
        facts["signed_why" if signatures.signed_as else "unsigned"] = signatures.why
    if signatures.hazards:
        facts["signature_may_break"] = "; ".join(signatures.hazards)
    if report.forgeries:
        facts["forgeries_removed"] = report.forgeries
    return facts
