"""Authentication-Results of a message, for people: what they say, whose they are, and what srsd does."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from srsd.authres import claims, parse_results
from srsd.cli.mail import one_line
from srsd.daemon.log import printable
from srsd.syntax.domain import fold_domain

if TYPE_CHECKING:
    from srsd.authres import AuthenticationResults, Result


def describe_field(value: bytes, ours: bytes) -> dict[str, Any]:
    """Describe a field for JSON; ours is our authserv-id from fold_domain."""
    parsed = parse_results(value)
    claimed = claims(value, ours)
    return {
        "text": one_line(value),
        "authserv_id": printable(parsed.authserv_id) if parsed else None,
        "results": [_describe_result(result) for result in parsed.results] if parsed else [],
        "claims_to_be_ours": claimed,
        "why": _why_removed(parsed, ours) if claimed else "of another host",
    }


def _describe_result(result: Result) -> dict[str, Any]:
    return {
        "method": result.method,
        "result": result.result,
        "reason": _shown(result.reason),
        "properties": {f"{ptype}.{name}": _shown(text) for ptype, name, text in result.properties},
    }


def _shown(text: bytes | str) -> str:
    return printable(text.encode() if isinstance(text, str) else text)


def _why_removed(parsed: AuthenticationResults | None, ours: bytes) -> str:
    if parsed is None:
        return "cannot be read for certain, so it could be taken for ours"
    if fold_domain(parsed.authserv_id) == ours:
        return "says that it is ours"
    return "could be taken for ours"


def results_line(results: list[dict[str, Any]]) -> str:
    """Show results in one line: `spf=pass smtp.mailfrom=a@b, dkim=none`."""
    if not results:
        return "none"
    shown = []
    for result in results:
        properties = "".join(f" {name}={text}" for name, text in result["properties"].items())
        shown.append(f"{result['method']}={result['result']}{properties}")
    return ", ".join(shown)
