"""What operators say to runs while things are in flight, spread resumptions, and the workflow that speaks to many."""

import asyncio
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import pytest
from temporalio.client import WorkflowHandle
from temporalio.testing import WorkflowEnvironment

from activities.contracts.control import Control, ControlledKind
from activities.contracts.journey import RunMessage, RunMessages
from activities.contracts.operations import OperationRef
from activities.contracts.run_control import Place, RunControl, RunControlled
from activities.contracts.sending import SendOutcome
from models.domain.journey.definition import WaitForStep
from models.domain.journey.run import RunState
from models.domain.journey.steps.wait_for import AwaitedEvent
from tests.workflows.fakes import Fakes
from tests.workflows.test_journey import SCOPE, WELCOME, some_runs, start, until, working
from workflows.journey import JourneyWorkflow
from workflows.operations import PASSES, OperationWorkflow


@pytest.fixture
def fakes() -> Fakes:
    return Fakes()


async def say(handle: WorkflowHandle[JourneyWorkflow, None], command: str, runs: list[RunState], **more: Any) -> list[RunControlled]:
    word = RunControl.model_validate({"command": command, "run_ids": [run.run_id for run in runs], "actor_id": uuid4(), **more})
    answer: list[RunControlled] = await handle.execute_update("control_runs", word, result_type=list[RunControlled])
    return answer


def at(runs: list[RunState], step_id: str, visit: int = 1) -> dict[str, Place]:
    return {str(run.run_id): Place(step_id=step_id, visit=visit) for run in runs}


async def sending(fakes: Fakes) -> None:
    await until(lambda: fakes.calls["send_messages"] == 1)


async def test_a_skip_while_a_message_is_in_flight_waits_for_it_and_never_skips_the_next_step(
    server: WorkflowEnvironment, fakes: Fakes
) -> None:
    runs = some_runs(2)
    fakes.may_send.clear()
    fakes.outcome = lambda visit: SendOutcome.UNKNOWN if visit.run_id == runs[0].run_id else SendOutcome.ACCEPTED
    async with working(server, fakes) as queue:
        with server.with_time_skipping_disabled():
            handle = await start(server, queue, runs)
            await sending(fakes)
            answers = await say(handle, "skip", runs, places=at(runs, "welcome"), reason="a mistake")
            assert [(answer.phase, answer.changed) for answer in answers] == [("active", True)] * 2
            fakes.may_send.set()
            await until(lambda: list(fakes.phases().values()) == ["waiting"] * 2)
            late = await say(handle, "skip", runs, places=at(runs, "welcome"))
            assert [(answer.changed, answer.why) for answer in late] == [(False, "moved_on")] * 2
            await handle.terminate()
    assert fakes.kinds(runs[0].run_id) == ["entered", "skip_requested", "parked", "skipped", "waiting"]
    assert fakes.kinds(runs[1].run_id) == ["entered", "skip_requested", "sent", "waiting", "skip_missed"]
    [skipped] = [each for each in fakes.transitions if each.kind == "skipped"]
    assert skipped.reason == "a mistake" and skipped.actor_id is not None


async def test_a_jump_while_a_message_is_in_flight_comes_before_the_next_effect(server: WorkflowEnvironment, fakes: Fakes) -> None:
    runs = some_runs(1)
    fakes.may_send.clear()
    async with working(server, fakes) as queue:
        with server.with_time_skipping_disabled():
            handle = await start(server, queue, runs)
            await sending(fakes)
            [unknown] = await say(handle, "jump", runs, to_step="nowhere")
            assert (unknown.changed, unknown.why) == (False, "unknown_step")
            await say(handle, "jump", runs, to_step="reminder", reason="no need to wait")
            fakes.may_send.set()
            await handle.result()
    assert fakes.kinds(runs[0].run_id) == ["entered", "jump_requested", "sent", "waiting", "jumped", "sent", "completed"]
    assert [(visit.step_id, visit.visit) for visit in fakes.sent] == [("welcome", 1), ("reminder", 2)]


TWO_WAITS = WELCOME.model_copy(
    update={
        "start": "first",
        "steps": {
            "first": WaitForStep(events=(AwaitedEvent(event="bought", next="second"),)),
            "second": WaitForStep(events=(AwaitedEvent(event="bought", next=None),)),
        },
    }
)


