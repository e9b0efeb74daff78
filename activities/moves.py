"""Carrying a publish plan out: telling the workflows of older versions, and the plan's end."""

import asyncio
from collections.abc import Callable
from typing import Any
from uuid import UUID

from temporalio import activity
from temporalio.client import Client

from activities.contracts.moves import MOVE_RUNS, MoveChoice, MoveOrder, PlanPage, PlanPageTold, PlanProgress, PlanRef
from activities.heartbeat import heartbeating
from activities.updating import Updates
from models.settings import Settings
from models.store import publish_plans
from models.store.publish_plans import Chosen
from models.store.session import Database
from models.tables.publishing import PublishPlan


class MoveActivities:
    def __init__(self, database: Database, settings: Settings, temporal: Client) -> None:
        self.database = database
        self.temporal = temporal
        self.page_size = settings.move_page_size

    def methods(self) -> list[Callable[..., Any]]:
        return [self.tell_moves, self.finish_plan]

    @activity.defn(name="tell_moves")
    async def tell_moves(self, page: PlanPage) -> PlanPageTold:
        """The next page of workflows with runs at steps that the plan speaks of has been told.

        Safe to run twice: the update's id is made from the plan, its workflow, the pass and the workflow told, so each hears a pass once,
        and hears a plan that had to begin anew. A workflow that does not answer in time, is closed or does not exist yet does not keep the
        others waiting: the next pass asks again whoever still carries such runs.
        """
        async with heartbeating():
            async with self.database.organization(page.plan.organization_id) as session:
                plan = await publish_plans.get(session, page.plan.plan_id)
                found = await publish_plans.workflows(session, plan, page.after, self.page_size)
                chosen = publish_plans.chosen(plan)
            if chosen is None or not found:
                return PlanPageTold()
            orders = {version_id: _order(plan, chosen, version_id) for version_id in {version_id for _, version_id in found}}
            # A workflow that was started again counts its passes anew; whom it tells would take its words for those that were said before.
            updates, said = Updates(self.temporal), f"{page.plan.plan_id}/{activity.info().workflow_run_id}/{page.plan.passes}"
            await asyncio.gather(*(updates.ask(name, MOVE_RUNS, orders[version_id], f"{said}/{name}") for name, version_id in found))
        return PlanPageTold(after=found[-1][0] if len(found) == self.page_size else None)

    @activity.defn(name="finish_plan")
    async def finish_plan(self, plan: PlanRef) -> PlanProgress:
        """The plan is marked completed when no unfinished run stands where it says move or exit. Safe to run twice: it is marked once."""
        async with heartbeating(), self.database.organization(plan.organization_id) as session:
            return PlanProgress(finished=await publish_plans.finish(session, plan.plan_id))


def _order(plan: PublishPlan, chosen: Chosen, version_id: UUID) -> MoveOrder:
    assert plan.version_id is not None  # what is carried out has been published
    choices = {step.step_id: MoveChoice(step_id=step.to_step) for step in chosen.acting if step.version_id == version_id}
    return MoveOrder(plan_id=plan.id, version_id=plan.version_id, choices=choices, actor_kind=chosen.actor.kind, actor_id=chosen.actor.id)
