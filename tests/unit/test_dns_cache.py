"""What is kept of DNS answers, for how long, and how much of it."""

from __future__ import annotations

from ipaddress import IPv4Address

import pytest

from srsd.daemon.dns.cache import Cache, time_to_keep
from srsd.daemon.dns.messages import TXT, A
from srsd.resolving import Answer, MailExchange, Outcome


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def cache(clock):
    return Cache(100, clock)


def found(*records: object, ttl: int = 300) -> Answer:
    return Answer(Outcome.FOUND, records, ttl=ttl)


def test_an_answer_is_given_with_what_is_left_of_its_time(cache, clock):
    cache.put((b"example.org", TXT), Answer(Outcome.FOUND, (b"x",), authenticated=True, ttl=300))
    assert cache.get((b"example.org", TXT)) == Answer(Outcome.FOUND, (b"x",), authenticated=True, ttl=300)
    clock.now += 299.5
    assert cache.get((b"example.org", TXT)) == Answer(Outcome.FOUND, (b"x",), authenticated=True, ttl=0)
    clock.now += 0.5
    assert cache.get((b"example.org", TXT)) is None
    assert (len(cache), cache.octets) == (0, 0)


def test_each_name_and_type_has_its_own(cache):
    cache.put((b"example.org", TXT), found(b"x"))
    assert cache.get((b"example.org", A)) is None
    assert cache.get((b"example.com", TXT)) is None


def test_a_new_answer_takes_the_place_of_the_old_one(cache):
    cache.put((b"example.org", TXT), found(b"x" * 1000))
    heavy = cache.octets
    cache.put((b"example.org", TXT), found(b"y"))
    assert cache.get((b"example.org", TXT)) == found(b"y")
    assert len(cache) == 1
    assert cache.octets < heavy


def test_the_least_used_leaves_first(clock):
    cache = Cache(3, clock)
    for name in (b"a", b"b", b"c"):
        cache.put((name, A), Answer(Outcome.NO_DATA, ttl=60))
    assert cache.get((b"a", A))
    cache.put((b"d", A), Answer(Outcome.NO_DATA, ttl=60))
    assert [name for name in (b"a", b"b", b"c", b"d") if cache.get((name, A))] == [b"a", b"c", b"d"]
    assert len(cache) == 3


def test_a_cache_of_no_size_keeps_nothing(clock):
    cache = Cache(0, clock)
    cache.put((b"a", A), Answer(Outcome.NO_DATA, ttl=60))
    assert (cache.get((b"a", A)), len(cache), cache.octets) == (None, 0, 0)


def test_clearing_forgets_everything(cache):
    cache.put((b"a", A), found(IPv4Address(1)))
    cache.clear()
    assert (cache.get((b"a", A)), len(cache), cache.octets) == (None, 0, 0)


@pytest.mark.parametrize(
    "records",
    [
        (b"x" * 65_000,),
        (b"x",) * 400,
        tuple(map(IPv4Address, range(400))),
        (MailExchange(1, b"m" * 253),) * 200,
    ],
)
def test_nobody_can_make_an_answer_that_drives_out_others(cache, records):
    cache.put((b"small", TXT), found(b"x"))
    cache.put((b"big", TXT), found(*records))
    assert cache.get((b"big", TXT)) is None
    assert cache.get((b"small", TXT))


def test_a_small_cache_does_not_empty_itself_for_one_answer(clock):
    cache = Cache(3, clock)
    cache.put((b"small", TXT), found(b"x"))
    cache.put((b"big", TXT), found(b"x" * 20_000))
    assert cache.get((b"small", TXT))


def test_the_size_in_octets_is_bounded_too(cache):
    """Of the heaviest answers that are kept, far fewer than 100 fit."""
    for number in range(1000):
        cache.put((b"%d.example" % number, TXT), found(b"x" * 30_000))
        assert cache.octets <= 100 * 1024
    assert 1 < len(cache) < 5


def test_a_full_cache_of_usual_answers_holds_what_its_size_says(clock):
    cache = Cache(100, clock)
    for number in range(200):
        cache.put((b"mail%d.some-domain.example.org" % number, TXT), found(b"v=spf1 " + b"x" * 180))
    assert len(cache) == 100


@pytest.mark.parametrize(
    ("outcome", "ttl", "kept"),
    [
        (Outcome.FOUND, 300, 300),
        (Outcome.FOUND, 0, 1),
        (Outcome.FOUND, 1_000_000, 86400),
        (Outcome.NO_DATA, 300, 300),
        (Outcome.NO_DATA, 0, 1),
        (Outcome.NO_DATA, 86400, 3600),
        (Outcome.NX_DOMAIN, 86400, 3600),
        (Outcome.NX_DOMAIN, None, 5),
        (Outcome.NO_DATA, None, 5),
        (Outcome.SERVER_FAILURE, None, 5),
        (Outcome.TIMED_OUT, None, 5),
        (Outcome.REFUSED, 86400, 5),
        (Outcome.UNUSABLE, None, 5),
    ],
)
def test_how_long_answers_are_kept(outcome, ttl, kept):
    assert time_to_keep(outcome, ttl) == kept
