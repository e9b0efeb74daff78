"""Operating runs, one and many, end to end through the public API."""

import asyncio
from collections import Counter
from collections.abc import Sequence
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import text
from temporalio.testing import ActivityEnvironment

from activities import operations
from activities.contracts.operations import OPERATION_WORKFLOW, OperationPage, OperationRef
from activities.operations import OperationActivities
from api.commands import run_operations
from models.store import run_operations as run_operations_store
from models.tables.base import new_id
from tests.journeys.conftest import Stack
from tests.journeys.organization import Document, Organization

REASON = "asked by the customer"
WAITS: Document = {
    "long": {"kind": "wait", "duration": "P30D", "next": "short"},
    "short": {"kind": "wait", "duration": "P1D", "next": "end"},
    "end": {"kind": "exit", "reason": "done"},
}


async def preview(acme: Organization, command: str, filter: Document, **more: Any) -> Document:
    return await acme.post("/run-operations/previews", {"command": command, "filter": filter, **more})


async def carry_out(acme: Organization, command: str, filter: Document, **more: Any) -> Document:
    """Previewed, executed and completed."""
    seen = await preview(acme, command, filter, **more)
    await acme.post("/run-operations", {"preview_id": seen["id"], "reason": REASON})
    return await completed(acme, seen["id"])


async def completed(acme: Organization, operation: str) -> Document:
    path = f"/run-operations/{operation}"
    return await acme.until(lambda: acme.get(path), lambda found: found["status"] in ("completed", "cancelled"))


async def standing(acme: Organization, journey: str, expected: dict[tuple[str, str | None], int]) -> list[Document]:
    """Every run of the journey, once there are as many as expected with each status and step."""

    async def look() -> Document:
        runs = await acme.every("/runs", journey_id=journey)
        return {"runs": runs, "counts": Counter((run["status"], run["step_id"]) for run in runs)}

    return list((await acme.until(look, lambda found: found["counts"] == expected))["runs"])


async def kinds(acme: Organization, run_id: str) -> list[str]:
    return [entry["kind"] for entry in await acme.timeline(run_id) if entry["source"] == "event"]


async def sentences(acme: Organization, run_id: str) -> Sequence[str]:
    return [entry["sentence"] for entry in await acme.timeline(run_id)]


async def test_many_runs_are_paused_resumed_skipped_redirected_and_cancelled(stack: Stack, acme: Organization) -> None:
    await acme.contacts(50)
    async with stack.working():
        with stack.temporal.with_time_skipping_disabled():
            journey = await acme.publish("long", WAITS)
            await acme.launch(journey, page_size=20)
            runs = await standing(acme, journey, {("waiting", "long"): 50})
            here = {"journey_id": journey}

            paused = await carry_out(acme, "pause", here, limit=30)
            assert paused["progress"] == {"pending": 0, "done": 30, "unchanged": 0, "failed": 0, "left_alone": 0}
            await standing(acme, journey, {("paused", "long"): 30, ("waiting", "long"): 20})
            rest = await carry_out(acme, "pause", here)
            assert (rest["runs"], rest["progress"]["done"]) == (20, 20)
            assert (await carry_out(acme, "resume", here))["progress"]["done"] == 50

            skipped = await carry_out(acme, "skip", {**here, "step_id": "long"}, limit=10)
            assert skipped["progress"]["done"] == 10
            jumped = await carry_out(acme, "jump", {**here, "step_id": "short"}, arguments={"to_step": "long"}, limit=5)
            assert jumped["progress"]["done"] == 5
            await standing(acme, journey, {("waiting", "long"): 45, ("waiting", "short"): 5})
            cancelled = await carry_out(acme, "cancel", {**here, "step_id": "short"})
            assert cancelled["progress"]["done"] == 5
            await standing(acme, journey, {("waiting", "long"): 45, ("cancelled", "short"): 5})

        items = await acme.every(f"/run-operations/{jumped['id']}/items", result="done")
        told = await sentences(acme, items[0]["run_id"])
        entries = await acme.every("/audit-entries", subject_id=jumped["id"])
        per_run = await acme.every("/audit-entries", action="run.jumped")
    assert any(line.startswith('Jumped to "long" by ') and line.endswith(": asked by the customer") for line in told)
    assert [entry["action"] for entry in entries] == [
        "run_operation.previewed",
        "run_operation.executed",
        "run_operation.completed",
    ]
    assert entries[1]["details"]["reason"] == "asked by the customer" and entries[1]["details"]["runs"] == 5
    assert sorted(entry["subject"]["id"] for entry in per_run) == sorted(item["run_id"] for item in items)
    assert {run["id"] for run in runs} >= {item["run_id"] for item in items}


