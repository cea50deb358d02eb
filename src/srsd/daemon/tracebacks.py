"""SIGQUIT: write where every thread and every task is to standard error, and go on."""

from __future__ import annotations

import asyncio
import faulthandler
import signal
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable


def dump_on_sigquit(others: Callable[[], None] | None = None) -> None:
    """Install the handler, from within the event loop; others is called too."""

    def dump() -> None:
        for task in asyncio.all_tasks():
            print(f"task {task.get_name()}:", file=sys.stderr)  # noqa: T201 - a stack is not a log line
            task.print_stack(file=sys.stderr)
        if others is not None:
            others()

    asyncio.get_running_loop().add_signal_handler(signal.SIGQUIT, dump)
    # Threads are written by the signal handler itself, so that a loop that hangs shows where.
    faulthandler.register(signal.SIGQUIT, all_threads=True, chain=True)
