"""Replaying runs, end to end through the public API: nothing is sent twice, and what was missed is sent once."""

import asyncio
import os
from collections import Counter
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import text
from temporalio.client import WorkflowHandle

from tests.journeys.conftest import Stack
from tests.journeys.organization import PATIENCE, Document, Organization
from tests.journeys.test_effects import working
from tests.receiver import Receiver, receiving

REASON = "the mail server was down"
RUNS = int(os.environ.get("LEADSTATS_REPLAYS", "60"))  # of the bulk replay


async def preview(acme: Organization, run_id: str, **asked: Any) -> Document:
    return await acme.post(f"/runs/{run_id}/replays/preview", asked)


async def replay(acme: Organization, run_id: str, **asked: Any) -> str:
    return str((await acme.post(f"/runs/{run_id}/replays", {"reason": REASON, **asked}))["id"])


def numbers(found: Document) -> dict[str, int]:
    return {name: found[name] for name in ("kept", "to_do", "possible", "uncertain", "resent") if found[name]}


async def subjects(acme: Organization) -> Counter[str]:
    return Counter(message["subject"] for message in await acme.every("/sandbox/messages"))


async def two_mails(acme: Organization, topic: str, between: Document | None = None) -> str:
    """A journey of two mails, "First" and "Second", with a short wait, or whatever is given, in between."""
    send = {"kind": "send", "topic_id": topic}
    steps = {
        "first": {**send, "template_id": await acme.template("First"), "next": "between"},
        "between": between or {"kind": "wait", "duration": "PT1H", "next": "second"},
        "second": {**send, "template_id": await acme.template("Second")},
    }
    return await acme.publish("first", steps)


async def refuse_content(acme: Organization) -> None:
    """From now on the mail server takes nothing, and says that it never will: runs park at once."""
    await fail(acme, "data", "refuse")


async def fail(acme: Organization, phase: str, action: str, **fields: Any) -> None:
    await acme.post("/sandbox/faults", {"phase": phase, "action": action, **fields})
    await let_it_look(acme)


async def mend(acme: Organization) -> None:
    await acme.call("DELETE", "/sandbox/faults")
    await let_it_look(acme)


async def let_it_look(acme: Organization) -> None:
    """The inbox has seen which faults there are: nobody is judged by what was known half a second ago."""
    await asyncio.sleep(0.6)
    [connection] = (await acme.get("/connections"))["items"]
    await acme.call("POST", f"/connections/{connection['id']}/checks")


async def consenting(acme: Organization) -> tuple[str, str]:
    """A topic, and a contact that agreed to it."""
    topic, contact = await acme.topic(), await acme.contact()
    await acme.consent([contact], topic)
    return topic, contact


async def test_scenario_44_a_rerun_repeats_neither_mails_nor_webhooks_and_a_rerun_of_it_still_works(
    stack: Stack, acme: Organization
) -> None:
    topic, contact = await consenting(acme)
    async with receiving() as receiver, working(stack, receiver):
        save = {"order_id": {"path": "id", "type": "string"}}
        webhook = {"kind": "call_webhook", "url": receiver.url, "body": {"x": "1"}, "save": save, "next": "second"}
        receiver.says(200, {"id": "A-1"})
        journey = await two_mails(acme, topic, webhook)
        first = await broken_at_second(acme, receiver, journey, contact)
        seen = await preview(acme, first, from_step="first")
        assert numbers(seen) == {"kept": 2, "to_do": 1} and not seen["content_differs"]
        assert (seen["first_send"], [check["outcome"] for check in seen["checks"]]) == ("second", ["send", "send"])
        second = await replay(acme, first, from_step="first")
        await acme.until_run(second, "needs_attention")  # the server is still down: nothing is repeated by that either
        assert numbers(await preview(acme, second)) == {"to_do": 1}  # where it stopped
        await mend(acme)
        third = await replay(acme, second, from_step="first")
        ended = await acme.until_run(third, "completed")
    assert await subjects(acme) == {"First": 1, "Second": 1} and len(receiver.received) == 1
    assert (ended["replay_of"], ended["root_run_id"], ended["variables"]) == (second, first, {"order_id": "A-1"})
    closed = [await acme.run(run) for run in (first, second)]
    assert [(run["status"], run["reason"], run["replayed_by"]) for run in closed] == [
        ("exited", "replayed", second),
        ("exited", "replayed", third),
    ]
    told = [entry["sentence"] for entry in await acme.timeline(third) if entry["source"] == "event"]
    assert told[0].startswith(f'Goes on in the place of the run {second} at "first", on the same version') and told[0].endswith(REASON)
    assert [sentence.split(":")[0] for sentence in told[2:4]] == ['Kept "first"', 'Kept "between"']
    assert all(f"by the run {first} on " in sentence for sentence in told[2:4])
    assert any(entry["sentence"].startswith(f'Replayed at "first" by the run {second}') for entry in await acme.timeline(first))
    history = await stack.services.temporal.get_workflow_handle(closed[0]["workflow_id"]).describe()
    assert history.status is not None and history.status.name == "COMPLETED"  # the first run's workflow was told


