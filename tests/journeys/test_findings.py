"""What stands still is found: each kind is made on purpose, and a round or two of the reconciler later there is a finding with its
cause and what to do; when the trouble is gone, the finding is resolved by itself."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
import pytest_asyncio
from sqlalchemy import text
from temporalio import activity
from temporalio.api.common.v1 import WorkflowExecution
from temporalio.api.workflowservice.v1 import DeleteWorkflowExecutionRequest
from temporalio.client import WorkflowExecutionStatus, WorkflowHandle
from temporalio.exceptions import ApplicationError
from temporalio.testing import ActivityEnvironment
from temporalio.worker import Worker

from activities.contracts.campaign import CampaignRef
from activities.contracts.control import Control, ControlledKind
from activities.contracts.journey import JOURNEY_WORKFLOW, JourneyInput
from activities.contracts.payload import Scope
from api.commands import brakings, campaigns, publish_plans, run_operations
from models.domain.journey import workflow_id
from models.domain.journey.definition import Definition, WaitStep
from models.domain.journey.run import RunState
from models.store.ids import first_id
from models.tables.base import new_id, utc_now
from tests.journeys.broken import OtherwiseWorkflow, RaisingWorkflow
from tests.journeys.conftest import Stack
from tests.journeys.organization import Document, Organization
from tests.journeys.reconciler import HASTE, Reconciler, as_owner, reconciler, starting_on
from tests.journeys.test_operating import carry_out, completed, preview
from tests.journeys.test_versions import save
from worker import Parts
from workflows.braking import BrakingWorkflow
from workflows.moves import MovePlanWorkflow
from workflows.operations import OperationWorkflow
from workflows.schedules import recurring_id

LONG: Document = {"pause": {"kind": "wait", "duration": "P30D", "next": None}}
FOR_EVER: Document = {"until": {"kind": "wait_for", "events": [{"event": "never_sent", "next": None}]}}


@pytest_asyncio.fixture(loop_scope="session")
async def looking(stack: Stack) -> AsyncIterator[Reconciler]:
    async with reconciler(stack) as found:
        yield found


async def waiting_run(stack: Stack, acme: Organization, steps: Document = LONG) -> Document:
    """A run that waits, in real time."""
    with stack.temporal.with_time_skipping_disabled():
        journey = await acme.publish(next(iter(steps)), steps)
        run_id = await acme.start_run(journey, await acme.contact())
        return await acme.until_run(run_id, "waiting")


async def sql(stack: Stack, acme: Organization, statement: str, **values: Any) -> None:
    async with stack.services.database.organization(UUID(str(acme.id))) as session:
        await session.execute(text(statement), {"o": acme.id, **values})


def handle_of(stack: Stack, run: Document) -> WorkflowHandle[Any, Any]:
    return stack.temporal.client.get_workflow_handle(run["workflow_id"])


async def forget(stack: Stack, run: Document) -> None:
    """Temporal's own deletion, which is asynchronous."""
    client = stack.temporal.client
    execution = WorkflowExecution(workflow_id=run["workflow_id"])
    await client.workflow_service.delete_workflow_execution(
        DeleteWorkflowExecutionRequest(namespace=client.namespace, workflow_execution=execution)
    )


@asynccontextmanager
async def elsewhere(stack: Stack, name: str) -> AsyncIterator[tuple[Stack, Organization]]:
    """An organization whose workflows have a task queue of their own."""
    apart = starting_on(stack, f"{name}-{new_id()}")
    acme = await apart.found()
    yield apart, acme
    await acme.client.aclose()


async def test_a_wake_that_is_overdue_because_no_worker_polls(stack: Stack) -> None:
    async with elsewhere(stack, "abandoned") as (apart, acme), reconciler(stack, replace(HASTE, polled=timedelta(seconds=1))) as looking:
        await abandon(apart, acme, looking)


async def abandon(stack: Stack, acme: Organization, looking: Reconciler) -> None:
    async with stack.working():
        run = await waiting_run(stack, acme, {"pause": {"kind": "wait", "duration": "PT1H", "next": None}})
        await stack.at_rest(handle_of(stack, run))
    await stack.temporal.fast_forward(handle_of(stack, run), timedelta(hours=1, seconds=1))  # its timer ends, and nobody hears it
    await sql(stack, acme, "UPDATE runs SET wake_at = wake_at - interval '1 hour' WHERE id = :id", id=run["id"])
    found = await looking.finding(acme, "overdue_wake")
    assert f"no worker polls the task queue {stack.settings.task_queue}" in found["cause"] and "leadstats worker" in found["action"]
    assert (found["subject"], found["runs"]) == ({"kind": "workflow", "id": run["workflow_id"]}, 1)
    async with stack.working():
        await acme.until_run(run["id"], "completed")
        await looking.finding(acme, "overdue_wake", open=False)
    kinds = [entry["action"] for entry in await acme.every("/audit-entries", subject_id=found["id"])]
    assert kinds == ["finding.opened", "finding.resolved"]


