"""How a run moves through its definition: (definition, state, what happened) → the next state. Pure.

The same functions drive the workflow, the simulator and the tests. The driver loops:

    state = enter(definition, state, now)
    while (command := next_command(definition, state)) is not None:
        ... do what the command says, then apply one of the functions below ...

Every function gives a `Progress`: the new state and the changes to be recorded on the run's timeline.
What a kind of step does is said by its class (`models.domain.journey.steps`). All times are aware UTC.
"""

from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from models.domain.connection import BROKEN_REASONS
from models.domain.journey.definition import Definition, ReviewStep, SendStep, Step, WaitForStep, WaitStep
from models.domain.journey.run import FINISHED, Phase, RunState
from models.domain.journey.steps.base import Answer, Ask, Go, Leave, Outcome, Rest, fraction

ROUNDS_PER_VERSION = 1_000  # a run that was moved asks everything anew: its rounds do not meet those before
GRAINS = 20  # of a spread resumption
STEP_CANCELLED = "step_cancelled"  # why a step was skipped that somebody had cancelled before
SKIPPED_BECAUSE, FAILED = "because", "failed"  # in the details of a step that was skipped
PAUSES = ("campaign_paused", "journey_paused", "run_paused")  # as the last check before a send calls them


@dataclass(frozen=True)
class Send:
    """Ask whether the step's message may be sent, and send it."""

    step_id: str
    visit: int
    round: int


@dataclass(frozen=True)
class Question:
    """Ask the activity of this name what the step is to do, and call `answered`."""

    name: str
    kind: str  # of the step
    step_id: str
    visit: int
    round: int


@dataclass(frozen=True)
class WaitUntil:
    """Do nothing before `at`, then call `wake`. None: until somebody speaks."""

    at: datetime | None


@dataclass(frozen=True)
class AwaitOperator:
    """Do nothing until a person retries, skips or cancels."""


Command = Send | Question | WaitUntil | AwaitOperator


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
        return WaitUntil(state.wake_at)
    step = definition.steps[state.step_id]
    if isinstance(step, SendStep):
        return Send(state.step_id, state.visit, state.round)
    return Question(step.asks(state), step.kind, state.step_id, state.visit, state.round)


def enter(definition: Definition, state: RunState, now: datetime) -> Progress:
    """A run that has not started (sequence 0) stands at its first step, or waits for its start; one that has been moved here from
    another version arrives; any other is left as it is."""
    if state.sequence and not state.moved:
        return Progress(state)
    begun = Change("moved" if state.moved else "entered", Phase.ACTIVE, state.step_id)
    here = replace(state, moved=False)
    if state.starts_at is not None and state.starts_at > now:
        waiting = replace(here, phase=Phase.WAITING, wake_at=state.starts_at, reason=None)
        return Progress(waiting, (begun, Change("waiting", Phase.WAITING, state.step_id, None, state.starts_at, "starts_later")))
    started = replace(here, starts_at=None)
    return _after(_arrive(definition, started, state.step_id, now, keep_arrival=state.moved), begun)


# --- sends ----------------------------------------------------------------------------------------------------------


def sent(definition: Definition, state: RunState, now: datetime, details: dict[str, Any]) -> Progress:
    """The step's message was accepted."""
    return _follow(definition, state, Go(_send_step(definition, state).next, "sent", details=details), now)


def not_sent(definition: Definition, state: RunState, now: datetime, reason: str) -> Progress:
    """The step's message must not or cannot reach this contact; the step says what the run does then."""
    step = _send_step(definition, state)
    if step.on_refused == "exit":
        return _follow(definition, state, Leave(reason, "not_sent"), now)
    return _follow(definition, state, Go(step.not_sent if step.on_refused == "path" else step.next, "not_sent", reason), now)


