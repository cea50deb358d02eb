"""DNS does not answer while Postfix brings mail: it is deferred where the admin wants that, but not for ever."""

from __future__ import annotations

import re
import urllib.request
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest

from harness.dkim_forge import Forge, rsa_key
from harness.dns_server import Script
from harness.milter_host import BOB, OURS, MilterHost, make_message, told
from harness.smtp_client import send
from srsd.resolving import Outcome
from srsd.syntax.header import HeaderField

if TYPE_CHECKING:
    from collections.abc import Iterator

    from harness.smtp_client import Step

pytestmark = pytest.mark.e2e

ZONES: dict[tuple[str, str], Any] = {
    ("pass.example", "TXT"): ["v=spf1 ip4:127.0.0.0/8 -all"],
    ("fail.example", "TXT"): ["v=spf1 -all"],
    ("nokey.example", "TXT"): ["v=spf1 ip4:127.0.0.0/8 -all"],
    ("_dmarc.nokey.example", "TXT"): ["v=DMARC1; p=reject"],
    ("sel._domainkey.nokey.example", "TXT"): Outcome.SERVER_FAILURE,
    ("_dmarc.strict.example", "TXT"): ["v=DMARC1; p=reject"],
    ("sel._domainkey.strict.example", "TXT"): Outcome.SERVER_FAILURE,
    ("_dmarc.relaxed.example", "TXT"): ["v=DMARC1; p=none"],
    ("sel._domainkey.relaxed.example", "TXT"): Outcome.SERVER_FAILURE,
    ("_dmarc.unknown.example", "TXT"): Outcome.SERVER_FAILURE,
    ("passunknown.example", "TXT"): ["v=spf1 ip4:127.0.0.0/8 -all"],
    ("_dmarc.passunknown.example", "TXT"): Outcome.SERVER_FAILURE,
}
DEAD = {"silent": Script(drop=True), "SERVFAIL": Script(rcode=2), "REFUSED": Script(rcode=5)}
WORKS = Script()
BUDGET = 3
_numbers = iter(range(1, 1_000_000))


class Sent(NamedTuple):
    """What became of a message."""

    last: Step
    subject: str
    facts: dict[str, Any]


def bring(
    host: MilterHost, domain: str = "", *, author: str = "", signed_by: str = "", **options: Any
) -> Sent:
    """Bring a message with names that DNS has not been asked about before, but for those that are given.

    An answer that did not come is kept for some seconds, too.
    """
    number = next(_numbers)
    domain = domain or f"new{number}.example"
    subject, content = make_message(author=author or f"alice@{domain}")
    sender, recipient = f"s{number}@{domain}", options.pop("recipient", BOB)
    helo = f"helo{number}.example"
    if signed_by:
        content = signed(content, signed_by)
    sent = send(host.postfix.address, sender, recipient, content, helo=helo, **options)
    return Sent(sent.last, subject, host.facts(f"<{sender}>"))


def signed(content: bytes, domain: str) -> bytes:
    header, _, body = content.partition(b"\r\n\r\n")
    fields = [HeaderField(*line.split(b":", 1)) for line in header.split(b"\r\n")]
    template = b" v=1; a=rsa-sha256; d=%b; s=sel; h=from; bh=%%BH%%; b=%%B%%" % domain.encode()
    signature = Forge(rsa_key(2048)).sign(fields, body, template)
    return signature.name + b":" + signature.value + b"\r\n" + content


def check_deferred(sent: Sent) -> None:
    assert sent.last.code == 451
    assert re.match(r"4\.4\.3 DNS: .* could not be (checked|asked for): .*", sent.last.text)
    assert (sent.facts["verdict"], sent.facts["verdict_by"]) == ("tempfail", "dns_error")


def check_taken(host: MilterHost, sent: Sent) -> str:
    """Check that a message was taken; return our Authentication-Results of it."""
    assert sent.last.code == 250, sent.last
    (ours,) = host.arrived(sent.subject).results
    assert sent.facts["verdict"] == "accept"
    return ours


def counted(host: MilterHost) -> float:
    """Return how often the budget was spent."""
    address, port = host.srsd.inet("metrics")
    with urllib.request.urlopen(f"http://{address}:{port}/metrics", timeout=20) as page:
        text = page.read().decode()
    found = re.search(r'^srsd_defer_budget_spent_total\{reason="DNS"\} (\S+)$', text, re.MULTILINE)
    return float(found[1]) if found else 0.0


@pytest.fixture(scope="module")
def running_host() -> Iterator[MilterHost]:
    relay = "127.0.0.5"
    with MilterHost(
        ZONES,
        listen={"metrics": ["inet:127.0.0.1:0"]},
        dns={"timeout": 0.3, "message_deadline": 1.0},
        milter={"internal_networks": [f"{OURS}/32"], "trusted_relays": [f"{relay}/32"]},
        log={"format": "json"},
        main_cf="virtual_alias_maps = inline:{ { postmaster@here.example = bob@here.example } }\n",
    ) as host:
        yield host


