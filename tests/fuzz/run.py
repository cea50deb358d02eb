"""Runs fuzz targets: python tests/fuzz/run.py [TARGET ...] [--seconds 60] [--seed N] [--input N]."""

from __future__ import annotations

import argparse
import secrets
import signal
import sys
import time
from contextlib import contextmanager
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # where it is run as a script

from fuzz.mutator import Mutator
from fuzz.targets import TARGETS, Target
from fuzz.targets_arc import ARC_TARGETS
from fuzz.targets_authres import AUTHRES_TARGETS
from fuzz.targets_dkim import DKIM_TARGETS
from fuzz.targets_dkim_tables import DKIM_TABLE_TARGETS
from fuzz.targets_dmarc import DMARC_TARGETS
from fuzz.targets_dns import TARGETS as DNS_TARGETS
from fuzz.targets_mail import MAIL_TARGETS
from fuzz.targets_milter import MILTER_TARGETS
from fuzz.targets_spf import SPF_TARGETS

if TYPE_CHECKING:
    from collections.abc import Iterator

for more in (
    ARC_TARGETS,
    AUTHRES_TARGETS,
    DKIM_TARGETS,
    DKIM_TABLE_TARGETS,
    DMARC_TARGETS,
    DNS_TARGETS,
    MAIL_TARGETS,
    MILTER_TARGETS,
    SPF_TARGETS,
):
    TARGETS.update(more)

_SECONDS_AT_LEAST = 0.02  # for any input: what a busy machine adds
_HANGS_AFTER = 10.0  # seconds of processor time
_SHOWN_MAXIMUM = 400


class BrokenPromiseError(Exception):
    """A parser did not do what it promises; the text says with what."""


def fuzz(name: str, seconds: float, seed: int) -> int:
    """Feed a target for some seconds, its seeds first; gives the number of inputs."""
    end = time.monotonic() + seconds
    number = 0
    seeds = len(TARGETS[name].seeds)
    while number < seeds or time.monotonic() < end:
        fuzz_one(name, seed, number)
        number += 1
    return number


def fuzz_one(name: str, seed: int, number: int) -> None:
    """Feed one input, which the seed and its number make. Raises BrokenPromiseError."""
    target = TARGETS[name]
    random = Random(f"{name} {seed} {number}")
    mutator = Mutator(target.seeds, target.words, target.size_maximum)
    data = target.seeds[number] if number < len(target.seeds) else mutator.make(random)
    try:
        with _limit():
            _time(target, data)
            target.check(data, random)
    except Exception as error:
        shown = repr(data[:_SHOWN_MAXIMUM]) + (
            f"... ({len(data)} octets)" if len(data) > _SHOWN_MAXIMUM else ""
        )
        again = f"python tests/fuzz/run.py {name} --seed {seed} --input {number}"
        raise BrokenPromiseError(
            f"{name}: {type(error).__name__}: {error}\n{shown}\nagain: {again}"
        ) from error


def _time(target: Target, data: bytes) -> None:
    """Hold that a parser takes no more than so much for each octet, in the best of three tries."""
    slack = 5 if "coverage" in sys.modules else 1  # what is measured is slower
    allowed = _SECONDS_AT_LEAST + slack * len(data) * target.microseconds_per_octet / 1e6
    took = 0.0
    for _ in range(3):
        begin = time.thread_time()
        target.parse(data)
        took = time.thread_time() - begin
        if took <= allowed:
            return
    raise AssertionError(f"took {took:.3f} s, for {len(data)} octets it may take {allowed:.3f} s")


@contextmanager
def _limit() -> Iterator[None]:
    """End what hangs."""

    def stop(*_: object) -> None:
        raise TimeoutError(f"not done after {_HANGS_AFTER} s")

    former = signal.signal(signal.SIGVTALRM, stop)
    signal.setitimer(signal.ITIMER_VIRTUAL, _HANGS_AFTER)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, former)


def say(text: str) -> None:
    """Print at once, also into a pipe."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def main() -> int:
    """Run what the command line asks for; gives the exit status."""
    parser = argparse.ArgumentParser(description="Feed parsers what nobody sends.")
    parser.add_argument("targets", nargs="*", metavar="TARGET", help=f"of {', '.join(TARGETS)}; default: all")
    parser.add_argument("--seconds", type=float, default=60.0, help="for each target (default: %(default)s)")
    parser.add_argument("--seed", type=int, help="the same seed makes the same inputs (default: a new one)")
    parser.add_argument("--input", type=int, help="only the input of this number")
    options = parser.parse_args()
    if unknown := set(options.targets) - set(TARGETS):
        parser.error(f"no such target: {', '.join(sorted(unknown))}")
    seed = options.seed if options.seed is not None else secrets.randbits(32)
    status = 0
    for name in options.targets or TARGETS:
        try:
            if options.input is not None:
                fuzz_one(name, seed, options.input)
                say(f"{name}: seed {seed}, input {options.input}: good")
            else:
                inputs = fuzz(name, options.seconds, seed)
                say(f"{name}: seed {seed}, {inputs} inputs in {options.seconds:g} s: good")
        except BrokenPromiseError as error:
            say(str(error))
            status = 1
    return status


if __name__ == "__main__":
    sys.exit(main())
