"""Which Authentication-Results fields of others stay, and which spellings of ours are seen through."""

from __future__ import annotations

import time

import pytest
from authres import AuthenticationResultsHeader, AuthResError

from srsd.authres import claims, is_authentication_results

OURS = b"mx.ours.example"
# In A-labels, as fold_domain gives it.
OURS_IDN = b"mx.xn--bcher-kva.example"


def wide(name: bytes) -> bytes:
    """Spell a name in the letters that East Asian scripts have for Latin ones."""
    return (
        name.decode()
        .translate({letter: letter + 0xFEE0 for letter in b"abcdefghijklmnopqrstuvwxyz"})
        .encode()
    )


# Written from the grammar of RFC 8601 §2.2 and from what readers of the field are known to do.
FORGED = {
    # Plain, and what may stand around it.
    "plain": b" mx.ours.example; spf=pass",
    "no result": b" mx.ours.example; none",
    "nothing after it": b" mx.ours.example",
    "only a semicolon": b" mx.ours.example;",
    "without blanks": b"mx.ours.example;spf=pass",
    "blank before semicolon": b" mx.ours.example ; spf=pass",
    "tabs": b"\tmx.ours.example\t;\tspf=pass",
    "upper case": b" MX.OURS.EXAMPLE; spf=pass",
    "mixed case": b" Mx.oUrs.eXample; spf=pass",
    "trailing dot": b" mx.ours.example.; spf=pass",
    "two trailing dots": b" mx.ours.example..; spf=pass",
    "leading dot": b" .mx.ours.example; spf=pass",
    "folded before": b"\n\tmx.ours.example; spf=pass",
    "folded with CRLF": b"\r\n mx.ours.example;\r\n spf=pass",
    "folded after": b" mx.ours.example\n ; spf=pass",
    "folded twice": b" \n \n mx.ours.example; spf=pass",
    # Versions.
    "version": b" mx.ours.example 1; spf=pass",
    "another version": b" mx.ours.example 2; spf=pass",
    "a long version": b" mx.ours.example " + b"1" * 5000 + b"; spf=pass",
    "version without a blank": b" mx.ours.example/1; spf=pass",
    "version in a comment's place": b" mx.ours.example(1)1; spf=pass",
    "no digits": b" mx.ours.example v1; spf=pass",
    "folded version": b" mx.ours.example\n\t1\n\t; spf=pass",
    # Quoted.
    "quoted": b' "mx.ours.example"; spf=pass',
    "quoted, upper case": b' "MX.Ours.example"; spf=pass',
    "quoted with a version": b' "mx.ours.example" 1; spf=pass',
    "quoted-pairs": b' "m\\x.ours\\.example"; spf=pass',
    "all quoted-pairs": b' "' + b"".join(b"\\%c" % octet for octet in OURS) + b'"; spf=pass',
    "quoted, blanks inside": b' " mx.ours.example "; spf=pass',
    "quoted, folded inside": b' "mx.ours.example\n "; spf=pass',
    "quoted, trailing dot": b' "mx.ours.example."; spf=pass',
    "quoted in two": b' "mx.ours" ".example"; spf=pass',
    "quoted in part": b' mx."ours".example; spf=pass',
    "quoted, with results": b' "mx.ours.example; spf=pass"; none',
    "quote not closed": b' "mx.ours.example; spf=pass',
    "single quotes": b" 'mx.ours.example'; spf=pass",
    # Comments.
    "comment before": b" (hello) mx.ours.example; spf=pass",
    "comment after": b" mx.ours.example (hello); spf=pass",
    "comment touching": b" (hello)mx.ours.example(there); spf=pass",
    "empty comments": b"()()mx.ours.example()(); spf=pass",
    "nested comments": b" (a (b (c) d) e) mx.ours.example; spf=pass",
    "parenthesis escaped": b" (a \\) b) mx.ours.example; spf=pass",
    "parenthesis escaped, other end": b" (a \\( b) mx.ours.example; spf=pass",
    "quote in a comment": b' (a " b) mx.ours.example; spf=pass',
    "semicolon in a comment": b" (a; b) mx.ours.example; spf=pass",
    "comment and version": b" mx.ours.example (a) 1 (b); spf=pass",
    "comment inside": b" mx.(hello)ours.example; spf=pass",
    "blanks around the dots": b" mx . ours . example; spf=pass",
    "folded inside": b" mx.\n ours.example; spf=pass",
    "many comments": b"()" * 2000 + b" mx.ours.example; spf=pass",
    "deep comment": b"(" * 5000 + b")" * 5000 + b" mx.ours.example; spf=pass",
    # Another id that some reader does not see.
    "in a comment": b" relay.example (mx.ours.example); spf=pass",
    "in a comment before": b" (mx.ours.example) relay.example; spf=pass",
    "in a comment, in capitals": b" relay.example (MX.OURS.example); spf=pass",
    "in a comment, after what is like it": b" relay.example (amx.ours.example, mx.ours.example); spf=pass",
    "for who does not nest": b" (a (b) mx.ours.example; spf=pass (c)) relay.example; none",
    "for who does not know quoted-pairs": b" (\\) mx.ours.example; spf=pass) relay.example; none",
    "for who cuts at any semicolon": b" (x; mx.ours.example; spf=pass) relay.example; none",
    "for who knows quotes in comments": b' (") relay.example; x=y a.b=(c") mx.ours.example; spf=pass',
    "for who drops quotes": b' "relay.example (" ) mx.ours.example; spf=pass',
    "comment not closed": b" (relay.example; none mx.ours.example; spf=pass",
    "comment closed twice": b" relay.example) mx.ours.example; spf=pass",
    "comment not closed, after": b" relay.example; none (mx.ours.example; spf=pass",
    "quote not closed, after": b' relay.example; x=y reason="mx.ours.example; spf=pass',
    "second word": b" relay.example mx.ours.example; spf=pass",
    "after a version": b" relay.example 1 mx.ours.example; spf=pass",
    "after the results": b" relay.example; spf=fail mx.ours.example; spf=pass",
    "as a result": b" relay.example; mx.ours.example; spf=pass",
    "after none": b" relay.example; none mx.ours.example; spf=pass",
    "with its name again": b" relay.example; none\n Authentication-Results: mx.ours.example; spf=pass",
    "after a comma": b" relay.example, mx.ours.example; spf=pass",
    "after an equals sign": b" x=mx.ours.example; spf=pass",
    "after a slash": b" relay.example/mx.ours.example; spf=pass",
    "after an at sign": b" postmaster@mx.ours.example; spf=pass",
    "in angle brackets": b" <mx.ours.example>; spf=pass",
    "in square brackets": b" [mx.ours.example]; spf=pass",
    "after a semicolon": b" ; mx.ours.example; spf=pass",
    "after a colon": b" : mx.ours.example; spf=pass",
    # Ours as a part: for who compares the beginning, the end, or looks for it anywhere.
    "subdomain": b" a.mx.ours.example; spf=pass",
    "longer": b" mx.ours.example.evil.example; spf=pass",
    "in the middle": b" a.mx.ours.example.evil.example; spf=pass",
    "junk after": b" mx.ours.example!; spf=pass",
    "junk before": b" *mx.ours.example; spf=pass",
    "percent": b" mx.ours.example%00; spf=pass",
    "no semicolon": b" mx.ours.example spf=pass",
    "a colon": b" mx.ours.example: spf=pass",
    "a comma": b" mx.ours.example, spf=pass",
    # Octets.
    "NUL after": b" mx.ours.example\0; spf=pass",
    "NUL before": b"\0mx.ours.example; spf=pass",
    "NUL in another": b" relay.example\0mx.ours.example; none",
    "NUL at the end": b" relay.example; spf=pass\0",
    "vertical tab": b"\vmx.ours.example; spf=pass",
    "form feed": b" mx.ours.example\f; spf=pass",
    "delete": b" \x7fmx.ours.example; spf=pass",
    "backspace": b" mx.ourss\x08.example; spf=pass",
    "bare CR": b" relay.example; none\r mx.ours.example; spf=pass",
    "bare CR, name": b" relay.example; none\rAuthentication-Results: mx.ours.example; spf=pass",
    "bare LF": b" relay.example; none\nAuthentication-Results: mx.ours.example; spf=pass",
    "line end at the end": b" relay.example; none\r\n",
    "no-break space": " mx.ours.example\u00a0; spf=pass".encode(),
    "no-break space, Latin 1": b" mx.ours.example\xa0; spf=pass",
    "broken UTF-8": b" mx.ours.example\xc3; spf=pass",
    "soft hyphen": " mx.ou\u00adrs.example; spf=pass".encode(),
    "zero width": " mx.ou\u200brs.example; spf=pass".encode(),
    "wide letters": b" %b; spf=pass" % wide(OURS),
    "wide dots": " mx\u3002ours\uff0eexample; spf=pass".encode(),
    "Kelvin and the like": " mx.our\u017f.example; spf=pass".encode(),
    "quoted wide letters": b' "%b"; spf=pass' % wide(OURS),
    "direction mark": " \u202emx.ours.example; spf=pass".encode(),
    "encoded-word": b" =?utf-8?q?mx.ours.example?=; spf=pass",
    # Nobody's.
    "empty": b"",
    "blanks": b"  \t",
    "only semicolons": b" ;;;",
    "no id": b" ; spf=pass",
    "results only": b" spf=pass smtp.mailfrom=x.example; dkim=pass header.d=x.example",
    "results only, ours in them": b" spf=pass smtp.mailfrom=mx.ours.example; dkim=pass",
    "results without semicolon": b" dmarc=pass header.from=x.example",
    "empty quotes": b' ""; spf=pass',
    "words": b" this is not for programs",
    "one word": b" relay.example",
    "one word and a version": b" relay.example 1",
    "results without equals sign": b" relay.example; spf pass",
    "result without a method": b" relay.example; =pass",
    "method without a result": b" relay.example; spf=",
    "method without a result, then another": b" relay.example; spf=; dkim=pass",
    "words after a result": b" relay.example; spf=pass or so",
    "comment not closed at the end": b" relay.example; spf=pass (or so",
    "parenthesis at the end": b" relay.example; spf=pass or=so)",
    "quote at the end": b' relay.example; spf=pass reason="or so',
    "an empty label in front": b" .relay.example; spf=pass",
    "a comment in a comment": b" (a (b) c) relay.example; spf=pass",
    "a semicolon in a comment": b" relay.example (a; b); spf=pass",
    "a quote in a comment": b' relay.example (a " b); spf=pass',
    "an escape in a comment": b" relay.example (a \\) b); spf=pass",
    "empty labels": b" relay..example; spf=pass",
    "odd octets beyond ASCII": b" relay\xff.example; spf=pass",
}

