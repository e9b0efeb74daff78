"""All the trips of a simulation. Pure."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from uuid import UUID, uuid5

from models.domain.errors import Problem
from models.domain.journey.definition import BranchStep, Definition, WaitForStep
from models.domain.journey.entry import EventTrigger
from models.domain.segment_memory import events_asked
from models.domain.simulation.person import Person
from models.domain.simulation.report import Summary
from models.domain.simulation.scenario import World
from models.domain.simulation.travel import travel
from models.domain.simulation.trip import Plan, Trip

RUNS = UUID("0f6f2d7e-3c55-5d7f-8a3d-1c9b1d0a5b42")  # the namespace of runs that nothing carries
MOST_COMMANDS = 400_000  # of all trips together
MOST_LINES = 20_000  # of those that are kept: who is told of more cannot read it


@dataclass
class Simulated:
    """The first trips in full, as long as they have not more than `MOST_LINES` together, and all of them counted."""

    trips: list[Trip] = field(default_factory=list)
    summary: Summary = field(default_factory=Summary)


def simulate(plan: Plan, people: Sequence[Person], keep: int) -> Simulated:
    """Everybody's trip, one after the other; the first `keep` are kept. The people are changed on the way."""
    simulated, left, lines = Simulated(), MOST_COMMANDS, 0
    for person in people:
        plan.heed()
        trip = travel(replace(plan, max_commands=min(plan.max_commands, left)), person, run_of(person))
        left = max(left - trip.commands, 0)
        simulated.summary.add(trip)
        if len(simulated.trips) < keep and lines < MOST_LINES:
            lines += len(trip.lines)
            simulated.trips.append(trip)
    return simulated


def run_of(person: Person) -> UUID:
    """The id of the person's run: the same in every simulation, so that a spread delays it equally."""
    return uuid5(RUNS, str(person.id))


def entry_problems(definition: Definition, world: World, path: str = "event") -> Iterator[Problem]:
    if world.event is not None and not any(
        isinstance(trigger, EventTrigger) and trigger.event == world.event.name for trigger in definition.entry.triggers
    ):
        yield Problem(f"{path}.name", "no_trigger", f"No trigger of the journey is about the event {world.event.name!r}.")


def asked_events(definition: Definition) -> set[str]:
    """The events about whose past anything in the (frozen) definition may ask."""
    rules = [rule for each in (*definition.exits, *definition.goals) for rule in (each.when, each.where) if rule is not None]
    rules += [trigger.where for trigger in definition.entry.triggers if isinstance(trigger, EventTrigger) and trigger.where is not None]
    names: set[str] = set()
    for step in definition.steps.values():
        match step:
            case BranchStep():
                rules += [condition.when for condition in step.conditions]
            case WaitForStep():
                rules += [condition.when for condition in step.conditions]
                rules += [awaited.where for awaited in step.events if awaited.where is not None]
                names |= {awaited.event for awaited in step.events}
    return names | {name for rule in rules for name in events_asked(rule)}
