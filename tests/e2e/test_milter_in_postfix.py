"""The milter in a real Postfix: what mail looks like after it, whoever brings it and however."""

from __future__ import annotations

import contextlib
import re
import smtplib
import ssl
import tomllib
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, NamedTuple

import authres
import pytest

from harness.content_filter import ContentFilter
from harness.milter_host import (
    BOB,
    HOSTNAME,
    OURS,
    Delivered,
    MilterHost,
    fragment,
    make_message,
    told,
)
from harness.ports import free_port
from harness.smtp_client import STRANGER
from harness.submission import submission_host
from harness.third_milter import ThirdMilter, add, change, insert
from srsd.resolving import Outcome

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.e2e

ZONES = {
    ("client.example", "TXT"): ["v=spf1 ip4:127.0.0.2 -all"],  # what the clients of these tests say in EHLO
    ("pass.example", "TXT"): ["v=spf1 include:_spf.pass.example -all"],
    ("_spf.pass.example", "TXT"): ["v=spf1 ip4:127.0.0.2 ?all"],
    ("fail.example", "TXT"): ["v=spf1 ip4:192.0.2.1 -all"],
    ("softfail.example", "TXT"): ["v=spf1 ~all"],
    ("neutral.example", "TXT"): ["v=spf1 ?all"],
    ("none.example", "TXT"): ["no SPF record"],
    ("permerror.example", "TXT"): ["v=spf1 nonsense"],
    ("temperror.example", "TXT"): Outcome.SERVER_FAILURE,
    ("xn--exmple-cua.example", "TXT"): ["v=spf1 ip4:127.0.0.2 -all"],
    ("mx.pass.example", "A"): ["127.0.0.2"],
    ("mx.pass.example", "MX"): [(10, "mx.pass.example")],
    ("mx.pass.example", "TXT"): ["v=spf1 mx -all"],
}
NAMES = ["Authentication-Results", "Received", "From", "To", "Subject", "Date", "Message-ID"]
FOREIGN = [  # as they come, and as Delivered.results has them
    "mx.elsewhere.example; spf=pass smtp.mailfrom=x@pass.example",
    "lists.example (of another host) 1; dkim=pass header.d=pass.example",
    "third.example; none",
]
FORGED = "Authentication-Results: mx.here.example; spf=pass smtp.mailfrom=forged@pass.example"


@pytest.fixture(scope="module")
def running_host() -> Iterator[MilterHost]:
    """A host with services for its own users."""
    authenticating = free_port()
    sasl = "-o smtpd_sasl_auth_enable=yes -o smtpd_tls_security_level=none"
    with submission_host(
        ZONES,
        "alice",
        main_cf="smtpd_tls_auth_only = no\n",
        master_cf=f"127.0.0.1:{authenticating} inet n - y - - smtpd {sasl}\n",
    ) as host:
        host.ports["authenticating"] = authenticating
        with host:
            yield host


def spf(delivered: Delivered, *, others: list[str] | None = None) -> dict[str, tuple[str, str | None]]:
    """Return what our one field on top says of SPF, by property: {"mailfrom": ("pass", "alice@pass.example")}.

    others: all Authentication-Results that must stand below it.
    """
    assert delivered.names[0] == "Authentication-Results"
    ours, *rest = delivered.results
    assert rest == (others or [])
    parsed = authres.AuthenticationResultsHeader.parse_value(ours)
    assert parsed.authserv_id == HOSTNAME
    found = {}
    for result in parsed.results:
        if result.method != "spf":
            continue
        (prop,) = result.properties
        assert prop.type == "smtp"
        found[prop.name] = (result.result, prop.value)
    return found


# Mail from outside.


@pytest.mark.parametrize(
    ("domain", "result"),
    [
        ("pass.example", "pass"),
        ("mx.pass.example", "pass"),
        ("fail.example", "fail"),
        ("softfail.example", "softfail"),
        ("neutral.example", "neutral"),
        ("none.example", "none"),
        ("nowhere.example", "none"),
        ("permerror.example", "permerror"),
        ("temperror.example", "temperror"),
    ],
)
def test_outside_mail_gets_one_field_on_top_with_what_dns_says(host: MilterHost, domain, result):
    delivered = host.deliver(f"alice@{domain}")
    assert delivered.names == NAMES
    assert spf(delivered) == {
        "mailfrom": (result, f"alice@{domain}"),
        "helo": ("pass", "client.example"),
    }
    assert ("_spf.pass.example", "TXT") in host.dns.asked or domain != "pass.example"


