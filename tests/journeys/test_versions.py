"""Editing and publishing while people are under way, end to end through the public API. `LEADSTATS_MOVED_RUNS=5000` moves more runs."""

import asyncio
import os
from collections import Counter
from datetime import timedelta
from time import perf_counter
from typing import Any

from sqlalchemy import text

from api.commands import publish_plans
from tests.journeys.conftest import Stack
from tests.journeys.organization import Document, Organization

MOVED_RUNS = int(os.environ.get("LEADSTATS_MOVED_RUNS", "300"))  # how many wait when the large plan is carried out
PAGE = 40 if MOVED_RUNS <= 1000 else 200  # of them in a workflow
BY_TAG: Document = {
    "kind": "branch",
    "conditions": [{"when": {"tag": "movers"}, "next": "long"}, {"when": {"tag": "leavers"}, "next": "gone"}],
    "otherwise": "kept",
}
FIRST: Document = {
    "which": BY_TAG,
    "long": {"kind": "wait", "duration": "P30D", "next": "end"},
    "gone": {"kind": "wait", "duration": "P30D", "next": "end"},
    "kept": {"kind": "wait", "duration": "P30D", "next": "end"},
    "end": {"kind": "exit", "reason": "first_version"},
}
SECOND: Document = {
    "which": {**BY_TAG, "conditions": BY_TAG["conditions"][:1]},
    "long": {"kind": "wait", "duration": "P60D", "next": "end"},
    "kept": {"kind": "wait", "duration": "P30D", "next": "end"},
    "end": {"kind": "exit", "reason": "second_version"},
}


async def save(acme: Organization, journey: str, steps: Document, **rules: Any) -> None:
    revision = (await acme.get(f"/journeys/{journey}"))["revision"]
    draft = {"start": "which", "steps": steps, **rules}
    await acme.call("PATCH", f"/journeys/{journey}/draft", {"draft": draft}, headers={"If-Match": f'"{revision}"'})


async def execute(acme: Organization, plan: Document, *choices: Document) -> Document:
    path = f"/journeys/{plan['journey_id']}/publish-plans/{plan['id']}"
    await acme.call("PUT", f"{path}/execution", {"fingerprint": plan["fingerprint"], "choices": list(choices)})
    return await acme.until(lambda: acme.get(path), lambda found: found["status"] == "completed")


async def standing(acme: Organization, journey: str, expected: dict[tuple[str, str | None], int]) -> list[Document]:
    """Every run, once there are as many as expected with each status and step."""

    async def look() -> Document:
        runs = await acme.every("/runs", journey_id=journey)
        return {"runs": runs, "counts": Counter((run["status"], run["step_id"]) for run in runs)}

    return list((await acme.until(look, lambda found: found["counts"] == expected))["runs"])


async def recorded(acme: Organization, run_id: str, expected: list[str]) -> None:
    """The run's record, once it has so many lines, is as expected."""

    async def told() -> Document:
        return {"kinds": [entry["kind"] for entry in await acme.timeline(run_id) if entry["source"] == "event"]}

    assert (await acme.until(told, lambda found: len(found["kinds"]) >= len(expected)))["kinds"] == expected


def choice(step_id: str, choice: str, to_step: str | None = None, version: int = 1) -> Document:
    return {"version": version, "step_id": step_id, "choice": choice, **({"to_step": to_step} if to_step else {})}


async def said(acme: Organization, action: str, journey: str) -> list[Document]:
    return [entry["details"] for entry in await acme.every("/audit-entries", action=action, subject_id=journey)]


