"""The Sender Rewriting Scheme, guarded: SRS0 and SRS1 local-parts, and the secrets behind them.

The scheme is that of Mail::SRS (Shevek, "The Sender Rewriting Scheme", 2004), which PostSRSd
and pfix-srsd share octet for octet:

    alice@example.com          -> SRS0=HHHH=TT=example.com=alice
    SRS0=HHHH=TT=a=b@example.com -> SRS1=HHHH=example.com==HHHH=TT=a=b

HHHH is the start of base64(HMAC-SHA1(secret, what follows it)), TT the day modulo 1024 in
base 32. Local-parts come and go without quoting. Which domains are ours is not known here.

Where the original does not fit, or shall not be seen, a token stands for it. To everybody else it is an
SRS0 address like any other; `_` stands where the domain would be, and is one of nobody's:

    SRS0=HHHH=TT=_=abcdefgh234567qr
"""

from __future__ import annotations

import hashlib
import hmac
from base64 import b32encode
from binascii import b2a_base64
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, NamedTuple

from srsd.syntax.address import Address
from srsd.syntax.setting import between, setting

if TYPE_CHECKING:
    from collections.abc import Sequence

HASH_MAXIMUM = 27  # base64 of an SHA-1 digest, without its padding
_DAYS = 1024  # two base 32 digits
_BASE32 = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567"
_DIGIT = {octet: number for number, octet in enumerate(_BASE32)} | {
    octet: number for number, octet in enumerate(_BASE32.lower())
}
_SEPARATORS = (b"=", b"+", b"-")
_TAGS = {tag + separator: tag for tag in (b"SRS0", b"SRS1") for separator in _SEPARATORS}
# `+` and `/` are refused in local-parts by enough receivers; `-` and `_` stand for them
# (RFC 4648 §5) in what we make, and mean the same in what we read.
_TO_URL_SAFE = bytes.maketrans(b"+/", b"-_")
# Hashes are compared without regard to case: MTAs on the way may have folded it.
_FOLD_HASH = bytes.maketrans(b"ABCDEFGHIJKLMNOPQRSTUVWXYZ+/", b"abcdefghijklmnopqrstuvwxyz-_")
_HASH_OCTETS = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/-_"
_NOT_IN_DOMAIN = b'@="' + b" \t\r\n\v\f"
_STORED = b"_"  # in place of a domain: a token follows. No domain is called so.
_TOKEN_OCTETS = 10  # of an HMAC: 80 bits, so that no two addresses of one store ever share a token
_TOKEN_LENGTH = _TOKEN_OCTETS * 8 // 5
_NOT_PRINTED = b"\0stored\0"  # no text that an SRS hash is made of begins so: parse_address lets no NUL in


class Refusal(Enum):
    """Why a local-part is not rewritten or reversed; the value is the phrase for replies and logs."""

    NOT_SRS = "not an SRS address"
    MALFORMED = "malformed SRS address"
    HASH_TOO_SHORT = "hash too short"
    HASH_INVALID = "hash invalid"
    EXPIRED = "address expired"
    DOMAIN = "domain cannot be carried in an SRS address"
    UNKNOWN = "stored address unknown"  # a token of ours, and the store does not have it


@dataclass(frozen=True, kw_only=True)
class SrsParameters:
    """How SRS addresses are made and judged."""

    separator: str = setting(
        "=",
        "The character after SRS0 and SRS1 in addresses that srsd makes: one of = + -. All three are read.",
        lambda value: None if value in ("=", "+", "-") else f'is "{value}", would be right: one of = + -',
    )
    hash_length: int = setting(
        4,
        "Characters of the hash in addresses that srsd makes. Each is worth about five bits.",
        between(1, HASH_MAXIMUM),
    )
    hash_minimum: int = setting(
        4,
        "The fewest characters of a hash that are accepted. Not more than hash_length.",
        between(1, HASH_MAXIMUM),
    )
    maximum_age: int = setting(
        21, "Days for which a rewritten address is accepted in bounces.", between(1, _DAYS - 1)
    )


