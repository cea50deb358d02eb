"""Free loopback ports for servers that must know their port before they start, or keep it over a restart."""

from __future__ import annotations

import os
import random
import socket
from collections import deque

# Below Linux's range for outgoing connections (32768 and up): one of those cannot take the port in between.
# Where several processes test side by side each has its own: a port is free until Postfix binds it.
_PROCESSES = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
_PROCESS = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
CANDIDATES = range(20000 + _PROCESS, 32000, _PROCESSES)


_given: deque[int] = deque(maxlen=500)


def free_port() -> int:
    """Return a TCP port that nothing on 127.0.0.1 uses now, and that was not given out lately."""
    for port in random.sample(CANDIDATES, 1000):
        if port in _given:  # whoever has it may not have bound it yet
            continue
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            _given.append(port)
            return port
    raise OSError("no free loopback port among 1000 tried")
