"""Which keys of a key directory sign for which author domain."""

from __future__ import annotations

import subprocess

import pytest

from srsd.crypto import KeyType, generate_key, load_private_key
from srsd.dkim import keystore
from srsd.dkim.keystore import parse_domain_keys, parse_key_store, split_key_name
from srsd.errors import ConfigError

ED = [generate_key(KeyType.ED25519).pem() for _ in range(3)]
RSA = [generate_key(KeyType.RSA, 1024).pem() for _ in range(2)]
DIRECTORY = "/etc/srsd/dkim"


def store(files: dict[str, bytes]):
    return parse_key_store({f"{DIRECTORY}/{path}": text for path, text in files.items()})


def chosen(files: dict[str, bytes], author_domain: str) -> list[tuple[str, str]]:
    """Give s= and d= of who signs."""
    choice = store(files).signers_for(author_domain.encode())
    return [(signer.selector.decode(), signer.domain.decode()) for signer in choice.signers]


def faults_of(files: dict[str, bytes]) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        store(files)
    return caught.value.lines()


@pytest.mark.parametrize(
    ("author_domain", "expected"),
    [
        ("example.org", [("s1", "example.org")]),
        ("mail.example.org", [("s1", "example.org")]),  # d= is the directory's domain
        ("a.b.c.mail.example.org", [("s1", "example.org")]),
        ("sub.example.org", [("s2", "sub.example.org")]),  # the nearest one
        ("x.sub.example.org", [("s2", "sub.example.org")]),
        ("notexample.org", []),
        ("org", []),
        ("example.net", []),
        ("example.org.evil.example", []),
        ("", []),
        (".", []),
        ("[192.0.2.1]", []),
    ],
)
def test_the_nearest_domain_signs(author_domain, expected):
    files = {"example.org/s1.pem": ED[0], "sub.example.org/s2.pem": ED[1]}
    assert chosen(files, author_domain) == expected


def test_the_key_is_the_one_of_the_file():
    (signer,) = store({"example.org/s1.pem": RSA[0]}).signers_for(b"example.org").signers
    assert (signer.key.key_type, signer.key.bits) == (KeyType.RSA, 1024)
    assert signer.key.pem() == RSA[0]


def test_no_keys_at_all():
    choice = store({}).signers_for(b"example.org")
    assert choice == ((), "no key for the author domain")


@pytest.mark.parametrize(
    ("active", "expected"),
    [
        (b"b\n", ["b"]),
        (b"b", ["b"]),
        (b"\n  c\t\r\n\n", ["c"]),
        (b"# the new one\nb # since May\n", ["b"]),
        (b"b\nr\n", ["b", "r"]),  # one of each algorithm, in this order
        (b"r\nb\n", ["r", "b"]),
        (b"b\nb\nB\n", ["b"]),
        (b"", []),
        (b"# nobody\n", []),
    ],
)
def test_the_file_active_lists_who_signs(active, expected):
    files = {"a": ED[0], "b": ED[1], "c": ED[2], "r": RSA[0]}
    paths = {f"example.org/{name}.pem": text for name, text in files.items()} | {"example.org/active": active}
    assert chosen(paths, "example.org") == [(name, "example.org") for name in expected]
    assert store(paths).warnings == []
    reason = store(paths).signers_for(b"example.org").reason
    assert reason == (
        "listed in the file active" if expected else "the file active of its domain lists no key"
    )


def test_a_domain_whose_active_lists_nobody_does_not_fall_back_to_the_one_above():
    files = {"example.org/s1.pem": ED[0], "sub.example.org/active": b""}
    assert chosen(files, "sub.example.org") == []
    assert chosen(files, "example.org") == [("s1", "example.org")]


def test_without_active_one_key_signs_alone():
    files = {"example.org/s1.pem": ED[0]}
    assert chosen(files, "example.org") == [("s1", "example.org")]
    assert store(files).warnings == []
    assert store(files).signers_for(b"example.org").reason == "the only key of its domain"


def test_of_several_without_active_the_first_by_name_signs_with_a_warning():
    files = {"example.org/s9.pem": ED[0], "example.org/s10.pem": RSA[0], "example.net/x.pem": ED[1]}
    assert chosen(files, "example.org") == [("s10", "example.org")]
    (warning,) = store(files).warnings
    assert warning.line() == (
        f'{DIRECTORY}/example.org: has 2 keys and no file active, so "s10" signs, the first by name, '
        "would be right: srsctl dkim activate example.org s10"
    )


@pytest.mark.parametrize("directory", ["bücher.example", "BÜCHER.example", "xn--bcher-kva.example"])
def test_directories_may_have_u_labels(directory):
    files = {f"{directory}/s1.pem": ED[0]}
    assert chosen(files, "xn--bcher-kva.example") == [("s1", "xn--bcher-kva.example")]


def test_selectors_may_have_dots_and_capitals():
    assert chosen({"example.org/2026.Mail.pem": ED[0]}, "example.org") == [("2026.mail", "example.org")]


