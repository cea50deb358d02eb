"""The line in the log of each message, and what is counted of it."""

from __future__ import annotations

import json
import logging
import re
from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from srsd.arc.result import ArcResult, ArcSet, ChainStatus
from srsd.daemon.counters import EVENTS, Counters
from srsd.daemon.log import set_up_logging
from srsd.daemon.mail_log import note_message
from srsd.dkim.result import DkimResult, Reason
from srsd.dmarc.outcome import DmarcOutcome, DmarcResult
from srsd.dmarc.record import Policy
from srsd.filter.authenticate import DkimResults, SpfResults
from srsd.filter.author import NO_AUTHOR, Author
from srsd.filter.chain import ArcResults
from srsd.filter.findings import Finding
from srsd.filter.forwarding import NOT_HERE, Expansion, Rewriting
from srsd.filter.origin import Origin
from srsd.filter.report import Report, Timings
from srsd.filter.results import DmarcResults, Results
from srsd.filter.sealing import Seal
from srsd.filter.signing import Signatures
from srsd.filter.transaction import Transaction
from srsd.filter.verdict import ACCEPTED, BUDGET_SPENT, SHADOW, Action, Verdict
from srsd.spf.outcome import SpfOutcome, SpfResult
from srsd.syntax.address import Address
from srsd.syntax.header import HeaderField
from srsd.wire.milter import Continue
from srsd.wire.milter_session import Decision

PASSED = SpfOutcome(SpfResult.PASS, "matched mx")
FAILED = SpfOutcome(SpfResult.FAIL, "matched -all")
SIGNATURES = (
    DkimResult(Reason.VERIFIED, "", b"example.com", b"s1"),
    DkimResult(Reason.KEY_UNAVAILABLE, "timed out", b"list.example", b"s2"),
)
CAROL = Author(Address(b"carol", b"example.org"), b"example.org")
LOGGER = "srsd.daemon.mail_log"


def report(
    *,
    queue_id: bytes = b"4fW1bN2x6Zz9",
    spf: SpfResults = SpfResults(PASSED, FAILED),  # noqa: B008
    dkim: DkimResults = DkimResults(SIGNATURES),  # noqa: B008
    signatures: Signatures = Signatures(),  # noqa: B008
    forgeries: int = 0,
    dmarc: DmarcResults = DmarcResults(why_unchecked="switched off"),  # noqa: B008
    arc: ArcResults = ArcResults(),  # noqa: B008
    author: Author = CAROL,
    seal: Seal = Seal(),  # noqa: B008
    verdict: Verdict = ACCEPTED,
    timings: Timings = Timings(0.0123),  # noqa: B008
    rewriting: Rewriting = NOT_HERE,
    **changes: object,
) -> Report:
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
        "origin": Origin.OUTSIDE,
        "authserv_id": b"mx.example.net",
    }
    decision = Decision((), Continue())
    results = Results(spf, dkim, arc, dmarc, author)
    return Report(
        queue_id,
        Transaction(**(facts | changes)),
        results,
        signatures,
        forgeries,
        decision,
        seal,
        verdict,
        timings,
        rewriting,
    )


def counts_of(counters: Counters) -> dict[tuple[str, str], int]:
    return {(what, kind): count for what, kind, count in counters.snapshot()["events"]}


@pytest.fixture
def note(caplog):
    """Note a message; gives the records that it left, and the counters."""
    caplog.set_level(logging.DEBUG)

    def run(**how):
        caplog.clear()
        counters = Counters()
        note_message(report(**how), counters)
        assert all(record.name == LOGGER for record in caplog.records)
        return caplog.records, counts_of(counters)

    return run


def line_of(note, **how) -> str:
    (record,), _ = note(**how)
    return record.getMessage()


# The line.


def test_a_message_from_outside(note):
    (record,), counts = note(forgeries=3)
    assert record.levelno == logging.INFO
    assert record.getMessage() == (
        "4fW1bN2x6Zz9: client=mail.example.com[192.0.2.1], helo=helo.example, from=<alice@example.com>, "
        "origin=outside, author=<carol@example.org>, "
        "spf=pass, spf_reason=matched mx, spf_helo=fail, spf_helo_reason=matched -all, "
        "dkim=pass (the signature verified) d=example.com s=s1; "
        "temperror (the key could not be asked for (timed out)) d=list.example s=s2, "
        "dmarc_unchecked=switched off, forgeries_removed=3, verdict=accept, seconds=0.012"
    )
    assert counts == {
        ("messages", "outside"): 1,
        ("spf_mail_from", "pass"): 1,
        ("spf_helo", "fail"): 1,
        ("dkim_signatures", "pass"): 1,
        ("dkim_signatures", "temperror"): 1,
        ("forgeries_removed", "Authentication-Results"): 3,
        ("verdicts", "accept"): 1,
    }


