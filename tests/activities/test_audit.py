from datetime import timedelta
from typing import Any
from uuid import UUID

from temporalio.testing import ActivityEnvironment

from activities.audit import AuditActivities
from activities.contracts.recording import AuditBatch, Transition
from models.tables.base import new_id
from tests.activities.world import NOON, World


async def record(world: World, *transitions: Transition) -> None:
    batch = AuditBatch(scope=world.scope, transitions=transitions)
    await ActivityEnvironment().run(AuditActivities(world.database).record_audit, batch)


def happened(run_id: UUID, sequence: int, kind: str, phase: str, **values: Any) -> Transition:
    return Transition(run_id=run_id, sequence=sequence, kind=kind, phase=phase, occurred_at=NOON + timedelta(seconds=sequence), **values)


async def run_row(world: World, run_id: UUID) -> Any:
    (row,) = await world.sql("SELECT * FROM runs WHERE id = :id", id=run_id)
    return row


async def test_timeline_projection_and_chain_hold_what_happened(world: World) -> None:
    first, second = await world.people(2)
    wake = NOON + timedelta(days=3)
    await record(
        world,
        happened(first, 1, "entered", "active", step_id="news"),
        happened(first, 2, "waiting", "waiting", step_id="pause", visit=1, wake_at=wake),
        happened(second, 1, "entered", "active", step_id="news"),
        happened(second, 2, "exited", "exited", step_id="news", visit=1, reason="goal"),
    )
    row = await run_row(world, first)
    assert (row["status"], row["step_id"], row["wake_at"], row["sequence"], row["finished_at"]) == ("waiting", "pause", wake, 2, None)
    row = await run_row(world, second)
    assert (row["status"], row["reason"], row["finished_at"]) == ("exited", "goal", NOON + timedelta(seconds=2))
    events = await world.sql("SELECT kind, details FROM run_events WHERE run_id = :id ORDER BY sequence", id=first)
    assert [event["kind"] for event in events] == ["entered", "waiting"]
    assert events[1]["details"] == {"phase": "waiting", "wake_at": wake.isoformat(), "actor_kind": "system"}
    assert await world.actions("run.") == ["run.exited"]


async def test_recording_twice_changes_nothing(world: World) -> None:
    run = await world.contact()
    parked = happened(run, 1, "parked", "needs_attention", step_id="news", reason="missing_value")
    for _ in range(2):
        await record(world, parked)
    assert await world.one("SELECT count(*) FROM run_events") == 1
    assert await world.actions("run.") == ["run.parked"]


async def test_an_older_transition_does_not_turn_the_projection_back(world: World) -> None:
    run = await world.contact()
    await record(world, happened(run, 2, "completed", "completed", step_id="news"))
    await record(world, happened(run, 1, "entered", "active", step_id="news"))
    assert (await run_row(world, run))["status"] == "completed"
    assert await world.one("SELECT count(*) FROM run_events") == 2


async def test_a_cancellation_that_is_recorded_late_still_stands(world: World) -> None:
    """A message is in flight, and the last check before it obeys this: a later word was faster on record."""
    run, over, replayed = await world.people(3)
    later = [happened(run, 6, "step_cancelled", "active", step_id="news"), happened(over, 6, "completed", "completed", step_id="news")]
    await record(world, *later, happened(replayed, 6, "parked", "needs_attention", step_id="news", reason="missing_value"))
    await world.sql("UPDATE runs SET replayed_by = :other WHERE id = :id", id=replayed, other=over)
    asked = [happened(each, 5, "cancel_requested", "active", step_id="news") for each in (run, over, replayed)]
    for _ in range(2):
        await record(world, *asked)
    rows = [await run_row(world, each) for each in (run, over, replayed)]
    assert [row["cancel_requested_at"] for row in rows] == [NOON + timedelta(seconds=5), None, None]
    assert [row["sequence"] for row in rows] == [6, 6, 6]
    await record(world, happened(run, 7, "cancel_requested", "active", step_id="news"))
    assert (await run_row(world, run))["cancel_requested_at"] == NOON + timedelta(seconds=5)