async def test_what_happened_to_runs_meanwhile_is_a_result_of_its_own(stack: Stack, acme: Organization) -> None:
    """Between the snapshot and the word: one run has left its step, one is over, one was moved to another version."""
    async with stack.working():
        with stack.temporal.with_time_skipping_disabled():
            journey = await acme.publish("long", WAITS)
            left, over, moved, there = [await acme.start_run(journey, await acme.contact()) for _ in range(4)]
            await standing(acme, journey, {("waiting", "long"): 4})
    seen = await preview(acme, "skip", {"journey_id": journey})
    await acme.post("/run-operations", {"preview_id": seen["id"], "reason": "a mistake"})  # nobody works, so nobody is told
    await stack.services.temporal.get_workflow_handle(f"{acme.id}/run-operation/{seen['id']}").terminate("stands aside")
    async with stack.working():
        with stack.temporal.with_time_skipping_disabled():
            await acme.call("PUT", f"/runs/{left}/skip", {"reason": "asked by phone"})
            await acme.call("PUT", f"/runs/{over}/cancellation", {"reason": "asked by phone"})
            revision = (await acme.get(f"/journeys/{journey}"))["revision"]
            draft = {"start": "long", "steps": {**WAITS, "short": {**WAITS["short"], "duration": "P2D"}}}
            await acme.call("PATCH", f"/journeys/{journey}/draft", {"draft": draft}, headers={"If-Match": f'"{revision}"'})
            await move(acme, journey, {moved, there})
            await again(stack, acme, seen["id"])
            done = await completed(acme, seen["id"])
            results = {item["run_id"]: (item["result"], item["why"]) for item in await acme.every(f"/run-operations/{seen['id']}/items")}
    assert results == {left: ("unchanged", "moved_on"), over: ("unchanged", "finished"), moved: ("done", None), there: ("done", None)}
    assert done["progress"] == {"pending": 0, "done": 2, "unchanged": 2, "failed": 0, "left_alone": 0}


async def test_a_skip_that_nobody_heard_at_first_is_for_the_visit_at_which_the_run_stood(stack: Stack, acme: Organization) -> None:
    """To which both had jumped beneath a pause. One of them comes round to the same step before it is asked."""
    mark: Document = {"kind": "update_contact", "add_tags": ["seen"], "next": "long"}
    async with stack.working():
        with stack.temporal.with_time_skipping_disabled():
            journey = await acme.publish("long", {"long": {**WAITS["long"], "next": "mark"}, "mark": mark})
            left, there = [await acme.start_run(journey, await acme.contact()) for _ in range(2)]
            await standing(acme, journey, {("waiting", "long"): 2})
            for run in (left, there):
                await acme.call("PUT", f"/runs/{run}/pause", {"reason": "wait"})
                await acme.call("PUT", f"/runs/{run}/jump", {"step_id": "mark", "reason": "once more"})
            await standing(acme, journey, {("paused", "mark"): 2})
    seen = await preview(acme, "skip", {"journey_id": journey, "step_id": "mark"})
    await acme.post("/run-operations", {"preview_id": seen["id"], "reason": "a mistake"})  # nobody works, so nobody is told
    await stack.services.temporal.get_workflow_handle(f"{acme.id}/run-operation/{seen['id']}").terminate("stands aside")
    async with stack.working():
        with stack.temporal.with_time_skipping_disabled():
            for step in ("mark", "long"):
                await acme.call("PUT", f"/runs/{left}/skip", {"step_id": step, "reason": "asked by phone"})
            await again(stack, acme, seen["id"])
            await completed(acme, seen["id"])
            results = {item["run_id"]: (item["result"], item["why"]) for item in await acme.every(f"/run-operations/{seen['id']}/items")}
            await standing(acme, journey, {("paused", "mark"): 1, ("paused", "long"): 1})
    assert results == {left: ("unchanged", "moved_on"), there: ("done", None)}


