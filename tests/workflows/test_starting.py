"""How often the workflow of one id runs, by how it ended; by a real server."""

from datetime import timedelta
from uuid import uuid4

import pytest
from temporalio import workflow
from temporalio.client import WorkflowFailureError
from temporalio.common import RetryPolicy
from temporalio.exceptions import ApplicationError
from temporalio.testing import WorkflowEnvironment
from temporalio.worker import Worker

from activities.contracts.payload import Payload
from activities.starting import attributes, start_once


class Given(Payload):
    how: str


@workflow.defn(name="Ending", sandboxed=False)
class Ending:
    @workflow.run
    async def run(self, given: Given) -> None:
        if given.how == "failed":
            raise ApplicationError("nothing to be done")
        await workflow.wait_condition(lambda: given.how == "completed")


@pytest.mark.parametrize("how", ["running", "completed", "terminated", "cancelled", "failed", "timed_out"])
async def test_a_workflow_begins_anew_only_after_an_end_that_it_did_not_choose(server: WorkflowEnvironment, how: str) -> None:
    queue, name, given, found_by = f"test-{uuid4()}", f"test/{uuid4()}", Given(how=how), attributes(uuid4())
    async with Worker(server.client, task_queue=queue, workflows=[Ending]):
        with server.with_time_skipping_disabled():
            await ended(server, queue, name, given)
            for restarts in (False, True):
                started = await start_once(server.client, queue, "Ending", given, name, found_by, restarts=restarts)
                assert started is (restarts and how not in ("running", "completed"))
            if how not in ("completed", "failed"):
                await server.client.get_workflow_handle(name).terminate()


async def ended(server: WorkflowEnvironment, queue: str, name: str, given: Given) -> None:
    """A workflow of this name has ended as it is told, or runs."""
    limit = timedelta(milliseconds=200) if given.how == "timed_out" else None
    handle = await server.client.start_workflow(
        "Ending", given, id=name, task_queue=queue, execution_timeout=limit, retry_policy=RetryPolicy(maximum_attempts=1)
    )
    if given.how == "terminated":
        await handle.terminate()
    if given.how == "cancelled":
        await handle.cancel()
    if given.how != "running":
        try:
            await handle.result()
        except WorkflowFailureError:
            assert given.how != "completed"
    status = (await handle.describe()).status
    assert status is not None and status.name.lower() == given.how.replace("cancelled", "canceled")
