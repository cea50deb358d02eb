"""Rotation of secrets: what each step does, that no bounce is refused over the years, and the files."""

from __future__ import annotations

import itertools
import json
import os
import pwd
import stat
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace

import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

import srsd.cli.secret
from srsd.cli.main import main as srsctl
from srsd.daemon.rotation_file import read_rotation, write_rotation
from srsd.rotation import RotationState, rotate
from srsd.srs import Keyring, Srs, SrsParameters, fingerprint, parse_secrets
from srsd.syntax.address import Address

NOW = datetime(2030, 1, 10, 12, 0, tzinfo=UTC)
DAY = timedelta(days=1)
HOUR = timedelta(hours=1)
MAXIMUM_AGE = 21
A, B, C, D = b"secret-a", b"secret-b", b"secret-c", b"secret-d"


def names(*secrets: bytes) -> list[str]:
    return [fingerprint(secret) for secret in secrets]


def state(waiting=(), retired=()) -> RotationState:
    return RotationState(
        {fingerprint(secret): since for secret, since in waiting},
        {fingerprint(secret): since for secret, since in retired},
    )


def step(secrets, before=None, *, now=NOW, delay=24 * HOUR, maximum_age=MAXIMUM_AGE, new=B):
    return rotate(secrets, before or RotationState(), now, delay, maximum_age, lambda: new)


# The steps.

CASES = {
    "the first run adds a second one": ([A], state(), [A, B], state(waiting=[(B, NOW)])),
    "too early": (
        [A, B],
        state(waiting=[(B, NOW - 24 * HOUR + timedelta(seconds=1))]),
        [A, B],
        state(waiting=[(B, NOW - 24 * HOUR + timedelta(seconds=1))]),
    ),
    "due": ([A, B], state(waiting=[(B, NOW - 24 * HOUR)]), [B, A], state(retired=[(A, NOW)])),
    "long due": ([A, B], state(waiting=[(B, NOW - 400 * DAY)]), [B, A], state(retired=[(A, NOW)])),
    "one that retired stays, and the next comes between": (
        [A, C],
        state(retired=[(C, NOW - 5 * DAY)]),
        [A, B, C],
        state(waiting=[(B, NOW)], retired=[(C, NOW - 5 * DAY)]),
    ),
    "one that retired long ago goes": (
        [A, C],
        state(retired=[(C, NOW - 23 * DAY)]),
        [A, B],
        state(waiting=[(B, NOW)]),
    ),
    "a day more than maximum_age, for stamps are whole days": (
        [A, C],
        state(retired=[(C, NOW - 22 * DAY)]),
        [A, B, C],
        state(waiting=[(B, NOW)], retired=[(C, NOW - 22 * DAY)]),
    ),
    "it goes too while another waits": (
        [A, B, C],
        state(waiting=[(B, NOW)], retired=[(C, NOW - 23 * DAY)]),
        [A, B],
        state(waiting=[(B, NOW)]),
    ),
    "the second step with one retired": (
        [A, B, C],
        state(waiting=[(B, NOW - 2 * DAY)], retired=[(C, NOW - 3 * DAY)]),
        [B, A, C],
        state(retired=[(A, NOW), (C, NOW - 3 * DAY)]),
    ),
    "of unknown history: it may have signed until just now": (
        [A, C, D],
        state(),
        [A, B, C, D],
        state(waiting=[(B, NOW)], retired=[(C, NOW), (D, NOW)]),
    ),
    "the one that waited was taken out by hand": (
        [A],
        state(waiting=[(C, NOW - 9 * DAY)]),
        [A, B],
        state(waiting=[(B, NOW)]),
    ),
    "the one that waited was put first by hand": (
        [C, A],
        state(waiting=[(C, NOW)]),
        [C, B, A],
        state(waiting=[(B, NOW)], retired=[(A, NOW)]),
    ),
    "one that retired was put first by hand": (
        [C, A],
        state(retired=[(C, NOW - 90 * DAY)]),
        [C, B, A],
        state(waiting=[(B, NOW)], retired=[(A, NOW)]),
    ),
    "secrets that are gone are forgotten": (
        [A],
        state(retired=[(C, NOW), (D, NOW - 90 * DAY)]),
        [A, B],
        state(waiting=[(B, NOW)]),
    ),
}


@pytest.mark.parametrize(("secrets", "before", "after", "expected"), CASES.values(), ids=CASES.keys())
def test_steps(secrets, before, after, expected):
    rotation = step(secrets, before)
    assert rotation.secrets == after
    assert rotation.state == expected
    assert rotation.done


