"""Octets that a stranger chose, as an admin may read them."""

from __future__ import annotations

_SHOWN_MAXIMUM = 80

_SPELT = [chr(octet) if 0x20 <= octet < 0x7F else f"\\x{octet:02x}" for octet in range(256)]
_SPELT[ord("\\")] = "\\\\"
_PLAIN = bytes(octet for octet, spelt in enumerate(_SPELT) if spelt == chr(octet))


def shown(octets: bytes, maximum: int = _SHOWN_MAXIMUM) -> str:
    r"""Spell octets that a stranger chose: printable ASCII as it is, the rest as \xNN; the first ones."""
    first = octets[:maximum]
    if first.translate(None, _PLAIN):
        text = "".join([_SPELT[octet] for octet in first])
    else:
        text = first.decode("ascii")  # as nearly all is
    return text if len(octets) <= maximum else text + "..."
