"""secrets.json: since when each secret is known."""

from __future__ import annotations

import json
import logging
import os
import stat
from datetime import UTC, datetime, timedelta

import pytest

from srsd.daemon.rotation_file import write_rotation
from srsd.daemon.secret_ages import describe_secrets, note_secrets, read_secret_ages
from srsd.rotation import RotationState

MONDAY = datetime(2026, 11, 23, 8, 30, tzinfo=UTC)
TUESDAY = MONDAY + timedelta(days=1)
BAD_RECORDS = [b"", b"{", b"[]", b"1", b"null", b"{}", b'{"secrets": []}', b'{"secrets": {"a": {}}}',
               b'{"secrets": {"a": 1}}', b'{"secrets": {"a": {"first_seen": "Monday"}}}',
               b'{"secrets": {"a": {"first_seen": 1}}}', b"\xff"]  # fmt: skip


@pytest.fixture
def directory(tmp_path):
    return str(tmp_path)


@pytest.fixture
def record(tmp_path):
    return tmp_path / "secrets.json"


def test_without_a_record_nothing_is_known(directory):
    assert read_secret_ages(directory) == {}


def test_new_secrets_are_noted_and_known_ones_keep_their_moment(directory):
    note_secrets(directory, ["aaaa"], MONDAY)
    assert read_secret_ages(directory) == {"aaaa": MONDAY}
    note_secrets(directory, ["bbbb", "aaaa"], TUESDAY)
    assert read_secret_ages(directory) == {"aaaa": MONDAY, "bbbb": TUESDAY}
    note_secrets(directory, ["bbbb"], TUESDAY + timedelta(days=1))
    assert read_secret_ages(directory) == {"aaaa": MONDAY, "bbbb": TUESDAY}  # it may come back


def test_the_record_is_not_written_without_need(directory, record):
    note_secrets(directory, ["aaaa"], MONDAY)
    before = record.stat()
    note_secrets(directory, ["aaaa"], TUESDAY)
    after = record.stat()
    assert (before.st_ino, before.st_mtime_ns) == (after.st_ino, after.st_mtime_ns)


def test_the_record_is_json_by_fingerprint_and_not_for_others(directory, record):
    note_secrets(directory, ["aaaa"], MONDAY)
    assert json.loads(record.read_text()) == {
        "secrets": {"aaaa": {"first_seen": "2026-11-23T08:30:00+00:00"}}
    }
    assert stat.S_IMODE(record.stat().st_mode) == 0o640
    assert os.listdir(directory) == ["secrets.json"]  # nothing half-written stays


def test_without_a_clock_given_now_is_noted(directory):
    before = datetime.now(UTC).replace(microsecond=0)
    note_secrets(directory, ["aaaa"])
    assert before <= read_secret_ages(directory)["aaaa"] <= datetime.now(UTC)


@pytest.mark.parametrize("text", BAD_RECORDS)
def test_a_damaged_record_is_told_and_stays(directory, record, text, caplog):
    record.write_bytes(text)
    with pytest.raises(ValueError):  # noqa: PT011 - json, codecs and datetime each say it their way
        read_secret_ages(directory)
    note_secrets(directory, ["aaaa"], MONDAY)
    assert record.read_bytes() == text
    (state,) = describe_secrets(directory, ["aaaa"])
    assert (state["first_seen"], state["age_days"]) == (None, None)
    assert [entry.levelno for entry in caplog.records] == [logging.WARNING] * 2
    assert caplog.records[0].getMessage().startswith(f"{record}: the ages of secrets cannot be kept there (")


def test_a_directory_that_is_missing_stops_nothing(tmp_path, caplog):
    note_secrets(str(tmp_path / "absent"), ["aaaa"], MONDAY)
    (entry,) = caplog.records
    assert entry.levelno == logging.WARNING
    assert "mail is not affected; make it a directory that srsd may write to" in entry.getMessage()


def test_secrets_are_described_in_the_order_of_the_file(directory):
    now = datetime.now(UTC)
    note_secrets(directory, ["bbbb"], now - timedelta(days=3, hours=1))
    write_rotation(directory, RotationState(waiting={"cccc": MONDAY}, retired={"dddd": TUESDAY}))
    states = describe_secrets(directory, ["aaaa", "bbbb", "cccc", "dddd"])
    assert [(state["fingerprint"], state["role"], state["age_days"]) for state in states] == [
        ("aaaa", "signs and verifies", None),
        ("bbbb", "verifies", 3),
        ("cccc", "verifies, waits to sign since 2026-11-23 08:30 UTC", None),
        ("dddd", "verifies, retired 2026-11-24 08:30 UTC", None),
    ]
    assert [state["first_seen"] is None for state in states] == [True, False, True, True]


def test_the_first_secret_signs_whatever_the_rotation_says(directory):
    write_rotation(directory, RotationState(waiting={"aaaa": MONDAY}, retired={"aaaa": MONDAY}))
    assert describe_secrets(directory, ["aaaa"])[0]["role"] == "signs and verifies"


@pytest.mark.parametrize("text", [b"{", b"[]", b"{}", b'{"waiting": {}, "retired": []}', b"\xff"])
def test_a_damaged_rotation_is_told_and_the_ages_are_given(directory, tmp_path, text, caplog):
    note_secrets(directory, ["aaaa"], MONDAY)
    (tmp_path / "rotation.json").write_bytes(text)
    states = describe_secrets(directory, ["aaaa", "bbbb"])
    assert [state["role"] for state in states] == ["signs and verifies", "verifies"]
    assert states[0]["first_seen"] == MONDAY.isoformat()
    assert len(caplog.records) == 1


def test_a_moment_without_a_zone_does_no_harm(directory, record):
    record.write_text('{"secrets": {"aaaa": {"first_seen": "2026-11-23T08:30:00"}}}')
    assert describe_secrets(directory, ["aaaa"])[0]["fingerprint"] == "aaaa"
