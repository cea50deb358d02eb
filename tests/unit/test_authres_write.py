"""Our Authentication-Results: registered words, quoted or missing values, short lines."""

from __future__ import annotations

import re

import authres
import pytest

from srsd.authres import Result, format_results, parse_results

ID = b"mx.example.net"

# https://www.iana.org/assignments/email-auth/ as of 2025-04-04, copied by hand.
REGISTERED_RESULTS = {
    "arc": "none pass fail",
    "auth": "none pass fail temperror permerror",
    "dkim": "none pass fail policy neutral temperror permerror",
    "dmarc": "none pass fail temperror permerror",
    "iprev": "pass fail temperror permerror",
    "spf": "none pass fail softfail policy neutral temperror permerror",
}
REGISTERED_PROPERTIES = {
    "arc": "smtp.remote-ip header.oldest-pass",
    "auth": "smtp.auth smtp.mailfrom",
    "dkim": "header.d header.i header.b header.a header.s",
    "dmarc": "header.from policy.dmarc",
    "iprev": "policy.iprev",
    "spf": "smtp.mailfrom smtp.helo",
}


def lines(value: bytes) -> list[bytes]:
    return (b"Authentication-Results:" + value).split(b"\n")


def write(
    value: bytes | str, *, name: str = "smtp.mailfrom", method: str = "spf", utf8: bool = False
) -> bytes | None:
    """Write one value; gives it as it is spelt, None where it was left out."""
    ptype, _, name = name.partition(".")
    head = f" mx.example.net;\n\t{method}=pass".encode()
    written = format_results(ID, [Result(method, "pass", "", ((ptype, name, value),))], utf8=utf8)
    if written == head:
        return None
    rest = written.removeprefix(head + b" ").removeprefix(head + b"\n\t")
    prefix = f"{ptype}.{name}=".encode()
    assert rest.startswith(prefix), written
    return rest.removeprefix(prefix)


def test_nothing_was_checked():
    assert format_results(ID, []) == b" mx.example.net; none"


def test_one_result():
    results = [
        Result(
            "spf", "pass", "", (("smtp", "mailfrom", b"a@example.org"), ("smtp", "helo", "mail.example.org"))
        )
    ]
    assert format_results(ID, results) == (
        b" mx.example.net;\n\tspf=pass smtp.mailfrom=a@example.org smtp.helo=mail.example.org"
    )


def test_several_results():
    results = [
        Result(
            "dkim",
            "pass",
            "",
            (("header", "d", b"example.org"), ("header", "s", b"s1"), ("header", "b", b"ab+/cdef")),
        ),
        Result("dkim", "fail", "body hash did not verify", (("header", "d", b"example.com"),)),
        Result("spf", "temperror"),
        Result("arc", "none"),
    ]
    assert format_results(ID, results) == (
        b" mx.example.net;\n"
        b'\tdkim=pass header.d=example.org header.s=s1 header.b="ab+/cdef";\n'
        b'\tdkim=fail reason="body hash did not verify" header.d=example.com;\n'
        b"\tspf=temperror;\n"
        b"\tarc=none"
    )


@pytest.mark.parametrize(
    ("method", "result"),
    [(method, result) for method, results in REGISTERED_RESULTS.items() for result in results.split()],
)
def test_every_registered_result_can_be_written(method, result):
    written = format_results(ID, [Result(method, result)])
    assert written == f" mx.example.net;\n\t{method}={result}".encode()
    assert parse_results(written).results == (Result(method, result),)


@pytest.mark.parametrize(
    ("method", "name"),
    [(method, name) for method, names in REGISTERED_PROPERTIES.items() for name in names.split()],
)
def test_every_registered_property_can_be_written(method, name):
    assert write(b"192.0.2.1", name=name, method=method) == b"192.0.2.1"


