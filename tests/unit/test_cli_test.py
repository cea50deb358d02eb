"""srsctl test: hops and how far they are believed, results in the header, Return-Path, SPF, exit statuses."""

from __future__ import annotations

import json
import os
import pty
import subprocess
from typing import TYPE_CHECKING, Any

import pytest
from click.testing import CliRunner, Result

from harness.daemon import command, write_config
from harness.dns_server import DnsServer
from srsd.cli import mail as mail_module
from srsd.cli.main import main
from srsd.daemon.service import today
from srsd.resolving import Outcome
from srsd.srs import Keyring, Srs, SrsParameters
from srsd.syntax.address import Address

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

SECRET = "the tests' only secret"
US = "mx.here.example"
ZONES = {
    ("pass.example", "TXT"): ["v=spf1 ip4:192.0.2.7 -all"],
    ("fail.example", "TXT"): ["v=spf1 ip4:192.0.2.99 -all"],
    ("softfail.example", "TXT"): ["v=spf1 ~all"],
    ("neutral.example", "TXT"): ["v=spf1 ?all"],
    ("permerror.example", "TXT"): ["v=spf1 \x1b[31mred"],
    ("temperror.example", "TXT"): Outcome.SERVER_FAILURE,
    ("none.example", "TXT"): ["nothing"],
    ("six.example", "TXT"): ["v=spf1 ip6:2001:db8::7 -all"],
}
# As Postfix writes it; who brought it, and when.
RECEIVED = (
    "Received: from {helo} ({name} [{ip}])\n\tby {by} (Postfix) with {protocol} id 4ZQ1v\n"
    "\tfor <bob@here.example>; Mon, 02 Feb 2026 10:00:{second:02} +0000 (UTC)\n"
)


def received(ip: str = "192.0.2.7", **words: Any) -> str:
    known = {"helo": "pass.example", "name": "mail.pass.example", "by": US, "protocol": "ESMTPS", "second": 0}
    return RECEIVED.format(**known | {"ip": ip} | words)


def results(text: str) -> str:
    return f"Authentication-Results: {text}\n"


OURS = results(f"{US};\n\tspf=pass smtp.mailfrom=alice@pass.example")
FORGED = results(f"{US.upper()} 1; dkim=pass header.d=bank.example")
REST = "From: Alice <alice@pass.example>\nSubject: hello\n\nThe body.\n"


@pytest.fixture(scope="module")
def dns() -> Iterator[DnsServer]:
    with DnsServer(ZONES) as server:
        yield server


@pytest.fixture
def config(dns, tmp_path) -> Callable[..., Path]:
    def write(**tables: Any) -> Path:
        milter = {
            "authserv_id": US,
            "internal_networks": ["127.0.0.0/8", "10.0.0.0/8"],
            "trusted_relays": ["198.51.100.0/24"],
        }
        tables = {"dns": {"nameservers": [str(dns)], "timeout": 2.0}, "milter": milter} | tables
        return write_config(tmp_path, secrets=[SECRET], **tables)

    return write


@pytest.fixture
def run(config, tmp_path) -> Callable[..., Result]:
    """Run srsctl test on a text or octets, from standard input."""
    config(srs={"domain": "srs.here.example"})

    def run(message: str | bytes, *arguments: str) -> Result:
        line = ["--config", str(tmp_path / "srsd.toml"), "test", *arguments]
        result = CliRunner().invoke(main, line, input=message)
        assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
        return result

    return run


@pytest.fixture
def report(run) -> Callable[..., dict[str, Any]]:
    """Run srsctl test --json; the report, and that the exit status fits it."""

    def report(message: str | bytes, *arguments: str) -> dict[str, Any]:
        result = run(message, "--json", *arguments)
        assert result.stderr == ""
        report = json.loads(result.stdout)
        assert report["good"] is (result.exit_code == 0)
        return report

    return report


def spf(report: dict[str, Any]) -> dict[str, str]:
    return {each["identity"]: each["result"] for each in report["spf"]["results"]}


