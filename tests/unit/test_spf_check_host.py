"""check_host() beyond the RFC 7208 suite: identities, limits, outcomes of DNS, and what is said of them."""

from __future__ import annotations

import asyncio
import sys
import time
from ipaddress import IPv6Address, ip_address

import pytest

from harness.fake_resolver import FakeResolver
from srsd.resolving import Outcome
from srsd.spf.check_host import SpfOutcome, SpfResult, check_helo, check_host, check_mail_from
from srsd.spf.outcome import EXPLANATION_MAXIMUM, REASON_MAXIMUM
from srsd.syntax.address import Address

FACTS = {"receiver": b"mx.example.net", "now": 1_700_000_000}
ALICE = Address(b"alice", b"example.org")
HELO = b"mail.example.org"


def mail_from(zones, client="192.0.2.1", sender=ALICE, helo=HELO, **more) -> SpfOutcome:
    resolver = zones if isinstance(zones, FakeResolver) else FakeResolver(zones)
    return asyncio.run(check_mail_from(resolver, ip_address(client), sender, helo, **FACTS | more))


def helo(zones, helo=HELO, client="192.0.2.1", **more) -> SpfOutcome:
    return asyncio.run(check_helo(FakeResolver(zones), ip_address(client), helo, **FACTS | more))


def record(text, **more):
    """Make the zone of a sender with this record, and what else is given as NAME_TYPE=values."""
    zones = {("example.org", "TXT"): [text]}
    for key, values in more.items():
        name, _, kind = key.rpartition("_")
        zones[name.replace("_", ".") + ".example.org" if name else "example.org", kind] = values
    return zones


def word(outcome: SpfOutcome) -> str:
    return outcome.result.value


# Identities ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("said", "checked"),
    [
        (b"mail.example.org", b"mail.example.org"),
        (b"Mail.EXAMPLE.org.", b"mail.example.org"),
        ("bücher.example".encode(), b"xn--bcher-kva.example"),
        (b"_x.example.org", b"_x.example.org"),
        (b"xn--bcher-kva.example", b"xn--bcher-kva.example"),
    ],
)
def test_helo_identities(said, checked):
    outcome = helo({(checked.decode(), "TXT"): ["v=spf1 -all"]}, said)
    assert (word(outcome), outcome.checked_domain) == ("fail", checked)


@pytest.mark.parametrize(
    "said",
    [
        b"", b".", b"localhost", b"localhost.", b"[192.0.2.1]", b"[IPv6:2001:db8::1]", b"192.0.2.1", b"2001:db8::1",
        b"a..example.org", b".example.org", b"example.org..", b"a b.example.org", b"(x)mail.example.org", b"x'.example.org",
        b'x";spf=pass.example.org', b"mail.example.org\0", b"mail\r\n.example.org", b"\xff.example.org", b"x" * 64 + b".org",
        b"a." * 130 + b"org", b"*.example.org", b"u@example.org", b"mail.example.123", "ü_.example".encode(), b"a" * 70_000,
    ],
)  # fmt: skip
def test_what_is_no_identity_is_not_asked_for(said):
    """RFC 7208 §2.3, §2.6.1: no syntactically valid domain name gives none."""
    resolver = FakeResolver({})
    for outcome in (
        asyncio.run(check_helo(resolver, ip_address("192.0.2.1"), said, **FACTS)),
        mail_from(resolver, sender=None, helo=said),
        mail_from(resolver, sender=Address(b"alice", said)),
    ):
        assert word(outcome) == "none"
        assert "not a domain name" in outcome.reason
        assert outcome.checked_domain == b""
    assert resolver.asked == []


def test_the_null_sender_is_postmaster_at_helo():
    """RFC 7208 §2.4."""
    zones = {
        ("mail.example.org", "TXT"): ["v=spf1 exists:%{l}.at.%{o} -all"],
        ("postmaster.at.mail.example.org", "A"): ["127.0.0.2"],
    }
    for outcome in (mail_from(zones, sender=None), helo(zones), mail_from(zones, sender=Address(b"", HELO))):
        assert word(outcome) == "pass"
        assert outcome.checked_domain == b"mail.example.org"


