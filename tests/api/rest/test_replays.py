"""`/v1/runs/{id}/replays` without a worker: what is refused and why, what is written, and what upkeep starts."""

import asyncio
from typing import Any
from uuid import UUID, uuid4

import pytest
import pytest_asyncio
from httpx2 import AsyncClient
from sqlalchemy import text

from activities.contracts.journey import JourneyInput
from activities.outbox_delivery import OutboxDelivery
from activities.versions import Versions
from api.dependencies import Services
from models.store import outbox, waits
from models.store.session import Database
from models.tables.base import utc_now
from models.tables.journeys import RunEvent
from tests.api.conftest import Person
from tests.api.rest.acme import Surroundings, actions
from tests.api.rest.fake_temporal import FakeTemporal
from tests.api.rest.test_runs import project

REASON = {"reason": "the mail server was down"}


@pytest_asyncio.fixture(loop_scope="session")
async def run(alice: Person, journey: str, around: Surroundings, database: Database) -> dict[str, Any]:
    """One that needs attention at its first step."""
    body = {"contact_id": str(around.contact_id), "variables": {"order_id": "A-1"}, "key": "A-1"}
    found: dict[str, Any] = (await alice.client.post(f"/v1/journeys/{journey}/runs", json=body)).json()
    await project(database, alice, found["id"], status="needs_attention", sequence=2, reason="gave_up:connect_421")
    return found


async def replay(person: Person, run_id: str, key: str | None = None, **asked: Any) -> Any:
    headers = {"Idempotency-Key": key} if key else {}
    return await person.client.post(f"/v1/runs/{run_id}/replays", json={**REASON, **asked}, headers=headers)


async def started(person: Person, services: Services, temporal: FakeTemporal, workflow_id: str) -> JourneyInput:
    """What the outbox starts the workflow with."""
    async with services.database.organization(person.organization_id) as session:
        waiting = [message for message in await outbox.pending(session, 100) if message.kind == "start"]
    delivery = OutboxDelivery(services.database, Versions(), services.temporal, "queue")
    assert await delivery.tell(person.organization_id, waiting) == [message.id for message in waiting]
    given = temporal.started[workflow_id].argument
    assert isinstance(given, JourneyInput)
    return given


async def test_a_replay_waits_for_what_routing_has_taken_and_not_committed(alice: Person, run: dict[str, Any], database: Database) -> None:
    async with database.organization(alice.organization_id) as routing:
        await waits.routing_lock(routing, alone=True)
        replaying = asyncio.ensure_future(replay(alice, run["id"]))
        waiting = text("SELECT EXISTS (SELECT 1 FROM pg_locks WHERE NOT granted AND pg_backend_pid() = ANY(pg_blocking_pids(pid)))")
        async with asyncio.timeout(60):
            while not await routing.scalar(waiting):
                assert not replaying.done(), "it did not wait"
                await asyncio.sleep(0.01)
        free = text("SELECT 1 FROM runs WHERE id = :id FOR UPDATE NOWAIT")  # it has locked nothing before
        assert await routing.scalar(free, {"id": run["id"]}) == 1
    assert (await replaying).status_code == 201


async def test_a_replay_is_a_run_of_its_own_linked_to_the_old_one(
    alice: Person, run: dict[str, Any], services: Services, temporal: FakeTemporal, database: Database
) -> None:
    answer = await replay(alice, run["id"])
    assert (answer.status_code, answer.headers["Location"]) == (201, f"/v1/runs/{answer.json()['id']}")
    new = answer.json()
    assert (new["replay_of"], new["root_run_id"], new["status"], new["step_id"]) == (run["id"], run["id"], "active", "welcome")
    same = ("journey_id", "version_id", "contact_id", "entry_source", "entry_key", "variables")
    assert {name: new[name] for name in same} == {name: run[name] for name in same}
    old = (await alice.client.get(f"/v1/runs/{run['id']}")).json()
    assert (old["status"], old["reason"], old["replayed_by"]) == ("exited", "replayed", new["id"])
    given = await started(alice, services, temporal, new["workflow_id"])
    assert given.scope.replay
    assert [(str(state.run_id), state.step_id, state.visits) for state in given.runs] == [(new["id"], "welcome", {})]
    assert "A-1" not in given.model_dump_json()
    assert await actions(alice, database, run["id"]) == ["run.started", "run.replayed"]
    assert await actions(alice, database, new["id"]) == ["run.started"]


