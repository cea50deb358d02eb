"""The milter of a real srsd, spoken to as Postfix and Sendmail do: what mail gets, and what a session lives through."""

from __future__ import annotations

import contextlib
import json
import re
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest
from authres import AuthenticationResultsHeader

from harness.daemon import DEADLINE, LOOPBACK, Srsd, write_config
from harness.dns_server import DnsServer, Script
from harness.milter_client import DEFAULT_MACROS, MACROS, STAGES, MilterClient, Outcome
from harness.running import new_directory, patched
from harness.wire_clients import check_log, until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

AUTHSERV_ID = "mx.example.net"
GOOD = "192.0.2.1"  # may send for good.example and slow.example
BAD = "198.51.100.1"
ZONES = {
    ("good.example", "TXT"): ["v=spf1 ip4:192.0.2.1 ip6:2001:db8::1 -all"],
    ("helo.example", "TXT"): ["v=spf1 ip4:192.0.2.1 -all"],
    **{(f"slow{number}.example", "TXT"): ["v=spf1 ip4:192.0.2.1 -all"] for number in range(300)},
}
FORGED = (b"Authentication-Results", b" mx.example.net; spf=pass smtp.mailfrom=bank.example")
FOREIGN = (b"Authentication-Results", b" other.example; dkim=pass header.d=x.example")
HEADERS = [(b"From", b" a@good.example"), (b"Subject", b" x")]


def configure(
    directory: Path, dns: object, *, timeout: float = 5.0, deadline: float = 20.0, **tables: Any
) -> Path:
    """Write a configuration with a milter on TCP and on a unix socket. dns is the name server."""
    listen = {
        "srs_forward": [],
        "srs_reverse": [],
        "milter": [LOOPBACK, f"unix:{directory}/milter"],
        "control": [f"unix:{directory}/control"],
    }
    dns_table = {"nameservers": [str(dns)], "timeout": timeout, "message_deadline": deadline}
    srs = {"domain": "fwd.example.net"}
    return write_config(directory, listen=listen, srs=srs, dns=dns_table, **tables)


@pytest.fixture(scope="module")
def dns() -> Iterator[DnsServer]:
    with DnsServer(ZONES) as server:
        yield server


@pytest.fixture(scope="module")
def shared(dns) -> Iterator[Srsd]:
    """One srsd for tests that leave it as it was."""
    with new_directory() as directory:
        with Srsd(configure(directory, dns)) as srsd:
            yield srsd
        check_log(srsd.log)
        assert srsd.returncode == 0


def client(srsd: Srsd, address: str | None = GOOD, *, unix: bool = True, **how: Any) -> MilterClient:
    """Connect, and report an SMTP client."""
    endpoint = next(each for each in srsd.endpoints["milter"] if each.startswith("unix:") is unix)
    mta = MilterClient.of(endpoint, **how)
    mta.connect(b"mail.good.example", address)
    mta.helo(b"helo.example")
    return mta


def results(outcome: Outcome) -> AuthenticationResultsHeader:
    """Parse the field that stands on top; it is ours."""
    name, value = outcome.headers[0]
    assert name == b"Authentication-Results"
    parsed = AuthenticationResultsHeader.parse(f"{name.decode()}:{value.decode()}")
    assert parsed.authserv_id == AUTHSERV_ID
    return parsed


def spf(outcome: Outcome) -> dict[str, str]:
    """Return the results of SPF by identity."""
    return {each.properties[0].name: each.result for each in results(outcome).results if each.method == "spf"}


def ours(outcome: Outcome) -> list[bytes]:
    """Return every Authentication-Results that names us."""
    return [
        value
        for name, value in outcome.headers
        if name.lower() == b"authentication-results" and b"mx.example.net" in value.lower()
    ]


def send(mta: MilterClient, sender: bytes = b"<a@good.example>", **how: Any) -> Outcome:
    outcome = mta.message(sender, headers=how.pop("headers", HEADERS), **how)
    assert outcome.verdict == "continue", outcome
    assert all(b"\r" not in value and b"\0" not in value for _, value in outcome.headers)
    return outcome


# What mail gets.


