"""The one line in the log of each message that the milter saw, and what is counted of it."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from srsd.daemon.log import loggable

if TYPE_CHECKING:
    from srsd.daemon.counters import Counters
    from srsd.filter.authenticate import DkimResults
    from srsd.filter.service import Report
    from srsd.filter.transaction import Transaction

_LOG = logging.getLogger(__name__)


def note_message(report: Report, counters: Counters) -> None:
    """Count a message, and write its line."""
    spf, dkim = report.results.spf, report.results.dkim
    counters.count("messages", report.transaction.origin.value)
    if spf.mail_from is not None:
        counters.count("spf_mail_from", spf.mail_from.result.value)
    if spf.helo is not None:
        counters.count("spf_helo", spf.helo.result.value)
    for signature in dkim.signatures:
        counters.count("dkim_signatures", signature.result.value)
    if report.forgeries:
        counters.count("forgeries_removed", "Authentication-Results", report.forgeries)
    signatures = report.signatures
    if signatures.values:
        counters.count("dkim_signed", "signed", len(signatures.values))
    if signatures.unverified:
        counters.count("dkim_signed", "not verified", len(signatures.unverified))
        _LOG.error(
            "%s: a signature of ours fails with our own key, so it is left out: %s; please report it",
            loggable(report.queue_id),
            "; ".join(signatures.unverified),
        )
    level = logging.WARNING if signatures.hazards else logging.INFO
    if _LOG.isEnabledFor(level):
        facts = _facts(report)
        said = ", ".join(f"{name}={value}" for name, value in facts.items() if name != "queue_id")
        _LOG.log(level, "%s: %s", facts["queue_id"] or "no queue id", said, extra={"facts": facts})


def _facts(report: Report) -> dict[str, str | int]:
    """Give what is known of a message, by name; nothing in it can end the line."""
    transaction = report.transaction
    facts: dict[str, str | int] = {
        "queue_id": loggable(report.queue_id),
        "client": _client(transaction),
        "helo": loggable(transaction.helo),
        "from": f"<{loggable(transaction.sender_path).removeprefix('<').removesuffix('>')}>",
        "origin": transaction.origin.value,
    }
    if transaction.login:
        facts["login"] = loggable(transaction.login)
    return facts | _spf_facts(report) | _dkim_facts(report.results.dkim) | _signing_facts(report)


def _client(transaction: Transaction) -> str:
    """Name the client as Postfix's log does; Postfix has the address for a name that it does not know."""
    address = f"[{transaction.client or 'no address'}]"
    name = loggable(transaction.client_name)
    return address if name == address else name + address


def _spf_facts(report: Report) -> dict[str, str | int]:
    spf = report.results.spf
    facts: dict[str, str | int] = {}
    for name, outcome in (("spf", spf.mail_from), ("spf_helo", spf.helo)):
        if outcome is not None:
            facts[name] = outcome.result.value
            facts[f"{name}_reason"] = outcome.reason
    if spf.mail_from is None and not report.transaction.origin.ours:
        facts["spf_unchecked"] = spf.why_unchecked
    return facts


def _dkim_facts(dkim: DkimResults) -> dict[str, str | int]:
    facts: dict[str, str | int] = {}
    if dkim.signatures:
        facts["dkim"] = "; ".join(
            f"{each.result.value} ({each.phrase}) d={loggable(each.domain)} s={loggable(each.selector)}"
            for each in dkim.signatures
        )
    if dkim.not_examined:
        facts["dkim_not_examined"] = dkim.not_examined
    return facts


def _signing_facts(report: Report) -> dict[str, str | int]:
    signatures = report.signatures
    facts: dict[str, str | int] = {}
    if signatures.signed_as:
        facts["signed"] = "; ".join(signatures.signed_as)
    if signatures.why:
        facts["signed_why" if signatures.signed_as else "unsigned"] = signatures.why
    if signatures.hazards:
        facts["signature_may_break"] = "; ".join(signatures.hazards)
    if report.forgeries:
        facts["forgeries_removed"] = report.forgeries
    return facts