async def test_both_timelines_tell_of_the_other_run(alice: Person, run: dict[str, Any]) -> None:
    new = (await replay(alice, run["id"])).json()
    by = "by the API key Alice"
    mine = (await alice.client.get(f"/v1/runs/{new['id']}/timeline")).json()["entries"]
    theirs = (await alice.client.get(f"/v1/runs/{run['id']}/timeline")).json()["entries"]
    assert [entry["sentence"] for entry in mine] == [
        f'Goes on in the place of the run {run["id"]} at "welcome", on the same version {by}: the mail server was down'
    ]
    assert theirs[-1]["sentence"] == f'Replayed at "welcome" by the run {new["id"]}, asked for {by}: the mail server was down'


@pytest.mark.parametrize("route", ["replays", "replays/preview"])
async def test_it_needs_a_login(client: AsyncClient, run: dict[str, Any], route: str) -> None:
    assert (await client.post(f"/v1/runs/{run['id']}/{route}", json=REASON)).status_code == 401


@pytest.mark.parametrize("route", ["replays", "replays/preview"])
async def test_another_organization_sees_404(charlie: Person, run: dict[str, Any], route: str) -> None:
    body = REASON if route == "replays" else {}
    answer = await charlie.client.post(f"/v1/runs/{run['id']}/{route}", json=body)
    assert (answer.status_code, answer.json()["code"]) == (404, "not_found")


async def test_who_may_only_look_may_preview(bob: Person, run: dict[str, Any]) -> None:
    assert (await replay(bob, run["id"])).status_code == 403
    assert (await bob.client.post(f"/v1/runs/{run['id']}/replays/preview")).status_code == 200


async def test_a_preview_writes_nothing_and_says_what_would_happen(
    alice: Person, run: dict[str, Any], database: Database, temporal: FakeTemporal
) -> None:
    before = len(temporal.started)
    found = (await alice.client.post(f"/v1/runs/{run['id']}/replays/preview", json={"version": "current"})).json()
    assert (found["from_step"], found["content_differs"], found["first_send"]) == ("welcome", False, "welcome")
    assert (found["to_do"], found["kept"], found["uncertain"]) == (1, 0, 0)
    assert [(each["check"], each["outcome"], each["reason"]) for each in found["checks"]] == [
        ("consent", "refuse", "no_consent"),
        ("quiet_hours", "send", None),
    ]
    assert found["checks"][0]["sentence"].endswith("must not be sent: the contact never agreed to Product news by email")
    assert found["summary"] == ('From "welcome" on version 1, which the run was on, with the same content: 1 to be done')
    assert len(temporal.started) == before
    assert await actions(alice, database, run["id"]) == ["run.started"]


async def test_a_preview_takes_the_body_of_the_replay(alice: Person, run: dict[str, Any]) -> None:
    path, body = f"/v1/runs/{run['id']}/replays/preview", {"from_step": "pause", "version": "current"}
    without = await alice.client.post(path, json=body)
    of_the_replay = body | {"reason": "the mail server was down", "version_id": str(uuid4())}  # whichever: nothing is bound to it here
    full = await alice.client.post(path, json=of_the_replay)
    assert (full.status_code, full.json()) == (200, without.json())
    assert (await alice.client.post(path, json=body | {"reasons": "x"})).status_code == 422


@pytest.mark.parametrize("route", ["replays", "replays/preview"])
async def test_an_empty_step_to_begin_at_is_no_step(alice: Person, run: dict[str, Any], route: str) -> None:
    answer = await alice.client.post(f"/v1/runs/{run['id']}/{route}", json={"from_step": "", "reason": "x"})
    assert (answer.status_code, answer.json()["errors"][0]["path"], answer.json()["errors"][0]["code"]) == (
        422,
        "from_step",
        "unknown_step",
    )


