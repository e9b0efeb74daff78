"""Campaigns that start later or recur, and previews."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

import pytest
from sqlalchemy import text
from temporalio.client import ScheduleOverlapPolicy

from api.commands import campaigns as commands
from api.dependencies import Services
from models.domain.schedule import AtLocalTime, local_instant
from models.store import occurrences
from models.store.session import Database
from models.tables.base import new_id, utc_now
from models.tables.contacts import Contact
from models.tables.journeys import Campaign
from tests.api.conftest import Person
from tests.api.rest import acme
from tests.api.rest.acme import Surroundings, actions
from tests.api.rest.fake_temporal import FakeTemporal
from tests.api.rest.test_campaigns import launch, listed, project

TOMORROW = (utc_now() + timedelta(days=1)).replace(microsecond=0)
ONCE = {"kind": "once", "at": TOMORROW.isoformat()}
DAILY = {"kind": "recurring", "rule": "FREQ=DAILY;BYHOUR=9", "zone": "Asia/Tokyo"}


async def publish_with(person: Person, around: Surroundings, **rules: Any) -> str:
    created = await person.client.post("/v1/journeys", json={"name": new_id().hex, "draft": {**around.welcome(), **rules}})
    published = await person.client.post(f"/v1/journeys/{created.json()['id']}/versions")
    assert published.status_code == 201, published.text
    return str(created.json()["id"])


async def add_contacts(database: Database, person: Person, zones: Sequence[str | None], tag: str = "there") -> list[UUID]:
    rows = [Contact(organization_id=person.organization_id, external_id=new_id().hex, timezone=zone, tags=[tag]) for zone in zones]
    async with database.organization(person.organization_id) as session:
        session.add_all(rows)
    return [row.id for row in rows]


async def read(person: Person, campaign_id: str) -> dict[str, Any]:
    found: dict[str, Any] = (await person.client.get(f"/v1/campaigns/{campaign_id}")).json()
    return found


# --- later ----------------------------------------------------------------------------------------------------------


async def test_a_campaign_for_later_is_scheduled_and_its_workflow_knows(
    alice: Person, journey: str, temporal: FakeTemporal, database: Database
) -> None:
    answer = await launch(alice, journey, schedule=ONCE, spread="PT2H", audience_at="launch")
    campaign = answer.json()
    assert (answer.status_code, campaign["status"], campaign["warnings"]) == (202, "scheduled", [])
    assert datetime.fromisoformat(campaign["schedule"]["at"]) == TOMORROW
    assert (campaign["spread"], campaign["audience_at"]) == ("PT2H", "launch")
    [started] = temporal.started.values()
    assert started.argument.scheduled
    assert {**await read(alice, campaign["id"]), "progress": {}, "next_at": []} == {
        **{name: value for name, value in campaign.items() if name != "warnings"},
        "progress": {},
        "next_at": [],
    }
    assert [item["id"] for item in (await alice.client.get("/v1/campaigns?status=scheduled")).json()["items"]] == [campaign["id"]]
    assert await actions(alice, database, campaign["id"]) == ["campaign.launched"]


async def test_a_campaign_for_now_is_as_before(alice: Person, journey: str, temporal: FakeTemporal) -> None:
    campaign = (await launch(alice, journey, schedule={"kind": "now"})).json()
    assert (campaign["status"], campaign["schedule"], campaign["spread"], campaign["audience_at"]) == ("starting", None, None, "start")
    assert not next(iter(temporal.started.values())).argument.scheduled


@pytest.mark.parametrize(
    ("fields", "path"),
    [
        ({"schedule": {"kind": "sometime"}}, "schedule.kind"),
        ({"schedule": {"kind": "once", "at": "2027-01-01T09:00"}}, "schedule.at"),
        ({"schedule": {"kind": "once", "at": "2020-01-01T09:00Z"}}, "schedule.at"),
        ({"schedule": {"kind": "local", "at": "2020-01-01T09:00"}}, "schedule.at"),
        ({"schedule": {**DAILY, "rule": "FREQ=DAILY;INTERVAL=2;BYHOUR=9"}}, "schedule.begins_at"),
        ({"schedule": {**DAILY, "zone": "Asia"}}, "schedule.zone"),
        ({"schedule": DAILY, "audience_at": "launch"}, "audience_at"),
        ({"spread": "PT0S"}, "spread"),
        ({"audience_at": "noon"}, "audience_at"),
        ({"exclude_segment_ids": [str(new_id())]}, "exclude_segment_ids[0]"),
        ({"exclude_segment_ids": [str(new_id())] * 21}, "exclude_segment_ids"),
    ],
)
async def test_what_makes_no_sense_is_refused_with_its_path(alice: Person, journey: str, fields: dict[str, Any], path: str) -> None:
    answer = await launch(alice, journey, **fields)
    assert (answer.status_code, [each["path"] for each in answer.json()["errors"]]) == (422, [path])
    assert await listed(alice) == []


async def test_a_strangers_segment_cannot_be_excluded(alice: Person, charlie: Person, journey: str, database: Database) -> None:
    segment = await acme.add_segment(database, charlie, {"all": []})
    assert (await launch(alice, journey, exclude_segment_ids=[str(segment)])).status_code == 422


async def test_the_excluded_segments_rules_are_kept_as_they_are(alice: Person, journey: str, database: Database) -> None:
    rules = [{"tag": "staff"}, {"tag": "rivals"}]
    segments = [str(await acme.add_segment(database, alice, rule)) for rule in rules]
    campaign = (await launch(alice, journey, exclude_segment_ids=segments)).json()
    assert campaign["exclusion_rule"] == {"any": rules}


async def test_nobody_in_the_audience_is_a_conflict_now_and_a_warning_later(alice: Person, journey: str, database: Database) -> None:
    nobody = {"segment_id": str(await acme.add_segment(database, alice, {"tag": "nobody-has-this"}))}
    everybody_out = {"exclude_segment_ids": [str(await acme.add_segment(database, alice, {"all": []}))]}
    for fields in (nobody, everybody_out, {**nobody, "schedule": ONCE, "audience_at": "launch"}):
        assert (await launch(alice, journey, **fields)).status_code == 409
    for schedule in (ONCE, DAILY):
        answer = await launch(alice, journey, **nobody, schedule=schedule)
        assert (answer.status_code, [each["code"] for each in answer.json()["warnings"]]) == (202, ["empty_audience"])


async def test_a_campaign_whose_journey_lets_nobody_in_again_is_refused(alice: Person, around: Surroundings, database: Database) -> None:
    journey = await publish_with(alice, around, entry={"again": "once"})
    assert (await launch(alice, journey)).status_code == 202
    async with database.organization(alice.organization_id) as session:
        await session.execute(
            text("""INSERT INTO runs (id, organization_id, journey_id, version_id, contact_id, workflow_id, page, status, sequence,
                                      variables, entry_source, created_at, updated_at)
                    SELECT gen_random_uuid(), c.organization_id, v.journey_id, v.id, c.id, 'w', 0, 'completed', 1, '{}', 'api', now(), now()
                    FROM contacts c, journey_versions v WHERE v.journey_id = :journey"""),
            {"journey": journey},
        )
    answer = await launch(alice, journey, name="Again")
    assert answer.status_code == 409 and "entry rules let none of them in again" in answer.json()["detail"]
    assert (await launch(alice, journey, name="Later", schedule=ONCE)).json()["warnings"][0]["code"] == "empty_audience"


@pytest.mark.parametrize(("ahead", "schedule", "status"), [(2, ONCE, 202), (0.5, ONCE, 409), (0.5, None, 202)])
async def test_a_journey_that_has_ended_by_then_takes_no_campaign(
    alice: Person, around: Surroundings, ahead: float, schedule: dict[str, Any] | None, status: int
) -> None:
    journey = await publish_with(alice, around, ends_at=(utc_now() + timedelta(days=ahead)).isoformat())
    assert (await launch(alice, journey, schedule=schedule)).status_code == status


async def test_a_repeated_launch_for_later_is_one_campaign_and_another_time_another(
    alice: Person, journey: str, temporal: FakeTemporal
) -> None:
    temporal.away()
    assert (await launch(alice, journey, schedule=ONCE)).status_code == 503
    temporal.back()
    again = await launch(alice, journey, schedule=ONCE)
    assert again.status_code == 202 and len(temporal.started) == 1
    later = {"kind": "once", "at": (TOMORROW + timedelta(hours=1)).isoformat()}
    assert (await launch(alice, journey, schedule=later)).json()["id"] != again.json()["id"]
    assert (await launch(alice, journey)).json()["id"] != again.json()["id"]


async def test_a_scheduled_campaign_whose_start_was_lost_is_started_until_its_workflow_has_reported(
    alice: Person, journey: str, temporal: FakeTemporal, services: Services, database: Database
) -> None:
    temporal.away()
    await launch(alice, journey, schedule=ONCE)
    temporal.back()
    assert await commands.start_missing_workflows(services, alice.organization_id, lambda: None) == 1
    [(name, started)] = temporal.started.items()
    assert started.argument.scheduled and "/campaign/" in name
    [campaign] = await listed(alice)
    await project(database, alice, campaign["id"], planned_at=utc_now())
    assert await commands.start_missing_workflows(services, alice.organization_id, lambda: None) == 0


async def test_upkeep_sees_organizations_with_something_scheduled_and_unplanned(
    alice: Person, journey: str, temporal: FakeTemporal, database: Database
) -> None:
    temporal.away()
    await launch(alice, journey, schedule=ONCE)
    [campaign] = await listed(alice)

    async def seen() -> bool:
        async with database.outside() as session:
            found = await session.execute(text("SELECT organizations_with_unstarted(interval '0')"))
            return alice.organization_id in set(found.scalars())

    assert await seen()
    await project(database, alice, campaign["id"], planned_at=utc_now())
    assert not await seen()


async def test_a_scheduled_campaign_is_paused_and_cancelled(alice: Person, journey: str, database: Database) -> None:
    campaign = (await launch(alice, journey, schedule=ONCE)).json()
    path = f"/v1/campaigns/{campaign['id']}"
    assert (await alice.client.put(f"{path}/pause")).json()["status"] == "paused"
    assert (await alice.client.put(f"{path}/cancellation")).json()["status"] == "cancelled"
    assert await actions(alice, database, campaign["id"]) == ["campaign.launched", "campaign.paused", "campaign.cancelled"]


# --- again and again ------------------------------------------------------------------------------------------------


async def test_a_recurring_campaign_is_a_schedule(alice: Person, journey: str, temporal: FakeTemporal, database: Database) -> None:
    campaign = (await launch(alice, journey, schedule=DAILY)).json()
    [(name, schedule)] = temporal.schedules.items()
    assert name == f"{alice.organization_id}/campaign/{campaign['id']}" and temporal.started == {}
    assert schedule.policy.overlap is ScheduleOverlapPolicy.SKIP
    assert (schedule.policy.catchup_window, schedule.policy.pause_on_failure) == (timedelta(hours=31), False)
    assert str(schedule.action.args[0].campaign_id) == campaign["id"] and not schedule.state.paused
    assert campaign["status"] == "scheduled"
    found = await read(alice, campaign["id"])
    next_at = [datetime.fromisoformat(each) for each in found["next_at"]]
    assert len(next_at) == 5 and next_at == sorted(next_at) and {each.astimezone(UTC).hour for each in next_at} == {0}  # 9 in Tokyo
    assert await actions(alice, database, campaign["id"]) == ["campaign.launched"]


async def test_a_time_that_daylight_saving_skips_is_warned_of(alice: Person, journey: str) -> None:
    night = {"kind": "recurring", "rule": "FREQ=DAILY;BYHOUR=2;BYMINUTE=30", "zone": "Europe/Berlin"}
    answer = await launch(alice, journey, schedule=night)
    assert [(each["path"], each["code"]) for each in answer.json()["warnings"]] == [("schedule.rule", "skipped_hour")]


@pytest.mark.parametrize("hears", [True, False])
async def test_a_recurring_launch_repeated_after_503_is_one_schedule(
    alice: Person, journey: str, temporal: FakeTemporal, hears: bool, services: Services
) -> None:
    temporal.away(hears=hears)
    assert (await launch(alice, journey, schedule=DAILY)).status_code == 503
    temporal.back()
    assert (await launch(alice, journey, schedule=DAILY)).status_code == 202
    assert len(temporal.schedules) == len(await listed(alice)) == 1
    assert await commands.start_missing_workflows(services, alice.organization_id, lambda: None) == 0


async def test_a_schedule_whose_creation_was_lost_is_created_later(
    alice: Person, journey: str, temporal: FakeTemporal, services: Services
) -> None:
    temporal.away()
    await launch(alice, journey, schedule=DAILY)
    temporal.back()
    for created in (1, 0):
        assert await commands.start_missing_workflows(services, alice.organization_id, lambda: None) == created
    assert len(temporal.schedules) == 1


async def test_a_repeated_launch_finds_a_campaign_that_was_paused_and_resumed_meanwhile(
    alice: Person, journey: str, database: Database
) -> None:
    first = (await launch(alice, journey, schedule=DAILY)).json()
    async with database.organization(alice.organization_id) as session:
        await occurrences.void(session, UUID(first["id"]))
    again = (await launch(alice, journey, schedule=DAILY)).json()
    assert again["id"] == first["id"] and again["schedule"] == first["schedule"]


async def test_restoring_a_journey_tells_its_waiting_campaigns_and_so_does_its_repetition(
    alice: Person, journey: str, temporal: FakeTemporal
) -> None:
    path = f"/v1/journeys/{journey}/archive"
    await alice.client.put(path)
    assert (await alice.client.delete(path)).status_code == 200 and not told(temporal)  # there is none
    await launch(alice, journey, schedule=ONCE)
    await alice.client.put(path)
    temporal.away()
    assert (await alice.client.delete(path)).status_code == 503
    temporal.back()
    restored = await alice.client.delete(path)
    assert (restored.status_code, restored.json()["archived_at"]) == (200, None) and len(told(temporal)) == 1


def told(temporal: FakeTemporal) -> list[str]:
    return [name for name in temporal.started if "/control/restored/" in name]


async def occur(database: Database, person: Person, parent_id: str, moment: datetime) -> list[Campaign]:
    """As its schedule would have it, at the beginning of the moment's day in Tokyo."""
    dawn = datetime.combine(moment.astimezone(ZoneInfo("Asia/Tokyo")).date(), datetime.min.time(), UTC) - timedelta(hours=11)
    async with database.organization(person.organization_id) as session:
        return await occurrences.make(session, UUID(parent_id), dawn, dawn)


