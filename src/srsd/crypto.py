"""Signatures: rsa-sha256 (RFC 8017 PKCS #1 v1.5, RFC 8301) and ed25519-sha256 (RFC 8463).

Both sign and verify a SHA-256 digest that the caller made. Nothing here imports at the time of a call.
"""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.asymmetric.rsa import (
    RSAPrivateKey,
    RSAPrivateNumbers,
    RSAPublicKey,
    RSAPublicNumbers,
    generate_private_key,
)
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, Literal

RSA_BITS_MINIMUM = 1024  # RFC 8301 §3.2: signers must not sign with less, verifiers must not accept it
RSA_BITS_MAXIMUM = 4096  # what verifiers must accept; beyond it the time for one signature grows fast
EXPONENT_MAXIMUM = 1 << 32  # verification takes as many multiplications as the exponent has bits
ED25519_KEY_OCTETS = 32
ED25519_SIGNATURE_OCTETS = 64
_PEM_MAXIMUM = 8192  # octets; checking what would need more takes seconds
_EXPONENT = 65537  # RFC 6376 §3.3.1

_PADDING = PKCS1v15()
_HASH = Prehashed(SHA256())


class KeyType(Enum):
    """Kinds of keys; the value is the k= of a key record, and with -sha256 the a= of a signature."""

    RSA = b"rsa"
    ED25519 = b"ed25519"

    @property
    def algorithm(self) -> bytes:
        """The a= of a signature with such a key."""
        return self.value + b"-sha256"


class KeyFlaw(Enum):
    """Why a public key is not used; the value is the phrase for an admin."""

    MALFORMED = "the public key is malformed"
    TOO_SHORT = "the key is shorter than 1024 bits"
    TOO_LONG = "the key is longer than 4096 bits"
    EXPONENT = "the key's public exponent is not usable"


class PublicKey:
    """A public key whose size is known to be harmless."""

    __slots__ = ("_how", "_verify", "bits", "key_type")

    def __init__(self, key: RSAPublicKey | Ed25519PublicKey, key_type: KeyType, bits: int) -> None:
        # Chosen once: to ask an object whether it is an RSAPublicKey takes a microsecond.
        self._verify: Callable[..., None] = key.verify
        self._how: tuple[Any, ...] = (_PADDING, _HASH) if key_type is KeyType.RSA else ()
        self.key_type = key_type
        self.bits = bits

    def verify(self, signature: bytes, digest: bytes) -> bool:
        """Tell whether a signature is one of a SHA-256 digest."""
        try:
            self._verify(signature, digest, *self._how)
        except InvalidSignature:
            return False
        return True


class PrivateKey:
    """A private key that signs."""

    __slots__ = ("_key", "bits", "key_type")

    def __init__(self, key: RSAPrivateKey | Ed25519PrivateKey) -> None:
        self._key = key
        self.key_type = KeyType.RSA if isinstance(key, RSAPrivateKey) else KeyType.ED25519
        self.bits = key.key_size if isinstance(key, RSAPrivateKey) else ED25519_KEY_OCTETS * 8

    def sign(self, digest: bytes) -> bytes:
        """Sign a SHA-256 digest. Other threads may run meanwhile, and may use the same key."""
        key = self._key
        if isinstance(key, RSAPrivateKey):
            return key.sign(digest, _PADDING, _HASH)
        return key.sign(digest)

    def public_octets(self) -> bytes:
        """Give the public key as p= of a key record holds it, before base64.

        RSA: SubjectPublicKeyInfo in DER; Ed25519: its 32 octets (RFC 8463 §4.2).
        """
        key = self._key
        if isinstance(key, RSAPrivateKey):
            return key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        return key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)

    def pem(self) -> bytes:
        """Give the key as an unencrypted PKCS #8 file."""
        return self._key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def generate_key(key_type: KeyType, bits: Literal[1024, 2048, 3072, 4096] = 2048) -> PrivateKey:
    """Make a new key. bits is for RSA."""
    if key_type is KeyType.ED25519:
        return PrivateKey(Ed25519PrivateKey.generate())
    return PrivateKey(generate_private_key(_EXPONENT, bits))


def load_private_key(pem: bytes) -> PrivateKey:
    """Read a PEM file, RSA or Ed25519, unencrypted. Raises ValueError: what is wrong, what would be right.

    The numbers of an RSA key must belong together: a damaged key could give its secret away with a
    signature. That its primes are primes is taken for granted: OpenSSL's check of that takes tens of
    milliseconds, and a host may have hundreds of keys.
    """
    right = "would be right: an unencrypted RSA or Ed25519 private key in PEM"
    if len(pem) > _PEM_MAXIMUM:
        raise ValueError(f"has more than {_PEM_MAXIMUM} octets, {right}")
    try:
        key = load_pem_private_key(pem, None, unsafe_skip_rsa_key_validation=True)
    except TypeError:  # of all things
        raise ValueError(f"is encrypted, {right}") from None
    except (ValueError, UnsupportedAlgorithm):
        raise ValueError(f"is not a private key that can be read, {right}") from None
    if isinstance(key, Ed25519PrivateKey):
        return PrivateKey(key)
    if not isinstance(key, RSAPrivateKey):
        raise ValueError(f"is a key of another kind, {right}")  # noqa: TRY004 - the caller knows one error
    if not RSA_BITS_MINIMUM <= key.key_size <= RSA_BITS_MAXIMUM:
        raise ValueError(
            f"is an RSA key of {key.key_size} bits, "
            f"would be right: {RSA_BITS_MINIMUM} to {RSA_BITS_MAXIMUM}, best 2048"
        )
    if key.public_key().public_numbers().e > EXPONENT_MAXIMUM:
        raise ValueError(f"is an RSA key with a public exponent above 2^32, would be right: {_EXPONENT}")
    if not _belong_together(key.private_numbers()):
        raise ValueError(f"is an RSA key whose numbers do not belong together, {right}")
    return PrivateKey(key)


