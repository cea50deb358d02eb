"""A worker process: answers on listeners that the supervisor handed over, from material that it sends.

Started as `python -m srsd.daemon.worker CHANNEL_FD KIND:FD ...`, by the supervisor only.
"""

from __future__ import annotations

import asyncio
import signal
import socket
import sys

from srsd.daemon.channel import Channel, unpack
from srsd.daemon.event_loop import loop_factory, settle
from srsd.daemon.listeners import Listener
from srsd.daemon.serving import Serving
from srsd.daemon.tracebacks import dump_on_sigquit


def main() -> None:
    """Work until the supervisor says so, or is gone."""
    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # the supervisor's to obey
    channel = socket.socket(fileno=int(sys.argv[1]))
    listeners = []
    for argument in sys.argv[2:]:
        kind, _, descriptor = argument.partition(":")
        listeners.append(Listener(kind, socket.socket(fileno=int(descriptor))))
    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        runner.run(_work(channel, listeners))


async def _work(end: socket.socket, listeners: list[Listener]) -> None:
    dump_on_sigquit()
    loop = asyncio.get_running_loop()
    ended = asyncio.Event()
    loop.add_signal_handler(signal.SIGTERM, ended.set)
    channel = await Channel.open(end)
    message = await channel.receive()
    if message is None:
        return
    serving = Serving(unpack(message["material"]))
    settle()
    await serving.start(listeners)
    channel.send({"ready": True})
    obeying = loop.create_task(_obey(channel, serving, ended))
    beating = loop.create_task(_beat(channel, serving))
    await ended.wait()
    obeying.cancel()
    beating.cancel()
    await serving.drain()
    channel.send({"counters": serving.snapshot()})
    channel.close()


async def _obey(channel: Channel, serving: Serving, ended: asyncio.Event) -> None:
    """Take new material in force as it comes. Without a supervisor, end."""
    while message := await channel.receive():
        serving.put_in_force(unpack(message["material"]))
        channel.send({"in_force": True})
    ended.set()


async def _beat(channel: Channel, serving: Serving) -> None:
    """Show every second that this process is alive, and what it has done."""
    while True:
        serving.tick()
        channel.send({"counters": serving.snapshot()})
        await asyncio.sleep(1)


if __name__ == "__main__":
    main()
