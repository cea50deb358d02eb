"""check_host() of RFC 7208 §4, and the two identities that it is asked about (§2.3, §2.4).

There is no clock here: the limit of 20 seconds (§4.6.4) is the resolver's, whose outcomes TIMED_OUT and
BUDGET_SPENT become temperror like any other failure of DNS.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

from srsd.spf.evaluation import Decision, ErrorFound, Evaluation, is_multi_label_name
from srsd.spf.outcome import SpfOutcome, SpfResult, bounded
from srsd.syntax.address import Address
from srsd.syntax.domain import DOMAIN_OCTETS_MAXIMUM, fold_domain
from srsd.syntax.shown import shown

if TYPE_CHECKING:
    from srsd.resolving import IpAddress, Resolver
    from srsd.spf.trace import Trace

__all__ = ["SpfOutcome", "SpfResult", "check_helo", "check_host", "check_mail_from"]

_POSTMASTER = b"postmaster"  # §2.4
_HOST_OCTETS = b"abcdefghijklmnopqrstuvwxyz0123456789-_."
_TERM_SHOWN = 60


async def check_helo(  # noqa: PLR0913 - the facts of a transaction
    resolver: Resolver,
    client: IpAddress,
    helo: bytes,
    *,
    receiver: bytes,
    now: int,
    trace: Trace | None = None,
    explain: bool = True,
) -> SpfOutcome:
    """Check the HELO identity (§2.3): none where HELO is not a domain name of several labels.

    The arguments are those of check_host.
    """
    domain = _identity_domain(helo)
    if domain is None:
        return SpfOutcome(SpfResult.NONE, "HELO is not a domain name")
    sender = Address(_POSTMASTER, domain)
    return await check_host(
        resolver, client, domain, sender, helo, receiver=receiver, now=now, trace=trace, explain=explain
    )


async def check_mail_from(  # noqa: PLR0913 - the facts of a transaction
    resolver: Resolver,
    client: IpAddress,
    sender: Address | None,
    helo: bytes,
    *,
    receiver: bytes,
    now: int,
    trace: Trace | None = None,
    explain: bool = True,
) -> SpfOutcome:
    """Check the MAIL FROM identity (§2.4): none where it has no domain name of several labels.

    sender is the reverse-path, its local-part without quoting; None for the null one, which stands for
    postmaster at HELO. The other arguments are those of check_host.
    """
    domain = _identity_domain(helo if sender is None else sender.domain)
    if domain is None:
        what = "the sender is null and HELO" if sender is None else "the sender's domain"
        return SpfOutcome(SpfResult.NONE, f"{what} is not a domain name")
    sender = Address(sender.local_part if sender else _POSTMASTER, domain)
    return await check_host(
        resolver, client, domain, sender, helo, receiver=receiver, now=now, trace=trace, explain=explain
    )


def _identity_domain(text: bytes) -> bytes | None:
    """Give the domain of an identity in A-labels and lower case; None for what names no host or mail domain.

    DNS has names with other octets too. Here they could only confuse whoever reads the result.
    """
    return _find_identity_domain(text) if len(text) <= DOMAIN_OCTETS_MAXIMUM else None


@lru_cache(maxsize=1024)  # most mail comes from a few domains and hosts
def _find_identity_domain(text: bytes) -> bytes | None:
    domain = fold_domain(text)
    if domain is None or domain.translate(None, _HOST_OCTETS) or not is_multi_label_name(domain):
        return None
    # No top-level domain has digits only (RFC 3696 §2): this is an address without its brackets.
    return None if domain[domain.rfind(b".") + 1 :].isdigit() else domain


async def check_host(  # noqa: PLR0913 - the arguments of §4.1 and what macros need
    resolver: Resolver,
    client: IpAddress,
    domain: bytes,
    sender: Address,
    helo: bytes,
    *,
    receiver: bytes,
    now: int,
    trace: Trace | None = None,
    explain: bool = True,
) -> SpfOutcome:
    """Tell whether a client may send with an identity (§4).

    client may be an IPv4-mapped IPv6 address, which counts as IPv4 (§5). domain comes from fold_domain, as
    does the one of sender, whose local-part has no quoting. helo is what the client said, receiver the name
    of this host (b"" for none), now the seconds since 1970-01-01 UTC: macros have them. A fail asks DNS
    once more for the explanation of the domain (§6.2), unless explain is false.

    Nothing is raised, whatever the arguments and DNS hold.
    """
    if not is_multi_label_name(domain):
        return SpfOutcome(SpfResult.NONE, bounded(f"{shown(domain)}: not a domain name"))
    evaluation = Evaluation(resolver, client, sender, helo, receiver, now, trace)
    try:
        decision = await evaluation.decide(domain, 0)
    except ErrorFound as error:
        reason = bounded(f"{shown(error.domain)}: {error.problem}")
        if trace is not None:
            trace.end_all(reason)
        return SpfOutcome(error.result, reason, domain, error.domain)
    explanation = await evaluation.explain(decision) if explain else b""
    mechanism = decision.matched[0] if decision.matched else b""
    return SpfOutcome(
        decision.result, _reason(decision, domain), domain, decision.domain, mechanism, explanation
    )


def _reason(decision: Decision, checked_domain: bytes) -> str:
    """Say in a phrase what decided."""
    if decision.result is SpfResult.NONE:
        return bounded(f"{shown(decision.domain)}: {decision.why}")
    if decision.matched:
        phrase = "matched " + " > ".join([shown(term, _TERM_SHOWN) for term in decision.matched])
    else:
        phrase = "no mechanism matched"
    if decision.domain != checked_domain:
        phrase += f" in {shown(decision.domain)}"
    return bounded(phrase)
