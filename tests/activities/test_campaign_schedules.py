"""When a campaign starts, whom it takes, and when each run starts: against the database."""

import json
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from itertools import pairwise, product
from random import Random
from typing import Any, cast
from uuid import UUID
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from temporalio.client import Client
from temporalio.testing import ActivityEnvironment

from activities.campaign import CampaignActivities
from activities.contracts.campaign import AudiencePages, CampaignRef, Dawn
from activities.contracts.control import Control, ControlledKind, ControlPage
from activities.control import ControlActivities
from activities.versions import Versions
from models.domain.audit import NewEntry
from models.domain.journey.entry import EntryRules, Past, refusal
from models.domain.journey.run import FINISHED, Phase
from models.domain.schedule import AtLocalTime, Once, Recurring, Schedule, Timing, local_instant, spread_delay
from models.store import audience, audit, entry_pace, occurrences
from models.tables.base import new_id, utc_now
from tests.activities.plans import analyze, index_conditions
from tests.activities.world import World

NOW = datetime(2027, 3, 1, 8, tzinfo=UTC)
NINE = AtLocalTime(at=datetime.fromisoformat("2027-03-01T09:00"))  # in Berlin: now


def activities(world: World) -> CampaignActivities:
    return CampaignActivities(world.database, world.settings, Versions(), cast(Client, None))


def reference(world: World, now: datetime | None = NOW) -> CampaignRef:
    assert world.campaign_id is not None
    return CampaignRef(organization_id=world.organization_id, campaign_id=world.campaign_id, scheduled=True, now=now)


async def snapshot(world: World, now: datetime | None = NOW) -> AudiencePages:
    return await ActivityEnvironment().run(activities(world).snapshot_audience, reference(world, now))


async def look(world: World, now: datetime) -> datetime | None:
    return (await ActivityEnvironment().run(activities(world).plan_campaign, reference(world, now))).look_at


async def people(world: World, zones: Sequence[str | None], tag: str = "there") -> list[UUID]:
    made = [new_id() for _ in zones]
    await world.sql(
        """INSERT INTO contacts (id, organization_id, external_id, timezone, tags, attributes)
           SELECT id, :o, id::text, zone, ARRAY[:tag], '{}' FROM unnest(CAST(:ids AS uuid[]), CAST(:zones AS text[])) AS p(id, zone)""",
        ids=made,
        zones=list(zones),
        tag=tag,
    )
    return made


async def row(world: World) -> Any:
    (found,) = await world.sql("SELECT * FROM campaigns WHERE id = :id", id=world.campaign_id)
    return found


async def starts(world: World) -> dict[UUID, datetime | None]:
    runs = await world.sql("SELECT contact_id, starts_at FROM runs WHERE campaign_id = :id ORDER BY page, starts_at", id=world.campaign_id)
    return {run["contact_id"]: run["starts_at"] for run in runs}


async def publish(world: World, **rules: Any) -> None:
    """Another version of the journey, with these rules around its steps."""
    world.version_id = new_id()
    definition = json.loads(world.definition().model_dump_json()) | rules
    await world.sql(
        """INSERT INTO journey_versions (id, organization_id, journey_id, number, definition, content_hash)
           VALUES (:id, :o, :journey_id, 2, CAST(:definition AS jsonb), '')""",
        id=world.version_id,
        journey_id=world.journey_id,
        definition=json.dumps(definition),
    )


async def enter(world: World, contact_id: UUID, ago: timedelta, status: str = "completed", key: str | None = None) -> None:
    await world.sql(
        """INSERT INTO runs (id, organization_id, journey_id, version_id, contact_id, workflow_id, page, status, sequence, variables,
                             entry_key, created_at)
           VALUES (gen_random_uuid(), :o, :journey_id, :version_id, :contact_id, 'test', 0, :status, 1, '{}', :key, :at)""",
        journey_id=world.journey_id,
        version_id=world.version_id,
        contact_id=contact_id,
        status=status,
        key=key,
        at=NOW - ago,
    )


# --- when each run starts -------------------------------------------------------------------------------------------


async def test_each_zones_instant_is_given_to_its_contacts(world: World) -> None:
    zones = ["Europe/Berlin", "Asia/Tokyo", "America/New_York", None, "", "Mars/Olympus", "America/New_York"]
    made = await people(world, zones)
    await world.campaign(timing=Timing(schedule=NINE.model_copy(update={"default_zone": "America/Los_Angeles"})), page_size=2)
    assert (await snapshot(world)).runs == 7
    found = await starts(world)
    used = ["Europe/Berlin", None, "America/New_York", *["America/Los_Angeles"] * 3, "America/New_York"]
    expected = [NOW if zone is None else local_instant(NINE.at, ZoneInfo(zone)) for zone in used]  # in Tokyo it has passed: at once
    assert [found[contact] for contact in made] == expected
    assert list(found.values()) == sorted(cast(list[datetime], list(found.values())))  # page by page
    entered = await world.sql("SELECT entry_source, status, sequence FROM runs WHERE campaign_id = :id", id=world.campaign_id)
    assert {tuple(run.values()) for run in entered} == {("campaign", "active", 0)}
    assert (await row(world))["status"] == "running"


async def test_who_is_late_is_left_out_where_the_schedule_says_so(world: World) -> None:
    _, in_berlin = await people(world, ["Asia/Tokyo", "Europe/Berlin"])
    await world.campaign(timing=Timing(schedule=NINE.model_copy(update={"late": "skip"})))
    assert (await snapshot(world)).runs == 1
    assert set(await starts(world)) == {in_berlin} and (await row(world))["left_out"] == {"local_time_passed": 1}


