"""Postfix's part in a load: clients that keep a connection, and clients that connect for each lookup.

with Load(address) as load:
    ...
assert not load.failures
"""

from __future__ import annotations

import re
import socket
import threading
import time
from typing import TYPE_CHECKING, NamedTuple, Self

from harness.daemon import DEADLINE

if TYPE_CHECKING:
    from collections.abc import Callable

PAUSE = 0.002  # seconds between the lookups of one client: the machine belongs to others too


class Failure(NamedTuple):
    """A lookup that was not answered."""

    kept: bool  # over a connection that had lookups before
    stage: str  # "connect", "request" (sent over an established connection) or "answer" (a wrong one)
    port: int  # ours, of the connection
    what: str


class Load:
    """Forward lookups from several threads. After a failure a client goes on with a new connection."""

    def __init__(
        self, address: tuple[str, int], *, keeping: int = 4, connecting: int = 4, domain: str = r"\S+"
    ) -> None:
        self._address = address
        self._reply = r"200 SRS0=\S+=%s@" + domain
        self.connecting = connecting
        self._ended = threading.Event()
        self._lock = threading.Lock()
        self._threads = [
            threading.Thread(target=self._run, args=(number, number < keeping))
            for number in range(keeping + connecting)
        ]
        self.failures: list[Failure] = []
        self.kept_ports: dict[int, int] = {}  # of each client that keeps its connection
        self.answered = 0
        self.slowest = 0.0  # seconds

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        """End all clients; each has the answer to its last lookup."""
        self._ended.set()
        for thread in self._threads:
            thread.join(3 * DEADLINE)
            assert not thread.is_alive(), "a client still waits for its answer"

    def goes_on(self, lookups: int = 200) -> Callable[[], bool]:
        """Return a condition: that many more lookups were answered since now."""
        goal = self.answered + lookups
        return lambda: self.answered >= goal

    def _run(self, number: int, kept: bool) -> None:
        connection: socket.socket | None = None
        count = 0
        self._ended.wait(0.005 * number)  # all at once, they would mostly go to the worker that woke first
        while not self._ended.wait(PAUSE):
            count += 1
            begun = time.monotonic()
            connection = self._look_up(connection, f"u{number}-{count % 50}", kept)
            if connection is not None:
                self.kept_ports[number] = connection.getsockname()[1]
            with self._lock:
                self.slowest = max(self.slowest, time.monotonic() - begun)
        if connection is not None:
            connection.close()

    def _look_up(self, connection: socket.socket | None, user: str, kept: bool) -> socket.socket | None:
        """Ask once; return the connection if it is to be used again."""
        stage, port = "connect", 0
        try:
            if connection is None:
                connection = socket.create_connection(self._address, timeout=DEADLINE)
            stage, port = "request", connection.getsockname()[1]
            connection.sendall(f"get {user}@origin.example\n".encode())
            reply = b""
            while not reply.endswith(b"\n"):
                octets = connection.recv(4096)
                if not octets:
                    raise EOFError("closed")
                reply += octets
            stage = "answer"
            if not re.fullmatch(self._reply % user, reply.decode().strip()):
                raise ValueError(reply)
        except (OSError, EOFError, ValueError) as error:
            with self._lock:
                self.failures.append(Failure(kept, stage, port, repr(error)))
            if connection is not None:
                connection.close()
            return None
        with self._lock:
            self.answered += 1
        if kept:
            return connection
        connection.close()
        return None
