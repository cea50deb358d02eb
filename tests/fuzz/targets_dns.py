"""The parsers of the DNS client and what each promises, whatever it is given."""

from __future__ import annotations

import contextlib
import struct
from ipaddress import IPv4Address, IPv6Address
from typing import TYPE_CHECKING, Any

import dns.exception
import dns.message
import dns.name
import dns.rcode
import dns.rdatatype
import dns.rrset
from dns.exception import FormError

from fuzz.targets import Target
from srsd.daemon.dns.messages import AAAA, MX, PTR, TXT, A, Question, read_message, text_name, wire_name
from srsd.resolving import MailExchange, Outcome
from srsd.syntax.name_server import parse_name_server

if TYPE_CHECKING:
    from random import Random

MESSAGE_SIZE = 65535
_NAME = b"\7example\3org\0"
_TYPES = (A, AAAA, MX, PTR, TXT)
_SECTIONS = 12 + len(_NAME) + 4
_KINDS = {A: IPv4Address, AAAA: IPv6Address, MX: MailExchange, PTR: bytes, TXT: bytes}
_PLAIN = bytes(octet for octet in range(0x21, 0x7F) if octet not in b'"();@$')


# Responses. The input is the type asked for, flags and counts, and what follows the question.


def _response(data: bytes) -> tuple[Question, bytes]:
    """Make a response of which is_answered_by holds, as it does for all that is read."""
    data = data.ljust(9, b"\0")
    question = Question(_NAME, _TYPES[data[0] % len(_TYPES)])
    flags = bytes((data[1] & 0x07 | 0x80, data[2]))
    return question, b"id" + flags + b"\0\1" + data[3:9] + question.octets + data[9:]


def _parse_response(data: bytes) -> None:
    question, response = _response(data)
    with contextlib.suppress(FormError):
        read_message(response, question)


def _check_response(data: bytes, _: Random) -> None:
    question, response = _response(data)
    assert question.is_answered_by(response)
    try:
        message = read_message(response, question)
    except FormError:
        return
    assert (message.outcome is Outcome.FOUND) == bool(message.records)
    assert message.ttl is None or 0 <= message.ttl < 1 << 31
    assert all(type(record) is _KINDS[question.record_type] for record in message.records)
    for record in message.records:
        name = record.exchange if isinstance(record, MailExchange) else record
        if question.record_type in (MX, PTR):
            assert not name.translate(None, _PLAIN)
            assert name == name.lower()
    if message.alias is not None:
        dns.name.from_wire(message.alias, 0)
        assert message.alias == message.alias.lower()
    _compare(message, question, response)


def _compare(message: Any, question: Question, response: bytes) -> None:
    """Hold that dnspython reads the same, where it reads anything at all."""
    if (
        message.truncated
        or message.rcode not in (dns.rcode.NOERROR, dns.rcode.NXDOMAIN)
        or len(response) > 2000
    ):
        return
    try:
        theirs = dns.message.from_wire(response, ignore_trailing=True)
        chained = theirs.resolve_chaining()
    except (dns.exception.DNSException, ValueError, AttributeError):
        return  # it looks at records that nobody asked for
    single = dns.message.from_wire(response, ignore_trailing=True, one_rr_per_rrset=True)
    aliases = [each.name for each in single.answer if each.rdtype == dns.rdatatype.CNAME]
    if len(aliases) != len(set(aliases)):
        return  # of several CNAMEs of one name, which none may have, it takes the last and we the first
    assert message.rcode == theirs.rcode()
    records = [_record(question.record_type, rdata) for rdata in chained.answer or ()]
    assert list(message.records) == records


def _record(record_type: int, rdata: Any) -> Any:
    if record_type == A:
        return IPv4Address(rdata.address)
    if record_type == AAAA:
        return IPv6Address(rdata.address)
    if record_type == TXT:
        return b"".join(rdata.strings)
    if record_type == MX:
        return MailExchange(rdata.preference, text_name(rdata.exchange.canonicalize().to_wire()))
    return text_name(rdata.target.canonicalize().to_wire())


def _seed(record_type: int, *lines: str, authority: str = "", rcode: int = 0) -> bytes:
    message = dns.message.make_query("example.org", record_type, use_edns=0)
    message.flags = dns.flags.Flag(0x8180)
    for section, texts in ((message.answer, lines), (message.authority, [authority] if authority else [])):
        for text in texts:
            owner, kind, data = text.split(None, 2)
            section.append(dns.rrset.from_text(owner, 300, "IN", kind, data))
    message.set_rcode(rcode)
    octets = message.to_wire()
    return bytes((_TYPES.index(record_type),)) + octets[2:4] + octets[6:12] + octets[_SECTIONS:]


