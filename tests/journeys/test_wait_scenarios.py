"""Scenarios of waits, time and branching: behaviour that users expect."""

from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

from sqlalchemy import text

from tests.journeys.conftest import Stack
from tests.journeys.organization import Document, Organization
from tests.journeys.test_entry_scenarios import all_routed, runs_of


async def mail(acme: Organization, topic: str, next: str | None = None, **fields: Any) -> Document:
    return {"kind": "send", "template_id": await acme.template(**fields), "topic_id": topic, "next": next}


async def kinds(acme: Organization, run_id: str) -> list[str]:
    return [entry["kind"] for entry in await acme.timeline(run_id) if entry["source"] == "event"]


async def test_scenario_09_a_wait_that_times_out_takes_the_timeout_way_once(stack: Stack, acme: Organization) -> None:
    topic = await acme.topic()
    contact = await acme.contact()
    await acme.consent([contact], topic)
    wait = {"kind": "wait_for", "events": [{"event": "bought", "next": None}], "timeout": "P2D", "timeout_next": "mail"}
    journey = await acme.publish("wait", {"wait": wait, "mail": await mail(acme, topic)})
    async with stack.working():
        run = await acme.start_run(journey, contact)
        await acme.until_run(run, "completed")
        await acme.post("/events", {"name": "bought", "contact_id": contact})  # too late
        await all_routed(acme)
    assert await kinds(acme, run) == ["entered", "waiting", "timed_out", "sent", "completed"]
    assert list((await acme.mails()).values()) == [1]


async def test_scenario_10_a_condition_that_is_true_already_leaves_no_timer_behind(stack: Stack, acme: Organization) -> None:
    topic = await acme.topic()
    contact = await acme.contact(tags=["vip"])
    await acme.consent([contact], topic)
    wait = {"kind": "wait_for", "conditions": [{"when": {"tag": "vip"}, "next": "mail"}], "timeout": "P9D"}
    journey = await acme.publish("wait", {"wait": wait, "mail": await mail(acme, topic)})
    async with stack.working():
        run = await acme.start_run(journey, contact)
        await acme.until_run(run, "completed")
        history = await stack.services.temporal.get_workflow_handle(f"{acme.id}/run/{run}").fetch_history()
    assert await kinds(acme, run) == ["entered", "matched", "sent", "completed"]
    assert not any(event.HasField("timer_started_event_attributes") for event in history.events)


async def test_scenario_11_joining_a_second_segment_by_an_event_ends_the_wait(stack: Stack, acme: Organization) -> None:
    topic = await acme.topic()
    trial = await acme.post("/segments", {"name": "Trial", "rule": {"tag": "trial"}})
    payers = await acme.post("/segments", {"name": "Payers", "rule": {"event": {"name": "paid", "at_least": 2}}})
    wait = {"kind": "wait_for", "conditions": [{"when": {"segment": payers["id"]}, "next": "mail"}], "timeout": "P30D"}
    journey = await acme.publish(
        "wait",
        {"wait": wait, "mail": await mail(acme, topic)},
        entry={"triggers": [{"kind": "segment_entered", "segment_id": trial["id"]}]},
    )
    async with stack.working():
        with stack.temporal.with_time_skipping_disabled():
            contact = await acme.contact(tags=["trial"])
            await acme.consent([contact], topic)
            await runs_of(acme, journey, 1, "waiting")
            await acme.post("/events", {"name": "paid", "contact_id": contact})
            await all_routed(acme)
            assert (await acme.every("/runs", journey_id=journey))[0]["status"] == "waiting"
            await acme.post("/events", {"name": "paid", "contact_id": contact})
            await runs_of(acme, journey, 1, "completed")
    assert list((await acme.mails()).values()) == [1]


async def test_scenario_12_leaving_the_segment_ends_the_run_in_the_middle_of_a_delay(stack: Stack, acme: Organization) -> None:
    topic = await acme.topic()
    contact = await acme.contact(tags=["trial"])
    await acme.consent([contact], topic)
    trial = await acme.post("/segments", {"name": "Trial", "rule": {"tag": "trial"}})
    journey = await acme.publish(
        "pause",
        {"pause": {"kind": "wait", "duration": "P30D", "next": "mail"}, "mail": await mail(acme, topic)},
        exits=[{"name": "left_trial", "when": {"not": {"segment": trial["id"]}}}],
    )
    async with stack.working():
        with stack.temporal.with_time_skipping_disabled():
            run = await acme.start_run(journey, contact)
            await acme.until_run(run, "waiting")
            await acme.call("PATCH", f"/contacts/{contact}", {"tags": []})
            ended = await acme.until_run(run, "exited")
    assert ended["reason"] == "exit_rule:left_trial" and not await acme.mails()
    assert await kinds(acme, run) == ["entered", "waiting", "exited"]