async def broken_at_second(acme: Organization, receiver: Receiver, journey: str, contact: str) -> str:
    """A run that got its first mail and its webhook, and parked at the second mail."""
    hear = asyncio.Event()

    async def wait(received: object) -> None:
        await refuse_content(acme)
        hear.set()

    receiver.before = wait
    run = await acme.start_run(journey, contact)
    await acme.until_run(run, "needs_attention")
    receiver.before = None
    assert hear.is_set() and await subjects(acme) == {"First": 1}
    return run


async def test_a_step_that_is_of_another_kind_by_now_is_done_as_the_dry_run_says(stack: Stack, acme: Organization) -> None:
    """What updated the contact in the version that the run was on sends a message in the newest."""
    topic, contact = await consenting(acme)
    journey = await acme.publish("one", {"one": {"kind": "update_contact", "add_tags": ["seen"]}})
    async with stack.working():
        first = await acme.start_run(journey, contact)
        await acme.until_run(first, "completed")
        etag = (await acme.client.get(f"/v1/journeys/{journey}")).headers["ETag"]
        mail = {"kind": "send", "template_id": await acme.template("Second"), "topic_id": topic}
        await acme.call(
            "PATCH", f"/journeys/{journey}/draft", {"draft": {"start": "one", "steps": {"one": mail}}}, headers={"If-Match": etag}
        )
        await acme.post(f"/journeys/{journey}/versions", None)
        seen = await preview(acme, first, from_step="one", version="current")
        assert (numbers(seen), seen["first_send"]) == ({"to_do": 1}, "one")
        second = await replay(acme, first, from_step="one", version="current")
        await acme.until_run(second, "completed")
    assert await subjects(acme) == {"Second": 1}


@pytest.mark.parametrize("version", ["original", "current"])
async def test_scenario_45_the_original_version_says_what_it_said_and_the_current_one_the_new(
    stack: Stack, acme: Organization, version: str
) -> None:
    topic, contact = await consenting(acme)
    journey = await two_mails(acme, topic)
    async with stack.working():
        with stack.temporal.with_time_skipping_disabled():
            run = await acme.start_run(journey, contact)
            await acme.until_run(run, "waiting")
        await refuse_content(acme)
        await acme.call("PUT", f"/runs/{run}/cancellation", {"reason": "wrong words"})
        old = (await acme.get(f"/journeys/{journey}"))["draft"]
        steps = {**old["steps"], "second": {**old["steps"]["second"], "template_id": await acme.template("Better")}}
        await acme.call("PATCH", f"/journeys/{journey}/draft", {"draft": {**old, "steps": steps}}, headers={"If-Match": '"1"'})
        await acme.post(f"/journeys/{journey}/versions", None)
        await mend(acme)
        seen = await preview(acme, run, from_step="first", version=version)
        new = await replay(acme, run, from_step="first", version=version)
        await acme.until_run(new, "completed")
    is_new = version == "current"
    assert (seen["content_differs"], seen["version"]["number"], seen["original"]["number"]) == (is_new, 2 if is_new else 1, 1)
    assert {each["step_id"]: (each["standing"], each["content_differs"]) for each in seen["effects"]} == {
        "first": ("kept", False),
        "second": ("to_do", is_new),
    }
    assert await subjects(acme) == {"First": 1, "Better" if is_new else "Second": 1}


