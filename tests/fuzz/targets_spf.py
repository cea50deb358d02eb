"""SPF's parsers and its evaluator, and what each promises, whatever DNS and a client say.

fuzz.run adds SPF_TARGETS to the others.
"""

from __future__ import annotations

import re
from ipaddress import IPv4Address, IPv6Address
from typing import TYPE_CHECKING, Any

from fuzz.targets import Target
from srsd.resolving import Answer, MailExchange, Outcome
from srsd.spf.check_host import SpfOutcome, SpfResult, check_helo, check_mail_from
from srsd.spf.outcome import EXPLANATION_MAXIMUM, REASON_MAXIMUM
from srsd.spf.received_spf import format_received_spf
from srsd.spf.record import RecordFault, parse_record
from srsd.spf.trace import Trace
from srsd.syntax.address import Address

if TYPE_CHECKING:
    from collections.abc import Coroutine
    from random import Random

_CLIENTS = (IPv4Address("192.0.2.1"), IPv6Address("2001:db8::1"), IPv6Address("::ffff:192.0.2.1"))
_MX = b"mx.ours.example"
_RECEIVED_SPF = re.compile(
    rb" (?:none|neutral|pass|fail|softfail|temperror|permerror)(?: |\n\t)\([^()\\\r\0]*\)"
    rb'(?:(?: |\n\t)[a-z-]+=(?:[!#-\'*+./0-9=?A-Z^-~-]+|"(?:[ !#-\[\]-~]|\\["\\])*");?)+'
)


def _parse_record(data: bytes) -> None:
    parse_record(b"v=spf1 " + data)


def _check_record(data: bytes, _: Random) -> None:
    parsed = parse_record(b"v=spf1 " + data)
    if isinstance(parsed, RecordFault):
        assert parsed.problem.isascii()
        assert parsed.problem.isprintable()
        return
    terms = data.split(b" ")
    known = set(terms)
    assert data.isascii()
    assert not any(term.translate(None, bytes(range(0x21, 0x7F))) for term in terms)
    assert all(directive.text in known for directive in parsed.directives)
    assert sum(b"=" not in term.partition(b":")[0] for term in terms if term) >= len(parsed.directives)
    assert parse_record(b"v=spf1  " + b"  ".join(terms) + b" ")[1:] == parsed[1:]


class _Resolver:
    """Gives what a fuzzed text holds: its first line is the record, the others are what else there is."""

    def __init__(self, lines: list[bytes]) -> None:
        self._record = b"v=spf1 " + lines[0]
        self._other = lines[-1]
        self._asked = 0

    def _answer(self, *records: Any) -> Answer[Any]:
        self._asked += 1
        assert self._asked < 150
        if self._asked % 7 == 6:
            return Answer((Outcome.NX_DOMAIN, Outcome.TIMED_OUT, Outcome.NOT_A_NAME)[self._asked % 3])
        return Answer(Outcome.FOUND, records)

    async def txt(self, name: bytes) -> Answer[bytes]:
        return self._answer(self._other if b"exp" in name else self._record)

    async def ipv4(self, name: bytes) -> Answer[IPv4Address]:
        return self._answer(IPv4Address(len(name) % 256 << 24 | 1))

    async def ipv6(self, name: bytes) -> Answer[IPv6Address]:
        return self._answer(IPv6Address(len(name)))

    async def mx(self, name: bytes) -> Answer[MailExchange]:
        return self._answer(*[MailExchange(0, each) for each in (b"", name, self._other)])

    async def ptr(self, _address: object) -> Answer[bytes]:
        return self._answer(self._other, b"example.org", b"a.example.org")


def _done(coroutine: Coroutine[Any, Any, SpfOutcome]) -> SpfOutcome:
    """Run what waits for nothing."""
    try:
        coroutine.send(None)
    except StopIteration as end:
        outcome: SpfOutcome = end.value
        return outcome
    raise AssertionError("it waited")


