"""Who is signed and who is not, and that a signature which would not verify is left out."""

from __future__ import annotations

from ipaddress import ip_address

import dkim
import pytest

from srsd.crypto import KeyType, PrivateKey, generate_key
from srsd.dkim.canonicalization import RELAXED, BodyHashes, BodyHashKey
from srsd.dkim.login_table import LoginTable, parse_login_table
from srsd.dkim.publication import record_of
from srsd.dkim.sign import Signer
from srsd.dkim.signing_rules import SigningTexts, parse_signing_rules
from srsd.exclusion import ExclusionMap, parse_exclusion_map
from srsd.filter.authenticate import is_login_mismatch
from srsd.filter.author import find_author
from srsd.filter.hazards import EIGHT_BIT, LONG_LINES, NUL
from srsd.filter.origin import Origin
from srsd.filter.signing import MessageSigning, Signatures, SigningParameters, SigningService, verify_own
from srsd.filter.transaction import Transaction
from srsd.syntax.address import Address
from srsd.syntax.header import HeaderField

NOW = 1_700_000_000  # dkimpy refuses signatures of the future
RSA, ED25519 = generate_key(KeyType.RSA, 1024), generate_key(KeyType.ED25519)
OTHER_ED25519 = generate_key(KeyType.ED25519)
TEXTS = SigningTexts(
    {
        "/d/example.org/active": b"r1\ne1\n",
        "/d/example.org/r1.pem": RSA.pem(),
        "/d/example.org/e1.pem": ED25519.pem(),
        "/d/xn--bcher-kva.example/e1.pem": ED25519.pem(),
    },
)
LOGINS = parse_login_table(b"alice alice@example.org, @sub.example.org\nroot *\n")
FROM = HeaderField(b"From", b" Alice <alice@example.org>")
FIELDS = [
    HeaderField(b"Received", b" from localhost"),
    FROM,
    HeaderField(b"To", b" bob@example.net"),
    HeaderField(b"Subject", b" caf\xc3\xa9"),
    HeaderField(b"Date", b" Fri, 15 Jan 2027 08:00:00 +0000"),
]
BODY = b"Hello\r\n\r\n"


def transaction(**changes: object) -> Transaction:
    facts = {
        "client": ip_address("10.0.0.1"),
        "client_name": b"x",
        "helo": b"x",
        "sender_path": b"<>",
        "null_sender": True,
        "sender": None,
        "utf8": False,
        "recipients": (),
        "login": b"",
        "origin": Origin.INTERNAL,
        "authserv_id": b"mx.example.org",
    }
    return Transaction(**(facts | changes))


def service(texts: SigningTexts = TEXTS, exclusions: bytes = b"", **how: object) -> SigningService:
    rules, _ = parse_signing_rules(texts, SigningParameters())
    parsed = parse_exclusion_map(exclusions) if exclusions else ExclusionMap()
    return SigningService(SigningParameters(**how), rules, parsed)


def begin(
    signing: SigningService,
    fields=FIELDS,
    *,
    outside: bool = False,
    logins: LoginTable | None = LOGINS,
    **facts: object,
) -> MessageSigning | str:
    """Begin as the filter does; gives why it is not signed, if so."""
    about, author = transaction(**facts), find_author(fields)
    mismatch = is_login_mismatch(about.login, author, logins)
    begun = signing.begin(about, fields, author, NOW, came_from_outside=outside, login_mismatch=mismatch)
    return begun if isinstance(begun, MessageSigning) else begun.why


def finish(message: MessageSigning | str, *body: bytes) -> Signatures:
    assert isinstance(message, MessageSigning), message
    hashes = BodyHashes([message.body_hash])
    for chunk in body or (BODY,):
        hashes.feed(chunk)
        message.hazards.feed(chunk)
    return message.finish(hashes.finish())


# Who is not signed, and what the admin reads.

