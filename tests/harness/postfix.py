"""A private Postfix: own configuration, queue, data directory and log, loopback only; needs root, no syslog.

    with Postfix("mx", hostname="mx.example.net", relay_port=sink.port, main_cf=fragment) as mx:
        send(mx.address, "alice@example.com", "bob@example.net", content)

What leaves goes to relay_port on 127.0.0.1, whatever its domain; further parameters, and other values for those
given here, go into main_cf, further services into master_cf.
As in Debian's master.cf every service but the delivery agents and the proxies runs in its chroot.
"""

from __future__ import annotations

import json
import os
import re
import select
import shutil
import signal
import smtplib
import subprocess
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import Self

from harness.ports import free_port

DEADLINE = 60.0  # seconds for a start or a stop; a start takes one or two, on a busy machine more

INSTALL_HINT = "apt-get install postfix"

# No time is lost where a real Postfix takes it: after errors, between queue runs, before a second try.
BASE_MAIN_CF = """\
compatibility_level = 3.6
config_directory = {directory}/etc
queue_directory = {directory}/spool
data_directory = {directory}/data
maillog_file_prefixes = {directory}
maillog_file = {directory}/mail.log
mail_owner = postfix
setgid_group = postdrop
myhostname = {hostname}
mydomain = {hostname}
myorigin = $myhostname
inet_interfaces = 127.0.0.1
inet_protocols = ipv4
mynetworks = 127.0.0.1/32
relayhost = [127.0.0.1]:{relay_port}
smtp_host_lookup = native
smtp_dns_support_level = disabled
smtputf8_enable = yes
alias_maps =
alias_database =
biff = no
in_flow_delay = 0s
smtpd_error_sleep_time = 0s
queue_run_delay = 2s
minimal_backoff_time = 2s
maximal_backoff_time = 4s
smtpd_peername_lookup = no
smtpd_relay_restrictions = permit_mynetworks, reject_unauth_destination
"""

# name, type, private, chroot, wakeup, maxproc, command; the chroot column is Debian's.
MASTER_CF = """\
127.0.0.1:{port} inet n - y - - smtpd
pickup    unix  n - y 60    1 pickup
cleanup   unix  n - y -     0 cleanup
qmgr      unix  n - n 300   1 qmgr
tlsmgr    unix  - - y 1000? 1 tlsmgr
rewrite   unix  - - y -     - trivial-rewrite
bounce    unix  - - y -     0 bounce
defer     unix  - - y -     0 bounce
trace     unix  - - y -     0 bounce
verify    unix  - - y -     1 verify
flush     unix  n - y 1000? 0 flush
proxymap  unix  - - n -     - proxymap
proxywrite unix - - n -     1 proxymap
smtp      unix  - - y -     - smtp
relay     unix  - - y -     - smtp
showq     unix  n - y -     - showq
error     unix  - - y -     - error
retry     unix  - - y -     - error
discard   unix  - - y -     - discard
local     unix  - n n -     - local
virtual   unix  - n n -     - virtual
lmtp      unix  - - y -     - lmtp
anvil     unix  - - y -     1 anvil
scache    unix  - - y -     1 scache
postlog   unix-dgram n - n - 1 postlogd
"""

CHROOTED = re.compile(r"^(\S+\s+\S+\s+\S\s+\S\s+)y", re.MULTILINE)


def why_not() -> str | None:
    """Return why no private Postfix can run here, or None if it can."""
    if shutil.which("postfix", path=os.environ.get("PATH", "") + ":/usr/sbin") is None:
        return f"Postfix is not installed: {INSTALL_HINT}"
    if os.geteuid() != 0:
        return "Postfix must be started by root"
    return None


def last_settings(main_cf: str) -> str:
    """Return the text of a main.cf with the last setting of each parameter only, as Postfix reads it.

    Of the others every program would log a warning. postlogd sends its own to its own socket, before it reads any:
    if ten more datagrams are there already, it waits for itself forever, and whatever logs waits with it.
    """
    settings: dict[str, str] = {}
    name = ""
    for line in main_cf.splitlines():
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        if not line[0].isspace():  # else the value goes on
            name = line.partition("=")[0].strip()
            settings[name] = ""
        settings[name] += f"{line}\n"
    return "".join(settings.values())


