"""Counters as Prometheus text, over HTTP. Imported only where listen.metrics asks for it."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
)
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from prometheus_client.registry import Collector

from srsd.daemon.counters import EVENTS, LATENCY_BOUNDS
from srsd.daemon.listeners import BACKLOG

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from prometheus_client import Metric

    from srsd.daemon.counters import Snapshot, StoreSnapshot
    from srsd.daemon.dns.counters import DnsSnapshot
    from srsd.daemon.listeners import Listener
    from srsd.daemon.status import Status

_HEAD_MAXIMUM = 8192  # octets of a request
_SECONDS = 5


class _StatusCollector(Collector):
    """Turns a status into metrics, at each scrape."""

    def __init__(self, status: Callable[[], Status]) -> None:
        self._status = status

    def collect(self) -> Iterator[Metric]:
        """Give all metrics."""
        status = self._status()
        yield InfoMetricFamily("srsd", "The daemon", {"version": status["version"]})
        yield GaugeMetricFamily("srsd_start_time_seconds", "When srsd started", status["started_timestamp"])
        running = sum(worker["state"] == "running" for worker in status["workers"])
        yield GaugeMetricFamily("srsd_workers_running", "Processes that answer", running)
        restarts = sum(worker["restarts"] for worker in status["workers"])
        yield CounterMetricFamily("srsd_worker_restarts", "Workers started again", restarts)
        reload = status["last_reload"]
        yield GaugeMetricFamily(
            "srsd_last_reload_successful", "1, or 0 when the last reload found faults", int(reload["good"])
        )
        yield from _of_counters(status["counters"])


def _of_counters(counters: Snapshot) -> Iterator[Metric]:
    lookups = CounterMetricFamily(
        "srsd_lookups", "Lookups answered", labels=["table", "direction", "outcome", "reason"]
    )
    for *labels, count in counters["lookups"]:
        lookups.add_metric([str(label) for label in labels], count)
    yield lookups
    latency = HistogramMetricFamily(
        "srsd_lookup_seconds", "Time to find an answer that was not kept from before"
    )
    cumulative, total = [], 0
    for bound, count in zip((*map(str, LATENCY_BOUNDS), "+Inf"), counters["latency"], strict=True):
        total += count
        cumulative.append((bound, total))
    latency.add_metric([], cumulative, counters["latency_sum"])
    yield latency
    yield from _of_events(counters["events"])
    yield from _of_dns(counters["dns"])
    yield from _of_store(counters["store"])
    yield CounterMetricFamily("srsd_bugs", "Messages refused for now because of a bug", counters["bugs"])
    yield CounterMetricFamily(
        "srsd_connections_opened", "Connections of tables and of the milter", counters["connections_opened"]
    )
    yield CounterMetricFamily(
        "srsd_connections_cut", "Connections ended for what the client did", counters["connections_cut"]
    )
    yield GaugeMetricFamily("srsd_connections_open", "Connections now", counters["connections_open"])


def _of_events(events: list[tuple[str, str, int]]) -> Iterator[Metric]:
    for what, (label, meaning) in EVENTS.items():
        family = CounterMetricFamily(f"srsd_{what}", meaning, labels=[label])
        for each, kind, count in events:
            if each == what:
                family.add_metric([kind], count)
        yield family


def _of_store(store: StoreSnapshot) -> Iterator[Metric]:
    yield GaugeMetricFamily("srsd_address_store_addresses", "Addresses that are stored", store["addresses"])
    yield GaugeMetricFamily(
        "srsd_address_store_bytes", "Octets that the stored addresses take", store["octets"]
    )
    yield GaugeMetricFamily(
        "srsd_address_store_maximum_bytes", "Octets that they may take", store["maximum_octets"]
    )
    yield GaugeMetricFamily(
        "srsd_address_store_failing", "Processes that cannot use the store now", store["failing"]
    )


def _of_dns(dns: DnsSnapshot) -> Iterator[Metric]:
    lookups = CounterMetricFamily(
        "srsd_dns_lookups", "DNS lookups that went to a name server", labels=["outcome"]
    )
    for outcome, count in dns["lookups"].items():
        lookups.add_metric([outcome], count)
    yield lookups
    yield CounterMetricFamily("srsd_dns_seconds", "Time that those lookups took", dns["seconds"])
    yield CounterMetricFamily("srsd_dns_hits", "DNS lookups answered from the cache", dns["hits"])
    yield CounterMetricFamily("srsd_dns_queries", "DNS messages sent", dns["queries"])
    yield CounterMetricFamily("srsd_dns_timeouts", "DNS messages that nobody answered", dns["timeouts"])


class MetricsServer:
    """Answers GET /metrics, one request for each connection."""

    def __init__(self, status: Callable[[], Status]) -> None:
        self._registry = CollectorRegistry(auto_describe=False)
        self._registry.register(_StatusCollector(status))
        self._servers: list[asyncio.Server] = []

    async def start(self, listener: Listener) -> None:
        """Begin to accept."""
        listener.socket.setblocking(False)
        server = await asyncio.start_server(
            self._handle, sock=listener.socket.dup(), limit=_HEAD_MAXIMUM, backlog=BACKLOG
        )
        self._servers.append(server)

    async def _handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), _SECONDS)
            writer.write(self._respond(head.split(b"\r\n", 1)[0]))
            await asyncio.wait_for(writer.drain(), _SECONDS)
        except asyncio.CancelledError:
            return  # srsd ends
        except (ConnectionError, TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            pass  # no request, so nobody to answer
        finally:
            writer.close()

    def _respond(self, request_line: bytes) -> bytes:
        method, _, rest = request_line.partition(b" ")
        path = rest.split(b" ")[0].partition(b"?")[0]
        if method not in (b"GET", b"HEAD") or path not in (b"/metrics", b"/"):
            return b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
        body = generate_latest(self._registry)
        head = (
            f"HTTP/1.1 200 OK\r\nContent-Type: {CONTENT_TYPE_LATEST}\r\n"
            f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n"
        ).encode()
        return head if method == b"HEAD" else head + body

    def close(self) -> None:
        """Stop accepting."""
        for server in self._servers:
            server.close()
