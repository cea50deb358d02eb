"""The exclusion map: whose mail is left alone, and in what.

The text is what Postfix's postmap(1) takes, so that the list of a pfix-srsd set-up works as it is:

    # pattern           what is skipped
    @example.com        @example.com
    alice@example.org   srs, spf
    .example.net        all
    192.0.2.0/24        dkim, dmarc
"""

from __future__ import annotations

import re
from enum import StrEnum
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_network
from typing import TYPE_CHECKING, TypeVar

from srsd.errors import ConfigError, Fault
from srsd.syntax.address import parse_address
from srsd.syntax.domain import fold_domain, parents, parse_domain

if TYPE_CHECKING:
    from collections.abc import Iterator


class Skip(StrEnum):
    """What an entry switches off."""

    SRS = "srs"
    SPF = "spf"
    DKIM = "dkim"
    DMARC = "dmarc"
    ARC = "arc"
    SIGN = "sign"


_Key = TypeVar("_Key")
_NOTHING: frozenset[Skip] = frozenset()
_PATTERN_HELP = "would be right: address, @domain, domain, .domain, IP address or network"
_WORDS = {skip.value: frozenset({skip}) for skip in Skip} | {"all": frozenset(Skip)}
_BLANKS = " \t\r\v\f"  # isspace(3) of postmap(1); other blanks of Unicode are letters like any
_MAPPED_PREFIX_LENGTH = 96  # ::ffff:0:0/96, RFC 4291 §2.5.5.2
# The first word of a line; quotes keep blanks together, as in postmap(1).
_PATTERN = re.compile(r'((?:[^\s"\\]|\\.|"(?:[^"\\]|\\.)*")+)(?:\s+(.*))?', re.DOTALL | re.ASCII)


class ExclusionMap:
    """A parsed exclusion map. All matching lines add up."""

    def __init__(self) -> None:
        self._addresses: dict[tuple[bytes, bytes | None], frozenset[Skip]] = {}
        self._domains: dict[bytes, frozenset[Skip]] = {}
        self._subdomains: dict[bytes, frozenset[Skip]] = {}
        # By IP version and prefix length: a look at a client costs one step for each length in use.
        self._networks: dict[tuple[int, int], dict[int, frozenset[Skip]]] = {}

    def for_address(self, local_part: bytes, folded: bytes | None) -> frozenset[Skip]:
        """Tell what is skipped for an address: local-part without quoting, domain from fold_domain."""
        if folded is None:
            return _NOTHING
        skipped = self.for_domain(folded)
        if self._addresses:
            skipped |= self._addresses.get((local_part.lower(), folded), _NOTHING)
        return skipped

    def for_domain(self, folded: bytes) -> frozenset[Skip]:
        """Tell what is skipped for a domain from fold_domain."""
        skipped = self._domains.get(folded, _NOTHING)
        if self._subdomains:
            for parent in parents(folded):
                skipped |= self._subdomains.get(parent, _NOTHING)
        return skipped

    def for_client(self, client: IPv4Address | IPv6Address) -> frozenset[Skip]:
        """Tell what is skipped for a client; an IPv4-mapped address counts as IPv4."""
        if isinstance(client, IPv6Address):
            client = client.ipv4_mapped or client
        skipped = _NOTHING
        for (version, prefix_length), networks in self._networks.items():
            if version == client.version:
                host_bits = client.max_prefixlen - prefix_length
                skipped |= networks.get(int(client) >> host_bits << host_bits, _NOTHING)
        return skipped

    def __bool__(self) -> bool:
        """Tell whether there are patterns."""
        return bool(self._addresses or self._domains or self._subdomains or self._networks)

    def __len__(self) -> int:
        """Count the patterns."""
        return (
            len(self._addresses)
            + len(self._domains)
            + len(self._subdomains)
            + sum(len(networks) for networks in self._networks.values())
        )

    def add(self, pattern: str, skipped: frozenset[Skip]) -> None:
        """Add an entry. Raises ValueError for what is no pattern."""
        if pattern.startswith("@"):
            _add(self._domains, _parse_domain(pattern[1:]), skipped)
        elif "@" in pattern:
            address = parse_address(pattern.encode(errors="surrogateescape"))
            domain = fold_domain(address.domain) if address else None
            if address is None or domain is None:
                raise ValueError(f"{pattern!r} is not an address, {_PATTERN_HELP}")
            _add(self._addresses, (address.local_part.lower(), domain), skipped)
        elif pattern.startswith("."):
            _add(self._subdomains, _parse_domain(pattern[1:]), skipped)
        elif ":" in pattern or re.fullmatch(r"[0-9./]+", pattern):
            network = _parse_network(pattern)
            networks = self._networks.setdefault((network.version, network.prefixlen), {})
            _add(networks, int(network.network_address), skipped)
        else:
            _add(self._domains, _parse_domain(pattern), skipped)


