"""The value of a DKIM-Signature field (RFC 6376 §3.5, §6.1.1)."""

from __future__ import annotations

import base64

import pytest

from srsd.crypto import KeyType
from srsd.dkim.canonicalization import RELAXED, SIMPLE, BodyHashKey
from srsd.dkim.result import Reason
from srsd.dkim.signature import FIELD_MAXIMUM, Flaw, Labels, Signature, parse_signature

NOW = 1_800_000_000
BODY_HASH = bytes(range(32))
RSA_SIGNATURE = bytes(range(256))

TAGS = {
    "v": "1",
    "a": "rsa-sha256",
    "d": "example.org",
    "s": "sel",
    "h": "From:To",
    "bh": base64.b64encode(BODY_HASH).decode(),
    "b": base64.b64encode(RSA_SIGNATURE).decode(),
}


def field(**changes: str | bytes | None) -> bytes:
    """Write a field's value: the good one, with other tags; None leaves one out."""
    tags = TAGS | changes
    parts = [
        name.encode() + b"=" + (value if isinstance(value, bytes) else value.encode())
        for name, value in tags.items()
        if value is not None
    ]
    return b" " + b"; ".join(parts)


def signature(**changes: str | bytes | None) -> Signature:
    parsed = parse_signature(field(**changes), NOW)[1]
    assert isinstance(parsed, Signature), parsed
    return parsed


def flaw(**changes: str | bytes | None) -> Flaw:
    parsed = parse_signature(field(**changes), NOW)[1]
    assert isinstance(parsed, Flaw), parsed
    return parsed


def test_a_good_signature():
    labels, parsed = parse_signature(field(), NOW)
    assert labels == Labels(b"example.org", b"sel", b"rsa-sha256", b"@example.org", b"AAECAwQF")
    assert parsed == Signature(
        key_type=KeyType.RSA,
        signature=RSA_SIGNATURE,
        body_hash=BODY_HASH,
        body_hash_key=BodyHashKey(SIMPLE),
        header_canonicalization=SIMPLE,
        signed_fields=(b"from", b"to"),
        key_name=b"sel._domainkey.example.org",
        identity_is_below=False,
    )


def test_folding_white_space_anywhere_it_may_be():
    value = (
        b"\r\n v = 1 ;\r\n\ta\t=\trsa-sha256; d=example.org ;s=\r\n sel;\r\n h = From\r\n : \tTo;"
        b" bh=" + b"\r\n ".join(TAGS["bh"][at : at + 3].encode() for at in range(0, 44, 3)) + b" ;"
        b" b=" + b"\n\t".join(TAGS["b"][at : at + 60].encode() for at in range(0, 344, 60)) + b" ; "
    )
    assert parse_signature(value, NOW) == parse_signature(field(), NOW)


@pytest.mark.parametrize("missing", ["v", "a", "b", "bh", "d", "h", "s"])
def test_required_tags(missing):
    assert flaw(**{missing: None}) == Flaw(Reason.TAG_MISSING, f"{missing}=")


@pytest.mark.parametrize(
    ("value", "detail"),
    [
        (b" no list", "something between semicolons that is not name=value"),
        (field() + b"; d=other.example", "a tag that stands twice"),
        (field() + b";;", "something between semicolons that is not name=value"),
        (field() + b"; x\0=1", "a character that no tag-list may hold"),
        (field(d=b"example.org\0.attack.example"), "a character that no tag-list may hold"),
        (field(s=b"sel\0"), "a character that no tag-list may hold"),
        (field() + b"\r\nInjected: yes", "a line end that folds nothing"),
        (b"", "something between semicolons that is not name=value"),
    ],
)
def test_malformed_lists(value, detail):
    assert parse_signature(value, NOW) == (Labels(), Flaw(Reason.MALFORMED, detail))


