"""The listening sockets: bound here or handed over by systemd, and taken away at the end."""

from __future__ import annotations

import contextlib
import errno
import grp
import logging
import os
import socket
import stat
from typing import TYPE_CHECKING, NamedTuple

from srsd.config import Listen
from srsd.errors import ConfigError, Fault
from srsd.syntax.endpoint import Endpoint, InetEndpoint, UnixEndpoint

if TYPE_CHECKING:
    from collections.abc import Sequence

_LOG = logging.getLogger(__name__)
BACKLOG = 4096  # connections that the kernel keeps for us; it cuts this to net.core.somaxconn
_FIRST_INHERITED = 3  # sd_listen_fds(3)
TABLES = ("srs_forward", "srs_reverse", "socketmap")
SERVED = (*TABLES, "milter")
_KINDS = (*SERVED, "control", "metrics")
_RUN = "/run"  # emptied at boot, so a directory in it is made anew
# Not the file's fault: it passes, so a supervisor should try again.
_PASSING = (errno.EADDRINUSE, errno.EADDRNOTAVAIL)


class BindError(Exception):
    """An address cannot be had at this moment; the text says which and why."""


class Listener(NamedTuple):
    """One listening socket, what it serves, and the unix socket file that is ours to remove."""

    kind: str
    socket: socket.socket
    path: str = ""
    inode: int = 0

    def __str__(self) -> str:
        address = self.socket.getsockname()
        if self.socket.family == socket.AF_UNIX:
            return f"{self.kind}=unix:{os.fsdecode(address)}"
        return f"{self.kind}={InetEndpoint(address[0], address[1])}"

    def close(self) -> None:
        """Stop listening, and remove the unix socket if it still is the one that was made here."""
        self.socket.close()
        with contextlib.suppress(OSError):
            if self.path and os.lstat(self.path).st_ino == self.inode:
                os.unlink(self.path)


def open_listeners(listen: Listen) -> list[Listener]:
    """Bind, or take over, a socket for each configured endpoint.

    Raises ConfigError for what the admin must mend, BindError for what may pass.
    """
    inherited = _inherited_sockets()
    listeners: list[Listener] = []
    faults: list[Fault] = []
    try:
        for kind in _KINDS:
            for endpoint in getattr(listen, kind):
                try:
                    listeners += _open(kind, endpoint, inherited)
                except (BindError, ConfigError) as error:
                    # Nobody asked for the default control socket: mail goes without it.
                    if kind == "control" and listen.control == Listen().control:
                        _LOG.warning("srsctl status and reload will not work: %s", error)
                    elif isinstance(error, ConfigError):
                        faults += error.faults
                    else:
                        raise
        if inherited:
            names = ", ".join(str(Listener("socket", left)) for left in inherited)
            faults.append(
                Fault("listen", f"{names} was handed over, would be right: the same address in this section")
            )
        if faults:
            raise ConfigError(faults)
    except BaseException:
        for listener in listeners:
            listener.close()
        raise
    return listeners


def _open(kind: str, endpoint: Endpoint, inherited: list[socket.socket]) -> list[Listener]:
    try:
        return _take_or_bind(kind, endpoint, inherited)
    except (OSError, UnicodeError) as error:  # the latter for a host name that is none
        reason = getattr(error, "strerror", None) or str(error)
        if getattr(error, "errno", None) in _PASSING:
            raise BindError(
                f"listen.{kind}: {endpoint}: {reason}; end the process that has it, or choose another"
            ) from None
        raise ConfigError(
            [
                Fault(
                    f"listen.{kind}",
                    f'"{endpoint}" cannot be bound ({reason}), would be right: an address '
                    "or an existing directory that srsd may use",
                )
            ]
        ) from None


def _take_or_bind(kind: str, endpoint: Endpoint, inherited: list[socket.socket]) -> list[Listener]:
    taken = [handed for handed in inherited if _matches(handed, endpoint)]
    if taken:
        for handed in taken:
            inherited.remove(handed)
        return [Listener(kind, handed) for handed in taken]
    if isinstance(endpoint, InetEndpoint):
        return [Listener(kind, bound) for bound in _bind_inet(endpoint)]
    return [_bind_unix(kind, endpoint)]


