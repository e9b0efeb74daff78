"""The main job, end to end through the public API."""

import asyncio
from datetime import datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from httpx2 import ASGITransport, AsyncClient
from sqlalchemy import text
from temporalio.client import Client

from activities.contracts.upkeep import Upkeep
from api.app import create_app
from api.commands import temporal
from api.dependencies import Services
from deploy.postgres import free_port
from tests.journeys.conftest import Stack
from tests.journeys.organization import Organization
from workflows.connection import payload_keys
from workflows.payloads import plugin


async def test_every_consenting_contact_is_mailed_once_per_step_and_others_are_refused_with_a_reason(
    stack: Stack, acme: Organization
) -> None:
    topic = await acme.topic()
    agreed, withdrew = await acme.contacts(12), await acme.contacts(3)
    await acme.contacts(2)  # who never said anything
    nowhere = await acme.contact(email=None, external_id="no-address")
    await acme.consent([*agreed, *withdrew, nowhere], topic)
    await acme.consent(withdrew, topic, "withdrawn")
    journey = await acme.send_wait_send(topic, "PT1S")
    async with stack.working():
        campaign_id = await acme.launch(journey, page_size=5)
        campaign = await acme.until_campaign(campaign_id)
    progress = campaign["progress"]
    assert campaign["audience"] == 18 and progress["runs"] == {"completed": 18}
    assert progress["conservation"]["holds"] is True
    assert progress["refusals"] == {"consent_withdrawn": 6, "no_consent": 4, "no_address": 2}
    mails = await acme.mails()
    assert len(mails) == 12 and set(mails.values()) == {2}


async def test_a_timeline_reads_as_sentences_with_reasons(stack: Stack, acme: Organization) -> None:
    topic = await acme.topic()
    contact = await acme.contact()
    journey = await acme.send_wait_send(topic)
    async with stack.working():
        run_id = await acme.start_run(journey, contact)
        await acme.until_run(run_id, "completed")
    sentences = [entry["sentence"] for entry in await acme.timeline(run_id)]
    assert sentences[0].startswith("Entered")
    assert sentences.count("Not sent: the contact never agreed to News by email") == 2
    assert not await acme.mails()


async def test_quiet_hours_hold_the_message_until_the_window_ends_in_the_contacts_zone(stack: Stack, acme: Organization) -> None:
    tokyo = ZoneInfo("Asia/Tokyo")
    now = datetime.now(tokyo)
    start, end = f"{(now.hour - 1) % 24:02}:00", f"{(now.hour + 2) % 24:02}:00"
    await acme.call("PATCH", "/organization", {"quiet_hours": {"email": {"start": start, "end": end}}})
    topic = await acme.topic()
    contact = await acme.contact(timezone="Asia/Tokyo")
    await acme.consent([contact], topic)
    journey = await acme.send_wait_send(topic, "PT1S")
    async with stack.working():
        run_id = await acme.start_run(journey, contact)
        await acme.until_run(run_id, "completed")
    held = [entry for entry in await acme.timeline(run_id) if entry["kind"] == "held"]
    assert held and datetime.fromisoformat(held[0]["until"]).astimezone(tokyo).strftime("%H:%M") == end
    assert set((await acme.mails()).values()) == {2}


async def test_a_paused_campaign_sends_nothing_and_loses_nobody(stack: Stack, acme: Organization) -> None:
    topic = await acme.topic()
    people = await acme.contacts(30)
    await acme.consent(people, topic)
    connection = (await acme.get("/connections"))["items"][0]
    await acme.call("PATCH", f"/connections/{connection['id']}", {"rate_per_second": 1})
    journey = await acme.send_wait_send(topic, "PT1S")
    async with stack.working():
        campaign_id = await acme.launch(journey, page_size=10)
        await acme.until(lambda: acme.campaign(campaign_id), lambda found: found["progress"]["deliveries"].get("accepted", 0) >= 3)
        await acme.call("PUT", f"/campaigns/{campaign_id}/pause", {"reason": "wrong price"})
        await acme.until(lambda: acme.campaign(campaign_id), lambda found: found["progress"]["runs"].keys() <= {"paused", "completed"})
        before = sum((await acme.mails()).values())
        await asyncio.sleep(2)
        paused = await acme.campaign(campaign_id)
        assert sum((await acme.mails()).values()) == before < 30
        assert paused["status"] == "paused" and paused["progress"]["conservation"]["holds"] is True
        await acme.call("PATCH", f"/connections/{connection['id']}", {"rate_per_second": 100})
        await acme.call("DELETE", f"/campaigns/{campaign_id}/pause")
        campaign = await acme.until_campaign(campaign_id)
    assert campaign["progress"]["runs"] == {"completed": 30}
    mails = await acme.mails()
    assert len(mails) == 30 and set(mails.values()) == {2}


