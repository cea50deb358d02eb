"""DKIM in a real Postfix: what srsd signs verifies elsewhere, what it verifies gets the right word, and the rest is let be.

Two hosts, one behind the other. The first signs; the second has OpenDKIM and a second srsd, which verify.
"""

from __future__ import annotations

import contextlib
import json
import re
import shutil
import smtplib
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, NamedTuple

import dkim
import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding

from harness import dkim_judges
from harness.content_filter import ContentFilter
from harness.dkim_forge import Forge, ed25519_key, rsa_key
from harness.dkim_judges import OPENDKIM_ID, Judged, OpenDkim, body_altered, field_altered
from harness.key_directory import KeyDirectory
from harness.milter_host import BOB, HOSTNAME, OURS, Delivered, MilterHost, fragment, told
from harness.ports import free_port
from harness.running import until
from harness.smtp_client import STRANGER, send
from harness.submission import logged_in, submission_host
from srsd.resolving import Outcome
from srsd.syntax.header import HeaderField

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

pytestmark = pytest.mark.e2e

SECOND = "mx.second.example"
ALICE = "alice@here.example"
FROM_ALICE = b"From: Alice <alice@here.example>"
OUR_SELECTORS = ["s1-rsa", "s1-ed25519"]
RELAY = "127.0.0.5"
EXCLUDED_CLIENT = "127.0.0.6"
# One message at a time goes to the second host: OpenDKIM 2.11 with libunbound dies of two at once.
FIRST_MAIN_CF = """
relay_transport = smtp
smtp_destination_concurrency_limit = 1
local_header_rewrite_clients = permit_inet_interfaces, permit_sasl_authenticated
canonical_maps = inline:{ { al1ce@here.example = First.Last@here.example } }
masquerade_domains = here.example
masquerade_exceptions = root
transport_maps = inline:{ { old.example = oldhop:[127.0.0.1]:%d } }
"""
OLD_HOP = "oldhop unix - - y - - smtp -o smtp_discard_ehlo_keywords=8bitmime,smtputf8,chunking\n"
_numbers = iter(range(1, 1_000_000))


# Messages.


def message(
    *extra: bytes,
    author: bytes | None = FROM_ALICE,
    body: bytes = b"Hello.\r\n",
    without: Sequence[bytes] = (),
) -> tuple[str, bytes]:
    """Make a message with a subject of its own; return the subject and the content."""
    subject = f"dkim {next(_numbers)}."
    lines = [
        *([author] if author is not None else []),
        b"To: Bob <bob@here.example>",
        f"Subject: {subject}".encode(),
        b"Date: Mon, 02 Feb 2026 10:00:00 +0000",
        f"Message-ID: <{subject.split()[1]}dkim@client.example>".encode(),
        b"MIME-Version: 1.0",
        b"Content-Type: text/plain; charset=utf-8",
        b"Content-Transfer-Encoding: 8bit",
    ]
    lines = [line for line in lines if line.partition(b":")[0] not in without]
    return subject, b"\r\n".join([*lines, *extra, b"", b""]) + body


def facts(host: MilterHost, delivered: Delivered) -> dict[str, Any]:
    """Return srsd's log line about a message that went through a host, once it is there."""
    (received,) = [r for r in delivered.all("Received") if f"by {host.postfix.hostname} " in r]
    queue_id = re.search(r" id (\w+)", received)[1]
    return facts_of(host, queue_id)


def facts_of(host: MilterHost, queue_id: str) -> dict[str, Any]:
    line = host.srsd.wait_for_log(lambda line: f'"queue_id": "{queue_id}"' in line)
    return json.loads(line)


def tags(signature: str) -> dict[str, str]:
    """Return the tags of a DKIM-Signature field's value."""
    pairs = [each.split("=", 1) for each in signature.split(";")]
    return {name.strip(): re.sub(r"\s+", "", value) for name, value in pairs}


# Two hosts.


class Route:
    """The first host, the second, and what the verifiers say of what arrived behind it."""

    def __init__(self, first: MilterHost, second: MilterHost, opendkim: OpenDkim | None) -> None:
        self.first = first
        self.second = second
        self.opendkim = opendkim
        self._delivered: dict[str, Delivered] = {}

    def submit(
        self, content: bytes, subject: str, *, recipients: Sequence[str] = (BOB,), source: str = OURS
    ) -> Delivered:
        """Hand a message to the first host by SMTP; return it as it left the second."""
        with smtplib.SMTP(*self.first.postfix.address, timeout=60, source_address=(source, 0)) as client:
            client.sendmail(ALICE, recipients, content)
        return self.second.arrived(subject)

    def once(self, case: str) -> Delivered:
        """Return the message of a case, brought when it is wanted for the first time."""
        if case not in self._delivered:
            self._delivered[case] = CASES[case](self)
        return self._delivered[case]

    def verdict(self, judge: str, delivered: Delivered) -> list[Judged]:
        """Return what a verifier says of each signature, from the top, without its reasons."""
        content, dns_port = delivered.message.content, self.first.dns.port
        judged = {
            "dkimpy": lambda: dkim_judges.dkimpy(content, dns_port),
            "Mail::DKIM": lambda: dkim_judges.mail_dkim(content, dns_port),
            "OpenDKIM": lambda: dkim_judges.results(delivered.results, OPENDKIM_ID),
            "srsd": lambda: dkim_judges.results(delivered.results, SECOND),
        }[judge]()
        return [each._replace(detail="") for each in judged]


