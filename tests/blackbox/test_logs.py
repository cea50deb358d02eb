"""The log: what was done and why, a line each; nothing that a stranger sends forges or breaks one."""

from __future__ import annotations

import json
from datetime import datetime
from typing import TYPE_CHECKING

import pytest

from harness.daemon import LOOPBACK, READY_LINE, Srsd
from harness.wire_clients import (
    BOTH,
    SOCKETMAP,
    SRS_DOMAIN,
    TCP_TABLE,
    netstring,
    srs0,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from harness.wire_clients import Wire

ALICE = b"alice@origin.example"
REWRITTEN = srs0(b"alice", b"origin.example")
FORGED = REWRITTEN.replace(b"alice", b"mallory")


@pytest.fixture
def logging_srsd(start, config, directory) -> Callable[..., Srsd]:
    """Start srsd with values of [log]."""

    def begin(**how: object) -> Srsd:
        env = how.pop("env", None)
        listen = {
            "srs_forward": [LOOPBACK],
            "srs_reverse": [LOOPBACK],
            "socketmap": [f"unix:{directory}/socketmap"],
        }
        return start(config(listen=listen, log=how), env=env)

    return begin


def end(srsd: Srsd) -> list[str]:
    """End srsd; return all lines between the ready line and the last one, which it always has."""
    assert srsd.terminate() == 0
    ready = next(number for number, line in enumerate(srsd.log) if READY_LINE.search(line))
    return srsd.log[ready + 1 :]


@pytest.mark.parametrize("wire", BOTH, ids=str)
def test_a_line_for_each_rewrite_with_old_new_and_why(logging_srsd, wire: Wire):
    srsd = logging_srsd()
    wire.ask(srsd, "forward", ALICE)
    wire.ask(srsd, "reverse", REWRITTEN)
    wire.ask(srsd, "reverse", FORGED)
    wire.ask(srsd, "reverse", srs0(b"alice", b"origin.example", age=30))
    wire.ask(srsd, "forward", b"own@" + SRS_DOMAIN.encode())  # ordinary mail, at level debug
    wire.ask(srsd, "reverse", ALICE)
    old = srs0(b"alice", b"origin.example", age=30).decode()
    assert end(srsd) == [
        f"info: forward {ALICE.decode()} -> {REWRITTEN.decode()} (rewritten)",
        f"info: reverse {REWRITTEN.decode()} -> {ALICE.decode()} (reversed)",
        f"info: reverse {FORGED.decode()} left as it is (hash invalid)",
        f"info: reverse {old} left as it is (address expired)",
        "info: srsd has ended",
    ]


@pytest.mark.parametrize("wire", BOTH, ids=str)
def test_a_repeated_key_is_logged_once(logging_srsd, wire: Wire):
    """Postfix asks two or three times for one message."""
    srsd = logging_srsd()
    with wire.client(srsd) as client:
        for _ in range(3):
            client.ask(ALICE)
        client.send(*[ALICE] * 20)
        client.replies(20)
    wire.ask(srsd, "forward", ALICE)
    assert sum("alice" in line for line in end(srsd)) == 1


def test_at_debug_every_lookup_has_its_line(logging_srsd):
    srsd = logging_srsd(level="debug")
    TCP_TABLE.ask(srsd, "forward", b"own@" + SRS_DOMAIN.encode())
    TCP_TABLE.ask(srsd, "forward", b"")
    TCP_TABLE.ask(srsd, "reverse", ALICE)
    lines = [line for line in end(srsd) if "left as it is" in line]
    assert lines == [
        f"debug: forward own@{SRS_DOMAIN} left as it is (own domain)",
        "debug: forward  left as it is (null sender)",
        f"debug: reverse {ALICE.decode()} left as it is (not an SRS address)",
    ]


@pytest.mark.parametrize("level", ["warning", "error"])
def test_above_info_only_the_ready_line_is_there(logging_srsd, level):
    srsd = logging_srsd(level=level)
    for key in ALICE, b"own@" + SRS_DOMAIN.encode():
        TCP_TABLE.ask(srsd, "forward", key)
    TCP_TABLE.ask(srsd, "reverse", FORGED)
    assert end(srsd) == []
    assert len(srsd.log) == 1


@pytest.mark.parametrize(("local_part", "warned"), [(b"a", False), (b"a" * 60, True)])
def test_a_local_part_of_over_64_octets_warns(logging_srsd, local_part, warned):
    srsd = logging_srsd(level="warning")
    assert TCP_TABLE.ask(srsd, "forward", local_part + b"@origin.example").status == "found"
    lines = end(srsd)
    assert len(lines) == warned
    if warned:
        assert lines[0].startswith(f"warning: forward {local_part.decode()}@origin.example -> SRS0=")
        assert "over 64 octets" in lines[0]


def test_the_64th_octet_is_no_reason_to_warn(logging_srsd):
    """SRS0=HHHH=TT=origin.example= has 28 octets."""
    srsd = logging_srsd(level="warning")
    for length in (36, 37):
        reply = TCP_TABLE.ask(srsd, "forward", b"a" * length + b"@origin.example")
        assert reply.text.index(b"@") == length + 28
    assert len(end(srsd)) == 1


def test_json(logging_srsd):
    srsd = logging_srsd(format="json", level="debug")
    TCP_TABLE.ask(srsd, "forward", ALICE)
    TCP_TABLE.ask(srsd, "forward", 'jörg"\\@origin.example'.encode())
    TCP_TABLE.ask(srsd, "reverse", FORGED)
    srsd.terminate()
    entries = [json.loads(line) for line in srsd.log]
    for entry in entries:
        assert {"time", "level", "message"} <= set(entry)
        assert datetime.fromisoformat(entry["time"]).tzinfo is not None
    rewrites = [entry for entry in entries if "direction" in entry]
    for entry in rewrites:
        del entry["time"]
    assert rewrites[0] == {
        "level": "info",
        "message": f"forward {ALICE.decode()} -> {REWRITTEN.decode()} (rewritten)",
        "direction": "forward",
        "old": ALICE.decode(),
        "new": REWRITTEN.decode(),
        "reason": "rewritten",
    }
    assert rewrites[1]["old"] == 'jörg"\\@origin.example'
    assert rewrites[2]["reason"] == "hash invalid"
    assert "new" not in rewrites[2]
    assert any(READY_LINE.search(entry["message"]) for entry in entries)


HOSTILE = {
    "newline": b"a\ninfo: forged@origin.example",
    "carriage return": b"a\rinfo: forged@origin.example",
    "nul": b"a\0b@origin.example",
    "escape": b"a\x1b[2J\x1b]0;title\x07@origin.example",
    "c1": b"a\xc2\x9b2J@origin.example",
    "not utf-8": b"\xff\xfe\x80@origin.example",
    "next line": "a\u0085info: forged@origin.example".encode(),
    "line separator": "a\u2028info: forged@origin.example".encode(),
    "right to left": "a\u202e\u2066@origin.example".encode(),
    "zero width": "a\u200b\ufeff@origin.example".encode(),
    "surrogate": b"\xed\xa0\x80@origin.example",
    "format": b"%s%d%(x)s{0}@origin.example",
    "in the domain": b"a@\x1b[2J\xff.example",
    "long": b"a" * 20_000 + b"@origin.example",
    "long, escaped": b"\x1b" * 10_000 + b"@origin.example",
}


@pytest.mark.parametrize("form", ["text", "json"])
@pytest.mark.parametrize("wire", BOTH, ids=str)
def test_no_key_forges_a_line_or_steers_a_terminal(logging_srsd, wire: Wire, form):
    srsd = logging_srsd(level="debug", format=form)
    before = len(srsd.log)
    for direction in "forward", "reverse":
        for key in HOSTILE.values():
            wire.ask(srsd, direction, key)
    wire.ask(srsd, "forward", b"last@origin.example")
    srsd.wait_for_log("last@origin.example")
    lines = srsd.log[before:]
    assert len(lines) == 2 * len(HOSTILE) + 1
    for line in lines:
        assert line.isprintable(), repr(line)
        assert len(line) < 4096
        if form == "json":
            assert json.loads(line)["message"].isprintable()
        else:
            assert line.startswith(("debug: ", "info: ", "warning: "))


def test_no_name_of_a_map_forges_a_line(logging_srsd):
    srsd = logging_srsd()
    before = len(srsd.log)
    names = [b"x\ninfo:", b"\x1b[2J", b"\xff", b"%s", b"n" * 50_000, b""]
    with SOCKETMAP.client(srsd) as client:
        for name in names:
            client.send_raw(netstring(name + b" " + ALICE))
            assert client.reply().status == "permanent"
    srsd.wait_for_log('there is no socketmap ""')
    lines = srsd.log[before:]
    assert len(lines) == len(names)
    for line in lines:
        assert line.startswith('warning: there is no socketmap "')
        assert line.isprintable()
        assert len(line) < 4096


def test_a_log_that_can_only_write_ascii(logging_srsd):
    plain = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "PYTHONIOENCODING": "ascii"}
    srsd = logging_srsd(env=plain)
    key = "jörg@origin.example".encode()
    assert TCP_TABLE.ask(srsd, "forward", key).text == srs0("jörg".encode(), b"origin.example")
    assert "j\\xf6rg@origin.example" in end(srsd)[0]


def test_rubbish_is_noted_without_its_octets(logging_srsd):
    srsd = logging_srsd()
    with SOCKETMAP.client(srsd) as client:
        client.send_raw(b"\x1b[2Jmallory")
        assert client.is_closed()
    line = srsd.wait_for_log("a client was cut off")
    assert line == "warning: a client was cut off: it sent not a netstring"
