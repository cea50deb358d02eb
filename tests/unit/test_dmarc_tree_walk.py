"""The tree walk: which names are asked, where it ends, which organizational domain it gives (RFC 9989 §4.10)."""

from __future__ import annotations

import asyncio
from time import process_time

import pytest

from harness.fake_resolver import FakeResolver
from srsd.dmarc.record import DmarcRecord
from srsd.dmarc.tree_walk import Known, Walk, is_domain_name, is_within, walk
from srsd.resolving import Answer, NotCachedError, Outcome, run_from_cache

PLAIN = "v=DMARC1; p=none"


def walked(
    start: bytes, records: dict[str, object], known: Known | None = None, *, policy_only: bool = False
) -> tuple[Walk, list[str]]:
    zone = {
        (f"_dmarc.{name}", "TXT"): [text] if isinstance(text, str) else text for name, text in records.items()
    }
    resolver = FakeResolver(zone)
    known = {} if known is None else known
    found = asyncio.run(walk(start, resolver, known, policy_only=policy_only))
    return found, [name.removeprefix("_dmarc.") for name, _ in resolver.asked]


def test_the_names_of_the_example():
    _, asked = walked(b"a.b.c.d.e.f.g.h.i.j.mail.example.com", {})
    assert asked == [
        "a.b.c.d.e.f.g.h.i.j.mail.example.com",
        "g.h.i.j.mail.example.com",
        "h.i.j.mail.example.com",
        "i.j.mail.example.com",
        "j.mail.example.com",
        "mail.example.com",
        "example.com",
        "com",
    ]


@pytest.mark.parametrize(("labels", "queries"), [(1, 1), (2, 2), (6, 6), (7, 7), (8, 8), (9, 8), (127, 8)])
def test_the_number_of_queries(labels, queries):
    start = ".".join("a" * labels)
    found, asked = walked(start.encode(), {})
    assert len(asked) == queries
    assert asked[0] == start
    assert asked[1:] == [".".join("a" * count) for count in range(min(labels - 1, 7), 0, -1)]
    assert found == Walk(start.encode(), start.encode())


@pytest.mark.parametrize(
    ("records", "asked", "expected"),
    [
        ({}, 4, Walk(b"a.b.example.com", b"a.b.example.com")),
        ({"b.example.com": PLAIN}, 4, Walk(b"a.b.example.com", b"b.example.com")),
        ({"a.b.example.com": PLAIN, "com": PLAIN}, 4, Walk(b"a.b.example.com", b"com")),
        ({"a.b.example.com": PLAIN + ";psd=n", "com": PLAIN}, 1, Walk(b"a.b.example.com", b"a.b.example.com")),
        ({"b.example.com": PLAIN + ";psd=n", "com": PLAIN}, 2, Walk(b"a.b.example.com", b"b.example.com")),
        # psd=y counts except where the walk began (§4.10.2, 2).
        ({"a.b.example.com": PLAIN + ";psd=y", "com": PLAIN}, 1, Walk(b"a.b.example.com", b"a.b.example.com")),
        ({"b.example.com": PLAIN + ";psd=y", "com": PLAIN}, 2, Walk(b"a.b.example.com", b"a.b.example.com", b"b.example.com")),
        ({"b.example.com": PLAIN, "com": PLAIN + ";psd=y"}, 4, Walk(b"a.b.example.com", b"example.com", b"com")),
        ({"b.example.com": [PLAIN, PLAIN], "example.com": PLAIN}, 4, Walk(b"a.b.example.com", b"example.com")),
        ({"b.example.com": [PLAIN, PLAIN + ";psd=n"]}, 4, Walk(b"a.b.example.com", b"a.b.example.com")),
        ({"b.example.com": ["v=DMARC1; psd=n", "v=spf1 -all"]}, 2, Walk(b"a.b.example.com", b"b.example.com")),
    ],
)  # fmt: skip
def test_the_organizational_domain(records, asked, expected):
    found, names = walked(b"a.b.example.com", records)
    assert found == expected
    assert names == ["a.b.example.com", "b.example.com", "example.com", "com"][:asked]


def test_a_failure_ends_it():
    failure = Outcome.TIMED_OUT
    found, asked = walked(b"a.b.example.com", {"b.example.com": PLAIN, "example.com": failure, "com": PLAIN})
    assert found == Walk(
        b"a.b.example.com", b"", b"", b"example.com", b"b.example.com", b"b.example.com", failure
    )
    assert asked == ["a.b.example.com", "b.example.com", "example.com"]


def test_a_failure_at_the_start():
    found, asked = walked(b"a.example", {"a.example": Outcome.REFUSED})
    assert found == Walk(b"a.example", b"", b"", b"a.example", b"a.example", b"a.example", Outcome.REFUSED)
    assert asked == ["a.example"]