@pytest.mark.parametrize(
    "result",
    [
        *(Result("sender-id", "pass"), Result("x-spf", "pass"), Result("", "pass"), Result("SPF", "pass")),
        *(
            Result("spf", "hardfail"),
            Result("spf", "Pass"),
            Result("spf", ""),
            Result("spf", "pass; dkim=pass"),
        ),
        *(
            Result("arc", "temperror"),
            Result("arc", "permerror"),
            Result("iprev", "none"),
            Result("dkim", "softfail"),
        ),
        *(Result("spf=pass; dkim", "pass"), Result("dmarc", "policy"), Result("auth", "neutral")),
        Result("spf", "pass", "", (("smtp", "rcptto", b"x"),)),
        Result("spf", "pass", "", (("header", "mailfrom", b"x"),)),
        Result("spf", "pass", "", (("", "mailfrom", b"x"),)),
        Result("spf", "pass", "", (("smtp.mailfrom", "", b"x"),)),
        Result("spf", "pass", "", (("smtp", "Mailfrom", b"x"),)),
        Result("spf", "pass", "", (("smtp", "mailfrom=x smtp.helo", b"x"),)),
        Result("dkim", "pass", "", (("header", "from", b"x"),)),
        Result("dmarc", "pass", "", (("policy", "p", b"x"),)),
    ],
)
def test_a_word_that_is_not_registered_is_a_bug_of_the_caller(result):
    with pytest.raises(ValueError, match="is not registered"):
        format_results(ID, [Result("spf", "none"), result])


@pytest.mark.parametrize(
    ("authserv_id", "spelt"),
    [
        (b"mx.example.net", b"mx.example.net"),
        (b"mx", b"mx"),
        (b"my mail host", b'"my mail host"'),
        (b"a/b", b'"a/b"'),
    ],
)
def test_the_authserv_id_is_a_value(authserv_id, spelt):
    written = format_results(authserv_id, [])
    assert written == b" " + spelt + b"; none"
    assert parse_results(written).authserv_id == authserv_id


@pytest.mark.parametrize(
    "authserv_id",
    [
        b"",
        b"a\nb",
        b"a\r\n b",
        b"a\0b",
        b"a;b",
        b"a (b",
        b"\xff",
        "ä".encode(),
        b"a\x7fb",
        b"a" * 256,
        b"a@b",
        b"a\tb",
    ],
)
def test_an_authserv_id_that_cannot_be_written_is_the_caller_s_fault(authserv_id):
    with pytest.raises(ValueError, match="cannot be an authserv-id"):
        format_results(authserv_id, [])


@pytest.mark.parametrize("length", range(40, 80))
@pytest.mark.parametrize("results", [[], [Result("spf", "pass")]])
def test_a_long_authserv_id_gets_a_line_of_its_own(length, results):
    authserv_id = b"m" * length
    written = format_results(authserv_id, results)
    assert parse_results(written) == (authserv_id, 1, tuple(results))
    assert all(len(line) < 78 or line.strip(b"\t;") == authserv_id for line in lines(written))


# What a value looks like on the wire.