def _belong_together(numbers: RSAPrivateNumbers) -> bool:
    """Tell whether the numbers of an RSA key obey RFC 8017 §3.2."""
    public, p, q, d = numbers.public_numbers, numbers.p, numbers.q, numbers.d
    return (
        p > 1
        and q > 1
        and p * q == public.n
        and public.e * d % (p - 1) == 1
        and public.e * d % (q - 1) == 1
        and numbers.dmp1 == d % (p - 1)
        and numbers.dmq1 == d % (q - 1)
        and numbers.iqmp * q % p == 1
    )


def parse_public_key(key_type: KeyType, octets: bytes) -> PublicKey | KeyFlaw:
    """Parse the p= of a key record, after base64.

    RSA keys are SubjectPublicKeyInfo, or the bare RSAPublicKey of RFC 6376 §3.6.1. Sizes are looked at
    before anything is calculated.
    """
    if key_type is KeyType.ED25519:
        if len(octets) != ED25519_KEY_OCTETS:
            return KeyFlaw.MALFORMED
        return PublicKey(Ed25519PublicKey.from_public_bytes(octets), key_type, ED25519_KEY_OCTETS * 8)
    integers = _rsa_integers(octets)
    if integers is None:
        return KeyFlaw.MALFORMED
    modulus, exponent = integers
    bits = modulus.bit_length()
    if bits < RSA_BITS_MINIMUM:
        return KeyFlaw.TOO_SHORT
    if bits > RSA_BITS_MAXIMUM:
        return KeyFlaw.TOO_LONG
    if not 3 <= exponent <= EXPONENT_MAXIMUM or exponent % 2 == 0:
        return KeyFlaw.EXPONENT
    if modulus % 2 == 0:
        return KeyFlaw.MALFORMED
    return PublicKey(RSAPublicNumbers(exponent, modulus).public_key(), key_type, bits)


# DER (ITU-T X.690), as much of it as a public key has. The library would read it too, but what it does
# with sizes nobody wants is its own affair.
_INTEGER, _BIT_STRING, _SEQUENCE = 0x02, 0x03, 0x30
# AlgorithmIdentifier rsaEncryption (RFC 3279 §2.3.1); some leave the NULL out.
_RSA_ENCRYPTION = bytes.fromhex("06092a864886f70d010101")
_ALGORITHMS = (_RSA_ENCRYPTION + b"\x05\x00", _RSA_ENCRYPTION)


def _rsa_integers(octets: bytes) -> tuple[int, int] | None:
    """Read modulus and exponent; None for what is not an RSA key."""
    outer = _element(octets, 0, _SEQUENCE)
    if outer is None or outer[1] != len(octets):
        return None
    key = octets[outer[0] :]
    algorithm = _element(key, 0, _SEQUENCE)
    if algorithm is not None:  # SubjectPublicKeyInfo
        begin, end = algorithm
        string = _element(key, end, _BIT_STRING)
        if key[begin:end] not in _ALGORITHMS or string is None or string[1] != len(key):
            return None
        inner = _element(key, string[0] + 1, _SEQUENCE)
        if key[string[0] : string[0] + 1] != b"\0" or inner is None or inner[1] != len(key):
            return None
        key = key[inner[0] :]
    modulus = _element(key, 0, _INTEGER)
    exponent = _element(key, modulus[1], _INTEGER) if modulus else None
    if modulus is None or exponent is None or exponent[1] != len(key):
        return None
    if key[modulus[0]] & 0x80 or key[exponent[0]] & 0x80:
        return None  # negative
    return int.from_bytes(key[slice(*modulus)], "big"), int.from_bytes(key[slice(*exponent)], "big")


def _element(octets: bytes, at: int, tag: int) -> tuple[int, int] | None:
    """Find the contents of the element at an index: (begin, end). None if it is not there; never empty."""
    if len(octets) < at + 2 or octets[at] != tag:
        return None
    length = octets[at + 1]
    begin = at + 2
    if length & 0x80:
        octets_of_length = length & 0x7F
        if octets_of_length not in (1, 2) or len(octets) < begin + octets_of_length:
            return None
        length = int.from_bytes(octets[begin : begin + octets_of_length], "big")
        begin += octets_of_length
    return (begin, begin + length) if length and begin + length <= len(octets) else None
