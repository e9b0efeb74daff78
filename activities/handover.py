"""Runs that change their version: a new workflow carries them from where a publish plan says."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from temporalio import activity
from temporalio.client import Client

from activities.contracts.journey import JourneyInput
from activities.contracts.moves import HandOver
from activities.contracts.payload import Scope
from activities.heartbeat import heartbeating
from activities.missed_words import Known, tell_exits, tell_later, tell_missed_words
from activities.starting import start_journey
from activities.versions import Versions
from models.domain.journey import workflow_id
from models.domain.journey.arriving import NOWHERE, arriving
from models.domain.journey.definition import Definition
from models.domain.journey.run import RunState
from models.settings import Settings
from models.store import handovers, outside_rules, waits
from models.store.audience import Flags
from models.store.handovers import Target
from models.store.session import Database
from models.store.triggers import listens_to_runs
from models.tables.base import utc_now


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
            await tell_exits(self.temporal, self.database, scope.organization_id, name, [run.run_id for run in runs])
            known = {name: Known(scope, before if started else None)}
            refused = await tell_missed_words(self.temporal, self.database, scope.organization_id, known)
            await tell_later(self.database, scope.organization_id, refused)

    async def _take_over(self, handed: HandOver, scope: Scope, name: str) -> tuple[Definition, list[RunState], Flags]:
        run_ids = [run.run_id for run in handed.runs]
        async with self.database.organization(scope.organization_id) as session:
            definition = await self.versions.definition(session, scope.version_id)
            if listens_to_runs(definition):
                await waits.routing_lock(session, alone=False)  # before the rows': see `outside_rules.begin`
            target = Target(handed.order.plan_id, scope.version_id, name)
            await handovers.take_over(session, target, handed.scope.version_id, run_ids)
            if listens_to_runs(definition):  # the new version's rules, which nobody has looked at for these runs
                await outside_rules.begin(session, self.versions.definition, run_ids, utc_now(), missed=False)
            ways = await handovers.ways(session, run_ids)
            arrived = [arriving(definition, run, ways.get(run.run_id, NOWHERE)) for run in handed.runs]
            leaving = await handovers.exits(session, run_ids)
            runs = [replace(run, leaving=run.leaving or leaving.get(run.run_id)) for run in arrived]
            return definition, runs, (await handovers.in_force(session, {name: (scope.journey_id, scope.campaign_id)}))[name]

    async def _start(self, name: str, scope: Scope, definition: Definition, runs: Sequence[RunState], flags: Flags) -> bool:
        """Whether it was started just now."""
        given = JourneyInput(scope=scope, definition=definition, runs=runs, held_by=sorted(flags.held_by), cancelled=flags.cancelled)
        return await start_journey(self.temporal, self.task_queue, name, given)
