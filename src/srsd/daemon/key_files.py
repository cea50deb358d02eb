"""The files that say who signs: the key directory and the two tables, looked at every second.

What is read together stands or falls together: the files of one domain, or those that the signing table
names. A bad new version of one leaves its old version in force, and the other domains are not touched by it.
"""

from __future__ import annotations

import logging
import os
from typing import TYPE_CHECKING

from srsd.daemon.watched_file import WatchedFile, unreadable
from srsd.dkim.keystore import ACTIVE, KEY_SUFFIX, parse_domain_keys
from srsd.dkim.login_table import parse_login_table
from srsd.dkim.signing_rules import SigningTexts, parse_signing_rules
from srsd.dkim.signing_table import AUTHOR_DOMAIN, match_path, parse_signing_table
from srsd.errors import ConfigError, Fault
from srsd.syntax.domain import fold_domain, parse_domain

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from srsd.dkim.keystore import DomainKeys
    from srsd.dkim.login_table import LoginTable
    from srsd.dkim.signing_rules import DkimKeyParameters, SigningRules
    from srsd.dkim.signing_table import TableLines

_LOG = logging.getLogger(__name__)
_Listing = dict[str, tuple[int, ...]]  # files by path, and by what a change of each shows; () is not there


class _Group:
    """Files that are read together, and how they were when they were."""

    def __init__(self) -> None:
        self._loaded: _Listing = {}
        self._changing: _Listing = {}
        self.texts: dict[str, bytes] = {}

    def is_due(self, listing: _Listing) -> bool:
        """Tell whether there is a change that has stood still since the last look; said once of each."""
        if listing == self._loaded:
            return False
        if listing != self._changing:
            self._changing = listing
            return False
        self._loaded = listing
        return True

    def note(self, listing: _Listing) -> None:
        """Take a listing for the one that is read now."""
        self._loaded = self._changing = listing


class KeyFiles:
    """The key directory and the tables: load() once, then poll() every second, as with a WatchedFile.

    text is all of their texts in one, which SigningTexts.unpack takes apart; value is what they say.
    """

    def __init__(self, parameters: DkimKeyParameters) -> None:
        self._parameters = parameters
        self._domains: dict[str, _Group] = {}
        self._table_keys = _Group()
        self._signing_table: WatchedFile[TableLines] | None = None
        self._login_table: WatchedFile[LoginTable] | None = None
        if parameters.signing_table:
            self._signing_table = WatchedFile(parameters.signing_table, parse_signing_table)
        if parameters.login_table:
            self._login_table = WatchedFile(parameters.login_table, parse_login_table)
        self._told: set[Fault] = set()
        self._trouble = ""  # with the directory as a whole
        self.text = b""
        self.value: SigningRules

    def load(self) -> None:
        """Read everything now. Raises ConfigError with the faults of all files."""
        faults: list[Fault] = []
        for table in (self._signing_table, self._login_table):
            try:
                if table is not None:
                    table.load()
            except ConfigError as error:
                faults += error.faults
        try:
            listings = list_key_directory(self._parameters.key_directory)
        except ConfigError as error:
            faults += error.faults
            listings = {}
        for path, listing in listings.items():
            group = self._domains[path] = _Group()
            group.note(listing)
            try:
                group.texts = _read_files(listing)
                _parse_group(path, group.texts)
            except ConfigError as error:
                faults += error.faults
        if self._signing_table is not None and not faults:
            faults += self._read_table_keys()
        if faults:
            raise ConfigError(faults)
        self._compose()

    def poll(self) -> bool:
        """Take changed files in; tell whether anything new is in force. Faults are logged."""
        changed = self._login_table is not None and self._login_table.poll()
        new_table = self._signing_table is not None and self._signing_table.poll()
        if new_table or self._table_keys.is_due(self._list_table_keys()):
            _log_kept(self._read_table_keys())
            changed = True
        if self._poll_directory():
            changed = True
        if changed:
            try:
                self._compose()
            except ConfigError as error:
                _log_kept(error.faults)
                return False
        return changed

    def _poll_directory(self) -> bool:
        """Look at the key directory; tell whether there are new texts."""
        try:
            listings = list_key_directory(self._parameters.key_directory)
        except ConfigError as error:
            if self._trouble != str(error):
                self._trouble = str(error)
                _log_kept(error.faults)
            return False
        self._trouble = ""
        changed = False
        for path in {**self._domains, **listings}:
            group = self._domains.setdefault(path, _Group())
            listing = listings.get(path, {})
            if group.is_due(listing) and self._take(path, group, listing):
                changed = True
        return changed

    def _take(self, path: str, group: _Group, listing: _Listing) -> bool:
        """Read the files of a domain that have changed; tell whether they are good."""
        if not listing:
            del self._domains[path]
            if group.texts:
                _LOG.warning("%s: has no keys any more, so they do not sign", path)
            return bool(group.texts)
        try:
            texts = _read_files(listing)
            keys = _parse_group(path, texts)
        except ConfigError as error:
            _log_kept(error.faults)
            return False
        group.texts = texts
        selectors = ", ".join(signer.selector.decode() for signer in keys.signing)
        _LOG.info("%s: read again after a change; now signs: %s", path, selectors or "nobody")
        return True

    def _list_table_keys(self) -> _Listing:
        paths = self._signing_table.value.paths if self._signing_table is not None else []
        return {path: _signature(path) for pattern in paths for path in _expand(pattern)}

    def _read_table_keys(self) -> list[Fault]:
        """Read the files that the signing table names; gives the faults, with any the old texts stay."""
        listing = self._list_table_keys()
        self._table_keys.note(listing)
        try:
            self._table_keys.texts = _read_files(listing, all_private=True)
        except ConfigError as error:
            return error.faults
        return []

    def _compose(self) -> None:
        """Put in force what the files say together. Raises ConfigError, and then nothing changes."""
        key_files = {path: text for group in self._domains.values() for path, text in group.texts.items()}
        texts = SigningTexts(
            key_files,
            self._table_keys.texts,
            self._signing_table.text if self._signing_table is not None else b"",
            self._login_table.text if self._login_table is not None else None,
        )
        self.value, warnings = parse_signing_rules(texts, self._parameters)
        self.text = texts.pack()
        for warning in warnings:
            if warning not in self._told:
                _LOG.warning(warning.line())
        self._told = set(warnings)


