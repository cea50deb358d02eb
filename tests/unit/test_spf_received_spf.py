"""Received-SPF: the ABNF of RFC 7208 §9.1 with the tokens of RFC 5322, whatever the values hold."""

from __future__ import annotations

import re
from email import message_from_bytes
from ipaddress import ip_address

import pytest

from srsd.spf.outcome import SpfOutcome, SpfResult
from srsd.spf.received_spf import format_received_spf
from srsd.syntax.address import Address

ATOM = r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+"  # RFC 5322 §3.2.3
DOT_ATOM = rf"{ATOM}(?:\.{ATOM})*"
QUOTED_STRING = r'"(?:[\x21\x23-\x5b\x5d-\x7e ]|\\[\x20-\x7e])*"'  # §3.2.4
COMMENT = r"\((?:[\x21-\x27\x2a-\x5b\x5d-\x7e ])*\)"  # §3.2.2, without pairs and nesting
FWS = r"[ \t]+"
KEY = r"[a-z][a-z0-9_.-]*"
PAIR = rf"({KEY})=({DOT_ATOM}|{QUOTED_STRING})"
FIELD = re.compile(
    rf"{FWS}(pass|fail|softfail|neutral|none|temperror|permerror){FWS}({COMMENT}){FWS}({PAIR}(?:;{FWS}{PAIR})*);?"
)

HELO = b"mail.example.org"
RECEIVER = b"mx.example.net"
ALICE = Address(b"alice", b"example.org")
PASS = SpfOutcome(SpfResult.PASS, "matched ip4:192.0.2.1", b"example.org", b"example.org", b"ip4:192.0.2.1")


def formatted(
    outcome=PASS, identity="mailfrom", client="192.0.2.1", *, sender=ALICE, helo=HELO, receiver=RECEIVER
):
    return format_received_spf(outcome, identity, ip_address(client), sender, helo, receiver)


def parsed(value: bytes) -> tuple[str, str, dict[str, str]]:
    """Read a value strictly; gives the result, the comment, and the pairs without quoting."""
    assert value.isascii()
    assert not re.search(rb"\n(?!\t[^ \t\n])", value), value
    lines = (b"Received-SPF:" + value).split(b"\n")
    assert all(line.decode().replace("\t", "").isprintable() for line in lines)
    assert all(len(line) < 78 or b" " not in line.strip(b"\t") or b'"' in line for line in lines), lines
    assert all(len(line) < 998 for line in lines)
    found = FIELD.fullmatch(value.decode().replace("\n\t", " "))
    assert found, value
    pairs = re.findall(PAIR, found[3])
    assert len(dict(pairs)) == len(pairs)
    return (
        found[1],
        found[2],
        {key: re.sub(r"\\(.)", r"\1", text[1:-1]) if text[0] == '"' else text for key, text in pairs},
    )


def test_a_pass():
    result, comment, pairs = parsed(formatted())
    assert result == "pass"
    # The words of the RFC's example.
    assert comment == "(mx.example.net: domain of example.org designates 192.0.2.1 as permitted sender)"
    assert pairs == {
        "client-ip": "192.0.2.1",
        "envelope-from": "alice@example.org",
        "helo": "mail.example.org",
        "receiver": "mx.example.net",
        "identity": "mailfrom",
        "mechanism": "ip4:192.0.2.1",
    }


def test_its_octets():
    assert formatted() == (
        b" pass (mx.example.net: domain of example.org designates\n"
        b"\t192.0.2.1 as permitted sender) client-ip=192.0.2.1;\n"
        b'\tenvelope-from="alice@example.org"; helo=mail.example.org;\n'
        b'\treceiver=mx.example.net; identity=mailfrom; mechanism="ip4:192.0.2.1"'
    )


@pytest.mark.parametrize("result", SpfResult)
def test_every_result_can_be_written(result):
    outcome = SpfOutcome(result, "some reason", b"example.org", b"example.org")
    word, comment, pairs = parsed(formatted(outcome))
    assert word == result.value
    assert "example.org" in comment
    expected = {"temperror": ("some reason", None), "permerror": ("some reason", None), "none": (None, None)}
    assert (pairs.get("problem"), pairs.get("mechanism")) == expected.get(result.value, (None, "default"))


