"""Campaigns that start later, by each recipient's clock, or again and again; in virtual time.

A campaign's workflow is started in real time and moved on by hand; the workflows of its pages come to their starts by themselves.
"""

from collections.abc import Mapping
from datetime import UTC, date, datetime, time, timedelta
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

import pytest
from temporalio.client import ScheduleBackfill, ScheduleOverlapPolicy
from temporalio.service import RPCError, RPCStatusCode

from models.domain.journey import workflow_id
from models.domain.schedule import spread_delay
from models.tables.base import utc_now
from tests.journeys.conftest import Stack
from tests.journeys.organization import Document, Organization
from tests.models.domain.test_schedule import ZONES
from workflows.schedules import recurring_id

MOMENT = timedelta(minutes=1)
LATE = timedelta(minutes=10)  # a mail may be: virtual time goes on while a busy machine works. The nearest zones are 15 minutes apart


def in_ten_days(hour: int = 9) -> datetime:
    """What clocks on walls read then."""
    return datetime.combine(utc_now().date() + timedelta(days=10), time(hour))


def local(wall: datetime, **fields: Any) -> Document:
    return {"kind": "local", "at": wall.isoformat(), **fields}


def instant(wall: datetime, zone: str) -> datetime:
    return wall.replace(tzinfo=ZoneInfo(zone)).astimezone(UTC)


async def news(acme: Organization, topic: str, **rules: Any) -> str:
    """A journey of one mail."""
    send = {"kind": "send", "template_id": await acme.template(), "topic_id": topic}
    journey = await acme.post("/journeys", {"name": acme.name("News"), "draft": {"start": "mail", "steps": {"mail": send}, **rules}})
    await acme.post(f"/journeys/{journey['id']}/versions", None)
    return str(journey["id"])


async def people(acme: Organization, topic: str, zones: Mapping[str, str | None]) -> dict[str, str]:
    """By name: who agreed, and where they are."""
    made = {name: await acme.contact(timezone=zone) for name, zone in zones.items()}
    await acme.consent(list(made.values()), topic)
    return made


async def to(stack: Stack, acme: Organization, campaign_id: str, moment: datetime) -> None:
    """The campaign's workflow has lived until the moment, or is over."""
    handle = stack.temporal.client.get_workflow_handle(workflow_id.campaign(acme.id, UUID(campaign_id)))
    await stack.forward(handle, moment - utc_now())


async def sent_at(acme: Organization, campaign_id: str) -> dict[str, list[datetime]]:
    """When each contact's run said that its mail was accepted."""
    found: dict[str, list[datetime]] = {}
    for run in await acme.every("/runs", campaign_id=campaign_id):
        entries = [entry for entry in await acme.timeline(run["id"]) if entry["kind"] == "sent" and entry["source"] == "event"]
        found[run["contact_id"]] = [datetime.fromisoformat(entry["at"]) for entry in entries]
    return found


async def tagged(acme: Organization, topic: str, tag: str, count: int) -> list[str]:
    made = await acme.contacts(count, tags=[tag])
    await acme.consent(made, topic)
    return made


async def segment(acme: Organization, tag: str) -> str:
    return str((await acme.post("/segments", {"name": acme.name("Segment"), "rule": {"tag": tag}}))["id"])


async def tag(acme: Organization, contact_id: str, *tags: str) -> None:
    await acme.call("PATCH", f"/contacts/{contact_id}", {"tags": list(tags)})


async def taken(acme: Organization, campaign_id: str) -> set[str]:
    return {run["contact_id"] for run in await acme.every("/runs", campaign_id=campaign_id)}


