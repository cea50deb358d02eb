"""A loopback SMTP server that keeps what it is given, and refuses the recipients it is told to refuse.

with SmtpSink() as sink:
    sink.refuse["dave@example.com"] = "550 5.1.1 no such user"
    ...
    message = sink.wait_for(lambda m: "carol@example.com" in m.recipients)
"""

from __future__ import annotations

import asyncio
import email
import email.policy
import re
import threading
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Self

from aiosmtpd.lmtp import LMTP
from aiosmtpd.smtp import SMTP

from harness.ports import free_port

if TYPE_CHECKING:
    from collections.abc import Callable
    from email.message import EmailMessage

DEADLINE = 20.0  # seconds; a delivery takes some 50 ms
PATH = re.compile(r'\s*<((?:"(?:\\.|[^"\\])*"|[^">])*)>(.*)', re.DOTALL)


@dataclass(frozen=True)
class Message:
    """One message as it came in: the envelope in its exact spelling on the wire, and the content."""

    sender: str  # the reverse-path without its angle brackets; "" is the null sender
    recipients: tuple[str, ...]
    content: bytes

    @cached_property
    def headers(self) -> EmailMessage:
        """The parsed content, for headers["From"]; parsed once, since whoever waits looks at all of them again."""
        return email.message_from_bytes(self.content, policy=email.policy.default)


class _Exact(SMTP):
    """aiosmtpd's server, but addresses keep their spelling: it would unquote and re-quote them."""

    def _getaddr(self, arg: str) -> tuple[str | None, str | None]:
        path = PATH.match(arg)
        # "<>" as in aiosmtpd: an empty text would look like a missing sender to it.
        return (path[1] or "<>", path[2]) if path else (None, None)


class _Smtp(_Exact):
    """An SMTP server."""


class _Lmtp(_Exact, LMTP):
    """An LMTP server, for one recipient at a time."""


@dataclass
class SmtpSink:
    """The server, in a thread with its own event loop."""

    hostname: str = "sink.example"
    refuse: dict[str, str] = field(default_factory=dict)  # recipient -> the reply to its RCPT TO
    messages: list[Message] = field(default_factory=list)
    port: int = field(default_factory=free_port)
    lmtp: bool = False  # it speaks LMTP, as those that deliver into mailboxes do
    _arrival: threading.Condition = field(default_factory=threading.Condition)

    def __enter__(self) -> Self:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="smtp-sink")
        self._thread.start()
        try:
            self._server = self._run(self._listen())
        except BaseException:
            self._stop_loop()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._run(self._close())
        self._stop_loop()

    def received(self, recipient: str) -> list[Message]:
        """Return what has come for a recipient so far."""
        with self._arrival:
            return [message for message in self.messages if recipient in message.recipients]

    def wait_for(self, wanted: Callable[[Message], object], deadline: float = DEADLINE) -> Message:
        """Return the first message that satisfies wanted, when it has come."""
        return self.wait_for_all(wanted, 1, deadline)[0]

    def wait_for_all(
        self, wanted: Callable[[Message], object], count: int, deadline: float = DEADLINE
    ) -> list[Message]:
        """Return the messages that satisfy wanted, when there are at least count."""
        with self._arrival:
            self._arrival.wait_for(lambda: sum(bool(wanted(m)) for m in self.messages) >= count, deadline)
            found = [message for message in self.messages if wanted(message)]
            if len(found) < count:
                seen = "\n".join(f"  {m.sender!r} -> {m.recipients}" for m in self.messages[-20:])
                raise TimeoutError(
                    f"{len(found)} of {count} messages in {deadline} s; the last that came:\n{seen}"
                )
            return found

    # What aiosmtpd calls; all of it in the loop's thread.

    async def handle_RCPT(self, _server, _session, envelope, address, _options) -> str:  # noqa: N802
        if reply := self.refuse.get(address):
            return reply
        envelope.rcpt_tos.append(address)
        return "250 2.1.5 OK"

    async def handle_DATA(self, _server, _session, envelope) -> str:  # noqa: N802
        sender = envelope.mail_from.removeprefix("<>")
        with self._arrival:
            self.messages.append(Message(sender, tuple(envelope.rcpt_tos), envelope.content))
            self._arrival.notify_all()
        return "250 2.0.0 kept"

    # The thread and its loop.

    async def _listen(self) -> asyncio.Server:
        def smtp() -> SMTP:
            kind = _Lmtp if self.lmtp else _Smtp
            return kind(self, hostname=self.hostname, enable_SMTPUTF8=True, loop=self._loop)

        return await self._loop.create_server(smtp, "127.0.0.1", self.port)

    async def _close(self) -> None:
        self._server.close()
        sessions = asyncio.all_tasks() - {asyncio.current_task()}
        for session in sessions:
            session.cancel()
        await asyncio.gather(*sessions, return_exceptions=True)

    def _run(self, work):
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(DEADLINE)

    def _stop_loop(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()
