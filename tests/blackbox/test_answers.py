"""The table of answers: every case, asked over every wire."""

from __future__ import annotations

import os
import shutil
import subprocess
from typing import TYPE_CHECKING

import pytest

from harness.wire_clients import (
    BOTH,
    OTHER_SECRET,
    SOCKETMAP,
    SRS_DOMAIN,
    TCP_TABLE,
    WIRES,
    Client,
    Reply,
    connect,
    netstring,
    srs0,
    srs1,
    srs_hash,
    stamp,
    today,
)

if TYPE_CHECKING:
    from pathlib import Path

    from harness.daemon import Srsd

DOMAIN = SRS_DOMAIN.encode()
ALICE = b"alice@origin.example"
FOREIGN_SRS0 = b"SRS0=AbCd=EF=first.example=alice@hop.example"
FOREIGN_SRS1 = b"SRS1=AbCd=hop.example==GhIj=EF=first.example=alice@second.example"


def found(text: bytes) -> Reply:
    return Reply("found", text)


def not_found(reason: str) -> Reply:
    return Reply("not found", reason.encode())


def quoted(local_part: bytes, host: bytes) -> bytes:
    """The SRS0 of a local-part that needs quotes: the whole new local-part is quoted."""
    made, _, domain = srs0(local_part, host).rpartition(b"@")
    return b'"' + made.replace(b"\\", b"\\\\").replace(b'"', b'\\"') + b'"@' + domain


def changed(address: bytes, at: int) -> bytes:
    """The address with another, valid hash character at an offset."""
    return address[:at] + (b"Q" if address[at : at + 1].lower() != b"q" else b"z") + address[at + 1 :]


def forward_cases() -> dict[str, tuple[bytes, Reply]]:
    long_local_part = b"a" * 300
    return {
        "plain": (ALICE, found(srs0(b"alice", b"origin.example"))),
        "case kept": (b"Alice@Origin.EXAMPLE", found(srs0(b"Alice", b"Origin.EXAMPLE"))),
        "plus": (b"alice+tag@origin.example", found(srs0(b"alice+tag", b"origin.example"))),
        "equals": (b"a=b@origin.example", found(srs0(b"a=b", b"origin.example"))),
        "percent": (b"a%b@origin.example", found(srs0(b"a%b", b"origin.example"))),
        "utf-8": ("jörg@origin.example".encode(), found(srs0("jörg".encode(), b"origin.example"))),
        "octets": (b"\xff\x80@origin.example", found(srs0(b"\xff\x80", b"origin.example"))),
        "quoted": (b'"john doe"@origin.example', found(quoted(b"john doe", b"origin.example"))),
        "unquoted blank": (b"john doe@origin.example", found(quoted(b"john doe", b"origin.example"))),
        "needless quotes": (b'"alice"@origin.example', found(srs0(b"alice", b"origin.example"))),
        "quoted at": (b'"a@b"@origin.example', found(quoted(b"a@b", b"origin.example"))),
        "quoted pair": (b'"a\\"b\\\\c"@origin.example', found(quoted(b'a"b\\c', b"origin.example"))),
        "domain literal": (b"alice@[192.0.2.7]", found(quoted(b"alice", b"[192.0.2.7]"))),
        "long": (long_local_part + b"@origin.example", found(srs0(long_local_part, b"origin.example"))),
        "SRS0 of another host": (
            FOREIGN_SRS0,
            found(srs1(b"=AbCd=EF=first.example=alice", b"hop.example")),
        ),
        "SRS1 of another host": (
            FOREIGN_SRS1,
            found(srs1(b"=GhIj=EF=first.example=alice", b"hop.example")),
        ),
        "null sender, as Postfix asks": (b'""', not_found("null sender")),
        "null sender, bare": (b"<>", not_found("null sender")),
        "own domain": (b"alice@own.example", not_found("own domain")),
        "own domain in capitals": (b"alice@OWN.Example", not_found("own domain")),
        "own domain with a dot": (b"alice@own.example.", not_found("own domain")),
        "own subdomain": (b"alice@a.b.sub.example", not_found("own domain")),
        "not a subdomain": (b"alice@sub.example", found(srs0(b"alice", b"sub.example"))),
        "own U-label": ("alice@BÜCHER.example".encode(), not_found("own domain")),
        "own A-label": (b"alice@xn--bcher-kva.example", not_found("own domain")),
        "the SRS domain": (b"alice@" + DOMAIN, not_found("own domain")),
        "a previous SRS domain": (b"alice@old.example.net", not_found("own domain")),
        "our own SRS0": (srs0(b"alice", b"origin.example"), not_found("already rewritten here")),
        "our own SRS1": (srs1(b"=x=y=z=u", b"hop.example"), not_found("already rewritten here")),
        "excluded domain": (b"anyone@Friend.example", not_found("excluded")),
        "excluded address": (b"VIP@origin.example", not_found("excluded")),
        "excluded from something else": (b"spam@origin.example", found(srs0(b"spam", b"origin.example"))),
        "no at": (b"alice", not_found("not an address")),
        "no local-part": (b"@origin.example", not_found("not an address")),
        "no domain": (b"alice@", not_found("not an address")),
        "only an at": (b"@", not_found("not an address")),
        "open quote": (b'"alice@origin.example', not_found("not an address")),
        "empty quotes": (b'""@origin.example', not_found("not an address")),
        "NUL": (b"al\0ice@origin.example", not_found("not an address")),
        "newline": (b"al\nice@origin.example", not_found("not an address")),
        "equals in the domain": (
            b"a@ex=ample.com",
            not_found("domain cannot be carried in an SRS address"),
        ),
        "malformed SRS1": (b"SRS1=x@y.example", not_found("malformed SRS address")),
        "SRS1 without a hash": (b"SRS1=hop.example==a=b=c=d@y.example", not_found("malformed SRS address")),
    }


