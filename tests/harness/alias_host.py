"""A mail host whose users forward: Postfix with aliases of all kinds, srsd with SRS in its milter, and two sinks.

    with AliasHost("hash", virtual={"bob@virtual.example": "bob@far.example"}) as host:
        message = host.deliver("alice@origin.example", recipient="bob@virtual.example")

What leaves ends in .sink, what stays in .mailboxes, which speaks LMTP. here.example is the local domain (aliases of
local(8)), virtual.example and catchall.example are virtual alias domains, mailbox.example has mailboxes.
"""

from __future__ import annotations

import re
import sqlite3
import tomllib
from typing import TYPE_CHECKING, Any, Self

from harness.milter_host import MilterHost, fragment, make_message
from harness.smtp_sink import SmtpSink

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from harness.postfix import Postfix

SRS_DOMAIN = "srs.here.example"
OPTIONAL_LMTP = re.compile(r"^#(?=lmtp_generic_maps)", re.MULTILINE)
SITE = """
mydestination = $myhostname, here.example, srs.here.example, srs2.here.example
local_recipient_maps = $alias_maps inline:{{ {{bob=x}} {{carol=x}} {{dave=x}} }}
alias_maps = hash:{tables}/aliases
virtual_alias_domains = virtual.example, catchall.example
virtual_alias_maps = {virtual}
virtual_mailbox_domains = mailbox.example
virtual_mailbox_maps = static:x
virtual_transport = lmtp:inet:127.0.0.1:{lmtp_port}
mailbox_transport = lmtp:inet:127.0.0.1:{lmtp_port}
lmtp_destination_recipient_limit = 1
recipient_delimiter = +
default_transport = smtp

"""


def table(kind: str, directory: Path) -> str:
    """Name the table of a kind, `type:path`, as main.cf does."""
    path = directory / ("virtual.cf" if kind == "sqlite" else "virtual")
    return f"{kind}:{path}"


def write_table(kind: str, directory: Path, aliases: Mapping[str, str], postfix: Postfix) -> None:
    """Make the table that table() names. For pattern tables the keys are patterns."""
    path = directory / "virtual"
    if kind == "sqlite":
        database = directory / "virtual.sqlite"
        database.unlink(missing_ok=True)
        with sqlite3.connect(database) as connection:
            connection.execute("CREATE TABLE alias (address TEXT PRIMARY KEY, goto TEXT)")
            connection.executemany("INSERT INTO alias VALUES (?, ?)", aliases.items())
        connection.close()
        query = "SELECT goto FROM alias WHERE address = '%s'"
        path.with_suffix(".cf").write_text(f"dbpath = {database}\nquery = {query}\n")
        return
    path.write_text("".join(f"{key} {value}\n" for key, value in aliases.items()))
    if kind in ("hash", "btree", "lmdb", "cdb"):
        postfix.run("postmap", f"{kind}:{path}")


class AliasHost(MilterHost):
    """All of it. In maps mode it is the same host with sender_canonical_maps, as a control."""

    def __init__(
        self,
        kind: str = "hash",
        *,
        virtual: Mapping[str, str] | None = None,
        aliases: Mapping[str, str] | None = None,
        virtual_maps: str = "{virtual}",  # virtual_alias_maps, where there are more
        mode: str = "milter",
        forward_map: bool | None = None,  # whether sender_canonical_maps asks srsd, too
        lmtp_generic: bool = False,
        site: str = "",
        srs: Mapping[str, Any] | None = None,
        zones: Mapping[tuple[str, str], Any] | None = None,
        **options: Any,
    ) -> None:
        self.kind = kind
        self.virtual = dict(virtual or {})
        self.aliases = dict(aliases or {})
        self.mailboxes = SmtpSink(lmtp=True)
        text, (toml,) = fragment("srs_in_milter")
        if lmtp_generic:
            text = OPTIONAL_LMTP.sub("", text)
        if forward_map if forward_map is not None else mode == "maps":
            text += "sender_canonical_maps = socketmap:unix:srs/socketmap:forward\n"
            text += "sender_canonical_classes = envelope_sender\n"
        super().__init__(zones or {}, site="", **options)
        self.tables_directory = self.postfix.directory / "tables"
        here = table(kind, self.tables_directory)
        values = {
            "tables": self.tables_directory,
            "virtual": virtual_maps.replace("{virtual}", here).replace(
                "{tables}", str(self.tables_directory)
            ),
            "lmtp_port": self.mailboxes.port,
        }
        self.postfix.main_cf = SITE.format(**values) + site + self.postfix.main_cf + text
        documented = tomllib.loads(toml)
        listen = {name: places for name, places in documented["listen"].items() if name != "milter"}
        spool = "/var/spool/postfix"
        queue = str(self.postfix.queue_directory)
        self.tables |= {
            "listen": {
                name: [each.replace(spool, queue) for each in places] for name, places in listen.items()
            },
            "srs": {
                **documented["srs"],
                "domain": SRS_DOMAIN,
                "local_domains": ["here.example", "virtual.example", "mailbox.example"],
                "mode": mode,
                **(srs or {}),
            },
        }
        self.env = self._env = {"MAIL_CONFIG": str(self.postfix.directory / "etc")}

    def __enter__(self) -> Self:
        self.mailboxes.__enter__()
        try:
            for directory in (self.postfix.directory / "etc", self.tables_directory):
                directory.mkdir(exist_ok=True)
            self.postfix.write_configuration()
            self.write_tables()
            return super().__enter__()
        except BaseException:
            self.mailboxes.__exit__()
            raise

    def __exit__(self, *exception: object) -> None:
        try:
            super().__exit__(*exception)
        finally:
            self.mailboxes.__exit__()

    def write_tables(self) -> None:
        """Write virtual and aliases as they are now."""
        write_table(self.kind, self.tables_directory, self.virtual, self.postfix)
        path = self.tables_directory / "aliases"
        path.write_text("".join(f"{name}: {value}\n" for name, value in self.aliases.items()))
        self.postfix.run("postalias", f"hash:{path}")

    def stays(self, sender: str, recipient: str) -> str:
        """Hand over a message that stays; return the sender with which it came to the mailbox."""
        return self.ends(sender, recipient, self.mailboxes)

    def leaves(self, sender: str, recipient: str) -> str:
        """Hand over a message that leaves; return the sender with which it left."""
        return self.ends(sender, recipient, self.sink)

    def ends(self, sender: str, recipient: str, sink: SmtpSink, **options: Any) -> str:
        """Hand over a message; return the sender with which it came to a sink."""
        return self.message(sender, recipient, sink, **options).sender

    def message(self, sender: str, recipient: str, sink: SmtpSink, **options: Any) -> Any:
        """Hand over a message; return it as it came to a sink."""
        subject, content = make_message()
        sent = self.send(sender, recipient, content, **options)
        assert sent.accepted, sent.last
        wanted = f"Subject: {subject}\r\n".encode()
        return sink.wait_for(lambda message: wanted in message.content)
