"""Record the histories that CI replays: `python -m tests.histories.record [name of a scenario …]`.

Run it, with the names of the new ones, when a step kind or an operator's command is added. A change of the command sequence of an
existing history is not re-recorded but patched (docs/decisions/changing-workflows.md): old histories are the runs that are under
way in the field.
"""

import asyncio
import sys
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

from temporalio.client import WorkflowHandle
from temporalio.testing import WorkflowEnvironment

from activities.contracts.braking import BrakingRef
from activities.contracts.campaign import CampaignRef
from activities.contracts.control import Control, ControlledKind
from activities.contracts.journey import RunMessage, RunMessages
from activities.contracts.moves import MOVE_RUNS, MoveChoice, MoveOrder, PlanRef
from activities.contracts.operations import OperationRef
from activities.contracts.reconciling import Reconcile
from activities.contracts.routing import Routing
from activities.contracts.run_control import RunControl
from activities.contracts.sending import SendOutcome
from activities.contracts.steps import StepAnswer, StepVisit
from models.domain.journey.definition import (
    BranchCondition,
    BranchStep,
    CallWebhookStep,
    Definition,
    EnterJourneyStep,
    ExitStep,
    NotifyTeamStep,
    ReviewStep,
    SendStep,
    SplitStep,
    SubscribeStep,
    UnsubscribeStep,
    UpdateContactStep,
    WaitForStep,
    WaitStep,
)
from models.domain.journey.interpreter import times_asked
from models.domain.journey.steps.split import Arm
from models.domain.journey.steps.wait import UntilTime
from models.domain.journey.steps.wait_for import AwaitedEvent
from models.settings import Settings
from tests.temporal import temporal_server
from tests.workflows.fakes import Fakes
from tests.workflows.test_journey import RENEWAL, SCOPE, WELCOME, control, mended, some_runs, start, through, until, working
from tests.workflows.test_operating import TWO_WAITS
from tests.workflows.test_turns import LATE_TIMERS, paused_before_a_late_timer
from workflows.braking import BrakingWorkflow
from workflows.campaign import CampaignWorkflow, ControlWorkflow
from workflows.journey import JourneyWorkflow
from workflows.moves import MovePlanWorkflow
from workflows.occurrence import OccurrenceWorkflow
from workflows.operations import OperationWorkflow
from workflows.reconciling import ReconcileWorkflow
from workflows.routing import RoutingWorkflow

FOLDER = Path(__file__).parent
# The key of these files only; nothing in them is anybody's data.
SETTINGS = Settings.model_validate({"database_url": "postgresql://unused", "secret_key": b"0123456789abcdef0123456789abcdef"})

Scenario = Callable[[WorkflowEnvironment, Fakes, str], Awaitable[WorkflowHandle[Any, Any]]]


async def send_wait_send(server: WorkflowEnvironment, fakes: Fakes, queue: str) -> WorkflowHandle[JourneyWorkflow, None]:
    handle = await start(server, queue, some_runs(3))
    await handle.result()
    return handle


async def refused_held_and_thrown_out(server: WorkflowEnvironment, fakes: Fakes, queue: str) -> WorkflowHandle[JourneyWorkflow, None]:
    runs = some_runs(4)
    fakes.consent = lambda visit: "no_consent" if visit.run_id == runs[0].run_id else None
    fakes.hold = lambda visit, now: now + timedelta(hours=8) if visit.run_id == runs[1].run_id and not visit.round else None
    fakes.outcome = lambda visit: SendOutcome.TRANSIENT if visit.run_id == runs[2].run_id and not visit.round else SendOutcome.ACCEPTED
    handle = await start(server, queue, runs)
    await handle.result()
    return handle


