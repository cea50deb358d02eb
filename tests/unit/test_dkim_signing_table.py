"""The signing table: OpenDKIM's KeyTable and SigningTable, whose searches were seen in OpenDKIM 2.11."""

from __future__ import annotations

import time

import pytest

from srsd.crypto import KeyType, generate_key
from srsd.dkim.keystore import KeyStore, parse_key_store
from srsd.dkim.signing_table import SigningTable, match_path, parse_signing_table
from srsd.errors import ConfigError

PEM = generate_key(KeyType.ED25519).pem()
OTHER_PEM = generate_key(KeyType.ED25519).pem()
NAMES = ("exact", "host", "user", "dot", "usercom", "dotcom", "userstar", "star")
# Keys that sign for any author domain, each with its name for a selector.
KEY_LINES = "".join(f"{name} %:{name}:/k.pem\n" for name in NAMES)
NO_KEYS = KeyStore()


def table(text: str, keys: KeyStore = NO_KEYS, **files: bytes) -> SigningTable:
    lines = parse_signing_table(text.encode())
    given = {f"/{name}.pem": pem for name, pem in files.items()} or {"/k.pem": PEM}
    return SigningTable(lines, keys, given)


def chosen(text: str | SigningTable, author: str, **files: bytes) -> list[str]:
    """Give "s= d=" of who signs for an author."""
    local_part, _, domain = author.encode().rpartition(b"@")
    rules = table(text, **files) if isinstance(text, str) else text
    return [
        f"{each.selector.decode()} {each.domain.decode()}"
        for each in rules.choose(local_part, domain).signers
    ]


def reason(text: str, author: str, **files: bytes) -> str:
    local_part, _, domain = author.encode().rpartition(b"@")
    return table(text, **files).choose(local_part, domain).reason


def faults_of(text: str, keys: KeyStore = NO_KEYS) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        table(text, keys)
    return caught.value.lines()


# The search of file: tables.

IN_ORDER_OF_SEARCH = [
    ("u@a.b.com", "exact"),
    ("a.b.com", "host"),
    ("u@.b.com", "user"),
    (".b.com", "dot"),
    ("u@.com", "usercom"),
    (".com", "dotcom"),
    ("u@*", "userstar"),
    ("*", "star"),
]


@pytest.mark.parametrize("number", range(len(IN_ORDER_OF_SEARCH)))
@pytest.mark.parametrize("backwards", [False, True])
def test_the_most_specific_line_counts_wherever_it_stands(number, backwards):
    lines = [f"{pattern} {name}\n" for pattern, name in IN_ORDER_OF_SEARCH[number:]]
    text = KEY_LINES + "".join(reversed(lines) if backwards else lines)
    assert chosen(text, "u@a.b.com") == [f"{IN_ORDER_OF_SEARCH[number][1]} a.b.com"]


@pytest.mark.parametrize(
    ("pattern", "matching", "others"),
    [
        ("u@b.com", ["u@b.com"], ["v@b.com", "u@a.b.com", "u+x@b.com"]),
        ("U@B.com", ["u@b.com"], ["v@b.com"]),
        ("b.com", ["u@b.com", "v@b.com"], ["u@a.b.com", "u@xb.com"]),
        (".b.com", ["u@a.b.com", "u@x.a.b.com"], ["u@b.com"]),
        ("u@.b.com", ["u@a.b.com"], ["v@a.b.com", "u@b.com"]),
        ("u@*", ["u@a.b.com", "u@c.net"], ["v@a.b.com"]),
        ("*", ["u@a.b.com", "v@c.net"], []),
        ("bücher.example", ["u@xn--bcher-kva.example"], ["u@b.com"]),
        ('"a b"@b.com', [], []),  # a blank ends the pattern, and then there is no such key
        ('"a\\"b"@b.com', ['a"b@b.com'], ["ab@b.com"]),
        ('"u"@b.com', ["u@b.com"], []),
    ],
)
def test_patterns_without_wildcards_inside(pattern, matching, others):
    if '"a b"' in pattern:
        assert "is no" in faults_of(f"{KEY_LINES}{pattern} star\n")[0]
        return
    rules = table(f"{KEY_LINES}{pattern} star\n")
    assert [chosen(rules, author) != [] for author in matching] == [True] * len(matching)
    assert [chosen(rules, author) for author in others] == [[]] * len(others)


# The search of refile: tables.