async def test_whose_time_has_just_come_is_not_late(world: World) -> None:
    """The campaign wakes for them, a little after the moment."""
    [in_tokyo] = await people(world, ["Asia/Tokyo"])
    await world.campaign(timing=Timing(schedule=NINE.model_copy(update={"late": "skip"})))
    now = datetime(2027, 3, 1, 0, 0, 0, 40_000, tzinfo=UTC)
    assert (await snapshot(world, now)).runs == 1
    assert await starts(world) == {in_tokyo: now} and (await row(world))["left_out"] == {}


async def test_the_organizations_zone_is_the_last_resort(world: World) -> None:
    await world.sql("UPDATE organizations SET timezone = 'Asia/Kathmandu' WHERE id = :o")
    [contact] = await people(world, [None])
    early = datetime(2027, 2, 28, tzinfo=UTC)
    await world.campaign(timing=Timing(schedule=NINE))
    await snapshot(world, early)
    assert await starts(world) == {contact: datetime(2027, 3, 1, 3, 15, tzinfo=UTC)}


@pytest.mark.parametrize("schedule", [None, Once(at=NOW + timedelta(hours=1)), Once(at=NOW - timedelta(hours=1)), NINE], ids=str)
async def test_a_spread_is_the_same_in_sql(world: World, schedule: Schedule | None) -> None:
    made = await people(world, ["Europe/Berlin"] * 300)
    spread = timedelta(hours=3)
    timing = Timing(spread=spread) if schedule is None else Timing(schedule=schedule, spread=spread)
    await world.campaign(timing=timing)
    await snapshot(world)
    base = schedule.at if isinstance(schedule, Once) and schedule.at > NOW else NOW
    campaign_id = cast(UUID, world.campaign_id)
    assert await starts(world) == {contact: base + spread_delay(campaign_id, contact, spread) for contact in made}


async def test_a_page_holds_neighbours_in_time(world: World) -> None:
    await people(world, ["Europe/Berlin", "Asia/Tokyo"] * 100)
    await world.campaign(timing=Timing(schedule=NINE, spread=timedelta(hours=1)), page_size=20)
    assert (await snapshot(world, NOW - timedelta(days=1))).pages == 10
    pages = await world.sql(
        "SELECT min(starts_at) AS first, max(starts_at) AS last FROM runs WHERE campaign_id = :id GROUP BY page ORDER BY page",
        id=world.campaign_id,
    )
    assert all(one["last"] <= other["first"] for one, other in pairwise(pages))


async def test_pages_are_read_with_their_starts(world: World) -> None:
    await people(world, ["Asia/Tokyo"])
    await world.campaign(timing=Timing(schedule=NINE))
    await snapshot(world, NOW - timedelta(days=1))
    async with world.database.organization(world.organization_id) as session:
        [run] = await audience.page_runs(session, cast(UUID, world.campaign_id), 0, 1)
    assert run.starts_at == datetime(2027, 3, 1, tzinfo=UTC)


async def test_fifty_thousand_in_all_zones_are_placed_within_seconds(world: World) -> None:
    await world.sql(
        """INSERT INTO contacts (id, organization_id, external_id, timezone, attributes)
           SELECT gen_random_uuid(), :o, n::text, z.name, '{}' FROM generate_series(1, 50000) n
           JOIN (SELECT name, row_number() OVER () AS number FROM pg_timezone_names WHERE name LIKE '%/%') z ON z.number = n % 400 + 1"""
    )
    await world.campaign(timing=Timing(schedule=NINE, spread=timedelta(hours=1)))
    audience_taken = await snapshot(world, NOW - timedelta(days=2))
    assert (audience_taken.runs, audience_taken.pages) == (50_000, 250)


# --- how many in an hour --------------------------------------------------------------------------------------------


async def test_whoever_is_too_many_for_an_hour_starts_in_a_later_one(world: World) -> None:
    await publish(world, entry={"per_hour": 3})
    others = await people(world, [None] * 2, tag="others")
    for contact in others:
        await enter(world, contact, timedelta(minutes=30))
    await people(world, [None] * 7)
    await world.campaign(exclusion={"tag": "others"})
    assert (await snapshot(world)).runs == 7
    found = list((await starts(world)).values())
    assert found.count(None) == 1  # with the two others the third of this hour
    later = [NOW + timedelta(minutes=minutes) for minutes in (30, 30, 60, 90, 90, 120)]
    assert sorted(at for at in found if at is not None) == later
    details = await world.one("SELECT details FROM audit_entries WHERE action = 'campaign.started'")
    assert details["postponed"] == 6


async def test_whoever_is_too_many_takes_the_room_between_those_who_are_planned(world: World) -> None:
    await publish(world, entry={"per_hour": 2})
    for number, contact in enumerate(await people(world, [None] * 6, tag="others")):  # by another campaign, one in each hour
        await enter(world, contact, -timedelta(minutes=30, hours=number), status="active")
    await people(world, [None] * 3)
    await world.campaign(exclusion={"tag": "others"})
    await snapshot(world)
    runs = await world.sql("SELECT starts_at FROM runs WHERE campaign_id = :id ORDER BY contact_id", id=world.campaign_id)
    assert [run["starts_at"] for run in runs] == [None, NOW + timedelta(hours=1), NOW + timedelta(hours=2)]