async def test_the_occurrences_are_listed_and_follow_their_campaign(
    alice: Person, charlie: Person, journey: str, database: Database
) -> None:
    parent = (await launch(alice, journey, schedule=DAILY)).json()
    first, second = [datetime.fromisoformat(each) for each in (await read(alice, parent["id"]))["next_at"][1:3]]
    children = [str(one.id) for moment in (first, second) for one in await occur(database, alice, parent["id"], moment)]
    page = (await alice.client.get(f"/v1/campaigns?parent_id={parent['id']}")).json()["items"]
    assert [item["id"] for item in page] == children
    assert [datetime.fromisoformat(item["nominal_at"]) for item in page] == [first, second]
    assert {item["parent_id"] for item in page} == {parent["id"]} and {item["schedule"]["kind"] for item in page} == {"once"}
    assert (await charlie.client.get(f"/v1/campaigns?parent_id={parent['id']}")).json()["items"] == []

    path = f"/v1/campaigns/{parent['id']}"
    await alice.client.put(f"/v1/campaigns/{children[1]}/pause")  # one by itself
    await alice.client.put(f"{path}/pause")
    paused = [await read(alice, each) for each in (parent["id"], *children)]
    assert [each["status"] for each in paused] == ["paused"] * 3 and paused[0]["next_at"] == []
    assert paused[1]["paused_at"] == paused[0]["paused_at"] != paused[2]["paused_at"]
    [held] = await occur(database, alice, parent["id"], second + timedelta(days=1))  # it may be resumed by then
    assert (await read(alice, str(held.id)))["paused_at"] == paused[0]["paused_at"]
    await alice.client.put(f"{path}/cancellation")
    assert {(await read(alice, each))["status"] for each in (parent["id"], *children)} == {"cancelled"}
    assert await actions(alice, database, children[0]) == ["campaign.launched", "campaign.paused", "campaign.cancelled"]


