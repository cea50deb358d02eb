"""Policy discovery (RFC 9989 §4.10.1): which record applies to an author domain, and which policy of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from srsd.dmarc.record import DmarcRecord, Policy
from srsd.dmarc.tree_walk import Known, Walk, is_domain_name, walk
from srsd.resolving import Outcome

if TYPE_CHECKING:
    from srsd.dmarc.trace import Trace
    from srsd.resolving import Resolver

_EXISTING = (Outcome.FOUND, Outcome.NO_DATA)


class Discovery(NamedTuple):
    """What DNS says of an author domain."""

    walk: Walk
    """The tree walk that began at the author domain."""
    known: Known
    """What was found on the way. Evaluations read it, and leave it as it is."""
    record: DmarcRecord | None = None
    """The record that applies."""
    record_domain: bytes = b""
    """The DMARC Policy Domain (§3.2.5): where the record is."""
    published: Policy | None = None
    """The policy of the record for the author domain; None where that depends on what DNS did not answer."""
    policy_tag: str = ""
    """Where that policy stands: p, sp or np."""
    exists: bool | None = None
    """Whether the author domain exists (§3.2.13). None: not known, and asked only where np= may matter."""
    failure: Outcome | None = None
    """A query failed for the moment, without whose answer the record is not known."""
    existence_failure: Outcome | None = None
    """The record is known, but not whether the author domain exists, on which the policy depends."""

    @property
    def organizational_domain(self) -> bytes:
        """The organizational domain of the author domain; b"" where it is not known, or not needed."""
        return self.walk.organizational_domain


async def discover(author_domain: bytes, resolver: Resolver, trace: Trace | None = None) -> Discovery:
    """Find the record that applies to an author domain, which comes from fold_domain.

    It asks at most 9 queries, one after the other; for most domains two or three. Whatever the domain is,
    nothing is raised but what the resolver raises.
    """
    known: Known = {}
    if not is_domain_name(author_domain):
        return Discovery(Walk(author_domain), known)
    if trace is not None:
        trace.begin("the author domain", author_domain)
    found = await walk(author_domain, resolver, known, trace, policy_only=True)
    if trace is not None:
        trace.end(found.organizational_domain, found.failure)
    own = known[author_domain]
    if isinstance(own, DmarcRecord):
        return Discovery(found, known, own, author_domain, own.policy, "p")
    if found.failed_at:
        return Discovery(found, known, failure=found.failure)
    for domain in (found.organizational_domain, found.public_suffix):
        record = known.get(domain)
        if isinstance(record, DmarcRecord):
            return await _discover_below(found, known, record, domain, resolver, trace)
    return Discovery(found, known)


async def _discover_below(  # noqa: PLR0913, PLR0917 - what is known by then
    found: Walk, known: Known, record: DmarcRecord, domain: bytes, resolver: Resolver, trace: Trace | None
) -> Discovery:
    """Choose the policy of a record above the author domain: np= where that does not exist, or else sp=."""
    policy = record.subdomain_policy
    tag = "sp" if b"sp" in record.policy_tags else "p"
    if record.applied(policy) is record.applied(record.nonexistent_policy):
        return Discovery(found, known, record, domain, policy, tag)
    author_domain = found.start
    # What has a name below it exists (RFC 8020), even if the name is _dmarc.
    if known[author_domain] not in _EXISTING:
        answer = await resolver.txt(author_domain)  # of all types the one that SPF may have asked for
        if trace is not None:
            trace.asked_existence(author_domain, answer)
        if answer.outcome.temporary:
            return Discovery(found, known, record, domain, existence_failure=answer.outcome)
        if answer.outcome not in _EXISTING:
            return Discovery(found, known, record, domain, record.nonexistent_policy, "np", exists=False)
    return Discovery(found, known, record, domain, policy, tag, exists=True)
