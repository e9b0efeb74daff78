"""Nobody is lost and nobody invented, at any instant."""

import asyncio
import urllib.request

from temporalio.client import Client
from temporalio.runtime import PrometheusConfig, Runtime, TelemetryConfig

from activities.reconciler_rules import Patience
from deploy.postgres import free_port
from tests.journeys.conftest import Stack
from tests.journeys.organization import Document, Organization
from tests.journeys.reconciler import reconciler

STEPS: Document = {
    "which": {"kind": "branch", "conditions": [{"when": {"tag": "leavers"}, "next": "gone"}], "otherwise": "pause"},
    "gone": {"kind": "exit", "reason": "left"},
    "pause": {"kind": "wait", "duration": "PT4S", "next": "reminder"},
}


async def balanced(acme: Organization, samples: list[Document]) -> None:
    """Samples without end: entered = the sum over the phases; deliveries never exceed sends."""
    while True:
        found = await acme.get("/conservation")
        handed_over = sum(count for state, count in found["deliveries"].items() if state != "claimed")
        samples.append(found)
        assert found["holds"] and found["difference"] == 0 and found["entered"] == sum(found["runs"].values()), found
        assert found["accepted"] <= handed_over and found["deliveries_difference"] == 0, found
        assert (await acme.mail_count())["mails"] <= sum((await acme.get("/conservation"))["deliveries"].values())
        await asyncio.sleep(0.1)  # the same process does the work


async def cancelled(acme: Organization, run_id: str) -> None:
    """A busy machine may answer 503: then the word is repeated, as clients do."""

    async def say() -> Document:
        answer = await acme.client.put(f"/v1/runs/{run_id}/cancellation", json={"reason": "left us"}, headers={"Idempotency-Key": "once"})
        return {"status": answer.status_code}

    await acme.until(say, lambda answer: answer["status"] == 200)


async def test_scenario_47_conservation_at_any_instant(stack: Stack, acme: Organization) -> None:
    """Sampled while a campaign, single runs and events put runs in and take them out, some are paused, cancelled and fail.

    The product has no opens yet; when it has, that they imply deliveries is asserted here."""
    topic = await acme.topic()
    people = await acme.contacts(40) + await acme.contacts(10, tags=["leavers"])
    await acme.consent(people[5:], topic)
    await acme.post("/sandbox/faults", {"phase": "rcpt", "action": "reply", "code": 552, "message": "no", "remaining": 3})
    send = {"kind": "send", "template_id": await acme.template(), "topic_id": topic}
    entry = {"triggers": [{"kind": "event", "event": "joined"}], "again": "every_time"}
    journey = await acme.publish("welcome", {"welcome": {**send, "next": "which"}, **STEPS, "reminder": send}, entry=entry)
    samples: list[Document] = []
    async with stack.working(), reconciler(stack, Patience()) as looking:  # with haste, what begins late would be lost
        sampling = asyncio.create_task(balanced(acme, samples))
        with stack.temporal.with_time_skipping_disabled():
            campaign = await acme.launch(journey, page_size=10)
            await cancelled(acme, await acme.start_run(journey, people[10]))
            for contact in people[11:14]:
                await acme.start_run(journey, contact)
            await acme.post("/events", [{"name": "joined", "contact_id": contact} for contact in people[20:30]])
            await acme.call("PUT", f"/campaigns/{campaign}/pause")
            await looking.look()
            await acme.call("DELETE", f"/campaigns/{campaign}/pause")

            async def ended() -> Document:
                return dict((await acme.get("/conservation"))["runs"])

            unfinished = ("active", "waiting", "held", "paused")
            end = await acme.until(ended, lambda runs: sum(runs.values()) == 64 and not any(runs[phase] for phase in unfinished))
        sampling.cancel()
        [died] = await asyncio.gather(sampling, return_exceptions=True)
        await looking.look()
    assert isinstance(died, asyncio.CancelledError), died
    assert len({str(sample["runs"]) for sample in samples}) > 5  # it was under way
    assert end["exited"] >= 10 and end["cancelled"] == 1 and end["completed"] > 30
    assert [finding["kind"] for finding in await acme.every("/findings")] == []


async def test_the_counts_are_metrics_at_the_workers_address(stack: Stack, acme: Organization) -> None:
    """Under the organization's id, and no other label of ours."""
    bind = f"127.0.0.1:{free_port()}"
    client: Client = stack.temporal.client
    runtime = Runtime(telemetry=TelemetryConfig(metrics=PrometheusConfig(bind_address=bind)))
    measured = await Client.connect(
        client.service_client.config.target_host, namespace=client.namespace, plugins=client.config()["plugins"], runtime=runtime
    )
    async with stack.working():
        with stack.temporal.with_time_skipping_disabled():
            journey = await acme.publish("pause", {"pause": {"kind": "wait", "duration": "P30D"}})
            await acme.until_run(await acme.start_run(journey, await acme.contact()), "waiting")
        async with reconciler(stack, client=measured) as looking:
            await looking.look()
            text = (await asyncio.to_thread(_get, f"http://{bind}/metrics")).splitlines()
    mine = {line.partition("{")[0]: line.rpartition(" ")[2] for line in text if str(acme.id) in line and line.startswith("leadstats_")}
    assert (mine["leadstats_runs_entered"], mine["leadstats_runs_waiting"], mine["leadstats_runs_completed"]) == ("1", "1", "0")
    assert (mine["leadstats_conservation_difference"], mine["leadstats_findings_open"]) == ("0", "0")


def _get(address: str) -> str:
    with urllib.request.urlopen(address, timeout=60) as answer:
        return str(answer.read().decode())
