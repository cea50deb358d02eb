"""ARC in real Postfixes: three hosts forward by virtual aliases and seal, and the last one may believe the others."""

from __future__ import annotations

import contextlib
import re
from typing import TYPE_CHECKING, Any

import dkim
import dns.resolver
import pytest

from harness.dkim_forge import Forge, rsa_key
from harness.key_directory import KeyDirectory
from harness.milter_host import BOB, OURS, Delivered, MilterHost, make_message, told
from harness.smtp_client import STRANGER, send
from harness.submission import logged_in, submission_host
from srsd.syntax.header import HeaderField

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.e2e

KEY, LIST_KEY = rsa_key(2048), rsa_key(2048, 2)
DOMAINS = ("here.example", "second.example", "third.example")
AUTHOR = "Alice <alice@author.example>"
ZONES: dict[tuple[str, str], Any] = {
    ("author.example", "TXT"): [f"v=spf1 ip4:{STRANGER} -all"],
    ("_dmarc.author.example", "TXT"): ["v=DMARC1; p=reject"],
    ("sel._domainkey.author.example", "TXT"): [KEY.record],
    ("list.example", "TXT"): ["v=spf1 ip4:127.0.0.0/8 -all"],
    ("sel._domainkey.list.example", "TXT"): [LIST_KEY.record],
    ("client.example", "TXT"): [f"v=spf1 ip4:{STRANGER} -all"],
}
POLICY = {"shadow": False, "dmarc_reject": "reject"}
ARC_SET = ["ARC-Seal", "ARC-Message-Signature", "ARC-Authentication-Results"]
_senders = iter(range(1, 1_000_000))


def signed(content: bytes) -> bytes:
    """Sign a message as author.example."""
    header, _, body = content.partition(b"\r\n\r\n")
    fields = [HeaderField(*line.split(b":", 1)) for line in header.split(b"\r\n")]
    template = (
        b" v=1; a=rsa-sha256; c=relaxed/relaxed; d=author.example; s=sel; h=from:to:subject; bh=%BH%; b=%B%"
    )
    signature = Forge(KEY).sign(fields, body, template)
    return signature.name + b":" + signature.value + b"\r\n" + content


class Chain:
    """Three hosts; bob's mail goes from each to the next, and from the last to the sink."""

    def __init__(self, hosts: list[MilterHost]) -> None:
        self.first, self.second, self.third = hosts

    def txt(self, name: bytes, timeout: float = 5.0) -> bytes | None:
        """Ask as dkimpy wants it."""
        resolver = dns.resolver.Resolver(configure=False)
        resolver.nameservers, resolver.port = ["127.0.0.1"], self.first.dns.port
        try:
            answer = resolver.resolve(name.decode().rstrip("."), "TXT", lifetime=timeout)
        except (dns.resolver.NXDOMAIN, dns.resolver.NoAnswer):
            return None
        return b"".join(answer[0].strings)

    def verified(self, content: bytes) -> tuple[str, list[dict[str, Any]]]:
        """Return what dkimpy says of a chain: the word, and each set from the newest."""
        status, sets, _reason = dkim.arc_verify(content, dnsfunc=self.txt)
        return status.decode(), sets

    def bring(
        self, content: bytes, host: MilterHost, sender: str = "", recipient: str = BOB, **options: Any
    ) -> tuple[str, Any]:
        """Hand a message to a host; return its sender and the last step."""
        sender = sender or f"s{next(_senders)}@author.example"
        return sender, send(host.postfix.address, sender, recipient, content, **options).last


