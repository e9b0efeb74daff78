"""What ends, counts and begins a run from outside its steps, over the public API."""

from datetime import timedelta
from typing import Any

from models.tables.base import utc_now
from tests.journeys.conftest import Stack
from tests.journeys.organization import Document, Organization
from tests.journeys.test_entry_scenarios import all_routed, runs_of
from tests.journeys.test_schedules import to


async def mail(acme: Organization, topic: str, next: str | None = None) -> Document:
    return {"kind": "send", "template_id": await acme.template(), "topic_id": topic, "next": next}


async def test_an_exit_event_ends_a_run_at_once_in_the_middle_of_a_long_wait(stack: Stack, acme: Organization) -> None:
    topic = await acme.topic()
    leaver, stayer = await acme.contacts(2)
    await acme.consent([leaver, stayer], topic)
    steps = {"pause": {"kind": "wait", "duration": "P30D", "next": "mail"}, "mail": await mail(acme, topic)}
    bought = {"name": "bought", "event": "bought", "where": {"field": "event.total", "is": "greater", "value": 10}}
    journey = await acme.publish("pause", steps, exits=[bought])
    async with stack.working():
        with stack.temporal.with_time_skipping_disabled():
            leaves, stays = await acme.start_run(journey, leaver), await acme.start_run(journey, stayer)
            await runs_of(acme, journey, 2, "waiting")
            small, large = ({"name": "bought", "contact_id": leaver, "properties": {"total": total}} for total in (5, 50))
            await acme.post("/events", [{**small, "contact_id": stayer}, small, large])
            ended = await acme.until_run(leaves, "exited")
            await all_routed(acme)
            assert (await acme.run(stays))["status"] == "waiting"
    assert ended["reason"] == "exit_rule:bought" and not await acme.mails()
    [left] = [entry for entry in await acme.timeline(leaves) if entry["kind"] == "exited"]
    assert "exit rule" in left["sentence"]


async def test_a_goal_is_counted_once_within_its_window_and_may_end_the_run(stack: Stack, acme: Organization) -> None:
    topic = await acme.topic()
    people = await acme.contacts(3)
    await acme.consent(people, topic)
    steps = {"pause": {"kind": "wait", "duration": "P30D", "next": "mail"}, "mail": await mail(acme, topic)}
    goals = [{"name": "purchase", "event": "bought", "window": "P1D", "exit": True}, {"name": "visit", "event": "visited"}]
    journey = await acme.publish("pause", steps, goals=goals)
    async with stack.working():
        with stack.temporal.with_time_skipping_disabled():
            for contact in people:
                await acme.start_run(journey, contact)
            await runs_of(acme, journey, 3, "waiting")
            late = {"name": "bought", "contact_id": people[1], "occurred_at": "2020-01-01T00:00:00Z"}  # before the run: by its own clock
            events: list[Any] = [{"name": "bought", "contact_id": people[0]}, late]
            events += [{"name": "visited", "contact_id": people[2]} for _ in range(3)]
            await acme.post("/events", events)
            await all_routed(acme)
            await runs_of(acme, journey, 1, "exited")
    counts = {count["goal"]: (count["runs"], count["reached"]) for count in (await acme.get(f"/journeys/{journey}/goals"))["items"]}
    assert counts["visit"] == (3, 1) and counts["purchase"] == (3, 1)
    [gone] = [run for run in await acme.every("/runs", journey_id=journey) if run["status"] == "exited" and run["contact_id"] == people[0]]
    assert gone["reason"] == "goal:purchase"


async def test_a_run_that_enters_when_its_exit_condition_holds_already_leaves(stack: Stack, acme: Organization) -> None:
    topic = await acme.topic()
    contact = await acme.contact(tags=["customer"])
    await acme.consent([contact], topic)
    steps = {"pause": {"kind": "wait", "duration": "P3D", "next": "mail"}, "mail": await mail(acme, topic)}
    trigger = {"kind": "event", "event": "signed up"}
    journey = await acme.publish("pause", steps, exits=[{"name": "customer", "when": {"tag": "customer"}}], entry={"triggers": [trigger]})
    async with stack.working():
        with stack.temporal.with_time_skipping_disabled():
            await acme.post("/events", {"name": "signed up", "contact_id": contact})
            [run] = await runs_of(acme, journey, 1, "exited")
    assert run["reason"] == "exit_rule:customer" and not await acme.mails()


