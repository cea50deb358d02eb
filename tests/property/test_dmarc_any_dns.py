"""DMARC for any DNS: the evaluator beside a plain reading of RFC 9989, and beside all that DNS might have said."""

from __future__ import annotations

from itertools import product
from typing import NamedTuple

from hypothesis import example, given
from hypothesis import strategies as st

from harness.fake_resolver import FakeResolver
from srsd.dmarc.discovery import discover
from srsd.dmarc.evaluate import evaluate
from srsd.dmarc.outcome import DmarcOutcome, DmarcResult, Identifier, State
from srsd.dmarc.record import parse_record
from srsd.dmarc.trace import Trace
from srsd.dmarc.tree_walk import Walk, is_within, walk
from srsd.resolving import Answer, Outcome, run_from_cache


class Published(NamedTuple):
    """A record as its owner means it."""

    text: str
    policy: str
    subdomain_policy: str
    psd: str = "u"
    strict: bool = False
    void: bool = False


RECORDS = [
    Published("v=DMARC1; p=reject", "reject", "reject"),
    Published("v=DMARC1; p=none; sp=quarantine", "none", "quarantine"),
    Published("v=DMARC1; p=quarantine; psd=n", "quarantine", "quarantine", "n"),
    Published("v=DMARC1; p=reject; sp=none; psd=y", "reject", "none", "y"),
    Published("v=DMARC1; p=reject; adkim=s; aspf=s", "reject", "reject", strict=True),
    Published("v=DMARC1; p=reject; adkim=s; aspf=s; psd=n", "reject", "reject", "n", strict=True),
    Published("v=DMARC1", "", "", void=True),
    Published("v=DMARC1; p=bogus; psd=n", "", "", "n", void=True),
]
# A small tree, so that names meet, with branches beyond the limit of the walk.
NAMES = [
    *("com", "a.com", "b.com", "x.a.com", "y.a.com", "p.x.a.com", "q.x.a.com", "p.y.a.com"),
    *("1.2.3.4.5.x.a.com", "0.1.2.3.4.5.x.a.com", "2.3.4.5.x.a.com", "8.2.3.4.5.x.a.com", "9.8.7.6.2.3.4.5.x.a.com"),
    *("org", "a.org"),
]  # fmt: skip
ANY_NAME = st.sampled_from(NAMES)
ZONES = st.dictionaries(ANY_NAME, st.sampled_from(RECORDS), max_size=6)
FAILURES = st.frozensets(ANY_NAME, max_size=2)
IDENTIFIERS = st.lists(
    st.builds(
        Identifier, st.sampled_from(["spf", "dkim"]), ANY_NAME.map(str.encode), st.sampled_from(list(State))
    ),
    max_size=4,
)
Zone = dict[str, Published]


# A plain reading of §4.10, with none of the shortcuts.


def retrieved(start: str, zone: Zone) -> list[tuple[str, Published]]:
    """Walk: the records of start and of the names above it, up to one with psd=."""
    names = [start]
    labels = start.split(".")
    labels = labels[-7:] if len(labels) >= 8 else labels[1:]
    while labels:
        names.append(".".join(labels))
        labels = labels[1:]
    found = []
    for name in names:
        if name in zone:
            found.append((name, zone[name]))
            if zone[name].psd != "u":
                break
    return found


def organizational_domain(start: str, zone: Zone) -> str:
    found = retrieved(start, zone)
    for name, record in found:
        if record.psd == "n":
            return name
        if record.psd == "y" and name != start:
            return ".".join(start.split(".")[-name.count(".") - 2 :])
    return found[-1][0] if found else start


def expected(author: str, zone: Zone, passed: list[str]) -> tuple[str, str]:
    """Give the result and, for a fail, the policy."""
    found = retrieved(author, zone)
    own = dict(found)
    record, policy = None, ""
    if author in zone:
        record = zone[author]
        policy = record.policy
    else:
        psd = [name for name, each in found if each.psd == "y"]
        for name in [organizational_domain(author, zone), *psd]:
            if record is None and name in own:
                record = own[name]
                policy = record.subdomain_policy
    if record is None or record.void:
        return "none", ""
    for domain in passed:
        if domain == author or (
            not record.strict and organizational_domain(domain, zone) == organizational_domain(author, zone)
        ):
            return "pass", ""
    return "fail", policy


