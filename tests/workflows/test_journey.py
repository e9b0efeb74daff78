import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest
from temporalio.client import WorkflowHandle, WorkflowUpdateFailedError
from temporalio.testing import WorkflowEnvironment
from temporalio.worker import Worker

from activities.contracts.control import Control, ControlledKind
from activities.contracts.execution import send_queue
from activities.contracts.journey import JourneyInput, RunMessage, RunMessages
from activities.contracts.payload import Scope
from activities.contracts.run_control import RunControl, RunControlled
from activities.contracts.sending import SendOutcome
from activities.contracts.steps import StepAnswer
from models.domain.journey.definition import BranchCondition, BranchStep, Definition, ExitStep, SendStep, WaitStep
from models.domain.journey.run import Phase, RunState
from models.domain.journey.steps.wait import UntilDate
from tests.workflows.fakes import Fakes
from workflows.braking import BrakingWorkflow
from workflows.campaign import CampaignWorkflow, ControlWorkflow
from workflows.journey import JourneyWorkflow
from workflows.moves import MovePlanWorkflow
from workflows.occurrence import OccurrenceWorkflow
from workflows.operations import OperationWorkflow
from workflows.reconciling import ReconcileWorkflow
from workflows.routing import RoutingWorkflow

WORKFLOWS = (
    *(JourneyWorkflow, CampaignWorkflow, OccurrenceWorkflow, ControlWorkflow, RoutingWorkflow),
    *(MovePlanWorkflow, OperationWorkflow, BrakingWorkflow, ReconcileWorkflow),
)

SCOPE = Scope(organization_id=uuid4(), journey_id=uuid4(), version_id=uuid4())
WELCOME = Definition(
    start="welcome",
    steps={
        "welcome": SendStep(template_id=uuid4(), next="pause"),
        "pause": WaitStep(duration=timedelta(days=3), next="reminder"),
        "reminder": SendStep(template_id=uuid4(), next=None),
    },
)


def some_runs(count: int, start: str = "welcome") -> list[RunState]:
    return [RunState(run_id=uuid4(), contact_id=uuid4(), step_id=start) for _ in range(count)]


@pytest.fixture
def fakes() -> Fakes:
    return Fakes()


@asynccontextmanager
async def working(server: WorkflowEnvironment, fakes: Fakes) -> AsyncIterator[str]:
    """A worker without a cache: every workflow task replays from the start."""
    queue = str(uuid4())
    async with (
        Worker(server.client, task_queue=queue, workflows=WORKFLOWS, activities=fakes.all(), max_cached_workflows=0),
        Worker(server.client, task_queue=send_queue(queue), activities=[fakes.send_messages, fakes.perform_steps, fakes.notify_of_braking]),
    ):
        yield queue


async def start(server: WorkflowEnvironment, queue: str, runs: list[RunState], **given: Any) -> WorkflowHandle[JourneyWorkflow, None]:
    definition = given.pop("definition", WELCOME)
    journey = JourneyInput(scope=given.pop("scope", SCOPE), definition=definition, runs=runs, **given)
    return await server.client.start_workflow(JourneyWorkflow.run, journey, id=f"test/{uuid4()}", task_queue=queue)


async def until(condition: Any) -> None:
    async with asyncio.timeout(180):
        while not condition():
            await asyncio.sleep(0.02)


async def control(handle: WorkflowHandle[JourneyWorkflow, None], command: str, run_ids: list[UUID]) -> list[RunControlled]:
    word = RunControl.model_validate({"command": command, "run_ids": run_ids, "actor_id": uuid4()})
    answer: list[RunControlled] = await handle.execute_update("control_runs", word, result_type=list[RunControlled])
    return answer


async def test_all_runs_of_a_workflow_share_one_activity_per_question(server: WorkflowEnvironment, fakes: Fakes) -> None:
    runs = some_runs(50)
    async with working(server, fakes) as queue:
        await (await start(server, queue, runs)).result()
    assert fakes.calls == {"check_consent": 2, "check_quiet_hours": 2, "send_messages": 2, "record_audit": 2}
    assert set(fakes.batches["send_messages"]) == {50}
    assert Counter((visit.run_id, visit.step_id) for visit in fakes.sent) == Counter(
        (run.run_id, step) for run in runs for step in ("welcome", "reminder")
    )
    assert fakes.kinds(runs[0].run_id) == ["entered", "sent", "waiting", "woke", "sent", "completed"]


