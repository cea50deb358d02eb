"""The signing table: who signs for which author, in the syntax of OpenDKIM's KeyTable and SigningTable.

    # KeyTable: a name, then d=, s= and the file of the key
    esp       esp.example:s1:/etc/srsd/esp.pem
    each      %:mail:/etc/opendkim/keys/%/mail.private      # % is the author domain

    # SigningTable: an author, then names of keys, or of keys in the key directory
    news@example.org    esp, s1._domainkey.example.org
    .example.net        each

Both may stand in one file, in any order. Without wildcards inside of patterns the most specific line counts,
as in OpenDKIM's file: tables; with one, such as *@example.com, the first line that fits, as in its refile:
tables. What is written of OpenDKIM here was seen when 2.11 was run.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from srsd.dkim.author_search import BySpecificity, InOrder
from srsd.dkim.keystore import (
    KeyChoice,
    make_signer,
    parse_key,
    parse_selector,
    parse_signing_domain,
    split_key_name,
)
from srsd.dkim.sign import Signer
from srsd.errors import ConfigError, Fault
from srsd.syntax.address import parse_address
from srsd.syntax.domain import parse_domain

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from srsd.crypto import PrivateKey
    from srsd.dkim.keystore import KeyStore

AUTHOR_DOMAIN = "%"  # stands for the author domain
NO_RULE = "no line of the signing table fits"
_KEYS_MAXIMUM = 8  # signatures by one line; verifiers look at no more than a few
_PATTERN_HELP = "would be right: user@host, host, user@.domain, .domain, user@*, * or, say, *@host"


class KeyLine(NamedTuple):
    """A line of the KeyTable."""

    line: int
    domain: bytes  # d= in A-labels; b"": the author domain
    selector: bytes
    path: str  # of the key's file; may hold %


class Rule(NamedTuple):
    """A line of the SigningTable."""

    line: int
    pattern: bytes  # as it is looked for: in lower case, domains in A-labels
    names: tuple[str, ...]  # of keys
    names_domain: bool  # so that keys of another domain may sign: this author was meant


class TableLines(NamedTuple):
    """A signing table as it is written, before there are keys."""

    keys: dict[str, KeyLine]
    rules: list[Rule]
    in_order: bool  # the first line that fits counts
    warnings: list[Fault]

    @property
    def paths(self) -> list[str]:
        """The files of its keys, each once; may hold % for author domains."""
        return list(dict.fromkeys(each.path for each in self.keys.values()))


def parse_signing_table(text: bytes) -> TableLines:
    """Parse the text of a signing table. Raises ConfigError with all its faults."""
    faults: list[Fault] = []
    keys: dict[str, KeyLine] = {}
    written: list[tuple[int, str, str]] = []
    for number, name, value in _read_lines(text, faults):
        if value.count(":") < 2:
            written.append((number, name, value))
            continue
        try:
            line = _parse_key_line(number, value)
            if name in keys:
                problem = f'the key "{name}" is in line {keys[name].line} already'
                raise ValueError(f"{problem}, would be right: another name")
            keys[name] = line
        except ValueError as error:
            faults.append(Fault(f"line {number}", str(error)))
    in_order = any(_has_wildcard(pattern) for _, pattern, _ in written)
    rules = _parse_rules(written, faults, in_order=in_order)
    if faults:
        raise ConfigError(sorted(faults, key=lambda fault: int(fault.where.split()[1])))
    left_out = "names a signer (i=) after the colon, which srsd leaves out: it is @ and d= then"
    warnings = [Fault(f"line {number}", left_out) for number, _, value in written if ":" in value]
    return TableLines(keys, rules, in_order, warnings)


def _read_lines(text: bytes, faults: list[Fault]) -> Iterator[tuple[int, str, str]]:
    """Give each line's number, first word and rest. Only ASCII blanks separate; # begins a comment."""
    for number, raw in enumerate(text.split(b"\n"), 1):
        words = [
            word.decode(errors="surrogateescape") for word in raw.partition(b"#")[0].strip().split(maxsplit=1)
        ]
        if len(words) == 2:
            yield number, words[0], words[1]
        elif words:
            problem = f"{words[0]!r} stands alone, would be right: the name of a key after it"
            faults.append(Fault(f"line {number}", problem))


def _parse_rules(
    written: Sequence[tuple[int, str, str]], faults: list[Fault], *, in_order: bool
) -> list[Rule]:
    rules: dict[bytes, Rule] = {}
    for number, pattern, value in written:
        try:
            rule = _parse_rule(number, pattern, value, in_order=in_order)
            if rule.pattern in rules:
                problem = f"{pattern!r} is in line {rules[rule.pattern].line} already"
                raise ValueError(f"{problem}, would be right: one line with all its keys: name, name")
            rules[rule.pattern] = rule
        except ValueError as error:
            faults.append(Fault(f"line {number}", str(error)))
    return list(rules.values())


