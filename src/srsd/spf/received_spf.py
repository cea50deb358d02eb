"""The Received-SPF header field (RFC 7208 §9.1): what was checked, from which client, and what was found."""

from __future__ import annotations

import re
from ipaddress import IPv6Address
from typing import TYPE_CHECKING, Literal

from srsd.spf.macro import NAME_MAXIMUM
from srsd.spf.outcome import SpfOutcome, SpfResult
from srsd.syntax.domain import fold_domain
from srsd.syntax.structured import DOT_ATOM, fold_words, quote

if TYPE_CHECKING:
    from srsd.resolving import IpAddress
    from srsd.syntax.address import Address

_NAME_LENGTH = len("Received-SPF:")
_VALUE_MAXIMUM = 320  # octets: the longest address, RFC 5321 §4.5.3.1; twice that when all is escaped

_DOT_ATOM = re.compile(DOT_ATOM)
_PRINTABLE = bytes(range(0x20, 0x7F))
_HOST_OCTETS = b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_."

# The comment says in words what the RFC's examples say; what no examples show is said like them.
_SAYS = {
    SpfResult.NONE: b"%(domain)s does not say whether %(client)s may send for it",
    SpfResult.NEUTRAL: b"%(client)s is neither permitted nor denied by domain of %(domain)s",
    SpfResult.PASS: b"domain of %(domain)s designates %(client)s as permitted sender",
    SpfResult.FAIL: b"domain of %(domain)s does not designate %(client)s as permitted sender",
    SpfResult.SOFTFAIL: (
        b"transitioning domain of %(domain)s does not designate %(client)s as permitted sender"
    ),
    SpfResult.TEMPERROR: b"DNS failed for now while domain of %(domain)s was checked",
    SpfResult.PERMERROR: b"the records of domain of %(domain)s cannot be interpreted",
}
_ERRORS = (SpfResult.TEMPERROR, SpfResult.PERMERROR)


def format_received_spf(  # noqa: PLR0913, PLR0917 - the keys of the field
    outcome: SpfOutcome,
    identity: Literal["mailfrom", "helo"],
    client: IpAddress,
    sender: Address | None,
    helo: bytes,
    receiver: bytes,
) -> bytes:
    """Write the value of a Received-SPF field, with the blank after its colon.

    sender is the reverse-path, its local-part without quoting, None for the null one; it is left out for
    identity helo. helo is what the client said, receiver the name of this host.

    The value is printable ASCII but for its folds, LF and a tab. A key whose value would have controls, or
    octets beyond ASCII where no A-label stands for them, or more than 320 octets, is left out. Each line is
    shorter than 78 octets unless a single value is longer, and never longer than 700.
    """
    result = outcome.result
    address = _spell_client(client)
    pairs = [(b"client-ip", address)]
    if identity == "mailfrom" and sender is not None:
        pairs.append((b"envelope-from", _spell_sender(sender)))
    pairs.append((b"helo", helo if helo.isascii() else fold_domain(helo) or b""))
    pairs.append((b"receiver", receiver))
    pairs.append((b"identity", identity.encode()))
    if result in _ERRORS:
        pairs.append((b"problem", outcome.reason.encode()))
    elif result is not SpfResult.NONE:
        pairs.append((b"mechanism", outcome.mechanism or b"default"))
    words = [result.value.encode(), *_comment(outcome, address, receiver)]
    spelt = [pair for pair in (_spell(key, value) for key, value in pairs) if pair is not None]
    words += [pair + b";" for pair in spelt[:-1]] + spelt[-1:]
    return b" " + fold_words(words, used=_NAME_LENGTH + 1)


def _spell_client(client: IpAddress) -> bytes:
    if isinstance(client, IPv6Address):
        client = client.ipv4_mapped or IPv6Address(int(client))  # without a scope
    return str(client).encode()


def _spell_sender(sender: Address) -> bytes:
    domain = sender.domain
    if not domain.isascii():
        domain = fold_domain(domain) or domain
    return bytes(sender._replace(domain=domain))


def _comment(outcome: SpfOutcome, client: bytes, receiver: bytes) -> list[bytes]:
    """Give the words of the comment. They hold no parenthesis, no backslash and nothing that is odd."""
    domain = outcome.checked_domain if _is_plain_host(outcome.checked_domain) else b"unknown"
    text = _SAYS[outcome.result] % {b"domain": domain, b"client": client}
    if _is_plain_host(receiver):
        text = receiver + b": " + text
    return (b"(" + text + b")").split(b" ")


def _is_plain_host(name: bytes) -> bool:
    return 0 < len(name) <= NAME_MAXIMUM and not name.translate(None, _HOST_OCTETS)


def _spell(key: bytes, value: bytes) -> bytes | None:
    """Spell a pair, its value as a dot-atom or a quoted-string; None for what must not be written."""
    if not value or len(value) > _VALUE_MAXIMUM or value.translate(None, _PRINTABLE):
        return None
    return key + b"=" + (value if _DOT_ATOM.fullmatch(value) else quote(value))
