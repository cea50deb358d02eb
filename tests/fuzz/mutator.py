"""Makes inputs for parsers: seeds that are cut, joined, repeated and damaged at random."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence
    from random import Random

_STEPS_MAXIMUM = 6  # changes to one input; most have fewer
_SMALL = 1000  # octets
_BIG_PROBABILITY = 0.05  # of a big piece: it costs the time of many small inputs


class Mutator:
    """Changes seeds; words are what the grammar is made of. The same Random gives the same input."""

    def __init__(self, seeds: Sequence[bytes], words: Sequence[bytes], size_maximum: int) -> None:
        self._seeds = _by_size(seeds)
        self._words = _by_size(words)
        self._size_maximum = size_maximum
        once = (self._insert, self._cut, self._copy, self._join, self._repeat)
        self._changes = (self._set, self._word) * 2 + once

    def make(self, random: Random) -> bytes:
        """Make an input."""
        data = _pick(self._seeds, random)
        for _ in range(random.randint(0, _STEPS_MAXIMUM)):
            change = random.choice(self._changes)
            data = change(data, random)
        return data[: self._size_maximum]

    def _set(self, data: bytes, random: Random) -> bytes:
        at = random.randint(0, len(data))
        return data[:at] + random.randbytes(1) + data[at + 1 :]

    def _insert(self, data: bytes, random: Random) -> bytes:
        at = random.randint(0, len(data))
        return data[:at] + random.randbytes(random.randint(1, 8)) + data[at:]

    def _word(self, data: bytes, random: Random) -> bytes:
        begin, end = (
            self._slice(data, random) if random.random() < 0.5 else (random.randint(0, len(data)),) * 2
        )
        return data[:begin] + _pick(self._words, random) + data[end:]

    def _cut(self, data: bytes, random: Random) -> bytes:
        begin, end = self._slice(data, random)
        return data[:begin] + data[end:]

    def _copy(self, data: bytes, random: Random) -> bytes:
        begin, end = self._slice(data, random)
        at = random.randint(0, len(data))
        return data[:at] + data[begin:end] + data[at:]

    def _join(self, data: bytes, random: Random) -> bytes:
        other = _pick(self._seeds, random)
        return data[: random.randint(0, len(data))] + other[random.randint(0, len(other)) :]

    def _repeat(self, data: bytes, random: Random) -> bytes:
        """Repeat a short piece, now and then to the greatest size: what is not linear shows."""
        begin = random.randint(0, len(data))
        piece = data[begin : begin + random.randint(1, 8)]
        room = self._size_maximum - len(data)
        if not piece or room <= 0:
            return data
        times = random.randint(1, 40) if random.random() > _BIG_PROBABILITY else room // len(piece)
        return data[:begin] + piece * times + data[begin:]

    @staticmethod
    def _slice(data: bytes, random: Random) -> tuple[int, int]:
        begin = random.randint(0, len(data))
        return begin, min(len(data), begin + random.choice((1, 2, 4, 16, 64, 1024)))


def _by_size(pieces: Sequence[bytes]) -> tuple[list[bytes], list[bytes]]:
    """Part pieces into small and big ones; where there are none of a kind, all stand in for it."""
    small = [piece for piece in pieces if len(piece) <= _SMALL]
    big = [piece for piece in pieces if len(piece) > _SMALL]
    return small or big, big or small


def _pick(pieces: tuple[list[bytes], list[bytes]], random: Random) -> bytes:
    return random.choice(pieces[random.random() < _BIG_PROBABILITY])
