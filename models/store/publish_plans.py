"""Publish plans: where runs stand, the plan's row, whom to tell, and how far it has come."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, func, select, text
from sqlmodel import col

from models.domain.audit import Actor, NewEntry
from models.domain.errors import NotFound
from models.domain.findings import LOST
from models.domain.journey.publish_plan import Count, PlannedStep, Preview
from models.store import audit
from models.store.rowset import rowset
from models.store.session import OrganizationSession
from models.tables.publishing import PublishPlan

# Runs are counted before versions are looked up: there are few versions, whatever the number of runs.
_COUNTS = text("""
    SELECT s.version_id, v.number, s.step_id, s.status, s.runs
    FROM (SELECT r.version_id, r.step_id, r.status, count(*) AS runs FROM runs r
          WHERE r.organization_id = :o AND r.journey_id = :journey_id AND r.finished_at IS NULL AND r.step_id IS NOT NULL
            AND r.version_id IS DISTINCT FROM CAST(:target AS uuid)
          GROUP BY r.version_id, r.step_id, r.status) s
    JOIN journey_versions v ON v.organization_id = :o AND v.id = s.version_id
    ORDER BY v.number, s.step_id, s.status""")
# Nobody can move these: what carried them is gone for good. They are counted, and do not keep a plan under way.
_LOST = "(r.finished_at IS NULL AND r.status = 'needs_attention' AND r.reason IS NOT DISTINCT FROM :lost)"
_NAMED = "jsonb_to_recordset(CAST(:steps AS jsonb)) AS n(version_id uuid, step_id text)"
_WORKFLOWS = text(f"""
    SELECT DISTINCT r.workflow_id, r.version_id
    FROM {_NAMED} JOIN runs r ON r.version_id = n.version_id AND r.step_id = n.step_id
    WHERE r.organization_id = :o AND r.journey_id = :journey_id AND r.finished_at IS NULL AND r.workflow_id > :after
      AND NOT {_LOST}
    ORDER BY r.workflow_id LIMIT :limit""")
_PROGRESS = text(f"""
    SELECT r.version_id, r.step_id, count(*) FILTER (WHERE r.finished_at IS NULL AND NOT {_LOST}) AS remaining,
           count(*) FILTER (WHERE {_LOST}) AS lost,
           count(*) FILTER (WHERE r.status = 'exited' AND r.reason = 'version_replaced') AS exited
    FROM {_NAMED} JOIN runs r ON r.version_id = n.version_id AND r.step_id = n.step_id
    WHERE r.organization_id = :o AND r.journey_id = :journey_id
      AND (r.finished_at IS NULL OR (r.status = 'exited' AND r.reason = 'version_replaced'))
    GROUP BY r.version_id, r.step_id""")


async def counts(session: OrganizationSession, journey_id: UUID, target: UUID | None) -> list[Count]:
    """Where the unfinished runs of every version stand, but for those of `target`."""
    rows = await session.execute(_COUNTS, {"o": session.organization_id, "journey_id": journey_id, "target": target})
    return [Count(row.version_id, row.number, row.step_id, row.status, row.runs) for row in rows]


async def add(
    session: OrganizationSession,
    journey_id: UUID,
    revision: int,
    content_hash: str,
    seen: Preview,
    fingerprint: str,
    created_by: UUID | None,
) -> PublishPlan:
    """The preview is kept; nothing is done about it yet."""
    plan = PublishPlan(
        organization_id=session.organization_id,
        journey_id=journey_id,
        revision=revision,
        content_hash=content_hash,
        preview=seen.stored(),
        fingerprint=fingerprint,
        created_by=created_by,
    )
    session.add(plan)
    await session.flush()
    return plan


async def get(session: OrganizationSession, plan_id: UUID, journey_id: UUID | None = None, *, lock: bool = False) -> PublishPlan:
    """The plan (of this journey). With `lock`, nobody else changes it before this transaction ends. Raises NotFound."""
    statement = select(PublishPlan).where(_mine(session), col(PublishPlan.id) == plan_id)
    if journey_id is not None:
        statement = statement.where(col(PublishPlan.journey_id) == journey_id)
    found = (await session.execute(statement.with_for_update() if lock else statement)).scalar_one_or_none()
    if found is None:
        raise NotFound("publish plan", plan_id)
    return found


async def page(session: OrganizationSession, journey_id: UUID, limit: int, after: UUID | None) -> Sequence[PublishPlan]:
    """Up to `limit` plans, oldest first, beginning after the id `after`."""
    statement = select(PublishPlan).where(_mine(session), col(PublishPlan.journey_id) == journey_id)
    if after is not None:
        statement = statement.where(col(PublishPlan.id) > after)
    return (await session.execute(statement.order_by(col(PublishPlan.id)).limit(limit))).scalars().all()


async def find_executing(session: OrganizationSession, journey_id: UUID) -> PublishPlan | None:
    """The plan of this journey that is under way."""
    statement = select(PublishPlan).where(_mine(session), col(PublishPlan.journey_id) == journey_id)
    return (await session.execute(statement.where(col(PublishPlan.status) == "executing").limit(1))).scalar_one_or_none()


async def executing(session: OrganizationSession, ids: Sequence[UUID]) -> Sequence[PublishPlan]:
    """Those of the plans that are under way."""
    wanted = (_mine(session), col(PublishPlan.status) == "executing", col(PublishPlan.id).in_(ids))
    return (await session.execute(select(PublishPlan).where(*wanted))).scalars().all()


async def overdue(session: OrganizationSession, older_than: timedelta, limit: int) -> Sequence[PublishPlan]:
    """Plans that have been under way for longer than `older_than`: the start of their workflow may have failed. Some by chance, where there
    are more than `limit`."""
    statement = select(PublishPlan).where(
        _mine(session), col(PublishPlan.status) == "executing", col(PublishPlan.executed_at) < func.now() - older_than
    )
    return (await session.execute(statement.order_by(func.random()).limit(limit))).scalars().all()


# --- What was chosen, as the plan keeps it --------------------------------------------------------------------------


@dataclass(frozen=True)
class Chosen:
    """`moved`: the runs handed over so far; `exited_before`: those that an earlier plan had sent away: both by version id and step."""

    actor: Actor
    steps: Sequence[PlannedStep]
    moved: Mapping[tuple[UUID, str], int]
    exited_before: Mapping[tuple[UUID, str], int]

    @property
    def acting(self) -> list[PlannedStep]:
        return [step for step in self.steps if step.acts]


def chosen(plan: PublishPlan) -> Chosen | None:
    """None before it is carried out."""
    kept = plan.choices
    if not kept:
        return None
    steps = [PlannedStep(**{**step, "version_id": UUID(step["version_id"])}) for step in kept["steps"]]
    actor = Actor(kept["actor"]["kind"], None if kept["actor"]["id"] is None else UUID(kept["actor"]["id"]))
    return Chosen(actor, steps, _by_place(kept["moved"]), _by_place(kept["exited_before"]))


async def execute(session: OrganizationSession, plan: PublishPlan, version_id: UUID, actor: Actor, steps: Sequence[PlannedStep]) -> None:
    """The plan is under way, or completed already when every run may finish where it is. The caller holds its lock."""
    acting = [step for step in steps if step.acts]
    before = {(row.version_id, row.step_id): row.exited for row in await _standing(session, plan.journey_id, acting)}
    plan.choices = {
        "actor": {"kind": actor.kind, "id": None if actor.id is None else str(actor.id)},
        "steps": [{**vars(step), "version_id": str(step.version_id)} for step in steps],
        "moved": {},
        "exited_before": {_place(*place): runs for place, runs in before.items() if runs},
    }
    now = datetime.now(UTC)
    plan.version_id, plan.executed_by, plan.executed_at = version_id, actor.id, now
    plan.status, plan.completed_at = ("executing", None) if acting else ("completed", now)
    await session.flush()


async def count_moved(session: OrganizationSession, plan: PublishPlan, version_id: UUID, by_step: Mapping[str, int]) -> None:
    """So many more runs have been handed over. The caller holds the plan's lock."""
    moved = dict(plan.choices["moved"])
    for step_id, runs in by_step.items():
        place = _place(version_id, step_id)
        moved[place] = moved.get(place, 0) + runs
    plan.choices = {**plan.choices, "moved": moved}
    await session.flush()


