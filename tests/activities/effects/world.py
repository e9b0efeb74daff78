"""A world whose journey has the steps that a test needs, and a worker's hand to perform them."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from uuid import UUID

from temporalio.testing import ActivityEnvironment

from activities.contracts.steps import StepAnswer, StepVisit, VisitBatch
from activities.effects.effect import EffectTools
from activities.lines import Lines, ProviderSource
from activities.providers.destination import Destinations
from activities.providers.webhook import Webhooks
from activities.steps import StepActivities
from activities.versions import Versions
from activities.watch import Watch
from models.domain.journey.definition import Definition
from tests.activities.world import NOON, FakeProvider, World
from tests.api.rest.fake_temporal import FakeTemporal

SCHEMA = {"plan": {"type": "string"}, "seats": {"type": "integer"}, "renews_on": {"type": "date"}, "vip": {"type": "boolean"}}


@dataclass
class EffectWorld(World):
    steps: dict[str, dict[str, Any]] = field(default_factory=dict)
    providers: ProviderSource = field(default_factory=FakeProvider)
    lines: Lines | None = None  # of a process that does other things as well

    async def found(self, schema: Mapping[str, Any] = SCHEMA, **steps: dict[str, Any]) -> "EffectWorld":
        """Built, with these steps."""
        self.steps = steps
        await self.build()
        await self.sql("UPDATE organizations SET attribute_schema = CAST(:schema AS jsonb)", schema=json.dumps(schema))
        return self

    def definition(self) -> Definition:
        return Definition.model_validate({"start": next(iter(self.steps)), "steps": self.steps})

    async def perform(
        self,
        run_ids: Sequence[UUID],
        *step_ids: str,
        visit: int = 1,
        round: int = 0,
        now: datetime = NOON,
        environment: ActivityEnvironment | None = None,
    ) -> Any:
        """A fresh process's attempt. With several step ids, the runs stand at them in turn."""
        visits = [
            StepVisit(run_id=run_id, contact_id=self.contacts[run_id], step_id=step_ids[number % len(step_ids)], visit=visit, round=round)
            for number, run_id in enumerate(run_ids)
        ]
        webhooks = Webhooks(Destinations(self.settings))
        lines = self.lines or Lines(self.providers, self.settings.send_concurrency)
        temporal: Any = FakeTemporal()
        activities = StepActivities(EffectTools(self.database, self.settings, Versions(), lines, webhooks, Watch(self.database)), temporal)
        try:
            return await (environment or ActivityEnvironment()).run(
                activities.perform_steps, VisitBatch(scope=self.scope, now=now, visits=visits)
            )
        finally:
            await webhooks.close()

    async def variables(self, run_id: UUID, **values: Any) -> None:
        await self.sql("UPDATE runs SET variables = CAST(:values AS jsonb) WHERE id = :id", id=run_id, values=json.dumps(values))

    async def kept(self, run_id: UUID) -> dict[str, Any]:
        """The run's variables."""
        found: dict[str, Any] = await self.one("SELECT variables FROM runs WHERE id = :id", id=run_id)
        return found

    async def person(self, run_id: UUID) -> Any:
        (row,) = await self.sql("SELECT * FROM contacts WHERE id = :id", id=self.contacts[run_id])
        return row

    async def effect(self, run_id: UUID) -> Any:
        (row,) = await self.sql("SELECT * FROM effects WHERE run_id = :id", id=run_id)
        return row

    async def entries(self, action: str) -> Sequence[Any]:
        return await self.sql("SELECT * FROM audit_entries WHERE action = :action ORDER BY sequence", action=action)


def said(answers: Sequence[StepAnswer]) -> list[tuple[str, str | None]]:
    """How each answer makes its run go on, and why."""
    return [(_word(answer), answer.reason) for answer in answers]


def _word(answer: StepAnswer) -> str:
    if answer.failed:
        return "failed"
    return "again" if answer.retry_at is not None else "refused" if answer.refused else "done"
