"""Runs that leave their workflow for one of another version: their rows, and what has been said about them meanwhile."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from uuid import UUID

from sqlalchemy import text

from models.domain.journey.arriving import Way
from models.domain.journey.replay import Arrival, Begun
from models.store import audience, publish_plans
from models.store.audience import Flags
from models.store.journeys import CANCELLED_WITH
from models.store.replay_chains import begun_with
from models.store.session import OrganizationSession
from models.store.waits import UNTAKEN

Subject = tuple[UUID, UUID | None]  # journey and campaign

# A run that is on another version already was handed over before: what waits for it now belongs to its new workflow. All that it did
# before is on record.
_TAKE = text(
    f"""
    WITH before AS MATERIALIZED (
      SELECT r.id, r.step_id FROM runs r
      WHERE r.organization_id = :o AND r.id = ANY(:ids) AND r.version_id = :old AND r.finished_at IS NULL
      ORDER BY r.id FOR UPDATE),
    taken AS (
      UPDATE runs r SET version_id = :new, workflow_id = :workflow_id,
        earlier_workflows = r.earlier_workflows || r.workflow_id,
        earlier_versions = r.earlier_versions || r.version_id, updated_at = clock_timestamp()
      FROM before b WHERE r.organization_id = :o AND r.id = b.id),
    closed AS (
      UPDATE waits w SET state = 'closed', way = NULL, event_id = NULL, closed_at = clock_timestamp()
      WHERE w.organization_id = :o AND w.run_id IN (SELECT id FROM before) AND {UNTAKEN})
    SELECT b.step_id, count(*) AS runs FROM before b GROUP BY b.step_id
    """
)
_EXITS = text(
    """SELECT id, coalesce(exit_reason, 'exit_rule') AS reason FROM runs
       WHERE organization_id = :o AND id = ANY(:ids) AND exit_requested_at IS NOT NULL
         AND (finished_at IS NULL OR replayed_by IS NOT NULL)"""
)


@dataclass(frozen=True)
class Target:
    """Where the runs go."""

    plan_id: UUID
    version_id: UUID
    workflow_id: str


async def take_over(session: OrganizationSession, target: Target, old_version_id: UUID, run_ids: Sequence[UUID]) -> None:
    """The runs are the new workflow's, nothing is waited for in their old places, and the plan has counted them.

    Safe to repeat: what has been taken over already is left alone, and counted once.
    """
    parameters = {"o": session.organization_id, "ids": list(run_ids), "old": old_version_id, "new": target.version_id}
    rows = (await session.execute(_TAKE, parameters | {"workflow_id": target.workflow_id})).all()
    if rows:  # the plan's lock comes last: hundreds of workflows hand over at the same time
        plan = await publish_plans.get(session, target.plan_id, lock=True)
        await publish_plans.count_moved(session, plan, old_version_id, {row.step_id: row.runs for row in rows})


# The lines of a run's record grow with its way, and are grouped here: what comes back are its steps and their visits.
_WAYS = text(
    """
    SELECT r.id, r.step_id AS left_step, r.replay, e.step_id, e.visit, min(e.sequence) AS sequence
    FROM runs r LEFT JOIN run_events e
      ON e.organization_id = :o AND e.run_id = r.id AND e.step_id IS NOT NULL AND e.visit IS NOT NULL
    WHERE r.organization_id = :o AND r.id = ANY(:ids)
    GROUP BY r.id, e.step_id, e.visit
    """
)


async def ways(session: OrganizationSession, run_ids: Sequence[UUID]) -> dict[UUID, Way]:
    """By run, the step that its row shows and where it has been by its record."""
    begun: dict[UUID, tuple[str | None, Begun]] = {}
    arrivals: defaultdict[UUID, list[Arrival]] = defaultdict(list)
    for row in await session.execute(_WAYS, {"o": session.organization_id, "ids": list(run_ids)}):
        begun.setdefault(row.id, (row.left_step, begun_with(row.replay)))
        if row.step_id is not None:
            arrivals[row.id].append(Arrival(row.step_id, row.visit, row.sequence))
    return {run_id: Way(left, began, arrivals[run_id]) for run_id, (left, began) in begun.items()}


async def exits(session: OrganizationSession, run_ids: Sequence[UUID]) -> dict[UUID, str]:
    """Those of the runs that a rule of the journey wants to leave, with the reason."""
    return {row.id: row.reason for row in await session.execute(_EXITS, {"o": session.organization_id, "ids": list(run_ids)})}


_CANCELLED = text(
    f"""
    SELECT DISTINCT r.workflow_id FROM runs r JOIN journeys j ON j.organization_id = :o AND j.id = r.journey_id
    WHERE r.organization_id = :o AND r.workflow_id = ANY(CAST(:names AS text[])) AND r.finished_at IS NULL AND {CANCELLED_WITH}
    """
)


async def in_force(session: OrganizationSession, subjects: Mapping[str, Subject]) -> dict[str, Flags]:
    """By workflow id: what operators have said about the runs that it carries, who all came to be in one transaction. `subjects`: their
    journey and campaign."""
    said = {subject: await flags(session, *subject) for subject in set(subjects.values())}
    found = await session.execute(_CANCELLED, {"o": session.organization_id, "names": sorted(subjects)})
    cancelled = set(found.scalars())
    return {name: replace(said[each], cancelled=said[each].cancelled or name in cancelled) for name, each in subjects.items()}


async def flags(session: OrganizationSession, journey_id: UUID, campaign_id: UUID | None) -> Flags:
    """What operators have said about a journey and, unless it is None, a campaign."""
    if campaign_id is not None:
        return await audience.flags(session, campaign_id)
    query = text("SELECT paused_at IS NOT NULL AS paused, resumption FROM journeys WHERE organization_id = :o AND id = :id")
    row = (await session.execute(query, {"o": session.organization_id, "id": journey_id})).one_or_none()
    if row is None:
        return Flags(frozenset(), cancelled=False)
    return Flags(frozenset({"journey"} if row.paused else ()), cancelled=False, spreads=audience.spreads(journey=row.resumption))