def _place(version_id: UUID, step_id: str) -> str:
    return f"{version_id}/{step_id}"


def _by_place(kept: Mapping[str, int]) -> dict[tuple[UUID, str], int]:
    return {(UUID(version), step): runs for (version, _, step), runs in ((place.partition("/"), runs) for place, runs in kept.items())}


# --- How far it has come --------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class StepProgress:
    version: int
    step_id: str
    choice: str
    to_step: str | None
    moved: int
    exited: int
    remaining: int
    lost: int = 0  # still there, and their workflow is gone


async def progress(session: OrganizationSession, plan: PublishPlan) -> list[StepProgress]:
    """Of every step at which runs move or exit. Of a completed plan as it was at its end; empty before it is carried out."""
    if "progress" in plan.choices:
        return [StepProgress(**step) for step in plan.choices["progress"]]
    if (told := chosen(plan)) is None:
        return []
    standing = {(row.version_id, row.step_id): row for row in await _standing(session, plan.journey_id, told.acting)}
    return [_progress(step, told, standing.get((step.version_id, step.step_id))) for step in told.acting]


def _progress(step: PlannedStep, told: Chosen, row: Any) -> StepProgress:
    place = (step.version_id, step.step_id)
    exited = (row.exited if row is not None else 0) - told.exited_before.get(place, 0) if step.choice == "exit" else 0
    remaining, lost = (row.remaining, row.lost) if row is not None else (0, 0)
    return StepProgress(step.number, step.step_id, step.choice, step.to_step, told.moved.get(place, 0), exited, remaining, lost)