async def test_a_wake_whose_timer_is_lost(stack: Stack, acme: Organization, looking: Reconciler) -> None:
    async with stack.working():
        run = await waiting_run(stack, acme)
        await looking.none(acme, "overdue_wake")
        late = "UPDATE runs SET wake_at = now() - interval '1 hour', updated_at = now() - interval '1 hour' WHERE id = :id"
        await sql(stack, acme, late, id=run["id"])
        found = await looking.finding(acme, "overdue_wake")
        assert "no timer has ended" in found["cause"] and "/pause" in found["action"] and found["journey_id"] == run["journey_id"]
        await sql(stack, acme, "UPDATE runs SET wake_at = :at WHERE id = :id", id=run["id"], at=utc_now() + timedelta(days=30))
        await looking.finding(acme, "overdue_wake", open=False)


async def test_a_paused_run_is_not_overdue(stack: Stack, acme: Organization, looking: Reconciler) -> None:
    async with stack.working():
        run = await waiting_run(stack, acme, {"pause": {"kind": "wait", "duration": "PT1S", "next": "more"}, "more": LONG["pause"]})
        await acme.call("PUT", f"/runs/{run['id']}/pause", {"reason": "asked by phone"})
        late = "UPDATE runs SET wake_at = now() - interval '1 hour', updated_at = now() - interval '1 hour' WHERE id = :id"
        await sql(stack, acme, late, id=run["id"])
        await looking.none(acme, "overdue_wake")


async def test_a_wait_for_an_event_that_nobody_sends_is_a_suspicion_until_it_comes(
    stack: Stack, acme: Organization, looking: Reconciler
) -> None:
    async with stack.working():
        run = await waiting_run(stack, acme, FOR_EVER)
        found = await looking.finding(acme, "wait_without_event")
        assert (found["severity"], found["runs"]) == ("suspicion", 1)
        assert "never_sent" in found["cause"] and "30 days" in found["cause"] and "POST /v1/events" in found["action"]
        with stack.temporal.with_time_skipping_disabled():
            await acme.post("/events", {"name": "never_sent", "contact_id": run["contact_id"]})
            await acme.until_run(run["id"], "completed")
        await looking.finding(acme, "wait_without_event", open=False)


async def test_a_wait_that_nothing_can_end_any_more(stack: Stack, acme: Organization, looking: Reconciler) -> None:
    async with stack.working():
        run = await waiting_run(stack, acme, FOR_EVER)
        await acme.post("/events", {"name": "never_sent", "contact_id": await acme.contact()})  # it does come, for others
        await looking.none(acme, "wait_without_event")
        await sql(stack, acme, "UPDATE waits SET state = 'closed', closed_at = now() - interval '1 hour' WHERE run_id = :id", id=run["id"])
        found = await looking.finding(acme, "wait_without_event")
        assert found["severity"] == "problem" and "nothing can end it" in found["cause"] and "closed: 1" in found["cause"]
        assert "/cancellation" in found["action"] and found["details"]["run_ids"] == [run["id"]]
        await acme.call("PUT", f"/runs/{run['id']}/cancellation", {"reason": "asked by phone"})
        await looking.finding(acme, "wait_without_event", open=False)


async def test_workflow_tasks_that_fail_by_an_exception(stack: Stack, looking: Reconciler) -> None:
    async with elsewhere(stack, "raising") as (apart, acme):
        with stack.temporal.with_time_skipping_disabled():
            await raise_and_mend(apart, acme, looking)


async def raise_and_mend(stack: Stack, acme: Organization, looking: Reconciler) -> None:
    async with Worker(stack.temporal.client, task_queue=stack.settings.task_queue, workflows=[RaisingWorkflow]):
        run_id = await acme.start_run(await acme.publish("pause", LONG), await acme.contact())
        found = await looking.finding(acme, "workflow_task_failing")
    assert "raises LookupError" in found["cause"] and "Deploy" in found["action"] and found["runs"] == 1
    async with stack.working():  # the release that mends it
        handle = handle_of(stack, await acme.run(run_id))
        await handle.signal("tell", {"messages": []})
        await acme.until_run(run_id, "waiting")
        await looking.finding(acme, "workflow_task_failing", open=False)


async def test_workflow_tasks_that_fail_by_nondeterminism(stack: Stack, looking: Reconciler) -> None:
    async with elsewhere(stack, "otherwise") as (apart, acme):
        async with apart.working():
            run = await waiting_run(apart, acme)
        queue = apart.settings.task_queue
        async with Worker(stack.temporal.client, task_queue=queue, workflows=[OtherwiseWorkflow], max_cached_workflows=0):
            said = Control(organization_id=acme.id, kind=ControlledKind.JOURNEY, id=UUID(run["journey_id"]), command="pause")
            await handle_of(stack, run).signal("control", said)
            found = await looking.finding(acme, "workflow_task_failing")
    assert "nondeterminism" in found["cause"] and "workflow.patched" in found["action"]
    await handle_of(stack, run).terminate()


