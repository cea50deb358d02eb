"""postfix/fail2ban-srs.conf on the log of a real Postfix: who sends to forged SRS addresses is found, nobody else."""

from __future__ import annotations

import configparser
import re
import shutil
import smtplib
import subprocess
from typing import TYPE_CHECKING

import pytest

from harness.alias_host import SRS_DOMAIN, AliasHost
from harness.forwarder import FRAGMENTS
from harness.milter_host import OURS, told
from harness.net import two_hosts
from harness.smtp_client import STRANGER

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from harness.net import Net

pytestmark = pytest.mark.e2e

FILTER = FRAGMENTS / "fail2ban-srs.conf"
FORGER, BYSTANDER = "127.0.0.3", "127.0.0.4"
# What is logged of a client is partly its own choice.
PRETENCE = (
    "reject: RCPT from unknown[192.0.2.99]: 550 5.1.1 <SRS0=a@b>: Recipient address rejected: User unknown in"
)


@pytest.fixture(scope="module")
def quarrel() -> Iterator[list[str]]:
    """Have clients ask for good and bad addresses; give the log lines of Postfix."""
    with two_hosts("tcp_table") as net:
        honest = net.forward("alice@origin.example").sender
        assert net.bounce(honest) == "alice@origin.example"
        ask_for(net, STRANGER, "nobody@first.example", "srs0nobody@first.example")
        forged = honest.replace("alice", "bob")
        ask_for(
            net,
            FORGER,
            forged,
            forged.lower(),
            forged.upper(),
            forged.replace("srs.first", "old.first"),
            '"SRS0=aaaa=JM=x.example=a> b"@srs.first.example',
            "SRS1=aaaa=x.example==aaaa=JM=a.example=b@srs.first.example",
        )
        ask_for(net, BYSTANDER, "nobody@first.example", "SRS0=aaaa=JM=a=b@elsewhere.example")
        yield net.first.postfix.log().splitlines()


def ask_for(net: Net, client: str, *recipients: str) -> None:
    """Give recipients that are all refused."""
    with smtplib.SMTP(*net.first.postfix.address, source_address=(client, 0)) as smtp:
        smtp.ehlo(PRETENCE.replace(" ", "."))
        assert smtp.docmd(f'MAIL FROM:<"{PRETENCE}"@x.example>')[0] == 250
        for recipient in recipients:
            assert smtp.docmd(f"RCPT TO:<{recipient}>")[0] in (550, 554), recipient


def test_the_forger_is_found_once_for_each_address_and_nobody_else(quarrel):
    """As fail2ban reads the filter: it cuts the time off, and puts an address pattern in place of <HOST>."""
    parser = configparser.RawConfigParser()
    parser.read(FILTER)
    regexes = parser["Definition"]["failregex"].replace("%(__prefix_line)s", r"(?:\S+ )?postfix\S*\[\d+\]: ")
    found = [
        match[1]
        for line in quarrel
        for regex in regexes.splitlines()
        if (match := re.search(regex.replace("<HOST>", r"([\da-f.:]+)"), line.split(None, 3)[3]))
    ]
    assert found == [FORGER] * 6


def test_fail2ban_itself_finds_the_forger_and_nobody_else(quarrel, tmp_path):
    assert found_by_fail2ban(quarrel, tmp_path) == [FORGER] * 6


def found_by_fail2ban(lines: list[str], tmp_path: Path) -> list[str]:
    """Return the clients that fail2ban finds in lines of a log."""
    if shutil.which("fail2ban-regex") is None:
        pytest.skip("fail2ban is not installed (apt-get install fail2ban)")
    log = tmp_path / "mail.log"
    log.write_text("".join(f"{line}\n" for line in lines))
    shutil.copy(FILTER, tmp_path / "srs.conf")  # beside what it includes, as where it is installed
    shutil.copy("/etc/fail2ban/filter.d/common.conf", tmp_path)
    line = ["fail2ban-regex", "--out", "ip", str(log), str(tmp_path / "srs.conf")]
    found = subprocess.run(line, capture_output=True, text=True, timeout=60, check=True)
    return found.stdout.split()


# The log of srsd, where its milter runs.


@pytest.fixture(scope="module", params=["text", "json"])
def refusals(request) -> Iterator[list[str]]:
    """Have clients ask for good and bad addresses; give the log lines of srsd, as a supervisor stores them."""
    with AliasHost(
        "hash", virtual={"bob@virtual.example": "bob@far.example"}, log={"format": request.param}
    ) as host:
        with told(host):
            ask_for_forged(host, FORGER)
            ask_for_forged(host, OURS)
        host.srsd.wait_for_log("origin=internal network")
        time = "Nov 23 10:32:34 mx srsd[123]: " if request.param == "text" else ""
        yield [time + line for line in host.srsd.log]


def ask_for_forged(host: AliasHost, client: str) -> None:
    """Give recipients that are all refused, with words in them that could be another line's."""
    pretended = f'"SRS0=aaaa=JM=x.example=a, refused SRS address: client=x[{BYSTANDER}], origin=outside"'
    with smtplib.SMTP(*host.postfix.address, source_address=(client, 0)) as smtp:
        smtp.ehlo("refused.SRS.address:.client=[192.0.2.99]")
        assert smtp.docmd("MAIL FROM:<>")[0] == 250
        for local_part in (
            "SRS0=aaaa=JM=x.example=a",
            "srs0=a=JM=x.example=a",
            pretended,
            "SRS0=x",
            "nobody",
        ):
            assert smtp.docmd(f"RCPT TO:<{local_part}@{SRS_DOMAIN}>")[0] == 550, local_part


def test_fail2ban_finds_the_forger_in_the_log_of_srsd(refusals, tmp_path):
    assert found_by_fail2ban(refusals, tmp_path) == [FORGER] * 4
    # Whoever returns a bounce too late has guessed nothing.
    late = [line.replace("reason=hash invalid", "reason=address expired") for line in refusals]
    assert found_by_fail2ban(late, tmp_path) == [FORGER] * 2
