"""New material in force: what a process keeps of what it knows, and what it forgets."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from harness.daemon import write_config
from srsd.daemon.counters import Counters
from srsd.daemon.files import Material, Sources
from srsd.daemon.service import Service
from srsd.filter.forwarding import Expansion

if TYPE_CHECKING:
    from pathlib import Path

    from srsd.daemon.expansion.expander import PostfixExpander

SECRET = "a secret of the tests"
KNOWN = b"<bob@here.example>"


class Bench:
    """A service that knows where one recipient leads, and has spent its budget for deferrals."""

    def __init__(self, directory: Path, **srs: Any) -> None:
        self.directory = directory
        self.sources = Sources(self.write(**srs))
        self.service = Service(self.sources.files.material, Counters())
        assert self.expander is not None
        self.expander._keep(KNOWN, Expansion(b"bob@far.example", KNOWN))
        while self.service.mail_filter.policy._budget.spend():
            pass

    def write(self, exclude: str = "", budget: int = 3, **srs: Any) -> str:
        return str(
            write_config(
                self.directory,
                secrets=[SECRET],
                exclude=exclude,
                listen={"milter": ["inet:127.0.0.1:0"], "control": []},
                srs={"domain": "srs.example", "mode": "milter", **srs},
                policy={"defer_budget": budget},
            )
        )

    @property
    def expander(self) -> PostfixExpander | None:
        return self.service._expander

    @property
    def knows(self) -> bool:
        assert self.expander is not None
        return self.expander.known([KNOWN], b"alice@far.example") is not None

    def reload(self, **srs: Any) -> None:
        """Have everything read again, as SIGHUP does."""
        self.write(**srs)
        assert self.sources.reload() == []
        self.service.put_in_force(self.sources.files.material)

    def change(self, **srs: Any) -> None:
        """Have a changed file taken in, as the second hand does."""
        self.write(**srs)
        assert any([self.sources.poll(), self.sources.poll()])
        self.service.put_in_force(self.sources.files.material)


@pytest.fixture
def bench(tmp_path):
    async def make() -> Bench:
        return Bench(tmp_path)

    return asyncio.run(make())


def test_a_changed_exclusion_map_costs_no_answer_that_is_known(bench):
    expander = bench.expander
    bench.change(exclude="@friend.example\n")
    assert bench.knows
    assert bench.expander is expander
    assert bench.service.mail_filter.rules.forwarding._expander is expander


def test_who_asks_for_a_reload_gets_everything_anew(bench):
    bench.reload()
    assert not bench.knows
    bench.expander._keep(KNOWN, Expansion())
    bench.change(exclude="@friend.example\n")
    assert bench.knows
    bench.reload(exclude="@friend.example\n")
    assert not bench.knows


def test_other_settings_are_taken_by_the_one_expander(bench):
    """Connections that are open ask it, too: so it must not be one that nobody tends any more."""
    expander = bench.expander
    bench.reload(relayed="stays")
    assert bench.expander is expander
    assert expander.parameters.relayed == "stays"
    bench.reload(mode="maps")
    assert bench.expander is expander
    assert bench.service.mail_filter.rules.forwarding is None
    bench.reload()
    assert bench.service.mail_filter.rules.forwarding._expander is expander


def test_a_budget_that_is_spent_stays_spent(bench):
    bench.change(exclude="@friend.example\n")
    bench.reload()
    assert not bench.service.mail_filter.policy._budget.spend()
    bench.service.mail_filter.policy._budget.restore()
    bench.reload()
    assert bench.service.mail_filter.policy._budget.spend()


def test_another_budget_is_whole(bench):
    bench.reload(budget=2)
    spent = [bench.service.mail_filter.policy._budget.spend() for _ in range(3)]
    assert spent == [True, True, False]


def test_workers_hear_of_reloads(bench):
    material = bench.sources.files.material
    bench.reload()
    assert Material(*bench.sources.files.material).reloads != material.reloads
