"""The text of a configuration: what is accepted, and every fault that is found in it."""

from __future__ import annotations

import re
import tomllib
from dataclasses import fields, is_dataclass
from pathlib import Path

import pytest

from srsd.cli.config import example_text
from srsd.config import Config
from srsd.config_text import parse_config
from srsd.errors import ConfigError
from srsd.lookup import DomainFor
from srsd.syntax.endpoint import InetEndpoint, UnixEndpoint

DESIGN = Path(__file__).parents[3] / "shared/DESIGN.md"


def faults_of(text: str | bytes) -> list[str]:
    """Give the lines for a configuration that must be refused."""
    with pytest.raises(ConfigError) as caught:
        parse_config(text if isinstance(text, bytes) else text.encode())
    return caught.value.lines()


def remarks_of(text: str) -> list[str]:
    return [remark.line() for remark in parse_config(text.encode())[1]]


def test_an_empty_file_gives_the_defaults():
    assert parse_config(b"") == (Config(), [])


def test_every_key_is_read():
    config, remarks = parse_config(
        b"""
        workers = "auto"
        state_directory = "/srv/state"
        user = "srsd"
        [listen]
        srs_forward = ["inet:127.0.0.1:1", "inet:[::1]:1"]
        srs_reverse = ["inet:mail.example.org:2"]
        socketmap = ["unix:/run/a?mode=0600&group=postfix", "inet:127.0.0.1:3"]
        control = ["unix:/run/b"]
        metrics = ["inet:127.0.0.1:4"]
        [srs]
        domain = "srs.example.org"
        secrets_file = "/srv/secrets"
        local_domains = ["example.org", ".example.org"]
        previous_domains = ["old.example.org"]
        separator = "+"
        hash_length = 8
        hash_minimum = 6
        maximum_age = 7
        always_rewrite = true
        [exclude]
        file = "/srv/exclude"
        [log]
        format = "json"
        level = "debug"
        """
    )
    assert not remarks
    assert (config.workers, config.state_directory, config.user) == ("auto", "/srv/state", "srsd")
    listen, srs = config.listen, config.srs
    assert listen.srs_forward == (InetEndpoint("127.0.0.1", 1), InetEndpoint("::1", 1))
    assert listen.srs_reverse == (InetEndpoint("mail.example.org", 2),)
    assert listen.socketmap == (UnixEndpoint("/run/a", 0o600, "postfix"), InetEndpoint("127.0.0.1", 3))
    assert listen.control == (UnixEndpoint("/run/b", 0o660, ""),)
    assert listen.metrics == (InetEndpoint("127.0.0.1", 4),)
    assert (srs.domain, srs.secrets_file) == ("srs.example.org", "/srv/secrets")
    assert srs.local_domains == ("example.org", ".example.org")
    assert srs.previous_domains == ("old.example.org",)
    assert (srs.separator, srs.hash_length, srs.hash_minimum) == ("+", 8, 6)
    assert (srs.maximum_age, srs.always_rewrite) == (7, True)
    assert config.exclude.file == "/srv/exclude"
    assert (config.log.format, config.log.level) == ("json", "debug")


# Keys that nobody knows ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("worker = 1", "worker: is not a known key, would be right: workers is the nearest"),
        ("[srs]\nhash_lenght = 4", "srs.hash_lenght: is not a known key, would be right: hash_length is the"),
        ("[srs]\nmax_age = 4", "srs.max_age: is not a known key, would be right: maximum_age is the nearest"),
        ("[srs]\nsecret_file = ''", "srs.secret_file: is not a known key, would be right: secrets_file is"),
        ("[sr]\ndomain = 'a.example'", "sr: is not a known key, would be right: srs is the nearest"),
        ("[exclude]\nfiles = ''", "exclude.files: is not a known key, would be right: file is the nearest"),
        ("[policy]\nspf_fial = ''", "policy.spf_fial: is not a known key, would be right: spf_fail is the"),
        ("[log.x]\ny = 1", "log.x: is not a known key, would be right: "),
        ("qqq = 1", "qqq: is not a known key, would be right: "),  # whatever is near: there is always one
        ("[srs]\n'a\\u001b\nb' = 1", None),
        ('[srs]\n"a\\u001b\\nb" = 1', "srs.a\\x1b\\nb: is not a known key, would be right: "),
    ],
)
def test_an_unknown_key_is_a_fault_that_names_the_nearest(text, line):
    if line is None:
        assert "is not TOML" in faults_of(text)[0]
        return
    (found,) = faults_of(text)
    assert found.startswith(line)
    assert found.endswith("is the nearest")
    assert found.isprintable()


