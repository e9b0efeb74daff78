"""JourneyWorkflow: one to several hundred runs of one journey version.

The code reads as if it carried one run. Each run is a `Trip` with a coroutine of its own while there is something to do for it, and
none while it rests: a worker keeps many thousands that wait. Their questions to activities are batched (`workflows.batching`), their
waits share timers (`workflows.clock`), and a run that fails parks alone.

Here is when a run does something and when it rests, and who may say something to it. What that then is, is said elsewhere:
`workflows.performing` what its step asks, `workflows.operators` what operators want, `workflows.listening` what happens outside,
`workflows.moving` another version. All of them change it by `workflows.trips`, which keeps what is to be recorded.
"""

import asyncio
from collections.abc import Callable
from datetime import datetime, timedelta
from uuid import UUID

from temporalio import workflow
from temporalio.exceptions import ApplicationError

from activities.contracts.control import Control
from activities.contracts.journey import JOURNEY_WORKFLOW, JourneyInput, RunMessages
from activities.contracts.moves import MOVE_RUNS, MoveOrder
from activities.contracts.run_control import CONTROL_RUNS, RunControl, RunControlled
from models.domain.journey import interpreter
from models.domain.journey.interpreter import AwaitOperator, Command, WaitUntil
from models.domain.journey.run import RunState
from workflows.listening import listen
from workflows.moving import Mover
from workflows.operators import Operators
from workflows.performing import CAMPAIGN_CANCELLED, Performer
from workflows.trips import Trip, Trips, author_of

TURN = timedelta(milliseconds=1)


