"""What holds for every address: rewritten and reversed it is itself again, altered it is refused."""

from __future__ import annotations

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from srsd.exclusion import ExclusionMap
from srsd.lookup import Lookup, LookupParameters
from srsd.srs import Keyring, Refusal, Srs, SrsParameters, is_srs, parse_srs
from srsd.syntax.address import Address, parse_address, quote_local_part
from srsd.wire import socketmap, tcp_table
from srsd.wire.answer import Answer, Status

TODAY = 20780
SECRET = b"a secret of the tests"
NOT_IN_DOMAIN = b'@="\0 \t\r\n\v\f'
NOT_IN_LOCAL_PART = b"\0\r\n"


def octets_without(forbidden: bytes, **sizes: int) -> st.SearchStrategy[bytes]:
    allowed = [octet for octet in range(256) if octet not in forbidden]
    return st.lists(st.sampled_from(allowed), **sizes).map(bytes)


DOMAIN_NAMES = st.from_regex(rb"[a-zA-Z0-9_]{1,10}(\.[a-zA-Z0-9-]{1,10}){1,3}\.?", fullmatch=True)
DOMAINS = DOMAIN_NAMES | octets_without(NOT_IN_DOMAIN, min_size=1, max_size=30)
ATOMS = st.from_regex(rb"[A-Za-z0-9!#$%&'*+/=?^_`{|}~.-]{1,30}", fullmatch=True)
LOCAL_PARTS = (
    ATOMS
    | octets_without(NOT_IN_LOCAL_PART, min_size=1, max_size=40)
    | st.text('"\\@ ab=+-%é', min_size=1, max_size=12).map(str.encode)
)
PLAIN = LOCAL_PARTS.filter(lambda local_part: not is_srs(local_part))
ADDRESSES = st.builds(Address, PLAIN, DOMAINS)
SEPARATORS = st.sampled_from("=+-")


def srs_of(secret: bytes = SECRET, **parameters: object) -> Srs:
    return Srs(SrsParameters(**parameters), Keyring([secret]))


def lookup_of(domain: str = "fwd.example.net", secret: bytes = SECRET, **parameters: object) -> Lookup:
    srs = srs_of(secret, **parameters)
    return Lookup(LookupParameters(domain=domain, always_rewrite=True), srs, ExclusionMap())


SRS = srs_of()
LOOKUP = lookup_of()


# There and back --------------------------------------------------------------------------------


@given(
    address=ADDRESSES,
    age=st.integers(0, 21),
    today=st.integers(21, 100_000),
    separator=SEPARATORS,
    length=st.integers(4, 27),
    secret=st.binary(min_size=1, max_size=100),
)
@example(address=Address(b"a", b"b.example"), age=21, today=21, separator="=", length=4, secret=b"s")
def test_srs0_comes_back(*, address, age, today, separator, length, secret):
    srs = srs_of(secret, separator=separator, hash_length=length)
    made = srs.forward(address, today - age)
    assert made.startswith(b"SRS0" + separator.encode())
    assert srs.reverse(made, today) == address


@given(address=ADDRESSES, age=st.integers(22, 1023))
@example(address=Address(b"a", b"b.example"), age=22)
@example(address=Address(b"a", b"b.example"), age=1023)  # dated tomorrow
def test_srs0_does_not_come_back_when_it_is_old(address, age):
    assert SRS.reverse(SRS.forward(address, TODAY - age), TODAY) is Refusal.EXPIRED


def by_tcp_table(lookup: Lookup, direction: str, key: bytes) -> bytes | None:
    """Ask as Postfix does, octet for octet."""
    encoded = b"".join(
        b"%%%02x" % octet if octet <= 32 or octet in b"%\x7f" or octet > 126 else bytes([octet])
        for octet in key
    )
    (line,) = tcp_table.Decoder().feed(b"get " + encoded + b"\n")
    asked = tcp_table.parse_request(line)
    assert asked == key
    reply = tcp_table.format_reply(getattr(lookup, direction)(asked, TODAY))
    assert reply.endswith(b"\n")
    assert not reply[:-1].translate(None, bytes(range(33, 127)))[1:]  # but the blank behind the code
    code, _, text = reply[:-1].partition(b" ")
    return tcp_table.parse_request(b"get " + text + b"\n") if code == b"200" else None


