"""Recipients that the MTA has refused: SRS addresses of ours that do not reverse count for the client.

A table lookup knows no client. The milter does, and Postfix tells it of refused recipients if it asks for
them (SMFIP_RCPT_REJ). What is answered makes no difference to the recipient, but when it is answered does to
the client.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from srsd.filter.origin import Origin
from srsd.filter.transaction import login_of
from srsd.lookup import NOTABLE
from srsd.syntax.address import parse_path
from srsd.syntax.setting import between, setting
from srsd.wire.answer import Answer
from srsd.wire.milter_session import Delay

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from srsd.filter.forgers import Forgers
    from srsd.filter.origin import Origins
    from srsd.lookup import Lookup
    from srsd.resolving import IpAddress
    from srsd.wire.milter import Connect, Path

FREE_TRIES = 2  # in an hour, before a client is slowed: an honest mistake, tried again, is not
DELAYED_MAXIMUM = 10  # answers at once, in one process: a tenth of Postfix's default_process_limit
_DELAY_MAXIMUM = 15.0  # seconds; postfix/milter.cf has a milter given up after 20 (milter_command_timeout)
_SECONDS_PER_DAY = 86400


@dataclass(frozen=True, kw_only=True)
class RefusalParameters:
    """What is done about clients that send to forged SRS addresses."""

    forgery_delay: float = setting(
        0.0,
        "Seconds for which the milter keeps a client waiting that has sent to two forged SRS addresses "
        "within an hour, with each further one. Never your own clients, nor trusted_relays. 0: nobody waits. "
        "With more than 0 Postfix waits for the milter's word on every recipient, a moment.",
        between(0, _DELAY_MAXIMUM),
    )


class RefusedSrsAddress(NamedTuple):
    """A recipient that was refused, was an SRS address of ours, and does not reverse."""

    client_name: bytes
    client: IpAddress | None
    origin: Origin
    recipient: bytes  # as the MTA spelled it
    reason: str  # in the words of the lookup
    in_last_hour: int  # of this client, this one included; 0 where it has no address
    delay: float  # seconds for which the answer is held back
    delayable: bool  # it would have been, but for too many others


class Delays:
    """How many answers are held back now, in one process, whatever the configuration was when they began."""

    def __init__(self, maximum: int = DELAYED_MAXIMUM) -> None:
        self._maximum = maximum
        self.held = 0

    def begin(self, seconds: float) -> Delay | None:
        """Hold an answer back; None where too many are."""
        if self.held >= self._maximum:
            return None
        self.held += 1
        return Delay(seconds, self._end)

    def _end(self) -> None:
        self.held -= 1


class RefusalRules(NamedTuple):
    """What refused recipients are judged by."""

    parameters: RefusalParameters
    lookup: Lookup
    forgers: Forgers
    delays: Delays


class RefusedRecipients:
    """Hears of refused recipients, counts, and says how long the client is to wait."""

    def __init__(
        self,
        rules: RefusalRules,
        origins: Origins,
        clock: Callable[[], int],
        timer: Callable[[], float],
        report: Callable[[RefusedSrsAddress], None],
    ) -> None:
        """Clocks and report are those of the World."""
        self._rules = rules
        self._seconds = rules.parameters.forgery_delay
        self._origins = origins
        self._clock = clock
        self._timer = timer
        self._report = report

    @property
    def slows(self) -> bool:
        """Whether it ever holds an answer back."""
        return self._seconds > 0

    def see(self, client: Connect, macros: Mapping[bytes, bytes], path: Path) -> Delay | None:
        """Take note of a refused recipient; None where it is answered at once."""
        reason = self._reason(path)
        if not reason:
            return None
        address = client.address
        origin = self._origins.of(address, macros.get(b"daemon_name", b""), login_of(macros))
        count = self._rules.forgers.count(address, self._timer()) if address is not None else 0
        delayable = self.slows and origin is Origin.OUTSIDE and count > FREE_TRIES
        delay = self._rules.delays.begin(self._seconds) if delayable else None
        seconds = delay.seconds if delay is not None else 0.0
        self._report(
            RefusedSrsAddress(client.host, address, origin, path.text, reason, count, seconds, delayable)
        )
        return delay

    def _reason(self, path: Path) -> str:
        """Say why a recipient does not reverse, as the lookup has it; "" where that is nothing to count.

        An address that the store has to say something about has a good hash.
        """
        address = parse_path(path.text)
        if address is None:
            return ""
        answer = self._rules.lookup.reverse(bytes(address), self._clock() // _SECONDS_PER_DAY)
        return answer.reason if isinstance(answer, Answer) and answer.reason in NOTABLE else ""