@pytest.mark.parametrize("seed", range(3))
async def test_no_hour_has_more_starts_than_the_journey_takes_and_nobody_starts_early(world: World, seed: int) -> None:
    chance, most = Random(seed), 20
    await publish(world, entry={"per_hour": most})
    planned = [chance.randrange(-3_600, 6 * 3_600) for _ in range(60)]  # by another campaign, in seconds
    others = [second for number, second in enumerate(sorted(planned)) if number % 4 == 0]  # never more than the journey takes
    for contact, second in zip(await people(world, [None] * len(others), tag="others"), others, strict=True):
        await enter(world, contact, timedelta(seconds=-second), status="active")
    zones = chance.choices(["Europe/Berlin", "Europe/London", "America/New_York"], k=150)
    made = await people(world, zones)
    timing = Timing(schedule=NINE, spread=timedelta(minutes=40))
    await world.campaign(timing=timing, exclusion={"tag": "others"})
    await snapshot(world)
    found = await starts(world)
    own = {
        contact: local_instant(NINE.at, ZoneInfo(zone)) + spread_delay(cast(UUID, world.campaign_id), contact, timing.spread)
        for contact, zone in zip(made, zones, strict=True)
    }
    placed = {contact: at or NOW for contact, at in found.items()}
    assert all(placed[contact] >= own[contact] for contact in made) and any(placed[contact] == own[contact] for contact in made)
    everybody = sorted([*placed.values(), *(NOW + timedelta(seconds=second) for second in others)])
    fullest = max(sum(at <= other < at + timedelta(hours=1) for other in everybody) for at in everybody)
    assert fullest == most  # full, and no more


@pytest.mark.parametrize(
    ("minutes", "fullest"),
    [([], 0), ([-61], 0), ([-59, -10], 2), ([10, 50], 2), ([70], 0), ([-59, -10, 10], 2), ([-50, -45, 5, 20, 40], 3), ([-30, 29, 31], 2)],
)
async def test_an_entry_now_counts_the_fullest_hour_that_it_falls_into(world: World, minutes: list[int], fullest: int) -> None:
    now = utc_now()
    for contact, minute in zip(await people(world, [None] * len(minutes)), minutes, strict=True):
        await enter(world, contact, NOW - now - timedelta(minutes=minute), status="active")
    async with world.database.organization(world.organization_id) as session:
        assert await entry_pace.fullest_hour(session, world.journey_id) == fullest


async def test_who_was_cancelled_before_the_start_has_not_entered(world: World) -> None:
    [contact] = await people(world, [None])
    await enter(world, contact, NOW - utc_now() - timedelta(minutes=10), status="cancelled")
    async with world.database.organization(world.organization_id) as session:
        assert await entry_pace.fullest_hour(session, world.journey_id) == 1
    await world.sql("UPDATE runs SET finished_at = now()")
    async with world.database.organization(world.organization_id) as session:
        assert await entry_pace.fullest_hour(session, world.journey_id) == 0


# --- whom it takes --------------------------------------------------------------------------------------------------

MONTH = timedelta(days=30)
RULES = [
    {"again": again, "cool_down": cool_down, "maximum": maximum}
    for again, cool_down, maximum in product(("once", "after_exit", "every_time"), (None, "P7D"), (None, 2))
]
PASTS: list[list[tuple[timedelta, str, str | None]]] = [
    [],
    [(MONTH, "completed", None)],
    [(timedelta(days=1), "completed", None)],
    [(timedelta(days=7), "completed", None)],
    [(MONTH, "waiting", None)],
    [(MONTH, "needs_attention", None)],
    [(timedelta(days=1), "waiting", "order-1")],
    [(MONTH, "completed", "order-1"), (MONTH, "exited", "order-2")],
    [(MONTH, "cancelled", None), (timedelta(days=2), "completed", None), (MONTH, "completed", "order-1")],
]


@pytest.mark.parametrize("rules", RULES, ids=lambda rules: "-".join(map(str, rules.values())))
async def test_the_entry_rules_in_sql_say_what_the_journey_says(world: World, rules: dict[str, Any]) -> None:
    parsed = EntryRules.model_validate(rules)
    await publish(world, entry=rules)
    made = await people(world, [None] * len(PASTS))
    expected: dict[str | None, int] = {}
    for contact, entries in zip(made, PASTS, strict=True):
        for ago, status, key in entries:
            await enter(world, contact, ago, status, key)
        mine = [(NOW - ago, status) for ago, status, key in entries if key is None]
        under_way = sum(Phase(status) not in FINISHED for _, status in mine)
        past = Past(len(entries), len(mine), under_way, max((at for at, _ in mine), default=None))
        reason = refusal(parsed, past, NOW, "event")
        expected[reason] = expected.get(reason, 0) + 1
    await world.campaign()
    assert (await snapshot(world)).runs == expected.pop(None, 0)
    assert (await row(world))["left_out"] == expected


async def test_the_excluded_are_left_out_and_counted(world: World) -> None:
    await people(world, [None] * 3)
    staff = await people(world, [None] * 2, tag="staff")
    await world.campaign(exclusion={"any": [{"tag": "staff"}, {"tag": "rivals"}]})
    assert (await snapshot(world)).runs == 3
    assert not set(staff) & set(await starts(world)) and (await row(world))["left_out"] == {"excluded": 2}
    [entry] = await world.sql("SELECT details FROM audit_entries WHERE action = 'campaign.started'")
    assert entry["details"] == {"audience": 3, "left_out": {"excluded": 2}}


