"""The RFC 7208 test-suite (openspf, 2014.04) as it lies beside the checkout: scenarios, zones, cases.

The zone data comes as (name, type) -> values, as FakeResolver takes it, and is as good for filling a real
name server: a TXT value is a list of strings, an Outcome stands where a name answers with a failure. One
TXT record has no strings at all, which no real server can send.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from srsd.resolving import Outcome
from srsd.syntax.address import Address

FILE = Path(__file__).parents[3] / "shared/conformance/spf/rfc7208-tests.yml"
DEFAULT = "DEFAULT"  # the explanation of those who publish none

Zones = dict[tuple[str, str], Any]


@dataclass(frozen=True)
class Case:
    """One test. Several results may be right."""

    scenario: str
    name: str
    helo: str
    client: str
    mail_from: str
    """The reverse-path without angle brackets; "" is the null one."""
    results: tuple[str, ...]
    explanation: str | None
    zones: Zones

    @property
    def sender(self) -> Address | None:
        """The reverse-path as check_mail_from takes it."""
        if not self.mail_from:
            return None
        local_part, _, domain = self.mail_from.encode("latin-1").rpartition(b"@")
        return Address(local_part, domain)

    def __str__(self) -> str:
        return f"{self.scenario}: {self.name}"


def load() -> list[Case]:
    """Read all cases; none where the file is absent."""
    if not FILE.exists():
        return []
    # A byte that is not UTF-8 stands in the YAML as an escape: the strings are octets as Latin-1.
    documents = yaml.safe_load_all(FILE.read_text(encoding="utf-8"))
    return [case for document in documents if document for case in _cases(document)]


def _cases(document: dict[str, Any]) -> list[Case]:
    zones = make_zones(document["zonedata"])
    return [
        Case(
            scenario=document.get("description", ""),
            name=name,
            helo=test["helo"],
            client=str(test["host"]),
            mail_from=test["mailfrom"],
            results=tuple([test["result"]] if isinstance(test["result"], str) else test["result"]),
            explanation=test.get("explanation"),
            zones=zones,
        )
        for name, test in document["tests"].items()
    ]


def make_zones(zonedata: dict[str, list[Any]]) -> Zones:
    """Turn the suite's zone data into values by (name, type).

    Its rules: a record of type SPF stands for TXT too, unless the name has TXT records of its own; TXT NONE
    says that it has none; TIMEOUT answers every type that has no record.
    """
    zones: Zones = {}
    for raw_name, entries in zonedata.items():
        name = str(raw_name).lower().rstrip(".")
        by_type: dict[str, list[Any]] = {}
        for entry in entries:
            if isinstance(entry, dict):
                for kind, value in entry.items():
                    by_type.setdefault(kind, []).append(value)
        texts = by_type.pop("TXT", None)
        old = by_type.pop("SPF", [])
        texts = old if texts is None else [text for text in texts if text != "NONE"]
        if texts:
            by_type["TXT"] = [_strings(text) for text in texts]
        for kind, values in by_type.items():
            zones[name, kind] = [tuple(value) if kind == "MX" else value for value in values]
        if "TIMEOUT" in entries:
            for kind in ("TXT", "A", "AAAA", "MX", "PTR"):
                zones.setdefault((name, kind), Outcome.TIMED_OUT)
        elif not by_type:
            zones[name, "TXT"] = []  # the name exists
    return zones


def _strings(text: str | list[str]) -> list[bytes]:
    """Give the character-strings of a TXT record, cut so that each may go over the wire."""
    strings = [each.encode("latin-1") for each in ([text] if isinstance(text, str) else text)]
    return [each[at : at + 255] for each in strings for at in range(0, len(each) or 1, 255)]
