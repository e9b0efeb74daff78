"""The history of drafts: one row for each save, never changed."""

from collections.abc import Sequence
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, func, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import defer
from sqlmodel import col

from models.domain.errors import NotFound
from models.domain.journey.content_hash import thawed
from models.store.session import OrganizationSession
from models.tables.base import new_id
from models.tables.journeys import Journey, JourneyVersion
from models.tables.publishing import DraftRevision

_WITHOUT_DRAFT = defer(col(DraftRevision.draft), raiseload=True)  # type: ignore[arg-type]  # what `col` gives is one


async def add(session: OrganizationSession, journey: Journey, saved_by: UUID | None, origin: str) -> None:
    """The journey's draft, as it stands now, is the newest of its history. The caller holds the journey's lock.

    Dated by the database, like versions: which came first is never a matter of two processes' clocks.
    """
    row = {
        "id": new_id(),
        "organization_id": session.organization_id,
        "created_at": func.clock_timestamp(),
        "journey_id": journey.id,
        "revision": journey.revision,
        "name": journey.name,
        "draft": journey.draft,
        "saved_by": saved_by,
        "origin": origin,
    }
    await session.execute(insert(DraftRevision).values(row))


async def get(session: OrganizationSession, journey_id: UUID, revision: int) -> DraftRevision:
    """Raises NotFound."""
    statement = select(DraftRevision).where(*_of(session, journey_id), col(DraftRevision.revision) == revision)
    found = (await session.execute(statement)).scalar_one_or_none()
    if found is None:
        raise NotFound("revision", revision)
    return found


async def published(session: OrganizationSession, version: JourneyVersion) -> dict[str, Any]:
    """The draft that the version was frozen from: of a version that does not say which, the last one saved before it."""
    which = col(DraftRevision.created_at) <= version.created_at
    if version.revision is not None:
        which = col(DraftRevision.revision) == version.revision
    statement = select(col(DraftRevision.draft)).where(*_of(session, version.journey_id), which)
    found = (await session.execute(statement.order_by(col(DraftRevision.revision).desc()).limit(1))).scalar_one_or_none()
    return thawed(version.definition, version.journey_id) if found is None else found


async def page(session: OrganizationSession, journey_id: UUID, limit: int, after: UUID | None) -> Sequence[DraftRevision]:
    """Up to `limit` revisions without their drafts, oldest first, beginning after the id `after`."""
    statement = select(DraftRevision).where(*_of(session, journey_id)).options(_WITHOUT_DRAFT)
    if after is not None:
        statement = statement.where(col(DraftRevision.id) > after)
    return (await session.execute(statement.order_by(col(DraftRevision.id)).limit(limit))).scalars().all()


async def authors(session: OrganizationSession, journey_id: UUID) -> set[UUID]:
    """Who has saved the draft since the newest version was published, or ever, before the first."""
    published = (
        select(func.max(col(JourneyVersion.created_at)))
        .where(col(JourneyVersion.organization_id) == session.organization_id, col(JourneyVersion.journey_id) == journey_id)
        .scalar_subquery()
    )
    since = col(DraftRevision.created_at) > func.coalesce(published, func.to_timestamp(0))
    statement = select(col(DraftRevision.saved_by)).where(*_of(session, journey_id), since, col(DraftRevision.saved_by).is_not(None))
    return {author for author in (await session.execute(statement.distinct())).scalars() if author is not None}


def _of(session: OrganizationSession, journey_id: UUID) -> tuple[ColumnElement[bool], ColumnElement[bool]]:
    return (col(DraftRevision.organization_id) == session.organization_id, col(DraftRevision.journey_id) == journey_id)