@pytest.fixture(scope="module")
def running_chain() -> Iterator[Chain]:
    with contextlib.ExitStack() as stack:
        hosts = [
            MilterHost(
                ZONES,
                main_cf=f"virtual_alias_domains = alias.{domain}\n"
                f"virtual_alias_maps = inline:{{ {{ bob@alias.{domain} = bob@{target} }}\n"
                f"    {{ list@alias.{domain} = list@list.example }} }}\n",
                milter={"internal_networks": ["192.0.2.1/32"]},
                log={"format": "json"},
                arc={"seal": True, "domain": domain},
                policy=POLICY,
            )
            for domain, target in zip(
                DOMAINS, ("alias.second.example", "alias.third.example", "here.example"), strict=True
            )
        ]
        published = KeyDirectory(hosts[0])
        published.genkey(DOMAINS[0], "--type", "both")  # the Ed25519 key does not seal
        for host, domain in zip(hosts[1:], DOMAINS[1:], strict=True):
            published.publish(KeyDirectory(host).genkey(domain, publish=False))
            host.postfix.hostname = f"mx.{domain}"
        to_the_list = f"{{ list.example = relay:[127.0.0.1]:{hosts[0].sink.port} }}"
        hosts[0].postfix.main_cf += f"transport_maps = inline:{{ {to_the_list} }}\n"
        hosts[0].postfix.relay_port = hosts[1].postfix.port
        hosts[1].postfix.relay_port = hosts[2].postfix.port
        stack.enter_context(hosts[0])
        for host in hosts[1:]:
            host.tables["dns"] = {"nameservers": [str(hosts[0].dns)]}
            stack.enter_context(host)
        yield Chain(hosts)


@pytest.fixture
def chain(running_chain: Chain) -> Iterator[Chain]:
    hosts = (running_chain.first, running_chain.second, running_chain.third)
    with told(*hosts):
        yield running_chain
        for host, domain in zip(hosts, DOMAINS, strict=True):
            if host.tables["arc"] != {"seal": True, "domain": domain}:
                host.reload(arc={"seal": True, "domain": domain})


def results_of(delivered: Delivered, host: str) -> str:
    (ours,) = [each for each in delivered.results if each.startswith(f"{host};")]
    return ours


def test_three_hops_verify(chain: Chain):
    subject, content = make_message(author=AUTHOR)
    sender, last = chain.bring(signed(content), chain.first, recipient="bob@alias.here.example")
    assert last.code == 250, last
    delivered = chain.third.arrived(subject)

    assert [name for name in delivered.names if name.startswith("ARC-")] == ARC_SET * 3
    assert delivered.names[:4] == [*ARC_SET, "Authentication-Results"]
    for name in ARC_SET:
        instances = [re.match(r"i=(\d)", value)[1] for value in delivered.all(name)]
        assert instances == ["3", "2", "1"]
    word, sets = chain.verified(delivered.message.content)
    assert word == "pass"
    assert [(each["instance"], each["as-domain"].decode()) for each in sets] == [
        (3, "third.example"), (2, "second.example"), (1, "here.example"),
    ]  # fmt: skip
    assert [each["cv"] for each in sets] == [b"pass", b"pass", b"none"]
    assert all(each["ams-valid"] and each["as-valid"] for each in sets)

    assert "arc=none" in delivered.all("ARC-Authentication-Results")[2]
    for number, host in ((1, "mx.second.example"), (0, "mx.third.example")):
        assert "arc=pass" in delivered.all("ARC-Authentication-Results")[number]
        assert "arc=pass header.oldest-pass=0 smtp.remote-ip=127.0.0.1" in results_of(delivered, host)
    for host in (chain.first, chain.second, chain.third):
        facts = host.facts(f"<{sender}>")
        assert (facts["dmarc"], facts["verdict"]) == ("pass", "accept")
        assert re.fullmatch(r"i=\d s=\S+ d=\S+", facts["sealed"])


@pytest.mark.parametrize("alter", ["body", "Subject", "From", "ARC-Authentication-Results", "a set left out"])
def test_dkimpy_and_srsd_see_what_is_altered(chain: Chain, alter):
    """So both can say no, too."""
    subject, content = make_message(author=AUTHOR)
    chain.bring(signed(content), chain.first, recipient="bob@alias.here.example")
    content = chain.third.arrived(subject).message.content
    if alter == "body":
        content += b"more\r\n"
    elif alter == "a set left out":
        content = re.sub(rb"ARC-[A-Za-z-]*: i=2;.*?\r\n(?!\s)", b"", content, flags=re.DOTALL)
        assert b"i=2;" not in content
    else:
        name = alter.encode() + b": "
        old = b"Alice" if alter == "From" else b"dmarc=pass" if alter.startswith("ARC") else b"number"
        assert content.count(name)
        before, _, after = content.partition(name)
        content = before + name + after.replace(old, old.swapcase(), 1)
    assert chain.verified(content)[0] == "fail"
    sender, _ = chain.bring(content, chain.third, f"altered{next(_senders)}@list.example")
    assert chain.third.facts(f"<{sender}>")["arc"] == "fail"


