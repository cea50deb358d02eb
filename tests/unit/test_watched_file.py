"""Files that are read again when they change, and what happens to a bad new version."""

from __future__ import annotations

import logging
import os
import signal

import pytest

from srsd.daemon.watched_file import WatchedFile, unreadable
from srsd.errors import ConfigError, Fault


def parse(text: bytes) -> bytes:
    if b"bad" in text:
        raise ConfigError([Fault("line 1", "is bad"), Fault("line 2", "is worse")])
    if b"wrong" in text:
        raise ValueError("is wrong")
    return text.upper()


@pytest.fixture
def path(tmp_path):
    return tmp_path / "file"


@pytest.fixture
def watched(path):
    path.write_bytes(b"one")
    watched = WatchedFile(str(path), parse)
    watched.load()
    return watched


def poll_twice(watched: WatchedFile[bytes]) -> list[bool]:
    return [watched.poll(), watched.poll()]


def fault_of(watched: WatchedFile[bytes]) -> str:
    with pytest.raises(ConfigError) as caught:
        watched.load()
    (line,) = caught.value.lines()
    return line


def test_a_file_is_loaded(watched):
    assert (watched.value, watched.text) == (b"ONE", b"one")
    assert [watched.poll() for _ in range(3)] == [False] * 3


def test_a_change_is_taken_once_it_stands_still(watched, path, caplog):
    caplog.set_level(logging.INFO)
    path.write_bytes(b"two, first half")
    assert not watched.poll()
    path.write_bytes(b"two, first half and the second")
    assert not watched.poll()  # it changed again since the last look
    assert watched.value == b"ONE"
    assert watched.poll()
    assert (watched.value, watched.text) == (
        b"TWO, FIRST HALF AND THE SECOND",
        b"two, first half and the second",
    )
    assert [watched.poll() for _ in range(3)] == [False] * 3
    assert [record.getMessage() for record in caplog.records] == [f"{path}: read again after a change"]


def test_a_file_put_in_its_place_is_taken(watched, path, tmp_path):
    new = tmp_path / "new"
    new.write_bytes(b"two")
    times = os.stat(path)
    os.utime(
        new, ns=(times.st_atime_ns, times.st_mtime_ns)
    )  # same size, same time: another file all the same
    new.replace(path)
    assert poll_twice(watched) == [False, True]
    assert watched.value == b"TWO"


def test_a_change_that_is_undone_by_the_next_look_may_be_read_again_but_harms_nothing(watched, path):
    path.write_bytes(b"two")
    watched.poll()
    path.write_bytes(b"one")
    poll_twice(watched)
    assert watched.value == b"ONE"


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        (b"bad", ["{}: line 1: is bad; the version before it stays in force",
                  "{}: line 2: is worse; the version before it stays in force"]),
        (b"wrong", ["{}: is wrong; the version before it stays in force"]),
    ],
)  # fmt: skip
def test_a_bad_version_leaves_the_old_one_and_is_told_once(watched, path, caplog, text, lines):
    path.write_bytes(text)
    assert [watched.poll() for _ in range(5)] == [False] * 5
    assert (watched.value, watched.text) == (b"ONE", b"one")
    assert [(record.levelname, record.getMessage()) for record in caplog.records] == [
        ("ERROR", line.format(path)) for line in lines
    ]
    path.write_bytes(b"three")
    assert poll_twice(watched) == [False, True]
    assert watched.value == b"THREE"


def test_another_bad_version_is_told_again(watched, path, caplog):
    for text in (b"wrong", b"wrong too"):
        path.write_bytes(text)
        assert [watched.poll() for _ in range(3)] == [False] * 3
    assert len(caplog.records) == 2


def test_loading_a_bad_version_raises_and_keeps_the_old_one(watched, path):
    path.write_bytes(b"wrong")
    assert fault_of(watched) == f"{path}: is wrong"
    assert (watched.value, watched.text) == (b"ONE", b"one")


# Files that are not there ----------------------------------------------------------------------


def test_a_missing_file_is_a_fault(path):
    assert fault_of(WatchedFile(str(path), parse)).startswith(f"{path}: does not exist")


def test_a_file_that_may_be_absent_counts_as_empty(path):
    watched = WatchedFile(str(path), parse, may_be_absent=True)
    watched.load()
    assert (watched.value, watched.text) == (b"", b"")
    assert not watched.poll()
    path.write_bytes(b"one")
    assert poll_twice(watched) == [False, True]
    assert watched.value == b"ONE"


