"""Waking an organization's routing from an activity, after what it may wait for has been committed."""

from uuid import UUID

from temporalio import activity
from temporalio.client import Client

from activities.contracts.routing import ROUTING_WORKFLOW, Routing
from activities.starting import attributes, signal_with_start
from models.domain.journey import workflow_id


async def poke(temporal: Client, organization_id: UUID) -> None:
    """Routing looks at everything that has been committed before this call. Harmless to repeat.

    Raises:
        RPCError: Temporal did not answer.
    """
    said, name = Routing(organization_id=organization_id), workflow_id.routing(organization_id)
    task_queue = activity.info().task_queue.removesuffix("-send")
    await signal_with_start(temporal, task_queue, ROUTING_WORKFLOW, said, name, "poke", attributes(organization_id))
