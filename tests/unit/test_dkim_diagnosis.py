"""What was done to a signed message: each usual change, alone and with others, is found and proved."""

from __future__ import annotations

import binascii
import re
import time
from random import Random

import pytest

from harness.dkim_forge import Forge, Key, ed25519_key, rsa_key
from harness.dkim_forge import canonical_body as plain_canonical_body
from srsd.dkim.changes import Cause, Work
from srsd.dkim.diagnosis import WORK, Diagnosis, Examiner, canonical_body, read_regardless_of_time
from srsd.dkim.header_changes import decode_words, read_copies
from srsd.dkim.result import Reason
from srsd.dkim.signature import Flaw
from srsd.resolving import Answer, Outcome
from srsd.syntax.header import HeaderField

NAMES = b"from:to:cc:subject:date:sender:reply-to:list-id:list-post:mime-version:content-type:content-transfer-encoding"
RELAXED, SIMPLE = b"relaxed/relaxed", b"simple/simple"
BOTH = pytest.mark.parametrize("canonicalization", [RELAXED, SIMPLE])
FIELDS = [
    HeaderField(b"From", b" Alice <a@example.org>"),
    HeaderField(b"To", b" b@example.net"),
    HeaderField(b"Subject", b" hello wide world"),
    HeaderField(b"Date", b" Mon, 02 Feb 2026 10:00:00 +0000"),
    HeaderField(b"MIME-Version", b" 1.0"),
    HeaderField(b"Content-Type", b" text/plain; charset=utf-8"),
    HeaderField(b"Content-Transfer-Encoding", b" 8bit"),
]
BODY = "Hällo,\r\n\r\nFrom here on =\r\nall is well.\r\n.a dot\r\n-- \r\nAlice\r\n".encode()


def template(canonicalization: bytes, more: bytes = b"") -> bytes:
    return b" v=1; a=%b; c=%b; d=example.org; s=sel;%b\n\th=%b;\n\tbh=%%BH%%;\n\tb=%%B%%" % (
        b"rsa-sha256",
        canonicalization,
        more,
        NAMES,
    )


def replaced(name: bytes, value: bytes, fields: list[HeaderField] = FIELDS) -> list[HeaderField]:
    assert any(field.name == name for field in fields)
    return [HeaderField(name, value) if field.name == name else field for field in fields]


def answer(key: Key) -> Answer[bytes]:
    return Answer(Outcome.FOUND, (key.record,))


def diagnose(
    fields: list[HeaderField],
    body: bytes,
    canonicalization: bytes = RELAXED,
    *,
    signed: tuple[list[HeaderField], bytes] = (FIELDS, BODY),
    more: bytes = b"",
    key: Key | None = None,
    work: Work | None = None,
) -> Diagnosis:
    """Sign one message, and look at the signature in another."""
    text = template(canonicalization, more)
    if key is not None:
        text = text.replace(b"rsa-sha256", b"ed25519-sha256")
    field = Forge(key or rsa_key()).sign(*signed, text)
    return Examiner([field, *fields], body, work).examine(field, answer(key or rsa_key()), search=True)


def causes(diagnosis: Diagnosis) -> tuple[set[str] | None, set[str] | None]:
    """Give what was found in the header, and in the body."""
    return tuple(  # type: ignore[return-value]
        None if changes is None else {change.cause.name for change in changes}
        for changes in (diagnosis.header_changes, diagnosis.body_changes)
    )


def test_what_is_intact_is_not_searched():
    found = diagnose(FIELDS, BODY)
    assert (found.header_intact, found.body_intact, found.tries) == (True, True, 0)
    assert causes(found) == (None, None)


# The body ------------------------------------------------------------------------------------------


