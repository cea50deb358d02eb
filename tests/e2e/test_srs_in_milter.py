"""SRS in the milter, in a real Postfix: what leaves the host is rewritten, what stays is not."""

from __future__ import annotations

import os
import re
import smtplib
import socket
import subprocess
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from harness.alias_host import AliasHost
from harness.daemon import command
from harness.milter_host import OURS, make_message, told
from harness.smtp_client import STRANGER

if TYPE_CHECKING:
    from collections.abc import Iterator

    from harness.smtp_sink import SmtpSink

pytestmark = pytest.mark.e2e

ALICE = "alice@origin.example"
REWRITTEN = "SRS0="
VIRTUAL = {
    "bob@virtual.example": "bob@far.example",
    "stay@virtual.example": "bob@here.example",
    "nested@virtual.example": "nested2@virtual.example",
    "nested2@virtual.example": "stay@virtual.example, nested3@virtual.example",
    "nested3@virtual.example": "carol@far.example",
    "self@virtual.example": "self@virtual.example, dave@far.example",
    "plus@virtual.example": "plus@far.example",
    "plus+special@virtual.example": "bob@here.example",
    "toalias@virtual.example": "out@here.example",
    "@catchall.example": "catcher@far.example",
    "inside@catchall.example": "bob@here.example",
}
PATTERNS = {
    "/^bob@virtual\\.example$/": "bob@far.example",
    "/^(nested2|stay)@virtual\\.example$/": "bob@here.example",
    "/^nested@virtual\\.example$/": "nested3@virtual.example",
    "/^nested3@virtual\\.example$/": "carol@far.example",
    "/^inside@catchall\\.example$/": "bob@here.example",
    "/@catchall\\.example$/": "catcher@far.example",
}
ALIASES = {
    "out": "out@far.example",
    "in": "bob",
    "both": "bob, both@far.example",
    "keep": "\\keep, keep@far.example",
    "nest": "in, nest2",
    "nest2": "out",
    "command": '"|cat >/dev/null"',
    "list": "carol, member@far.example",
    "owner-list": "bob",
    "dave": "dave",
    "viavirtual": "bob@virtual.example",
}
LEAVES = [
    "bob@virtual.example",
    "nested@virtual.example",
    "self@virtual.example",
    "plus@virtual.example",
    "plus+tag@virtual.example",
    "toalias@virtual.example",
    "anything@catchall.example",
    "out@here.example",
    "OUT@Here.Example",
    "out+tag@here.example",
    "nest@here.example",
    "viavirtual@here.example",
    "both@here.example",
    "keep@here.example",
]
STAYS = [
    "stay@virtual.example",
    "plus+special@virtual.example",
    "inside@catchall.example",
    "in@here.example",
    "bob@here.example",
    "bob+tag@here.example",
    "dave@here.example",
    "anyone@mailbox.example",
]


@pytest.fixture(scope="module")
def running_host() -> Iterator[AliasHost]:
    with AliasHost("hash", virtual=VIRTUAL, aliases=ALIASES) as host:
        yield host


@pytest.fixture(scope="module")
def control() -> Iterator[AliasHost]:
    """The same host in maps mode."""
    with AliasHost("hash", virtual=VIRTUAL, aliases=ALIASES, mode="maps") as host:
        yield host


@pytest.mark.parametrize("recipient", LEAVES)
def test_what_leaves_is_rewritten(host: AliasHost, recipient):
    assert host.leaves(ALICE, recipient).startswith(REWRITTEN)


@pytest.mark.parametrize("recipient", STAYS)
def test_what_stays_keeps_its_sender(host: AliasHost, recipient):
    assert host.stays(ALICE, recipient) == ALICE


@pytest.mark.parametrize("recipient", STAYS[:5])
def test_in_maps_mode_everything_is_rewritten(control: AliasHost, recipient):
    assert control.stays(ALICE, recipient).startswith(REWRITTEN)
    assert control.leaves(ALICE, "bob@virtual.example").startswith(REWRITTEN)


def test_a_list_with_an_owner_leaves_in_the_owners_name(host: AliasHost):
    """local(8) makes the owner the sender of what leaves; the member on this host gets it so, too."""
    assert host.leaves(ALICE, "list@here.example") == "owner-list@mx.here.example"


def test_a_command_stays(host: AliasHost):
    subject, content = make_message()
    since = len(host.srsd.log)
    assert host.send(ALICE, "command@here.example", content).accepted
    line = host.srsd.wait_for_log("srs=", since=since)
    assert "srs=left as it is, srs_why=no recipient leaves this host" in line
    assert subject not in line


