"""Launching and controlling campaigns. The row comes first, its workflow second: a row without a workflow can always be started."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal
from uuid import UUID

from activities.contracts import CAMPAIGN_WORKFLOW, CampaignRef, Control, ControlledKind
from api.commands import temporal
from api.commands.runs import published_version, refuse_closed
from api.dependencies import Caller, Services
from models.domain.audit import NewEntry
from models.domain.errors import Conflict, Invalid, NotFound
from models.domain.journey import workflow_id
from models.store import audit, campaigns, journeys
from models.store.session import OrganizationSession
from models.tables.journeys import Campaign, Journey

Command = Literal["pause", "resume", "cancel"]
ENDED = ("completed", "cancelled")


@dataclass(frozen=True)
class NewCampaign:
    """What is asked for. `version` None: the newest; `segment_id` None: every contact; `page_size` in runs per workflow,
    None: the installation's."""

    name: str
    journey_id: UUID
    version: int | None
    segment_id: UUID | None
    page_size: int | None


async def launch(caller: Caller, wanted: NewCampaign, key: str | None) -> Campaign:
    """The campaign exists, with the segment's rule as it is now, and its workflow is started.

    A repeated request finds the campaign it made: by its Idempotency-Key or, without one, by name, version and segment
    among those of the last ten minutes that were not cancelled, however far they have come. So nobody is mailed twice
    for a lost answer. A different key asks for another campaign, even if all else is the same.

    Raises:
        Invalid: no such journey, version or segment.
        Conflict: the journey is paused, archived or has never been published, or nobody is in the audience.
        Unavailable: the campaign exists but could not be started yet: repeat.
    """
    request = None if key is None else temporal.request_id(key, caller.organization_id, caller.actor.id, "campaign")
    async with caller.session() as session:
        campaign = await _find_or_create(session, caller, wanted, request)
    if campaign.status not in ENDED:  # its workflow may be so long ago that Temporal would take a second start
        await _start_workflow(caller.services, campaign)
    return campaign


async def _find_or_create(session: OrganizationSession, caller: Caller, wanted: NewCampaign, request: UUID | None) -> Campaign:
    journey = await _journey(session, wanted.journey_id)
    version = await published_version(session, journey.id, wanted.version)
    found = await campaigns.find_same_launch(session, request, wanted.name, version.id, wanted.segment_id)
    if found is not None:
        return found
    refuse_closed(journey)
    rule = await _rule(session, wanted.segment_id)
    if not await campaigns.has_audience(session, rule):
        raise Conflict("This audience is empty: no contact fits. Choose another segment, or import contacts first.")
    campaign = await campaigns.create(
        session,
        name=wanted.name,
        journey_id=journey.id,
        version_id=version.id,
        segment_id=wanted.segment_id,
        segment_rule=rule,
        page_size=wanted.page_size or caller.services.settings.page_size,
        created_by=caller.actor.id,
        request_id=request,
    )
    details = {"journey_id": str(journey.id), "version_id": str(version.id), "segment_id": wanted.segment_id and str(wanted.segment_id)}
    await _append(session, caller, "campaign.launched", campaign.id, **details)
    return campaign


async def _journey(session: OrganizationSession, journey_id: UUID) -> Journey:
    """Locked: launches of one journey wait for each other."""
    try:
        return await journeys.get(session, journey_id, lock=True)
    except NotFound:
        raise Invalid.field("journey_id", "unknown_journey", "There is no journey with this id.") from None


async def _rule(session: OrganizationSession, segment_id: UUID | None) -> dict[str, Any] | None:
    if segment_id is None:
        return None
    rule = await campaigns.segment_rule(session, segment_id)
    if rule is None:
        raise Invalid.field("segment_id", "unknown_segment", "There is no segment with this id.")
    return rule


async def _start_workflow(services: Services, campaign: Campaign) -> None:
    organization_id = campaign.organization_id
    await temporal.start(
        services,
        CAMPAIGN_WORKFLOW,
        CampaignRef(organization_id=organization_id, campaign_id=campaign.id),
        workflow_id.campaign(organization_id, campaign.id),
        temporal.attributes(organization_id, campaign.journey_id, campaign.version_id, campaign.id),
    )


