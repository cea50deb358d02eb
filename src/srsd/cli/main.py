"""srsctl: the command line of srsd."""

from __future__ import annotations

import logging

import click

from srsd import __version__
from srsd.cli.completion import completion_command
from srsd.cli.config import config_group
from srsd.cli.daemon import reload_command, status_command, top_command
from srsd.cli.dkim import dkim_group
from srsd.cli.explain import explain_command
from srsd.cli.secret import secret_group
from srsd.cli.srs import srs_group
from srsd.cli.test import test_command
from srsd.daemon.log import set_up_logging
from srsd.daemon.main import DEFAULT_CONFIG


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.option(
    "--config",
    "config_path",
    metavar="FILE",
    default=DEFAULT_CONFIG,
    show_default=True,
    type=click.Path(resolve_path=True),
    help="The configuration of the daemon.",
)
@click.version_option(__version__, prog_name="srsctl")
@click.pass_context
def main(context: click.Context, config_path: str) -> None:
    """Look into srsd, and set it up.

    Exit status: 0 good, 1 the answer is no, 2 wrong usage, 78 a faulty configuration.
    """
    set_up_logging("text", logging.getLevelName(logging.ERROR))
    context.obj = config_path


main.add_command(srs_group)
main.add_command(secret_group)
main.add_command(dkim_group)
main.add_command(config_group)
main.add_command(status_command)
main.add_command(top_command)
main.add_command(reload_command)
main.add_command(test_command)
main.add_command(explain_command)
main.add_command(completion_command)
