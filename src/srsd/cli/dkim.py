"""srsctl dkim: the keys that sign, the records that DNS must have for them, and whether it has."""

from __future__ import annotations

import asyncio
import os
import sys
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar, cast

import click

from srsd.cli.common import NO, as_json, exit_faulty, load_config, print_json
from srsd.cli.key_directory import (
    create_active,
    create_key,
    default_selectors,
    find_owner,
    key_path,
    make_directories,
    replace_active,
)
from srsd.cli.key_view import (
    describe,
    describe_state,
    kind_of,
    print_records,
    print_table,
    shown,
    why,
)
from srsd.crypto import KeyType, generate_key
from srsd.daemon.dns.resolver import StubResolver
from srsd.daemon.key_files import find_domain_directory, list_key_directory, read_domain
from srsd.daemon.main import EX_CONFIG
from srsd.dkim.keystore import ACTIVE, key_name, parse_selector, parse_signing_domain
from srsd.dkim.publication import Publication, Published, judge_publication
from srsd.dkim.sign import Signer
from srsd.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from typing import Literal

    from srsd.dkim.keystore import DomainKeys
    from srsd.resolving import DnsParameters

_Command = TypeVar("_Command", bound="Callable[..., Any]")
_BITS = ("1024", "2048", "3072", "4096")
_KINDS = {"rsa": (KeyType.RSA,), "ed25519": (KeyType.ED25519,), "both": (KeyType.RSA, KeyType.ED25519)}
_RECOMMENDED_BITS = 2048


@click.group("dkim")
def dkim_group() -> None:
    """Make and list the keys that sign mail, and compare them with DNS."""


def _parse_domain(_context: click.Context, _parameter: click.Parameter, value: str | None) -> bytes | None:
    try:
        return None if value is None else parse_signing_domain(value)
    except ValueError as error:
        raise click.BadParameter(str(error)) from None


def _parse_selector(_context: click.Context, _parameter: click.Parameter, value: str | None) -> bytes | None:
    try:
        return None if value is None else parse_selector(value)
    except ValueError as error:
        raise click.BadParameter(str(error)) from None


def _parse_selectors(
    context: click.Context, parameter: click.Parameter, values: Iterable[str]
) -> list[bytes | None]:
    return list(dict.fromkeys(_parse_selector(context, parameter, each) for each in values))


def _domain_argument(*, required: bool = True) -> Callable[[_Command], _Command]:
    return click.argument("domain", required=required, callback=_parse_domain)


def _fail(text: str) -> NoReturn:
    click.echo(text, err=True)
    sys.exit(NO)


def _read(directory: str, *, with_active: bool = True) -> DomainKeys:
    """Read the keys of a domain, or exit 78."""
    try:
        return read_domain(directory, with_active=with_active)
    except ConfigError as error:
        exit_faulty(error, directory)


# Making keys.


@dkim_group.command(epilog="Example: srsctl dkim genkey example.org --type both")
@_domain_argument()
@click.option(
    "--selector",
    metavar="S",
    callback=_parse_selector,
    help="The selector. Default: s and the month, as in s202611. With --type both, -rsa and -ed25519 follow.",
)
@click.option(
    "--type", "kind", default="rsa", show_default=True, type=click.Choice(list(_KINDS)), help="The algorithm."
)
@click.option(
    "--bits",
    default=str(_RECOMMENDED_BITS),
    show_default=True,
    type=click.Choice(_BITS),
    help="The size of an RSA key.",
)
@as_json
@click.pass_obj
def genkey(  # noqa: PLR0913, PLR0917 - one for each option
    config_path: str, domain: bytes, selector: bytes | None, kind: str, bits: str, as_json: bool
) -> None:
    """Make a key for DOMAIN and its subdomains, and print the TXT record that DNS must have for it.

    A domain's first key signs at once; further ones only after `srsctl dkim activate`. A key that is there
    already is never changed: then the exit status is 1.
    """
    config = load_config(config_path)
    directory = find_domain_directory(config.dkim.key_directory, domain)
    present = _read(directory)
    kinds = _KINDS[kind]
    size = cast("Literal[1024, 2048, 3072, 4096]", int(bits))
    keys = [
        Signer(domain, each, generate_key(key_type, size))
        for each, key_type in zip(_free_selectors(selector, kinds, directory), kinds, strict=True)
    ]
    # A key that signs alone is named, too: else the new one would sign if its name came first.
    signing = present.signing if present.decides else tuple(keys)
    try:
        owner = find_owner(config)
        make_directories(directory, config.dkim.key_directory, owner)
        for each in keys:
            create_key(directory, each, owner)
        create_active(directory, signing, owner)
    except FileExistsError as error:
        _fail(f"{error.filename2 or error.filename}: is there already and was not changed")
    except (OSError, ConfigError) as error:
        _fail(f"{directory}: the key could not be made: {error}")
    _tell_new(keys, directory, signs=signing == tuple(keys), as_json=as_json)


