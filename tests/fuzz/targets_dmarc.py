"""DMARC's record parser and its evaluation, and what each promises, whatever DNS says.

fuzz.run adds DMARC_TARGETS to the others.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from fuzz.targets import Target
from srsd.dmarc.discovery import discover
from srsd.dmarc.evaluate import evaluate
from srsd.dmarc.outcome import DmarcOutcome, DmarcResult, Identifier, State
from srsd.dmarc.record import parse_record
from srsd.dmarc.trace import Trace
from srsd.dmarc.tree_walk import is_within
from srsd.resolving import Answer, Outcome, run_from_cache

if TYPE_CHECKING:
    from random import Random

_POLICIES = {b"none", b"quarantine", b"reject"}
_LOOKED_AT = 100  # tags
_URI = re.compile(rb"[A-Za-z][A-Za-z0-9+.-]*:[!-~]+")


def _plain_tags(data: bytes) -> dict[bytes, bytes]:
    """Split a record by hand: of tags that stand twice the first."""
    tags: dict[bytes, bytes] = {}
    for part in data.split(b";")[1:]:
        name, equals, value = part.partition(b"=")
        if equals:
            tags.setdefault(name.strip(b" \t").lower(), value.strip(b" \t").lower())
    return tags


def _check_record(data: bytes, _: Random) -> None:
    record = parse_record(data)
    version, equals, word = data.partition(b";")[0].partition(b"=")
    is_record = version[:1] in {b"v", b"V"} and equals and not version[1:].strip(b" \t")
    assert (record is not None) == bool(is_record and word.strip(b" \t") == b"DMARC1")
    if record is None or data.count(b";") > _LOOKED_AT:
        return
    tags = _plain_tags(data)
    policies = [tags.get(b"p", b""), *(tags[name] for name in (b"sp", b"np") if name in tags)]
    if all(each in _POLICIES for each in policies):
        assert record.flaw == ""
        assert record.policy.value.encode() == tags[b"p"]
        assert record.subdomain_policy.value.encode() == tags.get(b"sp", tags[b"p"])
        assert record.nonexistent_policy.value.encode() == tags.get(b"np", tags.get(b"sp", tags[b"p"]))
    else:
        assert bool(record.flaw) == (not record.aggregate_reports)
        assert {each.value for each in record[:3]} == {"none"}
    assert record.testing == (tags.get(b"t") == b"y")
    assert record.strict_dkim == (tags.get(b"adkim") == b"s")
    assert record.strict_spf == (tags.get(b"aspf") == b"s")
    assert record.public_suffix.value.encode() == (tags[b"psd"] if tags.get(b"psd") in {b"y", b"n"} else b"u")
    assert all(_URI.fullmatch(uri) and b"," not in uri for uri in record.aggregate_reports)
    assert record.failure_options <= {b"0", b"1", b"d", b"s"}


class _Resolver:
    """Answers each query with a line of a fuzzed text, or not."""

    def __init__(self, lines: list[bytes]) -> None:
        self.asked: list[bytes] = []
        self._lines = lines

    async def txt(self, name: bytes) -> Answer[bytes]:
        self.asked.append(name)
        line = self._lines[len(self.asked) % len(self._lines)]
        if not line:
            return Answer(Outcome.NX_DOMAIN)
        if line[0] == 0x21:
            return Answer((Outcome.TIMED_OUT, Outcome.NO_DATA, Outcome.NOT_A_NAME)[len(line) % 3])
        return Answer(Outcome.FOUND, tuple(line.split(b"|")))


def _evaluate(data: bytes, trace: Trace | None = None) -> tuple[list[bytes], DmarcOutcome]:
    author, *domains, last = (data.split(b"\n", 3) + [b""] * 3)[:4]
    resolver = _Resolver(last.split(b"\n"))
    states = list(State)
    identifiers = [
        Identifier("dkim" if number else "spf", domain, states[(len(data) + number) % 3])
        for number, domain in enumerate(domains)
    ]
    discovery = run_from_cache(discover(author, resolver, trace))  # type: ignore[arg-type]
    outcome = run_from_cache(evaluate(author, discovery, identifiers, resolver, trace))  # type: ignore[arg-type]
    return resolver.asked, outcome


def _check_evaluation(data: bytes, _: Random) -> None:
    trace = Trace()
    asked, outcome = _evaluate(data)
    assert (asked, outcome) == _evaluate(data, trace)
    assert all(line.isascii() and line.isprintable() for line in trace.lines())
    assert len(asked) <= 9 + 2 * 8
    assert len(set(asked)) == len(asked)
    assert outcome.reason.isascii()
    assert outcome.reason.isprintable()
    assert 0 < len(outcome.reason) < 100
    if outcome.organizational_domain:
        assert is_within(outcome.author_domain, outcome.organizational_domain)
    if outcome.record_domain:
        assert is_within(outcome.author_domain, outcome.record_domain)
        assert b"_dmarc." + outcome.record_domain in asked
    if outcome.result is DmarcResult.PASS:
        assert all(each.state is State.PASSED for each in outcome.aligned)
        tops = {each.domain.rpartition(b".")[2] for each in outcome.aligned}
        assert tops == {outcome.author_domain.rpartition(b".")[2]}
    else:
        assert not outcome.aligned
    if outcome.result is DmarcResult.FAIL:
        assert outcome.policy is not None


_WORDS = [
    *(b"v=DMARC1", b"v", b"DMARC1", b"p=", b"sp=", b"np=", b"none", b"quarantine", b"reject", b"adkim=s", b"aspf=s", b"psd=y", b"psd=n"),
    *(b"t=y", b"rua=mailto:a@b.example", b"ruf=", b"fo=1:d", b"pct=0", b";", b"=", b",", b"!", b"|", b"\n", b"!\n", b" ", b"\t", b"."),
    *(b"example.org", b"a.", b"_dmarc.", b"\0", b"\xff", b"\r", b"%", b"%2", b":", b"[", b"P=", b"V=DMARC1"),
]  # fmt: skip
_RECORDS = [
    b"v=DMARC1; p=reject; sp=none; np=quarantine; adkim=s; aspf=r; t=y; psd=n; fo=1:d:s; rua=mailto:a@b.example!10m, x:y; ruf=mailto:c@d.example",
    b"v = DMARC1 ; p = Reject ;",
    b"v=DMARC1",
    b"v=DMARC1; p=x; rua=mailto:a@b.example",
    b"v=DMARC1; p=reject; p=none; psd=y",
    b"v=DMARC1;" + b" " * 60_000 + b"p=none",
    b"v=DMARC1" + b";p=none" * 9000,
    b"v=DMARC1;rua=" + b"mailto:a@b," * 6000,
    b"v=DMARC1;rua=mailto:" + b"%2c" * 20_000,
    b"v" + b"\t" * 60_000 + b"=DMARC1",
]

DMARC_TARGETS = {
    "dmarc record": Target(parse_record, _check_record, _RECORDS, _WORDS),
    "dmarc evaluation": Target(
        _evaluate,
        _check_evaluation,
        [
            *(b"a.example.org\nb.example.org\nexample.org\n\n" + record for record in _RECORDS[:5]),
            b"a.b.example.org\nc.b.example.org\nd.example.org\n!\nv=DMARC1;p=reject\n\nv=spf1|v=DMARC1;p=none;psd=y",
            b"a." * 100 + b"org\n" + b"b." * 100 + b"org\norg\n\n\n\n\n\n\n\nv=DMARC1;p=none",
            b"example.org\nx.example.org\ny.example.org\nv=DMARC1;p=reject\n!!\n!\n",
            b"org\n" * 3 + b"|v=DMARC1;p=" * 5000,
            b"\n\n\n",
        ],
        _WORDS,
        microseconds_per_octet=10,  # a line may be the answer to a dozen queries
    ),
}
