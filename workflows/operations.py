"""OperationWorkflow: says one thing to many runs."""

from datetime import timedelta

from temporalio import workflow

from activities.contracts.execution import RECORDS
from activities.contracts.operations import (
    OPERATION_PAGES,
    OPERATION_WORKFLOW,
    OperationEnd,
    OperationPage,
    OperationRef,
    control_page,
    finish_operation,
)
from models.domain.back_off import doubled

FIRST_PAUSE = timedelta(seconds=1)
LONGEST_PAUSE = timedelta(minutes=1)
PASSES = 12  # about six minutes: who has not answered by then is not going to


@workflow.defn(name=OPERATION_WORKFLOW)
class OperationWorkflow:
    """Goes through the operation's runs page by page. Those whose workflow does not answer are asked again, a bounded number of times."""

    @workflow.run
    async def run(self, operation: OperationRef) -> None:
        carry_out = OPERATION_PAGES.get(operation.command, control_page)
        while True:
            page = OperationPage(operation=operation, after=operation.after)
            done = await workflow.execute_activity(carry_out, page, **RECORDS)
            operation = operation.model_copy(update={"after": done.after or 0})
            if done.after is None:
                end = OperationEnd(operation=operation, last=operation.passes + 1 >= PASSES)
                if (await workflow.execute_activity(finish_operation, end, **RECORDS)).finished:
                    return
                await workflow.sleep(
                    doubled(FIRST_PAUSE, operation.passes, LONGEST_PAUSE), summary="until the runs that did not answer are asked again"
                )
                operation = operation.model_copy(update={"passes": operation.passes + 1})
            if workflow.info().is_continue_as_new_suggested():
                workflow.continue_as_new(operation)
