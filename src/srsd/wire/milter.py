"""The packets of the milter protocol, versions 2 to 6: `length command data`, as libmilter has them.

There is no standard. The words are those of libmilter's mfdef.h, the behaviour that of Postfix's milter8.c.
What an MTA sends is parsed here, what a milter answers is spelled here.
"""

from __future__ import annotations

import re
import struct
from enum import IntEnum, IntFlag
from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import TYPE_CHECKING, NamedTuple

from srsd.errors import ProtocolError
from srsd.syntax.header import HeaderField

if TYPE_CHECKING:
    from collections.abc import Mapping

# Postfix cuts a header field at 60,000 octets and a body chunk at 65,535; libmilter's own bound is 65,536.
PACKET_MAXIMUM = 131_072
VERSION_MINIMUM, VERSION_MAXIMUM = 2, 6
NEGOTIATION_LENGTH = 12  # octets
_new_tuple = tuple.__new__  # of a NamedTuple's class it makes one in half the time that the class takes
_LENGTH = 4  # octets of the length, which counts the command and the data
_HEAD = struct.Struct("!IB")  # the length, and the command or reply
_read_head = _HEAD.unpack_from
_MACROS_KEPT_MAXIMUM = 512  # octets of a list that is kept, parsed
_REFUSAL_CODE = re.compile(rb"[45]\.\d{1,3}\.\d{1,3}")
_ADDRESS_MAXIMUM = 64  # octets of an address as text, with its scope


class Command(IntEnum):
    """What an MTA sends (SMFIC_*)."""

    ABORT = ord("A")
    BODY = ord("B")
    CONNECT = ord("C")
    MACRO = ord("D")
    END_OF_MESSAGE = ord("E")
    HELO = ord("H")
    QUIT_NEW_CONNECTION = ord("K")
    HEADER = ord("L")
    MAIL = ord("M")
    END_OF_HEADERS = ord("N")
    NEGOTIATE = ord("O")
    QUIT = ord("Q")
    RECIPIENT = ord("R")
    DATA = ord("T")
    UNKNOWN = ord("U")


class Reply(IntEnum):
    """What a milter answers (SMFIR_*)."""

    ADD_RECIPIENT = ord("+")
    DELETE_RECIPIENT = ord("-")
    ADD_RECIPIENT_WITH_ARGUMENTS = ord("2")
    SHUT_DOWN = ord("4")
    ACCEPT = ord("a")
    REPLACE_BODY = ord("b")
    CONTINUE = ord("c")
    DISCARD = ord("d")
    CHANGE_FROM = ord("e")
    CONNECTION_FAILED = ord("f")
    ADD_HEADER = ord("h")
    INSERT_HEADER = ord("i")
    CHANGE_HEADER = ord("m")
    PROGRESS = ord("p")
    QUARANTINE = ord("q")
    REJECT = ord("r")
    SKIP = ord("s")
    TEMPORARY_FAILURE = ord("t")
    REPLY_CODE = ord("y")


class Action(IntFlag):
    """What a milter may change (SMFIF_*): the MTA offers, the milter picks."""

    ADD_HEADERS = 0x01  # also inserts
    CHANGE_BODY = 0x02
    ADD_RECIPIENTS = 0x04
    DELETE_RECIPIENTS = 0x08
    CHANGE_HEADERS = 0x10  # also deletes
    QUARANTINE = 0x20
    CHANGE_FROM = 0x40
    ADD_RECIPIENTS_WITH_ARGUMENTS = 0x80
    SET_MACROS = 0x100