def test_length():
    filler = FIELD_MAXIMUM - len(field(z=""))
    assert isinstance(parse_signature(field(z="x" * filler), NOW)[1], Signature)
    assert parse_signature(field(z="x" * (filler + 1)), NOW) == (Labels(), Flaw(Reason.FIELD_TOO_LONG))


@pytest.mark.parametrize("version", ["", "0", "01", "1.0", "2", "one", "DKIM1", "1 1"])
def test_version(version):
    assert flaw(v=version) == Flaw(Reason.VERSION)


@pytest.mark.parametrize(
    ("algorithm", "expected", "shown"),
    [
        ("rsa-sha1", Flaw(Reason.HISTORIC_ALGORITHM), b"rsa-sha1"),
        ("RSA-SHA256", Flaw(Reason.UNKNOWN_ALGORITHM), b"RSA-SHA256"),  # §3.2: case-sensitive
        ("rsa-sha512", Flaw(Reason.UNKNOWN_ALGORITHM), b"rsa-sha512"),
        ("ed25519-sha1", Flaw(Reason.UNKNOWN_ALGORITHM), b"ed25519-sha1"),
        ("", Flaw(Reason.TAG_INVALID, "a="), b""),
        ("rsa", Flaw(Reason.TAG_INVALID, "a="), b""),
        ("rsa-sha256 ed25519-sha256", Flaw(Reason.TAG_INVALID, "a="), b""),
        ('rsa-sha256"', Flaw(Reason.TAG_INVALID, "a="), b""),
        ("rsa-" + "x" * 17, Flaw(Reason.TAG_INVALID, "a="), b""),
    ],
)
def test_algorithms_that_are_not_verified(algorithm, expected, shown):
    labels, parsed = parse_signature(field(a=algorithm), NOW)
    assert parsed == expected
    assert labels.algorithm == shown


def test_ed25519_signatures_have_64_octets():
    good = base64.b64encode(b"x" * 64).decode()
    assert signature(a="ed25519-sha256", b=good).key_type is KeyType.ED25519
    for octets in (b"x" * 63, b"x" * 65, b"x"):
        assert flaw(a="ed25519-sha256", b=base64.b64encode(octets).decode()) == Flaw(Reason.TAG_INVALID, "b=")


@pytest.mark.parametrize(
    "value", ["", " ", "A", "AB CD E", "&&&&", "AAAA====", "AA=A", "é", "-_-_", "A" * 1368]
)
def test_signatures_that_are_none(value):
    assert flaw(b=value) == Flaw(Reason.TAG_INVALID, "b=")


@pytest.mark.parametrize("octets", [0, 1, 20, 31, 33, 64])
def test_the_body_hash_has_32_octets(octets):
    assert flaw(bh=base64.b64encode(bytes(octets)).decode()) == Flaw(Reason.TAG_INVALID, "bh=")


@pytest.mark.parametrize("value", ["", "A", "!" * 44, "A" * 44, "A" * 43 + "==", "A=" * 22])
def test_body_hashes_that_are_none(value):
    assert flaw(bh=value) == Flaw(Reason.TAG_INVALID, "bh=")


# d=, s= and i=: what stands here may come to stand in a header field and in a DNS query.


@pytest.mark.parametrize(
    ("value", "domain"),
    [
        ("example.org", b"example.org"),
        ("Example.ORG", b"example.org"),
        ("a-b.c_d.example", b"a-b.c_d.example"),
        ("xn--mnchen-3ya.example", b"xn--mnchen-3ya.example"),
        ("münchen.example", b"xn--mnchen-3ya.example"),  # RFC 8616 §5
        ("MÜNCHEN.example", b"xn--mnchen-3ya.example"),
        ("192.0.2.1", b"192.0.2.1"),  # legal; nobody has a key there
        (".".join(["a" * 63] * 3), b".".join([b"a" * 63] * 3)),
    ],
)
def test_domains(value, domain):
    labels, parsed = parse_signature(field(d=value), NOW)
    assert isinstance(parsed, Signature)
    assert labels.domain == domain
    assert labels.identity == b"@" + domain
    assert parsed.key_name == b"sel._domainkey." + domain


