"""The value of a DKIM-Signature field, read with distrust (RFC 6376 §3.5, §6.1.1)."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple

from srsd.crypto import ED25519_SIGNATURE_OCTETS, KeyType
from srsd.dkim.canonicalization import RELAXED, SIMPLE, BodyHashKey
from srsd.dkim.result import Reason
from srsd.syntax.domain import DOMAIN_OCTETS_MAXIMUM, parse_domain
from srsd.syntax.taglist import FWS, TagListFlaw, decode_base64, parse_tag_list, split_list

if TYPE_CHECKING:
    from collections.abc import Iterable

FIELD_NAME = b"dkim-signature"
FIELD_MAXIMUM = 65_536  # octets; Postfix cuts header lines at 60,000 where there is a milter
_REQUIRED = (b"v", b"a", b"b", b"bh", b"d", b"h", b"s")
_SHOWN = 8  # characters of b= that tell signatures apart (RFC 8601 §2.7.1, header.b)
_TIME_DIGITS = 12  # §3.5, t= and x=
_METHOD = b"dns/txt"  # how keys are asked for, §3.5, q=
_SHA256_OCTETS = 32
_SIGNATURE_MAXIMUM = 1024  # octets: an RSA key of 8192 bits, twice what we verify
_KEY_NAME_MAXIMUM = 253  # octets, RFC 1035 §2.3.4
_IDENTITY_MAXIMUM = 320  # octets: the longest local-part and the longest domain of RFC 5321
_NAMES_KEPT_MAXIMUM = 1024  # octets of an h= that is kept, parsed
_LABELS_KEPT_MAXIMUM = 512  # octets of a d=, s=, a= and i= that are kept, parsed
_CLOCK_DRIFT = 300  # seconds that a signer's clock may differ from ours (§3.5, x=)

_DOT = ord(".")  # a number is found ten times as fast as a bytes object of one octet

_KEY_TYPES = {key_type.algorithm: key_type for key_type in KeyType}
_CANONICALIZATIONS = {
    header + b"/" + body: (header, body) for header in (SIMPLE, RELAXED) for body in (SIMPLE, RELAXED)
} | {header: (header, SIMPLE) for header in (SIMPLE, RELAXED)}
_ALGORITHM = re.compile(rb"[A-Za-z][A-Za-z0-9]{0,15}-[A-Za-z][A-Za-z0-9]{0,15}")  # sig-a-tag-alg, bounded
_LENGTH = re.compile(rb"[0-9]{1,76}")  # §3.5, l=
_NAMES = bytes(range(33, 127))  # RFC 5322 §3.6.8 ftext, and the colon between names
_HEX_OCTET = re.compile(rb"[0-9A-F]{2}")  # RFC 6376 §2.11
_BASE64 = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/="
# RFC 5321 §4.1.2 and RFC 6531 §3.3. The classes of octets exclude each other: one way through any text.
_LOCAL_PART = re.compile(
    rb"(?:[A-Za-z0-9!#$%&'*+/=?^_`{|}~\x80-\xff-]+(?:\.[A-Za-z0-9!#$%&'*+/=?^_`{|}~\x80-\xff-]+)*"
    rb'|"(?:[ !#-\[\]-~\x80-\xff]|\\[ -~])*")?'
)


class Labels(NamedTuple):
    """What of a signature may be shown; b"" for what is missing or illegal."""

    domain: bytes = b""
    selector: bytes = b""
    algorithm: bytes = b""
    identity: bytes = b""
    signature_start: bytes = b""


class Flaw(NamedTuple):
    """Why a signature is not verified; detail is printable ASCII."""

    reason: Reason
    detail: str = ""

    @property
    def phrase(self) -> str:
        """The reason as an admin reads it, with its detail."""
        return self.reason.phrase_with(self.detail)


class Signature(NamedTuple):
    """A signature that can be verified, once there is a key."""

    key_type: KeyType
    signature: bytes  # b=, decoded
    body_hash: bytes  # bh=, decoded
    body_hash_key: BodyHashKey
    header_canonicalization: bytes
    signed_fields: tuple[bytes, ...]  # h=, in lower case
    key_name: bytes  # selector._domainkey.domain, in A-labels
    identity_is_below: bool  # the domain of i= is a subdomain of d=


def parse_signature(value: bytes, now: int) -> tuple[Labels, Signature | Flaw]:
    """Read the value of a DKIM-Signature field. now is in seconds since 1970.

    Names come out as A-labels in lower case, whichever way they are written (RFC 8616 §5).
    """
    if len(value) > FIELD_MAXIMUM:
        return Labels(), Flaw(Reason.FIELD_TOO_LONG)
    tags = parse_tag_list(value)
    if isinstance(tags, TagListFlaw):
        return Labels(), Flaw(Reason.MALFORMED, tags.value)
    labels = read_labels(tags)
    flaw = (
        find_missing(tags, _REQUIRED)
        or _find_other_version(tags)
        or find_unknown(tags, labels)
        or find_illegal(labels)
        or find_bad_times(tags, now)
    )
    return labels, flaw or _read(tags, labels)


# What fields of the same make are read with, too. Each find function gives the first flaw, or None.


def read_labels(tags: dict[bytes, bytes]) -> Labels:
    """Read what may be shown."""
    get = tags.get
    domain, selector, algorithm, identity = get(b"d", b""), get(b"s", b""), get(b"a", b""), get(b"i")
    usual = len(domain) + len(selector) + len(algorithm) + len(identity or b"") <= _LABELS_KEPT_MAXIMUM
    read = _read_usual_signer if usual else _read_signer
    return Labels(*read(domain, selector, algorithm, identity), _read_start(get(b"b", b"")))


def _read_signer(
    domain: bytes, selector: bytes, algorithm: bytes, identity: bytes | None
) -> tuple[bytes, bytes, bytes, bytes]:
    """Read d=, s=, a= and i= as far as they may be shown."""
    domain = _read_domain(domain)
    if _DOT not in domain:  # §3.5 domain-name: a top-level domain signs nothing
        domain = b""
    return (
        domain,
        _read_domain(selector),
        algorithm if _ALGORITHM.fullmatch(algorithm) else b"",
        (domain and b"@" + domain) if identity is None else _read_identity(identity),
    )


_read_usual_signer = lru_cache(maxsize=1024)(_read_signer)  # most signatures are those of a few signers


def _read_start(signature: bytes) -> bytes:
    """Give the first characters of a b=; b"" where they are no base64."""
    start = signature[:_SHOWN]
    if len(start) == _SHOWN and start.isalnum():  # not folded so early, as nearly all
        return start
    start = signature.translate(None, FWS)[:_SHOWN]
    return b"" if start.translate(None, _BASE64) else start


def _read_domain(value: bytes) -> bytes:
    """Give a domain name in A-labels; b"" for what is none. The trailing dot is none of RFC 5321's."""
    if len(value) > DOMAIN_OCTETS_MAXIMUM or value.endswith(b"."):
        return b""
    try:
        return parse_domain(value.decode())
    except ValueError:
        return b""


