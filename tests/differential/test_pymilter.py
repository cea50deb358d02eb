"""The same SMTP sessions, told to srsd and to a filter of the same mind on pymilter (libmilter): the same replies."""

from __future__ import annotations

import subprocess
import sys
import time
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from harness.daemon import Srsd, write_config
from harness.milter_client import STEPS, MilterClient, connect_data, strings
from harness.running import new_directory

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from harness.milter_client import Outcome

AUTHSERV_ID = "mx.example.net"
DEADLINE = 10.0
CLIENT = (b"mail.example.org", "192.0.2.1")
OURS = (b"Authentication-Results", b" mx.example.net; none")

pytest.importorskip("Milter", reason="pymilter is not installed: nothing was compared with it")


def results(text: bytes, name: bytes = b"Authentication-Results") -> tuple[bytes, bytes]:
    return name, b" " + text


FORGED = results(b"mx.example.net; spf=pass smtp.mailfrom=a@b")
FOREIGN = results(b"other.example; spf=pass")
HEADERS = [(b"From", b" a@x.example"), (b"To", b" b@y.example,\n\tc@y.example"), (b"Subject", b" x")]


@pytest.fixture(scope="module")
def peers() -> Iterator[dict[str, str]]:
    """Start both; give their endpoints."""
    with ExitStack() as stack:
        directory = stack.enter_context(new_directory())
        path = f"{directory}/reference"
        program = Path(__file__).with_name("reference_milter.py")
        with (directory / "reference.log").open("w") as log:
            reference = subprocess.Popen([sys.executable, program, f"unix:{path}", AUTHSERV_ID], stderr=log)
        stack.callback(reference.wait)
        stack.callback(reference.kill)  # it would take five seconds to end by itself
        config = write_config(
            directory,
            listen={"srs_forward": [], "srs_reverse": [], "milter": [f"unix:{directory}/milter"]},
            milter={"authserv_id": AUTHSERV_ID},
            **{method: {"verify": False} for method in ("spf", "dkim", "dmarc", "arc")},
            srs={"domain": "fwd.example.net"},
        )
        srsd = stack.enter_context(Srsd(config))
        end = time.monotonic() + DEADLINE
        while not Path(path).is_socket():
            assert reference.poll() is None, (directory / "reference.log").read_text()
            assert time.monotonic() < end
            time.sleep(0.02)
        yield {"srsd": f"unix:{srsd.unix('milter')}", "pymilter": f"unix:{path}"}
        assert not any("Traceback" in line for line in srsd.log), srsd.log


# The sessions. Each begins after the negotiation, and returns what was said of its messages.


def begin(mta: MilterClient) -> None:
    mta.connect(*CLIENT)
    mta.helo(b"mail.example.org")


def one_message(mta: MilterClient) -> list[Outcome]:
    begin(mta)
    return [mta.message(headers=HEADERS)]


def several_messages(mta: MilterClient) -> list[Outcome]:
    begin(mta)
    return [
        mta.message(headers=[*HEADERS, *[FORGED] * (number % 3), FOREIGN], queue_id=b"QUEUE%d" % number)
        for number in range(7)
    ]


def forged_among_foreign(mta: MilterClient) -> list[Outcome]:
    begin(mta)
    return [mta.message(headers=[FORGED, FOREIGN, FORGED, *HEADERS, FOREIGN, FORGED])]


def forged_in_other_spellings(mta: MilterClient) -> list[Outcome]:
    begin(mta)
    headers = [
        results(b"MX.Example.Net; spf=pass", b"AUTHENTICATION-RESULTS"),
        results(b"mx.example.net 1; none", b"authentication-results"),
        results(b"\n\tmx.example.net;\n\tspf=pass"),
        results(b"mx.example.netz; spf=pass"),
        results(b"a.mx.example.org; spf=pass"),
    ]
    return [mta.message(headers=[*headers, *HEADERS])]


def two_hundred_forged(mta: MilterClient) -> list[Outcome]:
    begin(mta)
    return [mta.message(headers=[FORGED] * 200 + HEADERS)]


def many_headers(mta: MilterClient) -> list[Outcome]:
    begin(mta)
    return [mta.message(headers=[(b"X-%d" % number, b" %d" % number) for number in range(1000)])]


def long_header(mta: MilterClient) -> list[Outcome]:
    begin(mta)
    return [mta.message(headers=[(b"X", b" " + b"x" * 59_000), FORGED, *HEADERS])]


def body_chunks(mta: MilterClient) -> list[Outcome]:
    begin(mta)
    sizes = (0, 1, 65534, 65535, 65536, 200_000)
    return [mta.message(headers=HEADERS, body=b"x" * size) for size in sizes]


