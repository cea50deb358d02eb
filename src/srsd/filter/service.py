"""The filter behind every milter connection: follows each message from its envelope to the decision."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, TypeAlias, TypeVar

from srsd.dkim.canonicalization import BodyHashes
from srsd.dkim.verify import plan_verification
from srsd.exclusion import Skip
from srsd.filter.authenticate import (
    EXCLUDED,
    HEADER_TOO_LARGE,
    SWITCHED_OFF,
    DkimResults,
    Results,
    SpfResults,
    ask_for_keys,
    ask_for_keys_in_order,
    check_spf,
    check_spf_side_by_side,
    is_excluded,
    why_no_spf,
)
from srsd.filter.author import find_author
from srsd.filter.forgeries import Forgeries
from srsd.filter.modifications import modifications
from srsd.filter.origin import Origins
from srsd.filter.signing import MessageSigning, Signatures
from srsd.filter.transaction import Transaction, is_authserv_id, make_transaction
from srsd.resolving import NotCachedError, run_from_cache
from srsd.wire.milter import Action, Continue, MacroStage, Step
from srsd.wire.milter_session import Decision

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine, Mapping

    from srsd.dkim.canonicalization import BodyHash, BodyHashKey
    from srsd.dkim.verify import VerificationPlan
    from srsd.exclusion import ExclusionMap
    from srsd.filter.authenticate import DkimCheckParameters, SpfCheckParameters
    from srsd.filter.origin import MilterParameters
    from srsd.filter.signing import SigningService
    from srsd.resolving import Answer, Resolver
    from srsd.syntax.header import HeaderField
    from srsd.wire.milter_session import Envelope

T = TypeVar("T")
_Answer: TypeAlias = T | asyncio.Task[T]  # that is there, or to come
HEADER_MAXIMUM = 1 << 19  # octets of a header that is kept for signatures
_NO_MACRO = b"{srsd_none}"
_FIELD_OVERHEAD = 128  # octets of memory, beside those of the field


class Report(NamedTuple):
    """What became of a message, for the log and the counters."""

    queue_id: bytes
    transaction: Transaction
    results: Results
    signatures: Signatures
    forgeries: int  # Authentication-Results that claimed to be ours, and were removed
    decision: Decision


class World(NamedTuple):
    """What the filter needs of the world outside."""

    make_resolver: Callable[[], Resolver]  # one for each message, with its own budget
    cache: Resolver  # raises NotCachedError where it would have to ask
    clock: Callable[[], int]  # seconds since 1970-01-01, UTC
    report: Callable[[Report], None]
    authserv_id: bytes  # where neither the configuration nor the MTA names one


class Rules(NamedTuple):
    """What the admin wants."""

    milter: MilterParameters
    spf: SpfCheckParameters
    dkim: DkimCheckParameters
    exclusions: ExclusionMap
    signing: SigningService | None  # None: nothing is signed


class MailFilter:
    """Judges mail by one configuration. A connection keeps the one that it began with."""

    actions = Action.ADD_HEADERS | Action.CHANGE_HEADERS
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
        reads_body = rules.dkim.verify or rules.signing is not None
        self.unwanted = Step.NO_UNKNOWN if reads_body else Step.NO_UNKNOWN | Step.NO_BODY
        self._origins = Origins(rules.milter)
        self._authserv_id = rules.milter.authserv_id.encode()
        self._default_authserv_id = world.authserv_id if is_authserv_id(world.authserv_id) else b"localhost"

    def begin(self, envelope: Envelope) -> MessageInFilter:
        """Begin a message: its content is to come."""
        transaction = make_transaction(envelope, self._origins, self._authserv_id, self._default_authserv_id)
        return MessageInFilter(self, transaction)


class MessageInFilter:
    """One message on its way through the filter. Its DNS begins with its content."""

    def __init__(self, judge: MailFilter, transaction: Transaction) -> None:
        self._rules = judge.rules
        self._world = judge.world
        self._transaction = transaction
        self._resolver: Resolver | None = None
        self._tasks: list[asyncio.Task[Any]] = []
        self._forgeries = Forgeries(transaction.authserv_id)
        ours = transaction.origin.ours
        verifies = self._rules.dkim.verify and not ours
        signs = self._rules.signing is not None and ours
        self._fields: list[HeaderField] | None = [] if verifies or signs else None
        self._header_size = 0
        origin = transaction.origin.value
        self._dkim: VerificationPlan | str = "" if verifies else origin if ours else SWITCHED_OFF
        self._signing: MessageSigning | str = SWITCHED_OFF if ours else ""
        self._hashes: BodyHashes | None = None
        self._keys: _Answer[dict[bytes, Answer[bytes]]] = {}
        self._spf = self._begin_spf()

    def _begin_spf(self) -> _Answer[SpfResults]:
        transaction = self._transaction
        unchecked = why_no_spf(transaction, self._rules.spf, self._rules.exclusions)
        if unchecked:
            return SpfResults(why_unchecked=unchecked)
        now = self._world.clock()
        try:
            return run_from_cache(check_spf(transaction, self._world.cache, now))
        except NotCachedError:
            return self._start(check_spf_side_by_side(transaction, self._ask(), now))

    def _ask(self) -> Resolver:
        """Give the resolver of this message."""
        if self._resolver is None:
            self._resolver = self._world.make_resolver()
        return self._resolver

    def _start(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.append(task)
        return task

    def headers(self, fields: list[HeaderField]) -> None:
        """Take the next header fields."""
        self._forgeries.see(fields)
        if self._fields is not None:
            self._fields += fields
            self._header_size += sum([len(name) + len(value) + _FIELD_OVERHEAD for name, value in fields])
            if self._header_size > HEADER_MAXIMUM:
                self._fields = None
                if self._transaction.origin.ours:
                    self._signing = HEADER_TOO_LARGE
                else:
                    self._dkim = HEADER_TOO_LARGE

    def end_of_headers(self) -> None:
        """Take note that all header fields were given."""
        fields, self._fields = self._fields, None
        if fields is None:
            return
        if self._transaction.origin.ours:
            self._begin_signing(fields)
        else:
            self._begin_verification(fields)

    def _begin_signing(self, fields: list[HeaderField]) -> None:
        if self._rules.signing is not None:
            self._signing = self._rules.signing.begin(
                self._transaction,
                fields,
                self._world.clock(),
                came_from_outside=self._forgeries.bears_our_results,
            )
            if isinstance(self._signing, MessageSigning):
                self._hashes = BodyHashes([self._signing.body_hash])

    def _begin_verification(self, fields: list[HeaderField]) -> None:
        exclusions = self._rules.exclusions
        if exclusions and is_excluded(Skip.DKIM, self._transaction.client, find_author(fields), exclusions):
            self._dkim = EXCLUDED
            return
        plan = self._dkim = plan_verification(fields, self._world.clock(), self._rules.dkim)
        if plan.body_hashes:
            self._hashes = BodyHashes(plan.body_hashes)
        if plan.key_names:
            self._keys = self._begin_keys(plan.key_names)

    def _begin_keys(self, names: tuple[bytes, ...]) -> _Answer[dict[bytes, Answer[bytes]]]:
        try:
            return run_from_cache(ask_for_keys_in_order(names, self._world.cache))
        except NotCachedError:
            return self._start(ask_for_keys(names, self._ask()))

    def body(self, chunk: bytes) -> None:
        """Take the next part of the body."""
        if self._hashes is not None:
            self._hashes.feed(chunk)
            if isinstance(self._signing, MessageSigning):
                self._signing.hazards.feed(chunk)

    def end_of_message(self, macros: Mapping[bytes, bytes]) -> Decision | Awaitable[Decision]:
        """Decide: at once if all answers are there."""
        queue_id = macros.get(b"i", b"")
        if all(task.done() for task in self._tasks):
            return self._decide(queue_id)
        return self._decide_later(queue_id)

    async def _decide_later(self, queue_id: bytes) -> Decision:
        await asyncio.wait(self._tasks)
        return self._decide(queue_id)

    def _decide(self, queue_id: bytes) -> Decision:
        body_hashes = self._hashes.finish() if self._hashes is not None else {}
        results = Results(_known(self._spf), self._finish_dkim(body_hashes))
        signatures = self._finish_signing(body_hashes)
        changes = modifications(
            self._transaction,
            results,
            self._forgeries,
            signatures,
            received_spf=self._rules.spf.received_spf,
        )
        decision = Decision(changes, Continue())
        removed = len(self._forgeries.positions)
        self._world.report(Report(queue_id, self._transaction, results, signatures, removed, decision))
        return decision

    def _finish_signing(self, body_hashes: Mapping[BodyHashKey, BodyHash]) -> Signatures:
        if isinstance(self._signing, str):
            return Signatures(why=self._signing)
        return self._signing.finish(body_hashes)

    def _finish_dkim(self, body_hashes: Mapping[BodyHashKey, BodyHash]) -> DkimResults:
        plan = self._dkim
        if isinstance(plan, str):
            return DkimResults(why_unchecked=plan)
        return DkimResults(tuple(plan.finish(_known(self._keys), body_hashes)), plan.not_examined)

    def abort(self) -> None:
        """Forget the message: it is not going to end."""
        for task in self._tasks:
            task.cancel()


def _known(answer: _Answer[T]) -> T:
    return answer.result() if isinstance(answer, asyncio.Task) else answer
