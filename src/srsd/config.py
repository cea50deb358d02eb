"""The configuration: frozen dataclasses whose fields carry their documentation and their checks."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from srsd.address_store import StoreParameters
from srsd.filter.authenticate import DkimCheckParameters, SpfCheckParameters
from srsd.filter.chain import ArcCheckParameters
from srsd.filter.forwarding import ForwardingParameters
from srsd.filter.origin import MilterParameters
from srsd.filter.refused import RefusalParameters
from srsd.filter.results import DmarcCheckParameters
from srsd.filter.sealing import SealingParameters
from srsd.filter.signing import SigningParameters
from srsd.filter.verdict import PolicyParameters
from srsd.lookup import LookupParameters
from srsd.resolving import DnsParameters
from srsd.srs import SrsParameters
from srsd.syntax.endpoint import Endpoint, InetEndpoint, UnixEndpoint
from srsd.syntax.setting import setting

if TYPE_CHECKING:
    from collections.abc import Iterable

Workers = int | Literal["auto"]


def _no_unix(endpoints: Iterable[Endpoint]) -> str | None:
    for endpoint in endpoints:
        if isinstance(endpoint, UnixEndpoint):
            return (
                f'"{endpoint}" cannot work: Postfix has no tcp_table(5) over unix sockets, '
                "would be right: inet:127.0.0.1:PORT here, or the unix socket in listen.socketmap"
            )
    return None


def _unix_only(endpoints: Iterable[Endpoint]) -> str | None:
    for endpoint in endpoints:
        if isinstance(endpoint, InetEndpoint):
            return f'"{endpoint}" is open to every user, would be right: unix:/run/srsd/control.sock'
    return None


def _absolute(value: str) -> str | None:
    good = value.startswith("/") and "\0" not in value
    return None if good else f'"{value}" is not absolute, would be right: a path from /'


@dataclass(frozen=True, kw_only=True)
class Listen:
    """Where srsd listens. Each key is a list of endpoints; [] turns it off."""

    srs_forward: tuple[Endpoint, ...] = setting(
        (InetEndpoint("127.0.0.1", 10001),),
        "tcp_table(5) lookups for sender_canonical_maps. Postfix has no unix form of it.",
        _no_unix,
    )
    srs_reverse: tuple[Endpoint, ...] = setting(
        (InetEndpoint("127.0.0.1", 10002),),
        "tcp_table(5) lookups for recipient_canonical_maps. Postfix has no unix form of it.",
        _no_unix,
    )
    socketmap: tuple[Endpoint, ...] = setting(
        (),
        'socketmap_table(5) lookups, inet or unix: the maps "forward" and "reverse", '
        'also called "srsencoder" and "srsdecoder".',
    )
    milter: tuple[Endpoint, ...] = setting(
        (), "The milter, for smtpd_milters and non_smtpd_milters, inet or unix."
    )
    control: tuple[Endpoint, ...] = setting(
        (UnixEndpoint("/run/srsd/control.sock"),),
        "The control socket of srsctl, unix only. Root, the daemon's user and the socket's group may use it.",
        _unix_only,
    )
    metrics: tuple[Endpoint, ...] = setting((), "Counters as Prometheus text, over HTTP at /metrics.")


@dataclass(frozen=True, kw_only=True)
class Srs(RefusalParameters, ForwardingParameters, StoreParameters, SrsParameters, LookupParameters):
    """The Sender Rewriting Scheme."""

    secrets_file: str = setting(
        "/etc/srsd/srs.secrets",
        "File of secrets, one a line: the first signs, all verify. No comments. "
        "It must not be open to others: root:srsd 0640 is good.",
        _absolute,
    )


@dataclass(frozen=True, kw_only=True)
class Exclude:
    """Whose mail is left alone."""

    file: str = setting(
        "/etc/srsd/exclude",
        "The exclusion map, as postmap(1) reads it: `pattern [what is skipped]`. May be absent.",
        _absolute,
    )


@dataclass(frozen=True, kw_only=True)
class Dkim(SigningParameters, DkimCheckParameters):
    """DKIM signatures (RFC 6376): ours on mail that we send, those of others on mail that comes in."""


@dataclass(frozen=True, kw_only=True)
class Arc(SealingParameters, ArcCheckParameters):
    """ARC chains (RFC 8617): those of others, and our own seals."""


@dataclass(frozen=True, kw_only=True)
class Log:
    """The log, on standard error."""

    format: Literal["text", "json"] = setting("text", "One line of text, or one JSON object, for each event.")
    level: Literal["debug", "info", "warning", "error"] = setting(
        "info", "The least that is logged. Rewrites are logged at info."
    )


@dataclass(frozen=True, kw_only=True)
class Config:
    """The whole configuration."""

    workers: Workers = setting(1, 'Processes that share the listeners; "auto": one for each core.')
    state_directory: str = setting(
        "/var/lib/srsd", "Where srsd keeps what it must remember, such as the age of secrets.", _absolute
    )
    user: str = setting(
        "", "The user that srsd becomes after binding its sockets, when it is started as root."
    )
    listen: Listen = field(default_factory=Listen)
    srs: Srs = field(default_factory=Srs)
    exclude: Exclude = field(default_factory=Exclude)
    dns: DnsParameters = field(default_factory=DnsParameters)
    milter: MilterParameters = field(default_factory=MilterParameters)
    dkim: Dkim = field(default_factory=Dkim)
    spf: SpfCheckParameters = field(default_factory=SpfCheckParameters)
    dmarc: DmarcCheckParameters = field(default_factory=DmarcCheckParameters)
    arc: Arc = field(default_factory=Arc)
    policy: PolicyParameters = field(default_factory=PolicyParameters)
    log: Log = field(default_factory=Log)