@pytest.mark.parametrize(("wiring", "chroot"), [("inet", True), ("long", True), ("unix", False)])
def test_other_forms_of_the_fragment_and_other_systems_than_debian(wiring, chroot):
    with MilterHost(ZONES, wiring=wiring, chroot=chroot) as host, told(host):
        assert spf(host.deliver("alice@fail.example", [FORGED]))["mailfrom"][0] == "fail"
        subject, content = make_message([FORGED])
        host.postfix.sendmail("-f", "alice@fail.example", BOB, stdin=content.decode())
        assert host.arrived(subject).results == []


def test_another_clients_address_fails(host: MilterHost):
    delivered = host.deliver("alice@pass.example", source="127.0.0.3")
    assert spf(delivered) == {"mailfrom": ("fail", "alice@pass.example"), "helo": ("fail", "client.example")}


def test_the_message_itself_is_not_touched(host: MilterHost):
    odd = [
        b"X-Blanks: \t two  blanks \t ",
        b"x-NoBlank:none",
        b"X-Empty:",
        b"X-Folded: one",
        b"\ttwo",
        b"   three",
        b"X-8bit: caf\xe9 \x80\xff",
        b"Received-SPF: pass (elsewhere) client-ip=192.0.2.1",
        b"DKIM-Signature: v=1; a=rsa-sha256; d=pass.example; s=x; h=From; bh=AAAA; b=AAAA",
    ]
    subject, content = make_message(odd, size=20_000)
    content += b"..a dot\r\n \r\n\xff\r\n"
    sent = host.send("alice@pass.example", content=content)
    assert sent.accepted, sent.last
    arrived = host.arrived(subject).message.content
    assert arrived.endswith(content)
    added = arrived.removesuffix(content)
    assert re.fullmatch(
        rb"Authentication-Results: .*?\r\nReceived: from [^\r]*(\r\n\t[^\r]*)+\r\n", added, re.DOTALL
    )


# Forged results.


FORGERIES = {
    "plain": FORGED,
    "name in upper case": FORGED.replace("Authentication-Results", "AUTHENTICATION-RESULTS"),
    "id in another case": FORGED.replace("mx.here", "MX.Here"),
    "comment before the id": FORGED.replace(" mx.here", " (see (below)) mx.here"),
    "comment behind the id": FORGED.replace("here.example;", "here.example (us);"),
    "comment that looks like an id": FORGED.replace(" mx.here", " (mx.elsewhere.example;) mx.here"),
    "quoted id": FORGED.replace("mx.here.example", '"mx.here.example"'),
    "quoted pair in the id": FORGED.replace("mx.here.example", r'"mx.h\ere.example"'),
    "version": FORGED.replace("here.example;", "here.example 1;"),
    "version among comments": FORGED.replace("here.example;", "here.example (a) 1 (b) ;"),
    "another version": FORGED.replace("here.example;", "here.example 2;"),
    "folded before the id": FORGED.replace(": ", ":\r\n "),
    "folded everywhere": FORGED.replace(" ", "\r\n\t"),
    "folded with a blank line's worth of blanks": FORGED.replace(" ", " \r\n \t"),
    "trailing dot": FORGED.replace("here.example;", "here.example.;"),
    "blank before the colon": FORGED.replace(":", " :"),
    "tabs before the colon": FORGED.replace(":", "\t\t:"),
    "no blank behind the colon": FORGED.replace(": ", ":"),
    "no result": "Authentication-Results: mx.here.example; none",
    "nothing but the id": "Authentication-Results: mx.here.example",
    "part of a longer name": FORGED.replace("mx.here.example", "smtp.mx.here.example"),
    "broken result": FORGED.replace("spf=pass", "spf="),
    "open comment": FORGED.replace("spf=pass", "spf=pass (("),
    "open quotes": FORGED.replace("; spf", '; "spf'),
    "no id": "Authentication-Results: spf=pass smtp.mailfrom=forged@pass.example",
    "empty": "Authentication-Results:",
    "only blanks": "Authentication-Results:  \r\n\t ",
    "8-bit": FORGED.encode() + b" (caf\xe9)",
    "NUL before the id": FORGED.encode().replace(b" mx", b" \0mx"),
    "NUL in the id": FORGED.encode().replace(b"mx.here", b"mx.he\0re"),
    "bare CR": FORGED.encode().replace(b" mx", b" \rmx"),
    "50 KB": FORGED + f" ({'x ' * 25_000})",
    "50 KB in one word": FORGED + f" policy.x={'x' * 50_000}",
    "behind a comment of 50 KB": FORGED.replace(" mx", f" ({'x ' * 25_000}) mx"),
    "behind a comment longer than Postfix shows": FORGED.replace(" mx", f" ({'x ' * 45_000}) mx"),
}