# --- previews -------------------------------------------------------------------------------------------------------


async def preview(person: Person, journey: str, **fields: Any) -> Any:
    return await person.client.post("/v1/campaign-previews", json={"journey_id": journey, **fields})


async def test_a_preview_counts_by_zone_and_says_who_goes_by_anothers_clock(alice: Person, journey: str, database: Database) -> None:
    made = await add_contacts(database, alice, ["Asia/Tokyo", "Asia/Tokyo", "Europe/Berlin", None, "Mars/Olympus"])
    segment = str(await acme.add_segment(database, alice, {"tag": "there"}))
    wall = (utc_now() + timedelta(days=10)).replace(hour=9, minute=0, second=0, microsecond=0, tzinfo=None)
    schedule = {"kind": "local", "at": wall.isoformat(), "default_zone": "America/New_York"}
    found = (await preview(alice, journey, segment_id=segment, schedule=schedule, sample=3)).json()
    assert (found["count"], found["left_out"], found["without_zone"], found["with_invalid_zone"]) == (5, {}, 1, 1)
    assert [(each["zone"], each["zone_of"], each["contacts"], each["late"]) for each in found["starts"]] == [
        ("Asia/Tokyo", "contact", 2, False),
        ("Europe/Berlin", "contact", 1, False),
        ("America/New_York", "default", 2, False),
    ]
    zones = [each["zone"] for each in found["starts"]]
    expected = [local_instant(AtLocalTime(at=wall).at, ZoneInfo(zone)) for zone in zones]
    assert [datetime.fromisoformat(each["at"]) for each in found["starts"]] == expected
    assert [each["id"] for each in found["sample"]] == [str(each) for each in made[:3]]


