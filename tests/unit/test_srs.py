"""SRS local-parts: made, parsed, judged, explained; and the secrets behind them."""

from __future__ import annotations

import base64
import hashlib
import hmac

import pytest

from srsd.srs import (
    Keyring,
    Refusal,
    Srs,
    SrsFields,
    SrsParameters,
    fingerprint,
    is_srs,
    parse_secrets,
    parse_srs,
)
from srsd.syntax.address import Address

TODAY = 20780  # 2026-11-23
ALICE = Address(b"alice", b"example.com")


def make(*secrets: bytes, **parameters) -> Srs:
    return Srs(SrsParameters(**parameters), Keyring(secrets or (b"tops3cr3t",)))


def hash_of(text: bytes, secret: bytes = b"tops3cr3t") -> bytes:
    """Make a hash as Mail::SRS does, by another way than ours."""
    return base64.b64encode(hmac.digest(secret, text.lower(), hashlib.sha1))[:27]


# Ages ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("age", range(22))
def test_an_address_is_good_up_to_the_maximum_age(age):
    srs = make()
    assert srs.reverse(srs.forward(ALICE, TODAY - age), TODAY) == ALICE


@pytest.mark.parametrize("age", [22, 23, 100, 511, 512, 513, 1000, 1022, 1023, -1, -2, -21, -500])
def test_an_older_or_future_address_is_refused(age):
    srs = make()
    assert srs.reverse(srs.forward(ALICE, TODAY - age), TODAY) is Refusal.EXPIRED


@pytest.mark.parametrize("today", [0, 1, 5, 1023, 1024, 1025, 2047, 2048, 20480, 20481])
@pytest.mark.parametrize("age", [0, 1, 21, 22])
def test_days_are_counted_modulo_1024(today, age):
    srs = make()
    made = srs.forward(ALICE, today - age + 1024)
    assert srs.reverse(made, today + 1024) == (ALICE if age <= 21 else Refusal.EXPIRED)


@pytest.mark.parametrize(
    ("today", "stamp"),
    [(0, b"AA"), (1, b"AB"), (31, b"A7"), (32, b"BA"), (1023, b"77"), (1024, b"AA"), (TODAY, b"JM")],
)
def test_the_stamp_is_the_day_in_base_32(today, stamp):
    assert make().forward(ALICE, today).split(b"=")[2] == stamp


@pytest.mark.parametrize(("maximum_age", "good"), [(1, (0, 1)), (7, (0, 7)), (1023, (0, 500, 1023))])
def test_the_maximum_age_is_configured(maximum_age, good):
    srs = make(maximum_age=maximum_age)
    for age in good:
        assert srs.reverse(srs.forward(ALICE, TODAY - age), TODAY) == ALICE
    if maximum_age < 1023:
        assert srs.reverse(srs.forward(ALICE, TODAY - maximum_age - 1), TODAY) is Refusal.EXPIRED


def test_srs1_has_no_age():
    srs = make()
    made = srs.forward(Address(b"SRS0=HHHH=TT=a=b", b"mid.example"), TODAY)
    assert srs.reverse(made, TODAY + 500) == (b"SRS0=HHHH=TT=a=b", b"mid.example")


# Hashes ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("length", range(1, 28))
def test_every_length_of_hash(length):
    srs = make(hash_length=length, hash_minimum=length)
    made = srs.forward(ALICE, TODAY)
    expected = hash_of(b"JMexample.comalice")[:length].translate(bytes.maketrans(b"+/", b"-_"))
    assert made == b"SRS0=" + expected + b"=JM=example.com=alice"
    assert srs.reverse(made, TODAY) == ALICE


