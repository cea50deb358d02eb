"""The parsers of srsd and what each promises, whatever it is given."""

from __future__ import annotations

import contextlib
import re
from dataclasses import dataclass
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any

from srsd.cli.config import example_text
from srsd.config_text import parse_config
from srsd.errors import ConfigError, ProtocolError
from srsd.exclusion import ExclusionMap, Skip, parse_exclusion_map
from srsd.lookup import Lookup, LookupParameters
from srsd.srs import Keyring, Refusal, Srs, SrsParameters, is_srs
from srsd.syntax.address import Address, parse_address, quote_local_part
from srsd.syntax.domain import DomainSet, fold_domain, parse_domain
from srsd.syntax.endpoint import parse_endpoint
from srsd.wire import socketmap, tcp_table
from srsd.wire.answer import Answer, Status

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from random import Random

TODAY = 20000
REQUEST_SIZE = 70_000  # octets: a little more than any request may have
FILE_SIZE = 8192
SAMPLE = 20  # requests of one input that are looked at one by one


@dataclass(frozen=True)
class Target:
    """A parser: parse alone is timed, check holds what it promises."""

    parse: Callable[[bytes], object]
    check: Callable[[bytes, Random], None]
    seeds: Sequence[bytes]
    words: Sequence[bytes]
    size_maximum: int = REQUEST_SIZE
    microseconds_per_octet: float = 1.0  # generous: several times what it takes


def _fits(text: bytes) -> str:
    """What a file has in its text, where Python reads it as text."""
    return text.decode(errors="replace")


# The wires.


def _cut(codec: Any, chunks: Sequence[bytes]) -> tuple[list[bytes], bool, bool]:
    """Feed chunks; gives the requests, whether a part is pending, and whether the client was cut off."""
    decoder = codec.Decoder()
    requests: list[bytes] = []
    for chunk in chunks:
        try:
            requests += decoder.feed(chunk)
        except ProtocolError:
            return requests, False, True
    return requests, decoder.pending, False


def _chunks(data: bytes, random: Random) -> list[bytes]:
    if len(data) < 500 and random.random() < 0.3:
        return [bytes([octet]) for octet in data]
    cuts = sorted(random.randint(0, len(data)) for _ in range(random.randint(1, 10)))
    return [data[begin:end] for begin, end in zip([0, *cuts], [*cuts, len(data)], strict=True)]


def _check_stream(codec: Any, data: bytes, random: Random) -> list[bytes]:
    """Hold that requests do not depend on how the stream came, and that no octet is lost or doubled."""
    whole, pending, refused = _cut(codec, [data])
    for chunks in (_chunks(data, random), _chunks(data, random)):
        others, still_pending, refused_too = _cut(codec, chunks)
        assert refused_too == refused
        if refused:
            assert others[: len(whole)] == whole
            assert data.startswith(b"".join(others))
        else:
            assert (others, still_pending) == (whole, pending)
    if not refused:
        joined = b"".join(whole)
        assert data.startswith(joined)
        assert pending == (len(joined) < len(data))
    if data and codec.is_whole(data):
        assert (whole, pending, refused) == ([data], False, False)
    return whole


def _parse_tcp(data: bytes) -> None:
    for request in _cut(tcp_table, [data])[0]:
        tcp_table.parse_request(request)


def _some(requests: list[bytes], random: Random) -> list[bytes]:
    """A look at each of sixty thousand lines would leave no time for other inputs."""
    return requests if len(requests) <= SAMPLE else random.sample(requests, SAMPLE)


def _check_tcp(data: bytes, random: Random) -> None:
    for request in _some(_check_stream(tcp_table, data, random), random):
        assert request.endswith(b"\n")
        assert request.count(b"\n") == 1
        assert len(request) <= tcp_table.REQUEST_MAXIMUM
        assert tcp_table.is_whole(request)
        _check_tcp_key(tcp_table.parse_request(request), random)
    _check_tcp_key(data, random)