@BOTH
@pytest.mark.parametrize(
    ("body", "cause"),
    [
        (BODY + b"____\r\nThe list\r\n", "FOOTER"),
        (BODY + b"____\r\n\r\n\r\nThe list\r\n\r\n", "FOOTER"),
        (b"CAUTION\r\n\r\n" + BODY, "BANNER"),
        (BODY.replace(b".a dot", b"one\r\ntwo\r\n.a dot"), "INSERTED"),
        (BODY.replace(b"From ", b">From "), "FROM_QUOTED"),
        (BODY.replace(b".a dot", b"..a dot"), "DOTS_ADDED"),
        (BODY.replace(b"\r\n", b"\n"), "LINE_ENDS"),
        (BODY.replace(b"\r\n", b"\r\r\n", 1), None),
    ],
)
def test_what_was_done_to_the_body(canonicalization, body, cause):
    found = diagnose(FIELDS, body, canonicalization)
    assert (found.header_intact, found.body_intact) == (True, False)
    assert causes(found) == (None, {cause} if cause else None)


@pytest.mark.parametrize(
    ("body", "cause"),
    [
        (BODY.replace(b"well.", b"well. \t"), "BLANKS_ADDED"),
        (BODY.replace(b"-- ", b"--"), "BLANKS_REMOVED"),
        (BODY.replace(b"here on", b"here\ton"), "TABS"),
    ],
)
def test_blanks_matter_where_the_body_is_simple(body, cause):
    assert causes(diagnose(FIELDS, body, SIMPLE))[1] == {cause}


def test_only_what_was_added_is_shown():
    found = diagnose(FIELDS, BODY + b"\r\n____\r\nThe list\r\n")
    assert found.body_changes == [(Cause.FOOTER, b"3 lines: ____")]


@BOTH
@pytest.mark.parametrize("start", [b"From here", b"\r\nhello"])
def test_what_was_taken_from_the_start(canonicalization, start):
    signed = b">" + start if start.startswith(b"F") else start
    body = start.removeprefix(b"\r\n")
    found = diagnose(FIELDS, body, canonicalization, signed=(FIELDS, signed))
    assert causes(found)[1] == {"FROM_UNQUOTED" if start.startswith(b"F") else "EMPTY_LINE_REMOVED"}


@BOTH
def test_an_empty_body_got_a_footer(canonicalization):
    assert causes(diagnose(FIELDS, b"x\r\ny\r\n", canonicalization, signed=(FIELDS, b"")))[1] == {"FOOTER"}


@BOTH
def test_a_long_line_that_postfix_broke(canonicalization):
    line = b"word " * 500
    broken = b"\r\n ".join(line[at : at + 998] for at in range(0, len(line), 998))
    found = diagnose(FIELDS, broken + b"\r\n", canonicalization, signed=(FIELDS, line + b"\r\n"))
    assert causes(found) == (None, {"LONG_LINES"})


def quoted_printable(body: bytes) -> bytes:
    return binascii.b2a_qp(body.replace(b"\r\n", b"\n")).replace(b"\n", b"\r\n")


@BOTH
@pytest.mark.parametrize("footer", [b"", b"____\r\nThe list\r\n"])
@pytest.mark.parametrize("encoding", [b"quoted-printable", b"base64"])
def test_a_message_that_was_downgraded(canonicalization, encoding, footer):
    text = (
        quoted_printable(BODY)
        if encoding == b"quoted-printable"
        else binascii.b2a_base64(BODY)[:-1] + b"\r\n"
    )
    fields = replaced(b"Content-Transfer-Encoding", b" " + encoding)
    if footer and encoding == b"base64":
        footer = b""
    found = diagnose(fields, text + footer, canonicalization)
    assert causes(found) == ({"TRANSFER_ENCODING"}, {"DOWNGRADED", "FOOTER"} if footer else {"DOWNGRADED"})


MULTIPART = replaced(b"Content-Type", b' multipart/mixed;\n\tboundary="b 1"')