@pytest.mark.parametrize(
    ("lines", "author", "expected"),
    [
        (["*@b.com star", "u@b.com exact"], "u@b.com", "star"),
        (["u@b.com exact", "*@b.com star"], "u@b.com", "exact"),
        (["*@a.b.com host", "*@b.com star"], "u@b.com", "star"),
        (["*@*.b.com dot", "*@a.b.com host"], "u@a.b.com", "dot"),
        (["*@* star", "*@b.com host"], "u@b.com", "star"),
        (["*@c.net host", "* star"], "u@b.com", "star"),
        (["news-*@b.com user", "*@b.com star"], "news-may@b.com", "user"),
        (["news-*@b.com user", "*@b.com star"], "newsmay@b.com", "star"),
        (["*-news@*.com user", "*@* star"], "may-news@a.b.com", "user"),
        (["*@B.com host"], "U@b.com", "host"),
        # What has no @ is dead in OpenDKIM's table; here it is what it is in the other kind.
        (["b.com host", "*@* star"], "u@b.com", "host"),
        ([".b.com dot", "*@b.com star"], "u@a.b.com", "dot"),
        (["u@.b.com user", "*@*.b.com star"], "u@a.b.com", "user"),
        (["u@* userstar", "*@b.com star"], "u@c.net", "userstar"),
    ],
)
def test_with_wildcards_the_first_line_that_fits_counts(lines, author, expected):
    text = KEY_LINES + "\n".join(lines)
    assert chosen(text, author) == [f"{expected} {author.rpartition('@')[2]}"]


@pytest.mark.parametrize(
    ("pattern", "matching", "others"),
    [
        ("*@b.com", ["u@b.com", "u@x@b.com"], ["u@a.b.com", "u@xb.com", "u@b.com.evil.example"]),
        ("*@*.b.com", ["u@a.b.com"], ["u@b.com"]),
        ("*.b.com", ["u@a.b.com"], ["u@b.com", "a.b.com@c.net"]),
        ("*b.com", ["u@b.com", "u@evil-b.com"], ["u@b.net"]),
        ("a*b*c@b.com", ["abc@b.com", "aXbYc@b.com"], ["ac@b.com", "ab@b.com", "abcd@b.com"]),
        ("aa*aa@b.com", ["aaaa@b.com", "aaxaa@b.com"], ["aaa@b.com"]),
        ("u@b.*", ["u@b.com", "u@b.net"], ["u@a.b.com"]),
        ("*@*.Bücher.example", ["u@a.xn--bcher-kva.example"], ["u@xn--bcher-kva.example"]),
    ],
)
def test_wildcards(pattern, matching, others):
    rules = table(f"{KEY_LINES}*@never.example host\n{pattern} star\n")
    assert [chosen(rules, author) != [] for author in matching] == [True] * len(matching)
    assert [chosen(rules, author) for author in others] == [[]] * len(others)


# Keys.


def test_both_tables_in_any_order_with_comments():
    text = "# who\nexample.org\tesp   # the provider\n\r\n  esp\tesp.example:s1:/k.pem\r\n"
    assert chosen(text, "u@example.org") == ["s1 esp.example"]


def test_several_keys_of_one_line():
    text = "a %:s1:/k.pem\nb %:s2:/l.pem\nexample.org a , b,a\n"
    assert chosen(text, "u@example.org", k=PEM, l=OTHER_PEM) == ["s1 example.org", "s2 example.org"]


def test_keys_of_the_key_directory_need_no_line():
    keys = parse_key_store({"/d/example.org/s1.pem": PEM, "/d/example.org/s2.pem": OTHER_PEM})
    rules = table("news@example.org s2._domainkey.example.org\n", keys)
    assert chosen(rules, "news@example.org") == ["s2 example.org"]
    assert chosen(rules, "u@example.org") == []


def test_a_line_goes_before_a_key_of_the_same_name_in_the_directory():
    keys = parse_key_store({"/d/example.org/s1.pem": PEM})
    name = "s1._domainkey.example.org"
    assert chosen(table(f"{name} example.org:other:/k.pem\nexample.org {name}\n", keys), "u@example.org") == [
        "other example.org"
    ]


def test_percent_is_the_author_domain():
    text = "each %:mail:/keys/%/m.pem\n* each\n"
    lines = parse_signing_table(text.encode())
    assert lines.paths == ["/keys/%/m.pem"]
    files = {"/keys/example.org/m.pem": PEM, "/keys/bücher.example/m.pem": OTHER_PEM, "/keys/x y/m.pem": PEM}
    rules = SigningTable(lines, NO_KEYS, files)
    (signer,) = rules.choose(b"u", b"example.org").signers
    (other,) = rules.choose(b"u", b"xn--bcher-kva.example").signers
    assert (signer.domain, signer.selector, signer.key.pem()) == (b"example.org", b"mail", PEM)
    assert (other.domain, other.key.pem()) == (b"xn--bcher-kva.example", OTHER_PEM)
    assert rules.choose(b"u", b"sub.example.org").signers == ()  # as OpenDKIM, just the author domain
    assert rules.choose(b"u", b"example.org").reason == "line 2 of the signing table"
    assert (
        rules.choose(b"u", b"c.net").reason == "line 2 of the signing table has no key for the author domain"
    )


