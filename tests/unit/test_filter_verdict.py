"""What is done with a message: which finding decides, what keeps it from being done, and what the client hears.

The enhanced codes are those of RFC 7372 §3 (SPF, DKIM, several methods), RFC 7505 §4.2 (null MX) and RFC
8617 §10.3 (ARC); where none is registered, X.7.1 of RFC 3463 (delivery not authorized), and X.4.3 for DNS.
"""

from __future__ import annotations

import re
from ipaddress import ip_address
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.filter_bench import BODY, Bench, field_of, signed
from srsd.arc.result import ArcResult, ChainStatus
from srsd.dkim.result import DkimResult, Reason
from srsd.dmarc.evaluate import DmarcOutcome, DmarcResult
from srsd.dmarc.record import Policy as DomainPolicy
from srsd.filter.authenticate import EXCLUDED, SWITCHED_OFF, DkimResults, NullMx, SpfResults
from srsd.filter.author import NO_AUTHOR, Author, find_author
from srsd.filter.chain import ArcResults
from srsd.filter.findings import is_for_a_role
from srsd.filter.origin import MilterParameters, Origin
from srsd.filter.results import DmarcResults, Results, no_results
from srsd.filter.transaction import Transaction
from srsd.filter.verdict import (
    ACCEPTED,
    BUDGET_SPENT,
    ROLE_RECIPIENT,
    SHADOW,
    TRUSTED_RELAY,
    Action,
    Policy,
    PolicyParameters,
    Verdict,
)
from srsd.resolving import Answer, MailExchange, Outcome
from srsd.spf.outcome import SpfOutcome, SpfResult
from srsd.syntax.address import Address, is_null_path, parse_path
from srsd.syntax.header import HeaderField
from srsd.wire.milter import Action as MilterAction
from srsd.wire.milter import Continue, Quarantine, ReplyCode, format_reply

ACTIONS = ["accept", "tempfail", "quarantine", "reject"]  # from the mildest
OURS = [Origin.INTERNAL, Origin.AUTHENTICATED, Origin.ORIGINATING]
CAROL = Author(Address(b"carol", b"author.example"), b"author.example")
SEVERAL = Author(None, b"", "there are several From fields")
CHECKED = SpfResults(
    SpfOutcome(SpfResult.PASS, "matched mx", b"sender.example"),
    SpfOutcome(SpfResult.NONE, "no SPF record", b"helo.example"),
)
ALL_KEYS = [
    "spf_fail", "spf_softfail", "spf_helo_fail", "spf_permerror", "null_mx", "dkim_fail", "arc_fail",
    "dmarc_reject", "dmarc_quarantine", "author_invalid", "login_mismatch",
]  # fmt: skip


def transaction(origin: Origin = Origin.OUTSIDE, **changes: object) -> Transaction:
    facts = {
        "client": ip_address("192.0.2.1"),
        "client_name": b"mail.example.com",
        "helo": b"helo.example",
        "sender_path": b"<alice@sender.example>",
        "null_sender": False,
        "sender": Address(b"alice", b"sender.example"),
        "utf8": False,
        "recipients": (b"<bob@example.net>",),
        "login": b"",
        "origin": origin,
        "authserv_id": b"mx.example.net",
    }
    return Transaction(**(facts | changes))


def results(**changes: object) -> Results:
    """Make results in which nothing is wrong, but what is told."""
    return Results(CHECKED, DkimResults(), author=CAROL)._replace(**changes)


def spf(result: SpfResult, reason: str = "matched -all", domain: bytes = b"sender.example") -> SpfResults:
    return SpfResults(SpfOutcome(result, reason, domain), CHECKED.helo)


def helo(result: SpfResult) -> SpfResults:
    return SpfResults(CHECKED.mail_from, SpfOutcome(result, "matched -all", b"helo.example"))


def dkim(*reasons: Reason) -> DkimResults:
    return DkimResults(tuple(DkimResult(each, "", b"signer.example", b"s1") for each in reasons))


def dmarc(
    result: DmarcResult,
    policy: DomainPolicy | None,
    vouched_by: bytes = b"",
    reason: str = "neither spf nor dkim passed",
) -> DmarcResults:
    return DmarcResults(DmarcOutcome(result, reason, b"author.example", policy), "", True, vouched_by)


def arc(status: ChainStatus, *, temporary: bool = False) -> ArcResults:
    return ArcResults(ArcResult(status, "AMS 2: the body hash did not verify", temporary))


DMARC_FAILS = {policy: dmarc(DmarcResult.FAIL, policy) for policy in DomainPolicy}
NEITHER_DOMAIN = DmarcResults(why_unchecked=SEVERAL.problem)