async def test_a_journey_that_has_ended_by_the_start_takes_nobody(world: World) -> None:
    await publish(world, ends_at=(NOW - timedelta(minutes=1)).isoformat())
    await people(world, [None] * 3)
    await world.campaign()
    assert (await snapshot(world)).runs == 0
    assert ((await row(world))["status"], (await row(world))["left_out"]) == ("completed", {"journey_ended": 3})


# --- when it starts -------------------------------------------------------------------------------------------------


async def test_a_campaign_at_one_instant_is_looked_at_then(world: World) -> None:
    await people(world, [None])
    await world.campaign(timing=Timing(schedule=Once(at=NOW)), status="scheduled")
    assert (await row(world))["planned_at"] is None
    assert await look(world, NOW - timedelta(days=3)) == NOW
    assert (await row(world))["planned_at"] is not None
    assert await look(world, NOW) is None


async def test_a_campaign_by_local_time_starts_with_its_easternmost_contact(world: World) -> None:
    await people(world, ["Europe/Berlin", "America/New_York"])
    await world.campaign(timing=Timing(schedule=NINE), rule={"tag": "there"}, status="scheduled")
    first_on_earth = datetime(2027, 2, 28, 19, tzinfo=UTC)
    assert await look(world, NOW - timedelta(days=9)) == first_on_earth
    assert await look(world, first_on_earth) == first_on_earth + timedelta(minutes=15)
    assert await look(world, NOW - timedelta(minutes=20)) == NOW - timedelta(minutes=15)
    assert await look(world, NOW - timedelta(minutes=1)) == NOW
    assert await look(world, NOW) is None
    await people(world, ["Asia/Tokyo"], tag="elsewhere")
    assert await look(world, NOW - timedelta(hours=1)) is not None  # who does not fit does not count
    await people(world, ["Asia/Tokyo"])
    assert await look(world, NOW - timedelta(hours=1)) is None


async def test_a_campaign_of_nobody_by_local_time_waits_for_the_whole_earth(world: World) -> None:
    await world.campaign(timing=Timing(schedule=NINE), rule={"tag": "there"}, status="scheduled")
    last_on_earth = datetime(2027, 3, 1, 21, tzinfo=UTC)
    assert await look(world, last_on_earth - timedelta(minutes=1)) == last_on_earth
    assert await look(world, last_on_earth) is None


@pytest.mark.parametrize("change", ["cancelled_at = now()", "audience_at = 'launch'", "audience = 3"])
async def test_a_campaign_that_need_not_wait_starts(world: World, change: str) -> None:
    await world.campaign(timing=Timing(schedule=Once(at=NOW)), status="scheduled")
    await world.sql(f"UPDATE campaigns SET {change} WHERE id = :id", id=world.campaign_id)
    assert await look(world, NOW - timedelta(days=3)) is None


async def test_an_audience_taken_early_stays_scheduled_until_its_first_start(world: World) -> None:
    await people(world, [None])
    await world.campaign(timing=Timing(schedule=Once(at=NOW)), audience_at="launch", status="scheduled")
    await snapshot(world, NOW - timedelta(days=1))
    assert ((await row(world))["status"], (await row(world))["started_at"]) == ("scheduled", None)
    finish = ActivityEnvironment().run
    await finish(activities(world).finish_campaign, reference(world, NOW - timedelta(minutes=1)))
    assert (await row(world))["status"] == "scheduled"
    assert not (await finish(activities(world).finish_campaign, reference(world, NOW))).finished
    assert (await row(world))["status"] == "running" and (await row(world))["started_at"] is not None


async def say(world: World, command: Any) -> None:
    control = Control(
        organization_id=world.organization_id, kind=ControlledKind.CAMPAIGN, id=cast(UUID, world.campaign_id), command=command
    )
    await ActivityEnvironment().run(ControlActivities(world.database, cast(Client, None)).apply_control, control)


async def test_a_scheduled_campaign_that_is_resumed_is_scheduled_again_and_its_workflow_is_told(world: World) -> None:
    await world.campaign(timing=Timing(schedule=NINE), status="scheduled")
    await say(world, "pause")
    assert (await row(world))["status"] == "paused"
    await say(world, "resume")
    assert (await row(world))["status"] == "scheduled"
    control = Control(
        organization_id=world.organization_id, kind=ControlledKind.CAMPAIGN, id=cast(UUID, world.campaign_id), command="cancel"
    )
    page = ControlPage(control=control)
    told = await ActivityEnvironment().run(ControlActivities(world.database, cast(Client, None)).controlled_workflows, page)
    assert told.workflow_ids == [f"{world.organization_id}/campaign/{world.campaign_id}"]
    await say(world, "cancel")
    assert (await snapshot(world)).runs == 0 and (await row(world))["status"] == "cancelled"


async def test_a_campaign_that_starts_now_but_has_to_wait_for_room_runs_from_its_first_start_on_after_a_pause_too(world: World) -> None:
    await publish(world, entry={"per_hour": 1})
    [other] = await people(world, [None], tag="others")
    await enter(world, other, timedelta(minutes=30))
    await people(world, [None])
    await world.campaign(exclusion={"tag": "others"})
    await snapshot(world)
    seen = [(await row(world))["status"]]
    for command in ("pause", "resume"):
        await say(world, command)
        seen.append((await row(world))["status"])
    for minutes in (29, 30):
        later = reference(world, NOW + timedelta(minutes=minutes))
        await ActivityEnvironment().run(activities(world).finish_campaign, later)
        seen.append((await row(world))["status"])
    assert seen == ["scheduled", "paused", "scheduled", "scheduled", "running"]


