"""workers = N: what happens to lookups while workers are killed, stopped, reloaded, ended."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import time
from typing import TYPE_CHECKING

import pytest

from harness.daemon import DEADLINE, Srsd
from harness.load import Load
from harness.running import (
    ALICE,
    ask,
    ask_over,
    children,
    client_ports,
    configure,
    connection_of_each,
    control,
    descendants,
    holder,
    impatient,
    is_alive,
    new_directory,
    open_connection,
    patched,
    running,
    until,
    workers,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

FROZEN = 3  # seconds, instead of the ten of the product
OTHER_DOMAIN = "other.example.net"


def replace_in(path, old: str, new: str) -> None:
    """Replace text in a file in one step, as an editor does."""
    text = path.read_text()
    assert old in text
    unfinished = path.with_name(f"{path.name}.unfinished")
    unfinished.touch(mode=0o600)
    unfinished.write_text(text.replace(old, new))
    unfinished.replace(path)


def answers_of_all(srsd: Srsd, direction: str = "forward", key: str = ALICE) -> list[str]:
    """Ask each worker."""
    with contextlib.ExitStack() as stack:
        connections = connection_of_each(srsd, direction)
        for connection in connections.values():
            stack.enter_context(connection)
        return [ask_over(connection, key) for connection in connections.values()]


def replacement(srsd: Srsd, former: list[int], deadline: float = DEADLINE) -> int:
    """Wait until the place of one of two workers is filled again; return the new process."""
    until("replacement", lambda: len(workers(srsd)) == 2 and set(workers(srsd)) != set(former), deadline)
    (new,) = set(workers(srsd)) - set(former)
    until("answer", lambda: all(w["state"] == "running" for w in control(srsd, "status")["workers"]))
    return new


def lookups(srsd: Srsd) -> int:
    return sum(count for *_, count in control(srsd, "status")["counters"]["lookups"])


def test_all_workers_answer_on_all_listeners():
    with running(workers=2) as srsd:
        assert len(workers(srsd)) == 2
        for direction in ("forward", "reverse"):
            assert len(answers_of_all(srsd, direction)) == 2
        assert all(re.match("200 SRS0=", answer) for answer in answers_of_all(srsd))
        states = control(srsd, "status")["workers"]
        assert {state["pid"] for state in states} == set(workers(srsd))


def kept_by(srsd: Srsd, load: Load, pid: int) -> set[int]:
    """Return the ports of the clients of a load that keep a connection to a worker."""
    return client_ports(srsd)[pid] & set(load.kept_ports.values())


@contextlib.contextmanager
def load_on_all(srsd: Srsd) -> Iterator[Load]:
    """Ask all the time, over kept connections to each worker and over new ones."""
    while True:
        # Who accepts a connection is chance: now and then one worker takes all of eight.
        with Load(srsd.inet("srs_forward"), keeping=8) as load:
            until("load", load.goes_on(50))
            if all(kept_by(srsd, load, pid) for pid in workers(srsd)):
                yield load
                return
            load.stop()
        assert load.failures == []


def check_failures(load: Load, in_hands: set[int]) -> None:
    """Nobody was refused; each client lost at most the one lookup that the lost worker had."""
    assert {failure.stage for failure in load.failures} <= {"request"}, load.failures
    assert {failure.port for failure in load.failures if failure.kept} == in_hands
    assert sum(not failure.kept for failure in load.failures) <= load.connecting, load.failures


def test_a_killed_worker_costs_only_what_it_had_in_hands():
    with running(workers=2, argv=patched(impatient())) as srsd, load_on_all(srsd) as load:
        before = workers(srsd)
        victim = before[0]
        in_hands = kept_by(srsd, load, victim)
        os.kill(victim, signal.SIGKILL)
        until("answers after the death", load.goes_on())
        new = replacement(srsd, before)
        srsd.wait_for_log(lambda line: re.search(r"worker \d ended \(signal 9\)", line))
        until("work for the replacement", lambda: client_ports(srsd)[new])
        until("answers after the replacement", load.goes_on())
        load.stop()
        check_failures(load, in_hands)
        assert sorted(state["restarts"] for state in control(srsd, "status")["workers"]) == [0, 1]


def test_counters_of_a_dead_worker_stay_in_the_sums():
    with running(workers=2, argv=patched(impatient())) as srsd:
        connections = connection_of_each(srsd)
        count = {}
        for number, (pid, connection) in enumerate(connections.items()):
            count[pid] = 100 * (number + 1)
            for _ in range(count[pid]):
                ask_over(connection, "x@nowhere.example")
            connection.close()

        def seen() -> dict[int, int]:
            return {w["pid"]: w["lookups"] for w in control(srsd, "status")["workers"]}

        until("counters", lambda: all(seen()[pid] >= count[pid] for pid in count))
        total, opened = lookups(srsd), control(srsd, "status")["counters"]["connections_opened"]
        before = workers(srsd)
        os.kill(before[0], signal.SIGKILL)
        new = replacement(srsd, before)
        status = control(srsd, "status")
        assert lookups(srsd) == total
        assert status["counters"]["connections_opened"] == opened
        assert seen()[new] == 0
        assert sum(status["counters"]["latency"]) > 0


def test_a_stopped_worker_is_replaced():
    with running(workers=2, argv=patched(impatient(FROZEN))) as srsd, load_on_all(srsd) as load:
        before = workers(srsd)
        victim = before[0]
        in_hands = kept_by(srsd, load, victim)
        os.kill(victim, signal.SIGSTOP)
        begun = time.monotonic()
        srsd.wait_for_log(f"(pid {victim}) gave no sign of life")
        assert time.monotonic() - begun > FROZEN - 1.5, "it beats once a second, and may have FROZEN"
        new = replacement(srsd, before)
        assert not is_alive(victim)
        until("work for the replacement", lambda: client_ports(srsd)[new])
        until("answers after the replacement", load.goes_on())
        load.stop()
        check_failures(load, in_hands)
        assert set(answers_of_all(srsd)) == {ask(srsd, "forward", ALICE)}


def test_a_hanging_worker_says_where_it_hangs_and_its_children_go_with_it():
    hang = """
