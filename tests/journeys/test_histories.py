"""What the engine did outlives the engine: histories are archived when workflows close, in whatever way."""

import hashlib
import json
from collections.abc import AsyncIterator

import pytest_asyncio
from temporalio.client import WorkflowHistory
from temporalio.service import RPCError
from temporalio.worker import Replayer

from activities.contracts.journey import JourneyInput
from tests.journeys.conftest import Stack
from tests.journeys.organization import Document, Organization
from tests.journeys.reconciler import Reconciler, as_owner, reconciler
from tests.journeys.test_findings import LONG, forget, handle_of, waiting_run
from tests.journeys.test_versions import choice, execute
from workflows.connection import payload_keys
from workflows.journey import JourneyWorkflow
from workflows.payloads import ENCODING, data_converter
from workflows.sandbox import RUNNER


@pytest_asyncio.fixture(loop_scope="session")
async def looking(stack: Stack) -> AsyncIterator[Reconciler]:
    async with reconciler(stack) as found:
        yield found


async def archived(acme: Organization, looking: Reconciler, run_id: str, count: int = 1) -> list[Document]:
    """The run's histories, once there are so many."""

    async def look() -> Document:
        await looking.look()
        return {"items": await acme.every(f"/runs/{run_id}/histories")}

    return list((await acme.until(look, lambda found: len(found["items"]) == count))["items"])


async def forgotten(stack: Stack, acme: Organization, run: Document) -> None:
    await forget(stack, run)

    async def known() -> Document:
        try:
            await handle_of(stack, run).describe()
        except RPCError:
            return {"known": False}
        return {"known": True}

    await acme.until(known, lambda found: not found["known"])


async def test_the_history_of_a_terminated_workflow_outlives_temporal(stack: Stack, acme: Organization, looking: Reconciler) -> None:
    topic = await acme.topic()
    contact = await acme.contact()
    await acme.consent([contact], topic)
    async with stack.working():
        with stack.temporal.with_time_skipping_disabled():
            run_id = await acme.start_run(await acme.send_wait_send(topic, "P30D"), contact)
            run = await acme.until_run(run_id, "waiting")
        await handle_of(stack, run).terminate(reason="by mistake")
        [history] = await archived(acme, looking, run_id)
        await looking.finding(acme, "workflow_closed")
    await forgotten(stack, acme, run)
    entries = await acme.timeline(run_id)
    assert [entry["kind"] for entry in entries if entry["source"] == "event"] == ["entered", "sent", "waiting", "parked"]
    assert {entry["decision"]["check"] for entry in entries if entry["decision"]} == {"consent", "quiet_hours"}
    assert (history["status"], history["workflow_id"]) == ("terminated", run["workflow_id"]) and history["closed_at"]

    download = await acme.call("GET", f"/runs/{run_id}/histories/{history['id']}")
    assert hashlib.sha256(download.content).hexdigest() == history["sha256"] == download.headers["ETag"].strip('"')
    assert len(download.content) == history["size_bytes"]
    [entry] = await acme.every("/audit-entries", action="history.archived", subject_id=run["workflow_id"])
    assert entry["details"]["sha256"] == history["sha256"] and entry["details"]["history_id"] == history["id"]
    found = WorkflowHistory.from_json(run["workflow_id"], download.text)
    assert len(found.events) == history["events"]
    converter = data_converter(payload_keys(stack.settings))
    payloads = found.events[0].workflow_execution_started_event_attributes.input.payloads
    assert [payload.metadata["encoding"] for payload in payloads] == [ENCODING]
    [given] = await converter.decode(payloads, [JourneyInput])
    assert [str(state.run_id) for state in given.runs] == [run_id]
    replayed = await Replayer(workflows=[JourneyWorkflow], data_converter=converter, workflow_runner=RUNNER).replay_workflow(found)
    assert replayed.replay_failure is None
    email = (await acme.get(f"/contacts/{contact}"))["email"]
    assert email not in download.text and email not in json.dumps(given.model_dump(mode="json"))


async def test_every_workflow_that_carried_a_run_is_archived_once(stack: Stack, acme: Organization, looking: Reconciler) -> None:
    """One before a publish plan, and one after it. Sweeping again archives nothing twice."""
    async with stack.working():
        run = await waiting_run(stack, acme)
        path = f"/journeys/{run['journey_id']}"
        longer = {"start": "pause", "steps": {"pause": {**LONG["pause"], "duration": "P60D"}}}
        await acme.call("PATCH", f"{path}/draft", {"draft": longer}, headers={"If-Match": '"1"'})
        with stack.temporal.with_time_skipping_disabled():
            plan = await acme.post(f"{path}/publish-plans", None)
            await execute(acme, plan, choice("pause", "move", "pause"))
            moved = await acme.until(lambda: acme.run(run["id"]), lambda found: found["workflow_id"] != run["workflow_id"])
            await acme.until_run(run["id"], "waiting")
        await acme.call("PUT", f"/runs/{run['id']}/cancellation", {"reason": "asked by phone"})
        found = await archived(acme, looking, run["id"], 2)
        assert {each["workflow_id"]: each["status"] for each in found} == {
            run["workflow_id"]: "completed",
            moved["workflow_id"]: "completed",
        }
        for _ in range(2):
            await looking.look()
    for name in (run["workflow_id"], moved["workflow_id"]):
        assert len(await acme.every("/audit-entries", action="history.archived", subject_id=name)) == 1


async def test_a_history_that_no_sweep_could_see_is_a_finding(stack: Stack, acme: Organization, looking: Reconciler) -> None:
    """Deleted by hand before it was archived: the record of what became of the run is complete, and says what is missing."""
    async with stack.working():
        run = await waiting_run(stack, acme)
        await looking.look()
        await acme.call("PUT", f"/runs/{run['id']}/cancellation", {"reason": "asked by phone"})
        await forgotten(stack, acme, run)
        found = await looking.finding(acme, "history_missing")
    assert found["subject"]["id"] == run["workflow_id"] and "Temporal has forgotten it" in found["cause"]
    assert found["severity"] == "suspicion" and "retention" in found["action"]


async def test_what_a_sweep_missed_is_fetched_by_its_name(stack: Stack, acme: Organization, looking: Reconciler) -> None:
    """The mark stands after its end, as if visibility had lagged for longer than the overlap."""
    as_owner(stack, "DELETE FROM archive_marks", "INSERT INTO archive_marks SELECT 'default', now() + interval '1 day'")
    try:
        async with stack.working():
            await looking.look()
            with stack.temporal.with_time_skipping_disabled():
                journey = await acme.publish("pause", {"pause": {"kind": "wait", "duration": "PT1S", "next": None}})
                run_id = await acme.start_run(journey, await acme.contact())
                await acme.until_run(run_id, "completed")
            [history] = await archived(acme, looking, run_id)
        assert history["status"] == "completed"
    finally:
        as_owner(stack, "DELETE FROM archive_marks")
