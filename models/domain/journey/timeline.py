"""A run's timeline: events, the decisions behind them and their deliveries, in order and in sentences. Pure."""

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from itertools import accumulate
from typing import Any, Literal

from models.domain.journey.happening import Happening, Names
from models.domain.journey.run import Phase
from models.domain.journey.sentences import sentence

Source = Literal["event", "decision", "delivery", "goal"]
Place = tuple[str | None, int | None]  # step id and visit
# What is done once for a visit: told again, it was found done by a run that had been moved back.
DONE_ONCE = frozenset({"sent", "contact_updated", "subscribed", "unsubscribed", "called_webhook", "team_notified", "entered_journey"})
MOVED = "moved"  # to another version
GOAL_EXIT = "goal:"  # begins the reason of a run that a goal has ended


@dataclass(frozen=True)
class Event:
    """A line of the run's record. Times are aware UTC."""

    sequence: int
    kind: str
    occurred_at: datetime
    step_id: str | None = None
    visit: int | None = None
    details: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Decided:
    """The answer to one question: may this message leave now?"""

    check: str
    outcome: str  # send | hold | refuse
    decided_at: datetime
    step_id: str
    visit: int
    round: int = 0
    reason: str | None = None
    hold_until: datetime | None = None
    inputs: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Delivered:
    """One message and what became of it."""

    id: str
    state: str
    at: datetime  # of the last thing known about it
    step_id: str
    visit: int
    outcome: str | None = None
    reason: str | None = None
    details: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Reached:
    """A goal of the journey that the contact has reached in time. `event_id`: by this event."""

    goal: str
    at: datetime
    event_id: str | None = None


@dataclass(frozen=True)
class Entry:
    """One line to be read. `decision` and `delivery` are the raw records behind it, where there are any."""

    at: datetime
    kind: str
    source: Source
    sentence: str = ""
    step_id: str | None = None
    visit: int | None = None
    reason: str | None = None
    until: datetime | None = None
    details: Mapping[str, Any] = field(default_factory=dict)
    decision: Decided | None = None
    delivery: Delivered | None = None


def timeline(
    events: Sequence[Event],
    decisions: Sequence[Decided],
    deliveries: Sequence[Delivered],
    names: Names,
    goals: Sequence[Reached] = (),
) -> list[Entry]:
    """Every event in its sequence; decisions, deliveries and goals that no event tells of stand at their own time, the former behind
    what led the run to their step and before what they led to. Each in the names of the version that the run was on.

    A decision to hold or refuse is told by the `held` or `not_sent` it led to, a settled delivery by its `sent` or
    `not_sent`, a goal by the exit it led to, so that nothing is said twice.
    """
    ordered = _with_kept(sorted(events, key=lambda event: event.sequence))
    blocking = _blocking(decisions)
    by_place: dict[Place, Delivered] = {(delivery.step_id, delivery.visit): delivery for delivery in deliveries}
    told_by_events: list[Entry] = []
    told: list[Decided | Delivered] = []
    for event in ordered:
        decision = _decision_behind(event, blocking)
        delivery = by_place.get((event.step_id, event.visit)) if event.kind in ("sent", "not_sent", "parked", "skipped") else None
        told += [record for record in (decision, delivery) if record is not None]
        told_by_events.append(_event_entry(event, decision, delivery))
    loose = [_decision_entry(decision) for decision in decisions if not _is_among(decision, told)]
    loose += [_delivery_entry(delivery) for delivery in deliveries if not _is_among(delivery, told)]
    reasons = {event.details.get("reason") for event in ordered}
    loose += [_goal_entry(goal) for goal in goals if f"{GOAL_EXIT}{goal.goal}" not in reasons]
    return list(_told(_in_order(told_by_events, loose), names))


def _with_kept(events: Sequence[Event]) -> list[Event]:
    """What a run that was moved back had done already, and did not repeat, says so."""
    done: dict[tuple[str, Place], datetime] = {}
    found: list[Event] = []
    for event in events:
        what = (event.kind, (event.step_id, event.visit))
        if event.kind in DONE_ONCE and what in done:
            event = replace(event, details={"kept_at": done[what].isoformat(), **event.details})
        done.setdefault(what, event.occurred_at)
        found.append(event)
    return found


def _told(entries: Sequence[Entry], names: Names) -> Iterator[Entry]:
    """Each with its sentence, in the names of the version that the run was on then."""
    moves = 0
    for entry in entries:
        moves += entry.kind == MOVED
        yield replace(entry, sentence=sentence(_happening(entry, names.after(moves))))