# A message with several recipients has one envelope, and so one sender.


def deliver_to(host: AliasHost, *recipients: str) -> str:
    """Hand over one message to several recipients; return its subject."""
    subject, content = make_message()
    with smtplib.SMTP(*host.postfix.address, timeout=60, source_address=(STRANGER, 0)) as client:
        client.sendmail(ALICE, recipients, content)
    return subject


def senders(host: AliasHost, subject: str, *sinks: SmtpSink) -> list[str]:
    """Return with which senders a message came to each of the sinks."""
    wanted = f"Subject: {subject}\r\n".encode()
    return [sink.wait_for(lambda message: wanted in message.content).sender for sink in sinks]


def test_a_mixed_message_is_rewritten_for_all(host: AliasHost):
    subject = deliver_to(host, "bob@here.example", "bob@virtual.example")
    inside, outside = senders(host, subject, host.mailboxes, host.sink)
    assert inside == outside
    assert outside.startswith(REWRITTEN)


def test_an_alias_for_both_is_rewritten_for_both(host: AliasHost):
    subject = deliver_to(host, "both@here.example")
    inside, outside = senders(host, subject, host.mailboxes, host.sink)
    assert inside == outside
    assert outside.startswith(REWRITTEN)


def test_two_who_stay_keep_the_sender(host: AliasHost):
    subject = deliver_to(host, "bob@here.example", "anyone@mailbox.example", "in@here.example")
    assert senders(host, subject, host.mailboxes) == [ALICE]


def test_with_lmtp_generic_maps_the_mailbox_sees_the_original_sender_of_a_mixed_message():
    with AliasHost("hash", virtual=VIRTUAL, aliases=ALIASES, lmtp_generic=True) as host, told(host):
        subject = deliver_to(host, "bob@here.example", "bob@virtual.example")
        inside, outside = senders(host, subject, host.mailboxes, host.sink)
        assert inside == ALICE
        assert outside.startswith(REWRITTEN)
        assert host.stays(ALICE, "bob@here.example") == ALICE


# Whose mail, and the way back.


def test_mail_of_ours_and_bounces_are_not_rewritten(host: AliasHost):
    assert host.ends(ALICE, "bob@virtual.example", host.sink, source=OURS) == ALICE
    assert host.leaves("", "bob@virtual.example") == ""
    assert host.leaves("bob@here.example", "bob@virtual.example") == "bob@here.example"


def test_a_bounce_comes_back_and_a_forged_one_is_refused_and_logged(host: AliasHost):
    rewritten = host.leaves(ALICE, "bob@virtual.example")
    message = host.message("", rewritten, host.sink)
    assert message.recipients == (ALICE,)
    since = len(host.srsd.log)
    forged = rewritten.replace("=alice@", "=eve@")
    sent = host.send("", forged)
    assert (sent.last.command, sent.last.code) == ("RCPT", 550)
    host.srsd.wait_for_log("(hash invalid)", since=since)


def test_both_modes_together_rewrite_once():
    with AliasHost("hash", virtual=VIRTUAL, aliases=ALIASES, forward_map=True) as host, told(host):
        sender = host.leaves(ALICE, "bob@virtual.example")
        assert sender.startswith(REWRITTEN)
        assert "SRS1" not in sender
        assert sender.count("SRS0") == 1
        host.srsd.wait_for_log("srs=rewritten")


# Tables of all kinds, and other settings.


@pytest.mark.parametrize("kind", ["lmdb", "btree", "texthash", "sqlite"])
def test_other_tables(kind):
    virtual = {**VIRTUAL, "virtual.example": "x", "catchall.example": "x"}
    with AliasHost(kind, virtual=virtual, aliases=ALIASES) as host, told(host):
        for recipient in ("bob@virtual.example", "nested@virtual.example", "x@catchall.example"):
            assert host.leaves(ALICE, recipient).startswith(REWRITTEN)
        for recipient in ("stay@virtual.example", "inside@catchall.example"):
            assert host.stays(ALICE, recipient) == ALICE


