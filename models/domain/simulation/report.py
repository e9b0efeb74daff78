"""What simulated trips came to: one of them told as a timeline, or many counted. Pure."""

from collections import Counter, defaultdict
from dataclasses import dataclass, field
from datetime import datetime

from models.domain.journey.happening import Names
from models.domain.journey.interpreter import Change
from models.domain.journey.run import FINISHED
from models.domain.journey.timeline import Decided, Entry, Event, timeline
from models.domain.simulation.trip import Judged, Line, Trip


def told(trip: Trip, names: Names) -> list[Entry]:
    """Every change and decision of the trip, in order and in the same sentences as a real run's timeline."""
    events = [_event(number, line) for number, line in enumerate(trip.lines, 1)]
    return timeline(events, [decided(one) for one in trip.decisions], [], names)


def _event(number: int, line: Line) -> Event:
    """As the record of a run keeps it."""
    change = line.change
    details = {
        **change.details,
        "phase": str(change.phase),
        **({"reason": change.reason} if change.reason is not None else {}),
        **({"wake_at": change.wake_at.isoformat()} if change.wake_at is not None else {}),
    }
    return Event(number, change.kind, line.at, change.step_id, change.visit, details)


def decided(one: Judged) -> Decided:
    decision = one.decision
    return Decided(
        check=one.check,
        outcome=str(decision.outcome),
        decided_at=one.at,
        step_id=one.step_id,
        visit=one.visit,
        round=one.round,
        reason=None if decision.reason is None else str(decision.reason),
        hold_until=decision.hold_until,
        inputs=decision.inputs,
    )


# --- Many of them -----------------------------------------------------------------------------------------------------


@dataclass
class StepCount:
    """`arrived` counts visits. `still_there`: runs that stand there at the end of the simulation."""

    arrived: int = 0
    sent: int = 0
    held: int = 0
    not_sent: Counter[str] = field(default_factory=Counter)  # by reason
    ways: Counter[str] = field(default_factory=Counter)  # by the step that was taken next; "" where the journey ends
    exits: Counter[str] = field(default_factory=Counter)  # by the way out that was taken, of steps with several: its path in the step
    ended: int = 0
    still_there: int = 0


@dataclass
class Summary:
    """`volume`: messages that were sent, or may have been, by the hour (aware UTC) and channel."""

    contacts: int = 0
    steps: dict[str, StepCount] = field(default_factory=lambda: defaultdict(StepCount))
    ends: Counter[tuple[str, str | None]] = field(default_factory=Counter)  # by phase and reason
    goals: Counter[str] = field(default_factory=Counter)
    volume: Counter[tuple[datetime, str]] = field(default_factory=Counter)
    cut: int = 0

    @property
    def messages(self) -> int:
        return self.volume.total()

    def add(self, trip: Trip) -> None:
        self.contacts += 1
        self.cut += trip.cut
        self.ends[trip.status, trip.reason] += 1
        self.goals.update(trip.goals)
        for sent in (sent for sent in trip.messages if sent.left):
            self.volume[sent.at.replace(minute=0, second=0, microsecond=0), sent.channel] += 1
        if trip.refused is None:
            self._add_steps(trip)

    def _add_steps(self, trip: Trip) -> None:
        visits = {(line.change.step_id, line.change.visit or 1) for line in trip.lines} | {(trip.state.step_id, trip.state.visit)}
        for step_id in (step_id for step_id, _ in visits if step_id is not None):
            self.steps[step_id].arrived += 1
        for line in trip.lines:
            self._add_change(self.steps[line.change.step_id or ""], line)
        if trip.state.phase not in FINISHED:
            self.steps[trip.state.step_id or ""].still_there += 1

    def _add_change(self, step: StepCount, line: Line) -> None:
        change = line.change
        match change.kind:
            case "sent":
                step.sent += 1
            case "held":
                step.held += 1
            case "not_sent":
                step.not_sent[change.reason or ""] += 1
            case "completed" | "exited" | "cancelled":
                step.ended += 1
        if "next" in change.details:
            step.ways[change.details["next"] or ""] += 1
            step.exits[_way_out(change)] += 1


def _way_out(change: Change) -> str:
    """As `exits` of the step calls it: that tells two ways apart that lead to the same step."""
    details = change.details
    match change.kind:
        case "split":
            return f"arms[{details['index']}].next"
        case "chose":
            return "otherwise" if details["index"] is None else f"conditions[{details['index']}].next"
        case "matched" if "condition" in details:
            return f"conditions[{details['condition']}].next"
        case "matched":
            return f"events[{details['index']}].next"
    return "timeout_next"
