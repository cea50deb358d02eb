"""The facts of one SMTP transaction, as far as they are known when its content begins."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple

from srsd.syntax.address import Address, is_null_path, parse_path

if TYPE_CHECKING:
    from collections.abc import Mapping

    from srsd.filter.origin import Origin, Origins
    from srsd.resolving import IpAddress
    from srsd.wire.milter_session import Envelope

_NAME_MAXIMUM = 255  # octets
_HOST_OCTETS = b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_."


class Transaction(NamedTuple):
    """Who sends what to whom. Octets are as the MTA gave them, which may be as a stranger did."""

    client: IpAddress | None
    client_name: bytes
    helo: bytes
    sender_path: bytes
    null_sender: bool
    sender: Address | None  # None for the null sender, and for what is no address
    utf8: bool  # SMTPUTF8 was asked for (RFC 6531): header fields may hold UTF-8
    recipients: tuple[bytes, ...]
    login: bytes  # b"" unless the client has authenticated
    origin: Origin
    authserv_id: bytes


def make_transaction(
    envelope: Envelope, origins: Origins, authserv_id: bytes, default_authserv_id: bytes
) -> Transaction:
    """Read the facts from what the MTA said. authserv_id is b"" where the macro {j} is to be taken."""
    macros = envelope.macros
    login = login_of(macros)
    client = envelope.client.address
    path = envelope.sender.text
    null_sender = is_null_path(path)
    return Transaction(  # without names, which take a microsecond
        client,
        envelope.client.host,
        envelope.helo,
        path,
        null_sender,
        None if null_sender else parse_path(path),
        any([each.upper() == b"SMTPUTF8" for each in envelope.sender.arguments]),  # noqa: C419 - faster
        tuple([recipient.text for recipient in envelope.recipients]),
        login,
        origins.of(client, macros.get(b"daemon_name", b""), login),
        authserv_id or _authserv_id(macros.get(b"j", b""), default_authserv_id),
    )


def login_of(macros: Mapping[bytes, bytes]) -> bytes:
    """Give the name with which a client has authenticated; b"" where it has not."""
    return macros.get(b"auth_authen") or macros.get(b"auth_type") or b""


def _authserv_id(name: bytes, default: bytes) -> bytes:
    return name if is_authserv_id(name) else default


@lru_cache(maxsize=16)  # a host has one name
def is_authserv_id(name: bytes) -> bool:
    """Tell whether a name can stand for us in Authentication-Results; it needs no quotes then."""
    return 0 < len(name) <= _NAME_MAXIMUM and not name.translate(None, _HOST_OCTETS)