def test_the_removal_of_a_file_that_may_be_absent_empties_it(path, caplog):
    path.write_bytes(b"one")
    watched = WatchedFile(str(path), parse, may_be_absent=True)
    watched.load()
    path.unlink()
    assert [watched.poll() for _ in range(3)] == [False, True, False]
    assert watched.value == b""
    assert [(record.levelname, record.getMessage()) for record in caplog.records] == [
        ("WARNING", f"{path}: was removed, so it counts as empty")
    ]


def test_the_removal_of_a_file_that_must_be_there_keeps_its_last_version(watched, path, caplog):
    path.unlink()
    assert [watched.poll() for _ in range(4)] == [False] * 4
    assert watched.value == b"ONE"
    assert [record.getMessage() for record in caplog.records] == [
        f"{path}: does not exist; the version before it stays in force"
    ]
    path.write_bytes(b"two")
    assert poll_twice(watched) == [False, True]
    assert watched.value == b"TWO"


def test_a_file_missing_for_one_look_only_is_never_gone(path, caplog):
    path.write_bytes(b"one")
    watched = WatchedFile(str(path), parse, may_be_absent=True)
    watched.load()
    text = path.read_bytes()
    path.unlink()
    watched.poll()
    path.write_bytes(text)
    poll_twice(watched)
    assert watched.value == b"ONE"
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


def test_what_cannot_be_read_says_why(tmp_path):
    assert fault_of(WatchedFile(str(tmp_path), parse)) == f"{tmp_path}: cannot be read (Is a directory)"
    below = tmp_path / "file" / "below"
    below.parent.touch()
    assert fault_of(WatchedFile(str(below), parse)) == f"{below}: cannot be read (Not a directory)"


def test_a_fifo_is_refused_and_not_waited_for(path):
    os.mkfifo(path)

    def hangs(*_: object) -> None:
        raise TimeoutError("the FIFO was waited for")

    former = signal.signal(signal.SIGALRM, hangs)
    signal.setitimer(signal.ITIMER_REAL, 5)
    try:
        assert fault_of(WatchedFile(str(path), parse)).startswith(f"{path}: is no regular file, would be")
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, former)


def test_a_name_that_no_file_can_have_is_a_fault(tmp_path):
    assert "\\x00" in fault_of(WatchedFile(f"{tmp_path}/a\0b", parse))


def test_what_may_not_be_read_is_told_with_the_command_that_mends_it():
    fault = unreadable("/etc/srsd/x", PermissionError(13, "Permission denied"))
    assert fault.text.startswith("cannot be read (Permission denied), would be right: chown root:")
    assert fault.text.endswith("/etc/srsd/x && chmod 0640 /etc/srsd/x")


def test_a_file_larger_than_any_that_is_meant_is_refused(path):
    with path.open("wb") as file:
        file.truncate(64 * 1024 * 1024 + 1)
    assert fault_of(WatchedFile(str(path), len)) == f"{path}: has more than {64 * 1024 * 1024} octets"


# Modes of files of secrets ---------------------------------------------------------------------


@pytest.mark.parametrize("mode", [0o600, 0o640, 0o400, 0o440, 0o700, 0o750])
def test_good_modes_of_a_file_of_secrets(path, mode):
    path.write_bytes(b"one")
    path.chmod(mode)
    watched = WatchedFile(str(path), parse, private=True)
    watched.load()
    assert watched.value == b"ONE"


@pytest.mark.parametrize("mode", [0o644, 0o604, 0o602, 0o601, 0o660, 0o620, 0o666, 0o777])
def test_a_file_of_secrets_open_to_others_is_refused_with_the_command_that_mends_it(path, mode):
    path.write_bytes(b"one")
    path.chmod(mode)
    assert fault_of(WatchedFile(str(path), parse, private=True)) == (
        f"{path}: has mode {mode:04o}, so others may read it or its group may write it, "
        f"would be right: chmod 0640 {path}"
    )
    WatchedFile(str(path), parse).load()  # any mode will do for what is no secret


def test_a_chmod_alone_is_seen_and_mends(path, caplog):
    path.write_bytes(b"one")
    path.chmod(0o600)
    watched = WatchedFile(str(path), parse, private=True)
    watched.load()
    path.write_bytes(b"two")
    path.chmod(0o644)
    assert [watched.poll() for _ in range(4)] == [False] * 4
    assert watched.value == b"ONE"
    assert len(caplog.records) == 1
    path.chmod(0o640)
    assert poll_twice(watched) == [False, True]
    assert watched.value == b"TWO"
