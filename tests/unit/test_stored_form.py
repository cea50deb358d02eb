"""The form of an SRS address whose original is stored, and what lookups ask of the store."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
from base64 import b32encode, b64encode

import pytest

from srsd.address_store import UNAVAILABLE, UNKNOWN, Keep, Recall, StoreError
from srsd.exclusion import ExclusionMap
from srsd.lookup import REWRITTEN, REWRITTEN_LONG, REWRITTEN_STORED, Lookup, LookupParameters
from srsd.srs import Keyring, Refusal, Srs, SrsParameters, Token, parse_srs
from srsd.syntax.address import Address
from srsd.wire.answer import Answer, Status

TODAY = 20780
SECRET = b"tops3cr3t"
LONG = Address(b"u" * 60, b"example.com")
DOMAIN = b"fwd.example.net"


def srs_of(*secrets: bytes, **parameters) -> Srs:
    return Srs(SrsParameters(**parameters), Keyring(secrets or [SECRET]))


def lookup_of(envelope: str, *secrets: bytes, **parameters) -> Lookup:
    wanted = LookupParameters(domain=DOMAIN.decode(), envelope=envelope)
    return Lookup(wanted, srs_of(*secrets, **parameters), ExclusionMap())


def expected_local_part(text: bytes, stamp: bytes = b"JM", length: int = 4, separator: bytes = b"=") -> bytes:
    """Make the form once more, of its description."""
    token = b32encode(hmac.digest(SECRET, b"\0stored\0" + text, hashlib.sha1)[:10]).lower()
    signed = (stamp + b"_" + token).lower()
    digest = b64encode(hmac.digest(SECRET, signed, hashlib.sha1), altchars=b"-_")[:length]
    return b"SRS0" + separator + b"=".join((digest, stamp, b"_", token))


@pytest.mark.parametrize("separator", ["=", "+", "-"])
@pytest.mark.parametrize("length", [4, 27])
def test_the_form(separator, length):
    srs = srs_of(separator=separator, hash_length=length)
    made = srs.forward_stored(LONG, TODAY)
    assert made.local_part == expected_local_part(bytes(LONG), length=length, separator=separator.encode())
    assert made.original == LONG
    assert len(made.local_part) <= 64
    assert srs.reverse(made.local_part, TODAY) == made.token
    assert isinstance(srs.reverse(made.local_part.upper(), TODAY), Token)
    assert srs.reverse(made.local_part.upper(), TODAY) == made.token


@pytest.mark.parametrize("age", [0, 21])
def test_the_token_is_the_same_on_every_day_and_the_stamp_is_not(age):
    srs = srs_of()
    now, then = srs.forward_stored(LONG, TODAY), srs.forward_stored(LONG, TODAY - age)
    assert now.token == then.token
    assert (now.local_part == then.local_part) is (age == 0)
    assert srs.reverse(then.local_part, TODAY) == now.token


@pytest.mark.parametrize("age", [22, -1])
def test_age_is_judged_as_with_every_srs_address(age):
    assert srs_of().reverse(srs_of().forward_stored(LONG, TODAY - age).local_part, TODAY) is Refusal.EXPIRED


def test_the_case_of_an_original_makes_another_token():
    tokens = {
        srs_of().forward_stored(each, TODAY).token for each in (LONG, Address(b"U" * 60, b"example.com"))
    }
    assert len(tokens) == 2


def test_any_secret_verifies_and_the_first_makes_tokens():
    old, new = srs_of(b"old"), srs_of(b"new", b"old")
    made = old.forward_stored(LONG, TODAY)
    assert new.reverse(made.local_part, TODAY) == made.token
    assert new.forward_stored(LONG, TODAY).token != made.token
    assert srs_of(b"new").reverse(made.local_part, TODAY) is Refusal.HASH_INVALID


@pytest.mark.parametrize(
    ("address", "original"),
    [
        (Address(b"SRS0=HHHH=TT=a=b", b"mid.example"), Address(b"SRS0=HHHH=TT=a=b", b"mid.example")),
        (
            Address(b"SRS1=HHHH=first.example==HHHH=TT=a=b", b"mid.example"),
            Address(b"SRS0=HHHH=TT=a=b", b"first.example"),
        ),
        (
            Address(b"srs1+HHHH=first.example=+HHHH=TT=a=b", b"mid.example"),
            Address(b"SRS0+HHHH=TT=a=b", b"first.example"),
        ),
        (Address(b"a b", b"x.example"), Address(b"a b", b"x.example")),
    ],
)
def test_what_is_stored_is_what_the_other_form_is_reversed_to(address, original):
    srs = srs_of()
    assert srs.forward_stored(address, TODAY).original == original
    assert srs.reverse(srs.forward(address, TODAY), TODAY) == original


@pytest.mark.parametrize(
    ("address", "refusal"),
    [
        (Address(b"a", b"ex=ample.com"), Refusal.DOMAIN),
        (Address(b"a", b""), Refusal.DOMAIN),
        (Address(b"a", b"_"), Refusal.DOMAIN),
        (Address(b"", b"example.com"), Refusal.MALFORMED),
        (Address(b"SRS1=HHHH", b"mid.example"), Refusal.MALFORMED),
    ],
)
def test_what_cannot_be_rewritten_is_not_stored_either(address, refusal):
    assert srs_of().forward_stored(address, TODAY) is refusal
    assert srs_of().forward(address, TODAY) is refusal


@pytest.mark.parametrize(
    "token",
    [
        b"abcdefgh234567ab"[:-1],
        b"abcdefgh234567aba",
        b"abcdefgh234567a1",
        b"abcdefgh234567a=",
        b"abcdefgh234567\xe4\xe4",
    ],
)
def test_a_token_has_one_shape(token):
    assert parse_srs(b"SRS0=HHHH=JM=_=" + token) is Refusal.MALFORMED


def test_the_mark_means_nothing_where_another_forwarder_stands():
    fields = parse_srs(b"SRS1=HHHH=_==HHHH=TT=a=b")
    assert not isinstance(fields, Refusal)
    assert not fields.stored


# Lookups ---------------------------------------------------------------------------------------


def local_part_of(octets: int) -> bytes:
    """Give the local-part at example.com whose SRS0 has so many octets."""
    return b"x" * (octets - 14 - len(b"example.com"))


@pytest.mark.parametrize(
    ("envelope", "octets", "reason"),
    [
        ("embedded", 64, REWRITTEN),
        ("embedded", 65, REWRITTEN_LONG),
        ("auto", 64, REWRITTEN),
        ("auto", 65, REWRITTEN_STORED),
        ("stored", 30, REWRITTEN_STORED),
        ("stored", 65, REWRITTEN_STORED),
    ],
)
def test_what_is_stored_under_which_setting(envelope, octets, reason):
    key = local_part_of(octets) + b"@example.com"
    answer = lookup_of(envelope).forward(key, TODAY)
    assert isinstance(answer, Keep) is (reason is REWRITTEN_STORED)
    if isinstance(answer, Keep):
        assert (answer.address, answer.expires) == (key, TODAY + 21)
        answer = answer.answer
    assert (answer.status, answer.reason) == (Status.FOUND, reason)
    local_part, _, domain = answer.text.rpartition(b"@")
    assert (len(local_part) <= 64) is (reason is not REWRITTEN_LONG)
    assert domain == DOMAIN


def test_quotes_count():
    key = b'"' + local_part_of(62).replace(b"x", b" ", 1) + b'"@example.com'
    assert isinstance(lookup_of("auto").forward(key, TODAY), Answer)
    longer = b'"' + local_part_of(63).replace(b"x", b" ", 1) + b'"@example.com'
    assert isinstance(lookup_of("auto").forward(longer, TODAY), Keep)


@pytest.mark.parametrize("envelope", ["embedded", "stored", "auto"])
def test_a_token_is_recalled_whatever_the_setting_is_now(envelope):
    made = lookup_of("stored").forward(b"alice@example.com", TODAY)
    lookup = lookup_of(envelope)
    recall = lookup.reverse(made.answer.text.upper(), TODAY)
    assert recall == Recall(made.token)
    assert lookup.forward(made.answer.text, TODAY).reason == "already rewritten here"
    assert lookup.reverse(made.answer.text.replace(b"fwd.", b"sub.fwd."), TODAY).reason.startswith(
        "SRS address of"
    )


@pytest.mark.parametrize("envelope", ["stored", "auto"])
def test_other_reasons_come_first(envelope):
    lookup = lookup_of(envelope)
    for key, reason in (
        (b'""', "null sender"),
        (b"a" * 70 + b"@fwd.example.net", "own domain"),
        (b"a" * 70, "not an address"),
    ):
        assert lookup.forward(key, TODAY).reason == reason


class Shelf:
    """A store in memory, or one that is broken."""

    def __init__(self, *, works: bool = True) -> None:
        self.works = works
        self.kept: dict[bytes, tuple[bytes, int]] = {}

    async def keep(self, token: bytes, address: bytes, expires: int) -> None:
        self._check()
        self.kept[token] = (address, expires)

    async def recall(self, token: bytes) -> bytes | None:
        self._check()
        return self.kept.get(token, (None, 0))[0]

    def _check(self) -> None:
        if not self.works:
            raise StoreError("broken")


def settle(pending: Keep | Recall, store: Shelf | None) -> Answer:
    return asyncio.run(pending.settle(store))


def test_there_and_back():
    lookup, shelf = lookup_of("stored"), Shelf()
    keep = lookup.forward(b'"a b"@example.com', TODAY)
    recall = lookup.reverse(keep.answer.text, TODAY)
    assert settle(recall, shelf) == UNKNOWN
    assert settle(keep, shelf) == keep.answer
    back = settle(recall, shelf)
    assert (back.status, back.text) == (Status.FOUND, b'"a b"@example.com')


@pytest.mark.parametrize("store", [None, Shelf(works=False)], ids=["none", "broken"])
def test_without_a_store_nothing_leaves(store):
    lookup = lookup_of("stored")
    keep = lookup.forward(b"alice@example.com", TODAY)
    assert settle(keep, store) == UNAVAILABLE
    assert UNAVAILABLE.status is Status.TEMPORARY
    # Where nothing was ever stored, a token is unknown for good.
    assert settle(lookup.reverse(keep.answer.text, TODAY), store) == (
        UNKNOWN if store is None else UNAVAILABLE
    )