# --- again and again ------------------------------------------------------------------------------------------------


class Bell:
    """Stands for the client: its schedules remember what they were told."""

    def __init__(self) -> None:
        self.words: list[str] = []

    def get_schedule_handle(self, name: str) -> "Bell":
        return self

    async def pause(self, note: str) -> None:
        self.words.append("pause")

    async def unpause(self, note: str) -> None:
        self.words.append("unpause")

    async def delete(self) -> None:
        self.words.append("delete")


async def recurring(world: World, rule: str = "FREQ=DAILY;BYHOUR=9,17", **values: Any) -> Recurring:
    schedule = Recurring(rule=rule, zone="Europe/Berlin", begins_at=values.pop("begins_at", None))
    await world.campaign(timing=Timing(schedule=schedule, spread=values.pop("spread", None)), status="scheduled", **values)
    await world.sql("UPDATE campaigns SET created_at = :at WHERE id = :id", at=NOW - timedelta(days=9), id=world.campaign_id)
    return schedule


DAWN = datetime(2027, 2, 28, 20, tzinfo=UTC)  # of 1 March by a clock four hours ahead of UTC


async def make(world: World, scheduled_at: datetime = DAWN, now: datetime = DAWN) -> list[UUID]:
    assert world.campaign_id is not None
    dawn = Dawn(organization_id=world.organization_id, campaign_id=world.campaign_id, scheduled_at=scheduled_at, now=now)
    made = await ActivityEnvironment().run(activities(world).make_occurrences, dawn)
    return [cast(UUID, scope.campaign_id) for scope in made.scopes]


async def children(world: World) -> Sequence[Any]:
    return await world.sql("SELECT * FROM campaigns WHERE parent_id = :id ORDER BY nominal_at", id=world.campaign_id)


async def skips(world: World) -> list[str]:
    rows = await world.sql("SELECT details FROM audit_entries WHERE action = 'campaign.occurrence_skipped' ORDER BY sequence")
    return [entry["details"]["reason"] for entry in rows]


async def test_a_day_makes_its_occurrences_once(world: World) -> None:
    await recurring(world, rule="FREQ=DAILY;BYHOUR=9,17", exclusion={"any": [{"tag": "staff"}]}, page_size=7)
    made = await make(world)
    assert await make(world) == made and await make(world, now=DAWN + timedelta(minutes=5)) == made
    found = await children(world)
    assert [child["id"] for child in found] == made
    assert [child["nominal_at"] for child in found] == [NOW, NOW + timedelta(hours=8)]
    assert {(child["status"], child["page_size"], child["version_id"]) for child in found} == {("scheduled", 7, world.version_id)}
    assert found[0]["exclusion_rule"] == {"any": [{"tag": "staff"}]}
    assert await world.actions("campaign.") == ["campaign.launched"] * 2


async def test_by_each_recipients_clock_an_occurrence_is_missed_only_when_it_has_passed_everywhere(world: World) -> None:
    schedule = Recurring(rule="FREQ=DAILY;BYHOUR=9", zone="recipient", default_zone="Asia/Tokyo")
    await world.campaign(timing=Timing(schedule=schedule, spread=timedelta(minutes=5)), status="scheduled")
    await world.sql("UPDATE campaigns SET created_at = :at WHERE id = :id", at=NOW - timedelta(days=9), id=world.campaign_id)
    dawn, last = datetime(2027, 2, 28, 10, tzinfo=UTC), datetime(2027, 3, 1, 21, tzinfo=UTC)  # 9 o'clock by the westernmost clock
    made = await make(world, dawn, last)
    [child] = await children(world)
    assert [child["id"]] == made and child["nominal_at"] == datetime(2027, 2, 28, 19, tzinfo=UTC)
    nine = NINE.model_copy(update={"default_zone": "Asia/Tokyo", "late": "skip"})
    assert child["schedule"] == Timing(schedule=nine, spread=timedelta(minutes=5)).model_dump(mode="json")
    day = timedelta(days=1)
    assert await make(world, dawn + day, last + day + timedelta(hours=1)) == [(await children(world))[1]["id"]]
    assert await make(world, dawn + 2 * day, last + 2 * day + timedelta(hours=1, seconds=1)) == []
    assert await skips(world) == ["missed"]


async def test_a_day_that_the_interval_leaves_out_makes_nothing_and_ends_nothing(world: World) -> None:
    await recurring(world, rule="FREQ=DAILY;INTERVAL=2;BYHOUR=9;COUNT=2", begins_at=DAWN)
    days = [await make(world, DAWN + timedelta(days=day), DAWN + timedelta(days=day)) for day in range(4)]
    assert [len(made) for made in days] == [0, 1, 0, 1] and await skips(world) == []
    assert await world.one("SELECT status FROM campaigns WHERE id = :id", id=world.campaign_id) == "scheduled"
    assert await make(world, DAWN + timedelta(days=4), DAWN + timedelta(days=4)) == []
    assert await world.one("SELECT status FROM campaigns WHERE id = :id", id=world.campaign_id) == "scheduled"  # the last has not begun
    await world.sql("UPDATE campaigns SET audience = 0 WHERE parent_id = :id", id=world.campaign_id)
    assert await make(world, DAWN + timedelta(days=4), DAWN + timedelta(days=4)) == []
    assert await world.one("SELECT status FROM campaigns WHERE id = :id", id=world.campaign_id) == "completed"


