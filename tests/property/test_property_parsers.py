"""Parsers raise what they promise, whatever they get; decoders do not care how a stream is cut."""

from __future__ import annotations

import contextlib
from itertools import pairwise

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from srsd.config import Config
from srsd.config_text import parse_config
from srsd.errors import ConfigError, Fault, ProtocolError
from srsd.exclusion import ExclusionMap, parse_exclusion_map
from srsd.srs import Keyring, Refusal, SrsFields, parse_secrets, parse_srs
from srsd.syntax.address import Address, parse_address
from srsd.syntax.domain import DomainSet, fold_domain, parse_domain
from srsd.syntax.endpoint import parse_endpoint
from srsd.wire import socketmap, tcp_table

OCTETS = st.binary(max_size=200)
TEXTS = st.text(max_size=100)


def alphabet(letters: bytes, size: int = 60) -> st.SearchStrategy[bytes]:
    """Make octets that look like the real thing more often than any octets would."""
    return st.lists(st.sampled_from(list(letters)), max_size=size).map(bytes)


@given(OCTETS | alphabet(b"SRS01=+-aA2.\xff"))
def test_parse_srs(data):
    for local_part in (data, b"SRS0=" + data, b"SRS1-" + data):
        fields = parse_srs(local_part)
        assert isinstance(fields, SrsFields | Refusal)
        if isinstance(fields, SrsFields):
            assert fields.hash
            assert fields.host
            assert (
                b"=".join(fields[1:2] + ((fields.stamp,) if fields.stamp else ()) + fields[3:])
                == local_part[5:]
            )


@given(OCTETS | alphabet(b'a"\\@ .'))
def test_parse_address(data):
    address = parse_address(data)
    assert address is None or (isinstance(address, Address) and all(address))


@given(
    OCTETS
    | TEXTS.map(lambda text: text.encode(errors="surrogatepass"))
    | alphabet("aß.-\u3002\u200dא1xn".encode())
)
@example("xn--é".encode())
@example(("é." * 600).encode())
@example(("a\u0300" * 300).encode())
@example("\u06dd\u200c".encode())
def test_fold_domain(data):
    folded = fold_domain(data)
    assert folded is None or isinstance(folded, bytes)
    if folded is not None:
        assert folded == folded.lower()
        assert folded.isascii()
        assert folded.endswith(b".") or fold_domain(folded) == folded  # but for "a.."


@given(TEXTS | st.text("aé.-_[]@ \udc80", max_size=20))
def test_parse_domain(text):
    with contextlib.suppress(ValueError):
        assert fold_domain(parse_domain(text)) == parse_domain(text)
    with contextlib.suppress(ValueError):
        assert (
            b"x" not in DomainSet([text, "." + text]) or text.strip(".") in {"x", "X"} or not text.isascii()
        )


@given(OCTETS | alphabet(b'a@."\\ \t\n#,/:19srpf\xff\xc3\xa9'))
def test_parse_exclusion_map(data):
    try:
        assert isinstance(parse_exclusion_map(data), ExclusionMap)
    except ConfigError as error:
        check_faults(error)


def check_faults(error: ConfigError) -> None:
    assert error.faults
    assert all(isinstance(fault, Fault) and fault.text for fault in error.faults)
    assert all(line.isprintable() for line in error.lines())


KEYS = st.sampled_from(
    ["workers", "user", "listen", "srs", "srs.domain", "srs.hash_length", "srs.local_domains", "listen.control",
     "listen.socketmap", "dns.timeout", "milter.internal_networks", "policy.spf_fail", "log.level", "x", "srs.x", '"é"']
)  # fmt: skip
VALUES = st.recursive(
    st.sampled_from(["1", "0", "-1", "1.5", "nan", "true", '""', '"a"', '"/a"', '"a.example"', "1979-05-27", "0x1f",
                     '"unix:/a"', '"inet:127.0.0.1:1"', '"\\u0000"', '"\\uFFFF"', "07:32:00", "'::1/128'"])
    | TEXTS.map(lambda text: '"' + "".join(f"\\U{ord(char):08X}" for char in text if not "\ud800" <= char <= "\udfff") + '"'),
    lambda inner: st.lists(inner, max_size=3).map(lambda items: "[" + ", ".join(items) + "]")
    | inner.map(lambda item: "{a = " + item + "}"),
    max_leaves=5,
)  # fmt: skip
TOML = st.lists(st.tuples(KEYS, VALUES), max_size=6).map(
    lambda pairs: "\n".join(f"{key} = {value}" for key, value in pairs).encode()
)


@given(OCTETS | alphabet(b"[]={}\"'.,\n #a1\xff") | TOML)
def test_parse_config(data):
    try:
        config, remarks = parse_config(data)
    except ConfigError as error:
        check_faults(error)
    else:
        assert isinstance(config, Config)
        assert all(isinstance(remark, Fault) for remark in remarks)


@given(TEXTS | st.text("inetux:/.[]0123456789?mode=&grp", max_size=40))
def test_parse_endpoint(text):
    for candidate in (text, "inet:" + text, "unix:/" + text):
        try:
            endpoint = parse_endpoint(candidate)
        except ValueError as error:
            if "would be right: " not in str(error):
                raise
        else:
            assert parse_endpoint(str(endpoint)) == endpoint


