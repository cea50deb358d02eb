"""The package can be deleted: none of the evaluators, and nothing below them, knows of it."""

from __future__ import annotations

import ast
from pathlib import Path

import srsd

ROOT = Path(srsd.__file__).parent
MAY_KNOW = ("arc", "filter", "cli", "daemon", "config.py")


def test_nothing_beside_or_below_imports_it():
    others = [path for path in ROOT.rglob("*.py") if path.relative_to(ROOT).parts[0] not in MAY_KNOW]
    assert len(others) > 40
    for path in others:
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            assert not [name for name in names if name.startswith("srsd.arc")], path
