"""Quiet hours: when a message may leave, judged by the wall clock where the contact is. Pure."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from typing import Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from models.domain.errors import Invalid


class NeverAllowed(Exception):
    """The window covers the whole day: no moment is ever permitted."""


@dataclass(frozen=True)
class QuietHours:
    """Nothing leaves from `start` up to, but not including, `end`, by the contact's wall clock.

    `end` before `start` crosses midnight (21:00-08:00); equal times cover the whole day.
    """

    start: time
    end: time

    def covers(self, wall: time) -> bool:
        if self.start < self.end:
            return self.start <= wall < self.end
        return wall >= self.start or wall < self.end


@dataclass(frozen=True)
class ChosenZone:
    """The zone a contact's hours are judged in, and whose it is: `used` is contact, organization or utc."""

    zone: ZoneInfo
    used: str
    contact_zone: str  # given | missing | invalid


def read_window(quiet_hours: Mapping[str, Any], channel: str) -> QuietHours | None:
    """The organization's window for a channel, from `{"email": {"start": "21:00", "end": "08:00"}}`; None: no quiet hours.

    Raises:
        Invalid: a time is malformed.
    """
    window = quiet_hours.get(channel)
    if not window:
        return None
    return QuietHours(*(_read_time(window, channel, name) for name in ("start", "end")))


def _read_time(window: Mapping[str, Any], channel: str, name: str) -> time:
    try:
        return time.fromisoformat(window[name])
    except (KeyError, TypeError, ValueError) as error:
        raise Invalid.field(f"quiet_hours.{channel}.{name}", "invalid_time", "Give a local time such as 21:00.") from error


def choose_zone(contact_timezone: str | None, organization_timezone: str) -> ChosenZone:
    """The contact's zone where it has a valid one, otherwise the organization's, otherwise UTC."""
    contact = _zone(contact_timezone)
    if contact is not None:
        return ChosenZone(contact, "contact", "given")
    why = "invalid" if contact_timezone else "missing"
    organization = _zone(organization_timezone)
    if organization is not None:
        return ChosenZone(organization, "organization", why)
    return ChosenZone(ZoneInfo("UTC"), "utc", why)


def _zone(name: str | None) -> ZoneInfo | None:
    if not name:
        return None
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):  # OSError: a directory of zones, such as "America"
        return None


def next_allowed(at: datetime, window: QuietHours, zone: ZoneInfo) -> datetime:
    """Earliest moment at or after `at` when this contact may be messaged.

    `at` and the result are aware UTC. The wall clock decides: an hour that daylight saving skips counts as passed, and
    one that it repeats is judged both times.

    Raises:
        NeverAllowed: the window covers the whole day.
    """
    if window.start == window.end:
        raise NeverAllowed(f"quiet hours from {window.start} to {window.end} never end")
    at = at.astimezone(UTC)
    if not window.covers(_wall(at, zone)):
        return at
    # A quiet stretch ends where the wall clock reads `end`, or where the clock jumps over it or back before `start`.
    ends = (moment for moment in _candidates(at, window, zone) if moment > at and not window.covers(_wall(moment, zone)))
    return min(ends)


def allowed_until(at: datetime, window: QuietHours, zone: ZoneInfo) -> datetime:
    """When the permitted hours around the permitted moment `at` end. Aware UTC, like `at`.

    Raises:
        NeverAllowed: the window covers the whole day.
    """
    return next_allowed(at, QuietHours(window.end, window.start), zone)  # what is quiet and what is not, exchanged


def _wall(moment: datetime, zone: ZoneInfo) -> time:
    return moment.astimezone(zone).time()


def _candidates(at: datetime, window: QuietHours, zone: ZoneInfo) -> Iterator[datetime]:
    today = at.astimezone(zone).date()
    for days in range(4):  # the date line has swallowed a whole day (Samoa, 2011-12-30)
        yield from _moments(today + timedelta(days=days), window.end, zone)
        earlier = at + timedelta(days=days)
        if earlier.astimezone(zone).utcoffset() != (earlier + timedelta(days=1)).astimezone(zone).utcoffset():
            yield _change(earlier, earlier + timedelta(days=1), zone)


def _moments(day: date, wall: time, zone: ZoneInfo) -> Iterator[datetime]:
    """Both readings of a wall-clock time, which differ only where the clock goes back (or jumps)."""
    for fold in (0, 1):
        yield datetime.combine(day, wall, zone).replace(fold=fold).astimezone(UTC)


def _change(before: datetime, after: datetime, zone: ZoneInfo) -> datetime:
    """The first whole second in (before, after] with the offset of `after`."""
    new = after.astimezone(zone).utcoffset()
    low, high = before.replace(microsecond=0), after.replace(microsecond=0)
    while high - low > timedelta(seconds=1):
        middle = (low + (high - low) / 2).replace(microsecond=0)
        if middle.astimezone(zone).utcoffset() == new:
            high = middle
        else:
            low = middle
    return high
