"""One milter connection without its socket: the order of commands, macros, and legal replies.

A connection has many messages, one after the other. The session tells a Filter of each, and answers the
MTA as the Filter decides; what the Filter says comes only at the end of a message.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, NamedTuple, Protocol

from srsd.errors import ProtocolError
from srsd.wire.milter import (
    LEGAL_REPLIES,
    AnyReply,
    Command,
    Connect,
    Modification,
    Path,
    Progress,
    TemporaryFailure,
    Verdict,
    format_reply,
    is_refused,
    needed_action,
    parse_connect,
    parse_header,
    parse_macros,
    parse_path,
    parse_text,
)
from srsd.wire.milter_negotiation import RefusalWishes, Wishes, agree

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from srsd.syntax.header import HeaderField

HEADERS_AT_ONCE = 64  # fields that wait to be handed on; a field of Postfix has 60,000 octets at most
RECIPIENTS_MAXIMUM = 50_000  # Postfix takes 1,000 of one client (smtpd_recipient_limit)
_NOBODY = Connect(b"", None)
_NO_PATH = Path(b"", ())


class Decision(NamedTuple):
    """What is done with a message. The modifications stand in the order in which the MTA makes them."""

    modifications: tuple[Modification, ...]
    verdict: Verdict


class Envelope(NamedTuple):
    """What is known when the content of a message begins."""

    client: Connect
    helo: bytes  # as the client gave it
    sender: Path
    recipients: tuple[Path, ...]  # those that the MTA took
    macros: Mapping[bytes, bytes]  # by name without braces; those of the message go before the connection's


class MessageFilter(Protocol):
    """What judges one message."""

    def headers(self, fields: list[HeaderField]) -> None:
        """Take the next header fields."""
        ...

    def end_of_headers(self) -> None:
        """Take note that all header fields were given."""
        ...

    def body(self, chunk: bytes) -> None:
        """Take the next part of the body, cut anywhere."""
        ...

    def end_of_message(self, macros: Mapping[bytes, bytes]) -> Decision | Awaitable[Decision]:
        """Decide, at once or later."""
        ...

    def abort(self) -> None:
        """Forget the message: it is not going to end."""
        ...


class Delay:
    """An answer to RCPT that is held back for some seconds. Whoever holds it says end(), once."""

    __slots__ = ("_ended", "seconds")

    def __init__(self, seconds: float, ended: Callable[[], None]) -> None:
        self.seconds = seconds
        self._ended = ended

    def end(self) -> None:
        """Take note that the answer is given, or that nobody waits for it any more."""
        self._ended()


class RefusalFilter(RefusalWishes, Protocol):
    """What hears of recipients that the MTA itself has refused."""

    def see(self, client: Connect, macros: Mapping[bytes, bytes], path: Path) -> Delay | None:
        """Take note of one; None where it is answered at once."""
        ...


class Filter(Wishes, Protocol):
    """What a session needs to know of whoever judges its messages."""

    @property
    def refused(self) -> RefusalFilter | None:
        """What hears of recipients that the MTA refused, if any; by the macros {rcpt_mailer}, {rcpt_host}."""
        ...

    def begin(self, envelope: Envelope) -> MessageFilter:
        """Begin a message: its content is to come."""
        ...


# States of a session. Plain numbers: each packet looks at them, and members of an Enum take longer to find.
_NEW = 0
_IDLE = 1  # negotiated, no message
_ENVELOPE = 2  # MAIL was given
_CONTENT = 3  # DATA or a header field was given
_BODY = 4  # the header has ended
_DECIDING = 5  # the message has ended, and no answer was given


class Session:
    """The commands of one connection, in; the octets of its replies, out.

    Raises ProtocolError for what no MTA sends. What the Filter raises goes through: the caller then
    says failed(), and the message is refused for now when it ends, since only then an answer is due.
    """

    def __init__(self, judge: Filter) -> None:
        self._judge = judge
        self._state = _NEW
        self._handlers = self._HANDLERS_OF_NEW
        self._replies: dict[int, bytes] = {}  # what each command is answered at once
        self._header_reply = b""
        self._actions = 0
        self._leading_space = False
        self._blank = b" "  # that the MTA has taken away from each field
        self._client = _NOBODY
        self._helo = b""
        self._connection_macros: dict[bytes, bytes] = {}
        self._message_macros: dict[bytes, bytes] = {}
        self._sender = _NO_PATH
        self._recipients: list[Path] = []
        self._hears_of_refused = False
        self._refused = False  # the recipient that comes next, by the MTA
        self._fields: list[HeaderField] = []  # that are not handed on
        self._message: MessageFilter | None = None
        self._failed_message = False
        self._failed_connection = False  # what the client is was not understood
        self.finished = False  # QUIT was given
        # While a message waits for its decision, or the answer to a recipient is held back.
        self.outcome: Awaitable[Decision] | Delay | None = None

    @property
    def queue_id(self) -> str:
        """Name the message as the MTA's log does; "" while it has no name."""
        return self._message_macros.get(b"i", b"").decode(errors="backslashreplace")

    @property
    def in_message(self) -> bool:
        """Tell whether a message has begun and not ended."""
        return self._state > _IDLE

    def receive(self, command: int, data: bytes) -> bytes:
        """Take one packet; give the octets that answer it, if any.

        With outcome set, nothing may be received until answer() or failed(); go_on() if it is a Delay.
        """
        if command == _HEADER and self._state == _CONTENT:  # as nearly half of all packets
            fields = self._fields
            fields.append(parse_header(data, self._blank))
            if len(fields) >= HEADERS_AT_ONCE:
                self._hand_on_fields()
            return self._header_reply
        try:
            handler = self._handlers[command]
        except KeyError:
            if command in self._HANDLERS:
                raise ProtocolError("a milter command before the negotiation") from None
            raise ProtocolError(f"a milter command of code {command}") from None
        reply = handler(self, data)
        return self._replies.get(command, b"") if reply is None else reply

    # The connection.

    def _negotiate(self, data: bytes) -> bytes:
        agreement = agree(data, self._judge)
        if self._state != _NEW:
            self._new_connection()
        self._handlers = self._HANDLERS
        self._actions = agreement.actions
        self._leading_space = agreement.leading_space
        self._blank = b"" if agreement.leading_space else b" "
        self._replies = agreement.replies
        self._header_reply = agreement.replies.get(_HEADER, b"")
        self._hears_of_refused = agreement.hears_of_refused
        self._state = _IDLE
        return agreement.answer

    def _connect(self, data: bytes) -> None:
        self._forget_message()
        self._helo = b""
        self._failed_connection = True
        self._client = parse_connect(data)
        self._failed_connection = False

    def _hello(self, data: bytes) -> None:
        self._forget_message()
        self._helo = parse_text(data)

    def _macro(self, data: bytes) -> None:
        stage, macros = parse_macros(data)
        if stage == _CONNECT:  # it comes before CONNECT itself
            self._new_connection()
        kept = self._connection_macros if stage in _CONNECTION_STAGES else self._message_macros
        if stage == _MAIL and self._state != _IDLE:
            self._forget_message()
            kept = self._message_macros
        if stage == _RECIPIENT:
            self._refused = self._hears_of_refused and is_refused(macros)
        for name, value in macros.items():
            if name in _KEPT_MACROS:
                kept[name] = value

    def _new_connection(self) -> None:
        """Forget everything but what was negotiated."""
        self._forget_message()
        self._client, self._helo = _NOBODY, b""
        self._connection_macros = {}
        self._failed_connection = False

    def _quit(self, _data: bytes) -> None:
        self._new_connection()
        self.finished = True

    def _quit_new_connection(self, _data: bytes) -> None:
        self._new_connection()

    def close(self) -> None:
        """Take note that the MTA is gone."""
        self._end_delay()
        self._new_connection()

    # The envelope.

    def _mail(self, data: bytes) -> None:
        if self._state != _IDLE:  # one message ends where another begins, said or not
            self._forget_message()
        self._state = _ENVELOPE
        self._refused = False
        self._sender = parse_path(data)

    def _recipient(self, data: bytes) -> bytes | None:
        if self._state != _ENVELOPE:
            raise ProtocolError("a milter RCPT outside of an envelope")
        if self._refused:
            return self._see_refused(data)
        if len(self._recipients) >= RECIPIENTS_MAXIMUM:
            raise ProtocolError(f"a message of more than {RECIPIENTS_MAXIMUM} recipients")
        self._recipients.append(parse_path(data))
        return None

    def _see_refused(self, data: bytes) -> bytes | None:
        """Hear of a recipient that the MTA has refused: it is none of the message, whatever is answered."""
        self._refused = False
        if self._judge.refused is None:
            return None
        macros = {**self._connection_macros, **self._message_macros}
        delay = self._judge.refused.see(self._client, macros, parse_path(data))
        if delay is None:
            return None
        self.outcome = delay
        return b""

    def go_on(self) -> bytes:
        """End the delay of a recipient; give the answer that was held back."""
        self._end_delay()
        return self._replies.get(Command.RECIPIENT, b"")

    def _end_delay(self) -> None:
        if isinstance(self.outcome, Delay):
            delay, self.outcome = self.outcome, None
            delay.end()

    def _unknown(self, _data: bytes) -> None:
        """Leave to the MTA what it does not know."""

    # The content.

    def _data(self, _data: bytes) -> None:
        if self._state != _ENVELOPE:
            raise ProtocolError("a milter DATA outside of an envelope")
        self._begin()

    def _begin(self) -> None:
        self._state = _CONTENT
        if self._failed_connection:
            self._failed_message = True
        if not self._failed_message:
            macros = {**self._connection_macros, **self._message_macros}
            envelope = Envelope(self._client, self._helo, self._sender, tuple(self._recipients), macros)
            self._message = self._judge.begin(envelope)

    def _first_header(self, data: bytes) -> bytes:
        self._begin_late("HEADER")
        return self.receive(_HEADER, data)

    def _hand_on_fields(self) -> None:
        """Hand header fields on, many at a time: there are more of them than of anything else."""
        fields, self._fields = self._fields, []
        if self._message is not None:
            self._message.headers(fields)

    def _begin_late(self, what: str) -> None:
        """Begin the content of an MTA that sends no DATA (before version 4)."""
        if self._state != _ENVELOPE:
            raise ProtocolError(f"a milter {what} out of its order")
        self._begin()

    def _end_of_headers(self, _data: bytes) -> None:
        if self._state != _CONTENT:
            self._begin_late("EOH")
        self._state = _BODY
        if self._fields:
            self._hand_on_fields()
        if self._message is not None:
            self._message.end_of_headers()

    def _body(self, data: bytes) -> None:
        if self._state != _BODY:
            raise ProtocolError("a milter BODY out of its order")
        if self._message is not None:
            self._message.body(data)

    def _end_of_message(self, data: bytes) -> bytes:
        if self._state != _BODY:
            self._end_of_headers(b"")
        if data:
            self._body(data)
        self._state = _DECIDING
        if self._message is None:
            return self.answer(FAILED)
        decision = self._message.end_of_message(self._message_macros)
        if isinstance(decision, Decision):
            return self.answer(decision)
        self.outcome = decision
        return b""

    def progress(self) -> bytes:
        """Spell the request to go on waiting for an outcome."""
        return format_reply(Progress())

    def answer(self, decision: Decision) -> bytes:
        """End the message as was decided; give the octets that say so."""
        replies: tuple[AnyReply, ...] = (*decision.modifications, decision.verdict)
        for reply in replies:
            if type(reply) not in _LEGAL_AT_END or needed_action(reply) & ~self._actions:
                raise ValueError(f"{type(reply).__name__} was not agreed with the MTA")
        leading_space = self._leading_space
        octets = b"".join([format_reply(reply, leading_space=leading_space) for reply in replies])
        self._message = None
        self._forget_message()
        return octets

    def _abort(self, _data: bytes) -> None:
        self._forget_message()

    def failed(self, command: int) -> bytes:
        """Take note that the Filter has failed at a command; give the answer that is due now.

        The message is refused for now, but not before its end.
        """
        self._failed_message = True
        self._abandon()
        if command == Command.END_OF_MESSAGE:
            return self.answer(FAILED)
        return self._replies.get(command, b"")

    def _abandon(self) -> None:
        message, self._message, self.outcome = self._message, None, None
        if message is not None:
            message.abort()

    def _forget_message(self) -> None:
        """Drop all that belongs to the message and nothing that belongs to the connection."""
        if self._state == _IDLE and not self._message_macros:
            return
        self._abandon()
        self._failed_message = False
        self._message_macros = {}
        self._recipients = []
        self._fields = []
        if self._state != _NEW:
            self._state = _IDLE

    _HANDLERS: ClassVar[dict[int, Callable[[Session, bytes], bytes | None]]] = {
        Command.NEGOTIATE: _negotiate,
        Command.MACRO: _macro,
        Command.CONNECT: _connect,
        Command.HELO: _hello,
        Command.MAIL: _mail,
        Command.RECIPIENT: _recipient,
        Command.DATA: _data,
        Command.UNKNOWN: _unknown,
        Command.HEADER: _first_header,
        Command.END_OF_HEADERS: _end_of_headers,
        Command.BODY: _body,
        Command.END_OF_MESSAGE: _end_of_message,
        Command.ABORT: _abort,
        Command.QUIT: _quit,
        Command.QUIT_NEW_CONNECTION: _quit_new_connection,
    }
    _HANDLERS_OF_NEW: ClassVar[dict[int, Callable[[Session, bytes], bytes | None]]] = {
        Command.NEGOTIATE: _negotiate,
        Command.QUIT: _quit,
    }


FAILED = Decision((), TemporaryFailure())
_LEGAL_AT_END = LEGAL_REPLIES[Command.END_OF_MESSAGE]
_CONNECT, _MAIL, _RECIPIENT = int(Command.CONNECT), int(Command.MAIL), int(Command.RECIPIENT)
_HEADER = int(Command.HEADER)
_CONNECTION_STAGES = frozenset(map(int, (Command.CONNECT, Command.HELO)))
# All others may be as many and as long as an MTA likes.
_KEPT_MACROS = frozenset({b"i", b"j", b"daemon_name", b"auth_type", b"auth_authen"})
