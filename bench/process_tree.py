"""CPU time and memory of a server with all its children, from the kernel's books.

Live processes and zombies are read with the process CPU clock (nanoseconds, ended threads
included). A child that ended and was waited for is in its parent's cutime and cstime. Children
that a server leaves to init would be missed; neither srsd nor PostSRSd has any.
"""

import contextlib
import ctypes
import os
import time
from dataclasses import dataclass
from pathlib import Path

LIBC = ctypes.CDLL(None, use_errno=True)
TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Stat:
    """The fields of /proc/PID/stat that matter here, in seconds."""

    parent: int
    own_cpu: float
    waited_children_cpu: float


def read_stat(pid: int) -> Stat | None:
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None
    fields = text.rpartition(")")[2].split()  # the name before it may hold blanks
    utime, stime, cutime, cstime = (int(field) / TICKS_PER_SECOND for field in fields[11:15])
    return Stat(int(fields[1]), utime + stime, cutime + cstime)


def process_clock(pid: int) -> float | None:
    """CPU seconds of one process, finer than the ticks of /proc/PID/stat."""
    clock = ctypes.c_int()
    if LIBC.clock_getcpuclockid(pid, ctypes.byref(clock)):
        return None
    with contextlib.suppress(OSError):
        return time.clock_gettime(clock.value)
    return None


def tree(root: int) -> dict[int, Stat]:
    """Every process below and including `root`."""
    pids = [int(name) for name in os.listdir("/proc") if name.isdigit()]
    stats = {pid: stat for pid in pids if (stat := read_stat(pid))}
    members = {root} & stats.keys()
    while grown := {pid for pid, stat in stats.items() if stat.parent in members} - members:
        members |= grown
    return {pid: stats[pid] for pid in members}


def cpu_seconds(root: int) -> float:
    total = 0.0
    for pid, stat in tree(root).items():
        own = process_clock(pid)
        total += stat.waited_children_cpu + (stat.own_cpu if own is None else own)
    return total


def settled_cpu_seconds(root: int, deadline: float = 2.0) -> float:
    """CPU of the tree once it stands still: what closing connections costs belongs to the lookups."""
    end = time.monotonic() + deadline
    before = cpu_seconds(root)
    while time.monotonic() < end:
        time.sleep(0.02)
        now = cpu_seconds(root)
        if now - before < 0.0005:
            return now
        before = now
    return before


def memory_mb(root: int, field: str) -> float:
    """Sum of VmRSS or VmHWM (the peak) over the tree; shared pages count once per process."""
    total = 0
    for pid in tree(root):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            for line in Path(f"/proc/{pid}/status").read_text().splitlines():
                if line.startswith(field + ":"):
                    total += int(line.split()[1])
    return total / 1024
