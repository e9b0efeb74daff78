"""Runs that leave their workflow for one of another version."""

from collections.abc import Sequence

from temporalio import workflow
from temporalio.exceptions import ActivityError

from activities.contracts.execution import RECORDS
from activities.contracts.moves import HandOver, MoveOrder, hand_over_runs
from activities.contracts.run_control import RunControlled
from models.domain.journey import interpreter
from models.domain.journey.run import RunState
from workflows.batching import Batch
from workflows.trips import SYSTEM, Author, Trip, Trips


class Mover:
    def __init__(self, trips: Trips) -> None:
        self.trips = trips
        self.handing = Batch(self._hand_over_all)

    def order(self, order: MoveOrder) -> list[RunControlled]:
        """Each does so as soon as nothing is in flight for it; if it has left its step by then, as the order says of the new one."""
        named = None if order.run_ids is None else set(order.run_ids)
        there = [trip for trip in self.trips if not trip.finished and trip.state.step_id in order.choices]
        trips = [trip for trip in there if named is None or trip.state.run_id in named]
        for trip in trips:
            trip.move = order
            self.trips.nudge(trip)
        return [RunControlled(run_id=trip.state.run_id, phase=self.trips.shown(trip), changed=True) for trip in trips]

    async def moved(self, trip: Trip, order: MoveOrder) -> bool:
        """Nothing is in flight for the run. Whether its step, as it is now, is one that the order speaks of."""
        state, choice = trip.state, order.choices.get(trip.state.step_id or "")
        if choice is None:
            trip.move = None
            return False
        trip.author = Author(order.actor_kind, order.actor_id)
        if choice.step_id is None:
            trip.move = None
            self.trips.apply(trip, interpreter.leave(state, "version_replaced"))
            return True
        trip.author = SYSTEM
        if trip.unrecorded or (trip.recording is not None and not trip.recording.done()):
            await self.trips.record(trip)  # before its new workflow goes on counting
            return True  # look again: something may have happened meanwhile
        trip.gone = True  # whatever is said from now on is for its new workflow: here it would be lost
        await self.handing.ask((order, interpreter.moving(trip.state, choice.step_id)))
        trip.move = None
        return True

    async def _hand_over_all(self, moving: Sequence[tuple[MoveOrder, RunState]]) -> Sequence[None]:
        orders = {order.plan_id: order for order, _ in moving}
        for plan_id, order in orders.items():
            runs = [state for each, state in moving if each.plan_id == plan_id]
            try:
                await workflow.execute_activity(hand_over_runs, HandOver(scope=self.trips.scope, order=order, runs=runs), **RECORDS)
            except ActivityError as error:  # nobody must be forgotten: suspend
                raise RuntimeError("the runs could not be handed over") from error
        return [None] * len(moving)
