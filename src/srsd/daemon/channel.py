"""The channel between the supervisor and a worker: JSON lines over a socket pair."""

from __future__ import annotations

import asyncio
import contextlib
import json
from base64 import b64decode, b64encode
from typing import TYPE_CHECKING, Any

from srsd.daemon.files import Material

if TYPE_CHECKING:
    import socket

_LINE_MAXIMUM = 256 * 1024 * 1024  # material holds whole files


class Channel:
    """One end of a channel. Messages are JSON objects."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    @classmethod
    async def open(cls, end: socket.socket) -> Channel:
        """Make a channel of one end of a socket pair."""
        return cls(*await asyncio.open_unix_connection(sock=end, limit=_LINE_MAXIMUM))

    def send(self, message: dict[str, Any]) -> None:
        """Send a message; one that nobody takes is lost with the process that does not."""
        # uvloop raises when the other end has just gone; the end of the channel says so anyway.
        with contextlib.suppress(RuntimeError):
            if not self._writer.is_closing():
                self._writer.write(json.dumps(message).encode() + b"\n")

    async def receive(self) -> dict[str, Any] | None:
        """Wait for a message; None when the other end is gone."""
        try:
            line = await self._reader.readline()
        except ConnectionError:
            return None
        if not line.endswith(b"\n"):
            return None
        message: dict[str, Any] = json.loads(line)
        return message

    def close(self) -> None:
        """Close this end."""
        self._writer.close()


def pack(material: Material) -> list[str]:
    """Make material fit for a message."""
    return [b64encode(text).decode() for text in material]


def unpack(texts: list[str]) -> Material:
    """Take material out of a message."""
    return Material(*(b64decode(text) for text in texts))
