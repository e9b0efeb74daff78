"""Campaigns: a published version, an audience, and how far it has come."""

from collections.abc import Sequence
from datetime import timedelta
from typing import Any, Final
from uuid import UUID

from sqlalchemy import ColumnElement, func, select, text, update
from sqlmodel import col

from models.domain.errors import NotFound
from models.store.segment_sql import CompiledRule, compile_rule
from models.store.session import OrganizationSession
from models.tables.base import utc_now
from models.tables.contacts import Segment
from models.tables.journeys import Campaign

SAME_LAUNCH: Final = timedelta(minutes=10)  # how long a launch without Idempotency-Key is taken for the one before


async def create(
    session: OrganizationSession,
    *,
    name: str,
    journey_id: UUID,
    version_id: UUID,
    segment_id: UUID | None,
    segment_rule: dict[str, Any] | None,
    page_size: int,
    created_by: UUID | None,
    request_id: UUID | None,
) -> Campaign:
    """A campaign exists with status `starting`: its workflow may be started. No audience has been taken yet."""
    campaign = Campaign(
        organization_id=session.organization_id,
        name=name,
        journey_id=journey_id,
        version_id=version_id,
        segment_id=segment_id,
        segment_rule=segment_rule,
        page_size=page_size,
        created_by=created_by,
        request_id=request_id,
    )
    session.add(campaign)
    await session.flush()
    return campaign


async def find_same_launch(
    session: OrganizationSession, request_id: UUID | None, name: str, version_id: UUID, segment_id: UUID | None
) -> Campaign | None:
    """The campaign that this request has made before: the one with its request id or, for a request without
    Idempotency-Key, one of the same name, version and segment that was made within `SAME_LAUNCH` (by the database's
    clock) and not cancelled. A lost answer says nothing about how far the campaign has come meanwhile."""
    if request_id is not None:
        same = col(Campaign.request_id) == request_id
    else:
        same_segment = col(Campaign.segment_id).is_(None) if segment_id is None else col(Campaign.segment_id) == segment_id
        same = (
            (col(Campaign.created_at) > func.now() - SAME_LAUNCH)
            & (col(Campaign.status) != "cancelled")
            & (col(Campaign.name) == name)
            & (col(Campaign.version_id) == version_id)
            & same_segment
        )
    statement = select(Campaign).where(_mine(session), same).order_by(col(Campaign.id)).limit(1)
    return (await session.execute(statement)).scalar_one_or_none()


async def segment_rule(session: OrganizationSession, segment_id: UUID) -> dict[str, Any] | None:
    """The segment's rule as it is now, or None when there is no such segment."""
    statement = select(col(Segment.rule)).where(col(Segment.organization_id) == session.organization_id, col(Segment.id) == segment_id)
    return (await session.execute(statement)).scalar_one_or_none()


async def has_audience(session: OrganizationSession, rule: dict[str, Any] | None) -> bool:
    """Whether the rule selects any contact now; None: whether there is any."""
    compiled = CompiledRule("true", {}) if rule is None else compile_rule(rule, utc_now())
    query = f"SELECT EXISTS (SELECT 1 FROM contacts c WHERE c.organization_id = :organization_id AND ({compiled.sql}))"
    found: bool = (await session.execute(text(query), {"organization_id": session.organization_id, **compiled.parameters})).scalar_one()
    return found


async def get(session: OrganizationSession, campaign_id: UUID, *, lock: bool = False) -> Campaign:
    """The campaign; with `lock`, its status stands still until this transaction ends.

    Raises:
        NotFound: no such campaign in this organization.
    """
    statement = select(Campaign).where(_mine(session), col(Campaign.id) == campaign_id)
    if lock:
        statement = statement.with_for_update(key_share=True)
    found = (await session.execute(statement)).scalar_one_or_none()
    if found is None:
        raise NotFound("campaign", campaign_id)
    return found


async def page(
    session: OrganizationSession, limit: int, after: UUID | None, journey_id: UUID | None = None, status: str | None = None
) -> Sequence[Campaign]:
    """Up to `limit` campaigns, oldest first, beginning after the id `after`."""
    statement = select(Campaign).where(_mine(session))
    if after is not None:
        statement = statement.where(col(Campaign.id) > after)
    if journey_id is not None:
        statement = statement.where(col(Campaign.journey_id) == journey_id)
    if status is not None:
        statement = statement.where(col(Campaign.status) == status)
    return (await session.execute(statement.order_by(col(Campaign.id)).limit(limit))).scalars().all()


async def pause(session: OrganizationSession, campaign_id: UUID) -> Campaign:
    """Paused: from the commit on, the last check before a send holds every run of the campaign."""
    return await _update(session, campaign_id, status="paused", paused_at=func.now())


async def count_pause(session: OrganizationSession, campaign_id: UUID) -> Campaign:
    """One more pause was said; a resume that was said before does not lift it."""
    return await _update(session, campaign_id, pauses=Campaign.pauses + 1)


async def cancel(session: OrganizationSession, campaign_id: UUID) -> Campaign:
    """Cancelled: from the commit on, the last check before a send stops every run of the campaign."""
    return await _update(session, campaign_id, status="cancelled", cancelled_at=func.now())


async def cancel_all(session: OrganizationSession, journey_id: UUID) -> list[UUID]:
    """The journey's campaigns that have not ended are cancelled, as by `cancel`. Gives their ids."""
    statement = (
        update(Campaign)
        .where(
            _mine(session),
            col(Campaign.journey_id) == journey_id,
            col(Campaign.cancelled_at).is_(None),
            col(Campaign.finished_at).is_(None),
        )
        .values(status="cancelled", cancelled_at=func.now())
        .returning(col(Campaign.id))
    )
    return sorted((await session.execute(statement)).scalars())


async def _update(session: OrganizationSession, campaign_id: UUID, **values: Any) -> Campaign:
    statement = (
        update(Campaign)
        .where(_mine(session), col(Campaign.id) == campaign_id)
        .values(**values)
        .returning(Campaign)
        .execution_options(populate_existing=True)
    )
    return (await session.execute(statement)).scalar_one()


def _mine(session: OrganizationSession) -> ColumnElement[bool]:
    return col(Campaign.organization_id) == session.organization_id
