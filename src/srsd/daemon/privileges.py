"""Becoming the configured user, once the sockets are bound."""

from __future__ import annotations

import os
import pwd

from srsd.errors import ConfigError, Fault


def find_user(name: str) -> pwd.struct_passwd | None:
    """Give the account that srsd is to become; None when it stays who it is.

    Raises ConfigError for a user that does not exist.
    """
    if not name:
        return None
    try:
        account = pwd.getpwnam(name)
    except (KeyError, ValueError):  # the latter for a NUL
        right = f"would be right: adduser --system --group --no-create-home {name}"
        raise ConfigError([Fault("user", f'there is no user "{name}", {right}')]) from None
    return account


def become(account: pwd.struct_passwd) -> None:
    """Give up root for good: groups first, for they need root.

    Raises ConfigError where srsd is neither root nor that user.
    """
    if os.geteuid() == account.pw_uid:
        return
    if os.geteuid() != 0:
        name = account.pw_name
        raise ConfigError(
            [Fault("user", f'only root can become "{name}", would be right: start as root or as {name}')]
        )
    os.initgroups(account.pw_name, account.pw_gid)
    os.setresgid(account.pw_gid, account.pw_gid, account.pw_gid)
    os.setresuid(account.pw_uid, account.pw_uid, account.pw_uid)


def make_state_directory(path: str, account: pwd.struct_passwd | None) -> None:
    """Make the state directory where it is missing; a failure shows when it is first written to."""
    try:
        os.mkdir(path, 0o750)
        if account is not None and os.geteuid() == 0:
            os.chown(path, account.pw_uid, account.pw_gid)
    except OSError:
        return
