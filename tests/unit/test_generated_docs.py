"""The generated parts of docs/ are what the code says now."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).parents[2]


def generate(*arguments: str, columns: str = "80") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, CHECKOUT / "scripts/generate-docs", *arguments],
        env=os.environ | {"COLUMNS": columns},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.mark.parametrize("columns", ["40", "200"])
def test_no_page_is_stale_whatever_the_terminal(columns):
    done = generate("--check", columns=columns)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.parametrize(
    ("page", "true", "false"),
    [
        ("configure.md", "| `maximum_age` |", "| `max_age` |"),
        ("srsctl.md", "Rewrite the sender ADDRESS.", "Rewrite ADDRESS."),
    ],
)
def test_a_page_that_says_something_else_is_found_and_mended(tmp_path, page, true, false):
    docs = tmp_path / "docs"
    shutil.copytree(CHECKOUT / "docs", docs)
    right = (docs / page).read_text()
    assert true in right
    (docs / page).write_text(right.replace(true, false))
    done = generate("--check", "--docs", str(docs))
    assert done.returncode == 1
    assert done.stdout.startswith(f"docs/{page}: is stale")
    assert (docs / page).read_text() != right  # --check changes nothing
    assert generate("--docs", str(docs)).returncode == 0
    assert (docs / page).read_text() == right


def test_what_is_written_by_hand_stays(tmp_path):
    docs = tmp_path / "docs"
    shutil.copytree(CHECKOUT / "docs", docs)
    page = docs / "configure.md"
    page.write_text("By hand.\n" + page.read_text() + "\nAlso by hand.\n")
    generate("--docs", str(docs))
    assert page.read_text().startswith("By hand.\n")
    assert page.read_text().endswith("\nAlso by hand.\n")
