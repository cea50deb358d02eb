"""One message on its way through the filter, from the end of its envelope to what is decided about it."""

from __future__ import annotations

from itertools import chain
from typing import TYPE_CHECKING

from srsd.dkim.canonicalization import BodyHashes
from srsd.filter.authenticate import SWITCHED_OFF, is_login_mismatch
from srsd.filter.author import AuthorSearch
from srsd.filter.checks import Checks
from srsd.filter.forgeries import Forgeries
from srsd.filter.forwarding import NOT_HERE, MessageForwarding, Rewriting
from srsd.filter.modifications import authentication_results, modifications
from srsd.filter.report import Report, Timings
from srsd.filter.results import no_results
from srsd.filter.sealing import MessageSealing, Seal
from srsd.filter.signing import MessageSigning, Signatures
from srsd.wire.milter_session import Decision

if TYPE_CHECKING:
    from collections.abc import Awaitable, Mapping
    from typing import TypeAlias

    from srsd.dkim.canonicalization import BodyHash, BodyHashKey
    from srsd.filter.author import Author
    from srsd.filter.results import Results
    from srsd.filter.rules import Rules, World
    from srsd.filter.transaction import Transaction
    from srsd.filter.verdict import Policy
    from srsd.syntax.header import HeaderField
    from srsd.wire.milter import Modification

    BodyHashesFound: TypeAlias = Mapping[BodyHashKey, BodyHash]

HEADER_MAXIMUM = 1 << 19  # octets of a header that is kept for signatures
_FIELD_OVERHEAD = 128  # octets of memory, beside those of the field
_NO_SIGNATURES, _NO_SEAL = Signatures(), Seal()
_INITIALS = (b"A", b"F", b"a", b"f")  # of Authentication-Results and From, for which all fields are looked at


