"""From results to a verdict: what the admin wants done about them, and in which words the client hears it.

Nothing is done by default. Each finding that [policy] names has an action, and the worst one wins.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from enum import IntEnum
from typing import TYPE_CHECKING, Literal, NamedTuple

from srsd.filter.findings import (
    is_for_a_role,
    of_mail_from_outside,
    of_missing_answers,
    of_submission,
    together,
)
from srsd.filter.origin import Origin
from srsd.syntax.setting import between, setting
from srsd.wire.milter import Continue, Quarantine, ReplyCode
from srsd.wire.milter import Verdict as MilterVerdict

if TYPE_CHECKING:
    from collections.abc import Iterator

    from srsd.filter.findings import Finding
    from srsd.filter.results import Results
    from srsd.filter.transaction import Transaction
    from srsd.wire.milter import Modification

PolicyAction = Literal["accept", "tempfail", "quarantine", "reject"]


@dataclass(frozen=True, kw_only=True)
class PolicyParameters:
    """What is done with results: accept, tempfail, quarantine or reject. The worst one wins."""

    shadow: bool = setting(True, "Only count and log what would have been done. Nothing is done while true.")
    spf_fail: PolicyAction = setting("accept", "SPF fail of MAIL FROM.")
    spf_softfail: PolicyAction = setting("accept", "SPF softfail of MAIL FROM.")
    spf_helo_fail: PolicyAction = setting("accept", "SPF fail of HELO.")
    spf_permerror: PolicyAction = setting("accept", "SPF permerror of MAIL FROM: a broken record.")
    null_mx: PolicyAction = setting(
        "accept",
        "The domain of MAIL FROM says that it takes no mail (RFC 7505), so no answer could reach it.",
    )
    dkim_fail: PolicyAction = setting(
        "accept", "Signatures are there and none passes. RFC 6376 §6.3 advises against refusing."
    )
    arc_fail: PolicyAction = setting("accept", "An ARC chain is there and is broken.")
    dmarc_reject: PolicyAction = setting("accept", "DMARC fails, and the author domain's policy says reject.")
    dmarc_quarantine: PolicyAction = setting("accept", "DMARC fails, and that policy says quarantine.")
    author_invalid: PolicyAction = setting(
        "accept", "No, several or unparsable From:, so that DMARC cannot protect any author."
    )
    login_mismatch: PolicyAction = setting(
        "accept", "A login writes as an author that dkim.login_table does not give it. Submissions only."
    )
    dns_error: PolicyAction = setting(
        "accept", "DNS failed, and the missing answer could have changed the verdict."
    )
    defer_budget: int = setting(
        100,
        "Deferrals in a row for DNS trouble, for each process; then mail is accepted with temperror.",
        between(0, 1_000_000),
    )


class Action(IntEnum):
    """What is done with a message, from the mildest. The names in lower case are the words of [policy]."""

    ACCEPT = 0
    TEMPFAIL = 1
    QUARANTINE = 2
    REJECT = 3

    @property
    def word(self) -> str:
        """The word for admins."""
        return _WORDS[self]


_WORDS = {action: action.name.lower() for action in Action}  # names of members take longer to find


class Verdict(NamedTuple):
    """What is done with a message, and why."""

    action: Action = Action.ACCEPT
    wanted: Action = Action.ACCEPT  # what [policy] says, before anything kept it from being done
    finding: Finding | None = None  # that decided; None where nothing was found to act upon
    why_not: str = ""  # what kept it from being done

    @property
    def refuses(self) -> bool:
        """Tell whether the message is not taken, for now or for good."""
        return self.action in _REPLY_CLASS

    def reply(self) -> MilterVerdict:
        """Give the answer to the MTA."""
        if self.finding is None or self.action not in _REPLY_CLASS:
            return _GO_ON
        code, enhanced_class = _REPLY_CLASS[self.action]
        return ReplyCode(code, enhanced_class + b"." + self.finding.code, self.finding.text.encode())

    def modifications(self) -> list[Modification]:
        """Give what holds the message, if that is the verdict."""
        if self.finding is None or self.action is not Action.QUARANTINE:
            return []
        return [Quarantine(self.finding.text.encode())]


ACCEPTED = Verdict()
_GO_ON = Continue()
_REPLY_CLASS = {Action.TEMPFAIL: (451, b"4"), Action.REJECT: (550, b"5")}
SHADOW = "shadow"
TRUSTED_RELAY = "a trusted relay would have to bounce it"
ROLE_RECIPIENT = "it is for postmaster or abuse"
BUDGET_SPENT = "policy.defer_budget is spent: DNS has failed too often in a row"


class DeferBudget:
    """How often a process may still defer in a row because of DNS."""

    def __init__(self, maximum: int) -> None:
        self.maximum = self._left = maximum

    def spend(self) -> bool:
        """Take one deferral; tell whether there was one left."""
        if self._left <= 0:
            return False
        self._left -= 1
        return True

    def restore(self) -> None:
        """Take note that DNS works."""
        self._left = self.maximum


class Policy:
    """Finds verdicts by one configuration."""

    def __init__(self, parameters: PolicyParameters, budget: DeferBudget | None = None) -> None:
        """Prepare to judge. A budget that others have spent from outlives a configuration."""
        names = [each.name for each in fields(parameters) if isinstance(getattr(parameters, each.name), str)]
        actions = {name: Action[getattr(parameters, name).upper()] for name in names}
        self._dns_error = actions.pop("dns_error")
        self._actions = {key: action for key, action in actions.items() if action is not Action.ACCEPT}
        self._shadow = parameters.shadow
        self._budget = budget if budget is not None else DeferBudget(parameters.defer_budget)

    def acts_on(self, key: str) -> bool:
        """Tell whether a finding makes a difference: what does not need not be looked for."""
        return key in self._actions

    @property
    def may_quarantine(self) -> bool:
        """Tell whether messages may be held, which the MTA must agree to."""
        actions = {*self._actions.values(), self._dns_error} if self._actions else ()
        return not self._shadow and Action.QUARANTINE in actions

    def judge(self, transaction: Transaction, results: Results) -> Verdict:
        """Find the verdict on a message."""
        if not self._actions:
            return ACCEPTED
        ours = transaction.origin.ours
        found = of_submission(results) if ours else of_mail_from_outside(transaction, results)
        wanted, finding = self._worst(found)
        for_dns = False
        if not ours:
            missing, trouble = self._worst(of_missing_answers(transaction, results))
            if trouble is None:
                self._budget.restore()
            elif missing > wanted and self._dns_error > wanted:
                wanted, finding, for_dns = self._dns_error, trouble._replace(key="dns_error"), True
        if finding is None or wanted is Action.ACCEPT:
            return ACCEPTED
        why_not = self._why_not(transaction, wanted, for_dns=for_dns)
        return Verdict(Action.ACCEPT if why_not else wanted, wanted, finding, why_not)

    def _worst(self, found: Iterator[Finding]) -> tuple[Action, Finding | None]:
        """Give the worst of findings and its action; those that are as bad make one."""
        worst = Action.ACCEPT
        deciding: list[Finding] = []
        for finding in found:
            action = self._actions.get(finding.key, Action.ACCEPT)
            if action > worst:
                worst, deciding = action, []
            if action is worst:
                deciding.append(finding)
        return worst, together(deciding) if deciding else None

    def _why_not(self, transaction: Transaction, wanted: Action, *, for_dns: bool) -> str:
        if transaction.origin is Origin.TRUSTED_RELAY:
            return TRUSTED_RELAY
        if is_for_a_role(transaction):
            return ROLE_RECIPIENT
        if self._shadow:
            return SHADOW
        if for_dns and wanted is Action.TEMPFAIL and not self._budget.spend():
            return BUDGET_SPENT
        return ""
