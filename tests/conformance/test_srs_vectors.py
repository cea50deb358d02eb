"""SRS as others make it: vectors with the answers of Mail::SRS, pysrs, PostSRSd, pfix-srsd and srslib.

Where all of them agree (but for `+/` or `-_` in the hash) so do we, on the level of srs.py: which
domains are ours is not asked there. Where they do not agree, DECIDED says what we do, and why.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from srsd.exclusion import ExclusionMap
from srsd.lookup import Lookup, LookupParameters
from srsd.srs import Keyring, Refusal, Srs, SrsParameters
from srsd.syntax.address import Address, parse_address
from srsd.wire.answer import Status

FILE = Path(__file__).parents[3] / "shared/vectors/srs.json"
VECTORS: dict[str, dict[str, Any]] = (
    {vector["id"]: vector for vector in json.loads(FILE.read_text("utf-8"))["vectors"]}
    if FILE.exists()
    else {}
)
CONSENSUS = [name for name, vector in VECTORS.items() if vector["consensus_modulo_b64url"]]
OTHERS = [name for name in VECTORS if name not in CONSENSUS]

pytestmark = pytest.mark.skipif(not VECTORS, reason=f"{FILE} is absent: the SRS vectors were not checked")

_SRS_HASH = re.compile(rb'^("?SRS[01][-+=])([^=]*)')


def url_safe(address: bytes) -> bytes:
    """Spell the hash as we emit it; every other octet stays."""
    return _SRS_HASH.sub(lambda match: match[1] + match[2].replace(b"+", b"-").replace(b"/", b"_"), address)


def srs_of(vector: dict[str, Any]) -> Srs:
    parameters = SrsParameters(
        separator=vector["separator"],
        hash_length=vector["hash_length"],
        hash_minimum=vector["hash_min"],
        maximum_age=vector["max_age"],
    )
    return Srs(parameters, Keyring([secret.encode() for secret in vector["secrets"]]))


def lookup_of(vector: dict[str, Any]) -> Lookup:
    parameters = LookupParameters(domain=vector["alias"], always_rewrite=vector["always_rewrite"])
    return Lookup(parameters, srs_of(vector), ExclusionMap())


def today_of(vector: dict[str, Any]) -> int:
    return vector["now"] // 86400


def by_srs(vector: dict[str, Any]) -> bytes | None:
    """Give what srs.py makes of the input, without quoting; None for a refusal."""
    address = parse_address(vector["input"].encode())
    if address is None:
        return None
    srs = srs_of(vector)
    if vector["op"] == "forward":
        local_part = srs.forward(address, today_of(vector))
        return None if isinstance(local_part, Refusal) else local_part + b"@" + vector["alias"].encode()
    original = srs.reverse(address.local_part, today_of(vector))
    return original.local_part + b"@" + original.domain if isinstance(original, Address) else None


@pytest.mark.parametrize("name", CONSENSUS)
def test_where_all_agree_so_do_we(name):
    vector = VECTORS[name]
    expected = vector["expected"]
    found = by_srs(vector)
    if expected is None:
        assert found is None
    elif vector["op"] == "forward":
        assert found == url_safe(expected.encode())
    else:
        assert found == expected.encode()


@pytest.mark.parametrize(
    "name", [name for name in CONSENSUS if VECTORS[name]["op"] == "forward" and VECTORS[name]["expected"]]
)
def test_what_the_others_make_is_reversed(name):
    vector = VECTORS[name]
    address = parse_address(vector["expected"].encode())
    assert address is not None
    original = srs_of(vector).reverse(address.local_part, today_of(vector))
    assert isinstance(original, Address)
    if not vector["input"].startswith("SRS1"):  # those go straight back to the first forwarder
        assert original.local_part + b"@" + original.domain == vector["input"].encode()


class Decision(NamedTuple):
    """What the whole lookup answers: its result, or the reason for which it is not found."""

    result: str | None
    answer: str
    why: str


MIDDLE = "all but pfix-srsd, whose libsrs2 keeps the old hash and doubles the text"
NOT_OURS = "not an address"
DECIDED = {
    "fwd-quoted-at": Decision(
        '"SRS0=WY8w=JM=example.com=a@b"@fwd.example.net',
        "rewritten",
        "unquoted, signed, quoted as a whole, as pysrs does; the others make an address that is lost",
    ),
    "fwd-quoted-empty": Decision(None, NOT_OURS, "an empty local-part cannot be reversed"),
    "fwd-utf8-upper": Decision(
        "SRS0=92EB=JM=example.com=JOSÉ@fwd.example.net",
        "rewritten",
        "only ASCII letters are folded for the hash, octet for octet as all but srslib",
    ),
    "fwd-empty-domain": Decision(None, NOT_OURS, "no domain: could not be reversed"),
    "fwd-same-domain-case": Decision(
        None, "own domain", "never found with the key unchanged: it would make unknown senders known"
    ),
    "fwd-srs1-foreign": Decision(
        "SRS1=z4TA=first.example==HHHH=TT=orig.example=user@fwd.example.net", "rewritten", MIDDLE
    ),
    "fwd-srs1-foreign-minus": Decision(
        "SRS1=9NG4=first.example=-HHHH=TT=orig.example=user@fwd.example.net", "rewritten", MIDDLE
    ),
    "fwd-plus-srs1-foreign": Decision(
        "SRS1+z4TA=first.example==HHHH=TT=orig.example=user@fwd.example.net", "rewritten", MIDDLE
    ),
    "fwd-minus-srs1-foreign": Decision(
        "SRS1-z4TA=first.example==HHHH=TT=orig.example=user@fwd.example.net", "rewritten", MIDDLE
    ),
    "fwd-srs1-malformed": Decision(
        None, "malformed SRS address", "its bounce could reach nobody; and it is not found, never PERM"
    ),
    "rev-hash-lead-plus-b64url": Decision("user3@example.com", "reversed", "we emit - and _ ourselves"),
    "rev-hash-plus-b64url": Decision("user5@example.com", "reversed", "we emit - and _ ourselves"),
    "rev-hash-lead-slash-b64url": Decision("user57@example.com", "reversed", "we emit - and _ ourselves"),
    "rev-hash-slash-b64url": Decision("user67@example.com", "reversed", "we emit - and _ ourselves"),
    "rev-empty-local": Decision(None, "malformed SRS address", "nobody can be reached without local-part"),
    "rev-srs1-malformed": Decision(None, "malformed SRS address", "`SRS0@` is no address"),
    "rev-short-hash": Decision(None, "hash too short", "fewer characters than hash_minimum"),
    "rev-long-hash-correct": Decision(
        "alice@example.com", "reversed", "every character given is right, so it is stronger, not weaker"
    ),
}


def test_all_that_differ_are_decided():
    assert sorted(DECIDED) == sorted(OTHERS)


@pytest.mark.parametrize("name", DECIDED)
def test_where_they_differ_we_answer_as_decided(name):
    vector, decision = VECTORS[name], DECIDED[name]
    lookup = lookup_of(vector)
    resolve = lookup.forward if vector["op"] == "forward" else lookup.reverse
    answer = resolve(vector["input"].encode(), today_of(vector))
    assert answer.reason == decision.answer, decision.why
    if decision.result is None:
        assert answer.status is Status.NOT_FOUND, decision.why
    else:
        assert (answer.status, answer.text) == (Status.FOUND, decision.result.encode()), decision.why


# Consensus vectors in which the whole lookup says more, or other, than srs.py alone.
BY_LOOKUP = {
    "fwd-no-at": (None, NOT_OURS),
    "fwd-ipv6-literal": ('"SRS0=IX_W=JM=[IPv6:2001:db8::1]=user"@fwd.example.net', "rewritten"),
    "rev-other-alias": (None, "SRS address of another domain"),
    "rev-not-srs": (None, "not an SRS address"),
    "rev-quoted-escaped": ('"\\"a\\\\\\"b\\""@example.com', "reversed"),  # the quotes were signed as text
    "rev-ipv4-literal": ("user@[192.0.2.1]", "reversed"),
    "rev-age-22d": (None, "address expired"),
    "rev-age--2d": (None, "address expired"),
    "rev-unknown-secret": (None, "hash invalid"),
    "rev-tampered-user": (None, "hash invalid"),
    "rev-stamp-AAAAAA40": (None, "malformed SRS address"),
}


@pytest.mark.parametrize("name", BY_LOOKUP)
def test_what_the_whole_lookup_answers(name):
    result, reason = BY_LOOKUP[name]
    vector = VECTORS[name]
    lookup = lookup_of(vector)
    resolve = lookup.forward if vector["op"] == "forward" else lookup.reverse
    answer = resolve(vector["input"].encode(), today_of(vector))
    found = answer.text.decode() if answer.status is Status.FOUND else None
    assert (found, answer.reason.partition(",")[0]) == (result, reason)
