"""srsd dies, hangs, or gets no answer from DNS while Postfix brings mail: none is lost, none comes twice."""

from __future__ import annotations

import contextlib
import os
import signal
import smtplib
import socket
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest

from harness.dns_server import Records, Script
from harness.milter_host import BOB, MilterHost, make_message
from harness.running import patched, until, workers
from harness.smtp_client import STRANGER

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from harness.milter_host import Delivered

pytestmark = pytest.mark.e2e

ZONES = {
    ("fail.example", "TXT"): ["v=spf1 -all"],
    ("slow.example", "TXT"): ["v=spf1 -all"],
    ("slower.example", "TXT"): Records(["v=spf1 -all"], ttl=0),
}
PATIENCE = 60.0  # seconds until a client gives up its message
PAUSE = 0.1  # seconds until a client comes back after a 4xx; mail hosts take minutes
SERVICE_UNAVAILABLE = "Service unavailable - try again later"


@contextlib.contextmanager
def a_host(**options) -> Iterator[MilterHost]:
    """Run a host; print its logs at the end, which pytest shows if the test failed."""
    with MilterHost(ZONES, **options) as host:
        try:
            yield host
        finally:
            print(host.logs())  # noqa: T201


@pytest.fixture(scope="module")
def host() -> Iterator[MilterHost]:
    with a_host(dns={"timeout": 30.0, "message_deadline": 60.0}) as host:
        yield host


@pytest.fixture(autouse=True)
def _dns_is_quick_again(request: pytest.FixtureRequest):
    yield
    if "host" in request.fixturenames:
        request.getfixturevalue("host").dns.script.clear()


class Attempt:
    """One try of a client to hand over a message, step by step; the first answer that is no success ends it."""

    STEPS = ("connect", "EHLO", "MAIL", "RCPT", "DATA", "half of the content", "the end")

    def __init__(self, host: MilterHost, sender: str, content: bytes) -> None:
        self.host = host
        self.sender = sender
        self.content = content
        self.answers: list[tuple[str, int, str]] = []

    def run(self, at: Callable[[str], None] = lambda _: None) -> bool:
        """Do all steps, tell `at` the name of each when it is done; return whether the message was taken."""
        with contextlib.ExitStack() as stack:
            client = smtplib.SMTP(timeout=PATIENCE, source_address=(STRANGER, 0))
            stack.callback(client.close)
            half = len(self.content) // 2
            steps: list[tuple[str, int, Callable[[], tuple[int, bytes]]]] = [
                ("connect", 220, lambda: client.connect(*self.host.postfix.address)),
                ("EHLO", 250, lambda: client.ehlo("client.example")),
                ("MAIL", 250, lambda: client.docmd(f"MAIL FROM:<{self.sender}>")),
                ("RCPT", 250, lambda: client.docmd(f"RCPT TO:<{BOB}>")),
                ("DATA", 354, lambda: client.docmd("DATA")),
                ("half of the content", 0, lambda: (0, client.send(self.content[:half]) or b"")),
                ("the end", 250, lambda: self._end(client, half)),
            ]
            for name, expected, step in steps:
                code, text = step()
                if expected:
                    self.answers.append((name, code, text.decode()))
                if code != expected:
                    return False
                at(name)
            client.quit()
            return True

    def _end(self, client: smtplib.SMTP, half: int) -> tuple[int, bytes]:
        client.send(self.content[half:])
        client.send(b".\r\n")
        return client.getreply()

    @property
    def last(self) -> tuple[str, int, str]:
        """The step that decided, its code, and the text."""
        return self.answers[-1]


def come_back(host: MilterHost, sender: str, content: bytes) -> None:
    """Bring a message again and again, as mail hosts do, until it is taken."""
    end = time.monotonic() + PATIENCE
    while not (attempt := Attempt(host, sender, content)).run():
        assert attempt.last[1] // 100 == 4, attempt.last
        assert time.monotonic() < end, attempt.last
        time.sleep(PAUSE)


def check_came_once(host: MilterHost, subject: str) -> Delivered:
    """The message has come, with the one field it must have, and not a second time."""
    delivered = host.arrived(subject)
    until("empty queue", lambda: not host.postfix.queue())
    assert host.arrivals(subject) == 1
    assert delivered.names[0] == "Authentication-Results"
    assert len(delivered.results) == 1
    assert "spf=fail" in delivered.results[0]
    return delivered


