from typing import Any
from unittest.mock import AsyncMock
from uuid import UUID

import pytest
import pytest_asyncio
from fastapi import FastAPI
from sqlalchemy import text
from temporalio.testing import ActivityEnvironment

from activities.contracts.operations import OPERATION_WORKFLOW, OperationPage, OperationRef
from activities.replaying import ReplayActivities
from api.commands import run_operations
from api.dependencies import Services
from models.store.session import Database
from tests.api.conftest import Person, anonymous
from tests.api.rest import acme
from tests.api.rest.acme import Surroundings, actions
from tests.api.rest.fake_temporal import FakeTemporal
from tests.api.rest.test_publish_plans import standing

Operation = dict[str, Any]
PREVIEWS, OPERATIONS = "/v1/run-operations/previews", "/v1/run-operations"


@pytest_asyncio.fixture(loop_scope="session")
async def journey(alice: Person, around: Surroundings, database: Database) -> str:
    """Three runs wait at `pause`, two need attention at `welcome`, one is over."""
    journey_id = await acme.publish(alice, around)
    places = [("pause", "waiting")] * 3 + [("welcome", "needs_attention")] * 2 + [("welcome", "exited")]
    await standing(database, alice, journey_id, around, places)
    return journey_id


async def preview(person: Person, command: str, filter: dict[str, Any], **more: Any) -> Operation:
    made = await person.client.post(PREVIEWS, json={"command": command, "filter": filter, **more})
    assert made.status_code == 201, made.text
    found: Operation = made.json()
    return found


async def test_a_preview_says_how_many_fit_where_and_what_would_happen(alice: Person, journey: str) -> None:
    seen = await preview(alice, "retry", {"journey_id": journey})
    assert (seen["status"], seen["runs"]) == ("previewed", 2)
    assert seen["preview"] == {
        "fitting": 6,
        "obeying": 2,
        "stay_paused": 0,
        "by_status": {"waiting": 3, "needs_attention": 2, "exited": 1},
        "by_step": [
            {"version": 1, "step_id": "pause", "runs": 3, "obeying": 0},
            {"version": 1, "step_id": "welcome", "runs": 3, "obeying": 2},
        ],
        "not_applicable": {"wrong_phase": 4},
        "effects": None,
        "ends_at_once": None,
    }
    assert (await alice.client.get(f"{OPERATIONS}/{seen['id']}")).json() == seen
    assert (await alice.client.get(OPERATIONS)).json()["items"] == []


async def test_executing_takes_the_runs_down_and_starts_a_workflow(
    alice: Person, journey: str, database: Database, temporal: FakeTemporal
) -> None:
    seen = await preview(alice, "pause", {"journey_id": journey})
    body = {"preview_id": seen["id"], "reason": "asked by the customer"}
    answer = await alice.client.post(OPERATIONS, json=body)
    assert (answer.status_code, answer.json()["status"], answer.json()["progress"]["pending"]) == (202, "running", 5)
    name = f"{alice.organization_id}/run-operation/{seen['id']}"
    assert temporal.started[name].workflow == OPERATION_WORKFLOW
    items = (await alice.client.get(f"{OPERATIONS}/{seen['id']}/items")).json()["items"]
    assert len(items) == 5 and {item["result"] for item in items} == {"pending"}
    assert await actions(alice, database, seen["id"]) == ["run_operation.previewed", "run_operation.executed"]
    again = await alice.client.post(OPERATIONS, json=body)
    assert (again.status_code, again.json()["id"]) == (202, seen["id"])
    other = await alice.client.post(OPERATIONS, json={**body, "reason": "something else"})
    assert (other.status_code, other.json()["code"]) == (409, "conflict")
    assert [row["id"] for row in (await alice.client.get(OPERATIONS)).json()["items"]] == [seen["id"]]


