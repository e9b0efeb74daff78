"""`/v1/journeys/{id}/draft-revisions`: the history of drafts."""

from datetime import datetime
from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Path
from pydantic import BaseModel, ConfigDict, Field

from api.dependencies import Caller, authorize
from api.pages import Page, PageOf, page
from models.store import draft_revisions, journeys

router = APIRouter(prefix="/journeys", tags=["journeys"])


class RevisionSummary(BaseModel):
    model_config = ConfigDict(from_attributes=True)

    revision: int
    name: str
    saved_by: UUID | None = Field(description="The person: the one who made the key, for an API key.")
    origin: str = Field(description="What saved it: edit, restore, duplicate or import.", examples=["edit"])
    created_at: datetime


class RevisionView(RevisionSummary):
    draft: dict[str, Any]


@router.get("/{journey_id}/draft-revisions")
async def list_draft_revisions(
    caller: Annotated[Caller, authorize("journeys.read")], journey_id: UUID, query: PageOf
) -> Page[RevisionSummary]:
    """Every save of the draft, oldest first."""
    async with caller.session() as session:
        await journeys.get(session, journey_id)
        found = await draft_revisions.page(session, journey_id, query.limit + 1, query.after)
    return page([RevisionSummary.model_validate(revision) for revision in found], [revision.id for revision in found], query)


@router.get("/{journey_id}/draft-revisions/{revision}")
async def read_draft_revision(
    caller: Annotated[Caller, authorize("journeys.read")], journey_id: UUID, revision: Annotated[int, Path(ge=1, le=2_147_483_647)]
) -> RevisionView:
    """The draft as it was saved then."""
    async with caller.session() as session:
        await journeys.get(session, journey_id)
        return RevisionView.model_validate(await draft_revisions.get(session, journey_id, revision))
