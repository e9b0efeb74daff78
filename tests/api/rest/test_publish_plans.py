from collections.abc import Sequence
from typing import Any
from uuid import UUID

import pytest
import pytest_asyncio
from sqlalchemy import text

from api.commands import publish_plans
from api.dependencies import Services
from models.store.session import Database
from tests.api.conftest import Person
from tests.api.rest import acme
from tests.api.rest.acme import Surroundings, actions
from tests.api.rest.fake_temporal import FakeTemporal

Plan = dict[str, Any]
MOVE = {"version": 1, "step_id": "pause", "choice": "move", "to_step": "short_pause"}


@pytest_asyncio.fixture(loop_scope="session")
async def journey(alice: Person, around: Surroundings, database: Database) -> str:
    """Its first version has three runs waiting at `pause`, one held at `welcome` and one that is over; the draft has another pause."""
    journey_id = await acme.publish(alice, around)
    await standing(database, alice, journey_id, around, [("pause", "waiting")] * 3 + [("welcome", "held"), ("welcome", "exited")])
    await save(alice, f"/v1/journeys/{journey_id}", other_pause(around))
    return f"/v1/journeys/{journey_id}"


def other_pause(around: Surroundings) -> dict[str, Any]:
    draft = around.welcome(next="short_pause")
    return {**draft, "steps": {"welcome": draft["steps"]["welcome"], "short_pause": {"kind": "wait", "duration": "P1D"}}}


async def save(person: Person, journey: str, draft: dict[str, Any]) -> None:
    revision = (await person.client.get(journey)).headers["ETag"]
    saved = await person.client.patch(f"{journey}/draft", json={"draft": draft}, headers={"If-Match": revision})
    assert saved.status_code == 200, saved.text


async def standing(
    database: Database, person: Person, journey_id: str, around: Surroundings, places: Sequence[tuple[str, str]], version: int = 1
) -> None:
    """Runs at these steps with these statuses."""
    query = """INSERT INTO runs (id, organization_id, journey_id, version_id, contact_id, workflow_id, status, step_id, sequence, variables,
                                 page, reason, finished_at)
               SELECT gen_random_uuid(), :o, :journey_id, v.id, :contact_id, gen_random_uuid(), CAST(:status AS text), :step_id, 3, '{}', 0,
                      CASE WHEN CAST(:status AS text) = 'exited' THEN 'version_replaced' END,
                      CASE WHEN CAST(:status AS text) = 'exited' THEN now() END
               FROM journey_versions v WHERE v.journey_id = :journey_id AND v.number = :version"""
    same = {"o": person.organization_id, "journey_id": UUID(journey_id), "contact_id": around.contact_id, "version": version}
    async with database.organization(person.organization_id) as session:
        for step_id, status in places:
            await session.execute(text(query), {**same, "step_id": step_id, "status": status})


async def preview(person: Person, journey: str) -> Plan:
    made = await person.client.post(f"{journey}/publish-plans")
    assert made.status_code == 201, made.text
    found: Plan = made.json()
    return found


async def execute(person: Person, plan: Plan, *choices: dict[str, Any], **fields: Any) -> tuple[int, dict[str, Any]]:
    path = f"/v1/journeys/{plan['journey_id']}/publish-plans/{plan['id']}/execution"
    answer = await person.client.put(path, json={"fingerprint": plan["fingerprint"], "choices": choices, **fields})
    return answer.status_code, answer.json()


async def versions(person: Person, journey: str) -> list[int]:
    return [version["number"] for version in (await person.client.get(f"{journey}/versions")).json()["items"]]


async def test_the_preview_counts_unfinished_runs_by_step_and_publishes_nothing(
    alice: Person, bob: Person, journey: str, temporal: FakeTemporal
) -> None:
    plan = await preview(alice, journey)
    assert (plan["status"], plan["version"], plan["choices"]) == ("previewed", None, [])
    [version] = plan["preview"]["versions"]
    assert (plan["preview"]["runs"], version["number"], version["runs"]) == (4, 1, 4)
    steps = [(step["step_id"], step["kind"], step["by_status"], step["in_draft"], step["suggested"]) for step in version["steps"]]
    assert steps == [("pause", "wait", {"waiting": 3}, False, "finish"), ("welcome", "send", {"held": 1}, True, "finish")]
    assert await versions(alice, journey) == [1] and temporal.started == {}
    path = f"{journey}/publish-plans"
    assert (await bob.client.get(f"{path}/{plan['id']}")).json() == plan
    assert [one["id"] for one in (await bob.client.get(path)).json()["items"]] == [plan["id"]]