async def branch_and_exit(server: WorkflowEnvironment, fakes: Fakes, queue: str) -> WorkflowHandle[JourneyWorkflow, None]:
    definition = Definition(
        start="fork",
        steps={
            "fork": BranchStep(conditions=(BranchCondition(when={}, next="mail"),), otherwise="leave"),
            "mail": SendStep(template_id=uuid4(), next="pause"),
            "pause": WaitStep(duration=timedelta(minutes=5)),
            "leave": ExitStep(),
        },
    )
    runs = some_runs(4, "fork")
    fakes.branch = lambda visit: 0 if visit.run_id in {runs[0].run_id, runs[1].run_id} else None
    handle = await start(server, queue, runs, definition=definition)
    await handle.result()
    return handle


async def pause_resume_retry_skip_cancel(server: WorkflowEnvironment, fakes: Fakes, queue: str) -> WorkflowHandle[JourneyWorkflow, None]:
    runs = some_runs(4)
    broken = {run.run_id for run in runs[:3]}
    fakes.outcome = lambda visit: SendOutcome.CONTENT_PERMANENT if visit.run_id in broken else SendOutcome.ACCEPTED
    with server.with_time_skipping_disabled():
        handle = await start(server, queue, runs, definition=WELCOME)
        await until(lambda: list(fakes.phases().values()).count("needs_attention") == 3)
        broken.clear()
        await control(handle, "pause", [runs[3].run_id])
        await control(handle, "retry", [runs[0].run_id])
        await control(handle, "skip", [runs[1].run_id])
        await control(handle, "cancel", [runs[2].run_id])
        await control(handle, "resume", [runs[3].run_id])
    await server.fast_forward(handle, timedelta(days=4))
    await handle.result()
    return handle


async def words_in_turn(server: WorkflowEnvironment, fakes: Fakes, queue: str) -> WorkflowHandle[JourneyWorkflow, None]:
    """Two are paused, one of them goes on, the other moves."""
    runs = some_runs(2)
    order = MoveOrder(plan_id=uuid4(), version_id=uuid4(), choices={"pause": MoveChoice(step_id="reminder")}, actor_id=uuid4())
    with server.with_time_skipping_disabled():
        handle = await start(server, queue, runs)
        await until(lambda: list(fakes.phases().values()) == ["waiting"] * 2)
        await control(handle, "pause", [run.run_id for run in runs])
        await control(handle, "resume", [runs[0].run_id])
        await handle.execute_update(MOVE_RUNS, order.model_copy(update={"run_ids": [runs[1].run_id]}))
        await control(handle, "cancel", [runs[0].run_id])
        await handle.result()
    return handle


async def held_until_reconnected(server: WorkflowEnvironment, fakes: Fakes, queue: str) -> WorkflowHandle[JourneyWorkflow, None]:
    connection_id = uuid4()
    fakes.outcome, fakes.reason = lambda visit: SendOutcome.ACCEPTED if visit.round else SendOutcome.CONNECTION_BROKEN, "auth_refused"
    with server.with_time_skipping_disabled():
        handle = await start(server, queue, some_runs(2), definition=through(connection_id))
        await until(lambda: list(fakes.phases().values()) == ["held", "held"])
        await handle.signal("control", mended(connection_id))
        await handle.result()
    return handle


async def campaign_of_thirty_pages(server: WorkflowEnvironment, fakes: Fakes, queue: str) -> WorkflowHandle[Any, Any]:
    campaign = CampaignRef(organization_id=uuid4(), campaign_id=uuid4())
    handle = await server.client.start_workflow(CampaignWorkflow.run, campaign, id=f"test/{uuid4()}", task_queue=queue)
    await handle.result()
    return handle


