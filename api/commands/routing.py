"""Waking an organization's routing: after something has been committed that its journeys may wait for."""

import asyncio
import logging
from uuid import UUID

from activities.contracts.routing import ROUTING_WORKFLOW, Routing
from activities.starting import attributes
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
        attributes(organization_id),
    )


def poke_soon(services: Services, organization_id: UUID) -> None:
    """As `poke`, behind the caller's back: requests that come while one poke is under way share the next. While Temporal is away, or
    if this process dies, nothing is lost, for upkeep asks again within a minute."""
    before = services.wakening.get(organization_id)
    if before is not None and not before.done() and before.get_name() == _NEXT:
        return  # one that has not begun yet will speak for this, too
    task = asyncio.create_task(_poke_after(before, services, organization_id), name=_NEXT)
    services.wakening[organization_id] = task


_NEXT, _UNDER_WAY = "the next poke", "a poke under way"


async def _poke_after(before: "asyncio.Task[None] | None", services: Services, organization_id: UUID) -> None:
    if before is not None:
        await asyncio.wait([before])
    if (me := asyncio.current_task()) is not None:
        me.set_name(_UNDER_WAY)
    try:
        await poke(services, organization_id)
    except Unavailable:
        log.warning("routing could not be woken; upkeep will", extra={"organization_id": str(organization_id)})
    if services.wakening.get(organization_id) is me:
        del services.wakening[organization_id]


async def poke_if_listening(caller: Caller) -> None:
    """As `poke_soon`, where anything published depends on how contacts change."""
    async with caller.session() as session:
        listening = await changes.listening(session)
    if listening:
        poke_soon(caller.services, caller.organization_id)
