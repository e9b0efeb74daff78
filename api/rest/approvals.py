"""`/v1/journeys/{id}/approvals`: asking whether exactly this content may be published, and answering."""

from datetime import datetime
from typing import Annotated, Any, Literal
from uuid import UUID

from fastapi import APIRouter, Response
from pydantic import BaseModel, ConfigDict, Field

from api.commands import approvals as commands
from api.dependencies import Caller, authorize
from api.pages import Page, PageOf, page
from api.rest.headers import OptionalIfMatch
from api.rest.reasons import StatedReason
from models.store import approvals, journeys

router = APIRouter(prefix="/journeys", tags=["journeys"])


class NewApproval(BaseModel):
    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [{"note": "New wording of the second mail"}]})

    note: str = Field("", max_length=2_000, description="For whoever answers.")


class NewDecision(BaseModel):
    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [{"decision": "approved"}]})

    decision: Literal["approved", "rejected"]
    reason: StatedReason | None = None


class ApprovalSummary(BaseModel):
    model_config = ConfigDict(from_attributes=True)

    id: UUID
    journey_id: UUID
    revision: int
    content_hash: str = Field(description="Of the version that publishing would make. The approval is of this and nothing else.")
    note: str
    requested_by: UUID | None = Field(description="The person: the one who made the key, for an API key.")
    decision: str | None = Field(description="approved, rejected, or null while nobody has answered.")
    decided_by: UUID | None
    decided_at: datetime | None
    reason: str | None
    created_at: datetime


class ApprovalView(ApprovalSummary):
    definition: dict[str, Any] = Field(description="What would be published.")


class CurrentApproval(ApprovalView):
    current: bool = Field(description="Whether publishing now would publish exactly this. False: something has changed; ask again.")


@router.post("/{journey_id}/approvals", status_code=201, responses={200: {"model": ApprovalView, "description": "It was asked already."}})
async def ask_for_approval(
    caller: Annotated[Caller, authorize("journeys.write")],
    journey_id: UUID,
    revision: OptionalIfMatch,
    response: Response,
    body: NewApproval | None = None,
) -> ApprovalView:
    """Asks whether the draft may be published exactly as it would be frozen now. 422 with every problem when it cannot be."""
    asked = await commands.ask(caller, journey_id, body.note if body else "", revision)
    response.status_code = 201 if asked.created else 200
    response.headers["Location"] = f"/v1/journeys/{journey_id}/approvals/{asked.approval.id}"
    return ApprovalView.model_validate(asked.approval)


@router.get("/{journey_id}/approvals")
async def list_approvals(caller: Annotated[Caller, authorize("journeys.read")], journey_id: UUID, query: PageOf) -> Page[ApprovalSummary]:
    async with caller.session() as session:
        await journeys.get(session, journey_id)
        found = await approvals.page(session, journey_id, query.limit + 1, query.after)
    return page([ApprovalSummary.model_validate(approval) for approval in found], [approval.id for approval in found], query)


@router.get("/{journey_id}/approvals/{approval_id}")
async def read_approval(caller: Annotated[Caller, authorize("journeys.read")], journey_id: UUID, approval_id: UUID) -> CurrentApproval:
    async with caller.session() as session:
        approval = await approvals.get(session, journey_id, approval_id)
        current = await commands.is_current(session, approval)
    return CurrentApproval(**ApprovalView.model_validate(approval).model_dump(), current=current)


@router.put("/{journey_id}/approvals/{approval_id}/decision")
async def decide_approval(
    caller: Annotated[Caller, authorize("journeys.approve")], journey_id: UUID, approval_id: UUID, body: NewDecision
) -> ApprovalView:
    """Answers. 403 for whoever asked, and for whoever saved the draft since its last published version; 409 when the draft or
    something that it names has changed since."""
    return ApprovalView.model_validate(await commands.decide(caller, journey_id, approval_id, body.decision, body.reason))
