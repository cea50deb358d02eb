"""What is due every second stays due, whatever went wrong the second before."""

from __future__ import annotations

import asyncio

from srsd.daemon import lifecycle
from srsd.daemon.lifecycle import Daemon


class Sources:
    def poll(self) -> bool:
        return False


class Workforce:
    """Its tick fails the first time."""

    def __init__(self) -> None:
        self.ticks = 0

    def tick(self) -> None:
        self.ticks += 1
        if self.ticks == 1:
            raise RuntimeError("boom")

    def snapshots(self) -> list:
        return []


def test_a_bug_in_one_second_does_not_stop_the_next(monkeypatch, caplog):
    workforce = Workforce()
    seconds = 0

    async def sleep(_: float) -> None:
        nonlocal seconds
        seconds += 1
        if seconds > 3:
            raise asyncio.CancelledError

    async def run() -> None:
        daemon = Daemon("/srsd.toml", Sources(), workforce, [], None)
        monkeypatch.setattr(lifecycle.asyncio, "sleep", sleep)
        try:
            await daemon._tick()
        except asyncio.CancelledError:
            return

    asyncio.run(run())
    assert workforce.ticks == 3
    (record,) = caplog.records
    assert "a bug in srsd" in record.getMessage()
