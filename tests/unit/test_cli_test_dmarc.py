"""srsctl test, ARC and DMARC: what they say now, by what SPF and DKIM say, and when nothing can be said."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from click.testing import CliRunner, Result

from harness.arc_forge import ArcForge
from harness.daemon import write_config
from harness.dkim_forge import Forge, rsa_key
from harness.dns_server import DnsServer
from srsd.cli.main import main
from srsd.resolving import Outcome
from srsd.syntax.header import HeaderField

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

US = "mx.here.example"
KEY, SEALER_KEY = rsa_key(), rsa_key()
BODY = b"Hello\r\n"
TEMPLATE = b" v=1; a=rsa-sha256; c=relaxed/relaxed; d=%b; s=s1; h=from:subject; bh=%%BH%%; b=%%B%%"
RECEIVED = (
    b"Received: from pass.example (mail.pass.example [192.0.2.7])\n\tby mx.here.example (Postfix) with ESMTPS id A\n"
    b"\tfor <bob@here.example>; Mon, 02 Feb 2026 10:00:00 +0000 (UTC)\n"
)
ZONES = {
    ("pass.example", "TXT"): ["v=spf1 ip4:192.0.2.7 -all"],
    ("_dmarc.pass.example", "TXT"): ["v=DMARC1; p=reject"],
    ("_dmarc.broken.example", "TXT"): Outcome.SERVER_FAILURE,
    ("s1._domainkey.pass.example", "TXT"): [KEY.record.decode()],
    ("s1._domainkey.sub.pass.example", "TXT"): [KEY.record.decode()],
    ("sel._domainkey.sealer.example", "TXT"): [SEALER_KEY.record.decode()],
}


@pytest.fixture(scope="module")
def dns() -> Iterator[DnsServer]:
    with DnsServer(ZONES) as server:
        yield server


@pytest.fixture
def run(dns, tmp_path) -> Callable[..., Result]:
    def run(message: bytes, *arguments: str, **tables: Any) -> Result:
        path = write_config(
            tmp_path,
            secrets=["secret"],
            dns={"nameservers": [str(dns)], "timeout": 2.0},
            milter={"authserv_id": US},
            **tables,
        )
        result = CliRunner().invoke(main, ["--config", str(path), "test", *arguments], input=message)
        assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
        return result

    return run


@pytest.fixture
def report(run) -> Callable[..., dict[str, Any]]:
    def report(message: bytes, *arguments: str, **tables: Any) -> dict[str, Any]:
        result = run(message, "--json", *arguments, **tables)
        found = json.loads(result.stdout)
        assert found["good"] is (result.exit_code == 0)
        return found

    return report


def fields_of(author: bytes = b"alice@pass.example") -> list[HeaderField]:
    return [HeaderField(b"From", b" " + author), HeaderField(b"Subject", b" hello")]


def signed(fields: list[HeaderField], domain: bytes = b"pass.example") -> list[HeaderField]:
    return [Forge(KEY).sign(fields, BODY, TEMPLATE % domain), *fields]


def written(fields: list[HeaderField], return_path: bytes = b"x@list.example") -> bytes:
    header = b"".join(name + b":" + value.replace(b"\r\n", b"\n") + b"\n" for name, value in fields)
    lines = b"Return-Path: <" + return_path + b">\n" + RECEIVED + header + b"\n" + BODY
    return lines.replace(b"\r\n", b"\n")


def test_dkim_makes_it_pass(report, run):
    message = written(signed(fields_of()))
    found = report(message)
    assert found["dmarc"]["result"] == "pass"
    assert (found["dmarc"]["policy"], found["dmarc"]["record_domain"]) == ("reject", "pass.example")
    assert found["dmarc"]["aligned"] == ["dkim pass.example"]
    assert found["author"] == {"address": "alice@pass.example", "domain": "pass.example", "problem": ""}
    shown = run(message).stdout
    assert "DMARC now, of pass.example: pass: " in shown
    assert "policy reject at pass.example" in shown


@pytest.mark.parametrize(
    ("fields", "return_path", "aligned"),
    [
        (fields_of(), b"bounce@pass.example", ["spf pass.example"]),
        (fields_of(b"a@sub.pass.example"), b"bounce@pass.example", ["spf pass.example"]),
        (signed(fields_of(), b"sub.pass.example"), b"x@list.example", ["dkim sub.pass.example"]),
    ],
)
def test_what_is_aligned(report, fields, return_path, aligned):
    found = report(written(fields, return_path))
    assert (found["dmarc"]["result"], found["dmarc"]["aligned"]) == ("pass", aligned)


def test_a_fail_is_an_answer_of_no(report, run):
    message = written(fields_of())
    found = report(message)
    assert (found["dmarc"]["result"], found["good"]) == ("fail", False)
    assert (
        "DMARC now, of pass.example: fail: neither spf nor dkim passed, policy reject" in run(message).stdout
    )


@pytest.mark.parametrize(
    ("author", "result"), [(b"a@none.example", "none"), (b"a@broken.example", "temperror")]
)
def test_what_is_no_fail(report, author, result):
    found = report(written(fields_of(author)))
    assert (found["dmarc"]["result"], found["good"]) == (result, True)


def test_without_spf_nothing_fails(report, run):
    """MAIL FROM is not known: nobody can tell that it would not have passed."""
    message = written(fields_of()).partition(b"\n")[2]
    found = report(message)
    assert (found["dmarc"]["result"], found["dmarc"]["why_unchecked"]) == (
        "",
        "SPF is not checked: MAIL FROM is not known",
    )
    assert "DMARC now: nothing can be said: SPF is not checked" in run(message).stdout
    assert report(written(signed(fields_of())).partition(b"\n")[2])["dmarc"]["result"] == "pass"


@pytest.mark.parametrize(
    ("fields", "problem"),
    [
        ([HeaderField(b"Subject", b" x")], "there is no From field"),
        ([*fields_of(), *fields_of()], "there are several From fields"),
        (fields_of(b"a@pass.example, b@list.example"), "there are addresses of several domains in From"),
    ],
)
def test_without_an_author_nothing_can_be_said(report, run, fields, problem):
    found = report(written(fields))
    assert (found["dmarc"]["result"], found["author"]["problem"]) == ("", problem)
    assert f"DMARC now: nothing can be said: {problem}" in run(written(fields)).stdout


def test_a_chain(report, run):
    sealed = ArcForge(SEALER_KEY).seal(signed(fields_of()), BODY)
    found = report(written(sealed))
    assert (found["arc"]["result"], len(found["arc"]["sets"])) == ("pass", 1)
    assert found["arc"]["sets"][0]["domain"] == "sealer.example"
    assert "ARC now: pass: the chain is valid" in run(written(sealed)).stdout
    broken = [*sealed[:-1], HeaderField(b"Subject", b" changed")]
    assert report(written(broken))["arc"]["result"] == "fail"
    assert "\nARC now" not in run(written(fields_of())).stdout


def test_a_trusted_sealer_is_named(report, run):
    said = b" mx.sealer.example; dmarc=pass header.from=pass.example"
    message = written(ArcForge(SEALER_KEY).seal(fields_of(), BODY, payload=said))
    found = report(message, arc={"trusted_sealers": ["sealer.example"]})
    assert (found["dmarc"]["result"], found["dmarc"]["local_policy"]) == ("fail", "sealer.example")
    assert "sealer.example saw it pass" in run(message, arc={"trusted_sealers": ["sealer.example"]}).stdout
    assert report(message)["dmarc"]["local_policy"] == ""


def test_dmarc_records_may_come_from_a_file(report, tmp_path):
    path = tmp_path / "zone"
    path.write_text('_dmarc.pass.example TXT "v=DMARC1; p=quarantine"\n')
    found = report(written(fields_of()), "--dns-file", str(path))
    assert (found["dmarc"]["result"], found["dmarc"]["policy"]) == ("fail", "quarantine")
    assert [each for each in found["warnings"] if "TXT _dmarc" in each] == []
