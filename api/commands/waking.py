"""Those who wait for something that has come about look again: a connection that was mended, a journey that was restored."""

from typing import Literal
from uuid import UUID

from activities.contracts.control import Control, ControlledKind
from activities.starting import attributes
from api.commands import temporal
from api.dependencies import Caller
from models.store import controls


async def wake(caller: Caller, kind: Literal["connection", "restored"], subject_id: UUID) -> None:
    """A workflow tells every run that is held for the connection, or every campaign of the restored journey that has not started, if there
    are any. Looks for them rather than at what was so before: the repetition of a request that could not tell them tells them.

    Raises:
        Unavailable: they have not been told. Repeat the request.
    """
    async with caller.session() as session:
        if not await controls.concerned_workflows(session, kind, subject_id, None, 1):
            return
    control = Control(
        organization_id=caller.organization_id,
        kind=ControlledKind(kind),
        id=subject_id,
        command="resume",
        actor_kind=caller.actor.kind,
        actor_id=caller.actor.id,
    )
    found_by = attributes(caller.organization_id, subject_id if kind == "restored" else None)
    await temporal.control_all(caller.services, control, found_by)
