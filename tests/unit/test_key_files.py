"""The key directory and the tables on disk: read, watched, refused where others may read them."""

from __future__ import annotations

import contextlib
import grp
import logging
import os
import shutil
import signal
from typing import TYPE_CHECKING

import pytest

from harness.running import new_directory
from srsd.crypto import KeyType, generate_key
from srsd.daemon.key_files import KeyFiles, find_domain_directory, list_key_directory, read_domain
from srsd.dkim.signing_rules import DkimKeyParameters, SigningTexts, parse_signing_rules
from srsd.errors import ConfigError
from srsd.syntax.address import Address

if TYPE_CHECKING:
    from pathlib import Path

NOBODY = 65534
PEMS = [generate_key(KeyType.ED25519).pem() for _ in range(4)]


@pytest.fixture
def keys(tmp_path):
    directory = tmp_path / "dkim"
    put(directory / "example.org/s1.pem", PEMS[0])
    return directory


def put(path: Path, content: bytes, mode: int = 0o600) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    path.chmod(mode)
    return path


def parameters(keys: Path) -> DkimKeyParameters:
    tables = {name: str(keys.parent / name) for name in ("signing_table", "login_table")}
    present = {name: path for name, path in tables.items() if os.path.lexists(path)}
    return DkimKeyParameters(key_directory=str(keys), **present)


def loaded(keys: Path) -> KeyFiles:
    files = KeyFiles(parameters(keys))
    files.load()
    return files


def faults_of(keys: Path) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        loaded(keys)
    return caught.value.lines()


def signers(files: KeyFiles, author: str = "u@example.org") -> list[str]:
    local_part, _, domain = author.rpartition("@")
    choice = files.value.choose(Address(local_part.encode(), domain.encode()))
    return [f"{each.selector.decode()} {each.domain.decode()}" for each in choice.signers]


def change(files: KeyFiles) -> bool:
    """Poll until a change has stood still; the third look finds nothing new."""
    taken = [files.poll(), files.poll()]
    assert not taken[0]
    assert not files.poll()
    return taken[1]


def test_the_keys_are_read(keys):
    files = loaded(keys)
    assert signers(files) == ["s1 example.org"]
    assert [files.poll() for _ in range(3)] == [False] * 3


def test_the_texts_give_the_same_rules_elsewhere(keys):
    put(
        keys.parent / "signing_table",
        b"k esp.example:e:%s\nnews@example.org k\n" % os.fsencode(keys.parent / "k.pem"),
    )
    put(keys.parent / "login_table", b"alice alice@example.org\n")
    put(keys.parent / "k.pem", PEMS[1])
    put(keys / "example.org/active", b"s1\n")
    files = loaded(keys)
    there, _ = parse_signing_rules(SigningTexts.unpack(files.text), parameters(keys))
    for author in (
        Address(b"news", b"example.org"),
        Address(b"u", b"example.org"),
        Address(b"u", b"example.net"),
    ):
        ours, theirs = files.value.choose(author), there.choose(author)
        assert (ours.reason, [s[:2] for s in ours.signers]) == (
            theirs.reason,
            [s[:2] for s in theirs.signers],
        )
    assert there.logins.allows(b"alice", Address(b"bob", b"example.org")) is False


def test_no_directory_means_no_keys(tmp_path):
    files = loaded(tmp_path / "none")
    assert signers(files) == []
    assert not files.poll()
    put(tmp_path / "none/example.org/s1.pem", PEMS[0])
    assert change(files)
    assert signers(files) == ["s1 example.org"]


# What is looked at.


def test_other_files_do_not_matter(keys):
    for name in ("README", "s2.pem.123.new", ".hidden.pem", "s2.txt", "active~"):
        put(keys / "example.org" / name, b"nonsense", 0o666)
    put(keys / "s1.pem", b"nonsense", 0o666)  # not in a directory of a domain
    put(keys / ".git/x.pem", b"nonsense", 0o666)
    (keys / "empty.example").mkdir()
    (keys / "lost+found").mkdir(mode=0o700)
    assert signers(loaded(keys)) == ["s1 example.org"]