async def test_a_message_that_may_have_been_sent_is_left_to_a_person(stack: Stack, acme: Organization) -> None:
    """Not sent by a replay, nor by trying again; only when somebody asks for exactly that."""
    topic, contact = await consenting(acme)
    journey = await two_mails(acme, topic)
    await fail(acme, "data", "drop_after_dot", remaining=1)
    async with stack.working():
        run = await acme.start_run(journey, contact)
        await acme.until_run(run, "needs_attention")
        seen = await preview(acme, run)
        assert numbers(seen) == {"uncertain": 1, "to_do": 1} and seen["first_send"] == "second"
        new = await replay(acme, run)
        parked = await acme.until_run(new, "needs_attention")
        assert parked["step_id"] == "first"
        await acme.call("PUT", f"/runs/{new}/retry", {"reason": "perhaps now"})
        await acme.until(lambda: kinds(acme, new), lambda found: bool(found["kinds"]["parked"] == 2))
        assert await subjects(acme) == {"First": 1}  # the one that was kept when the line dropped
        wrong = await acme.client.post(f"/v1/runs/{new}/replays", json={"reason": REASON, "resend": ["second"]})
        assert (wrong.status_code, wrong.json()["errors"][0]["code"]) == (422, "nothing_to_resend")
        asked = {"resend": ["first"]}
        assert numbers(await preview(acme, new, **asked)) == {"resent": 1, "to_do": 1}
        again = await replay(acme, new, **asked)
        await acme.until_run(again, "completed")
    assert await subjects(acme) == {"First": 2, "Second": 1}
    [entry] = await acme.every("/audit-entries", action="run.replayed", subject_id=new)
    assert (entry["details"]["resend"], entry["details"]["reason"], entry["details"]["replay_id"]) == (["first"], REASON, again)


async def kinds(acme: Organization, run_id: str) -> Document:
    return {"kinds": Counter(entry["kind"] for entry in await acme.timeline(run_id))}


async def test_consent_is_asked_again_for_what_is_sent_and_not_for_what_is_kept(stack: Stack, acme: Organization) -> None:
    topic, contact = await consenting(acme)
    journey = await two_mails(acme, topic)
    async with stack.working():
        run = await acme.start_run(journey, contact)
        await acme.until_run(run, "completed")
        with stack.temporal.with_time_skipping_disabled():
            other = await acme.start_run(journey, contact)
            await acme.until_run(other, "waiting")
        await acme.call("PUT", f"/runs/{other}/cancellation", {"reason": "x"})
        await acme.consent([contact], topic, "withdrawn")
        seen = await preview(acme, other, from_step="first")
        new = await replay(acme, other, from_step="first")
        await acme.until_run(new, "completed")
    assert numbers(seen) == {"kept": 1, "to_do": 1}
    consent = seen["checks"][0]
    assert (consent["check"], consent["outcome"], consent["reason"]) == ("consent", "refuse", "consent_withdrawn")
    told = {entry["step_id"]: entry["kind"] for entry in await acme.timeline(new) if entry["kind"] in ("sent", "not_sent")}
    assert told == {"first": "sent", "second": "not_sent"}
    assert await subjects(acme) == {"First": 2, "Second": 1}