@pytest.fixture
def host(running_host: MilterHost) -> Iterator[MilterHost]:
    with told(running_host):
        yield running_host
        running_host.dns.default = WORKS


def enforce(host: MilterHost, **keys: Any) -> None:
    """Put a policy in force; its budget is whole, since it is another number than before."""
    wanted = {"dmarc_reject": "reject", "spf_fail": "reject", "dns_error": "tempfail", "defer_budget": BUDGET}
    host.reload(policy={"shadow": False, **wanted, **keys, "defer_budget": 1_000_000})
    host.reload(policy={"shadow": False, **wanted, **keys})


@pytest.mark.parametrize("dead", DEAD.values(), ids=DEAD)
def test_a_dead_name_server_is_no_storm_of_deferrals(host: MilterHost, dead: Script):
    enforce(host)
    before, since = counted(host), len(host.srsd.log)
    host.dns.default = dead
    for _ in range(BUDGET):
        check_deferred(bring(host))
    assert counted(host) == before
    for n in (1, 2):
        sent = bring(host)
        ours = check_taken(host, sent)
        assert "spf=temperror" in ours
        assert "dmarc=temperror" in ours
        assert sent.facts["shadow_verdict"] == "tempfail"
        assert sent.facts["verdict_why_not"].startswith("policy.defer_budget is spent")
        assert counted(host) == before + n
    warning = host.srsd.wait_for_log(f"{sent.facts['queue_id']}: accepted with temperror", since=since)
    assert '"level": "warning"' in warning

    host.dns.default = WORKS
    assert "temperror" not in check_taken(host, bring(host))
    host.dns.default = dead
    check_deferred(bring(host))  # the budget is whole again
    assert counted(host) == before + 2


def test_nothing_is_deferred_by_default(host: MilterHost):
    enforce(host, dns_error="accept")
    before = counted(host)
    host.dns.default = DEAD["SERVFAIL"]
    for _ in range(BUDGET + 2):
        sent = bring(host)
        assert "spf=temperror" in check_taken(host, sent)
        assert "shadow_verdict" not in sent.facts
    assert counted(host) == before


def test_in_shadow_nothing_is_deferred_and_the_budget_is_not_spent(host: MilterHost):
    enforce(host, shadow=True, defer_budget=1)
    before = counted(host)
    host.dns.default = DEAD["SERVFAIL"]
    for _ in range(3):
        sent = bring(host)
        assert "spf=temperror" in check_taken(host, sent)
        assert (sent.facts["shadow_verdict"], sent.facts["verdict_why_not"]) == ("tempfail", "shadow")
    assert counted(host) == before


def test_without_a_budget_nothing_is_deferred(host: MilterHost):
    enforce(host, defer_budget=0)
    host.dns.default = DEAD["SERVFAIL"]
    check_taken(host, bring(host))


def test_mail_that_is_never_refused_is_not_deferred_either(host: MilterHost):
    enforce(host)
    host.dns.default = DEAD["SERVFAIL"]
    for options in ({"recipient": "postmaster@here.example"}, {"source": "127.0.0.5"}):
        check_taken(host, bring(host, **options))
    sent = bring(host, source=OURS)
    assert sent.last.code == 250
    assert host.arrived(sent.subject).results == []


@pytest.mark.parametrize(
    ("author", "sender", "deferred"),
    [
        ("strict.example", "pass.example", True),  # the signature might have passed
        ("relaxed.example", "pass.example", False),  # p=none: it would be taken all the same
        ("nokey.example", "nokey.example", False),  # SPF passes, aligned
        ("unknown.example", "pass.example", True),  # perhaps it asks to reject
        ("passunknown.example", "passunknown.example", True),
    ],
)
def test_only_what_could_change_the_verdict_counts(host: MilterHost, author, sender, deferred):
    enforce(host, dmarc_reject="reject", spf_fail="accept")
    sent = bring(host, sender, author=f"x@{author}", signed_by=author)
    if deferred:
        check_deferred(sent)
    else:
        check_taken(host, sent)


def test_what_is_refused_anyhow_is_not_deferred(host: MilterHost):
    enforce(host)
    sent = bring(host, "fail.example", author="x@unknown.example")
    assert (sent.last.code, sent.last.text[:6]) == (550, "5.7.23")


def test_dns_that_is_merely_slow(host: MilterHost):
    """Its answer comes within dns.timeout, so there is no trouble."""
    enforce(host)
    host.dns.default = Script(delay=0.1)
    assert "temperror" not in check_taken(host, bring(host))
    assert BOB