class Keyring:
    """The secrets: the first signs, all of them verify.

    Raises ValueError without a secret, or for an empty one.
    """

    def __init__(self, secrets: Sequence[bytes]) -> None:
        if not secrets or not all(secrets):
            raise ValueError("a keyring needs secrets, and none of them may be empty")
        self._macs = [hmac.new(secret, digestmod="sha1") for secret in secrets]
        self.fingerprints = tuple(fingerprint(secret) for secret in secrets)

    def sign(self, text: bytes) -> bytes:
        """Give the whole hash of a text, HASH_MAXIMUM characters, in the alphabet that we emit."""
        return _hash(self._macs[0], text).translate(_TO_URL_SAFE)

    def token(self, text: bytes) -> bytes:
        """Give the token that stands for a text: the same one for the same text, and nobody can tell which.

        Sixteen base 32 digits (RFC 4648 §6) in lower case. The case of the text counts.
        """
        mac = self._macs[0].copy()
        mac.update(_NOT_PRINTED + text)
        return b32encode(mac.digest()[:_TOKEN_OCTETS]).lower()

    def which(self, text: bytes, given: bytes) -> int | None:
        """Tell which secret made a hash, or the start of one: its index, or None.

        Takes the same time whether and wherever they differ, for hashes of one length.
        """
        given = given.translate(_FOLD_HASH)
        found = None
        for index, mac in enumerate(self._macs):
            expected = _hash(mac, text)[: len(given)].translate(_FOLD_HASH)
            if hmac.compare_digest(given, expected) and found is None:
                found = index
        return found

    def nearly(self, text: bytes, given: bytes) -> bool:
        """Tell whether a hash differs from one of ours in a single character: a sign of damage."""
        given = given.translate(_FOLD_HASH)
        return any(
            sum(a != b for a, b in zip(given, _hash(mac, text).translate(_FOLD_HASH), strict=False)) == 1
            for mac in self._macs
        )


def _hash(mac: hmac.HMAC, text: bytes) -> bytes:
    """Give the hash of a text in the standard base64 alphabet. ASCII letters count as lower case."""
    mac = mac.copy()
    mac.update(text.lower())
    return b2a_base64(mac.digest(), newline=False)[:HASH_MAXIMUM]


def fingerprint(secret: bytes) -> str:
    """Name a secret without telling it: twelve hexadecimal digits."""
    return hashlib.sha256(b"srsd fingerprint\0" + secret).hexdigest()[:12]


def parse_secrets(data: bytes) -> list[bytes]:
    """Read a file of secrets: one a line, surrounding space, tab and CR trimmed, blank lines ignored.

    There are no comments: `#` may begin a secret. A secret that stands twice counts once.
    """
    lines = (line.strip(b" \t\r") for line in data.split(b"\n"))
    return list(dict.fromkeys(line for line in lines if line))


class SrsFields(NamedTuple):
    """The parts of an SRS local-part. For SRS1 there is no stamp, and user is the other forwarder's text."""

    tag: bytes  # b"SRS0" or b"SRS1"
    hash: bytes
    stamp: bytes
    host: bytes
    user: bytes  # the token, where the address is stored

    @property
    def stored(self) -> bool:
        """Tell whether a token stands for the original."""
        return self.host == _STORED and self.tag == b"SRS0"

    @property
    def signed(self) -> bytes:
        """The text that the hash is made of."""
        return self.stamp + self.host + self.user

    @property
    def original(self) -> Address:
        """The address that the local-part was made of. Means nothing where it is stored."""
        return Address(self.user if self.tag == b"SRS0" else b"SRS0" + self.user, self.host)


def is_srs(local_part: bytes) -> bool:
    """Tell whether a local-part has the shape of an SRS address, in any case, with any separator."""
    return local_part[:5].upper() in _TAGS


def parse_srs(local_part: bytes) -> SrsFields | Refusal:
    """Split an SRS local-part into its fields; the hash and the age are not looked at."""
    tag = _TAGS.get(local_part[:5].upper())
    if tag is None:
        return Refusal.NOT_SRS
    fields = local_part[5:].split(b"=", 3 if tag == b"SRS0" else 2)
    if tag == b"SRS0":
        if len(fields) != 4:
            return Refusal.MALFORMED
        given, stamp, host, user = fields
        # Exactly two digits: longer stamps cost time and mean nothing (CVE-2020-35573).
        if len(stamp) != 2 or stamp[0] not in _DIGIT or stamp[1] not in _DIGIT or not user:
            return Refusal.MALFORMED
        if host == _STORED and (len(user) != _TOKEN_LENGTH or any(octet not in _DIGIT for octet in user)):
            return Refusal.MALFORMED
    else:
        if len(fields) != 3:
            return Refusal.MALFORMED
        given, host, user = fields
        stamp = b""
        # A domain in the first field: an SRS1 without a hash, as before Mail::SRS 0.28.
        if user[:1] not in _SEPARATORS or b"." in given:
            return Refusal.MALFORMED
    if not given or not _carriable(host):
        return Refusal.MALFORMED
    return SrsFields(tag, given, stamp, host, user)


def _carriable(domain: bytes) -> bool:
    """Tell whether a domain survives in an SRS address: nothing that ends its field or the address."""
    return bool(domain) and len(domain.translate(None, _NOT_IN_DOMAIN)) == len(domain)


class Token(bytes):
    """What stands for a stored address, in lower case."""

    __slots__ = ()


