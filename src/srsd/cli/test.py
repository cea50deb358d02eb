"""srsctl test: what a message says of its way and its sender, and what SPF, DKIM, ARC and DMARC say now."""

from __future__ import annotations

import asyncio
import sys
from typing import TYPE_CHECKING, Any

import click

from srsd.cli.common import NO, as_json, load_config, print_json
from srsd.cli.cross_check import cross_check, require_packages
from srsd.cli.dmarc_now import check_dmarc_now
from srsd.cli.dmarc_report import describe_arc, describe_author, describe_dmarc
from srsd.cli.dns_file import ZoneAnswers, answers_of, read_dns_file
from srsd.cli.hops import find_way
from srsd.cli.mail import (
    Mail,
    authserv_id_of,
    client_ip_option,
    helo_option,
    mail_from_option,
    one_line,
    read_mail,
    shown_path,
)
from srsd.cli.results_fields import describe_field
from srsd.cli.return_path import find_return_path
from srsd.cli.signatures import check_signatures
from srsd.cli.spf_now import Given, check_now, field_of, find_sender, unless_authenticated
from srsd.cli.test_view import show_report
from srsd.daemon.log import printable
from srsd.dmarc.outcome import DmarcResult
from srsd.filter.origin import Origin, Origins
from srsd.spf.outcome import SpfResult
from srsd.syntax.domain import fold_domain
from srsd.syntax.header import unfold
from srsd.syntax.network import NetworkSet

if TYPE_CHECKING:
    from collections.abc import Iterator

    from srsd.cli.dns_answers import KeptAnswers
    from srsd.cli.hops import Way
    from srsd.cli.return_path import ReturnPath
    from srsd.cli.spf_now import Sender
    from srsd.config import Config
    from srsd.resolving import IpAddress

_PRIVATE = NetworkSet(
    (
        *("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10", "169.254.0.0/16"),
        *("fc00::/7", "fe80::/10"),
    )
)
_NO = {
    "MAIL FROM": {each.value for each in (SpfResult.FAIL, SpfResult.SOFTFAIL, SpfResult.PERMERROR)},
    "HELO": {SpfResult.FAIL.value},
}


@click.command("test", epilog="Example: srsctl test message.eml")
@click.argument("file", default="", metavar="[FILE|-]")
@client_ip_option
@helo_option
@mail_from_option
@click.option("--authserv-id", metavar="NAME", help="Our name, for milter.authserv_id or myhostname.")
@click.option("--dns-file", metavar="FILE", help="Take the answers of DNS from FILE, and ask nobody.")
@click.option("--cross-check", "check_across", is_flag=True, help="Ask dkimpy and pyspf too.")
@as_json
@click.pass_obj
def test_command(  # noqa: PLR0913, PLR0917 - the options
    config_path: str,
    file: str,
    client_ip: IpAddress | None,
    helo: str | None,
    mail_from: str | None,
    authserv_id: str | None,
    dns_file: str | None,
    check_across: bool,
    as_json: bool,
) -> None:
    """Examine a message: its hops, the results in its header, its SRS sender; SPF, DKIM, ARC, DMARC now.

    FILE is a message as it was delivered, "-" standard input. It may be left out when --client-ip,
    --helo and --mail-from say what SPF is to be asked; otherwise the message does.

    The top Received field is believed, and so is each one below a field whose client is in
    milter.internal_networks or milter.trusted_relays. SPF is asked about the client from outside that
    the lowest of these names, and about Return-Path, reversed if srsd has rewritten it.

    Every DKIM signature is verified. Of one that fails, the usual changes on the way are undone one by
    one, and some together, until it verifies: what was changed is proved then.

    The ARC chain is validated, and DMARC is evaluated for the author domain by what SPF and DKIM say. A
    message that was changed on the way, as mailing lists do, may have passed when it came.

    --dns-file takes lines NAME TXT "..." as srsctl dkim record prints them, which stand for all of DNS, or
    what srsctl explain --record wrote.

    --cross-check shows what dkimpy and pyspf make of the same message and the same answers of DNS.

    Exits 1 when SPF of MAIL FROM is fail, softfail or permerror, when SPF of HELO is fail, when there are
    DKIM signatures and none passes, when DMARC fails, when Authentication-Results are forged in our name,
    when --cross-check finds a disagreement, or when there is no message to examine.
    """
    if check_across:
        require_packages()
    config = load_config(config_path)
    given = Given(client_ip, helo, mail_from)
    name, name_from = (authserv_id, "--authserv-id") if authserv_id else authserv_id_of(config)
    kept = None if dns_file is None else read_dns_file(dns_file)
    mail = _read(file, given)
    ours = fold_domain(name.encode(errors="surrogateescape")) or b""
    way = find_way(mail, Origins(config.milter))
    return_path = find_return_path(mail, way, config, config_path)
    sender = unless_authenticated(find_sender(given, way.entrance, return_path), way.entrance)
    report: dict[str, Any] = {
        "file": mail.name,
        "authserv_id": printable(ours),
        "authserv_id_from": name_from,
        "hops": [hop.as_dict() for hop in way.hops],
        "return_path": return_path.as_dict() if return_path else None,
        "received_spf": _received_spf(mail, way),
        "authentication_results": _authentication_results(mail, way, ours),
        "warnings": mail.notes,
    }
    asyncio.run(_check(report, ours, mail, sender, config, kept, check_across=check_across))
    report["dns"] = {"file": None if dns_file is None else shown_path(dns_file)}
    if kept is not None:
        report["warnings"] += _warnings_of_dns_file(kept, report["dns"]["file"])
    if mail.fields:
        report["warnings"] += _warnings_of_way(way, ours)
    report["warnings"] += _warnings_of_results(report, way, return_path)
    report["good"] = good = not _answers_no(report)
    if as_json:
        print_json(report)
    else:
        show_report(report)
    sys.exit(0 if good else NO)


