"""The key record in DNS (RFC 6376 §3.6.1, RFC 8463 §4), and whether it is good for a signature (§6.1.2)."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple, Protocol

from srsd.crypto import KeyFlaw, KeyType, PublicKey, parse_public_key
from srsd.dkim.result import Reason
from srsd.dkim.signature import Flaw
from srsd.resolving import Outcome
from srsd.syntax.taglist import TagListFlaw, decode_base64, parse_tag_list, split_list

if TYPE_CHECKING:
    from srsd.resolving import Answer

_RECORD_MAXIMUM = 4096  # octets: an RSA key of 4096 bits takes 740; what is kept is bounded by it
_RECORDS_KEPT = 512
_KEY_TYPES = {key_type.value: key_type for key_type in KeyType}
_KEY_FLAWS = {
    KeyFlaw.MALFORMED: Reason.KEY_UNUSABLE,
    KeyFlaw.EXPONENT: Reason.KEY_UNUSABLE,
    KeyFlaw.TOO_SHORT: Reason.KEY_TOO_SHORT,
    KeyFlaw.TOO_LONG: Reason.KEY_TOO_LONG,
}


class KeyRecord(NamedTuple):
    """A key record that may be used."""

    public_key: PublicKey
    testing: bool  # t=y
    strict: bool  # t=s: i= must be in d= itself


@lru_cache(maxsize=_RECORDS_KEPT)
def parse_key_record(record: bytes) -> KeyRecord | Flaw:
    """Parse a key record. Those that were asked for lately are kept, parsed, with their keys."""
    if len(record) > _RECORD_MAXIMUM:
        return Flaw(Reason.KEY_MALFORMED, f"above {_RECORD_MAXIMUM} octets")
    tags = parse_tag_list(record)
    if isinstance(tags, TagListFlaw):
        return Flaw(Reason.KEY_MALFORMED, tags.value)
    flaw = _find_flaw(tags)
    if flaw is not None:
        return flaw
    key_type = _KEY_TYPES.get(tags.get(b"k", b"rsa"))
    if key_type is None:
        return Flaw(Reason.KEY_TYPE)
    octets = decode_base64(tags[b"p"])
    if octets is None:
        return Flaw(Reason.KEY_MALFORMED, "p=")
    public_key = parse_public_key(key_type, octets)
    if isinstance(public_key, KeyFlaw):
        return Flaw(_KEY_FLAWS[public_key])
    flags = split_list(tags.get(b"t", b""))
    return KeyRecord(public_key, b"y" in flags, b"s" in flags)


def _find_flaw(tags: dict[bytes, bytes]) -> Flaw | None:
    """Find what makes a record useless whatever its key is."""
    if b"v" in tags and (tags[b"v"] != b"DKIM1" or next(iter(tags)) != b"v"):
        return Flaw(Reason.KEY_VERSION)
    if b"p" not in tags:
        return Flaw(Reason.KEY_MALFORMED, "p=")
    if b"h" in tags and b"sha256" not in split_list(tags[b"h"]):
        return Flaw(Reason.KEY_HASH)
    if not {b"*", b"email"} & {*split_list(tags.get(b"s", b"*"))}:
        return Flaw(Reason.KEY_SERVICE)
    if not tags[b"p"]:
        return Flaw(Reason.KEY_REVOKED)
    return None


class KeyUser(Protocol):
    """What wants a key: a Signature, or anything else that is verified with a key record."""

    @property
    def key_type(self) -> KeyType:
        """The kind of key that the algorithm wants."""
        ...

    @property
    def identity_is_below(self) -> bool:
        """Tell whether the identity is in a subdomain of the signing domain."""
        ...


def key_for(signature: KeyUser, answer: Answer[bytes], minimum_bits: int) -> KeyRecord | Flaw:
    """Find the key for a signature in the answer to the query for it."""
    if answer.outcome is not Outcome.FOUND:
        reason = Reason.KEY_UNAVAILABLE if answer.outcome.temporary else Reason.NO_KEY
        return Flaw(reason, answer.outcome.value)
    if len(answer.records) != 1:  # §3.6.2.2: undefined; guessing which one was meant helps nobody
        return Flaw(Reason.SEVERAL_KEYS)
    record = parse_key_record(answer.records[0])
    if isinstance(record, Flaw):
        return record
    public_key = record.public_key
    if public_key.key_type is not signature.key_type:
        return Flaw(Reason.KEY_TYPE)
    if record.strict and signature.identity_is_below:
        return Flaw(Reason.KEY_STRICT)
    if public_key.key_type is KeyType.RSA and public_key.bits < minimum_bits:
        return Flaw(Reason.KEY_BELOW_MINIMUM, f"{public_key.bits} of {minimum_bits} bits")
    return record
