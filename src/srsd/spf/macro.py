"""Macro strings: domain-spec and explain-string, checked and expanded (RFC 7208 §7)."""

from __future__ import annotations

import re
from ipaddress import IPv4Address
from typing import TYPE_CHECKING, NamedTuple

from srsd.syntax.structured import many, optional

if TYPE_CHECKING:
    from srsd.resolving import IpAddress
    from srsd.syntax.address import Address

NAME_MAXIMUM = 253  # octets, without the trailing dot: §7.3

# The grammar of §7.1 as fragments for regular expressions that ignore case. MACRO_STRING gives nothing back
# of what it took; DOMAIN_SPEC does so only from its end, where each attempt looks at one label. A DIGIT
# that is zero is none (§7.3).
_EXPAND = (
    rb"%%(?:[%%_-]|\{[%b]" + optional(rb"0*+[1-9][0-9]*+") + rb"r?[-.+,/_=]*+\})"
)  # no DIGIT is zero: §7.3
_MACRO_EXPAND = _EXPAND % b"slodiphv"
_EXPLAIN_EXPAND = _EXPAND % b"slodiphvcrt"  # c, r and t stand in explanations only (§7.2)
_TOPLABEL = rb"(?![0-9]++(?![0-9a-z-]))[0-9a-z]++" + many(rb"-++[0-9a-z]++")
MACRO_STRING = many(rb"[!-$&-~]++|" + _MACRO_EXPAND)
DOMAIN_SPEC = rb"(?:[!-$&-~]|" + _MACRO_EXPAND + rb")*(?:\." + _TOPLABEL + rb"\.?+|" + _MACRO_EXPAND + rb")"
_EXPLAIN_STRING = re.compile(many(rb"[ -$&-~]++|" + _EXPLAIN_EXPAND), re.IGNORECASE)

_TOKEN = re.compile(rb"[^%]+|%\{[^}]*\}|%.", re.DOTALL)  # of what one of the two has let pass
_TRANSFORMERS = re.compile(rb"0*([0-9]*)(r?)(.*)", re.IGNORECASE | re.DOTALL)
_COUNT_DIGITS = 3  # a name has 127 labels at most: whoever asks for a thousand parts asks for all

_UNRESERVED = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~"  # RFC 3986 §2.3
_URL_ESCAPED = [bytes((octet,)) if octet in _UNRESERVED else b"%%%02X" % octet for octet in range(256)]


class MacroString(NamedTuple):
    """A macro string that obeys the grammar."""

    text: bytes
    name: bytes | None
    """For a domain-spec without macros: the target-name, without a trailing dot. Otherwise None."""
    tokens: tuple[bytes, ...] = ()
    """Literals and macro-expands in their order; empty where name stands."""
    letters: frozenset[int] = frozenset()
    """The macro letters that occur, as octets in lower case."""


def domain_spec(text: bytes) -> MacroString:
    """Take apart what matches DOMAIN_SPEC."""
    if b"%" not in text:
        return MacroString(text, _fit(text))
    tokens = tuple(_TOKEN.findall(text))
    return MacroString(text, None, tokens, _letters(tokens))


def parse_explain_string(text: bytes) -> MacroString | None:
    """Parse an explain-string (§7.1). None for what is none, so for anything beyond ASCII."""
    if not _EXPLAIN_STRING.fullmatch(text):
        return None
    tokens = tuple(_TOKEN.findall(text))
    return MacroString(text, None, tokens, _letters(tokens))


def _letters(tokens: tuple[bytes, ...]) -> frozenset[int]:
    return frozenset([token[2] | 0x20 for token in set(tokens) if token.startswith(b"%{")])


