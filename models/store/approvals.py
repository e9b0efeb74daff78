"""Asking whether exactly this content may be published, and the answers."""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, select
from sqlmodel import col

from models.domain.errors import NotFound
from models.store.session import OrganizationSession
from models.tables.publishing import Approval


async def ask(
    session: OrganizationSession,
    journey_id: UUID,
    revision: int,
    content_hash: str,
    definition: dict[str, Any],
    note: str,
    requested_by: UUID | None,
) -> Approval:
    """The question stands, not yet answered."""
    approval = Approval(
        organization_id=session.organization_id,
        journey_id=journey_id,
        revision=revision,
        content_hash=content_hash,
        definition=definition,
        note=note,
        requested_by=requested_by,
    )
    session.add(approval)
    await session.flush()
    return approval


async def find_open(session: OrganizationSession, journey_id: UUID, content_hash: str) -> Approval | None:
    """The question about this content that nobody has answered yet."""
    statement = select(Approval).where(*_of(session, journey_id), col(Approval.content_hash) == content_hash)
    statement = statement.where(col(Approval.decision).is_(None)).order_by(col(Approval.id)).limit(1)
    return (await session.execute(statement)).scalar_one_or_none()


async def is_approved(session: OrganizationSession, journey_id: UUID, content_hash: str) -> bool:
    """Whether the newest answer about exactly this content is yes."""
    statement = select(col(Approval.decision)).where(*_of(session, journey_id), col(Approval.content_hash) == content_hash)
    statement = statement.where(col(Approval.decision).is_not(None)).order_by(col(Approval.decided_at).desc()).limit(1)
    return (await session.execute(statement)).scalar_one_or_none() == "approved"


async def get(session: OrganizationSession, journey_id: UUID, approval_id: UUID, *, lock: bool = False) -> Approval:
    """Raises NotFound. With `lock`, nobody else answers before this transaction ends."""
    statement = select(Approval).where(*_of(session, journey_id), col(Approval.id) == approval_id)
    found = (await session.execute(statement.with_for_update() if lock else statement)).scalar_one_or_none()
    if found is None:
        raise NotFound("approval", approval_id)
    return found


async def page(session: OrganizationSession, journey_id: UUID, limit: int, after: UUID | None) -> Sequence[Approval]:
    """Up to `limit` of them, oldest first, beginning after the id `after`."""
    statement = select(Approval).where(*_of(session, journey_id))
    if after is not None:
        statement = statement.where(col(Approval.id) > after)
    return (await session.execute(statement.order_by(col(Approval.id)).limit(limit))).scalars().all()


async def decide(session: OrganizationSession, approval: Approval, decision: str, decided_by: UUID | None, reason: str | None) -> None:
    """The question is answered. The caller holds its lock."""
    approval.decision, approval.decided_by, approval.reason = decision, decided_by, reason
    approval.decided_at = datetime.now(UTC)
    await session.flush()


def _of(session: OrganizationSession, journey_id: UUID) -> tuple[ColumnElement[bool], ColumnElement[bool]]:
    return (col(Approval.organization_id) == session.organization_id, col(Approval.journey_id) == journey_id)