async def test_a_wait_takes_its_virtual_time_on_one_shared_timer(server: WorkflowEnvironment, fakes: Fakes) -> None:
    async with working(server, fakes) as queue:
        handle = await start(server, queue, some_runs(20))
        await handle.result()
    times = {transition.kind: transition.occurred_at for transition in fakes.transitions}
    assert timedelta(days=3) <= times["completed"] - times["entered"] < timedelta(days=3, minutes=10)
    history = await handle.fetch_history()
    assert sum(event.HasField("timer_started_event_attributes") for event in history.events) == 1


async def test_a_refused_contact_goes_on_or_exits_as_its_step_says(server: WorkflowEnvironment, fakes: Fakes) -> None:
    leaving = Definition(
        start="welcome", steps={"welcome": SendStep(template_id=uuid4(), on_refused="exit", next="bye"), "bye": ExitStep()}
    )
    runs = some_runs(2)
    fakes.consent = lambda visit: "no_consent" if visit.run_id == runs[0].run_id else None
    async with working(server, fakes) as queue:
        await (await start(server, queue, runs)).result()
        others = some_runs(1)
        fakes.consent = lambda visit: "no_consent"
        await (await start(server, queue, others, definition=leaving)).result()
    assert fakes.kinds(runs[0].run_id) == ["entered", "not_sent", "waiting", "woke", "not_sent", "completed"]
    assert fakes.kinds(others[0].run_id) == ["entered", "not_sent", "exited"]


async def test_a_held_message_asks_everything_again(server: WorkflowEnvironment, fakes: Fakes) -> None:
    fakes.hold = lambda visit, now: now + timedelta(hours=9) if visit.round == 0 else None
    runs = some_runs(3)
    async with working(server, fakes) as queue:
        await (await start(server, queue, runs)).result()
    assert fakes.kinds(runs[0].run_id) == ["entered", "held", "woke", "sent", "waiting", "woke", "held", "woke", "sent", "completed"]
    assert fakes.calls["check_consent"] == 4


async def test_a_failed_run_parks_alone_and_can_be_retried_or_skipped(server: WorkflowEnvironment, fakes: Fakes) -> None:
    runs = some_runs(3)
    broken = {runs[0].run_id, runs[1].run_id}
    fakes.outcome = lambda visit: SendOutcome.CONTENT_PERMANENT if visit.run_id in broken else SendOutcome.ACCEPTED
    async with working(server, fakes) as queue:
        handle = await start(server, queue, runs)
        await until(lambda: list(fakes.phases().values()).count("completed") == 1)
        assert fakes.phases()[runs[0].run_id] == "needs_attention"
        broken.clear()
        assert [each.changed for each in await control(handle, "retry", [runs[0].run_id])] == [True]
        await control(handle, "skip", [runs[1].run_id])
        await handle.result()
    assert fakes.kinds(runs[0].run_id)[:4] == ["entered", "parked", "retried", "sent"]
    assert fakes.kinds(runs[1].run_id)[:4] == ["entered", "parked", "skipped", "waiting"]
    assert set(fakes.phases().values()) == {"completed"}


async def test_an_unknown_outcome_waits_for_a_person(server: WorkflowEnvironment, fakes: Fakes) -> None:
    fakes.outcome = lambda visit: SendOutcome.UNKNOWN
    runs = some_runs(1)
    async with working(server, fakes) as queue:
        handle = await start(server, queue, runs)
        await until(lambda: fakes.phases().get(runs[0].run_id) == "needs_attention")
        await control(handle, "cancel", [runs[0].run_id])
        await handle.result()
    assert fakes.phases()[runs[0].run_id] == "cancelled"
    assert fakes.calls["send_messages"] == 1


async def test_a_paused_run_does_nothing_until_resumed_and_its_wait_goes_on(server: WorkflowEnvironment, fakes: Fakes) -> None:
    runs = some_runs(2)
    async with working(server, fakes) as queue:
        with server.with_time_skipping_disabled():
            handle = await start(server, queue, runs)
            await until(lambda: list(fakes.phases().values()) == ["waiting", "waiting"])
            assert [each.phase for each in await control(handle, "pause", [runs[0].run_id])] == ["paused"]
            assert [each.changed for each in await control(handle, "pause", [runs[0].run_id])] == [False]
        await server.fast_forward(handle, timedelta(days=4))
        await until(lambda: fakes.phases()[runs[1].run_id] == "completed")
        assert fakes.phases()[runs[0].run_id] == "paused"
        await control(handle, "resume", [runs[0].run_id])
        await handle.result()
    assert fakes.kinds(runs[0].run_id) == ["entered", "sent", "waiting", "paused", "resumed", "woke", "sent", "completed"]
    assert not any("with" in each.details for each in fakes.transitions)  # the pause was its own


