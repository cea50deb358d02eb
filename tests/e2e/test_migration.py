"""The pages for admins, followed literally: their sh blocks, in order, as they stand.

Each test runs a root shell in namespaces of its own (mount, network, process): /etc, /var, /run, /opt
and /usr/local are private there, and the documented ports are free. The old daemon is Debian's postsrsd
with Debian's files.
Only two programs are stand-ins: systemctl (there is no systemd in there; it starts srsd by the real unit's
sockets, and postsrsd by its init script) and postfix (there is no Postfix running that could reload).
"""

from __future__ import annotations

import itertools
import json
import os
import re
import selectors
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, Self

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

CHECKOUT = Path(__file__).resolve().parents[2]
VECTORS = CHECKOUT.parent / "shared/vectors/srs.json"
DEADLINE = 20.0  # seconds for one block: far above what any takes, so that only a hang fails
DEFAULTS = Path("/usr/share/postsrsd/postsrsd.template")  # becomes /etc/default/postsrsd at installation
NAMESPACES = ["unshare", "--mount", "--net", "--pid", "--fork", "--kill-child", "--mount-proc"]

PRIVATE = """
mount -t tmpfs tmpfs {scratch}
for directory in etc var opt root usr/local; do
    mkdir -p {scratch}/$directory/upper {scratch}/$directory/work
    mount -t overlay overlay /$directory \
        -o lowerdir=/$directory,upperdir={scratch}/$directory/upper,workdir={scratch}/$directory/work
done
mount -t tmpfs tmpfs /run
chmod go+x /root  # a Python of root's own is one that srsd can use only so
{python} -c 'import fcntl, socket, struct
fcntl.ioctl(socket.socket(), 0x8914, struct.pack("16sH14x", b"lo", 1))  # SIOCSIFFLAGS: lo is up'
rm -rf /etc/srsd /var/lib/srsd /etc/systemd/system/srsd.* /var/spool/postfix/srs
[ {venv} = /opt/srsd ] || {{ rm -rf /opt/srsd && ln -s {venv} /opt/srsd; }}
getent passwd srsd >/dev/null && deluser --quiet --system srsd >/dev/null
mkdir -p /etc/postfix /var/spool/postfix
printf '%s\\n' 'compatibility_level = 3.6' 'myhostname = mx.example.org' 'mydomain = example.org' \
    > /etc/postfix/main.cf
touch -d '1 minute ago' /etc/postfix/main.cf  # programs of Postfix wait until it was not written just now
getent group postfix >/dev/null || groupadd --system postfix
PATH={shims}:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
cd {checkout}
"""

SYSTEMCTL = """#!/bin/sh
# Stands in for systemctl: the operations of the pages, on the real unit files.
sockets() { sed -n 's/^ListenStream=//p' /etc/systemd/system/srsd.socket; }
stop_srsd() { kill "$(cat /run/srsd.pid)" && tail -s 0.05 --pid="$(cat /run/srsd.pid)" -f /dev/null; }
start_srsd() {
    set --
    for socket in $(sockets); do set -- "$@" -l "$socket"; done
    [ $# -gt 0 ] || exit 1
    for socket in $(sockets | grep ^/); do mkdir -p "${socket%/*}"; done
    command=$(sed -n 's/^ExecStart=//p' /etc/systemd/system/srsd.service)
    systemd-socket-activate "$@" $command >/run/srsd.log 2>&1 &
    echo $! > /run/srsd.pid
    # Listening, as systemctl's end means for a socket unit.
    until grep -q "Listening on $(sockets | tail -n 1)" /run/srsd.log; do kill -0 $! || exit 1; done
}
case "$*" in
    "daemon-reload") ;;
    "disable --now postsrsd") /etc/init.d/postsrsd stop && update-rc.d postsrsd disable ;;
    "enable --now postsrsd") update-rc.d postsrsd enable && /etc/init.d/postsrsd start ;;
    "enable --now srsd.socket srsd.service") start_srsd ;;
    "restart srsd"|"restart srsd.socket srsd.service") stop_srsd; start_srsd ;;
    "--root=/ "*) exec /usr/bin/systemctl "$@" ;;  # by update-rc.d: links in files, which needs no systemd
    *) echo "systemctl $*: not in the test's stand-in" >&2; exit 1 ;;
esac
"""

POSTFIX = """#!/bin/sh
# Stands in for postfix reload. Programs of Postfix wait until main.cf was not written just now: no need here.
[ "$*" = reload ] && touch -d '1 minute ago' /etc/postfix/main.cf
"""