@pytest.mark.parametrize(
    ("value", "spelt"),
    [
        (b"example.org", b"example.org"),
        (b"a@example.org", b"a@example.org"),
        (b"a.b+c=d/e@example.org", b"a.b+c=d/e@example.org"),
        (
            b"SRS0=HHHH=TT=example.com=alice@fwd.example.org",
            b"SRS0=HHHH=TT=example.com=alice@fwd.example.org",
        ),
        ("a@example.org", b"a@example.org"),
        (b"", b'""'),
        (b"a@localhost", b"a@localhost"),
        (b"postmaster", b"postmaster"),
        (b'"a b"@example.org', b'"a b"@example.org'),
        (b"a b@example.org", b'"a b"@example.org'),
        (b'"a"@example.org', b"a@example.org"),
        (b'"a\\"b\\\\"@example.org', b'"a\\"b\\\\"@example.org'),
        (b'"a@b"@example.org', b'"a@b"@example.org'),
        (b"a..b@example.org", b'"a..b"@example.org'),
        (b".a@example.org", b'".a"@example.org'),
        (b"a@[192.0.2.1]", b'"a@[192.0.2.1]"'),
        (b'"a b"@[192.0.2.1]', b'"\\"a b\\"@[192.0.2.1]"'),
        (b"a@under_score.example.org", b'"a@under_score.example.org"'),
        (b"a@-.example.org", b'"a@-.example.org"'),
        ("a@bücher.example".encode(), b"a@xn--bcher-kva.example"),
        ("a@bücher.example", b"a@xn--bcher-kva.example"),
        # Only the domain remains.
        ("jörg@example.org".encode(), b"example.org"),
        ("jörg@bücher.example".encode(), b"xn--bcher-kva.example"),
        (b"a\r\nb@example.org", b"example.org"),
        (b"a\x00b@example.org", b"example.org"),
        (b'"a\tb"@example.org', b"example.org"),
        (b"\xff\xfe@example.org", b"example.org"),
        ("\ud800@example.org", b"example.org"),
        (b'"a;b"@example.org', b"example.org"),
        (b"(a@example.org", b"example.org"),
        (b'"unclosed@example.org', b"example.org"),
        (b"a" * 400 + b"@example.org", b"example.org"),
        (b"@example.org", b"@example.org"),
        (b"spf=pass@example.org", b"example.org"),
        (b"x.DKIM=PASS.x@example.org", b"example.org"),
        (b'"dmarc = pass"@example.org', b"example.org"),
        (b'"arc/1=pass"@example.org', b"example.org"),
        (b"user=pass@example.org", b"user=pass@example.org"),
        # Nothing does.
        (b"a@x(y.example", None),
        (b"a@x;y.example", None),
        (b"a@x\ny", None),
        (b"a@\xff.example", None),
        ("a@\u200b.example".encode(), None),
        (b"\r\nX-Forged: yes", None),
        (b"\x00", None),
        (b"a" * 321, None),
        (b"a@" + b"b" * 321, None),
    ],
)
def test_the_reverse_path(value, spelt):
    assert write(value) == spelt


@pytest.mark.parametrize(
    ("value", "spelt"),
    [
        (b"mail.example.org", b"mail.example.org"),
        (b"mail_1.example.org", b"mail_1.example.org"),
        (b"[192.0.2.1]", b'"[192.0.2.1]"'),
        (b"2001:db8::1", b'"2001:db8::1"'),
        (b"a b", b'"a b"'),
        (b'a"b', b'"a\\"b"'),
        (b"a\\", b'"a\\\\"'),
        (b"a/b=c", b'"a/b=c"'),
        (b"a@b", b"a@b"),
        (b"a, b", b'"a, b"'),
        (b"spf=pass", None),
        (b"x dkim=pass x", None),
        (b"x; dkim=neutral", None),
        (b"a(b", None),
        (b"a)b", None),
        (b"a\rb", None),
        (b"a\nb", None),
        (b"a\tb", None),
        (b"a\x7f", None),
        (b"a\x1b[31m", None),
        (b"\xe4", None),
        ("ä".encode(), None),
        (b"a" * 320, b"a" * 320),
        (b"a" * 321, None),
        (b'"' * 320, b'"' + b'\\"' * 320 + b'"'),
    ],
)
def test_the_name_a_client_gives_itself(value, spelt):
    assert write(value, name="smtp.helo") == spelt


@pytest.mark.parametrize(
    ("value", "spelt"),
    [
        (b"@example.org", b"@example.org"),
        (b"a@sub.example.org", b"a@sub.example.org"),
        (b'"a b"@example.org', b'"a b"@example.org'),
        (b"a\r\nb@example.org", b"@example.org"),
        (b'"; spf=pass"@example.org', b"@example.org"),
        (b'";spf=neutral"@example.org', b"@example.org"),
        ("ä@bücher.example".encode(), b"@xn--bcher-kva.example"),
        (b"@x;y", None),
        (b"@", b'"@"'),
    ],
)
def test_the_agent_or_user_of_a_signature(value, spelt):
    assert write(value, name="header.i", method="dkim") == spelt


