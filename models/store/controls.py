"""An operator's word about a whole campaign or journey: the flag that the last check before a send obeys, and whom to tell. And
whom to tell that a connection works again, or that a journey is no longer archived."""

import json
from typing import Any, Literal
from uuid import UUID

from sqlalchemy import text

from models.domain.audit import Actor, NewEntry
from models.domain.connection import BROKEN_REASONS
from models.domain.journey import workflow_id
from models.domain.journey.run import FINISHED
from models.store import audit, brakes, occurrences
from models.store.audience import Spread
from models.store.journeys import CANCELLED_WITH
from models.store.session import OrganizationSession

Kind = Literal["campaign", "journey", "connection", "restored"]

_CHANGES = {
    ("campaign", "pause"): """UPDATE campaigns SET paused_at = now(), status = 'paused'
        WHERE organization_id = :o AND id = :id AND paused_at IS NULL AND cancelled_at IS NULL AND finished_at IS NULL RETURNING id""",
    # Of the occurrences of a recurring campaign those are resumed that were paused together with it.
    ("campaign", "resume"): """WITH lifted AS MATERIALIZED (
          SELECT id, paused_at FROM campaigns
          WHERE organization_id = :o AND id = :id AND paused_at IS NOT NULL AND cancelled_at IS NULL
            AND pauses = coalesce(CAST(:pauses AS integer), pauses) FOR UPDATE)
        UPDATE campaigns c SET paused_at = NULL, resumption = CAST(:resumption AS jsonb),
          status = CASE WHEN c.status <> 'paused' THEN c.status WHEN c.started_at IS NOT NULL THEN 'running'
                        WHEN c.audience IS NOT NULL OR c.schedule #>> '{schedule,kind}' <> 'now' THEN 'scheduled' ELSE 'starting' END
        FROM lifted l
        WHERE c.organization_id = :o AND (c.id = l.id OR (c.parent_id = l.id AND c.paused_at = l.paused_at)) RETURNING c.id""",
    ("campaign", "cancel"): """UPDATE campaigns SET cancelled_at = now(), status = 'cancelled'
        WHERE organization_id = :o AND id = :id AND cancelled_at IS NULL AND finished_at IS NULL RETURNING id""",
    ("journey", "pause"): """UPDATE journeys SET paused_at = now()
        WHERE organization_id = :o AND id = :id AND paused_at IS NULL RETURNING id""",
    ("journey", "resume"): """UPDATE journeys SET paused_at = NULL, resumption = CAST(:resumption AS jsonb)
        WHERE organization_id = :o AND id = :id AND paused_at IS NOT NULL
          AND pauses = coalesce(CAST(:pauses AS integer), pauses) RETURNING id""",
}
_PAST = {"pause": "paused", "resume": "resumed", "cancel": "cancelled"}


async def apply(
    session: OrganizationSession,
    kind: Kind,
    subject_id: UUID,
    command: str,
    actor: Actor,
    pauses: int | None = None,
    spread: Spread | None = None,
) -> bool:
    """The flag is as commanded, with an audit entry where that changes anything. False: a later word stands against it.

    A resume lifts only the pauses that it knew of (`pauses`, None: any), and how it is spread is kept for whoever hears of it later. A
    pause that says which one it is (`pauses`) stood before it was said, and sets nothing: a resume that was heard before it may have
    lifted it. The moment of a journey's cancellation stands before this is said (see `journeys.cancel_runs`), a connection has no flag,
    and a restored journey's is lifted already: that is said to workflows only. Safe to repeat.
    """
    statement = _CHANGES.get((kind, command))
    if statement is None:
        return True
    resumed = {"pauses": pauses, "resumption": None if spread is None else json.dumps(spread.stored())}
    wanted = {"o": session.organization_id, "id": subject_id} | (resumed if command == "resume" else {})
    stood = command == "pause" and pauses is not None
    changed: set[UUID] = set() if stood else set((await session.execute(text(statement), wanted)).scalars())
    if (kind, command) == ("campaign", "resume") and subject_id in changed:
        await occurrences.void(session, subject_id)  # what was due in the pause is too late, even if its workflow has not looked yet
    in_force = bool(changed) or command == "cancel" or await _is_paused(session, kind, subject_id) is (command == "pause")
    if kind == "campaign" and command != "resume":
        changed |= set(await follow(session, subject_id))
    if in_force and command != "pause":
        await brakes.lift(session, {subject_id} | changed)
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