# As the programs named write them, with names and numbers of nobody.
FOREIGN = {
    "Gmail": b""" mx.google.com;
       dkim=pass header.i=@gmail.com header.s=20230601 header.b=Zq3bW9x1;
       arc=pass (i=1 spf=pass spfdomain=a.example dkim=pass dkdomain=a.example dmarc=pass fromdomain=a.example);
       spf=pass (google.com: domain of sender@gmail.com designates 192.0.2.41 as permitted sender) smtp.mailfrom=sender@gmail.com;
       dmarc=pass (p=NONE sp=QUARANTINE dis=NONE) header.from=gmail.com;
       dara=pass header.i=@gmail.com""",
    "Gmail, best guess": b" mx.google.com; spf=neutral (google.com: 2001:db8::1 is neither permitted nor denied by best guess record for domain of a@x.example) smtp.mailfrom=a@x.example",
    "Outlook.com": b" hotmail.com; spf=pass (sender IP is 192.0.2.10; identity alignment result is pass and alignment mode is relaxed) smtp.mailfrom=a@x.example; dkim=pass (identity alignment result is pass) header.d=x.example; x-hmca=pass header.id=a@x.example",
    "Microsoft with an id": b" mx.microsoft.com 1; spf=pass (sender ip is 192.0.2.5) smtp.rcpttodomain=y.example smtp.mailfrom=x.example; dmarc=pass (p=none sp=none pct=100) action=none header.from=x.example; dkim=pass (signature was verified) header.d=x.example; arc=none (0);",
    "Outlook's semicolons": b" relay.example; dkim=none (message not signed)\r\n header.d=none;dmarc=none action=none header.from=x.example;",
    "nothing but an id": b" relay.example;",
    "Yahoo": b" atlas-production.v2-mail-prod1.yahoo.com;\n dkim=pass header.i=@x.example header.s=s1;\n spf=pass smtp.mailfrom=x.example;\n dmarc=pass(p=REJECT) header.from=x.example;",
    "OpenDKIM": b""" mail.relay.example;
\tdkim=pass (2048-bit key; unprotected) header.d=x.example header.i=@x.example header.b="ab+/cd=="; dkim-atps=neutral""",
    "OpenDKIM, bare base64": b" mail.relay.example; dkim=pass header.d=x.example header.b=ab+/cd==",
    "OpenDKIM, a reason": b' mail.relay.example; dkim=fail reason="signature verification failed; (really)" (1024-bit key) header.d=x.example',
    "OpenDMARC": b" mail.relay.example; dmarc=none (p=none dis=none) header.from=x.example",
    "OpenDMARC's SPF, null sender": b" mail.relay.example; spf=pass smtp.mailfrom=<>",
    "rspamd": b""" relay.example;
\tdkim=pass header.d=x.example header.s=mail header.b=aB3dE6gH;
\tdmarc=pass (policy=quarantine) header.from=x.example;
\tspf=pass (relay.example: domain of bounce@x.example designates 192.0.2.1 as permitted sender) smtp.mailfrom=bounce@x.example;
\tarc=pass ("x.example:s=arc-20240605:i=1")""",
    "rspamd, nothing": b" relay.example;\n\tnone",
    "rspamd, null sender": b' relay.example; dkim=none; spf=none (relay.example: domain of postmaster@x.example has no SPF policy when checking 192.0.2.1) smtp.mailfrom=""; dmarc=none',
    "Fastmail": b""" mx3.messagingengine.com;
    bimi=none (Domain declined to participate);
    dkim=pass (2048-bit rsa key sha256) header.d=x.example header.i=@x.example header.b=aB+/1234 header.a=rsa-sha256 header.s=s1 x-bits=2048;
    dmarc=pass policy.published-domain-policy=none policy.applied-disposition=none policy.evaluated-disposition=none (p=none,d=none,d.eval=none) policy.policy-from=p header.from=x.example;
    iprev=pass smtp.remote-ip=2001:db8::1 (mail.x.example);
    x-tls=pass smtp.version=TLSv1.3 smtp.cipher=TLS_AES_256_GCM_SHA384 smtp.bits=256/256;
    x-vs=clean score=0 state=0""",
    "Exim": b" mx.relay.example;\n\tiprev=pass (mail.x.example) smtp.remote-ip=2001:db8::1;\n\tauth=pass (LOGIN) smtp.auth=user@x.example;\n\tspf=pass smtp.mailfrom=x.example;\n\tdkim=pass header.d=x.example header.s=s1 header.a=rsa-sha256;\n\tarc=none",
    "iCloud": b' bimi.icloud.com; bimi=skipped reason="insufficient dmarc"',
    "iCloud, DKIM": b" dkim-verifier.icloud.com; dkim=pass (2048-bit key) header.d=x.example header.i=@x.example header.b=aB/cD+eF=",
    "Yandex": b" mail-nwsmtp-mxfront.yandex.net; spf=pass (mxfront: domain of x.example designates 192.0.2.1 as permitted sender, rule=[ip4:192.0.2.0/24]) smtp.mail=a@x.example; dkim=pass header.i=@x.example",
    "mail.ru": b" mxs.mail.ru; spf=pass (mx.mail.ru: domain of x.example designates 192.0.2.1) smtp.mailfrom=a@x.example smtp.helo=mail.x.example;\n\tdkim=pass header.d=x.example",
    "Cisco": b' esa1.x.iphmx.com; dkim=none (message not signed) header.i=none; spf=Pass smtp.mailfrom="a@x.example"; spf=None smtp.helo=postmaster@mail.x.example',
    "Proton": b" mail.protonmail.ch; dkim=pass (Good 2048 bit rsa-sha256 signature) header.d=x.example header.a=rsa-sha256",
    "amavis": b" mail.relay.example (amavisd-new);\n\tdkim=pass (2048-bit key) header.d=x.example",
    "pyspf-milter": b" mail.relay.example; spf=pass (sender SPF authorized) smtp.mailfrom=x.example (client-ip=192.0.2.1; helo=mail.x.example; envelope-from=a@x.example; receiver=y.example)",
    "Mimecast": b" relay.mimecast.com;\n\tdkim=pass header.d=x.example header.s=s1 header.b=aBcDeFgH;\n\tdmarc=pass (policy=reject) header.from=x.example;\n\tspf=pass (relay.mimecast.com: domain of a@x.example designates 192.0.2.1 as permitted sender) smtp.mailfrom=a@x.example",
    "GMX": b" gmx.net; dkim=pass header.i=@x.example",
    "SpamAssassin's reader knows it": b" relay.example 1; auth=pass (cram-md5) smtp.auth=sender@x.example; sender-id=fail header.from=x.example",
    "RFC 8601 B.7": b' relay.example;\n\tdkim=pass reason="good signature"\n\t  header.i=@mail-router.example.net;\n\tdkim=fail reason="bad signature"\n\t  header.i=@newyork.example.com',
    "RFC 8601 A.7, comments": b" foo.relay.example (foobar) 1 (baz);\n\tdkim (Because I like it) / 1 (One yay) = (wait for it) fail\n\t  policy (A dot can go here) . (like that) expired\n\t  (this surprised me) = (as I wasn't expecting it) 1362471462",
    "our domain is in its values": b" relay.example; spf=pass smtp.mailfrom=mx.ours.example; dmarc=pass header.from=ours.example",
    "its results mention us": b" relay.example; spf=pass (by mx.ours.example) smtp.mailfrom=a@x.example",
    "null sender, no value": b" relay.example; spf=none smtp.mailfrom= smtp.helo=mail.x.example",
    "quoted id": b' "relay.example"; spf=pass',
    "U-label": " mx.jörg.example; spf=pass".encode(),
    "8-bit in a value": " relay.example; spf=pass smtp.mailfrom=jörg@x.example".encode(),
    "8-bit in a comment": b" relay.example; spf=pass (\xe4\xf6\xfc)",
    "a neighbour": b" mx2.ours.example; spf=pass",
    "the parent": b" ours.example; spf=pass",
    "ends alike": b" amx.ours.example; spf=pass",
    "begins alike": b" mx.ours.examples; spf=pass",
    "hyphens": b" mx.ours.example-net.example; spf=pass",
    "a Windows login": b" relay.example; auth=pass smtp.auth=DOMAIN\\user",
    "trailing dot": b" relay.example.; spf=pass",
    "no blank": b"relay.example;spf=pass;dkim=none",
}  # fmt: skip