async def test_scenario_06_a_scheduled_start_takes_the_list_as_it_is_then_and_nobody_else(stack: Stack, acme: Organization) -> None:
    topic = await acme.topic()
    stays, leaves = await tagged(acme, topic, "list", 2)
    joins, outside = await tagged(acme, topic, "other", 2)
    at = utc_now() + timedelta(days=3)
    async with stack.working():
        campaign_id = await acme.launch(
            await news(acme, topic), segment_id=await segment(acme, "list"), schedule={"kind": "once", "at": at.isoformat()}
        )
        await to(stack, acme, campaign_id, at - timedelta(hours=1))
        assert (await acme.campaign(campaign_id))["status"] == "scheduled" and not await taken(acme, campaign_id)
        await tag(acme, leaves, "other")
        await tag(acme, joins, "list")
        await to(stack, acme, campaign_id, at + MOMENT)
        campaign = await acme.until_campaign(campaign_id)
    assert campaign["audience"] == 2 and await taken(acme, campaign_id) == {stays, joins}
    assert set(await acme.mails()) == {(await acme.get(f"/contacts/{one}"))["email"] for one in (stays, joins)}
    assert outside not in await taken(acme, campaign_id)


async def test_scenario_46_a_campaign_without_recipients_is_refused_or_ends_with_a_reason(stack: Stack, acme: Organization) -> None:
    topic = await acme.topic()
    [leaves] = await tagged(acme, topic, "list", 1)
    journey, empty, listed = await news(acme, topic), await segment(acme, "nobody"), await segment(acme, "list")
    for fields in ({"segment_id": empty}, {"segment_id": listed, "exclude_segment_ids": [listed]}):
        answer = await acme.client.post("/v1/campaigns", json={"name": "News", "journey_id": journey, **fields})
        assert answer.status_code == 409 and answer.json()["detail"].startswith("This audience is empty")
    assert await acme.every("/campaigns") == []
    at = utc_now() + timedelta(days=3)
    later = {"kind": "once", "at": at.isoformat()}
    async with stack.working():
        left = await acme.launch(journey, segment_id=listed, schedule=later)
        excluded = await acme.launch(journey, exclude_segment_ids=[await segment(acme, "other")], schedule=later)
        await tag(acme, leaves, "other")
        for campaign_id in (left, excluded):
            await to(stack, acme, campaign_id, at + MOMENT)
        ended = [await acme.until_campaign(campaign_id) for campaign_id in (left, excluded)]
    assert [each["ended_because"]["code"] for each in ended] == ["nobody_fitted", "everybody_left_out"]
    assert [(each["audience"], each["progress"]["left_out"]) for each in ended] == [(0, {}), (0, {"excluded": 1})]
    completed = await acme.every("/audit-entries", action="campaign.completed")
    assert {entry["subject"]["id"]: entry["details"]["reason"] for entry in completed} == {
        left: "nobody_fitted",
        excluded: "everybody_left_out",
    }
    assert not await acme.mails() and await acme.every("/runs") == []


async def test_an_audience_taken_at_the_launch_is_not_changed_by_who_joins_or_leaves(stack: Stack, acme: Organization) -> None:
    topic = await acme.topic()
    stays, leaves = await tagged(acme, topic, "list", 2)
    [joins] = await tagged(acme, topic, "other", 1)
    at = utc_now() + timedelta(days=3)
    async with stack.working():
        campaign_id = await acme.launch(
            await news(acme, topic),
            segment_id=await segment(acme, "list"),
            schedule={"kind": "once", "at": at.isoformat()},
            audience_at="launch",
        )
        await acme.until(lambda: acme.campaign(campaign_id), lambda found: found["audience"] is not None)
        await tag(acme, leaves, "other")
        await tag(acme, joins, "list")
        await acme.until_campaign(campaign_id)
    assert await taken(acme, campaign_id) == {stays, leaves}
    for [moment] in (await sent_at(acme, campaign_id)).values():
        assert timedelta(0) <= moment - at < LATE