@given(OCTETS | alphabet(b"ab \t\r\n#"))
def test_parse_secrets(data):
    secrets = parse_secrets(data)
    assert all(secret == secret.strip(b" \t\r") and secret and b"\n" not in secret for secret in secrets)
    assert len(set(secrets)) == len(secrets)
    assert parse_secrets(b"\n".join(secrets)) == secrets
    if secrets:
        assert len(Keyring(secrets).fingerprints) == len(secrets)


@given(OCTETS | alphabet(b"get %0aF\n"))
def test_parse_requests(data):
    for line in (data, b"get " + data):
        key = tcp_table.parse_request(line)
        assert key is None or isinstance(key, bytes)
    netstring = b"%d:%b," % (len(data), data)
    name, key = socketmap.parse_request(netstring)
    assert data == (name + b" " + key if name or data.startswith(b" ") else key)


# Decoders --------------------------------------------------------------------------------------

DECODERS = [tcp_table, socketmap]
SIZES = st.integers(0, 65536) | st.sampled_from([0, 1, 9, 10, 65535, 65536, 65537])
NETSTRINGS = OCTETS.map(lambda data: b"%d:%b," % (len(data), data))
STREAMS = {
    tcp_table: st.lists(OCTETS | alphabet(b"get a%20\n"), max_size=6).map(b"\n".join),
    socketmap: st.tuples(st.lists(NETSTRINGS, max_size=6).map(b"".join), alphabet(b"0123:,a", 8)).map(
        b"".join
    )
    | alphabet(b"0012:,a", 12),
}


def decode(wire: object, chunks: list[bytes]) -> tuple[list[bytes], bool, bool]:
    """Give the requests, whether something is left, whether the stream is broken."""
    decoder, requests = wire.Decoder(), []
    for chunk in chunks:
        try:
            requests += decoder.feed(chunk)
        except ProtocolError:
            return requests, False, True
    return requests, decoder.pending, False


def cut(data: bytes, at: list[int]) -> list[bytes]:
    return [data[start:end] for start, end in pairwise([0, *sorted(at), len(data)])]


@pytest.mark.parametrize("wire", DECODERS)
@given(data=st.data())
def test_chunks_do_not_matter(wire, data):
    stream = data.draw(STREAMS[wire])
    whole, pending, broken = decode(wire, [stream])
    places = st.lists(st.integers(0, len(stream)), max_size=8)
    for chunks in (cut(stream, data.draw(places)), [stream[at : at + 1] for at in range(len(stream))]):
        requests, pending_there, broken_there = decode(wire, chunks)
        assert (pending_there, broken_there) == (pending, broken)
        # Where the stream breaks, what came whole before in the same read is given up with it.
        assert requests == whole if not broken else requests[: len(whole)] == whole
    if not broken:
        rest = b"".join(whole)
        assert stream.startswith(rest)
        assert pending == (rest != stream)


@pytest.mark.parametrize("wire", DECODERS)
@given(
    size=st.sampled_from([65520, 65534, 65535, 65536, 65537, 65538, 99_999, 100_000]),
    at=st.integers(0, 100_010),
)
def test_the_limit_is_the_same_for_every_chunking(wire, size, at):
    stream = b"x" * (size - 1) + b"\n" if wire is tcp_table else b"%d:%b," % (size, b"x" * size)
    broken = size > wire.REQUEST_MAXIMUM
    for chunks in ([stream], cut(stream, [min(at, len(stream))]), cut(stream, [5, len(stream) - 1])):
        assert decode(wire, chunks) == (([], False, True) if broken else ([stream], False, False))


@pytest.mark.parametrize("wire", DECODERS)
@given(data=st.data())
@example(data=None).via("the empty read")
def test_what_is_whole_is_one_request(wire, data):
    candidates = STREAMS[wire] | OCTETS | OCTETS.map(lambda octets: octets + b"\n") | NETSTRINGS
    octets = data.draw(candidates) if data else b""
    if wire.is_whole(octets):
        assert wire.Decoder().feed(octets) == [octets]


@pytest.mark.parametrize("wire", DECODERS)
@pytest.mark.parametrize("size", [1, 9, 10, 4096, 9_999, 65_535, 65_536, 65_537, 70_000, 99_999])
def test_what_is_whole_is_one_request_at_the_limits(wire, size):
    for octets in (
        b"x" * (size - 1) + b"\n",
        b"%d:%b," % (size, b"x" * size),
        b"0%d:%b," % (size, b"x" * size),
    ):
        if wire.is_whole(octets):
            assert wire.Decoder().feed(octets) == [octets]


@given(NETSTRINGS.filter(lambda netstring: not netstring.startswith(b"0")))
def test_a_usual_request_is_seen_as_whole(netstring):
    assert socketmap.is_whole(netstring)


@given(OCTETS.map(lambda octets: octets.replace(b"\n", b"") + b"\n"))
def test_a_usual_line_is_seen_as_whole(line):
    assert tcp_table.is_whole(line)
