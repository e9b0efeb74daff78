"""`/v1/entries`: who was to enter a journey, and what became of that."""

from datetime import datetime
from typing import Annotated
from uuid import UUID

from fastapi import APIRouter
from pydantic import BaseModel, Field

from api.dependencies import Caller, authorize
from api.pages import Page, PageOf, page
from models.store import entries

router = APIRouter(prefix="/entries", tags=["entries"])


class EntryView(BaseModel):
    id: UUID
    journey_id: UUID
    version_id: UUID
    contact_id: UUID
    source: str = Field(description="event, segment or journey.", examples=["event"])
    source_id: UUID | None = Field(description="The event.")
    entry_key: str | None
    outcome: str = Field(description="entered, refused or (not decided yet) pending.", examples=["refused"])
    reason: str | None = Field(description="Why it was refused, or waits.", examples=["entered_before"])
    run_id: UUID | None
    created_at: datetime
    decided_at: datetime | None


@router.get("")
async def list_entries(
    caller: Annotated[Caller, authorize("runs.read")], query: PageOf, journey_id: UUID | None = None, contact_id: UUID | None = None
) -> Page[EntryView]:
    """Entries by events, segments and other journeys, oldest first, with the reason of every refusal."""
    async with caller.session() as session:
        found = await entries.page(session, journey_id, contact_id, query.limit + 1, query.after)
    return page([EntryView.model_validate(dict(row)) for row in found], [row["id"] for row in found], query)