def test_what_is_negotiated(shared):
    with client(shared) as mta:
        assert mta.version == 6
        assert mta.actions == 0x111  # add, change, and set macros
        assert mta.steps & 0x1FF080 == 0x1FF080  # no replies, and blanks kept
        assert mta.steps & (0x7F & ~0x10) == 0  # every event is wanted, but for the body maybe
        assert set(mta.wanted) == set(STAGES)
        assert {b"j", b"{daemon_name}"} <= set(mta.wanted[b"C"])
        assert {b"{auth_type}", b"{auth_authen}"} <= set(mta.wanted[b"M"])
        assert b"i" in mta.wanted[b"T"]  # once, and not with each piece of the body


@pytest.mark.parametrize("unix", [False, True], ids=["tcp", "unix"])
def test_mail_from_outside_gets_one_field_on_top(shared, unix):
    with client(shared, unix=unix) as mta:
        outcome = send(mta)
    assert spf(outcome) == {"mailfrom": "pass", "helo": "pass"}
    assert len(ours(outcome)) == 1
    assert outcome.headers[1][0] == b"Received"
    assert outcome.headers[2:] == HEADERS


@pytest.mark.parametrize(
    ("address", "sender", "expected"),
    [
        (GOOD, b"<a@good.example>", "pass"),
        ("2001:db8::1", b"<a@good.example>", "pass"),
        ("::ffff:192.0.2.1", b"<a@good.example>", "pass"),
        (BAD, b"<a@good.example>", "fail"),
        (BAD, b"a@good.example", "fail"),  # as cleanup spells it
        (GOOD, b"<a@nothing.example>", "none"),
    ],
)
def test_spf(shared, address, sender, expected):
    with client(shared, address) as mta:
        assert spf(send(mta, sender))["mailfrom"] == expected


@pytest.mark.parametrize("sender", [b"<>", b""])
def test_the_null_sender_is_checked_by_its_helo(shared, sender):
    with client(shared) as mta:
        assert spf(send(mta, sender)) == {"helo": "pass"}


def test_forged_results_are_removed_and_foreign_ones_stay(shared):
    forged = [
        FORGED,
        (b"AUTHENTICATION-RESULTS", b" MX.Example.NET; spf=pass"),
        (b"Authentication-Results", b" (x) mx.example.net 1;\n\tspf=pass"),
        (b"Authentication-Results", b' "mx.example.net"; spf=pass'),
        (b"Authentication-Results", b"mx.example.net;none"),
    ]
    headers = [forged[0], FOREIGN, forged[1], forged[2], *HEADERS, FOREIGN, forged[3], forged[4]]
    with client(shared, BAD) as mta:
        outcome = send(mta, headers=headers)
    assert len(ours(outcome)) == 1
    assert spf(outcome)["mailfrom"] == "fail"
    assert outcome.headers[2:] == [FOREIGN, *HEADERS, FOREIGN]


LOGIN = {b"{auth_type}": b"PLAIN", b"{auth_authen}": b"alice"}


@pytest.mark.parametrize(
    ("address", "connection", "message"),
    [
        ("127.0.0.1", {}, {}),
        ("::1", {}, {}),
        (BAD, {b"{daemon_name}": b"ORIGINATING"}, {}),
        (BAD, {}, LOGIN),
    ],
    ids=["loopback", "loopback of IPv6", "ORIGINATING", "login"],
)
def test_mail_of_ours_only_loses_forged_results(shared, address, connection, message):
    with client(shared, address, macros={**MACROS, **connection}) as mta:
        for _ in range(2):
            outcome = send(mta, headers=[FORGED, FOREIGN, *HEADERS], macros=message)
            assert outcome.headers[1:] == [FOREIGN, *HEADERS]
            assert outcome.headers[0][0] == b"Received"


def test_a_login_counts_for_its_message_only(shared):
    with client(shared, BAD) as mta:
        assert not ours(send(mta, macros=LOGIN))
        assert spf(send(mta))["mailfrom"] == "fail"
        mta.mail(b"<a@good.example>", macros={**mta.macros, **LOGIN})
        mta.abort()
        assert spf(send(mta))["mailfrom"] == "fail"


def test_a_client_without_an_address_is_a_stranger(shared):
    for address in (None, "/run/x"):
        with client(shared, address) as mta:
            assert len(ours(send(mta, headers=[FORGED, *HEADERS]))) == 1


