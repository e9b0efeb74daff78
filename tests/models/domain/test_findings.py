from typing import Any

import pytest

from models.domain.conservation import Balance
from models.domain.findings import LEAST, Kind, Sighting, action, cause, fell_to_nothing
from models.tables.base import utc_now

AT = "2026-11-25T12:00:00+00:00"
SEEN: list[tuple[Kind, dict[str, Any], str, str]] = [
    (Kind.OVERDUE_WAKE, {"since": AT, "why": "unpolled", "unpolled": ["a", "b"], "task_queue": "a"}, "polls the task queue a, b", "worker"),
    (Kind.OVERDUE_WAKE, {"since": AT, "why": "behind", "task_queue": "a"}, "workers do not come to it", "start more of them"),
    (Kind.OVERDUE_WAKE, {"since": AT}, "no timer has ended", "PUT /v1/runs/{run_id}/pause"),
    (Kind.WAIT_WITHOUT_EVENT, {"never_received": ["paid"], "days": 30, "step_id": "s"}, "the event paid", "POST /v1/events"),
    (Kind.WAIT_WITHOUT_EVENT, {"missing": 1, "matched": 2, "step_id": "s"}, "never opened: 1; ended by an event", "replays"),
    (Kind.WORKFLOW_TASK_FAILING, {"why": "nondeterminism", "attempt": 4}, "nondeterminism", "workflow.patched"),
    (Kind.WORKFLOW_TASK_FAILING, {"why": "exception", "failure": "KeyError", "attempt": 4}, "raises KeyError", "Deploy"),
    (Kind.WORKFLOW_TASK_FAILING, {"why": None, "attempt": 4}, "fail or time out", "Do not terminate"),
    (Kind.ACTIVITY_FAILING, {"activity": "record_audit", "attempt": 7, "failure": "DiskFull"}, "failed 6 times", "worker's log"),
    (Kind.ACTIVITY_FAILING, {"activity": "record_audit", "attempt": 7, "failure": None}, "without an answer", "doctor"),
    (Kind.WORKFLOW_CLOSED, {"status": "terminated", "closed_at": AT}, "was terminated from outside at 25 Nov 2026 12:00:00 UTC", "replays"),
    (Kind.WORKFLOW_CLOSED, {"status": "timed_out", "closed_at": None}, "ran out of time at an unknown time", "histories"),
    (Kind.ROW_WITHOUT_WORKFLOW, {"why": "not_started", "since": AT}, "has still not been started", "by itself"),
    (Kind.ROW_WITHOUT_WORKFLOW, {"why": "nobody_starts", "since": AT}, "nothing will start it", "replays"),
    (Kind.ROW_WITHOUT_WORKFLOW, {"why": "hand_over"}, "moved by a publish plan", "by itself"),
    (Kind.ROW_WITHOUT_WORKFLOW, {"why": "gone"}, "not in Temporal any more", "replays"),
    (
        Kind.WORKFLOW_CLOSED,
        {"status": "failed", "closed_at": AT, "campaign_id": "c"},
        "of a campaign failed at 25 Nov 2026 12:00:00 UTC",
        "PUT /v1/campaigns/c/cancellation",
    ),
    (Kind.WORKFLOW_WITHOUT_ROW, {"finished": False}, "no run which the database knows", "temporal workflow terminate --workflow-id x"),
    (Kind.WORKFLOW_WITHOUT_ROW, {"finished": True}, "all its runs are finished", "Backup"),
    (Kind.VOLUME_FELL, {"measure": "entries", "hours": 6, "least": 12, "usual": 20}, "Nobody has entered", "GET /v1/entries"),
    (Kind.VOLUME_FELL, {"measure": "sends", "hours": 24, "least": 12, "usual": 20}, "has sent nothing", "GET /v1/deliveries"),
    (
        Kind.GOING_ROUND,
        {"contacts": 2, "since": AT, "most": 10, "others": ["a", "b"]},
        "2 contacts were led into the journey x by segments or other journeys more than 10 times within an hour, and turned back since 25 "
        "Nov 2026 12:00:00 UTC. Meanwhile they went again and again through the journeys a, b",
        "PUT /v1/journeys/{journey_id}/pause",
    ),
    (Kind.GOING_ROUND, {"contacts": 1, "since": AT, "most": 10, "others": []}, "its own steps lead back, or another system", "cool_down"),
    (Kind.CONSERVATION, {"difference": 1, "entered": 2000, "present": 1999}, "2,000 runs entered", "audit verify"),
    (Kind.CONSERVATION, {"deliveries_difference": 1, "accepted_recorded": 5, "accepted": 4}, "5 deliveries were accepted", "backup"),
    (Kind.HISTORY_MISSING, {}, "Temporal has forgotten it", "retention"),
    (Kind.OCCURRENCE_MISSED, {"occurrences": 2, "nominal_at": [AT]}, "last one due at 25 Nov 2026 12:00:00 UTC", "GET /v1/campaigns/x"),
    (
        Kind.OPERATION_FAILING,
        {"failures": 3, "status": "failed", "activity": "control_page", "failure": "NotFound", "closed_at": AT},
        "failed in its activity control_page with NotFound, at 25 Nov 2026 12:00:00 UTC. 3 runs wait",
        "PUT /v1/run-operations/x/cancellation",
    ),
    (Kind.OPERATION_FAILING, {"failures": 3, "status": "terminated", "closed_at": AT}, "was ended, at 25 Nov", "the workflow in the"),
    (
        Kind.PUBLISH_PLAN_FAILING,
        {"failures": 3, "status": "failed", "activity": "tell_moves", "failure": "NotFound", "closed_at": AT},
        "of a publish plan has failed 3 times within an hour, begun anew each time. The last time it failed in its activity tell_moves "
        "with NotFound, at 25 Nov 2026 12:00:00 UTC. 3 runs stand on an older version",
        "/publish-plans/x",
    ),
    (
        Kind.BRAKING_FAILING,
        {"failures": 3, "status": "failed", "closed_at": AT, "braked": "campaign", "braked_id": "c", "notice": "waiting"},
        "The campaign is paused and sends nothing; but nobody has been told",
        "DELETE /v1/campaigns/c/pause",
    ),
    (
        Kind.BRAKING_FAILING,
        {"failures": 3, "status": "failed", "closed_at": AT, "braked": "journey", "braked_id": "j", "notice": "transmitting"},
        "a mail about it may have left",
        "DELETE /v1/journeys/j/pause",
    ),
    (Kind.SCHEDULE_STOPPED, {"schedule_id": "s", "why": "paused"}, "was paused in Temporal", "PUT /v1/campaigns/x/pause"),
    (Kind.SCHEDULE_STOPPED, {"schedule_id": "s", "why": "deleted"}, "schedule s, which", "by itself"),
]


