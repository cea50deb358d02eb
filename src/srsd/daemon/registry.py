"""What a connection and whoever keeps all connections know of each other."""

from __future__ import annotations

from typing import Protocol


class Served(Protocol):
    """A connection that is being served.

    idle_seconds is how long it may be silent, slow_seconds how long it may be stuck. For whoever looks
    over all connections: active tells whether a request was finished since the last look, idle for how
    many looks in a row none was, and slow for how many of those its client was at fault.
    """

    idle_seconds: int
    slow_seconds: int
    active: bool
    idle: int
    slow: int

    @property
    def busy(self) -> bool:
        """Tell whether something has begun that should be finished."""
        ...

    @property
    def stuck(self) -> bool:
        """Tell whether the client owes something: the rest of a request, or to take a reply."""
        ...

    def finish(self) -> None:
        """End the connection as soon as nothing is unfinished; what is written still leaves."""
        ...

    def abort(self) -> None:
        """End the connection at once."""
        ...

    def close(self) -> None:
        """End the connection; replies that are written still leave, unless the client does not read."""
        ...


class Registry(Protocol):
    """Who knows all connections."""

    def opened(self, connection: Served) -> None:
        """Take a new connection in; may close it or another one."""
        ...

    def closed(self, connection: Served) -> None:
        """Forget a connection."""
        ...

    def cut(self) -> None:
        """Count a connection that is ended for what its client did."""
        ...

    def bug(self) -> None:
        """Count a bug of ours that a client met."""
        ...
