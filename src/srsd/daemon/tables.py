"""The tables that Postfix asks: a request's octets in, a reply's octets out."""

from __future__ import annotations

import logging
from time import perf_counter
from typing import TYPE_CHECKING, NamedTuple, Protocol

from srsd.address_store import UNKNOWN
from srsd.daemon.counters import Counters, LookupKind, Tally
from srsd.daemon.log import loggable
from srsd.filter.forwarding import SPF_ALLOWS
from srsd.lookup import NOTABLE, REWRITTEN_LONG
from srsd.resolving import NotCachedError, run_from_cache
from srsd.syntax.address import parse_address
from srsd.wire import socketmap, tcp_table
from srsd.wire.answer import Answer, Status

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine

    from srsd.address_store import AddressStore, Pending
    from srsd.filter.outbound_spf import OutboundSpf
    from srsd.lookup import Lookup
    from srsd.resolving import Resolver

_LOG = logging.getLogger(__name__)
SPF_ALLOWED = Answer(Status.NOT_FOUND, SPF_ALLOWS.encode(), SPF_ALLOWS)
_BUG = Answer(Status.TEMPORARY, b"internal error", "a bug in srsd")
_MAPS = {b"forward": "forward", b"srsencoder": "forward", b"reverse": "reverse", b"srsdecoder": "reverse"}
_GENERATION = 4096  # replies kept twice over: the present generation and the one before
_KEPT_MAXIMUM = 512  # octets of a request worth keeping its reply


class Decoder(Protocol):
    """Cuts a stream into requests."""

    @property
    def pending(self) -> bool:
        """Tell whether part of a request waits for the rest."""
        ...

    def feed(self, data: bytes) -> list[bytes]:
        """Take octets, give whole requests; raises ProtocolError."""
        ...


class Codec(Protocol):
    """One protocol: the module wire.tcp_table or wire.socketmap."""

    @property
    def Decoder(self) -> Callable[[], Decoder]:  # noqa: N802 - a class in the module
        """Make what cuts a stream into requests."""
        ...

    @property
    def is_whole(self) -> Callable[[bytes], bool]:
        """Tell whether octets are one request, no more and no less."""
        ...

    @property
    def format_reply(self) -> Callable[[Answer], bytes]:
        """Spell an answer."""
        ...


class SpfOfOurselves(NamedTuple):
    """Who asks whether SPF would let this host send, where that decides about rewriting."""

    spf: OutboundSpf
    cache: Resolver  # raises NotCachedError where it would have to ask
    make_resolver: Callable[[], Resolver]
    clock: Callable[[], int]  # seconds since 1970-01-01, UTC


class Answerer:
    """The lookups in force, shared by all tables; logs what is decided.

    today is the number of days since 1970-01-01, UTC. Whoever changes lookup, today or spf must
    make the tables forget what they keep. store may be missing where nothing is, or was, stored,
    spf where senders are rewritten whatever it says.
    """

    def __init__(self, lookup: Lookup, today: int, store: AddressStore | None = None) -> None:
        self.lookup = lookup
        self.today = today
        self.store = store
        self.spf: SpfOfOurselves | None = None

    def answer(self, direction: str, key: bytes) -> Answer | Awaitable[Answer]:
        """Answer one lookup, at once unless the store is needed.

        A bug of ours costs this answer and nothing else: the mail waits.
        """
        try:
            lookup = self.lookup
            resolve = lookup.forward if direction == "forward" else lookup.reverse
            answer = resolve(key, self.today)
            if self.spf is not None and direction == "forward" and rewrites(answer):
                try:
                    answer = run_from_cache(self._unless_allowed(key, answer, self.spf, self.spf.cache))
                except NotCachedError:
                    return self._settle(direction, key, answer, self.spf)
            if not isinstance(answer, Answer):
                return self._settle(direction, key, answer)
            if _LOG.isEnabledFor(logging.WARNING):
                _log(direction, key, answer)
        except Exception:  # noqa: BLE001 - whatever it is, other lookups go on
            return _bug(direction, key)
        return answer

    @staticmethod
    async def _unless_allowed(
        key: bytes, answer: Answer | Pending, spf: SpfOfOurselves, resolver: Resolver
    ) -> Answer | Pending:
        """Leave a sender alone whose domain lets us send."""
        sender = parse_address(key)
        if sender is None or (await spf.spf.judge(sender, resolver, spf.clock())).needs_rewriting:
            return answer
        return SPF_ALLOWED

    async def _settle(
        self, direction: str, key: bytes, answer: Answer | Pending, spf: SpfOfOurselves | None = None
    ) -> Answer:
        """Wait for DNS, where SPF is to be asked, and for the store, where that is needed."""
        try:
            if spf is not None:
                answer = await self._unless_allowed(key, answer, spf, spf.make_resolver())
            if not isinstance(answer, Answer):
                answer = await answer.settle(self.store)
            if _LOG.isEnabledFor(logging.WARNING):
                _log(direction, key, answer)
        except Exception:  # noqa: BLE001 - as above
            return _bug(direction, key)
        return answer


def rewrites(answer: Answer | Pending) -> bool:
    """Tell whether a lookup gave a new address."""
    return not isinstance(answer, Answer) or answer.status is Status.FOUND


