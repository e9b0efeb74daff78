"""RFC 5545 recurrence rules, as far as they can be kept exactly: as calendars of days, and as moments. Pure.

A rule says all of itself: there is no DTSTART from which RFC 5545 would take what the rule leaves out. Only an INTERVAL counts from
one, the rule's `anchor`. Calendars are what Temporal's
schedules match (reference: temporalio.client.ScheduleCalendarSpec). Of a time that daylight saving skips there is no occurrence that
day (RFC 5545, 3.3.10), of one that it repeats there is one, the first time.
"""

import re
from calendar import isleap, monthrange
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from itertools import islice
from typing import Final
from zoneinfo import ZoneInfo

from models.domain.errors import Invalid, Problem

WEEKDAYS: Final = ("MO", "TU", "WE", "TH", "FR", "SA", "SU")  # as datetime.weekday() counts
MAX_LENGTH: Final = 500
MAX_COUNT: Final = 1_000
MAX_TIMES_A_DAY: Final = 24
_HORIZON: Final = timedelta(days=366 * 41)  # 29 February falls on each weekday within 40 years, also around 2100
_LAST_YEAR: Final = 2099  # Temporal's calendars end with 2100
_DATE = re.compile(r"[0-9]{8}")
_UTC = re.compile(r"[0-9]{8}T[0-9]{6}Z")
_BYDAY = re.compile(r"(?P<ordinal>[+-]?[1-5])?(?P<weekday>MO|TU|WE|TH|FR|SA|SU)")

Ordinal = int | None  # None: every such weekday; 1: the month's first; -1: its last


@dataclass(frozen=True)
class Calendar:
    """Every day whose fields are all named. Days of the week count from Monday, 0. No years: any."""

    months: tuple[int, ...]
    days: tuple[int, ...]
    weekdays: tuple[int, ...]
    years: tuple[int, ...] = ()

    def has(self, day: date) -> bool:
        in_year = not self.years or day.year in self.years
        return in_year and day.month in self.months and day.day in self.days and day.weekday() in self.weekdays


@dataclass(frozen=True)
class Rule:
    """A rule as read. `until`: the last moment, aware UTC, or the last day by the zone's calendar. `interval`: of its days, weeks (from
    Monday), months or years only every so many count, from the one with `anchor`, a day by the zone's calendar, on."""

    months: tuple[int, ...]
    month_days: tuple[int, ...]  # negative ones count from the month's end; none: any
    weekdays: tuple[tuple[Ordinal, int], ...]  # none: any
    hours: tuple[int, ...]
    minutes: tuple[int, ...]
    until: datetime | date | None = None
    count: int | None = None
    frequency: str = "DAILY"
    interval: int = 1
    anchor: date | None = None  # a rule with an interval has one before it is asked for days

    def has(self, day: date) -> bool:
        """Whether the calendars' day counts."""
        return self.interval == 1 or (self._period(day) - self._period(self.anchor or day)) % self.interval == 0

    def _period(self, day: date) -> int:
        """The number of the day's period, among all periods."""
        match self.frequency:
            case "WEEKLY":
                return (day.toordinal() - 1) // 7  # 1 January of the year 1 was a Monday
            case "MONTHLY":
                return day.year * 12 + day.month
            case "YEARLY":
                return day.year
        return day.toordinal()

    def calendars(self) -> list[Calendar]:
        """The days of the rule, as a union; without its end, and as if each of its periods counted."""
        counts_back = any(day < 0 for day in self.month_days) or any(ordinal is not None for ordinal, _ in self.weekdays)
        if not counts_back:
            weekdays = tuple(sorted({weekday for _, weekday in self.weekdays})) or _ALL_WEEKDAYS
            return [Calendar(self.months, self.month_days or _ALL_DAYS, weekdays)]
        return [calendar for length in _LENGTHS for calendar in self._in_months_of(length)]

    def _in_months_of(self, length: int) -> Iterator[Calendar]:
        """Months of one length have the same last days."""
        months = tuple(month for month in self.months if month in _LENGTHS[length][0])
        allowed = {day if day > 0 else length + 1 + day for day in self.month_days} if self.month_days else set(range(1, length + 1))
        plain = {weekday for ordinal, weekday in self.weekdays if ordinal is None}
        wanted: list[tuple[set[int], tuple[int, ...]]] = [(allowed, tuple(sorted(plain)))] if plain or not self.weekdays else []
        wanted += [(allowed & _week(ordinal, length), (weekday,)) for ordinal, weekday in self.weekdays if ordinal is not None]
        for days, weekdays in wanted:
            inside = tuple(sorted(day for day in days if 1 <= day <= length))
            if months and inside:
                yield Calendar(months, inside, weekdays or _ALL_WEEKDAYS, _LENGTHS[length][1])

    def times(self) -> list[time]:
        return [time(hour, minute) for hour in self.hours for minute in self.minutes]