def made(age: int = 0, secret: str = SECRET, domain: str = "srs.here.example") -> str:
    srs = Srs(SrsParameters(), Keyring([secret.encode()]))
    return f"{srs.forward(Address(b'alice', b'pass.example'), today() - age).decode()}@{domain}"


def one_line(text: str) -> str:
    (line,) = text.splitlines()
    return line


# The whole -----------------------------------------------------------------------------------------


DELIVERED = (
    f"Return-Path: <alice@pass.example>\n{OURS}Received-SPF: Pass (x) client-ip=192.0.2.7\n{received(second=7)}"
    + results("relay.example; none")
    + received("203.0.113.5", helo="laptop", name="unknown", by="pass.example", protocol="ESMTPSA", second=2)
    + REST
)


def test_a_delivered_message(report):
    found = report(DELIVERED)
    assert [
        (hop["client"], hop["origin"], hop["trusted"], hop["delay_seconds"]) for hop in found["hops"]
    ] == [
        ("192.0.2.7", "outside", True, 5.0),
        ("203.0.113.5", None, False, None),
    ]
    assert found["hops"][0] == {
        "number": 1,
        "delay_seconds": 5.0,
        "helo": "pass.example",
        "client_name": "mail.pass.example",
        "client": "192.0.2.7",
        "origin": "outside",
        "by": US,
        "protocol": "ESMTPS",
        "id": "4ZQ1v",
        "date": "2026-02-02T10:00:07+00:00",
        "trusted": True,
    }
    assert found["return_path"] == {
        "text": "<alice@pass.example>",
        "trusted": True,
        "srs": None,
        "original": None,
        "why": [],
    }
    assert found["received_spf"] == [
        {"result": "pass", "trusted": True, "text": "Pass (x) client-ip=192.0.2.7"}
    ]
    ours, relay = found["authentication_results"]
    assert (ours["authserv_id"], ours["claims_to_be_ours"], ours["trusted"], ours["forged"]) == (
        US,
        True,
        True,
        False,
    )
    assert ours["results"] == [
        {
            "method": "spf",
            "result": "pass",
            "reason": "",
            "properties": {"smtp.mailfrom": "alice@pass.example"},
        }
    ]
    assert (relay["claims_to_be_ours"], relay["trusted"], relay["forged"]) == (False, False, False)
    asked = found["spf"]
    assert (asked["client"], asked["client_from"]) == ("192.0.2.7", "hop 1")
    assert (asked["helo"], asked["helo_from"]) == ("pass.example", "hop 1")
    assert (asked["mail_from"], asked["mail_from_from"]) == ("<alice@pass.example>", "Return-Path")
    assert spf(found) == {"MAIL FROM": "pass", "HELO": "pass"}
    assert asked["results"][0]["mechanism"] == "ip4:192.0.2.7"
    assert (found["warnings"], found["good"]) == ([], True)


def test_a_delivered_message_on_a_terminal(run):
    result = run(DELIVERED + "", "-")
    assert (result.exit_code, result.stderr) == (0, "")
    for text in (
        f"standard input, for {US} (milter.authserv_id)",
        "mail.pass.example[192.0.2.7]",
        "(outside)",
        "5 s",
        "HELO laptop",
        "Return-Path: <alice@pass.example>",
        "spf=pass smtp.mailfrom=alice@pass.example",
        "SPF now: client 192.0.2.7 (hop 1), HELO pass.example (hop 1), MAIL FROM <alice@pass.example> (Return-Path)",
        "matched ip4:192.0.2.7",
    ):
        assert text in result.stdout
    assert "warning" not in result.stdout


@pytest.mark.parametrize("line_end", ["\n", "\r\n"])
@pytest.mark.parametrize("start", ["", "From alice@pass.example Mon Feb  2 10:00:00 2026\n"])
def test_a_file_in_every_form(report, tmp_path, line_end, start):
    path = tmp_path / "message"
    path.write_bytes((start + DELIVERED).replace("\n", line_end).encode())
    found = report("", str(path))
    assert found.pop("file") == str(path)
    assert found == {name: value for name, value in report(DELIVERED).items() if name != "file"}


