"""srsctl dkim: keys made with safe modes, their records, which sign, and what DNS says of them."""

from __future__ import annotations

import base64
import grp
import json
import os
import pwd
import re
import stat
import subprocess
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import dns.rdata
import dns.rdataclass
import dns.rdatatype
import dns.zone
import pytest
from click.testing import CliRunner, Result

from harness.daemon import write_config
from harness.dns_server import DnsServer
from srsd.cli.main import main
from srsd.resolving import Outcome

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

CHEAP = ("--type", "ed25519")
MONTH = f"s{datetime.now(UTC):%Y%m}"


@pytest.fixture
def run(tmp_path) -> Callable[..., Result]:
    """Run srsctl dkim with the key directory tmp_path/dkim; DNS is at a port that nobody has."""

    def run(*arguments: str, **tables: Any) -> Result:
        tables = {"dns": {"nameservers": ["127.0.0.1:9"], "timeout": 0.2}, **tables}
        config = write_config(tmp_path, dkim={"key_directory": str(tmp_path / "dkim")}, **tables)
        result = CliRunner().invoke(main, ["--config", str(config), "dkim", *arguments])
        assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
        assert "PRIVATE" not in result.output
        return result

    return run


@pytest.fixture
def directory(tmp_path) -> Path:
    return tmp_path / "dkim/example.org"


def names(directory: Path) -> list[str]:
    return sorted(each.name for each in directory.iterdir())


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def keys_of(result: Result) -> dict[str, dict[str, Any]]:
    return {each["selector"]: each for each in json.loads(result.stdout)}


# genkey


def test_the_first_key_signs_at_once_and_says_so(run, directory):
    result = run("genkey", "example.org")
    assert result.exit_code == 0
    assert names(directory) == ["active", f"{MONTH}.pem"]
    assert (directory / "active").read_text() == f"{MONTH}\n"
    assert "example.org: signs with it AT ONCE: publish the record now" in result.stderr
    assert f"{directory}/{MONTH}.pem: made, RSA, 2048 bits" in result.stdout


def test_openssl_reads_the_key_and_agrees_about_its_public_part(run, directory):
    run("genkey", "example.org", "--type", "both", "--selector", "k")
    for selector, skipped in (("k-rsa", 0), ("k-ed25519", 12)):  # RFC 8463 §4: without the DER before it
        der = subprocess.run(
            ["openssl", "pkey", "-in", directory / f"{selector}.pem", "-pubout", "-outform", "DER"],
            capture_output=True,
            check=True,
        ).stdout
        (key,) = json.loads(run("record", "example.org", selector, "--json").stdout)
        assert key["value"].partition("p=")[2] == base64.b64encode(der[skipped:]).decode()


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ([], {MONTH: ("rsa", 2048)}),
        (["--bits", "1024"], {MONTH: ("rsa", 1024)}),
        (["--type", "ed25519"], {MONTH: ("ed25519", 256)}),
        (["--type", "both"], {f"{MONTH}-rsa": ("rsa", 2048), f"{MONTH}-ed25519": ("ed25519", 256)}),
        (["--selector", "mail"], {"mail": ("rsa", 2048)}),
        (["--selector", "a.B"], {"a.b": ("rsa", 2048)}),
        (["--type", "both", "--selector", "k"], {"k-rsa": ("rsa", 2048), "k-ed25519": ("ed25519", 256)}),
    ],
)
def test_selectors_and_algorithms(run, directory, options, expected):
    keys = keys_of(run("genkey", "example.org", "--json", *options))
    assert {name: (key["type"], key["bits"]) for name, key in keys.items()} == expected
    assert all(key["signs"] for key in keys.values())
    assert (directory / "active").read_text().split() == list(expected)
    assert sorted(key["file"] for key in keys.values()) == sorted(
        f"{directory}/{name}.pem" for name in expected
    )


def test_a_weak_key_is_warned_of(run):
    assert "1024 bits are weak" in run("genkey", "example.org", "--bits", "1024").stderr
    assert "weak" not in run("genkey", "example.net").stderr


