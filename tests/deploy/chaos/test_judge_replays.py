from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest

from deploy.chaos.judge import Delivery, Kill, Run
from deploy.chaos.judge_replays import Link, Operation, ReplayVerdict, ends, judge_replays, kills_within

NOON = datetime(2026, 5, 4, 12, tzinfo=UTC)
ANN, CARL = "ann@example.com", "carl@example.com"
OLD, NEW, NEWER, OTHER = (UUID(int=number) for number in (1, 2, 3, 9))
FIRST = Link(OLD, ANN, "exited", "replayed", replayed_by=NEW)
SECOND = Link(NEW, ANN, "completed", replay_of=OLD, root_id=OLD)
STRANGER = Link(OTHER, CARL, "completed")  # did not agree, so nothing failed
SENT = (
    Delivery(UUID(int=11), ANN, "send1", "accepted", NOON, OLD),
    Delivery(UUID(int=12), ANN, "send2", "failed", NOON, OLD),
    Delivery(UUID(int=13), ANN, "send2", "accepted", NOON, NEW),
)
OPERATION = Operation("completed", runs=1, done=1, unchanged=0, failed=0, left_alone=0, kept=1, to_do=1)
NOTHING_WRONG = ReplayVerdict(0, 0, 0, 0)


def verdict(links: Any = (FIRST, SECOND, STRANGER), deliveries: Any = SENT, operations: Any = (OPERATION,)) -> ReplayVerdict:
    return judge_replays(links, deliveries, operations)


def test_all_is_well_when_each_failed_run_has_one_replay_that_sent_what_was_missing() -> None:
    assert verdict() == NOTHING_WRONG
    assert verdict().ok


def test_the_end_of_a_chain_stands_for_it() -> None:
    assert ends((FIRST, SECOND, STRANGER)) == [Run(ANN, "completed"), Run(CARL, "completed")]


def test_a_replay_of_a_replay_is_one_chain() -> None:
    second = replace(SECOND, status="exited", reason="replayed", replayed_by=NEWER)
    third = Link(NEWER, ANN, "completed", replay_of=NEW, root_id=OLD)
    assert verdict(links=(FIRST, second, third), operations=(OPERATION, replace(OPERATION, kept=0, to_do=1))).broken_chains == 0


@pytest.mark.parametrize(
    "links",
    [
        pytest.param((FIRST,), id="the replay is gone"),
        pytest.param((FIRST, SECOND, Link(NEWER, ANN, "completed", replay_of=OLD, root_id=OLD)), id="two replays of one run"),
        pytest.param((replace(FIRST, replayed_by=None), SECOND), id="the old run goes on beside its replay"),
        pytest.param((replace(FIRST, status="needs_attention"), SECOND), id="the old run is not closed"),
        pytest.param((FIRST, replace(SECOND, root_id=OTHER)), id="another beginning"),
        pytest.param((FIRST, replace(SECOND, replay_of=OTHER)), id="the replay of another run"),
        pytest.param((FIRST, replace(SECOND, replay_of=None)), id="two beginnings"),
        pytest.param((replace(FIRST, replay_of=NEW), SECOND), id="no beginning"),
    ],
)
def test_a_chain_that_is_not_one_line_from_one_beginning_to_one_end_is_broken(links: tuple[Link, ...]) -> None:
    found = verdict(links=(*links, STRANGER))
    assert (found.broken_chains, found.ok) == (1, False)


@pytest.mark.parametrize(
    "changed",
    [
        {"status": "running"},
        {"status": "cancelled"},
        {"runs": 2},  # one was never settled
        {"done": 0, "failed": 1},
        {"done": 0, "unchanged": 1},
        {"done": 0, "left_alone": 1},
        {"unchanged": 1},  # settled twice
    ],
)
def test_an_operation_that_did_not_do_all_that_it_took_is_wrong(changed: dict[str, Any]) -> None:
    found = verdict(operations=(replace(OPERATION, **changed),))
    assert (found.operations_wrong, found.ok) == (1, False)


@pytest.mark.parametrize("operations", [(), (OPERATION, OPERATION)])
def test_operations_say_as_many_replays_as_there_are(operations: tuple[Operation, ...]) -> None:
    found = verdict(operations=operations)
    assert (found.replays_miscounted, found.ok) == (1, False)


@pytest.mark.parametrize(("kept", "to_do", "wrong"), [(1, 1, 0), (0, 1, 1), (2, 1, 1), (1, 0, 1), (1, 2, 1), (0, 2, 2)])
def test_what_the_dry_run_foretold_is_what_came(kept: int, to_do: int, wrong: int) -> None:
    found = verdict(operations=(replace(OPERATION, kept=kept, to_do=to_do),))
    assert (found.foretold_wrongly, found.ok) == (wrong, wrong == 0)


@pytest.mark.parametrize(("state", "wrong"), [("unknown", 0), ("failed", 1), ("refused", 1), ("claimed", 1)])
def test_a_replay_whose_message_may_have_left_did_as_foretold(state: str, wrong: int) -> None:
    assert verdict(deliveries=(*SENT[:2], replace(SENT[2], state=state))).foretold_wrongly == wrong


@pytest.mark.parametrize(("seconds", "within"), [(-0.1, 0), (0, 1), (2, 1), (2.1, 0)])
def test_a_kill_is_within_an_operation_from_its_execution_to_its_completion(seconds: float, within: int) -> None:
    operation = replace(OPERATION, executed_at=NOON, completed_at=NOON + timedelta(seconds=2))
    at = NOON + timedelta(seconds=seconds)
    assert kills_within([OPERATION, operation], [Kill("worker", at, at)]) == within
