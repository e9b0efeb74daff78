"""Runs that leave for another version, and the plan that tells them to."""

import asyncio
from dataclasses import replace
from datetime import timedelta
from uuid import UUID, uuid4

import pytest
from temporalio.client import WorkflowHandle, WorkflowUpdateFailedError
from temporalio.testing import WorkflowEnvironment

from activities.contracts.control import Control, ControlledKind
from activities.contracts.moves import MOVE_RUNS, MoveChoice, MoveOrder, PlanRef
from activities.contracts.run_control import RunControlled
from activities.contracts.sending import SendOutcome
from activities.contracts.steps import StepVisit
from models.domain.journey.interpreter import times_asked
from models.domain.journey.run import Phase
from tests.workflows.fakes import Fakes
from tests.workflows.test_journey import SCOPE, control, some_runs, start, until, working
from workflows.journey import JourneyWorkflow
from workflows.moves import MovePlanWorkflow


@pytest.fixture
def fakes() -> Fakes:
    return Fakes()


def order(**choices: str | None) -> MoveOrder:
    steps = {step_id: MoveChoice(step_id=target) for step_id, target in choices.items()}
    return MoveOrder(plan_id=uuid4(), version_id=uuid4(), choices=steps, actor_id=uuid4())


async def move(handle: WorkflowHandle[JourneyWorkflow, None], wanted: MoveOrder, id: str | None = None) -> set[UUID]:
    """The runs that were told."""
    answer: list[RunControlled] = await handle.execute_update(MOVE_RUNS, wanted, id=id, result_type=list[RunControlled])
    return {each.run_id for each in answer}


async def waiting(fakes: Fakes, count: int) -> None:
    await until(lambda: list(fakes.phases().values()).count("waiting") == count)


async def test_waiting_runs_leave_together_and_the_workflow_ends(server: WorkflowEnvironment, fakes: Fakes) -> None:
    runs = some_runs(40)
    async with working(server, fakes) as queue:
        with server.with_time_skipping_disabled():
            handle = await start(server, queue, runs)
            await waiting(fakes, 40)
            wanted = order(pause="short_pause")
            assert await move(handle, wanted) == {run.run_id for run in runs}
            await handle.result()
    [handed] = fakes.handed
    assert (handed.order, handed.scope) == (wanted, SCOPE)
    assert {(state.step_id, state.moved, state.moves) for state in handed.runs} == {("short_pause", True, 1)}
    recorded = {run.run_id: max(each.sequence for each in fakes.transitions if each.run_id == run.run_id) for run in runs}
    assert {state.run_id: state.sequence for state in handed.runs} == recorded  # the new workflow counts on from there


async def test_runs_at_other_steps_stay_and_those_that_exit_say_by_whom(server: WorkflowEnvironment, fakes: Fakes) -> None:
    runs = [*some_runs(2), *some_runs(2, "reminder")]
    fakes.outcome = reminders_fail
    async with working(server, fakes) as queue:
        with server.with_time_skipping_disabled():
            handle = await start(server, queue, runs)
            await until(lambda: sorted(fakes.phases().values()) == ["needs_attention"] * 2 + ["waiting"] * 2)
            wanted = order(pause=None)
            assert await move(handle, wanted) == {run.run_id for run in runs[:2]}
            await until(lambda: list(fakes.phases().values()).count("exited") == 2)
            await control(handle, "cancel", [run.run_id for run in runs[2:]])
            await handle.result()
    exits = [each for each in fakes.transitions if each.kind == "exited"]
    assert {(each.reason, each.actor_kind, each.actor_id) for each in exits} == {("version_replaced", "user", wanted.actor_id)}
    assert fakes.handed == []


def reminders_fail(visit: StepVisit) -> SendOutcome:
    return SendOutcome.CONTENT_PERMANENT if visit.step_id == "reminder" else SendOutcome.ACCEPTED


async def test_a_run_with_a_message_in_flight_obeys_when_it_has_come_back(server: WorkflowEnvironment, fakes: Fakes) -> None:
    runs = some_runs(2)
    fakes.may_send.clear()
    async with working(server, fakes) as queue:
        with server.with_time_skipping_disabled():
            handle = await start(server, queue, runs)
            await until(lambda: fakes.calls["send_messages"] == 1)
            await move(handle, order(welcome="greeting", pause="short_pause"))
            assert fakes.handed == []
            fakes.may_send.set()
            await handle.result()
    assert {state.step_id for handed in fakes.handed for state in handed.runs} == {"short_pause"}  # where it had come to by then
    assert len(fakes.sent) == 2


async def test_parked_and_paused_runs_move_as_well(server: WorkflowEnvironment, fakes: Fakes) -> None:
    runs = [*some_runs(1), *some_runs(1, "reminder")]
    fakes.outcome = reminders_fail
    word = Control(organization_id=SCOPE.organization_id, kind=ControlledKind.JOURNEY, id=SCOPE.journey_id, command="pause")
    async with working(server, fakes) as queue:
        with server.with_time_skipping_disabled():
            handle = await start(server, queue, runs)
            await until(lambda: sorted(fakes.phases().values()) == ["needs_attention", "waiting"])
            await control(handle, "pause", [runs[0].run_id])
            await handle.signal("control", word)
            await move(handle, order(pause="pause", reminder="reminder"))
            await handle.result()
    states = {state.run_id: state for handed in fakes.handed for state in handed.runs}
    assert states[runs[0].run_id].paused and states[runs[1].run_id].phase is Phase.NEEDS_ATTENTION


