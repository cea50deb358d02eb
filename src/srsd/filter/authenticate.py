"""Who the sender is: which checks of SPF and DKIM apply to a transaction, and what they ask of DNS."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from srsd.dkim.verify import DkimVerificationParameters
from srsd.exclusion import Skip
from srsd.filter.origin import Origin
from srsd.spf.check_host import check_helo, check_mail_from
from srsd.spf.outcome import SpfOutcome, SpfResult
from srsd.syntax.domain import fold_domain
from srsd.syntax.setting import setting

if TYPE_CHECKING:
    from collections.abc import Iterable

    from srsd.dkim.login_table import LoginTable
    from srsd.dkim.result import DkimResult
    from srsd.exclusion import ExclusionMap
    from srsd.filter.author import Author
    from srsd.filter.transaction import Transaction
    from srsd.resolving import Answer, IpAddress, Resolver
    from srsd.spf.trace import Trace


@dataclass(frozen=True, kw_only=True)
class SpfCheckParameters:
    """SPF checks (RFC 7208)."""

    verify: bool = setting(True, "Check SPF of HELO and MAIL FROM, for mail that is not ours.")
    received_spf: bool = setting(False, "Add Received-SPF (RFC 7208 §9.1) below our Authentication-Results.")


@dataclass(frozen=True, kw_only=True)
class DkimCheckParameters(DkimVerificationParameters):
    """Verification of DKIM signatures (RFC 6376)."""

    verify: bool = setting(True, "Verify the DKIM signatures of mail that is not ours.")


class SpfResults(NamedTuple):
    """What SPF found. None is what was not checked."""

    mail_from: SpfOutcome | None = None  # for the null sender, of postmaster@HELO
    helo: SpfOutcome | None = None  # where the sender is not null
    why_unchecked: str = ""  # for the log
    unchecked_domain: bytes | None = None  # that was not checked; b"" where there is none, None: not known


class DkimResults(NamedTuple):
    """What verification found: one result for each signature, from the top."""

    signatures: tuple[DkimResult, ...] = ()
    not_examined: int = 0  # further ones, which were not looked at
    why_unchecked: str = ""


class NullMx(NamedTuple):
    """Whether the domain of MAIL FROM says that it takes no mail (RFC 7505)."""

    found: bool = False
    missing: str = ""  # why DNS gave no answer


NO_ADDRESS = "the client has no IP address"
SWITCHED_OFF = "switched off"
EXCLUDED = "excluded"
HEADER_TOO_LARGE = "the header is too large"
LOGIN_MISMATCH = "the login may not write as this author"
_NO_SKIPS: frozenset[Skip] = frozenset()


def why_no_spf(transaction: Transaction, parameters: SpfCheckParameters, exclusions: ExclusionMap) -> str:
    """Say why SPF is not checked for a transaction; "" where it is."""
    if transaction.origin is not Origin.OUTSIDE:
        return str(transaction.origin.value)
    if not parameters.verify:
        return SWITCHED_OFF
    if transaction.client is None:
        return NO_ADDRESS
    sender = transaction.sender
    if Skip.SPF in exclusions.for_client(transaction.client) or (
        sender is not None
        and Skip.SPF in exclusions.for_address(sender.local_part, fold_domain(sender.domain))
    ):
        return EXCLUDED
    return ""


def unchecked_spf(transaction: Transaction, why: str) -> SpfResults:
    """Give the results of SPF where it is not checked.

    What a trusted relay hands on may have had another MAIL FROM when it came there.
    """
    if transaction.origin is not Origin.OUTSIDE:
        return SpfResults(why_unchecked=why)
    sender = transaction.sender
    domain = transaction.helo if transaction.null_sender else sender.domain if sender is not None else b""
    return SpfResults(why_unchecked=why, unchecked_domain=fold_domain(domain) or b"")


def skips_of(client: IpAddress | None, author: Author, exclusions: ExclusionMap) -> frozenset[Skip]:
    """Tell what the exclusion map switches off for an author, or for the client."""
    if not exclusions:
        return _NO_SKIPS
    skipped = exclusions.for_client(client) if client is not None else _NO_SKIPS
    if author.address is not None:
        return skipped | exclusions.for_address(author.address.local_part, author.domain)
    return skipped | exclusions.for_domain(author.domain) if author.domain else skipped


def is_login_mismatch(login: bytes, author: Author, logins: LoginTable | None) -> bool:
    """Tell whether a client that has authenticated writes as an author that its login does not have.

    Where there is not one author, nobody can tell whom a reader would see.
    """
    if logins is None or not login:
        return False
    return author.address is None or not logins.allows(login, author.address)


async def check_spf(
    transaction: Transaction,
    resolver: Resolver,
    now: int,
    *,
    mail_from_trace: Trace | None = None,
    helo_trace: Trace | None = None,
) -> SpfResults:
    """Check SPF of both identities, one after the other. now is in seconds since 1970."""
    helo = await _check_helo(transaction, resolver, now, helo_trace)
    return SpfResults(await _check_mail_from(transaction, resolver, now, mail_from_trace), helo)


async def check_spf_side_by_side(transaction: Transaction, resolver: Resolver, now: int) -> SpfResults:
    """Check SPF of both identities at once, which halves the time that slow DNS takes."""
    mail_from, helo = await asyncio.gather(
        _check_mail_from(transaction, resolver, now, None), _check_helo(transaction, resolver, now, None)
    )
    return SpfResults(mail_from, helo)


async def _check_helo(
    transaction: Transaction, resolver: Resolver, now: int, trace: Trace | None
) -> SpfOutcome | None:
    client = transaction.client
    if client is None or transaction.null_sender:  # MAIL FROM is checked as postmaster@HELO then
        return None
    receiver, helo = transaction.authserv_id, transaction.helo
    return await check_helo(resolver, client, helo, receiver=receiver, now=now, trace=trace, explain=False)


async def _check_mail_from(
    transaction: Transaction, resolver: Resolver, now: int, trace: Trace | None
) -> SpfOutcome | None:
    client, sender = transaction.client, transaction.sender
    if client is None:
        return None
    if sender is None and not transaction.null_sender:
        # `<alice>` has no domain that SPF could ask; what only looks like an address may be an attack.
        odd = SpfResult.PERMERROR if b"@" in transaction.sender_path else SpfResult.NONE
        return SpfOutcome(odd, "MAIL FROM is not an address")
    receiver, helo = transaction.authserv_id, transaction.helo
    return await check_mail_from(
        resolver, client, sender, helo, receiver=receiver, now=now, trace=trace, explain=False
    )


async def ask_for_keys_in_order(names: Iterable[bytes], resolver: Resolver) -> dict[bytes, Answer[bytes]]:
    """Ask for DKIM key records one after the other: for a resolver that never waits."""
    return {name: await resolver.txt(name) for name in names}


async def ask_for_keys(names: Iterable[bytes], resolver: Resolver) -> dict[bytes, Answer[bytes]]:
    """Ask for DKIM key records side by side."""
    names = list(names)
    return dict(zip(names, await asyncio.gather(*map(resolver.txt, names)), strict=True))


async def check_null_mx(transaction: Transaction, resolver: Resolver) -> NullMx:
    """Ask whether the domain of MAIL FROM takes no mail: one MX record, whose name is the root."""
    sender = transaction.sender
    domain = fold_domain(sender.domain) if sender is not None else None
    if domain is None or domain.startswith(b"["):
        return NullMx()
    answer = await resolver.mx(domain)
    if answer.outcome.temporary:
        return NullMx(missing=answer.outcome.value)
    return NullMx(found=[each.exchange for each in answer.records] == [b""])