async def test_an_activity_that_fails_for_ever(stack: Stack, acme: Organization, looking: Reconciler) -> None:
    """A statement that the database always refuses."""
    refuse = f"""
        CREATE FUNCTION refuse_{new_id().hex}() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
          RAISE EXCEPTION 'person@example.com' USING ERRCODE = 'disk_full'; END $$"""
    name = refuse.split()[2].removesuffix("()")
    when = f"WHEN (NEW.organization_id = '{acme.id}') EXECUTE FUNCTION {name}()"
    as_owner(stack, refuse, f"CREATE TRIGGER {name} BEFORE INSERT ON run_events FOR EACH ROW {when}")
    async with stack.working():
        try:
            with stack.temporal.with_time_skipping_disabled():
                run_id = await acme.start_run(await acme.publish("pause", LONG), await acme.contact())
            found = await looking.finding(acme, "activity_failing")
        finally:
            as_owner(stack, f"DROP TRIGGER {name} ON run_events", f"DROP FUNCTION {name}")
        assert "record_audit" in found["cause"] and found["details"]["failure"] == "OperationalError, DiskFull"
        assert "worker's log" in found["action"] and "person@example.com" not in str(found)
        await acme.until_run(run_id, "waiting")
        await looking.finding(acme, "activity_failing", open=False)


async def test_an_operation_whose_workflow_fails_again_and_again(stack: Stack, looking: Reconciler) -> None:
    async with elsewhere(stack, "failing") as (apart, acme):
        async with apart.working():
            run = await waiting_run(apart, acme)
        with stack.temporal.with_time_skipping_disabled():
            await fail_and_mend(apart, acme, run, looking)


async def fail_and_mend(stack: Stack, acme: Organization, run: Document, looking: Reconciler) -> None:
    async with failing(stack, OperationWorkflow, "control_page"):
        seen = await preview(acme, "pause", {"run_ids": [run["id"]]})
        await acme.post("/run-operations", {"preview_id": seen["id"], "reason": "asked by phone"})
        await has_failed(stack, acme, workflow_id.run_operation(UUID(str(acme.id)), UUID(seen["id"])))
        await looking.none(acme, "operation_failing")  # once is nothing
        await begin_anew(stack, acme, run_operations.start_missing_workflows, "run_operations", "executed_at")
        found = await looking.finding(acme, "operation_failing")
    assert found["subject"] == {"kind": "run_operation", "id": seen["id"]} and found["runs"] == 1
    assert "control_page with NotFound" in found["cause"] and f"/v1/run-operations/{seen['id']}/cancellation" in found["action"]
    assert len(found["details"]["fingerprint"]) == 16 and "person@example.com" not in str(found)
    async with stack.working():
        await run_operations.start_missing_workflows(stack.services, UUID(str(acme.id)), lambda: None)
        await completed(acme, seen["id"])
        await looking.finding(acme, "operation_failing", open=False)


async def test_a_publish_plan_whose_workflow_fails_again_and_again(stack: Stack, looking: Reconciler) -> None:
    async with elsewhere(stack, "failing-plan") as (apart, acme):
        async with apart.working():
            run = await waiting_run(apart, acme)
        with apart.temporal.with_time_skipping_disabled():
            await save(acme, run["journey_id"], {"pause": {**LONG["pause"], "duration": "P31D"}}, start="pause")
            plan = await acme.post(f"/journeys/{run['journey_id']}/publish-plans", None)
            path = f"/journeys/{run['journey_id']}/publish-plans/{plan['id']}"
            choices = [{"version": 1, "step_id": "pause", "choice": "move", "to_step": "pause"}]
            async with failing(apart, MovePlanWorkflow, "tell_moves"):
                await acme.call("PUT", f"{path}/execution", {"fingerprint": plan["fingerprint"], "choices": choices})
                await has_failed(apart, acme, workflow_id.publish_plan(UUID(str(acme.id)), UUID(plan["id"])))
                await looking.none(acme, "publish_plan_failing")  # once is nothing
                await begin_anew(apart, acme, publish_plans.start_missing_workflows, "publish_plans", "executed_at")
                found = await looking.finding(acme, "publish_plan_failing")
            assert found["subject"] == {"kind": "publish_plan", "id": plan["id"]} and found["runs"] == 1
            assert "tell_moves with NotFound" in found["cause"] and path in found["action"] and "person@example.com" not in str(found)
            async with apart.working():
                await begin_anew(apart, acme, publish_plans.start_missing_workflows, "publish_plans", "executed_at")
                await acme.until(lambda: acme.get(path), lambda seen: seen["status"] == "completed")
                await looking.finding(acme, "publish_plan_failing", open=False)


