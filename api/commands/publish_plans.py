"""Publishing with a plan for the runs that are under way: previewed, bound to the preview, carried out by a workflow."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any
from uuid import UUID

from activities.contracts.moves import MOVE_PLAN_WORKFLOW, PlanRef
from activities.starting import attributes
from api.commands import temporal
from api.commands.journeys import freeze_draft, listen_first, locked_draft, publish_frozen
from api.commands.starting import start_each
from api.dependencies import Caller, Services
from models.domain.audit import NewEntry
from models.domain.errors import Conflict, Invalid, PlanOutdated
from models.domain.journey import workflow_id
from models.domain.journey.definition import Definition
from models.domain.journey.publish_plan import (
    NAMED_CHANGES,
    Choice,
    PlannedStep,
    Preview,
    changes,
    choice_problems,
    fingerprint,
    preview,
)
from models.store import audit, journey_versions, publish_plans
from models.store.publish_plans import StepProgress
from models.store.session import OrganizationSession
from models.tables.journeys import Journey
from models.tables.publishing import PublishPlan

OVERDUE = timedelta(seconds=10)  # a plan under way for so long may lack its workflow


@dataclass(frozen=True)
class Plan:
    """A plan with how far it has come, and the number of the version that it published."""

    row: PublishPlan
    progress: Sequence[StepProgress]
    version: int | None


async def make(caller: Caller, journey_id: UUID, revision: int | None) -> Plan:
    """The preview is kept, with a fingerprint of what it shows. Nothing is published, and no run is touched.

    Raises:
        NotFound, Conflict, StaleRevision, Unpublishable: as publishing would.
    """
    async with caller.session() as session:
        journey = await locked_draft(session, journey_id, revision)
        frozen, hash_ = await freeze_draft(session, journey)
        seen, _ = await _look(session, journey_id, frozen, hash_)
        print_ = fingerprint(hash_, seen)
        row = await publish_plans.add(session, journey_id, journey.revision, hash_, seen, print_, caller.actor.id)
        details = {"plan_id": row.id, "content_hash": hash_, "fingerprint": print_, "runs": seen.runs}
        await audit.append(session, [_entry(caller, "journey.publish_plan_made", row, details)])
    return Plan(row, [], None)


async def _look(
    session: OrganizationSession, journey_id: UUID, frozen: Definition, hash_: str
) -> tuple[Preview, dict[UUID, tuple[int, Definition]]]:
    """Where the runs stand that are not on what would be published, and the versions that they are on."""
    newest = await journey_versions.find_newest(session, journey_id)
    target = newest.id if newest is not None and newest.content_hash == hash_ else None
    counts = await publish_plans.counts(session, journey_id, target)
    rows = await journey_versions.by_id(session, [count.version_id for count in counts])
    older = {id: (row.number, Definition.model_validate(row.definition)) for id, row in rows.items()}
    return preview(counts, {id: definition for id, (_, definition) in older.items()}, frozen), older


async def execute(caller: Caller, journey_id: UUID, plan_id: UUID, told: str, choices: Sequence[Choice]) -> Plan:
    """The version is published and the plan is under way, by a workflow; said again with the same choices, nothing changes.

    `told`: the fingerprint of the preview that the choices were made from. Steps that are not named keep their runs.

    Raises:
        NotFound: no such plan.
        PlanOutdated: the draft or the counts have changed since the preview; the message says what.
        Invalid: a choice names something that there is not.
        Conflict: the plan has been carried out with other choices, or another one of the journey is under way.
        ApprovalRequired: as publishing.
        Unavailable: the version is published, but the workflow could not be started yet. Repeat; upkeep starts it otherwise.
    """
    await listen_first(caller, journey_id)
    async with caller.session() as session:
        journey = await locked_draft(session, journey_id, None)
        plan = await publish_plans.get(session, plan_id, journey_id, lock=True)
        if plan.status == "previewed":
            await _execute(session, caller, journey, plan, told, choices)
        elif not _same(plan, choices):
            raise Conflict("This plan has been carried out already, with other choices; make a new one.")
    if plan.status == "executing":
        await start_workflow(caller.services, plan)
    return await read(caller, journey_id, plan_id)


async def _execute(
    session: OrganizationSession, caller: Caller, journey: Journey, plan: PublishPlan, told: str, choices: Sequence[Choice]
) -> None:
    if told != plan.fingerprint:
        raise PlanOutdated("This is not the fingerprint of this plan's preview; read the preview, and choose again.")
    if await publish_plans.find_executing(session, journey.id) is not None:
        raise Conflict("Another publish plan of this journey is under way; wait until it is completed, then make a new one.")
    frozen, hash_ = await freeze_draft(session, journey)
    now, older = await _look(session, journey.id, frozen, hash_)
    _refuse_outdated(plan, hash_, now)
    by_number = dict(older.values())
    if problems := choice_problems(choices, by_number, frozen):
        raise Invalid(problems)
    published = await publish_frozen(session, caller, journey, frozen, hash_)
    ids = {number: id for id, (number, _) in older.items()}
    steps = [PlannedStep(ids[each.version], each.version, each.step_id, each.choice, each.to_step) for each in choices]
    await publish_plans.execute(session, plan, published.version.id, caller.actor, steps)
    details = {
        "plan_id": plan.id,
        "version_id": published.version.id,
        "number": published.version.number,
        "content_hash": hash_,
        "fingerprint": plan.fingerprint,
        "choices": [{"version": step.number, "step_id": step.step_id, "choice": step.choice, "to_step": step.to_step} for step in steps],
        "preview": [{"version": number, "step_id": step_id, "runs": runs} for (number, step_id), runs in now.runs_by_place().items()],
    }
    await audit.append(session, [_entry(caller, "journey.publish_plan_executed", plan, details)])


def _refuse_outdated(plan: PublishPlan, hash_: str, now: Preview) -> None:
    if hash_ != plan.content_hash:
        raise PlanOutdated("The draft, or something that it names, has changed since the preview; make a new plan.")
    if found := changes(Preview.of(plan.preview), now):
        more = f", and {len(found) - NAMED_CHANGES} more" if len(found) > NAMED_CHANGES else ""
        said = "; ".join(found[:NAMED_CHANGES])
        raise PlanOutdated(
            f"Runs have moved since the preview ({said}{more}). Make a new plan; while the journey is paused, runs stand still."
        )


def _same(plan: PublishPlan, choices: Sequence[Choice]) -> bool:
    kept = publish_plans.chosen(plan)
    before = [Choice(step.number, step.step_id, step.choice, step.to_step) for step in (kept.steps if kept else ())]
    return sorted(before, key=str) == sorted(choices, key=str)


async def start_workflow(services: Services, plan: PublishPlan) -> None:
    """The plan's workflow is running, or has completed. Raises Unavailable."""
    await temporal.start(
        services,
        MOVE_PLAN_WORKFLOW,
        PlanRef(organization_id=plan.organization_id, plan_id=plan.id),
        workflow_id.publish_plan(plan.organization_id, plan.id),
        attributes(plan.organization_id, plan.journey_id, plan.version_id),
        restarts=True,
    )


