"""srsctl explain: the same judgement as the daemon's, its reasons, and DNS answers in a file."""

from __future__ import annotations

import json
from base64 import b64encode
from typing import TYPE_CHECKING, Any

import pytest
from click.testing import CliRunner, Result

from harness.daemon import LOOPBACK, Srsd, write_config
from harness.dns_server import DnsServer
from harness.milter_client import MilterClient
from srsd.cli.main import main
from srsd.daemon.service import today
from srsd.resolving import Outcome
from srsd.srs import Keyring, Srs, SrsParameters
from srsd.syntax.address import Address

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

US = "mx.here.example"
SECRET = "the tests' only secret"
CLIENT = "192.0.2.7"
DEAD = {"nameservers": ["127.0.0.1:9"], "timeout": 0.2, "message_deadline": 1.0}
ZONES = {
    ("pass.example", "TXT"): ["v=spf1 include:_spf.pass.example -all", [b"\xff"]],
    ("_spf.pass.example", "TXT"): [["v=spf1 a:x.example ", "mx ptr ?all"]],
    ("_spf.pass.example", "MX"): [(10, "mail.pass.example")],
    ("mail.pass.example", "A"): ["192.0.2.7"],
    ("mail.pass.example", "AAAA"): ["2001:db8::7"],
    ("mail.pass.example", "TXT"): ["v=spf1 a -all"],
    ("7.2.0.192.in-addr.arpa", "PTR"): ["mail.pass.example"],
    ("reverse.example", "TXT"): ["v=spf1 ptr:pass.example -all"],
    ("fail.example", "TXT"): ["v=spf1 -all"],
    ("broken.example", "TXT"): Outcome.SERVER_FAILURE,
}
TRACE = f"Received: from mail.pass.example (mail.pass.example [{CLIENT}])\n\tby {US} (Postfix) with ESMTPS id 4ZQ1v; x\n"
FORGED = f"Authentication-Results: {US}; spf=pass smtp.mailfrom=bank.example\n"
FOREIGN = "Authentication-Results: other.example; dkim=pass header.d=x.example\n"
REST = "From: alice@pass.example\nSubject: hello\n\nThe body.\n"
DELIVERED = f"Return-Path: <alice@pass.example>\nDelivered-To: bob@here.example\n{TRACE}{FOREIGN}{REST}"
SENT = ("--client-ip", CLIENT, "--helo", "mail.pass.example", "--mail-from", "alice@pass.example")


@pytest.fixture(scope="module")
def dns() -> Iterator[DnsServer]:
    with DnsServer(ZONES) as server:
        yield server


@pytest.fixture
def config(dns, tmp_path) -> Callable[..., Path]:
    def write(exclude: str | None = None, **tables: Any) -> Path:
        milter = {
            "authserv_id": US,
            "internal_networks": ["127.0.0.0/8", "10.0.0.0/8"],
            "trusted_relays": ["198.51.100.0/24"],
        }
        known = {
            "dns": {"nameservers": [str(dns)], "timeout": 2.0},
            "milter": milter,
            "srs": {"domain": "srs.here.example"},
            "listen": {"srs_forward": [], "srs_reverse": [], "milter": [LOOPBACK], "control": []},
        }
        return write_config(tmp_path, secrets=[SECRET], exclude=exclude, **known | tables)

    return write


@pytest.fixture
def run(config, tmp_path) -> Callable[..., Result]:
    """Run srsctl explain on a text or octets, from a file."""
    config()

    def run(message: str | bytes, *arguments: str) -> Result:
        path = tmp_path / "message"
        path.write_bytes(message.encode() if isinstance(message, str) else message)
        line = ["--config", str(tmp_path / "srsd.toml"), "explain", str(path), *arguments]
        result = CliRunner().invoke(main, line)
        assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
        return result

    return run


@pytest.fixture
def report(run) -> Callable[..., dict[str, Any]]:
    def report(message: str | bytes, *arguments: str) -> dict[str, Any]:
        result = run(message, "--json", *arguments)
        assert (result.exit_code, result.stderr) == (0, "")
        return json.loads(result.stdout)

    return report