@pytest.mark.parametrize(("command", "left", "visit"), [("skip", "skipped", 1), ("jump", "jumped", 2)])
async def test_a_wait_that_was_left_is_closed_before_the_next_one_opens(
    server: WorkflowEnvironment, fakes: Fakes, command: str, left: str, visit: int
) -> None:
    runs = some_runs(1, "first")
    async with working(server, fakes) as queue:
        with server.with_time_skipping_disabled():
            handle = await start(server, queue, runs, definition=TWO_WAITS)
            await until(lambda: fakes.kinds(runs[0].run_id) == ["entered", "waiting"])
            await say(handle, command, runs, to_step="second")
            await until(lambda: len(fakes.kinds(runs[0].run_id)) == 4)
            told = [
                RunMessage(run_id=runs[0].run_id, kind="matched", step_id="first", visit=1, index=0),  # of the one that was left
                RunMessage(run_id=runs[0].run_id, kind="matched", step_id="second", visit=visit, index=0),
            ]
            await handle.signal("tell", RunMessages(messages=told))
            await handle.result()
    assert fakes.kinds(runs[0].run_id)[2:] == [left, "waiting", "matched", "completed"]
    assert (await tasks(handle))[4:8] == ["record_audit asked", "record_audit done", "open_waits asked", "open_waits done"]


@pytest.mark.parametrize("command", ["skip", "retry"])
async def test_an_event_that_was_faster_than_a_failure_ends_no_later_wait(server: WorkflowEnvironment, fakes: Fakes, command: str) -> None:
    """When the wait is opened at last, the database says whether the event counts."""
    [run] = some_runs(1, "first")
    fakes.hopeless = True
    fakes.may_answer.clear()
    async with working(server, fakes) as queue:
        with server.with_time_skipping_disabled():
            handle = await start(server, queue, [run], definition=TWO_WAITS)
            await until(lambda: fakes.calls["open_waits"] == 1)
            early = RunMessage(run_id=run.run_id, kind="matched", step_id="first", visit=1, index=0)
            await handle.signal("tell", RunMessages(messages=[early]))
            fakes.may_answer.set()
            await until(lambda: fakes.kinds(run.run_id) == ["entered", "parked"])
            fakes.hopeless = False
            await say(handle, command, [run])
            await until(lambda: len(fakes.kinds(run.run_id)) >= 4)
            await handle.terminate()
    assert fakes.kinds(run.run_id) == ["entered", "parked", "skipped" if command == "skip" else "retried", "waiting"]


async def tasks(handle: WorkflowHandle[Any, Any]) -> list[str]:
    """What was asked of activities, and when that was done."""
    names: dict[int, str] = {}
    found = []
    async for event in handle.fetch_history_events():
        asked, done = event.activity_task_scheduled_event_attributes, event.activity_task_completed_event_attributes
        if asked.activity_type.name:
            names[event.event_id] = asked.activity_type.name
            found.append(f"{names[event.event_id]} asked")
        if done.scheduled_event_id:
            found.append(f"{names[done.scheduled_event_id]} done")
    return found


async def while_sending(server: WorkflowEnvironment, fakes: Fakes, words: list[dict[str, Any]], start_at: str = "welcome") -> RunState:
    """A run that is told all of this while its first message is in flight, and then travels to its end."""
    [run] = some_runs(1, start_at)
    fakes.may_send.clear()
    async with working(server, fakes) as queue:
        with server.with_time_skipping_disabled():
            definition = WELCOME.model_copy(update={"start": start_at})
            handle = await start(server, queue, [run], definition=definition)
            await sending(fakes)
            for word in words:
                assert [answer.changed for answer in await say(handle, runs=[run], **word)] == [True]
            fakes.may_send.set()
            await handle.result()
    return run


