"""MovePlanWorkflow: carries out what a publish plan says of the runs on older versions."""

from datetime import timedelta

from temporalio import workflow

from activities.contracts.execution import RECORDS
from activities.contracts.moves import MOVE_PLAN_WORKFLOW, PlanPage, PlanRef, finish_plan, tell_moves
from models.domain.back_off import doubled

FIRST_PAUSE = timedelta(seconds=1)
LONGEST_PAUSE = timedelta(minutes=5)  # so late a run is told that was busy before; a workflow takes 2,000 updates


@workflow.defn(name=MOVE_PLAN_WORKFLOW)
class MovePlanWorkflow:
    """Tells every workflow that carries runs at the plan's steps, page by page, again and again until none stands there: a run obeys when
    nothing is in flight for it, and one that was elsewhere may have come to such a step meanwhile."""

    @workflow.run
    async def run(self, plan: PlanRef) -> None:
        while True:
            told = await workflow.execute_activity(tell_moves, PlanPage(plan=plan, after=plan.after), **RECORDS)
            plan = plan.model_copy(update={"after": told.after})
            if told.after is None:
                if (await workflow.execute_activity(finish_plan, plan, **RECORDS)).finished:
                    return
                await workflow.sleep(
                    doubled(FIRST_PAUSE, plan.passes, LONGEST_PAUSE), summary="until the runs that were busy are asked again"
                )
                plan = plan.model_copy(update={"passes": plan.passes + 1})
            if workflow.info().is_continue_as_new_suggested():
                workflow.continue_as_new(plan)