@pytest.mark.parametrize("local_part", [b"a@b", b'"', b"a@legit.example", b" ", b"\xc3\xa9"])
def test_an_odd_local_part_does_not_change_the_domain(local_part):
    assert word(mail_from(record("v=spf1 -all"), sender=Address(local_part, b"example.org"))) == "fail"


@pytest.mark.parametrize(
    ("client", "result"),
    [
        ("192.0.2.1", "pass"),
        ("::ffff:192.0.2.1", "pass"),
        ("::ffff:192.0.2.2", "neutral"),
        ("2001:db8::1", "softfail"),
        ("2001:db8::1%eth0", "softfail"),
        ("fe80::1%eth0", "fail"),
    ],
)
def test_clients(client, result):
    text = (
        "v=spf1 ip4:192.0.2.1 ?ip4:0.0.0.0/0 -ip6:::ffff:192.0.2.1 ~ip6:2001:db8::1 -ip6:fe80::/10 ip6:::/0"
    )
    assert word(mail_from(record(text), client)) == result


def test_a_scope_does_not_reach_dns():
    resolver = FakeResolver(record("v=spf1 exists:%{i}.example.org exp=x.example.org -all"))
    mail_from(resolver, "fe80::1%eth0")
    assert not [name for name, _ in resolver.asked if "%" in name]


def test_check_host_alone_wants_a_domain_of_several_labels():
    for domain in (b"", b"org", b"a..org", b"x" * 64 + b".org", b"x." * 127 + b"org"):
        made = check_host(FakeResolver({}), ip_address("192.0.2.1"), domain, ALICE, HELO, **FACTS)
        assert asyncio.run(made).result is SpfResult.NONE


# What is said --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("zones", "result", "reason", "domain", "mechanism"),
    [
        (record("v=spf1 ip4:192.0.2.0/24 -all"), "pass", "matched ip4:192.0.2.0/24", b"example.org", b"ip4:192.0.2.0/24"),
        (record("v=spf1 -all"), "fail", "matched -all", b"example.org", b"-all"),
        (record("v=spf1 ~all"), "softfail", "matched ~all", b"example.org", b"~all"),
        (record("v=spf1"), "neutral", "no mechanism matched", b"example.org", b""),
        (
            record("v=spf1 redirect=_spf.example.org", _spf_TXT=["x"]) | {("_spf.example.org", "TXT"): ["v=spf1 ?all"]},
            "neutral", "matched ?all in _spf.example.org", b"_spf.example.org", b"?all",
        ),
        (
            record("v=spf1 -include:a.example.org ~all", a_TXT=["v=spf1 include:b.example.org -all"], b_TXT=["v=spf1 +all"]),
            "fail", "matched -include:a.example.org > include:b.example.org > +all", b"example.org", b"-include:a.example.org",
        ),
        ({}, "none", "example.org: no such domain", b"example.org", b""),
        ({("a.example.org", "A"): ["192.0.2.1"]}, "none", "example.org: no such record", b"example.org", b""),
        (record("v=spf2 -all"), "none", "example.org: no SPF record", b"example.org", b""),
        (
            {("example.org", "TXT"): ["v=spf1", "v=spf1"]},
            "permerror", "example.org: 2 SPF records", b"example.org", b"",
        ),
        (record("v=spf1 moo"), "permerror", 'example.org: "moo": not a mechanism', b"example.org", b""),
        (
            record("v=spf1 include:a.example.org"),
            "permerror", "example.org: include:a.example.org: no such domain", b"example.org", b"",
        ),
        (
            record("v=spf1 include:a.example.org", a_TXT=["v=spf1 moo"]),
            "permerror", 'a.example.org: "moo": not a mechanism', b"a.example.org", b"",
        ),
        (
            record("v=spf1 redirect=a.example.org", a_A=["192.0.2.1"]),
            "permerror", "example.org: redirect=a.example.org: no such record", b"example.org", b"",
        ),
        (
            record("v=spf1 include:%{l}..a.b -all"),
            "permerror", "example.org: include:%{l}..a.b: not a domain name", b"example.org", b"",
        ),
        (record("v=spf1 a a a a a a a a a a a -all", A=["192.0.2.9"]), "permerror", "example.org: more than 10 DNS lookups", b"example.org", b""),
        (record("v=spf1 a a a -all"), "permerror", "example.org: more than 2 void DNS lookups", b"example.org", b""),
        (
            record("v=spf1 mx -all", MX=[(n, f"m{n}.example.org") for n in range(11)]),
            "permerror", "example.org: example.org has more than 10 MX records", b"example.org", b"",
        ),
        (record("v=spf1 a:x.example.org", x_A=Outcome.SERVER_FAILURE), "temperror", "x.example.org: server failure", b"x.example.org", b""),
    ],
)  # fmt: skip
def test_reasons(zones, result, reason, domain, mechanism):
    outcome = mail_from(zones)
    assert outcome[:5] == (SpfResult(result), reason, b"example.org", domain, mechanism)


