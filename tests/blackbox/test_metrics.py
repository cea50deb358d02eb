"""Counters as Prometheus text: what a scrape gives, and what a client that is no Prometheus may do."""

from __future__ import annotations

import contextlib
import os
import re
import socket
import time
import urllib.request
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from harness.daemon import DEADLINE, Srsd
from harness.running import ALICE, ask, control, new_directory, patched, running, until

METRICS = {"metrics": ["inet:127.0.0.1:0"]}


@pytest.fixture(scope="module")
def tables() -> dict[str, Any]:
    return {"listen": METRICS}


def url(srsd: Srsd, path: str = "/metrics") -> str:
    host, port = srsd.inet("metrics")
    return f"http://{host}:{port}{path}"


def scrape(srsd: Srsd) -> dict[str, list[tuple[dict[str, str], float]]]:
    """Return all samples by name, as Prometheus' own parser reads them."""
    with urllib.request.urlopen(url(srsd), timeout=DEADLINE) as response:
        assert response.headers["Content-Type"].startswith("text/plain; version=")
        text = response.read().decode()
    samples: dict[str, list[tuple[dict[str, str], float]]] = {}
    for family in text_string_to_metric_families(text):
        assert family.documentation, family.name
        for sample in family.samples:
            samples.setdefault(sample.name, []).append((sample.labels, sample.value))
    return samples


def value(srsd: Srsd, name: str) -> float:
    ((labels, number),) = scrape(srsd)[name]
    assert not labels
    return number


def lookups(srsd: Srsd) -> dict[tuple[str, str, str], float]:
    """Return the count of lookups by table, direction and outcome."""
    sums: dict[tuple[str, str, str], float] = {}
    for labels, number in scrape(srsd).get("srsd_lookups_total", []):
        assert set(labels) == {"table", "direction", "outcome", "reason"}
        kind = (labels["table"], labels["direction"], labels["outcome"])
        sums[kind] = sums.get(kind, 0) + number
    return sums


def netstring(text: str) -> bytes:
    return b"%d:%b," % (len(text), text.encode())


def test_sums_are_the_lookups_that_were_made(each):
    before = lookups(each)
    opened = value(each, "srsd_connections_opened_total")
    found = value(each, "srsd_lookup_seconds_count")
    for number in range(30):
        address = ask(each, "forward", f"user{number}@origin.example").removeprefix("200 ")
        assert ask(each, "reverse", address).startswith("200 ")
        assert ask(each, "reverse", f"user{number}@elsewhere.example").startswith("500 ")
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(DEADLINE)
        connection.connect(each.unix("socketmap"))
        for request in (f"forward {ALICE}", "nowhere x"):
            connection.sendall(netstring(request))
            assert connection.recv(4096)
    expected = {
        ("srs_forward", "forward", "found"): 30,
        ("srs_reverse", "reverse", "found"): 30,
        ("srs_reverse", "reverse", "not_found"): 30,
        ("socketmap", "forward", "found"): 1,
        ("socketmap", "", "permanent"): 1,
    }

    def raised() -> dict[tuple[str, str, str], float]:
        return {kind: number - before.get(kind, 0) for kind, number in lookups(each).items()}

    until("all lookups", lambda: sum(raised().values()) >= sum(expected.values()))
    assert {kind: number for kind, number in raised().items() if number} == expected
    assert value(each, "srsd_connections_opened_total") == opened + 91
    until("end of the connections", lambda: value(each, "srsd_connections_open") == 0)
    # 30 answers were the same request again, perhaps, and kept; every other one took its time.
    assert value(each, "srsd_lookup_seconds_count") >= found + 62


def test_scrape_and_status_agree(each):
    ask(each, "forward", ALICE)

    def agree() -> bool:
        status = control(each, "status")
        there = {tuple(kind[:3]): 0 for *kind, _ in status["counters"]["lookups"]}
        for *kind, count in status["counters"]["lookups"]:
            there[tuple(kind[:3])] += count
        return there == lookups(each)

    until("agreement", agree)
    samples = scrape(each)
    status = control(each, "status")
    ((information, _),) = samples["srsd_info"]
    assert information == {"version": status["version"]}
    assert value(each, "srsd_start_time_seconds") == pytest.approx(status["started_timestamp"])
    assert value(each, "srsd_workers_running") == len(status["workers"])
    assert value(each, "srsd_worker_restarts_total") == 0


def test_the_histogram_is_one(srsd):
    ask(srsd, "forward", ALICE)
    samples = scrape(srsd)
    buckets = [(float(labels["le"]), number) for labels, number in samples["srsd_lookup_seconds_bucket"]]
    assert buckets == sorted(buckets)
    assert [number for _, number in buckets] == sorted(number for _, number in buckets)
    assert buckets[-1][0] == float("inf")
    assert buckets[-1][1] == samples["srsd_lookup_seconds_count"][0][1]
    assert samples["srsd_lookup_seconds_sum"][0][1] >= 0


