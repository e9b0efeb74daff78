"""Choosing branches."""

from collections import defaultdict
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any
from uuid import UUID

from temporalio import activity

from activities.apart import answered_apart
from activities.contracts.steps import StepAnswer, StepVisit, VisitBatch
from activities.heartbeat import heartbeating
from activities.versions import Versions
from models.domain.journey.definition import BranchStep
from models.store import branches
from models.store.session import Database


class BranchActivities:
    def __init__(self, database: Database, versions: Versions) -> None:
        self.database = database
        self.versions = versions

    def methods(self) -> list[Callable[..., Any]]:
        return [self.choose_branches]

    @activity.defn(name="choose_branches")
    async def choose_branches(self, batch: VisitBatch) -> list[StepAnswer]:
        """The branch each run takes now. Reads only, so running it twice is harmless."""
        async with heartbeating():
            return await answered_apart(batch.visits, partial(self._choose, batch))

    async def _choose(self, batch: VisitBatch, visits: Sequence[StepVisit]) -> list[StepAnswer]:
        by_step: defaultdict[str, dict[UUID, UUID]] = defaultdict(dict)
        for visit in visits:
            by_step[visit.step_id][visit.run_id] = visit.contact_id
        chosen: dict[UUID, int | None] = {}
        async with self.database.organization(batch.scope.organization_id) as session:
            definition = await self.versions.definition(session, batch.scope.version_id)
            for step_id, contacts in by_step.items():
                conditions = [condition.when for condition in definition.step(step_id, BranchStep).conditions]
                chosen |= await branches.choose(session, conditions, contacts, batch.now)
        return [StepAnswer(run_id=visit.run_id, index=chosen[visit.run_id]) for visit in visits]
