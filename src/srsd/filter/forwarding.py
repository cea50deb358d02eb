"""SRS in the milter: the sender of a message is rewritten if the message leaves this host, and only then."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Protocol

from srsd.resolving import NotCachedError, run_from_cache
from srsd.syntax.address import parse_address, parse_path
from srsd.syntax.setting import between, setting
from srsd.wire.answer import Answer, Status
from srsd.wire.milter import ChangeFrom, ReplyCode

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterable, Sequence

    from srsd.address_store import AddressStore, Pending
    from srsd.filter.outbound_spf import OutboundResult, OutboundSpf
    from srsd.filter.transaction import Transaction
    from srsd.lookup import Lookup
    from srsd.resolving import Resolver
    from srsd.syntax.address import Address
    from srsd.wire.milter import Verdict as MilterVerdict

_SECONDS_PER_DAY = 86400


def _check_addresses(value: Iterable[str]) -> str | None:
    for text in value:
        try:
            ip_address(text)
        except ValueError:
            return f'"{text}" is no IP address, would be right: such as 192.0.2.1 or 2001:db8::1'
    return None


@dataclass(frozen=True, kw_only=True)
class ForwardingParameters:
    """Where senders are rewritten, and when."""

    mode: Literal["maps", "milter"] = setting(
        "maps",
        "Who rewrites senders. maps: the lookups of sender_canonical_maps, whatever becomes of the mail. "
        "milter: the milter, and only of mail that leaves this host after alias expansion; "
        "sender_canonical_maps is not needed then, recipient_canonical_maps is.",
    )
    when: Literal["always", "spf"] = setting(
        "always",
        "spf rewrites only where the SPF record of the sender's domain would make one of outbound_addresses "
        "fail, softfail, permerror or temperror. Who needs no rewriting keeps the sender.",
    )
    outbound_addresses: tuple[str, ...] = setting(
        (),
        'The addresses from which this host sends, for when = "spf". Empty: those of the routes to the '
        "Internet, which are right unless Postfix binds to others or this host is behind NAT.",
        _check_addresses,
    )
    relayed: Literal["leaves", "stays"] = setting(
        "leaves",
        "Milter mode: whether mail for domains of this host that Postfix hands to another one by SMTP "
        '(relay_domains above all) leaves it. "stays": the next host is yours, and takes from this one what '
        "SPF forbids.",
    )
    expansion_error: Literal["rewrite", "keep", "tempfail"] = setting(
        "rewrite",
        "Milter mode: what is done where Postfix's alias maps cannot be asked, so that nobody knows whether "
        "mail leaves. rewrite: as if it did. keep: as if it did not. tempfail: 451, the client tries again.",
    )
    expansion_timeout: float = setting(
        5.0, "Milter mode: seconds for the alias maps to answer, for one recipient.", between(0.1, 60)
    )


class Expansion(NamedTuple):
    """Where the recipients of a message lead. Texts are safe to log."""

    leaves: bytes = b""  # the first address found that leaves this host; b"" if none does
    recipient: bytes = b""  # the one that leads there, as the MTA spelled it
    steps: tuple[str, ...] = ()  # what led there, for admins
    problem: str = ""  # why it is not known


class RecipientExpander(Protocol):
    """Whoever knows where Postfix sends mail. Paths are as the MTA spells them, `<a@b>` or `a@b`.

    The sender matters for copies that Postfix makes of what it sends.
    """

    def known(self, recipients: Sequence[bytes], sender: bytes) -> Expansion | None:
        """Tell where recipients and copies lead, if that is known already: at once."""
        ...

    async def expand(self, recipients: Sequence[bytes], sender: bytes) -> Expansion:
        """Find out where they lead. Raises nothing: what cannot be found out is a problem."""
        ...


class Rewriting(NamedTuple):
    """What became of the sender, and why."""

    new: bytes = b""  # the address that takes its place; b"" where it stays
    why: str = ""  # "" where the milter does not rewrite at all
    expansion: Expansion = Expansion()
    refused: bool = False  # nobody knows, and the message is to come again
    spf: str = ""  # what SPF says of ourselves, where it was asked

    def modifications(self) -> list[ChangeFrom]:
        """Give what changes the sender. Without ESMTP arguments: the envelope keeps its own."""
        return [ChangeFrom(b"<" + self.new + b">")] if self.new else []

    def reply(self) -> MilterVerdict:
        """Give the answer to the MTA for what is refused."""
        text = b"Address store unavailable" if self.why == STORE_UNAVAILABLE else b"Alias lookup failure"
        return ReplyCode(451, b"4.3.0", text)


NOT_HERE = Rewriting()
NOTHING_LEAVES = "no recipient leaves this host"
LEAVES = "a recipient leaves this host"
SPF_ALLOWS = "SPF lets this host send it"
UNKNOWN_REWRITTEN = "alias maps did not answer: rewritten all the same"
UNKNOWN_KEPT = "alias maps did not answer: left as it is"
UNKNOWN_REFUSED = "alias maps did not answer: refused for now"
STORE_UNAVAILABLE = "the store of addresses cannot be written: refused for now"


class _Sender(NamedTuple):
    """A sender that is to be rewritten if its message leaves this host."""

    key: bytes
    address: Address | None
    answer: Answer | Pending
    now: int


class ForwardingService:
    """Rewrites senders by one configuration."""

    def __init__(
        self,
        parameters: ForwardingParameters,
        lookup: Lookup,
        expander: RecipientExpander,
        store: AddressStore | None = None,
        spf: OutboundSpf | None = None,
    ) -> None:
        """Prepare to rewrite. Without spf, what SPF says of this host does not matter."""
        self._error = parameters.expansion_error
        self._lookup = lookup
        self._expander = expander
        self._store = store
        self._spf = spf

    def begin(
        self, transaction: Transaction, now: int, cache: Resolver, make_resolver: Callable[[], Resolver]
    ) -> MessageForwarding | Rewriting:
        """Begin a message, of which the envelope is known. now is in seconds since 1970-01-01, UTC."""
        if transaction.origin.ours:
            return Rewriting(why=transaction.origin.value)
        address = transaction.sender
        key = bytes(address) if address is not None else transaction.sender_path.strip(b"<>")
        answer = self._lookup.forward(key, now // _SECONDS_PER_DAY)
        if isinstance(answer, Answer) and answer.status is not Status.FOUND:
            return Rewriting(why=answer.reason)
        sender = _Sender(key, address or parse_address(key), answer, now)
        recipients = transaction.recipients
        expansion = self._expander.known(recipients, key)
        if expansion is not None:
            sender = self._for_recipient(sender, expansion)
            try:
                spf = run_from_cache(self._ask_spf(sender, expansion, cache))
            except NotCachedError:
                pass
            else:
                if isinstance(sender.answer, Answer) or not self._rewrites(expansion, spf):
                    return self._decide(sender.answer, expansion, spf)
        return MessageForwarding(self._find_out(sender, expansion, recipients, make_resolver))

    def _for_recipient(self, sender: _Sender, expansion: Expansion) -> _Sender:
        """Choose the SRS domain by the recipient that leaves, if there are several."""
        if not self._lookup.has_several_domains:
            return sender
        recipient = parse_path(expansion.recipient) if expansion.leaves else None
        wanted_by = recipient.domain if recipient is not None else b""
        return sender._replace(
            answer=self._lookup.forward(sender.key, sender.now // _SECONDS_PER_DAY, wanted_by)
        )

    async def _ask_spf(
        self, sender: _Sender, expansion: Expansion, resolver: Resolver
    ) -> OutboundResult | None:
        """Ask SPF, if it matters; else nobody is asked."""
        if self._spf is None or not expansion.leaves or sender.address is None:
            return None
        return await self._spf.judge(sender.address, resolver, sender.now)

    def _rewrites(self, expansion: Expansion, spf: OutboundResult | None) -> bool:
        """Tell whether a sender is rewritten where recipients lead there, and SPF says so."""
        if expansion.leaves:
            return spf is None or spf.needs_rewriting
        return bool(expansion.problem) and self._error == "rewrite"

    async def _find_out(
        self,
        sender: _Sender,
        expansion: Expansion | None,
        recipients: Sequence[bytes],
        make_resolver: Callable[[], Resolver],
    ) -> Rewriting:
        """Ask whoever knows; an address that must be stored is stored only if it is used."""
        if expansion is None:
            expansion = await self._expander.expand(recipients, sender.key)
            sender = self._for_recipient(sender, expansion)
        spf = await self._ask_spf(sender, expansion, make_resolver())
        answer = sender.answer
        if not isinstance(answer, Answer) and self._rewrites(expansion, spf):
            answer = await answer.settle(self._store)
        return self._decide(answer, expansion, spf)

    def _decide(
        self, answer: Answer | Pending, expansion: Expansion, spf: OutboundResult | None
    ) -> Rewriting:
        """Say what becomes of a sender, once everything is known."""
        text = spf.text if spf is not None else ""
        if self._rewrites(expansion, spf) and isinstance(answer, Answer):
            if answer.status is not Status.FOUND:
                return Rewriting(b"", STORE_UNAVAILABLE, expansion, refused=True, spf=text)
            why = f"{answer.reason}: {LEAVES}" if expansion.leaves else UNKNOWN_REWRITTEN
            return Rewriting(answer.text, why, expansion, spf=text)
        if expansion.leaves:
            return Rewriting(b"", SPF_ALLOWS, expansion, spf=text)
        if not expansion.problem:
            return Rewriting(b"", NOTHING_LEAVES, expansion)
        if self._error == "keep":
            return Rewriting(b"", UNKNOWN_KEPT, expansion)
        return Rewriting(b"", UNKNOWN_REFUSED, expansion, refused=True)


class MessageForwarding:
    """A message of which it is being found out whether its sender is to be rewritten."""

    def __init__(self, work: Coroutine[Any, Any, Rewriting]) -> None:
        self._task = asyncio.get_running_loop().create_task(work)

    def finish(self) -> Rewriting | None:
        """Say what becomes of the sender; None while that is not known."""
        return self._task.result() if self._task.done() else None

    async def finish_later(self) -> Rewriting:
        """Say what becomes of the sender as soon as it is known."""
        return await self._task

    def abort(self) -> None:
        """Forget the message."""
        self._task.cancel()
