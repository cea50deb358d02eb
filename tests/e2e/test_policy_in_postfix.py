"""[policy] in a real Postfix: what the client hears, what is held, what is only logged, and who is never refused."""

from __future__ import annotations

import json
import re
import smtplib
import urllib.request
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest

from harness.daemon import run
from harness.dkim_forge import Forge, rsa_key
from harness.milter_host import BOB, HOSTNAME, OURS, Delivered, MilterHost, make_message
from harness.smtp_client import HELO, STRANGER, send
from harness.submission import logged_in, submission_host
from srsd.syntax.header import HeaderField

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from harness.smtp_client import Step

pytestmark = pytest.mark.e2e

KEY = rsa_key(2048)
STRANGER_2, RELAY, EXCLUDED_SPF, EXCLUDED_DMARC = (f"127.0.0.{n}" for n in (3, 5, 6, 7))
ANYBODY = "v=spf1 ip4:127.0.0.0/8 -all"
ZONES = {
    (HELO, "TXT"): [f"v=spf1 ip4:{STRANGER} -all"],
    ("pass.example", "TXT"): [ANYBODY],
    ("fail.example", "TXT"): ["v=spf1 ip4:192.0.2.1 -all"],
    ("softfail.example", "TXT"): ["v=spf1 ~all"],
    ("permerror.example", "TXT"): ["v=spf1 exists:100%.example -all"],
    ("nullmx.example", "TXT"): [ANYBODY],
    ("nullmx.example", "MX"): [(0, ".")],
    ("mx.example", "TXT"): [ANYBODY],
    ("mx.example", "MX"): [(0, "."), (10, "mail.mx.example")],
    ("reject.example", "TXT"): [ANYBODY],
    ("_dmarc.reject.example", "TXT"): ["v=DMARC1; p=reject"],
    ("_dmarc.quarantine.example", "TXT"): ["v=DMARC1; p=quarantine"],
    ("_dmarc.testing.example", "TXT"): ["v=DMARC1; p=reject; t=y"],
    ("_dmarc.none.example", "TXT"): ["v=DMARC1; p=none"],
    ("_dmarc.excluded.example", "TXT"): ["v=DMARC1; p=reject"],
    ("excludedspf.example", "TXT"): ["v=spf1 -all"],
    ("_dmarc.excludedspf.example", "TXT"): ["v=DMARC1; p=reject"],
    ("sel._domainkey.far.example", "TXT"): [KEY.record],
}
EXCLUDE = f"""\
@excluded.example      dmarc
@excludedspf.example   spf
{EXCLUDED_SPF}         spf
{EXCLUDED_DMARC}       dmarc, spf
"""
MAIN_CF = """\
virtual_alias_maps = inline:{
    { postmaster@here.example = bob@here.example } { abuse@here.example = bob@here.example }
    { Postmaster@mx.here.example = bob@here.example } }
"""
EVERYTHING = (
    "spf_fail",
    "spf_softfail",
    "spf_helo_fail",
    "spf_permerror",
    "null_mx",
    "dkim_fail",
    "arc_fail",
    "dmarc_reject",
    "dmarc_quarantine",
    "author_invalid",
    "login_mismatch",
)
BROKEN_CHAIN = (
    "ARC-Seal: i=1; a=rsa-sha256; cv=none; d=far.example; s=sel; b=AAAA",
    "ARC-Message-Signature: i=1; a=rsa-sha256; d=far.example; s=sel; h=from; bh=AAAA; b=AAAA",
)
_senders = iter(range(1, 1_000_000))


class Case(NamedTuple):
    """A message that one key of [policy] is about. Each sender is one of its own."""

    key: str
    reply: str  # of a rejection, as the client sees it
    domain: str = "pass.example"  # of the sender
    author: str | None = "alice@unrelated.example"
    extra: Sequence[str] = ()
    helo: str = HELO
    source: str = STRANGER
    sign: bytes = b""


