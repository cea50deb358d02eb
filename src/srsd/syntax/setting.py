"""A configuration key that carries its own documentation and its own check."""

from __future__ import annotations

from dataclasses import field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable


def setting(
    default: Any,  # noqa: ANN401 - the dataclass field that it becomes has the type
    doc: str,
    check: Callable[[Any], str | None] | None = None,
) -> Any:  # noqa: ANN401 - as dataclasses.field
    """Declare a field of a configuration dataclass.

    doc is one or more sentences for the reference. check gets the value and gives None, or
    what is wrong with it and what would be right.
    """
    return field(default=default, metadata={"doc": doc, "check": check})


def between(low: float, high: float) -> Callable[[float], str | None]:
    """Make a check for a number from low to high, both included."""

    def check(value: float) -> str | None:
        if low <= value <= high:
            return None
        return f"is {value}, would be right: a number from {low} to {high}"

    return check