REFUSED = [
    ([], {}, b"", "there is no From field"),
    ([FROM, FROM], {}, b"", "there are several From fields"),
    ([FROM, HeaderField(b"from ", FROM.value)], {}, b"", "there are several From fields"),
    ([HeaderField(b"From", b" alice@example.org>")], {}, b"", "the From field cannot be parsed"),
    (
        [HeaderField(b"From", b" a@example.org, b@example.org")],
        {},
        b"",
        "there are several addresses in From",
    ),
    ([HeaderField(b"From", b" a@[192.0.2.1]")], {}, b"", "the address in From has no domain name"),
    ([HeaderField(b"From", b" a@example.net")], {}, b"", "no key for the author domain"),
    ([HeaderField(b"From", b" a@notexample.org")], {}, b"", "no key for the author domain"),
    # A Sender of ours, or an envelope, makes nobody an author.
    (
        [HeaderField(b"From", b" a@example.net"), HeaderField(b"Sender", b" alice@example.org")],
        {"sender": Address(b"alice", b"example.org"), "null_sender": False},
        b"",
        "no key for the author domain",
    ),
    # Logins
    (FIELDS, {"login": b"bob"}, b"", "the login may not write as this author"),
    (FIELDS, {"login": b"carol"}, b"", "the login may not write as this author"),  # of whom no line speaks
    (
        [HeaderField(b"From", b" a@example.org")],
        {"login": b"alice"},
        b"",
        "the login may not write as this author",
    ),
    # Exclusions are about the author and the client.
    (FIELDS, {}, b"example.org sign", "excluded"),
    (FIELDS, {}, b"example.org all", "excluded"),
    (FIELDS, {}, b"alice@example.org sign", "excluded"),
    (FIELDS, {}, b"ALICE@EXAMPLE.ORG sign", "excluded"),
    (FIELDS, {}, b"10.0.0.0/24 sign", "excluded"),
    (FIELDS, {"client": ip_address("2001:db8::1")}, b"2001:db8::/32 sign", "excluded"),
    (FIELDS, {"login": b"bob"}, b"example.org sign", "excluded"),
    ([HeaderField(b"From", b" a@sub.example.org")], {}, b".example.org sign", "excluded"),
]


@pytest.mark.parametrize(("fields", "facts", "exclusions", "reason"), REFUSED)
def test_who_is_not_signed(fields, facts, exclusions, reason):
    logins = parse_login_table(b"bob bob@example.org\n") if facts.get("login") == b"bob" else LOGINS
    assert begin(service(exclusions=exclusions), fields, logins=logins, **facts) == reason


def test_what_bears_our_results_came_from_outside():
    """Also where everything else would allow it: a content filter has handed it back."""
    reason = "it bears Authentication-Results of ours, so it came from outside before"
    for facts in ({}, {"login": b"root"}, {"origin": Origin.ORIGINATING}):
        assert begin(service(), outside=True, **facts) == reason
    assert begin(service(), [], outside=True) == reason


SIGNED = [
    (FIELDS, {}, b"", [b"r1", b"e1"], b"example.org"),
    (FIELDS, {"login": b"alice"}, b"", [b"r1", b"e1"], b"example.org"),
    (FIELDS, {"login": b"ROOT"}, b"", [b"r1", b"e1"], b"example.org"),
    (FIELDS, {"client": None}, b"", [b"r1", b"e1"], b"example.org"),
    ([HeaderField(b"From", b" a@Sub.Example.ORG")], {"login": b"alice"}, b"", [b"r1", b"e1"], b"example.org"),
    ([HeaderField(b"From", b" a@x.y.example.org.")], {}, b"", [b"r1", b"e1"], b"example.org"),
    ([HeaderField(b"From ", b" a@example.org")], {}, b"", [b"r1", b"e1"], b"example.org"),
    ([HeaderField(b"From", " a@bücher.example".encode())], {}, b"", [b"e1"], b"xn--bcher-kva.example"),
    # Exclusions of other things, of others, and of the envelope's sender
    (FIELDS, {}, b"example.org srs, spf, dkim, dmarc, arc", [b"r1", b"e1"], b"example.org"),
    (
        FIELDS,
        {},
        b"bob@example.org sign\n.example.org sign\n10.0.1.0/24 sign",
        [b"r1", b"e1"],
        b"example.org",
    ),
    (FIELDS, {"sender": Address(b"a", b"example.net")}, b"example.net sign", [b"r1", b"e1"], b"example.org"),
    (FIELDS, {"client": None}, b"0.0.0.0/0 sign\n::/0 sign", [b"r1", b"e1"], b"example.org"),
]