@pytest.mark.parametrize("status", ["active", "waiting", "held", "paused"])
async def test_a_run_that_is_under_way_is_not_replayed(alice: Person, run: dict[str, Any], database: Database, status: str) -> None:
    await project(database, alice, run["id"], status=status)
    answer = await replay(alice, run["id"])
    assert answer.status_code == 409 and f"The run is {status}" in answer.json()["detail"]


async def test_a_run_that_a_rule_has_just_ended_is_not_replayed(alice: Person, run: dict[str, Any], database: Database) -> None:
    async with database.organization(alice.organization_id) as session:
        await session.execute(text("UPDATE runs SET exit_requested_at = now(), exit_reason = 'goal:x' WHERE id = :id"), {"id": run["id"]})
    answer = await replay(alice, run["id"])
    assert answer.status_code == 409 and "a rule of its journey has ended it" in answer.json()["detail"]


@pytest.mark.parametrize("status", ["completed", "exited", "cancelled"])
async def test_a_finished_run_stays_as_it_ended(alice: Person, run: dict[str, Any], database: Database, status: str) -> None:
    async with database.organization(alice.organization_id) as session:
        await session.execute(
            text("UPDATE runs SET status = :status, reason = 'x', finished_at = now() WHERE id = :id"), {"id": run["id"], "status": status}
        )
    assert (await replay(alice, run["id"])).status_code == 201
    old = (await alice.client.get(f"/v1/runs/{run['id']}")).json()
    assert (old["status"], old["reason"]) == (status, "x")


async def test_a_run_is_replayed_once_and_the_second_is_told_by_which(alice: Person, run: dict[str, Any]) -> None:
    new = (await replay(alice, run["id"])).json()
    again = await replay(alice, run["id"])
    assert again.status_code == 409 and new["id"] in again.json()["detail"]


async def test_the_same_key_finds_the_same_replay(
    alice: Person, run: dict[str, Any], services: Services, temporal: FakeTemporal, database: Database
) -> None:
    temporal.away()
    assert (await replay(alice, run["id"], "k")).status_code == 503
    temporal.back()
    first, second = await replay(alice, run["id"], "k"), await replay(alice, run["id"], "k")
    assert first.status_code == second.status_code == 201 and first.json()["id"] == second.json()["id"]
    assert await started(alice, services, temporal, first.json()["workflow_id"])
    async with database.organization(alice.organization_id) as session:  # upkeep would have woken routing
        organizations = set((await session.execute(text("SELECT organizations_to_route()"))).scalars())
    assert alice.organization_id in organizations


async def test_a_step_that_is_not_there_is_refused_with_the_ways_out(
    alice: Person, run: dict[str, Any], journey: str, around: Surroundings
) -> None:
    draft = {"start": "hello", "steps": {"hello": {**around.welcome()["steps"]["welcome"], "next": None}}}
    await alice.client.patch(f"/v1/journeys/{journey}/draft", json={"draft": draft}, headers={"If-Match": '"1"'})
    assert (await alice.client.post(f"/v1/journeys/{journey}/versions")).status_code == 201
    answer = await replay(alice, run["id"], version="current")
    [error] = answer.json()["errors"]
    assert (answer.status_code, error["path"], error["code"]) == (422, "from_step", "unknown_step")
    assert error["message"] == (
        "Version 2 has no step 'welcome'; begin at one of its steps (hello), or replay it on version 1, which the run was on."
    )
    [error] = (await replay(alice, run["id"], from_step="nowhere")).json()["errors"]
    assert error["message"] == "Version 1 has no step 'nowhere'; begin at one of its steps (pause, welcome)."
    found = (await alice.client.post(f"/v1/runs/{run['id']}/replays/preview", json={"version": "current", "from_step": "hello"})).json()
    assert (found["version"]["number"], found["original"]["number"], found["content_differs"]) == (2, 1, True)
    assert [(each["step_id"], each["content_differs"]) for each in found["effects"]] == [("hello", True)]


