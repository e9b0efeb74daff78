"""Contacts' changes and routing, side by side: each change is looked at, and none waits for another."""

import asyncio
from datetime import timedelta

import pytest
from sqlalchemy import text

from models.domain.errors import Unavailable
from models.store import changes, triggers
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


async def change(world: World, contact: object, go_on: asyncio.Event, begun: asyncio.Event) -> None:
    """In a transaction that stays open until it may go on."""
    async with world.database.organization(world.organization_id) as session:
        await session.execute(BECOMES, {"o": world.organization_id, "id": contact})
        begun.set()
        await go_on.wait()


async def listen(world: World, go_on: asyncio.Event, begun: asyncio.Event) -> None:
    async with world.database.organization(world.organization_id) as session:
        await triggers.listen(session)
        begun.set()
        await go_on.wait()


async def somebody_waits(world: World) -> None:
    waiting = """SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted AND
      ((CAST(classid AS bigint) << 32) | CAST(objid AS bigint)) = hashtextextended('listening/' || CAST(:o AS text), 0)"""
    async with asyncio.timeout(60):
        while await world.one(waiting) == 0:
            await asyncio.sleep(0.02)


async def test_who_changes_a_contact_as_listening_begins_is_waited_for(world: World) -> None:
    """Whoever publishes sees it as it is then: it is there at publication, or it is noted."""
    contact, done, begun, never = world.contacts[await world.contact()], asyncio.Event(), asyncio.Event(), asyncio.Event()
    never.set()
    changing = asyncio.create_task(change(world, contact, done, begun))
    await begun.wait()
    listening = asyncio.create_task(listen(world, never, asyncio.Event()))
    await somebody_waits(world)
    assert not await world.one("SELECT listening FROM organizations WHERE id = :o")
    done.set()
    await asyncio.gather(changing, listening)
    assert await world.one("SELECT listening FROM organizations WHERE id = :o")
    assert await world.one("SELECT count(*) FROM contact_changes") == 0
    await change(world, contact, never, asyncio.Event())
    assert await world.one("SELECT count(*) FROM contact_changes") == 1


async def test_who_changes_a_contact_while_listening_begins_is_noted(world: World) -> None:
    contact, done, begun = world.contacts[await world.contact()], asyncio.Event(), asyncio.Event()
    listening = asyncio.create_task(listen(world, done, begun))
    await begun.wait()
    changing = asyncio.create_task(change(world, contact, done, asyncio.Event()))
    await somebody_waits(world)
    done.set()
    await asyncio.gather(listening, changing)
    assert await world.one("SELECT count(*) FROM contact_changes") == 1


async def test_listening_waits_for_nobody_for_ever_nor_where_it_has_begun(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(triggers, "PATIENCE", timedelta(milliseconds=100))
    contact, done, begun, never = world.contacts[await world.contact()], asyncio.Event(), asyncio.Event(), asyncio.Event()
    never.set()
    changing = asyncio.create_task(change(world, contact, done, begun))
    await begun.wait()
    with pytest.raises(Unavailable, match="an import for instance; publish again"):
        await listen(world, never, asyncio.Event())
    await world.sql("UPDATE organizations SET listening = true WHERE id = :o")
    await listen(world, never, asyncio.Event())
    done.set()
    await changing
