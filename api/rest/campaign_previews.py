"""`/v1/campaign-previews`: what a campaign would do, before it is launched."""

from datetime import datetime
from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict, Field

from api.commands import campaign_previews as commands
from api.commands.campaigns import OnError
from api.dependencies import Caller, authorize
from api.rest.campaigns import SCHEDULE, SPREAD, AudienceAt, PageSize, Warned
from api.rest.contacts import ContactOut
from api.rest.names import Name
from models.domain.journey.written import Duration
from models.domain.schedule import parse_timing

router = APIRouter(prefix="/campaign-previews", tags=["campaigns"])


IGNORED: Any = Field(default=None, description="As at the launch; it changes nothing here.")


class CampaignPreviewRequest(BaseModel):
    """Takes whatever a launch takes, so that the same document can be looked at first and then launched."""

    model_config = ConfigDict(extra="forbid")

    name: Name | None = IGNORED
    journey_id: UUID
    version: Annotated[int, Field(ge=1, le=2_147_483_647, description="Left out: the newest.", examples=[1])] | None = None
    segment_id: UUID | None = Field(default=None, description="Null: every contact.")
    exclude_segment_ids: list[UUID] = Field(default=[], max_length=20, description="Whoever fits one of these is left out.")
    schedule: Annotated[dict[str, Any], SCHEDULE] | None = None
    spread: Annotated[Duration, SPREAD] | None = None
    audience_at: AudienceAt | None = IGNORED
    on_error: OnError | None = IGNORED
    page_size: PageSize | None = IGNORED
    sample: int = Field(10, ge=0, le=50, description="How many of the contacts to show.")


class StartView(BaseModel):
    """Contacts whose runs start together (a spread comes on top)."""

    model_config = ConfigDict(from_attributes=True)

    zone: str | None = Field(description="By whose clock; null where all start together.", examples=["Asia/Tokyo"])
    zone_of: str | None = Field(description="Whose zone it is: contact, default, organization or utc.", examples=["contact"])
    at: datetime | None = Field(description="Null: at once.")
    late: bool = Field(description="Their time has passed: they start at once.")
    contacts: int


class CampaignPreviewView(BaseModel):
    model_config = ConfigDict(from_attributes=True)

    count: int = Field(description="How many contacts would be taken now.")
    left_out: dict[str, int] = Field(description="How many fit but would not be taken, by reason.", examples=[{"entered_before": 12}])
    starts: list[StartView]
    without_zone: int = Field(description="Of those taken: no time zone of their own, so another clock counts.")
    with_invalid_zone: int = Field(description="Of those taken: a time zone that does not exist, so another clock counts.")
    next_at: list[datetime] = Field(description="The first few times of a recurring campaign.")
    warnings: list[Warned]
    sample: list[ContactOut] = Field(description="The oldest few of those who would be taken.")


@router.post("")
async def preview_campaign(
    caller: Annotated[Caller, authorize("campaigns.read", "contacts.read")], body: CampaignPreviewRequest
) -> CampaignPreviewView:
    """Whom a campaign would take if it were launched now, when each of them would start, and who would be left out and why.
    Changes nothing. Needs `contacts.read` too: counts tell what fields hold."""
    asked = body.model_dump(exclude={"schedule", "spread", "name", "audience_at", "on_error", "page_size"})
    found = await commands.preview(caller, commands.Asked(**asked, timing=parse_timing(body.schedule, body.spread)))
    return CampaignPreviewView.model_validate(found)
