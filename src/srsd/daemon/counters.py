"""What was done and how fast: plain numbers that add up over workers, for status and metrics alike."""

from __future__ import annotations

from bisect import bisect_left
from itertools import chain
from typing import TYPE_CHECKING, NamedTuple, TypedDict

from srsd.daemon.dns.counters import DnsCounters, DnsSnapshot, add_up_dns

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

# Upper bounds, in seconds, of the classes in which the time for an answer is counted.
LATENCY_BOUNDS = (10e-6, 25e-6, 50e-6, 100e-6, 250e-6, 1e-3, 10e-3, 100e-3, 1.0)

FORGERS_SHOWN = 10  # of all clients that have sent to SRS addresses which do not reverse

# What is counted by kind, what the kinds are called, and what it means.
EVENTS = {
    "messages": ("origin", "Messages that the milter saw to their end"),
    "spf_mail_from": ("result", "Results of SPF for MAIL FROM, or for HELO where the sender is null"),
    "spf_helo": ("result", "Results of SPF for HELO beside a sender"),
    "dkim_signatures": ("result", "Results of DKIM signatures"),
    "dkim_signed": ("outcome", "Signatures made by us"),
    "dmarc": ("result", "Results of DMARC"),
    "arc": ("result", "Results of ARC, where there is a chain"),
    "arc_sealed": ("outcome", "ARC sets added by us, or why none"),
    "verdicts": ("action", "What was done with messages, by policy"),
    "verdicts_shadow": ("action", "What policy would have done, had nothing kept it from that"),
    "verdicts_by": ("key", "Findings that decided a verdict, or would have, by their key in [policy]"),
    "defer_budget_spent": ("reason", "Messages accepted with temperror, because DNS had failed too often"),
    "address_store": ("outcome", "What the store of addresses was asked for, and failures of it"),
    "srs_milter": ("outcome", "Senders that the milter rewrote, or why not"),
    "srs_expansion_failed": ("outcome", "Messages of which the alias maps could not say whether they leave"),
    "srs_refused": ("reason", "Refused recipients that are SRS addresses of ours and do not reverse"),
    "srs_delayed": ("outcome", "Answers to them that were held back, or would have been but for others"),
    "forgeries_removed": ("field", "Header fields removed because they claimed to be ours"),
}


class LookupKind(NamedTuple):
    """What lookups are counted by."""

    table: str  # the key of [listen]: srs_forward, srs_reverse, socketmap
    direction: str  # forward, reverse, or "" for what is no request
    outcome: str  # the name of a Status, in lower case
    reason: str


class StoreSnapshot(TypedDict):
    """The store of addresses at one moment; all zero where there is none."""

    addresses: int
    octets: int  # of its file, in use
    maximum_octets: int
    failing: int  # processes that cannot use it now


class Snapshot(TypedDict):
    """Counters at one moment, as JSON has them."""

    lookups: list[tuple[str, str, str, str, int]]  # LookupKind and its count
    latency: list[int]  # answers by LATENCY_BOUNDS, the last class is everything above
    latency_sum: float  # seconds
    connections_opened: int
    connections_open: int
    connections_cut: int  # for breaking the protocol, or being too slow
    events: list[tuple[str, str, int]]  # what happened, of which kind, how often: EVENTS
    bugs: int  # of ours, that a message met
    dns: DnsSnapshot
    store: StoreSnapshot
    forgers: list[tuple[str, int]]  # clients with the most refused SRS addresses, and how many in an hour


class Tally:
    """One count that is raised on the hot path."""

    __slots__ = ("count",)

    def __init__(self) -> None:
        self.count = 0


