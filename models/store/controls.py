"""An operator's word about a whole campaign or journey: the flag that the last check before a send obeys, and whom to tell. And
whom to tell that a connection works again."""

from typing import Literal
from uuid import UUID

from sqlalchemy import text

from models.domain.audit import Actor, NewEntry
from models.domain.connection import BROKEN_REASONS
from models.domain.journey.run import FINISHED
from models.store import audit
from models.store.session import OrganizationSession

Kind = Literal["campaign", "journey", "connection"]

_CHANGES = {
    ("campaign", "pause"): """UPDATE campaigns SET paused_at = now(), status = 'paused'
        WHERE organization_id = :o AND id = :id AND paused_at IS NULL AND cancelled_at IS NULL AND finished_at IS NULL RETURNING id""",
    ("campaign", "resume"): """UPDATE campaigns SET paused_at = NULL,
          status = CASE WHEN status <> 'paused' THEN status WHEN audience IS NULL THEN 'starting' ELSE 'running' END
        WHERE organization_id = :o AND id = :id AND paused_at IS NOT NULL AND cancelled_at IS NULL
          AND pauses = coalesce(CAST(:pauses AS integer), pauses) RETURNING id""",
    ("campaign", "cancel"): """UPDATE campaigns SET cancelled_at = now(), status = 'cancelled'
        WHERE organization_id = :o AND id = :id AND cancelled_at IS NULL AND finished_at IS NULL RETURNING id""",
    ("journey", "pause"): """UPDATE journeys SET paused_at = now()
        WHERE organization_id = :o AND id = :id AND paused_at IS NULL RETURNING id""",
    ("journey", "resume"): """UPDATE journeys SET paused_at = NULL
        WHERE organization_id = :o AND id = :id AND paused_at IS NOT NULL
          AND pauses = coalesce(CAST(:pauses AS integer), pauses) RETURNING id""",
}
_PAST = {"pause": "paused", "resume": "resumed", "cancel": "cancelled"}


async def apply(session: OrganizationSession, kind: Kind, subject_id: UUID, command: str, actor: Actor, pauses: int | None = None) -> bool:
    """The flag is as commanded, with an audit entry where that changes anything. False: a later word stands against it.

    A resume lifts only the pauses that it knew of (`pauses`, None: any). A journey has no flag for `cancel`, and a connection
    none at all: that is said to their runs only. Safe to repeat.
    """
    statement = _CHANGES.get((kind, command))
    if statement is None:
        return True
    wanted = {"o": session.organization_id, "id": subject_id} | ({"pauses": pauses} if command == "resume" else {})
    changed = await session.scalar(text(statement), wanted) is not None
    in_force = changed or command == "cancel" or await _is_paused(session, kind, subject_id) is (command == "pause")
    if changed:
        await audit.append(session, [NewEntry(f"{kind}.{_PAST[command]}", kind, str(subject_id), actor)])
    return in_force


async def _is_paused(session: OrganizationSession, kind: Kind, subject_id: UUID) -> bool:
    table = {"campaign": "campaigns", "journey": "journeys"}[kind]
    query = text(f"SELECT paused_at IS NOT NULL FROM {table} WHERE organization_id = :o AND id = :id")
    return bool(await session.scalar(query, {"o": session.organization_id, "id": subject_id}))


_CONCERNED = {
    "campaign": "r.campaign_id = :id AND r.status <> ALL(CAST(:finished AS text[]))",
    "journey": "r.journey_id = :id AND r.status <> ALL(CAST(:finished AS text[]))",
    # Held at a step that sends through it. Journeys first: there is an index by journey and status.
    "connection": """r.status = 'held' AND r.reason = ANY(CAST(:broken AS text[])) AND r.journey_id = ANY(ARRAY(
          SELECT v.journey_id FROM journey_versions v WHERE v.organization_id = :o
            AND jsonb_path_exists(v.definition, '$.steps.*.connection_id ? (@ == $id)', jsonb_build_object('id', CAST(:id AS text)))))
        AND EXISTS (SELECT 1 FROM journey_versions v WHERE v.organization_id = :o AND v.id = r.version_id
                    AND v.definition #>> ARRAY['steps', r.step_id, 'connection_id'] = CAST(:id AS text))""",
}


async def concerned_workflows(session: OrganizationSession, kind: Kind, subject_id: UUID, after: str | None, limit: int) -> list[str]:
    """Up to `limit` ids of workflows that carry unfinished runs of the campaign or journey, or runs that are held for the connection,
    in order, beginning after `after`."""
    query = f"""SELECT DISTINCT r.workflow_id FROM runs r
                WHERE r.organization_id = :o AND r.workflow_id > :after AND {_CONCERNED[kind]}
                ORDER BY r.workflow_id LIMIT :limit"""
    needed = {"broken": sorted(BROKEN_REASONS)} if kind == "connection" else {"finished": [str(phase) for phase in FINISHED]}
    parameters = {"o": session.organization_id, "id": subject_id, "after": after or "", "limit": limit, **needed}
    return list((await session.execute(text(query), parameters)).scalars())