@pytest.fixture(scope="module")
def running_route() -> Iterator[Route]:
    with contextlib.ExitStack() as stack:
        second = MilterHost(
            {},
            milter={"internal_networks": ["192.0.2.1/32"]},
            log={"format": "json"},
            main_cf="smtputf8_autodetect_classes = all\n",
        )
        second.postfix.hostname = SECOND
        first = stack.enter_context(
            submission_host(
                {},
                "alice",
                main_cf=FIRST_MAIN_CF % second.postfix.port,
                master_cf=OLD_HOP,
                exclude=f"@excluded.here.example sign\n{EXCLUDED_CLIENT} sign\n@unspoken.here.example spf\n",
                milter={
                    "internal_networks": [f"{OURS}/32", f"{EXCLUDED_CLIENT}/32"],
                    "trusted_relays": [f"{RELAY}/32"],
                },
                log={"format": "json"},
            )
        )
        login_table = first.postfix.directory / "logins"
        login_table.write_text("alice alice@here.example, First.Last@here.example, @xn--exmple-cua.example\n")
        first.tables["dkim"] = {"login_table": str(login_table)}
        first.postfix.relay_port = second.postfix.port
        keys = KeyDirectory(first)
        keys.genkey("here.example", "--type", "both", "--selector", "s1")
        keys.genkey("xn--exmple-cua.example", "--type", "ed25519", "--selector", "idn")
        stack.enter_context(first)
        second.tables["dns"] = {"nameservers": [str(first.dns)]}
        opendkim = None
        if dkim_judges.why_no_opendkim() is None:
            opendkim = stack.enter_context(OpenDkim(first.dns.port))
            milters = f"{opendkim.endpoint}, $srsd_milter"
            second.postfix.main_cf = re.sub(
                r"^smtpd_milters = .*",
                f"smtpd_milters = {milters}",
                second.postfix.main_cf,
                flags=re.MULTILINE,
            )
        stack.enter_context(second)
        yield Route(first, second, opendkim)


@pytest.fixture
def route(running_route: Route) -> Iterator[Route]:
    if running_route.opendkim is not None:
        running_route.opendkim.check()
    with told(running_route.first, running_route.second):
        yield running_route


# What srsd signs.


def by_smtp(
    *extra: bytes, recipients: Sequence[str] = (BOB,), **options: Any
) -> Callable[[Route], Delivered]:
    def bring(route: Route) -> Delivered:
        subject, content = message(*extra, **options)
        return route.submit(content, subject, recipients=recipients)

    return bring


def by_submission(service: str, **options: Any) -> Callable[[Route], Delivered]:
    def bring(route: Route) -> Delivered:
        subject, content = message(**options)
        with logged_in(route.first, service, "alice") as client:
            client.sendmail(ALICE, [BOB, "stranger@elsewhere.example"], content)
        return route.second.arrived(subject)

    return bring


def by_sendmail(*arguments: str, **options: Any) -> Callable[[Route], Delivered]:
    def bring(route: Route) -> Delivered:
        subject, content = message(**options)
        route.first.postfix.sendmail(*arguments, stdin=content.decode().replace("\r\n", "\n"))
        return route.second.arrived(subject)

    return bring


def as_utf8(route: Route) -> Delivered:
    subject, content = message(
        "X-Käse: ja".encode(),
        author="From: Jörg Käse <jörg@here.example>".encode(),
        body="Grüße\r\n".encode(),
    )
    sent = send(route.first.postfix.address, "jörg@here.example", BOB, content, source=OURS)
    assert sent.accepted, sent.last
    return route.second.arrived(subject)