async def test_a_paused_run_that_jumps_or_skips_is_on_record_where_it_has_arrived(stack: Stack, acme: Organization) -> None:
    """So that an operation, a publish plan and a replay of what lost its workflow find it there, although it does nothing there yet."""
    template, topic = await acme.template(), await acme.topic()
    mail: Document = {"kind": "send", "template_id": template, "topic_id": topic}
    steps = {"long": {**WAITS["long"], "next": "first"}, "first": {**mail, "next": "second"}, "second": mail}
    async with stack.working():
        with stack.temporal.with_time_skipping_disabled():
            journey = await acme.publish("long", steps)
            jumps, skips = [await acme.start_run(journey, await acme.contact()) for _ in range(2)]
            await standing(acme, journey, {("waiting", "long"): 2})
            await acme.call("PUT", f"/runs/{jumps}/pause", {"reason": "wait"})
            await acme.call("PUT", f"/journeys/{journey}/pause", {"reason": "wrong price"})
            await standing(acme, journey, {("paused", "long"): 2})
            await acme.call("PUT", f"/runs/{jumps}/jump", {"step_id": "second", "reason": "had the first by post"})
            await acme.call("PUT", f"/runs/{skips}/skip", {"step_id": "long", "reason": "bought"})
            await standing(acme, journey, {("paused", "second"): 1, ("paused", "first"): 1})

            again = await acme.client.put(f"/v1/runs/{skips}/skip", json={"step_id": "long", "reason": "bought"})
            assert again.status_code == 409 and "it stands at first now" in again.json()["detail"]
            skipped = await carry_out(acme, "skip", {"journey_id": journey, "step_id": "first"})
            assert (skipped["runs"], skipped["progress"]["done"]) == (1, 1)
            await standing(acme, journey, {("paused", "second"): 2})

            revision = (await acme.get(f"/journeys/{journey}"))["revision"]
            draft = {"start": "long", "steps": {**steps, "long": {**steps["long"], "duration": "P2D"}}}
            await acme.call("PATCH", f"/journeys/{journey}/draft", {"draft": draft}, headers={"If-Match": f'"{revision}"'})
            plan = await acme.post(f"/journeys/{journey}/publish-plans", None)
            choices = [{"version": 1, "step_id": "second", "choice": "move", "to_step": "long"}]
            path = f"/journeys/{journey}/publish-plans/{plan['id']}"
            await acme.call("PUT", f"{path}/execution", {"fingerprint": plan["fingerprint"], "choices": choices})
            await acme.until(lambda: acme.get(path), lambda found: found["status"] == "completed")
            await standing(acme, journey, {("paused", "long"): 2})


JUMP: Document = {"arguments": {"to_step": "short"}}


