"""Scenarios of failures and brakes: behaviour that users expect."""

import asyncio
from typing import Any

from tests.journeys.conftest import Stack
from tests.journeys.organization import Document, Organization

AT_LEAST = 4
IN_THE_AIR = 4


async def script(acme: Organization, **fault: Any) -> None:
    await acme.post("/sandbox/faults", fault)
    await asyncio.sleep(0.6)  # the inbox looks for its faults every quarter of a second


async def insist(acme: Organization, method: str, path: str) -> None:
    """Says it again after a 503, as whoever uses the API would."""
    for _ in range(20):
        answer = await acme.client.request(method, f"/v1{path}", json={"reason": "mended"}, headers={"Idempotency-Key": path})
        if answer.status_code != 503:
            assert answer.is_success, answer.text
            return
    raise AssertionError("the workflow service never answered")


async def until_paused(acme: Organization, path: str) -> Document:
    return await acme.until(lambda: acme.get(path), lambda found: found["paused_because"] is not None)


async def until_told(acme: Organization, path: str) -> Document:
    found = await acme.until(lambda: acme.get(path), lambda found: found["paused_because"]["notice"] not in ("waiting", "transmitting"))
    told: Document = found["paused_because"]
    return told


async def notices(acme: Organization) -> list[str]:
    """Whom the product told that something was paused, in order."""
    found = await acme.every("/sandbox/messages")
    return [message["recipient"] for message in found if message["subject"].startswith("Paused:")]


async def test_scenario_39_a_campaign_whose_messages_are_all_rejected_pauses_with_the_reason(stack: Stack, acme: Organization) -> None:
    topic = await acme.topic()
    people = await acme.contacts(40)
    await acme.consent(people, topic)
    connection = (await acme.get("/connections"))["items"][0]
    await acme.call("PATCH", f"/connections/{connection['id']}", {"concurrency": IN_THE_AIR})
    await script(acme, phase="data", action="reply", code=554)
    async with stack.working():
        campaign_id = await acme.launch(await acme.send_wait_send(topic, "PT1S"), page_size=20)
        paused = await until_paused(acme, f"/campaigns/{campaign_id}")
        assert (paused["status"], paused["paused_because"]["reason"]) == ("paused", "too_many_failures")
        facts = paused["paused_because"]["facts"]
        assert facts["failed"] == facts["attempted"] >= 20 and facts["failure"] == "policy_refused"
        assert "refused it by its policy" in paused["paused_because"]["words"]
        # Everybody is held, and nothing is tried again: each message was offered once.
        held = await acme.until(lambda: acme.campaign(campaign_id), lambda found: found["progress"]["runs"] == {"paused": 40})
        await asyncio.sleep(2)
        failed = await acme.every("/deliveries", campaign_id=campaign_id, state="failed")
        assert held["progress"]["conservation"]["holds"]
        assert 20 <= len(failed) <= 20 + 3 * IN_THE_AIR  # those in the air when the limit was crossed
        assert {each["outcome"] for each in failed} == {"content_permanent"}
        [cause] = (await acme.get("/failures", campaign_id=campaign_id))["items"]
        assert (cause["failure_class"], cause["runs"], cause["versions"]) == ("content", len(failed), [1])
        # What a person would try is foretold: they cannot go on alone, nor be replayed, and tried again they wait for the resumption.
        resume, replay, retry = [await foretold(acme, command, campaign_id) for command in ("resume", "replay", "retry")]
        assert resume["not_applicable"] == {"paused_with_campaign": 40}
        assert replay["not_applicable"] == {"paused_with_campaign": len(failed), "wrong_phase": 40 - len(failed)}
        assert (retry["obeying"], retry["stay_paused"]) == (len(failed), len(failed))
        [sentence] = [each["sentence"] for each in await acme.timeline(failed[0]["run_id"]) if each["kind"] == "paused"]
        assert sentence.startswith("Paused with the campaign: too many of its messages failed")
        # The provider takes mail again: somebody is told, and resuming mails whoever had not been tried.
        await acme.call("DELETE", "/sandbox/faults")
        assert (await until_told(acme, f"/campaigns/{campaign_id}"))["notice"] == "told"
        await acme.call("DELETE", f"/campaigns/{campaign_id}/pause")
        done = {"completed": 40 - len(failed), "needs_attention": len(failed)}
        await acme.until(lambda: acme.campaign(campaign_id), lambda found: found["progress"]["runs"] == done)
        assert (await acme.get(f"/campaigns/{campaign_id}"))["paused_because"] is None
        stopped = await acme.every("/runs", failure_fingerprint=cause["fingerprint"])
        assert len(stopped) == len(failed)
        await insist(acme, "PUT", f"/runs/{stopped[0]['id']}/retry")
        await acme.until_run(stopped[0]["id"], "completed")
    mails = await acme.mails()
    [told] = await notices(acme)
    assert mails.pop(told) == 1 and len(mails) == 40 - len(failed) + 1 and set(mails.values()) == {2}
    entries = await acme.every("/audit-entries", subject_id=campaign_id)
    assert [each["action"] for each in entries if each["action"] in ("campaign.paused", "campaign.resumed")] == [
        "campaign.paused",
        "campaign.resumed",
    ]
    [entry] = [each for each in entries if each["action"] == "campaign.paused"]
    assert entry["actor"]["kind"] == "system" and entry["details"]["failure"] == "policy_refused"


