"""The name servers that are asked, and which of them first."""

from __future__ import annotations

import asyncio
import logging
import socket
from ipaddress import IPv4Address, IPv6Address
from typing import TYPE_CHECKING

from srsd.daemon.dns.tcp import ask_over_tcp
from srsd.daemon.dns.udp import Query, SocketAddress, UdpSockets
from srsd.daemon.watched_file import WatchedFile
from srsd.errors import ConfigError
from srsd.syntax.name_server import NameServer, parse_name_server

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from srsd.daemon.dns.counters import DnsCounters
    from srsd.daemon.dns.messages import Question
    from srsd.daemon.dns.udp import Inbox

_LOG = logging.getLogger(__name__)
_SERVERS_MAXIMUM = 8  # of resolv.conf; the system's own resolver stops at three
_LOCAL = (NameServer(IPv4Address("127.0.0.1")),)  # resolv.conf(5): where there is no other

# A server that was silent is asked after all others for so many seconds, and twice as long each time.
_BACK_OFF = 10.0
_BACK_OFF_MAXIMUM = 120.0
# A server that refused EDNS is spared it for so long; it may be another one's fault, passed on.
_PLAIN_SECONDS = 600.0
_TCP_MAXIMUM = 32  # connections at once, to one server


class Server:
    """One name server: its sockets, and how it behaved."""

    def __init__(self, name_server: NameServer, counters: DnsCounters, clock: Callable[[], float]) -> None:
        self.name_server = name_server
        self.answers = 0  # that came from it, of whatever kind
        self.silent_until = 0.0
        self._silences = 0
        self._plain_until = 0.0
        self._closed = False
        self._clock = clock
        self._counters = counters
        self._udp = UdpSockets(name_server, counters, clock)
        self._tcp = asyncio.Semaphore(_TCP_MAXIMUM)

    def ask(self, question: Question, inbox: Inbox, *, edns: bool) -> bool:
        """Send a question over UDP; False when the server cannot be reached."""
        if self._closed:
            return False
        try:
            self._udp.send(_socket_address(self.name_server), Query(question, edns, inbox))
        except OSError:
            return False
        return True

    async def ask_over_tcp(self, question: Question, *, edns: bool) -> bytes | None:
        """Ask over TCP; None for what is no answer to the question. Raises OSError. Takes its time."""
        address = _socket_address(self.name_server)
        async with self._tcp:
            self._counters.queries += 1
            return await ask_over_tcp(address, question, edns=edns)

    def answered(self) -> None:
        """Note that it is alive."""
        self.answers += 1
        self._silences = 0
        self.silent_until = 0.0

    def was_silent(self) -> None:
        """Note that it answered nobody for a while."""
        now = self._clock()
        if now >= self.silent_until:  # of many questions at once, the first counts
            self.silent_until = now + min(_BACK_OFF * 2**self._silences, _BACK_OFF_MAXIMUM)
            self._silences = min(self._silences + 1, 10)

    @property
    def speaks_edns(self) -> bool:
        """Tell whether to ask it with EDNS: yes, unless it did not understand that of late."""
        return not self._plain_until or self._clock() >= self._plain_until

    def dislikes_edns(self) -> None:
        """Note that it answered without EDNS what it would not answer with it."""
        if self.speaks_edns:
            self._plain_until = self._clock() + _PLAIN_SECONDS

    def look_over(self) -> None:
        """Close sockets that are old."""
        self._udp.look_over(self._clock())

    def retire(self) -> None:
        """Keep no socket open for longer than a query."""
        self._udp.retire()

    def close(self) -> None:
        """Close all sockets for good; whoever waits for an answer learns that there is none."""
        self._closed = True
        self._udp.close()


def _socket_address(name_server: NameServer) -> SocketAddress:
    """Give the address as sockets have it. Raises OSError for a scope that is no interface."""
    address, port = name_server
    if isinstance(address, IPv4Address):
        return SocketAddress(socket.AF_INET, (str(address), port))
    scope = address.scope_id
    index = 0
    if scope is not None:
        index = int(scope) if scope.isdecimal() else socket.if_nametoindex(scope)
    return SocketAddress(socket.AF_INET6, (str(IPv6Address(int(address))), port, 0, index))


def parse_resolv_conf(text: bytes) -> tuple[NameServer, ...]:
    """Find the name servers in a resolv.conf(5). srsd has its own options, and asks for whole names only."""
    found = []
    for line in text.decode(errors="replace").split("\n"):
        words = line.split()
        if len(words) < 2 or words[0] != "nameserver":
            continue
        try:
            found.append(parse_name_server(words[1]))
        except ValueError:
            _LOG.warning("resolv.conf: %r is no name server", words[1])
    return tuple(dict.fromkeys(found[:_SERVERS_MAXIMUM])) or _LOCAL


class Servers:
    """The name servers of the configuration, or else those of resolv.conf, read again when it changes."""

    def __init__(
        self,
        configured: Sequence[str],
        counters: DnsCounters,
        clock: Callable[[], float],
        resolv_conf: str,
    ) -> None:
        """Find them. Raises ValueError for what parse_name_server does not understand."""
        self._counters = counters
        self._clock = clock
        self._file: WatchedFile[tuple[NameServer, ...]] | None = None
        self._servers: list[Server] = []
        if configured:
            self._use(parse_name_server(text) for text in configured)
            return
        self._file = WatchedFile(resolv_conf, parse_resolv_conf, may_be_absent=True)
        try:
            self._file.load()
        except ConfigError as error:
            for line in error.lines():
                _LOG.error("%s; 127.0.0.1 is asked instead", line)
            self._file.value = _LOCAL
        self._use(self._file.value)

    def _use(self, name_servers: Iterable[NameServer]) -> None:
        """Ask these from now on. What is known of those that stay is kept."""
        known = {server.name_server: server for server in self._servers}
        self._servers = [
            known[each] if each in known else Server(each, self._counters, self._clock)
            for each in dict.fromkeys(name_servers)
        ]
        for server in known.values():
            if server not in self._servers:
                server.close()

    def tick(self) -> None:
        """Look at resolv.conf, and close old sockets; once a second."""
        if self._file is not None and self._file.poll():
            self._use(self._file.value)
        for server in self._servers:
            server.look_over()

    def in_order(self) -> list[Server]:
        """Give the servers, those that were silent of late last."""
        if len(self._servers) == 1:
            return self._servers
        now = self._clock()
        if all(server.silent_until <= now for server in self._servers):
            return self._servers
        return sorted(self._servers, key=lambda server: max(server.silent_until, now))

    def retire(self) -> None:
        """Keep no socket open for longer than a query."""
        for server in self._servers:
            server.retire()

    def close(self) -> None:
        """Close all sockets."""
        for server in self._servers:
            server.close()
