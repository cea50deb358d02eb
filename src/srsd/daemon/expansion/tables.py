"""Lists of Postfix's lookup tables, and their order: what maps_find and match_list of Postfix do."""

from __future__ import annotations

import asyncio
from enum import Enum
from typing import TYPE_CHECKING, NamedTuple, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from srsd.daemon.expansion.addresses import Key

# Tables of patterns, and those that Postfix asks for whole addresses only, as it does them.
_WHOLE_KEYS_ONLY = frozenset({"regexp", "pcre", "cidr", "tcp", "socketmap", "randmap"})
_WITH_MEMBERS = ("unionmap:", "pipemap:")


class LookupFailedError(Exception):
    """A table could not be asked. The text says which, and why."""


class Asker(Protocol):
    """Whoever has Postfix's tables asked."""

    async def ask(self, table: str, keys: Sequence[bytes]) -> dict[bytes, bytes]:
        """Look keys up in a table, `type:name`; gives what was found. Raises LookupFailedError."""
        ...

    async def read(self, path: str) -> bytes:
        """Read a file. Raises LookupFailedError."""
        ...


def split_list(text: str) -> list[str]:
    """Part a parameter's value at blanks and commas, but not within braces: `inline:{ {a = b} }` is one."""
    words: list[str] = []
    word, depth = "", 0
    for character in text:
        if depth == 0 and (character.isspace() or character == ","):
            if word:
                words.append(word)
            word = ""
            continue
        depth += (character == "{") - (character == "}")
        word += character
    return [*words, word] if word else words


def wants_whole_keys(table: str) -> bool:
    """Tell whether a table is not asked for parts of addresses."""
    for prefix in _WITH_MEMBERS:
        if table.startswith(prefix):
            members = split_list(table.removeprefix(prefix).strip().removeprefix("{").removesuffix("}"))
            return bool(members) and wants_whole_keys(members[0])
    return table.partition(":")[0] in _WHOLE_KEYS_ONLY


def plain(table: str) -> str:
    """Leave out `proxy:`: its server answers nobody but Postfix, and has the same table."""
    while table.startswith("proxy:"):
        table = table.removeprefix("proxy:")
    return table


class Found(NamedTuple):
    """What a list of tables has for an address."""

    value: bytes
    key: Key
    table: str


class TableList:
    """Tables that are asked one after the other, for each key again."""

    def __init__(
        self, text: str, asker: Asker, *, default_type: str = "hash", only_srs: Iterable[str] = ()
    ) -> None:
        """Read a list of tables. only_srs are those that have nothing but SRS addresses: our own."""
        tables = [plain(table) for table in split_list(text)]
        self._tables = [table if ":" in table else f"{default_type}:{table}" for table in tables]
        self._asker = asker
        self._only_srs = frozenset(only_srs)

    def __bool__(self) -> bool:
        """Tell whether there is any table."""
        return bool(self._tables)

    async def find(self, keys: Sequence[Key], *, is_srs: bool = False) -> Found | None:
        """Look keys up: the first key that the first of the tables has. Raises LookupFailedError.

        All tables are asked at once. That one did not answer matters only where Postfix would ask it, too.
        """
        tables = [table for table in self._tables if is_srs or table not in self._only_srs]
        answers = await asyncio.gather(*[self._ask(table, keys) for table in tables])
        for key in keys:
            for table, answer in zip(tables, answers, strict=True):
                if key.partial and wants_whole_keys(table):
                    continue
                if isinstance(answer, LookupFailedError):
                    raise answer
                value = answer.get(key.text)
                if value is not None:
                    return Found(value, key, table)
        return None

    async def _ask(self, table: str, keys: Sequence[Key]) -> dict[bytes, bytes] | LookupFailedError:
        whole = wants_whole_keys(table)
        texts = [key.text for key in keys if not (whole and key.partial)]
        try:
            return await self._asker.ask(table, texts) if texts else {}
        except LookupFailedError as error:
            return error


class Parents(Enum):
    """Whether the domains below one in a list belong, too."""

    NO = "only the domain itself"
    DOTTED = "with a pattern .domain"
    ALL = "with the pattern domain"  # parent_domain_matches_subdomains


class DomainList:
    """A list of domains as mydestination is: names, tables, files, `!` for not. The first match holds."""

    def __init__(self, text: str, asker: Asker, parents: Parents = Parents.NO) -> None:
        self._patterns = split_list(text)
        self._asker = asker
        self._parents = parents

    async def matches(self, domain: str) -> bool:
        """Tell whether a domain in lower case belongs. Raises LookupFailedError."""
        return bool(await self._match(self._patterns, domain, frozenset()))

    async def _match(self, patterns: list[str], domain: str, within: frozenset[str]) -> bool | None:
        """Find the first pattern that fits: True, False if it says not, None without one."""
        for pattern in patterns:
            wanted = not (len(pattern) - len(pattern.lstrip("!"))) % 2
            bare = pattern.lstrip("!")
            if bare.startswith("/") and bare not in within:
                lines = (await self._asker.read(bare)).decode(errors="replace").splitlines()
                texts = [line for line in lines if not line.lstrip().startswith("#")]
                inner = await self._match(split_list(" ".join(texts)), domain, within | {bare})
                if inner is not None:
                    return inner is wanted
            elif ":" in bare and not bare.startswith("["):
                keys = [key.encode() for key in self._keys(domain)]
                if await self._asker.ask(plain(bare), keys):
                    return wanted
            elif bare.lower() in self._keys(domain):
                return wanted
        return None

    def _keys(self, domain: str) -> Iterator[str]:
        """Give the keys by which a domain is in a list."""
        yield domain
        if self._parents is Parents.NO or domain.startswith("["):
            return
        _, _, parent = domain.partition(".")
        while parent:
            yield f".{parent}" if self._parents is Parents.DOTTED else parent
            _, _, parent = parent.partition(".")
