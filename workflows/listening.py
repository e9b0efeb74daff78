"""What runs hear: of what happens outside, and the answers to what they have asked."""

from dataclasses import replace

from temporalio import workflow

from activities.contracts.journey import RunMessage
from activities.contracts.steps import StepAnswer
from models.domain.journey import interpreter
from models.domain.journey.run import Phase
from models.domain.journey.steps.base import Answer
from workflows.trips import Trip, Trips, author_of


def listen(trips: Trips, trip: Trip, message: RunMessage) -> None:
    match message.kind:
        case "matched":
            _match(trips, trip, message)
        case "exit":
            trip.state = replace(trip.state, leaving=trip.state.leaving or message.reason or "exit_rule")
        case "reconsider":
            _reconsider(trips, trip)
        case "variables":
            trip.author = author_of(message)
            names, now = list(message.names), workflow.now()
            trips.apply(trip, interpreter.variables_changed(trips.definition, trip.state, names, now, message.reason))


def _reconsider(trips: Trips, trip: Trip) -> None:
    """Also while the end of its wait is asked: the answer may come of what the contact was like before, and is asked again then."""
    if trip.state.phase is Phase.ACTIVE and not trip.resting and interpreter.planned_wait(trips.definition, trip.state):
        trip.outdated = trip.outdated or workflow.patched("2026-11-26-outdated-answers")
    else:
        trip.state = interpreter.reconsidered(trips.definition, trip.state, workflow.now())


def _match(trips: Trips, trip: Trip, message: RunMessage) -> None:
    state = trip.state
    if (state.step_id, state.visit) != (message.step_id, message.visit):
        return
    at, paused = (message.step_id or "", message.visit or 1), trips.is_held(trip)
    progress = interpreter.matched(trips.definition, state, workflow.now(), *at, heard(message), paused=paused)
    if progress is not None:
        trips.apply(trip, progress)
    elif state.phase is Phase.ACTIVE and not trip.resting:
        trip.early = message


def heard(told: StepAnswer | RunMessage) -> Answer:
    if isinstance(told, RunMessage):
        return Answer(index=told.index, details=told.details)
    return Answer(told.index, told.until, told.refused, told.reason, told.details)