async def test_scenario_07_who_qualifies_after_the_set_time_is_not_taken(stack: Stack, acme: Organization) -> None:
    topic = await acme.topic()
    early = await tagged(acme, topic, "list", 2)
    [late] = await tagged(acme, topic, "other", 1)
    at = utc_now() + timedelta(days=1)
    async with stack.working():
        campaign_id = await acme.launch(
            await news(acme, topic), segment_id=await segment(acme, "list"), schedule={"kind": "once", "at": at.isoformat()}
        )
        await to(stack, acme, campaign_id, at + MOMENT)
        await acme.until(lambda: acme.campaign(campaign_id), lambda found: found["audience"] is not None)
        await tag(acme, late, "list")
        campaign = await acme.until_campaign(campaign_id)
    assert campaign["audience"] == 2 and await taken(acme, campaign_id) == set(early)
    assert sum((await acme.mails()).values()) == 2


async def test_scenario_13_nine_by_the_recipients_clock_with_new_york_for_those_without_a_zone(stack: Stack, acme: Organization) -> None:
    topic, wall = await acme.topic(), in_ten_days()
    places = {"tokyo": "Asia/Tokyo", "berlin": "Europe/Berlin", "nowhere": None}
    who = await people(acme, topic, places)
    async with stack.working():
        campaign_id = await acme.launch(await news(acme, topic), schedule=local(wall, default_zone="America/New_York"))
        await to(stack, acme, campaign_id, instant(wall, "Asia/Tokyo") + MOMENT)
        await acme.until_campaign(campaign_id)
    sent = await sent_at(acme, campaign_id)
    for name, zone in places.items():
        [at] = sent[who[name]]
        assert timedelta(0) <= at - instant(wall, zone or "America/New_York") < LATE, name
    assert set((await acme.mails()).values()) == {1}


async def test_scenario_15_one_page_over_five_zones_and_a_date_line_enters_everybody_once(stack: Stack, acme: Organization) -> None:
    topic, wall = await acme.topic(), in_ten_days(hour=0)
    places = {name: zone for zone in list(ZONES)[::5] for name, zone in ((f"{zone} one", zone), (f"{zone} two", zone))}
    who = await people(acme, topic, places)
    first = min(instant(wall, zone) for zone in places.values())
    async with stack.working():
        campaign_id = await acme.launch(await news(acme, topic), schedule=local(wall))
        await to(stack, acme, campaign_id, first + MOMENT)
        await acme.until_campaign(campaign_id)
    runs = await acme.every("/runs", campaign_id=campaign_id)
    assert len(set(places.values())) == 5 and len({run["workflow_id"] for run in runs}) == 1
    assert sorted(run["contact_id"] for run in runs) == sorted(who.values())
    for run in runs:
        assert [entry["kind"] for entry in await acme.timeline(run["id"]) if entry["source"] == "event"].count("entered") == 1
    sent = await sent_at(acme, campaign_id)
    for name, zone in places.items():
        [at] = sent[who[name]]
        assert at.astimezone(ZoneInfo(zone)).date() == wall.date() and timedelta(0) <= at - instant(wall, zone) < LATE


async def test_a_spread_campaign_mails_everybody_once_within_its_period(stack: Stack, acme: Organization) -> None:
    topic = await acme.topic()
    who = await tagged(acme, topic, "list", 8)
    at = utc_now() + timedelta(days=2)
    async with stack.working():
        campaign_id = await acme.launch(
            await news(acme, topic), schedule={"kind": "once", "at": at.isoformat()}, spread="PT10H", audience_at="launch"
        )
        await acme.until_campaign(campaign_id)
    sent = await sent_at(acme, campaign_id)
    for contact_id in who:
        [moment] = sent[contact_id]
        expected = at + spread_delay(UUID(campaign_id), UUID(contact_id), timedelta(hours=10))
        assert abs(moment - expected) < LATE
    assert max(sent.values()) > min(sent.values()) and set((await acme.mails()).values()) == {1}


