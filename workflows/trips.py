"""The runs that a workflow carries: where each of them is, what has happened to it, and whether that is on record."""

import asyncio
from collections.abc import Callable, Coroutine, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any
from uuid import UUID

from temporalio import workflow
from temporalio.exceptions import ActivityError

from activities.contracts.execution import RECORDS
from activities.contracts.journey import JourneyInput, RunMessage
from activities.contracts.moves import MoveOrder
from activities.contracts.recording import TRANSITIONS_AT_ONCE, AuditBatch, Transition, record_audit
from activities.contracts.run_control import RunControl
from models.domain.journey import interpreter
from models.domain.journey.definition import WaitForStep
from models.domain.journey.interpreter import Change, Progress
from models.domain.journey.run import FINISHED, Phase, RunState
from workflows.batching import Batch
from workflows.clock import SharedTimers


@dataclass(frozen=True, slots=True)
class Author:
    """Who a change of a run is owed to; `operation_id`, if it was said to many runs at once."""

    kind: str
    id: UUID | None = None
    operation_id: UUID | None = None


SYSTEM = Author("system")


def author_of(word: RunControl | RunMessage) -> Author:
    return Author(word.actor_kind, word.actor_id, word.operation_id)


class Trip:
    """One run under way. Hashable by identity; `state` is replaced, never changed."""

    __slots__ = (
        "__weakref__",
        "author",
        "cancelled_by",
        "early",
        "gone",
        "left_a_wait",
        "move",
        "outdated",
        "reconnected",
        "recording",
        "resting",
        "rings_at",
        "state",
        "travel",
        "unrecorded",
    )

    def __init__(self, state: RunState) -> None:
        self.state = state
        self.unrecorded: list[Transition] = []
        self.recording: asyncio.Future[None] | None = None  # the newest write, until it is done
        self.resting = False  # nothing is in flight for it
        self.rings_at: datetime | None = None  # when the clock ends its rest
        self.travel: asyncio.Task[None] | None = None  # while there is something to do for it
        self.cancelled_by: RunControl | None = None
        self.author = SYSTEM  # of the next change
        self.move: MoveOrder | None = None  # to be obeyed as soon as nothing is in flight
        self.gone = False  # another workflow carries it
        self.early: RunMessage | None = None  # an event that was faster than the answer to the opening of its wait
        self.outdated = False  # its contact has changed since it asked for the end of its wait
        self.left_a_wait = False  # by a skip or a jump: it goes on when that is on record
        self.reconnected = False  # its step's connection was mended since it last asked

    @property
    def finished(self) -> bool:
        return self.gone or self.state.phase in FINISHED