def _happening(entry: Entry, names: Names) -> Happening:
    inputs = {**(entry.delivery.details if entry.delivery else {}), **(entry.decision.inputs if entry.decision else {})}
    return Happening(entry.kind, names, entry.step_id, entry.visit, entry.reason, entry.until, entry.details, inputs)


def _blocking(decisions: Sequence[Decided]) -> dict[Place, list[Decided]]:
    found: dict[Place, list[Decided]] = {}
    for decision in sorted(decisions, key=lambda decision: decision.round):
        if decision.outcome != "send":
            found.setdefault((decision.step_id, decision.visit), []).append(decision)
    return found


def _decision_behind(event: Event, blocking: Mapping[Place, list[Decided]]) -> Decided | None:
    """The oldest decision not yet told that explains this hold or refusal."""
    outcome = {"held": "hold", "not_sent": "refuse"}.get(event.kind)
    waiting = blocking.get((event.step_id, event.visit), [])
    for index, decision in enumerate(waiting):
        if decision.outcome == outcome and decision.reason == event.details.get("reason"):
            return waiting.pop(index)
    return None


def _is_among(record: object, records: Sequence[object]) -> bool:
    return any(record is other for other in records)


def _in_order(events: Sequence[Entry], loose: Sequence[Entry]) -> list[Entry]:
    """The events as they are, whatever the clocks say, each of the others before the event that it must not stand behind."""
    line = _Line(events)
    before: defaultdict[int, list[Entry]] = defaultdict(list)
    for entry in sorted(loose, key=lambda entry: entry.at):
        before[line.position(entry)].append(entry)
    ordered = [one for index, event in enumerate(events) for one in (*before[index], event)]
    return [*ordered, *before[len(events)]]


class _Line:
    """The events of a run, and where among them what happened at a step belongs."""

    def __init__(self, events: Sequence[Entry]) -> None:
        self.times = list(accumulate((event.at for event in events), max))
        self.at_place: defaultdict[Place, list[int]] = defaultdict(list)
        for index, event in enumerate(events):
            self.at_place[event.step_id, event.visit].append(index)
        active = [event.details.get("phase") == Phase.ACTIVE for event in events]
        # The run had rested and goes on: its step's questions are asked after such an event, not before it.
        self.asking = {index for index in range(1, len(events)) if active[index] and not active[index - 1]}

    def position(self, entry: Entry) -> int:
        """How many events stand before it: those until its time, the one that led to its step, not the one it led to."""
        here = self.at_place.get((entry.step_id, entry.visit), []) if entry.step_id is not None else []  # a goal belongs to no step
        position = max(bisect_right(self.times, entry.at), here[0] if here else 0)
        answer = next((index for index in here if index not in self.asking and self.times[index] >= entry.at), position)
        return min(position, answer)


def _event_entry(event: Event, decision: Decided | None, delivery: Delivered | None) -> Entry:
    return Entry(
        at=event.occurred_at,
        kind=event.kind,
        source="event",
        step_id=event.step_id,
        visit=event.visit,
        reason=event.details.get("reason"),
        until=_moment_of(event.details.get("wake_at")) or (decision.hold_until if decision else None),
        details=event.details,
        decision=decision,
        delivery=delivery,
    )


def _moment_of(value: object) -> datetime | None:
    if isinstance(value, datetime):
        return value
    try:
        return datetime.fromisoformat(str(value)) if value else None
    except ValueError:
        return None


def _decision_entry(decision: Decided) -> Entry:
    return Entry(
        at=decision.decided_at,
        kind="decision",
        source="decision",
        step_id=decision.step_id,
        visit=decision.visit,
        reason=decision.reason,
        until=decision.hold_until,
        details={"check": decision.check, "outcome": decision.outcome, "round": decision.round},
        decision=decision,
    )


def _delivery_entry(delivery: Delivered) -> Entry:
    return Entry(
        at=delivery.at,
        kind="delivery",
        source="delivery",
        step_id=delivery.step_id,
        visit=delivery.visit,
        reason=delivery.reason,
        details={**delivery.details, "state": delivery.state, "outcome": delivery.outcome},
        delivery=delivery,
    )


def _goal_entry(reached: Reached) -> Entry:
    event = {} if reached.event_id is None else {"event_id": reached.event_id}
    return Entry(at=reached.at, kind="goal_reached", source="goal", details={"goal": reached.goal, **event})