async def test_an_operators_act_is_recorded_under_their_name(world: World) -> None:
    run, user = await world.contact(), new_id()
    await record(world, happened(run, 1, "paused", "paused", actor_kind="user", actor_id=user, reason="asked by the customer"))
    (entry,) = await world.sql("SELECT * FROM audit_entries WHERE action = 'run.paused'")
    assert (entry["actor_kind"], entry["actor_id"], entry["subject_id"]) == ("user", user, str(run))
    assert entry["occurred_at"] == NOON + timedelta(seconds=1)


async def test_a_paused_run_shows_why_it_is_paused_as_long_as_it_is(world: World) -> None:
    run = await world.contact()
    here: dict[str, Any] = {"beneath": "active", "step_id": "news"}
    lines: list[tuple[str, dict[str, Any], str | None]] = [
        ("skipped", {"reason": "not the first"}, None),
        ("paused", {"reason": "legal hold"}, "legal hold"),
        ("jumped", {"reason": "wrong language"}, "legal hold"),
        ("paused", {"details": {"with": "campaign"}}, "legal hold"),  # nobody said why
        ("paused", {"reason": "wrong price", "details": {"with": "journey"}}, "wrong price"),
        ("held", {"beneath": "held", "reason": "journey_paused"}, "wrong price"),
        ("resumed", {"beneath": "held", "reason": "journey_paused", "details": {"with": "journey"}}, "legal hold"),
        ("resumed", {"beneath": "held", "reason": "journey_paused"}, "journey_paused"),  # the campaign's is left, which has no reason
    ]
    for sequence, (kind, values, shown) in enumerate(lines, 1):
        await record(world, happened(run, sequence, kind, "paused", **here | values))
        assert (await run_row(world, run))["reason"] == shown, kind
    await record(world, happened(run, 9, "resumed", "held", step_id="news", reason="quiet_hours", details={"with": "campaign"}))
    assert (await run_row(world, run))["reason"] == "quiet_hours"


async def failed(world: World, run_id: UUID) -> tuple[Any, Any, Any]:
    row = await run_row(world, run_id)
    return row["failure_class"], row["failure_fingerprint"], row["failed_at"]


async def test_a_parked_run_carries_class_and_fingerprint_until_it_goes_on(world: World) -> None:
    run, other = await world.people(2)
    reason = "missing_value:contact.first_name"
    await record(world, *(happened(each, 1, "parked", "needs_attention", step_id="news", reason=reason) for each in (run, other)))
    kind, fingerprint, at = await failed(world, run)
    assert (kind, at) == ("data", NOON + timedelta(seconds=1)) and await failed(world, other) == (kind, fingerprint, at)
    (event,) = await world.sql("SELECT details FROM run_events WHERE run_id = :id", id=run)
    assert (event["details"]["failure_class"], event["details"]["failure_fingerprint"]) == ("data", fingerprint)
    await record(world, happened(run, 2, "paused", "paused", beneath="needs_attention", step_id="news", reason="lunch"))
    await record(world, happened(run, 3, "resumed", "needs_attention", step_id="news", reason=reason))
    assert await failed(world, run) == (kind, fingerprint, at)
    await record(world, happened(run, 4, "retried", "active", step_id="news"))
    assert await failed(world, run) == (None, None, None)


async def test_a_run_that_parks_and_is_paused_in_one_batch_is_failed_and_one_that_is_skipped_while_paused_is_not(world: World) -> None:
    parked, skipped = await world.people(2)
    for run in (parked, skipped):
        await record(
            world,
            happened(run, 1, "parked", "paused", beneath="needs_attention", step_id="news", reason="attempt_lost"),
            happened(run, 2, "paused", "paused", beneath="needs_attention", step_id="news"),
        )
    await record(world, happened(skipped, 3, "skipped", "paused", beneath="active", step_id="news"))
    assert [(await failed(world, run))[0] for run in (parked, skipped)] == ["uncertain_outcome", None]


async def test_a_cause_counts_each_parking_once_and_knows_when_it_was_first_and_last_seen(world: World) -> None:
    run, other = await world.people(2)
    first = happened(run, 1, "parked", "needs_attention", step_id="news", reason="policy_refused")
    later = happened(other, 9, "parked", "needs_attention", step_id="news", reason="policy_refused")
    for transition in (later, first, first):
        await record(world, transition)
    (group,) = await world.sql("SELECT * FROM failure_groups")
    assert (group["failure_class"], group["seen"], group["step_id"]) == ("content", 2, "news")
    assert (group["first_seen_at"], group["last_seen_at"]) == (first.occurred_at, later.occurred_at)
