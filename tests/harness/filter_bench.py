"""The whole MailFilter on a bench: messages go in, and what it asked, decided and reported is seen.

bench = Bench(dmarc=True, policy=PolicyParameters(shadow=False, dmarc_reject="reject"))
report = bench.send(b"<alice@example.com>", client="192.0.2.1", fields=signed())   # all in the cache
report = Bench(cache=Forgetful()).wait(fields=signed())                           # all asked for
results_of(report)                                    # [("spf", "pass"), ("spf", "pass"), ("dkim", "pass")]
"""

from __future__ import annotations

import asyncio
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any

from harness.dkim_forge import Forge, ed25519_key, rsa_key
from harness.fake_resolver import FakeResolver
from srsd.authres import parse_results
from srsd.crypto import KeyType, generate_key
from srsd.dkim.login_table import parse_login_table
from srsd.dkim.signing_rules import SigningTexts, parse_signing_rules
from srsd.exclusion import ExclusionMap, parse_exclusion_map
from srsd.filter.authenticate import DkimCheckParameters, SpfCheckParameters
from srsd.filter.chain import ArcCheckParameters
from srsd.filter.origin import MilterParameters
from srsd.filter.results import DmarcCheckParameters
from srsd.filter.rules import Rules, World
from srsd.filter.service import MailFilter
from srsd.filter.signing import SigningParameters, SigningService
from srsd.filter.verdict import PolicyParameters
from srsd.resolving import NotCachedError, Outcome
from srsd.syntax.header import HeaderField
from srsd.wire.milter import Connect, InsertHeader, Path
from srsd.wire.milter_session import Decision, Envelope

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence

    from harness.dkim_forge import Key
    from srsd.authres import Result
    from srsd.filter.message import MessageInFilter
    from srsd.filter.report import Report
    from srsd.filter.sealing import SealingService
    from srsd.resolving import Answer

NOW = 1_700_000_000
KEY, ED = rsa_key(), ed25519_key()
ZONES = {
    ("example.com", "TXT"): ["v=spf1 ip4:192.0.2.1 -all"],
    ("helo.example", "TXT"): ["v=spf1 a -all"],
    ("helo.example", "A"): ["192.0.2.1"],
    ("broken.example", "TXT"): Outcome.SERVER_FAILURE,
    ("s1._domainkey.example.com", "TXT"): [KEY.record],
    ("s2._domainkey.example.com", "TXT"): [ED.record],
    ("s1._domainkey.broken.example", "TXT"): Outcome.TIMED_OUT,
}
FIELDS = [HeaderField(b"From", b" alice@example.com"), HeaderField(b"Subject", b" x")]
BODY = b"Hello\r\n"
TEMPLATE = b" v=1; a=rsa-sha256; c=relaxed/relaxed; d=example.com; s=s1; h=from:subject; bh=%BH%; b=%B%"
AUTHSERV_ID = b"mx.example.net"
OURS = HeaderField(b"Authentication-Results", b" mx.example.net; spf=pass")
OWN_KEY = generate_key(KeyType.ED25519)
RESULTS_NAME = b"Authentication-Results"


def signed(
    template: bytes = TEMPLATE,
    key: Key = KEY,
    body: bytes = BODY,
    fields: Sequence[HeaderField] = FIELDS,
) -> list[HeaderField]:
    """Put a signature on top of a header."""
    return [Forge(key).sign(fields, body, template), *fields]


class Forgetful:
    """A cache that has nothing, or nothing but some names."""

    def __init__(self, behind: FakeResolver | None = None, *, has: Iterable[str] = ()) -> None:
        self._behind = behind
        self._has = set(has)
        self.asked = 0

    def __getattr__(self, method: str) -> Callable[[Any], Awaitable[Any]]:
        async def ask(name: Any) -> Any:
            self.asked += 1
            if self._behind is None or (isinstance(name, bytes) and name.decode() not in self._has):
                raise NotCachedError
            return await getattr(self._behind, method)(name)

        return ask


class Slow(FakeResolver):
    """Answers questions for TXT when it is told to: all of them, or those for names that begin so."""

    def __init__(self, zones: Mapping[tuple[str, str], Any], prefix: bytes = b"") -> None:
        super().__init__(zones)
        self.gate = asyncio.Event()
        self.waiting = self.cancelled = 0
        self._prefix = prefix

    async def txt(self, name: bytes) -> Answer[bytes]:
        if not name.startswith(self._prefix):
            return await super().txt(name)
        self.waiting += 1
        try:
            await self.gate.wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        finally:
            self.waiting -= 1
        return await super().txt(name)


