"""srsd with everything around it that a test of workers, control or metrics needs.

with running(workers=2) as srsd:
    assert ask(srsd, "forward", "alice@origin.example").startswith("200 ")
    workers(srsd)  # the processes that answer

The end of the block checks that srsd ends with status 0, left no process, and logged no traceback.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import sys
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.daemon import DEADLINE, LOOPBACK, Srsd, write_config

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

SRS_DOMAIN = "fwd.example.net"
SECRETS = ("first-secret-of-the-tests", "second-secret-of-the-tests")
ALICE = "alice@origin.example"


def until(what: str, condition: Callable[[], Any], deadline: float = DEADLINE) -> Any:
    """Return what condition returns once it is true; AssertionError when that takes too long."""
    end = time.monotonic() + deadline
    while not (result := condition()):
        assert time.monotonic() < end, f"no {what} within {deadline} s"
        time.sleep(0.02)
    return result


@contextmanager
def new_directory() -> Iterator[Path]:
    """Make a directory that other users get into, which pytest's own are not."""
    directory = Path(tempfile.mkdtemp(prefix="srsd-test-"))
    directory.chmod(0o755)
    try:
        yield directory
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def configure(directory: Path, **tables: Any) -> Path:
    """Write a configuration whose sockets and files are all in directory; tables adds to it."""
    listen = {
        "srs_forward": [LOOPBACK],
        "srs_reverse": [LOOPBACK],
        "socketmap": [f"unix:{directory}/socketmap"],
        "control": [f"unix:{directory}/control"],
        **tables.pop("listen", {}),
    }
    srs = {"domain": SRS_DOMAIN, **tables.pop("srs", {})}
    log = {"level": "warning", **tables.pop("log", {})}  # a line for each rewrite is slow to collect
    secrets = tables.pop("secrets", SECRETS)
    return write_config(directory, secrets=secrets, listen=listen, srs=srs, log=log, **tables)


@contextmanager
def running(
    *,
    directory: Path | None = None,
    argv: Sequence[str] | None = None,
    env: dict[str, str] | None = None,
    tracebacks: bool = False,
    **tables: Any,
) -> Iterator[Srsd]:
    """Run srsd while the block lasts. tracebacks: the test has them written."""
    if directory is None:
        with (
            new_directory() as made,
            running(directory=made, argv=argv, env=env, tracebacks=tracebacks, **tables) as srsd,
        ):
            yield srsd
        return
    srsd = Srsd(configure(directory, **tables), argv=argv, env=env)
    processes: set[int] = set()
    try:
        srsd.start()
        yield srsd
        if srsd.returncode is None:
            processes = {srsd.pid, *descendants(srsd.pid)}
            assert srsd.terminate() == 0, srsd.log
    except BaseException:
        if srsd.returncode is None and srsd.endpoints:
            processes = {srsd.pid, *descendants(srsd.pid)}
            srsd.kill()
        for pid in filter(is_alive, processes):  # a worker may be stopped, or hang
            os.kill(pid, signal.SIGKILL)
        raise
    until("end of all processes", lambda: not any(map(is_alive, processes)))
    assert tracebacks or not any("Traceback" in line for line in srsd.log), "\n".join(srsd.log)


# Variations of srsd, so that a test need not wait for what takes long, or can make happen what
# does not. The product knows nothing of them.


def patched(supervisor: str = "", worker: str = "", directory: Path | None = None) -> list[str]:
    """Return what runs srsd after a few lines of Python, and its workers after some others."""
    lines = ["import sys"]
    if worker:
        assert directory is not None
        program = directory / "worker-program"
        # The supervisor starts it as `sys.executable -m srsd.daemon.worker ...`.
        program.write_text(
            f"#!{sys.executable}\nimport sys\ndel sys.argv[1:3]\n{worker}\n"
            "from srsd.daemon.worker import main\nmain()\n"
        )
        program.chmod(0o755)
        lines.append(f"sys.executable = {str(program)!r}")
    lines += [supervisor, "import srsd.daemon.main", "srsd.daemon.main.main()"]
    return [sys.executable, "-c", "\n".join(lines)]