async def test_a_replay_can_be_bound_to_the_version_that_was_previewed(alice: Person, run: dict[str, Any], journey: str) -> None:
    wanted = {"version": "current"}
    previewed = (await alice.client.post(f"/v1/runs/{run['id']}/replays/preview", json=wanted)).json()["version"]["id"]
    draft = (await alice.client.get(f"/v1/journeys/{journey}")).json()["draft"]
    draft["steps"]["welcome"]["name"] = "Welcome!"
    await alice.client.patch(f"/v1/journeys/{journey}/draft", json={"draft": draft}, headers={"If-Match": '"1"'})
    assert (await alice.client.post(f"/v1/journeys/{journey}/versions")).status_code == 201
    refused = await replay(alice, run["id"], **wanted, version_id=previewed)
    assert (refused.status_code, refused.json()["code"]) == (409, "preview_outdated") and "version 2" in refused.json()["detail"]
    now = (await alice.client.post(f"/v1/runs/{run['id']}/replays/preview", json=wanted)).json()["version"]["id"]
    done = await replay(alice, run["id"], **wanted, version_id=now)
    assert (done.status_code, done.json()["version_id"]) == (201, now)


async def test_nothing_is_sent_again_that_was_not_sent(alice: Person, run: dict[str, Any]) -> None:
    [error] = (await replay(alice, run["id"], resend=["welcome"])).json()["errors"]
    assert (error["path"], error["code"]) == ("resend", "nothing_to_resend")


@pytest.mark.parametrize(
    "body", [{}, {"reason": ""}, {"reason": "  "}, {**REASON, "version": "newest"}, {**REASON, "steps": []}, {"reason": "x" * 201}]
)
async def test_a_replay_has_a_reason_and_nothing_unknown(alice: Person, run: dict[str, Any], body: dict[str, Any]) -> None:
    assert (await alice.client.post(f"/v1/runs/{run['id']}/replays", json=body)).status_code == 422


async def test_an_archived_journey_replays_nothing_and_a_paused_one_holds_its_replays(
    alice: Person, run: dict[str, Any], journey: str, services: Services, temporal: FakeTemporal
) -> None:
    await alice.client.put(f"/v1/journeys/{journey}/archive")
    assert (await replay(alice, run["id"])).status_code == 409
    await alice.client.delete(f"/v1/journeys/{journey}/archive")
    await alice.client.put(f"/v1/journeys/{journey}/pause")
    new = (await replay(alice, run["id"])).json()
    assert (await started(alice, services, temporal, new["workflow_id"])).held_by == ["journey"]


@pytest.mark.parametrize(("lifted", "paused"), [(False, True), (True, False)])
async def test_the_pause_of_a_run_that_lost_its_workflow_outlasts_its_replay(
    alice: Person, run: dict[str, Any], services: Services, temporal: FakeTemporal, database: Database, lifted: bool, paused: bool
) -> None:
    await project(database, alice, run["id"], reason="workflow_lost")
    async with database.organization(alice.organization_id) as session:
        place: dict[str, Any] = {"organization_id": alice.organization_id, "run_id": UUID(run["id"]), "occurred_at": utc_now()}
        session.add(RunEvent(**place, sequence=3, kind="paused"))
        session.add(RunEvent(**place, sequence=4, kind="paused", details={"with": "journey"}))
        if lifted:
            session.add(RunEvent(**place, sequence=5, kind="resumed"))
    seen = (await bulk(alice, filter={"run_ids": [run["id"]]})).json()
    assert (seen["runs"], seen["preview"]["stay_paused"]) == (1, int(paused))
    new = (await replay(alice, run["id"])).json()
    [state] = (await started(alice, services, temporal, new["workflow_id"])).runs
    assert state.paused is paused


async def test_an_unknown_run_is_404(alice: Person) -> None:
    assert (await replay(alice, str(uuid4()))).status_code == 404