async def test_a_scheduled_campaign_is_paused_resumed_and_cancelled_before_its_start(stack: Stack, acme: Organization) -> None:
    topic = await acme.topic()
    await tagged(acme, topic, "list", 2)
    at = (utc_now() + timedelta(days=300)).isoformat()
    async with stack.working():
        campaign_id = await acme.launch(await news(acme, topic), schedule={"kind": "once", "at": at})
        await acme.call("PUT", f"/campaigns/{campaign_id}/pause")
        assert (await acme.campaign(campaign_id))["status"] == "paused"
        await acme.call("DELETE", f"/campaigns/{campaign_id}/pause")
        await acme.until_campaign(campaign_id, "scheduled")
        await acme.call("PUT", f"/campaigns/{campaign_id}/cancellation")
        ended = await acme.until(lambda: acme.campaign(campaign_id), lambda found: found["finished_at"] is not None)
        await stack.temporal.client.get_workflow_handle(workflow_id.campaign(acme.id, UUID(campaign_id))).result()  # it does not sleep on
    assert (ended["status"], ended["audience"]) == ("cancelled", 0) and not await acme.mails()


async def test_a_campaign_that_is_paused_over_its_start_mails_nobody_until_it_is_resumed(stack: Stack, acme: Organization) -> None:
    topic = await acme.topic()
    await tagged(acme, topic, "list", 2)
    at = utc_now() + timedelta(days=1)
    async with stack.working():
        campaign_id = await acme.launch(await news(acme, topic), schedule={"kind": "once", "at": at.isoformat()})
        await acme.call("PUT", f"/campaigns/{campaign_id}/pause")
        await to(stack, acme, campaign_id, at + MOMENT)
        await acme.until(lambda: acme.campaign(campaign_id), lambda found: found["progress"]["runs"] == {"paused": 2})
        assert (await acme.campaign(campaign_id))["status"] == "paused" and not await acme.mails()
        await acme.call("DELETE", f"/campaigns/{campaign_id}/pause")
        await acme.until_campaign(campaign_id)
    assert sum((await acme.mails()).values()) == 2


async def test_a_worker_that_was_away_at_the_start_starts_the_campaign_when_it_is_back(stack: Stack, acme: Organization) -> None:
    topic = await acme.topic()
    await tagged(acme, topic, "list", 2)
    at = utc_now() + timedelta(days=1)
    campaign_id = await acme.launch(await news(acme, topic), schedule={"kind": "once", "at": at.isoformat()})
    async with stack.working():
        await to(stack, acme, campaign_id, at - timedelta(hours=1))
    async with stack.working():
        await to(stack, acme, campaign_id, at + timedelta(hours=3))
        await acme.until_campaign(campaign_id)
    assert set((await acme.mails()).values()) == {1}


async def test_the_journeys_entry_rules_hold_for_campaigns(stack: Stack, acme: Organization) -> None:
    topic = await acme.topic()
    await tagged(acme, topic, "list", 3)
    await tagged(acme, topic, "staff", 1)
    journey = await news(acme, topic, entry={"again": "once"})
    async with stack.working():
        excluded = [await segment(acme, "staff")]
        first = await acme.until_campaign(await acme.launch(journey, exclude_segment_ids=excluded))
        [late] = await tagged(acme, topic, "list", 1)
        second = await acme.until_campaign(await acme.launch(journey, exclude_segment_ids=excluded))
    assert (first["audience"], first["progress"]["left_out"]) == (3, {"excluded": 1})
    assert (second["audience"], second["progress"]["left_out"]) == (1, {"entered_before": 3, "excluded": 1})
    assert await taken(acme, second["id"]) == {late}
    assert set((await acme.mails()).values()) == {1}


def next_change(zone: ZoneInfo, gains: bool) -> date:
    """The next day on which the zone's clock goes forward (or back), at least two days ahead."""
    for day in (utc_now().date() + timedelta(days=number) for number in range(2, 400)):
        before, after = (datetime.combine(day + timedelta(days=number), time(), zone).utcoffset() for number in (0, 1))
        if before != after and (after > before) is gains:  # type: ignore[operator]
            return day
    raise AssertionError("no change")


