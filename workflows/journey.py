"""JourneyWorkflow: one to several hundred runs of one journey version.

The code reads as if it carried one run. Each run is a `Trip` with a coroutine of its own while there is something to do for it, and
none while it rests: a worker keeps many thousands that wait. Their questions to activities are batched (`workflows.batching`), their
waits share timers (`workflows.clock`), and a run that fails parks alone.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any, TypeVar
from uuid import UUID

from temporalio import workflow
from temporalio.exceptions import ActivityError, ApplicationError

import activities.contracts as contracts
from activities.contracts import (
    AuditBatch,
    Control,
    ControlledKind,
    HandOver,
    JourneyInput,
    Judgement,
    MoveOrder,
    Place,
    RunControl,
    RunControlled,
    RunMessage,
    RunMessages,
    SendOutcome,
    SendResult,
    StepAnswer,
    StepVisit,
    Transition,
    Verdict,
    VisitBatch,
)
from models.domain.journey import interpreter
from models.domain.journey.interpreter import AwaitOperator, Command, Progress, Question, Send, WaitUntil
from models.domain.journey.run import FINISHED, Phase, RunState
from models.domain.journey.steps.base import Answer as Answered
from models.domain.journey.steps.base import fraction
from workflows.batching import Batch
from workflows.clock import Clock

# How long a run waits before it asks again when the activity named no time itself: the first time, and at most. Doubled in between,
# since every question writes its decisions.
ASK_AGAIN = {
    SendOutcome.PAUSED: (timedelta(seconds=15), timedelta(minutes=5)),  # the signal that lifts the pause usually comes first
    SendOutcome.CONNECTION_BROKEN: (timedelta(minutes=1), timedelta(minutes=30)),
    SendOutcome.THROTTLED: (timedelta(seconds=30), timedelta(minutes=15)),
    SendOutcome.TRANSIENT: (timedelta(seconds=30), timedelta(minutes=15)),
}
DOUBLINGS = 10
CAMPAIGN_CANCELLED = "campaign_cancelled"  # how the last check before a send calls it
Answer = TypeVar("Answer", Judgement, StepAnswer, SendResult)
NOT_SENT = (SendOutcome.REFUSED, SendOutcome.RECIPIENT_PERMANENT, SendOutcome.OPTED_OUT)


class Trip:
    """One run under way. Hashable by identity; `state` is replaced, never changed."""

    __slots__ = (
        "__weakref__",
        "actor",
        "cancelled_by",
        "early",
        "gone",
        "move",
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
        self.actor: RunControl | None = None  # of the next change
        self.move: MoveOrder | None = None  # to be obeyed as soon as nothing is in flight
        self.gone = False  # another workflow carries it
        self.early: RunMessage | None = None  # an event that was faster than the answer to the opening of its wait
        self.reconnected = False  # its step's connection was mended since it last asked

    @property
    def finished(self) -> bool:
        return self.gone or self.state.phase in FINISHED


@workflow.defn(name=contracts.JOURNEY_WORKFLOW)
class JourneyWorkflow:
    @workflow.init
    def __init__(self, given: JourneyInput) -> None:
        self.scope = given.scope
        self.definition = given.definition
        self.trips = {state.run_id: Trip(state) for state in given.runs}
        self.held_by = list(given.held_by)
        self.draining = False
        self.fault: BaseException | None = None
        self.clock = Clock(self._nudge)
        self.consent = Batch(self._asks(contracts.check_consent))
        self.quiet_hours = Batch(self._asks(contracts.check_quiet_hours))
        self.sending = workflow.ActivityConfig(**contracts.SENDS, task_queue=contracts.send_queue(workflow.info().task_queue))
        self.sends = Batch(self._asks(contracts.send_messages, self.sending))
        self.questions: dict[tuple[str, str], Batch[StepVisit, StepAnswer]] = {}
        self.records = Batch(self._record_all)
        self.moves = Batch(self._hand_over_all)
        self.late: dict[UUID, RunControl] = {}  # by run: skips and jumps to be obeyed when what is in flight for it has come back
        for trip in self.trips.values():  # here and not in run: a handler may come first, and must find every run entered
            self._apply(trip, interpreter.enter(self.definition, trip.state, workflow.now()))
            if given.cancelled:
                reason = CAMPAIGN_CANCELLED if self.scope.campaign_id else "journey_cancelled"
                trip.cancelled_by = RunControl(command="cancel", run_ids=(), actor_kind="system", reason=reason)

    @workflow.run
    async def run(self, given: JourneyInput) -> None:
        self._describe()
        for trip in self.trips.values():
            trip.travel = asyncio.create_task(self._travel(trip))
        given.__dict__["runs"] = ()  # the trips have them: kept twice, they would weigh twice for as long as they wait
        try:
            await self._until(lambda: self._done() or workflow.info().is_continue_as_new_suggested())
        except asyncio.CancelledError:  # somebody cancelled the workflow itself: its runs must not be forgotten
            if workflow.cancellation_reason() is None:
                raise  # the worker only drops it from its cache
            await self._command(RunControl(command="cancel", run_ids=list(self.trips), actor_kind="system", reason="workflow_cancelled"))
            await self._until(self._done)
        self.draining = not self._done()
        await self._until(lambda: self._at_rest() and workflow.all_handlers_finished())
        if not self._done():
            await self._hand_over()

    # --- one run ---------------------------------------------------------------------------------------------------

    def _nudge(self, trip: Trip) -> None:
        """The trip looks again at what it should do, unless it is about to."""
        if trip.resting and trip.travel is None:
            trip.travel = asyncio.create_task(self._travel(trip))

    async def _travel(self, trip: Trip) -> None:
        """From one rest to the next, or to the end."""
        trip.resting = False
        if trip.rings_at is not None:
            self.clock.leave(trip, trip.rings_at)
            trip.rings_at = None
        try:
            await self._go(trip)
        except Exception as error:
            self.fault = error
        trip.travel = None

    async def _go(self, trip: Trip) -> None:
        """Decide and do, until there is nothing to do."""
        while not trip.finished:
            if trip.cancelled_by is not None:
                trip.actor = trip.cancelled_by
                self._apply(trip, interpreter.cancel(trip.state, trip.cancelled_by.reason))
                continue
            if trip.state.leaving is not None:
                self._apply(trip, interpreter.leave(trip.state, trip.state.leaving))
                continue
            if self._obey_late(trip):
                continue
            if trip.move is not None and await self._moved(trip, trip.move):
                continue
            command = interpreter.next_command(self.definition, trip.state)
            assert command is not None
            if not self._must_rest(trip, command):
                await self._perform(trip, command)
            elif trip.unrecorded:
                await self._begin_record(trip)  # then look again: something may have happened meanwhile
            else:
                self._rest(trip, command)
                return
        await self._record(trip)

    def _must_rest(self, trip: Trip, command: Command) -> bool:
        if self._is_held(trip) or self.draining or isinstance(command, AwaitOperator):
            return True
        if isinstance(command, WaitUntil) and command.at is None:
            return True
        at = interpreter.goes_on_at(command, trip.state)
        return at is not None and at > workflow.now()

    def _is_held(self, trip: Trip) -> bool:
        return trip.state.paused or bool(self.held_by)

    def _rest(self, trip: Trip, command: Command) -> None:
        """Until the time has come, an operator speaks or a pause is lifted."""
        trip.resting = True
        if trip.recording is not None and trip.recording.done():
            trip.recording = None
        for_ever = isinstance(command, AwaitOperator) or (isinstance(command, WaitUntil) and command.at is None)
        at = None if for_ever else interpreter.goes_on_at(command, trip.state)
        if at is not None and at > workflow.now():
            trip.rings_at = at
            self.clock.set(trip, at)

    async def _perform(self, trip: Trip, command: Command) -> None:
        try:
            match command:
                case Send():
                    await self._send(trip, command)
                case Question():
                    self._hear(trip, command, await self._batch(command).ask(self._visit(trip)))
                case WaitUntil():
                    self._apply(trip, interpreter.wake(self.definition, trip.state, workflow.now()))
        except ActivityError as error:  # the activity gave up on the whole batch: its runs park, each with its state
            cause = error.cause
            kind = cause.type if isinstance(cause, ApplicationError) and cause.type else type(cause or error).__name__
            self._fail(trip, f"step_failed:{kind}")

    async def _send(self, trip: Trip, command: Send) -> None:
        """consent-check → quiet-hours → send."""
        visit = self._visit(trip)
        trip.reconnected = False
        for check in (self.consent, self.quiet_hours):
            judgement: Judgement = await check.ask(visit)
            if judgement.kept is not None:
                self._settle(trip, judgement.kept)
                return
            if judgement.verdict is not Verdict.SEND:
                self._obey(trip, judgement)
                return
            visit = replace(visit, allowed_until=judgement.allowed_until)
        self._settle(trip, await self.sends.ask(visit))

    def _obey(self, trip: Trip, judgement: Judgement) -> None:
        reason = judgement.reason or str(judgement.verdict)
        if judgement.verdict is Verdict.HOLD and judgement.hold_until is not None:
            self._apply(trip, interpreter.held(trip.state, judgement.hold_until, reason))
        else:
            self._apply(trip, interpreter.not_sent(self.definition, trip.state, workflow.now(), reason))

    def _settle(self, trip: Trip, result: SendResult) -> None:
        reason = result.reason or str(result.outcome)
        if result.outcome is SendOutcome.ACCEPTED:
            self._apply(trip, interpreter.sent(self.definition, trip.state, workflow.now(), _delivered(result)))
        elif result.outcome in NOT_SENT:
            self._apply(trip, interpreter.not_sent(self.definition, trip.state, workflow.now(), reason))
        elif result.reason == CAMPAIGN_CANCELLED:  # its signal was missed, or is on its way
            self._apply(trip, interpreter.cancel(trip.state, CAMPAIGN_CANCELLED))
        elif result.outcome in ASK_AGAIN:
            mended = trip.reconnected and result.outcome is SendOutcome.CONNECTION_BROKEN  # while it asked: the answer is out of date
            until = result.retry_at or workflow.now() + (timedelta(0) if mended else _patience(result.outcome, trip.state.round))
            self._apply(trip, interpreter.held(trip.state, max(until, workflow.now()), reason))
        else:  # content that can never go, or a message that may have gone: a person decides
            self._fail(trip, reason)

    def _fail(self, trip: Trip, reason: str) -> None:
        """The step failed for good: the run waits for a person, or goes on without it where its campaign says so."""
        if self.scope.on_error == "skip":
            self._apply(trip, interpreter.pass_over(self.definition, trip.state, workflow.now(), reason))
        else:
            self._apply(trip, interpreter.park(trip.state, reason))

    def _batch(self, question: Question) -> Batch[StepVisit, StepAnswer]:
        """Runs that ask the same at steps of the same kind ask together."""
        key = (question.name, question.kind)
        if key not in self.questions:
            options = self.sending if self.definition.steps[question.step_id].slow else contracts.RECORDS
            self.questions[key] = Batch(self._asks(contracts.STEP_QUESTIONS[question.name], options))
        return self.questions[key]

    def _hear(self, trip: Trip, question: Question, answer: StepAnswer) -> None:
        now, reason = workflow.now(), answer.reason or question.name
        early, trip.early = trip.early, None
        if answer.failed:
            self._fail(trip, reason)
        elif answer.retry_at is not None:
            self._apply(trip, interpreter.held(trip.state, max(answer.retry_at, now), reason))
        else:
            heard = _heard(answer if early is None or answer.index is not None else early)
            self._apply(trip, interpreter.answered(self.definition, trip.state, heard, now))

    def _visit(self, trip: Trip) -> StepVisit:
        state = trip.state
        assert state.step_id is not None
        return StepVisit(
            run_id=state.run_id,
            contact_id=state.contact_id,
            step_id=state.step_id,
            visit=state.visit,
            round=state.round,
            arrived_at=state.arrived_at,
        )

    # --- what happened ---------------------------------------------------------------------------------------------

    def _apply(self, trip: Trip, progress: Progress) -> None:
        """The state is the new one, and its changes are numbered, dated and queued for the record."""
        sequence = trip.state.sequence
        for change in progress.changes:
            sequence += 1
            trip.unrecorded.append(self._transition(trip, progress.state, change, sequence))
        trip.actor = None
        trip.state = replace(progress.state, sequence=sequence)

    def _transition(self, trip: Trip, state: RunState, change: interpreter.Change, sequence: int) -> Transition:
        phase = Phase.PAUSED if self._is_held(trip) and change.phase not in FINISHED else change.phase
        by = trip.actor.operation_id if trip.actor else None
        return Transition(
            run_id=state.run_id,
            sequence=sequence,
            kind=change.kind,
            phase=phase,
            beneath=change.phase if phase is Phase.PAUSED else None,
            occurred_at=workflow.now(),
            step_id=change.step_id,
            visit=change.visit,
            wake_at=change.wake_at,
            reason=change.reason,
            actor_kind=trip.actor.actor_kind if trip.actor else "system",
            actor_id=trip.actor.actor_id if trip.actor else None,
            details=change.details if by is None else {**change.details, "operation_id": str(by)},
        )

    async def _record(self, trip: Trip) -> None:
        """All that has happened to the trip until now is on record, whoever of its coroutine and the handlers began to write it."""
        if trip.unrecorded or trip.recording is not None:
            await self._begin_record(trip)

    def _begin_record(self, trip: Trip) -> asyncio.Future[None]:
        """The newest write of the trip, which has unrecorded changes or a write that was begun."""
        if trip.unrecorded:
            transitions, trip.unrecorded = trip.unrecorded, []
            trip.recording = asyncio.ensure_future(self._write(transitions))
        assert trip.recording is not None
        return trip.recording

    async def _write(self, transitions: Sequence[Transition]) -> None:
        await self.records.ask(transitions)

    async def _record_all(self, groups: Sequence[Sequence[Transition]]) -> Sequence[None]:
        transitions = [transition for group in groups for transition in group]
        try:
            for first in range(0, len(transitions), contracts.TRANSITIONS_AT_ONCE):
                batch = AuditBatch(scope=self.scope, transitions=transitions[first : first + contracts.TRANSITIONS_AT_ONCE])
                await workflow.execute_activity(contracts.record_audit, batch, **contracts.RECORDS)
        except ActivityError as error:  # what happened must be recorded: suspend, rather than fail and forget the runs
            raise RuntimeError("the record could not be written") from error
        return [None] * len(groups)

    def _asks(
        self, activity: Callable[[VisitBatch], Awaitable[list[Answer]]], options: workflow.ActivityConfig = contracts.RECORDS
    ) -> Callable[[Sequence[StepVisit]], Awaitable[Sequence[Answer]]]:
        """A batch call of this activity, answering in the order asked."""

        async def ask(visits: Sequence[StepVisit]) -> Sequence[Answer]:
            batch = VisitBatch(scope=self.scope, now=workflow.now(), visits=visits)
            answers = {answer.run_id: answer for answer in await workflow.execute_activity(activity, batch, **options)}
            return [answers[visit.run_id] for visit in visits]

        return ask

    # --- operators -------------------------------------------------------------------------------------------------

    @workflow.signal(name="control")
    async def control(self, control: Control) -> None:
        """Pause, resume or cancel every run, because its campaign or journey was; or have those ask again whose connection was mended."""
        match control.command:
            case "resume" if control.kind is ControlledKind.CONNECTION:
                self._reconnect(control.id)
            case "pause" if control.kind not in self.held_by:
                await self._hold_all(control, "paused", [*self.held_by, str(control.kind)])
            case "resume" if control.kind in self.held_by:
                await self._hold_all(control, "resumed", [kind for kind in self.held_by if kind != control.kind])
            case "cancel":
                await self._command(_said(control, list(self.trips)))

    def _reconnect(self, connection_id: UUID) -> None:
        for trip in self.trips.values():
            if getattr(self.definition.steps.get(trip.state.step_id or ""), "connection_id", None) == connection_id:
                trip.reconnected, held = True, trip.state
                trip.state = interpreter.unhold(held, workflow.now())
                if trip.state is not held:
                    self._nudge(trip)

    async def _hold_all(self, control: Control, kind: str, held_by: list[str]) -> None:
        self.held_by = held_by
        by = _said(control, ())
        offset = fraction(workflow.info().workflow_id, control.request_id or "")
        trips = [trip for trip in self.trips.values() if not trip.finished]
        for trip in trips:
            state = trip.state if self._is_held(trip) else interpreter.unhold(trip.state, workflow.now())
            if kind == "resumed":
                state = interpreter.resumed(state, workflow.now(), control.spread, control.request_id, offset)
            self._note(trip, kind, by, state, control.kind)
            self._nudge(trip)
        await asyncio.gather(*(self._record(trip) for trip in trips))

    @workflow.update(name="control_runs", description="Pause, resume, cancel, retry or skip some runs.")
    async def control_runs(self, control: RunControl) -> list[RunControlled]:
        return await self._command(control)

    @control_runs.validator
    def _known(self, control: RunControl) -> None:
        unknown = [str(run_id) for run_id in control.run_ids if run_id not in self.trips or self.trips[run_id].gone]
        if unknown:
            raise ApplicationError(f"not in this workflow: {', '.join(unknown[:5])}", type="NotFound")

    async def _command(self, control: RunControl) -> list[RunControlled]:
        trips = [self.trips[run_id] for run_id in control.run_ids]
        changed = [not trip.finished and self._obey_operator(trip, control) for trip in trips]
        await asyncio.gather(*(self._record(trip) for trip in trips))
        return [self._answer(trip, control, did) for trip, did in zip(trips, changed, strict=True)]

    def _answer(self, trip: Trip, control: RunControl, changed: bool) -> RunControlled:
        why = None if changed else self._why_not(trip, control)
        return RunControlled(run_id=trip.state.run_id, phase=self._shown(trip), changed=changed, why=why)

    def _why_not(self, trip: Trip, control: RunControl) -> str:
        if trip.finished:
            return "finished"
        if not _meant(control, trip.state):
            return "moved_on"
        if control.to_step is not None and control.to_step not in self.definition.steps:
            return "unknown_step"
        if control.command == "resume" and self.held_by:
            return f"paused_with_{self.held_by[0]}"
        return "wrong_phase" if control.command in ("retry", "approve", "reject") else "already"

    def _obey_operator(self, trip: Trip, control: RunControl) -> bool:
        """Whether the command changed anything."""
        state, now = trip.state, workflow.now()
        if not _meant(control, state):
            return False
        trip.actor = control
        match control.command:
            case "pause" if not state.paused:
                self._note(trip, "paused", control, replace(state, paused=True))
            case "resume" if state.paused:
                self._note(trip, "resumed", control, interpreter.unhold(replace(state, paused=False), now))
            case "retry" if state.phase is Phase.NEEDS_ATTENTION:
                self._apply(trip, interpreter.retry(state, control.reason))
            case "skip":
                self._steer(trip, control)
            case "jump" if control.to_step in self.definition.steps and (control.word is None or control.word != state.jumped_by):
                self._steer(trip, control)
            case "cancel_step" if control.to_step == state.step_id and state.starts_at is None:
                self._steer(trip, control)
            case "cancel_step" if control.to_step in self.definition.steps and control.to_step not in state.skips:
                self._apply(trip, interpreter.cancel_step(state, control.to_step, control.reason))
            case "restore_step" if control.to_step in state.skips:
                self._apply(trip, interpreter.restore_step(state, control.to_step, control.reason))
            case "approve" | "reject":
                progress = interpreter.reviewed(self.definition, state, now, control.command == "approve")
                if progress is None:
                    trip.actor = None
                    return False
                self._apply(trip, progress)
            case "cancel" if trip.resting:
                self._apply(trip, interpreter.cancel(state, control.reason))
            case "cancel" if trip.cancelled_by is None:
                trip.cancelled_by = control  # something is in flight for it: cancelled when that has come back
                self._note(trip, "cancel_requested", control)  # the last check before a send obeys this on record
            case _:
                trip.actor = None
                return False
        self._nudge(trip)
        return True

    def _steer(self, trip: Trip, control: RunControl) -> None:
        """Skips or jumps now, or, while something is in flight for it, when that has come back: a skip only if the run still stands at
        this visit then. A word remembers itself: what it jumps back to is done anew, and must not be done twice for it."""
        state = trip.state = replace(trip.state, jumped_by=control.word) if control.command == "jump" else trip.state
        if state.phase is not Phase.ACTIVE or trip.resting:
            self._apply(trip, self._steered(state, control))
            return
        here = {str(state.run_id): Place(step_id=state.step_id or "", visit=state.visit)}
        self.late[state.run_id] = control.model_copy(update={"places": {} if control.command == "jump" else here})
        asked = "jump_requested" if control.command == "jump" else "skip_requested"
        to = {"to": control.to_step} if control.command == "jump" else {}
        self._apply(trip, interpreter.remarked(state, asked, control.reason, to))

    def _steered(self, state: RunState, control: RunControl) -> Progress:
        if control.command == "jump":
            assert control.to_step is not None
            return interpreter.jump(self.definition, state, control.to_step, workflow.now(), control.reason)
        return interpreter.skip(self.definition, state, workflow.now(), control.reason)

    def _obey_late(self, trip: Trip) -> bool:
        """Nothing is in flight for the run. Whether it skips or jumps as it was told meanwhile."""
        control = self.late.pop(trip.state.run_id, None)
        if control is None or not _meant(control, trip.state):
            return False
        trip.actor = control
        self._apply(trip, self._steered(trip.state, control))
        return True

    def _note(self, trip: Trip, kind: str, control: RunControl, state: RunState | None = None, whose: ControlledKind | None = None) -> None:
        """A change of the pause, which leaves the phase underneath, and the reason for it, as they are. `whose` it is; None: its own."""
        trip.state = state or trip.state
        trip.actor = control
        here = trip.state
        reason = here.reason if kind == "resumed" else control.reason
        details = {"why": control.reason} if kind == "resumed" and control.reason else {}
        if whose is not None:
            details["with"] = str(whose)
        wake_at = interpreter.due_after_pause(here, workflow.now()) if kind == "resumed" else here.wake_at
        change = interpreter.Change(kind, here.phase, here.step_id, here.visit, wake_at, reason, details)
        self._apply(trip, Progress(here, (change,)))

    def _shown(self, trip: Trip) -> Phase:
        return Phase.PAUSED if self._is_held(trip) and not trip.finished else trip.state.phase

    @workflow.query(name="runs")
    def runs(self) -> list[RunState]:
        return [trip.state for trip in self.trips.values()]

    # --- events and rules ------------------------------------------------------------------------------------------

    @workflow.signal(name="tell")
    def tell(self, told: RunMessages) -> None:
        """What has happened outside concerns these runs. What is not (any more) of interest changes nothing."""
        for message in told.messages:
            trip = self.trips.get(message.run_id)
            if trip is not None and not trip.finished:
                self._listen(trip, message)
                self._nudge(trip)

    def _listen(self, trip: Trip, message: RunMessage) -> None:
        match message.kind:
            case "matched":
                self._match(trip, message)
            case "exit":
                trip.state = replace(trip.state, leaving=trip.state.leaving or message.reason or "exit_rule")
            case "reconsider":
                trip.state = interpreter.reconsidered(self.definition, trip.state)
            case "variables":
                trip.actor = _teller(message)
                self._apply(trip, interpreter.variables_changed(self.definition, trip.state, list(message.names), message.reason))

    def _match(self, trip: Trip, message: RunMessage) -> None:
        state = trip.state
        if (state.step_id, state.visit) != (message.step_id, message.visit):
            return
        progress = interpreter.matched(self.definition, state, workflow.now(), message.step_id or "", message.visit or 1, _heard(message))
        if progress is not None:
            self._apply(trip, progress)
        elif state.phase is Phase.ACTIVE and not trip.resting:
            trip.early = message

    # --- another version -------------------------------------------------------------------------------------------

    @workflow.update(name=contracts.MOVE_RUNS, description="Runs at the named steps move to another version, or exit.")
    def move_runs(self, order: MoveOrder) -> list[RunControlled]:
        """Each does so as soon as nothing is in flight for it; if it has left its step by then, as the order says of the new one."""
        named = None if order.run_ids is None else set(order.run_ids)
        there = [trip for trip in self.trips.values() if not trip.finished and trip.state.step_id in order.choices]
        trips = [trip for trip in there if named is None or trip.state.run_id in named]
        for trip in trips:
            trip.move = order
            self._nudge(trip)
        return [RunControlled(run_id=trip.state.run_id, phase=self._shown(trip), changed=True) for trip in trips]

    async def _moved(self, trip: Trip, order: MoveOrder) -> bool:
        """Nothing is in flight for the run. Whether its step, as it is now, is one that the order speaks of."""
        state, choice = trip.state, order.choices.get(trip.state.step_id or "")
        if choice is None:
            trip.move = None
            return False
        trip.actor = RunControl(command="skip", run_ids=(), actor_kind=order.actor_kind, actor_id=order.actor_id)
        if choice.step_id is None:
            trip.move = None
            self._apply(trip, interpreter.leave(state, "version_replaced"))
            return True
        trip.actor = None
        if trip.unrecorded or (trip.recording is not None and not trip.recording.done()):
            await self._record(trip)  # before its new workflow goes on counting
            return True  # look again: something may have happened meanwhile
        trip.gone = True  # whatever is said from now on is for its new workflow: here it would be lost
        await self.moves.ask((order, interpreter.moving(trip.state, choice.step_id)))
        trip.move = None
        return True

    async def _hand_over_all(self, moving: Sequence[tuple[MoveOrder, RunState]]) -> Sequence[None]:
        orders = {order.plan_id: order for order, _ in moving}
        for plan_id, order in orders.items():
            runs = [state for each, state in moving if each.plan_id == plan_id]
            try:
                await workflow.execute_activity(
                    contracts.hand_over_runs, HandOver(scope=self.scope, order=order, runs=runs), **contracts.RECORDS
                )
            except ActivityError as error:  # nobody must be forgotten: suspend
                raise RuntimeError("the runs could not be handed over") from error
        return [None] * len(moving)

    # --- the workflow itself ---------------------------------------------------------------------------------------

    def _describe(self) -> None:
        workflow.set_current_details(f"{len(self.trips)} runs of version `{self.scope.version_id}`")

    async def _until(self, condition: Callable[[], bool]) -> None:
        """Until the condition holds. A fault in a trip's code suspends the workflow, which a deploy mends: never fails it."""
        await workflow.wait_condition(lambda: self.fault is not None or condition())
        if self.fault is not None:
            raise RuntimeError(f"a trip broke: {type(self.fault).__name__}") from self.fault

    def _done(self) -> bool:
        return all(trip.finished and trip.travel is None for trip in self.trips.values())

    def _at_rest(self) -> bool:
        return all(trip.travel is None for trip in self.trips.values())

    async def _hand_over(self) -> None:
        """Continue as new with the runs that are not finished; all of them are at rest."""
        runs = [trip.state for trip in self.trips.values() if not trip.finished]
        workflow.continue_as_new(JourneyInput(scope=self.scope, definition=self.definition, runs=runs, held_by=self.held_by))


