"""Spoofing as "Composition Kills" (USENIX Security 2020) and its tool espoofer do it, through the whole filter.

An attacker who owns attack.example, with valid SPF and DKIM for it and name servers that answer whatever
helps him, writes as legit.example, whose DMARC policy is reject. Each case has a name, the number of the class
of attacks that it belongs to, and what must come of it:

FAIL     dmarc=fail for legit.example, so its policy holds
INVALID  dmarc=permerror: there is no one author, which policy.author_invalid is for
HONEST   dmarc=pass for attack.example: that is the author by the letter, and the result says so

The classes: 59 HELO and MAIL FROM mixed up (A1), 60 odd MAIL FROM (A2, A5 to A7), 61 NUL in d= and s= (A3), 62 odd
octets in d= (A4), 63 several From fields or odd ones (A8 to A13), 64 lists, routes, encodings and quoting in From
(A14 to A19), 65 addresses in names and comments, 66 brackets without their other half, 67 users of our own
(client attacks).
"""

from __future__ import annotations

import base64
from typing import Any, NamedTuple

import pytest
from authres import AuthenticationResultsHeader

from harness.dkim_forge import Forge, rsa_key
from harness.fake_resolver import FakeResolver
from harness.filter_bench import Bench, field_of, header_after, results_in, signed
from srsd.filter.verdict import Action, PolicyParameters
from srsd.resolving import Answer, Outcome
from srsd.syntax.header import HeaderField
from srsd.wire.milter import InsertHeader

LEGIT, ATTACK = b"legit.example", b"attack.example"
LEGIT_KEY, ATTACK_KEY = rsa_key(1024, 31), rsa_key(1024, 32)
ATTACKER, LEGIT_HOST = "192.0.2.66", "198.51.100.1"
ZONES: dict[tuple[str, str], Any] = {
    ("legit.example", "TXT"): ["v=spf1 ip4:198.51.100.1 -all"],
    ("_dmarc.legit.example", "TXT"): ["v=DMARC1; p=reject"],
    ("sel._domainkey.legit.example", "TXT"): [LEGIT_KEY.record],
    ("nospf.legit.example", "A"): ["198.51.100.2"],
    ("lax.legit.example", "TXT"): ["v=spf1 ?all"],
    ("third.example", "TXT"): ["v=spf1 +all"],
}
POLICY = PolicyParameters(shadow=False, dmarc_reject="reject", author_invalid="reject")
FAIL, INVALID, HONEST = "fail", "permerror", "pass"
TO, SUBJECT = HeaderField(b"To", b" victim@here.example"), HeaderField(b"Subject", b" hi")
BODY = b"Hi, this is a test message.\r\n"
TEMPLATE = b" v=1; a=rsa-sha256; c=relaxed/relaxed; d=%D%; s=%S%; h=from:to:subject; bh=%BH%; b=%B%"


class HostileDns(FakeResolver):
    """The attacker's name servers, behind a resolver that reads names as C does: up to a NUL, and any octets."""

    async def txt(self, name: bytes) -> Answer[bytes]:
        asked = name.partition(b"\0")[0].lower().rstrip(b".")
        if not asked.endswith(ATTACK):
            return await super().txt(name)
        self.asked.append((name.decode(errors="surrogateescape"), "TXT"))
        if b"_domainkey" in asked:
            return Answer(Outcome.FOUND, (ATTACK_KEY.record,))
        if asked.startswith(b"_dmarc."):
            return Answer(Outcome.FOUND, (b"v=DMARC1; p=reject",))
        return Answer(Outcome.FOUND, (b"v=spf1 ip4:192.0.2.66 -all",))


class Spoof(NamedTuple):
    """One message of the attacker."""

    item: int
    name: str
    expected: str
    sender: bytes = b"<any@attack.example>"
    helo: bytes = b"attack.example"
    fields: tuple[HeaderField, ...] = (HeaderField(b"From", b" <admin@legit.example>"),)
    domain: bytes = ATTACK  # d= and s= of his signature
    selector: bytes = b"sel"
    author: bytes = LEGIT  # header.from of what fails
    spf: str = ""  # what SPF says of MAIL FROM, where that is what matters

    def __str__(self) -> str:
        return f"{self.item}: {self.name}"


SPOOFS: list[Spoof] = []


def add(item: int, name: str, expected: str, **how: Any) -> None:
    SPOOFS.append(Spoof(item, name, expected, **how))


def add_from(item: int, name: str, expected: str, value: bytes, **how: Any) -> None:
    add(item, name, expected, fields=(HeaderField(b"From", value),), **how)