async def test_whom_an_exit_rule_about_contacts_ends_already_gets_no_mail_whatever_brings_them_in(stack: Stack, acme: Organization) -> None:
    topic = await acme.topic()
    customer, reader = await acme.contact(tags=["customer"]), await acme.contact()
    await acme.consent([customer, reader], topic)
    rules = {
        "exits": [{"name": "customer", "when": {"tag": "customer"}}],
        "goals": [{"name": "reader", "when": {"not": {"tag": "customer"}}}],
    }
    entry = {"triggers": [{"kind": "event", "event": "signed up"}]}
    journey = await acme.publish("mail", {"mail": await mail(acme, topic)}, entry=entry, **rules)
    async with stack.working():
        campaign = await acme.until_campaign(await acme.launch(journey))
        for contact in (customer, reader):
            await acme.start_run(journey, contact)
        await acme.post("/events", [{"name": "signed up", "contact_id": contact} for contact in (customer, reader)])
        await runs_of(acme, journey, 3, "completed")
        ended = [run for run in await runs_of(acme, journey, 3, "exited") if run["status"] == "exited"]
    assert campaign["progress"]["runs"] == {"completed": 1, "exited": 1}
    assert {(run["contact_id"], run["reason"]) for run in ended} == {(customer, "exit_rule:customer")}
    assert {run["entry_source"] for run in ended} == {"campaign", "api", "event"}
    for run in ended:
        assert [entry["kind"] for entry in await acme.timeline(run["id"]) if entry["source"] == "event"] == ["entered", "exited"]
    [address] = {await acme.address(run) for run in await acme.every("/runs", contact_id=reader)}
    assert await acme.mails() == {address: 3}
    [goal] = (await acme.get(f"/journeys/{journey}/goals"))["items"]
    assert (goal["runs"], goal["reached"]) == (6, 3)


async def test_another_journey_is_entered_by_its_own_rules_and_told_the_variables(stack: Stack, acme: Organization) -> None:
    topic = await acme.topic()
    contact = await acme.contact()
    await acme.consent([contact], topic)
    thanks = {"kind": "send", "template_id": await acme.template(text="Order {{ run.order }}. {{ unsubscribe_url }}"), "topic_id": topic}
    other = await acme.publish("thanks", {"thanks": thanks}, entry={"again": "once"})
    enter = {"kind": "enter_journey", "journey_id": other, "variables": {"order": "order_id"}, "key": "order_id"}
    first = await acme.publish("enter", {"enter": enter})
    async with stack.working():
        parents = [await acme.start_run(first, contact, variables={"order_id": order}) for order in ("A1", "A1", "B2")]
        for parent in parents:
            await acme.until_run(parent, "completed")
        runs = await runs_of(acme, other, 2, "completed")
        await all_routed(acme)
    assert sorted(run["entry_key"] for run in runs) == ["A1", "B2"] and {run["parent_run_id"] for run in runs} <= set(parents)
    refused = [entry["reason"] for entry in await acme.every("/entries", journey_id=other) if entry["outcome"] == "refused"]
    assert refused == ["entered_before"]
    messages = await acme.every("/sandbox/messages")
    assert len(messages) == 2


async def test_who_is_to_enter_a_paused_journey_enters_when_it_goes_on(stack: Stack, acme: Organization) -> None:
    topic = await acme.topic()
    contact = await acme.contact()
    await acme.consent([contact], topic)
    journey = await acme.publish("mail", {"mail": await mail(acme, topic)}, entry={"triggers": [{"kind": "event", "event": "ordered"}]})
    async with stack.working():
        await acme.call("PUT", f"/journeys/{journey}/pause")
        await acme.post("/events", {"name": "ordered", "contact_id": contact})
        await acme.until(lambda: acme.get("/events"), lambda found: found["items"][0]["routed_at"] is not None)
        assert await acme.every("/runs", journey_id=journey) == []
        await acme.call("DELETE", f"/journeys/{journey}/pause")
        await runs_of(acme, journey, 1, "completed")
    assert sum((await acme.mails()).values()) == 1


