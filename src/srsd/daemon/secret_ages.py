"""secrets.json in the state directory: since when each secret is known, by fingerprint."""

from __future__ import annotations

import json
import logging
import os
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from srsd.daemon.status import SecretState

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
        return {name: datetime.fromisoformat(entry["first_seen"]) for name, entry in entries.items()}
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
    now = datetime.now(UTC)
    return [
        SecretState(
            fingerprint=fingerprint,
            role="verifies" if index else "signs and verifies",
            first_seen=seen[fingerprint].isoformat() if fingerprint in seen else None,
            age_days=(now - seen[fingerprint]).days if fingerprint in seen else None,
        )
        for index, fingerprint in enumerate(fingerprints)
    ]


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
    """Replace the record in one step, so that a reader never sees half of it."""
    path = os.path.join(state_directory, _FILE)
    entries = {name: {"first_seen": moment.isoformat(timespec="seconds")} for name, moment in seen.items()}
    with open(path + ".new", "w", encoding="utf-8") as file:
        json.dump({"secrets": entries}, file, indent=1)
        file.write("\n")
        file.flush()
        os.fsync(file.fileno())
    os.replace(path + ".new", path)