def _read_identity(value: bytes) -> bytes:
    """Decode an i= (§3.5, §2.11): its local-part as it is to be quoted or not, the domain in A-labels."""
    text = value.translate(None, FWS)
    if len(text) > 3 * _IDENTITY_MAXIMUM:
        return b""
    decoded = _decode_quoted_printable(text) if b"=" in text else text
    local_part, at, domain = (decoded or b"").rpartition(b"@")
    if not at or len(local_part) > _IDENTITY_MAXIMUM or not _LOCAL_PART.fullmatch(local_part):
        return b""
    if not local_part.isascii() and not _is_printable(local_part):
        return b""
    domain = _read_domain(domain)
    return local_part + b"@" + domain if domain else b""


def _decode_quoted_printable(text: bytes) -> bytes | None:
    """Decode what stands as = and two hexadecimal digits, capitals only (§2.11). None for other =."""
    decoded, *parts = text.split(b"=")
    for part in parts:
        if not _HEX_OCTET.match(part):
            return None
        decoded += bytes.fromhex(part[:2].decode()) + part[2:]
    return decoded


def _is_printable(octets: bytes) -> bool:
    """Tell whether this is UTF-8 (RFC 6532 §3.2), without the line ends and controls that Unicode adds."""
    try:
        return octets.decode().isprintable()
    except UnicodeDecodeError:
        return False


def find_missing(tags: dict[bytes, bytes], required: Iterable[bytes]) -> Flaw | None:
    """Find a required tag that is not there."""
    for tag in required:
        if tag not in tags:
            return Flaw(Reason.TAG_MISSING, f"{tag.decode()}=")
    return None


def _find_other_version(tags: dict[bytes, bytes]) -> Flaw | None:
    return None if tags[b"v"] == b"1" else Flaw(Reason.VERSION)


def find_unknown(tags: dict[bytes, bytes], labels: Labels) -> Flaw | None:
    """Find what RFC 6376 wants a signature to be ignored for: other algorithms, other ways to ask."""
    if tags[b"a"] not in _KEY_TYPES:
        if tags[b"a"] == b"rsa-sha1":
            return Flaw(Reason.HISTORIC_ALGORITHM)
        return Flaw(Reason.UNKNOWN_ALGORITHM) if labels.algorithm else Flaw(Reason.TAG_INVALID, "a=")
    methods = tags.get(b"q", _METHOD)
    if methods != _METHOD and _METHOD not in split_list(methods):
        return Flaw(Reason.UNKNOWN_QUERY)
    return None


