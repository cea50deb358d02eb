"""DMARC messages as data: what DNS has, what SPF and DKIM say, and what RFC 9989 makes of it.

Each case stands at the level of names and wanted states, so that it can be put to the evaluator alone or,
with SPF records and signatures made to order, to a whole milter:

- zone: the DMARC records and failures by (name, "TXT"), as FakeResolver and DnsServer take it. An empty
  list is a name that exists. It holds no SPF records and no keys; where existence matters (np=), mail_from
  and the signing domains lie elsewhere, so that their records cannot make the author domain exist.
- author: the domain in From. mail_from: the domain of MAIL FROM. spf: the word that SPF is to give for it.
- dkim: of each signature d=, and what is to become of it: pass, fail or temperror.
- result: the word. policy: what is wanted of failing mail after sp=, np= and t=; "" where there is no such
  policy or it is not known. record_domain: where the record is that applies; "" for none.
- organizational_domain: that of the author domain; "" where it is not known, or nothing needs it.

The expected values come from reading the section that is named, not from any program.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from srsd.resolving import Outcome

Zone = dict[tuple[str, str], Any]


class DmarcCase(NamedTuple):
    """One message."""

    name: str
    section: str
    """Of RFC 9989."""
    zone: Zone
    author: str
    result: str
    policy: str
    record_domain: str
    organizational_domain: str
    mail_from: str
    spf: str
    dkim: tuple[tuple[str, str], ...]

    def __str__(self) -> str:
        return f"{self.section}: {self.name}"


ELSEWHERE = "elsewhere.example"  # has no DMARC record anywhere above it
REJECT = "v=DMARC1; p=reject"
SERVFAIL = Outcome.SERVER_FAILURE
NOBODY = ()
CASES: list[DmarcCase] = []


def zone(records: dict[str, Any], exists: tuple[str, ...] = ()) -> Zone:
    """Make a zone: DMARC records by the domain that they are for, and names that exist.

    A str is one record, a list several (of which each may be a list of strings), an Outcome a failure.
    """
    made: Zone = {(name, "TXT"): [] for name in exists}
    for domain, value in records.items():
        made[f"_dmarc.{domain}", "TXT"] = [value] if isinstance(value, str) else value
    return made


def add(
    section: str,
    name: str,
    records: dict[str, Any],
    author: str,
    expected: str,
    *,
    at: str = "",
    org: str | None = None,
    spf: tuple[str, str] = ("none", ELSEWHERE),
    dkim: tuple[tuple[str, str], ...] | tuple[str, str] = NOBODY,
    exists: tuple[str, ...] = (),
) -> None:
    """Add a case. expected is "result policy"; org is the place of the record unless it is said."""
    result, _, policy = expected.partition(" ")
    if len(dkim) == 2 and isinstance(dkim[0], str):
        dkim = (dkim,)
    CASES.append(
        DmarcCase(
            name,
            section,
            zone(records, exists),
            author,
            result,
            policy,
            at,
            at if org is None else org,
            spf[1],
            spf[0],
            dkim,
        )
    )


EX, SUB = "example.com", "mail.example.com"
R = {EX: REJECT}

# What is authenticated, and is it aligned? Relaxed is the default.
add("§5.3.5", "SPF passes for the author domain", R, EX, "pass reject", at=EX, spf=("pass", EX))
add("§5.3.5", "DKIM passes for the author domain", R, EX, "pass reject", at=EX, dkim=(EX, "pass"))
add("§5.3.5", "both pass", R, EX, "pass reject", at=EX, spf=("pass", EX), dkim=(EX, "pass"))
add("§5.3.5", "nothing is authenticated", R, EX, "fail reject", at=EX)
for word in ("fail", "softfail", "permerror", "none"):
    add("§4.4.2", f"SPF of the author domain is {word}", R, EX, "fail reject", at=EX, spf=(word, EX))
add("§11.1", "SPF of the author domain is neutral", R, EX, "fail reject", at=EX, spf=("neutral", EX))
add("§4.4.1", "the signature of the author domain is broken", R, EX, "fail reject", at=EX, dkim=(EX, "fail"))
add("§4.4.2", "SPF passes for a stranger", R, EX, "fail reject", at=EX, spf=("pass", "evil.test"))
add("§4.4.1", "a stranger's signature passes", R, EX, "fail reject", at=EX, dkim=("evil.test", "pass"))
add(
    "§4.4.1", "SPF for a stranger, but a signature of the author domain",
    R, EX, "pass reject", at=EX, spf=("pass", "evil.test"), dkim=(EX, "pass"),
)  # fmt: skip
add(
    "§4.4.1", "one of several signatures is aligned",
    R, EX, "pass reject", at=EX, dkim=(("list.test", "pass"), ("esp.test", "fail"), (EX, "pass")),
)  # fmt: skip
add(
    "§4.4.1", "the aligned one of several signatures is broken",
    R, EX, "fail reject", at=EX, dkim=(("list.test", "pass"), (EX, "fail")),
)  # fmt: skip
add(
    "§5.3.5", "SPF passes, the signature is broken",
    R, EX, "pass reject", at=EX, spf=("pass", EX), dkim=(EX, "fail"),
)  # fmt: skip
add(
    "§4.4", "Table 1: siblings are in relaxed alignment",
    R, "news.example.com", "pass reject", at=EX, dkim=("foo.example.com", "pass"),
)  # fmt: skip
add(
    "§4.4", "Table 1: the identical domain below the organizational one",
    R, "news.example.com", "pass reject", at=EX, dkim=("news.example.com", "pass"),
)  # fmt: skip
add(
    "§4.4", "Table 1: no common organizational domain",
    R, "news.example.com", "fail reject", at=EX, dkim=("foo.example.net", "pass"),
)  # fmt: skip
add("B.1.1", "example 1", R, EX, "pass reject", at=EX, spf=("pass", EX))
add("B.1.1", "example 2", R, EX, "pass reject", at=EX, spf=("pass", "child.example.com"))
add("B.1.1", "example 3", R, "child.example.com", "fail reject", at=EX, spf=("pass", "example.net"))
add("B.1.2", "example 2", R, "child.example.com", "pass reject", at=EX, dkim=(EX, "pass"))
add("B.1.2", "example 3", R, "child.example.com", "fail reject", at=EX, dkim=("example.net", "pass"))
add(
    "B.3.1", "the sample data", {EX: "v=DMARC1; p=reject; aspf=r; rua=mailto:dmarc-feedback@example.com"},
    EX, "pass reject", at=EX, spf=("pass", "mail.example.com"), dkim=(EX, "pass"),
)  # fmt: skip
add("§3.2.10", "the end of a name is no label", R, EX, "fail reject", at=EX, dkim=("badexample.com", "pass"))
add("§3.2.10", "cousins", R, "a.b.example.com", "pass reject", at=EX, spf=("pass", "c.d.example.com"))
add(
    "§4.10.2", "no record, so no alignment either", R, "badexample.com", "none", org="badexample.com",
    dkim=("badexample.com", "pass"),
)  # fmt: skip
add(
    "§3.2.4", "MAIL FROM in a subdomain that does not exist, from a host that is not asked about",
    R, EX, "fail reject", at=EX, spf=("none", "nowhere.example.com"),
)  # fmt: skip

# Strict alignment.
STRICT_DKIM, STRICT_SPF = {EX: f"{REJECT}; adkim=s"}, {EX: f"{REJECT}; aspf=s"}
STRICT = {EX: f"{REJECT}; adkim=s; aspf=s"}
add("§3.2.10.2", "adkim=s: identical", STRICT_DKIM, EX, "pass reject", at=EX, dkim=(EX, "pass"))
add("§3.2.10.2", "adkim=s: d= is a subdomain", STRICT_DKIM, EX, "fail reject", at=EX, dkim=(SUB, "pass"))
add("§3.2.10.2", "adkim=s: d= is the parent", STRICT_DKIM, SUB, "fail reject", at=EX, dkim=(EX, "pass"))
add("§3.2.10.2", "aspf=s: identical", STRICT_SPF, EX, "pass reject", at=EX, spf=("pass", EX))
add("§3.2.10.2", "aspf=s: MAIL FROM is a subdomain", STRICT_SPF, EX, "fail reject", at=EX, spf=("pass", SUB))
add("§3.2.10.2", "aspf=s: MAIL FROM is the parent", STRICT_SPF, SUB, "fail reject", at=EX, spf=("pass", EX))
add("§4.7", "aspf=s leaves DKIM relaxed", STRICT_SPF, EX, "pass reject", at=EX, dkim=(SUB, "pass"))
add("§4.7", "adkim=s leaves SPF relaxed", STRICT_DKIM, EX, "pass reject", at=EX, spf=("pass", SUB))
add(
    "§4.10.2",
    "both strict, below the record: identical",
    STRICT,
    SUB,
    "pass reject",
    at=EX,
    spf=("pass", SUB),
)
add("§4.10.2", "both strict: no walk is needed", STRICT, EX, "fail reject", at=EX, org="", spf=("pass", SUB))
add(
    "§4.8",
    "the case of values does not matter",
    {EX: f"{REJECT}; adkim=S"},
    EX,
    "fail reject",
    at=EX,
    dkim=(SUB, "pass"),
)
add(
    "§4.8",
    "a faulty alignment mode is the default",
    {EX: f"{REJECT}; adkim=strict"},
    EX,
    "pass reject",
    at=EX,
    dkim=(SUB, "pass"),
)
add(
    "§4.10.1", "the author domain's own record says which alignment: strict",
    {EX: REJECT, SUB: f"{REJECT}; adkim=s"}, SUB, "fail reject", at=SUB, org=EX, dkim=(EX, "pass"),
)  # fmt: skip
add(
    "§4.10.1", "the author domain's own record says which alignment: relaxed",
    {EX: f"{REJECT}; adkim=s", SUB: REJECT}, SUB, "pass reject", at=SUB, org=EX, dkim=(EX, "pass"),
)  # fmt: skip

# Which policy.
add("§4.7", "p=none", {EX: "v=DMARC1; p=none"}, EX, "fail none", at=EX)
add("§4.7", "p=quarantine", {EX: "v=DMARC1; p=quarantine"}, EX, "fail quarantine", at=EX)
add("§4.8", "p=REJECT", {EX: "v=DMARC1; p=REJECT"}, EX, "fail reject", at=EX)
SP = {EX: "v=DMARC1; p=reject; sp=none"}
NP = {EX: "v=DMARC1; p=none; np=reject"}
ALL = {EX: "v=DMARC1; p=none; sp=quarantine; np=reject"}
add("§4.7", "sp= is for subdomains", SP, SUB, "fail none", at=EX, exists=(SUB,))
add("§4.7", "sp= is not for the domain itself", SP, EX, "fail reject", at=EX)
add("§4.7", "without sp= there is p=", R, SUB, "fail reject", at=EX, exists=(SUB,))
add("§4.7", "sp= also for what does not exist", SP, "nope.example.com", "fail none", at=EX)
add("§4.7", "np= is for subdomains that do not exist", NP, "nope.example.com", "fail reject", at=EX)
add("§3.2.13", "np= is for what is below them too", NP, "a.nope.example.com", "fail reject", at=EX)
add("A.4", "np= is not for names without records", NP, SUB, "fail none", at=EX, exists=(SUB,))
add("§3.2.13", "what has a name below it exists", NP, SUB, "fail none", at=EX, exists=(f"www.{SUB}",))
add("§3.2.13", "it exists even if that name is _dmarc", {**NP, SUB: ["other"]}, SUB, "fail none", at=EX)
add("§4.7", "np= is not for the domain itself", NP, EX, "fail none", at=EX)
add("§4.7", "all three: the domain", ALL, EX, "fail none", at=EX)
add("§4.7", "all three: a subdomain", ALL, SUB, "fail quarantine", at=EX, exists=(SUB,))
add("§4.7", "all three: none such", ALL, "nope.example.com", "fail reject", at=EX)
add(
    "§4.7",
    "np= before sp=, though it asks for less",
    {EX: "v=DMARC1; p=reject; sp=reject; np=none"},
    "nope.example.com",
    "fail none",
    at=EX,
)
add(
    "§4.10.1",
    "the own record's p=, not sp= above",
    {**SP, SUB: "v=DMARC1; p=quarantine"},
    SUB,
    "fail quarantine",
    at=SUB,
    org=EX,
)
add(
    "§4.10.1",
    "p= of the own record, not its sp=",
    {SUB: "v=DMARC1; p=none; sp=reject"},
    SUB,
    "fail none",
    at=SUB,
)
add(
    "§4.10.1", "a record between the author domain and its organizational domain is passed over",
    {EX: REJECT, SUB: "v=DMARC1; p=none; sp=none"}, f"a.{SUB}", "fail reject", at=EX,
)  # fmt: skip
T = "t=y"
add("§4.7", "t=y: reject becomes quarantine", {EX: f"{REJECT}; {T}"}, EX, "fail quarantine", at=EX)
add("§4.7", "t=y: quarantine becomes none", {EX: f"v=DMARC1; p=quarantine; {T}"}, EX, "fail none", at=EX)
add("§4.7", "t=y: none stays", {EX: f"v=DMARC1; p=none; {T}"}, EX, "fail none", at=EX)
add(
    "§4.7",
    "t=y goes for sp= too",
    {EX: f"{REJECT}; sp=quarantine; {T}"},
    SUB,
    "fail none",
    at=EX,
    exists=(SUB,),
)
add(
    "§4.7",
    "t=y goes for np= too",
    {EX: f"v=DMARC1; p=none; np=reject; {T}"},
    "nope.example.com",
    "fail quarantine",
    at=EX,
)
add("§4.7", "t=n", {EX: f"{REJECT}; t=n"}, EX, "fail reject", at=EX)
add("§4.8", "t=Y", {EX: f"{REJECT}; t=Y"}, EX, "fail quarantine", at=EX)
add("§4.8", "a faulty t= is the default", {EX: f"{REJECT}; t=yes"}, EX, "fail reject", at=EX)
add("§4.7", "t=y takes no pass away", {EX: f"{REJECT}; {T}"}, EX, "pass quarantine", at=EX, spf=("pass", EX))
add("B.2.5", "the subdomain under test", {
    EX: REJECT,
    "test.example.com": "v=DMARC1; p=quarantine; rua=mailto:dmarc-feedback@example.com,mailto:tld-test@thirdparty.example.net; t=y",
}, "test.example.com", "fail none", at="test.example.com", org=EX)  # fmt: skip

# The record's grammar. What is no record leaves the author domain as the organizational one.
for name, text in (
    ("v= is not the first tag", "p=reject; v=DMARC1"),
    ("v= is missing", "p=reject"),
    ("v=dmarc1", "v=dmarc1; p=reject"),
    ("v=DMARC2", "v=DMARC2; p=reject"),
    ("v=DMARC10", "v=DMARC10; p=reject"),
    ("no semicolon after the version", "v=DMARC1 p=reject"),
    ("a comma after the version", "v=DMARC1, p=reject"),
    ("a blank before the version", " v=DMARC1; p=reject"),
    ("quotes around it", '"v=DMARC1; p=reject"'),
    ("an SPF record", "v=spf1 -all"),
):
    section = "§4.7" if "v=" in name else "§4.8"
    add(section, f"no record: {name}", {EX: text}, EX, "none", org=EX, spf=("pass", EX))
for name, text in (
    ("no blanks", "v=DMARC1;p=reject"),
    ("blanks wherever they may be", "v = DMARC1 ;  p\t=  reject "),
    ("a semicolon at the end", "v=DMARC1; p=reject;"),
    ("empty places between semicolons", "v=DMARC1;; p=reject; ;"),
    ("an unknown tag", "v=DMARC1; future=yes; p=reject"),
    ("an unknown tag that begins like another", "v=DMARC1; pp=none; p=reject; px=none"),
    ("something that is no tag", "v=DMARC1; garbage; p=reject"),
    ("pct=0 is history", "v=DMARC1; p=reject; pct=0"),
    ("rf= and ri= are history", "v=DMARC1; p=reject; rf=iodef; ri=never"),
    ("p= is not the second tag", "v=DMARC1; adkim=r; rua=mailto:a@example.com; p=reject"),
    ("a faulty psd=", "v=DMARC1; p=reject; psd=maybe"),
    ("a faulty fo= and ruf=", "v=DMARC1; p=reject; fo=7; ruf=nobody"),
):
    section = "§4.7" if "known" in name or "p= is" in name or "history" in name else "§4.8"
    add(section, f"a record: {name}", {EX: text}, EX, "fail reject", at=EX)
add("§4.5", "strings are joined", {EX: [["v=DMARC1; p=rej", "ect"]]}, EX, "fail reject", at=EX)
add(
    "§4.5",
    "strings are joined, also within the version",
    {EX: [["v=DMA", "RC1", "; p=reject"]]},
    EX,
    "fail reject",
    at=EX,
)
add(
    "§4.10",
    "other TXT records do not matter",
    {EX: ["v=spf1 -all", REJECT, "v=DMARC2; p=none"]},
    EX,
    "fail reject",
    at=EX,
)
add("§4.10", "two records are none", {EX: [REJECT, "v=DMARC1; p=none"]}, EX, "none", org=EX, spf=("pass", EX))
add(
    "§4.10", "two records are none, and the walk goes on",
    {EX: REJECT, SUB: ["v=DMARC1; p=none", "v=DMARC1; p=quarantine"]}, SUB, "fail reject", at=EX,
)  # fmt: skip
add(
    "§4.10", "two records with psd=n do not end the walk",
    {EX: REJECT, SUB: ["v=DMARC1; p=none; psd=n", "v=DMARC1; p=quarantine; psd=n"]},
    SUB, "pass reject", at=EX, dkim=(EX, "pass"),
)  # fmt: skip
RUA = "rua=mailto:reports@example.com"
add("§4.10.1", "p= is faulty, rua= is there", {EX: f"v=DMARC1; p=rejct; {RUA}"}, EX, "fail none", at=EX)
add("§4.10.1", "p= is missing, rua= is there", {EX: f"v=DMARC1; {RUA}"}, EX, "fail none", at=EX)
add(
    "§4.10.1",
    "p= is missing, rua= is there, SPF passes",
    {EX: f"v=DMARC1; {RUA}"},
    EX,
    "pass none",
    at=EX,
    spf=("pass", EX),
)
add(
    "§4.10.1",
    "sp= is faulty, rua= is there",
    {EX: f"v=DMARC1; p=reject; sp=all; {RUA}"},
    EX,
    "fail none",
    at=EX,
)
add(
    "§4.10.1",
    "np= is faulty, rua= is there",
    {EX: f"v=DMARC1; p=reject; sp=reject; np=; {RUA}"},
    SUB,
    "fail none",
    at=EX,
)
add(
    "§4.10.1",
    "one of rua= is an address",
    {EX: "v=DMARC1; p=x; rua=nobody, mailto:a@example.com"},
    EX,
    "fail none",
    at=EX,
)
add(
    "§4.8",
    "rua= with the size of old",
    {EX: "v=DMARC1; p=x; rua=mailto:a@example.com!10m"},
    EX,
    "fail none",
    at=EX,
)
add(
    "§4.10.1",
    "other tags stay where p= is faulty",
    {EX: f"v=DMARC1; p=x; adkim=s; {RUA}"},
    EX,
    "fail none",
    at=EX,
    dkim=(SUB, "pass"),
)
for name, text in (
    ("nothing but the version", "v=DMARC1"),
    ("nothing but the version and a semicolon", "v=DMARC1;"),
    ("p= is faulty", "v=DMARC1; p=rejct"),
    ("p= is empty", "v=DMARC1; p="),
    ("more than a policy in p=", "v=DMARC1; p=reject none"),
    ("sp= is faulty", "v=DMARC1; p=reject; sp=all"),
    ("np= is faulty", "v=DMARC1; p=reject; np=all"),
    ("p= is faulty, rua= is no URI", "v=DMARC1; p=x; rua=reports@example.com"),
    ("p= is faulty, rua= names nobody", "v=DMARC1; p=x; rua=mailto:"),
    ("p= is missing, ruf= does not help", "v=DMARC1; ruf=mailto:reports@example.com"),
):
    add("§4.10.1", f"DMARC does not apply: {name}", {EX: text}, EX, "none", at=EX, org="", spf=("pass", EX))
add(
    "§4.10.1", "DMARC does not apply: a void record is in the way of the one above",
    {EX: REJECT, SUB: "v=DMARC1"}, SUB, "none", at=SUB, org="",
)  # fmt: skip
add(
    "§4.10.1",
    "DMARC does not apply: the void record is above",
    {EX: "v=DMARC1"},
    SUB,
    "none",
    at=EX,
    spf=("pass", SUB),
)

# The tree walk and the organizational domain.
add("§4.10.1", "no record anywhere", {}, EX, "none", org=EX, spf=("pass", EX))
add(
    "§4.10.1",
    "only other TXT records, as a wildcard gives",
    {SUB: ["x=1"], EX: ["x=1"], "com": ["x=1"]},
    SUB,
    "none",
    org=SUB,
)
add(
    "§4.10.2", "the shortest name with a record",
    {SUB: "v=DMARC1; p=none", EX: REJECT}, f"a.{SUB}", "pass reject", at=EX, dkim=(EX, "pass"),
)  # fmt: skip
PSD_N = {SUB: "v=DMARC1; p=quarantine; psd=n", EX: REJECT}
add("§4.10.2", "psd=n ends the walk", PSD_N, f"a.{SUB}", "fail quarantine", at=SUB, dkim=(EX, "pass"))
add(
    "§4.10.2",
    "psd=n: aligned below it",
    PSD_N,
    f"a.{SUB}",
    "pass quarantine",
    at=SUB,
    dkim=(f"b.{SUB}", "pass"),
)
add("§4.10.2", "psd=n at the author domain", PSD_N, SUB, "fail quarantine", at=SUB, dkim=(EX, "pass"))
add(
    "§4.10.2",
    "psd=N",
    {SUB: "v=DMARC1; p=quarantine; psd=N", EX: REJECT},
    SUB,
    "fail quarantine",
    at=SUB,
    dkim=(EX, "pass"),
)
add(
    "§4.7",
    "psd=u is the default",
    {SUB: "v=DMARC1; p=quarantine; psd=u", EX: REJECT},
    SUB,
    "pass quarantine",
    at=SUB,
    org=EX,
    dkim=(EX, "pass"),
)
add("§4.10.2", "psd=n in the way of the identifier", PSD_N, EX, "fail reject", at=EX, dkim=(SUB, "pass"))
add(
    "§4.10.2",
    "a plain record in the way of the identifier",
    {EX: REJECT, SUB: REJECT},
    EX,
    "pass reject",
    at=EX,
    dkim=(SUB, "pass"),
)
add(
    "§4.10.2", "psd=y in the way of the identifier",
    {EX: REJECT, "cdn.example.com": "v=DMARC1; p=none; psd=y"},
    EX, "fail reject", at=EX, dkim=("customer.cdn.example.com", "pass"),
)  # fmt: skip
add(
    "§4.10.2", "the identifier has psd=y itself",
    {EX: REJECT, "cdn.example.com": "v=DMARC1; p=none; psd=y"},
    EX, "fail reject", at=EX, dkim=("cdn.example.com", "pass"),
)  # fmt: skip
PSD = {"example": "v=DMARC1; p=reject; sp=quarantine; np=none; psd=y"}
add(
    "§4.10.2",
    "psd=y: the organizational domain is one label below",
    PSD,
    "a.mail.bank.example",
    "fail quarantine",
    at="example",
    org="bank.example",
    exists=("a.mail.bank.example",),
)
add(
    "§4.10.1",
    "the record of the PSD: np=",
    PSD,
    "nope.example",
    "fail none",
    at="example",
    org="nope.example",
)
add(
    "§4.10.1",
    "the record of the PSD: aligned",
    PSD,
    "a.bank.example",
    "pass quarantine",
    at="example",
    org="bank.example",
    spf=("pass", "b.bank.example"),
    exists=("a.bank.example",),
)
add(
    "§4.10.1",
    "the organizational domain's record before that of the PSD",
    {**PSD, "bank.example": "v=DMARC1; p=none"},
    "a.bank.example",
    "fail none",
    at="bank.example",
)
add(
    "§4.10.1",
    "a record below the organizational domain does not keep that of the PSD off",
    {**PSD, "b.bank.example": "v=DMARC1; p=none"},
    "a.b.bank.example",
    "fail quarantine",
    at="example",
    org="bank.example",
    exists=("a.b.bank.example",),
)
add(
    "§4.10.2",
    "siblings below a PSD are strangers",
    PSD,
    "bank.example",
    "fail quarantine",
    at="example",
    org="bank.example",
    dkim=("evil.example", "pass"),
    exists=("bank.example",),
)
PUBLIC = {"co.test": "v=DMARC1; p=quarantine; sp=none; psd=y", "test": "v=DMARC1; p=none"}
add("§4.10.2", "the PSD is the author domain", PUBLIC, "co.test", "fail quarantine", at="co.test")
add(
    "§4.10.2",
    "the PSD is the author domain: aligned with itself",
    PUBLIC,
    "co.test",
    "pass quarantine",
    at="co.test",
    dkim=("co.test", "pass"),
)
add(
    "§4.10.2",
    "the PSD is the author domain: not aligned with those below",
    PUBLIC,
    "co.test",
    "fail quarantine",
    at="co.test",
    dkim=("bank.co.test", "pass"),
)
add(
    "§4.10.2",
    "a PSD cannot sign for those below",
    PUBLIC,
    "bank.co.test",
    "fail none",
    at="co.test",
    org="bank.co.test",
    dkim=("co.test", "pass"),
)
add(
    "§4.10.2",
    "psd=n below psd=y",
    {**PUBLIC, "bank.co.test": f"{REJECT}; psd=n"},
    "a.bank.co.test",
    "pass reject",
    at="bank.co.test",
    spf=("pass", "b.bank.co.test"),
)
add("B.4.1", "SPF", {EX: REJECT, "signing.example.com": REJECT}, EX, "pass reject", at=EX, spf=("pass", EX))
add(
    "B.4.1",
    "DKIM",
    {EX: REJECT, "signing.example.com": REJECT},
    EX,
    "pass reject",
    at=EX,
    dkim=("signing.example.com", "pass"),
)
DEEP = "a.b.c.d.e.f.g.h.i.j.k.example.com"
add("B.4.2", "SPF", {EX: REJECT, "signing.example.com": REJECT}, DEEP, "pass reject", at=EX, spf=("pass", EX))
add(
    "B.4.2",
    "DKIM",
    {EX: REJECT, "signing.example.com": REJECT},
    DEEP,
    "pass reject",
    at=EX,
    dkim=("signing.example.com", "pass"),
)
BANK = {"bank.example": "v=DMARC1; p=none; psd=y", "giant.bank.example": REJECT}
GIANT = "giant.bank.example"
add("B.4.3", "SPF is aligned", BANK, GIANT, "pass reject", at=GIANT, spf=("pass", "mail.giant.bank.example"))
add("B.4.3", "DKIM is not", BANK, GIANT, "fail reject", at=GIANT, dkim=("mail.mega.bank.example", "pass"))
add(
    "§11.8",
    "evil.example.com with SPF of mail.example.com",
    PSD_N,
    "evil.example.com",
    "fail reject",
    at=EX,
    spf=("pass", SUB),
)
TLD = {"com": "v=DMARC1; p=none", EX: REJECT}
add(
    "§11.8",
    "a TLD that forgot psd=y: everybody is aligned",
    TLD,
    EX,
    "pass reject",
    at=EX,
    org="com",
    spf=("pass", "evil.com"),
)
add(
    "§11.8",
    "psd=n keeps them off",
    {**TLD, EX: f"{REJECT}; psd=n"},
    EX,
    "fail reject",
    at=EX,
    spf=("pass", "evil.com"),
)
add(
    "§11.8",
    "psd=y at the TLD does too",
    {**TLD, "com": "v=DMARC1; p=none; psd=y"},
    EX,
    "fail reject",
    at=EX,
    spf=("pass", "evil.com"),
)
add(
    "§4.10.1",
    "the record of such a TLD is that of an organizational domain",
    {"com": REJECT},
    EX,
    "fail reject",
    at="com",
)
add(
    "§4.10",
    "the walk ends at the top-level domain",
    {"example": REJECT},
    "a.b.c.example",
    "fail reject",
    at="example",
)
add(
    "§4.10.1",
    "an author domain of a single label",
    {"internal": REJECT},
    "internal",
    "fail reject",
    at="internal",
)
add("§4.10.1", "an author domain of a single label, without a record", {}, "internal", "none", org="internal")
SEVEN = "b.c.d.e.f.example.com"
add(
    "§4.10",
    "7 labels: the next name is asked",
    {"c.d.e.f.example.com": REJECT},
    SEVEN,
    "fail reject",
    at="c.d.e.f.example.com",
)
add("§4.10", "8 labels: the next name is asked", {SEVEN: REJECT}, f"a.{SEVEN}", "fail reject", at=SEVEN)
add(
    "§4.10",
    "9 labels: the next name is left out",
    {f"a.{SEVEN}": REJECT},
    f"x.a.{SEVEN}",
    "none",
    org=f"x.a.{SEVEN}",
)
add(
    "§4.10",
    "9 labels: the first name of 7 is asked",
    {SEVEN: REJECT},
    f"x.a.{SEVEN}",
    "fail reject",
    at=SEVEN,
)
add(
    "§4.10",
    "8 labels: psd=y one label above",
    {SEVEN: "v=DMARC1; p=reject; psd=y"},
    f"a.{SEVEN}",
    "fail reject",
    at=SEVEN,
    org=f"a.{SEVEN}",
)
add(
    "§4.10",
    "9 labels: psd=y two labels above",
    {SEVEN: "v=DMARC1; p=reject; psd=y"},
    f"x.a.{SEVEN}",
    "fail reject",
    at=SEVEN,
    org=f"a.{SEVEN}",
)
MANY = "a.b.c.d.e.f.g.h.i.j.mail.example.com"
add("§4.10", "the example: first name", {MANY: REJECT}, MANY, "fail reject", at=MANY)
add(
    "§4.10",
    "the example: second name",
    {"g.h.i.j.mail.example.com": REJECT},
    MANY,
    "fail reject",
    at="g.h.i.j.mail.example.com",
)
add("§4.10", "the example: not asked", {"f.g.h.i.j.mail.example.com": REJECT}, MANY, "none", org=MANY)
add("§4.10", "the example: last name", {"com": REJECT}, MANY, "fail reject", at="com")
ZONE_CUT = {EX: REJECT, "b.c.d.e.f.g.example.com": "v=DMARC1; p=none; psd=n"}
add("§5.1.8", "the zone cut is never seen", ZONE_CUT, "mail.a.b.c.d.e.f.g.example.com", "fail reject", at=EX)
add(
    "§5.1.8",
    "a record of its own is",
    {**ZONE_CUT, "mail.a.b.c.d.e.f.g.example.com": "v=DMARC1; p=quarantine"},
    "mail.a.b.c.d.e.f.g.example.com",
    "fail quarantine",
    at="mail.a.b.c.d.e.f.g.example.com",
    org=EX,
)
add(
    "§4.10", "so long that it has no _dmarc name", R, "a." * 118 + EX, "pass reject", at=EX, dkim=(EX, "pass")
)

# What DNS does not answer.
add(
    "§4.10.1", "the author domain's record is not answered", {EX: SERVFAIL}, EX, "temperror", spf=("pass", EX)
)
add("§4.10.1", "refused is not answered", {EX: Outcome.REFUSED}, EX, "temperror")
add(
    "§4.10.1",
    "the organizational domain's record is not answered",
    {EX: SERVFAIL},
    SUB,
    "temperror",
    spf=("pass", SUB),
)
add("§4.10.1", "the record above may be another one", {EX: REJECT, "com": SERVFAIL}, SUB, "temperror")
add(
    "§4.10.2",
    "psd=n makes what is above needless",
    {EX: f"{REJECT}; psd=n", "com": SERVFAIL},
    SUB,
    "fail reject",
    at=EX,
)
add(
    "§4.10.1",
    "psd=y too",
    {"bank.test": f"{REJECT}; psd=y", "test": SERVFAIL},
    "a.bank.test",
    "fail reject",
    at="bank.test",
    org="a.bank.test",
)
OWN = {EX: REJECT, "com": SERVFAIL}
add(
    "§5.3.6",
    "own record, identical domain: the rest does not matter",
    OWN,
    EX,
    "pass reject",
    at=EX,
    org="",
    spf=("pass", EX),
)
add(
    "§5.3.6",
    "own record, nothing passed: the rest does not matter",
    OWN,
    EX,
    "fail reject",
    at=EX,
    org="",
    spf=("fail", SUB),
)
add(
    "§5.3.6",
    "own record, a subdomain: they share whatever the TLD says",
    OWN,
    EX,
    "pass reject",
    at=EX,
    org="",
    dkim=(SUB, "pass"),
)
add(
    "§5.3.6",
    "own record, another TLD: nothing shared",
    OWN,
    EX,
    "fail reject",
    at=EX,
    org="",
    spf=("pass", "evil.test"),
)
add(
    "§5.3.6",
    "own record, the same TLD: it may be an organizational domain",
    OWN,
    EX,
    "temperror reject",
    at=EX,
    org="",
    spf=("pass", "evil.com"),
)
HALF = {SUB: REJECT, EX: SERVFAIL}
add(
    "§5.3.6",
    "own record, siblings below what was not answered",
    HALF,
    SUB,
    "temperror reject",
    at=SUB,
    org="",
    spf=("pass", "other.example.com"),
)
add(
    "§5.3.6",
    "own record, the parent was not answered",
    HALF,
    SUB,
    "temperror reject",
    at=SUB,
    org="",
    dkim=(EX, "pass"),
)
add(
    "§5.3.6",
    "own record, the parent was not answered, and there is an identical domain",
    HALF,
    SUB,
    "pass reject",
    at=SUB,
    org="",
    spf=("pass", "other.example.com"),
    dkim=(SUB, "pass"),
)
add(
    "§5.3.6",
    "own record, strict: the parent does not matter",
    {**HALF, SUB: f"{REJECT}; adkim=s"},
    SUB,
    "fail reject",
    at=SUB,
    org="",
    dkim=(EX, "pass"),
)
BOUNCE = {EX: REJECT, "bounce.example.com": SERVFAIL}
add(
    "§5.3.6",
    "the identifier's record was not answered",
    BOUNCE,
    EX,
    "temperror reject",
    at=EX,
    spf=("pass", "bounce.example.com"),
)
add(
    "§5.3.6",
    "another identifier passes",
    BOUNCE,
    EX,
    "pass reject",
    at=EX,
    spf=("pass", "bounce.example.com"),
    dkim=(EX, "pass"),
)
add(
    "§5.3.6",
    "neither SPF nor the identifier's record was answered",
    BOUNCE,
    EX,
    "temperror reject",
    at=EX,
    spf=("temperror", "bounce.example.com"),
)
add(
    "§5.3.6",
    "strict: nobody needs it",
    {**BOUNCE, EX: f"{REJECT}; aspf=s"},
    EX,
    "fail reject",
    at=EX,
    spf=("pass", "bounce.example.com"),
)
add(
    "§5.3.6",
    "the identifier did not pass anyway",
    BOUNCE,
    EX,
    "fail reject",
    at=EX,
    spf=("softfail", "bounce.example.com"),
)
add(
    "§5.3.6",
    "a stranger's domain is not asked about",
    {EX: REJECT, "evil.test": SERVFAIL, "test": SERVFAIL},
    EX,
    "fail reject",
    at=EX,
    dkim=("evil.test", "pass"),
)
add("§5.3.6", "SPF was not answered", R, EX, "temperror reject", at=EX, spf=("temperror", EX))
add("§5.3.6", "SPF of a subdomain was not answered", R, EX, "temperror reject", at=EX, spf=("temperror", SUB))
add(
    "§5.3.6",
    "SPF of a subdomain was not answered, strict",
    STRICT_SPF,
    EX,
    "fail reject",
    at=EX,
    spf=("temperror", SUB),
)
add(
    "§5.3.6",
    "SPF of a stranger was not answered",
    R,
    EX,
    "fail reject",
    at=EX,
    spf=("temperror", "evil.test"),
)
add(
    "§5.3.6",
    "SPF was not answered, DKIM passes",
    R,
    EX,
    "pass reject",
    at=EX,
    spf=("temperror", EX),
    dkim=(EX, "pass"),
)
add(
    "§5.3.6",
    "SPF was not answered, a stranger's signature passes",
    R,
    EX,
    "temperror reject",
    at=EX,
    spf=("temperror", EX),
    dkim=("evil.test", "pass"),
)
add("§5.3.6", "the key was not answered", R, EX, "temperror reject", at=EX, dkim=(EX, "temperror"))
add(
    "§5.3.6",
    "a stranger's key was not answered",
    R,
    EX,
    "fail reject",
    at=EX,
    dkim=("evil.test", "temperror"),
)
add(
    "§5.3.6",
    "the key was not answered, SPF passes",
    R,
    EX,
    "pass reject",
    at=EX,
    spf=("pass", EX),
    dkim=(EX, "temperror"),
)
add(
    "§5.3.6",
    "the key of another organization below was not answered",
    PSD_N,
    EX,
    "fail reject",
    at=EX,
    dkim=(SUB, "temperror"),
)
add(
    "§5.3.6",
    "the policy is none, which the result does not know",
    {EX: "v=DMARC1; p=none"},
    EX,
    "temperror none",
    at=EX,
    spf=("temperror", EX),
)
add("§5.3.2", "no record, so SPF does not matter", {}, EX, "none", org=EX, spf=("temperror", EX))
add(
    "§4.10.1",
    "a void record, so SPF does not matter",
    {EX: "v=DMARC1"},
    EX,
    "none",
    at=EX,
    org="",
    spf=("temperror", EX),
)
UNKNOWN = {EX: "v=DMARC1; p=none; np=reject"}


def add_existence_unknown(name: str, record: str, expected: str, spf: tuple[str, str]) -> None:
    """Add a case in which the question whether the author domain exists fails."""
    made = zone({EX: record})
    made[SUB, "TXT"] = SERVFAIL
    result, _, policy = expected.partition(" ")
    CASES.append(DmarcCase(name, "§5.3.6", made, SUB, result, policy, EX, EX, spf[1], spf[0], ()))


NEITHER = ("none", ELSEWHERE)
add_existence_unknown(
    "whether np= applies was not answered", "v=DMARC1; p=none; np=reject", "temperror", NEITHER
)
add_existence_unknown("np= is like p=", "v=DMARC1; p=reject; np=reject", "fail reject", NEITHER)
add_existence_unknown("np= is like sp=", "v=DMARC1; p=none; sp=reject; np=reject", "fail reject", NEITHER)
add_existence_unknown(
    "np= is like p= after t=y", "v=DMARC1; p=quarantine; np=none; t=y", "fail none", NEITHER
)
add_existence_unknown("who passes need not exist", "v=DMARC1; p=none; np=reject", "pass", ("pass", EX))