# Values of a wrong type ------------------------------------------------------------------------

TEXT = 'would be right: a text in quotes, such as "text"'
WHOLE = "would be right: a whole number"
NUMBER = "would be right: a number"
BOOLEAN = "would be right: true or false"
TEXTS = 'would be right: a list of texts such as ["one", "two"]'
WORKERS = 'would be right: a whole number from 1 to 1024, or "auto"'
ACTION = "would be right: one of accept, tempfail, quarantine, reject"

WRONG_TYPES = [
    ("user", "1", TEXT),
    ("user", "true", TEXT),
    ("user", "[]", TEXT),
    ("user", "1979-05-27", TEXT),
    ("state_directory", "1.5", TEXT),
    ("workers", '"1"', WORKERS),
    ("workers", "true", WORKERS),
    ("workers", "1.0", WORKERS),
    ("workers", "[1]", WORKERS),
    ("srs.domain", "false", TEXT),
    ("srs.domain", "{}", TEXT),
    ("srs.hash_length", '"4"', WHOLE),
    ("srs.hash_length", "4.0", WHOLE),
    ("srs.hash_length", "true", WHOLE),
    ("srs.maximum_age", "[21]", WHOLE),
    ("srs.always_rewrite", "1", BOOLEAN),
    ("srs.always_rewrite", '"true"', BOOLEAN),
    ("srs.local_domains", '"example.org"', TEXTS),
    ("srs.local_domains", "[1]", TEXTS),
    ("srs.local_domains", '["a.example", ["b.example"]]', TEXTS),
    ("srs.previous_domains", "{}", TEXTS),
    ("listen.srs_forward", '"inet:127.0.0.1:1"', TEXTS),
    ("listen.socketmap", "[10003]", TEXTS),
    ("listen.socketmap", "false", TEXTS),
    ("log.level", "1", "would be right: one of debug, info, warning, error"),
    ("log.format", "[]", "would be right: one of text, json"),
    ("log.format", "{}", "would be right: one of text, json"),
    ("dns.timeout", '"5"', NUMBER),
    ("dns.timeout", "true", NUMBER),
    ("dns.cache_size", "1.5", WHOLE),
    ("policy.spf_fail", "true", ACTION),
    ("listen", "1", "would be right: a table [listen]"),
    ("srs", '"srs.example.org"', "would be right: a table [srs]"),
    ("exclude", "[]", "would be right: a table [exclude]"),
    ("srs", "[{}]", "would be right: a table [srs]"),
]


@pytest.mark.parametrize(("key", "value", "right"), WRONG_TYPES)
def test_a_value_of_another_type_is_a_fault(key, value, right):
    (line,) = faults_of(f"{key} = {value}")
    assert re.fullmatch(rf"{re.escape(key)}: is .+, {re.escape(right)}", line)


def test_a_value_is_shown_as_toml_has_it():
    assert faults_of("srs.always_rewrite = 'true'")[0].startswith('srs.always_rewrite: is "true", ')
    assert faults_of("srs.domain = true")[0].startswith("srs.domain: is true, ")