def _check_tcp_key(key: bytes | None, random: Random) -> None:
    if key is None:
        return
    encoded = "%" + key.hex("%") if key else ""
    assert tcp_table.parse_request(b"get %b\n" % encoded.encode()) == key
    reply = tcp_table.format_reply(Answer(random.choice(list(Status)), key))
    assert len(reply) <= 4096
    shape = re.fullmatch(rb"([245]00) ((?:[!-$&-~]|%[0-9a-f]{2})*)\n", reply)
    assert shape, reply
    text = re.sub(rb"%(..)", lambda octet: bytes.fromhex(octet[1].decode()), shape[2])
    assert text == key or reply == b"500 reply%20too%20long\n"


def _parse_socketmap(data: bytes) -> None:
    for request in _cut(socketmap, [data])[0]:
        socketmap.parse_request(request)


def _check_socketmap(data: bytes, random: Random) -> None:
    for request in _some(_check_stream(socketmap, data, random), random):
        digits, _, rest = request.partition(b":")
        assert b"%d" % (len(rest) - 1) == digits
        assert int(digits) <= socketmap.REQUEST_MAXIMUM
        name, key = socketmap.parse_request(request)
        assert rest == (name + b" " + key if b" " in rest[:-1] else key) + b","
    for status in Status:
        reply = socketmap.format_reply(Answer(status, data))
        shape = re.fullmatch(rb"(\d+):((?:OK|NOTFOUND|TEMP|PERM) .*),", reply, re.DOTALL)
        assert shape, reply
        assert int(shape[1]) == len(shape[2]) <= 100_000


# Addresses.


def _check_address(data: bytes, _: Random) -> None:
    address = parse_address(data)
    if address is None:
        return
    assert address.local_part
    assert address.domain
    assert b"@" not in address.domain
    assert not set(bytes(address)) & {0, 10, 13}
    assert parse_address(bytes(address)) == address
    spelt = quote_local_part(address.local_part)
    assert spelt == address.local_part or (spelt[:1] + spelt[-1:] == b'""')


_HASH_LENGTH = 27
_SRS = Srs(SrsParameters(hash_length=_HASH_LENGTH, hash_minimum=12), Keyring([b"of the fuzzer", b"another"]))


def _as_address(data: bytes) -> Address:
    local_part, _, domain = data.rpartition(b"@")
    return Address(local_part, domain)


def _parse_srs(data: bytes) -> None:
    address = _as_address(data)
    _SRS.forward(address, TODAY)
    _SRS.reverse(address.local_part, TODAY)
    _SRS.examine(address.local_part, TODAY)


def _check_srs(data: bytes, random: Random) -> None:
    address = _as_address(data)
    # Nothing that is not ours comes back: the seeds are not signed with these secrets.
    assert isinstance(_SRS.reverse(data, TODAY), Refusal)
    assert isinstance(_SRS.reverse(address.local_part, TODAY), Refusal)
    assert _SRS.examine(data, TODAY).refusal
    made = _SRS.forward(address, TODAY)
    if isinstance(made, Refusal):
        return
    assert is_srs(made)
    back = _SRS.reverse(made, TODAY)
    if not is_srs(address.local_part):
        assert back == address
        assert _SRS.reverse(made, TODAY + 21) == address
        assert _SRS.reverse(made, TODAY + 22) is Refusal.EXPIRED
    else:
        assert isinstance(back, Address)
        assert back.local_part.startswith(b"SRS0")
        if address.local_part[:4].upper() == b"SRS0":
            assert back == Address(b"SRS0" + address.local_part[4:], address.domain)
    _check_damage(made, random)


def _check_damage(made: bytes, random: Random) -> None:
    """Hold that no changed octet of what was signed goes unnoticed, but for the case of letters."""
    at = random.randint(5, len(made) - 1)
    damaged = made[:at] + random.randbytes(1) + made[at + 1 :]
    in_hash = at < 5 + _HASH_LENGTH
    folded = damaged.lower(), made.lower()
    if in_hash:
        folded = tuple(each.translate(bytes.maketrans(b"+/", b"-_")) for each in folded)
    if folded[0] != folded[1]:
        assert isinstance(_SRS.reverse(damaged, TODAY), Refusal), damaged


