"""Answers that are kept for as long as their TTL says, within bounds of number and size."""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING, Any

from srsd.resolving import Answer, Outcome

if TYPE_CHECKING:
    from collections.abc import Callable

POSITIVE_MAXIMUM = 86400  # seconds
NEGATIVE_MAXIMUM = 3600  # RFC 2308 §5 finds one to three hours sensible
MINIMUM = 1  # also of what has TTL 0: the message that asked may ask again
WITHOUT_SOA = 5  # for "no such name" that says not for how long (RFC 2308 §5)
# Failures are kept so that a broken zone or server is not asked for each message (RFC 9520 §3.2), but
# only until a fault that is mended shows.
FAILURE = 5

# What entries may weigh on average, and one of them at most: nobody's zone drives out those of others.
_OCTETS_EACH = 1024
_ANSWER_MAXIMUM = 32 * 1024
# What CPython takes, roughly, beside the octets themselves.
_ENTRY_WEIGHT = 500
_RECORD_WEIGHT = 110

_Key = tuple[bytes, int]


class Cache:
    """Answers by (name in lower case without its trailing dot, record type), the least used leave first."""

    def __init__(self, size: int, clock: Callable[[], float]) -> None:
        self._size = size
        self._octets_maximum = size * _OCTETS_EACH
        self._answer_maximum = min(_ANSWER_MAXIMUM, self._octets_maximum)
        self._clock = clock
        self._entries: OrderedDict[_Key, tuple[Answer[Any], float, int]] = OrderedDict()
        self.octets = 0

    def __len__(self) -> int:
        """Count the entries, also those whose time is over but that nobody has asked for since."""
        return len(self._entries)

    def get(self, key: _Key) -> Answer[Any] | None:
        """Give the answer that is kept, with what is left of its time."""
        entry = self._entries.get(key)
        if entry is None:
            return None
        answer, expires, _ = entry
        left = expires - self._clock()
        if left <= 0:
            self._drop(key)
            return None
        self._entries.move_to_end(key)
        return Answer(answer[0], answer[1], answer[2], int(left))

    def put(self, key: _Key, answer: Answer[Any]) -> None:
        """Keep an answer for its ttl."""
        if key in self._entries:
            self._drop(key)
        weight = _weight(key, answer)
        if weight > self._answer_maximum:
            return
        self._entries[key] = (answer, self._clock() + answer.ttl, weight)
        self.octets += weight
        while len(self._entries) > self._size or self.octets > self._octets_maximum:
            _, (_, _, weight) = self._entries.popitem(last=False)
            self.octets -= weight

    def _drop(self, key: _Key) -> None:
        self.octets -= self._entries.pop(key)[2]

    def clear(self) -> None:
        """Forget everything."""
        self._entries.clear()
        self.octets = 0


def _weight(key: _Key, answer: Answer[Any]) -> int:
    """Estimate the octets of memory that an entry takes."""
    weight = _ENTRY_WEIGHT + len(key[0])
    for record in answer.records:
        octets = record if isinstance(record, bytes) else getattr(record, "exchange", b"")
        weight += _RECORD_WEIGHT + len(octets)
    return weight


def time_to_keep(outcome: Outcome, ttl: int | None) -> int:
    """Give the seconds for which an answer is kept; ttl is what the answer says, None for nothing."""
    if outcome.temporary:
        return FAILURE
    if ttl is None:
        return WITHOUT_SOA
    return max(MINIMUM, min(ttl, POSITIVE_MAXIMUM if outcome is Outcome.FOUND else NEGATIVE_MAXIMUM))