LONG_LINE = b"X-Long: " + b"y" * 985
CASES: dict[str, Callable[[Route], Delivered]] = {
    "plain": by_smtp(),
    "empty body": by_smtp(body=b""),
    "only empty lines": by_smtp(body=b"\r\n\r\n \r\n\t\r\n\r\n"),
    "no line end at the end": by_smtp(body=b"one\r\ntwo"),
    "blanks and dots": by_smtp(body=b".\r\n..\r\n. a \t b \r\n \r\nFrom here\r\n.x\r\n\r\n\r\n"),
    "5 MB": by_smtp(body=(b"0123456789" * 7 + b"\r\n") * 72_000),
    "8-bit body": by_smtp(body="Grüße, \x85 naïve café\r\n".encode() * 50),
    "latin-1 body": by_smtp(body=b"caf\xe9 \xff\xfe\x80\r\n"),
    "folded header": by_smtp(
        b"References: <1@client.example>\r\n\t<2@client.example>\r\n   <3@client.example>\r\n <4@client.example>",
        b"Reply-To: \r\n Alice \t  A.\r\n\t<alice@here.example>  ",
        b"Cc:carol@here.example",
    ),
    "folded From": by_smtp(author=b"From:\r\n Alice\r\n\t  <alice@here.example> \r\n (home)"),
    "header lines of 998 octets": by_smtp(b"References: " + b"<1@client.example> " * 51, LONG_LINE),
    "header of 20 KB": by_smtp(
        b"References: " + b"\r\n ".join(b"<%d@client.example>" % n for n in range(1000))
    ),
    "several recipients": by_smtp(recipients=(BOB, "carol@here.example", "dave@far.example")),
    "List-Unsubscribe": by_smtp(
        b"List-Unsubscribe: <mailto:leave@here.example>,\r\n <https://here.example/u?id=1>",
        b"List-Unsubscribe-Post: List-Unsubscribe=One-Click",
        b"List-Id: News <news.here.example>",
    ),
    "fields that occur twice": by_smtp(
        b"Sender: one@here.example", b"Sender: two@here.example", b"To: x@far.example"
    ),
    "encoded words": by_smtp(author=b"From: =?utf-8?q?J=C3=B6rg?= <alice@here.example>"),
    "raw UTF-8, SMTPUTF8": as_utf8,
    "raw Latin-1 in the header": by_smtp(b"X-Note: caf\xe9", b"Comments: \xff\x80"),
    "neither Date nor Message-ID": by_smtp(without=(b"Date", b"Message-ID", b"MIME-Version")),
    "no To": by_smtp(without=(b"To",)),
    "rewritten by canonical_maps": by_smtp(author=b"From: A. <al1ce@here.example>"),
    "rewritten by masquerade_domains": by_smtp(author=b"From: A. <alice@pc7.here.example>"),
    "rewritten to have a domain": by_smtp(author=b"From: root"),
    "subdomain without keys": by_smtp(author=b"From: <root@deep.down.here.example>"),
    "submission": by_submission("submission"),
    "submissions": by_submission("submissions"),
    "submission, rewritten by canonical_maps": by_submission(
        "submission", author=b"From: A. <al1ce@here.example>", without=(b"Date", b"Message-ID")
    ),
    "submission, rewritten by masquerade_domains": by_submission(
        "submissions", author=b"From: A. <alice@pc7.here.example>"
    ),
    "sendmail -t": by_sendmail("-t", "-f", ALICE),
    "sendmail, without From and Date": by_sendmail(
        "-F", "Alice", "-f", ALICE, BOB, author=None, without=(b"Date", b"Message-ID", b"To")
    ),
    "foreign results and signatures above": by_smtp(
        b"Authentication-Results: elsewhere.example; dkim=pass header.d=x.example",
        b"Received: from a by b; Mon, 02 Feb 2026 10:00:00 +0000",
    ),
}
MAY_NOT_KNOW_ED25519 = {"Mail::DKIM": "invalid"}  # so says that of Debian 12


@pytest.mark.parametrize("judge", ["srsd", "dkimpy", "Mail::DKIM", "OpenDKIM"])
@pytest.mark.parametrize("case", CASES)
def test_what_srsd_signs_verifies(route: Route, case, judge):
    why_not = {"Mail::DKIM": dkim_judges.why_no_mail_dkim, "OpenDKIM": dkim_judges.why_no_opendkim}
    if judge in why_not and (reason := why_not[judge]()):
        pytest.skip(reason)
    delivered = route.once(case)
    rsa, ed25519 = route.verdict(judge, delivered)
    assert rsa == Judged("here.example", "s1-rsa", "pass")
    words = ("pass", MAY_NOT_KNOW_ED25519.get(judge, "pass"))
    assert ed25519 in [Judged("here.example", "s1-ed25519", word) for word in words]


@pytest.mark.parametrize("case", CASES)
def test_how_srsd_signs(route: Route, case):
    """The signatures stand on top in the order of the keys, cover what they should, and the log names them."""
    delivered = route.once(case)
    names = delivered.names
    at = names.index("DKIM-Signature")
    assert names[at - 1] == "Received"  # the second host's
    assert set(names[: at - 1]) == {"Authentication-Results"}
    assert names[at : at + 3] == ["DKIM-Signature", "DKIM-Signature", "Received"]
    signatures = [tags(each) for each in delivered.all("DKIM-Signature")]
    assert [each["s"] for each in signatures] == OUR_SELECTORS
    assert [each["a"] for each in signatures] == ["rsa-sha256", "ed25519-sha256"]
    for each in signatures:
        assert each["d"] == "here.example"
        assert "l" not in each
        signed = each["h"].split(":")
        present = [name.lower() for name in names]
        assert signed.count("from") == 2
        for name in ("subject", "date", "message-id", "to"):
            assert signed.count(name) == present.count(name) + 1
        for name in ("list-unsubscribe", "list-unsubscribe-post", "sender", "references"):
            assert signed.count(name) == present.count(name)
    for field in delivered.message.content.split(b"\r\n\r\n")[0].split(b"\r\n"):
        assert len(field) <= 998
    log = facts(route.first, delivered)
    assert log["signed"] == "s=s1-rsa d=here.example RSA; s=s1-ed25519 d=here.example ED25519"
    assert log["signed_why"] == "listed in the file active"
    assert "unsigned" not in log


@pytest.mark.parametrize(
    ("case", "author"),
    [
        ("rewritten by canonical_maps", "A. <First.Last@here.example>"),
        ("rewritten by masquerade_domains", "A. <alice@here.example>"),
        ("rewritten to have a domain", f"root@{HOSTNAME}"),
        ("submission, rewritten by canonical_maps", "A. <First.Last@here.example>"),
        ("submission, rewritten by masquerade_domains", "A. <alice@here.example>"),
        ("sendmail, without From and Date", f"Alice <{ALICE}>"),
    ],
)
def test_postfix_rewrote_what_was_signed(route: Route, case, author):
    """That these cases are what they say."""
    delivered = route.once(case)
    assert delivered.all("From") == [author]
    assert len(delivered.all("Date")) == len(delivered.all("Message-ID")) == 1