class Sent(NamedTuple):
    """What became of a message."""

    sender: str
    subject: str
    last: Step
    accepted: bool

    @property
    def reply(self) -> str:
        """The reply as the client sees it."""
        return f"{self.last.code} {self.last.text}"


def content_of(case: Case) -> tuple[str, bytes]:
    """Make the message; return its subject and the content."""
    subject, content = make_message(case.extra, author=case.author)
    if case.sign:
        header, _, body = content.partition(b"\r\n\r\n")
        fields = [HeaderField(*line.split(b":", 1)) for line in header.split(b"\r\n")]
        signature = Forge(KEY).sign(fields, body, case.sign)
        content = signature.name + b":" + signature.value + b"\r\n" + content
    return subject, content


def bring(host: MilterHost, case: Case, recipient: str = BOB, *, service: str = "") -> Sent:
    """Bring a message by SMTP."""
    subject, content = content_of(case)
    sender = f"s{next(_senders)}@{case.domain}"
    server = ("127.0.0.1", host.ports[service]) if service else host.postfix.address
    sent = send(server, sender, recipient, content, source=case.source, helo=case.helo)
    return Sent(sender, subject, sent.last, sent.accepted)


def check_delivered(host: MilterHost, sent: Sent) -> tuple[Delivered, dict[str, Any]]:
    """Check that a message came with one field of ours; return it and its line in the log."""
    assert sent.accepted, sent.reply
    delivered = host.arrived(sent.subject)
    assert len([each for each in delivered.results if each.startswith(f"{HOSTNAME};")]) == 1
    facts = host.facts(sent.sender)
    assert facts["queue_id"] == re.search(r"queued as (\w+)", sent.last.text)[1]
    return delivered, facts


def policy(shadow: bool = False, **keys: Any) -> dict[str, Any]:
    return {"policy": {"shadow": shadow, **keys}}


@pytest.fixture(scope="module")
def running_host() -> Iterator[MilterHost]:
    with submission_host(
        ZONES,
        "alice",
        main_cf=MAIN_CF,
        exclude=EXCLUDE,
        milter={"internal_networks": [f"{OURS}/32"], "trusted_relays": [f"{RELAY}/32"]},
        log={"format": "json"},
    ) as host:
        login_table = host.postfix.directory / "logins"
        login_table.write_text("alice alice@here.example\n")
        control = host.postfix.directory / "control"
        host.tables |= {
            "dkim": {"login_table": str(login_table)},
            "listen": {"control": [f"unix:{control}"], "metrics": ["inet:127.0.0.1:0"]},
        }
        with host:
            yield host


def metric(host: MilterHost, name: str, **labels: str) -> float:
    """Return what a counter is at."""
    address, port = host.srsd.inet("metrics")
    with urllib.request.urlopen(f"http://{address}:{port}/metrics", timeout=20) as page:
        text = page.read().decode()
    shown = ",".join(f'{label}="{value}"' for label, value in labels.items())
    found = re.search(rf"^{name}{{{shown}}} (\S+)$", text, re.MULTILINE)
    return float(found[1]) if found else 0.0


# Each key, refusing.