class Postfix:
    """One instance in a directory of its own under /tmp, which its end removes."""

    def __init__(
        self,
        name: str,
        *,
        hostname: str,
        relay_port: int,
        main_cf: str = "",
        master_cf: str = "",
        chroot: bool = True,
    ) -> None:
        self.name = name
        self.hostname = hostname
        self.relay_port = relay_port
        self.main_cf = main_cf  # appended to BASE_MAIN_CF at the start
        self.master_cf = master_cf  # more services
        self.chroot = chroot
        self.port = free_port()
        # Readable by the postfix user, as pytest's own temporary directories are not.
        self.directory = Path(tempfile.mkdtemp(prefix=f"srsd-postfix-{name}-"))
        self.directory.chmod(0o755)
        self.queue_directory = self.directory / "spool"

    @property
    def address(self) -> tuple[str, int]:
        """Where its smtpd listens."""
        return "127.0.0.1", self.port

    def __enter__(self) -> Self:
        try:
            return self.start()
        except BaseException:
            self.stop()
            raise

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> Self:
        """Write the configuration, start the master, wait until it logs by postlogd, then for smtpd's greeting."""
        self.write_configuration()
        self.run("postfix", "start")
        self.wait_for_log("daemon started")
        with smtplib.SMTP(*self.address, timeout=DEADLINE):  # it raises unless greeted with 220
            return self

    def write_configuration(self) -> None:
        """Write main.cf and master.cf; the start does it, too."""
        for directory in ("etc", "spool", "data"):
            (self.directory / directory).mkdir(exist_ok=True)
        shutil.chown(self.directory / "data", "postfix")
        values = {"directory": self.directory, "hostname": self.hostname, "relay_port": self.relay_port}
        (self.directory / "etc/main.cf").write_text(
            last_settings(BASE_MAIN_CF.format(**values) + self.main_cf)
        )
        master_cf = MASTER_CF.format(port=self.port) + self.master_cf
        if not self.chroot:
            master_cf = CHROOTED.sub(r"\1n", master_cf)
        (self.directory / "etc/master.cf").write_text(master_cf)

    def stop(self) -> None:
        """End the master, which ends its processes, and remove the directory.

        RuntimeError if not all of them end in time: they are killed then, and the directory stays for a look.
        """
        processes = self._processes()
        master = self._master()
        # Not by `postfix stop`, which logs, and so would wait for a log service that hangs. Without a master it
        # is a start that went wrong.
        for process in [master] if master in processes else processes:
            _signal(process, signal.SIGTERM)
        late = self._wait_for_no_process()
        for process in late:
            _signal(process, signal.SIGKILL)
        if late:
            raise RuntimeError(
                f"Postfix {self.name} did not end within {DEADLINE} s of SIGTERM and was killed: "
                f"{', '.join(late.values())}; see {self.directory}\n{self.log()}"
            )
        shutil.rmtree(self.directory)

    def run(self, program: str, *arguments: str, check: bool = True, stdin: str = "") -> str:
        """Run a Postfix command (postfix, postqueue, postmap, ...) on this instance; return its output."""
        return self._run([program, "-c", str(self.directory / "etc"), *arguments], check=check, stdin=stdin)

    def _run(self, line: list[str], *, check: bool = True, stdin: str = "") -> str:
        environment = {**os.environ, "PATH": os.environ.get("PATH", "") + ":/usr/sbin"}
        environment.pop("MAIL_CONFIG", None)
        done = subprocess.run(
            line,
            input=stdin,
            capture_output=True,
            text=True,
            timeout=DEADLINE,
            check=False,
            env=environment,
            cwd=self.queue_directory,  # where the daemons run: relative socket paths mean the same
        )
        if check and done.returncode != 0:
            output = done.stdout + done.stderr
            raise RuntimeError(f"{' '.join(line)}: exit status {done.returncode}\n{output}{self.log()}")
        return done.stdout

    def flush(self) -> None:
        """Try every message in the queue now."""
        self.run("postqueue", "-f")

    def sendmail(self, *arguments: str, stdin: str) -> None:
        """Hand a message over as local programs do, by Postfix's sendmail(1)."""
        self._run(["sendmail", "-C", str(self.directory / "etc"), *arguments], stdin=stdin)

    def queue(self) -> list[dict]:
        """Return what `postqueue -j` says of each message in the queue."""
        return [json.loads(line) for line in self.run("postqueue", "-j").splitlines()]

    def log(self) -> str:
        """Return the instance's mail log so far."""
        log = self.directory / "mail.log"
        return log.read_text(errors="replace") if log.exists() else ""

    def wait_for_log(self, text: str, since: int = 0) -> None:
        """Wait until text stands in the mail log behind its first `since` characters."""
        deadline = time.monotonic() + DEADLINE
        while text not in self.log()[since:]:
            if time.monotonic() > deadline:
                raise TimeoutError(f"no {text!r} in the mail log within {DEADLINE} s:\n{self.log()[since:]}")
            time.sleep(0.02)  # a file that others write: there is nothing to wait on

    def _master(self) -> int | None:
        """Return the process id that the master wrote down, if there was one."""
        try:
            return int((self.queue_directory / "pid/master.pid").read_text())
        except (FileNotFoundError, ValueError):
            return None

    def _wait_for_no_process(self) -> dict[int, str]:
        """Wait until every process started with our configuration is gone; return what is left after DEADLINE."""
        deadline = time.monotonic() + DEADLINE
        while left := self._processes():
            for process in left:
                if not _wait_for_end(process, deadline - time.monotonic()):
                    return self._processes()
        return {}

    def _processes(self) -> dict[int, str]:
        """Return id and name of each process started with our configuration."""
        ours = f"MAIL_CONFIG={self.directory}/etc".encode()
        found = {}
        for process in Path("/proc").glob("[0-9]*"):
            try:
                environment = (process / "environ").read_bytes().split(b"\0")
                if ours in environment:
                    found[int(process.name)] = f"{process.name} {(process / 'comm').read_text().strip()}"
            except OSError:  # it ended while we looked
                continue
        return found


def _signal(process: int, number: signal.Signals) -> None:
    with suppress(ProcessLookupError):
        os.kill(process, number)


def _wait_for_end(process: int, timeout: float) -> bool:
    """Wait for the end of a process that need not be a child; return whether it came within timeout seconds."""
    try:
        descriptor = os.pidfd_open(process)
    except ProcessLookupError:
        return True
    try:
        return bool(select.select([descriptor], [], [], max(0.0, timeout))[0])
    finally:
        os.close(descriptor)