def _parse_key_line(number: int, value: str) -> KeyLine:
    """Parse what a key's name stands for. Raises ValueError."""
    domain, selector, path = (part.strip() for part in value.split(":", 2))
    if not path.startswith("/") or "\0" in path:
        raise ValueError(f"{path[:20]!r} is no file, would be right: the path of the private key, from /")
    return KeyLine(
        number,
        b"" if domain == AUTHOR_DOMAIN else parse_signing_domain(domain),
        parse_selector(selector),
        path,
    )


def _has_wildcard(pattern: str) -> bool:
    """Tell whether a pattern has a * where only refile: tables have one."""
    return "*" in pattern.removesuffix("@*") and pattern != "*"


def _parse_rule(number: int, pattern: str, value: str, *, in_order: bool) -> Rule:
    """Parse a pattern and the keys that it chooses. Raises ValueError."""
    names = tuple(dict.fromkeys(name.strip() for name in value.partition(":")[0].split(",")))
    for name in names:
        if not name or len(name.split()) > 1:
            raise ValueError(f"{value!r} is no list of keys, would be right: name, name")
    if len(names) > _KEYS_MAXIMUM:
        raise ValueError(f"has {len(names)} keys, would be right: {_KEYS_MAXIMUM} at most")
    user, at, host = pattern.rpartition("@")
    if at:
        parsed = _parse_user(user) + b"@" + _parse_host(host, pattern)
    elif in_order and "*" not in pattern:
        parsed = b"*@" + _parse_host(pattern, pattern)  # as in the other kind of table
    else:
        parsed = _parse_host(pattern, pattern)
    if in_order:
        parsed = parsed.replace(b"@.", b"@*.", 1)
    return Rule(number, parsed, names, _names_domain(parsed))


def _parse_user(user: str) -> bytes:
    """Parse the local-part of a pattern, perhaps quoted. Raises ValueError."""
    octets = user.encode(errors="surrogateescape")
    address = parse_address(octets + b"@x")
    if address is None:
        raise ValueError(f"{user!r} is no local-part, {_PATTERN_HELP}")
    return address.local_part.lower()


def _parse_host(host: str, pattern: str) -> bytes:
    """Parse the domain of a pattern: a name, .name, or something with wildcards. Raises ValueError."""
    fixed = host.rpartition("*")[2]
    prefix = host[: len(host) - len(fixed)]
    if fixed.startswith("."):
        prefix += "."
        fixed = fixed[1:]
    if fixed.isascii() and "*" in prefix:
        octets = fixed.lower().encode()
        good = not octets.translate(None, b"abcdefghijklmnopqrstuvwxyz0123456789_.-@")
    else:
        try:
            octets, good = parse_domain(fixed), True
        except ValueError:
            good = False
    if not good or not prefix.isascii():
        raise ValueError(f"{pattern!r} is no pattern for authors, {_PATTERN_HELP}")
    return prefix.lower().encode() + octets


def _names_domain(pattern: bytes) -> bool:
    """Tell whether a pattern was written for certain domains, and not for whatever comes."""
    host = pattern.rpartition(b"@")[2]
    _, star, fixed = host.rpartition(b"*")
    if star and not fixed.startswith(b"."):
        return False  # *example.org also fits evil-example.org
    return b"." in fixed.removeprefix(b".")


class _Reference(NamedTuple):
    """A key that a rule may choose."""

    line: KeyLine
    key: PrivateKey | dict[bytes, PrivateKey]  # by author domain, where the path holds %

    def signer(self, author_domain: bytes) -> Signer | None:
        key = self.key.get(author_domain) if isinstance(self.key, dict) else self.key
        domain = self.line.domain or author_domain
        return make_signer(domain, self.line.selector, key) if key is not None and b"." in domain else None