async def test_a_braking_whose_workflow_fails_again_and_again(stack: Stack, looking: Reconciler) -> None:
    async with elsewhere(stack, "failing-brake") as (apart, acme):
        journey, braking = await acme.publish("pause", LONG), new_id()
        await sql(
            apart,
            acme,
            """INSERT INTO brakings (id, organization_id, subject_kind, subject_id, journey_id, reason, facts, unreachable, created_at)
            VALUES (:id, :o, 'journey', :journey, :journey, 'too_many_failures', '{}', '[]', now())""",
            id=braking,
            journey=journey,
        )
        with apart.temporal.with_time_skipping_disabled():
            async with failing(apart, BrakingWorkflow, "hold_braked"):
                for _ in range(2):
                    await begin_anew(apart, acme, brakings.start_missing_workflows, "brakings", "created_at")
                    await has_failed(apart, acme, workflow_id.braking(UUID(str(acme.id)), braking))
                found = await looking.finding(acme, "braking_failing")
            assert found["subject"] == {"kind": "braking", "id": str(braking)} and found["journey_id"] == journey
            assert "hold_braked with NotFound" in found["cause"] and "nobody has been told" in found["cause"]
            assert f"DELETE /v1/journeys/{journey}/pause" in found["action"]
            await sql(apart, acme, "UPDATE brakings SET lifted_at = now()")
            await looking.finding(acme, "braking_failing", open=False)


def failing(stack: Stack, workflow: type[Any], name: str) -> Worker:
    """A worker of which this activity of the workflow fails for good."""

    @activity.defn(name=name)
    async def fail(given: Any) -> None:
        raise ApplicationError("person@example.com", type="NotFound")

    return Worker(stack.temporal.client, task_queue=stack.settings.task_queue, workflows=[workflow], activities=[fail])


async def has_failed(stack: Stack, acme: Organization, name: str) -> None:
    await acme.until(lambda: status_of(stack.temporal.client.get_workflow_handle(name)), lambda found: found["status"] == "FAILED")


async def begin_anew(stack: Stack, acme: Organization, start_missing: Callable[..., Awaitable[int]], table: str, since: str) -> None:
    """As upkeep does once ten seconds have passed."""
    await sql(stack, acme, f"UPDATE {table} SET {since} = {since} - interval '11 seconds' WHERE {since} IS NOT NULL")
    assert await start_missing(stack.services, UUID(str(acme.id)), lambda: None) == 1


async def status_of(handle: WorkflowHandle[Any, Any]) -> Document:
    status = (await handle.describe()).status
    return {"status": status.name if status else None}


async def test_a_workflow_that_was_terminated_leaves_runs_that_say_so(stack: Stack, acme: Organization, looking: Reconciler) -> None:
    async with stack.working():
        run = await waiting_run(stack, acme)
        await handle_of(stack, run).terminate(reason="by mistake")
        found = await looking.finding(acme, "workflow_closed")
        assert "was terminated from outside" in found["cause"] and "/replays" in found["action"] and found["runs"] == 1
        lost = await acme.until_run(run["id"], "needs_attention")
        assert (lost["reason"], lost["step_id"], lost["wake_at"]) == ("workflow_lost", "pause", None)
        last = (await acme.timeline(run["id"]))[-1]
        assert last["kind"] == "parked" and "the workflow that carried it is gone" in last["sentence"]
        again = await acme.client.put(f"/v1/runs/{run['id']}/retry", json={"reason": "asked by phone"})
        assert again.status_code == 409 and "Replay it" in again.json()["detail"]
        seen = (await looking.finding(acme, "workflow_closed"))["seen"]
        assert seen > found["seen"]  # it stays while its runs do
        ended = await acme.call("PUT", f"/runs/{run['id']}/cancellation", {"reason": "not needed"})
        assert (ended.json()["status"], (await acme.run(run["id"]))["status"]) == ("cancelled", "cancelled")
        await looking.finding(acme, "workflow_closed", open=False)
        assert (await acme.get("/conservation"))["holds"]


async def test_a_row_whose_workflow_is_not_in_temporal(stack: Stack, acme: Organization, looking: Reconciler) -> None:
    async with stack.working():
        run = await waiting_run(stack, acme)
        await forget(stack, run)
        found = await looking.finding(acme, "row_without_workflow")
        assert "not in Temporal any more" in found["cause"] and "/replays" in found["action"]
        assert (await acme.until_run(run["id"], "needs_attention"))["reason"] == "workflow_lost"
        done = await carry_out(acme, "cancel", {"run_ids": [run["id"]]})
        assert (done["progress"]["done"], (await acme.run(run["id"]))["status"]) == (1, "cancelled")
        last = (await acme.timeline(run["id"]))[-1]
        assert last["sentence"].startswith("Cancelled by ") and last["details"]["operation_id"] == done["id"]