def _free_selectors(selector: bytes | None, kinds: Sequence[KeyType], directory: str) -> list[bytes]:
    """Choose the selectors of new keys; exits 1 when they are taken."""
    suffixes = [b"" if len(kinds) == 1 else b"-" + kind.value for kind in kinds]
    for base in default_selectors() if selector is None else (selector,):
        selectors = [base + suffix for suffix in suffixes]
        taken = [each for each in selectors if os.path.lexists(key_path(directory, each))]
        if not taken:
            return selectors
    _fail(
        f"{key_path(directory, taken[0])}: is there already and was not changed, "
        "would be right: --selector with another name"
    )


def _tell_new(keys: Sequence[Signer], directory: str, *, signs: bool, as_json: bool) -> None:
    """Print new keys and their records, and what is to be done now."""
    domain = keys[0].domain.decode()
    if as_json:
        rows = [
            {**describe(each), "signs": signs, "file": key_path(directory, each.selector)} for each in keys
        ]
        print_json(rows)
    else:
        for each in keys:
            click.echo(f"{key_path(directory, each.selector)}: made, {kind_of(each.key)}")
        print_records(keys)
    names = " ".join(each.selector.decode() for each in keys)
    if signs:
        advice = f"signs with it AT ONCE: publish the record now; to check: srsctl dkim list {domain}"
    else:
        advice = f"does not sign with it yet: publish the record, then: srsctl dkim activate {domain} {names}"
    click.echo(f"{domain}: {advice}", err=True)
    for each in keys:
        if each.key.key_type is KeyType.RSA and each.key.bits < _RECOMMENDED_BITS:
            click.echo(f"{each.selector.decode()}: {each.key.bits} bits are weak, best is 2048", err=True)


# The records.


@dkim_group.command(epilog="Example: srsctl dkim record example.org s202611")
@_domain_argument()
@click.argument("selector", required=False, callback=_parse_selector)
@as_json
@click.pass_obj
def record(config_path: str, domain: bytes, selector: bytes | None, as_json: bool) -> None:
    """Print the TXT record that DNS must have for a key of DOMAIN, or for each of its keys.

    It is printed as a line of a zone file, and as the name and value that web forms ask for. Exits 1 when
    there is no such key.
    """
    config = load_config(config_path)
    directory = find_domain_directory(config.dkim.key_directory, domain)
    keys = [each for each in _read(directory, with_active=False).keys if selector in (None, each.selector)]
    if not keys:
        missing = f"no key {selector.decode()}" if selector is not None else "no keys"
        _fail(f"{directory}: has {missing}, would be right: srsctl dkim genkey {domain.decode()}")
    if as_json:
        print_json([describe(each) for each in keys])
    else:
        print_records(keys)


# Which keys sign.


@dkim_group.command(epilog="Example: srsctl dkim activate example.org s202612-rsa s202612-ed25519")
@_domain_argument()
@click.argument("selectors", metavar="SELECTOR...", nargs=-1, required=True, callback=_parse_selectors)
@click.option("--force", is_flag=True, help="Do not ask DNS whether it has the keys.")
@as_json
@click.pass_obj
def activate(config_path: str, domain: bytes, selectors: Sequence[bytes], force: bool, as_json: bool) -> None:
    """Let these keys of DOMAIN sign, and no others: at most one of each algorithm.

    First DNS is asked: a key that it does not publish as it is would make signatures that fail, so then the
    exit status is 1 and nothing is changed. The daemon takes the change over by itself.
    """
    config = load_config(config_path)
    directory = find_domain_directory(config.dkim.key_directory, domain)
    chosen = _choose(_read(directory, with_active=False), selectors)
    answers = [None] * len(chosen) if force else asyncio.run(_ask_dns(config.dns, chosen))
    missing = _tell_missing(chosen, answers)
    if not missing:
        try:
            replace_active(directory, chosen, find_owner(config))
        except (OSError, ConfigError) as error:
            _fail(f"{directory}/{ACTIVE}: could not be written: {error}")
    if as_json:
        keys = [
            describe_state(each, answer, signs=not missing)
            for each, answer in zip(chosen, answers, strict=True)
        ]
        print_json({"changed": not missing, "keys": keys})
    elif not missing:
        click.echo(f"{domain.decode()}: now signs: {', '.join(each.selector.decode() for each in chosen)}")
    sys.exit(NO if missing else 0)


