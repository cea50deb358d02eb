"""The milter's parsers, its session and its filter, and what each promises, whatever it is given.

fuzz.run adds MILTER_TARGETS to the others.
"""

from __future__ import annotations

from contextlib import suppress
from ipaddress import IPv4Address, IPv6Address
from typing import TYPE_CHECKING, Any

from fuzz.targets import Target
from harness.milter_client import (
    ALL_ACTIONS,
    ALL_STEPS,
    LEADING_SPACE,
    STEPS,
    connect_data,
    macro_data,
    negotiation,
    packet,
    split_packets,
    strings,
)
from srsd.config import Srs as SrsConfig
from srsd.errors import ProtocolError
from srsd.exclusion import ExclusionMap
from srsd.filter.authenticate import DkimCheckParameters, SpfCheckParameters
from srsd.filter.chain import ArcCheckParameters
from srsd.filter.forgers import Forgers
from srsd.filter.origin import MilterParameters
from srsd.filter.refused import Delays, RefusalRules
from srsd.filter.results import DmarcCheckParameters
from srsd.filter.rules import Rules, World
from srsd.filter.service import MailFilter
from srsd.lookup import Lookup
from srsd.srs import Keyring, Srs
from srsd.wire.milter import (
    Decoder,
    parse_connect,
    parse_header,
    parse_macros,
    parse_negotiation,
    parse_path,
    parse_text,
)
from srsd.wire.milter_session import Session

if TYPE_CHECKING:
    from collections.abc import Sequence
    from random import Random

SIZE = 140_000  # octets: a little more than the largest packet

_SRS = SrsConfig(domain="srs.example")
# A filter that asks no DNS, so that each message is decided at once.
_RULES = Rules(
    milter=MilterParameters(),
    spf=SpfCheckParameters(verify=False),
    dkim=DkimCheckParameters(verify=False),
    dmarc=DmarcCheckParameters(verify=False),
    arc=ArcCheckParameters(verify=False),
    exclusions=ExclusionMap(),
    signing=None,
    refusal=RefusalRules(
        _SRS, Lookup(_SRS, Srs(_SRS, Keyring([b"secret"])), ExclusionMap()), Forgers(), Delays()
    ),
)
_WORLD = World(**dict.fromkeys(World._fields))._replace(
    clock=lambda: 1_700_000_000,
    timer=lambda: 0.0,
    report=lambda _: None,
    report_refused=lambda _: None,
    authserv_id=b"mx.example.net",
)
_FILTER = MailFilter(_RULES, _WORLD)

Exchange = tuple[list[tuple[int, bytes]], bool, bool]


def _converse(chunks: Sequence[bytes]) -> Exchange:
    """Feed chunks; gives command and reply of each packet, whether a part is pending, whether it was refused."""
    decoder, session = Decoder(), Session(_FILTER)
    exchange: list[tuple[int, bytes]] = []
    for chunk in chunks:
        try:
            for command, data in decoder.feed(chunk):
                if session.finished:
                    return exchange, False, False
                exchange.append((command, session.receive(command, data)))
                _check_kept(session)
        except ProtocolError:
            return exchange, False, True
    return exchange, decoder.pending, False


def _check_kept(session: Session) -> None:
    """Hold that macros do not pile up."""
    assert len(session._connection_macros) + len(session._message_macros) <= 10
    assert session.outcome is None


def _parse_stream(data: bytes) -> None:
    _converse([data])


def _check_stream(data: bytes, random: Random) -> None:
    exchange, pending, refused = _converse([data])
    for chunks in (_chunks(data, random), _chunks(data, random)):
        others, still_pending, refused_too = _converse(chunks)
        if refused:  # packets before a length that none has are taken, or not; one of them may be QUIT
            assert others[: len(exchange)] == exchange
            assert refused_too or others[-1][0] == ord("Q")
        else:
            assert (others, still_pending) == (exchange, pending)
    leading_space = True
    for command, reply in exchange:
        packets = split_packets(reply)
        if command == ord("O"):
            ((_, agreed),) = packets
            leading_space = bool(int.from_bytes(agreed[8:12], "big") & LEADING_SPACE)
        elif command == ord("E"):
            _check_end(packets, leading_space=leading_space)
        else:
            assert packets in ([], [(b"c", b"")])


