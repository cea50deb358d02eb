"""Authentication-Results: whatever goes in, what comes out is ours, whole, and read back as it was."""

from __future__ import annotations

import re

from authres import AuthenticationResultsHeader, AuthResError
from hypothesis import example, given
from hypothesis import strategies as st

from srsd.authres import Result, claims, format_results, parse_results
from srsd.authres.result import METHODS
from srsd.syntax.address import parse_address
from srsd.syntax.domain import fold_domain

OURS = b"mx.ours.example"

# Octets that look like the real thing, or like an attack, more often than any octets would.
OCTETS = st.binary(max_size=80) | st.lists(
    st.sampled_from(
        [
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
                b"\n",
                b"\0",
                b"/",
                b"<",
                b"1",
            ),
            *(
                b"a",
                b"B",
                b"-",
                b"_",
                b"\xff",
                "ä".encode(),
                b"pass",
                b"spf",
                b"dkim=",
                b"none",
                b"reason",
                OURS,
            ),
            *(
                b"x.example",
                b"; spf=pass",
                b"smtp.mailfrom=",
                b"relay.example",
                b"\\\\",
                b'"a b"',
                b"(c)",
                b"A",
            ),
        ]
    ),
    max_size=30,
).map(b"".join)
VALUES = OCTETS | st.text(max_size=40) | OCTETS.map(lambda data: data + b"@x.example")
TEXTS = st.text(max_size=300) | OCTETS.map(lambda data: data.decode(errors="surrogateescape"))


@st.composite
def results(draw):
    method = draw(st.sampled_from(sorted(METHODS)))
    words = METHODS[method]
    names = draw(st.lists(st.sampled_from(words.properties), max_size=4))
    properties = tuple((*name.split("."), draw(VALUES)) for name in names)
    return Result(method, draw(st.sampled_from(words.results)), draw(TEXTS), properties)


def allowed(name: str, value: bytes | str) -> set[bytes]:
    """Give what may be read back for a value, if anything is."""
    data = value.encode(errors="surrogatepass") if isinstance(value, str) else value
    if name not in ("smtp.mailfrom", "header.i") or b"@" not in data:
        return {data}
    local_part, _, domain = data.rpartition(b"@")
    domain = fold_domain(domain) if not domain.isascii() else domain
    if domain is None:
        return set()
    address = parse_address(local_part + b"@" + domain)
    whole = {bytes(address)} if address else {data} if data in (b"@" + domain, local_part + b"@") else set()
    return whole | {domain if name == "smtp.mailfrom" else b"@" + domain}


def is_subsequence(found, given_properties) -> bool:
    """Tell whether what was read back is what was given, but for some that were left out."""
    rest = iter(given_properties)
    return all(
        any(
            f"{ptype}.{name}" == f"{each[0]}.{each[1]}" and value in allowed(f"{ptype}.{name}", each[2])
            for each in rest
        )
        for ptype, name, value in found
    )


@given(written=st.lists(results(), max_size=4), utf8=st.booleans())
@example(written=[Result("spf", "fail", "", (("smtp", "mailfrom", b"a@x) ; spf=pass>"),))], utf8=False)
@example(written=[Result("dkim", "fail", "", (("header", "i", b'"; spf=pass"@x.example'),))], utf8=False)
@example(written=[Result("dkim", "fail", "", (("header", "i", b"a\r\nX: y\r\n\r\n@x.example"),))], utf8=True)
def test_what_is_written_is_read_back_and_nothing_else(written, utf8):
    value = format_results(OURS, written, utf8=utf8)
    assert not re.search(rb"[\x00-\x08\x0b-\x1f\x7f]", value)
    assert not re.search(rb"\n(?![\t ])", value)
    assert utf8 or value.isascii()
    value.decode()
    lines = (b"Authentication-Results:" + value).split(b"\n")
    assert max(map(len, lines)) <= 998
    assert not any(line.strip() == b"" for line in lines)
    for method in METHODS:
        passed = sum(each[:2] == (method, "pass") for each in written)
        assert len(re.findall(rb"(?<![.a-z])%b=pass" % method.encode(), value.lower())) == passed
    parsed = parse_results(value)
    assert parsed is not None
    assert (parsed.authserv_id, parsed.version) == (OURS, 1)
    assert [each[:2] for each in parsed.results] == [each[:2] for each in written]
    for read, each in zip(parsed.results, written, strict=True):
        assert is_subsequence(read.properties, each.properties), (read, each)
        assert bool(read.reason) <= bool(each.reason)
    assert claims(value, OURS)
    assert not claims(value, b"another.example")
    # What was read back can be written again, and is the same.
    assert format_results(OURS, parsed.results, utf8=utf8) == value


PLAIN = st.text("abcdefghijklmnopqrstuvwxyz0123456789", min_size=1, max_size=20)
QUOTABLE = st.text(st.sampled_from("ab\"\\ @,:<>[]/=?!.'"), max_size=20)


@given(local_part=PLAIN | QUOTABLE.filter(bool), name=PLAIN, helo=PLAIN | QUOTABLE)
def test_what_may_be_written_is_never_left_out(local_part, name, helo):
    quoted = '"' + local_part.replace("\\", "\\\\").replace('"', '\\"') + '"'
    sender = f"{quoted}@{name}.example".encode()
    result = Result("spf", "pass", "", (("smtp", "mailfrom", sender), ("smtp", "helo", helo)))
    read = parse_results(format_results(OURS, [result]))
    assert read is not None
    ((_, _, mailfrom), (_, _, read_helo)) = read.results[0].properties
    assert read_helo == helo.encode()
    assert parse_address(mailfrom) == (local_part.encode(), f"{name}.example".encode())


@given(OCTETS)
def test_no_octets_raise(data):
    parse_results(data)
    claims(data, OURS)


@given(before=st.sampled_from([b"", b" ", b"(x)", b"\n\t", b'(")', b"(a (b))"]), after=OCTETS)
def test_whatever_follows_our_id_it_must_go(before, after):
    assert claims(before + OURS + b";" + after, OURS)
    assert claims(before + b'"' + OURS + b'" 1 ;' + after, OURS)
    assert claims(before + OURS.upper() + b". " + after, OURS)


@given(OCTETS)
def test_what_stays_names_another_and_is_one_line(data):
    if claims(data, OURS):
        return
    head = re.sub(rb"\([^()]*\)", b" ", re.sub(rb"\r?\n(?=[ \t])", b"", data).partition(b";")[0])
    assert OURS not in head.lower() or re.search(
        rb"[a-z0-9_-]" + OURS + rb"|" + OURS + rb"[a-z0-9_-]", head.lower()
    )
    assert not re.search(rb"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]", data)
    assert not re.search(rb"\n(?![ \t])|\r(?!\n)", data)
    assert b";" in data


@given(OCTETS | OCTETS.map(lambda data: b" relay.example; " + data) | OCTETS.map(lambda data: OURS + data))
def test_the_readers_agree_on_whose_it_is(data):
    ours = parse_results(data)
    if ours is not None and fold_domain(ours.authserv_id.strip()) == OURS:
        assert claims(data, OURS)
    try:
        text = re.sub(rb"\r?\n(?=[ \t])", b"", data).decode("latin-1")
        theirs = AuthenticationResultsHeader.parse("Authentication-Results:" + text).authserv_id
    except AuthResError:
        return
    if theirs.encode("latin-1").lower().rstrip(b".") == OURS:
        assert claims(data, OURS)
