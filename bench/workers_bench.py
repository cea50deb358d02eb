"""Measures two workers beside one: lookups with a connection each, in interleaved rounds of one run.

The load client and the kernel need cores of their own, so each process that answers is held to
a share of one core (cgroup v1, as root). What two of them do together is then theirs, and not
what the client left over.
"""

import argparse
import os
import statistics
import sys
import tempfile
from pathlib import Path

import load_client
import process_tree
import servers
from machine import machine
from servers import Server

CGROUP = Path("/sys/fs/cgroup/cpu")
PERIOD_US = 20_000
TARGET = 1.6
LOAD = "--connections 16 --threads 16 --keys 1000 --reconnect --warmup 0.3"


class Share:
    """A cgroup that holds one process to a share of a core."""

    def __init__(self, pid: int, percent: int) -> None:
        self.path = CGROUP / f"srsd-bench-{pid}"
        self.path.mkdir()
        (self.path / "cpu.cfs_period_us").write_text(str(PERIOD_US))
        (self.path / "cpu.cfs_quota_us").write_text(str(PERIOD_US * percent // 100))
        (self.path / "cgroup.procs").write_text(str(pid))

    def end(self) -> None:
        self.path.rmdir()  # its process must be gone


def answering(server: Server) -> list[int]:
    """The processes that answer: the workers, or the only process."""
    below = [pid for pid in process_tree.tree(server.pid) if pid != server.pid]
    return below or [server.pid]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=1.5)
    parser.add_argument("--percent", type=int, default=15, help="of a core, for each process (%(default)s)")
    options = parser.parse_args()
    if os.geteuid() != 0 or not (CGROUP / "cpu.cfs_quota_us").parent.exists():
        print(f"not measured: this needs root and cgroup v1 at {CGROUP}")
        return 0
    if not load_client.GCC:
        print("gcc is missing, the load client cannot be compiled: apt-get install gcc libc6-dev")
        return 1
    with tempfile.TemporaryDirectory(prefix="srsd-bench-") as name:
        directory = Path(name)
        client = load_client.compile_client(directory)
        running = {
            workers: servers.start_srsd(directory / f"w{workers}", "benchmark", workers=workers)
            for workers in (1, 2)
        }
        shares = []
        try:
            shares = [Share(pid, options.percent) for server in running.values() for pid in answering(server)]
            report(options, client, running)
        finally:
            for server in running.values():
                server.stop()
            for share in shares:
                share.end()
    return 0


def report(options: argparse.Namespace, client: Path, running: dict[int, Server]) -> None:
    arguments = [*LOAD.split(), "--seconds", str(options.seconds)]
    figures: dict[int, list[float]] = {workers: [] for workers in running}
    noise = []
    for _ in range(options.rounds):
        for workers, server in running.items():
            result = load_client.measure(client, server, "srs_forward", arguments)
            if result["errors"]:
                sys.exit(f"a failed run: {result['first_error']}")
            figures[workers].append(result["lookups_per_second"])
            noise.append(result["others_percent"])
    ratios = [two / one for one, two in zip(figures[1], figures[2], strict=True)]
    here = machine()
    print(f"{here['cores']} cores {here['cpu']}; {options.rounds} rounds of {options.seconds:g} s")
    print(f"lookups with a connection each; every process held to {options.percent} % of a core")
    for workers, rates in figures.items():
        print(
            f"  {workers} worker{'s' * (workers > 1)}: {statistics.median(rates):,.0f} lookups/s "
            f"({min(rates):,.0f}..{max(rates):,.0f})"
        )
    print(
        f"  two / one: {statistics.median(ratios):.2f} ({min(ratios):.2f}..{max(ratios):.2f})    "
        f"target >= {TARGET}: {'reached' if statistics.median(ratios) >= TARGET else 'not reached'}"
    )
    print(f"  other programs took {statistics.median(noise):.0f} % of the cores")


if __name__ == "__main__":
    sys.exit(main())