def spf(report: dict[str, Any]) -> dict[str, str]:
    return {each["identity"]: each["result"] for each in report["spf"]["results"]}


# What the daemon would do --------------------------------------------------------------------------


def test_it_says_what_the_daemon_does(config, report):
    path = config(spf={"received_spf": True})
    lines = [FORGED, FOREIGN, FORGED.upper(), "Authentication-Results: (\n", "From: alice@pass.example\n"]
    header = [tuple(line.encode().rstrip(b"\n").split(b":", 1)) for line in lines]
    checked = set()
    with Srsd(path) as srsd:
        for client in (CLIENT, "2001:db8::7", "203.0.113.1", "10.1.2.3", "198.51.100.4"):
            with MilterClient.of(srsd.endpoints["milter"][0]) as mta:
                mta.connect(b"unknown", client)
                mta.helo(b"mail.pass.example")
                for sender in ("alice@pass.example", "", "x@fail.example", "odd", "x@broken.example"):
                    outcome = mta.message(f"<{sender}>".encode(), headers=header, body=b"The body.\r\n")
                    assert outcome.verdict == "continue"
                    options = ("--client-ip", client, "--helo", "mail.pass.example", "--mail-from", sender)
                    found = report("".join(lines) + "\nThe body.\n", *options)
                    added = [(each["name"], each["value"]) for each in found["header_fields_added"]]
                    removed = places_of_removed(found)
                    came = [field for place, field in enumerate(header) if place not in removed]
                    theirs = [field for field in outcome.headers if field[0] != b"Received"]
                    folded = [
                        (name.decode(), " ".join(value.decode().split()))
                        for name, value in theirs[: len(added)]
                    ]
                    assert (folded, theirs[len(added) :]) == (added, came)
                    assert removed == {0, 2, 3}
                    assert found["verdict"] == "accept"
                    checked.add((found["origin"], len(added)))
    assert checked == {("outside", 2), ("outside", 3), ("internal network", 0), ("trusted relay", 1)}


def places_of_removed(report: dict[str, Any]) -> set[int]:
    """The four Authentication-Results stand on top."""
    return {place for place, field in enumerate(report["authentication_results"]) if field["removed"]}


def test_a_message_with_its_reasons(report):
    found = report(FORGED + FOREIGN + REST, *SENT, "--client-name", "mail.pass.example")
    facts = ("authserv_id", "client", "client_name", "helo", "mail_from", "origin", "left_out")
    assert [found[name] for name in facts] == [
        *(US, CLIENT, "mail.pass.example", "mail.pass.example", "<alice@pass.example>", "outside", 0),
    ]
    assert [(each["removed"], each["why"]) for each in found["authentication_results"]] == [
        (True, "says that it is ours"),
        (False, "of another host"),
    ]
    mail_from, helo = found["spf"]["results"]
    assert (mail_from["result"], mail_from["reason"]) == ("pass", "matched include:_spf.pass.example > mx")
    assert [(step["depth"], step["term"], step["matched"]) for step in mail_from["steps"]] == [
        (0, "", None),
        (0, "include:_spf.pass.example", True),
        (1, "", None),
        (1, "a:x.example", False),
        (1, "mx", True),
    ]
    assert [query["type"] for step in helo["steps"] for query in step["queries"]] == ["TXT", "A"]
    (field,) = found["header_fields_added"]
    assert field["name"] == "Authentication-Results"
    assert field["value"].startswith(f"{US}; spf=pass")
    assert field["lines"][0] == f"Authentication-Results: {US};"


def test_on_a_terminal(run):
    done = run(DELIVERED)
    assert (done.exit_code, done.stderr) == (0, "")
    for text in (
        f"as {US} (milter.authserv_id) judges it now",
        f"client      mail.pass.example[{CLIENT}] (hop 1)",
        "MAIL FROM   <alice@pass.example> (Return-Path)",
        "origin      outside: no login, no daemon name and no network makes it ours",
        "left out    3 header fields",
        "stays: of another host: other.example; dkim=pass header.d=x.example",
        "SPF of MAIL FROM: pass",
        "      TXT pass.example: found",
        "          v=spf1 include:_spf.pass.example -all",
        "Verdict: accept",
        f"  Authentication-Results: {US};",
        "questions, asked now",
    ):
        assert text in done.stdout


