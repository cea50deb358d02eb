"""Counting by client, against a list of all that ever happened."""

from __future__ import annotations

from ipaddress import ip_address

from hypothesis import given
from hypothesis import strategies as st

from srsd.filter.forgers import SHARE_SECONDS, Forgers, name_of

HOUR = 3600.0
CLIENTS = st.sampled_from(
    ["192.0.2.1", "192.0.2.2", "192.0.2.3", "2001:db8::1", "2001:db8::2", "2001:db8:0:1::1"]
).map(ip_address)
EVENTS = st.lists(st.tuples(CLIENTS, st.floats(0, HOUR)), max_size=60)


@given(EVENTS, st.floats(0, 1e9))
def test_a_count_is_that_of_the_last_55_to_60_minutes(events, start):
    forgers, seen, now = Forgers(), [], start
    for client, pause in events:
        now += pause
        count = forgers.count(client, now)
        seen.append((name_of(client), now))
        of_client = [at for name, at in seen if name == name_of(client)]
        least = sum(at > now - (HOUR - SHARE_SECONDS) for at in of_client)
        most = sum(at >= now - HOUR for at in of_client)
        assert least <= count <= most


@given(EVENTS, st.integers(1, 4), st.integers(1, 10))
def test_it_is_bounded_and_keeps_whom_it_saw_last(events, maximum, how_many):
    forgers, last, now = Forgers(maximum), [], 0.0
    for client, pause in events:
        now += pause / 100  # all within an hour or so
        forgers.count(client, now)
        last = [each for each in last if each != name_of(client)] + [name_of(client)]
        assert len(forgers) == min(maximum, len(last))
        most = forgers.most(how_many, now)
        assert len(most) <= how_many
        assert {name for name, _ in most} <= set(last[-maximum:])
        assert [count for _, count in most] == sorted((count for _, count in most), reverse=True)
        assert name_of(client) in {name for name, _ in forgers.most(maximum, now)}
        assert all(len(shares) <= 12 for shares in forgers._clients.values())
