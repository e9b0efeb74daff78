"""Runs that change their version: a new workflow carries them from where a publish plan says."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any
from uuid import UUID

from temporalio import activity
from temporalio.client import Client

from activities.contracts.journey import JourneyInput, RunMessage, RunMessages
from activities.contracts.moves import HandOver
from activities.contracts.payload import Scope
from activities.heartbeat import heartbeating
from activities.missed_words import Known, tell_later, tell_missed_words
from activities.signals import ignoring_absence
from activities.starting import start_journey
from activities.versions import Versions
from models.domain.journey import workflow_id
from models.domain.journey.definition import Definition
from models.domain.journey.run import RunState
from models.settings import Settings
from models.store import handovers
from models.store.audience import Flags
from models.store.handovers import Target
from models.store.session import Database


class HandOverActivities:
    def __init__(self, database: Database, settings: Settings, versions: Versions, temporal: Client) -> None:
        self.database = database
        self.versions = versions
        self.temporal = temporal
        self.task_queue = settings.task_queue

    def methods(self) -> list[Callable[..., Any]]:
        return [self.hand_over_runs]

    @activity.defn(name="hand_over_runs")
    async def hand_over_runs(self, handed: HandOver) -> None:
        """A workflow of the new version carries these runs.

        Safe to run twice: rows that are on the new version already are left alone, and the workflow's id is made from the plan and the
        first run, and never used again. A worker that dies between the two leaves rows whose workflow the next attempt starts:
        the old workflow waits for this answer. What was said about the runs meanwhile, too late for the old workflow and
        too early for the new one, is read from the record after the start, and told.
        """
        async with heartbeating():
            name = workflow_id.moved_runs(handed.scope.organization_id, handed.order.plan_id, handed.runs[0].run_id)
            scope = handed.scope.model_copy(update={"version_id": handed.order.version_id})
            definition, runs, before = await self._take_over(handed, scope, name)
            started = await self._start(name, scope, definition, runs, before)
            await self._tell_exits(name, scope, [run.run_id for run in runs])
            known = {name: Known(scope, before if started else None)}
            refused = await tell_missed_words(self.temporal, self.database, scope.organization_id, known)
            await tell_later(self.database, scope.organization_id, refused)

    async def _take_over(self, handed: HandOver, scope: Scope, name: str) -> tuple[Definition, list[RunState], Flags]:
        run_ids = [run.run_id for run in handed.runs]
        async with self.database.organization(scope.organization_id) as session:
            definition = await self.versions.definition(session, scope.version_id)
            target = Target(handed.order.plan_id, scope.version_id, name)
            await handovers.take_over(session, target, handed.scope.version_id, run_ids)
            leaving = await handovers.exits(session, run_ids)
            runs = [replace(run, leaving=run.leaving or leaving.get(run.run_id)) for run in handed.runs]
            return definition, runs, (await handovers.in_force(session, {name: (scope.journey_id, scope.campaign_id)}))[name]

    async def _start(self, name: str, scope: Scope, definition: Definition, runs: Sequence[RunState], flags: Flags) -> bool:
        """Whether it was started just now."""
        given = JourneyInput(scope=scope, definition=definition, runs=runs, held_by=sorted(flags.held_by), cancelled=flags.cancelled)
        return await start_journey(self.temporal, self.task_queue, name, given)

    async def _tell_exits(self, name: str, scope: Scope, run_ids: Sequence[UUID]) -> None:
        """Who is to leave by a rule of the journey has been told so. Heard twice, it changes nothing."""
        async with self.database.organization(scope.organization_id) as session:
            leaving = await handovers.exits(session, run_ids)
        if leaving:
            messages = [RunMessage(run_id=run_id, kind="exit", reason=reason) for run_id, reason in leaving.items()]
            with ignoring_absence():  # it may have ended already
                await self.temporal.get_workflow_handle(name).signal("tell", RunMessages(messages=messages))