def by_socketmap(lookup: Lookup, direction: str, key: bytes) -> bytes | None:
    content = direction.encode() + b" " + key
    (netstring,) = socketmap.Decoder().feed(b"%d:%b," % (len(content), content))
    name, asked = socketmap.parse_request(netstring)
    assert (name, asked) == (direction.encode(), key)
    (reply,) = socketmap.Decoder().feed(socketmap.format_reply(getattr(lookup, direction)(asked, TODAY)))
    word, _, text = reply.partition(b":")[2][:-1].partition(b" ")
    return text if word == b"OK" else None


def stripped(key: bytes) -> bytes:
    return key.strip(b" \t\r\n")


@pytest.mark.parametrize("ask", [by_tcp_table, by_socketmap])
@given(address=ADDRESSES)
@example(address=Address(b"john doe", b"example.com"))
@example(address=Address(b'"', b"example.com"))
@example(address=Address(b"\\", b"example.com"))
@example(address=Address(b"a@b", b"[IPv6:2001:db8::1]"))
@example(address=Address(b"100%", b"ex%61mple.com"))
@example(address=Address(b"\x85", b"\xa0"))
def test_an_address_survives_quoting_and_both_codecs(ask, address):
    rewritten = ask(LOOKUP, "forward", bytes(address))
    assert rewritten is not None
    local_part, _, domain = rewritten.rpartition(b"@")
    assert domain == b"fwd.example.net"
    assert local_part == quote_local_part(parse_address(rewritten).local_part)
    assert ask(LOOKUP, "reverse", rewritten) == bytes(address)
    assert ask(LOOKUP, "forward", rewritten) is None  # Postfix looks results up again


@pytest.mark.parametrize("ask", [by_tcp_table, by_socketmap])
@given(local_part=PLAIN, domain=DOMAINS)
def test_the_internal_form_of_postfix_gives_the_same(ask, local_part, domain):
    """Postfix asks for the unquoted form too, where it differs."""
    key = local_part + b"@" + domain
    assume(not local_part.startswith(b'"') and stripped(key) == key)
    assert ask(LOOKUP, "forward", key) == ask(LOOKUP, "forward", bytes(Address(local_part, domain)))


@given(text=st.binary(min_size=1, max_size=60))
def test_what_is_parsed_is_spelt_so_that_it_is_parsed_again(text):
    address = parse_address(text)
    if address is not None:
        assert parse_address(bytes(address)) == address


# Case ------------------------------------------------------------------------------------------


def smash(text: bytes, choices: list[int]) -> bytes:
    """Change the case of some ASCII letters."""
    return b"".join(
        bytes([octet]).upper() if choice == 1 else bytes([octet]).lower() if choice == 2 else bytes([octet])
        for octet, choice in zip(text, choices, strict=True)
    )


@given(address=ADDRESSES, data=st.data())
def test_smashed_case_reverses_to_the_same_but_for_case(address, data):
    made = SRS.forward(address, TODAY)
    choices = data.draw(st.lists(st.integers(0, 2), min_size=len(made), max_size=len(made)))
    back = SRS.reverse(smash(made, choices), TODAY)
    assert isinstance(back, Address)
    assert bytes(back).lower() == bytes(address).lower()


@pytest.mark.parametrize("smashed", [bytes.upper, bytes.lower, bytes.swapcase])
@given(address=ADDRESSES)
def test_smashed_case_reverses_in_the_whole_lookup(smashed, address):
    made = LOOKUP.forward(bytes(address), TODAY).text
    answer = LOOKUP.reverse(smashed(made), TODAY)
    assert answer.status is Status.FOUND
    assert answer.text.lower() == bytes(address).lower()


# Chains of forwarders --------------------------------------------------------------------------


@given(
    sender=ADDRESSES.filter(
        lambda address: not address.domain.lower().rstrip(b".").endswith(b".hop.example")
    ),
    separators=st.lists(SEPARATORS, min_size=2, max_size=4),
)
def test_a_bounce_finds_its_way_back_through_a_chain_of_forwarders(sender, separators):
    hops = [
        lookup_of(f"h{number}.hop.example", b"secret %d" % number, separator=separator)
        for number, separator in enumerate(separators)
    ]
    made = [bytes(sender)]
    for hop in hops:
        answer = hop.forward(made[-1], TODAY)
        assert answer.status is Status.FOUND
        made.append(answer.text)
    tags = [parse_address(each).local_part[:4] for each in made[1:]]
    assert tags == [b"SRS0", *[b"SRS1"] * (len(hops) - 1)]
    # The last hop sends it straight to the first, which knows the sender.
    at_first = hops[-1].reverse(made[-1], TODAY)
    assert at_first.status is Status.FOUND
    assert at_first.text == made[1]
    assert hops[0].reverse(at_first.text, TODAY).text == bytes(sender)
    for hop, address in zip(hops, made[1:], strict=True):
        for other in hops:
            if other is not hop:
                assert other.reverse(address, TODAY).status is Status.NOT_FOUND