def multipart(encoding: bytes, text: bytes, boundary: bytes = b"b 1") -> bytes:
    return (
        b"preamble\r\n--%b\r\nContent-Type: text/plain\r\nContent-Transfer-Encoding: %b\r\n\r\n%b\r\n--%b\r\n"
        b"Content-Type: image/png\r\nContent-Transfer-Encoding: base64\r\n\r\nAAAA\r\n--%b--\r\n"
    ) % (boundary, encoding, text, boundary, boundary)


@BOTH
def test_a_part_that_was_downgraded(canonicalization):
    signed = (MULTIPART, multipart(b"8bit", BODY))
    found = diagnose(
        MULTIPART, multipart(b"quoted-printable", quoted_printable(BODY)), canonicalization, signed=signed
    )
    assert causes(found) == (None, {"DOWNGRADED"})


@BOTH
def test_a_part_was_added(canonicalization):
    signed = multipart(b"8bit", BODY)
    end = b"--b 1--\r\n"
    body = signed.removesuffix(end) + b"--b 1\r\nContent-Type: text/plain\r\n\r\nThe list\r\n" + end
    found = diagnose(MULTIPART, body, canonicalization, signed=(MULTIPART, signed))
    assert causes(found) == (None, {"PART_ADDED"})


@BOTH
def test_a_message_that_was_made_a_part(canonicalization):
    body = (
        b"--out\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: 8bit\r\n\r\n"
        b"%b\r\n--out\r\nContent-Type: text/plain\r\n\r\nThe list\r\n--out--\r\n"
    ) % BODY.removesuffix(b"\r\n")
    fields = replaced(b"Content-Type", b' multipart/mixed; boundary="out"')
    fields = [field for field in fields if field.name != b"Content-Transfer-Encoding"]
    assert causes(diagnose(fields, body, canonicalization)) == ({"CONTENT_TYPE"}, {"WRAPPED"})


@pytest.mark.parametrize(("length", "cause"), [(len(BODY) + 50, None), (len(BODY) - 2, None)])
def test_a_body_of_which_a_part_was_signed(length, cause):
    signed = BODY + b"x" * 48 + b"\r\n"
    found = diagnose(FIELDS, BODY, SIMPLE, signed=(FIELDS, signed), more=b" l=%d;" % length)
    assert found.body_intact is (length < len(BODY))
    assert causes(found)[1] is cause


def test_what_nobody_knows_is_not_found():
    found = diagnose(replaced(b"Subject", b" another"), BODY.replace(b"well", b"evil"))
    assert (found.header_intact, found.body_intact) == (False, False)
    assert causes(found) == (None, None)
    assert 0 < found.tries < 5000


# The header ----------------------------------------------------------------------------------------


@BOTH
@pytest.mark.parametrize(
    ("fields", "cause"),
    [
        (replaced(b"Subject", b" [list] hello wide world"), "PREFIX"),
        (replaced(b"Subject", b" [list 7:3] hello wide world"), "PREFIX"),
        (replaced(b"Subject", b" ***SPAM*** hello wide world"), "PREFIX"),
        (replaced(b"Subject", b" {Spam?} hello wide world"), "PREFIX"),
        (replaced(b"Subject", b" EXTERNAL: hello wide world"), "PREFIX"),
        (replaced(b"Subject", b" hello wide world [EXT]"), "PREFIX"),
        ([HeaderField(b"List-Id", b" <l.example>"), *FIELDS], "FIELD_ADDED"),
        ([HeaderField(b"Reply-To", b" x@example.org"), *FIELDS], "FIELD_ADDED"),
        ([*FIELDS, HeaderField(b"Subject", b" below")], "FIELD_ADDED"),
        (replaced(b"From", b' "Alice" <a@example.org>'), "QUOTES"),
        (
            [HeaderField(b"X-Original-From", FIELDS[0].value), *replaced(b"From", b" l@example.net")],
            "FIELD_REWRITTEN",
        ),
    ],
)
def test_what_was_done_to_the_header(canonicalization, fields, cause):
    found = diagnose(fields, BODY, canonicalization)
    assert (found.header_intact, found.body_intact) == (False, True)
    assert causes(found) == ({cause}, None)


