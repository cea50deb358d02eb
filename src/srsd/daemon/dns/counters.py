"""What the DNS client did: plain numbers that add up over workers, for status and metrics alike."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypedDict

from srsd.resolving import Outcome

if TYPE_CHECKING:
    from collections.abc import Iterable


class DnsSnapshot(TypedDict):
    """Counters at one moment, as JSON has them."""

    lookups: dict[str, int]  # lookups that went to a name server and have ended, by the name of their Outcome
    seconds: float  # that those lookups took, all together
    hits: int  # lookups answered from the cache
    misses: int  # lookups that began to ask a name server
    shared: int  # lookups that waited for the answer to another one
    queries: int  # messages sent, over UDP and TCP
    timeouts: int  # messages that were not answered before the next one was due
    tcp_fallbacks: int  # truncated answers that were fetched over TCP
    strays: int  # datagrams that answer no question of ours, or come too late
    overloads: int  # lookups refused because too many were under way


class DnsCounters:
    """The counters of one process."""

    __slots__ = (
        "hits", "lookups", "misses", "overloads", "queries", "seconds", "shared", "strays", "tcp_fallbacks",
        "timeouts",
    )  # fmt: skip

    def __init__(self) -> None:
        self.lookups = dict.fromkeys(Outcome, 0)
        self.seconds = 0.0
        self.hits = 0
        self.misses = 0
        self.shared = 0
        self.queries = 0
        self.timeouts = 0
        self.tcp_fallbacks = 0
        self.strays = 0
        self.overloads = 0

    def snapshot(self) -> DnsSnapshot:
        """Give all counters as they are now."""
        return DnsSnapshot(
            lookups={outcome.name.lower(): count for outcome, count in self.lookups.items() if count},
            seconds=self.seconds,
            hits=self.hits,
            misses=self.misses,
            shared=self.shared,
            queries=self.queries,
            timeouts=self.timeouts,
            tcp_fallbacks=self.tcp_fallbacks,
            strays=self.strays,
            overloads=self.overloads,
        )


def add_up_dns(snapshots: Iterable[DnsSnapshot]) -> DnsSnapshot:
    """Add up the counters of several processes."""
    total = DnsCounters().snapshot()
    for snapshot in snapshots:
        for outcome, count in snapshot["lookups"].items():
            total["lookups"][outcome] = total["lookups"].get(outcome, 0) + count
        total["seconds"] += snapshot["seconds"]
        total["hits"] += snapshot["hits"]
        total["misses"] += snapshot["misses"]
        total["shared"] += snapshot["shared"]
        total["queries"] += snapshot["queries"]
        total["timeouts"] += snapshot["timeouts"]
        total["tcp_fallbacks"] += snapshot["tcp_fallbacks"]
        total["strays"] += snapshot["strays"]
        total["overloads"] += snapshot["overloads"]
    return total
