"""srsctl test, DKIM: what failed and why, answers from a file, the second opinion, exit statuses."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any

import pytest
from click.testing import CliRunner, Result

from harness.daemon import write_config
from harness.dkim_forge import Forge, ed25519_key, rsa_key
from harness.dns_server import DnsServer
from srsd.cli import cross_check as cross_check_module
from srsd.cli.dns_answers import KeptAnswers
from srsd.cli.dns_file import parse_zone_lines
from srsd.cli.main import main
from srsd.resolving import Answer, Outcome
from srsd.syntax.header import HeaderField

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

US = "mx.here.example"
NOW = int(time.time())
BODY = "Hällo,\r\nall is well.\r\n".encode()
FIELDS = [
    HeaderField(b"From", b" Alice <alice@pass.example>"),
    HeaderField(b"Subject", b" hello"),
    HeaderField(b"Content-Transfer-Encoding", b" 8bit"),
]
TEMPLATE = (
    b" v=1; a=%b; c=relaxed/relaxed; d=pass.example; s=%b;%b\r\n"
    b"\th=from:subject:to:content-transfer-encoding; bh=%%BH%%;\r\n\tb=%%B%%"
)
RSA, ED25519 = rsa_key(), ed25519_key()
RECEIVED = (
    b"Received: from pass.example (mail.pass.example [192.0.2.7])\n\tby mx.here.example (Postfix) with ESMTPS id A\n"
    b"\tfor <bob@here.example>; Mon, 02 Feb 2026 10:00:00 +0000 (UTC)\n"
)


def record(key: Any) -> list[list[str]]:
    text = key.record.decode()
    return [[text[at : at + 255] for at in range(0, len(text), 255)]]


ZONES = {
    ("pass.example", "TXT"): ["v=spf1 a:mail.pass.example mx -all"],
    ("mail.pass.example", "A"): ["192.0.2.7"],
    ("rsa._domainkey.pass.example", "TXT"): record(RSA),
    ("ed._domainkey.pass.example", "TXT"): record(ED25519),
    ("revoked._domainkey.pass.example", "TXT"): ["v=DKIM1; p="],
    ("broken._domainkey.pass.example", "TXT"): Outcome.SERVER_FAILURE,
    ("two._domainkey.pass.example", "TXT"): [*record(RSA), *record(ED25519)],
}


@pytest.fixture(scope="module")
def dns() -> Iterator[DnsServer]:
    with DnsServer(ZONES) as server:
        yield server


@pytest.fixture
def run(dns, tmp_path) -> Callable[..., Result]:
    path = write_config(
        tmp_path,
        secrets=["secret"],
        dns={"nameservers": [str(dns)], "timeout": 2.0},
        milter={"authserv_id": US},
    )

    def run(message: bytes, *arguments: str) -> Result:
        result = CliRunner().invoke(main, ["--config", str(path), "test", *arguments], input=message)
        assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
        return result

    return run


@pytest.fixture
def report(run) -> Callable[..., dict[str, Any]]:
    def report(message: bytes, *arguments: str) -> dict[str, Any]:
        result = run(message, "--json", *arguments)
        assert result.stderr == ""
        found = json.loads(result.stdout)
        assert found["good"] is (result.exit_code == 0)
        return found

    return report


def sign(selector: bytes = b"rsa", more: bytes = b"", key: Any = RSA) -> HeaderField:
    algorithm = b"rsa-sha256" if key is RSA else b"ed25519-sha256"
    return Forge(key).sign(FIELDS, BODY, TEMPLATE % (algorithm, selector, more))


def written(*signatures: HeaderField, fields: list[HeaderField] = FIELDS, body: bytes = BODY) -> bytes:
    header = b"".join(name + b":" + value + b"\r\n" for name, value in (*signatures, *fields))
    return (RECEIVED.replace(b"\n", b"\r\n") + header + b"\r\n" + body).replace(b"\r\n", b"\n")


def subject(value: bytes) -> list[HeaderField]:
    return [HeaderField(name, value if name == b"Subject" else old) for name, old in FIELDS]


# What failed ---------------------------------------------------------------------------------------


def test_signatures_that_pass(report, run):
    message = written(sign(), sign(b"ed", key=ED25519))
    found = report(message)
    assert found["good"]
    assert (found["dkim"]["passed"], found["dkim"]["not_examined"]) == (2, 0)
    rsa, ed25519 = found["dkim"]["signatures"]
    assert (rsa["number"], rsa["result"], rsa["domain"], rsa["selector"]) == (
        1,
        "pass",
        "pass.example",
        "rsa",
    )
    assert (rsa["algorithm"], rsa["key_bits"], rsa["canonicalization"]) == (
        "rsa-sha256",
        1024,
        "relaxed/relaxed",
    )
    assert rsa["key_name"] == "rsa._domainkey.pass.example"
    assert rsa["signed_fields"] == ["from", "subject", "to", "content-transfer-encoding"]
    assert (rsa["header_intact"], rsa["body_intact"], rsa["why"], rsa["likely_cause"]) == (
        True,
        True,
        [],
        None,
    )
    assert (ed25519["result"], ed25519["algorithm"]) == ("pass", "ed25519-sha256")
    shown = run(message).stdout
    assert "DKIM now: 2 of 2 signatures pass" in shown
    assert "1. pass: the signature verified: d=pass.example s=rsa a=rsa-sha256" in shown


def test_a_message_without_signatures(report, run):
    found = report(written())
    assert (found["good"], found["dkim"]) == (True, {"signatures": [], "not_examined": 0, "passed": 0})
    assert "DKIM: no signature" in run(written()).stdout


@pytest.mark.parametrize(
    ("message", "header", "body", "causes"),
    [
        (written(sign(), body=BODY + b"____\r\nThe list\r\n"), True, False, {"footer": "2 lines: ____"}),
        (written(sign(), fields=subject(b" [list] hello")), False, True, {"prefix": "[list]"}),
        (
            written(sign(), fields=subject(b" [list] hello"), body=BODY + b"The list\r\n"),
            False,
            False,
            {"footer": "1 line: The list", "prefix": "[list]"},
        ),
        (
            written(
                sign(),
                fields=[*FIELDS[:2], HeaderField(b"Content-Transfer-Encoding", b" quoted-printable")],
                body=b"H=C3=A4llo,\r\nall is we=\r\nll.\r\n",
            ),
            False,
            False,
            {"downgraded": "quoted-printable", "transfer_encoding": "quoted-printable, was 8bit"},
        ),
        (
            written(sign(), fields=[*FIELDS, HeaderField(b"To", b" bob@here.example")]),
            False,
            True,
            {"field_added": "to:bob@here.example"},
        ),
    ],
    ids=["footer", "prefix", "both", "downgraded", "added"],
)
def test_what_was_changed_is_proved(report, run, message, header, body, causes):  # noqa: PLR0917
    found = report(message)
    (signature,) = found["dkim"]["signatures"]
    assert (signature["result"], found["good"]) == ("fail", False)
    assert (signature["header_intact"], signature["body_intact"]) == (header, body)
    cause = signature["likely_cause"]
    assert {each["cause"]: each["detail"] for each in cause["changes"]} == causes
    assert cause["proved"]
    for each in cause["changes"]:
        assert f"{each['text']} ({each['detail']})" in cause["text"]
    shown = run(message)
    assert shown.exit_code == 1
    assert "proved" in shown.stdout
    assert "DKIM now: 0 of 1 signatures pass" in shown.stdout


def test_what_cannot_be_known_is_said(report):
    (signature,) = report(written(sign(), fields=subject(b" other"), body=b"evil"))["dkim"]["signatures"]
    cause = signature["likely_cause"]
    assert not cause["proved"]
    assert "none of the usual ones, or the key in DNS is not the one that signed" in cause["text"]
    assert "signed, but not there, so signed as absent or taken away since: to" in signature["why"]
    assert any("from, subject, to, content-transfer-encoding" in line for line in signature["why"])


def test_a_mailing_list_is_a_hint(report):
    fields = [HeaderField(b"List-Id", b" <l>"), *subject(b" other")]
    (signature,) = report(written(sign(), fields=fields))["dkim"]["signatures"]
    assert signature["likely_cause"]["text"].endswith(
        "it came through a mailing list, and those change messages"
    )


def test_another_key_of_the_same_size(report):
    field = Forge(rsa_key(1024, 1)).sign(FIELDS, BODY, TEMPLATE % (b"rsa-sha256", b"rsa", b""))
    (signature,) = report(written(field))["dkim"]["signatures"]
    assert (signature["result"], signature["body_intact"]) == ("fail", True)
    assert "the key in DNS is not the one that signed" in signature["likely_cause"]["text"]


def test_copies_in_z(report):
    message = written(sign(more=b" z=Subject:hello;"), fields=subject(b" bye"))
    (signature,) = report(message)["dkim"]["signatures"]
    assert 'z= of the signature says that subject was "hello"; it is "bye"' in signature["why"]


@pytest.mark.parametrize(
    ("selector", "result", "reason", "text"),
    [
        (b"none", "permerror", "there is no key (no such domain)", "DNS has no key there"),
        (b"revoked", "permerror", "the key is revoked", "has withdrawn the key"),
        (b"broken", "temperror", "the key could not be asked for (server failure)", "DNS gave no answer"),
        (
            b"two",
            "permerror",
            "there are several TXT records where the key should be",
            "leave one TXT record",
        ),
        (b"ed", "permerror", "the key is not for the signature's algorithm", "of another algorithm"),
    ],
)
def test_what_is_wrong_with_the_key(report, selector, result, reason, text):
    found = report(written(sign(selector)))
    (signature,) = found["dkim"]["signatures"]
    assert (signature["result"], signature["reason"]) == (result, reason)
    assert text in signature["likely_cause"]["text"]
    assert (
        f"the key would be the TXT record of {selector.decode()}._domainkey.pass.example" in signature["why"]
    )
    assert "the body is as it was signed" in signature["why"]
    assert not found["good"]


def test_an_expired_signature(report):
    more = b" t=1000000000; x=1000086400;"
    (signature,) = report(written(sign(more=more)))["dkim"]["signatures"]
    assert (signature["result"], signature["expires"]) == ("fail", "2001-09-10T01:46:40+00:00")
    assert signature["why"] == ["expired at 2001-09-10T01:46:40+00:00"]
    assert (signature["header_intact"], signature["body_intact"]) == (True, True)
    assert signature["likely_cause"]["text"] == (
        "the message is older than its signature is good for, and is otherwise as it was signed"
    )
    (signature,) = report(written(sign(more=more), body=BODY + b"x\r\n"))["dkim"]["signatures"]
    assert [each["cause"] for each in signature["likely_cause"]["changes"]] == ["footer"]


def test_one_that_passes_is_enough(report):
    found = report(written(sign(b"none"), sign()))
    assert [each["result"] for each in found["dkim"]["signatures"]] == ["permerror", "pass"]
    assert found["good"]


def test_more_signatures_than_are_looked_at(report, run):
    message = written(*[sign()] * 12)
    found = report(message)
    assert (len(found["dkim"]["signatures"]), found["dkim"]["not_examined"]) == (10, 2)
    assert "2 more signatures are not looked at" in run(message).stdout


# A file instead of DNS -----------------------------------------------------------------------------


def zone_line(name: str = "rsa._domainkey.pass.example", key: Any = RSA) -> str:
    (strings,) = record(key)
    return f"{name}. IN TXT ( {' '.join(f'{chr(34)}{each}{chr(34)}' for each in strings)} )\n"


def test_zone_lines_stand_for_dns(report, dns, tmp_path):
    path = tmp_path / "keys"
    path.write_text("As a line of a zone file:\n\n" + zone_line())
    asked = len(dns.asked)
    found = report(written(sign(), sign(b"ed", key=ED25519)), "--dns-file", str(path))
    assert [each["result"] for each in found["dkim"]["signatures"]] == ["pass", "permerror"]
    assert found["dns"] == {"file": str(path)}
    assert f"{path} has no answer for TXT ed._domainkey.pass.example" in found["warnings"]
    assert len(dns.asked) == asked


def test_recorded_answers_stand_for_dns(report, dns, tmp_path):
    kept = KeptAnswers(None, NOW)
    kept._answers["TXT", b"rsa._domainkey.pass.example"] = Answer(Outcome.FOUND, (RSA.record,))
    path = tmp_path / "answers.json"
    kept.write(str(path))
    asked = len(dns.asked)
    found = report(written(sign()), "--dns-file", str(path))
    assert found["dkim"]["passed"] == 1
    assert f"{path} has no answer for TXT pass.example" in found["warnings"]
    assert len(dns.asked) == asked


@pytest.mark.parametrize(
    ("text", "records"),
    [
        ('a.example TXT "b"', {b"a.example": [b"b"]}),
        ('A.Example. 3600 IN TXT "b" "c" ; "d"', {b"a.example": [b"bc"]}),
        ("a.example in 1h txt b;c", {b"a.example": [b"b"]}),
        (r'a TXT "x\"y\\z\059"', {b"a": [b'x"y\\z;']}),
        ('a TXT ( "b" ; one\n "c;d)"\n ) ; end\nb TXT "e"', {b"a": [b"bc;d)"], b"b": [b"e"]}),
        ('a TXT "1"\na TXT "2"\nmx MX 10 b\n; c TXT "3"', {b"a": [b"1", b"2"]}),
        ('a TXT ""', {b"a": [b""]}),
    ],
)
def test_zone_lines(text, records):
    assert parse_zone_lines(text.encode()) == records


@pytest.mark.parametrize(
    "text",
    ["", "nothing", "a TXT ", 'a TXT "open', 'a TXT ( "b"', "a A 192.0.2.1", '{"a": 1}', "{", "a TXT ()"],
)
def test_a_file_without_answers(run, tmp_path, text):
    path = tmp_path / "file"
    path.write_text(text)
    done = run(written(sign()), "--dns-file", str(path))
    assert (done.exit_code, done.stdout) == (1, "")
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"{path}: has no answers of DNS: ")


def test_a_file_that_is_not_there(run, tmp_path):
    done = run(written(), "--dns-file", str(tmp_path / "x"))
    assert (done.exit_code, done.stderr) == (1, f"{tmp_path}/x: cannot be read: No such file or directory\n")


@pytest.mark.parametrize(
    "text",
    ['a TXT "' + "\\" * 400_000, "a " * 200_000, "a TXT " + '"" ' * 200_000, "a TXT (" + "\n" * 200_000],
)
def test_a_hostile_file_is_read_in_a_moment(run, tmp_path, text):
    path = tmp_path / "file"
    path.write_text(text)
    started = time.process_time()
    run(written(), "--dns-file", str(path))
    assert time.process_time() - started < 5


# The second opinion --------------------------------------------------------------------------------


@pytest.fixture
def judges() -> None:
    pytest.importorskip("dkim", reason="dkimpy is not installed")
    pytest.importorskip("nacl", reason="PyNaCl is not installed: dkimpy knows no Ed25519 without it")


@pytest.mark.usefixtures("judges")
def test_all_agree(report, run):
    message = written(sign(), sign(b"ed", key=ED25519), sign(b"none"))
    arguments = ("--cross-check", "--mail-from", "alice@pass.example")
    found = report(message, *arguments)["cross_check"]
    assert (found["disagreements"], found["failure"]) == (0, None)
    assert [(each["who"], each["ours"], each["theirs"]) for each in found["comparisons"]] == [
        ("dkimpy", "pass", "pass"),
        ("dkimpy", "pass", "pass"),
        ("dkimpy", "permerror", "fail"),
        ("pyspf", "pass", "pass"),
        ("pyspf", "pass", "pass"),
    ]
    shown = run(message, *arguments)
    assert shown.exit_code == 0
    assert "Cross-check: no disagreements in 5" in shown.stdout


@pytest.mark.usefixtures("judges")
def test_a_disagreement_is_shown(report, run):
    message = written(sign(more=b" t=%d; x=%d;" % (NOW - 9000, NOW - 3600)), sign())
    found = report(message, "--cross-check")
    assert not found["good"]
    first, second, *_ = found["cross_check"]["comparisons"]
    assert (first["ours"], first["theirs"], first["agree"]) == ("fail", "pass", False)
    assert second["agree"]
    assert found["cross_check"]["disagreements"] == 1
    shown = run(message, "--cross-check").stdout
    assert "DISAGREE" in shown
    assert "the signature has expired" in shown


@pytest.mark.usefixtures("judges")
def test_they_answer_by_the_clock_of_the_recorded_answers(report, tmp_path):
    kept = KeptAnswers(None, 1_000_000_100)
    kept._answers["TXT", b"rsa._domainkey.pass.example"] = Answer(Outcome.FOUND, (RSA.record,))
    path = tmp_path / "answers.json"
    kept.write(str(path))
    message = written(sign(more=b" t=1000000000; x=1000086400;"))
    found = report(message, "--dns-file", str(path), "--cross-check")
    assert found["dkim"]["passed"] == 1
    assert [each["agree"] for each in found["cross_check"]["comparisons"] if each["who"] == "dkimpy"] == [
        True
    ]


def test_without_the_packages_it_says_so(run, monkeypatch):
    monkeypatch.setattr(cross_check_module, "find_spec", lambda name: None if name == "spf" else object())
    done = run(written(), "--cross-check")
    assert (done.exit_code, done.stdout) == (2, "")
    assert (
        done.stderr == "--cross-check needs pyspf, which is not installed: pip install 'srsd[crosscheck]'\n"
    )


@pytest.mark.usefixtures("judges")
def test_they_have_no_forever(report, monkeypatch):
    monkeypatch.setattr(cross_check_module, "_SECONDS", 0.01)
    found = report(written(sign()), "--cross-check")
    assert not found["good"]
    assert "no answer within" in found["cross_check"]["failure"]


# Hostile messages ----------------------------------------------------------------------------------

ESCAPES = "\x1b[31m\x07\u202e[bold]x[/bold]".encode()


def test_nothing_in_a_signature_steers_the_terminal(run):
    odd = [
        HeaderField(b"DKIM-Signature", b" v=1; d=" + ESCAPES),
        sign(more=b" z=Subject:=1B[31m" + b"[bold]y;"),
    ]
    message = written(*odd, fields=subject(b" " + ESCAPES), body=BODY + ESCAPES + b"\r\n")
    for arguments in ((), ("--json",)):
        shown = run(message, *arguments).stdout
        assert "".join(char for char in shown if not char.isprintable() and char != "\n") == ""
        assert "[bold]" in shown  # as text, not as markup


@pytest.mark.parametrize(
    "value",
    [
        b"",
        b" ",
        b"=",
        b" v=1;" * 300,
        b" v=1; h=" + b"from:" * 20_000,
        b" t=999999999999; x=1",
        b"\x00" * 9000,
    ],
)
def test_odd_signatures_are_no_crash(report, value):
    found = report(written(*[HeaderField(b"DKIM-Signature", value)] * 15))
    assert [each["result"] for each in found["dkim"]["signatures"]] == ["permerror"] * 10
    assert not found["good"]
    assert report(written(sign(more=b" t=999999999999;")))["dkim"]["signatures"][0]["signed"]
