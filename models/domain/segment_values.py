"""The values in rules: which operator takes which, and moments relative to now. Pure.

Times are aware UTC. A date without a time stands for midnight UTC of that day.
"""

import math
import re
from calendar import monthrange
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta, tzinfo
from typing import Any, Literal

ValueType = Literal["string", "number", "integer", "boolean", "date", "datetime", "strings"]

EARLIEST = datetime.min.replace(tzinfo=UTC)
LATEST = datetime.max.replace(tzinfo=UTC)
_MIDDLE = 5_000  # a moment that has no place on a clock lies at the calendar's one end or at its other
MAX_TEXT = 1_000
MAX_CHOICES = 1_000

# The same patterns guard the casts in SQL, so that both sides read the same strings as moments.
DATE = r"^[0-9]{4}-[0-9]{2}-[0-9]{2}$"
DATE_TIME = r"^[0-9]{4}-[0-9]{2}-[0-9]{2}T([01][0-9]|2[0-3]):[0-5][0-9](:[0-5][0-9](\.[0-9]{1,6})?)?(Z|[+-](0[0-9]|1[0-4]):[0-5][0-9])$"
_DURATION = re.compile(
    r"^P(?=.)(?:(\d{1,4})Y)?(?:(\d{1,4})M)?(?:(\d{1,4})W)?(?:(\d{1,5})D)?(?:T(?=.)(?:(\d{1,6})H)?(?:(\d{1,7})M)?(?:(\d{1,9})S)?)?$",
    re.ASCII,
)
_SCALARS: frozenset[ValueType] = frozenset({"string", "number", "integer", "boolean", "date"})
_EVERY: frozenset[ValueType] = _SCALARS | {"datetime", "strings"}
_NUMBERS: frozenset[ValueType] = frozenset({"number", "integer"})
_MOMENTS: frozenset[ValueType] = frozenset({"date", "datetime"})
_TEXTS: frozenset[ValueType] = frozenset({"string"})

TYPES_OF: Mapping[str, frozenset[ValueType]] = {
    "exists": _EVERY,
    "missing": _EVERY,
    "equals": _SCALARS,
    "not_equals": _SCALARS,
    "in": _SCALARS - {"boolean"},
    "not_in": _SCALARS - {"boolean"},
    "contains": _TEXTS | {"strings"},
    "not_contains": _TEXTS | {"strings"},
    "starts_with": _TEXTS,
    "ends_with": _TEXTS,
    "greater": _NUMBERS,
    "less": _NUMBERS,
    "at_least": _NUMBERS,
    "at_most": _NUMBERS,
    "before": _MOMENTS,
    "after": _MOMENTS,
    "within_last": _MOMENTS,
    "not_within_last": _MOMENTS,
    "within_next": _MOMENTS,
}


def check_value(operator: str, value: Any, field_type: ValueType | None) -> tuple[str, str] | None:
    """What is wrong with the value as (code, message), or None. With `field_type` None any fitting type will do."""
    match operator:
        case "exists" | "missing":
            return None if value is None else ("unexpected", f"{operator} takes no value.")
        case "equals" | "not_equals":
            return _check_scalar(value, field_type)
        case "in" | "not_in":
            return _check_choices(value, field_type)
        case "contains" | "not_contains" | "starts_with" | "ends_with":
            return _check_scalar(value, "string")
        case "greater" | "less" | "at_least" | "at_most":
            return _check_scalar(value, "number")
        case "before" | "after":
            return _check_moment(value)
        case _:
            return _check_duration(value)


def _check_choices(value: Any, field_type: ValueType | None) -> tuple[str, str] | None:
    if not isinstance(value, list) or not 1 <= len(value) <= MAX_CHOICES:
        return "not_a_list", f"Give a list of 1 to {MAX_CHOICES:,} values."
    return next((found for item in value if (found := _check_scalar(item, field_type))), None)