class Step(IntFlag):
    """What an MTA leaves out, or does otherwise, when the milter asks for it (SMFIP_*)."""

    NO_CONNECT = 0x01
    NO_HELO = 0x02
    NO_MAIL = 0x04
    NO_RECIPIENT = 0x08
    NO_BODY = 0x10
    NO_HEADERS = 0x20
    NO_END_OF_HEADERS = 0x40
    NO_REPLY_HEADER = 0x80
    NO_UNKNOWN = 0x100
    NO_DATA = 0x200
    SKIP = 0x400
    REJECTED_RECIPIENTS = 0x800
    NO_REPLY_CONNECT = 0x1000
    NO_REPLY_HELO = 0x2000
    NO_REPLY_MAIL = 0x4000
    NO_REPLY_RECIPIENT = 0x8000
    NO_REPLY_DATA = 0x10000
    NO_REPLY_UNKNOWN = 0x20000
    NO_REPLY_END_OF_HEADERS = 0x40000
    NO_REPLY_BODY = 0x80000
    HEADER_LEADING_SPACE = 0x100000


# The commands that an MTA waits for an answer to, unless this step was agreed.
NO_REPLY = {
    Command.CONNECT: Step.NO_REPLY_CONNECT,
    Command.HELO: Step.NO_REPLY_HELO,
    Command.MAIL: Step.NO_REPLY_MAIL,
    Command.RECIPIENT: Step.NO_REPLY_RECIPIENT,
    Command.DATA: Step.NO_REPLY_DATA,
    Command.UNKNOWN: Step.NO_REPLY_UNKNOWN,
    Command.HEADER: Step.NO_REPLY_HEADER,
    Command.END_OF_HEADERS: Step.NO_REPLY_END_OF_HEADERS,
    Command.BODY: Step.NO_REPLY_BODY,
}


class MacroStage(IntEnum):
    """The lists of macros that a milter may ask for (SMFIM_*)."""

    CONNECT = 0
    HELO = 1
    MAIL = 2
    RECIPIENT = 3
    DATA = 4
    END_OF_MESSAGE = 5
    END_OF_HEADERS = 6


class Negotiation(NamedTuple):
    """An offer of the MTA."""

    version: int
    actions: int
    steps: int


class Connect(NamedTuple):
    """The SMTP client: its name as the MTA found it, and its address where it has one."""

    host: bytes
    address: IPv4Address | IPv6Address | None


class Path(NamedTuple):
    """A reverse-path or forward-path as the MTA spells it, and its ESMTP arguments."""

    text: bytes
    arguments: tuple[bytes, ...]


# As numbers: to look at a packet takes less time than to look up a member of an Enum.
_MACRO = int(Command.MACRO)
_BEGINNINGS = frozenset(map(int, (Command.CONNECT, Command.MAIL)))  # whose macros begin something, if none


class Decoder:
    """Cuts a stream into packets, however it was split. Lists of macros that say nothing are left out."""

    __slots__ = ("_needed", "_pending")

    def __init__(self) -> None:
        self._pending = bytearray()
        self._needed = 0  # octets until the packet that waits is whole, or its length known

    @property
    def pending(self) -> bool:
        """Tell whether part of a packet waits for the rest."""
        return bool(self._pending)

    def feed(self, data: bytes) -> list[tuple[int, bytes]]:
        """Take octets, give whole packets as (command, data).

        Raises ProtocolError for a length that no packet has, before anything of it is kept.
        """
        if self._pending:
            self._pending += data
            if len(self._pending) < self._needed:
                return []
            data = bytes(self._pending)
            self._pending.clear()
        packets = []
        offset, end = 0, len(data)
        last = end - 5  # four octets of length, and the command
        while offset <= last:
            length, command = _read_head(data, offset)
            # Postfix sends a list of macros with each header field; most of them are empty.
            if command == _MACRO and length == 2 and offset < last and data[offset + 5] not in _BEGINNINGS:
                offset += 6
                continue
            following = offset + 4 + length
            if following > end or not 0 < length <= PACKET_MAXIMUM:
                break
            packets.append((command, data[offset + 5 : following]))
            offset = following
        if offset < end:
            self._keep(data[offset:] if offset else data)
        return packets

    def _keep(self, begun: bytes) -> None:
        """Keep what there is of a packet. Raises ProtocolError for a length that no packet has."""
        self._needed = _LENGTH
        if len(begun) >= _LENGTH:
            length = int.from_bytes(begun[:_LENGTH], "big")
            if not 0 < length <= PACKET_MAXIMUM:
                raise ProtocolError(f"a milter packet of {length} octets")
            self._needed += length
        self._pending += begun


