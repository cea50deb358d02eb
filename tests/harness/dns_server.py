"""A name server on loopback, over UDP and TCP, in a thread of its own. Its wire format is dnspython's.

zones = {
    ("example.org", "TXT"): ["v=spf1 mx -all"],
    ("example.org", "MX"): [(10, "mail.example.org")],
    ("mail.example.org", "A"): Records(["192.0.2.1"], ttl=5),
    ("alias.example.org", "CNAME"): ["example.org"],
    ("two.example.org", "TXT"): [["the strings ", "of one record"]],
    ("empty.example.org", "TXT"): [],  # the name exists
    ("broken.example", "TXT"): Outcome.SERVER_FAILURE,
}
with DnsServer(zones) as server:
    server.script["slow.example.org"] = [Script(delay=2)]
    ...  # ask str(server), "127.0.0.1:PORT"
    assert server.asked == [("example.org", "TXT")]

A name that is not in zones, but has names below it, exists without records (RFC 8020); other names do not
exist. Negative answers have a SOA.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple, Self

import dns.flags
import dns.message
import dns.name
import dns.rcode
import dns.rdata
import dns.rdataclass
import dns.rdatatype
import dns.rrset

from harness.ports import free_port
from srsd.resolving import Outcome

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

DEADLINE = 20.0  # seconds for the thread to start or end
NEGATIVE_TTL = 60
_CHAIN_MAXIMUM = 20
_RECEIVE_BUFFER = 4 * 1024 * 1024  # octets; the kernel may allow less
_PLAIN_UDP_PAYLOAD = 512  # without EDNS, RFC 1035 §4.2.1
_RCODES = {
    Outcome.SERVER_FAILURE: dns.rcode.SERVFAIL,
    Outcome.REFUSED: dns.rcode.REFUSED,
    Outcome.NX_DOMAIN: dns.rcode.NXDOMAIN,
    Outcome.UNUSABLE: dns.rcode.NOTIMP,
}


class Records(NamedTuple):
    """Records with a TTL of their own."""

    values: Sequence[Any]
    ttl: int = 300


@dataclass
class Script:
    """How one query is treated. What is sent is made from the answer in the zones."""

    delay: float = 0.0  # seconds
    drop: bool = False
    rcode: int | None = None  # an error, without records
    truncate: bool = False  # over UDP: no records, but the TC bit
    authenticated: bool = False  # the AD bit
    edit: Callable[[dns.message.Message], None] | None = None  # change the response
    spoil: Callable[[bytes], bytes] | None = None  # change its octets
    before: Sequence[Callable[[bytes], bytes]] = ()  # what is sent before it, each made from its octets
    from_other_port: bool = False  # over UDP
    tcp: str = ""  # over TCP: "close" before the answer, "part" of it only, "hang"
    no_edns: bool = False  # an error for a query that has EDNS
    no_edns_rcode: int = dns.rcode.FORMERR


class Asked(NamedTuple):
    """A query as it came."""

    message: dns.message.Message
    source: tuple[Any, ...]
    tcp: bool


def wrong_id(data: bytes) -> bytes:
    """Spoil a response: it answers another query."""
    return bytes((data[0] ^ 0x55, data[1])) + data[2:]


def wrong_question(data: bytes) -> bytes:
    """Spoil a response: the first letter of the name is another one."""
    letter = ord("x") if data[13:14] != b"x" else ord("y")
    return data[:13] + bytes((letter,)) + data[14:]


def garbage(data: bytes) -> bytes:
    """Spoil a response: the header and the question are right, the rest is none."""
    message = dns.message.from_wire(data)
    end = 12 + len(message.question[0].name.to_wire()) + 4
    return data[:4] + b"\0\1\0\1\0\0\0\0" + data[12:end] + b"\xc0\xff" * 9


@dataclass
class DnsServer:
    """The server. Changes to zones count when it is started."""

    zones: Mapping[tuple[str, str], Any] = field(default_factory=dict)
    host: str = "127.0.0.1"
    tcp: bool = True
    # By name: how its queries are treated one after the other; the last one goes for all that follow.
    script: dict[str, list[Script]] = field(default_factory=dict)
    default: Script = field(default_factory=Script)
    port: int = 0
    queries: list[Asked] = field(default_factory=list)

    @property
    def asked(self) -> list[tuple[str, str]]:
        """Name and type of all queries so far."""
        return [
            (_text(each.message.question[0].name), dns.rdatatype.to_text(each.message.question[0].rdtype))
            for each in self.queries
        ]

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    # The thread.

    def start(self) -> None:
        """Listen; on the port of before if there was one."""
        self._load()
        self._family = socket.AF_INET6 if ":" in self.host else socket.AF_INET
        self._udp, self._listener = self._bind()
        self.port = self._udp.getsockname()[1]
        self._other = socket.socket(self._family, socket.SOCK_DGRAM)
        started = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve(started)), daemon=True)
        self._thread.start()
        assert started.wait(DEADLINE)

    def stop(self) -> None:
        """End; what is delayed is never sent."""
        self._loop.call_soon_threadsafe(self._ended.set)
        self._thread.join(DEADLINE)
        assert not self._thread.is_alive()
        for each in (self._udp, self._other, self._listener):
            each.close()

    def _bind(self) -> tuple[socket.socket, socket.socket]:
        """Bind both sockets to the same port."""
        for _ in range(20):
            udp = socket.socket(self._family, socket.SOCK_DGRAM)
            listener = socket.socket(self._family, socket.SOCK_STREAM)
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            # The scope of a link-local address is a number of its own there.
            address = socket.getaddrinfo(self.host, self.port or free_port())[0][4]
            try:
                udp.bind(address)
                listener.bind(address)
            except OSError:
                udp.close()
                listener.close()
                if self.port:
                    raise
                continue
            # A test sends hundreds of queries before this thread has its turn.
            udp.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _RECEIVE_BUFFER)
            if self.tcp:
                listener.listen()
            udp.setblocking(False)
            listener.setblocking(False)
            return udp, listener
        raise OSError("no free port for both UDP and TCP")

    async def _serve(self, started: threading.Event) -> None:
        self._loop = asyncio.get_running_loop()
        self._ended = asyncio.Event()
        self._connections: set[asyncio.Task[None]] = set()
        self._loop.add_reader(self._udp, self._readable)
        accepting = self._loop.create_task(self._accept()) if self.tcp else None
        started.set()
        await self._ended.wait()
        self._loop.remove_reader(self._udp)
        tasks = [*self._connections, *([accepting] if accepting else [])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    # UDP.

    def _readable(self) -> None:
        with contextlib.suppress(BlockingIOError):
            while True:
                data, source = self._udp.recvfrom(65535)
                script, response, others = self._respond(data, source, tcp=False)
                if not script.drop:
                    self._loop.call_later(script.delay, self._send, script, [*others, response], source)

    def _send(self, script: Script, datagrams: list[bytes], source: tuple[Any, ...]) -> None:
        for datagram in datagrams:
            with contextlib.suppress(OSError):  # whoever asked may be gone
                (self._other if script.from_other_port else self._udp).sendto(datagram, source)

    # TCP.

    async def _accept(self) -> None:
        while True:
            connection, source = await self._loop.sock_accept(self._listener)
            task = self._loop.create_task(self._answer(connection, source))
            self._connections.add(task)
            task.add_done_callback(self._connections.discard)

    async def _answer(self, connection: socket.socket, source: tuple[Any, ...]) -> None:
        with connection, contextlib.suppress(OSError):
            while len(size := await self._receive(connection, 2)) == 2:
                data = await self._receive(connection, int.from_bytes(size, "big"))
                script, response, _ = self._respond(data, source, tcp=True)
                if script.tcp == "close":
                    return
                if script.tcp == "hang" or script.drop:
                    await asyncio.sleep(DEADLINE)
                await asyncio.sleep(script.delay)
                whole = len(response).to_bytes(2, "big") + response
                await self._loop.sock_sendall(connection, whole[:-1] if script.tcp == "part" else whole)
                if script.tcp == "part":
                    return

    async def _receive(self, connection: socket.socket, size: int) -> bytes:
        received = b""
        while len(received) < size:
            chunk = await self._loop.sock_recv(connection, size - len(received))
            if not chunk:
                break
            received += chunk
        return received

    # Answers.

    def _respond(
        self, data: bytes, source: tuple[Any, ...], *, tcp: bool
    ) -> tuple[Script, bytes, list[bytes]]:
        """Give how to treat a query, the response, and what is sent before it."""
        query = dns.message.from_wire(data)
        self.queries.append(Asked(query, source, tcp))
        question = query.question[0]
        name = _text(question.name)
        scripts = self.script.get(name)
        script = self.default if not scripts else scripts[0] if len(scripts) == 1 else scripts.pop(0)
        response = dns.message.make_response(query, recursion_available=True)
        if script.no_edns and query.edns >= 0:
            response = dns.message.make_response(query, recursion_available=True)
            response.use_edns(False)
            response.set_rcode(script.no_edns_rcode)
        elif script.rcode is not None:
            response.set_rcode(script.rcode)
        else:
            self._fill(response, name, dns.rdatatype.to_text(question.rdtype))
        if self._zones.get((name, dns.rdatatype.to_text(question.rdtype))) is Outcome.TIMED_OUT:
            script = Script(drop=True)
        if script.authenticated:
            response.flags |= dns.flags.AD
        if script.edit:
            script.edit(response)
        octets = response.to_wire(max_size=65535)
        payload = query.payload if query.edns >= 0 else _PLAIN_UDP_PAYLOAD
        if not tcp and (script.truncate or len(octets) > payload):
            octets = _truncated(query)
        if script.spoil:
            octets = script.spoil(octets)
        return script, octets, [spoil(octets) for spoil in script.before]

    def _load(self) -> None:
        self._zones = {
            (name.lower().rstrip("."), kind): Records(value) if isinstance(value, list) else value
            for (name, kind), value in self.zones.items()
        }
        self._names = set()
        for name, _ in self._zones:
            while name not in self._names:
                self._names.add(name)
                name = name.partition(".")[2]  # noqa: PLW2901 - up to the root

    def _fill(self, response: dns.message.Message, name: str, kind: str) -> None:
        """Add the records that answer, through CNAMEs, or say that there are none."""
        for _ in range(_CHAIN_MAXIMUM):
            value = self._zones.get((name, kind))
            if isinstance(value, Outcome):
                if value in _RCODES:
                    response.set_rcode(_RCODES[value])
                break
            if value is not None and value.values:
                response.answer += _rrsets(name, kind, value)
                return
            alias = self._zones.get((name, "CNAME"))
            if not alias:
                break
            response.answer += _rrsets(name, "CNAME", alias)
            name = _text(_name(alias.values[0]))
        else:
            return
        if response.rcode() == dns.rcode.NOERROR and name not in self._names:
            response.set_rcode(dns.rcode.NXDOMAIN)
        if response.rcode() in (dns.rcode.NOERROR, dns.rcode.NXDOMAIN):
            response.authority.append(_SOA)


def soa(minimum: int, *, ttl: int = 86400, owner: str = ".") -> dns.rrset.RRset:
    """Make the SOA of a negative answer."""
    return dns.rrset.from_text(owner, ttl, "IN", "SOA", f"ns.invalid. root.invalid. 1 2 3 4 {minimum}")


_SOA = soa(NEGATIVE_TTL)


def _truncated(query: dns.message.Message) -> bytes:
    response = dns.message.make_response(query, recursion_available=True)
    response.flags |= dns.flags.TC
    return response.to_wire()


def _text(name: dns.name.Name) -> str:
    return b".".join(name.labels[:-1]).decode(errors="surrogateescape").lower()


def _rrsets(name: str, kind: str, records: Records) -> list[dns.rrset.RRset]:
    """Make a set for each record: dnspython would change the order of those in one."""
    rrsets = []
    for value in records.values:
        octets = _rdata(kind, value)
        rdata = dns.rdata.from_wire(dns.rdataclass.IN, dns.rdatatype.from_text(kind), octets, 0, len(octets))
        rrsets.append(dns.rrset.from_rdata(_name(name), records.ttl, rdata))
    return rrsets


def _octets(value: str | bytes) -> bytes:
    return value.encode(errors="surrogateescape") if isinstance(value, str) else value


def _name(value: str | bytes) -> dns.name.Name:
    """Take the octets as they are: a backslash is no escape."""
    return dns.name.Name(
        [*_octets(value).removesuffix(b".").split(b"."), b""] if value not in ("", ".") else [b""]
    )


def _rdata(kind: str, value: Any) -> bytes:
    """Make the octets of a record from what FakeResolver takes, too; a list for TXT is its strings."""
    if kind == "TXT":
        if isinstance(value, list):
            strings = [_octets(each) for each in value] or [b""]
        else:
            text = _octets(value)
            strings = [text[at : at + 255] for at in range(0, len(text) or 1, 255)]
        return b"".join(bytes((len(each),)) + each for each in strings)
    if kind == "MX":
        return int(value[0]).to_bytes(2, "big") + _name(value[1]).to_wire()
    if kind == "A":
        return socket.inet_aton(value)
    if kind == "AAAA":
        return socket.inet_pton(socket.AF_INET6, value)
    return _name(value).to_wire()
