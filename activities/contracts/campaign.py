"""A campaign from its launch to its end, and the occurrences of one that recurs."""

from collections.abc import Sequence
from datetime import datetime
from uuid import UUID

from temporalio import activity

from activities.contracts.payload import Payload, Scope

CAMPAIGN_WORKFLOW = "CampaignWorkflow"
OCCURRENCE_WORKFLOW = "OccurrenceWorkflow"


class CampaignRef(Payload):
    organization_id: UUID
    campaign_id: UUID
    started: bool = False  # every page's workflow has been started
    scheduled: bool = False  # it starts later than its workflow
    now: datetime | None = None  # the workflow's clock, so that virtual time works; None: the database's


class AudiencePages(Payload):
    """The snapshot of a campaign's audience: how many runs, in how many pages of one workflow each."""

    scope: Scope
    runs: int
    pages: int


class CampaignPlan(Payload):
    """When to look again whether the campaign starts; None: now."""

    look_at: datetime | None = None


class Dawn(Payload):
    """A day begins on which a recurring campaign is due. `scheduled_at`: when Temporal's schedule meant that."""

    organization_id: UUID
    campaign_id: UUID
    scheduled_at: datetime
    now: datetime


class Occurrences(Payload):
    """The campaigns that the day's occurrences are."""

    scopes: Sequence[Scope]


class PageRange(Payload):
    """The campaign's pages from `first` up to, but not including, `end`."""

    scope: Scope
    first: int
    end: int


class CampaignProgress(Payload):
    finished: bool


@activity.defn(name="plan_campaign")
async def plan_campaign(campaign: CampaignRef) -> CampaignPlan:
    """When to look again whether the campaign starts."""
    raise NotImplementedError


@activity.defn(name="make_occurrences")
async def make_occurrences(dawn: Dawn) -> Occurrences:
    """Each of the day's occurrences is a campaign of its own, unless it is to be left out."""
    raise NotImplementedError


@activity.defn(name="start_occurrences")
async def start_occurrences(made: Occurrences) -> None:
    """The CampaignWorkflow of each occurrence's campaign is running (or has run)."""
    raise NotImplementedError


@activity.defn(name="snapshot_audience")
async def snapshot_audience(campaign: CampaignRef) -> AudiencePages:
    """The campaign's runs exist, one per selected contact, divided into pages."""
    raise NotImplementedError


@activity.defn(name="start_pages")
async def start_pages(pages: PageRange) -> None:
    """The JourneyWorkflow of each page is running (or has run)."""
    raise NotImplementedError


@activity.defn(name="finish_campaign")
async def finish_campaign(campaign: CampaignRef) -> CampaignProgress:
    """The campaign is marked completed when no run of it is unfinished."""
    raise NotImplementedError