import srsd.lookup, subprocess, time
good = srsd.lookup.Lookup.forward
def hang_here(self, key, today):
    if key.startswith(b"hang@"):
        # It ignores what a well-meaning signal says, so only SIGKILL ends it.
        subprocess.Popen(["sh", "-c", "trap '' QUIT TERM; while :; do sleep 1000; done"])
        time.sleep(1000)
    return good(self, key, today)
srsd.lookup.Lookup.forward = hang_here
"""
    with new_directory() as directory:
        argv = patched(impatient(FROZEN), hang, directory)
        with running(directory=directory, workers=2, argv=argv) as srsd:
            before = workers(srsd)
            with open_connection(srsd, "forward") as victim:
                ask_over(victim, ALICE)
                pid = holder(srsd, victim)
                victim.sendall(b"get hang@origin.example\n")
                offspring = until("children", lambda: len(descendants(pid)) >= 2 and descendants(pid))
                for _ in range(20):  # whoever does not hang answers
                    assert ask(srsd, "forward", ALICE).startswith("200 ")
                srsd.wait_for_log(f"(pid {pid}) gave no sign of life")
                srsd.wait_for_log("in hang_here")
                replacement(srsd, before)
            until("end of its children", lambda: not any(map(is_alive, [pid, *offspring])))
            assert len(answers_of_all(srsd)) == 2


@pytest.mark.parametrize(
    "start", ["subprocess.Popen(['sleep', '1000'])", "os.fork() or time.sleep(1000)"], ids=["program", "fork"]
)
def test_a_child_that_outlives_its_worker_goes_too(start):
    """A fork has all that the worker had, its end of the supervisor's channel too."""
    with_child = f"""
import srsd.lookup, os, subprocess, time
good = srsd.lookup.Lookup.forward
def forward(self, key, today):
    if key.startswith(b"start@"):
        {start}
    return good(self, key, today)
srsd.lookup.Lookup.forward = forward
"""
    with new_directory() as directory:
        argv = patched(impatient(FROZEN), with_child, directory)
        with running(directory=directory, workers=2, argv=argv) as srsd:
            before = workers(srsd)
            assert ask(srsd, "forward", "start@origin.example").startswith("200 ")
            (pid,) = [each for each in before if children(each)]
            (orphan,) = children(pid)
            try:
                os.kill(pid, signal.SIGKILL)
                replacement(srsd, before)
                until("end of its child", lambda: not is_alive(orphan))
            finally:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(orphan, signal.SIGKILL)