NO_NAMES = [
    "",
    ".",
    "..",
    ".example.org",
    "example..org",
    "example.org.",
    "-a.example",
    "a-.example",
    "a b.example",
    "a\r\n .example",
    "legit.example'a.attack.example",
    "legit.example(.attack.example",
    'legit.example".attack.example',
    "legit.example\\.attack.example",
    "a@b.example",
    "a/b.example",
    "*.example.org",
    "[192.0.2.1]",
    "a:b.example",
    "a,b.example",
    "<a.example>",
    "a=b.example",
    "a" * 64 + ".example",
    ".".join(["a" * 63] * 4) + ".example",
    "\u2028.example",
    "a\u200b.\u202eexample",
    "é" * 2000 + ".example",
    b"\xff\xfe.example",
    b"\xc3.example",
]


@pytest.mark.parametrize("value", [*NO_NAMES, "com", "localhost", "xn--p1ai"])
def test_what_is_no_domain(value):
    labels, parsed = parse_signature(field(d=value), NOW)
    assert parsed == Flaw(Reason.TAG_INVALID, "d=")
    assert labels == Labels(b"", b"sel", b"rsa-sha256", b"", b"AAECAwQF")


@pytest.mark.parametrize("value", NO_NAMES)
def test_what_is_no_selector(value):
    labels, parsed = parse_signature(field(s=value), NOW)
    assert parsed == Flaw(Reason.TAG_INVALID, "s=")
    assert labels == Labels(b"example.org", b"", b"rsa-sha256", b"@example.org", b"AAECAwQF")


@pytest.mark.parametrize(
    ("value", "key_name"),
    [
        ("sel", b"sel._domainkey.example.org"),
        ("SEL.2026", b"sel.2026._domainkey.example.org"),
        ("_s", b"_s._domainkey.example.org"),
        ("größe", b"xn--gre-6ka8i._domainkey.example.org"),
    ],
)
def test_selectors(value, key_name):
    assert signature(s=value).key_name == key_name


def test_the_name_of_the_key_fits_in_dns():
    selector = ".".join(["s" * 57] * 4)
    assert len(selector + "._domainkey.example") == 250
    assert len(signature(s=selector, d="examp.le").key_name) == 251
    assert flaw(s=selector, d="example.org") == Flaw(Reason.TAG_INVALID, "s=")


@pytest.mark.parametrize(
    ("value", "identity", "below"),
    [
        (None, b"@example.org", False),
        ("@example.org", b"@example.org", False),
        ("@EXAMPLE.org", b"@example.org", False),
        ("joe@example.org", b"joe@example.org", False),
        ("Joe.X+y@example.org", b"Joe.X+y@example.org", False),
        ("joe@sub.example.org", b"joe@sub.example.org", True),
        ("@a.b.example.org", b"@a.b.example.org", True),
        ("jo e@exam\r\n ple.org", b"joe@example.org", False),  # §2.11: white space is not part of it
        ("j=6Fe@example.org", b"joe@example.org", False),
        ("joe=40example.org", b"joe@example.org", False),
        ("joe=2Bx@example.org", b"joe+x@example.org", False),
        ("=22a=20b=22@example.org", b'"a b"@example.org', False),
        ("=22a=40x=22@example.org", b'"a@x"@example.org', False),
        ('"a@x"@example.org', b'"a@x"@example.org', False),
        ("=22=5C=22=22@example.org", b'"\\""@example.org', False),
        ('""@example.org', b'""@example.org', False),
        ("=C3=BC@example.org", "ü@example.org".encode(), False),
        ("ü@example.org", "ü@example.org".encode(), False),
        ("x" * 320 + "@example.org", b"x" * 320 + b"@example.org", False),
    ],
)
def test_identities(value, identity, below):
    labels, parsed = parse_signature(field(i=value), NOW)
    assert isinstance(parsed, Signature)
    assert labels.identity == identity
    assert parsed.identity_is_below == below


