from datetime import timedelta

import pytest

from models.domain.back_off import doubled


@pytest.mark.parametrize(("times", "seconds"), [(0, 15), (1, 30), (5, 480), (6, 900), (7, 900), (10**9, 900)])
def test_a_wait_is_doubled_up_to_the_longest(times: int, seconds: int) -> None:
    assert doubled(timedelta(seconds=15), times, timedelta(minutes=15)) == timedelta(seconds=seconds)
