"""What srsctl reads of messages: Received fields, dates, whole files. fuzz.run adds MAIL_TARGETS to the others."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fuzz.targets import Target
from srsd.cli.hops import find_way
from srsd.cli.mail import Mail, parse_mail
from srsd.cli.results_fields import describe_field
from srsd.filter.origin import MilterParameters, Origin, Origins
from srsd.syntax.header import unfold
from srsd.syntax.received import parse_received

if TYPE_CHECKING:
    from random import Random

_ORIGINS = Origins(MilterParameters(trusted_relays=("198.51.100.0/24",)))


def _check_received(data: bytes, _: Random) -> None:
    """Hold that all that is said of a field stands in it."""
    line = unfold(data)
    found = parse_received(data)
    for text in (found.helo, found.client_name, found.by, found.id, found.recipient):
        assert text in line
        assert b" " not in text
    for word in found.protocol.split(b" "):
        assert word in line
    if found.client is not None:
        assert not found.client.is_unspecified or b"0" in line or b"::" in line
    if found.date is not None:
        assert found.date.tzinfo is not None
        assert found.date.isoformat()
    assert isinstance(found.authenticated, bool)
    # What stands behind `by` never names the client.
    trusted = parse_received(b"from a (b.example [192.0.2.1]) by c.example with SMTP " + data)
    assert str(trusted.client) == "192.0.2.1"


def _parse_file(data: bytes) -> Mail | None:
    try:
        return parse_mail("fuzz", data)
    except ValueError:
        return None


def _look(data: bytes) -> None:
    mail = _parse_file(data)
    if mail is not None:
        find_way(mail, _ORIGINS)
        for _, value in mail.values(b"authentication-results"):
            describe_field(value, b"mx.here.example")


def _check_file(data: bytes, _: Random) -> None:
    mail = _parse_file(data)
    if mail is None:
        return
    assert mail.fields
    assert all(name and not set(name) & set(b": \t\r\n") for name, _ in mail.fields)
    assert all(note.isprintable() for note in mail.notes)
    if b"\r" not in data:
        # However lines end, it is the same message.
        other = _parse_file(data.replace(b"\n", b"\r\n"))
        assert other == mail
    way = find_way(mail, _ORIGINS)
    trusted = [hop.trusted for hop in way.hops]
    assert trusted == sorted(trusted, reverse=True)
    for hop, lower in zip(way.hops, way.hops[1:], strict=False):
        if lower.trusted:
            assert hop.origin in (None, Origin.INTERNAL, Origin.TRUSTED_RELAY)
    assert way.entrance is None or way.entrance is [hop for hop in way.hops if hop.trusted][-1]
    for hop in way.hops:
        assert all(text.isprintable() for text in hop.as_dict().values() if isinstance(text, str))


_RECEIVED = [
    (
        b" from mail.example.com (mail.example.com [192.0.2.7])\n\tby mx.here.example (Postfix) with ESMTP id 4ZQ1v\n"
        b"\tfor <bob@here.example>; Mon, 02 Feb 2026 10:00:00 +0100 (CET)"
    ),
    b"from client.example ([192.0.2.7]:25123 helo=mail.example.com ident=[198.51.100.1]) by mx.example with esmtps",
    b"from [192.0.2.7] (port=4433 helo=[127.0.0.1]) by mx.example with esmtpa (Exim 4.96) id 1r2-3; x",
    b"from unknown (HELO [127.0.0.1]) (root@[192.0.2.7])\n  by mx.example with SMTP; 2 Feb 2026 10:00:00 -0000",
    b"from A.example (2001:db8::1) by B.example (2001:db8::2) with Microsoft SMTP Server (TLS) id 15.1 via Frontend",
    b"from a (b [IPv6:2001:db8::1%1]) by c; 31 Dec 9999 23:59:60 -2359",
    b"from a (" + b"(" * 60_000,
    b"from a (" + b"[" * 60_000 + b"] by b",
    b"from a (" + b"helo=[ ident=" * 5_000 + b") by b",
    b"by " * 20_000,
    b"from a (b [192.0.2.1])" + b"()" * 30_000 + b";" * 1_000,
]
_WORDS = [
    *(b"from ", b"by ", b"with ", b"id ", b"for ", b"via ", b"(", b")", b"[", b"]", b";", b"\\", b"@", b'"'),
    *(
        b" ",
        b"\t",
        b"\n ",
        b"\r\n",
        b"\r",
        b"\n",
        b"\n\n",
        b":",
        b"\0",
        b"\xff",
        b"helo=",
        b"ident=",
        b"(HELO ",
    ),
    *(
        b"[127.0.0.1]",
        b"(a [10.0.0.1])",
        b"198.51.100.1",
        b"::1",
        b"IPv6:",
        b"ESMTPSA",
        b"Received: ",
        b"From ",
    ),
    *(b"Authentication-Results: ", b"mx.here.example; ", b"Mon, ", b" 2 Feb 2026 10:00:00 ", b"+0100", b"99"),
]

MAIL_TARGETS: dict[str, Target] = {
    "received": Target(parse_received, _check_received, _RECEIVED, _WORDS, microseconds_per_octet=2),
    "mail_file": Target(
        _look,
        _check_file,
        [
            b"From x\nReceived:"
            + b"\nReceived:".join(_RECEIVED[:6])
            + b"\nFrom: a@b\n\nbody\n\nFrom y\nA: b\n\n",
            b"Received:" + _RECEIVED[0].replace(b"192.0.2.7", b"127.0.0.1") + b"\nA: b\nno field\n\nbody",
            b"Authentication-Results: mx.here.example; none\r\nA: b\r\n\r\nbody\n",
            b"a:\n" * 20_000,
            b"Received: " * 6_000,
            b"a: b\n" + b" c\n" * 20_000,
        ],
        _WORDS,
        microseconds_per_octet=4,
    ),
}
