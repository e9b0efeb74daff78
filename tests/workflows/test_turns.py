"""Updates are obeyed in a task of their own: what meets one while it has its turn, and how it is read again."""

import asyncio
import functools
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest_asyncio
from temporalio.api.enums.v1 import EventType
from temporalio.client import WorkflowHandle, WorkflowUpdateStage
from temporalio.testing import WorkflowEnvironment

from activities.contracts.run_control import CONTROL_RUNS, RunControl, RunControlled
from activities.contracts.steps import StepAnswer
from models.domain.journey.definition import BranchStep, Definition, ReviewStep, WaitStep
from models.domain.journey.steps.wait import UntilDate
from models.settings import Settings
from tests.temporal import temporal_server
from tests.workflows.fakes import Fakes
from tests.workflows.test_journey import control, some_runs, start, until, working
from tests.workflows.test_moves import move, order
from workflows.journey import JourneyWorkflow

ASKED = Definition(start="fork", steps={"fork": BranchStep(conditions=(), otherwise="review"), "review": ReviewStep()})


UNTIL = Definition(
    start="until",
    steps={
        "later": BranchStep(conditions=(), otherwise="soon"),
        "soon": BranchStep(conditions=(), otherwise="until"),
        "until": WaitStep(date=UntilDate(field="attributes.at"), next="review"),
        "review": ReviewStep(),
    },
)


LATE_TIMERS = 'history.timerProcessorMaxTimeShift="3s"'


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def late_server(settings: Settings) -> AsyncIterator[WorkflowEnvironment]:
    """Its timers ring up to three seconds late. By default a server's do up to one."""
    async with temporal_server(settings, LATE_TIMERS) as environment:
        yield environment


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


async def released(handle: WorkflowHandle[JourneyWorkflow, None], writes: list[asyncio.Event]) -> None:
    """One write after the other is done, and a workflow task for each has asked for nothing."""
    for number, written in enumerate(writes, 1):
        written.set()
        async with asyncio.timeout(60):
            while await empty_tasks(handle) < number:
                await asyncio.sleep(0.02)


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
            await released(handle, fakes.slow_records)
            for run in (second, first):
                async with asyncio.timeout(60):
                    [answer] = await control(handle, "cancel", [run.run_id])
                assert answer.changed
            await handle.result()
    assert fakes.kinds(second.run_id) == ["entered", "chose", "review_asked", "cancelled"]


async def test_a_word_to_many_is_obeyed_by_those_that_stay_when_one_leaves_meanwhile(late_server: WorkflowEnvironment) -> None:
    """And if it is said again, which is the same update, it is answered as it was."""
    leaver, *others = [replace(run, step_id=step) for run, step in zip(some_runs(3), ("fork", "review", "review"), strict=True)]
    word = RunControl(command="pause", run_ids=[leaver.run_id, *(run.run_id for run in others)])
    fakes = Fakes()
    fakes.slow_records = [asyncio.Event(), asyncio.Event()]
    fakes.slow_records[0].set()
    async with working(late_server, fakes) as queue:
        with late_server.with_time_skipping_disabled():
            handle = await start(late_server, queue, [leaver, *others], definition=ASKED)
            await until(lambda: fakes.calls["record_audit"] == 2)  # what the leaver does is being written: it moves thereafter
            await move(handle, order(review="elsewhere").model_copy(update={"run_ids": [leaver.run_id]}))
            said = await handle.start_update(
                CONTROL_RUNS, word, id="word", result_type=list[RunControlled], wait_for_stage=WorkflowUpdateStage.ACCEPTED
            )
            fakes.slow_records[1].set()
            await until(lambda: fakes.handed)
            answers = [await said.result()]
            for run_ids in ([*word.run_ids], [run.run_id for run in others]):
                again = word.model_copy(update={"run_ids": run_ids})
                answers.append(await handle.execute_update(CONTROL_RUNS, again, id="word", result_type=list[RunControlled]))
            await handle.terminate()
    assert [[(answer.run_id, answer.changed) for answer in each] for each in answers] == [[(run.run_id, True) for run in others]] * 3


async def paused_before_a_late_timer(late_server: WorkflowEnvironment, fakes: Fakes, queue: str) -> WorkflowHandle[JourneyWorkflow, None]:
    """Of three runs that wait for the same moment one is paused when that has passed, and the timer has not rung yet; then all end."""

    @functools.cache
    def at() -> datetime:  # sooner than the lateness of the server's timers
        return datetime.now(UTC) + timedelta(seconds=2.5)

    fakes.answer = lambda question, visit: StepAnswer(run_id=visit.run_id, until=at())
    fakes.slow_records = [asyncio.Event() for _ in range(3)]
    runs = [replace(run, step_id=step) for run, step in zip(some_runs(3), ("until", "soon", "later"), strict=True)]  # in this order
    with late_server.with_time_skipping_disabled():
        handle = await start(late_server, queue, runs, definition=UNTIL)
        await until(lambda: fakes.calls["record_audit"] == 3)
        fakes.slow_records[0].set()
        await until(lambda: fakes.phases())
        await asyncio.sleep(0.1)
        await released(handle, fakes.slow_records[1:])
        await until(lambda: datetime.now(UTC) > at())
        async with asyncio.timeout(60):
            [answer] = await control(handle, "pause", [runs[0].run_id])
        assert answer.changed
        await until(lambda: sum("review_asked" in fakes.kinds(run.run_id) for run in runs[1:]) == 2)
        await control(handle, "cancel", [run.run_id for run in runs])
        await handle.result()
    return handle


async def test_a_run_whose_time_has_come_waits_for_the_timer_that_it_shares(late_server: WorkflowEnvironment) -> None:
    """The record's answer is told of the later time of an update that comes with it; read again, it is told of its own."""
    fakes = Fakes()
    async with working(late_server, fakes) as queue:
        await paused_before_a_late_timer(late_server, fakes, queue)
    assert set(fakes.phases().values()) == {"cancelled"}
