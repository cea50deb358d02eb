"""Whether SPF would let this host send for a sender, asked now."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from srsd.cli.dns_answers import live_answers
from srsd.daemon.service import make_outbound_spf
from srsd.daemon.tables import SPF_ALLOWED
from srsd.syntax.address import parse_address
from srsd.wire.answer import Status

if TYPE_CHECKING:
    from srsd.config import Config
    from srsd.filter.outbound_spf import OutboundResult, OutboundSpf
    from srsd.syntax.address import Address
    from srsd.wire.answer import Answer


def unless_allowed(key: bytes, answer: Answer, config: Config) -> tuple[Answer, str]:
    """Give the answer of the forward table, and what SPF says of this host; "" where it does not matter."""
    spf, sender = make_outbound_spf(config), parse_address(key)
    if spf is None or sender is None or answer.status is not Status.FOUND:
        return answer, ""
    result = asyncio.run(_ask(spf, sender, config))
    return (answer if result.needs_rewriting else SPF_ALLOWED), result.text


async def _ask(spf: OutboundSpf, sender: Address, config: Config) -> OutboundResult:
    async with live_answers(config.dns) as answers:
        return await spf.judge(sender, answers, answers.now)