def _choose(present: DomainKeys, selectors: Iterable[bytes]) -> list[Signer]:
    """Find the keys that are to sign; exits 1 where they cannot."""
    known = {each.selector: each for each in present.keys}
    chosen: dict[KeyType, Signer] = {}
    for selector in selectors:
        signer = known.get(selector)
        if signer is None:
            names = ", ".join(each.decode() for each in known) or "none"
            _fail(f'{present.path}: has no key "{selector.decode()}", would be right: one of these: {names}')
        other = chosen.setdefault(signer.key.key_type, signer)
        if other is not signer:
            _fail(
                f'"{other.selector.decode()}" and "{selector.decode()}" have the same algorithm, '
                "would be right: one key of each"
            )
    return list(chosen.values())


def _tell_missing(keys: Iterable[Signer], answers: Iterable[Published | None]) -> bool:
    """Print a line for each key that DNS was asked for and does not publish; tell whether there are any."""
    missing = False
    for signer, answer in zip(keys, answers, strict=True):
        if answer is not None and answer.publication is not Publication.YES:
            name = key_name(signer.domain, signer.selector).decode()
            hint = f"srsctl dkim record {signer.domain.decode()} {signer.selector.decode()}"
            text = f"{name}: in DNS: {shown(answer)}; nothing was changed, would be right: {hint}"
            click.echo(text, err=True)
            missing = True
    return missing


# What there is.


@dkim_group.command("list", epilog="Example: srsctl dkim list example.org")
@_domain_argument(required=False)
@click.option("--no-dns", is_flag=True, help="Do not ask DNS.")
@as_json
@click.pass_obj
def list_keys(config_path: str, domain: bytes | None, no_dns: bool, as_json: bool) -> None:
    """Show the keys of DOMAIN, or all: which sign and why, and whether DNS publishes just these keys.

    Exits 1 when there are none.
    """
    config = load_config(config_path)
    domains, faults = _read_all(config.dkim.key_directory, domain)
    keys = [(key, each) for each in domains for key in each.keys]
    answers: Sequence[Published | None] = [None] * len(keys)
    if keys and not no_dns:
        answers = asyncio.run(_ask_dns(config.dns, [key for key, _ in keys]))
    rows = [
        describe_state(key, answer, signs=key in each.signing) | {"reason": why(key, each)}
        for (key, each), answer in zip(keys, answers, strict=True)
    ]
    if as_json:
        print_json(rows)
    elif rows:
        print_table(rows)
    for line in faults + [each.warning.line() for each in domains if each.warning is not None]:
        click.echo(line, err=True)
    if faults:
        sys.exit(EX_CONFIG)
    if not rows:
        of_domain = f" of {domain.decode()}" if domain is not None else ""
        _fail(
            f"{config.dkim.key_directory}: has no keys{of_domain}, would be right: srsctl dkim genkey DOMAIN"
        )


def _read_all(key_directory: str, domain: bytes | None) -> tuple[list[DomainKeys], list[str]]:
    """Read the keys of a domain, or of all, and give lines about those that are faulty."""
    faults: list[str] = []
    domains = []
    try:
        if domain is not None:
            directories = [find_domain_directory(key_directory, domain)]
        else:
            directories = list(list_key_directory(key_directory))
    except ConfigError as error:
        return [], error.lines()
    for directory in directories:
        try:
            domains.append(read_domain(directory))
        except ConfigError as error:
            faults += error.lines()
    return domains, faults


async def _ask_dns(parameters: DnsParameters, keys: Sequence[Signer]) -> list[Published | None]:
    """Ask DNS for the records of keys, all side by side."""
    resolver = StubResolver(parameters)
    try:
        answers = await asyncio.gather(*(resolver.txt(key_name(each.domain, each.selector)) for each in keys))
    finally:
        await resolver.close()
    return [judge_publication(each.key, answer) for each, answer in zip(keys, answers, strict=True)]
