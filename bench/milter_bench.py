"""Measures the milter beside the programs that it replaces, in interleaved rounds of one run.

It uses load clients and peers that lie beside the checkout (`--tools`, default ../shared/bench): milterload,
which speaks to a milter as Postfix 3.7 does, and peers.sh, which starts OpenDKIM, pyspf-milter and others
with a DNS of their own. Without them nothing is measured.
"""

import argparse
import json
import os
import re
import shutil
import statistics
import subprocess
import tempfile
from pathlib import Path
from typing import NamedTuple

from machine import machine
from servers import Server, start_daemon

CHECKOUT = Path(__file__).resolve().parents[1]
STATE = Path(os.environ.setdefault("BENCH_STATE", str(Path(tempfile.gettempdir()) / "srsd-milter-bench")))
CLIENT = "192.0.2.10"
OUTSIDE = ["--client-ip", CLIENT]

ALONE = "[dmarc]\nverify = false\n[arc]\nverify = false\n"
CHECKS_OFF = ALONE + "[spf]\nverify = false\n[dkim]\nverify = false\nsign = false\n"
SPF = ALONE + "[dkim]\nverify = false\nsign = false\n"
VERIFY = ALONE + "[spf]\nverify = false\n[dkim]\nsign = false\n"
ALL = "[dkim]\nsign = false\n"
SIGN = '[milter]\ninternal_networks = ["192.0.2.0/24"]\n[dkim]\nkey_directory = "{keys}"\n'


class Case(NamedTuple):
    """A load, srsd's configuration for it, the peer, and what the ratios srsd / peer should be."""

    title: str
    config: str
    peer: str
    messages: str
    arguments: list[str]
    per_second: float | None = None  # at least
    cpu: float | None = None  # at most
    two_workers: float | None = None  # messages/s with two of them, at least
    connections: int = 16
    tcp: bool = False


def expect(pattern: str) -> list[str]:
    return ["--expect-header", pattern]


SIGNED = expect("^DKIM-Signature: .*d=sender.example.*b=")
VERIFIED = expect("^Authentication-Results:.*dkim=pass")
ALL_PASSED = expect("dkim=pass") + expect("spf=pass") + expect("dmarc=pass")
SPF_PASSED = expect("spf=pass")
INCLUDES = ["--from", "user@inc8.test"]
CASES = {
    "accept": Case("all checks off, 4 KB", CHECKS_OFF, "null-pymilter", "plain-4k", OUTSIDE, 2.0, 0.3),
    "spf": Case("SPF of one TXT, 4 KB", SPF, "pyspf", "plain-4k", OUTSIDE + SPF_PASSED, cpu=0.15),
    "spf8": Case(
        "SPF of 8 includes, 4 KB", SPF, "pyspf", "plain-4k", OUTSIDE + INCLUDES + SPF_PASSED, cpu=0.06
    ),
    "verify": Case(
        "DKIM verify, 4 KB", VERIFY, "opendkim-verify", "rsa2048-4k", OUTSIDE + VERIFIED, 3.0, 0.25, 4.5
    ),
    "full": Case(
        "SPF, DKIM, ARC, DMARC, 4 KB",
        ALL,
        "opendkim-verify+opendmarc",
        "rsa2048-4k",
        OUTSIDE + ALL_PASSED,
        3.5,
        0.2,
    ),
    "full-rspamd": Case(
        "SPF, DKIM, ARC, DMARC, 4 KB", ALL, "rspamd-verify", "rsa2048-4k", OUTSIDE + ALL_PASSED, cpu=0.28
    ),
    "verify-5m": Case(
        "DKIM verify, 5 MB, 64 connections",
        VERIFY,
        "opendkim-verify",
        "rsa2048-5m",
        OUTSIDE + VERIFIED,
        cpu=1.2,
        connections=64,
    ),
    "sign": Case(
        "DKIM sign RSA-2048, 4 KB", SIGN, "opendkim-sign", "plain-4k", OUTSIDE + SIGNED, 2.0, 0.26, 3.3
    ),
    "sign-5m": Case(
        "DKIM sign, 5 MB, 64 connections",
        SIGN,
        "opendkim-sign",
        "plain-5m",
        OUTSIDE + SIGNED,
        cpu=1.2,
        connections=64,
    ),
    "sign-tcp": Case(
        "DKIM sign over TCP, 4 KB, 1 connection",
        SIGN,
        "opendkim-sign-tcp",
        "plain-4k",
        OUTSIDE + SIGNED,
        connections=1,
        tcp=True,
    ),
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", help="cases, parted by commas; " + ", ".join(CASES))
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=1.5, help="about, for each run (%(default)s)")
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--tools", type=Path, default=CHECKOUT.parent / "shared/bench")
    options = parser.parse_args()
    if not (options.tools / "milterload.c").exists():
        print(f"not measured: there are no load clients and peers at {options.tools} (--tools)")
        return 0
    had_peers = (STATE / "run").is_dir() and any((STATE / "run").glob("*.pid"))
    subprocess.run([options.tools / "run", "--prepare"], check=True, stdout=subprocess.DEVNULL)
    try:
        report(options)
    finally:
        if not had_peers:
            subprocess.run([options.tools / "run", "--stop"], check=True)
    return 0