def test_a_step_that_is_not_due_may_be_given_again_and_again():
    first = step([A])
    for hours in range(24):
        again = step(first.secrets, first.state, now=NOW + hours * HOUR, new=C)
        assert (again.secrets, again.state) == (first.secrets, first.state)
    signs = step(first.secrets, first.state, now=NOW + 24 * HOUR, new=C)
    assert signs.secrets == [B, A]


def test_what_is_done_is_said_without_the_secrets():
    first = step([A])
    early = step(first.secrets, first.state, now=NOW + HOUR)
    second = step(first.secrets, first.state, now=NOW + DAY)
    third = step(second.secrets, second.state, now=NOW + 40 * DAY, new=C)
    assert "2030-01-11 12:00 UTC" in first.done[0]
    assert "2030-01-11 12:00 UTC" in early.done[0]
    assert "2030-02-02 12:00 UTC" in second.done[0], "22 days after it retired"
    assert fingerprint(A) in third.done[0]
    for rotation in (first, early, second, third):
        assert not any(secret.decode() in line for secret in (A, B, C) for line in rotation.done)
        assert fingerprint(B) in rotation.done[0] or rotation is third


# Over the years: hosts with copies of one file, mail all the time.


@settings(max_examples=150)
@given(
    st.lists(st.tuples(st.integers(0, 40 * 24), st.booleans()), min_size=1, max_size=30),
    st.integers(0, 200),
    st.integers(1, 30),
)
def test_whatever_was_signed_is_accepted_for_its_maximum_age(events, delay_hours, maximum_age):
    """Hours go by; each event is a run of the command, and an address made before and after it.

    At every step all addresses that are not older than maximum_age days must be accepted, and no
    secret may sign that another host, which had the former file, could not verify - after a delay.
    """
    parameters = SrsParameters(maximum_age=maximum_age)
    numbers = itertools.count()
    secrets, rotation_state = [b"the first"], RotationState()
    added: dict[bytes, datetime] = {}
    made: list[tuple[bytes, int]] = []
    now = datetime(2030, 1, 1, tzinfo=UTC)
    for hours, runs in events:
        now += timedelta(hours=hours)
        before = secrets
        if runs:
            rotation = rotate(
                secrets,
                rotation_state,
                now,
                timedelta(hours=delay_hours),
                maximum_age,
                lambda: b"secret %d" % next(numbers),
            )
            secrets, rotation_state = rotation.secrets, rotation.state
            for secret in set(secrets) - set(before):
                added[secret] = now
            assert len(set(secrets)) == len(secrets) > 0
            if secrets[0] != before[0]:
                assert now - added[secrets[0]] >= timedelta(hours=delay_hours)
                assert secrets[0] in before, "no other host can verify it yet"
        today = (now - datetime(1970, 1, 1, tzinfo=UTC)).days
        # The former file signs too at this moment: the daemon takes a new one over a little later.
        for signing in (before, secrets):
            local_part = Srs(parameters, Keyring(signing)).forward(Address(b"alice", b"a.example"), today)
            made.append((local_part, today))
        made = [(local_part, day) for local_part, day in made if today - day <= maximum_age]
        for local_part, _ in made:
            reversed_ = Srs(parameters, Keyring(secrets)).reverse(local_part, today)
            assert reversed_ == Address(b"alice", b"a.example")


@settings(max_examples=100)
@given(st.integers(0, 23), st.integers(1, 30), st.integers(0, 60 * 24))
def test_a_retired_secret_goes_in_the_end(hour, maximum_age, later_hours):
    now = NOW.replace(hour=hour)
    old = step([A, B], state(waiting=[(B, now - 2 * DAY)]), now=now, maximum_age=maximum_age)
    assert old.secrets == [B, A]
    later = step(old.secrets, old.state, now=now + later_hours * HOUR, maximum_age=maximum_age, new=C)
    assert (A in later.secrets) == (later_hours <= 24 * (maximum_age + 1))


def test_daily_runs_for_two_years_keep_the_file_small():
    secrets, rotation_state, numbers, signed = [A], RotationState(), itertools.count(), set()
    for day in range(730):
        rotation = rotate(
            secrets, rotation_state, NOW + day * DAY, DAY, MAXIMUM_AGE, lambda: b"%d" % next(numbers)
        )
        secrets, rotation_state = rotation.secrets, rotation.state
        signed.add(secrets[0])
        assert len(secrets) <= 15
        assert set(rotation_state.waiting) | set(rotation_state.retired) == set(names(*secrets[1:]))
    assert len(signed) > 300


# The files. The command is run in this process, so that its clock and its end can be chosen.