def no_headers_and_no_body(mta: MilterClient) -> list[Outcome]:
    begin(mta)
    return [mta.message(headers=[], body=b""), mta.message(headers=[], body=b"text"), mta.message(body=b"")]


def eight_bits(mta: MilterClient) -> list[Outcome]:
    """In names and paths they are UTF-8: pymilter calls nobody for others."""
    mta.connect("mäil.example".encode(), "192.0.2.1")
    mta.helo("mäil.example".encode())
    headers = [(b"Subject", b" \xe4\xff\xc3\xa9"), results(b"mx.example.net; spf=pass (\xe4)"), *HEADERS]
    return [mta.message("<ä@x.example>".encode(), [b"<\xc3\xa9@y.example>"], headers, b"\xff\x80")]


def null_sender_and_arguments(mta: MilterClient) -> list[Outcome]:
    begin(mta)
    return [
        mta.message(b"<>", headers=HEADERS),
        mta.message(b"", headers=HEADERS),  # as cleanup spells it
        mta.message(b"<a@x.example>", headers=HEADERS, arguments=[b"SIZE=100", b"BODY=8BITMIME"]),
    ]


def many_recipients(mta: MilterClient) -> list[Outcome]:
    begin(mta)
    return [mta.message(recipients=[b"<r%d@y.example>" % number for number in range(1000)], headers=HEADERS)]


def ipv6_client(mta: MilterClient) -> list[Outcome]:
    mta.connect(b"mail.example.org", "2001:db8::1")
    mta.helo(b"mail.example.org")
    return [mta.message(headers=[FORGED, *HEADERS])]


def client_without_an_address(mta: MilterClient) -> list[Outcome]:
    mta.connect(b"unknown", None)
    mta.helo(b"x")
    return [mta.message(headers=[FORGED, *HEADERS])]


def client_on_a_unix_socket(mta: MilterClient) -> list[Outcome]:
    mta.connect(b"localhost", "/run/x")
    return [mta.message(headers=[FORGED, *HEADERS])]


def no_helo(mta: MilterClient) -> list[Outcome]:
    mta.connect(*CLIENT)
    return [mta.message(headers=HEADERS)]


def helo_again(mta: MilterClient) -> list[Outcome]:
    begin(mta)
    first = mta.message(headers=HEADERS)
    mta.helo(b"again.example")
    return [first, mta.message(headers=[FORGED, *HEADERS])]


def unknown_commands(mta: MilterClient) -> list[Outcome]:
    mta.connect(*CLIENT)
    mta.unknown(b"XYZZY")
    mta.helo(b"mail.example.org")
    mta.unknown(b"PLUGH")
    mta.mail(b"<a@x.example>")
    mta.unknown(b"XYZZY \xff")
    mta.rcpt(b"<b@y.example>")
    mta.unknown(b"")
    mta.abort()
    return [mta.message(headers=HEADERS)]


def abort_after(events: int) -> Callable[[MilterClient], list[Outcome]]:
    def session(mta: MilterClient) -> list[Outcome]:
        begin(mta)
        steps = [
            lambda: mta.mail(b"<old@x.example>"),
            lambda: mta.rcpt(b"<old@y.example>"),
            lambda: mta.rcpt(b"<other@y.example>"),
            lambda: mta.data() if mta.version >= 4 else None,
            lambda: mta.header(*FORGED),
            lambda: mta.header(b"Subject", b" old"),
            mta.end_of_headers,
            lambda: mta.body(b"old\r\n"),
        ]
        for step in steps[:events]:
            step()
        mta.abort()
        return [mta.message(headers=[FOREIGN, FORGED, *HEADERS]), mta.message(headers=HEADERS)]

    return session


def mail_without_abort(mta: MilterClient) -> list[Outcome]:
    """Postfix says ABORT, Sendmail need not where the message was ended."""
    begin(mta)
    return [mta.message(headers=[FORGED, *HEADERS], end=False) for _ in range(3)]


def mail_twice(mta: MilterClient) -> list[Outcome]:
    begin(mta)
    mta.mail(b"<old@x.example>")
    mta.rcpt(b"<old@y.example>")
    return [mta.message(headers=[FORGED, *HEADERS])]


def aborts_everywhere(mta: MilterClient) -> list[Outcome]:
    begin(mta)
    mta.abort()
    mta.abort()
    first = mta.message(headers=HEADERS)
    mta.abort()
    return [first, mta.message(headers=HEADERS)]