@pytest.mark.parametrize("kind", ["regexp", "pcre"])
def test_patterns(kind):
    with AliasHost(kind, virtual=PATTERNS, aliases=ALIASES) as host, told(host):
        for recipient in ("bob@virtual.example", "nested@virtual.example", "x@catchall.example"):
            assert host.leaves(ALICE, recipient).startswith(REWRITTEN)
        for recipient in ("stay@virtual.example", "inside@catchall.example", "bob+tag@here.example"):
            assert host.stays(ALICE, recipient) == ALICE


def test_a_table_that_is_made_anew_counts_at_once(host: AliasHost):
    assert host.stays(ALICE, "in@here.example") == ALICE
    host.aliases["in"] = "bob, in@far.example"
    host.write_tables()
    try:
        deadline = time.monotonic() + 20
        while not host.ends(ALICE, "in@here.example", host.mailboxes).startswith(REWRITTEN):
            assert time.monotonic() < deadline
    finally:
        host.aliases["in"] = "bob"
        host.write_tables()


def postmaps(host: AliasHost) -> set[int]:
    """Return the pids of the postmap processes that srsd keeps."""
    found = set()
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            pid, name, _, parent = path.read_text().split()[:4]
        except OSError:  # it ended while we looked
            continue
        if name == "(postmap)" and int(parent) == host.srsd.pid:
            found.add(int(pid))
    return found


def test_a_reload_under_traffic():
    with AliasHost("hash", virtual=VIRTUAL, aliases=ALIASES) as host, told(host):
        assert host.leaves(ALICE, "bob@virtual.example").startswith(REWRITTEN)
        before, since = postmaps(host), len(host.srsd.log)
        assert before
        with ThreadPoolExecutor(1) as traffic:
            sent = [traffic.submit(host.leaves, ALICE, "out@here.example") for _ in range(10)]
            (host.srsd.config.parent / "exclude").write_text("@friend.example\n")
            host.srsd.wait_for_log("exclude: read again after a change", since=since)
        assert all(each.result().startswith(REWRITTEN) for each in sent)
        assert host.leaves("a@friend.example", "bob@virtual.example") == "a@friend.example"
        assert before <= postmaps(host)
        with ThreadPoolExecutor(1) as traffic:  # now asked for: nothing is kept that was known before
            sent = [traffic.submit(host.leaves, ALICE, "nested@virtual.example") for _ in range(10)]
            host.srsd.hup()
            host.srsd.wait_for_log("everything was read again", since=since)
        assert all(each.result().startswith(REWRITTEN) for each in sent)
        assert host.leaves(ALICE, "bob@virtual.example").startswith(REWRITTEN)
        deadline = time.monotonic() + 20
        while before & postmaps(host):
            assert time.monotonic() < deadline
            time.sleep(0.02)  # processes of srsd: there is nothing to wait on


# Copies that Postfix makes.

COPIES = """
always_bcc = {always}
sender_bcc_maps = inline:{{ {{ alice@origin.example = {sender} }} }}
recipient_bcc_maps = inline:{{ {{ carol@here.example = {recipient} }} }}
"""


@pytest.mark.parametrize(
    ("way", "copy"),
    [
        ("always", "archive@far.example"),
        ("sender", "archive@far.example"),
        ("recipient", "archive@far.example"),
        ("sender", "bob@virtual.example"),  # an alias that leaves
    ],
)
def test_a_copy_that_leaves_is_rewritten(way, copy):
    nobody = {"always": "", "sender": "dave@here.example", "recipient": "dave@here.example"}
    site = COPIES.format(**{**nobody, way: copy})
    with AliasHost("hash", virtual=VIRTUAL, aliases=ALIASES, site=site) as host, told(host):
        for _ in range(2):  # once asked for, once remembered
            subject = deliver_to(host, "carol@here.example")
            (outside,) = senders(host, subject, host.sink)
            assert outside.startswith(REWRITTEN)
            (message,) = [
                each for each in host.sink.messages if f"Subject: {subject}".encode() in each.content
            ]
            assert message.recipients == (copy.replace("bob@virtual", "bob@far"),)
            host.mailboxes.wait_for(lambda each, name=subject: f"Subject: {name}".encode() in each.content)
        host.srsd.wait_for_log("srs_leaves=<bob@far" if "virtual" in copy else "srs_leaves=<archive@far")


def test_postfix_asks_for_copies_of_the_new_sender_as_well():
    """It has no say in whether the message leaves: that is decided, or there would be no new sender."""
    site = "sender_bcc_maps = inline:{ { @srs.here.example = late@far.example } }\n"
    with AliasHost("hash", virtual=VIRTUAL, aliases=ALIASES, site=site) as host, told(host):
        message = host.message(ALICE, "bob@virtual.example", host.sink)
        assert message.sender.startswith(REWRITTEN)
        assert message.recipients == ("bob@far.example", "late@far.example")
        assert host.stays(ALICE, "carol@here.example") == ALICE


