"""What is changed in a message, in which order, and that no value of a stranger can write into a field."""

from __future__ import annotations

import re
from ipaddress import ip_address

import pytest
from authres import AuthenticationResultsHeader
from hypothesis import given
from hypothesis import strategies as st

from srsd.authres import parse_results
from srsd.dkim.result import DkimResult, Reason
from srsd.filter.authenticate import HEADER_TOO_LARGE, SWITCHED_OFF, DkimResults, SpfResults
from srsd.filter.forgeries import Forgeries
from srsd.filter.modifications import authentication_results, modifications
from srsd.filter.origin import Origin
from srsd.filter.results import Results
from srsd.filter.sealing import Seal
from srsd.filter.signing import Signatures
from srsd.filter.transaction import Transaction
from srsd.spf.outcome import SpfOutcome, SpfResult
from srsd.syntax.address import Address
from srsd.syntax.header import HeaderField
from srsd.wire.milter import ChangeHeader, InsertHeader

RESULTS_NAME, SPF_NAME, DKIM_NAME = b"Authentication-Results", b"Received-SPF", b"DKIM-Signature"
OURS = [Origin.INTERNAL, Origin.AUTHENTICATED, Origin.ORIGINATING]
PASSED = SpfOutcome(SpfResult.PASS, "matched mx", b"example.com", b"example.com", b"mx")
FAILED = SpfOutcome(SpfResult.FAIL, "matched -all", b"helo.example", b"helo.example", b"-all")
NONE = SpfOutcome(SpfResult.NONE, "no SPF record", b"helo.example")
GOOD = DkimResult(Reason.VERIFIED, "", b"example.com", b"s1", b"rsa-sha256", b"@example.com", b"abcdefgh")
BROKEN = DkimResult(Reason.BODY_CHANGED, "", b"list.example", b"s2", b"ed25519-sha256", b"", b"ABC/+fgh")


def transaction(origin: Origin = Origin.OUTSIDE, **changes: object) -> Transaction:
    facts = {
        "client": ip_address("192.0.2.1"),
        "client_name": b"mail.example.com",
        "helo": b"helo.example",
        "sender_path": b"<alice@example.com>",
        "null_sender": False,
        "sender": Address(b"alice", b"example.com"),
        "utf8": False,
        "recipients": (b"<bob@example.net>",),
        "login": b"",
        "origin": origin,
        "authserv_id": b"mx.example.net",
    }
    return Transaction(**(facts | changes))


def forged(pattern: str = "") -> Forgeries:
    """Make a header: o is ours, f is a foreign field, s another one."""
    values = {"o": b" mx.example.net; spf=pass", "f": b" other.example; none"}
    forgeries = Forgeries(b"mx.example.net")
    for letter in pattern:
        name = RESULTS_NAME if letter in values else b"Subject"
        forgeries.see([HeaderField(name, values.get(letter, b" x"))])
    return forgeries


def change(
    about: Transaction | None = None,
    spf: SpfResults = SpfResults(),  # noqa: B008
    dkim: DkimResults = DkimResults(why_unchecked=SWITCHED_OFF),  # noqa: B008
    pattern: str = "",
    signatures: Signatures = Signatures(),  # noqa: B008
    *,
    received_spf: bool = False,
):
    about = about or transaction()
    results = Results(spf, dkim)
    value = b"" if about.origin.ours else authentication_results(about, results)
    changes = modifications(
        about, results, forged(pattern), signatures, seal=Seal(), value=value, received_spf=received_spf
    )
    return tuple(changes)


def apply(changes, header):
    """Change a header as Postfix does: fields of a name are counted anew, inserts go to the top."""
    header = list(header)
    for each in changes:
        if isinstance(each, ChangeHeader):
            places = [at for at, (name, _) in enumerate(header) if name.lower() == each.name.lower()]
            assert each.value == b""
            del header[places[each.position - 1]]
        else:
            assert isinstance(each, InsertHeader)
            header.insert(each.position, (each.name, each.value))
    return header


def value_of(changes, name=RESULTS_NAME) -> bytes:
    (value,) = [each.value for each in changes if isinstance(each, InsertHeader) and each.name == name]
    return value


def results_of(changes) -> list[tuple[str, str, dict[str, bytes]]]:
    """Read our field: method, result, properties."""
    parsed = parse_results(value_of(changes))
    assert parsed is not None
    assert parsed.authserv_id == b"mx.example.net"
    return [
        (each.method, each.result, {f"{ptype}.{name}": value for ptype, name, value in each.properties})
        for each in parsed.results
    ]


# Order.


def test_the_order_from_the_top():
    """Authentication-Results, then Received-SPF of MAIL FROM and of HELO, above all that was there."""
    changes = change(spf=SpfResults(PASSED, FAILED), dkim=DkimResults((GOOD,)), received_spf=True)
    header = apply(changes, [(b"Received", b" by us"), (SPF_NAME, b" pass by others")])
    assert [name for name, _ in header] == [RESULTS_NAME, SPF_NAME, SPF_NAME, b"Received", SPF_NAME]
    assert header[1][1].startswith(b" pass (")
    assert b"identity=mailfrom" in header[1][1]
    assert header[2][1].startswith(b" fail (")
    assert b"identity=helo" in header[2][1]
    assert header[4][1] == b" pass by others"