async def test_all_that_is_said_while_a_message_is_in_flight_is_obeyed_in_order_or_told_of(
    server: WorkflowEnvironment, fakes: Fakes
) -> None:
    """A skip that follows a jump is for the step where the run stood, and must not make it forget the jump."""
    jump, skip = {"command": "jump", "to_step": "reminder", "reason": "must end"}, {"command": "skip", "reason": "colleague"}
    run = await while_sending(server, fakes, [skip, jump, skip])
    asked = ["entered", "skip_requested", "jump_requested", "skip_requested", "sent", "waiting"]
    assert fakes.kinds(run.run_id) == [*asked, "skip_missed", "jumped", "skip_missed", "sent", "completed"]
    missed = [each for each in fakes.transitions if each.kind == "skip_missed"]
    assert [each.details for each in missed] == [{"to": "welcome", "why": "colleague"}] * 2
    assert all(each.actor_id is not None for each in missed)


async def test_a_jump_is_obeyed_also_when_the_message_in_flight_was_the_last(server: WorkflowEnvironment, fakes: Fakes) -> None:
    run = await while_sending(server, fakes, [{"command": "jump", "to_step": "reminder"}], start_at="reminder")
    assert fakes.kinds(run.run_id) == ["entered", "jump_requested", "sent", "jumped", "sent", "completed"]
    assert [visit.visit for visit in fakes.sent] == [1, 2]


async def test_a_word_that_a_cancellation_comes_before_is_told_of(server: WorkflowEnvironment, fakes: Fakes) -> None:
    run = await while_sending(server, fakes, [{"command": "jump", "to_step": "reminder"}, {"command": "skip"}, {"command": "cancel"}])
    kinds = fakes.kinds(run.run_id)
    assert kinds[-3:] == ["jump_missed", "skip_missed", "cancelled"] and len(fakes.sent) == 1


async def test_a_jump_that_is_said_again_to_the_next_workflow_sends_nothing_again(server: WorkflowEnvironment, fakes: Fakes) -> None:
    """Whoever got no answer repeats it, and by then a new workflow may carry the run, which knows nothing of the update's id."""
    runs, word = some_runs(2), {"to_step": "welcome", "request_id": uuid4()}
    async with working(server, fakes) as queue:
        with server.with_time_skipping_disabled():
            handle = await start(server, queue, runs)
            await until(lambda: list(fakes.phases().values()) == ["waiting"] * 2)
            assert [answer.changed for answer in await say(handle, "jump", runs[:1], **word)] == [True]
            await until(lambda: len(fakes.sent) == 3 and list(fakes.phases().values()) == ["waiting"] * 2)
            carried = await handle.query("runs", result_type=list[RunState])
            await handle.terminate()
            following = await start(server, queue, carried)
            answers = await say(following, "jump", runs, **word)
            assert [(answer.changed, answer.why) for answer in answers] == [(False, "already"), (True, None)]
            await until(lambda: len(fakes.sent) == 4)
            [other] = await say(following, "jump", runs[:1], to_step="welcome", request_id=uuid4())
            assert other.changed
            await until(lambda: len(fakes.sent) == 5)
            await following.terminate()
    assert sorted((visit.run_id == runs[0].run_id, visit.visit) for visit in fakes.sent) == [
        *((False, 1), (False, 2)),
        *((True, 1), (True, 2), (True, 3)),
    ]


async def test_a_step_ahead_is_cancelled_for_one_run_and_not_for_others(server: WorkflowEnvironment, fakes: Fakes) -> None:
    runs = some_runs(3)
    async with working(server, fakes) as queue:
        with server.with_time_skipping_disabled():
            handle = await start(server, queue, runs)
            await until(lambda: list(fakes.phases().values()) == ["waiting"] * 3)
            await say(handle, "cancel_step", runs[:2], to_step="reminder", reason="called")
            await say(handle, "restore_step", runs[1:2], to_step="reminder")
            [again] = await say(handle, "restore_step", runs[2:], to_step="reminder")
            assert (again.changed, again.why) == (False, "already")
        await server.fast_forward(handle, timedelta(days=4))
        await handle.result()
    assert fakes.kinds(runs[0].run_id) == ["entered", "sent", "waiting", "step_cancelled", "woke", "skipped", "completed"]
    assert {visit.run_id for visit in fakes.sent if visit.step_id == "reminder"} == {runs[1].run_id, runs[2].run_id}


