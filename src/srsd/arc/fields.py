"""The values of the three ARC fields, read with distrust (RFC 8617 §4.1).

Tags have the rules of DKIM. In two things the ABNF of RFC 8617 is not followed: i= may stand anywhere in
the tag-lists, as those who test for ARC want it, and no comment may stand beside it there, as nobody
writes it. A comment that is in the way of ARC-Authentication-Results' i= has no comments within.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple

from srsd.dkim.canonicalization import RELAXED
from srsd.dkim.result import Reason
from srsd.dkim.signature import (
    FIELD_MAXIMUM,
    Flaw,
    Labels,
    Signature,
    are_names,
    find_bad_times,
    find_illegal,
    find_missing,
    find_unknown,
    key_name_of,
    key_type_of,
    read_canonicalizations,
    read_hashes,
    read_labels,
    read_signature_octets,
)
from srsd.syntax.structured import many
from srsd.syntax.taglist import TagListFlaw, parse_tag_list, split_list

if TYPE_CHECKING:
    from srsd.crypto import KeyType
    from srsd.syntax.header import HeaderField

_SEAL_TAGS = (b"i", b"a", b"b", b"cv", b"d", b"s")
_OPTIONAL_SEAL_TAGS = (b"t", b"h")  # of which h= is known for being forbidden; others mean nothing here
_MESSAGE_SIGNATURE_TAGS = (b"a", b"b", b"bh", b"d", b"h", b"s")
_NOT_OF_DKIM = (b"i", b"v")  # §4.1.2: i= is the instance, v= is not defined and so ignored
_CHAIN_STATUS = (b"none", b"pass", b"fail")

_POSITION = re.compile(rb"[0-9]{1,2}")  # §3.9
_COMMENT = rb"\([^()\\]*+" + many(rb"\\.[^()\\]*+") + rb"\)"
_CFWS = many(rb"[ \t\r\n]++|" + _COMMENT)
_INSTANCE = re.compile(
    _CFWS + rb"i" + _CFWS + rb"=" + _CFWS + rb"([0-9]{1,2})(?![0-9])" + _CFWS + rb";", re.DOTALL
)


class Seal(NamedTuple):
    """An ARC-Seal that can be verified, once there is a key."""

    key_type: KeyType
    signature: bytes  # b=, decoded
    key_name: bytes  # selector._domainkey.domain, in A-labels
    identity_is_below: bool = False  # there is no identity (§4.1.3): the key's t=s means nothing


class AuthenticationResultsField(NamedTuple):
    """An ARC-Authentication-Results field. The instance is 0 where there is no legal one, here and below."""

    field: HeaderField
    instance: int
    payload: bytes


class MessageSignatureField(NamedTuple):
    """An ARC-Message-Signature field."""

    field: HeaderField
    instance: int
    labels: Labels
    signature: Signature | Flaw


class SealField(NamedTuple):
    """An ARC-Seal field."""

    field: HeaderField
    instance: int
    chain_status: bytes  # cv=, in lower case; b"" for none or an unknown one
    labels: Labels
    seal: Seal | Flaw


def read_authentication_results(field: HeaderField) -> AuthenticationResultsField:
    """Read i=, and where the payload begins; the payload's syntax does not matter to a chain (§3.4)."""
    value = field.value
    found = _INSTANCE.match(value) if len(value) <= FIELD_MAXIMUM else None
    if found is None:
        return AuthenticationResultsField(field, 0, b"")
    return AuthenticationResultsField(field, int(found[1]), value[found.end() :])


def read_message_signature(field: HeaderField, now: int) -> MessageSignatureField:
    """Read an ARC-Message-Signature (§4.1.2). now is in seconds since 1970.

    Unlike a DKIM-Signature it may leave From out, and name nothing at all: whether it covers From is for
    those to ask who believe its sealer. That it must not cover ARC-Seal is the one rule of those about h=
    in §4.1.2 that validators hold.
    """
    tags = _read_tags(field.value)
    if isinstance(tags, Flaw):
        return MessageSignatureField(field, 0, Labels(), tags)
    instance = _read_instance(tags)
    for tag in _NOT_OF_DKIM:
        tags.pop(tag, None)
    labels = read_labels(tags)
    flaw = (
        find_missing(tags, _MESSAGE_SIGNATURE_TAGS)
        or find_unknown(tags, labels)
        or find_illegal(labels)
        or find_bad_times(tags, now)
    )
    return MessageSignatureField(field, instance, labels, flaw or _read_signature(tags, labels))


def read_seal(field: HeaderField) -> SealField:
    """Read an ARC-Seal (§4.1.3). The time in t= has to be a number, and is not compared with ours."""
    tags = _read_tags(field.value)
    if isinstance(tags, Flaw):
        return SealField(field, 0, b"", Labels(), tags)
    instance = _read_instance(tags)
    tags = {tag: tags[tag] for tag in (*_SEAL_TAGS, *_OPTIONAL_SEAL_TAGS) if tag in tags}
    status = tags.get(b"cv", b"").lower()
    labels = read_labels({tag: value for tag, value in tags.items() if tag != b"i"})
    flaw = (
        find_missing(tags, _SEAL_TAGS)
        or find_unknown(tags, labels)
        or find_illegal(labels)
        or _find_flaw_of_seals(tags, status)
    )
    known = status if status in _CHAIN_STATUS else b""
    return SealField(field, instance, known, labels, flaw or _read_seal(tags, labels))


def _read_tags(value: bytes) -> dict[bytes, bytes] | Flaw:
    if len(value) > FIELD_MAXIMUM:
        return Flaw(Reason.FIELD_TOO_LONG)
    tags = parse_tag_list(value)
    return Flaw(Reason.MALFORMED, tags.value) if isinstance(tags, TagListFlaw) else tags


def _read_instance(tags: dict[bytes, bytes]) -> int:
    value = tags.get(b"i", b"")
    return int(value) if _POSITION.fullmatch(value) else 0


def _read_signature(tags: dict[bytes, bytes], labels: Labels) -> Signature | Flaw:
    # Without c= this would be simple/simple (RFC 6376 §3.5), but the test-suite that came with ARC, and
    # those who were written to it, mean what ARC does everywhere else.
    canonicalizations = read_canonicalizations(tags) if b"c" in tags else (RELAXED, RELAXED)
    if canonicalizations is None:
        return Flaw(Reason.UNKNOWN_CANONICALIZATION)
    names = [name for name in split_list(tags[b"h"].lower()) if name]
    if not are_names(names) or b"arc-seal" in names:
        return Flaw(Reason.TAG_INVALID, "h=")
    return read_hashes(tags, labels, canonicalizations, tuple(names))


def _find_flaw_of_seals(tags: dict[bytes, bytes], status: bytes) -> Flaw | None:
    if b"h" in tags:
        return Flaw(Reason.TAG_INVALID, "h=")
    if status not in _CHAIN_STATUS:
        return Flaw(Reason.TAG_INVALID, "cv=")
    if b"t" in tags and not tags[b"t"].isdigit():
        return Flaw(Reason.TAG_INVALID, "t=")
    return None


def _read_seal(tags: dict[bytes, bytes], labels: Labels) -> Seal | Flaw:
    signature = read_signature_octets(tags)
    if signature is None:
        return Flaw(Reason.TAG_INVALID, "b=")
    return Seal(key_type_of(tags), signature, key_name_of(labels))
