"""Where the figures come from: the machine and the versions."""

import importlib.metadata
import importlib.util
import os
import platform
from pathlib import Path
from typing import NamedTuple, Self

import servers


def uvloop_installed() -> bool:
    return importlib.util.find_spec("uvloop") is not None


def machine() -> dict:
    model = "unknown CPU"
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            model = line.partition(":")[2].strip()
            break
    return {"cores": len(os.sched_getaffinity(0)), "cpu": model, "kernel": platform.release()}


def versions() -> dict:
    found = {
        "srsd": package_version("srsd"),
        "python": platform.python_version(),
        "postsrsd": servers.postsrsd_version(),
    }
    return found | {"uvloop": package_version("uvloop") if uvloop_installed() else None}


def package_version(name: str) -> str:
    return importlib.metadata.version(name)


class Cores(NamedTuple):
    """Seconds of all cores since the start of the machine."""

    total: float
    busy: float
    stolen: float  # by the hypervisor, for other virtual machines

    def since(self, before: Self) -> Self:
        return type(self)(*(now - then for now, then in zip(self, before, strict=True)))


def read_cores() -> Cores:
    """Read the first line of /proc/stat, which counts in ticks."""
    words = Path("/proc/stat").read_text().split("\n", 1)[0].split()
    seconds = [int(word) / os.sysconf("SC_CLK_TCK") for word in words[1:9]]
    user, nice, system, idle, iowait, irq, softirq, stolen = seconds
    busy = user + nice + system + irq + softirq
    return Cores(busy + idle + iowait + stolen, busy, stolen)
