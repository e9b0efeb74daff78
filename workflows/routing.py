"""RoutingWorkflow: an organization's events and contacts' changes, brought to its journeys. One per organization, gone when idle."""

from datetime import timedelta

from temporalio import workflow

from activities.contracts.execution import RECORDS
from activities.contracts.routing import ROUTING_WORKFLOW, Routed, Routing, route_events

LINGERS = timedelta(seconds=2)  # so the next event of a stream needs no new workflow
PATIENCE = (timedelta(seconds=1), timedelta(seconds=3), timedelta(seconds=9))  # with workflows that are only starting; upkeep asks later


@workflow.defn(name=ROUTING_WORKFLOW)
class RoutingWorkflow:
    """Started and woken by the signal `poke` (signal-with-start), which comes after what it speaks of has been committed: whatever
    was poked for is seen by the next look."""

    @workflow.init
    def __init__(self, routing: Routing) -> None:
        self.poked = False
        self.timed = routing.timed

    @workflow.signal(name="poke")
    def poke(self, routing: Routing) -> None:
        self.poked = True
        self.timed = self.timed or routing.timed

    @workflow.run
    async def run(self, routing: Routing) -> None:
        stuck = 0
        while True:
            looked = await self._look(routing)
            stuck = stuck + 1 if looked.stuck else 0
            if workflow.info().is_continue_as_new_suggested():
                workflow.continue_as_new(routing.model_copy(update={"timed": self.timed}))
            if looked.more or self.poked:
                continue
            trying = 0 < stuck <= len(PATIENCE)
            if not await self._poked_within(PATIENCE[stuck - 1] if trying else LINGERS) and not trying:
                return

    async def _look(self, routing: Routing) -> Routed:
        self.poked, timed, self.timed = False, self.timed, False
        asked = routing.model_copy(update={"timed": timed})
        return await workflow.execute_activity(route_events, asked, **RECORDS)

    async def _poked_within(self, time: timedelta) -> bool:
        try:
            await workflow.wait_condition(lambda: self.poked, timeout=time, timeout_summary="until it is woken, or goes")
        except TimeoutError:
            return False
        return True