# Domains, and the lookups that compare them.


def _check_domain(data: bytes, _: Random) -> None:
    folded = fold_domain(data)
    assert folded is None or (folded.isascii() and folded == folded.lower())
    try:
        parsed = parse_domain(data.decode(errors="surrogateescape"))
    except ValueError:
        return
    assert re.fullmatch(rb"[a-z0-9_.-]{1,253}", parsed)
    assert parsed == folded
    assert parse_domain(parsed.decode()) == parsed
    assert fold_domain(parsed.upper() + b".") == parsed
    text = parsed.decode()
    assert parsed in DomainSet([text])
    assert parsed not in DomainSet(["." + text])
    assert b"a." + parsed in DomainSet(["." + text])
    assert b"a." + parsed not in DomainSet([text])


def _parse_domain(data: bytes) -> None:
    fold_domain(data)
    with contextlib.suppress(ValueError):
        parse_domain(data.decode(errors="surrogateescape"))


_EXCLUSIONS = b"@friend.example\n.friends.example\nvip@origin.example srs\nb@d.example dkim\n"
_LOOKUP = Lookup(
    LookupParameters(domain="fwd.example.net", local_domains=("own.example", ".sub.example")),
    _SRS,
    parse_exclusion_map(_EXCLUSIONS),
)


def _parse_lookup(data: bytes) -> None:
    _LOOKUP.forward(data, TODAY)
    _LOOKUP.reverse(data, TODAY)


def _check_lookup(data: bytes, _: Random) -> None:
    there = _LOOKUP.forward(data, TODAY)
    back = _LOOKUP.reverse(data, TODAY)
    for answer in (there, back):
        # A stranger cannot make mail wait, and no answer repeats the key.
        assert answer.status in (Status.FOUND, Status.NOT_FOUND)
        assert answer.text != data
        if answer.status is Status.NOT_FOUND:
            assert answer.text.decode().isprintable()
    assert back.status is Status.NOT_FOUND  # nothing in the seeds was signed with these secrets
    if there.status is Status.FOUND:
        assert there.text.endswith(b"@fwd.example.net")
        # Postfix looks results up again: that must end, and must lead back.
        assert _LOOKUP.forward(there.text, TODAY).status is Status.NOT_FOUND
        assert _LOOKUP.reverse(there.text, TODAY).status is Status.FOUND


# Files of the admin.


def _check_faults(error: ConfigError) -> None:
    assert error.faults
    for line in error.lines():
        assert line.isprintable()
        assert "would be right: " in line, line


def _parse_exclusions(data: bytes) -> ExclusionMap | ConfigError:
    try:
        return parse_exclusion_map(data)
    except ConfigError as error:
        return error


def _check_exclusions(data: bytes, _: Random) -> None:
    parsed = _parse_exclusions(data)
    if isinstance(parsed, ConfigError):
        _check_faults(parsed)
        lines = data.count(b"\n") + 1
        numbers = [int(fault.where.removeprefix("line ")) for fault in parsed.faults]
        assert numbers == sorted(set(numbers))
        assert 1 <= numbers[0] <= numbers[-1] <= lines
        return
    padded = parse_exclusion_map(b"\n# before\n" + data + b"\n\n  # after\n")
    for local_part, domain in ((b"alice", b"example.com"), (b"bob", b"a.b.example.net"), (b"x", b"[::1]")):
        skipped = parsed.for_address(local_part, domain)
        assert skipped <= frozenset(Skip)
        assert padded.for_address(local_part, domain) == skipped
    for client in ("192.0.2.1", "::ffff:192.0.2.1", "2001:db8::1"):
        assert padded.for_client(ip_address(client)) == parsed.for_client(ip_address(client))
    assert len(padded) == len(parsed)


def _parse_config(data: bytes) -> object:
    try:
        return parse_config(data)
    except ConfigError as error:
        return error


