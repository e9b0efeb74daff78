"""Which runs and waits an event or a change may concern."""

from collections.abc import Sequence
from uuid import UUID

from sqlalchemy import text

from models.store.rowset import rowset
from models.store.session import OrganizationSession

Place = tuple[UUID, str]  # version and step

_AWAITING = text(
    """
    SELECT DISTINCT w.version_id, w.step_id FROM events e
    JOIN waits w ON w.organization_id = :o AND w.contact_id = e.contact_id AND w.state = 'open' AND e.name = ANY(w.event_names)
    WHERE e.organization_id = :o AND e.id = ANY(CAST(:events AS uuid[])) ORDER BY 1, 2
    """
)
_CONDITIONS = """
    SELECT DISTINCT version_id, step_id FROM waits
    WHERE organization_id = :o AND state = 'open' AND has_condition AND {some} ORDER BY 1, 2"""
_WAITED_AT = text(
    """
    SELECT DISTINCT version_id, step_id FROM runs
    WHERE organization_id = :o AND contact_id = ANY(CAST(:contacts AS uuid[])) AND finished_at IS NULL AND wake_at IS NOT NULL
      AND step_id IS NOT NULL ORDER BY 1, 2
    """
)
_WAITING_AT = text(
    """
    SELECT r.id FROM runs r
    JOIN jsonb_to_recordset(CAST(:places AS jsonb)) AS p(version_id uuid, step_id text) USING (version_id, step_id)
    WHERE r.organization_id = :o AND r.contact_id = ANY(CAST(:contacts AS uuid[])) AND r.finished_at IS NULL AND r.wake_at IS NOT NULL
    ORDER BY r.id
    """
)


async def steps_awaiting(session: OrganizationSession, events: Sequence[UUID]) -> list[Place]:
    """Where runs wait for one of these events."""
    rows = await session.execute(_AWAITING, {"o": session.organization_id, "events": list(events)})
    return [(row.version_id, row.step_id) for row in rows]


async def steps_with_conditions(session: OrganizationSession, contacts: Sequence[UUID] | None) -> list[Place]:
    """Where runs (of these contacts, or of any) wait for a condition."""
    some = "TRUE" if contacts is None else "contact_id = ANY(CAST(:contacts AS uuid[]))"
    wanted = {"o": session.organization_id, **({} if contacts is None else {"contacts": list(contacts)})}
    return [(row.version_id, row.step_id) for row in await session.execute(text(_CONDITIONS.format(some=some)), wanted)]


async def steps_waited_at(session: OrganizationSession, contacts: Sequence[UUID]) -> list[Place]:
    """Where runs of these contacts wait for a time."""
    rows = await session.execute(_WAITED_AT, {"o": session.organization_id, "contacts": list(contacts)})
    return [(row.version_id, row.step_id) for row in rows]


async def runs_waiting_at(session: OrganizationSession, contacts: Sequence[UUID], places: Sequence[Place]) -> list[UUID]:
    """The runs of these contacts that wait for a time at these places."""
    rows = rowset([{"version_id": version_id, "step_id": step_id} for version_id, step_id in places])
    wanted = {"o": session.organization_id, "contacts": list(contacts), "places": rows}
    return list((await session.execute(_WAITING_AT, wanted)).scalars())