async def start_missing_workflows(services: Services, organization_id: UUID, alive: Callable[[], None], limit: int = 100) -> int:
    """Every campaign that is still starting has a workflow. Answers how many were looked at. Safe to repeat.

    `alive` is called before each start, which may take seconds.
    """
    async with services.database.organization(organization_id) as session:
        starting = await campaigns.page(session, limit, None, status="starting")
    for campaign in starting:
        alive()
        await _start_workflow(services, campaign)
    return len(starting)


async def pause(caller: Caller, campaign_id: UUID, reason: str | None, key: str | None) -> Campaign:
    """Nothing of this campaign is sent from now on: the flag stands before the answer, the runs are told by a workflow.

    Raises:
        Conflict: the campaign has ended.
        Unavailable: the flag stands, but the runs could not be told yet: repeat.
    """
    async with caller.session() as session:
        campaign = await campaigns.get(session, campaign_id, lock=True)
        _refuse_ended(campaign, "pause")
        if campaign.paused_at is None:
            campaign = await campaigns.pause(session, campaign_id)
            await _append(session, caller, "campaign.paused", campaign_id)
        campaign = await campaigns.count_pause(session, campaign_id)
    await _control(caller, campaign, "pause", reason, key)
    return campaign


async def resume(caller: Caller, campaign_id: UUID, key: str | None) -> Campaign:
    """A workflow lifts the pause and tells every run. Of a campaign that is not paused nothing is asked.

    Raises:
        Conflict: the campaign has ended.
        Unavailable: still paused: repeat.
    """
    async with caller.session() as session:
        campaign = await campaigns.get(session, campaign_id, lock=True)
        _refuse_ended(campaign, "resume")
        if campaign.paused_at is None:
            return campaign
        await _append(session, caller, "campaign.resume_requested", campaign_id)
    await _control(caller, campaign, "resume", None, key)
    return campaign


async def cancel(caller: Caller, campaign_id: UUID, reason: str | None, key: str | None) -> Campaign:
    """Nothing of this campaign is sent from now on, for good; its runs are cancelled by a workflow. Repeating is harmless.

    Raises:
        Conflict: the campaign has completed.
        Unavailable: the flag stands, but the runs could not be told yet: repeat.
    """
    async with caller.session() as session:
        campaign = await campaigns.get(session, campaign_id, lock=True)
        if campaign.status == "completed":
            raise Conflict("The campaign is completed already; there is nothing left to cancel.")
        if campaign.cancelled_at is None:
            campaign = await campaigns.cancel(session, campaign_id)
            await _append(session, caller, "campaign.cancelled", campaign_id)
    await _control(caller, campaign, "cancel", reason, key)
    return campaign


def _refuse_ended(campaign: Campaign, verb: str) -> None:
    if campaign.status in ENDED:
        raise Conflict(f"The campaign is {campaign.status} already; there is nothing left to {verb}.")


async def _control(caller: Caller, campaign: Campaign, command: Command, reason: str | None, key: str | None) -> None:
    """A resume names the pauses it knew of: one that is said after it is not lifted by it."""
    organization_id = caller.organization_id
    request = temporal.request_id(key or f"after {campaign.pauses} pauses", organization_id, caller.actor.id, campaign.id, command)
    control = Control(
        organization_id=organization_id,
        kind=ControlledKind.CAMPAIGN,
        id=campaign.id,
        command=command,
        actor_kind=caller.actor.kind,
        actor_id=caller.actor.id,
        reason=reason,
        request_id=request,
        pauses=campaign.pauses,
    )
    found_by = temporal.attributes(organization_id, campaign.journey_id, campaign.version_id, campaign.id)
    await temporal.control_all(caller.services, control, found_by)


async def _append(session: OrganizationSession, caller: Caller, action: str, campaign_id: UUID, **details: Any) -> None:
    await audit.append(session, [NewEntry(action, "campaign", str(campaign_id), caller.actor, details)])