@pytest.mark.parametrize(
    ("files", "line"),
    [
        ({"example.org/s1.pem": b"nonsense"}, "example.org/s1.pem: is not a private key"),
        ({"example.org/s1.pem": b""}, "example.org/s1.pem: is not a private key"),
        ({"example.org/bad name.pem": ED[0]}, "example.org/bad name.pem: 'bad name' is not a selector"),
        ({"example.org/.pem": ED[0]}, "example.org/.pem: '' is not a selector"),
        ({"exa mple.org/s1.pem": ED[0]}, "exa mple.org: 'exa mple.org' is not a domain name"),
        ({"org/s1.pem": ED[0]}, "org: 'org' is a top-level domain"),
        ({"example.org/active": b"s1\n"}, "example.org/active: line 1: there is no key 's1' here"),
        (
            {"example.org/s1.pem": ED[0], "example.org/active": b"\ns2\n"},
            "example.org/active: line 2: there is no key 's2' here, would be right: one of these: s1",
        ),
        (
            {"example.org/s1.pem": ED[0], "example.org/s2.pem": ED[1], "example.org/active": b"s1\ns2\n"},
            'example.org/active: line 2: "s1" is an ed25519 key too, would be right: one ed25519 key',
        ),
        (
            {"example.org/s1.pem": ED[0], "example.org/active": b"s1 s1\n"},
            "example.org/active: line 1: 's1 s1' is not a selector",
        ),
        (
            {"example.org/s1.pem": ED[0], "example.org/S1.pem": ED[1]},
            'example.org/s1.pem: is another key for the selector "s1"',
        ),
        (
            {"bücher.example/s1.pem": ED[0], "xn--bcher-kva.example/s1.pem": ED[1]},
            f"xn--bcher-kva.example: is the same domain as {DIRECTORY}/bücher.example",
        ),
        (
            {f"{'a' * 60}.{'b' * 60}.{'c' * 60}.example/{'s' * 60}.pem": ED[0]},
            f"{'a' * 60}.{'b' * 60}.{'c' * 60}.example/{'s' * 60}.pem: has too long a name for DNS",
        ),
    ],
)  # fmt: skip
def test_a_fault_says_in_which_file_and_what_would_be_right(files, line):
    (given,) = faults_of(files)
    assert given.startswith(f"{DIRECTORY}/{line}")
    assert "would be right: " in given


def test_a_faulty_key_is_no_fault_of_the_file_active_too():
    (line,) = faults_of({"example.org/s1.pem": b"x", "example.org/active": b"s1\n"})
    assert line.startswith(f"{DIRECTORY}/example.org/s1.pem: ")


def test_all_faults_are_told_at_once():
    files = {
        "example.org/s1.pem": b"x",
        "example.org/s2.pem": ED[0],
        "example.org/active": b"s3\ns4\n",
        "example.net/s1.pem": b"y",
    }
    assert [line.partition(": ")[0].removeprefix(DIRECTORY) for line in faults_of(files)] == [
        "/example.org/s1.pem",
        "/example.org/active",
        "/example.org/active",
        "/example.net/s1.pem",
    ]


@pytest.mark.parametrize("kind", ["rsa-pkcs1", "rsa", "ed25519", "ec", "encrypted", "512"])
def test_keys_as_openssl_makes_them(kind, tmp_path):
    path = tmp_path / "k.pem"
    make = {
        "rsa-pkcs1": ["genrsa", "-traditional", "-out", path, "1024"],
        "rsa": ["genpkey", "-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:1024", "-out", path],
        "ed25519": ["genpkey", "-algorithm", "ed25519", "-out", path],
        "ec": ["genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256", "-out", path],
        "encrypted": ["genpkey", "-algorithm", "ed25519", "-aes128", "-pass", "pass:x", "-out", path],
        "512": ["genrsa", "-out", path, "512"],
    }[kind]
    subprocess.run(["openssl", *make], check=True, capture_output=True)
    files = {"example.org/s1.pem": path.read_bytes()}
    if kind in ("ec", "encrypted", "512"):
        (line,) = faults_of(files)
        assert "would be right: " in line
    else:
        assert chosen(files, "example.org") == [("s1", "example.org")]


def test_a_key_is_parsed_once(monkeypatch):
    calls = []

    def load(pem: bytes):
        calls.append(pem)
        return load_private_key(pem)

    monkeypatch.setattr(keystore, "load_private_key", load)
    fresh = generate_key(KeyType.ED25519).pem()
    first = store({"example.org/s1.pem": fresh}).signers_for(b"example.org").signers[0]
    again = store({"example.org/s2.pem": fresh, "example.org/x.pem": ED[0]}).find(b"example.org", b"s2")
    assert calls == [fresh]
    assert again is not None
    assert again.key is first.key


def test_what_is_found_by_name():
    keys = store({"example.org/s1.pem": ED[0], "example.org/s2.pem": ED[1], "example.org/active": b"s2"})
    found = keys.find(b"example.org", b"s1")
    assert found is not None
    assert (found.domain, found.selector) == (b"example.org", b"s1")
    assert keys.find(b"example.org", b"s3") is None
    assert keys.find(b"sub.example.org", b"s1") is None


def test_the_keys_of_one_domain():
    keys = parse_domain_keys("/x/example.org", {"s2.pem": ED[0], "s1.pem": ED[1], "active": b"s2"})
    assert [each.selector for each in keys.keys] == [b"s1", b"s2"]
    assert [each.selector for each in keys.signing] == [b"s2"]
    assert keys.decides
    assert not parse_domain_keys("/x/example.org", {}).decides


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("s1._domainkey.example.org", (b"example.org", b"s1")),
        ("a.b._domainkey.Bücher.example", (b"xn--bcher-kva.example", b"a.b")),
        ("s1.example.org", None),
        ("._domainkey.example.org", None),
        ("s1._domainkey.", None),
        ("s1._domainkey.org", None),
    ],
)
def test_names_of_keys_in_dns(name, expected):
    assert split_key_name(name) == expected


def test_names_of_thousands_of_labels_cost_little():
    keys = store({"example.org/s1.pem": ED[0]})
    assert keys.signers_for(b"a." * 10_000).signers == ()
