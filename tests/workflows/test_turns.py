import asyncio

from temporalio.api.enums.v1 import EventType
from temporalio.client import WorkflowHandle
from temporalio.testing import WorkflowEnvironment

from models.domain.journey.definition import BranchStep, Definition, ReviewStep
from tests.workflows.fakes import Fakes
from tests.workflows.test_journey import control, some_runs, start, until, working
from workflows.journey import JourneyWorkflow

ASKED = Definition(start="fork", steps={"fork": BranchStep(conditions=(), otherwise="review"), "review": ReviewStep()})


async def empty_tasks(handle: WorkflowHandle[JourneyWorkflow, None]) -> int:
    """How many of the newest workflow tasks, all of them done, asked for nothing."""
    types = [event.event_type for event in (await handle.fetch_history()).events]
    done = [
        EventType.EVENT_TYPE_WORKFLOW_TASK_SCHEDULED,
        EventType.EVENT_TYPE_WORKFLOW_TASK_STARTED,
        EventType.EVENT_TYPE_WORKFLOW_TASK_COMPLETED,
    ]
    count = 0
    while types[-3:] == done:
        count += 1
        del types[-3:]
        while types[-1] in (EventType.EVENT_TYPE_ACTIVITY_TASK_STARTED, EventType.EVENT_TYPE_ACTIVITY_TASK_COMPLETED):
            types.pop()
    return count


async def test_an_update_that_wakes_a_workflow_is_read_again_as_it_was_lived(server: WorkflowEnvironment) -> None:
    """After two answers of which nothing followed: the SDK gives the update to a workflow that no worker holds before the second of them
    (temporalio/sdk-rust 1146), and after it when the history is read again."""
    first, second = some_runs(1, "review")[0], some_runs(1, "fork")[0]
    fakes = Fakes()
    fakes.slow_records = [asyncio.Event(), asyncio.Event()]
    async with working(server, fakes) as queue:
        with server.with_time_skipping_disabled():
            handle = await start(server, queue, [first, second], definition=ASKED)
            await until(lambda: fakes.calls["record_audit"] == 2)
            for number, written in enumerate(fakes.slow_records, 1):
                written.set()
                async with asyncio.timeout(60):
                    while await empty_tasks(handle) < number:
                        await asyncio.sleep(0.02)
            for run in (second, first):
                async with asyncio.timeout(60):
                    [answer] = await control(handle, "cancel", [run.run_id])
                assert answer.changed
            await handle.result()
    assert fakes.kinds(second.run_id) == ["entered", "chose", "review_asked", "cancelled"]