@pytest.mark.parametrize("forward", [True, False], ids=["forward", "back"])
async def test_a_recurring_campaign_over_a_change_of_the_clock_mails_everybody_once_per_occurrence(
    stack: Stack, acme: Organization, forward: bool
) -> None:
    topic, zone = await acme.topic(), ZoneInfo("Europe/Berlin")
    who = await tagged(acme, topic, "list", 3)
    change = next_change(zone, forward)
    rule, begins_at = "FREQ=DAILY;BYHOUR=2,9;BYMINUTE=30", datetime.combine(change - timedelta(days=1), time(), zone).isoformat()
    async with stack.working():
        launched = await acme.post(
            "/campaigns",
            {
                "name": "Daily",
                "journey_id": await news(acme, topic),
                "schedule": {"kind": "recurring", "rule": rule, "zone": zone.key, "begins_at": begins_at},
            },
        )
        parent = str(launched["id"])
        assert [each["code"] for each in launched["warnings"]] == ["skipped_hour"]
        schedule = stack.temporal.client.get_schedule_handle(recurring_id(acme.id, UUID(parent)))
        begin, end = (datetime.combine(change + timedelta(days=days), time(), UTC) - timedelta(hours=12) for days in (-1, 2))
        await schedule.backfill(ScheduleBackfill(begin, end, overlap=ScheduleOverlapPolicy.ALLOW_ALL))
        expected = 5 if forward else 6  # of three days with two occurrences each, the skipped one left out
        found = await acme.until(
            lambda: acme.get("/campaigns", parent_id=parent),
            lambda page: [one["status"] for one in page["items"]] == ["completed"] * expected,
        )
    children = found["items"]
    walls = sorted(datetime.fromisoformat(one["nominal_at"]).astimezone(zone).replace(tzinfo=None) for one in children)
    wanted = [datetime.combine(change + timedelta(days=days), time(hour, 30)) for days in (-1, 0, 1) for hour in (2, 9)]
    assert walls == [wall for wall in wanted if not (forward and wall == datetime.combine(change, time(2, 30)))]
    for child in children:
        nominal_at, sent = datetime.fromisoformat(child["nominal_at"]), await sent_at(acme, child["id"])
        assert nominal_at.astimezone(zone).fold == 0 and set(sent) == set(who)
        for [moment] in sent.values():
            assert timedelta(0) <= moment - nominal_at < LATE
    assert set((await acme.mails()).values()) == {expected}


async def test_a_recurring_campaign_by_each_recipients_clock_mails_everybody_once_a_day_at_their_local_time(
    stack: Stack, acme: Organization
) -> None:
    topic, wall = await acme.topic(), in_ten_days()
    there = {zone: zone for zone in ("Pacific/Kiritimati", "Europe/Berlin", "Pacific/Niue")}
    who = await people(acme, topic, there)
    rule = f"FREQ=DAILY;BYHOUR={wall.hour};BYMINUTE={wall.minute}"
    begins_at = datetime.combine(wall.date(), time(), ZoneInfo("Pacific/Kiritimati")).isoformat()
    schedule = {"kind": "recurring", "rule": rule, "zone": "recipient", "begins_at": begins_at}
    async with stack.working():
        parent = await acme.launch(await news(acme, topic), schedule=schedule)
        days = stack.temporal.client.get_schedule_handle(recurring_id(acme.id, UUID(parent)))
        dawn = datetime.fromisoformat(begins_at)
        await days.backfill(ScheduleBackfill(dawn, dawn + timedelta(days=1), overlap=ScheduleOverlapPolicy.ALLOW_ALL))
        found = await acme.until(
            lambda: acme.get("/campaigns", parent_id=parent),
            lambda page: [one["status"] for one in page["items"]] == ["completed"] * 2,
        )
    for child in found["items"]:
        nominal_at, sent = datetime.fromisoformat(child["nominal_at"]), await sent_at(acme, child["id"])
        local_day = nominal_at.astimezone(ZoneInfo("Pacific/Kiritimati")).replace(tzinfo=None)
        for zone, contact in who.items():
            [at] = sent[contact]
            assert timedelta(0) <= at - instant(local_day, zone) < LATE, (zone, at)
    assert set((await acme.mails()).values()) == {2} and len(await acme.mails()) == len(there)