async def test_a_changed_count_does_nothing(
    alice: Person, journey: str, around: Surroundings, database: Database, temporal: FakeTemporal
) -> None:
    seen = await preview(alice, "pause", {"journey_id": journey})
    await standing(database, alice, journey, around, [("pause", "waiting")])
    answer = await alice.client.post(OPERATIONS, json={"preview_id": seen["id"], "reason": "x"})
    assert (answer.status_code, answer.json()["code"]) == (409, "preview_outdated")
    assert "counted 5 runs; now it would be 6" in answer.json()["detail"]
    assert not [name for name in temporal.started if "run-operation" in name]
    assert (await alice.client.get(f"{OPERATIONS}/{seen['id']}/items")).json()["items"] == []
    assert (await alice.client.get(f"{OPERATIONS}/{seen['id']}")).json()["status"] == "previewed"


async def test_as_many_other_runs_are_not_those_that_were_previewed(
    alice: Person, journey: str, around: Surroundings, database: Database, temporal: FakeTemporal
) -> None:
    seen = await preview(alice, "cancel", {"journey_id": journey, "step_id": "pause"})
    async with database.organization(alice.organization_id) as session:
        left = "UPDATE runs SET step_id = 'welcome' WHERE id = (SELECT id FROM runs WHERE step_id = 'pause' LIMIT 1)"
        await session.execute(text(left))
    await standing(database, alice, journey, around, [("pause", "waiting")])
    answer = await alice.client.post(OPERATIONS, json={"preview_id": seen["id"], "reason": "x"})
    assert (answer.status_code, answer.json()["code"]) == (409, "preview_outdated")
    assert "not the same ones" in answer.json()["detail"]
    assert not [name for name in temporal.started if "run-operation" in name]


async def publish_again(alice: Person, journey: str, around: Surroundings, name: str) -> None:
    headers = {"If-Match": f'"{(await alice.client.get(f"/v1/journeys/{journey}")).json()["revision"]}"'}
    await alice.client.patch(f"/v1/journeys/{journey}/draft", json={"draft": around.welcome(name=name)}, headers=headers)
    assert (await alice.client.post(f"/v1/journeys/{journey}/versions")).status_code == 201


async def test_a_replay_onto_the_current_version_is_of_the_one_that_was_previewed(
    alice: Person, journey: str, around: Surroundings, database: Database
) -> None:
    """A publication before it is carried out outdates the preview; one after that does not reach it."""
    onto: dict[str, Any] = {"command": "replay", "filter": {"journey_id": journey}}
    original = await preview(alice, **onto)
    outdated = await preview(alice, **onto, arguments={"version": "current"})
    await publish_again(alice, journey, around, "Second")
    for seen, answered in ((outdated, (409, "preview_outdated")), (original, (202, None))):
        answer = await alice.client.post(OPERATIONS, json={"preview_id": seen["id"], "reason": "x"})
        assert (answer.status_code, answer.json().get("code")) == answered
    seen = await preview(alice, **onto, arguments={"version": "current"})
    assert (await alice.client.post(OPERATIONS, json={"preview_id": seen["id"], "reason": "x"})).status_code == 202
    await publish_again(alice, journey, around, "Third")
    ref = OperationRef(organization_id=alice.organization_id, operation_id=UUID(seen["id"]), command="replay")
    await ActivityEnvironment().run(ReplayActivities(database, AsyncMock()).replay_page, OperationPage(operation=ref))
    async with database.organization(alice.organization_id) as session:
        query = "SELECT v.number FROM runs r JOIN journey_versions v ON v.id = r.version_id WHERE r.replay_of IS NOT NULL"
        assert list(await session.scalars(text(query))) == [2] * seen["runs"] == [2] * 3


async def test_an_expired_preview_does_nothing(alice: Person, journey: str, database: Database) -> None:
    seen = await preview(alice, "pause", {"journey_id": journey})
    async with database.organization(alice.organization_id) as session:
        await session.execute(text("UPDATE run_operations SET expires_at = now() WHERE id = :id"), {"id": UUID(seen["id"])})
    answer = await alice.client.post(OPERATIONS, json={"preview_id": seen["id"], "reason": "x"})
    assert (answer.status_code, answer.json()["code"]) == (409, "preview_outdated")


