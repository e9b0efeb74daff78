"""A recurring campaign's occurrences: each is a campaign of its own, whose parent it is."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final
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

LOOKED_BACK: Final = timedelta(days=7)  # for occurrences that nobody has made
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
    schedule = _recurring(parent.schedule)
    if parent.cancelled_at is not None:
        return []
    day = schedule.day_of(scheduled_at, parent.created_at)
    return await _make(session, parent, schedule, schedule.on(day, parent.created_at), now)


async def _make(
    session: OrganizationSession, parent: Campaign, schedule: Recurring, moments: Sequence[datetime], now: datetime
) -> list[Campaign]:
    """Those of the moments that may take place are campaigns, and of these the unfinished ones are answered; the others are on record."""
    made, entries = [], []
    there, told = await _there(session, parent.id, moments), await _on_record(session, parent.id)
    for nominal_at in moments:
        if nominal_at in there:
            made += [there[nominal_at]] if there[nominal_at].finished_at is None else []
            continue
        reason = await _why_not(session, parent, nominal_at, now - schedule.missed_after)
        if reason is None:
            occurrence = Timing(schedule=schedule.occurrence(nominal_at), spread=read_timing(parent.schedule).spread)
            made.append(await _add(session, parent, occurrence, nominal_at))
            entries.append(_launched(made[-1]))
        elif nominal_at not in told:
            entries.append(skipped(parent.id, nominal_at, reason))
    if not made and await _is_over(session, parent, now):
        entries.append(_completed(parent.id))
    await audit.append(session, entries)
    return made


def _recurring(stored_schedule: Mapping[str, Any] | None) -> Recurring:
    schedule = read_timing(stored_schedule).schedule
    assert isinstance(schedule, Recurring)
    return schedule


async def _there(session: OrganizationSession, parent_id: UUID, moments: Sequence[datetime]) -> dict[datetime, Campaign]:
    """The occurrences that have been made, by their nominal times."""
    query = select(Campaign).where(
        col(Campaign.organization_id) == session.organization_id,
        col(Campaign.parent_id) == parent_id,
        col(Campaign.nominal_at).in_(moments),
    )
    return {one.nominal_at: one for one in await session.scalars(query) if one.nominal_at is not None}


_TOLD = text(
    """
    SELECT CAST(details ->> 'nominal_at' AS timestamptz) FROM audit_entries
    WHERE organization_id = :o AND subject_kind = 'campaign' AND subject_id = :id AND action = 'campaign.occurrence_skipped'
    """
)


async def _on_record(session: OrganizationSession, parent_id: UUID) -> set[datetime]:
    """When the occurrences were due of which the record says that they do not take place."""
    return set((await session.scalars(_TOLD, {"o": session.organization_id, "id": str(parent_id)})).all())


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


async def _add(session: OrganizationSession, parent: Campaign, timing: Timing, nominal_at: datetime) -> Campaign:
    """The occurrence. The parent is locked, so nobody else makes it meanwhile."""
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
    return (await session.scalars(insert(Campaign).values(**values).returning(Campaign))).one()


_RECURRING = text(
    """
    SELECT p.id, p.schedule, p.created_at, ARRAY(SELECT c.nominal_at FROM campaigns c
      WHERE c.organization_id = :o AND c.parent_id = p.id AND c.nominal_at > CAST(:since AS timestamptz)) AS made
    FROM campaigns p JOIN journeys j ON j.organization_id = :o AND j.id = p.journey_id
    WHERE p.organization_id = :o AND p.schedule #>> '{schedule,kind}' = 'recurring' AND p.finished_at IS NULL
      AND p.cancelled_at IS NULL AND p.paused_at IS NULL AND j.archived_at IS NULL AND (CAST(:id AS uuid) IS NULL OR p.id = :id)
    """
)


@dataclass(frozen=True)
class Recurrent:
    """A recurring campaign under way, and the nominal times of its occurrences that have been made of late."""

    id: UUID
    schedule: Mapping[str, Any]
    created_at: datetime
    made: Sequence[datetime]

    def unmade(self, begun_by: datetime, now: datetime) -> list[datetime]:
        """When the occurrences of the days that had begun by `begun_by` are, or were, due that nobody has made; those of more than
        `LOOKED_BACK` ago are forgotten, and what was due while the campaign stood still does not take place."""
        if self.created_at > begun_by:
            return []  # what starts it may still be on its way
        timing = read_timing(self.schedule)
        since = max(now - LOOKED_BACK, timing.void_until or now - LOOKED_BACK)
        found = _recurring(self.schedule).opened(since, begun_by, self.created_at)
        return [each for each in found if each not in self.made]


async def recurrent(session: OrganizationSession, now: datetime, campaign_id: UUID | None = None) -> list[Recurrent]:
    """The recurring campaigns under way, or the one. None is under way that is paused or whose journey is archived: whatever was due then
    does not take place."""
    wanted = {"o": session.organization_id, "since": now - LOOKED_BACK, "id": campaign_id}
    return [Recurrent(*row) for row in await session.execute(_RECURRING, wanted)]


async def make_unmade(session: OrganizationSession, parent_id: UUID, begun_by: datetime, now: datetime) -> list[Campaign]:
    """What nobody has made of the days that had begun by `begun_by` exists, as by `make`, or is on record. Whoever was to make it, a
    workflow of Temporal's schedule, may still come: it finds what is there. Safe to repeat. Appends to the audit chain: call it last in a
    transaction."""
    unmade = [each for one in await recurrent(session, now, parent_id) for each in one.unmade(begun_by, now)]
    told = await _on_record(session, parent_id) if unmade else set()
    moments = [each for each in unmade if each not in told]
    if not moments:
        return []
    parent = await _locked(session, parent_id)
    stands = parent.cancelled_at is not None or parent.paused_at is not None
    return [] if stands else await _make(session, parent, _recurring(parent.schedule), moments, now)


_UNCANCELLED = text(
    """
    SELECT id, journey_id FROM campaigns
    WHERE organization_id = :o AND schedule #>> '{schedule,kind}' = 'recurring' AND cancelled_at IS NULL
      AND (finished_at IS NULL OR finished_at > CAST(:since AS timestamptz))
    """
)
# By the campaigns' ids as they are written in the chain: beneath row-level security PostgreSQL uses no index for what it has to cast.
_MISSED = text(
    """
    SELECT a.subject_id, array_agg(a.nominal_at ORDER BY a.nominal_at) AS nominal_at
    FROM (
      SELECT e.subject_id, CAST(e.details ->> 'nominal_at' AS timestamptz) AS nominal_at FROM audit_entries e
      WHERE e.organization_id = :o AND e.subject_kind = 'campaign' AND e.subject_id = ANY(CAST(:ids AS text[]))
        AND e.action = 'campaign.occurrence_skipped' AND e.details ->> 'reason' = 'missed') a
    WHERE a.nominal_at > CAST(:since AS timestamptz)
    GROUP BY a.subject_id
    """
)


@dataclass(frozen=True)
class Missed:
    """Occurrences that were left out because they could not be started in time, and when they were due."""

    campaign_id: UUID
    journey_id: UUID
    nominal_at: Sequence[datetime]


async def missed(session: OrganizationSession, now: datetime) -> list[Missed]:
    """Those that were due within `LOOKED_BACK`, of each recurring campaign that has not been cancelled."""
    wanted = {"o": session.organization_id, "since": now - LOOKED_BACK}
    journeys = {str(row.id): row.journey_id for row in await session.execute(_UNCANCELLED, wanted)}
    if not journeys:
        return []
    rows = await session.execute(_MISSED, {**wanted, "ids": sorted(journeys)})
    return [Missed(UUID(row.subject_id), journeys[row.subject_id], row.nominal_at) for row in rows]


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
