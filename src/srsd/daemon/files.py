"""The files that an admin writes: read together, watched, and handed on as the texts that were found good."""

from __future__ import annotations

import logging
import os
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

from srsd.config_text import parse_config
from srsd.daemon.key_files import KeyFiles
from srsd.daemon.secret_ages import note_secrets
from srsd.daemon.watched_file import WatchedFile, unreadable
from srsd.dkim.signing_rules import SigningTexts, parse_signing_rules
from srsd.errors import ConfigError, Fault
from srsd.exclusion import parse_exclusion_map
from srsd.filter.sealing import find_sealer
from srsd.lookup import Lookup
from srsd.srs import Keyring, Srs, parse_secrets

if TYPE_CHECKING:
    from srsd.config import Config
    from srsd.dkim.signing_rules import SigningRules
    from srsd.exclusion import ExclusionMap

_LOG = logging.getLogger(__name__)
_NEEDS_RESTART = ("workers", "state_directory", "user", "listen")


class Material(NamedTuple):
    """All that answers depend on: the texts of the files."""

    config: bytes
    secrets: bytes
    exclusions: bytes
    signing: bytes  # SigningTexts, packed
    state_directory: bytes  # the one in force; another one in the configuration waits for a restart
    reloads: bytes = b"0"  # how often the admin has had everything read again, in digits

    def parse(self) -> Parsed:
        """Give what the texts say. Raises ConfigError; never for material that came from Files."""
        config, _ = parse_config(self.config)
        config = replace(config, state_directory=self.state_directory.decode())
        exclusions = parse_exclusion_map(self.exclusions)
        srs = Srs(config.srs, parse_keyring(self.secrets)) if config.srs.domain else None
        rules, _ = parse_signing_rules(SigningTexts.unpack(self.signing), config.dkim)
        return Parsed(config, exclusions, Lookup(config.srs, srs, exclusions), rules)


class Parsed(NamedTuple):
    """What material says."""

    config: Config
    exclusions: ExclusionMap
    lookup: Lookup
    signing: SigningRules


def parse_keyring(data: bytes) -> Keyring:
    """Parse a file of secrets. Raises ValueError when there is none in it."""
    secrets = parse_secrets(data)
    if not secrets:
        raise ValueError("has no secret, would be right: one on a line; srsctl secret new makes the file")
    return Keyring(secrets)


class ConfigFile(NamedTuple):
    """A configuration file that was read and found good."""

    config: Config
    text: bytes
    remarks: list[str]  # lines about keys that have no effect yet


def read_config(path: str) -> ConfigFile:
    """Read and check a configuration file. Raises ConfigError."""
    try:
        with open(path, "rb") as file:
            text = file.read()
    except OSError as error:
        fault = unreadable(path, error)
        if isinstance(error, FileNotFoundError):
            fault = Fault("", f"does not exist, would be right: srsctl config example > {path}")
        raise ConfigError([fault._replace(file=path)]) from None
    try:
        config, remarks = parse_config(text)
    except ConfigError as error:
        error.name_file(path)
        raise
    return ConfigFile(config, text, [remark._replace(file=path).line() for remark in remarks])


def _uses_keys(config: Config) -> bool:
    """Tell whether the keys and tables of [dkim] are needed: to sign, to seal, to know who is who."""
    wanted = config.dkim.sign or config.arc.seal or config.policy.login_mismatch != "accept"
    return wanted and bool(config.listen.milter)