# 59: HELO and MAIL FROM.
add(
    59,
    "A1: MAIL FROM in a subdomain that does not exist",
    FAIL,
    sender=b"<any@mailfrom.notexist.legit.example>",
    helo=b"helo.attack.example",
)
add(59, "MAIL FROM in a subdomain without SPF", FAIL, sender=b"<any@nospf.legit.example>")
add(59, "MAIL FROM in a subdomain whose SPF is neutral", FAIL, sender=b"<any@lax.legit.example>")
add(59, "MAIL FROM in the domain itself", FAIL, sender=b"<any@legit.example>")
add(59, "MAIL FROM in a domain whose SPF takes everybody", FAIL, sender=b"<any@third.example>")
add(59, "HELO of the domain, MAIL FROM of the attacker", FAIL, helo=LEGIT)
add(59, "HELO of the domain, no MAIL FROM", FAIL, helo=LEGIT, sender=b"<>")
add(59, "HELO of the attacker, no MAIL FROM", FAIL, sender=b"<>")
add(59, "HELO of the attacker, no MAIL FROM, as cleanup spells it", FAIL, sender=b"")
add(59, "HELO of the domain up to a NUL", FAIL, helo=b"legit.example\0.attack.example", sender=b"<>")
add(59, "HELO of the attacker up to a NUL", FAIL, helo=b"attack.example\0.legit.example", sender=b"<>")
add(59, "HELO of the domain up to a parenthesis", FAIL, helo=b"legit.example(.attack.example", sender=b"<>")
add(
    59,
    "HELO with results",
    FAIL,
    helo=b"x;dmarc=pass header.from=legit.example;.attack.example",
    sender=b"<>",
)
add(59, "HELO with a new line", FAIL, helo=b"x\n dmarc=pass header.from=legit.example", sender=b"<>")
add_from(
    59,
    "an author in a subdomain that does not exist",
    FAIL,
    b" <admin@notexist.legit.example>",
    author=b"notexist.legit.example",
)
add_from(
    59,
    "an author in a subdomain with lax SPF",
    FAIL,
    b" <admin@lax.legit.example>",
    author=b"lax.legit.example",
    sender=b"<any@lax.legit.example>",
)
add_from(
    59,
    "an author in a deep subdomain",
    FAIL,
    b" <admin@a.b.c.d.e.f.g.h.legit.example>",
    author=b"a.b.c.d.e.f.g.h.legit.example",
)

# 60: MAIL FROM that is read in several ways. What smtpd has, in brackets as the client wrote it, is a path by
# the letter of RFC 5321 §4.1.2 or permerror. Of what cleanup has, bare and without quotes, the last at sign
# parts the domain. The words are those of SPF: pass for the attacker's domain, fail for the other.
ODD_PATHS = [
    ("A2: a comment that is not closed", b"(any@legit.example", "permerror", "fail"),
    ("A5: a comment in the domain", b"any@legit.example(a.attack.example", "permerror", "permerror"),
    ("a comment that is closed", b"any@legit.example(a).attack.example", "permerror", "permerror"),
    ("A6: a quote after the domain", b"any@legit.example'@any.attack.example", "permerror", "pass"),
    ("A7: a route, and a quote", b"@legit.example,@any.example:'any@attack.example", "pass", "pass"),
    ("a route", b"@legit.example:any@attack.example", "pass", "pass"),
    ("a route of the attacker to the domain", b"@attack.example:any@legit.example", "fail", "fail"),
    ("an address as local-part", b'"any@legit.example"@attack.example', "pass", "pass"),
    ("a broken quote", b'"any@legit.example@attack.example', "permerror", "permerror"),
    ("a quote in the domain", b'any@"legit.example".attack.example', "permerror", "permerror"),
    ("two at signs", b"any@legit.example@attack.example", "permerror", "pass"),
    ("two at signs, the other way", b"any@attack.example@legit.example", "permerror", "fail"),
    ("two addresses", b"any@attack.example,any@legit.example", "permerror", "fail"),
    ("two addresses, the other way", b"any@legit.example,any@attack.example", "permerror", "pass"),
    ("two paths", b"any@attack.example> <any@legit.example", "permerror", "fail"),
    ("a NUL", b"any@legit.example\0@attack.example", "permerror", "permerror"),
    ("a NUL in the domain", b"any@legit.example\0.attack.example", "permerror", "permerror"),
    ("a NUL, the other way", b"any@attack.example\0.legit.example", "permerror", "permerror"),
    ("a new line", b"any@legit.example\r\n.attack.example", "permerror", "permerror"),
    ("a blank", b"any@legit.example .attack.example", "permerror", "permerror"),
    ("a tab", b"any@legit.example\t.attack.example", "permerror", "permerror"),
    ("a semicolon", b"any@legit.example;.attack.example", "permerror", "permerror"),
    ("a slash", b"any@legit.example/.attack.example", "permerror", "permerror"),
    ("a backslash", b"any@legit.example\\.attack.example", "permerror", "permerror"),
    ("an equals sign", b"any@header.from=legit.example.attack.example", "permerror", "permerror"),
    # No domain name, so there is nothing to check (RFC 7208 §4.3).
    ("two dots", b"any@legit.example..attack.example", "none", "none"),
    ("an octet that is no UTF-8", b"any@legit.example\xff.attack.example", "none", "none"),
    ("an address literal", b"any@[192.0.2.66]", "none", "none"),
    ("an address literal with a name", b"any@[legit.example]", "none", "none"),
    ("a label of the domain in front", b"any@legit.example.attack.example", "pass", "pass"),
    ("percent", b"any%legit.example@attack.example", "pass", "pass"),
    ("bang", b"legit.example!any@attack.example", "pass", "pass"),
    ("nothing before the at sign", b"@legit.example", "permerror", "fail"),
    ("results as local-part", b'"x; dmarc=pass header.from=legit.example; y"@attack.example', "pass", "pass"),
    (
        "results and the end of a comment as local-part",
        b'"\\"); dmarc=pass header.from=legit.example; ("@attack.example', "pass", "pass",
    ),
    ("a local-part of the domain's name", b"legit.example@attack.example", "pass", "pass"),
    ("a variable envelope path", b"bounce-any=legit.example@attack.example", "pass", "pass"),
]  # fmt: skip
for _name, _path, _spf, _spf_bare in ODD_PATHS:
    add(60, _name, FAIL, sender=b"<%b>" % _path, spf=_spf)
    add(60, f"{_name}, as cleanup spells it", FAIL, sender=_path, spf=_spf_bare)

