"""What a campaign would do if it were launched now. Writes nothing."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from itertools import islice
from uuid import UUID

from api.commands import campaigns as commands
from api.commands.runs import published_version
from api.dependencies import Caller
from models.domain.errors import Invalid, NotFound, Problem
from models.domain.journey.definition import Definition
from models.domain.schedule import NEXT_SHOWN, AtLocalTime, Recurring, Start, Timing, common_start, local_starts, require_ahead, warnings
from models.store import campaign_previews, journeys, selection
from models.store.campaign_previews import Crowd
from models.store.selection import AudienceQuery
from models.tables.base import utc_now
from models.tables.contacts import Contact


@dataclass(frozen=True)
class Asked:
    """As for a launch. `sample`: how many contacts to show."""

    journey_id: UUID
    version: int | None
    segment_id: UUID | None
    exclude_segment_ids: Sequence[UUID]
    timing: Timing
    sample: int


@dataclass(frozen=True)
class StartGroup:
    """Contacts whose runs start together. `at` None: at once. The zone is None where all start together."""

    zone: str | None
    zone_of: str | None
    at: datetime | None
    late: bool
    contacts: int


@dataclass(frozen=True)
class Preview:
    """`count` of those who are taken; of them, those `without_zone` and `with_invalid_zone` go by another's clock."""

    count: int
    left_out: Mapping[str, int]
    starts: Sequence[StartGroup]
    without_zone: int
    with_invalid_zone: int
    next_at: Sequence[datetime]
    warnings: Sequence[Problem]
    sample: Sequence[Contact]


async def preview(caller: Caller, asked: Asked) -> Preview:
    """How many contacts would be taken, when each starts, and who would be left out.

    Raises:
        Invalid: no such journey, version or segment, or a schedule that has passed.
        Conflict: the journey has never been published.
    """
    now, timing = utc_now(), asked.timing
    async with caller.session() as session:
        try:
            await journeys.get(session, asked.journey_id)
        except NotFound:
            raise Invalid.field("journey_id", "unknown_journey", "There is no journey with this id.") from None
        version = await published_version(session, asked.journey_id, asked.version)
        require_ahead(timing, now)
        rule, exclusion = await commands.rules(session, asked.segment_id, asked.exclude_segment_ids)
        definition = Definition.model_validate(version.definition)
        chosen = selection.select(AudienceQuery(asked.journey_id, definition, rule, exclusion, now))
        crowd = await campaign_previews.crowd(session, chosen)
        starts = _starts(timing, crowd, now)
        passed = [timezone for timezone, start in starts.items() if start.passed]
        sample = await campaign_previews.sample(session, chosen, passed, asked.sample)
    told = _told(timing, crowd, starts, now, sample)
    too_many = commands.crowding(told.count, definition.entry.per_hour, timing)
    return told if too_many is None else replace(told, warnings=[*told.warnings, too_many])


def _starts(timing: Timing, crowd: Crowd, now: datetime) -> dict[str, Start]:
    if not isinstance(timing.schedule, AtLocalTime):
        return {}
    return local_starts(timing.schedule, {group.timezone for group in crowd.groups}, crowd.organization_timezone, now, now)


def _told(timing: Timing, crowd: Crowd, starts: Mapping[str, Start], now: datetime, sample: Sequence[Contact]) -> Preview:
    left_out: Counter[str] = Counter()
    taken: Counter[str] = Counter()
    for group in crowd.groups:
        start = starts.get(group.timezone)
        reason = group.why_not or (selection.PASSED if start is not None and start.passed else None)
        if reason is None:
            taken[group.timezone] += group.contacts
        else:
            left_out[reason] += group.contacts
    schedule = timing.schedule
    return Preview(
        count=taken.total(),
        left_out=left_out,
        starts=_groups(timing, starts, taken, now),
        without_zone=sum(taken[each] for each, start in starts.items() if start.contact_zone == "missing"),
        with_invalid_zone=sum(taken[each] for each, start in starts.items() if start.contact_zone == "invalid"),
        next_at=list(islice(schedule.next_after(now, now), NEXT_SHOWN)) if isinstance(schedule, Recurring) else [],
        warnings=[*warnings(timing, now), *_warnings(taken, starts)],
        sample=sample,
    )


def _groups(timing: Timing, starts: Mapping[str, Start], taken: Counter[str], now: datetime) -> list[StartGroup]:
    """By zone where that matters, the earliest first."""
    if isinstance(timing.schedule, Recurring):
        return []
    if not isinstance(timing.schedule, AtLocalTime):
        return [StartGroup(None, None, common_start(timing, now), False, taken.total())] if taken.total() else []
    found: Counter[tuple[datetime | None, str, str, bool]] = Counter()
    for timezone, contacts in taken.items():
        start = starts[timezone]
        found[start.at, start.zone, start.zone_of, start.late] += contacts
    ordered = sorted(found.items(), key=lambda pair: (pair[0][0] or now, pair[0][1], pair[0][2]))
    return [StartGroup(zone, zone_of, at, late, contacts) for (at, zone, zone_of, late), contacts in ordered]


def _warnings(taken: Counter[str], starts: Mapping[str, Start]) -> Iterator[Problem]:
    if not taken.total():
        yield Problem("segment_id", "empty_audience", "Nobody would be taken now.")
    skipped = sorted({starts[each].zone for each in taken if each in starts and starts[each].skipped})
    if skipped:
        message = f"Daylight saving skips this time in {', '.join(skipped[:3])}; contacts there start at the first minute after."
        yield Problem("schedule.at", "skipped_hour", message)
