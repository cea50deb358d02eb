"""What is wrong with a configuration whose every key is right by itself, and what of it has no effect."""

from __future__ import annotations

from dataclasses import fields
from typing import TYPE_CHECKING

from srsd.errors import Fault
from srsd.syntax.endpoint import InetEndpoint

if TYPE_CHECKING:
    from collections.abc import Iterator

    from srsd.config import Config


def contradictions(config: Config, faulty: set[str]) -> list[Fault]:
    """Find what each key allows and all together do not; keys that are faulty by themselves are left out."""
    faults = []
    srs, listen = config.srs, config.listen
    if srs.hash_minimum > srs.hash_length and not faulty & {"srs.hash_minimum", "srs.hash_length"}:
        faults.append(
            Fault(
                "srs.hash_minimum",
                f"is {srs.hash_minimum}, so addresses with the {srs.hash_length} characters of hash_length "
                "would be refused, would be right: not more than hash_length",
            )
        )
    lists = {
        item.name: getattr(listen, item.name)
        for item in fields(listen)
        if not faulty & {"listen", f"listen.{item.name}"}
    }
    seen: dict[str, str] = {}
    for name, endpoint in [(name, each) for name, endpoints in lists.items() for each in endpoints]:
        address = str(endpoint).partition("?")[0]
        if address in seen and not (isinstance(endpoint, InetEndpoint) and endpoint.port == 0):
            problem = f'"{endpoint}" is in listen.{seen[address]} already, would be right: each one once'
            faults.append(Fault(f"listen.{name}", problem))
        seen[address] = name
    if srs.domain_for and not srs.domain and not faulty & {"srs.domain", "srs.domain_for"}:
        problem = "needs a domain for all others, would be right: srs.domain beside it"
        faults.append(Fault("srs.domain_for", problem))
    if srs.mode == "milter" and not faulty & {"srs.mode", "srs.domain", "listen", "listen.milter"}:
        if not srs.domain:
            faults.append(Fault("srs.mode", 'is "milter", would be right: srs.domain beside it'))
        if not listen.milter:
            problem = 'is "milter", and there is none, would be right: an endpoint in listen.milter'
            faults.append(Fault("srs.mode", problem))
    if config.arc.seal and not config.arc.domain and not faulty & {"arc.seal", "arc.domain"}:
        faults.append(Fault("arc.seal", "needs to know who seals, would be right: arc.domain beside it"))
    if all(lists.get(name) == () for name in ("srs_forward", "srs_reverse", "socketmap", "milter")):
        faults.append(
            Fault(
                "listen",
                "has no endpoint, would be right: one in srs_forward, srs_reverse, socketmap or milter",
            )
        )
    return faults


# Which check finds what an action is for.
_FOUND_BY = {
    "spf": ("spf_fail", "spf_softfail", "spf_helo_fail", "spf_permerror"),
    "dkim": ("dkim_fail",),
    "arc": ("arc_fail",),
    "dmarc": ("dmarc_reject", "dmarc_quarantine"),
}


def without_effect(config: Config) -> Iterator[Fault]:
    """Find the keys that ask for something which never happens."""
    policy = config.policy
    actions = {item.name: getattr(policy, item.name) for item in fields(policy)}
    asked = frozenset(
        name for name, action in actions.items() if isinstance(action, str) and action != "accept"
    )
    for section, names in _FOUND_BY.items():
        for name in names:
            if name in asked and not getattr(config, section).verify:
                yield Fault(f"policy.{name}", f"has no effect: {section}.verify is false")
    if config.srs.outbound_addresses and config.srs.when != "spf":
        yield Fault("srs.outbound_addresses", 'has no effect: srs.when is not "spf"')
    if config.srs.forgery_delay and not (config.srs.domain and config.listen.milter):
        missing = "listen.milter" if config.srs.domain else "srs.domain"
        yield Fault("srs.forgery_delay", f"has no effect: {missing} is empty")
    if config.dmarc.verify and not config.dkim.verify:
        for name in _FOUND_BY["dmarc"]:
            if name in asked:
                problem = "has no effect: DMARC cannot fail while dkim.verify is false"
                yield Fault(f"policy.{name}", problem)
    yield from _of_other_sections(config, asked)


def _of_other_sections(config: Config, asked: frozenset[str]) -> Iterator[Fault]:
    if "login_mismatch" in asked and not config.dkim.login_table:
        yield Fault("policy.login_mismatch", "has no effect: there is no dkim.login_table")
    if "dns_error" in asked and asked <= {"dns_error", "author_invalid", "login_mismatch"}:
        problem = "has no effect: no other action goes by what DNS says, so nothing can be missing"
        yield Fault("policy.dns_error", problem)
    if config.arc.trusted_sealers and not (config.arc.verify and config.dmarc.verify):
        off = "dmarc" if config.arc.verify else "arc"
        yield Fault("arc.trusted_sealers", f"has no effect: {off}.verify is false")
    if config.arc.seal and not config.arc.verify:
        yield Fault("arc.seal", "has no effect: arc.verify is false, and a seal says what the chain is")
