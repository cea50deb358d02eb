"""Counters: what is raised where, and that sums over processes are sums."""

from __future__ import annotations

import json
from functools import partial

import pytest
from hypothesis import given
from hypothesis import strategies as st

from srsd.daemon.counters import LATENCY_BOUNDS, Counters, LookupKind, add_up, no_counts

FORWARD = LookupKind("srs_forward", "forward", "found", "rewritten")
REVERSE = LookupKind("srs_reverse", "reverse", "not_found", "not an SRS address")


def test_a_new_one_has_counted_nothing():
    snapshot = Counters().snapshot()
    assert snapshot == no_counts()
    assert snapshot["lookups"] == []
    assert snapshot["latency"] == [0] * (len(LATENCY_BOUNDS) + 1)
    assert snapshot["latency_sum"] == 0


def test_tallies_are_kept_by_kind():
    counters = Counters()
    counters.tally(FORWARD).count += 2
    counters.tally(FORWARD).count += 1
    counters.tally(REVERSE).count += 5
    counters.tally(LookupKind("socketmap", "", "permanent", "x"))  # never raised: not shown
    assert sorted(counters.snapshot()["lookups"]) == [(*FORWARD, 3), (*REVERSE, 5)]


@pytest.mark.parametrize("index", range(len(LATENCY_BOUNDS)))
def test_a_time_counts_in_the_class_whose_bound_it_does_not_exceed(index):
    counters = Counters()
    counters.took(LATENCY_BOUNDS[index])  # Prometheus' classes are "less or equal"
    counters.took(LATENCY_BOUNDS[index] * 1.001)
    latency = counters.snapshot()["latency"]
    assert (latency[index], latency[index + 1], sum(latency)) == (1, 1, 2)


def test_times_above_all_bounds_and_none_at_all():
    counters = Counters()
    counters.took(3600.0)
    counters.took(0.0)
    snapshot = counters.snapshot()
    assert (snapshot["latency"][0], snapshot["latency"][-1]) == (1, 1)
    assert snapshot["latency_sum"] == 3600.0


def test_bounds_ascend():
    assert list(LATENCY_BOUNDS) == sorted(set(LATENCY_BOUNDS))


def test_a_snapshot_does_not_change_any_more():
    counters = Counters()
    counters.tally(FORWARD).count += 1
    snapshot = counters.snapshot()
    counters.tally(FORWARD).count += 1
    counters.took(1.0)
    counters.connections_opened += 1
    assert snapshot["lookups"] == [(*FORWARD, 1)]
    assert sum(snapshot["latency"]) == 0
    assert snapshot["connections_opened"] == 0


def test_the_sum_of_nothing_is_nothing():
    assert add_up([]) == no_counts()


KINDS = st.sampled_from([FORWARD, REVERSE, LookupKind("socketmap", "forward", "found", "rewritten")])


@st.composite
def snapshots(draw):
    counters = Counters()
    for kind in draw(st.lists(KINDS, max_size=8)):
        counters.tally(kind).count += 1
    for seconds in draw(st.lists(st.floats(0, 5), max_size=8)):
        counters.took(seconds)
    counters.connections_opened = draw(st.integers(0, 1000))
    counters.connections_open = draw(st.integers(0, 1000))
    counters.connections_cut = draw(st.integers(0, 1000))
    for kind in draw(st.lists(st.sampled_from(["outside", "internal network"]), max_size=4)):
        counters.count("messages", kind)
    counters.bugs = draw(st.integers(0, 3))
    counters.dns.hits = draw(st.integers(0, 1000))
    return counters.snapshot()


@given(st.lists(snapshots(), max_size=6))
def test_sums_are_sums(parts):
    before = json.dumps(parts)
    total = add_up(parts)
    assert json.dumps(parts) == before, "the parts are left alone"
    for kind in (FORWARD, REVERSE):
        expected = sum(count for part in parts for *each, count in part["lookups"] if tuple(each) == kind)
        assert sum(count for *each, count in total["lookups"] if tuple(each) == kind) == expected
    assert len({tuple(each) for *each, _ in total["lookups"]}) == len(total["lookups"])
    for index in range(len(LATENCY_BOUNDS) + 1):
        assert total["latency"][index] == sum(part["latency"][index] for part in parts)
    for name in ("connections_opened", "connections_open", "connections_cut"):
        assert total[name] == sum(part[name] for part in parts)
    for kind in ("outside", "internal network"):
        counts = [count for part in parts for _, each, count in part["events"] if each == kind]
        assert [count for _, each, count in total["events"] if each == kind] == [sum(counts)][: len(counts)]
    assert total["bugs"] == sum(part["bugs"] for part in parts)
    assert total["dns"]["hits"] == sum(part["dns"]["hits"] for part in parts)
    assert total["latency_sum"] == pytest.approx(sum(part["latency_sum"] for part in parts))


@given(st.lists(snapshots(), max_size=6), st.integers(0, 6))
def test_it_makes_no_difference_in_which_portions_they_are_added(parts, cut):
    in_portions = add_up([add_up(parts[:cut]), add_up(parts[cut:])])
    at_once = add_up(parts)
    assert in_portions["lookups"] == at_once["lookups"]
    assert in_portions["latency"] == at_once["latency"]
    assert in_portions["connections_opened"] == at_once["connections_opened"]


FORGERS = st.dictionaries(st.sampled_from("abcdefghijklmnop"), st.integers(1, 9), max_size=10)


@given(st.lists(FORGERS, max_size=4))
def test_of_all_forgers_the_ten_worst_are_shown(parts):
    given_parts = []
    for part in parts:
        counters = Counters()
        counters.worst_forgers = partial(list, part.items())
        given_parts.append(counters.snapshot())
    total = {
        name: sum(part.get(name, 0) for part in parts) for name in {name for part in parts for name in part}
    }
    shown = add_up(given_parts)["forgers"]
    assert [count for _, count in shown] == sorted(total.values(), reverse=True)[:10]
    assert all(total[name] == count for name, count in shown)
    assert len(dict(shown)) == len(shown)


@given(st.lists(snapshots(), max_size=3))
def test_they_add_up_after_json_too(parts):
    """Workers send them as JSON, where tuples are lists."""
    sent = json.loads(json.dumps(parts))
    assert add_up(sent) == add_up(parts)