def test_percent_as_the_name_of_a_key_is_the_one_named_as_the_author_domain():
    text = "Example.org example.org:s1:/k.pem\n* %\n"
    assert chosen(text, "u@example.org") == ["s1 example.org"]
    assert chosen(text, "u@example.net") == []


def test_nobody_signs_for_a_top_level_domain():
    assert chosen("k %:s1:/k.pem\n* k\nlocalhost k\n", "u@localhost") == []


def test_a_key_name_too_long_for_dns_does_not_sign():
    domain = ".".join(["a" * 60] * 4)
    text = f"k %:{'s' * 20}:/k.pem\n* k\n"
    assert chosen(text, f"u@{domain}") == []
    assert chosen(text, "u@example.org") != []


# Signing for others.

THIRD = "esp esp.example:s1:/k.pem\n"


@pytest.mark.parametrize(
    "pattern",
    ["example.org", "u@example.org", ".example.org", "*@example.org", "*@*.example.org", "*.example.org"],
)
def test_who_names_a_domain_may_let_a_third_party_sign(pattern):
    author = "u@sub.example.org" if pattern.startswith((".", "*@*", "*.")) else "u@example.org"
    assert chosen(f"{THIRD}{pattern} esp\n", author) == ["s1 esp.example"]
    assert reason(f"{THIRD}{pattern} esp\n", author) == "line 2 of the signing table, by a third party"


@pytest.mark.parametrize(
    ("pattern", "author"),
    [
        ("*", "u@example.org"),
        ("u@*", "u@example.org"),
        ("*@*", "u@example.org"),
        (".org", "u@example.org"),
        ("u@.org", "u@example.org"),
        ("*@*.org", "u@example.org"),
        ("*example.org", "u@evil-example.org"),
        ("*@*example.org", "u@evil-example.org"),
        ("*@example.*", "u@example.org"),
        ("u@e*.org", "u@example.org"),
    ],
)
def test_who_names_none_never_signs_with_the_key_of_another_domain(pattern, author):
    assert chosen(f"{THIRD}{pattern} esp\n", author) == []
    assert reason(f"{THIRD}{pattern} esp\n", author) == (
        "line 2 of the signing table names no domain, and its key is of another one"
    )
    for aligned in ("u@esp.example", "u@sub.esp.example"):
        if pattern in ("*", "u@*", "*@*"):
            assert chosen(f"{THIRD}{pattern} esp\n", aligned) == ["s1 esp.example"]


def test_alignment_is_by_labels():
    assert chosen(f"{THIRD}* esp\n", "u@notesp.example") == []
    assert chosen("k sub.example.org:s1:/k.pem\n* k\n", "u@example.org") == []


def test_a_line_that_cannot_sign_leaves_it_to_the_next():
    text = f"{THIRD}mail %:m:/k.pem\nu@* esp\n* mail\n"
    assert chosen(text, "u@example.org") == ["m example.org"]
    assert chosen(text, "u@esp.example") == ["s1 esp.example"]


def test_of_several_keys_those_that_may_sign_do():
    text = f"{THIRD}mail %:m:/k.pem\n* esp, mail\n"
    assert chosen(text, "u@example.org") == ["m example.org"]


def test_no_line_fits():
    assert reason(f"{THIRD}example.org esp\n", "u@example.net") == "no line of the signing table fits"


