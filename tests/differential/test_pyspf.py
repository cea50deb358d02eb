"""5,000 random records, zones and senders, evaluated as pyspf does it.

pyspf is the reference implementation, but not the law: where ours differs, DIFFERENCES has the class of
cases, the section of RFC 7208 that proves ours, how the class is told from a fault of ours, and a case of its
own that shows the difference alone.
"""

from __future__ import annotations

import asyncio
import re
import warnings
from dataclasses import dataclass, replace
from ipaddress import IPv6Address, ip_address
from itertools import count
from random import Random
from typing import TYPE_CHECKING, Any

import pytest

from harness.fake_resolver import FakeResolver
from srsd.resolving import Outcome
from srsd.spf import evaluation
from srsd.spf.check_host import SpfOutcome, check_mail_from
from srsd.syntax.address import Address

if TYPE_CHECKING:
    from collections.abc import Callable

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # those of its source, when it is compiled
    spf = pytest.importorskip("spf", reason="pyspf is not installed: nothing was compared with it")

NUMBER = 5000
SEED = 20261123
NOW = 1_700_000_000
RECEIVER = "mx.example.net"
DEFAULT_EXPLANATION = "SPF fail - not authorized"

Zones = dict[tuple[str, str], Any]


@dataclass(frozen=True)
class Case:
    """What one check is asked."""

    zones: Zones
    client: str
    local_part: str
    domain: str
    helo: str
    limited: bool = True
    """Whether void lookups are limited."""


@dataclass(frozen=True)
class Answer:
    """What one of the two says."""

    result: str
    why: str
    explanation: str
    asked: frozenset[tuple[str, str]]


# Random cases --------------------------------------------------------------------------------------

DOMAINS = [f"d{number}.example" for number in range(5)]
HOSTS = [f"h{number}.d0.example" for number in range(4)]
CLIENTS = ["192.0.2.1", "192.0.2.77", "198.51.100.5", "2001:db8::1", "2001:db8:0:1::77", "::ffff:192.0.2.1"]
LOCAL_PARTS = ["alice", "strong-bad", "a.b+c", "Up-a_b3~x", "", "x" * 70, "a=b/c", "J%26d"]
HELOS = ["h0.d0.example", "d1.example", "HELO.Example", "[192.0.2.1]", "localhost", "JUMPIN' JUPITER"]
MACROS = [
    "%{s}", "%{l}", "%{o}", "%{d}", "%{i}", "%{ir}", "%{v}", "%{h}", "%{p}", "%{d2}", "%{d1r}", "%{l-}", "%{lr-}",
    "%{l1r-}", "%{l2r+-}", "%{L}", "%{S}", "%{o1}", "%{d9}", "%{ir}.%{v}", "%{l1r+-_=/,.}", "%%", "%_", "%-",
]  # fmt: skip
ODD_MACROS = ["%{d0}", "%{dR}", "%{h-}", "%{x}", "%{c}", "%{ds}", "%{d", "%(d)", "%", "%{D-}", "%{p1}", "%{}"]


def some_name(random: Random) -> str:
    return random.choice([*DOMAINS, *HOSTS, "none.example", "void.d1.example", "fails.example"])


def some_spec(random: Random) -> str:
    chance = random.random()
    if chance < 0.7:
        return some_name(random) + ("." if random.random() < 0.05 else "")
    if chance < 0.97:
        pieces = random.choices([*MACROS, "x", "_spf", "a-b"], k=random.randint(1, 3))
        return ".".join(pieces) + random.choice([".d0.example", ".d1.example", ".%{d}", "", ".%{o}"])
    if chance < 0.985:
        return random.choice(ODD_MACROS) + random.choice([".d0.example", "", "x"])
    return random.choice(
        ["", "example", "a..d0.example", "a:b/c.d0.example", "x" * 64 + ".example", "a.123", "a.-b", "1.1-1",
         ".".join(["%{d}"] * 30) + ".d0.example", "%{h}.%{h}", "a.b\t", "\x7f.example"]
    )  # fmt: skip