def test_deletions_come_first_and_the_lowest_field_goes_first():
    changes = change(spf=SpfResults(PASSED), pattern="foosfo", received_spf=True)
    assert changes[:3] == tuple(ChangeHeader(number, RESULTS_NAME) for number in (5, 3, 2))
    assert all(isinstance(each, InsertHeader) for each in changes[3:])
    assert len(changes) == 5


def test_signatures_are_in_their_order_from_the_top():
    changes = change(transaction(Origin.INTERNAL), signatures=Signatures((b" v=1; rsa", b" v=1; ed")))
    assert apply(changes, [(b"From", b" x")]) == [
        (DKIM_NAME, b" v=1; rsa"),
        (DKIM_NAME, b" v=1; ed"),
        (b"From", b" x"),
    ]


@given(st.text("ofs", max_size=12), st.sampled_from(Origin), st.booleans())
def test_exactly_one_of_ours_on_top_or_none(pattern, origin, received_spf):
    values = {"o": b" mx.example.net; spf=pass", "f": b" other.example; none", "s": b" x"}
    before = [(RESULTS_NAME if each in "of" else b"Subject", values[each]) for each in pattern]
    spf = SpfResults(PASSED, FAILED) if origin is Origin.OUTSIDE else SpfResults()
    after = apply(change(transaction(origin), spf, DkimResults(), pattern, received_spf=received_spf), before)
    rest = [field for field in before if field[1] != values["o"]]
    assert after[len(after) - len(rest) :] == rest
    added = [name for name, _ in after[: len(after) - len(rest)]]
    spf_fields = [SPF_NAME] * 2 if received_spf and origin is Origin.OUTSIDE else []
    assert added == ([] if origin in OURS else [RESULTS_NAME, *spf_fields])


# Whose mail gets what.


@pytest.mark.parametrize("origin", OURS)
def test_mail_of_ours_gets_no_results_and_may_be_signed(origin):
    spf, dkim = SpfResults(PASSED, FAILED), DkimResults((GOOD,))
    changes = change(transaction(origin), spf, dkim, "of", Signatures((b" v=1",)), received_spf=True)
    assert changes == (ChangeHeader(1, RESULTS_NAME), InsertHeader(0, DKIM_NAME, b" v=1"))
    assert change(transaction(origin), received_spf=True) == ()


@pytest.mark.parametrize("origin", [Origin.OUTSIDE, Origin.TRUSTED_RELAY])
def test_all_other_mail_gets_one_field_also_where_nothing_was_checked(origin):
    assert change(transaction(origin), received_spf=True) == (
        InsertHeader(0, RESULTS_NAME, b" mx.example.net; none"),
    )


# What the field says.

SPF = [
    (SpfResults(), []),
    (SpfResults(PASSED), [("spf", "pass", {"smtp.mailfrom": b"alice@example.com"})]),
    (
        SpfResults(PASSED, FAILED),
        [
            ("spf", "pass", {"smtp.mailfrom": b"alice@example.com"}),
            ("spf", "fail", {"smtp.helo": b"helo.example"}),
        ],
    ),
    (SpfResults(PASSED, NONE), [("spf", "pass", {"smtp.mailfrom": b"alice@example.com"})]),
    (SpfResults(None, FAILED), [("spf", "fail", {"smtp.helo": b"helo.example"})]),
    (SpfResults(NONE, NONE), [("spf", "none", {"smtp.mailfrom": b"alice@example.com"})]),
]


@pytest.mark.parametrize(("spf", "expected"), SPF)
def test_spf(spf, expected):
    assert results_of(change(spf=spf)) == expected


@pytest.mark.parametrize("result", SpfResult)
def test_every_result_of_spf_can_be_said(result):
    outcome = SpfOutcome(result, "why", b"example.com")
    changes = change(spf=SpfResults(outcome, outcome), received_spf=True)
    said = [each[1] for each in results_of(changes)]
    assert said == [result.value] * (1 if result is SpfResult.NONE else 2)
    values = [each.value for each in changes if each.name == SPF_NAME]
    assert len(values) == len(said)
    assert all(value.startswith(b" %b (" % result.value.encode()) for value in values)


def test_the_null_sender_is_shown_by_its_helo():
    about = transaction(sender_path=b"<>", null_sender=True, sender=None)
    changes = change(about, SpfResults(FAILED), received_spf=True)
    assert results_of(changes) == [("spf", "fail", {"smtp.helo": b"helo.example"})]
    assert b"envelope-from" not in value_of(changes, SPF_NAME)


def test_a_sender_that_is_no_address_is_not_shown():
    about = transaction(sender_path=b"<any@legit.example(a.attack.example>", sender=None)
    outcome = SpfOutcome(SpfResult.PERMERROR, "MAIL FROM is not an address")
    changes = change(about, SpfResults(outcome, NONE), received_spf=True)
    assert results_of(changes) == [("spf", "permerror", {})]
    assert all(b"legit" not in each.value for each in changes)


