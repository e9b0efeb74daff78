"""As which visit a run that a publish plan moves arrives at its step of the new version. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from models.domain.journey.definition import Definition
from models.domain.journey.replay import Arrival, Begun, Trip, begin_at
from models.domain.journey.run import ANY_STEP, RunState


@dataclass(frozen=True)
class Way:
    """What a run's row and record say of it: the step that it leaves, what it began with, and where it has been."""

    left: str | None
    begun: Begun
    arrivals: Sequence[Arrival]


NOWHERE = Way(None, Begun(), ())  # of a run whose contact was erased


def arriving(definition: Definition, state: RunState, way: Way) -> RunState:
    """The state, with the visits that the new version's workflow goes on counting from. `state`: as `interpreter.moving` gave it.

    A run that comes to a step at which it has been arrives as when it last did, and so meets what it did then, and behind it, instead of
    doing it again; on a loop, what it then comes to is new. At the step that it leaves this is the visit that it leaves. What was done
    before its last jump does not count. A later jump counts on from the highest visit of all.
    """
    if state.step_id is None or state.starts_at is not None:  # it has been nowhere
        return state
    floor, still = state.visits_before, way.left == state.step_id
    begun = way.begun.visits if way.begun.visits_before == floor else {}
    arrivals = [each for each in way.arrivals if each.visit > floor]
    trip = Trip(state.run_id, Begun(begun, floor), arrivals)
    visits = dict(begin_at([trip], state.step_id, definition.looping, named=not still).visits)
    if still:
        visits[state.step_id] = state.visit - 1
    most = max((state.visit, *state.visits.values(), *(each.visit for each in arrivals)))
    return replace(state, visits={step: count for step, count in visits.items() if count > floor} | {ANY_STEP: most})