# 61: a name in d= or s= that is cut short where it is asked for.
for _name, _domain, _selector in (
    ("A3: NUL in s=", LEGIT, b"sel._domainkey.attack.example.\0.any"),
    ("NUL at the end of s=", LEGIT, b"sel._domainkey.attack.example\0"),
    ("NUL in d=", b"legit.example\0.attack.example", b"sel"),
    ("NUL in d=, the other way", b"attack.example\0.legit.example", b"sel"),
    ("NUL in front of d=", b"\0legit.example", b"sel._domainkey.attack.example"),
    ("a new line in s=", LEGIT, b"sel._domainkey.attack.example\r\n .any"),
    ("a line feed in s=", LEGIT, b"sel._domainkey.attack.example\n.any"),
    ("a blank in s=", LEGIT, b"sel._domainkey.attack.example .any"),
    ("an escape of DNS in s=", LEGIT, b"sel._domainkey.attack.example\\000"),
    ("an escape of DNS in d=", b"legit.example\\000.attack.example", b"sel"),
    ("percent-encoding in s=", LEGIT, b"sel._domainkey.attack.example%00"),
    ("a number sign in s=", LEGIT, b"sel._domainkey.attack.example#"),
    ("the attacker's key name as s=", LEGIT, b"sel._domainkey.attack.example"),
    ("the root after it", LEGIT, b"sel._domainkey.attack.example."),
    ("so long a selector that the name would be cut", LEGIT, b"sel._domainkey.attack.example." + b"a." * 120 + b"a"),
    ("an empty selector", LEGIT, b""),
):  # fmt: skip
    add(61, _name, FAIL, domain=_domain, selector=_selector)

# 62: d= that others read in another way.
for _name, _domain in (
    ("A4: a quote", b"legit.example'a.attack.example"),
    ("a parenthesis", b"legit.example(.attack.example"),
    ("a comment", b"legit.example(x).attack.example"),
    ("a comment with the attacker", b"legit.example (attack.example)"),
    ("A16 of the tool: a quote, an equals sign, a parenthesis", b'legit.example"=(.attack.example'),
    ("quotes around the domain", b'"legit.example".attack.example'),
    ("a backslash", b"legit.example\\.attack.example"),
    ("a slash", b"legit.example/.attack.example"),
    ("a comma", b"legit.example,attack.example"),
    ("an at sign", b"legit.example@attack.example"),
    ("an equals sign", b"legit.example=attack.example"),
    ("a blank", b"legit.example attack.example"),
    ("two dots", b"legit.example..attack.example"),
    ("a dot in front", b".legit.example.attack.example"),
    ("a wildcard", b"*.attack.example"),
    ("an octet that is no UTF-8", b"legit.example\xff.attack.example"),
    ("results", b"x header.from=legit.example dmarc=pass .attack.example"),
    ("a name of the domain and the attacker", b"legit.example.attack.example"),
    ("a name that ends like the domain", b"notlegit.example"),
    ("a name that looks like the domain", "leg\u0456t.example".encode()),
    ("the domain above", b"example"),
    ("the root", b"."),
    ("the domain itself, without its key", LEGIT),
    ("a subdomain, without a key", b"mail.legit.example"),
    ("nothing", b""),
):  # fmt: skip
    add(62, _name, FAIL, domain=_domain)