def reverse_cases() -> dict[str, tuple[bytes, Reply]]:
    good = srs0(b"alice", b"origin.example")
    when = stamp(today())
    long_hash = srs_hash(when + b"origin.examplealice", length=20)
    return {
        "plain": (good, found(ALICE)),
        "lower case": (good.lower(), found(ALICE)),
        "upper case": (good.upper(), found(ALICE.upper())),
        "other separators": (good.replace(b"SRS0=", b"SRS0+", 1), found(ALICE)),
        "second secret": (srs0(b"alice", b"origin.example", secret=OTHER_SECRET), found(ALICE)),
        "longer hash": (
            b"SRS0=%b=%b=origin.example=alice@%b" % (long_hash, when, DOMAIN),
            found(ALICE),
        ),
        "previous domain": (srs0(b"alice", b"origin.example", domain="old.example.net"), found(ALICE)),
        "domain in capitals": (
            srs0(b"alice", b"origin.example", domain=SRS_DOMAIN.upper()),
            found(ALICE),
        ),
        "21 days": (srs0(b"alice", b"origin.example", age=20), found(ALICE)),
        "quoted": (quoted(b"john doe", b"origin.example"), found(b'"john doe"@origin.example')),
        "quoted at": (quoted(b"a@b", b"origin.example"), found(b'"a@b"@origin.example')),
        "utf-8": (srs0("jörg".encode(), b"origin.example"), found("jörg@origin.example".encode())),
        "percent": (srs0(b"a%b", b"origin.example"), found(b"a%b@origin.example")),
        "SRS1": (
            srs1(b"=AbCd=EF=first.example=alice", b"hop.example"),
            found(FOREIGN_SRS0),
        ),
        "SRS1 with another separator": (
            srs1(b"+AbCd=EF=first.example=alice", b"hop.example"),
            found(FOREIGN_SRS0.replace(b"SRS0=", b"SRS0+", 1)),
        ),
        "expired": (srs0(b"alice", b"origin.example", age=23), not_found("address expired")),
        "of the future": (srs0(b"alice", b"origin.example", age=-2), not_found("address expired")),
        "unknown secret": (
            srs0(b"alice", b"origin.example", secret="nobody's"),
            not_found("hash invalid"),
        ),
        "damaged hash": (changed(good, 5), not_found("hash invalid")),
        "damaged user": (good.replace(b"alice", b"alicf"), not_found("hash invalid")),
        "damaged tail of a long hash": (
            changed(b"SRS0=%b=%b=origin.example=alice@%b" % (long_hash, when, DOMAIN), 20),
            not_found("hash invalid"),
        ),
        "short hash": (good[:8] + good[9:], not_found("hash too short")),
        "empty hash": (good[:5] + good[9:], not_found("malformed SRS address")),
        "foreign SRS domain": (
            srs0(b"alice", b"origin.example", domain="hop.example"),
            not_found("SRS address of another domain"),
        ),
        "no SRS": (b"alice@" + DOMAIN, not_found("not an SRS address")),
        "no SRS elsewhere": (ALICE, not_found("not an SRS address")),
        "bare tag": (b"SRS0@" + DOMAIN, not_found("not an SRS address")),
        "tag and separator": (b"SRS0=@" + DOMAIN, not_found("malformed SRS address")),
        "one field": (b"SRS0=x@" + DOMAIN, not_found("malformed SRS address")),
        "long stamp": (
            b"SRS0=AbCd=" + b"A" * 300 + b"=origin.example=alice@" + DOMAIN,
            not_found("malformed SRS address"),
        ),
        "no stamp": (b"SRS0=AbCd==origin.example=alice@" + DOMAIN, not_found("malformed SRS address")),
        "no host": (b"SRS0=AbCd=EF==alice@" + DOMAIN, not_found("malformed SRS address")),
        "no user": (b"SRS0=AbCd=EF=origin.example=@" + DOMAIN, not_found("malformed SRS address")),
        "SRS1, damaged": (
            changed(srs1(b"=AbCd=EF=first.example=alice", b"hop.example"), 6),
            not_found("hash invalid"),
        ),
        "SRS1 without a hash": (
            b"SRS1=hop.example==AbCd=EF=first.example=alice@" + DOMAIN,
            not_found("malformed SRS address"),
        ),
        "null sender": (b'""', not_found("null sender")),
        "not an address": (b"SRS0", not_found("not an address")),
    }