@pytest.mark.parametrize("forged", FORGERIES.values(), ids=FORGERIES)
def test_a_forged_field_goes_and_foreign_ones_stay_in_order(host: MilterHost, forged):
    first, second, third = (f"Authentication-Results: {value}" for value in FOREIGN)
    delivered = host.deliver("alice@fail.example", [forged, first, forged, forged, second, third, forged])
    assert spf(delivered, others=FOREIGN)["mailfrom"] == ("fail", "alice@fail.example")
    assert delivered.names == [
        "Authentication-Results",
        "Received",
        *["Authentication-Results"] * 3,
        *NAMES[2:],
    ]
    assert b"forged" not in delivered.message.content


def test_all_of_them_at_once(host: MilterHost):
    """34 in one message, foreign ones among them; those of 50 KB would be over Postfix's limits together."""
    small = [forged for forged in FORGERIES.values() if len(forged) < 1000]
    among = [line for n, forged in enumerate(small) for line in (forged, f"X-Number: {n}", foreign(n))]
    delivered = host.deliver("alice@fail.example", among)
    assert spf(delivered, others=[foreign(n).partition(" ")[2] for n in range(len(small))])
    assert delivered.all("X-Number") == [str(n) for n in range(len(small))]
    assert b"forged" not in delivered.message.content


def foreign(number: int) -> str:
    """Make a field of another host."""
    return f"Authentication-Results: mx{number}.elsewhere.example; spf=pass smtp.mailfrom=x@pass.example"


def test_200_fields_half_of_them_forged(host: MilterHost):
    lines = [foreign(n) if n % 2 else FORGED for n in range(200)]
    delivered = host.deliver("alice@pass.example", lines)
    spf(delivered, others=[foreign(n).partition(" ")[2] for n in range(1, 200, 2)])
    assert len(delivered.names) == len(NAMES) + 100
    assert b"forged" not in delivered.message.content


def test_foreign_fields_with_very_long_lines_stay(host: MilterHost):
    """What leaves is folded by Postfix's SMTP client, at 998 octets (smtp_line_length_limit)."""
    long = f"mx.elsewhere.example; dkim=pass header.b={'x' * 40_000}"
    extra = [f"X-Long: {'y' * 50_000}", FORGED, f"Authentication-Results: {long}", f"X-Long: {'z' * 55_000}"]
    delivered = host.deliver("alice@pass.example", extra)
    assert [each.replace(" ", "") for each in delivered.results[1:]] == [long.replace(" ", "")]
    assert [each.replace(" ", "") for each in delivered.all("X-Long")] == ["y" * 50_000, "z" * 55_000]
    assert b"forged" not in delivered.message.content


def test_arc_and_other_fields_that_only_look_alike_stay(host: MilterHost):
    alike = [
        "ARC-Authentication-Results: i=1; mx.here.example; spf=pass",
        "X-Authentication-Results: mx.here.example; spf=pass",
        "Authentication-Results-Original: mx.here.example; spf=pass",
    ]
    delivered = host.deliver("alice@pass.example", alike)
    spf(delivered)
    assert delivered.names[2:5] == [line.partition(":")[0] for line in alike]


def test_a_field_in_the_body_or_in_an_attached_message_stays(host: MilterHost):
    subject, content = make_message()
    content += f"{FORGED}\r\n".encode()
    assert host.send("alice@pass.example", content=content).accepted
    delivered = host.arrived(subject)
    spf(delivered)
    assert FORGED.encode() in delivered.body


# Senders of all kinds.


@pytest.mark.parametrize(
    ("sender", "shown"),
    [
        ("alice+tag@pass.example", "alice+tag@pass.example"),
        ("Alice@PASS.Example", "Alice@pass.example"),
        ('"a b"@pass.example', '"a b"@pass.example'),
        ('"a@b"@pass.example', '"a@b"@pass.example'),
        (r'"a\"b"@pass.example', r'"a\"b"@pass.example'),
        ('"; spf=pass (x"@pass.example', "pass.example"),  # what could be read as a result is left out
        ("SRS0=AAAA=AA=far.example=x@pass.example", "SRS0=AAAA=AA=far.example=x@pass.example"),
        ("jörg@pass.example", "jörg@pass.example"),
        ("alice@exämple.example", "alice@xn--exmple-cua.example"),
        (f"{'l' * 64}@pass.example", f"{'l' * 64}@pass.example"),
    ],
)
def test_odd_senders_are_checked_and_shown(host: MilterHost, sender, shown):
    delivered = host.deliver(sender)
    (ours,) = delivered.results
    assert re.fullmatch(
        rf'mx\.here\.example; spf=pass reason="[^"]*" smtp\.mailfrom={re.escape(shown)}; spf=pass .*',
        ours.encode(errors="surrogateescape").decode(),
    )


def test_the_null_sender_is_checked_by_its_helo(host: MilterHost):
    assert spf(host.deliver("")) == {"helo": ("pass", "client.example")}
    assert spf(host.deliver("", source="127.0.0.3")) == {"helo": ("fail", "client.example")}


