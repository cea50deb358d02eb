"""The report of srsctl explain on a terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from srsd.cli.dmarc_report import arc_lines, dmarc_lines

if TYPE_CHECKING:
    from collections.abc import Iterator

    from srsd.dmarc.trace import Trace

_TEXT_MAXIMUM = 300  # characters of one text of a stranger; --json has it whole


_FIELDS_MAXIMUM = 50  # of a kind


def show_report(report: dict[str, Any], traces: dict[str, list[str]], dmarc: Trace) -> None:
    """Print a report as srsd.cli.explain makes it, and the steps of SPF and DMARC.

    All texts in them are printable.
    """
    for line in _lines(report, traces, dmarc):
        click.echo(line)


def _lines(report: dict[str, Any], traces: dict[str, list[str]], dmarc: Trace) -> Iterator[str]:
    yield f"{_cut(report['file'])}, as {report['authserv_id']} ({report['authserv_id_from']}) judges it now"
    yield from _message(report)
    yield ""
    yield from _authentication_results(report["authentication_results"])
    yield ""
    yield from _spf(report["spf"], traces)
    yield ""
    yield from _dkim(report["dkim"])
    yield from arc_lines(report["arc"])
    yield ""
    yield from dmarc_lines(report["dmarc"], report["author"], dmarc)
    yield from _signing(report["signing"])
    yield from _sealing(report["sealing"])
    yield from _srs(report["srs"])
    yield ""
    yield from _verdict(report)
    fields = report["header_fields_added"]
    yield "Header fields that are added, from the top:" if fields else "No header field is added."
    for field in fields:
        yield from (f"  {line}" for line in field["lines"])
    if report["dns"]["questions"]:
        source = "from the file" if report["dns"]["replayed"] else "asked now"
        yield f"\nDNS: {report['dns']['questions']} questions, {source}"
    for warning in report["warnings"]:
        yield f"warning: {_cut(warning)}"


def _message(report: dict[str, Any]) -> Iterator[str]:
    client = f"{_cut(report['client_name'])}[{report['client']}]"
    yield f"  client      {client} ({report['client_from']})"
    yield f"  HELO        {_cut(report['helo'])}"
    yield f"  MAIL FROM   {_cut(report['mail_from'])} ({report['mail_from_from']})"
    yield f"  origin      {report['origin']}: {_cut(report['origin_why'])}"
    if report["left_out"]:
        yield f"  left out    {report['left_out']} header fields at the top, which came after the milter"
    for each in report["exclusions"]:
        yield f"  excluded    {_cut(each['of'])}: {', '.join(each['skips'])}"


def _authentication_results(fields: list[dict[str, Any]]) -> Iterator[str]:
    if not fields:
        yield "No Authentication-Results came with it."
        return
    yield "Authentication-Results that came with it:"
    for field in fields[:_FIELDS_MAXIMUM]:
        yield f"  {'removed' if field['removed'] else 'stays'}: {field['why']}: {_cut(field['text'])}"
    if len(fields) > _FIELDS_MAXIMUM:
        removed = sum(field["removed"] for field in fields)
        yield f"  and {len(fields) - _FIELDS_MAXIMUM} more; {removed} of all are removed"


def _spf(spf: dict[str, Any], traces: dict[str, list[str]]) -> Iterator[str]:
    if not spf["checked"]:
        yield f"SPF is not checked: {spf['why_unchecked']}"
    for each in spf["results"]:
        yield f"SPF of {each['identity']}: {each['result']}: {each['reason']}"
        yield from (f"  {line}" for line in traces[each["identity"]])


def _dkim(dkim: dict[str, Any]) -> Iterator[str]:
    if dkim["why_unchecked"]:
        yield f"DKIM is not checked: {dkim['why_unchecked']}"
    elif not dkim["signatures"]:
        yield "DKIM: no signature"
    for each in dkim["signatures"]:
        yield f"DKIM: {each['result']}: {each['reason']}: d={_cut(each['domain'])} s={_cut(each['selector'])}"
    if dkim["not_examined"]:
        yield f"DKIM: {dkim['not_examined']} more signatures are not looked at"


def _sealing(sealing: dict[str, str]) -> Iterator[str]:
    if sealing["sealed_as"]:
        yield f"Sealed: {sealing['sealed_as']}"
    elif sealing["why_not"]:
        yield f"Not sealed: {_cut(sealing['why_not'])}"


def _srs(srs: dict[str, Any]) -> Iterator[str]:
    if not srs["why"]:  # the milter leaves senders alone
        return
    if srs["rewritten_to"]:
        yield f"Sender rewritten to {_cut(srs['rewritten_to'])}: {srs['why']}"
    else:
        yield f"Sender not rewritten: {srs['why']}"
    if srs["problem"]:
        yield f"  {_cut(srs['problem'])}"
    yield from (f"  {_cut(step)}" for step in srs["steps"])
    if srs["spf"]:
        yield f"  SPF, were it sent on as it is: {srs['spf']}"


def _verdict(report: dict[str, Any]) -> Iterator[str]:
    if not report["verdict_by"]:
        yield f"Verdict: {report['verdict']}"
        return
    yield f"Verdict: {report['verdict']}: policy.{report['verdict_by']}: {report['verdict_reason']}"
    if report["verdict_why_not"]:
        yield f"  it would be {report['shadow_verdict']}, but for this: {report['verdict_why_not']}"
    if report["reply"]:
        yield f"  the client is told: {report['reply']}"


def _signing(signing: dict[str, Any]) -> Iterator[str]:
    if signing["why"] and not signing["signed_as"]:
        yield f"Not signed: {_cut(signing['why'])}"
    for each in signing["signed_as"]:
        yield f"Signed: {_cut(each)}: {_cut(signing['why'])}"
    for each in signing["hazards"]:
        yield f"  may break on the way: {_cut(each)}"
    for each in signing["unverified"]:
        yield f"  failed with our own key, and is not added: {_cut(each)}"


def _cut(text: str) -> str:
    return text if len(text) <= _TEXT_MAXIMUM else text[:_TEXT_MAXIMUM] + "..."
