"""The login table: which login may write as which author."""

from __future__ import annotations

import pytest

from srsd.dkim.login_table import parse_login_table
from srsd.errors import ConfigError
from srsd.syntax.address import Address

TABLE = """
# login   authors
alice     alice@example.org, sales@example.org
alice     @alice.example
backup    @example.org .example.org
root      *
bücher    info@bücher.example
"""


def allows(text: str, login: str, author: str) -> bool:
    local_part, _, domain = author.rpartition("@")
    return parse_login_table(text.encode()).allows(
        login.encode(), Address(local_part.encode(), domain.encode())
    )


@pytest.mark.parametrize(
    ("login", "author", "expected"),
    [
        ("alice", "alice@example.org", True),
        ("alice", "ALICE@Example.ORG", True),
        ("Alice", "alice@example.org", True),  # as Postfix compares logins
        ("alice", "sales@example.org", True),
        ("alice", "anybody@alice.example", True),  # all lines add up
        ("alice", "bob@example.org", False),
        ("alice", "alice+x@example.org", False),
        ("alice", "alice@sub.example.org", False),
        ("alice", "alice@sub.alice.example", False),
        ("alice", "alice@example.org.evil.example", False),
        ("backup", "x@example.org", True),
        ("backup", "x@a.b.example.org", True),
        ("backup", "x@example.net", False),
        ("root", "x@example.net", True),
        ("root", "x@\xff.example", True),
        ("BÜCHER", "info@xn--bcher-kva.example", True),
        ("bücher", "info@BÜCHER.example", True),
        ("bob", "bob@example.org", False),  # no line is about him
        ("", "bob@example.org", False),
        ("*", "bob@example.org", False),
    ],
)
def test_who_may_write_as_whom(login, author, expected):
    assert allows(TABLE, login, author) is expected


def test_a_line_for_any_login_adds_to_the_others():
    text = TABLE + "*  postmaster@example.org\n"
    assert allows(text, "alice", "postmaster@example.org") is True
    assert allows(text, "bob", "postmaster@example.org") is True
    assert allows(text, "bob", "bob@example.org") is False  # now a line is about everybody
    assert allows(text, "alice", "bob@example.org") is False
    assert allows("* *\n", "bob", "x@example.net") is True


def test_a_login_that_is_no_utf_8_equals_itself():
    table = parse_login_table(b"Jos\xe9 jose@example.org\n")
    assert table.allows(b"jos\xe9", Address(b"jose", b"example.org")) is True
    assert table.allows(b"jos\xe8", Address(b"jose", b"example.org")) is False


@pytest.mark.parametrize("domain", ["\xff.example".encode("latin-1"), b"a" * 300, b""])
def test_an_author_domain_that_is_none_matches_no_pattern(domain):
    table = parse_login_table(b"alice @example.org .example.org alice@example.org\n")
    assert table.allows(b"alice", Address(b"alice", domain)) is False


@pytest.mark.parametrize(
    ("text", "author", "expected"),
    [
        ("alice\n  alice@example.org,\n\tsales@example.org\n", "sales@example.org", True),
        ("alice a@x.example # b@x.example\n", "b@x.example", False),
        ("alice a#b@x.example\n", "a#b@x.example", True),  # a legal local-part
        ("# alice *\nalice a@x.example\n", "b@x.example", False),
        ("alice a@x.example\n# between\n  b@x.example\n", "b@x.example", True),
        ("alice\ta@x.example\r\n", "a@x.example", True),
        ('alice "a\\"b"@x.example\n', 'a"b@x.example', True),
        ("alice a@x.example,,b@x.example,\n", "b@x.example", True),
    ],
)
def test_lines(text, author, expected):
    assert allows(text, "alice", author) is expected


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("alice", "'alice' stands alone, would be right: address, @domain, .domain or *"),
        ("alice ,", "'alice' stands alone"),
        ("alice bob", "'bob' is no author"),
        ("alice example.org", "'example.org' is no author"),
        ("alice a@b@", "'a@b@' is no author"),
        ("alice @exa..mple", "'exa..mple' is not a domain name"),
        ("alice .", "'' is not a domain name"),
        ("alice a@exa_..mple", "'exa_..mple' is not a domain name"),
        ("alice *@example.org", "'*@example.org' is no author, would be right: address, @domain"),
        ("alice,bob a@example.org", "'alice,bob' is several logins, would be right: one on a line"),
    ],
)
def test_a_fault_says_where_and_what_would_be_right(line, problem):
    text = f"# who\nroot *\n{line}\n"
    with pytest.raises(ConfigError) as caught:
        parse_login_table(text.encode())
    (given,) = caught.value.lines()
    assert given.startswith(f"line 3: {problem}")
    assert "would be right: " in given


def test_all_faults_are_told_at_once():
    with pytest.raises(ConfigError) as caught:
        parse_login_table(b"a\nb *\nc nobody\n")
    assert [fault.where for fault in caught.value.faults] == ["line 1", "line 3"]


def test_an_empty_table_allows_nobody():
    table = parse_login_table(b"\n# nothing\n")
    assert len(table) == 0
    assert table.allows(b"alice", Address(b"a", b"example.org")) is False