def test_messages_of_a_connection_do_not_mix(shared):
    with client(shared) as mta:
        for number in range(30):
            good = number % 3 == 0
            headers = [FORGED] * (number % 4) + HEADERS
            outcome = send(mta, b"<a@good.example>" if good else b"<a@nothing.example>", headers=headers)
            assert spf(outcome)["mailfrom"] == ("pass" if good else "none")
            assert outcome.headers[2:] == HEADERS


@pytest.mark.parametrize("sendmail", [False, True], ids=["Postfix", "Sendmail"])
@pytest.mark.parametrize("version", [2, 3, 4, 5, 6])
def test_every_version_gets_the_same(shared, version, sendmail):
    with client(shared, BAD, version=version, sendmail=sendmail) as mta:
        for _ in range(2):
            outcome = send(mta, headers=[FORGED, (b"X", b"\ttab"), (b"Y", b"  two"), *HEADERS])
            assert spf(outcome) == {"mailfrom": "fail", "helo": "fail"}
            assert outcome.headers[2:] == [(b"X", b"\ttab"), (b"Y", b"  two"), *HEADERS]


def test_an_mta_that_lets_no_macros_be_set(shared):
    with client(shared, BAD, actions=0xFF, steps=0) as mta:
        assert mta.wanted == DEFAULT_MACROS
        assert spf(send(mta))["mailfrom"] == "fail"
        assert not ours(send(mta, macros=LOGIN))


def test_connections_of_sendmail_that_are_used_again(shared):
    with client(shared, "127.0.0.1", sendmail=True) as mta:
        assert not ours(send(mta))
        for _ in range(2):
            mta.quit_new_connection()
            mta.connect(b"stranger.example", BAD)
            mta.helo(b"stranger.example")
            assert spf(send(mta))["mailfrom"] == "fail"
        mta.quit()
        assert mta.is_closed()


def test_the_log_has_a_line_for_each_message(shared):
    with client(shared, BAD) as mta:
        send(mta, queue_id=b"QUEUE4711", headers=[FORGED, *HEADERS])
    line = shared.wait_for_log("QUEUE4711")
    assert "mail.good.example[198.51.100.1]" in line
    assert "spf=fail" in line
    assert "forgeries_removed=1" in line


@pytest.fixture
def directory() -> Iterator[Path]:
    with new_directory() as made:
        yield made


def test_received_spf_stands_below(dns, directory):
    with Srsd(configure(directory, dns, spf={"received_spf": True})) as srsd, client(srsd) as mta:
        outcome = send(mta, headers=[(b"Received-SPF", b" pass (other.example)"), *HEADERS])
    names = [name for name, _ in outcome.headers]
    assert names[:4] == [b"Authentication-Results", b"Received-SPF", b"Received-SPF", b"Received"]
    assert all(value.lower().lstrip().startswith(b"pass") for _, value in outcome.headers[1:3])
    assert outcome.headers[4] == (b"Received-SPF", b" pass (other.example)")


def test_the_log_in_json(dns, directory):
    with Srsd(configure(directory, dns, log={"format": "json"})) as srsd, client(srsd, BAD) as mta:
        send(mta, b'<"\xff\n\x1b"@good.example>', queue_id=b"QUEUE\xff1")
        entry = json.loads(srsd.wait_for_log("QUEUE"))
    assert entry["origin"] == "outside"
    assert "\\xff1" in entry["queue_id"]


def test_two_workers(dns, directory):
    with Srsd(configure(directory, dns, workers=2)) as srsd:
        for _ in range(20):
            with client(srsd) as mta:
                assert spf(send(mta))["mailfrom"] == "pass"
    check_log(srsd.log)
    assert srsd.returncode == 0


# While DNS is slow.


def test_other_messages_are_answered_while_one_waits(shared, dns):
    dns.script["slow0.example"] = [Script(delay=1.5)]
    waiting: list[Outcome] = []
    with client(shared) as slow, client(shared) as other:
        thread = threading.Thread(target=lambda: waiting.append(send(slow, b"<a@slow0.example>")))
        thread.start()
        begin = time.monotonic()
        longest, count = 0.0, 0
        while thread.is_alive():
            start = time.monotonic()
            assert spf(send(other))["mailfrom"] == "pass"
            longest = max(longest, time.monotonic() - start)
            count += 1
        assert time.monotonic() - begin > 1.2
    assert spf(waiting[0])["mailfrom"] == "pass"
    assert count > 50
    assert longest < 0.5


