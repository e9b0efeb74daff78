import asyncio
import json
from datetime import UTC, datetime, timedelta
from typing import Any, cast
from uuid import UUID, uuid4

import pytest
import pytest_asyncio
from fastapi import FastAPI
from sqlalchemy import text

from activities.contracts.routing import Routing
from activities.contracts.run_control import Place
from activities.outbox_delivery import OutboxDelivery
from activities.routing import RoutingActivities
from activities.versions import Versions
from api.commands import runs as commands
from api.commands import temporal as words
from api.dependencies import Services
from models.store import outbox, outside_rules, waits
from models.store.session import Database, OrganizationSession
from models.tables.base import new_id, utc_now
from models.tables.journeys import RunEvent
from models.tables.messaging import Decision, Delivery
from tests.api.conftest import Person, anonymous
from tests.api.rest import acme
from tests.api.rest.acme import Surroundings, actions
from tests.api.rest.fake_temporal import FakeTemporal

NOON = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)


async def start(person: Person, journey: str, around: Surroundings, **headers: str) -> Any:
    return await person.client.post(f"/v1/journeys/{journey}/runs", json={"contact_id": str(around.contact_id)}, headers=headers)


@pytest_asyncio.fixture(loop_scope="session")
async def run(alice: Person, journey: str, around: Surroundings) -> dict[str, Any]:
    answer = await start(alice, journey, around)
    assert answer.status_code == 201, answer.text
    found: dict[str, Any] = answer.json()
    return found


async def project(database: Database, person: Person, run_id: str, **values: Any) -> None:
    """As `record_audit` would leave the row."""
    assignments = ", ".join(f"{name} = :{name}" for name in values)
    async with database.organization(person.organization_id) as session:
        await session.execute(text(f"UPDATE runs SET {assignments} WHERE id = :id"), {"id": UUID(run_id), **values})


