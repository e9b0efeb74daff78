"""Pausing a journey with people inside, and resuming it with care, end to end through the public API."""

import asyncio
import os
from collections import Counter
from datetime import UTC, datetime, timedelta
from functools import partial
from time import monotonic
from typing import Any

from models.tables.base import utc_now
from tests.journeys.conftest import Stack
from tests.journeys.organization import Document, Organization
from tests.journeys.test_findings import sql
from tests.journeys.test_operating import kinds, standing
from workflows.journey import JourneyWorkflow

CROWD = int(os.environ.get("LEADSTATS_TEST_CROWD", "40"))  # acceptance 7 is measured with 10,000
MINUTES = 10
PAUSED: Document = {"reason": "wrong price"}


async def pause(acme: Organization, journey: str) -> None:
    await acme.call("PUT", f"/journeys/{journey}/pause", PAUSED)


async def resume(acme: Organization, journey: str, **how: Any) -> None:
    await acme.post(f"/journeys/{journey}/resumptions", how)


async def lifted(acme: Organization, journey: str) -> None:
    await acme.until(lambda: acme.get(f"/journeys/{journey}"), lambda found: found["paused_at"] is None)


async def crowd(acme: Organization, topic: str, count: int) -> list[str]:
    """So many contacts who agreed, by import."""
    lines = "\n".join(["email,first_name", *(f"crowd{number}@example.com,Person" for number in range(count))])
    await acme.call("POST", "/contact-imports", None, files={"file": ("crowd.csv", lines.encode())})
    people = [contact["id"] for contact in await acme.every("/contacts")]
    for first in range(0, len(people), 500):
        await acme.consent(people[first : first + 500], topic)
    return people


async def test_acceptance_7_a_pause_holds_everybody_before_the_next_send_and_a_spread_keeps_the_rate(
    stack: Stack, acme: Organization
) -> None:
    topic = await acme.topic()
    await crowd(acme, topic, CROWD)
    template = await acme.template()
    steps = {
        "first": {"kind": "wait", "duration": "PT1H", "next": "mail"},
        "mail": {"kind": "send", "template_id": template, "topic_id": topic},
    }
    began = datetime.now(UTC)
    async with stack.working(CROWD):
        with stack.temporal.with_time_skipping_disabled():
            journey = await acme.publish("first", steps)
            campaign = await acme.launch(journey, page_size=min(200, CROWD))
            await everybody(acme, campaign, "waiting")
            await pause(acme, journey)
            await everybody(acme, campaign, "paused")
            runs = await standing(acme, journey, {("paused", "first"): CROWD})
        handles = [stack.temporal.client.get_workflow_handle(name) for name in sorted({run["workflow_id"] for run in runs})]
        await asyncio.gather(*(stack.temporal.fast_forward(handle, timedelta(hours=1, seconds=1)) for handle in handles))
        await asyncio.sleep(2)  # everybody's send is due
        assert await acme.mails() == {}
        with stack.temporal.with_time_skipping_disabled():
            await resume(acme, journey, spread=f"PT{MINUTES}M", reason="corrected")
            await lifted(acme, journey)
            # Who has a moment near the beginning may be on their way already.
            await acme.until(lambda: acme.campaign(campaign), lambda found: "paused" not in found["progress"]["runs"])
        resumed_at = {run["id"]: await told_at(acme, run["id"], "resumed") for run in runs[:3]}
        began_resuming = monotonic()
        skipping = [asyncio.create_task(stack.temporal.fast_forward(handle, timedelta(minutes=MINUTES + 1))) for handle in handles]
        await everybody(acme, campaign, "completed")
        runs = await standing(acme, journey, {("completed", "mail"): CROWD})
        for task in skipping:  # whether they have seen that the workflow is over does not matter
            task.cancel()
        took = monotonic() - began_resuming
    mails = await acme.mails()
    assert len(mails) == CROWD and set(mails.values()) == {1}  # nobody lost, nobody doubled
    assert all(at > began for at in resumed_at.values())
    per_minute = Counter([await minute(acme, run["id"]) for run in runs])
    print(f"resumed {CROWD} runs over {MINUTES} minutes; per minute: {[per_minute[each] for each in range(MINUTES)]}; {took:.0f} s")
    even = CROWD / MINUTES
    assert all(abs(per_minute[each] - even) < 5 * even**0.5 + 1 for each in range(MINUTES))