async def test_a_paused_run_obeys_at_once_and_rests_where_it_arrives(server: WorkflowEnvironment, fakes: Fakes) -> None:
    runs = some_runs(1)
    async with working(server, fakes) as queue:
        with server.with_time_skipping_disabled():
            handle = await start(server, queue, runs, held_by=["journey"])
            await until(lambda: list(fakes.phases().values()) == ["paused"])
            [skipped] = await say(handle, "skip", runs, places=at(runs, "welcome"))
            assert (skipped.phase, skipped.changed) == ("paused", True)
            [resumed] = await say(handle, "resume", runs)
            assert (resumed.changed, resumed.why) == (False, "paused_with_journey")
            await handle.terminate()
    assert fakes.sent == []
    assert [each.beneath for each in fakes.transitions if each.kind == "waiting"] == ["waiting"]


async def test_what_begins_beneath_a_pause_says_so(server: WorkflowEnvironment, fakes: Fakes) -> None:
    """Of a replay also the pause of the run in whose place it goes on, which outlasts the journey's."""
    other, own = some_runs(1)[0], replace(some_runs(1)[0], paused=True)
    async with working(server, fakes) as queue:
        with server.with_time_skipping_disabled():
            handle = await start(server, queue, [other, own], held_by=["journey"])
            await until(lambda: list(fakes.phases().values()) == ["paused"] * 2)
            await handle.signal("control", resumption(None))
            await until(lambda: fakes.phases()[other.run_id] == "waiting")
            carried = await handle.query("runs", result_type=list[RunState])
            await handle.terminate()
            following = await start(server, queue, carried)  # as after continue-as-new: nothing begins
            assert [answer.changed for answer in await say(following, "resume", [own])] == [True]
            await until(lambda: fakes.phases()[own.run_id] == "waiting")
            await following.terminate()
    assert fakes.kinds(other.run_id) == ["entered", "paused", "resumed", "sent", "waiting"]
    assert fakes.kinds(own.run_id) == ["entered", "paused", "paused", "resumed", "resumed", "sent", "waiting"]
    told = [(each.reason, each.details) for each in fakes.transitions if each.run_id == own.run_id and each.kind == "paused"]
    assert told == [(None, {"with": "journey"}), ("paused_before", {})]


async def test_the_workflow_hears_which_variables_changed_and_by_whom(server: WorkflowEnvironment, fakes: Fakes) -> None:
    runs = some_runs(1)
    who = uuid4()
    async with working(server, fakes) as queue:
        with server.with_time_skipping_disabled():
            handle = await start(server, queue, runs)
            await until(lambda: list(fakes.phases().values()) == ["waiting"])
            told = RunMessage(run_id=runs[0].run_id, kind="variables", names=["order"], actor_kind="user", actor_id=who, reason="typo")
            await handle.signal("tell", RunMessages(messages=[told]))
            await until(lambda: "variables_changed" in fakes.kinds(runs[0].run_id))
            await handle.terminate()
    [change] = [each for each in fakes.transitions if each.kind == "variables_changed"]
    assert (change.actor_id, change.details, change.phase) == (who, {"names": ["order"], "why": "typo"}, "waiting")


def resumption(spread: timedelta | None) -> Control:
    return Control(
        organization_id=SCOPE.organization_id,
        kind=ControlledKind.JOURNEY,
        id=SCOPE.journey_id,
        command="resume",
        request_id=uuid4(),
        spread=spread,
    )


async def test_a_spread_resumption_survives_a_second_pause_and_the_last_word_decides(server: WorkflowEnvironment, fakes: Fakes) -> None:
    runs = some_runs(40)
    pause = resumption(None).model_copy(update={"command": "pause"})
    async with working(server, fakes) as queue:
        with server.with_time_skipping_disabled():
            handle = await start(server, queue, runs, held_by=["journey"])
            await until(lambda: list(fakes.phases().values()).count("paused") == 40)
            await handle.signal("control", resumption(timedelta(days=1)))
            await until(lambda: "paused" not in fakes.phases().values())  # somebody's moment may be now
        await server.fast_forward(handle, timedelta(hours=12))  # somebody's moment is in either half, but for one time in 2**39
        with server.with_time_skipping_disabled():
            await until(lambda: len(fakes.sent) > 0)
            await handle.signal("control", pause)
            await until(lambda: list(fakes.phases().values()).count("paused") == 40)
            early = len(fakes.sent)
        await server.fast_forward(handle, timedelta(days=2))  # every moment has passed; all are paused
        assert 0 < early < 40 and len(fakes.sent) == early
        await handle.signal("control", resumption(None))
        await until(lambda: len({visit.run_id for visit in fakes.sent}) == 40)  # at once, whatever their moments were
        await server.fast_forward(handle, timedelta(days=4))
        await handle.result()
    assert len({(visit.run_id, visit.step_id) for visit in fakes.sent}) == len(fakes.sent) == 80