@pytest.mark.parametrize(
    ("minimum", "given", "outcome"),
    [
        (4, 4, ALICE),
        (4, 3, Refusal.HASH_TOO_SHORT),
        (4, 1, Refusal.HASH_TOO_SHORT),
        (4, 5, ALICE),  # longer, and every character right
        (4, 27, ALICE),
        (8, 7, Refusal.HASH_TOO_SHORT),
        (8, 8, ALICE),
        (1, 1, ALICE),
        (27, 26, Refusal.HASH_TOO_SHORT),
        (27, 27, ALICE),
    ],
)
def test_a_hash_has_a_minimum(minimum, given, outcome):
    srs = make(hash_length=minimum, hash_minimum=minimum)
    made = b"SRS0=" + hash_of(b"JMexample.comalice")[:given] + b"=JM=example.com=alice"
    assert srs.reverse(made, TODAY) == outcome


WHOLE = hash_of(b"JMexample.comalice")


@pytest.mark.parametrize(
    "given",
    [
        WHOLE[:4] + b"ZZZZ",  # PostSRSd takes it
        WHOLE[:26] + b"!",
        WHOLE + b"A",
        WHOLE + b"\0",
        b"AAAA",
        b"....",
        b"\xff\xff\xff\xff",
        WHOLE[1:5],
        WHOLE * 1000,
    ],
)
def test_a_wrong_hash_is_refused(given):
    refusal = make().reverse(b"SRS0=" + given + b"=JM=example.com=alice", TODAY)
    assert refusal is (Refusal.HASH_INVALID if b"." not in given else refusal)
    assert isinstance(refusal, Refusal)


@pytest.mark.parametrize(
    ("user", "octet"), [(b"user3", b"+"), (b"user5", b"+"), (b"user57", b"/"), (b"user67", b"/")]
)
def test_both_alphabets_are_read_and_the_safe_one_is_emitted(user, octet):
    srs = make()
    standard = hash_of(b"JMexample.com" + user)[:4]
    assert octet in standard
    safe = standard.replace(b"+", b"-").replace(b"/", b"_")
    assert srs.forward(Address(user, b"example.com"), TODAY) == b"SRS0=" + safe + b"=JM=example.com=" + user
    for spelt in (standard, safe, standard.lower(), safe.lower(), standard.upper(), safe.upper()):
        made = b"SRS0=" + spelt + b"=JM=example.com=" + user
        assert srs.reverse(made, TODAY) == (user, b"example.com")


def test_plus_is_not_slash():
    standard = hash_of(b"JMexample.comuser3")[:4]
    swapped = standard.translate(bytes.maketrans(b"+/", b"/+"))
    assert make().reverse(b"SRS0=" + swapped + b"=JM=example.com=user3", TODAY) is Refusal.HASH_INVALID


@pytest.mark.parametrize("smash", [bytes.lower, bytes.upper, bytes.swapcase])
def test_case_smashed_addresses_are_reversed(smash):
    srs = make()
    made = smash(srs.forward(Address(b"Alice.B", b"Example.COM"), TODAY))
    assert srs.reverse(made, TODAY) == (smash(b"Alice.B"), smash(b"Example.COM"))


def test_only_ascii_is_folded_for_the_hash():
    srs = make()
    made = srs.forward(Address("JOSÉ".encode(), b"example.com"), TODAY)
    assert isinstance(srs.reverse(made.lower(), TODAY), Address)  # bytes.lower leaves É alone
    assert srs.reverse(made.decode().lower().encode(), TODAY) is Refusal.HASH_INVALID


# What is carried -------------------------------------------------------------------------------


@pytest.mark.parametrize("separator", ["=", "+", "-"])
@pytest.mark.parametrize("read", [b"=", b"+", b"-"])
def test_all_separators_are_read(separator, read):
    srs = make(separator=separator)
    made = srs.forward(ALICE, TODAY)
    assert made[4:5] == separator.encode()
    assert srs.reverse(made[:4] + read + made[5:], TODAY) == ALICE