def test_a_reason_has_its_bounds_and_no_odd_octets():
    labels = ".".join(["x" * 60] * 3)
    zones = {("example.org", "TXT"): [f"v=spf1 include:{labels}.0.org"]}
    for number in range(9):
        zones[f"{labels}.{number}.org", "TXT"] = [f"v=spf1 include:{labels}.{number + 1}.org"]
    zones[f"{labels}.9.org", "TXT"] = ["v=spf1 +all"]
    outcome = mail_from(zones)
    assert word(outcome) == "pass"
    assert outcome.reason.startswith("matched include:xxxx")
    assert len(outcome.reason) <= REASON_MAXIMUM


@pytest.mark.parametrize("local_part", [b"a\r\nX: y", b"\x1b[2J", b"\x00\x7f", b'"\\'])
def test_what_macros_bring_into_names_is_spelt_in_reasons(local_part):
    class Failing(FakeResolver):
        def _answer(self, name, kind):
            answer = super()._answer(name, kind)
            return answer if kind == "TXT" else answer._replace(outcome=Outcome.TIMED_OUT)

    outcome = mail_from(
        Failing(record("v=spf1 a:%{l}.example.org -all")), sender=Address(local_part, b"example.org")
    )
    assert word(outcome) == "temperror"
    assert outcome.reason.isascii()
    assert outcome.reason.isprintable()
    assert outcome.reason.endswith(".example.org: timed out")


# Outcomes of DNS -----------------------------------------------------------------------------------

TEMPORARY = [outcome for outcome in Outcome if outcome.temporary]
QUERIES = [
    ("v=spf1 -all", ("example.org", "TXT")),
    ("v=spf1 include:x.example.org -all", ("x.example.org", "TXT")),
    ("v=spf1 redirect=x.example.org", ("x.example.org", "TXT")),
    ("v=spf1 a -all", ("example.org", "A")),
    ("v=spf1 mx -all", ("example.org", "MX")),
    ("v=spf1 mx -all", ("m.example.org", "A")),
    ("v=spf1 exists:x.example.org -all", ("x.example.org", "A")),
]


@pytest.mark.parametrize("outcome", TEMPORARY)
@pytest.mark.parametrize(("text", "query"), QUERIES)
def test_a_failure_of_dns_is_temperror(outcome, text, query):
    """RFC 7208 §4.4, §5; and §4.6.4 for what the resolver says of time and number."""
    zones = {
        ("example.org", "TXT"): [text],
        ("example.org", "A"): ["192.0.2.9"],
        ("example.org", "MX"): [(0, "m.example.org")],
        query: outcome,
    }
    found = mail_from(zones)
    assert (word(found), found.domain) == ("temperror", query[0].encode())
    assert found.reason == f"{query[0]}: {outcome.value}"


@pytest.mark.parametrize("outcome", TEMPORARY)
@pytest.mark.parametrize("query", [("1.2.0.192.in-addr.arpa", "PTR"), ("p.example.org", "A")])
def test_but_not_for_ptr(outcome, query):
    """RFC 7208 §5.5, and §7.3 for %{p}."""
    zones = {
        ("example.org", "TXT"): ["v=spf1 ptr exists:%{p}.example.org -all"],
        ("unknown.example.org", "A"): ["127.0.0.2"],
        ("1.2.0.192.in-addr.arpa", "PTR"): ["p.example.org"],
        ("p.example.org", "A"): ["192.0.2.1"],
    }
    assert mail_from(zones).mechanism == b"ptr"
    assert mail_from(zones | {query: outcome}).mechanism == b"exists:%{p}.example.org"


