"""Makes DKIM signatures of any shape, by the letter of RFC 6376 and without srsd's code.

Slow, plain, and on purpose ignorant of what is legal: what it is told to write is signed and verifies.

forge = Forge(rsa_key())
field = forge.sign(fields, body, b" v=1; a=rsa-sha256; d=example.org; s=sel; h=from:to; bh=%BH%; b=%B%")
"""

from __future__ import annotations

import base64
import hashlib
import re
from functools import cache
from typing import TYPE_CHECKING, NamedTuple

from cryptography.hazmat.primitives.asymmetric import ed25519, padding, rsa
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)

from srsd.syntax.header import HeaderField

if TYPE_CHECKING:
    from collections.abc import Sequence


class Key(NamedTuple):
    private: rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey
    record: bytes  # as DNS has it

    @property
    def pem(self) -> bytes:
        """The key as dkimpy takes it."""
        if isinstance(self.private, ed25519.Ed25519PrivateKey):
            return base64.b64encode(self.private.private_bytes_raw())
        return self.private.private_bytes(Encoding.PEM, PrivateFormat.TraditionalOpenSSL, NoEncryption())


@cache
def rsa_key(bits: int = 1024, number: int = 0) -> Key:
    """Make an RSA key, the same one for each number in one run."""
    private = rsa.generate_private_key(65537, bits)
    der = private.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return Key(private, b"v=DKIM1; k=rsa; p=" + base64.b64encode(der))


@cache
def ed25519_key(number: int = 0) -> Key:
    private = ed25519.Ed25519PrivateKey.generate()
    return Key(private, b"v=DKIM1; k=ed25519; p=" + base64.b64encode(private.public_key().public_bytes_raw()))


def key_from_pem(pem: bytes, record: bytes) -> Key:
    private = load_pem_private_key(pem, None)
    assert isinstance(private, rsa.RSAPrivateKey)
    return Key(private, record)


# Canonicalization as RFC 6376 §3.4 words it, step by step.


def canonical_body(body: bytes, canonicalization: bytes) -> bytes:
    lines = body.split(b"\r\n")
    if canonicalization == b"relaxed":
        lines = [re.sub(rb"[ \t]+", b" ", line) for line in lines]
        lines = [line[:-1] if line.endswith(b" ") else line for line in lines]
    while lines and not lines[-1]:
        lines.pop()
    if not lines:
        return b"" if canonicalization == b"relaxed" else b"\r\n"
    return b"\r\n".join(lines) + b"\r\n"


def canonical_field(field: HeaderField, canonicalization: bytes) -> bytes:
    value = re.sub(rb"\r?\n", b"\r\n", field.value)
    if canonicalization == b"simple":
        return field.name + b":" + value
    value = re.sub(rb"[ \t]+", b" ", value.replace(b"\r\n", b""))
    name = re.sub(rb"[ \t]+\Z", b"", field.name.lower())
    return name + b":" + re.sub(rb"\A | \Z", b"", value)


def choose(fields: Sequence[HeaderField], names: Sequence[bytes]) -> list[HeaderField]:
    """Take the fields of an h= from the bottom up (§5.4.2)."""
    left = list(fields)
    chosen = []
    for name in names:
        for index in range(len(left) - 1, -1, -1):
            if left[index].name.strip(b" \t").lower() == name.lower():
                chosen.append(left.pop(index))
                break
    return chosen


class Forge:
    """Signs with one key."""

    def __init__(self, key: Key) -> None:
        self.key = key

    def sign(
        self,
        fields: Sequence[HeaderField],
        body: bytes,
        template: bytes,
        *,
        canonicalization: bytes | None = None,
        names: Sequence[bytes] | None = None,
        length: int | None = None,
        name: bytes = b"DKIM-Signature",
    ) -> HeaderField:
        """Make a signature's field: %BH% and %B% in the template become the hash and the signature.

        What the template says in c=, h= and l= is what is done, unless an argument says otherwise.
        """
        header_c, _, body_c = (canonicalization or _tag(template, b"c") or b"simple/simple").partition(b"/")
        names = names if names is not None else re.split(rb"\s*:\s*", _tag(template, b"h") or b"")
        if length is None and (number := _tag(template, b"l") or b"").isdigit():
            length = int(number)
        canonical = canonical_body(body, body_c or b"simple")
        digest = hashlib.sha256(canonical if length is None else canonical[:length]).digest()
        value = template.replace(b"%BH%", base64.b64encode(digest))
        unsigned = HeaderField(name, re.sub(rb"\s*%B%\s*", b"", value))
        data = b"".join(canonical_field(field, header_c) + b"\r\n" for field in choose(fields, names))
        signature = self._sign(data + canonical_field(unsigned, header_c))
        return HeaderField(name, value.replace(b"%B%", base64.b64encode(signature)))

    def _sign(self, data: bytes) -> bytes:
        key = self.key.private
        if isinstance(key, rsa.RSAPrivateKey):
            return key.sign(data, padding.PKCS1v15(), SHA256())
        return key.sign(hashlib.sha256(data).digest())


def _tag(template: bytes, name: bytes) -> bytes | None:
    found = re.search(rb"(?:\A|;)\s*" + name + rb"\s*=\s*([^;]*?)\s*(?:;|\Z)", template)
    return found[1] if found else None