async def test_what_is_cancelled_does_not_recur(world: World) -> None:
    await recurring(world)
    await world.sql("UPDATE campaigns SET cancelled_at = now(), status = 'cancelled'")
    assert await make(world) == [] and await children(world) == []
    assert await skips(world) == []


async def test_an_occurrence_that_is_due_while_its_journey_is_archived_does_not_take_place(world: World) -> None:
    await people(world, [None])
    await recurring(world)
    await world.sql("UPDATE journeys SET archived_at = now()")
    first, second = await make(world)
    world.campaign_id = first
    assert await look(world, NOW) is None and (await snapshot(world)).runs == 0
    assert (await row(world))["status"] == "cancelled" and await skips(world) == ["journey_archived"]
    await world.sql("UPDATE journeys SET archived_at = NULL")
    world.campaign_id = second
    evening = NOW + timedelta(hours=8)
    assert await look(world, evening) is None and (await snapshot(world, evening)).runs == 1
    assert await skips(world) == ["journey_archived"]


async def test_by_each_recipients_clock_it_waits_for_the_restoration_and_leaves_out_whose_time_came_before(world: World) -> None:
    _, in_berlin = await people(world, ["Asia/Tokyo", "Europe/Berlin"])
    await world.campaign(timing=Timing(schedule=Recurring(rule="FREQ=DAILY;BYHOUR=9", zone="recipient")), status="scheduled")
    await world.sql("UPDATE campaigns SET created_at = :at WHERE id = :id", at=NOW - timedelta(days=9), id=world.campaign_id)
    dawn, tokyo = datetime(2027, 2, 28, 10, tzinfo=UTC), datetime(2027, 3, 1, tzinfo=UTC)
    [world.campaign_id] = await make(world, dawn, dawn)
    await world.sql("UPDATE journeys SET archived_at = now()")
    assert await look(world, tokyo) == tokyo + timedelta(minutes=15)
    await world.sql("UPDATE journeys SET archived_at = NULL")
    a_minute_later = tokyo + timedelta(minutes=1)
    assert await look(world, a_minute_later) is None and (await snapshot(world, a_minute_later)).runs == 1
    assert await starts(world) == {in_berlin: NOW} and await skips(world) == []


async def test_a_restoration_voids_what_was_due_before_it_of_every_recurring_campaign_of_the_journey(world: World) -> None:
    """So that a worker which was away meanwhile does not start it late; what that does is tested with pauses."""
    voided = "SELECT (schedule ->> 'void_until')::timestamptz BETWEEN now() - interval '1 minute' AND now() FROM campaigns WHERE id = :id"
    await recurring(world)
    first = world.campaign_id
    await recurring(world)
    [child, *_] = await make(world)
    async with world.database.organization(world.organization_id) as session:
        await occurrences.void_of_journey(session, world.journey_id)
        await occurrences.void_of_journey(session, new_id())
    assert [await world.one(voided, id=id) for id in (first, world.campaign_id, child)] == [True, True, None]


async def test_a_journey_that_ends_on_the_day_takes_only_what_comes_before(world: World) -> None:
    await publish(world, ends_at=(NOW + timedelta(hours=1)).isoformat())
    await recurring(world)
    assert len(await make(world)) == 1 and await skips(world) == ["journey_ended"]


async def test_what_was_missed_for_more_than_an_hour_is_left_out(world: World) -> None:
    await recurring(world)
    assert len(await make(world, now=NOW + timedelta(hours=2))) == 1
    assert await skips(world) == ["missed"]
    assert len(await make(world, DAWN + timedelta(days=1), NOW + timedelta(days=1, minutes=59))) == 2


async def make_unmade(world: World, now: datetime) -> list[UUID]:
    async with world.database.organization(world.organization_id) as session:
        return [one.id for one in await occurrences.make_unmade(session, cast(UUID, world.campaign_id), now, now)]


async def test_an_occurrence_that_nobody_made_is_made_once(world: World) -> None:
    """Its day's workflow was ended before it did; should it come all the same, it finds what is there."""
    await recurring(world, begins_at=NOW)
    assert await make_unmade(world, DAWN - timedelta(seconds=1)) == []  # its day has not begun
    morning = NOW + timedelta(minutes=30)
    made = await make_unmade(world, morning)
    assert [child["nominal_at"] for child in await children(world)] == [NOW, NOW + timedelta(hours=8)]
    assert await make_unmade(world, morning) == [] and await make(world, now=morning) == made
    await world.sql("UPDATE campaigns SET finished_at = now(), status = 'completed' WHERE parent_id = :id", id=world.campaign_id)
    assert await make(world, now=NOW + timedelta(days=1)) == []  # and does not say that what took place was missed
    assert await skips(world) == [] and await world.actions("campaign.") == ["campaign.launched"] * 2


async def test_an_occurrence_that_nobody_made_in_time_is_on_record_once(world: World) -> None:
    await recurring(world, begins_at=NOW)
    late = NOW + timedelta(hours=2)
    assert len(await make_unmade(world, late)) == 1 and await make_unmade(world, late) == []
    assert len(await make(world, now=late)) == 1 and await skips(world) == ["missed"]
    async with world.database.organization(world.organization_id) as session:
        found = [(one.campaign_id, list(one.nominal_at)) for one in await occurrences.missed(session, late)]
        assert await occurrences.missed(session, NOW + timedelta(days=7)) == []
    assert found == [(world.campaign_id, [NOW])]
    await world.sql("UPDATE campaigns SET cancelled_at = now() WHERE id = :id", id=world.campaign_id)
    async with world.database.organization(world.organization_id) as session:
        assert await occurrences.missed(session, late) == []