def some_cidr(random: Random) -> str:
    chance = random.random()
    if chance < 0.7:
        return ""
    four, six = random.choice(["", "/24", "/0", "/32"]), random.choice(["", "//64", "//0", "//128"])
    return four + six if chance < 0.97 else random.choice(["/33", "//129", "/024", "/24/64", "/", "//"])


def some_network(random: Random) -> str:
    chance = random.random()
    if chance < 0.65:
        return "ip4:" + random.choice(
            ["192.0.2.0/24", "192.0.2.1", "198.51.100.0/25", "203.0.113.9", "0.0.0.0/0"]
        )
    if chance < 0.98:
        return "ip6:" + random.choice(
            ["2001:db8::/32", "2001:DB8::1", "2001:db8:0:1::/64", "fe80::/10", "::ffff:192.0.2.1", "::/0"]
        )
    return random.choice(
        ["ip4", "ip4:192.0.2", "ip4:192.0.2.1/33", "ip4:192.0.02.1", "ip4:192.0.2.1//24", "ip6:1::2::3",
         "ip6:2001:db8::/129", "ip6", "ip6:::1/032", "ip4:256.1.1.1", "ip6:192.0.2.1", "ip6:1:2:3:4:5:6:7:8:9"]
    )  # fmt: skip


def some_directive(random: Random) -> str:
    qualifier = random.choice(["", "", "", "+", "-", "~", "?"])
    name = random.choice(["a", "a", "mx", "mx", "include", "include", "exists", "ptr", "net", "net", "net"])
    if name == "net":
        return qualifier + some_network(random)
    argument = ":" + some_spec(random)
    if name in ("a", "mx"):
        argument = random.choice(["", argument]) + some_cidr(random)
    elif name == "ptr":
        argument = random.choice(["", ":" + random.choice([*DOMAINS, "example"]), argument])
    if random.random() < 0.05:
        name = name.upper()
    return qualifier + name + argument


def some_modifier(random: Random) -> str:
    return random.choice(
        [
            "redirect=" + some_spec(random),
            "exp=" + random.choice(["e0.example", "e0.example", some_spec(random)]),
        ]
        * 12
        + [
            "moo=%{d}",
            "moo=",
            "moo=%{c}",
            "x.y-z_1=a:b/c",
            "1x=",
            "Redirect=d1.example",
            "EXP=e0.example",
            "moo=\t",
        ]
    )


def some_record(random: Random) -> str:
    terms = [some_directive(random) for _ in range(random.randint(0, 5))]
    for _ in range(random.choice([0, 0, 0, 1, 1, 2])):
        terms.insert(random.randint(0, len(terms)), some_modifier(random))
    if random.random() < 0.7:
        terms.insert(
            random.randint(0, len(terms)) if random.random() < 0.2 else len(terms),
            random.choice(["-all", "~all", "?all", "+all", "-all", "-all", "ALL"]),
        )
    if random.random() < 0.03:
        terms.insert(
            random.randint(0, len(terms)),
            random.choice(["moo", "all.", "-all:x", "=a", "a,", "prt", "--all"]),
        )
    version = (
        "v=spf1" if random.random() < 0.95 else random.choice(["V=SPF1", "v=spf10", "v=spf2", "v=spf1\t"])
    )
    return random.choice([" ", " ", " ", "  "]).join([version, *terms]) + random.choice(["", "", " "])


def some_records(random: Random) -> Zones:
    zones: Zones = {}
    for domain in DOMAINS:
        records = [some_record(random)]
        chance = random.random()
        if chance < 0.03:
            records.append(some_record(random))
        elif chance < 0.06:
            records = []
        if random.random() < 0.3:
            records.insert(0, "some other text")
        zones[domain, "TXT"] = records
    for kind in ("TXT", "A", "AAAA", "MX"):
        zones["fails.example", kind] = Outcome.TIMED_OUT
    zones["e0.example", "TXT"] = [
        random.choice(["%{c} is not for %{d}: %{L}%_%{t} %{r}", "two  words", "%{p}", "%{x}"])
    ]
    zones["e1.example", "TXT"] = ["one", "two"]
    for name in ("alice.d0.example", "strong.bad.d1.example", "1.2.0.192.in-addr.d0.example"):
        zones[name, "A"] = ["127.0.0.2"]
    return zones