def _heard(told: StepAnswer | RunMessage) -> Answered:
    if isinstance(told, RunMessage):
        return Answered(index=told.index, details=told.details)
    return Answered(told.index, told.until, told.refused, told.reason, told.details)


def _delivered(result: SendResult) -> dict[str, Any]:
    details: dict[str, Any] = {"delivery_id": str(result.delivery_id)}
    if result.kept_from is not None and result.kept_at is not None:
        details |= {"kept_from": str(result.kept_from), "kept_at": result.kept_at.isoformat()}
    return details


def _meant(control: RunControl, state: RunState) -> bool:
    """Whether the word is for a run that stands where this one does."""
    place = control.places.get(str(state.run_id))
    return place is None or interpreter.stands_at(state, place.step_id, place.visit)


def _teller(message: RunMessage) -> RunControl:
    return RunControl(
        command="skip", run_ids=(), actor_kind=message.actor_kind, actor_id=message.actor_id, operation_id=message.operation_id
    )


def _patience(outcome: SendOutcome, round: int) -> timedelta:
    first, longest = ASK_AGAIN[outcome]
    return min(first * (1 << min(round, DOUBLINGS)), longest)


def _said(control: Control, run_ids: Sequence[UUID]) -> RunControl:
    """The word about the whole campaign or journey, as a word about these runs."""
    return RunControl(
        command=control.command, run_ids=run_ids, actor_kind=control.actor_kind, actor_id=control.actor_id, reason=control.reason
    )
