"""UpkeepWorkflow: what must be looked after although nobody asks. Started by a schedule, one at a time."""

from temporalio import workflow

from activities.contracts.execution import RECORDS
from activities.contracts.upkeep import UPKEEP_WORKFLOW, Upkeep, start_missing_workflows, wake_routing


@workflow.defn(name=UPKEEP_WORKFLOW)
class UpkeepWorkflow:
    @workflow.run
    async def run(self, upkeep: Upkeep) -> None:
        await workflow.execute_activity(start_missing_workflows, upkeep, **RECORDS)
        await workflow.execute_activity(wake_routing, upkeep, **RECORDS)
