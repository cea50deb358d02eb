"""What all tests share."""

from __future__ import annotations

import logging
import os

import pytest
from hypothesis import HealthCheck, settings

# Machines that run tests are busy: slowness alone is no failure. Examples are the same in each run, so that a
# failure tells of the change and not of luck; "make fuzz" looks for new ones.
settings.register_profile(
    "srsd", deadline=None, derandomize=True, print_blob=True, suppress_health_check=[HealthCheck.too_slow]
)
settings.register_profile("random", settings.get_profile("srsd"), derandomize=False, max_examples=1000)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "srsd"))


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