async def test_what_is_due_on_the_day_of_the_launch_takes_place(stack: Stack, acme: Organization) -> None:
    topic, zone = await acme.topic(), ZoneInfo("Asia/Kolkata")
    who = await tagged(acme, topic, "list", 2)
    soon = (utc_now() + timedelta(minutes=90)).replace(second=0, microsecond=0)
    wall = soon.astimezone(zone)
    rule = f"FREQ=DAILY;BYHOUR={wall.hour};BYMINUTE={wall.minute};COUNT=1"
    async with stack.working():
        launched = {"name": "Once more", "journey_id": await news(acme, topic)}
        parent = await acme.post("/campaigns", {**launched, "schedule": {"kind": "recurring", "rule": rule, "zone": zone.key}})
        assert [datetime.fromisoformat(each) for each in (await acme.campaign(parent["id"]))["next_at"]] == [soon]
        found = await acme.until(
            lambda: acme.get("/campaigns", parent_id=parent["id"]),
            lambda page: [one["status"] for one in page["items"]] == ["completed"],
        )
    [child] = found["items"]
    assert (await acme.campaign(parent["id"]))["status"] == "completed"  # it was the only one
    sent = await sent_at(acme, child["id"])
    assert set(sent) == set(who) and all(timedelta(0) <= moment - soon < LATE for [moment] in sent.values())
    assert set((await acme.mails()).values()) == {1}


async def test_a_recurring_campaign_opens_its_days_while_it_is_paused_too_and_none_once_it_is_cancelled(
    stack: Stack, acme: Organization
) -> None:
    topic = await acme.topic()
    await tagged(acme, topic, "list", 1)
    rule = {"kind": "recurring", "rule": "FREQ=DAILY;BYHOUR=9", "zone": "Europe/Berlin", "begins_at": in_ten_days().isoformat() + "Z"}
    async with stack.working():
        parent = str((await acme.post("/campaigns", {"name": "Daily", "journey_id": await news(acme, topic), "schedule": rule}))["id"])
        schedule = stack.temporal.client.get_schedule_handle(recurring_id(acme.id, UUID(parent)))

        async def state() -> Document:
            try:
                return {"paused": (await schedule.describe()).schedule.state.paused}
            except RPCError as error:
                return {"gone": error.status is RPCStatusCode.NOT_FOUND}

        assert await state() == {"paused": False}
        await acme.call("PUT", f"/campaigns/{parent}/pause")
        assert (await acme.campaign(parent))["status"] == "paused"
        await acme.call("DELETE", f"/campaigns/{parent}/pause")
        await acme.until_campaign(parent, "scheduled")  # by now the control workflow has obeyed both words
        assert await state() == {"paused": False}
        await acme.call("PUT", f"/campaigns/{parent}/cancellation")
        await acme.until(state, lambda found: found == {"gone": True})
    assert (await acme.campaign(parent))["status"] == "cancelled"