# What is wrong with a message: the key, the enhanced code without its class, and what the client must read.
FOUND: list[tuple[str, Results, str, str]] = [
    ("spf_fail", results(spf=spf(SpfResult.FAIL)), "7.23", r"192\.0\.2\.1 .*sender\.example"),
    ("spf_softfail", results(spf=spf(SpfResult.SOFTFAIL)), "7.23", r"192\.0\.2\.1 .*sender\.example"),
    ("spf_permerror", results(spf=spf(SpfResult.PERMERROR, "why")), "7.24", r"sender\.example .*: why"),
    ("spf_helo_fail", results(spf=helo(SpfResult.FAIL)), "7.23", r"192\.0\.2\.1 .*HELO helo\.example"),
    ("null_mx", results(null_mx=NullMx(found=True)), "7.27", r"sender\.example .*null MX"),
    ("dkim_fail", results(dkim=dkim(Reason.BODY_CHANGED)), "7.20", r"d=signer\.example: .*body hash"),
    ("dkim_fail", results(dkim=dkim(Reason.NO_KEY, Reason.HEADER_CHANGED)), "7.20", r"no key"),
    ("dkim_fail", results(dkim=dkim(Reason.KEY_BELOW_MINIMUM)), "7.21", r"shorter than we accept"),
    ("dkim_fail", results(dkim=dkim(Reason.NO_KEY, Reason.BODY_NOT_SIGNED)), "7.21", r"signer\.example"),
    ("arc_fail", results(arc=arc(ChainStatus.FAIL)), "7.29", r"AMS 2: the body hash"),
    ("dmarc_reject", results(dmarc=DMARC_FAILS[DomainPolicy.REJECT]), "7.26", r"author\.example .*reject.*neither"),
    (
        "dmarc_quarantine",
        results(dmarc=DMARC_FAILS[DomainPolicy.QUARANTINE]),
        "7.26",
        r"author\.example .*quarantine.*neither",
    ),
    ("author_invalid", results(author=SEVERAL, dmarc=NEITHER_DOMAIN), "7.1", r"From: .*several From"),
    ("author_invalid", results(author=SEVERAL, dmarc=DmarcResults(why_unchecked=SWITCHED_OFF)), "7.1", r"From"),
    ("author_invalid", results(author=NO_AUTHOR, dmarc=DmarcResults(why_unchecked="x")), "7.1", r"no From"),
]  # fmt: skip

# What could have been wrong, had DNS answered: the keys of what might have been found.
MISSING: list[tuple[str, Results, set[str]]] = [
    ("spf", results(spf=spf(SpfResult.TEMPERROR)), {"spf_fail", "spf_softfail", "spf_permerror"}),
    ("helo", results(spf=helo(SpfResult.TEMPERROR)), {"spf_helo_fail"}),
    ("null mx", results(null_mx=NullMx(missing="timed out")), {"null_mx"}),
    ("key", results(dkim=dkim(Reason.KEY_UNAVAILABLE)), {"dkim_fail"}),
    ("one key", results(dkim=dkim(Reason.NO_KEY, Reason.KEY_UNAVAILABLE)), {"dkim_fail"}),
    ("a key that nobody needs", results(dkim=dkim(Reason.VERIFIED, Reason.KEY_UNAVAILABLE)), set()),
    ("dmarc record", results(dmarc=dmarc(DmarcResult.TEMPERROR, None)), {"dmarc_reject", "dmarc_quarantine"}),
    ("dmarc, reject", results(dmarc=dmarc(DmarcResult.TEMPERROR, DomainPolicy.REJECT)), {"dmarc_reject"}),
    ("dmarc, quarantine", results(dmarc=dmarc(DmarcResult.TEMPERROR, DomainPolicy.QUARANTINE)), {"dmarc_quarantine"}),
    ("dmarc, none", results(dmarc=dmarc(DmarcResult.TEMPERROR, DomainPolicy.NONE)), set()),
    ("arc", results(arc=arc(ChainStatus.FAIL, temporary=True)), {"arc_fail"}),
]  # fmt: skip

# Nothing for any key.
HARMLESS = [
    results(),
    results(spf=spf(SpfResult.NEUTRAL)),
    results(spf=spf(SpfResult.NONE)),
    results(spf=SpfResults(why_unchecked=EXCLUDED)),
    *[results(spf=helo(each)) for each in (SpfResult.SOFTFAIL, SpfResult.PERMERROR, SpfResult.NEUTRAL)],
    results(dkim=DkimResults(why_unchecked="the header is too large")),
    results(dkim=dkim(Reason.BODY_CHANGED, Reason.VERIFIED)),  # one that passes is enough
    results(arc=ArcResults(why_unchecked=SWITCHED_OFF)),
    results(arc=arc(ChainStatus.NONE)),
    results(arc=arc(ChainStatus.PASS)),
    results(dmarc=DMARC_FAILS[DomainPolicy.NONE]),
    results(dmarc=dmarc(DmarcResult.PASS, DomainPolicy.REJECT)),
    results(dmarc=dmarc(DmarcResult.NONE, None)),
    results(dmarc=dmarc(DmarcResult.FAIL, DomainPolicy.REJECT, vouched_by=b"list.example")),
    results(author=SEVERAL, dmarc=DmarcResults(why_unchecked=EXCLUDED)),
    results(author=Author(None, b"author.example", "there are several addresses in From")),
    results(null_mx=NullMx()),
]


def judge(found: Results, about: Transaction | None = None, **policy: Any) -> Verdict:
    parameters = PolicyParameters(**({"shadow": False} | policy))
    return Policy(parameters).judge(about or transaction(), found)


def everything(action: str) -> dict[str, str]:
    return dict.fromkeys(ALL_KEYS, action)


def test_the_keys_are_all_that_there_are():
    names = {name for name, value in vars(PolicyParameters()).items() if isinstance(value, str)}
    assert names == {*ALL_KEYS, "dns_error"}
    assert {key for key, *_ in FOUND} == set(ALL_KEYS) - {"login_mismatch"}


# Each key and each action.