@pytest.mark.parametrize(
    "user",
    [b"a", b"=", b"a=b=c", b"=a=", b"a b", b'"', b"a@b", b"\xff", b"SRS2=x", b"SRS0", b"SRS0x", b"." * 500],
)
def test_any_user_comes_back(user):
    srs = make()
    assert srs.reverse(srs.forward(Address(user, b"example.com"), TODAY), TODAY) == (user, b"example.com")


@pytest.mark.parametrize(
    "domain",
    [b"a", b"A.B", b"example.com.", b"[192.0.2.7]", b"[IPv6:::1]", b"\xff", b"a-b_c", "ü.x".encode()],
)
def test_any_carriable_domain_comes_back(domain):
    srs = make()
    assert srs.reverse(srs.forward(Address(b"u", domain), TODAY), TODAY) == (b"u", domain)


@pytest.mark.parametrize("octet", [bytes((octet,)) for octet in b'@="' + b" \t\r\n\v\f"])
@pytest.mark.parametrize("user", [b"u", b"SRS0=HHHH=TT=a=b"])
def test_a_domain_that_cannot_be_carried_is_refused(octet, user):
    for domain in (octet, b"a" + octet, octet + b"a", b"a" + octet + b"a"):
        assert make().forward(Address(user, domain), TODAY) is Refusal.DOMAIN


def test_nothing_empty_is_rewritten():
    assert make().forward(Address(b"u", b""), TODAY) is Refusal.DOMAIN
    assert make().forward(Address(b"", b"example.com"), TODAY) is Refusal.MALFORMED


# SRS1 ------------------------------------------------------------------------------------------

SRS1_FORWARD = [
    (b"SRS0=HHHH=TT=a=b@mid.example", b"mid.example==HHHH=TT=a=b"),
    (b"SRS0+HHHH=TT=a=b@mid.example", b"mid.example=+HHHH=TT=a=b"),
    (b"SRS0-HHHH=TT=a=b@mid.example", b"mid.example=-HHHH=TT=a=b"),
    (b"srs0=hhhh=tt=a=b@MID.example", b"MID.example==hhhh=tt=a=b"),
    (b"SRS0=opaque@mid.example", b"mid.example==opaque"),
    (b"SRS1=HHHH=first.example==H2=TT=a=b@mid.example", b"first.example==H2=TT=a=b"),
    (b"srs1+HHHH=first.example=-H2=TT=a=b@mid.example", b"first.example=-H2=TT=a=b"),
]


@pytest.mark.parametrize(("sender", "carried"), SRS1_FORWARD)
@pytest.mark.parametrize("separator", ["=", "+", "-"])
def test_the_address_of_another_forwarder_becomes_srs1(sender, carried, separator):
    srs = make(separator=separator, hash_length=12)
    made = srs.forward(Address(*sender.rsplit(b"@", 1)), TODAY)
    host, _, rest = carried.partition(b"=")
    expected = hash_of(host + rest)[:12].translate(bytes.maketrans(b"+/", b"-_"))
    assert made == b"SRS1" + separator.encode() + expected + b"=" + carried
    assert srs.reverse(made, TODAY) == (b"SRS0" + rest, host)


@pytest.mark.parametrize(
    "local_part",
    [
        b"SRS1=",
        b"SRS1=HHHH",
        b"SRS1=HHHH=first.example",
        b"SRS1=HHHH==rest",
        b"SRS1=HHHH===rest",  # no host
        b"SRS1==first.example==rest",  # no hash
        b"SRS1=HHHH=first.example=rest",  # would come back as SRS0rest
        b"SRS1=HHHH=first.example=",
        b"SRS1=first.example==H2=TT=a=b",  # without a hash, as before Mail::SRS 0.28
        b"SRS1=first.example=HHHH=TT=a=b",
        b"SRS1=first.example=host==HHHH=TT=a=b",  # only the dot tells that it has no hash
        b"SRS1=HHHH=fi rst.example==rest",
        b"SRS1=HHHH=fi@rst.example==rest",
    ],
)
def test_a_malformed_srs1_is_neither_rewritten_nor_reversed(local_part):
    assert make().forward(Address(local_part, b"mid.example"), TODAY) is Refusal.MALFORMED
    assert make().reverse(local_part, TODAY) is Refusal.MALFORMED


