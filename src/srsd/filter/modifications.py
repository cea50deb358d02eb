"""From results to what is changed in the message, in the order in which the MTA must be told.

Postfix counts the fields of a name anew after each change, so all deletions come first, the lowest field
first. Each field that is inserted at the top pushes the others down, so they come in reverse.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from srsd.authres import Result, format_results
from srsd.dkim.result import Reason
from srsd.dmarc.outcome import DmarcResult
from srsd.filter.authenticate import HEADER_TOO_LARGE
from srsd.filter.chain import arc_results
from srsd.filter.forgeries import AUTHENTICATION_RESULTS
from srsd.filter.signing import DKIM_SIGNATURE
from srsd.spf.outcome import SpfResult
from srsd.spf.received_spf import format_received_spf
from srsd.syntax.address import Address
from srsd.syntax.domain import fold_domain
from srsd.syntax.shown import shown
from srsd.wire.milter import InsertHeader

if TYPE_CHECKING:
    from collections.abc import Iterator

    from srsd.filter.authenticate import DkimResults, SpfResults
    from srsd.filter.author import Author
    from srsd.filter.forgeries import Forgeries
    from srsd.filter.results import DmarcResults, Results
    from srsd.filter.sealing import Seal
    from srsd.filter.signing import Signatures
    from srsd.filter.transaction import Transaction
    from srsd.wire.milter import Modification

_RECEIVED_SPF = b"Received-SPF"


def modifications(  # noqa: PLR0913 - all that can change a message
    transaction: Transaction,
    results: Results,
    forgeries: Forgeries,
    signatures: Signatures,
    *,
    seal: Seal,
    value: bytes,
    received_spf: bool,
) -> list[Modification]:
    """Give the changes to a message; value is that of authentication_results, b"" for mail of ours.

    From the top: the ARC set, Authentication-Results, Received-SPF, DKIM-Signature.
    """
    changes: list[Modification] = [*forgeries.removals()]
    from_the_top = [InsertHeader(0, *field) for field in seal.fields] if seal.fields else []
    if value:
        from_the_top.append(InsertHeader(0, AUTHENTICATION_RESULTS, value))
        if received_spf:
            from_the_top += _received_spf(transaction, results.spf)
    if signatures.values:
        from_the_top += [InsertHeader(0, DKIM_SIGNATURE, value) for value in signatures.values]
    changes += reversed(from_the_top)
    return changes


def authentication_results(transaction: Transaction, results: Results) -> bytes:
    """Write the value of the one Authentication-Results field that is ours."""
    of_methods = [
        *spf_results(transaction, results.spf),
        *dkim_results(results.dkim),
        *arc_results(results.arc, transaction.client),
        *dmarc_results(results.dmarc, results.author),
    ]
    return format_results(transaction.authserv_id, of_methods, utf8=transaction.utf8)


def _received_spf(transaction: Transaction, results: SpfResults) -> Iterator[InsertHeader]:
    """Give a Received-SPF field for each identity that was checked and has a domain."""
    client, sender = transaction.client, transaction.sender
    receiver = transaction.authserv_id
    if client is None:
        return
    if results.mail_from is not None:
        value = format_received_spf(results.mail_from, "mailfrom", client, sender, transaction.helo, receiver)
        yield InsertHeader(0, _RECEIVED_SPF, value)
    if results.helo is not None and results.helo.result is not SpfResult.NONE:
        value = format_received_spf(results.helo, "helo", client, None, transaction.helo, receiver)
        yield InsertHeader(0, _RECEIVED_SPF, value)


def spf_results(transaction: Transaction, results: SpfResults) -> Iterator[Result]:
    """Say what SPF found, in the words of RFC 8601 §2.7.2; nothing for what was not checked."""
    mail_from, helo = results.mail_from, results.helo
    if mail_from is not None:
        if transaction.null_sender:
            properties = _helo(transaction)
        elif transaction.sender is not None:
            properties = (("smtp", "mailfrom", bytes(_folded(transaction.sender))),)
        else:
            properties = ()
        yield Result("spf", mail_from.result, mail_from.reason, properties)
    if helo is not None and helo.result is not SpfResult.NONE:
        yield Result("spf", helo.result, helo.reason, _helo(transaction))


def dkim_results(results: DkimResults) -> Iterator[Result]:
    """Say what became of each signature, in the words of RFC 8601 §2.7.1; `none` where there is none."""
    if results.why_unchecked == HEADER_TOO_LARGE:
        yield Result("dkim", "policy", HEADER_TOO_LARGE)
    elif not results.why_unchecked and not results.signatures:
        yield Result("dkim", "none")
    for each in results.signatures:
        domain, selector = each.domain, each.selector
        algorithm, start = each.algorithm, each.signature_start
        properties: tuple[tuple[str, str, bytes], ...] = (
            ("header", "d", domain),
            ("header", "s", selector),
            ("header", "a", algorithm),
            ("header", "b", start),
        )
        if not (domain and selector and algorithm and start):
            properties = tuple([each for each in properties if each[2]])
        if each.reason is Reason.VERIFIED:
            yield Result("dkim", "pass", "", properties)
        else:
            yield Result("dkim", each.result, each.phrase, properties)


def dmarc_results(results: DmarcResults, author: Author) -> Iterator[Result]:
    """Say what DMARC found, in the words of RFC 9989 §9.1 and §9.2; nothing where it can say nothing."""
    outcome = results.outcome
    if outcome is None:
        if author.problem and not author.domain and results.why_unchecked == author.problem:
            yield Result("dmarc", "permerror", author.problem)
        return
    properties = [("header", "from", author.domain)]
    if outcome.policy is not None:
        properties.append(("policy", "dmarc", outcome.policy.encode()))
    reason = "" if outcome.result is DmarcResult.PASS else outcome.reason
    if results.vouched_by:
        reason = f"local_policy: trusted sealer {shown(results.vouched_by)} saw it pass"
    yield Result("dmarc", outcome.result, reason, tuple(properties))


def _helo(transaction: Transaction) -> tuple[tuple[str, str, bytes], ...]:
    return (("smtp", "helo", fold_domain(transaction.helo) or transaction.helo),)


def _folded(address: Address) -> Address:
    """Give the domain in A-labels, which need no SMTPUTF8 to be written."""
    return Address(address.local_part, fold_domain(address.domain) or address.domain)
