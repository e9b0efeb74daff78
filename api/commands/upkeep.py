"""What is put right although nobody asks: promises whose second half was lost with the process that made them."""

import logging
from collections.abc import Callable
from typing import Any
from uuid import UUID

from temporalio import activity
from temporalio.exceptions import ApplicationError

from activities.contracts.upkeep import Upkeep
from api.commands import brakings, campaigns, publish_plans, routing, run_operations, runs
from api.dependencies import Services
from models.store import access

log = logging.getLogger(__name__)


class UpkeepActivities:
    """Lives here and not in `activities`: it repeats what the API's own commands began."""

    def __init__(self, services: Services) -> None:
        self.services = services

    def methods(self) -> list[Callable[..., Any]]:
        return [self.start_missing_workflows, self.wake_routing]

    @activity.defn(name="start_missing_workflows")
    async def start_missing_workflows(self, upkeep: Upkeep) -> int:
        """A campaign, run, publish plan or operation whose API process died between its row and its workflow is started.

        Safe to run twice, and beside the request that repeats it: a workflow id starts once. One organization's trouble is
        not another's: all are looked at.

        Raises:
            ApplicationError: in some organization not everything could be started; to be repeated.
        """
        async with self.services.database.outside() as session:
            organizations = await access.organizations_with_unstarted(session, runs.OVERDUE)
        looked_at, failed = 0, 0
        for organization_id in organizations:
            activity.heartbeat()
            try:
                looked_at += await self._start_in(organization_id)
            except Exception as error:
                failed += 1
                log.error("upkeep: %s in organization %s; it is tried again", type(error).__name__, organization_id)
        if failed:
            raise ApplicationError(f"Not everything could be started in {failed} of {len(organizations)} organizations.", type="NotStarted")
        return looked_at

    @activity.defn(name="wake_routing")
    async def wake_routing(self, upkeep: Upkeep) -> int:
        """Safe to run twice: routing that is under way looks once more.

        Raises:
            Unavailable: Temporal did not answer; to be repeated.
        """
        async with self.services.database.outside() as session:
            organizations = await access.organizations_to_route(session)
        for organization_id in organizations:
            activity.heartbeat()
            await routing.poke(self.services, organization_id, timed=True)
        return len(organizations)

    async def _start_in(self, organization_id: UUID) -> int:
        found = await campaigns.start_missing_workflows(self.services, organization_id, activity.heartbeat)
        found += await brakings.start_missing_workflows(self.services, organization_id, activity.heartbeat)
        found += await publish_plans.start_missing_workflows(self.services, organization_id, activity.heartbeat)
        found += await run_operations.start_missing_workflows(self.services, organization_id, activity.heartbeat)
        return found + await runs.start_missing_workflows(self.services, organization_id, activity.heartbeat)