async def test_scenario_14_an_invalid_zone_falls_back_to_the_organizations_and_the_record_says_so(stack: Stack, acme: Organization) -> None:
    topic = await acme.topic()
    await acme.call("PATCH", "/organization", {"timezone": "America/New_York"})
    contact = await acme.contact()
    await acme.consent([contact], topic)
    async with stack.services.database.organization(acme.id) as session:
        await session.execute(text("UPDATE contacts SET timezone = 'Mars/Olympus_Mons'"))
    journey = await acme.publish(
        "morning", {"morning": {"kind": "wait", "until": {"time": "09:00"}, "next": "mail"}, "mail": await mail(acme, topic)}
    )
    async with stack.working():
        run = await acme.start_run(journey, contact)
        await acme.until_run(run, "completed")
    [waiting] = [entry for entry in await acme.timeline(run) if entry["kind"] == "waiting"]
    until = datetime.fromisoformat(waiting["until"])
    assert until.astimezone(UTC).hour in (13, 14)  # nine in New York, in summer or in winter
    assert {key: waiting["details"][key] for key in ("zone", "zone_of", "contact_zone")} == {
        "zone": "America/New_York",
        "zone_of": "organization",
        "contact_zone": "invalid",
    }


async def test_scenario_16_in_quiet_hours_one_message_waits_and_the_other_is_dropped(stack: Stack, acme: Organization) -> None:
    topic = await acme.topic()
    now = datetime.now(UTC)
    start, end = f"{(now.hour - 1) % 24:02}:00", f"{(now.hour + 2) % 24:02}:00"
    await acme.call("PATCH", "/organization", {"quiet_hours": {"email": {"start": start, "end": end}}, "timezone": "UTC"})
    holding, dropping = await acme.contacts(2, timezone="UTC")
    await acme.consent([holding, dropping], topic)
    held = await acme.publish("mail", {"mail": await mail(acme, topic)})
    dropped = await acme.publish("mail", {"mail": {**await mail(acme, topic), "in_quiet_hours": "drop"}})
    async with stack.working():
        waits = await acme.start_run(held, holding)
        skips = await acme.start_run(dropped, dropping)
        await acme.until_run(waits, "completed")
        await acme.until_run(skips, "completed")
    [hold] = [entry for entry in await acme.timeline(waits) if entry["kind"] == "held"]
    assert datetime.fromisoformat(hold["until"]).strftime("%H:%M") == end
    [skip] = [entry for entry in await acme.timeline(skips) if entry["kind"] == "not_sent"]
    assert skip["reason"] == "quiet_hours" and "quiet hours" in skip["sentence"]
    assert sum((await acme.mails()).values()) == 1


async def test_scenario_17_a_wait_ends_once_also_when_no_worker_ran_at_its_time(stack: Stack, acme: Organization) -> None:
    topic = await acme.topic()
    contact = await acme.contact()
    await acme.consent([contact], topic)
    journey = await acme.publish("pause", {"pause": {"kind": "wait", "duration": "PT1H", "next": "mail"}, "mail": await mail(acme, topic)})
    with stack.temporal.with_time_skipping_disabled():
        async with stack.working():
            run = await acme.start_run(journey, contact)
            waiting = await acme.until_run(run, "waiting")
            handle = stack.temporal.client.get_workflow_handle(waiting["workflow_id"])
            await stack.at_rest(handle)
        assert not await acme.mails()
        await stack.temporal.fast_forward(handle, timedelta(hours=1, seconds=1))  # its time comes, and nobody is there
        assert (await acme.run(run))["status"] == "waiting"
        async with stack.working():
            await acme.until_run(run, "completed")
    woke = next(entry for entry in await acme.timeline(run) if entry["kind"] == "woke")
    assert datetime.fromisoformat(woke["at"]) >= datetime.fromisoformat(waiting["wake_at"])
    assert list((await acme.mails()).values()) == [1]


async def test_scenario_18_contact_and_event_are_judged_together(stack: Stack, acme: Organization) -> None:
    topic = await acme.topic()
    german, french = await acme.contact(country="DE"), await acme.contact(country="FR")
    await acme.consent([german, french], topic)
    where = {"all": [{"field": "country", "is": "equals", "value": "DE"}, {"field": "event.total", "is": "at_least", "value": 100}]}
    journey = await acme.publish(
        "mail", {"mail": await mail(acme, topic)}, entry={"triggers": [{"kind": "event", "event": "ordered", "where": where}]}
    )
    orders = [(german, 50), (german, 120), (french, 500)]
    async with stack.working():
        await acme.post("/events", [{"name": "ordered", "contact_id": who, "properties": {"total": total}} for who, total in orders])
        await all_routed(acme)
        runs = await runs_of(acme, journey, 1, "completed")
    assert [run["contact_id"] for run in runs] == [german]