async def _check(  # noqa: PLR0913, PLR0917 - what a message is checked by
    report: dict[str, Any],
    ours: bytes,
    mail: Mail,
    sender: Sender | str,
    config: Config,
    kept: KeptAnswers | None,
    *,
    check_across: bool,
) -> None:
    """Add what DNS is asked for: by kept answers, or now."""
    async with answers_of(kept, config.dns) as answers:
        spf, report["spf"] = await check_now(sender, config, ours, answers)
        signatures, report["dkim"] = await check_signatures(mail, config, answers)
        now = await check_dmarc_now(mail, spf, signatures, config, answers)
        report["author"] = describe_author(now.author)
        report["arc"] = describe_arc(now.arc)
        report["dmarc"] = describe_dmarc(now.dmarc, now.trace)
        report["cross_check"] = await cross_check(mail, report, sender, answers) if check_across else None


def _warnings_of_dns_file(kept: KeptAnswers, name: str) -> Iterator[str]:
    """Say what the file does not have: SPF and DKIM were judged without it."""
    missing = [printable(each.encode("latin-1")) for each in kept.missing]
    if isinstance(kept, ZoneAnswers):
        # Most domains have no DMARC record, and those above them have none.
        without = [each for each in dict.fromkeys(kept.without) if not each.startswith("_dmarc.")]
        missing += [f"TXT {printable(each.encode('latin-1'))}" for each in without]
    for each in missing:
        yield f"{name} has no answer for {each}"


def _read(file: str, given: Given) -> Mail:
    """Read the message; none is needed where the command line says whom to ask about."""
    if not file and sys.stdin.isatty():
        if given.client is None:
            raise click.UsageError("give FILE, or a message on standard input, or --client-ip")
        return Mail("no message", [], b"", [])
    return read_mail(file or "-", may_be_empty=given.client is not None)


def _received_spf(mail: Mail, way: Way) -> list[dict[str, Any]]:
    return [
        {
            "result": printable(unfold(value).partition(b" ")[0].lower()),
            "trusted": place < way.boundary,
            "text": one_line(value),
        }
        for place, value in mail.values(b"received-spf")
    ]


def _authentication_results(mail: Mail, way: Way, ours: bytes) -> list[dict[str, Any]]:
    """Describe each field, from the top. What claims to be ours below what can be believed is forged."""
    fields = []
    for place, value in mail.values(b"authentication-results"):
        field = describe_field(value, ours)
        field["trusted"] = place < way.boundary
        field["forged"] = field["claims_to_be_ours"] and not field["trusted"]
        fields.append(field)
    return fields


def _warnings_of_way(way: Way, ours: bytes) -> Iterator[str]:
    if not way.hops:
        yield "there is no Received field: nobody has delivered this message, nothing in it can be believed"
        return
    top, entrance = way.hops[0].received, way.entrance
    if top.by and fold_domain(top.by) != ours:
        yield (
            f"the top Received field was written by {printable(top.by)}, and we are {printable(ours)}: "
            "it is believed all the same"
        )
    if way.left_out:
        yield f"{way.left_out} more Received fields were not looked at"
    if entrance is not None and entrance.origin is Origin.OUTSIDE:
        client = entrance.received.client
        if client in _PRIVATE:
            yield (
                f"{client} in {field_of(entrance)} is a private address: if it is a host of yours, "
                "it belongs in milter.internal_networks or milter.trusted_relays"
            )


def _warnings_of_results(report: dict[str, Any], way: Way, return_path: ReturnPath | None) -> Iterator[str]:
    fields = report["authentication_results"]
    forged = sum(field["forged"] for field in fields)
    if forged:
        yield (
            f"{forged} Authentication-Results below the Received fields that can be believed could be taken "
            "for ours: forged, or from before srsd; the milter removes such"
        )
    ours = [number for number, field in enumerate(fields) if field["trusted"] and field["claims_to_be_ours"]]
    if ours and ours[0] > 0:
        yield "Authentication-Results of ours are not on top: another program adds its own above them"
    if len(ours) > 1:
        yield f"there are {len(ours)} Authentication-Results of ours: does a content filter bring it again?"
    if not ours and way.entrance is not None and way.entrance.origin is Origin.OUTSIDE:
        yield "there are no Authentication-Results of ours: the message has not passed srsd's milter"
    if return_path is not None and not return_path.trusted:
        yield "Return-Path stands below what can be believed, so it is not taken for MAIL FROM"
    if report["spf"]["checked"] and report["spf"]["mail_from"] is None:
        yield "MAIL FROM is not known, so SPF was asked about HELO alone; --mail-from names one"


def _answers_no(report: dict[str, Any]) -> bool:
    """Tell whether the exit status is 1."""
    across = report["cross_check"]
    return (
        any(field["forged"] for field in report["authentication_results"])
        or any(each["result"] in _NO[each["identity"]] for each in report["spf"]["results"])
        or (bool(report["dkim"]["signatures"]) and not report["dkim"]["passed"])
        or report["dmarc"]["result"] == DmarcResult.FAIL.value
        or (across is not None and bool(across["disagreements"] or across["failure"]))
    )