async def everybody(acme: Organization, campaign: str, status: str) -> None:
    """The campaign's runs all have this status. Asks for their numbers only: there may be thousands."""
    await acme.until(lambda: acme.campaign(campaign), lambda found: found["progress"]["runs"] == {status: CROWD})


async def told_at(acme: Organization, run_id: str, kind: str) -> datetime:
    [entry] = [each for each in await acme.timeline(run_id) if each["kind"] == kind]
    return datetime.fromisoformat(entry["at"])


async def minute(acme: Organization, run_id: str) -> int:
    """In which minute after the resumption the run went on. On a busy machine the last ones may be late, by what it takes to tell them."""
    at = {entry["kind"]: datetime.fromisoformat(entry["at"]) for entry in await acme.timeline(run_id) if entry["source"] == "event"}
    after = at["woke"] - at["resumed"]
    assert after < timedelta(minutes=MINUTES + 2) and at["sent"] >= at["woke"]
    return min(int(after / timedelta(minutes=1)), MINUTES - 1)


async def test_scenario_32_waiting_arriving_and_in_the_middle_of_a_send_when_paused(stack: Stack, acme: Organization) -> None:
    """None lost, none doubled; who is to enter during the pause is refused over the API, and enters at its end by an event."""
    topic = await acme.topic()
    waiting = await acme.contact(tags=["patient"])
    arriving, sending, entering = await acme.contacts(3)
    await acme.consent([waiting, arriving, sending, entering], topic)
    template = await acme.template()
    send = {"kind": "send", "template_id": template, "topic_id": topic}
    steps: Document = {
        "how_long": {"kind": "branch", "conditions": [{"when": {"tag": "patient"}, "next": "later"}], "otherwise": "soon"},
        "soon": {"kind": "wait", "duration": "PT1S", "next": "mail"},
        "later": {"kind": "wait", "duration": "PT1H", "next": "mail"},
        "mail": send,
    }
    async with stack.working():
        with stack.temporal.with_time_skipping_disabled():
            slow = (await acme.get(f"/contacts/{sending}"))["email"]
            await acme.post("/sandbox/faults", {"phase": "data", "action": "delay", "delay_ms": 10_000, "recipient": slow})
            journey = await acme.publish("how_long", steps, entry={"triggers": [{"kind": "event", "event": "joined"}]})
            other = await acme.publish("how_long", steps)
            due = await acme.start_run(journey, waiting)
            handle = stack.temporal.client.get_workflow_handle((await acme.until_run(due, "waiting"))["workflow_id"])
            mid = await acme.start_run(journey, sending)
            await acme.until(
                lambda: acme.get("/deliveries", run_id=mid), lambda found: [d for d in found["items"] if d["state"] == "transmitting"] != []
            )
            await pause(acme, journey)
            refused = await acme.client.post(f"/v1/journeys/{journey}/runs", json={"contact_id": arriving})
            assert refused.status_code == 409 and "resume it first" in refused.json()["detail"]
            await acme.post("/events", {"name": "joined", "contact_id": entering})
            await acme.until_run(mid, "completed")  # it had left already, and cannot be called back
            await acme.until_run(due, "paused")
            await acme.until(lambda: acme.get("/entries", contact_id=entering), lambda found: found["items"] != [])
            await stack.temporal.fast_forward(handle, timedelta(hours=1, seconds=1))  # the wait's end comes and goes
            await sql(stack, acme, "UPDATE runs SET wake_at = wake_at - interval '1 hour' WHERE id = :id", id=due)
            numbers = await acme.get(f"/journeys/{journey}/resumption", drop_older_than="PT1H")
            assert {name: numbers[name] for name in ("runs", "due", "sends_due", "would_drop", "entries_waiting")} == {
                "runs": 1,
                "due": 1,
                "sends_due": 1,
                "would_drop": 0,
                "entries_waiting": 1,
            }
            assert sum((await acme.mails()).values()) == 1
            await acme.call("DELETE", f"/journeys/{journey}/pause")
            await acme.until_run(due, "completed")
            await acme.until(acme.mail_count, lambda found: found["mails"] == 3)
            unaffected = await acme.start_run(other, arriving)
            await acme.until_run(unaffected, "completed")
    assert set((await acme.mails()).values()) == {1} and len(await acme.mails()) == 4
    assert await kinds(acme, due) == ["entered", "chose", "waiting", "paused", "resumed", "woke", "sent", "completed"]