async def test_a_row_whose_workflow_was_never_started_is_left_to_upkeep(stack: Stack, acme: Organization, looking: Reconciler) -> None:
    async with stack.working():
        run = await waiting_run(stack, acme)
        copy = f"""INSERT INTO runs SELECT (r).* FROM (SELECT jsonb_populate_record(r, jsonb_build_object('id', CAST(:id AS text),
                     'workflow_id', CAST(:name AS text), 'sequence', 0, 'status', 'active', 'created_at', now() - interval '1 hour',
                     'updated_at', now() - interval '1 hour', 'wake_at', NULL)) AS r FROM runs r WHERE r.id = '{run["id"]}') s"""
        run_id = new_id()
        await sql(stack, acme, copy, id=run_id, name=workflow_id.single_run(UUID(str(acme.id)), run_id))
        found = await looking.finding(acme, "row_without_workflow")
        assert "has still not been started" in found["cause"] and "by itself" in found["action"]
        assert (await acme.run(str(run_id)))["status"] == "active"


async def test_a_workflow_whose_runs_the_database_does_not_know(stack: Stack, acme: Organization, looking: Reconciler) -> None:
    definition = Definition(start="pause", steps={"pause": WaitStep(duration=timedelta(days=30))})
    scope = Scope(organization_id=acme.id, journey_id=new_id(), version_id=new_id())
    runs = [RunState(run_id=new_id(), contact_id=new_id(), step_id="pause")]
    name = workflow_id.single_run(UUID(str(acme.id)), runs[0].run_id)
    async with stack.working():
        with stack.temporal.with_time_skipping_disabled():
            handle = await stack.temporal.client.start_workflow(
                JOURNEY_WORKFLOW, JourneyInput(scope=scope, definition=definition, runs=runs), id=name, task_queue=stack.settings.task_queue
            )
        found = await looking.finding(acme, "workflow_without_row")
        assert found["subject"]["id"] == name and f"temporal workflow terminate --workflow-id {name}" in found["action"]
        await handle.terminate()
        await looking.finding(acme, "workflow_without_row", open=False)


async def test_a_journey_whose_entries_fell_to_nothing(stack: Stack, acme: Organization, looking: Reconciler) -> None:
    """Twelve at the same hours of each of the last seven days, and nobody today. One that is paused is meant so."""
    async with stack.working():
        run = await waiting_run(stack, acme)
        copy = """INSERT INTO runs SELECT (s.r).* FROM (SELECT jsonb_populate_record(r, jsonb_build_object('id', a.id)) AS r
                  FROM runs r CROSS JOIN unnest(CAST(:ids AS text[])) AS a(id) WHERE r.id = :id) s"""
        past = [utc_now() - timedelta(days=day, hours=1, seconds=each) for day in range(1, 8) for each in range(12)]
        ids = [str(UUID(int=first_id(at).int | (new_id().int & ((1 << 62) - 1)))) for at in past]
        await sql(stack, acme, copy, id=run["id"], ids=ids)
        await sql(stack, acme, "DELETE FROM waits WHERE run_id = :id", id=run["id"])
        young = first_id(utc_now() - timedelta(hours=6))
        await sql(stack, acme, "UPDATE runs SET id = :older WHERE id = :id AND id > :young", id=run["id"], older=new_old(), young=young)
        found = await looking.finding(acme, "volume_fell")
        assert found["subject"] == {"kind": "journey", "id": run["journey_id"]} and found["severity"] == "suspicion"
        assert "last 6 hours" in found["cause"] and "at least 12 each time" in found["cause"] and "/v1/entries" in found["action"]


async def test_journeys_that_lead_into_each_other_through_a_segment(stack: Stack, acme: Organization, looking: Reconciler) -> None:
    """Each takes away what brings its contact in, and gives what brings it into the other."""
    segment = (await acme.post("/segments", {"name": acme.name("Segment"), "rule": {"tag": "vip"}}))["id"]
    journeys = {}
    for kind, change in (("segment_entered", "remove_tags"), ("segment_left", "add_tags")):
        entry = {"triggers": [{"kind": kind, "segment_id": segment}]}
        journeys[kind] = await acme.publish("change", {"change": {"kind": "update_contact", change: ["vip"]}}, entry=entry)
    async with stack.working():
        contact = await acme.contact(tags=["vip"])
        with stack.temporal.with_time_skipping_disabled():
            found = await looking.finding(acme, "going_round")
    assert found["subject"] == {"kind": "journey", "id": journeys["segment_entered"]} and found["severity"] == "problem"
    assert found["details"]["others"] == [journeys["segment_left"]] and journeys["segment_left"] in found["cause"]
    assert "cool_down" in found["action"] and contact not in str(found)
    await sql(stack, acme, "UPDATE entries SET decided_at = decided_at - interval '1 hour' WHERE organization_id = :o")
    async with stack.working():
        await looking.finding(acme, "going_round", open=False)


def new_old() -> UUID:
    return UUID(int=first_id(utc_now() - timedelta(days=400)).int | (new_id().int & ((1 << 62) - 1)))