async def start_missing_workflows(services: Services, organization_id: UUID, alive: Callable[[], None], limit: int = 100) -> int:
    """Every plan that has been under way for ten seconds has a workflow. Answers how many were looked at.

    Safe to repeat and to run beside itself: a workflow that runs, or has completed, is not started again. One that was closed in another
    way begins anew: it tells whoever still stands where the plan speaks of.

    Raises:
        NotStarted: some could not be started; it kept no other waiting.
    """
    async with services.database.organization(organization_id) as session:
        plans = await publish_plans.overdue(session, OVERDUE, limit)
    return await start_each("publish plan", plans, lambda plan: start_workflow(services, plan), alive)


async def read(caller: Caller, journey_id: UUID, plan_id: UUID) -> Plan:
    """Raises NotFound."""
    async with caller.session() as session:
        row = await publish_plans.get(session, plan_id, journey_id)
        [plan] = await with_progress(session, [row])
    return plan


async def with_progress(session: OrganizationSession, rows: Sequence[PublishPlan]) -> list[Plan]:
    """The plans, each with how far it has come. Runs are counted for the one that is under way, if any."""
    versions = await journey_versions.by_id(session, [row.version_id for row in rows if row.version_id is not None])
    numbers = {id: version.number for id, version in versions.items()}
    return [Plan(row, await publish_plans.progress(session, row), numbers.get(row.version_id) if row.version_id else None) for row in rows]


def _entry(caller: Caller, action: str, plan: PublishPlan, details: dict[str, Any]) -> NewEntry:
    return NewEntry(action, "journey", str(plan.journey_id), caller.actor, details)
