"""The filter behind every milter connection: follows each message from its envelope to the decision."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, NamedTuple, Protocol

from srsd.exclusion import ExclusionMap
from srsd.filter.authenticate import DkimCheckParameters, SpfCheckParameters
from srsd.filter.chain import ArcCheckParameters
from srsd.filter.message import MessageInFilter
from srsd.filter.origin import MilterParameters, Origins
from srsd.filter.results import DmarcCheckParameters
from srsd.filter.transaction import is_authserv_id, make_transaction
from srsd.filter.verdict import Policy, PolicyParameters
from srsd.resolving import Resolver
from srsd.wire.milter import Action, MacroStage, Step

if TYPE_CHECKING:
    from collections.abc import Callable

    from srsd.dkim.login_table import LoginTable
    from srsd.filter.report import Report
    from srsd.filter.sealing import SealingService
    from srsd.filter.signing import SigningService
    from srsd.wire.milter_session import Envelope

_NO_MACRO = b"{srsd_none}"


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

    make_resolver: Callable[[], CountingResolver]  # one for each message, with its own budget
    cache: Resolver  # raises NotCachedError where it would have to ask
    clock: Callable[[], int]  # seconds since 1970-01-01, UTC
    timer: Callable[[], float]  # seconds since anything
    report: Callable[[Report], None]
    authserv_id: bytes  # where neither the configuration nor the MTA names one


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


class MailFilter:
    """Judges mail by one configuration. A connection keeps the one that it began with."""

    # An MTA takes an empty list for none given, and sends its default macros then. So the steps of which
    # none is wanted name one that is never there: no packet, and no lookup by the MTA.
    macros: ClassVar[dict[MacroStage, bytes]] = {
        MacroStage.CONNECT: b"j {daemon_name}",
        MacroStage.HELO: _NO_MACRO,
        MacroStage.MAIL: b"{auth_type} {auth_authen}",
        MacroStage.RECIPIENT: _NO_MACRO,
        MacroStage.DATA: b"i",
        MacroStage.END_OF_HEADERS: _NO_MACRO,
        MacroStage.END_OF_MESSAGE: b"i",
    }

    def __init__(self, rules: Rules, world: World) -> None:
        self.rules = rules
        self.world = world
        self.policy = Policy(rules.policy)
        self.actions = Action.ADD_HEADERS | Action.CHANGE_HEADERS
        if self.policy.may_quarantine:
            self.actions |= Action.QUARANTINE
        # Whether the content matters, beyond a few header fields.
        self.reads_content = rules.dkim.verify or rules.arc.verify or rules.signing is not None
        self.unwanted = Step.NO_UNKNOWN if self.reads_content else Step.NO_UNKNOWN | Step.NO_BODY
        self._origins = Origins(rules.milter)
        self._authserv_id = rules.milter.authserv_id.encode()
        self._default_authserv_id = world.authserv_id if is_authserv_id(world.authserv_id) else b"localhost"

    def begin(self, envelope: Envelope) -> MessageInFilter:
        """Begin a message: its content is to come."""
        transaction = make_transaction(envelope, self._origins, self._authserv_id, self._default_authserv_id)
        return MessageInFilter(self, transaction)
