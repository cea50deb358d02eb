"""ARC and DMARC of a message that was delivered, evaluated now."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from srsd.dkim.canonicalization import BodyHashes
from srsd.dmarc.discovery import discover
from srsd.dmarc.trace import Trace
from srsd.filter.authenticate import DkimResults, ask_for_keys
from srsd.filter.author import find_author
from srsd.filter.chain import ArcResults, find_voucher, plan_chain, trusted_domains
from srsd.filter.results import DmarcResults, Results, check_dmarc

if TYPE_CHECKING:
    from collections.abc import Sequence

    from srsd.cli.dns_answers import KeptAnswers
    from srsd.cli.mail import Mail
    from srsd.config import Config
    from srsd.dkim.result import DkimResult
    from srsd.filter.authenticate import SpfResults
    from srsd.filter.author import Author


class DmarcNow(NamedTuple):
    """What was found, and how."""

    author: Author
    arc: ArcResults
    dmarc: DmarcResults
    trace: Trace


async def check_dmarc_now(
    mail: Mail, spf: SpfResults, signatures: Sequence[DkimResult], config: Config, answers: KeptAnswers
) -> DmarcNow:
    """Validate the ARC chain and evaluate DMARC, as the milter does, by what SPF and DKIM say."""
    author, trace = find_author(mail.fields), Trace()
    results = Results(spf, DkimResults(tuple(signatures)), await _check_arc(mail, config, answers))
    results = results._replace(author=author)
    dmarc = DmarcResults(why_unchecked=author.problem)
    if author.domain:
        discovery = await discover(author.domain, answers, trace)
        dmarc = await check_dmarc(results, discovery, answers, trace=trace)
        voucher = find_voucher(results.arc, trusted_domains(config.arc), author.domain)
        dmarc = dmarc.vouched(voucher)
    return DmarcNow(author, results.arc, dmarc, trace)


async def _check_arc(mail: Mail, config: Config, answers: KeptAnswers) -> ArcResults:
    plan = plan_chain(mail.fields, frozenset(), answers.now, config.dkim)
    if isinstance(plan, str):
        return ArcResults(why_unchecked=plan)
    hashes = BodyHashes(plan.body_hashes)
    hashes.feed(mail.body)
    return ArcResults(plan.finish(await ask_for_keys(plan.key_names, answers), hashes.finish()))
