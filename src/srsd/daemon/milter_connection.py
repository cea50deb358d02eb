"""One connection of an MTA to the milter: packets in, replies out, waiting while a decision is not there."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from typing import TYPE_CHECKING

from srsd.daemon.registry import Connection
from srsd.errors import ProtocolError
from srsd.wire.milter import Command, Decoder
from srsd.wire.milter_session import Delay, Session

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

    __slots__ = ("_deciding", "_decoder", "_held", "_progress", "_session", "_waiting")

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
        self._held: asyncio.TimerHandle | None = None  # until the answer to a recipient is given
        # Packets behind a message that is not decided, or a recipient that is not answered.
        self._waiting: deque[tuple[int, bytes]] = deque()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - asyncio's signature
        """End; a message that was not decided is the MTA's to try again."""
        self._waiting.clear()
        self._stop_deciding()
        self._stop_holding()
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
            elif self._held is not None:
                # Until then it is read, so that it is seen when the MTA leaves.
                if packets:
                    self._waiting += packets
                    self._transport.pause_reading()
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

    def _wait_for(self, outcome: Awaitable[Decision] | Delay) -> None:
        loop = asyncio.get_running_loop()
        if isinstance(outcome, Delay):
            seconds = 0.0 if self._finishing else outcome.seconds
            self._held = loop.call_later(seconds, self._answer_held)
            if self._waiting:
                self._transport.pause_reading()
            return
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
        self._go_on(reply)

    def _answer_held(self) -> None:
        """Give the answer to a recipient that was held back."""
        self._stop_holding()
        self._go_on(self._session.go_on())

    def _go_on(self, reply: bytes) -> None:
        """Give an answer that was waited for, and take what has come meanwhile."""
        self.active = True
        self._transport.write(reply)
        packets = list(self._waiting)
        self._waiting.clear()
        try:
            self._take(packets)
        except ProtocolError as error:
            self._cut(error)
            return
        if self._takes_more:
            self._transport.resume_reading()

    @property
    def _takes_more(self) -> bool:
        """Tell whether what the MTA sends next may be read."""
        return self._deciding is None and not self._waiting and not self._paused

    def _stop_holding(self) -> None:
        if self._held is not None:
            self._held.cancel()
            self._held = None

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
        if self._takes_more:
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
        if self._held is not None:  # nobody is kept waiting longer than srsd runs
            self._answer_held()
        if not self.busy:
            self._transport.close()