async def test_whom_a_broken_connection_held_the_dialog_counts_as_due_once_it_is_mended(stack: Stack, acme: Organization) -> None:
    """They would look again in a minute, but go on at once when the journey is resumed."""
    topic = await acme.topic()
    await acme.consent(await acme.contacts(4), topic)
    template, [connection] = await acme.template(), (await acme.get("/connections"))["items"]
    await acme.post("/sandbox/faults", {"phase": "auth", "action": "refuse"})
    journey = await acme.publish("mail", {"mail": {"kind": "send", "template_id": template, "topic_id": topic}})
    async with stack.working():
        with stack.temporal.with_time_skipping_disabled():
            await acme.launch(journey)
            await standing(acme, journey, {("held", "mail"): 4})
            await pause(acme, journey)
            await standing(acme, journey, {("paused", "mail"): 4})
            await acme.call("DELETE", "/sandbox/faults")
            await asyncio.sleep(1)  # the inbox looks for its faults every half second
            assert (await acme.post(f"/connections/{connection['id']}/checks", None))["ok"]
            numbers = await acme.get(f"/journeys/{journey}/resumption", drop_older_than="PT0S")
            await resume(acme, journey)
            await standing(acme, journey, {("completed", "mail"): 4})
    assert numbers["by_status"] == {"held": 4}
    assert [numbers[name] for name in ("due", "sends_due", "would_drop")] == [4, 4, 4]
    assert set((await acme.mails()).values()) == {1}


async def test_resuming_drops_what_is_overdue_and_whoever_no_longer_fits(stack: Stack, acme: Organization) -> None:
    fits = await acme.contacts(2, tags=["vip"])
    leaves = await acme.contact(tags=["vip"])
    segment = (await acme.post("/segments", {"name": "VIP", "rule": {"tag": "vip"}}))["id"]
    async with stack.working():
        with stack.temporal.with_time_skipping_disabled():
            by_kind: Document = {
                "which": {"kind": "branch", "conditions": [{"when": {"tag": "slow"}, "next": "long"}], "otherwise": "short"},
                "short": {"kind": "wait", "duration": "PT1H", "next": "end"},
                "long": {"kind": "wait", "duration": "P30D", "next": "end"},
                "end": {"kind": "exit", "reason": "went_on"},
            }
            journey = await acme.publish("which", by_kind)
            await acme.call("PATCH", f"/contacts/{fits[1]}", {"tags": ["vip", "slow"]})
            await acme.call("PATCH", f"/contacts/{leaves}", {"tags": ["vip", "slow"]})
            await acme.launch(journey, segment_id=segment)
            await standing(acme, journey, {("waiting", "short"): 1, ("waiting", "long"): 2})
            await pause(acme, journey)
            runs = await standing(acme, journey, {("paused", "short"): 1, ("paused", "long"): 2})
            await acme.call("PATCH", f"/contacts/{leaves}", {"tags": ["slow"]})
            overdue = "UPDATE runs SET wake_at = now() - interval '1 minute' WHERE step_id = 'short'"
            await sql(stack, acme, overdue)
            numbers = await acme.get(f"/journeys/{journey}/resumption", drop_older_than="PT1S")
            assert {name: numbers[name] for name in ("runs", "by_status", "due", "sends_due", "would_drop", "no_longer_fit")} == {
                "runs": 3,
                "by_status": {"waiting": 3},
                "due": 1,
                "sends_due": 0,
                "would_drop": 1,
                "no_longer_fit": 1,
            }
            assert [each["runs"] for each in numbers["overdue"]] == [1, 0, 0, 0, 0] and numbers["oldest_due_at"] is not None
            wrong = await acme.client.post(f"/v1/journeys/{journey}/resumptions", json={"spread": "PT0S"})
            assert (wrong.status_code, wrong.json()["errors"][0]["path"]) == (422, "spread")
            await resume(acme, journey, drop_older_than="PT1S", recheck_entry=True)
            await standing(acme, journey, {("exited", "short"): 1, ("exited", "long"): 1, ("waiting", "long"): 1})
            reasons = {run["contact_id"]: (await acme.run(run["id"]))["reason"] for run in runs}
            entries = await acme.every("/audit-entries", action="journey.runs_left_out", subject_id=journey)
    assert reasons == {fits[0]: "overdue", leaves: "no_longer_fits", fits[1]: None}
    assert [entry["details"] for entry in entries] == [{"overdue": 1, "no_longer_fits": 1}]