@pytest.mark.parametrize("line_end", ["\n", "\r\n"])
def test_lines_end_as_postfix_has_them_for_a_milter(line_end):
    message = "A: b\n c\nD:e\n\nbody\n\nmore\n".replace("\n", line_end).encode()
    mail = mail_module.parse_mail("x", message)
    assert mail.fields == [(b"A", b" b\n c"), (b"D", b"e")]
    assert mail.body == b"body\r\n\r\nmore\r\n"
    assert mail_module.parse_mail("x", b"A: b\nno field\n\nbody\n").body == b"no field\r\n\r\nbody\r\n"


# The way -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("header", "client", "origins"),
    [
        (received(), "192.0.2.7", ["outside"]),
        (received("127.0.0.1") + received(), "192.0.2.7", ["internal network", "outside"]),
        (received("10.1.2.3") + received("198.51.100.4") + received(), "192.0.2.7", ["internal network", "trusted relay", "outside"]),
        # What stands below a stranger's line is not believed, whatever it says.
        (received() + received("127.0.0.1") + received("203.0.113.5"), "192.0.2.7", ["outside", None, None]),
        ("Received: by mx.here.example with LMTP\n" + received(), "192.0.2.7", [None, "outside"]),
        (received("127.0.0.1"), None, ["internal network"]),
        (received("198.51.100.4"), None, ["trusted relay"]),
        ("Received: by mx.here.example (Postfix, from userid 1000) id A\n", None, [None]),
        (received("10.1.2.3", protocol="ESMTPSA") + received(), "192.0.2.7", ["internal network", "outside"]),
        ("", None, []),
    ],
    ids=["outside", "filter", "relays", "below", "lmtp", "internal", "relay only", "local", "login of ours", "none"],
)  # fmt: skip
def test_who_is_believed(report, header, client, origins):
    found = report(header + REST, "--mail-from", "alice@pass.example")
    assert [hop["origin"] for hop in found["hops"]] == origins
    assert found["spf"].get("client") == client
    if client is None:
        assert "--client-ip" in found["spf"]["why_unchecked"]
        assert found["good"]


def test_an_authenticated_client_is_not_asked_about(report):
    message = received(protocol="ESMTPSA") + received("203.0.113.5") + REST
    found = report(message, "--mail-from", "x@fail.example")
    assert [hop["origin"] for hop in found["hops"]] == ["authenticated client", None]
    assert not found["spf"]["checked"]
    assert "authenticated" in found["spf"]["why_unchecked"]
    assert (
        spf(report(message, "--mail-from", "x@fail.example", "--client-ip", "192.0.2.7"))["MAIL FROM"]
        == "fail"
    )


def test_delays_have_a_sign(report, run):
    message = (
        received(second=3)
        + received(second=50).replace("10:00", "12:00")
        + received().replace("02 Feb", "31 Jan")
        + REST
    )
    assert [hop["delay_seconds"] for hop in report(message)["hops"]] == [-7247.0, 180050.0, None]
    shown = run(message).stdout
    assert "-2.0 h" in shown
    assert "2.1 days" in shown


def test_more_hops_than_anybody_wants(report):
    found = report(received("127.0.0.1") * 300 + REST)
    assert len(found["hops"]) == 200
    assert "100 more Received fields were not looked at" in found["warnings"]


@pytest.mark.parametrize(
    ("message", "warning"),
    [
        (
            OURS + received(by="other.example") + REST,
            "was written by other.example, and we are mx.here.example",
        ),
        (OURS + received("192.168.1.1") + REST, "192.168.1.1 in hop 1 is a private address"),
        (received() + REST, "there are no Authentication-Results of ours"),
        (REST, "there is no Received field"),
        (results("x.example; none") + OURS + received() + REST, "are not on top"),
        (OURS + OURS + received() + REST, "there are 2 Authentication-Results of ours"),
        (OURS + received() + "Return-Path: <alice@pass.example>\n" + REST, "Return-Path stands below"),
        (OURS + received() + REST, "MAIL FROM is not known"),
        (OURS + received() + "no field\n" + REST, "the header ends at a line that is no field: no field"),
        (f"From x\n{OURS}{received()}{REST}\nFrom y\n{REST}", "the file holds several messages"),
    ],
)
def test_warnings(report, message, warning):
    found = report(message)
    assert [line for line in found["warnings"] if warning in line], found["warnings"]