class MacroValues:
    """What the macro letters stand for in one domain's record; each macro is expanded once."""

    __slots__ = (
        "_client",
        "_domain",
        "_expanded",
        "_helo",
        "_now",
        "_parts",
        "_receiver",
        "_sender",
        "validated",
    )

    def __init__(  # noqa: PLR0913 - the letters are as many
        self,
        *,
        client: IpAddress,
        sender: Address,
        helo: bytes,
        domain: bytes,
        receiver: bytes,
        now: int,
    ) -> None:
        """Take the arguments of check_host(); now in seconds since 1970-01-01 UTC."""
        self._client = client
        self._sender = sender
        self._helo = helo
        self._domain = domain
        self._receiver = receiver
        self._now = now
        self.validated: bytes | None = None
        """The validated domain name of the client (§5.5), to be set before %{p} is expanded."""
        self._expanded: dict[bytes, bytes] = {b"%%": b"%", b"%_": b" ", b"%-": b"%20"}
        self._parts: dict[tuple[int, bool, frozenset[int]], list[bytes]] = {}

    def name(self, spec: MacroString) -> bytes:
        """Expand a domain-spec: the target-name, without a trailing dot.

        Of more than 253 octets labels are cut off at the left (§7.3). Whatever the macros gave stands in the
        result, so it need not be a domain name.
        """
        if spec.name is not None:
            return spec.name
        pieces = []
        room = NAME_MAXIMUM + 2  # for the dot to cut at, and for a trailing one
        for token in reversed(spec.tokens):  # what is left of 253 octets is cut off: do not make it
            piece = self._expand(token) if token.startswith(b"%") else token
            pieces.append(piece)
            room -= len(piece)
            if room < 0:
                break
        pieces.reverse()
        return _fit(b"".join(pieces))

    def text(self, spec: MacroString, maximum: int) -> bytes:
        """Expand an explain-string, cut to a number of octets."""
        pieces = []
        room = maximum
        for token in spec.tokens:
            piece = self._expand(token) if token.startswith(b"%") else token
            pieces.append(piece)
            room -= len(piece)
            if room < 0:
                break
        return b"".join(pieces)[:maximum]

    def _expand(self, token: bytes) -> bytes:
        found = self._expanded.get(token)
        if found is None:
            letter = token[2]
            found = self._value(letter | 0x20)
            if len(token) > len(b"%{x}"):
                found = self._transform(letter | 0x20, found, token[3:-1])
            if letter < ord("a"):  # in upper case: §7.3
                found = b"".join([_URL_ESCAPED[octet] for octet in found])
            self._expanded[token] = found
        return found

    def _transform(self, letter: int, value: bytes, transformers: bytes) -> bytes:
        """Split, reverse, take the right-hand parts and join them with dots (§7.3)."""
        match = _TRANSFORMERS.fullmatch(transformers)
        assert match is not None  # noqa: S101 - it takes anything
        digits, reverse, delimiters = match.groups()
        key = (letter, bool(reverse), frozenset(delimiters or b"."))
        parts = self._parts.get(key)
        if parts is None:
            parts = self._parts[key] = _split(value, bytes(key[2]))
            if reverse:
                parts.reverse()
        if digits and len(digits) <= _COUNT_DIGITS:
            parts = parts[-int(digits) :]
        return b".".join(parts)

    def _value(self, letter: int) -> bytes:  # noqa: C901 - a table with a row for each letter
        """Give what a letter stands for, as §7.2 and §7.3 have it."""
        match chr(letter):
            case "s":
                return self._sender.local_part + b"@" + self._sender.domain
            case "l":
                return self._sender.local_part
            case "o":
                return self._sender.domain
            case "d":
                return self._domain
            case "h":
                return self._helo
            case "p":
                return self.validated or b"unknown"
            case "v":
                return b"in-addr" if isinstance(self._client, IPv4Address) else b"ip6"
            case "i" if not isinstance(self._client, IPv4Address):
                return ".".join(f"{int(self._client):032X}").encode()
            case "i" | "c":
                return str(self._client).encode()
            case "r":
                return self._receiver or b"unknown"
            case _:
                return b"%d" % self._now


def _split(value: bytes, delimiters: bytes) -> list[bytes]:
    """Split at each of some delimiters; empty parts stay (§7.3)."""
    if len(delimiters) > 1:
        value = value.translate(bytes.maketrans(delimiters, delimiters[:1] * len(delimiters)))
    return value.split(delimiters[:1])


def _fit(name: bytes) -> bytes:
    """Drop a trailing dot, and labels at the left of a name that is too long (§7.3).

    A name whose last label alone is too long stays: it is no name either way.
    """
    name = name.removesuffix(b".")
    if len(name) > NAME_MAXIMUM:
        name = name[name.find(b".", len(name) - NAME_MAXIMUM - 1) + 1 :]
    return name