async def test_of_two_replays_of_one_run_one_wins_and_the_other_is_told_which(stack: Stack, acme: Organization) -> None:
    topic, contact = await consenting(acme)
    journey = await two_mails(acme, topic)
    async with stack.working():
        run = await acme.start_run(journey, contact)
        await acme.until_run(run, "completed")
        asked = {"reason": REASON, "from_step": "second", "resend": ["second"]}
        answers = await asyncio.gather(*(acme.client.post(f"/v1/runs/{run}/replays", json=asked) for _ in range(5)))
        [won] = [answer.json() for answer in answers if answer.status_code == 201]
        lost = [answer for answer in answers if answer.status_code != 201]
        assert [answer.status_code for answer in lost] == [409] * 4 and all(won["id"] in answer.text for answer in lost)
        await acme.until_run(won["id"], "completed")
        assert (await acme.run(run))["status"] == "completed"  # as it ended
    assert await subjects(acme) == {"First": 1, "Second": 2}


async def until_waits(acme: Organization, run_id: str, times: int) -> None:
    await acme.until(lambda: kinds(acme, run_id), lambda found: bool(found["kinds"]["waiting"] == times))


async def test_each_visit_of_a_loop_is_kept_for_itself(stack: Stack, acme: Organization) -> None:
    """The third time round failed: the replay begins with the third, and neither repeats nor skips one."""
    topic, contact = await consenting(acme)
    again = {"kind": "branch", "conditions": [{"when": {"tag": "enough"}, "next": None}], "otherwise": "mail"}
    steps = {
        "mail": {"kind": "send", "topic_id": topic, "template_id": await acme.template("Round"), "next": "pause"},
        "pause": {"kind": "wait_for", "events": [{"event": "go", "next": "again"}]},
        "again": again,
    }
    journey = await acme.publish("mail", steps)
    async with stack.working():
        with stack.temporal.with_time_skipping_disabled():
            run = await acme.start_run(journey, contact)
            for rounds in (1, 2):
                await until_waits(acme, run, rounds)
                if rounds == 2:
                    await refuse_content(acme)
                await acme.post("/events", {"name": "go", "contact_id": contact})
            await acme.until_run(run, "needs_attention")
            assert await subjects(acme) == {"Round": 2}
            await mend(acme)
            seen = await preview(acme, run)
            assert [(each["visit"], each["standing"]) for each in seen["effects"]] == [(3, "to_do")]
            new = await replay(acme, run)
            await acme.until_run(new, "waiting")
            assert await subjects(acme) == {"Round": 3}
            await acme.call("PATCH", f"/contacts/{contact}", {"tags": ["enough"]})
            await acme.post("/events", {"name": "go", "contact_id": contact})
            await acme.until_run(new, "completed")
    assert await subjects(acme) == {"Round": 3}


async def test_a_jump_in_a_replay_does_anew_what_was_done_after_a_jump_before(stack: Stack, acme: Organization) -> None:
    """The replay keeps all of it, beginning before that jump; a person then wants it once more."""
    topic, contact = await consenting(acme)
    send = {"kind": "send", "topic_id": topic}
    steps = {
        "hello": {**send, "template_id": await acme.template("Hello"), "next": "offer"},
        "offer": {**send, "template_id": await acme.template("Offer"), "next": "rest"},
        "rest": {"kind": "wait", "duration": "P30D", "next": None},
    }
    async with stack.working():
        with stack.temporal.with_time_skipping_disabled():
            journey = await acme.publish("hello", steps)
            run = await acme.start_run(journey, contact)
            await until_waits(acme, run, 1)
            await acme.call("PUT", f"/runs/{run}/jump", {"step_id": "offer", "reason": "a better one"})
            await until_waits(acme, run, 2)
            await acme.call("PUT", f"/runs/{run}/cancellation", {"reason": REASON})
            await acme.until_run(run, "cancelled")
            assert numbers(await preview(acme, run, from_step="hello")) == {"kept": 2}
            again = await replay(acme, run, from_step="hello")
            await until_waits(acme, again, 1)
            assert await subjects(acme) == {"Hello": 1, "Offer": 2}
            await acme.call("PUT", f"/runs/{again}/jump", {"step_id": "offer", "reason": "the best one"})
            await until_waits(acme, again, 2)
            assert await subjects(acme) == {"Hello": 1, "Offer": 3}