@pytest.mark.parametrize(("fields", "facts", "exclusions", "selectors", "domain"), SIGNED)
def test_who_is_signed(fields, facts, exclusions, selectors, domain):
    signatures = finish(begin(service(exclusions=exclusions), fields, **facts))
    assert len(signatures.values) == len(selectors)
    for value, name, selector in zip(signatures.values, signatures.signed_as, selectors, strict=True):
        assert b" s=%b;" % selector in value.replace(b"\n\t", b" ")
        assert b" d=%b;" % domain in value.replace(b"\n\t", b" ")
        kind = "RSA" if selector == b"r1" else "ED25519"
        assert name == f"s={selector.decode()} d={domain.decode()} {kind}"
    assert signatures.why
    assert (signatures.hazards, signatures.unverified) == ((), ())


def test_without_a_login_table_everybody_may_write_as_anybody():
    assert isinstance(begin(service(), login=b"bob", logins=None), MessageSigning)


def test_the_header_may_change_after_the_beginning():
    fields = list(FIELDS)
    signing = service()
    messages = [begin(signing, fields) for _ in range(2)]  # with a sample, and without
    fields.clear()
    for message in messages:
        assert len(finish(message).values) == 2


def test_in_debug_every_signature_is_verified(monkeypatch):
    verified = []
    monkeypatch.setattr("srsd.filter.signing.verify_own", lambda *_: verified.append(1) or "")
    rules, _ = parse_signing_rules(TEXTS, SigningParameters())
    signing = SigningService(SigningParameters(), rules, ExclusionMap(), verify_all=True)
    for number in range(1, 4):
        finish(begin(signing))
        assert len(verified) == 2 * number


# What others find.


def theirs(values: tuple[bytes, ...], fields=FIELDS, body: bytes = BODY, owners=()) -> list[bool]:
    """Verify each signature with dkimpy."""
    records = {
        b"%b._domainkey.example.org." % selector: record_of(key)
        for selector, key in owners or ((b"r1", RSA), (b"e1", ED25519))
    }
    results = []
    for value in values:
        header = [HeaderField(b"DKIM-Signature", value), *fields]
        text = b"".join(name + b":" + value.replace(b"\n", b"\r\n") + b"\r\n" for name, value in header)
        verifier = dkim.DKIM(text + b"\r\n" + body, minkey=1024)
        results.append(verifier.verify(dnsfunc=lambda name, **_: records.get(name)))
    return results


def test_dkimpy_agrees():
    assert theirs(finish(begin(service()), BODY).values) == [True, True]


@pytest.mark.parametrize(
    "name", [b"From", b"Subject", b"Date", b"To", b"Cc", b"Reply-To", b"Message-ID", b"Content-Type"]
)
def test_nobody_can_add_what_is_oversigned(name):
    """Neither a second one nor, above all, a first one: the signature is broken for dkimpy."""
    values = finish(begin(service())).values
    added = HeaderField(name, b" added@example.net")
    for fields in ([added, *FIELDS], [*FIELDS, added]):
        for value in values:
            try:
                assert theirs((value,), fields) == [False]
            except dkim.MessageFormatError:
                assert name == b"From"  # two of them are no message to dkimpy


def test_what_is_not_oversigned_can_be_added():
    added = [
        HeaderField(name, b" x") for name in (b"Received", b"List-Id", b"Sender", b"X-Y", b"DKIM-Signature")
    ]
    assert theirs(finish(begin(service())).values, [*added, *FIELDS]) == [True, True]


def test_expiry():
    for value in finish(begin(service(expiry=7))).values:
        assert b" x=%d;" % (NOW + 7 * 86_400) in value.replace(b"\n\t", b" ")


# Hazards.


@pytest.mark.parametrize(
    ("chunks", "hazards"),
    [
        ((b"plain\r\n",), ()),
        ((b"caf\xc3\xa9\r\n",), (EIGHT_BIT,)),
        ((b"x" * 600, b"x" * 600, b"\r\n\0"), (LONG_LINES, NUL)),
    ],
)
def test_hazards_are_told_and_the_message_is_signed_all_the_same(chunks, hazards):
    signatures = finish(begin(service()), *chunks)
    assert signatures.hazards == hazards
    assert theirs(signatures.values, body=b"".join(chunks)) == [True, True]


# The sample.


