"""A key directory for DKIM, filled as an admin does it: by srsctl.

host = MilterHost(zones)
keys = KeyDirectory(host)                                # before the host is started
keys.genkey("here.example", "--type", "both")            # what it prints is published in the host's DNS
with host: ...
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from harness.daemon import run, write_config
from harness.forwarder import USER

if TYPE_CHECKING:
    import subprocess
    from pathlib import Path

    from harness.milter_host import MilterHost


class KeyDirectory:
    """The directory, which the host is told to use, and what DNS is to have for it."""

    def __init__(self, host: MilterHost) -> None:
        self.path: Path = host.postfix.directory / "dkim"
        settings = {"key_directory": str(self.path)}
        host.tables["dkim"] = {**host.tables.get("dkim", {}), **settings}
        self._config = write_config(host.postfix.directory / "admin", user=USER, dkim=settings)
        self._host = host
        self._zones = dict(host.dns.zones)

    def srsctl(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run `srsctl dkim ...` with the host's own configuration, once there is one."""
        started = self._host.postfix.directory / "srsd/srsd.toml"
        return run("srsctl", "--config", started if started.exists() else self._config, "dkim", *arguments)

    def genkey(self, domain: str, *options: str, publish: bool = True) -> list[dict[str, Any]]:
        """Make keys; return what srsctl says of each."""
        done = self.srsctl("genkey", domain, *options, "--json")
        assert done.returncode == 0, done.stderr
        keys = json.loads(done.stdout)
        if publish:
            self.publish(keys)
        return keys

    def publish(self, keys: list[dict[str, Any]]) -> None:
        """Put the records of keys into DNS; the name server of a host that runs is started again."""
        self._zones |= {(key["name"], "TXT"): [key["value"]] for key in keys}
        dns = self._host.dns
        running = dns.port != 0
        if running:
            dns.stop()
        dns.zones = self._zones
        if running:
            dns.start()
