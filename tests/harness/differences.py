"""What srsd and dkimpy are asked of alike: messages with the keys that DNS has, changed at random.

Where the answers are not the same, a Difference says which of them is right, and by which section of an RFC.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, NamedTuple

from srsd.resolving import Answer, Outcome
from srsd.syntax.header import HeaderField

if TYPE_CHECKING:
    from collections import Counter
    from collections.abc import Callable, Iterable, Mapping
    from random import Random


def now() -> int:
    """Ask the clock, as dkimpy does by itself, and not when this file was read: the run may be a long one."""
    return int(time.time())


class Case(NamedTuple):
    """A message, and the TXT records by name."""

    fields: list[HeaderField]
    body: bytes
    records: dict[bytes, bytes]

    def __bytes__(self) -> bytes:
        header = b"".join(name + b":" + value + b"\r\n" for name, value in self.fields)
        return header + b"\r\n" + self.body

    def answers(self, names: Iterable[bytes]) -> dict[bytes, Answer]:
        """Answer srsd's questions."""
        answers = {name: Answer(Outcome.NX_DOMAIN) for name in names}
        return answers | {name: Answer(Outcome.FOUND, (record,)) for name, record in self.records.items()}

    def txt(self, name: bytes, **_: object) -> bytes | None:
        """Answer a question of dkimpy's, as its dnsfunc."""
        return self.records.get(name.rstrip(b".").lower())


class Difference(NamedTuple):
    """A class of messages: what it is and who says so, an example, and ours of the example."""

    why: str
    example: Callable[[], Case]
    pass_of_ours: bool
    applies: Callable[[Case], object] = lambda _: False  # to a random message


def hold_same_or_explained(
    case: Case, found: object, theirs: object, differences: Mapping[str, Difference], counts: Counter[str]
) -> None:
    """Hold that both answers are the same, or that a difference explains why not, which is counted."""
    if found == theirs:
        return
    applying = [name for name, difference in differences.items() if difference.applies(case)]
    assert applying, f"ours: {found}, dkimpy: {theirs}, {bytes(case)!r}, {case.records}"
    counts["differed"] += 1
    counts.update(applying)


# Changes of a message.


def swap_fields(random: Random, case: Case) -> Case:
    """Put the fields into another order."""
    fields = [*case.fields]
    random.shuffle(fields)
    return case._replace(fields=fields)


def rename_field(random: Random, case: Case) -> Case:
    """Spell a name in the other case."""
    index = random.randrange(len(case.fields))
    name, value = case.fields[index]
    changed = HeaderField(name.swapcase(), value)
    return case._replace(fields=[*case.fields[:index], changed, *case.fields[index + 1 :]])