async def test_a_limit_takes_the_oldest_and_reaches_the_others_next_time(alice: Person, journey: str) -> None:
    seen = await preview(alice, "retry", {"journey_id": journey}, limit=1)
    assert (seen["runs"], seen["preview"]["obeying"]) == (1, 2)
    await alice.client.post(OPERATIONS, json={"preview_id": seen["id"], "reason": "x"})
    runs = sorted(run["id"] for run in (await alice.client.get(f"/v1/runs?journey_id={journey}&status=needs_attention")).json()["items"])
    taken = [item["run_id"] for item in (await alice.client.get(f"{OPERATIONS}/{seen['id']}/items")).json()["items"]]
    assert taken == runs[:1]


@pytest.mark.parametrize(
    ("filter", "fitting"),
    [
        ({"step_id": "pause"}, 3),
        ({"statuses": ["exited"]}, 1),
        ({"reasons": ["version_replaced"]}, 1),
        ({"reasons": ["version"]}, 0),
        ({"entered_before": "2020-01-01T00:00:00Z"}, 0),
        ({"entered_from": "2020-01-01T00:00:00Z", "updated_from": "2020-01-01T00:00:00Z"}, 6),
        ({"finished_from": "2020-01-01T00:00:00Z"}, 1),
        ({"finished_before": "2020-01-01T00:00:00Z"}, 0),
        ({"updated_before": "2020-01-01T00:00:00Z"}, 0),
        ({"contact_ids": []}, 0),
    ],
)
async def test_every_field_of_a_filter_narrows(alice: Person, journey: str, filter: dict[str, Any], fitting: int) -> None:
    seen = await preview(alice, "cancel", {"journey_id": journey, **filter})
    assert seen["preview"]["fitting"] == fitting


async def test_runs_are_found_by_contact_segment_run_and_class_of_reason(
    alice: Person, journey: str, around: Surroundings, database: Database
) -> None:
    nobody = await acme.add_segment(database, alice, {"tag": "nobody"})
    everybody = await acme.add_segment(database, alice, {"field": "email", "is": "exists"})
    async with database.organization(alice.organization_id) as session:
        await session.execute(text("UPDATE runs SET reason = 'step_failed:Timeout' WHERE status = 'needs_attention'"))
    [some, *_] = (await alice.client.get(f"/v1/runs?journey_id={journey}")).json()["items"]
    filters: dict[str, dict[str, Any]] = {
        "nobody": {"segment_id": str(nobody)},
        "everybody": {"segment_id": str(everybody)},
        "contact": {"contact_ids": [str(around.contact_id)]},
        "run": {"run_ids": [some["id"]]},
        "class": {"reasons": ["step_failed"]},
        "code": {"reasons": ["step_failed:Timeout", "step_failed:Other"]},
    }
    counts = {
        name: (await preview(alice, "cancel", {"journey_id": journey, **filter}))["preview"]["fitting"] for name, filter in filters.items()
    }
    assert counts == {"nobody": 0, "everybody": 6, "contact": 6, "run": 1, "class": 2, "code": 2}


@pytest.mark.parametrize(
    ("body", "path"),
    [
        ({"command": "explode", "filter": {"statuses": ["held"]}}, "command"),
        ({"command": "pause", "filter": {}}, "filter"),
        ({"command": "pause", "filter": {"colour": "red"}}, "filter.colour"),
        ({"command": "pause", "filter": {"entered_from": "2026-01-01T00:00:00"}}, "filter.entered_from"),
        ({"command": "jump", "filter": {"statuses": ["held"]}}, "arguments.to_step"),
        ({"command": "pause", "filter": {"statuses": ["held"]}, "arguments": {"to_step": "x"}}, "arguments.to_step"),
        ({"command": "replay", "filter": {"statuses": ["exited"]}, "arguments": {"resend": ["a", "B"]}}, "arguments.resend[1]"),
        ({"command": "set_variables", "filter": {"statuses": ["held"]}, "arguments": {"variables": {"B": 1}}}, "arguments.variables.B"),
        ({"command": "pause", "filter": {"journey_id": "0190a1b2-0000-7000-8000-000000000001"}}, "filter.journey_id"),
    ],
)
async def test_a_wrong_preview_says_where(alice: Person, body: dict[str, Any], path: str) -> None:
    answer = await alice.client.post(PREVIEWS, json=body)
    assert answer.status_code == 422
    assert [each["path"] for each in answer.json()["errors"]] == [path]


