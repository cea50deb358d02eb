"""Whose mail it is: ours to send, handed on by a relay that we trust, or a stranger's."""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from srsd.syntax.network import NetworkSet
from srsd.syntax.setting import setting

if TYPE_CHECKING:
    from collections.abc import Iterable

    from srsd.resolving import IpAddress


def _check_networks(value: Iterable[str]) -> str | None:
    for text in value:
        try:
            NetworkSet([text])
        except ValueError as error:
            return f'"{text}": {error}, would be right: networks such as 192.0.2.0/24 or 2001:db8::/32'
    return None


def _check_authserv_id(value: str) -> str | None:
    if re.fullmatch(r"[A-Za-z0-9_.-]{0,255}", value):
        return None
    return f'"{value}" is no host name, would be right: a name such as mx.example.org'


@dataclass(frozen=True, kw_only=True)
class MilterParameters:
    """Whose mail is whose."""

    authserv_id: str = setting(
        "",
        "Our name in Authentication-Results (RFC 8601). Hosts that trust each other's results may share "
        "one. Empty: the macro {j}, which is Postfix's myhostname.",
        _check_authserv_id,
    )
    internal_networks: tuple[str, ...] = setting(
        ("127.0.0.0/8", "::1/128"),
        "Clients whose mail is ours: it is not checked, and gets no Authentication-Results.",
        _check_networks,
    )
    originating: tuple[str, ...] = setting(
        ("ORIGINATING",),
        "Values of {daemon_name} whose mail is ours, as is that of SASL-authenticated clients. "
        "Postfix: -o milter_macro_daemon_name=ORIGINATING.",
    )
    trusted_relays: tuple[str, ...] = setting(
        (),
        "Backup MX and fetchmail hosts: SPF does not check them, DMARC is not enforced.",
        _check_networks,
    )


class Origin(StrEnum):
    """Where a message comes from. The value is what an admin reads."""

    INTERNAL = "internal network"
    AUTHENTICATED = "authenticated client"
    ORIGINATING = "originating service"
    TRUSTED_RELAY = "trusted relay"
    OUTSIDE = "outside"

    @property
    def ours(self) -> bool:
        """Tell whether the message is ours to send."""
        return self not in _OF_OTHERS


_OF_OTHERS = (Origin.TRUSTED_RELAY, Origin.OUTSIDE)


class Origins:
    """Decides whose mail it is."""

    def __init__(self, parameters: MilterParameters) -> None:
        self._internal = NetworkSet(parameters.internal_networks)
        self._relays = NetworkSet(parameters.trusted_relays)
        self._daemon_names = frozenset(name.encode() for name in parameters.originating)

    def of(self, client: IpAddress | None, daemon_name: bytes, login: bytes) -> Origin:
        """Tell the origin of mail. A client without an address is never internal."""
        if login:
            return Origin.AUTHENTICATED
        if daemon_name and daemon_name in self._daemon_names:
            return Origin.ORIGINATING
        if client in self._internal:
            return Origin.INTERNAL
        if client in self._relays:
            return Origin.TRUSTED_RELAY
        return Origin.OUTSIDE
