"""The author of a message: one, or the reason why there is none that all readers agree on.

Many of these are shapes with which mail was made to look as if another had written it: the readers of
a message and the checkers of its signature found different addresses in it.
"""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from srsd.filter.author import Author, find_author
from srsd.syntax.address import Address
from srsd.syntax.header import HeaderField

NO_FIELD = "there is no From field"
SEVERAL_FIELDS = "there are several From fields"
UNPARSABLE = "the From field cannot be parsed"
SEVERAL_DOMAINS = "there are addresses of several domains in From"
SEVERAL_ADDRESSES = "there are several addresses in From"
NO_DOMAIN = "the address in From has no domain name"

ADMIN = b" admin@legit.example"
SENDER = b" any@attack.example"


def header(*fields: tuple[bytes, bytes]) -> list[HeaderField]:
    others = [(b"Received", b" from x"), (b"Subject", b" From: x@y.example"), (b"X-From", b" z@y.example")]
    return [HeaderField(*field) for field in (*others, *fields, (b"Frome", b" e@y.example"))]


@pytest.mark.parametrize(
    ("value", "local_part", "domain", "folded"),
    [
        (ADMIN, b"admin", b"legit.example", b"legit.example"),
        (b" Admin <admin@LEGIT.example>", b"admin", b"LEGIT.example", b"legit.example"),
        (b" admin@legit.example.", b"admin", b"legit.example.", b"legit.example"),
        (b" admin@b\xc3\xbccher.example", b"admin", b"b\xc3\xbccher.example", b"xn--bcher-kva.example"),
        (b" admin@xn--bcher-kva.example", b"admin", b"xn--bcher-kva.example", b"xn--bcher-kva.example"),
        (b"\n\tadmin@legit.example", b"admin", b"legit.example", b"legit.example"),
        (b' "admin" <"a b"@legit.example>', b"a b", b"legit.example", b"legit.example"),
        # An address in a name or a comment is none, whatever it looks like.
        (b' "x <admin@legit.example>" <any@attack.example>', b"any", b"attack.example", b"attack.example"),
        (b" (admin@legit.example) any@attack.example", b"any", b"attack.example", b"attack.example"),
        (b" any@attack.example (admin@legit.example)", b"any", b"attack.example", b"attack.example"),
        (b' "admin@legit.example,"<any@attack.example>', b"any", b"attack.example", b"attack.example"),
        (b' <"<admin@legit.example>"@attack.example>', b"<admin@legit.example>", *[b"attack.example"] * 2),
        (b' "admin@legit.example"@attack.example', b"admin@legit.example", *[b"attack.example"] * 2),
    ],
)
def test_one_author(value, local_part, domain, folded):
    assert find_author(header((b"From", value))) == Author(Address(local_part, domain), folded)


@pytest.mark.parametrize("name", [b"from", b"FROM", b"fRoM", b"From ", b"From\t", b"From \t "])
def test_the_name_of_the_field(name):
    assert find_author(header((name, ADMIN))) == Author(Address(b"admin", b"legit.example"), b"legit.example")


# Two fields, one of which a reader may overlook.
TWO = [
    (b"From", b"From"),
    (b"From", b"from"),
    (b"FROM", b"fRoM"),
    (b"From", b"From "),
    (b"From ", b"From"),
    (b"From\t", b"From"),
    (b"From ", b"From\t"),
    (b"From", b"From\x0b"),
]


@pytest.mark.parametrize(("first", "second"), TWO)
def test_two_fields(first, second):
    for values in ((ADMIN, SENDER), (ADMIN, ADMIN), (ADMIN, b""), (b" garbage <", ADMIN)):
        fields = header((first, values[0]), (b"To", b" x@y.example"), (second, values[1]))
        assert find_author(fields) == Author(None, b"", SEVERAL_FIELDS)


def test_no_field():
    for fields in ([], header(), header((b"Sender", ADMIN), (b"Resent-From", ADMIN))):
        assert find_author(fields) == Author(None, b"", NO_FIELD)


def test_sender_and_resent_from_do_not_count():
    fields = header((b"Sender", SENDER), (b"From", ADMIN), (b"Resent-From", SENDER), (b"Reply-To", SENDER))
    assert find_author(fields).domain == b"legit.example"


