"""Where runs stand, as their record says: an operator's word is bound to that."""

from uuid import UUID

from sqlalchemy import text

from models.store.session import OrganizationSession

# Of a run `r`: at which visit of the step that its row shows it stands. What has recorded nothing but its entry stands where it begins; a
# line of an older release that does not say so, as that of a jump beneath a pause, leaves it NULL.
VISIT = """(
      SELECT CASE WHEN r.sequence = 0 OR e.kind = 'entered' AND NOT jsonb_exists(e.details, 'at_visit')
        THEN 1 + coalesce(CAST(r.replay -> 'visits' ->> r.step_id AS int), CAST(r.replay ->> 'visits_before' AS int), 0)
        ELSE coalesce(CAST(e.details ->> 'at_visit' AS int), CASE WHEN e.step_id = r.step_id THEN e.visit END) END
      FROM (VALUES (1)) one LEFT JOIN run_events e ON e.organization_id = :o AND e.run_id = r.id AND e.sequence = r.sequence)"""

_VISIT = text(f"SELECT {VISIT} FROM runs r WHERE r.organization_id = :o AND r.id = :id")


async def visit(session: OrganizationSession, run_id: UUID) -> int | None:
    """At which visit of its step the run stands, by its record; None: it does not say."""
    found: int | None = await session.scalar(_VISIT, {"o": session.organization_id, "id": run_id})
    return found
