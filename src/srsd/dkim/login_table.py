"""The login table: which SASL login may write as which author.

    # login    authors
    alice      alice@example.org, sales@example.org
    backup     @example.org, .example.org     # that domain; all its subdomains
    root       *                              # anybody
    *          postmaster@example.org         # any login

All matching lines add up; a login that no line is about may write as nobody. Logins and local-parts
ignore case, as Postfix does in smtpd_sender_login_maps; unlike there, a +extension is no magic.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from srsd.errors import ConfigError, Fault
from srsd.syntax.address import parse_address
from srsd.syntax.domain import fold_domain, parents, parse_domain

if TYPE_CHECKING:
    from collections.abc import Iterator

    from srsd.syntax.address import Address

_ANY = "*"
_BLANKS = b" \t\r\v\f"
_COMMENT = re.compile(rb"(?:^|[ \t])#")  # elsewhere it is a legal octet of a local-part
_PATTERN_HELP = "would be right: address, @domain, .domain or *"


class _Authors:
    """The authors that a login may be."""

    __slots__ = ("addresses", "anybody", "domains", "subdomains_of")

    def __init__(self) -> None:
        self.anybody = False
        self.addresses: set[tuple[bytes, bytes]] = set()
        self.domains: set[bytes] = set()
        self.subdomains_of: set[bytes] = set()

    def add(self, pattern: str) -> None:
        """Add a pattern. Raises ValueError for what is none."""
        if pattern == _ANY:
            self.anybody = True
        elif pattern.startswith("@"):
            self.domains.add(_parse_domain(pattern[1:]))
        elif pattern.startswith("."):
            self.subdomains_of.add(_parse_domain(pattern[1:]))
        else:
            address = parse_address(pattern.encode(errors="surrogateescape"))
            if address is None or b"*" in address.local_part:  # nobody has one; some take it for a wildcard
                raise ValueError(f"{pattern!r} is no author, {_PATTERN_HELP}")
            domain = _parse_domain(address.domain.decode(errors="surrogateescape"))
            self.addresses.add((address.local_part.lower(), domain))

    def include(self, local_part: bytes, domain: bytes | None) -> bool:
        """Tell whether an author is one of them: local-part in lower case, domain from fold_domain."""
        if self.anybody:
            return True
        if domain is None:
            return False
        if domain in self.domains or (local_part, domain) in self.addresses:
            return True
        return bool(self.subdomains_of) and any(each in self.subdomains_of for each in parents(domain))


class LoginTable:
    """A parsed login table."""

    def __init__(self, authors: dict[bytes, _Authors]) -> None:
        self._authors = authors
        self._of_any_login = authors.get(_ANY.encode())

    def allows(self, login: bytes, author: Address) -> bool:
        """Tell whether a login may write as an author. Who is not in the table may not."""
        local_part, domain = author.local_part.lower(), fold_domain(author.domain)
        own = self._authors.get(_fold_login(login))
        found = [each for each in (own, self._of_any_login) if each is not None]
        return any(each.include(local_part, domain) for each in found)

    def __len__(self) -> int:
        """Count the logins."""
        return len(self._authors)


def parse_login_table(text: bytes) -> LoginTable:
    """Parse the text of a login table. Raises ConfigError with all its faults."""
    authors: dict[bytes, _Authors] = {}
    faults = []
    for number, line in _logical_lines(text):
        login, *rest = line.split(maxsplit=1)
        patterns = b"".join(rest).replace(b",", b" ").split()
        try:
            if not patterns:
                raise ValueError(f"{_shown(login)!r} stands alone, {_PATTERN_HELP} after it")
            if b"," in login:
                raise ValueError(f"{_shown(login)!r} is several logins, would be right: one on a line")
            of_login = authors.setdefault(_fold_login(login), _Authors())
            for pattern in patterns:
                of_login.add(_shown(pattern))
        except ValueError as error:
            faults.append(Fault(f"line {number}", str(error)))
    if faults:
        raise ConfigError(faults)
    return LoginTable(authors)


def _logical_lines(text: bytes) -> Iterator[tuple[int, bytes]]:
    """Drop comments and blank lines; a line that begins with a blank continues the one before it."""
    start, line = 0, b""
    for number, raw in enumerate(text.split(b"\n"), 1):
        stripped = _COMMENT.split(raw, maxsplit=1)[0].strip(_BLANKS)
        if not stripped:
            continue
        if line and raw[:1] in (b" ", b"\t"):
            line += b" " + stripped
            continue
        if line:
            yield start, line
        start, line = number, stripped
    if line:
        yield start, line


def _fold_login(login: bytes) -> bytes:
    """Bring a login to the form in which logins are compared."""
    try:
        return login.decode().casefold().encode()
    except UnicodeDecodeError:
        return login.lower()


def _parse_domain(text: str) -> bytes:
    try:
        return parse_domain(text)
    except ValueError as error:
        raise ValueError(f"{error}, {_PATTERN_HELP}") from None


def _shown(octets: bytes) -> str:
    return octets.decode(errors="surrogateescape")
