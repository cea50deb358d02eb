"""The services of postfix/submission.cf on free ports, with one login: for hosts whose users submit mail.

with submission_host(zones, login="alice") as host:   # not started yet: whoever calls does that
    with host, logged_in(host, "submission") as client:
        client.sendmail(...)
"""

from __future__ import annotations

import contextlib
import datetime as dt
import smtplib
import ssl
from typing import TYPE_CHECKING, Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from harness.milter_host import HOSTNAME, MilterHost, fragment
from harness.ports import free_port
from harness.sasl_server import SaslServer
from harness.smtp_client import STRANGER

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

PASSWORD = "secret"
MAIN_CF = """
smtpd_sasl_type = dovecot
smtpd_sasl_path = srs/auth
smtpd_tls_chain_files = $config_directory/tls.pem
smtpd_tls_loglevel = 0
"""


@contextlib.contextmanager
def submission_host(
    zones: Mapping[tuple[str, str], Any],
    login: str,
    *,
    main_cf: str = "",
    master_cf: str = "",
    **options: Any,
) -> Iterator[MilterHost]:
    """Make a host, to be started, whose ports has "submission", "submissions" and "originating" (no login)."""
    ports = {name: free_port() for name in ("submission", "submissions", "originating")}
    documented, _ = fragment("submission")
    for name, port in ports.items():
        documented = documented.replace(f"\n{name} inet", f"\n127.0.0.1:{port} inet")
    originating = (
        f"127.0.0.1:{ports['originating']} inet n - y - - smtpd -o milter_macro_daemon_name=ORIGINATING\n"
    )
    host = MilterHost(
        zones, main_cf=MAIN_CF + main_cf, master_cf=f"{documented}{originating}{master_cf}", **options
    )
    host.ports = ports
    etc = host.postfix.directory / "etc"
    etc.mkdir()
    (etc / "tls.pem").write_bytes(_self_signed())
    with SaslServer(host.postfix.queue_directory / "srs/auth", login=login, password=PASSWORD):
        yield host


@contextlib.contextmanager
def logged_in(host: MilterHost, service: str, login: str) -> Iterator[smtplib.SMTP]:
    """Connect from a stranger's address to "submission" or "submissions", and log in."""
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    server: dict[str, Any] = {
        "host": "127.0.0.1",
        "port": host.ports[service],
        "timeout": 60,
        "source_address": (STRANGER, 0),
        "local_hostname": "client.example",
    }
    if service == "submissions":
        client = smtplib.SMTP_SSL(**server, context=context)
    else:
        client = smtplib.SMTP(**server)
    with client:
        if service == "submission":
            client.starttls(context=context)
        client.login(login, PASSWORD)
        yield client


def _self_signed() -> bytes:
    """Make a key and a certificate for smtpd."""
    now = dt.datetime.now(dt.UTC)
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, HOSTNAME)])
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(days=1))
        .not_valid_after(now + dt.timedelta(days=1))
        .sign(key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    private = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    return private + certificate.public_bytes(pem)
