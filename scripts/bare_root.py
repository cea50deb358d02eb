"""Try the checkout as a new user would, in a bare Debian 12 root made with mmdebstrap ("make bare-root").

Inside: "make run" without python3-venv must say which package to install; with it srsd must start, answer
one lookup and end at Ctrl-C; then "make test", which must leave nothing running. Apt and pip reach their
servers from inside as they do on this machine.

    python3 scripts/bare_root.py              the last commit
    python3 scripts/bare_root.py --worktree   the files as they lie here, committed or not
"""

import argparse
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parent.parent
INSIDE = (
    "root/srsd"  # the checkout: where only root may look, so what srsd reads as another user is found out
)
RELEASE = "bookworm"
NEEDED_FIRST = "make,python3"  # python3-venv comes later: its absence is the first test
START_DEADLINE = 600  # seconds for "make run" to install and get ready
STOP_DEADLINE = 20

# What programs read to find proxies, certificates and package servers.
ENVIRONMENT = re.compile(r"(?i)(https?|ftp|all|no)_proxy|pip_\w+|ssl_cert_\w+|(curl|requests)_ca_bundle")
FILES = (
    "etc/resolv.conf",
    "etc/hosts",
    "etc/pip.conf",
    "etc/xdg/pip",
    "root/.config/pip",
    "root/.pip",
    "etc/ssl/certs/ca-certificates.crt",
    "usr/local/share/ca-certificates",  # from here the package ca-certificates makes that file anew
)
APT_OPTION = re.compile(r'^Acquire::(?:https?|ftp|Check-[\w-]+)\b.* ".+";$', re.MULTILINE)
READY = re.compile(r"srsd \S+ ready: .*srs_forward=inet:([\d.]+):(\d+)")


class UnexpectedError(Exception):
    """Something inside did not do what a new user expects."""


@contextmanager
def timed(what: str) -> Iterator[None]:
    """Say what begins, and how long it took."""
    print(f"== {what}", flush=True)
    start = time.monotonic()
    yield
    print(f"== {what}: {time.monotonic() - start:.1f} s", flush=True)


def output_of(*command: str) -> str:
    """Return what a command prints, run in the checkout."""
    return subprocess.run(command, check=True, capture_output=True, text=True, cwd=CHECKOUT).stdout


def debian_sources() -> list[str]:
    """Return this machine's apt sources of the release, as mmdebstrap takes them; none: its default."""
    form = "$(ORIGIN)|$(REPO_URI)|$(RELEASE)|$(COMPONENT)"
    targets = output_of("apt-get", "indextargets", "--format", form, "Created-By: Packages")
    rows = [line.split("|") for line in targets.splitlines()]
    wanted = [row[1:] for row in rows if row[0] == "Debian" and row[2].startswith(RELEASE)]
    return [f"deb {uri} {suite} {component}" for uri, suite, component in wanted]


def make_root(root: Path) -> None:
    """Make the bare root, with the files and mounts that its programs need."""
    options = APT_OPTION.findall(output_of("apt-config", "dump"))
    command = ["mmdebstrap", "--variant=minbase", f"--include={NEEDED_FIRST}", "--mode=root", "--quiet"]
    command += [f"--aptopt={option}" for option in options]
    subprocess.run([*command, RELEASE, root, *debian_sources()], check=True)
    for name in FILES:
        source, target = Path("/", name), root / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir():
            shutil.copytree(source, target, dirs_exist_ok=True)
        elif source.exists():
            shutil.copyfile(source, target)
    # These mounts live in the mount namespace of this process alone, and end with it.
    for kind, place in (("proc", "proc"), ("tmpfs", "dev/shm"), ("devpts", "dev/pts")):
        (root / place).mkdir(exist_ok=True)
        subprocess.run(["mount", "-t", kind, kind, root / place], check=True)


def copy_checkout(root: Path, *, worktree: bool) -> None:
    """Put the last commit, or the files of the work tree, into the root."""
    (root / INSIDE).mkdir()
    if worktree:
        listed = output_of("git", "ls-files", "-z", "--cached", "--others", "--exclude-standard").split("\0")
        there = [name for name in listed if name and (CHECKOUT / name).exists()]
        pack = subprocess.run(["tar", "-c", *there], check=True, capture_output=True, cwd=CHECKOUT)
    else:
        pack = subprocess.run(["git", "archive", "HEAD"], check=True, capture_output=True, cwd=CHECKOUT)
    subprocess.run(["tar", "-x", "--no-same-owner", "-C", root / INSIDE], check=True, input=pack.stdout)


def inside(root: Path, *command: str) -> list[str]:
    """Return the command that runs a command in the checkout inside, with a fresh environment."""
    passed = [f"{name}={value}" for name, value in os.environ.items() if ENVIRONMENT.fullmatch(name)]
    own = ["HOME=/root", "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"]
    return ["chroot", str(root), "/usr/bin/env", "-i", f"--chdir=/{INSIDE}", *own, *passed, *command]