def test_a_pause_of_everything_costs_no_worker():
    """A host that was suspended, or starved: the supervisor hears late what the workers said in time."""
    with running(workers=2, argv=patched(impatient(FROZEN))) as srsd, contextlib.ExitStack() as stack:
        before = workers(srsd)
        connections = connection_of_each(srsd)
        for connection in connections.values():
            stack.enter_context(connection)
        os.kill(srsd.pid, signal.SIGSTOP)
        try:
            time.sleep(FROZEN + 0.5)  # time itself is what this is about
        finally:
            os.kill(srsd.pid, signal.SIGCONT)
        ticks = control(srsd, "status")["uptime_seconds"]
        until("ticks", lambda: control(srsd, "status")["uptime_seconds"] >= ticks + 2)
        assert not [line for line in srsd.log if "no sign of life" in line]
        for connection in connections.values():
            assert ask_over(connection, ALICE).startswith("200 ")
        assert workers(srsd) == before


def test_ten_reloads_under_load_fail_no_lookup():
    with running(workers=2, log={"level": "info"}, argv=quiet_lookups()) as srsd:
        before = workers(srsd)
        domains = ["fwd.example.net", OTHER_DOMAIN]
        with Load(srsd.inet("srs_forward")) as load:
            until("load", load.goes_on())
            for number in range(10):
                old, new = domains[number % 2], domains[(number + 1) % 2]
                replace_in(srsd.config, f'domain = "{old}"', f'domain = "{new}"')
                if number % 2:
                    since = srsd.hup()
                    srsd.wait_for_log("everything was read again", since=since)
                    until("the new domain", lambda d=new: all(d in each for each in answers_of_all(srsd)))
                else:
                    assert control(srsd, "reload") == {"faults": []}
                    assert all(new in each for each in answers_of_all(srsd)), "in force, it said"
                until("load", load.goes_on(50))
        assert load.failures == []
        assert workers(srsd) == before


def test_a_reload_is_answered_when_it_is_in_force_everywhere():
    slow = """
import time
from srsd.daemon.serving import Serving
good = Serving.put_in_force
def put_in_force(self, material):
    time.sleep(0.3)
    good(self, material)
Serving.put_in_force = put_in_force
"""
    with new_directory() as directory:
        argv = patched(worker=slow, directory=directory)
        with running(directory=directory, workers=2, argv=argv) as srsd, contextlib.ExitStack() as stack:
            connections = connection_of_each(srsd)
            for connection in connections.values():
                stack.enter_context(connection)
            replace_in(srsd.config, 'domain = "fwd.example.net"', f'domain = "{OTHER_DOMAIN}"')
            begun = time.monotonic()
            assert control(srsd, "reload") == {"faults": []}
            assert time.monotonic() - begun > 0.6, "one worker after the other, so that one always answers"
            for connection in connections.values():
                assert ask_over(connection, ALICE).endswith(f"@{OTHER_DOMAIN}")


def quiet_lookups() -> list[str]:
    """Run srsd without the line for each rewrite, which is not what a test wants to read."""
    return patched("import logging; logging.getLogger('srsd.daemon.tables').setLevel('WARNING')")