def test_received_spf_stands_below_our_results(report, config):
    config(spf={"received_spf": True})
    added = [each["name"] for each in report(REST, *SENT)["header_fields_added"]]
    assert added == ["Authentication-Results", "Received-SPF", "Received-SPF"]


# Whose mail it is ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "origin", "why"),
    [
        (["--login", "alice"], "authenticated client", "the client has authenticated: alice"),
        (
            ["--daemon-name", "ORIGINATING"],
            "originating service",
            "daemon name ORIGINATING is in milter.originating",
        ),
        (["--client-ip", "10.9.9.9"], "internal network", "10.9.9.9 is in 10.0.0.0/8, in internal_networks"),
        (
            ["--client-ip", "198.51.100.9"],
            "trusted relay",
            "198.51.100.9 is in 198.51.100.0/24, in trusted_relays",
        ),
        (["--daemon-name", "OTHER"], "outside", "no login, no daemon name and no network"),
    ],
)
def test_origins(report, options, origin, why):
    found = report(FORGED + REST, *SENT, *options)
    assert found["origin"] == origin
    assert why in found["origin_why"]
    assert found["authentication_results"][0]["removed"]
    assert bool(found["spf"]["results"]) is (origin == "outside")
    assert bool(found["header_fields_added"]) is (origin in ("outside", "trusted relay"))


@pytest.mark.parametrize(
    ("exclude", "shown"),
    [
        (f"{CLIENT} spf, dkim", [{"of": f"client {CLIENT}", "skips": ["dkim", "spf"]}]),
        ("@pass.example all", [{"of": "MAIL FROM alice@pass.example", "skips": ["spf", "srs"]}]),
        ("@pass.example", [{"of": "MAIL FROM alice@pass.example", "skips": ["srs"]}]),
        ("@other.example all", []),
    ],
)
def test_exclusions(report, config, exclude, shown):
    config(exclude=exclude + "\n")
    found = report(REST, *SENT)
    assert found["exclusions"] == shown
    spf_is_skipped = any("spf" in each["skips"] for each in shown)
    assert found["spf"]["why_unchecked"] == ("excluded" if spf_is_skipped else "")


def test_a_faulty_exclusion_map(run, config):
    config(exclude="@pass.example nonsense\n")
    done = run(REST, *SENT)
    assert (done.exit_code, done.stdout) == (78, "")
    assert "line 1" in done.stderr


def test_all_files_of_the_daemon_are_needed(run, tmp_path):
    (tmp_path / "srs.secrets").unlink()
    done = run(DELIVERED)
    assert (done.exit_code, done.stdout) == (78, "")
    assert "srs.secrets: does not exist" in done.stderr


# What the message says itself ----------------------------------------------------------------------


def test_the_fields_of_this_host_are_left_out(report):
    ours = FORGED  # written by the milter, when the message came
    message = DELIVERED.replace("Delivered-To", f"{ours}Delivered-To")
    found = report(message)
    assert (found["client"], found["client_from"], found["left_out"]) == (CLIENT, "hop 1", 4)
    assert [each["removed"] for each in found["authentication_results"]] == [False]
    assert (found["queue_id"], found["mail_from"]) == ("4ZQ1v", "<alice@pass.example>")
    whole = report(message, "--whole")
    assert (whole["client"], whole["left_out"]) == (CLIENT, 0)
    assert [each["removed"] for each in whole["authentication_results"]] == [True, False]


def test_a_content_filter_on_the_way(report):
    again = f"Received: from {US} (localhost [127.0.0.1]) by {US} (Postfix) with ESMTP id B; x\n"
    found = report(f"Return-Path: <alice@pass.example>\n{again}{FORGED}{TRACE}{FOREIGN}{REST}")
    assert (found["client_from"], found["left_out"], found["queue_id"]) == ("hop 2", 4, "4ZQ1v")
    of_the_filter = report(again + FORGED + TRACE + REST, "--client-ip", "127.0.0.1", "--mail-from", "")
    assert (of_the_filter["origin"], of_the_filter["left_out"]) == ("internal network", 1)


