"""Many long senders at once: each is stored, and reversed after a kill. "make stored" takes 100,000 of them."""

from __future__ import annotations

import asyncio
import os
import signal
import time

import pytest

from harness.running import control, running, until, workers

COUNT = int(os.environ.get("SRSD_TEST_ADDRESSES", "4000"))
CONNECTIONS = 64


def sender(number: int) -> bytes:
    return b"bounces+%d-%s=customers.example@lists%d.origin.example" % (number, b"x" * 40, number % 1000)


async def ask_all(address: tuple[str, int], keys: list[bytes]) -> list[bytes]:
    """Ask for all keys over many connections, one question at a time on each."""
    replies: list[bytes] = [b""] * len(keys)
    left = iter(range(len(keys)))

    async def client() -> None:
        reader, writer = await asyncio.open_connection(*address)
        for number in left:
            writer.write(b"get %b\n" % keys[number])
            replies[number] = (await reader.readline()).rstrip()
        writer.close()
        await writer.wait_closed()

    await asyncio.gather(*(client() for _ in range(CONNECTIONS)))
    return replies


@pytest.mark.parametrize("number", [1, 2])
def test_all_are_stored_and_reversed(number):
    with running(workers=number, srs={"envelope": "auto"}) as srsd:
        senders = [sender(each) for each in range(COUNT)]
        begin = time.monotonic()
        made = asyncio.run(ask_all(srsd.inet("srs_forward"), senders))
        stored = COUNT / (time.monotonic() - begin)
        assert all(each.startswith(b"200 SRS0=") and b"=_=" in each for each in made)
        assert len(set(made)) == COUNT
        assert max(len(each.partition(b"@")[0]) for each in made) - len("200 ") <= 64
        for pid in (srsd.pid, *workers(srsd)):
            os.kill(pid, signal.SIGKILL)
        srsd.wait()
        srsd.start()
        begin = time.monotonic()
        back = asyncio.run(ask_all(srsd.inet("srs_reverse"), [each.removeprefix(b"200 ") for each in made]))
        recalled = COUNT / (time.monotonic() - begin)
        assert back == [b"200 " + each for each in senders]
        until("size", lambda: control(srsd, "status")["counters"]["store"]["addresses"] == COUNT, 15)
        octets = control(srsd, "status")["counters"]["store"]["octets"]
        figures = f"{COUNT} addresses, {number} workers: {stored:.0f}/s stored, {recalled:.0f}/s recalled"
        print(f"\n{figures}, {octets / COUNT:.0f} octets each")  # noqa: T201 - what "make stored" is for