class Spoilt:
    """A key whose public part is another one's, or that signs something else."""

    def __init__(self, key: PrivateKey, public: PrivateKey) -> None:
        self.key_type, self.sign, self.public_octets = key.key_type, key.sign, public.public_octets


def spoil(monkeypatch, selector: bytes) -> SigningService:
    signing = service()
    choose = signing._rules.choose

    def chosen(author):
        choice = choose(author)
        signers = [
            each._replace(key=Spoilt(each.key, OTHER_ED25519)) if each.selector == selector else each
            for each in choice.signers
        ]
        return choice._replace(signers=tuple(signers))

    monkeypatch.setattr(signing._rules, "choose", chosen)
    return signing


def test_a_signature_that_fails_with_our_own_key_is_left_out_and_named(monkeypatch):
    signatures = finish(begin(spoil(monkeypatch, b"e1")))
    assert signatures.signed_as == ("s=r1 d=example.org RSA",)
    assert theirs(signatures.values) == [True]
    assert signatures.unverified == ("s=e1 d=example.org ED25519: the signature did not verify",)


def test_none_is_left(monkeypatch):
    signing = spoil(monkeypatch, b"e1")
    signatures = finish(begin(signing, [HeaderField(b"From", " a@bücher.example".encode())]))
    assert (signatures.values, signatures.signed_as) == ((), ())
    assert signatures.unverified == ("s=e1 d=xn--bcher-kva.example ED25519: the signature did not verify",)


def test_the_first_and_then_every_64th_are_verified(monkeypatch):
    signing = spoil(monkeypatch, b"e1")
    verified = [number for number in range(1, 200) if finish(begin(signing)).unverified]
    assert verified == [1, 65, 129, 193]


def test_only_what_is_signed_counts_for_the_sample(monkeypatch):
    signing = spoil(monkeypatch, b"e1")
    assert finish(begin(signing)).unverified
    for _ in range(100):
        assert begin(signing, []) == "there is no From field"
    assert not finish(begin(signing)).unverified


def own(fields, value: bytes, signer: Signer, body: bytes = BODY, now: int = NOW) -> str:
    hashes = BodyHashes([BodyHashKey(RELAXED)])
    hashes.feed(body)
    return verify_own(fields, value, signer, hashes.finish(), now)


def test_verifying_our_own():
    (rsa, _) = finish(begin(service())).values
    signer = Signer(b"example.org", b"r1", RSA)
    assert own(FIELDS, rsa, signer) == ""
    assert own(FIELDS, rsa, signer, b"Hallo\r\n") == "the body hash did not verify"
    assert own([FROM], rsa, signer) == "the signature did not verify"
    assert (
        own(FIELDS, rsa, signer._replace(key=generate_key(KeyType.RSA, 1024)))
        == "the signature did not verify"
    )
    assert own(FIELDS, rsa, signer._replace(key=ED25519)) != ""
    assert own([*FIELDS, FROM], rsa, signer) != ""
    assert own(FIELDS, b" v=1; nonsense", signer) != ""


OTHERS = [
    b" v=1; a=rsa-sha256; c=relaxed/relaxed; d=example.org; s=r1; h=from; bh=%b; b=%b",
    b" v=1; a=rsa-sha256; c=relaxed/simple; d=example.org; s=r1; h=from; bh=%b; b=%b",
    b" v=1; a=rsa-sha256; c=relaxed/relaxed; d=example.org; s=r1; l=3; h=from; bh=%b; b=%b",
    b" v=1; a=ed25519-sha256; c=simple/simple; d=example.org; s=e1; h=from; bh=%b; b=%b",
    b" v=1; a=rsa-sha256; c=simple; d=other.example; s=r1; h=from; bh=%b; b=%b",
    b" nonsense",
]


@pytest.mark.parametrize("other", OTHERS)
def test_signatures_that_the_message_has_already_do_not_matter(other):
    """Such as that of another program with the same key, while mail goes through both: OpenDKIM signs c=relaxed/simple."""
    value = other.replace(b"%b", b"47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=", 1).replace(
        b"%b", b"YWFh" * 43
    )
    fields = [HeaderField(b"DKIM-Signature", value)] * 12 + FIELDS
    signatures = finish(begin(service(), fields))
    assert len(signatures.values) == 2
    assert signatures.unverified == ()
