"""Replacing secrets without refusing a bounce: what to do next, decided from what is there.

A new secret verifies for a while on every host before it signs; one that no longer signs
verifies until the last address that it made has expired.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import TYPE_CHECKING

from srsd.srs import fingerprint

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from datetime import datetime


@dataclass(frozen=True)
class RotationState:
    """What the file of secrets cannot say of itself, by fingerprint."""

    waiting: dict[str, datetime] = field(default_factory=dict)  # added then, has never signed
    retired: dict[str, datetime] = field(default_factory=dict)  # has not signed since then


@dataclass(frozen=True)
class Rotation:
    """The outcome of one step."""

    secrets: list[bytes]  # in the order of the file
    state: RotationState
    done: list[str]  # what was done, in sentences


def rotate(  # noqa: PLR0913, PLR0917 - two of the values, three of the settings, and the source of secrets
    secrets: Sequence[bytes],
    state: RotationState,
    now: datetime,
    delay: timedelta,
    maximum_age: int,
    make_secret: Callable[[], bytes],
) -> Rotation:
    """Take the next step: add a secret, or have the one that waited long enough sign.

    secrets is not empty, its first one signs; maximum_age is in days. Secrets that retired more
    than maximum_age days ago are dropped on the way. A step that is not due changes nothing, so
    the command may be given twice.
    """
    kept, state, done = _drop_expired(list(secrets), _tidy(secrets, state, now), now, maximum_age)
    waiting = [secret for secret in kept[1:] if fingerprint(secret) in state.waiting]
    if not waiting:
        new = make_secret()
        kept.insert(1, new)
        state = replace(state, waiting={**state.waiting, fingerprint(new): now})
        done.append(
            f"{fingerprint(new)} was added and verifies at once; copy the file to the other hosts, and "
            f"run this again after {_when(now + delay)} to have it sign"
        )
        return Rotation(kept, state, done)
    new = waiting[0]
    due = state.waiting[fingerprint(new)] + delay
    if now < due:
        done.append(f"{fingerprint(new)} verifies, and waits until {_when(due)} before it may sign")
        return Rotation(kept, state, done)
    former = kept[0]
    kept.remove(new)
    kept.insert(0, new)
    state = RotationState(
        {name: since for name, since in state.waiting.items() if name != fingerprint(new)},
        {**state.retired, fingerprint(former): now},
    )
    done.append(
        f"{fingerprint(new)} signs from now on; {fingerprint(former)} still verifies, and is dropped by "
        f"the first run after {_when(now + timedelta(days=maximum_age + 1))}"
    )
    return Rotation(kept, state, done)


def _tidy(secrets: Sequence[bytes], state: RotationState, now: datetime) -> RotationState:
    """Make the state fit the file, which may have been edited or moved meanwhile."""
    first, *others = (fingerprint(secret) for secret in secrets)
    waiting = {name: state.waiting[name] for name in others if name in state.waiting}
    # A secret of unknown history may have signed until just now.
    retired = {name: state.retired.get(name, now) for name in others if name not in waiting and name != first}
    return RotationState(waiting, retired)


def _drop_expired(
    secrets: list[bytes], state: RotationState, now: datetime, maximum_age: int
) -> tuple[list[bytes], RotationState, list[str]]:
    """Drop secrets whose last address has expired; a day more, for stamps have whole days."""
    limit = timedelta(days=maximum_age + 1)
    expired = {name for name, since in state.retired.items() if now - since > limit}
    kept = [secret for secret in secrets if fingerprint(secret) not in expired]
    retired = {name: since for name, since in state.retired.items() if name not in expired}
    done = [f"{name} was dropped: all that it signed has expired" for name in sorted(expired)]
    return kept, replace(state, retired=retired), done


def _when(moment: datetime) -> str:
    return f"{moment:%Y-%m-%d %H:%M} UTC"