def test_the_helo_identity_has_no_envelope_sender():
    _, _, pairs = parsed(formatted(identity="helo"))
    assert pairs["identity"] == "helo"
    assert "envelope-from" not in pairs


def test_neither_has_the_null_sender():
    _, _, pairs = parsed(formatted(sender=None))
    assert pairs["identity"] == "mailfrom"
    assert "envelope-from" not in pairs


@pytest.mark.parametrize(
    ("client", "shown"),
    [("2001:DB8::1", "2001:db8::1"), ("::ffff:192.0.2.1", "192.0.2.1"), ("fe80::1%eth0", "fe80::1")],
)
def test_clients(client, shown):
    _, comment, pairs = parsed(formatted(client=client))
    assert pairs["client-ip"] == shown
    assert f" {shown} " in comment


@pytest.mark.parametrize(
    ("local_part", "shown"),
    [
        (b"a.b", "a.b@example.org"),
        (b"a b", '"a b"@example.org'),
        (b'a"b\\c', r'"a\"b\\c"@example.org'),
        (b"a@b", '"a@b"@example.org'),
        (b"x); spf=pass (", '"x); spf=pass ("@example.org'),
        (b"", '""@example.org'),
        (b"a\r\nX-Evil: 1", None),
        (b"a\0b", None),
        (b"a\x1b[1m", None),
        (b"a\tb", None),
        (b"\xc3\xa9", None),
        (b"\xff", None),
        (b"x" * 400, None),
    ],
)
def test_senders(local_part, shown):
    _, _, pairs = parsed(formatted(sender=Address(local_part, b"example.org")))
    if shown == '""@example.org':
        assert pairs["envelope-from"] in ('""@example.org', "@example.org")
    else:
        assert pairs.get("envelope-from") == shown
    assert pairs["identity"] == "mailfrom"


@pytest.mark.parametrize(
    ("helo", "shown"),
    [
        ("münchen.example".encode(), "xn--mnchen-3ya.example"),
        (b"[192.0.2.1]", "[192.0.2.1]"),
        (b"JUMPIN' JUPITER", "JUMPIN' JUPITER"),
        (b'a"; result=pass', 'a"; result=pass'),
        (b"x)", "x)"),
        (b"a..b", "a..b"),
        (b"", None),
        (b"\xff.example", None),
        (b"a\nb", None),
        (b"x" * 5000, None),
    ],
)
def test_helos(helo, shown):
    _, _, pairs = parsed(formatted(helo=helo))
    assert pairs.get("helo") == shown


@pytest.mark.parametrize("receiver", [b"", b"mx)\r\nX: (", b"mx (x)", b"\xff", b"a" * 400, b"a." * 5000])
def test_an_odd_receiver_is_not_written_in_the_comment(receiver):
    _, comment, _ = parsed(formatted(receiver=receiver))
    assert comment.startswith("(domain of example.org ")


def test_an_odd_domain_is_not_written_in_the_comment():
    outcome = PASS._replace(checked_domain=b"x)(\r\n.example")
    _, comment, _ = parsed(formatted(outcome))
    assert "domain of unknown designates" in comment


def test_a_mechanism_that_is_too_long_is_left_out():
    assert "mechanism" not in parsed(formatted(PASS._replace(mechanism=b"exists:" + b"x" * 1000)))[2]
    assert parsed(formatted(PASS._replace(mechanism=b'a:"(;)\\.x')))[2]["mechanism"] == 'a:"(;)\\.x'


def test_long_values_stand_on_lines_of_their_own():
    sender = Address(b'"' * 60, b"x" * 63 + b"." + b"y" * 63 + b".example")
    value = formatted(sender=sender)
    assert parsed(value)[2]["envelope-from"] == '"' + r"\"" * 60 + '"@' + sender.domain.decode()
    assert any(line.startswith(b"\tenvelope-from=") and line.endswith(b";") for line in value.split(b"\n"))


def test_pythons_email_package_reads_one_field():
    message = message_from_bytes(
        b"Received-SPF:" + formatted(helo=b'x"\\', sender=Address(b"a b", b"c.d")) + b"\n\nbody\n"
    )
    assert message.keys() == ["Received-SPF"]
    assert message.get_payload() == "body\n"