async def test_a_paused_campaign_holds_every_run_and_loses_none(server: WorkflowEnvironment, fakes: Fakes) -> None:
    runs = some_runs(5)
    word = {"organization_id": SCOPE.organization_id, "kind": ControlledKind.CAMPAIGN, "id": uuid4()}
    async with working(server, fakes) as queue:
        handle = await start(server, queue, runs, held_by=["campaign"])
        await until(lambda: len(fakes.phases()) == 5)
        assert set(fakes.phases().values()) == {"paused"} and not fakes.sent
        await handle.signal("control", Control.model_validate({**word, "command": "resume"}))
        await handle.result()
    assert set(fakes.phases().values()) == {"completed"} and len(fakes.sent) == 10
    assert [each.details for each in fakes.transitions if each.kind == "resumed"] == [{"with": "campaign"}] * 5


async def test_runs_that_were_cancelled_before_their_workflow_began_end_at_once(server: WorkflowEnvironment, fakes: Fakes) -> None:
    runs = some_runs(3)
    async with working(server, fakes) as queue:
        await (await start(server, queue, runs, cancelled=True)).result()
    assert set(fakes.phases().values()) == {"cancelled"} and not fakes.sent
    assert {each.reason for each in fakes.transitions if each.kind == "cancelled"} == {"journey_cancelled"}  # in no campaign


async def test_a_run_of_another_workflow_is_refused(server: WorkflowEnvironment, fakes: Fakes) -> None:
    async with working(server, fakes) as queue:
        handle = await start(server, queue, some_runs(1), held_by=["campaign"])
        with pytest.raises(WorkflowUpdateFailedError):
            await control(handle, "pause", [uuid4()])
        await handle.terminate()


async def test_branches_are_chosen_in_one_question(server: WorkflowEnvironment, fakes: Fakes) -> None:
    forking = Definition(
        start="fork",
        steps={
            "fork": BranchStep(conditions=(BranchCondition(when={}, next="mail"),), otherwise="leave"),
            "mail": SendStep(template_id=uuid4()),
            "leave": ExitStep(reason="not_interested"),
        },
    )
    runs = some_runs(4, "fork")
    fakes.branch = lambda visit: 0 if visit.run_id in {runs[0].run_id, runs[1].run_id} else None
    async with working(server, fakes) as queue:
        await (await start(server, queue, runs, definition=forking)).result()
    assert fakes.calls["choose_branches"] == 1
    assert Counter(fakes.phases().values()) == {"completed": 2, "exited": 2}


async def test_continue_as_new_carries_every_run_at_rest(short_history_server: WorkflowEnvironment, fakes: Fakes) -> None:
    """Five rounds of mail and wait outgrow the short history; two runs are parked, one is paused on the way."""
    steps: dict[str, Any] = {}
    for number in range(5):
        steps[f"mail{number}"] = SendStep(template_id=uuid4(), next=f"wait{number}")
        steps[f"wait{number}"] = WaitStep(duration=timedelta(hours=1), next=f"mail{number + 1}" if number < 4 else None)
    definition = Definition(start="mail0", steps=steps)
    runs = some_runs(10, "mail0")
    broken = {runs[0].run_id}
    fakes.outcome = lambda visit: SendOutcome.CONTENT_PERMANENT if visit.run_id in broken else SendOutcome.ACCEPTED
    async with working(short_history_server, fakes) as queue:
        handle = await start(short_history_server, queue, runs, definition=definition)
        await until(lambda: list(fakes.phases().values()).count("completed") == 9)
        current = short_history_server.client.get_workflow_handle(handle.id)
        assert (await current.describe()).run_id != handle.first_execution_run_id
        broken.clear()
        await control(current, "retry", [runs[0].run_id])
        await current.result()
    sends = Counter((visit.run_id, visit.step_id) for visit in fakes.sent)
    assert set(sends.values()) == {1} and len(sends) == 50
    for run in runs:
        numbers = sorted(each.sequence for each in fakes.transitions if each.run_id == run.run_id)
        assert numbers == list(range(1, len(numbers) + 1))


async def test_a_cancellation_while_a_message_is_in_flight_is_on_record_before_it_is_answered(
    server: WorkflowEnvironment, fakes: Fakes
) -> None:
    runs = some_runs(2)
    fakes.may_send.clear()
    async with working(server, fakes) as queue:
        handle = await start(server, queue, runs)
        await until(lambda: fakes.calls["send_messages"] == 1)
        [answer] = await control(handle, "cancel", [runs[0].run_id])
        assert answer.changed and fakes.kinds(runs[0].run_id)[-1] == "cancel_requested"
        fakes.may_send.set()
        await handle.result()
    assert fakes.phases() == {runs[0].run_id: "cancelled", runs[1].run_id: "completed"}


