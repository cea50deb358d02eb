"""The configuration: frozen dataclasses whose fields carry their documentation and their checks."""

from __future__ import annotations

from dataclasses import dataclass, field
from ipaddress import ip_network
from typing import TYPE_CHECKING, Literal

from srsd.lookup import LookupParameters
from srsd.srs import SrsParameters
from srsd.syntax.endpoint import Endpoint, InetEndpoint, UnixEndpoint
from srsd.syntax.setting import between, setting

if TYPE_CHECKING:
    from collections.abc import Iterable

Workers = int | Literal["auto"]
PolicyAction = Literal["accept", "tempfail", "quarantine", "reject"]


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


def _networks(value: Iterable[str]) -> str | None:
    for text in value:
        try:
            ip_network(text)
        except ValueError as error:
            return f'"{text}": {error}, would be right: networks such as 192.0.2.0/24 or 2001:db8::/32'
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
    milter: tuple[Endpoint, ...] = setting((), "The milter, for smtpd_milters.", built=False)
    control: tuple[Endpoint, ...] = setting(
        (UnixEndpoint("/run/srsd/control.sock"),),
        "The control socket of srsctl, unix only. Root, the daemon's user and the socket's group may use it.",
        _unix_only,
    )
    metrics: tuple[Endpoint, ...] = setting((), "Counters as Prometheus text, over HTTP at /metrics.")


@dataclass(frozen=True, kw_only=True)
class Srs(SrsParameters, LookupParameters):
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
class Dns:
    """How DNS is asked."""

    nameservers: tuple[str, ...] = setting(
        (), 'Name servers such as "127.0.0.1", "127.0.0.1:5353", "[::1]:53". Empty: resolv.conf.', built=False
    )
    timeout: float = setting(5.0, "Seconds for one lookup with its retries.", between(0.1, 60), built=False)
    message_deadline: float = setting(20.0, "Seconds of DNS for one message.", between(1, 300), built=False)
    cache_size: int = setting(20000, "Answers kept.", between(0, 10_000_000), built=False)


@dataclass(frozen=True, kw_only=True)
class Milter:
    """Whose mail is whose."""

    authserv_id: str = setting("", "Our name in Authentication-Results. Empty: the macro {j}.", built=False)
    internal_networks: tuple[str, ...] = setting(
        ("127.0.0.0/8", "::1/128"), "Clients whose mail is ours.", _networks, built=False
    )
    originating: tuple[str, ...] = setting(
        ("ORIGINATING",),
        "Values of {daemon_name} whose mail is ours, as is that of SASL-authenticated clients.",
        built=False,
    )
    trusted_relays: tuple[str, ...] = setting(
        (),
        "Backup MX and fetchmail hosts: SPF does not check them, DMARC is not enforced.",
        _networks,
        built=False,
    )


@dataclass(frozen=True, kw_only=True)
class Dkim:
    """DKIM signatures."""

    sign: bool = setting(True, "Sign our own mail, where there is a key.", built=False)
    verify: bool = setting(True, "Verify the signatures of other mail.", built=False)
    key_directory: str = setting("/etc/srsd/dkim", "Keys: DOMAIN/SELECTOR.pem.", _absolute, built=False)
    minimum_key_bits: int = setting(1024, "Shorter RSA keys do not pass.", between(1024, 4096), built=False)
    signing_table: str = setting("", "File of signing rules in OpenDKIM's syntax.", built=False)
    login_table: str = setting("", "File that says which login may use which From:.", built=False)
    expiry: int = setting(
        0, "Days until our signatures expire (x=); 0: never.", between(0, 3650), built=False
    )


@dataclass(frozen=True, kw_only=True)
class Spf:
    """SPF checks."""

    verify: bool = setting(True, "Check SPF.", built=False)
    received_spf: bool = setting(False, "Add a Received-SPF field too.", built=False)


@dataclass(frozen=True, kw_only=True)
class Dmarc:
    """DMARC checks."""

    verify: bool = setting(True, "Check DMARC.", built=False)


@dataclass(frozen=True, kw_only=True)
class Arc:
    """ARC chains."""

    verify: bool = setting(True, "Validate ARC chains.", built=False)
    seal: bool = setting(False, "Seal the mail of others that is accepted.", built=False)
    domain: str = setting("", "Who seals, with the key of key_directory/domain.", built=False)
    trusted_sealers: tuple[str, ...] = setting(
        (), "Domains whose seal may override a DMARC failure.", built=False
    )


@dataclass(frozen=True, kw_only=True)
class Policy:
    """What is done with results: accept, tempfail, quarantine or reject. The worst one wins."""

    shadow: bool = setting(True, "Only log what would have happened.", built=False, off=True)
    spf_fail: PolicyAction = setting("accept", "SPF fail of MAIL FROM.", built=False)
    spf_softfail: PolicyAction = setting("accept", "SPF softfail of MAIL FROM.", built=False)
    spf_helo_fail: PolicyAction = setting("accept", "SPF fail of HELO.", built=False)
    spf_permerror: PolicyAction = setting("accept", "A broken SPF record.", built=False)
    dkim_fail: PolicyAction = setting("accept", "Signatures are there and none passes.", built=False)
    dmarc_reject: PolicyAction = setting("accept", "The author domain's policy says reject.", built=False)
    dmarc_quarantine: PolicyAction = setting("accept", "That policy says quarantine.", built=False)
    author_invalid: PolicyAction = setting("accept", "No, several or unparsable From:.", built=False)
    login_mismatch: PolicyAction = setting("accept", "From: against dkim.login_table.", built=False)
    dns_error: PolicyAction = setting(
        "accept", "DNS failed; tempfail only if the missing answer could change the verdict.", built=False
    )
    defer_budget: int = setting(
        100,
        "Deferrals in a row for DNS trouble, for each process; then mail is accepted with temperror.",
        between(0, 1_000_000),
        built=False,
    )


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
    dns: Dns = field(default_factory=Dns)
    milter: Milter = field(default_factory=Milter)
    dkim: Dkim = field(default_factory=Dkim)
    spf: Spf = field(default_factory=Spf)
    dmarc: Dmarc = field(default_factory=Dmarc)
    arc: Arc = field(default_factory=Arc)
    policy: Policy = field(default_factory=Policy)
    log: Log = field(default_factory=Log)