@pytest.fixture
def host(tmp_path):
    """A configuration with one secret, and srsctl secret rotate on it."""
    secrets = tmp_path / "srs.secrets"
    secrets.touch(mode=0o600)
    secrets.write_bytes(A + b"\n")
    state_directory = tmp_path / "state"
    state_directory.mkdir()
    config = tmp_path / "srsd.toml"
    config.write_text(
        f'state_directory = "{state_directory}"\n[srs]\ndomain = "fwd.example"\nsecrets_file = "{secrets}"\n'
    )

    def run(*options: str):
        return CliRunner().invoke(srsctl, ["--config", str(config), "secret", *options])

    return SimpleNamespace(
        secrets=secrets,
        state=state_directory,
        run=run,
        rotate=lambda *options: run("rotate", *options),
        keyring=lambda: parse_secrets(secrets.read_bytes()),
    )


def test_the_command_takes_both_steps(host):
    first = host.rotate()
    assert first.exit_code == 0, first.output
    old, new = host.keyring()
    assert old == A
    assert len(new) >= 32
    assert new.decode() not in first.output
    early = host.rotate()
    assert (early.exit_code, host.keyring()) == (0, [A, new])
    second = host.rotate("--delay", "0")
    assert (second.exit_code, host.keyring()) == (0, [new, A])
    listed = json.loads(host.run("list", "--json").stdout)
    assert [entry["fingerprint"] for entry in listed] == names(new, A)
    assert listed[0]["role"] == "signs and verifies"
    assert "retired" in listed[1]["role"]
    third = host.rotate("--delay", "0", "--json")
    assert json.loads(third.stdout)["secrets"] == names(*host.keyring())
    assert len(host.keyring()) == 3
    listed = json.loads(host.run("list", "--json").stdout)
    assert "waits to sign" in listed[1]["role"]


def test_the_file_keeps_mode_owner_and_what_an_editor_left(host):
    host.secrets.write_bytes(b"\r\n \t" + A + b" \r\n\n#comment-like\n")
    host.secrets.chmod(0o640)
    if os.geteuid() == 0:
        os.chown(host.secrets, 0, pwd.getpwnam("nobody").pw_gid)
    before = host.secrets.stat()
    for _ in range(3):
        assert host.rotate("--delay", "0").exit_code == 0
    after = host.secrets.stat()
    assert stat.S_IMODE(after.st_mode) == 0o640
    assert (after.st_uid, after.st_gid) == (before.st_uid, before.st_gid)
    assert set(host.keyring()) >= {A, b"#comment-like"}
    assert sorted(os.listdir(host.secrets.parent)) == ["srs.secrets", "srsd.toml", "state"]


@pytest.mark.skipif(os.geteuid() != 0, reason="not root: the state of another user cannot be made")
def test_the_state_belongs_to_the_daemon(host):
    nobody = pwd.getpwnam("nobody")
    os.chown(host.state, nobody.pw_uid, nobody.pw_gid)
    assert host.rotate().exit_code == 0
    status = (host.state / "rotation.json").stat()
    assert (status.st_uid, status.st_gid) == (nobody.pw_uid, nobody.pw_gid)
    assert stat.S_IMODE(status.st_mode) == 0o640
    assert A.decode() not in (host.state / "rotation.json").read_text()


@pytest.mark.skipif(os.geteuid() != 0, reason="not root: nobody else could lay something in the way")
def test_root_follows_nothing_that_the_daemons_user_laid_in_its_way(host, tmp_path):
    """The state directory is the daemon's: a link there must not lead root to other files."""
    precious = tmp_path / "precious"
    precious.write_text("as it was")
    for name in ("rotation.json", f"rotation.json.{os.getpid()}.new"):
        (host.state / name).symlink_to(precious)
    said = host.rotate()
    assert precious.read_text() == "as it was"
    assert said.exit_code in {0, 1}


SLOW_ROTATE = """
import sys, time
import srsd.cli.secret as secret
from srsd.cli.main import main
make = secret._make_secret
def make_slowly():
    time.sleep(0.3)
    return make()
secret._make_secret = make_slowly
main(["--config", sys.argv[1], "secret", "rotate", "--json"])
"""


def test_runs_at_the_same_time_take_one_step_after_the_other(host):
    config = host.secrets.with_name("srsd.toml")
    runs = [
        subprocess.Popen([sys.executable, "-c", SLOW_ROTATE, config], stdout=subprocess.PIPE)
        for _ in range(4)
    ]
    said = [run.communicate(timeout=30)[0] for run in runs]
    assert [run.returncode for run in runs] == [0] * 4
    secrets = host.keyring()
    assert secrets[0] == A
    assert len(secrets) == 2
    # Without turns each would add one, and the last one would throw those of the others away.
    assert [json.loads(text)["secrets"] for text in said] == [names(*secrets)] * 4
    assert set(read_rotation(str(host.state)).waiting) == set(names(secrets[1]))
    assert sorted(os.listdir(host.secrets.parent)) == ["srs.secrets", "srsd.toml", "state"]


class Crash(BaseException):
    """The power fails."""


