"""Refused recipients: which of them count, for whom, and who has to wait."""

from __future__ import annotations

import logging
import re
from dataclasses import fields
from ipaddress import ip_address

import pytest

from harness.forwarder import FRAGMENTS
from srsd.config import Srs as SrsConfig
from srsd.daemon.counters import Counters
from srsd.daemon.refusal_log import note_refused
from srsd.exclusion import ExclusionMap
from srsd.filter.forgers import Forgers
from srsd.filter.origin import MilterParameters, Origin, Origins
from srsd.filter.refused import FREE_TRIES, Delays, RefusalParameters, RefusalRules, RefusedRecipients
from srsd.lookup import Lookup
from srsd.srs import Keyring, Srs
from srsd.wire.answer import Status
from srsd.wire.milter import Connect, Path

DAY = 20_000
STRANGER = "192.0.2.9"
SRS = Srs(SrsConfig(), Keyring([b"secret"]))
FORGED = b"<SRS0=aaaa=JM=origin.example=alice@srs.example>"


class Bench:
    """What hears of refused recipients, with its clocks in hand."""

    def __init__(self, delay: float = 0.0, *, delays: Delays | None = None, **srs) -> None:
        config = SrsConfig(
            domain="srs.example", previous_domains=("old.example",), forgery_delay=delay, **srs
        )
        self.lookup = Lookup(config, SRS, ExclusionMap())
        self.now = 0.0
        self.reports = []
        self.delays = delays or Delays()
        origins = Origins(MilterParameters(trusted_relays=("198.51.100.0/24",)))
        self.refused = RefusedRecipients(
            RefusalRules(config, self.lookup, Forgers(), self.delays),
            origins,
            lambda: DAY * 86400,
            lambda: self.now,
            self.reports.append,
        )

    def see(
        self, recipient: bytes = FORGED, client: str | None = STRANGER, name=b"x.example", **macros: bytes
    ):
        address = None if client is None else ip_address(client)
        told = {key.encode(): value for key, value in macros.items()}
        return self.refused.see(Connect(name, address), told, Path(recipient, ()))

    def good(self, sender: bytes = b"alice@origin.example", day: int = DAY) -> bytes:
        answer = self.lookup.forward(sender, day)
        assert answer.status is Status.FOUND
        return b"<" + answer.text + b">"


@pytest.mark.parametrize(
    ("recipient", "reason"),
    [
        (FORGED, "hash invalid"),
        (FORGED.lower(), "hash invalid"),
        (FORGED[1:-1], "hash invalid"),
        (FORGED.replace(b"srs.example", b"old.example"), "hash invalid"),
        (FORGED.replace(b"srs.example", b"SRS.Example"), "hash invalid"),
        (b'<"SRS0=aaaa=JM=x.example=a> b"@srs.example>', "hash invalid"),
        (b"<SRS1=aaaa=x.example==aaaa=JM=a.example=b@srs.example>", "hash invalid"),
        (b"<SRS0=a=JM=origin.example=alice@srs.example>", "hash too short"),
        (b"<SRS0=nonsense@srs.example>", "malformed SRS address"),
        (b"<SRS0=aaaa=JM=_=abcdefgh234567qr@srs.example>", "hash invalid"),
    ],
)
def test_what_does_not_reverse_is_counted_with_the_words_of_the_lookup(recipient, reason):
    bench = Bench()
    assert bench.see(recipient) is None
    (report,) = bench.reports
    assert (report.reason, report.recipient, report.in_last_hour) == (reason, recipient, 1)


def test_an_expired_one_is_counted_as_such():
    bench = Bench()
    bench.see(bench.good(day=DAY - 100))
    assert [each.reason for each in bench.reports] == ["address expired"]


@pytest.mark.parametrize(
    "recipient",
    [
        b"<nobody@srs.example>",
        b"<srs0nobody@srs.example>",
        FORGED.replace(b"srs.example", b"elsewhere.example"),
        b"<SRS0=aaaa=JM=origin.example=alice>",
        b"<SRS0=aaaa=JM=origin.example=alice@srs.example",
        b"<>",
        b"",
    ],
)
def test_what_is_no_srs_address_of_ours_is_not(recipient):
    bench = Bench(5.0)
    assert [bench.see(recipient) for _ in range(5)] == [None] * 5
    assert bench.reports == []


@pytest.mark.parametrize("envelope", ["embedded", "stored"])
def test_nor_is_a_good_one_that_was_refused_for_something_else(envelope):
    """The store is not asked: the hash of a stored address is right, so nobody guessed it."""
    bench = Bench(5.0, envelope=envelope)
    answer = bench.lookup.forward(b"alice@origin.example", DAY)
    text = answer.answer.text if envelope == "stored" else answer.text
    bench.see(b"<" + text + b">")
    assert bench.reports == []