class Counters:
    """The counters of one process."""

    def __init__(self) -> None:
        self._lookups: dict[LookupKind, Tally] = {}
        self._latency = [0] * (len(LATENCY_BOUNDS) + 1)
        self._latency_sum = 0.0
        self.connections_opened = 0
        self.connections_open = 0
        self.connections_cut = 0
        self.bugs = 0
        self.dns = DnsCounters()
        self.store = StoreSnapshot(addresses=0, octets=0, maximum_octets=0, failing=0)
        self.worst_forgers: Callable[[], list[tuple[str, int]]] = list  # found only when somebody asks
        self._events: dict[tuple[str, str], int] = {}

    def count(self, what: str, kind: str, number: int = 1) -> None:
        """Count something that happened."""
        event = (what, kind)
        self._events[event] = self._events.get(event, 0) + number

    def tally(self, kind: LookupKind) -> Tally:
        """Give the count of one kind of lookup, to be raised by whoever answers it."""
        tally = self._lookups.get(kind)
        if tally is None:
            tally = self._lookups[kind] = Tally()
        return tally

    def took(self, seconds: float) -> None:
        """Count the time that an answer took to find; kept replies take none."""
        self._latency[bisect_left(LATENCY_BOUNDS, seconds)] += 1
        self._latency_sum += seconds

    def snapshot(self) -> Snapshot:
        """Give all counters as they are now."""
        return Snapshot(
            lookups=[(*kind, tally.count) for kind, tally in self._lookups.items() if tally.count],
            latency=list(self._latency),
            latency_sum=self._latency_sum,
            connections_opened=self.connections_opened,
            connections_open=self.connections_open,
            connections_cut=self.connections_cut,
            events=[(*event, count) for event, count in self._events.items()],
            bugs=self.bugs,
            dns=self.dns.snapshot(),
            store=self.store,
            forgers=self.worst_forgers(),
        )


def no_counts() -> Snapshot:
    """Give a snapshot of nothing."""
    return Counters().snapshot()


def add_up(snapshots: Iterable[Snapshot]) -> Snapshot:
    """Add up the counters of several processes."""
    snapshots = list(snapshots)
    total = no_counts()
    lookups: dict[tuple[str, str, str, str], int] = {}
    events: dict[tuple[str, str], int] = {}
    for snapshot in snapshots:
        for table, direction, outcome, reason, count in snapshot["lookups"]:
            kind = (table, direction, outcome, reason)
            lookups[kind] = lookups.get(kind, 0) + count
        total["latency"] = [a + b for a, b in zip(total["latency"], snapshot["latency"], strict=True)]
        total["latency_sum"] += snapshot["latency_sum"]
        total["connections_opened"] += snapshot["connections_opened"]
        total["connections_open"] += snapshot["connections_open"]
        total["connections_cut"] += snapshot["connections_cut"]
        total["bugs"] += snapshot["bugs"]
        for what, kind_of_it, count in snapshot["events"]:
            events[what, kind_of_it] = events.get((what, kind_of_it), 0) + count
    total["dns"] = add_up_dns(snapshot["dns"] for snapshot in snapshots)
    total["store"] = _add_up_stores(snapshot["store"] for snapshot in snapshots)
    total["forgers"] = _add_up_forgers(snapshot["forgers"] for snapshot in snapshots)
    total["events"] = [(*event, count) for event, count in sorted(events.items())]
    total["lookups"] = [(*kind, count) for kind, count in sorted(lookups.items())]
    return total


def _add_up_forgers(snapshots: Iterable[list[tuple[str, int]]]) -> list[tuple[str, int]]:
    """Add up what each process has of its worst clients: who is none of those anywhere is not among them."""
    counts: dict[str, int] = {}
    for client, count in chain.from_iterable(snapshots):
        counts[client] = counts.get(client, 0) + count
    return sorted(counts.items(), key=lambda each: (-each[1], each[0]))[:FORGERS_SHOWN]


def _add_up_stores(snapshots: Iterable[StoreSnapshot]) -> StoreSnapshot:
    """Tell of the one store that all processes share: who looked last saw most, as long as it grows."""
    stores = list(snapshots)
    return StoreSnapshot(
        addresses=max((store["addresses"] for store in stores), default=0),
        octets=max((store["octets"] for store in stores), default=0),
        maximum_octets=max((store["maximum_octets"] for store in stores), default=0),
        failing=sum(store["failing"] for store in stores),
    )
