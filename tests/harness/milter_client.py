"""The MTA's side of the milter protocol, after Postfix 3.7's milter8.c and, where it differs, Sendmail 8.

with MilterClient.of("unix:/run/srsd/milter") as mta:      # or "inet:127.0.0.1:8891"; it negotiates
    mta.connect(b"mail.example", "192.0.2.1")
    mta.helo(b"mail.example")
    outcome = mta.message(b"<a@example.org>", [b"<b@example.net>"], [(b"Subject", b" x")], b"body\\r\\n")
    outcome.verdict                                        # "continue", "accept", "tempfail", ...
    outcome.headers                                        # the header as Postfix would now store it

It spells and parses by its own code, and raises MilterFault for an answer that an MTA would not take: one that
is malformed, that comes unasked, that is not legal at its event, or that was not agreed.
Header values begin right after the colon, so with their blank.
"""

from __future__ import annotations

import socket
import struct
from typing import TYPE_CHECKING, Any, NamedTuple, Self

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

DEADLINE = 10.0  # seconds: only a hang takes as long
CHUNK = 65535  # octets of body that one packet has at most
REPLY_MAXIMUM = 1 << 20  # octets; Postfix takes more, nothing of srsd needs as much

# Commands.
ABORT, BODY, CONNECT, MACRO, EOM, HELO = b"A", b"B", b"C", b"D", b"E", b"H"
QUIT_NC, HEADER, MAIL, EOH, NEGOTIATE, QUIT = b"K", b"L", b"M", b"N", b"O", b"Q"
RCPT, DATA, UNKNOWN = b"R", b"T", b"U"

# What an MTA lets a milter change.
ADD_HEADERS, CHANGE_BODY, ADD_RECIPIENTS, DELETE_RECIPIENTS = 0x01, 0x02, 0x04, 0x08
CHANGE_HEADERS, QUARANTINE, CHANGE_SENDER, ADD_RECIPIENTS_ESMTP, SET_MACROS = 0x10, 0x20, 0x40, 0x80, 0x100
ALL_ACTIONS = 0x1FF

# Steps: which events are not sent (by command), and which get no reply.
NOT_SENT = {
    CONNECT: 0x01, HELO: 0x02, MAIL: 0x04, RCPT: 0x08, BODY: 0x10, HEADER: 0x20, EOH: 0x40, UNKNOWN: 0x100,
    DATA: 0x200,
}  # fmt: skip
NO_REPLY = {
    HEADER: 0x80, CONNECT: 0x1000, HELO: 0x2000, MAIL: 0x4000, RCPT: 0x8000, DATA: 0x10000, UNKNOWN: 0x20000,
    EOH: 0x40000, BODY: 0x80000,
}  # fmt: skip
SKIP, REJECTED_RECIPIENTS, LEADING_SPACE = 0x400, 0x800, 0x100000
ALL_STEPS = 0x1FFFFF
_EVENTS = 0x7F
# What Postfix offers, as milter_protocol says.
STEPS = {2: _EVENTS, 3: _EVENTS | 0x100, 4: _EVENTS | 0x300, 5: _EVENTS | 0x300, 6: ALL_STEPS}

STAGES = (CONNECT, HELO, MAIL, RCPT, DATA, EOM, EOH)  # in the order of SMFIM_*
DEFAULT_MACROS = {
    CONNECT: (b"j", b"{daemon_name}", b"{daemon_addr}", b"v", b"_"),
    HELO: (b"{tls_version}", b"{cipher}", b"{cipher_bits}", b"{cert_subject}", b"{cert_issuer}"),
    MAIL: (
        *(b"i", b"{auth_type}", b"{auth_authen}", b"{auth_author}"),
        *(b"{mail_addr}", b"{mail_host}", b"{mail_mailer}"),
    ),
    RCPT: (b"i", b"{rcpt_addr}", b"{rcpt_host}", b"{rcpt_mailer}"),
    DATA: (b"i",),
    EOH: (b"i",),
    EOM: (b"i",),
}
MACROS = {b"j": b"mx.example.net", b"{daemon_name}": b"mx.example.net", b"v": b"Postfix 3.7.11"}
RECEIVED = (b"Received", b" from client.example by mx.example.net (Postfix)")  # Postfix's own