def test_a_forward_that_only_spf_authenticated(chain: Chain):
    """Without a signature DMARC fails behind the first hop; who believes that hop takes the message."""
    chain.second.reload(arc={"seal": True, "domain": "second.example"})
    subject, content = make_message(author=AUTHOR)
    sender, last = chain.bring(content, chain.first, recipient="bob@alias.here.example")
    assert last.code == 250, last
    facts = chain.second.facts(f"<{sender}>")
    assert (facts["arc"], facts["dmarc"], facts["verdict"]) == ("pass", "fail", "reject")
    assert "sealed" not in facts
    assert chain.third.arrivals(subject) == 0

    trusting = {"trusted_sealers": ["here.example", "second.example"]}
    chain.second.reload(arc={"seal": True, "domain": "second.example", **trusting})
    chain.third.reload(arc={"seal": True, "domain": "third.example", **trusting})
    subject, content = make_message(author=AUTHOR)
    sender, last = chain.bring(content, chain.first, recipient="bob@alias.here.example")
    assert last.code == 250, last
    delivered = chain.third.arrived(subject)
    for host, name in ((chain.second, "mx.second.example"), (chain.third, "mx.third.example")):
        facts = host.facts(f"<{sender}>")
        assert (facts["dmarc"], facts["verdict"]) == ("fail", "accept")
        assert facts["dmarc_local_policy"] == "trusted sealer here.example"
        assert re.search(
            r'dmarc=fail reason="local_policy: trusted sealer here\.example saw it pass"',
            results_of(delivered, name),
        )
    assert chain.verified(delivered.message.content)[0] == "pass"


def mailing_list(content: bytes) -> bytes:
    """Do as a list does that knows ARC: a tag, a footer, and a set of its own when all that is done."""
    assert content.count(b"\r\nSubject: number") == 1
    content = content.replace(b"\r\nSubject: ", b"\r\nSubject: [list] ") + b"-- \r\nthe list\r\n"
    results = b"Authentication-Results: mx.list.example; arc=pass; dmarc=pass header.from=author.example\r\n"
    content = results + content
    fields = [b"from", b"to", b"subject", b"date", b"message-id"]
    lines = dkim.arc_sign(
        content, b"sel", b"list.example", LIST_KEY.pem, b"mx.list.example", include_headers=fields
    )
    assert len(lines) == 3
    return b"".join(lines) + content


def through_the_list(chain: Chain) -> tuple[str, bytes]:
    """Have the first host forward a message to a list; return its subject, and what the list sends out."""
    subject, content = make_message(author=AUTHOR)
    _, last = chain.bring(signed(content), chain.first, recipient="list@alias.here.example")
    assert last.code == 250, last
    content = chain.first.arrived(subject).message.content
    assert chain.verified(content)[0] == "pass"
    return f"[list] {subject}", mailing_list(content)


@pytest.mark.parametrize(
    ("trusted", "voucher"),
    [
        (["here.example", "list.example"], "list.example"),
        (["list.example"], "list.example"),
        (["here.example"], ""),  # the list's set is above its own: nobody knows what the list did
        ([], ""),
    ],
)
def test_a_list_adds_a_footer_and_its_seal(chain: Chain, trusted, voucher):
    chain.third.reload(arc={"seal": True, "domain": "third.example", "trusted_sealers": trusted})
    subject, content = through_the_list(chain)
    assert chain.verified(content)[0] == "pass"
    sender, last = chain.bring(content, chain.third, f"bounces{next(_senders)}@list.example")
    facts = chain.third.facts(f"<{sender}>")
    assert (facts["spf"], facts["arc"], facts["dmarc"]) == ("pass", "pass", "fail")
    assert facts["arc_sealers"] == "here.example list.example"
    assert facts.get("dmarc_local_policy", "") == (f"trusted sealer {voucher}" if voucher else "")
    if not voucher:
        assert (last.code, last.text[:6]) == (550, "5.7.26")
        assert "sealed" not in facts
        return
    assert last.code == 250, last
    delivered = chain.third.arrived(subject)
    ours = results_of(delivered, "mx.third.example")
    assert "arc=pass header.oldest-pass=2" in ours
    assert f'dmarc=fail reason="local_policy: trusted sealer {voucher} saw it pass"' in ours
    assert "policy.dmarc=reject" in ours
    assert chain.verified(delivered.message.content)[0] == "pass"