async def test_scenario_34_the_step_someone_waits_in_is_deleted(stack: Stack, acme: Organization) -> None:
    """What becomes of those who wait there is chosen for each step, happens, and is on record."""
    mover, leaver, keeper = [await acme.contact(tags=tags) for tags in (["movers"], ["leavers"], [])]
    async with stack.working():
        with stack.temporal.with_time_skipping_disabled():
            journey = await acme.publish("which", FIRST)
            runs = {who: await acme.start_run(journey, who) for who in (mover, leaver, keeper)}
            await standing(acme, journey, {("waiting", "long"): 1, ("waiting", "gone"): 1, ("waiting", "kept"): 1})
            await save(acme, journey, {**SECOND, "long": {"kind": "wait", "duration": "P1D", "next": "longer"}, "longer": SECOND["long"]})
            plan = await acme.post(f"/journeys/{journey}/publish-plans", None)
            steps = {step["step_id"]: step for step in plan["preview"]["versions"][0]["steps"]}
            assert {name: (step["runs"], step["in_draft"], step["suggested"]) for name, step in steps.items()} == {
                "long": (1, True, "finish"),
                "gone": (1, False, "finish"),
                "kept": (1, True, "finish"),
            }
            done = await execute(acme, plan, choice("long", "move", "longer"), choice("gone", "exit"), choice("kept", "finish"))
            assert {name: done["progress"][name] for name in ("moved", "exited", "remaining")} == {"moved": 1, "exited": 1, "remaining": 0}
            found = {who: await acme.run(run) for who, run in runs.items()}
            versions = {version["number"]: version["id"] for version in await acme.every(f"/journeys/{journey}/versions")}
            await standing(acme, journey, {("waiting", "longer"): 1, ("exited", "gone"): 1, ("waiting", "kept"): 1})
        assert found[mover]["version_id"] == versions[2] and found[keeper]["version_id"] == versions[1]
        for who in (mover, keeper):
            handle = stack.temporal.client.get_workflow_handle((await acme.run(runs[who]))["workflow_id"])
            await stack.temporal.fast_forward(handle, timedelta(days=61))
            await acme.until_run(runs[who], "exited")
    reasons = {who: (await acme.run(run))["reason"] for who, run in runs.items()}
    assert reasons == {mover: "second_version", leaver: "version_replaced", keeper: "first_version"}
    kinds = [entry["kind"] for entry in await acme.timeline(runs[mover]) if entry["source"] == "event"]
    assert kinds == ["entered", "chose", "waiting", "moved", "waiting", "woke", "exited"]
    [moved] = [entry["sentence"] for entry in await acme.timeline(runs[mover]) if entry["kind"] == "moved"]
    assert moved.startswith('Moved to version 2 of the journey at "longer" by ')
    [told] = await said(acme, "journey.publish_plan_executed", journey)
    assert sorted((each["step_id"], each["choice"], each["to_step"]) for each in told["choices"]) == [
        ("gone", "exit", None),
        ("kept", "finish", None),
        ("long", "move", "longer"),
    ]
    assert sorted((each["step_id"], each["runs"]) for each in told["preview"]) == [("gone", 1), ("kept", 1), ("long", 1)]


async def test_a_run_that_is_moved_back_keeps_its_message_and_its_timeline_says_so(stack: Stack, acme: Organization) -> None:
    topic, contact = await acme.topic(), await acme.contact()
    await acme.consent([contact], topic)
    send = {"kind": "send", "template_id": await acme.template(), "topic_id": topic, "next": "long"}
    steps: Document = {"which": send, "long": {"kind": "wait", "duration": "P30D"}}
    async with stack.working():
        with stack.temporal.with_time_skipping_disabled():
            journey = await acme.publish("which", steps)
            run = await acme.start_run(journey, contact)
            await standing(acme, journey, {("waiting", "long"): 1})
            await save(acme, journey, {**steps, "which": {**send, "name": "Welcome again"}})
            plan = await acme.post(f"/journeys/{journey}/publish-plans", None)
            await execute(acme, plan, choice("long", "move", "which"))

            async def told() -> Document:
                return {"entries": [entry for entry in await acme.timeline(run) if entry["source"] == "event"]}

            found = await acme.until(told, lambda found: len(found["entries"]) == 6)
    sentences = [entry["sentence"] for entry in found["entries"]]
    assert sentences[:2] == ['Entered the journey at "which"', 'Sent "which": the provider accepted the message']
    assert sentences[3].startswith('Moved to version 2 of the journey at "Welcome again" by ')
    assert sentences[4].startswith('Kept "Welcome again": sent on ') and sentences[4].endswith(", and not repeated")
    assert len(await acme.every("/deliveries", run_id=run)) == 1


