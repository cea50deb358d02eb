"""Starts srsd for the black-box tests, ends it, and looks through everything that it logged."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from harness.daemon import DEADLINE, LOOPBACK, Srsd, command, write_config
from harness.running import running
from harness.wire_clients import SECRETS, SRS_DOMAIN, check_log

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

LOOPBACK_6 = "inet:[::1]:0"


def new_directory() -> Path:
    """Make a directory that another user gets into, which pytest's own are not."""
    directory = Path(tempfile.mkdtemp(prefix="srsd-test-"))
    directory.chmod(0o755)
    return directory


@pytest.fixture
def directory() -> Iterator[Path]:
    made = new_directory()
    yield made
    shutil.rmtree(made)


def configure(directory: Path, **tables: Any) -> Path:
    """Write a configuration with the tests' SRS domain and secrets; [srs] of tables adds to it."""
    tables["srs"] = {"domain": SRS_DOMAIN, **tables.get("srs", {})}
    return write_config(directory, secrets=tables.pop("secrets", SECRETS), **tables)


@pytest.fixture
def config(directory) -> Callable[..., Path]:
    """Write a configuration into the test's directory."""
    return lambda **tables: configure(directory, **tables)


@pytest.fixture
def start() -> Iterator[Callable[..., Srsd]]:
    """Start srsd; it is ended after the test, with status 0, and its log looked through."""
    started: list[Srsd] = []

    def start(config: Path, *options: str, **how: Any) -> Srsd:
        srsd = Srsd(config, *options, **how)
        started.append(srsd)
        return srsd.start()

    yield start
    statuses = [srsd.terminate() if srsd.returncode is None else 0 for srsd in started]
    for srsd in started:
        check_log(srsd.log)
    assert not any(statuses), statuses


@pytest.fixture
def refused() -> Callable[..., tuple[int, list[str]]]:
    """Start srsd where it must not start; gives its exit status and its log."""

    def refused(config: Path, *options: str, argv: list[str] | None = None, **how: Any) -> Any:
        line = [*(argv or command()), "--config", str(config), *options]
        ended = subprocess.run(line, capture_output=True, timeout=DEADLINE, check=False, **how)
        log = ended.stderr.decode().splitlines()
        check_log(log)
        return ended.returncode, log

    return refused


@pytest.fixture(scope="session")
def shared() -> Iterator[Srsd]:
    """One srsd on every wire, for tests that leave it as it was."""
    directory = new_directory()
    config = configure(
        directory,
        srs={
            "local_domains": ["own.example", ".sub.example", "bücher.example"],
            "previous_domains": ["old.example.net"],
        },
        exclude="# left alone\n@friend.example\nvip@origin.example  srs, spf\nspam@origin.example dkim\n",
        listen={
            "srs_forward": [LOOPBACK, LOOPBACK_6],
            "srs_reverse": [LOOPBACK, LOOPBACK_6],
            "socketmap": [LOOPBACK, LOOPBACK_6, f"unix:{directory}/socketmap"],
        },
    )
    with Srsd(config) as srsd:
        yield srsd
    check_log(srsd.log)
    assert srsd.returncode == 0
    shutil.rmtree(directory)


@pytest.fixture(scope="module")
def tables() -> dict[str, Any]:
    """What a module's srsd has in its configuration besides what running() writes; a module may say more."""
    return {}


@pytest.fixture(scope="module")
def srsd(tables) -> Iterator[Srsd]:
    """One srsd for a module's tests, one process."""
    with running(**tables) as srsd:
        yield srsd


@pytest.fixture(scope="module", params=[1, 2], ids=["one process", "two workers"])
def each(request, srsd, tables) -> Iterator[Srsd]:
    """Both kinds of daemon."""
    if request.param == 1:
        yield srsd
        return
    with running(workers=2, **tables) as several:
        yield several


@pytest.fixture
def as_root() -> None:
    if os.geteuid() != 0:
        pytest.skip("not root: srsd cannot drop privileges here")