def test_the_authentication_results_of_the_second_host(route: Route):
    """header.d, .s, .a and .b, one result for each signature, in order."""
    delivered = route.once("plain")
    (ours,) = [each for each in delivered.results if each.startswith(SECOND)]
    starts = [tags(each)["b"][:8] for each in delivered.all("DKIM-Signature")]
    found = re.findall(
        r'dkim=pass header\.d=here\.example header\.s=(\S+) header\.a=(\S+) header\.b="?([^";\s]+)', ours
    )
    assert found == [
        ("s1-rsa", "rsa-sha256", starts[0]),
        ("s1-ed25519", "ed25519-sha256", starts[1]),
    ]


def test_an_idn_author_is_signed_for_by_its_a_label(route: Route):
    subject, content = message(author="From: <alice@exämple.example>".encode())
    sent = send(route.first.postfix.address, "alice@exämple.example", BOB, content, source=OURS)
    assert sent.accepted, sent.last
    delivered = route.second.arrived(subject)
    expected = [Judged("xn--exmple-cua.example", "idn", "pass")]
    assert route.verdict("dkimpy", delivered) == expected
    assert route.verdict("srsd", delivered) == expected


@pytest.mark.parametrize(
    "alter", ["body", "Subject", "From", "List-Unsubscribe", "Date", "second From", "added Cc"]
)
def test_what_is_altered_after_signing_fails_everywhere(route: Route, alter):
    """So the verifiers of these tests can say no, too; and what should be covered is."""
    content = route.once("List-Unsubscribe").message.content
    content = content[content.index(b"DKIM-Signature:") :]
    subject = f"dkim altered {next(_numbers)}."
    if alter == "body":
        content = body_altered(content)
    elif alter == "second From":
        content = b"From: mallory@evil.example\r\n" + content
    elif alter == "added Cc":
        content = content.replace(b"\r\nSubject:", b"\r\nCc: eve@evil.example\r\nSubject:")
    elif alter != "Subject":
        content = field_altered(content, alter.encode())
    if alter == "Subject":
        content = re.sub(rb"Subject: [^\r]*", f"Subject: {subject}".encode(), content)
        wanted = subject
    else:
        marker = f"X-Marker: {subject}\r\n".encode()
        content = marker + content
        wanted = subject
    assert route.second.send("alice@here.example", content=content).accepted
    delivered = Delivered(route.second.sink.wait_for(lambda m: wanted.encode() in m.content))
    judges = ["srsd", "dkimpy"]
    judges += ["Mail::DKIM"] if dkim_judges.why_no_mail_dkim() is None else []
    judges += ["OpenDKIM"] if dkim_judges.why_no_opendkim() is None else []
    for judge in judges:
        words = [each.word for each in route.verdict(judge, delivered)]
        assert len(words) == 2, judge
        assert "pass" not in words, judge
    assert [each.word for each in route.verdict("srsd", delivered)] == ["fail", "fail"]


# What may break a signature on its way.


@pytest.mark.parametrize(
    ("recipient", "body", "warning", "word"),
    [
        (BOB, "Grüße\r\n".encode(), "8-bit body", "pass"),
        ("bob@old.example", "Grüße\r\n".encode(), "8-bit body", "fail"),
        (BOB, b"x" * 998 + b"\r\n", "", "pass"),
        (BOB, b"x" * 999 + b"\r\n", "lines of more than 998 octets", "fail"),
        (BOB, b"a\r\n" + b"x" * 70_000 + b"\r\n", "lines of more than 998 octets", "fail"),
    ],
    ids=["8-bit", "8-bit to a host without 8BITMIME", "998 octets", "999 octets", "70,000 octets"],
)
def test_a_warning_names_the_queue_id_where_a_signature_may_break(
    route: Route, recipient, body, warning, word
):
    subject, content = message(body=body)
    delivered = route.submit(content, subject, recipients=[recipient])
    assert [each.word for each in route.verdict("dkimpy", delivered)] == [word, word]
    log = facts(route.first, delivered)
    assert log.get("signature_may_break", "").startswith(warning)
    assert ("signature_may_break" in log) == bool(warning)
    assert log["level"] == ("warning" if warning else "info")


def test_a_header_line_that_postfix_will_fold_breaks_the_signature_and_is_warned_of(route: Route):
    """Postfix's SMTP client folds what is longer than 998 octets, in the header as in the body."""
    subject, content = message(b"References: <" + b"x" * 1500 + b"@client.example>")
    delivered = route.submit(content, subject)
    assert [each.word for each in route.verdict("dkimpy", delivered)] == ["fail", "fail"]
    assert "998" in facts(route.first, delivered).get("signature_may_break", "")


# What is not signed.


def check_unsigned(route: Route, delivered: Delivered, why: str) -> dict[str, Any]:
    assert "DKIM-Signature" not in delivered.names
    log = facts(route.first, delivered)
    assert "signed" not in log
    assert log.get("unsigned", "") == why
    return log


def test_outside_mail_that_claims_to_be_ours_is_not_signed(route: Route):
    subject, content = message()
    log = check_unsigned(route, route.submit(content, subject, source=STRANGER), "")
    assert log["origin"] == "outside"


def test_mail_of_a_trusted_relay_is_not_signed(route: Route):
    subject, content = message()
    log = check_unsigned(route, route.submit(content, subject, source=RELAY), "")
    assert log["origin"] == "trusted relay"


def test_what_bears_our_results_came_from_outside_before(route: Route):
    """As from a content filter without no_milters."""
    subject, content = message(
        f"Authentication-Results: {HOSTNAME}; spf=fail smtp.mailfrom=x@y.example".encode()
    )
    delivered = route.submit(content, subject)
    check_unsigned(
        route, delivered, "it bears Authentication-Results of ours, so it came from outside before"
    )


