"""What some of the Pythons that srsd runs on do wrong must not be used."""

from __future__ import annotations

import re
from pathlib import Path

import srsd

ROOT = Path(srsd.__file__).parent
# Before 3.11.5, as on Debian 12, a possessive group that fails leaves the position in its middle
# (CPython issue 106052). srsd.syntax.structured has many() and optional().
POSSESSIVE_GROUP = re.compile(r"\)(?:[*+?]|\{[0-9,]+\})\+")


def test_no_regular_expression_has_a_possessive_group():
    found = [
        f"{path.relative_to(ROOT)}:{number}"
        for path in sorted(ROOT.rglob("*.py"))
        for number, line in enumerate(path.read_text().splitlines(), 1)
        if POSSESSIVE_GROUP.search(line) and "CPython issue" not in line and "not `" not in line
    ]
    assert found == []
