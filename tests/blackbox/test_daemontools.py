"""daemontools/run and log/run as they are installed: only their paths and the log's user are replaced."""

from __future__ import annotations

import grp
import os
import pwd
import re
import shlex
import shutil
import socket
import subprocess
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from harness.daemon import READY_LINE, command, write_config

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

CHECKOUT = Path(__file__).resolve().parents[2]
USER = "nobody"  # stands for the users srsd and srsdlog, which a test does not create
DEADLINE = 15.0  # seconds; supervise alone waits one before it starts a service again

pytestmark = [
    pytest.mark.skipif(shutil.which("supervise") is None, reason="daemontools is not installed"),
    pytest.mark.skipif(os.geteuid() != 0, reason="not root: srsd cannot drop privileges here"),
]


def wait_for(what: str, condition: Callable[[], Any], on_failure: Callable[[], str]) -> Any:
    """Return what condition returns once it is true; fail with on_failure's text after DEADLINE."""
    end = time.monotonic() + DEADLINE
    while time.monotonic() < end:
        if result := condition():
            return result
        time.sleep(0.02)
    pytest.fail(f"no {what} within {DEADLINE} s; the log:\n{on_failure()}")


class Service:
    """A service directory under supervise, and its log directory under another, as svscan pairs them."""

    def __init__(self, base: Path) -> None:
        self.directory = base / "service"
        self.log_file = base / "log" / "current"
        self.config = self._write_files(base)
        self.supervisors: list[subprocess.Popen[bytes]] = []

    def _write_files(self, base: Path) -> Path:
        log = self.log_file.parent
        config = write_config(base / "etc", user=USER, srs={"domain": "fwd.example.net"})
        for path in (log, config.parent / "state", config.parent / "srs.secrets"):
            path.parent.mkdir(exist_ok=True)
            if not path.exists():
                path.mkdir()
            shutil.chown(path, USER)
        (self.directory / "env").mkdir(parents=True)
        group = grp.getgrgid(pwd.getpwnam(USER).pw_gid).gr_name
        # setuidgid to root: the Python of a checkout is often out of nobody's reach, and a process that
        # is still root then becomes the user of srsd.toml.
        replacements = {
            "-o srsd -g srsd /run/srsd": f"-o {USER} -g {group} {base / 'run'}",
            "exec envdir ./env setuidgid srsd /opt/srsd/bin/srsd --config /etc/srsd/srsd.toml": (
                f"exec envdir ./env setuidgid root {shlex.join(command())} --config {config}"
            ),
        }
        self._install("run", replacements)
        self._install("log/run", {" srsdlog ": f" {USER} ", "n10 /var/log/srsd": f"n10 {log}"})
        return config

    def _install(self, name: str, replacements: dict[str, str]) -> None:
        text = (CHECKOUT / "daemontools" / name).read_text()
        for documented, ours in replacements.items():
            assert text.count(documented) == 1, f"daemontools/{name}: {documented!r} stands there not once"
            text = text.replace(documented, ours)
        script = self.directory / name
        script.parent.mkdir(parents=True, exist_ok=True)
        script.write_text(text)
        script.chmod(0o755)

    def start(self) -> None:
        read_end, write_end = os.pipe()
        with os.fdopen(read_end) as log_input, os.fdopen(write_end, "w") as log_output:
            self.supervisors = [
                subprocess.Popen(["supervise", self.directory], stdout=log_output),
                subprocess.Popen(["supervise", self.directory / "log"], stdin=log_input),
            ]
        for directory in (self.directory, self.directory / "log"):
            # svc reaches a supervise only from here on, so nothing started would escape stop().
            wait_for("supervise", lambda d=directory: self.is_supervised(d), self.log)

    def is_supervised(self, directory: Path) -> bool:
        return subprocess.run(["svok", directory], check=False).returncode == 0

    def control(self, option: str, *directories: Path) -> None:
        subprocess.run(["svc", option, *(directories or [self.directory])], check=True)

    def pid(self) -> int | None:
        """Return the pid of srsd if it is up, as svstat tells it."""
        status = subprocess.run(["svstat", self.directory], capture_output=True, text=True, check=True).stdout
        up = re.search(r": up \(pid (\d+)\)", status)
        return int(up[1]) if up else None

    def log(self) -> str:
        return self.log_file.read_text() if self.log_file.exists() else ""

    def wait_until_ready(self, times: int = 1) -> tuple[str, int]:
        """Wait for the ready line of the times-th start; return host and port of srs_forward."""

        def ready() -> str | None:
            lines = [line for line in self.log().splitlines() if READY_LINE.search(line)]
            return lines[times - 1] if len(lines) >= times else None

        line = wait_for("ready line", ready, self.log)
        endpoint = re.search(r"srs_forward=inet:([\d.]+):(\d+)", line)
        assert endpoint, line
        return endpoint[1], int(endpoint[2])

    def stop(self) -> None:
        """End both supervisors and what they supervise; nothing may stay behind."""
        with suppress(subprocess.CalledProcessError):
            self.control("-dx", self.directory, self.directory / "log")
        for supervisor in self.supervisors:
            try:
                supervisor.wait(DEADLINE)
            except subprocess.TimeoutExpired:
                supervisor.kill()
                supervisor.wait()
                pytest.fail(f"supervise did not end: {supervisor.args}; the log:\n{self.log()}")


