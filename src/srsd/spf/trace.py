"""What an SPF check did, step by step, for those who ask why it ended as it did."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from srsd.resolving import MailExchange
from srsd.syntax.shown import shown

if TYPE_CHECKING:
    from srsd.resolving import Answer

_RECORD_SHOWN = 4000  # octets of a TXT record
_ANSWERS_SHOWN = 12


@dataclass(frozen=True, slots=True)
class Query:
    """One question to DNS and what came back."""

    kind: str
    """TXT, A, AAAA, MX or PTR."""
    name: bytes
    """For PTR: the client's address."""
    answer: Answer[Any]

    def answers(self) -> list[str]:
        """Spell the records of the answer, the first few of many."""
        records = self.answer.records
        spelt = [_spell(record) for record in records[:_ANSWERS_SHOWN]]
        if len(records) > _ANSWERS_SHOWN:
            spelt.append(f"... {len(records) - _ANSWERS_SHOWN} more")
        return spelt


def _spell(record: object) -> str:
    if isinstance(record, MailExchange):
        return f"{record.preference} {shown(record.exchange)}"
    return shown(record, _RECORD_SHOWN) if isinstance(record, bytes) else str(record)


@dataclass(slots=True)
class Step:
    """The fetch of a domain's record, or one term of it."""

    depth: int
    """0 for the domain that is checked, 1 within its includes, and so on."""
    domain: bytes
    """Whose record is looked at."""
    term: bytes
    """The term; b"" for the fetch of the record."""
    queries: list[Query] = field(default_factory=list)
    matched: bool | None = None
    """None where there is no question of a match, or where an error ended the check."""
    why: str = ""

    def as_dict(self) -> dict[str, Any]:
        """Give the step for JSON; every string is printable ASCII."""
        return {
            "depth": self.depth,
            "domain": shown(self.domain),
            "term": shown(self.term, _RECORD_SHOWN),
            "queries": [
                {
                    "type": query.kind,
                    "name": shown(query.name),
                    "outcome": query.answer.outcome.value,
                    "answers": query.answers(),
                    "authenticated": query.answer.authenticated,
                }
                for query in self.queries
            ],
            "matched": self.matched,
            "why": self.why,
        }

    def lines(self) -> list[str]:
        """Give the step as lines for a terminal, indented by its depth."""
        indent = "  " * self.depth
        title = shown(self.term, 200) if self.term else f"record of {shown(self.domain)}"
        word = {True: "match", False: "no match", None: ""}[self.matched]
        end = ", ".join(part for part in (word, self.why) if part)
        lines = [f"{indent}{title}: {end}" if end else f"{indent}{title}"]
        for query in self.queries:
            lines.append(f"{indent}    {query.kind} {shown(query.name)}: {query.answer.outcome.value}")
            lines += [f"{indent}        {answer}" for answer in query.answers()]
        return lines


class Trace:
    """Collects the steps of one check, in the order in which they began."""

    __slots__ = ("_open", "steps")

    def __init__(self) -> None:
        self.steps: list[Step] = []
        self._open: list[Step] = []

    def begin(self, depth: int, domain: bytes, term: bytes = b"") -> None:
        """Begin a step; steps may lie within one another."""
        step = Step(depth, domain, term)
        self.steps.append(step)
        self._open.append(step)

    def asked(self, kind: str, name: bytes, answer: Answer[Any]) -> None:
        """Note a question to DNS in the step that began last and has not ended."""
        if self._open:
            self._open[-1].queries.append(Query(kind, name, answer))

    def end(self, why: str, *, matched: bool | None = None) -> None:
        """End the step that began last."""
        step = self._open.pop()
        step.why = why
        step.matched = matched

    def end_all(self, why: str) -> None:
        """End what is still open, because an error ended the check."""
        while self._open:
            self.end(why)

    def lines(self) -> list[str]:
        """Give all steps as lines for a terminal: printable ASCII, whatever DNS said."""
        return [line for step in self.steps for line in step.lines()]

    def as_dicts(self) -> list[dict[str, Any]]:
        """Give all steps for JSON."""
        return [step.as_dict() for step in self.steps]