@pytest.mark.parametrize(
    ("fields", "cause"),
    [
        (replaced(b"Subject", b" hello\n wide\n world"), "FOLDED"),
        (replaced(b"Subject", b"\thello wide world"), "FOLDED"),
        (
            [HeaderField(b"Mime-Version", b" 1.0") if f.name == b"MIME-Version" else f for f in FIELDS],
            "NAME_SPELLED",
        ),
    ],
)
def test_how_fields_are_written_matters_where_the_header_is_simple(fields, cause):
    assert causes(diagnose(fields, BODY, SIMPLE))[0] == {cause}
    assert diagnose(fields, BODY, RELAXED).header_intact


def test_a_signature_that_was_folded_anew():
    field = Forge(rsa_key()).sign(FIELDS, BODY, template(SIMPLE))
    other = HeaderField(field.name, field.value.replace(b"\n\t", b"\n "))
    found = Examiner([other, *FIELDS], BODY).examine(other, answer(rsa_key()), search=True)
    assert found.header_changes == [(Cause.FOLDED, b"DKIM-Signature")]


def test_an_empty_field_and_an_encoded_one():
    signed = [*FIELDS, HeaderField(b"Cc", b"")]
    assert causes(diagnose(FIELDS, BODY, signed=(signed, BODY)))[0] == {"EMPTY_FIELD_REMOVED"}
    signed = replaced(b"Subject", " Grüße".encode())
    now = replaced(b"Subject", b" =?UTF-8?Q?Gr=C3=BC=C3=9Fe?=")
    assert causes(diagnose(now, BODY, signed=(signed, BODY)))[0] == {"HEADER_ENCODED"}


@BOTH
@pytest.mark.parametrize("key", [None, ed25519_key()], ids=["rsa", "ed25519"])
def test_a_mailing_list_does_many_things(canonicalization, key):
    fields = [
        HeaderField(b"List-Id", b" <l.example>"),
        HeaderField(b"List-Post", b" <mailto:l@example.net>"),
        HeaderField(b"Sender", b" l-bounces@example.net"),
        HeaderField(b"Reply-To", FIELDS[0].value),
        *replaced(b"Subject", b" [l] hello wide world", replaced(b"From", b" Alice via l <l@example.net>")),
    ]
    found = diagnose(fields, BODY + b"____\r\nThe list\r\n", canonicalization, key=key)
    assert causes(found) == ({"LIST_FIELDS_ADDED", "PREFIX", "FIELD_REWRITTEN"}, {"FOOTER"})


def test_copies_in_the_signature_say_what_was():
    more = b" z=Subject:hello=20wide=20world|To:=20b@example.net|X:y;"
    found = diagnose(replaced(b"Subject", b" goodbye"), BODY, more=more)
    assert causes(found)[0] == {"COPY_DIFFERS"}
    assert found.copies_differ == ((b"subject", b"hello wide world", b" goodbye"),)
    assert read_copies(b"A:=3Db=\n 20c|broken|A:d=zz") == {b"a": [b"=b c", b"d=zz"]}


def test_names_without_a_field_are_said():
    assert diagnose(FIELDS, BODY).missing == (b"cc", b"sender", b"reply-to", b"list-id", b"list-post")


def test_encoded_words():
    assert decode_words(b" =?utf-8?b?w6Q=?=\n =?ISO-8859-1?q?_=E4?= x") == " ä ä x".encode()
    for odd in (b"=?utf-8?b?w6?=", b"=?utf-8?q?=FF?=", b"=?zip?b?AAAA?=", b"=?x"):
        assert decode_words(odd) == odd


# Keys and times ------------------------------------------------------------------------------------


