"""`/v1/campaigns`: a published version for an audience, launched now."""

from datetime import datetime
from typing import Annotated, Any, Literal
from uuid import UUID

from fastapi import APIRouter, Response
from pydantic import BaseModel, ConfigDict, Field

from api.commands import campaigns as commands
from api.dependencies import Caller, authorize
from api.pages import Page, PageOf, page
from api.rest.headers import CommandKey, PostKey
from api.rest.reasons import StatedReason
from models.settings import MAXIMUM_PAGE_SIZE
from models.store import campaign_progress, campaigns
from models.store.campaign_progress import Progress
from models.tables.journeys import Campaign

router = APIRouter(prefix="/campaigns", tags=["campaigns"])
Status = Literal["starting", "running", "paused", "completed", "cancelled"]


class Request(BaseModel):
    model_config = ConfigDict(extra="forbid")


class NewCampaign(Request):
    name: str = Field(min_length=1, max_length=200, examples=["November news"])
    journey_id: UUID
    version: Annotated[int, Field(ge=1, le=2_147_483_647, description="Left out: the newest.", examples=[1])] | None = None
    segment_id: UUID | None = Field(default=None, description="Null: every contact.")
    page_size: (
        Annotated[int, Field(ge=1, le=MAXIMUM_PAGE_SIZE, description="Runs per workflow. Left out: as the installation says.")] | None
    ) = None


class CampaignReason(Request):
    reason: StatedReason | None = None


class Conservation(BaseModel):
    """Nobody is lost: `entered` (the audience's snapshot) equals `accounted_for` (the sum over all phases).
    `entered` is null until the snapshot is taken."""

    entered: int | None
    accounted_for: int
    holds: bool | None


class ProgressView(BaseModel):
    runs: dict[str, int] = Field(description="By phase.", examples=[{"waiting": 10, "completed": 5}])
    deliveries: dict[str, int] = Field(description="By state.", examples=[{"accepted": 15}])
    outcomes: dict[str, int] = Field(description="Deliveries by outcome; `open`: not settled yet.", examples=[{"accepted": 15}])
    refusals: dict[str, int] = Field(description="Messages that must not be sent, by reason.", examples=[{"no_consent": 2}])
    conservation: Conservation


class CampaignView(BaseModel):
    model_config = ConfigDict(from_attributes=True)

    id: UUID
    name: str
    journey_id: UUID
    version_id: UUID
    segment_id: UUID | None
    segment_rule: dict[str, Any] | None = Field(description="As it was at launch.")
    status: str = Field(examples=["running"])
    page_size: int
    audience: int | None = Field(description="How many contacts; null until the snapshot is taken.")
    created_by: UUID | None
    created_at: datetime
    started_at: datetime | None
    paused_at: datetime | None
    cancelled_at: datetime | None
    finished_at: datetime | None


class CampaignWithProgress(CampaignView):
    progress: ProgressView


def _with_progress(campaign: Campaign, found: Progress) -> CampaignWithProgress:
    conservation = Conservation(
        entered=campaign.audience,
        accounted_for=found.accounted_for,
        holds=None if campaign.audience is None else campaign.audience == found.accounted_for,
    )
    progress = ProgressView(
        runs=found.runs, deliveries=found.deliveries, outcomes=found.outcomes, refusals=found.refusals, conservation=conservation
    )
    return CampaignWithProgress(**CampaignView.model_validate(campaign).model_dump(), progress=progress)


@router.post("", status_code=202)
async def launch_campaign(
    caller: Annotated[Caller, authorize("campaigns.launch")], new: NewCampaign, key: PostKey, response: Response
) -> CampaignView:
    """Launches now. Who is in the audience is decided once, when it starts. After a 503, repeat: the same campaign goes on,
    by its Idempotency-Key. Without one, a campaign of the same name, version and segment that was launched within the last
    ten minutes is the same, unless it was cancelled; a new key launches another."""
    campaign = await commands.launch(caller, commands.NewCampaign(**new.model_dump()), key)
    response.headers["Location"] = f"/v1/campaigns/{campaign.id}"
    return CampaignView.model_validate(campaign)


@router.get("")
async def list_campaigns(
    caller: Annotated[Caller, authorize("campaigns.read")], query: PageOf, journey_id: UUID | None = None, status: Status | None = None
) -> Page[CampaignWithProgress]:
    """Campaigns, oldest first."""
    async with caller.session() as session:
        found = await campaigns.page(session, query.limit + 1, query.after, journey_id, status)
        progress = await campaign_progress.progress(session, [campaign.id for campaign in found])
    items = [_with_progress(campaign, progress[campaign.id]) for campaign in found]
    return page(items, [campaign.id for campaign in found], query)


@router.get("/{campaign_id}")
async def read_campaign(caller: Annotated[Caller, authorize("campaigns.read")], campaign_id: UUID) -> CampaignWithProgress:
    async with caller.session() as session:
        campaign = await campaigns.get(session, campaign_id)
        progress = await campaign_progress.progress(session, [campaign_id])
    return _with_progress(campaign, progress[campaign_id])


@router.put("/{campaign_id}/pause", status_code=202)
async def pause_campaign(
    caller: Annotated[Caller, authorize("campaigns.launch")], campaign_id: UUID, key: CommandKey = None, why: CampaignReason | None = None
) -> CampaignView:
    """Nothing of the campaign is sent from now on; its runs keep their place. After a 503, repeat."""
    return CampaignView.model_validate(await commands.pause(caller, campaign_id, why.reason if why else None, key))


@router.delete("/{campaign_id}/pause", status_code=202)
async def resume_campaign(
    caller: Annotated[Caller, authorize("campaigns.launch")], campaign_id: UUID, key: CommandKey = None
) -> CampaignView:
    """The pause is being lifted: `paused_at` is null as soon as it is. After a 503, repeat."""
    return CampaignView.model_validate(await commands.resume(caller, campaign_id, key))


@router.put("/{campaign_id}/cancellation", status_code=202)
async def cancel_campaign(
    caller: Annotated[Caller, authorize("campaigns.launch")], campaign_id: UUID, key: CommandKey = None, why: CampaignReason | None = None
) -> CampaignView:
    """Nothing of the campaign is sent from now on, for good; its runs are being cancelled. After a 503, repeat."""
    return CampaignView.model_validate(await commands.cancel(caller, campaign_id, why.reason if why else None, key))