@pytest.mark.parametrize(
    ("author", "extra", "why"),
    [
        (b"From: alice@here.example, bob@here.example", (), "there are several addresses in From"),
        (b"From: alice@here.example", (b"From: bob@here.example",), "there are several From fields"),
        (b"From: alice@here.example", (b"FROM : alice@here.example",), "there are several From fields"),
        (b"From: alice@here.example <mallory@evil.example> x@", (), "the From field cannot be parsed"),
        (b'From: "alice <alice@here.example>', (), "the From field cannot be parsed"),
        (b"From: Friends:;", (), None),
        (b"From: alice@[127.0.0.1]", (), "the address in From has no domain name"),
        (b"From: alice@elsewhere.example", (), "no key for the author domain"),
        (b"From: <alice@excluded.here.example>", (), "excluded"),
    ],
)
def test_an_author_that_is_not_one_of_ours_is_not_signed_for(route: Route, author, extra, why):
    """By an originating service: Postfix rewrites no header there."""
    subject, content = message(*extra, author=author)
    server = ("127.0.0.1", route.first.ports["originating"])
    sent = send(server, ALICE, BOB, content)
    assert sent.accepted, sent.last
    delivered = route.second.arrived(subject)
    log = facts(route.first, delivered)
    if why is not None:
        check_unsigned(route, delivered, why)
    assert "DKIM-Signature" not in delivered.names
    assert log["unsigned"]


def test_no_from_at_all(route: Route):
    subject, content = message(author=None)
    sent = send(("127.0.0.1", route.first.ports["originating"]), ALICE, BOB, content)
    assert sent.accepted, sent.last
    check_unsigned(route, route.second.arrived(subject), "there is no From field")


def test_other_exclusions_than_sign_do_not_keep_from_signing(route: Route):
    subject, content = message(author=b"From: <alice@unspoken.here.example>")
    sent = send(("127.0.0.1", route.first.ports["originating"]), ALICE, BOB, content)
    assert sent.accepted, sent.last
    assert [each.word for each in route.verdict("dkimpy", route.second.arrived(subject))] == ["pass", "pass"]


def test_an_excluded_client_is_not_signed_for(route: Route):
    subject, content = message()
    check_unsigned(route, route.submit(content, subject, source=EXCLUDED_CLIENT), "excluded")


@pytest.mark.parametrize(
    ("author", "signed"),
    [(b"ALICE@here.example", True), (b"boss@here.example", False), (b"x@sub.here.example", False)],
)
def test_the_login_table_says_who_may_write_as_whom(route: Route, author, signed):
    subject, content = message(author=b"From: <" + author + b">")
    with logged_in(route.first, "submission", "alice") as client:
        client.sendmail(ALICE, [BOB], content)
    delivered = route.second.arrived(subject)
    if signed:
        assert [each.word for each in route.verdict("dkimpy", delivered)] == ["pass", "pass"]
    else:
        log = check_unsigned(route, delivered, "the login may not write as this author")
        assert log["login"] == "alice"


def test_a_login_that_the_login_table_does_not_name():
    """With a table, who is not in it may write as nobody."""
    with submission_host({}, "mallory", log={"format": "json"}) as host:
        table = host.postfix.directory / "logins"
        table.write_text("alice alice@here.example\n")
        host.tables["dkim"] = {"login_table": str(table)}
        KeyDirectory(host).genkey("here.example")
        with host, told(host):
            subject, content = message()
            with logged_in(host, "submission", "mallory") as client:
                client.sendmail(ALICE, [BOB], content)
            delivered = host.arrived(subject)
            assert "DKIM-Signature" not in delivered.names
            assert facts(host, delivered)["unsigned"]


@pytest.mark.parametrize("no_milters", [True, False])
@pytest.mark.parametrize("source", [STRANGER, OURS])
def test_a_content_filter(no_milters, source):
    """What comes back from it is signed only if it was ours before; with no_milters just once."""
    back = free_port()
    text, (main_cf,) = fragment("content_filter")
    text = text.replace("127.0.0.1:10026", f"127.0.0.1:{back}")
    if not no_milters:
        text = text.replace(",no_milters", "")
    with ContentFilter(back_to=back) as scanner:
        main_cf = main_cf.replace("127.0.0.1]:10025", f"127.0.0.1]:{scanner.port}")
        host = MilterHost({}, main_cf=main_cf, master_cf=text, log={"format": "json"})
        KeyDirectory(host).genkey("here.example", "--type", "both", "--selector", "s1")
        with host, told(host):
            subject, content = message()
            assert host.send(ALICE, content=content, source=source).accepted
            delivered = host.arrived(subject)
            words = [each.word for each in dkim_judges.dkimpy(delivered.message.content, host.dns.port)]
            if source == STRANGER:
                assert words == []
            else:
                assert words == ["pass"] * (2 if no_milters else 4)


# Mail from outside.


