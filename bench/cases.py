"""What is measured, and the targets."""

from dataclasses import dataclass

SRSD, ASYNCIO, PEER = "srsd", "srsd, plain asyncio", "PostSRSd"
LOOKUPS, CPU = "lookups_per_second", "cpu_us"
METRIC_NAMES = {LOOKUPS: "lookups/s", CPU: "CPU per lookup"}


@dataclass(frozen=True)
class Target:
    """Bound on the ratio srsd / PostSRSd of a metric, or on srsd's own figure."""

    metric: str
    bound: float
    at_most: bool = False

    def reached(self, figure: float) -> bool:
        return figure <= self.bound if self.at_most else figure >= self.bound

    def __str__(self) -> str:
        return f"{'<=' if self.at_most else '>='} {self.bound:g}"


@dataclass(frozen=True)
class Case:
    """One kind of load; targets compare srsd with PostSRSd."""

    name: str
    title: str
    servers: tuple[str, ...]
    endpoint: str = "srs_forward"
    new_keys: bool = False
    arguments: tuple[str, ...] = ()
    targets: tuple[Target, ...] = ()


ALL = (SRSD, PEER, ASYNCIO)
CASES = [
    Case(
        "repeated",
        "tcp_table forward, connections kept, {keys:,} keys repeated",
        ALL,
        targets=(Target(LOOKUPS, 0.9), Target(CPU, 0.8, at_most=True)),
    ),
    Case(
        "new",
        "tcp_table forward, connections kept, every key new",
        ALL,
        new_keys=True,
        targets=(Target(LOOKUPS, 0.55),),
    ),
    Case(
        "reconnect",
        "tcp_table forward, a connection per lookup, {keys:,} keys repeated",
        ALL,
        arguments=("--reconnect",),
        targets=(Target(LOOKUPS, 3.5),),
    ),
    Case(
        "reverse", "tcp_table reverse, connections kept, {keys:,} keys repeated", (SRSD, PEER), "srs_reverse"
    ),
    Case(
        "socketmap",
        "socketmap forward (unix socket), connections kept, {keys:,} keys repeated",
        (SRSD,),
        "socketmap",
        arguments=("--socketmap",),
    ),
]
RESIDENT = Target("resident_mb", 45, at_most=True)
READY = Target("ready_seconds", 0.6, at_most=True)
