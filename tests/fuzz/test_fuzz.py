"""Every fuzz target for half a second; `make fuzz` takes longer."""

from __future__ import annotations

from random import Random

import pytest

from fuzz import run
from fuzz.mutator import Mutator
from fuzz.targets import TARGETS, Target


@pytest.mark.parametrize("name", TARGETS)
def test_the_parser_keeps_its_promises(name):
    assert run.fuzz(name, 0.5, seed=1) >= len(TARGETS[name].seeds)


def test_the_same_seed_makes_the_same_inputs():
    target = TARGETS["address"]
    mutator = Mutator(target.seeds, target.words, target.size_maximum)
    first = [mutator.make(Random(number)) for number in range(200)]
    assert first == [mutator.make(Random(number)) for number in range(200)]
    assert len(set(first)) > 150


def _quadratic(data: bytes) -> None:
    for _ in range(len(data)):
        data.count(b"y")


def _choosy(data: bytes, _: Random) -> None:
    if b"xx" in data:
        raise KeyError("xx")


def _hangs(_data: bytes, _: Random) -> None:
    while True:
        pass


@pytest.mark.parametrize(
    ("target", "says"),
    [
        (Target(lambda _: None, _choosy, [b"x"], [b"x"]), "KeyError"),
        (Target(_quadratic, lambda *_: None, [b"x" * 25_000], [b"x"]), "it may take"),
        (Target(lambda _: None, _hangs, [b"x"], [b"x"]), "not done after"),
    ],
    ids=["exception", "slow", "hanging"],
)
def test_a_broken_promise_is_found_and_can_be_repeated(monkeypatch, target, says):
    monkeypatch.setitem(TARGETS, "broken", target)
    if says == "not done after":
        monkeypatch.setattr(run, "_HANGS_AFTER", 0.2)
    with pytest.raises(run.BrokenPromiseError, match=says) as found:
        run.fuzz("broken", 10, seed=1)
    number = int(str(found.value).rpartition("--input ")[2])
    with pytest.raises(run.BrokenPromiseError, match=says):
        run.fuzz_one("broken", 1, number)