async def operate(acme: Organization, filter: Document, limit: int | None = None, **arguments: Any) -> tuple[Document, Document]:
    """A replay of many runs: its preview, and the operation once it is completed."""
    asked = {"command": "replay", "filter": filter, "arguments": arguments, **({"limit": limit} if limit else {})}
    seen = await acme.post("/run-operations/previews", asked)
    await acme.post("/run-operations", {"preview_id": seen["id"], "reason": REASON})
    path = f"/run-operations/{seen['id']}"
    return seen, await acme.until(lambda: acme.get(path), lambda found: found["status"] == "completed")


async def in_attention(acme: Organization, campaign_id: str, count: int, **others: int) -> Document:
    wanted = {"needs_attention": count, **others}
    return await acme.until(
        lambda: acme.campaign(campaign_id), lambda found: found["progress"]["runs"] == {k: v for k, v in wanted.items() if v}
    )


async def until_given_up(stack: Stack, acme: Organization, campaign_id: str, count: int) -> None:
    """Time goes on until every run of the campaign has tried its message as often as it does; it stands still while they try."""
    names = sorted({run["workflow_id"] for run in await acme.every("/runs", campaign_id=campaign_id)})
    pages = [stack.services.temporal.get_workflow_handle(name) for name in names]
    async with asyncio.timeout(PATIENCE):
        while (await acme.campaign(campaign_id))["progress"]["runs"].get("needs_attention", 0) < count:
            await asyncio.gather(*(go_on(stack, page) for page in pages))
            await asyncio.sleep(0.1)


async def go_on(stack: Stack, page: WorkflowHandle[Any, Any]) -> None:
    if not (await page.describe()).raw_description.pending_activities:
        await stack.temporal.fast_forward(page, timedelta(minutes=5))


async def test_a_bulk_replay_after_an_outage_sends_what_was_missed_once_and_repeats_nothing(stack: Stack, acme: Organization) -> None:
    """Acceptance: the second mail of every run met a server that was down; `LEADSTATS_REPLAYS=1000` replays as many."""
    topic, people = await acme.topic(), await crowd(acme, RUNS)
    await acme.consent(people, topic)
    journey = await acme.without_brake(await two_mails(acme, topic, {"kind": "wait_for", "events": [{"event": "go", "next": "second"}]}))
    async with stack.working(RUNS):
        with stack.temporal.with_time_skipping_disabled():
            campaign = await acme.launch(journey, page_size=200)
            await acme.until(lambda: acme.campaign(campaign), lambda found: found["progress"]["runs"] == {"waiting": RUNS})
        await fail(acme, "mail", "reply", code=451)  # the outage
        await tell_all(acme, people)
        await until_given_up(stack, acme, campaign, RUNS)
        assert await subjects(acme) == {"First": RUNS}

        here = {"campaign_id": campaign, "statuses": ["needs_attention"]}
        part = RUNS * 2 // 5
        await mend(acme)
        await refuse_content(acme)  # it is up again and takes nothing: these replays fail, and at once
        seen, done = await operate(acme, here, limit=part, from_step="first")
        assert numbers_of(seen) == {"kept": part, "to_do": part, "possible": 0, "uncertain": 0}
        assert done["progress"]["done"] == part
        await in_attention(acme, campaign, RUNS)
        assert await subjects(acme) == {"First": RUNS}
        await mend(acme)

        chains = {"replayed": part, "first": RUNS - part}
        seen, done = await operate(acme, here, limit=chains["first"], from_step="first")
        rest, rest_done = await operate(acme, here, from_step="first")  # the remainder
        assert (done["progress"]["done"], rest_done["progress"]["done"]) == (chains["first"], chains["replayed"])
        assert numbers_of(seen) == {"kept": chains["first"], "to_do": chains["first"], "possible": 0, "uncertain": 0}
        assert numbers_of(rest) == {"kept": part, "to_do": part, "possible": 0, "uncertain": 0}
        ended = await acme.until_campaign(campaign)
    assert ended["progress"]["runs"] == {"completed": RUNS} and ended["progress"]["conservation"]["holds"]
    assert await subjects(acme) == {"First": RUNS, "Second": RUNS}
    assert set((await acme.mails()).values()) == {2}
    again = await acme.post("/run-operations/previews", {"command": "replay", "filter": {"campaign_id": campaign}, "arguments": {}})
    assert again["preview"]["not_applicable"] == {"replayed_already": RUNS + part} and again["runs"] == RUNS