# Values that cannot be -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("key", "value", "text"),
    [
        ("workers", "0", WORKERS),
        ("workers", "-1", WORKERS),
        ("workers", "1025", WORKERS),
        ("workers", '"many"', WORKERS),
        ("state_directory", '"state"', '"state" is not absolute, would be right: a path from /'),
        ("state_directory", '""', "is not absolute"),
        ("srs.secrets_file", '"srs.secrets"', "is not absolute"),
        ("exclude.file", '"exclude"', "is not absolute"),
        ("dkim.key_directory", '"dkim"', "is not absolute"),
        ("srs.domain", '"localhost"', "has no dot, would be right: a domain of yours with an MX record"),
        ("srs.domain", '"a b.example"', "is not a domain name"),
        ("srs.domain", '"@srs.example.org"', "is not a domain name"),
        ("srs.domain", '"srs..example.org"', "is not a domain name"),
        ("srs.domain", '"[192.0.2.1]"', "is not a domain name"),
        ("srs.domain", f'"{"a" * 64}.example"', "is not a domain name"),
        ("srs.local_domains", '["a.example", "b..example"]', "'b..example' is not a domain name"),
        ("srs.local_domains", '["*.example.org"]', "or .example.org for its subdomains"),
        ("srs.previous_domains", '[""]', "'' is not a domain name"),
        ("srs.separator", '""', "would be right: one of = + -"),
        ("srs.separator", '"=="', "would be right: one of = + -"),
        ("srs.separator", '"_"', "would be right: one of = + -"),
        ("srs.hash_length", "0", "is 0, would be right: a number from 1 to 27"),
        ("srs.hash_length", "28", "is 28, would be right: a number from 1 to 27"),
        ("srs.hash_minimum", "0", "is 0, would be right: a number from 1 to 27"),
        ("srs.maximum_age", "0", "is 0, would be right: a number from "),
        ("srs.maximum_age", "1024", "is 1024, would be right: a number from "),
        ("log.level", '"notice"', 'is "notice", would be right: one of debug, info, warning, error'),
        ("log.format", '"JSON"', "would be right: one of text, json"),
        ("dns.timeout", "0", "would be right: a number from 0.1 to 60"),
        ("dns.timeout", "nan", "would be right: a number from 0.1 to 60"),
        ("dns.timeout", "inf", "would be right: a number from 0.1 to 60"),
        ("dns.cache_size", "-1", "would be right: a number from 0 to "),
        ("dkim.minimum_key_bits", "512", "would be right: a number from 1024 to 4096"),
        ("milter.internal_networks", '["192.0.2.1/24"]', "has host bits set"),
        ("milter.trusted_relays", '["mx.example.org"]', "would be right: networks such as 192.0.2.0/24"),
        ("policy.spf_fail", '"discard"', ACTION),
        ("listen.srs_forward", '["127.0.0.1:10001"]', "is not an endpoint, would be right: inet:127.0.0.1"),
        ("listen.srs_forward", '["unix:/run/x"]', "Postfix has no tcp_table(5) over unix sockets"),
        ("listen.srs_reverse", '["unix:/run/x"]', "or the unix socket in listen.socketmap"),
        ("listen.control", '["inet:127.0.0.1:1"]', "is open to every user, would be right: unix:/run/"),
        ("listen.socketmap", '["inet:127.0.0.1:65536"]', "has a port above 65535"),
        ("listen.metrics", '["inet:127.0.0.1"]', "is not an endpoint"),
    ],
)
def test_an_impossible_value_is_a_fault(key, value, text):
    (line,) = faults_of(f"{key} = {value}")
    assert line.startswith(f"{key}: ")
    assert text in line
    assert "would be right: " in line


# Text that is no TOML --------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text", ["workers", "workers = ", "workers = 1\nworkers = 1", "[srs", "a = 'x", "[srs]\n[srs]", "\x00"]
)
def test_what_is_not_toml_is_one_fault_with_its_place(text):
    (line,) = faults_of(text)
    assert re.fullmatch(
        r"is not TOML: .+ \(at (line 1, column|line 2, column|end of).+, would be right: key.*", line
    )


def test_a_number_that_python_does_not_convert_is_a_fault():
    (line,) = faults_of(b"workers = " + b"1" * 5000)
    assert line.isprintable()


@pytest.mark.parametrize("text", ["a = " + "[" * 20_000, "a = " + "{a=" * 20_000])
def test_nesting_too_deep_to_be_meant_is_a_fault(text):
    assert faults_of(text)


@pytest.mark.parametrize(
    ("text", "byte"), [(b"\xff", 0), (b"# caf\xe9\nworkers = 1", 5), (b"workers = 1\n\xc3", 12)]
)
def test_what_is_not_utf_8_is_one_fault(text, byte):
    assert faults_of(text) == [f"byte {byte} is not UTF-8, would be right: UTF-8 text"]


# What each key allows and all together do not ---------------------------------------------------


def test_a_minimum_above_the_length_is_a_contradiction():
    assert faults_of("[srs]\nhash_length = 4\nhash_minimum = 5") == [
        (
            "srs.hash_minimum: is 5, so addresses with the 4 characters of hash_length would be refused, "
            "would be right: not more than hash_length"
        )
    ]
    assert faults_of("srs.hash_length = 3")[0].startswith("srs.hash_minimum: is 4, so addresses with the 3 ")
    assert parse_config(b"[srs]\nhash_length = 5\nhash_minimum = 5")[0].srs.hash_minimum == 5


