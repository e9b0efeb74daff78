"""What is trouble, and what is only work under way."""

from dataclasses import replace
from datetime import datetime, timedelta
from uuid import uuid4

import pytest

from activities.observed import Examined, PendingActivity
from activities.reconciler_rules import NOTHING, TOO_EARLY, Around, Patience, in_trouble, of_rows, without_row
from models.domain.findings import Kind
from models.store.carriers import Carried, Late
from models.tables.base import utc_now

NOW = utc_now()
LONG_AGO = NOW - timedelta(hours=1)
JUST_NOW = NOW - timedelta(seconds=5)
PATIENCE = Patience()
RUNNING = Examined("running", "JourneyWorkflow", task_queue="journeys")
TERMINATED = Examined("terminated", "JourneyWorkflow", closed_at=LONG_AGO)
MISSING = Examined("missing")
LATE = Late("a", uuid4(), 3, LONG_AGO)
ROWS = Carried("a", uuid4(), None, 3, 3, 0, LONG_AGO, LONG_AGO, True, None, False)
NOBODY = Around(campaign_runs=False, handing_over=False)
SENDING = PendingActivity("send_messages", 1, None, True, "journeys-send")


async def judged(seen: Examined, late: Late | None = LATE, polled: bool = True) -> tuple[str, str | None] | None:
    async def asks(queue: str, workflows: bool) -> bool:
        return polled

    found = await in_trouble("a", seen, late, asks, NOW, PATIENCE)
    return None if found is None else (str(found.kind), found.details.get("why"))


@pytest.mark.parametrize(
    ("seen", "late", "polled", "expected"),
    [
        (RUNNING, LATE, True, ("overdue_wake", None)),
        (RUNNING, LATE, False, ("overdue_wake", "unpolled")),
        (RUNNING, None, True, None),
        (replace(RUNNING, activities=(SENDING,)), LATE, True, None),  # it waits for its connection's rate
        (replace(RUNNING, activities=(SENDING,)), LATE, False, None),  # somebody is at it
        (replace(RUNNING, activities=(replace(SENDING, started=False),)), LATE, False, ("overdue_wake", "unpolled")),
        (replace(RUNNING, activities=(replace(SENDING, attempt=5),)), LATE, True, None),
        (replace(RUNNING, activities=(SENDING, replace(SENDING, attempt=6))), None, True, ("activity_failing", None)),
        (replace(RUNNING, task_attempt=1, task_since=JUST_NOW), LATE, True, None),
        (replace(RUNNING, task_attempt=1, task_since=LONG_AGO), LATE, True, ("overdue_wake", "behind")),
        (replace(RUNNING, task_attempt=2, task_since=JUST_NOW), None, True, None),  # its worker was killed
        (replace(RUNNING, task_attempt=3, task_since=JUST_NOW), None, True, ("workflow_task_failing", None)),
        (replace(RUNNING, task_attempt=3, task_since=LONG_AGO), LATE, False, ("overdue_wake", "unpolled")),
        (TERMINATED, LATE, True, None),  # a matter of its rows
    ],
)
async def test_a_workflow_that_runs(seen: Examined, late: Late | None, polled: bool, expected: tuple[str, str | None] | None) -> None:
    assert await judged(seen, late, polled) == expected


def begun(at: datetime, **fields: object) -> Carried:
    return replace(ROWS, entered_at=at, recorded_at=at, unbegun=3, **fields)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("rows", "seen", "around", "expected"),
    [
        (ROWS, TERMINATED, NOBODY, (Kind.WORKFLOW_CLOSED, None, True)),
        (begun(LONG_AGO), TERMINATED, NOBODY, (Kind.WORKFLOW_CLOSED, None, True)),
        (ROWS, MISSING, NOBODY, (Kind.ROW_WITHOUT_WORKFLOW, "gone", True)),
        (replace(ROWS, before="b"), MISSING, NOBODY, (Kind.ROW_WITHOUT_WORKFLOW, "gone", True)),
        (replace(ROWS, before="b"), MISSING, Around(False, handing_over=True), (Kind.ROW_WITHOUT_WORKFLOW, "hand_over", False)),
        (begun(LONG_AGO), MISSING, NOBODY, (Kind.ROW_WITHOUT_WORKFLOW, "not_started", False)),  # upkeep's
        (begun(LONG_AGO, over_api=False, to_be_started=True), MISSING, NOBODY, (Kind.ROW_WITHOUT_WORKFLOW, "not_started", False)),
        (begun(LONG_AGO, over_api=False), MISSING, NOBODY, (Kind.ROW_WITHOUT_WORKFLOW, "nobody_starts", True)),
        (begun(LONG_AGO, campaign_id=uuid4()), MISSING, NOBODY, (Kind.ROW_WITHOUT_WORKFLOW, "nobody_starts", True)),
        (begun(LONG_AGO, campaign_id=uuid4()), MISSING, Around(True, False), (Kind.ROW_WITHOUT_WORKFLOW, "not_started", False)),
    ],
)
def test_rows_whose_workflow_does_not_run(rows: Carried, seen: Examined, around: Around, expected: tuple[Kind, str | None, bool]) -> None:
    verdict = of_rows(rows, seen, around, NOW, PATIENCE)
    assert verdict.sighting is not None
    assert (verdict.sighting.kind, verdict.sighting.details.get("why"), verdict.lost) == expected


@pytest.mark.parametrize(
    ("rows", "seen", "around"),
    [
        (replace(ROWS, recorded_at=JUST_NOW), TERMINATED, NOBODY),  # its last record came just now
        (ROWS, replace(TERMINATED, closed_at=JUST_NOW), NOBODY),
        (replace(ROWS, recorded_at=JUST_NOW), MISSING, NOBODY),  # moved just now
        (begun(NOW - timedelta(seconds=40)), MISSING, NOBODY),
        (begun(NOW - timedelta(minutes=4), campaign_id=uuid4()), MISSING, Around(True, False)),  # a large campaign starts
    ],
)
def test_it_is_too_early_to_say(rows: Carried, seen: Examined, around: Around) -> None:
    assert of_rows(rows, seen, around, NOW, PATIENCE) == TOO_EARLY


@pytest.mark.parametrize("status", ["running", "continued_as_new", "paused"])
def test_a_workflow_that_goes_on_leaves_nobody_behind(status: str) -> None:
    assert of_rows(ROWS, Examined(status), NOBODY, NOW, PATIENCE) == NOTHING


def test_a_workflow_without_rows_is_in_trouble_only_when_nothing_is_in_flight() -> None:
    found = without_row("a", RUNNING, 0, None)
    assert found is not None and found.kind is Kind.WORKFLOW_WITHOUT_ROW
    for busy in (replace(RUNNING, task_attempt=1), replace(RUNNING, activities=(SENDING,)), TERMINATED):
        assert without_row("a", busy, 0, None) is None