async def test_conservation_that_differs(stack: Stack, acme: Organization, looking: Reconciler) -> None:
    async with stack.working():
        run = await waiting_run(stack, acme)
        await looking.none(acme, "conservation")
        copy = """INSERT INTO runs SELECT (s.r).* FROM (SELECT jsonb_populate_record(r, jsonb_build_object('id', CAST(:new AS text),
                  'status', 'exited', 'finished_at', now())) AS r FROM runs r WHERE r.id = :id) s"""
        invented = new_id()
        await sql(stack, acme, copy, id=run["id"], new=invented)
        found = await looking.finding(acme, "conservation")
        assert "1 runs entered" in found["cause"] and "2 are in the table" in found["cause"] and "audit verify" in found["action"]
        assert found["details"]["difference"] == -1 and not (await acme.get("/conservation"))["holds"]
        await sql(stack, acme, "DELETE FROM runs WHERE id = :id", id=invented)
        await looking.finding(acme, "conservation", open=False)


async def test_a_campaign_whose_workflow_was_terminated_goes_on_and_starts_nobody_twice(
    stack: Stack, acme: Organization, looking: Reconciler
) -> None:
    """While its runs wait: nobody would ever have called it completed."""
    await acme.contacts(4)
    async with stack.working():
        with stack.temporal.with_time_skipping_disabled():
            journey = await acme.publish("pause", LONG)
            campaign_id = await acme.launch(journey, page_size=2)
            await acme.until(lambda: acme.campaign(campaign_id), lambda found: found["progress"]["runs"] == {"waiting": 4})
            await terminate_campaign(stack, acme, campaign_id)
            await looking.look()
            done = await carry_out(acme, "cancel", {"journey_id": journey})
            ended = await acme.until_campaign(campaign_id)
        runs = await acme.every("/runs", journey_id=journey)
        told = [[entry["kind"] for entry in await acme.timeline(run["id"]) if entry["source"] == "event"] for run in runs]
    assert (done["progress"]["done"], ended["progress"]["runs"]) == (4, {"cancelled": 4})
    assert told == [["entered", "waiting", "cancelled"]] * 4
    assert await acme.every("/findings") == []


@pytest.mark.parametrize("hours", [1.5, -2], ids=["in time", "too late"])
async def test_an_occurrence_whose_workflow_was_terminated_before_it_made_it(
    stack: Stack, acme: Organization, looking: Reconciler, hours: float
) -> None:
    """In time it takes place; too late, a finding says that nobody was sent anything."""
    due = (utc_now() + timedelta(hours=hours)).replace(second=0, microsecond=0)
    rule = f"FREQ=DAILY;BYHOUR={due.hour};BYMINUTE={due.minute};COUNT=1"
    with stack.temporal.with_time_skipping_disabled():
        schedule = {"kind": "recurring", "rule": rule, "zone": "UTC", "begins_at": due.isoformat()}
        if hours < 0:  # launched in time, and then forgotten
            schedule["begins_at"] = (due + timedelta(days=9)).isoformat()
        parent = await acme.launch(await acme.publish("pause", LONG), schedule=schedule)
        if hours < 0:
            begun = """UPDATE campaigns SET created_at = created_at - interval '1 day',
                         schedule = jsonb_set(schedule, '{schedule,begins_at}', to_jsonb(CAST(:due AS text))) WHERE id = :id"""
            await sql(stack, acme, begun, id=parent, due=due.isoformat())
        else:  # nobody works yet
            name = f"{recurring_id(UUID(str(acme.id)), UUID(parent))}-"
            await acme.until(lambda: terminate_all(stack, name), lambda found: found["terminated"] > 0)
            await sql(stack, acme, "UPDATE campaigns SET created_at = created_at - interval '1 minute' WHERE id = :id", id=parent)
        for _ in range(2):
            await looking.look()
        made = await acme.every("/campaigns", parent_id=parent)
        assert [datetime.fromisoformat(one["nominal_at"]) for one in made] == ([due] if hours > 0 else [])
    if hours < 0:
        found = await looking.finding(acme, "occurrence_missed")
        assert found["subject"] == {"kind": "campaign", "id": parent} and found["details"]["nominal_at"] == [due.isoformat()]
        assert len(await acme.every("/audit-entries", action="campaign.occurrence_skipped", subject_id=parent)) == 1
        return
    own = stack.temporal.client.get_workflow_handle(workflow_id.campaign(UUID(str(acme.id)), UUID(made[0]["id"])))
    assert (await own.describe()).status is WorkflowExecutionStatus.RUNNING  # until it is due