async def scheduled_campaign(server: WorkflowEnvironment, fakes: Fakes, queue: str) -> WorkflowHandle[Any, Any]:
    fakes.looks = [timedelta(days=3), timedelta(minutes=15), timedelta(days=100), None]
    campaign = CampaignRef(organization_id=uuid4(), campaign_id=uuid4(), scheduled=True)
    with server.with_time_skipping_disabled():
        handle = await server.client.start_workflow(CampaignWorkflow.run, campaign, id=f"test/{uuid4()}", task_queue=queue)
    await server.fast_forward(handle, timedelta(days=4))
    await until(lambda: len(fakes.looked) == 3)
    word = Control(organization_id=campaign.organization_id, kind=ControlledKind.CAMPAIGN, id=campaign.campaign_id, command="cancel")
    await handle.signal("control", word)
    await handle.result()
    return handle


async def day_of_a_recurring_campaign(server: WorkflowEnvironment, fakes: Fakes, queue: str) -> WorkflowHandle[Any, Any]:
    campaign = CampaignRef(organization_id=uuid4(), campaign_id=uuid4())
    handle = await server.client.start_workflow(OccurrenceWorkflow.run, campaign, id=f"test/{uuid4()}", task_queue=queue)
    await handle.result()
    return handle


async def control_of_a_campaign(server: WorkflowEnvironment, fakes: Fakes, queue: str) -> WorkflowHandle[Any, Any]:
    word = Control(organization_id=uuid4(), kind=ControlledKind.CAMPAIGN, id=uuid4(), command="pause", request_id=uuid4())
    handle = await server.client.start_workflow(
        ControlWorkflow.run, id=f"test/{uuid4()}", task_queue=queue, start_signal="control", start_signal_args=[word]
    )
    await handle.result()
    return handle


async def moved_to_another_version(server: WorkflowEnvironment, fakes: Fakes, queue: str) -> WorkflowHandle[JourneyWorkflow, None]:
    """One moves, two exit; the fourth is cancelled before."""
    runs = some_runs(4)
    definition = WELCOME.model_copy(update={"steps": {**WELCOME.steps, "nap": WaitStep(duration=timedelta(days=2))}})
    runs = [*runs[:1], *(replace(run, step_id="nap") for run in runs[1:3]), *runs[3:]]
    choices = {"pause": MoveChoice(step_id="reminder"), "nap": MoveChoice()}
    order = MoveOrder(plan_id=uuid4(), version_id=uuid4(), choices=choices, actor_id=uuid4())
    with server.with_time_skipping_disabled():
        handle = await start(server, queue, runs, definition=definition)
        await until(lambda: list(fakes.phases().values()).count("waiting") == 4)
        await control(handle, "cancel", [runs[3].run_id])
        await handle.execute_update(MOVE_RUNS, order)
        await handle.result()
    return handle


async def moved_run_held_twice(server: WorkflowEnvironment, fakes: Fakes, queue: str) -> WorkflowHandle[JourneyWorkflow, None]:
    """It has come from another version, and finds its journey paused."""
    fakes.outcome = lambda visit: SendOutcome.PAUSED if times_asked(visit.round) < 2 else SendOutcome.ACCEPTED
    handle = await start(server, queue, [replace(run, moves=1) for run in some_runs(1)])
    await handle.result()
    return handle


async def publish_plan_of_three_pages(server: WorkflowEnvironment, fakes: Fakes, queue: str) -> WorkflowHandle[Any, Any]:
    fakes.busy_for = 2
    plan = PlanRef(organization_id=uuid4(), plan_id=uuid4())
    handle = await server.client.start_workflow(MovePlanWorkflow.run, plan, id=f"test/{uuid4()}", task_queue=queue)
    await handle.result()
    return handle


async def failures_passed_over(server: WorkflowEnvironment, fakes: Fakes, queue: str) -> WorkflowHandle[JourneyWorkflow, None]:
    """A campaign that skips what fails: a message, and another system's call."""
    call = CallWebhookStep(url="https://example.com/hook", next="mail")
    definition = Definition(start="call", steps={"call": call, "mail": SendStep(template_id=uuid4())})
    fakes.answer = lambda question, visit: StepAnswer(run_id=visit.run_id, failed=True, reason="webhook_answered_404")
    runs = some_runs(2, "call")
    fakes.outcome = lambda visit: SendOutcome.CONTENT_PERMANENT if visit.run_id == runs[0].run_id else SendOutcome.ACCEPTED
    handle = await start(server, queue, runs, definition=definition, scope=SCOPE.model_copy(update={"on_error": "skip"}))
    await handle.result()
    return handle