def test_a_further_key_does_not_sign_until_it_is_activated(run, directory):
    run("genkey", "example.org", "--selector", "old", *CHEAP)
    result = run("genkey", "example.org", "--selector", "new", "--json")
    assert keys_of(result)["new"]["signs"] is False
    assert "publish the record, then: srsctl dkim activate example.org new" in result.stderr
    assert (directory / "active").read_text() == "old\n"


def test_a_further_key_takes_nothing_from_a_key_that_signs_without_active(run, directory):
    run("genkey", "example.org", "--selector", "old", *CHEAP)
    (directory / "active").unlink()
    run("genkey", "example.org", "--selector", "a-new-one", *CHEAP)
    listed = keys_of(run("list", "--json", "--no-dns"))
    assert {name: key["signs"] for name, key in listed.items()} == {"old": True, "a-new-one": False}


def test_an_active_that_lists_nobody_stays(run, directory):
    directory.mkdir(parents=True)
    (directory / "active").write_text("")
    result = run("genkey", "example.org", "--selector", "s1", *CHEAP)
    assert "does not sign with it yet" in result.stderr
    assert (directory / "active").read_text() == ""


def test_default_selectors_do_not_run_out(run, directory):
    for _ in range(3):
        assert run("genkey", "example.org", "--type", "ed25519").exit_code == 0
    assert names(directory) == ["active", f"{MONTH}-2.pem", f"{MONTH}-3.pem", f"{MONTH}.pem"]


@pytest.mark.parametrize("kind", ["rsa", "both"])
def test_a_key_that_is_there_is_never_changed(run, directory, kind):
    run("genkey", "example.org", "--selector", "s1", "--type", kind)
    before = {path.name: path.read_bytes() for path in directory.iterdir()}
    result = run("genkey", "example.org", "--selector", "s1", "--type", kind)
    assert result.exit_code == 1
    assert "is there already and was not changed" in result.stderr
    assert {path.name: path.read_bytes() for path in directory.iterdir()} == before


def test_of_both_keys_none_is_made_if_one_is_there(run, directory):
    run("genkey", "example.org", "--selector", "s1-ed25519", "--type", "ed25519")
    assert run("genkey", "example.org", "--selector", "s1", "--type", "both").exit_code == 1
    assert names(directory) == ["active", "s1-ed25519.pem"]


def test_modes_without_a_user_of_the_daemon(run, directory):
    former = os.umask(0)
    try:
        run("genkey", "example.org", *CHEAP)
    finally:
        os.umask(former)
    assert {mode(path) for path in directory.iterdir()} == {0o600}
    assert (mode(directory), mode(directory.parent)) == (0o700, 0o700)


@pytest.mark.parametrize("umask", [0o000, 0o077])
def test_modes_with_a_user_of_the_daemon(run, directory, umask):
    if os.geteuid() != 0:
        pytest.skip("only root can give files to others")
    group = pwd.getpwnam("nobody").pw_gid
    former = os.umask(umask)
    try:
        run("genkey", "example.org", user="nobody")
    finally:
        os.umask(former)
    for path in [*directory.iterdir(), directory, directory.parent]:
        status = path.stat()
        assert (status.st_uid, status.st_gid) == (0, group), grp.getgrgid(group)
        assert mode(path) == (0o750 if path.is_dir() else 0o640)


def test_a_user_that_does_not_exist_is_told_before_anything_is_written(run, directory):
    if os.geteuid() != 0:
        pytest.skip("only root can give files to others")
    result = run("genkey", "example.org", user="nosuchuser")
    assert result.exit_code == 1
    assert 'there is no user "nosuchuser"' in result.stderr
    assert not directory.exists()


def test_directories_that_are_there_stay_as_they_are(run, directory):
    directory.mkdir(parents=True, mode=0o755)
    directory.parent.chmod(0o755)
    run("genkey", "example.org", *CHEAP)
    assert (mode(directory), mode(directory.parent)) == (0o755, 0o755)


def test_a_directory_with_u_labels_is_used(run, tmp_path):
    (tmp_path / "dkim/bücher.example").mkdir(parents=True)
    for name in ("bücher.example", "xn--bcher-kva.example"):
        assert run("genkey", name, "--type", "ed25519").exit_code == 0
    assert names(tmp_path / "dkim") == ["bücher.example"]
    (key, _) = json.loads(run("record", "BÜCHER.example", "--json").stdout)
    assert key["name"] == f"{MONTH}._domainkey.xn--bcher-kva.example"