@pytest.mark.parametrize("wire", WIRES, ids=str)
@pytest.mark.parametrize(("direction", "cases"), [("forward", forward_cases), ("reverse", reverse_cases)])
def test_the_answer_to_each_case(shared, wire, direction, cases):
    with wire.client(shared, direction) as client:
        # The cases carry today's stamp; a day that ends meanwhile changes them.
        day = today()
        asked = cases()
        answers = {name: client.ask(key) for name, (key, _) in asked.items()}
        if today() != day:
            asked = cases()
            answers = {name: client.ask(key) for name, (key, _) in asked.items()}
    assert answers == {name: reply for name, (_, reply) in asked.items()}


@pytest.mark.parametrize("wire", WIRES, ids=str)
def test_no_reply_repeats_the_key(shared, wire):
    # Postfix takes a found key to be a known user, and a reason that echoes is a way in for strangers.
    with wire.client(shared) as client:
        for key, reply in forward_cases().values():
            answer = client.ask(key)
            assert answer.text != key
            if reply.status != "found" and len(key) > 2:
                assert key not in answer.text


@pytest.mark.parametrize("wire", WIRES, ids=str)
def test_there_and_back(shared, wire):
    addresses = [b"alice@a.example", b'"a b"@a.example', b"x=y=z@b.example", b"a@[IPv6:2001:db8::1]"]
    for address in addresses:
        there = wire.ask(shared, "forward", address)
        assert wire.ask(shared, "reverse", there.text) == found(address)


def test_an_empty_key(shared):
    with TCP_TABLE.client(shared) as client:
        for request in (b"get \n", b"get   \r\n"):
            client.send_raw(request)
            assert client.reply() == not_found("null sender")
    assert SOCKETMAP.ask(shared, "forward", b"") == not_found("null sender")