async def operation_of_three_pages(server: WorkflowEnvironment, fakes: Fakes, queue: str) -> WorkflowHandle[Any, Any]:
    fakes.busy_for = 2
    operation = OperationRef(organization_id=uuid4(), operation_id=uuid4(), command="pause")
    handle = await server.client.start_workflow(OperationWorkflow.run, operation, id=f"test/{uuid4()}", task_queue=queue)
    await handle.result()
    return handle


async def braking_of_a_journey(server: WorkflowEnvironment, fakes: Fakes, queue: str) -> WorkflowHandle[Any, Any]:
    fakes.notices = [timedelta(minutes=1), timedelta(0), None]
    braking = BrakingRef(organization_id=uuid4(), braking_id=uuid4())
    handle = await server.client.start_workflow(BrakingWorkflow.run, braking, id=f"test/{uuid4()}", task_queue=queue)
    await handle.result()
    return handle


async def skip_jump_cancel_a_step_and_spread(server: WorkflowEnvironment, fakes: Fakes, queue: str) -> WorkflowHandle[Any, Any]:
    runs = some_runs(4)
    word = {"organization_id": uuid4(), "kind": ControlledKind.JOURNEY, "id": uuid4(), "request_id": uuid4()}
    with server.with_time_skipping_disabled():
        handle = await start(server, queue, runs)
        await until(lambda: list(fakes.phases().values()) == ["waiting"] * 4)
        await handle.signal("control", Control.model_validate({**word, "command": "pause"}))
        await until(lambda: list(fakes.phases().values()) == ["paused"] * 4)
        for command, run, to_step in (("skip", runs[0], None), ("jump", runs[1], "reminder"), ("cancel_step", runs[2], "reminder")):
            said = RunControl.model_validate({"command": command, "run_ids": [run.run_id], "to_step": to_step})
            await handle.execute_update("control_runs", said)
        told = RunMessage(run_id=runs[3].run_id, kind="variables", names=["order"])
        await handle.signal("tell", RunMessages(messages=[told]))
        await handle.signal("control", Control.model_validate({**word, "command": "resume", "spread": timedelta(hours=1)}))
        await until(lambda: "paused" not in fakes.phases().values())
    await server.fast_forward(handle, timedelta(days=4))
    await handle.result()
    return handle


async def waits_left_by_a_skip_and_a_jump(server: WorkflowEnvironment, fakes: Fakes, queue: str) -> WorkflowHandle[Any, Any]:
    """Each to another wait for the same event, which then comes."""
    skips, jumps = some_runs(2, "first")
    with server.with_time_skipping_disabled():
        handle = await start(server, queue, [skips, jumps], definition=TWO_WAITS)
        await until(lambda: list(fakes.phases().values()) == ["waiting"] * 2)
        for command, run in (("skip", skips), ("jump", jumps)):
            said = RunControl.model_validate({"command": command, "run_ids": [run.run_id], "to_step": "second"})
            await handle.execute_update("control_runs", said)
        await until(lambda: [fakes.kinds(run.run_id)[-1] for run in (skips, jumps)] == ["waiting"] * 2)
        visits = ((skips, 1), (jumps, 2))
        told = [RunMessage(run_id=run.run_id, kind="matched", step_id="second", visit=visit, index=0) for run, visit in visits]
        await handle.signal("tell", RunMessages(messages=told))
        await handle.result()
    return handle