def test_links_are_followed(keys, tmp_path):
    target = put(tmp_path / "elsewhere/key", PEMS[1])
    (keys / "example.net").mkdir()
    (keys / "example.net/s1.pem").symlink_to(target)
    (keys / "linked.example").symlink_to(keys / "example.net")
    files = loaded(keys)
    assert signers(files, "u@example.net") == ["s1 example.net"]
    assert signers(files, "u@linked.example") == ["s1 linked.example"]


# Changes.


def test_a_new_key_a_new_domain_and_active_are_taken(keys, caplog):
    caplog.set_level(logging.INFO)
    files = loaded(keys)
    put(keys / "example.net/x.pem", PEMS[1])
    assert change(files)
    assert signers(files, "u@example.net") == ["x example.net"]
    put(keys / "example.org/s2.pem", PEMS[2])
    put(keys / "example.org/active", b"s2\n")
    assert change(files)
    assert signers(files) == ["s2 example.org"]
    assert [record.getMessage() for record in caplog.records] == [
        f"{keys}/example.net: read again after a change; now signs: x",
        f"{keys}/example.org: read again after a change; now signs: s2",
    ]


def test_a_change_in_place_is_taken(keys):
    put(keys / "example.org/s2.pem", PEMS[1])
    put(keys / "example.org/active", b"s1\n")
    files = loaded(keys)
    (keys / "example.org/active").write_bytes(b"s2\n")  # as long as before
    assert change(files)
    assert signers(files) == ["s2 example.org"]
    (keys / "example.org/s2.pem").write_bytes(PEMS[2])
    assert change(files)
    assert files.value.keys.find(b"example.org", b"s2").key.pem() == PEMS[2]


def test_a_change_is_taken_once_it_stands_still(keys):
    files = loaded(keys)
    for number in range(1, 4):
        put(keys / f"example.net/s{number}.pem", PEMS[number])
        assert not files.poll()  # it changed again since the last look
    assert files.poll()
    assert len(files.value.keys.domains[b"example.net"].keys) == 3


def test_what_is_removed_does_not_sign_any_more(keys, caplog):
    put(keys / "example.net/s1.pem", PEMS[1])
    files = loaded(keys)
    shutil.rmtree(keys / "example.net")
    assert change(files)
    assert signers(files, "u@example.net") == []
    (keys / "example.org/s1.pem").unlink()  # the directory stays
    assert change(files)
    assert signers(files) == []
    assert [record.getMessage() for record in caplog.records] == [
        f"{keys}/example.{domain}: has no keys any more, so they do not sign" for domain in ("net", "org")
    ]
    put(keys / "example.org/s1.pem", PEMS[2])
    assert change(files)
    assert signers(files) == ["s1 example.org"]


def test_a_bad_version_leaves_the_old_one_of_its_domain_and_is_told_once(keys, caplog):
    files = loaded(keys)
    put(keys / "example.org/s1.pem", b"half a key")
    put(keys / "example.net/x.pem", PEMS[1])
    assert change(files)  # the other domain is taken
    assert signers(files) == ["s1 example.org"]
    assert files.value.keys.find(b"example.org", b"s1").key.pem() == PEMS[0]
    assert signers(files, "u@example.net") == ["x example.net"]
    assert [files.poll() for _ in range(3)] == [False] * 3
    (line,) = [record.getMessage() for record in caplog.records if record.levelname == "ERROR"]
    assert line.startswith(f"{keys}/example.org/s1.pem: is not a private key")
    assert line.endswith("; what was in force before stays")
    put(keys / "example.org/s1.pem", PEMS[2])
    assert change(files)
    assert files.value.keys.find(b"example.org", b"s1").key.pem() == PEMS[2]