async def test_of_all_that_campaigns_have_done_only_what_the_recurring_ones_did_is_read(world: World) -> None:
    async with world.database.organization(world.organization_id) as session:  # so many that the planner cares
        await audit.append(session, [NewEntry("campaign.launched", "campaign", str(new_id())) for _ in range(2000)])
    await analyze(world, "audit_entries")
    conditions = await index_conditions(world, occurrences._MISSED, since=NOW, ids=[str(new_id())])
    assert any("subject_id" in line for line in conditions), conditions


@pytest.mark.parametrize("stands", ["paused_at", "cancelled_at", "finished_at"])
async def test_nothing_is_made_up_for_of_a_campaign_that_stands_still(world: World, stands: str) -> None:
    await recurring(world, begins_at=NOW)
    await world.sql(f"UPDATE campaigns SET {stands} = now() WHERE id = :id", id=world.campaign_id)
    assert await make_unmade(world, NOW) == []


async def test_nothing_is_made_up_for_that_was_due_while_the_campaign_or_its_journey_stood_still(world: World) -> None:
    await recurring(world, begins_at=NOW)
    await world.sql("UPDATE journeys SET archived_at = now()")
    assert await make_unmade(world, NOW) == []
    await world.sql("UPDATE journeys SET archived_at = NULL")
    async with world.database.organization(world.organization_id) as session:
        await occurrences.void(session, cast(UUID, world.campaign_id), NOW)
    await make_unmade(world, NOW)
    assert [child["nominal_at"] for child in await children(world)] == [NOW + timedelta(hours=8)] and await skips(world) == []


async def test_an_occurrence_that_is_due_while_its_campaign_is_paused_does_not_take_place(world: World) -> None:
    await people(world, [None])
    await recurring(world)
    parent = world.campaign_id
    first, second = await make(world)
    bell = Bell()
    controls = ControlActivities(world.database, cast(Client, bell))
    for command, campaign_id, expected in [("pause", first, "cancelled"), ("resume", second, "running")]:
        control = Control.model_validate({"organization_id": world.organization_id, "kind": "campaign", "id": parent, "command": command})
        await ActivityEnvironment().run(controls.apply_control, control)
        world.campaign_id = campaign_id
        await snapshot(world, (await row(world))["nominal_at"])
        assert (await row(world))["status"] == expected
    assert bell.words == ["unpause"] and await skips(world) == ["campaign_paused"]


async def command(world: World, subject: UUID | None, word: str) -> None:
    control = Control.model_validate({"organization_id": world.organization_id, "kind": "campaign", "id": subject, "command": word})
    await ActivityEnvironment().run(ControlActivities(world.database, cast(Client, Bell())).apply_control, control)


async def test_a_day_that_begins_in_a_pause_has_its_occurrences_held(world: World) -> None:
    await recurring(world)
    await command(world, world.campaign_id, "pause")
    made = await make(world)
    found = await children(world)
    assert [child["id"] for child in found] == made and len(made) == 2 and await skips(world) == []
    assert {(child["status"], child["paused_at"]) for child in found} == {("paused", (await row(world))["paused_at"])}
    await command(world, world.campaign_id, "resume")
    assert {(child["status"], child["paused_at"]) for child in await children(world)} == {("scheduled", None)}
    await command(world, world.campaign_id, "pause")
    assert {child["status"] for child in await children(world)} == {"paused"}
    await command(world, world.campaign_id, "cancel")
    assert {child["status"] for child in await children(world)} == {"cancelled"}


@pytest.mark.parametrize("made_late", [False, True], ids=["a worker away over the pause", "a worker away since the dawn"])
async def test_what_was_due_in_a_pause_that_is_over_does_not_take_place_either(world: World, made_late: bool) -> None:
    """No worker looked while it was due."""
    await people(world, [None])
    now = utc_now()
    due = (now - timedelta(minutes=30)).replace(second=0, microsecond=0)
    schedule = Recurring(rule=f"FREQ=DAILY;BYHOUR={due.hour};BYMINUTE={due.minute}", zone="UTC")
    await world.campaign(timing=Timing(schedule=schedule), status="scheduled")
    await world.sql("UPDATE campaigns SET created_at = :at WHERE id = :id", at=now - timedelta(days=9), id=world.campaign_id)
    dawn = datetime.combine(due.date(), datetime.min.time(), UTC) - timedelta(hours=2)
    parent = world.campaign_id
    made = [] if made_late else await make(world, dawn, dawn)
    await command(world, parent, "pause")
    await command(world, parent, "resume")
    [world.campaign_id] = made or await make(world, dawn, now)
    assert (await snapshot(world, now)).runs == 0 and (await row(world))["status"] == "cancelled"
    assert await skips(world) == ["campaign_paused"]
    world.campaign_id = parent
    [later] = await make(world, dawn + timedelta(days=1), now)
    world.campaign_id = later
    assert (await snapshot(world, due + timedelta(days=1))).runs == 1