def test_a_sender_without_a_domain(host: MilterHost):
    """Postfix takes it, and adds its own domain behind the milter's back."""
    (ours,) = host.deliver("alice").results
    assert ours.startswith('mx.here.example; spf=none reason="MAIL FROM is not an address"; spf=pass')


# Mail of ours.


def check_ours(delivered: Delivered) -> None:
    """Our own mail loses what is forged and gets nothing."""
    assert delivered.results == FOREIGN[:1]
    assert delivered.names[0] == "Received"
    assert "forged" not in str(delivered.message.content)


OURS_WITH_FORGERIES = [FORGED, f"Authentication-Results: {FOREIGN[0]}", FORGED.replace(" mx", " (x) MX")]


def test_mail_of_the_internal_network_only_loses_forgeries(host: MilterHost):
    check_ours(host.deliver("alice@fail.example", OURS_WITH_FORGERIES, source=OURS))
    host.srsd.wait_for_log("origin=internal network")
    assert host.deliver("alice@fail.example", source=OURS).names == NAMES[1:]


def test_mail_of_an_originating_service_only_loses_forgeries(host: MilterHost):
    check_ours(host.deliver("alice@fail.example", OURS_WITH_FORGERIES, port=host.ports["originating"]))
    host.srsd.wait_for_log("origin=originating service")


def test_mail_of_an_authenticated_client_only_loses_forgeries(host: MilterHost):
    subject, content = make_message(OURS_WITH_FORGERIES)
    with connected(host, host.ports["authenticating"]) as client:
        client.login("alice", "secret")
        client.sendmail("alice@fail.example", BOB, content)
    check_ours(host.arrived(subject))
    host.srsd.wait_for_log("origin=authenticated client, login=alice")


def test_a_login_that_failed_or_was_not_tried_counts_for_nothing(host: MilterHost):
    subject, content = make_message([FORGED])
    with connected(host, host.ports["authenticating"]) as client:
        with pytest.raises(smtplib.SMTPAuthenticationError):
            client.login("alice", "wrong")
        client.sendmail("alice@fail.example", BOB, content)
    assert spf(host.arrived(subject))["mailfrom"][0] == "fail"


@pytest.mark.parametrize("service", ["submission", "submissions"])
def test_the_submission_fragment(host: MilterHost, service):
    subject, content = make_message(OURS_WITH_FORGERIES)
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    port = host.ports[service]
    with contextlib.ExitStack() as stack:
        if service == "submission":
            client = stack.enter_context(connected(host, port))
            client.starttls(context=context)
        else:
            client = stack.enter_context(
                smtplib.SMTP_SSL("127.0.0.1", port, source_address=(STRANGER, 0), context=context)
            )
        with pytest.raises(smtplib.SMTPRecipientsRefused):
            client.sendmail("alice@fail.example", BOB, content)
        client.login("alice", "secret")
        client.sendmail("alice@fail.example", BOB, content)
    check_ours(host.arrived(subject))


def test_sendmail_t_goes_through_non_smtpd_milters(host: MilterHost):
    subject, content = make_message(OURS_WITH_FORGERIES)
    since = len(host.srsd.log)
    host.postfix.sendmail("-t", "-f", "alice@fail.example", stdin=content.decode().replace("\r\n", "\n"))
    check_ours(host.arrived(subject))
    host.srsd.wait_for_log(
        lambda line: "alice@fail.example" in line and "origin=internal network" in line, since=since
    )


@pytest.mark.parametrize("sender", ["<>", "jörg@fail.example", '"a b"@fail.example'])
def test_odd_senders_by_sendmail(host: MilterHost, sender):
    subject, content = make_message(OURS_WITH_FORGERIES)
    since = len(host.srsd.log)
    host.postfix.sendmail("-f", sender, BOB, stdin=content.decode())
    check_ours(host.arrived(subject))
    host.srsd.wait_for_log("origin=internal network", since=since)


# Mail that is not ours and is not checked all the same.


def test_relays_exclusions_and_an_authserv_id_of_the_configuration():
    exclude = "@fail.example spf\n@softfail.example srs\n127.0.0.6 spf\n"
    milter = {"trusted_relays": ["127.0.0.5/32"], "authserv_id": "results.here.example"}
    forged = FORGED.replace("mx.here", "results.here")
    with MilterHost(ZONES, exclude=exclude, milter=milter) as host, told(host):

        def checked(domain: str, source: str = STRANGER) -> bool:
            delivered = host.deliver(f"alice@{domain}", [forged, FORGED], source=source)
            assert delivered.names[0] == "Authentication-Results"
            ours, foreign_now = delivered.results
            assert ours.startswith("results.here.example; ")
            assert f"Authentication-Results: {foreign_now}" == FORGED  # the host's name is not ours here
            return "spf=" in ours

        assert checked("pass.example")
        assert checked("softfail.example")  # excluded from SRS alone
        assert not checked("fail.example")
        assert not checked("pass.example", "127.0.0.5")
        assert not checked("pass.example", "127.0.0.6")


