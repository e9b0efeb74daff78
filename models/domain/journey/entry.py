"""Who enters a journey, how often, and what ends or counts a run from outside its steps. Pure."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Annotated, Any, Literal
from uuid import UUID

from pydantic import Field, StrictBool, StrictInt

from models.domain.errors import Problem
from models.domain.journey.facts import Facts
from models.domain.journey.rule import rule_problems
from models.domain.journey.steps.base import Code, EventName, Model, duration_problems
from models.domain.journey.written import Duration

MAX_TRIGGERS = 20
MAX_KEY = 200  # characters
MAX_LED = 10  # entries of one contact with one key in an hour that journeys and segments lead to
LEADING = ("journey", "segment")  # what one journey does may lead into another, and that one's back into it: without end
PropertyName = Annotated[str, Field(min_length=1, max_length=200, pattern=r"^[^\x00]*$")]  # as in rules: other systems name them
Again = Literal["once", "after_exit", "every_time"]


class EventTrigger(Model):
    """The event's contact enters. `where` may read `event.<property>`. `key`: the property that tells two runs of one contact
    apart, such as an appointment's id. Properties with a variable's name become the run's variables."""

    kind: Literal["event"] = "event"
    event: EventName
    where: dict[str, Any] | None = None
    key: PropertyName | None = None
    hidden: StrictBool = False  # its runs' deliveries stay out of lists, unless asked for


class SegmentTrigger(Model):
    """A contact that comes to fit, or ceases to. `include_existing`: also those who fit already when the first version that says so of
    this segment is published."""

    kind: Literal["segment_entered", "segment_left"]
    segment_id: UUID
    rule: dict[str, Any] | None = None  # only in a version: of the segment, when it was published
    include_existing: StrictBool = False


Trigger = Annotated[EventTrigger | SegmentTrigger, Field(discriminator="kind")]


class EntryRules(Model):
    """`again` holds per contact and key: `once` ever; `after_exit`: not while a run is under way; `every_time`. A cool-down counts
    from the last entry."""

    triggers: Annotated[tuple[Trigger, ...], Field(max_length=MAX_TRIGGERS)] = ()
    again: Again = "every_time"
    cool_down: Duration | None = None
    maximum: Annotated[StrictInt, Field(ge=1, le=1_000_000)] | None = None  # entries of one contact, whatever their keys
    per_hour: Annotated[StrictInt, Field(ge=1, le=10_000_000)] | None = None  # entries of all contacts; those beyond it enter later


class Happens(Model):
    """An event, or a condition that is (or comes) true: exactly one."""

    name: Code
    event: EventName | None = None
    where: dict[str, Any] | None = None  # with an event
    when: dict[str, Any] | None = None


class ExitRule(Happens):
    """Acts at once, also in the middle of a wait."""


class Goal(Happens):
    """Counted once per run when it happens within `window` of the entry. `exit`: and the run ends with it."""

    window: Duration = timedelta(days=30)
    exit: StrictBool = False


def policy_problems(entry: EntryRules, exits: tuple[ExitRule, ...], goals: tuple[Goal, ...], facts: Facts) -> Iterator[Problem]:
    for index, trigger in enumerate(entry.triggers):
        yield from _trigger(f"entry.triggers[{index}]", trigger, facts)
    if entry.cool_down is not None:
        yield from duration_problems("entry.cool_down", entry.cool_down, "A cool-down")
        if entry.again == "once":
            yield Problem("entry.cool_down", "unused", 'With again "once" nobody enters a second time, however late; remove it.')
    for kind, rules in (("exits", exits), ("goals", goals)):
        if len({rule.name for rule in rules}) < len(rules):
            yield Problem(kind, "same_name", "Give each a name of its own.")
        for index, rule in enumerate(rules):
            yield from _happens(f"{kind}[{index}]", rule, facts)
    for index, goal in enumerate(goals):
        yield from duration_problems(f"goals[{index}].window", goal.window, "A goal's window")


def _trigger(path: str, trigger: EventTrigger | SegmentTrigger, facts: Facts) -> Iterator[Problem]:
    if isinstance(trigger, SegmentTrigger):
        if trigger.segment_id not in facts.segments:
            yield Problem(f"{path}.segment_id", "unknown_segment", "There is no segment with this id.")
        if trigger.rule is not None:
            yield Problem(f"{path}.rule", "unused", "The segment's own rule counts, as it is at publication; remove this one.")
    elif trigger.where is not None:
        yield from rule_problems(trigger.where, facts, f"{path}.where", run=False, event=True)


def _happens(path: str, rule: Happens, facts: Facts) -> Iterator[Problem]:
    if (rule.event is None) == (rule.when is None):
        yield Problem(path, "one_of", "Give exactly one of event and when.")
    if rule.where is not None:
        if rule.event is None:
            yield Problem(f"{path}.where", "unused", "Only an event has a where.")
        yield from rule_problems(rule.where, facts, f"{path}.where", event=True)
    if rule.when is not None:
        yield from rule_problems(rule.when, facts, f"{path}.when")


# --- May this contact enter? ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Past:
    """A contact's entries into a journey. `same_key`: those with the key that it would enter with now."""

    entries: int = 0
    same_key: int = 0
    under_way: int = 0  # of same_key
    last: datetime | None = None  # of same_key, aware UTC
    led: int = 0  # of same_key, in the last hour, by `LEADING`


def refusal(rules: EntryRules, past: Past, now: datetime, source: str) -> str | None:
    """Why the contact may not enter by `source` at `now` (aware UTC), as a code; None: it may."""
    if rules.again == "once" and past.same_key:
        return "entered_before"
    if rules.again == "after_exit" and past.under_way:
        return "under_way"
    if rules.cool_down is not None and past.last is not None and now < past.last + rules.cool_down:
        return "cooling_down"
    if rules.maximum is not None and past.entries >= rules.maximum:
        return "maximum_reached"
    if source in LEADING and past.led >= MAX_LED:
        return "entered_too_often"
    return None
