"""SPF records: the grammar of RFC 7208 §12, and the terms of a record that obeys it."""

from __future__ import annotations

import re
from enum import Enum
from functools import lru_cache
from ipaddress import IPv6Address
from typing import NamedTuple

from srsd.spf.macro import DOMAIN_SPEC, MACRO_STRING, MacroString, domain_spec
from srsd.spf.outcome import SpfResult
from srsd.syntax.shown import shown
from srsd.syntax.structured import many, optional

# Parsed records that are kept. Longer ones are rare, and only those who mean harm have many.
_KEPT = 512
_KEPT_OCTETS = 1024

TERMS_MAXIMUM = 10  # that cause DNS queries, in one check: §4.6.4

_QNUM = rb"(?:25[0-5]|2[0-4][0-9]|1[0-9][0-9]|[1-9]?[0-9])"
_IP4_NETWORK = _QNUM + rb"(?:\." + _QNUM + rb"){3}"
_IP4_LENGTH = rb"/(?:3[0-2]|[12]?[0-9])"
_IP6_LENGTH = rb"/(?:12[0-8]|1[01][0-9]|[1-9]?[0-9])"


def _ip6_network() -> bytes:
    """Make the grammar of RFC 4291 §2.2: eight groups, or `::` and up to seven; two of them as IPv4."""
    group = rb"[0-9a-f]{1,4}"
    last_two = rb"(?:" + group + rb":" + group + rb"|" + _IP4_NETWORK + rb")"
    forms = [rb"(?:%b:){6}%b" % (group, last_two)]
    for before in range(8):
        after = 7 - before
        form = rb"(?:%b:){%d}%b" % (group, before - 1, group) if before else b""
        form += rb"::"
        if after > 1:
            form += rb"(?:(?:%b:){0,%d}%b|%b)?" % (group, after - 2, last_two, group)
        elif after:
            form += rb"(?:%b)?" % group
        forms.append(form)
    return rb"(?:" + rb"|".join([form + rb"(?=[/ ]|\Z)" for form in forms]) + rb")"


# §12, its ABNF as a regular expression. Each term ends before a space or the end, and what was taken for a
# term is not taken apart again, so the time is linear.
_GRAMMAR = {
    b"domain_spec": DOMAIN_SPEC,
    b"macro_string": MACRO_STRING,
    b"ip4": _IP4_NETWORK + rb"(?:" + _IP4_LENGTH + rb")?",
    b"ip6": _ip6_network() + rb"(?:" + _IP6_LENGTH + rb")?",
    b"dual_cidr": rb"(?:" + _IP4_LENGTH + rb")?(?:/" + _IP6_LENGTH + rb")?",
}
_DIRECTIVE = (
    rb"[-+?~]?+(?:all|(?:include|exists):%(domain_spec)b|ptr(?::%(domain_spec)b)?"
    rb"|(?:a|mx)(?::%(domain_spec)b)?%(dual_cidr)b|ip4:%(ip4)b|ip6:%(ip6)b)"
) % _GRAMMAR
# An unknown modifier must not stand in for a known one that is faulty: the suite says so, the ABNF does not.
_MODIFIER = (
    rb"(?:redirect|exp)=%(domain_spec)b|(?!(?:redirect|exp)=)[a-z][a-z0-9._-]*+=%(macro_string)b"
) % _GRAMMAR
_TERMS = re.compile(
    many(rb" ++(?:" + _DIRECTIVE + rb"|" + _MODIFIER + rb")(?= |\Z)") + rb" *+", re.IGNORECASE
)
# What stands in a record that obeys it: modifiers, and directives with their qualifier, name and rest.
_KNOWN_MODIFIERS = re.compile(rb" (redirect|exp)=([^ ]*+)", re.IGNORECASE)
_DIRECTIVES = re.compile(
    rb" ([-+?~]?+)(all|include|exists|ptr|a|mx|ip4|ip6)(" + optional(rb"[:/][^ ]*+") + rb")(?= |\Z)",
    re.IGNORECASE,
)
# The rest of a or mx. A domain-spec cannot end with a slash and digits.
_DUAL_CIDR = re.compile(rb"(.*?)(?:/([0-9]++))?(?://([0-9]++))?", re.DOTALL)
_FAULTY = re.compile(
    rb"(?:[-+?~]?(all|include|exists|ptr|a|mx|ip4|ip6)(?![a-z0-9])|([a-z][a-z0-9._-]*+)=)", re.IGNORECASE
)

_OCTET = {b"%d" % number: number for number in range(256)}


class Mechanism(Enum):
    """The mechanisms of §5."""

    ALL = "all"
    INCLUDE = "include"
    A = "a"
    MX = "mx"
    PTR = "ptr"
    IP4 = "ip4"
    IP6 = "ip6"
    EXISTS = "exists"


class Directive(NamedTuple):
    """A mechanism with what its match means."""

    mechanism: Mechanism
    result: SpfResult
    text: bytes
    """The term as it stands in the record."""
    domain_spec: MacroString | None = None
    """None: the <domain> that is being checked."""
    host_bits: int = 0
    """For ip4 and ip6: 32 or 128 less the prefix length, the bits at the right that are not compared."""
    network: int = 0
    """For ip4 and ip6: the address as a number, shifted right by host_bits."""
    ipv4_host_bits: int = 0
    """For a and mx, with a client that has an IPv4 address."""
    ipv6_host_bits: int = 0


class SpfRecord(NamedTuple):
    """A record without a syntax error."""

    text: bytes
    directives: tuple[Directive, ...]
    """All that can ever be evaluated.

    Nothing stands after an `all`, which MUST be ignored (§5.1), nor after the term that is one too many.
    """
    redirect: MacroString | None
    """None also where there is an `all` (§6.1)."""
    explanation: MacroString | None


