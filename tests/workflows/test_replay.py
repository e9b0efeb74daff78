"""Recorded histories replay: a workflow's code may change, the commands of runs under way may not."""

import pytest
from temporalio.client import WorkflowHistory
from temporalio.worker import Replayer
from temporalio.worker.workflow_sandbox import SandboxedWorkflowRunner

from activities.contracts.journey import JOURNEY_WORKFLOW, JourneyInput, RunMessages
from models.domain.journey.definition import KINDS
from tests.histories.record import FOLDER, SCENARIOS, SETTINGS
from tests.workflows.test_journey import WORKFLOWS
from workflows.connection import payload_keys
from workflows.payloads import data_converter
from workflows.sandbox import RUNNER

HISTORIES = sorted(FOLDER.glob("*.json"))
# With the domain passed through as in production, and with the sandbox's defaults, whose guards bite inside the domain too.
RUNNERS = {"as in production": RUNNER, "domain guarded": SandboxedWorkflowRunner()}


def test_every_scenario_is_recorded() -> None:
    assert {path.stem for path in HISTORIES} >= {scenario.__name__ for scenario in SCENARIOS}


@pytest.mark.parametrize("runner", RUNNERS.values(), ids=RUNNERS.keys())
@pytest.mark.parametrize("path", HISTORIES, ids=lambda path: path.stem)
async def test_recorded_history_replays(path, runner) -> None:  # type: ignore[no-untyped-def]
    replayer = Replayer(
        workflows=WORKFLOWS,
        data_converter=data_converter(payload_keys(SETTINGS)),
        workflow_runner=runner,
    )
    history = WorkflowHistory.from_json(path.stem, path.read_text())
    result = await replayer.replay_workflow(history, raise_on_replay_failure=False)
    assert result.replay_failure is None


async def test_every_kind_of_step_and_every_word_to_a_run_is_in_some_history() -> None:
    """A new kind brings its history: `python -m tests.histories.record NAME`."""
    converter = data_converter(payload_keys(SETTINGS))
    kinds: set[str] = set()
    told: set[str] = set()
    for path in HISTORIES:
        for event in WorkflowHistory.from_json(path.stem, path.read_text()).events:
            started, signal = event.workflow_execution_started_event_attributes, event.workflow_execution_signaled_event_attributes
            if started.workflow_type.name == JOURNEY_WORKFLOW:
                [given] = await converter.decode(started.input.payloads, [JourneyInput])
                kinds |= {step.kind for step in given.definition.steps.values()}
            if signal.signal_name == "tell":
                [messages] = await converter.decode(signal.input.payloads, [RunMessages])
                told |= {message.kind for message in messages.messages}
    assert kinds == set(KINDS)
    assert told == {"matched", "exit", "reconsider", "variables"}
