"""perform_steps: what the steps of a batch do is done."""

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any
from uuid import UUID

from temporalio import activity
from temporalio.client import Client
from temporalio.service import RPCError

from activities.apart import answered_apart
from activities.clock import Clock
from activities.contracts.steps import StepAnswer, StepVisit, VisitBatch
from activities.effects.effect import Answers, Effect, EffectTools, Work
from activities.effects.registry import EFFECTS
from activities.heartbeat import heartbeating
from activities.poking import poke
from activities.replay_dedup import asked_of
from models.domain.errors import NotFound
from models.domain.journey.definition import Definition
from models.domain.journey.steps.base import StepModel
from models.store import changes, kept


class StepActivities:
    """Registered on both task queues: the steps that speak to others' servers are asked on the one for sends."""

    def __init__(self, tools: EffectTools, temporal: Client) -> None:
        self.tools = tools
        self.temporal = temporal
        self.effects: Mapping[str, Effect] = {kind: build(tools) for kind, build in EFFECTS.items()}

    def methods(self) -> list[Callable[..., Any]]:
        return [self.perform_steps]

    @activity.defn(name="perform_steps")
    async def perform_steps(self, batch: VisitBatch) -> list[StepAnswer]:
        """Each kind's implementation does it and answers, run by run.

        Safe to run twice: an `effects` row, unique by (run, step, visit), is claimed before anything is done. What a kind does
        when the worker dies in between, its own docstring says.
        """
        clock = Clock.of(batch)
        answers: Answers = {}
        async with heartbeating():
            definition = await self._definition(batch)
            steps = {visit.step_id: definition.step(visit.step_id, StepModel) for visit in batch.visits}
            await self._keep(batch, definition)
            for kind, visits in _by_kind(batch.visits, steps).items():
                answers |= await self._perform(kind, Work(batch.scope, batch.now, clock, visits, steps))
            await self._wake_routing(batch.scope.organization_id)
        return [answers[visit.run_id] for visit in batch.visits]

    async def _perform(self, kind: str, work: Work) -> Answers:
        """What is one transaction is done apart from the run for which it cannot be done. Kinds that speak to others' servers see to
        that themselves: asked again for some, they would not wait for as long as those servers want."""
        effect = self._effect(kind)
        if work.steps[work.visits[0].step_id].slow:
            return await effect.perform(work)

        async def ask(visits: Sequence[StepVisit]) -> list[StepAnswer]:
            done = await effect.perform(replace(work, visits=visits))
            return [done[visit.run_id] for visit in visits]

        return {answer.run_id: answer for answer in await answered_apart(work.visits, ask)}

    async def _keep(self, batch: VisitBatch, definition: Definition) -> None:
        """What the runs that these replay have done is settled, so that it is not done again."""
        if batch.scope.replay:
            async with self.tools.database.organization(batch.scope.organization_id) as session:
                await kept.adopt_effects(session, asked_of(batch.visits, definition))

    async def _wake_routing(self, organization_id: UUID) -> None:
        """Where what was done is to be looked at: somebody changed, or is to enter a journey. Failing that, upkeep does."""
        async with self.tools.database.organization(organization_id) as session:
            waiting = await changes.anything_waits(session)
        if waiting:
            with suppress(RPCError):
                await poke(self.temporal, organization_id)

    async def _definition(self, batch: VisitBatch) -> Definition:
        async with self.tools.database.organization(batch.scope.organization_id) as session:
            return await self.tools.versions.definition(session, batch.scope.version_id)

    def _effect(self, kind: str) -> Effect:
        """Raises NotFound: this release does nothing for such a step; its runs park until one does."""
        found = self.effects.get(kind)
        if found is None:
            raise NotFound("effect", kind)
        return found


def _by_kind(visits: Sequence[StepVisit], steps: Mapping[str, StepModel]) -> dict[str, list[StepVisit]]:
    found: defaultdict[str, list[StepVisit]] = defaultdict(list)
    for visit in visits:
        found[steps[visit.step_id].kind].append(visit)
    return found