def test_a_copy_that_stays_leaves_the_sender_alone():
    site = COPIES.format(always="dave@here.example", sender="in@here.example", recipient="bob@here.example")
    with AliasHost("hash", virtual=VIRTUAL, aliases=ALIASES, site=site) as host, told(host):
        subject = deliver_to(host, "carol@here.example")
        assert senders(host, subject, host.mailboxes) == [ALICE]


# Tables that do not answer.


@pytest.mark.parametrize(
    ("error", "code", "rewritten"), [("rewrite", 250, True), ("keep", 250, False), ("tempfail", 451, False)]
)
def test_a_table_that_srsd_cannot_ask(error, code, rewritten):
    """Postfix has no virtual aliases here: it takes the mail, whatever becomes of srsd's question."""
    with (
        AliasHost("hash", virtual=VIRTUAL, aliases=ALIASES, srs={"expansion_error": error}) as host,
        told(host),
    ):
        (host.tables_directory / "virtual.db").chmod(0o600)  # srsd is nobody
        subject, content = make_message()
        sent = host.send(ALICE, "bob@virtual.example", content)
        assert sent.last.code == code
        assert "virtual" in host.srsd.wait_for_log("srs_problem=")
        if code == 250:
            (sender,) = senders(host, subject, host.sink)
            assert sender.startswith(REWRITTEN) is rewritten


def test_postfix_that_cannot_be_asked_is_told_of_at_the_start(tmp_path):
    with AliasHost("hash", virtual=VIRTUAL, aliases=ALIASES) as host, told(host):
        host.srsd.terminate()
        host.srsd.env["MAIL_CONFIG"] = str(tmp_path)
        host.srsd.start()
        assert "main.cf" in host.srsd.wait_for_log("the alias maps of Postfix cannot be asked")
        assert host.stays(ALICE, "bob@here.example").startswith(REWRITTEN)


# Only where SPF would fail.

SPF_ZONES = {
    ("fail.example", "TXT"): ["v=spf1 ip4:127.0.0.2 -all"],
    ("pass.example", "TXT"): ["v=spf1 ip4:127.0.0.2 ip4:192.0.2.25 -all"],
}


@pytest.mark.parametrize("mode", ["milter", "maps"])
def test_with_spf_only_senders_that_would_fail_are_rewritten(mode):
    srs = {"when": "spf", "outbound_addresses": ["192.0.2.25"]}
    with (
        AliasHost("hash", virtual=VIRTUAL, aliases=ALIASES, mode=mode, srs=srs, zones=SPF_ZONES) as host,
        told(host),
    ):
        assert host.leaves("alice@fail.example", "bob@virtual.example").startswith(REWRITTEN)
        assert host.leaves("alice@pass.example", "bob@virtual.example") == "alice@pass.example"
        assert host.leaves("alice@none.example", "bob@virtual.example") == "alice@none.example"


# What srsctl says.


def test_srsctl_explain_asks_the_tables_of_this_postfix(host: AliasHost, tmp_path):
    message = host.message(ALICE, "bob@virtual.example", host.sink)
    file = tmp_path / "message.eml"
    file.write_bytes(message.content)
    options = ("--client-ip", STRANGER, "--mail-from", ALICE, "--recipient", "nested@virtual.example")
    environment = {**os.environ, "MAIL_CONFIG": host.env["MAIL_CONFIG"]}
    line = [*command("srsctl"), "--config", str(host.srsd.config), "explain", str(file), *options]
    done = subprocess.run(line, capture_output=True, text=True, timeout=60, check=True, env=environment)
    assert re.search(
        r"^Sender rewritten to SRS0=\S+@srs\.here\.example: rewritten: a recip", done.stdout, re.MULTILINE
    )
    nested = "nested@virtual.example -> bob@here.example, carol@far.example (virtual_alias_maps)"
    assert f"  {nested}\n  carol@far.example leaves this host\n" in done.stdout


# A table that is slow for one recipient.