async def test_a_spread_resumption_that_is_heard_of_later_still_gives_each_run_its_moment(
    server: WorkflowEnvironment, fakes: Fakes
) -> None:
    """Whose moment has passed by then goes on at once, the others at theirs."""
    runs = some_runs(40)
    said = resumption(timedelta(days=1))
    async with working(server, fakes) as queue:
        with server.with_time_skipping_disabled():
            handle = await start(server, queue, runs, held_by=["journey"])
            await until(lambda: list(fakes.phases().values()).count("paused") == 40)
            now = await server.get_current_time(handle)
            await handle.signal("control", said.model_copy(update={"said_at": now - timedelta(hours=12)}))
            await until(
                lambda: len({visit.run_id for visit in fakes.sent}) > 0
            )  # somebody's moment is in either half, but for one time in 2**39
            await until(lambda: "resumed" in fakes.kinds(runs[0].run_id))
            await handle.terminate()
    assert len({visit.run_id for visit in fakes.sent}) < 40


async def test_a_run_whose_wait_an_event_ends_before_its_turn_is_on_record_with_its_turn(server: WorkflowEnvironment, fakes: Fakes) -> None:
    """So that nobody takes it for one that is stuck."""
    [run] = some_runs(1, "paid")
    paid = WaitForStep(events=(AwaitedEvent(event="paid", next="welcome"),))
    definition = WELCOME.model_copy(update={"start": "paid", "steps": {**WELCOME.steps, "paid": paid}})
    async with working(server, fakes) as queue:
        with server.with_time_skipping_disabled():
            handle = await start(server, queue, [run], definition=definition)
            await until(lambda: list(fakes.phases().values()) == ["waiting"])
            await handle.signal("control", resumption(None).model_copy(update={"command": "pause"}))
            await until(lambda: list(fakes.phases().values()) == ["paused"])
            began = datetime.now(UTC)
            await handle.signal("control", resumption(timedelta(days=7)))
            await until(lambda: list(fakes.phases().values()) == ["waiting"])
            told = RunMessage(run_id=run.run_id, kind="matched", step_id="paid", visit=1, index=0)
            await handle.signal("tell", RunMessages(messages=[told]))
            await until(lambda: list(fakes.phases().values()) == ["active"])
            await handle.terminate()
    [last] = [each for each in fakes.transitions if each.sequence == max(other.sequence for other in fakes.transitions)]
    assert last.wake_at is not None and began < last.wake_at <= datetime.now(UTC) + timedelta(days=7)
    assert fakes.sent == []


async def test_an_operation_goes_through_its_pages_until_nobody_is_left(server: WorkflowEnvironment, fakes: Fakes) -> None:
    fakes.busy_for = 1
    async with working(server, fakes) as queue:
        await operate(server, queue, "pause")
        assert fakes.told == [(each, after) for each in (0, 1) for after in ("0", "300", "600")]
        await operate(server, queue, "set_variables")
        assert fakes.calls["set_variables_page"] == 1


async def test_an_operation_gives_up_after_a_while(server: WorkflowEnvironment, fakes: Fakes) -> None:
    fakes.busy_for = 1_000
    async with working(server, fakes) as queue:
        async with asyncio.timeout(120):
            await operate(server, queue, "pause")
    assert fakes.calls["finish_operation"] == PASSES


async def operate(server: WorkflowEnvironment, queue: str, command: str) -> None:
    ref = OperationRef(organization_id=uuid4(), operation_id=uuid4(), command=command)
    await server.client.execute_workflow(OperationWorkflow.run, ref, id=f"test/{uuid4()}", task_queue=queue)