def test_a_message_of_ours(note):
    (record,), counts = note(
        spf=SpfResults(why_unchecked="authenticated client"),
        dkim=DkimResults(),
        signatures=Signatures(
            (b" v=1", b" v=1"), ("s=s1 d=example.com RSA", "s=e1 d=example.com ED25519"), "active"
        ),
        origin=Origin.AUTHENTICATED,
        login=b"alice",
    )
    assert record.levelno == logging.INFO
    assert record.getMessage() == (
        "4fW1bN2x6Zz9: client=mail.example.com[192.0.2.1], helo=helo.example, from=<alice@example.com>, "
        "origin=authenticated client, login=alice, author=<carol@example.org>, "
        "signed=s=s1 d=example.com RSA; s=e1 d=example.com ED25519, signed_why=active, "
        "verdict=accept, seconds=0.012"
    )
    assert counts == {
        ("messages", "authenticated client"): 1,
        ("dkim_signed", "signed"): 2,
        ("verdicts", "accept"): 1,
    }


FACTS = [
    ({"queue_id": b""}, "no queue id: client="),
    ({"client": None}, "client=mail.example.com[no address], "),
    ({"client": None, "client_name": b"[no address]"}, "client=[no address], "),
    ({"client_name": b"[192.0.2.1]"}, "client=[192.0.2.1], "),
    ({"client_name": b"unknown"}, "client=unknown[192.0.2.1], "),
    ({"client": ip_address("2001:db8::1")}, "client=mail.example.com[2001:db8::1], "),
    ({"sender_path": b"alice@example.com"}, "from=<alice@example.com>, "),
    ({"sender_path": b"<>"}, "from=<>, "),
    ({"sender_path": b""}, "from=<>, "),
    ({"sender_path": b'<"a b"@example.com>'}, 'from=<"a b"@example.com>, '),
    ({"sender_path": "<jos\xe9@example.com>".encode()}, "from=<jos\xe9@example.com>, "),
    ({"spf": SpfResults(why_unchecked="excluded")}, " spf_unchecked=excluded, "),
    ({"dkim": DkimResults(SIGNATURES[:1], 7)}, "s=s1, dkim_not_examined=7"),
    (
        {"origin": Origin.INTERNAL, "signatures": Signatures(why="no key for the author domain")},
        ", unsigned=no key for the author domain",
    ),
]


@pytest.mark.parametrize(("how", "said"), FACTS)
def test_facts(note, how, said):
    assert said in line_of(note, **how)


def test_what_is_not_known_is_not_said(note):
    line = line_of(note, spf=SpfResults(PASSED), dkim=DkimResults())
    for name in (
        "login",
        "spf_helo",
        "dkim",
        "signed",
        "unsigned",
        "forgeries_removed",
        "signature_may_break",
    ):
        assert f"{name}=" not in line
    for origin in Origin:
        line = line_of(note, spf=SpfResults(why_unchecked=origin.value), origin=origin)
        assert ("spf_unchecked=" in line) is not origin.ours


# DMARC, ARC and the verdict.

REJECT = Finding("dmarc_reject", b"7.26", "DMARC: example.org asks to reject")
OVERSPENT = Verdict(Action.ACCEPT, Action.TEMPFAIL, REJECT._replace(key="dns_error"), BUDGET_SPENT)
FAILED_DMARC = DmarcResults(
    DmarcOutcome(DmarcResult.FAIL, "neither passed", b"example.org", Policy.REJECT, record_domain=b"org")
)
BROKEN = ArcResults(
    ArcResult(ChainStatus.FAIL, "AMS 1 is broken", sets=(ArcSet(1, b"l.example", *[b""] * 4),))
)
SEALED = Seal((HeaderField(b"ARC-Seal", b""),), "i=2 s=s1 d=example.net")


