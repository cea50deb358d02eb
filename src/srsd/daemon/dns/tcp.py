"""A question over TCP, for answers that are too long for UDP: one connection for each (RFC 7766)."""

from __future__ import annotations

import asyncio
import os
import socket
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from srsd.daemon.dns.messages import Question
    from srsd.daemon.dns.udp import SocketAddress

_LENGTH_SIZE = 2  # octets before each message (RFC 1035 §4.2.2), so none is above 65535


async def ask_over_tcp(address: SocketAddress, question: Question, *, edns: bool) -> bytes | None:
    """Ask a name server; None for what is no answer to the question. Raises OSError. Takes its time."""
    loop = asyncio.get_running_loop()
    identifier = os.urandom(2)
    query = question.query(int.from_bytes(identifier, "big"), edns=edns)
    with socket.socket(address.family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK) as connection:
        await _connect(loop, connection, address)
        await loop.sock_sendall(connection, len(query).to_bytes(_LENGTH_SIZE, "big") + query)
        length = await _receive(loop, connection, _LENGTH_SIZE)
        data = await _receive(loop, connection, int.from_bytes(length, "big"))
    return data if data.startswith(identifier) and question.is_answered_by(data) else None


async def _connect(
    loop: asyncio.AbstractEventLoop, connection: socket.socket, address: SocketAddress
) -> None:
    """Connect, or find that this fails: then sending raises OSError, if not this.

    The event loop's sock_connect will not do: uvloop's loses the scope of link-local addresses.
    """
    try:
        connection.connect(address.address)
    except BlockingIOError:
        connected = asyncio.Event()
        loop.add_writer(connection, connected.set)
        try:
            await connected.wait()
        finally:
            loop.remove_writer(connection)


async def _receive(loop: asyncio.AbstractEventLoop, connection: socket.socket, size: int) -> bytes:
    """Receive so many octets. Raises ConnectionError when there are fewer."""
    received = bytearray()
    while len(received) < size:
        chunk = await loop.sock_recv(connection, size - len(received))
        if not chunk:
            raise ConnectionResetError
        received += chunk
    return bytes(received)