add(62, "i= of the domain", FAIL, domain=b"attack.example; i=@legit.example")
add(62, "i= of the domain, and d= twice", FAIL, domain=b"attack.example; d=legit.example")
add(62, "d= in capitals beside d=", FAIL, domain=b"legit.example; D=attack.example")


# 63: which field is the author's?
def field(name: bytes, value: bytes) -> HeaderField:
    return HeaderField(name, value)


ADMIN, ANY = b" <admin@legit.example>", b" <any@attack.example>"
for _name, _fields in (
    ("A8: two fields", (field(b"From", ANY), field(b"From", ADMIN))),
    ("two fields, the other way", (field(b"From", ADMIN), field(b"From", ANY))),
    ("the same field twice", (field(b"From", ADMIN), field(b"From", ADMIN))),
    ("three fields", (field(b"From", ANY), field(b"From", ADMIN), field(b"From", ANY))),
    ("A10: a blank before the colon", (field(b"From", ANY), field(b"From ", ADMIN))),
    ("a blank before the colon, the other way", (field(b"From ", ANY), field(b"From", ADMIN))),
    ("a blank before both colons", (field(b"From ", ANY), field(b"From ", ADMIN))),
    ("a tab before the colon", (field(b"From", ANY), field(b"From\t", ADMIN))),
    ("A11: a fold before the colon", (field(b"From\r\n ", ANY), field(b"From", ADMIN))),
    ("a fold before the colon, as Postfix has lines", (field(b"From", ANY), field(b"From\n ", ADMIN))),
    ("capitals", (field(b"From", ANY), field(b"FROM", ADMIN))),
    ("small letters", (field(b"from", ADMIN), field(b"From", ANY))),
    ("an empty second field", (field(b"From", ADMIN), field(b"From", b""))),
    ("a second field that nobody can parse", (field(b"From", ANY), field(b"From", b" admin <admin@legit.example"))),
    ("no From, but Sender", (field(b"Sender", ADMIN),)),
    ("no From, but Resent-From", (field(b"Resent-From", ADMIN),)),
    ("no From, but one in a fold", (field(b"X", b" y\r\n From: <admin@legit.example>"),)),
    ("no From, but what looks like it", (field("Fr\u043em".encode(), ADMIN),)),
    ("an empty From", (field(b"From", b""), field(b"Sender", ADMIN))),
):  # fmt: skip
    add(63, _name, INVALID, fields=_fields)
for _name, _fields in (
    # A line that begins with a blank goes on with the field before it, whatever it looks like.
    ("A9: a blank before the first From", (field(b"Received", b" by x\n From: <any@attack.example>"), field(b"From", ADMIN))),
    ("a blank in the name of the first", (field(b" From", ANY), field(b"From", ADMIN))),
    ("A12: the attacker as Sender", (field(b"From", ADMIN), field(b"Sender", ANY))),
    ("A13: the attacker as Resent-From", (field(b"Resent-From", ANY), field(b"From", ADMIN))),
    ("a single field with a blank before the colon", (field(b"From ", ADMIN),)),
    ("a single field with a fold before the colon", (field(b"From\r\n ", ADMIN),)),
    ("a single field in capitals", (field(b"FROM", ADMIN),)),
    ("a single field without a blank", (field(b"From", b"admin@legit.example"),)),
    ("a single field in a fold", (field(b"From", b"\r\n\t<admin@legit.example>\r\n "),)),
):  # fmt: skip
    add(63, _name, FAIL, fields=_fields)
for _name, _fields in (
    ("A9, the other way", (field(b"Received", b" by x\n From: <admin@legit.example>"), field(b"From", ANY))),
    ("A12: the domain as Sender", (field(b"From", ANY), field(b"Sender", ADMIN))),
    ("A13: the domain as Resent-From", (field(b"From", ANY), field(b"Resent-From", ADMIN))),
    ("the domain as Reply-To", (field(b"From", ANY), field(b"Reply-To", ADMIN))),
    ("the domain as X-From", (field(b"X-From", ADMIN), field(b"From", ANY))),
):  # fmt: skip
    add(63, _name, HONEST, fields=_fields)


# 64: From that is read in several ways.
def encoded(text: bytes) -> bytes:
    return b"=?utf-8?B?" + base64.b64encode(text) + b"?="


