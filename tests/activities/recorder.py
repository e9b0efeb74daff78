"""Stands in for the journey workflow where activities start and tell one, on a Temporal of its own."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from temporalio import workflow
from temporalio.client import Client
from temporalio.worker import Worker

from activities.contracts.control import Control
from activities.contracts.journey import JOURNEY_WORKFLOW, JourneyInput, RunMessages
from models.settings import Settings
from tests.temporal import client_of, temporal_server


@workflow.defn(name=JOURNEY_WORKFLOW, sandboxed=False)
class Recorder:
    """Keeps what it was started with and told, and never ends."""

    @workflow.init
    def __init__(self, given: JourneyInput) -> None:
        self.given = given
        self.told: list[str] = []

    @workflow.run
    async def run(self, given: JourneyInput) -> None:
        await workflow.wait_condition(lambda: False)

    @workflow.signal(name="control")
    def control(self, control: Control) -> None:
        self.told.append(f"{control.command} {control.kind}")

    @workflow.signal(name="tell")
    def tell(self, told: RunMessages) -> None:
        self.told += [f"{message.kind} {message.reason}" for message in told.messages]

    @workflow.query(name="given")
    def what_was_given(self) -> JourneyInput:
        return self.given

    @workflow.query(name="told")
    def what_was_told(self) -> list[str]:
        return self.told


@asynccontextmanager
async def recording(settings: Settings, *dynamic_config: str) -> AsyncIterator[Client]:
    """Of a server whose journey workflows are recorders."""
    async with temporal_server(settings, *dynamic_config) as server:
        client = client_of(server)
        async with Worker(client, task_queue=settings.task_queue, workflows=[Recorder]):
            yield client


async def given(temporal: Client, workflow_id: str) -> JourneyInput:
    found: JourneyInput = await temporal.get_workflow_handle(workflow_id).query("given", result_type=JourneyInput)
    return found


async def told(temporal: Client, workflow_id: str) -> list[str]:
    found: list[str] = await temporal.get_workflow_handle(workflow_id).query("told", result_type=list[str])
    return found
