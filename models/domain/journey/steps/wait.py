"""`wait`: for a duration, until a local time of day, or until a date that the contact or the run carries. Pure."""

from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from models.domain.errors import Problem
from models.domain.journey.facts import Facts
from models.domain.journey.run import RunState
from models.domain.journey.steps.base import (
    LONGEST,
    Answer,
    Ask,
    Exits,
    Go,
    Leave,
    Model,
    Outcome,
    Rest,
    StepId,
    StepModel,
    duration_problems,
    fraction,
)
from models.domain.journey.written import Duration
from models.domain.segment import Vocabulary, type_of_field
from models.domain.segment_values import moved
from models.domain.zones import zone_names

Weekday = Literal["mon", "tue", "wed", "thu", "fri", "sat", "sun"]
WEEKDAYS: tuple[Weekday, ...] = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
LocalTime = Annotated[str, Field(pattern=r"^([01][0-9]|2[0-3]):[0-5][0-9]$")]
LONGEST_SPREAD = timedelta(days=7)


class UntilTime(Model):
    """The next time the clock at the contact's place reads `time` on one of the `weekdays`. A contact without a valid zone
    has `default_zone`, otherwise the organization's."""

    time: LocalTime
    weekdays: Annotated[tuple[Weekday, ...], Field(min_length=1)] = WEEKDAYS
    default_zone: str | None = None


class UntilDate(Model):
    """The moment in a field of the contact (`attributes.renews_on`) or the run (`run.appointment`), moved by `offset`. Read
    again whenever the contact changes. A date without a time stands for `time`, or midnight, at the contact's place."""

    field: str
    offset: Duration = timedelta(0)  # "-P1D": the day before
    time: LocalTime | None = None  # instead of the moment's own time of day
    default_zone: str | None = None
    missing: Literal["continue", "exit"] = "continue"  # what a run does that has no such date
    passed: Literal["continue", "exit"] = "continue"  # and one that comes too late for it


class WaitStep(StepModel):
    """Exactly one of `duration`, `until` and `date`. `spread`: up to so much later, different for each run."""

    question: ClassVar[str | None] = "plan_waits"
    waits: ClassVar[bool] = True
    says: ClassVar[frozenset[str]] = frozenset({"not_waited", "waiting"})

    kind: Literal["wait"] = "wait"
    duration: Duration | None = None
    until: UntilTime | None = None
    date: UntilDate | None = None
    spread: Duration | None = None
    next: StepId | None = None

    @property
    def planned(self) -> bool:
        """Its end depends on the contact: an activity says when it is."""
        return self.duration is None

    def exits(self) -> Exits:
        yield "next", self.next

    def instant_exits(self) -> Exits:
        if self.date is not None and "continue" in (self.date.missing, self.date.passed):
            yield "next", self.next

    def problems(self, path: str, facts: Facts) -> Iterator[Problem]:
        if sum(each is not None for each in (self.duration, self.until, self.date)) != 1:
            yield Problem(path, "one_of", "A wait has exactly one of duration, until and date.")
        if self.duration is not None:
            yield from duration_problems(f"{path}.duration", self.duration, "A wait")
        if self.until is not None:
            yield from _zone(f"{path}.until.default_zone", self.until.default_zone)
        if self.date is not None:
            yield from _date(f"{path}.date", self.date, facts)
        if self.spread is not None and not timedelta(0) < self.spread <= LONGEST_SPREAD:
            yield Problem(f"{path}.spread", "out_of_range", f"A spread is longer than nothing and at most {LONGEST_SPREAD.days} days.")

    def arrive(self, state: RunState, now: datetime) -> Outcome:
        if self.duration is None:
            return Ask()
        return Rest((state.arrived_at or now) + self.duration + self.delay(state))

    def answered(self, state: RunState, answer: Answer, now: datetime) -> Outcome:
        assert self.until is not None or self.date is not None
        if answer.until is not None:
            return Rest(moved(answer.until, self.delay(state)), details=answer.details)
        reason = answer.reason or "no_date"
        choice = "continue" if self.date is None else self.date.missing if reason == "no_date" else self.date.passed
        return Leave(reason) if choice == "exit" else Go(self.next, "not_waited", reason, answer.details)

    def woke(self, state: RunState, now: datetime) -> Outcome:
        return Go(self.next, "woke")

    def delay(self, state: RunState) -> timedelta:
        """By how much the spread puts off this visit's end."""
        return timedelta(0) if self.spread is None else self.spread * fraction(state.run_id, state.step_id or "", state.visit)


def _zone(path: str, name: str | None) -> Iterator[Problem]:
    if name is not None and name not in zone_names():
        yield Problem(path, "unknown_zone", "Give a time zone by its IANA name, such as Europe/Berlin.")


def _date(path: str, date: UntilDate, facts: Facts) -> Iterator[Problem]:
    yield from _zone(f"{path}.default_zone", date.default_zone)
    if abs(date.offset) > LONGEST:
        yield Problem(f"{path}.offset", "too_long", f"An offset is at most {LONGEST.days} days.")
    try:
        kind = type_of_field(date.field, Vocabulary(attributes=facts.attributes, run=True))
    except KeyError as error:
        yield Problem(f"{path}.field", "unknown_field", error.args[0])
        return
    if kind not in (None, "date", "datetime"):
        yield Problem(f"{path}.field", "not_a_date", f"{date.field} is a {kind}; a wait needs a date.")
