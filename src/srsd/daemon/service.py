"""What srsd does under one configuration: the files it watches, the lookups made of them, reloads."""

from __future__ import annotations

import logging
import time
from dataclasses import replace
from typing import TYPE_CHECKING

from srsd.config_text import parse_config
from srsd.daemon.log import set_up_logging
from srsd.daemon.secret_ages import note_secrets
from srsd.daemon.tables import Answerer, Table, socketmap_of, tcp_table_of
from srsd.daemon.watched_file import WatchedFile, unreadable
from srsd.errors import ConfigError, Fault
from srsd.exclusion import ExclusionMap, parse_exclusion_map
from srsd.lookup import Lookup
from srsd.srs import Keyring, Srs, parse_secrets

if TYPE_CHECKING:
    from srsd.config import Config

_LOG = logging.getLogger(__name__)
_SECONDS_PER_DAY = 86400
_NEEDS_RESTART = ("workers", "state_directory", "user", "listen")
# While rewrites are logged, a key is logged again after this many seconds; in between it is the
# same message for which Postfix asks two or three times.
_LOG_AGAIN = 10


def read_config(path: str) -> Config:
    """Read and check a configuration file; keys without effect are logged. Raises ConfigError."""
    try:
        with open(path, "rb") as file:
            data = file.read()
    except OSError as error:
        fault = unreadable(path, error)
        if isinstance(error, FileNotFoundError):
            fault = Fault("", f"does not exist, would be right: srsctl config example > {path}")
        raise ConfigError([fault._replace(file=path)]) from None
    try:
        config, remarks = parse_config(data)
    except ConfigError as error:
        error.name_file(path)
        raise
    for remark in remarks:
        _LOG.warning(remark._replace(file=path).line())
    return config


def _parse_keyring(data: bytes) -> Keyring:
    secrets = parse_secrets(data)
    if not secrets:
        raise ValueError("has no secret, would be right: one on a line; srsctl secret new makes the file")
    return Keyring(secrets)


class Files:
    """The files that one configuration names. Raises ConfigError with the faults of all of them."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self._secrets = (
            WatchedFile(config.srs.secrets_file, _parse_keyring, private=True) if config.srs.domain else None
        )
        self._exclusions = WatchedFile(config.exclude.file, parse_exclusion_map, absent=ExclusionMap())
        faults: list[Fault] = []
        for watched in (self._secrets, self._exclusions):
            try:
                if watched:
                    watched.load()
            except ConfigError as error:
                faults += error.faults
        if faults:
            raise ConfigError(faults)

    def poll(self) -> bool:
        """Take changed files in; tell whether there were any."""
        secrets_changed = self._secrets is not None and self._secrets.poll()
        return self._exclusions.poll() or secrets_changed

    @property
    def keyring(self) -> Keyring | None:
        """The secrets in force; None where there is no SRS domain."""
        return self._secrets.value if self._secrets is not None else None

    def make_lookup(self) -> Lookup:
        """Make the lookups that follow from the configuration and the files."""
        parameters = self.config.srs
        srs = Srs(parameters, self.keyring) if self.keyring is not None else None
        return Lookup(parameters, srs, self._exclusions.value)


class Service:
    """Keeps the tables answering under the configuration in force."""

    def __init__(self, path: str, config: Config) -> None:
        """Read what the configuration names. Raises ConfigError."""
        self._path = path
        self._files = Files(config)
        self._note_secrets()
        self._answerer = Answerer(self._files.make_lookup(), today())
        self.tables: dict[str, Table] = {
            "srs_forward": tcp_table_of(self._answerer, "forward"),
            "srs_reverse": tcp_table_of(self._answerer, "reverse"),
            "socketmap": socketmap_of(self._answerer),
        }
        self._ticks = 0

    def tick(self) -> None:
        """Look at the clock and at the files; once a second."""
        self._ticks += 1
        if self._answerer.today != today():
            self._answerer.today = today()
            self._forget()
        if self._files.poll():
            self._put_in_force(self._files)
        elif self._ticks % _LOG_AGAIN == 0 and _LOG.isEnabledFor(logging.INFO):
            self._forget()

    def reload(self) -> None:
        """Read everything again. What has faults is reported, and everything stays as it was."""
        try:
            files = Files(self._without_restart(read_config(self._path)))
        except ConfigError as error:
            for line in error.lines():
                _LOG.error("%s; nothing was reloaded, the configuration before it stays in force", line)
            return
        set_up_logging(files.config.log.format, files.config.log.level)
        self._put_in_force(files)
        _LOG.info("%s: everything was read again", self._path)

    def _without_restart(self, config: Config) -> Config:
        """Keep what only a restart can change, and say so."""
        running = self._files.config
        kept = {name: getattr(running, name) for name in _NEEDS_RESTART}
        for name, value in kept.items():
            if getattr(config, name) != value:
                _LOG.warning("%s: %s has changed, which needs a restart of srsd", self._path, name)
        return replace(config, **kept)

    def _put_in_force(self, files: Files) -> None:
        self._files = files
        self._note_secrets()
        self._answerer.lookup = files.make_lookup()
        self._forget()

    def _note_secrets(self) -> None:
        keyring = self._files.keyring
        if keyring is not None:
            note_secrets(self._files.config.state_directory, keyring.fingerprints)

    def _forget(self) -> None:
        for table in self.tables.values():
            table.forget()


def today() -> int:
    """Give the number of days since 1970-01-01, UTC."""
    return int(time.time()) // _SECONDS_PER_DAY
