"""What a milter and an MTA agree upon before anything else (SMFIC_OPTNEG)."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, Protocol

from srsd.errors import ProtocolError
from srsd.wire.milter import (
    CONTINUE,
    NEGOTIATION_LENGTH,
    NO_REPLY,
    VERSION_MAXIMUM,
    VERSION_MINIMUM,
    Action,
    Step,
    format_negotiation,
    parse_negotiation,
)

if TYPE_CHECKING:
    from srsd.wire.milter import MacroStage

_NO_REPLIES = Step(sum(NO_REPLY.values()))
_KEPT = 64  # offers; an MTA always makes the same one


class Agreement(NamedTuple):
    """What was agreed with an MTA. Numbers, since operators of IntFlag take microseconds."""

    answer: bytes  # that says so
    actions: int
    leading_space: bool
    replies: dict[int, bytes]  # what each command is answered at once
    hears_of_refused: bool  # recipients that the MTA has refused come, too


class RefusalWishes(Protocol):
    """What is wanted of recipients that the MTA itself has refused."""

    @property
    def slows(self) -> bool:
        """Whether an answer is ever held back: the MTA then waits for one to each RCPT."""
        ...


class Wishes(Protocol):
    """What a filter wants of an MTA. But for agreements it never changes."""

    @property
    def actions(self) -> Action:
        """What it may change."""
        ...

    @property
    def unwanted(self) -> Step:
        """What need not be sent: NO_BODY and the like."""
        ...

    @property
    def macros(self) -> dict[MacroStage, bytes]:
        """The names of macros it looks at, parted by blanks."""
        ...

    @property
    def refused(self) -> RefusalWishes | None:
        """None where it need not hear of recipients that the MTA refused."""
        ...

    @property
    def agreements(self) -> dict[bytes, Agreement]:
        """What was agreed with MTAs, by what they offered; agree() fills it."""
        ...


def agree(data: bytes, wishes: Wishes) -> Agreement:
    """Pick what is wanted from what an MTA offers: the data of NEGOTIATE.

    Raises ProtocolError where the offer does not have what is needed.
    """
    offer = data[:NEGOTIATION_LENGTH]  # what may follow the numbers is not looked at
    agreement = wishes.agreements.get(offer)
    if agreement is None:
        agreement = _agree(offer, wishes)
        if len(wishes.agreements) < _KEPT:
            wishes.agreements[offer] = agreement
    return agreement


def _agree(data: bytes, wishes: Wishes) -> Agreement:
    actions, refused = wishes.actions, wishes.refused
    offer = parse_negotiation(data)
    if offer.version < VERSION_MINIMUM:
        raise ProtocolError(f"a milter negotiation of version {offer.version}")
    missing = actions & ~offer.actions
    if missing:
        raise ProtocolError(f"a milter negotiation that does not allow to {_words(missing)}")
    steps = (_NO_REPLIES | Step.HEADER_LEADING_SPACE | wishes.unwanted) & offer.steps
    sets_macros = offer.actions & Action.SET_MACROS
    # Without macros nothing tells them from those that the MTA takes.
    hears_of_refused = bool(refused and sets_macros and offer.steps & Step.REJECTED_RECIPIENTS)
    if hears_of_refused:
        steps |= Step.REJECTED_RECIPIENTS
        if refused and refused.slows:
            steps &= ~Step.NO_REPLY_RECIPIENT
    answer = format_negotiation(
        min(offer.version, VERSION_MAXIMUM),
        actions | sets_macros,
        steps,
        wishes.macros if sets_macros else {},
    )
    replies: dict[int, bytes] = {command: CONTINUE for command, step in NO_REPLY.items() if not steps & step}
    leading_space = bool(steps & Step.HEADER_LEADING_SPACE)
    return Agreement(answer, int(actions), leading_space, replies, hears_of_refused)


def _words(actions: Action) -> str:
    return " and ".join(str(each.name).lower().replace("_", " ") for each in Action if each & actions)
