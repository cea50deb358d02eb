"""Mail addresses as octets: the local-part without its quoting, and the domain (RFC 5321 §4.1.2)."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import NamedTuple

# RFC 5322 §3.2.3 atext and the dot; RFC 6531 §3.3 adds everything beyond ASCII.
_DOT_ATOM_OCTETS = (
    b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789!#$%&'*+-/=?^_`{|}~."
    + bytes(range(0x80, 0x100))
)
# Quoted-string of RFC 5321 §4.1.2, with every octet but the two special ones taken as qtext.
_QUOTED_STRING = re.compile(rb'"((?:[^"\\]|\\.)*)"', re.DOTALL)
_QUOTED_PAIR = re.compile(rb"\\(.)", re.DOTALL)
_NEEDS_QUOTED_PAIR = re.compile(rb'(["\\])')
# Postfix handles addresses as C strings and lines; these could only cut one short.
_IMPOSSIBLE = b"\0\r\n"

# A domain or an address literal of RFC 5321 §4.1.2, U-labels of RFC 6531 among them.
_PATH_DOMAIN = re.compile(rb"[A-Za-z0-9_.\x80-\xff-]+|\[[A-Za-z0-9.:-]+\]")
_AT_DOMAIN = rb"@(?:%b)" % _PATH_DOMAIN.pattern
_SOURCE_ROUTE = re.compile(_AT_DOMAIN + rb"(?:," + _AT_DOMAIN + rb")*:")
_DOT_STRING = re.compile(rb"[a-zA-Z0-9!#$%&'*+/=?^_`{|}~\x80-\xff.-]+")

_PATH_KEPT_MAXIMUM = 256  # octets of a path that is kept, parsed: as long as any by RFC 5321 §4.5.3.1.3
LOCAL_PART_MAXIMUM = 64  # octets, RFC 5321 §4.5.3.1.1


class Address(NamedTuple):
    """An address as octets. The local-part has no quoting, the domain stands as it was written."""

    local_part: bytes
    domain: bytes

    def __bytes__(self) -> bytes:
        """Give the address as SMTP spells it, the local-part quoted where it must be."""
        return quote_local_part(self.local_part) + b"@" + self.domain


def parse_address(text: bytes) -> Address | None:
    """Parse the address in a lookup key: bare, its local-part quoted or not.

    Postfix spells `"a b"@example.org` so, and as `a b@example.org` where it looks for its
    internal form. None for what has no local-part, no domain, or broken quotes.
    """
    at = text.rfind(b"@")
    if at < 1 or at + 1 == len(text) or len(text.translate(None, _IMPOSSIBLE)) != len(text):
        return None
    local_part = text[:at]
    if local_part.startswith(b'"'):
        quoted = _QUOTED_STRING.fullmatch(local_part)
        if quoted is None:
            return None
        local_part = _QUOTED_PAIR.sub(rb"\1", quoted[1])
        if not local_part:
            return None
    return Address(local_part, text[at + 1 :])


def is_null_path(text: bytes) -> bool:
    """Tell whether a reverse-path is null: `<>` from smtpd, nothing from cleanup."""
    return text in (b"<>", b"")


def parse_path(text: bytes) -> Address | None:
    """Parse a reverse-path or forward-path as an MTA hands it to a milter (RFC 5321 §4.1.2).

    Postfix's smtpd spells it as the client did, `<a@b>`; its cleanup has the bare address, with the
    local-part unquoted. A source route is skipped. None for what is no path by the letter: whoever
    guessed might find another domain in it than the next program.
    """
    return _parse_usual_path(text) if len(text) <= _PATH_KEPT_MAXIMUM else _parse_path(text)


def _parse_path(text: bytes) -> Address | None:
    if not text.startswith(b"<"):
        # RFC 7208 §4.3 knows paths without a local-part.
        address = Address(b"", text[1:]) if text.rfind(b"@") == 0 else parse_address(text)
    elif text.endswith(b">"):
        inner = text[1:-1]
        route = _SOURCE_ROUTE.match(inner)
        if route:
            inner = inner[route.end() :]
        address = parse_address(inner)
        if address and not inner.startswith(b'"') and not _DOT_STRING.fullmatch(address.local_part):
            return None
    else:
        return None
    return address if address is not None and _PATH_DOMAIN.fullmatch(address.domain) else None


_parse_usual_path = lru_cache(maxsize=1024)(_parse_path)  # who writes once writes again


def quote_local_part(local_part: bytes) -> bytes:
    """Spell a local-part for the wire: quoted as a whole where it holds anything but atext and dots."""
    if not local_part.translate(None, _DOT_ATOM_OCTETS):
        return local_part
    return b'"' + _NEEDS_QUOTED_PAIR.sub(rb"\\\1", local_part) + b'"'