FORGED = "Authentication-Results: mx.here.example; spf=pass"


# Killed.


@pytest.mark.parametrize("state", ["before all", *Attempt.STEPS[:-1]])
def test_killed_at_any_state_the_message_is_refused_for_now_and_comes_once(host: MilterHost, figures, state):
    subject, content = make_message([FORGED], size=300_000)
    attempt = Attempt(host, "alice@fail.example", content)
    if state == "before all":
        host.srsd.kill()
    assert not attempt.run(lambda step: host.srsd.kill() if step == state else None)
    assert attempt.last[1:] == (451, f"4.7.1 {SERVICE_UNAVAILABLE}")
    figures.append(f"milter killed at {state}: {attempt.last[1]} after {attempt.last[0]}")
    assert not host.postfix.queue()
    host.srsd.start()
    come_back(host, "alice@fail.example", content)
    check_came_once(host, subject)


def test_killed_while_a_decision_waits_for_dns(host: MilterHost, figures):
    host.dns.script["slow.example"] = [Script(drop=True), Script()]
    subject, content = make_message([FORGED])
    attempt = Attempt(host, "alice@slow.example", content)
    assert ("slow.example", "TXT") not in host.dns.asked
    with ThreadPoolExecutor(1) as client:
        taken = client.submit(attempt.run)
        until("query", lambda: ("slow.example", "TXT") in host.dns.asked)
        assert not taken.done()
        host.srsd.kill()
        assert not taken.result(PATIENCE)
    assert attempt.last == ("the end", 451, f"4.7.1 {SERVICE_UNAVAILABLE}")
    host.srsd.start()
    come_back(host, "alice@slow.example", content)
    check_came_once(host, subject)


def test_a_session_whose_milter_was_killed_goes_on_with_451_until_it_ends(host: MilterHost):
    """srsd being back does not help it: Postfix connects to its milters once in an SMTP session."""
    subject, content = make_message()
    with smtplib.SMTP(*host.postfix.address, source_address=(STRANGER, 0), timeout=PATIENCE) as client:
        client.ehlo("client.example")
        host.srsd.kill()
        host.srsd.start()
        for _ in range(2):
            with pytest.raises(smtplib.SMTPResponseException) as refused:
                client.sendmail("alice@fail.example", BOB, content)
            assert refused.value.smtp_code == 451
    come_back(host, "alice@fail.example", content)
    check_came_once(host, subject)


def test_killed_amid_200_messages_none_is_lost_and_none_comes_twice(host: MilterHost, figures):
    run = f"{time.monotonic_ns()}"
    accepted = threading.Semaphore(0)
    deferred: list[tuple[str, int, str]] = []

    def bring(number: int) -> None:
        _, content = make_message(
            [FORGED, f"X-Run: {run} {number}"] * (number % 3) + [f"X-Run: {run} {number}"]
        )
        end = time.monotonic() + PATIENCE
        while not (attempt := Attempt(host, f"alice{number}@fail.example", content)).run():
            assert attempt.last[1:] == (451, f"4.7.1 {SERVICE_UNAVAILABLE}")
            deferred.append(attempt.last)
            assert time.monotonic() < end
            time.sleep(PAUSE)
        accepted.release()

    with ThreadPoolExecutor(8) as clients:
        brought = [clients.submit(bring, number) for number in range(200)]
        for _ in range(3):
            for _ in range(40):
                assert accepted.acquire(timeout=PATIENCE)
            since = len(deferred)
            host.srsd.kill()
            until("451", lambda since=since: len(deferred) > since)
            host.srsd.start()
        for one in brought:
            one.result()
    sign = f"X-Run: {run} ".encode()
    host.sink.wait_for_all(lambda m: sign in m.content, 200)
    until("empty queue", lambda: not host.postfix.queue())
    came = [m for m in host.sink.messages if sign in m.content]
    assert Counter(m.sender for m in came) == {f"alice{n}@fail.example": 1 for n in range(200)}
    for message in came:
        assert message.content.startswith(b"Authentication-Results: mx.here.example;\r\n\tspf=fail")
        assert message.content.count(b"Authentication-Results") == 1
    steps = dict(Counter(step for step, _, _ in deferred))
    figures.append(f"milter killed 3 times amid 200 messages of 8 clients: all came once; 451 after {steps}")


