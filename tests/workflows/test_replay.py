"""Recorded histories replay: a workflow's code may change, the commands of runs under way may not."""

import pytest
from temporalio.client import WorkflowHistory
from temporalio.worker import Replayer
from temporalio.worker.workflow_sandbox import SandboxedWorkflowRunner

from tests.histories.record import FOLDER, SCENARIOS, SETTINGS
from workflows.campaign import CampaignWorkflow, ControlWorkflow
from workflows.connection import payload_keys
from workflows.journey import JourneyWorkflow
from workflows.moves import MovePlanWorkflow
from workflows.occurrence import OccurrenceWorkflow
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
        workflows=[JourneyWorkflow, CampaignWorkflow, OccurrenceWorkflow, ControlWorkflow, MovePlanWorkflow],
        data_converter=data_converter(payload_keys(SETTINGS)),
        workflow_runner=runner,
    )
    history = WorkflowHistory.from_json(path.stem, path.read_text())
    result = await replayer.replay_workflow(history, raise_on_replay_failure=False)
    assert result.replay_failure is None