_ALL_WEEKDAYS: Final = tuple(range(7))
_ALL_DAYS: Final = tuple(range(1, 32))
_YEARS: Final = range(2020, _LAST_YEAR + 1)
_LENGTHS: Final[Mapping[int, tuple[tuple[int, ...], tuple[int, ...]]]] = {  # by length in days: months, and years where that matters
    31: ((1, 3, 5, 7, 8, 10, 12), ()),
    30: ((4, 6, 9, 11), ()),
    29: ((2,), tuple(year for year in _YEARS if isleap(year))),
    28: ((2,), tuple(year for year in _YEARS if not isleap(year))),
}


def _week(ordinal: int, length: int) -> set[int]:
    """The days among which a month's n-th weekday lies; from the end for a negative n."""
    first = 7 * (ordinal - 1) + 1 if ordinal > 0 else length + 7 * ordinal + 1
    return set(range(first, first + 7))


# --- Moments --------------------------------------------------------------------------------------------------------


def occurrences(rule: Rule, zone: ZoneInfo, after: datetime) -> Iterator[datetime]:
    """The rule's moments later than `after`, in order, aware UTC, up to `until` but whatever `count` says. A time that daylight
    saving skips is left out, one that it repeats is taken the first time."""
    calendars, times = rule.calendars(), rule.times()
    first = after.astimezone(zone).date() - timedelta(days=1)
    for days in range(_HORIZON.days):
        day = first + timedelta(days=days)
        if day.year > _LAST_YEAR or (isinstance(rule.until, date) and not isinstance(rule.until, datetime) and day > rule.until):
            return
        if not rule.has(day) or not any(calendar.has(day) for calendar in calendars):
            continue
        for moment in filter(None, (exact(datetime.combine(day, wall), zone) for wall in times)):
            if isinstance(rule.until, datetime) and moment > rule.until:
                return
            if moment > after:
                yield moment


def end(rule: Rule, zone: ZoneInfo, since: datetime) -> datetime | None:
    """The last moment of a rule that counts from `since` (exclusive), aware UTC; None: it never ends. `since` when it has none."""
    if rule.count is not None:
        return [since, *islice(occurrences(rule, zone, since), rule.count)][-1]
    if isinstance(rule.until, datetime):
        return rule.until
    if rule.until is not None:
        return datetime.combine(rule.until, time(23, 59, 59), zone).replace(fold=1).astimezone(UTC)
    return None


def exact(wall: datetime, zone: ZoneInfo) -> datetime | None:
    """The first moment, aware UTC, at which the clock of the zone reads `wall` (naive); None: daylight saving skips it."""
    moment = wall.replace(tzinfo=zone, fold=0).astimezone(UTC)
    return moment if moment.astimezone(zone).replace(tzinfo=None) == wall else None


def skipped(rule: Rule, zone: ZoneInfo, since: datetime, days: int) -> Iterator[datetime]:
    """The rule's wall-clock times, naive, on the days after `since` that do not exist, because daylight saving skips them."""
    calendars, times = rule.calendars(), rule.times()
    first = since.astimezone(zone).date() + timedelta(days=1)
    for day in (first + timedelta(days=number) for number in range(days)):
        if _is_even(day, zone) or not rule.has(day) or not any(calendar.has(day) for calendar in calendars):
            continue
        yield from (wall for wall in (datetime.combine(day, each) for each in times) if exact(wall, zone) is None)


