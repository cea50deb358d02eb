"""srsctl status, top, reload: a word with the running daemon over its control socket."""

from __future__ import annotations

import json
import socket
import sys
import time
import tomllib
from typing import TYPE_CHECKING, Any, NoReturn, Self

import click
from rich.console import Console, Group
from rich.live import Live
from rich.table import Table

from srsd.cli.common import NO, as_json, exit_faulty, print_json
from srsd.config import Listen
from srsd.daemon.files import read_config
from srsd.errors import ConfigError
from srsd.syntax.endpoint import UnixEndpoint, parse_endpoint

if TYPE_CHECKING:
    from srsd.daemon.counters import Snapshot, StoreSnapshot
    from srsd.daemon.status import Status

_SECONDS = 30  # a reload waits for every worker


class _Control:
    """A connection to the control socket. Exits 1 with one line where there is no daemon behind it."""

    def __init__(self, config_path: str) -> None:
        endpoints = _control_endpoints(config_path)
        if not endpoints:
            click.echo(f"{config_path}: listen.control is empty, so there is no way to ask srsd", err=True)
            sys.exit(NO)
        self._path = endpoints[0].path
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._socket.settimeout(_SECONDS)
        try:
            self._socket.connect(self._path)
        except OSError as error:
            self._fail(f"{error.strerror}: does srsd run, and may you use it?")
        self._answers = self._socket.makefile("rb")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._answers.close()
        self._socket.close()

    def ask(self, command: str) -> Any:  # noqa: ANN401 - what the command gives
        try:
            self._socket.sendall(json.dumps({"command": command}).encode() + b"\n")
            line = self._answers.readline()
        except OSError as error:
            self._fail(str(error))
        if not line:
            self._fail("srsd closed the connection: only root, its own user and the socket's group may ask")
        return json.loads(line)

    def _fail(self, reason: str) -> NoReturn:
        self._socket.close()
        click.echo(f"{self._path}: {reason}", err=True)
        sys.exit(NO)


def _control_endpoints(config_path: str) -> list[UnixEndpoint]:
    """Find the control socket. A running srsd must be reached even while its file has faults."""
    try:
        listen = read_config(config_path).config.listen
    except ConfigError as error:
        found = _listen_in(config_path)
        if found is None:
            exit_faulty(error, config_path)
        listen = found
    return [each for each in listen.control if isinstance(each, UnixEndpoint)]


def _listen_in(config_path: str) -> Listen | None:
    """Read no more than listen.control of a faulty configuration; None where even that is not to be had."""
    try:
        with open(config_path, "rb") as file:
            listen = tomllib.load(file).get("listen", {})
        if "control" not in listen:
            return Listen()
        return Listen(control=tuple(parse_endpoint(each) for each in listen["control"]))
    except (OSError, ValueError, AttributeError, TypeError, RecursionError):
        return None


@click.command("reload", epilog="Example: srsctl reload")
@as_json
@click.pass_obj
def reload_command(config_path: str, as_json: bool) -> None:
    """Have srsd read its files again, and say what it found. Exits 1 when it keeps what it had."""
    with _Control(config_path) as control:
        faults = control.ask("reload")["faults"]
    if as_json:
        print_json({"good": not faults, "faults": faults})
    else:
        for line in faults or ["everything was read again"]:
            click.echo(line, err=bool(faults))
    sys.exit(NO if faults else 0)


@click.command("status", epilog="Example: srsctl status --json")
@as_json
@click.pass_obj
def status_command(config_path: str, as_json: bool) -> None:
    """Show what srsd does: listeners, workers, secrets, lookups by kind and reason, speed.

    docs/operations.md describes the JSON.
    """
    with _Control(config_path) as control:
        status: Status = control.ask("status")
    if as_json:
        print_json(status)
    else:
        Console().print(_render(status))


@click.command("top", epilog="Example: srsctl top --interval 2")
@click.option("--interval", default=1.0, show_default=True, type=click.FloatRange(0.1), help="Seconds.")
@click.option("--count", default=0, type=click.IntRange(0), help="End after this many pictures; 0: never.")
@click.pass_obj
def top_command(config_path: str, interval: float, count: int) -> None:
    """Show the status again and again, until Ctrl-C."""
    shown = 1
    with (
        _Control(config_path) as control,
        Live(_render(control.ask("status")), console=Console(), auto_refresh=False) as live,
    ):
        while shown != count:
            try:
                time.sleep(interval)
            except KeyboardInterrupt:
                return
            live.update(_render(control.ask("status")), refresh=True)
            shown += 1


