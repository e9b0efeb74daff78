"""Campaigns: a published version, an audience, and how far it has come."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final
from uuid import UUID

from sqlalchemy import ColumnElement, func, literal, select, text, update
from sqlalchemy.dialects.postgresql import JSONB
from sqlmodel import col

from models.domain.errors import NotFound
from models.domain.schedule import Recurring as RecurringSchedule
from models.domain.schedule import Timing, read_timing, stored
from models.store.selection import Selection
from models.store.session import OrganizationSession
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
    exclusion_rule: dict[str, Any] | None,
    timing: Timing,
    audience_at: str,
    page_size: int,
    created_by: UUID | None,
    request_id: UUID | None,
    on_error: str = "park",
) -> Campaign:
    """A campaign exists, `scheduled` or `starting`: its workflow, or its Temporal schedule, may be started. No audience has been
    taken yet."""
    campaign = Campaign(
        organization_id=session.organization_id,
        name=name,
        journey_id=journey_id,
        version_id=version_id,
        segment_id=segment_id,
        segment_rule=segment_rule,
        exclusion_rule=exclusion_rule,
        schedule=stored(timing),
        audience_at=audience_at,
        status="scheduled" if timing.waits or timing.recurs else "starting",
        page_size=page_size,
        on_error=on_error,
        created_by=created_by,
        request_id=request_id,
    )
    session.add(campaign)
    await session.flush()
    return campaign


async def find_same_launch(
    session: OrganizationSession, request_id: UUID | None, name: str, version_id: UUID, segment_id: UUID | None, timing: Timing
) -> Campaign | None:
    """The campaign that this request has made before: the one with its request id or, for a request without
    Idempotency-Key, one of the same name, version, segment and schedule that was made within `SAME_LAUNCH` (by the database's
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
            & (func.coalesce(col(Campaign.schedule), _json(None)).op("@>")(_json(stored(timing))))  # beside it, what pauses left
            & col(Campaign.parent_id).is_(None)
        )
    statement = select(Campaign).where(_mine(session), same).order_by(col(Campaign.id)).limit(1)
    return (await session.execute(statement)).scalar_one_or_none()


def _json(value: Any) -> ColumnElement[Any]:
    return literal(value, JSONB)


async def segment_rules(session: OrganizationSession, segment_ids: Sequence[UUID]) -> dict[UUID, dict[str, Any]]:
    """The rules of those of the segments that exist, as they are now."""
    statement = select(col(Segment.id), col(Segment.rule)).where(
        col(Segment.organization_id) == session.organization_id, col(Segment.id).in_(segment_ids)
    )
    return {row.id: row.rule for row in await session.execute(statement)}


async def has_audience(session: OrganizationSession, chosen: Selection) -> bool:
    """Whether anybody would be taken now."""
    query = (
        f"SELECT EXISTS (SELECT 1 FROM contacts c WHERE c.organization_id = :o AND ({chosen.fitting.sql}) AND ({chosen.why_not}) IS NULL)"
    )
    found: bool = (await session.execute(text(query), {"o": session.organization_id, **chosen.parameters})).scalar_one()
    return found


async def audience_size(session: OrganizationSession, chosen: Selection) -> int:
    """How many would be taken now."""
    query = f"SELECT count(*) FROM contacts c WHERE c.organization_id = :o AND ({chosen.fitting.sql}) AND ({chosen.why_not}) IS NULL"
    found: int = (await session.execute(text(query), {"o": session.organization_id, **chosen.parameters})).scalar_one()
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
    session: OrganizationSession,
    limit: int,
    after: UUID | None,
    journey_id: UUID | None = None,
    status: str | None = None,
    parent_id: UUID | None = None,
) -> Sequence[Campaign]:
    """Up to `limit` campaigns, oldest first, beginning after the id `after`."""
    statement = select(Campaign).where(_mine(session))
    if after is not None:
        statement = statement.where(col(Campaign.id) > after)
    if journey_id is not None:
        statement = statement.where(col(Campaign.journey_id) == journey_id)
    if status is not None:
        statement = statement.where(col(Campaign.status) == status)
    if parent_id is not None:
        statement = statement.where(col(Campaign.parent_id) == parent_id)
    return (await session.execute(statement.order_by(col(Campaign.id)).limit(limit))).scalars().all()


async def unstarted(session: OrganizationSession, limit: int) -> Sequence[Campaign]:
    """Campaigns whose workflow, or Temporal schedule, is not known to exist; some by chance, where there are more than `limit`."""
    waiting = col(Campaign.status).in_(("starting", "scheduled")) & col(Campaign.planned_at).is_(None)
    return (await session.execute(select(Campaign).where(_mine(session), waiting).order_by(func.random()).limit(limit))).scalars().all()


@dataclass(frozen=True, slots=True)
class Unfinished:
    id: UUID
    journey_id: UUID
    version_id: UUID
    schedule: dict[str, Any] | None


async def unfinished(session: OrganizationSession) -> list[Unfinished]:
    """Campaigns that have a workflow until they are over. One that recurs has none: its occurrences are campaigns of their own."""
    query = """SELECT id, journey_id, version_id, schedule FROM campaigns
               WHERE organization_id = :o AND finished_at IS NULL AND schedule #>> '{schedule,kind}' IS DISTINCT FROM 'recurring'"""
    return [Unfinished(*row) for row in await session.execute(text(query), {"o": session.organization_id})]


@dataclass(frozen=True, slots=True)
class Recurring:
    id: UUID
    journey_id: UUID
    schedule: dict[str, Any]
    created_at: datetime

    def has_ended(self, now: datetime) -> bool:
        """Its rule is at its end: nothing is due after `now`."""
        schedule = read_timing(self.schedule).schedule
        end = schedule.ends_at(self.created_at) if isinstance(schedule, RecurringSchedule) else None
        return end is not None and end <= now


async def recurring(session: OrganizationSession, launched_before: datetime) -> list[Recurring]:
    """The recurring campaigns that are not over, paused ones too: each has a Temporal schedule."""
    query = """SELECT id, journey_id, schedule, created_at FROM campaigns
               WHERE organization_id = :o AND finished_at IS NULL AND cancelled_at IS NULL AND created_at < :before
                 AND schedule #>> '{schedule,kind}' = 'recurring'"""
    return [Recurring(*row) for row in await session.execute(text(query), {"o": session.organization_id, "before": launched_before})]


async def unplan(session: OrganizationSession, campaign_id: UUID) -> bool:
    """Its Temporal schedule does not exist, so that upkeep makes it; false: the campaign is over. Safe to repeat."""
    over = col(Campaign.finished_at).is_not(None) | col(Campaign.cancelled_at).is_not(None)
    statement = update(Campaign).where(_mine(session), col(Campaign.id) == campaign_id, ~over).values(planned_at=None)
    return (await session.execute(statement.returning(col(Campaign.id)))).first() is not None


async def planned(session: OrganizationSession, campaign_id: UUID) -> Campaign:
    """Its Temporal schedule exists."""
    return await _update(session, campaign_id, planned_at=func.now())


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