# Results in the header -----------------------------------------------------------------------------


def test_forged_results_are_found(report, run):
    message = f"Return-Path: <alice@pass.example>\n{OURS}{received()}{FORGED}{results('garbage (')}{REST}"
    found = report(message)
    assert [(each["forged"], each["why"]) for each in found["authentication_results"]] == [
        (False, "says that it is ours"),
        (True, "says that it is ours"),
        (True, "cannot be read for certain, so it could be taken for ours"),
    ]
    assert not found["good"]
    assert spf(found)["MAIL FROM"] == "pass"
    assert run(message).stdout.count("FORGED") == 2


def test_a_forged_one_behind_many_others(report, run):
    message = OURS + received() + results("x.example; none") * 300 + FORGED + REST
    found = report(message)
    assert [each["forged"] for each in found["authentication_results"]] == [False] * 301 + [True]
    assert not found["good"]
    assert "and 252 more" in run(message).stdout


def test_without_any_hop_all_claims_are_forged(report):
    assert [each["forged"] for each in report(OURS + REST)["authentication_results"]] == [True]


def test_our_name_from_the_command_line_wins(report):
    found = report(received() + FORGED + REST, "--authserv-id", "Other.Example")
    assert (found["authserv_id"], found["authserv_id_from"]) == ("other.example", "--authserv-id")
    assert not found["authentication_results"][0]["forged"]


def test_our_name_from_postconf_or_the_host(report, config, tmp_path, monkeypatch):
    config(milter={})
    postconf = tmp_path / "bin/postconf"
    postconf.parent.mkdir()
    postconf.write_text('#!/bin/sh\n[ "$*" = "-h myhostname" ] && echo MX.Postconf.example\n')
    postconf.chmod(0o755)
    monkeypatch.setenv("PATH", str(postconf.parent))
    found = report(REST)
    assert (found["authserv_id"], found["authserv_id_from"]) == (
        "mx.postconf.example",
        "postconf -h myhostname",
    )
    postconf.write_text("#!/bin/sh\nexit 1\n")
    monkeypatch.setattr("socket.gethostname", lambda: "host.example")
    found = report(REST)
    assert (found["authserv_id"], found["authserv_id_from"]) == ("host.example", "the host name")


# Return-Path ---------------------------------------------------------------------------------------


def delivered_from(path: str) -> str:
    return f"Return-Path: {path}\n{OURS}{received()}{REST}"


def test_an_srs_sender_is_reversed(report, run):
    address = made(3)
    found = report(delivered_from(f"<{address}>"))
    assert found["return_path"]["srs"] == "valid"
    assert found["return_path"]["original"] == "alice@pass.example"
    assert "made 3 days ago, good for 18 days more" in found["return_path"]["why"]
    assert (found["spf"]["mail_from"], found["spf"]["mail_from_from"]) == (
        "<alice@pass.example>",
        "Return-Path, reversed",
    )
    assert spf(found)["MAIL FROM"] == "pass"
    assert f"Return-Path: <{address}> (SRS, ours, valid)" in run(delivered_from(f"<{address}>")).stdout
    assert SECRET not in json.dumps(found)


def test_an_expired_srs_sender_is_still_the_one_we_made(report):
    found = report(delivered_from(f"<{made(30)}>"))
    assert (found["return_path"]["srs"], found["return_path"]["why"][0]) == ("invalid", "address expired")
    assert found["spf"]["mail_from"] == "<alice@pass.example>"


