"""The store as the event loop sees it: nothing waits but who asked, and trouble is said once."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest

from srsd.address_store import StoreError
from srsd.daemon import store_thread
from srsd.daemon.address_file import AddressFile, Entry
from srsd.daemon.counters import Counters
from srsd.daemon.files import address_file_path
from srsd.daemon.store_thread import StoreThread

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Coroutine

DAY = 20780


def run(work: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(work, 20))


@pytest.fixture
def path(tmp_path) -> str:
    return address_file_path(str(tmp_path))


@contextlib.asynccontextmanager
async def store_at(path: str, megabytes: int = 10) -> AsyncIterator[StoreThread]:
    store = StoreThread(path, megabytes, Counters())
    try:
        yield store
    finally:
        await store.close()


def events(store: StoreThread) -> dict[str, int]:
    return {
        kind: count for what, kind, count in store._counters.snapshot()["events"] if what == "address_store"
    }


def test_there_and_back_and_counted(path):
    async def work() -> None:
        async with store_at(path) as store:
            await store.keep(b"t", b"a@b", DAY)
            assert await store.recall(b"t") == b"a@b"
            assert await store.recall(b"u") is None
            assert events(store) == {"kept": 1, "recalled": 1, "unknown": 1}
            assert store.snapshot()["addresses"] == 1
        assert os.listdir(os.path.dirname(path)) == ["addresses.sqlite"]

    run(work())


def test_what_is_asked_at_the_same_time_is_written_in_one_go(path, monkeypatch):
    batches = []
    keep = AddressFile.keep
    first = threading.Event()

    def slow(self: AddressFile, entries: list[Entry]) -> bool:
        batches.append(len(entries))
        first.wait(5)
        return keep(self, entries)

    monkeypatch.setattr(AddressFile, "keep", slow)

    async def work() -> None:
        async with store_at(path) as store:
            waiting = [asyncio.create_task(store.keep(b"%d" % (n % 50), b"a@b", DAY)) for n in range(100)]
            while not batches:
                await asyncio.sleep(0.01)
            first.set()
            await asyncio.gather(*waiting)

    run(work())
    assert len(batches) <= 2
    assert max(batches) <= 50  # the same question twice is one


def test_the_loop_goes_on_while_the_disk_hangs_and_who_asks_is_told(path, monkeypatch, caplog):
    goes_on = threading.Event()
    monkeypatch.setattr(AddressFile, "keep", lambda *_: goes_on.wait(10))
    monkeypatch.setattr(store_thread, "_ANSWER_SECONDS", 0.2)

    async def work() -> None:
        async with store_at(path) as store:
            begin = time.monotonic()
            asked = asyncio.create_task(store.keep(b"t", b"a@b", DAY))
            await asyncio.sleep(0.01)
            assert time.monotonic() - begin < 0.2
            with pytest.raises(StoreError, match="has not answered"):
                await asked
            assert store.snapshot()["failing"] == 1
            goes_on.set()

    run(work())
    assert "has not answered" in caplog.text


def test_a_disk_that_hangs_does_not_keep_srsd_from_ending(path, monkeypatch):
    goes_on = threading.Event()
    monkeypatch.setattr(AddressFile, "keep", lambda *_: goes_on.wait(10))
    monkeypatch.setattr(store_thread, "_END_SECONDS", 0.2)

    async def work() -> None:
        store = StoreThread(path, 1, Counters())
        asked = asyncio.create_task(store.keep(b"t", b"a@b", DAY))
        await asyncio.sleep(0.05)
        await store.close()
        asked.cancel()

    try:
        run(work())
    finally:
        goes_on.set()


def test_questions_that_wait_are_bounded(path, monkeypatch):
    goes_on = threading.Event()
    monkeypatch.setattr(AddressFile, "recall", lambda *_: goes_on.wait(10) and None)
    monkeypatch.setattr(store_thread, "_WAITING_MAXIMUM", 10)

    async def work() -> None:
        async with store_at(path) as store:
            waiting = [asyncio.create_task(store.recall(b"t")) for _ in range(10)]
            await asyncio.sleep(0.05)
            with pytest.raises(StoreError, match="too many"):
                await store.recall(b"t")
            goes_on.set()
            await asyncio.gather(*waiting)
            assert await store.recall(b"t") is None

    run(work())


def test_who_leaves_while_waiting_takes_nobody_along(path):
    async def work() -> None:
        async with store_at(path) as store:
            waiting = [asyncio.create_task(store.keep(b"%d" % n, b"a@b", DAY)) for n in range(20)]
            await asyncio.sleep(0)
            for task in waiting[::2]:
                task.cancel()
            done = await asyncio.gather(*waiting, return_exceptions=True)
            assert done[1::2] == [None] * 10
            assert await store.recall(b"1") == b"a@b"

    run(work())


def test_trouble_is_said_once_and_its_end_too(path, caplog):
    caplog.set_level(logging.INFO)

    async def work() -> None:
        directory = os.path.dirname(path)
        async with store_at(path) as store:
            await store.keep(b"t", b"a@b", DAY)
            os.rename(directory, directory + ".away")
            for _ in range(5):
                with pytest.raises(StoreError):
                    await store.keep(b"u", b"a@b", DAY)
            assert store.snapshot()["failing"] == 1
            os.rename(directory + ".away", directory)
            store.look()
            assert await store.recall(b"t") == b"a@b"
            while store.snapshot()["failing"]:
                await asyncio.sleep(0.01)
            assert events(store)["failed"] == 5

    run(work())
    said = [record.levelname for record in caplog.records if "wait" in record.getMessage()]
    assert said == ["ERROR"]
    assert caplog.text.count("works again") == 1


def test_a_bug_of_ours_costs_one_answer(path, monkeypatch, caplog):
    recall = AddressFile.recall

    def faulty(self: AddressFile, token: bytes) -> bytes | None:
        if token == b"bug":
            raise ZeroDivisionError
        return recall(self, token)

    monkeypatch.setattr(AddressFile, "recall", faulty)

    async def work() -> None:
        async with store_at(path) as store:
            await store.keep(b"t", b"a@b", DAY)
            with pytest.raises(StoreError):
                await store.recall(b"bug")
            assert await store.recall(b"t") == b"a@b"

    run(work())
    assert "a bug in srsd" in caplog.text


def test_expiry_goes_on_beside_questions(path):
    async def work() -> None:
        with AddressFile(path, 10) as file:
            file.keep([Entry(b"%d" % n, b"a@b", DAY) for n in range(5000)])
        async with store_at(path) as store:
            store.expire(DAY + 1)
            await store.keep(b"t", b"a@b", DAY + 1)
            while store.snapshot()["addresses"] != 1:
                await asyncio.sleep(0.01)
            assert await store.recall(b"t") == b"a@b"

    run(work())


def test_more_room_is_taken_at_once(path):
    async def work() -> None:
        async with store_at(path, 1) as store:
            with pytest.raises(StoreError, match="store_size"):
                for begin in range(0, 100_000, 500):
                    await asyncio.gather(
                        *(store.keep(b"%09d" % n, b"a" * 90, DAY) for n in range(begin, begin + 500))
                    )
            store.megabytes = 2
            await store.keep(b"one more", b"a" * 90, DAY)
            assert store.snapshot()["maximum_octets"] == 2_000_000

    run(work())
