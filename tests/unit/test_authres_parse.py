"""Authentication-Results read strictly: RFC 8601 §2.2 with comments, quoting, versions and folds."""

from __future__ import annotations

import time

import pytest

from srsd.authres import AuthenticationResults, Result, parse_results


def one(value: bytes) -> Result:
    parsed = parse_results(value)
    assert parsed is not None
    (result,) = parsed.results
    return result


# RFC 8601 Appendix B, from memory of its shape, with other names.
def test_nothing_was_checked():
    assert parse_results(b" example.org 1; none") == AuthenticationResults(b"example.org", 1, ())


def test_results_with_properties():
    assert parse_results(
        b" example.com;\r\n          auth=pass (cram-md5) smtp.auth=sender@example.net;\r\n"
        b"          spf=pass smtp.mailfrom=example.net"
    ) == AuthenticationResults(
        b"example.com",
        1,
        (
            Result("auth", "pass", "", (("smtp", "auth", b"sender@example.net"),)),
            Result("spf", "pass", "", (("smtp", "mailfrom", b"example.net"),)),
        ),
    )


def test_comments_everywhere():
    assert parse_results(
        b" (a) foo.example.net (foobar) 1 (baz);\n"
        b"    dkim (Because I like it) / 1 (One yay) = (wait for it) fail\n"
        b"      policy (A dot can go here) . (like that) expired\n"
        b"      (this surprised me) = (as I wasn't expecting it) 1362471462 (end (nested; here))"
    ) == AuthenticationResults(
        b"foo.example.net", 1, (Result("dkim", "fail", "", (("policy", "expired", b"1362471462"),)),)
    )


def test_reasons():
    assert parse_results(
        b' example.com;\n dkim=pass reason="good signature"\n header.i=@mail-router.example.net;\n'
        b' dkim=fail reason = bad header.i="@new york.example.com" header.b=abc'
    ).results == (
        Result("dkim", "pass", "good signature", (("header", "i", b"@mail-router.example.net"),)),
        Result("dkim", "fail", "bad", (("header", "i", b"@new york.example.com"), ("header", "b", b"abc"))),
    )


@pytest.mark.parametrize(
    ("spelt", "value"),
    [
        (b"example.org", b"example.org"),
        (b"a@example.org", b"a@example.org"),
        (b"@example.org", b"@example.org"),
        (b"@localhost", b"@localhost"),
        (b"a=b/c@example.org", b"a=b/c@example.org"),
        (b'"a b"@example.org', b'"a b"@example.org'),
        (b'"a\\"b"@example.org', b'"a\\"b"@example.org'),
        (b'"\\a"@example.org', b"a@example.org"),
        (b'"a@b"', b"a@b"),
        (b'"a b"', b"a b"),
        (b'"a\\"; spf=pass\\\\"', b'a"; spf=pass\\'),
        (b'""', b""),
        (b'"a\n\tb"', b"a\tb"),
        (b'"a\r\n b"', b"a b"),
        (b'"(a)"', b"(a)"),
        (b"(x) a (y)", b"a"),
        (b"(x)a(y)", b"a"),
        (b"\n a", b"a"),
        ("jörg@bücher.example".encode(), "jörg@bücher.example".encode()),
        ("bücher".encode(), "bücher".encode()),
    ],
)
@pytest.mark.parametrize("after", [b"", b" ", b"\n\t", b"(c)", b"; dkim=none", b" smtp.helo=x"])
def test_values(spelt, value, after):
    parsed = parse_results(b"id;spf=pass smtp.mailfrom=" + spelt + after)
    assert parsed.results[0].properties[0] == ("smtp", "mailfrom", value)


@pytest.mark.parametrize(
    ("value", "authserv_id", "version"),
    [
        (b"mx.example.org; none", b"mx.example.org", 1),
        (b"MX.example.ORG; none", b"MX.example.ORG", 1),
        (b' "mx example" ; none', b"mx example", 1),
        (b' "m\\x"; none', b"mx", 1),
        (b" (a)mx(b)2(c); none", b"mx", 2),
        (b" mx 000000001; none", b"mx", 1),
        (b" 1 1; none", b"1", 1),
        (" mx.bücher.example; none".encode(), "mx.bücher.example".encode(), 1),
        (b"\n mx\n ;\n none\n ", b"mx", 1),
        (b"mx;none(x)", b"mx", 1),
        (b"mx; NONE ", b"mx", 1),
    ],
)
def test_ids_and_versions(value, authserv_id, version):
    assert parse_results(value) == AuthenticationResults(authserv_id, version, ())


def test_words_are_in_lower_case():
    assert one(b"mx; SPF=Pass REASON=Why SMTP.MailFrom=A") == Result(
        "spf", "pass", "Why", (("smtp", "mailfrom", b"A"),)
    )


def test_words_need_not_be_registered():
    assert one(b"mx; x-tls=good policy.x-bits=2048") == Result(
        "x-tls", "good", "", (("policy", "x-bits", b"2048"),)
    )


def test_a_result_of_another_version_of_its_method_is_left_out():
    parsed = parse_results(b"mx; dkim/2=pass header.d=x; dkim/1=fail; spf / 1 = none")
    assert parsed.results == (Result("dkim", "fail"), Result("spf", "none"))