async def campaign_of(alice: Person, journey: str, run_id: str, database: Database) -> UUID:
    """The run belongs to a campaign."""
    made = (await alice.client.post("/v1/campaigns", json={"name": "November", "journey_id": journey})).json()
    await project(database, alice, run_id, campaign_id=UUID(made["id"]))
    async with database.organization(alice.organization_id) as session:
        await session.execute(text("UPDATE campaigns SET audience = 1, status = 'running' WHERE id = :id"), {"id": made["id"]})
    return UUID(made["id"])


async def test_a_campaign_counts_each_contact_once_whatever_was_replayed(
    alice: Person, run: dict[str, Any], journey: str, database: Database, services: Services, temporal: FakeTemporal
) -> None:
    campaign_id = await campaign_of(alice, journey, run["id"], database)
    new = (await replay(alice, run["id"])).json()
    assert new["campaign_id"] == str(campaign_id)
    assert (await started(alice, services, temporal, new["workflow_id"])).scope.campaign_id == campaign_id
    progress = (await alice.client.get(f"/v1/campaigns/{campaign_id}")).json()["progress"]
    assert progress["conservation"] == {"entered": 1, "accounted_for": 1, "holds": True}
    assert progress["runs"]["active"] == 1 and progress["runs"]["exited"] == 0


async def test_nothing_of_a_cancelled_campaign_is_replayed(alice: Person, run: dict[str, Any], journey: str, database: Database) -> None:
    campaign_id = await campaign_of(alice, journey, run["id"], database)
    await alice.client.put(f"/v1/campaigns/{campaign_id}/cancellation")
    answer = await replay(alice, run["id"])
    assert answer.status_code == 409 and "campaign was cancelled" in answer.json()["detail"]


async def test_a_replay_that_has_not_begun_is_not_started_as_if_it_were_new(
    alice: Person, run: dict[str, Any], temporal: FakeTemporal
) -> None:
    new = (await replay(alice, run["id"])).json()
    assert (await alice.client.put(f"/v1/runs/{new['id']}/pause")).status_code == 503
    assert new["workflow_id"] not in temporal.started


async def test_a_replay_is_no_entry_but_is_under_way(alice: Person, around: Surroundings, database: Database) -> None:
    """A journey that takes everybody twice, and nobody while they are inside."""
    entry = {"again": "after_exit", "maximum": 2}
    created = await alice.client.post("/v1/journeys", json={"name": "Twice", "draft": {**around.welcome(), "entry": entry}})
    journey = created.json()["id"]
    assert (await alice.client.post(f"/v1/journeys/{journey}/versions")).status_code == 201
    body = {"contact_id": str(around.contact_id)}
    first = (await alice.client.post(f"/v1/journeys/{journey}/runs", json=body)).json()
    await project(database, alice, first["id"], status="needs_attention")
    new = (await replay(alice, first["id"])).json()
    inside = await alice.client.post(f"/v1/journeys/{journey}/runs", json=body)
    assert inside.status_code == 409 and "under way" in inside.json()["detail"]
    async with database.organization(alice.organization_id) as session:
        await session.execute(text("UPDATE runs SET status = 'completed', finished_at = now() WHERE id = :id"), {"id": new["id"]})
    second = await alice.client.post(f"/v1/journeys/{journey}/runs", json=body)
    assert second.status_code == 201, second.text