def _bind_inet(endpoint: InetEndpoint) -> list[socket.socket]:
    sockets: list[socket.socket] = []
    addresses = socket.getaddrinfo(
        endpoint.host, endpoint.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )
    for family, kind, protocol, _, address in dict.fromkeys(addresses):
        bound = socket.socket(family, kind, protocol)
        sockets.append(bound)
        try:
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                bound.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            bound.bind(address)
            bound.listen(BACKLOG)
        except OSError:
            for each in sockets:
                each.close()
            raise
    if not all(_is_loopback(bound) for bound in sockets):
        _LOG.warning("%s is open to the network: whoever reaches it can have addresses signed", endpoint)
    return sockets


def _is_loopback(bound: socket.socket) -> bool:
    host = bound.getsockname()[0]
    return bool(host == "::1" or host.startswith("127."))


def _bind_unix(kind: str, endpoint: UnixEndpoint) -> Listener:
    group = _group_id(kind, endpoint)
    parent = os.path.dirname(endpoint.path)
    if os.path.dirname(parent) == _RUN and not os.path.lexists(parent):
        os.mkdir(parent, 0o755)
    _remove_stale(endpoint.path)
    bound = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    # Nobody gets in before the owner and the mode are what they should be.
    umask = os.umask(0o777)
    try:
        bound.bind(endpoint.path)
    finally:
        os.umask(umask)
    listener = Listener(kind, bound, endpoint.path, os.lstat(endpoint.path).st_ino)
    try:
        if group is not None:
            os.chown(endpoint.path, -1, group)
        os.chmod(endpoint.path, endpoint.mode)
        bound.listen(BACKLOG)
    except OSError:
        listener.close()
        raise
    return listener


def _group_id(kind: str, endpoint: UnixEndpoint) -> int | None:
    if not endpoint.group:
        return None
    try:
        return grp.getgrnam(endpoint.group).gr_gid
    except (KeyError, ValueError):  # the latter for a NUL
        raise ConfigError(
            [
                Fault(
                    f"listen.{kind}", f'there is no group "{endpoint.group}", would be right: an existing one'
                )
            ]
        ) from None


def _remove_stale(path: str) -> None:
    """Remove the socket of a daemon that is gone. Raises OSError when one still answers there."""
    try:
        mode = os.lstat(path).st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(mode):
        raise FileExistsError(errno.EEXIST, "a file that is no socket is there")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            os.unlink(path)
            return
        except BlockingIOError:
            pass  # a full backlog: somebody listens
    raise OSError(errno.EADDRINUSE, os.strerror(errno.EADDRINUSE))


def _inherited_sockets() -> list[socket.socket]:
    """Take over what systemd opened for us (sd_listen_fds(3)); nothing where it did not."""
    count = os.environ.pop("LISTEN_FDS", "")
    if os.environ.pop("LISTEN_PID", "") != str(os.getpid()) or not count.isdigit():
        return []
    os.environ.pop("LISTEN_FDNAMES", None)
    sockets = []
    for descriptor in range(_FIRST_INHERITED, _FIRST_INHERITED + int(count)):
        os.set_inheritable(descriptor, False)
        sockets.append(socket.socket(fileno=descriptor))
    return sockets


def _matches(handed: socket.socket, endpoint: Endpoint) -> bool:
    address = handed.getsockname()
    if isinstance(endpoint, UnixEndpoint):
        return handed.family == socket.AF_UNIX and os.fsdecode(address) == endpoint.path
    if handed.family not in (socket.AF_INET, socket.AF_INET6):
        return False
    known = socket.getaddrinfo(endpoint.host, endpoint.port, type=socket.SOCK_STREAM)
    return any(candidate[4][:2] == address[:2] for candidate in known)


def give_unix_sockets(listeners: Sequence[Listener], uid: int) -> None:
    """Give the sockets made here to the user that srsd becomes, who replaces them at another start."""
    if os.geteuid() != 0:
        return
    for listener in listeners:
        if listener.path:
            os.chown(listener.path, uid, -1)
            parent = os.path.dirname(listener.path)
            if os.path.dirname(parent) == _RUN and os.stat(parent).st_uid == 0:
                os.chown(parent, uid, -1)


def endpoints_line(listeners: Sequence[Listener]) -> str:
    """Name every endpoint, with the port that the kernel chose where 0 was asked for."""
    return " ".join(str(listener) for listener in listeners)
