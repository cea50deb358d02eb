"""Return-Path of a delivered message: the reverse-path, and who it stands for where SRS has rewritten it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from srsd.cli.srs import explain_reverse, stored_original
from srsd.daemon.files import Files
from srsd.daemon.log import printable
from srsd.daemon.service import today
from srsd.errors import ConfigError
from srsd.srs import Refusal, is_srs
from srsd.syntax.address import is_null_path, parse_path
from srsd.syntax.header import unfold

if TYPE_CHECKING:
    from srsd.cli.hops import Way
    from srsd.cli.mail import Mail
    from srsd.config import Config

# The hash is right, so it was made here.
_MADE_HERE = (None, Refusal.EXPIRED)


class ReturnPath(NamedTuple):
    """The topmost Return-Path field."""

    path: bytes
    """As whoever delivered the message wrote it (RFC 5321 §4.4), `<a@b>`."""
    trusted: bool
    """Whether it stands above what strangers wrote."""
    sender: bytes
    """The path that the client gave: where our own lookups have rewritten it, what it was before."""
    why: list[str]
    srs: str = ""
    """For an SRS address: "valid", "invalid", "foreign", or "not examined"."""
    original: str | None = None
    """The address that an SRS address of ours stands for, whether it is valid or not."""

    def as_dict(self) -> dict[str, Any]:
        """Give it for JSON."""
        return {
            "text": printable(self.path),
            "trusted": self.trusted,
            "srs": self.srs or None,
            "original": self.original,
            "why": self.why,
        }


def find_return_path(mail: Mail, way: Way, config: Config, config_path: str) -> ReturnPath | None:
    """Examine Return-Path; None where there is none."""
    found = mail.values(b"return-path")
    if not found:
        return None
    place, value = found[0]
    path = unfold(value)
    trusted = place < way.boundary or not way.hops
    address = parse_path(path)
    if address is None:
        why = "the null sender: a bounce, or the like" if is_null_path(path) else "not an address"
        return ReturnPath(path, trusted, path, [why])
    if not is_srs(address.local_part):
        return ReturnPath(path, trusted, path, [])
    plain = ReturnPath(path, trusted, path, [], "foreign")
    if not config.srs.domain:
        return plain._replace(why=["an SRS address, and srs.domain is empty, so not one of ours"])
    return _examine(plain, bytes(address), config_path)


def _examine(plain: ReturnPath, key: bytes, config_path: str) -> ReturnPath:
    """Say what an SRS address stands for, as `srs explain` does."""
    try:
        files = Files(config_path)
    except ConfigError as error:
        why = [f"an SRS address that could not be examined: {line}" for line in error.lines()]
        return plain._replace(srs="not examined", why=why)
    examination = files.make_lookup().examine(key, today())
    if examination is None:
        return plain._replace(why=["an SRS address of another host"])
    refusal, fields = examination.refusal, examination.fields
    why = explain_reverse(examination, files)
    examined = plain._replace(srs="valid" if refusal is None else "invalid", why=why)
    if refusal is not None:
        why.insert(0, refusal.value)
    if fields is not None:
        original = stored_original(fields, files) if fields.stored else bytes(fields.original)
        if original is None:
            return examined
        examined = examined._replace(original=printable(original))
        if refusal in _MADE_HERE:
            examined = examined._replace(sender=b"<" + original + b">")
    return examined
