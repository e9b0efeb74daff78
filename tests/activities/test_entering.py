"""Who enters when, and which events count: routing with a database, and no workflows."""

from typing import Any
from uuid import UUID

import pytest

from models.store import entries
from models.store.entries import Proposal
from models.tables.base import new_id
from tests.activities.journeys import Journeys
from tests.activities.world import World

ORDERED = {"kind": "event", "event": "ordered", "key": "order"}
CANCELLED = {"name": "cancelled", "event": "cancelled", "where": {"field": "event.order", "is": "equals", "value": {"run": "order"}}}
SEGMENT = "019f0000-0000-7000-8000-000000000001"
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
    fits = {"kind": "segment_entered", "segment_id": SEGMENT, "rule": {"tag": "vip"}}
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


# --- How often ----------------------------------------------------------------------------------------------------------


async def lead(journeys: Journeys, journey: UUID, contact: UUID, key: str | None = None) -> None:
    """A step of another journey leads the contact here."""
    newest = await journeys.world.one("SELECT id FROM journey_versions WHERE journey_id = :id ORDER BY number DESC", id=journey)
    async with journeys.world.database.organization(journeys.world.organization_id) as session:
        await entries.propose(session, [Proposal(journey, newest, contact, "journey", new_id(), entry_key=key)])


async def test_journeys_that_lead_into_each_other_come_to_an_end(journeys: Journeys) -> None:
    journey = await journeys.publish({})
    contact, other = await journeys.contact(), await journeys.contact()
    for _ in range(3):
        for _ in range(4):
            await lead(journeys, journey, contact)
        await journeys.route()
    assert await journeys.outcomes(journey) == [("entered", None)] * 10 + [("refused", "entered_too_often")] * 2
    await lead(journeys, journey, contact, "another key")
    await lead(journeys, journey, other)
    await journeys.route()
    assert len(await journeys.runs(journey)) == 12
    await journeys.world.sql("UPDATE runs SET created_at = now() - interval '61 minutes' WHERE journey_id = :id", id=journey)
    await lead(journeys, journey, contact)
    await journeys.route()
    assert len(await journeys.runs(journey)) == 13


async def test_a_contact_that_goes_in_and_out_of_a_segment_enters_ten_times_an_hour_and_by_events_as_often_as_they_come(
    journeys: Journeys,
) -> None:
    fits = {"kind": "segment_entered", "segment_id": SEGMENT, "rule": {"tag": "vip"}}
    journey = await journeys.publish({"entry": {"triggers": [fits, {"kind": "event", "event": "ordered"}]}})
    contact = await journeys.contact()
    for _ in range(11):
        await journeys.tag(contact, "vip")
        await journeys.route()
        await journeys.tag(contact)
        await journeys.say(contact, "ordered")
        await journeys.route()
    assert [run["entry_source"] for run in await journeys.runs(journey)] == ["segment", "event"] * 10 + ["event"]
    assert (await journeys.outcomes(journey))[-2:] == [("refused", "entered_too_often"), ("entered", None)]