TEMPLATE = (
    b" v=1; a=rsa-sha256; c=relaxed/relaxed; d=far.example; s=%b; h=from:to:subject;%b bh=%%BH%%; b=%%B%%"
)
FAILING = {
    "DMARC, reject": Case(
        "dmarc_reject",
        "550 5.7.26 DMARC: reject.example asks to reject what fails: spf passed, not aligned",
        author="Boss <boss@reject.example>",
    ),
    "DMARC, nothing passes": Case(
        "dmarc_reject",
        "550 5.7.26 DMARC: sub.reject.example asks to reject what fails: neither spf nor dkim passed",
        "fail.example",
        author="boss@sub.reject.example",
    ),
    "DMARC, quarantine": Case(
        "dmarc_quarantine",
        "550 5.7.26 DMARC: quarantine.example asks to quarantine what fails: spf passed, not aligned",
        author="boss@quarantine.example",
    ),
    "DMARC, reject in testing": Case(
        "dmarc_quarantine",
        "550 5.7.26 DMARC: testing.example asks to quarantine what fails: spf passed, not aligned",
        author="boss@testing.example",
    ),
    "SPF fail": Case(
        "spf_fail", "550 5.7.23 SPF: 127.0.0.2 may not send mail of fail.example", "fail.example"
    ),
    "SPF softfail": Case(
        "spf_softfail",
        "550 5.7.23 SPF: 127.0.0.2 is probably not allowed to send mail of softfail.example",
        "softfail.example",
    ),
    "SPF fail of HELO": Case(
        "spf_helo_fail", f"550 5.7.23 SPF: {STRANGER_2} may not say HELO client.example", source=STRANGER_2
    ),
    "SPF permerror": Case(
        "spf_permerror",
        "550 5.7.24 SPF: the record of permerror.example is in error: ",
        "permerror.example",
    ),
    "null MX": Case(
        "null_mx", "550 5.7.27 MAIL FROM: nullmx.example takes no mail (null MX)", "nullmx.example"
    ),
    "DKIM, altered": Case(
        "dkim_fail",
        "550 5.7.20 DKIM: no signature passes: d=far.example: the body hash did not verify",
        sign=(TEMPLATE % (b"sel", b"")).replace(b"%BH%", b"47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU="),
    ),
    "DKIM, no key": Case(
        "dkim_fail",
        "550 5.7.20 DKIM: no signature passes: d=far.example: ",
        sign=TEMPLATE % (b"nokey", b""),
    ),
    "DKIM, length": Case(
        "dkim_fail",
        "550 5.7.21 DKIM: no signature passes: d=far.example: ",
        sign=TEMPLATE % (b"sel", b" l=3;"),
    ),
    "ARC": Case("arc_fail", "550 5.7.29 ARC: the chain is broken: ", extra=BROKEN_CHAIN),
    "no From": Case("author_invalid", "550 5.7.1 From: there is no From field", author=None),
    "two From": Case(
        "author_invalid",
        "550 5.7.1 From: there are several From fields",
        author="a@pass.example",
        extra=["From: b@pass.example"],
    ),
    "two domains in From": Case(
        "author_invalid",
        "550 5.7.1 From: there are addresses of several domains in From",
        author="a@pass.example, b@reject.example",
    ),
    "From of nonsense": Case(
        "author_invalid", "550 5.7.1 From: the From field cannot be parsed", author='"boss@reject.example'
    ),
}


@pytest.mark.parametrize("case", FAILING.values(), ids=FAILING)
def test_what_the_client_hears(host: MilterHost, case: Case):
    """One line, with the registered code, the domain and the reason; and nothing of it unless asked for."""
    host.reload(**policy(**{case.key: "reject"}))
    sent = bring(host, case)
    assert not sent.accepted
    assert sent.reply.startswith(case.reply)
    assert "\n" not in sent.reply
    facts = host.facts(sent.sender)
    assert (facts["verdict"], facts["verdict_by"]) == ("reject", case.key)
    assert facts["verdict_reason"] == sent.reply.split(" ", 2)[2]
    assert "shadow_verdict" not in facts
    assert f"{facts['queue_id']}: milter-reject: END-OF-MESSAGE" in host.postfix.log()

    host.reload(**policy())
    check_delivered(host, bring(host, case))


def test_a_percent_sign_comes_through_as_one(host: MilterHost):
    host.reload(**policy(spf_permerror="reject"))
    assert bring(host, FAILING["SPF permerror"]).reply.count("%") == 1


def test_for_now(host: MilterHost):
    """tempfail: the same words, as a 451 of class 4."""
    host.reload(**policy(dmarc_reject="tempfail"))
    sent = bring(host, FAILING["DMARC, reject"])
    assert sent.reply.startswith("451 4.7.26 DMARC: reject.example asks to reject what fails")
    assert host.facts(sent.sender)["verdict"] == "tempfail"