@pytest.mark.parametrize(
    "value",
    [
        "",
        "example.org",
        "joe",
        "@",
        "joe@",
        "joe@=0D=0A=20Injected:=20yes@example.org",
        "=0D=0AX:=20y@example.org",
        "=00@example.org",
        "=7F@example.org",
        "=22=0D=0A=22@example.org",
        "=22=09=22@example.org",
        "a=20b@example.org",
        "a=3Bspf=3Dpass@example.org",
        "a=22@example.org",
        '"@example.org',
        '"a"b"@example.org',
        '"a\\"@example.org',
        "=22a@example.org",
        "a(b)@example.org",
        "a,b@example.org",
        "<a>@example.org",
        "a@b@example.org",
        ".a@example.org",
        "a.@example.org",
        "a..b@example.org",
        "=6f@example.org",  # capitals only
        "=6@example.org",
        "=@example.org",
        "a=",
        "=C3@example.org",
        b"\xc3@example.org",
        "=C2=85@example.org",  # NEL
        "=E2=80=A8@example.org",  # LINE SEPARATOR
        "=E2=80=AE@example.org",  # RIGHT-TO-LEFT OVERRIDE
        "x" * 321 + "@example.org",
        "=78" * 2000 + "@example.org",
        "joe@example.org.",
        "joe@-example.org",
        "joe@exa mple_.org.",
        "joe@[192.0.2.1]",
        "joe@example.org=00",
    ],
)
def test_what_is_no_identity(value):
    labels, parsed = parse_signature(field(i=value), NOW)
    assert parsed == Flaw(Reason.TAG_INVALID, "i=")
    assert labels.identity == b""


@pytest.mark.parametrize(
    "value",
    ["joe@org", "joe@other.example", "joe@badexample.org", "@example.org.evil.example", "x@ample.org"],
)
def test_identities_outside_of_the_domain(value):
    assert flaw(i=value) == Flaw(Reason.IDENTITY_OUTSIDE_DOMAIN)


def test_identities_are_compared_as_a_labels():
    assert not signature(d="münchen.example", i="@xn--mnchen-3ya.example").identity_is_below
    assert signature(d="xn--mnchen-3ya.example", i="@a.MÜNCHEN.example").identity_is_below


# h=


@pytest.mark.parametrize(
    ("value", "names"),
    [
        ("from", (b"from",)),
        ("FROM", (b"from",)),
        ("to : from\r\n\t:subject", (b"to", b"from", b"subject")),
        ("from:from:from", (b"from", b"from", b"from")),
        ("from:dkim-signature", (b"from", b"dkim-signature")),
        ("from:x-!#$%&'*+-/=?^_`{|}~", (b"from", b"x-!#$%&'*+-/=?^_`{|}~")),
    ],
)
def test_signed_fields(value, names):
    assert signature(h=value).signed_fields == names


@pytest.mark.parametrize("value", ["", ":", "from:", ":from", "from::to", "from to", "from:t o", "fröm:from"])
def test_what_is_no_list_of_fields(value):
    assert flaw(h=value) == Flaw(Reason.TAG_INVALID, "h=")


@pytest.mark.parametrize("value", ["to", "to:subject", "x-from:from-x", "resent-from", "from,to"])
def test_from_must_be_signed(value):
    assert flaw(h=value) == Flaw(Reason.FROM_NOT_SIGNED)


# c=, q=, l=


@pytest.mark.parametrize(
    ("value", "header", "body"),
    [
        (None, SIMPLE, SIMPLE),
        ("simple", SIMPLE, SIMPLE),
        ("relaxed", RELAXED, SIMPLE),
        ("relaxed/relaxed", RELAXED, RELAXED),
        ("simple/relaxed", SIMPLE, RELAXED),
        ("relaxed/simple", RELAXED, SIMPLE),
    ],
)
def test_canonicalizations(value, header, body):
    parsed = signature(c=value)
    assert parsed.header_canonicalization == header
    assert parsed.body_hash_key == BodyHashKey(body)