def some_hosts(random: Random) -> Zones:
    zones: Zones = {}
    for name in [*DOMAINS, *HOSTS]:
        if random.random() < 0.6:
            zones[name, "A"] = random.choices(
                ["192.0.2.1", "192.0.2.80", "203.0.113.7"], k=random.randint(1, 2)
            )
        if random.random() < 0.4:
            zones[name, "AAAA"] = random.choices(["2001:db8::1", "2001:db8:0:1::9"], k=random.randint(1, 2))
        if random.random() < 0.5:
            many = 11 if random.random() < 0.05 else random.randint(1, 3)
            zones[name, "MX"] = [
                (order, random.choice([*HOSTS, "none.example", ""])) for order in range(many)
            ]
    return zones


def some_case(random: Random) -> Case:
    zones = some_records(random) | some_hosts(random)
    client = random.choice(CLIENTS)
    pointer = effective(client).reverse_pointer
    if random.random() < 0.1:
        zones[pointer, "PTR"] = Outcome.SERVER_FAILURE
    elif random.random() < 0.8:
        zones[pointer, "PTR"] = random.choices(
            [*HOSTS, *DOMAINS, "none.example", "fails.example"],
            k=12 if random.random() < 0.05 else random.randint(1, 3),
        )
    return Case(zones, client, random.choice(LOCAL_PARTS), random.choice(DOMAINS[:3]), random.choice(HELOS))


def effective(client: str) -> Any:
    address = ip_address(client)
    return (address.ipv4_mapped or address) if isinstance(address, IPv6Address) else address


# The two -------------------------------------------------------------------------------------------


def ours(case: Case) -> Answer:
    resolver = FakeResolver(case.zones)
    evaluation.VOIDS_MAXIMUM = 2 if case.limited else 1000
    try:
        outcome: SpfOutcome = asyncio.run(
            check_mail_from(
                resolver,
                ip_address(case.client),
                Address(case.local_part.encode(), case.domain.encode()),
                case.helo.encode(),
                receiver=RECEIVER.encode(),
                now=NOW,
            )
        )
    finally:
        evaluation.VOIDS_MAXIMUM = 2
    asked = frozenset(each for each in resolver.asked if askable(each[0]))
    return Answer(outcome.result.value, outcome.reason, outcome.explanation.decode(), asked)


def askable(name: str) -> bool:
    """Tell whether a name can be asked at all; pyspf does not get as far with others."""
    return len(name) <= 253 and all(0 < len(label) < 64 for label in name.split("."))


def theirs(case: Case, sender: str | None = None) -> Answer:
    asked = set()
    zones = FakeResolver(case.zones)

    def look_up(name: str, kind: str, strict: object = True, timeout: object = 0) -> list[Any]:
        asked.add((name.rstrip(".").lower(), kind))
        value = zones._zones.get((name.rstrip(".").lower(), kind), [])
        if isinstance(value, Outcome):
            raise spf.TempError(f"DNS {value.value}")
        return [((name, kind), (each.encode(),) if kind == "TXT" else each) for each in value]

    was, spf.DNSLookup = spf.DNSLookup, look_up
    spf.MAX_VOID_LOOKUPS = 2 if case.limited else 1000
    try:
        query = spf.query(
            case.client,
            f"{case.local_part}@{case.domain}" if sender is None else sender,
            case.helo,
            receiver=RECEIVER,
        )
        query.t = str(NOW)
        result, _, text = query.check()
    finally:
        spf.DNSLookup = was
    explanation = text if result == "fail" and text != DEFAULT_EXPLANATION else ""
    return Answer(result, text, explanation, frozenset(asked))


# Where they differ ---------------------------------------------------------------------------------