def _is_even(day: date, zone: ZoneInfo) -> bool:
    """Whether the zone's clock runs through the day without a change."""
    ends = (datetime.combine(day + timedelta(days=days), time(), zone) for days in (0, 1))
    return len({moment.utcoffset() for moment in ends}) == 1


# --- Reading --------------------------------------------------------------------------------------------------------


def read_rule(text: str, path: str = "rule") -> Rule:
    """The rule that `text` writes, such as `FREQ=WEEKLY;BYDAY=MO,TH;BYHOUR=9`.

    Raises:
        Invalid: with a problem for each part that is malformed, not supported or missing, at `path.<PART>`.
    """
    reader = _Reader(path, *_parts(text, path))
    rule = reader.read()
    if reader.problems:
        raise Invalid(reader.problems)
    return rule


def _parts(text: str, path: str) -> tuple[dict[str, str], list[Problem]]:
    if len(text) > MAX_LENGTH:
        raise Invalid.field(path, "too_long", f"A rule has at most {MAX_LENGTH} characters.")
    found: dict[str, str] = {}
    problems = []
    for part in text.strip().upper().removeprefix("RRULE:").split(";"):
        name, equals, value = part.partition("=")
        if not equals or not value or not name.isalpha():
            problems.append(Problem(path, "malformed", "Write a rule as NAME=VALUE;NAME=VALUE, such as FREQ=DAILY;BYHOUR=9."))
        elif name not in _ALLOWED:
            message = f"{name} is not supported; use {', '.join(_ALLOWED)}."
            problems.append(Problem(f"{path}.{name}", "unsupported_part", message))
        elif name in found:
            problems.append(Problem(f"{path}.{name}", "repeated", f"{name} stands there twice."))
        found[name] = value
    return found, problems


_ALLOWED: Final = ("FREQ", "INTERVAL", "BYDAY", "BYMONTHDAY", "BYMONTH", "BYHOUR", "BYMINUTE", "UNTIL", "COUNT")
_FREQUENCIES: Final = ("DAILY", "WEEKLY", "MONTHLY", "YEARLY")
_INTERVALS: Final[Mapping[str, tuple[str, int]]] = {
    "DAILY": ("day", 366),
    "WEEKLY": ("week", 52),
    "MONTHLY": ("month", 24),
    "YEARLY": ("year", 4),
}