@pytest.mark.parametrize("value", FORGED.values(), ids=FORGED)
def test_what_claims_to_be_ours_or_is_unclear_must_go(value):
    assert claims(value, OURS)


@pytest.mark.parametrize("value", FOREIGN.values(), ids=FOREIGN)
def test_what_others_wrote_stays(value):
    assert not claims(value, OURS)


@pytest.mark.parametrize("value", FOREIGN.values(), ids=FOREIGN)
def test_what_others_wrote_would_go_under_our_name(value):
    identifier = value.lstrip().partition(b";")[0].split(b" ")[0]
    ours = identifier.strip(b'"').rstrip(b".").lower().decode()
    assert claims(value, ours.encode("idna") if not ours.isascii() else ours.encode())


def test_the_tables_are_as_big_as_they_should_be():
    assert len(FORGED) >= 60
    assert len(FOREIGN) >= 20


@pytest.mark.parametrize(
    "value",
    [
        " mx.bücher.example; spf=pass".encode(),
        " MX.BÜCHER.example; spf=pass".encode(),
        " mx.bu\u0308cher.example; spf=pass".encode(),
        ' "mx.bücher.example"; spf=pass'.encode(),
        " mx.bücher.example.; spf=pass".encode(),
        " mx。bücher。example (x) 1; spf=pass".encode(),
        b" mx.xn--bcher-kva.example; spf=pass",
        b" MX.XN--BCHER-KVA.EXAMPLE; spf=pass",
        " a.mx.bücher.example; spf=pass".encode(),
        " mx.bücher.example.evil.example; spf=pass".encode(),
    ],
)
def test_an_internationalised_id_is_known_in_both_its_forms(value):
    assert claims(value, OURS_IDN)


