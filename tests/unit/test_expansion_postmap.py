"""Postfix's programs, asked: a postmap that answers, hangs, dies or talks nonsense; what is kept, and how long."""

from __future__ import annotations

import asyncio
import os
import stat
import sys
from typing import TYPE_CHECKING

import pytest

from srsd.config import Listen
from srsd.daemon.expansion import postmap as postmap_module
from srsd.daemon.expansion.expander import KEPT_SECONDS, PROBLEM_SECONDS, PostfixExpander, own_tables
from srsd.daemon.expansion.postmap import PROCESSES_MAXIMUM, Postmap, read, run
from srsd.daemon.expansion.settings import parse_parameters, parse_services
from srsd.daemon.expansion.tables import LookupFailedError
from srsd.filter.forwarding import ForwardingParameters
from srsd.syntax.endpoint import parse_endpoint

ALICE = b"alice@origin.example"

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterator
    from pathlib import Path

# Behaves as postmap -q - does: buffers of 4096 octets, nothing for what is not found, the first table first.
FAKE_POSTMAP = """\
#!{python}
import os, sys, time
tables = []
for spec in sys.argv[3:]:
    kind, _, rest = spec.partition(":")
    if kind == "inline":
        name, _, value = rest.strip("{{}}").partition("=")
        tables.append({{name: value}}.get)
    elif kind == "static":
        tables.append(lambda key, value=rest: value)
    else:
        path = rest
        def find(key, path=path):
            content = dict(line.split(" ", 1) for line in open(path).read().splitlines())
            value = content.get(key)
            if key.startswith("hang"):
                time.sleep(600)
            if key == "die":
                print("postmap: fatal: table x: query error", file=sys.stderr)
                os._exit(1)
            return value
        tables.append(find)
with open(os.path.join(os.path.dirname(__file__), "starts"), "a") as starts:
    starts.write("%d " % os.getpid())
buffer = b""
for line in sys.stdin:
    key = line.rstrip("\\n")
    values = (table(key) for table in tables)
    value = next((value for value in values if value is not None), None)
    if key == "silent":
        continue
    buffer += ("%s\\t%s\\n" % (key, value)).encode()
    if key == "nonsense":
        buffer += b"what nobody asked\\n"
    while len(buffer) >= 4096:
        sys.stdout.buffer.write(buffer[:4096])
        sys.stdout.buffer.flush()
        buffer = buffer[4096:]
"""
FAKE_POSTCONF = """\
#!/bin/sh
case "$1" in
    -x) cat "$(dirname "$0")/parameters" ;;
    -M) echo 'smtp unix - - y - - smtp'; echo 'local unix - n n - - local' ;;
esac
"""


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def programs(tmp_path: Path, monkeypatch) -> Iterator[Path]:
    """A directory with our postmap and postconf, first on the path; and that no process is left."""
    for name, text in (("postmap", FAKE_POSTMAP.format(python=sys.executable)), ("postconf", FAKE_POSTCONF)):
        path = tmp_path / name
        path.write_text(text)
        path.chmod(path.stat().st_mode | stat.S_IXUSR)
    (tmp_path / "table").write_text("bob x\ncarol y\nlong " + "z" * 9000 + "\n")
    (tmp_path / "parameters").write_text(
        f"queue_directory = {tmp_path}\nconfig_directory = {tmp_path}\nvirtual_alias_maps = hash:{tmp_path}/table\n"
        "myorigin = here.example\nmydestination = here.example\nvirtual_alias_domains =\n"
        "local_transport = local\ndefault_transport = smtp\n"
    )
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    yield tmp_path
    for pid in starts(tmp_path):
        assert not running(pid)


def starts(programs: Path) -> list[int]:
    path = programs / "starts"
    return [int(pid) for pid in path.read_text().split()] if path.exists() else []