async def test_what_is_said_while_it_is_handed_over_is_not_swallowed(server: WorkflowEnvironment, fakes: Fakes) -> None:
    """The old workflow answers that the run is not its own any more, instead of obeying for nobody."""
    [run] = some_runs(1)
    fakes.may_hand_over.clear()
    async with working(server, fakes) as queue:
        with server.with_time_skipping_disabled():
            handle = await start(server, queue, [run])
            await waiting(fakes, 1)
            before = len(fakes.transitions)
            await move(handle, order(pause="short_pause"))
            await until(lambda: fakes.calls["hand_over_runs"] == 1)
            word = Control(organization_id=SCOPE.organization_id, kind=ControlledKind.JOURNEY, id=SCOPE.journey_id, command="pause")
            await handle.signal("control", word)
            for command in ("cancel", "pause"):  # whose answers come after that word was heard
                with pytest.raises(WorkflowUpdateFailedError):
                    await control(handle, command, [run.run_id])
            fakes.may_hand_over.set()
            await handle.result()
    assert len(fakes.transitions) == before  # nothing takes the numbers that the new workflow gives


async def test_the_same_word_is_heard_once(server: WorkflowEnvironment, fakes: Fakes) -> None:
    runs = some_runs(3)
    fakes.may_hand_over.clear()  # a workflow that has ended hears nothing
    async with working(server, fakes) as queue:
        with server.with_time_skipping_disabled():
            handle = await start(server, queue, runs)
            await waiting(fakes, 3)
            wanted = order(pause="short_pause")
            told = [await move(handle, wanted, "plan/0/this") for _ in range(2)]
            fakes.may_hand_over.set()
            await handle.result()
    assert told[0] == told[1] == {run.run_id for run in runs}
    assert len(fakes.handed) == 1


async def test_moving_in_the_middle_of_continuing_as_new_forgets_nobody(short_history_server: WorkflowEnvironment, fakes: Fakes) -> None:
    server, runs = short_history_server, some_runs(6)
    async with working(server, fakes) as queue:
        with server.with_time_skipping_disabled():
            handle = await start(server, queue, runs)
            await waiting(fakes, 6)
            for run in runs[1:]:  # makes the history long enough
                await control(handle, "pause", [run.run_id])
                await control(handle, "resume", [run.run_id])
            handle = server.client.get_workflow_handle(handle.id)
            await move(handle, order(pause="short_pause"))
            await until(lambda: sum(len(handed.runs) for handed in fakes.handed) == 6)
    assert {state.run_id for handed in fakes.handed for state in handed.runs} == {run.run_id for run in runs}


async def test_a_plan_tells_every_page_in_passes_until_nobody_stands_there(server: WorkflowEnvironment, fakes: Fakes) -> None:
    fakes.busy_for = 2
    plan = PlanRef(organization_id=uuid4(), plan_id=uuid4())
    async with working(server, fakes) as queue:
        await server.client.execute_workflow(MovePlanWorkflow.run, plan, id=f"test/{uuid4()}", task_queue=queue)
    assert fakes.told == [(number, after) for number in range(3) for after in (None, "one", "two")]


async def test_a_long_plan_continues_as_new_where_it_was(short_history_server: WorkflowEnvironment, fakes: Fakes) -> None:
    fakes.busy_for = 4
    plan = PlanRef(organization_id=uuid4(), plan_id=uuid4())
    async with working(short_history_server, fakes) as queue:
        client, name = short_history_server.client, f"test/{uuid4()}"
        await client.execute_workflow(MovePlanWorkflow.run, plan, id=name, task_queue=queue)
        first = client.get_workflow_handle(name)
        continued = (await first.describe()).raw_description.workflow_execution_info.first_run_id != (await first.describe()).run_id
    assert continued
    assert fakes.told == [(number, after) for number in range(5) for after in (None, "one", "two")]


async def test_a_run_that_was_moved_asks_again_as_soon_as_any_other(server: WorkflowEnvironment, fakes: Fakes) -> None:
    """What it asked of the version before does not make it patient."""
    fakes.outcome = lambda visit: SendOutcome.PAUSED if times_asked(visit.round) < 2 else SendOutcome.ACCEPTED
    moved, other = replace(some_runs(1)[0], moves=3), some_runs(1)[0]
    async with working(server, fakes) as queue:
        await (await start(server, queue, [moved, other])).result()
    waits: dict[UUID, list[timedelta]] = {moved.run_id: [], other.run_id: []}
    for one in fakes.transitions:
        if one.kind == "held" and one.wake_at is not None and one.step_id == "welcome":
            waits[one.run_id].append(one.wake_at - one.occurred_at)
    assert waits[moved.run_id] == waits[other.run_id] and len(waits[moved.run_id]) == 2
    assert max(waits[moved.run_id]) <= timedelta(seconds=30)


async def test_a_word_that_meets_a_move_is_obeyed_or_sent_on_and_never_told_that_the_run_is_over(
    server: WorkflowEnvironment, fakes: Fakes
) -> None:
    """The word is accepted ever later after the move: before the run leaves, while it does, and when it has gone."""
    stays, *runs = some_runs(17)  # one keeps the workflow
    async with working(server, fakes) as queue:
        with server.with_time_skipping_disabled():
            handle = await start(server, queue, [stays, *runs])
            await waiting(fakes, len(runs) + 1)

            async def speak(run: UUID, pause: float) -> str:
                leave = asyncio.create_task(move(handle, order(pause="short_pause").model_copy(update={"run_ids": [run]})))
                await asyncio.sleep(pause)
                try:
                    [answer] = await control(handle, "pause", [run])
                    return str(answer.why or "obeyed")
                except WorkflowUpdateFailedError as error:
                    return str(getattr(error.cause, "type", error.cause))
                finally:
                    await leave

            told = [await speak(run.run_id, 0.002 * number) for number, run in enumerate(runs)]
            await handle.terminate()
    assert set(told) <= {"obeyed", "NotFound"}
