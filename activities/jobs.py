"""Jobs: work on record that a workflow of its own carries out, and that upkeep begins anew each minute when that workflow has failed."""

from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from activities.contracts.braking import BRAKING_WORKFLOW
from activities.contracts.moves import MOVE_PLAN_WORKFLOW
from activities.contracts.operations import OPERATION_WORKFLOW
from models.domain.findings import Kind
from models.domain.journey import workflow_id
from models.store import brakes, publish_plans, run_operations
from models.store.session import OrganizationSession


@dataclass(frozen=True)
class Job:
    """One that is not over. `runs`: how many wait for it, or have still to settle what becomes of them."""

    kind: Kind  # of the finding, when its workflow fails again and again
    subject_kind: str
    id: UUID
    journey_id: UUID | None
    runs: int
    details: Mapping[str, Any] = field(default_factory=dict)


async def unfinished_jobs(session: OrganizationSession, names: Iterable[str]) -> dict[str, Job]:
    """Those that the workflows of these ids carry out and that are not over, by workflow id; one statement for each kind of job, and one
    more for each publish plan, of which a journey has at most one under way."""
    found: dict[str, Job] = {}
    listed = list(names)
    for kind in _KINDS:
        carried = {id: name for name in listed if (id := kind.of(name)) is not None}
        if carried:
            found |= {carried[job.id]: job for job in await kind.unfinished(session, list(carried))}
    return found


async def _operations(session: OrganizationSession, ids: Sequence[UUID]) -> list[Job]:
    under_way: Mapping[UUID, int] = await run_operations.unsettled(session, ids)
    return [Job(Kind.OPERATION_FAILING, "run_operation", id, None, runs) for id, runs in under_way.items()]


async def _plans(session: OrganizationSession, ids: Sequence[UUID]) -> list[Job]:
    jobs = []
    for plan in await publish_plans.executing(session, ids):
        remaining = sum(step.remaining for step in await publish_plans.progress(session, plan))
        jobs.append(Job(Kind.PUBLISH_PLAN_FAILING, "publish_plan", plan.id, plan.journey_id, remaining))
    return jobs


async def _brakings(session: OrganizationSession, ids: Sequence[UUID]) -> list[Job]:
    return [
        Job(
            Kind.BRAKING_FAILING,
            "braking",
            braking.id,
            braking.journey_id,
            runs=0,
            details={"braked": braking.subject_kind, "braked_id": str(braking.subject_id), "notice": braking.notice},
        )
        for braking in await brakes.untold(session, ids)
    ]


@dataclass(frozen=True)
class _Kind:
    workflow: str
    of: Callable[[str], UUID | None]  # the job that the workflow of this id carries out
    unfinished: Callable[[OrganizationSession, Sequence[UUID]], Awaitable[list[Job]]]


_KINDS = (
    _Kind(OPERATION_WORKFLOW, workflow_id.operation_of, _operations),
    _Kind(MOVE_PLAN_WORKFLOW, workflow_id.executing_plan_of, _plans),
    _Kind(BRAKING_WORKFLOW, workflow_id.braking_of, _brakings),
)
JOB_WORKFLOWS = tuple(kind.workflow for kind in _KINDS)