def edit(case: Case, change: Callable[[str, str], str]) -> Case:
    """Change the records of a case; the change gets the domain and the text."""
    zones = dict(case.zones)
    for (name, kind), values in case.zones.items():
        if kind == "TXT" and isinstance(values, list):
            zones[name, kind] = [
                change(name, text) if text.lower().startswith("v=spf1") else text for text in values
            ]
    return replace(case, zones=zones)


def sub(pattern: str, replacement: Any) -> Callable[[Case], Case]:
    return lambda case: edit(case, lambda _, text: re.sub(pattern, replacement, text))


def without_pointer_trouble(case: Case) -> Case:
    zones = {}
    for (name, kind), values in case.zones.items():
        if kind != "PTR":
            zones[name, kind] = values
        elif isinstance(values, list):
            zones[name, kind] = [each for each in values if each != "fails.example"]
    return replace(case, zones=zones, limited=False)


def including_itself_in_capitals(case: Case) -> Case:
    def change(name: str, text: str) -> str:
        own = [re.escape(name), r"%\{d[29]?\}"] + ([r"%\{o[29]?\}"] if name == case.domain else [])
        return re.sub(rf"(?i:include):(?:{'|'.join(own)})\.?(?= |$)", f"include:{name.upper()}", text)

    return edit(case, change)


def numbered_modifiers(case: Case) -> Case:
    numbers = count()
    return edit(
        case, lambda _, text: re.sub(r" (moo|x\.y-z_1)=", lambda found: f" {found[1]}{next(numbers)}=", text)
    )


# Each has the section that proves ours, and what takes the cause out of a case: then both must agree.
DIFFERENCES: dict[str, tuple[str, Callable[[Case], Case]]] = {
    "void lookups are counted once for a term, not for each query": (
        'RFC 7208 §4.6.4: "limit the number of terms for which DNS queries return" nothing',
        lambda case: replace(case, limited=False),
    ),
    "names of modifiers ignore case": (
        'RFC 7208 §4.6.1: "mechanism and modifier names are case-insensitive"',
        sub(r"(?i: (redirect|exp)=)", lambda found: found[0].lower()),
    ),
    "an unknown modifier may stand twice": (
        'RFC 7208 §6: "MUST be ignored no matter where, or how often"',
        numbered_modifiers,
    ),
    "the value of an unknown modifier is a macro-string": (
        "RFC 7208 §12: unknown-modifier = name = macro-string, visible characters",
        sub("=\t", "="),
    ),
    "a failure of DNS leaves ptr without a match and %{p} unknown": (
        'RFC 7208 §5.5: "If a DNS error occurs while doing the PTR RR lookup, then this mechanism fails to match"',
        without_pointer_trouble,
    ),
    "an include of the domain itself is an error when it is evaluated": (
        'RFC 7208 §4.6: "syntax errors anywhere in the record", and this is none',
        including_itself_in_capitals,
    ),
    "%{p} prefers a name of the <domain> in whose record it stands": (
        'RFC 7208 §7.3: "If the <domain> is present in the list of validated domains, it SHOULD be used"',
        sub(r"%\{p1?\}", "%{v}"),
    ),
    "transformers follow the grammar": (
        'RFC 7208 §12: transformers = *DIGIT [ "r" ], and §7.3: "the value MUST be nonzero"',
        sub(r"%\{d(s|0)\}", "%{x}"),
    ),
    "the r transformer ignores case": ("RFC 7208 §12, as all literals of ABNF", sub(r"%\{dR\}", "%{dr}")),
    "parts are joined with dots": (
        'RFC 7208 §7.3: "rejoined using . and not the original splitting characters"',
        sub(r"%\{[hD]-\}", "%{d}"),
    ),
    "a macro that is not closed is an error": ("RFC 7208 §12: macro-expand", sub(r"%\{d(?=[ .x]|$)", "%{x}")),
    "DEL is no visible character": ("RFC 7208 §12: macro-literal ends with %x7E", sub("\x7f", "x")),
    "a name that is too long loses as many labels as it must": (
        'RFC 7208 §7.3: "until the total length does not exceed 253 characters"',
        lambda case: sub(r"(%\{d\}\.){9,}", "%{d}.")(replace(case, local_part=case.local_part[:70])),
    ),
    "an explanation is not cut as names are": (
        'RFC 7208 §7.3: "when the result of macro expansion is used in a domain name query"',
        sub(r" exp=(?!e[01]\.)[^ ]*", ""),
    ),
    "postmaster stands in %{s} too": (
        'RFC 7208 §4.3: "If the <sender> has no local-part, substitute the string postmaster"',
        lambda case: replace(case, local_part=case.local_part or "postmaster"),
    ),
    "%% may stand at the end": ("RFC 7208 §12: domain-end may be macro-expand, which %% is", sub("%%", "%-")),
}