@pytest.mark.parametrize(
    ("value", "spelt"),
    [
        ("jörg@example.org".encode(), "jörg@example.org".encode()),
        ("jörg@bücher.example".encode(), "jörg@xn--bcher-kva.example".encode()),
        ('"jörg b"@example.org'.encode(), '"jörg b"@example.org'.encode()),
        ("a\u0085b@example.org".encode(), b"example.org"),
        ("a\u2028b@example.org".encode(), b"example.org"),
        ("a\u202eb@example.org".encode(), b"example.org"),
        ("a\u00a0b@example.org".encode(), b"example.org"),
        ("ä\n@example.org".encode(), b"example.org"),
        ('"ä;"@example.org'.encode(), b"example.org"),
        (b"\xff@example.org", b"example.org"),
        ("a@\N{SNOWMAN}.example".encode(), None),  # RFC 5892 §2.6 has no symbols
    ],
)
def test_a_message_that_may_have_utf8(value, spelt):
    assert write(value, utf8=True) == spelt


# What peers were seen to let in (OpenDKIM 2.11b2, pyspf-milter 3.0.4, opendmarc), and kin.
INJECTED = [
    *(
        b"a@x) ; spf=pass>",
        b"<a@x) ; spf=pass>",
        b'"; spf=pass',
        b"; spf=pass",
        b"x ;spf=pass",
        b"x) (",
        b"(",
        b")",
        b";",
    ),
    *(
        b"\r\nX-Evil: 1",
        b"\nX-Evil: 1",
        b"\rX-Evil: 1",
        b"x\r\n\r\nbody",
        b"x\n dkim=pass",
        b"x\x00",
        b"\x00; spf=pass",
    ),
    *(
        b'x" smtp.mailfrom="y',
        b'x"; dmarc=pass header.from="bank.example',
        b'"a\r\n b"@x',
        b'"a" ; dkim=pass "b"@x',
    ),
    *(
        b"a@legit.example,b@evil.example",
        b"a@evil.example'legit.example",
        b"any@legit.example(a.evil.example",
        b"(any@legit",
    ),
    *(
        b"@a.example,@b.example:any@x.example",
        b"a b",
        b"a\tb",
        b"\\",
        b'"',
        b'\\"',
        b'a\\"; spf=pass',
        b"=?utf-8?q?=0d=0a?=",
    ),
    *(
        "a\u2028b".encode(),
        "a\u0085b".encode(),
        b"\xc0\x8a",
        b"\xe5\x98\x8a",
        b"x; (comment",
        b"x\x0b\x0c\x1c\x1d\x1e\x85y",
    ),
    *(b"mx.example.net; dkim=pass", b"reason=", b'reason="', b"dkim=pass@evil.example", b"a=b c=d", b"a.b=c"),
]


@pytest.mark.parametrize("value", INJECTED)
@pytest.mark.parametrize(("method", "name"), [("spf", "smtp.mailfrom"), ("spf", "smtp.helo"), ("dkim", "header.i"), ("dkim", "header.d"), ("dkim", "header.s"), ("dmarc", "header.from")])  # fmt: skip
@pytest.mark.parametrize("utf8", [False, True])
def test_no_value_makes_anything_but_a_value(value, method, name, utf8):
    ptype, _, prop = name.partition(".")
    last = Result("arc", "none")
    written = format_results(ID, [Result(method, "fail", "", ((ptype, prop, value),)), last], utf8=utf8)
    assert not re.search(rb"[\x00-\x08\x0b-\x1f\x7f;()]", written.replace(b";\n\t", b""))
    assert not re.search(rb"\n(?!\t)", written)
    assert b"=pass" not in written
    parsed = parse_results(written)
    assert [result[:2] for result in parsed.results] == [(method, "fail"), ("arc", "none")]
    assert [found[:2] for found in parsed.results[0].properties] in ([], [(ptype, prop)])
    # Who cuts at every `;` finds no more than two results either.
    assert written.count(b";") == 2


