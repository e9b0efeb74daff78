"""An operator's word about a whole campaign or journey: the flag that the last check before a send obeys, and whom to tell."""

from typing import Literal
from uuid import UUID

from sqlalchemy import text

from models.domain.audit import Actor, NewEntry
from models.domain.journey import workflow_id
from models.domain.journey.run import FINISHED
from models.store import audit
from models.store.session import OrganizationSession

Kind = Literal["campaign", "journey"]

_CHANGES = {
    ("campaign", "pause"): """UPDATE campaigns SET paused_at = now(), status = 'paused'
        WHERE organization_id = :o AND id = :id AND paused_at IS NULL AND cancelled_at IS NULL AND finished_at IS NULL RETURNING id""",
    # Of the occurrences of a recurring campaign those are resumed that were paused together with it.
    ("campaign", "resume"): """WITH lifted AS MATERIALIZED (
          SELECT id, paused_at FROM campaigns
          WHERE organization_id = :o AND id = :id AND paused_at IS NOT NULL AND cancelled_at IS NULL
            AND pauses = coalesce(CAST(:pauses AS integer), pauses) FOR UPDATE)
        UPDATE campaigns c SET paused_at = NULL,
          status = CASE WHEN c.status <> 'paused' THEN c.status WHEN c.started_at IS NOT NULL THEN 'running'
                        WHEN c.schedule #>> '{schedule,kind}' <> 'now' THEN 'scheduled' ELSE 'starting' END
        FROM lifted l
        WHERE c.organization_id = :o AND (c.id = l.id OR (c.parent_id = l.id AND c.paused_at = l.paused_at)) RETURNING c.id""",
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

    A resume lifts only the pauses that it knew of (`pauses`, None: any). A journey has no flag for `cancel`: that is said
    to its runs only. Safe to repeat.
    """
    statement = _CHANGES.get((kind, command))
    if statement is None:
        return True
    wanted = {"o": session.organization_id, "id": subject_id} | ({"pauses": pauses} if command == "resume" else {})
    changed = set((await session.execute(text(statement), wanted)).scalars())
    in_force = bool(changed) or command == "cancel" or await _is_paused(session, kind, subject_id) is (command == "pause")
    if kind == "campaign" and command != "resume":
        changed |= set(await follow(session, subject_id))
    await audit.append(session, [NewEntry(f"{kind}.{_PAST[command]}", kind, str(one), actor) for one in sorted(changed)])
    return in_force


_FOLLOW = text(
    """
    UPDATE campaigns c SET paused_at = coalesce(c.paused_at, p.paused_at), cancelled_at = p.cancelled_at,
      status = CASE WHEN p.cancelled_at IS NULL THEN 'paused' ELSE 'cancelled' END
    FROM campaigns p
    WHERE p.organization_id = :o AND p.id = :id AND c.organization_id = :o AND c.parent_id = p.id
      AND c.cancelled_at IS NULL AND c.finished_at IS NULL
      AND (p.cancelled_at IS NOT NULL OR (p.paused_at IS NOT NULL AND c.paused_at IS NULL))
    RETURNING c.id
    """
)


async def follow(session: OrganizationSession, parent_id: UUID) -> list[UUID]:
    """A recurring campaign's unfinished occurrences are paused or cancelled as it is; which of them were not before. The paused
    ones bear the time of its pause, by which a resume knows them."""
    found = await session.execute(_FOLLOW, {"o": session.organization_id, "id": parent_id})
    return list(found.scalars())


async def recurs(session: OrganizationSession, kind: Kind, subject_id: UUID) -> bool:
    """Whether it is a campaign with a schedule in Temporal."""
    query = text(
        "SELECT coalesce(schedule #>> '{schedule,kind}' = 'recurring', false) FROM campaigns WHERE organization_id = :o AND id = :id"
    )
    return kind == "campaign" and bool(await session.scalar(query, {"o": session.organization_id, "id": subject_id}))


async def _is_paused(session: OrganizationSession, kind: Kind, subject_id: UUID) -> bool:
    table = {"campaign": "campaigns", "journey": "journeys"}[kind]
    query = text(f"SELECT paused_at IS NOT NULL FROM {table} WHERE organization_id = :o AND id = :id")
    return bool(await session.scalar(query, {"o": session.organization_id, "id": subject_id}))


_UNFINISHED = """
    SELECT DISTINCT workflow_id FROM runs
    WHERE organization_id = :o AND journey_id = :id AND status <> ALL(CAST(:finished AS text[]))
      AND workflow_id > :after ORDER BY workflow_id LIMIT :limit
"""
_UNFINISHED_OF_CAMPAIGN = """
    WITH these AS MATERIALIZED (SELECT * FROM campaigns WHERE organization_id = :o AND (id = :id OR parent_id = :id))
    SELECT workflow_id FROM (
      SELECT r.workflow_id FROM runs r
      WHERE r.organization_id = :o AND r.campaign_id = ANY(ARRAY(SELECT id FROM these)) AND r.status <> ALL(CAST(:finished AS text[]))
      UNION
      SELECT :prefix || t.id FROM these t
      WHERE t.audience IS NULL AND t.finished_at IS NULL AND t.schedule #>> '{schedule,kind}' IN ('once', 'local')) found
    WHERE workflow_id > :after ORDER BY workflow_id LIMIT :limit
"""


async def unfinished_workflows(session: OrganizationSession, kind: Kind, subject_id: UUID, after: str | None, limit: int) -> list[str]:
    """Up to `limit` ids of workflows that carry unfinished runs of the campaign (or its occurrences) or journey, or sleep until the
    campaign starts, in order, beginning after `after`."""
    query = _UNFINISHED if kind == "journey" else _UNFINISHED_OF_CAMPAIGN
    parameters = {
        "o": session.organization_id,
        "id": subject_id,
        **({} if kind == "journey" else {"prefix": workflow_id.campaign(session.organization_id, subject_id)[: -len(str(subject_id))]}),
        "finished": [str(phase) for phase in FINISHED],
        "after": after or "",
        "limit": limit,
    }
    return list((await session.execute(text(query), parameters)).scalars())