def held(state: RunState, until: datetime, reason: str) -> Progress:
    """The step's message may leave at `until` at the earliest; everything is asked again then."""
    new = replace(state, phase=Phase.HELD, wake_at=until, asks_from=None, reason=reason, round=state.round + 1)
    return Progress(new, (Change("held", Phase.HELD, state.step_id, state.visit, until, reason),))


def unhold(state: RunState, now: datetime) -> RunState:
    """A run that was held only by a pause or a broken connection need not wait any longer, now that it is lifted or mended."""
    if state.phase is Phase.HELD and (state.reason in PAUSES or state.reason in BROKEN_REASONS):
        return replace(state, wake_at=now)
    return state


# --- answers, waits, events -----------------------------------------------------------------------------------------


def answered(definition: Definition, state: RunState, answer: Answer, now: datetime) -> Progress:
    """The world's answer to the step's question."""
    return _follow(definition, state, _step(definition, state).answered(state, answer, now), now)


def wake(definition: Definition, state: RunState, now: datetime) -> Progress:
    """The time of a waiting or held run has come."""
    if state.phase is Phase.HELD:
        new = replace(state, phase=Phase.ACTIVE, wake_at=None, reason=None)
        return Progress(new, (Change("woke", Phase.ACTIVE, state.step_id, state.visit),))
    if state.starts_at is not None:
        started = replace(state, starts_at=None)
        return _after(_arrive(definition, started, state.step_id, now), Change("started", Phase.ACTIVE, state.step_id))
    step = _step(definition, state)
    if isinstance(step, ReviewStep) and state.approved is not None:  # said, and on record, while a pause held it
        return _follow(definition, state, replace(step.reviewed(state.approved), kind=None), now)
    if isinstance(step, WaitForStep):  # an event may have come at the last moment: the database says which was first
        return Progress(replace(state, phase=Phase.ACTIVE, wake_at=None, expired=True, round=state.round + 1))
    return _follow(definition, state, step.woke(state, now), now)


def reconsidered(definition: Definition, state: RunState, now: datetime) -> RunState:
    """The contact has changed: a wait whose end depends on it asks again when that is. The old end stands until the answer."""
    step = planned_wait(definition, state)
    if state.phase is not Phase.WAITING or step is None:
        return state
    return _asking_anew(state, _plans_from(step, state, now))


def planned_wait(definition: Definition, state: RunState) -> WaitStep | None:
    """The wait at which the run stands, if its end depends on the contact."""
    step = definition.steps.get(state.step_id or "")
    return step if isinstance(step, WaitStep) and step.planned and state.starts_at is None else None


def _asking_anew(state: RunState, asks_from: datetime) -> RunState:
    return replace(state, phase=Phase.ACTIVE, asks_from=asks_from, round=state.round + 1)


def _plans_from(step: WaitStep, state: RunState, now: datetime) -> datetime:
    """Now, but not once the moment waited for has come, while a pause or a spread keeps the run: then from just before it, so that it
    is found again, not the next one, unless the contact's zone or date has changed."""
    if state.wake_at is None:
        return now
    return min(now, state.wake_at - step.delay(state) - timedelta(microseconds=1))


def matched(
    definition: Definition, state: RunState, now: datetime, step_id: str, visit: int, answer: Answer, *, paused: bool = False
) -> Progress | None:
    """What the run waited for has happened. A paused one stays where it is, and is answered the same when it asks again: that of the
    wait which is over. None: it does not wait for that (any more, or yet)."""
    if (state.step_id, state.visit, state.phase) != (step_id, visit, Phase.WAITING):
        return None
    if paused:
        return Progress(replace(state, phase=Phase.ACTIVE, asks_from=now))
    return answered(definition, state, answer, now)


