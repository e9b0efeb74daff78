"""`/v1/deliveries`: one message to one recipient each."""

from datetime import datetime
from typing import Annotated, Literal
from uuid import UUID

from fastapi import APIRouter, Query
from pydantic import BaseModel, ConfigDict, Field

from activities.contracts.sending import SendOutcome
from api.dependencies import Caller, authorize
from api.pages import Page, PageOf, page
from models.store import delivery_pages
from models.store.delivery_pages import DeliveryFilter

router = APIRouter(prefix="/deliveries", tags=["deliveries"])
State = Literal["claimed", "transmitting", "accepted", "refused", "failed", "unknown"]


class DeliveryView(BaseModel):
    """`state` is how far it came; `outcome` and `reason` say how it ended. `unknown`: it may have been accepted, and
    is never sent again by itself."""

    model_config = ConfigDict(from_attributes=True)

    id: UUID
    run_id: UUID
    journey_id: UUID
    version_id: UUID
    campaign_id: UUID | None
    contact_id: UUID
    step_id: str
    visit: int = Field(description="How often the run had come to the step: 1 at the first time.")
    channel: str = Field(examples=["email"])
    purpose: str = Field(examples=["marketing"])
    topic_id: UUID | None
    connection_id: UUID | None
    template_version_id: UUID | None
    state: str = Field(examples=["accepted"])
    outcome: str | None = Field(examples=["accepted"])
    reason: str | None = Field(examples=["consent_withdrawn"])
    attempts: int = Field(description="How often it was handed to the provider, since somebody last asked for it to be tried again.")
    provider_message_id: str | None
    claimed_at: datetime
    transmitting_at: datetime | None
    settled_at: datetime | None


@router.get("")
async def list_deliveries(
    caller: Annotated[Caller, authorize("deliveries.read")],
    query: PageOf,
    run_id: UUID | None = None,
    contact_id: UUID | None = None,
    campaign_id: UUID | None = None,
    journey_id: UUID | None = None,
    state: State | None = None,
    outcome: Annotated[SendOutcome | None, Query(description="As in section 3 of docs/sending.md.", examples=["accepted"])] = None,
    hidden: Annotated[bool, Query(description="Also of runs that a hidden event began.")] = False,
) -> Page[DeliveryView]:
    """Messages, oldest first."""
    wanted = DeliveryFilter(run_id, contact_id, campaign_id, journey_id, state, outcome, hidden)
    async with caller.session() as session:
        found = await delivery_pages.page(session, wanted, query.limit + 1, query.after)
    return page([DeliveryView.model_validate(row) for row in found], [row.id for row in found], query)


@router.get("/{delivery_id}")
async def read_delivery(caller: Annotated[Caller, authorize("deliveries.read")], delivery_id: UUID) -> DeliveryView:
    async with caller.session() as session:
        return DeliveryView.model_validate(await delivery_pages.get(session, delivery_id))