PFIXTOOLS_INIT = """#!/bin/sh
# Stands in for pfix-srsd, which Debian 12 does not have: PostSRSd has the same protocol, ports and hashes.
### BEGIN INIT INFO
# Provides: pfixtools
# Required-Start: $syslog
# Required-Stop: $syslog
# Default-Start: 2 3 4 5
# Default-Stop: 0 1 6
### END INIT INFO
. /etc/default/pfixtools
case $1 in
    start) postsrsd -s "$SRSD_SECRETS" -d "$SRSD_DOMAIN" -l 127.0.0.1 -u postsrsd -p /run/pfix-srsd.pid -D ;;
    stop) kill "$(cat /run/pfix-srsd.pid)" && tail -s 0.05 --pid="$(cat /run/pfix-srsd.pid)" -f /dev/null ;;
esac
"""

# Made by pfix-srsd 0.9 for fwd.example.net with the secret tops3cr3t. SRS1 has no date: these never expire.
BY_PFIX_SRSD = {
    "SRS1=Nvww=mid.example==HHHH=TT=orig.example=user": "SRS0=HHHH=TT=orig.example=user@mid.example",
    "SRS1=aEzh=mid.example=-HHHH=TT=orig.example=user": "SRS0-HHHH=TT=orig.example=user@mid.example",
}


def why_not() -> str | None:
    """Say why these tests cannot run here; None if they can."""
    if os.geteuid() != 0:
        return "not root: the pages are for root"
    for program, package in (("postsrsd", "postsrsd"), ("postconf", "postfix"), ("adduser", "adduser")):
        if shutil.which(program) is None:
            return f"{program} is not installed (apt-get install {package})"
    if shutil.which("systemd-socket-activate") is None:
        return "systemd-socket-activate is not installed (apt-get install systemd)"
    if not DEFAULTS.exists():
        return f"{DEFAULTS} is missing: postsrsd is not Debian's 1.10"
    probe = """set -e; mount -t tmpfs tmpfs /mnt; mkdir /mnt/u /mnt/w
        mount -t overlay -o lowerdir=/etc,upperdir=/mnt/u,workdir=/mnt/w overlay /etc"""
    command = [*NAMESPACES, "sh", "-c", probe]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    return f"no private namespaces here: {done.stderr.strip()}" if done.returncode else None


WHY_NOT = why_not()
pytestmark = pytest.mark.skipif(WHY_NOT is not None, reason=str(WHY_NOT))


class Block(NamedTuple):
    """One sh block of a page."""

    headings: tuple[str, ...]  # of each level, the nearest last
    text: str


def read_page(name: str) -> list[Block]:
    """Give the sh blocks of a page in docs/, in order."""
    blocks: list[Block] = []
    headings: list[tuple[int, str]] = []
    code: list[str] | None = None
    wanted = False
    for line in (CHECKOUT / "docs" / name).read_text().splitlines():
        if line.startswith("```"):
            if code is not None and wanted:
                blocks.append(Block(tuple(text for _, text in headings), "\n".join(code) + "\n"))
            wanted = line == "```sh" if code is None else False
            code = [] if code is None else None
        elif code is not None:
            code.append(line)
        elif match := re.match(r"(#+) (.*)", line):
            level = len(match[1])
            headings = [*((each, text) for each, text in headings if each < level), (level, match[2])]
    assert code is None, f"{name}: a code block is not closed"
    return blocks


