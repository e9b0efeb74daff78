"""What is put right although nobody asks: promises whose second half was lost with the process that made them."""

import logging
from collections.abc import Callable
from typing import Any
from uuid import UUID

from temporalio import activity
from temporalio.exceptions import ApplicationError

from activities.contracts.upkeep import Upkeep
from api.commands import brakings, campaigns, publish_plans, routing, run_operations, runs
from api.commands.starting import NotStarted
from api.dependencies import Services
from models.store import access

log = logging.getLogger(__name__)

ATTEMPTS = 3  # of one round; the next begins within a minute
STARTERS = (
    campaigns.start_missing_workflows,
    brakings.start_missing_workflows,
    publish_plans.start_missing_workflows,
    run_operations.start_missing_workflows,
    runs.start_missing_workflows,
)


class UpkeepActivities:
    """Lives here and not in `activities`: it repeats what the API's own commands began."""

    def __init__(self, services: Services) -> None:
        self.services = services

    def methods(self) -> list[Callable[..., Any]]:
        return [self.start_missing_workflows, self.wake_routing]

    @activity.defn(name="start_missing_workflows")
    async def start_missing_workflows(self, upkeep: Upkeep) -> int:
        """A campaign, run, publish plan, operation or braking whose process died between its row and its workflow is started.

        Safe to run twice, and beside the request that repeats it: a workflow id starts once. One organization's trouble is
        not another's, nor one row's another row's: all are looked at.

        Raises:
            ApplicationError: in some organization not everything could be started; to be repeated, `ATTEMPTS` times in all.
        """
        async with self.services.database.outside() as session:
            organizations = await access.organizations_with_unstarted(session, runs.OVERDUE)
        looked_at, failed = 0, 0
        for organization_id in organizations:
            found, well = await self._start_in(organization_id)
            looked_at += found
            failed += not well
        if failed:
            _repeat(f"Not everything could be started in {failed} of {len(organizations)} organizations.", "NotStarted")
        return looked_at

    @activity.defn(name="wake_routing")
    async def wake_routing(self, upkeep: Upkeep) -> int:
        """Safe to run twice: routing that is under way looks once more. One organization's trouble is not another's.

        Raises:
            ApplicationError: some organization's could not be woken; to be repeated, `ATTEMPTS` times in all.
        """
        async with self.services.database.outside() as session:
            organizations = await access.organizations_to_route(session)
        failed = 0
        for organization_id in organizations:
            activity.heartbeat()
            try:
                await routing.poke(self.services, organization_id, timed=True)
            except Exception as error:
                failed += 1
                log.error("upkeep: %s while waking the routing of organization %s", type(error).__name__, organization_id)
        if failed:
            _repeat(f"The routing of {failed} of {len(organizations)} organizations could not be woken.", "NotWoken")
        return len(organizations)

    async def _start_in(self, organization_id: UUID) -> tuple[int, bool]:
        """How many were looked at, and whether all of them could be started."""
        looked_at, well = 0, True
        for start_missing_workflows in STARTERS:
            activity.heartbeat()
            try:
                looked_at += await start_missing_workflows(self.services, organization_id, activity.heartbeat)
            except Exception as error:
                well = False
                why = str(error) if isinstance(error, NotStarted) else type(error).__name__
                log.error("upkeep: %s in organization %s; it is tried again", why, organization_id)
        return looked_at, well


def _repeat(what: str, kind: str) -> None:
    """Raises, so that Temporal tries it again, but not for ever: what lasts must not keep the rest of upkeep from its turn."""
    if activity.info().attempt < ATTEMPTS:
        raise ApplicationError(what, type=kind)
    log.error("upkeep: %s The next round tries again.", what)
