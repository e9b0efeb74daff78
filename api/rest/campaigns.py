"""`/v1/campaigns`: a published version for an audience, now, later, by local time, or again and again."""

from datetime import datetime, timedelta
from typing import Annotated, Any, Literal
from uuid import UUID

from fastapi import APIRouter, Query, Response
from pydantic import BaseModel, ConfigDict, Field

from api.commands import campaigns as commands
from api.dependencies import Caller, authorize
from api.pages import Page, PageOf, page
from api.rest.brakes import PausedBecause, paused_because
from api.rest.headers import CommandKey, PostKey
from api.rest.names import Name
from api.rest.reasons import ReasonAsked, StatedReason
from models.domain.campaign_end import NOBODY_FITTED, WORDS, why_nobody
from models.domain.journey.written import Duration
from models.domain.schedule import AtOnce, Timing, parse_timing, read_timing
from models.settings import MAXIMUM_PAGE_SIZE
from models.store import brakes, campaign_progress, campaigns
from models.store.campaign_progress import Progress
from models.tables.failures import Braking
from models.tables.journeys import Campaign

router = APIRouter(prefix="/campaigns", tags=["campaigns"])
Status = Literal["starting", "scheduled", "running", "paused", "completed", "cancelled"]


class Request(BaseModel):
    model_config = ConfigDict(extra="forbid")


SCHEDULE = Field(
    description="Left out: now. Otherwise one of the four kinds of docs/campaigns.md: now, once, local, recurring. "
    "The last by one zone's clock, or by each recipient's.",
    examples=[{"kind": "local", "at": "2027-03-01T09:00", "default_zone": "America/New_York", "late": "send"}],
)
SPREAD = Field(description="Over how long the runs' starts are spread.", examples=["PT2H"])


AudienceAt = Literal["start", "launch"]
PageSize = Annotated[int, Field(ge=1, le=MAXIMUM_PAGE_SIZE, description="Runs per workflow. Left out: as the installation says.")]


class NewCampaign(Request):
    name: Name = Field(examples=["November news"])
    journey_id: UUID
    version: Annotated[int, Field(ge=1, le=2_147_483_647, description="Left out: the newest.", examples=[1])] | None = None
    segment_id: UUID | None = Field(default=None, description="Null: every contact.")
    exclude_segment_ids: list[UUID] = Field(default=[], max_length=20, description="Whoever fits one of these is left out.")
    schedule: Annotated[dict[str, Any], SCHEDULE] | None = None
    spread: Annotated[Duration, SPREAD] | None = None
    audience_at: AudienceAt = Field(
        default="start", description="When the audience is taken: when the campaign starts, or as soon as it is launched."
    )
    on_error: commands.OnError = Field(
        default="park",
        description="When a step of a run fails for good: park: the run waits for a person; pause: so does the whole campaign; "
        "skip: the run goes on without the step.",
    )
    page_size: PageSize | None = None

    def timing(self) -> Timing:
        return parse_timing(self.schedule, self.spread)


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
    left_out: dict[str, int] = Field(
        description="Contacts that fit the segment but were not taken, by reason.", examples=[{"excluded": 3, "entered_before": 12}]
    )
    conservation: Conservation


class Warned(BaseModel):
    """Nothing is wrong, but something will not be as one might expect."""

    model_config = ConfigDict(from_attributes=True)

    path: str = Field(examples=["schedule.rule"])
    code: str = Field(examples=["skipped_hour"])
    message: str


class Ended(BaseModel):
    """Why a campaign ended without having written to anybody."""

    code: Literal["nobody_fitted", "everybody_left_out"]
    message: str = Field(examples=[WORDS[NOBODY_FITTED]])


class CampaignView(BaseModel):
    id: UUID
    name: str
    journey_id: UUID
    version_id: UUID
    segment_id: UUID | None
    segment_rule: dict[str, Any] | None = Field(description="As it was at launch.")
    exclusion_rule: dict[str, Any] | None = Field(description="Who is left out: any of the excluded segments' rules, as they were.")
    schedule: dict[str, Any] | None = Field(description="Null: now.")
    spread: timedelta | None
    audience_at: str = Field(examples=["start"])
    parent_id: UUID | None = Field(description="Of an occurrence: the recurring campaign.")
    nominal_at: datetime | None = Field(description="Of an occurrence: when it was due.")
    on_error: str = Field(examples=["park"])
    status: str = Field(examples=["running"])
    page_size: int
    audience: int | None = Field(description="How many contacts; null until the snapshot is taken.")
    created_by: UUID | None
    created_at: datetime
    started_at: datetime | None
    paused_at: datetime | None
    paused_because: PausedBecause | None
    cancelled_at: datetime | None
    finished_at: datetime | None
    ended_because: Ended | None = Field(description="Of a campaign that was completed with nobody in its audience.")


class LaunchedCampaign(CampaignView):
    warnings: list[Warned]


class CampaignWithProgress(CampaignView):
    progress: ProgressView


class CampaignInFull(CampaignWithProgress):
    next_at: list[datetime] = Field(description="When a recurring campaign is due next: a few times; none while it is paused.")