async def foretold(acme: Organization, command: str, campaign_id: str) -> Document:
    operation = await acme.post("/run-operations/previews", {"command": command, "filter": {"campaign_id": campaign_id}})
    preview: Document = operation["preview"]
    return preview


async def broadcast(acme: Organization, on_error: str) -> tuple[str, str]:
    """A campaign with two messages each, of which those to the first of five contacts cannot be printed: its id and that contact's."""
    topic = await acme.topic(f"news-{on_error}")
    nameless, others = await acme.contact(first_name=None, tags=[on_error]), await acme.contacts(4, tags=[on_error])
    await acme.consent([nameless, *others], topic)
    segment = await acme.post("/segments", {"name": on_error, "rule": {"tag": on_error}})
    journey = await acme.send_wait_send(topic, "PT1S")
    return await acme.launch(journey, segment_id=segment["id"], on_error=on_error, page_size=1), nameless


async def test_scenario_40_a_broadcast_pauses_on_an_error_or_skips_it(stack: Stack, acme: Organization) -> None:
    connection = (await acme.get("/connections"))["items"][0]
    await acme.call("PATCH", f"/connections/{connection['id']}", {"rate_per_second": 0.25})  # nobody has got both when it pauses
    async with stack.working():
        pausing, nameless = await broadcast(acme, "pause")
        because = (await until_paused(acme, f"/campaigns/{pausing}"))["paused_because"]
        assert because["reason"] == "first_failure"
        run = await acme.until(lambda: acme.run(because["facts"]["run_id"]), lambda found: found["failure_class"] is not None)
        assert run["contact_id"] == nameless and run["failure_class"] == "data"
        await acme.until(lambda: acme.campaign(pausing), lambda found: found["progress"]["runs"].get("paused") == 5)
        await until_told(acme, f"/campaigns/{pausing}")
        await acme.call("PATCH", f"/connections/{connection['id']}", {"rate_per_second": 100})
        skipping, unnamed = await broadcast(acme, "skip")
        skipped = await acme.until_campaign(skipping)
        assert skipped["progress"]["runs"] == {"completed": 5} and skipped["on_error"] == "skip"
        [passed] = await acme.every("/runs", contact_id=unnamed)
        told = [entry["sentence"] for entry in await acme.timeline(passed["id"]) if entry["kind"] == "skipped"]
        assert told == [
            f'Went on without "{step}", which failed: the template prints contact.first_name, which this contact does not have'
            for step in ("welcome", "reminder")
        ]
        # The first one goes on where it stopped, once somebody has mended it.
        await acme.call("PATCH", f"/contacts/{nameless}", {"first_name": "Nora"})
        await acme.call("DELETE", f"/campaigns/{pausing}/pause")
        await acme.until(lambda: acme.run(run["id"]), lambda found: found["status"] == "needs_attention")
        await insist(acme, "PUT", f"/runs/{run['id']}/retry")
        await acme.until_campaign(pausing)
    mails = await acme.mails()
    assert mails.pop((await notices(acme))[0]) == 1
    assert len(mails) == 9 and set(mails.values()) == {2}  # all but the one that was skipped