def test_the_third_one_waits():
    bench = Bench(5.0)
    assert bench.refused.slows
    waits = [bench.see() for _ in range(FREE_TRIES + 2)]
    assert [each and each.seconds for each in waits] == [None, None, 5.0, 5.0]
    assert [each.delay for each in bench.reports] == [0, 0, 5.0, 5.0]
    assert [each.in_last_hour for each in bench.reports] == [1, 2, 3, 4]
    bench.now = 2 * 3600.0
    assert bench.see() is None
    assert bench.see(client="192.0.2.10") is None


def test_without_a_delay_nobody_waits():
    bench = Bench()
    assert not bench.refused.slows
    assert [bench.see() for _ in range(10)] == [None] * 10
    assert not any(each.delayable for each in bench.reports)


@pytest.mark.parametrize(
    ("client", "macros", "origin"),
    [
        ("127.0.0.1", {}, Origin.INTERNAL),
        (STRANGER, {"auth_authen": b"bob"}, Origin.AUTHENTICATED),
        (STRANGER, {"auth_type": b"PLAIN"}, Origin.AUTHENTICATED),
        (STRANGER, {"daemon_name": b"ORIGINATING"}, Origin.ORIGINATING),
        ("198.51.100.7", {}, Origin.TRUSTED_RELAY),
        (None, {}, Origin.OUTSIDE),
    ],
)
def test_clients_of_ours_are_counted_and_never_wait(client, macros, origin):
    bench = Bench(5.0)
    assert [bench.see(client=client, **macros) for _ in range(5)] == [None] * 5
    assert [each.origin for each in bench.reports] == [origin] * 5
    assert bench.reports[-1].in_last_hour == (0 if client is None else 5)


def test_too_many_do_not_wait_and_a_reload_does_not_change_that():
    delays = Delays(2)
    bench = Bench(5.0, delays=delays)
    waits = [bench.see() for _ in range(FREE_TRIES + 3)]
    assert [each is not None for each in waits[FREE_TRIES:]] == [True, True, False]
    assert bench.reports[-1].delayable
    assert bench.reports[-1].delay == 0
    after_reload = Bench(5.0, delays=delays)
    assert [after_reload.see() for _ in range(FREE_TRIES + 1)] == [None] * 3
    waits[FREE_TRIES].end()
    assert after_reload.see() is not None


def test_the_longest_delay_is_shorter_than_postfix_waits_for_the_milter():
    (seconds,) = re.findall(
        r"^milter_command_timeout = (\d+)s$", (FRAGMENTS / "milter.cf").read_text(), re.MULTILINE
    )
    (check,) = [each.metadata["check"] for each in fields(RefusalParameters) if each.name == "forgery_delay"]
    assert check(15) is None
    assert check(int(seconds) - 2) is not None


# The line, and what is counted.


def logged(caplog, *reports) -> tuple[list[str], dict[tuple[str, str], int]]:
    counters = Counters()
    with caplog.at_level(logging.INFO):
        for each in reports:
            note_refused(each, counters)
    events = {(what, kind): count for what, kind, count in counters.snapshot()["events"]}
    return [record.getMessage() for record in caplog.records], events


def test_the_line_names_the_client_first_and_the_recipient_last(caplog):
    bench = Bench(5.0, delays=Delays(1))
    for _ in range(3):
        bench.see(name=b"mail.example")
    bench.see(client=None, name=b"localhost")
    lines, events = logged(caplog, *bench.reports)
    begin = "refused SRS address: client=mail.example[192.0.2.9], origin=outside, reason=hash invalid"
    nobody = begin.replace("mail.example[192.0.2.9]", "localhost[no address]")
    assert lines == [
        f"{begin}, in_last_hour=1, recipient={FORGED.decode()}",
        f"{begin}, in_last_hour=2, recipient={FORGED.decode()}",
        f"{begin}, in_last_hour=3, delay=5, recipient={FORGED.decode()}",
        f"{nobody}, in_last_hour=0, recipient={FORGED.decode()}",
    ]
    assert events == {("srs_refused", "hash invalid"): 4, ("srs_delayed", "delayed"): 1}
    assert caplog.records[0].facts["in_last_hour"] == 1


def test_strangers_octets_cannot_end_the_line(caplog):
    bench = Bench(5.0)
    bench.see('<"SRS0=x\x1b[1m, client=[203.0.113.1]é"@srs.example>'.encode())
    (line,), events = logged(caplog, *bench.reports)
    assert "\x1b" not in line
    assert line.endswith('recipient=<"SRS0=x\\x1b[1m, client=[203.0.113.1]é"@srs.example>')
    assert events == {("srs_refused", "malformed SRS address"): 1}


def test_what_did_not_wait_for_too_many_others_is_counted(caplog):
    bench = Bench(5.0, delays=Delays(0))
    for _ in range(4):
        bench.see()
    _, events = logged(caplog, *bench.reports)
    assert events["srs_delayed", "not delayed, too many wait"] == 2
