"""srsd, the daemon: from the command line to the end of the process."""

from __future__ import annotations

import argparse
import asyncio
import gc
import logging
import os
import signal
import sys
from typing import TYPE_CHECKING

from srsd import __version__
from srsd.daemon.listeners import BindError, Listener, endpoints_line, open_listeners
from srsd.daemon.log import READY, set_up_logging
from srsd.daemon.notify import notify
from srsd.daemon.privileges import become, find_user, make_state_directory
from srsd.daemon.server import LOOK_INTERVAL, Server
from srsd.daemon.service import Files, Service, read_config
from srsd.errors import ConfigError, Fault

if TYPE_CHECKING:
    import pwd
    from collections.abc import Callable, Iterable, Sequence

    from srsd.config import Config

DEFAULT_CONFIG = "/etc/srsd/srsd.toml"
EX_OSERR = 71  # sysexits.h: it may pass, a supervisor should try again
EX_CONFIG = 78  # sysexits.h: an admin must mend it

_LOG = logging.getLogger(__name__)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run srsd. Exits 0 after SIGTERM, 71 when an address is taken, 78 for a faulty configuration."""
    options = _parse_arguments(arguments)
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
    except BindError as error:
        _say([f"{options.config}: {error}"])
        sys.exit(EX_OSERR)


def _say(lines: Iterable[str]) -> None:
    """Say why srsd does not start: to whoever started it, so without the form of the log."""
    for line in lines:
        print(line, file=sys.stderr)  # noqa: T201


def _parse_arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="srsd",
        description="Sender identity for Postfix: SRS lookups as tcp_table(5) and socketmap_table(5). "
        "Runs in the foreground and logs to standard error.",
        epilog="SIGHUP reads everything again; SIGTERM finishes what is in flight and ends with status 0. "
        "Status 78 means a faulty configuration, with one line for each fault.",
    )
    parser.add_argument(
        "--config", metavar="FILE", default=DEFAULT_CONFIG, help="the configuration (default: %(default)s)"
    )
    parser.add_argument("--check", action="store_true", help="only check the configuration and its files")
    parser.add_argument("--version", action="version", version=f"srsd {__version__}")
    options = parser.parse_args(arguments)
    options.config = os.path.abspath(options.config)
    return options


def _check(path: str) -> None:
    """Check everything that a start would, but for the sockets, as the user that srsd becomes."""
    config = read_config(path)
    account = find_user(config.user)
    if account is not None and os.geteuid() == 0:
        become(account)
    _refuse_unreadable(path)
    Files(config)
    print(f"{path}: good")  # noqa: T201 - the answer to a question on the command line


def _run(path: str) -> None:
    config = read_config(path)
    set_up_logging(config.log.format, config.log.level)
    account = find_user(config.user)
    listeners = open_listeners(config.listen)
    try:
        service = _prepare(path, config, account)
        if not config.srs.domain:
            _LOG.warning("%s: srs.domain is empty, so every lookup answers not found", path)
        # What is there now stays; the collector need not look at it again.
        gc.collect()
        gc.freeze()
        with asyncio.Runner(loop_factory=_loop_factory()) as runner:
            runner.run(_serve(service, listeners))
    finally:
        for listener in listeners:
            listener.close()


def _prepare(path: str, config: Config, account: pwd.struct_passwd | None) -> Service:
    """Become the user and read as that user all that a reload reads again."""
    make_state_directory(config.state_directory, account)
    if account is not None:
        become(account)
    _refuse_unreadable(path)
    return Service(path, config)


def _refuse_unreadable(path: str) -> None:
    """Refuse a configuration that only root could read: the next reload would fail."""
    if not os.access(path, os.R_OK):
        raise ConfigError(
            [Fault("", f"is not readable for user {os.geteuid()}, would be right: chmod 0644 {path}", path)]
        )


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop]:
    """Take uvloop where it is installed."""
    try:
        import uvloop  # noqa: PLC0415 - optional
    except ImportError:
        return asyncio.new_event_loop
    loop_factory: Callable[[], asyncio.AbstractEventLoop] = uvloop.new_event_loop
    return loop_factory


async def _serve(service: Service, listeners: Sequence[Listener]) -> None:
    loop = asyncio.get_running_loop()
    ended = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, ended.set)
    loop.add_signal_handler(signal.SIGHUP, _reload, service)
    server = Server()
    ready = f"srsd {__version__} ready: {endpoints_line(listeners)}"
    await server.start(listeners, service.tables)
    ticking = loop.create_task(_tick(service, server))
    READY.info(ready)
    notify("READY=1")
    await ended.wait()
    notify("STOPPING=1")
    ticking.cancel()
    await server.drain()
    _LOG.info("srsd has ended")


def _reload(service: Service) -> None:
    notify("RELOADING=1")
    service.reload()
    notify("READY=1")


async def _tick(service: Service, server: Server) -> None:
    """Do what is due every second."""
    seconds = 0
    while True:
        await asyncio.sleep(1)
        seconds += 1
        service.tick()
        if seconds % LOOK_INTERVAL == 0:
            server.look_over()


if __name__ == "__main__":
    main()