async def test_a_message_of_which_nobody_knows_stays_one_and_a_last_visit_stays_the_last(stack: Stack, acme: Organization) -> None:
    """On a loop, too: who moves to the step where he stands, stands there for the same visit."""
    topic, ann, bob = await acme.topic(), await acme.contact(email="ann@example.com"), await acme.contact(email="bob@example.com")
    await acme.consent([ann, bob], topic)
    await acme.post("/sandbox/faults", {"phase": "data", "action": "drop_after_dot", "recipient": "ann@example.com", "remaining": 1})
    steps: Document = {
        "which": {"kind": "send", "template_id": await acme.template(), "topic_id": topic, "next": "rest"},
        "rest": {"kind": "wait", "duration": "P30D", "next": "which"},
    }
    async with stack.working():
        with stack.temporal.with_time_skipping_disabled():
            journey = await acme.publish("which", steps, max_visits=1)
            await acme.without_brake(journey)
            lost, waiting = await acme.start_run(journey, ann), await acme.start_run(journey, bob)
            assert (await acme.until_run(lost, "needs_attention"))["reason"] == "connection_lost_after_data"
            await acme.until_run(waiting, "waiting")
            for version in (1, 2):
                await save(acme, journey, {**steps, "which": {**steps["which"], "name": f"After version {version}"}}, max_visits=1)
                plan = await acme.post(f"/journeys/{journey}/publish-plans", None)
                await execute(acme, plan, choice("which", "move", "which", version), choice("rest", "move", "rest", version))
                await recorded(acme, lost, ["entered", "parked"] + ["moved", "parked"] * version)
                await recorded(acme, waiting, ["entered", "sent", "waiting"] + ["moved", "waiting"] * version)
            assert (await acme.run(lost))["reason"] == "connection_lost_after_data"
            for run in (lost, waiting):
                assert len(await acme.every("/deliveries", run_id=run)) == 1


async def test_scenario_35_two_editors(stack: Stack, acme: Organization) -> None:
    """The second save on a stale version is refused and loses nothing; neither does publishing what one has not seen."""
    journey = str((await acme.post("/journeys", {"name": "Welcome", "draft": {"start": "which", "steps": FIRST}}))["id"])
    path, stale = f"/v1/journeys/{journey}", {"If-Match": '"1"'}
    ann = await acme.client.patch(f"{path}/draft", json={"draft": {"start": "which", "steps": SECOND}}, headers=stale)
    ben = await acme.client.patch(f"{path}/draft", json={"draft": {"start": "end", "steps": {"end": SECOND["end"]}}}, headers=stale)
    assert (ann.status_code, ben.status_code, ben.json()["code"]) == (200, 412, "stale_revision")
    published = await acme.client.post(f"{path}/versions", headers=stale)
    planned = await acme.client.post(f"{path}/publish-plans", headers=stale)
    assert (published.status_code, planned.status_code) == (412, 412)
    drafts = [(await acme.get(f"/journeys/{journey}/draft-revisions/{number}"))["draft"]["steps"] for number in (1, 2)]
    assert drafts == [FIRST, SECOND]
    assert (await acme.get(f"/journeys/{journey}"))["draft"]["steps"] == SECOND
    # Many at the same moment: one is saved, and whoever was refused reads what that was, and saves on top of it.
    drafts = [{"start": "end", "steps": {"end": {"kind": "exit", "reason": f"editor_{number}"}}} for number in range(6)]
    saves = (acme.client.patch(f"{path}/draft", json={"draft": draft}, headers={"If-Match": '"2"'}) for draft in drafts)
    answers = await asyncio.gather(*saves)
    assert sorted(answer.status_code for answer in answers) == [200, 412, 412, 412, 412, 412]
    [won] = [draft for draft, answer in zip(drafts, answers, strict=True) if answer.status_code == 200]
    read = await acme.client.get(path)
    assert (read.json()["revision"], read.json()["draft"]["steps"]) == (3, won["steps"])
    merged = await acme.client.patch(
        f"{path}/draft", json={"draft": {"start": "which", "steps": FIRST}}, headers={"If-Match": read.headers["ETag"]}
    )
    assert merged.status_code == 200
    kept = [(await acme.get(f"/journeys/{journey}/draft-revisions/{number}"))["draft"]["steps"] for number in (1, 2, 3, 4)]
    assert kept == [FIRST, SECOND, won["steps"], FIRST]
    blind = await acme.client.patch(f"{path}/draft", json={"draft": drafts[1]})
    assert blind.status_code == 412


