"""DNS answers that are kept: for one run, or in a file, so that a case can be looked at again without DNS."""

from __future__ import annotations

import json
import time
from contextlib import asynccontextmanager
from ipaddress import IPv4Address, IPv6Address
from typing import TYPE_CHECKING, Any

from srsd.daemon.dns.message_resolver import MessageResolver
from srsd.daemon.dns.resolver import StubResolver
from srsd.resolving import Answer, MailExchange, NotCachedError, Outcome

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from srsd.filter.rules import CountingResolver
    from srsd.resolving import DnsParameters, IpAddress, Resolver

_VERSION = 1
_FORMAT = "srsd DNS answers"
_SIZE_MAXIMUM = 50_000_000  # octets


class KeptAnswers:
    """A Resolver (srsd.resolving) that asks each question once. Without another one to ask, it only replays.

    A question that it cannot answer gets TIMED_OUT then, and a place in missing.
    """

    def __init__(self, resolver: CountingResolver | None, now: int | None = None) -> None:
        self._resolver = resolver
        self._answers: dict[tuple[str, bytes], Answer[Any]] = {}
        self.now = int(time.time()) if now is None else now
        """Seconds since 1970: when the answers were asked for. Signatures expire by it."""
        self.missing: list[str] = []

    async def _ask(
        self, kind: str, name: bytes, ask: Callable[[Resolver], Awaitable[Answer[Any]]]
    ) -> Answer[Any]:
        key = (kind, name.lower().removesuffix(b"."))
        answer = self._answers.get(key)
        if answer is None:
            if self._resolver is None:
                self.missing.append(f"{kind} {_text(name)}")
                answer = Answer(Outcome.TIMED_OUT)
            else:
                answer = await ask(self._resolver)
            self._answers[key] = answer
        return answer

    async def txt(self, name: bytes) -> Answer[bytes]:
        """Ask for TXT."""
        return await self._ask("TXT", name, lambda resolver: resolver.txt(name))

    async def ipv4(self, name: bytes) -> Answer[IPv4Address]:
        """Ask for A."""
        return await self._ask("A", name, lambda resolver: resolver.ipv4(name))

    async def ipv6(self, name: bytes) -> Answer[IPv6Address]:
        """Ask for AAAA."""
        return await self._ask("AAAA", name, lambda resolver: resolver.ipv6(name))

    async def mx(self, name: bytes) -> Answer[MailExchange]:
        """Ask for MX."""
        return await self._ask("MX", name, lambda resolver: resolver.mx(name))

    async def ptr(self, address: IpAddress) -> Answer[bytes]:
        """Ask for PTR."""
        return await self._ask("PTR", str(address).encode(), lambda resolver: resolver.ptr(address))

    @property
    def queries(self) -> int:
        """Tell how many different questions were asked, or are in the file."""
        return len(self._answers)

    @property
    def seconds(self) -> float:
        """Seconds in which an answer of DNS was awaited: none where they come from a file."""
        return self._resolver.seconds if self._resolver is not None else 0.0

    def write(self, path: str) -> None:
        """Write all answers to a file. Raises OSError."""
        answers = [
            {
                "type": kind,
                "name": _text(name),
                "outcome": answer.outcome.name.lower(),
                "records": [_spell(record) for record in answer.records],
                "authenticated": answer.authenticated,
            }
            for (kind, name), answer in self._answers.items()
        ]
        document = {"format": _FORMAT, "version": _VERSION, "now": self.now, "answers": answers}
        with open(path, "w", encoding="ascii") as file:
            file.write(json.dumps(document, indent=2) + "\n")

    @classmethod
    def read(cls, path: str) -> KeptAnswers:
        """Read the answers of a file. Raises OSError, or ValueError for what write does not write."""
        with open(path, "rb") as file:
            text = file.read(_SIZE_MAXIMUM + 1)
        if len(text) > _SIZE_MAXIMUM:
            raise ValueError("too big")
        try:
            document = json.loads(text)
            if (document["format"], document["version"]) != (_FORMAT, _VERSION):
                raise ValueError("another format or version")
            kept = cls(None, int(document["now"]))
            for each in document["answers"]:
                records = tuple(_PARSE[each["type"]](record) for record in each["records"])
                answer = Answer(Outcome[each["outcome"].upper()], records, each["authenticated"] is True)
                if bool(records) != (answer.outcome is Outcome.FOUND):
                    raise ValueError(f"{each['name']}: only what is found has records")
                kept._answers[each["type"], _octets(each["name"])] = answer
        except (KeyError, TypeError, AttributeError, IndexError, RecursionError, OverflowError) as error:
            raise ValueError(f"{type(error).__name__} {error}") from None
        return kept


class NoAnswers(KeptAnswers):
    """The cache of a filter that has seen nothing yet."""

    def __init__(self) -> None:
        super().__init__(None)

    async def _ask(self, *_: object) -> Answer[Any]:
        raise NotCachedError


def _text(octets: bytes) -> str:
    """Spell octets for JSON: each is the character of the same number, so that none gets lost."""
    return octets.decode("latin-1")


def _octets(text: str) -> bytes:
    return text.encode("latin-1")


def _spell(record: object) -> object:
    if isinstance(record, MailExchange):
        return [record.preference, _text(record.exchange)]
    return _text(record) if isinstance(record, bytes) else str(record)


_PARSE: dict[str, Callable[[Any], Any]] = {
    "TXT": _octets,
    "A": IPv4Address,
    "AAAA": IPv6Address,
    "MX": lambda record: MailExchange(int(record[0]), _octets(record[1])),
    "PTR": _octets,
}


@asynccontextmanager
async def live_answers(parameters: DnsParameters) -> AsyncIterator[KeptAnswers]:
    """Ask DNS as the daemon does for one message, with its limits."""
    resolver = StubResolver(parameters)
    try:
        yield KeptAnswers(MessageResolver(resolver, deadline=parameters.message_deadline))
    finally:
        await resolver.close()