def test_without_a_key_the_body_is_judged_alone():
    field = Forge(rsa_key()).sign(FIELDS, BODY, template(RELAXED))
    for given in (None, Answer(Outcome.NX_DOMAIN), Answer(Outcome.FOUND, (b"v=DKIM1; p=",))):
        found = Examiner([field, *FIELDS], BODY).examine(field, given, search=True)
        assert (found.header_intact, found.body_intact) == (None, True)


def test_the_time_is_left_aside():
    found = diagnose(replaced(b"Subject", b" [x] hello wide world"), BODY, more=b" t=1000; x=2000;")
    assert found.times == {"t": 1000, "x": 2000}
    assert causes(found)[0] == {"PREFIX"}
    times, flaw = read_regardless_of_time(b"v=1; t=5; x=4; d=example.org")
    assert (times, flaw) == ({"t": 5, "x": 4}, Flaw(Reason.TAG_MISSING, "a="))
    assert read_regardless_of_time(b"\0") == (
        {},
        Flaw(Reason.MALFORMED, "a character that no tag-list may hold"),
    )


def test_what_is_no_signature():
    field = HeaderField(b"DKIM-Signature", b"nonsense")
    assert Examiner([field], b"").examine(field, None, search=True) == Diagnosis()


# Canonicalization and bounds -----------------------------------------------------------------------


def test_bodies_are_canonicalized_as_the_rfc_words_it():
    random = Random("diagnosis")
    pieces = [b"a", b" ", b"\t", b"\r\n", b"\r\n", b"\r\n\r\n", b"word", b"  "]
    for _ in range(3000):
        body = b"".join(random.choices(pieces, k=random.randint(0, 12)))
        for each in (b"simple", b"relaxed"):
            assert canonical_body(each, body) == plain_canonical_body(body, each), body


def hostile_bodies() -> list[bytes]:
    return [
        b" " * 5_000_000,
        b"\r\n" * 1_000_000 + b"x",
        b"x\r\n" * 60_000,
        b"\r\n--" * 500_000,
        b"--b\r\n" * 500_000,
        b"--b\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\n=C3\r\n" * 60_000,
        b'boundary="' * 300_000,
        b"boundary=" + b" " * 3_000_000,
        b"=" * 3_000_000,
    ]


@pytest.mark.parametrize("number", range(9))
def test_hostile_bodies_take_seconds_at_most(number):
    fields = replaced(b"Content-Type", b" multipart/mixed; boundary=b")
    started = time.process_time()
    found = diagnose(fields, hostile_bodies()[number])
    assert found.body_intact is False
    assert time.process_time() - started < 6


@pytest.mark.parametrize(
    "value",
    [
        b" [" * 30_000,
        b" " * 60_000,
        b" \t" * 2000 + b"x",
        b"=?utf-8?q?" * 6000,
        b"\n " * 2000,
        b"[x]" * 1300,
        b"*" * 4000,
        b"\xff\x00" * 2000,
    ],
)
def test_hostile_fields_take_seconds_at_most(value):
    fields = [HeaderField(field.name, value) for field in FIELDS] * 20
    started = time.process_time()
    assert causes(diagnose(fields, BODY, SIMPLE))[0] is None
    assert time.process_time() - started < 6


def test_many_signatures_share_the_work():
    work = Work(WORK)
    body = BODY * 500
    started = time.process_time()
    fields = [HeaderField(b"X-%d" % number, b" x") for number in range(20_000)] + FIELDS
    for _ in range(10):
        diagnose(replaced(b"Subject", b" x", fields), body, work=work)
    assert work.left < WORK / 2
    assert time.process_time() - started < 15


def test_nothing_is_tried_without_work():
    found = diagnose(replaced(b"Subject", b" [x] hello wide world"), BODY + b"x\r\n", work=Work(0))
    assert causes(found) == (None, None)
    assert found.tries == 0


def test_each_cause_has_words_of_its_own():
    assert len({cause.value for cause in Cause}) == len(Cause)
    assert all(re.fullmatch(r"[ -~]+", cause.value) for cause in Cause)