def _render(status: Status) -> Group:
    """Draw a status for a terminal."""
    reload = status["last_reload"]
    overview = Table.grid(padding=(0, 2))
    outcome = "good" if reload["good"] else "FAULTY, what was before is in force"
    rows = {
        "srsd": f"{status['version']}, pid {status['pid']}, {status['event_loop']}",
        "up": f"{_span(status['uptime_seconds'])}, since {status['started']}",
        "configuration": status["configuration"],
        "last read": f"{reload['time']}, {outcome}",
        "listeners": "\n".join(status["listeners"]),
        "lookups/s": ", ".join(
            f"{rate:.1f} over {seconds} s" for seconds, rate in status["lookups_per_second"].items()
        ),
        "answers found in": _latency(status),
        "connections": "{connections_open} open, {connections_opened} opened, {connections_cut} cut".format(
            **status["counters"]
        ),
    }
    for name, value in rows.items():
        overview.add_row(name, value)
    counters = status["counters"]
    store = counters["store"]
    if store["maximum_octets"]:
        overview.add_row("stored addresses", _store(store))
    tables = [_workers(status), _secrets(status), _lookups(counters), _events(counters), _dns(counters)]
    if counters["forgers"]:
        tables.append(_forgers(counters))
    return Group(overview, *tables)


def _store(store: StoreSnapshot) -> str:
    share = 100 * store["octets"] / store["maximum_octets"]
    failing = ", FAILING: see the log" if store["failing"] else ""
    return f"{store['addresses']}, {store['octets'] / 1e6:.1f} MB, {share:.1f} % of srs.store_size{failing}"


def _workers(status: Status) -> Table:
    table = Table("worker", "pid", "state", "since", "restarts", "lookups")
    for number, worker in enumerate(status["workers"], 1):
        table.add_row(
            str(number),
            str(worker["pid"] or ""),
            worker["state"],
            worker["started"] or "",
            str(worker["restarts"]),
            str(worker["lookups"]),
        )
    return table


def _secrets(status: Status) -> Table:
    table = Table("secret", "role", "age in days")
    for secret in status["secrets"]:
        age = secret["age_days"]
        table.add_row(secret["fingerprint"], secret["role"], "" if age is None else str(age))
    return table


def _lookups(counters: Snapshot) -> Table:
    table = Table("table", "direction", "answer", "reason", "lookups")
    for name, direction, outcome, reason, count in counters["lookups"]:
        table.add_row(name, direction, outcome.replace("_", " "), reason, str(count))
    return table


def _events(counters: Snapshot) -> Table:
    table = Table("mail", "kind", "count")
    for what, kind, count in counters["events"]:
        table.add_row(what.replace("_", " "), kind, str(count))
    if counters["bugs"]:
        table.add_row("refused for now because of a bug", "", str(counters["bugs"]))
    return table


def _dns(counters: Snapshot) -> Table:
    dns = counters["dns"]
    table = Table("DNS lookups", "count")
    table.add_row("answered from the cache", str(dns["hits"]))
    for outcome, count in dns["lookups"].items():
        table.add_row(outcome.replace("_", " "), str(count))
    return table


def _forgers(counters: Snapshot) -> Table:
    table = Table("client", "refused SRS addresses in the last hour")
    for client, count in counters["forgers"]:
        table.add_row(client, str(count))
    return table


def _latency(status: Status) -> str:
    """Give the median and the 99th percentile as the bounds of their classes."""
    counts, total = status["counters"]["latency"], sum(status["counters"]["latency"])
    if not total:
        return "no answers yet"
    bounds = [f"{bound * 1e6:g} µs" for bound in status["latency_bounds"]]
    shown = []
    for share in (0.5, 0.99):
        reached, index = 0, -1
        while reached < share * total:
            index += 1
            reached += counts[index]
        shown.append(f"at most {bounds[index]}" if index < len(bounds) else f"over {bounds[-1]}")
    return f"{shown[0]} (half of them), {shown[1]} (99 of 100)"


def _span(seconds: int) -> str:
    days, rest = divmod(seconds, 86400)
    return f"{days} d {rest // 3600:02}:{rest // 60 % 60:02}:{rest % 60:02}"
