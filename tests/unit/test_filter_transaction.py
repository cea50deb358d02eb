"""The facts of a transaction, as the MTA's words give them."""

from __future__ import annotations

from ipaddress import ip_address

import pytest

from srsd.filter.origin import MilterParameters, Origin, Origins
from srsd.filter.transaction import Transaction, is_authserv_id, make_transaction
from srsd.syntax.address import Address
from srsd.wire.milter import Connect, Path
from srsd.wire.milter_session import Envelope

CLIENT = Connect(b"mail.example.com", ip_address("192.0.2.1"))
ORIGINS = Origins(MilterParameters())


def make(
    sender: bytes = b"<alice@example.com>",
    *arguments: bytes,
    client: Connect = CLIENT,
    helo: bytes = b"helo.example",
    recipients: tuple[bytes, ...] = (b"<bob@example.net>",),
    macros: dict[bytes, bytes] | None = None,
    configured: bytes = b"",
) -> Transaction:
    paths = tuple(Path(each, ()) for each in recipients)
    envelope = Envelope(client, helo, Path(sender, arguments), paths, macros or {})
    return make_transaction(envelope, ORIGINS, configured, b"fallback.example")


def test_the_facts():
    transaction = make(
        recipients=(b"<bob@example.net>", b"carol@example.net"), macros={b"j": b"mx.example.org"}
    )
    assert transaction == Transaction(
        client=ip_address("192.0.2.1"),
        client_name=b"mail.example.com",
        helo=b"helo.example",
        sender_path=b"<alice@example.com>",
        null_sender=False,
        sender=Address(b"alice", b"example.com"),
        utf8=False,
        recipients=(b"<bob@example.net>", b"carol@example.net"),
        login=b"",
        origin=Origin.OUTSIDE,
        authserv_id=b"mx.example.org",
    )


@pytest.mark.parametrize(
    ("path", "null", "sender"),
    [
        (b"<>", True, None),
        (b"", True, None),
        (b"alice@example.com", False, Address(b"alice", b"example.com")),
        (b"<Alice@EXAMPLE.com>", False, Address(b"Alice", b"EXAMPLE.com")),
        (b'<"a b"@example.com>', False, Address(b"a b", b"example.com")),
        (b"<@relay.example:alice@example.com>", False, Address(b"alice", b"example.com")),
        (b"<alice>", False, None),
        (b"alice", False, None),
        (b"< >", False, None),
        (b"<<>>", False, None),
        (b"<any@legit.example(a.attack.example>", False, None),
    ],
)
def test_senders(path, null, sender):
    transaction = make(path)
    assert (transaction.null_sender, transaction.sender) == (null, sender)
    assert transaction.sender_path == path


@pytest.mark.parametrize(
    ("arguments", "utf8"),
    [
        ((), False),
        ((b"SIZE=100",), False),
        ((b"SMTPUTF8",), True),
        ((b"SIZE=100", b"BODY=8BITMIME", b"smtputf8"), True),
        ((b"XSMTPUTF8",), False),
        ((b"SMTPUTF8=YES",), False),
        ((b"ENVID=SMTPUTF8",), False),
    ],
)
def test_smtputf8(arguments, utf8):
    assert make(b"<a@example.com>", *arguments).utf8 is utf8


@pytest.mark.parametrize(
    ("macros", "login", "origin"),
    [
        ({}, b"", Origin.OUTSIDE),
        ({b"auth_authen": b"alice"}, b"alice", Origin.AUTHENTICATED),
        ({b"auth_authen": b"alice", b"auth_type": b"PLAIN"}, b"alice", Origin.AUTHENTICATED),
        ({b"auth_type": b"EXTERNAL"}, b"EXTERNAL", Origin.AUTHENTICATED),  # a login that has no name
        ({b"auth_authen": b"", b"auth_type": b""}, b"", Origin.OUTSIDE),
        ({b"auth_author": b"alice"}, b"", Origin.OUTSIDE),  # what the client claims in MAIL FROM's AUTH=
        ({b"daemon_name": b"ORIGINATING"}, b"", Origin.ORIGINATING),
        ({b"daemon_name": b"smtpd"}, b"", Origin.OUTSIDE),
        ({b"daemon_name": b"ORIGINATING", b"auth_authen": b"alice"}, b"alice", Origin.AUTHENTICATED),
    ],
)
def test_logins_and_services(macros, login, origin):
    transaction = make(macros=macros)
    assert (transaction.login, transaction.origin) == (login, origin)


def test_a_client_without_an_address():
    transaction = make(client=Connect(b"localhost", None))
    assert transaction.client is None
    assert transaction.origin is Origin.OUTSIDE
    assert make(client=Connect(b"localhost", ip_address("127.0.0.1"))).origin is Origin.INTERNAL


@pytest.mark.parametrize(
    ("configured", "macro", "name"),
    [
        (b"ours.example", b"mx.example.org", b"ours.example"),
        (b"ours.example", None, b"ours.example"),
        (b"", b"mx.example.org", b"mx.example.org"),
        (b"", b"MX_1.Example.ORG", b"MX_1.Example.ORG"),
        (b"", None, b"fallback.example"),
        (b"", b"", b"fallback.example"),
        (b"", b"mx.example.org; spf=pass", b"fallback.example"),
        (b"", b"mx\nX-Y: z", b"fallback.example"),
        (b"", b"m\xc3\xbcx.example", b"fallback.example"),
        (b"", b"a" * 256, b"fallback.example"),
    ],
)
def test_the_authserv_id(configured, macro, name):
    macros = {} if macro is None else {b"j": macro}
    assert make(macros=macros, configured=configured).authserv_id == name


@pytest.mark.parametrize("octet", range(256))
def test_each_octet_of_a_name(octet):
    """What needs no quotes as an authserv-id, and may stand in the name of a host."""
    plain = bytes((octet,)).isalnum() or octet in b"-_."
    assert is_authserv_id(b"a" + bytes((octet,)) + b"b") is plain


def test_the_length_of_a_name():
    assert not is_authserv_id(b"")
    assert is_authserv_id(b"a" * 255)
    assert not is_authserv_id(b"a" * 256)