def _bug(direction: str, key: bytes) -> Answer:
    """Log the exception that is being handled; give what Postfix is told."""
    _LOG.exception(
        "%s %s: a bug in srsd, please report it; the mail waits and is tried again", direction, loggable(key)
    )
    return _BUG


def _log(direction: str, key: bytes, answer: Answer) -> None:
    """Write the one line of a lookup: old, new, why."""
    if answer.status is Status.FOUND:
        level = logging.WARNING if answer.reason is REWRITTEN_LONG else logging.INFO
        if _LOG.isEnabledFor(level):
            new = loggable(answer.text)
            facts = {"direction": direction, "old": loggable(key), "new": new, "reason": answer.reason}
            _LOG.log(
                level, "%s %s -> %s (%s)", direction, facts["old"], new, answer.reason, extra={"facts": facts}
            )
        return
    waits = answer.status is Status.TEMPORARY
    level = logging.INFO if waits or answer.reason in NOTABLE else logging.DEBUG
    if _LOG.isEnabledFor(level):
        facts = {"direction": direction, "old": loggable(key), "reason": answer.reason}
        what = "waits" if waits else "left as it is"
        _LOG.log(level, "%s %s %s (%s)", direction, facts["old"], what, answer.reason, extra={"facts": facts})


class Table:
    """One kind of table: its protocol, and the replies that it keeps for requests that come again.

    Postfix asks each key two or three times for a message. replies maps the octets of a whole
    request to those of its reply and to what counts it; a reader may look there first.
    """

    def __init__(
        self,
        name: str,
        codec: Codec,
        answer: Callable[[bytes], tuple[str, Answer | Awaitable[Answer]]],
        counters: Counters,
    ) -> None:
        """Make a table; answer gives the direction of a request and its answer."""
        self.is_whole = codec.is_whole
        self.make_decoder = codec.Decoder
        self.replies: dict[bytes, tuple[bytes, Tally]] = {}
        self._former: dict[bytes, tuple[bytes, Tally]] = {}
        self._name = name
        self._answer = answer
        self._format_reply = codec.format_reply
        self._counters = counters

    def respond(self, request: bytes) -> bytes | Coroutine[None, None, bytes]:
        """Give the reply to one whole request, or what gives it once the store has answered."""
        known = self.replies.get(request)
        if known is None:
            known = self._former.get(request)
            keep = known is not None
            if known is None:
                begin = perf_counter()
                direction, answer = self._answer(request)
                if not isinstance(answer, Answer):
                    return self._respond_later(request, direction, answer, begin)
                known = self._spell(direction, answer, begin)
                keep = len(request) <= _KEPT_MAXIMUM and answer.status is not Status.TEMPORARY
            if keep:
                self._keep(request, known)
        reply, tally = known
        tally.count += 1
        return reply

    async def _respond_later(
        self, request: bytes, direction: str, pending: Awaitable[Answer], begin: float
    ) -> bytes:
        replies = self.replies
        answer = await pending
        known = self._spell(direction, answer, begin)
        # Not where they were forgotten meanwhile, nor what may be there in a moment: a copy that is put
        # back, a disk that works again.
        lasts = answer.status is Status.FOUND or (answer.status is Status.NOT_FOUND and answer != UNKNOWN)
        if lasts and len(request) <= _KEPT_MAXIMUM and replies is self.replies:
            self._keep(request, known)
        reply, tally = known
        tally.count += 1
        return reply

    def _spell(self, direction: str, answer: Answer, begin: float) -> tuple[bytes, Tally]:
        """Give the reply that an answer makes, and what counts it; count the time since the beginning."""
        reply = self._format_reply(answer)
        self._counters.took(perf_counter() - begin)
        tally = self._counters.tally(
            LookupKind(self._name, direction, answer.status.name.lower(), answer.reason)
        )
        return reply, tally

    def _keep(self, request: bytes, known: tuple[bytes, Tally]) -> None:
        if len(self.replies) >= _GENERATION:
            self._former, self.replies = self.replies, {}
        self.replies[request] = known

    def forget(self) -> None:
        """Drop the replies that are kept."""
        self.replies = {}
        self._former = {}


def tcp_table_of(answerer: Answerer, direction: str, counters: Counters) -> Table:
    """Make the tcp_table(5) of one direction, "forward" or "reverse"."""

    def answer(request: bytes) -> tuple[str, Answer | Awaitable[Answer]]:
        key = tcp_table.parse_request(request)
        if key is None:
            return "", tcp_table.NOT_A_REQUEST
        return direction, answerer.answer(direction, key)

    return Table(f"srs_{direction}", tcp_table, answer, counters)


def socketmap_of(answerer: Answerer, counters: Counters) -> Table:
    """Make the socketmap_table(5), which has both directions by name."""

    def answer(request: bytes) -> tuple[str, Answer | Awaitable[Answer]]:
        name, key = socketmap.parse_request(request)
        direction = _MAPS.get(name)
        if direction is not None:
            return direction, answerer.answer(direction, key)
        _LOG.warning(
            'there is no socketmap "%s", so the mail waits; main.cf must say forward or reverse',
            loggable(name),
        )
        return "", socketmap.NO_MAP

    return Table("socketmap", socketmap, answer, counters)