async def contact_changed_while_its_wait_is_planned(server: WorkflowEnvironment, fakes: Fakes, queue: str) -> WorkflowHandle[Any, Any]:
    """Of two runs whose waits are being planned; the other's contact stays."""
    runs, day = some_runs(2, "renewal"), datetime.now(UTC)
    fakes.answer = lambda question, visit: StepAnswer(run_id=visit.run_id, until=day + timedelta(days=5 + visit.round))
    fakes.may_answer.clear()
    with server.with_time_skipping_disabled():
        handle = await start(server, queue, runs, definition=RENEWAL)
        await until(lambda: fakes.calls["plan_waits"] == 1)
        await handle.signal("tell", RunMessages(messages=[RunMessage(run_id=runs[0].run_id, kind="reconsider")]))
        fakes.may_answer.set()
        await until(lambda: list(fakes.phases().values()) == ["waiting"] * 2)
    await server.fast_forward(handle, timedelta(days=7))
    await handle.result()
    return handle


async def event_faster_than_a_failure(server: WorkflowEnvironment, fakes: Fakes, queue: str) -> WorkflowHandle[Any, Any]:
    """Of two runs whose wait cannot be opened one is told of its event: it is skipped, the other retried."""
    runs = some_runs(2, "first")
    fakes.hopeless = True
    fakes.may_answer.clear()
    with server.with_time_skipping_disabled():
        handle = await start(server, queue, runs, definition=TWO_WAITS)
        await until(lambda: fakes.calls["open_waits"] == 1)
        early = RunMessage(run_id=runs[0].run_id, kind="matched", step_id="first", visit=1, index=0)
        await handle.signal("tell", RunMessages(messages=[early]))
        fakes.may_answer.set()
        await until(lambda: list(fakes.phases().values()) == ["needs_attention"] * 2)
        fakes.hopeless = False
        await control(handle, "skip", [runs[0].run_id])
        await control(handle, "retry", [runs[1].run_id])
        await until(lambda: list(fakes.phases().values()) == ["waiting"] * 2)
        await control(handle, "cancel", [run.run_id for run in runs])
        await handle.result()
    return handle


EVERY_KIND = Definition(
    start="part",
    steps={
        "part": SplitStep(arms=(Arm(weight=1, next="tag"), Arm(weight=1, holdout=True, next="tag"))),
        "tag": UpdateContactStep(add_tags=("seen",), next="agree"),
        "agree": SubscribeStep(topic_id=uuid4(), evidence="ticked the box", next="disagree"),
        "disagree": UnsubscribeStep(topic_id=uuid4(), next="call"),
        "call": CallWebhookStep(url="https://example.com/hook", next="team"),
        "team": NotifyTeamStep(members=(uuid4(),), subject="Hello", text="Hello", next="other"),
        "other": EnterJourneyStep(journey_id=uuid4(), next="morning"),
        "morning": WaitStep(until=UntilTime(time="09:00"), next="event"),
        "event": WaitForStep(events=(AwaitedEvent(event="bought", next="look"),), timeout=timedelta(days=2), timeout_next="look"),
        "look": ReviewStep(approved="leave", rejected="leave", timeout=timedelta(days=9), timeout_next="leave"),
        "leave": ExitStep(),
    },
)