def test_a_killed_worker_is_replaced_and_only_its_messages_wait():
    """The listening socket stays: who comes meanwhile notices nothing."""
    with a_host(user="", workers=2, dns={"timeout": 30.0, "message_deadline": 60.0}) as host:
        host.dns.script["slow.example"] = [Script(drop=True), Script()]
        subject, content = make_message([FORGED])
        with ThreadPoolExecutor(1) as client:
            taken = client.submit(Attempt(host, "alice@slow.example", content).run)
            until("query", lambda: ("slow.example", "TXT") in host.dns.asked)
            for worker in workers(host.srsd):
                os.kill(worker, signal.SIGKILL)
            assert not taken.result(PATIENCE)
        other, other_content = make_message()
        assert Attempt(host, "alice@fail.example", other_content).run()
        check_came_once(host, other)
        come_back(host, "alice@slow.example", content)
        check_came_once(host, subject)


def test_mail_of_local_programs_waits_for_srsd(host: MilterHost):
    """sendmail takes it, and it waits in the maildrop queue."""
    subject, content = make_message([FORGED])
    since = len(host.postfix.log())
    host.srsd.kill()
    host.postfix.sendmail("-f", "alice@fail.example", BOB, stdin=content.decode())
    host.postfix.wait_for_log("warning: connect to Milter service unix:srs/milter: Connection refused", since)
    assert list((host.postfix.queue_directory / "maildrop").iterdir())
    assert not host.arrivals(subject)
    host.srsd.start()
    other, other_content = make_message()
    host.postfix.sendmail(BOB, stdin=other_content.decode())  # or within a minute, by itself
    for each in (subject, other):
        delivered = host.arrived(each)
        assert delivered.results == []
    until("empty queue", lambda: not host.postfix.queue())
    assert host.arrivals(subject) == 1


def test_a_bounce_that_must_pass_a_milter_that_is_away_comes_later():
    with a_host(main_cf="internal_mail_filter_classes = bounce\n") as host:
        host.sink.refuse[BOB] = "450 4.2.0 not now"
        subject, content = make_message()
        assert Attempt(host, "alice@fail.example", content).run()
        host.postfix.wait_for_log("450 4.2.0 not now")
        host.srsd.kill()
        host.sink.refuse[BOB] = "550 5.1.1 no such user"
        since = len(host.postfix.log())
        host.postfix.flush()
        host.postfix.wait_for_log("connect to Milter service unix:srs/milter: Connection refused", since)
        assert not host.sink.received("alice@fail.example")
        host.srsd.start()
        host.postfix.flush()
        bounce = host.sink.wait_for(lambda m: m.recipients == ("alice@fail.example",))
        assert subject.encode() in bounce.content
        until("empty queue", lambda: not host.postfix.queue())
        assert len(host.sink.received("alice@fail.example")) == 1


def test_accept_as_default_action_lets_forgeries_in():
    """Why the fragment says tempfail."""
    with a_host(settings={"milter_default_action": "accept"}) as host:
        host.srsd.kill()
        subject, content = make_message([FORGED])
        assert Attempt(host, "alice@fail.example", content).run()
        assert host.arrived(subject).results == [FORGED.partition(" ")[2]]
        host.srsd.start()


# Told to end, or to read its files again.


@pytest.mark.parametrize("name", ["SIGTERM", "SIGHUP"])
def test_a_message_that_waits_for_dns_is_finished(host: MilterHost, name):
    host.dns.script["slower.example"] = [Script(delay=1)]
    subject, content = make_message([FORGED])
    before = len(host.dns.asked)
    with ThreadPoolExecutor(1) as client:
        taken = client.submit(Attempt(host, "alice@slower.example", content).run)
        until("query", lambda: ("slower.example", "TXT") in host.dns.asked[before:])
        if name == "SIGTERM":
            assert host.srsd.terminate() == 0
            host.srsd.start()
        else:
            host.srsd.wait_for_log("everything was read again", since=host.srsd.hup())
        assert taken.result(PATIENCE)
    check_came_once(host, subject)


# Stopped.


TIMEOUTS = {f"milter_{stage}_timeout": "2s" for stage in ("connect", "command", "content")}


