import asyncio
from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest
import pytest_asyncio
from sqlalchemy import text

from api.commands import campaigns as commands
from api.dependencies import Services
from models.domain.schedule import Timing
from models.store.session import Database
from models.tables.base import new_id, utc_now
from models.tables.contacts import Contact
from models.tables.journeys import Run
from models.tables.messaging import Decision, Delivery
from tests.api.conftest import Person
from tests.api.rest import acme
from tests.api.rest.acme import Surroundings, actions
from tests.api.rest.fake_temporal import FakeTemporal


async def launch(person: Person, journey: str, key: str | None = None, **fields: Any) -> Any:
    headers = {} if key is None else {"Idempotency-Key": key}
    return await person.client.post("/v1/campaigns", json={"name": "November", "journey_id": journey, **fields}, headers=headers)


@pytest_asyncio.fixture(loop_scope="session")
async def campaign(alice: Person, journey: str) -> dict[str, Any]:
    answer = await launch(alice, journey)
    assert answer.status_code == 202, answer.text
    found: dict[str, Any] = answer.json()
    return found


async def listed(person: Person) -> list[dict[str, Any]]:
    items: list[dict[str, Any]] = (await person.client.get("/v1/campaigns")).json()["items"]
    return items


async def project(database: Database, person: Person, campaign_id: str, **values: Any) -> None:
    """As the activities would leave the row."""
    assignments = ", ".join(f"{name} = :{name}" for name in values)
    async with database.organization(person.organization_id) as session:
        await session.execute(text(f"UPDATE campaigns SET {assignments} WHERE id = :id"), {"id": UUID(campaign_id), **values})


async def test_a_launch_keeps_the_segments_rule_as_it_is(
    alice: Person, journey: str, around: Surroundings, temporal: FakeTemporal, database: Database
) -> None:
    rule = {"field": "email", "is": "exists"}
    segment = await acme.add_segment(database, alice, rule)
    answer = await launch(alice, journey, segment_id=str(segment), version=1, page_size=50)
    campaign = answer.json()
    assert (answer.status_code, campaign["status"], campaign["segment_rule"], campaign["page_size"]) == (202, "starting", rule, 50)
    [(name, started)] = temporal.started.items()
    assert name == f"{alice.organization_id}/campaign/{campaign['id']}"
    assert (started.workflow, str(started.argument.campaign_id)) == ("CampaignWorkflow", campaign["id"])
    assert started.attributes["CampaignId"] == campaign["id"]
    assert await actions(alice, database, campaign["id"]) == ["campaign.launched"]


async def test_nobody_in_the_audience_is_a_conflict(alice: Person, journey: str, database: Database) -> None:
    segment = await acme.add_segment(database, alice, {"tag": "nobody-has-this"})
    assert (await launch(alice, journey, segment_id=str(segment))).status_code == 409
    assert await listed(alice) == []


async def test_a_strangers_segment_or_journey_cannot_be_named(alice: Person, charlie: Person, journey: str, database: Database) -> None:
    segment = await acme.add_segment(database, charlie, {"all": []})
    refused = await launch(alice, journey, segment_id=str(segment))
    assert (refused.status_code, refused.json()["errors"][0]["path"]) == (422, "segment_id")
    for answer in (await launch(charlie, journey), await launch(alice, str(uuid4()))):
        assert (answer.status_code, answer.json()["errors"][0]["path"]) == (422, "journey_id")


@pytest.mark.parametrize("fields", [{"page_size": 0}, {"page_size": 301}, {"version": 0}, {"name": ""}, {"start": "now"}])
async def test_what_makes_no_sense_is_refused(alice: Person, journey: str, fields: dict[str, Any]) -> None:
    assert (await launch(alice, journey, **fields)).status_code == 422


async def test_a_paused_journey_takes_no_campaign(alice: Person, journey: str) -> None:
    await alice.client.put(f"/v1/journeys/{journey}/pause")
    assert (await launch(alice, journey)).status_code == 409