@given(local_part=octets_without(NOT_IN_LOCAL_PART, max_size=30), domain=DOMAINS, separator=SEPARATORS)
def test_srs1_gives_back_the_text_of_the_first_forwarder(local_part, domain, separator):
    first = Address(b"SRS0" + separator.encode() + local_part, domain)
    assert SRS.reverse(SRS.forward(first, TODAY), TODAY) == first


# Forgeries -------------------------------------------------------------------------------------


@st.composite
def mutations(draw: st.DrawFn, text: bytes) -> bytes:
    """Replace, insert or drop an octet or a few."""
    at = draw(st.integers(0, len(text)))
    dropped = draw(st.integers(0, 3))
    return text[:at] + draw(st.binary(max_size=3)) + text[at + dropped :]


def is_same(back: Address | Refusal, address: Address) -> bool:
    return isinstance(back, Address) and bytes(back).lower() == bytes(address).lower()


# Long hashes: with the usual four characters one forgery in a million is good by chance.
STRICT = srs_of(hash_length=27, hash_minimum=27)


@given(address=ADDRESSES, data=st.data())
def test_any_mutation_is_refused_or_changes_nothing(address, data):
    altered = data.draw(mutations(STRICT.forward(address, TODAY)))
    back = STRICT.reverse(altered, TODAY)
    assert isinstance(back, Refusal) or is_same(back, address) or moved(back, address)


def moved(back: Address, address: Address) -> bool:
    """Tell whether the signed text is the same, cut elsewhere: the scheme signs no field boundaries.

    All implementations share it: `TT` + domain + user is one text. An `=` is in the user only.
    """
    return (back.domain + back.local_part).lower() == (address.domain + address.local_part).lower()


@given(address=ADDRESSES, data=st.data(), field=st.sampled_from(["hash", "stamp", "host", "user"]))
def test_another_field_is_refused(address, data, field):
    fields = parse_srs(STRICT.forward(address, TODAY))
    assert not isinstance(fields, Refusal)
    before = getattr(fields, field)
    altered = data.draw(mutations(before) | octets_without(b"=@", min_size=len(before), max_size=len(before)))
    fold = bytes.maketrans(b"+/", b"-_")
    assume(altered.lower().translate(fold) != before.lower().translate(fold))
    assume(field == "user" or b"=" not in altered)  # that would be other fields, not another one
    changed = fields._replace(**{field: altered})
    made = b"SRS0=" + b"=".join(changed[1:])
    assert isinstance(STRICT.reverse(made, TODAY), Refusal)


@given(address=ADDRESSES, one=st.binary(min_size=1, max_size=30), other=st.binary(min_size=1, max_size=30))
def test_another_secret_is_refused(address, one, other):
    # HMAC pads a key with zeros: secrets that differ in these only are the same.
    assume(one.rstrip(b"\0") != other.rstrip(b"\0"))
    long = {"hash_length": 27, "hash_minimum": 27}
    assert (
        srs_of(other, **long).reverse(srs_of(one, **long).forward(address, TODAY), TODAY)
        is Refusal.HASH_INVALID
    )


@given(local_part=st.binary(max_size=60))
@example(local_part=b"SRS0=" + b"=" * 50)
@example(local_part=b"SRS1=a=b==")
def test_random_local_parts_are_refused_and_explained(local_part):
    assert isinstance(STRICT.reverse(local_part, TODAY), Refusal)
    for prefix in (b"SRS0=", b"srs1+", b"SRS0-AAAA=AA=", b"SRS1=AAAA=a.example="):
        back = STRICT.reverse(prefix + local_part, TODAY)
        assert isinstance(back, Refusal)
        assert STRICT.examine(prefix + local_part, TODAY).refusal is back


@given(key=st.binary(max_size=80), direction=st.sampled_from(["forward", "reverse"]))
def test_no_key_makes_a_lookup_fail_or_answer_itself(key, direction):
    answer = getattr(LOOKUP, direction)(key, TODAY)
    assert isinstance(answer, Answer)
    assert answer.status in {Status.FOUND, Status.NOT_FOUND}
    assert answer.text != key
    if answer.status is Status.NOT_FOUND:
        assert answer.text == answer.reason.encode()
    LOOKUP.examine(key, TODAY)