@pytest.mark.parametrize(
    "line",
    [
        b"\n",
        b"get\n",
        b"GET alice@origin.example\n",
        b"put alice@origin.example x\n",
        b" get alice@origin.example\n",
        b"get a%zz@b.example\n",
        b"get a%4\n",
        b"get a%\n",
        b"get %+1\n",
        b"\r\n",
        b"\0\0\0\0\n",
    ],
    ids=repr,
)
def test_a_line_that_is_no_request_is_not_found_and_the_connection_goes_on(shared, line):
    with TCP_TABLE.client(shared) as client:
        client.send_raw(line)
        assert client.reply() == not_found("not a request")
        assert client.ask(ALICE).status == "found"


@pytest.mark.parametrize(
    "line",
    [b"get alice@origin.example\r\n", b"get  alice@origin.example \n", b"get alic%65@origin.example\n"],
)
def test_lines_that_differ_and_mean_the_same(shared, line):
    with TCP_TABLE.client(shared) as client:
        client.send_raw(line)
        assert client.reply() == found(srs0(b"alice", b"origin.example"))


@pytest.mark.parametrize("name", [b"forward", b"srsencoder"])
def test_names_of_the_forward_map(shared, name):
    with SOCKETMAP.client(shared) as client:
        client.send_raw(netstring(name + b" " + ALICE))
        assert client.reply() == found(srs0(b"alice", b"origin.example"))


@pytest.mark.parametrize("name", [b"reverse", b"srsdecoder"])
def test_names_of_the_reverse_map(shared, name):
    with SOCKETMAP.client(shared) as client:
        client.send_raw(netstring(name + b" " + srs0(b"alice", b"origin.example")))
        assert client.reply() == found(ALICE)


@pytest.mark.parametrize("content", [b"backward x@y", b"Forward x@y", b"forward", b"", b" x@y", b"\xff\0 x"])
def test_an_unknown_map_or_none_is_the_admins_fault(shared, content):
    with SOCKETMAP.client(shared) as client:
        client.send_raw(netstring(content))
        assert client.reply() == Reply("permanent", b"no such map")
        assert client.ask(ALICE).status == "found"


def test_a_key_with_blanks_keeps_them_in_socketmap(shared):
    reply = SOCKETMAP.ask(shared, "forward", b" a  b @origin.example")
    assert reply == found(quoted(b" a  b ", b"origin.example"))


def test_what_does_not_fit_a_tcp_reply_is_not_found(shared):
    # Postfix would take ten seconds over a longer reply, and then defer the mail.
    user = b"a" * (4095 - len(b"200 ") - len(srs0(b"", b"origin.example")))
    with TCP_TABLE.client(shared) as client:
        assert client.ask(user + b"@origin.example") == found(srs0(user, b"origin.example"))
        assert client.ask(user + b"a@origin.example") == not_found("reply too long")
        assert client.ask(user[:3000] + b"%" * 400 + b"@origin.example") == not_found("reply too long")


def test_socketmap_replies_may_be_long(shared):
    user = b"a" * 60000
    assert SOCKETMAP.ask(shared, "forward", user + b"@o.example") == found(srs0(user, b"o.example"))


@pytest.mark.parametrize("wire", BOTH, ids=str)
def test_without_an_srs_domain_nothing_is_found(start, config, wire, directory):
    listen = {"socketmap": [f"unix:{directory}/socketmap"]}
    srsd = start(config(srs={"domain": "", "secrets_file": "/nonexistent"}, listen=listen))
    assert wire.ask(srsd, "forward", ALICE) == not_found("no SRS domain configured")
    assert wire.ask(srsd, "reverse", ALICE) == not_found("no SRS domain configured")


def test_always_rewrite_spares_our_own_srs_addresses_alone(start, config):
    srsd = start(config(srs={"always_rewrite": True, "local_domains": ["own.example"]}))
    assert TCP_TABLE.ask(srsd, "forward", b"a@own.example") == found(srs0(b"a", b"own.example"))
    assert TCP_TABLE.ask(srsd, "forward", b"a@" + DOMAIN) == found(srs0(b"a", DOMAIN))
    ours = srs0(b"alice", b"origin.example")
    assert TCP_TABLE.ask(srsd, "forward", ours) == not_found("already rewritten here")