@pytest.mark.parametrize(("kind", "details", "why", "what"), SEEN)
def test_every_trouble_has_its_cause_and_its_action_in_words(kind: Kind, details: dict[str, Any], why: str, what: str) -> None:
    seen = Sighting(kind, "workflow", "x", details, runs=3)
    assert why in cause(seen) and what in action(seen)


def test_one_run_is_told_of_as_one() -> None:
    seen = Sighting(Kind.ROW_WITHOUT_WORKFLOW, "workflow", "x", {"why": "gone"}, runs=1)
    assert cause(seen) == "1 run has no workflow: it is not in Temporal any more, although the run is not finished."


def test_every_kind_is_in_words() -> None:
    assert {kind for kind, *_ in SEEN} == set(Kind)


@pytest.mark.parametrize(
    ("now", "before", "fell"),
    [
        (0, [LEAST] * 7, True),
        (1, [1000] * 7, False),
        (0, [LEAST] * 6 + [LEAST - 1], False),  # one quiet day among them: it may be one again
        (0, [500, 500, 500, 500, 500, 0, 0], False),  # a weekend
        (0, [], False),
    ],
)
def test_a_volume_has_fallen_when_there_always_was_one(now: int, before: list[int], fell: bool) -> None:
    assert fell_to_nothing(now, before) == fell


def test_conservation_holds_when_both_sides_agree() -> None:
    balance = Balance(utc_now(), 3, 2, {"waiting": 4, "completed": 1}, {"accepted": 6, "claimed": 1}, 6)
    assert (balance.entered, balance.present, balance.difference, balance.holds) == (5, 5, 0, True)
    assert balance.details()["runs"]["paused"] == 0


@pytest.mark.parametrize(
    "balance",
    [
        Balance(utc_now(), 3, 2, {"waiting": 4}),
        Balance(utc_now(), 3, 2, {"waiting": 6}),
        Balance(utc_now(), 0, 1, {"nowhere": 1}),
        Balance(utc_now(), 0, 0, {}, {"accepted": 1}, 2),
    ],
)
def test_conservation_does_not_hold(balance: Balance) -> None:
    assert not balance.holds