def test_a_client_without_an_address_has_no_received_spf():
    outcome = SpfOutcome(SpfResult.NONE, "x")
    changes = change(transaction(client=None), SpfResults(outcome, outcome), received_spf=True)
    assert [each.name for each in changes] == [RESULTS_NAME]


def test_domains_are_shown_in_a_labels():
    about = transaction(sender=Address(b"alice", "bücher.Example".encode()), helo="hélo.example".encode())
    assert results_of(change(about, SpfResults(PASSED, FAILED))) == [
        ("spf", "pass", {"smtp.mailfrom": b"alice@xn--bcher-kva.example"}),
        ("spf", "fail", {"smtp.helo": b"xn--hlo-bma.example"}),
    ]


@pytest.mark.parametrize("utf8", [False, True])
def test_utf8_is_for_messages_that_may_have_it(utf8):
    about = transaction(sender=Address("älice".encode(), b"example.com"), utf8=utf8)
    shown = "älice@example.com" if utf8 else "example.com"
    value = value_of(change(about, SpfResults(PASSED)))
    assert f"smtp.mailfrom={shown}".encode() in re.sub(rb'"', b"", value)
    assert value.isascii() is not utf8


DKIM = [
    (DkimResults(), [("dkim", "none", {})]),
    (DkimResults(why_unchecked=SWITCHED_OFF), []),
    (DkimResults(why_unchecked=HEADER_TOO_LARGE), [("dkim", "policy", {})]),
    (
        DkimResults((GOOD, BROKEN)),
        [
            (
                *("dkim", "pass"),
                {
                    "header.d": b"example.com",
                    "header.s": b"s1",
                    "header.a": b"rsa-sha256",
                    "header.b": b"abcdefgh",
                },
            ),
            (
                *("dkim", "fail"),
                {
                    "header.d": b"list.example",
                    "header.s": b"s2",
                    "header.a": b"ed25519-sha256",
                    "header.b": b"ABC/+fgh",
                },
            ),
        ],
    ),
    (DkimResults((DkimResult(Reason.MALFORMED),)), [("dkim", "permerror", {})]),
    (
        DkimResults((DkimResult(Reason.TAG_MISSING, "s=", b"example.com"),)),
        [("dkim", "permerror", {"header.d": b"example.com"})],
    ),
    (DkimResults((GOOD,) * 10, 490), None),
]


@pytest.mark.parametrize(("dkim", "expected"), DKIM)
def test_dkim(dkim, expected):
    said = results_of(change(dkim=dkim))
    assert said == (DKIM[3][1][:1] * 10 if expected is None else expected)


@pytest.mark.parametrize("reason", Reason)
def test_every_reason_of_dkim_can_be_said(reason):
    """With its word, and in its phrase unless it is good; others' programs read it, too."""
    changes = change(dkim=DkimResults((GOOD._replace(reason=reason, detail="d="),)))
    value = value_of(changes)
    theirs = AuthenticationResultsHeader.parse("Authentication-Results:" + value.decode()).results
    assert [(each.method, each.result) for each in theirs] == [("dkim", reason.result.value)]
    said = parse_results(value).results[0].reason
    phrase = reason.phrase.translate({ord("("): "[", ord(")"): "]"})
    assert said == ("" if reason is Reason.VERIFIED else f"{phrase} [d=]")


def test_the_reason_of_spf_is_said():
    assert b'reason="matched mx"' in value_of(change(spf=SpfResults(PASSED)))


# Values of strangers.

OCTETS = st.binary(max_size=40) | st.lists(
    st.sampled_from(
        [b"\r\n", b"\n", b"\0", b";", b"(", b")", b'"', b"\\", b"=", b"a", b" ", b".", b"\xff", b"\xc3\xa9"]
    )
    | st.sampled_from([b"\r\nX-Evil: 1", b"; spf=pass", b"dkim=pass", b"=?utf-8?q?x?="]),
    max_size=8,
).map(b"".join)


@given(OCTETS, OCTETS, OCTETS, st.booleans(), st.booleans())
def test_no_value_writes_into_a_field(local_part, domain, helo, utf8, null):
    about = transaction(
        sender=None if null else Address(local_part, domain), null_sender=null, helo=helo, utf8=utf8
    )
    changes = change(about, SpfResults(PASSED, FAILED), DkimResults((GOOD,)), received_spf=True)
    assert [each[:2] for each in results_of(changes)] == [("spf", "pass"), ("spf", "fail"), ("dkim", "pass")]
    for each in changes:
        assert b"\r" not in each.value
        assert b"\0" not in each.value
        assert all(line[:1] in (b" ", b"\t") and line.strip() for line in each.value.split(b"\n"))
        assert all(len(line) <= 998 for line in each.value.split(b"\n"))
        assert utf8 or each.value.isascii()
        assert each.value.isascii() or each.value.decode()
