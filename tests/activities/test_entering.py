"""Who enters when, and which events count: routing with a database, and no workflows."""

from typing import Any

import pytest

from tests.activities.journeys import Journeys
from tests.activities.world import World

ORDERED = {"kind": "event", "event": "ordered", "key": "order"}
CANCELLED = {"name": "cancelled", "event": "cancelled", "where": {"field": "event.order", "is": "equals", "value": {"run": "order"}}}
PAID = {"name": "paid", "event": "paid"}


@pytest.fixture
def journeys(world: World) -> Journeys:
    return Journeys(world)


# --- What happens while somebody waits to be let in ---------------------------------------------------------------------


async def test_what_happens_while_a_journey_is_paused_ends_and_counts_those_who_enter_then(journeys: Journeys) -> None:
    journey = await journeys.publish({"entry": {"triggers": [ORDERED]}, "exits": [CANCELLED], "goals": [PAID]})
    leaver, stayer = await journeys.contact(), await journeys.contact()
    await journeys.pause(journey)
    for contact in (leaver, stayer):
        await journeys.say(contact, "cancelled", {"order": "7"})  # before the order: another's
        await journeys.say(contact, "ordered", {"order": "7"})
    await journeys.route()
    await journeys.say(leaver, "cancelled", {"order": "7"})
    await journeys.say(stayer, "cancelled", {"order": "8"})
    await journeys.say(stayer, "paid")
    await journeys.route()
    await journeys.resume(journey)
    await journeys.route()
    runs = {run["contact_id"]: run["exit_reason"] for run in await journeys.runs(journey)}
    assert runs == {leaver: "exit_rule:cancelled", stayer: None}
    assert await journeys.goals(journey) == 1
    assert sorted(await journeys.words()) == ["exit", "start"]


async def test_what_happens_while_the_hour_is_full_counts_too(journeys: Journeys) -> None:
    draft: dict[str, Any] = {"entry": {"triggers": [ORDERED], "per_hour": 1}, "goals": [{**PAID, "exit": True}]}
    journey = await journeys.publish(draft)
    first, second = await journeys.contact(), await journeys.contact()
    for contact in (first, second):
        await journeys.say(contact, "ordered", {"order": "7"})
    await journeys.say(second, "paid")
    await journeys.route()
    assert [run["contact_id"] for run in await journeys.runs(journey)] == [first]
    await journeys.world.sql("UPDATE runs SET created_at = now() - interval '2 hours' WHERE journey_id = :id", id=journey)
    await journeys.route()
    assert [(run["contact_id"], run["exit_reason"]) for run in await journeys.runs(journey)] == [(first, None), (second, "goal:paid")]
    assert await journeys.goals(journey) == 1


async def test_what_happens_after_a_contact_fits_a_segment_counts_although_it_enters_later(journeys: Journeys) -> None:
    fits = {"kind": "segment_entered", "segment_id": "019f0000-0000-7000-8000-000000000001", "rule": {"tag": "vip"}}
    journey = await journeys.publish({"entry": {"triggers": [fits]}, "exits": [{"name": "paid", "event": "paid"}]})
    before, after = await journeys.contact(), await journeys.contact()
    await journeys.pause(journey)
    await journeys.say(before, "paid")
    await journeys.route()
    for contact in (before, after):
        await journeys.tag(contact, "vip")
    await journeys.route()
    await journeys.say(after, "paid")
    await journeys.route()
    await journeys.resume(journey)
    await journeys.route()
    runs = {run["contact_id"]: run["exit_reason"] for run in await journeys.runs(journey)}
    assert runs == {before: None, after: "exit_rule:paid"}
