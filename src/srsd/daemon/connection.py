"""One connection to a table: cuts requests from the stream and writes their replies, in order."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

from srsd.daemon.registry import Connection
from srsd.errors import ProtocolError

if TYPE_CHECKING:
    from collections.abc import Coroutine

    from srsd.daemon.registry import Registry
    from srsd.daemon.tables import Decoder, Table

_LOG = logging.getLogger(__name__)
_OUTPUT_MAXIMUM = 65536  # octets written before looking whether the client reads them


class LookupConnection(Connection):
    """Answers the requests of one client."""

    __slots__ = ("_decoder", "_pending", "_table", "_waiting")

    idle_seconds = 1800  # a silent client is closed after half an hour, as PostSRSd does
    slow_seconds = 30  # a request may take this long to arrive, a reply to be read

    def __init__(self, registry: Registry, table: Table) -> None:
        super().__init__(registry)
        self._table = table
        self._decoder: Decoder | None = None  # only between reads that do not end with a request
        self._waiting: list[bytes] = []  # requests that wait: for the client to read, or for a reply before
        self._pending: asyncio.Task[bytes] | None = None  # a reply that waits for the store

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - asyncio's signature
        """End; whatever the reason, there is nobody to tell."""
        self._waiting = []
        if self._pending is not None:
            self._pending.cancel()
        self._registry.closed(self)

    def data_received(self, data: bytes) -> None:
        """Answer the requests that these octets complete."""
        decoder = self._decoder
        if decoder is None:
            # Nearly every read is one whole request, and most were seen before.
            known = self._table.replies.get(data)
            if known is not None:
                reply, tally = known
                tally.count += 1
                self.active = True
                self._transport.write(reply)
                return
            if self._table.is_whole(data):
                self.active = True
                ready = self._table.respond(data)
                if isinstance(ready, bytes):
                    self._transport.write(ready)
                else:
                    self._wait_for(ready)
                return
            decoder = self._table.make_decoder()
        try:
            requests = decoder.feed(data)
        except ProtocolError as error:
            _LOG.warning("a client was cut off: it sent %s", error)
            self._registry.cut()
            self._transport.abort()
            return
        self._decoder = decoder if decoder.pending else None
        if requests:
            self.active = True
        self._waiting += requests
        self._answer_waiting()
        if self._finishing:
            self.finish()

    def _answer_waiting(self) -> None:
        """Answer what waits, many in one write, for as long as the client reads and no reply is pending."""
        done = 0
        while done < len(self._waiting) and not self._paused and self._pending is None:
            replies, size = [], 0
            while done < len(self._waiting) and size < _OUTPUT_MAXIMUM and self._pending is None:
                reply = self._table.respond(self._waiting[done])
                done += 1
                if isinstance(reply, bytes):
                    replies.append(reply)
                    size += len(reply)
                else:
                    self._wait_for(reply)
            if replies:
                self._transport.write(b"".join(replies))
        if done:
            del self._waiting[:done]

    def _wait_for(self, reply: Coroutine[None, None, bytes]) -> None:
        """Write a reply once it is there; until then nothing else is answered, or read."""
        self._pending = asyncio.get_running_loop().create_task(reply)
        self._pending.add_done_callback(self._write_pending)
        self._transport.pause_reading()

    def _write_pending(self, pending: asyncio.Task[bytes]) -> None:
        """Write the reply that is there now, and go on."""
        if pending.cancelled() or self._transport.is_closing():  # there is nobody to tell
            return
        self._pending = None
        self.active = True
        try:
            self._transport.write(pending.result())
        except Exception:
            self._transport.abort()  # as asyncio does with a bug in data_received
            raise
        self._go_on()

    def _go_on(self) -> None:
        """Answer what waits; read again, or end, where that is possible."""
        self._answer_waiting()
        if self._finishing and self._decoder is None:
            self.finish()
        elif not self._paused and self._pending is None:  # the rest of a request, or the next one
            self._transport.resume_reading()

    def resume_writing(self) -> None:
        """Go on with a client that reads again."""
        self._paused = False
        self._go_on()

    @property
    def busy(self) -> bool:
        """Tell whether a request is unfinished, or a reply not taken."""
        return bool(
            self._pending or self._decoder or self._waiting or self._transport.get_write_buffer_size()
        )

    @property
    def stuck(self) -> bool:
        """Tell whether the client owes something: every unfinished request that is not pending."""
        return self._pending is None and self.busy

    def finish(self) -> None:
        """End the connection as soon as no request of it is unfinished; what is written still leaves."""
        self._finishing = True
        if not self._decoder and not self._waiting and self._pending is None:
            self._transport.close()