@pytest.mark.parametrize("action", ACTIONS)
@pytest.mark.parametrize(
    ("key", "found", "code", "text"), FOUND, ids=[f"{key}-{at}" for at, (key, *_) in enumerate(FOUND)]
)
def test_each_finding_has_the_action_of_its_key(key, found, code, text, action):
    verdict = judge(found, **{key: action})
    if action == "accept":
        assert verdict is ACCEPTED
        return
    assert verdict.action is verdict.wanted is Action[action.upper()]
    assert (verdict.action.word, verdict.why_not) == (action, "")
    assert verdict.finding is not None
    assert (verdict.finding.key, verdict.finding.code.decode()) == (key, code)
    assert re.search(text, verdict.finding.text)
    told = verdict.finding.text.encode()
    if action == "quarantine":
        assert verdict.reply() == Continue()
        assert verdict.modifications() == [Quarantine(told)]
        assert not verdict.refuses
    else:
        number, enhanced = {"tempfail": (451, "4."), "reject": (550, "5.")}[action]
        assert verdict.reply() == ReplyCode(number, (enhanced + code).encode(), told)
        assert verdict.modifications() == []
        assert verdict.refuses


@pytest.mark.parametrize(
    ("key", "found", "code", "text"), FOUND, ids=[f"{key}-{at}" for at, (key, *_) in enumerate(FOUND)]
)
def test_each_finding_has_no_other_key(key, found, code, text):
    assert judge(found, **(everything("reject") | {key: "accept", "dns_error": "reject"})) is ACCEPTED


@pytest.mark.parametrize("found", HARMLESS)
def test_what_is_not_wrong_has_no_action(found):
    verdict = judge(found, **everything("reject"), dns_error="reject")
    assert verdict is ACCEPTED
    assert verdict.reply() == Continue()
    assert verdict.modifications() == []


def test_nothing_is_done_by_default():
    for _, found, *_ in FOUND:
        assert Policy(PolicyParameters()).judge(transaction(), found) is ACCEPTED
        assert judge(found) is ACCEPTED


def test_a_finding_is_acted_on_only_where_it_has_an_action():
    for action in ACTIONS:
        policy = Policy(PolicyParameters(null_mx=action))
        assert policy.acts_on("null_mx") is (action != "accept")
        assert not policy.acts_on("spf_fail")


# Several findings.

WORST = [
    ({"spf_fail": "reject", "dkim_fail": "tempfail"}, "spf_fail"),
    ({"spf_fail": "tempfail", "dkim_fail": "reject"}, "dkim_fail"),
    ({"spf_fail": "tempfail", "dkim_fail": "quarantine"}, "dkim_fail"),
    ({"spf_fail": "quarantine", "dkim_fail": "reject"}, "dkim_fail"),
    ({"spf_fail": "quarantine", "dkim_fail": "tempfail"}, "spf_fail"),
    ({"arc_fail": "tempfail"}, "arc_fail"),
    ({"dmarc_reject": "tempfail", "null_mx": "quarantine", "arc_fail": "reject"}, "arc_fail"),
    # Of those that are as bad the first one: the author, SPF, null MX, DKIM, ARC.
    (dict.fromkeys(ALL_KEYS, "reject"), "dmarc_reject"),
    ({key: "tempfail" for key in ALL_KEYS if key != "dmarc_reject"}, "spf_fail"),
    (dict.fromkeys(("arc_fail", "dkim_fail", "null_mx", "spf_helo_fail"), "reject"), "spf_helo_fail"),
    (dict.fromkeys(("arc_fail", "dkim_fail", "null_mx"), "quarantine"), "null_mx"),
    (dict.fromkeys(("arc_fail", "dkim_fail"), "reject"), "dkim_fail"),
]


@pytest.mark.parametrize(("policy", "key"), WORST)
def test_the_worst_one_wins(policy, key):
    everything_is_wrong = results(
        spf=SpfResults(spf(SpfResult.FAIL).mail_from, helo(SpfResult.FAIL).helo),
        dkim=dkim(Reason.NO_KEY),
        arc=arc(ChainStatus.FAIL),
        dmarc=DMARC_FAILS[DomainPolicy.REJECT],
        null_mx=NullMx(found=True),
    )
    verdict = judge(everything_is_wrong, **policy)
    assert verdict.finding is not None
    assert (verdict.finding.key, verdict.action.word) == (key, policy[key])


def test_several_methods_that_failed_have_a_code_of_their_own():
    """RFC 7372 §4: 7.26, where more than one of them warrants the refusal; the text has the words of each."""
    found = results(
        spf=SpfResults(spf(SpfResult.FAIL).mail_from, helo(SpfResult.FAIL).helo), dkim=dkim(Reason.NO_KEY)
    )
    both = judge(found, spf_fail="reject", spf_helo_fail="reject", dkim_fail="reject").finding
    assert both is not None
    assert (both.key, both.code) == ("spf_fail", b"7.26")
    assert re.fullmatch(r"SPF: .* may not send mail of .*; DKIM: no signature passes: .*", both.text)
    for policy, code in [
        ({"spf_fail": "reject", "spf_helo_fail": "reject"}, b"7.23"),
        ({"spf_fail": "reject", "dkim_fail": "quarantine"}, b"7.23"),
        ({"spf_fail": "tempfail", "dkim_fail": "reject"}, b"7.20"),
    ]:
        one = judge(found, **policy).finding
        assert one is not None
        assert one.code == code


