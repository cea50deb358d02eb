"""Verifiers of DKIM signatures that are not ours: dkimpy, Perl's Mail::DKIM, and OpenDKIM as a milter.

They ask the name server of a test:

dkimpy(content, dns_port)     # [Judged("here.example", "s1-rsa", "pass"), ...], from the top
mail_dkim(content, dns_port)
with OpenDkim(dns_port) as verifier:
    main_cf = f"smtpd_milters = {verifier.endpoint}\\n"  # it adds Authentication-Results: mx.opendkim.example
"""

from __future__ import annotations

import re
import shutil
import socket
import subprocess
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, Self

import authres
import dkim
import dns.exception
import dns.resolver

from harness.ports import free_port

if TYPE_CHECKING:
    from collections.abc import Iterable

DEADLINE = 20.0  # seconds for a program to start, end or judge
OPENDKIM_ID = "mx.opendkim.example"
PERL = """
use strict; use warnings;
use Mail::DKIM::Verifier; use Mail::DKIM::DNS; use Net::DNS::Resolver;
Mail::DKIM::DNS::resolver(Net::DNS::Resolver->new(
    nameservers => ["127.0.0.1"], port => $ARGV[0], recurse => 1, searchlist => [], defnames => 0));
my $verifier = Mail::DKIM::Verifier->new();
binmode STDIN;
{ local $/; my $content = <STDIN>; $verifier->PRINT($content); }
$verifier->CLOSE;
printf "%s %s %s %s\\n", $_->domain, $_->selector, $_->result, $_->result_detail for $verifier->signatures;
"""
OPENDKIM_CONF = """\
Syslog no
Background no
AutoRestart no
Mode v
Socket inet:{port}@127.0.0.1
AuthservID {authserv_id}
AlwaysAddARHeader yes
InternalHosts 192.0.2.1
ResolverConfiguration {directory}/unbound.conf
"""
UNBOUND_CONF = """\
server:
  do-not-query-localhost: no
  module-config: "iterator"
forward-zone:
  name: "."
  forward-addr: 127.0.0.1@{dns_port}
"""


class Judged(NamedTuple):
    """What a verifier says of one signature."""

    domain: str
    selector: str
    word: str
    detail: str = ""


def why_no_mail_dkim() -> str | None:
    """Return why Perl's Mail::DKIM cannot judge here, or None if it can."""
    modules = ("-MMail::DKIM::Verifier", "-MNet::DNS::Resolver")
    if (
        shutil.which("perl")
        and not subprocess.run(["perl", *modules, "-e", "1"], capture_output=True, check=False).returncode
    ):
        return None
    return "Mail::DKIM is not installed: apt-get install libmail-dkim-perl"


def why_no_opendkim() -> str | None:
    """Return why OpenDKIM cannot judge here, or None if it can."""
    return None if _opendkim() else "OpenDKIM is not installed: apt-get install opendkim"


def _opendkim() -> str | None:
    return shutil.which("opendkim", path="/usr/bin:/usr/sbin")


def dkimpy(content: bytes, dns_port: int) -> list[Judged]:
    """Ask dkimpy."""
    resolver = dns.resolver.Resolver(configure=False)
    resolver.nameservers, resolver.port = ["127.0.0.1"], dns_port

    def txt(name: bytes, timeout: float = DEADLINE) -> bytes | None:
        try:
            answer = resolver.resolve(name.decode(), "TXT", lifetime=timeout)
        except dns.exception.DNSException:
            return None
        return b"".join(answer[0].strings)

    judged = []
    for index in range(
        len([name for name, _ in dkim.DKIM(content).headers if name.lower() == b"dkim-signature"])
    ):
        message = dkim.DKIM(content)
        try:
            word, detail = ("pass" if message.verify(index, dnsfunc=txt) else "fail"), ""
        except dkim.DKIMException as error:
            word, detail = "fail", str(error)
        tags = message.signature_fields
        judged.append(Judged(tags.get(b"d", b"").decode(), tags.get(b"s", b"").decode(), word, detail))
    return judged


def mail_dkim(content: bytes, dns_port: int) -> list[Judged]:
    """Ask Perl's Mail::DKIM. Some versions find every Ed25519 signature "invalid"."""
    done = subprocess.run(
        ["perl", "-e", PERL, str(dns_port)],
        input=content,
        capture_output=True,
        check=True,
        timeout=6 * DEADLINE,
    )
    return [Judged(*line.split(" ", 3)) for line in done.stdout.decode().splitlines()]


def results(fields: Iterable[str], authserv_id: str) -> list[Judged]:
    """Read what a host says of DKIM in the values of Authentication-Results."""
    judged = []
    for value in fields:
        readable = re.sub(r"[^\x00-\x7f]", "x", value)  # authres knows no UTF-8, which smtp.mailfrom may have
        parsed = authres.AuthenticationResultsHeader.parse_value(readable)
        if parsed.authserv_id != authserv_id:
            continue
        for result in parsed.results:
            if result.method == "dkim":
                props = {prop.name: prop.value for prop in result.properties}
                judged.append(
                    Judged(props.get("d", ""), props.get("s", ""), result.result, result.reason or "")
                )
    return judged


class OpenDkim:
    """OpenDKIM in the foreground, by a configuration of its own; it only verifies.

    Give it one message at a time: version 2.11 with libunbound may die of two at once.
    """

    def __init__(self, dns_port: int) -> None:
        self._dns_port = dns_port
        self.port = free_port()

    @property
    def endpoint(self) -> str:
        """What smtpd_milters calls it."""
        return f"inet:127.0.0.1:{self.port}"

    def __enter__(self) -> Self:
        self._directory = Path(tempfile.mkdtemp(prefix="srsd-opendkim-"))
        (self._directory / "unbound.conf").write_text(UNBOUND_CONF.format(dns_port=self._dns_port))
        conf = self._directory / "opendkim.conf"
        conf.write_text(
            OPENDKIM_CONF.format(port=self.port, directory=self._directory, authserv_id=OPENDKIM_ID)
        )
        with open(self._directory / "log", "wb") as log:
            self._process = subprocess.Popen([_opendkim() or "opendkim", "-f", "-x", conf], stderr=log)
        try:
            self._wait_until_it_listens()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        self._process.wait(DEADLINE)
        shutil.rmtree(self._directory)

    def check(self) -> None:
        """Raise RuntimeError if it has ended: all mail behind it would wait in vain."""
        if (status := self._process.poll()) is not None:
            raise RuntimeError(f"OpenDKIM ended by itself, with exit status {status}: a fault of its own")

    def _wait_until_it_listens(self) -> None:
        deadline = time.monotonic() + DEADLINE
        while True:
            try:
                socket.create_connection(("127.0.0.1", self.port), timeout=1).close()
            except ConnectionRefusedError:
                if self._process.poll() is not None or time.monotonic() > deadline:
                    log = (self._directory / "log").read_text(errors="replace")
                    raise RuntimeError(f"OpenDKIM does not listen:\n{log}") from None
                time.sleep(0.02)  # a foreign program: there is nothing to wait on
            else:
                return


def body_altered(content: bytes) -> bytes:
    """Alter a letter of the body."""
    header, _, body = content.partition(b"\r\n\r\n")
    return header + b"\r\n\r\n" + b"!" + body


def field_altered(content: bytes, name: bytes) -> bytes:
    """Add a letter to the first field of a name."""
    altered, count = re.subn(rb"(?im)^(" + re.escape(name) + rb":)", rb"\1 !", content, count=1)
    assert count == 1, name
    return altered