class Bench:
    """A filter, and all that it asked for and reported."""

    def __init__(
        self,
        zones: Mapping[tuple[str, str], Any] = ZONES,
        *,
        cache: Any = None,
        resolver: Any = None,
        make_resolver: Callable[[], Any] | None = None,
        signing: bool = False,
        sealing: SealingService | None = None,
        exclusions: bytes = b"",
        logins: bytes = b"",
        milter: MilterParameters = MilterParameters(),  # noqa: B008
        policy: PolicyParameters = PolicyParameters(),  # noqa: B008
        trusted_sealers: tuple[str, ...] = (),
        authserv_id: bytes = b"fallback.example",
        **checks: bool,
    ) -> None:
        self.cache = cache if cache is not None else FakeResolver(zones)
        self.resolver = resolver if resolver is not None else FakeResolver(zones)
        self.resolvers_made = 0
        self._make_resolver = make_resolver  # where one is not to be for all
        self.reports: list[Report] = []
        texts = SigningTexts({"/d/example.com/e1.pem": OWN_KEY.pem()})
        excluded = parse_exclusion_map(exclusions) if exclusions else ExclusionMap()
        rules = Rules(
            milter=milter,
            spf=SpfCheckParameters(
                verify=checks.get("spf", True), received_spf=checks.get("received_spf", False)
            ),
            dkim=DkimCheckParameters(verify=checks.get("dkim", True)),
            dmarc=DmarcCheckParameters(verify=checks.get("dmarc", False)),
            arc=ArcCheckParameters(verify=checks.get("arc", False), trusted_sealers=trusted_sealers),
            policy=policy,
            exclusions=excluded,
            signing=SigningService(
                SigningParameters(), parse_signing_rules(texts, SigningParameters())[0], excluded
            )
            if signing
            else None,
            sealing=sealing,
            logins=parse_login_table(logins) if logins else None,
        )
        world = World(self._make, self.cache, lambda: NOW, lambda: 0.0, self.reports.append, authserv_id)
        self.filter = MailFilter(rules, world)

    def _make(self) -> Any:
        self.resolvers_made += 1
        return self._make_resolver() if self._make_resolver is not None else self.resolver

    def begin(
        self,
        sender: bytes = b"<alice@example.com>",
        *,
        client: str | None = "192.0.2.1",
        helo: bytes = b"helo.example",
        fields: Iterable[HeaderField] = FIELDS,
        body: bytes = BODY,
        recipients: Iterable[bytes] = (),
        macros: dict[bytes, bytes] | None = None,
        portion: int = 100,
    ) -> MessageInFilter:
        """Begin a message, and give all of its content."""
        address = None if client is None else ip_address(client)
        told = {b"j": AUTHSERV_ID} | (macros or {})
        paths = tuple(Path(each, ()) for each in recipients)
        envelope = Envelope(Connect(b"mail.example.com", address), helo, Path(sender, ()), paths, told)
        message = self.filter.begin(envelope)
        fields = list(fields)
        for at in range(0, len(fields), portion):
            message.headers(fields[at : at + portion])
        message.end_of_headers()
        for at in range(0, len(body), 3):
            message.body(body[at : at + 3])
        return message

    def send(self, *args: Any, **how: Any) -> Report:
        """Send a message that needs no waiting."""
        decision = self.begin(*args, **how).end_of_message({b"i": b"Q1"})
        assert isinstance(decision, Decision)
        assert self.reports[-1].decision is decision
        return self.reports[-1]

    def wait(self, *args: Any, **how: Any) -> Report:
        """Send a message whose answers are to come."""

        async def main() -> Decision:
            later = self.begin(*args, **how).end_of_message({b"i": b"Q1"})
            assert not isinstance(later, Decision)
            return await later

        decision = asyncio.run(main())
        assert self.reports[-1].decision is decision
        return self.reports[-1]


def results_in(report: Report) -> tuple[Result, ...]:
    """Read the one Authentication-Results that is added."""
    (value,) = [
        each.value
        for each in report.decision.modifications
        if isinstance(each, InsertHeader) and each.name == RESULTS_NAME
    ]
    parsed = parse_results(value)
    assert parsed is not None
    assert parsed.authserv_id == AUTHSERV_ID
    return parsed.results


def field_of(report: Report) -> list[tuple[str, str]]:
    """Give method and result of each result in that field."""
    return [(each.method, each.result) for each in results_in(report)]


def properties_of(report: Report, method: str) -> dict[str, Any]:
    """Give the properties of the one result of a method."""
    (result,) = [each for each in results_in(report) if each.method == method]
    return {f"{ptype}.{name}": value for ptype, name, value in result.properties}


def header_after(report: Report, header: Iterable[HeaderField]) -> list[HeaderField]:
    """Change a header as Postfix does: fields of a name are counted anew, inserts go to the top."""
    changed = list(header)
    for each in report.decision.modifications:
        if isinstance(each, InsertHeader):
            changed.insert(each.position, HeaderField(each.name, each.value))
        else:
            places = [at for at, field in enumerate(changed) if field.name.lower() == each.name.lower()]
            del changed[places[each.position - 1]]
    return changed
