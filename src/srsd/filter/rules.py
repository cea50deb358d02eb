"""What a filter goes by: what the admin wants, and what it needs of the world outside."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, Protocol

from srsd.exclusion import ExclusionMap
from srsd.filter.authenticate import DkimCheckParameters, SpfCheckParameters
from srsd.filter.chain import ArcCheckParameters
from srsd.filter.origin import MilterParameters
from srsd.filter.results import DmarcCheckParameters
from srsd.filter.verdict import PolicyParameters
from srsd.resolving import Resolver

if TYPE_CHECKING:
    from collections.abc import Callable

    from srsd.dkim.login_table import LoginTable
    from srsd.filter.forwarding import ForwardingService
    from srsd.filter.refused import RefusalRules, RefusedSrsAddress
    from srsd.filter.report import Report
    from srsd.filter.sealing import SealingService
    from srsd.filter.signing import SigningService


class CountingResolver(Resolver, Protocol):
    """A resolver that knows what it did for its message."""

    @property
    def queries(self) -> int:
        """Lookups that the cache did not answer."""
        ...

    @property
    def seconds(self) -> float:
        """Seconds in which answers were awaited."""
        ...


class World(NamedTuple):
    """What the filter needs of the world outside."""

    make_resolver: Callable[[], CountingResolver]  # each has a budget: for SPF of a message, for the rest
    cache: Resolver  # raises NotCachedError where it would have to ask
    clock: Callable[[], int]  # seconds since 1970-01-01, UTC
    timer: Callable[[], float]  # seconds since anything
    report: Callable[[Report], None]
    authserv_id: bytes  # where neither the configuration nor the MTA names one
    report_refused: Callable[[RefusedSrsAddress], None] = lambda _: None


class Rules(NamedTuple):
    """What the admin wants."""

    milter: MilterParameters = MilterParameters()
    spf: SpfCheckParameters = SpfCheckParameters()
    dkim: DkimCheckParameters = DkimCheckParameters()
    dmarc: DmarcCheckParameters = DmarcCheckParameters()
    arc: ArcCheckParameters = ArcCheckParameters()
    policy: PolicyParameters = PolicyParameters()
    exclusions: ExclusionMap = ExclusionMap()
    signing: SigningService | None = None  # None: nothing is signed
    sealing: SealingService | None = None  # None: nothing is sealed
    logins: LoginTable | None = None  # None: everybody may write as anybody
    forwarding: ForwardingService | None = None  # None: the milter leaves senders alone
    refusal: RefusalRules | None = None  # None: nobody hears of recipients that the MTA has refused

    @property
    def read_content(self) -> bool:
        """Tell whether anybody looks at the content, beyond a few header fields."""
        return self.dkim.verify or self.arc.verify or self.signing is not None