def test_separator_hash_length_and_age(start, config):
    srs = {"separator": "+", "hash_length": 8, "hash_minimum": 6, "maximum_age": 3}
    srsd = start(config(srs=srs))
    made = TCP_TABLE.ask(srsd, "forward", ALICE).text
    when = stamp(today())
    digest = srs_hash(when + b"origin.examplealice", length=8)
    assert made == b"SRS0+%b=%b=origin.example=alice@%b" % (digest, when, DOMAIN)
    assert TCP_TABLE.ask(srsd, "reverse", made) == found(ALICE)
    assert TCP_TABLE.ask(srsd, "reverse", made.replace(digest, digest[:6])) == found(ALICE)
    assert TCP_TABLE.ask(srsd, "reverse", made.replace(digest, digest[:5])) == not_found("hash too short")
    old = b"SRS0=%b=%b=origin.example=alice@%b"
    for age, answer in ((2, found(ALICE)), (5, not_found("address expired"))):
        when = stamp(today() - age)
        key = old % (srs_hash(when + b"origin.examplealice", length=6), when, DOMAIN)
        assert TCP_TABLE.ask(srsd, "reverse", key) == answer


# Postfix's own client, without a Postfix that runs.


class Postmap:
    """`postmap -q -` under a nearly empty main.cf."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        main_cf = directory / "main.cf"
        main_cf.write_text("compatibility_level = 3.6\n")
        # Postfix waits two seconds for a main.cf that was changed just now.
        os.utime(main_cf, (0, 0))

    def query(self, keys: list[bytes], table: str) -> list[tuple[bytes, bytes]]:
        """Return the keys that were found, each with its result."""
        line = ["postmap", "-c", str(self.directory), "-q", "-", table]
        ended = subprocess.run(line, input=b"\n".join(keys), capture_output=True, timeout=30, check=False)
        assert ended.stderr == b"", ended.stderr
        return [found.partition(b"\t")[::2] for found in ended.stdout.splitlines()]


@pytest.mark.skipif(shutil.which("postmap") is None, reason="Postfix is not installed")
@pytest.mark.parametrize("wire", WIRES, ids=str)
def test_postmap_gets_the_same_answers(shared: Srsd, wire, directory):
    def ask(direction: str, cases: dict[bytes, bytes | None]) -> None:
        endpoint = wire.endpoint(shared, direction)
        table = f"socketmap:{endpoint}:{direction}"
        if wire.protocol == "tcp_table":
            table = "tcp:" + endpoint.removeprefix("inet:")
        expected = [(key, result) for key, result in cases.items() if result is not None]
        assert Postmap(directory).query(list(cases), table) == expected

    forward = {
        ALICE: srs0(b"alice", b"origin.example"),
        b'"john doe"@origin.example': quoted(b"john doe", b"origin.example"),
        "jörg%@origin.example".encode(): srs0("jörg%".encode(), b"origin.example"),
        b"alice@own.example": None,
        b'""': None,
        b"anyone@friend.example": None,
        b"nonsense": None,
        FOREIGN_SRS0: srs1(b"=AbCd=EF=first.example=alice", b"hop.example"),
    }
    ask("forward", forward)
    forged = srs0(b"alice", b"origin.example", secret="nobody's")
    ask("reverse", {srs0(b"alice", b"origin.example"): ALICE, forged: None, ALICE: None})


def test_what_connects_by_name_of_the_ready_line(shared):
    assert set(shared.endpoints) == {"srs_forward", "srs_reverse", "socketmap"}
    for endpoints in shared.endpoints.values():
        for endpoint in endpoints:
            connect(endpoint).close()


def test_replies_are_for_whoever_asked(shared):
    with TCP_TABLE.client(shared) as one, TCP_TABLE.client(shared) as two:
        clients: list[tuple[Client, bytes]] = [(one, b"one"), (two, b"two")] * 50
        for client, name in clients:
            client.send(name + b"@origin.example")
        for client, name in clients:
            assert client.reply() == found(srs0(name, b"origin.example"))
