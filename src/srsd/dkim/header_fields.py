"""The header fields under a signature: chosen from the bottom up, canonicalized, joined (RFC 6376 §3.7)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from srsd.dkim.canonicalization import RELAXED, canonical_field, relaxed_value
from srsd.syntax.taglist import without_value

if TYPE_CHECKING:
    from collections.abc import Iterable

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
            name = field_name(field)
            if name in by_name:
                by_name[name].append(field)
            else:
                by_name[name] = [field]

    def named(self, name: bytes) -> list[HeaderField]:
        """Give the fields of a name in lower case, from the top."""
        return self._by_name.get(name, [])

    def canonical(
        self, names: Iterable[bytes], canonicalization: bytes, apart_from: HeaderField | None = None
    ) -> bytes:
        """Give the fields that an h= names, in lower case, as they are hashed, each with its CRLF.

        The last one of a name is taken first (§5.4.2); names for which there is no more field add nothing.
        apart_from is the signature itself, which its own h= never means (§3.5).
        """
        chosen: list[bytes] = []
        left: dict[bytes, list[bytes]] = {}
        for name in names:
            if name not in self._by_name:
                continue
            instances = left.get(name)
            if instances is None:
                instances = left[name] = self._instances(name, canonicalization, apart_from)
            if instances:
                chosen.append(instances.pop())
        chosen.append(b"")
        return b"\r\n".join(chosen)

    def _instances(self, name: bytes, canonicalization: bytes, apart_from: HeaderField | None) -> list[bytes]:
        """Give all fields of a name that is there, canonicalized, from the top; the list is the caller's."""
        found = self._by_name[name]
        known = self._canonical.setdefault(canonicalization, {})
        canonical = known.get(name)
        if canonical is None:
            if canonicalization == RELAXED:  # as canonical_field does, whose name is this one
                canonical = [name + b":" + relaxed_value(field.value) for field in found]
            else:
                canonical = [canonical_field(canonicalization, *field) for field in found]
            known[name] = canonical
        if apart_from is not None and field_name(apart_from) == name:
            return [each for field, each in zip(found, canonical, strict=True) if field is not apart_from]
        return canonical.copy()


def field_name(field: HeaderField) -> bytes:
    """Give the name of a field as names are compared. Blanks may stand before the colon (RFC 5322 §4.5)."""
    return field.name.lower().rstrip(b" \t")


def canonical_signature_field(canonicalization: bytes, name: bytes, value: bytes) -> bytes:
    """Give a signature's own field as it is hashed, last and without CRLF: its b= is empty (§3.7)."""
    return canonical_field(canonicalization, name, without_value(value, b"b"))