async def test_by_each_recipients_clock_it_waits_for_the_end_of_the_pause_and_leaves_out_whose_time_came_in_it(world: World) -> None:
    in_tokyo, in_berlin = await people(world, ["Asia/Tokyo", "Europe/Berlin"])
    await world.campaign(timing=Timing(schedule=Recurring(rule="FREQ=DAILY;BYHOUR=9", zone="recipient")), status="scheduled")
    await world.sql("UPDATE campaigns SET created_at = :at WHERE id = :id", at=NOW - timedelta(days=9), id=world.campaign_id)
    parent, tokyo = world.campaign_id, datetime(2027, 3, 1, tzinfo=UTC)
    first, second = [(await make(world, at, at))[0] for at in (datetime(2027, 2, day, 10, tzinfo=UTC) for day in (27, 28))]
    await command(world, parent, "pause")
    world.campaign_id = first  # it is over everywhere
    over = tokyo - timedelta(hours=3)
    assert await look(world, over - timedelta(minutes=1)) == over and await look(world, over) is None
    assert (await snapshot(world, over)).runs == 0 and await skips(world) == ["campaign_paused"]
    world.campaign_id = second
    assert await look(world, tokyo) == tokyo + timedelta(minutes=15)
    await command(world, parent, "resume")
    a_minute_later = tokyo + timedelta(minutes=1)
    assert await look(world, a_minute_later) is None and (await snapshot(world, a_minute_later)).runs == 1
    assert await starts(world) == {in_berlin: NOW} and in_tokyo not in await starts(world)
    assert (await row(world))["left_out"] == {"local_time_passed": 1} and len(await skips(world)) == 1


async def test_a_campaign_is_not_completed_before_its_last_occurrence_has_begun(world: World) -> None:
    """By the first clock on Earth it is due, but nobody's time has come."""
    await people(world, ["Europe/Berlin"])
    now = utc_now()
    schedule = Recurring(rule="FREQ=DAILY;BYHOUR=9;COUNT=1", zone="recipient")
    await world.campaign(timing=Timing(schedule=schedule), status="scheduled")
    await world.sql("UPDATE campaigns SET created_at = :at WHERE id = :id", at=now - timedelta(days=9), id=world.campaign_id)
    parent, nominal_at = world.campaign_id, next(schedule.next_after(now - timedelta(days=9), now - timedelta(days=9)))
    dawn = nominal_at - timedelta(hours=9)
    [child] = await make(world, dawn, dawn)
    await command(world, parent, "pause")
    await command(world, parent, "resume")
    assert (await row(world))["status"] == "scheduled"
    world.campaign_id = child
    await snapshot(world, nominal_at + timedelta(hours=12))
    world.campaign_id = parent
    assert (await row(world))["status"] == "completed"


async def test_a_pause_of_its_own_outlives_that_of_the_campaign(world: World) -> None:
    await recurring(world)
    parent = world.campaign_id
    first, second = await make(world)
    controls = ControlActivities(world.database, cast(Client, Bell()))
    for subject, command in [(second, "pause"), (parent, "pause"), (parent, "resume")]:
        control = Control.model_validate({"organization_id": world.organization_id, "kind": "campaign", "id": subject, "command": command})
        await ActivityEnvironment().run(controls.apply_control, control)
    world.campaign_id = parent
    assert [child["status"] for child in await children(world)] == ["scheduled", "paused"]
    assert first != second


async def test_the_campaign_is_completed_with_its_last_occurrence(world: World) -> None:
    await people(world, [None])
    await recurring(world, rule="FREQ=DAILY;BYHOUR=9;UNTIL=20270301")
    parent = world.campaign_id
    [last] = await make(world)
    assert (await row(world))["status"] == "scheduled"
    world.campaign_id = last
    await snapshot(world, NOW)
    world.campaign_id = parent
    assert (await row(world))["status"] == "completed"
    assert (await world.actions("campaign."))[-2:] == ["campaign.started", "campaign.completed"]


async def test_a_campaign_whose_last_occurrence_fell_into_a_pause_is_completed_when_it_is_resumed(world: World) -> None:
    await recurring(world, rule="FREQ=DAILY;BYHOUR=9;COUNT=2")  # long past, by the clock of the database
    await world.sql("UPDATE campaigns SET created_at = :at, paused_at = now(), status = 'paused'", at=utc_now() - timedelta(days=9))
    control = Control(
        organization_id=world.organization_id, kind=ControlledKind.CAMPAIGN, id=cast(UUID, world.campaign_id), command="resume"
    )
    await ActivityEnvironment().run(ControlActivities(world.database, cast(Client, Bell())).apply_control, control)
    assert (await row(world))["status"] == "completed"


ZONES = ("Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Pacific/Kiritimati", "Pacific/Niue", "Africa/Casablanca")


@settings(max_examples=100, deadline=None)
@given(st.sampled_from(ZONES), st.integers(0, 23), st.datetimes(datetime.fromisoformat("2027-01-01"), datetime.fromisoformat("2030-01-01")))
def test_every_moment_belongs_to_the_day_that_its_dawn_opens_and_comes_after_it(zone: str, hour: int, launched: datetime) -> None:
    schedule, launched_at = Recurring(rule=f"FREQ=DAILY;BYHOUR={hour}", zone=zone), launched.replace(tzinfo=UTC)
    first = next(schedule.next_after(launched_at, launched_at))
    day = first.astimezone(ZoneInfo(zone)).date()
    dawn = datetime.combine(day, datetime.min.time(), UTC) - timedelta(hours=schedule.dawn_offset(launched_at))
    assert dawn <= first < dawn + timedelta(hours=30)
    assert schedule.day_of(dawn, launched_at) == day and schedule.on(day, launched_at) == [first]
