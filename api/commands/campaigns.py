"""Launching and controlling campaigns. The row comes first, its workflow or Temporal schedule second: a row without can always be
started."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import islice
from math import ceil
from typing import Any, Literal
from uuid import UUID

from temporalio.common import TypedSearchAttributes

from activities.contracts.campaign import CAMPAIGN_WORKFLOW, CampaignRef
from activities.starting import attributes
from api.commands import temporal
from api.commands.pausing import Controlled, because, request_resume, tell_runs
from api.commands.runs import published_version, refuse_closed
from api.commands.starting import start_each
from api.dependencies import Caller, Services
from models.domain.audit import NewEntry
from models.domain.errors import Conflict, Invalid, NotFound, Problem
from models.domain.journey import workflow_id
from models.domain.journey.definition import Definition
from models.domain.journey.resumption import AT_ONCE, Manner
from models.domain.schedule import LONGEST_SPREAD, NEXT_SHOWN, Once, Recurring, Timing, read_timing, require_ahead, warnings
from models.store import audit, campaigns, controls, journeys, selection
from models.store.limits import within
from models.store.selection import AudienceQuery
from models.store.session import OrganizationSession
from models.tables.base import utc_now
from models.tables.journeys import Campaign, Journey, JourneyVersion
from workflows.schedules import DAWN, first_days, recurring, recurring_id

OnError = Literal["park", "pause", "skip"]
LOOK = timedelta(seconds=30)  # how long finding out who fits may take
ENDED = ("completed", "cancelled")
EMPTY = (
    "This audience is empty: no contact fits, or all who fit are left out, by excluded segments or because the journey's entry rules "
    "let none of them in again. Choose another segment, or import contacts first; POST /v1/campaign-previews tells who is left out."
)


@dataclass(frozen=True)
class NewCampaign:
    """What is asked for. `version` None: the newest; `segment_id` None: every contact; `page_size` in runs per workflow,
    None: the installation's. Whoever fits one of the excluded segments is left out."""

    name: str
    journey_id: UUID
    version: int | None
    segment_id: UUID | None
    page_size: int | None
    exclude_segment_ids: Sequence[UUID]
    timing: Timing
    audience_at: str
    on_error: OnError = "park"


@dataclass(frozen=True)
class Launched:
    """`warnings`: what will not be as one might expect."""

    campaign: Campaign
    warnings: Sequence[Problem]


async def launch(caller: Caller, wanted: NewCampaign, key: str | None) -> Launched:
    """The campaign exists, with the segments' rules as they are now, and its workflow, or its Temporal schedule, is started.

    A repeated request finds the campaign it made: by its Idempotency-Key or, without one, by name, version, segment and schedule
    among those of the last ten minutes that were not cancelled, however far they have come. So nobody is mailed twice
    for a lost answer. A different key asks for another campaign, even if all else is the same.

    Raises:
        Invalid: no such journey, version or segment, a schedule that has passed, or more contacts in an hour than the journey takes.
        Conflict: the journey is paused, archived, has ended or has never been published, or nobody is in the audience of a
            campaign that starts now.
        Unavailable: the campaign exists but could not be started yet: repeat. Or looking for its audience took longer than `LOOK`.
    """
    request = None if key is None else temporal.request_id(key, caller.organization_id, caller.actor.id, "campaign")
    async with caller.session() as session:
        looked = await _look(session, wanted, request)
    if isinstance(looked, _Asked):
        async with caller.session() as session:
            launched = await _find_or_create(session, caller, looked)
    else:
        launched = looked
    if launched.campaign.status not in ENDED:  # its workflow may be so long ago that Temporal would take a second start
        await _start(caller.services, launched.campaign)
    return launched


@dataclass(frozen=True)
class _Asked:
    """What may be launched, by a look that held nobody up."""

    wanted: NewCampaign
    request: UUID | None
    version: JourneyVersion
    rule: dict[str, Any] | None
    exclusion: dict[str, Any] | None
    warned: Sequence[Problem]


async def _look(session: OrganizationSession, wanted: NewCampaign, request: UUID | None) -> Launched | _Asked:
    """The campaign that this request has made before, or what it asks for. Locks nothing: a segment's rule may take long, and a pause of
    the journey must not wait for it."""
    now = utc_now()
    journey = await _journey(session, wanted.journey_id)
    version = await published_version(session, journey.id, wanted.version)
    found = await campaigns.find_same_launch(session, request, wanted.name, version.id, wanted.segment_id, wanted.timing)
    if found is not None:
        return Launched(found, warnings(wanted.timing, found.created_at))
    refuse_closed(journey)
    require_ahead(wanted.timing, now)
    taken_later = (wanted.timing.waits and wanted.audience_at == "start") or wanted.timing.recurs
    if wanted.timing.recurs and wanted.audience_at == "launch":
        raise Invalid.field("audience_at", "unsupported", "Each occurrence of a recurring campaign takes its audience when it starts.")
    refuse_ended_journey(version, wanted.timing, now)
    rule, exclusion = await rules(session, wanted.segment_id, wanted.exclude_segment_ids)
    warned = [*warnings(wanted.timing, now)]
    definition = Definition.model_validate(version.definition)
    chosen = selection.select(AudienceQuery(journey.id, definition, rule, exclusion, now))
    async with within(session, LOOK):
        if not await campaigns.has_audience(session, chosen):
            if not taken_later:
                raise Conflict(EMPTY)
            warned.append(
                Problem("segment_id", "empty_audience", "Nobody would be taken now; whoever fits when the campaign starts is taken.")
            )
        if (most := definition.entry.per_hour) is not None:
            too_many = crowding(await campaigns.audience_size(session, chosen), most, wanted.timing)
            if too_many is not None:
                raise Invalid([too_many])
    return _Asked(wanted, request, version, rule, exclusion, warned)