def test_counters_never_fall(each):
    previous: dict[tuple[str, str], float] = {}
    for _ in range(10):
        ask(each, "forward", ALICE)
        for name, samples in scrape(each).items():
            if name.endswith(("_total", "_bucket")):
                for labels, number in samples:
                    key = (name, repr(sorted(labels.items())))
                    assert number >= previous.get(key, 0), key
                    previous[key] = number


def test_a_bad_reload_shows(srsd):
    assert value(srsd, "srsd_last_reload_successful") == 1
    good = srsd.config.read_text()
    srsd.config.write_text("rubbish\n")
    try:
        assert control(srsd, "reload")["faults"]
        assert value(srsd, "srsd_last_reload_successful") == 0
    finally:
        srsd.config.write_text(good)
        assert control(srsd, "reload") == {"faults": []}
    assert value(srsd, "srsd_last_reload_successful") == 1


# HTTP, and what is none.


def say(srsd: Srsd, octets: bytes) -> bytes:
    """Send octets and no more; return all that comes back until srsd closes."""
    with socket.create_connection(srsd.inet("metrics"), timeout=DEADLINE) as connection:
        with contextlib.suppress(OSError):  # it need not read all of it
            connection.sendall(octets)
            connection.shutdown(socket.SHUT_WR)
        answer = b""
        with contextlib.suppress(ConnectionError):
            while received := connection.recv(65536):
                answer += received
        return answer


@pytest.mark.parametrize("path", ["/metrics", "/", "/metrics?name[]=srsd_lookups_total"])
def test_paths_that_answer(srsd, path):
    answer = say(srsd, f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 ")
    assert b"\r\nContent-Length: %d\r\n" % len(body) in head
    assert b"srsd_info" in body


def test_other_paths_are_not_found(srsd):
    assert say(srsd, b"GET /etc/passwd HTTP/1.1\r\n\r\n").startswith(b"HTTP/1.1 404 ")


def test_head_has_no_body(srsd):
    answer = say(srsd, b"HEAD /metrics HTTP/1.1\r\nHost: x\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 200 ")
    assert answer.endswith(b"\r\n\r\n")
    assert answer.count(b"\r\n\r\n") == 1


@pytest.mark.parametrize(
    "octets",
    [
        b"",
        b"\r\n\r\n",
        b"GET\r\n\r\n",
        b"GET /metrics",
        b"\x00\xff\r\n\r\n",
        b"POST /metrics HTTP/1.1\r\nContent-Length: 9\r\n\r\nsomething",
        b"DELETE / HTTP/1.1\r\n\r\n",
        b"GET " + b"/" * 7000 + b" HTTP/1.1\r\n\r\n",
        b"GET /metrics HTTP/1.1\r\n" + b"X: y\r\n" * 100_000,
        b"\n" * 1_000_000,
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(500),  # TLS
    ],
    ids=lambda octets: f"{octets[:12]!r}, {len(octets)} octets",
)
def test_rubbish_is_refused_or_cut_off(srsd, octets):
    answer = say(srsd, octets)
    assert answer == b"" or re.match(rb"HTTP/1\.1 4\d\d ", answer)
    assert value(srsd, "srsd_last_reload_successful") == 1


def test_slow_clients_end_and_hold_up_nobody():
    """A slow-loris: it sends, but not fast enough."""
    shortened = patched("import srsd.daemon.metrics as metrics; metrics._SECONDS = 1")
    with running(listen=METRICS, argv=shortened) as srsd, contextlib.ExitStack() as stack:
        slow = [
            stack.enter_context(socket.create_connection(srsd.inet("metrics"), timeout=DEADLINE))
            for _ in range(200)
        ]
        deaf = stack.enter_context(socket.create_connection(srsd.inet("metrics"), timeout=DEADLINE))
        deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)
        deaf.sendall(b"GET /metrics HTTP/1.1\r\n\r\n")
        for connection in slow:
            connection.sendall(b"GET /metr")
        begun = time.monotonic()
        for _ in range(10):
            assert value(srsd, "srsd_last_reload_successful") == 1
            assert ask(srsd, "forward", ALICE).startswith("200 ")
        assert time.monotonic() - begun < 2
        for connection in slow:
            with contextlib.suppress(ConnectionResetError):
                assert connection.recv(1) == b""
        until("end of them", lambda: len(os.listdir(f"/proc/{srsd.pid}/fd")) < 50)


def test_there_is_no_metrics_unless_asked_for():
    with running() as srsd:
        assert "metrics" not in srsd.endpoints


def test_metrics_over_a_unix_socket():
    with new_directory() as directory:
        path = directory / "metrics"
        with (
            running(directory=directory, listen={"metrics": [f"unix:{path}"]}) as srsd,
            socket.socket(socket.AF_UNIX) as connection,
        ):
            connection.settimeout(DEADLINE)
            connection.connect(srsd.unix("metrics"))
            connection.sendall(b"GET /metrics HTTP/1.1\r\n\r\n")
            with connection.makefile("rb") as answer:
                assert b"srsd_info" in answer.read()
        assert not path.exists()
