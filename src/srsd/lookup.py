"""One table lookup: whose domain it is, excluded or not, and what SRS makes of the address."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from srsd.address_store import Keep, Recall
from srsd.exclusion import ExclusionMap, Skip
from srsd.srs import Refusal, Srs, Token, is_srs
from srsd.syntax.address import LOCAL_PART_MAXIMUM, Address, parse_address, quote_local_part
from srsd.syntax.domain import DomainSet, fold_domain, parse_domain
from srsd.syntax.setting import setting
from srsd.wire.answer import Answer, Status

if TYPE_CHECKING:
    from collections.abc import Iterable

    from srsd.address_store import Pending
    from srsd.srs import Examination


def _check_srs_domain(value: str) -> str | None:
    if not value:
        return None
    right = "would be right: a domain of yours with an MX record, such as srs.example.org"
    try:
        folded = parse_domain(value)
    except ValueError as error:
        return f"{error}, {right}"
    return None if b"." in folded else f"{value!r} has no dot, {right}"


def _check_domains(value: Iterable[str]) -> str | None:
    try:
        DomainSet(value)
    except ValueError as error:
        return f"{error}, would be right: names such as example.org, or .example.org for its subdomains"
    return None


def _check_chosen(value: str) -> str | None:
    return _check_srs_domain(value) if value else "is missing, would be right: a domain as in srs.domain"


def _check_choosing(value: tuple[str, ...]) -> str | None:
    return _check_domains(value) if value else 'is empty, would be right: names such as "example.org"'


@dataclass(frozen=True, kw_only=True)
class DomainFor:
    """An SRS domain for some of the mail."""

    domains: tuple[str, ...] = setting((), "For whom.", _check_choosing)
    domain: str = setting("", "The domain of their rewritten addresses.", _check_chosen)


@dataclass(frozen=True, kw_only=True)
class LookupParameters:
    """Which senders are rewritten, and where they then come from."""

    domain: str = setting(
        "",
        "The domain of rewritten addresses. It needs an MX record that leads to this host. "
        "Empty: every lookup answers not found.",
        _check_srs_domain,
    )
    local_domains: tuple[str, ...] = setting(
        (),
        "Domains whose senders are never rewritten, since this host may send for them. "
        '".example.org" means all subdomains. domain and previous_domains always belong.',
        _check_domains,
    )
    previous_domains: tuple[str, ...] = setting(
        (),
        "Former values of domain: addresses rewritten to them are still reversed.",
        _check_domains,
    )
    domain_for: tuple[DomainFor, ...] = setting(
        (),
        "SRS domains beside domain, as tables [[srs.domain_for]] with two keys each: domains, and the domain "
        "of addresses that are rewritten for them. The first table that has it counts. Milter mode: domains "
        "of the recipient whose mail leaves; maps: of the sender. Addresses in all of them are reversed.",
    )
    envelope: Literal["embedded", "stored", "auto"] = setting(
        "embedded",
        "Where the original sender is. embedded: in the rewritten address, however long that gets. "
        "stored: in state_directory/addresses.sqlite, and the rewritten address has a short token for it. "
        "auto: stored only where the rewritten local-part would have more than the 64 octets that every "
        "receiver takes.",
    )
    always_rewrite: bool = setting(
        False, "Rewrite senders in local_domains and domain too, but never our own SRS addresses."
    )


def _not_found(reason: str) -> Answer:
    return Answer(Status.NOT_FOUND, reason.encode(), reason)


NO_DOMAIN = _not_found("no SRS domain configured")
NOT_AN_ADDRESS = _not_found("not an address")
NULL_SENDER = _not_found("null sender")
ALREADY_REWRITTEN = _not_found("already rewritten here")
OWN_DOMAIN = _not_found("own domain")
EXCLUDED = _not_found("excluded")
FOREIGN_DOMAIN = _not_found("SRS address of another domain")
# What a stranger tried or a clock spoilt is worth a line; that an address is no SRS address is not.
NOTABLE = frozenset({refusal.value for refusal in Refusal if refusal is not Refusal.NOT_SRS})
REWRITTEN = "rewritten"
REWRITTEN_STORED = "rewritten, original stored"
REWRITTEN_LONG = "rewritten, with a local-part of over 64 octets that some receivers refuse"
_REFUSED = {refusal: _not_found(refusal.value) for refusal in Refusal}
_NULL_KEYS = (b"", b'""', b"<>")  # Postfix asks for the null sender as two quote characters


class Lookup:
    """Answers lookups under one configuration; a reload makes a new one. Keeps no state.

    today is the number of days since 1970-01-01, UTC.
    """

    def __init__(self, parameters: LookupParameters, srs: Srs | None, exclusions: ExclusionMap) -> None:
        """Prepare to answer. srs may be missing only where parameters.domain is empty."""
        if parameters.domain and srs is None:
            raise ValueError("an SRS domain needs secrets")
        self._srs = srs
        self._domain = _emitted(parameters.domain)
        self._exclusions = exclusions if len(exclusions) else None
        self._always_rewrite = parameters.always_rewrite
        self._stores_all = parameters.envelope == "stored"
        self._stores_long = parameters.envelope == "auto"
        self._domains_for = [
            (DomainSet(each.domains), _emitted(each.domain)) for each in parameters.domain_for
        ]
        others = (*parameters.previous_domains, *(each.domain for each in parameters.domain_for))
        srs_domains = (parameters.domain, *others) if parameters.domain else ()
        self._srs_domains = DomainSet(srs_domains)
        self._own_domains = DomainSet((*srs_domains, *parameters.local_domains))

    @property
    def has_several_domains(self) -> bool:
        """Tell whether it matters for whom a sender is rewritten."""
        return bool(self._domains_for)

    def forward(self, key: bytes, today: int, wanted_by: bytes | None = None) -> Answer | Pending:
        """Rewrite a sender. Pending: settle it with the store first.

        wanted_by is the domain of the recipient whose mail leaves; None where that is not known, as in
        sender_canonical_maps: then the sender's own domain chooses the SRS domain.
        """
        srs = self._srs
        if srs is None:
            return NO_DOMAIN
        address = parse_address(key)
        if address is None:
            return NULL_SENDER if key in _NULL_KEYS else NOT_AN_ADDRESS
        left_alone = self._left_alone(address)
        if left_alone is not None:
            return left_alone
        domain = self._domain
        if self._domains_for:
            domain = self._domain_for(address.domain if wanted_by is None else wanted_by)
        if self._stores_all:
            return self._store(srs, address, today, domain)
        local_part = srs.forward(address, today)
        if isinstance(local_part, Refusal):
            return _REFUSED[local_part]
        spelt = quote_local_part(local_part)
        if len(spelt) <= LOCAL_PART_MAXIMUM:
            return Answer(Status.FOUND, spelt + b"@" + domain, REWRITTEN)
        if self._stores_long:
            return self._store(srs, address, today, domain)
        # Length alone never stops rewriting: a receiver may refuse it, SPF surely would without it.
        return Answer(Status.FOUND, spelt + b"@" + domain, REWRITTEN_LONG)

    def _domain_for(self, wanted_by: bytes) -> bytes:
        """Choose the SRS domain."""
        folded = fold_domain(wanted_by)
        return next((domain for domains, domain in self._domains_for if folded in domains), self._domain)

    @staticmethod
    def _store(srs: Srs, address: Address, today: int, domain: bytes) -> Answer | Keep:
        """Rewrite a sender to a token."""
        stored = srs.forward_stored(address, today)
        if isinstance(stored, Refusal):
            return _REFUSED[stored]
        answer = Answer(Status.FOUND, stored.local_part + b"@" + domain, REWRITTEN_STORED)
        return Keep(stored.token, bytes(stored.original), today + srs.maximum_age, answer)

    def _left_alone(self, address: Address) -> Answer | None:
        """Tell why a sender is not rewritten, if there is a reason."""
        folded = fold_domain(address.domain)
        if folded in self._own_domains:
            if folded in self._srs_domains and is_srs(address.local_part):
                # Postfix looks results up again: an SRS1 of our own SRS0 would never end.
                return ALREADY_REWRITTEN
            if not self._always_rewrite:
                return OWN_DOMAIN
        exclusions = self._exclusions
        if exclusions is not None and Skip.SRS in exclusions.for_address(address.local_part, folded):
            return EXCLUDED
        return None

    def reverse(self, key: bytes, today: int) -> Answer | Recall:
        """Reverse a rewritten address, for recipient_canonical_maps. Recall: the store has the answer."""
        if self._srs is None:
            return NO_DOMAIN
        address = parse_address(key)
        if address is None:
            return NULL_SENDER if key in _NULL_KEYS else NOT_AN_ADDRESS
        if not is_srs(address.local_part):
            return _REFUSED[Refusal.NOT_SRS]
        if fold_domain(address.domain) not in self._srs_domains:
            return FOREIGN_DOMAIN
        original = self._srs.reverse(address.local_part, today)
        if isinstance(original, Refusal):
            return _REFUSED[original]
        if isinstance(original, Token):
            return Recall(original)
        return Answer(Status.FOUND, bytes(original), "reversed")

    def examine(self, key: bytes, today: int) -> Examination | None:
        """Say all that can be said of an SRS address at one of our domains; None for any other key."""
        address = parse_address(key)
        if self._srs is None or address is None or not is_srs(address.local_part):
            return None
        if fold_domain(address.domain) not in self._srs_domains:
            return None
        return self._srs.examine(address.local_part, today)


def _emitted(domain: str) -> bytes:
    """Spell the SRS domain for addresses: as written, but A-labels for a name that is not ASCII."""
    return domain.removesuffix(".").encode() if domain.isascii() else parse_domain(domain)