@pytest.mark.parametrize("what", ["delete", "pause"])
async def test_a_schedule_that_was_stopped_in_temporal_goes_on(stack: Stack, acme: Organization, looking: Reconciler, what: str) -> None:
    begins_at = (utc_now() + timedelta(days=10)).isoformat()
    rule = {"kind": "recurring", "rule": "FREQ=DAILY;BYHOUR=9", "zone": "UTC", "begins_at": begins_at}
    with stack.temporal.with_time_skipping_disabled():
        parent = await acme.launch(await acme.publish("pause", LONG), schedule=rule)
        await looking.none(acme, "schedule_stopped")
        schedule = stack.temporal.client.get_schedule_handle(recurring_id(UUID(str(acme.id)), UUID(parent)))
        before = (await schedule.describe()).schedule
        await (schedule.delete() if what == "delete" else schedule.pause(note="by mistake"))
        found = await looking.finding(acme, "schedule_stopped")
        assert found["subject"] == {"kind": "campaign", "id": parent} and f"was {what}d in Temporal" in found["cause"]
        await campaigns.start_missing_workflows(stack.services, UUID(str(acme.id)), lambda: None)  # as upkeep does each minute
        await looking.finding(acme, "schedule_stopped", open=False)
        after = (await schedule.describe()).schedule
    assert not after.state.paused and after.spec == before.spec
    await acme.call("PUT", f"/campaigns/{parent}/cancellation")


async def terminate_all(stack: Stack, prefix: str) -> Document:
    """How many workflows ran whose ids begin so."""
    client, count = stack.temporal.client, 0
    async for one in client.list_workflows(f"WorkflowId STARTS_WITH '{prefix}' AND ExecutionStatus = 'Running'"):
        await client.get_workflow_handle(one.id).terminate(reason="by mistake")
        count += 1
    return {"terminated": count}


@pytest.mark.parametrize("taken", [False, True])
async def test_a_campaign_whose_workflow_was_terminated_before_its_pages_were_started_starts_them(
    stack: Stack, acme: Organization, looking: Reconciler, taken: bool
) -> None:
    """`taken`: its audience is, since so long ago that the runs would be given up, were it not for the campaign."""
    await acme.contacts(4)
    journey = await acme.publish("pause", LONG)
    campaign_id = await acme.launch(journey, page_size=2)  # nobody works yet
    await terminate_campaign(stack, acme, campaign_id)
    if taken:
        parts = Parts.build(stack.services.temporal, stack.services.database, stack.settings)
        [snapshot] = [each for each in parts.records if each.__name__ == "snapshot_audience"]
        await ActivityEnvironment().run(snapshot, CampaignRef(organization_id=acme.id, campaign_id=UUID(campaign_id)))
        await parts.close()
        await sql(stack, acme, "UPDATE runs SET created_at = created_at - interval '1 hour', updated_at = updated_at - interval '1 hour'")
    with stack.temporal.with_time_skipping_disabled():
        await looking.look()
        async with stack.working():
            await acme.until(lambda: acme.campaign(campaign_id), lambda found: found["progress"]["runs"] == {"waiting": 4})
    assert await acme.every("/findings", kind="workflow_closed") == []
    runs = await acme.every("/runs", journey_id=journey)
    assert [(await acme.timeline(run["id"]))[0]["kind"] for run in runs] == ["entered"] * 4


async def terminate_campaign(stack: Stack, acme: Organization, campaign_id: str) -> None:
    """And visibility, which lags behind, knows of it."""
    name = workflow_id.campaign(acme.id, UUID(campaign_id))
    await stack.temporal.client.get_workflow_handle(name).terminate("by mistake")

    async def look() -> Document:
        listed = stack.temporal.client.list_workflows(f"WorkflowId = '{name}' AND ExecutionStatus = 'Running'")
        return {"running": [each.id async for each in listed]}

    await acme.until(look, lambda found: found["running"] == [])


async def test_a_campaign_whose_workflow_fails_again_and_again_is_found_and_goes_on_once_mended(
    stack: Stack, acme: Organization, looking: Reconciler
) -> None:
    await acme.contacts(2)
    journey = await acme.publish("pause", LONG)
    campaign_id = await acme.launch(journey)  # nobody works yet
    await sql(stack, acme, """UPDATE campaigns SET segment_rule = '{"nonsense": true}' WHERE organization_id = :o""")
    with stack.temporal.with_time_skipping_disabled():
        async with stack.working():
            found = await looking.finding(acme, "workflow_closed")
            await sql(stack, acme, "UPDATE campaigns SET segment_rule = NULL WHERE organization_id = :o")

            await looking.until(acme, lambda: acme.campaign(campaign_id), lambda seen: seen["progress"]["runs"] == {"waiting": 2})
            await looking.finding(acme, "workflow_closed", open=False)
    assert "The workflow of a campaign failed at" in found["cause"] and f"/v1/campaigns/{campaign_id}/cancellation" in found["action"]
    assert found["subject"]["id"] == workflow_id.campaign(acme.id, UUID(campaign_id))