@pytest.mark.parametrize(
    "value",
    [
        # The head.
        *(b"", b" ", b";", b"mx", b"mx;", b"mx ;", b"; none", b"mx none", b"mx,none", b"mx mx; none", b"mx 1 1; none"),
        *(b"mx/1; none", b"mx 1x; none", b"mx 1234567890; none", b"mx" + b" 1" * 9 + b"; none", b"m[x]; none"),
        *(b"a@b; none", b"mx:; none", b'"mx; none', b'mx"; none', b'"mx"x; none', b'"a" "b"; none', b"(mx; none"),
        *(b"mx); none", b'"mx"1; none', b"m(x)x; none", b"mx . example; none", b"=?utf-8?q?mx?=; none"),
        # none.
        *(b"mx; none;", b"mx; none; none", b"mx; none spf=pass", b"mx; none; spf=pass", b"mx; spf=pass; none"),
        *(b"mx; no", b"mx; nonesuch", b"mx; none x", b"mx; none=", b"mx;; none"),
        # Results.
        *(b"mx; spf", b"mx; spf=", b"mx; =pass", b"mx; spf==pass", b"mx; spf=pass;", b"mx; spf=pass;;dkim=none"),
        *(b"mx; spf pass", b"mx; spf=pass pass", b'mx; spf="pass"', b'mx; "spf"=pass', b"mx; spf.x=pass", b"mx; spf-=pass"),
        *(b"mx; spf=pass-", b"mx; spf=pa_ss", b"mx; spf/=pass", b"mx; spf/x=pass", b"mx; spf/1/1=pass", b"mx; spf=pass, x"),
        *(b"mx; spf=pass/1", b"mx; spf=pass; mx2; dkim=pass", b"mx; spf=p\xc3\xa4ss", b"mx; /1=pass"),
        # Reasons.
        *(b"mx; spf=pass reason", b"mx; spf=pass reason=", b"mx; spf=pass reason=a b", b"mx; spf=pass reason=a reason=b"),
        *(b'mx; spf=pass reason="a', b"mx; spf=pass smtp.helo=x reason=a", b"mx; spf=passreason=a", b"mx; spf=pass reason=a@b"),
        # Properties.
        *(b"mx; spf=pass smtp", b"mx; spf=pass smtp.", b"mx; spf=pass smtp.helo", b"mx; spf=pass smtp.helo=", b"mx; spf=pass helo=x"),
        *(b"mx; spf=pass .helo=x", b"mx; spf=pass smtp..helo=x", b"mx; spf=pass smtp.a.b=x", b"mx; spf=pass smtp.helo=x y"),
        *(b"mx; spf=pass smtp.helo=a/b", b"mx; spf=pass smtp.helo=a=b", b"mx; spf=pass smtp.helo=a,b", b"mx; spf=pass smtp.helo=<a>"),
        *(b"mx; spf=pass smtp.helo=2001:db8::1", b"mx; spf=pass smtp.helo=[1]", b"mx; spf=pass smtp.helo=a@", b"mx; spf=pass smtp.helo=@"),
        *(b"mx; spf=pass smtp.helo=a..b@c", b"mx; spf=pass smtp.helo=a@b..c", b"mx; spf=pass smtp.helo=a@b@c", b"mx; spf=pass smtp.helo=a@b_c"),
        *(b"mx; spf=pass smtp.helo=a@[1]", b'mx; spf=pass smtp.helo="a"b', b'mx; spf=pass smtp.helo="a"smtp.helo=b', b'mx; spf=pass smtp.helo="a'),
        *(b'mx; spf=pass smtp.helo=a"b"', b"mx; spf=pass smtp.helo=a(", b"mx; spf=pass smtp.helo=a)", b"mx; spf=pass smtp.h_x=a", b"mx; spf=pass smtp.helo=\\a"),
        *(b'mx; spf=pass smtp.helo="a"@', b'mx; spf=pass smtp.helo="a" @b', b"mx; spf=pass smtp.helo=a @b", b"mx; spf=pass smtp.helo=a(c)b"),
        *(b'mx; spf=pass smtp.helo="a".b@c', b"mx; spf=pass smtp.helo=a;x", b"mx; spf=pass smtp.helo=a;b@c"),
        # Octets.
        *(b"mx; none\0", b"\0mx; none", b"mx;\rnone", b"mx;\nnone", b"mx; none\n", b"mx; none\r\n", b"mx; none\x7f", b"mx; none (\x1b)"),
        *(b"m\xffx; none", b"mx; none (\xff)", b'mx; spf=pass smtp.helo="\xff"', b"mx; spf=pass smtp.helo=\xc0\xaf"),
    ],
)  # fmt: skip
def test_anything_else_is_none(value):
    assert parse_results(value) is None


@pytest.mark.parametrize(
    "value",
    [
        *(b"(" * 60_000, b"()" * 30_000, b'"' * 60_000, b"f;x=y" + b" a.b=c" * 10_000, b"f" + b";x=y" * 15_000),
        *(b"f; x=y a.b=" + b"c." * 30_000 + b"!", b"f; x=y a.b=" + b"c" * 60_000 + b"@", b"f; x=y a.b=c@" + b"d-" * 30_000),
        *(b"f; " + b"-" * 60_000, b"f; " + b"a-" * 30_000, b"f" + b" " * 60_000, b"f; x=y" + b" " * 60_000 + b"!"),
        *(b"f; x" + b" " * 60_000, b'f; x=y a.b="' + b"\\" * 60_000, b"f;x=y" + b" a.b" * 15_000, b"f " + b"1" * 60_000 + b";none"),
        b'f; x=y reason="' + b"a " * 30_000 + b'"',
    ],
)  # fmt: skip
def test_hostile_values_take_little_time(value):
    took = []
    for _ in range(3):
        begin = time.thread_time()
        parse_results(value)
        took.append(time.thread_time() - begin)
    assert min(took) < 0.6, took  # the most is for fifteen thousand results that are good
