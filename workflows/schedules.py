"""The schedules of an installation: upkeep's, the reconciler's, and one for each recurring campaign."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from uuid import UUID

from temporalio.client import (
    Client,
    Schedule,
    ScheduleActionStartWorkflow,
    ScheduleAlreadyRunningError,
    ScheduleBackfill,
    ScheduleCalendarSpec,
    ScheduleIntervalSpec,
    ScheduleOverlapPolicy,
    SchedulePolicy,
    ScheduleRange,
    ScheduleSpec,
)
from temporalio.common import TypedSearchAttributes

from activities.contracts.campaign import OCCURRENCE_WORKFLOW, CampaignRef
from activities.contracts.execution import fair_share
from activities.contracts.payload import Payload
from activities.contracts.reconciling import RECONCILE_EVERY, RECONCILE_WORKFLOW, Reconcile
from activities.contracts.upkeep import UPKEEP_EVERY, UPKEEP_WORKFLOW, Upkeep
from models.domain.journey import workflow_id
from models.domain.recurrence import Calendar
from models.domain.schedule import Recurring

UPKEEP_ID = "leadstats-upkeep"
RECONCILER_ID = "leadstats-reconciler"
DAWN = timedelta(hours=30)  # within so much before a moment its day has begun on whatever clock


async def ensure_upkeep(temporal: Client, task_queue: str) -> None:
    """Upkeep runs every minute, never two at once, also where somebody has paused it in Temporal. Safe to repeat, and from several
    workers."""
    await _ensure(temporal, UPKEEP_ID, UPKEEP_WORKFLOW, Upkeep(), UPKEEP_EVERY, task_queue)


async def ensure_reconciler(temporal: Client, task_queue: str) -> None:
    """The reconciler looks every minute, never twice at once, also where somebody has paused it in Temporal. Safe to repeat, and from
    several workers."""
    await _ensure(temporal, RECONCILER_ID, RECONCILE_WORKFLOW, Reconcile(), RECONCILE_EVERY, task_queue)


async def _ensure(temporal: Client, name: str, workflow: str, argument: Payload, every: timedelta, task_queue: str) -> None:
    action = ScheduleActionStartWorkflow(workflow, argument, id=name, task_queue=task_queue)
    try:
        await temporal.create_schedule(name, Schedule(action=action, spec=ScheduleSpec(intervals=[ScheduleIntervalSpec(every=every)])))
    except ScheduleAlreadyRunningError:
        handle = temporal.get_schedule_handle(name)
        if (await handle.describe()).schedule.state.paused:
            await handle.unpause(note="Lead Stats stands still without it; stop its workers instead")


def recurring(
    campaign: CampaignRef, schedule: Recurring, launched_at: datetime, task_queue: str, found_by: TypedSearchAttributes
) -> Schedule:
    """What starts an OccurrenceWorkflow shortly before each day on which the campaign is due begins in its zone; also while the campaign
    is paused, as the pause may be over before anything is due."""
    return Schedule(
        action=ScheduleActionStartWorkflow(
            OCCURRENCE_WORKFLOW,
            campaign,
            id=recurring_id(campaign.organization_id, campaign.campaign_id),
            task_queue=task_queue,
            typed_search_attributes=found_by,
            priority=fair_share(str(campaign.organization_id)),
        ),
        spec=recurring_spec(schedule, launched_at),
        policy=SchedulePolicy(
            overlap=ScheduleOverlapPolicy.SKIP,
            catchup_window=DAWN + schedule.missed_after,  # later none of the day's occurrences would take place; the default is a year
            pause_on_failure=False,
        ),
    )


def recurring_id(organization_id: UUID, campaign_id: UUID) -> str:
    """Of a recurring campaign's schedule. Its occurrences' workflows have it with their nominal times behind it."""
    return workflow_id.campaign(organization_id, campaign_id)


def recurring_spec(schedule: Recurring, launched_at: datetime) -> ScheduleSpec:
    """The days on which the campaign is due, by a clock that daylight saving leaves alone.

    Not its times: where a clock goes back, Temporal's calendars miss times, and match others that they do not name (server 1.32:
    02:30 in Europe/Berlin is missed at first, and 01:30 matches at 02:30 too; docs/decisions/schedules.md).
    """
    offset = schedule.dawn_offset(launched_at)
    return ScheduleSpec(
        calendars=[_calendar(calendar) for calendar in schedule.parsed().calendars()],
        start_at=schedule.after(launched_at) - DAWN,
        end_at=schedule.ends_at(launched_at),
        time_zone_name=f"Etc/GMT{-offset:+d}" if offset else "Etc/GMT",  # the signs of these zones are turned round
    )


def first_days(launched_at: datetime) -> ScheduleBackfill:
    """The days that had begun when the campaign was launched: what is due on them is made at once."""
    return ScheduleBackfill(launched_at - DAWN, launched_at, overlap=ScheduleOverlapPolicy.ALLOW_ALL)


def _calendar(calendar: Calendar) -> ScheduleCalendarSpec:
    return ScheduleCalendarSpec(
        second=_ranges([0]),
        minute=_ranges([0]),
        hour=_ranges([0]),
        day_of_month=_ranges(calendar.days),
        month=_ranges(calendar.months),
        year=_ranges(calendar.years),
        day_of_week=_ranges(sorted((weekday + 1) % 7 for weekday in calendar.weekdays)),  # Temporal's week begins with Sunday, 0
    )


def _ranges(numbers: Sequence[int]) -> list[ScheduleRange]:
    """Sorted numbers as ranges, neighbours together."""
    found: list[ScheduleRange] = []
    for number in numbers:
        if found and found[-1].end == number - 1:
            found[-1] = ScheduleRange(found[-1].start, number)
        else:
            found.append(ScheduleRange(number, number))
    return found