RSA, RSA_2, ED = rsa_key(2048), rsa_key(1024, 2), ed25519_key()
INBOUND_ZONES: dict[tuple[str, str], Any] = {
    ("rsa._domainkey.far.example", "TXT"): [RSA.record],
    ("ed._domainkey.far.example", "TXT"): [ED.record],
    ("other._domainkey.far.example", "TXT"): [RSA_2.record],
    ("revoked._domainkey.far.example", "TXT"): [b"v=DKIM1; k=rsa; p="],
    ("servfail._domainkey.far.example", "TXT"): Outcome.SERVER_FAILURE,
    ("silent._domainkey.far.example", "TXT"): Outcome.TIMED_OUT,
    ("two._domainkey.far.example", "TXT"): [RSA.record, RSA_2.record],
    ("strict._domainkey.far.example", "TXT"): [RSA.record + b"; t=s"],
    ("nomail._domainkey.far.example", "TXT"): [RSA.record + b"; s=tlsrpt"],
    ("empty._domainkey.far.example", "TXT"): [],
}
FROM_FAR = b"From: Zoe <zoe@far.example>"


@pytest.fixture(scope="module")
def running_inbound() -> Iterator[MilterHost]:
    with MilterHost(
        INBOUND_ZONES, dns={"timeout": 1.0, "message_deadline": 3.0}, log={"format": "json"}
    ) as host:
        yield host


@pytest.fixture
def inbound(running_inbound: MilterHost) -> Iterator[MilterHost]:
    with told(running_inbound):
        yield running_inbound


def by_dkimpy(content: bytes, selector: bytes = b"rsa", **options: Any) -> bytes:
    """Sign as far.example by dkimpy."""
    if selector == b"ed":
        options |= {"signature_algorithm": b"ed25519-sha256"}
    key = ED.pem if selector == b"ed" else RSA.pem
    return dkim.sign(content, selector, b"far.example", key, **options) + content


def by_forge(content: bytes, template: bytes, key: Any = RSA, **options: Any) -> bytes:
    """Sign by a template of the signature's value."""
    header, _, body = content.partition(b"\r\n\r\n")
    fields = [HeaderField(*line.split(b":", 1)) for line in re.split(rb"\r\n(?![ \t])", header)]
    signed = Forge(key).sign(fields, body, template, **options)
    return signed.name + b":" + signed.value + b"\r\n" + content


def template(*more: bytes, selector: bytes = b"rsa", algorithm: bytes = b"rsa-sha256") -> bytes:
    first = b" v=1; a=%b; c=relaxed/relaxed; d=far.example; s=%b;" % (algorithm, selector)
    return first + b"".join(b" %b;" % each for each in more) + b" h=from:to:subject; bh=%BH%; b=%B%"


def verified(host: MilterHost, content: bytes, subject: str) -> list[Judged]:
    """Bring a message from outside; return what srsd says of its signatures."""
    sent = host.send("zoe@far.example", content=content)
    assert sent.accepted, sent.last
    delivered = host.arrived(subject)
    assert delivered.names[0] == "Authentication-Results"
    return dkim_judges.results(delivered.results[:1], HOSTNAME)


@pytest.mark.parametrize("selector", [b"rsa", b"ed"])
@pytest.mark.parametrize(
    "canonicalization", ["simple/simple", "simple/relaxed", "relaxed/simple", "relaxed/relaxed"]
)
@pytest.mark.parametrize(
    "body", [b"", b"a  b \t\r\n\r\n c\r\n\r\n\r\n", b"caf\xe9\r\n" * 10_000], ids=["empty", "blanks", "90 KB"]
)
def test_what_dkimpy_signs_passes(inbound: MilterHost, selector, canonicalization, body):
    subject, content = message(b"Cc: a\r\n\t b  <c@d.example>", author=FROM_FAR, body=body)
    pair = tuple(each.encode() for each in canonicalization.split("/"))
    content = by_dkimpy(content, selector, canonicalize=pair)
    assert verified(inbound, content, subject) == [Judged("far.example", selector.decode(), "pass")]


def test_the_properties_of_a_result(inbound: MilterHost):
    subject, content = message(author=FROM_FAR)
    content = by_dkimpy(content)
    assert verified(inbound, content, subject)
    delivered = inbound.arrived(subject)
    start = tags(delivered.all("DKIM-Signature")[0])["b"][:8]
    found = re.findall(
        r"dkim=pass header\.d=far\.example header\.s=rsa header\.a=rsa-sha256 header\.b=(\S+?)(?:;|$)",
        delivered.results[0],
    )
    assert [each.strip('"') for each in found] == [start]
    assert facts(inbound, delivered)["dkim"] == "pass (the signature verified) d=far.example s=rsa"


