"""Waits whose end is not a duration: by the contact's clock and dates, for events, for conditions."""

from collections.abc import Callable, Sequence
from datetime import datetime
from functools import partial
from typing import Any
from uuid import UUID

from temporalio import activity

from activities.apart import answered_apart
from activities.contracts.steps import StepAnswer, StepVisit, VisitBatch
from activities.heartbeat import heartbeating
from activities.versions import Versions
from models.domain.journey.definition import Definition, WaitForStep, WaitStep
from models.domain.wait_time import plan
from models.store import planned_waits, waits
from models.store.session import Database
from models.store.waits import Match, NewWait


class WaitActivities:
    def __init__(self, database: Database, versions: Versions) -> None:
        self.database = database
        self.versions = versions

    def methods(self) -> list[Callable[..., Any]]:
        return [self.plan_waits, self.open_waits, self.close_waits]

    @activity.defn(name="plan_waits")
    async def plan_waits(self, batch: VisitBatch) -> list[StepAnswer]:
        """When each run wakes, by its contact's zone and dates as they are now. Reads only, so running it twice is harmless."""
        async with heartbeating():
            return await answered_apart(batch.visits, partial(self._plan, batch))

    async def _plan(self, batch: VisitBatch, visits: Sequence[StepVisit]) -> list[StepAnswer]:
        async with self.database.organization(batch.scope.organization_id) as session:
            definition = await self.versions.definition(session, batch.scope.version_id)
            steps = {visit.run_id: definition.step(visit.step_id, WaitStep) for visit in visits}
            fields = {run_id: step.date.field for run_id, step in steps.items() if step.date is not None}
            known = await planned_waits.load(session, {visit.run_id: visit.contact_id for visit in visits}, fields)
        return [_planned(visit, steps[visit.run_id], known[visit.run_id], batch) for visit in visits]

    @activity.defn(name="open_waits")
    async def open_waits(self, batch: VisitBatch) -> list[StepAnswer]:
        """Safe to run twice: a row per visit; one that is over stays so, and is answered again."""
        async with heartbeating():
            return await answered_apart(batch.visits, partial(self._open, batch))

    async def _open(self, batch: VisitBatch, visits: Sequence[StepVisit]) -> list[StepAnswer]:
        async with self.database.organization(batch.scope.organization_id) as session:
            definition = await self.versions.definition(session, batch.scope.version_id)
            new = _new_waits(visits, definition, batch.now)
            found = await waits.open_waits(session, batch.scope.version_id, definition, new, batch.now)
        return _answers(visits, found)

    @activity.defn(name="close_waits")
    async def close_waits(self, batch: VisitBatch) -> list[StepAnswer]:
        """Safe to run twice: a row that is closed stays as it is."""
        async with heartbeating():
            return await answered_apart(batch.visits, partial(self._close, batch))

    async def _close(self, batch: VisitBatch, visits: Sequence[StepVisit]) -> list[StepAnswer]:
        async with self.database.organization(batch.scope.organization_id) as session:
            definition = await self.versions.definition(session, batch.scope.version_id)
            new = _new_waits(visits, definition, batch.now)
            found = await waits.close_waits(session, batch.scope.version_id, definition, new, batch.now)
        return _answers(visits, found)


def _planned(visit: StepVisit, step: WaitStep, known: planned_waits.Known, batch: VisitBatch) -> StepAnswer:
    planned = plan(step, known.place, known.value, visit.asks_from or batch.now)
    return StepAnswer(run_id=visit.run_id, until=planned.until, reason=planned.reason, details=planned.details)


def _new_waits(visits: Sequence[StepVisit], definition: Definition, now: datetime) -> list[NewWait]:
    return [_new_wait(visit, definition.step(visit.step_id, WaitForStep), now) for visit in visits]


def _new_wait(visit: StepVisit, step: WaitForStep, now: datetime) -> NewWait:
    deadline = None if step.timeout is None else (visit.arrived_at or now) + step.timeout
    return NewWait(visit.run_id, visit.contact_id, visit.step_id, visit.visit, visit.round, deadline)


def _answers(visits: Sequence[StepVisit], found: dict[UUID, Match]) -> list[StepAnswer]:
    return [_answer(visit, found.get(visit.run_id)) for visit in visits]


def _answer(visit: StepVisit, match: Match | None) -> StepAnswer:
    if match is None:
        return StepAnswer(run_id=visit.run_id)
    return StepAnswer(run_id=visit.run_id, index=match.way, details=match_details(match))


def match_details(match: Match) -> dict[str, Any]:
    return {} if match.event_id is None else {"event_id": str(match.event_id)}
