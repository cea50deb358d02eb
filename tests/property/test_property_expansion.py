"""Aliases of any shape beside a plain reading of virtual(5) and aliases(5)."""

from __future__ import annotations

import asyncio

from hypothesis import given, settings
from hypothesis import strategies as st

from harness.postfix_tables import Tables
from harness.postfix_tables import settings as postfix_settings
from srsd.daemon.expansion.addresses import parse_list, split_extension
from srsd.daemon.expansion.tables import LookupFailedError
from srsd.daemon.expansion.walk import Routes

USERS = st.sampled_from(["a", "b", "c", "a+x", "b+y"])
DOMAINS = st.sampled_from(["here.example", "v.example", "w.example", "far.example"])
ADDRESSES = st.builds("{}@{}".format, USERS, DOMAINS)
VIRTUAL_KEYS = st.one_of(ADDRESSES, USERS, st.builds("@{}".format, DOMAINS))
VIRTUAL_RESULTS = st.one_of(
    st.lists(ADDRESSES, min_size=1, max_size=3).map(", ".join), st.builds("@{}".format, DOMAINS)
)
VIRTUAL = st.dictionaries(VIRTUAL_KEYS, VIRTUAL_RESULTS, max_size=6)
ALIASES = st.dictionaries(USERS, st.lists(st.one_of(USERS, ADDRESSES), min_size=1, max_size=3), max_size=4)
LOCAL = ("here.example", "mx.here.example")  # the second is myorigin
VIRTUAL_DOMAINS = ("v.example", "w.example")
DEPTH = 30


class EndlessError(Exception):
    """Aliases in a circle."""


def look_up(virtual: dict[str, str], address: str) -> list[str] | None:
    """virtual(5), TABLE SEARCH ORDER and RESULT FORMAT; the unmatched extension is propagated."""
    local_part, _, domain = address.partition("@")
    user, plus, extension = local_part.partition("+")
    keys = [(address, "")]
    if plus:
        keys.append((f"{user}@{domain}", plus + extension))
    if domain in LOCAL:
        keys.append((local_part, ""))
        if plus:
            keys.append((user, plus + extension))
    keys.append((f"@{domain}", ""))
    for key, left_over in keys:
        if key not in virtual:
            continue
        if virtual[key].startswith("@"):
            # The same user in the other domain; what was left over of the address stays, once.
            return [local_part + virtual[key]]
        results = [each.partition("@") for each in virtual[key].split(", ")]
        return [f"{local}{left_over}@{domain}" for local, _, domain in results]
    return None


def expand(
    virtual: dict[str, str], address: str, depth: int = 0, done: frozenset[str] = frozenset()
) -> set[str]:
    """Expand again and again, until an address is not there, or stands for itself."""
    if depth > DEPTH:
        raise EndlessError
    results = None if address in done else look_up(virtual, address)
    if results is None:
        return {address}
    if address in results:
        done |= {address}
    return set().union(*[expand(virtual, each, depth + 1, done) for each in results])


def routes_of(virtual: dict[str, str], aliases: dict[str, list[str]]) -> Routes:
    tables = {"hash:virtual": virtual, "hash:aliases": {name: ", ".join(to) for name, to in aliases.items()}}
    parameters = postfix_settings(
        virtual_alias_domains=", ".join(VIRTUAL_DOMAINS),
        virtual_alias_recursion_limit=str(DEPTH),
        virtual_alias_expansion_limit="100000",
    )
    return Routes(parameters, Tables(tables))


@settings(max_examples=500)
@given(VIRTUAL, ADDRESSES)
def test_virtual_aliases_lead_where_virtual_5_says(virtual, address):
    routes = routes_of(virtual, {})
    try:
        expected = expand(virtual, address)
    except (EndlessError, RecursionError):
        expected = None
    try:
        found = asyncio.run(routes.virtual(routes.address(address.encode())))
    except LookupFailedError:
        assert expected is None
        return
    if expected is not None:
        assert {b"@".join(each).decode() for each in found} == expected


def leaves(virtual: dict[str, str], aliases: dict[str, list[str]], address: str) -> bool:
    """Tell whether any address that can be reached is neither local nor of a virtual domain."""
    seen: set[tuple[str, str, bool]] = set()

    def follow(address: str, within: str, local: bool) -> bool:
        if (address, within, local) in seen:
            return False
        seen.add((address, within, local))
        if not local:
            results = expand(virtual, address)
            domains = {each: each.partition("@")[2] for each in results}
            if any(domain not in (*LOCAL, *VIRTUAL_DOMAINS) for domain in domains.values()):
                return True
            return any(follow(each, "", True) for each in results if domains[each] in LOCAL)
        # aliases(5): the user with the extension first, then without; an alias for itself is the user.
        local_part = address.partition("@")[0]
        user = local_part.partition("+")[0]
        names = [name for name in dict.fromkeys((local_part, user)) if name in aliases and name != within]
        if not names:
            return False
        targets = [each if "@" in each else f"{each}@mx.here.example" for each in aliases[names[0]]]
        return any(
            follow(each, names[0] if local else "", local)
            for each in targets
            for local in (each.partition("@")[2] in LOCAL,)
        )

    return follow(address, "", False)


@settings(max_examples=500)
@given(VIRTUAL, ALIASES, ADDRESSES)
def test_mail_leaves_if_anything_that_is_reached_does(virtual, aliases, address):
    try:
        expected = leaves(virtual, aliases, address)
    except (EndlessError, RecursionError):
        return
    try:
        walked = asyncio.run(routes_of(virtual, aliases).follow(address.encode()))
    except LookupFailedError:
        raise AssertionError("no circle, and yet no end") from None
    assert bool(walked.leaves) is expected


@given(st.lists(ADDRESSES), st.sampled_from([",", ", ", " , ", "\n ", ",\t", ",,"]))
def test_lists_of_addresses_come_back(addresses, separator):
    assert parse_list(separator.join(addresses).encode()) == [each.encode() for each in addresses]


@given(st.one_of(st.binary(max_size=60), st.text('"\\()<>,@ a.|/:;[]').map(str.encode)))
def test_any_octets_are_a_list(text):
    assert all(parse_list(text))


@given(st.binary(), st.sampled_from([b"+", b"-", b"+-", b""]))
def test_extensions_are_what_was_cut_off(local_part, delimiters):
    user, extension = split_extension(local_part, delimiters)
    if extension:
        assert user
        assert local_part in {user + bytes((each,)) + extension for each in delimiters}
    else:
        assert user == local_part
