"""A milter that is not ours, for before and behind srsd in smtpd_milters. It answers every event, and edits each message.

with ThirdMilter([insert(0, "X-Scanned", "yes")]) as other:
    main_cf = f"smtpd_milters = inet:127.0.0.1:{other.port}, $srsd_milter\\n"
    ...
    assert other.seen == [[(b"From", b" alice@example.com"), ...]]  # the header of each message, as Postfix shows it
"""

from __future__ import annotations

import socketserver
import struct
import threading
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from collections.abc import Sequence

ADD_HEADERS, CHANGE_HEADERS = 0x01, 0x10  # what it may change
LEADING_SPACE = 0x100000  # names and values without any blank taken or added
NO_REPLY_DUE = b"DAQK"  # macros, abort, and both kinds of quit


def insert(index: int, name: str, value: str) -> bytes:
    """Put a field before the one that is number index of all fields, Postfix's own Received counted."""
    return b"i" + struct.pack(">I", index) + _field(name, value)


def add(name: str, value: str) -> bytes:
    """Put a field below all others."""
    return b"h" + _field(name, value)


def change(index: int, name: str, value: str) -> bytes:
    """Replace the value of the index-th field of that name, from 1; "" deletes it."""
    return b"m" + struct.pack(">I", index) + (_field(name, value) if value else f"{name}\0\0".encode())


def _field(name: str, value: str) -> bytes:
    return f"{name}\0 {value}\0".encode()


class ThirdMilter:
    """The milter, with a thread for each connection."""

    def __init__(self, changes: Sequence[bytes] = ()) -> None:
        self.changes = list(changes)  # made in each message, in this order
        self.seen: list[list[tuple[bytes, bytes]]] = []
        self._server = _Server(("127.0.0.1", 0), _Connection)
        self._server.milter = self
        self.port = self._server.server_address[1]

    @property
    def endpoint(self) -> str:
        """What smtpd_milters calls it."""
        return f"inet:127.0.0.1:{self.port}"

    def __enter__(self) -> Self:
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


class _Server(socketserver.ThreadingTCPServer):
    milter: ThirdMilter
    daemon_threads = True
    block_on_close = False


class _Connection(socketserver.StreamRequestHandler):
    server: _Server

    def handle(self) -> None:
        fields: list[tuple[bytes, bytes]] = []
        while len(head := self.rfile.read(5)) == 5:
            size, command = struct.unpack(">Ic", head)
            data = self.rfile.read(size - 1)
            if command == b"O":
                offered = struct.unpack(">3I", data[:12])[2]
                wanted = struct.pack(">3I", 6, ADD_HEADERS | CHANGE_HEADERS, LEADING_SPACE & offered)
                self._send(b"O" + wanted)
            elif command == b"E":
                milter = self.server.milter
                milter.seen.append(fields)
                self._send(*milter.changes, b"c")
            elif command not in NO_REPLY_DUE:
                if command == b"M":
                    fields = []
                elif command == b"L":
                    name, value, _ = data.split(b"\0")
                    fields.append((name, value))
                self._send(b"c")

    def _send(self, *packets: bytes) -> None:
        self.wfile.write(b"".join(struct.pack(">I", len(packet)) + packet for packet in packets))