async def test_it_publishes_and_is_carried_out_by_a_workflow_once(
    alice: Person, journey: str, temporal: FakeTemporal, database: Database
) -> None:
    plan = await preview(alice, journey)
    for _ in range(2):
        status, executed = await execute(alice, plan, MOVE)
        assert (status, executed["status"], executed["version"]) == (202, "executing", 2), executed
    assert executed["progress"] == {
        "moved": 0,
        "exited": 0,
        "remaining": 3,
        "lost": 0,
        "steps": [{**{name: MOVE[name] for name in MOVE}, "moved": 0, "exited": 0, "remaining": 3, "lost": 0}],
    }
    [(name, started)] = temporal.started.items()
    assert name == f"{alice.organization_id}/publish-plan/{plan['id']}"
    assert (started.workflow, str(started.argument.plan_id), started.argument.passes) == ("MovePlanWorkflow", plan["id"], 0)
    assert await versions(alice, journey) == [1, 2]
    assert (await execute(alice, plan))[0] == 409  # with other choices
    said = await actions(alice, database, plan["journey_id"])
    assert said[-3:] == ["journey.publish_plan_made", "journey.published", "journey.publish_plan_executed"]
    [entry] = (await alice.client.get("/v1/audit-entries?action=journey.publish_plan_executed")).json()["items"]
    assert entry["actor"]["id"] == str(alice.api_key_id)
    assert entry["details"]["choices"] == [MOVE]
    assert entry["details"]["preview"] == [
        {"version": 1, "step_id": "pause", "runs": 3},
        {"version": 1, "step_id": "welcome", "runs": 1},
    ]


async def test_runs_that_have_moved_on_since_make_it_outdated(
    alice: Person, journey: str, around: Surroundings, database: Database
) -> None:
    plan = await preview(alice, journey)
    async with database.organization(alice.organization_id) as session:
        await session.execute(text("UPDATE runs SET status = 'active' WHERE step_id = 'pause'"))
    await standing(database, alice, plan["journey_id"], around, [("pause", "waiting"), ("short_pause", "waiting")])
    status, refused = await execute(alice, plan, MOVE)
    assert (status, refused["code"]) == (409, "plan_outdated")
    assert "step pause of version 1: 3 runs then, 4 now" in refused["detail"]
    assert "step short_pause of version 1: 0 runs then, 1 now" in refused["detail"]
    assert await versions(alice, journey) == [1]
    assert (await execute(alice, await preview(alice, journey), MOVE))[0] == 202


async def test_a_change_of_status_at_the_same_step_leaves_it_true(alice: Person, journey: str, database: Database) -> None:
    plan = await preview(alice, journey)
    async with database.organization(alice.organization_id) as session:
        await session.execute(text("UPDATE runs SET status = 'paused' WHERE step_id = 'pause'"))
    assert (await execute(alice, plan, MOVE))[0] == 202


@pytest.mark.parametrize("change", ["draft", "template", "fingerprint"])
async def test_what_it_would_publish_has_changed(
    alice: Person, journey: str, around: Surroundings, database: Database, change: str
) -> None:
    plan = await preview(alice, journey)
    if change == "draft":
        await save(alice, journey, other_pause(around) | {"max_visits": 7})
    elif change == "template":
        async with database.organization(alice.organization_id) as session:
            await acme.add_version(session, alice.organization_id, around.template_id, 2, "Hello again")
    status, refused = await execute(alice, plan, MOVE, **({"fingerprint": "0" * 64} if change == "fingerprint" else {}))
    assert (status, refused["code"]) == (409, "plan_outdated")
    assert await versions(alice, journey) == [1]