def quit_nc(mta: MilterClient) -> list[Outcome]:
    """Only Sendmail says QUIT_NC, and right after a message: elsewhere libmilter drops it, and then hangs."""
    outcomes = []
    for number in range(3):
        mta.connect(b"mail%d.example" % number, f"192.0.2.{number + 1}")
        mta.helo(b"helo%d.example" % number)
        outcomes += [mta.message(headers=[FORGED] * number + HEADERS) for _ in range(2)]
        mta.quit_new_connection()
    return outcomes


SESSIONS: dict[str, Callable[[MilterClient], Sequence[Outcome]]] = {
    each.__name__: each
    for each in (
        *(one_message, several_messages, forged_among_foreign, forged_in_other_spellings, two_hundred_forged),
        *(
            many_headers,
            long_header,
            body_chunks,
            no_headers_and_no_body,
            eight_bits,
            null_sender_and_arguments,
        ),
        *(
            many_recipients,
            ipv6_client,
            client_without_an_address,
            client_on_a_unix_socket,
            no_helo,
            helo_again,
        ),
        *(unknown_commands, mail_without_abort, mail_twice, aborts_everywhere, quit_nc),
    )
} | {f"abort_after_{events}_events": abort_after(events) for events in range(9)}

# Each way to speak: as Postfix and Sendmail do, with and without what came with version 6.
WAYS: dict[str, dict[str, Any]] = {
    "Postfix": {},
    "Postfix, every event answered": {"steps": STEPS[4]},
    "Postfix, version 4": {"version": 4},
    "Postfix, version 3": {"version": 3},
    "Postfix, version 2": {"version": 2},
    "Sendmail": {"sendmail": True},
    "Sendmail, version 2": {"sendmail": True, "version": 2},
}


def replay(endpoint: str, session: Callable[[MilterClient], Sequence[Outcome]], way: dict[str, Any]) -> Any:
    with MilterClient.of(endpoint, **way) as mta:
        outcomes = session(mta)
        mta.quit()
        closed = mta.is_closed()
        return outcomes, mta.replies, closed


def simple(headers: Sequence[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    """Return headers without what an MTA may change: the case of names, and blanks at the ends."""
    return [(name.lower(), value.strip()) for name, value in headers]


CASES = [(name, way) for name in SESSIONS for way in WAYS if name != "quit_nc" or way.startswith("Sendmail")]


@pytest.mark.parametrize(("name", "way"), CASES)
def test_the_same_session_gets_the_same_replies(peers, name, way):
    ours, our_replies, we_closed = replay(peers["srsd"], SESSIONS[name], WAYS[way])
    theirs, their_replies, they_closed = replay(peers["pymilter"], SESSIONS[name], WAYS[way])
    assert we_closed
    assert they_closed
    assert len(ours) == len(theirs) > 0
    for mine, reference in zip(ours, theirs, strict=True):
        assert mine.verdict == reference.verdict == "continue"
        assert mine.event == reference.event == b"E"
        changes = [
            [(*each[:2], each.name.lower()) for each in one.modifications] for one in (mine, reference)
        ]
        assert changes[0] == changes[1]
        assert simple(mine.headers) == simple(reference.headers)
        assert simple(mine.headers)[:1] == simple([OURS])
        assert simple([FORGED])[0] not in simple(mine.headers)
    # Neither asks for the same events, nor for replies to them: what both answered is compared.
    both = {event for event, _ in our_replies} & {event for event, _ in their_replies}
    assert b"E" in both
    assert [each for each in our_replies if each[0] in both] == [
        each for each in their_replies if each[0] in both
    ]
    if way in ("Postfix, every event answered", "Postfix, version 4"):
        assert both >= {b"C", b"M", b"R", b"T", b"N", b"E"}


# Where they differ, and why ours does what it does.


def test_commands_out_of_order_are_ignored_there_and_end_the_connection_here(peers):
    """No MTA sends RCPT without MAIL. One that waited for a reply would wait for its time-out: libmilter
    drops the command. A closed connection is an answer at once."""
    replies = {}
    for name, endpoint in peers.items():
        with MilterClient.of(endpoint, steps=STEPS[4]) as mta:
            begin(mta)
            mta.put(b"R", strings(b"<b@y.example>"))
            mta.put(b"M", strings(b"<a@x.example>"))
            try:
                replies[name] = mta.read_packet()
            except (EOFError, ConnectionResetError):
                replies[name] = None
    assert replies == {"srsd": None, "pymilter": (b"c", b"")}  # the reply to MAIL


def test_a_second_connect_is_a_new_client_in_both(peers):
    for endpoint in peers.values():
        with MilterClient.of(endpoint) as mta:
            begin(mta)
            mta.put(b"C", connect_data(b"other.example", "192.0.2.9"))
            outcome = mta.message(headers=[FORGED, *HEADERS])
            assert outcome.verdict == "continue"
            assert simple(outcome.headers)[:1] == simple([OURS])
