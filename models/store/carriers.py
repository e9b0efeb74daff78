"""Rows of runs, looked at by the workflow that carries them: what the reconciler compares with Temporal.

Each question costs by the workflows, or by the runs that something may be wrong with: never by all runs that wait.
"""

from collections import defaultdict
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import text

from models.domain.audit import SYSTEM
from models.domain.findings import LOST
from models.domain.journey.run import FINISHED, Phase
from models.store import transitions
from models.store.session import OrganizationSession
from models.store.transitions import NewTransition
from models.tables.base import utc_now

# A walk along the index, from one workflow to the next: however many runs each carries, it costs one step.
_CARRYING = text(
    """
    WITH RECURSIVE w(workflow_id) AS (
      (SELECT r.workflow_id FROM runs r WHERE r.organization_id = :o AND r.finished_at IS NULL AND r.workflow_id > :after
       ORDER BY r.workflow_id LIMIT 1)
      UNION ALL
      SELECT (SELECT r.workflow_id FROM runs r WHERE r.organization_id = :o AND r.finished_at IS NULL AND r.workflow_id > w.workflow_id
              ORDER BY r.workflow_id LIMIT 1)
      FROM w WHERE w.workflow_id IS NOT NULL)
    SELECT workflow_id FROM w WHERE workflow_id IS NOT NULL LIMIT :limit
    """
)
_WALK = 1000


async def carrying(session: OrganizationSession) -> set[str]:
    """The workflows that carry unfinished runs, by the rows."""
    found: set[str] = set()
    after = ""
    while True:
        rows = await session.execute(_CARRYING, {"o": session.organization_id, "after": after, "limit": _WALK})
        names = list(rows.scalars())
        found.update(names)
        if len(names) < _WALK:
            return found
        after = names[-1]


@dataclass(frozen=True, slots=True)
class Late:
    """Runs of one workflow that should have gone on since `since` (the earliest of them): their time has come, or something has been in
    flight for them."""

    workflow_id: str
    journey_id: UUID
    runs: int
    since: datetime


# A plain moment and CASE: beneath row-level security PostgreSQL uses no index for arithmetic with times, nor for COALESCE.
_LATE = text(
    """
    SELECT workflow_id, CAST(min(CAST(journey_id AS text)) AS uuid) AS journey_id, count(*) AS runs,
      min(CASE WHEN wake_at IS NULL THEN updated_at ELSE wake_at END) AS since
    FROM runs
    WHERE organization_id = :o AND (status = 'active' OR (status IN ('waiting', 'held') AND wake_at IS NOT NULL))
      AND CASE WHEN wake_at IS NULL THEN updated_at ELSE wake_at END < CAST(:before AS timestamptz)
      AND updated_at < CAST(:before AS timestamptz)
    GROUP BY workflow_id
    """
)


async def late(session: OrganizationSession, than: timedelta) -> dict[str, Late]:
    """By workflow: runs whose time came longer ago `than` this and that have recorded nothing in it; paused ones are not meant to."""
    rows = await session.execute(_LATE, {"o": session.organization_id, "before": utc_now() - than})
    return {row.workflow_id: Late(*row) for row in rows}


@dataclass(frozen=True, slots=True)
class Carried:
    """The unfinished runs of one workflow, by their rows. `before` is the workflow that carried them before a publish plan."""

    workflow_id: str
    journey_id: UUID
    campaign_id: UUID | None
    runs: int
    unlost: int  # not marked as lost
    unbegun: int  # no transition recorded
    entered_at: datetime
    recorded_at: datetime  # the last change of any of the rows
    over_api: bool
    before: str | None
    to_be_started: bool  # the outbox holds the word


_CARRIED = text(
    """
    SELECT r.workflow_id, CAST(min(CAST(r.journey_id AS text)) AS uuid) AS journey_id,
      CAST(min(CAST(r.campaign_id AS text)) AS uuid) AS campaign_id, count(*) AS runs,
      count(*) FILTER (WHERE r.reason IS DISTINCT FROM :lost) AS unlost, count(*) FILTER (WHERE r.sequence = 0) AS unbegun,
      min(r.created_at) AS entered_at, max(r.updated_at) AS recorded_at, bool_or(r.entry_source = 'api') AS over_api,
      max(r.earlier_workflows[cardinality(r.earlier_workflows)]) AS before,
      bool_or(EXISTS (SELECT 1 FROM run_messages m WHERE m.organization_id = :o AND m.run_id = r.id AND m.kind = 'start')) AS to_be_started
    FROM runs r
    WHERE r.organization_id = :o AND r.finished_at IS NULL AND r.workflow_id = ANY(CAST(:names AS text[]))
    GROUP BY r.workflow_id
    """
)


async def carried(session: OrganizationSession, names: Collection[str]) -> dict[str, Carried]:
    """By workflow, for those that carry any."""
    if not names:
        return {}
    rows = await session.execute(_CARRIED, {"o": session.organization_id, "names": sorted(names), "lost": LOST})
    return {row.workflow_id: Carried(*row) for row in rows}


