"""Recipients that the MTA has refused, told to a real srsd: who sent to forged SRS addresses, and who waits for that."""

from __future__ import annotations

import json
import os
import re
import signal
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest

from harness.daemon import LOOPBACK, Srsd, run, write_config
from harness.dns_server import DnsServer
from harness.milter_client import MilterClient
from harness.running import new_directory
from harness.wire_clients import check_log, until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

FORGER, BYSTANDER, RELAY = "192.0.2.9", "192.0.2.10", "198.51.100.1"
FORGED = b"<SRS0=aaaa=JM=origin.example=alice@srs.example.net>"
DELAY = 0.6  # seconds
AT_ONCE = 0.4  # less than the delay, much more than an answer takes


@pytest.fixture
def directory() -> Iterator[Path]:
    with new_directory() as made:
        yield made


@pytest.fixture(scope="module")
def dns() -> Iterator[DnsServer]:
    with DnsServer({}) as server:
        yield server


def configure(directory: Path, dns: DnsServer, *, delay: float = 0.0, **tables: Any) -> Path:
    listen = {
        "srs_forward": [],
        "srs_reverse": [],
        "milter": [f"unix:{directory}/milter"],
        "control": [f"unix:{directory}/control"],
        "metrics": [LOOPBACK],
    }
    srs = {"domain": "srs.example.net", "forgery_delay": delay}
    milter = {"trusted_relays": [RELAY]}
    dns_table = {"nameservers": [str(dns)]}
    return write_config(directory, listen=listen, srs=srs, milter=milter, dns=dns_table, **tables)


@pytest.fixture
def slow(directory, dns) -> Iterator[Srsd]:
    """One srsd that keeps forgers waiting."""
    with Srsd(configure(directory, dns, delay=DELAY)) as srsd:
        yield srsd
    check_log(srsd.log)
    assert srsd.returncode == 0


def client(srsd: Srsd, address: str = FORGER, **how: Any) -> MilterClient:
    """Connect, and report an SMTP client with a sender."""
    mta = MilterClient.of(f"unix:{srsd.unix('milter')}", **how)
    mta.connect(b"mail.example", address)
    mta.helo(b"mail.example")
    mta.mail(b"<>")
    return mta


def status(srsd: Srsd) -> dict[str, Any]:
    return json.loads(run("srsctl", "--config", srsd.config, "status", "--json").stdout)


def events(srsd: Srsd, what: str) -> dict[str, int]:
    return {kind: count for each, kind, count in status(srsd)["counters"]["events"] if each == what}


def seconds(mta: MilterClient, path: bytes = FORGED) -> float:
    """Report a refused recipient; return how long the answer took."""
    begun = time.monotonic()
    assert mta.refused(path).verdict == "continue"
    return time.monotonic() - begun


def test_forged_addresses_count_for_the_client_and_are_none_of_the_message(directory, dns):
    with Srsd(configure(directory, dns)) as srsd, client(srsd) as mta:
        assert mta.steps & 0x800
        assert mta.steps & 0x8000  # nobody waits for an answer, as long as nobody is slowed
        for path in (FORGED, b"<nobody@srs.example.net>", FORGED.replace(b"srs.", b"other."), FORGED):
            mta.refused(path)
        mta.refused(b"<postmaster@srs.example.net>")
        assert mta.rcpt(b"<bob@here.example>").verdict == "continue"
        outcome = mta._content([(b"From", b" a@b.example")], b"x\r\n", mta.macros)
        assert outcome.verdict == "continue"
        line = srsd.wait_for_log("in_last_hour=2")
        assert line == (
            "info: refused SRS address: client=mail.example[192.0.2.9], origin=outside, reason=hash invalid, "
            f"in_last_hour=2, recipient={FORGED.decode()}"
        )
        srsd.wait_for_log("verdict=accept")
        assert sum("refused SRS address" in each for each in srsd.log) == 2
        until("such status", lambda: status(srsd)["counters"]["forgers"] == [[FORGER, 2]])
        assert events(srsd, "srs_refused") == {"hash invalid": 2}
        shown = run("srsctl", "--config", srsd.config, "status").stdout
        assert re.search(r"192\.0\.2\.9 +│ +2 ", shown)