# The shape -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("local_part", "fields"),
    [
        (b"SRS0=H=TT=d=u", (b"SRS0", b"H", b"TT", b"d", b"u")),
        (b"srs0-h=t2=d==u=", (b"SRS0", b"h", b"t2", b"d", b"=u=")),
        (b"SrS1+H=d=+x=y", (b"SRS1", b"H", b"", b"d", b"+x=y")),
    ],
)
def test_fields(local_part, fields):
    assert parse_srs(local_part) == SrsFields(*fields)


@pytest.mark.parametrize(
    ("local_part", "refusal"),
    [
        (b"", Refusal.NOT_SRS),
        (b"alice", Refusal.NOT_SRS),
        (b"SRS0", Refusal.NOT_SRS),
        (b"SRS1", Refusal.NOT_SRS),
        (b"SRS2=H=TT=d=u", Refusal.NOT_SRS),
        (b"SRS0.H=TT=d=u", Refusal.NOT_SRS),
        (b"SRS0H=TT=d=u", Refusal.NOT_SRS),
        (b"xSRS0=H=TT=d=u", Refusal.NOT_SRS),
        (b"SRS0=", Refusal.MALFORMED),
        (b"SRS0=H", Refusal.MALFORMED),
        (b"SRS0=H=TT", Refusal.MALFORMED),
        (b"SRS0=H=TT=d", Refusal.MALFORMED),
        (b"SRS0=H=TT=d=", Refusal.MALFORMED),
        (b"SRS0=H=TT==u", Refusal.MALFORMED),
        (b"SRS0==TT=d=u", Refusal.MALFORMED),
        (b"SRS0=H==d=u", Refusal.MALFORMED),
        (b"SRS0=H=T=d=u", Refusal.MALFORMED),
        (b"SRS0=H=TTT=d=u", Refusal.MALFORMED),
        (b"SRS0=H=" + b"A" * 100_000 + b"=d=u", Refusal.MALFORMED),
        (b"SRS0=H=T1=d=u", Refusal.MALFORMED),
        (b"SRS0=H=T8=d=u", Refusal.MALFORMED),
        (b"SRS0=H=\xc3\xa9=d=u", Refusal.MALFORMED),
        (b"SRS0=H=TT=d d=u", Refusal.MALFORMED),
        (b'SRS0=H=TT=d"=u', Refusal.MALFORMED),
        (b"SRS0=H=TT=d@d=u", Refusal.MALFORMED),
    ],
)
def test_the_shape_is_held_strictly(local_part, refusal):
    assert parse_srs(local_part) is refusal
    assert make().reverse(local_part, TODAY) is refusal
    assert is_srs(local_part) is (refusal is not Refusal.NOT_SRS)


# Secrets ---------------------------------------------------------------------------------------


def test_the_first_secret_signs_and_all_verify():
    old, new = make(b"old"), make(b"new", b"older", b"old")
    assert new.reverse(old.forward(ALICE, TODAY), TODAY) == ALICE
    assert old.reverse(new.forward(ALICE, TODAY), TODAY) is Refusal.HASH_INVALID
    assert new.forward(ALICE, TODAY) == make(b"new").forward(ALICE, TODAY)


def test_which_secret_made_it():
    keyring = Keyring([b"one", b"two", b"three"])
    for index, secret in enumerate((b"one", b"two", b"three")):
        assert keyring.which(b"text", hash_of(b"text", secret)[:4]) == index
    assert keyring.which(b"text", b"none") is None


@pytest.mark.parametrize("secret", [b"x", b" ", b"#", b"a" * 64, b"a" * 65, b"\xff\0", b"a" * 10_000])
def test_any_secret_signs(secret):
    assert Keyring([secret]).sign(b"Text") == hash_of(b"text", secret).translate(
        bytes.maketrans(b"+/", b"-_")
    )


