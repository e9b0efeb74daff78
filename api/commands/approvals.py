"""Four eyes: one person asks whether exactly this content may be published, another answers."""

from dataclasses import dataclass
from typing import Literal
from uuid import UUID

from api.commands.journeys import freeze_draft, locked_draft
from api.dependencies import Caller
from models.domain.audit import NewEntry
from models.domain.errors import Conflict, NotAllowed, Unpublishable
from models.domain.journey.content_hash import stored
from models.store import approvals, audit, draft_revisions, journeys
from models.store.session import OrganizationSession
from models.tables.publishing import Approval

Decision = Literal["approved", "rejected"]
_ACTIONS = {"approved": "journey.approved", "rejected": "journey.approval_rejected"}


@dataclass(frozen=True)
class Asked:
    """`created` is False when the same was asked before and is not answered yet."""

    approval: Approval
    created: bool


async def ask(caller: Caller, journey_id: UUID, note: str, revision: int | None) -> Asked:
    """The question whether the draft, frozen as it is now, may be published stands.

    Raises:
        NotFound, Conflict, StaleRevision, Unpublishable: as publishing would.
    """
    async with caller.session() as session:
        journey = await locked_draft(session, journey_id, revision)
        frozen, hash_ = await freeze_draft(session, journey)
        if (before := await approvals.find_open(session, journey_id, hash_)) is not None:
            return Asked(before, created=False)
        approval = await approvals.ask(session, journey_id, journey.revision, hash_, stored(frozen), note, caller.person)
        await audit.append(session, [_entry(caller, "journey.approval_requested", approval)])
    return Asked(approval, created=True)


async def decide(caller: Caller, journey_id: UUID, approval_id: UUID, decision: Decision, reason: str | None) -> Approval:
    """The question is answered. The same answer by the same person, said again, changes nothing.

    Raises:
        NotFound: no such question.
        NotAllowed: the caller asked it, or saved the draft since the last published version.
        Conflict: it is answered already, or the draft would be published with other content by now.
    """
    async with caller.session() as session:
        await journeys.get(session, journey_id, lock=True)
        approval = await approvals.get(session, journey_id, approval_id, lock=True)
        if (approval.decision, approval.decided_by) == (decision, caller.person):
            return approval
        if approval.decision is not None:
            raise Conflict(f"This was {approval.decision} already; ask for approval again.")
        await _refuse_author(session, caller, approval)
        if decision == "approved" and not await is_current(session, approval):
            raise Conflict("The draft, or something that it names, has changed since this was asked; ask for approval again.")
        await approvals.decide(session, approval, decision, caller.person, reason)
        await audit.append(session, [_entry(caller, _ACTIONS[decision], approval)])
    return approval


async def is_current(session: OrganizationSession, approval: Approval) -> bool:
    """Whether publishing now would publish exactly what was asked about."""
    journey = await journeys.get(session, approval.journey_id)
    try:
        _, hash_ = await freeze_draft(session, journey)
    except Unpublishable:
        return False
    return hash_ == approval.content_hash


async def _refuse_author(session: OrganizationSession, caller: Caller, approval: Approval) -> None:
    if approval.requested_by == caller.person:
        raise NotAllowed("You asked for this approval; somebody else answers it.")
    if caller.person in await draft_revisions.authors(session, approval.journey_id):
        raise NotAllowed("You have saved this draft since its last published version; somebody who has not answers this.")


def _entry(caller: Caller, action: str, approval: Approval) -> NewEntry:
    details = {"approval_id": approval.id, "content_hash": approval.content_hash, "revision": approval.revision}
    details |= {} if approval.reason is None else {"reason": approval.reason}
    return NewEntry(action, "journey", str(approval.journey_id), caller.actor, details)
