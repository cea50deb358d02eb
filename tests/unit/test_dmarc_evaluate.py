"""Evaluation: what is asked for what, and what the outcome says besides the result; the table has the rest."""

from __future__ import annotations

import pytest

from harness.fake_resolver import FakeResolver
from srsd.dmarc.discovery import Discovery, discover
from srsd.dmarc.evaluate import evaluate
from srsd.dmarc.outcome import DmarcOutcome, DmarcResult, Identifier, State
from srsd.dmarc.record import Policy
from srsd.resolving import Answer, NotCachedError, Outcome, run_from_cache

PASSED, FAILED, TEMPERROR = State.PASSED, State.FAILED, State.TEMPERROR
REJECT = "v=DMARC1; p=reject"


def zone(records: dict[str, object]) -> dict[tuple[str, str], object]:
    return {
        (f"_dmarc.{name}", "TXT"): [text] if isinstance(text, str) else text for name, text in records.items()
    }


def discovered(author: bytes, records: dict[str, object]) -> tuple[Discovery, FakeResolver]:
    resolver = FakeResolver(zone(records))
    return run_from_cache(discover(author, resolver)), resolver


def evaluated(
    author: bytes, records: dict[str, object], *identifiers: Identifier
) -> tuple[DmarcOutcome, list[str]]:
    """Give the outcome, and what the evaluation asked."""
    discovery, resolver = discovered(author, records)
    resolver.asked.clear()
    outcome = run_from_cache(evaluate(author, discovery, identifiers, resolver))
    return outcome, [name.removeprefix("_dmarc.") for name, _ in resolver.asked]


def test_the_whole_outcome():
    aligned = Identifier("dkim", b"b.example.org", PASSED)
    identifiers = (Identifier("spf", b"evil.test", PASSED), aligned)
    records = {"example.org": "v=DMARC1; p=reject; sp=quarantine; t=y"}
    outcome, _ = evaluated(b"a.example.org", records, *identifiers)
    assert outcome._replace(record=None) == DmarcOutcome(
        DmarcResult.PASS,
        "dkim passed, aligned",
        b"a.example.org",
        policy=Policy.NONE,
        published=Policy.QUARANTINE,
        policy_tag="sp",
        record=None,
        record_domain=b"example.org",
        organizational_domain=b"example.org",
        aligned=(aligned,),
        exists=None,
    )
    assert outcome.record is not None
    assert outcome.record.policy is Policy.REJECT


def test_result_words():
    assert {each.value for each in DmarcResult} == {"pass", "fail", "none", "temperror"}


@pytest.mark.parametrize(
    ("domain", "asked"),
    [
        (b"a.b.example.org", []),  # the author domain
        (b"example.org", []),  # the organizational domain, which the author's walk has proved
        (b"b.example.org", []),  # on the way between the two: its walk has nothing new to ask
        (b"c.example.org", ["c.example.org"]),
        (b"d.c.b.example.org", ["d.c.b.example.org", "c.b.example.org"]),
        (b"org", []),
        (b"evil.test", []),
        (b"example.com", []),
        (b"evilexample.org", []),
        (b"", []),
        (b"[192.0.2.1]", []),
    ],
)
@pytest.mark.parametrize("state", list(State), ids=str)
def test_little_is_asked(domain, asked, state):
    outcome, names = evaluated(b"a.b.example.org", {"example.org": REJECT}, Identifier("spf", domain, state))
    assert names == (asked if state is not FAILED else [])
    aligned = domain.endswith((b".example.org", b"example.org")) and domain != b"evilexample.org"
    expected = {PASSED: "pass", TEMPERROR: "temperror", FAILED: "fail"}[state] if aligned else "fail"
    assert outcome.result.value == expected


def test_strict_asks_nothing():
    records = {"example.org": f"{REJECT}; adkim=s; aspf=s"}
    identifiers = [Identifier(method, b"a.example.org", PASSED) for method in ("spf", "dkim")]
    outcome, asked = evaluated(b"example.org", records, *identifiers)
    assert (outcome.result, asked) == (DmarcResult.FAIL, [])


def test_after_a_pass_nothing_more_is_asked():
    walk, equal = Identifier("spf", b"a.example.org", PASSED), Identifier("dkim", b"example.org", PASSED)
    outcome, asked = evaluated(b"example.org", {"example.org": REJECT}, walk, equal, walk)
    assert outcome.aligned == (equal,)
    assert asked == []


def test_all_that_costs_nothing_is_told():
    both = (Identifier("spf", b"example.org", PASSED), Identifier("dkim", b"example.org", PASSED))
    outcome, _ = evaluated(b"a.example.org", {"example.org": REJECT}, *both)
    assert outcome.aligned == both
    assert outcome.reason == "spf and dkim passed, aligned"


def test_walks_are_shared_and_the_discovery_stays_as_it_is():
    discovery, resolver = discovered(
        b"example.org", {"example.org": REJECT, "x.example.org": f"{REJECT};psd=n"}
    )
    known = dict(discovery.known)
    resolver.asked.clear()
    identifiers = [Identifier("dkim", b"%d.x.example.org" % (each % 2), PASSED) for each in range(6)]
    outcome = run_from_cache(evaluate(b"example.org", discovery, identifiers, resolver))
    assert outcome.result is DmarcResult.FAIL
    assert [name for name, _ in resolver.asked] == [
        "_dmarc.0.x.example.org",
        "_dmarc.x.example.org",
        "_dmarc.1.x.example.org",
    ]
    assert discovery.known == known