def test_an_answer_after_the_match_is_not_asked_for():
    resolver = FakeResolver(
        record("v=spf1 ip4:192.0.2.1 a mx include:x.example.org exists:%{p}.x ptr -all exp=e.x")
    )
    assert word(mail_from(resolver)) == "pass"
    assert resolver.asked == [("example.org", "TXT")]


# Limits --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("terms", "result"),
    [
        ("a " * 10 + "-all", "fail"),
        ("a " * 10 + "redirect=x.example.org", "permerror"),
        ("a " * 9 + "redirect=x.example.org", "softfail"),
        ("a " * 9 + "include:x.example.org -all", "fail"),
        ("a " * 9 + "exists:%{p}.x.example.org -all", "permerror"),  # §4.6.4: %{p} counts
        ("a " * 8 + "exists:%{p}.x.example.org exists:x.example.org -all", "permerror"),
        ("a " * 8 + "exists:%{p}.x.example.org -all", "fail"),
        ("a " * 7 + "exists:%{p}.x.example.org a:%{p}.y.example.org -all", "fail"),  # it is asked for once
        ("ip4:192.0.2.9 " * 100 + "-all", "fail"),
    ],
)
def test_terms_that_ask_dns_are_limited(terms, result):
    outcome = mail_from(record("v=spf1 " + terms, A=["192.0.2.9"], x_TXT=["v=spf1 ~all"]))
    assert word(outcome) == result
    if result == "permerror":
        assert outcome.reason.endswith("more than 10 DNS lookups")


def test_terms_are_counted_through_includes_and_redirects_together():
    zones = record("v=spf1 a a a include:x.example.org a a a -all", A=["192.0.2.9"], x_A=["192.0.2.9"])
    assert word(mail_from(zones | {("x.example.org", "TXT"): ["v=spf1 a a a ~all"]})) == "fail"
    assert word(mail_from(zones | {("x.example.org", "TXT"): ["v=spf1 a a a a ~all"]})) == "permerror"


@pytest.mark.parametrize(
    ("terms", "result"),
    [
        ("a a -all", "fail"),
        ("a a a -all", "permerror"),
        ("a a exists:x.example.org -all", "permerror"),
        ("a mx exists:x.example.org -all", "permerror"),
        ("a a ptr -all", "permerror"),
        ("mx:m.example.org a -all", "fail"),  # one term, though three of its names have no address
        ("mx:m.example.org a a -all", "permerror"),
        ("mx:null.example.org a a -all", "fail"),  # RFC 7505: an answer it is
        ("a a a:y..example.org a:" + "z" * 64 + ".example.org -all", "fail"),  # was not asked: §4.8
        ("a a ip4:192.0.2.9 -all exp=x.example.org", "fail"),  # not counted: §4.6.4
        ("a a a:far.example.org -all", "fail"),
    ],
)
def test_void_lookups_are_limited(terms, result):
    zones = record(
        "v=spf1 " + terms,
        m_MX=[(0, "v1.example.org"), (1, "v2.example.org"), (2, "v3.example.org")],
        null_MX=[(0, "")],
        far_A=["203.0.113.1"],
    )
    outcome = mail_from(zones)
    assert word(outcome) == result
    if result == "permerror":
        assert outcome.reason.endswith("more than 2 void DNS lookups")


def test_the_match_does_not_depend_on_the_order_of_mx_records():
    names = [(0, "v1.example.org"), (1, "good.example.org"), (2, "v2.example.org")]
    for order in (names, names[::-1], names[1:] + names[:1]):
        zones = record("v=spf1 a:v3.example.org a:v4.example.org mx -all", MX=order, good_A=["192.0.2.1"])
        assert word(mail_from(zones)) == "pass"


def test_names_of_mx_records_are_asked_for_once_and_the_null_mx_never():
    names = [(0, "m.example.org"), (1, "n.example.org"), (2, "m.example.org"), (3, "")]
    resolver = FakeResolver(record("v=spf1 mx -all", MX=names, m_A=["192.0.2.9"], n_A=["192.0.2.9"]))
    assert word(mail_from(resolver)) == "fail"
    assert [name for name, kind in resolver.asked if kind == "A"] == ["m.example.org", "n.example.org"]