def reviewed(definition: Definition, state: RunState, now: datetime, approved: bool, *, paused: bool = False) -> Progress | None:
    """A person has looked. A paused run stays where it is until the pause is lifted. None: it does not wait for a review (any more)."""
    step = definition.steps.get(state.step_id or "")
    if state.phase is not Phase.WAITING or state.starts_at is not None or not isinstance(step, ReviewStep):
        return None
    if state.approved is not None:
        return None
    decision = step.reviewed(approved)
    if not paused:
        return _follow(definition, state, decision, now)
    assert decision.kind is not None
    decided = replace(state, approved=approved, wake_at=now)
    return Progress(decided, (Change(decision.kind, Phase.WAITING, state.step_id, state.visit, now, details=decision.details),))


def times_asked(round: int) -> int:
    """How often before, of this version of the journey: a run that was moved to it asks everything anew. After a thousand times it is asked
    as at first again."""
    return round % ROUNDS_PER_VERSION


# --- operators ------------------------------------------------------------------------------------------------------


def moving(state: RunState, step_id: str) -> RunState:
    """The state to be handed over to another version's workflow, where it arrives at `step_id`."""
    return replace(state, step_id=step_id, moved=True, moves=state.moves + 1)


def park(state: RunState, reason: str) -> Progress:
    """The step failed for good: the run stops here, its state intact, until a person decides."""
    new = replace(state, phase=Phase.NEEDS_ATTENTION, wake_at=None, asks_from=None, reason=reason)
    return Progress(new, (Change("parked", Phase.NEEDS_ATTENTION, state.step_id, state.visit, reason=reason),))


def pass_over(definition: Definition, state: RunState, now: datetime, reason: str) -> Progress:
    """The step failed for good, and the run goes on without it, as `skip` does."""
    return _follow(definition, state, Go(_step(definition, state).skipped(), "skipped", reason, {SKIPPED_BECAUSE: FAILED}), now)


def retry(state: RunState, reason: str | None = None) -> Progress:
    """A parked run tries its step again."""
    new = replace(state, phase=Phase.ACTIVE, reason=None, round=state.round + 1)
    return Progress(new, (Change("retried", Phase.ACTIVE, state.step_id, state.visit, reason=reason),))


def stands_at(state: RunState, step_id: str, visit: int | None) -> bool:
    """Whether the run is still where somebody saw it (None: at whichever visit), and not finished."""
    return state.phase not in FINISHED and state.step_id == step_id and visit in (None, state.visit)


def skip(definition: Definition, state: RunState, now: datetime, reason: str | None = None) -> Progress:
    """The run leaves its step undone, whatever it does there. A branch goes its `otherwise` way, a wait for events the first of its
    ways, a review the `rejected` one. A run that starts later will leave its first step undone."""
    if state.starts_at is not None:
        return cancel_step(state, state.step_id or "", reason)
    return _follow(definition, state, Go(_step(definition, state).skipped(), "skipped", reason), now)


def jump(definition: Definition, state: RunState, step_id: str, now: datetime, reason: str | None = None) -> Progress:
    """The run arrives at the step anew, and what it does from there on is done anew, even where it was done before: its visits are
    counted on from the highest so far. One that was to start later starts now."""
    most = max((state.visits_before + 1, *state.visits.values()))
    fresh = replace(state, starts_at=None, visits_before=most, visits={})
    jumped = Change("jumped", Phase.ACTIVE, state.step_id, state.visit, reason=reason, details={"to": step_id})
    return _after(_arrive(definition, fresh, step_id, now), jumped)


def cancel_step(state: RunState, step_id: str, reason: str | None = None) -> Progress:
    """The run leaves the step undone when it comes to it next."""
    new = replace(state, skips=(*state.skips, step_id))
    return Progress(new, (_remark(state, "step_cancelled", reason, {"to": step_id}),))


def restore_step(state: RunState, step_id: str, reason: str | None = None) -> Progress:
    """The step that was cancelled is done after all."""
    new = replace(state, skips=tuple(each for each in state.skips if each != step_id))
    return Progress(new, (_remark(state, "step_restored", reason, {"to": step_id}),))