def test_the_worst_one_wins(host: MilterHost):
    host.reload(**policy(spf_fail="reject", dmarc_reject="quarantine", author_invalid="tempfail"))
    case = Case("", "", "fail.example", author="boss@reject.example")
    assert bring(host, case).reply.startswith("550 5.7.23 SPF")
    assert host.facts("SPF: 127.0.0.2 may not send mail of fail.example")["verdict"] == "reject"


INNOCENT = {
    "aligned by SPF": Case("", "", "reject.example", author="boss@reject.example"),
    "p=none": Case("", "", author="boss@none.example"),
    "no record": Case("", "", author="boss@nowhere.example"),
    "several addresses of one domain": Case("", "", author="a@pass.example, b@pass.example"),
    "one of two signatures passes": Case(
        "",
        "",
        sign=TEMPLATE % (b"sel", b""),
        extra=[f"DKIM-Signature:{(TEMPLATE % (b'sel', b'')).decode().replace('%BH%', 'AAAA').replace('%B%', 'AAAA')}"],
    ),
    "unsigned": Case("", ""),
    "MX beside a null MX": Case("", "", "mx.example"),
}  # fmt: skip


@pytest.mark.parametrize("case", INNOCENT.values(), ids=INNOCENT)
def test_nothing_is_wrong_with_it(host: MilterHost, case: Case):
    host.reload(**policy(**dict.fromkeys(EVERYTHING, "reject")))
    _, facts = check_delivered(host, bring(host, case))
    assert facts["verdict"] == "accept"
    assert "verdict_by" not in facts


# Shadow.


def test_in_shadow_it_is_delivered_logged_and_counted(host: MilterHost):
    """shadow is not set, so it is on."""
    host.reload(policy={"dmarc_reject": "reject", "spf_fail": "quarantine"})
    before = metric(host, "srsd_verdicts_shadow_total", action="reject")
    delivered, facts = check_delivered(host, bring(host, FAILING["DMARC, nothing passes"]))
    assert "dmarc=fail" in delivered.results[0]
    assert "policy.dmarc=reject" in delivered.results[0]
    assert {name: facts[name] for name in facts if "verdict" in name} == {
        "verdict": "accept",
        "verdict_by": "dmarc_reject",
        "verdict_reason": FAILING["DMARC, nothing passes"].reply.removeprefix("550 5.7.26 "),
        "shadow_verdict": "reject",
        "verdict_why_not": "shadow",
    }
    assert metric(host, "srsd_verdicts_shadow_total", action="reject") == before + 1
    assert metric(host, "srsd_verdicts_by_total", key="dmarc_reject") > 0
    done = run("srsctl", "--config", host.srsd.config, "status", "--json")
    events = {(what, kind): count for what, kind, count in json.loads(done.stdout)["counters"]["events"]}
    assert events["verdicts_shadow", "reject"] == before + 1
    done = run("srsctl", "--config", host.srsd.config, "status")
    assert re.search(rf"verdicts shadow\W+reject\W+{int(before) + 1}\W", done.stdout)


# Quarantine.


def is_held(host: MilterHost, queue_id: str) -> bool:
    """Tell whether a message is in the hold queue, and in no other."""
    return [each["queue_name"] for each in host.postfix.queue() if each["queue_id"] == queue_id] == ["hold"]