async def test_a_jump_is_not_for_versions_without_the_step(alice: Person, journey: str) -> None:
    there = await preview(alice, "jump", {"journey_id": journey}, arguments={"to_step": "welcome"})
    gone = await preview(alice, "jump", {"journey_id": journey}, arguments={"to_step": "nowhere"})
    assert (there["runs"], gone["runs"], gone["preview"]["not_applicable"]) == (5, 0, {"unknown_step": 5, "wrong_phase": 1})


async def pause_all(database: Database, person: Person, journey: str) -> None:
    """The journey is paused, and its unfinished runs have heard of it; the oldest had been paused by itself before."""
    said = """INSERT INTO run_events (id, organization_id, run_id, sequence, kind, details, occurred_at)
              SELECT gen_random_uuid(), :o, r.id, CAST(:sequence AS integer), 'paused', CAST(:details AS jsonb), now() FROM runs r
              WHERE r.journey_id = :journey AND r.finished_at IS NULL {only}"""
    same = {"o": person.organization_id, "journey": UUID(journey)}
    oldest = "AND r.id = (SELECT min(CAST(id AS text)) FROM runs WHERE journey_id = :journey AND status = 'waiting')::uuid"
    async with database.organization(person.organization_id) as session:
        await session.execute(text(said.format(only=oldest)), {**same, "sequence": 4, "details": "{}"})
        await session.execute(text(said.format(only="")), {**same, "sequence": 5, "details": '{"with": "journey"}'})
        await session.execute(text("UPDATE runs SET beneath = status, status = 'paused' WHERE finished_at IS NULL"))
        await session.execute(text("UPDATE journeys SET paused_at = now() WHERE id = :id"), {"id": UUID(journey)})


async def test_a_preview_sees_beneath_a_pause_what_each_run_will_answer(alice: Person, journey: str, database: Database) -> None:
    await pause_all(database, alice, journey)
    commands = ("pause", "resume", "retry", "replay", "skip", "cancel")
    seen = {name: (await preview(alice, name, {"journey_id": journey})) for name in commands}
    numbers = {name: (each["runs"], each["preview"]["stay_paused"], each["preview"]["not_applicable"]) for name, each in seen.items()}
    assert numbers == {
        "pause": (4, 0, {"already": 1, "wrong_phase": 1}),  # each by itself, beneath the journey's
        "resume": (1, 1, {"paused_with_journey": 4, "wrong_phase": 1}),  # whose own pause ends, beneath the journey's
        "retry": (2, 2, {"wrong_phase": 4}),
        "replay": (1, 1, {"paused_with_journey": 2, "wrong_phase": 3}),
        "skip": (5, 5, {"wrong_phase": 1}),
        "cancel": (5, 0, {"wrong_phase": 1}),
    }
    for each in (one["preview"] for one in seen.values()):
        assert each["fitting"] == sum(each["by_status"].values()) == each["obeying"] + sum(each["not_applicable"].values())
    done = await alice.client.post(OPERATIONS, json={"preview_id": seen["resume"]["id"], "reason": "x"})
    assert (done.status_code, done.json()["progress"]["pending"]) == (202, 1)  # exactly who was foretold
    async with database.organization(alice.organization_id) as session:
        await session.execute(text("UPDATE journeys SET paused_at = NULL WHERE id = :id"), {"id": UUID(journey)})
    lifted = await preview(alice, "resume", {"journey_id": journey})
    assert (lifted["runs"], lifted["preview"]["stay_paused"]) == (5, 0)
    alone = await preview(alice, "replay", {"journey_id": journey})
    assert alone["preview"]["not_applicable"] == {"run_paused": 2, "wrong_phase": 3}