class MessageInFilter:
    """Told of a message part by part, it decides at its end.

    Mail of ours may be signed. All other mail is checked, and may be sealed.
    """

    def __init__(self, rules: Rules, policy: Policy, world: World, transaction: Transaction) -> None:
        self._rules = rules
        self._policy = policy
        self._world = world
        self._transaction = transaction
        self._begun = world.timer()
        self._queue_id = b""
        self._forgeries = Forgeries(transaction.authserv_id)
        self._author_search = AuthorSearch()
        self._fields: list[HeaderField] | None = [] if rules.read_content else None
        self._header_size = 0
        self._hashes: BodyHashes | None = None
        self._results_of_ours: Results
        self._signing: MessageSigning | Signatures = _NO_SIGNATURES
        self._sealing: MessageSealing | Seal = _NO_SEAL
        self._checks: Checks | None = None
        forwarding = rules.forwarding
        self._forwarding: MessageForwarding | Rewriting = (
            forwarding.begin(transaction, world.clock(), world.cache, world.make_resolver)
            if forwarding is not None
            else NOT_HERE
        )
        if not transaction.origin.ours:
            null_mx = policy.acts_on("null_mx")
            self._checks = Checks(rules, world, transaction, null_mx=null_mx)

    def headers(self, fields: list[HeaderField]) -> None:
        """Take the next header fields."""
        found = [field for field in fields if field[0][:1] in _INITIALS]
        if found:
            self._forgeries.see(found)
            self._author_search.see(found)
        if self._fields is not None:
            self._fields += fields
            self._header_size += sum(map(len, chain.from_iterable(fields))) + _FIELD_OVERHEAD * len(fields)
            if self._header_size > HEADER_MAXIMUM:
                self._fields = None

    def end_of_headers(self) -> None:
        """Take note that all header fields were given."""
        fields, now = self._fields, self._world.clock()
        self._fields = None
        author = self._author_search.author()
        if self._checks is None:
            wanted = self._begin_signing(fields, author, now)
        else:
            wanted = self._begin_checks(self._checks, fields, author, now)
        if wanted:
            self._hashes = BodyHashes(wanted)

    def _begin_signing(
        self, fields: list[HeaderField] | None, author: Author, now: int
    ) -> frozenset[BodyHashKey]:
        rules, transaction = self._rules, self._transaction
        mismatch = is_login_mismatch(transaction.login, author, rules.logins)
        self._results_of_ours = no_results(author, transaction.origin.value, login_mismatch=mismatch)
        signing = rules.signing
        if signing is None:
            self._signing = Signatures(why=SWITCHED_OFF)
            return frozenset()
        self._signing = signing.begin(
            transaction,
            fields,
            author,
            now,
            came_from_outside=self._forgeries.bears_our_results,
            login_mismatch=mismatch,
        )
        wanted = self._signing.body_hash if isinstance(self._signing, MessageSigning) else None
        return frozenset({wanted}) if wanted else frozenset()

    def _begin_checks(
        self, checks: Checks, fields: list[HeaderField] | None, author: Author, now: int
    ) -> frozenset[BodyHashKey]:
        wanted = checks.see_header(fields, author, now)
        sealing = self._rules.sealing
        if sealing is not None:
            self._sealing = sealing.begin(fields, checks.chain, now)
            if isinstance(self._sealing, MessageSealing):
                wanted |= {self._sealing.body_hash}
        return wanted

    def body(self, chunk: bytes) -> None:
        """Take the next part of the body."""
        if self._hashes is not None:
            self._hashes.feed(chunk)
            if isinstance(self._signing, MessageSigning):
                self._signing.hazards.feed(chunk)

    def end_of_message(self, macros: Mapping[bytes, bytes]) -> Decision | Awaitable[Decision]:
        """Decide: at once if all answers are there."""
        self._queue_id = macros.get(b"i", b"")
        body_hashes = self._hashes.finish() if self._hashes is not None else {}
        results = self._results_of_ours if self._checks is None else self._checks.finish(body_hashes)
        forwarding = self._forwarding
        rewriting = forwarding.finish() if isinstance(forwarding, MessageForwarding) else forwarding
        if results is not None and rewriting is not None:
            return self._decide(results, rewriting, body_hashes)
        return self._decide_later(results, rewriting, body_hashes)

    async def _decide_later(
        self, results: Results | None, rewriting: Rewriting | None, body_hashes: BodyHashesFound
    ) -> Decision:
        if results is None and self._checks is not None:
            results = await self._checks.finish_later(body_hashes)
        if rewriting is None and isinstance(self._forwarding, MessageForwarding):
            rewriting = await self._forwarding.finish_later()
        return self._decide(results or self._results_of_ours, rewriting or NOT_HERE, body_hashes)

    def _decide(self, results: Results, rewriting: Rewriting, body_hashes: BodyHashesFound) -> Decision:
        transaction = self._transaction
        signatures = self._finish_signing(body_hashes)
        verdict = self._policy.judge(transaction, results)
        seal = _NO_SEAL
        changes: list[Modification] = []
        reply = verdict.reply()
        if rewriting.refused and not verdict.refuses:
            reply = rewriting.reply()
        elif not verdict.refuses:  # of what is refused nothing needs to be changed
            value = b""
            if not transaction.origin.ours:
                value = authentication_results(transaction, results)
                seal = self._finish_sealing(results, value, body_hashes)
            changes = modifications(
                transaction,
                results,
                self._forgeries,
                signatures,
                seal=seal,
                value=value,
                received_spf=self._rules.spf.received_spf,
            )
            changes += rewriting.modifications()
            changes += verdict.modifications()
        decision = Decision(tuple(changes), reply)
        removed, timings = len(self._forgeries.positions), self._timings()
        report = Report(
            self._queue_id,
            transaction,
            results,
            signatures,
            removed,
            decision,
            seal,
            verdict,
            timings,
            rewriting,
        )
        self._world.report(report)
        return decision

    def _finish_signing(self, body_hashes: BodyHashesFound) -> Signatures:
        signing = self._signing
        return signing.finish(body_hashes) if isinstance(signing, MessageSigning) else signing

    def _finish_sealing(self, results: Results, value: bytes, body_hashes: BodyHashesFound) -> Seal:
        sealing = self._sealing
        if isinstance(sealing, MessageSealing):
            return sealing.finish(results.arc, value, body_hashes)
        return sealing

    def _timings(self) -> Timings:
        seconds = self._world.timer() - self._begun
        resolvers = self._checks.resolvers if self._checks is not None else None
        if not resolvers:
            return Timings(seconds)
        waited = max([each.seconds for each in resolvers])  # side by side
        return Timings(seconds, waited, sum([each.queries for each in resolvers]))

    def abort(self) -> None:
        """Forget the message: it is not going to end."""
        if self._checks is not None:
            self._checks.abort()
        if isinstance(self._forwarding, MessageForwarding):
            self._forwarding.abort()