@pytest.mark.parametrize(
    ("listen", "line"),
    [
        (
            'srs_forward = ["inet:127.0.0.1:5"]\nsrs_reverse = ["inet:127.0.0.1:5"]',
            'listen.srs_reverse: "inet:127.0.0.1:5" is in listen.srs_forward already',
        ),
        (
            'srs_forward = ["inet:[::1]:5", "inet:[::1]:5"]',
            'listen.srs_forward: "inet:[::1]:5" is in listen.srs_forward',
        ),
        (
            'socketmap = ["inet:127.0.0.1:10001"]',
            'listen.socketmap: "inet:127.0.0.1:10001" is in listen.srs_forward',
        ),
        ('metrics = ["inet:127.0.0.1:10002"]', "listen.metrics: "),
        (
            'socketmap = ["unix:/run/srsd/control.sock"]',
            'listen.control: "unix:/run/srsd/control.sock?mode=0660" is',
        ),
    ],
)
def test_an_endpoint_may_stand_once(listen, line):
    (found,) = faults_of("[listen]\n" + listen)
    assert found.startswith(line)
    assert found.endswith("already, would be right: each one once")


def test_a_socket_is_the_same_whatever_its_mode():
    (line,) = faults_of('listen.socketmap = ["unix:/run/a?mode=0600", "unix:/run/a?mode=0660"]')
    assert line.startswith("listen.socketmap: ")


def test_port_0_may_stand_as_often_as_one_likes():
    zero = '["inet:127.0.0.1:0", "inet:127.0.0.1:0"]'
    config, _ = parse_config(f"[listen]\nsrs_forward = {zero}\nsrs_reverse = {zero}".encode())
    assert len(config.listen.srs_forward) == 2


def test_without_any_endpoint_there_is_nothing_to_do():
    (line,) = faults_of("[listen]\nsrs_forward = []\nsrs_reverse = []\ncontrol = []")
    assert (
        line
        == "listen: has no endpoint, would be right: one in srs_forward, srs_reverse, socketmap or milter"
    )


def test_a_control_socket_alone_is_no_service():
    (line,) = faults_of("[listen]\nsrs_forward = []\nsrs_reverse = []")
    assert line.startswith("listen: has no endpoint")


def test_one_socketmap_is_enough():
    assert parse_config(
        b'[listen]\nsrs_forward = []\nsrs_reverse = []\ncontrol = []\nsocketmap = ["unix:/run/a"]'
    )


# All at once -----------------------------------------------------------------------------------


def test_all_faults_are_reported_at_once():
    lines = faults_of(
        """
        workers = 0
        staet = 1
        user = 1
        log = "debug"
        [listen]
        srs_forward = ["unix:/run/x"]
        srs_reverse = ["nonsense"]
        control = ["inet:127.0.0.1:1"]
        metrics = ["inet:127.0.0.1:5"]
        socketmap = ["inet:127.0.0.1:5"]
        [srs]
        domain = "localhost"
        colour = "red"
        hash_length = 2
        local_domains = "example.org"
        [dkim]
        expiry = 9999
        [policy]
        spf_fail = "maybe"
        """
    )
    assert sorted(line.partition(":")[0] for line in lines) == [
        "dkim.expiry",
        "listen.control",
        "listen.metrics",
        "listen.srs_forward",
        "listen.srs_reverse",
        "log",
        "policy.spf_fail",
        "srs.colour",
        "srs.domain",
        "srs.hash_minimum",
        "srs.local_domains",
        "staet",
        "user",
        "workers",
    ]
    assert all(re.match(r"[\w.]+: \S", line) and line.isprintable() for line in lines)


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("[srs]\nhash_length = 99\nhash_minimum = 8", "srs.hash_length"),
        ('[listen]\nsrs_forward = ["x"]\nsocketmap = ["inet:127.0.0.1:10001"]', "listen.srs_forward"),
    ],
)
def test_a_faulty_key_causes_no_second_fault_elsewhere(text, key):
    """It is dropped to check the rest; its default must not be held against other keys."""
    assert [line.partition(":")[0] for line in faults_of(text)] == [key]


def test_names_of_the_file_come_first_when_known():
    with pytest.raises(ConfigError) as caught:
        parse_config(b"worker = 1\n[srs]\nx = 1")
    caught.value.name_file("/etc/srsd/srsd.toml")
    assert all(line.startswith("/etc/srsd/srsd.toml: ") for line in caught.value.lines())


# What has no effect ----------------------------------------------------------------------------

