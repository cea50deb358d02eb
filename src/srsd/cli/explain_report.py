"""The report of srsctl explain, as for JSON: every text in it is printable."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from srsd.authres import is_authentication_results
from srsd.cli.dmarc_report import describe_arc, describe_author, describe_dmarc
from srsd.cli.mail import one_line
from srsd.cli.results_fields import describe_field
from srsd.cli.spf_now import describe_outcome
from srsd.daemon.log import printable
from srsd.exclusion import Skip
from srsd.filter.origin import Origin
from srsd.syntax.domain import fold_domain
from srsd.syntax.network import NetworkSet
from srsd.wire.milter import ChangeHeader, InsertHeader, ReplyCode

if TYPE_CHECKING:
    from collections.abc import Iterator

    from srsd.cli.judging import Case, Judgement
    from srsd.config import Config
    from srsd.daemon.files import Parsed
    from srsd.exclusion import ExclusionMap
    from srsd.filter.report import Report
    from srsd.filter.transaction import Transaction
    from srsd.filter.verdict import Verdict
    from srsd.resolving import IpAddress
    from srsd.syntax.header import HeaderField
    from srsd.wire.milter import Verdict as MilterVerdict
    from srsd.wire.milter_session import Decision

UNKNOWN_RECIPIENTS = "who it was sent to is not known, or not asked with --replay; --recipient names them"
_REVERSE_PATH_SKIPS = {Skip.SRS, Skip.SPF}


def describe(case: Case, judgement: Judgement, parsed: Parsed) -> dict[str, Any]:
    """Describe what the filter was told, what it makes of that, and why."""
    report = judgement.report
    transaction = report.transaction
    removed, added = _changes(case.fields, report.decision)
    return {
        "authserv_id": printable(transaction.authserv_id),
        "queue_id": printable(report.queue_id),
        "client": str(transaction.client),
        "client_name": printable(transaction.client_name),
        "helo": printable(transaction.helo),
        "mail_from": printable(transaction.sender_path),
        "origin": transaction.origin.value,
        "origin_why": _why_origin(case, transaction, parsed.config),
        "exclusions": [*_exclusions(transaction, parsed.exclusions)],
        "authentication_results": [*_authentication_results(case.fields, removed, transaction)],
        "spf": _spf(judgement),
        "author": describe_author(report.results.author),
        "dkim": _dkim(report),
        "arc": describe_arc(report.results.arc),
        "dmarc": describe_dmarc(report.results.dmarc, judgement.dmarc),
        "signing": _signing(report),
        "sealing": {"sealed_as": report.seal.sealed_as, "why_not": report.seal.why_not},
        "srs": _srs(report, parsed.config),
        **_verdict(report.verdict),
        "header_fields_added": [
            {"name": printable(field.name), "value": one_line(field.value), "lines": _lines(field)}
            for field in added
        ],
    }


def _changes(fields: list[HeaderField], decision: Decision) -> tuple[set[int], list[InsertHeader]]:
    """Make the modifications as the MTA does: the places of fields that go, and the new ones from the top."""
    places: dict[bytes, list[int]] = {}
    for place, field in enumerate(fields):
        places.setdefault(field.name.rstrip().lower(), []).append(place)
    removed = set()
    added: list[InsertHeader] = []
    for change in decision.modifications:  # deletions come first
        if isinstance(change, ChangeHeader) and not change.value:
            removed.add(places[change.name.lower()].pop(change.position - 1))
        elif isinstance(change, InsertHeader):
            added.insert(change.position, change)
    return removed, added


def _lines(field: InsertHeader) -> list[str]:
    lines = (field.name + b":" + field.value).split(b"\n")
    return [printable(line.replace(b"\t", b"    ")) for line in lines]


def _why_origin(case: Case, transaction: Transaction, config: Config) -> str:
    client, daemon_name = transaction.client, case.envelope.macros[b"daemon_name"]
    match transaction.origin:
        case Origin.AUTHENTICATED:
            return f"the client has authenticated: {printable(transaction.login)}"
        case Origin.ORIGINATING:
            return f"the daemon name {printable(daemon_name)} is in milter.originating"
        case Origin.INTERNAL:
            return f"{client} is in {_network(client, config.milter.internal_networks)}, in internal_networks"
        case Origin.TRUSTED_RELAY:
            return f"{client} is in {_network(client, config.milter.trusted_relays)}, in trusted_relays"
        case _:
            return "no login, no daemon name and no network makes it ours"


def _network(client: IpAddress | None, networks: tuple[str, ...]) -> str:
    return next(network for network in networks if client in NetworkSet([network]))


def _exclusions(transaction: Transaction, exclusions: ExclusionMap) -> Iterator[dict[str, Any]]:
    """Give what the exclusion map has for the client, and for MAIL FROM."""
    if transaction.client is not None:
        skips = exclusions.for_client(transaction.client)
        if skips:
            yield {"of": f"client {transaction.client}", "skips": sorted(skip.value for skip in skips)}
    sender = transaction.sender
    if sender is not None:
        skips = exclusions.for_address(sender.local_part, fold_domain(sender.domain)) & _REVERSE_PATH_SKIPS
        if skips:
            of = f"MAIL FROM {printable(bytes(sender))}"
            yield {"of": of, "skips": sorted(skip.value for skip in skips)}


def _authentication_results(
    fields: list[HeaderField], removed: set[int], transaction: Transaction
) -> Iterator[dict[str, Any]]:
    """Describe what came with the message, from the top."""
    ours = fold_domain(transaction.authserv_id) or transaction.authserv_id
    for place, field in enumerate(fields):
        if is_authentication_results(field.name):
            yield {"removed": place in removed, **describe_field(field.value, ours)}


def _spf(judgement: Judgement) -> dict[str, Any]:
    spf = judgement.report.results.spf
    identities = []
    for identity, outcome in (("MAIL FROM", spf.mail_from), ("HELO", spf.helo)):
        if outcome is not None:
            steps = judgement.traces[identity].as_dicts()
            identities.append({**describe_outcome(identity, outcome), "steps": steps})
    return {"checked": bool(identities), "why_unchecked": spf.why_unchecked, "results": identities}


def _dkim(report: Report) -> dict[str, Any]:
    dkim = report.results.dkim
    return {
        "why_unchecked": dkim.why_unchecked,
        "not_examined": dkim.not_examined,
        "signatures": [
            {
                "result": signature.result.value,
                "reason": signature.phrase,
                "domain": printable(signature.domain),
                "selector": printable(signature.selector),
            }
            for signature in dkim.signatures
        ],
    }


def _signing(report: Report) -> dict[str, Any]:
    signatures = report.signatures
    return {
        "signed_as": list(signatures.signed_as),
        "why": signatures.why,
        "hazards": list(signatures.hazards),
        "unverified": list(signatures.unverified),
    }


def _srs(report: Report, config: Config) -> dict[str, Any]:
    """Describe what SRS in the milter does with the sender."""
    rewriting = report.rewriting
    expansion = rewriting.expansion
    unknown = UNKNOWN_RECIPIENTS if config.srs.mode == "milter" else ""
    return {
        "rewritten_to": printable(rewriting.new),
        "why": rewriting.why or unknown,
        "leaves": printable(expansion.leaves),
        "steps": list(expansion.steps),
        "problem": expansion.problem,
        "spf": rewriting.spf,
    }


def _verdict(verdict: Verdict) -> dict[str, str]:
    finding = verdict.finding
    return {
        "verdict": verdict.action.word,
        "verdict_by": finding.key if finding is not None else "",
        "verdict_reason": finding.text if finding is not None else "",
        "shadow_verdict": verdict.wanted.word if verdict.why_not else "",
        "verdict_why_not": verdict.why_not,
        "reply": _reply(verdict.reply()),
    }


def _reply(reply: MilterVerdict) -> str:
    if not isinstance(reply, ReplyCode):
        return ""
    return f"{reply.code} {reply.enhanced.decode()} {reply.text.decode()}"