def test_a_bad_configuration_changes_nothing_in_any_worker_now_or_later():
    with running(workers=2, argv=patched(impatient())) as srsd:
        replace_in(srsd.config, 'domain = "fwd.example.net"', f'domain = "{OTHER_DOMAIN}"')
        assert control(srsd, "reload") == {"faults": []}
        replace_in(srsd.config, OTHER_DOMAIN, "third.example.net")
        replace_in(srsd.config, "[srs]", "[srs]\nunknown_key = 1")
        exclude = srsd.config.with_name("exclude")
        (fault,) = control(srsd, "reload")["faults"]
        assert "unknown_key" in fault
        assert all(f"@{OTHER_DOMAIN}" in each for each in answers_of_all(srsd))
        exclude.write_text(f"{ALICE} nonsense\n")  # a bad file beside it, that is only watched
        srsd.wait_for_log("the version before it stays in force")
        before = workers(srsd)
        os.kill(before[0], signal.SIGKILL)
        replacement(srsd, before)
        assert all(f"@{OTHER_DOMAIN}" in each for each in answers_of_all(srsd))
        status = control(srsd, "status")
        assert status["last_reload"]["good"] is False
        assert status["last_reload"]["faults"] == [fault]


def test_changed_files_reach_all_workers():
    with running(workers=2) as srsd:
        old = ask(srsd, "forward", ALICE).removeprefix("200 ")
        assert ask(srsd, "forward", "x@friend.example").startswith("200 ")
        secrets = srsd.config.with_name("srs.secrets")
        replace_in(secrets, "first-secret-of-the-tests\n", "brand-new-secret\nfirst-secret-of-the-tests\n")
        srsd.config.with_name("exclude").write_text("@friend.example\n")
        until("the new secret", lambda: all(old not in each for each in answers_of_all(srsd)))
        new = {each.removeprefix("200 ") for each in answers_of_all(srsd)}
        assert len(new) == 1
        for address in (old, *new):
            assert set(answers_of_all(srsd, "reverse", address)) == {f"200 {ALICE}"}
        until(
            "the exclusion",
            lambda: all(
                each.startswith("500 ") for each in answers_of_all(srsd, "forward", "x@friend.example")
            ),
        )


def test_sigterm_finishes_what_has_begun_and_leaves_nothing():
    with running(workers=2) as srsd, contextlib.ExitStack() as stack:
        processes = [srsd.pid, *workers(srsd)]
        paths = [srsd.unix("socketmap"), srsd.unix("control")]
        assert all(map(os.path.exists, paths))
        connections = connection_of_each(srsd)
        for connection in connections.values():
            stack.enter_context(connection)
            connection.sendall(b"get half@origin.exam")
        answers_of_all(srsd)  # so the halves, which came before, have arrived
        os.kill(srsd.pid, signal.SIGTERM)
        until("end of listening", lambda: not is_listening(srsd))
        for connection in connections.values():
            connection.sendall(b"ple\n")
            with connection.makefile() as replies:
                assert replies.readline().startswith("200 SRS0=")
                assert replies.readline() == "", "it closes when that is done"
        assert srsd.wait() == 0
        until("end of all processes", lambda: not any(map(is_alive, processes)))
        assert not any(map(os.path.exists, paths))


def is_listening(srsd: Srsd) -> bool:
    """Tell whether a worker still has a listening socket (the supervisor keeps its own to the end)."""
    port = f":{srsd.inet('srs_forward')[1]:04X}"
    for pid in workers(srsd):
        targets = []
        for number in os.listdir(f"/proc/{pid}/fd"):
            with contextlib.suppress(OSError):
                targets.append(os.readlink(f"/proc/{pid}/fd/{number}"))
        with open("/proc/net/tcp", encoding="ascii") as table:
            for line in table:
                fields = line.split()
                if fields[1].endswith(port) and fields[3] == "0A" and f"socket:[{fields[9]}]" in targets:
                    return True
    return False


def test_workers_end_when_the_supervisor_is_killed():
    with running(workers=2) as srsd:
        orphans = workers(srsd)
        with open_connection(srsd, "forward") as connection:
            ask_over(connection, ALICE)
            srsd.kill()
            until("end of the workers", lambda: not any(map(is_alive, orphans)))
            assert connection.recv(1) == b""


