"""srsd with everything around it that a test of workers, control or metrics needs.

with running(workers=2) as srsd:
    assert ask(srsd, "forward", "alice@origin.example").startswith("200 ")
    workers(srsd)  # the processes that answer

The end of the block checks that srsd ends with status 0, left no process, and logged no traceback.
"""

from __future__ import annotations

import json
import os
import shutil
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
    finally:
        if srsd.returncode is None and srsd.endpoints:
            srsd.kill()
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


def soon_frozen(seconds: int) -> str:
    """Return the line for patched() that shortens the time until a silent worker is replaced."""
    return f"import srsd.daemon.supervisor as supervisor; supervisor.FROZEN_SECONDS = {seconds}"


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


def holders(srsd: Srsd, connection: socket.socket) -> list[int]:
    """Return the processes of srsd that have the other end of a connection to it."""
    ours, theirs = connection.getsockname(), connection.getpeername()
    wanted = f"{_address(theirs)} {_address(ours)}"
    inode = ""
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        fields = line.split()
        if f"{fields[1]} {fields[2]}" == wanted:
            inode = f"socket:[{fields[9]}]"
    return [pid for pid in (srsd.pid, *descendants(srsd.pid)) if inode in _descriptors(pid)]


def _address(pair: tuple[str, int]) -> str:
    octets = socket.inet_aton(pair[0])
    return f"{int.from_bytes(octets, sys.byteorder):08X}:{pair[1]:04X}"


def _descriptors(pid: int) -> set[str]:
    targets = set()
    for descriptor in Path(f"/proc/{pid}/fd").iterdir():
        try:
            targets.add(os.readlink(descriptor))
        except OSError:
            continue  # closed meanwhile
    return targets


def connection_of_each(srsd: Srsd, direction: str = "forward") -> dict[int, socket.socket]:
    """Return one connection to each worker, by its pid. Whoever calls closes them."""
    found: dict[int, socket.socket] = {}
    spare = []
    end = time.monotonic() + DEADLINE
    while set(workers(srsd)) - set(found) and time.monotonic() < end:
        connection = open_connection(srsd, direction)
        ask_over(connection, ALICE)
        (pid,) = holders(srsd, connection)
        if found.setdefault(pid, connection) is not connection:
            spare.append(connection)  # kept, so that a busier worker leaves the next one to others
    for connection in spare:
        connection.close()
    assert set(found) == set(workers(srsd)), "not every worker accepts connections"
    return found