class Trips:
    """What all parts of a JourneyWorkflow share. `travel` is what a trip's coroutine does while there is something to do for it."""

    def __init__(self, given: JourneyInput, travel: Callable[[Trip], Coroutine[Any, Any, None]]) -> None:
        self.scope = given.scope
        self.definition = given.definition
        self.by_run = {state.run_id: Trip(state) for state in given.runs}
        self.held_by = list(given.held_by)  # "campaign", "journey": pauses of all runs
        self.late: dict[UUID, list[RunControl]] = {}  # by run: skips and jumps, in order, for when nothing is in flight for it
        self.timers = SharedTimers(self.nudge)
        self._travel = travel
        self._records = Batch(self._record_all)

    def __iter__(self) -> Iterator[Trip]:
        return iter(self.by_run.values())

    def nudge(self, trip: Trip) -> None:
        """The trip looks again at what it should do, unless it is about to."""
        if trip.resting and trip.travel is None:
            trip.travel = asyncio.create_task(self._travel(trip))

    def is_held(self, trip: Trip) -> bool:
        return trip.state.paused or bool(self.held_by)

    def shown(self, trip: Trip) -> Phase:
        return Phase.PAUSED if self.is_held(trip) and not trip.finished else interpreter.phase_on_record(trip.state)

    def apply(self, trip: Trip, progress: Progress) -> None:
        """The state is the new one, and its changes are numbered, dated and queued for the record."""
        state, author = progress.state, trip.author
        told = [(change, author) for change in progress.changes]
        if state.phase in FINISHED:
            if self._goes_on(trip, state):
                state, told = replace(state, phase=Phase.ACTIVE, reason=None), told[:-1]
            else:
                told[-1:-1] = [(_missed(state, word), author_of(word)) for word in self.late.pop(state.run_id, ())]
        for sequence, (change, by) in enumerate(told, trip.state.sequence + 1):
            trip.unrecorded.append(self._transition(trip, state, change, sequence, by))
            trip.left_a_wait = trip.left_a_wait or self._leaves_a_wait(change)
        trip.author = SYSTEM
        trip.state = replace(state, sequence=trip.state.sequence + len(told))

    def _leaves_a_wait(self, change: Change) -> bool:
        return change.kind in ("skipped", "jumped") and isinstance(self.definition.steps.get(change.step_id or ""), WaitForStep)

    def _goes_on(self, trip: Trip, state: RunState) -> bool:
        """Whether what came back would have been the run's last, but it was told meanwhile to jump: that is obeyed in any case. What ends
        it by a rule or a word from outside its steps ends it all the same."""
        told = any(word.command == "jump" for word in self.late.get(state.run_id, ()))
        return told and state.phase is not Phase.CANCELLED and trip.state.leaving is None

    def _transition(self, trip: Trip, state: RunState, change: Change, sequence: int, author: Author) -> Transition:
        phase = Phase.PAUSED if self.is_held(trip) and change.phase not in FINISHED else change.phase
        by = author.operation_id
        at_step = state.step_id if phase is Phase.PAUSED and state.step_id != change.step_id else None  # where it stands still
        shown = change.step_id if at_step is None else at_step
        return Transition(
            run_id=state.run_id,
            sequence=sequence,
            kind=change.kind,
            phase=phase,
            beneath=change.phase if phase is Phase.PAUSED else None,
            occurred_at=workflow.now(),
            step_id=change.step_id,
            at_step=at_step,
            visit=change.visit,
            at_visit=state.visit if shown == state.step_id and (at_step is not None or state.visit != change.visit) else None,
            wake_at=change.wake_at or (interpreter.turn_ahead(state, workflow.now()) if change.phase is Phase.ACTIVE else None),
            reason=change.reason,
            actor_kind=author.kind,
            actor_id=author.id,
            details=change.details if by is None else {**change.details, "operation_id": str(by)},
        )

    async def record(self, trip: Trip) -> None:
        """All that has happened to the trip until now is on record, whoever of its coroutine and the handlers began to write it."""
        if trip.unrecorded or trip.recording is not None:
            await self.begin_record(trip)

    def begin_record(self, trip: Trip) -> asyncio.Future[None]:
        """The newest write of the trip, which has unrecorded changes or a write that was begun."""
        if trip.unrecorded:
            transitions, trip.unrecorded = trip.unrecorded, []
            trip.recording = asyncio.ensure_future(self._write(transitions, trip.recording))
        assert trip.recording is not None
        return trip.recording

    async def _write(self, transitions: Sequence[Transition], earlier: asyncio.Future[None] | None) -> None:
        """Done when an earlier one is, too: written they may be in any order."""
        written = self._records.ask(transitions)
        if earlier is not None and not earlier.done() and workflow.patched("2026-11-26-left-waits"):
            await earlier
        await written

    async def _record_all(self, groups: Sequence[Sequence[Transition]]) -> Sequence[None]:
        transitions = [transition for group in groups for transition in group]
        try:
            for first in range(0, len(transitions), TRANSITIONS_AT_ONCE):
                batch = AuditBatch(scope=self.scope, transitions=transitions[first : first + TRANSITIONS_AT_ONCE])
                await workflow.execute_activity(record_audit, batch, **RECORDS)
        except ActivityError as error:  # what happened must be recorded: suspend, rather than fail and forget the runs
            raise RuntimeError("the record could not be written") from error
        return [None] * len(groups)


def missed(state: RunState, word: RunControl) -> Progress:
    """A skip or a jump that was to be obeyed later is not: the run has left what it was to skip, or is over."""
    place = word.places.get(str(state.run_id))
    kind, step_id = ("jump_missed", word.to_step) if place is None else ("skip_missed", place.step_id)
    return interpreter.remarked(state, kind, word.reason, {"to": step_id})


def _missed(ended: RunState, word: RunControl) -> Change:
    """As the line before the last: nothing is said of a run after its end."""
    [change] = missed(replace(ended, phase=Phase.ACTIVE, reason=None), word).changes
    return change