for _name, _value in (
    ("A14: a list", b" <first@attack.example>, <admin@legit.example>"),
    ("A14: a list, the other way", b" <admin@legit.example>, <first@attack.example>"),
    ("a list of the domain and its subdomain", b" <admin@legit.example>, <admin@www.legit.example>"),
    ("a list with an empty place", b" ,<admin@legit.example>"),
    ("a list with an empty end", b" <admin@legit.example>,"),
    ("A15: an encoded address", encoded(b"<admin@legit.example>") + b",<second@attack.example>"),
    ("an encoded address alone", b" " + encoded(b"<admin@legit.example>")),
    ("an encoded list", b" " + encoded(b"<admin@legit.example>,") + b" <second@attack.example>,"),
    ("an encoded address in brackets", b" <" + encoded(b"admin@legit.example") + b">"),
    ("an encoded address in Q", b" =?utf-8?Q?=3Cadmin=40legit.example=3E?="),
    ("A16: a route", b" <@attack.example,@any.example:admin@legit.example>"),
    ("a route of the domain", b" <@legit.example:any@attack.example>"),
    ("A17: a quoted pair", b" <admin@legit.example>\\,<second@attack.example>"),
    ("A18: a bare address before another", b" admin@legit.example,<second@attack.example>"),
    ("A19: an address behind the brackets", b" <any@attack.example>admin@legit.example"),
    ("A19, the other way", b" <admin@legit.example>any@attack.example"),
    ("two addresses in brackets", b" <any@attack.example> <admin@legit.example>"),
    ("two addresses in brackets, the other way", b" <admin@legit.example> <any@attack.example>"),
    ("two addresses in one pair of brackets", b" <admin@legit.example,any@attack.example>"),
    ("a group", b" Friends: admin@legit.example;"),
    ("a group of several", b" Friends: any@attack.example, admin@legit.example;"),
    ("a group and an address", b" Friends: any@attack.example; admin@legit.example"),
    ("an empty group", b" undisclosed-recipients:;"),
    ("an empty group and an address", b" x:;, admin@legit.example"),
    ("a semicolon", b" admin@legit.example; any@attack.example"),
    ("a colon", b" admin@legit.example: any@attack.example"),
    ("a blank between addresses", b" admin@legit.example any@attack.example"),
    ("two at signs", b" admin@legit.example@attack.example"),
    ("two at signs, the other way", b" admin@attack.example@legit.example"),
    ("a NUL", b" admin@legit.example\0@attack.example"),
    ("a NUL, the other way", b" any@attack.example\0@legit.example"),
    ("a NUL in the domain", b" any@attack.example\0.legit.example"),
    ("a bare CR", b" any@attack.example\r<admin@legit.example>"),
    ("a bare CR before a new field", b" any@attack.example\rFrom: admin@legit.example"),
    ("a control character", b" admin@legit.example\x01"),
    ("a fold in the domain", b" admin@legit.\r\n example"),
    ("a fold before the at sign", b" admin\r\n @legit.example"),
    ("a blank before the at sign", b" admin @legit.example"),
    ("an empty line in the field", b" any@attack.example,\r\n \r\n admin@legit.example"),
    ("a quote in the domain", b' admin@"legit.example"'),
    ("a slash in the domain", b" admin@legit.example/attack.example"),
    ("a backslash in the domain", b" admin@legit.example\\attack.example"),
    ("a parenthesis that is not closed", b" admin@legit.example(.attack.example"),
    ("a single quote", b" admin@legit.example'@attack.example"),
    ("a literal", b" admin@[legit.example]"),
    ("two dots", b" admin@legit..example"),
    ("a dot in front of the domain", b" admin@.legit.example"),
    ("a fullwidth at sign", " admin\uff20legit.example".encode()),
    ("octets that are no UTF-8", b" admin\xff@legit.example"),
    ("an overlong dot", b" admin@legit\xc0\xaeexample"),
    ("a right-to-left override", " admin@legit.example\u202e".encode()),
    ("only a name", b" admin"),
    ("only a domain", b" @legit.example"),
    ("a domain without a name", b" admin@"),
    ("percent", b" admin%legit.example"),
    ("a URI", b" mailto:admin@legit.example"),
    ("a list of too many", b" " + b", ".join([b"admin@legit.example"] * 101)),
):  # fmt: skip
    add_from(64, _name, INVALID, _value)
for _name, _value in (
    ("a comment in the domain", b" admin@legit.example(.attack.example)"),
    ("a comment before the address", b" (any@attack.example) admin@legit.example"),
    ("a comment with a list", b" admin@legit.example (,any@attack.example)"),
    ("comments in comments", b" admin@legit.example (a (any@attack.example) \\) b)"),
    ("a quoted local-part", b' "any@attack.example"@legit.example'),
    ("a quoted local-part with brackets", b' <"<any@attack.example>"@legit.example>'),
    ("capitals", b" ADMIN@LEGIT.EXAMPLE"),
    ("the root", b" admin@legit.example."),
    ("an ideographic full stop", " admin@legit。example".encode()),
    ("fullwidth letters", " admin@\uff4c\uff45\uff47\uff49\uff54.example".encode()),
    ("a soft hyphen", " admin@le\u00adgit.example".encode()),
    ("a list of one domain", b" admin@legit.example, boss@legit.example"),
    ("an encoded local-part", b" =?utf-8?Q?any=40attack.example?=@legit.example"),
):  # fmt: skip
    add_from(64, _name, FAIL, _value)