def _checks(data: bytes, trace: Trace | None = None) -> list[tuple[Address, bytes, SpfOutcome]]:
    lines = data.split(b"\n")
    helo, local_part = lines[len(lines) // 2], lines[len(lines) // 3]
    done = []
    for number, domain in enumerate((b"example.org", helo)):
        client = _CLIENTS[(len(data) + number) % 3]
        sender = Address(local_part, domain)
        checked = check_mail_from(_Resolver(lines), client, sender, helo, receiver=_MX, now=1, trace=trace)
        done.append((sender, helo, _done(checked)))
    done.append(
        (done[0][0], helo, _done(check_helo(_Resolver(lines), _CLIENTS[0], helo, receiver=_MX, now=1)))
    )
    return done


def _parse_check(data: bytes) -> None:
    _checks(data)


def _check_check(data: bytes, random: Random) -> None:
    trace = Trace()
    outcomes = _checks(data)
    assert outcomes == _checks(data, trace)
    assert all(line.isascii() and line.isprintable() for line in trace.lines())
    for sender, helo, outcome in outcomes:
        assert outcome.reason.isascii()
        assert outcome.reason.isprintable()
        assert 0 < len(outcome.reason) <= REASON_MAXIMUM
        assert re.fullmatch(rb"[!-~]*", outcome.mechanism)
        assert re.fullmatch(rb"[ -~]{0,%d}" % EXPLANATION_MAXIMUM, outcome.explanation)
        assert re.fullmatch(rb"[a-z0-9._-]*", outcome.checked_domain)
        assert not outcome.explanation or outcome.result is SpfResult.FAIL
        written = format_received_spf(
            outcome, "mailfrom", random.choice(_CLIENTS), sender, helo, random.choice([_MX, data])
        )
        assert _RECEIVED_SPF.fullmatch(written), written
        assert all(
            len(line) < 78 or b" " not in line.strip() or b'"' in line for line in written.split(b"\n")
        )
        assert max(map(len, written.split(b"\n"))) < 998


_WORDS = [
    *(b" ", b"  ", b"-all", b"+", b"-", b"~", b"?", b"all", b"include:", b"a", b"mx", b"ptr", b"exists:", b"ip4:", b"ip6:"),
    *(b"redirect=", b"exp=", b"exp=%{l}.exp.example", b"moo=", b":", b"/", b"//", b"/24", b"/24//64", b"=", b"example.org"),
    *(b"192.0.2.1", b"2001:db8::1", b"::", b"%{", b"}", b"%{d}", b"%{l1r+-}", b"%{p}", b"%{S}", b"%{ir}", b"%{c}", b"%{h}"),
    *(b"%%", b"%_", b"%-", b"%", b"0", b"999", b"r", b".", b"..", b"\n", b"\r", b"\t", b"\0", b"\x7f", b"\xff", b"\xc3\xa9"),
    *(b'"', b"\\", b"(", b")", b";"),
]  # fmt: skip
_RECORDS = [
    b"ip4:192.0.2.0/24 ip6:2001:db8::/32 a mx:%{d}/24//64 include:_spf.example.org ?exists:%{ir}.%{v}.example.org -all",
    b"a mx ptr a:x.example/0 exp=exp.example.org redirect=%{o}",
    b"mx ptr:example.org exists:%{p}.%{l1r+-}.%{S}._spf.%{d2} moo=%{d} -all exp=%{l}.exp.example",
    b"ip6:::1 ip6:1:2:3:4:5:6:7:8 ip6:::ffff:192.0.2.1/96 ip4:0.0.0.0/0 ~all",
    b"-all moo",
    b"",
    b"a:" + b"%{l}" * 15_000 + b".x",
    b"a:" + b"a." * 30_000 + b"-",
    b"a:" + b"%{d" * 20_000,
    b"x=" + b"%%" * 30_000 + b"%",
    b"ip6:" + b"1:" * 30_000,
    b"ip4:1.2.3.4 " * 5_000 + b"moo",
    b" " * 60_000 + b"%",
    b"a/" * 30_000,
]

SPF_TARGETS = {
    "spf record": Target(_parse_record, _check_record, _RECORDS, _WORDS, microseconds_per_octet=2),
    "spf check": Target(
        _parse_check,
        _check_check,
        [
            *(record + b"\nalice\nmail.example.org\n%{c} is not for %{s}" for record in _RECORDS[:6]),
            b"exists:" + b"%{l1r+-}." * 1000 + b"%{d}\n" + b"a." * 20_000 + b"\n" + b"h" * 10_000 + b"\n",
            b"-all exp=exp.example.org\n" + b"%{l}%{H}" * 3000 + b"\nx\n" + b"%{l}%{H}" * 3000,
            b'-all exp=exp.example.org\n\xff\r\0\n\x1b[1m"\\()\n%{l} %{h}',
        ],
        _WORDS,
        microseconds_per_octet=20,  # six checks, most of a dozen records
    ),
}