@pytest.mark.parametrize("term", ["redirect=%{d1}", "include:%{d1}", "redirect=.org", "include:.org"])
def test_a_target_of_one_label_is_malformed(term):
    """RFC 7208 §4.3, §5.2 and §6.1."""
    resolver = FakeResolver(record("v=spf1 " + term) | {("org", "TXT"): ["v=spf1 +all"]})
    assert word(mail_from(resolver)) == "permerror"
    assert resolver.asked == [("example.org", "TXT")]


def test_only_ten_names_of_the_client_count():
    """RFC 7208 §4.6.4: all others are ignored, and that is no error."""
    names = [f"p{number}.other.example" for number in range(10)]
    zones = record("v=spf1 ptr ~all", p_A=["192.0.2.1"])
    arpa = ("1.2.0.192.in-addr.arpa", "PTR")
    assert word(mail_from(zones | {arpa: [*names[:9], "p.example.org"]})) == "pass"
    assert word(mail_from(zones | {arpa: [*names, "p.example.org"]})) == "softfail"


def test_loops_end():
    for text in (
        "v=spf1 include:example.org -all",
        "v=spf1 redirect=example.org",
        "v=spf1 ?include:%{d} -all",
    ):
        resolver = FakeResolver(record(text))
        assert word(mail_from(resolver)) == "permerror"
        assert len(resolver.asked) == 11


def test_octets_of_records_are_limited():
    zones = record("v=spf1 " + " ".join(f"include:s{n}.example.org" for n in range(5)) + " -all")
    for number in range(5):
        zones[f"s{number}.example.org", "TXT"] = ["v=spf1 ?all moo=" + "x" * 19_950]
    assert word(mail_from(zones)) == "fail"
    zones["s4.example.org", "TXT"] = ["v=spf1 ?all moo=" + "x" * 20_500]
    assert mail_from(zones).reason == "s4.example.org: more than 100000 octets of SPF records"


# ptr and %{p} --------------------------------------------------------------------------------------

ARPA = ("1.2.0.192.in-addr.arpa", "PTR")


@pytest.mark.parametrize(
    ("names", "spec", "result"),
    [
        (["example.org"], "", "pass"),
        (["mail.EXAMPLE.org."], "", "pass"),
        (["mail.example.org"], ":Example.ORG.", "pass"),
        (["mail.bad-example.org"], "", "fail"),  # §5.5
        (["org.example"], "", "fail"),
        (["example.org"], ":mail.example.org", "fail"),
        (["mail.example.org"], ":org.", "permerror"),
        (["forged.example.org"], "", "fail"),  # its address is another
        (["void.example.org", "mail.example.org"], "", "pass"),
        ([], "", "fail"),
    ],
)
def test_ptr(names, spec, result):
    zones = record(
        f"v=spf1 ptr{spec} -all", A=["192.0.2.1"], mail_A=["192.0.2.7", "192.0.2.1"], forged_A=["192.0.2.2"]
    )
    zones |= {("mail.bad-example.org", "A"): ["192.0.2.1"], ("org.example", "A"): ["192.0.2.1"], ARPA: names}
    assert word(mail_from(zones)) == result


def test_ptr_asks_only_for_names_that_may_match():
    resolver = FakeResolver(record("v=spf1 ptr -all") | {ARPA: ["a.example", "b.example", "c.example.org"]})
    mail_from(resolver)
    assert [name for name, kind in resolver.asked if kind == "A"] == ["c.example.org"]


@pytest.mark.parametrize(
    ("names", "chosen"),
    [
        (["other.example", "mail.example.org", "example.org"], "example.org"),
        (["other.example", "mail.example.org"], "mail.example.org"),
        (["other.example"], "other.example"),
        (["forged.example.org", "other.example"], "other.example"),
        (["forged.example.org"], "unknown"),
        ([], "unknown"),
    ],
)
def test_the_validated_name(names, chosen):
    """RFC 7208 §7.3: <domain> itself, else one below it, else any, else unknown."""
    zones = record("v=spf1 exists:%{p}.is.example.org -all", A=["192.0.2.1"], mail_A=["192.0.2.1"])
    zones |= {
        ("other.example", "A"): ["192.0.2.1"],
        (chosen + ".is.example.org", "A"): ["127.0.0.2"],
        ARPA: names,
    }
    assert word(mail_from(zones)) == "pass"