def agree(case: Case) -> bool:
    our, their = ours(case), theirs(case)
    if (our.result, our.explanation) != (their.result, their.explanation):
        return False
    # What macros gave shows in the names.
    return our.result.endswith("error") or {each for each in our.asked if each[1] != "PTR"} <= their.asked


def causes(case: Case) -> list[str] | None:
    """Give what the difference comes from: one class, or several where it takes them together. None: unknown."""
    for name, (_, mend) in DIFFERENCES.items():
        if agree(mend(case)):
            return [name]
    together = [name for name, (_, mend) in DIFFERENCES.items() if mend(case) != case]
    if not agree(mended(case, together)):
        return None
    for name in list(together):  # what is not needed for it
        others = [other for other in together if other != name]
        if agree(mended(case, others)):
            together = others
    return together


def mended(case: Case, names: list[str]) -> Case:
    for name in names:
        case = DIFFERENCES[name][1](case)
    return case


def test_random_cases(record_property):
    differences: dict[str, int] = {}
    results: dict[str, int] = {}
    for number in range(NUMBER):
        case = some_case(Random(SEED + number))
        result = ours(case).result
        results[result] = results.get(result, 0) + 1
        if agree(case):
            continue
        found = causes(case)
        assert found is not None, (
            f"seed {SEED} + {number}: {case}\nours   {ours(case)}\npyspf  {theirs(case)}"
        )
        for name in found:
            differences[name] = differences.get(name, 0) + 1
    record_property("results", results)
    record_property("differences", differences)
    assert min(results.values()) > NUMBER / 50, results  # of each result enough
    assert len(results) == 7
    assert sum(differences.values()) < NUMBER / 10, differences


# One case for each difference, where nothing else differs ------------------------------------------


def zone(*records: str, **more: Any) -> Zones:
    texts = {(f"d{number}.example", "TXT"): [record] for number, record in enumerate(records)}
    return texts | {("h0.d0.example", "A"): ["203.0.113.9"]} | more.get("zones", {})


def case_of(*records: str, **more: Any) -> Case:
    zones = zone(*records, **more)
    return Case(zones, "192.0.2.1", more.get("local_part", "alice"), "d0.example", "helo.example")


