"""Jobs: work on record that a workflow of its own carries out, and that upkeep begins anew each minute when that workflow has failed."""

from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
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


async def unfinished_jobs(session: OrganizationSession, names: Iterable[str]) -> dict[str, Job]:
    """Those that the workflows of these ids carry out and that are not over, by workflow id; one statement for each kind of job, and one
    more for each publish plan, of which a journey has at most one under way."""
    found: dict[str, Job] = {}
    listed = list(names)
    for job_of, read in _READ:
        carried = {id: name for name in listed if (id := job_of(name)) is not None}
        if carried:
            found |= {carried[job.id]: job for job in await read(session, list(carried))}
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
    untold = await brakes.untold(session, ids)
    return [Job(Kind.BRAKING_FAILING, "braking", braking.id, braking.journey_id, 0) for braking in untold]


JOB_WORKFLOWS = (OPERATION_WORKFLOW, MOVE_PLAN_WORKFLOW, BRAKING_WORKFLOW)
_Read = Callable[[OrganizationSession, Sequence[UUID]], Awaitable[list[Job]]]
_READ: Sequence[tuple[Callable[[str], UUID | None], _Read]] = (
    (workflow_id.operation_of, _operations),
    (workflow_id.executing_plan_of, _plans),
    (workflow_id.braking_of, _brakings),
)
