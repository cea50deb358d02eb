"""DMARC policy records: the grammar of RFC 9989 §4.8, and what the tags of §4.7 mean."""

from __future__ import annotations

import re
from enum import Enum, StrEnum
from functools import lru_cache
from itertools import islice
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable

# Parsed records that are kept. Longer ones are rare, and only those who mean harm have many.
_KEPT = 1024
_KEPT_OCTETS = 1024
# What is looked at. Only those who mean harm have more of them in one record.
_TAGS_MAXIMUM = 100
_URIS_MAXIMUM = 100

# Names and values are ABNF literals without %s, so their case does not matter (RFC 5234 §2.3); DMARC1 has it.
_VERSION = re.compile(rb"[vV][ \t]*+=[ \t]*+DMARC1[ \t]*+(?=;|\Z)")
_TAG = re.compile(
    rb";[ \t]*+(adkim|aspf|fo|np|p|psd|rua|ruf|sp|t)[ \t]*+=([^;]*+)",
    re.IGNORECASE,
)
_WSP = b" \t"

# RFC 3986 §2; a comma and an exclamation mark are to be percent-encoded here (§4.8).
_URI = re.compile(rb"([a-z][a-z0-9+.-]*+):([a-z0-9._~:/?#\[\]@$&'*+();=%-]++)", re.IGNORECASE)
_BAD_ESCAPE = re.compile(rb"%(?![0-9a-f]{2})", re.IGNORECASE)
_REPORT_SIZE = re.compile(rb"[0-9]++[kmgt]?", re.IGNORECASE)

_FAILURE_OPTIONS = frozenset((b"0", b"1", b"d", b"s"))


class Policy(StrEnum):
    """A Domain Owner Assessment Policy (§4.7, p=); the value is the word for records and headers."""

    NONE = "none"
    QUARANTINE = "quarantine"
    REJECT = "reject"


class PublicSuffix(Enum):
    """What a record says of its domain in psd= (§4.7)."""

    YES = "y"  # others register domains below it
    NO = "n"  # it is an organizational domain
    UNKNOWN = "u"  # the tree walk has to find out


_POLICIES = {policy.value.encode(): policy for policy in Policy}
_PUBLIC_SUFFIX = {each.value.encode(): each for each in PublicSuffix}
_ONE_LEVEL_BELOW = {
    Policy.NONE: Policy.NONE,
    Policy.QUARANTINE: Policy.NONE,
    Policy.REJECT: Policy.QUARANTINE,
}


class DmarcRecord(NamedTuple):
    """A DMARC policy record, with its defaults filled in."""

    policy: Policy
    """p=, for the domain of the record."""
    subdomain_policy: Policy
    """For subdomains that exist: sp=, or p= without it."""
    nonexistent_policy: Policy
    """For subdomains that do not exist: np=, or sp= or p= without it."""
    flaw: str
    """Why the record asks for nothing (§4.10.1); "" where it does. A phrase for admins, without quotes.

    The tree walk counts such a record like others: it starts with v=DMARC1 (§4.10).
    """
    public_suffix: PublicSuffix
    testing: bool  # t=y
    strict_dkim: bool  # adkim=s
    strict_spf: bool  # aspf=s
    aggregate_reports: tuple[bytes, ...]
    """The valid URIs of rua=, without the sizes that RFC 7489 knew."""
    failure_reports: tuple[bytes, ...]
    """The valid URIs of ruf=."""
    failure_options: frozenset[bytes]
    """fo=: of 0, 1, d and s."""
    policy_tags: frozenset[bytes]
    """Which of p, sp and np the record has; none where it is as if it had p=none."""

    def applied(self, policy: Policy) -> Policy:
        """Lower one of the policies by one level where the record is being tested (§4.7, t=)."""
        return _ONE_LEVEL_BELOW[policy] if self.testing else policy


