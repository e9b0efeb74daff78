from datetime import timedelta

import pytest

from activities.clock import Clock
from tests.activities.world import NOON


class Hands:
    """A clock that stands where it was put. Seconds."""

    def __init__(self, at: float) -> None:
        self.at = at

    def __call__(self) -> float:
        return self.at


@pytest.mark.parametrize("suspended", ["since_boot", "wall"])
def test_the_time_in_which_the_host_stood_still_has_passed(suspended: str) -> None:
    clocks = {"since_boot": Hands(500), "wall": Hands(1_800_000_000)}
    clock = Clock(NOON, list(clocks.values()))
    for each in clocks.values():
        each.at += 3
    assert clock.now() == NOON + timedelta(seconds=3)
    clocks[suspended].at += 7800
    assert clock.now() == NOON + timedelta(seconds=7803)


def test_a_wall_clock_that_is_put_back_takes_no_time_back() -> None:
    since_boot, wall = Hands(500), Hands(1_800_000_000)
    clock = Clock(NOON, [since_boot, wall])
    since_boot.at, wall.at = 560, 1_799_999_000
    assert clock.now() == NOON + timedelta(minutes=1)