def running(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


async def gone(pids: list[int]) -> None:
    """Wait until processes have ended."""
    for _ in range(1000):
        if not any(running(pid) for pid in pids):
            return
        await asyncio.sleep(0.01)
    raise AssertionError(pids)


def with_postmap(
    programs: Path, clock: Clock, work: Callable[[Postmap, str], Coroutine[None, None, None]]
) -> None:
    async def whole() -> None:
        postmap = Postmap(str(programs), clock)
        try:
            await work(postmap, f"hash:{programs}/table")
        finally:
            await postmap.close()

    asyncio.run(whole())


def test_answers_come_from_one_process_one_after_the_other(programs, clock):
    async def work(postmap: Postmap, table: str) -> None:
        assert await postmap.ask(table, [b"bob", b"nobody"]) == {b"bob": b"x"}
        assert await postmap.ask(table, [b"nobody"]) == {}
        for _ in range(20):
            assert await postmap.ask(table, [b"carol", b"bob", b"carol"]) == {b"bob": b"x", b"carol": b"y"}
        assert await postmap.ask(table, [b"long"]) == {b"long": b"z" * 9000}
        assert await postmap.ask(table, [b"bob"]) == {b"bob": b"x"}
        assert await postmap.ask(table, [b"silent", b"bob", b"nobody"]) == {b"bob": b"x"}
        assert postmap.started == 1

    with_postmap(programs, clock, work)


def test_keys_that_would_be_two_are_not_asked(programs, clock):
    async def work(postmap: Postmap, table: str) -> None:
        assert await postmap.ask(table, [b"bob\ncarol", b"carol\0", b"bob"]) == {b"bob": b"x"}

    with_postmap(programs, clock, work)


def test_one_that_dies_says_why_and_the_next_one_answers(programs, clock):
    async def work(postmap: Postmap, table: str) -> None:
        with pytest.raises(LookupFailedError, match=r"hash:.*/table: table x: query error"):
            await postmap.ask(table, [b"die"])
        assert await postmap.ask(table, [b"bob"]) == {b"bob": b"x"}
        assert postmap.started == 2

    with_postmap(programs, clock, work)


def test_what_nobody_asked_is_an_error(programs, clock):
    async def work(postmap: Postmap, table: str) -> None:
        with pytest.raises(LookupFailedError, match="no key has"):
            await postmap.ask(table, [b"nonsense", b"bob"])
        assert await postmap.ask(table, [b"bob"]) == {b"bob": b"x"}

    with_postmap(programs, clock, work)


def test_a_lookup_that_hangs_delays_no_other_and_its_process_ends(programs, clock):
    async def work(postmap: Postmap, table: str) -> None:
        hanging = [
            asyncio.create_task(postmap.ask(table, [b"hang%d" % n])) for n in range(PROCESSES_MAXIMUM - 1)
        ]
        assert await asyncio.wait_for(postmap.ask(table, [b"bob"]), 20) == {b"bob": b"x"}
        assert not any(task.done() for task in hanging)
        for task in hanging:
            task.cancel()
        results = await asyncio.gather(*hanging, return_exceptions=True)
        assert all(isinstance(each, asyncio.CancelledError) for each in results)
        assert await postmap.ask(table, [b"bob"]) == {b"bob": b"x"}

    with_postmap(programs, clock, work)


def test_no_more_than_a_few_processes_for_a_table(programs, clock):
    async def work(postmap: Postmap, table: str) -> None:
        answers = await asyncio.gather(*[postmap.ask(table, [b"bob"]) for _ in range(50)])
        assert answers == [{b"bob": b"x"}] * 50
        assert postmap.started <= PROCESSES_MAXIMUM

    with_postmap(programs, clock, work)


def test_a_process_serves_for_a_while_only(programs, clock):
    async def work(postmap: Postmap, table: str) -> None:
        await postmap.ask(table, [b"bob"])
        clock.now += postmap_module.KEPT_SECONDS - 1
        postmap.tick()
        await postmap.ask(table, [b"bob"])
        assert postmap.started == 1
        clock.now += 1
        postmap.tick()
        await gone(starts(programs))
        await postmap.ask(table, [b"bob"])
        assert postmap.started == 2

    with_postmap(programs, clock, work)


def test_a_process_that_serves_while_all_is_forgotten_answers_and_ends(programs, clock):
    async def work(postmap: Postmap, table: str) -> None:
        asking = asyncio.create_task(postmap.ask(table, [b"bob"]))
        await asyncio.sleep(0)
        postmap.forget()
        assert await asking == {b"bob": b"x"}
        await gone(starts(programs))
        await postmap.ask(table, [b"bob"])
        assert postmap.started == 2

    with_postmap(programs, clock, work)


def test_programs_that_are_not_there_or_fail(tmp_path, monkeypatch, clock):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(postmap_module, "_SYSTEM_PATHS", ())
    with pytest.raises(LookupFailedError, match="postmap cannot be run: No such file"):
        asyncio.run(Postmap(str(tmp_path), clock).ask("hash:/x", [b"bob"]))
    with pytest.raises(LookupFailedError, match="postconf cannot be run"):
        asyncio.run(run("postconf"))
    with pytest.raises(LookupFailedError, match="/bin/false failed: status 1"):
        asyncio.run(run("/bin/false"))


def test_files(tmp_path, monkeypatch):
    path = tmp_path / "-a file"
    path.write_bytes(b"bob\n")
    assert asyncio.run(read(str(path))) == b"bob\n"
    with pytest.raises(LookupFailedError, match="No such file"):
        asyncio.run(read(str(tmp_path / "absent")))
    monkeypatch.setattr(postmap_module, "ANSWER_MAXIMUM", 3)
    with pytest.raises(LookupFailedError, match="more than 3 octets"):
        asyncio.run(read(str(path)))


# What is remembered.


def with_expander(
    programs: Path,
    clock: Clock,
    work: Callable[[PostfixExpander], Coroutine[None, None, None]],
    **parameters: float,
) -> None:
    async def whole() -> None:
        expander = PostfixExpander(ForwardingParameters(mode="milter", **parameters), clock)
        try:
            await work(expander)
        finally:
            await expander.close()

    asyncio.run(whole())


def table(programs: Path, *lines: str) -> None:
    (programs / "table").write_text("".join(f"{line}\n" for line in lines))


def test_where_a_recipient_leads_is_remembered_for_a_while(programs, clock):
    table(programs, "bob@here.example bob@far.example")

    async def work(expander: PostfixExpander) -> None:
        recipients = (b"<carol@here.example>", b"<bob@here.example>")
        assert expander.known(recipients, ALICE) is None
        found = await expander.expand(recipients, ALICE)
        assert (found.leaves, found.recipient) == (b"bob@far.example", b"<bob@here.example>")
        assert expander.known(recipients, ALICE) == found
        assert expander.known(recipients[:1], ALICE).steps == ("carol@here.example stays here: a local user",)
        assert expander.asked == 2
        clock.now += KEPT_SECONDS + 1
        assert expander.known(recipients, ALICE) is None

    with_expander(programs, clock, work)


@pytest.mark.parametrize(
    ("line", "asked"),
    [("sender_bcc_maps = hash:{}/table", [2, 2, 3, 3]), ("always_bcc = x@far.example", [2, 2, 2, 2])],
)
def test_copies_are_remembered_as_well(programs, clock, line, asked):
    table(programs, "alice@origin.example x@far.example", "carol@origin.example y@far.example")
    with (programs / "parameters").open("a") as parameters:
        parameters.write(line.format(programs) + "\n")

    async def work(expander: PostfixExpander) -> None:
        recipients = (b"<bob@here.example>",)
        counts = []
        for sender in (ALICE, ALICE, b"carol@origin.example", ALICE):
            known = expander.known(recipients, sender)
            found = await expander.expand(recipients, sender)
            assert found.leaves == (
                b"y@far.example" if b"carol" in sender and "sender" in line else b"x@far.example"
            )
            assert found.recipient == b"<" + found.leaves + b">"
            assert known in (None, found)
            assert expander.known(recipients, sender) == found
            counts.append(expander.asked)
        assert counts == asked
        assert expander.known(recipients, b"dave@origin.example") == (None if "sender" in line else found)

    with_expander(programs, clock, work)


def test_many_messages_that_wait_for_one_recipient_ask_once(programs, clock):
    async def work(expander: PostfixExpander) -> None:
        await asyncio.gather(*[expander.expand((b"<bob@here.example>",), ALICE) for _ in range(50)])
        assert expander.asked == 1

    with_expander(programs, clock, work)


def test_a_table_that_changes_is_asked_anew_within_a_second(programs, clock):
    async def work(expander: PostfixExpander) -> None:
        recipients = (b"<bob@here.example>",)
        assert not (await expander.expand(recipients, ALICE)).leaves
        expander.tick()
        assert expander.known(recipients, ALICE) is not None
        table(programs, "bob@here.example bob@far.example")
        expander.tick()
        assert expander.known(recipients, ALICE) is None
        assert (await expander.expand(recipients, ALICE)).leaves == b"bob@far.example"

    with_expander(programs, clock, work)


def test_a_table_that_hangs_is_given_up_and_asked_again_after_a_while(programs, clock):
    async def work(expander: PostfixExpander) -> None:
        hanging, other = (b"<hang@here.example>",), (b"<bob@here.example>",)
        waiting = asyncio.create_task(expander.expand(hanging, ALICE))
        await expander.expand(other, ALICE)
        found = await waiting
        assert found.problem == "no answer within 1 s"
        assert expander.known(hanging, ALICE) == found._replace(recipient=b"")
        clock.now += PROBLEM_SECONDS + 1
        assert expander.known(hanging, ALICE) is None
        assert expander.known(other, ALICE) is not None

    with_expander(programs, clock, work, expansion_timeout=1.0)


def test_whoever_does_not_wait_any_more_stops_nobody(programs, clock):
    async def work(expander: PostfixExpander) -> None:
        recipients = (b"<bob@here.example>",)
        leaving = asyncio.create_task(expander.expand(recipients, ALICE))
        staying = asyncio.create_task(expander.expand(recipients, ALICE))
        await asyncio.sleep(0.01)
        leaving.cancel()
        assert (await staying).problem == ""
        assert leaving.cancelled()

    with_expander(programs, clock, work)


def test_postfix_that_cannot_be_asked_is_told_of_and_asked_again(programs, clock):
    parameters = (programs / "parameters").read_text()
    (programs / "parameters").write_text("")

    async def work(expander: PostfixExpander) -> None:
        assert await expander.check() == "postconf does not know queue_directory"
        (programs / "parameters").write_text(parameters)
        assert (await expander.expand((b"<bob@here.example>",), ALICE)).problem
        clock.now += PROBLEM_SECONDS + 1
        assert await expander.check() == ""
        assert not (await expander.expand((b"<bob@here.example>",), ALICE)).problem

    with_expander(programs, clock, work)


def test_what_is_remembered_is_bounded(programs, clock, monkeypatch):
    monkeypatch.setattr("srsd.daemon.expansion.expander._GENERATION", 10)

    async def work(expander: PostfixExpander) -> None:
        for number in range(40):
            await expander.expand((b"<u%d@here.example>" % number,), ALICE)
        assert expander.known((b"<u39@here.example>",), ALICE) is not None
        assert expander.known((b"<u1@here.example>",), ALICE) is None
        assert len(expander._kept) + len(expander._former) <= 20

    with_expander(programs, clock, work)


# Settings.


def test_parameters_and_services():
    assert parse_parameters("a = b = c\nb =\n\nnonsense\n") == {"a": "b = c", "b": ""}
    services = parse_services(
        "smtp       inet  n       -       y       -       -       smtpd -o x=y\n"
        "    -o continued unix - - - - - smtp\n"
        "relay      unix  -       -       y       -       -       smtp -o syslog_name=relay\n"
        "lists      unix  -       n       n       -       -       pipe flags=R user=list\n"
    )
    assert services == {"relay": "smtp", "lists": "pipe"}


def test_our_own_tables_are_known_by_the_names_of_main_cf(programs, clock):
    listen = Listen(
        srs_reverse=(parse_endpoint("inet:127.0.0.1:10002"),),
        srs_forward=(),
        socketmap=(parse_endpoint("unix:/var/spool/postfix/srs/socketmap?mode=0660"),),
    )
    names = set(own_tables(listen)({"queue_directory": "/var/spool/postfix"}))
    assert {
        "tcp:127.0.0.1:10002",
        "socketmap:unix:srs/socketmap:reverse",
        "socketmap:unix:/var/spool/postfix/srs/socketmap:reverse",
    } <= names