async def test_a_run_that_has_come_round_too_often_does_nothing_more_and_the_dry_run_says_so(
    alice: Person, around: Surroundings, database: Database
) -> None:
    """It has exited with `loop_limit`, as it came to `hello` for the second time."""
    steps = {
        "hello": {"kind": "update_contact", "add_tags": ["seen"], "next": "pause"},
        "pause": {"kind": "wait", "duration": "P1D", "next": "hello"},
    }
    draft = {"start": "hello", "steps": steps, "max_visits": 1}
    journey = (await alice.client.post("/v1/journeys", json={"name": "Round", "draft": draft})).json()["id"]
    assert (await alice.client.post(f"/v1/journeys/{journey}/versions")).status_code == 201
    run = await start(alice, journey, str(around.contact_id))
    await project(database, alice, run["id"], status="exited", reason="loop_limit", step_id="hello", sequence=5)
    lines = """INSERT INTO run_events (id, organization_id, run_id, sequence, kind, step_id, visit, details, occurred_at)
               SELECT gen_random_uuid(), :o, :run, n, kind, step_id, visit, '{}', now()
               FROM unnest(ARRAY['contact_updated', 'waiting', 'woke', 'exited'], ARRAY['hello', 'pause', 'pause', 'hello'],
                           ARRAY[1, 1, 1, 2]) WITH ORDINALITY AS l(kind, step_id, visit, n)"""
    async with database.organization(alice.organization_id) as session:
        await session.execute(text(lines), {"o": alice.organization_id, "run": run["id"]})
    found = (await alice.client.post(f"/v1/runs/{run['id']}/replays/preview")).json()
    assert (found["to_do"], found["possible"], found["first_send"], found["effects"]) == (0, 0, None, [])
    assert "the run exits at once" in found["summary"] and "max_visits" in found["summary"]
    seen = (await bulk(alice, filter={"journey_id": journey})).json()
    assert (seen["runs"], seen["preview"]["effects"]["to_do"], seen["preview"]["effects"]["by_step"]) == (1, 0, [])
    again = (await alice.client.post(f"/v1/runs/{run['id']}/replays/preview", json={"from_step": "pause"})).json()
    assert (again["to_do"], again["possible"]) == (0, 0)  # behind the wait it would come round once more than it may


async def test_a_preview_says_that_a_rule_about_the_contact_would_end_the_replay_at_once(
    alice: Person, journey: str, around: Surroundings, database: Database
) -> None:
    draft = {**around.welcome(), "exits": [{"name": "left", "when": {"tag": "left"}}]}
    await alice.client.patch(f"/v1/journeys/{journey}/draft", json={"draft": draft}, headers={"If-Match": '"1"'})
    assert (await alice.client.post(f"/v1/journeys/{journey}/versions")).status_code == 201
    run = await start(alice, journey, str(around.contact_id))
    await project(database, alice, run["id"], status="needs_attention", sequence=2, reason="gave_up:connect_421")
    path = f"/v1/runs/{run['id']}/replays/preview"
    before = (await alice.client.post(path)).json()
    assert (before["ends_at_once"], before["first_send"], before["to_do"]) == (None, "welcome", 1)
    seen = (await bulk(alice, filter={"journey_id": journey})).json()["preview"]
    assert (seen["ends_at_once"], seen["effects"]["to_do"]) == ({}, 1)
    async with database.organization(alice.organization_id) as session:
        await session.execute(text("UPDATE contacts SET tags = ARRAY['left'] WHERE id = :id"), {"id": around.contact_id})
    found = (await alice.client.post(path)).json()
    why = "the journey's exit rule left applied"
    assert found["ends_at_once"] == {"reason": "exit_rule:left", "sentence": f"It would exit at once, with nothing done: {why}"}
    assert (found["first_send"], found["to_do"], found["effects"], found["checks"]) == (None, 0, [], [])
    assert found["summary"].endswith(f": nothing is done, for the run exits at once: {why}")
    seen = (await bulk(alice, filter={"journey_id": journey})).json()["preview"]
    assert (seen["ends_at_once"], seen["effects"]["to_do"], seen["effects"]["by_step"]) == ({"exit_rule:left": 1}, 0, [])


async def bulk(person: Person, **asked: Any) -> Any:
    return await person.client.post("/v1/run-operations/previews", json={"command": "replay", **asked})


