"""Dealing out starts, compared with trying every moment."""

from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.domain.pace import HOUR, Crowd, postponements

NOON = datetime(2027, 3, 1, 12, tzinfo=UTC)
MINUTE = timedelta(minutes=1)
minutes = st.lists(st.integers(-59, 300), max_size=25)


def dealt(others: Sequence[int], wanted: Sequence[int], most: int) -> list[int]:
    """All in minutes from noon: when those start who want to at `wanted`."""
    starts = sorted(wanted)
    for each in postponements(crowds(others), crowds(wanted), most):
        assert each.first <= each.last
        starts[each.first - 1 : each.last] = [(each.at - NOON) // MINUTE] * (each.last - each.first + 1)
    return starts


def crowds(those: Sequence[int]) -> list[Crowd]:
    return sorted((NOON + minute * MINUTE, count) for minute, count in Counter(those).items())


def allowed(starts: Sequence[int], minute: int, most: int) -> bool:
    """Whether one more may start then. Only hours that it falls into count."""
    everybody = [*starts, minute]
    begins = [each for each in everybody if minute - 60 < each <= minute]
    return all(sum(each <= other < each + 60 for other in everybody) <= most for each in begins)


@given(minutes, minutes, st.integers(1, 6))
def test_everybody_starts_in_order_as_early_as_may_be_and_no_hour_has_too_many(others: list[int], wanted: list[int], most: int) -> None:
    starts, earliest = list(others), -60
    expected = []
    for own in sorted(wanted):
        earliest = max(earliest, own)
        while not allowed(starts, earliest, most):
            earliest += 1
        starts.append(earliest)
        expected.append(earliest)
    assert dealt(others, wanted, most) == expected


def test_room_between_those_who_start_anyway_is_used() -> None:
    """A week of somebody else's starts, half of what may be, delays nobody for a week."""
    others = list(range(0, 7 * 24 * 60, 2))  # 30 in an hour
    assert dealt(others, list(range(1, 7 * 24 * 60, 2)), 60) == list(range(1, 7 * 24 * 60, 2))
    assert dealt(others, [0] * 60, 60) == [0] * 30 + [60] * 30


@pytest.mark.parametrize("most", [1, 10_000])
def test_many_are_dealt_out_within_a_moment(most: int) -> None:
    found = postponements([], [(NOON, 100_000)], most)
    assert found[-1].last == 100_000 and found[-1].at == NOON + (100_000 // most - 1) * HOUR
