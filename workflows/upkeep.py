"""UpkeepWorkflow: what must be looked after although nobody asks. Started by a schedule, one at a time."""

from temporalio import workflow

import activities.contracts as contracts
from activities.contracts import Upkeep


@workflow.defn(name=contracts.UPKEEP_WORKFLOW)
class UpkeepWorkflow:
    @workflow.run
    async def run(self, upkeep: Upkeep) -> None:
        await workflow.execute_activity(contracts.start_missing_workflows, upkeep, **contracts.RECORDS)
        await workflow.execute_activity(contracts.wake_routing, upkeep, **contracts.RECORDS)
