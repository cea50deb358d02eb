"""Which Authentication-Results go, and whether one of them says that the message was judged by us before."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from srsd.filter.forgeries import Forgeries
from srsd.syntax.header import HeaderField
from srsd.wire.milter import ChangeHeader

NAME = b"Authentication-Results"
OURS = b" mx.example.org; spf=pass smtp.mailfrom=bank.example"
FOREIGN = b" other.example; spf=pass smtp.mailfrom=bank.example"
GARBAGE = b" ;;(("


def watch(*fields: tuple[bytes, bytes], authserv_id: bytes = b"mx.example.org") -> Forgeries:
    forgeries = Forgeries(authserv_id)
    for name, value in fields:
        forgeries.see([HeaderField(name, value)])
    return forgeries


def test_nothing():
    forgeries = watch()
    assert forgeries.removals() == []
    assert not forgeries.bears_our_results


def test_positions_are_among_the_fields_of_that_name_and_the_lowest_goes_first():
    forgeries = watch(
        (b"Received", b" x"),
        (NAME, FOREIGN),
        (NAME.lower(), OURS),
        (b"Authentication-Results-X", OURS),
        (b"ARC-Authentication-Results", b" i=1;" + OURS),
        (b"X-Authentication-Results", OURS),
        (NAME.upper(), FOREIGN),
        (NAME + b" ", OURS),
        (b"Subject", OURS),
        (NAME + b"\t", GARBAGE),
        (NAME, FOREIGN),
    )
    assert forgeries.positions == [2, 4, 5]
    assert forgeries.removals() == [ChangeHeader(number, NAME, b"") for number in (5, 4, 2)]


def test_removals_may_be_asked_for_twice():
    forgeries = watch((NAME, OURS), (NAME, OURS))
    assert forgeries.removals() == forgeries.removals() == [ChangeHeader(2, NAME), ChangeHeader(1, NAME)]
    assert forgeries.positions == [1, 2]


# Ours beyond doubt: everybody who reads the field finds our name. Mail of ours with one is not signed.
CERTAIN = [
    OURS,
    b"mx.example.org;none",
    b" MX.Example.ORG; none",
    b" mx.example.org 1; none",
    b' "mx.example.org"; none',
    b" (a comment) mx.example.org (another); none",
    b"\n\tmx.example.org;\n\tspf=fail smtp.mailfrom=a@b.example",
    b"\r\n mx.example.org; none",
]
# To be removed, and not beyond doubt.
UNCERTAIN = [
    b"",
    GARBAGE,
    b" spf=pass smtp.mailfrom=bank.example",
    b" mx.example.org",
    b" mx.example.org; spf=",
    b" mx.example.org.evil.example; none",
    b" sub.mx.example.org; none",
    b" other.example (mx.example.org); none",
    b" mx.example.org; none\0",
    b" mx.example.org 2 3; none",
    b" other.example; none (",
]


@pytest.mark.parametrize("value", CERTAIN)
def test_ours_beyond_doubt(value):
    forgeries = watch((NAME, FOREIGN), (NAME, value), (NAME, FOREIGN))
    assert forgeries.positions == [2]
    assert forgeries.bears_our_results


@pytest.mark.parametrize("value", UNCERTAIN)
def test_removed_and_in_doubt(value):
    forgeries = watch((NAME, FOREIGN), (NAME, value), (NAME, FOREIGN))
    assert forgeries.positions == [2]
    assert not forgeries.bears_our_results


@pytest.mark.parametrize(
    "value", [FOREIGN, b" example.org; none", b" amx.example.org; none", b" mx.example.or; none"]
)
def test_foreign_ones_stay(value):
    forgeries = watch((NAME, value))
    assert forgeries.positions == []
    assert not forgeries.bears_our_results


@pytest.mark.parametrize(
    "name", [b"X-Authentication-Results", b"ARC-Authentication-Results", b"Received-SPF"]
)
def test_other_fields_never_bear_our_results(name):
    assert not watch((name, OURS)).bears_our_results


@pytest.mark.parametrize("authserv_id", [b"MX.Example.ORG", b"mx.example.org.", b"Mx.ExamPle.Org."])
@pytest.mark.parametrize("value", CERTAIN)
def test_our_own_name_may_be_spelt_in_other_ways(authserv_id, value):
    forgeries = watch((NAME, value), authserv_id=authserv_id)
    assert forgeries.positions == [1]
    assert forgeries.bears_our_results


def test_it_stays_known_when_others_follow():
    assert watch((NAME, OURS), (NAME, GARBAGE), (NAME, FOREIGN), (b"From", b" x")).bears_our_results


NAMES = st.sampled_from([NAME, NAME.lower(), NAME + b" ", b"Subject", b"X-" + NAME])
VALUES = st.sampled_from([OURS, FOREIGN, GARBAGE, b" mx.example.org.evil.example; none"])


@given(st.lists(st.tuples(NAMES, VALUES), max_size=30))
def test_deleted_in_this_order_only_foreign_ones_are_left(fields):
    """Delete as an MTA does, which counts anew after each change."""
    left = list(fields)
    for change in watch(*fields).removals():
        places = [
            index for index, (name, _) in enumerate(left) if name.rstrip().lower() == change.name.lower()
        ]
        del left[places[change.position - 1]]
    assert left == [
        (name, value) for name, value in fields if name.rstrip().lower() != NAME.lower() or value == FOREIGN
    ]
