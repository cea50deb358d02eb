"""The ARC test-suite (ValiMail/arc_test_suite) as it lies beside the checkout: messages, keys, what is right."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import yaml

from srsd.resolving import Answer, Outcome
from srsd.syntax.header import Message, parse_message

SUITE = Path(__file__).parents[3] / "shared/conformance/arc"
VALIDATION = SUITE / "arc-draft-validation-tests.yml"
SIGNING = SUITE / "arc-draft-sign-tests.yml"


class ValidationCase(NamedTuple):
    scenario: str
    name: str
    content: bytes
    status: str  # "pass", "fail", "none"; "" for a chain that has ended with cv=fail
    answers: dict[bytes, Answer[bytes]]

    @property
    def message(self) -> Message:
        return parse_message(self.content)

    def __str__(self) -> str:
        return self.name


class SigningCase(NamedTuple):
    scenario: str
    name: str
    content: bytes
    answers: dict[bytes, Answer[bytes]]
    domain: bytes
    selector: bytes
    private_key: bytes
    time: int
    signed_fields: tuple[bytes, ...]
    authserv_id: bytes
    seal: bytes  # the values of the fields that are right; b"" where nothing is to be added
    message_signature: bytes
    authentication_results: bytes

    @property
    def message(self) -> Message:
        return parse_message(self.content)

    def __str__(self) -> str:
        return self.name


class _Loader(yaml.SafeLoader):
    """Keeps tests apart that have the same name, which YAML does not."""


def _construct_tests(loader: _Loader, node: yaml.MappingNode) -> dict[str, Any]:
    made: dict[str, Any] = {}
    for key_node, value_node in node.value:
        key = loader.construct_object(key_node, deep=True)
        while key in made:
            key += "_again"
        made[key] = loader.construct_object(value_node, deep=True)
    return made


_Loader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _construct_tests)


def _documents(file: Path) -> list[dict[str, Any]]:
    if not file.exists():
        return []
    return list(yaml.load_all(file.read_text("utf-8"), _Loader))


def _answers(document: dict[str, Any]) -> dict[bytes, Answer[bytes]]:
    records = document["txt-records"]
    return {
        name.encode(): Answer(Outcome.FOUND, ("".join(text.split("\n")).encode(),))
        for name, text in records.items()
    }


def _content(test: dict[str, Any]) -> bytes:
    return test["message"].encode().replace(b"\n", b"\r\n")


def validation_cases() -> list[ValidationCase]:
    return [
        ValidationCase(
            document["description"],
            name,
            _content(test),
            "none" if test["cv"] is None else test["cv"].lower(),
            _answers(document),
        )
        for document in _documents(VALIDATION)
        for name, test in document["tests"].items()
    ]


def _folded(text: str) -> bytes:
    return (" " + "\r\n\t".join(line.strip() for line in text.strip().splitlines())).encode()


def _standardized(text: str) -> bytes:
    """Undo the folding for print: the suite's signatures cover tags with one blank between them, and no more."""
    return (" " + "; ".join("".join(tag.split()) for tag in text.split(";"))).encode()


def signing_cases() -> list[SigningCase]:
    return [
        SigningCase(
            document["description"],
            name,
            _content(test),
            _answers(document),
            document["domain"].encode(),
            document["sel"].encode(),
            document["privatekey"].encode(),
            test["t"],
            tuple(test["sig-headers"].encode().split(b":")),
            test["srv-id"].encode(),
            _standardized(test["AS"]).rstrip(),
            _standardized(test["AMS"]).rstrip(),
            _folded(test["AAR"]).rstrip(),
        )
        for document in _documents(SIGNING)
        for name, test in document["tests"].items()
    ]
