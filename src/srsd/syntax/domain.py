"""Domain names as they are compared: A-labels in lower case (RFC 5890), without a trailing dot."""

from __future__ import annotations

# idna and the codec machinery load these two at the first name that is not ASCII; by then the
# daemon may be a user that cannot read Python's library.
import encodings.punycode  # noqa: F401 - for its being loaded
import re
from typing import TYPE_CHECKING

import idna
import idna.uts46data

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

# RFC 1035 §2.3.4. The underscore is not for host names, but mail domains have it.
_LABEL = rb"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?"
_NAME_MAXIMUM = 253  # octets, without the trailing dot
_NAME = re.compile(rb"(?=.{1,%d}\Z)" % _NAME_MAXIMUM + _LABEL + rb"(?:\." + _LABEL + rb")*")
# idna's work grows faster than its input; nothing that takes more octets can become a domain name.
DOMAIN_OCTETS_MAXIMUM = 1024


def fold_domain(domain: bytes) -> bytes | None:
    """Bring a domain as it stands in an address to the form in which domains are compared.

    Whatever is ASCII is only lower-cased and loses a trailing dot, so an address literal
    comes back too. None for what equals no domain name: what IDNA refuses (RFC 5891), and
    what is too long for one.
    """
    if domain.isascii():
        folded = domain.lower()
    elif len(domain) > DOMAIN_OCTETS_MAXIMUM:
        return None
    else:
        try:
            folded = idna.encode(domain.decode(), uts46=True, transitional=False).lower()
        except UnicodeError:  # idna.IDNAError is one
            return None
    if folded.endswith(b"."):
        folded = folded[:-1]
    return folded if len(folded) <= _NAME_MAXIMUM else None


def parse_domain(text: str) -> bytes:
    """Parse a domain name that an admin wrote; gives it folded.

    Raises ValueError with the reason.
    """
    folded = fold_domain(text.encode(errors="surrogateescape"))
    if folded is None or not _NAME.fullmatch(folded):
        raise ValueError(f"{text!r} is not a domain name")
    return folded


def parents(folded: bytes) -> Iterator[bytes]:
    """Give each domain above a folded one, the nearest first: a.b.c -> b.c, c."""
    dot = folded.find(b".")
    while dot >= 0:
        folded = folded[dot + 1 :]
        yield folded
        dot = folded.find(b".")


class DomainSet:
    """Domains to compare with: `example.org` is that domain, `.example.org` all its subdomains.

    Raises ValueError for an entry that is no domain name.
    """

    __slots__ = ("_exact", "_subdomains_of")

    def __init__(self, patterns: Iterable[str]) -> None:
        exact, above = set(), set()
        for pattern in patterns:
            if pattern.startswith("."):
                above.add(parse_domain(pattern[1:]))
            else:
                exact.add(parse_domain(pattern))
        self._exact = frozenset(exact)
        self._subdomains_of = frozenset(above)

    def __contains__(self, folded: bytes | None) -> bool:
        """Tell whether a domain from fold_domain belongs."""
        if folded is None:
            return False
        if folded in self._exact:
            return True
        return bool(self._subdomains_of) and any(parent in self._subdomains_of for parent in parents(folded))
