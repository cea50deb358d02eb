"""SPF of a message, asked again: the client, HELO and MAIL FROM that its header names, or other ones."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from srsd.cli.common import argument_octets
from srsd.cli.mail import make_envelope, reverse_path
from srsd.daemon.log import printable
from srsd.filter.authenticate import SpfResults, check_spf
from srsd.filter.origin import Origin, Origins
from srsd.filter.transaction import make_transaction
from srsd.spf.check_host import check_helo
from srsd.syntax.shown import shown

if TYPE_CHECKING:
    from srsd.cli.dns_answers import KeptAnswers
    from srsd.cli.hops import Hop
    from srsd.cli.return_path import ReturnPath
    from srsd.config import Config
    from srsd.resolving import IpAddress
    from srsd.spf.outcome import SpfOutcome


class Given(NamedTuple):
    """What the command line says of the client; it wins over the message."""

    client: IpAddress | None
    helo: str | None
    mail_from: str | None


class Sender(NamedTuple):
    """What SPF is asked about, and who says so."""

    client: IpAddress
    client_from: str
    helo: bytes
    helo_from: str
    path: bytes | None
    """The reverse-path, `<a@b>`; None where it is not known."""
    path_from: str


def find_sender(given: Given, hop: Hop | None, return_path: ReturnPath | None) -> Sender | str:
    """Find what to ask SPF about, hop being where the message came in; or say why there is nothing."""
    if given.client is not None:
        client, client_from = given.client, "--client-ip"
    elif hop is None or hop.received.client is None:
        return "no Received field that can be believed names a client from outside; --client-ip names one"
    else:
        client, client_from = hop.received.client, field_of(hop)
    if given.helo is not None:
        helo, helo_from = argument_octets(given.helo), "--helo"
    else:
        helo, helo_from = (hop.received.helo, field_of(hop)) if hop is not None else (b"", "")
    if given.mail_from is not None:
        path, path_from = reverse_path(given.mail_from), "--mail-from"
    elif return_path is not None and return_path.trusted:
        path = return_path.sender
        path_from = "Return-Path" if path == return_path.path else "Return-Path, reversed"
    else:
        return Sender(client, client_from, helo, helo_from, None, "")
    return Sender(client, client_from, helo, helo_from, path, path_from)


def unless_authenticated(sender: Sender | str, hop: Hop | None) -> Sender | str:
    """Ask nothing about a client that had logged in, unless the command line names it."""
    if (
        isinstance(sender, Sender)
        and hop is not None
        and hop.origin is Origin.AUTHENTICATED
        and sender.client_from != "--client-ip"
    ):
        return "the client had authenticated, so SPF is not asked; --client-ip asks all the same"
    return sender


def field_of(hop: Hop) -> str:
    """Name the field of a hop."""
    return f"hop {hop.number}"


async def check_now(
    sender: Sender | str, config: Config, ours: bytes, answers: KeptAnswers
) -> tuple[SpfResults, dict[str, Any]]:
    """Ask SPF; gives what it says, and that described for JSON."""
    if isinstance(sender, str):
        described = {"checked": False, "why_unchecked": sender, "results": []}
        return SpfResults(why_unchecked=sender), described
    results = await _ask(sender, config, ours, answers)
    if sender.path is None:
        results = results._replace(why_unchecked="MAIL FROM is not known")
    return results, {
        "checked": True,
        "client": str(sender.client),
        "client_from": sender.client_from,
        "helo": printable(sender.helo),
        "helo_from": sender.helo_from or None,
        "mail_from": None if sender.path is None else printable(sender.path),
        "mail_from_from": sender.path_from or None,
        "results": [
            describe_outcome(identity, outcome)
            for identity, outcome in (("MAIL FROM", results.mail_from), ("HELO", results.helo))
            if outcome is not None
        ],
    }


async def _ask(sender: Sender, config: Config, ours: bytes, answers: KeptAnswers) -> SpfResults:
    """Check SPF as the milter does; of HELO alone where MAIL FROM is not known."""
    if sender.path is None:
        helo = await check_helo(answers, sender.client, sender.helo, receiver=ours, now=answers.now)
        return SpfResults(helo=helo)
    envelope = make_envelope(sender.client, b"unknown", sender.helo, sender.path, {})
    transaction = make_transaction(envelope, Origins(config.milter), ours, ours)
    return await check_spf(transaction, answers, answers.now)


def describe_outcome(identity: str, outcome: SpfOutcome) -> dict[str, Any]:
    """Describe what SPF says of an identity, for JSON."""
    return {
        "identity": identity,
        "result": outcome.result.value,
        "reason": outcome.reason,
        "checked_domain": shown(outcome.checked_domain),
        "domain": shown(outcome.domain),
        "mechanism": shown(outcome.mechanism),
    }