@pytest.mark.parametrize(
    ("how", "said"),
    [
        (
            {"dmarc": FAILED_DMARC},
            ", dmarc=fail, dmarc_reason=neither passed, dmarc_policy=reject, dmarc_record=org, ",
        ),
        (
            {"dmarc": FAILED_DMARC._replace(vouched_by=b"l.example")},
            ", dmarc_local_policy=trusted sealer l.example, ",
        ),
        ({"arc": BROKEN}, ", arc=fail, arc_reason=AMS 1 is broken, arc_sealers=l.example, "),
        ({"seal": SEALED}, ", sealed=i=2 s=s1 d=example.net, "),
        ({"seal": Seal(why_not="excluded")}, ", unsealed=excluded, "),
        ({"author": NO_AUTHOR}, ", author_problem=there is no From field, "),
        (
            {"verdict": Verdict(Action.REJECT, Action.REJECT, REJECT)},
            ", verdict=reject, verdict_by=dmarc_reject, verdict_reason=DMARC: example.org asks to reject, sec",
        ),
        (
            {"verdict": Verdict(Action.ACCEPT, Action.REJECT, REJECT, SHADOW)},
            (
                ", verdict=accept, verdict_by=dmarc_reject, verdict_reason=DMARC: example.org asks to reject, "
                "shadow_verdict=reject, verdict_why_not=shadow, "
            ),
        ),
        ({"timings": Timings(2.5, 1.25, 7)}, ", seconds=2.500, dns_queries=7, dns_seconds=1.250"),
    ],
)
def test_the_reasoning(note, how, said):
    assert said in line_of(note, **how)


def test_verdicts_are_counted(note):
    _, counts = note(verdict=Verdict(Action.ACCEPT, Action.REJECT, REJECT, SHADOW))
    assert counts["verdicts", "accept"] == counts["verdicts_shadow", "reject"] == 1
    assert counts["verdicts_by", "dmarc_reject"] == 1
    _, counts = note(verdict=Verdict(Action.REJECT, Action.REJECT, REJECT))
    assert counts["verdicts", "reject"] == counts["verdicts_by", "dmarc_reject"] == 1
    assert ("verdicts_shadow", "reject") not in counts


def test_a_spent_budget_is_a_warning(note):
    (warning, line), counts = note(verdict=OVERSPENT)
    assert (warning.levelno, line.levelno) == (logging.WARNING, logging.INFO)
    assert "policy.defer_budget" in warning.getMessage()
    assert counts["defer_budget_spent", "DNS"] == 1


# Levels.


def test_what_may_break_a_signature_is_a_warning(note):
    signatures = Signatures((b"x",), ("s=s1",), "active", ("8-bit body", "NUL octets"))
    (record,), _ = note(origin=Origin.INTERNAL, signatures=signatures)
    assert record.levelno == logging.WARNING
    assert record.getMessage().startswith("4fW1bN2x6Zz9: ")
    assert ", signature_may_break=8-bit body; NUL octets, " in record.getMessage()


def test_a_signature_of_ours_that_fails_is_an_error(note):
    signatures = Signatures(
        (b"x",), ("s=e1",), "active", (), ("s=s1 d=example.com RSA: the signature did not verify",)
    )
    (error, line), counts = note(origin=Origin.INTERNAL, signatures=signatures)
    assert (error.levelno, line.levelno) == (logging.ERROR, logging.INFO)
    assert error.getMessage().startswith("4fW1bN2x6Zz9: ")
    assert "s=s1 d=example.com RSA: the signature did not verify" in error.getMessage()
    assert counts["dkim_signed", "signed"] == 1
    assert counts["dkim_signed", "not verified"] == 1


@pytest.mark.parametrize(
    ("level", "lines"),
    [
        ("DEBUG", [1, 1, 2]),
        ("INFO", [1, 1, 2]),
        ("WARNING", [0, 1, 1]),
        ("ERROR", [0, 0, 1]),
        ("CRITICAL", [0] * 3),
    ],
)
def test_levels(note, caplog, level, lines):
    """Of a plain message, one with what may break its signatures, and one whose signature fails."""
    caplog.set_level(level)
    kinds = [Signatures(), Signatures(hazards=("x",)), Signatures(unverified=("x",))]
    for signatures, number in zip(kinds, lines, strict=True):
        records, counts = note(origin=Origin.INTERNAL, signatures=signatures)
        assert len(records) == number
        assert counts["messages", "internal network"] == 1  # counted all the same


# Nothing can break the line.

OCTETS = st.binary(max_size=50) | st.sampled_from(
    [
        b"\r\n",
        b"\n",
        b"\x85",
        "\u2028".encode(),
        "\u202e".encode(),
        b"\x1b[2J",
        b"\0",
        b"\xff",
        b"%s %(x)s",
        b"{}",
        b"\x7f",
    ]
).map(lambda odd: b"a" + odd + b"b")