async def test_a_run_is_dated_by_the_clock_that_dates_events(
    alice: Person, journey: str, around: Surroundings, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Or a host that is ahead would hide from the run what happens to its contact in its first moments."""

    class Ahead(datetime):
        @classmethod
        def now(cls, tz: Any = None) -> "Ahead":
            return super().now(tz) + timedelta(seconds=50)

    with monkeypatch.context() as host:
        host.setattr("models.tables.base.datetime", Ahead)
        answer = await start(alice, journey, around)
        assert answer.status_code == 201, answer.text
        event = {"name": "paid", "contact_id": str(around.contact_id)}
        accepted = await alice.client.post("/v1/events", json=event)
    assert accepted.status_code == 202, accepted.text
    compared = (
        "SELECT e.created_at > r.created_at AND e.created_at > r.updated_at FROM runs r, events e WHERE r.id = :id AND e.name = 'paid'"
    )
    async with database.organization(alice.organization_id) as session:
        assert await session.scalar(text(compared), {"id": UUID(answer.json()["id"])})


async def test_a_run_starts_a_workflow_that_carries_ids_only(
    alice: Person, journey: str, around: Surroundings, temporal: FakeTemporal, database: Database
) -> None:
    body = {"contact_id": str(around.contact_id), "variables": {"email": "ada@example.com"}}
    answer = await alice.client.post(f"/v1/journeys/{journey}/runs", json=body)
    assert (answer.status_code, answer.json()["status"], answer.json()["variables"]) == (201, "active", {"email": "ada@example.com"})
    [(name, started)] = temporal.started.items()
    assert name == answer.json()["workflow_id"] == f"{alice.organization_id}/run/{answer.json()['id']}"
    assert started.workflow == "JourneyWorkflow"
    assert started.attributes == {
        "OrganizationId": str(alice.organization_id),
        "JourneyId": journey,
        "VersionId": answer.json()["version_id"],
    }
    [state] = started.argument.runs
    assert (str(state.run_id), state.step_id, state.sequence) == (answer.json()["id"], "welcome", 0)
    assert "ada@example.com" not in started.argument.model_dump_json()
    assert await actions(alice, database, answer.json()["id"]) == ["run.started"]


async def unsaid(database: Database, person: Person) -> list[tuple[str, str]]:
    """What the outbox holds: of which run, and what."""
    async with database.organization(person.organization_id) as session:
        return [(str(row.run_id), row.kind) for row in await session.execute(text("SELECT run_id, kind FROM run_messages"))]


async def deliver(services: Services, person: Person) -> None:
    """As routing does, which is woken."""
    async with services.database.organization(person.organization_id) as session:
        waiting = await outbox.pending(session, 100)
    assert waiting != []
    await OutboxDelivery(services.database, Versions(), services.temporal, "queue").tell(person.organization_id, waiting)


async def test_a_run_is_the_outboxs_to_start_until_its_workflow_knows_all_that_was_said(
    alice: Person, journey: str, around: Surroundings, temporal: FakeTemporal, database: Database
) -> None:
    assert (await start(alice, journey, around)).status_code == 201
    assert (await unsaid(database, alice), temporal.signalled) == ([], [])
    temporal.away(hears=True)  # as if this process died once it had started the workflow
    assert (await start(alice, journey, around, **{"Idempotency-Key": "once"})).status_code == 503
    temporal.back()
    run = (await start(alice, journey, around, **{"Idempotency-Key": "once"})).json()["id"]
    assert await unsaid(database, alice) == [(run, "start")]


async def test_a_resume_that_comes_while_a_workflow_starts_is_left_to_the_outbox_to_tell(
    alice: Person, journey: str, around: Surroundings, temporal: FakeTemporal, services: Services
) -> None:
    database = services.database
    temporal.away()
    assert (await start(alice, journey, around, **{"Idempotency-Key": "once"})).status_code == 503
    temporal.back()
    assert (await alice.client.put(f"/v1/journeys/{journey}/pause")).status_code == 202

    async def resume() -> None:
        async with database.organization(alice.organization_id) as session:
            await session.execute(text("UPDATE journeys SET paused_at = NULL"))

    temporal.meanwhile = resume
    name = (await start(alice, journey, around, **{"Idempotency-Key": "once"})).json()["workflow_id"]
    assert temporal.started[name].argument.held_by == ["journey"]
    await deliver(services, alice)
    assert [(who, word.command, word.kind) for who, _, word in temporal.signalled] == [(name, "resume", "journey")]


async def test_a_run_that_a_rule_about_its_contact_ends_already_begins_with_that_and_routing_looks_once_more(
    alice: Person, journey: str, around: Surroundings, temporal: FakeTemporal, database: Database
) -> None:
    async with database.organization(alice.organization_id) as session:
        await session.execute(text("UPDATE contacts SET tags = '{customer}' WHERE id = :id"), {"id": around.contact_id})
    draft = {**around.welcome(), "exits": [{"name": "customer", "when": {"tag": "customer"}}]}
    await alice.client.patch(f"/v1/journeys/{journey}/draft", json={"draft": draft}, headers={"If-Match": '"1"'})
    assert (await alice.client.post(f"/v1/journeys/{journey}/versions")).status_code == 201
    answer = await start(alice, journey, around)
    [state] = temporal.started[answer.json()["workflow_id"]].argument.runs
    assert (answer.status_code, state.leaving) == (201, "exit_rule:customer")
    async with database.organization(alice.organization_id) as session:
        assert await session.scalar(text("SELECT contact_id FROM contact_changes")) == around.contact_id


CANCELLED = {"exits": [{"name": "cancelled", "event": "cancelled"}]}
GOAL = {"goals": [{"name": "cancelled", "event": "cancelled", "exit": True}]}


async def with_rules(person: Person, journey: str, around: Surroundings, **rules: Any) -> None:
    """Its second version has them."""
    draft = {"draft": {**around.welcome(), **rules}}
    await person.client.patch(f"/v1/journeys/{journey}/draft", json=draft, headers={"If-Match": '"1"'})
    published = await person.client.post(f"/v1/journeys/{journey}/versions")
    assert published.status_code == 201, published.text


async def blocked(session: OrganizationSession, *tasks: "asyncio.Future[Any]") -> None:
    """Each of the tasks is done or waits: the first for what this session holds, the next for that one."""
    waiting = """
        WITH RECURSIVE waiting(pid) AS (
          SELECT pg_backend_pid() UNION
          SELECT l.pid FROM waiting w JOIN pg_locks l ON NOT l.granted AND w.pid = ANY(pg_blocking_pids(l.pid)))
        SELECT count(*) - 1 FROM waiting"""
    async with asyncio.timeout(60):
        while int(await session.scalar(text(waiting)) or 0) < sum(not task.done() for task in tasks):
            await asyncio.sleep(0.01)


@pytest.mark.parametrize("rules", [CANCELLED, GOAL])
async def test_an_event_that_is_matched_while_a_run_is_being_started_ends_it(
    alice: Person, journey: str, around: Surroundings, services: Services, rules: dict[str, Any]
) -> None:
    """Routing does not see a run that is not committed, and whoever starts it does not see what is accepted meanwhile."""
    await with_rules(alice, journey, around, **rules)
    routing = RoutingActivities(services.database, services.settings, Versions(), cast(Any, None))
    chain = text("SELECT 1 FROM audit_heads WHERE organization_id = :o FOR UPDATE")
    async with services.database.organization(alice.organization_id) as session:
        await session.execute(chain, {"o": alice.organization_id})
        starting = asyncio.ensure_future(start(alice, journey, around))
        await blocked(session, starting)
        event = {"name": "cancelled", "contact_id": str(around.contact_id)}
        assert (await alice.client.post("/v1/events", json=event)).status_code == 202
        matching = asyncio.ensure_future(routing._route(Routing(organization_id=alice.organization_id)))
        await blocked(session, starting, matching)
        assert not starting.done()
    run = (await starting).json()
    await matching
    async with services.database.organization(alice.organization_id) as session:
        assert await session.scalar(text("SELECT routed_at IS NOT NULL FROM events"))
        ended = await session.scalar(text("SELECT exit_reason FROM runs WHERE id = :id"), {"id": UUID(run["id"])})
    assert ended in ("exit_rule:cancelled", "goal:cancelled")


async def test_a_run_of_rules_that_are_published_while_it_is_asked_for_waits_for_routing_too(
    alice: Person, journey: str, around: Surroundings, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked = outside_rules.heeds_events
    answers: list[bool] = []

    async def too_early(session: OrganizationSession, journey_id: UUID) -> bool:
        answers.append(False if not answers else await looked(session, journey_id))
        return answers[-1]

    await with_rules(alice, journey, around, **CANCELLED)
    monkeypatch.setattr(outside_rules, "heeds_events", too_early)
    async with database.organization(alice.organization_id) as routing:
        await waits.routing_lock(routing, alone=True)
        starting = asyncio.ensure_future(start(alice, journey, around))
        await blocked(routing, starting)
        assert not starting.done()
        free = text("SELECT 1 FROM journeys WHERE id = :id FOR UPDATE NOWAIT")  # it has locked nothing before
        assert await routing.scalar(free, {"id": UUID(journey)}) == 1
    assert (await starting).status_code == 201
    assert answers == [False, True]


async def test_a_run_of_no_rules_about_events_waits_for_nobody(
    alice: Person, journey: str, around: Surroundings, database: Database
) -> None:
    async with database.organization(alice.organization_id) as routing:
        await waits.routing_lock(routing, alone=True)
        async with asyncio.timeout(60):
            assert (await start(alice, journey, around)).status_code == 201


async def test_a_run_takes_the_version_it_is_told(alice: Person, journey: str, around: Surroundings) -> None:
    await alice.client.patch(f"/v1/journeys/{journey}/draft", json={"draft": around.welcome(name="New")}, headers={"If-Match": '"1"'})
    second = (await alice.client.post(f"/v1/journeys/{journey}/versions")).json()
    first = (await alice.client.get(f"/v1/journeys/{journey}/versions/1")).json()
    contact = {"contact_id": str(around.contact_id)}
    newest = await alice.client.post(f"/v1/journeys/{journey}/runs", json=contact)
    older = await alice.client.post(f"/v1/journeys/{journey}/runs", json={**contact, "version": 1})
    wrong = await alice.client.post(f"/v1/journeys/{journey}/runs", json={**contact, "version": 3})
    assert (newest.json()["version_id"], older.json()["version_id"]) == (second["id"], first["id"])
    assert (wrong.status_code, wrong.json()["errors"][0]["path"]) == (422, "version")


async def test_a_journey_that_was_never_published_takes_no_runs(alice: Person, around: Surroundings) -> None:
    created = await alice.client.post("/v1/journeys", json={"name": "Draft", "draft": around.welcome()})
    assert (await start(alice, created.json()["id"], around)).status_code == 409


async def test_a_paused_journey_takes_no_runs(alice: Person, journey: str, around: Surroundings) -> None:
    await alice.client.put(f"/v1/journeys/{journey}/pause")
    assert (await start(alice, journey, around)).status_code == 409


async def test_a_contact_of_nobody_or_of_strangers_is_refused(alice: Person, charlie: Person, journey: str, database: Database) -> None:
    theirs = await acme.surround(database, charlie)
    for contact_id in (uuid4(), theirs.contact_id):
        answer = await alice.client.post(f"/v1/journeys/{journey}/runs", json={"contact_id": str(contact_id)})
        assert (answer.status_code, answer.json()["errors"][0]["code"]) == (422, "unknown_contact")


@pytest.mark.parametrize("variables", [{"Name": 1}, {"a b": 1}, {"a": "x" * 40_000}, {f"v{n}": n for n in range(101)}])
async def test_variables_have_limits(alice: Person, journey: str, around: Surroundings, variables: dict[str, Any]) -> None:
    body = {"contact_id": str(around.contact_id), "variables": variables}
    assert (await alice.client.post(f"/v1/journeys/{journey}/runs", json=body)).status_code == 422


@pytest.mark.parametrize("hears", [True, False])
async def test_a_request_repeated_after_503_goes_on_with_the_same_run(
    alice: Person, journey: str, around: Surroundings, temporal: FakeTemporal, hears: bool
) -> None:
    temporal.away(hears=hears)
    lost = await start(alice, journey, around, **{"Idempotency-Key": "once"})
    assert (lost.status_code, "Retry-After" in lost.headers) == (503, True)
    temporal.back()
    again = await start(alice, journey, around, **{"Idempotency-Key": "once"})
    listed = (await alice.client.get("/v1/runs")).json()["items"]
    assert again.status_code == 201
    assert [run["id"] for run in listed] == [again.json()["id"]]
    assert [name for name, one in temporal.started.items() if one.workflow == "JourneyWorkflow"] == [again.json()["workflow_id"]]


async def test_a_run_whose_start_was_lost_is_started_later(
    alice: Person, journey: str, around: Surroundings, temporal: FakeTemporal, database: Database, services: Services
) -> None:
    temporal.away()
    assert (await start(alice, journey, around)).status_code == 503
    temporal.back()
    [run] = (await alice.client.get("/v1/runs")).json()["items"]
    assert await commands.start_missing_workflows(services, alice.organization_id, lambda: None) == 0  # it may be on its way still
    await project(database, alice, run["id"], created_at=datetime.now(UTC) - timedelta(minutes=1))
    assert await commands.start_missing_workflows(services, alice.organization_id, lambda: None) == 1
    assert list(temporal.started) == [run["workflow_id"]]
    assert await commands.start_missing_workflows(services, alice.organization_id, lambda: None) == 1  # until the run records something
    await project(database, alice, run["id"], sequence=1)
    assert await commands.start_missing_workflows(services, alice.organization_id, lambda: None) == 0


async def test_a_run_started_late_into_a_paused_journey_is_held(
    alice: Person, journey: str, around: Surroundings, temporal: FakeTemporal
) -> None:
    temporal.away()
    await start(alice, journey, around, **{"Idempotency-Key": "late"})
    temporal.back()
    await alice.client.put(f"/v1/journeys/{journey}/pause")
    late = await start(alice, journey, around, **{"Idempotency-Key": "late"})
    assert list(temporal.started[late.json()["workflow_id"]].argument.held_by) == ["journey"]


async def test_runs_are_found_by_what_they_are(
    alice: Person, journey: str, around: Surroundings, run: dict[str, Any], database: Database
) -> None:
    other = (await start(alice, journey, around)).json()
    await project(database, alice, other["id"], status="waiting", step_id="pause")
    for query, expected in [
        ("", [run["id"], other["id"]]),
        (f"journey_id={journey}", [run["id"], other["id"]]),
        (f"version_id={uuid4()}", []),
        (f"contact_id={around.contact_id}&status=waiting", [other["id"]]),
        ("step_id=welcome", [run["id"]]),
        (f"campaign_id={uuid4()}", []),
    ]:
        assert [item["id"] for item in (await alice.client.get(f"/v1/runs?{query}")).json()["items"]] == expected, query
    assert (await alice.client.get("/v1/runs?status=dancing")).status_code == 422


WHY = {"reason": "asked by phone"}


@pytest.mark.parametrize("path", ["jump", "skip", "retry", "cancellation", "steps/pause/cancellation"])
async def test_what_is_done_to_a_run_for_good_needs_a_reason(alice: Person, run: dict[str, Any], temporal: FakeTemporal, path: str) -> None:
    meant: dict[str, Any] = {"step_id": "pause"} if path == "jump" else {}
    bodies: list[dict[str, Any] | None] = [meant, meant | {"reason": None}, meant | {"reason": " "}]
    for body in bodies if meant else [*bodies, None]:
        answer = await alice.client.put(f"/v1/runs/{run['id']}/{path}", json=body)
        assert (answer.status_code, [each["path"] for each in answer.json()["errors"]]) == (422, ["reason"]), body
    assert temporal.told == []
    assert (await alice.client.put(f"/v1/runs/{run['id']}/{path}", json=meant | WHY)).status_code == 200
    assert temporal.told[0].control.reason == WHY["reason"]


async def test_a_word_without_any_body_is_told_what_belongs_into_it(alice: Person, run: dict[str, Any]) -> None:
    [problem] = (await alice.client.put(f"/v1/runs/{run['id']}/skip")).json()["errors"]
    assert '{"reason": ' in problem["message"]
    operation = (await alice.client.get("/v1/openapi.json")).json()["paths"]["/v1/runs/{run_id}/skip"]["put"]
    assert operation["requestBody"]["required"] is True


@pytest.mark.parametrize(
    ("method", "path", "command", "phase"),
    [
        ("PUT", "pause", "pause", "paused"),
        ("DELETE", "pause", "resume", "active"),
        ("PUT", "cancellation", "cancel", "cancelled"),
        ("PUT", "retry", "retry", "active"),
        ("PUT", "skip", "skip", "active"),
    ],
)
async def test_a_command_reaches_the_runs_workflow(
    alice: Person, run: dict[str, Any], temporal: FakeTemporal, method: str, path: str, command: str, phase: str
) -> None:
    temporal.phase = phase
    body = WHY if method == "PUT" else None
    answer = await alice.client.request(method, f"/v1/runs/{run['id']}/{path}", headers={"Idempotency-Key": "k1"}, json=body)
    assert (answer.status_code, answer.json()["status"], answer.json()["changed"]) == (200, phase, True)
    [told] = temporal.told
    assert (told.workflow_id, told.control.command) == (run["workflow_id"], command)
    assert [str(run_id) for run_id in told.control.run_ids] == [run["id"]]
    assert (told.control.actor_kind, told.control.actor_id) == ("api_key", alice.api_key_id)
    assert told.update_id.startswith(f"{command}/{run['id']}/")


async def test_a_skip_names_the_step_that_was_seen(alice: Person, run: dict[str, Any], temporal: FakeTemporal) -> None:
    path = f"/v1/runs/{run['id']}/skip"
    await alice.client.put(path, json=WHY)
    await alice.client.put(path, json={"step_id": "pause", "visit": 2, **WHY})
    assert [dict(told.control.places) for told in temporal.told] == [
        {run["id"]: Place(step_id="welcome", visit=1)},
        {run["id"]: Place(step_id="pause", visit=2)},
    ]
    temporal.changed, temporal.why = False, "moved_on"
    late = await alice.client.put(path, json={"step_id": "pause", **WHY})
    assert late.status_code == 409 and "stands at welcome now" in late.json()["detail"]


async def test_a_reviews_decision_is_for_the_place_that_was_looked_at_or_where_the_run_is_recorded(
    alice: Person, run: dict[str, Any], temporal: FakeTemporal
) -> None:
    path, decision = f"/v1/runs/{run['id']}/review", {"decision": "rejected"}
    await alice.client.put(path, json=decision)
    await alice.client.put(path, json={"step_id": "pause", "visit": 2, **decision})
    assert [(told.control.command, dict(told.control.places)) for told in temporal.told] == [
        ("reject", {run["id"]: Place(step_id="welcome", visit=1)}),
        ("reject", {run["id"]: Place(step_id="pause", visit=2)}),
    ]
    temporal.changed, temporal.why, temporal.phase = False, "moved_on", "waiting"
    late = await alice.client.put(path, json={"step_id": "pause", **decision})
    assert late.status_code == 409 and "stands at welcome now" in late.json()["detail"]
    for wrong in ({"step_id": "nowhere"}, {"visit": 2}):
        assert (await alice.client.put(path, json={**wrong, **decision})).status_code == 422


async def test_a_skip_is_for_the_visit_at_which_the_run_stood_when_it_was_first_asked_for(
    alice: Person, run: dict[str, Any], temporal: FakeTemporal, database: Database
) -> None:
    path, key = f"/v1/runs/{run['id']}/skip", {"Idempotency-Key": "s1"}
    place: dict[str, Any] = {"organization_id": alice.organization_id, "run_id": UUID(run["id"]), "occurred_at": utc_now()}
    async with database.organization(alice.organization_id) as session:
        jumped = {"to": "pause", "at_visit": 3}
        session.add(RunEvent(**place, sequence=5, kind="jumped", step_id="welcome", visit=2, details=jumped))
        session.add(RunEvent(**place, sequence=6, kind="waiting", step_id="pause", visit=4, details={}))
    await project(database, alice, run["id"], status="paused", step_id="pause", sequence=5)
    temporal.silent()
    assert (await alice.client.put(path, json=WHY, headers=key)).status_code == 503
    temporal.back()
    await project(database, alice, run["id"], status="paused", step_id="pause", sequence=6)
    for _ in range(2):
        assert (await alice.client.put(path, json=WHY, headers=key)).status_code == 200
    await alice.client.put(path, json=WHY)
    places = [told.control.places[run["id"]] for told in temporal.told]
    assert places == [*[Place(step_id="pause", visit=3)] * (len(places) - 1), Place(step_id="pause", visit=4)]


async def test_a_jump_names_a_step_of_the_runs_version(alice: Person, run: dict[str, Any], temporal: FakeTemporal) -> None:
    path = f"/v1/runs/{run['id']}/jump"
    assert (await alice.client.put(path, json={"step_id": "pause", "reason": "again"})).status_code == 200
    unknown = await alice.client.put(path, json={"step_id": "nowhere", **WHY})
    assert unknown.status_code == 422
    [problem] = unknown.json()["errors"]
    assert (problem["path"], problem["message"]) == ("step_id", "The steps of the run's version are pause, welcome.")
    [told] = temporal.told
    assert (told.control.command, told.control.to_step, told.control.reason) == ("jump", "pause", "again")


async def test_a_step_ahead_is_cancelled_and_restored(alice: Person, run: dict[str, Any], temporal: FakeTemporal) -> None:
    path = f"/v1/runs/{run['id']}/steps/pause/cancellation"
    for method in ("PUT", "DELETE"):
        assert (await alice.client.request(method, path, json=WHY if method == "PUT" else None)).status_code == 200
    assert [(told.control.command, told.control.to_step) for told in temporal.told] == [("cancel_step", "pause"), ("restore_step", "pause")]
    temporal.changed, temporal.why = False, "already"
    assert (await alice.client.put(path, json=WHY)).json()["changed"] is False
    unknown = await alice.client.put(f"/v1/runs/{run['id']}/steps/nowhere/cancellation", json=WHY)
    assert (unknown.status_code, unknown.json()["errors"][0]["code"]) == (422, "unknown_step")


async def test_what_is_taken_back_has_a_reason_too(alice: Person, run: dict[str, Any], temporal: FakeTemporal) -> None:
    path = f"/v1/runs/{run['id']}"
    for taken_back in ("pause", "steps/pause/cancellation"):
        assert (await alice.client.delete(f"{path}/{taken_back}", params={"reason": " settled by phone "})).status_code == 200
        assert (await alice.client.delete(f"{path}/{taken_back}", params={"reason": "x" * 201})).status_code == 422
    words = [(told.control.command, told.control.reason) for told in temporal.told]
    assert words == [("resume", "settled by phone"), ("restore_step", "settled by phone")]


async def test_variables_are_changed_in_the_row_and_the_workflow_hears_their_names(
    alice: Person, run: dict[str, Any], database: Database
) -> None:
    path = f"/v1/runs/{run['id']}/variables"
    await alice.client.patch(path, json={"variables": {"order": "A-1042", "size": 3}, "reason": "typed wrongly"})
    changed = await alice.client.patch(path, json={"variables": {"order": None, "colour": {"name": "red"}}})
    same = await alice.client.patch(path, json={"variables": {"colour": {"name": "red"}}})
    assert changed.json()["variables"] == same.json()["variables"] == {"size": 3, "colour": {"name": "red"}}
    query = "SELECT body FROM run_messages WHERE run_id = :id AND kind = 'variables' ORDER BY id"
    async with database.organization(alice.organization_id) as session:
        told = list((await session.execute(text(query), {"id": UUID(run["id"])})).scalars())
    assert [(body["names"], body["reason"]) for body in told] == [(["order", "size"], "typed wrongly"), (["colour", "order"], None)]
    assert "A-1042" not in str(told) and told[0]["actor_id"] == str(alice.api_key_id)
    assert (await actions(alice, database, run["id"])).count("run.variables_changed") == 2


async def test_variables_stay_within_bounds_and_a_finished_run_keeps_its_own(
    alice: Person, run: dict[str, Any], database: Database
) -> None:
    path = f"/v1/runs/{run['id']}/variables"
    half = "x" * 17_000
    assert (await alice.client.patch(path, json={"variables": {"first": half}})).status_code == 200
    for body in ({"second": half}, {"third": half * 2}, {"Not a name": 1}, {}):
        assert (await alice.client.patch(path, json={"variables": body})).status_code == 422
    await project(database, alice, run["id"], status="completed", finished_at=utc_now())
    assert (await alice.client.patch(path, json={"variables": {"first": 1}})).status_code == 409


async def test_variables_that_came_in_beyond_the_bounds_can_be_corrected_but_not_grow(
    alice: Person, run: dict[str, Any], database: Database
) -> None:
    path = f"/v1/runs/{run['id']}/variables"
    many = {f"v{number}": "x" for number in range(150)}
    for beyond in ({"large": "x" * 40_000, "order": "old"}, many | {"order": "old"}):
        await project(database, alice, run["id"], variables=json.dumps(beyond))
        assert (await alice.client.patch(path, json={"variables": {"order": "new"}})).json()["variables"] == beyond | {"order": "new"}
        refused = await alice.client.patch(path, json={"variables": {"order": "longer", "more": "x"}})
        assert (refused.status_code, refused.json()["errors"][0]["code"]) == (422, "too_large")


async def test_a_command_said_again_is_the_same_update_until_the_run_moves(
    alice: Person, run: dict[str, Any], temporal: FakeTemporal, database: Database
) -> None:
    for _ in range(2):
        await alice.client.put(f"/v1/runs/{run['id']}/pause")
    await project(database, alice, run["id"], sequence=4)
    await alice.client.put(f"/v1/runs/{run['id']}/pause")
    ids = [told.update_id for told in temporal.told]
    assert ids[0] == ids[1] != ids[2]


async def another_key(person: Person, *scopes: str) -> dict[str, str]:
    """Headers of somebody else in the same organization."""
    made = await person.client.post("/v1/api-keys", json={"name": "another", "scopes": ["runs.read", *scopes]})
    return {"Authorization": f"Bearer {made.json()['secret']}"}


@pytest.mark.parametrize("key", [{}, {"Idempotency-Key": "daily"}])
async def test_what_somebody_else_says_is_another_word(
    alice: Person, app: FastAPI, run: dict[str, Any], temporal: FakeTemporal, key: dict[str, str]
) -> None:
    """Also at the same moment, and by the same text of a key: answered with what became of the first, it would be lost."""
    path, who = f"/v1/runs/{run['id']}/pause", await another_key(alice, "runs.control")
    body = {"reason": "must stop this now"}
    async with anonymous(app) as other:
        said = [await other.put(path, json=body, headers=who | key)]
    temporal.silent(hears=True)
    said.append(await alice.client.put(path, json=body, headers=key))
    temporal.back()
    said.append(await alice.client.put(path, json=body, headers=key))
    assert [answer.status_code for answer in said] == [200, 503, 200]
    ids, requests = [told.update_id for told in temporal.told], [told.control.request_id for told in temporal.told]
    assert ids[0] != ids[1] == ids[2] and (not key or requests[0] != requests[1] == requests[2])


async def test_another_reason_is_another_word(alice: Person, run: dict[str, Any], temporal: FakeTemporal) -> None:
    for reason in ("customer rang", "legal hold"):
        await alice.client.put(f"/v1/runs/{run['id']}/pause", json={"reason": reason})
    assert [told.control.reason for told in temporal.told] == ["customer rang", "legal hold"]
    assert len({told.update_id for told in temporal.told}) == 2


async def test_a_key_for_another_word_is_refused(alice: Person, run: dict[str, Any], temporal: FakeTemporal) -> None:
    path, key = f"/v1/runs/{run['id']}", {"Idempotency-Key": "daily"}
    for _ in range(2):
        assert (await alice.client.put(f"{path}/jump", json={"step_id": "pause", **WHY}, headers=key)).status_code == 200
    for answer in (
        await alice.client.put(f"{path}/jump", json={"step_id": "welcome", **WHY}, headers=key),
        await alice.client.put(f"{path}/jump", json={"step_id": "pause", "reason": "x"}, headers=key),
        await alice.client.put(f"{path}/pause", headers=key),
        await alice.client.post("/v1/topics", json={"key": "news", "name": "News"}, headers=key),
    ):
        assert (answer.status_code, answer.json()["code"]) == (422, "idempotency_key_reused")
    assert [told.control.to_step for told in temporal.told] == ["pause"]


async def test_a_word_that_is_refused_uses_up_no_key_and_one_that_is_not_answered_keeps_its_own(
    alice: Person, run: dict[str, Any], temporal: FakeTemporal
) -> None:
    path, key = f"/v1/runs/{run['id']}", {"Idempotency-Key": "daily"}
    temporal.phase, temporal.changed = "waiting", False
    for _ in range(2):
        assert (await alice.client.put(f"{path}/retry", json=WHY, headers=key)).status_code == 409
    assert len({told.update_id for told in temporal.told}) == 2  # or Temporal would give the first refusal again
    temporal.silent()
    assert (await alice.client.put(f"{path}/jump", json={"step_id": "pause", **WHY}, headers=key)).status_code == 503
    temporal.back()
    temporal.changed = True
    assert (await alice.client.put(f"{path}/jump", json={"step_id": "welcome", **WHY}, headers=key)).status_code == 422
    assert (await alice.client.put(f"{path}/jump", json={"step_id": "pause", **WHY}, headers=key)).status_code == 200


async def test_a_skip_that_is_repeated_under_its_key_is_the_same_word_wherever_the_run_has_come(
    alice: Person, run: dict[str, Any], temporal: FakeTemporal, database: Database
) -> None:
    """Also once it was refused there, for it may have been obeyed when nobody answered."""
    path, key = f"/v1/runs/{run['id']}/skip", {"Idempotency-Key": "once"}
    temporal.silent(hears=True)
    assert (await alice.client.put(path, json=WHY, headers=key)).status_code == 503
    temporal.back()
    temporal.changed, temporal.why = False, "moved_on"
    await project(database, alice, run["id"], step_id="pause", sequence=3)
    for _ in range(2):
        assert (await alice.client.put(path, json=WHY, headers=key)).status_code == 409
        async with database.organization(alice.organization_id) as session:
            await session.execute(text("UPDATE idempotency_keys SET created_at = created_at - interval '6 minutes'"))
    assert (await alice.client.put(path, json=WHY, headers=key)).status_code == 409
    [place] = {told.control.places[run["id"]] for told in temporal.told}
    assert (len(temporal.told), place, len({told.update_id for told in temporal.told})) == (4, Place(step_id="welcome", visit=1), 1)


@pytest.mark.parametrize("answered", ["at once", "when repeated"])
async def test_a_word_that_was_answered_under_its_key_is_answered_so_again_and_nobody_is_asked(
    alice: Person, run: dict[str, Any], temporal: FakeTemporal, database: Database, answered: str
) -> None:
    """Or another workflow that carries the run by now would obey it once more, and lift the pause that somebody has set since."""
    path, key = f"/v1/runs/{run['id']}/pause", {"Idempotency-Key": "once"}
    temporal.phase = "waiting"
    if answered == "when repeated":
        temporal.silent(hears=True)
        assert (await alice.client.delete(path, headers=key)).status_code == 503
        temporal.back()
    first = await alice.client.delete(path, headers=key)
    asked = len(temporal.told)
    await paused(database, alice, run["id"], 1)
    temporal.phase, temporal.changed = "paused", False
    for status in ("paused", "completed"):
        await project(database, alice, run["id"], status=status)
        again = await alice.client.delete(path, headers=key)
        assert (again.status_code, again.json()["run"]["status"]) == (200, status)
        assert [again.json()[name] for name in ("status", "changed")] == [first.json()[name] for name in ("status", "changed")]
    assert (first.json()["status"], first.json()["changed"], len(temporal.told)) == ("waiting", True, asked)


async def test_a_repeated_resume_lifts_no_pause_that_was_set_after_it_was_first_asked_for(
    alice: Person, run: dict[str, Any], temporal: FakeTemporal, database: Database
) -> None:
    path, key = f"/v1/runs/{run['id']}/pause", {"Idempotency-Key": "once"}
    temporal.phase = "waiting"
    await paused(database, alice, run["id"], 1)
    temporal.silent(hears=True)
    assert (await alice.client.delete(path, headers=key)).status_code == 503
    temporal.back()
    await paused(database, alice, run["id"], 2, {"with": "journey"})  # which a resume of one run does not lift anyway
    temporal.silent(hears=True)
    assert (await alice.client.delete(path, headers=key)).status_code == 503
    temporal.back()
    await paused(database, alice, run["id"], 3)
    for _ in range(2):
        late = await alice.client.delete(path, headers=key)
        assert late.status_code == 409 and "paused once more" in late.json()["detail"]
    assert len(temporal.told) == 2
    assert (await alice.client.delete(path, headers={"Idempotency-Key": "another"})).status_code == 200


async def paused(database: Database, person: Person, run_id: str, sequence: int, details: dict[str, Any] | None = None) -> None:
    """As `record_audit` would leave it."""
    async with database.organization(person.organization_id) as session:
        where: dict[str, Any] = {"organization_id": person.organization_id, "run_id": UUID(run_id), "occurred_at": utc_now()}
        session.add(RunEvent(**where, sequence=sequence, kind="paused", step_id="welcome", visit=1, details=details or {}))
    await project(database, person, run_id, status="paused", sequence=sequence)


async def test_a_skip_that_named_the_wrong_step_does_not_answer_for_the_right_one(
    alice: Person, run: dict[str, Any], temporal: FakeTemporal
) -> None:
    path = f"/v1/runs/{run['id']}/skip"
    for body in ({"step_id": "pause", "visit": 1}, {"step_id": "welcome", "visit": 2}, {"step_id": "welcome", "visit": 1}, {}, {}):
        await alice.client.put(path, json=body | WHY)
    ids = [told.update_id for told in temporal.told]
    assert len(set(ids)) == 3 and ids[2] == ids[3] == ids[4]


@pytest.mark.parametrize(
    ("method", "path", "phase", "status"),
    [
        ("PUT", "pause", "paused", 200),
        ("PUT", "pause", "completed", 409),
        ("DELETE", "pause", "waiting", 200),
        ("DELETE", "pause", "paused", 409),  # with its campaign
        ("PUT", "cancellation", "cancelled", 200),
        ("PUT", "cancellation", "active", 200),  # asked for before; something is in flight
        ("PUT", "cancellation", "completed", 409),
        ("PUT", "retry", "waiting", 409),
        ("PUT", "skip", "completed", 409),
        ("PUT", "steps/pause/cancellation", "waiting", 200),
    ],
)
async def test_a_command_that_changes_nothing_is_fine_when_it_is_so_already(
    alice: Person, run: dict[str, Any], temporal: FakeTemporal, method: str, path: str, phase: str, status: int
) -> None:
    temporal.phase, temporal.changed = phase, False
    body = WHY if method == "PUT" else None
    assert (await alice.client.request(method, f"/v1/runs/{run['id']}/{path}", json=body)).status_code == status


async def test_a_finished_run_obeys_nobody(alice: Person, run: dict[str, Any], temporal: FakeTemporal, database: Database) -> None:
    await project(database, alice, run["id"], status="cancelled", sequence=5)
    assert (await alice.client.put(f"/v1/runs/{run['id']}/pause")).status_code == 409
    assert (await alice.client.put(f"/v1/runs/{run['id']}/cancellation", json=WHY)).json()["changed"] is False
    await project(database, alice, run["id"], status="completed")
    assert (await alice.client.put(f"/v1/runs/{run['id']}/cancellation", json=WHY)).status_code == 409
    assert temporal.told == []


async def test_an_answer_that_does_not_come_is_503(alice: Person, run: dict[str, Any], temporal: FakeTemporal) -> None:
    temporal.silent()
    silent = await alice.client.put(f"/v1/runs/{run['id']}/pause")
    temporal.away()
    away = await alice.client.put(f"/v1/runs/{run['id']}/pause")
    for answer in (silent, away):
        assert (answer.status_code, "Retry-After" in answer.headers) == (503, True)
        assert "same Idempotency-Key" in answer.json()["detail"]


@pytest.mark.parametrize(("status", "answer"), [("completed", 409), ("waiting", 503)])
async def test_a_run_that_leaves_its_workflow_meanwhile(
    alice: Person,
    run: dict[str, Any],
    temporal: FakeTemporal,
    database: Database,
    monkeypatch: pytest.MonkeyPatch,
    status: str,
    answer: int,
) -> None:
    await project(database, alice, run["id"], sequence=3)
    temporal.refusing("NotFound")
    asked = words.control_runs

    async def finish_meanwhile(*arguments: Any) -> Any:
        await project(database, alice, run["id"], status=status)
        return await asked(*arguments)

    monkeypatch.setattr(words, "control_runs", finish_meanwhile)
    assert (await alice.client.put(f"/v1/runs/{run['id']}/pause")).status_code == answer


async def test_who_hears_of_no_workflow_is_told_in_words_what_may_be_so(
    alice: Person, run: dict[str, Any], temporal: FakeTemporal, database: Database
) -> None:
    """As between the moment at which somebody terminates the workflow and the reconciler's next round."""
    await project(database, alice, run["id"], sequence=3)
    temporal.refusing("NotFound")
    answer = await alice.client.put(f"/v1/runs/{run['id']}/steps/pause/cancellation", json=WHY)
    detail = answer.json()["detail"]
    assert (answer.status_code, "cannot cancel a step just now" in detail, "a minute" in detail) == (503, True, True)


async def test_a_command_starts_the_workflow_that_is_missing(
    alice: Person, journey: str, around: Surroundings, temporal: FakeTemporal
) -> None:
    temporal.away()
    await start(alice, journey, around)
    temporal.back()
    [run] = (await alice.client.get("/v1/runs")).json()["items"]
    assert (await alice.client.put(f"/v1/runs/{run['id']}/pause")).status_code == 200
    assert list(temporal.started) == [run["workflow_id"]]


async def test_a_timeline_reads_as_sentences(alice: Person, run: dict[str, Any], around: Surroundings, database: Database) -> None:
    mine, run_id = alice.organization_id, UUID(run["id"])
    place: dict[str, Any] = {"organization_id": mine, "run_id": run_id, "step_id": "welcome", "visit": 1}
    inputs = {
        "channel": "email",
        "purpose": "marketing",
        "topic_id": str(around.topic_id),
        "consent": {"status": "withdrawn", "occurred_at": "2026-11-03T10:14:00+00:00"},
    }
    facts: dict[str, Any] = {"contact_id": around.contact_id, "rule_version": "1", "decided_at": NOON, **place}
    async with database.organization(mine) as session:
        by_alice = {"actor_kind": "api_key", "actor_id": str(alice.api_key_id)}
        session.add_all(
            [
                RunEvent(**place, sequence=1, kind="entered", occurred_at=NOON),
                Decision(**facts, check="consent", round=0, outcome="refuse", reason="consent_withdrawn", inputs=inputs),
                RunEvent(**place, sequence=2, kind="not_sent", occurred_at=NOON, details={"reason": "consent_withdrawn"}),
                RunEvent(**place | {"step_id": "pause"}, sequence=3, kind="cancelled", occurred_at=NOON, details=by_alice),
            ]
        )
    timeline = (await alice.client.get(f"/v1/runs/{run['id']}/timeline")).json()
    assert timeline["run"]["id"] == run["id"]
    assert [entry["sentence"] for entry in timeline["entries"]] == [
        'Entered the journey at "welcome"',
        "Not sent: the contact withdrew consent for Product news on 3 Nov 2026 10:14 UTC",
        "Cancelled by the API key Alice",
    ]
    assert timeline["entries"][1]["decision"]["inputs"] == inputs


async def test_deliveries_are_found_by_what_they_are(
    alice: Person, charlie: Person, run: dict[str, Any], around: Surroundings, journey: str, database: Database
) -> None:
    row = Delivery(
        organization_id=alice.organization_id,
        run_id=UUID(run["id"]),
        journey_id=UUID(journey),
        version_id=UUID(run["version_id"]),
        contact_id=around.contact_id,
        step_id="welcome",
        visit=1,
        channel="email",
        purpose="marketing",
        state="accepted",
        outcome="accepted",
    )
    async with database.organization(alice.organization_id) as session:
        session.add(row)
    for query, count in [
        (f"run_id={run['id']}", 1),
        (f"journey_id={journey}&state=accepted&outcome=accepted", 1),
        (f"contact_id={new_id()}", 0),
        ("state=failed", 0),
        (f"campaign_id={new_id()}", 0),
    ]:
        assert len((await alice.client.get(f"/v1/deliveries?{query}")).json()["items"]) == count, query
    assert (await alice.client.get(f"/v1/deliveries/{row.id}")).json()["state"] == "accepted"
    assert (await charlie.client.get(f"/v1/deliveries/{row.id}")).status_code == 404
    assert (await charlie.client.get(f"/v1/deliveries?run_id={run['id']}")).json()["items"] == []


async def test_another_organization_sees_404(charlie: Person, run: dict[str, Any], temporal: FakeTemporal) -> None:
    path, client = f"/v1/runs/{run['id']}", charlie.client
    answers = [
        await client.get(path),
        await client.get(f"{path}/timeline"),
        await client.put(f"{path}/pause"),
        await client.delete(f"{path}/pause"),
        await client.put(f"{path}/cancellation", json=WHY),
        await client.put(f"{path}/retry", json=WHY),
        await client.put(f"{path}/skip", json=WHY),
    ]
    assert [answer.status_code for answer in answers] == [404] * len(answers)
    assert (await client.get("/v1/runs")).json()["items"] == []
    assert temporal.told == []


async def test_a_viewer_sees_runs_and_leaves_them_alone(bob: Person, run: dict[str, Any]) -> None:
    assert (await bob.client.get(f"/v1/runs/{run['id']}/timeline")).status_code == 200
    assert (await bob.client.put(f"/v1/runs/{run['id']}/pause")).status_code == 403


@pytest.mark.parametrize(("row_after", "begun_after"), [(1, 2), (3, 4), (3, 5)])
async def test_a_run_that_a_plan_moves_meanwhile_is_controlled_where_it_is_then(
    alice: Person,
    run: dict[str, Any],
    temporal: FakeTemporal,
    database: Database,
    monkeypatch: pytest.MonkeyPatch,
    row_after: int,
    begun_after: int,
) -> None:
    """Its old workflow does not know it any more, the row says later which does, and that one begins even later."""
    temporal.started["elsewhere"] = temporal.started.pop(run["workflow_id"])
    await project(database, alice, run["id"], status="waiting", sequence=3)
    asked: list[str] = []

    async def moved_meanwhile(*given: Any) -> Any:
        asked.append(given[1])
        if len(asked) == row_after:
            await project(database, alice, run["id"], workflow_id="elsewhere")
        if given[1] == run["workflow_id"]:
            raise words.RunLeft("NotFound")
        if len(asked) < begun_after:
            raise words.NoSuchWorkflow("elsewhere")
        return await ask(*given)

    ask = words.control_runs
    monkeypatch.setattr(words, "control_runs", moved_meanwhile)
    answer = await alice.client.put(f"/v1/runs/{run['id']}/pause")
    assert answer.status_code == 200, answer.text
    assert asked == [run["workflow_id"]] * row_after + ["elsewhere"] * (begun_after - row_after)
    assert [told.workflow_id for told in temporal.told] == ["elsewhere"]
