"""The ARC Sets of a message (RFC 8617 §4.2), and whether they make a chain (§5.2 steps 1 to 3)."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, TypeVar

from srsd.arc.fields import (
    AuthenticationResultsField,
    MessageSignatureField,
    SealField,
    read_authentication_results,
    read_message_signature,
    read_seal,
)
from srsd.dkim.header_fields import field_name
from srsd.dkim.signature import Flaw

if TYPE_CHECKING:
    from collections.abc import Iterable

    from srsd.syntax.header import HeaderField

SETS_MAXIMUM = 50  # §4.2.1

_AAR, _AMS, _AS = b"arc-authentication-results", b"arc-message-signature", b"arc-seal"
_FieldRead = TypeVar("_FieldRead", AuthenticationResultsField, MessageSignatureField, SealField)


class FieldsOfSet(NamedTuple):
    """The three fields of a set."""

    authentication_results: AuthenticationResultsField
    message_signature: MessageSignatureField
    seal: SealField


class Chain(NamedTuple):
    """What a message has of ARC. Either there are sets, one at least, or there is a fault."""

    sets: tuple[FieldsOfSet, ...] = ()  # complete, from instance 1 on
    fault: str = ""  # what makes the chain fail before any signature is looked at
    highest_instance: int = 0  # that stands in any of the fields, legal or not
    ended: bool = False  # the seal with the highest instance says cv=fail: nobody seals after it (§5.1)


def find_chain(fields: Iterable[HeaderField], now: int) -> Chain | None:
    """Find the ARC fields of a message and put them into their sets; None where there are none.

    Fields are counted before they are read: above fifty of a kind none is. now is in seconds since 1970.
    """
    found: dict[bytes, list[HeaderField]] = {_AAR: [], _AMS: [], _AS: []}
    for field in fields:
        if field[0][:1] in (b"A", b"a"):
            kind = found.get(field_name(field))
            if kind is not None:
                kind.append(field)
    if not any(found.values()):
        return None
    if max(map(len, found.values())) > SETS_MAXIMUM:
        return Chain(fault=f"there are more than {SETS_MAXIMUM} sets", highest_instance=SETS_MAXIMUM)
    return _order(
        [read_authentication_results(field) for field in found[_AAR]],
        [read_message_signature(field, now) for field in found[_AMS]],
        [read_seal(field) for field in found[_AS]],
    )


def _order(
    authentication_results: list[AuthenticationResultsField],
    message_signatures: list[MessageSignatureField],
    seals: list[SealField],
) -> Chain:
    highest = max(
        *(each.instance for each in authentication_results),
        *(each.instance for each in message_signatures),
        *(each.instance for each in seals),
        0,
        0,  # max wants two
    )
    ended = any(seal.instance == highest and seal.chain_status == b"fail" for seal in seals)
    fault = "the newest AS says that the chain failed before" if ended else ""
    fault = (
        fault
        or _find_bad_instance("AAR", authentication_results)
        or _find_bad_instance("AMS", message_signatures)
        or _find_bad_instance("AS", seals)
        or _find_missing("AAR", authentication_results, highest)
        or _find_missing("AMS", message_signatures, highest)
        or _find_missing("AS", seals, highest)
    )
    if fault:
        return Chain((), fault, highest, ended)
    sets = tuple(
        FieldsOfSet(*each)
        for each in zip(
            _by_instance(authentication_results),
            _by_instance(message_signatures),
            _by_instance(seals),
            strict=True,
        )
    )
    fault = _find_bad_status(sets)
    return Chain((), fault, highest) if fault else Chain(sets, "", highest)


def _by_instance(fields: list[_FieldRead]) -> list[_FieldRead]:
    return sorted(fields, key=lambda each: each.instance)


def _find_bad_instance(kind: str, fields: list[_FieldRead]) -> str:
    """Find a field that belongs to no set, and a second one of its kind in a set."""
    seen = set()
    for each in fields:
        if not 1 <= each.instance <= SETS_MAXIMUM:
            return f"an {kind} has no instance from 1 to {SETS_MAXIMUM}{_why_unread(each)}"
        if each.instance in seen:
            return f"set {each.instance} has more than one {kind}"
        seen.add(each.instance)
    return ""


def _why_unread(field: AuthenticationResultsField | MessageSignatureField | SealField) -> str:
    if isinstance(field, MessageSignatureField) and isinstance(field.signature, Flaw):
        return f" ({field.signature.detail})" if field.signature.detail else ""
    if isinstance(field, SealField) and isinstance(field.seal, Flaw):
        return f" ({field.seal.detail})" if field.seal.detail else ""
    return ""


def _find_missing(kind: str, fields: list[_FieldRead], highest: int) -> str:
    """Find a set without a field of a kind. No instance stands twice in them."""
    instances = {each.instance for each in fields}
    for instance in range(1, highest + 1):
        if instance not in instances:
            return f"set {instance} has no {kind}"
    return ""


def _find_bad_status(sets: tuple[FieldsOfSet, ...]) -> str:
    """Find a cv= that does not fit its place: none in the first set, pass in all others."""
    for each in sets:
        right = b"none" if each.seal.instance == 1 else b"pass"
        if each.seal.chain_status != right:
            return f"AS {each.seal.instance}: cv= is not {right.decode()}"
    return ""