for _name, _value in (
    ("an encoded address as local-part", b" =?utf-8?Q?admin=40legit.example?=@attack.example"),
    ("an address as local-part", b' "admin@legit.example"@attack.example'),
    ("brackets in the local-part", b' <"<admin@legit.example>"@attack.example>'),
    ("percent as local-part", b" admin%legit.example@attack.example"),
    ("the domain as the attacker's subdomain", b" admin@legit.example.attack.example"),
):  # fmt: skip
    add_from(64, _name, HONEST, _value)
for _name, _value, _author in (
    ("a letter that looks like another", " admin@leg\u0456t.example", "leg\u0456t.example"),
    ("a zero-width joiner", " admin@leg\u200dit.example", ""),
    ("a letter with a mark", " admin@legít.example", "legít.example"),
):
    # These are other domains, without a policy; or none, where IDNA refuses them.
    add_from(64, _name, "none" if _author else INVALID, _value.encode(), author=_author.encode("idna"))

# 65: addresses where none counts.
for _name, _value in (
    ("an address as name", b' "admin@legit.example" <any@attack.example>'),
    ("an address with brackets as name", b' "admin <admin@legit.example>" <any@attack.example>'),
    ("brackets and a comma as name", b' "<admin@legit.example>," <any@attack.example>'),
    ("a quoted pair in the name", b' "\\"<admin@legit.example>\\"" <any@attack.example>'),
    ("an encoded address as name", b" =?utf-8?Q?admin=40legit.example?= <any@attack.example>"),
    ("an encoded address with brackets as name", b" " + encoded(b"<admin@legit.example>") + b" <any@attack.example>"),
    ("an address as comment behind", b" any@attack.example (admin@legit.example)"),
    ("an address as comment in front", b" (admin@legit.example) any@attack.example"),
    ("an address as comment in the brackets", b" <any@attack.example(admin@legit.example)>"),
    ("a comment that ends early", b" (\\)admin@legit.example) any@attack.example"),
    ("a long name", b' "' + b"x" * 900 + b' <admin@legit.example>" <any@attack.example>'),
    ("blanks that hide the address", b' "admin@legit.example' + b" " * 500 + b'" <any@attack.example>'),
):  # fmt: skip
    add_from(65, _name, HONEST, _value)
for _name, _value in (
    ("the attacker as name", b' "any@attack.example" <admin@legit.example>'),
    ("the attacker with brackets as name", b' "any <any@attack.example>" <admin@legit.example>'),
    ("the attacker as encoded name", b" " + encoded(b"<any@attack.example>") + b" <admin@legit.example>"),
    ("the attacker as comment", b" admin@legit.example (any@attack.example)"),
    ("the attacker as comment in front", b" (<any@attack.example>) <admin@legit.example>"),
    ("a name with a bracket", b' "<" <admin@legit.example>'),
):  # fmt: skip
    add_from(65, _name, FAIL, _value)
for _name, _value in (
    ("an address as name without quotes", b" admin@legit.example <any@attack.example>"),
    ("the attacker as name without quotes", b" any@attack.example <admin@legit.example>"),
    ("a name with a comma", b" admin@legit.example, Inc. <any@attack.example>"),
):  # fmt: skip
    add_from(65, _name, INVALID, _value)

# 66: brackets and quotes without their other half.
for _name, _value in (
    ("no closing bracket", b" <admin@legit.example"),
    ("no closing bracket after a name", b" Admin <admin@legit.example"),
    ("no opening bracket", b" admin@legit.example>"),
    ("no opening bracket after a name", b" Admin admin@legit.example>"),
    ("one bracket too many", b" <admin@legit.example>>"),
    ("one bracket too many in front", b" <<admin@legit.example>"),
    ("two pairs", b" <<admin@legit.example>>"),
    ("a bracket and the attacker", b" <any@attack.example>> <admin@legit.example>"),
    ("a bracket between", b" <any@attack.example\\> <admin@legit.example>"),
    ("brackets the wrong way", b" >admin@legit.example<"),
    ("an empty pair", b" <>"),
    ("an empty pair and an address", b" <> admin@legit.example"),
    ("a quote that is not closed", b' "Admin <admin@legit.example>'),
    ("a quote that is not opened", b' Admin" <admin@legit.example>'),
    ("a quote in the brackets", b' <"admin@legit.example>'),
    ("a quote over both", b' "any@attack.example> <admin@legit.example>'),
    ("a comment that is not closed", b" (admin <admin@legit.example>"),
    ("a comment that is not opened", b" admin) <admin@legit.example>"),
    ("a comment over the bracket", b" <admin@legit.example(>)"),
    ("a backslash at the end", b" <admin@legit.example>\\"),
):  # fmt: skip
    add_from(66, _name, INVALID, _value)