async def test_who_came_to_a_step_beneath_the_pause_is_not_overdue_since_its_beginning(stack: Stack, acme: Organization) -> None:
    """At a wait nothing is due yet, for its end is worked out only then; at another step something is, since the run came there."""
    elsewhere = ("paid", "date", "look", "label")
    half_a_day_away = f"{utc_now() + timedelta(hours=12):%H:%M}"
    ways = [{"when": {"tag": step}, "next": step} for step in elsewhere]
    steps: Document = {
        "where": {"kind": "branch", "conditions": ways, "otherwise": "long"},
        "long": {"kind": "wait", "duration": "P3D", "next": "end"},
        "paid": {"kind": "wait_for", "events": [{"event": "paid", "next": "end"}], "timeout": "P7D", "timeout_next": "end"},
        "date": {"kind": "wait", "until": {"time": half_a_day_away}, "next": "end"},
        "look": {"kind": "review", "approved": "end"},
        "label": {"kind": "update_contact", "add_tags": ["seen"], "next": "end"},
        "end": {"kind": "exit", "reason": "went_on"},
    }
    async with stack.working():
        with stack.temporal.with_time_skipping_disabled():
            journey = await acme.publish("where", steps)
            runs = [await acme.start_run(journey, contact) for contact in await acme.contacts(len(elsewhere))]
            await standing(acme, journey, {("waiting", "long"): len(runs)})
            await pause(acme, journey)
            await standing(acme, journey, {("paused", "long"): len(runs)})
            await sql(stack, acme, "UPDATE journeys SET paused_at = paused_at - interval '2 hours' WHERE id = :id", id=journey)
            for run, step in zip(runs, elsewhere, strict=True):
                await acme.call("PUT", f"/runs/{run}/jump", {"step_id": step, "reason": "sent elsewhere"})
            await standing(acme, journey, {("paused", step): 1 for step in elsewhere})
            numbers = await acme.get(f"/journeys/{journey}/resumption", drop_older_than="PT1H")
            jumped_at = await told_at(acme, runs[-1], "jumped")
            assert numbers["by_status"] == {"active": 3, "waiting": 1}  # a review asks nothing but a person
            assert [numbers[name] for name in ("due", "sends_due", "would_drop")] == [1, 0, 0]
            assert datetime.fromisoformat(numbers["oldest_due_at"]) == jumped_at
            await resume(acme, journey, drop_older_than="PT1H")
            gone_on: dict[tuple[str, str | None], int] = {("waiting", step): 1 for step in elsewhere[:-1]}
            await standing(acme, journey, gone_on | {("exited", "end"): 1})