async def test_one_run_is_paused_resumed_and_cancelled(stack: Stack, acme: Organization) -> None:
    topic = await acme.topic()
    contact = await acme.contact()
    await acme.consent([contact], topic)
    journey = await acme.send_wait_send(topic, "P30D")
    async with stack.working():
        with stack.temporal.with_time_skipping_disabled():
            run_id = await acme.start_run(journey, contact)
            await acme.until_run(run_id, "waiting")
            paused = (await acme.call("PUT", f"/runs/{run_id}/pause", {"reason": "asked by phone"})).json()
            assert paused["status"] == "paused" and paused["changed"] is True
            assert (await acme.run(run_id))["status"] == "paused"
            resumed = (await acme.call("DELETE", f"/runs/{run_id}/pause")).json()
            assert resumed["status"] == "waiting"
            await acme.call("PUT", f"/runs/{run_id}/cancellation", {"reason": "left us"})
            assert (await acme.run(run_id))["status"] == "cancelled"
    kinds = [entry["kind"] for entry in await acme.timeline(run_id) if entry["source"] == "event"]
    assert kinds == ["entered", "sent", "waiting", "paused", "resumed", "cancelled"]
    assert sum((await acme.mails()).values()) == 1


async def test_cancelling_a_journey_ends_everybody_in_it_and_it_can_be_entered_again(stack: Stack, acme: Organization) -> None:
    topic = await acme.topic()
    people = await acme.contacts(5)
    await acme.consent(people, topic)
    journey = await acme.send_wait_send(topic, "P30D")
    async with stack.working():
        with stack.temporal.with_time_skipping_disabled():
            campaign_id = await acme.launch(journey, page_size=2)
            await acme.start_run(journey, people[0])
            await acme.until(lambda: acme.get("/runs", status="waiting"), lambda found: len(found["items"]) == 6)
            await acme.call("PUT", f"/journeys/{journey}/cancellation", {"reason": "wrong price"})
            await acme.until(lambda: acme.get("/runs", status="cancelled"), lambda found: len(found["items"]) == 6)
            await acme.until_campaign(campaign_id, "cancelled")
            again = await acme.start_run(journey, people[0])
            await acme.until_run(again, "waiting")
            await acme.call("PUT", f"/runs/{again}/cancellation", {"reason": "asked by phone"})
    assert sum((await acme.mails()).values()) == 7


async def test_a_worker_that_was_away_continues_when_it_comes_back(stack: Stack, acme: Organization) -> None:
    topic = await acme.topic()
    people = await acme.contacts(4)
    await acme.consent(people, topic)
    journey = await acme.send_wait_send(topic, "PT1S")
    campaign_id = await acme.launch(journey)
    async with stack.working():
        await acme.until(lambda: acme.campaign(campaign_id), lambda found: bool(found["progress"]["deliveries"]))
    async with stack.working():
        await acme.until_campaign(campaign_id)
    assert set((await acme.mails()).values()) == {2}


async def test_an_opt_out_between_two_steps_is_obeyed(stack: Stack, acme: Organization) -> None:
    topic = await acme.topic()
    contact = await acme.contact()
    await acme.consent([contact], topic)
    journey = await acme.send_wait_send(topic, "P30D")
    async with stack.working():
        with stack.temporal.with_time_skipping_disabled():
            run_id = await acme.start_run(journey, contact)
            await acme.until_run(run_id, "waiting")
            message = (await acme.every("/sandbox/messages"))[0]
            headers = (await acme.get(f"/sandbox/messages/{message['id']}"))["headers"]
            assert headers["List-Unsubscribe-Post"] == "List-Unsubscribe=One-Click"
            link = headers["List-Unsubscribe"].strip("<>").split("/u/")[1]
            answer = await acme.client.post(f"/u/{link}", data={"List-Unsubscribe": "One-Click"}, headers={"Authorization": ""})
            assert answer.is_success
        handle = stack.temporal.client.get_workflow_handle((await acme.run(run_id))["workflow_id"])
        await stack.temporal.fast_forward(handle, timedelta(days=31))
        await acme.until_run(run_id, "completed")
    assert sum((await acme.mails()).values()) == 1
    assert "consent_withdrawn" in {entry["reason"] for entry in await acme.timeline(run_id)}


