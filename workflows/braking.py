"""BrakingWorkflow: what follows when a journey or campaign was paused because too much of it failed."""

from datetime import timedelta

from temporalio import workflow

import activities.contracts as contracts
from activities.contracts import BrakingRef


@workflow.defn(name=contracts.BRAKING_WORKFLOW)
class BrakingWorkflow:
    """Nothing leaves any more when this starts, as the flag stands; now the runs are told, and somebody who is responsible."""

    @workflow.run
    async def run(self, braking: BrakingRef) -> None:
        await workflow.execute_activity(contracts.hold_braked, braking, **contracts.RECORDS)
        mails = workflow.ActivityConfig(**contracts.SENDS, task_queue=contracts.send_queue(workflow.info().task_queue))
        while True:
            asked = braking.model_copy(update={"now": workflow.now()})
            notice = await workflow.execute_activity(contracts.notify_of_braking, asked, **mails)
            if notice.look_at is None:
                return
            pause = max(notice.look_at - workflow.now(), timedelta(0))
            if pause:
                await workflow.sleep(pause, summary="until the mail about it is tried again")
            braking = braking.model_copy(update={"tries": braking.tries + 1})
