"""Sealing the mail of others (RFC 8617 §5.1), so that those it is forwarded to can see what we saw."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from srsd.arc.seal import plan_sealing, sealing_signer
from srsd.dkim.keystore import parse_signing_domain
from srsd.syntax.setting import setting

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from srsd.arc.seal import SealingPlan
    from srsd.arc.validate import ValidationPlan
    from srsd.dkim.canonicalization import BodyHash, BodyHashKey
    from srsd.dkim.keystore import KeyStore
    from srsd.dkim.sign import Signer
    from srsd.filter.chain import ArcResults
    from srsd.syntax.header import HeaderField

NO_CHAIN = "the chain was not validated"


def _check_domain(value: str) -> str | None:
    try:
        parse_signing_domain(value or "example.org")
    except ValueError as error:
        return str(error)
    return None


@dataclass(frozen=True, kw_only=True)
class SealingParameters:
    """Who seals."""

    seal: bool = setting(
        False,
        "Seal the mail of others that we accept, as forwarders do. Where it goes on to no other host, "
        "a seal does no harm.",
    )
    domain: str = setting(
        "", "Who seals, with the RSA key of dkim.key_directory/DOMAIN. arc.seal needs it.", _check_domain
    )


class Seal(NamedTuple):
    """What became of sealing."""

    fields: tuple[HeaderField, ...] = ()  # from the top
    sealed_as: str = ""  # "i=... s=... d=...", for the log
    why_not: str = ""


def find_sealer(domain: str, keys: KeyStore) -> Signer | str:
    """Find who seals for a domain, or say why nobody can."""
    own = keys.domains.get(parse_signing_domain(domain))
    if own is None:
        return f"there is no key for {domain}"
    return sealing_signer(own.signing) or f"no RSA key of {domain} signs"


class SealingService:
    """Seals with one key."""

    def __init__(self, domain: str, keys: KeyStore) -> None:
        self._sealer = find_sealer(domain, keys)

    def begin(
        self, fields: Sequence[HeaderField] | None, chain: ValidationPlan | str, now: int
    ) -> MessageSealing | Seal:
        """Begin to seal a message of others whose header is there, or say why it is not sealed.

        chain is the reason where it is not validated, as it never is where the header was not kept: fields
        is None then.
        """
        if isinstance(self._sealer, str):
            return Seal(why_not=self._sealer)
        if fields is None or isinstance(chain, str):
            return Seal(why_not=f"{NO_CHAIN}: {chain}")
        plan = plan_sealing(fields, chain, self._sealer, now)
        if isinstance(plan, str):
            return Seal(why_not=plan)
        return MessageSealing(plan, self._sealer, chain.highest_instance + 1)


class MessageSealing:
    """One message that is being sealed."""

    def __init__(self, plan: SealingPlan, signer: Signer, instance: int) -> None:
        self.body_hash = plan.body_hash
        self._plan = plan
        self._signer = signer
        self._instance = instance

    def finish(self, results: ArcResults, value: bytes, body_hashes: Mapping[BodyHashKey, BodyHash]) -> Seal:
        """Seal. value is that of our Authentication-Results, which goes into the set (§4.1.1)."""
        if results.chain is None:
            return Seal(why_not=NO_CHAIN)
        fields = self._plan.finish(results.chain, body_hashes[self.body_hash], value)
        if isinstance(fields, str):
            return Seal(why_not=fields)
        signer = self._signer
        name = f"i={self._instance} s={signer.selector.decode()} d={signer.domain.decode()}"
        return Seal(fields, name)
