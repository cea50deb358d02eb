"""Starts and stops the servers under measurement, on free loopback ports, in a directory of their own."""

import contextlib
import os
import pwd
import re
import selectors
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

DOMAIN = "forwarder.test"
START_DEADLINE = 20.0
POSTSRSD = shutil.which("postsrsd", path=os.environ.get("PATH", "") + ":/usr/sbin")

# Without uvloop: the import fails as it does where the package is missing.
PLAIN_ASYNCIO = (
    "import sys; sys.modules['uvloop'] = None; from srsd.daemon.main import main; sys.exit(main())"
)


class ServerError(Exception):
    """A server does not start, or does not do its work."""


@dataclass
class Server:
    """A running server; addresses as `inet:HOST:PORT` or `unix:PATH`."""

    name: str
    process: subprocess.Popen
    addresses: dict[str, str] = field(default_factory=dict)
    ready_seconds: float | None = None

    @property
    def pid(self) -> int:
        return self.process.pid

    def stop(self) -> None:
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(10)
            except subprocess.TimeoutExpired:
                print(f"{self.name} did not end within 10 s of SIGTERM: killed", file=sys.stderr)
        with contextlib.suppress(ProcessLookupError):  # its own session: children that are left too
            os.killpg(self.pid, signal.SIGKILL)
        self.process.wait()


# ---- srsd ----


def write_srsd_config(directory: Path, secret: str, workers: int) -> Path:
    directory.mkdir(mode=0o700)
    secrets_file = directory / "srs.secrets"
    secrets_file.touch(mode=0o600)
    secrets_file.write_text(secret + "\n")
    config = directory / "srsd.toml"
    config.write_text(f"""\
state_directory = "{directory}"
workers = {workers}
[listen]
control = []
srs_forward = ["inet:127.0.0.1:0"]
srs_reverse = ["inet:127.0.0.1:0"]
socketmap = ["unix:{directory}/socketmap"]
[srs]
domain = "{DOMAIN}"
secrets_file = "{secrets_file}"
[exclude]
file = "{directory}/exclude"
[log]
level = "warning"
""")
    return config


def start_srsd(directory: Path, secret: str, *, uvloop: bool = True, workers: int = 1) -> Server:
    """Start from the interpreter's first instruction to the ready line is `ready_seconds`."""
    return start_daemon("srsd", write_srsd_config(directory, secret, workers), uvloop=uvloop)


def start_daemon(name: str, config: Path, *, uvloop: bool = True) -> Server:
    """Start srsd with a configuration, and wait until it is ready."""
    how = ["-m", "srsd.daemon.main"] if uvloop else ["-c", PLAIN_ASYNCIO]
    begin = time.monotonic()
    process = subprocess.Popen(
        [sys.executable, *how, "--config", str(config)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )
    server = Server(name, process)
    try:
        line = wait_for_ready_line(process, begin + START_DEADLINE)
    except ServerError:
        server.stop()
        raise
    server.ready_seconds = time.monotonic() - begin
    server.addresses = dict(re.findall(r"(\w+)=((?:inet|unix):\S+)", line))
    threading.Thread(target=pass_on_log, args=(process,), daemon=True).start()
    return server


def pass_on_log(process: subprocess.Popen) -> None:
    """Show what srsd logs later (warnings), and keep its pipe from filling up."""
    for line in process.stderr:
        sys.stderr.buffer.write(b"srsd: " + line)
        sys.stderr.flush()


def wait_for_ready_line(process: subprocess.Popen, deadline: float) -> str:
    text = b""
    with selectors.DefaultSelector() as selector:
        selector.register(process.stderr, selectors.EVENT_READ)
        while (left := deadline - time.monotonic()) > 0:
            if not selector.select(left):
                break
            chunk = os.read(process.stderr.fileno(), 65536)
            text += chunk
            for line in text.decode(errors="replace").splitlines(keepends=True):
                if " ready: " in line and line.endswith("\n"):
                    return line
            if not chunk:
                raise ServerError(f"srsd ended before it was ready: {text.decode(errors='replace').strip()}")
    raise ServerError(
        f"srsd printed no ready line within {START_DEADLINE:.0f} s: {text.decode(errors='replace').strip()}"
    )


# ---- PostSRSd ----


def postsrsd_version() -> str | None:
    if not POSTSRSD:
        return None
    return subprocess.run([POSTSRSD, "-v"], capture_output=True, text=True, check=False).stdout.strip()


def unprivileged() -> dict:
    """Popen arguments: nobody when we are root, else ourselves."""
    if os.geteuid() != 0:
        return {}
    nobody = pwd.getpwnam("nobody")
    return {"user": nobody.pw_uid, "group": nobody.pw_gid, "extra_groups": []}


def free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]


def start_postsrsd(directory: Path, secret: str) -> Server:
    directory.mkdir(mode=0o700)
    secret_file = directory / "secret"
    secret_file.touch(mode=0o600)
    secret_file.write_text(secret + "\n")
    if os.geteuid() == 0:
        shutil.chown(directory, "nobody")
        shutil.chown(secret_file, "nobody")
    for _ in range(5):  # another program may take a free port before PostSRSd does
        forward, reverse = free_ports(2)
        process = subprocess.Popen(
            [
                POSTSRSD,
                "-4",
                "-l127.0.0.1",
                f"-f{forward}",
                f"-r{reverse}",
                f"-d{DOMAIN}",
                f"-s{secret_file}",
            ],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
            cwd=directory,
            **unprivileged(),
        )
        server = Server(
            "PostSRSd",
            process,
            {"srs_forward": f"inet:127.0.0.1:{forward}", "srs_reverse": f"inet:127.0.0.1:{reverse}"},
        )
        if wait_for_port(process, reverse):
            return server
        server.stop()
    raise ServerError("PostSRSd does not start")


def wait_for_port(process: subprocess.Popen, port: int) -> bool:
    end = time.monotonic() + START_DEADLINE
    while process.poll() is None and time.monotonic() < end:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            time.sleep(0.01)
        else:
            return True
    return False
