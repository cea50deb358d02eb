"""The answers to lookups, row by row, as both protocols spell them."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import replace
from ipaddress import ip_address
from typing import Any

import pytest

from harness.fake_resolver import FakeResolver
from srsd.daemon.counters import Counters
from srsd.daemon.tables import Answerer, SpfOfOurselves, socketmap_of, tcp_table_of
from srsd.exclusion import ExclusionMap, parse_exclusion_map
from srsd.filter.outbound_spf import OutboundSpf
from srsd.lookup import REWRITTEN, REWRITTEN_LONG, DomainFor, Lookup, LookupParameters
from srsd.resolving import NotCachedError, Outcome
from srsd.srs import Keyring, Srs, SrsParameters
from srsd.wire import tcp_table
from srsd.wire.answer import Answer, Status

TODAY = 20780
DOMAIN = "fwd.example.net"
ALICE = b"SRS0=Gt5l=JM=example.com=alice@fwd.example.net"
EXCLUDED = b"@friend.example\nboss@example.com srs\n.spf.example spf\n'u\"@x.example @x\n".replace(
    b"'u\"", b"u"
)

PARAMETERS = LookupParameters(
    domain=DOMAIN,
    local_domains=("local.example", ".all.example", "münchen.example"),
    previous_domains=("old.example.net",),
)


def make(
    exclusions: bytes = EXCLUDED, secrets: tuple[bytes, ...] = (b"tops3cr3t", b"older"), **changes
) -> Lookup:
    parsed = parse_exclusion_map(exclusions)
    return Lookup(replace(PARAMETERS, **changes), Srs(SrsParameters(), Keyring(secrets)), parsed)


LOOKUP = make()

# Key, and the result or else the reason for which it is not found.
FORWARD = [
    (b"alice@example.com", ALICE, None),
    (b"Alice@Example.COM", b"SRS0=Gt5l=JM=Example.COM=Alice@fwd.example.net", None),
    (b"alice@example.com.", b"SRS0=4j18=JM=example.com.=alice@fwd.example.net", None),
    (b'"alice"@example.com', ALICE, None),
    (b'"a@b"@example.com', b'"SRS0=WY8w=JM=example.com=a@b"@fwd.example.net', None),
    (b"a@b@example.com", b'"SRS0=WY8w=JM=example.com=a@b"@fwd.example.net', None),
    (b"user@[IPv6:2001:db8::1]", b'"SRS0=IX_W=JM=[IPv6:2001:db8::1]=user"@fwd.example.net', None),
    (b"SRS0=HHHH=TT=a=b@mid.example", b"SRS1=", None),
    (b"srs0+tag@gmail.example", b"SRS1=", None),
    (b"", None, "null sender"),
    (b'""', None, "null sender"),
    (b"<>", None, "null sender"),
    (b"postmaster", None, "not an address"),
    (b"@example.com", None, "not an address"),
    (b"alice@", None, "not an address"),
    (b'""@example.com', None, "not an address"),
    (b"a\0b@example.com", None, "not an address"),
    (b"a@ex\nample.com", None, "not an address"),
    (b"alice@ex=ample.com", None, "domain cannot be carried in an SRS address"),
    (b"alice@ex ample.com", None, "domain cannot be carried in an SRS address"),
    (b'alice@ex"ample.com', None, "domain cannot be carried in an SRS address"),
    (b"SRS1=HHHH@mid.example", None, "malformed SRS address"),
    (b"SRS1=first.example==H=TT=a=b@mid.example", None, "malformed SRS address"),
    (b"bob@fwd.example.net", None, "own domain"),
    (b"bob@FWD.Example.NET.", None, "own domain"),
    (b"bob@old.example.net", None, "own domain"),
    (b"bob@local.example", None, "own domain"),
    (b"bob@LOCAL.example", None, "own domain"),
    (b"bob@sub.all.example", None, "own domain"),
    (b"bob@deep.sub.all.example.", None, "own domain"),
    ("bob@MÜNCHEN.example".encode(), None, "own domain"),
    (b"bob@xn--mnchen-3ya.example", None, "own domain"),
    (b"bob@sub.local.example", b"SRS0=", None),
    (b"bob@all.example", b"SRS0=", None),
    (b"bob@sub.fwd.example.net", b"SRS0=", None),
    (b"bob@\xff.local.example", b"SRS0=", None),
    ("bob@ü_.all.example".encode(), b"SRS0=", None),  # what IDNA refuses is not ours
    (ALICE, None, "already rewritten here"),
    (ALICE.lower(), None, "already rewritten here"),
    (ALICE.replace(b"fwd.", b"old."), None, "already rewritten here"),
    (b"SRS0=xxxx@FWD.example.net", None, "already rewritten here"),
    (b"SRS1=xxxx@fwd.example.net", None, "already rewritten here"),
    (b"SRS0=xxxx=JM=a=b@local.example", None, "own domain"),
    (b"anyone@friend.example", None, "excluded"),
    (b"Anyone@FRIEND.example.", None, "excluded"),
    (b"boss@example.com", None, "excluded"),
    (b'"Boss"@example.com', None, "excluded"),
    (b"anyone@sub.friend.example", b"SRS0=", None),
    (b"anyone@sub.spf.example", b"SRS0=", None),  # another thing is skipped for it
    (b"SRS0=H=TT=a=b@friend.example", None, "excluded"),
]

REVERSE = [
    (ALICE, b"alice@example.com", None),
    (ALICE.lower(), b"alice@example.com", None),
    (ALICE.upper(), b"ALICE@EXAMPLE.COM", None),
    (ALICE + b".", b"alice@example.com", None),
    (b'"' + ALICE.replace(b"@", b'"@'), b"alice@example.com", None),
    (ALICE.replace(b"fwd.", b"old."), b"alice@example.com", None),
    (b'"SRS0=WY8w=JM=example.com=a@b"@fwd.example.net', b'"a@b"@example.com', None),
    (b"SRS0=WY8w=JM=example.com=a@b@fwd.example.net", b'"a@b"@example.com', None),
    (b"SRS1=Nvww=mid.example==HHHH=TT=orig.example=user@fwd.example.net",
     b"SRS0=HHHH=TT=orig.example=user@mid.example", None),
    (b"", None, "null sender"),
    (b'""', None, "null sender"),
    (b"postmaster", None, "not an address"),
    (b"alice@", None, "not an address"),
    (b"alice@fwd.example.net", None, "not an SRS address"),
    (b"alice@example.com", None, "not an SRS address"),
    (ALICE.replace(b"SRS0", b"SRS2"), None, "not an SRS address"),
    (ALICE.replace(b"fwd.example.net", b"elsewhere.example"), None, "SRS address of another domain"),
    (ALICE.replace(b"fwd.", b"sub.fwd."), None, "SRS address of another domain"),
    (ALICE.replace(b"fwd.example.net", b"local.example"), None, "SRS address of another domain"),
    (b"SRS0=x@fwd.example.net", None, "malformed SRS address"),
    (b"SRS0@fwd.example.net", None, "not an SRS address"),
    (b"SRS1=h@fwd.example.net", None, "malformed SRS address"),
    (ALICE.replace(b"Gt5l", b"Gt5"), None, "hash too short"),
    (ALICE.replace(b"Gt5l", b"Gt5m"), None, "hash invalid"),
    (ALICE.replace(b"alice", b"mallory"), None, "hash invalid"),
    (b"SRS0=qGRe=IW=example.com=alice@fwd.example.net", None, "address expired"),
    (b"SRS0=VTEd=JO=example.com=alice@fwd.example.net", None, "address expired"),
    (b"SRS0=6Nru=JM=example.com=@fwd.example.net", None, "malformed SRS address"),
]  # fmt: skip
ROWS = [("forward", *row) for row in FORWARD] + [("reverse", *row) for row in REVERSE]


def ask(lookup: Lookup, direction: str, key: bytes) -> Answer:
    return (lookup.forward if direction == "forward" else lookup.reverse)(key, TODAY)


@pytest.mark.parametrize(("direction", "key", "result", "reason"), ROWS)
def test_the_answer(direction, key, result, reason):
    answer = ask(LOOKUP, direction, key)
    if result is None:
        assert answer == (Status.NOT_FOUND, reason.encode(), reason)
    else:
        assert answer.status is Status.FOUND
        assert answer.text == result or (result in (b"SRS0=", b"SRS1=") and answer.text.startswith(result))
        assert answer.text != key


def netstring(content: bytes) -> bytes:
    return b"%d:%b," % (len(content), content)


def percent(data: bytes) -> bytes:
    return b"".join(b"%%%02X" % octet for octet in data)


@pytest.mark.parametrize(("direction", "key", "result", "reason"), ROWS)
def test_as_both_protocols_spell_it(direction, key, result, reason):
    answerer = Answerer(LOOKUP, TODAY)
    text = ask(LOOKUP, direction, key).text
    by_tcp_table = tcp_table_of(answerer, direction, Counters()).respond(b"get " + percent(key) + b"\n")
    assert by_tcp_table.startswith(b"500 " if result is None else b"200 ")
    assert tcp_table.parse_request(b"get " + by_tcp_table[4:]) == text
    socketmap = socketmap_of(answerer, Counters())
    word = b"NOTFOUND " if result is None else b"OK "
    for name in (b"forward", b"srsencoder") if direction == "forward" else (b"reverse", b"srsdecoder"):
        assert socketmap.respond(netstring(name + b" " + key)) == netstring(word + text)


# The rest of the table: what is no lookup of an address at all.
@pytest.mark.parametrize(
    "line", [b"\n", b"get\n", b"put a@x b@x\n", b"GET a@x\n", b"get %zz@x\n", b"\0\xff\n", b"quit\n"]
)
def test_a_line_that_is_no_request(line):
    assert (
        tcp_table_of(Answerer(LOOKUP, TODAY), "forward", Counters()).respond(line)
        == b"500 not%20a%20request\n"
    )


@pytest.mark.parametrize("content", [b"", b" ", b"forward", b"Forward a@x", b"nosuchmap a@x", b"\xff a@x"])
def test_an_unknown_map(content, caplog):
    socketmap = socketmap_of(Answerer(LOOKUP, TODAY), Counters())
    assert socketmap.respond(netstring(content)) == b"16:PERM no such map,"
    assert "there is no socketmap" in caplog.text


@pytest.mark.parametrize("user", [b"u" * 5000, b"%" * 2000])
def test_a_result_that_would_not_fit_is_not_found(user):
    answerer = Answerer(LOOKUP, TODAY)
    line = b"get " + percent(user + b"@example.com") + b"\n"
    assert tcp_table_of(answerer, "forward", Counters()).respond(line) == b"500 reply%20too%20long\n"
    long = b"forward " + b"u" * 100_000 + b"@example.com"
    assert socketmap_of(answerer, Counters()).respond(netstring(long)) == b"23:NOTFOUND reply too long,"


def test_a_bug_of_ours_makes_the_mail_wait(caplog):
    answerer = Answerer(LOOKUP, TODAY)
    answerer.lookup = None  # type: ignore[assignment]
    assert tcp_table_of(answerer, "forward", Counters()).respond(b"get a@x\n") == b"400 internal%20error\n"
    assert socketmap_of(answerer, Counters()).respond(b"11:reverse a@x,") == b"19:TEMP internal error,"
    assert "a bug in srsd" in caplog.text


def test_reasons_never_echo_the_key():
    for direction, key, result, _ in ROWS:
        if result is None and len(key) > 4:
            assert key not in ask(LOOKUP, direction, key).text


# Settings --------------------------------------------------------------------------------------


def test_without_a_domain_every_lookup_answers_not_found():
    lookup = Lookup(LookupParameters(), None, ExclusionMap())
    for direction, key, _, _ in ROWS:
        assert ask(lookup, direction, key)[::2] == (Status.NOT_FOUND, "no SRS domain configured")
    assert lookup.examine(ALICE, TODAY) is None


def test_a_domain_needs_secrets():
    with pytest.raises(ValueError, match="secrets"):
        Lookup(PARAMETERS, None, ExclusionMap())


@pytest.mark.parametrize(
    ("key", "reason"),
    [
        (b"bob@fwd.example.net", REWRITTEN),
        (b"bob@old.example.net", REWRITTEN),
        (b"bob@local.example", REWRITTEN),
        (b"bob@sub.all.example", REWRITTEN),
        (b"bob@example.com", REWRITTEN),
        (ALICE, "already rewritten here"),
        (ALICE.lower(), "already rewritten here"),
        (b"SRS1=x@OLD.example.net.", "already rewritten here"),
        (b"boss@example.com", "excluded"),
        (b"", "null sender"),
        (b"bob", "not an address"),
    ],
)
def test_always_rewrite(key, reason):
    lookup = make(always_rewrite=True)
    answer = lookup.forward(key, TODAY)
    assert answer.reason == reason
    if reason == REWRITTEN:
        assert answer.text.endswith(b"@fwd.example.net")
        assert lookup.reverse(answer.text, TODAY).text == key


@pytest.mark.parametrize(
    ("domain", "emitted"),
    [
        ("fwd.example.net", b"fwd.example.net"),
        ("Fwd.Example.NET", b"Fwd.Example.NET"),
        ("fwd.example.net.", b"fwd.example.net"),
        ("münchen.example", b"xn--mnchen-3ya.example"),
        ("MÜNCHEN.example.", b"xn--mnchen-3ya.example"),
    ],
)
def test_how_the_domain_is_spelt(domain, emitted):
    lookup = make(domain=domain)
    answer = lookup.forward(b"alice@example.com", TODAY)
    assert answer.text.rpartition(b"@")[2] == emitted
    for spelling in (answer.text, answer.text.upper(), answer.text + b"."):
        assert lookup.reverse(spelling, TODAY).status is Status.FOUND
        assert lookup.forward(spelling, TODAY).reason == "already rewritten here"


def test_a_u_label_spelling_of_our_domain_is_ours():
    lookup = make(domain="xn--mnchen-3ya.example")
    made = lookup.forward(b"alice@example.com", TODAY).text.replace(b"xn--mnchen-3ya", "münchen".encode())
    assert lookup.reverse(made, TODAY).text == b"alice@example.com"
    assert lookup.forward(made, TODAY).reason == "already rewritten here"


def test_an_older_secret_still_verifies():
    made = make(secrets=(b"older",)).forward(b"alice@example.com", TODAY).text
    assert LOOKUP.reverse(made, TODAY).text == b"alice@example.com"
    assert make(secrets=(b"other",)).reverse(made, TODAY).reason == "hash invalid"


@pytest.mark.parametrize(
    ("user", "reason"),
    [
        (b"u" * 39, REWRITTEN),  # 64 octets
        (b"u" * 40, REWRITTEN_LONG),
        (b" " * 37, REWRITTEN),  # with the two quotes
        (b" " * 38, REWRITTEN_LONG),
        (b"u" * 3000, REWRITTEN_LONG),
    ],
)
def test_length_alone_never_stops_rewriting(user, reason):
    answer = LOOKUP.forward(user + b"@example.com", TODAY)
    assert (answer.status, answer.reason) == (Status.FOUND, reason)
    assert (len(answer.text.rpartition(b"@")[0]) > 64) is (reason is REWRITTEN_LONG)


def test_exclusion_stops_forward_only():
    made = make(exclusions=b"").forward(b"boss@example.com", TODAY).text
    assert LOOKUP.forward(b"boss@example.com", TODAY).reason == "excluded"
    assert LOOKUP.reverse(made, TODAY).text == b"boss@example.com"


@pytest.mark.parametrize(
    ("key", "examined"),
    [
        (ALICE, True),
        (b"SRS0=x@fwd.example.net", True),
        (b"SRS0=x@old.example.net", True),
        (b"alice@example.com", False),
        (b"SRS0=x@elsewhere.example", False),
        (b"", False),
        (b"SRS0", False),
    ],
)
def test_examine_takes_srs_addresses_of_ours(key, examined):
    assert (LOOKUP.examine(key, TODAY) is not None) is examined


# One line of log for each rewrite, and replies that are kept ----------------------------------


@pytest.mark.parametrize(
    ("direction", "key", "level", "line"),
    [
        (
            "forward",
            b"alice@example.com",
            logging.INFO,
            f"forward alice@example.com -> {ALICE.decode()} (rewritten)",
        ),
        ("reverse", ALICE, logging.INFO, f"reverse {ALICE.decode()} -> alice@example.com (reversed)"),
        ("forward", b"u" * 50 + b"@example.com", logging.WARNING, REWRITTEN_LONG),
        ("reverse", ALICE.replace(b"Gt5l", b"Gt5m"), logging.INFO, "left as it is (hash invalid)"),
        (
            "forward",
            b"bob@local.example",
            logging.DEBUG,
            "forward bob@local.example left as it is (own domain)",
        ),
        ("reverse", b"bob@x.example", logging.DEBUG, "(not an SRS address)"),
        (
            "forward",
            b"a\x1b[2J\xff@local.example",
            logging.DEBUG,
            "forward a\\x1b[2J\\xff@local.example left",
        ),
    ],
)
def test_one_line_of_log(direction, key, level, line, caplog):
    caplog.set_level(logging.DEBUG)
    Answerer(LOOKUP, TODAY).answer(direction, key)
    (record,) = caplog.records
    assert record.levelno == level
    assert line in record.getMessage()
    assert record.facts["direction"] == direction


def test_replies_are_kept_until_they_are_forgotten():
    answerer = Answerer(LOOKUP, TODAY)
    table = tcp_table_of(answerer, "forward", Counters())
    line = b"get alice@example.com\n"
    assert table.respond(line) == b"200 " + ALICE + b"\n"
    answerer.today += 1
    assert table.respond(line) == b"200 " + ALICE + b"\n"
    ((request, (reply, tally)),) = table.replies.items()
    assert (request, reply, tally.count) == (line, b"200 " + ALICE + b"\n", 2)
    table.forget()
    assert b"=JN=" in table.respond(line)


def test_few_replies_are_kept_and_none_of_them_is_long_or_temporary():
    answerer = Answerer(LOOKUP, TODAY)
    table = tcp_table_of(answerer, "forward", Counters())
    for number in range(10_000):
        table.respond(b"get %d@example.com\n" % number)
    assert len(table.replies) + len(table._former) <= 2 * 4096
    table.forget()
    table.respond(b"get " + b"u" * 600 + b"@example.com\n")
    answerer.lookup = None  # type: ignore[assignment]
    table.respond(b"get a@x\n")
    assert table.replies == {}
    answerer.lookup = LOOKUP
    assert table.respond(b"get a@x\n").startswith(b"200 SRS0=")


def test_a_kept_reply_of_the_former_generation_is_taken_over():
    table = tcp_table_of(Answerer(LOOKUP, TODAY), "forward", Counters())
    first = b"get first@example.com\n"
    reply = table.respond(first)
    for number in range(4096):
        table.respond(b"get %d@example.com\n" % number)
    assert first not in table.replies
    assert table.respond(first) == reply
    assert first in table.replies


# Only where SPF would not let this host send.


class _NothingCached:
    """Has no answer at hand."""

    def __getattr__(self, _: str) -> Any:
        async def ask(_: Any) -> None:
            raise NotCachedError

        return ask


SPF_ZONES = {
    ("fail.example", "TXT"): ["v=spf1 -all"],
    ("pass.example", "TXT"): ["v=spf1 ip4:198.51.100.1 -all"],
    ("temp.example", "TXT"): Outcome.SERVER_FAILURE,
}


@pytest.mark.parametrize("cached", [True, False])
@pytest.mark.parametrize(
    ("domain", "rewritten"),
    [("fail.example", True), ("temp.example", True), ("pass.example", False), ("none.example", False)],
)
def test_with_spf_only_senders_are_rewritten_that_would_fail(domain, rewritten, cached):
    async def run() -> None:
        resolver = FakeResolver(SPF_ZONES)
        answerer = Answerer(LOOKUP, TODAY)
        spf = OutboundSpf([ip_address("198.51.100.1")], b"mx.example.net")
        cache = resolver if cached else _NothingCached()
        answerer.spf = SpfOfOurselves(spf, cache, lambda: resolver, lambda: TODAY * 86400)
        answer = answerer.answer("forward", f"alice@{domain}".encode())
        if not cached:
            answer = await answer
        assert answer.status is (Status.FOUND if rewritten else Status.NOT_FOUND)
        assert rewritten or answer.reason == "SPF lets this host send it"
        assert answerer.answer("forward", b'""').reason == "null sender"
        assert answerer.answer("reverse", b"alice@pass.example").reason == "not an SRS address"

    asyncio.run(run())


# SRS domains for some.

SEVERAL = make(
    domain_for=(
        DomainFor(domains=("b.example", ".b.example"), domain="srs.b.example"),
        DomainFor(domains=("c.example", "sub.b.example"), domain="srs.c.example"),
    )
)


@pytest.mark.parametrize(
    ("domain", "wanted_by", "srs_domain"),
    [
        ("example.com", None, DOMAIN),
        ("b.example", None, "srs.b.example"),
        ("Sub.B.Example", None, "srs.b.example"),  # the first that has it
        ("c.example", None, "srs.c.example"),
        ("example.com", b"C.example", "srs.c.example"),
        ("b.example", b"c.example", "srs.c.example"),
        ("b.example", b"elsewhere.example", DOMAIN),
        ("b.example", b"", DOMAIN),
    ],
)
def test_the_srs_domain_is_that_of_whoever_wants_it(domain, wanted_by, srs_domain):
    answer = SEVERAL.forward(f"alice@{domain}".encode(), TODAY, wanted_by)
    assert answer.status is Status.FOUND
    assert answer.text.endswith(f"@{srs_domain}".encode())
    back = SEVERAL.reverse(answer.text, TODAY)
    assert back.text == f"alice@{domain}".encode()
    assert SEVERAL.forward(answer.text, TODAY).reason == "already rewritten here"


def test_addresses_in_all_srs_domains_are_reversed_but_in_no_other():
    local_part = SEVERAL.forward(b"alice@example.com", TODAY).text.partition(b"@")[0]
    for domain in (b"fwd.example.net", b"old.example.net", b"srs.b.example", b"SRS.C.example"):
        assert SEVERAL.reverse(local_part + b"@" + domain, TODAY).text == b"alice@example.com"
    assert SEVERAL.reverse(local_part + b"@b.example", TODAY).reason == "SRS address of another domain"


def test_a_stored_sender_gets_the_domain_too():
    several = make(envelope="stored", domain_for=(DomainFor(domains=("c.example",), domain="srs.c.example"),))
    assert several.forward(b"alice@example.com", TODAY, b"c.example").answer.text.endswith(b"@srs.c.example")