@pytest.mark.parametrize("active", [b"s9\n", b"s1\ns2\n", b"\xff\n"])
def test_a_bad_active_leaves_the_old_one(keys, caplog, active):
    put(keys / "example.org/s2.pem", PEMS[1])
    put(keys / "example.org/active", b"s2\n")
    files = loaded(keys)
    put(keys / "example.org/active", active)
    assert not change(files)
    assert signers(files) == ["s2 example.org"]
    assert f"{keys}/example.org/active: line" in caplog.text


def test_a_new_domain_that_is_bad_is_left_out_until_it_is_mended(keys, caplog):
    files = loaded(keys)
    put(keys / "example.net/x.pem", PEMS[1], 0o644)
    assert not change(files)
    assert "chmod 0640" in caplog.text
    assert signers(files, "u@example.net") == []
    (keys / "example.net/x.pem").chmod(0o640)
    assert change(files)
    assert signers(files, "u@example.net") == ["x example.net"]


def test_two_directories_of_one_domain_leave_what_was(keys, caplog):
    put(keys / "bücher.example/s1.pem", PEMS[1])
    files = loaded(keys)
    put(keys / "xn--bcher-kva.example/s2.pem", PEMS[2])
    assert not change(files)
    assert signers(files, "u@bücher.example") == ["s1 xn--bcher-kva.example"]
    assert "is the same domain as" in caplog.text
    shutil.rmtree(keys / "xn--bcher-kva.example")
    change(files)
    assert signers(files, "u@bücher.example") == ["s1 xn--bcher-kva.example"]


def test_several_keys_without_active_are_warned_of_once(keys, caplog):
    put(keys / "example.org/a1.pem", PEMS[1])
    files = loaded(keys)
    put(keys / "example.net/x.pem", PEMS[2])
    assert change(files)
    (line,) = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert line.startswith(f'{keys}/example.org: has 2 keys and no file active, so "a1" signs')


def test_a_directory_that_becomes_unreadable_leaves_what_was_and_is_told_once(keys, caplog):
    files = loaded(keys)
    shutil.move(keys, keys.parent / "away")
    keys.write_text("a file\n")
    assert [files.poll() for _ in range(4)] == [False] * 4
    assert signers(files) == ["s1 example.org"]
    (line,) = [record.getMessage() for record in caplog.records]
    assert line == (
        f"{keys}: cannot be listed (Not a directory), would be right: a directory; what was in force before stays"
    )


# Modes.


@pytest.mark.parametrize("mode", [0o644, 0o604, 0o602, 0o601, 0o660, 0o620, 0o666])
def test_a_key_that_others_may_read_is_refused(keys, mode):
    path = keys / "example.org/s1.pem"
    path.chmod(mode)
    (line,) = faults_of(keys)
    assert line.startswith(f"{path}: has mode {mode:04o}, so others may read it or its group may write it")
    assert line.endswith(f"would be right: chmod 0640 {path}")


@pytest.mark.parametrize("mode", [0o600, 0o400, 0o640, 0o440])
def test_a_key_that_only_its_group_may_read_is_good(keys, mode):
    (keys / "example.org/s1.pem").chmod(mode)
    assert signers(loaded(keys)) == ["s1 example.org"]


def test_the_file_active_is_no_secret(keys):
    put(keys / "example.org/active", b"s1\n", 0o644)
    assert signers(loaded(keys)) == ["s1 example.org"]


def test_all_faults_are_told_at_once(keys):
    put(keys / "example.org/s2.pem", PEMS[1], 0o644)
    put(keys / "example.net/s1.pem", b"x")
    put(keys / "exa mple/s1.pem", PEMS[1])
    put(keys.parent / "signing_table", b"x\n")
    put(keys.parent / "login_table", b"x\n")
    assert [line.partition(": ")[0] for line in faults_of(keys)] == [
        f"{keys.parent}/signing_table",
        f"{keys.parent}/login_table",
        f"{keys}/exa mple",
        f"{keys}/example.net/s1.pem",
        f"{keys}/example.org/s2.pem",
    ]