@given(st.lists(OCTETS, min_size=6, max_size=6))
def test_whatever_a_peer_says_it_is_one_printable_line(collected, said):
    queue_id, name, helo, path, login, other = said
    signature = DkimResult(Reason.MALFORMED, "", other, other)
    records = collected
    records.clear()
    note_message(
        report(
            queue_id=queue_id,
            client_name=name,
            helo=helo,
            sender_path=path,
            login=login,
            dkim=DkimResults((signature,)),
            signatures=Signatures(unverified=("x",)),
        ),
        Counters(),
    )
    assert len(records) == 2
    for record in records:
        assert record.getMessage().isprintable()
        assert all(str(value).isprintable() for value in getattr(record, "facts", {}).values())


@pytest.fixture(scope="module")
def collected():
    """Collect records for tests that hypothesis runs many times."""
    records: list[logging.LogRecord] = []
    handler = logging.Handler()
    handler.emit = records.append  # type: ignore[method-assign]
    logger = logging.getLogger(LOGGER)
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.DEBUG)
    yield records
    logger.removeHandler(handler)
    logger.setLevel(level)


def test_long_values_are_cut(note):
    long = b"x" * 1_000_000
    line = line_of(note, queue_id=long, client_name=long, helo=long, sender_path=long, login=long)
    assert len(line) < 6 * 600
    assert re.search(r"helo=x{512}\.\.\., ", line)


# JSON.


def test_json_has_the_same_names_as_keys(capfd):
    set_up_logging("json", "info")
    evil = b'","level":"x\r\n\\"'
    note_message(report(helo=evil, forgeries=2, dkim=DkimResults(SIGNATURES[:1], 4)), Counters())
    (line,) = capfd.readouterr().err.splitlines()
    entry = json.loads(line)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT[0-9:.]+\+00:00", entry.pop("time"))
    assert entry.pop("message").startswith("4fW1bN2x6Zz9: client=mail.example.com[192.0.2.1], helo=")
    assert entry == {
        "level": "info",
        "queue_id": "4fW1bN2x6Zz9",
        "client": "mail.example.com[192.0.2.1]",
        "helo": '","level":"x\\r\\n\\"',
        "from": "<alice@example.com>",
        "origin": "outside",
        "author": "<carol@example.org>",
        "spf": "pass",
        "spf_reason": "matched mx",
        "spf_helo": "fail",
        "spf_helo_reason": "matched -all",
        "dkim": "pass (the signature verified) d=example.com s=s1",
        "dkim_not_examined": 4,
        "dmarc_unchecked": "switched off",
        "forgeries_removed": 2,
        "verdict": "accept",
        "seconds": "0.012",
    }


def test_a_line_of_text(capfd):
    set_up_logging("text", "info")
    note_message(report(helo=b"x\r\nerror: forged"), Counters())
    (line,) = capfd.readouterr().err.splitlines()
    assert line.startswith(
        "info: 4fW1bN2x6Zz9: client=mail.example.com[192.0.2.1], helo=x\\r\\nerror: forged, "
    )


# Counters.


@pytest.mark.parametrize("result", SpfResult)
def test_each_result_of_spf_is_counted(note, result):
    outcome = SpfOutcome(result, "x")
    _, counts = note(spf=SpfResults(outcome, outcome), dkim=DkimResults())
    assert counts == {
        ("messages", "outside"): 1,
        ("spf_mail_from", result.value): 1,
        ("spf_helo", result.value): 1,
        ("verdicts", "accept"): 1,
    }


def test_what_is_counted_has_a_meaning(note):
    signatures = Signatures((b"x",), ("s",), "w", (), ("u",))
    _, counts = note(
        signatures=signatures,
        forgeries=1,
        dmarc=FAILED_DMARC,
        arc=BROKEN,
        seal=SEALED,
        verdict=OVERSPENT,
        rewriting=Rewriting(b"a@b", "why", Expansion(problem="a table hangs")),
    )
    untouched = {"address_store", "srs_refused", "srs_delayed"}  # by messages
    assert {what for what, _ in counts} == set(EVENTS) - untouched


def test_counts_add_up():
    counters = Counters()
    for _ in range(3):
        note_message(report(forgeries=2, dkim=DkimResults(SIGNATURES[:1] * 4)), counters)
    events = counts_of(counters)
    assert events["messages", "outside"] == 3
    assert events["dkim_signatures", "pass"] == 12
    assert events["forgeries_removed", "Authentication-Results"] == 6
