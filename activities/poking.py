"""Waking an organization's routing from an activity, after what it may wait for has been committed."""

from uuid import UUID

from temporalio import activity
from temporalio.client import Client

from activities.contracts.execution import fair_share
from activities.contracts.routing import ROUTING_WORKFLOW, Routing
from activities.starting import attributes
from models.domain.journey import workflow_id


async def poke(temporal: Client, organization_id: UUID) -> None:
    """Routing looks at everything that has been committed before this call. Harmless to repeat.

    Raises:
        RPCError: Temporal did not answer.
    """
    said = Routing(organization_id=organization_id)
    await temporal.start_workflow(
        ROUTING_WORKFLOW,
        said,
        id=workflow_id.routing(organization_id),
        task_queue=activity.info().task_queue.removesuffix("-send"),
        start_signal="poke",
        start_signal_args=[said],
        search_attributes=attributes(organization_id),
        priority=fair_share(str(organization_id)),
    )
