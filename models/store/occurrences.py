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
from models.tables.journeys import Campaign, JourneyVersion

PAUSED: Final = "campaign_paused"
ARCHIVED: Final = "journey_archived"
_COMPLETE = text(
    """
    UPDATE campaigns SET status = 'completed', started_at = coalesce(started_at, now()), finished_at = now()
    WHERE organization_id = :o AND id = :id AND status = 'scheduled' AND finished_at IS NULL RETURNING id
    """
)
_WAITING = text(
    """
    SELECT max(nominal_at) FROM campaigns
    WHERE organization_id = :o AND parent_id = :id AND audience IS NULL AND cancelled_at IS NULL AND finished_at IS NULL
    """
)


async def make(session: OrganizationSession, parent_id: UUID, scheduled_at: datetime, now: datetime) -> list[Campaign]:
    """The occurrences of a recurring campaign on the day that begins at `scheduled_at` exist: campaigns that start at their moments,
    with the parent's version, rules and spread. Left out, on record, is what was missed for too long or comes after the journey's end; a
    parent that is cancelled has none. Those of one that is paused are paused with it: whether the pause is over by then, or the journey
    restored, is known when they are due.

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
    """A code; None: it may take place."""
    if nominal_at < missed_before:
        return "missed"
    query = select(col(JourneyVersion.definition)).where(
        col(JourneyVersion.organization_id) == session.organization_id, col(JourneyVersion.id) == parent.version_id
    )
    definition = (await session.execute(query)).scalar_one()
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
        "status": "scheduled" if parent.paused_at is None else "paused",
        "paused_at": parent.paused_at,  # by which a resume knows it
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
    waiting = await session.scalar(_WAITING, {"o": session.organization_id, "id": parent.id})
    if waiting is not None and next(schedule.next_after(waiting, parent.created_at), None) is None:
        return False  # the last one has still to begin, and ends it then
    return await session.scalar(_COMPLETE, {"o": session.organization_id, "id": parent.id}) is not None


async def complete_if_over(session: OrganizationSession, parent_id: UUID, after: datetime) -> list[NewEntry]:
    """A recurring campaign of which nothing comes later than `after` is completed; the audit entries of that. Safe to repeat."""
    return [_completed(parent_id)] if await _is_over(session, await _locked(session, parent_id), after) else []


_VOID = text(
    """
    UPDATE campaigns SET schedule = jsonb_set(schedule, '{void_until}', to_jsonb(
      greatest(CAST(schedule ->> 'void_until' AS timestamptz), coalesce(CAST(:until AS timestamptz), clock_timestamp()))))
    WHERE organization_id = :o AND id = :id AND schedule #>> '{schedule,kind}' = 'recurring'
    """
)


async def void(session: OrganizationSession, parent_id: UUID, until: datetime | None = None) -> None:
    """Of the recurring campaign nothing takes place that was due up to now (or `until`) and has not begun: it stood still. Safe to
    repeat. Locks the parent: call it before an occurrence is locked."""
    await session.execute(_VOID, {"o": session.organization_id, "id": parent_id, "until": until})


_VOID_OF_JOURNEY = text(
    """
    UPDATE campaigns SET schedule = jsonb_set(schedule, '{void_until}', to_jsonb(
      greatest(CAST(schedule ->> 'void_until' AS timestamptz), clock_timestamp())))
    WHERE organization_id = :o AND id = ANY(ARRAY(
      SELECT id FROM campaigns WHERE organization_id = :o AND journey_id = :journey_id AND finished_at IS NULL
        AND schedule #>> '{schedule,kind}' = 'recurring' ORDER BY id FOR NO KEY UPDATE))
    """
)


async def void_of_journey(session: OrganizationSession, journey_id: UUID) -> None:
    """As `void`, of every recurring campaign of the journey: it was archived."""
    await session.execute(_VOID_OF_JOURNEY, {"o": session.organization_id, "journey_id": journey_id})


_PARENT = text(
    """
    SELECT p.id, p.paused_at, p.schedule, c.nominal_at, j.archived_at
    FROM campaigns c JOIN campaigns p ON p.organization_id = :o AND p.id = c.parent_id
    JOIN journeys j ON j.organization_id = :o AND j.id = p.journey_id
    WHERE c.organization_id = :o AND c.id = :id FOR NO KEY UPDATE OF p
    """
)


@dataclass(frozen=True)
class Parent:
    """Of an occurrence that is about to start. `stands`: why nothing of it starts now, a code."""

    id: UUID
    stands: str | None
    nominal_at: datetime
    void_until: datetime | None

    def void_at(self, now: datetime) -> datetime | None:
        """Up to when what was due does not take place, seen at `now`."""
        return self.void_until if self.stands is None else now


async def lock_parent(session: OrganizationSession, campaign_id: UUID) -> Parent | None:
    """The recurring campaign that this one is an occurrence of stands still until this transaction ends; None: it is none. Before
    the campaign itself is locked: a pause locks them in this order."""
    found = (await session.execute(_PARENT, {"o": session.organization_id, "id": campaign_id})).one_or_none()
    if found is None:
        return None
    stands = PAUSED if found.paused_at is not None else ARCHIVED if found.archived_at is not None else None
    return Parent(found.id, stands, found.nominal_at, read_timing(found.schedule).void_until)