def _check_end(packets: list[tuple[bytes, bytes]], *, leading_space: bool) -> None:
    """Hold that deletions come first, the lowest field first, then one field of ours at most."""
    *changes, verdict = packets
    assert verdict == (b"c", b"")
    kinds = b"".join(reply for reply, _ in changes)
    assert kinds == b"m" * kinds.count(b"m") + b"i" * kinds.count(b"i")
    assert kinds.count(b"i") <= 1
    places = [int.from_bytes(data[:4], "big") for reply, data in changes if reply == b"m"]
    assert places == sorted(set(places), reverse=True)
    for reply, data in changes:
        name, value, rest = data[4:].split(b"\0")
        assert (name, rest) == (b"Authentication-Results", b"")
        if reply == b"m":
            assert value == b""
        else:
            _check_value(value if leading_space else b" " + value)


def _check_value(value: bytes) -> None:
    """Hold that a header value stays one field, in lines that mail may have."""
    assert b"\r" not in value
    lines = value.split(b"\n")
    assert all(line[:1] in (b" ", b"\t") and line.strip() for line in lines), value
    assert all(len(line) <= 998 for line in lines), value


def _chunks(data: bytes, random: Random) -> list[bytes]:
    if len(data) < 500 and random.random() < 0.3:
        return [bytes([octet]) for octet in data]
    cuts = sorted(random.randint(0, len(data)) for _ in range(random.randint(1, 10)))
    return [data[begin:end] for begin, end in zip([0, *cuts], [*cuts, len(data)], strict=True)]


# What one packet carries.

_PARSERS: dict[str, Any] = {
    "negotiation": parse_negotiation,
    "connect": parse_connect,
    "text": parse_text,
    "path": parse_path,
    "header": lambda data: parse_header(data, b""),
    "macros": parse_macros,
}


def _parse_packets(data: bytes) -> None:
    for parse in _PARSERS.values():
        with suppress(ProtocolError):
            parse(data)


def _check_packets(data: bytes, _: Random) -> None:
    parsed: dict[str, Any] = {}
    for name, parse in _PARSERS.items():
        with suppress(ProtocolError):
            parsed[name] = parse(data)
    assert parsed["text"] == data.split(b"\0")[0]
    path = parsed["path"]
    assert data.startswith(strings(path.text, *path.arguments)) or (data == path.text and not path.arguments)
    if "header" in parsed:
        assert data.startswith(strings(*parsed["header"]))
    if "connect" in parsed:
        host, address = parsed["connect"]
        assert data.startswith(host + b"\0")
        assert address is None or isinstance(address, IPv4Address | IPv6Address)
        assert not isinstance(address, IPv6Address) or address.ipv4_mapped is None
    if "macros" in parsed:
        command, macros = parsed["macros"]
        assert command == data[0]
        assert all(b"\0" not in text for pair in macros.items() for text in pair)
        assert sum(len(name) + len(value) for name, value in macros.items()) <= len(data)


# What they are made of.


def _message(*fields: bytes, sender: bytes = b"<a@x.example>") -> bytes:
    return b"".join(
        (
            packet(b"D", macro_data(b"M", {b"{auth_authen}": b"", b"i": b"QUEUE"})),
            packet(b"M", strings(sender, b"SIZE=5")),
            packet(b"R", strings(b"<b@y.example>")),
            packet(b"T"),
            *(packet(b"L", strings(b"Authentication-Results", field)) for field in fields),
            packet(b"L", strings(b"Subject", b" x")),
            packet(b"N"),
            packet(b"B", b"text\r\n"),
            packet(b"E", b"more\r\n"),
        )
    )


