"""Free loopback ports for servers that must know their port before they start, or keep it over a restart."""

from __future__ import annotations

import random
import socket

# Below Linux's range for outgoing connections (32768 and up): one of those cannot take the port in between.
CANDIDATES = range(20000, 32000)


def free_port() -> int:
    """Return a TCP port that nothing on 127.0.0.1 uses now."""
    for port in random.sample(CANDIDATES, 1000):
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise OSError("no free loopback port among 1000 tried")
