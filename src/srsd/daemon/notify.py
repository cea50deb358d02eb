"""Telling a supervisor how things stand, as sd_notify(3) has it."""

from __future__ import annotations

import logging
import os
import socket

_LOG = logging.getLogger(__name__)


def notify(state: str) -> None:
    """Send a state such as READY=1 to $NOTIFY_SOCKET; nothing where there is none."""
    path = os.environ.get("NOTIFY_SOCKET", "")
    if not path:
        return
    address = "\0" + path[1:] if path.startswith("@") else path
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
            sender.sendto(state.encode(), address)
    except OSError as error:
        _LOG.warning("the supervisor could not be told %s: %s", state, error)