def resolver_for(zone: Zone, failures: frozenset[str] = frozenset()) -> FakeResolver:
    answers: dict[tuple[str, str], object] = {
        (f"_dmarc.{name}", "TXT"): [record.text] for name, record in zone.items()
    }
    return FakeResolver(answers | {(f"_dmarc.{name}", "TXT"): Outcome.TIMED_OUT for name in failures})


def evaluated(
    author: str, identifiers: list[Identifier], resolver: FakeResolver, trace: Trace | None = None
) -> DmarcOutcome:
    discovery = run_from_cache(discover(author.encode(), resolver, trace))
    return run_from_cache(evaluate(author.encode(), discovery, identifiers, resolver, trace))


def walked(start: str, resolver: FakeResolver) -> Walk:
    return run_from_cache(walk(start.encode(), resolver, {}))


@given(ANY_NAME, ZONES)
def test_the_walk_is_that_of_the_rfc(start, zone):
    resolver = resolver_for(zone)
    found = walked(start, resolver)
    assert found.organizational_domain.decode() == organizational_domain(start, zone)
    assert len(resolver.asked) <= 8
    assert is_within(start.encode(), found.organizational_domain)


@given(ANY_NAME, ZONES, FAILURES)
def test_a_walk_that_failed_knows_what_it_may_have_found(start, zone, failures):
    found = walked(start, resolver_for(zone, failures))
    for answers in product([None, *RECORDS], repeat=len(failures)):
        told = {name: each for name, each in zone.items() if name not in failures}
        told |= {name: each for name, each in zip(failures, answers, strict=True) if each}
        assert found.may_end_with(organizational_domain(start, told).encode())


@given(ANY_NAME, ANY_NAME, ZONES, FAILURES)
def test_alignment_is_symmetric(one, other, zone, failures):
    resolver = resolver_for(zone, failures)
    first, second = walked(one, resolver), walked(other, resolver)
    assert first.ends_like(second) == second.ends_like(first)
    assert first.ends_like(first)


@given(ANY_NAME, ZONES, IDENTIFIERS)
def test_where_dns_answers_the_result_is_that_of_the_rfc(author, zone, identifiers):
    identifiers = [
        each._replace(state=State.FAILED) if each.state is State.TEMPERROR else each for each in identifiers
    ]
    resolver = resolver_for(zone)
    outcome = evaluated(author, identifiers, resolver)
    passed = [each.domain.decode() for each in identifiers if each.state is State.PASSED]
    result, policy = expected(author, zone, passed)
    assert outcome.result.value == result
    if result == "fail":
        assert outcome.policy is not None
        assert outcome.policy.value == policy
    assert len(resolver.asked) == len(set(resolver.asked))


@given(ANY_NAME, ZONES, FAILURES, IDENTIFIERS)
@example("a.com", {"a.com": RECORDS[0]}, frozenset({"com"}), [Identifier("spf", b"x.a.com", State.PASSED)])
@example(
    "x.a.com", {"x.a.com": RECORDS[0]}, frozenset({"a.com"}), [Identifier("spf", b"y.a.com", State.PASSED)]
)
def test_temperror_exactly_where_another_answer_could_make_another_result(
    author, zone, failures, identifiers
):
    resolver = resolver_for(zone, failures)
    outcome = evaluated(author, identifiers, resolver)
    possible = set()
    unchecked = [each.domain.decode() for each in identifiers if each.state is State.TEMPERROR]
    passed = [each.domain.decode() for each in identifiers if each.state is State.PASSED]
    for answers in product([None, *RECORDS], repeat=len(failures)):
        told = {name: each for name, each in zone.items() if name not in failures}
        told |= {name: each for name, each in zip(failures, answers, strict=True) if each}
        for might_have in ([], unchecked):
            possible.add(expected(author, told, passed + might_have))
    if outcome.result is DmarcResult.TEMPERROR:
        # A walk ends at a failure. What lies beyond might tell more, but is not asked for.
        seen = all((f"_dmarc.{name}", "TXT") in resolver.asked for name in zone)
        above = any(
            f".{failed}".endswith(f".{each.domain.decode()}") for failed in failures for each in identifiers
        )
        assert len(possible) > 1 or not seen or above
    else:
        policy = outcome.policy.value if outcome.result is DmarcResult.FAIL and outcome.policy else ""
        assert possible == {(outcome.result.value, policy)}


