"""Words about every run of a journey or a campaign: what pausing, resuming and cancelling the one and the other have in common."""

from dataclasses import dataclass
from datetime import datetime
from typing import Literal
from uuid import UUID

from temporalio.common import TypedSearchAttributes

from activities.contracts.control import Control, ControlledKind
from api.commands import resumptions, temporal
from api.dependencies import Caller
from models.domain.audit import NewEntry
from models.domain.journey.resumption import AT_ONCE, Manner
from models.store import audit
from models.store.resumptions import Kind
from models.store.session import OrganizationSession

Command = Literal["pause", "resume", "cancel"]


@dataclass(frozen=True)
class Controlled:
    """The journey or campaign that a word is about. `pauses`: how often a pause of it has been said; `found_by`: by what its control
    workflow is found."""

    kind: Kind
    id: UUID
    paused_at: datetime | None
    pauses: int
    found_by: TypedSearchAttributes


def because(reason: str | None) -> dict[str, str]:
    """The reason as a detail of an audit entry."""
    return {"reason": reason} if reason else {}


async def request_resume(
    session: OrganizationSession, caller: Caller, controlled: Controlled, key: str | None, manner: Manner, reason: str | None
) -> bool:
    """It is on record that the pause shall be lifted in this manner, once for the same request. False: it is not paused, and nothing need
    be said.

    Raises:
        Conflict: it is not paused, so that nothing could be done in this manner, or another request is being obeyed.
    """
    if controlled.paused_at is None:
        manner.refuse_unpaused(controlled.kind)
        return False
    request = str(_request_id(caller, controlled, "resume", key))
    asked = {"pauses": controlled.pauses, "request_id": request, **manner.audited(), **because(reason)}
    if await resumptions.is_news(session, controlled.kind, controlled.id, asked):
        entry = NewEntry(f"{controlled.kind}.resume_requested", controlled.kind, str(controlled.id), caller.actor, asked)
        await audit.append(session, [entry])
    return True


async def tell_runs(
    caller: Caller, controlled: Controlled, command: Command, reason: str | None, key: str | None, manner: Manner = AT_ONCE
) -> None:
    """The control workflow has heard the word and tells every run. A resume names the pauses it knew of: one that is said after it is
    not lifted by it.

    Raises:
        Unavailable: Temporal did not answer; the word may have been heard, and may be repeated.
    """
    control = Control(
        organization_id=caller.organization_id,
        kind=ControlledKind(controlled.kind),
        id=controlled.id,
        command=command,
        actor_kind=caller.actor.kind,
        actor_id=caller.actor.id,
        reason=reason,
        request_id=_request_id(caller, controlled, command, key),
        pauses=controlled.pauses,
        **vars(manner),
    )
    await temporal.control_all(caller.services, control, controlled.found_by)


def _request_id(caller: Caller, controlled: Controlled, command: Command, key: str | None) -> UUID:
    word = key or f"after {controlled.pauses} pauses"
    return temporal.request_id(word, caller.organization_id, caller.actor.id, controlled.id, command)
