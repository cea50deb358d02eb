"""An SMTP content filter that changes nothing: what it is given it gives back to another port.

with ContentFilter(back_to=postfix_port) as scanner:
    main_cf = f"content_filter = scan:[127.0.0.1]:{scanner.port}\\n"
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from harness.smtp_client import Transaction, send
from harness.smtp_sink import SmtpSink


@dataclass
class ContentFilter(SmtpSink):
    """The filter; messages has what went through."""

    back_to: int = 0  # a port of 127.0.0.1

    async def handle_DATA(self, server, session, envelope) -> str:  # noqa: N802
        reply = await super().handle_DATA(server, session, envelope)
        message = self.messages[-1]

        def give_back() -> list[Transaction]:
            back = ("127.0.0.1", self.back_to)
            return [
                send(back, message.sender, recipient, message.content, source="127.0.0.1")
                for recipient in message.recipients
            ]

        for given in await asyncio.get_running_loop().run_in_executor(None, give_back):
            if not given.accepted:
                return f"451 4.3.0 not taken back: {given.last.code} {given.last.text}"
        return reply
