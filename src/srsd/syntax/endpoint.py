"""Where a server listens: `inet:HOST:PORT` or `unix:PATH[?mode=0660&group=postfix]`."""

from __future__ import annotations

import re
from dataclasses import dataclass

UNIX_PATH_MAXIMUM = 107  # octets, sockaddr_un of Linux
_INET = re.compile(r"inet:(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9.-]+):([0-9]{1,5})")
_UNIX = re.compile(r"unix:(/[^?\0]*)(?:\?(.*))?")
_RIGHT = "would be right: inet:127.0.0.1:10001, inet:[::1]:10001 or unix:/path/socket?mode=0660&group=postfix"


@dataclass(frozen=True)
class InetEndpoint:
    """A TCP address. Port 0 lets the kernel choose."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"inet:[{self.host}]:{self.port}" if ":" in self.host else f"inet:{self.host}:{self.port}"


@dataclass(frozen=True)
class UnixEndpoint:
    """A unix socket and who may connect to it."""

    path: str
    mode: int = 0o660
    group: str = ""  # empty: the group of the process

    def __str__(self) -> str:
        group = f"&group={self.group}" if self.group else ""
        return f"unix:{self.path}?mode={self.mode:04o}{group}"


Endpoint = InetEndpoint | UnixEndpoint


def parse_endpoint(text: str) -> Endpoint:
    """Parse an endpoint. Raises ValueError: what is wrong, and what would be right."""
    inet = _INET.fullmatch(text)
    if inet:
        port = int(inet[2])
        if port > 65535:
            raise ValueError(f'"{text}" has a port above 65535, {_RIGHT}')
        return InetEndpoint(inet[1].strip("[]"), port)
    unix = _UNIX.fullmatch(text)
    if unix is None:
        raise ValueError(f'"{text}" is not an endpoint, {_RIGHT}')
    if len(unix[1].encode()) > UNIX_PATH_MAXIMUM:
        raise ValueError(
            f'"{text}" has a path of more than {UNIX_PATH_MAXIMUM} octets, would be right: a shorter path'
        )
    options = dict(option.partition("=")[::2] for option in (unix[2] or "").split("&") if option)
    mode = options.pop("mode", "0660")
    group = options.pop("group", "")
    if options or not re.fullmatch(r"0?[0-7]{3}", mode):
        raise ValueError(f'"{text}" has an option that is not understood, {_RIGHT}')
    return UnixEndpoint(unix[1], int(mode, 8), group)