def test_a_client_that_is_not_in_the_message_gets_all_of_it(report):
    found = report(DELIVERED, "--client-ip", "203.0.113.1")
    assert (found["client"], found["client_from"], found["left_out"]) == ("203.0.113.1", "--client-ip", 0)
    assert (found["client_name"], found["helo"], found["queue_id"]) == ("unknown", "", "")


def test_a_relay_is_the_client_that_the_milter_saw(report):
    relay = f"Received: from r.example (r.example [198.51.100.4]) by {US} (Postfix) with ESMTP id A; x\n"
    found = report(relay + TRACE + REST, "--mail-from", "alice@pass.example")
    assert (found["client"], found["origin"], found["left_out"]) == ("198.51.100.4", "trusted relay", 1)


def test_a_submission_is_seen_as_one(report):
    found = report(DELIVERED.replace("with ESMTPS", "with ESMTPSA"))
    assert (found["origin"], found["header_fields_added"]) == ("authenticated client", [])


def test_an_srs_sender_is_what_it_was(report):
    srs = Srs(SrsParameters(), Keyring([SECRET.encode()]))
    address = srs.forward(Address(b"alice", b"pass.example"), today()).decode() + "@srs.here.example"
    found = report(DELIVERED.replace("alice@pass.example", address))
    assert (found["mail_from"], found["mail_from_from"]) == ("<alice@pass.example>", "Return-Path, reversed")
    assert spf(found)["MAIL FROM"] == "pass"


@pytest.mark.parametrize(
    ("message", "options", "missing"),
    [
        (REST, ["--mail-from", "a@b.example"], "--client-ip names one"),
        (REST, ["--client-ip", CLIENT], "--mail-from names one"),
        (REST, [*SENT, "--record", "a", "--replay", "b"], "exclude each other"),
        (REST, [*SENT, "--client-ip", "x"], "is not an IP address"),
    ],
)
def test_wrong_usage(run, message, options, missing):
    done = run(message, *options)
    assert (done.exit_code, done.stdout) == (2, "")
    assert missing in done.stderr


@pytest.mark.parametrize("message", ["", b"\0" * 1000, "no field\n"])
def test_what_is_no_message(run, message):
    done = run(message, *SENT)
    assert (done.exit_code, done.stdout) == (1, "")
    assert "has no header field" in done.stderr


# DNS answers in a file -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "sender",
    [*(f"alice@{name}.example" for name in ("pass", "reverse", "fail", "broken", "nothing")), "<>"],
)
def test_a_case_can_be_looked_at_again_without_dns(report, config, tmp_path, sender):
    path = str(tmp_path / "answers.json")
    options = ("--client-ip", CLIENT, "--helo", "mail.pass.example", "--mail-from", sender)
    live = report(REST, *options, "--record", path)
    config(dns=DEAD)
    again = report(REST, *options, "--replay", path)
    assert again.pop("dns")["replayed"]
    assert not live.pop("dns")["replayed"]
    assert again == live
    assert again["spf"]["results"]


def test_what_is_in_the_file(report, tmp_path):
    path = tmp_path / "answers.json"
    report(REST, "--client-ip", CLIENT, "--helo", "x", "--mail-from", "a@pass.example", "--record", str(path))
    document = json.loads(path.read_text())
    answers = {
        (each["type"], each["name"]): (each["outcome"], each["records"]) for each in document["answers"]
    }
    assert answers["TXT", "pass.example"] == ("found", ["v=spf1 include:_spf.pass.example -all", "\xff"])
    assert answers["TXT", "_spf.pass.example"] == ("found", ["v=spf1 a:x.example mx ptr ?all"])
    assert document["version"] == 1


def test_the_clock_is_that_of_the_answers(report, tmp_path):
    path = tmp_path / "answers.json"
    signature = (
        f"DKIM-Signature: v=1; a=rsa-sha256; c=relaxed/relaxed; d=pass.example; s=none; t=1000; x=2000; h=From;\n"
        f" bh={b64encode(bytes(32)).decode()}; b={b64encode(bytes(256)).decode()}\n"
    )
    live = report(signature + REST, *SENT, "--record", str(path))
    document = json.loads(path.read_text())
    path.write_text(json.dumps({**document, "now": 1500}))
    then = report(signature + REST, *SENT, "--replay", str(path))
    assert "expired" in live["dkim"]["signatures"][0]["reason"]
    assert "expired" not in then["dkim"]["signatures"][0]["reason"]