async def test_a_pause_does_not_wait_for_a_launch_that_counts_its_audience(alice: Person, journey: str, database: Database) -> None:
    async with database.organization(alice.organization_id) as session:
        await session.execute(text("LOCK TABLE contacts IN ACCESS EXCLUSIVE MODE"))  # as a rule that takes long
        launching = asyncio.create_task(launch(alice, journey))
        waits = text("SELECT count(*) FROM pg_locks WHERE relation = CAST('contacts' AS regclass) AND NOT granted")
        async with asyncio.timeout(60):
            while not await session.scalar(waits):
                await asyncio.sleep(0.05)
            assert (await alice.client.put(f"/v1/journeys/{journey}/pause")).status_code == 202
    refused = await launching
    assert refused.status_code == 409 and "paused" in refused.json()["detail"]


async def test_an_audience_that_takes_too_long_to_find_is_given_up_with_a_way_out(
    alice: Person, journey: str, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(commands, "LOOK", timedelta(milliseconds=200))
        async with database.organization(alice.organization_id) as session:
            await session.execute(text("LOCK TABLE contacts IN ACCESS EXCLUSIVE MODE"))
            answer = await launch(alice, journey)
    assert (answer.status_code, answer.json()["code"]) == (503, "unavailable")
    assert "narrower" in answer.json()["detail"]
    assert (await launch(alice, journey)).status_code == 202


async def test_the_same_launch_twice_at_once_is_one_campaign(alice: Person, journey: str) -> None:
    answers = await asyncio.gather(*(launch(alice, journey) for _ in range(4)))
    assert len({answer.json()["id"] for answer in answers}) == len(await listed(alice)) == 1


@pytest.mark.parametrize("key", ["once", None])
@pytest.mark.parametrize("hears", [True, False])
async def test_a_launch_repeated_after_503_is_one_campaign(
    alice: Person, journey: str, temporal: FakeTemporal, key: str | None, hears: bool
) -> None:
    temporal.away(hears=hears)
    assert (await launch(alice, journey, key)).status_code == 503
    temporal.back()
    again = await launch(alice, journey, key)
    assert again.status_code == 202
    assert [campaign["id"] for campaign in await listed(alice)] == [again.json()["id"]]
    assert len(temporal.started) == 1


async def test_a_launch_repeated_with_its_key_finds_a_campaign_that_is_running_already(
    alice: Person, journey: str, temporal: FakeTemporal, database: Database
) -> None:
    temporal.away(hears=True)
    await launch(alice, journey, "once")
    temporal.back()
    [campaign] = await listed(alice)
    await project(database, alice, campaign["id"], status="running")
    assert (await launch(alice, journey, "once")).json()["id"] == campaign["id"]


@pytest.mark.parametrize("status", ["starting", "running", "paused", "completed"])
async def test_a_launch_repeated_without_a_key_mails_nobody_twice_however_far_the_first_has_come(
    alice: Person, journey: str, campaign: dict[str, Any], database: Database, temporal: FakeTemporal, status: str
) -> None:
    await project(database, alice, campaign["id"], status=status, created_at=utc_now() - timedelta(minutes=9))
    again = await launch(alice, journey)
    assert (again.status_code, again.json()["id"]) == (202, campaign["id"])
    assert len(temporal.started) == len(await listed(alice)) == 1
    assert await actions(alice, database, campaign["id"]) == ["campaign.launched"]


async def test_a_launch_without_a_key_finds_the_one_that_was_made_with_one(alice: Person, journey: str) -> None:
    made = (await launch(alice, journey, "once")).json()
    assert (await launch(alice, journey)).json()["id"] == made["id"]


async def test_a_launch_repeated_after_the_end_starts_nothing(
    alice: Person, journey: str, temporal: FakeTemporal, database: Database
) -> None:
    campaign = (await launch(alice, journey, "once")).json()
    await project(database, alice, campaign["id"], status="completed")
    temporal.started.clear()  # as after Temporal's retention
    async with database.organization(alice.organization_id) as session:
        await session.execute(text("DELETE FROM idempotency_keys"))  # as after a day
    assert (await launch(alice, journey, "once")).json()["id"] == campaign["id"]
    assert temporal.started == {}


async def test_the_same_campaign_may_be_launched_again_later(
    alice: Person, journey: str, campaign: dict[str, Any], database: Database
) -> None:
    await project(database, alice, campaign["id"], status="completed", created_at=utc_now() - timedelta(minutes=11))
    assert (await launch(alice, journey)).json()["id"] != campaign["id"]


@pytest.mark.parametrize("status", ["starting", "completed"])
async def test_another_key_launches_another_campaign(
    alice: Person, journey: str, campaign: dict[str, Any], database: Database, status: str
) -> None:
    await project(database, alice, campaign["id"], status=status)
    keyed = [(await launch(alice, journey, key)).json()["id"] for key in ("one", "two")]
    assert len({campaign["id"], *keyed}) == 3


@pytest.mark.parametrize("change", [{"name": "December"}, {"segment_id": "another"}])
async def test_a_launch_without_a_key_that_differs_is_another_campaign(
    alice: Person, journey: str, campaign: dict[str, Any], database: Database, change: dict[str, Any]
) -> None:
    if "segment_id" in change:
        change = {"segment_id": str(await acme.add_segment(database, alice, {"field": "email", "is": "exists"}))}
    assert (await launch(alice, journey, **change)).json()["id"] != campaign["id"]


async def test_a_cancelled_campaign_may_be_launched_again_at_once(alice: Person, journey: str, campaign: dict[str, Any]) -> None:
    await alice.client.put(f"/v1/campaigns/{campaign['id']}/cancellation")
    assert (await launch(alice, journey)).json()["id"] != campaign["id"]


async def test_a_campaign_whose_start_was_lost_is_started_later(
    alice: Person, journey: str, temporal: FakeTemporal, services: Services
) -> None:
    temporal.away()
    await launch(alice, journey)
    temporal.back()
    assert await commands.start_missing_workflows(services, alice.organization_id, lambda: None) == 1
    assert len(temporal.started) == 1


async def populate(database: Database, person: Person, campaign: dict[str, Any]) -> None:
    """Four contacts: two mailed, one refused before the claim, one refused by the last check."""
    mine: dict[str, Any] = {"organization_id": person.organization_id}
    flight: dict[str, Any] = {name: UUID(campaign[name]) for name in ("journey_id", "version_id")} | {"campaign_id": UUID(campaign["id"])}
    contacts = [Contact(**mine, external_id=new_id().hex) for _ in range(4)]
    statuses = ["waiting", "completed", "exited", "exited"]
    runs = [
        Run(**mine, **flight, contact_id=contact.id, workflow_id="w", status=status)
        for contact, status in zip(contacts, statuses, strict=True)
    ]
    places: list[dict[str, Any]] = [
        {**mine, "run_id": run.id, "contact_id": run.contact_id, "step_id": "welcome", "visit": 1} for run in runs
    ]
    decided: dict[str, Any] = {"rule_version": "1", "decided_at": utc_now(), "check": "consent"}
    sent: dict[str, Any] = {**flight, "channel": "email", "purpose": "marketing"}
    async with database.organization(person.organization_id) as session:
        session.add_all(contacts)
        await session.flush()
        session.add_all(runs)
        session.add_all(
            [
                *(Decision(**place, **decided, round=0, outcome="send") for place in places[:2]),
                Decision(**places[2], **decided, round=0, outcome="refuse", reason="no_consent"),
                Decision(**places[3], **decided, round=0, outcome="refuse", reason="suppressed"),
                Delivery(**places[0], **sent, state="accepted", outcome="accepted"),
                Delivery(**places[1], **sent, state="claimed"),
                Delivery(**places[3], **sent, state="refused", outcome="refused", reason="suppressed"),
            ]
        )


async def test_progress_counts_runs_deliveries_and_refusals(
    alice: Person, campaign: dict[str, Any], journey: str, database: Database
) -> None:
    await populate(database, alice, campaign)
    other = (await launch(alice, journey, name="Another")).json()
    await project(database, alice, campaign["id"], audience=4)
    read = (await alice.client.get(f"/v1/campaigns/{campaign['id']}")).json()
    progress = read["progress"]
    assert {phase: count for phase, count in progress["runs"].items() if count} == {"waiting": 1, "completed": 1, "exited": 2}
    assert progress["deliveries"] == {"accepted": 1, "claimed": 1, "refused": 1}
    assert progress["outcomes"] == {"accepted": 1, "open": 1, "refused": 1}
    assert progress["refusals"] == {"no_consent": 1, "suppressed": 1}  # one message, refused by decision and claim, counts once
    assert progress["conservation"] == {"entered": 4, "accounted_for": 4, "holds": True}
    by_id = {item["id"]: item["progress"] for item in await listed(alice)}
    assert by_id[campaign["id"]] == progress
    assert by_id[other["id"]]["conservation"] == {"entered": None, "accounted_for": 0, "holds": None}


async def test_a_lost_run_shows_in_the_conservation(alice: Person, campaign: dict[str, Any], database: Database) -> None:
    await populate(database, alice, campaign)
    await project(database, alice, campaign["id"], audience=5)
    read = (await alice.client.get(f"/v1/campaigns/{campaign['id']}")).json()
    assert read["progress"]["conservation"] == {"entered": 5, "accounted_for": 4, "holds": False}


async def test_pausing_stands_at_once_and_resuming_is_left_to_the_workflow(
    alice: Person, campaign: dict[str, Any], temporal: FakeTemporal, database: Database
) -> None:
    path = f"/v1/campaigns/{campaign['id']}/pause"
    assert (await alice.client.delete(path)).status_code == 202  # not paused: nothing to do
    paused = await alice.client.put(path, json={"reason": "typo"}, headers={"Idempotency-Key": "p1"})
    assert (paused.status_code, paused.json()["status"], paused.json()["paused_at"] is None) == (202, "paused", False)
    resumed = await alice.client.delete(path, params={"reason": " corrected "})
    assert (resumed.status_code, resumed.json()["paused_at"]) == (202, paused.json()["paused_at"])
    again = await alice.client.delete(path, params={"reason": "corrected"})
    assert again.status_code == 202  # as after a lost answer: not on record again
    slowly = await alice.client.post(f"/v1/campaigns/{campaign['id']}/resumptions", json={"spread": "PT10M"})
    assert slowly.status_code == 409 and "being resumed already" in slowly.json()["detail"]
    controls = [started.argument for started in temporal.started.values() if started.workflow == "ControlWorkflow"]
    assert [(control.kind, str(control.id), control.command) for control in controls] == [
        ("campaign", campaign["id"], "pause"),
        ("campaign", campaign["id"], "resume"),
    ]
    done = await actions(alice, database, campaign["id"])
    assert done == ["campaign.launched", "campaign.paused", "campaign.resume_requested"]
    assert await acme.reasons(alice, database, campaign["id"], "campaign.paused") == ["typo"]
    assert await acme.reasons(alice, database, campaign["id"], "campaign.resume_requested") == ["corrected"]
    assert [control.reason for control in controls] == ["typo", "corrected"]


async def test_cancelling_stands_at_once_and_for_good(
    alice: Person, campaign: dict[str, Any], temporal: FakeTemporal, database: Database
) -> None:
    path = f"/v1/campaigns/{campaign['id']}"
    for _ in range(2):
        cancelled = await alice.client.put(f"{path}/cancellation")
        assert (cancelled.status_code, cancelled.json()["status"]) == (202, "cancelled")
    assert (await alice.client.put(f"{path}/pause")).status_code == 409
    assert (await alice.client.delete(f"{path}/pause")).status_code == 409
    assert (await actions(alice, database, campaign["id"])).count("campaign.cancelled") == 1


async def test_a_completed_campaign_cannot_be_cancelled(alice: Person, campaign: dict[str, Any], database: Database) -> None:
    await project(database, alice, campaign["id"], status="completed")
    for method, path in [("PUT", "pause"), ("DELETE", "pause"), ("PUT", "cancellation")]:
        assert (await alice.client.request(method, f"/v1/campaigns/{campaign['id']}/{path}")).status_code == 409


async def test_a_pause_and_a_cancellation_hold_even_when_temporal_is_away(
    alice: Person, campaign: dict[str, Any], temporal: FakeTemporal
) -> None:
    path = f"/v1/campaigns/{campaign['id']}"
    temporal.away()
    assert (await alice.client.put(f"{path}/pause")).status_code == 503
    assert (await alice.client.get(path)).json()["paused_at"] is not None
    assert (await alice.client.put(f"{path}/cancellation")).status_code == 503
    assert (await alice.client.get(path)).json()["cancelled_at"] is not None
    temporal.back()
    assert (await alice.client.put(f"{path}/cancellation")).status_code == 202
    assert len(temporal.started) == 2  # the campaign itself, and one control


async def test_campaigns_are_found_by_journey_and_status(alice: Person, campaign: dict[str, Any], journey: str) -> None:
    for query, count in [(f"journey_id={journey}&status=starting", 1), ("status=completed", 0), (f"journey_id={uuid4()}", 0)]:
        assert len((await alice.client.get(f"/v1/campaigns?{query}")).json()["items"]) == count, query


async def test_another_organization_sees_404(charlie: Person, campaign: dict[str, Any]) -> None:
    path, client = f"/v1/campaigns/{campaign['id']}", charlie.client
    answers = [
        await client.get(path),
        await client.put(f"{path}/pause"),
        await client.delete(f"{path}/pause"),
        await client.put(f"{path}/cancellation"),
    ]
    assert [answer.status_code for answer in answers] == [404] * len(answers)
    assert await listed(charlie) == []


async def test_a_viewer_watches_campaigns_and_leaves_them_alone(bob: Person, campaign: dict[str, Any], journey: str) -> None:
    assert (await bob.client.get(f"/v1/campaigns/{campaign['id']}")).status_code == 200
    assert (await bob.client.put(f"/v1/campaigns/{campaign['id']}/pause")).status_code == 403
    assert (await launch(bob, journey)).status_code == 403


async def test_a_journey_that_takes_so_many_in_an_hour_takes_no_more_of_a_campaign(
    alice: Person, around: Surroundings, database: Database
) -> None:
    async with database.organization(alice.organization_id) as session:
        session.add_all(Contact(organization_id=alice.organization_id, external_id=new_id().hex) for _ in range(4))
    draft = around.welcome() | {"entry": {"per_hour": 2}}
    slow = (await alice.client.post("/v1/journeys", json={"name": "Slow", "draft": draft})).json()["id"]
    assert (await alice.client.post(f"/v1/journeys/{slow}/versions")).status_code == 201
    for spread in (None, "PT2H"):
        refused = await launch(alice, slow, spread=spread)
        assert (refused.status_code, refused.json()["errors"][0]["code"]) == (422, "too_many_per_hour")
        assert "spread the campaign over PT3H" in refused.json()["errors"][0]["message"]
        warned = await alice.client.post("/v1/campaign-previews", json={"journey_id": slow, **({"spread": spread} if spread else {})})
        assert [each["code"] for each in warned.json()["warnings"]] == ["too_many_per_hour"]
    assert await listed(alice) == []
    assert (await launch(alice, slow, spread="PT3H")).status_code == 202


def test_a_spread_that_is_too_long_for_a_campaign_is_not_advised() -> None:
    advised, too_long = (commands.crowding(contacts, 2, Timing()) for contacts in (336, 337))
    assert advised is not None and "spread the campaign over PT168H" in advised.message
    assert too_long is not None and "spread" not in too_long.message and "choose a smaller segment" in too_long.message


async def test_runs_started_by_hand_count_for_the_hour_too(alice: Person, around: Surroundings, database: Database) -> None:
    async with database.organization(alice.organization_id) as session:
        contacts = [Contact(organization_id=alice.organization_id, external_id=new_id().hex) for _ in range(3)]
        session.add_all(contacts)
        ids = [str(contact.id) for contact in contacts]
    draft = around.welcome() | {"entry": {"per_hour": 2}}
    slow = (await alice.client.post("/v1/journeys", json={"name": "Slow", "draft": draft})).json()["id"]
    assert (await alice.client.post(f"/v1/journeys/{slow}/versions")).status_code == 201
    answers = [(await alice.client.post(f"/v1/journeys/{slow}/runs", json={"contact_id": contact})).status_code for contact in ids]
    assert answers == [201, 201, 409]
