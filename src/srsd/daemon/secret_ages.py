"""secrets.json in the state directory: since when each secret is known, by fingerprint."""

from __future__ import annotations

import json
import logging
import os
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from srsd.daemon.atomic_file import write_file
from srsd.daemon.rotation_file import parse_moment, read_rotation
from srsd.daemon.status import SecretState
from srsd.rotation import RotationState

if TYPE_CHECKING:
    from collections.abc import Iterable

_LOG = logging.getLogger(__name__)
_FILE = "secrets.json"


def read_secret_ages(state_directory: str) -> dict[str, datetime]:
    """Give the moment at which each secret was first seen. Empty where there is no record yet.

    Raises OSError or ValueError for a record that cannot be read.
    """
    try:
        with open(os.path.join(state_directory, _FILE), encoding="utf-8") as file:
            entries = json.load(file)["secrets"]
        return {name: parse_moment(entry["first_seen"]) for name, entry in entries.items()}
    except FileNotFoundError:
        return {}
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"not the record of srsd: {error!r}") from None


def describe_secrets(state_directory: str, fingerprints: Iterable[str]) -> list[SecretState]:
    """Describe the secrets of a file, in its order; ages that cannot be read are left out."""
    try:
        seen = read_secret_ages(state_directory)
    except (OSError, ValueError) as error:
        _LOG.warning("%s: the ages of secrets are not known: %s", state_directory, error)
        seen = {}
    try:
        rotation = read_rotation(state_directory)
    except (OSError, ValueError) as error:
        _LOG.warning("%s: %s", state_directory, error)
        rotation = RotationState()
    now = datetime.now(UTC)
    return [
        SecretState(
            fingerprint=fingerprint,
            role=_role(index, fingerprint, rotation),
            first_seen=seen[fingerprint].isoformat() if fingerprint in seen else None,
            age_days=(now - seen[fingerprint]).days if fingerprint in seen else None,
        )
        for index, fingerprint in enumerate(fingerprints)
    ]


def _role(index: int, fingerprint: str, rotation: RotationState) -> str:
    """Say what a secret does at present."""
    if index == 0:
        return "signs and verifies"
    if fingerprint in rotation.waiting:
        return f"verifies, waits to sign since {rotation.waiting[fingerprint]:%Y-%m-%d %H:%M} UTC"
    if fingerprint in rotation.retired:
        return f"verifies, retired {rotation.retired[fingerprint]:%Y-%m-%d %H:%M} UTC"
    return "verifies"


def note_secrets(state_directory: str, fingerprints: Iterable[str], now: datetime | None = None) -> None:
    """Record secrets that were not seen before. Failing to is no reason to stop, and is logged."""
    try:
        seen = read_secret_ages(state_directory)
        unseen = [name for name in fingerprints if name not in seen]
        if unseen:
            seen |= dict.fromkeys(unseen, now or datetime.now(UTC))
            _write(state_directory, seen)
    except (OSError, ValueError) as error:
        _LOG.warning(
            "%s: the ages of secrets cannot be kept there (%s); mail is not affected; "
            "make it a directory that srsd may write to",
            os.path.join(state_directory, _FILE),
            error,
        )


def _write(state_directory: str, seen: dict[str, datetime]) -> None:
    entries = {name: {"first_seen": moment.isoformat(timespec="seconds")} for name, moment in seen.items()}
    text = json.dumps({"secrets": entries}, indent=1).encode() + b"\n"
    write_file(os.path.join(state_directory, _FILE), text, mode=0o640)