async def every_kind_of_step(server: WorkflowEnvironment, fakes: Fakes, queue: str) -> WorkflowHandle[JourneyWorkflow, None]:
    """One is refused and retried on its way, one is told of its event, one reviewed, one ended by a rule; two see everything time out."""
    runs = some_runs(6, "part")
    ids = [run.run_id for run in runs]
    morning = datetime.now(UTC) + timedelta(hours=1)

    def answer(question: str, visit: StepVisit) -> StepAnswer:
        if question == "plan_waits":
            return StepAnswer(run_id=visit.run_id, until=morning + timedelta(minutes=visit.round))
        if question == "perform_steps" and visit.run_id == ids[0]:
            again = morning - timedelta(minutes=59) if visit.step_id == "call" and not visit.round else None
            return StepAnswer(run_id=visit.run_id, refused=visit.step_id == "agree", reason="no", retry_at=again)
        return StepAnswer(run_id=visit.run_id, index=0 if question == "close_waits" and visit.run_id == ids[1] else None)

    fakes.answer = answer
    with server.with_time_skipping_disabled():
        handle = await start(server, queue, runs, definition=EVERY_KIND)
        await until(lambda: list(fakes.phases().values()).count("waiting") == 5)
        await handle.signal("tell", RunMessages(messages=[RunMessage(run_id=run, kind="reconsider") for run in ids]))
        await handle.signal("tell", RunMessages(messages=[RunMessage(run_id=ids[2], kind="exit", reason="exit_rule:left")]))
        await until(lambda: fakes.phases()[ids[2]] == "exited")
    await server.fast_forward(handle, timedelta(hours=3))
    await until(lambda: "event" in {each.step_id for each in fakes.transitions if each.run_id == ids[3]})
    matched = RunMessage(run_id=ids[3], kind="matched", step_id="event", visit=1, index=0)
    await handle.signal("tell", RunMessages(messages=[matched, matched]))
    await until(lambda: "review_asked" in fakes.kinds(ids[3]))
    await control(handle, "approve", [ids[3]])
    await server.fast_forward(handle, timedelta(days=20))
    await handle.result()
    return handle


async def an_organizations_events(server: WorkflowEnvironment, fakes: Fakes, queue: str) -> WorkflowHandle[Any, Any]:
    routing = Routing(organization_id=uuid4(), timed=True)
    handle = await server.client.start_workflow(
        RoutingWorkflow.run, routing, id=f"test/{uuid4()}", task_queue=queue, start_signal="poke", start_signal_args=[routing]
    )
    await handle.result()
    return handle


async def round_of_the_reconciler(server: WorkflowEnvironment, fakes: Fakes, queue: str) -> WorkflowHandle[Any, Any]:
    """One of its looks fails, twice; the others are of use."""
    fakes.records_can_be_read = False
    handle = await server.client.start_workflow(ReconcileWorkflow.run, Reconcile(), id=f"test/{uuid4()}", task_queue=queue)
    await handle.result()
    return handle


SCENARIOS: tuple[Scenario, ...] = (
    every_kind_of_step,
    round_of_the_reconciler,
    an_organizations_events,
    campaign_of_thirty_pages,
    scheduled_campaign,
    day_of_a_recurring_campaign,
    control_of_a_campaign,
    send_wait_send,
    refused_held_and_thrown_out,
    branch_and_exit,
    pause_resume_retry_skip_cancel,
    words_in_turn,
    held_until_reconnected,
    moved_to_another_version,
    moved_run_held_twice,
    publish_plan_of_three_pages,
    failures_passed_over,
    braking_of_a_journey,
    operation_of_three_pages,
    skip_jump_cancel_a_step_and_spread,
    waits_left_by_a_skip_and_a_jump,
    contact_changed_while_its_wait_is_planned,
    event_faster_than_a_failure,
)
LATE: tuple[Scenario, ...] = (paused_before_a_late_timer,)  # on a server whose timers ring late


async def main() -> None:
    """All scenarios, or those that are named."""
    await record(SCENARIOS)
    await record(LATE, LATE_TIMERS)


async def record(scenarios: Sequence[Scenario], *dynamic_config: str) -> None:
    wanted = [scenario for scenario in scenarios if scenario.__name__ in sys.argv[1:] or not sys.argv[1:]]
    async with temporal_server(SETTINGS, *dynamic_config) as server:
        for scenario in wanted:
            fakes = Fakes()
            async with working(server, fakes) as queue:
                handle = await scenario(server, fakes, queue)
                (FOLDER / f"{scenario.__name__}.json").write_text((await handle.fetch_history()).to_json() + "\n")


if __name__ == "__main__":
    asyncio.run(main())