def test_a_footer_without_a_seal(chain: Chain):
    """The chain is broken, so nobody vouches; our seal says so, and that it is over."""
    trusting = {"trusted_sealers": ["here.example", "second.example"]}
    chain.second.reload(arc={"seal": True, "domain": "second.example", **trusting}, policy={"shadow": True})
    subject, content = make_message(author=AUTHOR)
    chain.bring(signed(content), chain.first, recipient="list@alias.here.example")
    content = chain.first.arrived(subject).message.content + b"-- \r\nthe list\r\n"
    sender, last = chain.bring(content, chain.second, f"bounces{next(_senders)}@list.example")
    chain.second.reload(policy=POLICY)
    assert last.code == 250, last
    facts = chain.second.facts(f"<{sender}>")
    assert (facts["arc"], facts["dmarc"], facts["sealed"][:3]) == ("fail", "fail", "i=2")
    refused = chain.third.facts(f"<{sender}>")  # which is not in shadow
    assert (refused["arc"], refused["verdict"]) == ("fail", "reject")
    assert "sealed" not in refused


def test_a_set_of_a_stranger_on_top_hides_the_trusted_ones(chain: Chain):
    """A message that a trusted host did see, sent by somebody who kept it and seals it anew."""
    chain.third.reload(arc={"seal": True, "domain": "third.example", "trusted_sealers": ["here.example"]})
    subject, content = make_message(author=AUTHOR)
    chain.bring(content, chain.first, recipient="list@alias.here.example")
    kept = chain.first.arrived(subject).message.content
    _, last = chain.bring(kept, chain.third, f"a{next(_senders)}@list.example")
    assert last.code == 250, last  # as it was sealed
    sender, last = chain.bring(mailing_list(kept), chain.third, f"b{next(_senders)}@list.example")
    assert (last.code, last.text[:6]) == (550, "5.7.26")
    assert chain.third.facts(f"<{sender}>")["arc"] == "pass"


# What is not sealed.


def test_mail_of_ours_is_not_sealed():
    zones = {("_dmarc.here.example", "TXT"): ["v=DMARC1; p=reject"]}
    with submission_host(
        zones, "alice", arc={"seal": True, "domain": "here.example"}, log={"format": "json"}
    ) as host:
        KeyDirectory(host).genkey("here.example")
        with host, told(host):
            subject, content = make_message(author="alice@here.example")
            with logged_in(host, "submission", "alice") as client:
                client.sendmail("alice@here.example", [BOB], content)
            submitted = host.arrived(subject)
            inside = host.deliver("alice@here.example", source=OURS)
            outside = host.deliver("alice@elsewhere.example")
    for delivered in (submitted, inside):
        assert not [name for name in delivered.names if name.startswith("ARC-")]
    assert "DKIM-Signature" in submitted.names
    assert outside.names[:4] == [*ARC_SET, "Authentication-Results"]


def test_what_is_refused_is_not_sealed(chain: Chain):
    _, content = make_message(author=AUTHOR)
    sender, last = chain.bring(content, chain.first, f"refused{next(_senders)}@list.example")
    assert last.code == 550
    assert "sealed" not in chain.first.facts(f"<{sender}>")


def test_a_domain_that_has_only_an_ed25519_key_seals_nothing():
    """Of other seals than RSA most hosts say that the chain failed."""
    with contextlib.ExitStack() as stack:
        host = MilterHost({}, arc={"seal": True, "domain": "ed.example"}, log={"format": "json"})
        KeyDirectory(host).genkey("ed.example", "--type", "ed25519")
        stack.enter_context(host)
        delivered = host.deliver("alice@elsewhere.example")
        facts = host.facts("<alice@elsewhere.example>")
    assert not [name for name in delivered.names if name.startswith("ARC-")]
    assert facts["unsealed"] == "no RSA key of ed.example signs"
