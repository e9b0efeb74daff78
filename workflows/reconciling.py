"""ReconcileWorkflow: looks whether Temporal and the database agree, and whether anything stands still. Started by a schedule, one at a
time; it changes no run that goes on."""

import asyncio

from temporalio import workflow
from temporalio.exceptions import ActivityError

from activities.contracts.execution import CHECKS
from activities.contracts.reconciling import (
    RECONCILE_WORKFLOW,
    Reconcile,
    Reconciled,
    archive_histories,
    compare_records,
    compare_workflows,
)

LOOKS = (compare_workflows, compare_records, archive_histories)


@workflow.defn(name=RECONCILE_WORKFLOW)
class ReconcileWorkflow:
    @workflow.run
    async def run(self, reconcile: Reconcile) -> Reconciled:
        """Side by side: one that fails, or takes long, keeps the others from nothing. What failed is looked at again in a minute."""
        looks = [workflow.execute_activity(look, reconcile, **CHECKS) for look in LOOKS]
        found = await asyncio.gather(*looks, return_exceptions=True)
        for each in found:
            if isinstance(each, BaseException) and not isinstance(each, ActivityError):
                raise each
        done = [each for each in found if isinstance(each, Reconciled)]
        if len(done) < len(found):
            workflow.logger.warning("reconciler: %d of %d looks failed; they are made again", len(found) - len(done), len(found))
        return Reconciled(
            opened=sum(each.opened for each in done),
            resolved=sum(each.resolved for each in done),
            lost=sum(each.lost for each in done),
            archived=sum(each.archived for each in done),
        )
