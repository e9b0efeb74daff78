"""audit: what happened to runs is on record."""

from collections.abc import Callable
from typing import Any

from temporalio import activity

from activities.braking import Tell, left_to_upkeep
from activities.contracts.recording import AuditBatch, Transition
from activities.heartbeat import heartbeating
from models.domain.audit import Actor
from models.store import transitions
from models.store.session import Database
from models.store.transitions import NewTransition


class AuditActivities:
    def __init__(self, database: Database, braked: Tell = left_to_upkeep) -> None:
        self.database = database
        self.braked = braked

    def methods(self) -> list[Callable[..., Any]]:
        return [self.record_audit]

    @activity.defn(name="record_audit")
    async def record_audit(self, batch: AuditBatch) -> None:
        """Timeline, run projection and audit chain hold these transitions.

        Safe to run twice: (run, sequence) is unique, and all three are written in one transaction.
        """
        scope = batch.scope
        async with heartbeating():
            async with self.database.organization(scope.organization_id) as session:
                braked = await transitions.record(session, scope.journey_id, [_new(transition) for transition in batch.transitions])
            if braked:
                await self.braked(scope.organization_id, braked)


def _new(told: Transition) -> NewTransition:
    return NewTransition(
        run_id=told.run_id,
        sequence=told.sequence,
        kind=told.kind,
        phase=told.phase,
        beneath=told.beneath,
        occurred_at=told.occurred_at,
        step_id=told.step_id,
        at_step=told.at_step,
        visit=told.visit,
        at_visit=told.at_visit,
        wake_at=told.wake_at,
        reason=told.reason,
        actor=Actor.of(told.actor_kind, told.actor_id),
        details=told.details,
    )