async def test_a_preview_leaves_out_whom_a_launch_would(alice: Person, around: Surroundings, database: Database) -> None:
    journey = await publish_with(alice, around, entry={"again": "once"})
    entered, *_ = await add_contacts(database, alice, [None, None])
    await add_contacts(database, alice, [None], tag="staff")
    assert (await alice.client.post(f"/v1/journeys/{journey}/runs", json={"contact_id": str(entered)})).status_code < 300
    staff = str(await acme.add_segment(database, alice, {"tag": "staff"}))
    found = (await preview(alice, journey, exclude_segment_ids=[staff], schedule=ONCE)).json()
    assert (found["count"], found["left_out"]) == (2, {"entered_before": 1, "excluded": 1})  # one more is in the surroundings
    assert [(each["zone"], each["contacts"]) for each in found["starts"]] == [(None, 2)]
    assert str(entered) not in {each["id"] for each in found["sample"]} and len(found["sample"]) == 2


async def test_a_preview_shows_who_is_late(alice: Person, journey: str, database: Database) -> None:
    await add_contacts(database, alice, ["Pacific/Kiritimati", "Pacific/Niue"])
    segment = str(await acme.add_segment(database, alice, {"tag": "there"}))
    wall = (utc_now() + timedelta(hours=3)).replace(microsecond=0, tzinfo=None)  # passed at +14, to come at -11
    schedule = {"kind": "local", "at": wall.isoformat(), "late": "skip"}
    found = (await preview(alice, journey, segment_id=segment, schedule=schedule)).json()
    assert (found["count"], found["left_out"], len(found["sample"])) == (1, {"local_time_passed": 1}, 1)
    assert [each["code"] for each in found["warnings"]] == ["passed_somewhere"]
    found = (await preview(alice, journey, segment_id=segment, schedule={**schedule, "late": "send"})).json()
    assert [(each["zone"], each["late"]) for each in found["starts"]] == [("Pacific/Kiritimati", True), ("Pacific/Niue", False)]