@pytest.mark.parametrize("value", [b" mx.bucher.example; spf=pass", " mx.büche.example; spf=pass".encode()])
def test_another_internationalised_id_is_not_ours(value):
    assert not claims(value, OURS_IDN)


@pytest.mark.parametrize(
    ("value", "is_ours"),
    [
        (b" mail; spf=pass", True),
        (b" MAIL; spf=pass", True),
        (b" mail.; spf=pass", True),
        (b' "mail"; spf=pass', True),
        (b" relay.example (mail); spf=pass", True),
        (b" mail!; spf=pass", True),
        (b" mail.protonmail.example; spf=pass", False),
        (b" relay.mail.example; spf=pass", False),
        (b" gmail; spf=pass", False),
    ],
)
def test_an_id_of_one_label_is_no_part_of_a_longer_name(value, is_ours):
    assert claims(value, b"mail") == is_ours


@pytest.mark.parametrize(
    ("name", "is_it"),
    [
        *(
            (b"Authentication-Results", True),
            (b"authentication-results", True),
            (b"AUTHENTICATION-RESULTS", True),
        ),
        *(
            (b"aUthentication-resultS", True),
            (b"Authentication-Results ", True),
            (b"Authentication-Results\t ", True),
        ),
        *((b"Authentication-Results\r\n ", True), (b"ARC-Authentication-Results", False), (b"", False)),
        *(
            (b"Authentication-Result", False),
            (b"X-Authentication-Results", False),
            (b"Authentication-Resultss", False),
        ),
    ],
)
def test_the_name_of_the_field(name, is_it):
    assert is_authentication_results(name) == is_it


