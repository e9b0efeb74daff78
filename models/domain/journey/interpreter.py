"""How a run moves through its definition: (definition, state, what happened) → the next state. Pure.

The same functions drive the workflow, the simulator and the tests. The driver loops:

    state = enter(definition, state, now)
    while (command := next_command(definition, state)) is not None:
        ... do what the command says, then apply one of the functions below ...

Every function gives a `Progress`: the new state and the changes to be recorded on the run's timeline.
All times are aware UTC.
"""

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from models.domain.connection import BROKEN_REASONS
from models.domain.journey.definition import BranchStep, Definition, ExitStep, SendStep, WaitStep
from models.domain.journey.run import FINISHED, Phase, RunState

PAUSES = ("campaign_paused", "journey_paused", "run_paused")  # as the last check before a send calls them


@dataclass(frozen=True)
class Send:
    """Ask whether the step's message may be sent, and send it."""

    step_id: str
    visit: int
    round: int


@dataclass(frozen=True)
class Choose:
    """Ask which branch the contact takes now."""

    step_id: str
    visit: int


@dataclass(frozen=True)
class WaitUntil:
    """Do nothing before `at`, then call `wake`."""

    at: datetime


@dataclass(frozen=True)
class AwaitOperator:
    """Do nothing until a person retries, skips or cancels."""


Command = Send | Choose | WaitUntil | AwaitOperator


@dataclass(frozen=True)
class Change:
    """One line of the timeline, not yet numbered or dated."""

    kind: str
    phase: Phase
    step_id: str | None = None
    visit: int | None = None
    wake_at: datetime | None = None
    reason: str | None = None
    details: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Progress:
    state: RunState
    changes: tuple[Change, ...] = ()


def next_command(definition: Definition, state: RunState) -> Command | None:
    """What the run needs next, or None once it is finished."""
    if state.phase in FINISHED or state.step_id is None:
        return None
    if state.phase is Phase.NEEDS_ATTENTION:
        return AwaitOperator()
    if state.phase in (Phase.WAITING, Phase.HELD):
        assert state.wake_at is not None
        return WaitUntil(state.wake_at)
    match definition.steps[state.step_id]:
        case SendStep():
            return Send(state.step_id, state.visit, state.round)
        case BranchStep():
            return Choose(state.step_id, state.visit)
        case step:
            raise AssertionError(f"a run never rests active at a {step.kind} step")


def enter(definition: Definition, state: RunState, now: datetime) -> Progress:
    """A run that has not started (sequence 0) stands at its first step; any other is left as it is."""
    if state.sequence:
        return Progress(state)
    arrived = _arrive(definition, state, state.step_id, now)
    return Progress(arrived.state, (Change("entered", Phase.ACTIVE, state.step_id), *arrived.changes))


def sent(definition: Definition, state: RunState, now: datetime, details: dict[str, Any]) -> Progress:
    """The step's message was accepted."""
    return _leave(definition, state, now, Change("sent", state.phase, state.step_id, state.visit, details=details))


def not_sent(definition: Definition, state: RunState, now: datetime, reason: str) -> Progress:
    """The step's message must not or cannot reach this contact; the step says what the run does then."""
    step = definition.steps[state.step_id or ""]
    change = Change("not_sent", state.phase, state.step_id, state.visit, reason=reason)
    if isinstance(step, SendStep) and step.on_refused == "exit":
        return _finish(state, Phase.EXITED, reason, (change,))
    return _leave(definition, state, now, change)


def held(state: RunState, until: datetime, reason: str) -> Progress:
    """The step's message may leave at `until` at the earliest; everything is asked again then."""
    new = state.model_copy(update={"phase": Phase.HELD, "wake_at": until, "reason": reason, "round": state.round + 1})
    return Progress(new, (Change("held", Phase.HELD, state.step_id, state.visit, until, reason),))


def unhold(state: RunState, now: datetime) -> RunState:
    """A run that was held only by a pause or a broken connection need not wait any longer, now that it is lifted or mended."""
    if state.phase is Phase.HELD and (state.reason in PAUSES or state.reason in BROKEN_REASONS):
        return state.model_copy(update={"wake_at": now})
    return state