@pytest.mark.parametrize(
    "arguments",
    [
        ["genkey", "exa mple.org"],
        ["genkey", "org"],
        ["genkey", "../evil.example"],
        ["genkey", "example.org", "--selector", "../x"],
        ["genkey", "example.org", "--selector", "a/b"],
        ["genkey", "example.org", "--selector", ""],
        ["genkey", "example.org", "--bits", "512"],
        ["genkey", "example.org", "--bits", "8192"],
        ["genkey", "example.org", "--type", "dsa"],
        ["genkey"],
        ["activate", "example.org"],
        ["record", "example.org", "a b"],
    ],
)
def test_wrong_usage(run, tmp_path, arguments):
    assert run(*arguments).exit_code == 2
    assert not (tmp_path / "dkim").exists()


# The record.


def test_the_zone_line_is_what_a_name_server_takes(run):
    run("genkey", "example.org", "--selector", "k", "--type", "both", "--bits", "4096")
    result = run("record", "example.org")
    lines = [line for line in result.stdout.splitlines() if " IN TXT " in line]
    assert len(lines) == 2
    for line, key in zip(lines, json.loads(run("record", "example.org", "--json").stdout), strict=True):
        assert key["zone"] == line
        strings = re.findall(r'"([^"]*)"', line)
        assert max(map(len, strings)) <= 255
        assert "".join(strings) == key["value"]
        assert f"value: {key['value']}" in result.stdout
        assert f"name:  {key['name']}" in result.stdout
        zone = dns.zone.from_text(
            f"$ORIGIN example.org.\n$TTL 300\n@ IN SOA a. b. 1 1 1 1 1\n@ IN NS a.\n{line}\n", "example.org."
        )
        (found,) = zone.find_rdataset(f"{key['selector']}._domainkey", "TXT")
        assert b"".join(found.strings).decode() == key["value"]


def test_records_of_nothing(run, directory):
    result = run("record", "example.org")
    assert result.exit_code == 1
    assert result.stderr.startswith(
        f"{directory}: has no keys, would be right: srsctl dkim genkey example.org"
    )
    run("genkey", "example.org", "--selector", "s1", *CHEAP)
    result = run("record", "example.org", "s2")
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr.startswith(f"{directory}: has no key s2")


def test_a_faulty_key_ends_with_78(run, directory):
    run("genkey", "example.org", "--selector", "s1", *CHEAP)
    (directory / "s1.pem").chmod(0o644)
    for arguments in (["record", "example.org"], ["list", "example.org"], ["activate", "example.org", "s1"]):
        result = run(*arguments)
        assert result.exit_code == 78
        assert f"{directory}/s1.pem: has mode 0644" in result.stderr


# DNS


def zones_of(run, **changes: Any) -> dict[tuple[str, str], Any]:
    """Publish all keys of example.org as srsctl says; changes are by selector."""
    zones = {}
    for key in json.loads(run("record", "example.org", "--json").stdout):
        value = changes.get(key["selector"], key["value"])
        if value is not None:
            zones[key["name"], "TXT"] = (
                value if isinstance(value, (list, Outcome)) else [[value[:200], value[200:]]]
            )
    return zones


def with_dns(run, zones, *arguments: str) -> Result:
    with DnsServer(zones) as server:
        return run(*arguments, dns={"nameservers": [str(server)], "timeout": 1.0})


BARE = "the bare RSAPublicKey of RFC 6376 §3.6.1"


