"""What the black-box tests speak with srsd: both wires over every family, and SRS computed on its own."""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
import socket
import struct
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Self

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

    from harness.daemon import Srsd

DEADLINE = 10.0  # seconds: only a hang takes as long
SRS_DOMAIN = "fwd.example.net"
SECRET = "first-secret-of-the-tests"
OTHER_SECRET = "second-secret-of-the-tests"
SECRETS = (SECRET, OTHER_SECRET)


def until(what: str, condition: Callable[[], Any], deadline: float = DEADLINE) -> Any:
    """Return what condition returns once it is true; fail when that takes longer than the deadline."""
    end = time.monotonic() + deadline
    while time.monotonic() < end:
        if result := condition():
            return result
        time.sleep(0.02)
    pytest.fail(f"no {what} within {deadline} s")


# SRS, written down once more for the tests.


def today() -> int:
    return int(time.time()) // 86400


def stamp(day: int) -> bytes:
    digits = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567"
    return bytes((digits[day >> 5 & 31], digits[day & 31]))


def srs_hash(text: bytes, secret: str = SECRET, length: int = 4) -> bytes:
    digest = hmac.digest(secret.encode(), text.lower(), hashlib.sha1)
    return base64.b64encode(digest, altchars=b"-_")[:length]


def srs0(
    local_part: bytes, host: bytes, *, secret: str = SECRET, age: int = 0, domain: str = SRS_DOMAIN
) -> bytes:
    """Return the SRS0 address that is made of local_part@host, unquoted."""
    when = stamp(today() - age)
    digest = srs_hash(when + host + local_part, secret)
    return b"SRS0=%b=%b=%b=%b@%b" % (digest, when, host, local_part, domain.encode())


def srs1(rest: bytes, host: bytes, *, secret: str = SECRET, domain: str = SRS_DOMAIN) -> bytes:
    """Return the SRS1 address of SRS0 + rest at another forwarder."""
    return b"SRS1=%b=%b=%b@%b" % (srs_hash(host + rest, secret), host, rest, domain.encode())


# Connections.


def connect(endpoint: str, deadline: float = DEADLINE) -> socket.socket:
    """Connect to an endpoint as the ready line names it."""
    kind, _, rest = endpoint.partition(":")
    if kind == "unix":
        connection = socket.socket(socket.AF_UNIX)
        try:
            connection.connect(rest)  # with a timeout a full backlog would be an error at once
        except OSError:
            connection.close()
            raise
        connection.settimeout(deadline)
        return connection
    host, _, port = rest.rpartition(":")
    connection = socket.create_connection((host.strip("[]"), int(port)), timeout=deadline)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return connection


def leave_with_reset(connection: socket.socket) -> None:
    """Close so that the peer gets a reset, and no TIME_WAIT stays behind."""
    if connection.family != socket.AF_UNIX:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()


class Reply(NamedTuple):
    """A reply of either wire."""

    status: str  # "found", "not found", "temporary" or "permanent"
    text: bytes


class Wire(NamedTuple):
    """A way to ask srsd: a protocol over an address family."""

    protocol: str  # "tcp_table" or "socketmap"
    family: str  # "ipv4", "ipv6" or "unix"

    def __str__(self) -> str:
        return f"{self.protocol}-{self.family}"

    def endpoint(self, srsd: Srsd, direction: str) -> str:
        name = f"srs_{direction}" if self.protocol == "tcp_table" else "socketmap"
        start = {"ipv4": "inet:127", "ipv6": "inet:[", "unix": "unix:"}[self.family]
        return next(each for each in srsd.endpoints[name] if each.startswith(start))

    def request(self, direction: str, key: bytes) -> bytes:
        if self.protocol == "tcp_table":
            return tcp_request(key)
        return netstring(direction.encode() + b" " + key)

    def client(self, srsd: Srsd, direction: str = "forward") -> Client:
        return Client(self, connect(self.endpoint(srsd, direction)), direction)

    def ask(self, srsd: Srsd, direction: str, key: bytes) -> Reply:
        """Ask one question over a connection of its own."""
        with self.client(srsd, direction) as client:
            return client.ask(key)


