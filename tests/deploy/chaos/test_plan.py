from collections import Counter

import pytest

from deploy.chaos.plan import LONGEST_PAUSE, PARTS, SOON, plan_kills, plan_replay_kills


def test_the_same_seed_plans_the_same_kills() -> None:
    assert plan_kills(4711, 20) == plan_kills(4711, 20)
    assert plan_kills(4711, 20) != plan_kills(4712, 20)


@pytest.mark.parametrize("kills", [1, 2, 3, 4, 5, 10, 20, 37])
def test_as_many_kills_are_planned_as_asked_for(kills: int) -> None:
    planned = plan_kills(1, kills)
    assert len(planned) == kills
    assert all(0 < one.pause <= LONGEST_PAUSE for one in planned)


def test_twenty_kills_meet_both_servers_three_times_and_every_part() -> None:
    counts = Counter(one.part for one in plan_kills(1, 20))
    assert counts["temporal"] >= 3
    assert counts["postgres"] >= 3
    assert set(PARTS) <= set(counts)
    assert counts["worker"] > counts["temporal"]


def test_four_kills_meet_both_servers_once() -> None:
    counts = Counter(one.part for one in plan_kills(1, 4))
    assert counts["temporal"] == counts["postgres"] == 1


def test_the_kills_of_the_replays_are_others_and_every_second_one_comes_soon() -> None:
    planned = plan_replay_kills(4711, 20)
    assert planned == plan_replay_kills(4711, 20)
    assert Counter(one.part for one in planned) == Counter(one.part for one in plan_kills(4711, 20))
    assert [one.part for one in planned] != [one.part for one in plan_kills(4711, 20)]
    assert all(one.pause <= SOON for one in planned[::2])
    assert any(one.pause > SOON for one in planned[1::2])
