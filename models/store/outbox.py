"""What workflows must be told: written in the transaction that it tells of, deleted once Temporal has it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from sqlalchemy import text

from models.domain.findings import LOST
from models.store.rowset import rowset
from models.store.session import OrganizationSession
from models.tables.base import new_id


@dataclass(frozen=True)
class OutboxMessage:
    """`kind`: start, matched, exit, reconsider or variables. `body` is what `activities.contracts.journey.RunMessage` says besides."""

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
    SELECT m.id, m.run_id, m.kind, m.body, r.workflow_id, r.finished_at IS NOT NULL AND r.replayed_by IS NULL AS finished,
      r.replayed_by IS NOT NULL AS replayed, r.status = 'needs_attention' AND r.reason IS NOT DISTINCT FROM :lost AS lost
    FROM (SELECT * FROM run_messages WHERE organization_id = :o AND id > :after ORDER BY id LIMIT :limit) m
    JOIN runs r ON r.organization_id = :o AND r.id = m.run_id
    ORDER BY m.id
    """
)
_DELETE = text("DELETE FROM run_messages WHERE organization_id = :o AND id = ANY(CAST(:ids AS uuid[]))")


async def add(session: OrganizationSession, messages: Sequence[OutboxMessage]) -> None:
    """They will be told, in this order for each workflow, once the transaction has committed."""
    if messages:
        rows = [{**vars(message), "id": new_id()} for message in messages]
        await session.execute(_PUT, {"o": session.organization_id, "rows": rowset(rows)})


async def pending(session: OrganizationSession, limit: int, after: UUID | None = None) -> list[PendingMessage]:
    """Up to `limit` messages that nobody has been told yet, oldest first, beginning after the id `after`."""
    wanted = {"o": session.organization_id, "limit": limit, "after": after or UUID(int=0), "lost": LOST}
    rows = await session.execute(_TAKE, wanted)
    return [PendingMessage(*row) for row in rows]


async def delivered(session: OrganizationSession, ids: Sequence[UUID]) -> None:
    """Temporal has them."""
    await session.execute(_DELETE, {"o": session.organization_id, "ids": list(ids)})
