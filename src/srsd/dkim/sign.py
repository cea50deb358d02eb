"""Signing a message (RFC 6376 §5), in steps; the RSA of the middle one may be done by another thread.

plan = plan_signing(fields, signers, now, parameters)
hashes = BodyHashes([plan.body_hash]); the body goes through hashes.feed()
for unsigned in plan.prepare(hashes.finish()[plan.body_hash]):
    value = unsigned.complete(unsigned.key.sign(unsigned.digest))
"""

from __future__ import annotations

import hashlib
from binascii import b2a_base64
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple

from srsd.dkim.canonicalization import RELAXED, BodyHash, BodyHashKey, canonical_field
from srsd.dkim.header_fields import HeaderFields
from srsd.syntax.setting import between, setting

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from srsd.crypto import PrivateKey
    from srsd.syntax.header import HeaderField

_FIELD_NAME = b"DKIM-Signature"
_COLUMNS = 77  # under the 78 of RFC 5322 §2.1.1, a tab counting eight
FOLD = b"\n\t"
_FOLDED_ROOM = _COLUMNS - 8  # after the tab
_INSTANCES_MAXIMUM = 50  # of one name; RFC 5322 allows one of most
_SECONDS_OF_DAY = 86_400


def first_room(field_name: bytes) -> int:
    """Give the octets of the first line of a field that its value has room for."""
    return _COLUMNS - len(field_name) - 1


_FIRST_ROOM = first_room(_FIELD_NAME)


@dataclass(frozen=True, kw_only=True)
class DkimSigningParameters:
    """How signatures are made."""

    expiry: int = setting(0, "Days until our signatures expire (x=); 0: never.", between(0, 3650))


class FieldChoice(NamedTuple):
    """Which header fields are signed: names in lower case.

    All instances are signed of what is signed; of what is oversigned one more than there are, so that
    none can be added (RFC 6376 §5.4).
    """

    oversigned: tuple[bytes, ...]
    signed: tuple[bytes, ...]


# What readers and programs see and act upon, and what may stand in a message only once. Mailing lists
# add their own List fields and Sender: those are signed where they are, and more may come. Received,
# Return-Path, Bcc, signatures and Authentication-Results change on the way (§5.4.1).
DEFAULT_CHOICE = FieldChoice(
    oversigned=(
        *(b"from", b"subject", b"date", b"to", b"cc", b"reply-to", b"message-id"),
        *(b"content-type", b"mime-version"),
    ),
    signed=(
        *(b"sender", b"in-reply-to", b"references"),
        *(b"content-transfer-encoding", b"content-disposition", b"content-id", b"content-description"),
        *(b"resent-from", b"resent-sender", b"resent-date", b"resent-to", b"resent-cc", b"resent-message-id"),
        *(b"list-id", b"list-help", b"list-subscribe", b"list-post", b"list-owner", b"list-archive"),
        *(b"list-unsubscribe", b"list-unsubscribe-post"),  # RFC 8058 §4 wants both signed
    ),
)


class Signer(NamedTuple):
    """Who signs: d= and s= in A-labels, and the key whose public part DNS has at s._domainkey.d."""

    domain: bytes
    selector: bytes
    key: PrivateKey


class UnsignedField(NamedTuple):
    """A field such as DKIM-Signature that is complete but for its b=."""

    key: PrivateKey
    digest: bytes  # what key.sign takes
    value: bytes  # up to and with the b=

    def complete(self, signature: bytes) -> bytes:
        """Give the field's value: it begins with a blank, lines end with LF."""
        text = b2a_base64(signature, newline=False)
        room = _FOLDED_ROOM - len(b"b=")
        lines = [text[:room]]
        lines += (text[at : at + _FOLDED_ROOM] for at in range(room, len(text), _FOLDED_ROOM))
        return self.value + FOLD.join(lines)


class SigningPlan:
    """Signatures that only want the hash of the body. The header fields are not needed any more."""

    __slots__ = ("_canonical_header", "_expires", "_names", "_now", "_signers")

    body_hash = BodyHashKey(RELAXED)

    def __init__(
        self,
        signers: Sequence[Signer],
        names: Sequence[bytes],
        canonical_header: bytes,
        now: int,
        expires: int,
    ) -> None:
        self._signers = signers
        self._names = names
        self._canonical_header = canonical_header
        self._now = now
        self._expires = expires

    def prepare(self, body: BodyHash) -> list[UnsignedField]:
        """Give what is to be signed, in the order of the signers."""
        names = names_tag(self._names)
        body_hash = b2a_base64(body.digest, newline=False)
        header = hashlib.sha256(self._canonical_header)
        return [self._prepare(signer, names, body_hash, header.copy()) for signer in self._signers]

    def finish(self, body: BodyHash) -> list[bytes]:
        """Sign here and now; gives the values of the fields."""
        return [unsigned.complete(unsigned.key.sign(unsigned.digest)) for unsigned in self.prepare(body)]

    def _prepare(
        self, signer: Signer, names: bytes, body_hash: bytes, header: hashlib._Hash
    ) -> UnsignedField:
        tags = [b" d=%b;" % signer.domain, b" s=%b;" % signer.selector, b" t=%d;" % self._now]
        if self._expires:
            tags.append(b" x=%d;" % self._expires)
        first = b" v=1; a=%b; c=relaxed/relaxed;" % signer.key.key_type.algorithm
        value = FOLD.join((fold_tags(first, tags, _FIRST_ROOM), names, b"bh=%b;" % body_hash, b"b="))
        header.update(canonical_field(RELAXED, _FIELD_NAME, value))
        return UnsignedField(signer.key, header.digest(), value)


def plan_signing(
    fields: Iterable[HeaderField],
    signers: Sequence[Signer],
    now: int,
    parameters: DkimSigningParameters,
    choice: FieldChoice = DEFAULT_CHOICE,
) -> SigningPlan:
    """Choose and canonicalize what is signed. now is in seconds since 1970.

    Whether the message may be signed, and by whom, is decided elsewhere.
    """
    header = HeaderFields(fields)
    names = names_to_sign(header, choice)
    expires = now + parameters.expiry * _SECONDS_OF_DAY if parameters.expiry else 0
    return SigningPlan(signers, names, header.canonical(names, RELAXED), now, expires)


def names_to_sign(header: HeaderFields, choice: FieldChoice) -> tuple[bytes, ...]:
    """Give what stands in the h=, for the fields that a header has."""
    counts = header.counts()
    names: list[bytes] = []
    for name in choice.oversigned:
        names += [name] * (min(counts.get(name, 0), _INSTANCES_MAXIMUM) + 1)
    for name in choice.signed:
        if name in counts:
            names += [name] * min(counts[name], _INSTANCES_MAXIMUM)
    return tuple(names)


@lru_cache(maxsize=64)
def names_tag(names: tuple[bytes, ...]) -> bytes:
    """Give the h=. Messages of one kind have the same."""
    return fold_tags(b"h=", [name + b":" for name in names[:-1]] + [names[-1] + b";"], _FOLDED_ROOM)


def fold_tags(first: bytes, pieces: Iterable[bytes], room: int) -> bytes:
    """Join pieces, folded where a line would grow too long. room is what the first line has left."""
    lines: list[bytes] = []
    line = first
    for piece in pieces:
        if len(line) + len(piece) > room:
            lines.append(line.rstrip(b" "))
            line = piece.lstrip(b" ")
            room = _FOLDED_ROOM
        else:
            line += piece
    lines.append(line)
    return FOLD.join(lines)