def sign(spoof: Spoof) -> list[HeaderField]:
    """Sign with the attacker's key, whatever the names in the signature are."""
    fields = [*spoof.fields, TO, SUBJECT]
    template = TEMPLATE.replace(b"%D%", spoof.domain).replace(b"%S%", spoof.selector)
    return [Forge(ATTACK_KEY).sign(fields, BODY, template), *fields]


def bench(**how: Any) -> Bench:
    return Bench(cache=HostileDns(ZONES), dmarc=True, arc=True, **how)


def send(spoof: Spoof, policy: PolicyParameters):
    judge = bench(policy=policy)
    report = judge.send(spoof.sender, client=ATTACKER, helo=spoof.helo, fields=sign(spoof), body=BODY)
    return report, judge


@pytest.mark.parametrize("spoof", SPOOFS, ids=str)
def test_nobody_else_writes_as_the_domain(spoof):
    report, judge = send(spoof, PolicyParameters())
    results = [each for each in results_in(report) if each.method == "dmarc"]
    assert len(results) == 1
    (result,) = results
    properties = {f"{ptype}.{name}": value for ptype, name, value in result.properties}
    author = properties.get("header.from", b"")
    # What matters: it never passes for the domain or one below it.
    assert not (result.result == "pass" and (b"." + author).endswith(b".legit.example"))
    assert result.result == spoof.expected
    if spoof.expected == FAIL:
        assert (author, properties["policy.dmarc"]) == (spoof.author, b"reject")
    elif spoof.expected == HONEST:
        assert (b"." + author).endswith(b".attack.example")
    elif spoof.expected == INVALID:
        assert properties == {}
        assert report.results.author.problem
    else:
        assert author == spoof.author
    if spoof.spf:
        assert report.results.spf.mail_from.result.value == spoof.spf
        assert (report.transaction.sender is None) is (spoof.spf == "permerror")
    # No name that another could read in another way is asked for.
    assert not [name for name, _ in judge.cache.asked if "\0" in name or not name.isascii()]


@pytest.mark.parametrize("spoof", SPOOFS, ids=str)
def test_the_field_says_the_same_to_others(spoof):
    """By the reading of another library, which takes comments and quotes as RFC 8601 has them."""
    report, _ = send(spoof, PolicyParameters())
    (field,) = [each for each in report.decision.modifications if isinstance(each, InsertHeader)]
    line = (field.name + b":" + field.value).decode().replace("\n", "\r\n")
    parsed = AuthenticationResultsHeader.parse(line)
    assert parsed.authserv_id == "mx.example.net"
    (dmarc,) = [each for each in parsed.results if each.method == "dmarc"]
    assert dmarc.result == spoof.expected
    named = [each.value for each in dmarc.properties if (each.type, each.name) == ("header", "from")]
    assert named == ([] if spoof.expected == INVALID else [_author_in(report)])
    assert [each.method for each in parsed.results] == [method for method, _ in field_of(report)]
    for each in parsed.results:
        if each.result == "pass":
            values = [(every.name, str(every.value)) for every in each.properties]
            assert not [pair for pair in values if pair[1].endswith("legit.example")]


def _author_in(report) -> str:
    return report.results.author.domain.decode()


@pytest.mark.parametrize("spoof", SPOOFS, ids=str)
def test_what_an_admin_can_do_about_it(spoof):
    report, _ = send(spoof, POLICY)
    verdict = report.decision.verdict
    if spoof.expected == FAIL:
        assert report.verdict.action is Action.REJECT
        assert (verdict.code, verdict.enhanced) == (550, b"5.7.26")
        assert spoof.author in verdict.text
    elif spoof.expected == INVALID:
        assert report.verdict.action is Action.REJECT
        assert (verdict.code, verdict.enhanced) == (550, b"5.7.1")
    else:
        assert report.verdict.action is Action.ACCEPT


def test_the_names_are_unique_and_the_classes_are_all_there():
    names = [str(spoof) for spoof in SPOOFS]
    assert len(set(names)) == len(names) >= 250
    assert {spoof.item for spoof in SPOOFS} == set(range(59, 67))
    attacks = {
        word
        for spoof in SPOOFS
        for word in spoof.name.replace(":", " ").replace(",", " ").split()
        if word[1:].isdigit()
    }
    assert {f"A{number}" for number in range(1, 20)} <= attacks


# That the attacker's means work, so that the table above means something.


def test_the_attackers_own_mail_passes():
    report, _ = send(Spoof(0, "", HONEST, fields=(HeaderField(b"From", ANY),)), POLICY)
    assert field_of(report) == [
        ("spf", "pass"),
        ("spf", "pass"),
        ("dkim", "pass"),
        ("arc", "none"),
        ("dmarc", "pass"),
    ]


