"""What tests of the DNS client share: event loops, a clock that tests turn, and a resolver that is closed."""

from __future__ import annotations

import asyncio
import contextlib
import os
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest

from srsd.daemon.dns.resolver import StubResolver
from srsd.daemon.event_loop import loop_factory
from srsd.resolving import DnsParameters

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Coroutine

PATIENT = 8.0  # seconds: a query is sent again after one of them, so a busy machine sends none twice
HURRIED = 0.4  # where nobody answers: a query is sent again after 50 ms


class Clock:
    """A clock that stands still unless it is turned."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@asynccontextmanager
async def asking(
    *servers: object,
    clock: Callable[[], float] | None = None,
    resolv_conf: str = "/absent",
    **parameters: Any,
) -> AsyncIterator[StubResolver]:
    """Give a resolver that asks these servers; at the end it is closed, and has left no socket open.

    Without a clock, no time passes for its cache.
    """
    before = descriptors()
    parameters = {"timeout": PATIENT, **parameters}
    resolver = StubResolver(
        DnsParameters(nameservers=tuple(map(str, servers)), **parameters),
        resolv_conf=resolv_conf,
        clock=clock or Clock(),
    )
    try:
        yield resolver
    finally:
        await resolver.close()
    assert not descriptors() - before


def descriptors() -> set[str]:
    """Give the UDP sockets of this process that are connected: the servers in its threads have none."""
    inodes = set()
    for table in ("udp", "udp6"):
        with (
            contextlib.suppress(FileNotFoundError),
            open(f"/proc/self/net/{table}", encoding="ascii") as lines,
        ):
            inodes |= {line.split()[9] for line in list(lines)[1:] if not line.split()[2].endswith(":0000")}
    found = set()
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):  # the directory itself is open only while it is read
            found.add(os.readlink(f"/proc/self/fd/{name}"))
    return found & {f"socket:[{inode}]" for inode in inodes}


def loop_factories() -> list[Any]:
    """Give both event loops that srsd runs on, as parameters of a fixture."""
    found = loop_factory()
    missing = [pytest.mark.skip(reason="uvloop is not installed")] if found is asyncio.new_event_loop else []
    return [
        pytest.param(asyncio.new_event_loop, id="asyncio"),
        pytest.param(found, id="uvloop", marks=missing),
    ]


def runner(factory: Callable[[], asyncio.AbstractEventLoop]) -> Callable[[Coroutine[Any, Any, Any]], Any]:
    """Give what runs a coroutine to its end in such a loop; a task that is left over is a fault."""

    def run(coroutine: Coroutine[Any, Any, Any]) -> Any:
        async def main() -> Any:
            result = await coroutine
            assert asyncio.all_tasks() == {asyncio.current_task()}
            return result

        with asyncio.Runner(loop_factory=factory) as each:
            return each.run(main())

    return run
