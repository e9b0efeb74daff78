"""A JourneyWorkflow as a bad release would carry it. In a file of its own, for the workflow sandbox reads it."""

from datetime import timedelta

from temporalio import workflow

from activities.contracts.control import Control
from activities.contracts.journey import JOURNEY_WORKFLOW, JourneyInput


@workflow.defn(name=JOURNEY_WORKFLOW)
class RaisingWorkflow:
    @workflow.run
    async def run(self, given: JourneyInput) -> None:
        raise LookupError("a defect")


@workflow.defn(name=JOURNEY_WORKFLOW)
class OtherwiseWorkflow:
    """Does something else first, so it does not fit the histories of the runs that are under way."""

    @workflow.run
    async def run(self, given: JourneyInput) -> None:
        await workflow.sleep(timedelta(hours=1))

    @workflow.signal(name="control")
    def control(self, control: Control) -> None: ...