PTR = ("1.2.0.192.in-addr.arpa", "PTR")
PROOFS: dict[str, tuple[Case, str, str]] = {  # what is asked, our answer, pyspf's
    "void lookups are counted once for a term, not for each query": (
        case_of("v=spf1 mx -all", zones={("d0.example", "MX"): [(1, f"none{n}.example") for n in range(3)]}),
        "fail",
        "permerror",
    ),
    "names of modifiers ignore case": (
        case_of("v=spf1 Redirect=d1.example", "v=spf1 -all"),
        "fail",
        "neutral",
    ),
    "an unknown modifier may stand twice": (case_of("v=spf1 moo=a moo=b -all"), "fail", "permerror"),
    "the value of an unknown modifier is a macro-string": (
        case_of("v=spf1 moo=\t -all"),
        "permerror",
        "fail",
    ),
    "a failure of DNS leaves ptr without a match and %{p} unknown": (
        case_of("v=spf1 ptr -all", zones={PTR: Outcome.SERVER_FAILURE}),
        "fail",
        "temperror",
    ),
    "an include of the domain itself is an error when it is evaluated": (
        case_of("v=spf1 ip4:192.0.2.1 include:d0.example -all"),
        "pass",
        "permerror",
    ),
    "%{p} prefers a name of the <domain> in whose record it stands": (
        case_of(
            "v=spf1 a:%{p}.d2.example include:d1.example -all",
            "v=spf1 exists:%{p}.d3.example",
            zones={
                PTR: ["h0.d0.example", "h0.d1.example"],
                ("h0.d0.example", "A"): ["192.0.2.1"],
                ("h0.d1.example", "A"): ["192.0.2.1"],
                ("h0.d1.example.d3.example", "A"): ["127.0.0.2"],
            },
        ),
        "pass",
        "fail",
    ),
    "transformers follow the grammar": (case_of("v=spf1 exists:%{d0}.example -all"), "permerror", "fail"),
    "the r transformer ignores case": (
        case_of("v=spf1 exists:%{dR}.d1.example -all", zones={("example.d0.d1.example", "A"): ["127.0.0.2"]}),
        "pass",
        "fail",
    ),
    "parts are joined with dots": (
        replace(
            case_of("v=spf1 exists:%{h-}.d1.example -all", zones={("a.b.d1.example", "A"): ["127.0.0.2"]}),
            helo="a-b",
        ),
        "pass",
        "fail",
    ),
    "a macro that is not closed is an error": (
        case_of("v=spf1 exists:%{d.example -all"),
        "permerror",
        "fail",
    ),
    "DEL is no visible character": (case_of("v=spf1 exists:\x7f.example -all"), "permerror", "fail"),
    "a name that is too long loses as many labels as it must": (
        case_of(
            "v=spf1 exists:%{l}.d1.example -all",
            local_part=".".join(["aa"] * 100),
            zones={(".".join(["aa"] * 81) + ".d1.example", "A"): ["127.0.0.2"]},
        ),
        "pass",
        "fail",
    ),
    "an explanation is not cut as names are": (
        case_of("v=spf1 -all exp=long.example", zones={("long.example", "TXT"): ["a. " * 100]}),
        "fail",
        "fail",
    ),
    "postmaster stands in %{s} too": (
        case_of(
            "v=spf1 exists:%{s}.d1.example -all",
            local_part="",
            zones={("postmaster@d0.example.d1.example", "A"): ["127.0.0.2"]},
        ),
        "pass",
        "fail",
    ),
    "%% may stand at the end": (case_of("v=spf1 exists:a.%% -all"), "fail", "permerror"),
}


@pytest.mark.parametrize("name", DIFFERENCES)
def test_each_difference_is_what_it_says(name):
    case, our, their = PROOFS[name]
    assert (ours(case).result, theirs(case).result) == (our, their)
    assert not agree(case)
    assert agree(DIFFERENCES[name][1](case))


# What only the border between an MTA and check_host() can get wrong ---------------------------------

FAIL = "v=spf1 -all"


def test_an_at_sign_in_a_quoted_local_part_does_not_evade_spf():
    """RFC 5321 §4.1.2: the domain stands behind the last @. pyspf looks for `b"@d0.example`."""
    case = case_of(FAIL, local_part='a"@"b')
    assert ours(case).result == "fail"
    assert theirs(case, '"a@b"@d0.example').result == "none"


@pytest.mark.parametrize(
    ("domain", "zones"),
    [("d0.example.", {}), ("bücher.example", {("xn--bcher-kva.example", "TXT"): [FAIL]})],
)
def test_trailing_dots_and_u_labels_do_not_evade_spf(domain, zones):
    """RFC 7208 §4.3 and §7.3, RFC 8616 §4: pyspf leaves both to its caller."""
    case = replace(case_of(FAIL, zones=zones), domain=domain)
    assert ours(case).result == "fail"
    assert theirs(case).result == "none"


def test_a_local_part_beyond_ascii_matches_nothing():
    """RFC 8616 §4: terms that include %{s} or %{l} do not match anything. pyspf asks DNS for it."""
    case = case_of(
        "v=spf1 exists:%{l}.d1.example -all", local_part="é", zones={("é.d1.example", "A"): ["127.0.0.2"]}
    )
    assert ours(case).result == "fail"
    assert theirs(case).result == "pass"
