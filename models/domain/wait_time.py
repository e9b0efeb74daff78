"""When a wait ends that depends on the contact: the next local time of day, or a date that the contact or run carries. Pure.

All instants are aware UTC.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta
from math import ceil
from typing import Any
from zoneinfo import ZoneInfo

from models.domain.journey.steps.wait import WEEKDAYS, UntilDate, UntilTime, WaitStep
from models.domain.quiet_hours import ChosenZone, choose_zone
from models.domain.segment_values import DATE, moved, parse_moment

SHARED_INSTANT = 5  # seconds: retries are moved to a common instant, so that the runs of a batch share one timer
DAYS_AHEAD = 15  # a weekday comes again within seven; a skipped day (the date line) or two more


@dataclass(frozen=True)
class Place:
    """Where the contact is, as they say, and where the organization is."""

    contact_timezone: str | None
    organization_timezone: str

    def zone(self, default: str | None) -> ChosenZone:
        """The contact's zone where it has a valid one, otherwise the step's default, otherwise the organization's."""
        return choose_zone(self.contact_timezone, default or self.organization_timezone)


@dataclass(frozen=True)
class Plan:
    """`until` None: there is no such time, because of `reason`. `details` say by which zone."""

    until: datetime | None
    reason: str | None = None
    details: dict[str, Any] = field(default_factory=dict)


def plan(step: WaitStep, place: Place, value: Any, now: datetime) -> Plan:
    """When the run wakes. `value` is what the date's field holds now (None: nothing)."""
    if step.until is not None:
        zone = place.zone(step.until.default_zone)
        return Plan(next_local_time(now, step.until, zone.zone), details=_zone_details(zone))
    assert step.date is not None
    zone = place.zone(step.date.default_zone)
    moment = date_moment(step.date, value, zone.zone)
    if moment is None:
        return Plan(None, "no_date", _zone_details(zone))
    if moment <= now:
        return Plan(None, "date_passed", {**_zone_details(zone), "date": moment.isoformat()})
    return Plan(moment, details=_zone_details(zone))


def next_local_time(now: datetime, until: UntilTime, zone: ZoneInfo) -> datetime:
    """The first instant after `now` at which the clock at the place reads `until.time` on one of its weekdays.

    A time that daylight saving skips is read where the clock lands; one that it repeats counts the first time.
    """
    return min(moment for moment in _local_times(now, until, zone) if moment > now)


def _local_times(now: datetime, until: UntilTime, zone: ZoneInfo) -> Iterator[datetime]:
    today, at = now.astimezone(zone).date(), time.fromisoformat(until.time)
    for days in range(DAYS_AHEAD):
        day = today + timedelta(days=days)
        if WEEKDAYS[day.weekday()] in until.weekdays:
            yield local_instant(day, at, zone)


def local_instant(day: date, at: time, zone: ZoneInfo) -> datetime:
    """When the clock at the place first reads this; where it never does, the first instant after the gap."""
    moment = datetime.combine(day, at, zone)
    instant = moment.astimezone(UTC)
    if instant.astimezone(zone).replace(tzinfo=None) == moment.replace(tzinfo=None):
        return instant
    # In a gap, fold 0 is read with the offset before it, which lands as far behind the gap as the time lies in it.
    before, after = moment.replace(fold=1).astimezone(UTC), instant
    while after - before > timedelta(seconds=1):
        middle = (before + (after - before) / 2).replace(microsecond=0)
        if middle in (before, after):
            break
        if middle.astimezone(zone).utcoffset() == after.astimezone(zone).utcoffset():
            after = middle
        else:
            before = middle
    return after


def date_moment(wanted: UntilDate, value: Any, zone: ZoneInfo) -> datetime | None:
    """The moment that the field's value means, moved by the offset; None when it means none. Never raises, whatever the value: what
    would lie beyond the calendar's ends is the end, and so has passed, or is as far ahead as can be."""
    moment = parse_moment(value) if isinstance(value, str) else None
    if moment is None:
        return None
    dated = re.match(DATE, value) is not None
    if not dated and wanted.time is None:
        return moved(moment, wanted.offset)
    days, rest = divmod(wanted.offset, timedelta(days=1))
    try:
        day = date.fromisoformat(value) if dated else moment.astimezone(zone).date()
        return local_instant(day + timedelta(days=days), time.fromisoformat(wanted.time or "00:00"), zone) + rest
    except (ValueError, OverflowError):  # within a day or so of the calendar's ends there is no clock at the place
        return moved(moment, wanted.offset)


def shared_instant(at: datetime) -> datetime:
    """The first common instant at or after `at` (aware)."""
    return datetime.fromtimestamp(ceil(at.timestamp() / SHARED_INSTANT) * SHARED_INSTANT, at.tzinfo)


def _zone_details(zone: ChosenZone) -> dict[str, Any]:
    return {"zone": zone.zone.key, "zone_of": zone.used, "contact_zone": zone.contact_zone}