EFFECTS = ("kept", "to_do", "possible", "uncertain")


def numbers_of(operation: Document) -> dict[str, int]:
    return {name: operation["preview"]["effects"][name] for name in EFFECTS}


async def crowd(acme: Organization, count: int) -> list[str]:
    lines = "".join(f"crowd{number}@example.com,Ann\n" for number in range(count))
    made = await acme.client.post("/v1/contact-imports", files={"file": ("people.csv", f"email,first_name\n{lines}".encode())})
    assert made.is_success, made.text
    await acme.until(lambda: acme.get(f"/contact-imports/{made.json()['id']}"), lambda found: found["status"] == "completed")
    return [contact["id"] for contact in await acme.every("/contacts")]


async def tell_all(acme: Organization, people: list[str]) -> None:
    for first in range(0, len(people), 500):
        await acme.post("/events", [{"name": "go", "contact_id": contact} for contact in people[first : first + 500]])


async def test_a_run_whose_workflow_was_lost_is_replayed_all_the_same(stack: Stack, acme: Organization) -> None:
    topic, contact = await consenting(acme)
    journey = await two_mails(acme, topic)
    async with stack.working():
        with stack.temporal.with_time_skipping_disabled():
            run = await acme.start_run(journey, contact)
            lost = await acme.until_run(run, "waiting")
        await stack.services.temporal.get_workflow_handle(lost["workflow_id"]).terminate("a disaster")
        async with stack.services.database.organization(acme.id) as session:  # as whoever compares the two would leave it
            await session.execute(text("UPDATE runs SET status = 'needs_attention', reason = 'workflow_lost'"))
        new = await replay(acme, run)
        ended = await acme.until_run(new, "completed")
        assert ended["replay_of"] == run
        await acme.until(lambda: untold(stack, acme), lambda found: found["messages"] == 0)  # nobody is there to be told
    assert (await acme.run(run))["reason"] == "replayed"
    assert await subjects(acme) == {"First": 1, "Second": 1}


async def untold(stack: Stack, acme: Organization) -> Document:
    async with stack.services.database.organization(acme.id) as session:
        return {"messages": await session.scalar(text("SELECT count(*) FROM run_messages"))}


@pytest.mark.parametrize("from_step", ["paid", "mail"])
async def test_an_event_ends_the_wait_that_it_ended_before_and_no_other(stack: Stack, acme: Organization, from_step: str) -> None:
    topic, contact = await consenting(acme)

    def wait(next: str) -> Document:
        return {"kind": "wait_for", "events": [{"event": "paid", "next": next}]}

    mail = {"kind": "send", "topic_id": topic, "template_id": await acme.template("Paid"), "next": "again"}
    last = {"kind": "send", "topic_id": topic, "template_id": await acme.template("Again")}
    journey = await acme.publish("paid", {"paid": wait("mail"), "mail": mail, "again": wait("last"), "last": last})
    async with stack.working():
        with stack.temporal.with_time_skipping_disabled():
            run = await acme.start_run(journey, contact)
            await acme.until_run(run, "waiting")
            await refuse_content(acme)
            await acme.post("/events", {"name": "paid", "contact_id": contact})
            await acme.until_run(run, "needs_attention")
            await mend(acme)
            new = await replay(acme, run, from_step=from_step)
            waiting = await acme.until_run(new, "waiting", "completed")
            await acme.until(lambda: acme.run(new), lambda found: found["step_id"] == "again")
            assert waiting["status"] == "waiting" and await subjects(acme) == {"Paid": 1}
            await acme.post("/events", {"name": "paid", "contact_id": contact})
            await acme.until_run(new, "completed")
    assert await subjects(acme) == {"Paid": 1, "Again": 1}
