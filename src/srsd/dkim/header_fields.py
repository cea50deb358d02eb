"""The header fields under a signature: chosen from the bottom up, canonicalized, joined (RFC 6376 §3.7)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from srsd.dkim.canonicalization import RELAXED, canonical_field, relaxed_value
from srsd.syntax.taglist import without_value

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from srsd.syntax.header import HeaderField


class HeaderFields:
    """The header of a message, for any number of signatures over it."""

    __slots__ = ("_by_name", "_canonical")

    def __init__(self, fields: Iterable[HeaderField]) -> None:
        self._by_name: dict[bytes, list[HeaderField]] = {}
        # By canonicalization and name; several signatures cover much the same.
        self._canonical: dict[bytes, dict[bytes, list[bytes]]] = {}
        by_name = self._by_name
        for field in fields:
            name = field[0].lower().rstrip(b" \t")  # field_name, without a call for each field
            if name in by_name:
                by_name[name].append(field)
            else:
                by_name[name] = [field]

    def named(self, name: bytes) -> list[HeaderField]:
        """Give the fields of a name in lower case, from the top."""
        return self._by_name.get(name, [])

    def counts(self) -> dict[bytes, int]:
        """Tell how many fields there are of each name, in lower case."""
        return {name: len(fields) for name, fields in self._by_name.items()}

    def canonical(
        self, names: Iterable[bytes], canonicalization: bytes, apart_from: HeaderField | None = None
    ) -> bytes:
        """Give the fields that an h= names, in lower case, as they are hashed, each with its CRLF.

        The last one of a name is taken first (§5.4.2); names for which there is no more field add nothing.
        apart_from is the signature itself, which its own h= never means (§3.5).
        """
        chosen: list[bytes] = []
        left: dict[bytes, list[bytes]] = {}
        known = self._canonical.setdefault(canonicalization, {})
        own_name = None if apart_from is None else field_name(apart_from)
        for name in names:
            instances = left.get(name)
            if instances is None:
                found = self._by_name.get(name)
                if found is None:
                    continue
                canonical = known.get(name)
                if canonical is None:
                    canonical = known[name] = _canonical_fields(name, found, canonicalization)
                if len(canonical) == 1 and name != own_name:
                    chosen += canonical
                    left[name] = []
                    continue
                if name == own_name:
                    pairs = zip(found, canonical, strict=True)
                    instances = [each for field, each in pairs if field is not apart_from]
                else:
                    instances = canonical.copy()
                left[name] = instances
            if instances:
                chosen.append(instances.pop())
        chosen.append(b"")
        return b"\r\n".join(chosen)


def _canonical_fields(name: bytes, fields: Sequence[HeaderField], canonicalization: bytes) -> list[bytes]:
    """Canonicalize all fields of a name."""
    if canonicalization == RELAXED:  # as canonical_field does, whose name is this one
        if len(fields) == 1:
            return [name + b":" + relaxed_value(fields[0][1])]
        return [name + b":" + relaxed_value(value) for _, value in fields]
    return [canonical_field(canonicalization, *field) for field in fields]


def field_name(field: HeaderField) -> bytes:
    """Give the name of a field as names are compared. Blanks may stand before the colon (RFC 5322 §4.5)."""
    return field.name.lower().rstrip(b" \t")


def canonical_signature_field(canonicalization: bytes, name: bytes, value: bytes) -> bytes:
    """Give a signature's own field as it is hashed, last and without CRLF: its b= is empty (§3.7)."""
    return canonical_field(canonicalization, name, without_value(value, b"b"))