async def _find_or_create(session: OrganizationSession, caller: Caller, asked: _Asked) -> Launched:
    """Looks again at what may have changed meanwhile: another request may have made the campaign, or somebody paused the journey."""
    wanted, version = asked.wanted, asked.version
    journey = await _journey(session, wanted.journey_id, lock=True)
    found = await campaigns.find_same_launch(session, asked.request, wanted.name, version.id, wanted.segment_id, wanted.timing)
    if found is not None:
        return Launched(found, warnings(wanted.timing, found.created_at))
    refuse_closed(journey)
    campaign = await campaigns.create(
        session,
        name=wanted.name,
        journey_id=journey.id,
        version_id=version.id,
        segment_id=wanted.segment_id,
        segment_rule=asked.rule,
        exclusion_rule=asked.exclusion,
        timing=wanted.timing,
        audience_at=wanted.audience_at,
        page_size=wanted.page_size or caller.services.settings.page_size,
        created_by=caller.actor.id,
        request_id=asked.request,
        on_error=wanted.on_error,
    )
    await _append(session, caller, "campaign.launched", campaign.id, **_details(campaign, wanted))
    return Launched(campaign, asked.warned)


def _details(campaign: Campaign, wanted: NewCampaign) -> dict[str, Any]:
    return {
        "journey_id": str(campaign.journey_id),
        "version_id": str(campaign.version_id),
        "segment_id": wanted.segment_id and str(wanted.segment_id),
        "exclude_segment_ids": [str(each) for each in wanted.exclude_segment_ids],
        "schedule": campaign.schedule,
        "audience_at": wanted.audience_at,
        "on_error": campaign.on_error,
    }


async def _journey(session: OrganizationSession, journey_id: UUID, *, lock: bool = False) -> Journey:
    """With `lock`, launches of one journey wait for each other."""
    try:
        return await journeys.get(session, journey_id, lock=lock)
    except NotFound:
        raise Invalid.field("journey_id", "unknown_journey", "There is no journey with this id.") from None


def refuse_ended_journey(version: JourneyVersion, timing: Timing, now: datetime) -> None:
    """Raises Conflict where the version takes nobody any more, now or when the campaign starts."""
    start = timing.schedule.at if isinstance(timing.schedule, Once) else now
    if Definition.model_validate(version.definition).has_ended(max(start, now)):
        raise Conflict("This journey ends before the campaign starts; publish a version that ends later, or never.")


def crowding(contacts: int, per_hour: int | None, timing: Timing) -> Problem | None:
    """What is wrong with a campaign of which more contacts would start in an hour than the journey takes.

    Judged by those who fit when it is launched; whoever is too many for an hour when it starts, as others enter the journey too or the
    segment has grown, starts later (`models.store.entry_pace`).
    """
    hours = ceil(contacts / per_hour) if per_hour is not None else 1
    if hours <= 1 or (timing.spread is not None and timing.spread >= timedelta(hours=hours)):
        return None
    spread = f"spread the campaign over PT{hours}H or more, " if timedelta(hours=hours) <= LONGEST_SPREAD else ""
    return Problem(
        "spread",
        "too_many_per_hour",
        f"This journey takes {per_hour} contacts in an hour, and {contacts} would start: {spread}choose a smaller segment, or publish a "
        "version that takes more.",
    )


async def rules(
    session: OrganizationSession, segment_id: UUID | None, exclude_segment_ids: Sequence[UUID]
) -> tuple[dict[str, Any] | None, dict[str, Any] | None]:
    """The segments' rules as they are now: of whom to take (None: everybody), and of whom to leave out (None: nobody).

    Raises:
        Invalid: no such segment.
    """
    named = [*exclude_segment_ids, *([] if segment_id is None else [segment_id])]
    found = await campaigns.segment_rules(session, named) if named else {}
    unknown = [f"exclude_segment_ids[{index}]" for index, each in enumerate(exclude_segment_ids) if each not in found]
    unknown += ["segment_id"] if segment_id is not None and segment_id not in found else []
    if unknown:
        raise Invalid([Problem(path, "unknown_segment", "There is no segment with this id.") for path in unknown])
    excluded = [found[each] for each in exclude_segment_ids]
    return None if segment_id is None else found[segment_id], {"any": excluded} if excluded else None


