"""SRS in the milter, in a real Postfix: what leaves the host is rewritten, what stays is not."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from harness.alias_host import AliasHost
from harness.milter_host import told

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.e2e

ALICE = "alice@origin.example"
REWRITTEN = "SRS0="
VIRTUAL = {
    "bob@virtual.example": "bob@far.example",
    "stay@virtual.example": "bob@here.example",
    "nested@virtual.example": "nested2@virtual.example",
    "nested2@virtual.example": "stay@virtual.example, nested3@virtual.example",
    "nested3@virtual.example": "carol@far.example",
    "self@virtual.example": "self@virtual.example, dave@far.example",
    "plus@virtual.example": "plus@far.example",
    "plus+special@virtual.example": "bob@here.example",
    "toalias@virtual.example": "out@here.example",
    "@catchall.example": "catcher@far.example",
    "inside@catchall.example": "bob@here.example",
}
PATTERNS = {
    "/^bob@virtual\\.example$/": "bob@far.example",
    "/^(nested2|stay)@virtual\\.example$/": "bob@here.example",
    "/^nested@virtual\\.example$/": "nested3@virtual.example",
    "/^nested3@virtual\\.example$/": "carol@far.example",
    "/^inside@catchall\\.example$/": "bob@here.example",
    "/@catchall\\.example$/": "catcher@far.example",
}
ALIASES = {
    "out": "out@far.example",
    "in": "bob",
    "both": "bob, both@far.example",
    "keep": "\\keep, keep@far.example",
    "nest": "in, nest2",
    "nest2": "out",
    "command": '"|cat >/dev/null"',
    "list": "carol, member@far.example",
    "owner-list": "bob",
    "dave": "dave",
    "viavirtual": "bob@virtual.example",
}
LEAVES = [
    "bob@virtual.example",
    "nested@virtual.example",
    "self@virtual.example",
    "plus@virtual.example",
    "plus+tag@virtual.example",
    "toalias@virtual.example",
    "anything@catchall.example",
    "out@here.example",
    "OUT@Here.Example",
    "out+tag@here.example",
    "nest@here.example",
    "viavirtual@here.example",
    "both@here.example",
    "keep@here.example",
]
STAYS = [
    "stay@virtual.example",
    "plus+special@virtual.example",
    "inside@catchall.example",
    "in@here.example",
    "bob@here.example",
    "bob+tag@here.example",
    "dave@here.example",
    "anyone@mailbox.example",
]


@pytest.fixture(scope="module")
def running_host() -> Iterator[AliasHost]:
    with AliasHost("hash", virtual=VIRTUAL, aliases=ALIASES) as host:
        yield host


@pytest.fixture
def host(running_host: AliasHost) -> Iterator[AliasHost]:
    with told(running_host):
        yield running_host


@pytest.fixture(scope="module")
def control() -> Iterator[AliasHost]:
    """The same host in maps mode."""
    with AliasHost("hash", virtual=VIRTUAL, aliases=ALIASES, mode="maps") as host:
        yield host


@pytest.mark.parametrize("recipient", LEAVES)
def test_what_leaves_is_rewritten(host: AliasHost, recipient):
    assert host.leaves(ALICE, recipient).startswith(REWRITTEN)


@pytest.mark.parametrize("recipient", STAYS)
def test_what_stays_keeps_its_sender(host: AliasHost, recipient):
    assert host.stays(ALICE, recipient) == ALICE


@pytest.mark.parametrize("recipient", STAYS[:5])
def test_in_maps_mode_everything_is_rewritten(control: AliasHost, recipient):
    assert control.stays(ALICE, recipient).startswith(REWRITTEN)
    assert control.leaves(ALICE, "bob@virtual.example").startswith(REWRITTEN)
