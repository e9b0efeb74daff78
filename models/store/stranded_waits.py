"""Runs that wait for events without a timeout, where none can come or none ever came.

The places are found in the published definitions, and the runs by the index of steps: other runs are not looked at.
"""

from dataclasses import dataclass
from datetime import timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import text

from models.store.session import OrganizationSession
from models.tables.base import utc_now

_PLACES = """
    WITH places AS MATERIALIZED (
      SELECT v.journey_id, v.id AS version_id, s.key AS step_id, s.value AS step
      FROM journey_versions v CROSS JOIN LATERAL jsonb_each(v.definition -> 'steps') AS s
      WHERE v.organization_id = :o AND s.value ->> 'kind' = 'wait_for' AND s.value ->> 'timeout' IS NULL)"""
_THERE = """JOIN runs r ON r.organization_id = :o AND r.journey_id = p.journey_id AND r.version_id = p.version_id
        AND r.step_id = p.step_id AND r.finished_at IS NULL AND r.status = 'waiting' AND r.wake_at IS NULL
        AND r.updated_at < now() - CAST(:late AS interval)"""
# A wait that is open can end. One that has just ended is being told, or is in the outbox; one that ended long ago was not told.
_ENDLESS = text(
    f"""{_PLACES},
    unopened AS MATERIALIZED (
      SELECT p.journey_id, p.version_id, p.step_id, r.id, r.updated_at FROM places p {_THERE}
      WHERE NOT EXISTS (SELECT 1 FROM waits o WHERE o.organization_id = :o AND o.run_id = r.id AND o.step_id = r.step_id
        AND o.state = 'open'))
    SELECT r.journey_id, r.version_id, r.step_id, count(*) AS runs, count(*) FILTER (WHERE w.state IS NULL) AS missing,
      count(*) FILTER (WHERE w.state = 'matched') AS matched, count(*) FILTER (WHERE w.state IN ('closed', 'timed_out')) AS closed,
      CAST((array_agg(r.id))[1:10] AS text[]) AS some
    FROM unopened r
    LEFT JOIN LATERAL (SELECT w.state, w.closed_at FROM waits w WHERE w.organization_id = :o AND w.run_id = r.id AND w.step_id = r.step_id
      ORDER BY w.visit DESC LIMIT 1) w ON true
    WHERE coalesce(w.closed_at, r.updated_at) < now() - CAST(:late AS interval)
      AND NOT EXISTS (SELECT 1 FROM run_messages m WHERE m.organization_id = :o AND m.run_id = r.id)
    GROUP BY r.journey_id, r.version_id, r.step_id
    """
)
_UNHEARD = text(
    f"""{_PLACES},
    awaited AS MATERIALIZED (
      SELECT p.journey_id, p.version_id, p.step_id, array_agg(DISTINCT e ->> 'event') AS names
      FROM places p CROSS JOIN LATERAL jsonb_array_elements(p.step -> 'events') AS e
      WHERE coalesce(jsonb_array_length(p.step -> 'conditions'), 0) = 0
      GROUP BY p.journey_id, p.version_id, p.step_id),
    unheard AS MATERIALIZED (
      SELECT a.* FROM awaited a
      WHERE NOT EXISTS (SELECT 1 FROM unnest(a.names) AS n(name) WHERE EXISTS (
        SELECT 1 FROM events e WHERE e.organization_id = :o AND e.name = n.name AND e.created_at > CAST(:silent_since AS timestamptz))))
    SELECT p.journey_id, p.version_id, p.step_id, p.names, count(*) AS runs
    FROM unheard p {_THERE}
    GROUP BY p.journey_id, p.version_id, p.step_id, p.names
    """
)


@dataclass(frozen=True)
class Stranded:
    """Runs at one step of one version. With `names`: these events were never received; else their waits are not open, by how they are."""

    journey_id: UUID
    version_id: UUID
    step_id: str
    runs: int
    waits: dict[str, int]
    some: list[str]
    names: list[str]


async def endless(session: OrganizationSession, since: timedelta) -> list[Stranded]:
    """Where runs have waited for longer than `since` for events or conditions that can no longer end their wait."""
    rows = await session.execute(_ENDLESS, {"o": session.organization_id, "late": since})
    return [_stranded(row, {"missing": row.missing, "matched": row.matched, "closed": row.closed}) for row in rows]


async def unheard(session: OrganizationSession, since: timedelta, silent: timedelta) -> list[Stranded]:
    """Where runs have waited for longer than `since` for events alone, none of which the organization has received in `silent`."""
    rows = await session.execute(_UNHEARD, {"o": session.organization_id, "late": since, "silent_since": utc_now() - silent})
    return [_stranded(row, {}) for row in rows]


def _stranded(row: Any, waits: dict[str, int]) -> Stranded:
    some, names = getattr(row, "some", []), getattr(row, "names", [])
    return Stranded(row.journey_id, row.version_id, row.step_id, row.runs, waits, list(some), list(names))
