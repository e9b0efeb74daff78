"""What brakes journeys and campaigns: who answers for a journey, when it brakes, and the workflows of brakings."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any
from uuid import UUID

from activities.contracts.braking import BRAKING_WORKFLOW, BrakingRef
from activities.starting import attributes
from api.commands import temporal
from api.commands.starting import start_each
from api.dependencies import Caller, Services
from models.domain.audit import NewEntry
from models.domain.errors import Invalid, NotFound
from models.domain.journey import workflow_id
from models.domain.journey.brake import Brake
from models.store import access, audit, brakes, journeys
from models.store.session import OrganizationSession
from models.tables.journeys import Journey

OVERDUE = timedelta(seconds=10)  # a braking of which nobody has been told for so long may lack its workflow


@dataclass(frozen=True)
class JourneyChange:
    """What is to change of a journey. `named`: which of these were given; a null gives back what is usual."""

    named: frozenset[str]
    owner_id: UUID | None = None
    brake: Brake | None = None


async def change_settings(caller: Caller, journey_id: UUID, wanted: JourneyChange) -> Journey:
    """The journey's owner and brake are as given, at once and for every version. Repeating is harmless.

    Raises:
        NotFound: no such journey.
        Invalid: the owner is no member.
    """
    async with caller.session() as session:
        journey = await journeys.get(session, journey_id, lock=True)
        if "owner_id" in wanted.named and wanted.owner_id is not None:
            await _require_member(session, wanted.owner_id)
        given: dict[str, Any] = {"owner_id": wanted.owner_id, "brake": wanted.brake.model_dump() if wanted.brake else None}
        changes = {name: value for name, value in given.items() if name in wanted.named and value != getattr(journey, name)}
        if not changes:
            return journey
        journey = await journeys.change_settings(session, journey_id, changes)
        details = {name: str(value) if isinstance(value, UUID) else value for name, value in changes.items()}
        await audit.append(session, [NewEntry("journey.settings_changed", "journey", str(journey_id), caller.actor, details)])
    return journey


async def _require_member(session: OrganizationSession, user_id: UUID) -> None:
    try:
        await access.get_member(session, user_id)
    except NotFound:
        raise Invalid.field("owner_id", "unknown_member", "There is no member with this id.") from None


async def start_missing_workflows(services: Services, organization_id: UUID, alive: Callable[[], None], limit: int = 100) -> int:
    """Every braking of which nobody has been told for ten seconds has a workflow. Answers how many were looked at.

    Safe to repeat and to run beside itself: a workflow that runs, or has completed, is not started again. One that was closed in another
    way begins anew: the runs hold already, and the row says whether a mail may have left.

    Raises:
        NotStarted: some could not be started; it kept no other waiting.
    """
    async with services.database.organization(organization_id) as session:
        found = await brakes.unfinished(session, OVERDUE, limit)
    return await start_each("braking", found, lambda braking_id: _start(services, organization_id, braking_id), alive)


async def _start(services: Services, organization_id: UUID, braking_id: UUID) -> None:
    await temporal.start(
        services,
        BRAKING_WORKFLOW,
        BrakingRef(organization_id=organization_id, braking_id=braking_id),
        workflow_id.braking(organization_id, braking_id),
        attributes(organization_id),
        restarts=True,
    )