@pytest.mark.parametrize(
    ("change", "path", "code"),
    [
        ({"version": 2}, "choices[0].version", "unknown_version"),
        ({"step_id": "nap"}, "choices[0].step_id", "unknown_step"),
        ({"to_step": "pause"}, "choices[0].to_step", "unknown_step"),
        ({"to_step": None}, "choices[0].to_step", "required"),
        ({"choice": "exit"}, "choices[0].to_step", "unused"),
    ],
)
async def test_a_choice_that_names_what_there_is_not_is_refused(
    alice: Person, journey: str, change: dict[str, Any], path: str, code: str
) -> None:
    status, refused = await execute(alice, await preview(alice, journey), MOVE | change)
    assert (status, [(error["path"], error["code"]) for error in refused["errors"]]) == (422, [(path, code)])
    assert await versions(alice, journey) == [1]


async def test_a_step_is_chosen_for_once(alice: Person, journey: str) -> None:
    status, refused = await execute(alice, await preview(alice, journey), MOVE, MOVE)
    assert (status, refused["errors"][0]["code"]) == (422, "chosen_twice")


async def test_when_all_may_finish_it_is_completed_at_once(alice: Person, journey: str, temporal: FakeTemporal) -> None:
    status, executed = await execute(alice, await preview(alice, journey), {"version": 1, "step_id": "pause", "choice": "finish"})
    assert (status, executed["status"], executed["version"]) == (202, "completed", 2)
    assert executed["completed_at"] is not None and temporal.started == {}


async def test_one_plan_of_a_journey_at_a_time(alice: Person, journey: str, around: Surroundings) -> None:
    assert (await execute(alice, await preview(alice, journey), MOVE))[0] == 202
    await save(alice, journey, other_pause(around) | {"max_visits": 7})
    status, refused = await execute(alice, await preview(alice, journey))
    assert (status, refused["code"]) == (409, "conflict")


async def test_the_version_is_published_once_although_temporal_was_away(
    alice: Person, journey: str, temporal: FakeTemporal, services: Services, database: Database
) -> None:
    plan = await preview(alice, journey)
    temporal.away()
    assert (await execute(alice, plan, MOVE))[0] == 503
    assert await versions(alice, journey) == [1, 2]
    temporal.back()
    assert (await execute(alice, plan, MOVE))[0] == 202
    assert len(temporal.started) == 1
    temporal.started.clear()  # and if nobody had repeated it, upkeep would
    assert await publish_plans.start_missing_workflows(services, alice.organization_id, lambda: None) == 0
    async with database.organization(alice.organization_id) as session:
        await session.execute(text("UPDATE publish_plans SET executed_at = now() - interval '1 minute'"))
    assert await publish_plans.start_missing_workflows(services, alice.organization_id, lambda: None) == 1
    assert [started.workflow for started in temporal.started.values()] == ["MovePlanWorkflow"]


async def test_a_plan_needs_the_same_approval_as_publishing(alice: Person, journey: str) -> None:
    await alice.client.patch("/v1/organization", json={"approval_required": True})
    plan = await preview(alice, journey)
    status, refused = await execute(alice, plan, MOVE)
    assert (status, refused["code"]) == (409, "approval_required")
    assert await versions(alice, journey) == [1]
    assert (await alice.client.get(f"{journey}/publish-plans/{plan['id']}")).json()["status"] == "previewed"


async def test_runs_left_behind_by_an_earlier_publication_can_follow(
    alice: Person, journey: str, around: Surroundings, database: Database
) -> None:
    """What the draft says is published already: nothing new is, and only runs on older versions are shown."""
    assert (await alice.client.post(f"{journey}/versions")).status_code == 201
    await standing(database, alice, journey.rpartition("/")[2], around, [("short_pause", "waiting")], version=2)
    plan = await preview(alice, journey)
    assert [version["number"] for version in plan["preview"]["versions"]] == [1]
    status, executed = await execute(alice, plan, MOVE)
    assert (status, executed["version"]) == (202, 2)
    assert await versions(alice, journey) == [1, 2]


async def test_a_viewer_makes_and_carries_out_no_plan(alice: Person, bob: Person, journey: str) -> None:
    plan = await preview(alice, journey)
    assert (await bob.client.post(f"{journey}/publish-plans")).status_code == 403
    assert (await execute(bob, plan))[0] == 403


async def test_what_cannot_be_published_cannot_be_planned(alice: Person, journey: str) -> None:
    assert (await alice.client.post(f"{journey}/publish-plans", headers={"If-Match": '"9"'})).status_code == 412
    await save(alice, journey, {"start": "nowhere"})
    assert (await alice.client.post(f"{journey}/publish-plans")).status_code == 422