def test_srsd_that_hangs_costs_each_message_a_451_after_the_time_out():
    with a_host(settings=TIMEOUTS) as host:
        subject, content = make_message([FORGED])
        attempt = Attempt(host, "alice@fail.example", content)
        start = time.monotonic()
        os.kill(host.srsd.pid, signal.SIGSTOP)
        try:
            assert not attempt.run()
        finally:
            os.kill(host.srsd.pid, signal.SIGCONT)
        assert attempt.last == ("MAIL", 451, f"4.7.1 {SERVICE_UNAVAILABLE}")
        assert 1.5 < time.monotonic() - start < 15
        assert not host.postfix.queue()
        come_back(host, "alice@fail.example", content)
        check_came_once(host, subject)


@pytest.mark.parametrize("state", ["connect", "RCPT", "half of the content"])
def test_srsd_that_hangs_in_the_middle(state):
    """It goes on with what it had been sent when it wakes up; Postfix has forgotten the message by then."""
    with a_host(settings=TIMEOUTS) as host:
        subject, content = make_message([FORGED])
        attempt = Attempt(host, "alice@fail.example", content)
        start = time.monotonic()

        def stop(step: str) -> None:
            if step == state:
                os.kill(host.srsd.pid, signal.SIGSTOP)

        try:
            assert not attempt.run(stop)
        finally:
            os.kill(host.srsd.pid, signal.SIGCONT)
        assert attempt.last == ("the end", 451, f"4.7.1 {SERVICE_UNAVAILABLE}")
        assert 1.5 < time.monotonic() - start < 15
        assert not host.postfix.queue()
        come_back(host, "alice@fail.example", content)
        check_came_once(host, subject)


# DNS that does not answer.


def temperror_within(host: MilterHost, seconds: float) -> None:
    subject, content = make_message([FORGED])
    start = time.monotonic()
    assert Attempt(host, "alice@fail.example", content).run()
    assert time.monotonic() - start < seconds
    delivered = host.arrived(subject)
    assert delivered.names[0] == "Authentication-Results"
    (ours,) = delivered.results
    assert "spf=temperror" in ours


def test_a_name_server_that_is_not_there_gives_temperror_at_once():
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as closed:
        closed.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{closed.getsockname()[1]}"
    with a_host(nameservers=[address], dns={"timeout": 1.0, "message_deadline": 3.0}) as host:
        temperror_within(host, 8)


def test_a_silent_name_server_gives_temperror_in_bounded_time():
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as silent:
        silent.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{silent.getsockname()[1]}"
        with a_host(nameservers=[address], dns={"timeout": 1.0, "message_deadline": 2.0}) as host:
            temperror_within(host, 8)
            with ThreadPoolExecutor(8) as clients:  # they wait side by side
                list(clients.map(lambda _: temperror_within(host, 8), range(16)))


def test_dns_that_is_slower_than_the_time_out_is_waited_for_by_progress():
    """As with 12 s and the time-outs of the fragment; here all is ten times as fast, in srsd too."""
    quick = patched("import srsd.daemon.milter_connection as m; m.PROGRESS_SECONDS = 1.0")
    content_timeout = {"milter_content_timeout": "2s"}
    dns = {"timeout": 10.0, "message_deadline": 20.0}
    with a_host(settings=content_timeout, dns=dns, argv=quick) as host:
        host.dns.script["slow.example"] = [Script(delay=5)]
        subject, content = make_message([FORGED])
        start = time.monotonic()
        assert Attempt(host, "alice@slow.example", content).run()
        assert time.monotonic() - start > 5
        check_came_once(host, subject)
    without = patched("import srsd.daemon.milter_connection as m; m.PROGRESS_SECONDS = 60.0")
    with a_host(settings=content_timeout, dns=dns, argv=without) as host:  # the proof that it was PROGRESS
        host.dns.script["slow.example"] = [Script(delay=5)]
        subject, content = make_message([FORGED])
        attempt = Attempt(host, "alice@slow.example", content)
        assert not attempt.run()
        host.dns.script.clear()
        assert attempt.last == ("the end", 451, f"4.7.1 {SERVICE_UNAVAILABLE}")
        come_back(host, "alice@slow.example", content)
        check_came_once(host, subject)
