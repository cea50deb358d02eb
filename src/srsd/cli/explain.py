"""srsctl explain: a message judged again by the milter's own filter, with its reasons."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import click

from srsd.cli.common import argument_octets, as_json, load_files, print_json
from srsd.cli.dns_answers import KeptAnswers
from srsd.cli.explain_report import describe
from srsd.cli.explain_view import show_report
from srsd.cli.hops import Hop, Way, find_way
from srsd.cli.judging import Case, judge
from srsd.cli.mail import (
    authserv_id_of,
    client_ip_option,
    exit_no,
    helo_option,
    mail_from_option,
    make_envelope,
    read_mail,
    reverse_path,
    shown_path,
)
from srsd.cli.return_path import find_return_path
from srsd.cli.spf_now import Given, find_sender
from srsd.filter.origin import Origins
from srsd.syntax.header import unfold

if TYPE_CHECKING:
    from srsd.cli.mail import Mail
    from srsd.resolving import IpAddress


@click.command(
    "explain",
    epilog="Example: srsctl explain message.eml --client-ip 192.0.2.1 --mail-from alice@example.com",
)
@click.argument("file", metavar="FILE")
@client_ip_option
@helo_option
@mail_from_option
@click.option(
    "--recipient",
    "recipients",
    metavar="ADDRESS",
    multiple=True,
    help="Who it was sent to, for SRS in the milter; several times for several.",
)
@click.option("--client-name", metavar="NAME", help="The client's name in DNS, for that in Received.")
@click.option("--login", metavar="USER", default="", help="The client has authenticated as USER.")
@click.option("--daemon-name", metavar="NAME", default="", help="The macro {daemon_name}, as ORIGINATING.")
@click.option("--whole", is_flag=True, help="Take the whole header for what the client sent.")
@click.option("--record", metavar="FILE", help="Write the answers of DNS to FILE.")
@click.option("--replay", metavar="FILE", help="Take the answers of DNS from FILE, and ask nobody.")
@as_json
@click.pass_obj
def explain_command(  # noqa: PLR0913, PLR0917 - the options
    config_path: str,
    file: str,
    client_ip: IpAddress | None,
    helo: str | None,
    mail_from: str | None,
    recipients: tuple[str, ...],
    client_name: str | None,
    login: str,
    daemon_name: str,
    whole: bool,
    record: str | None,
    replay: str | None,
    as_json: bool,
) -> None:
    """Judge the message in FILE ("-": standard input) as the milter would now, and say why.

    What the options do not say is taken from the message: the client from the Received field of this
    host, MAIL FROM from Return-Path, the recipient from X-Original-To. That Received field and all that
    stands above it was not there when the milter saw the message, so it is left out; --whole keeps it.

    --record keeps the answers of DNS, so that --replay gives the same explanation on any day and any host.
    """
    if record and replay:
        raise click.UsageError("--record and --replay exclude each other")
    parsed = load_files(config_path).material.parse()
    mail = read_mail(file)
    way = find_way(mail, Origins(parsed.config.milter))
    hop = _find_hop(way, client_ip)
    sender = find_sender(
        Given(client_ip, helo, mail_from), hop, find_return_path(mail, way, parsed.config, config_path)
    )
    host, host_from = authserv_id_of(parsed.config)
    if isinstance(sender, str):
        raise click.UsageError(sender)
    if sender.path is None:
        raise click.UsageError(
            "MAIL FROM is not known: the message has no Return-Path; --mail-from names one"
        )
    start = hop.place + 1 if hop and not whole else 0
    name = _client_name(client_name, hop)
    macros = _macros(host, hop, login, daemon_name)
    to, to_from = find_recipients(recipients, mail, way)
    envelope = make_envelope(sender.client, name, sender.helo, sender.path, macros, to)
    case = Case(envelope, mail.fields[start:], mail.body)
    answers, judgement = asyncio.run(judge(case, parsed, _read_answers(replay)))
    if record:
        _write_answers(answers, record)
    report = {
        "file": mail.name,
        "authserv_id_from": host_from,
        "client_from": sender.client_from,
        "mail_from_from": sender.path_from,
        "recipients_from": to_from,
        "left_out": start,
        **describe(case, judgement, parsed),
        "dns": {"questions": answers.queries, "replayed": replay is not None},
        "warnings": [*mail.notes, *(f"no answer was recorded for {each}" for each in answers.missing)],
    }
    if as_json:
        print_json(report)
    else:
        spf_steps = {identity: trace.lines() for identity, trace in judgement.traces.items()}
        show_report(report, spf_steps, judgement.dmarc)


def _find_hop(way: Way, client: IpAddress | None) -> Hop | None:
    """Find where the message came to the milter: from this client, or else from the first other host."""
    if client is None:
        return way.milter_entrance
    return next((hop for hop in way.trusted if hop.received.client == client), None)


def find_recipients(told: tuple[str, ...], mail: Mail, way: Way) -> tuple[list[bytes], str]:
    """Find who the message was sent to, and who says so: what Postfix wrote when it delivered it."""
    if told:
        return [reverse_path(each) for each in told], "--recipient"
    found = mail.values(b"x-original-to")
    if found and (found[0][0] < way.boundary or not way.hops):
        return [b"<" + unfold(found[0][1]).strip(b"<> ") + b">"], "X-Original-To"
    return [], ""


def _client_name(told: str | None, hop: Hop | None) -> bytes:
    if told is not None:
        return argument_octets(told)
    return hop.received.client_name if hop and hop.received.client_name else b"unknown"


def _macros(host: str, hop: Hop | None, login: str, daemon_name: str) -> dict[bytes, bytes]:
    macros = {
        b"j": argument_octets(host),
        b"daemon_name": argument_octets(daemon_name),
        b"auth_authen": argument_octets(login),
    }
    if hop is not None:
        macros[b"i"] = hop.received.id
        if hop.received.authenticated:
            macros[b"auth_type"] = hop.received.protocol
    return macros


def _read_answers(path: str | None) -> KeptAnswers | None:
    if path is None:
        return None
    try:
        return KeptAnswers.read(path)
    except OSError as error:
        exit_no(f"{shown_path(path)}: cannot be read: {error.strerror or error}")
    except ValueError as error:
        exit_no(f"{shown_path(path)}: has no answers that srsctl explain --record wrote: {error}")


def _write_answers(answers: KeptAnswers, path: str) -> None:
    try:
        answers.write(path)
    except (OSError, ValueError) as error:
        exit_no(f"{shown_path(path)}: cannot be written: {error}")