def test_what_was_not_recorded_timed_out(report, config, tmp_path):
    path = str(tmp_path / "answers.json")
    report(REST, *SENT, "--record", path)
    config(dns=DEAD)
    found = report(REST, *SENT, "--mail-from", "x@other.example", "--replay", path)
    assert spf(found) == {"MAIL FROM": "temperror", "HELO": "pass"}
    assert found["warnings"] == ["no answer was recorded for TXT other.example"]


GOOD = {
    "format": "srsd DNS answers",
    "version": 1,
    "now": 1,
    "answers": [{"type": "A", "name": "a.example", "outcome": "found", "records": ["192.0.2.1"], "authenticated": False}],
}  # fmt: skip


def changed(**words: Any) -> str:
    return json.dumps({**GOOD, "answers": [{**GOOD["answers"][0], **words}]})


def test_the_example_of_a_file_is_good(report, tmp_path):
    (tmp_path / "answers.json").write_text(changed())
    assert report(REST, *SENT, "--replay", str(tmp_path / "answers.json"))["dns"]["replayed"]


@pytest.mark.parametrize(
    "text",
    [
        *(
            "",
            "x",
            "[]",
            "{}",
            "null",
            "[" * 100_000,
            json.dumps({**GOOD, "version": 2}),
            json.dumps({**GOOD, "now": "x"}),
        ),
        *(
            json.dumps({**GOOD, "now": 1e400}),
            json.dumps({**GOOD, "answers": 1}),
            json.dumps({**GOOD, "answers": [1]}),
        ),
        *(changed(type="X"), changed(type=[]), changed(name=1), changed(name="\u20ac"), changed(outcome="x")),
        *(
            changed(outcome=1),
            changed(records=["x"]),
            changed(records=[[]]),
            changed(records=[]),
            changed(records=None),
        ),
        *(changed(type="MX", records=[[]]), changed(type="MX", records=["x"]), changed(outcome="timed_out")),
    ],
    ids=str,
)
def test_a_file_of_something_else(run, tmp_path, text):
    path = tmp_path / "answers.json"
    path.write_text(text)
    done = run(REST, *SENT, "--replay", str(path))
    assert (done.exit_code, done.stdout) == (1, "")
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"{path}: has no answers that srsctl explain --record wrote: ")


def test_files_that_cannot_be_used(run, tmp_path):
    done = run(REST, *SENT, "--replay", str(tmp_path / "nothing"))
    assert (done.exit_code, done.stderr) == (
        1,
        f"{tmp_path}/nothing: cannot be read: No such file or directory\n",
    )
    done = run(REST, *SENT, "--record", str(tmp_path / "no/where"))
    assert done.exit_code == 1
    assert done.stderr.startswith(f"{tmp_path}/no/where: cannot be written: ")


# What is hostile -----------------------------------------------------------------------------------

ESCAPES = "\x1b[31m\x07\x9b1m\u202e\x7f"


def test_nothing_steers_the_terminal(run):
    message = (
        f"Return-Path: <{ESCAPES}@pass.example>\nReceived: from {ESCAPES} ({ESCAPES} [{CLIENT}]) by {ESCAPES} with x id "
        f"{ESCAPES}; x\nAuthentication-Results: {ESCAPES}; none\n{FOREIGN.replace('pass', ESCAPES)}{REST}"
    )
    for arguments in ((), ("--json",), ("--login", ESCAPES, "--helo", ESCAPES), ("--whole",)):
        done = run(message, *arguments)
        assert done.exit_code == 0
        shown = done.stdout + done.stderr
        assert "".join(char for char in shown if not char.isprintable() and char != "\n") == ""


def test_very_many_forged_fields(report, run):
    message = FORGED * 5_000 + FOREIGN + REST
    found = report(message, *SENT)
    assert [each["removed"] for each in found["authentication_results"]] == [True] * 5_000 + [False]
    assert "and 4951 more; 5000 of all are removed" in run(message, *SENT).stdout