@pytest.mark.parametrize(
    "value", ["", "/", "nowsp", "relaxed/", "/relaxed", "Relaxed", "relaxed/nofws", "simple/simple/simple"]
)
def test_unknown_canonicalizations(value):
    assert flaw(c=value) == Flaw(Reason.UNKNOWN_CANONICALIZATION)


def test_queries():
    for value in (None, "dns/txt", "dns/txt:http/x", "http : dns/txt"):
        assert signature(q=value)
    for value in ("", "dns", "http", "dns/TXT", "dns/txt2", "dns/txtx:"):
        assert flaw(q=value) == Flaw(Reason.UNKNOWN_QUERY)


def test_lengths():
    assert signature(l="0").body_hash_key == BodyHashKey(SIMPLE, 0)
    assert signature(l="017", c="relaxed/relaxed").body_hash_key == BodyHashKey(RELAXED, 17)
    assert signature(l="9" * 76).body_hash_key.length == int("9" * 76)
    for value in ("", "-1", "+1", "1.0", "0x10", "9" * 77, "1 2", "\u0661"):
        assert flaw(l=value) == Flaw(Reason.TAG_INVALID, "l=")


# t= and x=


@pytest.mark.parametrize(
    ("times", "reason"),
    [
        ({}, None),
        ({"t": NOW}, None),
        ({"t": 0}, None),
        ({"t": NOW + 300}, None),  # clocks differ
        ({"t": NOW + 301}, Reason.FROM_THE_FUTURE),
        ({"t": 999_999_999_999}, Reason.FROM_THE_FUTURE),
        ({"x": NOW}, None),
        ({"x": NOW - 300}, None),
        ({"x": NOW - 301}, Reason.EXPIRED),
        ({"x": 0}, Reason.EXPIRED),
        ({"x": 999_999_999_999}, None),
        ({"t": NOW - 10, "x": NOW + 10}, None),
        ({"t": NOW, "x": NOW}, Reason.EXPIRES_BEFORE_SIGNED),
        ({"t": NOW, "x": NOW - 1}, Reason.EXPIRES_BEFORE_SIGNED),
        ({"t": NOW + 900, "x": NOW + 900}, Reason.EXPIRES_BEFORE_SIGNED),
        ({"t": NOW + 900, "x": NOW + 999}, Reason.FROM_THE_FUTURE),
        ({"t": NOW - 999, "x": NOW - 900}, Reason.EXPIRED),
    ],
)
def test_times(times, reason):
    changes = {name: str(number) for name, number in times.items()}
    if reason is None:
        assert signature(**changes)
    else:
        assert flaw(**changes) == Flaw(reason)


@pytest.mark.parametrize("tag", ["t", "x"])
@pytest.mark.parametrize("value", ["", "-1", "1.5", "1e9", "now", "0x10", "1" * 13, "1 2", "\u0661"])
def test_what_is_no_time(tag, value):
    assert flaw(**{tag: value}) == Flaw(Reason.TAG_INVALID, f"{tag}=")


def test_labels_are_read_also_where_the_signature_is_of_no_use():
    labels, parsed = parse_signature(field(v="2", i="joe@example.org", b=" A B!"), NOW)
    assert parsed == Flaw(Reason.VERSION)
    assert labels == Labels(b"example.org", b"sel", b"rsa-sha256", b"joe@example.org", b"")


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ("AB\r\n CD EF GH IJ==", b"ABCDEFGH"),
        ("+/+/", b"+/+/"),
        ("ab==", b"ab=="),
        ('ab" spf=pass', b""),
        ("ab\r\n(c", b""),
        ("é", b""),
        ("", b""),
    ],
)
def test_the_start_of_the_signature_may_be_shown(value, shown):
    assert parse_signature(field(b=value), NOW)[0].signature_start == shown