def wake(definition: Definition, state: RunState, now: datetime) -> Progress:
    """The time of a waiting or held run has come."""
    if state.phase is Phase.HELD:
        new = state.model_copy(update={"phase": Phase.ACTIVE, "wake_at": None, "reason": None})
        return Progress(new, (Change("woke", Phase.ACTIVE, state.step_id, state.visit),))
    return _leave(definition, state, now, Change("woke", Phase.ACTIVE, state.step_id, state.visit))


def chose(definition: Definition, state: RunState, now: datetime, index: int | None) -> Progress:
    """The contact takes the condition of this index, or `otherwise`."""
    step = definition.steps[state.step_id or ""]
    assert isinstance(step, BranchStep)
    taken = step.otherwise if index is None else step.conditions[index].next
    details = {"index": index, "name": "otherwise" if index is None else step.conditions[index].name, "next": taken}
    change = Change("chose", Phase.ACTIVE, state.step_id, state.visit, details=details)
    return _onwards(definition, state, taken, now, change)


def park(state: RunState, reason: str) -> Progress:
    """The step failed for good: the run stops here, its state intact, until a person decides."""
    new = state.model_copy(update={"phase": Phase.NEEDS_ATTENTION, "wake_at": None, "reason": reason})
    return Progress(new, (Change("parked", Phase.NEEDS_ATTENTION, state.step_id, state.visit, reason=reason),))


def retry(state: RunState) -> Progress:
    """A parked run tries its step again."""
    new = state.model_copy(update={"phase": Phase.ACTIVE, "reason": None, "round": state.round + 1})
    return Progress(new, (Change("retried", Phase.ACTIVE, state.step_id, state.visit),))


def skip(definition: Definition, state: RunState, now: datetime) -> Progress:
    """The run leaves its step undone. A branch goes its `otherwise` way."""
    step = definition.steps[state.step_id or ""]
    onwards = step.otherwise if isinstance(step, BranchStep) else _next_of(definition, state)
    return _onwards(definition, state, onwards, now, Change("skipped", Phase.ACTIVE, state.step_id, state.visit))


def cancel(state: RunState, reason: str | None) -> Progress:
    """The run ends here by an operator's word."""
    return _finish(state, Phase.CANCELLED, reason, ())


def _leave(definition: Definition, state: RunState, now: datetime, change: Change) -> Progress:
    return _onwards(definition, state, _next_of(definition, state), now, change)


def _next_of(definition: Definition, state: RunState) -> str | None:
    step = definition.steps[state.step_id or ""]
    return step.next if isinstance(step, SendStep | WaitStep) else None


def _onwards(definition: Definition, state: RunState, step_id: str | None, now: datetime, change: Change) -> Progress:
    arrived = _arrive(definition, state, step_id, now)
    return Progress(arrived.state, (change, *arrived.changes))


def _arrive(definition: Definition, state: RunState, step_id: str | None, now: datetime) -> Progress:
    """The run stands at `step_id`, waiting if that is a wait, finished if there is nothing (more) to do."""
    if step_id is None:
        return _finish(state, Phase.COMPLETED, None, ())
    visit = state.visits.get(step_id, 0) + 1
    # Only a step on a loop can be arrived at again: the state, which travels in payloads, does not grow with the way.
    visits = {**state.visits, step_id: visit} if step_id in definition.looping else state.visits
    here = state.model_copy(
        update={
            "step_id": step_id,
            "phase": Phase.ACTIVE,
            "visit": visit,
            "visits": visits,
            "round": 0,
            "wake_at": None,
            "reason": None,
        }
    )
    match definition.steps[step_id]:
        case ExitStep() as step:
            return _finish(here, Phase.EXITED, step.reason, ())
        case WaitStep() as step:
            until = now + step.duration
            waiting = here.model_copy(update={"phase": Phase.WAITING, "wake_at": until})
            return Progress(waiting, (Change("waiting", Phase.WAITING, step_id, here.visit, until),))
        case _:
            return Progress(here)


def _finish(state: RunState, phase: Phase, reason: str | None, before: tuple[Change, ...]) -> Progress:
    new = state.model_copy(update={"phase": phase, "wake_at": None, "reason": reason})
    return Progress(new, (*before, Change(str(phase), phase, state.step_id, state.visit, reason=reason)))