def test_nobody_is_heard_of_without_an_srs_domain(directory, dns):
    config = configure(directory, dns)
    config.write_text(config.read_text().replace('domain = "srs.example.net"', ""))
    with Srsd(config) as srsd, client(srsd) as mta:
        assert not mta.steps & 0x800


def test_the_third_one_waits_and_nobody_else(slow):
    with client(slow) as mta, client(slow, BYSTANDER) as other, client(slow, RELAY) as relay:
        assert not mta.steps & 0x8000
        assert [seconds(mta) < AT_ONCE for _ in range(2)] == [True, True]
        waiting = threading.Thread(target=seconds, args=(mta,))
        begun = time.monotonic()
        waiting.start()
        slow.wait_for_log("delay=0.6")
        assert seconds(other) < AT_ONCE
        assert [seconds(relay) < AT_ONCE for _ in range(4)] == [True] * 4
        waiting.join()
        assert time.monotonic() - begun >= DELAY
        assert seconds(mta, b"<nobody@srs.example.net>") < AT_ONCE
        assert seconds(mta) >= DELAY
        begun = time.monotonic()
        assert mta.rcpt(b"<bob@here.example>").verdict == "continue"
        assert time.monotonic() - begun < AT_ONCE
    until("such status", lambda: events(slow, "srs_delayed") == {"delayed": 2})


def test_only_so_many_wait_and_the_rest_is_answered_at_once(directory, dns):
    with Srsd(configure(directory, dns, delay=15.0)) as srsd:
        first = client(srsd)
        assert [seconds(first) < AT_ONCE for _ in range(2)] == [True, True]
        waiting = [client(srsd) for _ in range(10)]
        for mta in waiting:
            mta.put(b"D", b"R{rcpt_mailer}\0error\0{rcpt_host}\x005.1.1\0")
            mta.put(b"R", FORGED + b"\0")
            mta.flush()
        srsd.wait_for_log("in_last_hour=12, delay=15")
        assert seconds(first) < AT_ONCE
        assert events(srsd, "srs_delayed") == {"delayed": 10, "not delayed, too many wait": 1}
        # One that leaves makes room.
        waiting.pop().socket.close()
        until("such status", lambda: status(srsd)["counters"]["connections_open"] == 10)
        mta = client(srsd)
        mta.put(b"D", b"R{rcpt_mailer}\0error\0{rcpt_host}\x005.1.1\0")
        mta.put(b"R", FORGED + b"\0")
        mta.flush()
        srsd.wait_for_log("in_last_hour=14, delay=15")
        # And the end of srsd waits for none of them.
        begun = time.monotonic()
        for each in (*waiting, mta, first):
            each.put(b"Q")
            each.flush()
        assert srsd.terminate() == 0
        assert time.monotonic() - begun < 5
        assert [each.read_packet() for each in (*waiting, mta)] == [(b"c", b"")] * 10
        for each in (*waiting, mta, first):
            each.socket.close()
    check_log(srsd.log)


def test_a_reload_forgets_nobody(slow):
    with client(slow) as mta:
        assert seconds(mta) < AT_ONCE
        assert seconds(mta) < AT_ONCE
    slow.hup()
    slow.wait_for_log("everything was read again")
    with client(slow) as mta:
        assert seconds(mta) >= DELAY


def test_workers_count_each_for_itself_and_srsd_adds_up(directory, dns):
    with Srsd(configure(directory, dns, workers=2)) as srsd:
        for number in range(12):
            with client(srsd, FORGER if number % 3 else BYSTANDER) as mta:
                mta.refused(FORGED)
                mta.rcpt(b"<bob@here.example>")
                mta._content([(b"From", b" a@b.example")], b"x\r\n", mta.macros)
        until("such status", lambda: status(srsd)["counters"]["forgers"] == [[FORGER, 8], [BYSTANDER, 4]])
        assert events(srsd, "srs_refused") == {"hash invalid": 12}
        # What a worker kept dies with it; what it counted since the start does not.
        for worker in status(srsd)["workers"]:
            os.kill(worker["pid"], signal.SIGKILL)
        until("such status", lambda: status(srsd)["counters"]["forgers"] == [])
        assert events(srsd, "srs_refused") == {"hash invalid": 12}