@pytest.mark.parametrize(
    ("published", "dns", "detail"),
    [
        (..., "yes", ""),
        (BARE, "yes", ""),
        (lambda value: value.replace("v=DKIM1; ", "t=y; "), "yes", "with t=y: for tests only"),
        (lambda value: value.replace("k=rsa; ", "h=sha256; s=email; n=note; "), "yes", ""),
        (None, "no", "no such domain"),
        ([], "no", "no such record"),
        ("v=DKIM1; k=ed25519; p=" + base64.b64encode(bytes(31) + b"\1").decode(), "other key", "ed25519, 256 bits"),
        ("v=DKIM1; k=dsa; p=AAAA", "other key", "the key is not for the signature's algorithm"),
        ("v=DKIM1; p=", "error", "the key is revoked"),
        ("v=DKIM1; h=sha1; p=AAAA", "error", "the key is not for sha256"),
        ("v=spf1 -all", "error", "the key record's version is not DKIM1"),
        ("nothing of this kind", "error", "the key record is malformed"),
        (["v=DKIM1; p=AAAA", "v=DKIM1; p=BBBB"], "error", "2 TXT records where one should be"),
        (Outcome.SERVER_FAILURE, "error", "server failure"),
        (Outcome.REFUSED, "error", "refused by the name server"),
    ],
)  # fmt: skip
def test_what_dns_says_of_a_key(run, directory, published, dns, detail):
    run("genkey", "example.org", "--selector", "s1", "--bits", "1024")
    (key,) = json.loads(run("record", "example.org", "--json").stdout)
    if published is BARE:
        command = ["openssl", "rsa", "-in", directory / "s1.pem", "-RSAPublicKey_out", "-outform", "DER"]
        der = subprocess.run(command, capture_output=True, check=True).stdout
        published = f"v=DKIM1; p={base64.b64encode(der).decode()}"
    elif published is ...:
        published = key["value"]
    elif callable(published):
        published = published(key["value"])
    listed = keys_of(with_dns(run, zones_of(run, s1=published), "list", "example.org", "--json"))["s1"]
    assert listed["dns"] == dns
    assert listed["dns_detail"].partition(" (")[0] == detail


def test_a_key_that_was_replaced_is_told_from_the_one_that_is_published(run, directory):
    run("genkey", "example.org", "--selector", "s1", *CHEAP)
    zones = zones_of(run)
    (directory / "s1.pem").unlink()
    (directory / "active").unlink()
    run("genkey", "example.org", "--selector", "s1", *CHEAP)
    listed = keys_of(with_dns(run, zones, "list", "--json"))["s1"]
    assert (listed["dns"], listed["dns_detail"]) == ("other key", "ed25519, 256 bits")


def test_a_name_server_that_is_silent_is_an_error(run):
    run("genkey", "example.org", "--selector", "s1", *CHEAP)
    assert keys_of(run("list", "--json"))["s1"]["dns"] == "error"


# activate


def test_keys_that_dns_has_are_activated(run, directory):
    run("genkey", "example.org", "--selector", "old", "--type", "both")
    run("genkey", "example.org", "--selector", "new", "--type", "both")
    (directory / "active").chmod(0o644)
    result = with_dns(run, zones_of(run), "activate", "example.org", "new-ed25519", "new-rsa")
    assert (result.exit_code, result.stderr) == (0, "")
    assert result.stdout == "example.org: now signs: new-ed25519, new-rsa\n"
    assert (directory / "active").read_text() == "new-ed25519\nnew-rsa\n"
    assert mode(directory / "active") == 0o644  # as it was
    assert "active" in names(directory)
    assert not [name for name in names(directory) if name.endswith(".new")]


@pytest.mark.parametrize("published", [None, "v=DKIM1; p=", Outcome.SERVER_FAILURE])
def test_a_key_that_dns_does_not_have_is_refused(run, directory, published):
    run("genkey", "example.org", "--selector", "old", "--type", "ed25519")
    run("genkey", "example.org", "--selector", "new", "--type", "both")
    zones = zones_of(run, **{"new-rsa": published})
    result = with_dns(run, zones, "activate", "example.org", "new-rsa", "new-ed25519")
    assert (result.exit_code, result.stdout) == (1, "")
    (line,) = result.stderr.splitlines()
    assert line.startswith("new-rsa._domainkey.example.org: in DNS: ")
    assert "nothing was changed, would be right: srsctl dkim record example.org new-rsa" in line
    assert (directory / "active").read_text() == "old\n"
    answer = json.loads(with_dns(run, zones, "activate", "example.org", "new-rsa", "--json").stdout)
    assert answer["changed"] is False
    assert [key["signs"] for key in answer["keys"]] == [False]
    result = with_dns(run, zones, "activate", "example.org", "new-rsa", "new-ed25519", "--force")
    assert (result.exit_code, result.stderr) == (0, "")
    assert (directory / "active").read_text() == "new-rsa\nnew-ed25519\n"