# Macros and non-ASCII ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "result"),
    [
        ("v=spf1 exists:%{l}.example.org -all", "fail"),
        ("v=spf1 a:%{S}.example.org -all", "fail"),
        ("v=spf1 include:%{l1r-}.example.org -all", "fail"),
        ("v=spf1 redirect=%{l}.example.org", "permerror"),
        ("v=spf1 exists:%{o}.example.org -all", "pass"),
        ("v=spf1 -all exp=%{l}.example.org", "fail"),
    ],
)
def test_a_local_part_beyond_ascii_matches_nothing(text, result):
    """RFC 8616 §4."""
    resolver = FakeResolver(record(text, example_org_A=["127.0.0.2"]))
    assert word(mail_from(resolver, sender=Address("x-é".encode(), b"example.org"))) == result
    assert all(name.isascii() for name, _ in resolver.asked)


def test_u_labels_become_a_labels_in_macros():
    """RFC 8616 §4."""
    zones = {("xn--bcher-kva.example", "TXT"): ["v=spf1 exists:%{h}.%{o}.%{d} -all"]}
    name = "xn--mnchen-3ya.example.xn--bcher-kva.example.xn--bcher-kva.example"
    zones[name, "A"] = ["127.0.0.2"]
    sender = Address(b"a", "bücher.example".encode())
    assert word(mail_from(zones, sender=sender, helo="münchen.example".encode())) == "pass"
    resolver = FakeResolver(zones)
    assert word(mail_from(resolver, sender=sender, helo=b"\xff.example")) == "fail"
    assert [name for name, _ in resolver.asked] == ["xn--bcher-kva.example"]


# Explanations --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("texts", "sender", "explanation"),
    [
        (["Not %{s}."], ALICE, b"Not alice@example.org."),
        (
            ["%{s}"],
            Address(b"a\r\nX-Evil: \x1b[1m\0\xc3\xa9", b"example.org"),
            b"a??X-Evil: ?[1m???@example.org",
        ),
        (["a\r\nb"], ALICE, b""),
        (["%{l}" * 200], Address(b"x" * 1000, b"example.org"), b"x" * EXPLANATION_MAXIMUM),
        (["x" * 2000], ALICE, b"x" * EXPLANATION_MAXIMUM),
        ([["in two ", "strings"]], ALICE, b"in two strings"),
        ([""], ALICE, b""),
        (["one", "two"], ALICE, b""),
        (Outcome.TIMED_OUT, ALICE, b""),
        (Outcome.BUDGET_SPENT, ALICE, b""),
        ([], ALICE, b""),
    ],
)
def test_explanations(texts, sender, explanation):
    outcome = mail_from(record("v=spf1 a -all exp=e.example.org", e_TXT=texts), sender=sender)
    assert (word(outcome), outcome.explanation) == ("fail", explanation)


def test_an_explanation_may_use_the_validated_name_after_ten_terms():
    zones = record("v=spf1 " + "a " * 10 + "-all exp=%{p}.e.example.org", A=["192.0.2.9"])
    zones[("unknown.e.example.org", "TXT")] = ["%{p}"]
    assert mail_from(zones).explanation == b"unknown"


@pytest.mark.parametrize(
    ("text", "more"),
    [
        ("v=spf1 ~all exp=e.example.org", {}),
        ("v=spf1 ?all exp=e.example.org", {}),
        ("v=spf1 exp=e.example.org", {}),
        ("v=spf1 -all", {}),
        ("v=spf1 exp=e.example.org redirect=r.example.org", {"r_TXT": ["v=spf1 -all"]}),
        ("v=spf1 -include:r.example.org -all", {"r_TXT": ["v=spf1 +all exp=e.example.org"]}),
    ],
)
def test_where_no_explanation_is_asked_for(text, more):
    resolver = FakeResolver(record(text, e_TXT=["no"], **more))
    assert mail_from(resolver).explanation == b""
    assert ("e.example.org", "TXT") not in resolver.asked


def test_a_caller_that_wants_no_explanation_costs_no_query():
    resolver = FakeResolver(record("v=spf1 -all exp=e.example.org", e_TXT=["because"]))
    assert mail_from(resolver).explanation == b"because"
    assert mail_from(resolver, explain=False).explanation == b""
    assert [name for name, _ in resolver.asked].count("e.example.org") == 1


