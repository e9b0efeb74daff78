"""The reconciler's round on a real server: looks side by side, and the schedule that starts it."""

from datetime import timedelta
from uuid import uuid4

from temporalio.testing import WorkflowEnvironment

from activities.contracts.reconciling import RECONCILE_EVERY, RECONCILE_WORKFLOW, Reconcile, Reconciled
from tests.workflows.fakes import Fakes
from tests.workflows.test_journey import working
from workflows.reconciling import ReconcileWorkflow
from workflows.schedules import RECONCILER_ID, ensure_reconciler


async def look(server: WorkflowEnvironment, fakes: Fakes) -> Reconciled:
    async with working(server, fakes) as queue:
        found: Reconciled = await server.client.execute_workflow(ReconcileWorkflow.run, Reconcile(), id=f"test/{uuid4()}", task_queue=queue)
    return found


async def test_a_round_says_what_all_looks_found(server: WorkflowEnvironment) -> None:
    assert await look(server, Fakes()) == Reconciled(opened=3, resolved=1, lost=30, archived=7)


async def test_a_look_that_fails_keeps_the_others_from_nothing(server: WorkflowEnvironment) -> None:
    fakes = Fakes()
    fakes.records_can_be_read = False
    assert await look(server, fakes) == Reconciled(opened=2, lost=30, archived=7)
    assert (fakes.calls["compare_records"], fakes.calls["archive_histories"]) == (2, 1)


async def test_it_is_started_every_minute_and_the_schedule_made_once_and_never_paused_for_long(server: WorkflowEnvironment) -> None:
    handle = server.client.get_schedule_handle(RECONCILER_ID)
    for _ in range(2):
        await ensure_reconciler(server.client, "nobody")
        await handle.pause()
    await ensure_reconciler(server.client, "nobody")
    schedule = (await handle.describe()).schedule
    await handle.delete()
    assert not schedule.state.paused
    assert [interval.every for interval in schedule.spec.intervals] == [RECONCILE_EVERY] and timedelta(minutes=1) == RECONCILE_EVERY
    assert getattr(schedule.action, "workflow", None) == RECONCILE_WORKFLOW