@pytest.fixture
def service() -> Iterator[Service]:
    # Not tmp_path: pytest makes that for root alone, and srsd is to become another user.
    base = Path(tempfile.mkdtemp(prefix="srsd-daemontools-"))
    base.chmod(0o755)
    service = Service(base)
    try:
        service.start()
        yield service
    finally:
        service.stop()
        shutil.rmtree(base)


def lookup(address: tuple[str, int], key: str) -> str:
    with socket.create_connection(address, timeout=DEADLINE) as connection:
        connection.sendall(f"get {key}\n".encode())
        with connection.makefile() as replies:
            return replies.readline()


def test_it_serves_as_its_own_user_and_its_log_is_kept(service):
    address = service.wait_until_ready()
    assert lookup(address, "alice@example.com").startswith("200 SRS0=")
    uids = re.search(r"^Uid:\s+(.*)", Path(f"/proc/{service.pid()}/status").read_text(), re.MULTILINE)
    assert set(uids[1].split()) == {str(pwd.getpwnam(USER).pw_uid)}
    forwards = wait_for(
        "rewrite in the log",
        lambda: [line for line in service.log().splitlines() if "alice@example.com -> SRS0=" in line],
        service.log,
    )
    assert re.match(r"@[0-9a-f]{24} ", forwards[0]), "multilog puts a TAI64N stamp before each line"
    assert service.log_file.owner() == USER


def test_svc_h_reloads(service):
    address = service.wait_until_ready()
    pid = service.pid()
    service.config.write_text(service.config.read_text().replace("fwd.example.net", "other.example.net"))
    service.control("-h")
    wait_for(
        "answer under the new domain",
        lambda: lookup(address, "alice@example.com").endswith("@other.example.net\n"),
        service.log,
    )
    assert service.pid() == pid


def test_svc_t_restarts(service):
    service.wait_until_ready()
    pid = service.pid()
    service.control("-t")
    address = service.wait_until_ready(times=2)
    assert service.pid() not in {None, pid}
    assert lookup(address, "alice@example.com").startswith("200 ")


def test_svc_d_stops_it_and_svc_u_starts_it(service):
    address = service.wait_until_ready()
    service.control("-d")
    wait_for("end of srsd", lambda: service.pid() is None, service.log)
    with pytest.raises(ConnectionRefusedError):
        lookup(address, "alice@example.com")
    service.control("-u")
    assert lookup(service.wait_until_ready(times=2), "alice@example.com").startswith("200 ")