class SigningTable:
    """A signing table with its keys."""

    def __init__(self, lines: TableLines, store: KeyStore, files: Mapping[str, bytes]) -> None:
        """Find the keys. files are those that lines.paths name, by path; what holds % once for each domain.

        Raises ConfigError with all faults; those without a file are the table's.
        """
        self.rules = lines.rules
        faults: list[Fault] = []
        known = {name: _Reference(line, _find_keys(line, files, faults)) for name, line in lines.keys.items()}
        self._by_author_domain = {_folded_name(name): reference for name, reference in known.items()}
        self._references: list[list[Signer | _Reference | None]] = []
        for rule in lines.rules:
            self._references.append([_find(name, rule, known, store, faults) for name in rule.names])
        if faults:
            raise ConfigError(dict.fromkeys(faults))
        search = InOrder if lines.in_order else BySpecificity
        self._search: InOrder | BySpecificity = search([rule.pattern for rule in lines.rules])

    def choose(self, local_part: bytes, author_domain: bytes) -> KeyChoice:
        """Say who signs for an author: the local-part without quoting, the domain from fold_domain.

        A line that names no domain, such as *, does not count where its keys are of another domain.
        """
        refused = ""
        for index in self._search.find(local_part.lower(), author_domain):
            choice = self._apply(index, author_domain)
            if choice.signers:
                return choice
            refused = refused or choice.reason
        return KeyChoice((), refused or NO_RULE)

    def _apply(self, index: int, author_domain: bytes) -> KeyChoice:
        rule = self.rules[index]
        where = f"line {rule.line} of the signing table"
        signers = []
        reason = where
        refused = f"{where} has no key for the author domain"
        for reference in self._references[index]:
            signer = self._signer(reference, author_domain)
            if signer is None:
                continue
            if author_domain != signer.domain and not author_domain.endswith(b"." + signer.domain):
                if not rule.names_domain:
                    refused = f"{where} names no domain, and its key is of another one"
                    continue
                reason = f"{where}, by a third party"
            signers.append(signer)
        return KeyChoice(tuple(signers), reason if signers else refused)

    def _signer(self, reference: Signer | _Reference | None, author_domain: bytes) -> Signer | None:
        if isinstance(reference, Signer):
            return reference
        if reference is None:  # the name of the key is %
            reference = self._by_author_domain.get(author_domain)
        return reference.signer(author_domain) if reference is not None else None


def _find_keys(
    line: KeyLine, files: Mapping[str, bytes], faults: list[Fault]
) -> PrivateKey | dict[bytes, PrivateKey]:
    """Find the key of a line of the KeyTable, or the keys if its path holds %."""
    found: dict[bytes, PrivateKey] = {}
    if AUTHOR_DOMAIN not in line.path:
        key = _parse_file(line.path, files, faults)
        if key is not None:
            return key
        if line.path not in files:
            faults.append(Fault(f"line {line.line}", f"the key {line.path} cannot be read"))
        return found
    for path in files:
        part = match_path(line.path, path)
        if part:
            try:
                domain = parse_domain(part)
            except ValueError:
                continue
            key = _parse_file(path, files, faults)
            if key is not None:
                found[domain] = key
    return found


def _parse_file(path: str, files: Mapping[str, bytes], faults: list[Fault]) -> PrivateKey | None:
    try:
        return parse_key(files[path]) if path in files else None
    except ValueError as error:
        faults.append(Fault("", str(error), path))
        return None


def match_path(pattern: str, path: str) -> str:
    """Give what stands in a path in the places where a pattern has %; "" where they do not fit."""
    count = pattern.count(AUTHOR_DOMAIN)
    length, rest = divmod(len(path) - len(pattern) + count, count)
    begin = pattern.index(AUTHOR_DOMAIN)
    part = path[begin : begin + length] if length > 0 and not rest else ""
    return part if "/" not in part and pattern.replace(AUTHOR_DOMAIN, part) == path else ""


def _folded_name(name: str) -> bytes:
    """Give the name of a key as the author domain that it may be."""
    try:
        return parse_domain(name)
    except ValueError:
        return b""


def _find(
    name: str, rule: Rule, known: Mapping[str, _Reference], store: KeyStore, faults: list[Fault]
) -> Signer | _Reference | None:
    """Find the key of a name; None for %, which is another for each author domain."""
    if name == AUTHOR_DOMAIN:
        return None
    reference = known.get(name)
    if reference is None:
        names = split_key_name(name)
        signer = store.find(*names) if names else None
        if signer is not None:
            return signer
        problem = f'there is no key "{name}"'
        right = "would be right: a line NAME DOMAIN:SELECTOR:PATH for it, or SELECTOR._domainkey.DOMAIN"
        faults.append(Fault(f"line {rule.line}", f"{problem}, {right} of the key directory"))
    elif not reference.line.domain or isinstance(reference.key, dict):
        return reference
    else:
        signer = reference.signer(b"")
        if signer is not None:
            return signer
        problem = f'the key "{name}" has too long a name for DNS'
        faults.append(Fault(f"line {reference.line.line}", f"{problem}, would be right: a shorter selector"))
    return None
