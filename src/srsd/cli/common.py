"""What the commands share: reading the configuration, exit statuses, output as text or JSON."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any, NoReturn

import click

from srsd.daemon.files import Files, read_config
from srsd.daemon.main import EX_CONFIG
from srsd.errors import ConfigError

if TYPE_CHECKING:
    from srsd.config import Config

NO = 1  # exit status: the question was understood, and the answer is no

as_json = click.option("--json", "as_json", is_flag=True, help="Print JSON for programs.")


def load_config(path: str) -> Config:
    """Read the configuration, or exit 78 with one line for each fault."""
    try:
        return read_config(path).config
    except ConfigError as error:
        exit_faulty(error, path)


def load_files(path: str) -> Files:
    """Read the configuration and the files that it names, or exit 78."""
    try:
        return Files(path)
    except ConfigError as error:
        exit_faulty(error, path)


def exit_faulty(error: ConfigError, path: str) -> NoReturn:
    """Print one line for each fault, and exit 78."""
    error.name_file(path)
    for line in error.lines():
        click.echo(line, err=True)
    sys.exit(EX_CONFIG)


def print_json(data: Any) -> None:  # noqa: ANN401 - anything that JSON has
    """Print a value for programs."""
    click.echo(json.dumps(data, indent=2, ensure_ascii=False))


def argument_octets(text: str) -> bytes:
    """Give the octets of an argument as the shell passed them."""
    return text.encode(errors="surrogateescape")