def _check_config(data: bytes, _: Random) -> None:
    parsed = _parse_config(data)
    if isinstance(parsed, ConfigError):
        _check_faults(parsed)
        return
    config, remarks = parsed
    assert all(remark.line().isprintable() for remark in remarks)
    assert parse_config(data + b"\n# the end\n")[0] == config
    # What passes here is what the lookups are made of.
    Lookup(config.srs, Srs(config.srs, Keyring([b"secret"])), ExclusionMap())


def _parse_endpoint(data: bytes) -> object:
    try:
        return parse_endpoint(_fits(data))
    except ValueError as error:
        return error


def _check_endpoint(data: bytes, _: Random) -> None:
    parsed = _parse_endpoint(data)
    if isinstance(parsed, ValueError):
        assert "would be right: " in str(parsed)
    else:
        assert parse_endpoint(str(parsed)) == parsed


_ADDRESSES = [
    b"alice@example.com",
    b'"john doe"@example.com',
    b'"a\\"b\\\\c"@example.com',
    b"a b@example.com",
    b"a@[192.0.2.1]",
    "jörg@bücher.example".encode(),
    b"",
    b'""',
    b"<>",
    b"SRS0=AbCd=EF=first.example=alice@hop.example",
    b"srs0+AbCd=EF=first.example=alice@fwd.example.net",
    b"SRS1=AbCd=hop.example==GhIj=EF=first.example=alice@second.example",
    b"SRS1=AbCd=hop.example=-GhIj=EF=first.example=alice@fwd.example.net",
    # The dearest that a request can hold.
    b"a@" + b"a." * 32_000 + b"a",
    b'"' + b"\\\\" * 30_000 + b"@example.com",
    b"SRS0=" + b"A" * 60_000 + b"=AA=h=u@fwd.example.net",
    b"SRS1=" + b"=" * 60_000 + b"@fwd.example.net",
]
_ADDRESS_WORDS = [
    *(b"@", b'"', b"\\", b"=", b"+", b"-", b".", b" ", b"%", b"\0", b"\r", b"\n", b"\xff", b"..", b"[", b"]"),
    *(b"SRS0", b"SRS1", b"srs0=", b"SRS0=AbCd=EF=", b"=AA=", "ä".encode(), "。".encode(), b"xn--", b"a."),
    *(b"@fwd.example.net", b"@own.example", b".sub.example", b"@friend.example", b"<", b">"),
]

