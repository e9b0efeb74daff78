"""Contacts' changes and routing, side by side: each change is looked at, and none waits for another."""

from sqlalchemy import text

from models.store import changes
from tests.activities.journeys import Journeys
from tests.activities.world import World

CUSTOMER = {"name": "customer", "when": {"tag": "customer"}}
BECOMES = text("UPDATE contacts SET tags = '{customer}' WHERE organization_id = :o AND id = :id")


async def test_a_change_that_is_not_committed_yet_is_looked_at_although_routing_has_taken_an_earlier_one(world: World) -> None:
    journeys = Journeys(world)
    journey = await journeys.publish({"entry": {"triggers": [{"kind": "event", "event": "ordered"}]}, "exits": [CUSTOMER]})
    contact = await journeys.contact()
    await journeys.say(contact, "ordered")
    await journeys.route()
    await journeys.tag(contact, "vip")
    async with world.database.organization(world.organization_id) as session:
        await session.execute(BECOMES, {"o": world.organization_id, "id": contact})
        await journeys.route()
    await journeys.route()
    assert [run["exit_reason"] for run in await journeys.runs(journey)] == ["exit_rule:customer"]
    assert await world.one("SELECT count(*) FROM contact_changes") == 0


async def test_a_change_waits_neither_for_another_of_the_same_contact_nor_for_routing(world: World) -> None:
    journeys = Journeys(world)
    await journeys.publish({"exits": [CUSTOMER]})
    run = await world.contact()
    contact = world.contacts[run]
    async with world.database.organization(world.organization_id) as session:
        assert set(await changes.take(session, 10)) == {contact}
        await session.execute(BECOMES, {"o": world.organization_id, "id": contact})
        async with world.database.organization(world.organization_id) as another:
            await another.execute(text("SET LOCAL lock_timeout = '1s'"))  # of a wait that would never end
            await changes.note(another, [contact, contact])
    assert await world.one("SELECT count(*) FROM contact_changes") == 3


async def test_a_change_is_looked_at_also_in_the_look_that_the_time_brings(world: World) -> None:
    """Upkeep wakes routing for what time brings; the change that nobody has told it of is taken there, and must not be lost."""
    journeys = Journeys(world)
    journey = await journeys.publish({"entry": {"triggers": [{"kind": "event", "event": "ordered"}]}, "exits": [CUSTOMER]})
    contact = await journeys.contact()
    await journeys.say(contact, "ordered")
    await journeys.route()
    await journeys.tag(contact, "customer")
    await journeys.route(timed=True)
    assert [run["exit_reason"] for run in await journeys.runs(journey)] == ["exit_rule:customer"]