def variables_changed(definition: Definition, state: RunState, names: list[str], now: datetime, reason: str | None = None) -> Progress:
    """The run's row holds other values under these names. A wait that may depend on them asks anew; the old end stands until the answer.
    What is in flight may have read the old ones."""
    told = _remark(state, "variables_changed", reason, {"names": names})
    if state.phase is not Phase.WAITING or state.starts_at is not None:
        return Progress(state, (told,))
    step = _step(definition, state)
    if isinstance(step, WaitForStep):
        return Progress(_asking_anew(state, now), (told,))
    return Progress(reconsidered(definition, state, now), (told,))


def resumed(state: RunState, now: datetime, spread: timedelta | None, word: UUID | None, offset: float = 0.0) -> RunState:
    """A pause of all runs is lifted. With `spread`, each run goes on at a moment of its own within that period, the same whenever it is
    computed for the same `word`, and evenly spread over different runs; without, at once. The last resumption decides.

    Runs of one workflow share GRAINS moments, for waking costs by the moment; `offset` (from 0 up to, not including, 1) sets those of
    different workflows apart.
    """
    grain = int(GRAINS * fraction(state.run_id, word or "")) + offset
    moment = now + spread * (grain / GRAINS) if spread else None
    return state if moment == state.not_before else replace(state, not_before=moment)


def goes_on_at(command: Command, state: RunState) -> datetime | None:
    """The earliest moment for the command, None: at once. Not for commands that wait for somebody's word."""
    moments = [at for at in (state.not_before, command.at if isinstance(command, WaitUntil) else None) if at is not None]
    return max(moments, default=None)


def turn_ahead(state: RunState, now: datetime) -> datetime | None:
    """The moment that a spread resumption gave the run, as long as it lies ahead: until then it does nothing, whatever ends its wait."""
    return state.not_before if state.not_before is not None and state.not_before > now else None


def due_after_pause(state: RunState, now: datetime) -> datetime | None:
    """When a run whose pause is lifted goes on by itself: its own time, but not before the moment that a spread resumption gave it.
    None: by somebody's word or an event, or now. It is recorded, so that a run that waits for its turn is not taken for a stuck one."""
    turn = turn_ahead(state, now)
    if turn is not None and state.phase is Phase.ACTIVE:
        return turn
    if turn is None or state.wake_at is None or state.phase not in (Phase.WAITING, Phase.HELD):
        return state.wake_at
    return max(turn, state.wake_at)


def remarked(state: RunState, kind: str, why: str | None, details: dict[str, Any]) -> Progress:
    """Something was said about the run that changes nothing yet."""
    return Progress(state, (_remark(state, kind, why, details),))


def phase_on_record(state: RunState) -> Phase:
    """Where the run stands as people see it: it waits, also while it only asks for the end of its wait anew."""
    return Phase.WAITING if state.phase is Phase.ACTIVE and state.asks_from is not None else state.phase


def _remark(state: RunState, kind: str, why: str | None, details: dict[str, Any]) -> Change:
    """A line that leaves phase, wake time and the reason for them as they are; `why` is the operator's."""
    said = details if why is None else {**details, "why": why}
    return Change(kind, phase_on_record(state), state.step_id, state.visit, state.wake_at, state.reason, said)


def cancel(state: RunState, reason: str | None) -> Progress:
    """The run ends here by an operator's word."""
    return _finish(state, Phase.CANCELLED, reason)


def leave(state: RunState, reason: str) -> Progress:
    """The run ends here by a rule of the journey."""
    return _finish(state, Phase.EXITED, reason)


# --- the one way on -------------------------------------------------------------------------------------------------


def _step(definition: Definition, state: RunState) -> Step:
    return definition.steps[state.step_id or ""]


def _send_step(definition: Definition, state: RunState) -> SendStep:
    step = _step(definition, state)
    assert isinstance(step, SendStep)
    return step