def parse_negotiation(data: bytes) -> Negotiation:
    """Parse the data of NEGOTIATE: three numbers of 32 bits. Raises ProtocolError."""
    if len(data) < NEGOTIATION_LENGTH:
        raise ProtocolError("a milter negotiation that is cut short")
    return Negotiation(*(int.from_bytes(data[start : start + 4], "big") for start in (0, 4, 8)))


def parse_connect(data: bytes) -> Connect:
    """Parse the data of CONNECT: `host NUL family [port address NUL]`. Raises ProtocolError.

    An address that is none counts as unknown: the client is a stranger then.
    """
    host, nul, rest = data.partition(b"\0")
    if not nul or not rest:
        raise ProtocolError("a milter CONNECT that is cut short")
    if rest[0] not in b"46" or len(rest) < 4:
        return Connect(host, None)
    text = rest[3:].partition(b"\0")[0]
    return Connect(host, _parse_address(text) if len(text) <= _ADDRESS_MAXIMUM else None)


@lru_cache(maxsize=1024)
def _parse_address(text: bytes) -> IPv4Address | IPv6Address | None:
    if text[:5].upper() == b"IPV6:":
        text = text[5:]
    try:
        address = ip_address(text.partition(b"%")[0].decode("ascii"))
    except ValueError:  # UnicodeDecodeError is one
        return None
    if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
        return address.ipv4_mapped
    return address


def parse_text(data: bytes) -> bytes:
    """Parse data that is one string, as that of HELO and UNKNOWN."""
    return data.partition(b"\0")[0]


def parse_path(data: bytes) -> Path:
    """Parse the data of MAIL or RECIPIENT: the path, then its arguments, each ended by NUL."""
    text, *arguments = data.split(b"\0")
    return Path(text, tuple(arguments[:-1]))


def parse_header(data: bytes, blank: bytes) -> HeaderField:
    """Parse the data of HEADER: `name NUL value NUL`. Raises ProtocolError.

    blank is what the MTA has taken away from the beginning of the value.
    """
    try:
        name, value, _ = data.split(b"\0", 2)
    except ValueError:
        raise ProtocolError("a milter HEADER that is cut short") from None
    return _new_tuple(HeaderField, (name, blank + value))


def parse_macros(data: bytes) -> tuple[int, Mapping[bytes, bytes]]:
    """Parse the data of MACRO: for which command, and `name NUL value NUL` pairs. Raises ProtocolError.

    A name of several letters comes with or without its braces; here it is without.
    """
    if not data:
        raise ProtocolError("a milter MACRO that is cut short")
    pairs = data[1:]
    return data[0], _read_short_macros(pairs) if len(pairs) <= _MACROS_KEPT_MAXIMUM else _read_macros(pairs)


def _read_macros(pairs: bytes) -> Mapping[bytes, bytes]:
    parts = iter(pairs.split(b"\0"))
    return {name.strip(b"{}"): value for name, value in zip(parts, parts, strict=False)}


# The same list comes for each body chunk and the end of a message, and for each connection.
_read_short_macros = lru_cache(maxsize=256)(_read_macros)


def is_refused(macros: Mapping[bytes, bytes]) -> bool:
    """Tell by the macros of RCPT whether the MTA has refused the recipient, as Postfix and Sendmail say it.

    They give the mailer `error`, and the enhanced status code of the refusal (RFC 3463) as its host.
    Postfix has the same mailer for a virtual alias that it takes, with words as its host.
    """
    if macros.get(b"rcpt_mailer") != b"error":
        return False
    return _REFUSAL_CODE.fullmatch(macros.get(b"rcpt_host", b"")) is not None