async def test_scenario_19_the_first_match_wins_on_attributes_and_on_events(stack: Stack, acme: Organization) -> None:
    topic = await acme.topic()
    people = {"both": await acme.contact(country="DE", tags=["vip"]), "vip": await acme.contact(tags=["vip"]), "none": await acme.contact()}
    await acme.consent(list(people.values()), topic)
    half_a_day_away = (datetime.now(UTC) + timedelta(hours=12)).astimezone(ZoneInfo("Europe/Berlin"))
    steps = {
        "who": {
            "kind": "branch",
            "conditions": [
                {"name": "Germans", "when": {"field": "country", "is": "equals", "value": "DE"}, "next": "morning"},
                {"name": "VIPs", "when": {"tag": "vip"}, "next": "bye"},
            ],
            "otherwise": "lost",
        },
        "morning": {"kind": "wait", "until": {"time": f"{half_a_day_away:%H:%M}", "default_zone": "Europe/Berlin"}, "next": "did"},
        "did": {
            "kind": "branch",
            "conditions": [
                {"name": "bought", "when": {"event": {"name": "bought", "since": "entry"}}, "next": "bye"},
                {"name": "opened", "when": {"event": {"name": "opened", "since": "entry"}}, "next": "mail"},
            ],
            "otherwise": "lost",
        },
        "mail": await mail(acme, topic),
        "bye": {"kind": "exit", "reason": "vip"},
        "lost": {"kind": "exit", "reason": "nothing_fits"},
    }
    journey = await acme.publish("who", steps)
    async with stack.working():
        with stack.temporal.with_time_skipping_disabled():
            runs = {name: await acme.start_run(journey, contact) for name, contact in people.items()}
            await acme.until_run(runs["both"], "waiting")
            await acme.post("/events", {"name": "opened", "contact_id": people["both"]})
            await all_routed(acme)
        handle = stack.services.temporal.get_workflow_handle(f"{acme.id}/run/{runs['both']}")
        await stack.temporal.fast_forward(handle, timedelta(days=2))
        ended = {name: await acme.until_run(run, "completed", "exited") for name, run in runs.items()}
    assert {name: (run["status"], run["reason"]) for name, run in ended.items()} == {
        "both": ("completed", None),
        "vip": ("exited", "vip"),
        "none": ("exited", "nothing_fits"),
    }
    chosen = [entry["details"]["name"] for entry in await acme.timeline(runs["both"]) if entry["kind"] == "chose"]
    assert chosen == ["Germans", "opened"]


async def test_scenario_20_a_way_back_needs_a_delay_and_ends(stack: Stack, acme: Organization) -> None:
    topic = await acme.topic()
    contact = await acme.contact()
    await acme.consent([contact], topic)
    round_without = {"mail": await mail(acme, topic, "mail2"), "mail2": await mail(acme, topic, "mail")}
    endless = await acme.post("/journeys", {"name": "Endless", "draft": {"start": "mail", "steps": round_without}})
    problems = (await acme.get(f"/journeys/{endless['id']}/check"))["problems"]
    assert [problem["code"] for problem in problems] == ["loop_without_wait"]
    round_with = {"mail": await mail(acme, topic, "pause"), "pause": {"kind": "wait", "duration": "P1D", "next": "mail"}}
    journey = await acme.publish("mail", round_with, max_visits=3)
    async with stack.working():
        run = await acme.start_run(journey, contact)
        ended = await acme.until_run(run, "exited")
    assert ended["reason"] == "loop_limit" and list((await acme.mails()).values()) == [3]


async def test_scenario_21_openers_go_on_at_once_and_the_others_after_the_wait(stack: Stack, acme: Organization) -> None:
    topic = await acme.topic()
    people = await acme.contacts(50, tags=["all"])
    await acme.consent(people, topic)
    openers = set(people[::5])
    steps = {
        "mail": await mail(acme, topic, "opens"),
        "opens": {"kind": "wait_for", "events": [{"event": "opened", "next": "thanks"}], "timeout": "P3D", "timeout_next": "again"},
        "thanks": {"kind": "exit", "reason": "opened"},
        "again": {"kind": "exit", "reason": "not_opened"},
    }
    journey = await acme.publish("mail", steps)
    async with stack.working():
        with stack.temporal.with_time_skipping_disabled():
            campaign = await acme.launch(journey)
            await acme.until(lambda: acme.campaign(campaign), lambda found: found["progress"]["runs"] == {"waiting": 50})
            await acme.post("/events", [{"name": "opened", "contact_id": contact} for contact in openers])
            await acme.until(lambda: acme.campaign(campaign), lambda found: found["progress"]["runs"].get("exited") == 10)
        page = stack.services.temporal.get_workflow_handle(f"{acme.id}/campaign/{campaign}/page/0")
        assert all(run["reason"] == "opened" for run in await acme.every("/runs", campaign_id=campaign, status="exited"))
        await stack.temporal.fast_forward(page, timedelta(days=4))
        await acme.until(lambda: acme.campaign(campaign), lambda found: found["progress"]["runs"] == {"exited": 50})
    reasons = {run["contact_id"]: run["reason"] for run in await acme.every("/runs", campaign_id=campaign)}
    assert reasons == {contact: "opened" if contact in openers else "not_opened" for contact in people}
    assert set((await acme.mails()).values()) == {1}


