"""ARC and DMARC of a message: as JSON has them, and as lines for a terminal. All texts are printable."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from srsd.cli.mail import one_line
from srsd.daemon.log import printable

if TYPE_CHECKING:
    from collections.abc import Iterator

    from srsd.dmarc.trace import Trace
    from srsd.filter.author import Author
    from srsd.filter.chain import ArcResults
    from srsd.filter.results import DmarcResults

_TEXT_MAXIMUM = 300  # characters of one text of a stranger; --json has it whole


def describe_author(author: Author) -> dict[str, str]:
    """Describe the author, or why there is not one."""
    address = printable(bytes(author.address)) if author.address is not None else ""
    return {"address": address, "domain": printable(author.domain), "problem": author.problem}


def describe_arc(results: ArcResults) -> dict[str, Any]:
    """Describe the chain, and what its sealers say."""
    chain = results.chain
    if chain is None:
        return {"why_unchecked": results.why_unchecked, "result": "", "reason": "", "sets": []}
    return {
        "why_unchecked": "",
        "result": chain.status.value,
        "reason": chain.phrase,
        "sets": [
            {
                "instance": each.instance,
                "domain": printable(each.domain),
                "selector": printable(each.selector),
                "results": one_line(each.payload),
            }
            for each in chain.sets
        ],
    }


def describe_dmarc(results: DmarcResults, trace: Trace) -> dict[str, Any]:
    """Describe what DMARC says, with its steps."""
    outcome = results.outcome
    found: dict[str, Any] = {"result": "", "reason": "", "policy": "", "record_domain": "", "aligned": []}
    if outcome is not None:
        found = {
            "result": outcome.result.value,
            "reason": outcome.reason,
            "policy": outcome.policy.value if outcome.policy is not None else "",
            "record_domain": printable(outcome.record_domain),
            "aligned": [f"{each.method} {printable(each.domain)}" for each in outcome.aligned],
        }
    return {
        "why_unchecked": results.why_unchecked,
        **found,
        "local_policy": printable(results.vouched_by),
        "steps": trace.as_dicts(),
    }


def arc_lines(arc: dict[str, Any]) -> Iterator[str]:
    """Show the chain."""
    if arc["why_unchecked"]:
        yield f"ARC is not checked: {arc['why_unchecked']}"
        return
    yield f"ARC: {arc['result']}: {arc['reason']}"
    for each in arc["sets"]:
        yield f"  set {each['instance']}, sealed by {_cut(each['domain'])}, says: {_cut(each['results'])}"


def dmarc_lines(dmarc: dict[str, Any], author: dict[str, str], trace: Trace) -> Iterator[str]:
    """Show what DMARC says, and its steps."""
    if author["problem"]:
        yield f"Author: {author['problem']}"
    if dmarc["result"]:
        policy = f", policy {dmarc['policy']}" if dmarc["policy"] else ""
        yield f"DMARC of {_cut(author['domain'])}: {dmarc['result']}: {dmarc['reason']}{policy}"
    elif dmarc["why_unchecked"] != author["problem"]:
        yield f"DMARC: nothing can be said: {dmarc['why_unchecked']}"
    yield from (f"  {_cut(line)}" for line in trace.lines())
    if dmarc["local_policy"]:
        yield f"  local policy: the trusted sealer {_cut(dmarc['local_policy'])} saw it pass"


def _cut(text: str) -> str:
    return text if len(text) <= _TEXT_MAXIMUM else text[:_TEXT_MAXIMUM] + "..."