async def test_a_failing_message_parks_its_run_and_retry_sends_it_once_mended(stack: Stack, acme: Organization) -> None:
    topic = await acme.topic()
    nameless, named = await acme.contact(first_name=None), await acme.contact()
    await acme.consent([nameless, named], topic)
    journey = await acme.send_wait_send(topic, "PT1S")
    async with stack.working():
        campaign_id = await acme.launch(journey)
        await acme.until(
            lambda: acme.campaign(campaign_id), lambda found: found["progress"]["runs"] == {"needs_attention": 1, "completed": 1}
        )
        run = (await acme.every("/runs", campaign_id=campaign_id, status="needs_attention"))[0]
        assert "contact.first_name" in run["reason"]
        await acme.call("PATCH", f"/contacts/{nameless}", {"first_name": "Nora"})
        await acme.call("PUT", f"/runs/{run['id']}/retry", {"reason": "asked by phone"})
        await acme.until_campaign(campaign_id)
    assert set((await acme.mails()).values()) == {2}


async def test_runs_held_for_a_broken_connection_go_on_when_a_check_finds_it_mended(stack: Stack, acme: Organization) -> None:
    topic = await acme.topic()
    people = await acme.contacts(6)
    await acme.consent(people, topic)
    connection = (await acme.get("/connections"))["items"][0]
    await acme.post("/sandbox/faults", {"phase": "auth", "action": "refuse"})
    journey = await acme.send_wait_send(topic, "P30D")
    async with stack.working():
        with stack.temporal.with_time_skipping_disabled():
            campaign_id = await acme.launch(journey, page_size=2)
            await acme.until(lambda: acme.campaign(campaign_id), lambda found: found["progress"]["runs"] == {"held": 6})
            assert (await acme.get(f"/connections/{connection['id']}"))["status"] == "broken"
            await acme.call("DELETE", "/sandbox/faults")
            await asyncio.sleep(1)  # the inbox looks for its faults every half second
            assert (await acme.post(f"/connections/{connection['id']}/checks", None))["ok"]
            await acme.until(lambda: acme.campaign(campaign_id), lambda found: found["progress"]["runs"] == {"waiting": 6})
        for run in await acme.every("/runs", campaign_id=campaign_id):
            entries = await acme.timeline(run["id"])
            held, woke = ([entry for entry in entries if entry["kind"] == kind][-1] for kind in ("held", "woke"))
            assert woke["at"] < held["until"]  # before its time
        await acme.call("PUT", f"/campaigns/{campaign_id}/cancellation")
        await acme.until_campaign(campaign_id, "cancelled")
    assert set((await acme.mails()).values()) == {1}


async def test_a_pause_and_a_resume_said_while_no_worker_runs_are_obeyed_in_order(stack: Stack, acme: Organization) -> None:
    topic = await acme.topic()
    people = await acme.contacts(3)
    await acme.consent(people, topic)
    campaign_id = await acme.launch(await acme.send_wait_send(topic, "PT1S"))
    await acme.call("PUT", f"/campaigns/{campaign_id}/pause")
    await acme.call("DELETE", f"/campaigns/{campaign_id}/pause")
    async with stack.working():
        await acme.until_campaign(campaign_id)
    assert set((await acme.mails()).values()) == {2}


async def test_a_run_whose_workflow_was_never_started_is_started_by_upkeep(
    stack: Stack, acme: Organization, monkeypatch: pytest.MonkeyPatch
) -> None:
    topic = await acme.topic()
    contact = await acme.contact()
    await acme.consent([contact], topic)
    journey = await acme.send_wait_send(topic, "PT1S")
    away = await Client.connect(f"127.0.0.1:{free_port()}", lazy=True, plugins=[plugin(payload_keys(stack.settings))])
    lonely = create_app(Services(settings=stack.settings, database=stack.services.database, temporal=away))
    async with AsyncClient(transport=ASGITransport(app=lonely), base_url="http://test", headers=acme.client.headers, timeout=60) as client:
        with monkeypatch.context() as hasty:
            hasty.setattr(temporal, "PATIENCE", timedelta(seconds=1))
            answer = await client.post(f"/v1/journeys/{journey}/runs", json={"contact_id": contact})
    assert answer.status_code == 503 and answer.headers["Retry-After"]
    [run] = await acme.every("/runs", contact_id=contact)
    async with stack.services.database.organization(acme.id) as session:
        await session.execute(text("UPDATE runs SET created_at = created_at - interval '1 minute'"))
    async with stack.working():
        await upkeep(stack, run["id"])
        await acme.until_run(run["id"], "completed")
    assert set((await acme.mails()).values()) == {2}


