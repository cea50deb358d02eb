"""The log on standard error: lines of text or JSON objects. Supervisors add the time to text lines."""

from __future__ import annotations

import json
import logging
import sys
from datetime import UTC, datetime

_SHOWN_MAXIMUM = 512  # characters of a peer's data in one line

# The ready line is what scripts and people wait for: it appears whatever log.level says.
READY = logging.getLogger("srsd.ready")


class _TextFormatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        record.levelname = record.levelname.lower()
        return super().format(record)


class _JsonFormatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        entry = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "message": record.getMessage(),
        }
        entry |= getattr(record, "facts", {})
        if record.exc_info:
            entry["traceback"] = self.formatException(record.exc_info)
        return json.dumps(entry, ensure_ascii=False)


def set_up_logging(form: str, level: str) -> None:
    """Send the log to standard error, as [log] says. May be called again after a reload."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_JsonFormatter() if form == "json" else _TextFormatter("%(levelname)s: %(message)s"))
    root = logging.getLogger()
    for former in root.handlers[:]:
        root.removeHandler(former)
    root.addHandler(handler)
    root.setLevel(level.upper())
    READY.setLevel(logging.INFO)


def printable(data: bytes) -> str:
    """Show a peer's octets: nothing in them can end the line or steer a terminal."""
    text = data.decode(errors="backslashreplace")
    if not text.isprintable():
        text = "".join(char if char.isprintable() else ascii(char)[1:-1] for char in text)
    return text


def loggable(data: bytes) -> str:
    """Show a peer's octets in a log line, the beginning of them if they are many."""
    text = printable(data[: 4 * _SHOWN_MAXIMUM])
    return text if len(text) <= _SHOWN_MAXIMUM else text[:_SHOWN_MAXIMUM] + "..."