async def test_runs_without_a_workflow_can_only_be_cancelled_or_replayed(alice: Person, journey: str, database: Database) -> None:
    async with database.organization(alice.organization_id) as session:
        await session.execute(text("UPDATE runs SET reason = 'workflow_lost' WHERE status = 'needs_attention'"))
    here = {"journey_id": journey, "statuses": ["needs_attention"]}
    for name, arguments in {"retry": {}, "skip": {}, "jump": {"to_step": "pause"}, "pause": {}}.items():
        seen = await preview(alice, name, here, arguments=arguments)
        assert (seen["runs"], seen["preview"]["not_applicable"]) == (0, {"workflow_lost": 2}), name
    assert [(await preview(alice, name, here))["runs"] for name in ("cancel", "replay")] == [2, 2]


async def test_nobody_to_tell_is_completed_at_once(alice: Person, journey: str, temporal: FakeTemporal) -> None:
    seen = await preview(alice, "resume", {"journey_id": journey})
    done = await alice.client.post(OPERATIONS, json={"preview_id": seen["id"], "reason": "x"})
    assert (done.status_code, done.json()["status"]) == (202, "completed")
    assert not [name for name in temporal.started if "run-operation" in name]


async def test_an_operation_without_a_workflow_is_started_by_upkeep(
    alice: Person, journey: str, database: Database, services: Services, temporal: FakeTemporal
) -> None:
    seen = await preview(alice, "pause", {"journey_id": journey})
    temporal.away()
    answer = await alice.client.post(OPERATIONS, json={"preview_id": seen["id"], "reason": "x"})
    assert answer.status_code == 503
    temporal.back()
    async with database.organization(alice.organization_id) as session:
        await session.execute(text("UPDATE run_operations SET executed_at = executed_at - interval '11 seconds'"))
    assert await run_operations.start_missing_workflows(services, alice.organization_id, lambda: None) == 1
    assert f"{alice.organization_id}/run-operation/{seen['id']}" in temporal.started


async def test_a_cancelled_operation_leaves_the_others_alone(alice: Person, journey: str, database: Database) -> None:
    seen = await preview(alice, "pause", {"journey_id": journey})
    early = await alice.client.put(f"{OPERATIONS}/{seen['id']}/cancellation")
    assert early.status_code == 409
    await alice.client.post(OPERATIONS, json={"preview_id": seen["id"], "reason": "x"})
    for _ in range(2):
        stopped = await alice.client.put(f"{OPERATIONS}/{seen['id']}/cancellation", json={"reason": "a mistake"})
        assert stopped.status_code == 200 and stopped.json()["cancelled_at"] is not None
    told = await actions(alice, database, seen["id"])
    assert told == ["run_operation.previewed", "run_operation.executed", "run_operation.cancellation_requested"]


async def test_it_needs_a_login_and_both_permissions(alice: Person, bob: Person, app: FastAPI, journey: str) -> None:
    body = {"command": "pause", "filter": {"journey_id": journey}}
    async with anonymous(app) as nobody:
        assert (await nobody.post(PREVIEWS, json=body)).status_code == 401
    assert (await bob.client.post(PREVIEWS, json=body)).status_code == 403
    made = await alice.client.post("/v1/api-keys", json={"name": "bulk only", "scopes": ["runs.bulk"]})
    key = {"Authorization": f"Bearer {made.json()['secret']}"}
    async with anonymous(app) as holder:
        refused = await holder.post(PREVIEWS, json=body, headers=key)
    assert refused.status_code == 403 and "runs.control" in refused.json()["detail"]


async def test_another_organization_sees_404(charlie: Person, alice: Person, journey: str) -> None:
    seen = await preview(alice, "pause", {"journey_id": journey})
    assert (await charlie.client.get(f"{OPERATIONS}/{seen['id']}")).status_code == 404
    assert (await charlie.client.post(OPERATIONS, json={"preview_id": seen["id"], "reason": "x"})).status_code == 404
