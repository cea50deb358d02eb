"""Makes ARC Sets of any shape, by the letter of RFC 8617 §5.1 and without srsd's code.

As with dkim_forge, what it is told to write is signed and verifies, whether it is legal or not.

forge = ArcForge(rsa_key())
fields = forge.seal(fields, BODY)                     # the set on top, and what was there before
fields = forge.seal(fields, BODY, cv=b"fail", domain=b"other.example", payload=b" mx.example; none")
"""

from __future__ import annotations

import base64
import re
from typing import TYPE_CHECKING

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.hashes import SHA256

from harness.dkim_forge import Forge, canonical_field
from srsd.syntax.header import HeaderField

if TYPE_CHECKING:
    from collections.abc import Sequence

    from harness.dkim_forge import Key

KINDS = (b"arc-authentication-results", b"arc-message-signature", b"arc-seal")
AMS = b" i=%I%; a=%A%; c=relaxed/relaxed; d=%D%; s=%S%; h=from:to:subject; bh=%BH%; b=%B%"
AS = b" i=%I%; a=%A%; cv=%CV%; d=%D%; s=%S%; t=1799999999; b=%B%"
PAYLOAD = (
    b" mx.example.net;\r\n\tspf=pass smtp.mailfrom=a@example.org;\r\n\tdmarc=pass header.from=example.org"
)


def instance_of(field: HeaderField) -> int:
    """Read i= as simply as can be; 0 where there is none."""
    found = re.search(rb"(?:\A|;)\s*i\s*=\s*([0-9]+)", field.value)
    return int(found[1]) if found else 0


def sets_of(fields: Sequence[HeaderField]) -> list[HeaderField]:
    """Give the ARC fields in the order in which seals cover them (§5.1.1)."""
    found = [field for field in fields if field.name.strip(b" \t").lower() in KINDS]
    return sorted(
        found, key=lambda field: (instance_of(field), KINDS.index(field.name.strip(b" \t").lower()))
    )


class ArcForge:
    """Seals with one key, by default as sealer.example."""

    def __init__(self, key: Key, domain: bytes = b"sealer.example", selector: bytes = b"sel") -> None:
        self.key = key
        self.domain = domain
        self.selector = selector
        self._forge = Forge(key)

    @property
    def key_name(self) -> bytes:
        return self.selector + b"._domainkey." + self.domain

    def seal(
        self,
        fields: Sequence[HeaderField],
        body: bytes,
        *,
        instance: bytes | None = None,
        cv: bytes | None = None,
        payload: bytes = PAYLOAD,
        ams: bytes = AMS,
        seal: bytes = AS,
        covered: Sequence[HeaderField] | None = None,
    ) -> list[HeaderField]:
        """Put a set on top of a message. covered are the fields of the sets before it, all by default."""
        before = sets_of(fields)
        number = b"%d" % (max(map(instance_of, before), default=0) + 1) if instance is None else instance
        status = cv if cv is not None else b"pass" if before else b"none"
        aar = HeaderField(b"ARC-Authentication-Results", b" i=" + number + b";" + payload)
        signed = self._forge.sign(
            fields, body, self._fill(ams, number, status), name=b"ARC-Message-Signature"
        )
        covered = [*(before if covered is None else covered), aar, signed]
        return [self._seal(covered, self._fill(seal, number, status)), signed, aar, *fields]

    def _fill(self, template: bytes, instance: bytes, status: bytes) -> bytes:
        algorithm = b"rsa-sha256" if isinstance(self.key.private, rsa.RSAPrivateKey) else b"ed25519-sha256"
        for mark, text in (
            (b"%I%", instance), (b"%A%", algorithm), (b"%CV%", status), (b"%D%", self.domain),
            (b"%S%", self.selector),
        ):  # fmt: skip
            template = template.replace(mark, text)
        return template

    def _seal(self, covered: Sequence[HeaderField], template: bytes) -> HeaderField:
        unsigned = HeaderField(b"ARC-Seal", re.sub(rb"\s*%B%\s*", b"", template))
        signature = self._forge._sign(seal_input(covered, unsigned))
        return HeaderField(b"ARC-Seal", template.replace(b"%B%", base64.b64encode(signature)))


def seal_input(covered: Sequence[HeaderField], unsigned: HeaderField) -> bytes:
    """Give what a seal signs: fields in order, and itself without its b= (§5.1.1, RFC 6376 §3.7)."""
    data = b"".join(canonical_field(field, b"relaxed") + b"\r\n" for field in covered)
    return data + canonical_field(unsigned, b"relaxed")


def seal_verifies(covered: Sequence[HeaderField], seal: HeaderField, key: rsa.RSAPublicKey) -> bool:
    """Verify an ARC-Seal over just these fields."""
    found = re.search(rb"(?:\A|;)\s*b\s*=([^;]*)", seal.value)
    assert found
    unsigned = seal._replace(value=seal.value[: found.start(1)] + seal.value[found.end(1) :])
    signature = base64.b64decode(re.sub(rb"\s", b"", found[1]))
    try:
        key.verify(signature, seal_input(covered, unsigned), padding.PKCS1v15(), SHA256())
    except InvalidSignature:
        return False
    return True