def find_illegal(labels: Labels) -> Flaw | None:
    """Find a name that is none, and an i= that is not within d=."""
    if not labels.domain:
        return Flaw(Reason.TAG_INVALID, "d=")
    if not labels.selector or len(key_name_of(labels)) > _KEY_NAME_MAXIMUM:
        return Flaw(Reason.TAG_INVALID, "s=")
    if not labels.identity:
        return Flaw(Reason.TAG_INVALID, "i=")
    domain = labels.identity[labels.identity.rfind(b"@") + 1 :]
    if domain != labels.domain and not domain.endswith(b"." + labels.domain):
        return Flaw(Reason.IDENTITY_OUTSIDE_DOMAIN)
    return None


def find_bad_times(tags: dict[bytes, bytes], now: int) -> Flaw | None:
    """Find what is wrong with t= and x=. now is in seconds since 1970."""
    signed, expires = tags.get(b"t"), tags.get(b"x")
    for tag, value in ((b"t", signed), (b"x", expires)):
        if value is not None and not (len(value) <= _TIME_DIGITS and value.isdigit()):
            return Flaw(Reason.TAG_INVALID, f"{tag.decode()}=")
    if signed is not None and expires is not None and int(expires) <= int(signed):
        return Flaw(Reason.EXPIRES_BEFORE_SIGNED)
    if expires is not None and int(expires) + _CLOCK_DRIFT < now:
        return Flaw(Reason.EXPIRED)
    if signed is not None and int(signed) - _CLOCK_DRIFT > now:
        return Flaw(Reason.FROM_THE_FUTURE)
    return None


def key_name_of(labels: Labels) -> bytes:
    """Give the name at which DNS has the key, of labels without a flaw."""
    return labels.selector + b"._domainkey." + labels.domain


def _read(tags: dict[bytes, bytes], labels: Labels) -> Signature | Flaw:
    """Read what is hashed and how."""
    canonicalizations = read_canonicalizations(tags)
    if canonicalizations is None:
        return Flaw(Reason.UNKNOWN_CANONICALIZATION)
    names = tags[b"h"]
    signed_fields = _read_usual_names(names) if len(names) <= _NAMES_KEPT_MAXIMUM else _read_names(names)
    if isinstance(signed_fields, Flaw):
        return signed_fields
    return read_hashes(tags, labels, canonicalizations, signed_fields)


def _read_names(value: bytes) -> tuple[bytes, ...] | Flaw:
    """Read the h=: names in lower case."""
    names = tuple(split_list(value.lower()))
    if b"" in names or not are_names(names):
        return Flaw(Reason.TAG_INVALID, "h=")
    return names if b"from" in names else Flaw(Reason.FROM_NOT_SIGNED)


_read_usual_names = lru_cache(maxsize=256)(_read_names)  # each signer has one or a few


def read_canonicalizations(tags: dict[bytes, bytes]) -> tuple[bytes, bytes] | None:
    """Read the c=: that of the header, that of the body. None for one that is unknown."""
    return _CANONICALIZATIONS.get(tags.get(b"c", SIMPLE))


def are_names(names: Iterable[bytes]) -> bool:
    """Tell whether these are made of what names of header fields are made of."""
    return not b"".join(names).translate(None, _NAMES)


def read_hashes(
    tags: dict[bytes, bytes],
    labels: Labels,
    canonicalizations: tuple[bytes, bytes],
    signed_fields: tuple[bytes, ...],
) -> Signature | Flaw:
    """Read bh=, b= and l=. The labels have no flaw, and the algorithm is a known one."""
    body_hash = decode_base64(tags[b"bh"])
    if body_hash is None or len(body_hash) != _SHA256_OCTETS:
        return Flaw(Reason.TAG_INVALID, "bh=")
    signature = read_signature_octets(tags)
    if signature is None:
        return Flaw(Reason.TAG_INVALID, "b=")
    length = tags.get(b"l")
    if length is not None and not _LENGTH.fullmatch(length):
        return Flaw(Reason.TAG_INVALID, "l=")
    return Signature(
        key_type_of(tags),
        signature,
        body_hash,
        BodyHashKey(canonicalizations[1], None if length is None else int(length)),
        canonicalizations[0],
        signed_fields,
        key_name_of(labels),
        not labels.identity.endswith(b"@" + labels.domain),
    )


def read_signature_octets(tags: dict[bytes, bytes]) -> bytes | None:
    """Read the b=; None for what cannot be a signature. The algorithm is a known one."""
    signature = decode_base64(tags[b"b"])
    return signature if signature and _may_be_signature(signature, key_type_of(tags)) else None


def key_type_of(tags: dict[bytes, bytes]) -> KeyType:
    """Give the kind of key that the a= wants. The algorithm is a known one."""
    return _KEY_TYPES[tags[b"a"]]


def _may_be_signature(signature: bytes, key_type: KeyType) -> bool:
    """Tell whether a length fits the algorithm; for RSA the key decides in the end."""
    if key_type is KeyType.ED25519:
        return len(signature) == ED25519_SIGNATURE_OCTETS
    return len(signature) <= _SIGNATURE_MAXIMUM
