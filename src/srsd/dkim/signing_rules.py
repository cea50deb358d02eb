"""Who signs, and who may write as whom: the key directory and the two tables, together."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from srsd.dkim.keystore import KeyChoice, parse_key_store
from srsd.dkim.login_table import LoginTable, parse_login_table
from srsd.dkim.signing_table import SigningTable, parse_signing_table
from srsd.errors import ConfigError
from srsd.syntax.domain import fold_domain, parse_domain
from srsd.syntax.setting import setting

if TYPE_CHECKING:
    from collections.abc import Mapping

    from srsd.dkim.keystore import KeyStore
    from srsd.errors import Fault
    from srsd.syntax.address import Address

NOT_A_DOMAIN = "the author domain is not a domain name"


def _absolute_or_empty(value: str) -> str | None:
    good = not value or (value.startswith("/") and "\0" not in value)
    return None if good else f'"{value}" is not absolute, would be right: a path from /, or "" for none'


def _absolute(value: str) -> str | None:
    return _absolute_or_empty(value or " ")


@dataclass(frozen=True, kw_only=True)
class DkimKeyParameters:
    """Which keys sign for whom."""

    key_directory: str = setting(
        "/etc/srsd/dkim",
        "Keys: DOMAIN/SELECTOR.pem, which must not be open to others: root:srsd 0640 is good. "
        "DOMAIN/active lists the selectors that sign. May be absent.",
        _absolute,
    )
    signing_table: str = setting(
        "",
        "File of rules in OpenDKIM's syntax, KeyTable and SigningTable in one. "
        "Authors that no line fits are signed for by key_directory.",
        _absolute_or_empty,
    )
    login_table: str = setting(
        "",
        "File that says which SASL login may use which From: `login address, @domain, .domain`.",
        _absolute_or_empty,
    )


class SigningTexts(NamedTuple):
    """The texts of all files that say who signs."""

    key_files: Mapping[str, bytes] = {}  # of the key directory, by path
    table_keys: Mapping[str, bytes] = {}  # what the signing table names, by path
    signing_table: bytes = b""
    login_table: bytes | None = None  # None: there is none, so everybody may write as anybody

    def pack(self) -> bytes:
        """Make one text of them."""
        plain = [
            {path: text.decode("latin-1") for path, text in self.key_files.items()},
            {path: text.decode("latin-1") for path, text in self.table_keys.items()},
            self.signing_table.decode("latin-1"),
            None if self.login_table is None else self.login_table.decode("latin-1"),
        ]
        return json.dumps(plain).encode()

    @classmethod
    def unpack(cls, packed: bytes) -> SigningTexts:
        """Take them out of what pack gave; nothing is in b""."""
        if not packed:
            return cls()
        key_files, table_keys, signing_table, login_table = json.loads(packed)
        return cls(
            {path: text.encode("latin-1") for path, text in key_files.items()},
            {path: text.encode("latin-1") for path, text in table_keys.items()},
            signing_table.encode("latin-1"),
            None if login_table is None else login_table.encode("latin-1"),
        )


class SigningRules:
    """Decides who signs for an author."""

    def __init__(self, keys: KeyStore, table: SigningTable | None, logins: LoginTable | None) -> None:
        self.keys = keys
        self.table = table
        self.logins = logins  # None: no table, nothing is forbidden

    def choose(self, author: Address) -> KeyChoice:
        """Say who signs for the one author of a message: by the signing table, else by the key directory."""
        domain = fold_domain(author.domain)
        try:
            if domain is None or parse_domain(domain.decode()) != domain:
                return KeyChoice((), NOT_A_DOMAIN)
        except ValueError:
            return KeyChoice((), NOT_A_DOMAIN)
        if self.table is None:
            return self.keys.signers_for(domain)
        by_table = self.table.choose(author.local_part, domain)
        if by_table.signers:
            return by_table
        by_directory = self.keys.signers_for(domain)
        if by_directory.signers:
            return by_directory
        return KeyChoice((), f"{by_table.reason}, {by_directory.reason}")


def parse_signing_rules(
    texts: SigningTexts, parameters: DkimKeyParameters
) -> tuple[SigningRules, list[Fault]]:
    """Parse the texts of all files. Gives the rules, and what an admin should know.

    Raises ConfigError with the faults of all of them.
    """
    faults: list[Fault] = []
    warnings: list[Fault] = []
    keys = table = logins = None
    try:
        keys = parse_key_store(texts.key_files)
        warnings += keys.warnings
    except ConfigError as error:
        faults += error.faults
    try:
        if texts.login_table is not None:
            logins = parse_login_table(texts.login_table)
    except ConfigError as error:
        error.name_file(parameters.login_table)
        faults += error.faults
    try:
        if texts.signing_table:
            lines = parse_signing_table(texts.signing_table)
            warnings += (each._replace(file=parameters.signing_table) for each in lines.warnings)
            if keys is not None:
                table = SigningTable(lines, keys, texts.table_keys)
    except ConfigError as error:
        error.name_file(parameters.signing_table)
        faults += error.faults
    if faults or keys is None:
        raise ConfigError(faults)
    return SigningRules(keys, table, logins), warnings
