"""A mail host with srsd as its milter: Postfix wired by postfix/milter.cf verbatim, srsd, a name server, and a sink.

    with MilterHost(zones) as host:
        message = host.deliver("alice@pass.example")      # by a stranger, 127.0.0.2
        assert message.field("Authentication-Results") ...

Its name is mx.here.example, its mail domain here.example; whatever it takes ends in the sink.
"""

from __future__ import annotations

import itertools
import json
import re
import shutil
import tomllib
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple, Self

from harness.daemon import Srsd, write_config
from harness.dns_server import DnsServer
from harness.forwarder import FRAGMENTS, USER
from harness.ports import free_port
from harness.postfix import Postfix
from harness.smtp_client import STRANGER, Transaction, send
from harness.smtp_sink import SmtpSink

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

    from harness.smtp_sink import Message

HOSTNAME = "mx.here.example"
BOB = "bob@here.example"
OURS = "127.0.0.1"  # the one client address of the internal network

SITE_MAIN_CF = """
mydestination =
relay_domains = here.example
relay_recipient_maps = inline:{ { bob@here.example = x } { carol@here.example = x } }
hopcount_limit = 1000

"""
_numbers = itertools.count(1)


class Field(NamedTuple):
    """A header field: its name and its value as they stand, line ends within the value included."""

    name: bytes
    value: bytes


class Delivered(NamedTuple):
    """A message as it came to the sink."""

    message: Message

    @property
    def fields(self) -> list[Field]:
        """Its header, from the top. Read by other rules than srsd's: lines, and the first colon of each."""
        header = self.message.content.partition(b"\r\n\r\n")[0]
        lines = re.split(rb"\r\n(?![ \t])", header)
        return [Field(*line.split(b":", 1)) for line in lines]

    @property
    def names(self) -> list[str]:
        """The names of its fields, from the top."""
        return [field.name.decode(errors="backslashreplace") for field in self.fields]

    def all(self, name: str) -> list[str]:
        """Return the values of all fields of a name in any case, unfolded to one blank for each fold."""
        wanted = name.lower().encode()
        return [
            re.sub(rb"\r\n[ \t]+", b" ", field.value).strip().decode(errors="surrogateescape")
            for field in self.fields
            if field.name.strip().lower() == wanted
        ]

    @property
    def results(self) -> list[str]:
        """All Authentication-Results."""
        return self.all("Authentication-Results")

    @property
    def body(self) -> bytes:
        """What stands below the header."""
        return self.message.content.partition(b"\r\n\r\n")[2]


def fragment(name: str) -> tuple[str, list[str]]:
    """Return the text of a file in postfix/, and what its comments tell the admin to write elsewhere.

    That stands behind "#   "; each run of such lines is one text.
    """
    text = (FRAGMENTS / f"{name}.cf").read_text()
    runs = re.findall(r"(?:^#   .*\n)+", text, re.MULTILINE)
    return text, [re.sub(r"^#   ", "", run, flags=re.MULTILINE) for run in runs]


def milter_fragment(wiring: str, places: Mapping[str, str]) -> tuple[str, list[str]]:
    """Return milter.cf for main.cf and the endpoints for [listen] milter; places: documented -> here."""
    text, (toml,) = fragment("milter")
    listen = tomllib.loads(toml)["listen"]["milter"]
    if wiring == "inet":
        listen = tomllib.loads(re.findall(r"in srsd.toml then: (.*)", text)[0])["milter"]
        text = re.sub(r"^srsd_milter = .*", "", text, flags=re.MULTILINE)
        text = text.replace("#srsd_milter = inet", "srsd_milter = inet")
    elif wiring == "long":  # the form with settings of its own
        text = re.sub(r"^srsd_milter = .*", "", text, flags=re.MULTILINE)
        text = text.replace("#srsd_milter = {", "srsd_milter = {")
    for documented, here in places.items():
        text = text.replace(documented, here)
        listen = [endpoint.replace(documented, here) for endpoint in listen]
    return text, listen