# Faults.


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("example.org\n", "line 1: 'example.org' stands alone"),
        ("example.org nokey\n", 'line 1: there is no key "nokey"'),
        ("example.org s1._domainkey.example.org\n", 'line 1: there is no key "s1._domainkey.example.org"'),
        ("k example.org:s1:/none.pem\n", "line 1: the key /none.pem cannot be read"),
        ("k example.org:s1:k.pem\n", "line 1: 'k.pem' is no file"),
        ("k example.org:s1:./k.pem\n", "line 1: './k.pem' is no file"),
        ("k example.org:s1:MIIEpAIBAAKCAQEA\n", "line 1: 'MIIEpAIBAAKCAQEA' is no file"),
        ("k exa mple:s1:/k.pem\n", "line 1: 'exa mple' is not a domain name"),
        ("k org:s1:/k.pem\n", "line 1: 'org' is a top-level domain"),
        ("k example.org:s 1:/k.pem\n", "line 1: 's 1' is not a selector"),
        ("k example.org::/k.pem\n", "line 1: '' is not a selector"),
        (f"k {'.'.join(['a' * 60] * 4)}:{'s' * 20}:/k.pem\nexample.org k", 'line 1: the key "k" has too long a name'),
        ("k %:s1:/k.pem\nk %:s2:/k.pem\n", 'line 2: the key "k" is in line 1 already'),
        ("k %:s1:/k.pem\nexample.org k\nEXAMPLE.org k\n", "line 3: 'EXAMPLE.org' is in line 2 already"),
        ("k %:s1:/k.pem\nexample.org k k\n", "line 2: 'k k' is no list of keys"),
        ("k %:s1:/k.pem\nexample.org k,\n", "line 2: 'k,' is no list of keys"),
        ("k %:s1:/k.pem\nexample.org ,\n", "line 2: ',' is no list of keys"),
        ("k %:s1:/k.pem\nexample.org a,b,c,d,e,f,g,h,i\n", "line 2: has 9 keys, would be right: 8 at most"),
        ("k %:s1:/k.pem\n% k\n", "line 2: '%' is no pattern"),
        ("k %:s1:/k.pem\n@example.org k\n", "line 2: '' is no local-part"),
        ("k %:s1:/k.pem\nu@ k\n", "line 2: 'u@' is no pattern"),
        ("k %:s1:/k.pem\n. k\n", "line 2: '.' is no pattern"),
        ("k %:s1:/k.pem\nexa..mple k\n", "line 2: 'exa..mple' is no pattern"),
        ("k %:s1:/k.pem\n*@exa/mple k\n", "line 2: '*@exa/mple' is no pattern"),
        ("k %:s1:/k.pem\n*@ü*.org k\n", "line 2: '*@ü*.org' is no pattern"),
    ],
)  # fmt: skip
def test_a_fault_says_where_and_what_would_be_right(text, line):
    (given,) = faults_of(text)
    assert given.startswith(line)
    assert "would be right: " in given or "cannot be read" in given


def test_all_faults_are_told_at_once_in_their_order():
    text = "example.org\nk org:s1:/k.pem\n% k\nexample.net k\n"
    assert [line.partition(":")[0] for line in faults_of(text)] == ["line 1", "line 2", "line 3"]
    assert [line.partition(":")[0] for line in faults_of("a x\nb y\n")] == ["line 1", "line 2"]


def test_a_file_that_is_no_key_is_named():
    with pytest.raises(ConfigError) as caught:
        table("k %:s1:/k.pem\nl example.org:s2:/k.pem\nexample.org k\n", k=b"nonsense")
    (line,) = caught.value.lines()
    assert line.startswith("/k.pem: is not a private key")


def test_a_signer_after_the_colon_is_left_out_with_a_warning():
    lines = parse_signing_table(b"k %:s1:/k.pem\nexample.org k:postmaster@example.org\n")
    (warning,) = lines.warnings
    assert warning.line().startswith("line 2: names a signer (i=)")
    rules = SigningTable(lines, NO_KEYS, {"/k.pem": PEM})
    assert chosen(rules, "u@example.org") == ["s1 example.org"]


@pytest.mark.parametrize(
    ("pattern", "path", "part"),
    [
        ("/k/%/m.pem", "/k/a.org/m.pem", "a.org"),
        ("/k/%.pem", "/k/a.org.pem", "a.org"),
        ("/k/%/%.pem", "/k/a.org/a.org.pem", "a.org"),
        ("/k/%/%.pem", "/k/a.org/b.org.pem", ""),
        ("/k/%/%.pem", "/k/a.org/aa.org.pem", ""),
        ("/k/%/m.pem", "/k//m.pem", ""),
        ("/k/%/m.pem", "/k/m.pem", ""),
        ("/k/%/m.pem", "/k/a/b/m.pem", ""),
        ("%", "", ""),
    ],
)
def test_paths_with_percent(pattern, path, part):
    assert match_path(pattern, path) == part


# Time.


def seconds_for(rules: SigningTable, local_part: bytes, domain: bytes) -> float:
    return min(_time(rules, local_part, domain) for _ in range(5))


def _time(rules: SigningTable, local_part: bytes, domain: bytes) -> float:
    begin = time.perf_counter()
    rules.choose(local_part, domain)
    return time.perf_counter() - begin


def test_ten_thousand_domains_cost_as_little_as_one():
    for form in ("host{}.example mail\n", "*@host{}.example mail\n"):
        rules = table("mail %:m:/k.pem\n" + "".join(form.format(number) for number in range(10_000)))
        assert chosen(rules, "u@host9999.example") == ["m host9999.example"]
        assert seconds_for(rules, b"u", b"host9999.example") < 0.0005


def test_hostile_addresses_against_hostile_patterns_cost_little():
    pattern = "a*" * 200 + "b@example.org"
    rules = table(f"mail %:m:/k.pem\n{pattern} mail\n" + "".join(f"*a{n}*@* mail\n" for n in range(100)))
    assert seconds_for(rules, b"a" * 60_000, b"example.org") < 0.025
    assert seconds_for(rules, b"a" * 1000, b"example.org") < 0.025
