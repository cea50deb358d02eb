"""How srsctl shows keys and their records, on a terminal and as JSON."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click
from rich.console import Console
from rich.table import Table

from srsd.crypto import KeyType
from srsd.dkim.keystore import ACTIVE, key_name
from srsd.dkim.publication import record_of, zone_line

if TYPE_CHECKING:
    from collections.abc import Iterable

    from srsd.crypto import PrivateKey
    from srsd.dkim.keystore import DomainKeys
    from srsd.dkim.publication import Published
    from srsd.dkim.sign import Signer


def kind_of(key: PrivateKey) -> str:
    """Name the algorithm and size of a key."""
    return f"RSA, {key.bits} bits" if key.key_type is KeyType.RSA else "Ed25519"


def describe(signer: Signer) -> dict[str, Any]:
    """Give a key and its record for JSON."""
    return {
        "domain": signer.domain.decode(),
        "selector": signer.selector.decode(),
        "type": signer.key.key_type.value.decode(),
        "bits": signer.key.bits,
        "name": key_name(signer.domain, signer.selector).decode(),
        "value": record_of(signer.key).decode(),
        "zone": zone_line(signer),
    }


def print_records(keys: Iterable[Signer]) -> None:
    """Print the records of keys, ready to be copied."""
    for each in keys:
        click.echo("\nAs a line of a zone file:\n")
        click.echo(zone_line(each))
        click.echo("\nIn the form of a DNS provider, type TXT:\n")
        click.echo(f"name:  {key_name(each.domain, each.selector).decode()}")
        click.echo(f"value: {record_of(each.key).decode()}")


def shown(published: Published) -> str:
    """Say whether DNS has a key."""
    word = published.publication.value
    return f"{word} ({published.detail})" if published.detail else word


def why(key: Signer, of_domain: DomainKeys) -> str:
    """Say why a key signs, or why it does not."""
    if key in of_domain.signing:
        return of_domain.reason
    if of_domain.warning is not None:
        return "another key comes first by name"
    return f"not listed in the file {ACTIVE}"


def describe_state(signer: Signer, published: Published | None, *, signs: bool) -> dict[str, Any]:
    """Give a key and what is known of it for JSON; dns is null where DNS was not asked."""
    return {
        "domain": signer.domain.decode(),
        "selector": signer.selector.decode(),
        "type": signer.key.key_type.value.decode(),
        "bits": signer.key.bits,
        "signs": signs,
        "dns": published.publication.value if published is not None else None,
        "dns_detail": published.detail if published is not None else None,
    }


def print_table(rows: Iterable[dict[str, Any]]) -> None:
    """Print keys as describe_state gives them, with their reasons; a name is never cut short."""
    tables: dict[str, Table] = {}
    for row in rows:
        table = tables.get(row["domain"])
        if table is None:
            table = tables[row["domain"]] = Table()
            for heading in ("selector", "algorithm", "signs", "in DNS"):
                table.add_column(heading, overflow="fold")
        kind = "rsa, {bits}".format(**row) if row["type"] == "rsa" else row["type"]
        dns = "not asked" if row["dns"] is None else row["dns"]
        if row["dns_detail"]:
            dns += f": {row['dns_detail']}"
        table.add_row(row["selector"], kind, f"{'yes' if row['signs'] else 'no'}: {row['reason']}", dns)
    for domain, table in tables.items():
        click.echo(domain)
        Console().print(table)
