"""What operators say: about every run of a campaign or journey, or about some runs."""

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from uuid import UUID

from temporalio import workflow

from activities.contracts.control import Control, ControlledKind
from activities.contracts.run_control import Place, RunControl, RunControlled
from models.domain.journey import interpreter
from models.domain.journey.interpreter import Progress
from models.domain.journey.run import Phase, RunState
from models.domain.journey.steps.base import fraction
from workflows.trips import SYSTEM, Trip, Trips, author_of, missed

PAUSED_BEFORE = "paused_before"  # why a replay is paused


class Operators:
    def __init__(self, trips: Trips) -> None:
        self.trips = trips
        self.definition = trips.definition

    def begin_paused(self, trip: Trip) -> None:
        """The run begins beneath the pauses that are in force, and its record says so. Of a replay its own pause may be one: that of the
        run whose place it takes."""
        by = RunControl(command="pause", run_ids=(), actor_kind="system")
        for kind in self.trips.held_by:
            self._note(trip, "paused", by, whose=ControlledKind(kind))
        if trip.state.paused:
            self._note(trip, "paused", by.model_copy(update={"reason": PAUSED_BEFORE}))

    async def control(self, control: Control) -> None:
        """Pause, resume or cancel every run, because its campaign or journey was; or have those ask again whose connection was mended."""
        match control.command:
            case "resume" if control.kind is ControlledKind.CONNECTION:
                self._reconnect(control.id)
            case "pause" if control.kind not in self.trips.held_by:
                await self._hold_all(control, "paused", [*self.trips.held_by, str(control.kind)])
            case "resume" if control.kind in self.trips.held_by:
                await self._hold_all(control, "resumed", [kind for kind in self.trips.held_by if kind != control.kind])
            case "cancel":
                await self.command(_said(control, list(self.trips.by_run)))

    def _reconnect(self, connection_id: UUID) -> None:
        for trip in self.trips:
            if getattr(self.definition.steps.get(trip.state.step_id or ""), "connection_id", None) == connection_id:
                trip.reconnected, held = True, trip.state
                trip.state = interpreter.unhold(held, workflow.now())
                if trip.state is not held:
                    self.trips.nudge(trip)

    async def _hold_all(self, control: Control, kind: str, held_by: list[str]) -> None:
        self.trips.held_by = held_by
        by = _said(control, ())
        offset = fraction(workflow.info().workflow_id, control.request_id or "")
        trips = [trip for trip in self.trips if not trip.finished]
        for trip in trips:
            state = trip.state if self.trips.is_held(trip) else interpreter.unhold(trip.state, workflow.now())
            if kind == "resumed":
                state = interpreter.resumed(state, workflow.now(), control.spread, control.request_id, offset)
            self._note(trip, kind, by, state, control.kind)
            self.trips.nudge(trip)
        await asyncio.gather(*(self.trips.record(trip) for trip in trips))

    async def command(self, control: RunControl) -> list[RunControlled]:
        trips = [self.trips.by_run[run_id] for run_id in control.run_ids]
        changed = [not trip.finished and self._obey(trip, control) for trip in trips]
        await asyncio.gather(*(self.trips.record(trip) for trip in trips))
        return [self._answer(trip, control, did) for trip, did in zip(trips, changed, strict=True)]

    def _answer(self, trip: Trip, control: RunControl, changed: bool) -> RunControlled:
        why = None if changed else self._why_not(trip, control)
        state = trip.state
        phase = self.trips.shown(trip)
        return RunControlled(run_id=state.run_id, phase=phase, changed=changed, why=why, step_id=state.step_id, visit=state.visit)

    def _why_not(self, trip: Trip, control: RunControl) -> str:
        if trip.finished:
            return "finished"
        if not _meant(control, trip.state):
            return "moved_on"
        if control.to_step is not None and control.to_step not in self.definition.steps:
            return "unknown_step"
        if control.command == "resume" and self.trips.held_by:
            return f"paused_with_{self.trips.held_by[0]}"
        if control.command in ("approve", "reject") and trip.state.approved is not None:
            return "already"
        return "wrong_phase" if control.command in ("retry", "approve", "reject") else "already"

    def _obey(self, trip: Trip, control: RunControl) -> bool:
        """Whether the command changed anything."""
        state, now = trip.state, workflow.now()
        if not _meant(control, state):
            return False
        trip.author = author_of(control)
        match control.command:
            case "pause" if not state.paused:
                self._note(trip, "paused", control, replace(state, paused=True))
            case "resume" if state.paused:
                self._note(trip, "resumed", control, interpreter.unhold(replace(state, paused=False), now))
            case "retry" if state.phase is Phase.NEEDS_ATTENTION:
                self.trips.apply(trip, interpreter.retry(state, control.reason))
            case "skip":
                self._steer(trip, control)
            case "jump" if control.to_step in self.definition.steps and (control.word is None or control.word != state.jumped_by):
                self._steer(trip, control)
            case "cancel_step" if control.to_step == state.step_id and state.starts_at is None:
                self._steer(trip, control)
            case "cancel_step" if control.to_step in self.definition.steps and control.to_step not in state.skips:
                self.trips.apply(trip, interpreter.cancel_step(state, control.to_step, control.reason))
            case "restore_step" if control.to_step in state.skips:
                self.trips.apply(trip, interpreter.restore_step(state, control.to_step, control.reason))
            case "approve" | "reject":
                progress = interpreter.reviewed(self.definition, state, now, control.command == "approve", paused=self.trips.is_held(trip))
                if progress is None:
                    trip.author = SYSTEM
                    return False
                self.trips.apply(trip, progress)
            case "cancel" if trip.resting:
                self.trips.apply(trip, interpreter.cancel(state, control.reason))
            case "cancel" if trip.cancelled_by is None:
                trip.cancelled_by = control  # something is in flight for it: cancelled when that has come back
                self._note(trip, "cancel_requested", control)  # the last check before a send obeys this on record
            case _:
                trip.author = SYSTEM
                return False
        self.trips.nudge(trip)
        return True

    def _steer(self, trip: Trip, control: RunControl) -> None:
        """Skips or jumps now, or, while something is in flight for it, when that has come back: a skip only if the run still stands at
        this visit then. A word remembers itself: what it jumps back to is done anew, and must not be done twice for it."""
        state = trip.state = replace(trip.state, jumped_by=control.word) if control.command == "jump" else trip.state
        if state.phase is not Phase.ACTIVE or trip.resting:
            self.trips.apply(trip, self._steered(state, control))
            return
        here = {str(state.run_id): Place(step_id=state.step_id or "", visit=state.visit)}
        late = control.model_copy(update={"places": {} if control.command == "jump" else here})
        self.trips.late.setdefault(state.run_id, []).append(late)
        asked = "jump_requested" if control.command == "jump" else "skip_requested"
        to = {"to": control.to_step} if control.command == "jump" else {}
        self.trips.apply(trip, interpreter.remarked(state, asked, control.reason, to))

    def _steered(self, state: RunState, control: RunControl) -> Progress:
        if control.command == "jump":
            assert control.to_step is not None
            return interpreter.jump(self.definition, state, control.to_step, workflow.now(), control.reason)
        return interpreter.skip(self.definition, state, workflow.now(), control.reason)

    def obey_late(self, trip: Trip) -> bool:
        """Nothing is in flight for the run. Whether there was a word about it to be obeyed now, the one that was said first; or, where it
        means a visit that the run has left, to be told of."""
        state, late = trip.state, self.trips.late
        if state.run_id not in late:
            return False
        control, *others = late.pop(state.run_id)
        if others:
            late[state.run_id] = others
        trip.author = author_of(control)
        self.trips.apply(trip, self._steered(state, control) if _meant(control, state) else missed(state, control))
        return True

    def _note(self, trip: Trip, kind: str, control: RunControl, state: RunState | None = None, whose: ControlledKind | None = None) -> None:
        """A change of the pause, which leaves the phase underneath, and the reason for it, as they are. `whose` it is; None: its own."""
        trip.state = state or trip.state
        trip.author = author_of(control)
        here = trip.state
        reason = here.reason if kind == "resumed" else control.reason
        details = {"why": control.reason} if kind == "resumed" and control.reason else {}
        if whose is not None:
            details["with"] = str(whose)
        wake_at = interpreter.due_after_pause(here, workflow.now()) if kind == "resumed" else here.wake_at
        change = interpreter.Change(kind, interpreter.phase_on_record(here), here.step_id, here.visit, wake_at, reason, details)
        self.trips.apply(trip, Progress(here, (change,)))


def _meant(control: RunControl, state: RunState) -> bool:
    """Whether the word is for a run that stands where this one does."""
    place = control.places.get(str(state.run_id))
    return place is None or interpreter.stands_at(state, place.step_id, place.visit)


def _said(control: Control, run_ids: Sequence[UUID]) -> RunControl:
    """The word about the whole campaign or journey, as a word about these runs."""
    return RunControl(
        command=control.command, run_ids=run_ids, actor_kind=control.actor_kind, actor_id=control.actor_id, reason=control.reason
    )
