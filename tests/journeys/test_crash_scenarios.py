"""Worker processes that are killed, frozen and restarted in the middle of their work. In real time.

What they test mostly waits for limits (20 s until a silent attempt is given up, 30 s until a message in its hands is uncertain), so
the three stories happen at the same time, each with workers and a task queue of its own.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from random import Random
from typing import Any

import pytest
import pytest_asyncio

from deploy.postgres import EmbeddedPostgres
from models.webhook_signature import signed_headers, webhook_secret
from tests.conftest import another_database, settings_of
from tests.journeys.conftest import Stack, standing
from tests.journeys.organization import Document, Organization
from tests.journeys.worker_process import WorkerProcess, in_real_time, worker_processes
from tests.receiver import Receiver, receiving

LATE = 15_000  # ms: so much later the inbox says that it accepts a message; less than the 30 s after which that is in doubt
MANY = 120
RESTARTS = 4


@dataclass(frozen=True)
class Stories:
    """Each is what its test looks at, when it has happened."""

    killed: "asyncio.Task[Killed]"
    frozen: "asyncio.Task[Frozen]"
    restarted: "asyncio.Task[Restarted]"


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def stories(postgres: EmbeddedPostgres, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stories]:
    """Over a stack of their own: a worker process sets upkeep going."""
    async with AsyncExitStack() as open:
        stack = await open.enter_async_context(standing(settings_of(another_database(postgres, "crashes"), tmp_path_factory.mktemp("c"))))
        receiver = await open.enter_async_context(receiving())
        told = Stories(
            asyncio.create_task(kill(await in_real_time(stack, "killed", private_destinations=receiver.private), receiver)),
            asyncio.create_task(freeze(await in_real_time(stack, "frozen"))),
            asyncio.create_task(restart(await in_real_time(stack, "restarted"))),
        )
        tasks: list[asyncio.Task[Any]] = [told.killed, told.frozen, told.restarted]
        yield told
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def answers_late(acme: Organization, address: str) -> None:
    """The inbox takes one message for the address, and is then slow to say so."""
    await acme.post("/sandbox/faults", {"phase": "data", "action": "delay", "delay_ms": LATE, "recipient": address, "remaining": 1})


async def all_handed_over(acme: Organization) -> None:
    """Every message with which the inbox was to be slow is on its way there; it has them, but has not said so."""
    await acme.until(lambda: acme.get("/sandbox/faults"), lambda found: not [one for one in found["items"] if one["remaining"]])
    await asyncio.sleep(2)


# --- killed between the other side's yes and our record -----------------------------------------------------------------


@dataclass(frozen=True)
class Killed:
    """`runs`: by what they do. `before`: how many mails each address had when nothing else was at work."""

    acme: Organization
    stack: Stack
    receiver: Receiver
    runs: dict[str, str]
    addresses: dict[str, str]
    before: dict[str, int]


async def kill(stack: Stack, receiver: Receiver) -> Killed:
    acme = await stack.found()
    [member] = (await acme.get("/members"))["items"]
    topic = await acme.topic()
    people = await acme.contacts(3)
    await acme.consent(people, topic)
    then = {"kind": "exit", "reason": "went_on"}
    steps: dict[str, Document] = {
        "send": {"kind": "send", "template_id": await acme.template(), "topic_id": topic},
        "notify_team": {"kind": "notify_team", "members": [member["id"]], "subject": "Look", "text": "Here"},
        "call_webhook": {"kind": "call_webhook", "url": receiver.url, "timeout": "PT30S"},
    }
    journeys = {name: await acme.publish(name, {name: {**step, "next": "then"}, "then": then}) for name, step in steps.items()}
    addresses = {"send": (await acme.get(f"/contacts/{people[0]}"))["email"], "notify_team": member["email"]}
    for address in addresses.values():
        await answers_late(acme, address)
    heard, answer = asyncio.Event(), asyncio.Event()

    async def hesitate(_: Any) -> None:
        heard.set()
        await answer.wait()

    receiver.before = hesitate
    async with worker_processes(stack, 1) as [victim]:
        runs = {name: await acme.start_run(journeys[name], contact) for name, contact in zip(steps, people, strict=True)}
        await heard.wait()
        await all_handed_over(acme)
        assert not await acme.mails()  # nothing has been answered yet
        await victim.kill()
        answer.set()
        before = await acme.until(acme.mails, lambda found: len(found) == 2)
    async with worker_processes(stack, 1):
        for run in runs.values():
            await acme.until_run(run, "needs_attention", "exited")
        await asyncio.sleep(1.5)  # whatever might still be sent by itself
    return Killed(acme, stack, receiver, runs, addresses, before)


async def test_scenario_37_a_worker_killed_after_the_provider_accepted_sends_nothing_again(stories: Stories) -> None:
    story = await stories.killed
    acme, run_id, address = story.acme, story.runs["send"], story.addresses["send"]
    run = await acme.run(run_id)
    assert (run["status"], run["reason"]) == ("needs_attention", "attempt_lost")
    [delivery] = await acme.every("/deliveries", run_id=run_id)
    assert (delivery["state"], delivery["outcome"], delivery["reason"]) == ("unknown", "unknown", "attempt_lost")
    assert story.before[address] == (await acme.mails())[address] == 1
    [message] = await acme.every("/sandbox/messages", recipient=address)
    assert message["delivery_id"] == delivery["id"]
    assert [entry["action"] for entry in await acme.every("/audit-entries", subject_id=delivery["id"])] == ["delivery.unknown"]
    async with worker_processes(story.stack, 1):  # asking again does not send again either
        await acme.call("PUT", f"/runs/{run_id}/retry", {"reason": "is it there?"})
        await acme.until(lambda: parked(acme, run_id), lambda found: found["times"] == 2)
        await acme.call("PUT", f"/runs/{run_id}/skip", {"reason": "they have it"})
        assert (await acme.until_run(run_id, "exited"))["reason"] == "went_on"
    assert (await acme.mails())[address] == 1


async def parked(acme: Organization, run_id: str) -> Document:
    reasons = [entry["reason"] for entry in await acme.timeline(run_id) if entry["kind"] == "parked"]
    assert set(reasons) == {"attempt_lost"}
    return {"times": len(reasons)}


async def test_scenario_38_a_worker_killed_after_a_colleagues_mail_was_accepted_sends_nothing_again(stories: Stories) -> None:
    story = await stories.killed
    acme, run_id, address = story.acme, story.runs["notify_team"], story.addresses["notify_team"]
    run = await acme.run(run_id)
    assert (run["status"], run["reason"]) == ("needs_attention", "attempt_lost")
    assert story.before[address] == (await acme.mails())[address] == 1
    [told] = [entry for entry in await acme.every("/audit-entries", action="effect.unknown") if entry["details"]["run_id"] == run_id]
    assert told["details"]["kind"] == "notify_team"


async def test_scenario_38_a_webhook_that_was_answered_to_a_killed_worker_is_repeated_under_its_id(stories: Stories) -> None:
    story = await stories.killed
    run = await story.acme.run(story.runs["call_webhook"])
    assert (run["status"], run["reason"]) == ("exited", "went_on")
    first, second = story.receiver.received
    assert first.headers["webhook-id"] == second.headers["webhook-id"] and first.body == second.body
    secret = webhook_secret(story.stack.settings, story.acme.id)
    for received in (first, second):
        at = datetime.fromtimestamp(int(received.headers["webhook-timestamp"]), UTC)
        assert signed_headers(secret, received.headers["webhook-id"], at, received.body).items() <= received.headers.items()


# --- frozen in the middle of a batch ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Frozen:
    """`stuck`: the address whose message was in the worker's hands. The figures are the campaign's and the inbox's: when another worker had
    taken over, and when the frozen one had come back to life."""

    acme: Organization
    stuck: str
    campaign: Document
    mails: dict[str, int]
    in_the_end: Document
    mails_in_the_end: dict[str, int]


async def freeze(stack: Stack) -> Frozen:
    acme = await stack.found()
    topic = await acme.topic()
    people = await acme.contacts(10)
    await acme.consent(people, topic)
    [connection] = (await acme.get("/connections"))["items"]
    await acme.call("PATCH", f"/connections/{connection['id']}", {"concurrency": 1})  # the others are claimed, but not begun
    stuck = (await acme.get(f"/contacts/{people[4]}"))["email"]
    await answers_late(acme, stuck)
    mail = {"kind": "send", "template_id": await acme.template(), "topic_id": topic}
    journey = await acme.publish("mail", {"mail": mail})
    async with worker_processes(stack, 1) as running:
        campaign_id = await acme.launch(journey, page_size=10)
        await all_handed_over(acme)
        running[0].freeze()
        running.append(await WorkerProcess.start(stack))
        rest = {"completed": 9, "needs_attention": 1}
        campaign = await acme.until(lambda: acme.campaign(campaign_id), lambda found: found["progress"]["runs"] == rest)
        mails = await acme.mails()
        running[0].thaw()
        await acme.until(
            lambda: acme.get("/deliveries", campaign_id=campaign_id, state="accepted"), lambda found: len(found["items"]) == 10
        )
        [parked] = await acme.every("/runs", campaign_id=campaign_id, status="needs_attention")
        await acme.call("PUT", f"/runs/{parked['id']}/retry", {"reason": "asked by phone"})
        in_the_end = await acme.until_campaign(campaign_id)
    return Frozen(acme, stuck, campaign, mails, in_the_end, await acme.mails())


async def test_scenario_43_a_batch_that_stood_still_goes_on_where_it_was_without_duplicates(stories: Stories) -> None:
    story = await stories.frozen
    assert story.campaign["progress"]["deliveries"] == {"accepted": 9, "unknown": 1}
    assert story.campaign["progress"]["conservation"]["holds"] is True
    assert len(story.mails) == 10 and set(story.mails.values()) == {1}
    [message] = await story.acme.every("/sandbox/messages", recipient=story.stuck)
    of_the_stuck = await story.acme.every("/audit-entries", subject_id=message["delivery_id"])
    assert [entry["action"] for entry in of_the_stuck] == ["delivery.unknown", "delivery.accepted"]  # the answer was heard late
    assert story.in_the_end["progress"]["runs"] == {"completed": 10}
    assert story.mails_in_the_end == story.mails


# --- restarted again and again ------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Restarted:
    acme: Organization
    campaign: Document
    under_way: int  # mails when the last one was stopped


async def restart(stack: Stack) -> Restarted:
    acme = await stack.found()
    topic = await acme.topic()
    people = await acme.contacts(MANY)
    await acme.consent(people, topic)
    [connection] = (await acme.get("/connections"))["items"]
    await acme.call("PATCH", f"/connections/{connection['id']}", {"rate_per_second": 1})  # it would last for two minutes
    mail = {"kind": "send", "template_id": await acme.template(), "topic_id": topic}
    journey = await acme.publish("mail", {"mail": mail})
    chance, under_way = Random(42), MANY
    async with worker_processes(stack, 4) as running:
        campaign_id = await acme.launch(journey, page_size=5)
        await acme.until(acme.mail_count, lambda count: count["mails"] >= 2)
        async with asyncio.TaskGroup() as replacing:
            for _ in range(RESTARTS):
                await running.pop(chance.randrange(len(running))).stop()
                under_way = (await acme.mail_count())["mails"]
                replacing.create_task(one_more(stack, running))
                await asyncio.sleep(chance.random())
                while len(running) < 2:  # on a busy machine a process takes long to start
                    await asyncio.sleep(0.1)
            await acme.call("PATCH", f"/connections/{connection['id']}", {"rate_per_second": 50})
        campaign = await acme.until_campaign(campaign_id)
    return Restarted(acme, campaign, under_way)


async def one_more(stack: Stack, running: list[WorkerProcess]) -> None:
    running.append(await WorkerProcess.start(stack))


async def test_scenario_42_four_workers_restarted_at_random_send_exactly_one_mail_to_each(stories: Stories) -> None:
    story = await stories.restarted
    assert story.under_way < MANY  # they fell into its middle
    assert story.campaign["progress"]["runs"] == {"completed": MANY}
    assert story.campaign["progress"]["deliveries"] == {"accepted": MANY}
    mails = await story.acme.mails()
    assert len(mails) == MANY and set(mails.values()) == {1}