def run_without_venv(root: Path) -> None:
    """Hold that "make run" says in one line which package is missing."""
    done = subprocess.run(inside(root, "make", "run"), capture_output=True, text=True, check=False)
    print(done.stdout + done.stderr, end="")
    said = [line for line in (done.stdout + done.stderr).splitlines() if not line.startswith("make: ")]
    if done.returncode == 0 or len(said) != 1 or "apt-get install python3-venv" not in said[0]:
        raise UnexpectedError("make run without python3-venv: not the one line that says what to install")


def run_srsd(root: Path) -> None:
    """Run "make run", look one address up, press Ctrl-C."""
    make = subprocess.Popen(
        inside(root, "make", "run"),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    late = threading.Timer(START_DEADLINE, os.killpg, (make.pid, signal.SIGKILL))
    late.start()
    try:
        answer = lookup_when_ready(make)
        os.killpg(make.pid, signal.SIGINT)  # what Ctrl-C sends, to make and to srsd
        rest, _ = make.communicate(timeout=STOP_DEADLINE)
    finally:
        late.cancel()
        if make.poll() is None:
            os.killpg(make.pid, signal.SIGKILL)
    print(rest, end="")
    if not answer.startswith("200 SRS0="):
        raise UnexpectedError(f"the lookup of alice@example.com was answered {answer!r}")
    if "Traceback" in rest or " Error " in rest:  # make says "Error N" if srsd does not end with status 0
        raise UnexpectedError("srsd did not end well at Ctrl-C")


def lookup_when_ready(make: subprocess.Popen[str]) -> str:
    """Print what make says; when srsd is ready, ask it for one address and return its answer."""
    assert make.stdout is not None
    for line in make.stdout:
        print(line, end="", flush=True)
        if ready := READY.search(line):
            with socket.create_connection((ready[1], int(ready[2])), timeout=STOP_DEADLINE) as connection:
                connection.sendall(b"get alice@example.com\n")
                answer = connection.makefile().readline()
            print(f"get alice@example.com -> {answer}", end="", flush=True)
            return answer
    raise UnexpectedError(f"make run ended, or did not get ready within {START_DEADLINE} s")


def left_running(root: Path) -> list[str]:
    """Return the command lines of the processes that live in the root."""
    left = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if (process / "root").readlink() == root:
                left.append((process / "cmdline").read_text().replace("\0", " "))
        except OSError:
            continue  # it ended meanwhile
    return left


def try_in_root(root: Path, *, worktree: bool) -> None:
    """Do all of it, one step after the other."""
    with timed("mmdebstrap"):
        make_root(root)
    copy_checkout(root, worktree=worktree)
    with timed("make run without python3-venv"):
        run_without_venv(root)
    with timed("apt-get install python3-venv"):
        install = "apt-get -qq update && apt-get -qq --yes --no-install-recommends install python3-venv"
        quiet = ("env", "DEBIAN_FRONTEND=noninteractive", "sh", "-c", f"{{ {install}; }} >/dev/null")
        subprocess.run(inside(root, *quiet), check=True)
    with timed("make run"):
        run_srsd(root)
    with timed("make test"):
        done = subprocess.run(inside(root, "make", "test"), stdin=subprocess.DEVNULL, check=False)
    if left := left_running(root):
        raise UnexpectedError("left running:\n" + "\n".join(left))
    if (root / "usr/sbin/policy-rc.d").exists():
        raise UnexpectedError("make test left its policy-rc.d behind")
    if done.returncode:
        raise UnexpectedError(f"make test ended with status {done.returncode}")


def in_namespaces(worktree: bool) -> int:
    """Run try_in_root where its mounts and processes end with it, whatever happens; then remove the root."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # by way of the finally below
    root = Path(tempfile.mkdtemp(prefix="srsd-bare-root-", dir="/var/tmp"))
    root.chmod(0o755)
    command = ["unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"]
    command += [sys.executable, __file__, "--root", str(root)]
    try:
        return subprocess.run([*command, *(["--worktree"] if worktree else [])], check=False).returncode
    except KeyboardInterrupt:
        return 130
    finally:
        shutil.rmtree(root)


def main() -> int:
    """Check what is needed, then do it in namespaces of its own."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--worktree", action="store_true", help="the files as they lie here, committed or not"
    )
    parser.add_argument("--root", type=Path, help=argparse.SUPPRESS)  # set by this script for itself
    arguments = parser.parse_args()
    if os.geteuid() != 0:
        sys.exit("make bare-root needs root: it mounts and enters a root of its own")
    if shutil.which("mmdebstrap") is None:
        sys.exit("make bare-root needs mmdebstrap: apt-get install mmdebstrap")
    if arguments.root is None:
        return in_namespaces(arguments.worktree)
    try:
        try_in_root(arguments.root, worktree=arguments.worktree)
    except (UnexpectedError, subprocess.SubprocessError) as failure:
        print(f"== FAILED: {failure}")
        return 1
    print("== all of it worked")
    return 0


if __name__ == "__main__":
    sys.exit(main())