@pytest.mark.parametrize(
    ("address", "srs", "why"),
    [
        (made(secret="another"), "invalid", "hash invalid"),
        ("SRS0=x@srs.here.example", "invalid", "malformed SRS address"),
        (made(domain="other.example"), "foreign", "an SRS address of another host"),
    ],
)
def test_an_srs_sender_that_we_did_not_make_stays(report, address, srs, why):
    found = report(delivered_from(f"<{address}>"))
    assert (found["return_path"]["srs"], found["return_path"]["why"][0]) == (srs, why)
    assert found["spf"]["mail_from"] == f"<{address}>"


def test_without_a_domain_no_srs_address_is_ours(report, config):
    config()
    found = report(delivered_from(f"<{made()}>"))
    assert found["return_path"]["srs"] == "foreign"
    assert "srs.domain is empty" in found["return_path"]["why"][0]


def test_secrets_that_cannot_be_read_are_said(report, tmp_path):
    (tmp_path / "srs.secrets").chmod(0o644)
    found = report(delivered_from(f"<{made()}>"))
    assert found["return_path"]["srs"] == "not examined"
    assert "chmod" in found["return_path"]["why"][0]
    assert spf(report(delivered_from("<alice@pass.example>")))["MAIL FROM"] == "pass"  # needs no secrets


def test_the_null_sender(report):
    found = report(delivered_from("<>"))
    assert found["return_path"]["why"] == ["the null sender: a bounce, or the like"]
    assert spf(found) == {"MAIL FROM": "pass"}  # postmaster at HELO
    assert found["spf"]["results"][0]["checked_domain"] == "pass.example"


def test_a_return_path_of_a_stranger_is_not_taken(report):
    found = report(OURS + received() + "Return-Path: <x@fail.example>\n" + REST)
    assert not found["return_path"]["trusted"]
    assert found["spf"]["mail_from"] is None
    assert spf(found) == {"HELO": "pass"}


# SPF and the exit status ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("domain", "result", "status"),
    [
        *((f"{each}.example", each, 0) for each in ("pass", "neutral", "none", "temperror")),
        *((f"{each}.example", each, 1) for each in ("fail", "softfail", "permerror")),
    ],
)
def test_the_exit_status_follows_spf(run, domain, result, status):
    done = run(OURS + received() + REST, "--mail-from", f"alice@{domain}", "--json")
    assert (spf(json.loads(done.stdout))["MAIL FROM"], done.exit_code) == (result, status)


@pytest.mark.parametrize(
    ("helo", "status"), [("fail.example", 1), ("softfail.example", 0), ("permerror.example", 0)]
)
def test_of_helo_only_fail_counts(run, helo, status):
    done = run(OURS + received() + REST, "--mail-from", "a@pass.example", "--helo", helo, "--json")
    assert (spf(json.loads(done.stdout))["HELO"], done.exit_code) == (helo.partition(".")[0], status)


def test_options_win_over_the_message(report):
    options = ("--client-ip", "[2001:db8::7]", "--helo", "six.example", "--mail-from", "<bob@six.example>")
    asked = report(DELIVERED, *options)["spf"]
    assert (asked["client"], asked["client_from"]) == ("2001:db8::7", "--client-ip")
    assert (asked["helo"], asked["helo_from"]) == ("six.example", "--helo")
    assert (asked["mail_from"], asked["mail_from_from"]) == ("<bob@six.example>", "--mail-from")
    assert [each["result"] for each in asked["results"]] == ["pass", "pass"]


def test_no_message_is_needed_to_ask_spf(report):
    found = report("", "--client-ip", "::ffff:192.0.2.7", "--mail-from", "a@pass.example")
    assert found["spf"]["client"] == "192.0.2.7"
    assert spf(found)["MAIL FROM"] == "pass"
    assert (found["hops"], found["warnings"]) == ([], [])


def test_a_dead_name_server_is_no_crash(report, config):
    config(dns={"nameservers": ["127.0.0.1:9"], "timeout": 0.2, "message_deadline": 1.0})
    assert spf(report(DELIVERED)) == {"MAIL FROM": "temperror", "HELO": "temperror"}


# What is no message, and what is hostile -----------------------------------------------------------