def _check_scalar(value: Any, field_type: ValueType | None) -> tuple[str, str] | None:
    match field_type:
        case "string" | "strings":
            fits, wanted = isinstance(value, str), "text"
        case "number" | "integer":
            fits, wanted = is_number(value), "a number"
        case "boolean":
            fits, wanted = isinstance(value, bool), "true or false"
        case "date":
            fits, wanted = (
                isinstance(value, str) and re.match(DATE, value) is not None and parse_moment(value) is not None,
                "a date as YYYY-MM-DD",
            )
        case _:
            fits, wanted = isinstance(value, str | bool) or is_number(value), "text, a number, true or false"
    if not fits:
        return "wrong_type", f"Give {wanted}."
    if isinstance(value, str) and not 0 < len(value) <= MAX_TEXT:
        return "wrong_length", f"Give 1 to {MAX_TEXT:,} characters; for a missing value use the operator missing."
    if isinstance(value, str) and not is_storable(value):
        return "not_storable", "Text must be valid Unicode without NUL characters."
    return None


def is_number(value: Any) -> bool:
    """A finite JSON number of a size that PostgreSQL's numeric surely takes. True and false are not numbers."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return abs(value) < 10**30 if isinstance(value, int) else math.isfinite(value)


def is_storable(value: str) -> bool:
    """PostgreSQL stores neither NUL nor half a surrogate pair."""
    try:
        return "\x00" not in value and bool(value.encode() or True)
    except UnicodeEncodeError:
        return False


def _check_moment(value: Any) -> tuple[str, str] | None:
    if isinstance(value, dict) and len(value) == 1 and next(iter(value)) in ("ago", "ahead"):
        return _check_duration(next(iter(value.values())))
    if isinstance(value, str) and parse_moment(value) is not None:
        return None
    message = 'Give a date (2026-05-01), a time with its zone (2026-05-01T09:00:00Z), {"ago": "P7D"} or {"ahead": "P7D"}.'
    return "not_a_moment", message


def _check_duration(value: Any) -> tuple[str, str] | None:
    if isinstance(value, str) and _DURATION.match(value):
        return None
    return "not_a_duration", 'Give an ISO 8601 duration in whole units, such as "P7D", "P1M" or "PT12H".'


def parse_moment(value: str) -> datetime | None:
    """The moment that ISO 8601 text means (a date: its midnight UTC), or None when it is not one. What its zone carries beyond the
    calendar's ends is the end (year 1 or 9999)."""
    try:
        if re.match(DATE, value):
            return datetime.fromisoformat(value).replace(tzinfo=UTC)
        moment = datetime.fromisoformat(value) if re.match(DATE_TIME, value) else None
    except ValueError:
        return None
    return None if moment is None else at_zone(moment, UTC)


def at_zone(moment: datetime, zone: tzinfo) -> datetime:
    """The (aware) moment by the clock of the zone; where that has no such year, the calendar's end by that clock."""
    try:
        return moment.astimezone(zone)
    except (ValueError, OverflowError):
        return (EARLIEST if moment.year < _MIDDLE else LATEST).replace(tzinfo=zone)


def moved(moment: datetime, by: timedelta) -> datetime:
    """`moment + by`. Beyond the calendar's ends it is the end: contacts carry dates that other systems write for "never" and
    "nothing", and a sum that raises would do so for ever."""
    try:
        return moment + by
    except OverflowError:
        return LATEST if by > timedelta(0) else EARLIEST


def resolve_moment(value: Any, now: datetime) -> datetime:
    """The moment that a checked value of `before` or `after` means at `now`."""
    if isinstance(value, dict):
        return shift(now, value["ago"], -1) if "ago" in value else shift(now, value["ahead"], 1)
    moment = parse_moment(value)
    assert moment is not None, "the value was checked"
    return moment


def shift(moment: datetime, duration: str, direction: Literal[1, -1]) -> datetime:
    """`moment` moved by an ISO 8601 duration. Years and months follow the calendar: a month before 31 March is the last
    day of February. Beyond the calendar's ends it is the end (year 1 or 9999)."""
    match = _DURATION.match(duration)
    assert match is not None, "the duration was checked"
    years, months, weeks, days, hours, minutes, seconds = (int(part or 0) * direction for part in match.groups())
    try:
        return _shift_months(moment, years * 12 + months) + timedelta(weeks=weeks, days=days, hours=hours, minutes=minutes, seconds=seconds)
    except (ValueError, OverflowError):
        return LATEST if direction > 0 else EARLIEST


def _shift_months(moment: datetime, months: int) -> datetime:
    if not months:
        return moment
    year, month = divmod(moment.year * 12 + moment.month - 1 + months, 12)
    day = min(moment.day, monthrange(year, month + 1)[1])
    return moment.replace(year=year, month=month + 1, day=day)
