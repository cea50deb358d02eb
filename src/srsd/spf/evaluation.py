"""The evaluation of records against one client: check_host() of RFC 7208 §4.6, with its limits (§4.6.4)."""

from __future__ import annotations

from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address
from typing import TYPE_CHECKING, Any, NamedTuple

from srsd.resolving import Answer, Outcome
from srsd.spf.macro import NAME_MAXIMUM, MacroString, MacroValues, parse_explain_string
from srsd.spf.outcome import EXPLANATION_MAXIMUM, SpfResult
from srsd.spf.record import (
    TERMS_MAXIMUM,
    Directive,
    Mechanism,
    RecordFault,
    SpfRecord,
    is_spf_record,
    parse_record,
)
from srsd.syntax.address import Address
from srsd.syntax.domain import fold_domain
from srsd.syntax.shown import shown

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable

    from srsd.resolving import IpAddress, Resolver
    from srsd.spf.trace import Trace

# RFC 7208 §4.6.4.
VOIDS_MAXIMUM = 2
NAMES_MAXIMUM = 10  # of the answer to one MX or PTR query
# Not in the RFC, but in the sense of its §11.1: syntax is checked before anything is counted, and ten
# includes of 64 KiB each would cost a tenth of a second. The records of a real check have some thousands.
RECORD_OCTETS_MAXIMUM = 100_000

_POSTMASTER = b"postmaster"  # §4.3
_LOCAL_PART_LETTERS = frozenset(b"sl")
_VALIDATED_NAME_LETTER = ord("p")
_TO_PRINTABLE = bytes(octet if 0x20 <= octet < 0x7F else ord("?") for octet in range(256))

# Members of enums as globals: the loop over the terms is the hot path.
_FOUND = Outcome.FOUND
_VOID = (Outcome.NO_DATA, Outcome.NX_DOMAIN)
_ALL = Mechanism.ALL
_IP4 = Mechanism.IP4
_IP6 = Mechanism.IP6
_INCLUDE = Mechanism.INCLUDE


class Decision(NamedTuple):
    """What one domain's record says, after its redirects; no error was met."""

    result: SpfResult
    domain: bytes
    """Whose record it is: the last one of the redirects."""
    matched: tuple[bytes, ...] = ()
    """The term that matched; for an include then the one that matched within it, and so on."""
    explanation: MacroString | None = None
    """What exp= says, where that is asked for: after a fail (§6.2)."""
    why: str = ""
    """For none: why."""


class ErrorFound(Exception):  # noqa: N818 - it is a result
    """Ends the whole check with temperror or permerror, which go up through all includes (§5.2)."""

    def __init__(self, result: SpfResult, domain: bytes, problem: str) -> None:
        """Take whose record or answer it is, and what is wrong with it."""
        super().__init__(problem)
        self.result = result
        self.domain = domain
        self.problem = problem


def is_multi_label_name(domain: bytes) -> bool:
    """Tell whether this is a domain name of several labels, each of 1 to 63 octets (§4.3)."""
    return len(domain) <= NAME_MAXIMUM and _has_good_labels(domain)


@lru_cache(maxsize=1024)  # most mail comes from a few domains and hosts
def _has_good_labels(domain: bytes) -> bool:
    lengths = [len(label) for label in domain.split(b".")]
    return len(lengths) > 1 and min(lengths) > 0 and max(lengths) < 64


