"""The file of stored addresses: what is in it, how it ends, who else may use it."""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing

import pytest

from srsd.address_store import StoreError
from srsd.daemon.address_file import (
    AddressFile,
    Entry,
    UnusableFileError,
    check_address_file,
)
from srsd.daemon.files import address_file_path

DAY = 20780


def entry(number: int, expires: int = DAY, address: bytes = b"") -> Entry:
    return Entry(b"token %010d" % number, address or b"user%d@example.com" % number, expires)


@pytest.fixture
def path(tmp_path) -> str:
    return address_file_path(str(tmp_path))


@pytest.fixture
def file(path):
    with AddressFile(path, 10) as file:
        yield file


def test_what_is_kept_is_there_for_everybody(file, path):
    assert file.keep([entry(1), entry(2)])
    with AddressFile(path, 10) as other, AddressFile(path, read_only=True) as reader:
        for each in (file, other, reader):
            assert each.recall(entry(1).token) == b"user1@example.com"
            assert each.recall(entry(3).token) is None
            assert each.size().addresses == 2


def test_what_is_there_already_is_not_written_again(file):
    assert file.keep([entry(1)])
    assert not file.keep([entry(1)])
    assert not file.keep([entry(1, DAY - 1)])
    assert file.keep([entry(1), entry(2)])
    assert file.size().addresses == 2


def test_who_is_needed_for_longer_stays_for_longer(file):
    file.keep([entry(1, DAY), entry(2, DAY)])
    assert file.keep([entry(1, DAY + 5)])
    assert not file.keep([entry(1, DAY + 1)])
    assert file.expire(DAY) == 0  # the last day counts
    assert file.expire(DAY + 1) == 1
    assert file.recall(entry(1).token)
    assert file.recall(entry(2).token) is None
    assert file.expire(DAY + 5) == 0
    assert file.expire(DAY + 6) == 1
    assert file.size().addresses == 0


def test_expiry_takes_steps_and_its_room_is_used_again(file):
    def fill(begin: int, expires: int) -> None:
        file.keep([entry(number, expires) for number in range(begin, begin + 2500)])

    fill(0, DAY)
    size = file.size()
    steps = []
    while removed := file.expire(DAY + 1):
        steps.append(removed)
    assert steps == [1000, 1000, 500]
    assert file.size().octets < size.octets / 5
    for begin in range(1, 4):
        fill(begin * 2500, DAY + begin)
        while file.expire(DAY + begin + 1):
            pass
    assert os.path.getsize(file.path) <= size.octets * 1.2


def test_it_is_for_its_owner_alone(file, path):
    file.keep([entry(1)])
    for name in os.listdir(os.path.dirname(path)):
        assert os.stat(os.path.join(os.path.dirname(path), name)).st_mode & 0o777 == 0o600


def test_it_takes_no_more_than_it_may(path):
    with AddressFile(path, 1) as file:
        with pytest.raises(StoreError, match=r"more than 1 in srs\.store_size"):
            for number in range(0, 100_000, 100):
                file.keep([entry(each) for each in range(number, number + 100)])
        assert 3000 < file.size().addresses == number
        assert os.path.getsize(path) <= 1_000_000
        with pytest.raises(StoreError):
            file.probe()
        assert file.recall(entry(0).token)
        while file.expire(DAY + 1):
            pass
        file.probe()
        assert file.keep([entry(1)])


def test_a_probe_leaves_nothing(file):
    file.keep([entry(1)])
    file.probe()
    assert file.size().addresses == 1


def test_all_of_a_batch_or_nothing(path):
    with AddressFile(path, 1) as file:
        with pytest.raises(StoreError):
            file.keep([entry(number) for number in range(100_000)])
        assert file.size().addresses == 0


def test_a_name_that_leads_elsewhere_is_noticed(file, path):
    assert file.is_current()
    os.rename(path, path + ".away")
    assert not file.is_current()
    with AddressFile(path, 1) as other:
        assert other.is_current()
        assert not file.is_current()


def test_a_missing_file_is_only_made_by_who_writes(path):
    with pytest.raises(StoreError):
        AddressFile(path, read_only=True)
    assert not os.path.exists(path)


@pytest.mark.parametrize("directory", ["what's #1?", "100%25 & more", "ünï"])
def test_any_name_of_a_directory(tmp_path, directory):
    (tmp_path / directory).mkdir()
    path = address_file_path(str(tmp_path / directory))
    with AddressFile(path, 1) as file:
        file.keep([entry(1)])
    assert os.listdir(tmp_path / directory) == ["addresses.sqlite"]
    assert check_address_file(path) is None


def set_form(path: str, number: int) -> None:
    AddressFile(path, 1).close()
    with closing(sqlite3.connect(path)) as database:
        database.execute(f"PRAGMA user_version = {number}")
        database.commit()


@pytest.mark.parametrize("number", [0, 2])
def test_a_file_of_another_version_says_so(path, number):
    set_form(path, number)
    for read_only in (True, False):
        with pytest.raises(UnusableFileError, match=f"another version of srsd .form {number}, this version"):
            AddressFile(path, 1, read_only=read_only)
    assert "another version" in (check_address_file(path) or "")


@pytest.mark.parametrize("octets", [b"no database" * 500, b"SQLite format 3\0" + bytes(range(256)) * 40])
def test_what_is_no_database_is_left_alone(path, octets):
    with open(path, "wb") as file:
        file.write(octets)
    for read_only in (True, False):
        with pytest.raises(UnusableFileError, match="damaged"):
            AddressFile(path, 1, read_only=read_only)
    with open(path, "rb") as file:
        assert file.read() == octets
    assert "damaged" in (check_address_file(path) or "")


def test_a_database_of_something_else_is_left_alone(path):
    with closing(sqlite3.connect(path)) as database:
        database.execute("CREATE TABLE x (y)")
    with pytest.raises(UnusableFileError, match="something else"):
        AddressFile(path, 1)


def test_an_empty_file_is_a_new_one(path):
    with open(path, "wb"):
        pass
    assert check_address_file(path) is None
    with AddressFile(path, 1) as file:
        assert file.keep([entry(1)])


@pytest.mark.parametrize("name", ["nowhere/addresses.sqlite", "file/addresses.sqlite"])
def test_no_place_for_a_file(tmp_path, name):
    (tmp_path / "file").touch()
    path = str(tmp_path / name)
    assert "install -d" in (check_address_file(path) or "")
    with pytest.raises(StoreError, match="install -d"):
        AddressFile(path, 1)