@pytest.mark.parametrize(
    ("message", "says"),
    [
        ("", "has no header field, so it is no message"),
        ("no field\n" + REST, "has no header field, so it is no message"),
        ("\n" + REST, "has no header field, so it is no message"),
        (b"\0\xff" * 1000, "has no header field, so it is no message"),
        ("A: b\n" * 500_000, "its header has more than 2,000,000 octets, which no mail has"),
    ],
)
def test_what_is_no_message(run, message, says):
    done = run(message)
    assert (done.exit_code, done.stdout, one_line(done.stderr)) == (1, "", f"standard input: {says}")


def test_a_message_that_is_too_big(run, monkeypatch):
    monkeypatch.setattr(mail_module, "MESSAGE_MAXIMUM", len(DELIVERED))
    assert run(DELIVERED).exit_code == 0
    done = run(DELIVERED + "x")
    assert done.exit_code == 1
    assert one_line(done.stderr).startswith("standard input: has more than ")


def test_a_file_that_cannot_be_read(run, tmp_path):
    done = run("", str(tmp_path / "nothing\x1b[1m"))
    assert (done.exit_code, done.stdout) == (1, "")
    assert one_line(done.stderr) == f"{tmp_path}/nothing\\x1b[1m: cannot be read: No such file or directory"
    assert run("", str(tmp_path)).exit_code == 1


@pytest.mark.parametrize("address", ["300.1.1.1", "x", "192.0.2.0/24", ""])
def test_what_is_no_client(run, address):
    done = run(DELIVERED, "--client-ip", address)
    assert done.exit_code == 2
    assert "is not an IP address" in done.stderr


def test_a_faulty_configuration(run, config):
    config(dns={"timeout": -1})
    done = run(DELIVERED)
    assert (done.exit_code, done.stdout) == (78, "")
    assert "dns.timeout" in one_line(done.stderr)


ESCAPES = "\x1b[31m\x07\x9b1m\u202e[bold]x[/bold]\t\x7f"


def test_nothing_in_a_message_steers_the_terminal(run):
    message = (
        f"Return-Path: <SRS0={ESCAPES}@srs.here.example>\n{results(f'{ESCAPES}; spf=pass')}"
        f"Received-SPF: pass {ESCAPES}\n{received(helo=ESCAPES.replace(chr(9), ''), name='[bold]y')}"
        f"{received(by='[red]z')}{results(f'x.example; spf=pass reason={ESCAPES}')}{REST}"
    )
    for arguments in ((), ("--json",), ("--helo", ESCAPES, "--mail-from", f"{ESCAPES}@permerror.example")):
        done = run(message, *arguments)
        shown = done.stdout + done.stderr
        assert "".join(char for char in shown if not char.isprintable() and char != "\n") == ""
        assert "[bold]x[/bold]" in shown  # as text, not as markup


def test_nothing_in_a_message_is_markup(run):
    message = (
        f"{results('x.example; spf=pass smtp.mailfrom=[bold]a')}Received-SPF: pass [bold]b\n"
        f"{received(name='[bold]c', by='[bold]d')}{REST}"
    )
    shown = run(message, "--helo", "[bold]e").stdout
    assert all(f"[bold]{letter}" in shown for letter in "bcde")
    assert "spf=pass smtp.mailfrom=[bold]a" in shown


def test_without_a_file_on_a_terminal_it_does_not_wait(config):
    leader, follower = pty.openpty()
    try:
        line = [*command("srsctl"), "--config", str(config()), "test"]
        done = subprocess.run(line, stdin=follower, capture_output=True, text=True, timeout=20, check=False)
        assert (done.returncode, done.stdout) == (2, "")
        assert "give FILE" in done.stderr
        line += ["--client-ip", "192.0.2.7", "--mail-from", "a@pass.example", "--json"]
        done = subprocess.run(line, stdin=follower, capture_output=True, text=True, timeout=20, check=False)
        assert (done.returncode, json.loads(done.stdout)["file"]) == (0, "no message")
    finally:
        os.close(leader)
        os.close(follower)
