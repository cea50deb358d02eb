"""srsctl srs: what srsd answers for an address, and why."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import click

from srsd.address_store import Recall
from srsd.cli.common import NO, argument_octets, as_json, load_files, print_json
from srsd.cli.outbound_now import unless_allowed
from srsd.cli.stored import StoreView
from srsd.daemon.log import printable
from srsd.daemon.service import today
from srsd.srs import Refusal
from srsd.wire.answer import Status

if TYPE_CHECKING:
    from srsd.daemon.files import Files
    from srsd.srs import Examination, SrsFields
    from srsd.wire.answer import Answer

_FAR = 512  # an age above it, modulo 1024, is nearer as a date in the future


@click.group("srs")
def srs_group() -> None:
    """Rewrite and reverse addresses as the daemon would."""


@srs_group.command(epilog="Example: srsctl srs forward alice@example.com")
@click.argument("address")
@as_json
@click.pass_obj
def forward(config_path: str, address: str, as_json: bool) -> None:
    """Rewrite the sender ADDRESS. Exits 1 when it is left as it is."""
    key = argument_octets(address)
    files = load_files(config_path)
    view = StoreView(files.config.state_directory)
    answer, _ = unless_allowed(key, view.settle(files.make_lookup().forward(key, today())), files.config)
    _print_answer("forward", key, answer, as_json, view.remarks)


@srs_group.command(epilog="Example: srsctl srs reverse SRS0=Gt5l=JM=example.com=alice@srs.example.org")
@click.argument("address")
@as_json
@click.pass_obj
def reverse(config_path: str, address: str, as_json: bool) -> None:
    """Reverse the rewritten ADDRESS. Exits 1 when it is refused."""
    key = argument_octets(address)
    files = load_files(config_path)
    view = StoreView(files.config.state_directory)
    answer = view.settle(files.make_lookup().reverse(key, today()))
    _print_answer("reverse", key, answer, as_json, view.remarks)


def _print_answer(direction: str, key: bytes, answer: Answer, as_json: bool, remarks: list[str]) -> None:
    address = printable(key)
    found = answer.status is Status.FOUND
    result = printable(answer.text) if found else None
    if as_json:
        print_json({"direction": direction, "address": address, "result": result, "reason": answer.reason})
    elif found:
        click.echo(result)
    else:
        click.echo(f"{address}: left as it is: {answer.reason}", err=True)
    for remark in remarks:
        click.echo(remark, err=True)
    sys.exit(0 if found else NO)


@srs_group.command(epilog="Example: srsctl srs explain SRS0=Gt5l=JM=example.com=alice@srs.example.org")
@click.argument("address")
@as_json
@click.pass_obj
def explain(config_path: str, address: str, as_json: bool) -> None:
    """Say what happens to ADDRESS, and why. Exits 1 when it is left as it is, or refused."""
    files = load_files(config_path)
    lookup = files.make_lookup()
    key = argument_octets(address)
    shown = printable(key)
    view = StoreView(files.config.state_directory)
    examination = lookup.examine(key, today())
    backward = view.settle(lookup.reverse(key, today()))
    if examination is None:
        direction, answer = "forward", view.settle(lookup.forward(key, today()))
        answer, spf = unless_allowed(key, answer, files.config)
        why = [f"SPF, were it sent on as it is: {spf}"] if spf else []
        why += [f"as a sender: {answer.reason}", f"as a recipient: {backward.reason}"]
    else:
        direction, answer = "reverse", backward
        why = explain_reverse(examination, files)
    why += view.remarks
    found = answer.status is Status.FOUND
    report = {
        "address": shown,
        "direction": direction,
        "result": printable(answer.text) if found else None,
        "reason": answer.reason,
        "why": why,
    }
    if as_json:
        print_json(report)
    else:
        click.echo(f"{shown} -> {report['result']}" if found else f"{shown}: {answer.reason}")
        for line in why:
            click.echo(f"  {line}")
    sys.exit(0 if found else NO)


def explain_reverse(examination: Examination, files: Files) -> list[str]:
    """Tell in sentences what an SRS address of ours holds and how it was judged."""
    fields = examination.fields
    if fields is None:
        return ["malformed: not SRS0=HASH=STAMP=DOMAIN=USER or SRS1=HASH=DOMAIN=TEXT; was it cut or altered?"]
    why = [_explain_original(fields, files)]
    keyring = files.keyring
    if examination.secret is not None and keyring is not None:
        fingerprint = keyring.fingerprints[examination.secret]
        why.append(f"made with secret {fingerprint}, number {examination.secret + 1} in the file")
    if examination.refusal is Refusal.HASH_TOO_SHORT:
        why.append(f"its hash has {len(fields.hash)} characters, fewer than srs.hash_minimum: was it cut?")
    elif examination.secret is None and examination.damaged:
        why.append("hash damaged: it is nearly what one of our secrets makes, or holds what no hash holds")
    elif examination.secret is None:
        why.append("made with an unknown secret, or the address was altered or forged")
    if examination.age is not None:
        why.append(_explain_age(examination.age, files.config.srs.maximum_age))
    return why


def _explain_original(fields: SrsFields, files: Files) -> str:
    if not fields.stored:
        return f"it stands for {printable(bytes(fields.original))}"
    token = printable(fields.user)
    answer = _recall(fields, files)
    if answer.status is Status.FOUND:
        return f"it stands for {printable(answer.text)}, stored under {token}"
    if answer.status is Status.TEMPORARY:
        return f"it stands for what is stored under {token}, and that cannot be read"
    return f"nothing is stored under {token}: it has long expired, or was stored on another host"


def stored_original(fields: SrsFields, files: Files) -> bytes | None:
    """Give the address that is stored for an SRS address, valid or not; None where it is not to be had."""
    answer = _recall(fields, files)
    return answer.text if answer.status is Status.FOUND else None


def _recall(fields: SrsFields, files: Files) -> Answer:
    return StoreView(files.config.state_directory).settle(Recall(fields.user.lower()))


def _explain_age(age: int, maximum: int) -> str:
    if age <= maximum:
        return f"made {_days(age)} ago, good for {_days(maximum - age)} more"
    if age > _FAR:
        return f"dated {_days(1024 - age)} in the future: was the clock wrong on the host that made it?"
    return f"expired {_days(age - maximum)} ago: made {_days(age)} ago, srs.maximum_age is {_days(maximum)}"


def _days(number: int) -> str:
    return f"{number} day" if number == 1 else f"{number} days"
