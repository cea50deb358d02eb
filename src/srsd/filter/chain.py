"""ARC in the filter: whether a chain is looked at, what is said of it, and whom it lets us believe."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple

from srsd.arc.result import ChainStatus
from srsd.arc.trust import vouching_sealer
from srsd.arc.validate import plan_validation
from srsd.authres import Result
from srsd.exclusion import Skip
from srsd.filter.authenticate import EXCLUDED, HEADER_TOO_LARGE
from srsd.syntax.domain import fold_domain, parse_domain
from srsd.syntax.setting import setting

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from srsd.arc.result import ArcResult
    from srsd.arc.validate import ValidationPlan
    from srsd.dkim.verify import DkimVerificationParameters
    from srsd.resolving import IpAddress
    from srsd.syntax.header import HeaderField


def _check_domains(value: Iterable[str]) -> str | None:
    for text in value:
        try:
            parse_domain(text)
        except ValueError as error:
            return f"{error}, would be right: domains such as lists.example.org"
    return None


@dataclass(frozen=True, kw_only=True)
class ArcCheckParameters:
    """Validation of ARC chains (RFC 8617)."""

    verify: bool = setting(True, "Validate the ARC chain of mail that is not ours.")
    trusted_sealers: tuple[str, ...] = setting(
        (),
        "Domains that we believe: where DMARC fails here, but one of them has sealed that it passed there, "
        "no dmarc_ action is taken (local_policy). Each later seal must be of one of them, too.",
        _check_domains,
    )


class ArcResults(NamedTuple):
    """What is known of the chain. None is what was not looked at."""

    chain: ArcResult | None = None
    why_unchecked: str = ""  # for the log

    @property
    def broken(self) -> bool:
        """Tell whether there is a chain that fails, and not for want of DNS."""
        chain = self.chain
        return chain is not None and chain.status is ChainStatus.FAIL and not chain.temporary


def plan_chain(
    fields: Sequence[HeaderField] | None,
    skipped: frozenset[Skip],
    now: int,
    parameters: DkimVerificationParameters,
) -> ValidationPlan | str:
    """Begin to validate, or say why not. fields is None where the header is too large to be kept."""
    if Skip.ARC in skipped:
        return EXCLUDED
    if fields is None:
        return HEADER_TOO_LARGE
    return plan_validation(fields, now, minimum_key_bits=parameters.minimum_key_bits)


@lru_cache(maxsize=4)  # a configuration has one
def trusted_domains(parameters: ArcCheckParameters) -> frozenset[bytes]:
    """Fold the domains of trusted_sealers."""
    folded = (fold_domain(text.encode()) for text in parameters.trusted_sealers)
    return frozenset(domain for domain in folded if domain is not None)


def find_voucher(results: ArcResults, trusted: frozenset[bytes], author_domain: bytes) -> bytes:
    """Find a trusted sealer that saw DMARC pass for the author domain; b"" if there is none."""
    if not trusted or results.chain is None:
        return b""
    return vouching_sealer(results.chain, trusted, author_domain) or b""


def arc_results(results: ArcResults, client: IpAddress | None) -> Iterator[Result]:
    """Say what became of the chain, in the words of RFC 8617 §10.2; nothing if it was not looked at."""
    chain = results.chain
    if chain is None:
        return
    if chain.status is ChainStatus.NONE:
        yield _NONE
        return
    properties: list[tuple[str, str, str]] = []
    if chain.oldest_pass is not None:
        properties.append(("header", "oldest-pass", str(chain.oldest_pass)))
    if client is not None:
        properties.append(("smtp", "remote-ip", str(client)))
    reason = "" if chain.status is ChainStatus.PASS else chain.phrase
    yield Result("arc", chain.status, reason, tuple(properties))


_NONE = Result("arc", "none")