async def test_the_last_checks_word_that_the_campaign_was_cancelled_ends_the_run(server: WorkflowEnvironment, fakes: Fakes) -> None:
    fakes.outcome, fakes.reason = lambda visit: SendOutcome.PAUSED, "campaign_cancelled"
    runs = some_runs(2)
    async with working(server, fakes) as queue:
        await (await start(server, queue, runs)).result()
    assert set(fakes.phases().values()) == {"cancelled"} and fakes.calls["send_messages"] == 1


async def test_a_run_held_only_by_a_pause_goes_on_at_once_when_it_is_lifted(server: WorkflowEnvironment, fakes: Fakes) -> None:
    runs = some_runs(2)
    fakes.outcome, fakes.reason = lambda visit: SendOutcome.PAUSED, "campaign_paused"
    fakes.ask_again_at = by_themselves = datetime.now(UTC) + timedelta(hours=1)
    word = {"organization_id": SCOPE.organization_id, "kind": ControlledKind.CAMPAIGN, "id": uuid4()}
    async with working(server, fakes) as queue:
        with server.with_time_skipping_disabled():
            handle = await start(server, queue, runs)
            await until(lambda: list(fakes.phases().values()) == ["held", "held"])
            await handle.signal("control", Control.model_validate({**word, "command": "pause"}))
            await until(lambda: set(fakes.phases().values()) == {"paused"} and fakes.calls["send_messages"] == 1)
            fakes.outcome, fakes.reason, fakes.ask_again_at = lambda visit: SendOutcome.ACCEPTED, None, None
            await handle.signal("control", Control.model_validate({**word, "command": "resume"}))
            await until(lambda: len(fakes.sent) == len([each for each in fakes.transitions if each.kind == "woke"]) == 2)
        assert max(each.occurred_at for each in fakes.transitions if each.kind == "woke") < by_themselves
        await handle.terminate()


def through(connection_id: UUID) -> Definition:
    return Definition(start="welcome", steps={"welcome": SendStep(template_id=uuid4(), connection_id=connection_id)})


def mended(connection_id: UUID) -> Control:
    return Control(organization_id=SCOPE.organization_id, kind=ControlledKind.CONNECTION, id=connection_id, command="resume")


def held_since(reason: str) -> RunState:
    """Until tomorrow, as a workflow that continued as new carries it."""
    tomorrow = datetime.now(UTC) + timedelta(days=1)
    return replace(some_runs(1)[0], phase=Phase.HELD, reason=reason, wake_at=tomorrow, sequence=2, round=9)


async def test_runs_held_for_a_broken_connection_go_on_at_once_when_that_one_is_mended(server: WorkflowEnvironment, fakes: Fakes) -> None:
    broken, sleeping, connection_id = held_since("authentication_failed"), held_since("quiet_hours"), uuid4()
    async with working(server, fakes) as queue:
        with server.with_time_skipping_disabled():
            handle = await start(server, queue, [broken, sleeping], definition=through(connection_id))
            await handle.signal("control", mended(uuid4()))
            assert await handle.query("runs", result_type=list[RunState]) == [broken, sleeping]
            await handle.signal("control", mended(connection_id))
            await until(lambda: fakes.phases() == {broken.run_id: "completed"})
            assert fakes.kinds(broken.run_id) == ["woke", "sent", "completed"]
            assert sleeping in await handle.query("runs", result_type=list[RunState])
            await handle.terminate()


async def test_a_connection_that_is_mended_while_a_run_asks_is_asked_again_at_once(server: WorkflowEnvironment, fakes: Fakes) -> None:
    connection_id = uuid4()
    fakes.outcome, fakes.reason = lambda visit: SendOutcome.ACCEPTED if visit.round else SendOutcome.CONNECTION_BROKEN, "sender_refused"
    fakes.may_send.clear()
    async with working(server, fakes) as queue:
        with server.with_time_skipping_disabled():
            handle = await start(server, queue, some_runs(1), definition=through(connection_id))
            await until(lambda: fakes.calls["send_messages"] == 1)
            await handle.signal("control", mended(connection_id))
            fakes.may_send.set()
            await handle.result()
    [held] = [each for each in fakes.transitions if each.kind == "held"]
    assert held.wake_at == held.occurred_at and len(fakes.sent) == 1