BODY_OF_20 = b"0123456789\r\n01234\r\n\r\n"
NOW = int(time.time())
OUTSIDE: dict[str, tuple[Callable[[bytes], bytes], list[tuple[str, str]]]] = {
    "body altered": (
        lambda content: body_altered(by_dkimpy(content)),
        [("fail", "the body hash did not verify")],
    ),
    "header altered": (
        lambda content: field_altered(by_dkimpy(content), b"To"),
        [("fail", "the signature did not verify")],
    ),
    "signature altered": (
        lambda content: re.sub(
            rb"(;\s+b=)(.)", lambda m: m[1] + (b"A" if m[2] != b"A" else b"B"), by_dkimpy(content), count=1
        ),
        [("fail", "the signature did not verify")],
    ),
    "expired": (
        lambda content: by_forge(content, template(b"t=1000000000", b"x=1000086400")),
        [("fail", "the signature has expired")],
    ),
    "not yet expired": (
        lambda content: by_forge(content, template(b"t=%d" % (NOW - 60), b"x=%d" % (NOW + 86_400))),
        [("pass", "")],
    ),
    "of the future": (
        lambda content: by_forge(content, template(b"t=%d" % (NOW + 86_400))),
        [("policy", "the signature was made in the future")],
    ),
    "revoked": (
        lambda content: by_forge(content, template(selector=b"revoked")),
        [("permerror", "the key is revoked")],
    ),
    "no such name": (
        lambda content: by_forge(content, template(selector=b"nowhere")),
        [("permerror", "there is no key")],
    ),
    "a name without TXT": (
        lambda content: by_forge(content, template(selector=b"empty")),
        [("permerror", "there is no key")],
    ),
    "SERVFAIL": (
        lambda content: by_forge(content, template(selector=b"servfail")),
        [("temperror", "the key could not be asked for")],
    ),
    "silent DNS": (
        lambda content: by_forge(content, template(selector=b"silent")),
        [("temperror", "the key could not be asked for")],
    ),
    "two keys": (
        lambda content: by_forge(content, template(selector=b"two")),
        [("permerror", "there are several TXT records")],
    ),
    "another key": (
        lambda content: by_forge(content, template(selector=b"other")),
        [("fail", "the signature did not verify")],
    ),
    "the key is of the other algorithm": (
        lambda content: by_forge(content, template(selector=b"ed")),
        [("permerror", "the key is not for the signature's algorithm")],
    ),
    "a key with t=s, i= below": (
        lambda content: by_forge(content, template(b"i=@sub.far.example", selector=b"strict")),
        [("permerror", "the key wants i= to be in d= itself")],
    ),
    "a key that is not for mail": (
        lambda content: by_forge(content, template(selector=b"nomail")),
        [("permerror", "the key is not for mail")],
    ),
    "i= outside d=": (
        lambda content: by_forge(content, template(b"i=zoe@evil.example")),
        [("permerror", "i= is not within d=")],
    ),
    "l= is the whole body": (
        lambda content: by_forge(content, template(b"l=8")),
        [("pass", "")],
    ),
    "l= ends before the body": (
        lambda content: by_forge(content, template(b"l=3")),
        [("policy", "the body goes on where l= ends")],
    ),
    "l=0": (
        lambda content: by_forge(content, template(b"l=0")),
        [("policy", "the body goes on where l= ends")],
    ),
    "l= beyond the body": (
        lambda content: by_forge(content, template(b"l=9")),
        [("permerror", "l= is more than the body has")],
    ),
    "text behind l=": (
        lambda content: by_forge(content, template(b"l=8")) + b"Buy now.\r\n",
        [("policy", "the body goes on where l= ends")],
    ),
    "From not signed": (
        lambda content: by_forge(content, template().replace(b"from:", b"")),
        [("permerror", "the From field is not signed")],
    ),
    "a second From on top": (
        lambda content: b"From: ceo@far.example\r\n" + by_forge(content, template()),
        [("policy", "there is a From field that is not signed")],
    ),
    "a tag twice": (
        lambda content: by_forge(content, template(b"d=far.example")),
        [("permerror", "the signature field is malformed")],
    ),
    "an unknown algorithm": (
        lambda content: by_forge(content, template(algorithm=b"rsa-sha512")),
        [("neutral", "the algorithm is unknown")],
    ),
    "good, then bad": (
        lambda content: by_forge(by_forge(content, template(selector=b"other")), template()),
        [("pass", ""), ("fail", "the signature did not verify")],
    ),
    "bad, then good": (
        lambda content: by_forge(by_forge(content, template()), template(selector=b"revoked")),
        [("permerror", "the key is revoked"), ("pass", "")],
    ),
    "RSA and Ed25519": (
        lambda content: by_forge(
            by_dkimpy(content), template(selector=b"ed", algorithm=b"ed25519-sha256"), ED
        ),
        [("pass", ""), ("pass", "")],
    ),
    "none": (lambda content: content, [("none", "")]),
    "not parsable": (
        lambda content: b"DKIM-Signature: nonsense\r\n" + content,
        [("permerror", "the signature field is malformed")],
    ),
}


@pytest.mark.parametrize("case", OUTSIDE)
def test_signatures_from_outside(inbound: MilterHost, case):
    make, expected = OUTSIDE[case]
    subject, content = message(author=FROM_FAR)
    found = verified(inbound, make(content), subject)
    assert [each.word for each in found] == [word for word, _ in expected]
    for each, (_, reason) in zip(found, expected, strict=True):
        assert each.detail.startswith(reason), each
        assert bool(each.detail) == bool(reason)


def test_rsa_sha1(inbound: MilterHost):
    """One that is right but for its algorithm."""

    class Sha1(Forge):
        def _sign(self, data: bytes) -> bytes:
            return self.key.private.sign(data, padding.PKCS1v15(), hashes.SHA1())

    subject, content = message(author=FROM_FAR)
    header, _, body = content.partition(b"\r\n\r\n")
    fields = [HeaderField(*line.split(b":", 1)) for line in header.split(b"\r\n")]
    signed = Sha1(RSA).sign(fields, body, template(algorithm=b"rsa-sha1"))
    (found,) = verified(inbound, b"DKIM-Signature:" + signed.value + b"\r\n" + content, subject)
    assert found == Judged("far.example", "rsa", "permerror", "rsa-sha1 is not secure")


def test_12_signatures(inbound: MilterHost):
    """Ten are looked at, from the top; the log says how many were not."""
    subject, content = message(author=FROM_FAR)
    signed = content
    for number in range(12):
        signed = by_forge(signed, template(selector=b"rsa" if number % 3 else b"revoked"))
    found = verified(inbound, signed, subject)
    words = ["permerror" if number % 3 == 0 else "pass" for number in reversed(range(12))]
    assert [each.word for each in found] == words[:10]
    assert facts(inbound, inbound.arrived(subject))["dkim_not_examined"] == 2


