"""A real Temporal dev server with a virtual clock per workflow (time-skipping v2, experimental: used only through here)."""

import sysconfig
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from temporalio.client import Client
from temporalio.testing import WorkflowEnvironment
from temporalio.worker._workflow import _WorkflowWorker

from activities.contracts.search_attributes import SEARCH_ATTRIBUTES
from models.settings import Settings
from workflows.connection import payload_keys
from workflows.payloads import plugin

# Who takes longer over one workflow task is interrupted wherever they stand, and the task fails. The SDK says two seconds, by the clock on
# the wall; on a busy machine a replay of some hundred events takes as long.
DEADLOCKED_AFTER = 60
setattr(_WorkflowWorker, "_deadlock_timeout_seconds", property(lambda _: DEADLOCKED_AFTER, lambda *_: None))  # noqa: B010  # says it itself

DYNAMIC_CONFIG = (
    "history.transferProcessorMaxPollRPS=1000",
    "history.timerProcessorMaxPollRPS=1000",
    "history.visibilityProcessorMaxPollRPS=1000",
    'history.timerProcessorMaxTimeShift="10ms"',
    # What is deleted waits for this, which is half a minute otherwise.
    'history.transferProcessorUpdateAckInterval="500ms"',
    'history.visibilityProcessorUpdateAckInterval="500ms"',
    "matching.enableFairness=true",
    "system.numConsecutiveWorkflowTaskProblemsToTriggerSearchAttribute=2",
    "frontend.WorkflowTimeSkippingEnabled=true",
)


@asynccontextmanager
async def temporal_server(settings: Settings, *dynamic_config: str) -> AsyncIterator[WorkflowEnvironment]:
    """A server of its own, whose client speaks our payloads. A later setting of the same name counts."""
    config = {setting.partition("=")[0]: setting for setting in (*DYNAMIC_CONFIG, *dynamic_config)}
    extra = [argument for value in config.values() for argument in ("--dynamic-config-value", value)]
    environment = await WorkflowEnvironment.start_time_skipping_v2(
        dev_server_existing_path=str(Path(sysconfig.get_path("scripts")) / "temporal"),
        search_attributes=SEARCH_ATTRIBUTES,
        dev_server_log_level="error",
        dev_server_extra_args=extra,
        plugins=[plugin(payload_keys(settings))],
    )
    try:
        yield environment
    finally:
        await environment.shutdown()


def client_of(environment: WorkflowEnvironment) -> Client:
    return environment.client
