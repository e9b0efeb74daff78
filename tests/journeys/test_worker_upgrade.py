"""A new build takes over in the middle of a campaign, with Temporal's worker versioning on."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import timedelta

from temporalio.api.workflowservice.v1 import SetWorkerDeploymentCurrentVersionRequest
from temporalio.client import Client
from temporalio.service import RPCError

from tests.journeys.conftest import Stack
from tests.journeys.organization import Organization
from tests.journeys.test_findings import elsewhere
from worker import DEPLOYMENT, Parts, workers


@asynccontextmanager
async def build(stack: Stack, client: Client, build_id: str) -> AsyncIterator[None]:
    settings = stack.settings.model_copy(update={"worker_build_id": build_id})
    async with AsyncExitStack() as running:
        parts = Parts.build(client, stack.services.database, settings)
        running.push_async_callback(parts.close)
        for each in workers(parts, settings):
            await running.enter_async_context(each)
        await make_current(client, build_id)
        yield


async def make_current(client: Client, build_id: str) -> None:
    request = SetWorkerDeploymentCurrentVersionRequest(
        namespace=client.namespace, deployment_name=DEPLOYMENT, build_id=build_id, identity="test", ignore_missing_task_queues=True
    )
    async with asyncio.timeout(120):
        while True:
            try:
                await client.workflow_service.set_worker_deployment_current_version(request)
                return
            except RPCError:  # not registered yet
                await asyncio.sleep(0.2)


async def test_a_campaign_goes_on_with_a_new_build_and_sends_everything_once(stack: Stack) -> None:
    async with elsewhere(stack, "upgraded") as (apart, acme):
        await upgrade(apart, acme)


async def upgrade(stack: Stack, acme: Organization) -> None:
    topic = await acme.topic()
    people = await acme.contacts(20)
    await acme.consent(people, topic)
    with stack.temporal.with_time_skipping_disabled():
        async with build(stack, stack.services.temporal, "1.0"):
            campaign = await acme.launch(await acme.send_wait_send(topic, "PT1H"), page_size=5)
            await acme.until(lambda: acme.campaign(campaign), lambda found: found["progress"]["runs"] == {"waiting": 20})
    async with build(stack, stack.services.temporal, "2.0"):
        pages = {run["workflow_id"] for run in await acme.every("/runs", campaign_id=campaign)}
        handles = [stack.temporal.client.get_workflow_handle(page) for page in pages]
        await asyncio.gather(*(stack.temporal.fast_forward(handle, timedelta(hours=2)) for handle in handles))
        done = await acme.until_campaign(campaign)
    assert done["progress"]["runs"] == {"completed": 20}
    assert set((await acme.mails()).values()) == {2}