def test_quarantine_is_the_hold_queue(host: MilterHost):
    host.reload(**policy(dmarc_quarantine="quarantine"))
    sent = bring(host, FAILING["DMARC, quarantine"])
    assert sent.accepted
    facts = host.facts(sent.sender)
    assert facts["verdict"] == "quarantine"
    assert facts["verdict_reason"] == FAILING["DMARC, quarantine"].reply.removeprefix("550 5.7.26 ")
    queue_id = facts["queue_id"]
    assert is_held(host, queue_id)
    assert re.search(rf"^{queue_id}!", host.postfix.run("postqueue", "-p"), re.MULTILINE)
    # Postfix 3.7 does not log the reason: it is in srsd's log alone.
    assert re.search(rf"{queue_id}: milter-hold: END-OF-MESSAGE .*: milter triggers HOLD", host.postfix.log())
    header = host.postfix.run("postcat", "-qh", queue_id)
    assert header.count(f"Authentication-Results: {HOSTNAME};") == 1
    assert host.arrivals(sent.subject) == 0

    host.postfix.run("postsuper", "-H", queue_id)
    check_delivered(host, sent)
    assert len([line for line in host.srsd.log if queue_id in line]) == 1  # the milter saw it once


def test_quarantine_of_a_message_that_dmarc_rejects(host: MilterHost):
    """What the admin wants counts, not what the author domain asks for."""
    host.reload(**policy(dmarc_reject="quarantine"))
    sent = bring(host, FAILING["DMARC, reject"])
    assert sent.accepted
    assert is_held(host, host.facts(sent.sender)["queue_id"])


# Who is never refused.


@pytest.fixture
def strict(host: MilterHost) -> MilterHost:
    host.reload(**policy(**dict.fromkeys(EVERYTHING, "reject")))
    return host


WORST = Case("", "", "fail.example", author="boss@reject.example", extra=BROKEN_CHAIN)


@pytest.mark.parametrize(
    "recipient", ["postmaster@here.example", "Abuse@here.example", "POSTMASTER@here.example", "postmaster"]
)
def test_postmaster_and_abuse_must_hear_of_it(strict: MilterHost, recipient):
    sent = bring(strict, WORST, recipient)
    _, facts = check_delivered(strict, sent)
    assert facts["verdict_why_not"] == "it is for postmaster or abuse"
    assert (facts["verdict"], facts["shadow_verdict"]) == ("accept", "reject")


def test_a_message_for_postmaster_and_others_is_not_refused_either(strict: MilterHost):
    """Postfix has one answer for all recipients."""
    subject, content = content_of(WORST)
    with smtplib.SMTP(*strict.postfix.address, timeout=60, source_address=(STRANGER, 0)) as client:
        client.sendmail("x@fail.example", [BOB, "postmaster@here.example"], content)
    strict.arrived(subject)


@pytest.mark.parametrize("recipient", ["carol@here.example", BOB])
def test_other_recipients_are_refused(strict: MilterHost, recipient):
    assert bring(strict, WORST, recipient).reply.startswith("550 5.7.26")


@pytest.mark.parametrize(
    "case",
    [
        WORST,
        FAILING["SPF fail"],
        FAILING["SPF fail of HELO"],
        FAILING["null MX"],
        FAILING["DKIM, altered"],
        FAILING["ARC"],
        FAILING["two From"],
        FAILING["DMARC, reject"],
    ],
)
def test_a_trusted_relay_would_have_to_bounce_it(strict: MilterHost, case: Case):
    _, facts = check_delivered(strict, bring(strict, case._replace(source=RELAY)))
    assert facts["origin"] == "trusted relay"
    assert facts["verdict"] == "accept"
    if "shadow_verdict" in facts:
        assert facts["verdict_why_not"] == "a trusted relay would have to bounce it"
    assert "spf" not in facts


@pytest.mark.parametrize("service", ["", "originating"])
@pytest.mark.parametrize("case", ["two From", "DMARC, reject", "null MX", "ARC", "DKIM, altered"])
def test_mail_of_ours_is_not_refused(strict: MilterHost, service, case):
    ours = FAILING[case]._replace(source=STRANGER if service else OURS)
    sent = bring(strict, ours, service=service)
    assert sent.accepted, sent.reply
    assert strict.arrived(sent.subject).results == []
    facts = strict.facts(sent.sender)
    assert facts["verdict"] == "accept"
    assert "verdict_by" not in facts