async def test_a_bulk_preview_adds_the_dry_runs_up(alice: Person, run: dict[str, Any], journey: str, database: Database) -> None:
    await project(database, alice, (await start(alice, journey, run["contact_id"]))["id"], status="completed", step_id="pause")
    await project(database, alice, (await start(alice, journey, run["contact_id"]))["id"], status="waiting")
    seen = (await bulk(alice, filter={"journey_id": journey})).json()
    assert (seen["runs"], seen["preview"]["not_applicable"]) == (2, {"wrong_phase": 1})
    effects = seen["preview"]["effects"]
    assert {name: effects[name] for name in ("kept", "to_do", "possible", "uncertain", "resent")} == {
        **dict.fromkeys(("kept", "possible", "uncertain", "resent"), 0),
        "to_do": 1,
    }
    assert [(step["step_id"], step["to_do"]) for step in effects["by_step"]] == [("welcome", 1)]
    nowhere = (await bulk(alice, filter={"journey_id": journey}, arguments={"from_step": "nowhere"})).json()
    assert (nowhere["runs"], nowhere["preview"]["not_applicable"]) == (0, {"unknown_step": 2, "wrong_phase": 1})
    assert nowhere["preview"]["effects"]["by_step"] == []


async def start(person: Person, journey: str, contact_id: str) -> dict[str, Any]:
    found: dict[str, Any] = (await person.client.post(f"/v1/journeys/{journey}/runs", json={"contact_id": contact_id})).json()
    return found


@pytest.mark.parametrize(
    ("asked", "path"),
    [
        ({"arguments": {"version": "newest"}}, "arguments.version"),
        ({"arguments": {"steps": []}}, "arguments.steps"),
    ],
)
async def test_a_bulk_replay_is_refused_where_it_makes_no_sense(
    alice: Person, run: dict[str, Any], journey: str, asked: dict[str, Any], path: str
) -> None:
    answer = await bulk(alice, filter={"journey_id": journey}, **asked)
    assert (answer.status_code, answer.json()["errors"][0]["path"]) == (422, path)


async def test_a_step_that_only_some_of_many_runs_have_is_counted_and_one_that_none_has_refused(
    alice: Person, run: dict[str, Any], journey: str, around: Surroundings, database: Database
) -> None:
    """One needs attention at `welcome` of version 1, another has completed version 2, which has `hello` only."""
    draft = {"start": "hello", "steps": {"hello": {**around.welcome()["steps"]["welcome"], "next": None}}}
    await alice.client.patch(f"/v1/journeys/{journey}/draft", json={"draft": draft}, headers={"If-Match": '"1"'})
    assert (await alice.client.post(f"/v1/journeys/{journey}/versions")).status_code == 201
    await project(database, alice, (await start(alice, journey, run["contact_id"]))["id"], status="completed", step_id="hello")
    cases: list[tuple[dict[str, Any], int, dict[str, int]]] = [
        ({"resend": ["welcome"]}, 1, {"unknown_resend": 1}),
        ({"version": "current"}, 1, {"unknown_step": 1}),
        ({"version": "current", "from_step": "hello", "resend": ["hello"]}, 2, {}),
    ]
    for arguments, runs, others in cases:
        seen = (await bulk(alice, filter={"journey_id": journey}, arguments=arguments)).json()
        assert (seen["runs"], seen["preview"]["not_applicable"]) == (runs, others), arguments
    mistakes: list[tuple[dict[str, Any], str]] = [
        ({"resend": ["nowhere"]}, "hello, pause, welcome"),
        ({"resend": ["welcome"], "version": "current"}, "hello"),
    ]
    for arguments, there_is in mistakes:
        answer = await bulk(alice, filter={"journey_id": journey}, arguments=arguments)
        [error] = answer.json()["errors"]
        assert (answer.status_code, error["path"], error["code"]) == (422, "arguments.resend", "unknown_step")
        assert f"({there_is})" in error["message"]


async def test_a_replayed_run_does_not_fit_any_more(alice: Person, run: dict[str, Any], journey: str) -> None:
    await replay(alice, run["id"])
    seen = (await bulk(alice, filter={"journey_id": journey})).json()
    assert (seen["runs"], seen["preview"]["not_applicable"]) == (0, {"wrong_phase": 1, "replayed_already": 1})