_VERDICTS = {
    b"a": "accept", b"c": "continue", b"d": "discard", b"r": "reject", b"t": "tempfail", b"4": "shutdown",
    b"s": "skip",
}  # fmt: skip
_CHANGES = {
    b"h": ("add header", ADD_HEADERS),
    b"i": ("insert header", ADD_HEADERS),
    b"m": ("change header", CHANGE_HEADERS),
    b"e": ("change sender", CHANGE_SENDER),
    b"+": ("add recipient", ADD_RECIPIENTS),
    b"2": ("add recipient", ADD_RECIPIENTS_ESMTP),
    b"-": ("delete recipient", DELETE_RECIPIENTS),
    b"b": ("replace body", CHANGE_BODY),
    b"q": ("quarantine", QUARANTINE),
}

Header = tuple[bytes, bytes]


class MilterFault(Exception):  # noqa: N818 - whose fault it is matters here
    """The milter answered what no MTA would take."""


class Change(NamedTuple):
    """One change to a message, as a milter asks for it."""

    what: str  # of _CHANGES, or "delete header"
    index: int  # of a header, as on the wire; else 0
    name: bytes  # of a header; a path; or the reason of a quarantine
    value: bytes  # of a header, with its blank; ESMTP arguments; or a part of the body


class Outcome(NamedTuple):
    """What a milter said of a message."""

    verdict: str  # "continue", "accept", "discard", "reject", "tempfail", "shutdown" or "reply"
    text: bytes  # of a reply
    event: bytes  # the command that was answered so
    modifications: list[Change]  # in the order in which they came
    headers: list[Header]  # all of the message, its own Received first unless something stands above it
    progress: int  # how often it asked for patience


def packet(command: bytes, data: bytes = b"") -> bytes:
    """Spell a packet."""
    return struct.pack(">I", 1 + len(data)) + command + data


def strings(*texts: bytes) -> bytes:
    """Spell strings, each ended by NUL."""
    return b"".join(text + b"\0" for text in texts)


def negotiation(version: int = 6, actions: int = ALL_ACTIONS, steps: int = ALL_STEPS) -> bytes:
    """Spell an offer."""
    return packet(NEGOTIATE, struct.pack(">III", version, actions, steps))


def connect_data(name: bytes, address: str | None, port: int = 40000) -> bytes:
    """Spell what CONNECT says. address: IPv4 or IPv6, a path of a unix socket, or None where it is unknown."""
    if address is None:
        return name + b"\0U"
    family = b"L" if address.startswith("/") else b"6" if ":" in address else b"4"
    return (
        name + b"\0" + family + struct.pack(">H", 0 if family == b"L" else port) + strings(address.encode())
    )


def macro_data(command: bytes, macros: Mapping[bytes, bytes]) -> bytes:
    """Spell what MACRO says."""
    return command + strings(*(text for pair in macros.items() for text in pair))


def split_packets(octets: bytes) -> list[tuple[bytes, bytes]]:
    """Cut whole packets into command and data."""
    packets = []
    while octets:
        (length,) = struct.unpack_from(">I", octets)
        if not 0 < length <= len(octets) - 4:
            raise MilterFault(f"not whole packets: {octets!r}")
        packets.append((octets[4:5], octets[5 : 4 + length]))
        octets = octets[4 + length :]
    return packets


def apply(headers: Sequence[Header], modifications: Iterable[Change]) -> list[Header]:
    """Change a header as Postfix's cleanup does; headers is all of it, with Postfix's own Received on top.

    An index of a change counts the fields of its name, from 1, without the field at the very top: that is
    Postfix's own Received, or what stands above it by then. An insertion counts all fields, from 0.
    """
    changed = list(headers)
    for change in modifications:
        field = (change.name, change.value)
        if change.what == "add header":
            changed.append(field)
        elif change.what == "insert header":
            changed.insert(change.index, field)
        elif change.what in ("change header", "delete header"):
            places = [
                place
                for place, (name, _) in enumerate(changed)
                if place and name.lower() == change.name.lower()
            ]
            number = max(change.index, 1)
            if number <= len(places):
                changed[places[number - 1] : places[number - 1] + 1] = (
                    [] if change.what == "delete header" else [field]
                )
            elif change.what == "change header":
                changed.append(field)
    return changed