def test_without_spf_the_field_comes_all_the_same():
    with MilterHost(ZONES, spf={"verify": False}) as host, told(host):
        assert spf(host.deliver("alice@fail.example", [FORGED])) == {}


# Many messages in one session.


def connected(host: MilterHost, port: int | None = None, source: str = STRANGER) -> smtplib.SMTP:
    """Open an SMTP session and greet."""
    server = ("127.0.0.1", port or host.postfix.port)
    client = smtplib.SMTP(*server, timeout=60, source_address=(source, 0), local_hostname="client.example")
    client.ehlo()
    return client


SESSION = [  # domain of the sender, and what SPF says
    ("pass.example", "pass"),
    ("fail.example", "fail"),
    ("softfail.example", "softfail"),
    ("none.example", "none"),
    ("neutral.example", "neutral"),
    ("mx.pass.example", "pass"),
    ("temperror.example", "temperror"),
    ("permerror.example", "permerror"),
    ("fail.example", "fail"),
    ("pass.example", "pass"),
]


def nothing(client: smtplib.SMTP) -> None:
    """Come with one message after the other."""


def begun_and_reset(client: smtplib.SMTP) -> None:
    """Begin a message of somebody else, and drop it."""
    assert client.mail("mallory@pass.example")[0] == 250
    assert client.rcpt(BOB)[0] == 250
    assert client.rset()[0] == 250


def all_recipients_refused(client: smtplib.SMTP) -> None:
    """Begin a message that has no recipient, and try to send it."""
    assert client.mail("mallory@fail.example")[0] == 250
    assert client.rcpt("nobody@here.example")[0] == 550
    assert client.docmd("DATA")[0] == 554
    assert client.rset()[0] == 250


def sender_refused(client: smtplib.SMTP) -> None:
    """Give a sender that is no address, and one too many."""
    assert client.docmd("MAIL FROM:<a b@pass.example>")[0] // 100 == 5
    assert client.mail("mallory@pass.example")[0] == 250
    assert client.mail("mallory@fail.example")[0] == 503
    assert client.rset()[0] == 250


def greeted_again(client: smtplib.SMTP) -> None:
    """Say EHLO in the middle of a message, with another name."""
    assert client.mail("mallory@pass.example")[0] == 250
    assert client.rcpt(BOB)[0] == 250
    assert client.ehlo("pass.example")[0] == 250
    assert client.ehlo("client.example")[0] == 250


@pytest.mark.parametrize("count", [2, 10])
@pytest.mark.parametrize(
    "between", [nothing, begun_and_reset, all_recipients_refused, sender_refused, greeted_again]
)
def test_messages_of_one_session_do_not_mix(host: MilterHost, count, between):
    sent = []
    with connected(host) as client:
        for number, (domain, result) in enumerate(SESSION[:count]):
            others = [foreign(n) for n in range(number % 4)]
            extra = [FORGED if n % 2 else f"X-Number: {number}" for n in range(number)] + others
            subject, content = make_message(extra)
            between(client)
            assert client.mail(f"alice{number}@{domain}")[0] == 250
            if number % 3 == 0:
                assert client.rcpt("nobody@here.example")[0] == 550
            assert client.rcpt(BOB)[0] == 250
            if number % 3 == 1:
                assert client.rcpt("nobody@here.example")[0] == 550
                assert client.rcpt("carol@here.example")[0] == 250
            code, text = client.data(content)
            assert code == 250, text
            sent.append((subject, number, domain, result, others))
    for subject, number, domain, result, others in sent:
        delivered = host.arrived(subject)
        seen = spf(delivered, others=[line.partition(" ")[2] for line in others])
        assert seen == {
            "mailfrom": (result, f"alice{number}@{domain}"),
            "helo": ("pass", "client.example"),
        }
        assert len(delivered.all("X-Number")) == (number + 1) // 2
        queue_id = re.search(r" id (\w+)", delivered.all("Received")[0])[1]
        sender = f"alice{number}@{domain}"
        host.srsd.wait_for_log(lambda line, both=(queue_id, sender): all(each in line for each in both))
        assert b"forged" not in delivered.message.content


def test_clients_of_many_addresses_at_once_do_not_mix(host: MilterHost):
    def bring(number: int) -> tuple[str, str]:
        subject, content = make_message([FORGED] * (number % 3))
        source = f"127.0.0.{2 + number % 2}"
        assert host.send(f"alice{number}@pass.example", content=content, source=source).accepted
        return subject, "fail" if number % 2 else "pass"

    with ThreadPoolExecutor(8) as clients:
        sent = list(clients.map(bring, range(100)))
    for number, (subject, result) in enumerate(sent):
        assert spf(host.arrived(subject))["mailfrom"] == (result, f"alice{number}@pass.example")


