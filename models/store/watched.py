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
_VERSIONS = text(
    """
    SELECT DISTINCT version_id FROM runs
    WHERE organization_id = :o AND contact_id = ANY(CAST(:contacts AS uuid[])) AND finished_at IS NULL ORDER BY 1
    """
)
# The row of a run that rests for long where only the time ends that is to be believed: it is not just coming here.
_RUNS = text(
    """
    SELECT r.id FROM runs r
    WHERE r.organization_id = :o AND r.contact_id = ANY(CAST(:contacts AS uuid[])) AND r.version_id = ANY(CAST(:versions AS uuid[]))
      AND r.finished_at IS NULL
      AND NOT (r.status = 'waiting' AND r.wake_at > clock_timestamp() + interval '5 minutes' AND (r.version_id, r.step_id) IN (
        SELECT p.version_id, p.step_id FROM jsonb_to_recordset(CAST(:asleep AS jsonb)) AS p(version_id uuid, step_id text)))
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


async def versions_under_way(session: OrganizationSession, contacts: Sequence[UUID]) -> list[UUID]:
    """On which runs of these contacts are."""
    return list((await session.execute(_VERSIONS, {"o": session.organization_id, "contacts": list(contacts)})).scalars())


async def runs_under_way(
    session: OrganizationSession, contacts: Sequence[UUID], versions: Sequence[UUID], asleep: Sequence[Place]
) -> list[UUID]:
    """The runs of these contacts on these versions, wherever they stand, but for those that rest at one of the places `asleep`, which
    nothing but the time ends, for some time still."""
    rows = rowset([{"version_id": version_id, "step_id": step_id} for version_id, step_id in asleep])
    wanted = {"o": session.organization_id, "contacts": list(contacts), "versions": list(versions), "asleep": rows}
    return list((await session.execute(_RUNS, wanted)).scalars())