_SUBJECTS = text(
    """
    SELECT DISTINCT ON (workflow_id) workflow_id, journey_id, version_id, campaign_id FROM runs
    WHERE organization_id = :o AND workflow_id = ANY(CAST(:names AS text[])) AND finished_at IS NULL ORDER BY workflow_id, id
    """
)


@dataclass(frozen=True, slots=True)
class Subject:
    """What a workflow's runs are about."""

    journey_id: UUID
    version_id: UUID
    campaign_id: UUID | None


async def subjects(session: OrganizationSession, names: Collection[str]) -> dict[str, Subject]:
    """By workflow, for those that carry unfinished runs: all of one workflow are about the same."""
    rows = await session.execute(_SUBJECTS, {"o": session.organization_id, "names": sorted(names)})
    return {row.workflow_id: Subject(row.journey_id, row.version_id, row.campaign_id) for row in rows}


_KNOWN = text(
    """
    SELECT workflow_id, count(*) AS runs FROM runs
    WHERE organization_id = :o AND workflow_id = ANY(CAST(:names AS text[])) GROUP BY workflow_id
    """
)


async def known(session: OrganizationSession, names: Collection[str]) -> dict[str, int]:
    """How many rows, finished ones too, each of the workflows has."""
    rows = await session.execute(_KNOWN, {"o": session.organization_id, "names": sorted(names)})
    return {row.workflow_id: row.runs for row in rows}


# Locked in the order of runs, as the record of transitions does.
_TO_LOSE = text(
    """
    SELECT id, journey_id, workflow_id, sequence, step_id FROM runs
    WHERE organization_id = :o AND finished_at IS NULL AND workflow_id = ANY(CAST(:names AS text[]))
      AND updated_at < now() - CAST(:quiet AS interval) AND reason IS DISTINCT FROM :lost
    ORDER BY id FOR UPDATE
    """
)


async def lose(session: OrganizationSession, names: Sequence[str], quiet: timedelta, now: datetime) -> int:
    """The unfinished runs of these workflows, which are gone for good, need attention; how many. Left alone are rows that have changed
    within `quiet`: somebody is at work on them.

    Safe to repeat. Appends to the audit chain: call it late in a transaction.
    """
    parameters = {"o": session.organization_id, "names": list(names), "quiet": quiet, "lost": LOST}
    rows = (await session.execute(_TO_LOSE, parameters)).all()
    by_journey: defaultdict[UUID, list[NewTransition]] = defaultdict(list)
    for row in rows:
        by_journey[row.journey_id].append(_lost(row, now))
    for journey_id in sorted(by_journey):
        await transitions.record(session, journey_id, by_journey[journey_id])  # upkeep sees to the campaigns that this pauses
    return len(rows)


def _lost(row: Any, now: datetime) -> NewTransition:
    return NewTransition(
        run_id=row.id,
        sequence=row.sequence + 1,
        kind="parked",
        phase=str(Phase.NEEDS_ATTENTION),
        occurred_at=now,
        step_id=row.step_id,
        visit=None,
        wake_at=None,
        reason=LOST,
        actor=SYSTEM,
        details={"workflow_id": row.workflow_id},
    )


_FINISHED_SINCE = text(
    """
    WITH ended AS MATERIALIZED (
      SELECT a.sequence, CAST(a.subject_id AS uuid) AS run_id FROM audit_entries a
      WHERE a.organization_id = :o AND a.sequence > :after AND a.sequence <= :end AND a.action = ANY(CAST(:actions AS text[])))
    SELECT r.workflow_id, CAST(min(CAST(r.journey_id AS text)) AS uuid) AS journey_id, count(*) AS runs, min(e.sequence) AS sequence
    FROM ended e JOIN runs r ON r.organization_id = :o AND r.id = e.run_id
    WHERE NOT EXISTS (SELECT 1 FROM workflow_histories h WHERE h.organization_id = :o AND h.workflow_id = r.workflow_id)
      AND NOT EXISTS (SELECT 1 FROM runs u WHERE u.organization_id = :o AND u.workflow_id = r.workflow_id AND u.finished_at IS NULL)
    GROUP BY r.workflow_id
    """
)


@dataclass(frozen=True)
class Unarchived:
    workflow_id: str
    journey_id: UUID
    runs: int
    sequence: int


async def unarchived(session: OrganizationSession, after: int, end: int) -> list[Unarchived]:
    """Workflows all of whose runs are finished, some of them between the audit chain's entries `after` and `end`, and of which no
    history is archived."""
    ended = [f"run.{phase}" for phase in sorted(FINISHED)]
    rows = await session.execute(_FINISHED_SINCE, {"o": session.organization_id, "after": after, "end": end, "actions": ended})
    return [Unarchived(*row) for row in rows]