def test_many_that_wait_wait_at_the_same_time(shared, dns):
    count = 100
    for number in range(1, 1 + count):
        dns.script[f"slow{number}.example"] = [Script(delay=1.0)]
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(client(shared)) for _ in range(count)]
        begin = time.monotonic()
        threads = [
            threading.Thread(target=send, args=(mta, b"<a@slow%d.example>" % number))
            for number, mta in enumerate(clients, 1)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert time.monotonic() - begin < 6.0


def test_messages_behind_one_that_waits_keep_their_order(shared, dns):
    for number in range(110, 115):
        dns.script[f"slow{number}.example"] = [Script(delay=0.2)]
    senders = [b"<a@slow110.example>", b"<a@good.example>", b"<a@slow111.example>", b"<a@nothing.example>"]
    with client(shared) as mta:
        outcomes = pipeline(mta, senders)
    assert [spf(each)["mailfrom"] for each in outcomes] == ["pass", "pass", "pass", "none"]


def pipeline(mta: MilterClient, senders: Sequence[bytes]) -> list[Outcome]:
    """Send whole messages at once, then read what comes: what no MTA does, but sockets may join."""

    class Recorder(MilterClient):
        def _replies_to(self, event: bytes) -> Outcome:
            return self._outcome("continue", b"", event, [])

    mta.flush()
    recorder = Recorder(mta.socket, negotiate=False)
    recorder.version, recorder.steps, recorder.actions = mta.version, mta.steps, mta.actions
    recorder.wanted = mta.wanted
    for sender in senders:
        recorder.message(sender, headers=HEADERS)
    recorder.flush()
    outcomes = [mta._replies_to(b"E") for _ in senders]
    return [
        each._replace(headers=[(each.modifications[0].name, each.modifications[0].value)])
        for each in outcomes
    ]


def hurried(seconds: float) -> list[str]:
    """Return what runs an srsd that asks for patience sooner."""
    return patched(f"import srsd.daemon.milter_connection as m; m.PROGRESS_SECONDS = {seconds}")


def test_progress_is_said_while_a_decision_is_late(dns, directory):
    dns.script["slow120.example"] = [Script(delay=1.2)]
    with Srsd(configure(directory, dns), argv=hurried(0.2)) as srsd, client(srsd) as mta:
        outcome = send(mta, b"<a@slow120.example>")
        assert spf(outcome)["mailfrom"] == "pass"
        assert 3 <= outcome.progress <= 7
        assert send(mta).progress == 0
    check_log(srsd.log)


def test_a_name_server_that_never_answers_is_a_temporary_error(directory):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as silent:
        silent.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{silent.getsockname()[1]}"
        with Srsd(configure(directory, address, timeout=0.5, deadline=1.0)) as srsd, client(srsd) as mta:
            begin = time.monotonic()
            assert spf(send(mta))["mailfrom"] == "temperror"
            assert time.monotonic() - begin < 4
    check_log(srsd.log)


def test_an_mta_that_leaves_while_a_decision_is_late(shared, dns):
    for number in range(130, 180):
        dns.script[f"slow{number}.example"] = [Script(delay=0.5)]
        mta = client(shared)
        mta.socket.settimeout(0.01)
        with mta, contextlib.suppress(TimeoutError):
            mta.message(b"<a@slow%d.example>" % number, headers=HEADERS)
    with client(shared) as mta:
        assert spf(send(mta))["mailfrom"] == "pass"
    until("end of the connections", lambda: status(shared)["connections_open"] == 0)


def status(srsd: Srsd) -> Any:
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(DEADLINE)
        connection.connect(srsd.unix("control"))
        connection.sendall(b'{"command": "status"}\n')
        with connection.makefile() as answers:
            return json.loads(answers.readline())["counters"]


# Bugs of ours.

INJECT = """
import srsd.filter.{module} as module
real = module.{name}
def broken({arguments}):
    if {condition}:
        raise KeyError("injected")
    return real({arguments})
module.{name} = broken
"""
BUGS = {
    "at the beginning": ("service", "make_transaction", "envelope, *more", "b'bug' in envelope.sender.text"),
    "at the end": (
        "message",
        "modifications",
        "transaction, *more, **named",
        "b'bug' in transaction.sender_path",
    ),
    "while DNS is asked": (
        "checks",
        "check_spf",
        "transaction, *more, **named",
        "b'bug' in transaction.sender_path",
    ),
}


def with_bug(where: str) -> str:
    module, name, arguments, condition = BUGS[where]
    return INJECT.format(module=module, name=name, arguments=arguments, condition=condition)


@pytest.mark.parametrize("where", BUGS)
@pytest.mark.parametrize(
    "way", [{}, {"version": 2}, {"sendmail": True}], ids=["Postfix", "version 2", "Sendmail"]
)
def test_a_bug_costs_one_message(dns, directory, where, way):
    argv = patched(with_bug(where))
    with Srsd(configure(directory, dns), argv=argv) as srsd:
        with client(srsd, **way) as mta, client(srsd) as other:
            send(mta, queue_id=b"BEFORE")
            outcome = mta.message(b"<bug@good.example>", headers=[FORGED, *HEADERS], queue_id=b"QUEUEBUG")
            assert outcome.verdict == "tempfail"
            assert outcome.event == b"E"
            assert outcome.modifications == []
            assert spf(send(mta, queue_id=b"AFTER"))["mailfrom"] == "pass"
            assert spf(send(other))["mailfrom"] == "pass"
        line = srsd.wait_for_log("QUEUEBUG")
        assert "bug" in line
        srsd.wait_for_log("KeyError: 'injected'")
        assert status(srsd)["bugs"] == 1
        assert sum("Traceback" in line for line in srsd.log) == 1
    assert srsd.returncode == 0
    assert not any("never retrieved" in line or "never awaited" in line for line in srsd.log)


def test_a_bug_in_a_message_that_is_given_up(dns, directory):
    argv = patched(with_bug("at the beginning"))
    with Srsd(configure(directory, dns), argv=argv) as srsd, client(srsd) as mta:
        mta.mail(b"<bug@good.example>")
        mta.rcpt(b"<b@y.example>")
        mta.data()
        mta.abort()
        assert spf(send(mta))["mailfrom"] == "pass"


# A new configuration.


def test_open_connections_keep_the_policy_that_they_began_with(dns, directory):
    with Srsd(configure(directory, dns, milter={"authserv_id": "old.example"})) as srsd, client(srsd) as old:
        assert send(old).headers[0][1].startswith(b" old.example;")
        configure(directory, dns, milter={"authserv_id": "new.example"})
        since = srsd.hup()
        srsd.wait_for_log("read again", since=since)
        with client(srsd) as new:
            assert send(new).headers[0][1].startswith(b" new.example;")
            assert send(old).headers[0][1].startswith(b" old.example;")
            forged = (b"Authentication-Results", b" new.example; spf=pass")
            assert forged in send(old, headers=[forged, *HEADERS]).headers
            assert forged not in send(new, headers=[forged, *HEADERS]).headers
        with client(srsd) as again:
            assert send(again).headers[0][1].startswith(b" new.example;")
    check_log(srsd.log)


def test_a_reload_in_the_middle_of_a_message(dns, directory):
    dns.script["slow190.example"] = [Script(delay=0.7)]
    with Srsd(configure(directory, dns, milter={"authserv_id": "old.example"})) as srsd, client(srsd) as mta:
        waiting: list[Outcome] = []
        thread = threading.Thread(target=lambda: waiting.append(send(mta, b"<a@slow190.example>")))
        thread.start()
        until("query", lambda: ("slow190.example", "TXT") in dns.asked)
        configure(directory, dns, milter={"authserv_id": "new.example"}, timeout=7.0)
        since = srsd.hup()
        srsd.wait_for_log("read again", since=since)
        thread.join()
        assert re.search(rb"^ old\.example;.*spf=pass", waiting[0].headers[0][1], re.DOTALL)
    check_log(srsd.log)


# The end.

STEPS: list[tuple[str, Callable[[MilterClient], object]]] = [
    ("MAIL", lambda mta: mta.mail(b"<a@good.example>")),
    ("RCPT", lambda mta: mta.rcpt(b"<b@y.example>")),
    ("DATA", lambda mta: mta.data()),
    ("header", lambda mta: mta.header(b"Subject", b" x")),
    ("EOH", lambda mta: mta.end_of_headers()),
    ("body", lambda mta: mta.event(b"B", b"text\r\n")),
]
STATES = ["connected", *[name for name, _ in STEPS]]


def go_until(mta: MilterClient, state: str) -> None:
    for name, step in STEPS if state != "connected" else ():
        step(mta)
        if name == state:
            break
    mta.flush()


def go_on_from(mta: MilterClient, state: str) -> Outcome:
    names = [name for name, _ in STEPS]
    for _, step in STEPS[names.index(state) + 1 :]:
        step(mta)
    return mta.end_of_message()


@pytest.mark.parametrize("state", STATES[1:])
def test_sigterm_finishes_a_message_that_has_begun(dns, directory, state):
    srsd = Srsd(configure(directory, dns)).start()
    with client(srsd) as mta, client(srsd) as idle:
        send(mta)
        go_until(mta, state)
        send(idle)  # what was sent before is read by now
        ending = threading.Thread(target=srsd.terminate)
        ending.start()
        assert idle.is_closed()
        outcome = go_on_from(mta, state)
        assert outcome.verdict == "continue"
        assert [each.what for each in outcome.modifications] == ["insert header"]
        assert mta.is_closed()
        ending.join()
    assert srsd.returncode == 0
    check_log(srsd.log)


def test_sigterm_waits_for_a_decision(dns, directory):
    dns.script["slow200.example"] = [Script(delay=1.0)]
    srsd = Srsd(configure(directory, dns)).start()
    with client(srsd) as mta:
        waiting: list[Outcome] = []
        thread = threading.Thread(target=lambda: waiting.append(send(mta, b"<a@slow200.example>")))
        thread.start()
        until("query", lambda: ("slow200.example", "TXT") in dns.asked)
        assert srsd.terminate() == 0
        thread.join()
        assert spf(waiting[0])["mailfrom"] == "pass"
    check_log(srsd.log)


@pytest.mark.parametrize("state", [*STATES, "deciding"])
def test_killed_it_leaves_no_verdict_behind(dns, directory, state):
    """A closed connection is what an MTA takes for milter_default_action, and its client tries again."""
    number = 210 + [*STATES, "deciding"].index(state)
    dns.script[f"slow{number}.example"] = [Script(delay=30)]
    srsd = Srsd(configure(directory, dns)).start()
    with client(srsd) as mta:
        if state == "deciding":
            mta.mail(b"<a@slow%d.example>" % number)
            go_on = [step for _, step in STEPS[1:]]
            for step in go_on:
                step(mta)
            mta.put(b"E")
            mta.flush()
            until("query", lambda: (f"slow{number}.example", "TXT") in dns.asked)
        else:
            go_until(mta, state)
        srsd.kill()
        with pytest.raises((EOFError, ConnectionResetError, BrokenPipeError)):
            while True:
                if state != "deciding":
                    mta.put(b"E")
                assert mta.read_packet()[0] == b"p"
    # It starts again in the same place.
    with srsd, client(srsd) as mta:
        assert spf(send(mta))["mailfrom"] == "pass"


# Many at once.


def test_five_hundred_sessions_wait_for_slow_dns_together(directory):
    """Each asks for a name of its own, and every answer takes two seconds."""
    zones = {(f"d{number}.example", "TXT"): ["v=spf1 ip4:192.0.2.1 -all"] for number in range(500)}
    with DnsServer(zones) as server:
        server.default = Script(delay=2)
        with Srsd(configure(directory, server)) as srsd:

            def session(number: int) -> tuple[str, float]:
                with client(srsd) as mta:
                    begin = time.monotonic()
                    outcome = send(mta, b"<a@d%d.example>" % number)
                    return spf(outcome)["mailfrom"], time.monotonic() - begin

            with ThreadPoolExecutor(500) as pool:
                begin = time.monotonic()
                answers = list(pool.map(session, range(500)))
                together = time.monotonic() - begin
    assert {result for result, _ in answers} == {"pass"}
    assert min(seconds for _, seconds in answers) > 1.9
    assert together < 2 * 2 + 4, "they waited for each other"
