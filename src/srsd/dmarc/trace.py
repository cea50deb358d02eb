"""What a DMARC evaluation did, step by step, for those who ask why it ended as it did."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from srsd.dmarc.record import DmarcRecord, PublicSuffix, parse_record
from srsd.resolving import Outcome
from srsd.syntax.shown import shown

if TYPE_CHECKING:
    from collections.abc import Sequence

    from srsd.dmarc.outcome import DmarcOutcome, Identifier
    from srsd.resolving import Answer

_NAME_SHOWN = 300  # octets: every name, with _dmarc before it
_RECORD_SHOWN = 1000
_RECORDS_SHOWN = 5


@dataclass(frozen=True, slots=True)
class Query:
    """One TXT query, and what became of its answer."""

    name: bytes
    answer: Answer[bytes] | None
    """None where it was asked before, in another walk."""
    why: str

    def as_dict(self) -> dict[str, Any]:
        """Give the query for JSON; every string is printable ASCII."""
        answer = self.answer
        return {
            "type": "TXT",
            "name": shown(self.name, _NAME_SHOWN),
            "outcome": answer.outcome.value if answer else "asked before",
            "answers": self.answers(),
            "authenticated": answer.authenticated if answer else False,
            "why": self.why,
        }

    def answers(self) -> list[str]:
        """Spell the records of the answer, the first few of many, DMARC records before others."""
        if self.answer is None:
            return []
        records = sorted(self.answer.records, key=lambda text: parse_record(text) is None)
        spelt = [shown(record, _RECORD_SHOWN) for record in records[:_RECORDS_SHOWN]]
        if len(records) > _RECORDS_SHOWN:
            spelt.append(f"... {len(records) - _RECORDS_SHOWN} more")
        return spelt

    def lines(self) -> list[str]:
        """Give the query as lines for a terminal."""
        outcome = self.answer.outcome.value if self.answer else "asked before"
        title = f"    TXT {shown(self.name, _NAME_SHOWN)}: {outcome}"
        return [f"{title}; {self.why}" if self.why else title] + [
            f"        {each}" for each in self.answers()
        ]


@dataclass(slots=True)
class Step:
    """A tree walk, a query of its own, or a decision."""

    title: str
    queries: list[Query] = field(default_factory=list)
    why: str = ""

    def as_dict(self) -> dict[str, Any]:
        """Give the step for JSON; every string is printable ASCII."""
        return {"step": self.title, "queries": [each.as_dict() for each in self.queries], "why": self.why}

    def lines(self) -> list[str]:
        """Give the step as lines for a terminal."""
        title = f"{self.title}: {self.why}" if self.why else self.title
        return [title, *[line for query in self.queries for line in query.lines()]]


class Trace:
    """Collects the steps of a discovery and its evaluation, in the order in which they began."""

    __slots__ = ("steps",)

    def __init__(self) -> None:
        self.steps: list[Step] = []

    def begin(self, what: str, domain: bytes) -> None:
        """Begin a tree walk: whose, and from where."""
        self.steps.append(Step(f"tree walk of {what} {shown(domain, _NAME_SHOWN)}"))

    def asked(self, domain: bytes, answer: Answer[bytes], found: DmarcRecord | Outcome) -> None:
        """Note a query of the walk that began last."""
        doubled = sum(parse_record(text) is not None for text in answer.records) > 1
        why = "several DMARC records, which count as none" if doubled else _meaning(found)
        self.steps[-1].queries.append(Query(b"_dmarc." + domain, answer, why))

    def known(self, domain: bytes, found: DmarcRecord | Outcome) -> None:
        """Note a name of the walk that began last, which needed no query."""
        self.steps[-1].queries.append(Query(b"_dmarc." + domain, None, _meaning(found)))

    def end(self, organizational_domain: bytes, failure: Outcome | None) -> None:
        """Note how the walk that began last ended."""
        if failure is not None:
            why = "DNS did not answer"
        elif organizational_domain:
            why = f"the organizational domain is {shown(organizational_domain, _NAME_SHOWN)}"
        else:
            why = "the organizational domain is not needed"
        self.steps[-1].why = why

    def asked_existence(self, domain: bytes, answer: Answer[bytes]) -> None:
        """Note the query that tells whether np= applies."""
        if answer.outcome.temporary:
            why = "not known"
        else:
            why = "yes" if answer.outcome in (Outcome.FOUND, Outcome.NO_DATA) else "no"
        self.steps.append(Step("does the author domain exist", [Query(domain, answer, "")], why))

    def judged(self, identifier: Identifier, answer: bool | None, why: str) -> None:
        """Note whether an identifier is aligned."""
        word = {True: "aligned", False: "not aligned", None: "not known whether aligned"}[answer]
        self.steps.append(Step(_title(identifier), [], f"{word}, {why}"))

    def decided(self, outcome: DmarcOutcome, identifiers: Sequence[Identifier]) -> None:
        """Note the end, and the identifiers that nothing was asked about."""
        for identifier in identifiers:
            title = _title(identifier)
            if all(step.title != title for step in self.steps):
                self.steps.append(Step(title, [], "not looked at"))
        if outcome.record is not None:
            title = f"the record of {shown(outcome.record_domain, _NAME_SHOWN)} applies"
            self.steps.append(Step(title, [], _policy(outcome)))
        self.steps.append(Step(f"dmarc={outcome.result.value}", [], outcome.reason))

    def lines(self) -> list[str]:
        """Give all steps as lines for a terminal: printable ASCII, whatever DNS said."""
        return [line for step in self.steps for line in step.lines()]

    def as_dicts(self) -> list[dict[str, Any]]:
        """Give all steps for JSON."""
        return [step.as_dict() for step in self.steps]


def _title(identifier: Identifier) -> str:
    return f"{identifier.method} {shown(identifier.domain, _NAME_SHOWN)} {identifier.state.value}"


def _meaning(found: DmarcRecord | Outcome) -> str:
    """Say what an answer means for the walk."""
    if isinstance(found, Outcome):
        return "no DMARC record" if found is Outcome.FOUND else ""
    if found.public_suffix is not PublicSuffix.UNKNOWN:
        return f"a DMARC record; psd={found.public_suffix.value} ends the walk"
    return "a DMARC record"


def _policy(outcome: DmarcOutcome) -> str:
    if outcome.published is None or outcome.policy is None:
        return (
            "its policy is not known" if outcome.record and not outcome.record.flaw else "it asks for nothing"
        )
    if not outcome.record or not outcome.record.policy_tags:
        return "it has no valid policy, but an address for reports, so its policy is none"
    text = f"{outcome.policy_tag}={outcome.published.value}"
    lowered = outcome.policy is not outcome.published
    return f"{text}, lowered to {outcome.policy.value} by t=y" if lowered else text