@pytest.mark.parametrize("subject", ["journeys", "campaigns"])
async def test_runs_that_were_not_told_of_a_resumption_hear_of_it(
    stack: Stack, acme: Organization, looking: Reconciler, subject: str
) -> None:
    """The control workflow was terminated after it had lifted the pause. Asking again does nothing: nothing is paused any more."""
    path, campaign_id = await paused(stack, acme, subject)
    table = path.split("/")[1]
    await sql(stack, acme, f"UPDATE {table} SET paused_at = NULL WHERE organization_id = :o")
    await acme.call("DELETE", f"{path}/pause")
    async with stack.working():
        with stack.temporal.with_time_skipping_disabled():
            went_on = {"waiting": 2, "paused": 1}
            await looking.until(acme, lambda: acme.campaign(campaign_id), lambda found: found["progress"]["runs"] == went_on)


async def test_runs_that_were_not_told_of_their_campaigns_cancellation_hear_of_it(
    stack: Stack, acme: Organization, looking: Reconciler
) -> None:
    _, campaign_id = await paused(stack, acme, "campaigns")
    cancelled = "UPDATE campaigns SET cancelled_at = now() - interval '1 hour', status = 'cancelled' WHERE organization_id = :o"
    await sql(stack, acme, cancelled)
    async with stack.working():
        with stack.temporal.with_time_skipping_disabled():
            ended = await looking.until(acme, lambda: acme.campaign(campaign_id), lambda found: found["finished_at"] is not None)
    assert (ended["status"], ended["progress"]["runs"]) == ("cancelled", {"cancelled": 3})


async def test_runs_that_were_not_told_of_their_journeys_cancellation_hear_of_it(
    stack: Stack, acme: Organization, looking: Reconciler
) -> None:
    """The process that had written it down died before it told Temporal. Who came later is left alone."""
    async with stack.working():
        with stack.temporal.with_time_skipping_disabled():
            journey = await acme.publish("pause", LONG)
            before, after = [await acme.start_run(journey, await acme.contact()) for _ in range(2)]
            for run in (before, after):
                await acme.until_run(run, "waiting")
            await sql(stack, acme, "UPDATE runs SET updated_at = updated_at - interval '1 hour' WHERE organization_id = :o")
            earlier = f"UPDATE runs SET created_at = created_at - interval '3 hours' WHERE organization_id = :o AND id = '{before}'"
            await sql(stack, acme, earlier)
            await sql(stack, acme, "UPDATE journeys SET runs_cancelled_at = now() - interval '2 hours' WHERE organization_id = :o")
            ended = await looking.until(acme, lambda: acme.run(before), lambda found: found["status"] == "cancelled")
            assert (ended["reason"], (await acme.run(after))["status"]) == ("journey_cancelled", "waiting")


async def test_while_somebody_tells_them_nobody_else_does(stack: Stack, acme: Organization, looking: Reconciler) -> None:
    """A resumption that spreads them must not be overtaken."""
    path, campaign_id = await paused(stack, acme, "journeys")
    await acme.post(f"{path}/resumptions", {"spread": "PT1H"})  # nobody works
    await sql(stack, acme, "UPDATE journeys SET paused_at = NULL WHERE organization_id = :o")
    await looking.look()
    pages = [run["workflow_id"] for run in await acme.every("/runs", campaign_id=campaign_id)]
    told = [await signals(stack, name) for name in set(pages)]
    assert told == [["pause"]] * 2


async def signals(stack: Stack, name: str) -> list[str]:
    handle = stack.temporal.client.get_workflow_handle(name)
    events = [event.workflow_execution_signaled_event_attributes async for event in handle.fetch_history_events()]
    payloads = [each.input.payloads for each in events if each.signal_name == "control"]
    return [(await stack.temporal.client.data_converter.decode(each, [Control]))[0].command for each in payloads]


async def paused(stack: Stack, acme: Organization, subject: str) -> tuple[str, str]:
    """Three runs of a campaign in two pages, paused for an hour with all; one of them by itself, too. Where to speak to the subject, and
    the campaign."""
    await acme.contacts(3)
    async with stack.working():
        with stack.temporal.with_time_skipping_disabled():
            journey = await acme.publish("pause", LONG)
            campaign_id = await acme.launch(journey, page_size=2)
            await acme.until(lambda: acme.campaign(campaign_id), lambda found: found["progress"]["runs"] == {"waiting": 3})
            path = f"/journeys/{journey}" if subject == "journeys" else f"/campaigns/{campaign_id}"
            await acme.call("PUT", f"{path}/pause", {"reason": "wrong price"})
            await acme.until(lambda: acme.campaign(campaign_id), lambda found: found["progress"]["runs"] == {"paused": 3})
            itself = (await acme.every("/runs", campaign_id=campaign_id))[0]["id"]
            await acme.call("PUT", f"/runs/{itself}/pause", {"reason": "asked by phone"})
    await sql(stack, acme, "UPDATE runs SET updated_at = updated_at - interval '1 hour' WHERE organization_id = :o")
    return path, campaign_id