class SlowTable(threading.Thread):
    """A tcp_table(5) whose answers for one key take their time."""

    def __init__(self, slow: str, seconds: float) -> None:
        super().__init__(daemon=True)
        self.slow, self.seconds = slow, seconds
        self.listening = socket.create_server(("127.0.0.1", 0))
        self.port = self.listening.getsockname()[1]

    def run(self) -> None:
        while True:
            try:
                connection, _ = self.listening.accept()
            except OSError:
                return
            threading.Thread(target=self.serve, args=(connection,), daemon=True).start()

    def serve(self, connection: socket.socket) -> None:
        with connection, connection.makefile("rwb") as stream:
            for line in stream:
                key = line.decode().split()[1]
                if key == self.slow:
                    time.sleep(self.seconds)
                stream.write(b"500 no\n")
                stream.flush()


def test_a_slow_table_delays_its_own_message_only():
    """Postfix waits for it, too: three times. So it is srsd alone that asks it, in place of relay_domains."""
    table = SlowTable("slow.example", 3.0)
    table.start()
    site = f"relay_domains = tcp:127.0.0.1:{table.port}\n"
    aliases = {**ALIASES, "slow": "x@slow.example"}
    with (
        AliasHost(
            "hash", virtual=VIRTUAL, aliases=aliases, site=site, srs={"expansion_timeout": 1.0}
        ) as host,
        told(host),
    ):
        host.leaves(ALICE, "bob@virtual.example")
        seconds: dict[str, float] = {}

        def send(recipient: str) -> None:
            begin = time.monotonic()
            assert host.send(ALICE, recipient).accepted
            seconds[recipient] = time.monotonic() - begin

        slow = threading.Thread(target=send, args=("slow@here.example",))
        slow.start()
        for recipient in ("out@here.example", "both@here.example", "nest@here.example"):
            send(recipient)
        assert "slow@here.example" not in seconds  # it still waits
        slow.join(60)
        assert "no answer within 1 s" in host.srsd.wait_for_log("srs_problem=")
        assert "srs=rewritten" in host.srsd.wait_for_log("srs_problem=")
    table.listening.close()


# Several SRS domains.


@pytest.mark.parametrize("mode", ["milter", "maps"])
def test_an_srs_domain_for_some(mode):
    chosen_by = "virtual.example" if mode == "milter" else "customer.example"
    srs = {"domain_for": [{"domains": [chosen_by], "domain": "srs2.here.example"}]}
    with AliasHost("hash", virtual=VIRTUAL, aliases=ALIASES, mode=mode, srs=srs) as host, told(host):
        first = host.leaves("eve@customer.example", "bob@virtual.example")
        assert first.endswith("@srs2.here.example")
        second = host.leaves(ALICE, "out@here.example")
        assert second.endswith("@srs.here.example")
        assert host.message("", first, host.sink).recipients == ("eve@customer.example",)
        assert host.message("", second, host.sink).recipients == (ALICE,)


def test_the_arguments_of_mail_stay():
    """CHGFROM has none: RET and ENVID are still those of the client, in a message that waits in the queue."""
    site = "defer_transports = smtp\n"
    with AliasHost("hash", virtual=VIRTUAL, aliases=ALIASES, site=site) as host, told(host):
        with smtplib.SMTP(*host.postfix.address, timeout=60, source_address=(STRANGER, 0)) as client:
            client.ehlo("client.example")
            assert client.docmd(f"MAIL FROM:<{ALICE}> RET=HDRS ENVID=ident")[0] == 250
            assert client.docmd("RCPT TO:<bob@virtual.example>")[0] == 250
            assert client.data(make_message()[1])[0] == 250
        host.postfix.wait_for_log("status=deferred")
        (waiting,) = host.postfix.queue()
        assert waiting["sender"].startswith(REWRITTEN)
        envelope = host.postfix.run("postcat", "-qve", waiting["queue_id"])
        assert re.search(r"dsn_envelope_id: ident$|envelope_id=ident$", envelope, re.MULTILINE)
        assert re.search(r"dsn_ret_flags: 2$|ret_flags=2$", envelope, re.MULTILINE)


def test_workers_and_reloads():
    # As root: in a checkout below /root no other user may run the Python of the workers.
    with AliasHost("hash", virtual=VIRTUAL, aliases=ALIASES, workers=2, user="") as host, told(host):
        for _ in range(2):
            for _ in range(4):
                assert host.leaves(ALICE, "bob@virtual.example").startswith(REWRITTEN)
                assert host.stays(ALICE, "stay@virtual.example") == ALICE
            since = host.srsd.hup()
            host.srsd.wait_for_log("everything was read again", since=since)
