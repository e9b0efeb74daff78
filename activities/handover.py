"""Runs that change their version: a new workflow carries them from where a publish plan says."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any
from uuid import UUID

from temporalio import activity
from temporalio.client import Client
from temporalio.service import RPCError, RPCStatusCode

from activities.contracts.control import Control, ControlledKind
from activities.contracts.journey import JourneyInput, RunMessage, RunMessages
from activities.contracts.moves import HandOver
from activities.contracts.payload import Scope
from activities.heartbeat import heartbeating
from activities.signals import signal_all
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

NOTHING_SAID = Flags(frozenset(), cancelled=False)


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
            # One that an earlier attempt started may have heard of nothing: it is told all that is in force.
            await self._tell(name, scope, [run.run_id for run in runs], before if started else NOTHING_SAID)

    async def _take_over(self, handed: HandOver, scope: Scope, name: str) -> tuple[Definition, list[RunState], Flags]:
        run_ids = [run.run_id for run in handed.runs]
        async with self.database.organization(scope.organization_id) as session:
            definition = await self.versions.definition(session, scope.version_id)
            target = Target(handed.order.plan_id, scope.version_id, name)
            await handovers.take_over(session, target, handed.scope.version_id, run_ids)
            leaving = await handovers.exits(session, run_ids)
            runs = [replace(run, leaving=run.leaving or leaving.get(run.run_id)) for run in handed.runs]
            return definition, runs, await handovers.flags(session, scope.journey_id, scope.campaign_id)

    async def _start(self, name: str, scope: Scope, definition: Definition, runs: Sequence[RunState], flags: Flags) -> bool:
        """Whether it was started just now."""
        given = JourneyInput(scope=scope, definition=definition, runs=runs, held_by=sorted(flags.held_by), cancelled=flags.cancelled)
        return await start_journey(self.temporal, self.task_queue, name, given)

    async def _tell(self, name: str, scope: Scope, run_ids: Sequence[UUID], before: Flags) -> None:
        """The workflow knows the flags as they are, and who is to leave. Looks again after telling flags: what was told may have been
        taken back meanwhile."""
        leaving, after = await self._said(scope, run_ids)
        await self._tell_exits(name, leaving)
        while after != before:
            for control in words_between(scope, before, after):
                await signal_all(self.temporal, control, [name])
            before, (_, after) = after, await self._said(scope, run_ids)

    async def _said(self, scope: Scope, run_ids: Sequence[UUID]) -> tuple[dict[UUID, str], Flags]:
        async with self.database.organization(scope.organization_id) as session:
            leaving = await handovers.exits(session, run_ids)
            return leaving, await handovers.flags(session, scope.journey_id, scope.campaign_id)

    async def _tell_exits(self, name: str, leaving: Mapping[UUID, str]) -> None:
        """Who is to leave by a rule of the journey has been told so. Heard twice, it changes nothing."""
        if leaving:
            messages = [RunMessage(run_id=run_id, kind="exit", reason=reason) for run_id, reason in leaving.items()]
            try:
                await self.temporal.get_workflow_handle(name).signal("tell", RunMessages(messages=messages))
            except RPCError as error:
                if error.status is not RPCStatusCode.NOT_FOUND:  # it has ended already
                    raise


def words_between(scope: Scope, before: Flags, after: Flags) -> list[Control]:
    """What a workflow that knows the flags as they were is told."""
    subjects = {ControlledKind.JOURNEY: scope.journey_id, ControlledKind.CAMPAIGN: scope.campaign_id}
    words = []
    for kind, subject_id in subjects.items():
        if subject_id is None:
            continue
        if (kind in before.held_by) != (kind in after.held_by):
            command = "pause" if kind in after.held_by else "resume"
            words.append(Control(organization_id=scope.organization_id, kind=kind, id=subject_id, command=command))
        if kind is ControlledKind.CAMPAIGN and after.cancelled and not before.cancelled:
            words.append(Control(organization_id=scope.organization_id, kind=kind, id=subject_id, command="cancel"))
    return words
