"""DNS from a dictionary: what the evaluators are tested with, without a network.

resolver = FakeResolver({
    ("example.org", "TXT"): ["v=spf1 mx -all"],
    ("example.org", "MX"): [(10, "mail.example.org")],
    ("mail.example.org", "A"): ["192.0.2.1"],
    ("broken.example", "TXT"): Outcome.SERVER_FAILURE,
    ("two.example", "TXT"): [[b"the strings ", b"of one record"]],
    ("alias.example", "CNAME"): ["example.org"],
})
"""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address
from typing import TYPE_CHECKING, Any

from srsd.resolving import Answer, MailExchange, Outcome

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping


def _octets(value: str | bytes) -> bytes:
    return value.encode() if isinstance(value, str) else value


def _name(value: str | bytes) -> bytes:
    """Give a name as answers have it: in lower case, without a trailing dot."""
    return _octets(value).lower().removesuffix(b".")


def _text(value: str | bytes | list[str | bytes]) -> bytes:
    return b"".join(_octets(each) for each in value) if isinstance(value, list) else _octets(value)


_MAKE: dict[str, Callable[[Any], Any]] = {
    "TXT": _text,
    "A": IPv4Address,
    "AAAA": IPv6Address,
    "MX": lambda value: MailExchange(value[0], _name(value[1])),
    "PTR": _name,
}
_CNAMES_MAXIMUM = 8


class FakeResolver:
    """Answers from zones, keeps a list of what was asked: (name, type)."""

    def __init__(self, zones: Mapping[tuple[str, str], Any]) -> None:
        """Take records by (name, type): a list of values as in a zone file, or an Outcome."""
        self._zones = {(name.lower().rstrip("."), kind): value for (name, kind), value in zones.items()}
        self._names = {name for name, _ in self._zones}
        self.asked: list[tuple[str, str]] = []

    @property
    def queries(self) -> int:
        """How often it was asked."""
        return len(self.asked)

    seconds = 0.0
    """It never waits."""

    def _answer(self, name: bytes, kind: str) -> Answer[Any]:
        text = name.decode(errors="surrogateescape").lower().removesuffix(".")
        self.asked.append((text, kind))
        if len(name) > 253 or any(not 0 < len(label) < 64 for label in text.split(".")):
            return Answer(Outcome.NOT_A_NAME)
        for _ in range(_CNAMES_MAXIMUM):
            alias = self._zones.get((text, "CNAME"))
            if alias is None:
                break
            text = _name(alias[0]).decode(errors="surrogateescape")
        else:
            return Answer(Outcome.UNUSABLE)  # a loop
        value = self._zones.get((text, kind))
        if isinstance(value, Outcome):
            return Answer(value)
        if value:
            return Answer(Outcome.FOUND, tuple(_MAKE[kind](each) for each in value), ttl=300)
        exists = text in self._names or any(each.endswith("." + text) for each in self._names)
        return Answer(Outcome.NO_DATA if exists else Outcome.NX_DOMAIN)

    async def txt(self, name: bytes) -> Answer[bytes]:
        return self._answer(name, "TXT")

    async def ipv4(self, name: bytes) -> Answer[IPv4Address]:
        return self._answer(name, "A")

    async def ipv6(self, name: bytes) -> Answer[IPv6Address]:
        return self._answer(name, "AAAA")

    async def mx(self, name: bytes) -> Answer[MailExchange]:
        return self._answer(name, "MX")

    async def ptr(self, address: IPv4Address | IPv6Address) -> Answer[bytes]:
        return self._answer(address.reverse_pointer.encode(), "PTR")
