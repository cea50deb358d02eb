"""The whole table of DMARC cases through the whole filter: the result is read from Authentication-Results.

What the table says of SPF and DKIM is made here: SPF records for the client, signatures and their keys.
"""

from __future__ import annotations

import re

import pytest

from harness.dkim_forge import Forge, rsa_key
from harness.dmarc_cases import CASES, DmarcCase, Zone
from harness.fake_resolver import FakeResolver
from harness.filter_bench import Bench, Forgetful, properties_of, results_in
from srsd.resolving import Outcome
from srsd.syntax.header import HeaderField

CLIENT = "192.0.2.1"
BODY = b"Hello\r\n"
KEY = rsa_key()
SPF_RECORDS = {
    "pass": ["v=spf1 ip4:192.0.2.1 -all"],
    "fail": ["v=spf1 -all"],
    "softfail": ["v=spf1 ~all"],
    "neutral": ["v=spf1 ?all"],
    "permerror": ["v=spf1 nonsense"],
    "temperror": Outcome.TIMED_OUT,
}
TEMPLATE = b" v=1; a=rsa-sha256; c=relaxed/relaxed; d=%D%; s=sel%N%; h=from:subject; bh=%BH%; b=%B%"


def zones_of(case: DmarcCase) -> Zone:
    """Add to the zone of a case what makes SPF and DKIM say what they are to say."""
    zones = dict(case.zone)
    if case.spf in SPF_RECORDS:
        assert not zones.get((case.mail_from, "TXT")), "the case needs another TXT record there"
        zones[case.mail_from, "TXT"] = SPF_RECORDS[case.spf]
    for number, (domain, word) in enumerate(case.dkim):
        name = f"sel{number}._domainkey.{domain}"
        zones[name, "TXT"] = Outcome.TIMED_OUT if word == "temperror" else [KEY.record]
    return zones


def fields_of(case: DmarcCase) -> list[HeaderField]:
    """Write the header, with a signature for each that the case has."""
    fields = [HeaderField(b"From", b" a@" + case.author.encode()), HeaderField(b"Subject", b" x")]
    signatures = []
    for number, (domain, word) in enumerate(case.dkim):
        template = TEMPLATE.replace(b"%D%", domain.encode()).replace(b"%N%", b"%d" % number)
        body = b"something else\r\n" if word == "fail" else BODY
        signatures.append(Forge(KEY).sign(fields, body, template))
    return signatures + fields


def send(case: DmarcCase, bench: Bench, *, asking: bool):
    how = {"client": CLIENT, "helo": b"[192.0.2.1]", "fields": fields_of(case), "body": BODY}
    sender = b"<x@%b>" % case.mail_from.encode()
    return bench.wait(sender, **how) if asking else bench.send(sender, **how)


@pytest.mark.parametrize("asking", [False, True], ids=["from the cache", "asked for"])
@pytest.mark.parametrize("case", CASES, ids=str)
def test_case(case: DmarcCase, asking: bool):
    zones = zones_of(case)
    cache = Forgetful() if asking else FakeResolver(zones)
    report = send(case, Bench(zones, cache=cache, dmarc=True, arc=True), asking=asking)
    found: dict[str, list[str]] = {}
    for each in results_in(report):
        found.setdefault(each.method, []).append(each.result)
    # That what is to be evaluated was found.
    assert found["spf"] == [case.spf]
    assert found["dkim"] == ([word for _, word in case.dkim] or ["none"])
    # And what came of it.
    assert found["dmarc"] == [case.result]
    properties = properties_of(report, "dmarc")
    assert properties["header.from"] == case.author.encode()
    assert properties.get("policy.dmarc", b"").decode() == case.policy
    assert set(properties) <= {"header.from", "policy.dmarc"}
    outcome = report.results.dmarc.outcome
    assert outcome is not None
    assert outcome.record_domain.decode() == case.record_domain


def test_the_table_is_long_enough():
    assert len(CASES) >= 120
    assert len({str(case) for case in CASES}) == len(CASES)
    assert all(re.match(r"(§[0-9]|[AB]\.[0-9])", case.section) for case in CASES)
    assert {case.result for case in CASES} == {"pass", "fail", "none", "temperror"}