_HEAD = (
    packet(b"D", macro_data(b"C", {b"j": b"mx.example.net", b"{daemon_name}": b"smtpd"}))
    + packet(b"C", connect_data(b"mail.x.example", "192.0.2.1"))
    + packet(b"H", strings(b"mail.x.example"))
)
_FORGED = (
    b" mx.example.net; spf=pass",
    b" (c) MX.Example.NET 1;\n\tspf=pass",
    b" other.example; none",
    b" ;",
)
_STREAMS = [
    negotiation() + _HEAD + _message() + packet(b"A") + packet(b"Q"),
    negotiation() + _HEAD + _message(*_FORGED) + packet(b"A") + _message(*_FORGED * 2, sender=b"<>"),
    negotiation(2, ALL_ACTIONS, STEPS[2]) + _HEAD + _message(*_FORGED) + packet(b"K") + _HEAD + _message(),
    negotiation(6, ALL_ACTIONS, ALL_STEPS & ~LEADING_SPACE) + _HEAD + _message(*_FORGED),
    negotiation() + _HEAD + packet(b"M", b"<a@b>\0") + packet(b"R", b"<c@d>\0") * 20 + packet(b"E"),
    negotiation() + packet(b"D", b"Mi\0x\0") * 50 + packet(b"M", b"\0") + packet(b"A") * 9,
    negotiation()
    + _HEAD
    + packet(b"M", b"<a@b>\0")
    + packet(b"T")
    + packet(b"L", b"X\0" + b" y" * 30_000 + b"\0"),
    negotiation() + packet(b"D", b"C" + b"{a}\0b\0" * 10_000) + _HEAD + _message(),
    b"\0\0\0\0",
    b"\xff\xff\xff\xff",
]
_PIECES = [packet(bytes([command])) for command in b"ABCDEHKLMNOQRTU?"] + [
    *(packet(b"M", b"<a@b>\0"), packet(b"R", b"<c@d>\0"), packet(b"L", b"A\0 b\0"), packet(b"B", b"x")),
    *(
        packet(b"D", b"Ci\0x\0"),
        packet(b"C", b"x\0U"),
        packet(b"H", b"x\0"),
        negotiation(),
        negotiation(2, steps=0),
    ),
    *(b"\0\0\0\1", b"\0\2\0\0", b"\0\0\xff\xff", b"\0", b"{", b"}", b"\n\t", b"Authentication-Results\0"),
]

MILTER_TARGETS: dict[str, Target] = {
    "milter": Target(_parse_stream, _check_stream, _STREAMS, _PIECES, SIZE, microseconds_per_octet=15),
    "milter_packet": Target(
        _parse_packets,
        _check_packets,
        [
            *(b"\0\0\0\x06\0\0\x01\xff\0\x1f\xff\xff", connect_data(b"x.example", "192.0.2.1")),
            *(
                connect_data(b"[192.0.2.1]", "2001:db8::1"),
                connect_data(b"unknown", None),
                b"x\x006\0\0IPv6:::1%x\0",
            ),
            *(
                connect_data(b"localhost", "/run/x"),
                strings(b"<a@b>", b"SIZE=5"),
                strings(b"Subject", b" x\n y"),
            ),
            *(
                macro_data(b"C", {b"j": b"x", b"{daemon_name}": b"y"}),
                b"M" + b"{a}\0b\0" * 5000,
                b"\0" * 20_000,
            ),
            *(
                b"x\x006\0\0" + b"::1%" * 5000 + b"\0",
                b"x\x004\0\0" + b"1." * 9000,
                b"{" * 20_000,
                b"C{" * 9000,
            ),
        ],
        [
            *(
                b"\0",
                b"4",
                b"6",
                b"L",
                b"U",
                b"IPv6:",
                b"::",
                b"::ffff:",
                b"%",
                b"192.0.2.1",
                b"{",
                b"}",
                b"<",
                b">",
            ),
            *(b"\xff", b"\n", b"\r\n", b" ", "٣".encode()),
        ],
        SIZE,
        microseconds_per_octet=2,
    ),
}