def _view(campaign: Campaign, braking: Braking | None = None) -> CampaignView:
    """The row keeps schedule and spread in one document."""
    timing = read_timing(campaign.schedule)
    schedule = None if isinstance(timing.schedule, AtOnce) else timing.schedule.model_dump(mode="json")
    shown = {
        "schedule": schedule,
        "spread": timing.spread,
        "ended_because": _ended_because(campaign),
        "paused_because": paused_because(campaign.paused_at, braking),
    }
    return CampaignView(**{**campaign.model_dump(), **shown})


def _ended_because(campaign: Campaign) -> Ended | None:
    why = why_nobody(campaign.audience, campaign.left_out) if campaign.status == "completed" else None
    return None if why is None else Ended.model_validate({"code": why, "message": WORDS[why]})


async def _with_braking(caller: Caller, campaign: Campaign) -> CampaignView:
    async with caller.session() as session:
        braked = await brakes.in_force(session, [campaign.id])
    return _view(campaign, braked.get(campaign.id))


def _with_progress(campaign: Campaign, found: Progress, braking: Braking | None) -> CampaignWithProgress:
    conservation = Conservation(
        entered=campaign.audience,
        accounted_for=found.accounted_for,
        holds=None if campaign.audience is None else campaign.audience == found.accounted_for,
    )
    progress = ProgressView(
        runs=found.runs,
        deliveries=found.deliveries,
        outcomes=found.outcomes,
        refusals=found.refusals,
        left_out=found.left_out,
        conservation=conservation,
    )
    return CampaignWithProgress(**_view(campaign, braking).model_dump(), progress=progress)


@router.post("", status_code=202)
async def launch_campaign(
    caller: Annotated[Caller, authorize("campaigns.launch")], new: NewCampaign, key: PostKey, response: Response
) -> LaunchedCampaign:
    """Launches now, or for later. Who is in the audience is decided once, when it starts (or, if asked, as soon as it is launched).
    After a 503, repeat: the same campaign goes on, by its Idempotency-Key. Without one, a campaign of the same name, version,
    segment and schedule that was launched within the last ten minutes is the same, unless it was cancelled; a new key launches
    another."""
    asked = new.model_dump(exclude={"schedule", "spread"})
    launched = await commands.launch(caller, commands.NewCampaign(**asked, timing=new.timing()), key)
    response.headers["Location"] = f"/v1/campaigns/{launched.campaign.id}"
    warned = [Warned.model_validate(each) for each in launched.warnings]
    return LaunchedCampaign(**_view(launched.campaign).model_dump(), warnings=warned)


@router.get("")
async def list_campaigns(
    caller: Annotated[Caller, authorize("campaigns.read")],
    query: PageOf,
    journey_id: UUID | None = None,
    status: Status | None = None,
    parent_id: Annotated[UUID | None, Query(description="The occurrences of this recurring campaign.")] = None,
) -> Page[CampaignWithProgress]:
    """Campaigns, oldest first."""
    async with caller.session() as session:
        found = await campaigns.page(session, query.limit + 1, query.after, journey_id, status, parent_id)
        progress = await campaign_progress.progress(session, [campaign.id for campaign in found])
        braked = await brakes.in_force(session, [campaign.id for campaign in found if campaign.paused_at is not None])
    items = [_with_progress(campaign, progress[campaign.id], braked.get(campaign.id)) for campaign in found]
    return page(items, [campaign.id for campaign in found], query)


@router.get("/{campaign_id}")
async def read_campaign(caller: Annotated[Caller, authorize("campaigns.read")], campaign_id: UUID) -> CampaignInFull:
    async with caller.session() as session:
        campaign = await campaigns.get(session, campaign_id)
        progress = await campaign_progress.progress(session, [campaign_id])
        braked = await brakes.in_force(session, [campaign_id])
    shown = _with_progress(campaign, progress[campaign_id], braked.get(campaign_id))
    return CampaignInFull(**shown.model_dump(), next_at=commands.next_times(campaign))


@router.put("/{campaign_id}/pause", status_code=202)
async def pause_campaign(
    caller: Annotated[Caller, authorize("campaigns.launch")], campaign_id: UUID, key: CommandKey = None, why: CampaignReason | None = None
) -> CampaignView:
    """Nothing of the campaign is sent from now on; its runs keep their place. After a 503, repeat."""
    return await _with_braking(caller, await commands.pause(caller, campaign_id, why.reason if why else None, key))


@router.delete("/{campaign_id}/pause", status_code=202)
async def resume_campaign(
    caller: Annotated[Caller, authorize("campaigns.launch")], campaign_id: UUID, key: CommandKey = None, reason: ReasonAsked = None
) -> CampaignView:
    """The pause is being lifted: `paused_at` is null as soon as it is. After a 503, repeat."""
    return await _with_braking(caller, await commands.resume(caller, campaign_id, key, reason=reason))


@router.put("/{campaign_id}/cancellation", status_code=202)
async def cancel_campaign(
    caller: Annotated[Caller, authorize("campaigns.launch")], campaign_id: UUID, key: CommandKey = None, why: CampaignReason | None = None
) -> CampaignView:
    """Nothing of the campaign is sent from now on, for good; its runs are being cancelled. After a 503, repeat."""
    return await _with_braking(caller, await commands.cancel(caller, campaign_id, why.reason if why else None, key))
