"""Runs that move to another version, as a publish plan says."""

from collections.abc import Sequence
from uuid import UUID

from temporalio import activity

from activities.contracts.payload import Payload, Scope
from models.domain.journey.run import RunState

MOVE_PLAN_WORKFLOW = "MovePlanWorkflow"
MOVE_RUNS = "move_runs"  # the updates of JourneyWorkflow


class MoveChoice(Payload):
    """What becomes of the runs at one step of the version they are on: they move to `step_id` of the new one, or exit (None)."""

    step_id: str | None = None


class MoveOrder(Payload):
    """A publish plan, as the update `move_runs` brings it to a workflow. Steps that are not named keep their runs."""

    plan_id: UUID
    version_id: UUID
    choices: dict[str, MoveChoice]
    run_ids: Sequence[UUID] | None = None  # None: every run that stands there
    actor_kind: str = "user"
    actor_id: UUID | None = None


class HandOver(Payload):
    """Runs that leave their workflow for one of another version."""

    scope: Scope
    order: MoveOrder
    runs: Sequence[RunState]


class PlanRef(Payload):
    """A publish plan under way. `passes`: how often its workflows have been told; each time is a word of its own. `after`: how far
    this pass has come."""

    organization_id: UUID
    plan_id: UUID
    passes: int = 0
    after: str | None = None


class PlanPage(Payload):
    plan: PlanRef
    after: str | None = None


class PlanPageTold(Payload):
    after: str | None = None  # pass it back for the next page; None: that was the last


class PlanProgress(Payload):
    finished: bool


@activity.defn(name="hand_over_runs")
async def hand_over_runs(handed: HandOver) -> None:
    """A workflow of the new version carries these runs."""
    raise NotImplementedError


@activity.defn(name="tell_moves")
async def tell_moves(page: PlanPage) -> PlanPageTold:
    """The next page of workflows with runs at steps that the plan speaks of has been told."""
    raise NotImplementedError


@activity.defn(name="finish_plan")
async def finish_plan(plan: PlanRef) -> PlanProgress:
    """The plan is marked completed when no unfinished run stands where it says move or exit."""
    raise NotImplementedError
