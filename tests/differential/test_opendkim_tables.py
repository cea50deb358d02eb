"""Our signing table beside OpenDKIM's own SigningTable: who signs for random authors by random tables.

OpenDKIM's test mode (-t) signs the messages that it is given; its s= tells which line it took. Differences that
are meant, and so are not made here: in a table with wildcards a pattern without @ is dead in OpenDKIM and a
host in ours; several keys in one line are ours alone; a line without a domain never lets a third party sign.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from random import Random
from typing import TYPE_CHECKING

import pytest

from srsd.crypto import KeyType, generate_key
from srsd.dkim.keystore import KeyStore
from srsd.dkim.signing_table import SigningTable, parse_signing_table

if TYPE_CHECKING:
    from pathlib import Path

USERS = ["u", "v", "news-a", "news-b", "a.b"]
HOSTS = ["b.example", "a.b.example", "c.a.b.example", "xb.example", "example.net", "b.example.net"]
PLAIN = [
    *(f"{user}@{host}" for user in USERS for host in HOSTS),
    *HOSTS,
    *(f"{user}@.{host}" for user in USERS for host in [*HOSTS, "example", "net"]),
    *(f".{host}" for host in [*HOSTS, "example", "net"]),
    *(f"{user}@*" for user in USERS),
    "U@B.Example",
    "A.b.EXAMPLE",
]
WILD = [
    *(f"*@{host}" for host in HOSTS),
    *(f"*@*.{host}" for host in HOSTS),
    *(
        "news-*@b.example",
        "news-*@*",
        "*-a@*.example",
        "*b.example",
        "*.b.example",
        "u@*.example",
        "*@*",
        "*@b.*",
    ),
    *("*a*b*@*e*.net", "*@*a.b.example", "*U@B.example"),
]
AUTHORS = [f"{user}@{host}" for user in USERS for host in HOSTS]
TABLES = 60  # of each kind


@pytest.fixture(scope="module")
def opendkim() -> str:
    program = shutil.which("opendkim", path="/usr/sbin:/usr/bin:/usr/local/sbin")
    if program is None:
        pytest.skip("opendkim is not installed (apt-get install opendkim)")
    return program


def ask_opendkim(program: str, directory: Path, kind: str, table: str, keys: str) -> dict[str, str]:
    """Give the selector that signs for each author. In test mode OpenDKIM ends at one that nobody signs for."""
    (directory / "keys").write_text(keys)
    (directory / "table").write_text(table)
    (directory / "conf").write_text(
        f"KeyTable file:{directory}/keys\nSigningTable {kind}:{directory}/table\nMode s\nRequireSafeKeys no\n"
    )
    messages = ",".join(str(directory / f"m{number}") for number in range(len(AUTHORS)))
    done = subprocess.run(
        [program, "-x", directory / "conf", "-t", messages],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    output = done.stdout + done.stderr
    found = re.findall(r"/m(\d+):\s+DKIM-Signature:[^:]*?\bs=([^;]+);", output)
    assert len(found) == len(AUTHORS), output
    return {AUTHORS[int(number)]: selector for number, selector in found}


def ask_ours(table: str, keys: str, pem: bytes, path: str) -> dict[str, str]:
    rules = SigningTable(parse_signing_table((keys + table).encode()), KeyStore(), {path: pem})
    found = {}
    for author in AUTHORS:
        local_part, _, domain = author.encode().partition(b"@")
        choice = rules.choose(local_part, domain)
        (signer,) = choice.signers
        assert signer.domain == domain
        found[author] = signer.selector.decode()
    return found


@pytest.mark.parametrize("kind", ["file", "refile"])
def test_the_same_key_signs(opendkim, tmp_path, kind):
    pem = generate_key(KeyType.RSA, 1024).pem()
    (tmp_path / "k.pem").write_bytes(pem)
    for number, author in enumerate(AUTHORS):
        (tmp_path / f"m{number}").write_bytes(
            f"From: <{author}>\r\nTo: x@y.example\r\nDate: Mon, 23 Nov 2026 00:00:00 +0000\r\n\r\nhi\r\n".encode()
        )
    random = Random(5)
    decided = 0
    for _ in range(TABLES):
        patterns = random.sample(PLAIN, random.randint(1, 12))
        if kind == "refile":
            with_at = [each for each in PLAIN if "@" in each and "@." not in each]
            patterns = random.sample(with_at, random.randint(0, 6)) + random.sample(
                WILD, random.randint(1, 6)
            )
            random.shuffle(patterns)
        distinct = [*{each.lower(): each for each in patterns}.values(), "*"]
        keys = "".join(f"k{number} %:k{number}:{tmp_path}/k.pem\n" for number in range(len(distinct)))
        table = "".join(f"{each} k{number}\n" for number, each in enumerate(distinct))
        theirs = ask_opendkim(opendkim, tmp_path, kind, table, keys)
        assert ask_ours(table, keys, pem, f"{tmp_path}/k.pem") == theirs, table
        decided += sum(selector != f"k{len(distinct) - 1}" for selector in theirs.values())
    assert decided > 4 * TABLES  # else little was compared
