"""When a campaign starts, and when each of its runs: now, once, once by each recipient's own clock, or recurring by either. Pure.

All moments are aware UTC, except `AtLocalTime.at`, which is what a clock on a wall reads.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, time, timedelta
from itertools import takewhile
from typing import Annotated, Any, Literal
from uuid import UUID
from zoneinfo import ZoneInfo

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, NaiveDatetime, TypeAdapter, ValidationError

from models.domain import recurrence
from models.domain.errors import Invalid, Problem
from models.domain.journey.steps.base import fraction
from models.domain.phrases import json_path, plain_message
from models.domain.quiet_hours import choose_zone
from models.domain.recurrence import Rule
from models.domain.zones import zone_names

EASTERNMOST = timedelta(hours=14)  # where a day begins first: Kiritimati
WESTERNMOST = timedelta(hours=-12)
OFFSETS_APART = timedelta(minutes=15)  # every zone's distance from UTC is a multiple of it
LONGEST_SPREAD = timedelta(days=7)
FARTHEST = timedelta(days=2 * 366)  # that a campaign may be launched ahead
WARNED_AHEAD = 2 * 366  # days
NEXT_SHOWN = 5
DAWN_MARGIN = 2  # hours, of which a law may use up one
MISSED_AFTER = timedelta(hours=1)  # what could not be started for longer is left out
RECIPIENT = "recipient"  # instead of a recurring campaign's zone: by each recipient's own clock
FIRST_ON_EARTH = ZoneInfo("Etc/GMT-14")  # as Kiritimati, whatever laws come


class _Schedule(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class AtOnce(_Schedule):
    kind: Literal["now"] = "now"


class Once(_Schedule):
    """At one instant for everybody."""

    kind: Literal["once"] = "once"
    at: AwareDatetime


class AtLocalTime(_Schedule):
    """When the clock where each recipient is reads `at`. A recipient without a valid zone has `default_zone`, otherwise the
    organization's. `late`: what becomes of those whose clocks had passed `at` when the campaign was launched, or have by more than
    `MISSED_AFTER` when it starts."""

    kind: Literal["local"] = "local"
    at: NaiveDatetime
    default_zone: str | None = None
    late: Literal["send", "skip"] = "send"


class Recurring(_Schedule):
    """At the moments of an RFC 5545 rule (`models.domain.recurrence`) by the clock of one zone, after `begins_at`.

    With `RECIPIENT` as its zone by each recipient's own clock (without a valid zone: by `default_zone`, otherwise the
    organization's). Its moments are then those of the first clock on Earth, and those that come later follow with the Earth's turn.
    """

    kind: Literal["recurring"] = "recurring"
    rule: Annotated[str, Field(max_length=recurrence.MAX_LENGTH)]
    zone: str
    default_zone: str | None = None
    begins_at: AwareDatetime | None = None

    @property
    def by_recipient(self) -> bool:
        return self.zone == RECIPIENT

    @property
    def clock(self) -> ZoneInfo:
        """Whose calendar the rule is read by."""
        return FIRST_ON_EARTH if self.by_recipient else ZoneInfo(self.zone)

    @property
    def missed_after(self) -> timedelta:
        """An occurrence that could not be made for longer is left out: nobody is left whose time it could be."""
        return MISSED_AFTER + (EASTERNMOST - WESTERNMOST if self.by_recipient else timedelta(0))

    def occurrence(self, nominal_at: datetime) -> "Once | AtLocalTime":
        """The schedule of the campaign that takes place at one of the rule's moments."""
        if not self.by_recipient:
            return Once(at=nominal_at)
        wall = nominal_at.astimezone(self.clock).replace(tzinfo=None)
        return AtLocalTime(at=wall, default_zone=self.default_zone, late="skip")

    def parsed(self) -> Rule:
        """The rule, whose interval counts from the day of `begins_at` by the zone's calendar."""
        rule = recurrence.read_rule(self.rule, "schedule.rule")
        return rule if self.begins_at is None else replace(rule, anchor=self.begins_at.astimezone(self.clock).date())

    def after(self, launched_at: datetime) -> datetime:
        """No moment up to and including this one counts."""
        return launched_at if self.begins_at is None else max(launched_at, self.begins_at.astimezone(UTC) - timedelta(seconds=1))

    def ends_at(self, launched_at: datetime) -> datetime | None:
        return recurrence.end(self.parsed(), self.clock, self.after(launched_at))

    def next_after(self, moment: datetime, launched_at: datetime) -> Iterator[datetime]:
        """The moments of a campaign launched at `launched_at` that are later than `moment`."""
        end = self.ends_at(launched_at)
        for each in recurrence.occurrences(self.parsed(), self.clock, max(moment, self.after(launched_at))):
            if end is not None and each > end:
                return
            yield each

    def on(self, day: date, launched_at: datetime) -> list[datetime]:
        """The moments of a campaign launched at `launched_at` on one day of the zone's calendar."""
        zone = self.clock
        before = datetime.combine(day - timedelta(days=1), time(12), zone).astimezone(UTC)  # midnight itself may be skipped
        found = takewhile(lambda each: each.astimezone(zone).date() <= day, self.next_after(before, launched_at))
        return [each for each in found if each.astimezone(zone).date() == day]

    def opened(self, after: datetime, by: datetime, launched_at: datetime) -> list[datetime]:
        """The moments later than `after` of a campaign launched at `launched_at`, on days that had begun by `by` on the clock of
        `dawn_offset`: what should have been made by then."""
        last = (by.astimezone(UTC) + timedelta(hours=self.dawn_offset(launched_at))).date()
        zone = self.clock
        return list(takewhile(lambda each: each.astimezone(zone).date() <= last, self.next_after(after, launched_at)))

    def dawn_offset(self, launched_at: datetime) -> int:
        """Whole hours from UTC of a clock on which each day begins before it does in the zone: so early its occurrences are made."""
        zone = self.clock
        months = (launched_at + timedelta(days=30 * number) for number in range(25))
        farthest = max(each.astimezone(zone).utcoffset() or timedelta(0) for each in months)
        return min(farthest // timedelta(hours=1) + DAWN_MARGIN, EASTERNMOST // timedelta(hours=1))

    def day_of(self, dawn: datetime, launched_at: datetime) -> date:
        """The day that begins at `dawn` on that clock; also if the clock has been set otherwise since, by a newer table of zones."""
        return (dawn.astimezone(UTC) + timedelta(hours=self.dawn_offset(launched_at) + 12)).date()


Schedule = AtOnce | Once | AtLocalTime | Recurring
_SCHEDULE: TypeAdapter[Schedule] = TypeAdapter(Annotated[Schedule, Field(discriminator="kind")])
KINDS = ("now", "once", "local", "recurring")


class Timing(_Schedule):
    """A schedule and over how long its runs are spread: what a campaign's row keeps.

    `void_until`, of a recurring campaign: what was due up to this moment and had not begun does not take place, as the campaign stood
    still. Written where it is found out, and no part of what was asked for.
    """

    schedule: Annotated[Schedule, Field(discriminator="kind")] = AtOnce()
    spread: timedelta | None = None
    void_until: AwareDatetime | None = Field(default=None, exclude=True)

    @property
    def waits(self) -> bool:
        """Whether one campaign starts later, and once."""
        return isinstance(self.schedule, Once | AtLocalTime)

    @property
    def recurs(self) -> bool:
        return isinstance(self.schedule, Recurring)


def read_timing(stored: Mapping[str, Any] | None) -> Timing:
    """What a campaign's row keeps; None: now."""
    return Timing() if stored is None else Timing.model_validate(stored)


def stored(timing: Timing) -> dict[str, Any] | None:
    """As a campaign's row keeps it."""
    return None if timing == Timing() else timing.model_dump(mode="json")


# --- Reading what a designer asks for -------------------------------------------------------------------------------


def parse_timing(schedule: Mapping[str, Any] | None, spread: timedelta | None) -> Timing:
    """Well formed, whatever the time is.

    Raises:
        Invalid: with the path of each field that is not, from `schedule` or `spread`.
    """
    problems = [] if spread is None or timedelta(0) < spread <= LONGEST_SPREAD else [_bad_spread()]
    try:
        found = _SCHEDULE.validate_python({"kind": "now"} if schedule is None else dict(schedule))
        problems += _problems(found)
    except ValidationError as error:
        problems += [_malformed(each) for each in error.errors(include_url=False, include_input=False)]
    if problems:
        raise Invalid(problems)
    return Timing(schedule=found, spread=spread)


def _bad_spread() -> Problem:
    return Problem("spread", "out_of_range", f"A spread is longer than nothing and at most {LONGEST_SPREAD.days} days.")


def _malformed(error: Any) -> Problem:
    location = list(error["loc"])
    if location[:1] and location[0] in KINDS:
        del location[0]  # pydantic's name of the kind it tried
    if error["type"].startswith("union_tag"):
        return Problem("schedule.kind", "unknown_kind", f"A schedule is one of {', '.join(KINDS)}.")
    return Problem(json_path(("schedule", *location)), error["type"], f"{plain_message(error).removesuffix('.')}.")


def _problems(schedule: Schedule) -> Iterator[Problem]:
    match schedule:
        case Once(at=at):
            yield from _year("schedule.at", at)
        case AtLocalTime(at=at, default_zone=default_zone):
            yield from _year("schedule.at", at)
            if default_zone is not None:
                yield from _zone("schedule.default_zone", default_zone)
        case Recurring(zone=zone, default_zone=default_zone, begins_at=begins_at):
            if not schedule.by_recipient:
                yield from _zone("schedule.zone", zone, f', or "{RECIPIENT}" for the clock of each recipient')
            if default_zone is not None:
                yield from _default_zone(schedule, default_zone)
            if begins_at is not None:
                yield from _year("schedule.begins_at", begins_at)
            try:
                rule = recurrence.read_rule(schedule.rule, "schedule.rule")
            except Invalid as error:
                yield from error.problems
                return
            if rule.interval > 1 and begins_at is None:
                yield Problem("schedule.begins_at", "required", "An INTERVAL counts from somewhere: say from when on with begins_at.")


def _year(path: str, at: datetime) -> Iterator[Problem]:
    if not 2000 <= at.year < 2100:
        yield Problem(path, "out_of_range", "Choose a time in this century.")


def _default_zone(schedule: Recurring, name: str) -> Iterator[Problem]:
    if not schedule.by_recipient:
        message = f'Only where "zone" is "{RECIPIENT}" does another zone stand in for a missing one: leave this out.'
        yield Problem("schedule.default_zone", "not_applicable", message)
    yield from _zone("schedule.default_zone", name)


def _zone(path: str, name: str, otherwise: str = "") -> Iterator[Problem]:
    if name not in zone_names():
        yield Problem(path, "unknown_zone", f"Give a time zone by its IANA name, such as Europe/Berlin{otherwise}.")


def require_ahead(timing: Timing, now: datetime) -> None:
    """Raises Invalid where the schedule has nothing left at `now`, or lies too far ahead."""
    match timing.schedule:
        case Once(at=at):
            path, first, last = "schedule.at", at, at
        case AtLocalTime(at=at):
            path, first, last = "schedule.at", at.replace(tzinfo=UTC) - EASTERNMOST, at.replace(tzinfo=UTC) - WESTERNMOST
        case Recurring() as recurring:
            path, first = "schedule.rule", next(recurring.next_after(now, now), now)
            last = first
        case _:
            return
    if last <= now:
        raise Invalid.field(path, "in_the_past", "This has passed already; choose a later time, or launch now.")
    if first > now + FARTHEST:
        raise Invalid.field(path, "too_far", f"A campaign is launched at most {FARTHEST.days} days ahead.")


# --- Moments --------------------------------------------------------------------------------------------------------


def local_instant(wall: datetime, zone: ZoneInfo) -> datetime:
    """When the clock of the zone first reads `wall` (naive). A time that daylight saving (or the date line) skips is the first
    moment after the jump; one that is repeated is taken the first time."""
    found = recurrence.exact(wall, zone)
    if found is not None:
        return found
    before, after = sorted(wall.replace(tzinfo=zone, fold=fold).astimezone(UTC) for fold in (0, 1))
    offset = after.astimezone(zone).utcoffset()
    while after - before > timedelta(seconds=1):
        middle = (before + (after - before) / 2).replace(microsecond=0)
        if middle.astimezone(zone).utcoffset() == offset:
            after = middle
        else:
            before = middle
    return after


@dataclass(frozen=True)
class Start:
    """When the runs start of those contacts whose `timezone` is this text ("" for none). `at` None: at once.

    `zone_of`: whose zone it is: contact, default, organization or utc; `contact_zone`: given, missing or invalid.
    """

    timezone: str
    zone: str
    zone_of: str
    contact_zone: str
    at: datetime | None
    passed: bool = False  # their time has passed, and they are left out
    late: bool = False  # their time has passed, and they start at once
    skipped: bool = False  # their clock skips the time


def local_starts(
    schedule: AtLocalTime, timezones: Iterable[str | None], organization_timezone: str, now: datetime, launched_at: datetime
) -> dict[str, Start]:
    """By contacts' zone as written ("" for none): when their runs start in a campaign launched at `launched_at` that starts at `now`."""
    return {each or "": _local_start(schedule, each or "", organization_timezone, now, launched_at) for each in timezones}


def _local_start(schedule: AtLocalTime, timezone: str, organization_timezone: str, now: datetime, launched_at: datetime) -> Start:
    chosen = choose_zone(timezone, schedule.default_zone or organization_timezone)
    fallback = "default" if schedule.default_zone is not None else chosen.used
    at = local_instant(schedule.at, chosen.zone)
    late = at < now
    missed = at < max(launched_at, now - MISSED_AFTER)  # not if it is just their time: a campaign wakes a little after the moment
    passed = missed and schedule.late == "skip"
    return Start(
        timezone=timezone,
        zone=chosen.zone.key,
        zone_of="contact" if chosen.used == "contact" else fallback,
        contact_zone=chosen.contact_zone,
        at=now if late else at,
        passed=passed,
        late=late and not passed,
        skipped=recurrence.exact(schedule.at, chosen.zone) is None,
    )


def common_start(timing: Timing, now: datetime) -> datetime | None:
    """When the runs start of a campaign that starts at `now`, where that is the same for all; None: at once."""
    if isinstance(timing.schedule, Once):
        return max(timing.schedule.at.astimezone(UTC), now)
    return None if timing.spread is None else now


def spread_delay(campaign_id: UUID, contact_id: UUID, spread: timedelta | None) -> timedelta:
    """How much later than the others a contact's run starts: always the same in a campaign, evenly spread over contacts, whole
    seconds. models.store.audience computes the same in SQL."""
    if spread is None:
        return timedelta(0)
    return timedelta(seconds=int(spread.total_seconds() * fraction(campaign_id, contact_id)))


def looks(schedule: AtLocalTime, now: datetime) -> datetime:
    """When to look next whether somebody's time has come: not before it is `at` anywhere on Earth, and then at each moment at which
    it comes to be `at` somewhere. Contacts move and join until the last moment."""
    first = schedule.at.replace(tzinfo=UTC) - EASTERNMOST
    if now < first:
        return first
    return first + OFFSETS_APART * ((now - first) // OFFSETS_APART + 1)


def local_over(schedule: AtLocalTime, now: datetime) -> bool:
    """Whether it is later than `at` everywhere on Earth."""
    return now >= schedule.at.replace(tzinfo=UTC) - WESTERNMOST


def has_passed(schedule: Once | AtLocalTime, moment: datetime) -> bool:
    """Whether at the moment it has been `at` for everybody."""
    return schedule.at <= moment if isinstance(schedule, Once) else local_over(schedule, moment)


# --- What a designer should know ------------------------------------------------------------------------------------


def warnings(timing: Timing, now: datetime) -> list[Problem]:
    """What will not be as one might expect, though nothing is wrong with it."""
    found = []
    if isinstance(timing.schedule, Recurring):
        zone = timing.schedule.clock
        missing = [f"{wall:%Y-%m-%d %H:%M}" for wall in recurrence.skipped(timing.schedule.parsed(), zone, now, WARNED_AHEAD)]
        if missing:
            message = f"Daylight saving skips these times in {zone.key}, and nothing is sent then: {', '.join(missing[:3])}."
            found.append(Problem("schedule.rule", "skipped_hour", message))
    if isinstance(timing.schedule, AtLocalTime) and now >= timing.schedule.at.replace(tzinfo=UTC) - EASTERNMOST:
        what = "start at once" if timing.schedule.late == "send" else "are left out"
        found.append(Problem("schedule.at", "passed_somewhere", f"In some time zones this has passed already; contacts there {what}."))
    return found