def _log_kept(faults: Iterable[Fault]) -> None:
    for fault in faults:
        _LOG.error("%s; what was in force before stays", fault.line())


def list_key_directory(path: str) -> dict[str, _Listing]:
    """List the files of each domain, by the path of its directory. No directory, no domains.

    Raises ConfigError for what may not be listed.
    """
    try:
        with os.scandir(path) as entries:
            names = sorted(each.name for each in entries if each.is_dir() and not each.name.startswith("."))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise ConfigError([_unlistable(path, error)]) from None
    listings, faults = {}, []
    for name in names:
        directory = f"{path}/{name}"
        try:
            listing = list_domain(directory)
        except ConfigError as error:
            if _is_domain(name):  # lost+found is none
                faults += error.faults
            continue
        if listing:
            listings[directory] = listing
    if faults:
        raise ConfigError(faults)
    return listings


def list_domain(directory: str) -> _Listing:
    """List the files of one domain. Raises ConfigError."""
    try:
        names = sorted(os.listdir(directory))
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise ConfigError([_unlistable(directory, error)]) from None
    listing = {}
    for name in names:
        if _belongs(name):
            path = f"{directory}/{name}"
            signature = _signature(path)
            if signature or os.path.lexists(path):  # else it has just gone
                listing[path] = signature
    return listing


def read_domain(directory: str, *, with_active: bool = True) -> DomainKeys:
    """Read the keys of one domain, as they are now, with the file active or as if there were none.

    Raises ConfigError.
    """
    listing = list_domain(directory)
    if not with_active:
        listing.pop(f"{directory}/{ACTIVE}", None)
    return _parse_group(directory, _read_files(listing))


def find_domain_directory(path: str, domain: bytes) -> str:
    """Give the directory of a domain in A-labels: the one that is there, however it is written."""
    try:
        for name in os.listdir(path):
            if fold_domain(os.fsencode(name)) == domain and os.path.isdir(f"{path}/{name}"):
                return f"{path}/{name}"
    except OSError:
        pass  # whoever reads or writes in it will say why
    return f"{path}/{domain.decode()}"


def _belongs(name: str) -> bool:
    return (name.endswith(KEY_SUFFIX) and not name.startswith(".")) or name == ACTIVE


def _is_domain(name: str) -> bool:
    try:
        parse_domain(name)
    except ValueError:
        return False
    return True


def _unlistable(path: str, error: OSError | ValueError) -> Fault:
    """Say why a directory cannot be listed, and what mends it."""
    if not isinstance(error, OSError):  # a NUL in the name
        return Fault("", str(error), path)
    if isinstance(error, PermissionError) and os.access(path, os.X_OK):
        problem = f"cannot be listed ({error.strerror}), would be right: chmod 0750 {path}"
        return Fault("", problem, path)
    if isinstance(error, PermissionError):
        return unreadable(f"{path}/.", error)._replace(file=path)  # something in it: the way is closed
    return Fault("", f"cannot be listed ({error.strerror}), would be right: a directory", path)


def _signature(path: str) -> tuple[int, ...]:
    try:
        status = os.stat(path)
    except (OSError, ValueError):
        return ()
    return (status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)


def _read_files(listing: _Listing, *, all_private: bool = False) -> dict[str, bytes]:
    """Read files. Raises ConfigError with the faults of all of them."""
    texts, faults = {}, []
    for path in listing:
        file = WatchedFile(path, bytes, private=all_private or path.endswith(KEY_SUFFIX))
        try:
            file.load()
        except ConfigError as error:
            faults += error.faults
        texts[path] = file.text
    if faults:
        raise ConfigError(faults)
    return texts


def _parse_group(directory: str, texts: dict[str, bytes]) -> DomainKeys:
    return parse_domain_keys(directory, {os.path.basename(path): text for path, text in texts.items()})


def _expand(pattern: str) -> Iterator[str]:
    """Give the files that a path in the signing table means: with % in it, one for each domain."""
    if AUTHOR_DOMAIN not in pattern:
        yield pattern
        return
    before, _, after = pattern.partition(AUTHOR_DOMAIN)
    directory, _, begin = before.rpartition("/")
    component = f"{begin}{AUTHOR_DOMAIN}{after.partition('/')[0]}"
    try:
        names = sorted(os.listdir(directory or "/"))
    except OSError:
        return
    for name in names:
        domain = match_path(component, name)
        path = pattern.replace(AUTHOR_DOMAIN, domain)
        if domain and _is_domain(domain) and os.path.lexists(path):
            yield path