WIRES = [
    Wire("tcp_table", "ipv4"),
    Wire("tcp_table", "ipv6"),
    Wire("socketmap", "ipv4"),
    Wire("socketmap", "ipv6"),
    Wire("socketmap", "unix"),
]
TCP_TABLE = WIRES[0]
SOCKETMAP = WIRES[4]
BOTH = [TCP_TABLE, SOCKETMAP]  # one for each protocol, where the family changes nothing


def tcp_request(key: bytes) -> bytes:
    encoded = b"".join(
        b"%c" % octet if 0x21 <= octet < 0x7F and octet != ord("%") else b"%%%02X" % octet for octet in key
    )
    return b"get " + encoded + b"\n"


def netstring(content: bytes) -> bytes:
    return b"%d:%b," % (len(content), content)


class Client:
    """One connection, and the replies that come over it."""

    def __init__(self, wire: Wire, connection: socket.socket, direction: str) -> None:
        self.wire = wire
        self.socket = connection
        self.direction = direction
        self._buffer = b""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def ask(self, key: bytes) -> Reply:
        self.send(key)
        return self.reply()

    def send(self, *keys: bytes) -> None:
        self.socket.sendall(b"".join(self.wire.request(self.direction, key) for key in keys))

    def send_raw(self, octets: bytes) -> None:
        self.socket.sendall(octets)

    def no_more(self) -> None:
        """Say that no request follows; replies may still come."""
        self.socket.shutdown(socket.SHUT_WR)

    def reply(self) -> Reply:
        """Return the next reply; EOFError when srsd closed instead."""
        return self._tcp_reply() if self.wire.protocol == "tcp_table" else self._netstring_reply()

    def replies(self, count: int) -> list[Reply]:
        return [self.reply() for _ in range(count)]

    def is_closed(self) -> bool:
        """Wait for srsd to close; tell whether it did so without another octet."""
        try:
            return not self._buffer and self.socket.recv(1) == b""
        except ConnectionResetError:
            return True

    def _tcp_reply(self) -> Reply:
        while b"\n" not in self._buffer:
            self._receive()
        line, _, self._buffer = self._buffer.partition(b"\n")
        assert len(line) < 4096, "tcp_table(5): a reply has at most 4096 octets"
        code, space, text = line.partition(b" ")
        assert space, line
        assert re.fullmatch(rb"[!-$&-~]*(%[0-9a-fA-F]{2}[!-$&-~]*)*", text), f"not encoded: {line!r}"
        decoded = re.sub(rb"%(..)", lambda octet: bytes.fromhex(octet[1].decode()), text)
        return Reply({b"200": "found", b"500": "not found", b"400": "temporary"}[code], decoded)

    def _netstring_reply(self) -> Reply:
        while b":" not in self._buffer:
            self._receive()
        digits, _, self._buffer = self._buffer.partition(b":")
        length = int(digits)
        assert digits == b"%d" % length
        while len(self._buffer) <= length:
            self._receive()
        content, comma = self._buffer[:length], self._buffer[length : length + 1]
        self._buffer = self._buffer[length + 1 :]
        assert comma == b","
        word, space, text = content.partition(b" ")
        assert space, content
        words = {b"OK": "found", b"NOTFOUND": "not found", b"TEMP": "temporary", b"PERM": "permanent"}
        return Reply(words[word], text)

    def _receive(self) -> None:
        octets = self.socket.recv(65536)
        if not octets:
            raise EOFError(f"srsd closed; before that it sent {self._buffer!r}")
        self._buffer += octets


# What a process holds, as the kernel tells it.


def descriptor_count(pid: int) -> int:
    return len(list(Path(f"/proc/{pid}/fd").iterdir()))


def process_status(pid: int, field: str) -> list[str]:
    """Return the words after a field of /proc/PID/status."""
    text = Path(f"/proc/{pid}/status").read_text()
    line = re.search(rf"^{field}:(.*)$", text, re.MULTILINE)
    assert line, text
    return line[1].split()


def resident_megabytes(pid: int) -> float:
    return int(process_status(pid, "VmRSS")[0]) / 1024


def check_log(lines: list[str]) -> None:
    """Hold what is true of every log: no secret stands in it, and nothing of srsd fell over."""
    text = "\n".join(lines)
    for secret in SECRETS:
        assert secret not in text
    assert "Traceback" not in text, text
    assert "Warning:" not in text, text
    assert "was never" not in text, text
