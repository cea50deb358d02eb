"""Asks dkimpy and pyspf, in a process of its own: what a hostile message does to them ends with it.

A question comes as JSON on standard input, the answers of DNS are in the file that is the argument, and what
they say goes to standard output as JSON. What DNS was not asked by then is said: it is asked, and this again.
"""

from __future__ import annotations

import asyncio
import json
import re
import sys
import warnings
from importlib import import_module
from importlib.util import find_spec
from ipaddress import ip_address
from types import SimpleNamespace
from typing import Any

from srsd.cli.dns_answers import KeptAnswers
from srsd.resolving import Answer, Outcome

_RESULT_MAXIMUM = 200  # characters of what they say
_IPV6_NIBBLES = re.compile(r"(?:[0-9a-f]\.){32}ip6\.arpa")


class _MissingError(Exception):
    """DNS was not asked yet."""


class _Answers:
    def __init__(self, kept: KeptAnswers) -> None:
        self._kept = kept
        self.missing: list[list[str]] = []

    def ask(self, kind: str, name: str) -> Answer[Any]:
        """Give an answer. Raises _MissingError."""
        octets = name.rstrip(".").encode()
        before = len(self._kept.missing)
        match kind:
            case "TXT":
                answer: Answer[Any] = asyncio.run(self._kept.txt(octets))
            case "A":
                answer = asyncio.run(self._kept.ipv4(octets))
            case "AAAA":
                answer = asyncio.run(self._kept.ipv6(octets))
            case "MX":
                answer = asyncio.run(self._kept.mx(octets))
            case "PTR":
                answer = asyncio.run(self._kept.ptr(_address(name)))
                name = str(_address(name))
            case _:
                return Answer(Outcome.NO_DATA)
        if len(self._kept.missing) > before:
            self.missing.append([kind, name.rstrip(".")])
            raise _MissingError
        return answer


def _address(name: str) -> Any:  # noqa: ANN401 - one of two
    labels = name.lower().rstrip(".").split(".")
    if _IPV6_NIBBLES.fullmatch(name.lower().rstrip(".")):
        digits = "".join(reversed(labels[:32]))
        return ip_address(":".join(digits[at : at + 4] for at in range(0, 32, 4)))
    return ip_address(".".join(reversed(labels[:4])))


def _ask_dkimpy(question: dict[str, Any], answers: _Answers) -> list[dict[str, Any]]:
    """Ask about each signature."""
    dkim: Any = import_module("dkim")
    dkim.time = SimpleNamespace(time=lambda: question["now"])  # it asks the clock itself
    with open(question["message"], "rb") as file:
        message = file.read()

    def look_up(name: bytes, **_: object) -> bytes | None:
        answer = answers.ask("TXT", name.decode("latin-1") if isinstance(name, bytes) else name)
        if answer.outcome.temporary:
            raise dkim.DKIMException(f"DNS: {answer.outcome.value}")
        return answer.records[0] if answer.records else None

    found = []
    for index, algorithm in enumerate(question["algorithms"]):
        if algorithm == "ed25519-sha256" and find_spec("nacl") is None:
            found.append({"result": None, "text": "not asked: it needs PyNaCl for Ed25519"})
            continue
        try:
            passed, text = bool(dkim.DKIM(message).verify(index, look_up)), ""
        except Exception as error:  # noqa: BLE001 - it raises whatever comes: no pass
            passed, text = False, f"{type(error).__name__}: {error}"[:_RESULT_MAXIMUM]
        found.append({"result": "pass" if passed else "fail", "text": text})
    return found


def _ask_pyspf(question: dict[str, Any], answers: _Answers) -> list[dict[str, Any]]:
    """Ask about each identity."""
    spf: Any = import_module("spf")

    def look_up(name: str, kind: str, *_: object, **__: object) -> list[Any]:
        try:
            answer = answers.ask(kind, name)
        except ValueError:  # the name is none
            return []
        if answer.outcome.temporary:
            raise spf.TempError(f"DNS {answer.outcome.value}")
        return [((name, kind), _record(kind, record)) for record in answer.records]

    spf.DNSLookup = look_up
    found = []
    for each in question["identities"]:
        query = spf.query(each["client"], each["sender"], each["helo"], receiver=question["receiver"])
        query.t = str(question["now"])
        try:
            result, _, text = query.check()
        except _MissingError:
            result, text = None, "DNS was not asked"
        except Exception as error:  # noqa: BLE001 - whatever it raises is not ours to judge
            result, text = "error", f"{type(error).__name__}: {error}"
        found.append({"result": result, "text": str(text)[:_RESULT_MAXIMUM]})
    return found


def _record(kind: str, record: Any) -> Any:  # noqa: ANN401 - as its DNS library gives it
    if kind == "TXT":
        return (record,)
    if kind == "MX":
        return record.preference, record.exchange.decode("latin-1")
    return record.decode("latin-1") if isinstance(record, bytes) else str(record)


def main() -> None:
    """Answer one question."""
    warnings.simplefilter("ignore")  # those of their sources
    question = json.load(sys.stdin)
    answers = _Answers(KeptAnswers.read(sys.argv[1]))
    told = {"dkim": _ask_dkimpy(question, answers), "spf": _ask_pyspf(question, answers)}
    json.dump({**told, "missing": answers.missing}, sys.stdout)


if __name__ == "__main__":
    main()