@pytest.mark.parametrize("reason", [Reason.UNKNOWN_ALGORITHM, Reason.UNKNOWN_QUERY])
def test_what_is_neutral_is_like_no_signature(reason):
    """RFC 6376 wants ignored what a verifier does not know."""
    assert judge(results(dkim=dkim(reason)), dkim_fail="reject").finding is None
    verdict = judge(results(dkim=dkim(reason, Reason.NO_KEY)), dkim_fail="reject")
    assert verdict.action is Action.REJECT
    assert verdict.finding is not None
    assert "no key" in verdict.finding.text


def test_the_order_of_actions():
    assert sorted(Action) == [Action[word.upper()] for word in ACTIONS]


# What keeps it from being done.


@pytest.mark.parametrize("action", ACTIONS[1:])
def test_shadow_says_what_would_have_been_done(action):
    for key, found, *_ in FOUND:
        verdict = judge(found, shadow=True, **{key: action})
        assert (verdict.action, verdict.wanted.word, verdict.why_not) == (Action.ACCEPT, action, SHADOW)
        assert verdict.finding is not None
        assert verdict.finding.key == key
        assert verdict.reply() == Continue()
        assert verdict.modifications() == []
        assert not verdict.refuses


ROLES = [
    b"<postmaster>", b"<Postmaster>", b"<POSTMASTER@example.net>", b"<Postmaster@x>", b"postmaster", b"Postmaster",
    b"postmaster@example.net", b"PostMaster@Example.net", b'<"postmaster"@example.net>', b'"postmaster"@example.net',
    b'<"post\\master"@example.net>', b"<@relay.example:postmaster@example.net>", b"<postmaster@[192.0.2.1]>",
    b"<postmaster@xn--bcher-kva.example>", b"<postmaster@b\xc3\xbccher.example>",
    b"<abuse@example.net>", b"abuse@example.net", b"<Abuse>", b"<ABUSE@EXAMPLE.NET>", b'<"abuse"@example.net>',
]  # fmt: skip
NO_ROLES = [
    b"<bob@example.net>", b"<postmaster+x@example.net>", b"<x+postmaster@example.net>", b"<postmaster.@example.net>",
    b"<postmasters@example.net>", b"<bob@postmaster>", b"<bob@abuse.example>", b"<abuse-x@example.net>",
    b'<"postmaster@example.net"@example.org>', b"<postmaster@example.net@example.org>", b"<>", b"",
    b'<" postmaster"@example.net>', b"postmaster@", b"<postmaster@>", b"<postmaster@a b>", b"<webmaster@example.net>",
]  # fmt: skip


@pytest.mark.parametrize("action", ACTIONS[1:])
@pytest.mark.parametrize("path", ROLES)
def test_mail_for_postmaster_and_abuse_is_never_refused(path, action):
    for recipients in ((path,), (b"<bob@example.net>", path), (path, b"<bob@example.net>")):
        about = transaction(recipients=recipients)
        assert is_for_a_role(about)
        verdict = judge(FOUND[0][1], about, **everything(action))
        assert (verdict.action, verdict.wanted.word, verdict.why_not) == (
            Action.ACCEPT,
            action,
            ROLE_RECIPIENT,
        )


@pytest.mark.parametrize("path", NO_ROLES)
def test_who_is_not_postmaster_or_abuse(path):
    about = transaction(recipients=(path, b"<bob@example.net>"))
    assert not is_for_a_role(about)
    assert judge(FOUND[0][1], about, **everything("reject")).action is Action.REJECT


def test_a_message_without_recipients():
    assert judge(FOUND[0][1], transaction(recipients=()), spf_fail="reject").action is Action.REJECT


@pytest.mark.parametrize("action", ACTIONS[1:])
def test_a_trusted_relay_is_not_refused(action):
    for key, found, *_ in FOUND:
        verdict = judge(found, transaction(Origin.TRUSTED_RELAY), **{key: action})
        assert (verdict.action, verdict.wanted.word, verdict.why_not) == (
            Action.ACCEPT,
            action,
            TRUSTED_RELAY,
        )


def test_shadow_is_the_last_thing_that_is_said():
    """What would not have been done anyway is no verdict that would have differed."""
    for about, why in (
        (transaction(Origin.TRUSTED_RELAY, recipients=(b"<abuse>",)), TRUSTED_RELAY),
        (transaction(recipients=(b"<abuse>",)), ROLE_RECIPIENT),
        (transaction(), SHADOW),
    ):
        assert judge(FOUND[0][1], about, shadow=True, spf_fail="reject").why_not == why


# Mail of ours.


@pytest.mark.parametrize("origin", OURS)
def test_mail_of_ours_is_not_judged_by_what_is_for_others(origin):
    about = transaction(origin)
    for found in [found for _, found, *_ in FOUND] + [found for _, found, _ in MISSING]:
        assert judge(found, about, **everything("reject"), dns_error="reject") is ACCEPTED
    unchecked = no_results(NO_AUTHOR, origin.value, login_mismatch=False)
    assert judge(unchecked, about, **everything("reject")) is ACCEPTED


@pytest.mark.parametrize("action", ACTIONS)
@pytest.mark.parametrize("origin", OURS)
def test_a_login_that_writes_as_another_author(origin, action):
    found = no_results(CAROL, origin.value, login_mismatch=True)
    verdict = judge(found, transaction(origin), login_mismatch=action)
    assert verdict.action is Action[action.upper()]
    if action == "accept":
        assert verdict is ACCEPTED
    else:
        assert verdict.finding is not None
        assert (verdict.finding.key, verdict.finding.code) == ("login_mismatch", b"7.1")
        assert verdict.finding.text == "From: the login may not write as this author"
    assert judge(found, transaction(origin), shadow=True, login_mismatch=action).action is Action.ACCEPT
    about = transaction(origin, recipients=(b"<postmaster>",))
    assert judge(found, about, login_mismatch=action).action is Action.ACCEPT
    others = everything("reject") | {"login_mismatch": "accept"}
    assert judge(found, transaction(origin), **others) is ACCEPTED


