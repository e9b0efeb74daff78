"""BrakingWorkflow: what follows when a journey or campaign was paused because too much of it failed."""

from datetime import timedelta

from temporalio import workflow

from activities.contracts.braking import BRAKING_WORKFLOW, BrakingRef, hold_braked, notify_of_braking
from activities.contracts.execution import RECORDS, SENDS, send_queue


@workflow.defn(name=BRAKING_WORKFLOW)
class BrakingWorkflow:
    """Nothing leaves any more when this starts, as the flag stands; now the runs are told, and somebody who is responsible."""

    @workflow.run
    async def run(self, braking: BrakingRef) -> None:
        await workflow.execute_activity(hold_braked, braking, **RECORDS)
        mails = workflow.ActivityConfig(**SENDS, task_queue=send_queue(workflow.info().task_queue))
        while True:
            asked = braking.model_copy(update={"now": workflow.now()})
            notice = await workflow.execute_activity(notify_of_braking, asked, **mails)
            if notice.look_at is None:
                return
            pause = max(notice.look_at - workflow.now(), timedelta(0))
            if pause:
                await workflow.sleep(pause, summary="until the mail about it is tried again")
            braking = braking.model_copy(update={"tries": braking.tries + 1})