async def test_a_preview_of_nobody_and_of_a_recurring_campaign(alice: Person, journey: str, database: Database) -> None:
    nobody = str(await acme.add_segment(database, alice, {"tag": "nobody-has-this"}))
    found = (await preview(alice, journey, segment_id=nobody)).json()
    assert (found["count"], found["starts"], [each["code"] for each in found["warnings"]]) == (0, [], ["empty_audience"])
    found = (await preview(alice, journey, schedule=DAILY)).json()
    assert len(found["next_at"]) == 5 and found["count"] == 1


async def test_a_preview_refuses_what_a_launch_would(alice: Person, charlie: Person, bob: Person, journey: str) -> None:
    wrong: dict[str, dict[str, Any]] = {
        "segment_id": {"segment_id": str(new_id())},
        "schedule.at": {"schedule": {"kind": "once", "at": "2020-01-01T00:00Z"}},
    }
    for path, fields in wrong.items():
        answer = await preview(alice, journey, **fields)
        assert (answer.status_code, [each["path"] for each in answer.json()["errors"]]) == (422, [path])
    assert (await preview(charlie, journey)).json()["errors"][0]["path"] == "journey_id"
    assert (await preview(bob, journey)).status_code == 403  # a viewer sees no contacts
    assert await listed(alice) == []


