"""What one process answers and how it judges mail, from the material in force."""

from __future__ import annotations

import logging
import os
import socket
import time
from functools import partial
from typing import TYPE_CHECKING

from srsd.daemon.counters import FORGERS_SHOWN
from srsd.daemon.dns.cache_resolver import CacheResolver
from srsd.daemon.dns.message_resolver import MessageResolver
from srsd.daemon.dns.resolver import StubResolver
from srsd.daemon.expansion.expander import PostfixExpander, own_tables
from srsd.daemon.files import address_file_path, is_stored
from srsd.daemon.log import set_up_logging
from srsd.daemon.mail_log import note_message
from srsd.daemon.outbound import outbound_addresses
from srsd.daemon.refusal_log import note_refused
from srsd.daemon.tables import Answerer, SpfOfOurselves, Table, socketmap_of, tcp_table_of
from srsd.filter.forgers import Forgers
from srsd.filter.forwarding import ForwardingService
from srsd.filter.outbound_spf import UNKNOWN_ADDRESSES, OutboundSpf
from srsd.filter.refused import Delays, RefusalRules
from srsd.filter.rules import Rules, World
from srsd.filter.sealing import SealingService
from srsd.filter.service import MailFilter
from srsd.filter.signing import SigningService
from srsd.filter.verdict import DeferBudget

if TYPE_CHECKING:
    from srsd.address_store import AddressStore
    from srsd.config import Config
    from srsd.daemon.counters import Counters
    from srsd.daemon.files import Material, Parsed
    from srsd.daemon.store_thread import StoreThread
    from srsd.filter.forwarding import RecipientExpander
    from srsd.resolving import DnsParameters

_LOG = logging.getLogger(__name__)
_SECONDS_PER_DAY = 86400
# While rewrites are logged, a key is logged again after this many seconds; in between it is the
# same message for which Postfix asks two or three times.
_LOG_AGAIN = 10
_LOOK_AT_STORE = 10  # seconds


class Service:
    """Keeps tables answering and the filter judging; knows neither files nor listeners.

    mail_filter is the one for new connections: those that are open keep the one that they began with.
    """

    def __init__(self, material: Material, counters: Counters) -> None:
        parsed = material.parse()
        set_up_logging(parsed.config.log.format, parsed.config.log.level)
        self._counters = counters
        self._answerer = Answerer(parsed.lookup, today())
        self.tables: dict[str, Table] = {
            "srs_forward": tcp_table_of(self._answerer, "forward", counters),
            "srs_reverse": tcp_table_of(self._answerer, "reverse", counters),
            "socketmap": socketmap_of(self._answerer, counters),
        }
        self._ticks = 0
        self._store: StoreThread | None = None
        self._store_generation = 0
        self._use_store(parsed.config)
        self._dns = parsed.config.dns
        self.resolver = StubResolver(self._dns, counters=counters.dns)
        self._forgers, self._delays = Forgers(), Delays()
        counters.worst_forgers = lambda: self._forgers.most(FORGERS_SHOWN, time.monotonic())
        self._parameters = parsed.config.srs
        self._expander = make_expander(parsed.config)
        self._reloads = material.reloads
        self._budget = DeferBudget(parsed.config.policy.defer_budget)
        self.mail_filter = self._make_filter(parsed)

    async def start(self) -> None:
        """Look at the world once, before there is mail."""
        if self._parameters.when == "spf" and not outbound_addresses(self._parameters):
            _LOG.error(
                "srs.when: %s, so senders are rewritten always; srs.outbound_addresses names them",
                UNKNOWN_ADDRESSES,
            )
        if self._expander is None:
            return
        problem = await self._expander.check()
        if problem:
            _LOG.error("srs.mode: the alias maps of Postfix cannot be asked: %s", problem)

    def tick(self) -> None:
        """Look at the clock; once a second."""
        self._ticks += 1
        self.resolver.tick()
        self._tend_store()
        if self._expander is not None:
            self._expander.tick()
        if self._answerer.today != today():
            self._answerer.today = today()
            self._forget()
            if self._store is not None:
                self._store.expire(self._answerer.today)
        elif self._ticks % _LOG_AGAIN == 0 and (_LOG.isEnabledFor(logging.INFO) or self._answerer.spf):
            self._forget()  # what SPF says may change with every TTL

    def put_in_force(self, material: Material) -> None:
        """Answer from new material from now on."""
        parsed = material.parse()
        set_up_logging(parsed.config.log.format, parsed.config.log.level)
        self._use_store(parsed.config)
        self._answerer.lookup = parsed.lookup
        self._forget()
        if parsed.config.dns != self._dns:
            self._dns = parsed.config.dns
            former, self.resolver = self.resolver, StubResolver(self._dns, counters=self._counters.dns)
            former.retire()
        self._parameters = parsed.config.srs
        self._use_expander(parsed.config, forget=material.reloads != self._reloads)
        self._reloads = material.reloads
        if parsed.config.policy.defer_budget != self._budget.maximum:
            self._budget = DeferBudget(parsed.config.policy.defer_budget)
        self.mail_filter = self._make_filter(parsed)

    def _use_expander(self, config: Config, *, forget: bool) -> None:
        """Have an expander where recipients are followed, or were: connections that are open may ask it."""
        if self._expander is None:
            self._expander = make_expander(config)
        elif forget or self._expander.parameters != config.srs:
            self._expander.parameters = config.srs
            self._expander.forget()

    def _use_store(self, config: Config) -> None:
        """Have a store where addresses are stored, or were."""
        if self._store is not None:
            self._store.megabytes = config.srs.store_size
            return
        path = address_file_path(config.state_directory)
        if not is_stored(config) and not os.path.exists(path):
            return
        from srsd.daemon.store_thread import StoreThread  # noqa: PLC0415 - it needs SQLite, a megabyte

        self._store = self._answerer.store = StoreThread(path, config.srs.store_size, self._counters)
        self._store.expire(self._answerer.today)

    def _tend_store(self) -> None:
        store = self._store
        if store is None:
            return
        if self._ticks % _LOOK_AT_STORE == 0:
            store.look()
        self._counters.store = store.snapshot()
        if store.generation != self._store_generation:
            self._store_generation = store.generation
            self._forget()

    def _make_filter(self, parsed: Parsed) -> MailFilter:
        world = World(
            make_resolver=partial(_message_resolver, self.resolver, self._dns),
            cache=CacheResolver(self.resolver),
            clock=lambda: int(time.time()),
            timer=time.monotonic,
            report=partial(note_message, counters=self._counters),
            authserv_id=host_name(),
            report_refused=partial(note_refused, counters=self._counters),
        )
        spf = make_outbound_spf(parsed.config)
        self._answerer.spf = (
            SpfOfOurselves(spf, world.cache, world.make_resolver, world.clock) if spf is not None else None
        )
        expander = self._expander if parsed.config.srs.mode == "milter" else None
        rules = make_rules(parsed, expander, self._store)
        if parsed.config.srs.domain:
            refusal = RefusalRules(parsed.config.srs, parsed.lookup, self._forgers, self._delays)
            rules = rules._replace(refusal=refusal)
        return MailFilter(rules, world, self._budget)

    def _forget(self) -> None:
        for table in self.tables.values():
            table.forget()

    async def close(self) -> None:
        """End what is open to the world."""
        if self._expander is not None:
            await self._expander.close()
        await self.resolver.close()
        if self._store is not None:
            await self._store.close()


