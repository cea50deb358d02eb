"""The DNS tree walk (RFC 9989 §4.10), and the organizational domain that it finds (§4.10.2)."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from srsd.dmarc.record import DmarcRecord, PublicSuffix, parse_record
from srsd.resolving import Outcome
from srsd.syntax.domain import parents

if TYPE_CHECKING:
    from collections.abc import Iterator

    from srsd.dmarc.trace import Trace
    from srsd.resolving import Answer, Resolver

QUERIES_MAXIMUM = 8  # §4.10

_PREFIX = b"_dmarc."
_NAME_MAXIMUM = 253  # octets, without the trailing dot: RFC 1035 §2.3.4
_UNKNOWN = PublicSuffix.UNKNOWN  # members of enums as globals: this is the hot path
_NO = PublicSuffix.NO
_FOUND = Outcome.FOUND
_NOTHING = (Outcome.NX_DOMAIN, Outcome.NO_DATA, Outcome.FOUND)  # no record, in nearly all cases

Known = dict[bytes, DmarcRecord | Outcome]
"""What was found at the domains that were asked for: the record, or how the query ended without one."""


class Walk(NamedTuple):
    """One tree walk, to its end or to the first query that failed. b"" is what there is not."""

    start: bytes
    organizational_domain: bytes = b""
    """b"" where it is not known: a query failed, or the policy was all that was asked for."""
    public_suffix: bytes = b""
    """The domain with psd=y, above the organizational domain, where one was met."""
    failed_at: bytes = b""
    """The domain whose query failed; the walk ended there."""
    fallback: bytes = b""
    """After a failure: the organizational domain, if there is no record from there on."""
    below: bytes = b""
    """After a failure: the organizational domain, if the record that was not seen has psd=y."""
    failure: Outcome | None = None
    """How that query ended."""

    def may_end_with(self, domain: bytes) -> bool:
        """Tell whether a domain is, or may be, the organizational domain."""
        if not self.failed_at:
            return domain == self.organizational_domain
        return domain in (self.fallback, self.below) or is_within(self.failed_at, domain)

    def ends_like(self, other: Walk) -> bool:
        """Tell whether both surely end with one organizational domain, whatever was not answered."""
        if not self.failed_at:
            return not other.failed_at and self.organizational_domain == other.organizational_domain
        # They met where the query failed, and what they had found until then is the same.
        return self[3:] == other[3:]


def is_within(domain: bytes, above: bytes) -> bool:
    """Tell whether a domain is another one or a subdomain of it. Both are folded."""
    return domain.endswith(above) and (len(domain) == len(above) or domain[-len(above) - 1] == 0x2E)


def is_domain_name(domain: bytes) -> bool:
    """Tell whether there is a name to begin with.

    Not for b"", for address literals (RFC 5321 §4.1.3), and for what is longer than any name.
    """
    return 0 < len(domain) <= _NAME_MAXIMUM and domain[0] != 0x5B


async def walk(
    start: bytes,
    resolver: Resolver,
    known: Known,
    trace: Trace | None = None,
    *,
    policy_only: bool = False,
) -> Walk:
    """Walk up from a folded domain name (§4.10). What is asked, and what it gave, is added to known.

    With policy_only the walk ends at a record of start whose policy needs no organizational domain: one
    that asks for nothing, or for strict alignment alone (§4.10.2).
    """
    last = b""  # the last domain with a record
    name = start
    for name in _targets(start):
        if name in known:
            found = known[name]
            if trace is not None:
                trace.known(name, found)
        else:
            answer = await resolver.txt(_PREFIX + name)
            known[name] = found = _record_of(answer)
            if trace is not None:
                trace.asked(name, answer, found)
        if isinstance(found, DmarcRecord):
            last = name
            if found.public_suffix is not _UNKNOWN:
                break
            if policy_only and name is start and (found.flaw or (found.strict_dkim and found.strict_spf)):
                return Walk(start)
        elif found not in _NOTHING and found.temporary:
            return Walk(start, b"", b"", name, last or start, _one_label_below(name, start), found)
    else:
        return Walk(start, last or start)
    if found.public_suffix is _NO or name is start:
        return Walk(start, name)
    return Walk(start, _one_label_below(name, start), name)


def _targets(start: bytes) -> Iterator[bytes]:
    """Give the domains of a walk in their order (§4.10, steps 3, 4 and 7): start, then up to 7 above it."""
    yield start
    labels = start.rsplit(b".", QUERIES_MAXIMUM - 1)
    if len(labels) == QUERIES_MAXIMUM:
        start = b"." + b".".join(labels[1:])
    for name in parents(start):
        if name:
            yield name


def _one_label_below(name: bytes, start: bytes) -> bytes:
    """Give the domain one label below one of a walk, on the way back to its start; the start as it is."""
    if name == start:
        return start
    return start[start.rfind(b".", 0, len(start) - len(name) - 1) + 1 :]


def _record_of(answer: Answer[bytes]) -> DmarcRecord | Outcome:
    """Find the DMARC record in an answer (§4.10, steps 2 and 6); several are none."""
    outcome, records, *_ = answer
    if outcome is not _FOUND:
        return outcome
    found: DmarcRecord | None = None
    for text in records:
        record = parse_record(text)
        if record is not None:
            if found is not None:
                return _FOUND
            found = record
    return _FOUND if found is None else found