def test_a_key_that_is_no_file_does_not_hang(keys):
    os.mkfifo(keys / "example.org/s2.pem", 0o600)
    (keys / "example.org/s3.pem").symlink_to("nowhere")
    (keys / "example.org/s4.pem").mkdir()
    signal.alarm(10)  # ends the run
    lines = faults_of(keys)
    signal.alarm(0)
    assert [line.removeprefix(f"{keys}/example.org/").partition(",")[0] for line in lines] == [
        "s2.pem: is no regular file",
        "s3.pem: does not exist",
        "s4.pem: cannot be read (Is a directory)",
    ]


@contextlib.contextmanager
def as_nobody():
    """Be another user for a while."""
    if os.geteuid() != 0:
        pytest.skip("only root can become another user")
    groups = os.getgroups()
    os.setgroups([])
    os.setresgid(NOBODY, NOBODY, 0)
    os.setresuid(NOBODY, NOBODY, 0)
    try:
        yield
    finally:
        os.setresuid(0, 0, 0)
        os.setresgid(0, 0, 0)
        os.setgroups(groups)


@pytest.fixture
def open_keys():
    """Give a key directory on a way that is open to everybody, unlike tmp_path."""
    with new_directory() as directory:
        keys = directory / "dkim"
        put(keys / "example.org/s1.pem", PEMS[0])
        for each in (keys, keys / "example.org"):
            each.chmod(0o755)
        yield keys


@pytest.mark.parametrize(
    ("closed", "mode", "hint"),
    [
        ("", 0o700, "chown root:{group} {keys} && chmod 0750 {keys}"),
        ("", 0o711, "chmod 0750 {keys}"),
        ("example.org", 0o700, "chown root:{group} {keys}/example.org && chmod 0750 {keys}/example.org"),
        ("example.org", 0o711, "chmod 0750 {keys}/example.org"),
        (
            "example.org/s1.pem",
            0o600,
            "chown root:{group} {keys}/example.org/s1.pem && chmod 0640 {keys}/example.org/s1.pem",
        ),
    ],
)
def test_what_may_not_be_read_says_what_mends_it(open_keys, closed, mode, hint):
    (open_keys / "lost+found").mkdir(mode=0o700)
    (open_keys / closed).chmod(mode)
    with as_nobody():
        (line,) = faults_of(open_keys)
    assert "(Permission denied), would be right: " in line
    assert line.endswith(": " + hint.format(keys=open_keys, group=grp.getgrgid(NOBODY).gr_name))


# The tables.


def test_keys_that_the_signing_table_names_are_watched(keys, tmp_path, caplog):
    pem = put(tmp_path / "esp.pem", PEMS[1])
    put(tmp_path / "signing_table", f"k esp.example:e:{pem}\nnews@example.org k\n".encode())
    files = loaded(keys)
    assert signers(files, "news@example.org") == ["e esp.example"]
    assert not files.poll()
    put(pem, PEMS[2])
    assert change(files)
    assert files.value.choose(Address(b"news", b"example.org")).signers[0].key.pem() == PEMS[2]
    put(pem, PEMS[3], 0o644)
    change(files)
    assert files.value.choose(Address(b"news", b"example.org")).signers[0].key.pem() == PEMS[2]
    assert f"{pem}: has mode 0644" in caplog.text


