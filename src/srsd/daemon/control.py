"""The control socket: one JSON object a line in each direction, for srsctl.

{"command": "status"} is answered with a Status, {"command": "reload"} with {"faults": [...]},
anything else with {"error": "..."}.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import pwd
import socket
import struct
from typing import TYPE_CHECKING, Any

from srsd.daemon.listeners import BACKLOG

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from srsd.daemon.listeners import Listener

_LOG = logging.getLogger(__name__)
_REQUEST_MAXIMUM = 4096  # octets
_CONNECTIONS_MAXIMUM = 32
_IDLE_SECONDS = 60
_CREDENTIALS = struct.Struct("3i")  # struct ucred of Linux: pid, uid, gid


class ControlServer:
    """Answers commands on control sockets, for root, the daemon's user and the socket's group."""

    def __init__(self, commands: dict[str, Callable[[], Awaitable[Any]]]) -> None:
        self._commands = commands
        self._servers: list[asyncio.Server] = []
        self._open = 0

    async def start(self, listener: Listener) -> None:
        """Begin to accept."""
        listener.socket.setblocking(False)
        group = os.stat(listener.socket.getsockname()).st_gid

        async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            peer = writer.get_extra_info("socket")
            self._open += 1
            try:
                if self._open > _CONNECTIONS_MAXIMUM or not _allowed(peer, group):
                    return
                await self._converse(reader, writer)
            except asyncio.CancelledError:
                return  # srsd ends
            except (ConnectionError, TimeoutError, ValueError):
                pass  # the client is gone, silent, or sends no line: there is nobody to tell
            finally:
                self._open -= 1
                writer.close()

        # The loop takes a descriptor of its own, so that the listener stays ours to close and remove.
        server = await asyncio.start_unix_server(
            handle, sock=listener.socket.dup(), limit=_REQUEST_MAXIMUM, backlog=BACKLOG
        )
        self._servers.append(server)

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while line := await asyncio.wait_for(reader.readline(), _IDLE_SECONDS):
            writer.write(json.dumps(await self._answer(line)).encode() + b"\n")
            await asyncio.wait_for(writer.drain(), _IDLE_SECONDS)

    async def _answer(self, line: bytes) -> Any:  # noqa: ANN401 - whatever the command gives
        try:
            name = json.loads(line)["command"]
            command = self._commands[name]
        except (ValueError, KeyError, TypeError, RecursionError):
            return {"error": "not a command"}
        return await command()

    def close(self) -> None:
        """Stop accepting."""
        for server in self._servers:
            server.close()


def _allowed(peer: socket.socket, group: int) -> bool:
    """Tell whether a client may command: root, the daemon's user, and who is in the socket's group."""
    credentials = peer.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    _, uid, gid = _CREDENTIALS.unpack(credentials)
    if uid in (0, os.geteuid()) or gid == group:
        return True
    with contextlib.suppress(KeyError):
        name = pwd.getpwuid(uid).pw_name
        if group in os.getgrouplist(name, gid):
            return True
    _LOG.warning("user %d was refused on the control socket: not root, nor in the socket's group", uid)
    return False