class MilterHost:
    """All of it; .srsd alone may be stopped and started between."""

    def __init__(
        self,
        zones: Mapping[tuple[str, str], Any],
        *,
        wiring: str = "unix",
        main_cf: str = "",  # added
        settings: Mapping[str, str] | None = None,  # other values for the fragment's parameters
        master_cf: str = "",
        nameservers: Sequence[str] | None = None,  # others than the host's own
        argv: Sequence[str] | None = None,
        user: str = USER,
        chroot: bool = True,
        site: str = SITE_MAIN_CF,  # which domains are whose
        env: Mapping[str, str] | None = None,  # added to srsd's environment
        **tables: Any,
    ) -> None:
        self.dns = DnsServer(zones)
        self.sink = SmtpSink()
        relay_port = self.sink.port
        self.postfix = Postfix(
            "milter", hostname=HOSTNAME, relay_port=relay_port, master_cf=master_cf, chroot=chroot
        )
        (self.postfix.queue_directory / "srs").mkdir(parents=True)
        places = {
            "127.0.0.1:8891": f"127.0.0.1:{free_port()}",
            "/var/spool/postfix": str(self.postfix.queue_directory),
        }
        text, listen = milter_fragment(wiring, places)
        for name, value in (settings or {}).items():
            text, count = re.subn(rf"^{name} = .*", f"{name} = {value}", text, flags=re.MULTILINE)
            assert count == 1, name
        self.postfix.main_cf = site + text + main_cf
        self._listen = listen
        self._nameservers = nameservers
        self.tables = tables  # of srsd.toml, written at the start
        self._argv = argv
        self._env = env
        self._user = user
        self.ports: dict[str, int] = {}  # of further services, by their names in a test
        self._running = ExitStack()

    def __enter__(self) -> Self:
        with ExitStack() as starting:
            starting.callback(self.postfix.stop)  # also removes the files if something does not start
            starting.enter_context(self.sink)
            starting.enter_context(self.dns)
            self.srsd = Srsd(self._configure(), argv=self._argv, env=self._env)
            starting.enter_context(self.srsd)
            self.postfix.start()
            self._running = starting.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._running.close()

    def _configure(self) -> Path:
        tables = dict(self.tables)
        listen = {"srs_forward": [], "srs_reverse": [], "milter": self._listen, **tables.pop("listen", {})}
        milter = {"internal_networks": [f"{OURS}/32"], **tables.pop("milter", {})}
        dns = {"nameservers": self._nameservers or [str(self.dns)], **tables.pop("dns", {})}
        config = write_config(
            self.postfix.directory / "srsd", user=self._user, listen=listen, milter=milter, dns=dns, **tables
        )
        for path in (config.parent, *config.parent.rglob("*")):
            shutil.chown(path, self._user or "root")  # root binds, the user reads: now and at every reload
        return config

    # What the tests do with it.

    def send(
        self, sender: str, recipient: str = BOB, content: bytes | None = None, *, source: str = STRANGER
    ) -> Transaction:
        """Hand a message over, whatever the answer."""
        return send(self.postfix.address, sender, recipient, content or make_message()[1], source=source)

    def deliver(
        self,
        sender: str,
        extra: Iterable[str | bytes] = (),
        *,
        recipient: str = BOB,
        source: str = STRANGER,
        port: int | None = None,
    ) -> Delivered:
        """Hand over a message that must be taken, with extra lines on top of its header; return it as it left."""
        subject, content = make_message(extra)
        server = ("127.0.0.1", port or self.postfix.port)
        sent = send(server, sender, recipient, content, source=source)
        assert sent.accepted, sent.last
        return self.arrived(subject)

    def arrived(self, subject: str) -> Delivered:
        """Return a message when it comes to the sink."""
        wanted = f"Subject: {subject}\r\n".encode()
        return Delivered(self.sink.wait_for(lambda m: wanted in m.content))

    def arrivals(self, subject: str) -> int:
        """Count how often a message has come to the sink so far."""
        wanted = f"Subject: {subject}\r\n".encode()
        return sum(wanted in message.content for message in list(self.sink.messages))

    def reload(self, **tables: Any) -> None:
        """Give srsd other tables of srsd.toml, for the SMTP sessions to come; those that are not named stay."""
        self.tables |= tables
        self._configure()
        self.srsd.wait_for_log("everything was read again", since=self.srsd.hup())

    def facts(self, wanted: str) -> dict[str, Any]:
        """Return srsd's log line about the message that wanted stands for, such as its sender: JSON is needed."""
        line = self.srsd.wait_for_log(lambda line: wanted in line and '"queue_id": ' in line)
        return json.loads(line)

    def logs(self) -> str:
        """The last lines of both logs, for a failed test's report."""
        postfix = "\n".join(self.postfix.log().splitlines()[-15:])
        srsd = "\n".join(self.srsd.log[-15:])
        return f"Postfix:\n{postfix}\nsrsd:\n{srsd}\n"


def make_message(
    extra: Iterable[str | bytes] = (),
    size: int = 0,
    *,
    author: str | None = "Original Sender <original@header.example>",
) -> tuple[str, bytes]:
    """Make a message with a subject of its own; return the subject and the content.

    author is From; None: there is none.
    """
    subject = f"number {next(_numbers)}."
    lines = [
        *(line if isinstance(line, bytes) else line.encode() for line in extra),
        *([] if author is None else [f"From: {author}".encode()]),
        b"To: <bob@here.example>",
        f"Subject: {subject}".encode(),
        b"Date: Mon, 02 Feb 2026 10:00:00 +0000",
        f"Message-ID: <{subject.split()[1]}1@client.example>".encode(),
        b"",
        b"Hello.",
        *[b"x" * 70] * (size // 72),
    ]
    return subject, b"\r\n".join(lines) + b"\r\n"


@contextmanager
def told(*hosts: MilterHost) -> Iterator[MilterHost]:
    """Print the logs when a test is over: pytest shows them if it failed."""
    try:
        yield hosts[0]
    finally:
        for host in hosts:
            print(host.logs())  # noqa: T201
