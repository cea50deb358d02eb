"""What the files that say who signs promise, whatever an admin writes and whoever asks."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fuzz.targets import FILE_SIZE, Target
from srsd.crypto import KeyType, generate_key
from srsd.dkim.keystore import parse_domain_keys, parse_key_store
from srsd.dkim.login_table import parse_login_table
from srsd.dkim.signing_table import SigningTable, match_path, parse_signing_table
from srsd.errors import ConfigError
from srsd.syntax.address import Address
from srsd.syntax.domain import fold_domain

if TYPE_CHECKING:
    from random import Random

_PEM = generate_key(KeyType.ED25519).pem()
_OTHER = generate_key(KeyType.RSA, 1024).pem()
_STORE = parse_key_store(
    {"/d/example.org/s1.pem": _PEM, "/d/example.org/s2.pem": _OTHER, "/d/sub.example.org/s1.pem": _PEM}
)
_AUTHORS = [
    (b"u", b"example.org"),
    (b"news", b"sub.example.org"),
    (b"a@b", b"x.sub.example.org"),
    (b"*", b"evil-example.org"),
    (b"", b"xn--bcher-kva.example"),
    (b"a" * 2000, b"org"),
    (b"u", b""),
    (b"\xff\0", b"*"),
]


def _check_faults(error: ConfigError) -> None:
    assert error.faults
    for line in error.lines():
        assert line.isprintable()
        assert line


def _parse_table(data: bytes) -> SigningTable | None:
    try:
        lines = parse_signing_table(data)
        files = {path.replace("%", "example.org"): _PEM for path in lines.paths}
        return SigningTable(lines, _STORE, files)
    except ConfigError as error:
        _check_faults(error)
        return None


def _check_table(data: bytes, random: Random) -> None:
    table = _parse_table(data)
    if table is None:
        return
    authors = [*_AUTHORS, *((local_part, domain) for local_part, domain in _written_in(data, random))]
    for local_part, domain in authors:
        choice = table.choose(local_part, domain)
        assert choice.reason.isprintable()
        assert choice.reason
        for signer in choice.signers:
            assert b"." in signer.domain
            assert len(signer.selector) + len(signer.domain) <= 241
            if domain != signer.domain and not domain.endswith(b"." + signer.domain):
                assert "third party" in choice.reason
                number = int(choice.reason.split()[1])
                (rule,) = (each for each in table.rules if each.line == number)
                assert rule.names_domain
                assert b"." in rule.pattern


def _written_in(data: bytes, random: Random) -> list[tuple[bytes, bytes]]:
    """Find authors that the text may be about."""
    words = data.replace(b"*", b"x").replace(b"@.", b"@y.").split()
    found = []
    for word in random.sample(words, min(len(words), 5)):
        local_part, _, domain = word.rpartition(b"@")
        found.append((local_part or b"u", fold_domain(domain.lstrip(b".")) or b""))
    return found


def _parse_logins(data: bytes) -> None:
    try:
        parse_login_table(data)
    except ConfigError as error:
        _check_faults(error)


def _check_logins(data: bytes, random: Random) -> None:
    try:
        table = parse_login_table(data)
    except ConfigError as error:
        _check_faults(error)
        return
    for word in [*data.split()[:5], b"alice", b"", b"*"]:
        for local_part, domain in random.sample(_AUTHORS, 3):
            author = Address(local_part, domain)
            allowed = table.allows(word, author)
            # More lines never take anything away.
            more = parse_login_table(data + b"\nalice x@x.example\n")
            assert allowed is not True or more.allows(word, author)
            assert parse_login_table(data + b"\n* *\n").allows(word, author) is True
    if b"*" not in data:
        assert table.allows(b"no one has this login", Address(b"u", b"example.org")) is False


def _parse_active(data: bytes) -> None:
    try:
        parse_domain_keys(
            "/d/example.org", {"s1.pem": _PEM, "s2.pem": _OTHER, "s3.pem": _OTHER, "active": data}
        )
    except ConfigError as error:
        _check_faults(error)


def _check_active(data: bytes, _: Random) -> None:
    files = {"s1.pem": _PEM, "s2.pem": _OTHER, "s3.pem": _OTHER, "active": data}
    try:
        keys = parse_domain_keys("/d/example.org", files)
    except ConfigError as error:
        _check_faults(error)
        return
    kinds = [signer.key.key_type for signer in keys.signing]
    assert len(kinds) == len(set(kinds))
    assert all(signer.selector in data.lower() for signer in keys.signing)


def _parse_path(data: bytes) -> str:
    pattern, _, path = data.decode(errors="surrogateescape").partition("\n")
    return match_path(pattern, path) if "%" in pattern else ""


def _check_path(data: bytes, _: Random) -> None:
    pattern, _, path = data.decode(errors="surrogateescape").partition("\n")
    part = _parse_path(data)
    if part:
        assert pattern.replace("%", part) == path
        assert "/" not in part


_WORDS = [
    *(
        b"*",
        b"@",
        b".",
        b"%",
        b":",
        b",",
        b"#",
        b" ",
        b"\t",
        b"\n",
        b"\r\n",
        b"/",
        b'"',
        b"\\",
        b"\0",
        b"\xff",
    ),
    *(b"*@", b"*@*.", b"@*", b"@.", b"u@", b"example.org", b"sub.example.org", b".example.org", b"org"),
    *(b"k %:s1:/k.pem\n", b"esp esp.example:e:/e.pem\n", b"* k\n", b" k, esp", b"s1._domainkey.example.org"),
    *(
        "bücher.example".encode(),
        b"xn--",
        b"xn--bcher-kva.example",
        b"alice ",
        b"s1\n",
        b"S2",
        b"/keys/%/m.pem",
    ),
]

DKIM_TABLE_TARGETS: dict[str, Target] = {
    "dkim_signing_table": Target(
        _parse_table,
        _check_table,
        [
            b"k %:s1:/k.pem\nesp esp.example:e:/e.pem\nexample.org k, esp\n.example.org esp\nu@* k\n* esp\n",
            b"k %:s1:/keys/%/m.pem\n*@example.org k\n*@*.example.org k\nnews-*@example.org k # x\n* k:u@%\n",
            b"u@example.org s1._domainkey.example.org, s2._domainkey.example.org\n* %\n",
            "k bücher.example:s1:/k.pem\nbücher.example k\n*@*.bücher.example k\n".encode(),
            b"k %:s1:/k.pem\n" + b"a*" * 3000 + b" k\n",
            b"a b\n" * 2000,
            b"k %:s1:/" + b"%" * 4000 + b"\n* k\n",
            b",".join(b"%d" % number for number in range(1500)),
            b"x " + b":" * 8000,
        ],
        _WORDS,
        FILE_SIZE,
        microseconds_per_octet=20,
    ),
    "dkim_login_table": Target(
        _parse_logins,
        _check_logins,
        [
            b"alice alice@example.org, @example.org\n  .example.org\n* postmaster@example.org # x\nroot *\n",
            "bücher info@bücher.example\n".encode(),
            b"a b\n" * 2000,
            b"alice " + b"a@x.example," * 600,
            b"alice\n" + b" @x.example\n" * 600,
            b'alice "' + b"\\" * 8000,
            b" #" * 4000,
        ],
        _WORDS,
        FILE_SIZE,
        microseconds_per_octet=20,
    ),
    "dkim_active": Target(
        _parse_active,
        _check_active,
        [b"s1\ns2\n", b"# x\nS1 # y\r\n\n s3", b"s2\ns3\n", b"s9\n" * 2000, b"s1\n" * 2000, b"s" * 8000],
        _WORDS,
        FILE_SIZE,
        microseconds_per_octet=20,
    ),
    "dkim_key_path": Target(
        _parse_path,
        _check_path,
        [
            b"/keys/%/m.pem\n/keys/example.org/m.pem",
            b"/keys/%/%.pem\n/keys/example.org/example.org.pem",
            b"%" * 2000 + b"\n" + b"a" * 4000,
            b"%\n" + b"/" * 8000,
        ],
        _WORDS,
        FILE_SIZE,
    ),
}