def report(options: argparse.Namespace) -> None:
    print(machine())
    peers = running_peers(options.tools)
    print("| load | ratio of | srsd / peer, median (min..max) | wanted | srsd |")
    print("|---|---|---:|---:|---|")
    for name in options.only.split(",") if options.only else CASES:
        case = CASES[name]
        missing = [each for each in case.peer.split("+") if each not in peers]
        if missing:
            print(f"| {case.title} | | {', '.join(missing)} is not there | | |")
            continue
        with tempfile.TemporaryDirectory(prefix="srsd-bench-") as directory:
            server = start_milter(Path(directory), case, options.workers)
            try:
                measure(case, options, server, [peers[each] for each in case.peer.split("+")])
            finally:
                server.stop()


def start_milter(directory: Path, case: Case, workers: int) -> Server:
    keys = directory / "dkim"
    (keys / "sender.example").mkdir(parents=True)
    shutil.copy(STATE / "keys/rsa2048.pem", keys / "sender.example/rsa2048.pem")
    (keys / "sender.example/rsa2048.pem").chmod(0o600)
    dns = os.environ.get("BENCH_DNS_PORT", "25353")
    config = directory / "srsd.toml"
    listen = '["inet:127.0.0.1:0"]' if case.tcp else f'["unix:{directory}/milter"]'
    config.write_text(f"""\
state_directory = "{directory}"
workers = {workers}
[listen]
control = []
srs_forward = []
srs_reverse = []
milter = {listen}
[exclude]
file = "{directory}/exclude"
[dns]
nameservers = ["127.0.0.1:{dns}"]
[log]
level = "warning"
{case.config.format(keys=keys)}""")
    return start_daemon("srsd", config)


def running_peers(tools: Path) -> dict[str, tuple[str, str]]:
    listed = subprocess.run([tools / "peers.sh", "list"], check=True, capture_output=True, text=True).stdout
    return {name: (address, pid) for name, _, address, pid in map(str.split, listed.splitlines())}


def load(case: Case, chain: list[tuple[str, str]], number: int) -> dict:
    """Load a chain of milters: the address and the process of each."""
    messages = sorted((STATE / "msg").glob(f"{case.messages}*.eml"))
    command = [STATE / "bin/milterload", "--server-pid", ",".join(pid for _, pid in chain)]
    for address, _ in chain:
        command += ["--socket", address]
    command += ["-n", str(number), "-c", str(case.connections), *case.arguments]
    for message in messages:
        command += ["--message", message]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    figures = json.loads(done.stdout)
    if figures["ok"] != number:
        raise SystemExit(
            f"{case.title}: {number - figures['ok']} of {number} failed: {figures['first_error']}"
        )
    return figures


def measure(case: Case, options: argparse.Namespace, server: Server, peer: list[tuple[str, str]]) -> None:
    address = re.sub(r"^inet:([\d.]+):(\d+)$", r"inet:\2@\1", server.addresses["milter"])
    ours = [(address, str(server.pid))]
    least = case.connections
    counts = []
    for target in (ours, peer):
        probe = load(case, target, least * 2)
        counts.append(max(least, int(probe["per_s"] * options.seconds)))
    rounds = [(load(case, ours, counts[0]), load(case, peer, counts[1])) for _ in range(options.rounds)]
    cpu = [a["server"]["cpu_ms_per_op"] / b["server"]["cpu_ms_per_op"] for a, b in rounds]
    speed = [a["per_s"] / b["per_s"] for a, b in rounds]
    own_cpu = statistics.median(a["server"]["cpu_ms_per_op"] for a, _ in rounds)
    own_speed = statistics.median(a["per_s"] for a, _ in rounds)
    p50 = statistics.median(a["lat_ms"]["p50"] for a, _ in rounds)
    resident = max(a["server"]["peak_rss_kb"] for a, _ in rounds) / 1024
    line(
        case,
        f"messages/s, beside {case.peer}",
        speed,
        case.per_second if options.workers == 1 else case.two_workers,
        f"{own_speed:,.0f}/s, p50 {p50:.2f} ms",
    )
    wanted = case.cpu if options.workers == 1 else None
    line(case, "CPU per message", cpu, wanted, f"{own_cpu:.3f} ms, {resident:.1f} MB resident", at_most=True)


def line(
    case: Case, what: str, ratios: list[float], wanted: float | None, own: str, *, at_most: bool = False
) -> None:
    sign = "<=" if at_most else ">="
    goal = f"{sign} {wanted}" if wanted is not None else "none"
    spread = f"{statistics.median(ratios):.2f} ({min(ratios):.2f}..{max(ratios):.2f})"
    print(f"| {case.title} | {what} | {spread} | {goal} | {own} |", flush=True)


if __name__ == "__main__":
    raise SystemExit(main())
