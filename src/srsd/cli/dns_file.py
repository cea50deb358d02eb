"""Answers of DNS from a file: zone lines of TXT records, or what srsctl explain --record wrote."""

from __future__ import annotations

import re
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from srsd.cli.dns_answers import KeptAnswers, live_answers
from srsd.cli.mail import exit_no, shown_path
from srsd.resolving import Answer, Outcome

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from srsd.resolving import DnsParameters

_SIZE_MAXIMUM = 5_000_000  # octets
# NAME [TTL] [CLASS] TXT, strings, perhaps in parentheses. Zone files may have either order of the two.
_LINE = re.compile(
    rb"(\S{1,300})[ \t]{1,50}(?:[0-9]{1,10}[smhdw]?[ \t]{1,50}|IN[ \t]{1,50}){0,2}TXT[ \t](.*)", re.IGNORECASE
)
_STRING = re.compile(rb'[ \t]*(?:"((?:[^"\\]|\\.)*)"|([^\s"();][^\s"();]*))')
_CODE = re.compile(rb'(?:[^";]|"(?:[^"\\]|\\.)*")*')  # all before a comment
_ESCAPE = re.compile(rb"\\([0-9]{3}|.)", re.DOTALL)


class ZoneAnswers(KeptAnswers):
    """Zone lines that stand for all of DNS, as far as TXT goes: another name does not exist."""

    def __init__(self, records: dict[bytes, list[bytes]]) -> None:
        super().__init__(None)
        self._records = records
        self.without: list[str] = []
        """Names that were asked for and are not in the file."""

    async def txt(self, name: bytes) -> Answer[bytes]:
        """Answer from the lines."""
        records = self._records.get(name.lower().removesuffix(b"."))
        key = ("TXT", name.lower().removesuffix(b"."))
        answer: Answer[Any] = Answer(Outcome.FOUND, tuple(records)) if records else Answer(Outcome.NX_DOMAIN)
        if key not in self._answers and not records:
            self.without.append(name.decode("latin-1"))
        self._answers[key] = answer
        return answer


def read_dns_file(path: str) -> KeptAnswers:
    """Read a file of either kind, or exit 1 with one line."""
    try:
        with open(path, "rb") as file:
            text = file.read(_SIZE_MAXIMUM + 1)
        if text.lstrip().startswith(b"{"):
            return KeptAnswers.read(path)
        if len(text) > _SIZE_MAXIMUM:
            raise ValueError(f"has more than {_SIZE_MAXIMUM:,} octets")
        return ZoneAnswers(parse_zone_lines(text))
    except OSError as error:
        exit_no(f"{shown_path(path)}: cannot be read: {error.strerror or error}")
    except ValueError as error:
        exit_no(f"{shown_path(path)}: has no answers of DNS: {error}")


def parse_zone_lines(text: bytes) -> dict[bytes, list[bytes]]:
    """Read lines `NAME IN TXT "..." "..."`. Others are passed over: `srsctl dkim record` prints more.

    Raises ValueError where there is none at all, or one cannot be read.
    """
    records: dict[bytes, list[bytes]] = {}
    lines = iter(enumerate(text.splitlines(), 1))
    for number, line in lines:
        found = _LINE.fullmatch(line.strip())
        if not found or line.lstrip().startswith(b";"):
            continue
        rest = _without_comment(found[2]).strip()
        if rest.startswith(b"("):
            pieces = [rest[1:]]
            while not pieces[-1].rstrip().endswith(b")"):
                _, more = next(lines, (0, None))
                if more is None:
                    raise ValueError(f"line {number}: no closing parenthesis")
                pieces.append(_without_comment(more))
            rest = b" ".join(pieces).rstrip()[:-1]
        records.setdefault(found[1].lower().removesuffix(b"."), []).append(_parse_strings(rest, number))
    if not records:
        raise ValueError('no line is NAME TXT "..."')
    return records


def _without_comment(line: bytes) -> bytes:
    code = _CODE.match(line)
    end = code.end() if code else 0
    return line[:end] if line.startswith(b";", end) else line


def _parse_strings(text: bytes, number: int) -> bytes:
    strings = []
    at = 0
    while string := _STRING.match(text, at):
        strings.append(_ESCAPE.sub(_unescape, string[1] if string[1] is not None else string[2]))
        at = string.end()
    if not strings or text[at:].strip():
        raise ValueError(f"line {number}: not strings in quotes")
    return b"".join(strings)


def _unescape(found: re.Match[bytes]) -> bytes:
    return bytes([int(found[1]) & 0xFF]) if len(found[1]) == 3 else found[1]


@asynccontextmanager
async def answers_of(kept: KeptAnswers | None, parameters: DnsParameters) -> AsyncIterator[KeptAnswers]:
    """Give the answers of a file, or ask DNS."""
    if kept is not None:
        yield kept
    else:
        async with live_answers(parameters) as answers:
            yield answers
