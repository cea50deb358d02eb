"""Two forwarding hosts in a row and a sink for everybody else's mail: what the end-to-end tests play on.

first.example forwards to second.example or to the sink, second.example to the sink; origin.example and
far.example, and whatever else is neither host's, are the sink.
"""

from __future__ import annotations

import itertools
import re
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from harness.forwarder import Forwarder
from harness.smtp_client import STRANGER, Transaction, message, send
from harness.smtp_sink import Message, SmtpSink

if TYPE_CHECKING:
    from collections.abc import Iterator

SRS0 = re.compile(r'"?SRS0=([A-Za-z0-9_-]{4})=([A-Z2-7]{2})=([^=]+)=(.+?)"?@([^@]+)')
SRS1 = re.compile(r"SRS1=([A-Za-z0-9_-]{4})=([^=]+)==(.+)@([^@]+)")
FIRST_SECRET = "the first host's secret"

# A site that rewrites headers has moved its map to canonical_maps, as postfix/README.md says.
HEADER_CANONICAL = """
canonical_maps = inline:{ { jdoe@first.example = John.Doe@first.example } }
canonical_classes = envelope_sender, header_sender
"""
_numbers = itertools.count(1)


def unique_sender() -> str:
    """Return an address at origin.example that was not used before."""
    return f"alice{next(_numbers)}@origin.example"


@dataclass(frozen=True)
class Net:
    """The hosts, and what the tests do with them."""

    sink: SmtpSink
    first: Forwarder
    second: Forwarder

    def send(
        self, sender: str, recipient: str, *, host: Forwarder | None = None, source: str = STRANGER
    ) -> Transaction:
        """Hand a message to a host (the first), whatever it answers."""
        content = message(sender or "mailer-daemon@far.example", recipient)
        return send((host or self.first).postfix.address, sender, recipient, content, source=source)

    def forward(
        self,
        sender: str,
        recipient: str = "bob@first.example",
        *,
        header_to: str | None = None,
        host: Forwarder | None = None,
        source: str = STRANGER,
    ) -> Message:
        """Send a message that must be accepted, and return it as it comes to the sink."""
        subject = f"number {next(_numbers)}"  # tells it apart from all others
        content = message(sender or "mailer-daemon@far.example", header_to or recipient, subject)
        sent = send((host or self.first).postfix.address, sender, recipient, content, source=source)
        assert sent.accepted, sent.last
        return self.sink.wait_for(lambda m: m.headers["Subject"] == subject)

    def bounce(self, srs_address: str, *, host: Forwarder | None = None) -> str:
        """Send a delivery status notification to an address, and return whom it reached in the end."""
        returned = self.forward("", srs_address, host=host)
        assert returned.sender == ""
        (recipient,) = returned.recipients
        return recipient

    def wait_for_own_bounce(self, sender: str) -> Message:
        """Return the notification that a Postfix of ours made for the sender of a refused message."""
        reports = "multipart/report"
        returned = self.sink.wait_for(
            lambda m: m.recipients == (sender,) and m.headers.get_content_type() == reports
        )
        assert returned.sender == ""
        return returned


@contextmanager
def two_hosts(wiring: str) -> Iterator[Net]:
    """Start the sink and both hosts; their end checks that no process is left."""
    with SmtpSink() as sink:
        sink.refuse["refused@far.example"] = "550 5.1.1 no such user"
        first = Forwarder(
            "first",
            wiring,
            relay_port=sink.port,
            aliases={
                "bob@first.example": "bob@far.example",
                "refused@first.example": "refused@far.example",
                "late@first.example": "late@far.example",
                "chain@first.example": "chain@second.example",
                "chain-refused@first.example": "chain-refused@second.example",
                "jdoe@first.example": "jdoe@far.example",
                "john.doe@first.example": "jdoe@far.example",
            },
            exclude="@friend.example\nvip@origin.example\n",
            secrets=[FIRST_SECRET],
            optional_lines=True,
            main_cf=HEADER_CANONICAL,
        )
        second = Forwarder(
            "second",
            wiring,
            relay_port=sink.port,
            aliases={
                "chain@second.example": "bob@far.example",
                "chain-refused@second.example": "refused@far.example",
            },
            secrets=["the second host's secret"],
            chroot=False,  # as on systems other than Debian
        )
        _list_no_srs_map(second)
        first.routes = dict.fromkeys(("second.example", "srs.second.example"), second.postfix.port)
        second.routes = dict.fromkeys(("first.example", "srs.first.example"), first.postfix.port)
        with first, second:
            yield Net(sink, first, second)


def _list_no_srs_map(host: Forwarder) -> None:
    """List a site's own map before srsd, as in a pfix-srsd set-up with its pfix-no-srs.cf."""
    no_srs = host.postfix.directory / "pfix-no-srs.cf"
    no_srs.write_text("carol@legacy.example carol@legacy.example\n@legacy.example @legacy.example\n")
    listed = f"sender_canonical_maps = texthash:{no_srs}, "
    host.postfix.main_cf = host.postfix.main_cf.replace("sender_canonical_maps = ", listed)