_SOA = "org. SOA ns.org. root.org. 1 2 3 4 60"
_POINTERS = b"\xc0\x0c" + b"".join(struct.pack("!H", 0xC000 | 12 + at) for at in range(0, 16000, 2))


# Names.


def _parse_names(data: bytes) -> None:
    wire_name(data)


def _check_names(data: bytes, _: Random) -> None:
    wire = wire_name(data)
    try:
        theirs = dns.name.Name([*data.split(b"."), b""]).to_wire()
    except dns.exception.DNSException:
        theirs = None
    assert wire == (theirs if data else None)
    if wire is not None:
        text = text_name(wire)
        assert text.count(b".") == data.count(b".")
        assert text.isascii()
        assert text.decode().isprintable()


# Name servers of the configuration.


def _parse_name_server(data: bytes) -> None:
    with contextlib.suppress(ValueError):
        parse_name_server(data.decode(errors="replace"))


def _check_name_server(data: bytes, _: Random) -> None:
    try:
        server = parse_name_server(data.decode(errors="replace"))
    except ValueError:
        return
    assert 0 < server.port < 65536
    assert parse_name_server(str(server)) == server


TARGETS: dict[str, Target] = {
    "dns_response": Target(
        _parse_response,
        _check_response,
        [
            _seed(A, "example.org. A 192.0.2.1", "example.org. A 192.0.2.2"),
            _seed(AAAA, "example.org. AAAA 2001:db8::1"),
            _seed(MX, "example.org. MX 10 mx.example.org.", "example.org. MX 0 ."),
            _seed(PTR, "example.org. PTR host.example.org."),
            _seed(TXT, 'example.org. TXT "v=spf1" " -all"', 'example.org. TXT "x"'),
            _seed(TXT, "example.org. CNAME a.example.", "a.example. CNAME b.example.", "b.example. TXT x"),
            _seed(TXT, "example.org. CNAME a.example.", authority=_SOA),
            _seed(TXT, "example.org. CNAME example.org."),
            _seed(TXT, authority=_SOA, rcode=dns.rcode.NXDOMAIN),
            _seed(TXT, rcode=dns.rcode.BADVERS),
            bytes((A, 1, 0x80, 0xFF, 0xFF)) + bytes(4) + _POINTERS * 4,
        ],
        [
            *(
                b"\xc0\x0c",
                b"\xc0\x1d",
                b"\xc0\xff",
                b"\xff\xff",
                b"\0",
                b"\x3f" + b"x" * 63,
                b"\1a",
                b"\x40",
                b"\x80",
            ),
            *(struct.pack("!HHIH", kind, 1, 300, 4) for kind in (*_TYPES, 5, 6, 41, 46)),
            *(
                b"\0\4\xc0\0\2\1",
                b"\3org\0",
                _NAME,
                b"\x80\0\0\0",
                b"\0\0\x29\x04\xd0\1\0\0\0\0\0",
                _POINTERS,
            ),
        ],
        MESSAGE_SIZE - _SECTIONS,
        5,
    ),
    "dns_name": Target(
        _parse_names,
        _check_names,
        [
            *(
                b"example.org",
                b"",
                b".",
                b"a..b",
                b"a.",
                b"x" * 63,
                b"x" * 64,
                b"a." * 126 + b"a",
                b"a." * 127 + b"a",
            ),
            b"\\046\\.\0\xff",
        ],
        [b".", b"..", b"a", b"\\", b"\0", b"\xff", b"x" * 63, b"-", b"_"],
        4096,
    ),
    "name_server": Target(
        _parse_name_server,
        _check_name_server,
        [
            b"127.0.0.1",
            b"127.0.0.1:5353",
            b"::1",
            b"[::1]:53",
            b"[fe80::1%eth0]",
            b"fe80::1%2",
            b"[::ffff:1.2.3.4]:1",
        ],
        [
            *(b":", b"[", b"]", b"%", b".", b"0", b"65535", b"65536", b"::", b"/", b" ", b"\n", b"\0"),
            *("٣".encode(), b"fe80", b"%eth0", b"127.0.0.1"),
        ],
        2048,
        5,
    ),
}
