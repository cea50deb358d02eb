"""srsd as a real process: write its files, start it, read its ready line and log, signal it, stop it.

config = write_config(tmp_path, srs={"domain": "fwd.example.net"}, exclude="@friend.example\\n")
with Srsd(config) as srsd:
    host, port = srsd.inet("srs_forward")
    srsd.hup()
    srsd.wait_for_log("reloaded")
assert srsd.returncode == 0
"""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

READY_LINE = re.compile(r"srsd \S+ ready: (?P<endpoints>[^\"]*)")
ENDPOINT = re.compile(r"(\w+)=((?:inet|unix):[^\s\"]+)")
DEADLINE = 10.0  # seconds: far above what a start or a stop takes, so that only a hang fails
LOOPBACK = "inet:127.0.0.1:0"  # port 0: srsd picks a free one and shows it in its ready line


class DaemonError(Exception):
    """The process ended, or did not do in time what was waited for; the text ends with its log."""


def command(name: str = "srsd") -> list[str]:
    """Return how to run srsd or srsctl: $SRSD_COMMAND / $SRSCTL_COMMAND, else the one beside this Python."""
    override = os.environ.get(f"{name.upper()}_COMMAND")
    if override:
        return shlex.split(override)
    script = Path(sys.executable).with_name(name)
    module = {"srsd": "srsd.daemon.main", "srsctl": "srsd.cli.main"}[name]
    return [str(script)] if script.exists() else [sys.executable, "-m", module]


def environment(config: str | Path) -> dict[str, str]:
    """Return the environment for a process with this configuration.

    Coverage is not measured in one that becomes another user: it could not write what it measured.
    """
    inherited = dict(os.environ)
    if re.search(r'^user = "[^"]', Path(config).read_text(errors="replace"), re.MULTILINE):
        for name in [name for name in inherited if name.startswith("COVERAGE_PROCESS")]:
            del inherited[name]
    return inherited