_CANCELLED = "cancelled"
_CONCERNED = {
    # A journey's cancellation, which may be said again later, is not about what came after it.
    _CANCELLED: f"""SELECT r.workflow_id FROM runs r JOIN journeys j ON j.organization_id = :o AND j.id = :id
        LEFT JOIN campaigns c ON c.organization_id = :o AND c.id = r.campaign_id
        WHERE r.organization_id = :o AND r.journey_id = :id AND r.status <> ALL(CAST(:finished AS text[]))
          AND (coalesce({CANCELLED_WITH}, FALSE) OR c.cancelled_at IS NOT NULL)""",
    "journey": """SELECT r.workflow_id FROM runs r
        WHERE r.organization_id = :o AND r.journey_id = :id AND r.status <> ALL(CAST(:finished AS text[]))""",
    # Its occurrences' too, and the workflows that sleep until they start.
    "campaign": """SELECT r.workflow_id FROM runs r
        WHERE r.organization_id = :o AND r.status <> ALL(CAST(:finished AS text[])) AND r.campaign_id = ANY(ARRAY(
          SELECT c.id FROM campaigns c WHERE c.organization_id = :o AND (c.id = :id OR c.parent_id = :id)))
        UNION
        SELECT :prefix || c.id FROM campaigns c WHERE c.organization_id = :o AND (c.id = :id OR c.parent_id = :id)
          AND c.audience IS NULL AND c.finished_at IS NULL AND c.schedule #>> '{schedule,kind}' IN ('once', 'local')""",
    # A journey's campaigns that sleep until they start, or until it is restored.
    "restored": """SELECT :prefix || c.id AS workflow_id FROM campaigns c WHERE c.organization_id = :o AND c.journey_id = :id
          AND c.audience IS NULL AND c.finished_at IS NULL AND c.schedule #>> '{schedule,kind}' IN ('once', 'local')""",
    # Held at a step that sends through it. Journeys first: there is an index by journey and status.
    "connection": """SELECT r.workflow_id FROM runs r
        WHERE r.organization_id = :o AND r.status = 'held' AND r.reason = ANY(CAST(:broken AS text[])) AND r.journey_id = ANY(ARRAY(
          SELECT v.journey_id FROM journey_versions v WHERE v.organization_id = :o
            AND jsonb_path_exists(v.definition, '$.steps.*.connection_id ? (@ == $id)', jsonb_build_object('id', CAST(:id AS text)))))
        AND EXISTS (SELECT 1 FROM journey_versions v WHERE v.organization_id = :o AND v.id = r.version_id
                    AND v.definition #>> ARRAY['steps', r.step_id, 'connection_id'] = CAST(:id AS text))""",
}


async def concerned_workflows(
    session: OrganizationSession, kind: Kind, subject_id: UUID, after: str | None, limit: int, command: str = "resume"
) -> list[str]:
    """Up to `limit` ids of workflows that carry unfinished runs of the campaign (or its occurrences) or journey, that sleep until the
    campaign (or one of the restored journey's) starts, or that carry runs held for the connection; in order, beginning after `after`.
    With `cancel`, of a journey only those that its cancellation is about."""
    concerned = _CANCELLED if (kind, command) == ("journey", "cancel") else kind
    query = f"""SELECT DISTINCT found.workflow_id FROM ({_CONCERNED[concerned]}) found
                WHERE found.workflow_id > :after ORDER BY found.workflow_id LIMIT :limit"""
    finished = {"finished": [str(phase) for phase in FINISHED]}
    prefix = {"prefix": workflow_id.campaign(session.organization_id, subject_id).removesuffix(str(subject_id))}
    everything: dict[str, dict[str, Any]] = {
        "journey": finished,
        _CANCELLED: finished,
        "campaign": finished | prefix,
        "restored": prefix,
        "connection": {"broken": sorted(BROKEN_REASONS)},
    }
    needed = everything[concerned]
    parameters = {"o": session.organization_id, "id": subject_id, "after": after or "", "limit": limit, **needed}
    return list((await session.execute(text(query), parameters)).scalars())