def host_name() -> bytes:
    """Name this host, where nobody says what it is called in mail."""
    return socket.gethostname().encode(errors="replace")


def make_expander(config: Config) -> PostfixExpander | None:
    """Make what follows recipients, if the milter is to rewrite senders."""
    if config.srs.mode != "milter":
        return None
    return PostfixExpander(config.srs, time.monotonic, own_tables(config.listen))


def make_outbound_spf(config: Config) -> OutboundSpf | None:
    """Make what asks SPF of ourselves, if senders are rewritten only where it says so."""
    return OutboundSpf(outbound_addresses(config.srs), host_name()) if config.srs.when == "spf" else None


def make_rules(
    parsed: Parsed, expander: RecipientExpander | None = None, store: AddressStore | None = None
) -> Rules:
    """Say what the admin wants of the mail filter; without an expander senders stay as they are."""
    config, exclusions = parsed.config, parsed.exclusions
    signing = sealing = forwarding = None
    if expander is not None:
        spf = make_outbound_spf(config)
        forwarding = ForwardingService(config.srs, parsed.lookup, expander, store, spf)
    if config.dkim.sign:
        in_debug = config.log.level == "debug"
        signing = SigningService(config.dkim, parsed.signing, exclusions, verify_all=in_debug)
    if config.arc.seal:
        sealing = SealingService(config.arc.domain, parsed.signing.keys)
    return Rules(
        milter=config.milter,
        spf=config.spf,
        dkim=config.dkim,
        dmarc=config.dmarc,
        arc=config.arc,
        policy=config.policy,
        exclusions=exclusions,
        signing=signing,
        sealing=sealing,
        logins=parsed.signing.logins,
        forwarding=forwarding,
    )


def _message_resolver(resolver: StubResolver, parameters: DnsParameters) -> MessageResolver:
    return MessageResolver(resolver, deadline=parameters.message_deadline)


def today() -> int:
    """Give the number of days since 1970-01-01, UTC."""
    return int(time.time()) // _SECONDS_PER_DAY