def run(name: str, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """Run `srsd` or `srsctl` to its end (for --check, bad configurations, lookups by hand)."""
    line = [*command(name), *map(str, arguments)]
    config = next((each for each in arguments if Path(each).suffix == ".toml" and Path(each).is_file()), None)
    env = environment(config) if config is not None else None
    return subprocess.run(line, capture_output=True, text=True, timeout=DEADLINE, check=False, env=env)


def write_config(
    directory: Path,
    *,
    secrets: Sequence[str] = ("tests-only secret",),
    exclude: str | None = None,
    **tables: Mapping[str, object] | object,
) -> Path:
    """Write srsd.toml, srs.secrets (0600) and, if wanted, exclude into directory; return the TOML's path.

    Keyword arguments are tables (srs={"domain": ...}) or top-level keys (workers=2). What is not
    given: both tcp_table listeners on free loopback ports, no control socket, and every path inside
    directory.
    """
    directory.mkdir(parents=True, exist_ok=True)
    state = directory / "state"
    state.mkdir(exist_ok=True)
    secrets_file = directory / "srs.secrets"
    secrets_file.touch(mode=0o600)
    secrets_file.write_text("".join(f"{secret}\n" for secret in secrets))
    exclude_file = directory / "exclude"
    if exclude is not None:
        exclude_file.write_text(exclude)
    settings: dict[str, object] = {"state_directory": str(state), **tables}
    defaults: dict[str, dict[str, object]] = {
        "listen": {"srs_forward": [LOOPBACK], "srs_reverse": [LOOPBACK], "control": []},
        "srs": {"secrets_file": str(secrets_file)},
        "exclude": {"file": str(exclude_file)},
    }
    for table, values in defaults.items():
        settings[table] = {**values, **settings.get(table, {})}  # type: ignore[dict-item]
    config = directory / "srsd.toml"
    config.write_text(to_toml(settings))
    return config


def to_toml(settings: Mapping[str, object]) -> str:
    """Return a two-level mapping as TOML; mappings further down become inline tables."""
    keys = [f"{key} = {_spell(value)}" for key, value in settings.items() if not isinstance(value, dict)]
    for table, values in settings.items():
        if isinstance(values, dict):
            keys += ["", f"[{table}]", *(f"{key} = {_spell(value)}" for key, value in values.items())]
    return "\n".join(keys) + "\n"


def _spell(value: object) -> str:
    """Spell a value: all but tables as in JSON."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key} = {_spell(inner)}" for key, inner in value.items()) + "}"
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(map(_spell, value)) + "]"
    return json.dumps(value)


class Srsd:
    """One srsd process. start() may be called again after it ended: same configuration, new process."""

    def __init__(
        self,
        config: Path,
        *options: str,
        argv: Sequence[str] | None = None,  # what runs srsd, where it is not command()
        env: Mapping[str, str] | None = None,  # added to the environment
        pass_fds: Sequence[int] = (),
    ) -> None:
        self.config = config
        self.options = options
        self.argv = list(argv) if argv is not None else command()
        self.env = {**environment(config), **(env or {})}
        self.pass_fds = pass_fds
        self.endpoints: dict[str, list[str]] = {}  # listener name -> ["inet:127.0.0.1:40123", ...]
        self.log: list[str] = []  # every line of stderr so far, of every start
        self.returncode: int | None = None
        self._process: subprocess.Popen[str] | None = None
        self._reader: threading.Thread | None = None
        self._changed = threading.Condition()
        self._log_ended = True

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        if self.returncode is None:
            self.terminate()

    @property
    def pid(self) -> int:
        """The process id of the running daemon."""
        if self._process is None:
            raise DaemonError("srsd was not started")
        return self._process.pid

    def start(self, deadline: float = DEADLINE) -> Self:
        """Start the process and wait for its ready line, or raise DaemonError."""
        self.returncode, self._log_ended = None, False
        since = len(self.log)
        line = [*self.argv, "--config", str(self.config), *self.options]
        self._process = subprocess.Popen(
            line,
            stderr=subprocess.PIPE,
            text=True,
            errors="backslashreplace",
            env=self.env,
            pass_fds=self.pass_fds,
        )
        self._reader = threading.Thread(target=self._collect, args=(self._process,), daemon=True)
        self._reader.start()
        try:
            ready = self.wait_for_log(READY_LINE.search, deadline=deadline, since=since)
        except DaemonError:
            self.kill()
            raise
        self.endpoints = {}
        for name, endpoint in ENDPOINT.findall(ready):
            self.endpoints.setdefault(name, []).append(endpoint)
        return self

    def inet(self, name: str) -> tuple[str, int]:
        """Return host and port of the first inet endpoint of a listener: inet("srs_forward")."""
        endpoint = next(e for e in self.endpoints[name] if e.startswith("inet:"))
        host, _, port = endpoint.removeprefix("inet:").rpartition(":")
        return host.strip("[]"), int(port)

    def unix(self, name: str) -> str:
        """Return the path of the first unix endpoint of a listener."""
        endpoint = next(e for e in self.endpoints[name] if e.startswith("unix:"))
        return endpoint.removeprefix("unix:").partition("?")[0]

    def hup(self) -> int:
        """Send SIGHUP; return the place in the log from which to wait for what it says about it."""
        since = len(self.log)
        os.kill(self.pid, signal.SIGHUP)
        return since

    def terminate(self, deadline: float = DEADLINE) -> int:
        """Send SIGTERM and return the exit status; a daemon that does not end is killed and an error."""
        if self._process is not None and self._process.poll() is None:
            self._process.terminate()
        return self.wait(deadline)

    def kill(self) -> int:
        """Kill -9 and return the exit status."""
        if self._process is not None and self._process.poll() is None:
            self._process.kill()
        return self.wait()

    def wait(self, deadline: float = DEADLINE) -> int:
        """Wait for the end of the process and of its log; return the exit status."""
        if self._process is None or self._reader is None:
            raise DaemonError("srsd was not started")
        try:
            self.returncode = self._process.wait(deadline)
        except subprocess.TimeoutExpired as late:
            self._process.kill()
            self.returncode = self._process.wait()
            raise self._error(f"srsd did not end within {deadline} s") from late
        finally:
            self._reader.join(deadline)
        return self.returncode

    def wait_for_log(
        self, wanted: str | Callable[[str], object], *, deadline: float = DEADLINE, since: int = 0
    ) -> str:
        """Return the first log line from `since` on that contains (or satisfies) wanted, when it comes."""
        matches = wanted if callable(wanted) else lambda line: wanted in line

        def found() -> str | None:
            return next((line for line in self.log[since:] if matches(line)), None)

        with self._changed:
            self._changed.wait_for(lambda: found() is not None or self._log_ended, deadline)
            line = found()
        if line is None:
            state = "srsd ended" if self._log_ended else f"srsd did not log it within {deadline} s"
            raise self._error(f"{state}; waited for {wanted!r}")
        return line

    def _collect(self, process: subprocess.Popen[str]) -> None:
        assert process.stderr is not None
        with process.stderr as stderr:
            for line in stderr:
                with self._changed:
                    self.log.append(line.rstrip("\n"))
                    self._changed.notify_all()
        with self._changed:
            self._log_ended = True
            self._changed.notify_all()

    def _error(self, text: str) -> DaemonError:
        status = "" if self._process is None else f" (exit status {self._process.poll()})"
        return DaemonError("\n".join([f"{text}{status}; its log:", *self.log[-50:]]))