async def test_only_so_many_enter_in_an_hour_and_the_others_wait(stack: Stack, acme: Organization) -> None:
    people = await acme.contacts(5)
    trigger = {"kind": "event", "event": "ordered"}
    journey = await acme.publish("bye", {"bye": {"kind": "exit"}}, entry={"triggers": [trigger], "per_hour": 3})
    async with stack.working():
        await acme.post("/events", [{"name": "ordered", "contact_id": contact} for contact in people])
        await runs_of(acme, journey, 3, "exited")
        refused = await acme.client.post(f"/v1/journeys/{journey}/runs", json={"contact_id": people[0]})
        assert refused.status_code == 409 and "as it takes in an hour" in refused.json()["detail"]
    entries = await acme.every("/entries", journey_id=journey)
    assert [(entry["outcome"], entry["reason"]) for entry in entries if entry["outcome"] == "pending"] == [
        ("pending", "too_many_this_hour")
    ] * 2


async def test_a_wait_for_a_date_moves_with_the_date(stack: Stack, acme: Organization) -> None:
    topic = await acme.topic()
    await acme.call("PATCH", "/organization", {"attribute_schema": {"renews": {"type": "date"}}})
    contact = await acme.contact(timezone="Europe/Berlin", attributes={"renews": "2031-07-10"})
    await acme.consent([contact], topic)
    wait = {"kind": "wait", "date": {"field": "attributes.renews", "offset": "-P1D", "time": "10:00"}, "next": "mail"}
    journey = await acme.publish("wait", {"wait": wait, "mail": await mail(acme, topic)})
    async with stack.working():
        with stack.temporal.with_time_skipping_disabled():
            run = await acme.start_run(journey, contact)
            first = await acme.until_run(run, "waiting")
            await acme.call("PATCH", f"/contacts/{contact}", {"attributes": {"renews": "2031-12-24"}})
            moved = await acme.until(lambda: acme.run(run), lambda found: found["wake_at"] != first["wake_at"])
            await acme.call("PATCH", f"/contacts/{contact}", {"attributes": {"renews": "2020-01-01"}})
            await acme.until_run(run, "completed")
    assert first["wake_at"].startswith("2031-07-09T08:00") and moved["wake_at"].startswith("2031-12-23T09:00")
    assert sum((await acme.mails()).values()) == 1
    assert [entry["kind"] for entry in await acme.timeline(run) if entry["source"] == "event"][1:4] == [
        "waiting",
        "rescheduled",
        "not_waited",
    ]


async def test_a_review_waits_for_a_person_and_takes_their_way(stack: Stack, acme: Organization) -> None:
    first, second = await acme.contacts(2)
    steps = {
        "look": {"kind": "review", "approved": "good", "rejected": "bad"},
        "good": {"kind": "exit", "reason": "good"},
        "bad": {"kind": "exit", "reason": "bad"},
    }
    journey = await acme.publish("look", steps)
    async with stack.working():
        runs = [await acme.start_run(journey, contact) for contact in (first, second)]
        for run, decision in zip(runs, ("approved", "rejected"), strict=True):
            await acme.until_run(run, "waiting")
            await acme.call("PUT", f"/runs/{run}/review", {"decision": decision, "reason": "looked at it"})
        ended = [(await acme.until_run(run, "exited"))["reason"] for run in runs]
        answer = await acme.client.put(f"/v1/runs/{runs[0]}/review", json={"decision": "approved"})
    assert ended == ["good", "bad"] and answer.status_code == 409


