"""Scenarios of entry, re-entry and correlation: behaviour that users expect."""

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
    trigger = {"kind": "event", "event": "appointment booked", "key": "appointmentId"}
    journey = await reminder(acme, topic, triggers=[trigger], again="once")
    booked = {"id": "booking-1", "name": "appointment booked", "contact_id": contact, "properties": {"appointmentId": "A1"}}
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


async def test_scenario_03_qualifying_again_counts_once_or_every_time(stack: Stack, acme: Organization) -> None:
    topic = await acme.topic()
    contact = await acme.contact()
    await acme.consent([contact], topic)
    trigger = {"kind": "event", "event": "qualified"}
    once = await reminder(acme, topic, triggers=[trigger], again="once")
    always = await reminder(acme, topic, triggers=[trigger], again="every_time")
    async with stack.working():
        for count in (1, 2):
            await acme.post("/events", {"name": "qualified", "contact_id": contact})
            await runs_of(acme, always, count, "completed")
        await all_routed(acme)
        assert len(await runs_of(acme, once, 1, "completed")) == 1
    assert list((await acme.mails()).values()) == [3]


async def test_scenario_04_three_events_are_three_runs_or_one(stack: Stack, acme: Organization) -> None:
    topic = await acme.topic()
    contact = await acme.contact()
    await acme.consent([contact], topic)
    trigger = {"kind": "event", "event": "ordered"}
    always = await reminder(acme, topic, triggers=[trigger])
    once = await reminder(acme, topic, triggers=[trigger], again="once")
    async with stack.working():
        await acme.post("/events", [{"name": "ordered", "contact_id": contact} for _ in range(3)])
        await runs_of(acme, always, 3, "completed")
        await all_routed(acme)
        assert len(await runs_of(acme, once, 1, "completed")) == 1


async def test_scenario_05_one_event_id_for_two_identities_counts_once(stack: Stack, acme: Organization) -> None:
    topic = await acme.topic()
    first, second = await acme.contacts(2)
    await acme.consent([first, second], topic)
    journey = await reminder(acme, topic, triggers=[{"kind": "event", "event": "ordered"}])
    async with stack.working():
        answer = await acme.post("/events", [{"id": "u-1", "name": "ordered", "contact_id": who} for who in (first, second)])
        await all_routed(acme)
        [run] = await runs_of(acme, journey, 1, "completed")
    assert [item["new"] for item in answer["items"]] == [True, False] and run["contact_id"] == first
    assert sum((await acme.mails()).values()) == 1


async def test_scenario_08_a_contact_taken_out_by_hand_is_not_added_again(stack: Stack, acme: Organization) -> None:
    topic = await acme.topic()
    segment = await acme.post("/segments", {"name": "Customers", "rule": {"tag": "customer"}})
    send = {"kind": "send", "template_id": await acme.template(), "topic_id": topic}
    journey = await acme.publish(
        "think",
        {"think": {"kind": "review", "approved": "mail"}, "mail": send},
        entry={"triggers": [{"kind": "segment_entered", "segment_id": segment["id"]}]},
    )
    async with stack.working():
        contact = await acme.contact(tags=["customer"])
        [run] = await runs_of(acme, journey, 1, "waiting")
        await acme.call("PUT", f"/runs/{run['id']}/cancellation", {"reason": "asked by phone"})
        await acme.until_run(run["id"], "cancelled")
        await acme.call("PATCH", f"/contacts/{contact}", {"first_name": "Changed"})  # it still fits
        await acme.call("PATCH", f"/contacts/{contact}", {"tags": ["customer", "vip"]})
        await acme.until(lambda: acme.get("/contacts", limit=1), lambda _: True)
        other = await acme.contact(tags=["customer"])  # comes after, and is taken: so the other would have been
        runs = await runs_of(acme, journey, 1, "waiting")
    assert sorted(run["contact_id"] for run in runs) == sorted([contact, other])