@pytest.mark.parametrize("way", ["upkeep", "execution"])
async def test_an_operation_whose_workflow_was_terminated_begins_anew_and_tells_nobody_twice(
    stack: Stack, acme: Organization, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    """Of three pages one is settled, and one has been told and is not on record. Whoever asks, the operation is carried out."""
    seen = await stuck(stack, acme, monkeypatch, told_in_vain=True)
    async with stack.working():
        with stack.temporal.with_time_skipping_disabled():
            if way == "execution":
                await acme.post("/run-operations", {"preview_id": seen["id"], "reason": REASON})
            else:
                await overdue(stack, acme)
                assert await run_operations.start_missing_workflows(stack.services, acme.id, lambda: None) == 1
            done = await completed(acme, seen["id"])
            runs = await standing(acme, seen["filter"]["journey_id"], {("waiting", "short"): 6})
            told = [await kinds(acme, run["id"]) for run in runs]
    assert done["progress"] == {"pending": 0, "done": 6, "unchanged": 0, "failed": 0, "left_alone": 0}
    assert told == [["entered", "waiting", "jumped", "waiting"]] * 6


async def test_an_operation_whose_workflow_was_terminated_can_be_cancelled(
    stack: Stack, acme: Organization, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = await stuck(stack, acme, monkeypatch, told_in_vain=False)
    async with stack.working():
        with stack.temporal.with_time_skipping_disabled():
            await acme.call("PUT", f"/run-operations/{seen['id']}/cancellation", {"reason": "a mistake"})
            done = await completed(acme, seen["id"])
            await standing(acme, seen["filter"]["journey_id"], {("waiting", "short"): 2, ("waiting", "long"): 4})
    assert (done["status"], done["progress"]) == ("cancelled", {"pending": 0, "done": 2, "unchanged": 0, "failed": 0, "left_alone": 4})


async def stuck(stack: Stack, acme: Organization, monkeypatch: pytest.MonkeyPatch, *, told_in_vain: bool) -> Document:
    """An operation in three pages of two runs, whose workflow was terminated after the first; `told_in_vain`: when the second had been
    told, before that was on record."""
    monkeypatch.setattr(operations, "RUNS_AT_ONCE", 2)
    await acme.contacts(6)
    async with stack.working():
        with stack.temporal.with_time_skipping_disabled():
            journey = await acme.publish("long", WAITS)
            await acme.launch(journey, page_size=2)
            await standing(acme, journey, {("waiting", "long"): 6})
    with stack.temporal.with_time_skipping_disabled():
        seen = await preview(acme, "jump", {"journey_id": journey}, **JUMP)
        await acme.post("/run-operations", {"preview_id": seen["id"], "reason": REASON})  # nobody works yet
    await stack.services.temporal.get_workflow_handle(f"{acme.id}/run-operation/{seen['id']}").terminate("by mistake")
    told = OperationActivities(stack.services.database, stack.services.temporal)
    ref = OperationRef(organization_id=acme.id, operation_id=UUID(seen["id"]), command="jump")
    async with stack.working():
        first = await ActivityEnvironment().run(told.control_page, OperationPage(operation=ref))
        if told_in_vain:
            with monkeypatch.context() as patched, pytest.raises(ConnectionError):
                patched.setattr(run_operations_store, "settle", refuse)
                await ActivityEnvironment().run(told.control_page, OperationPage(operation=ref, after=first.after or 0))
    found = await acme.get(f"/run-operations/{seen['id']}")
    assert (found["status"], found["progress"]["done"], found["progress"]["pending"]) == ("running", 2, 4)
    return found


async def refuse(*_: Any) -> None:
    raise ConnectionError


async def overdue(stack: Stack, acme: Organization) -> None:
    async with stack.services.database.organization(acme.id) as session:
        await session.execute(text("UPDATE run_operations SET executed_at = executed_at - interval '11 seconds'"))


async def move(acme: Organization, journey: str, expected: set[str]) -> None:
    """By a publish plan: whoever is at `long` arrives there anew, on the next version."""
    plan = await acme.post(f"/journeys/{journey}/publish-plans", None)
    choices = [{"version": 1, "step_id": "long", "choice": "move", "to_step": "long"}]
    path = f"/journeys/{journey}/publish-plans/{plan['id']}"
    await acme.call("PUT", f"{path}/execution", {"fingerprint": plan["fingerprint"], "choices": choices})
    await acme.until(lambda: acme.get(path), lambda found: found["status"] == "completed")

    async def look() -> Document:
        return {"moved": [await kinds(acme, run) for run in sorted(expected)]}

    await acme.until(look, lambda found: all(each[-2:] == ["moved", "waiting"] for each in found["moved"]))


async def again(stack: Stack, acme: Organization, operation: str) -> None:
    """The operation's workflow, under another name."""
    given = OperationRef(organization_id=acme.id, operation_id=UUID(operation), command="skip")
    await stack.temporal.client.start_workflow(OPERATION_WORKFLOW, given, id=str(new_id()), task_queue=stack.settings.task_queue)


async def test_two_people_are_never_answered_for_each_other(stack: Stack, acme: Organization) -> None:
    """Whoever comes second is answered with what is so by then, also with a key of the same text, or at the same moment."""
    made = await acme.post("/api-keys", {"name": "a colleague", "scopes": ["runs.read", "runs.control"]})
    colleague = {"Authorization": f"Bearer {made['secret']}"}
    daily = {"Idempotency-Key": "daily"}
    async with stack.working():
        with stack.temporal.with_time_skipping_disabled():
            journey = await acme.publish("long", WAITS)
            run = await acme.start_run(journey, await acme.contact())
            await standing(acme, journey, {("waiting", "long"): 1})
            path = f"/v1/runs/{run}"
            mine = await acme.client.put(f"{path}/pause", json={"reason": "customer rang"}, headers=daily)
            await acme.client.delete(f"{path}/pause", params={"reason": "settled"})
            theirs = await acme.client.put(f"{path}/pause", json={"reason": "legal hold"}, headers=colleague | daily)
            late = await acme.client.put(f"{path}/pause", json={"reason": "me too"})
            assert [each.json()["changed"] for each in (mine, theirs, late)] == [True, True, False]
            assert late.json()["run"]["reason"] == "legal hold"
            meant = {"step_id": "long", "visit": 1}
            words = [acme.client.put(f"{path}/skip", json={**meant, "reason": f"s{each}"}) for each in range(3)]
            skipped = await asyncio.gather(*words)
    assert sorted(each.status_code for each in skipped) == [200, 409, 409]
    told = await sentences(acme, run)
    said = [line.rsplit(": ", 1)[1] for line in told if line.startswith(("Paused by", "Resumed by", "Skipped"))]
    assert said[:3] == ["customer rang", "settled", "legal hold"] and len(said) == 4


async def test_scenario_36_one_scheduled_step_of_one_contact_is_cancelled(stack: Stack, acme: Organization) -> None:
    """The others are unaffected, and the history shows who and why."""
    topic = await acme.topic()
    people = await acme.contacts(3)
    await acme.consent(people, topic)
    async with stack.working():
        with stack.temporal.with_time_skipping_disabled():
            journey = await acme.send_wait_send(topic, wait="P2D")
            spared, skipped, other = runs = [await acme.start_run(journey, who) for who in people]
            await standing(acme, journey, {("waiting", "pause"): 3})
            why = {"reason": "bought by phone"}
            await acme.call("PUT", f"/runs/{spared}/steps/reminder/cancellation", why)
            await acme.call("PUT", f"/runs/{skipped}/skip", {"step_id": "pause", **why})
            await acme.until_run(skipped, "completed")
            nobody = await acme.client.put(f"/v1/runs/{spared}/steps/nowhere/cancellation", json=why)
            assert (nobody.status_code, nobody.json()["errors"][0]["code"]) == (422, "unknown_step")
        for run in (spared, other):
            handle = stack.temporal.client.get_workflow_handle((await acme.run(run))["workflow_id"])
            await stack.temporal.fast_forward(handle, timedelta(days=3))
            await acme.until_run(run, "completed")
    addresses = [await acme.address(await acme.run(run)) for run in runs]
    mails = await acme.mails()
    assert [mails[address] for address in addresses] == [1, 2, 2]
    assert await kinds(acme, spared) == ["entered", "sent", "waiting", "step_cancelled", "woke", "skipped", "completed"]
    told = await sentences(acme, spared)
    assert any(line.startswith('Cancelled the step "reminder" by ') and line.endswith(": bought by phone") for line in told)
    assert 'Passed "reminder", which had been cancelled' in told
    [entry] = await acme.every("/audit-entries", action="run.step_cancelled", subject_id=spared)
    assert entry["details"]["reason"] == "bought by phone" and entry["actor"]["kind"] == "api_key"
    assert await kinds(acme, other) == ["entered", "sent", "waiting", "woke", "sent", "completed"]


async def test_a_wait_for_an_event_of_the_wrong_order_finds_the_right_one_when_the_variable_is_corrected(
    stack: Stack, acme: Organization
) -> None:
    """The event that came before the correction counts, too."""
    where = {"field": "event.order", "is": "equals", "value": {"run": "order"}}
    paid = {"kind": "wait_for", "events": [{"event": "paid", "where": where, "next": "end"}]}
    async with stack.working():
        with stack.temporal.with_time_skipping_disabled():
            journey = await acme.publish("paid", {"paid": paid, "end": {"kind": "exit", "reason": "paid"}})
            who = await acme.contact()
            one = await acme.start_run(journey, who, variables={"order": "A-1"})
            many = [await acme.start_run(journey, await acme.contact(), variables={"order": "X"}) for _ in range(3)]
            await standing(acme, journey, {("waiting", "paid"): 4})
            await acme.post("/events", {"name": "paid", "contact_id": who, "properties": {"order": "A-2"}})
            changed = await acme.call("PATCH", f"/runs/{one}/variables", {"variables": {"order": "A-2"}, "reason": "typed wrongly"})
            assert changed.json()["variables"] == {"order": "A-2"}
            await acme.until_run(one, "exited")
            done = await carry_out(acme, "set_variables", {"run_ids": many}, arguments={"variables": {"order": None, "size": 3}})
            assert done["progress"]["done"] == 3
            assert [(await acme.run(run))["variables"] for run in many] == [{"size": 3}] * 3

            async def look() -> Document:
                return {"kinds": await kinds(acme, many[0])}

            await acme.until(look, lambda found: "variables_changed" in found["kinds"])
    told = await sentences(acme, one)
    assert any(line.startswith("Changed the run's variables order by ") and line.endswith(": typed wrongly") for line in told)
    assert "A-2" not in str([entry["details"] for entry in await acme.every("/audit-entries", subject_id=one)])
