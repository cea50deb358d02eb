"""srsctl completion: what a shell needs to complete srsctl's words."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class


@click.command("completion", epilog="Example: srsctl completion bash > /etc/bash_completion.d/srsctl")
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def completion_command(context: click.Context, shell: str) -> None:
    """Print the completion script for SHELL."""
    completion = get_completion_class(shell)
    if completion is None:
        raise click.UsageError(f"no completion for {shell}")
    root = context.find_root()
    click.echo(completion(root.command, {}, "srsctl", "_SRSCTL_COMPLETE").source())
