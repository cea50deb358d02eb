"""What of the results [policy] has a key for, with the code and the words that the client hears.

The codes are those of RFC 7372 (SPF, DKIM, several methods), RFC 7505 (null MX) and RFC 8617 (ARC).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from srsd.dkim.result import Result as DkimWord
from srsd.dmarc.outcome import DmarcResult
from srsd.dmarc.record import Policy
from srsd.filter.authenticate import EXCLUDED, LOGIN_MISMATCH
from srsd.spf.outcome import SpfResult
from srsd.syntax.address import parse_path
from srsd.syntax.shown import shown

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from srsd.filter.authenticate import DkimResults, SpfResults
    from srsd.filter.results import Results
    from srsd.filter.transaction import Transaction

_TEXT_MAXIMUM = 400  # octets; a line of a reply has 512 (RFC 5321 §4.5.3.1.5)
_POLICY_KEYS = {Policy.REJECT: "dmarc_reject", Policy.QUARANTINE: "dmarc_quarantine"}
_DNS_FAILED = b"4.3"  # a directory server failed: RFC 3463 §3.5
_METHODS = {
    **dict.fromkeys(("spf_fail", "spf_softfail", "spf_helo_fail", "spf_permerror"), "SPF"),
    "dkim_fail": "DKIM",
    "arc_fail": "ARC",
}
_ROLES = frozenset({b"postmaster", b"abuse"})


class Finding(NamedTuple):
    """One thing that [policy] has a key for."""

    key: str
    code: bytes  # subject and detail of the enhanced status code; the action gives its class
    text: str  # for the client: printable ASCII that names the domain and the reason


def _finding(key: str, code: bytes, text: str) -> Finding:
    return Finding(key, code, text if len(text) <= _TEXT_MAXIMUM else text[: _TEXT_MAXIMUM - 3] + "...")


def _missing(key: str, text: str) -> Finding:
    return _finding(key, _DNS_FAILED, f"DNS: {text}")


def together(findings: Sequence[Finding]) -> Finding:
    """Make one of findings that are as bad: the first, unless several methods failed (RFC 7372 §4)."""
    first = findings[0]
    methods = dict.fromkeys(_METHODS[each.key] for each in findings if each.key in _METHODS)
    if first.code == _DNS_FAILED or first.key not in _METHODS or len(methods) < 2:
        return first
    texts = [next(each.text for each in findings if _METHODS.get(each.key) == method) for method in methods]
    return _finding(first.key, b"7.26", "; ".join(texts))


def of_submission(results: Results) -> Iterator[Finding]:
    """Give what was found about mail of ours."""
    if results.login_mismatch:
        yield _finding("login_mismatch", b"7.1", f"From: {LOGIN_MISMATCH}")


def of_mail_from_outside(transaction: Transaction, results: Results) -> Iterator[Finding]:
    """Give what was found about mail of others, by the answers of DNS that came."""
    yield from _of_author(results)
    yield from _of_spf(transaction, results.spf)
    if results.null_mx.found:
        yield _finding(
            "null_mx", b"7.27", f"MAIL FROM: {_sender_domain(transaction)} takes no mail (null MX)"
        )
    # What is neutral uses what we do not know, so it is like no signature (RFC 6376 §6.1.1).
    words = {signature.result for signature in results.dkim.signatures} - {DkimWord.NEUTRAL}
    if words and not words & {DkimWord.PASS, DkimWord.TEMPERROR}:
        yield _of_dkim(results.dkim)
    chain = results.arc.chain
    if chain is not None and results.arc.broken:
        yield _finding("arc_fail", b"7.29", f"ARC: the chain is broken: {chain.phrase}")


def of_missing_answers(transaction: Transaction, results: Results) -> Iterator[Finding]:
    """Give what could have been found besides, had DNS answered. The words are those for a deferral."""
    mail_from, helo = results.spf.mail_from, results.spf.helo
    if mail_from is not None and mail_from.result is SpfResult.TEMPERROR:
        text = f"SPF of {shown(mail_from.checked_domain)} could not be checked: {mail_from.reason}"
        for key in ("spf_fail", "spf_softfail", "spf_permerror"):
            yield _missing(key, text)
    if helo is not None and helo.result is SpfResult.TEMPERROR:
        yield _missing("spf_helo_fail", f"SPF of HELO {shown(helo.checked_domain)} could not be checked")
    if results.null_mx.missing:
        text = f"MX of {_sender_domain(transaction)} could not be asked for: {results.null_mx.missing}"
        yield _missing("null_mx", text)
    words = {signature.result for signature in results.dkim.signatures}
    if DkimWord.TEMPERROR in words and DkimWord.PASS not in words:
        yield _missing("dkim_fail", f"a DKIM key could not be asked for: {_domains(results.dkim)}")
    outcome = results.dmarc.outcome
    if outcome is not None and outcome.result is DmarcResult.TEMPERROR:
        text = f"DMARC of {shown(results.author.domain)} could not be checked: {outcome.reason}"
        for policy, key in _POLICY_KEYS.items():
            if outcome.policy in (policy, None):
                yield _missing(key, text)
    if results.arc.chain is not None and results.arc.chain.temporary:
        yield _missing("arc_fail", f"ARC could not be validated: {results.arc.chain.phrase}")


def _of_author(results: Results) -> Iterator[Finding]:
    author, dmarc = results.author, results.dmarc
    if author.problem and not author.domain and dmarc.why_unchecked != EXCLUDED:
        yield _finding("author_invalid", b"7.1", f"From: {author.problem}")
    outcome = dmarc.outcome
    if outcome is None or outcome.result is not DmarcResult.FAIL or dmarc.vouched_by:
        return
    key = _POLICY_KEYS.get(outcome.policy) if outcome.policy is not None else None
    if key is not None:
        domain, policy = shown(author.domain), key.removeprefix("dmarc_")
        yield _finding(key, b"7.26", f"DMARC: {domain} asks to {policy} what fails: {outcome.reason}")


def _of_spf(transaction: Transaction, results: SpfResults) -> Iterator[Finding]:
    mail_from, helo, client = results.mail_from, results.helo, transaction.client
    if mail_from is not None:
        domain = shown(mail_from.checked_domain)
        if mail_from.result is SpfResult.FAIL:
            yield _finding("spf_fail", b"7.23", f"SPF: {client} may not send mail of {domain}")
        elif mail_from.result is SpfResult.SOFTFAIL:
            text = f"SPF: {client} is probably not allowed to send mail of {domain}"
            yield _finding("spf_softfail", b"7.23", text)
        elif mail_from.result is SpfResult.PERMERROR:
            reason = mail_from.reason
            yield _finding("spf_permerror", b"7.24", f"SPF: the record of {domain} is in error: {reason}")
    if helo is not None and helo.result is SpfResult.FAIL:
        domain = shown(helo.checked_domain)
        yield _finding("spf_helo_fail", b"7.23", f"SPF: {client} may not say HELO {domain}")


def _of_dkim(results: DkimResults) -> Finding:
    """Say why no signature passes: 7.21 where one verifies, but not in a way that we accept."""
    counting = [each for each in results.signatures if each.result is not DkimWord.NEUTRAL]
    acceptable = DkimWord.POLICY not in {signature.result for signature in counting}
    first = counting[0]
    text = f"DKIM: no signature passes: d={shown(first.domain)}: {first.phrase}"
    return _finding("dkim_fail", b"7.20" if acceptable else b"7.21", text)


def _domains(results: DkimResults) -> str:
    return ", ".join(dict.fromkeys(shown(each.domain) for each in results.signatures))


def _sender_domain(transaction: Transaction) -> str:
    return shown(transaction.sender.domain) if transaction.sender is not None else ""


def is_for_a_role(transaction: Transaction) -> bool:
    """Tell whether a message is for postmaster or abuse (RFC 2142), who must hear of what goes wrong."""
    return any(_local_part(path) in _ROLES for path in transaction.recipients)


def _local_part(path: bytes) -> bytes:
    """Give the local-part of a forward-path; RFC 5321 §4.5.1 has <Postmaster>, without a domain."""
    address = parse_path(path)
    return (address.local_part if address is not None else path.strip(b"<>")).lower()