@pytest.mark.parametrize("secrets", [[], [b""], [b"good", b""]])
def test_there_is_never_an_empty_secret(secrets):
    with pytest.raises(ValueError, match="secret"):
        Keyring(secrets)


@pytest.mark.parametrize(
    ("data", "secrets"),
    [
        (b"", []),
        (b"\n\n", []),
        (b" \t\r\n", []),
        (b"one", [b"one"]),
        (b"one\n", [b"one"]),
        (b"one\r\ntwo\r\n", [b"one", b"two"]),
        (b"\n \n one\t \n\ntwo \r\n", [b"one", b"two"]),
        (b"# no comment\n", [b"# no comment"]),
        (b"with blank\n", [b"with blank"]),
        (b"one\ntwo\none\n", [b"one", b"two"]),
        (b"\xff\xfe\n", [b"\xff\xfe"]),
        (b"\x0bvt\x0c\n", [b"\x0bvt\x0c"]),  # only space, tab and CR are trimmed
    ],
)
def test_a_file_of_secrets(data, secrets):
    assert parse_secrets(data) == secrets


def test_a_fingerprint_names_a_secret_and_does_not_tell_it():
    assert fingerprint(b"one") != fingerprint(b"two")
    assert Keyring([b"one", b"two"]).fingerprints == (fingerprint(b"one"), fingerprint(b"two"))
    assert len(fingerprint(b"one")) == 12
    assert hashlib.sha256(b"one").hexdigest()[:12] != fingerprint(b"one")


# Explaining ------------------------------------------------------------------------------------


def examine(local_part: bytes, *secrets: bytes):
    return make(*secrets).examine(local_part, TODAY)


def test_examine_a_good_one():
    made = make().forward(ALICE, TODAY - 3)
    examination = examine(made, b"new", b"tops3cr3t")
    assert examination.refusal is None
    assert examination.fields == parse_srs(made)
    assert (examination.secret, examination.age, examination.damaged) == (1, 3, False)


def test_examine_an_expired_one():
    examination = examine(make().forward(ALICE, TODAY - 30))
    assert (examination.refusal, examination.secret, examination.age) == (Refusal.EXPIRED, 0, 30)


def test_examine_one_of_the_future():
    assert examine(make().forward(ALICE, TODAY + 2)).age == 1022


@pytest.mark.parametrize(
    ("given", "damaged"),
    [
        (WHOLE[:3] + b"!", True),
        (WHOLE[:3] + (b"A" if WHOLE[3:4] != b"A" else b"B"), True),  # one character off
        (b"A" * 28, True),  # longer than any hash
        (WHOLE[:1] + b"%%" + WHOLE[3:4], True),
        (b"AAAA", False),
        (b"zzzzzzzz", False),
    ],
)
def test_examine_a_wrong_hash(given, damaged):
    examination = examine(b"SRS0=" + given + b"=JM=example.com=alice")
    assert (examination.refusal, examination.secret) == (Refusal.HASH_INVALID, None)
    assert examination.damaged is damaged


def test_examine_srs1_and_what_is_malformed():
    made = make().forward(Address(b"SRS0=H=TT=a=b", b"mid.example"), TODAY)
    examination = examine(made)
    assert (examination.refusal, examination.secret, examination.age) == (None, 0, None)
    assert examine(b"SRS0=x") == (Refusal.MALFORMED, None, None, None, False)


def test_a_scheme_without_separators_in_what_is_signed():
    """Hold what every implementation shares: the text signed has no boundaries between its fields.

    So a boundary may move within it. It reaches an address whose octets were all signed.
    """
    srs = make()
    made = srs.forward(ALICE, TODAY)
    moved = made.replace(b"example.com=alice", b"example.co=malice")
    assert srs.reverse(moved, TODAY) == (b"malice", b"example.co")