# DNS that does not answer.


@pytest.mark.parametrize("key", ALL_KEYS)
@pytest.mark.parametrize(("name", "found", "keys"), MISSING, ids=[name for name, *_ in MISSING])
def test_dns_matters_where_the_answer_could_have_made_it_worse(name, found, keys, key):
    for wanted in ACTIONS[1:]:
        for instead in ACTIONS:
            verdict = judge(found, **{key: wanted}, dns_error=instead)
            if key not in keys or instead == "accept":
                assert verdict is ACCEPTED
                continue
            assert verdict.action is Action[instead.upper()]
            assert verdict.finding is not None
            assert (verdict.finding.key, verdict.finding.code) == ("dns_error", b"4.3")
            assert verdict.finding.text.startswith("DNS: ")


@pytest.mark.parametrize(
    ("found", "text"),
    [
        (MISSING[0][1], "SPF of sender.example could not be checked"),
        (MISSING[1][1], "SPF of HELO helo.example could not be checked"),
        (MISSING[2][1], "MX of sender.example could not be asked for: timed out"),
        (MISSING[3][1], "DKIM key could not be asked for: signer.example"),
        (MISSING[6][1], "DMARC of author.example could not be checked"),
        (MISSING[10][1], "ARC could not be validated"),
    ],
)
def test_who_is_deferred_reads_for_what(found, text):
    verdict = judge(found, **everything("reject"), dns_error="tempfail")
    reply = verdict.reply()
    assert isinstance(reply, ReplyCode)
    assert (reply.code, reply.enhanced) == (451, b"4.4.3")
    assert text in reply.text.decode()


HELO_FAILS_KEY_MISSING = results(spf=helo(SpfResult.FAIL), dkim=dkim(Reason.KEY_UNAVAILABLE))


@pytest.mark.parametrize(
    ("found", "missing", "dns_error", "action", "key"),
    [
        # What is found is as bad as what is missing, or worse: the answer would change nothing.
        ("reject", "reject", "tempfail", "reject", "spf_helo_fail"),
        ("reject", "quarantine", "reject", "reject", "spf_helo_fail"),
        ("quarantine", "tempfail", "reject", "quarantine", "spf_helo_fail"),
        ("tempfail", "tempfail", "reject", "tempfail", "spf_helo_fail"),
        # It might be worse, but what is done for DNS is milder than, or like, what is found already.
        ("quarantine", "reject", "tempfail", "quarantine", "spf_helo_fail"),
        ("quarantine", "reject", "quarantine", "quarantine", "spf_helo_fail"),
        ("quarantine", "reject", "accept", "quarantine", "spf_helo_fail"),
        ("tempfail", "reject", "tempfail", "tempfail", "spf_helo_fail"),
        # It might be worse.
        ("accept", "reject", "tempfail", "tempfail", "dns_error"),
        ("accept", "tempfail", "tempfail", "tempfail", "dns_error"),
        ("tempfail", "reject", "quarantine", "quarantine", "dns_error"),
        ("quarantine", "reject", "reject", "reject", "dns_error"),
    ],
)
def test_found_and_missing(found, missing, dns_error, action, key):
    policy = {"spf_helo_fail": found, "dkim_fail": missing, "dns_error": dns_error}
    verdict = judge(HELO_FAILS_KEY_MISSING, **policy)
    assert verdict.finding is not None
    assert (verdict.action.word, verdict.finding.key) == (action, key)


def test_dns_alone_is_nothing_to_act_on():
    for _, found, _ in MISSING:
        assert judge(found, dns_error="reject") is ACCEPTED


# The budget.

TROUBLE = results(spf=spf(SpfResult.TEMPERROR))


class Run:
    """Messages of one process, one after the other."""

    def __init__(self, **policy: Any) -> None:
        defaults = {"shadow": False, "spf_fail": "reject", "dns_error": "tempfail"}
        self.policy = Policy(PolicyParameters(**(defaults | policy)))

    def send(self, found: Results, about: Transaction | None = None) -> str:
        """Give the letter of what is done, in upper case where the budget kept it from being done."""
        verdict = self.policy.judge(about or transaction(), found)
        if verdict.why_not == BUDGET_SPENT:
            assert (verdict.action, verdict.wanted) == (Action.ACCEPT, Action.TEMPFAIL)
            assert verdict.finding is not None
            assert verdict.reply() == Continue()
            return "S"
        return verdict.action.word[0]

    def of(self, *found: Results) -> str:
        return "".join([self.send(each) for each in found])


GOOD = results()
FAILED = results(spf=spf(SpfResult.FAIL))


def test_the_budget_is_spent_by_deferrals_in_a_row():
    run = Run(defer_budget=3)
    assert run.of(*[TROUBLE] * 6) == "tttSSS"
    assert run.of(FAILED, TROUBLE) == "rt"  # judged without trouble


def test_the_default_budget():
    assert Run().of(*[TROUBLE] * 101) == "t" * 100 + "S"


