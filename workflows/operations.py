"""OperationWorkflow: says one thing to many runs."""

from datetime import timedelta

from temporalio import workflow

import activities.contracts as contracts
from activities.contracts import OperationEnd, OperationPage, OperationRef

FIRST_PAUSE = timedelta(seconds=1)
LONGEST_PAUSE = timedelta(minutes=1)
DOUBLINGS = 6
PASSES = 12  # about six minutes: who has not answered by then is not going to


@workflow.defn(name=contracts.OPERATION_WORKFLOW)
class OperationWorkflow:
    """Goes through the operation's runs page by page. Those whose workflow does not answer are asked again, a bounded number of times."""

    @workflow.run
    async def run(self, operation: OperationRef) -> None:
        carry_out = contracts.OPERATION_PAGES.get(operation.command, contracts.control_page)
        while True:
            page = OperationPage(operation=operation, after=operation.after)
            done = await workflow.execute_activity(carry_out, page, **contracts.RECORDS)
            operation = operation.model_copy(update={"after": done.after or 0})
            if done.after is None:
                end = OperationEnd(operation=operation, last=operation.passes + 1 >= PASSES)
                if (await workflow.execute_activity(contracts.finish_operation, end, **contracts.RECORDS)).finished:
                    return
                await workflow.sleep(_pause(operation.passes), summary="until the runs that did not answer are asked again")
                operation = operation.model_copy(update={"passes": operation.passes + 1})
            if workflow.info().is_continue_as_new_suggested():
                workflow.continue_as_new(operation)


def _pause(passes: int) -> timedelta:
    return min(FIRST_PAUSE * (1 << min(passes, DOUBLINGS)), LONGEST_PAUSE)
