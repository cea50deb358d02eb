"""The man pages are what the code says now, and man programs take them without a warning.

So are the tables of docs/operations.md about `srsctl status --json` and the metrics.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from dataclasses import fields, is_dataclass
from pathlib import Path

import click
import pytest

from srsd.cli.main import main as srsctl
from srsd.config import Config
from srsd.daemon.counters import LATENCY_BOUNDS, Snapshot, StoreSnapshot, no_counts
from srsd.daemon.dns.counters import DnsSnapshot
from srsd.daemon.metrics import MetricsServer
from srsd.daemon.status import Reload, SecretState, Status, WorkerState

CHECKOUT = Path(__file__).parents[2]
MAN = CHECKOUT / "docs/man"
PAGES = ("srsd.8", "srsctl.1", "srsd.toml.5")
# What a page refers to need not be installed where it is checked.
ABOUT_OTHER_PAGES = ("referenced manual not found", "outdated mandoc.db")


def generate(*arguments: str, columns: str = "80") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, CHECKOUT / "scripts/generate-man", *arguments],
        env=os.environ | {"COLUMNS": columns},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def rendered(page: str) -> str:
    """Give a page as a terminal shows it, without wrapping; skip where no program can show it."""
    if shutil.which("mandoc"):
        command = ["mandoc", "-T", "utf8", "-O", "width=500", MAN / page]
    elif shutil.which("groff"):
        command = ["groff", "-mandoc", "-Tutf8", "-rLL=500n", MAN / page]
    else:
        pytest.skip("neither mandoc nor groff is installed (apt-get install mandoc)")
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=True)
    return re.sub(r".\x08|\x1b\[[0-9;]*m", "", done.stdout)


@pytest.mark.parametrize("columns", ["40", "200"])
def test_no_page_is_stale_whatever_the_terminal(columns):
    done = generate("--check", columns=columns)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.parametrize("page", PAGES)
def test_a_page_that_says_something_else_is_found_and_mended(tmp_path, page):
    copy = tmp_path / "man"
    shutil.copytree(MAN, copy)
    right = (copy / page).read_text()
    (copy / page).write_text(right.replace("Default", "Usually").replace("Ended by", "Done by"))
    assert (copy / page).read_text() != right
    done = generate("--check", "--man", str(copy))
    assert (done.returncode, done.stdout.partition(":")[0]) == (1, f"docs/man/{page}")
    assert (copy / page).read_text() != right  # --check changes nothing
    assert generate("--man", str(copy)).returncode == 0
    assert (copy / page).read_text() == right


def test_a_placeholder_that_is_not_known_is_an_error(tmp_path):
    copy = tmp_path / "man"
    shutil.copytree(MAN, copy)
    template = copy / "srsd.8.in"
    template.write_text(template.read_text().replace("@OPTIONS@", "@OPTIOSN@"))
    done = generate("--man", str(copy))
    assert done.returncode == 1
    assert "OPTIOSN" in done.stderr


@pytest.mark.parametrize("page", PAGES)
def test_mandoc_has_no_warning(page):
    if shutil.which("mandoc") is None:
        pytest.skip("mandoc is not installed (apt-get install mandoc)")
    command = ["mandoc", "-T", "lint", "-W", "style", MAN / page]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    lines = (done.stdout + done.stderr).splitlines()
    assert [line for line in lines if not any(words in line for words in ABOUT_OTHER_PAGES)] == []


@pytest.mark.parametrize("page", PAGES)
def test_groff_has_no_warning(page):
    if shutil.which("groff") is None:
        pytest.skip("groff is not installed (apt-get install groff)")
    command = ["groff", "-mandoc", "-Tutf8", "-ww", MAN / page]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("page", PAGES)
def test_man_has_no_warning(page):
    if shutil.which("man") is None or shutil.which("groff") is None:
        pytest.skip("man is not installed (apt-get install man-db groff)")
    command = ["man", "--warnings", "-E", "UTF-8", "-l", "-Tutf8", MAN / page]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_every_key_of_the_configuration_has_its_entry():
    text = rendered("srsd.toml.5")
    for section in [Config(), *(getattr(Config(), each.name) for each in fields(Config))]:
        if not is_dataclass(section):
            continue
        for key in (each for each in fields(section) if "doc" in each.metadata):
            assert re.search(rf"^ +{key.name} = \S", text, re.MULTILINE), key.name
            assert key.metadata["doc"].split(". ")[0][:60] in text


def test_every_command_has_its_section_with_an_example():
    text = rendered("srsctl.1")
    seen = 0
    for name, command in srsctl.commands.items():
        parts = command.commands if isinstance(command, click.Group) else {"": command}
        for part, each in parts.items():
            path = f"{name} {part}".strip()
            section = re.search(rf"^ +{path}\n(.*?)(?=^ {{1,3}}\S|^\S)", text, re.MULTILINE | re.DOTALL)
            assert section, path
            assert f"srsctl {path}" in section[1]
            assert each.epilog.removeprefix("Example: ") in section[1]
            for option in (option for option in each.params if isinstance(option, click.Option)):
                assert f"{option.opts[0]}" in section[1], (path, option.opts)
            seen += 1
    assert seen > 9


def tables_of(heading: str) -> dict[str, list[str]]:
    """Give the names in the first column of each table under a heading, by the text before the table."""
    page = (CHECKOUT / "docs/operations.md").read_text()
    part = re.split(r"^#+ ", page.partition(f"# {heading}\n")[2], maxsplit=1, flags=re.MULTILINE)[0]
    tables: dict[str, list[str]] = {}
    before = ""
    for line in part.splitlines():
        if match := re.match(r"\| `([a-z_]+)`", line):
            tables.setdefault(before, []).append(match[1])
        elif line and not line.startswith(("|", "<!--")):
            before = line
    return tables


def test_the_json_of_status_is_documented():
    documented = tables_of("The JSON of status")
    top, *others = documented.values()
    assert top == list(Status.__annotations__)
    assert others == [
        list(each.__annotations__)
        for each in (Reload, WorkerState, SecretState, Snapshot, DnsSnapshot, StoreSnapshot)
    ]


def test_the_metrics_are_documented():
    counters = no_counts()
    counters["lookups"] = [("srs_forward", "forward", "found", "rewritten", 1)]
    status = Status(
        version="0",
        pid=1,
        started="2026-11-23T00:00:00+00:00",
        started_timestamp=0.0,
        uptime_seconds=0,
        event_loop="asyncio",
        configuration="/etc/srsd/srsd.toml",
        last_reload=Reload(time="2026-11-23T00:00:00+00:00", good=True, faults=[]),
        listeners=[],
        workers=[],
        secrets=[],
        counters=counters,
        latency_bounds=list(LATENCY_BOUNDS),
        lookups_per_second={},
    )
    page = MetricsServer(lambda: status)._respond(b"GET /metrics HTTP/1.1").decode()
    served = re.findall(r"^# TYPE (\S+)", page, re.MULTILINE)
    (documented,) = tables_of("Metrics").values()
    assert documented == served
    rules = re.findall(r"\bsrsd_\w+", (CHECKOUT / "docs/operations.md").read_text())
    assert set(rules) <= set(served)