class RecordFault(NamedTuple):
    """A record with a syntax error (§4.6)."""

    problem: str
    """Printable ASCII."""


_QUALIFIERS = {
    b"": SpfResult.PASS,
    b"+": SpfResult.PASS,
    b"-": SpfResult.FAIL,
    b"~": SpfResult.SOFTFAIL,
    b"?": SpfResult.NEUTRAL,
}
_MECHANISMS = {mechanism.value.encode(): mechanism for mechanism in Mechanism}
_ALL, _IP4, _IP6 = Mechanism.ALL, Mechanism.IP4, Mechanism.IP6
_PROBLEMS = {
    b"all": "all takes no argument",
    b"a": "not a domain, or a prefix length out of range",
    b"mx": "not a domain, or a prefix length out of range",
    b"ip4": "not an IPv4 network",
    b"ip6": "not an IPv6 network",
}


def is_spf_record(text: bytes) -> bool:
    """Tell whether a TXT record is an SPF record: `v=spf1` and then a space or nothing (§4.5)."""
    return text[:6].lower() == b"v=spf1" and (len(text) == 6 or text[6] == 0x20)


def parse_record(text: bytes) -> SpfRecord | RecordFault:
    """Parse what is_spf_record says yes to. Records that were parsed of late are remembered."""
    return _parse_kept(text) if len(text) <= _KEPT_OCTETS else _parse(text)


def _parse(text: bytes) -> SpfRecord | RecordFault:
    terms = _TERMS.match(text, 6)
    end = terms.end() if terms else 6  # it always matches, perhaps nothing
    if end < len(text):
        return _fault(text[end:].partition(b" ")[0])
    modifiers: dict[bytes, MacroString] = {}
    for written, spec in _KNOWN_MODIFIERS.findall(text):
        name = written.lower()
        if name in modifiers:
            return RecordFault(f"{name.decode()}= stands twice")  # §6
        modifiers[name] = domain_spec(spec)
    directives, ended = _directives(text)
    return SpfRecord(text, directives, None if ended else modifiers.get(b"redirect"), modifiers.get(b"exp"))


_parse_kept = lru_cache(_KEPT)(_parse)


def _fault(term: bytes) -> RecordFault:
    """Say what may be wrong with a term that is against the grammar."""
    match = _FAULTY.match(term)
    if match is None:
        problem = "not a mechanism"
    elif match[1]:
        problem = _PROBLEMS.get(match[1].lower(), "not a domain")
    else:
        problem = "not a domain" if match[2].lower() in (b"redirect", b"exp") else "not a macro string"
    return RecordFault(f'"{shown(term)}": {problem}')


def _directives(text: bytes) -> tuple[tuple[Directive, ...], bool]:
    """Give the directives that can be evaluated, and whether that ends there, whatever the modifiers say."""
    directives: list[Directive] = []
    asking = 0
    for match in _DIRECTIVES.finditer(text, 6):
        qualifier, name, rest = match.groups()
        mechanism = _MECHANISMS[name.lower()]
        result = _QUALIFIERS[qualifier]
        term = qualifier + name + rest
        if mechanism is _IP4:
            directives.append(_ip4(result, term, rest))
        elif mechanism is _IP6:
            directives.append(_ip6(result, term, rest))
        elif mechanism is _ALL:
            directives.append(Directive(mechanism, result, term))
            return tuple(directives), True
        else:
            directives.append(_asking(mechanism, result, term, rest))
            asking += 1
            if asking > TERMS_MAXIMUM:
                return tuple(directives), True
    return tuple(directives), False


def _ip4(result: SpfResult, term: bytes, rest: bytes) -> Directive:
    network, slash, length = rest[1:].partition(b"/")
    a, b, c, d = network.split(b".")
    number = _OCTET[a] << 24 | _OCTET[b] << 16 | _OCTET[c] << 8 | _OCTET[d]
    host_bits = 32 - int(length) if slash else 0
    return Directive(_IP4, result, term, None, host_bits, number >> host_bits)


def _ip6(result: SpfResult, term: bytes, rest: bytes) -> Directive:
    network, slash, length = rest[1:].partition(b"/")
    if b"." in network:
        number = int(IPv6Address(network.decode()))
    else:  # in a third of the time
        left, gap, right = network.partition(b"::")
        digits = _digits(left)
        if gap:
            digits = digits.ljust(32 - len(right_digits := _digits(right)), b"0") + right_digits
        number = int(digits, 16)
    host_bits = 128 - int(length) if slash else 0
    return Directive(_IP6, result, term, None, host_bits, number >> host_bits)


def _digits(groups: bytes) -> bytes:
    """Give the digits of some groups, four for each."""
    return b"".join([group.zfill(4) for group in groups.split(b":")]) if groups else b""


def _asking(mechanism: Mechanism, result: SpfResult, term: bytes, rest: bytes) -> Directive:
    """Make a directive that asks DNS."""
    ipv4_length = ipv6_length = None
    if b"/" in rest and mechanism in (Mechanism.A, Mechanism.MX):
        parts = _DUAL_CIDR.fullmatch(rest)
        if parts:  # it always matches
            rest, ipv4_length, ipv6_length = parts.groups()
    return Directive(
        mechanism,
        result,
        term,
        domain_spec(rest[1:]) if rest else None,
        ipv4_host_bits=32 - int(ipv4_length or 32),
        ipv6_host_bits=128 - int(ipv6_length or 128),
    )
