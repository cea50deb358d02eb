"""What became of a message, for the log, the counters, and those who ask why."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from srsd.filter.forwarding import NOT_HERE
from srsd.filter.sealing import Seal
from srsd.filter.verdict import ACCEPTED

if TYPE_CHECKING:
    from srsd.filter.forwarding import Rewriting
    from srsd.filter.results import Results
    from srsd.filter.signing import Signatures
    from srsd.filter.transaction import Transaction
    from srsd.filter.verdict import Verdict
    from srsd.wire.milter_session import Decision


class Timings(NamedTuple):
    """How long it took, and what DNS had to do with it."""

    seconds: float = 0.0  # from the end of the envelope to the decision
    dns_seconds: float = 0.0  # in which answers of DNS were awaited: for SPF, or for the rest if that is more
    dns_queries: int = 0  # that the cache did not answer


class Report(NamedTuple):
    """The whole reasoning about one message, and what was decided."""

    queue_id: bytes
    transaction: Transaction
    results: Results
    signatures: Signatures
    forgeries: int  # Authentication-Results that claimed to be ours, and were removed
    decision: Decision
    seal: Seal = Seal()
    verdict: Verdict = ACCEPTED
    timings: Timings = Timings()
    rewriting: Rewriting = NOT_HERE
