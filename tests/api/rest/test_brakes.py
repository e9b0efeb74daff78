from dataclasses import replace
from typing import Any
from uuid import UUID, uuid4

import pytest
from httpx2 import AsyncClient
from sqlalchemy import text
from temporalio.testing import ActivityEnvironment

from activities.contracts.upkeep import Upkeep
from api.commands import brakings
from api.commands.upkeep import UpkeepActivities
from api.dependencies import Services
from models.store import access
from models.store.session import Database
from models.tables.failures import Braking
from tests.api.conftest import Person
from tests.api.rest.acme import actions
from tests.api.rest.fake_temporal import FakeTemporal

USUAL = {"enabled": True, "share": 0.35, "at_least": 20}
MINE = {"enabled": True, "share": 0.2, "at_least": 50}


async def change(person: Person, journey: str, **settings: Any) -> Any:
    return await person.client.patch(f"/v1/journeys/{journey}/settings", json=settings)


async def brake(database: Database, person: Person, kind: str, subject_id: str, journey: str, **values: Any) -> UUID:
    """As the ledger would leave the rows; the id of the braking."""
    facts = {"attempted": 25, "failed": 25, "share": 0.35, "failure": "policy_refused"}
    row = Braking(
        organization_id=person.organization_id,
        subject_kind=kind,
        subject_id=UUID(subject_id),
        journey_id=UUID(journey),
        reason="too_many_failures",
        facts=facts,
        **values,
    )
    async with database.organization(person.organization_id) as session:
        session.add(row)
        await session.execute(text(f"UPDATE {kind}s SET paused_at = now() WHERE id = :id"), {"id": UUID(subject_id)})
        await session.flush()
        return row.id


async def test_a_journey_brakes_as_usual_until_somebody_says_otherwise(
    alice: Person, bob: Person, journey: str, database: Database
) -> None:
    found = (await alice.client.get(f"/v1/journeys/{journey}/settings")).json()
    assert found == {"journey_id": journey, "owner_id": None, "brake": USUAL}
    changed = await change(alice, journey, owner_id=str(alice.user_id), brake={"share": 0.2, "at_least": 50})
    assert (changed.status_code, changed.json()) == (200, {"journey_id": journey, "owner_id": str(alice.user_id), "brake": MINE})
    assert (await change(alice, journey, brake={"share": 0.2, "at_least": 50})).status_code == 200  # nothing new
    assert (await change(alice, journey, brake=None)).json()["brake"] == USUAL
    shown = (await alice.client.get(f"/v1/journeys/{journey}")).json()
    assert (shown["owner_id"], shown["paused_because"]) == (str(alice.user_id), None)
    assert (await actions(alice, database, journey)).count("journey.settings_changed") == 2


@pytest.mark.parametrize(
    ("wanted", "path"),
    [
        ({"brake": {"share": 0}}, "brake.share"),
        ({"brake": {"at_least": 0}}, "brake.at_least"),
        ({"brake": {"speed": 1}}, "brake.speed"),
        ({"owner_id": str(uuid4())}, "owner_id"),
        ({"colour": "red"}, "colour"),
    ],
)
async def test_settings_that_make_no_sense_are_refused_with_their_path(
    alice: Person, journey: str, wanted: dict[str, Any], path: str
) -> None:
    answer = await change(alice, journey, **wanted)
    assert (answer.status_code, answer.json()["errors"][0]["path"]) == (422, path)
    assert (await alice.client.get(f"/v1/journeys/{journey}/settings")).json()["brake"] == USUAL


async def test_settings_need_a_login_a_right_and_a_journey_of_ones_own(
    alice: Person, charlie: Person, journey: str, client: AsyncClient
) -> None:
    path = f"/v1/journeys/{journey}/settings"
    assert [(await client.get(path)).status_code, (await client.patch(path, json={})).status_code] == [401, 401]
    assert [(await charlie.client.get(path)).status_code, (await change(charlie, journey)).status_code] == [404, 404]
    assert (await change(alice, journey, owner_id=str(charlie.user_id))).status_code == 422


async def test_a_journey_and_a_campaign_say_why_they_were_paused(alice: Person, journey: str, database: Database) -> None:
    body = {"name": "November", "journey_id": journey, "on_error": "pause"}
    campaign = (await alice.client.post("/v1/campaigns", json=body)).json()
    assert (campaign["on_error"], campaign["paused_because"]) == ("pause", None)
    await brake(database, alice, "campaign", campaign["id"], journey, notice="told")
    await brake(database, alice, "journey", journey, journey)
    found = [(await alice.client.get(f"/v1/{path}")).json() for path in (f"campaigns/{campaign['id']}", f"journeys/{journey}")]
    found += [(await alice.client.get(f"/v1/{path}")).json()["items"][0] for path in ("campaigns", "journeys")]
    assert [each["paused_because"]["notice"] for each in found] == ["told", "waiting", "told", "waiting"]
    because = found[0]["paused_because"]
    assert (because["reason"], because["facts"]["failed"]) == ("too_many_failures", 25)
    assert "25 of the latest 25; the limit is 35 %" in because["words"]


async def test_a_campaign_does_on_an_error_what_there_is_to_do(alice: Person, journey: str) -> None:
    answer = await alice.client.post("/v1/campaigns", json={"name": "x", "journey_id": journey, "on_error": "panic"})
    assert (answer.status_code, answer.json()["errors"][0]["path"]) == (422, "on_error")
    usual = await alice.client.post("/v1/campaigns", json={"name": "x", "journey_id": journey})
    assert usual.json()["on_error"] == "park"


async def test_upkeep_starts_the_workflow_of_a_braking_that_has_none(
    alice: Person, journey: str, database: Database, services: Services, temporal: FakeTemporal
) -> None:
    braking_id = await brake(database, alice, "journey", journey, journey)
    async with database.outside() as session:
        assert alice.organization_id in await access.organizations_with_unstarted(session, brakings.OVERDUE)
    assert await brakings.start_missing_workflows(services, alice.organization_id, lambda: None) == 0  # it has just been made
    async with database.organization(alice.organization_id) as session:
        await session.execute(text("UPDATE brakings SET created_at = created_at - interval '1 minute'"))
    await ActivityEnvironment().run(UpkeepActivities(services).start_missing_workflows, Upkeep())
    started = temporal.started[f"{alice.organization_id}/braking/{braking_id}"]
    assert (started.workflow, started.argument.braking_id) == ("BrakingWorkflow", braking_id)
    temporal.started[f"{alice.organization_id}/braking/{braking_id}"] = replace(started, task_queue="before it was terminated")
    temporal.terminated = {f"{alice.organization_id}/braking/{braking_id}"}
    assert await brakings.start_missing_workflows(services, alice.organization_id, lambda: None) == 1
    assert temporal.started[f"{alice.organization_id}/braking/{braking_id}"] == started
    async with database.organization(alice.organization_id) as session:
        await session.execute(text("UPDATE brakings SET finished_at = now()"))
    assert await brakings.start_missing_workflows(services, alice.organization_id, lambda: None) == 0
