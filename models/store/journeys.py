"""Journeys and their drafts."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import func, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlmodel import col

from models.domain.errors import Conflict, NotFound, StaleRevision
from models.store import draft_revisions
from models.store.session import OrganizationSession
from models.tables.base import new_id
from models.tables.journeys import Journey


def cancelled_with(journey: str) -> str:
    """Whether a run `r` has been cancelled with the journey of this name. Those of campaigns are cancelled with these, which is too late
    for replays."""
    return f"((r.campaign_id IS NULL OR r.replay_of IS NOT NULL) AND r.created_at <= {journey}.runs_cancelled_at)"


CANCELLED_WITH = cancelled_with("j")


async def create(
    session: OrganizationSession, name: str, draft: dict[str, Any], saved_by: UUID | None = None, origin: str = "edit"
) -> Journey:
    """A journey with this draft exists, at revision 1, which begins its history.

    Raises:
        Conflict: the name is taken.
    """
    row = {"id": new_id(), "organization_id": session.organization_id, "name": name, "draft": draft, "revision": 1}
    statement = insert(Journey).values(**row).on_conflict_do_nothing(index_elements=["organization_id", "name"])
    created = (await session.execute(statement.returning(Journey))).scalar_one_or_none()
    if created is None:
        raise Conflict(f"There is already a journey named {name!r}; choose another name.")
    await draft_revisions.add(session, created, saved_by, origin)
    return created


async def find_by_name(session: OrganizationSession, name: str) -> Journey | None:
    """The journey of this name; nobody else changes it before this transaction ends."""
    statement = select(Journey).where(col(Journey.organization_id) == session.organization_id, col(Journey.name) == name)
    return (await session.execute(statement.with_for_update(key_share=True))).scalar_one_or_none()


async def page(session: OrganizationSession, limit: int, after: UUID | None, archived: bool | None = None) -> Sequence[Journey]:
    """Up to `limit` journeys, oldest first, beginning after the id `after`; `archived` None: all."""
    statement = select(Journey).where(col(Journey.organization_id) == session.organization_id)
    if after is not None:
        statement = statement.where(col(Journey.id) > after)
    if archived is not None:
        statement = statement.where(col(Journey.archived_at).is_not(None) if archived else col(Journey.archived_at).is_(None))
    return (await session.execute(statement.order_by(col(Journey.id)).limit(limit))).scalars().all()


async def get(session: OrganizationSession, journey_id: UUID, *, lock: bool = False) -> Journey:
    """The journey; with `lock`, nobody else publishes, launches or changes it before this transaction ends.

    Raises:
        NotFound: no such journey in this organization.
    """
    statement = select(Journey).where(col(Journey.organization_id) == session.organization_id, col(Journey.id) == journey_id)
    if lock:
        statement = statement.with_for_update(key_share=True)
    found = (await session.execute(statement)).scalar_one_or_none()
    if found is None:
        raise NotFound("journey", journey_id)
    return found


async def save_draft(
    session: OrganizationSession,
    journey_id: UUID,
    revision: int,
    draft: dict[str, Any] | None,
    name: str | None,
    saved_by: UUID | None = None,
    origin: str = "edit",
) -> Journey:
    """The draft and the name are as given (None: as before), the revision is one higher, and the history has it.

    Raises:
        NotFound: no such journey.
        StaleRevision: the draft is not at `revision` any more; nothing is changed.
        Conflict: the journey is archived, or another one has this name.
    """
    journey = await get(session, journey_id, lock=True)
    if journey.archived_at is not None:
        raise Conflict("This journey is archived; its draft cannot be changed.")
    if journey.revision != revision:
        raise StaleRevision(f"Somebody saved revision {journey.revision} since revision {revision} was read; read it, and save again.")
    if name is not None and name != journey.name:
        await _refuse_taken(session, name)
    values = {"draft": journey.draft if draft is None else draft, "name": name or journey.name}
    saved = await _update(session, journey_id, **values, revision=revision + 1)
    await draft_revisions.add(session, saved, saved_by, origin)
    return saved


async def _refuse_taken(session: OrganizationSession, name: str) -> None:
    same = select(func.count()).where(col(Journey.organization_id) == session.organization_id, col(Journey.name) == name)
    if (await session.execute(same)).scalar_one():
        raise Conflict(f"There is already a journey named {name!r}; choose another name.")


async def set_paused(session: OrganizationSession, journey_id: UUID, paused_at: datetime | None) -> Journey:
    """The flag is as given: while it is set, the last check before a send holds every run of the journey."""
    return await _update(session, journey_id, paused_at=paused_at)


async def count_pause(session: OrganizationSession, journey_id: UUID) -> Journey:
    """One more pause was said; a resume that was said before does not lift it."""
    return await _update(session, journey_id, pauses=Journey.pauses + 1)


async def cancel_runs(session: OrganizationSession, journey: Journey, request_id: UUID) -> Journey:
    """The journey's runs outside campaigns, and its replays, are cancelled as far as they exist: the last check before a send stops them,
    and whoever starts a workflow for them tells it so. The same request again is about none that came after it. Hold the journey's
    lock, as those do who let runs in."""
    if journey.cancel_request_id == request_id:
        return journey
    return await _update(session, journey.id, runs_cancelled_at=func.clock_timestamp(), cancel_request_id=request_id)


async def change_settings(session: OrganizationSession, journey_id: UUID, changes: Mapping[str, Any]) -> Journey:
    """Its `owner_id` and `brake` are as given, those that are named."""
    return await _update(session, journey_id, **changes)


async def set_archived(session: OrganizationSession, journey_id: UUID, archived_at: datetime | None) -> Journey:
    """The flag is as given: an archived journey takes no new runs, campaigns or versions; its runs go on."""
    return await _update(session, journey_id, archived_at=archived_at)


async def _update(session: OrganizationSession, journey_id: UUID, **values: Any) -> Journey:
    statement = (
        update(Journey)
        .where(col(Journey.organization_id) == session.organization_id, col(Journey.id) == journey_id)
        .values(**values, updated_at=func.now())
        .returning(Journey)
        .execution_options(populate_existing=True)
    )
    changed = (await session.execute(statement)).scalar_one_or_none()
    if changed is None:
        raise NotFound("journey", journey_id)
    return changed