@pytest.mark.parametrize("crash_at", [0, 1, 2, 3, 4], ids=lambda n: f"write {n}")
@pytest.mark.parametrize("steps", [0, 1, 2, 3], ids=lambda n: f"step {n}")
def test_a_crash_between_writes_costs_nothing(host, monkeypatch, steps, crash_at):
    """Whatever write is the last: no secret that may have signed is lost, and the next runs go on."""
    for _ in range(steps):
        host.rotate("--delay", "0")
    before = host.keyring()
    writes = itertools.count()

    def failing(write):
        def call(*arguments, **options):
            if next(writes) == crash_at:
                raise Crash
            return write(*arguments, **options)

        return call

    with monkeypatch.context() as patch:
        patch.setattr(srsd.cli.secret, "write_file", failing(srsd.cli.secret.write_file))
        patch.setattr(srsd.cli.secret, "write_rotation", failing(srsd.cli.secret.write_rotation))
        try:
            host.rotate("--delay", "0")
        except Crash:
            pass
        else:
            assert crash_at >= next(writes) - 1, "no crash came"
    between = host.keyring()
    assert set(between) >= set(before)
    signed = [before[0], between[0]]
    assert between[0] in before, "what signs could be verified before"
    for _ in range(4):
        latest = host.rotate("--delay", "0")
        assert latest.exit_code == 0, latest.output
        assert set(host.keyring()) >= set(signed)
        signed.append(host.keyring()[0])
    assert len(set(signed)) >= 3, "it does go on"


def test_a_new_secret_is_never_taken_for_an_old_one_after_a_crash(host, monkeypatch):
    """It would stay and never sign: then each crash would leave one more."""
    with monkeypatch.context() as patch:
        count = itertools.count()
        write = srsd.cli.secret.write_rotation

        def second_fails(*arguments):
            if next(count) == 1:
                raise Crash
            write(*arguments)

        patch.setattr(srsd.cli.secret, "write_rotation", second_fails)
        with pytest.raises(Crash):
            host.rotate()
    assert len(host.keyring()) == 2
    host.rotate("--delay", "0")
    assert host.keyring()[1] == A, "the next run lets it sign"
    assert len(host.keyring()) == 2


@pytest.mark.parametrize(
    "text",
    [
        "",
        "rubbish",
        "[]",
        "{}",
        '{"waiting": [], "retired": {}}',
        '{"waiting": {"a": "b"}, "retired": {}}',
        '{"waiting": {"a": 3}, "retired": {}}',
    ],
)
def test_a_state_that_cannot_be_read_stops_the_step(host, text):
    (host.state / "rotation.json").write_text(text)
    said = host.rotate()
    assert said.exit_code == 1
    assert isinstance(said.exception, SystemExit), said.exception
    assert len(said.output.splitlines()) == 1
    assert host.keyring() == [A]
    assert host.run("list").exit_code == 0, "to list them it is not needed"


def test_a_clock_without_zone_in_the_state_stops_the_step_too(host):
    (host.state / "rotation.json").write_text(
        json.dumps({"waiting": {fingerprint(B): "2030-01-01T00:00:00"}, "retired": {}})
    )
    host.secrets.write_bytes(A + b"\n" + B + b"\n")
    said = host.rotate()
    assert isinstance(said.exception, SystemExit) or said.exit_code == 0, said.exception


@pytest.mark.parametrize("problem", ["missing", "empty", "open to others", "no state directory"])
def test_faults_are_one_line_and_change_nothing(host, problem):
    if problem == "missing":
        host.secrets.unlink()
    elif problem == "empty":
        host.secrets.write_bytes(b"\n")
    elif problem == "open to others":
        host.secrets.chmod(0o644)
    else:
        host.state.rmdir()
    before = host.secrets.read_bytes() if host.secrets.exists() else None
    said = host.rotate()
    assert said.exit_code == 1
    assert len(said.output.splitlines()) == 1
    assert str(host.secrets) in said.output
    assert (host.secrets.read_bytes() if host.secrets.exists() else None) == before


def test_a_link_to_the_file_stays_a_link(host):
    """/etc/srsd/srs.secrets may be a link into a directory that is backed up, or shared."""
    real = host.secrets.with_name("elsewhere")
    host.secrets.rename(real)
    host.secrets.symlink_to(real)
    host.rotate()
    assert len(host.keyring()) == 2
    assert parse_secrets(real.read_bytes()) == host.keyring()
    assert host.secrets.is_symlink()


def test_the_state_comes_back_as_it_was_written(tmp_path):
    written = state(waiting=[(A, NOW)], retired=[(B, NOW - DAY), (C, NOW - 2 * DAY)])
    write_rotation(str(tmp_path), written)
    assert read_rotation(str(tmp_path)) == written