async def test_scenario_41_a_journey_is_braked_at_its_share_and_somebody_is_told_in_order(stack: Stack, acme: Organization) -> None:
    topic = await acme.topic()
    step = {"kind": "send", "template_id": await acme.template(), "topic_id": topic}
    journey = await acme.publish("mail", {"mail": step})
    [creator] = (await acme.get("/members"))["items"]
    owner, admin = [await acme.post("/members", member(acme, role)) for role in ("designer", "admin")]
    await acme.call("PATCH", f"/journeys/{journey}/settings", {"owner_id": owner["id"], "brake": {"share": 0.5, "at_least": AT_LEAST}})
    async with stack.working():
        told = [await braked(acme, journey, topic, good=2, bad=2)]
        assert (await acme.client.post(f"/v1/journeys/{journey}/runs", json={"contact_id": await acme.contact()})).status_code == 409
        await acme.call("DELETE", f"/members/{owner['id']}")
        await resumed(acme, journey)
        await tried(acme, journey, topic, good=0, bad=AT_LEAST - 1)  # of three nobody says how many of many they are
        await asyncio.sleep(1)
        assert (await acme.get(f"/journeys/{journey}"))["paused_at"] is None
        told.append(await braked(acme, journey, topic, good=0, bad=1))
        await script(acme, phase="rcpt", action="reply", code=550, recipient=creator["email"])
        await resumed(acme, journey)
        await tried(acme, journey, topic, good=AT_LEAST, bad=AT_LEAST - 1)
        told.append(await braked(acme, journey, topic, good=0, bad=1))
    assert [each["facts"]["failed"] for each in told] == [2, 4, 4] and [each["facts"]["attempted"] for each in told] == [4, 4, 8]
    assert [each["notified_user_id"] for each in told] == [owner["id"], creator["id"], admin["id"]]
    assert await notices(acme) == [owner["email"], creator["email"], admin["email"]]


def member(acme: Organization, role: str) -> Document:
    return {"email": f"{role}-{acme.id.hex}@example.com", "role": role, "password": "correct horse battery staple"}


async def tried(acme: Organization, journey: str, topic: str, *, good: int, bad: int) -> None:
    """So many runs of the journey, whose mail server takes the messages of the good ones and refuses those of the bad ones."""
    for rejected in [False] * good + [True] * bad:
        contact = await acme.contact()
        await acme.consent([contact], topic)
        if rejected:
            email = (await acme.get(f"/contacts/{contact}"))["email"]
            await script(acme, phase="rcpt", action="reply", code=550, recipient=email)
        run = await acme.start_run(journey, contact)
        await acme.until_run(run, "completed", "paused")


async def braked(acme: Organization, journey: str, topic: str, *, good: int, bad: int) -> Document:
    """Why the journey is paused after these."""
    await tried(acme, journey, topic, good=good, bad=bad)
    await until_paused(acme, f"/journeys/{journey}")
    return await until_told(acme, f"/journeys/{journey}")


async def resumed(acme: Organization, journey: str) -> None:
    await acme.call("DELETE", f"/journeys/{journey}/pause")
    found = await acme.until(lambda: acme.get(f"/journeys/{journey}"), lambda found: found["paused_at"] is None)
    assert found["paused_because"] is None