def _follow(definition: Definition, state: RunState, outcome: Outcome, now: datetime) -> Progress:
    """The run at its step does what the step said."""
    match outcome:
        case Ask():
            return Progress(state)
        case Rest():
            return _rest(state, outcome)
        case Leave():
            said = _said(state, outcome.kind, outcome.reason, outcome.details)
            return _after(_finish(state, Phase.EXITED, outcome.reason), *said)
        case Go():
            said = _said(state, outcome.kind, outcome.reason, outcome.details)
            return _after(_arrive(definition, state, outcome.next, now), *said)


def _said(state: RunState, kind: str | None, reason: str | None, details: dict[str, Any]) -> tuple[Change, ...]:
    return () if kind is None else (Change(kind, Phase.ACTIVE, state.step_id, state.visit, reason=reason, details=details),)


def _rest(state: RunState, rest: Rest) -> Progress:
    waiting = replace(state, phase=Phase.WAITING, wake_at=rest.until, asks_from=None, reason=None)
    if state.asks_from is not None and state.wake_at == rest.until and not _turn_recorded(state, state.asks_from):
        return Progress(waiting)  # asked again, and nothing is new
    kind = "rescheduled" if state.wake_at is not None else rest.kind
    return Progress(waiting, (Change(kind, Phase.WAITING, state.step_id, state.visit, rest.until, details=rest.details),))


def _turn_recorded(state: RunState, since: datetime) -> bool:
    """Whether the record says that the run waits for its turn of a spread resumption, instead of when its wait ends."""
    return state.not_before is not None and state.not_before > since


def _after(progress: Progress, *before: Change) -> Progress:
    return Progress(progress.state, (*before, *progress.changes))


def _arrive(definition: Definition, state: RunState, step_id: str | None, now: datetime, *, keep_arrival: bool = False) -> Progress:
    """The run stands at `step_id`, asking or resting, or has gone on from there, or is finished."""
    changes: tuple[Change, ...] = ()
    while True:
        if step_id is None:
            return _after(_finish(state, Phase.COMPLETED, None), *changes)
        if definition.at_end == "exit" and definition.has_ended(now):
            return _after(_finish(state, Phase.EXITED, "journey_ended"), *changes)
        state = _at(definition, state, step_id, now, keep_arrival)
        if state.visit - state.visits_before > definition.max_visits:
            return _after(_finish(state, Phase.EXITED, "loop_limit"), *changes)
        if step_id in state.skips:
            changes = (*changes, Change("skipped", Phase.ACTIVE, step_id, state.visit, reason=STEP_CANCELLED))
            state = replace(state, skips=tuple(each for each in state.skips if each != step_id))
            step_id, keep_arrival = _step(definition, state).skipped(), False
            continue
        outcome = _step(definition, state).arrive(state, now)
        if not isinstance(outcome, Go):
            return _after(_follow(definition, state, outcome, now), *changes)
        changes = (*changes, *_said(state, outcome.kind, outcome.reason, outcome.details))
        step_id, keep_arrival = outcome.next, False


def _at(definition: Definition, state: RunState, step_id: str, now: datetime, keep_arrival: bool) -> RunState:
    visit = state.visits.get(step_id, state.visits_before) + 1
    arrived_at = state.arrived_at if keep_arrival and state.arrived_at is not None else now
    return replace(
        state,
        step_id=step_id,
        phase=Phase.ACTIVE,
        visit=visit,
        # Only a step on a loop can be arrived at again: the state, which travels in payloads, does not grow with the way.
        visits={**state.visits, step_id: visit} if step_id in definition.looping else state.visits,
        round=state.moves * ROUNDS_PER_VERSION,
        wake_at=None,
        asks_from=None,
        reason=None,
        approved=None,
        expired=False,
        arrived_at=arrived_at if definition.steps[step_id].waits else None,
    )


def _finish(state: RunState, phase: Phase, reason: str | None) -> Progress:
    new = replace(state, phase=phase, wake_at=None, asks_from=None, reason=reason)
    return Progress(new, (Change(str(phase), phase, state.step_id, state.visit, reason=reason),))