class MilterClient:
    """One connection to a milter. What needs no reply waits, and leaves with the next that does."""

    def __init__(
        self,
        connection: socket.socket,
        *,
        version: int = 6,
        actions: int = ALL_ACTIONS,
        steps: int | None = None,
        macros: Mapping[bytes, bytes] = MACROS,
        sendmail: bool = False,
        negotiate: bool = True,
    ) -> None:
        """Take a connection. sendmail: no macros with HEADER, EOH and BODY, no ABORT after a message."""
        self.socket = connection
        self.sendmail = sendmail
        self.macros = dict(macros)  # what the MTA knows, by name with its braces
        self.wanted = dict(DEFAULT_MACROS)  # what it sends, by stage
        self.offer = (version, actions, STEPS[version] if steps is None else steps)
        self.version, self.actions, self.steps = 0, 0, 0
        self.replies: list[tuple[bytes, str]] = []  # event and kind, of every reply so far
        self.open = True  # the milter still wants to hear of this SMTP session
        self._in_message = False
        self._skipped = b""
        self._progress = 0
        self._received = b""
        self._waiting: list[bytes] = []
        if negotiate:
            self.negotiate()

    @classmethod
    def of(cls, endpoint: str, *, deadline: float = DEADLINE, **how) -> Self:
        """Connect to `unix:PATH` or `inet:HOST:PORT`."""
        kind, _, rest = endpoint.partition(":")
        if kind == "unix":
            connection = socket.socket(socket.AF_UNIX)
            connection.connect(
                rest.partition("?")[0]
            )  # with a deadline, a full backlog would be an error at once
            connection.settimeout(deadline)
        else:
            host, _, port = rest.rpartition(":")
            connection = socket.create_connection((host.strip("[]"), int(port)), timeout=deadline)
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            return cls(connection, **how)
        except BaseException:
            connection.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    # Octets.

    def put(self, command: bytes, data: bytes = b"") -> None:
        """Add a packet to what leaves next."""
        self._waiting.append(packet(command, data))

    def flush(self) -> None:
        """Send what waits."""
        octets, self._waiting = b"".join(self._waiting), []
        if octets:  # to send nothing is an error too, where the milter has closed
            self.socket.sendall(octets)

    def send_raw(self, octets: bytes) -> None:
        """Send what waits, and any octets."""
        self.flush()
        self.socket.sendall(octets)

    def read_packet(self) -> tuple[bytes, bytes]:
        """Return the next packet; EOFError when the milter closed instead."""
        (length,) = struct.unpack(">I", self._read(4))
        if not 0 < length <= REPLY_MAXIMUM:
            raise MilterFault(f"a reply of {length} octets")
        octets = self._read(length)
        return octets[:1], octets[1:]

    def _read(self, count: int) -> bytes:
        self.flush()
        while len(self._received) < count:
            octets = self.socket.recv(65536)
            if not octets:
                raise EOFError(f"the milter closed; before that it sent {self._received!r}")
            self._received += octets
        taken, self._received = self._received[:count], self._received[count:]
        return taken

    def is_closed(self) -> bool:
        """Wait for the milter to close; tell whether it did so without another octet."""
        try:
            return not self._received and self.socket.recv(1) == b""
        except ConnectionResetError:
            return True

    def no_more(self) -> None:
        """Say that no command follows; replies may still come."""
        self.flush()
        self.socket.shutdown(socket.SHUT_WR)

    # Events.

    def negotiate(self) -> None:
        """Offer, and hold that the milter keeps within the offer."""
        self._waiting.append(negotiation(*self.offer))
        command, data = self.read_packet()
        if command != NEGOTIATE or len(data) < 12:
            raise MilterFault(f"no negotiation: {command!r} {data!r}")
        self.version, self.actions, self.steps = struct.unpack_from(">III", data)
        version, actions, steps = self.offer
        if not 2 <= self.version <= version or self.actions & ~actions or self.steps & ~steps:
            raise MilterFault(f"not offered: {self.version} {self.actions:#x} {self.steps:#x}")
        lists = data[12:]
        if lists and not self.actions & SET_MACROS:
            raise MilterFault("lists of macros, which were not agreed")
        if lists:
            self.wanted = dict.fromkeys(STAGES, ())
        while lists:
            (stage,) = struct.unpack_from(">I", lists)
            names, nul, lists = lists[4:].partition(b"\0")
            if not nul or stage >= len(STAGES):
                raise MilterFault(f"not a list of macros: {data!r}")
            # Postfix takes an empty list for none.
            self.wanted[STAGES[stage]] = tuple(names.split()) or DEFAULT_MACROS[STAGES[stage]]

    def event(
        self, command: bytes, data: bytes = b"", macros: Mapping[bytes, bytes] | None = None
    ) -> Outcome:
        """Report an event, with its macros; return what the milter says, "continue" where it is not asked."""
        known = self.macros if macros is None else macros
        stage = {HEADER: EOH, BODY: EOM}.get(command, command)
        quiet = self.sendmail and command in (HEADER, EOH, BODY)
        if not self.open or command == self._skipped:
            return self._outcome("continue", b"", command, [])
        self._skipped = b""
        if stage in self.wanted and not quiet:
            self.put(
                MACRO,
                macro_data(command, {name: known[name] for name in self.wanted[stage] if name in known}),
            )
        unsupported = ~STEPS[self.version] & (0x100 | 0x200)  # events that came with a later version
        if NOT_SENT.get(command, 0) & (self.steps | unsupported):
            return self._outcome("continue", b"", command, [])
        self.put(command, data)
        if NO_REPLY.get(command, 0) & self.steps:
            return self._outcome("continue", b"", command, [])
        return self._replies_to(command)

    def _replies_to(self, event: bytes) -> Outcome:
        changes: list[Change] = []
        while True:
            reply, data = self.read_packet()
            if reply in _CHANGES:
                changes.append(self._change(event, reply, data))
                continue
            if reply == b"p":
                if data or event != EOM:
                    raise MilterFault(f"progress at {event!r} with {data!r}")
                self._progress += 1
                continue
            kind = "reply" if reply == b"y" else _VERDICTS.get(reply)
            if kind is None or (data and kind != "reply"):
                raise MilterFault(f"{reply!r} {data!r} is no reply to {event!r}")
            self.replies.append((event, kind))
            self._follow(event, kind)
            return self._outcome(kind, data, event, changes)

    def _follow(self, event: bytes, kind: str) -> None:
        if kind == "skip":
            if event != BODY or not self.steps & SKIP:
                raise MilterFault(f"skip at {event!r}")
            self._skipped = BODY
        elif kind == "discard" and event in (CONNECT, HELO):
            raise MilterFault(f"discard at {event!r}")
        elif kind == "shutdown" or (event in (CONNECT, HELO) and kind != "continue"):
            self.open = False

    def _change(self, event: bytes, reply: bytes, data: bytes) -> Change:
        what, action = _CHANGES[reply]
        if event != EOM or not action & self.actions:
            raise MilterFault(f"{what} at {event!r}, agreed are {self.actions:#x}")
        if reply == b"b":
            return Change(what, 0, b"", data)
        index = 0
        if reply in b"im":
            index, data = struct.unpack_from(">I", data)[0], data[4:]
        *texts, rest = data.split(b"\0")
        wanted = 2 if reply in b"him" else 1
        if rest or not wanted <= len(texts) <= wanted + (reply in b"e2"):
            raise MilterFault(f"{what}: {data!r}")
        name, value = (*texts, b"")[:2]
        if reply not in b"him":
            return Change(what, 0, name, value)
        if not name:
            raise MilterFault(f"{what} without a name")
        if reply == b"m" and not value:
            return Change("delete header", index, name, b"")
        return Change(what, index, name, value if self.steps & LEADING_SPACE else b" " + value)

    def _outcome(self, verdict: str, text: bytes, event: bytes, changes: list[Change]) -> Outcome:
        progress, self._progress = self._progress, 0
        return Outcome(verdict, text, event, changes, [], progress)

    def connect(self, name: bytes, address: str | None, port: int = 40000) -> Outcome:
        """Report a client."""
        return self.event(CONNECT, connect_data(name, address, port))

    def helo(self, name: bytes) -> Outcome:
        """Report HELO or EHLO; Postfix ends a message that is under way."""
        if self._in_message:
            self.abort()
        return self.event(HELO, strings(name))

    def unknown(self, line: bytes) -> Outcome:
        """Report an SMTP command that the MTA does not know."""
        return self.event(UNKNOWN, strings(line))

    def mail(self, path: bytes, *arguments: bytes, macros: Mapping[bytes, bytes] | None = None) -> Outcome:
        """Report MAIL."""
        self._in_message = True
        return self.event(MAIL, strings(path, *arguments), macros)

    def rcpt(self, path: bytes, *arguments: bytes, macros: Mapping[bytes, bytes] | None = None) -> Outcome:
        """Report RCPT."""
        return self.event(RCPT, strings(path, *arguments), macros)

    def refused(self, path: bytes, code: bytes = b"5.1.1") -> Outcome:
        """Report a RCPT that the MTA itself refuses, to a milter that asked for these."""
        if not self.steps & REJECTED_RECIPIENTS:
            return self._outcome("continue", b"", RCPT, [])
        words = b"%b: Recipient address rejected: User unknown" % path
        told = {b"{rcpt_mailer}": b"error", b"{rcpt_host}": code, b"{rcpt_addr}": words}
        return self.rcpt(path, macros={**self.macros, **told})

    def data(self, macros: Mapping[bytes, bytes] | None = None) -> Outcome:
        """Report DATA."""
        return self.event(DATA, b"", macros)

    def header(self, name: bytes, value: bytes, macros: Mapping[bytes, bytes] | None = None) -> Outcome:
        """Report a header field."""
        if not self.steps & LEADING_SPACE:
            value = value.removeprefix(b" ")  # one blank, no tab
        return self.event(HEADER, strings(name, value), macros)

    def end_of_headers(self, macros: Mapping[bytes, bytes] | None = None) -> Outcome:
        """Report the end of the header."""
        return self.event(EOH, b"", macros)

    def body(self, chunk: bytes, macros: Mapping[bytes, bytes] | None = None) -> Outcome:
        """Report a part of the body."""
        return self.event(BODY, chunk, macros)

    def end_of_message(self, chunk: bytes = b"", macros: Mapping[bytes, bytes] | None = None) -> Outcome:
        """Report the end of the message, and what is left of its body."""
        return self.event(EOM, chunk, macros)

    def abort(self) -> None:
        """Report that the message ended, or will not."""
        self._in_message, self._skipped = False, b""
        if self.open:
            self.put(ABORT)

    def quit(self) -> None:
        """Report that the client is gone, and end the connection."""
        self.put(QUIT)
        self.flush()

    def quit_new_connection(self) -> None:
        """Report that the client is gone, and that another one follows here (Sendmail)."""
        self.put(QUIT_NC)
        self.open = True

    # Messages.

    def message(
        self,
        sender: bytes = b"<sender@example.org>",
        recipients: Sequence[bytes] = (b"<recipient@example.net>",),
        headers: Sequence[Header] = ((b"Subject", b" test"),),
        body: bytes = b"text\r\n",
        *,
        queue_id: bytes = b"4XyZ0123456",
        arguments: Sequence[bytes] = (),
        macros: Mapping[bytes, bytes] | None = None,
        end: bool = True,
    ) -> Outcome:
        """Report a whole message. macros: besides those of the MTA. end=False: it is not ended, as in cleanup."""
        known = {**self.macros, **(macros or {})}
        outcome = self._envelope(sender, recipients, arguments, known, queue_id)
        if outcome is None:
            outcome = self._content(headers, body, {**known, b"i": queue_id})
        if end and self._in_message and not self.sendmail:
            self.abort()
        self._in_message = self._in_message and not end
        self._skipped = b""
        stored = [RECEIVED, *headers]
        return outcome._replace(headers=apply(stored, outcome.modifications))

    def _envelope(
        self,
        sender: bytes,
        recipients: Sequence[bytes],
        arguments: Sequence[bytes],
        known: Mapping[bytes, bytes],
        queue_id: bytes,
    ) -> Outcome | None:
        """Report an envelope; return what ends the message, if anything does."""
        outcome = self.mail(sender, *arguments, macros=known)
        if outcome.verdict != "continue":
            return outcome
        taken = 0
        for recipient in recipients:
            # Postfix has no queue id before the first recipient is taken.
            outcome = self.rcpt(recipient, macros={**known, b"i": queue_id} if taken else known)
            if outcome.verdict in ("accept", "discard", "shutdown"):
                return outcome
            taken += outcome.verdict == "continue"
        return None if taken else outcome

    def _content(self, headers: Sequence[Header], body: bytes, known: Mapping[bytes, bytes]) -> Outcome:
        """Report the content of a message."""
        outcome = self.data(known)
        for command, data in self._events(headers, body):
            if outcome.verdict not in ("continue", "skip"):
                break
            if command == HEADER:
                outcome = self.header(*data, known)
            elif command == EOM and self._skipped:
                outcome = self.end_of_message(b"", known)
            else:
                outcome = self.event(command, data, known)
        return outcome

    def _events(self, headers: Sequence[Header], body: bytes) -> Iterator[tuple[bytes, Any]]:
        """Cut a message into events, without those that the milter does not want at all."""
        if not self.steps & NOT_SENT[HEADER]:
            yield from ((HEADER, field) for field in headers)
        if not self.steps & NOT_SENT[EOH]:
            yield EOH, b""
        if self.steps & NOT_SENT[BODY]:
            body = b""
        whole = len(body) if self.sendmail else len(body) // CHUNK * CHUNK
        for start in range(0, whole, CHUNK):
            yield BODY, body[start : start + CHUNK]
        yield EOM, body[whole:]