def test_a_worker_that_is_told_to_end_is_replaced_and_takes_no_socket_away():
    with running(workers=2, argv=patched(impatient())) as srsd:
        before = workers(srsd)
        os.kill(before[0], signal.SIGTERM)
        replacement(srsd, before)
        assert os.path.exists(srsd.unix("socketmap"))
        assert os.path.exists(srsd.unix("control"))
        assert len(answers_of_all(srsd)) == 2


def test_a_worker_that_cannot_start_is_tried_again_later_and_later():
    with new_directory() as directory:
        flag = directory / "broken"
        worker = f"import os\nif os.path.exists({str(flag)!r}): sys.exit(3)"
        argv = patched(worker=worker, directory=directory)
        with running(directory=directory, workers=2, argv=argv) as srsd:
            before = workers(srsd)
            flag.touch()
            with Load(srsd.inet("srs_forward"), keeping=0) as load:
                os.kill(before[0], signal.SIGKILL)
                srsd.wait_for_log("ended (status 3); it is started again in 2 s, the others go on")
                state = next(w for w in control(srsd, "status")["workers"] if w["pid"] != before[1])
                assert state["state"] == "waiting"
                flag.unlink()
                srsd.wait_for_log("ended (signal 9); it is started again in 1 s, the others go on")
                replacement(srsd, before)
            assert len(load.failures) <= 4, load.failures
            assert len(answers_of_all(srsd)) == 2


def test_sigterm_is_obeyed_while_no_worker_can_start():
    with new_directory() as directory:
        srsd = subprocess.Popen(
            [
                *patched(worker="sys.exit(3)", directory=directory),
                "--config",
                configure(directory, workers=2),
            ],
            stderr=subprocess.PIPE,
            text=True,
        )
        assert srsd.stderr is not None
        with srsd, srsd.stderr:
            try:
                log = [next(line for line in srsd.stderr if "started again" in line)]
                srsd.terminate()
                assert srsd.wait(DEADLINE) == 0, log
            finally:
                srsd.kill()


def test_sigquit_prints_tracebacks_of_all_processes_which_go_on():
    with running(workers=2, tracebacks=True) as srsd:
        before = workers(srsd)
        connections = connection_of_each(srsd)
        os.kill(srsd.pid, signal.SIGQUIT)
        until(
            "thread stacks",
            lambda: sum("(most recent call first):" in line for line in srsd.log) >= 3,
        )
        # The supervisor and the workers each show their tasks: these are never without them.
        for function, times in (("_tend", 2), ("_beat", 2), ("_obey", 2), ("_tick", 1)):
            until(
                f"{times} tasks in {function}",
                lambda f=function, t=times: sum(f"in {f}" in line for line in srsd.log) >= t,
            )
        assert sum(line.startswith("task ") for line in srsd.log) >= 7
        for connection in connections.values():
            assert ask_over(connection, ALICE).startswith("200 ")
            connection.close()
        assert workers(srsd) == before


@pytest.mark.parametrize("cores", [1, 2])
def test_auto_is_a_process_for_each_core_that_srsd_may_use(cores):
    usable = sorted(os.sched_getaffinity(0))
    if len(usable) < cores:
        pytest.skip(f"this machine gives {len(usable)} cores, this takes {cores}")
    which = ",".join(map(str, usable[:cores]))
    argv = patched(f"import os; os.sched_setaffinity(0, {{{which}}})")
    with running(workers="auto", argv=argv) as srsd:
        assert len(workers(srsd)) == (0 if cores == 1 else cores)  # one core: srsd answers by itself
        states = control(srsd, "status")["workers"]
        assert len(states) == cores
        assert all(state["state"] == "running" for state in states)
        assert ask(srsd, "forward", ALICE).startswith("200 ")


def test_a_changed_number_of_workers_needs_a_restart():
    with running(workers=2) as srsd:
        before = workers(srsd)
        replace_in(srsd.config, "workers = 2", "workers = 3")
        assert control(srsd, "reload") == {"faults": []}
        srsd.wait_for_log("workers has changed, which needs a restart of srsd")
        assert workers(srsd) == before