def test_a_new_signing_table_with_its_keys_is_taken(keys, tmp_path):
    table = put(tmp_path / "signing_table", b"")
    files = loaded(keys)
    pem = put(tmp_path / "esp.pem", PEMS[1])
    put(table, f"k esp.example:e:{pem}\nnews@example.org k\n".encode())
    assert change(files)
    assert signers(files, "news@example.org") == ["e esp.example"]
    put(table, b"news@example.org s2._domainkey.example.org\n")
    assert not change(files)  # there is no such key yet
    assert signers(files, "news@example.org") == ["e esp.example"]
    put(keys / "example.org/s2.pem", PEMS[2])
    put(keys / "example.org/active", b"s1\n")
    assert change(files)
    assert signers(files, "news@example.org") == ["s2 example.org"]
    assert signers(files) == ["s1 example.org"]


def test_percent_in_a_path_finds_the_file_of_each_domain(keys, tmp_path):
    put(tmp_path / "signing_table", f"k %:mail:{tmp_path}/od/%/mail.private\n* k\n".encode())
    put(tmp_path / "od/example.net/mail.private", PEMS[1])
    put(tmp_path / "od/README/mail.private.txt", b"x", 0o644)
    put(tmp_path / "od/not a domain/mail.private", b"x", 0o644)
    files = loaded(keys)
    assert signers(files, "u@example.net") == ["mail example.net"]
    assert signers(files, "u@example.com") == []
    put(tmp_path / "od/example.com/mail.private", PEMS[2])
    assert change(files)
    assert signers(files, "u@example.com") == ["mail example.com"]


def test_a_missing_key_of_the_signing_table_is_a_fault(keys, tmp_path):
    put(tmp_path / "signing_table", f"k esp.example:e:{tmp_path}/none.pem\nnews@example.org k\n".encode())
    assert faults_of(keys) == [f"{tmp_path}/none.pem: does not exist"]


def test_a_missing_table_is_a_fault(keys, tmp_path):
    table = put(tmp_path / "login_table", b"")
    given = parameters(keys)
    table.unlink()
    with pytest.raises(ConfigError) as caught:
        KeyFiles(given).load()
    assert caught.value.lines() == [f"{table}: does not exist"]


def test_a_changed_login_table_is_taken_and_a_bad_one_is_not(keys, tmp_path, caplog):
    table = put(tmp_path / "login_table", b"alice alice@example.org\n")
    files = loaded(keys)
    assert files.value.logins.allows(b"alice", Address(b"bob", b"example.org")) is False
    put(table, b"alice *\n")
    assert change(files)
    assert files.value.logins.allows(b"alice", Address(b"bob", b"example.org")) is True
    put(table, b"alice\n")
    assert not change(files)
    assert files.value.logins.allows(b"alice", Address(b"bob", b"example.org")) is True
    assert "stands alone" in caplog.text


# For srsctl.


def test_one_domain(keys):
    put(keys / "example.org/active", b"nonsense\n")
    assert [each.selector for each in read_domain(f"{keys}/example.org", with_active=False).keys] == [b"s1"]
    with pytest.raises(ConfigError):
        read_domain(f"{keys}/example.org")
    assert read_domain(f"{keys}/none.example").keys == ()


def test_the_directory_of_a_domain_is_found_however_it_is_written(keys):
    put(keys / "Bücher.example/s1.pem", PEMS[1])
    assert find_domain_directory(str(keys), b"xn--bcher-kva.example") == f"{keys}/Bücher.example"
    assert find_domain_directory(str(keys), b"new.example") == f"{keys}/new.example"
    assert find_domain_directory(f"{keys}/none", b"new.example") == f"{keys}/none/new.example"


def test_five_hundred_domains_are_looked_at_in_a_few_milliseconds(tmp_path):
    for number in range(500):
        put(tmp_path / f"dkim/d{number}.example/s1.pem", PEMS[0])
    files = loaded(tmp_path / "dkim")
    times = []
    for _ in range(5):
        begin = os.times()
        assert not files.poll()
        end = os.times()
        times.append(end.user + end.system - begin.user - begin.system)
    assert min(times) < 0.05
    assert len(list_key_directory(str(tmp_path / "dkim"))) == 500