WITHOUT_EFFECT = [
    ("[spf]\nverify = false\n[policy]\nspf_fail = 'reject'", "policy.spf_fail", "spf.verify is false"),
    ("[dkim]\nverify = false\n[policy]\ndkim_fail = 'reject'", "policy.dkim_fail", "dkim.verify is false"),
    ("[arc]\nverify = false\n[policy]\narc_fail = 'reject'", "policy.arc_fail", "arc.verify is false"),
    (
        "[dmarc]\nverify = false\n[policy]\ndmarc_reject = 'reject'",
        "policy.dmarc_reject",
        "dmarc.verify is false",
    ),
    (
        "[dkim]\nverify = false\n[policy]\ndmarc_reject = 'reject'",
        "policy.dmarc_reject",
        "DMARC cannot fail while dkim.verify is false",
    ),
    ("[policy]\nlogin_mismatch = 'reject'", "policy.login_mismatch", "there is no dkim.login_table"),
    (
        "[policy]\ndns_error = 'tempfail'\nauthor_invalid = 'reject'",
        "policy.dns_error",
        "no other action goes by what DNS says, so nothing can be missing",
    ),
    ("[arc]\nverify = false\ntrusted_sealers = ['a.example']", "arc.trusted_sealers", "arc.verify is false"),
    (
        "[dmarc]\nverify = false\n[arc]\ntrusted_sealers = ['a.example']",
        "arc.trusted_sealers",
        "dmarc.verify is false",
    ),
    ("[srs]\nforgery_delay = 5", "srs.forgery_delay", "srs.domain is empty"),
    ("[srs]\nforgery_delay = 5\ndomain = 'srs.example'", "srs.forgery_delay", "listen.milter is empty"),
    (
        "[arc]\nverify = false\nseal = true\ndomain = 'example.org'",
        "arc.seal",
        "arc.verify is false, and a seal says what the chain is",
    ),
]


def test_a_delay_where_the_milter_is_on_has_an_effect():
    listen = "[listen]\nmilter = ['inet:127.0.0.1:8891']\n"
    assert remarks_of(f"{listen}[srs]\nforgery_delay = 5\ndomain = 'srs.example'") == []


@pytest.mark.parametrize("seconds", ["-1", "15.5", "20", "inf", "nan"])
def test_a_delay_is_shorter_than_postfix_waits(seconds):
    (fault,) = faults_of(f"[srs]\nforgery_delay = {seconds}")
    assert fault.endswith("would be right: a number from 0 to 15.0")


@pytest.mark.parametrize(("text", "key", "why"), WITHOUT_EFFECT)
def test_what_has_no_effect_is_a_remark(text, key, why):
    assert remarks_of(text) == [f"{key}: has no effect: {why}"]


@pytest.mark.parametrize(
    "text",
    [
        "workers = 1\n[srs]\nhash_length = 4\n[log]\nlevel = 'info'",
        "spf.verify = false\ndkim.verify = false\ndmarc.verify = false\narc.verify = false\ndkim.sign = false",
        "[policy]\nshadow = false\nspf_fail = 'reject'\ndns_error = 'tempfail'\ndefer_budget = 5",
        "[policy]\nlogin_mismatch = 'reject'\n[dkim]\nlogin_table = '/srv/logins'",
        "[arc]\nseal = true\ndomain = 'example.org'\ntrusted_sealers = ['a.example', 'b.example']",
        "[arc]\ndomain = 'example.org'",
    ],
)
def test_what_has_an_effect_has_no_remark(text):
    assert remarks_of(text) == []


def test_srs_in_the_milter_needs_a_milter_and_a_domain():
    assert faults_of("[srs]\nmode = 'milter'") == [
        'srs.mode: is "milter", would be right: srs.domain beside it',
        'srs.mode: is "milter", and there is none, would be right: an endpoint in listen.milter',
    ]
    assert (
        remarks_of("[listen]\nmilter = ['inet:127.0.0.1:0']\n[srs]\nmode = 'milter'\ndomain = 'a.example'")
        == []
    )


def test_spf_of_ourselves_is_of_addresses():
    (fault,) = faults_of("[srs]\noutbound_addresses = ['192.0.2.0/24']")
    assert fault.startswith('srs.outbound_addresses: "192.0.2.0/24" is no IP address')


TWO_DOMAINS = """
[srs]
domain = "srs.a.example"
[[srs.domain_for]]
domains = ["b.example", ".b.example"]
domain = "srs.b.example"
[[srs.domain_for]]
domains = ["c.example"]
domain = "srs.c.example"
"""


