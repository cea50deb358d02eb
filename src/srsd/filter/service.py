"""The filter behind every milter connection: follows each message from its envelope to the decision."""

from __future__ import annotations

from typing import TYPE_CHECKING

from srsd.filter.message import MessageInFilter
from srsd.filter.origin import Origins
from srsd.filter.refused import RefusedRecipients
from srsd.filter.transaction import is_authserv_id, make_transaction
from srsd.filter.verdict import Policy
from srsd.wire.milter import Action, MacroStage, Step

if TYPE_CHECKING:
    from srsd.filter.rules import Rules, World
    from srsd.filter.verdict import DeferBudget
    from srsd.wire.milter_negotiation import Agreement
    from srsd.wire.milter_session import Envelope

_NO_MACRO = b"{srsd_none}"
# An MTA takes an empty list for none given, and sends its default macros then. So the steps of which
# none is wanted name one that is never there: no packet, and no lookup by the MTA.
_MACROS = {
    MacroStage.CONNECT: b"j {daemon_name}",
    MacroStage.HELO: _NO_MACRO,
    MacroStage.MAIL: b"{auth_type} {auth_authen}",
    MacroStage.RECIPIENT: _NO_MACRO,
    MacroStage.DATA: b"i",
    MacroStage.END_OF_HEADERS: _NO_MACRO,
    MacroStage.END_OF_MESSAGE: _NO_MACRO,  # it is for each piece of the body, too
}


class MailFilter:
    """Judges mail by one configuration. A connection keeps the one that it began with."""

    def __init__(self, rules: Rules, world: World, budget: DeferBudget | None = None) -> None:
        self.rules = rules
        self.world = world
        self.policy = Policy(rules.policy, budget)
        self.actions = Action.ADD_HEADERS | Action.CHANGE_HEADERS
        if self.policy.may_quarantine:
            self.actions |= Action.QUARANTINE
        if rules.forwarding is not None:
            self.actions |= Action.CHANGE_FROM
        self.unwanted = Step.NO_UNKNOWN if rules.read_content else Step.NO_UNKNOWN | Step.NO_BODY
        self._origins = Origins(rules.milter)
        self.macros = _MACROS
        self.agreements: dict[bytes, Agreement] = {}
        self.refused: RefusedRecipients | None = None
        if rules.refusal is not None:
            self.macros = {**_MACROS, MacroStage.RECIPIENT: b"{rcpt_mailer} {rcpt_host}"}
            self.refused = RefusedRecipients(
                rules.refusal, self._origins, world.clock, world.timer, world.report_refused
            )
        self._authserv_id = rules.milter.authserv_id.encode()
        self._default_authserv_id = world.authserv_id if is_authserv_id(world.authserv_id) else b"localhost"

    def begin(self, envelope: Envelope) -> MessageInFilter:
        """Begin a message: its content is to come."""
        transaction = make_transaction(envelope, self._origins, self._authserv_id, self._default_authserv_id)
        return MessageInFilter(self.rules, self.policy, self.world, transaction)