async def test_who_came_to_fit_a_segment_in_the_pause_and_no_longer_does_at_its_end_does_not_enter(
    stack: Stack, acme: Organization
) -> None:
    segment = (await acme.post("/segments", {"name": "VIP", "rule": {"tag": "vip"}}))["id"]
    stays, goes = await acme.contacts(2)
    async with stack.working():
        with stack.temporal.with_time_skipping_disabled():
            entry = {"triggers": [{"kind": "segment_entered", "segment_id": segment}]}
            journey = await acme.publish("end", {"end": {"kind": "exit", "reason": "went_on"}}, entry=entry)
            await pause(acme, journey)
            for contact in (stays, goes):
                await acme.call("PATCH", f"/contacts/{contact}", {"tags": ["vip"]})
            await acme.until(lambda: acme.get("/entries", journey_id=journey), lambda found: len(found["items"]) == 2)
            await acme.call("PATCH", f"/contacts/{goes}", {"tags": []})
            numbers = await acme.get(f"/journeys/{journey}/resumption")
            await resume(acme, journey, recheck_entry=True)
            [run] = await standing(acme, journey, {("exited", "end"): 1})
            entries = await acme.every("/entries", journey_id=journey)
    assert (numbers["entries_waiting"], numbers["entries_no_longer_fit"], numbers["no_longer_fit"]) == (2, 1, 0)
    assert run["contact_id"] == stays
    assert {(each["contact_id"], each["outcome"], each["reason"]) for each in entries} == {
        (stays, "entered", None),
        (goes, "refused", "no_longer_fits"),
    }


async def test_paused_runs_stand_still_and_then_go_on_from_where_they_were(stack: Stack, acme: Organization) -> None:
    """A moment that comes in the pause is not waited for again; an awaited event and a review are kept until the pause is over."""
    half_a_day_away = f"{utc_now() + timedelta(hours=12):%H:%M}"
    contacts = [await acme.contact(tags=[tag]) for tag in ("timed", "paying", "new")]
    steps: Document = {
        "who": {
            "kind": "branch",
            "conditions": [{"when": {"tag": "timed"}, "next": "later"}, {"when": {"tag": "paying"}, "next": "paid"}],
            "otherwise": "look",
        },
        "later": {"kind": "wait", "until": {"time": half_a_day_away}, "next": "end"},
        "paid": {"kind": "wait_for", "events": [{"event": "paid", "next": "end"}]},
        "look": {"kind": "review", "approved": "end"},
        "end": {"kind": "exit", "reason": "went_on"},
    }
    async with stack.working():
        with stack.temporal.with_time_skipping_disabled():
            journey = await acme.publish("who", steps)
            timed, paying, looked_at = runs = [await acme.start_run(journey, contact) for contact in contacts]
            for run in runs:
                await acme.until_run(run, "waiting")
            await pause(acme, journey)
            for run in runs:
                await acme.until_run(run, "paused")
            handle = stack.temporal.client.get_workflow_handle((await acme.run(timed))["workflow_id"])
            [waits] = [entry for entry in await acme.timeline(timed) if entry["kind"] == "waiting"]
            wakes_at = (await acme.run(timed))["wake_at"]
            await stack.temporal.fast_forward(handle, datetime.fromisoformat(wakes_at) - datetime.fromisoformat(waits["at"]))
            for contact in contacts:
                await acme.post("/events", {"name": "paid", "contact_id": contact})
            await acme.call("PATCH", f"/contacts/{contacts[0]}", {"tags": ["timed", "seen"]})  # as if the end of its wait might be another
            for run in (timed, paying):
                await acme.until(partial(asking, stack, acme, run), lambda found: found["asks"] is True)
            answer = await acme.call("PUT", f"/runs/{looked_at}/review", {"decision": "approved", "reason": "looked at it"})
            assert answer.json()["status"] == "paused"
            standing_still = await standing(acme, journey, {("paused", step): 1 for step in ("later", "paid", "look")})
            assert {run["wake_at"] for run in standing_still if run["id"] == timed} == {wakes_at}
            await acme.call("DELETE", f"/journeys/{journey}/pause")
            await standing(acme, journey, {("exited", "end"): 3})
    assert await kinds(acme, timed) == ["entered", "chose", "waiting", "paused", "resumed", "woke", "exited"]
    assert await kinds(acme, paying) == ["entered", "chose", "waiting", "paused", "resumed", "matched", "exited"]
    assert await kinds(acme, looked_at) == ["entered", "chose", "review_asked", "paused", "review_approved", "resumed", "exited"]


async def asking(stack: Stack, acme: Organization, run_id: str) -> Document:
    """Whether the run's workflow has heard that something happened, and will ask."""
    handle = stack.temporal.client.get_workflow_handle((await acme.run(run_id))["workflow_id"])
    [state] = await handle.query(JourneyWorkflow.runs)
    return {"asks": state.asks_from is not None}