def parse_record(text: bytes) -> DmarcRecord | None:
    """Parse a TXT record. None for what is no DMARC record, because it does not start with v=DMARC1.

    After that nothing makes it less of a record (§4.8): unknown tags are ignored, as are pct, rf and ri, and
    faulty ones have their defaults. Of a tag that stands twice the first one counts. Only a policy that
    is missing or faulty goes further: see DmarcRecord.flaw. Records asked for lately are kept, parsed.
    """
    if text[:1] not in b"vV" or not text:  # most TXT records at a wildcard are something else
        return None
    return _parse_kept(text) if len(text) <= _KEPT_OCTETS else _parse(text)


def _parse(text: bytes) -> DmarcRecord | None:
    version = _VERSION.match(text)
    if version is None:
        return None
    tags: dict[bytes, bytes] = {}
    for match in islice(_TAG.finditer(text, version.end()), _TAGS_MAXIMUM):
        tags.setdefault(match[1].lower(), match[2].strip(_WSP))
    aggregate_reports = _reporting_uris(tags.get(b"rua", b""))
    policies = [_POLICIES.get(tags[name].lower()) for name in (b"p", b"sp", b"np") if name in tags]
    flaw, policy_tags = "", frozenset(tags.keys() & {b"p", b"sp", b"np"})
    if b"p" not in tags or None in policies:
        # §4.10.1: as if there was p=none, where there is somebody to tell; else DMARC does not apply.
        if not aggregate_reports:
            flaw = "p= is missing" if b"p" not in tags else "p=, sp= or np= is invalid"
        policy = subdomain_policy = nonexistent_policy = Policy.NONE
        policy_tags = frozenset()
    else:
        policy = _POLICIES[tags[b"p"].lower()]
        subdomain_policy = _POLICIES[tags[b"sp"].lower()] if b"sp" in tags else policy
        nonexistent_policy = _POLICIES[tags[b"np"].lower()] if b"np" in tags else subdomain_policy
    failure_reports = _reporting_uris(tags.get(b"ruf", b""))
    return DmarcRecord(
        policy,
        subdomain_policy,
        nonexistent_policy,
        flaw,
        _PUBLIC_SUFFIX.get(tags.get(b"psd", b"u").lower(), PublicSuffix.UNKNOWN),
        tags.get(b"t", b"").lower() == b"y",
        tags.get(b"adkim", b"").lower() == b"s",
        tags.get(b"aspf", b"").lower() == b"s",
        aggregate_reports,
        failure_reports,
        _failure_options(tags.get(b"fo", b"") if failure_reports else b""),
        policy_tags,
    )


_parse_kept: Callable[[bytes], DmarcRecord | None] = lru_cache(maxsize=_KEPT)(_parse)


def _reporting_uris(value: bytes) -> tuple[bytes, ...]:
    """Give the URIs of a list that are valid (§4.6, §4.8)."""
    uris = []
    for part in value.split(b",", _URIS_MAXIMUM)[:_URIS_MAXIMUM]:
        uri, mark, size = part.strip(_WSP).partition(b"!")
        if (not mark or _REPORT_SIZE.fullmatch(size)) and _is_reporting_uri(uri):
            uris.append(uri)
    return tuple(uris)


def _is_reporting_uri(uri: bytes) -> bool:
    match = _URI.fullmatch(uri)
    if match is None or _BAD_ESCAPE.search(uri):
        return False
    if match[1].lower() != b"mailto":
        return True
    local_part, at, domain = match[2].partition(b"?")[0].rpartition(b"@")
    return bool(local_part and at and domain)


def _failure_options(value: bytes) -> frozenset[bytes]:
    """Give the options of fo=; the default for what the grammar does not have."""
    parts = value.lower().split(b":") if len(value) < 8 else []
    options = frozenset(parts)
    if not parts or len(options) < len(parts) or not options <= _FAILURE_OPTIONS or {b"0", b"1"} <= options:
        return frozenset((b"0",))
    return options