async def test_scenario_22_deliveries_of_a_hidden_event_stay_out_of_lists(stack: Stack, acme: Organization) -> None:
    topic = await acme.topic()
    contact = await acme.contact()
    await acme.consent([contact], topic)
    journey = await acme.publish("mail", {"mail": await mail(acme, topic)}, entry={"triggers": [{"kind": "event", "event": "ordered"}]})
    async with stack.working():
        await acme.post("/events", {"name": "ordered", "contact_id": contact, "hidden": True})
        await runs_of(acme, journey, 1, "completed")
    assert sum((await acme.mails()).values()) == 1
    assert await acme.every("/deliveries") == []
    assert len(await acme.every("/deliveries", hidden=True)) == 1


async def test_an_event_that_comes_after_its_wait_was_skipped_ends_the_next_one(stack: Stack, acme: Organization) -> None:
    """It comes while the message between the two is held."""
    topic = await acme.topic()
    contact = await acme.contact(timezone="UTC")
    await acme.consent([contact], topic)
    now = datetime.now(UTC)
    night = {"start": f"{(now.hour - 1) % 24:02}:00", "end": f"{(now.hour + 2) % 24:02}:00"}
    await acme.call("PATCH", "/organization", {"quiet_hours": {"email": night}, "timezone": "UTC"})
    first, second = ({"kind": "wait_for", "events": [{"event": "paid", "next": next}]} for next in ("mail", "end"))
    steps = {"first": first, "mail": await mail(acme, topic, "second"), "second": second, "end": {"kind": "exit", "reason": "paid"}}
    journey = await acme.publish("first", steps)
    async with stack.working():
        with stack.temporal.with_time_skipping_disabled():
            run = await acme.start_run(journey, contact)
            await acme.until_run(run, "waiting")
            await acme.call("PUT", f"/runs/{run}/skip", {"reason": "paid by post"})
            held = await acme.until_run(run, "held")
            await acme.post("/events", {"name": "paid", "contact_id": contact})
            await all_routed(acme)
            handle = stack.temporal.client.get_workflow_handle(held["workflow_id"])
            await stack.temporal.fast_forward(handle, timedelta(hours=3))
            await acme.until_run(run, "exited")
    assert await kinds(acme, run) == ["entered", "waiting", "skipped", "held", "woke", "sent", "matched", "exited"]
    assert list((await acme.mails()).values()) == [1]


async def test_dates_at_the_calendars_ends_keep_nobody_else_waiting(stack: Stack, acme: Organization) -> None:
    """Other systems write 0001-01-01 for "nothing", and 9999-12-31 for "never"."""
    await acme.call("PATCH", "/organization", {"attribute_schema": {"renews_on": {"type": "date"}}})
    usual = [await acme.contact(attributes={"renews_on": "2020-11-01"}) for _ in range(3)]
    empty = await acme.contact(attributes={"renews_on": "0001-01-01"})
    never = await acme.contact(attributes={"renews_on": "9999-12-31"}, timezone="Pacific/Pago_Pago")
    late = {"kind": "wait", "date": {"field": "attributes.renews_on", "offset": "P1D"}, "spread": "P7D", "next": "early"}
    early = {"kind": "wait", "date": {"field": "attributes.renews_on", "offset": "-P7D"}}
    journey = await acme.publish("pause", {"pause": {"kind": "wait", "duration": "PT1S", "next": "late"}, "late": late, "early": early})
    async with stack.working():
        with stack.temporal.with_time_skipping_disabled():
            await acme.launch(journey)
            await runs_of(acme, journey, 4, "completed")
            [waits] = [run for run in await acme.every("/runs", journey_id=journey) if run["status"] != "completed"]
            assert (waits["contact_id"], waits["status"], waits["wake_at"][:10]) == (never, "waiting", "9999-12-31")
            assert "9999" in (await acme.timeline(waits["id"]))[-1]["sentence"]
            await acme.call("PATCH", f"/contacts/{never}", {"attributes": {"renews_on": "0001-01-01"}})
            await acme.until_run(waits["id"], "completed")
            runs = {run["contact_id"]: run["id"] for run in await acme.every("/runs", journey_id=journey)}
    for contact in (*usual, empty):
        assert [entry["kind"] for entry in await acme.timeline(runs[contact])].count("not_waited") == 2