async def opened(stack: Stack, acme: Organization, parent: str, dawn: datetime, count: int, status: str) -> list[Document]:
    """The occurrences of the day that begins at the dawn, whose workflows sleep."""
    days = stack.temporal.client.get_schedule_handle(recurring_id(acme.id, UUID(parent)))
    await days.backfill(ScheduleBackfill(dawn - timedelta(hours=2), dawn + timedelta(hours=12), overlap=ScheduleOverlapPolicy.ALLOW_ALL))
    page = await acme.until(
        lambda: acme.get("/campaigns", parent_id=parent),
        lambda found: [one["status"] for one in found["items"]] == [status] * count,
    )
    made = sorted(page["items"], key=lambda one: str(one["nominal_at"]))
    last = stack.temporal.client.get_workflow_handle(workflow_id.campaign(acme.id, UUID(made[-1]["id"])))  # started in their order

    async def started() -> Document:
        try:
            return {"there": (await last.describe()).id}
        except RPCError as error:
            return {"gone": error.status is RPCStatusCode.NOT_FOUND}

    await acme.until(started, lambda found: "there" in found)
    return made


async def skips(acme: Organization, parent: str) -> list[tuple[datetime, str]]:
    """Which occurrences did not take place, and why."""
    entries = await acme.every("/audit-entries", action="campaign.occurrence_skipped", subject_id=parent)
    return [(datetime.fromisoformat(entry["details"]["nominal_at"]), entry["details"]["reason"]) for entry in entries]


async def test_of_a_day_that_began_in_a_pause_takes_place_what_is_due_after_it(stack: Stack, acme: Organization) -> None:
    topic = await acme.topic()
    await tagged(acme, topic, "list", 2)
    dawn = in_ten_days(0).replace(tzinfo=UTC)
    rule = {"kind": "recurring", "rule": "FREQ=DAILY;BYHOUR=9,13,17;COUNT=3", "zone": "UTC", "begins_at": dawn.isoformat()}
    async with stack.working():
        with stack.temporal.with_time_skipping_disabled():
            parent = await acme.launch(await news(acme, topic), schedule=rule)
            await acme.call("PUT", f"/campaigns/{parent}/pause")
            morning, noon, evening = await opened(stack, acme, parent, dawn, 3, "paused")
        await acme.call("DELETE", f"/campaigns/{parent}/pause")
        await acme.until_campaign(morning["id"], "scheduled")
        await to(stack, acme, morning["id"], dawn + timedelta(hours=9) + MOMENT)
        await acme.until_campaign(morning["id"])
        await acme.call("PUT", f"/campaigns/{parent}/pause")
        await to(stack, acme, noon["id"], dawn + timedelta(hours=13) + MOMENT)
        await acme.until_campaign(noon["id"], "cancelled")
        await acme.call("DELETE", f"/campaigns/{parent}/pause")
        await acme.until_campaign(evening["id"], "scheduled")
        await to(stack, acme, evening["id"], dawn + timedelta(hours=17) + MOMENT)
        await acme.until_campaign(evening["id"])
    assert (await acme.campaign(parent))["status"] == "completed"
    assert await skips(acme, parent) == [(dawn + timedelta(hours=13), "campaign_paused")]
    assert list((await acme.mails()).values()) == [2, 2]


async def test_by_each_recipients_clock_a_pause_takes_only_those_whose_time_comes_in_it(stack: Stack, acme: Organization) -> None:
    topic, wall = await acme.topic(), in_ten_days()
    who = await people(acme, topic, {"berlin": "Europe/Berlin", "new york": "America/New_York"})
    dawn = datetime.combine(wall.date(), time(), ZoneInfo("Pacific/Kiritimati"))
    rule = {"kind": "recurring", "rule": "FREQ=DAILY;BYHOUR=9;COUNT=1", "zone": "recipient", "begins_at": dawn.isoformat()}
    async with stack.working():
        with stack.temporal.with_time_skipping_disabled():
            parent = await acme.launch(await news(acme, topic), schedule=rule)
            [child] = await opened(stack, acme, parent, dawn, 1, "scheduled")
            await acme.call("PUT", f"/campaigns/{parent}/pause")
            await to(stack, acme, child["id"], instant(wall, "Europe/Berlin") + MOMENT)
            assert (await acme.campaign(child["id"]))["audience"] is None
        await acme.call("DELETE", f"/campaigns/{parent}/pause")
        ended = await acme.until_campaign(child["id"])
    assert (ended["audience"], ended["progress"]["left_out"]) == (1, {"local_time_passed": 1})
    [at] = (await sent_at(acme, child["id"]))[who["new york"]]
    assert timedelta(0) <= at - instant(wall, "America/New_York") < LATE
    assert set((await acme.mails()).values()) == {1} and await skips(acme, parent) == []


