"""systemd's part: sockets that outlive srsd (sd_listen_fds(3)), and the messages of sd_notify(3)."""

from __future__ import annotations

import os
import socket
import sys
import threading
from typing import TYPE_CHECKING, Self

from harness.daemon import DEADLINE, command

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

# Puts the sockets where sd_listen_fds(3) has them, and becomes srsd under the pid it names.
_LAUNCHER = """
import os, sys
handed = [int(each) for each in sys.argv[1].split(",")]
kept = [os.dup(each) for each in handed]  # so that none is in the way of another
for each in handed:
    os.close(each)
kept = [os.dup2(each, 100 + index) for index, each in enumerate(kept)]
for index, each in enumerate(kept):
    os.dup2(each, 3 + index)
    os.close(each)
os.environ |= {"LISTEN_FDS": str(len(handed)), "LISTEN_PID": str(os.getpid())}
os.execv(sys.argv[2], sys.argv[2:])
"""


def activated(sockets: Sequence[socket.socket]) -> list[str]:
    """Return what runs srsd on sockets that the caller listens on, and passes as pass_fds."""
    descriptors = ",".join(str(each.fileno()) for each in sockets)
    return [sys.executable, "-c", _LAUNCHER, descriptors, *command()]


def listen_inet() -> socket.socket:
    """Listen on a free loopback port, as a socket unit does."""
    return socket.create_server(("127.0.0.1", 0), backlog=4096)


def listen_unix(path: Path) -> socket.socket:
    """Listen on a unix socket, as a socket unit does."""
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listener.bind(str(path))
    listener.listen(4096)
    return listener


class NotifySocket:
    """Collects what srsd says to $NOTIFY_SOCKET."""

    def __init__(self, address: str) -> None:
        """Listen at a path, or at an abstract address that begins with @."""
        self.address = address
        self.messages: list[str] = []
        self._changed = threading.Condition()
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind("\0" + address[1:] if address.startswith("@") else address)
        self._thread = threading.Thread(target=self._collect)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
            sender.sendto(b"", self._socket.getsockname())  # the end
        self._thread.join(DEADLINE)
        self._socket.close()
        if not self.address.startswith("@"):
            os.unlink(self.address)

    def _collect(self) -> None:
        while message := self._socket.recv(4096).decode():
            with self._changed:
                self.messages.append(message)
                self._changed.notify_all()

    def wait_for(self, wanted: Callable[[list[str]], bool]) -> None:
        """Wait until the messages so far satisfy a condition."""
        with self._changed:
            assert self._changed.wait_for(lambda: wanted(self.messages), DEADLINE), self.messages