async def test_a_run_paused_while_its_connection_was_mended_asks_when_it_is_resumed(server: WorkflowEnvironment, fakes: Fakes) -> None:
    runs, connection_id = some_runs(1), uuid4()
    fakes.outcome, fakes.reason = lambda visit: SendOutcome.ACCEPTED if visit.round else SendOutcome.CONNECTION_BROKEN, "auth_refused"
    async with working(server, fakes) as queue:
        with server.with_time_skipping_disabled():
            handle = await start(server, queue, runs, definition=through(connection_id))
            await until(lambda: list(fakes.phases().values()) == ["held"])
            await control(handle, "pause", [runs[0].run_id])
            await control(handle, "resume", [runs[0].run_id])
            await handle.result()
    assert fakes.kinds(runs[0].run_id) == ["entered", "held", "paused", "resumed", "woke", "sent", "completed"]


async def test_a_workflow_that_somebody_cancels_cancels_its_runs(server: WorkflowEnvironment, fakes: Fakes) -> None:
    runs = some_runs(3)
    async with working(server, fakes) as queue:
        with server.with_time_skipping_disabled():
            handle = await start(server, queue, runs)
            await until(lambda: list(fakes.phases().values()).count("waiting") == 3)
            await handle.cancel()
            await handle.result()
    assert set(fakes.phases().values()) == {"cancelled"}


async def test_a_workflow_that_is_cancelled_while_it_drains_cancels_its_runs(
    short_history_server: WorkflowEnvironment, fakes: Fakes
) -> None:
    """It waits for a message in flight before it continues as new, and is cancelled just then."""
    [flying] = some_runs(1)
    fakes.may_send.clear()
    async with working(short_history_server, fakes) as queue:
        with short_history_server.with_time_skipping_disabled():
            handle = await start(short_history_server, queue, [flying])
            await until(lambda: fakes.calls["send_messages"] == 1)
            for _ in range(6):
                for command in ("pause", "resume"):
                    await control(handle, command, [flying.run_id])
            assert (await handle.describe()).history_length > 30
            await handle.cancel()
            await until(lambda: fakes.kinds(flying.run_id)[-1] == "cancel_requested")
            fakes.may_send.set()
            await handle.result(follow_runs=False)
    assert fakes.kinds(flying.run_id)[-1] == "cancelled"


async def test_a_transient_answer_is_asked_again_after_longer_and_longer_waits(server: WorkflowEnvironment, fakes: Fakes) -> None:
    fakes.outcome = lambda visit: SendOutcome.CONNECTION_BROKEN if visit.round < 4 else SendOutcome.ACCEPTED
    runs = some_runs(1)
    async with working(server, fakes) as queue:
        await (await start(server, queue, runs)).result()
    holds = [each for each in fakes.transitions if each.kind == "held" and each.step_id == "welcome"]
    waits = [round((each.wake_at - each.occurred_at).total_seconds() / 60) for each in holds if each.wake_at]
    assert waits == [1, 2, 4, 8]


RENEWAL = Definition(start="renewal", steps={"renewal": WaitStep(date=UntilDate(field="attributes.renews_on"))})


@pytest.mark.parametrize("moved_by", [timedelta(0), timedelta(days=2)])
async def test_a_contact_that_changes_while_the_end_of_its_wait_is_asked_is_asked_about_again(
    server: WorkflowEnvironment, fakes: Fakes, moved_by: timedelta
) -> None:
    """The answer in flight comes of what the contact was like before."""
    [run] = some_runs(1, "renewal")
    old = datetime.now(UTC).replace(microsecond=0) + timedelta(days=5)
    fakes.answer = lambda question, visit: StepAnswer(run_id=visit.run_id, until=old)
    fakes.may_answer.clear()
    async with working(server, fakes) as queue:
        with server.with_time_skipping_disabled():
            handle = await start(server, queue, [run], definition=RENEWAL)
            await until(lambda: fakes.calls["plan_waits"] == 1)
            fakes.answer = lambda question, visit: StepAnswer(run_id=visit.run_id, until=old + moved_by)
            for _ in range(2):
                await handle.signal("tell", RunMessages(messages=[RunMessage(run_id=run.run_id, kind="reconsider")]))
            fakes.may_answer.set()
            await until(lambda: "waiting" in fakes.kinds(run.run_id))  # which is written when it rests
            [state] = await handle.query(JourneyWorkflow.runs)
            await handle.terminate()
    assert state.wake_at == old + moved_by and fakes.calls["plan_waits"] == 2
    assert fakes.kinds(run.run_id) == ["entered", "waiting", *(["rescheduled"] if moved_by else [])]