async def test_a_plan_whose_workflow_was_terminated_begins_anew_and_lets_the_next_one_follow(stack: Stack, acme: Organization) -> None:
    movers = await acme.contacts(2, tags=["movers"])
    async with stack.working():
        with stack.temporal.with_time_skipping_disabled():
            journey = await acme.publish("which", FIRST)
            runs = [await acme.start_run(journey, who) for who in movers]
            await standing(acme, journey, {("waiting", "long"): 2})
    await save(acme, journey, SECOND)
    plan = await acme.post(f"/journeys/{journey}/publish-plans", None)
    path = f"/journeys/{journey}/publish-plans/{plan['id']}"
    with stack.temporal.with_time_skipping_disabled():
        body = {"fingerprint": plan["fingerprint"], "choices": [choice("long", "move", "long")]}
        await acme.call("PUT", f"{path}/execution", body)  # nobody works, so nobody is told
    await stack.services.temporal.get_workflow_handle(f"{acme.id}/publish-plan/{plan['id']}").terminate("by mistake")
    async with stack.services.database.organization(acme.id) as session:
        await session.execute(text("UPDATE publish_plans SET executed_at = executed_at - interval '11 seconds'"))
    async with stack.working():
        with stack.temporal.with_time_skipping_disabled():
            assert await publish_plans.start_missing_workflows(stack.services, acme.id, lambda: None) == 1
            done = await acme.until(lambda: acme.get(path), lambda found: found["status"] == "completed")
            await standing(acme, journey, {("waiting", "long"): 2})
            await save(acme, journey, FIRST)
            back = await execute(acme, await acme.post(f"/journeys/{journey}/publish-plans", None), choice("long", "exit", version=2))
            await standing(acme, journey, {("exited", "long"): 2})
    assert [each["progress"][name] for each, name in ((done, "moved"), (back, "exited"))] == [2, 2]
    for run in runs:
        assert [entry["kind"] for entry in await acme.timeline(run) if entry["source"] == "event"].count("moved") == 1


async def test_a_plan_for_all_waiting_runs_ends_each_where_it_says(stack: Stack, acme: Organization) -> None:
    movers, leavers = MOVED_RUNS * 4 // 10, MOVED_RUNS * 3 // 10
    keepers = MOVED_RUNS - movers - leavers
    for tag, count in {"movers": movers, "leavers": leavers, "keepers": keepers}.items():
        await acme.import_contacts([f"{tag}{number}@example.com" for number in range(count)], tag)
    async with stack.working():
        with stack.temporal.with_time_skipping_disabled():
            journey = await acme.publish("which", FIRST)
            pages = -(-MOVED_RUNS // PAGE)
            campaign_id = await acme.launch(journey, page_size=PAGE)
            await acme.until(lambda: acme.campaign(campaign_id), lambda found: found["progress"]["runs"] == {"waiting": MOVED_RUNS})
            before = {run["id"]: run for run in await acme.every("/runs", journey_id=journey)}
            some = next(run for run in before.values() if run["step_id"] == "long")
            await acme.call("PUT", f"/runs/{some['id']}/pause", {"reason": "asked by phone"})
            await save(acme, journey, SECOND)
            plan = await acme.post(f"/journeys/{journey}/publish-plans", None)
            assert plan["preview"]["runs"] == MOVED_RUNS
            began = perf_counter()
            done = await execute(acme, plan, choice("long", "move", "long"), choice("gone", "exit"))
            print(f"{movers} runs moved and {leavers} ended in {perf_counter() - began:.1f} s")
            after = {run["id"]: run for run in await acme.every("/runs", journey_id=journey)}
            carried = {run["workflow_id"] for run in after.values() if before[run["id"]]["step_id"] == "long"}
            progress = (await acme.campaign(campaign_id))["progress"]
            versions = {version["id"]: version["number"] for version in await acme.every(f"/journeys/{journey}/versions")}
            await standing(
                acme,
                journey,
                {("waiting", "long"): movers - 1, ("paused", "long"): 1, ("exited", "gone"): leavers, ("waiting", "kept"): keepers},
            )
    assert [(step["step_id"], step["moved"], step["exited"], step["remaining"]) for step in done["progress"]["steps"]] == [
        ("long", movers, 0, 0),
        ("gone", 0, leavers, 0),
    ]
    assert Counter((before[id]["step_id"], versions[run["version_id"]]) for id, run in after.items()) == {
        ("long", 2): movers,
        ("gone", 1): leavers,
        ("kept", 1): keepers,
    }
    assert not carried & {run["workflow_id"] for run in before.values()}
    assert len(carried) <= pages  # together, as they were carried before
    assert progress["conservation"]["holds"] is True
    [told] = await said(acme, "journey.publish_plan_completed", journey)
    assert (told["moved"], told["exited"]) == (movers, leavers)
    [chosen] = await said(acme, "journey.publish_plan_executed", journey)
    assert {each["step_id"]: each["runs"] for each in chosen["preview"]} == {"long": movers, "gone": leavers, "kept": keepers}