def test_srs_domains_for_some_are_tables():
    config, remarks = parse_config(TWO_DOMAINS.encode())
    assert config.srs.domain_for == (
        DomainFor(domains=("b.example", ".b.example"), domain="srs.b.example"),
        DomainFor(domains=("c.example",), domain="srs.c.example"),
    )
    assert remarks == []


@pytest.mark.parametrize(
    ("table", "fault"),
    [
        ("domains = ['b.example']", "table 1 has no domain, would be right: domains and domain in each"),
        ("domain = 'b.example'", "table 1 has no domains, would be right: domains and domain in each"),
        ("domains = []\ndomain = 'b.example'", "domains of table 1 is empty"),
        ("domains = ['b b']\ndomain = 'b.example'", "domains of table 1 'b b' is not a domain name"),
        (
            "domains = 'b.example'\ndomain = 'b.example'",
            'domains of table 1 is "b.example", would be right: a list',
        ),
        ("domains = ['b.example']\ndomain = ''", "domain of table 1 is missing"),
        ("domains = ['b.example']\ndomain = 'b'", "domain of table 1 'b' has no dot"),
        ("domains = ['b.example']\ndomain = 'b.example'\ndomian = 1", "domian of table 1 is not a known key"),
    ],
)
def test_faulty_tables_of_srs_domains(table, fault):
    (line,) = faults_of(f"[srs]\ndomain = 'a.example'\n[[srs.domain_for]]\n{table}")
    assert line.startswith(f"srs.domain_for: {fault}")


def test_srs_domains_for_some_need_one_for_the_others():
    (line,) = faults_of("[[srs.domain_for]]\ndomains = ['b.example']\ndomain = 'srs.b.example'")
    assert line.startswith("srs.domain_for: needs a domain for all others")
    (line,) = faults_of("[srs]\ndomain_for = ['b.example']")
    assert line.endswith("would be right: tables [[srs.domain_for]]")


def test_who_seals_must_be_named():
    assert faults_of("[arc]\nseal = true") == [
        "arc.seal: needs to know who seals, would be right: arc.domain beside it"
    ]


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("[arc]\ntrusted_sealers = ['x..y']", "arc.trusted_sealers: "),
        ("[arc]\ndomain = 'org'", "arc.domain: "),
        ("[policy]\nspf_fail = 'discard'", "policy.spf_fail: "),
        ("[policy]\ndefer_budget = -1", "policy.defer_budget: "),
    ],
)
def test_policy_and_arc_are_checked(text, fault):
    (line,) = faults_of(text)
    assert line.startswith(fault)
    assert "would be right: " in line


# The examples ----------------------------------------------------------------------------------


def uncommented(text: str) -> str:
    return re.sub(r"(?m)^#(?=\w+ = )", "", text)


def test_the_example_holds_the_defaults():
    text = example_text()
    assert parse_config(text.encode()) == (Config(), [])
    assert not any(tomllib.loads(text).values())  # all of it is commented out
    assert parse_config(uncommented(text).encode()) == (Config(), [])


def test_the_example_has_every_key():
    found = tomllib.loads(uncommented(example_text()))
    expected = {}
    for item in fields(Config):
        value = getattr(Config(), item.name)
        if not is_dataclass(value):
            expected[item.name] = ...
        else:
            expected[item.name] = {key.name for key in fields(value)}
    assert {name: set(value) if isinstance(value, dict) else ... for name, value in found.items()} == expected


ADDED = {  # since the design
    "policy": {"null_mx", "arc_fail"},
    "srs": {
        "domain_for",
        "envelope",
        "store_size",
        "mode",
        "when",
        "outbound_addresses",
        "relayed",
        "expansion_error",
        "expansion_timeout",
        "forgery_delay",
    },
}


def design_block() -> str:
    (block,) = [
        block
        for block in re.findall(r"```toml\n(.*?)```", DESIGN.read_text("utf-8"), re.DOTALL)
        if "[listen]" in block
    ]
    return block


@pytest.mark.skipif(
    not DESIGN.exists(), reason=f"{DESIGN} is absent: the design's defaults were not compared"
)
def test_the_defaults_of_the_design_are_ours():
    block = design_block()
    config, remarks = parse_config(block.encode())
    assert config == Config()
    assert remarks == []
    written = tomllib.loads(block)
    for item in fields(Config):  # and none of ours is missing there
        value = getattr(Config(), item.name)
        assert item.name in written
        if is_dataclass(value):
            assert {key.name for key in fields(value)} - set(written[item.name]) == ADDED.get(
                item.name, set()
            )