class Stored(NamedTuple):
    """An address that is to be stored, and what stands for it."""

    local_part: bytes
    token: Token
    original: Address  # what a bounce goes to


class Examination(NamedTuple):
    """Everything that can be said of a local-part that came back, for `srsctl srs explain`."""

    refusal: Refusal | None  # None: it is reversed
    fields: SrsFields | None
    secret: int | None  # which secret made the hash, 0 is the one that signs
    age: int | None  # days, SRS0 only; modulo 1024
    damaged: bool  # the hash is one character off, or holds what no hash holds


class Srs:
    """Makes and reverses SRS local-parts. today is always the number of days since 1970-01-01, UTC."""

    def __init__(self, parameters: SrsParameters, keyring: Keyring) -> None:
        self.keyring = keyring
        self._separator = parameters.separator.encode()
        self._hash_length = parameters.hash_length
        self._hash_minimum = parameters.hash_minimum
        self.maximum_age = parameters.maximum_age

    def forward(self, address: Address, today: int) -> bytes | Refusal:
        """Give the local-part that stands for an address.

        SRS0, or SRS1 for the SRS address of another forwarder.
        """
        local_part, domain = address
        if not _carriable(domain) or domain == _STORED:
            return Refusal.DOMAIN
        if not local_part:
            return Refusal.MALFORMED
        tag = _TAGS.get(local_part[:5].upper())
        if tag is None:
            stamp = _stamp(today)
            digest = self.keyring.sign(stamp + domain + local_part)[: self._hash_length]
            return b"SRS0%b%b=%b=%b=%b" % (self._separator, digest, stamp, domain, local_part)
        if tag == b"SRS0":
            user = local_part[4:]
        else:
            fields = parse_srs(local_part)
            if isinstance(fields, Refusal):
                return fields
            domain, user = fields.host, fields.user
        digest = self.keyring.sign(domain + user)[: self._hash_length]
        return b"SRS1%b%b=%b=%b" % (self._separator, digest, domain, user)

    def forward_stored(self, address: Address, today: int) -> Stored | Refusal:
        """Give the local-part that stands for an address once that is stored.

        It has 25 octets and those of the hash, quotes are never needed. What it is reversed to is what the
        other form is reversed to, so of an SRS1 address the middle hop is left out.
        """
        local_part, domain = address
        if not _carriable(domain) or domain == _STORED:
            return Refusal.DOMAIN
        if not local_part:
            return Refusal.MALFORMED
        if _TAGS.get(local_part[:5].upper()) == b"SRS1":
            fields = parse_srs(local_part)
            if isinstance(fields, Refusal):
                return fields
            address = fields.original
        token = Token(self.keyring.token(bytes(address)))
        stamp = _stamp(today)
        digest = self.keyring.sign(stamp + _STORED + token)[: self._hash_length]
        made = b"SRS0%b%b=%b=%b=%b" % (self._separator, digest, stamp, _STORED, token)
        return Stored(made, token, address)

    def reverse(self, local_part: bytes, today: int) -> Address | Token | Refusal:
        """Give the address that one of our SRS local-parts stands for, or the token of a stored one."""
        fields = parse_srs(local_part)
        if isinstance(fields, Refusal):
            return fields
        if len(fields.hash) < self._hash_minimum:
            return Refusal.HASH_TOO_SHORT
        if self.keyring.which(fields.signed, fields.hash) is None:
            return Refusal.HASH_INVALID
        if fields.stamp and _age(fields.stamp, today) > self.maximum_age:
            return Refusal.EXPIRED
        if fields.host == _STORED and fields.stamp:
            return Token(fields.user.lower())
        return fields.original

    def examine(self, local_part: bytes, today: int) -> Examination:
        """Say everything about a local-part that came back."""
        fields = parse_srs(local_part)
        if isinstance(fields, Refusal):
            return Examination(fields, None, None, None, damaged=False)
        outcome = self.reverse(local_part, today)
        return Examination(
            refusal=outcome if isinstance(outcome, Refusal) else None,
            fields=fields,
            secret=self.keyring.which(fields.signed, fields.hash),
            age=_age(fields.stamp, today) if fields.stamp else None,
            damaged=bool(fields.hash.translate(None, _HASH_OCTETS))
            or len(fields.hash) > HASH_MAXIMUM
            or self.keyring.nearly(fields.signed, fields.hash),
        )


def _stamp(today: int) -> bytes:
    return bytes((_BASE32[today >> 5 & 31], _BASE32[today & 31]))


def _age(stamp: bytes, today: int) -> int:
    """Give the days since a stamp. One in the future has an age just below 1024, so it is refused too."""
    return (today - (_DIGIT[stamp[0]] << 5 | _DIGIT[stamp[1]])) % _DAYS
