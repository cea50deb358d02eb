"""The author of a message, as its From field names it."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple

from srsd.syntax.domain import fold_domain
from srsd.syntax.mailbox_list import parse_mailbox_list

if TYPE_CHECKING:
    from collections.abc import Iterable

    from srsd.syntax.address import Address
    from srsd.syntax.header import HeaderField


# From fields that are kept, parsed: those who write once write again, and most mail is sent in numbers.
_KEPT = 1024
_KEPT_OCTETS = 256


class Author(NamedTuple):
    """The one author of a message, or why there is not exactly one.

    Several authors of one domain have that domain, which is what DMARC wants (RFC 9989 §5.3.1).
    """

    address: Address | None
    domain: bytes  # folded; b"" where it is not one
    problem: str = ""  # why there is no address


NO_AUTHOR = Author(None, b"", "there is no From field")


class AuthorSearch:
    """Watches the header go by, and keeps what says who the author is."""

    __slots__ = ("_values",)

    def __init__(self) -> None:
        self._values: list[bytes] = []  # of From fields: two are one too many

    def see(self, fields: Iterable[HeaderField]) -> None:
        """Look at the next header fields."""
        if len(self._values) < 2:
            self._values += [
                value
                for name, value in fields
                if name[:1] in (b"F", b"f") and name.rstrip().lower() == b"from"
            ][:2]

    def author(self) -> Author:
        """Tell the author: there must be one From field (RFC 5322 §3.6.2), and one address in it."""
        if not self._values:
            return NO_AUTHOR
        if len(self._values) > 1:
            return Author(None, b"", "there are several From fields")
        value = self._values[0]
        return _parse_kept(value) if len(value) <= _KEPT_OCTETS else _parse_author(value)


def find_author(fields: Iterable[HeaderField]) -> Author:
    """Find the author in a header that is there as a whole."""
    search = AuthorSearch()
    search.see(fields)
    return search.author()


def _parse_author(value: bytes) -> Author:
    addresses = parse_mailbox_list(value)
    if addresses is None:
        return Author(None, b"", "the From field cannot be parsed")
    domains = {fold_domain(address.domain) for address in addresses}
    domain = domains.pop()
    if domains:
        return Author(None, b"", "there are addresses of several domains in From")
    if domain is None or domain.startswith(b"["):
        return Author(None, b"", "the address in From has no domain name")
    if len(addresses) > 1:
        return Author(None, domain, "there are several addresses in From")
    return Author(addresses[0], domain)


_parse_kept = lru_cache(maxsize=_KEPT)(_parse_author)
