"""Stored addresses through the real srsd: there and back, and what happens to them when something breaks."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import socket
import sqlite3
import subprocess
import threading
import time
from typing import TYPE_CHECKING

import pytest

from harness.daemon import Srsd, run
from harness.running import (
    ALICE,
    SECRETS,
    SRS_DOMAIN,
    ask,
    ask_over,
    configure,
    connection_of_each,
    control,
    new_directory,
    open_connection,
    patched,
    running,
    until,
    workers,
)
from harness.wire_clients import SOCKETMAP, TCP_TABLE
from srsd.address_store import StoreError
from srsd.daemon.address_file import AddressFile, Entry
from srsd.srs import Keyring, Srs, SrsParameters
from srsd.syntax.address import parse_address

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

LONG = "u" * 60 + "@origin.example"
TOKEN = re.compile(rf"SRS0=([A-Za-z0-9_-]{{4}})=([A-Z2-7]{{2}})=_=([a-z2-7]{{16}})@{re.escape(SRS_DOMAIN)}")
AUTO = {"envelope": "auto"}


def long_sender(number: int) -> str:
    return f"{'v' * 50}{number}@origin{number % 7}.example"


def forward(srsd: Srsd, sender: str) -> str:
    reply = ask(srsd, "forward", sender)
    assert reply.startswith("200 "), reply
    return reply.removeprefix("200 ")


def reverse(srsd: Srsd, address: str) -> str:
    return ask(srsd, "reverse", address)


def store_of(srsd: Srsd) -> Path:
    """Give the file of the addresses, where the harness puts the state directory."""
    config = srsd.config.read_text()
    (line,) = re.findall(r'^state_directory = "(.+)"', config, re.MULTILINE)
    return type(srsd.config)(line) / "addresses.sqlite"


def put(config: Path, old: str, new: str) -> None:
    text = config.read_text()
    assert old in text
    config.write_text(text.replace(old, new))


@pytest.fixture(scope="module")
def auto() -> Iterator[Srsd]:
    with running(srs=AUTO) as srsd:
        yield srsd


# There and back --------------------------------------------------------------------------------


@pytest.mark.parametrize("wire", [TCP_TABLE, SOCKETMAP], ids=str)
def test_a_long_sender_goes_there_and_back(auto, wire):
    made = wire.ask(auto, "forward", LONG.encode())
    assert made.status == "found"
    assert TOKEN.fullmatch(made.text.decode()), made
    assert len(made.text.partition(b"@")[0]) <= 64
    back = wire.ask(auto, "reverse", made.text)
    assert (back.status, back.text) == ("found", LONG.encode())


def test_what_fits_is_embedded_and_asks_no_disk(auto):
    before = control(auto, "status")["counters"]["events"]
    assert "=origin.example=alice@" in forward(auto, ALICE)
    # The hash, the stamp and the domain take 14 octets and those of the domain.
    fits, exceeds = (f"{'w' * count}@origin.example" for count in (64 - 14 - 14, 64 - 14 - 14 + 1))
    assert len(forward(auto, fits).partition("@")[0]) == 64
    assert control(auto, "status")["counters"]["events"] == before
    assert TOKEN.fullmatch(forward(auto, exceeds))


def test_the_same_sender_has_the_same_token_and_is_stored_once(auto):
    sender = long_sender(1)
    first = forward(auto, sender)
    until(
        "count",
        lambda: ["address_store", "kept"] in [e[:2] for e in control(auto, "status")["counters"]["events"]],
    )
    with sqlite3.connect(store_of(auto)) as database:
        (before,) = database.execute("SELECT count(*) FROM addresses").fetchone()
        assert {forward(auto, sender) for _ in range(5)} == {first}
        assert database.execute("SELECT count(*) FROM addresses").fetchone() == (before,)
    database.close()


@pytest.mark.parametrize("fold", [str.lower, str.upper, str.swapcase])
def test_a_token_survives_the_folding_of_case(auto, fold):
    made = forward(auto, "MixedCase" * 8 + "@Origin.Example")
    assert reverse(auto, fold(made)) == "200 " + "MixedCase" * 8 + "@Origin.Example"


def test_quotes_and_octets_survive(auto):
    sender = '"' + "a b@c" * 15 + '\\""@origin.example'
    key = sender.replace(" ", "%20")
    made = forward(auto, key)
    assert TOKEN.fullmatch(made)
    assert reverse(auto, made) == f"200 {key}"


def test_the_store_takes_all_where_it_shall():
    with running(srs={"envelope": "stored"}) as srsd:
        made = forward(srsd, ALICE)
        assert TOKEN.fullmatch(made)
        assert "origin" not in made
        assert reverse(srsd, made) == f"200 {ALICE}"
        assert store_of(srsd).stat().st_mode & 0o777 == 0o600


def test_another_forwarder_sends_the_bounce_back(auto):
    """To it the address is SRS0 like any other, and its SRS1 fits too."""
    made = forward(auto, LONG).encode()
    other = Srs(SrsParameters(), Keyring([b"another forwarder's"]))
    today = int(time.time()) // 86400
    srs1 = other.forward(parse_address(made), today)
    assert srs1.startswith(b"SRS1=")
    assert len(srs1) <= 64
    back = bytes(other.reverse(srs1, today))
    assert back == made
    assert reverse(auto, back.decode()) == f"200 {LONG}"


@pytest.mark.parametrize(
    ("local_part", "first"),
    [
        ("SRS0=HHHH=TT=origin.example=" + "x" * 50, "mid.example"),
        ("SRS1=HHHH=first.example==HHHH=TT=origin.example=" + "x" * 50, "first.example"),
    ],
)
def test_a_long_address_of_another_forwarder_goes_back_to_the_first(auto, local_part, first):
    made = forward(auto, f"{local_part}@mid.example")
    assert TOKEN.fullmatch(made)
    assert reverse(auto, made) == f"200 SRS0=HHHH=TT=origin.example={'x' * 50}@{first}"


def test_our_own_stored_address_is_not_rewritten_again(auto):
    assert ask(auto, "forward", forward(auto, LONG)).startswith("500 already")


# Refused ---------------------------------------------------------------------------------------


def altered(text: str, at: int) -> str:
    other = "a" if text[at] not in "aA" else "b"
    return text[:at] + other + text[at + 1 :]


def test_forgeries_are_refused_before_the_disk_is_asked(auto):
    made = forward(auto, LONG)
    before = control(auto, "status")["counters"]["events"]
    local_part, _, domain = made.partition("@")
    for place in (5, 6, 7, 8, *range(len(local_part) - 16, len(local_part))):
        reply = reverse(auto, f"{altered(local_part, place)}@{domain}")
        assert reply == "500 hash%20invalid", place
    for cut in (local_part[:-1], local_part + "a", local_part[:-1] + "1"):
        assert reverse(auto, f"{cut}@{domain}") == "500 malformed%20SRS%20address"
    assert control(auto, "status")["counters"]["events"] == before


def test_a_good_token_is_refused_until_it_is_stored(auto):
    """Not for longer: its store may have been put back from a copy."""
    sender = "never" * 20 + "@seen.example"
    elsewhere = Srs(SrsParameters(), Keyring([SECRETS[0].encode()]))
    made = elsewhere.forward_stored(parse_address(sender.encode()), int(time.time()) // 86400)
    address = f"{made.local_part.decode()}@{SRS_DOMAIN}"
    for _ in range(2):
        assert reverse(auto, address) == "500 stored%20address%20unknown"
    assert forward(auto, sender) == address
    assert reverse(auto, address) == f"200 {sender}"


def test_a_sender_in_the_domain_of_the_mark_is_no_way_to_make_tokens(auto):
    assert ask(auto, "forward", "abcdefgh234567ab@_").startswith("500 domain%20cannot")


def test_age_ends_a_token_and_the_address_is_removed_while_srsd_runs():
    with new_directory() as directory:
        day = directory / "day"
        day.write_text(str(int(time.time()) // 86400))
        clock = (
            f"import srsd.daemon.service as service; service.today = lambda: int(open({str(day)!r}).read())"
        )
        with running(directory=directory, argv=patched(clock), srs={**AUTO, "maximum_age": 3}) as srsd:
            begin = int(day.read_text())
            made, other = forward(srsd, LONG), forward(srsd, long_sender(2))
            day.write_text(str(begin + 2))
            until("next day", lambda: forward(srsd, LONG) != made)  # the stamp; the token stays
            newer = forward(srsd, LONG)
            assert newer.split("=")[-1] == made.split("=")[-1]
            day.write_text(str(begin + 3))
            assert reverse(srsd, other).startswith("200 ")
            day.write_text(str(begin + 4))
            until("end of its age", lambda: reverse(srsd, made) == "500 address%20expired")
            assert reverse(srsd, other) == "500 address%20expired"
            assert reverse(srsd, newer) == f"200 {LONG}"
            until("removal", lambda: [address for (address,) in rows(srsd)] == [LONG])
            until("count", lambda: control(srsd, "status")["counters"]["store"]["addresses"] == 1, 15)


def rows(srsd: Srsd) -> list[tuple[str]]:
    with contextlib.closing(sqlite3.connect(store_of(srsd))) as database:
        return [(address.decode(),) for (address,) in database.execute("SELECT address FROM addresses")]


def test_tokens_survive_new_secrets_and_die_with_their_own():
    with running(srs=AUTO) as srsd:
        made = forward(srsd, LONG)
        secrets = srsd.config.with_name("srs.secrets")
        for text, reply in (
            ("brand-new-secret\n" + secrets.read_text(), f"200 {LONG}"),
            ("brand-new-secret\n", "500 hash%20invalid"),
        ):
            secrets.write_text(text)
            assert control(srsd, "reload") == {"faults": []}
            assert reverse(srsd, made) == reply
            newer = forward(srsd, LONG)
            assert newer != made
            assert reverse(srsd, newer) == f"200 {LONG}"


def test_what_was_stored_comes_back_after_the_key_was_changed():
    """Bounces take days; without a restart and with one."""
    with running(srs=AUTO) as srsd:
        made = forward(srsd, LONG)
        put(srsd.config, '"auto"', '"embedded"')
        assert control(srsd, "reload") == {"faults": []}
        assert "=origin.example=uuu" in forward(srsd, LONG)
        assert reverse(srsd, made) == f"200 {LONG}"
        assert srsd.terminate() == 0
        srsd.start()
        assert reverse(srsd, made) == f"200 {LONG}"


# Order -----------------------------------------------------------------------------------------


def test_replies_keep_their_order_however_long_some_take(auto):
    count = 300
    keys = [long_sender(1000 + n) if n % 3 == 0 else f"short{n}@origin.example" for n in range(count)]
    with open_connection(auto, "forward") as connection, connection.makefile("rb") as replies:
        connection.sendall("".join(f"get {key}\n" for key in keys).encode())
        made = [replies.readline().decode().split()[1] for _ in keys]
    for key, address in zip(keys, made, strict=True):
        assert bool(TOKEN.fullmatch(address)) is key.startswith("vvv")
        assert reverse(auto, address) == f"200 {key}"


def test_a_client_that_says_no_more_gets_its_reply(auto):
    with open_connection(auto, "forward") as connection, connection.makefile("rb") as replies:
        connection.sendall(f"get {long_sender(2001)}\nget {long_sender(2002)}\n".encode())
        connection.shutdown(socket.SHUT_WR)
        assert len(replies.read().splitlines()) == 2


def test_clients_that_leave_while_they_wait_cost_nothing(auto):
    for number in range(50):
        with open_connection(auto, "forward") as connection:
            connection.sendall(f"get {long_sender(3000 + number)}\n".encode() * 3)
    assert ask(auto, "forward", LONG).startswith("200 ")


def test_half_a_request_behind_one_that_waits(auto):
    with open_connection(auto, "forward") as connection, connection.makefile("rb") as replies:
        connection.sendall(f"get {long_sender(4001)}\nget {long_sender(4002)[:20]}".encode())
        assert replies.readline().startswith(b"200 ")
        connection.sendall(f"{long_sender(4002)[20:]}\n".encode())
        assert replies.readline().startswith(b"200 ")


# Processes -------------------------------------------------------------------------------------


def test_what_one_worker_stores_every_worker_knows():
    with running(workers=2, srs=AUTO) as srsd, contextlib.ExitStack() as stack:
        first, second = connection_of_each(srsd).values()
        back = connection_of_each(srsd, "reverse")
        for connection in (first, second, *back.values()):
            stack.enter_context(connection)
        for number, connection in enumerate([first, second] * 5):
            sender = long_sender(number)
            made = ask_over(connection, sender).removeprefix("200 ")
            for each in back.values():
                assert ask_over(each, made) == f"200 {sender}"
        until("count", lambda: control(srsd, "status")["counters"]["store"]["addresses"] == 10, 15)


def test_two_daemons_share_a_store():
    with new_directory() as directory, running(directory=directory, srs=AUTO) as first:
        state = store_of(first).parent
        with running(srs=AUTO, state_directory=str(state), workers=2) as second:
            made: dict[str, str] = {}

            def ask_all(srsd: Srsd, numbers: range) -> None:
                with open_connection(srsd, "forward") as connection:
                    for number in numbers:
                        sender = long_sender(number)
                        made[sender] = ask_over(connection, sender).removeprefix("200 ")

            threads = [
                threading.Thread(target=ask_all, args=(srsd, range(begin, begin + 200)))
                for srsd, begin in ((first, 0), (second, 150), (first, 300), (second, 450))
            ]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            assert len(made) == 650
            for srsd in (first, second):
                with open_connection(srsd, "reverse") as connection:
                    for sender, address in made.items():
                        assert ask_over(connection, address) == f"200 {sender}"


@pytest.mark.parametrize("number", [1, 2])
def test_kill_9_while_writing_loses_no_acknowledged_token(number):
    with new_directory() as directory, running(directory=directory, workers=number, srs=AUTO) as srsd:
        acknowledged: dict[str, str] = {}
        for attempt in range(3):
            clients = [
                threading.Thread(target=store_until_the_end, args=(srsd, attempt, each, acknowledged))
                for each in range(8)
            ]
            for client in clients:
                client.start()
            known = len(acknowledged)
            until("load", lambda known=known: len(acknowledged) > known + 200)
            processes = [srsd.pid, *workers(srsd)]
            for pid in processes:
                os.kill(pid, signal.SIGKILL)
            srsd.wait()
            for client in clients:
                client.join()
            srsd.start()
        with open_connection(srsd, "reverse") as connection:
            for sender, address in acknowledged.items():
                assert ask_over(connection, address) == f"200 {sender}"
        assert len(acknowledged) > 600


def store_until_the_end(srsd: Srsd, attempt: int, client: int, acknowledged: dict[str, str]) -> None:
    with contextlib.suppress(OSError, EOFError), open_connection(srsd, "forward") as connection:
        for number in range(100_000):
            sender = f"{'k' * 50}.{attempt}.{client}.{number}@origin.example"
            acknowledged[sender] = ask_over(connection, sender).removeprefix("200 ")


def test_sigterm_lets_what_waits_be_stored():
    with running(srs=AUTO) as srsd:
        with open_connection(srsd, "forward") as connection, connection.makefile("rb") as replies:
            with locked(store_of(srsd), srsd):
                connection.sendall(f"get {LONG}\nget {ALICE[:5]}".encode())
                assert ask(srsd, "forward", ALICE).startswith("200 ")  # so the other has arrived
                os.kill(srsd.pid, signal.SIGTERM)
                until("end of listening", lambda: not is_listening(srsd))
                assert srsd.returncode is None
            assert TOKEN.fullmatch(replies.readline().decode().split()[1])
            connection.sendall(f"{ALICE[5:]}\n".encode())
            assert replies.readline().startswith(b"200 ")
            assert replies.readline() == b""
        assert srsd.wait() == 0
        srsd.start()
        assert any(address == LONG for (address,) in rows(srsd))


def is_listening(srsd: Srsd) -> bool:
    try:
        open_connection(srsd, "forward").close()
    except ConnectionRefusedError:
        return False
    return True


# When the store does not work ------------------------------------------------------------------


@contextlib.contextmanager
def locked(path: Path, srsd: Srsd) -> Iterator[None]:
    """Have another process write all the time."""
    forward(srsd, long_sender(9999))  # so the file is there
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as database:
        database.execute("BEGIN IMMEDIATE")
        yield
        database.execute("ROLLBACK")


def check_that_it_waits(srsd: Srsd, reason: str) -> None:
    """Senders that must be stored are told to come again; the rest goes on."""
    assert ask(srsd, "forward", LONG) == "400 address%20store%20unavailable"
    asked = SOCKETMAP.ask(srsd, "forward", LONG.encode())
    assert (asked.status, asked.text) == ("temporary", b"address store unavailable")
    assert forward(srsd, ALICE)
    assert reverse(srsd, forward(srsd, ALICE)) == f"200 {ALICE}"
    assert reason in srsd.wait_for_log("until then senders that must be stored wait")


def fill(srsd: Srsd) -> int:
    """Store addresses until there is no room for any; return how many there are."""
    number = refused = 0
    with open_connection(srsd, "forward") as connection:
        while refused < 50:  # in a row: where one does not fit, a shorter one may, or one in another page
            refused = refused + 1 if ask_over(connection, long_sender(number)).startswith("400 ") else 0
            number += 1
            assert number < 20_000
    return number - refused


def check_that_it_works(srsd: Srsd) -> None:
    made = forward(srsd, LONG)
    assert reverse(srsd, made) == f"200 {LONG}"


def test_a_locked_store_delays_its_own_lookups_only():
    with running(srs=AUTO) as srsd:
        with locked(store_of(srsd), srsd), open_connection(srsd, "forward") as waits:
            begin = time.monotonic()
            waits.sendall(f"get {LONG}\n".encode())
            for number in range(200):
                assert forward(srsd, f"a{number}@origin.example")
            assert time.monotonic() - begin < 4  # the lock is waited for 5 s
            with waits.makefile("rb") as replies:
                assert replies.readline() == b"400 address%20store%20unavailable\n"
            assert time.monotonic() - begin > 4
            assert "locked by another process" in srsd.wait_for_log("addresses.sqlite: has been")
        check_that_it_works(srsd)


def test_a_state_directory_that_is_gone_and_comes_back():
    with running(srs=AUTO) as srsd:
        made = forward(srsd, long_sender(1))
        state = store_of(srsd).parent
        away = state.with_name("away")
        state.rename(away)
        check_that_it_waits(srsd, "install -d")
        assert control(srsd, "status")["counters"]["store"]["failing"] in (0, 1)
        until("failure in status", lambda: control(srsd, "status")["counters"]["store"]["failing"] == 1)
        away.rename(state)
        check_that_it_works(srsd)
        assert reverse(srsd, made) == f"200 {long_sender(1)}"
        until("recovery", lambda: control(srsd, "status")["counters"]["store"]["failing"] == 0, 15)
        assert sum("works again" in line for line in srsd.log) <= 1


def test_a_store_that_reached_its_bound_and_gets_more():
    with running(srs={**AUTO, "store_size": 1}) as srsd:
        forward(srsd, long_sender(0))
        with contextlib.suppress(StoreError), AddressFile(str(store_of(srsd)), 1) as file:
            for number in range(1000):  # nearly all of it, in a shorter time than by lookups
                file.keep([Entry(b"%8d%8d" % (number, each), b"x" * 90, 99999) for each in range(100)])
        assert number > 30
        fill(srsd)
        check_that_it_waits(srsd, "srs.store_size")
        assert reverse(srsd, forward(srsd, long_sender(0))) == f"200 {long_sender(0)}"  # it is still there
        assert store_of(srsd).stat().st_size <= 1_000_000
        put(srsd.config, "store_size = 1", "store_size = 2")
        assert control(srsd, "reload") == {"faults": []}
        check_that_it_works(srsd)


@pytest.fixture
def small_disk() -> Iterator[Path]:
    """Give a directory on a disk of its own, of one megabyte."""
    with new_directory() as directory:
        mount = ["mount", "-t", "tmpfs", "-o", "size=1m,mode=0755", "srsd-test", str(directory)]
        if os.geteuid() != 0 or subprocess.run(mount, check=False, capture_output=True).returncode != 0:
            pytest.skip("no disk can be mounted here")
        try:
            yield directory
        finally:
            subprocess.run(["umount", "-l", str(directory)], check=True)


def test_a_full_disk_and_one_that_has_room_again(small_disk):
    with running(srs=AUTO, state_directory=str(small_disk)) as srsd:
        made = forward(srsd, long_sender(0))
        with contextlib.suppress(OSError), open(small_disk / "filler", "wb", buffering=0) as filler:
            while True:
                filler.write(bytes(4096))
        fill(srsd)
        check_that_it_waits(srsd, "more free space")
        (small_disk / "filler").unlink()
        check_that_it_works(srsd)
        assert reverse(srsd, made) == f"200 {long_sender(0)}"


def test_a_disk_that_turns_read_only_and_back(small_disk):
    remount = ["mount", "-o", "remount,{}", str(small_disk)]
    with running(srs=AUTO, state_directory=str(small_disk)) as srsd:
        made = forward(srsd, long_sender(0))
        assert srsd.terminate() == 0
        subprocess.run([each.format("ro") for each in remount], check=True)
        try:
            srsd.start()  # other mail goes on, so this is no reason not to start
            check_that_it_waits(srsd, "read-only")
        finally:
            subprocess.run([each.format("rw") for each in remount], check=True)
        check_that_it_works(srsd)
        assert reverse(srsd, made) == f"200 {long_sender(0)}"


def test_a_file_that_is_removed_while_srsd_runs():
    with running(srs=AUTO) as srsd:
        made = forward(srsd, LONG)
        for path in store_of(srsd).parent.glob("addresses.sqlite*"):
            path.unlink()
        other = forward(srsd, long_sender(1))  # its like was not asked before, so the file is looked at
        srsd.wait_for_log("was removed or replaced")
        assert reverse(srsd, other) == f"200 {long_sender(1)}"
        # The answers that were kept from before are forgotten, so the token is stored anew.
        until("the token anew", lambda: reverse(srsd, forward(srsd, LONG)) == f"200 {LONG}")
        until("it in the file", lambda: forward(srsd, LONG) == made and (LONG,) in rows(srsd))


# Start -----------------------------------------------------------------------------------------


def database_of_another_form(path: Path) -> None:
    with running(srs=AUTO, state_directory=str(path.parent)) as srsd:
        forward(srsd, LONG)
    with contextlib.closing(sqlite3.connect(path)) as database:
        database.execute("PRAGMA user_version = 99")
        database.commit()


def database_of_something_else(path: Path) -> None:
    with contextlib.closing(sqlite3.connect(path)) as database:
        database.execute("CREATE TABLE other (x)")
        database.commit()


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (database_of_another_form, "another version of srsd (form 99, this version has form 1)"),
        (database_of_something_else, "is a database of something else"),
        (lambda path: path.write_text("no database" * 1000), "is damaged"),
        (lambda path: path.mkdir(), "addresses.sqlite"),
    ],
    ids=["another form", "something else", "no database", "a directory"],
)
@pytest.mark.parametrize("options", [[], ["--check"]], ids=["start", "check"])
def test_a_file_that_is_no_store_of_this_version_is_a_fault(make, says, options):
    with new_directory() as state, new_directory() as directory:
        make(state / "addresses.sqlite")
        config = configure(directory, srs=AUTO, state_directory=str(state))
        done = run("srsd", "--config", config, *options)
        assert done.returncode == 78
        (line,) = done.stderr.splitlines()
        assert says in line
        assert "srs.envelope: " in line


@pytest.mark.usefixtures("as_root", "no_coverage_in_children")
def test_a_state_directory_that_the_user_may_not_write_to_is_a_fault():
    with new_directory() as state, new_directory() as directory:
        state.chmod(0o755)  # of root
        config = configure(directory, srs=AUTO, user="nobody", state_directory=str(state))
        for path in directory.iterdir():
            os.chown(path, 65534, 65534)
        done = run("srsd", "--config", config, "--check")
        assert done.returncode == 78
        assert f"chown USER {state}" in done.stderr


def test_a_reload_to_a_store_that_does_not_work_changes_nothing():
    with running() as srsd:
        store_of(srsd).parent.mkdir(exist_ok=True)
        store_of(srsd).write_text("no database" * 1000)
        put(srsd.config, "[srs]", '[srs]\nenvelope = "auto"')
        (fault,) = control(srsd, "reload")["faults"]
        assert "is damaged" in fault
        assert "=origin.example=uuu" in forward(srsd, LONG)
        store_of(srsd).unlink()
        assert control(srsd, "reload") == {"faults": []}
        check_that_it_works(srsd)


# What is told of it ----------------------------------------------------------------------------


def srsctl(srsd: Srsd, *arguments: str) -> tuple[int, str, str]:
    done = run("srsctl", "--config", srsd.config, *arguments)
    return done.returncode, done.stdout, done.stderr


def test_srsctl_sees_what_is_stored_and_stores_nothing(auto):
    sender = long_sender(5001)
    status, made, remark = srsctl(auto, "srs", "forward", sender)
    assert (status, bool(TOKEN.fullmatch(made.strip()))) == (0, True)
    assert "not stored yet" in remark
    assert srsctl(auto, "srs", "reverse", made.strip())[0] == 1
    assert forward(auto, sender) == made.strip()
    assert srsctl(auto, "srs", "forward", sender) == (0, made, "")
    assert srsctl(auto, "srs", "reverse", made.strip()) == (0, f"{sender}\n", "")
    token = made.partition("@")[0].rpartition("=")[2]
    status, told, _ = srsctl(auto, "srs", "explain", made.strip().upper())
    assert status == 0
    assert f"it stands for {sender}, stored under {token.upper()}" in told
    report = json.loads(srsctl(auto, "srs", "explain", "--json", made.strip())[1])
    assert report["result"] == sender


def test_srsctl_explains_a_token_that_is_not_stored(auto):
    made = srsctl(auto, "srs", "forward", long_sender(5002))[1].strip()
    status, told, _ = srsctl(auto, "srs", "explain", made)
    assert status == 1
    assert told.startswith(f"{made}: stored address unknown\n")
    assert "nothing is stored under" in told


def test_status_shows_the_store(auto):
    forward(auto, LONG)
    until("size", lambda: control(auto, "status")["counters"]["store"]["addresses"], 15)
    store = control(auto, "status")["counters"]["store"]
    assert store["octets"] > 4096
    assert store["maximum_octets"] == 512_000_000
    assert store["failing"] == 0
    assert "stored addresses" in srsctl(auto, "status")[1]


def test_without_stored_addresses_there_is_no_file():
    with running() as srsd:
        forward(srsd, LONG)
        elsewhere = Srs(SrsParameters(), Keyring([SECRETS[0].encode()]))
        made = elsewhere.forward_stored(parse_address(LONG.encode()), int(time.time()) // 86400).local_part
        assert reverse(srsd, f"{made.decode()}@{SRS_DOMAIN}") == "500 stored%20address%20unknown"
        assert not store_of(srsd).exists()
        assert control(srsd, "status")["counters"]["store"]["maximum_octets"] == 0
