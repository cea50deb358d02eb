"""The checks of one message that is not ours, side by side: each begins as soon as its facts are there."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

from srsd.dkim.verify import plan_verification
from srsd.dmarc.discovery import discover
from srsd.exclusion import Skip
from srsd.filter.authenticate import (
    EXCLUDED,
    HEADER_TOO_LARGE,
    SWITCHED_OFF,
    DkimResults,
    NullMx,
    SpfResults,
    ask_for_keys,
    ask_for_keys_in_order,
    check_null_mx,
    check_spf,
    check_spf_side_by_side,
    skips_of,
    unchecked_spf,
    why_no_spf,
)
from srsd.filter.chain import ArcResults, find_voucher, plan_chain, trusted_domains
from srsd.filter.origin import Origin
from srsd.filter.results import DmarcResults, Results, check_dmarc
from srsd.resolving import NotCachedError, run_from_cache

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Mapping, Sequence

    from srsd.arc.validate import ValidationPlan
    from srsd.dkim.canonicalization import BodyHash, BodyHashKey
    from srsd.dkim.verify import VerificationPlan
    from srsd.dmarc.discovery import Discovery
    from srsd.filter.author import Author
    from srsd.filter.rules import CountingResolver, Rules, World
    from srsd.filter.transaction import Transaction
    from srsd.resolving import Answer, Resolver
    from srsd.syntax.header import HeaderField

T = TypeVar("T")
_Answer: TypeAlias = T | asyncio.Task[T]  # that is there, or to come
_BodyHashes: TypeAlias = "Mapping[BodyHashKey, BodyHash]"
_NO_DMARC = DmarcResults()
_NO_NULL_MX = NullMx()
_NO_RESOLVERS: frozenset[CountingResolver] = frozenset()


class Checks:
    """SPF begins with the envelope, DKIM, ARC and DMARC with the header; DMARC ends when the others have."""

    def __init__(self, rules: Rules, world: World, transaction: Transaction, *, null_mx: bool) -> None:
        """Begin with what the envelope says. null_mx tells whether anybody wants to know of that."""
        self._rules = rules
        self._world = world
        self._transaction = transaction
        # None while the cache had everything. What SPF asks for is up to the record of a stranger, so it
        # has a budget of its own: nobody can spend the answers on which the author's policy depends.
        self._spf_resolver: CountingResolver | None = None
        self._resolver: CountingResolver | None = None
        self._tasks: list[asyncio.Task[Any]] = []
        self.chain: ValidationPlan | str = SWITCHED_OFF
        self._author: Author
        self._results: Results | None = None  # all but that of DMARC
        self._dkim: VerificationPlan | str = SWITCHED_OFF
        self._dmarc: _Answer[Discovery] | str = SWITCHED_OFF
        self._keys: _Answer[dict[bytes, Answer[bytes]]] = {}
        why_no_spf_ = why_no_spf(transaction, rules.spf, rules.exclusions)
        self._spf = unchecked_spf(transaction, why_no_spf_) if why_no_spf_ else self._begin_spf()
        self._null_mx: _Answer[NullMx] = _NO_NULL_MX
        if null_mx and transaction.origin is Origin.OUTSIDE and why_no_spf_ != EXCLUDED:
            self._null_mx = self._begin(lambda resolver: check_null_mx(transaction, resolver))

    def _begin_spf(self) -> _Answer[SpfResults]:
        transaction, now = self._transaction, self._world.clock()
        try:
            return run_from_cache(check_spf(transaction, self._world.cache, now))
        except NotCachedError:
            self._spf_resolver = self._world.make_resolver()
            return self._await(check_spf_side_by_side(transaction, self._spf_resolver, now))

    def _begin(
        self,
        check: Callable[[Resolver], Coroutine[Any, Any, T]],
        side_by_side: Callable[[Resolver], Coroutine[Any, Any, T]] | None = None,
    ) -> _Answer[T]:
        """Begin a check; it is done at once if the cache has all it asks for.

        The second form is the one for a resolver that has to wait.
        """
        try:
            return run_from_cache(check(self._world.cache))
        except NotCachedError:
            return self._await((side_by_side or check)(self._ask()))

    def _await(self, check: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        task = asyncio.get_running_loop().create_task(check)
        self._tasks.append(task)
        return task

    def _ask(self) -> CountingResolver:
        """Give the resolver of all but SPF."""
        if self._resolver is None:
            self._resolver = self._world.make_resolver()
        return self._resolver

    @property
    def resolvers(self) -> frozenset[CountingResolver]:
        """The resolvers that had to ask."""
        if self._spf_resolver is None and self._resolver is None:
            return _NO_RESOLVERS
        return frozenset([each for each in (self._spf_resolver, self._resolver) if each is not None])

    def see_header(
        self, fields: Sequence[HeaderField] | None, author: Author, now: int
    ) -> frozenset[BodyHashKey]:
        """Begin what the header is needed for; fields is None where it is too large to be kept.

        Gives the hashes of the body that are wanted.
        """
        rules = self._rules
        skipped = skips_of(self._transaction.client, author, rules.exclusions)
        self._author = author
        names: tuple[bytes, ...] = ()
        wanted: frozenset[BodyHashKey] = frozenset()
        if rules.dkim.verify:
            if Skip.DKIM in skipped:
                self._dkim = EXCLUDED
            elif fields is None:
                self._dkim = HEADER_TOO_LARGE
            else:
                dkim = self._dkim = plan_verification(fields, now, rules.dkim)
                names, wanted = dkim.key_names, dkim.body_hashes
        if rules.arc.verify:
            arc = self.chain = plan_chain(fields, skipped, now, rules.dkim)
            if not isinstance(arc, str):
                names += tuple(name for name in arc.key_names if name not in names)
                wanted |= arc.body_hashes
        if names:
            self._keys = self._begin(
                lambda resolver: ask_for_keys_in_order(names, resolver),
                lambda resolver: ask_for_keys(names, resolver),
            )
        if rules.dmarc.verify:
            if Skip.DMARC in skipped:
                self._dmarc = EXCLUDED
            elif author.domain:
                self._dmarc = self._begin(lambda resolver: discover(author.domain, resolver))
            else:
                self._dmarc = author.problem
        return wanted

    def finish(self, body_hashes: _BodyHashes) -> Results | None:
        """Give the results; None where one of them still waits for DNS."""
        if self._tasks and not all(task.done() for task in self._tasks):
            return None
        self._results = self._without_dmarc(body_hashes)
        try:
            return run_from_cache(self._with_dmarc(self._results, self._world.cache))
        except NotCachedError:
            return None

    async def finish_later(self, body_hashes: _BodyHashes) -> Results:
        """Give the results as soon as all answers are there."""
        if self._results is None:
            await asyncio.wait(self._tasks)
            results = self.finish(body_hashes)
            if results is not None:
                return results
        results = self._results or self._without_dmarc(body_hashes)
        return await self._with_dmarc(results, self._ask())

    def _without_dmarc(self, body_hashes: _BodyHashes) -> Results:
        keys, dkim, arc = _known(self._keys), self._dkim, self.chain
        return Results(
            _known(self._spf),
            DkimResults(why_unchecked=dkim)
            if isinstance(dkim, str)
            else DkimResults(tuple(dkim.finish(keys, body_hashes)), dkim.not_examined),
            ArcResults(None, arc) if isinstance(arc, str) else ArcResults(arc.finish(keys, body_hashes)),
            _NO_DMARC,
            self._author,
            _known(self._null_mx),
        )

    async def _with_dmarc(self, results: Results, resolver: Resolver) -> Results:
        """DMARC comes last: it goes by what the others found."""
        if isinstance(self._dmarc, str):
            dmarc = DmarcResults(why_unchecked=self._dmarc)
        else:
            dmarc = await check_dmarc(results, _known(self._dmarc), resolver)
            if dmarc.fails:
                trusted = trusted_domains(self._rules.arc)
                dmarc = dmarc.vouched(find_voucher(results.arc, trusted, results.author.domain))
        # A microsecond less than _replace.
        return Results(results.spf, results.dkim, results.arc, dmarc, results.author, results.null_mx)

    def abort(self) -> None:
        """Forget the message: nobody waits for its answers any more."""
        for task in self._tasks:
            task.cancel()


def _known(answer: _Answer[T]) -> T:
    return answer.result() if isinstance(answer, asyncio.Task) else answer
