"""Measures srsd beside PostSRSd 1.10 in interleaved rounds of one run; README.md says how to read it."""

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import load_client
import process_tree
import servers
from cases import ASYNCIO, CASES, PEER, READY, RESIDENT, SRSD, Case
from machine import machine, uvloop_installed, versions
from report import own_figure, print_case, spread, summarise, verdict, with_spread, worst_median
from servers import Server, ServerError

# ---- measuring ----


class Bench:
    """The servers of one run and what was measured on them."""

    def __init__(self, options: argparse.Namespace, directory: Path) -> None:
        self.options = options
        self.directory = directory
        self.running: dict[str, Server] = {}
        self.next_key = 1_000_000  # apart from the repeated keys
        self.secret = "benchmark-" + os.urandom(12).hex()

    def start(self) -> None:
        self.client = load_client.compile_client(self.directory)
        self.running[SRSD] = self.start_srsd("srsd")
        if uvloop_installed():
            self.running[ASYNCIO] = self.start_srsd("asyncio", uvloop=False)
        if servers.POSTSRSD:
            self.running[PEER] = servers.start_postsrsd(self.directory / "postsrsd", self.secret)

    def start_srsd(self, name: str, *, uvloop: bool = True) -> Server:
        return servers.start_srsd(self.directory / name, self.secret, uvloop=uvloop)

    def stop(self) -> None:
        for server in self.running.values():
            server.stop()

    def start_times(self) -> list[float]:
        times = []
        for number in range(self.options.starts):
            server = self.start_srsd(f"start{number}")
            times.append(server.ready_seconds)
            server.stop()
        return times

    def run_case(self, case: Case) -> dict[str, list[dict]]:
        """Results of every server by round, the servers taking turns."""
        names = [name for name in case.servers if name in self.running]
        arguments = {name: self.client_arguments(case, name) for name in names}
        results = {name: [] for name in names}
        for _ in range(self.options.rounds):
            for name in names:
                first = ["--first", str(self.next_key)] if case.new_keys else []
                result = load_client.measure(
                    self.client, self.running[name], case.endpoint, arguments[name] + first
                )
                self.next_key = max(self.next_key, result.get("next_key", 0))
                results[name].append(result)
        return results

    def client_arguments(self, case: Case, name: str) -> list[str]:
        options = self.options
        arguments = [
            *f"--connections {options.connections} --threads {options.client_threads}".split(),
            *f"--seconds {options.seconds} --warmup {min(0.3, options.seconds)}".split(),
            *case.arguments,
        ]
        if case.endpoint == "srs_reverse":
            keys = self.directory / f"{self.running[name].pid}.reverse"
            load_client.write_reverse_keys(self.running[name], keys, options.keys)
            return [*arguments, "--key-file", str(keys)]
        return [*arguments, "--keys", "0" if case.new_keys else str(options.keys)]


# ---- the command ----


def parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="bench/run", description=__doc__)
    parser.add_argument(
        "--rounds", type=int, default=7, help="runs of each server in each case (%(default)s)"
    )
    parser.add_argument("--seconds", type=float, default=1.5, help="length of one run (%(default)s)")
    parser.add_argument(
        "--connections", type=int, default=16, help="clients, one request in flight each (%(default)s)"
    )
    parser.add_argument("--client-threads", type=int, help="threads of the load client (one per connection)")
    parser.add_argument("--keys", type=int, default=1000, help="keys that are repeated (%(default)s)")
    parser.add_argument(
        "--case", action="append", choices=[case.name for case in CASES], help="only this one; repeatable"
    )
    parser.add_argument("--starts", type=int, default=5, help="starts for the time to ready (%(default)s)")
    parser.add_argument("--quick", action="store_true", help="one short round: does everything work?")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures here")
    options = parser.parse_args()
    if options.quick:
        options.rounds, options.seconds, options.starts = 1, 0.4, 1
    if min(options.rounds, options.connections, options.keys, options.starts, options.seconds) <= 0:
        parser.error("rounds, seconds, connections, keys and starts are at least 1")
    options.client_threads = options.client_threads or options.connections
    return options


def missing_tools() -> bool:
    """Tell what is missing; True when nothing can be measured."""
    if not load_client.GCC:
        print("gcc is missing, the load client cannot be compiled: apt-get install gcc libc6-dev")
    version = servers.postsrsd_version()
    if not version:
        print("PostSRSd is missing, so there is nothing to compare with: apt-get install postsrsd")
    elif not version.startswith("1."):
        print(f"PostSRSd {version} has no tcp_table, so there is nothing to compare with: Debian 12 has 1.10")
        servers.POSTSRSD = None
    if not uvloop_installed():
        print("uvloop is missing, so srsd runs on plain asyncio: pip install uvloop")
    return not load_client.GCC


def report(options: argparse.Namespace, bench: Bench) -> dict:
    here, used = machine(), versions()
    print(
        f"{here['cores']} cores {here['cpu']}, Linux {here['kernel']}; "
        + ", ".join(f"{k} {v}" for k, v in used.items() if v)
    )
    print(
        f"{options.connections} clients, {options.rounds} rounds of {options.seconds:g} s; median (min..max)"
    )
    begin = time.monotonic()
    cases = []
    for case in CASES:
        if options.case and case.name not in options.case:
            continue
        title = case.title.format(keys=options.keys)
        cases.append(summarise(case, bench.run_case(case)) | {"title": title})
        print_case(title, cases[-1])
    peak = process_tree.memory_mb(bench.running[SRSD].pid, "VmHWM")
    resident = own_figure(RESIDENT, {"median": peak})
    ready = own_figure(READY, spread(bench.start_times()))
    print(f"\nsrsd resident at its peak: {peak:.1f} MB    {verdict(resident)}")
    print(f"srsd start to ready: {with_spread(ready)} s    {verdict(ready)}")
    noise = {name: worst_median(cases, name) for name in ("others_percent", "stolen_percent")}
    print(
        f"took {time.monotonic() - begin:.0f} s; in the noisiest case other programs took "
        f"{noise['others_percent']:.0f} % of the cores, the hypervisor {noise['stolen_percent']:.0f} %"
    )
    return {
        "machine": here | noise,
        "versions": used,
        "settings": {k: v for k, v in vars(options).items() if k != "json"},
        "cases": cases,
        "resident": resident,
        "ready": ready,
    }


def main() -> int:
    options = parse_options()
    if missing_tools():
        return 1
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the servers are stopped
    with tempfile.TemporaryDirectory(prefix="srsd-bench-") as name:
        directory = Path(name)
        directory.chmod(0o711)  # PostSRSd reads its secret in there as nobody
        bench = Bench(options, directory)
        try:
            bench.start()
            figures = report(options, bench)
        except ServerError as error:
            print(error, file=sys.stderr)
            return 1
        except subprocess.CalledProcessError:
            return 1  # the compiler has said why
        finally:
            bench.stop()
    if options.json:
        options.json.write_text(json.dumps(figures, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