@pytest.mark.parametrize("reason", INJECTED)
@pytest.mark.parametrize("utf8", [False, True])
def test_no_reason_makes_anything_but_a_reason(reason, utf8):
    text = reason.decode(errors="surrogateescape")
    written = format_results(ID, [Result("spf", "fail", text), Result("arc", "none")], utf8=utf8)
    assert not re.search(rb"[\x00-\x08\x0b-\x1f\x7f;()]", written.replace(b";\n\t", b""))
    assert b"=pass" not in written
    assert [result[:2] for result in parse_results(written).results] == [("spf", "fail"), ("arc", "none")]


@pytest.mark.parametrize(
    ("reason", "spelt"),
    [
        ("no key", b'reason="no key"'),
        ("none", b'reason="none"'),
        ("p=reject", b'reason="p=reject"'),
        ("a  b\tc", b'reason="a b?c"'),
        ("bad (really); so", b'reason="bad [really], so"'),
        ('say "x\\y"', b"reason=\"say 'x/y'\""),
        ("dkim=pass but not aligned", b'reason="dkim:pass but not aligned"'),
        ("a\r\nb", b'reason="a??b"'),
        ("käse", b'reason="k?se"'),
        ("\udcff", b'reason="?"'),
        ("x" * 500, b'reason="' + b"x" * 200 + b'"'),
    ],
)
def test_the_reason(reason, spelt):
    written = format_results(ID, [Result("dkim", "fail", reason)])
    assert written.replace(b"\n\t", b" ").removeprefix(b" mx.example.net; dkim=fail ") == spelt


@pytest.mark.parametrize("reason", ["", " ", "   "])
def test_no_reason(reason):
    assert format_results(ID, [Result("dkim", "fail", reason)]) == b" mx.example.net;\n\tdkim=fail"


def test_a_long_reason_is_folded_at_its_blanks_and_says_the_same():
    reason = "a long reason that has to be folded somewhere, for it is more than a line can hold, and more than two"
    result = Result("dkim", "fail", reason, (("header", "d", b"example.org"),))
    assert format_results(ID, [result]) == (
        b" mx.example.net;\n\tdkim=fail\n"
        b'\treason="a long reason that has to be folded somewhere, for it is more than\n'
        b' a line can hold, and more than two"\n'
        b"\theader.d=example.org"
    )
    assert parse_results(format_results(ID, [result])).results == (result,)


def test_a_reason_in_utf8():
    written = format_results(ID, [Result("dkim", "fail", "käse \u202e")], utf8=True)
    assert written == ' mx.example.net;\n\tdkim=fail reason="käse ?"'.encode()


# Lines.


