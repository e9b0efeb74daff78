"""Whose planned waits are computed anew when a contact changes. Routing with a database, no workflows."""

from typing import Any
from uuid import UUID

import pytest

from models.store import outbox
from tests.activities.journeys import LEAVE, Journeys
from tests.activities.world import World

RENEWAL = {"kind": "wait", "date": {"field": "attributes.renews_on"}, "next": "x"}
BOUGHT = {"kind": "event", "event": "bought"}


@pytest.fixture
def journeys(world: World) -> Journeys:
    return Journeys(world)


async def under_way(journeys: Journeys, contact_id: UUID, step: dict[str, Any]) -> UUID:
    """A run that has just entered: nothing of it is on record."""
    entry = {"triggers": [BOUGHT], "again": "every_time"}
    journey = await journeys.publish({"start": "wait", "steps": {"wait": step, **LEAVE}, "entry": entry})
    await journeys.say(contact_id, "bought")
    await journeys.route()
    [run] = await journeys.runs(journey)
    await journeys.world.sql("UPDATE journey_triggers SET event_name = 'done' WHERE journey_id = :id", id=journey)
    return UUID(str(run["id"]))


async def reconsidered(journeys: Journeys) -> list[UUID]:
    """Those who are to be told, once."""
    async with journeys.world.database.organization(journeys.world.organization_id) as session:
        waiting = await outbox.pending(session, 1_000)
        await outbox.delivered(session, [message.id for message in waiting])
    return [message.run_id for message in waiting if message.kind == "reconsider"]


@pytest.mark.parametrize("timed", [False, True])
async def test_whoever_may_stand_at_a_planned_wait_is_told_however_far_the_record_is(journeys: Journeys, timed: bool) -> None:
    changing, other = await journeys.contact(), await journeys.contact()
    run, over = [await under_way(journeys, changing, RENEWAL) for _ in range(2)]
    await under_way(journeys, changing, {"kind": "wait", "duration": "P1D"})
    await under_way(journeys, other, RENEWAL)
    await journeys.ended(over)
    await journeys.route()
    await reconsidered(journeys)
    await journeys.tag(changing, "vip")
    await journeys.route(timed=timed)
    assert await reconsidered(journeys) == [run]


async def test_an_event_changes_no_contact(journeys: Journeys) -> None:
    contact = await journeys.contact()
    await under_way(journeys, contact, RENEWAL)
    await journeys.route()
    await reconsidered(journeys)
    await journeys.say(contact, "opened")
    await journeys.route()
    assert await reconsidered(journeys) == []


async def test_a_run_that_sleeps_elsewhere_for_long_is_left_alone(journeys: Journeys) -> None:
    contact = await journeys.contact()
    steps = {"wait": {"kind": "wait", "duration": "P30D", "next": "renewal"}, "renewal": RENEWAL, **LEAVE}
    journey = await journeys.publish({"start": "wait", "steps": steps, "entry": {"triggers": [BOUGHT]}})
    await journeys.say(contact, "bought")
    await journeys.route()
    [run] = await journeys.runs(journey)
    await journeys.world.sql("UPDATE runs SET status = 'waiting', step_id = 'wait', wake_at = now() + interval '30 days'")
    await reconsidered(journeys)
    for wake_in, told in (("30 days", []), ("1 minute", [UUID(str(run["id"]))])):
        await journeys.world.sql(f"UPDATE runs SET wake_at = now() + interval '{wake_in}'")
        await journeys.tag(contact, wake_in)
        await journeys.route()
        assert await reconsidered(journeys) == told
