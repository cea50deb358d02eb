"""What holds for every address that is stored: it comes back octet for octet, and nothing else does."""

from __future__ import annotations

import asyncio

from hypothesis import assume, given
from hypothesis import strategies as st

from srsd.address_store import UNKNOWN, Keep, Recall
from srsd.exclusion import ExclusionMap
from srsd.lookup import Lookup, LookupParameters
from srsd.srs import Keyring, Refusal, Srs, SrsParameters, Token, parse_srs
from srsd.syntax.address import LOCAL_PART_MAXIMUM, Address, parse_address
from srsd.wire.answer import Answer, Status

TODAY = 20780
NOT_IN_DOMAIN = b'@="\0 \t\r\n\v\f'
OCTETS = [bytes([octet]) for octet in range(256)]
LOCAL_PARTS = st.lists(st.sampled_from([o for o in OCTETS if o not in b"\0\r\n"]), min_size=1, max_size=120)
DOMAINS = st.lists(st.sampled_from([o for o in OCTETS if o not in NOT_IN_DOMAIN]), min_size=1, max_size=40)
TAGS = st.sampled_from([b"", b"", b"SRS0=", b"SRS0=HHHH=TT=x.example=", b"srs1=HHHH=x.example=="])
ADDRESSES = st.builds(
    lambda tag, local_part, domain: Address(tag + b"".join(local_part), b"".join(domain)),
    TAGS,
    LOCAL_PARTS,
    DOMAINS,
)
FOLDS = st.sampled_from([bytes, bytes.upper, bytes.lower, bytes.swapcase])


def lookup_of(envelope: str, **parameters: object) -> Lookup:
    wanted = LookupParameters(domain="fwd.example.net", envelope=envelope)
    return Lookup(wanted, Srs(SrsParameters(**parameters), Keyring([b"a secret"])), ExclusionMap())


LOOKUPS = {envelope: lookup_of(envelope) for envelope in ("embedded", "stored", "auto")}
SRS = Srs(SrsParameters(hash_length=27, hash_minimum=27), Keyring([b"a secret"]))


class Shelf(dict):
    """A store in memory."""

    async def keep(self, token: bytes, address: bytes, expires: int) -> None:  # noqa: ARG002
        assert self.setdefault(token, address) == address

    async def recall(self, token: bytes) -> bytes | None:
        return self.get(token)


def settled(answer: Answer | Keep | Recall, shelf: Shelf) -> Answer:
    return answer if isinstance(answer, Answer) else asyncio.run(answer.settle(shelf))


@given(address=ADDRESSES, envelope=st.sampled_from(["stored", "auto"]), fold=FOLDS)
def test_what_is_stored_comes_back_octet_for_octet_and_fits(address, envelope, fold):
    shelf = Shelf()
    made = settled(LOOKUPS[envelope].forward(bytes(address), TODAY), shelf)
    embedded = LOOKUPS["embedded"].forward(bytes(address), TODAY)
    assert made.status is embedded.status  # the same is rewritten and the same is not
    assume(made.status is Status.FOUND)
    assert made.text.rindex(b"@") <= LOCAL_PART_MAXIMUM
    back = settled(LOOKUPS[envelope].reverse(fold(made.text), TODAY), shelf)
    assert back.status is Status.FOUND
    expected = settled(LOOKUPS["embedded"].reverse(embedded.text, TODAY), shelf).text
    if shelf:
        assert back.text == expected
    else:
        assert back.text.lower() == expected.lower()  # what is embedded was folded itself


@given(address=ADDRESSES)
def test_nothing_that_is_embedded_looks_stored(address):
    made = SRS.forward(address, TODAY)
    if not isinstance(made, Refusal):
        fields = parse_srs(made)
        assert isinstance(fields, Refusal) or not fields.stored
        assert not isinstance(SRS.reverse(made, TODAY), Token)


@given(address=ADDRESSES, data=st.data())
def test_an_altered_token_is_refused(address, data):
    stored = SRS.forward_stored(address, TODAY)
    assume(not isinstance(stored, Refusal))
    made = stored.local_part
    at = data.draw(st.integers(0, len(made)))
    mutant = made[:at] + data.draw(st.binary(max_size=3)) + made[at + data.draw(st.integers(0, 3)) :]
    outcome = SRS.reverse(mutant, TODAY)
    assert isinstance(outcome, Refusal) or (
        outcome == stored.token
        and mutant[5:].upper().translate(bytes.maketrans(b"+/", b"-_"))
        == made[5:].upper().translate(bytes.maketrans(b"+/", b"-_"))
    )


@given(address=ADDRESSES, data=st.binary(min_size=1, max_size=40))
def test_what_another_makes_of_it_comes_back(address, data):
    """Another forwarder makes SRS1 of our SRS0, and gets it back."""
    shelf = Shelf()
    ours = LOOKUPS["stored"]
    made = settled(ours.forward(bytes(address), TODAY), shelf)
    assume(made.status is Status.FOUND)
    other = Srs(SrsParameters(), Keyring([data]))
    srs1 = other.forward(parse_address(made.text), TODAY)
    assert srs1.startswith(b"SRS1=")
    assert len(srs1) <= LOCAL_PART_MAXIMUM
    back = other.reverse(srs1, TODAY)
    assert bytes(back) == made.text
    assert settled(ours.reverse(bytes(back), TODAY), Shelf()) == UNKNOWN
    assert settled(ours.reverse(bytes(back), TODAY), shelf).status is Status.FOUND