@workflow.defn(name=JOURNEY_WORKFLOW)
class JourneyWorkflow:
    @workflow.init
    def __init__(self, given: JourneyInput) -> None:
        self.trips = Trips(given, self._travel)
        self.performer = Performer(self.trips)
        self.operators = Operators(self.trips)
        self.mover = Mover(self.trips)
        self.draining = False
        self.fault: BaseException | None = None
        for trip in self.trips:  # here and not in run: a handler may come first, and must find every run entered
            new = trip.state.sequence == 0
            self.trips.apply(trip, interpreter.enter(self.trips.definition, trip.state, workflow.now()))
            if new and not trip.finished:
                self.operators.begin_paused(trip)
            if given.cancelled:
                reason = CAMPAIGN_CANCELLED if self.trips.scope.campaign_id else "journey_cancelled"
                trip.cancelled_by = RunControl(command="cancel", run_ids=(), actor_kind="system", reason=reason)

    @workflow.run
    async def run(self, given: JourneyInput) -> None:
        self._describe()
        for trip in self.trips:
            trip.travel = asyncio.create_task(self._travel(trip))
        given.__dict__["runs"] = ()  # the trips have them: kept twice, they would weigh twice for as long as they wait
        try:
            await self._until(lambda: self._done() or workflow.info().is_continue_as_new_suggested())
            await self._drain()
        except asyncio.CancelledError:  # somebody cancelled the workflow itself: its runs must not be forgotten
            if workflow.cancellation_reason() is None:
                raise  # the worker only drops it from its cache
            runs = list(self.trips.by_run)
            await self.operators.command(RunControl(command="cancel", run_ids=runs, actor_kind="system", reason="workflow_cancelled"))
            await self._until(self._done)
            await self._drain()
        if not self._done():
            await self._hand_over()

    async def _drain(self) -> None:
        """Who is not finished comes to rest."""
        self.draining = not self._done()
        await self._until(lambda: self._at_rest() and workflow.all_handlers_finished())

    # --- one run ---------------------------------------------------------------------------------------------------

    async def _travel(self, trip: Trip) -> None:
        """From one rest to the next, or to the end."""
        trip.resting = False
        if trip.rings_at is not None:
            self.trips.timers.leave(trip, trip.rings_at)
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
                trip.author = author_of(trip.cancelled_by)
                self.trips.apply(trip, interpreter.cancel(trip.state, trip.cancelled_by.reason))
                continue
            if trip.state.leaving is not None:
                self.trips.apply(trip, interpreter.leave(trip.state, trip.state.leaving))
                continue
            if self.operators.obey_late(trip):
                continue
            if trip.left_a_wait:
                trip.left_a_wait = False
                if workflow.patched("2026-11-26-left-waits"):
                    await self.trips.record(trip)  # which closes that wait, before another opens and looks back for events
                    continue
            if trip.move is not None and await self.mover.moved(trip, trip.move):
                continue
            command = interpreter.next_command(self.trips.definition, trip.state)
            assert command is not None
            if not self._must_rest(trip, command):
                await self.performer.perform(trip, command)
            elif trip.unrecorded:
                await self.trips.begin_record(trip)  # then look again: something may have happened meanwhile
            else:
                self._rest(trip, command)
                return
        await self.trips.record(trip)

    def _must_rest(self, trip: Trip, command: Command) -> bool:
        if self.trips.is_held(trip) or self.draining or isinstance(command, AwaitOperator):
            return True
        if isinstance(command, WaitUntil) and command.at is None:
            return True
        at = interpreter.goes_on_at(command, trip.state)
        return at is not None and self._is_ahead(at)

    def _is_ahead(self, at: datetime) -> bool:
        """Also a moment that the clock has passed, as long as a timer that others began is still to ring: an answer that is read together
        with a later update (see `_in_turn`) is told of that one's time."""
        return at > workflow.now() or (self.trips.timers.is_set(at) and workflow.patched("2026-11-26-updates-in-turn"))

    def _rest(self, trip: Trip, command: Command) -> None:
        """Until the time has come, an operator speaks or a pause is lifted."""
        trip.resting = True
        if trip.recording is not None and trip.recording.done():
            trip.recording = None
        for_ever = isinstance(command, AwaitOperator) or (isinstance(command, WaitUntil) and command.at is None)
        at = None if for_ever else interpreter.goes_on_at(command, trip.state)
        if at is not None and self._is_ahead(at):
            trip.rings_at = at
            self.trips.timers.set(trip, at)

    # --- what it is told -------------------------------------------------------------------------------------------

    @workflow.signal(name="control")
    async def control(self, control: Control) -> None:
        await self.operators.control(control)

    @workflow.update(name=CONTROL_RUNS, description="Pause, resume, cancel, retry or skip some runs.")
    async def control_runs(self, control: RunControl) -> list[RunControlled]:
        """Answers for the runs that it carries. Those that have gone to another workflow have to be told there, and the answer to a word is
        kept for whoever says it again: so they are left out of it, and it fails where nobody is left."""
        await self._in_turn()
        return await self.operators.command(control.model_copy(update={"run_ids": self._carried(control)}))

    @control_runs.validator
    def _known(self, control: RunControl) -> None:
        self._carried(control)

    def _carried(self, control: RunControl) -> list[UUID]:
        here = [run_id for run_id in control.run_ids if run_id in self.trips.by_run and not self.trips.by_run[run_id].gone]
        if control.run_ids and not here:
            raise ApplicationError(f"not in this workflow: {', '.join(map(str, control.run_ids[:5]))}", type="NotFound")
        return here

    @workflow.signal(name="tell")
    def tell(self, told: RunMessages) -> None:
        """What has happened outside concerns these runs. What is not (any more) of interest changes nothing."""
        for message in told.messages:
            trip = self.trips.by_run.get(message.run_id)
            if trip is not None and not trip.finished:
                listen(self.trips, trip, message)
                self.trips.nudge(trip)

    @workflow.update(name=MOVE_RUNS, description="Runs at the named steps move to another version, or exit.")
    async def move_runs(self, order: MoveOrder) -> list[RunControlled]:
        await self._in_turn()
        return self.mover.order(order)

    @workflow.query(name="runs")
    def runs(self) -> list[RunState]:
        return [trip.state for trip in self.trips]

    async def _in_turn(self) -> None:
        """An update is obeyed in a task of its own. A worker that takes the workflow up because of it may let it run before answers that
        came earlier, and that is put right when the history is read again (temporalio/sdk-rust 1146): nothing but the start of this timer
        may come of that."""
        if workflow.patched("2026-11-26-updates-in-turn"):
            await workflow.sleep(TURN, summary="until what came before is done")

    # --- the workflow itself ---------------------------------------------------------------------------------------

    def _describe(self) -> None:
        workflow.set_current_details(f"{len(self.trips.by_run)} runs of version `{self.trips.scope.version_id}`")

    async def _until(self, condition: Callable[[], bool]) -> None:
        """Until the condition holds. A fault in a trip's code suspends the workflow, which a deploy mends: never fails it."""
        await workflow.wait_condition(lambda: self.fault is not None or condition())
        if self.fault is not None:
            raise RuntimeError(f"a trip broke: {type(self.fault).__name__}") from self.fault

    def _done(self) -> bool:
        return all(trip.finished and trip.travel is None for trip in self.trips)

    def _at_rest(self) -> bool:
        return all(trip.travel is None for trip in self.trips)

    async def _hand_over(self) -> None:
        """Continue as new with the runs that are not finished; all of them are at rest."""
        trips = self.trips
        runs = [trip.state for trip in trips if not trip.finished]
        workflow.continue_as_new(JourneyInput(scope=trips.scope, definition=trips.definition, runs=runs, held_by=trips.held_by))