@pytest.mark.parametrize(
    ("author", "asked"),
    [
        (b"example.org", 2),
        (b"a.b.example.org", 4),
        (b"a.b.c.d.e.f.g.h.example.org", 8),
        (b"", 0),
        (b"[192.0.2.1]", 0),
        (b"org", 1),
        (b"psd.example", 1),
        (b"a.psd.example", 2),
        (b"strict.example", 1),
        (b"void.example", 1),
    ],
)
def test_how_much_discovery_asks(author, asked):
    records = {
        "example.org": REJECT,
        "psd.example": f"{REJECT};psd=y",
        "strict.example": f"{REJECT};adkim=s;aspf=s",
        "void.example": "v=DMARC1",
    }
    assert len(discovered(author, records)[1].asked) == asked


@pytest.mark.parametrize(
    ("record", "author", "asked"),
    [
        ("v=DMARC1; p=reject; np=none", b"a.example.org", True),
        ("v=DMARC1; p=reject; sp=none; np=none", b"a.example.org", False),
        ("v=DMARC1; p=reject; sp=none", b"a.example.org", False),
        ("v=DMARC1; p=none; np=quarantine; t=y", b"a.example.org", False),
        ("v=DMARC1; p=reject; np=none", b"example.org", False),
    ],
)
def test_existence_is_asked_only_where_it_matters(record, author, asked):
    discovery, resolver = discovered(author, {"example.org": record})
    assert ((author.decode(), "TXT") in resolver.asked) == asked
    assert discovery.exists is (False if asked else None)
    assert discovery.policy_tag == ("np" if asked else "sp" if "sp" in record else "p")


@pytest.mark.parametrize(
    ("outcome", "exists", "policy"),
    [
        (Outcome.NO_DATA, True, "none"),
        (Outcome.NX_DOMAIN, False, "reject"),
        (Outcome.NOT_A_NAME, False, "reject"),
        (Outcome.SERVER_FAILURE, None, None),
        (Outcome.TIMED_OUT, None, None),
        (Outcome.BUDGET_SPENT, None, None),
    ],
)
def test_existence(outcome, exists, policy):
    resolver = FakeResolver(
        {("_dmarc.example.org", "TXT"): ["v=DMARC1; p=none; np=reject"], ("a.example.org", "TXT"): outcome}
    )
    discovery = run_from_cache(discover(b"a.example.org", resolver))
    decided = run_from_cache(evaluate(b"a.example.org", discovery, (), resolver))
    assert (decided.exists, decided.policy and decided.policy.value) == (exists, policy)
    assert decided.result.value == ("fail" if policy else "temperror")
    assert (outcome.value in decided.reason) == (policy is None)


def test_what_has_a_name_below_it_need_not_be_asked_about():
    records = {"example.org": "v=DMARC1; p=none; np=reject", "a.example.org": ["no DMARC record"]}
    discovery, resolver = discovered(b"a.example.org", records)
    assert discovery.exists
    assert discovery.published is Policy.NONE
    assert ("a.example.org", "TXT") not in resolver.asked


@pytest.mark.parametrize("author", [b"", b"[192.0.2.1]", b"[ipv6:::1]"])
def test_an_author_without_a_domain_name(author):
    outcome, asked = evaluated(author, {"example.org": REJECT}, Identifier("spf", author, PASSED))
    assert outcome == DmarcOutcome(DmarcResult.NONE, "the author has no domain name", author)
    assert asked == []


def test_a_name_that_cannot_be_has_the_policy_above_it():
    outcome, _ = evaluated(b"a..example.org", {"example.org": "v=DMARC1; p=none; np=reject"})
    assert (outcome.result, outcome.policy, outcome.exists) == (DmarcResult.FAIL, Policy.REJECT, False)


def test_a_resolver_that_never_waits_is_heard():
    class Cache(FakeResolver):
        async def txt(self, name: bytes) -> Answer[bytes]:
            if b"new" in name:
                raise NotCachedError
            return await super().txt(name)

    resolver = Cache(zone({"example.org": "v=DMARC1; p=none; np=reject"}))
    with pytest.raises(NotCachedError):
        run_from_cache(discover(b"new.example.org", resolver))
    discovery = run_from_cache(discover(b"example.org", resolver))
    identifiers = [
        Identifier("spf", b"old.example.org", FAILED),
        Identifier("spf", b"new.example.org", PASSED),
    ]
    with pytest.raises(NotCachedError):
        run_from_cache(evaluate(b"example.org", discovery, identifiers, resolver))
    # What was begun in vain is in nobody's way.
    again = FakeResolver(zone({"example.org": REJECT}))
    assert run_from_cache(evaluate(b"example.org", discovery, identifiers, again)).result is DmarcResult.PASS


def test_every_reason_is_short_and_clean():
    reasons = set()
    records: list[dict[str, object]] = [
        {},
        {"example.org": REJECT},
        {"example.org": "v=DMARC1"},
        {"example.org": "v=DMARC1; p=x"},
        {"example.org": REJECT, "a.example.org": Outcome.TIMED_OUT},
        *({"example.org": outcome} for outcome in Outcome if outcome.temporary),
    ]
    identifiers = [
        Identifier(method, domain, state)  # type: ignore[arg-type]
        for method in ("spf", "dkim")
        for domain in (b"example.org", b"a.example.org", b"evil.test")
        for state in State
    ]
    for record in records:
        for one in identifiers:
            for other in identifiers:
                reasons.add(evaluated(b"example.org", record, one, other)[0].reason)
    assert len(reasons) > 15
    assert all(reason.isascii() and reason.isprintable() and 0 < len(reason) < 100 for reason in reasons)
    assert not any(set(reason) & set("\"'\\") for reason in reasons)