class Shell:
    """A root shell in namespaces of its own. What it starts ends with it."""

    def __init__(self, scratch: Path) -> None:
        shims = scratch / "shims"
        shims.mkdir()
        for name, text in (("systemctl", SYSTEMCTL), ("postfix", POSTFIX)):
            (shims / name).write_text(text)
            (shims / name).chmod(0o755)
        self._process = subprocess.Popen(
            [*NAMESPACES, "bash", "--norc", "-e"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env={"HOME": "/root", "LC_ALL": "C.UTF-8", "PATH": os.environ["PATH"]},
        )
        private = scratch / "private"
        private.mkdir()
        names = {"scratch": private, "shims": shims, "venv": sys.prefix, "python": sys.executable}
        self.run(PRIVATE.format(**names, checkout=CHECKOUT))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        # --kill-child: with unshare its shell ends, which is the first process of its namespace, so all end.
        self._process.kill()
        self._process.communicate(timeout=DEADLINE)

    def run(self, script: str) -> str:
        """Run a script in the shell; gives what it printed. A command that fails is a failure of the test."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        end = b"@@ end of the script @@\n"
        self._process.stdin.write(script.encode() + b"\nprintf '\\n'; echo '" + end[:-1] + b"'\n")
        self._process.stdin.flush()
        output = b""
        limit = time.monotonic() + DEADLINE
        with selectors.DefaultSelector() as selector:
            selector.register(self._process.stdout, selectors.EVENT_READ)
            while not output.endswith(end):
                if not selector.select(max(0.0, limit - time.monotonic())):
                    pytest.fail(f"not done within {DEADLINE} s:\n{script}\nprinted:\n{output.decode()}")
                read = os.read(self._process.stdout.fileno(), 65536)
                if not read:
                    pytest.fail(f"a command failed:\n{script}\nprinted:\n{output.decode()}")
                output += read
        return output.removesuffix(end).removesuffix(b"\n").decode()

    def ask(self, key: str, port: int) -> str:
        """Ask a tcp_table as Postfix does; empty when it does not know the key."""
        return self.run(f"postmap -q '{key}' tcp:127.0.0.1:{port} || [ $? = 1 ]").strip()

    def reverse(self, address: str) -> str:
        """Ask srsctl; gives the original address, or why it is refused."""
        return self.run(f"/opt/srsd/bin/srsctl srs reverse '{address}' 2>&1 || [ $? = 1 ]").strip()


@pytest.fixture
def shell(tmp_path: Path) -> Iterator[Shell]:
    with Shell(tmp_path) as shell:
        yield shell


def follow(shell: Shell, blocks: list[Block]) -> dict[str, list[str]]:
    """Run blocks; gives the lines that they printed, by the nearest heading."""
    printed: dict[str, list[str]] = {}
    for block in blocks:
        lines = [line for line in shell.run(block.text).splitlines() if line]
        printed.setdefault(block.headings[-1], []).extend(lines)
    return printed


def until(blocks: list[Block], heading: str) -> tuple[list[Block], list[Block]]:
    """Split the blocks of a page before the first one under a heading."""
    before = list(itertools.takewhile(lambda block: block.headings[-1] != heading, blocks))
    assert len(before) < len(blocks), f"no sh block under the heading {heading!r}"
    return before, blocks[len(before) :]


def install_postsrsd(shell: Shell, *settings: str) -> None:
    """Make PostSRSd as Debian's package leaves it, then change settings in its file, and start it."""
    changes = "".join(f"printf '%s\\n' {setting} >> /etc/default/postsrsd\n" for setting in settings)
    shell.run(f"""
cp {DEFAULTS} /etc/default/postsrsd
(umask 0077; dd if=/dev/urandom bs=24 count=1 2>/dev/null | base64 -w0 > /etc/postsrsd.secret)
{changes}
/etc/init.d/postsrsd start >/dev/null
""")


def start_with_secrets(shell: Shell, secrets: str) -> None:
    shell.run(f"/etc/init.d/postsrsd stop; printf '{secrets}' > /etc/postsrsd.secret")
    shell.run("/etc/init.d/postsrsd start")


def test_postsrsd_1_as_debian_installs_it(shell):
    install_postsrsd(shell)
    old = shell.ask("bob@example.com", 10001)
    assert re.fullmatch(r"SRS0=\S{4}=\S\S=example\.com=bob@example\.org", old)
    srs1 = shell.ask("SRS0=HHHH=TT=orig.example=user@mid.example", 10001)

    blocks = [block for block in read_page("migrate-postsrsd.md") if block.headings[0] != "PostSRSd 2.x"]
    blocks, way_back = until(blocks, "5. Back")
    printed = follow(shell, blocks)

    assert printed["The secrets"] == ["no blanks at the ends: good"]
    good, made, reversed_ = printed["2. Compare"]
    assert good == "/etc/srsd/srsd.toml: good"
    assert (made.startswith("SRS0="), reversed_) == (True, "alice@example.com")
    new, back = printed["4. Switch"][-2:]
    assert re.fullmatch(r"SRS0=.*=example\.com=alice@example\.org", new)
    assert back == "alice@example.com"
    # Mail in flight: what the old daemon made, srsd reverses, in the letters of its days and in lower case.
    assert shell.ask(old, 10002) == "bob@example.com"
    assert shell.ask(old.lower(), 10002) == "bob@example.com"
    assert shell.ask(srs1, 10002) == "SRS0=HHHH=TT=orig.example=user@mid.example"
    assert shell.ask("nobody@example.org", 10001) == ""

    # An address that PostSRSd 1 does not read: srsd stays for it.
    signed = (shell.ask(f"user{number}@example.com", 10001) for number in range(300))
    unsafe = next(address for address in signed if set("-_") & set(address[5:9]))
    original = shell.ask(unsafe, 10002)
    follow(shell, way_back)
    assert shell.ask(unsafe, 10002) == ""
    assert shell.ask(unsafe, 10012) == original
    assert shell.ask(old, 10002) == "bob@example.com"
    maps = shell.run("postconf -h recipient_canonical_maps").strip()
    assert maps == "tcp:127.0.0.1:10002, tcp:127.0.0.1:10012"


def test_postsrsd_1_with_settings_of_its_own(shell):
    install_postsrsd(
        shell,
        "SRS_DOMAIN=srs.example.org",
        """'SRS_EXCLUDE_DOMAINS=".example.org, example.org other.example"'""",
        "SRS_SEPARATOR=+",
        "SRS_HASHLENGTH=6",
        "SRS_HASHMIN=5",
    )
    old = shell.ask("bob@example.com", 10001)
    assert re.fullmatch(r"SRS0\+\S{6}=\S\S=example\.com=bob@srs\.example\.org", old)
    blocks = [block for block in read_page("migrate-postsrsd.md") if block.headings[0] != "PostSRSd 2.x"]
    follow(shell, until(blocks, "5. Back")[0])
    shown = json.loads(shell.run("/opt/srsd/bin/srsctl config show --json"))["srs"]
    expected = {
        "domain": "srs.example.org",
        "local_domains": [".example.org", "example.org", "other.example"],
        "separator": "+",
        "hash_length": 6,
        "hash_minimum": 5,
    }
    assert {name: shown[name] for name in expected} == expected
    assert shell.ask(old, 10002) == "bob@example.com"
    assert re.fullmatch(r"SRS0\+\S{6}=.*", shell.ask("bob@example.com", 10001))
    assert shell.ask("bob@mail.example.org", 10001) == ""


def test_a_secret_of_postsrsd_with_a_blank_is_found_and_why_it_matters(shell):
    install_postsrsd(shell)
    start_with_secrets(shell, "one \\ntwo\\n")
    old = shell.ask("bob@example.com", 10001)
    blocks = [block for block in read_page("migrate-postsrsd.md") if block.headings[0] != "PostSRSd 2.x"]
    printed = follow(shell, until(blocks, "2. Compare")[0])
    assert printed["The secrets"] == ["1:one "]
    assert shell.reverse(old).endswith("left as it is: hash invalid")
    # Two secrets that differ in a blank are not the same for PostSRSd: the one without is.
    start_with_secrets(shell, "one\\n")
    assert shell.reverse(shell.ask("bob@example.com", 10001)) == "bob@example.com"


def test_postsrsd_2(shell):
    """There is no PostSRSd 2 in Debian 12: its secrets, its socket and main.cf, but no daemon."""
    shell.run("printf 'tops3cr3t\\n' > /etc/postsrsd.secret")
    shell.run("python3 -c 'import socket; socket.socket(socket.AF_UNIX).bind(\"/var/spool/postfix/srs\")'")
    blocks = [block for block in read_page("migrate-postsrsd.md") if block.headings[0] != "PostSRSd 1.x"]
    printed = follow(shell, blocks)
    assert printed["1. Write the configuration"] == ["/etc/srsd/srsd.toml: good"]
    new, back = printed["3. Switch to srsd"][-2:]
    assert (new.endswith("=alice@srs.example.org"), back) == (True, "alice@example.com")
    sender_maps = shell.run("postconf -h sender_canonical_maps").strip()
    # The path is relative to the queue directory, where every daemon of Postfix runs.
    asked = shell.run(f"cd /var/spool/postfix && postmap -q alice@example.com {sender_maps}; cd - >/dev/null")
    assert asked.strip() == new


def pfix_srsd(shell: Shell, secrets: str) -> None:
    """Make the files of a pfix-srsd set-up, and start what stands in for it."""
    shell.run(f"""
mkdir -p /etc/pfixtools
cat > /etc/default/pfixtools <<'END'
SRSD_ENABLE="yes"
SRSD_SECRETS="/etc/pfixtools/srsd.secrets"
SRSD_DOMAIN="fwd.example.net"
SRSD_OPTIONS=""
END
printf '{secrets}' > /etc/pfixtools/srsd.secrets
cat > /etc/postfix/pfix-no-srs.cf <<'END'
@friend.example    @friend.example
carol@example.com  carol@example.com
END
cat > /etc/init.d/pfixtools <<'END'
{PFIXTOOLS_INIT}
END
chmod 0755 /etc/init.d/pfixtools
update-rc.d pfixtools defaults
postconf -e 'sender_canonical_maps = hash:/etc/postfix/pfix-no-srs.cf, tcp:127.0.0.1:10001'
postfix reload
/etc/init.d/pfixtools start
""")


def test_pfix_srsd(shell):
    pfix_srsd(shell, "tops3cr3t\\nold-s3cr3t\\n")
    old = shell.ask("bob@example.com", 10001)
    assert old.endswith("=example.com=bob@fwd.example.net")
    blocks, way_back = until(read_page("migrate-pfix-srsd.md"), "Back")
    printed = follow(shell, blocks)
    assert printed["2. The secrets"] == ["no empty line: good"]
    assert printed["4. Compare"][-1] == "alice@example.com"
    assert "alice@example.com" in printed["6. Switch"]
    assert shell.ask(old, 10002) == "bob@example.com"
    for address, original in {**BY_PFIX_SRSD, **vectors_of_pfix_srsd()}.items():
        assert shell.reverse(f"{address}@fwd.example.net") == original, address
    assert shell.ask("dave@friend.example", 10001) == ""  # by the map that Postfix had
    assert shell.ask("carol@example.com", 10001) == ""
    assert shell.run("postconf -h sender_canonical_maps").strip() == "tcp:127.0.0.1:10001"
    follow(shell, way_back)
    assert shell.ask(old, 10002) == "bob@example.com"
    assert shell.ask(old, 10012) == "bob@example.com"


def vectors_of_pfix_srsd() -> dict[str, str]:
    """Give more addresses that pfix-srsd made, where the file of vectors is; SRS1 only: the others expire."""
    if not VECTORS.exists():
        return {}
    found = {}
    for vector in json.loads(VECTORS.read_text())["vectors"]:
        made = vector["results"].get("pfix-srsd", {}).get("output", "")
        asked = (vector["op"], vector["alias"], vector["secrets"][0], vector["input"][:5])
        if asked == ("forward", "fwd.example.net", "tops3cr3t", "SRS0=") and made.startswith("SRS1="):
            found[made.partition("@")[0]] = vector["input"]
    return found


def test_an_empty_secret_of_pfix_srsd_is_found_and_not_taken_over(shell):
    pfix_srsd(shell, "tops3cr3t\\n\\n \\n")
    printed = follow(shell, until(read_page("migrate-pfix-srsd.md"), "4. Compare")[0])
    assert printed["2. The secrets"] == ["2:", "3: "]
    # What everybody can make: base64(HMAC-SHA1("", "mid.example=HHHH=TT=orig.example=user")).
    forged = "SRS1=IsZg=mid.example==HHHH=TT=orig.example=user@fwd.example.net"
    assert shell.reverse(forged).endswith("left as it is: hash invalid")
    assert len(json.loads(shell.run("/opt/srsd/bin/srsctl secret list --json"))) == 1


def test_the_commands_of_operations(shell):
    """All blocks but pip's, which needs a network. systemd's come first: they start srsd."""
    shell.run("""
install -d /etc/srsd
adduser --quiet --system --group --no-create-home --home /var/lib/srsd srsd
install -d -m 0750 -o srsd -g srsd /var/lib/srsd
cat > /etc/srsd/srsd.toml <<'END'
user = "srsd"
[listen]
socketmap = ["unix:/var/spool/postfix/srs/socketmap"]
metrics = ["inet:127.0.0.1:9325"]
[srs]
envelope = "auto"
domain = "srs.example.org"
END
/opt/srsd/bin/srsctl secret new
PATH=$PATH:/opt/srsd/bin
""")
    blocks = [block for block in read_page("operations.md") if block.headings[-1] != "Upgrade"]
    start = [block for block in blocks if block.headings[-1] == "systemd"]
    follow(shell, start)
    # The sockets are there before srsd: it starts with the first lookup.
    old = shell.ask("alice@example.com", 10001)
    assert shell.ask(old, 10002) == "alice@example.com"
    printed = follow(shell, [block for block in blocks if block not in start])
    assert printed["Status"][-1].endswith("everything was read again")
    assert 'srsd_info{version="0.1.0"} 1.0' in printed["Metrics"]
    assert any(line.endswith("etc/srsd/srs.secrets") for line in printed["Backup"])
    assert any("was added and verifies at once" in line for line in printed["New secrets"])
    assert any("signs from now on" in line for line in printed["New secrets"])
    assert shell.reverse(old) == "alice@example.com"
    shown = shell.run("MANPATH=/usr/local/share/man man -w srsd.toml srsctl srsd").split()
    assert [Path(each).name for each in shown] == ["srsd.toml.5", "srsctl.1", "srsd.8"]
    assert "_SRSCTL_COMPLETE" in shell.run("cat /etc/bash_completion.d/srsctl")
