"""A mail host that forwards: a private Postfix and its srsd, wired by a fragment of postfix/ verbatim.

    aliases = {"bob@first.example": "bob@far.example"}
    with SmtpSink() as sink, Forwarder("first", "tcp_table", aliases=aliases, relay_port=sink.port) as first:
        send(first.postfix.address, "alice@origin.example", "bob@first.example", content)

A host NAME has the mail domain NAME.example, the SRS domain srs.NAME.example and the former SRS domain
old.NAME.example.
"""

from __future__ import annotations

import re
import shutil
import tomllib
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Self

from harness.daemon import Srsd, write_config
from harness.ports import free_port
from harness.postfix import Postfix

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

FRAGMENTS = Path(__file__).parents[2] / "postfix"
USER = "nobody"  # who srsd becomes after it has bound its sockets
WIRINGS = ("tcp_table", "socketmap")
OPTIONAL_LINE = re.compile(r"^#(?=[a-z_]+ = )", re.MULTILINE)  # a parameter that is commented out

SITE_MAIN_CF = """
mydestination = $myhostname, {srs_domain}
local_recipient_maps = inline:{{ {{ root = root }} }}
virtual_alias_domains = {domain}, {old_srs_domain}
virtual_alias_maps = texthash:$config_directory/virtual
transport_maps = texthash:$config_directory/transport
smtpd_reject_unlisted_sender = yes

"""


def fragment(wiring: str) -> tuple[str, dict[str, list[str]]]:
    """Return a fragment's text and the [listen] table that its comment tells the admin to write."""
    text = (FRAGMENTS / f"{wiring}.cf").read_text()
    lines = [line.removeprefix("#   ") for line in text.splitlines() if line.startswith("#   ")]
    return text, tomllib.loads("\n".join(lines))["listen"]


class Forwarder:
    """Postfix and srsd of one host; start and stop them together, or the daemon alone by .srsd."""

    def __init__(
        self,
        name: str,
        wiring: str,
        *,
        relay_port: int,
        aliases: Mapping[str, str],
        exclude: str = "",
        secrets: Sequence[str] = ("tests-only secret",),
        optional_lines: bool = False,
        chroot: bool = True,
        main_cf: str = "",
    ) -> None:
        self.name = name
        self.wiring = wiring
        self.domain, self.srs_domain, self.old_srs_domain = (
            f"{prefix}{name}.example" for prefix in ("", "srs.", "old.")
        )
        self.postfix = Postfix(name, hostname=f"mx.{name}.example", relay_port=relay_port, chroot=chroot)
        self.aliases = aliases
        self.routes: dict[str, int] = {}  # domain -> port on 127.0.0.1, where not relay_port
        text, listen = fragment(wiring)
        # The documented defaults that cannot be kept here: two ports and the queue directory.
        places = {
            "127.0.0.1:10001": f"127.0.0.1:{free_port()}",
            "127.0.0.1:10002": f"127.0.0.1:{free_port()}",
            "/var/spool/postfix": str(self.postfix.queue_directory),
        }
        for documented, ours in places.items():
            text = text.replace(documented, ours)
            listen = {
                key: [e.replace(documented, ours) for e in endpoints] for key, endpoints in listen.items()
            }
        if optional_lines:
            text = OPTIONAL_LINE.sub("", text)
        domains = {
            "domain": self.domain,
            "srs_domain": self.srs_domain,
            "old_srs_domain": self.old_srs_domain,
        }
        self.postfix.main_cf = SITE_MAIN_CF.format(**domains) + text + main_cf
        (self.postfix.queue_directory / "srs").mkdir(parents=True)
        self.config = write_config(
            self.postfix.directory / "srsd",
            secrets=secrets,
            exclude=exclude,
            user=USER,
            listen=listen,
            srs={
                "domain": self.srs_domain,
                "previous_domains": [self.old_srs_domain],
                "local_domains": [self.domain, f".{self.domain}"],
            },
        )
        for path in (self.config.parent, *self.config.parent.rglob("*")):
            shutil.chown(path, USER)  # root binds, the user reads: now and at every reload
        self.srsd = Srsd(self.config)
        self._running = ExitStack()

    @property
    def exclude_file(self) -> Path:
        """The exclusion map that srsd reads."""
        return self.config.with_name("exclude")

    def __enter__(self) -> Self:
        with ExitStack() as starting:
            etc = self.postfix.directory / "etc"
            etc.mkdir()
            (etc / "virtual").write_text("".join(f"{key} {value}\n" for key, value in self.aliases.items()))
            routes = (f"{domain} smtp:[127.0.0.1]:{port}\n" for domain, port in self.routes.items())
            (etc / "transport").write_text("".join(routes))
            starting.callback(self.postfix.stop)  # also removes the files if srsd does not start
            starting.enter_context(self.srsd)
            self.postfix.start()
            self._running = starting.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._running.close()