@dataclass
class _Reader:
    path: str
    parts: dict[str, str]
    problems: list[Problem]

    def read(self) -> Rule:
        frequency = self.frequency()
        rule = Rule(
            months=self.numbers("BYMONTH", range(1, 13)) or tuple(range(1, 13)),
            month_days=self.numbers("BYMONTHDAY", range(-31, 32), zero=False),
            weekdays=self.weekdays(),
            hours=self.numbers("BYHOUR", range(24)) or (0,),
            minutes=self.numbers("BYMINUTE", range(60)) or (0,),
            until=self.until(),
            count=self.count(),
            frequency=frequency,
            interval=self.interval(frequency),
        )
        self.requirements(frequency, rule)
        return rule

    def say(self, part: str, code: str, message: str) -> None:
        self.problems.append(Problem(f"{self.path}.{part}", code, message))

    def frequency(self) -> str:
        given = self.parts.get("FREQ", "")
        if given not in _FREQUENCIES:
            self.say("FREQ", "unsupported" if given else "required", f"FREQ is one of {', '.join(_FREQUENCIES)}.")
        return given

    def interval(self, frequency: str) -> int:
        given = self.parts.get("INTERVAL", "1")
        name, most = _INTERVALS.get(frequency, ("period", 1_000))
        if not given.isascii() or not given.isdigit() or not 1 <= int(given) <= most:
            self.say("INTERVAL", "out_of_range", f"INTERVAL is a whole number from 1 to {most}: every so many {name}s.")
            return 1
        return int(given)

    def numbers(self, part: str, allowed: range, *, zero: bool = True) -> tuple[int, ...]:
        if part not in self.parts:
            return ()
        try:
            found = sorted({int(each) for each in self.parts[part].split(",")})
        except ValueError:
            found = []
        if not found or any(each not in allowed or (each == 0 and not zero) for each in found):
            besides = "" if zero else ", without 0"
            self.say(part, "out_of_range", f"{part} is a list of whole numbers from {allowed.start} to {allowed.stop - 1}{besides}.")
            return ()
        return tuple(found)

    def weekdays(self) -> tuple[tuple[Ordinal, int], ...]:
        given = self.parts.get("BYDAY")
        if given is None:
            return ()
        matches = [_BYDAY.fullmatch(each) for each in given.split(",")]
        if None in matches:
            self.say("BYDAY", "malformed", "BYDAY is a list of MO TU WE TH FR SA SU, in months also as 1MO (first) to 5MO and -1MO (last).")
        read = {(int(match["ordinal"]) if match["ordinal"] else None, WEEKDAYS.index(match["weekday"])) for match in matches if match}
        return tuple(sorted(read, key=lambda pair: (pair[0] or 0, pair[1])))

    def until(self) -> datetime | date | None:
        given = self.parts.get("UNTIL")
        if given is None:
            return None
        try:
            if _UTC.fullmatch(given):
                return datetime.strptime(given, "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
            if _DATE.fullmatch(given):
                return datetime.strptime(given, "%Y%m%d").replace(tzinfo=UTC).date()
        except ValueError:
            pass
        self.say("UNTIL", "malformed", "UNTIL is a last day (20271231) or a last moment in UTC (20271231T235959Z).")
        return None

    def count(self) -> int | None:
        given = self.parts.get("COUNT")
        if given is None:
            return None
        if not given.isascii() or not given.isdigit() or not 1 <= int(given) <= MAX_COUNT:
            self.say("COUNT", "out_of_range", f"COUNT is a whole number from 1 to {MAX_COUNT}.")
            return None
        if "UNTIL" in self.parts:
            self.say("COUNT", "one_of", "Give UNTIL or COUNT, not both.")
        return int(given)

    def requirements(self, frequency: str, rule: Rule) -> None:
        if "BYHOUR" not in self.parts:
            self.say("BYHOUR", "required", "Say at which hour, such as BYHOUR=9; BYMINUTE may be left out for the full hour.")
        if len(rule.hours) * len(rule.minutes) > MAX_TIMES_A_DAY:
            self.say("BYMINUTE", "too_often", f"A campaign recurs at most {MAX_TIMES_A_DAY} times a day.")
        ordinal = any(each is not None for each, _ in rule.weekdays)
        if ordinal and frequency in ("DAILY", "WEEKLY"):
            self.say("BYDAY", "unsupported", "Only FREQ=MONTHLY and FREQ=YEARLY have first and last weekdays.")
        for part, message in _MISSING[frequency](self.parts) if frequency in _MISSING else ():
            self.say(part, "required" if part not in self.parts else "unsupported", message)
        if not self.problems and not any(_happens(calendar) for calendar in rule.calendars()):
            self.problems.append(Problem(self.path, "never", "No day fits this rule; check BYMONTHDAY and BYMONTH."))


def _weekly(parts: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    if "BYDAY" not in parts:
        yield "BYDAY", "Say on which weekdays, such as BYDAY=MO."
    if "BYMONTHDAY" in parts:
        yield "BYMONTHDAY", "A weekly rule has no days of the month; use FREQ=MONTHLY."


def _monthly(parts: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    if "BYMONTHDAY" not in parts and "BYDAY" not in parts:
        yield "BYMONTHDAY", "Say on which days of the month, such as BYMONTHDAY=1, or with BYDAY=1MO."


def _yearly(parts: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    if "BYMONTH" not in parts:
        yield "BYMONTH", "Say in which months, such as BYMONTH=12."
    yield from _monthly(parts)


_MISSING: Final[Mapping[str, Callable[[Mapping[str, str]], Iterable[tuple[str, str]]]]] = {
    "WEEKLY": _weekly,
    "MONTHLY": _monthly,
    "YEARLY": _yearly,
}


def _happens(calendar: Calendar) -> bool:
    return any(calendar.days[0] <= monthrange(2028, month)[1] for month in calendar.months)
