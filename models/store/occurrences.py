"""A recurring campaign's occurrences: each is a campaign of its own, whose parent it is."""

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final
from uuid import UUID

from sqlalchemy import select, text
from sqlalchemy.dialects.postgresql import insert
from sqlmodel import col

from models.domain.audit import NewEntry
from models.domain.errors import NotFound
from models.domain.journey.definition import Definition
from models.domain.schedule import Recurring, Timing, read_timing, stored
from models.store import audit
from models.store.session import OrganizationSession
from models.tables.base import new_id
from models.tables.journeys import Campaign, Journey, JourneyVersion

PAUSED: Final = "campaign_paused"
_COMPLETE = text(
    """
    UPDATE campaigns SET status = 'completed', started_at = coalesce(started_at, now()), finished_at = now()
    WHERE organization_id = :o AND id = :id AND status = 'scheduled' AND finished_at IS NULL RETURNING id
    """
)


async def make(session: OrganizationSession, parent_id: UUID, scheduled_at: datetime, now: datetime) -> list[Campaign]:
    """The occurrences of a recurring campaign on the day that begins at `scheduled_at` exist: campaigns that start at their moments,
    with the parent's version, rules and spread. Left out, on record, is what was missed for too long, and everything of a parent
    that is paused or a journey that takes nobody; a parent that is cancelled has none.

    Safe to repeat: (parent, nominal time) is unique. Appends to the audit chain: call it last in a transaction.

    Raises:
        NotFound: no such campaign.
    """
    parent = await _locked(session, parent_id)
    timing = read_timing(parent.schedule)
    assert isinstance(timing.schedule, Recurring)
    if parent.cancelled_at is not None:
        return []
    day = timing.schedule.day_of(scheduled_at, parent.created_at)
    made, entries = [], []
    for nominal_at in timing.schedule.on(day, parent.created_at):
        reason = await _why_not(session, parent, nominal_at, now - timing.schedule.missed_after)
        if reason is None:
            occurrence = Timing(schedule=timing.schedule.occurrence(nominal_at), spread=timing.spread)
            campaign, new = await _find_or_make(session, parent, occurrence, nominal_at)
            made.append(campaign)
            entries += [_launched(campaign)] if new else []
        else:
            entries.append(skipped(parent_id, nominal_at, reason))
    if not made and await _is_over(session, parent, now):
        entries.append(_completed(parent_id))
    await audit.append(session, entries)
    return made


def _launched(campaign: Campaign) -> NewEntry:
    assert campaign.nominal_at is not None
    details = {
        "parent_id": str(campaign.parent_id),
        "nominal_at": campaign.nominal_at.astimezone(UTC).isoformat(),
        "version_id": str(campaign.version_id),
    }
    return NewEntry("campaign.launched", "campaign", str(campaign.id), details=details)


def skipped(parent_id: UUID, nominal_at: datetime, reason: str) -> NewEntry:
    """An occurrence does not take place."""
    details = {"nominal_at": nominal_at.astimezone(UTC).isoformat(), "reason": reason}
    return NewEntry("campaign.occurrence_skipped", "campaign", str(parent_id), details=details)


def _completed(parent_id: UUID) -> NewEntry:
    return NewEntry("campaign.completed", "campaign", str(parent_id))


async def _locked(session: OrganizationSession, parent_id: UUID) -> Campaign:
    """A pause or cancellation comes before or after, never in between."""
    query = select(Campaign).where(col(Campaign.organization_id) == session.organization_id, col(Campaign.id) == parent_id)
    found = (await session.execute(query.with_for_update(key_share=True))).scalar_one_or_none()
    if found is None:
        raise NotFound("campaign", parent_id)
    return found


async def _why_not(session: OrganizationSession, parent: Campaign, nominal_at: datetime, missed_before: datetime) -> str | None:
    """A code; None: it takes place."""
    if parent.paused_at is not None:
        return PAUSED
    if nominal_at < missed_before:
        return "missed"
    query = (
        select(col(Journey.archived_at), col(JourneyVersion.definition))
        .join(JourneyVersion, col(JourneyVersion.journey_id) == col(Journey.id))
        .where(col(Journey.organization_id) == session.organization_id, col(JourneyVersion.id) == parent.version_id)
    )
    archived_at, definition = (await session.execute(query)).one()
    if archived_at is not None:
        return "journey_archived"
    return "journey_ended" if Definition.model_validate(definition).has_ended(nominal_at) else None


async def _find_or_make(session: OrganizationSession, parent: Campaign, timing: Timing, nominal_at: datetime) -> tuple[Campaign, bool]:
    """The occurrence, and whether it is new."""
    values = {
        "id": new_id(),
        "organization_id": session.organization_id,
        "name": parent.name,
        "journey_id": parent.journey_id,
        "version_id": parent.version_id,
        "segment_id": parent.segment_id,
        "segment_rule": parent.segment_rule,
        "exclusion_rule": parent.exclusion_rule,
        "schedule": stored(timing),
        "page_size": parent.page_size,
        "on_error": parent.on_error,
        "parent_id": parent.id,
        "nominal_at": nominal_at,
        "status": "scheduled",
        "created_by": parent.created_by,
    }
    made = (await session.scalars(insert(Campaign).values(**values).on_conflict_do_nothing().returning(Campaign))).one_or_none()
    if made is not None:
        return made, True
    query = select(Campaign).where(
        col(Campaign.organization_id) == session.organization_id,
        col(Campaign.parent_id) == parent.id,
        col(Campaign.nominal_at) == nominal_at,
    )
    return (await session.scalars(query)).one(), False


async def _is_over(session: OrganizationSession, parent: Campaign, after: datetime) -> bool:
    """Whether nothing comes later than `after`; then, once, the recurring campaign is completed."""
    schedule = read_timing(parent.schedule).schedule
    if not isinstance(schedule, Recurring) or next(schedule.next_after(after, parent.created_at), None) is not None:
        return False
    return await session.scalar(_COMPLETE, {"o": session.organization_id, "id": parent.id}) is not None


async def complete_if_over(session: OrganizationSession, parent_id: UUID, after: datetime) -> list[NewEntry]:
    """A recurring campaign of which nothing comes later than `after` is completed; the audit entries of that. Safe to repeat."""
    return [_completed(parent_id)] if await _is_over(session, await _locked(session, parent_id), after) else []


_PARENT = text(
    """
    SELECT p.id, p.paused_at, c.nominal_at FROM campaigns c JOIN campaigns p ON p.organization_id = :o AND p.id = c.parent_id
    WHERE c.organization_id = :o AND c.id = :id FOR NO KEY UPDATE OF p
    """
)


@dataclass(frozen=True)
class Parent:
    """Of an occurrence that is about to start."""

    id: UUID
    paused: bool
    nominal_at: datetime


async def lock_parent(session: OrganizationSession, campaign_id: UUID) -> Parent | None:
    """The recurring campaign that this one is an occurrence of stands still until this transaction ends; None: it is none. Before
    the campaign itself is locked: a pause locks them in this order."""
    found = (await session.execute(_PARENT, {"o": session.organization_id, "id": campaign_id})).one_or_none()
    return None if found is None else Parent(found.id, found.paused_at is not None, found.nominal_at)
