"""Runs that go on without what failed, and what follows when a journey or campaign is braked."""

from datetime import timedelta
from uuid import uuid4

import pytest
from temporalio.testing import WorkflowEnvironment

from activities.contracts.braking import BrakingRef
from activities.contracts.sending import SendOutcome
from activities.contracts.steps import StepAnswer
from models.domain.journey.definition import CallWebhookStep, Definition, SendStep
from tests.workflows.fakes import Fakes
from tests.workflows.test_journey import SCOPE, some_runs, start, until, working
from workflows.braking import BrakingWorkflow

CALL = CallWebhookStep(url="https://example.com/hook", next="mail")
CALL_AND_MAIL = Definition(start="call", steps={"call": CALL, "mail": SendStep(template_id=uuid4())})


@pytest.fixture
def fakes() -> Fakes:
    return Fakes()


async def test_where_a_campaign_skips_what_fails_its_runs_go_on_and_say_so(server: WorkflowEnvironment, fakes: Fakes) -> None:
    fakes.answer = lambda question, visit: StepAnswer(run_id=visit.run_id, failed=True, reason="webhook_answered_404")
    fakes.outcome, fakes.reason = lambda visit: SendOutcome.CONTENT_PERMANENT, "policy_refused"
    [run] = runs = some_runs(1, "call")
    async with working(server, fakes) as queue:
        scope = SCOPE.model_copy(update={"on_error": "skip"})
        await (await start(server, queue, runs, definition=CALL_AND_MAIL, scope=scope)).result()
    assert fakes.kinds(run.run_id) == ["entered", "skipped", "skipped", "completed"]
    skipped = [(each.step_id, each.reason, each.details) for each in fakes.transitions if each.kind == "skipped"]
    assert skipped == [("call", "webhook_answered_404", {"because": "failed"}), ("mail", "policy_refused", {"because": "failed"})]


@pytest.mark.parametrize("on_error", ["park", "pause"])
async def test_elsewhere_what_fails_waits_for_a_person(server: WorkflowEnvironment, fakes: Fakes, on_error: str) -> None:
    fakes.outcome, fakes.reason = lambda visit: SendOutcome.CONTENT_PERMANENT, "policy_refused"
    async with working(server, fakes) as queue:
        with server.with_time_skipping_disabled():
            handle = await start(server, queue, some_runs(2), scope=SCOPE.model_copy(update={"on_error": on_error}))
            await until(lambda: list(fakes.phases().values()) == ["needs_attention"] * 2)
            await handle.terminate()


async def test_the_runs_are_told_once_and_somebody_as_often_as_it_takes(server: WorkflowEnvironment, fakes: Fakes) -> None:
    fakes.notices = [timedelta(0), timedelta(minutes=1), timedelta(hours=6), None]
    braking = BrakingRef(organization_id=uuid4(), braking_id=uuid4())
    async with working(server, fakes) as queue:
        await server.client.execute_workflow(BrakingWorkflow.run, braking, id=f"test/{uuid4()}", task_queue=queue)
    assert (fakes.calls["hold_braked"], fakes.calls["notify_of_braking"]) == (1, 4)
    assert [tries for tries, _ in fakes.notified] == [0, 1, 2, 3]
    assert fakes.notified[-1][1] - fakes.notified[0][1] >= timedelta(hours=6, minutes=1)
