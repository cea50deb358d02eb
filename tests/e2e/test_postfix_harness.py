"""The harness itself: a private Postfix that cannot block itself by its log, and that always ends."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from harness import postfix as harness_postfix
from harness.alias_host import AliasHost
from harness.postfix import Postfix, last_settings

pytestmark = pytest.mark.e2e


@pytest.fixture
def instance() -> Postfix:
    return Postfix("harness", hostname="mx.harness.example", relay_port=9)


def running(directory: Path) -> list[int]:
    """The processes whose command line or environment names the instance's directory."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            told = (process / "cmdline").read_bytes() + (process / "environ").read_bytes()
        except OSError:  # it ended while we looked
            continue
        if str(directory).encode() in told:
            found.append(int(process.name))
    return found


def test_the_last_setting_of_a_parameter_is_kept_with_all_its_lines():
    text = "a = 1\n# a comment\nb = one,\n # another\n two\n\nc=\na=3\nb = four,\n five"
    assert last_settings(text) == "a=3\nb = four,\n five\nc=\n"


def test_no_program_warns_of_the_configuration():
    with AliasHost("hash", virtual={"bob@virtual.example": "bob@far.example"}) as host:
        host.leaves("alice@origin.example", "bob@virtual.example")
        assert "warning" not in host.postfix.log()


def test_an_instance_leaves_nothing_behind(instance: Postfix):
    with instance:
        assert running(instance.directory)
        assert "daemon started" in instance.log()  # so postlogd is past its start
    assert not running(instance.directory)
    assert not instance.directory.exists()


@pytest.mark.parametrize("name", ["master", "postlogd"])
def test_an_instance_that_hangs_is_killed_and_named(instance: Postfix, name, monkeypatch):
    instance.start()
    named = [int(text.split()[0]) for text in instance._processes().values() if text.endswith(f" {name}")]
    for process in named:
        os.kill(process, signal.SIGSTOP)  # until SIGCONT it does not see SIGTERM
    assert named
    monkeypatch.setattr(harness_postfix, "DEADLINE", 0.5)
    with pytest.raises(
        RuntimeError, match=rf"did not end within 0\.5 s.* {name}.*; see {instance.directory}"
    ):
        instance.stop()
    monkeypatch.undo()
    instance.stop()  # what was killed has ended, and the directory goes
    assert not instance.directory.exists()
    assert not running(instance.directory)


def test_a_start_that_fails_leaves_nothing_behind(instance: Postfix):
    instance.main_cf = "inet_interfaces = 192.0.2.1\n"
    with pytest.raises(RuntimeError, match="exit status"), instance:
        pytest.fail("it started")
    assert not running(instance.directory)
    assert not instance.directory.exists()