async def _standing(session: OrganizationSession, journey_id: UUID, steps: Sequence[PlannedStep]) -> Sequence[Any]:
    if not steps:
        return []
    parameters = {"o": session.organization_id, "journey_id": journey_id, "steps": _named(steps), "lost": LOST}
    return (await session.execute(_PROGRESS, parameters)).all()


def _named(steps: Sequence[PlannedStep]) -> str:
    return rowset([{"version_id": step.version_id, "step_id": step.step_id} for step in steps])


async def workflows(session: OrganizationSession, plan: PublishPlan, after: str | None, limit: int) -> list[tuple[str, UUID]]:
    """Up to `limit` workflows that carry unfinished runs at steps where they move or exit, with their version, beginning after `after`.
    Not those of which nothing but lost runs is known."""
    told = chosen(plan)
    if told is None or not told.acting:
        return []
    parameters = {"o": session.organization_id, "journey_id": plan.journey_id, "steps": _named(told.acting), "lost": LOST}
    rows = await session.execute(_WORKFLOWS, parameters | {"after": after or "", "limit": limit})
    return [(row.workflow_id, row.version_id) for row in rows]


async def finish(session: OrganizationSession, plan_id: UUID) -> bool:
    """Whether no unfinished run stands where it should not, but for lost ones. Marks the plan completed, once, with what came of it.

    Raises:
        NotFound: no such plan.
    """
    plan = await get(session, plan_id, lock=True)
    if plan.status != "executing":
        return plan.status == "completed"
    steps = await progress(session, plan)
    if any(step.remaining for step in steps):
        return False
    plan.choices = {**plan.choices, "progress": [vars(step) for step in steps]}
    plan.status, plan.completed_at = "completed", datetime.now(UTC)
    await session.flush()
    numbers = {name: sum(getattr(step, name) for step in steps) for name in ("moved", "exited", "lost")}
    details = {"plan_id": plan_id, **numbers}
    await audit.append(session, [NewEntry("journey.publish_plan_completed", "journey", str(plan.journey_id), details=details)])
    return True


def _mine(session: OrganizationSession) -> ColumnElement[bool]:
    return col(PublishPlan.organization_id) == session.organization_id