def test_a_message_without_trouble_restores_the_budget():
    run = Run(defer_budget=2)
    assert run.of(TROUBLE, GOOD, TROUBLE, TROUBLE, TROUBLE, GOOD, TROUBLE, TROUBLE, TROUBLE) == "tattSattS"


def test_without_a_budget_nothing_is_deferred_for_dns():
    assert Run(defer_budget=0).of(TROUBLE, GOOD, TROUBLE, FAILED) == "SaSr"


def test_the_budget_is_for_deferrals_alone():
    """Neither for what is refused or held for DNS, nor for what is deferred for something else."""
    assert Run(defer_budget=1, dns_error="reject").of(*[TROUBLE] * 3) == "rrr"
    assert Run(defer_budget=1, dns_error="quarantine").of(*[TROUBLE] * 3) == "qqq"
    assert Run(defer_budget=1, spf_fail="tempfail").of(*[FAILED] * 3, TROUBLE, TROUBLE) == "ttttS"


@pytest.mark.parametrize("origin", OURS)
def test_mail_of_ours_leaves_the_budget_as_it_is(origin):
    ours = no_results(CAROL, origin.value, login_mismatch=True)
    run = Run(defer_budget=1, login_mismatch="tempfail")
    assert run.of(TROUBLE) == "t"
    assert run.send(ours, transaction(origin)) == "t"  # which has nothing to do with DNS
    assert run.send(no_results(CAROL, "", login_mismatch=False), transaction(origin)) == "a"
    assert run.of(TROUBLE) == "S"
    assert run.of(GOOD, TROUBLE) == "at"


def test_what_is_not_deferred_anyway_spends_nothing():
    run = Run(defer_budget=1)
    for about in (transaction(Origin.TRUSTED_RELAY), transaction(recipients=(b"<abuse>",))):
        assert run.send(TROUBLE, about) == "a"
    assert run.of(TROUBLE, TROUBLE) == "tS"
    run = Run(defer_budget=1, shadow=True)
    verdicts = [run.policy.judge(transaction(), TROUBLE) for _ in range(3)]
    assert {(each.action, each.wanted, each.why_not) for each in verdicts} == {
        (Action.ACCEPT, Action.TEMPFAIL, SHADOW)
    }


def test_trouble_that_does_not_matter_neither_spends_nor_restores():
    """DNS does not work, whatever the message needs of it."""
    other = results(dkim=dkim(Reason.KEY_UNAVAILABLE))  # dkim_fail is accept
    assert Run(defer_budget=1).of(TROUBLE, other, TROUBLE, GOOD, other, TROUBLE) == "taSaat"


# The words.

PRINTABLE = st.text(st.characters(min_codepoint=0x20, max_codepoint=0x7E), min_size=1, max_size=250)
OCTETS = st.binary(max_size=300)