async def _start(services: Services, campaign: Campaign) -> None:
    if read_timing(campaign.schedule).recurs:
        await _create_schedule(services, campaign)
    else:
        await _start_workflow(services, campaign)


async def _start_workflow(services: Services, campaign: Campaign) -> None:
    await temporal.start(
        services,
        CAMPAIGN_WORKFLOW,
        _reference(campaign, scheduled=read_timing(campaign.schedule).waits),
        workflow_id.campaign(campaign.organization_id, campaign.id),
        _found_by(campaign),
        restarts=True,  # as by `activities.starting.start_campaign`
    )


async def _create_schedule(services: Services, campaign: Campaign) -> None:
    """The row first, the schedule second, and on the row that it is there: what dies in between is repeated by upkeep."""
    if campaign.planned_at is not None:
        return
    timing = read_timing(campaign.schedule)
    assert isinstance(timing.schedule, Recurring)
    queue = services.settings.task_queue
    wanted = recurring(_reference(campaign), timing.schedule, campaign.created_at, queue, _found_by(campaign))
    is_new = utc_now() - campaign.created_at < DAWN  # of a schedule that is made again the reconciler makes what it has missed
    backfill = [first_days(campaign.created_at)] if is_new else []
    await temporal.create_schedule(services, recurring_id(campaign.organization_id, campaign.id), wanted, backfill)
    async with services.database.organization(campaign.organization_id) as session:
        await campaigns.planned(session, campaign.id)


def _reference(campaign: Campaign, *, scheduled: bool = False) -> CampaignRef:
    return CampaignRef(organization_id=campaign.organization_id, campaign_id=campaign.id, scheduled=scheduled)


def _found_by(campaign: Campaign) -> TypedSearchAttributes:
    return attributes(campaign.organization_id, campaign.journey_id, campaign.version_id, campaign.id)


async def start_missing_workflows(services: Services, organization_id: UUID, alive: Callable[[], None], limit: int = 100) -> int:
    """Every campaign that has not started has its workflow or Temporal schedule. Answers how many were looked at. Safe to repeat. The
    reconciler sees to the workflows of those that have started.

    `alive` is called before each start, which may take seconds.

    Raises:
        NotStarted: some could not be started; it kept no other waiting.
    """
    async with services.database.organization(organization_id) as session:
        unstarted = await campaigns.unstarted(session, limit)
    return await start_each("campaign", unstarted, lambda campaign: _start(services, campaign), alive)


def next_times(campaign: Campaign) -> list[datetime]:
    """When a recurring campaign is due next, aware UTC; none while it is paused."""
    schedule = read_timing(campaign.schedule).schedule
    if not isinstance(schedule, Recurring) or campaign.status in ENDED or campaign.paused_at is not None:
        return []
    return list(islice(schedule.next_after(utc_now(), campaign.created_at), NEXT_SHOWN))


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
            await _append(session, caller, "campaign.paused", campaign_id, *await controls.follow(session, campaign_id), **because(reason))
        campaign = await campaigns.count_pause(session, campaign_id)
    await tell_runs(caller, _controlled(campaign), "pause", reason, key)
    return campaign


async def resume(caller: Caller, campaign_id: UUID, key: str | None, manner: Manner = AT_ONCE, reason: str | None = None) -> Campaign:
    """A workflow lifts the pause, leaves out who is to be left out, and tells every run. Of a campaign that is not paused nothing is asked.

    Raises:
        Invalid: the manner is out of range.
        Conflict: the campaign has ended, or is not paused (any more), so that nothing could be done in this manner, or another request
            is being obeyed.
        Unavailable: still paused: repeat.
    """
    manner.check()
    async with caller.session() as session:
        campaign = await campaigns.get(session, campaign_id, lock=True)
        _refuse_ended(campaign, "resume")
        if not await request_resume(session, caller, _controlled(campaign), key, manner, reason):
            return campaign
    await tell_runs(caller, _controlled(campaign), "resume", reason, key, manner)
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
            await _append(
                session, caller, "campaign.cancelled", campaign_id, *await controls.follow(session, campaign_id), **because(reason)
            )
    await tell_runs(caller, _controlled(campaign), "cancel", reason, key)
    return campaign


def _refuse_ended(campaign: Campaign, verb: str) -> None:
    if campaign.status in ENDED:
        raise Conflict(f"The campaign is {campaign.status} already; there is nothing left to {verb}.")


def _controlled(campaign: Campaign) -> Controlled:
    return Controlled("campaign", campaign.id, campaign.paused_at, campaign.pauses, _found_by(campaign))


async def _append(session: OrganizationSession, caller: Caller, action: str, *campaign_ids: UUID, **details: Any) -> None:
    await audit.append(session, [NewEntry(action, "campaign", str(each), caller.actor, details) for each in campaign_ids])
