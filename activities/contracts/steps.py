"""What runs ask at their steps, and the answers."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from uuid import UUID

from temporalio import activity

from activities.contracts.payload import Payload, Scope


@dataclass(frozen=True, slots=True, kw_only=True)
class StepVisit:
    """One run at one step, for the `visit`-th time, asking for the `round`-th time."""

    run_id: UUID
    contact_id: UUID
    step_id: str
    visit: int = 1
    round: int = 0
    arrived_at: datetime | None = None  # at a step where time passes
    asks_from: datetime | None = None  # the wait's end is asked anew: it is planned from then, not from now
    allowed_until: datetime | None = None  # what quiet-hours said: a send still queued then must ask again


class VisitBatch(Payload):
    scope: Scope
    now: datetime  # the workflow's clock: activities judge hours by it, so that virtual time works
    visits: Sequence[StepVisit]


@dataclass(frozen=True, slots=True, kw_only=True)
class StepAnswer:
    """The answer to a step's question for one run; which fields count depends on the question.

    With `retry_at` it could not be answered now and is asked again then; with `failed` it never can, and a person decides;
    `reason` is the code of why.
    """

    run_id: UUID
    index: int | None = None  # of the way taken
    until: datetime | None = None  # when to wake
    refused: bool = False  # it was not done; the run goes on
    reason: str | None = None
    details: dict[str, Any] = field(default_factory=dict)  # ids and codes for the timeline
    retry_at: datetime | None = None
    failed: bool = False


@activity.defn(name="choose_branches")
async def choose_branches(batch: VisitBatch) -> list[StepAnswer]:
    """The branch each run takes, evaluated on the contact as it is now: `index` of the condition, None for `otherwise`."""
    raise NotImplementedError


@activity.defn(name="plan_waits")
async def plan_waits(batch: VisitBatch) -> list[StepAnswer]:
    """`until` when each run waits, by the contact's zone and dates as they are now; None and a `reason` where there is no such time."""
    raise NotImplementedError


@activity.defn(name="open_waits")
async def open_waits(batch: VisitBatch) -> list[StepAnswer]:
    """Events and conditions are watched for from now on. `index` where one has come already: then the wait is over."""
    raise NotImplementedError


@activity.defn(name="close_waits")
async def close_waits(batch: VisitBatch) -> list[StepAnswer]:
    """The wait's time is over. `index` where something came before this was written; from now on nothing does."""
    raise NotImplementedError


@activity.defn(name="perform_steps")
async def perform_steps(batch: VisitBatch) -> list[StepAnswer]:
    """What the steps (all of one kind) do is done: once, unless the kind says otherwise."""
    raise NotImplementedError


# By the `question` of a step's class.
STEP_QUESTIONS: Mapping[str, Callable[[VisitBatch], Awaitable[list[StepAnswer]]]] = {
    each.__name__: each for each in (choose_branches, plan_waits, open_waits, close_waits, perform_steps)
}