@pytest.mark.parametrize("outcome", list(Outcome), ids=str)
def test_which_outcomes_are_failures(outcome):
    if outcome is Outcome.FOUND:
        return
    found, asked = walked(b"a.example", {"a.example": outcome})
    temporary = {"server failure", "refused by the name server", "timed out", "unusable answer"}
    temporary.add("too many DNS queries for one message")
    assert (found.failure is outcome) == (outcome.value in temporary)
    assert len(asked) == (1 if outcome.value in temporary else 2)


def test_what_may_be_the_organizational_domain_after_a_failure():
    found, _ = walked(b"x.a.b.example.com", {"a.b.example.com": PLAIN, "example.com": Outcome.TIMED_OUT})
    may_be = [b"a.b.example.com", b"b.example.com", b"example.com", b"com"]
    for name in (b"x.a.b.example.com", *may_be, b"c.example.com", b"ample.com", b"org"):
        assert found.may_end_with(name) == (name in may_be)
    whole, _ = walked(b"x.example.com", {"example.com": PLAIN})
    assert [whole.may_end_with(name) for name in (b"x.example.com", b"example.com", b"com")] == [
        False,
        True,
        False,
    ]


def test_two_walks_that_meet_at_a_failure():
    records = {"example.com": PLAIN, "com": Outcome.TIMED_OUT, "b.example.com": PLAIN}
    walks = [walked(start, records)[0] for start in (b"example.com", b"a.example.com", b"b.example.com")]
    assert all(each.ends_like(other) for each in walks for other in walks)
    other, _ = walked(b"other.com", records)
    assert not any(other.ends_like(each) or each.ends_like(other) for each in walks)
    assert not Walk(b"a.com", b"com").ends_like(walks[0])
    assert not walks[0].ends_like(Walk(b"a.com", b"com"))


def test_what_is_known_is_not_asked():
    known: Known = {}
    walked(b"a.example.com", {"example.com": PLAIN}, known)
    assert set(known) == {b"a.example.com", b"example.com", b"com"}
    assert isinstance(known[b"example.com"], DmarcRecord)
    found, asked = walked(b"b.example.com", {}, known)
    assert found.organizational_domain == b"example.com"
    assert asked == ["b.example.com"]


@pytest.mark.parametrize(
    ("text", "asked"),
    [("v=DMARC1; p=none", 2), ("v=DMARC1; p=none; adkim=s", 2), ("v=DMARC1; p=none; adkim=s; aspf=s", 1), ("v=DMARC1", 1)],
)  # fmt: skip
def test_for_the_policy_alone_no_more_is_asked_than_it_takes(text, asked):
    found, names = walked(b"example.com", {"example.com": text}, policy_only=True)
    assert len(names) == asked
    assert found.organizational_domain == (b"example.com" if asked == 2 else b"")
    assert walked(b"example.com", {"example.com": text})[0] == Walk(b"example.com", b"example.com")
    # It is no matter of the records above.
    assert len(walked(b"a.example.com", {"example.com": text}, policy_only=True)[1]) == 3


@pytest.mark.parametrize(
    ("domain", "above", "within"),
    [
        (b"a.example", b"a.example", True),
        (b"b.a.example", b"a.example", True),
        (b"ba.example", b"a.example", False),
        (b"example", b"a.example", False),
    ],
)
def test_is_within(domain, above, within):
    assert is_within(domain, above) is within


@pytest.mark.parametrize(
    ("domain", "name"),
    [(b"", False), (b"[192.0.2.1]", False), (b"localhost", True), (b"a" * 254, False), (b"_x.example", True)],
)
def test_is_domain_name(domain, name):
    assert is_domain_name(domain) is name


@pytest.mark.parametrize(
    "start", [b".", b"..", b"a.", b".a", b"a..b", b"\0.\xff", b'".example', b"a" * 300 + b".b", b"." * 1000]
)
def test_odd_names_do_no_harm(start):
    resolver = FakeResolver({})
    found = asyncio.run(walk(start, resolver, {}))
    assert found == Walk(start, start)
    assert len(resolver.asked) <= 8


def test_a_resolver_that_never_waits_is_heard():
    class Cache(FakeResolver):
        async def txt(self, name: bytes) -> Answer[bytes]:
            raise NotCachedError(name)

    with pytest.raises(NotCachedError):
        run_from_cache(walk(b"a.example", Cache({}), {}))


def test_a_flood_of_records_costs_little():
    flood = Answer(Outcome.FOUND, tuple(b"v=DMARC1;" + b"p" * 50 + b"%d" % number for number in range(1000)))
    other = Answer(Outcome.FOUND, tuple(b"v=spf1 %d" % number for number in range(1000)))

    class Flooded(FakeResolver):
        async def txt(self, name: bytes) -> Answer[bytes]:
            return flood if len(name) % 2 else other

    begun = process_time()
    for _ in range(10):
        found = run_from_cache(walk(b"a.b.c.d.e.f.g.h.i", Flooded({}), {}))
    assert process_time() - begun < 1.0
    assert found == Walk(b"a.b.c.d.e.f.g.h.i", b"a.b.c.d.e.f.g.h.i")