async def test_a_campaign_whose_time_came_while_its_journey_was_archived_starts_when_it_is_restored(
    stack: Stack, acme: Organization
) -> None:
    topic = await acme.topic()
    await tagged(acme, topic, "list", 2)
    at = utc_now() + timedelta(days=1)
    async with stack.working():
        journey = await news(acme, topic)
        campaign_id = await acme.launch(journey, schedule={"kind": "once", "at": at.isoformat()})
        await acme.call("PUT", f"/journeys/{journey}/archive")
        await to(stack, acme, campaign_id, at + MOMENT)
        assert (await acme.campaign(campaign_id))["status"] == "scheduled"
        await acme.call("DELETE", f"/journeys/{journey}/archive")
        await acme.until_campaign(campaign_id)
    assert list((await acme.mails()).values()) == [1, 1]


async def test_of_an_archived_journeys_recurring_campaign_takes_place_what_is_due_after_the_restoration(
    stack: Stack, acme: Organization
) -> None:
    topic = await acme.topic()
    await tagged(acme, topic, "list", 2)
    dawn = in_ten_days(0).replace(tzinfo=UTC)
    rule = {"kind": "recurring", "rule": "FREQ=DAILY;BYHOUR=9,17;COUNT=2", "zone": "UTC", "begins_at": dawn.isoformat()}
    async with stack.working():
        journey = await news(acme, topic)
        with stack.temporal.with_time_skipping_disabled():
            parent = await acme.launch(journey, schedule=rule)
            await acme.call("PUT", f"/journeys/{journey}/archive")
            morning, evening = await opened(stack, acme, parent, dawn, 2, "scheduled")
        await to(stack, acme, morning["id"], dawn + timedelta(hours=9) + MOMENT)
        await acme.until_campaign(morning["id"], "cancelled")
        await acme.call("DELETE", f"/journeys/{journey}/archive")
        await to(stack, acme, evening["id"], dawn + timedelta(hours=17) + MOMENT)
        await acme.until_campaign(evening["id"])
    assert (await acme.campaign(parent))["status"] == "completed"
    assert await skips(acme, parent) == [(dawn + timedelta(hours=9), "journey_archived")]
    assert list((await acme.mails()).values()) == [1, 1]


async def test_a_campaign_over_24_zones_reaches_everybody_once_at_their_local_time(stack: Stack, acme: Organization) -> None:
    topic, wall = await acme.topic(), in_ten_days()
    there = {name: zone for zone in ZONES for name, zone in ((f"{zone} one", zone), (f"{zone} two", zone))}
    who = await people(acme, topic, there)
    journey = await news(acme, topic)
    async with stack.working():
        campaign_id = await acme.launch(journey, schedule=local(wall), page_size=7)
        assert (await acme.campaign(campaign_id))["status"] == "scheduled"
        await to(stack, acme, campaign_id, instant(wall, "Pacific/Kiritimati") + MOMENT)
        campaign = await acme.until_campaign(campaign_id)
    assert len(ZONES) == 24 and campaign["progress"]["runs"] == {"completed": 48}
    sent = await sent_at(acme, campaign_id)
    for name, zone in there.items():
        [at] = sent[who[name]]
        assert timedelta(0) <= at - instant(wall, zone) < LATE, (zone, at)
    assert set((await acme.mails()).values()) == {1} and len(await acme.mails()) == 48