# Received-SPF.


def test_received_spf_stands_below_ours_and_that_of_others_stays():
    other = "Received-SPF: pass (elsewhere) client-ip=192.0.2.1"
    with MilterHost(ZONES, spf={"received_spf": True}) as host, told(host):
        delivered = host.deliver("alice@softfail.example", [other, FORGED])
        spf(delivered)
        at = delivered.names.index("Received")
        assert delivered.names[:at] == ["Authentication-Results", *["Received-SPF"] * (at - 1)]
        assert delivered.names[at + 1] == "Received-SPF"
        *ours, last = delivered.all("Received-SPF")
        assert f"Received-SPF: {last}" == other
        found = [(each.split()[0], re.search(r"identity=(\w+)", each)[1]) for each in ours]
        assert found == [("softfail", "mailfrom"), ("pass", "helo")]
        assert all("client-ip=127.0.0.2" in each for each in ours)
        assert host.deliver("alice@softfail.example", source=OURS).names == NAMES[1:]


# Other milters beside ours.


class Neighbours(NamedTuple):
    """A host whose smtpd_milters has another milter before srsd and one behind it."""

    host: MilterHost
    before: ThirdMilter
    behind: ThirdMilter


@pytest.fixture(scope="module")
def running_neighbours() -> Iterator[Neighbours]:
    with ThirdMilter() as before, ThirdMilter() as behind:
        milters = f"{before.endpoint}, $srsd_milter, {behind.endpoint}"
        with MilterHost(ZONES, settings={"smtpd_milters": milters}) as host:
            yield Neighbours(host, before, behind)


@pytest.fixture
def neighbours(running_neighbours: Neighbours) -> Iterator[Neighbours]:
    for milter in running_neighbours.before, running_neighbours.behind:
        milter.changes.clear()
        milter.seen.clear()
    with told(running_neighbours.host):
        yield running_neighbours


THEIRS = "mx.scanner.example; x-scan=pass"


def test_neighbours_that_change_nothing(neighbours: Neighbours):
    delivered = neighbours.host.deliver("alice@pass.example", [FORGED, *map(foreign, range(3)), FORGED])
    spf(delivered, others=[foreign(n).partition(" ")[2] for n in range(3)])
    (before,) = neighbours.before.seen
    (behind,) = neighbours.behind.seen
    names = [name for name, _ in before]
    assert names == [b"Authentication-Results"] * 5 + [name.encode() for name in NAMES[2:]]
    # Postfix never shows its own Received, wherever it stands.
    assert [name for name, _ in behind] == [b"Authentication-Results"] * 4 + [n.encode() for n in NAMES[2:]]
    assert b"alice@pass.example" in behind[0][1]


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        pytest.param(
            [insert(0, "X-Before", "1")],
            ["A", "X-Before", "Received", "X-1", "A", "X-2", "A"],
            id="above Received",
        ),
        pytest.param(
            [insert(1, "X-Before", "1")],
            ["A", "Received", "X-Before", "X-1", "A", "X-2", "A"],
            id="below Received",
        ),
        pytest.param(
            [insert(0, "X-Before", "1"), insert(0, "X-Before", "2"), insert(2, "X-Before", "3")],
            ["A", "X-Before", "X-Before", "X-Before", "Received", "X-1", "A", "X-2", "A"],
            id="three above Received",
        ),
        pytest.param(
            [add("X-Before", "1")],
            ["A", "Received", "X-1", "A", "X-2", "A"],
            id="at the end",
        ),
        pytest.param(
            [insert(0, "Authentication-Results", THEIRS)],
            ["A", "theirs", "Received", "X-1", "A", "X-2", "A"],
            id="results above Received",
        ),
        pytest.param(
            [insert(1, "Authentication-Results", THEIRS)],
            ["A", "Received", "theirs", "X-1", "A", "X-2", "A"],
            id="results below Received",
        ),
        pytest.param(
            [insert(4, "Authentication-Results", THEIRS), insert(0, "X-Before", "1")],
            ["A", "X-Before", "Received", "X-1", "A", "theirs", "X-2", "A"],
            id="results among others, and something above Received",
        ),
        pytest.param(
            [
                insert(0, "Authentication-Results", THEIRS),
                insert(0, "Authentication-Results", THEIRS),
                add("Authentication-Results", THEIRS),
            ],
            ["A", "theirs", "theirs", "Received", "X-1", "A", "X-2", "A"],
            id="two results above Received, one at the end",
        ),
        pytest.param(
            [change(1, "X-1", "")],
            ["A", "Received", "A", "X-2", "A"],
            id="deletes a field",
        ),
        pytest.param(
            [change(2, "Authentication-Results", ""), change(1, "Authentication-Results", "")],
            ["A", "Received", "X-1", "X-2", "A"],
            id="deletes one forged and one foreign",
        ),
        pytest.param(
            [change(1, "Authentication-Results", THEIRS), insert(0, "X-Before", "1")],
            ["A", "X-Before", "Received", "theirs", "X-1", "A", "X-2", "A"],
            id="makes a foreign one of a forged one",
        ),
        pytest.param(
            [change(2, "Authentication-Results", FORGED.partition(": ")[2])],
            ["A", "Received", "X-1", "X-2", "A"],
            id="makes a forged one of a foreign one",
        ),
    ],
)
def test_a_milter_before_ours(neighbours: Neighbours, changes, expected):
    """Two forged and two foreign fields among others; ours is on top, the right ones are gone."""
    neighbours.before.changes[:] = changes
    extra = [FORGED, "X-1: x", foreign(1), FORGED, "X-2: x", foreign(2), FORGED]
    delivered = neighbours.host.deliver("alice@pass.example", extra)
    assert b"forged" not in delivered.message.content
    assert shape(delivered) == expected
    (ours, *_) = delivered.results
    assert "smtp.mailfrom=alice@pass.example" in ours


