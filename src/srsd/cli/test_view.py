"""The report of srsctl test on a terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click
from rich.console import Console
from rich.table import Table
from rich.text import Text

from srsd.cli.results_fields import results_line

if TYPE_CHECKING:
    from collections.abc import Sequence

_TEXT_MAXIMUM = 300  # characters of one field; --json has it whole
_FIELDS_MAXIMUM = 50  # of a kind
_MINUTE, _HOUR, _DAY = 60, 3600, 86400


def show_report(report: dict[str, Any]) -> None:
    """Print a report as srsd.cli.test makes it. All texts in it are printable."""
    console = Console(highlight=False)
    click.echo(f"{report['file']}, for {report['authserv_id']} ({report['authserv_id_from']})")
    if report["hops"]:
        console.print(_hops(report["hops"]))
    if report["return_path"]:
        _show_return_path(report["return_path"])
    if report["received_spf"]:
        _title("Received-SPF")
        rows = [(_whose(each), each["result"], _cut(each["text"])) for each in report["received_spf"]]
        console.print(_grid(rows))
    if report["authentication_results"]:
        _title("Authentication-Results")
        console.print(_grid([_results_row(each) for each in report["authentication_results"]]))
    _show_spf(report["spf"], console)
    _show_dkim(report["dkim"], console)
    _show_arc(report["arc"])
    _show_dmarc(report["dmarc"], report["author"])
    if report["cross_check"]:
        _show_cross_check(report["cross_check"], console)
    if report["dns"]["file"]:
        click.echo(f"\nDNS was not asked: all answers are from {_cut(report['dns']['file'])}")
    if report["warnings"]:
        click.echo()
        for warning in report["warnings"]:
            click.echo(f"warning: {warning}")


def _title(text: str) -> None:
    click.echo(f"\n{text}")


def _cut(text: str) -> str:
    return text if len(text) <= _TEXT_MAXIMUM else text[:_TEXT_MAXIMUM] + "..."


def _grid(rows: Sequence[tuple[str, ...]]) -> Table:
    """Lay out rows in columns, whose texts are never taken for markup."""
    grid = Table.grid(padding=(0, 2))
    for row in rows[:_FIELDS_MAXIMUM]:
        grid.add_row("", *(Text(cell, overflow="fold") for cell in row))
    if len(rows) > _FIELDS_MAXIMUM:
        grid.add_row("", "...", f"and {len(rows) - _FIELDS_MAXIMUM} more")
    return grid


def _hops(hops: list[dict[str, Any]]) -> Table:
    table = Table("#", "delay", "client", "by", "believed")
    for hop in hops:
        name = hop["client_name"]
        client = f"{name}[{hop['client']}]" if hop["client"] else name
        helo = f"HELO {hop['helo']}" if hop["helo"] and hop["helo"] != name else ""
        origin = hop["origin"] or ("" if client or not hop["trusted"] else "this host")
        cells = (
            str(hop["number"]),
            _delay(hop["delay_seconds"]),
            "\n".join(_cut(each) for each in (client, helo, f"({origin})" if origin else "") if each),
            "\n".join(_cut(each) for each in (hop["by"], hop["protocol"]) if each),
            "yes" if hop["trusted"] else "no",
        )
        table.add_row(*(Text(cell, overflow="fold") for cell in cells))
    return table


def _delay(seconds: float | None) -> str:
    if seconds is None:
        return ""
    size, sign = abs(seconds), "-" if seconds < 0 else ""
    if size < _MINUTE:
        return f"{sign}{size:.0f} s"
    if size < _HOUR:
        return f"{sign}{size / _MINUTE:.0f} min"
    if size < _DAY:
        return f"{sign}{size / _HOUR:.1f} h"
    return f"{sign}{size / _DAY:.1f} days"


def _show_return_path(return_path: dict[str, Any]) -> None:
    known = {"valid": " (SRS, ours, valid)", "invalid": " (SRS, our domain, refused)"}
    _title(f"Return-Path: {_cut(return_path['text'])}{known.get(return_path['srs'], '')}")
    for line in return_path["why"]:
        click.echo(f"  {_cut(line)}")


def _whose(field: dict[str, Any]) -> str:
    return "believed" if field["trusted"] else "not believed"


def _results_row(field: dict[str, Any]) -> tuple[str, ...]:
    whose = _whose(field)
    if field["forged"]:
        whose = "FORGED"
    elif field["trusted"] and field["claims_to_be_ours"]:
        whose = "ours"
    if field["authserv_id"] is None:
        return whose, "", _cut(field["text"])
    return whose, _cut(field["authserv_id"]), _cut(results_line(field["results"]))


def _show_spf(spf: dict[str, Any], console: Console) -> None:
    if not spf["checked"]:
        _title(f"SPF was not asked: {spf['why_unchecked']}")
        return
    asked = [f"client {spf['client']} ({spf['client_from']})"]
    if spf["helo"]:
        asked.append(f"HELO {_cut(spf['helo'])} ({spf['helo_from']})")
    if spf["mail_from"] is not None:
        asked.append(f"MAIL FROM {_cut(spf['mail_from'])} ({spf['mail_from_from']})")
    _title("SPF now: " + ", ".join(asked))
    rows = [
        (each["identity"], each["result"], each["checked_domain"], each["reason"]) for each in spf["results"]
    ]
    console.print(_grid(rows))


def _show_dkim(dkim: dict[str, Any], console: Console) -> None:
    if not dkim["signatures"]:
        _title("DKIM: no signature")
        return
    _title(f"DKIM now: {dkim['passed']} of {len(dkim['signatures'])} signatures pass")
    for each in dkim["signatures"]:
        console.print(Text(f"  {each['number']}. {_signature(each)}", overflow="fold"))
        rows = [("", _cut(line)) for line in each["why"]]
        cause = each["likely_cause"]
        if cause:
            rows.append(("proved" if cause["proved"] else "likely", cause["text"]))
        if rows:
            console.print(_grid(rows))
    if dkim["not_examined"]:
        click.echo(f"  {dkim['not_examined']} more signatures are not looked at")


def _show_arc(arc: dict[str, Any]) -> None:
    if arc["result"] in {"none", ""}:
        return
    _title(f"ARC now: {arc['result']}: {arc['reason']}")
    for each in arc["sets"]:
        click.echo(f"  set {each['instance']}, sealed by {_cut(each['domain'])}: {_cut(each['results'])}")


def _show_dmarc(dmarc: dict[str, Any], author: dict[str, str]) -> None:
    if dmarc["result"]:
        policy = f", policy {dmarc['policy']} at {_cut(dmarc['record_domain'])}" if dmarc["policy"] else ""
        _title(f"DMARC now, of {_cut(author['domain'])}: {dmarc['result']}: {dmarc['reason']}{policy}")
    else:
        _title(f"DMARC now: nothing can be said: {dmarc['why_unchecked']}")
    if dmarc["local_policy"]:
        click.echo(f"  local policy: the trusted sealer {_cut(dmarc['local_policy'])} saw it pass")


def _signature(signature: dict[str, Any]) -> str:
    words = [f"{signature['result']}: {signature['reason']}:"]
    words += [
        f"{tag}={_cut(signature[name])}"
        for tag, name in (("d", "domain"), ("s", "selector"), ("a", "algorithm"), ("c", "canonicalization"))
        if signature[name]
    ]
    if signature["key_bits"] and signature["algorithm"].startswith("rsa"):
        words.append(f"({signature['key_bits']} bits)")
    if signature["testing"]:
        words.append("(t=y: for tests only)")
    return " ".join(words)


def _show_cross_check(across: dict[str, Any], console: Console) -> None:
    if across["failure"]:
        _title(f"Cross-check failed: {across['failure']}")
        return
    _title(f"Cross-check: {across['disagreements'] or 'no'} disagreements in {len(across['comparisons'])}")
    rows = []
    for each in across["comparisons"]:
        word = "agree" if each["agree"] else "DISAGREE"
        ours, theirs = f"ours {each['ours']}", f"{each['who']} {each['theirs'] or 'not asked'}"
        if not each["agree"]:
            ours += f" ({each['our_reason']})"
        if each["their_reason"] and (not each["agree"] or each["theirs"] is None):
            theirs += f" ({_cut(each['their_reason'])})"
        rows.append((word, _cut(each["of"]), ours, theirs))
    console.print(_grid(rows))