def test_force_asks_nobody(run):
    run("genkey", "example.org", "--selector", "s1", *CHEAP)
    with DnsServer({}) as server:
        dns = {"nameservers": [str(server)], "timeout": 1.0}
        answer = json.loads(run("activate", "example.org", "s1", "--force", "--json", dns=dns).stdout)
        assert server.asked == []
    assert answer == {
        "changed": True,
        "keys": [
            {
                "domain": "example.org",
                "selector": "s1",
                "type": "ed25519",
                "bits": 256,
                "signs": True,
                "dns": None,
                "dns_detail": None,
            }
        ],
    }


def test_two_keys_of_one_algorithm_are_refused(run, directory):
    for selector in ("a", "b"):
        run("genkey", "example.org", "--selector", selector, "--type", "ed25519")
    result = run("activate", "example.org", "a", "b", "--force")
    assert result.exit_code == 1
    assert result.stderr == '"a" and "b" have the same algorithm, would be right: one key of each\n'
    assert (directory / "active").read_text() == "a\n"
    assert run("activate", "example.org", "b", "B", "--force").exit_code == 0  # the same one twice
    assert (directory / "active").read_text() == "b\n"


def test_a_key_that_is_not_there_cannot_be_activated(run, directory):
    run("genkey", "example.org", "--selector", "s1", *CHEAP)
    result = run("activate", "example.org", "s2", "--force")
    assert result.exit_code == 1
    assert result.stderr == f'{directory}: has no key "s2", would be right: one of these: s1\n'


def test_activate_mends_a_faulty_active(run, directory):
    run("genkey", "example.org", "--selector", "s1", *CHEAP)
    (directory / "active").write_text("gone\n")
    assert run("list", "example.org", "--no-dns").exit_code == 78
    assert run("activate", "example.org", "s1", "--force").exit_code == 0
    assert run("list", "example.org", "--no-dns").exit_code == 0


# list


def test_list_says_which_sign_and_why(run, directory):
    run("genkey", "example.org", "--selector", "s1", "--type", "both")
    run("genkey", "example.org", "--selector", "s2", *CHEAP)
    run("genkey", "example.net", "--selector", "x", "--type", "ed25519")
    result = run("list", "--json", "--no-dns")
    assert [
        (key["domain"], key["selector"], key["signs"], key["reason"]) for key in json.loads(result.stdout)
    ] == [
        ("example.net", "x", True, "listed in the file active"),
        ("example.org", "s1-ed25519", True, "listed in the file active"),
        ("example.org", "s1-rsa", True, "listed in the file active"),
        ("example.org", "s2", False, "not listed in the file active"),
    ]
    assert all(key["dns"] is None for key in json.loads(result.stdout))
    (directory / "active").unlink()
    result = run("list", "example.org", "--json", "--no-dns")
    assert [(key["signs"], key["reason"]) for key in json.loads(result.stdout)] == [
        (True, "the first key of its domain by name"),
        (False, "another key comes first by name"),
        (False, "another key comes first by name"),
    ]
    assert "has 3 keys and no file active" in result.stderr


def test_list_for_people_cuts_no_name_short(run):
    domain = "a-rather-long-name-of-a-department.of.a-rather-long-name-of-a-company.example"
    run("genkey", domain, "--type", "both")
    result = run("list", "--no-dns")
    assert domain in result.stdout
    assert f"{MONTH}-ed25519" in result.stdout
    assert "…" not in result.stdout
    assert "not asked" in result.stdout


def test_list_of_nothing(run, tmp_path):
    for arguments in (["list"], ["list", "example.org"]):
        result = run(*arguments)
        assert result.exit_code == 1
        assert "would be right: srsctl dkim genkey" in result.stderr
    assert json.loads(run("list", "--json").stdout) == []


def test_a_faulty_domain_does_not_hide_the_others(run, directory):
    run("genkey", "example.org", "--selector", "s1", *CHEAP)
    run("genkey", "example.net", "--selector", "x", *CHEAP)
    (directory / "s1.pem").write_text("nonsense")
    result = run("list", "--json", "--no-dns")
    assert result.exit_code == 78
    assert list(keys_of(result)) == ["x"]
    assert f"{directory}/s1.pem: is not a private key" in result.stderr