def format_packet(reply: int, data: bytes = b"") -> bytes:
    """Spell a packet."""
    return _HEAD.pack(len(data) + 1, reply) + data


CONTINUE = format_packet(Reply.CONTINUE)


def format_negotiation(version: int, actions: int, steps: int, macros: dict[MacroStage, bytes]) -> bytes:
    """Spell the answer to NEGOTIATE. macros has the names wanted at each stage, parted by blanks."""
    data = b"".join(number.to_bytes(4, "big") for number in (version, actions, steps))
    for stage, names in macros.items():
        data += stage.to_bytes(4, "big") + names + b"\0"
    return format_packet(Command.NEGOTIATE, data)


class AddHeader(NamedTuple):
    """Put a header field below all others. The value begins right after the colon."""

    name: bytes
    value: bytes


class InsertHeader(NamedTuple):
    """Put a header field at a place: 0 is above all others. The value begins right after the colon."""

    position: int
    name: bytes
    value: bytes


class ChangeHeader(NamedTuple):
    """Replace the position-th field of a name, counted from 1 at the top; an empty value takes it away."""

    position: int
    name: bytes
    value: bytes = b""


class ChangeFrom(NamedTuple):
    """Replace the reverse-path, `<a@b>`; the ESMTP arguments stay what they were."""

    path: bytes


class AddRecipient(NamedTuple):
    """Add a recipient, `<a@b>`, with ESMTP arguments if there are any."""

    path: bytes
    arguments: bytes = b""


class DeleteRecipient(NamedTuple):
    """Take a recipient away, spelled as the MTA spelled it."""

    path: bytes


class ReplaceBody(NamedTuple):
    """Replace the body; several of them follow each other."""

    chunk: bytes


class Quarantine(NamedTuple):
    """Hold the message; in Postfix, in the hold queue."""

    reason: bytes


class Progress(NamedTuple):
    """Ask the MTA to go on waiting."""


class Accept(NamedTuple):
    """Take the message (or connection, or recipient), and ask this milter no more about it."""


class Continue(NamedTuple):
    """Go on."""


class Skip(NamedTuple):
    """Send no more of the body."""


class Discard(NamedTuple):
    """Take the message, and throw it away."""


class Reject(NamedTuple):
    """Refuse for good, in the MTA's words."""


class TemporaryFailure(NamedTuple):
    """Have the client try again, in the MTA's words."""


class ReplyCode(NamedTuple):
    """Refuse with a reply of our own: code 4yz or 5yz, enhanced code of the same class (RFC 3463), text."""

    code: int
    enhanced: bytes
    text: bytes


class ShutDown(NamedTuple):
    """End the SMTP session with 421."""


Modification = (
    AddHeader
    | InsertHeader
    | ChangeHeader
    | ChangeFrom
    | AddRecipient
    | DeleteRecipient
    | ReplaceBody
    | Quarantine
)
Verdict = Accept | Continue | Discard | Reject | TemporaryFailure | ReplyCode | ShutDown
AnyReply = Modification | Verdict | Progress | Skip

_REFUSALS: frozenset[type] = frozenset({Accept, Continue, Reject, TemporaryFailure, ReplyCode, ShutDown})
_MESSAGE = _REFUSALS | {Discard}
LEGAL_REPLIES: dict[Command, frozenset[type]] = {
    Command.CONNECT: _REFUSALS,
    Command.HELO: _REFUSALS,
    Command.MAIL: _MESSAGE,
    Command.RECIPIENT: _MESSAGE,
    Command.DATA: _MESSAGE,
    Command.UNKNOWN: _REFUSALS,
    Command.HEADER: _MESSAGE,
    Command.END_OF_HEADERS: _MESSAGE,
    Command.BODY: _MESSAGE | {Skip},
    Command.END_OF_MESSAGE: _MESSAGE
    | {
        AddHeader,
        InsertHeader,
        ChangeHeader,
        ChangeFrom,
        AddRecipient,
        DeleteRecipient,
        ReplaceBody,
        Quarantine,
        Progress,
    },
}


