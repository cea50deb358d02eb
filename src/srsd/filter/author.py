"""The author of a message, as its From field names it."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from srsd.syntax.domain import fold_domain
from srsd.syntax.mailbox_list import parse_mailbox_list

if TYPE_CHECKING:
    from collections.abc import Iterable

    from srsd.syntax.address import Address
    from srsd.syntax.header import HeaderField


class Author(NamedTuple):
    """The one author of a message, or why there is not exactly one."""

    address: Address | None
    domain: bytes  # folded; b"" without an address
    problem: str = ""


def find_author(fields: Iterable[HeaderField]) -> Author:
    """Find the author: there must be one From field, and one address in it (RFC 5322 §3.6.2)."""
    values = [value for name, value in fields if len(name.rstrip()) == 4 and name.lower().rstrip() == b"from"]
    if not values:
        return Author(None, b"", "there is no From field")
    if len(values) > 1:
        return Author(None, b"", "there are several From fields")
    addresses = parse_mailbox_list(values[0])
    if addresses is None:
        return Author(None, b"", "the From field cannot be parsed")
    if len(addresses) > 1:
        return Author(None, b"", "there are several addresses in From")
    domain = fold_domain(addresses[0].domain)
    if domain is None or domain.startswith(b"["):
        return Author(None, b"", "the address in From has no domain name")
    return Author(addresses[0], domain)