async def test_scenario_33_what_is_not_published_executes_nothing_keeps_its_schedule_and_marks_nobody(
    stack: Stack, acme: Organization
) -> None:
    topic = await acme.topic()
    contact = await acme.contact()
    await acme.consent([contact], topic)
    steps = {"mail": await mail(acme, topic)}
    entry = {"triggers": [{"kind": "event", "event": "ordered"}]}
    draft = str((await acme.post("/journeys", {"name": "Draft", "draft": {"start": "mail", "steps": steps, "entry": entry}}))["id"])
    away = await acme.publish("mail", steps, entry=entry)
    at = utc_now() + timedelta(days=3)
    async with stack.working():
        campaign = await acme.launch(away, schedule={"kind": "once", "at": at.isoformat()})
        await acme.call("PUT", f"/journeys/{away}/archive")
        before = await acme.get(f"/contacts/{contact}")
        await acme.post("/events", {"name": "ordered", "contact_id": contact})
        await all_routed(acme)
        for journey in (draft, away):
            started = await acme.client.post(f"/v1/journeys/{journey}/runs", json={"contact_id": contact})
            launched = await acme.client.post("/v1/campaigns", json={"name": "Now", "journey_id": journey})
            assert (started.status_code, launched.status_code) == (409, 409)
        await to(stack, acme, campaign, at + timedelta(hours=3))  # its time comes and goes
        assert not await acme.mails() and await acme.every("/runs") == [] and await acme.every("/deliveries") == []
        assert [(each["journey_id"], each["outcome"], each["reason"]) for each in await acme.every("/entries")] == [
            (away, "refused", "journey_archived")
        ]
        assert await acme.get(f"/contacts/{contact}") == before
        kept = await acme.campaign(campaign)
        assert (kept["status"], kept["schedule"]["kind"], kept["audience"], kept["ended_because"]) == ("scheduled", "once", None, None)
        await acme.call("DELETE", f"/journeys/{away}/archive")
        await to(stack, acme, campaign, at + timedelta(hours=6))
        assert (await acme.until_campaign(campaign))["progress"]["runs"] == {"completed": 1}
    assert sum((await acme.mails()).values()) == 1


async def test_a_second_reviewer_of_a_paused_run_hears_that_it_is_decided(stack: Stack, acme: Organization) -> None:
    contact = await acme.contact()
    steps = {"look": {"kind": "review", "approved": "good", "rejected": None}, "good": {"kind": "exit", "reason": "good"}}
    journey = await acme.publish("look", steps)
    async with stack.working():
        run = await acme.start_run(journey, contact)
        await acme.until_run(run, "waiting")
        await acme.call("PUT", f"/runs/{run}/pause", {})
        await acme.call("PUT", f"/runs/{run}/review", {"decision": "approved"})
        second = await acme.client.put(f"/v1/runs/{run}/review", json={"decision": "rejected"})
        assert (second.status_code, second.json()["detail"]) == (409, "The run's review is decided already.")
        await acme.call("DELETE", f"/runs/{run}/pause")
        ended = await acme.until_run(run, "exited")
    assert ended["reason"] == "good"


async def test_a_second_approval_of_a_review_does_not_approve_the_next_one(stack: Stack, acme: Organization) -> None:
    """Two people look at the first of two reviews, and both approve it; on a loop the same step may be the next one."""
    steps = {
        "legal": {"kind": "review", "approved": "budget", "rejected": None},
        "budget": {"kind": "review", "approved": "good", "rejected": "legal"},
        "good": {"kind": "exit", "reason": "good"},
    }
    journey = await acme.publish("legal", steps)
    async with stack.working():
        run = await acme.start_run(journey, await acme.contact())

        async def decide(step: str, visit: int, decision: str = "approved") -> tuple[int, str | None]:
            body = {"decision": decision, "step_id": step, "visit": visit}
            answer = await acme.client.put(f"/v1/runs/{run}/review", json=body)
            return answer.status_code, answer.json().get("detail")

        async def until_at(step: str) -> None:
            await acme.until(lambda: acme.run(run), lambda found: (found["status"], found["step_id"]) == ("waiting", step))

        await until_at("legal")
        assert await decide("legal", 1) == (200, None)
        await until_at("budget")
        left = "The run has left that step; it stands at {} now{}. Say again what is meant, with that step."
        assert await decide("legal", 1) == (409, left.format("budget", ""))
        assert await decide("budget", 1, "rejected") == (200, None)
        await until_at("legal")
        assert await decide("legal", 1) == (409, left.format("legal", ", at its visit 2"))
        await acme.call("PUT", f"/runs/{run}/review", {"decision": "approved"})
        await until_at("budget")
        await acme.call("PUT", f"/runs/{run}/review", {"decision": "approved"})
        ended = await acme.until_run(run, "exited")
    decided = [(entry["kind"], entry["step_id"], entry["visit"]) for entry in await acme.timeline(run) if entry["kind"] in DECISIONS]
    assert decided == [
        ("review_approved", "legal", 1),
        ("review_rejected", "budget", 1),
        ("review_approved", "legal", 2),
        ("review_approved", "budget", 2),
    ]
    assert ended["reason"] == "good"


DECISIONS = ("review_approved", "review_rejected")
