"""srsd, the daemon: from the command line to the end of the process."""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import signal
import sys
from typing import TYPE_CHECKING

from srsd import __version__
from srsd.daemon.event_loop import loop_factory
from srsd.daemon.files import Files, Sources, address_file_path, check_store, is_stored, read_config
from srsd.daemon.lifecycle import Daemon
from srsd.daemon.listeners import TABLES, BindError, give_unix_sockets, open_listeners
from srsd.daemon.log import set_up_logging
from srsd.daemon.privileges import become, find_user, make_state_directory
from srsd.daemon.workforce import InProcess, WorkforceError
from srsd.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from srsd.config import Config
    from srsd.daemon.metrics import MetricsServer
    from srsd.daemon.workforce import Workforce

DEFAULT_CONFIG = "/etc/srsd/srsd.toml"
EX_OSERR = 71  # sysexits.h: it may pass, a supervisor should try again
EX_CONFIG = 78  # sysexits.h: an admin must mend it

_LOG = logging.getLogger(__name__)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run srsd.

    Exits 0 after SIGTERM, 71 when an address is taken or no worker starts, 78 for a faulty configuration.
    """
    options = make_parser().parse_args(arguments)
    options.config = os.path.abspath(options.config)
    set_up_logging("text", "info")
    try:
        if options.check:
            _check(options.config)
        else:
            _run(options.config)
    except ConfigError as error:
        error.name_file(options.config)
        _say(error.lines())
        sys.exit(EX_CONFIG)
    except (BindError, WorkforceError) as error:
        _say([f"{options.config}: {error}"])
        sys.exit(EX_OSERR)


def _say(lines: Iterable[str]) -> None:
    """Say why srsd does not start: to whoever started it, so without the form of the log."""
    for line in lines:
        print(line, file=sys.stderr)  # noqa: T201 - there is no log yet


def make_parser() -> argparse.ArgumentParser:
    """Make the parser of srsd's options."""
    parser = argparse.ArgumentParser(
        prog="srsd",
        description="Sender identity for Postfix: SRS lookups as tcp_table(5) and socketmap_table(5), and a "
        "milter for SPF, DKIM and Authentication-Results. "
        "Runs in the foreground and logs to standard error.",
        epilog="SIGHUP reads everything again; SIGTERM finishes what is in flight and ends with status 0. "
        "Status 78 means a faulty configuration, with one line for each fault.",
    )
    parser.add_argument(
        "--config", metavar="FILE", default=DEFAULT_CONFIG, help="the configuration (default: %(default)s)"
    )
    parser.add_argument("--check", action="store_true", help="only check the configuration and its files")
    parser.add_argument("--version", action="version", version=f"srsd {__version__}")
    return parser


def _check(path: str) -> None:
    """Check everything that a start would, but for the sockets, as the user that srsd becomes."""
    config = read_config(path).config
    account = find_user(config.user)
    _import_store(config)  # while the library can be read
    if account is not None and os.geteuid() == 0:
        become(account)
    files = Files(path)
    if os.path.isdir(config.state_directory):  # else a start makes it
        check_store(files.config)
    print(f"{path}: good")  # noqa: T201 - the answer to a question on the command line


def _run(path: str) -> None:
    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # until there is something to reload
    config = read_config(path).config
    set_up_logging(config.log.format, config.log.level)
    account = find_user(config.user)
    listeners = open_listeners(config.listen)
    try:
        # All that is imported is imported now: the user may not be able to read Python's library.
        make_loop = loop_factory()
        workforce = _workforce(config.workers)
        make_metrics = _metrics() if config.listen.metrics else None
        _import_store(config)
        make_state_directory(config.state_directory, account)
        if account is not None:
            give_unix_sockets(listeners, account.pw_uid)
            become(account)
        # From here on as that user: what cannot be read now could not be read again either.
        sources = Sources(path)
        if not config.srs.domain and any(listener.kind in TABLES for listener in listeners):
            _LOG.warning("%s: srs.domain is empty, so every lookup answers not found", path)
        daemon = Daemon(path, sources, workforce, listeners, make_metrics)
        with asyncio.Runner(loop_factory=make_loop) as runner:
            runner.run(daemon.run())
    finally:
        for listener in listeners:
            listener.close()


def _workforce(workers: int | str) -> Workforce:
    number = len(os.sched_getaffinity(0)) if workers == "auto" else int(workers)
    if number == 1:
        return InProcess()
    from srsd.daemon.supervisor import WorkerProcesses  # noqa: PLC0415 - for those who have workers

    return WorkerProcesses(number)


def _import_store(config: Config) -> None:
    """Import what stores addresses, where they are, or were."""
    if is_stored(config) or os.path.exists(address_file_path(config.state_directory)):
        import srsd.daemon.store_thread  # noqa: F401, PLC0415 - 1 MB, for those who have it


def _metrics() -> type[MetricsServer]:
    from srsd.daemon.metrics import MetricsServer  # noqa: PLC0415 - 5 MB, for those who want them

    return MetricsServer


if __name__ == "__main__":
    main()
