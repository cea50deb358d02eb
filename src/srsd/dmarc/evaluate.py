"""Whether a message passes DMARC (RFC 9989 §5.3): the alignment of what SPF and DKIM authenticated (§4.4)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from srsd.dmarc.outcome import DmarcOutcome, DmarcResult, Identifier, State
from srsd.dmarc.tree_walk import Walk, is_domain_name, is_within, walk
from srsd.syntax.domain import parents

if TYPE_CHECKING:
    from collections.abc import Sequence

    from srsd.dmarc.discovery import Discovery
    from srsd.dmarc.record import DmarcRecord
    from srsd.dmarc.trace import Trace
    from srsd.resolving import Resolver


_PASSED = State.PASSED
_TEMPERROR = State.TEMPERROR


async def evaluate(
    author_domain: bytes,
    discovery: Discovery,
    identifiers: Sequence[Identifier],
    resolver: Resolver,
    trace: Trace | None = None,
) -> DmarcOutcome:
    """Evaluate a message by what was discovered for its author domain, and what SPF and DKIM found.

    It is temperror where an answer that DNS did not give might make another result, or another policy for a
    fail: the record is not known; nothing aligned passed, but might have, had a check or a tree walk been
    answered; or whether np= applies is not known. Beyond a name that was not answered nothing is asked.

    Tree walks are made for domains within the organizational domain of the author, where alignment is
    relaxed; each asks at most 8 queries, fewer where they share names. Nothing is raised but what the
    resolver raises.
    """
    outcome = await _decide(author_domain, discovery, identifiers, resolver, trace)
    if trace is not None:
        trace.decided(outcome, identifiers)
    return outcome


async def _decide(
    author_domain: bytes,
    discovery: Discovery,
    identifiers: Sequence[Identifier],
    resolver: Resolver,
    trace: Trace | None,
) -> DmarcOutcome:
    record = discovery.record
    if record is None:
        return _without_record(author_domain, discovery)
    if record.flaw:
        reason = f"the DMARC record asks for nothing: {record.flaw}, and rua= has no address"
        return _outcome(DmarcResult.NONE, reason, author_domain, discovery)
    alignment = _Alignment(author_domain, discovery, record, resolver, trace)
    aligned, unsure = await alignment.of_passed(identifiers)
    if aligned:
        reason = f"{_methods(aligned)} passed, aligned"
        return _outcome(DmarcResult.PASS, reason, author_domain, discovery, tuple(aligned))
    if unsure is None:
        unsure = await alignment.of_unchecked(identifiers)
    if unsure is not None:
        what = "passed, alignment is not known" if unsure.state is _PASSED else "might have passed, aligned"
        reason = f"{unsure.method} {what}: DNS did not answer"
        return _outcome(DmarcResult.TEMPERROR, reason, author_domain, discovery)
    if discovery.existence_failure is not None:
        reason = f"whether the author domain exists is not known: {discovery.existence_failure.value}"
        return _outcome(DmarcResult.TEMPERROR, reason, author_domain, discovery)
    passed = _methods([each for each in identifiers if each.state is _PASSED])
    reason = f"{passed} passed, not aligned" if passed else "neither spf nor dkim passed"
    return _outcome(DmarcResult.FAIL, reason, author_domain, discovery)


def _without_record(author_domain: bytes, discovery: Discovery) -> DmarcOutcome:
    if discovery.failure is not None:
        reason = f"the DMARC record could not be asked for: {discovery.failure.value}"
        return _outcome(DmarcResult.TEMPERROR, reason, author_domain, discovery)
    named = is_domain_name(author_domain)
    reason = "there is no DMARC record" if named else "the author has no domain name"
    return _outcome(DmarcResult.NONE, reason, author_domain, discovery)


def _outcome(
    result: DmarcResult,
    reason: str,
    author_domain: bytes,
    discovery: Discovery,
    aligned: tuple[Identifier, ...] = (),
) -> DmarcOutcome:
    record, published, tag = discovery.record, discovery.published, discovery.policy_tag
    policy = None
    if record is not None:
        if record.flaw:
            published, tag = None, ""
        elif published is not None:
            policy = record.applied(published)
    return DmarcOutcome(
        result,
        reason,
        author_domain,
        policy,
        published,
        tag,
        record,
        discovery.record_domain,
        discovery.walk.organizational_domain,
        aligned,
        discovery.exists,
    )


def _methods(identifiers: Sequence[Identifier]) -> str:
    """Name the methods of some identifiers; "" for none."""
    methods = [identifier.method for identifier in identifiers]
    return " and ".join([method for method in ("spf", "dkim") if method in methods])


class _Alignment:
    """Finds whether identifiers are aligned with the author domain (§4.10.2): yes, no, or None: not known."""

    __slots__ = ("_author_domain", "_author_walk", "_known", "_record", "_resolver", "_shared", "_trace")

    def __init__(
        self,
        author_domain: bytes,
        discovery: Discovery,
        record: DmarcRecord,
        resolver: Resolver,
        trace: Trace | None,
    ) -> None:
        self._author_domain = author_domain
        self._author_walk = discovery.walk
        self._known = discovery.known
        self._shared = True  # known is still that of the discovery
        self._record = record
        self._resolver = resolver
        self._trace = trace

    async def of_passed(
        self, identifiers: Sequence[Identifier]
    ) -> tuple[list[Identifier], Identifier | None]:
        """Find those that passed and are aligned; else one that passed and may be."""
        aligned: list[Identifier] = []
        to_walk: list[Identifier] = []
        for identifier in identifiers:
            if identifier.state is _PASSED:
                answer = self._without_walk(identifier)
                if answer:
                    aligned.append(identifier)
                elif answer is None:
                    to_walk.append(identifier)
        unsure = None
        if not aligned:
            for identifier in to_walk:
                answer = await self._by_walk(identifier)
                if answer:
                    return [identifier], None
                if answer is None:
                    unsure = identifier
        return aligned, unsure

    async def of_unchecked(self, identifiers: Sequence[Identifier]) -> Identifier | None:
        """Find one that might have passed, and is or may be aligned."""
        for identifier in identifiers:
            if identifier.state is _TEMPERROR:
                answer = self._without_walk(identifier)
                if answer is None:
                    answer = await self._by_walk(identifier)
                if answer is not False:
                    return identifier
        return None

    def _without_walk(self, identifier: Identifier) -> bool | None:
        """Answer what can be answered without a tree walk of the identifier; None where it takes one."""
        domain = identifier.domain
        record = self._record
        answer: bool | None
        if domain == self._author_domain:
            answer, why = True, "it is the author domain"
        elif record.strict_spf if identifier.method == "spf" else record.strict_dkim:
            answer, why = False, "it is not the author domain, and alignment is strict"
        elif not is_domain_name(domain):
            answer, why = False, "it is not a domain name"
        elif self._author_walk.failed_at:
            shared = any(map(self._author_walk.may_end_with, (domain, *parents(domain))))
            answer, why = None if shared else False, "the organizational domain is another one"
        elif domain == (organizational_domain := self._author_walk.organizational_domain):
            # A walk from there finds what the author's walk found there and above.
            answer, why = True, "it is the organizational domain"
        elif is_within(domain, organizational_domain):
            answer, why = None, ""
        else:
            answer, why = False, "it is outside the organizational domain"
        if self._trace is not None and answer is not None:
            self._trace.judged(identifier, answer, why)
        return answer

    async def _by_walk(self, identifier: Identifier) -> bool | None:
        """Answer by a tree walk of the identifier; None where DNS did not answer what it takes."""
        if self._shared:
            self._known, self._shared = dict(self._known), False
        if self._trace is not None:
            self._trace.begin(identifier.method, identifier.domain)
        found = await walk(identifier.domain, self._resolver, self._known, self._trace)
        if self._trace is not None:
            self._trace.end(found.organizational_domain, found.failure)
        answer = _same_organization(found, self._author_walk)
        if self._trace is not None:
            self._trace.judged(identifier, answer, "by the tree walk")
        return answer


def _same_organization(walk_of_identifier: Walk, walk_of_author: Walk) -> bool | None:
    """Tell whether two walks end with one organizational domain; None where that is not known."""
    if walk_of_identifier.ends_like(walk_of_author):
        return True
    start = walk_of_identifier.start
    for domain in (start, *parents(start)):
        if walk_of_identifier.may_end_with(domain) and walk_of_author.may_end_with(domain):
            return None
    return False
