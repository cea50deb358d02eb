"""End-to-end tests: two real hosts, wired one way for all tests, then the other."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from harness import postfix
from harness.forwarder import WIRINGS
from harness.milter_host import told
from harness.net import Net, two_hosts, unique_sender

if TYPE_CHECKING:
    from collections.abc import Iterator

    from harness.milter_host import MilterHost

FIGURES = pytest.StashKey[list[str]]()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    reason = postfix.why_not()
    for item in items:
        if reason and item.get_closest_marker("e2e"):
            item.add_marker(pytest.mark.skip(reason=reason))


@pytest.fixture(scope="session", params=WIRINGS)
def net(request: pytest.FixtureRequest) -> Iterator[Net]:
    """Both hosts, running; the session's tests of one wiring share them."""
    with two_hosts(request.param) as net:
        yield net


@pytest.fixture
def host(running_host: MilterHost) -> Iterator[MilterHost]:
    """The host that a module's tests share, its running_host; what it logged is shown with a failure."""
    with told(running_host):
        yield running_host


@pytest.fixture
def alice() -> str:
    """A remote sender that no other test uses, so that what comes back to her is this test's."""
    return unique_sender()


@pytest.fixture
def figures(pytestconfig: pytest.Config) -> list[str]:
    """Lines that the run prints at its end, whether tests pass or not."""
    return pytestconfig.stash.setdefault(FIGURES, [])


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    if lines := config.stash.get(FIGURES, []):
        terminalreporter.section("srsd killed and restarted under a real Postfix")
        terminalreporter.write_line("\n".join(lines))


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    """Show the logs of both hosts with a failure."""
    outcome = yield
    report = outcome.get_result()
    net = getattr(item, "funcargs", {}).get("net")
    if report.when == "call" and report.failed and net is not None:
        for host in (net.first, net.second):
            report.sections.append(
                (f"Postfix of {host.name}", "\n".join(host.postfix.log().splitlines()[-40:]))
            )
            report.sections.append((f"srsd of {host.name}", "\n".join(host.srsd.log[-40:])))