@given(ANY_NAME, ZONES, FAILURES, IDENTIFIERS)
def test_a_trace_changes_nothing(author, zone, failures, identifiers):
    trace, traced, untraced = Trace(), resolver_for(zone, failures), resolver_for(zone, failures)
    assert evaluated(author, identifiers, traced, trace) == evaluated(author, identifiers, untraced)
    assert traced.asked == untraced.asked
    assert all(line.isascii() and line.isprintable() for line in trace.lines())


PIECES = st.sampled_from(
    [b"v=DMARC1", b"p=reject", b"p=none", b"sp=none", b"np=x", b"psd=y", b"psd=n", b"t=y", b"adkim=s", b"rua=mailto:a@b.example",
     b"rua=", b"fo=0:1", b"ruf=x:y", b"p", b"=", b";", b" ", b"\t", b"\xff", b"v=DMARC2", b"pct=5", b"!", b",", b""]
)  # fmt: skip
TEXTS = (
    st.lists(PIECES, max_size=12).map(b";".join)
    | st.lists(PIECES, max_size=12).map(b"".join)
    | st.binary(max_size=80)
)
TEXTS = TEXTS | TEXTS.map(b"v=DMARC1;".__add__)


class AnyResolver(FakeResolver):
    """Answers with anything at all."""

    def __init__(self, answers: list[Answer[bytes]]) -> None:
        super().__init__({})
        self.answers = answers

    async def txt(self, name: bytes) -> Answer[bytes]:
        self.asked.append((name.decode("latin-1"), "TXT"))
        return self.answers[(len(name) + len(self.asked)) % len(self.answers)]


NO_RECORDS = [Answer[bytes](outcome) for outcome in Outcome if outcome is not Outcome.FOUND]
FOUND = st.lists(TEXTS, min_size=1, max_size=3).map(lambda texts: Answer(Outcome.FOUND, tuple(texts)))
ANSWERS = FOUND | st.sampled_from(NO_RECORDS)
ANY_OCTETS = st.binary(max_size=30) | st.lists(
    st.sampled_from([b"a", b"", b"\0", b"com", b"["]), max_size=20
).map(b".".join)


@given(
    ANY_OCTETS,
    st.lists(ANSWERS, min_size=1, max_size=5),
    st.lists(ANY_OCTETS, max_size=3),
    st.sampled_from(list(State)),
)
def test_nothing_is_raised_and_the_limits_are_kept(author, answers, domains, state):
    resolver, trace = AnyResolver(answers), Trace()
    discovery = run_from_cache(discover(author, resolver, trace))
    assert len(resolver.asked) <= 9
    identifiers = [Identifier("dkim", domain, state) for domain in domains]
    outcome = run_from_cache(evaluate(author, discovery, identifiers, resolver, trace))
    assert len(resolver.asked) <= 9 + 8 * len(domains)
    assert outcome.reason.isascii()
    assert outcome.reason.isprintable()
    assert 0 < len(outcome.reason) < 100
    assert all(line.isascii() and line.isprintable() for line in trace.lines())
    assert (outcome.record is None) == (outcome.record_domain == b"")


@given(TEXTS)
def test_records(text):
    record = parse_record(text)
    if record is None:
        return
    assert text[:1] in {b"v", b"V"}
    assert not record.flaw or not record.aggregate_reports
    # What comes after is ignored where it is no tag, and of two tags the first counts.
    assert parse_record(text + b";garbage;;") == record
    assert parse_record(text + text[8:]) == record or b";" not in text
