"""What every connection is to whoever keeps them all, and the other way round."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from typing import ClassVar, Protocol, cast


class Registry(Protocol):
    """Who knows all connections."""

    def opened(self, connection: Connection) -> None:
        """Take a new connection in; may close it or another one."""
        ...

    def closed(self, connection: Connection) -> None:
        """Forget a connection."""
        ...

    def cut(self) -> None:
        """Count a connection that is ended for what its client did."""
        ...

    def bug(self) -> None:
        """Count a bug of ours that a client met."""
        ...


class Connection(asyncio.Protocol, ABC):
    """A connection that is being served. What its client does wrong costs it this one and nothing else.

    idle_seconds is how long it may be silent, slow_seconds how long it may be stuck. For whoever looks
    over all connections: active tells whether a request was finished since the last look, idle for how
    many looks in a row none was, and slow for how many of those its client was at fault.
    """

    __slots__ = ("_finishing", "_paused", "_registry", "_transport", "active", "idle", "slow")

    idle_seconds: ClassVar[int]
    slow_seconds: ClassVar[int]

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self._transport: asyncio.Transport
        self._paused = False  # the client does not read
        self._finishing = False
        self.active = False
        self.idle = -1  # the look that finds it new does not count
        self.slow = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin."""
        self._transport = cast("asyncio.Transport", transport)
        self._registry.opened(self)

    @property
    @abstractmethod
    def busy(self) -> bool:
        """Tell whether something has begun that should be finished."""

    @property
    @abstractmethod
    def stuck(self) -> bool:
        """Tell whether the client owes something: the rest of a request, or to take a reply."""

    @abstractmethod
    def finish(self) -> None:
        """End the connection as soon as nothing is unfinished; what is written still leaves."""

    def pause_writing(self) -> None:
        """Stop reading from a client that does not read."""
        self._paused = True
        self._transport.pause_reading()

    def abort(self) -> None:
        """End the connection at once."""
        self._transport.abort()

    def close(self) -> None:
        """End the connection; replies that are written still leave, unless the client does not read."""
        if self._paused:
            self._transport.abort()
        else:
            self._transport.close()