def impatient(frozen: float = 10) -> str:
    """Return the line for patched() that shortens what the supervisor waits for.

    frozen: seconds until a silent worker is replaced.
    """
    waits = {"FROZEN_SECONDS": frozen, "_TRACEBACK_SECONDS": 0.3, "_BACK_OFF_FIRST": 0.1}
    return "import srsd.daemon.supervisor as supervisor; " + "; ".join(
        f"supervisor.{name} = {seconds}" for name, seconds in waits.items()
    )


# Processes.


def is_alive(pid: int) -> bool:
    """Tell whether a process is there, and no zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False


def children(pid: int) -> list[int]:
    """Return the living children of a process."""
    try:
        pids = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except (FileNotFoundError, ProcessLookupError):
        return []
    return [child for child in map(int, pids) if is_alive(child)]


def descendants(pid: int) -> list[int]:
    """Return the children of a process, theirs, and so on."""
    return [each for child in children(pid) for each in (child, *descendants(child))]


def workers(srsd: Srsd) -> list[int]:
    """Return the processes that srsd started."""
    return children(srsd.pid)


# Questions.


def open_connection(srsd: Srsd, direction: str) -> socket.socket:
    """Connect to the tcp_table of a direction."""
    connection = socket.create_connection(srsd.inet(f"srs_{direction}"), timeout=DEADLINE)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return connection


def ask_over(connection: socket.socket, key: str) -> str:
    """Ask over a tcp_table connection; return the reply without its line end. OSError, EOFError."""
    connection.sendall(f"get {key}\n".encode())
    reply = b""
    while not reply.endswith(b"\n"):
        octets = connection.recv(4096)
        if not octets:
            raise EOFError(f"closed after {reply!r}")
        reply += octets
    return reply.decode().rstrip("\n")


def ask(srsd: Srsd, direction: str, key: str) -> str:
    """Ask one question over a connection of its own."""
    with open_connection(srsd, direction) as connection:
        return ask_over(connection, key)


def control(srsd: Srsd, command: str) -> Any:
    """Send a command to the control socket; return the JSON that comes back."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(3 * DEADLINE)
        connection.connect(srsd.unix("control"))
        connection.sendall(json.dumps({"command": command}).encode() + b"\n")
        with connection.makefile() as answers:
            return json.loads(answers.readline())


def client_ports(srsd: Srsd) -> dict[int, set[int]]:
    """Return, for each process of srsd, the ports of the tcp_table clients that are in its hands."""
    ours = {srsd.inet(name)[1] for name in ("srs_forward", "srs_reverse")}
    peers = {}
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        fields = line.split()
        if int(fields[1].split(":")[1], 16) in ours:
            peers[f"socket:[{fields[9]}]"] = int(fields[2].split(":")[1], 16)
    processes = (srsd.pid, *descendants(srsd.pid))
    return {pid: {peers[each] for each in _descriptors(pid) & set(peers)} for pid in processes}


def holder(srsd: Srsd, connection: socket.socket) -> int:
    """Return the process that has the other end of a connection to srsd."""
    port = connection.getsockname()[1]
    (pid,) = [pid for pid, ports in client_ports(srsd).items() if port in ports]
    return pid


def _descriptors(pid: int) -> set[str]:
    targets = set()
    with contextlib.suppress(OSError):  # the process has ended
        for descriptor in os.listdir(f"/proc/{pid}/fd"):
            with contextlib.suppress(OSError):  # closed meanwhile
                targets.add(os.readlink(f"/proc/{pid}/fd/{descriptor}"))
    return targets


def connection_of_each(srsd: Srsd, direction: str = "forward") -> dict[int, socket.socket]:
    """Return one connection to each worker, by its pid. Whoever calls closes them."""
    found: dict[int, socket.socket] = {}
    spare: list[socket.socket] = []

    def complete() -> bool:
        connections = [open_connection(srsd, direction) for _ in range(8)]
        for connection in connections:
            ask_over(connection, ALICE)
        ports = client_ports(srsd)
        for pid in workers(srsd):
            for connection in connections:
                if connection.getsockname()[1] in ports.get(pid, ()):
                    found.setdefault(pid, connection)
        spare.extend(each for each in connections if each not in found.values())
        return set(found) >= set(workers(srsd))

    try:
        until("worker that accepts, of some", complete)
    finally:
        for connection in spare:
            connection.close()
    return found