# Work ----------------------------------------------------------------------------------------------

ALLOWED = 0.1 * (5 if "coverage" in sys.modules else 1)  # seconds: several times what it takes
BIG = 65_000  # octets: about what a TXT record can hold


def many(make) -> str:
    """Join terms to a record of the greatest size."""
    terms, size, number = ["v=spf1"], 6, 0
    while size < BIG:
        terms.append(make(number))
        size += len(terms[-1]) + 1
        number += 1
    return " ".join(terms)


HOSTILE = {
    "ip4": many(lambda number: f"ip4:1.{number >> 8 & 255}.{number & 255}.0/24"),
    "ip6": many(lambda number: f"ip6:::{number:x}"),
    "the shortest terms": many(lambda _: "a"),
    "a": many(lambda number: f"a:{number:x}.b/24"),
    "include": many(lambda number: f"include:{number:x}.b"),
    "unknown modifiers": many(lambda number: f"b{number:x}=%{{d}}"),
    "the last term is faulty": many(lambda number: f"a:{number:x}.b") + " moo",
    "one macro many times": "v=spf1 " + " ".join(["exists:" + "%{l1r+-}." * 200 + "%{d}"] * 30),
    "macros in one name": "v=spf1 exists:" + "%{l}" * 16_000,
    "macros that give nothing": "v=spf1 exists:" + "%{l1}" * 13_000,
    "different macros": "v=spf1 exists:" + "".join(f"%{{l{n % 900 + 1}r{'.-+,/_='[n % 7 :]}}}" for n in range(4500)),
    "escapes": "v=spf1 exists:" + "%%" * 32_000,
    "no top label": "v=spf1 a:" + "a" * 64_000,
    "hyphens": "v=spf1 a:a" + "-" * 64_000,
    "dots": "v=spf1 a:" + "a." * 32_000 + "-",
    "slashes": "v=spf1 a:" + "/1" * 32_000,
    "an open macro": "v=spf1 a:" + "%{d" * 21_000,
    "zeros": "v=spf1 a:%{d" + "0" * 64_000 + "}",
    "digits": "v=spf1 a:%{d" + "9" * 64_000 + "}",
    "delimiters": "v=spf1 a:%{d" + ".-" * 32_000 + "}",
    "colons": "v=spf1 ip6:" + "1:" * 32_000,
    "spaces": "v=spf1" + " " * 64_000 + "x",
}  # fmt: skip
LOCAL_PARTS = {"long": b"a." * 500, "empty parts": b"." * 1000, "ordinary": b"alice"}


@pytest.mark.parametrize("local_part", LOCAL_PARTS.values(), ids=LOCAL_PARTS)
@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE)
def test_hostile_records_cost_little(text, local_part):
    """The best of some tries. It takes 20 ms at most, a third of that for most."""
    resolver = FakeResolver(record(text))
    sender = Address(local_part, b"example.org")
    took = []
    for _ in range(5):
        begin = time.thread_time()
        mail_from(resolver, sender=sender, helo=b"x" * 1000)
        took.append(time.thread_time() - begin)
        if took[-1] < ALLOWED:
            break
    assert min(took) < ALLOWED


def test_big_answers_cost_little():
    addresses = [f"10.{number >> 8}.{number & 255}.1" for number in range(4000)]
    resolver = FakeResolver(
        record(
            "v=spf1 " + "mx " * 10 + "-all", MX=[(n, "big.example.org") for n in range(10)], big_A=addresses
        )
    )
    answer = asyncio.run(resolver.ipv4(b"big.example.org"))  # made once: it is the evaluator that is timed

    async def ipv4(name):
        return answer

    resolver.ipv4 = ipv4
    took = []
    for _ in range(5):
        begin = time.thread_time()
        assert word(mail_from(resolver)) == "fail"
        took.append(time.thread_time() - begin)
    assert min(took) < ALLOWED


def test_the_client_may_be_any_address_object():
    assert word(mail_from(record("v=spf1 ip6:::/0 -all"), "::")) == "pass"
    made = check_mail_from(
        FakeResolver(record("v=spf1 ip4:192.0.2.1 -all")),
        IPv6Address("::ffff:c000:201"),
        ALICE,
        HELO,
        **FACTS,
    )
    assert word(asyncio.run(made)) == "pass"
