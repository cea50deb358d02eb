"""Forward one mail through a throw-away Postfix and srsd, bounce it, print the envelopes before and after.

    python scripts/demo.py [tcp_table|socketmap]

Everything runs on loopback and in a directory under /tmp, and is gone at the end. It needs root, Postfix and
aiosmtpd.
"""

from __future__ import annotations

import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

try:
    from harness import postfix
    from harness.forwarder import WIRINGS, Forwarder
    from harness.smtp_client import message, send
    from harness.smtp_sink import Message, SmtpSink
except ModuleNotFoundError as missing:
    sys.exit(f"The demo needs {missing.name}: {sys.executable} -m pip install {missing.name}")

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import FrameType

ALICE = "alice@origin.example"
BOB = "bob@first.example"
BOB_OUTSIDE = "bob@far.example"


def main(arguments: Sequence[str]) -> int:
    """Run the demo over one of the wirings; return the exit status."""
    wiring = arguments[0] if arguments else WIRINGS[0]
    if wiring not in WIRINGS:
        sys.stderr.write(f"usage: demo.py [{'|'.join(WIRINGS)}]\n")
        return 2
    if reason := postfix.why_not():
        sys.stderr.write(f"The demo needs a real Postfix. {reason}\n")
        return 1
    for termination in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(termination, leave)
    say(f"Starting a throw-away Postfix and srsd, joined by postfix/{wiring}.cf ...")
    with (
        SmtpSink() as sink,
        Forwarder("first", wiring, aliases={BOB: BOB_OUTSIDE}, relay_port=sink.port) as host,
    ):
        say(f"{host.domain} forwards {BOB} to {BOB_OUTSIDE}; srsd rewrites senders to {host.srs_domain}.\n")
        arrived = Message(ALICE, (BOB,), message(ALICE, BOB, "hello"))
        left = forward(host, sink, arrived)
        compare(f"1. {ALICE} writes to {BOB}", "as it arrived", "as it left for far.example", arrived, left)
        report = Message("", (left.sender,), message("postmaster@far.example", left.sender, "undeliverable"))
        returned = forward(host, sink, report)
        compare(
            "2. far.example sends a bounce",
            "as it arrived",
            "as it left for origin.example",
            report,
            returned,
        )
        say("srsd logged:")
        say("\n".join(f"  {line}" for line in host.srsd.log if " -> " in line))
    say("\nPostfix, srsd and their files are gone again.")
    return 0


def forward(host: Forwarder, sink: SmtpSink, mail: Message) -> Message:
    """Hand a mail to the host's Postfix; return it as it comes to the sink."""
    sent = send(host.postfix.address, mail.sender, mail.recipients[0], mail.content)
    if not sent.accepted:
        sys.exit(f"Postfix refused the mail: {sent.last.code} {sent.last.text}")
    return sink.wait_for(lambda m: m.headers["Subject"] == mail.headers["Subject"])


def compare(title: str, before_title: str, after_title: str, before: Message, after: Message) -> None:
    """Print two states of a mail side by side."""
    rows = [
        ("", before_title, after_title),
        ("envelope sender", f"<{before.sender}>", f"<{after.sender}>"),
        ("envelope recipient", f"<{before.recipients[0]}>", f"<{after.recipients[0]}>"),
        *((f"{name}: header", before.headers[name], after.headers[name]) for name in ("From", "To")),
    ]
    width = max(len(str(before_text)) for _, before_text, _ in rows)
    say(title)
    for name, before_text, after_text in rows:
        mark = " " if not name else "=" if before_text == after_text else ">"
        say(f"  {name:<20}{before_text!s:<{width}}  {mark}  {after_text}")
    say("")


def say(text: str) -> None:
    """Print at once, also into a pipe."""
    print(text, flush=True)


def leave(number: int, _frame: FrameType | None) -> None:
    """End on a signal as on Ctrl-C: what was started is stopped on the way out."""
    sys.exit(128 + number)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