TARGETS: dict[str, Target] = {
    "tcp_table": Target(
        _parse_tcp,
        _check_tcp,
        [
            b"get alice@example.com\n",
            b"get alice%40example.com\r\nget %22a%20b%22@x\n",
            b"put a b\nget \n\n",
            b"get " + b"%41" * 21_000 + b"\n",
            b"\n" * 60_000,
            b"x" * 65_536,
            b"get " + b"x" * 65_531 + b"\n",
        ],
        [b"get ", b"\n", b"\r\n", b"%", b"%4", b"%zz", b"%00", b" ", b"\t", b"@", b"x" * 60_000],
    ),
    "socketmap": Target(
        _parse_socketmap,
        _check_socketmap,
        [
            b"25:forward alice@example.com,",
            b"9:reverse x,9:forward y,",
            b"0:,3:a b,",
            b"65536:" + b"x" * 65_536 + b",",
            b"65537:",
            b"0:," * 20_000,
        ],
        [
            *(
                b":",
                b",",
                b" ",
                b"0",
                b"9",
                b"00",
                b"65536:",
                b"forward ",
                b"0:,",
                b"1:x,",
                b"-",
                b"x" * 60_000,
            )
        ],
        microseconds_per_octet=2,
    ),
    "address": Target(parse_address, _check_address, _ADDRESSES, _ADDRESS_WORDS),
    "srs": Target(_parse_srs, _check_srs, _ADDRESSES, _ADDRESS_WORDS),
    "lookup": Target(_parse_lookup, _check_lookup, _ADDRESSES, _ADDRESS_WORDS),
    "domain": Target(
        _parse_domain,
        _check_domain,
        [
            *(b"example.com", b"Example.COM.", "bücher.example".encode(), b"xn--bcher-kva.example", b"_a.b"),
            *("faß.example".encode(), "Ⅷ.example".encode(), b"a" * 63 + b".example", b"", b".", b"[::1]"),
            *(b"a." * 32_000, "ä.".encode() * 340, "ä".encode() * 500, "ä.".encode() * 20_000),
        ],
        [*_ADDRESS_WORDS, "ß".encode(), "\u200d".encode(), "\u0300".encode(), "\uff0e".encode(), b"xn--a"],
        microseconds_per_octet=30,  # what IDNA takes for the 1024 octets that it is given at most
    ),
    "exclusion": Target(
        _parse_exclusions,
        _check_exclusions,
        [
            b"# comment\n@example.com @example.com\nalice@example.com srs, spf\n.example.net all\n",
            b"192.0.2.0/24 dkim, dmarc\n2001:db8::/32\n::ffff:192.0.2.0/120 arc\n",
            b'"john doe"@example.com\t"srs"\n  , spf\n',
            "@bücher.example srs\n".encode(),
            b"\r\n\x0b\n \n",
            b'"' * 8000,
            b"\\" * 8000,
            b"x\n" + b" srs,\n" * 1300,
        ],
        [
            *(b"\n", b" ", b"\t", b"#", b'"', b"\\", b",", b"@", b".", b":", b"/", b"/129", b"srs", b"all"),
            *(b"example.com", b"192.0.2.1", b"::1", b"\n ", b"\r", b"\xff", b"\xc2\xa0", b"\xe2\x80\xa8"),
        ],
        FILE_SIZE,
        30,
    ),
    "config": Target(
        _parse_config,
        _check_config,
        [
            re.sub(r"^#(?=\w+ = )", "", example_text(), flags=re.MULTILINE).encode(),
            b'[srs]\ndomain = "fwd.example.net"\nlocal_domains = ["a.example", ".b.example"]\n',
            b'[listen]\nsrs_forward = ["inet:127.0.0.1:0", "inet:[::1]:0"]\n[log]\nlevel = "debug"\n',
            b'srs = { hash_length = 5, hash_minimum = 6, separator = "+" }\nworkers = "auto"\n',
            b"a" * 4000 + b" = 1\n",
            b"workers = " + b"9" * 5000,
            b"workers = " + b"[" * 8000,
            b"[" + b"a." * 4000 + b"a]\n",
        ],
        [
            *(
                b"\n",
                b"=",
                b" = ",
                b'"',
                b"'",
                b'"""',
                b"[",
                b"]",
                b"[[",
                b"{",
                b"}",
                b",",
                b".",
                b"#",
                b"\\u001b",
            ),
            *(
                b"1",
                b"-1",
                b"1e400",
                b"nan",
                b"inf",
                b"true",
                b"1979-05-27",
                b"0x10",
                b"99999999999999999999",
            ),
            *(
                b"[]",
                b"{}",
                b'""',
                b'"auto"',
                b"srs",
                b"listen",
                b"srs.",
                b"domain",
                b"workers",
                b"user",
                b"\xff",
            ),
            *(b'"unix:/a?mode=0777&group=b"', b'"inet:[::1]:1"', "ä".encode(), b"[srs]\n", b"[log]\n"),
        ],
        FILE_SIZE,
        200,  # each unknown key is compared with all known ones
    ),
    "endpoint": Target(
        _parse_endpoint,
        _check_endpoint,
        [
            *(b"inet:127.0.0.1:10001", b"inet:[::1]:10001", b"inet:localhost:65535", b"unix:/run/srsd/x"),
            *(b"unix:/run/srsd/x?mode=0660&group=postfix", b"unix:/" + b"a" * 106, b"inet:" + b"a." * 4000),
            b"unix:/x?" + b"mode=0660&" * 800,
        ],
        [
            *(
                b"inet:",
                b"unix:",
                b":",
                b"[",
                b"]",
                b"?",
                b"&",
                b"=",
                b"mode=",
                b"0777",
                b"group=",
                b"/",
                b"70000",
            ),
            *(b"\n", b"\0", b" ", "٣".encode(), "ä".encode(), b".", b"..", b"%", b"-"),
        ],
        FILE_SIZE,
    ),
}
