"""The ladder of layers: who may import whom, and what the pure layers must not touch."""

from __future__ import annotations

import ast
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

import srsd

ROOT = Path(srsd.__file__).parent
DAEMON_AND_CLI, COMPOSITION, PURE = 4, 3, 2

# A module belongs to the longest prefix that fits it. One that fits none has to be given a rung here.
RUNGS = {
    "srsd": 0,  # the version
    "srsd.errors": 0,
    "srsd.syntax": 0,
    "srsd.wire": 1,
    "srsd.srs": 1,
    "srsd.exclusion": 1,
    "srsd.rotation": 1,
    "srsd.authres": 1,
    "srsd.resolving": 1,
    "srsd.crypto": 1,
    "srsd.dkim": 2,
    "srsd.spf": 2,
    "srsd.arc": 2,
    "srsd.dmarc": 2,
    "srsd.filter": COMPOSITION,
    "srsd.address_store": COMPOSITION,
    "srsd.lookup": COMPOSITION,
    "srsd.config": COMPOSITION,
    "srsd.config_checks": COMPOSITION,
    "srsd.config_text": COMPOSITION,
    "srsd.daemon": DAEMON_AND_CLI,
    "srsd.cli": DAEMON_AND_CLI,
}

# Each package from elsewhere, and the only modules that may import it.
FOREIGN = {
    "idna": ("srsd.syntax.domain",),
    "cryptography": ("srsd.crypto",),
    "cattrs": ("srsd.config_text",),
    "dns": ("srsd.resolving", "srsd.daemon"),
    "uvloop": ("srsd.daemon",),
    "click": ("srsd.cli",),
    "rich": ("srsd.cli",),
    "tomlkit": ("srsd.cli",),
    "prometheus_client": ("srsd.daemon.metrics",),
    "dkim": ("srsd.cli.second_opinion",),
    "spf": ("srsd.cli.second_opinion",),
}

# Clock, randomness, files, network and log are arguments of what is pure.
WORLD = {
    "asyncio", "socket", "time", "random", "os", "logging",
    "secrets", "select", "selectors", "shutil", "signal", "ssl", "subprocess", "tempfile", "threading",
    "pathlib", "io", "multiprocessing", "pwd", "grp", "sys",
}  # fmt: skip
CLOCK_CALLS = {"now", "utcnow", "today"}


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_name(path): path for path in sorted(ROOT.rglob("*.py"))}


def belongs(name: str, prefix: str) -> bool:
    return name == prefix or name.startswith(prefix + ".")


def rung(name: str) -> int | None:
    prefixes = [prefix for prefix in RUNGS if prefix != "srsd" and belongs(name, prefix)]
    if prefixes:
        return RUNGS[max(prefixes, key=len)]
    return RUNGS["srsd"] if name == "srsd" else None


@cache
def tree(name: str) -> ast.Module:
    return ast.parse(MODULES[name].read_text(encoding="utf-8"))


@cache
def imports(name: str) -> frozenset[str]:
    """Give the modules that a module imports, also those for its types alone and those inside functions."""
    found = set()
    for node in ast.walk(tree(name)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name}: a relative import; write where it comes from"
            assert node.module is not None
            inner = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= {each if each in MODULES else node.module for each in inner}
    return frozenset(found)


def ours(name: str) -> list[str]:
    return sorted(target for target in imports(name) if belongs(target, "srsd"))


def test_the_modules_are_found():
    assert len(MODULES) > 20
    assert "srsd.lookup" in MODULES
    assert "srsd.srs" in ours("srsd.lookup")
    assert "asyncio" in imports("srsd.daemon.main")


@pytest.mark.parametrize("name", MODULES)
def test_every_module_has_a_rung(name):
    assert rung(name) is not None, f"{name} fits no rung: give it one in RUNGS and in docs/architecture.md"


@pytest.mark.parametrize("name", MODULES)
def test_a_module_imports_only_from_its_rung_or_lower(name):
    own = rung(name)
    assert own is not None
    upwards = [target for target in ours(name) if target not in MODULES or (rung(target) or 0) > own]
    assert not upwards, f"{name} (layer {own}) imports {', '.join(upwards)}"


def test_there_is_no_import_cycle():
    done: set[str] = set()

    def visit(name: str, way: tuple[str, ...]) -> None:
        assert name not in way, "import cycle: " + " -> ".join((*way[way.index(name) :], name))
        if name not in done:
            for target in ours(name):
                visit(target, (*way, name))
            done.add(name)

    for name in MODULES:
        visit(name, ())
    assert done == set(MODULES)


@pytest.mark.parametrize("name", [name for name in MODULES if (rung(name) or 0) <= COMPOSITION])
def test_what_is_pure_does_not_touch_the_world(name):
    forbidden = WORLD - {"asyncio"} if rung(name) == COMPOSITION else WORLD
    touched = {target.split(".")[0] for target in imports(name)} & forbidden
    assert not touched, f"{name} imports {', '.join(sorted(touched))}"
    for node in ast.walk(tree(name)):
        if isinstance(node, ast.Call):
            called = node.func
            assert not (isinstance(called, ast.Attribute) and called.attr in CLOCK_CALLS), (
                f"{name}:{node.lineno} asks the clock"
            )
            assert not (isinstance(called, ast.Name) and called.id in ("open", "print", "input")), (
                f"{name}:{node.lineno} touches the world"
            )


@pytest.mark.parametrize("name", MODULES)
def test_packages_from_elsewhere_have_their_one_place(name):
    for target in imports(name):
        top = target.split(".")[0]
        if top == "srsd" or top in sys.stdlib_module_names:
            continue
        places = FOREIGN.get(top, ())
        assert any(belongs(name, place) for place in places), f"{name} imports {top}, only {places} may"


@pytest.mark.parametrize("name", [name for name in MODULES if belongs(name, "srsd.daemon")])
def test_the_daemon_does_not_import_the_command_line(name):
    assert not [target for target in ours(name) if belongs(target, "srsd.cli")]


@pytest.mark.usefixtures("no_coverage_in_children")  # which loads sqlite3 itself
def test_the_running_daemon_loads_nothing_of_the_command_line():
    program = "import sys, srsd.daemon.main; print(*sorted(sys.modules))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    loaded = {name.split(".")[0] for name in done.stdout.split()}
    assert "srsd" in loaded
    assert not loaded & {"click", "rich", "tomlkit", "prometheus_client", "sqlite3"}
    assert "srsd.cli" not in done.stdout.split()