def test_mail_of_the_domain_passes():
    spoof = Spoof(0, "", HONEST)
    template = TEMPLATE.replace(b"%D%", LEGIT).replace(b"%S%", b"sel")
    fields = [*spoof.fields, TO, SUBJECT]
    for sender, client, header in (
        (b"<x@legit.example>", LEGIT_HOST, fields),
        (b"<x@attack.example>", ATTACKER, [Forge(LEGIT_KEY).sign(fields, BODY, template), *fields]),
    ):
        report = bench(policy=POLICY).send(sender, client=client, helo=b"x", fields=header, body=BODY)
        assert field_of(report)[-1] == ("dmarc", "pass")
        assert report.verdict.action is Action.ACCEPT


@pytest.mark.parametrize("second", [ANY, ADMIN, b" Boss <boss@legit.example>"])
@pytest.mark.parametrize("name", [b"From", b"from", b"From ", b"From\t"])
@pytest.mark.parametrize("on_top", [True, False])
def test_a_signed_message_of_the_domain_with_another_author(second, name, on_top):
    """The domain's own signature covers its From, and not the one that is added."""
    fields = [HeaderField(b"From", ADMIN), TO, SUBJECT]
    template = TEMPLATE.replace(b"%D%", LEGIT).replace(b"%S%", b"sel")
    signature = Forge(LEGIT_KEY).sign(fields, BODY, template)
    added = HeaderField(name, second)
    header = [added, signature, *fields] if on_top else [signature, *fields, added]
    report = bench(policy=PolicyParameters()).send(
        b"<x@attack.example>", client=ATTACKER, fields=header, body=BODY
    )
    assert field_of(report)[-1] == ("dmarc", "permerror")
    assert ("dkim", "pass") not in field_of(report)


# 67: users of our own, whose mail nobody checks (client attacks 1 to 3).

LOGINS = b"attacker attacker@example.com\nadmin admin@example.com\n"
CLIENT_ATTACKS = [
    ("two fields", (field(b"From", b" <attacker@example.com>"), field(b"From", b" <admin@example.com>"))),
    ("two fields, the other way", (field(b"From", b" <admin@example.com>"), field(b"From", b" <attacker@example.com>"))),
    ("a blank before the colon", (field(b"From", b" <attacker@example.com>"), field(b"From ", b" <admin@example.com>"))),
    ("a list", (field(b"From", b" <attacker@example.com>, <admin@example.com>"),)),
    ("a list, and Sender", (field(b"From", b" <attacker@example.com>, <admin@example.com>"), field(b"Sender", b" <attacker@example.com>"))),
    ("another author", (field(b"From", b" <admin@example.com>"),)),
    ("another author in capitals", (field(b"From", b" <ADMIN@EXAMPLE.COM>"),)),
    ("another author of another domain", (field(b"From", b" <admin@legit.example>"),)),
    ("an address behind the brackets", (field(b"From", b" <attacker@example.com>admin@example.com"),)),
    ("a route", (field(b"From", b" <@example.com:admin@example.com>"),)),
    ("a bracket too many", (field(b"From", b" <admin@example.com>>"),)),
    ("an encoded address", (field(b"From", b" =?utf-8?Q?=3Cadmin=40example.com=3E?="),)),
    ("a group", (field(b"From", b" x: admin@example.com;"),)),
    ("no author, but Sender", (field(b"Sender", b" <admin@example.com>"),)),
]  # fmt: skip


def submit(fields, **policy: Any):
    judge = Bench(logins=LOGINS, signing=True, policy=PolicyParameters(**policy))
    macros = {b"auth_type": b"PLAIN", b"auth_authen": b"attacker"}
    return judge.send(b"<attacker@example.com>", macros=macros, fields=[*fields, TO, SUBJECT], body=BODY)


@pytest.mark.parametrize(("name", "fields"), CLIENT_ATTACKS, ids=[name for name, _ in CLIENT_ATTACKS])
def test_a_user_of_ours_writes_as_another(name, fields):
    report = submit(fields, shadow=False, login_mismatch="reject")
    verdict = report.decision.verdict
    assert (verdict.code, verdict.enhanced) == (550, b"5.7.1")
    assert verdict.text == b"From: the login may not write as this author"
    # Also where that is taken, it bears no signature of ours.
    taken = submit(fields)
    assert taken.decision.modifications == ()
    assert taken.signatures.values == ()


def test_a_user_of_ours_writes_as_himself():
    for value in (b" <attacker@example.com>", b' "admin@example.com" <attacker@example.com>'):
        report = submit((HeaderField(b"From", value),), shadow=False, login_mismatch="reject")
        assert report.verdict.action is Action.ACCEPT
        assert [each.name for each in report.decision.modifications] == [b"DKIM-Signature"]


def test_what_is_added_stands_above_what_was_there():
    fields = signed()
    report = bench().send(fields=fields)
    assert header_after(report, fields)[1:] == fields
