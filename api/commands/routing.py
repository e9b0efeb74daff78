"""Waking an organization's routing: after something has been committed that its journeys may wait for."""

import logging
from uuid import UUID

from activities.contracts import ROUTING_WORKFLOW, Routing
from api.commands import temporal
from api.dependencies import Caller, Services
from models.domain.errors import Unavailable
from models.domain.journey import workflow_id
from models.store import changes

log = logging.getLogger(__name__)


async def poke(services: Services, organization_id: UUID, *, timed: bool = False) -> None:
    """Routing looks at everything that has been committed before this call.

    Raises:
        Unavailable: Temporal did not answer; upkeep asks again within a minute.
    """
    await temporal.signal_with_start(
        services,
        ROUTING_WORKFLOW,
        Routing(organization_id=organization_id, timed=timed),
        workflow_id.routing(organization_id),
        "poke",
        temporal.attributes(organization_id),
    )


async def poke_soon(services: Services, organization_id: UUID) -> None:
    """As `poke`; while Temporal is away nothing is lost, for upkeep asks again: the request has succeeded all the same."""
    try:
        await poke(services, organization_id)
    except Unavailable:
        log.warning("routing could not be woken; upkeep will", extra={"organization_id": str(organization_id)})


async def poke_if_listening(caller: Caller) -> None:
    """As `poke_soon`, where anything published depends on how contacts change."""
    async with caller.session() as session:
        listening = await changes.listening(session)
    if listening:
        await poke_soon(caller.services, caller.organization_id)
