"""srsctl secret: the secrets that sign rewritten addresses. They are never shown."""

from __future__ import annotations

import os
import secrets
import sys
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import click
from rich.console import Console
from rich.table import Table

from srsd.cli.common import NO, as_json, load_config, load_files, print_json
from srsd.daemon.privileges import find_user
from srsd.daemon.secret_ages import read_secret_ages
from srsd.errors import ConfigError

if TYPE_CHECKING:
    from srsd.config import Config

_SECRET_OCTETS = 32


@click.group("secret")
def secret_group() -> None:
    """Make and list the secrets behind rewritten addresses."""


@secret_group.command(epilog="Example: srsctl secret new")
@click.option("--print", "only_print", is_flag=True, help="Print a new secret and change nothing.")
@click.pass_obj
def new(config_path: str, only_print: bool) -> None:
    """Make srs.secrets_file with a new secret in it.

    A file that is there already is never changed: then the exit status is 1.
    """
    secret = secrets.token_urlsafe(_SECRET_OCTETS)
    if only_print:
        click.echo(secret)
        return
    config = load_config(config_path)
    path = config.srs.secrets_file
    try:
        _create(path, secret, config)
    except FileExistsError:
        click.echo(
            f"{path}: is there already and was not changed; to sign with a new secret, put the line that "
            "`srsctl secret new --print` gives before its first one",
            err=True,
        )
        sys.exit(NO)
    except (OSError, ConfigError) as error:
        click.echo(f"{path}: could not be made: {error}", err=True)
        sys.exit(NO)
    click.echo(f"{path}: made, with one secret")


def _create(path: str, secret: str, config: Config) -> None:
    """Make the file in one step, readable for the daemon's user and nobody else.

    Raises FileExistsError, OSError, ConfigError.
    """
    account = find_user(config.user) if os.geteuid() == 0 else None
    os.makedirs(os.path.dirname(path), mode=0o755, exist_ok=True)
    if os.path.lexists(path):
        raise FileExistsError(path)
    unfinished = f"{path}.new.{os.getpid()}"
    descriptor = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with open(descriptor, "w", encoding="ascii") as file:
            if account is not None:
                os.fchown(descriptor, 0, account.pw_gid)
                os.fchmod(descriptor, 0o640)
            file.write(secret + "\n")
            file.flush()
            os.fsync(descriptor)
        os.link(unfinished, path)  # unlike a rename, it never replaces a file
    finally:
        os.unlink(unfinished)


@secret_group.command("list", epilog="Example: srsctl secret list --json")
@as_json
@click.pass_obj
def list_secrets(config_path: str, as_json: bool) -> None:
    """Show each secret's fingerprint, what it does, and since when srsd knows it."""
    files = load_files(config_path)
    if files.keyring is None:
        click.echo(f"{config_path}: srs.domain is empty, so no secrets are read", err=True)
        sys.exit(NO)
    try:
        seen = read_secret_ages(files.config.state_directory)
    except (OSError, ValueError) as error:
        click.echo(f"ages are not known: {error}", err=True)
        seen = {}
    now = datetime.now(UTC)
    rows = []
    for index, fingerprint in enumerate(files.keyring.fingerprints):
        first_seen = seen.get(fingerprint)
        rows.append(
            {
                "fingerprint": fingerprint,
                "role": "signs and verifies" if index == 0 else "verifies",
                "first_seen": first_seen.isoformat() if first_seen else None,
                "age_days": (now - first_seen).days if first_seen else None,
            }
        )
    if as_json:
        print_json(rows)
    else:
        _print_table(rows)


def _print_table(rows: list[dict[str, str | int | None]]) -> None:
    table = Table("#", "fingerprint", "role", "first seen, UTC", "age in days")
    for number, row in enumerate(rows, 1):
        known = row["first_seen"] is not None
        table.add_row(
            str(number),
            str(row["fingerprint"]),
            str(row["role"]),
            f"{datetime.fromisoformat(str(row['first_seen'])):%Y-%m-%d %H:%M}"
            if known
            else "not yet by srsd",
            str(row["age_days"]) if known else "",
        )
    Console().print(table)
