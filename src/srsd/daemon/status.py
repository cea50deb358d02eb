"""What srsd tells of itself: the value behind `srsctl status --json` and the metrics."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypedDict

if TYPE_CHECKING:
    from srsd.daemon.counters import Snapshot


class Reload(TypedDict):
    """The last time that everything was read."""

    time: str  # ISO 8601
    good: bool
    faults: list[str]


class SecretState(TypedDict):
    """One secret, by its fingerprint."""

    fingerprint: str
    role: str
    first_seen: str | None  # ISO 8601
    age_days: int | None


class WorkerState(TypedDict):
    """What status tells of one process that answers."""

    pid: int | None
    state: str  # starting, running, frozen, waiting (to be started again)
    started: str | None  # ISO 8601
    restarts: int
    lookups: int


class Status(TypedDict):
    """The state of the daemon at one moment. Programs read it: names are added, never changed."""

    version: str
    pid: int
    started: str  # ISO 8601
    started_timestamp: float  # seconds since 1970
    uptime_seconds: int
    event_loop: str  # uvloop or asyncio
    configuration: str  # path
    last_reload: Reload
    listeners: list[str]  # kind=endpoint
    workers: list[WorkerState]
    secrets: list[SecretState]
    counters: Snapshot
    latency_bounds: list[float]  # seconds; the classes of counters.latency
    lookups_per_second: dict[str, float]  # over the last "1", "10" and "60" seconds
