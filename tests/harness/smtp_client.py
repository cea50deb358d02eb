"""Hand one message to an SMTP server, with addresses spelled exactly as given, and keep every reply."""

from __future__ import annotations

import smtplib
import time
from dataclasses import dataclass

STRANGER = "127.0.0.2"  # a client address outside the tests' mynetworks and inet_interfaces
HELO = "client.example"
TIMEOUT = (
    120.0  # seconds for one reply: Postfix answers after 10 s per failing lookup, of which it makes several
)


@dataclass(frozen=True)
class Step:
    """One command and what came back."""

    command: str
    code: int
    text: str
    seconds: float


@dataclass(frozen=True)
class Transaction:
    """The steps from MAIL to the end of DATA; it stops at the first refusal."""

    steps: tuple[Step, ...]

    @property
    def last(self) -> Step:
        """The step that decided."""
        return self.steps[-1]

    @property
    def accepted(self) -> bool:
        """Whether the server took the message over."""
        return self.last.command == "." and self.last.code == 250


def send(
    server: tuple[str, int],
    sender: str,
    recipient: str,
    content: bytes,
    *,
    source: str = STRANGER,
    helo: str = HELO,
) -> Transaction:
    """Send content from sender to recipient (neither with angle brackets), by SMTPUTF8 where they need it."""
    steps: list[Step] = []
    options = "" if (sender + recipient).isascii() else " SMTPUTF8"
    with smtplib.SMTP(*server, timeout=TIMEOUT, source_address=(source, 0)) as client:
        client.ehlo(helo)
        client.command_encoding = "utf-8"

        def step(name: str, expected: int, command: str) -> bool:
            start = time.monotonic()
            code, text = client.data(content) if name == "." else client.docmd(command)
            steps.append(Step(name, code, text.decode(errors="replace"), time.monotonic() - start))
            return code == expected

        try:
            (
                step("MAIL", 250, f"MAIL FROM:<{sender}>{options}")
                and step("RCPT", 250, f"RCPT TO:<{recipient}>")
                and step(".", 250, "")
            )
        except smtplib.SMTPDataError as refused:  # the refusal of DATA itself
            error = (
                refused.smtp_error if isinstance(refused.smtp_error, bytes) else refused.smtp_error.encode()
            )
            steps.append(Step(".", refused.smtp_code, error.decode(errors="replace"), 0.0))
    return Transaction(tuple(steps))


def message(sender: str, recipient: str, subject: str = "a test") -> bytes:
    """Return a small message whose From: and To: say sender and recipient."""
    lines = [
        f"From: Original Sender <{sender}>",
        f"To: <{recipient}>",
        f"Subject: {subject}",
        "Date: Mon, 02 Feb 2026 10:00:00 +0000",
        "Message-ID: <1@client.example>",
        "MIME-Version: 1.0",
        "Content-Type: text/plain; charset=utf-8",
        "Content-Transfer-Encoding: 8bit",
        "",
        "Hello.",
        "",
    ]
    return "\r\n".join(lines).encode()
