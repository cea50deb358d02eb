"""One connection of an MTA to the milter: packets in, replies out, waiting while a decision is not there."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from typing import TYPE_CHECKING

from srsd.daemon.registry import Connection
from srsd.errors import ProtocolError
from srsd.wire.milter import Command, Decoder
from srsd.wire.milter_session import Session

if TYPE_CHECKING:
    from collections.abc import Awaitable

    from srsd.daemon.registry import Registry
    from srsd.wire.milter_session import Decision, Filter

_LOG = logging.getLogger(__name__)
PROGRESS_SECONDS = 10.0  # an MTA waits for minutes at the end of a message, others may wait for less


class MilterConnection(Connection):
    """Serves one MTA.

    A bug of ours costs the message that it met: that is refused for now, and the connection lives on.
    """

    __slots__ = ("_deciding", "_decoder", "_progress", "_session", "_waiting")

    # An SMTP session may stay open for long, and its milter connection with it (libmilter: 7210 s).
    idle_seconds = 7200
    # A packet that has begun comes at once, but a machine may be suspended or swap.
    slow_seconds = 300

    def __init__(self, registry: Registry, judge: Filter) -> None:
        super().__init__(registry)
        self._session = Session(judge)
        self._decoder = Decoder()
        self._deciding: asyncio.Task[None] | None = None
        self._progress: asyncio.TimerHandle | None = None
        self._waiting: deque[tuple[int, bytes]] = deque()  # packets behind a message that is not decided

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - asyncio's signature
        """End; a message that was not decided is the MTA's to try again."""
        self._waiting.clear()
        self._stop_deciding()
        self._session.close()
        self._registry.closed(self)

    def data_received(self, data: bytes) -> None:
        """Take what arrived; all replies that are due leave in one write."""
        try:
            packets = self._decoder.feed(data)
            if packets:
                self.active = True
            if self._waiting or self._deciding is not None:
                self._waiting += packets
            else:
                self._take(packets)
        except ProtocolError as error:
            self._cut(error)

    def _take(self, packets: list[tuple[int, bytes]]) -> None:
        """Have the session take packets, until one of them must wait for a decision."""
        session = self._session
        replies = []
        rest = iter(packets)
        for command, data in rest:
            try:
                reply = session.receive(command, data)
            except ProtocolError:
                raise
            except Exception:  # noqa: BLE001 - whatever it is, other messages go on
                self._bug()
                reply = session.failed(command)
            if reply:
                replies.append(reply)
            elif session.outcome is not None:
                self._waiting += rest
                self._wait_for(session.outcome)
                break
            elif session.finished:
                break
        if replies:
            self._transport.write(b"".join(replies))
        if session.finished or (self._finishing and not self.busy):
            self._transport.close()

    def _wait_for(self, outcome: Awaitable[Decision]) -> None:
        loop = asyncio.get_running_loop()
        self._transport.pause_reading()
        self._deciding = loop.create_task(self._decide(outcome))
        self._progress = loop.call_later(PROGRESS_SECONDS, self._keep_waiting)

    def _keep_waiting(self) -> None:
        self._transport.write(self._session.progress())
        self._progress = asyncio.get_running_loop().call_later(PROGRESS_SECONDS, self._keep_waiting)

    async def _decide(self, outcome: Awaitable[Decision]) -> None:
        session = self._session
        try:
            reply = session.answer(await outcome)
        except Exception:  # noqa: BLE001 - whatever it is, other messages go on
            self._bug()
            reply = session.failed(Command.END_OF_MESSAGE)
        self._deciding = None
        self._stop_deciding()
        self.active = True
        self._transport.write(reply)
        packets = list(self._waiting)
        self._waiting.clear()
        try:
            self._take(packets)
        except ProtocolError as error:
            self._cut(error)
            return
        if self._deciding is None and not self._paused:
            self._transport.resume_reading()

    def _stop_deciding(self) -> None:
        if self._progress is not None:
            self._progress.cancel()
            self._progress = None
        if self._deciding is not None:
            self._deciding.cancel()
            self._deciding = None

    def _bug(self) -> None:
        _LOG.exception(
            "%s: a bug in srsd, please report it; the message is refused for now and tried again",
            self._session.queue_id or "a message without a queue id",
        )
        self._registry.bug()

    def _cut(self, error: ProtocolError) -> None:
        _LOG.warning("a milter client was cut off: it sent %s", error)
        self._registry.cut()
        self._transport.abort()

    def resume_writing(self) -> None:
        """Go on with an MTA that reads again."""
        self._paused = False
        if self._deciding is None:
            self._transport.resume_reading()

    @property
    def busy(self) -> bool:
        """Tell whether a message has begun, or a packet is unfinished."""
        return self._session.in_message or self._decoder.pending

    @property
    def stuck(self) -> bool:
        """Tell whether the MTA owes the rest of a packet, or has a reply to take."""
        return bool(self._decoder.pending or self._transport.get_write_buffer_size())

    def finish(self) -> None:
        """End the connection as soon as it has no message; what is written still leaves."""
        self._finishing = True
        if not self.busy:
            self._transport.close()