@pytest.mark.parametrize(
    "author", [b"From: zoe@far.example, mallory@evil.example", b"From: zoe@far.example (", b"From: Friends:;"]
)
def test_the_signature_of_an_odd_from_is_verified_all_the_same(inbound: MilterHost, author):
    """What From says is DMARC's question; the signature is over its octets."""
    subject, content = message(author=author)
    (found,) = verified(inbound, by_forge(content, template()), subject)
    assert found == Judged("far.example", "rsa", "pass")


def test_two_from_fields_that_are_both_signed(inbound: MilterHost):
    subject, content = message(b"From: mallory@evil.example", author=FROM_FAR)
    content = by_forge(content, template().replace(b"from:", b"from:from:"))
    (found,) = verified(inbound, content, subject)
    assert found.word == "pass"


def test_our_own_mail_is_not_verified(inbound: MilterHost):
    subject, content = message(author=FROM_FAR)
    assert inbound.send("zoe@far.example", content=by_dkimpy(content), source=OURS).accepted
    delivered = inbound.arrived(subject)
    assert delivered.results == []
    assert "dkim" not in facts(inbound, delivered)


# Keys that change while mail flows.


class Mailer(NamedTuple):
    """Brings mail of ours to a host."""

    host: MilterHost

    def one(self, _: object = None) -> Delivered:
        subject, content = message()
        sent = self.host.send(ALICE, content=content, source=OURS)
        assert sent.accepted, sent.last
        return self.host.arrived(subject)

    def selectors(self) -> list[str]:
        return [tags(each)["s"] for each in self.one().all("DKIM-Signature")]


@contextlib.contextmanager
def signing_host() -> Iterator[tuple[MilterHost, KeyDirectory]]:
    host = MilterHost({}, log={"format": "json"})
    keys = KeyDirectory(host)
    keys.genkey("here.example", "--type", "both", "--selector", "old")
    with host, told(host):
        yield host, keys


def test_keys_are_rotated_while_mail_flows():
    """As documented: genkey, publish, activate; no reload, no message lost or unsigned, and none that fails."""
    with signing_host() as (host, keys), ThreadPoolExecutor(5) as threads:
        mailer = Mailer(host)
        assert mailer.selectors() == ["old-rsa", "old-ed25519"]
        stop = False

        def flow(_: int) -> list[Delivered]:
            brought = []
            while not stop:
                brought.append(mailer.one())
            return brought

        flowing = [threads.submit(flow, number) for number in range(4)]
        try:
            new = keys.genkey("here.example", "--type", "both", "--selector", "new", publish=False)
            host.srsd.wait_for_log("read again after a change")
            refused = keys.srsctl("activate", "here.example", "new-rsa", "new-ed25519")
            assert refused.returncode == 1, refused
            assert mailer.selectors() == ["old-rsa", "old-ed25519"]
            keys.publish(new)
            since = len(host.srsd.log)
            activated = keys.srsctl("activate", "here.example", "new-rsa", "new-ed25519")
            assert activated.returncode == 0, activated.stderr
            host.srsd.wait_for_log("now signs: new-rsa, new-ed25519", since=since)
            until("the new keys sign", lambda: mailer.selectors() == ["new-rsa", "new-ed25519"])
        finally:
            stop = True
        brought = [each for future in flowing for each in future.result()]
        seen = {tuple(tags(s)["s"] for s in each.all("DKIM-Signature")) for each in brought}
        assert seen == {("old-rsa", "old-ed25519"), ("new-rsa", "new-ed25519")}
        assert mailer.selectors() == ["new-rsa", "new-ed25519"]
        assert not [line for line in host.srsd.log if '"unsigned"' in line]
        # All of them can still be verified: the old record stays for what is under way.
        for each in brought[::10] + brought[-1:]:
            words = [judged.word for judged in dkim_judges.dkimpy(each.message.content, host.dns.port)]
            assert words == ["pass", "pass"]


@pytest.mark.parametrize("what", ["domain", "whole"])
def test_without_its_keys_mail_flows_unsigned_and_the_log_warns(what):
    with signing_host() as (host, keys):
        mailer = Mailer(host)
        assert mailer.selectors() == ["old-rsa", "old-ed25519"]
        since = len(host.srsd.log)
        shutil.rmtree(keys.path / "here.example" if what == "domain" else keys.path)
        warning = json.loads(host.srsd.wait_for_log("has no keys any more", since=since))
        assert warning["level"] == "warning"
        assert str(keys.path / "here.example") in warning["message"]
        until("no key signs", lambda: mailer.selectors() == [])
        delivered = mailer.one()
        assert delivered.names[0] == "Received"
        assert facts(host, delivered)["unsigned"] == "no key for the author domain"
        keys.genkey("here.example", "--selector", "again")
        until("the new key signs", lambda: mailer.selectors() == ["again"])


def test_a_broken_key_leaves_the_old_ones_in_force():
    with signing_host() as (host, keys):
        since = len(host.srsd.log)
        (keys.path / "here.example/old-rsa.pem").write_text("no key\n")
        host.srsd.wait_for_log("what was in force before stays", since=since)
        assert Mailer(host).selectors() == ["old-rsa", "old-ed25519"]
