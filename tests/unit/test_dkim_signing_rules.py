"""The key directory and the two tables together."""

from __future__ import annotations

import pytest

from srsd.crypto import KeyType, generate_key
from srsd.dkim.signing_rules import DkimKeyParameters, SigningRules, SigningTexts, parse_signing_rules
from srsd.errors import ConfigError
from srsd.syntax.address import Address

PEM = generate_key(KeyType.ED25519).pem()
PARAMETERS = DkimKeyParameters(key_directory="/d", signing_table="/t/signing", login_table="/t/login")
TEXTS = SigningTexts(
    {"/d/example.org/s1.pem": PEM, "/d/bücher.example/s1.pem": PEM},
    {"/k.pem": PEM},
    b"esp esp.example:e1:/k.pem\nnews@example.org esp\n* esp\n",
    b"alice alice@example.org\n",
)

NO_DOMAIN = "names no domain, and its key is of another one"


def rules(texts: SigningTexts = TEXTS) -> SigningRules:
    return parse_signing_rules(texts, PARAMETERS)[0]


def choose(author: str, texts: SigningTexts = TEXTS) -> tuple[list[str], str]:
    local_part, _, domain = author.rpartition("@")
    choice = rules(texts).choose(Address(local_part.encode(), domain.encode()))
    return [f"{each.selector.decode()} {each.domain.decode()}" for each in choice.signers], choice.reason


@pytest.mark.parametrize(
    ("author", "signers", "reason"),
    [
        ("news@example.org", ["e1 esp.example"], "line 2 of the signing table, by a third party"),
        ("NEWS@EXAMPLE.org", ["e1 esp.example"], "line 2 of the signing table, by a third party"),
        ("u@example.org", ["s1 example.org"], "the only key of its domain"),  # no line fits it
        ("u@BÜCHER.example", ["s1 xn--bcher-kva.example"], "the only key of its domain"),
        ("u@sub.esp.example", ["e1 esp.example"], "line 3 of the signing table"),
        (
            "u@example.net",
            [],
            f"line 3 of the signing table {NO_DOMAIN}, no key for the author domain",
        ),
        ("u@[192.0.2.1]", [], "the author domain is not a domain name"),
        ("u@x..example.org", [], "the author domain is not a domain name"),
        ("u@.example.org", [], "the author domain is not a domain name"),
        ("u@exa mple.org", [], "the author domain is not a domain name"),
        ("u@", [], "the author domain is not a domain name"),
        (f"u@{'a.' * 10_000}example.org", [], "the author domain is not a domain name"),
        ("u@\udcff.example.org", [], "the author domain is not a domain name"),
    ],
)
def test_the_table_goes_before_the_directory(author, signers, reason):
    local_part, _, domain = author.rpartition("@")
    choice = rules().choose(Address(local_part.encode(), domain.encode(errors="surrogateescape")))
    assert [f"{each.selector.decode()} {each.domain.decode()}" for each in choice.signers] == signers
    assert choice.reason == reason


def test_without_tables():
    texts = SigningTexts(TEXTS.key_files)
    assert choose("u@example.org", texts) == (["s1 example.org"], "the only key of its domain")
    assert choose("u@example.net", texts) == ([], "no key for the author domain")
    assert rules(texts).logins is None


def test_without_anything():
    assert choose("u@example.org", SigningTexts()) == ([], "no key for the author domain")


def test_logins():
    assert rules().logins.allows(b"alice", Address(b"alice", b"example.org")) is True
    assert rules().logins.allows(b"alice", Address(b"bob", b"example.org")) is False
    assert rules().logins.allows(b"bob", Address(b"bob", b"example.org")) is False


def test_texts_survive_being_packed():
    odd = SigningTexts({"/d/\udcff/s1.pem": bytes(range(256))}, {"/ü": b""}, b"\xff\0\n", b"\x80")
    for texts in (TEXTS, odd, SigningTexts(), SigningTexts(login_table=b"")):
        assert SigningTexts.unpack(texts.pack()) == texts
    assert SigningTexts.unpack(b"") == SigningTexts()


def test_faults_of_all_files_come_at_once_and_name_them():
    texts = SigningTexts({"/d/example.org/s1.pem": b"x"}, {}, b"k org:s:/k\n", b"alice\n")
    with pytest.raises(ConfigError) as caught:
        parse_signing_rules(texts, PARAMETERS)
    assert [line.partition(": ")[0] for line in caught.value.lines()] == [
        "/d/example.org/s1.pem",
        "/t/login",
        "/t/signing",
    ]


def test_warnings_name_their_file():
    texts = SigningTexts(
        {"/d/example.org/a.pem": PEM, "/d/example.org/b.pem": PEM},
        {"/k.pem": PEM},
        b"k %:s:/k.pem\n* k:x@y\n",
    )
    _, warnings = parse_signing_rules(texts, PARAMETERS)
    assert [warning.line().partition(": ")[0] for warning in warnings] == ["/d/example.org", "/t/signing"]


@pytest.mark.parametrize("key", ["key_directory", "signing_table", "login_table"])
def test_paths_are_absolute(key):
    checks = {name: field.metadata["check"] for name, field in DkimKeyParameters.__dataclass_fields__.items()}
    assert checks[key]("/etc/srsd/x") is None
    assert "would be right: a path from /" in checks[key]("x")
    assert "would be right: a path from /" in checks[key]("/x\0y")
    assert (checks[key]("") is None) == (key != "key_directory")
