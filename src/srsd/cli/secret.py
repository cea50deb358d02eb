"""srsctl secret: the secrets behind rewritten addresses. They are never shown."""

from __future__ import annotations

import os
import secrets
import sys
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import click
from rich.console import Console
from rich.table import Table

from srsd.cli.common import NO, as_json, load_config, load_files, print_json
from srsd.daemon.atomic_file import create_file, write_file
from srsd.daemon.files import parse_keyring
from srsd.daemon.privileges import find_user
from srsd.daemon.rotation_file import one_at_a_time, read_rotation, write_rotation
from srsd.daemon.secret_ages import describe_secrets
from srsd.daemon.watched_file import WatchedFile
from srsd.errors import ConfigError
from srsd.rotation import Rotation, rotate
from srsd.srs import fingerprint, parse_secrets

if TYPE_CHECKING:
    from srsd.config import Config
    from srsd.daemon.status import SecretState

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
    secret = _make_secret().decode()
    if only_print:
        click.echo(secret)
        return
    config = load_config(config_path)
    path = config.srs.secrets_file
    if os.path.lexists(path):
        click.echo(
            f"{path}: is there already and was not changed; to replace its secret: srsctl secret rotate",
            err=True,
        )
        sys.exit(NO)
    try:
        _create(path, secret, config)
    except (OSError, ConfigError) as error:
        click.echo(f"{path}: could not be made: {error}", err=True)
        sys.exit(NO)
    click.echo(f"{path}: made, with one secret")


def _create(path: str, secret: str, config: Config) -> None:
    """Make the file in one step, readable for the daemon's user and nobody else.

    Raises OSError, FileExistsError among them, or ConfigError.
    """
    account = find_user(config.user) if os.geteuid() == 0 else None
    os.makedirs(os.path.dirname(path), mode=0o755, exist_ok=True)
    mode, owner = (0o640, (0, account.pw_gid)) if account else (0o600, None)
    create_file(path, secret.encode() + b"\n", mode=mode, owner=owner)


@secret_group.command("list", epilog="Example: srsctl secret list --json")
@as_json
@click.pass_obj
def list_secrets(config_path: str, as_json: bool) -> None:
    """Show each secret's fingerprint, what it does, and since when srsd knows it."""
    files = load_files(config_path)
    if files.keyring is None:
        click.echo(f"{config_path}: srs.domain is empty, so no secrets are read", err=True)
        sys.exit(NO)
    states = describe_secrets(files.config.state_directory, files.keyring.fingerprints)
    if as_json:
        print_json(states)
    else:
        _print_table(states)


def _print_table(states: list[SecretState]) -> None:
    table = Table("#", "fingerprint", "role", "first seen, UTC", "age in days")
    for number, state in enumerate(states, 1):
        moment = state["first_seen"]
        shown = f"{datetime.fromisoformat(moment):%Y-%m-%d %H:%M}" if moment else "not yet by srsd"
        age = "" if state["age_days"] is None else str(state["age_days"])
        table.add_row(str(number), state["fingerprint"], state["role"], shown, age)
    Console().print(table)


@secret_group.command("rotate", epilog="Example: srsctl secret rotate --delay 24")
@click.option(
    "--delay",
    default=24.0,
    show_default=True,
    type=click.FloatRange(0, 24 * 365),
    help="Hours for which a new secret only verifies, so that every host can have it before it signs.",
)
@as_json
@click.pass_obj
def rotate_secrets(config_path: str, delay: float, as_json: bool) -> None:
    """Replace the secret that signs, in two steps; give the command again for the second.

    First a new secret is added that only verifies. After the delay it signs, and the old one
    verifies until all that it signed has expired; a later run drops it. A step that is not due
    changes nothing. The daemon takes each step over by itself.
    """
    config = load_config(config_path)
    path, state_directory = config.srs.secrets_file, config.state_directory
    try:
        with one_at_a_time(os.path.dirname(path)):
            rotation = _take_step(config, timedelta(hours=delay))
    except (OSError, ValueError, ConfigError) as error:
        click.echo(f"{path}, {state_directory}: no step was taken: {error}", err=True)
        sys.exit(NO)
    if as_json:
        print_json({"done": rotation.done, "secrets": [fingerprint(each) for each in rotation.secrets]})
    else:
        for sentence in rotation.done:
            click.echo(sentence)


def _take_step(config: Config, delay: timedelta) -> Rotation:
    """Decide the next step and write it down. Raises OSError, ValueError, ConfigError."""
    path = os.path.realpath(config.srs.secrets_file)  # a link to the file stays a link
    watched = WatchedFile(path, parse_keyring, private=True)
    watched.load()
    before = parse_secrets(watched.text)
    state = read_rotation(config.state_directory)
    rotation = rotate(before, state, datetime.now(UTC), delay, config.srs.maximum_age, _make_secret)
    # The file first: without the state an order in it is still right, and seen as such.
    # But a new secret must be known to be new, or the next run would take it for a retired one.
    if len(rotation.secrets) > len(before):
        write_rotation(config.state_directory, rotation.state)
    if rotation.secrets != before:
        status = os.stat(path)
        text = b"".join(secret + b"\n" for secret in rotation.secrets)
        owner = (status.st_uid, status.st_gid) if os.geteuid() == 0 else None
        write_file(path, text, mode=status.st_mode & 0o777, owner=owner)
    write_rotation(config.state_directory, rotation.state)
    return rotation


def _make_secret() -> bytes:
    return secrets.token_urlsafe(_SECRET_OCTETS).encode()
