"""A second opinion of dkimpy and pyspf on the same message, by the same answers of DNS."""

from __future__ import annotations

import asyncio
import json
import os
import sys
import tempfile
from importlib.util import find_spec
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any

import click

from srsd.daemon.log import printable

if TYPE_CHECKING:
    from collections.abc import Iterator

    from srsd.cli.dns_answers import KeptAnswers
    from srsd.cli.mail import Mail
    from srsd.cli.spf_now import Sender

_SECONDS = 60.0  # for one round of both
_ROUNDS_MAXIMUM = 25  # each asks DNS what the one before lacked; SPF may ask for 20 names or so
_PACKAGES = {"dkim": "dkimpy", "spf": "pyspf"}


def require_packages() -> None:
    """Exit 2 with one line if there is nobody to ask."""
    missing = [package for module, package in _PACKAGES.items() if find_spec(module) is None]
    if missing:
        click.echo(
            f"--cross-check needs {' and '.join(missing)}, which {'is' if len(missing) == 1 else 'are'} "
            "not installed: pip install 'srsd[crosscheck]'",
            err=True,
        )
        sys.exit(2)


async def cross_check(
    mail: Mail, report: dict[str, Any], sender: Sender | str, answers: KeptAnswers
) -> dict[str, Any]:
    """Compare what they say with the report, which has ours; for JSON."""
    identities = [] if isinstance(sender, str) else [*_identities(report["spf"]["results"], sender)]
    signatures = report["dkim"]["signatures"]
    message = b"".join(name + b":" + value.replace(b"\n", b"\r\n") + b"\r\n" for name, value in mail.fields)
    question = {
        "algorithms": [each["algorithm"] for each in signatures],
        "identities": identities,
        "receiver": report["authserv_id"],
        "now": answers.now,
    }
    told = await _ask(question, message + b"\r\n" + mail.body, answers)
    if "failure" in told:
        return {"comparisons": [], "failure": told["failure"], "disagreements": 0}
    comparisons = []
    for ours, theirs in zip(signatures, told["dkim"], strict=True):
        of = f"signature {ours['number']}, d={ours['domain']} s={ours['selector']}"
        agree = theirs["result"] is None or (theirs["result"] == "pass") is (ours["result"] == "pass")
        comparisons.append(_compare("dkimpy", of, ours, theirs, agree=agree))
    for identity, theirs in zip(identities, told["spf"], strict=True):
        ours = next(each for each in report["spf"]["results"] if each["identity"] == identity["identity"])
        agree = theirs["result"] is None or theirs["result"] == ours["result"]
        comparisons.append(_compare("pyspf", f"SPF of {identity['identity']}", ours, theirs, agree=agree))
    disagreements = sum(not each["agree"] for each in comparisons)
    return {"comparisons": comparisons, "failure": None, "disagreements": disagreements}


def _compare(
    who: str, of: str, ours: dict[str, Any], theirs: dict[str, Any], *, agree: bool
) -> dict[str, Any]:
    return {
        "who": who,
        "of": of,
        "ours": ours["result"],
        "our_reason": ours["reason"],
        "theirs": theirs["result"],
        "their_reason": printable(theirs["text"].encode(errors="backslashreplace")),
        "agree": agree,
    }


def _identities(results: list[dict[str, Any]], sender: Sender) -> Iterator[dict[str, str]]:
    helo = sender.helo.decode("latin-1")
    for each in results:
        path = b"" if each["identity"] == "HELO" or sender.path is None else sender.path
        address = path.removeprefix(b"<").removesuffix(b">").decode("latin-1")
        yield {
            "identity": each["identity"],
            "client": str(sender.client),
            "sender": address,
            "helo": helo,
        }


async def _ask(question: dict[str, Any], message: bytes, answers: KeptAnswers) -> dict[str, Any]:
    """Have both answer, and ask DNS what they want to know beyond what srsd did, until nothing is missing."""
    with tempfile.TemporaryDirectory(prefix="srsctl-") as directory:
        path = os.path.join(directory, "answers.json")
        question["message"] = os.path.join(directory, "message")
        with open(question["message"], "wb") as file:  # noqa: ASYNC230 - nothing else waits
            file.write(message)
        for _ in range(_ROUNDS_MAXIMUM):
            answers.write(path)
            told = await _run(question, path)
            if not told.get("missing"):
                return told
            for kind, name in told["missing"]:
                await _ask_dns(answers, kind, name)
    return {"failure": f"dkimpy and pyspf still had questions to DNS after {_ROUNDS_MAXIMUM} rounds"}


async def _ask_dns(answers: KeptAnswers, kind: str, name: str) -> None:
    octets = name.encode()
    match kind:
        case "TXT":
            await answers.txt(octets)
        case "A":
            await answers.ipv4(octets)
        case "AAAA":
            await answers.ipv6(octets)
        case "MX":
            await answers.mx(octets)
        case _:
            await answers.ptr(ip_address(name))


async def _run(question: dict[str, Any], path: str) -> dict[str, Any]:
    # -P: the directory that srsctl was called in may hold anything.
    command = [sys.executable, "-P", "-m", "srsd.cli.second_opinion", path]
    process = await asyncio.create_subprocess_exec(
        *command,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        written = json.dumps(question).encode()
        out, errors = await asyncio.wait_for(process.communicate(written), _SECONDS)
    except TimeoutError:
        process.kill()
        await process.wait()
        return {"failure": f"dkimpy and pyspf gave no answer within {_SECONDS:.0f} seconds"}
    if process.returncode:
        last = errors.strip().rpartition(b"\n")[2]
        return {"failure": f"dkimpy and pyspf could not be asked: {printable(last[:300])}"}
    told: dict[str, Any] = json.loads(out)
    return told
