"""srsctl config: check the configuration, show what is in force, print an example."""

from __future__ import annotations

import sys
import textwrap
import tomllib
from dataclasses import fields, is_dataclass
from typing import TYPE_CHECKING, Any

import click
import tomlkit

from srsd.cli.common import NO, as_json, load_config, print_json
from srsd.config import Config
from srsd.daemon.files import Files
from srsd.errors import ConfigError
from srsd.lookup import DomainFor

if TYPE_CHECKING:
    from collections.abc import Iterator
    from dataclasses import Field


@click.group("config")
def config_group() -> None:
    """Check, show and explain the configuration."""


@config_group.command(epilog="Example: srsctl --config ./srsd.toml config check")
@as_json
@click.pass_obj
def check(config_path: str, as_json: bool) -> None:
    """Check the configuration, the secrets and the exclusion map; exits 1 with one line for each fault.

    `srsd --check` does the same as the user that srsd becomes.
    """
    faults = []
    try:
        Files(config_path)
    except ConfigError as error:
        error.name_file(config_path)
        faults = error.lines()
    if as_json:
        print_json({"file": config_path, "good": not faults, "faults": faults})
    else:
        for line in faults or [f"{config_path}: good"]:
            click.echo(line, err=bool(faults))
    sys.exit(NO if faults else 0)


@config_group.command(epilog="Example: srsctl config example > /etc/srsd/srsd.toml")
def example() -> None:
    """Print a configuration with every key, its meaning and its default, all commented out."""
    click.echo(example_text(), nl=False)


@config_group.command(epilog="Example: srsctl config show --json")
@as_json
@click.pass_obj
def show(config_path: str, as_json: bool) -> None:
    """Print the configuration in force, defaults included, and which values the file has set."""
    config = load_config(config_path)
    with open(config_path, "rb") as file:
        written = tomllib.load(file)
    if as_json:
        print_json(_plain(config))
        return
    document = tomlkit.document()
    for section, items in sections(config):
        table: Any = tomlkit.table() if section else document
        # What stands below a table within a section belongs to that.
        for item, value in sorted(items, key=lambda each: _has_tables(each[1])):
            text = tomlkit.item(toml_value(value))
            if item.name not in (written.get(section, {}) if section else written):
                text.comment("default")
            table.add(item.name, text)
        if section:
            document.add(section, table)
    click.echo(tomlkit.dumps(document), nl=False)


def sections(config: Config) -> Iterator[tuple[str, list[tuple[Field[Any], Any]]]]:
    """Give each section's name, and its keys that this version serves with their values; "" is the top."""
    top = [(item, getattr(config, item.name)) for item in fields(config)]
    yield "", [(item, value) for item, value in top if not is_dataclass(value)]
    for item, value in top:
        if is_dataclass(value):
            keys = [(key, getattr(value, key.name)) for key in fields(value)]
            if keys:
                yield item.name, keys


def _has_tables(value: object) -> bool:
    return isinstance(value, tuple) and any(isinstance(item, DomainFor) for item in value)


def toml_value(value: Any) -> Any:  # noqa: ANN401 - any value of the configuration
    """Turn a value into what TOML has: endpoints become text, tuples lists, dataclasses tables."""
    if isinstance(value, DomainFor):
        return {item.name: toml_value(getattr(value, item.name)) for item in fields(value)}
    if isinstance(value, tuple):
        return [toml_value(item) for item in value]
    return value if isinstance(value, (str, int, float, bool)) else str(value)


def _plain(config: Config) -> dict[str, Any]:
    plain: dict[str, Any] = {}
    for section, items in sections(config):
        values = {item.name: toml_value(value) for item, value in items}
        if section:
            plain[section] = values
        else:
            plain |= values
    return plain


def example_text() -> str:
    """Make the example file from the documentation that the keys carry."""
    lines = ["# Configuration of srsd. Every key is shown with its default.", ""]
    for section, items in sections(Config()):
        if section:
            lines += [f"[{section}]", ""]
        for item, value in items:
            lines += textwrap.wrap(item.metadata["doc"], 90, initial_indent="# ", subsequent_indent="# ")
            lines += [f"#{item.name} = {tomlkit.item(toml_value(value)).as_string()}", ""]
    return "\n".join(lines)