def submit(host: MilterHost, author: str) -> str:
    """Submit a message as alice; return the subject. Raises smtplib.SMTPDataError."""
    subject, content = content_of(Case("", "", author=author))
    with logged_in(host, "submission", "alice") as client:
        client.sendmail("alice@here.example", [BOB], content)
    return subject


def test_a_login_writes_as_its_own(strict: MilterHost):
    delivered = strict.arrived(submit(strict, "alice@here.example"))
    assert delivered.results == []


@pytest.mark.parametrize("author", ["ceo@here.example", "alice@here.example, ceo@here.example"])
def test_a_login_that_writes_as_another_is_refused(strict: MilterHost, author):
    with pytest.raises(smtplib.SMTPDataError) as refused:
        submit(strict, author)
    text = b"5.7.1 From: the login may not write as this author"
    assert (refused.value.smtp_code, refused.value.smtp_error) == (550, text)


def test_a_login_mismatch_in_shadow_and_in_quarantine(host: MilterHost):
    host.reload(**policy(shadow=True, login_mismatch="reject"))
    subject = submit(host, "ceo@here.example")
    host.arrived(subject)
    facts = json.loads([line for line in host.srsd.log if '"login": "alice"' in line][-1])
    assert (facts["verdict"], facts["shadow_verdict"]) == ("accept", "reject")
    host.reload(**policy(login_mismatch="quarantine"))
    submit(host, "ceo@here.example")
    facts = json.loads([line for line in host.srsd.log if '"login": "alice"' in line][-1])
    assert facts["verdict"] == "quarantine"
    assert is_held(host, facts["queue_id"])


# The exclusion map.


EXCEPTIONS: dict[str, tuple[Case, Callable[[dict[str, Any]], bool]]] = {
    "dmarc, author domain": (
        Case("", "", author="boss@excluded.example"),
        lambda facts: facts["dmarc_unchecked"] == "excluded" and facts["spf"] == "pass",
    ),
    "dmarc, network": (
        Case("", "", "fail.example", author="boss@reject.example", source=EXCLUDED_DMARC, helo="x.example"),
        lambda facts: facts["dmarc_unchecked"] == facts["spf_unchecked"] == "excluded",
    ),
    "spf, sender's domain": (
        Case("", "", "excludedspf.example"),
        lambda facts: facts["spf_unchecked"] == "excluded",
    ),
    "spf, network": (
        Case("", "", "fail.example", source=EXCLUDED_SPF),
        lambda facts: facts["spf_unchecked"] == "excluded",
    ),
    "spf that would be aligned, so DMARC cannot fail": (
        Case("", "", "excludedspf.example", author="boss@excludedspf.example"),
        lambda facts: facts["dmarc_unchecked"] == "SPF is not checked: excluded",
    ),
    "dmarc, and From is invalid": (
        Case("", "", author=None, source=EXCLUDED_DMARC),
        lambda facts: facts["dmarc_unchecked"] == "excluded",
    ),
}


@pytest.mark.parametrize(("case", "logged"), EXCEPTIONS.values(), ids=EXCEPTIONS)
def test_exceptions(strict: MilterHost, case: Case, logged):
    _, facts = check_delivered(strict, bring(strict, case))
    assert facts["verdict"] == "accept"
    assert "verdict_by" not in facts
    assert logged(facts)


@pytest.mark.parametrize(
    "case",
    [
        Case("", "550 5.7.26", "pass.example", author="boss@reject.example"),
        Case(
            "", "550 5.7.26", "excludedspf.example", author="boss@reject.example"
        ),  # SPF could not be aligned
        Case("", "550 5.7.23", "fail.example", author="boss@excluded.example"),
        Case("", "550 5.7.26", author="boss@reject.example, ceo@reject.example"),
    ],
)
def test_an_exception_goes_no_further(strict: MilterHost, case: Case):
    assert bring(strict, case).reply.startswith(case.reply)