async def upkeep(stack: Stack, occasion: str) -> None:
    started = await stack.services.temporal.start_workflow(
        "UpkeepWorkflow", Upkeep(), id=f"upkeep/{occasion}", task_queue=stack.settings.task_queue
    )
    await started.result()


async def test_the_last_of_pause_resume_pause_stands(stack: Stack, acme: Organization) -> None:
    topic = await acme.topic()
    people = await acme.contacts(3)
    await acme.consent(people, topic)
    campaign_id = await acme.launch(await acme.send_wait_send(topic, "PT1S"))
    for method in ("PUT", "DELETE", "PUT"):
        await acme.call(method, f"/campaigns/{campaign_id}/pause")
    async with stack.working():
        await acme.until(lambda: acme.campaign(campaign_id), lambda found: found["progress"]["runs"] == {"paused": 3})
        await asyncio.sleep(2)
        assert (await acme.campaign(campaign_id))["status"] == "paused" and not await acme.mails()
        await acme.call("DELETE", f"/campaigns/{campaign_id}/pause")
        await acme.until_campaign(campaign_id)
    assert set((await acme.mails()).values()) == {2}


async def test_a_run_paused_or_cancelled_while_its_message_waits_for_the_rate_is_not_mailed(stack: Stack, acme: Organization) -> None:
    topic = await acme.topic()
    people = await acme.contacts(6)
    await acme.consent(people, topic)
    connection = (await acme.get("/connections"))["items"][0]
    await acme.call("PATCH", f"/connections/{connection['id']}", {"rate_per_second": 0.1})
    async with stack.working():
        campaign_id = await acme.launch(await acme.send_wait_send(topic, "PT1S"))
        await acme.until(acme.mail_count, lambda count: count["mails"] >= 1)
        mailed = set(await acme.mails())
        waiting = [run for run in await acme.every("/runs", campaign_id=campaign_id) if await acme.address(run) not in mailed]
        paused, cancelled = waiting[-1], waiting[-2]  # the last in the queue: tens of seconds from their slots
        await acme.call("PUT", f"/runs/{paused['id']}/pause")
        await acme.call("PUT", f"/runs/{cancelled['id']}/cancellation", {"reason": "asked by phone"})
        await acme.until_run(cancelled["id"], "cancelled")
        await acme.call("PATCH", f"/connections/{connection['id']}", {"rate_per_second": 50})
        await acme.until(lambda: acme.campaign(campaign_id), lambda found: found["progress"]["runs"].get("completed", 0) == 4)
        unwanted = {await acme.address(run) for run in (paused, cancelled)}
        assert not unwanted & set(await acme.mails())
        await acme.call("DELETE", f"/runs/{paused['id']}/pause")
        await acme.until_run(paused["id"], "completed")


async def test_scenario_46_a_delivered_campaign_is_not_sent_again(stack: Stack, acme: Organization) -> None:
    topic = await acme.topic()
    people = await acme.contacts(4)
    await acme.consent(people, topic)
    journey = await acme.send_wait_send(topic, "PT1S")
    asked, again = {"name": "November", "journey_id": journey}, {"Idempotency-Key": "november"}
    async with stack.working():
        with stack.temporal.with_time_skipping_disabled():
            campaign_id = (await acme.call("POST", "/campaigns", asked, headers=again)).json()["id"]
        delivered = await acme.until_campaign(campaign_id)
        for headers in (again, {}):
            repeated = await acme.client.post("/v1/campaigns", json=asked, headers=headers)
            assert (repeated.status_code, repeated.json()["id"]) == (202, campaign_id)
        for method, path in (("PUT", "pause"), ("DELETE", "pause"), ("PUT", "cancellation")):
            answer = await acme.client.request(method, f"/v1/campaigns/{campaign_id}/{path}")
            assert answer.status_code == 409 and "completed already" in answer.json()["detail"]
        await upkeep(stack, campaign_id)
        await asyncio.sleep(1)
        assert await acme.campaign(campaign_id) == delivered
    assert len(await acme.every("/campaigns")) == 1
    assert set((await acme.mails()).values()) == {2}