class Evaluation:
    """One check: its arguments, and what counts for all its includes and redirects together (§4.1)."""

    __slots__ = (
        "_ask_addresses",
        "_client",
        "_client_number",
        "_helo",
        "_ipv4",
        "_now",
        "_octets",
        "_receiver",
        "_resolver",
        "_sender",
        "_terms",
        "_trace",
        "_values",
        "_void",
        "_voids",
    )

    def __init__(  # noqa: PLR0913, PLR0917 - the arguments of check_host
        self,
        resolver: Resolver,
        client: IpAddress,
        sender: Address,
        helo: bytes,
        receiver: bytes,
        now: int,
        trace: Trace | None,
    ) -> None:
        """Take the arguments of check_host."""
        if isinstance(client, IPv6Address):
            # By way of the number, because a scope (RFC 4007 §11) has no place in a macro.
            client = client.ipv4_mapped or IPv6Address(int(client))
        self._client = client
        self._client_number = int(client)
        self._ipv4 = isinstance(client, IPv4Address)
        self._resolver = resolver
        ask: Callable[[bytes], Awaitable[Answer[Any]]] = resolver.ipv4 if self._ipv4 else resolver.ipv6
        self._ask_addresses = ask
        self._sender = sender
        self._helo = helo
        self._receiver = receiver
        self._now = now
        self._trace = trace
        self._terms = 0  # that cause DNS queries
        self._voids = 0  # terms whose queries found nothing
        self._void = False  # a query of the present term found nothing
        self._octets = 0  # of all records
        self._values: dict[bytes, MacroValues] = {}

    async def decide(self, domain: bytes, depth: int) -> Decision:
        """Evaluate a domain's record, and those that it redirects to. Raises ErrorFound."""
        record = await self._record(domain, depth)
        if isinstance(record, str):
            return Decision(SpfResult.NONE, domain, why=record)
        while True:
            matched = await self._first_match(domain, record, depth)
            if matched is not None:
                directive, inner = matched
                result = directive.result
                explanation = record.explanation if result is SpfResult.FAIL else None
                return Decision(result, domain, (directive.text, *inner), explanation)
            if record.redirect is None:
                return Decision(SpfResult.NEUTRAL, domain)  # §4.7
            domain, record = await self._redirect(domain, record.redirect, depth)

    async def explain(self, decision: Decision) -> bytes:
        """Give the explanation of a fail: printable ASCII, b"" where there is none to be had (§6.2)."""
        spec = decision.explanation
        if spec is None:
            return b""
        if self._trace is not None:
            self._trace.begin(0, decision.domain, b"exp=" + spec.text)
        self._terms = 0  # exp= comes after all that is limited
        explanation = await self._explanation(decision.domain, spec)
        if self._trace is not None:
            self._trace.end("" if explanation else "no explanation: not one text that can be expanded")
        return explanation

    async def _explanation(self, domain: bytes, spec: MacroString) -> bytes:
        name = await self._target(domain, spec)
        if name is None:
            return b""
        answer: Answer[bytes] = await self._resolver.txt(name)
        self._asked("TXT", name, answer)
        text = parse_explain_string(answer.records[0]) if len(answer.records) == 1 else None
        if text is None:
            return b""
        values = self._macro_values(domain)
        if _VALIDATED_NAME_LETTER in text.letters and values.validated is None:
            values.validated = await self._validated_name(domain)
        # The sender and HELO are in it, and they may hold anything.
        return values.text(text, EXPLANATION_MAXIMUM).translate(_TO_PRINTABLE)

    # Records.

    async def _record(self, domain: bytes, depth: int) -> SpfRecord | str:
        """Fetch and parse a domain's record (§4.4, §4.5); a str says why there is none."""
        if self._trace is None:
            return self._select(domain, await self._resolver.txt(domain))
        self._trace.begin(depth, domain)
        answer: Answer[bytes] = await self._resolver.txt(domain)
        self._trace.asked("TXT", domain, answer)
        record = self._select(domain, answer)
        self._trace.end(record if isinstance(record, str) else "")
        return record

    def _select(self, domain: bytes, answer: Answer[bytes]) -> SpfRecord | str:
        if answer.outcome is not _FOUND:
            _raise_if_temporary(domain, answer)
            return answer.outcome.value
        texts = [text for text in answer.records if is_spf_record(text)]
        if len(texts) != 1:
            if not texts:
                return "no SPF record"
            raise ErrorFound(SpfResult.PERMERROR, domain, f"{len(texts)} SPF records")
        self._octets += len(texts[0])
        if self._octets > RECORD_OCTETS_MAXIMUM:
            raise ErrorFound(
                SpfResult.PERMERROR, domain, f"more than {RECORD_OCTETS_MAXIMUM} octets of SPF records"
            )
        record = parse_record(texts[0])
        if isinstance(record, RecordFault):
            raise ErrorFound(SpfResult.PERMERROR, domain, record.problem)
        return record

    async def _redirect(self, domain: bytes, spec: MacroString, depth: int) -> tuple[bytes, SpfRecord]:
        """Give the domain that a redirect leads to, with its record (§6.1)."""
        term = b"redirect=" + spec.text
        if self._trace is not None:
            self._trace.begin(depth, domain, term)
        self._count_term(domain)
        target = await self._target(domain, spec)
        if target is None or not is_multi_label_name(target):
            raise ErrorFound(SpfResult.PERMERROR, domain, f"{shown(term)}: not a domain name")
        record = await self._record(target, depth)
        if isinstance(record, str):
            raise ErrorFound(SpfResult.PERMERROR, domain, f"{shown(term)}: {record}")
        if self._trace is not None:
            self._trace.end("no mechanism matched before")
        return target, record

    # Terms.

    async def _first_match(
        self, domain: bytes, record: SpfRecord, depth: int
    ) -> tuple[Directive, tuple[bytes, ...]] | None:
        """Give the first directive that matches, and what matched within it if it is an include."""
        client = self._client_number
        own, other = (_IP4, _IP6) if self._ipv4 else (_IP6, _IP4)
        for directive in record.directives:
            mechanism = directive.mechanism
            if mechanism is own:
                matched = client >> directive.host_bits == directive.network
            elif mechanism is other:
                matched = False
            elif mechanism is _ALL:
                matched = True
            else:
                inner = await self._ask_match(domain, directive, depth)
                if inner is not None:
                    return directive, inner
                continue
            if self._trace is not None:
                self._trace.begin(depth, domain, directive.text)
                self._trace.end(f"the client is {self._client}", matched=matched)
            if matched:
                return directive, ()
        return None

    async def _ask_match(self, domain: bytes, directive: Directive, depth: int) -> tuple[bytes, ...] | None:
        """Tell whether a directive that asks DNS matches: None, or what matched within it."""
        trace = self._trace
        if trace is not None:
            trace.begin(depth, domain, directive.text)
        self._count_term(domain)
        self._void = False
        target = await self._target(domain, directive.domain_spec)
        inner: tuple[bytes, ...] | None = None
        if target is None:
            why = "it would need a local-part or a HELO in ASCII"
        elif directive.mechanism is _INCLUDE:
            inner, why = await self._include(domain, directive, target, depth)
        else:
            inner = () if await self._hosts_match(domain, directive, target) else None
            why = f"the client is {self._client}" if trace is not None else ""
            if inner is None and self._void:
                self._count_void(domain)
        if trace is not None:
            trace.end(why, matched=inner is not None)
        return inner

    async def _include(
        self, domain: bytes, directive: Directive, target: bytes, depth: int
    ) -> tuple[tuple[bytes, ...] | None, str]:
        """Tell whether an include matches (§5.2), and why."""
        if not is_multi_label_name(target):
            raise ErrorFound(SpfResult.PERMERROR, domain, f"{shown(directive.text)}: not a domain name")
        decision = await self.decide(target, depth + 1)
        result = decision.result
        if result is SpfResult.NONE:
            raise ErrorFound(SpfResult.PERMERROR, domain, f"{shown(directive.text)}: {decision.why}")
        return decision.matched if result is SpfResult.PASS else None, f"the result there is {result.value}"

    async def _hosts_match(self, domain: bytes, directive: Directive, target: bytes) -> bool:
        """Tell whether a, mx, ptr or exists matches a target-name."""
        match directive.mechanism:
            case Mechanism.A:
                return await self._has_client(target, self._host_bits(directive))
            case Mechanism.MX:
                return await self._mx_matches(domain, directive, target)
            case Mechanism.PTR:
                return await self._ptr_matches(target)
            case _:  # exists asks for A whatever the client has (§5.7)
                answer: Answer[IPv4Address] = await self._resolver.ipv4(target)
                self._asked("A", target, answer)
                _raise_if_temporary(target, answer)
                return answer.outcome is _FOUND

    def _host_bits(self, directive: Directive) -> int:
        return directive.ipv4_host_bits if self._ipv4 else directive.ipv6_host_bits

    async def _mx_matches(self, domain: bytes, directive: Directive, target: bytes) -> bool:
        answer = await self._resolver.mx(target)
        self._asked("MX", target, answer)
        _raise_if_temporary(target, answer)
        if len(answer.records) > NAMES_MAXIMUM:
            # Whether the client is among the first ten: the order changes from answer to answer.
            raise ErrorFound(
                SpfResult.PERMERROR, domain, f"{shown(target)} has more than {NAMES_MAXIMUM} MX records"
            )
        host_bits = self._host_bits(directive)
        for exchange in dict.fromkeys([record.exchange for record in answer.records]):
            if exchange and await self._has_client(exchange, host_bits):  # b"": RFC 7505, no mail here
                return True
        return False

    async def _has_client(self, name: bytes, host_bits: int) -> bool:
        """Tell whether the client's address, but for some bits, is one of a name's."""
        answer = await self._ask_addresses(name)
        self._asked("A" if self._ipv4 else "AAAA", name, answer)
        _raise_if_temporary(name, answer)
        client = self._client_number >> host_bits
        for address in answer.records:  # noqa: SIM110 - a loop is faster than any()
            if int(address) >> host_bits == client:
                return True
        return False

    async def _ptr_matches(self, target: bytes) -> bool:
        """Tell whether a validated name of the client is the target-name or lies below it (§5.5)."""
        target = target.lower()
        below = b"." + target
        names = [name for name in await self._client_names() if name == target or name.endswith(below)]
        return await self._first_validated(names) is not None

    async def _client_names(self) -> tuple[bytes, ...]:
        """Ask for the client's names: the first ten of them (§4.6.4), none after a failure (§5.5)."""
        answer = await self._resolver.ptr(self._client)
        self._asked("PTR", str(self._client).encode(), answer)
        return answer.records[:NAMES_MAXIMUM]

    async def _first_validated(self, names: Iterable[bytes]) -> bytes | None:
        """Give the first name that has the client's address; a failure passes it over (§5.5)."""
        for name in names:
            answer = await self._ask_addresses(name)
            self._asked("A" if self._ipv4 else "AAAA", name, answer)
            if self._client in answer.records:
                return name
        return None

    # Macros.

    async def _target(self, domain: bytes, spec: MacroString | None) -> bytes | None:
        """Give the target-name of a term (§4.8). None where the term matches nothing, whatever DNS has."""
        if spec is None:
            return domain
        if spec.name is not None:
            return spec.name
        # RFC 8616 §4: such a local-part is no DNS label.
        if spec.letters & _LOCAL_PART_LETTERS and not self._sender.local_part.isascii():
            return None
        values = self._macro_values(domain)
        if _VALIDATED_NAME_LETTER in spec.letters and values.validated is None:
            self._count_term(domain)  # §4.6.4 counts the PTR query of %{p} too
            values.validated = await self._validated_name(domain)
        name = values.name(spec)
        return name if name.isascii() else None

    def _macro_values(self, domain: bytes) -> MacroValues:
        values = self._values.get(domain)
        if values is None:
            helo = self._helo
            values = self._values[domain] = MacroValues(
                client=self._client,
                sender=self._sender if self._sender.local_part else Address(_POSTMASTER, self._sender.domain),
                helo=helo if helo.isascii() else fold_domain(helo) or helo,  # RFC 8616 §4
                domain=domain,
                receiver=self._receiver,
                now=self._now,
            )
        return values

    async def _validated_name(self, domain: bytes) -> bytes:
        """Give what %{p} stands for: <domain> itself, a name below it, any, or "unknown" (§7.3)."""
        domain = domain.lower()
        below = b"." + domain
        names = sorted(
            await self._client_names(),
            key=lambda name: 0 if name == domain else 1 if name.endswith(below) else 2,
        )
        return await self._first_validated(names) or b"unknown"

    # Limits.

    def _count_term(self, domain: bytes) -> None:
        """Count a term, or a macro, that asks DNS."""
        self._terms += 1
        if self._terms > TERMS_MAXIMUM:
            raise ErrorFound(SpfResult.PERMERROR, domain, f"more than {TERMS_MAXIMUM} DNS lookups")

    def _count_void(self, domain: bytes) -> None:
        """Count a term whose queries found nothing, once, however many they are: §4.6.4 speaks of terms."""
        self._voids += 1
        if self._voids > VOIDS_MAXIMUM:
            raise ErrorFound(SpfResult.PERMERROR, domain, f"more than {VOIDS_MAXIMUM} void DNS lookups")

    def _asked(self, kind: str, name: bytes, answer: Answer[Any]) -> None:
        if self._trace is not None:
            self._trace.asked(kind, name, answer)
        if answer.outcome in _VOID:
            self._void = True


def _raise_if_temporary(name: bytes, answer: Answer[Any]) -> None:
    if answer.outcome is not _FOUND and answer.outcome.temporary:
        raise ErrorFound(SpfResult.TEMPERROR, name, answer.outcome.value)