PROBLEMS = [
    (b"", UNPARSABLE),
    (b" ", UNPARSABLE),
    (b" admin", UNPARSABLE),
    (b" admin@", UNPARSABLE),
    (b" @legit.example", UNPARSABLE),
    (b" Friends:;", UNPARSABLE),
    (b" Friends: admin@legit.example;", UNPARSABLE),
    # Lists
    (b" admin@legit.example, any@attack.example", SEVERAL_DOMAINS),
    (b" <admin@legit.example>,<any@attack.example>", SEVERAL_DOMAINS),
    (b" admin@legit.example, any@sub.legit.example", SEVERAL_DOMAINS),
    (b" admin@legit.example, admin@[192.0.2.1]", SEVERAL_DOMAINS),
    (b" admin@legit.example,", UNPARSABLE),
    (b" ,admin@legit.example", UNPARSABLE),
    (b" admin@legit.example; any@attack.example", UNPARSABLE),
    (b" <any@attack.example> <admin@legit.example>", UNPARSABLE),
    (b" <admin@legit.example>any@attack.example", UNPARSABLE),
    (b" any@attack.example <admin@legit.example>", UNPARSABLE),
    # Routes, and brackets that do not match
    (b" <@attack.example,@any.attack.example:admin@legit.example>", UNPARSABLE),
    (b" <admin@legit.example", UNPARSABLE),
    (b" admin@legit.example>", UNPARSABLE),
    (b" <<admin@legit.example>>", UNPARSABLE),
    (b" <any@attack.example>>", UNPARSABLE),
    (b" <any@attack.example\\>admin@legit.example>", UNPARSABLE),
    # Words that are decoded by some
    (b" =?utf-8?b?YWRtaW5AbGVnaXQuZXhhbXBsZQ==?=", UNPARSABLE),
    (b" =?utf-8?q?=3Cadmin=40legit.example=3E=2C?= any@attack.example", UNPARSABLE),
    # Two at signs, truncation and controls
    (b" admin@legit.example@attack.example", UNPARSABLE),
    (b" admin@attack.example\0@legit.example", UNPARSABLE),
    (b" admin@legit.example\0", UNPARSABLE),
    (b" admin@legit.example\r", UNPARSABLE),
    (b" admin@legit.example(.attack.example", UNPARSABLE),
    (b" admin@legit.example'@attack.example", UNPARSABLE),
    (b" admin\xff@legit.example", UNPARSABLE),
    # No name that could have a policy or a key
    (b" admin@[192.0.2.1]", NO_DOMAIN),
    (b" admin@[IPv6:2001:db8::1]", NO_DOMAIN),
    (b" admin@" + b"a" * 254, NO_DOMAIN),
    (b" admin@\xe2\x80\xae.example", NO_DOMAIN),  # a right-to-left override, which IDNA refuses
]


@pytest.mark.parametrize(("value", "problem"), PROBLEMS)
def test_no_author(value, problem):
    assert find_author(header((b"From", value))) == Author(None, b"", problem)


@pytest.mark.parametrize("more", [b"admin@legit.example", b"Bob <bob@LEGIT.example>, c@legit.example"])
def test_several_authors_of_one_domain_have_that_domain(more):
    """RFC 9989 §5.3.1 wants one domain, not one address."""
    author = find_author(header((b"From", b" admin@legit.example, " + more)))
    assert author == Author(None, b"legit.example", SEVERAL_ADDRESSES)


@given(st.lists(st.tuples(st.sampled_from([b"From", b"from ", b"To"]), st.binary(max_size=60))))
def test_whatever_it_is_there_is_an_author_or_a_problem(fields):
    author = find_author([HeaderField(*field) for field in fields])
    assert (author.address is None) == bool(author.problem) == (not author.domain)
    if author.address is not None:
        assert sum(name.strip().lower() == b"from" for name, _ in fields) == 1
        assert author.domain == author.domain.lower()


def test_a_hundred_thousand_fields():
    fields = [HeaderField(b"From", ADMIN)] * 100_000
    assert find_author(fields).problem == SEVERAL_FIELDS