def shape(delivered: Delivered) -> list[str]:
    """Say what the header has above From:, by name; "A" is Authentication-Results."""
    top = delivered.fields[: delivered.names.index("From")]
    kinds = {b"Authentication-Results": "A"}
    return [
        "theirs" if THEIRS.encode() in each.value else kinds.get(each.name, each.name.decode())
        for each in top
    ]


@pytest.mark.parametrize("index", [0, 1, 3])
def test_what_a_milter_before_ours_says_in_our_name_goes(neighbours: Neighbours, index):
    """So it needs another authserv-id, or a place behind srsd."""
    neighbours.before.changes[:] = [insert(index, "Authentication-Results", "mx.here.example; x-scan=pass")]
    spf(
        neighbours.host.deliver("alice@pass.example", [FORGED, foreign(1)]),
        others=[foreign(1).partition(" ")[2]],
    )


def test_what_a_milter_behind_ours_puts_on_top_is_above_ours(neighbours: Neighbours):
    neighbours.behind.changes[:] = [insert(0, "Authentication-Results", THEIRS)]
    delivered = neighbours.host.deliver("alice@pass.example", [FORGED, foreign(1), FORGED])
    assert shape(delivered) == ["theirs", "A", "Received", "A"]
    assert b"forged" not in delivered.message.content


def test_a_milter_behind_ours_that_removes_by_number_may_remove_ours(neighbours: Neighbours):
    """Ours is the first that it is shown."""
    neighbours.behind.changes[:] = [change(2, "Authentication-Results", "")]
    extra = [FORGED, foreign(1), FORGED, foreign(2)]
    delivered = neighbours.host.deliver("alice@pass.example", extra)
    spf(delivered, others=[foreign(2).partition(" ")[2]])
    neighbours.behind.changes[:] = [change(1, "Authentication-Results", "")]
    delivered = neighbours.host.deliver("alice@pass.example", extra)
    assert delivered.results == [foreign(n).partition(" ")[2] for n in (1, 2)]


def test_what_smtpd_prepends_is_seen_and_counted():
    """As policy servers do it (PREPEND): above Received, and before any milter."""
    ours = "Authentication-Results: mx.here.example; spf=pass"
    restrictions = "inline:{{ {{ pass.example = PREPEND {0} }} {{ fail.example = PREPEND {1} }} }}"
    main_cf = f"smtpd_sender_restrictions = check_sender_access {restrictions.format(ours, foreign(7))}\n"
    seven = foreign(7).partition(" ")[2]
    with MilterHost(ZONES, main_cf=main_cf) as host, told(host):
        extra = [FORGED, foreign(1), FORGED]
        others = [foreign(1).partition(" ")[2]]
        spf(host.deliver("alice@pass.example", extra), others=others)
        delivered = host.deliver("alice@fail.example", extra)
        spf(delivered, others=[seven, *others])
        assert delivered.names[:4] == [*["Authentication-Results"] * 2, "Received", "Authentication-Results"]
        assert b"forged" not in delivered.message.content


# The SRS maps beside the milter.