async def test_what_a_launch_takes_a_preview_takes_too(alice: Person, journey: str) -> None:
    fields = {"name": "November news", "spread": "PT2H", "audience_at": "launch", "on_error": "skip", "page_size": 10}
    assert (await preview(alice, journey, **fields)).status_code == 200
    assert (await preview(alice, journey, nmae="November news")).status_code == 422


@pytest.mark.parametrize(
    ("rules", "keys", "left_out"),
    [
        ({"again": "once"}, ["A-1"], {}),
        ({"again": "once"}, [None], {"entered_before": 1}),
        ({"again": "after_exit"}, ["A-1"], {}),
        ({"again": "after_exit"}, [None], {"under_way": 1}),
        ({"cool_down": "P1D"}, ["A-1", "A-2"], {}),
        ({"cool_down": "P1D"}, [None], {"cooling_down": 1}),
        ({"maximum": 2}, ["A-1"], {}),
        ({"maximum": 2}, ["A-1", "A-2"], {"maximum_reached": 1}),
    ],
)
async def test_whoever_entered_with_a_key_is_judged_as_by_every_other_way_in(
    alice: Person, around: Surroundings, database: Database, rules: dict[str, Any], keys: list[str | None], left_out: dict[str, int]
) -> None:
    """All but the maximum look at entries with the same key, and a campaign brings none."""
    [contact] = await add_contacts(database, alice, [None])
    journey = await publish_with(alice, around, entry=rules)
    for key in keys:
        started = await alice.client.post(f"/v1/journeys/{journey}/runs", json={"contact_id": str(contact), "key": key})
        assert started.status_code == 201, started.text
    segment = str(await acme.add_segment(database, alice, {"tag": "there"}))
    assert (await preview(alice, journey, segment_id=segment)).json()["left_out"] == left_out
    by_api = await alice.client.post(f"/v1/journeys/{journey}/runs", json={"contact_id": str(contact)})
    assert by_api.status_code == (409 if left_out else 201)