@pytest.mark.parametrize("length", range(1, 120))
def test_lines_are_short_unless_a_value_is_long(length):
    domain = b"d" * length
    result = Result(
        "dkim",
        "pass",
        "one or two words " * (length // 10),
        (
            ("header", "d", domain),
            ("header", "s", domain[:40]),
            ("header", "a", b"rsa-sha256"),
            ("header", "b", b"a/b"),
        ),
    )
    written = format_results(ID, [result] * 3)
    for line in lines(written):
        assert len(line) < 78 or line in (b"\theader.d=" + domain, b"\theader.d=" + domain + b";"), line
    parsed = parse_results(written).results
    assert [each._replace(reason="") for each in parsed] == [result._replace(reason="")] * 3
    assert parsed[0].reason == result.reason[:200].strip()


def test_no_line_can_be_too_long():
    words = {
        "spf": ("mailfrom", "helo"),
        "dkim": ("i", "d", "s", "b", "a"),
    }
    value = b'"' * 320
    for method, names in words.items():
        ptype = "smtp" if method == "spf" else "header"
        for utf8 in (False, True):
            result = Result(
                method, "fail", "\U0001f600" * 1000, tuple((ptype, name, value) for name in names)
            )
            assert max(map(len, lines(format_results(b"m" * 255, [result], utf8=utf8)))) <= 998


def test_a_fold_never_stands_in_a_value():
    result = Result(
        "spf",
        "pass",
        "",
        (("smtp", "helo", b"word " * 40), ("smtp", "mailfrom", b'"' + b"a " * 60 + b'"@x.example')),
    )
    unfolded = format_results(ID, [result]).replace(b"\n\t", b" ")
    assert unfolded == (
        b' mx.example.net; spf=pass smtp.helo="'
        + b"word " * 40
        + b'" smtp.mailfrom="'
        + b"a " * 60
        + b'"@x.example'
    )


# Another reader as the judge.


def read_by_authres(written: bytes) -> authres.AuthenticationResultsHeader:
    text = "Authentication-Results:" + written.replace(b"\n", b"").decode()
    return authres.AuthenticationResultsHeader.parse(text)


# authres gives up a quoted-string that is not the last of its result, and leaves quoted-pairs as they are.
@pytest.mark.parametrize(
    "result",
    [
        *(
            Result(method, result)
            for method, results in REGISTERED_RESULTS.items()
            for result in results.split()
        ),
        Result(
            "spf", "pass", "", (("smtp", "mailfrom", b"a@example.org"), ("smtp", "helo", b"mail.example.org"))
        ),
        Result(
            "spf",
            "pass",
            "",
            (
                ("smtp", "mailfrom", b"SRS0=HHHH=TT=x.example=alice@example.org"),
                ("smtp", "helo", b"[192.0.2.1]"),
            ),
        ),
        Result("spf", "pass", "", (("smtp", "mailfrom", b'"a b"@example.org'), ("smtp", "helo", b"mail"))),
        Result(
            "dkim",
            "fail",
            "bad signature",
            (
                ("header", "d", b"example.org"),
                ("header", "i", b"@example.org"),
                ("header", "s", b"s1"),
                ("header", "a", b"rsa-sha256"),
                ("header", "b", b"ab+/cdef"),
            ),
        ),
        Result(
            "dkim",
            "pass",
            "a long reason that has to be folded somewhere, for it is more than a line",
            (("header", "d", b"example.org"),),
        ),
        Result("dmarc", "fail", "", (("header", "from", b"example.org"), ("policy", "dmarc", b"reject"))),
        Result("arc", "pass", "", (("header", "oldest-pass", b"0"), ("smtp", "remote-ip", b"2001:db8::1"))),
        Result("iprev", "pass", "", (("policy", "iprev", b"192.0.2.1"),)),
        Result("auth", "pass", "", (("smtp", "auth", b"user name"),)),
    ],
    ids=lambda result: f"{result.method} {result.result}",
)
def test_authres_reads_what_we_write(result):
    header = read_by_authres(format_results(ID, [result, Result("spf", "none"), result]))
    assert header.authserv_id == ID.decode()
    assert len(header.results) == 3
    for read in (header.results[0], header.results[2]):
        assert (read.method, read.result) == result[:2]
        assert " ".join((read.reason or "").split()) == result.reason
        assert [(each.type, each.name, each.value.encode()) for each in read.properties] == list(
            result.properties
        )


def test_authres_reads_no_results():
    header = read_by_authres(format_results(ID, []))
    assert (header.authserv_id, header.results) == (ID.decode(), [])


@pytest.mark.parametrize("value", INJECTED)
def test_authres_finds_no_result_that_was_put_in(value):
    results = [
        Result(
            "spf",
            "fail",
            value.decode(errors="surrogateescape"),
            (("smtp", "mailfrom", value), ("smtp", "helo", value)),
        ),
        Result("dkim", "fail", "", (("header", "i", value),)),
    ]
    header = read_by_authres(format_results(ID, results))
    assert [(each.method, each.result) for each in header.results] == [("spf", "fail"), ("dkim", "fail")]
