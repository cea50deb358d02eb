"""Finding an author among the patterns of a signing table, in either of OpenDKIM's two ways.

Patterns, local-parts and domains are in lower case, domains in A-labels.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from srsd.syntax.domain import parents

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

_ADDRESS_MAXIMUM = 1024  # octets: nothing longer is looked for with wildcards


class BySpecificity:
    """The search of OpenDKIM's file: tables."""

    def __init__(self, patterns: Iterable[bytes]) -> None:
        self._indexes = {pattern: index for index, pattern in enumerate(patterns)}

    def find(self, local_part: bytes, domain: bytes) -> Iterator[int]:
        """Give the indexes of the patterns that fit, the one that counts first."""
        indexes = self._indexes
        for pattern in _patterns(local_part, domain):
            index = indexes.get(pattern)
            if index is not None:
                yield index


def _patterns(local_part: bytes, domain: bytes) -> Iterator[bytes]:
    user = local_part + b"@"
    yield user + domain
    yield domain
    for parent in parents(domain):
        yield user + b"." + parent
        yield b"." + parent
    yield user + b"*"
    yield b"*"


class InOrder:
    """The search of OpenDKIM's refile: tables: the first line that fits."""

    def __init__(self, patterns: Iterable[bytes]) -> None:
        self._plain: dict[bytes, int] = {}
        self._hosts: dict[bytes, int] = {}  # *@host, of which there may be thousands
        self._others: list[tuple[int, list[bytes]]] = []
        for index, pattern in enumerate(patterns):
            user, _, host = pattern.rpartition(b"@")
            if b"*" not in pattern:
                self._plain[pattern] = index
            elif user == b"*" and b"*" not in host:
                self._hosts[host] = index
            else:
                self._others.append((index, pattern.split(b"*")))

    def find(self, local_part: bytes, domain: bytes) -> Iterator[int]:
        """Give the indexes of the patterns that fit, the one that counts first."""
        address = local_part + b"@" + domain
        found = []
        for table, key in ((self._plain, address), (self._hosts, domain)):
            index = table.get(key)
            if index is not None:
                found.append(index)
        if len(address) <= _ADDRESS_MAXIMUM:
            found += (index for index, pieces in self._others if _fits(pieces, address))
        return iter(sorted(found))


def _fits(pieces: list[bytes], text: bytes) -> bool:
    """Tell whether a text consists of these pieces, in order, with anything between them."""
    if len(text) < len(pieces[0]) + len(pieces[-1]):
        return False
    if not text.startswith(pieces[0]) or not text.endswith(pieces[-1]):
        return False
    at, end = len(pieces[0]), len(text) - len(pieces[-1])
    for piece in pieces[1:-1]:
        at = text.find(piece, at, end)
        if at < 0:
            return False
        at += len(piece)
    return True