def test_spf_is_of_the_sender_as_it_came_and_the_message_leaves_with_an_srs_sender():
    text, (toml,) = fragment("socketmap")
    host = MilterHost(ZONES, main_cf=text, srs={"domain": "srs.here.example"}, listen={})
    here = str(host.postfix.queue_directory)
    listen = tomllib.loads(toml)["listen"]["socketmap"]
    host.tables["listen"] = {"socketmap": [each.replace("/var/spool/postfix", here) for each in listen]}
    with host, told(host):
        delivered = host.deliver("alice@fail.example", [FORGED])
        assert delivered.message.sender.startswith("SRS0=")
        assert spf(delivered)["mailfrom"] == ("fail", "alice@fail.example")
        # sendmail's mail comes to the milter with the new sender already.
        subject, content = make_message()
        host.postfix.sendmail("-f", "alice@fail.example", BOB, stdin=content.decode())
        check_line = host.srsd.wait_for_log("origin=internal network")
        assert "SRS0=" in check_line
        assert host.arrived(subject).message.sender.startswith("SRS0=")


# What Postfix does beside.


@pytest.mark.parametrize(("parameter", "held"), [("milter_header_checks", True), ("header_checks", False)])
def test_milter_header_checks_see_what_srsd_adds_and_header_checks_do_not(parameter, held):
    main_cf = f"{parameter} = regexp:{{ {{/^Authentication-Results:.*spf=fail/ HOLD}} }}\n"
    with MilterHost(ZONES, main_cf=main_cf) as host, told(host):
        subject, content = make_message()
        assert host.send("alice@fail.example", content=content).accepted
        if held:
            assert [each["queue_name"] for each in host.postfix.queue()] == ["hold"]
            host.postfix.run("postsuper", "-H", "ALL")
        spf(host.arrived(subject))
        spf(host.deliver("alice@pass.example"))


def test_postsuper_r_keeps_the_field_and_asks_no_milter():
    with (
        MilterHost(ZONES, main_cf="smtpd_data_restrictions = check_client_access static:HOLD\n") as host,
        told(host),
    ):
        subject, content = make_message([FORGED])
        assert host.send("alice@fail.example", content=content).accepted
        assert [each["queue_name"] for each in host.postfix.queue()] == ["hold"]
        host.postfix.run("postsuper", "-r", "ALL")
        host.postfix.sendmail(BOB, stdin="To: wake pickup\n")
        delivered = host.arrived(subject)
        assert delivered.names == ["Received", *NAMES]
        (ours,) = delivered.results
        assert ours.startswith("mx.here.example; spf=fail")
        assert len([line for line in host.srsd.log if "alice@fail.example" in line]) == 1


@pytest.mark.parametrize("classes", ["", "bounce"])
def test_bounces_of_postfix_itself_leave_without_a_field(classes):
    """Filtered or not: they are ours."""
    with MilterHost(ZONES, main_cf=f"internal_mail_filter_classes = {classes}\n") as host, told(host):
        host.sink.refuse[BOB] = "550 5.1.1 no such user"
        since = len(host.srsd.log)
        subject, content = make_message([FORGED])
        assert host.send("alice@fail.example", content=content).accepted
        bounce = Delivered(host.sink.wait_for(lambda m: m.recipients == ("alice@fail.example",)))
        assert bounce.message.sender == ""
        assert "Authentication-Results" not in bounce.names
        attached = bounce.body.partition(b"Content-Type: message/rfc822")[2]
        assert attached.count(b"Authentication-Results: mx.here.example;") == 1
        assert subject.encode() in attached
        seen = [line for line in host.srsd.log[since:] if "helo=client.example" not in line]
        assert len(seen) == (1 if classes else 0)
        assert all("origin=internal network" in line for line in seen)


# Content filters.


@pytest.mark.parametrize("no_milters", [True, False])
def test_a_content_filter_keeps_the_first_passs_field_by_no_milters_only(no_milters):
    """Without no_milters the way back is mail of ours, and the first pass's field goes: the fragment is needed."""
    back = free_port()
    text, (main_cf,) = fragment("content_filter")
    assert "no_header_body_checks,no_milters\n" in text
    text = text.replace("127.0.0.1:10026", f"127.0.0.1:{back}")
    if not no_milters:
        text = text.replace(",no_milters", "")
    with ContentFilter(back_to=back) as scanner:
        main_cf = main_cf.replace("127.0.0.1]:10025", f"127.0.0.1]:{scanner.port}")
        with MilterHost(ZONES, main_cf=main_cf, master_cf=text) as host, told(host):
            delivered = host.deliver("alice@fail.example", [FORGED, foreign(1)])
            (scanned,) = scanner.messages
            others = [foreign(1).partition(" ")[2]]
            assert spf(Delivered(scanned), others=others)["mailfrom"] == ("fail", "alice@fail.example")
            assert delivered.names.count("Received") == 2
            if no_milters:
                assert delivered.fields[1:] == Delivered(scanned).fields
                ours = delivered.results[0]
                assert ours == Delivered(scanned).results[0]
            else:
                assert delivered.results == others
