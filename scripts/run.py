"""Start srsd from the checkout on loopback, with everything it needs in ./var ("make run").

The configuration is written once and kept: it is the admin's to edit.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import tomlkit
import tomlkit.exceptions

CHECKOUT = Path(__file__).resolve().parent.parent
VAR = CHECKOUT / "var"
CONFIG = VAR / "srsd.toml"
SRSD = str(Path(sys.executable).with_name("srsd"))
SRSCTL = str(Path(sys.executable).with_name("srsctl"))
NO_DOMAIN = "srs.example.net"  # RFC 2606: nobody's, so a try-out works and no mail can come to harm

NO_DOMAIN_HINT = ", because this host has no full name; set yours: make run SRS_DOMAIN=example.org"

CONFIG_TEXT = """\
# Written by "make run" and kept: edit it, then send srsd a SIGHUP or start it again.
# Every key with its default: .venv/bin/srsctl config example
state_directory = {state}

[listen]
srs_forward = ["inet:127.0.0.1:10001"]
srs_reverse = ["inet:127.0.0.1:10002"]
# socketmap = ["inet:127.0.0.1:10003"]  # the other way to ask: postfix/README.md
control = {control}  # for srsctl status, top and reload

[srs]
domain = {domain}
secrets_file = {secrets}
local_domains = []  # your domains: their senders are not rewritten, e.g. ["example.org", ".example.org"]

[exclude]
file = {exclude}
"""

EXCLUDE_TEXT = """\
# Senders whose mail is not rewritten, one a line; srsd sees a change within two seconds.
# friend@example.com
# @example.com
"""

FORWARD, REVERSE = "127.0.0.1:10001", "127.0.0.1:10002"  # as in CONFIG_TEXT and in the Postfix fragment
FRAGMENT = CHECKOUT / "postfix" / "tcp_table.cf"

GUIDE = """
SRS domain {domain}{hint}
Configuration var/srsd.toml: edit it, then "make run" again

Endpoints
    {forward}  forward, tcp_table(5), for sender_canonical_maps
    {reverse}  reverse, tcp_table(5), for recipient_canonical_maps

Postfix: append to /etc/postfix/main.cf, then "postfix reload"
{main_cf}
  What the lines do, and the same by socketmap: postfix/README.md

Try, in another terminal in this directory
    .venv/bin/srsctl --config var/srsd.toml srs forward alice@example.com
    .venv/bin/srsctl --config var/srsd.toml srs reverse '{rewritten}'
    postmap -q alice@example.com tcp:{forward}

Ctrl-C ends srsd. "Address already in use"? Change [listen] in var/srsd.toml, then "make run" again.
"""


def answer_of(*command: str) -> str:
    """Return what a command prints, or nothing if it is not there, fails or takes long."""
    program = shutil.which(command[0], path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin")
    if program is None:
        return ""
    try:
        done = subprocess.run([program, *command[1:]], capture_output=True, text=True, timeout=5, check=True)
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout.strip()


def host_domain() -> str:
    """Return the SRS domain to begin with: the name of this host, if it has a full one."""
    names = answer_of("postconf", "-h", "myhostname"), answer_of("hostname", "-f")
    return next((name for name in names if "." in name and not name.startswith("localhost")), NO_DOMAIN)


def write_configuration(wanted_domain: str) -> None:
    """Write the configuration and the exclusion file of the first start."""
    paths = {"state": VAR / "state", "secrets": VAR / "srs.secrets", "exclude": VAR / "exclude"}
    values = {name: toml(str(path)) for name, path in paths.items()}
    control = f"unix:{VAR}/control.sock"
    # A socket's path may have 107 octets only: a checkout deeper than that goes without.
    values["control"] = json.dumps([control] if len(control) <= 112 else [])
    CONFIG.write_text(CONFIG_TEXT.format(domain=toml(wanted_domain or host_domain()), **values))
    paths["exclude"].write_text(EXCLUDE_TEXT)


def toml(text: str) -> str:
    """Return text as a TOML string: a JSON string is one, but for DEL."""
    return json.dumps(text, ensure_ascii=False)


def change_domain(wanted_domain: str) -> None:
    """Put a domain that was asked for into a configuration that is kept otherwise."""
    document = tomlkit.parse(CONFIG.read_text())
    document.setdefault("srs", tomlkit.table())["domain"] = wanted_domain
    CONFIG.write_text(tomlkit.dumps(document))


def prepare(wanted_domain: str) -> None:
    """Make ./var and what is missing in it."""
    os.umask(0o077)
    (VAR / "state").mkdir(parents=True, exist_ok=True)
    if not CONFIG.exists():
        write_configuration(wanted_domain)
    elif wanted_domain:
        change_domain(wanted_domain)
    if not (VAR / "srs.secrets").exists():
        subprocess.run([SRSCTL, "--config", CONFIG, "secret", "new"], check=False, stdout=subprocess.DEVNULL)


def first_endpoint(listen: dict[str, list[str]], listener: str, default: str) -> str:
    """Return host:port of a tcp_table listener, as Postfix writes it."""
    return (listen.get(listener) or [default])[0].removeprefix("inet:")


def guide() -> str:
    """Return what to paste and to try, for the configuration as it is now."""
    settings = tomlkit.parse(CONFIG.read_text()).unwrap()
    listen = settings.get("listen", {})
    forward = first_endpoint(listen, "srs_forward", FORWARD)
    reverse = first_endpoint(listen, "srs_reverse", REVERSE)
    lines = [line for line in FRAGMENT.read_text().splitlines() if line and not line.startswith("#")]
    domain = settings.get("srs", {}).get("domain", "")
    return GUIDE.format(
        domain=domain,
        hint=NO_DOMAIN_HINT if domain == NO_DOMAIN else "",
        forward=forward,
        reverse=reverse,
        main_cf="\n".join(f"    {line}" for line in lines)
        .replace(FORWARD, forward)
        .replace(REVERSE, reverse),
        rewritten=answer_of(SRSCTL, "--config", str(CONFIG), "srs", "forward", "alice@example.com"),
    )


def main() -> None:
    """Write what is missing, say how to use it, become srsd."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C before srsd runs: end without a traceback
    os.chdir(CHECKOUT)
    try:
        prepare(os.environ.get("SRS_DOMAIN", ""))
        print(guide(), flush=True)
    except tomlkit.exceptions.TOMLKitError:
        pass  # srsd says better what is wrong in its configuration
    os.execv(SRSD, [SRSD, "--config", str(CONFIG)])


if __name__ == "__main__":
    main()