def _add(table: dict[_Key, frozenset[Skip]], key: _Key, skipped: frozenset[Skip]) -> None:
    table[key] = table.get(key, _NOTHING) | skipped


def _parse_domain(text: str) -> bytes:
    try:
        return parse_domain(text)
    except ValueError as error:
        raise ValueError(f"{error}, {_PATTERN_HELP}") from None


def _parse_network(pattern: str) -> IPv4Network | IPv6Network:
    try:
        network = ip_network(pattern, strict=False)
    except ValueError:
        raise ValueError(f"{pattern!r} is not an IP address or network, {_PATTERN_HELP}") from None
    mapped = network.network_address.ipv4_mapped if isinstance(network, IPv6Network) else None
    if mapped is not None and network.prefixlen >= _MAPPED_PREFIX_LENGTH:
        return IPv4Network((mapped, network.prefixlen - _MAPPED_PREFIX_LENGTH))
    return network


def parse_exclusion_map(data: bytes) -> ExclusionMap:
    """Parse the text of an exclusion map. Raises ConfigError with all its faults."""
    exclusions = ExclusionMap()
    faults = []
    for number, line in _logical_lines(data.decode(errors="surrogateescape")):
        try:
            exclusions.add(*_parse_line(line))
        except ValueError as error:
            faults.append(Fault(f"line {number}", str(error)))
    if faults:
        raise ConfigError(faults)
    return exclusions


def _logical_lines(text: str) -> Iterator[tuple[int, str]]:
    """Join continuation lines, drop comments and blank lines, as postmap(1) does; with line numbers."""
    start, line = 0, ""
    for number, raw in enumerate(text.split("\n"), 1):
        stripped = raw.strip(_BLANKS)
        if not stripped or stripped.startswith("#"):
            continue
        if raw[0] in _BLANKS and line:
            line += " " + stripped
            continue
        if line:
            yield start, line
        start, line = number, stripped
    if line:
        yield start, line


def _parse_line(line: str) -> tuple[str, frozenset[Skip]]:
    """Split a logical line into its pattern and what it skips. Raises ValueError."""
    match = _PATTERN.fullmatch(line)
    if match is None:
        raise ValueError("a quote is not closed, would be right: quotes in pairs, or none")
    pattern = match[1]
    if pattern.startswith('"') and pattern.endswith('"'):
        pattern = pattern[1:-1]
    return pattern, _parse_value(match[2] or "")


def _parse_value(value: str) -> frozenset[Skip]:
    """Parse what is skipped. Nothing, or anything with an `@` as in a list for pfix-srsd, means srs."""
    value = value.replace('"', "").strip(_BLANKS)
    if not value or "@" in value:
        return _WORDS["srs"]
    skipped = _NOTHING
    for raw in value.split(","):
        word = raw.strip(_BLANKS).lower()
        if word not in _WORDS:
            raise ValueError(f"{word!r} cannot be skipped, would be right: {', '.join(_WORDS)}")
        skipped |= _WORDS[word]
    return skipped
