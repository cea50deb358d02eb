"""What Authentication-Results promises of any value that others wrote, and of any that we write."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from authres import AuthenticationResultsHeader, AuthResError

from fuzz.targets import Target
from srsd.authres import Result, claims, format_results, parse_results
from srsd.authres.result import METHODS
from srsd.syntax.domain import fold_domain
from srsd.syntax.structured import PARENTHESES_MAXIMUM, is_utf8, unfold_strictly, without_comments

if TYPE_CHECKING:
    from random import Random

_OURS = b"mx.ours.example"
_JUDGED_MAXIMUM = 400  # octets: authres is slow


def _parse_field(data: bytes) -> None:
    claims(data, _OURS)
    parse_results(data)


def _check_field(data: bytes, random: Random) -> None:
    parsed = parse_results(data)
    must_go = claims(data, _OURS)
    if parsed is not None:
        assert is_utf8(data)
        if fold_domain(parsed.authserv_id.strip()) == _OURS:
            assert must_go
        for method, result, _, properties in parsed.results:
            assert re.fullmatch(r"[0-9a-z-]+ [0-9a-z-]+", f"{method} {result}")
            assert all(re.fullmatch(r"[0-9a-z-]+ [0-9a-z-]+", f"{each[0]} {each[1]}") for each in properties)
    # Our id is seen whatever follows, and wherever comments stand.
    assert claims(b" %b;%b" % (_OURS, data), _OURS)
    assert claims(b' (x) "MX.ours.\\example"\n\t1 ;' + data, _OURS)
    line = unfold_strictly(data)
    if not must_go:
        assert line is not None
        assert b";" in line
        assert without_comments(line) is not None or line.count(b"(") > PARENTHESES_MAXIMUM
        # An unknown octet that no field may have is seen anywhere.
        at = random.randint(0, len(data))
        assert claims(data[:at] + bytes([random.choice(b"\0\r\x0b\x7f")]) + data[at:], _OURS) or data[
            at - 1 : at + 1
        ] in (b"\n", b"\r\n")
    if line is not None and len(line) <= _JUDGED_MAXIMUM and _seen_by_authres(line) == _OURS.decode():
        assert must_go


def _seen_by_authres(line: bytes) -> str | None:
    try:
        seen = AuthenticationResultsHeader.parse(
            "Authentication-Results:" + line.decode("latin-1")
        ).authserv_id
    except AuthResError:
        return None
    return str(seen).lower().rstrip(".")


def _results(data: bytes) -> list[Result]:
    """Make results whose values are the pieces of the input."""
    pieces = data.split(b"|")[:30]
    methods = sorted(METHODS)
    return [
        Result(
            method,
            METHODS[method].results[number % len(METHODS[method].results)],
            piece.decode(errors="surrogateescape") if number % 2 else "",
            tuple((*name.split("."), piece) for name in METHODS[method].properties),
        )
        for number, piece in enumerate(pieces)
        for method in (methods[number % len(methods)],)
    ]


def _parse_values(data: bytes) -> None:
    format_results(_OURS, _results(data))


def _check_values(data: bytes, _: Random) -> None:
    results = _results(data)
    for utf8 in (False, True):
        value = format_results(_OURS, results, utf8=utf8)
        assert not re.search(rb"[\x00-\x08\x0b-\x1f\x7f]|\n(?![\t ])", value)
        assert utf8 or value.isascii()
        assert max(map(len, value.split(b"\n"))) <= 998
        # As many `;` as results, so who cuts there finds no others.
        assert value.count(b";") == len(results)
        assert not re.search(rb"[()]", value)
        parsed = parse_results(value)
        assert parsed is not None
        assert [each[:2] for each in parsed.results] == [each[:2] for each in results]
        assert format_results(_OURS, parsed.results, utf8=utf8) == value
        assert claims(value, _OURS)
        assert not claims(value, b"another.example")


_WORDS = [
    *(
        b'"',
        b"\\",
        b"(",
        b")",
        b";",
        b"=",
        b"@",
        b".",
        b" ",
        b"\t",
        b"\r\n ",
        b"\n ",
        b"\n",
        b"\r",
        b"\0",
        b"/",
        b"|",
    ),
    *(
        b"<",
        b">",
        b",",
        b":",
        b"[",
        b"1",
        b"()",
        b'""',
        b"\\\\",
        b"\xff",
        "ä".encode(),
        "。".encode(),
        b"\x7f",
        b"-",
    ),
    *(
        b"none",
        b"spf=pass",
        b"; dkim=fail",
        b" reason=",
        b" smtp.mailfrom=",
        b" header.i=@x.example",
        b"(c)",
        b" 1",
    ),
    *(
        _OURS,
        b"MX.OURS.EXAMPLE.",
        b'"mx.ours.example"',
        b"relay.example",
        b"a@x.example",
        b"@",
        b"xn--",
        b"=pass",
    ),
]

AUTHRES_TARGETS: dict[str, Target] = {
    "authres_field": Target(
        _parse_field,
        _check_field,
        [
            b" mx.google.com;\r\n\tdkim=pass header.i=@x.example header.b=ab+/;\r\n\tspf=pass (x) smtp.mailfrom=a@x.example",
            b" relay.example 1; none",
            b' (a (b) "c\\)") "relay.example" (x) 1 ; dkim/1 = fail (d;e) reason = "f\\"" header . i = "g h"@x.example',
            b" mx.ours.example; auth=pass smtp.auth=x",
            " mx.jörg.example; spf=pass smtp.mailfrom=jörg@x.example".encode(),
            b"f; x=y " + b"(" * 60_000,
            b"f; x=y " + b"()" * 30_000,
            b"(" * 30_000 + b")" * 30_000,
            b"f; x=y " + b"(x)" * 999 + b'""' * 28_000,
            b'f; x=y a.b="' + b"\\" * 60_000,
            b"f; x=y" + b" a.b=c" * 10_000,
            b"f" + b";x=y" * 15_000,
            b"f; x=y a.b=" + b"c-" * 30_000,
            b"mx.ours.examplex" * 3_700 + b";",
            "ä.".encode() * 500 + b";",
        ],
        _WORDS,
        microseconds_per_octet=4,
    ),
    "authres_values": Target(
        _parse_values,
        _check_values,
        [
            b"a@x.example|mail.x.example|192.0.2.1|2001:db8::1",
            b'"a b"@x.example|"; spf=pass"@x.example|a\r\nb@x.example|(a@x',
            "jörg@bücher.example|\u202e|dkim=pass@x.example".encode(),
            b'"' * 320 + b"|" + b"\\" * 320 + b"|" + b"a" * 321,
            b"|" * 60,
            b"a@" + b"a." * 30_000,
            b"SRS0=HHHH=TT=y.example=alice@x.example",
            b"x " * 30_000,
        ],
        _WORDS,
        microseconds_per_octet=4,
    ),
}