def read_by_authres(value: bytes) -> str | None:
    """Give the authserv-id that a well-known reader sees, which is not strict about the rest."""
    try:
        text = value.replace(b"\r\n", b"").replace(b"\n", b"").decode(errors="surrogateescape")
        return AuthenticationResultsHeader.parse("Authentication-Results:" + text).authserv_id
    except (AuthResError, RecursionError):
        return None


def test_no_field_stays_that_authres_takes_for_ours():
    seen = [name for name, value in FORGED.items() if read_by_authres(value) == OURS.decode()]
    assert len(seen) > 15, seen  # it is a judge only if it can be deceived


@pytest.mark.parametrize(
    "value",
    [
        *(b"(" * 60_000, b"()" * 30_000, b"(" * 30_000 + b")" * 30_000, b'"' * 60_000, b"\\" * 60_000),
        *(b"f; x=y " + b"(" * 60_000, b"f; x=y " + b"()" * 30_000, b"f; x=y " + b"(\\)" * 20_000),
        *(b"f; x=y " + b"(x)" * 999 + b'"' * 55_000, b'f; x=y a.b="' + b"\\" * 60_000, b'f; x=y a="b"' * 5_000),
        *(b"f; x=y " + b"a=b " * 15_000, b"f; x=y " + b"a.b " * 15_000, b"f; x=y a" + b".a" * 30_000),
        *(b"f; x=y a" + b" ." * 30_000, b"f" + b";" * 60_000, b"f" + b";x=y" * 15_000, b"f" + b"; none" * 10_000),
        *(b" " * 60_000, b"f; x=y" + b" \t" * 30_000 + b"!", b"f" + b" " * 60_000 + b"1", b"f;" + b"\n " * 30_000),
        *(b"f 1" + b"1" * 60_000 + b";", b"f;" + b"a" * 60_000, b"f; x" + b" " * 60_000 + b"/", b"f; x=" + b"=" * 60_000),
        *(b"mx.ours.examplex" * 3_700 + b";", b"(mx.ours.examplex" * 3_500, b"(" + b"mx.ours.examplex" * 3_700 + b")f;"),
        *(b"a." * 30_000 + b";", "ä.".encode() * 20_000 + b";", "ä".encode() * 500 + b";", b"f; x=y a=" + b"b" * 60_000),
    ],
)  # fmt: skip
def test_hostile_values_take_little_time(value):
    took = []
    for _ in range(3):
        begin = time.thread_time()
        claims(value, OURS)
        took.append(time.thread_time() - begin)
    assert min(took) < 0.15, took