class Files:
    """The configuration and the files that it names.

    Reading them raises ConfigError with the faults of all of them.
    """

    def __init__(self, path: str) -> None:
        self.config, self._config_text, remarks = read_config(path)
        self.reloads = 0  # how often the admin has had them read again
        srs = self.config.srs
        self._secrets = WatchedFile(srs.secrets_file, parse_keyring, private=True) if srs.domain else None
        self._exclusions = WatchedFile(self.config.exclude.file, parse_exclusion_map, may_be_absent=True)
        self._keys = KeyFiles(self.config.dkim) if _uses_keys(self.config) else None
        faults: list[Fault] = []
        for watched in (self._secrets, self._exclusions, self._keys):
            try:
                if watched is not None:
                    watched.load()
            except ConfigError as error:
                faults += error.faults
        if faults:
            raise ConfigError(faults)
        if self.config.arc.seal and self._keys is not None:
            sealer = find_sealer(self.config.arc.domain, self._keys.value.keys)
            if isinstance(sealer, str):
                right = f"srsctl dkim genkey {self.config.arc.domain} --type rsa"
                remarks.append(f"{path}: arc.seal: nothing is sealed: {sealer}, would be right: {right}")
        for remark in remarks:
            _LOG.warning(remark)

    def poll(self) -> bool:
        """Take changed files in; tell whether there were any. The configuration is read on SIGHUP only."""
        changed = [each.poll() for each in (self._secrets, self._exclusions, self._keys) if each is not None]
        return any(changed)

    @property
    def keyring(self) -> Keyring | None:
        """The secrets in force; None where there is no SRS domain."""
        return self._secrets.value if self._secrets is not None else None

    @property
    def material(self) -> Material:
        """The texts in force."""
        secrets = self._secrets.text if self._secrets is not None else b""
        signing = self._keys.text if self._keys is not None else b""
        state_directory = self.config.state_directory.encode()
        reloads = b"%d" % self.reloads
        return Material(self._config_text, secrets, self._exclusions.text, signing, state_directory, reloads)

    def make_lookup(self) -> Lookup:
        """Make the lookups that follow from the files."""
        return self.material.parse().lookup


def is_stored(config: Config) -> bool:
    """Tell whether addresses are to be stored."""
    return bool(config.srs.domain) and config.srs.envelope != "embedded"


def address_file_path(state_directory: str) -> str:
    """Tell where addresses are stored."""
    return os.path.join(state_directory, "addresses.sqlite")


def check_store(config: Config) -> None:
    """See whether addresses can be stored, where they are to be. Raises ConfigError."""
    if not is_stored(config):
        return
    path = address_file_path(config.state_directory)
    try:
        from srsd.daemon.address_file import check_address_file  # noqa: PLC0415 - see there

        problem = check_address_file(path)
    except ImportError as error:  # the user may not be able to read Python's library any more
        problem = f"cannot be used ({error}), would be right: a restart"
    if problem is not None:
        raise ConfigError([Fault("srs.envelope", f'is "{config.srs.envelope}", but {path} {problem}')])


class Sources:
    """The files of a running daemon: watched, read again on demand, the ages of their secrets kept."""

    def __init__(self, path: str) -> None:
        """Read everything. Raises ConfigError."""
        self._path = path
        self.files = Files(path)
        check_store(self.files.config)
        self._note_secrets()

    def poll(self) -> bool:
        """Look at the files, once a second; tell whether there is new material."""
        changed = self.files.poll()
        if changed:
            self._note_secrets()
        return changed

    def reload(self) -> list[str]:
        """Read everything again. Gives the faults; with any, everything stays as it was."""
        try:
            files = Files(self._path)
            config = self._without_restart(files.config)
            check_store(config)
        except ConfigError as error:
            error.name_file(self._path)
            for line in error.lines():
                _LOG.error("%s; nothing was reloaded, what was in force stays", line)
            return error.lines()
        files.config = config
        files.reloads = self.files.reloads + 1
        self.files = files
        self._note_secrets()
        _LOG.info("%s: everything was read again", self._path)
        return []

    def _without_restart(self, config: Config) -> Config:
        """Keep what only a restart can change, and say so."""
        kept = {name: getattr(self.files.config, name) for name in _NEEDS_RESTART}
        for name, value in kept.items():
            if getattr(config, name) != value:
                _LOG.warning("%s: %s has changed, which needs a restart of srsd", self._path, name)
        return replace(config, **kept)

    def _note_secrets(self) -> None:
        keyring = self.files.keyring
        if keyring is not None:
            note_secrets(self.files.config.state_directory, keyring.fingerprints)
