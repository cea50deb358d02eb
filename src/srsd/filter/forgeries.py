"""Authentication-Results that claim to be ours before we have written any (RFC 8601 §5)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from srsd.authres import claims, is_authentication_results, parse_results
from srsd.syntax.domain import fold_domain
from srsd.wire.milter import ChangeHeader

if TYPE_CHECKING:
    from collections.abc import Iterable

    from srsd.syntax.header import HeaderField

AUTHENTICATION_RESULTS = b"Authentication-Results"


class Forgeries:
    """Watches the header go by, and keeps the places of the fields that must go."""

    __slots__ = ("_authserv_id", "_seen", "bears_our_results", "positions")

    def __init__(self, authserv_id: bytes) -> None:
        self._authserv_id = fold_domain(authserv_id) or authserv_id
        self.bears_our_results = False  # beyond doubt: a field that others would take for ours, too
        self._seen = 0
        self.positions: list[int] = []  # among the fields of that name, from 1 at the top

    def see(self, fields: Iterable[HeaderField]) -> None:
        """Look at the next header fields."""
        for name, value in fields:
            if name[:1] in (b"A", b"a") and is_authentication_results(name):
                self._look_at(value)

    def _look_at(self, value: bytes) -> None:
        self._seen += 1
        if claims(value, self._authserv_id):
            self.positions.append(self._seen)
            if self.bears_our_results:
                return
            parsed = parse_results(value)
            if parsed is not None and fold_domain(parsed.authserv_id) == self._authserv_id:
                self.bears_our_results = True

    def removals(self) -> list[ChangeHeader]:
        """Give the deletions, the lowest field first: a deleted one counts no more for those after it."""
        if not self.positions:
            return []
        return [ChangeHeader(position, AUTHENTICATION_RESULTS) for position in reversed(self.positions)]
