"""What workflows must be told: written in the transaction that it tells of, deleted once Temporal has it."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from sqlalchemy import text

from models.domain.findings import LOST
from models.store.ids import UUID7_NOW
from models.store.rowset import rowset
from models.store.session import OrganizationSession
from models.tables.base import new_id


@dataclass(frozen=True)
class OutboxMessage:
    """`kind`: start, matched, exit, reconsider or variables. `body` is what `activities.contracts.journey.RunMessage` says besides.
    `start`: the run's workflow, or that which `body` names, is there and knows of the pauses and cancellations in force."""

    run_id: UUID
    kind: str
    body: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class PendingMessage:
    """`finished`: nobody need be told any more. `replayed`: its replay has closed it, and its workflow, if there is any, must be told.
    `lost`: its workflow is gone for good, as far as anybody knows."""

    id: UUID
    run_id: UUID
    kind: str
    body: Mapping[str, Any]
    workflow_id: str
    finished: bool
    replayed: bool = False
    lost: bool = False


_PUT = text(
    """
    INSERT INTO run_messages (id, organization_id, run_id, kind, body)
    SELECT a.id, :o, a.run_id, a.kind, a.body
    FROM jsonb_to_recordset(CAST(:rows AS jsonb)) AS a(id uuid, run_id uuid, kind text, body jsonb)
    """
)
# To a run's workflow as it is now: it may have been handed over to another since.
_TAKE = text(
    """
    SELECT m.id, m.run_id, m.kind, m.body, w.workflow_id, CASE WHEN m.kind = 'start'
        THEN NOT EXISTS (SELECT 1 FROM runs x WHERE x.organization_id = :o AND x.workflow_id = w.workflow_id AND x.finished_at IS NULL)
        ELSE r.finished_at IS NOT NULL AND r.replayed_by IS NULL END AS finished,
      r.replayed_by IS NOT NULL AS replayed, r.status = 'needs_attention' AND r.reason IS NOT DISTINCT FROM :lost AS lost
    FROM run_messages m
    CROSS JOIN LATERAL (SELECT * FROM runs r WHERE r.organization_id = :o AND r.id = m.run_id LIMIT 1) r
    CROSS JOIN LATERAL (SELECT coalesce(m.body ->> 'workflow_id', r.workflow_id) AS workflow_id) w
    WHERE m.organization_id = :o AND m.id > :after AND w.workflow_id <> ALL(CAST(:untold AS text[]))
    ORDER BY m.id LIMIT :limit
    """
)
_TELL_LATER = text(
    f"""
    INSERT INTO run_messages (id, organization_id, run_id, kind, body)
    SELECT {UUID7_NOW}, :o, a.run_id, 'start', jsonb_build_object('workflow_id', a.workflow_id)
    FROM (SELECT DISTINCT ON (r.workflow_id) r.workflow_id, r.id AS run_id FROM runs r
          WHERE r.organization_id = :o AND r.workflow_id = ANY(CAST(:names AS text[])) AND r.finished_at IS NULL
          ORDER BY r.workflow_id, r.id) a
    """
)
_DELETE = text("DELETE FROM run_messages WHERE organization_id = :o AND id = ANY(CAST(:ids AS uuid[]))")


async def add(session: OrganizationSession, messages: Sequence[OutboxMessage]) -> list[UUID]:
    """They will be told, in this order for each workflow, once the transaction has committed. Answers their ids."""
    rows = [{**vars(message), "id": new_id()} for message in messages]
    if rows:
        await session.execute(_PUT, {"o": session.organization_id, "rows": rowset(rows)})
    return [row["id"] for row in rows]


async def tell_later(session: OrganizationSession, names: Collection[str]) -> None:
    """The workflows of these ids, if they carry anybody, will be told what is in force: of one message each, whatever was missed. Said
    twice, it is told once."""
    await session.execute(_TELL_LATER, {"o": session.organization_id, "names": sorted(names)})


async def pending(
    session: OrganizationSession, limit: int, after: UUID | None = None, untold: Collection[str] = ()
) -> list[PendingMessage]:
    """Up to `limit` messages that nobody has been told yet, oldest first, beginning after the id `after`; none for workflows `untold`."""
    wanted = {"o": session.organization_id, "limit": limit, "after": after or UUID(int=0), "lost": LOST, "untold": sorted(untold)}
    rows = await session.execute(_TAKE, wanted)
    return [PendingMessage(*row) for row in rows]


async def delivered(session: OrganizationSession, ids: Sequence[UUID]) -> None:
    """Temporal has them."""
    await session.execute(_DELETE, {"o": session.organization_id, "ids": list(ids)})
