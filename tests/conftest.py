"""What all tests share."""

from __future__ import annotations

import logging

import pytest
from hypothesis import HealthCheck, settings

# Machines that run tests are busy: slowness alone is no failure.
settings.register_profile(
    "srsd", deadline=None, print_blob=True, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("srsd")


def pytest_make_parametrize_id(config: pytest.Config, val: object, argname: str) -> str | None:
    """Name a long value by its argument: it may hold a key made just now, and names must be the same again."""
    return argname if isinstance(val, bytes | str) and len(val) > 40 else None


@pytest.fixture
def no_coverage_in_children(monkeypatch):
    """Do not measure processes that become another user: they could not write what they measured."""
    monkeypatch.delenv("COVERAGE_PROCESS_CONFIG", raising=False)
    monkeypatch.delenv("COVERAGE_PROCESS_START", raising=False)


@pytest.fixture(autouse=True)
def _logging_as_it_was():
    """Undo set_up_logging, which takes the root logger for the whole process."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
