"""All that the checks found about one message, and DMARC, which goes by what the others found."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from srsd.dkim.result import Result as DkimWord
from srsd.dmarc.evaluate import evaluate
from srsd.dmarc.outcome import DmarcResult, Identifier, State
from srsd.filter.authenticate import HEADER_TOO_LARGE, DkimResults, NullMx, SpfResults
from srsd.filter.author import NO_AUTHOR, Author
from srsd.filter.chain import ArcResults
from srsd.spf.outcome import SpfResult
from srsd.syntax.setting import setting

if TYPE_CHECKING:
    from srsd.dmarc.discovery import Discovery
    from srsd.dmarc.outcome import DmarcOutcome
    from srsd.dmarc.trace import Trace
    from srsd.resolving import Resolver


@dataclass(frozen=True, kw_only=True)
class DmarcCheckParameters:
    """DMARC checks (RFC 9989)."""

    verify: bool = setting(
        True,
        "Check DMARC, for mail that is not ours. A fail is only found where SPF and DKIM are both checked.",
    )


class DmarcResults(NamedTuple):
    """What DMARC found. Without an outcome nothing can be said."""

    outcome: DmarcOutcome | None = None
    why_unchecked: str = ""
    asked: bool = False  # DNS was asked, also where nothing can be said
    vouched_by: bytes = b""  # the trusted sealer that found that DMARC passed, where it fails here

    @property
    def fails(self) -> bool:
        """Tell whether the result is fail, whoever vouches for the message."""
        return self.outcome is not None and self.outcome.result is DmarcResult.FAIL

    def vouched(self, sealer: bytes) -> DmarcResults:
        """Note a trusted sealer, which matters only for what fails."""
        return self._replace(vouched_by=sealer) if self.fails else self


class Results(NamedTuple):
    """What the checks found."""

    spf: SpfResults
    dkim: DkimResults
    arc: ArcResults = ArcResults()
    dmarc: DmarcResults = DmarcResults()
    author: Author = NO_AUTHOR
    null_mx: NullMx = NullMx()
    login_mismatch: bool = False  # of a client that has authenticated


def no_results(author: Author, why: str, *, login_mismatch: bool) -> Results:
    """Give the results for mail of ours, which is not checked."""
    return Results(
        SpfResults(why_unchecked=why),
        DkimResults(why_unchecked=why),
        ArcResults(why_unchecked=why),
        DmarcResults(why_unchecked=why),
        author,
        login_mismatch=login_mismatch,
    )


async def check_dmarc(
    results: Results, discovery: Discovery, resolver: Resolver, *, trace: Trace | None = None
) -> DmarcResults:
    """Evaluate DMARC by what the other checks found (RFC 9989 §5.3).

    Nothing fails where SPF or DKIM was not checked and might have passed for a domain that is aligned.
    """
    author_domain = results.author.domain
    identifiers = _identifiers(results.spf, results.dkim)
    outcome = await evaluate(author_domain, discovery, identifiers, resolver, trace)
    if outcome.result is DmarcResult.FAIL:
        if results.spf.mail_from is None and await _spf_might_align(results, discovery, resolver):
            why = f"SPF is not checked: {results.spf.why_unchecked}"
            return DmarcResults(why_unchecked=why, asked=True)
        if results.dkim.why_unchecked and results.dkim.why_unchecked != HEADER_TOO_LARGE:
            why = f"DKIM is not checked: {results.dkim.why_unchecked}"
            return DmarcResults(why_unchecked=why, asked=True)
    return DmarcResults(outcome, asked=True)


async def _spf_might_align(results: Results, discovery: Discovery, resolver: Resolver) -> bool:
    """Tell whether SPF, had it been checked, could have passed for a domain that is aligned."""
    domain = results.spf.unchecked_domain
    if domain is None:
        return True
    identifiers = [Identifier("spf", domain, State.TEMPERROR)]
    outcome = await evaluate(results.author.domain, discovery, identifiers, resolver)
    return outcome.result is DmarcResult.TEMPERROR


def _identifiers(spf: SpfResults, dkim: DkimResults) -> list[Identifier]:
    """Give the domains that were authenticated, or might have been (RFC 9989 §4.4)."""
    found = []
    mail_from = spf.mail_from
    if mail_from is not None and mail_from.checked_domain:
        state = _SPF_STATES.get(mail_from.result, State.FAILED)
        found.append(Identifier("spf", mail_from.checked_domain, state))
    for signature in dkim.signatures:
        if signature.domain:
            state = _DKIM_STATES.get(signature.result, State.FAILED)
            found.append(Identifier("dkim", signature.domain, state))
    return found


_SPF_STATES = {SpfResult.PASS: State.PASSED, SpfResult.TEMPERROR: State.TEMPERROR}
_DKIM_STATES = {DkimWord.PASS: State.PASSED, DkimWord.TEMPERROR: State.TEMPERROR}
