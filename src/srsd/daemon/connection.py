"""One connection to a table: cuts requests from the stream and writes their replies, in order."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from srsd.daemon.registry import Connection
from srsd.errors import ProtocolError

if TYPE_CHECKING:
    from srsd.daemon.registry import Registry
    from srsd.daemon.tables import Decoder, Table

_LOG = logging.getLogger(__name__)
_OUTPUT_MAXIMUM = 65536  # octets written before looking whether the client reads them


class LookupConnection(Connection):
    """Answers the requests of one client."""

    __slots__ = ("_decoder", "_table", "_waiting")

    idle_seconds = 1800  # a silent client is closed after half an hour, as PostSRSd does
    slow_seconds = 30  # a request may take this long to arrive, a reply to be read

    def __init__(self, registry: Registry, table: Table) -> None:
        super().__init__(registry)
        self._table = table
        self._decoder: Decoder | None = None  # only between reads that do not end with a request
        self._waiting: list[bytes] = []  # requests that wait until the client reads replies

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - asyncio's signature
        """End; whatever the reason, there is nobody to tell."""
        self._waiting = []
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
                self._transport.write(self._table.respond(data))
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
        if len(requests) == 1 and not self._waiting:
            self._transport.write(self._table.respond(requests[0]))
        elif requests:
            self._waiting += requests
            self._answer_waiting()
        if self._finishing:
            self.finish()

    def _answer_waiting(self) -> None:
        """Answer pipelined requests, many in one write, for as long as the client reads."""
        done = 0
        while done < len(self._waiting) and not self._paused:
            replies, size = [], 0
            while done < len(self._waiting) and size < _OUTPUT_MAXIMUM:
                reply = self._table.respond(self._waiting[done])
                replies.append(reply)
                size += len(reply)
                done += 1
            self._transport.write(b"".join(replies))
        del self._waiting[:done]

    def resume_writing(self) -> None:
        """Go on with a client that reads again."""
        self._paused = False
        self._answer_waiting()
        if self._finishing:
            self.finish()
        elif not self._paused:
            self._transport.resume_reading()

    @property
    def busy(self) -> bool:
        """Tell whether a request is unfinished, or a reply not taken."""
        return bool(self._decoder or self._waiting or self._transport.get_write_buffer_size())

    @property
    def stuck(self) -> bool:
        """Tell whether the client owes something: every unfinished request is its own affair."""
        return self.busy

    def finish(self) -> None:
        """End the connection as soon as no request of it is unfinished; what is written still leaves."""
        self._finishing = True
        if not self._decoder and not self._waiting:
            self._transport.close()