def needed_action(reply: AnyReply) -> int:
    """Tell which Action a reply needs to be agreed with the MTA; 0 for most."""
    if type(reply) is AddRecipient and reply.arguments:
        return Action.ADD_RECIPIENTS_WITH_ARGUMENTS
    return _NEEDED.get(type(reply), 0)


# Numbers, since operators of IntFlag take microseconds.
_NEEDED: dict[type, int] = {
    AddHeader: int(Action.ADD_HEADERS),
    InsertHeader: int(Action.ADD_HEADERS),
    ChangeHeader: int(Action.CHANGE_HEADERS),
    ChangeFrom: int(Action.CHANGE_FROM),
    AddRecipient: int(Action.ADD_RECIPIENTS),
    DeleteRecipient: int(Action.DELETE_RECIPIENTS),
    ReplaceBody: int(Action.CHANGE_BODY),
    Quarantine: int(Action.QUARANTINE),
}
_WORDLESS: dict[type, bytes] = {
    Accept: format_packet(Reply.ACCEPT),
    Continue: CONTINUE,
    Discard: format_packet(Reply.DISCARD),
    Progress: format_packet(Reply.PROGRESS),
    Reject: format_packet(Reply.REJECT),
    ShutDown: format_packet(Reply.SHUT_DOWN),
    Skip: format_packet(Reply.SKIP),
    TemporaryFailure: format_packet(Reply.TEMPORARY_FAILURE),
}


def format_reply(reply: AnyReply, *, leading_space: bool = True) -> bytes:  # noqa: C901 - one case for each
    """Spell a reply.

    Where the MTA was not asked to keep leading spaces (HEADER_LEADING_SPACE) it puts one in front of
    each header value, so ours is left out.
    """
    wordless = _WORDLESS.get(type(reply))
    if wordless is not None:  # as one of each message's is
        return wordless
    if isinstance(reply, InsertHeader):  # as one of nearly each message's is
        return _format_change(Reply.INSERT_HEADER, reply, leading_space)
    match reply:
        case ChangeHeader():
            return _format_change(Reply.CHANGE_HEADER, reply, leading_space)
        case AddHeader(name, value):
            return format_packet(Reply.ADD_HEADER, _header(name, value, leading_space))
        case ChangeFrom(path):
            return format_packet(Reply.CHANGE_FROM, path + b"\0")
        case AddRecipient(path, b""):
            return format_packet(Reply.ADD_RECIPIENT, path + b"\0")
        case AddRecipient(path, arguments):
            return format_packet(Reply.ADD_RECIPIENT_WITH_ARGUMENTS, path + b"\0" + arguments + b"\0")
        case DeleteRecipient(path):
            return format_packet(Reply.DELETE_RECIPIENT, path + b"\0")
        case ReplaceBody(chunk):
            return format_packet(Reply.REPLACE_BODY, chunk)
        case Quarantine(reason):
            return format_packet(Reply.QUARANTINE, reason + b"\0")
        case ReplyCode(code, enhanced, text):
            line = b"%d %b %b" % (code, enhanced, text.replace(b"%", b"%%"))
            return format_packet(Reply.REPLY_CODE, line + b"\0")
    raise TypeError(f"{type(reply).__name__} is no reply")


def _format_change(code: int, change: InsertHeader | ChangeHeader, leading_space: bool) -> bytes:
    position, name, value = change
    return format_packet(code, position.to_bytes(4, "big") + _header(name, value, leading_space))


def _header(name: bytes, value: bytes, leading_space: bool) -> bytes:
    if not leading_space and value.startswith(b" "):
        value = value[1:]
    return name + b"\0" + value + b"\0"