def assert_fit_for_smtp(verdict: Verdict) -> None:
    """One line of printable ASCII, short enough, whose code has the class of the action."""
    finding, reply = verdict.finding, verdict.reply()
    assert finding is not None
    assert 0 < len(finding.text) <= 400
    assert re.fullmatch(r"[ -~]*", finding.text)
    if isinstance(reply, ReplyCode):
        assert reply.text == finding.text.encode("ascii")
        assert re.fullmatch(rb"[45]\.[0-9]\.[0-9]{1,2}", reply.enhanced)
        assert reply.enhanced[:1] == b"%d" % (reply.code // 100)
        assert (reply.code, verdict.action) in ((451, Action.TEMPFAIL), (550, Action.REJECT))
        line = b"%d %b %b\r\n" % (reply.code, reply.enhanced, reply.text)
        assert len(line) <= 512  # RFC 5321 §4.5.3.1.5
    else:
        assert verdict.modifications() == [Quarantine(finding.text.encode("ascii"))]
    for each in (reply, *verdict.modifications()):
        format_reply(each)


@given(domain=OCTETS, host=OCTETS, reason=PRINTABLE, signers=st.lists(OCTETS, min_size=1, max_size=10))
def test_the_words_are_fit_for_smtp_whoever_chose_the_names(domain, host, reason, signers):
    outcome = SpfOutcome(SpfResult.FAIL, reason, domain)
    about = transaction(helo=host, sender=Address(b"x", domain), client=ip_address("2001:db8::1"))
    author = Author(Address(b"x", domain), domain)
    keys = [DkimResult(Reason.KEY_UNAVAILABLE, "", each) for each in signers]
    bad = [DkimResult(Reason.BODY_CHANGED, "", each) for each in signers]
    found: list[Results] = [
        *[
            results(spf=SpfResults(outcome._replace(result=each)))
            for each in (SpfResult.FAIL, SpfResult.SOFTFAIL, SpfResult.PERMERROR, SpfResult.TEMPERROR)
        ],
        *[
            results(spf=SpfResults(None, outcome._replace(result=each)))
            for each in (SpfResult.FAIL, SpfResult.TEMPERROR)
        ],
        *[results(null_mx=each) for each in (NullMx(found=True), NullMx(missing=reason))],
        *[results(dkim=DkimResults(tuple(each))) for each in (keys, bad)],
        *[
            results(author=author, dmarc=dmarc(result, policy, reason=reason))
            for result in (DmarcResult.FAIL, DmarcResult.TEMPERROR)
            for policy in (DomainPolicy.REJECT, DomainPolicy.QUARANTINE)
        ],
        results(author=Author(None, b"", reason), dmarc=DmarcResults(why_unchecked=reason)),
        results(arc=ArcResults(ArcResult(ChainStatus.FAIL, reason))),
        results(arc=ArcResults(ArcResult(ChainStatus.FAIL, reason, temporary=True))),
    ]
    for each in found:
        for action in ACTIONS[1:]:
            assert_fit_for_smtp(judge(each, about, **everything(action), dns_error=action))


class Anything:
    """DNS that has the same for every name, or fails in the same way."""

    def __init__(self, texts: list[bytes], outcome: Outcome = Outcome.FOUND) -> None:
        self._texts, self._outcome = texts, outcome

    async def txt(self, _name: bytes) -> Answer[bytes]:
        found = self._outcome is Outcome.FOUND
        return Answer(self._outcome, tuple(self._texts) if found else ())

    async def mx(self, _name: bytes) -> Answer[MailExchange]:
        found = self._outcome is Outcome.FOUND
        return Answer(self._outcome, (MailExchange(0, b""),) if found else ())

    async def ipv4(self, _name: bytes) -> Answer[Any]:
        return Answer(Outcome.NX_DOMAIN)

    ipv6 = ptr = ipv4


HOSTILE = st.one_of(
    OCTETS,
    st.builds(
        lambda *parts: b"".join(parts),
        st.sampled_from([b"<a@", b"<", b"", b"a@", b'<"a\r\n"@', b"<a b@"]),
        st.sampled_from([b"x.example", b"b\xc3\xbc.example", b"x.example\r\n250 ok", b"%s.example", b"[1]"]),
        st.sampled_from([b">", b"", b"\0>", b" >"]),
    ),
)
RECORDS = st.one_of(
    st.binary(max_size=100).map(lambda text: b"v=spf1 " + text),
    st.binary(max_size=60).map(lambda text: b"v=spf1 include:" + text + b" -all"),
    st.sampled_from([b"v=spf1 -all", b"v=spf1 ~all", b"v=DMARC1; p=reject", b"v=DMARC1; p=quarantine"]),
    st.binary(max_size=100),
)
FROM = st.one_of(
    OCTETS,
    st.sampled_from([b" a@x.example", b" a@b\xc3\xbc.example", b" a@x.example,b@y.example", b" \r\n250"]),
)
SIGNATURES = st.one_of(
    OCTETS,
    OCTETS.map(lambda domain: b" v=1; a=rsa-sha256; d=" + domain + b"; s=s; h=from; bh=AAAA; b=AAAA"),
    st.just(signed()[0].value),
)


@given(
    sender=HOSTILE,
    host=HOSTILE,
    author=FROM,
    signature=SIGNATURES,
    records=st.lists(RECORDS, min_size=1, max_size=3),
    outcome=st.sampled_from([Outcome.FOUND, Outcome.FOUND, Outcome.TIMED_OUT, Outcome.NX_DOMAIN]),
    action=st.sampled_from(ACTIONS[1:]),
)
def test_the_words_are_fit_for_smtp_whatever_is_sent(  # noqa: PLR0917
    sender, host, author, signature, records, outcome, action
):
    policy = PolicyParameters(**(everything(action) | {"shadow": False, "dns_error": action}))
    bench = Bench(cache=Anything(records, outcome), policy=policy, dmarc=True, arc=True)
    fields = [
        HeaderField(b"DKIM-Signature", signature),
        HeaderField(b"ARC-Seal", signature),
        HeaderField(b"From", author),
    ]
    report = bench.send(sender, helo=host, fields=fields)
    assert report.verdict.finding is not None  # ARC-Seal alone is a broken chain
    assert_fit_for_smtp(report.verdict)
    assert report.decision.verdict == report.verdict.reply()
    if report.verdict.refuses:
        assert report.decision.modifications == ()
    else:
        assert report.decision.modifications[-1] == report.verdict.modifications()[0]


def test_a_text_that_is_too_long_says_so():
    domain = b"\xff" * 300
    found = results(spf=spf(SpfResult.PERMERROR, "x" * 250, domain))
    verdict = judge(found, spf_permerror="reject")
    assert verdict.finding is not None
    assert len(verdict.finding.text) == 400
    assert verdict.finding.text.endswith("...")


def test_percent_signs_reach_the_client_as_they_are():
    """A library for milters would take them for something else, so they stand twice in the packet."""
    found = results(spf=spf(SpfResult.FAIL, domain=b"%s%n.example"))
    packet = format_reply(judge(found, spf_fail="reject").reply())
    assert packet[5:].startswith(b"550 5.7.23 SPF: ")
    assert b" %%s%%n.example\0" in packet


# In the whole filter.


@pytest.mark.parametrize("action", ACTIONS)
def test_what_is_done_with_a_message(action):
    policy = PolicyParameters(shadow=False, spf_fail=action)
    bench = Bench(policy=policy)
    fields = [HeaderField(b"Authentication-Results", b" mx.example.net; spf=pass"), *signed()]
    report = bench.send(client="198.51.100.1", fields=fields)
    assert report.verdict.action.word == action
    assert report.decision.verdict == report.verdict.reply()
    if report.verdict.refuses:
        assert report.decision.modifications == ()
        return
    # What is held is changed like what is accepted: forged results are gone, ours are there.
    kinds = [type(each).__name__ for each in report.decision.modifications]
    assert kinds == ["ChangeHeader", "InsertHeader", *["Quarantine"] * (action == "quarantine")]
    assert field_of(report) == [("spf", "fail"), ("spf", "fail"), ("dkim", "pass")]


def test_shadow_changes_nothing():
    how = {"client": "198.51.100.1", "fields": signed(), "body": BODY}
    plain = Bench().send(**how)
    report = Bench(policy=PolicyParameters(spf_fail="reject")).send(**how)
    assert report.decision == plain.decision
    assert (report.verdict.wanted, report.verdict.why_not) == (Action.REJECT, SHADOW)
    assert plain.verdict is ACCEPTED


HOLD = {"shadow": False, "spf_fail": "quarantine"}


@pytest.mark.parametrize(
    ("policy", "asked"),
    [
        ({}, False),
        ({"shadow": False}, False),
        (HOLD, True),
        (HOLD | {"shadow": True}, False),
        ({"shadow": False, **everything("reject"), "dns_error": "tempfail"}, False),
        *[({"shadow": False, key: "quarantine"}, True) for key in ALL_KEYS],
        ({"shadow": False, "spf_fail": "reject", "dns_error": "quarantine"}, True),
        ({"shadow": True, "spf_fail": "reject", "dns_error": "quarantine"}, False),
        # No other action, so nothing can be missing.
        ({"shadow": False, "dns_error": "quarantine"}, False),
    ],
)
def test_the_mta_is_asked_for_holding_only_where_it_can_happen(policy, asked):
    actions = Bench(policy=PolicyParameters(**policy)).filter.actions
    assert bool(actions & MilterAction.QUARANTINE) is asked
    assert actions & ~MilterAction.QUARANTINE == MilterAction.ADD_HEADERS | MilterAction.CHANGE_HEADERS


NULL_MX_ZONES = {
    ("example.com", "TXT"): ["v=spf1 ip4:192.0.2.1 -all"],
    ("null.example", "MX"): [(0, ".")],
    ("two.example", "MX"): [(0, "."), (10, "mail.example")],
    ("plain.example", "MX"): [(10, "mail.example")],
    ("bare.example", "A"): ["192.0.2.9"],
    ("slow.example", "MX"): Outcome.TIMED_OUT,
}


@pytest.mark.parametrize(
    ("sender", "action"),
    [
        (b"<a@null.example>", "reject"),
        (b"<a@NULL.example.>", "reject"),
        (b"<@x.example:a@null.example>", "reject"),
        (b"a@null.example", "reject"),
        (b"<a@two.example>", "accept"),  # RFC 7505 §3: it must be the only one
        (b"<a@plain.example>", "accept"),
        (b"<a@bare.example>", "accept"),
        (b"<a@nowhere.example>", "accept"),
        (b"<a@slow.example>", "tempfail"),
        (b"<>", "accept"),
        (b"<a>", "accept"),
        (b"<a@[192.0.2.1]>", "accept"),
    ],
)
def test_null_mx(sender, action):
    policy = PolicyParameters(shadow=False, null_mx="reject", dns_error="tempfail")
    bench = Bench(NULL_MX_ZONES, policy=policy)
    report = bench.send(sender, helo=b"[192.0.2.1]")
    assert report.verdict.action.word == action
    asked = [name for name, kind in bench.cache.asked if kind == "MX"]
    assert len(asked) == (b".example" in sender)


@pytest.mark.parametrize(
    ("policy", "how"),
    [
        ({}, {}),
        ({"null_mx": "reject"}, {"client": "127.0.0.1"}),
        ({"null_mx": "reject"}, {"client": "203.0.113.1"}),
        ({"null_mx": "reject"}, {"macros": {b"auth_authen": b"alice"}}),
        ({"null_mx": "reject"}, {"client": "203.0.113.2"}),
    ],
)
def test_null_mx_is_asked_for_only_where_it_matters(policy, how):
    bench = Bench(
        NULL_MX_ZONES,
        policy=PolicyParameters(shadow=False, **policy),
        milter=MilterParameters(trusted_relays=("203.0.113.1",)),
        exclusions=b"203.0.113.2 spf\n",
    )
    assert bench.send(b"<a@null.example>", **how).verdict is ACCEPTED
    assert [kind for _, kind in bench.cache.asked if kind == "MX"] == []


@pytest.mark.parametrize(
    ("value", "mismatch"),
    [
        (b" alice@example.com", False),
        (b" bob@example.com", True),
        (b" alice@example.com, bob@example.com", True),
        (b" nobody", True),
    ],
)
@pytest.mark.parametrize("action", ACTIONS)
def test_logins(value, mismatch, action):
    policy = PolicyParameters(shadow=False, **(everything("reject") | {"login_mismatch": action}))
    bench = Bench(policy=policy, logins=b"alice alice@example.com\n", signing=True)
    report = bench.send(macros={b"auth_authen": b"alice"}, fields=[HeaderField(b"From", value)])
    assert report.verdict.action.word == (action if mismatch else "accept")
    assert report.results.login_mismatch is mismatch


@given(st.binary(max_size=40))
def test_any_recipient_is_a_role_or_is_not(path):
    about = transaction(recipients=(path,))
    expected = re.search(rb"\A<?(postmaster|abuse)(@|>?\Z)", path.lower()) is not None
    if is_for_a_role(about) and not expected:  # spelled in another way
        address = parse_path(path)
        assert address is not None
        assert address.local_part.lower() in (b"postmaster", b"abuse")
    assert not is_null_path(path) or not is_for_a_role(about)


def test_the_author_problem_is_that_of_the_filter():
    author = find_author([HeaderField(b"From", b" a@x.example"), HeaderField(b"From", b" a@x.example")])
    assert author == SEVERAL
