"""Scenarios of entry, re-entry and correlation: behaviour that users expect, under the numbers of the reference."""

from typing import Any

from tests.journeys.conftest import Stack
from tests.journeys.organization import Document, Organization


async def reminder(acme: Organization, topic: str, **entry: Any) -> str:
    """A journey entered by an event that mails once."""
    send = {"kind": "send", "template_id": await acme.template(), "topic_id": topic}
    return await acme.publish("remind", {"remind": send}, entry=entry)


async def runs_of(acme: Organization, journey: str, count: int, *statuses: str) -> list[Document]:
    """The journey's runs, once there are so many in one of these statuses."""

    async def look() -> Document:
        runs = await acme.every("/runs", journey_id=journey)
        return {"runs": runs, "settled": [run for run in runs if run["status"] in statuses]}

    return list((await acme.until(look, lambda found: len(found["settled"]) >= count))["runs"])


async def all_routed(acme: Organization) -> None:
    async def look() -> Document:
        entries = [entry for entry in await acme.every("/entries") if entry["outcome"] == "pending"]
        return {"unrouted": [event for event in await acme.every("/events") if event["routed_at"] is None], "pending": entries}

    await acme.until(look, lambda found: not found["unrouted"] and not found["pending"])


async def test_scenario_01_the_same_event_twice_starts_one_run(stack: Stack, acme: Organization) -> None:
    topic = await acme.topic()
    contact = await acme.contact()
    await acme.consent([contact], topic)
    trigger = {"kind": "event", "event": "appointment booked", "key": "appointment_id"}
    journey = await reminder(acme, topic, triggers=[trigger], again="once")
    booked = {"id": "booking-1", "name": "appointment booked", "contact_id": contact, "properties": {"appointment_id": "A1"}}
    async with stack.working():
        answers = [await acme.post("/events", booked) for _ in range(2)]
        again = await acme.post("/events", booked | {"id": "booking-1b"})  # said anew by the other system
        await all_routed(acme)
        [run] = await runs_of(acme, journey, 1, "completed")
    assert [answer["items"][0]["new"] for answer in answers] == [True, False]
    assert again["items"][0]["new"] is True
    assert run["entry_key"] == "A1" and run["entry_source"] == "event"
    assert list((await acme.mails()).values()) == [1]
    refused = [entry for entry in await acme.every("/entries", journey_id=journey) if entry["outcome"] == "refused"]
    assert [entry["reason"] for entry in refused] == ["entered_before"]


async def test_scenario_02_a_related_event_of_another_name_ends_the_wait(stack: Stack, acme: Organization) -> None:
    topic = await acme.topic()
    buyer, leaver = await acme.contacts(2)
    await acme.consent([buyer, leaver], topic)
    checked_out = {
        "event": "checked out",
        "where": {"field": "event.cart_id", "is": "equals", "value": {"run": "cart_id"}},
        "next": None,
    }
    journey = await acme.publish(
        "cart",
        {
            "cart": {"kind": "wait_for", "events": [checked_out], "timeout": "PT2H", "timeout_next": "remind"},
            "remind": {"kind": "send", "template_id": await acme.template(), "topic_id": topic},
        },
        entry={"triggers": [{"kind": "event", "event": "cart created", "key": "cart_id"}]},
    )
    async with stack.working():
        with stack.temporal.with_time_skipping_disabled():
            created = [{"name": "cart created", "contact_id": who, "properties": {"cart_id": f"C-{who}"}} for who in (buyer, leaver)]
            await acme.post("/events", created)
            await acme.post("/events", {"name": "checked out", "contact_id": leaver, "properties": {"cart_id": "another"}})
            await acme.post("/events", {"name": "checked out", "contact_id": buyer, "properties": {"cart_id": f"C-{buyer}"}})
            await runs_of(acme, journey, 1, "completed")
        assert not await acme.mails()
