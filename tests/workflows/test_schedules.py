"""A recurring campaign's schedule on a real Temporal server: the days that it opens hold all of the rule's moments, and no others."""

from datetime import UTC, datetime, timedelta
from itertools import takewhile
from uuid import uuid4

import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from temporalio.api.workflowservice.v1 import ListScheduleMatchingTimesRequest
from temporalio.common import TypedSearchAttributes
from temporalio.testing import WorkflowEnvironment

from activities.contracts.campaign import CampaignRef
from models.domain.schedule import Recurring
from workflows.schedules import DAWN, first_days, recurring, recurring_id

LAUNCHED = datetime(2026, 11, 25, 16, tzinfo=UTC)
HORIZON = LAUNCHED + timedelta(days=800)  # over four changes of the clock, and a leap day
ZONES = ("Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Africa/Casablanca", "Pacific/Kiritimati", "Pacific/Niue", "UTC")
RULES = (
    "FREQ=DAILY;BYHOUR=0,1,2,3,9;BYMINUTE=0,30",
    "FREQ=WEEKLY;BYDAY=SA,SU;BYHOUR=1,2,23;BYMINUTE=15",
    "FREQ=MONTHLY;BYMONTHDAY=1,-1;BYHOUR=9",
    "FREQ=MONTHLY;BYDAY=1MO,-1FR,5SU;BYHOUR=2;BYMINUTE=30",
    "FREQ=YEARLY;BYMONTH=2;BYMONTHDAY=29,-1;BYHOUR=9",
    "FREQ=DAILY;BYHOUR=2;COUNT=400",
    "FREQ=DAILY;BYHOUR=9;UNTIL=20270328",
    "FREQ=WEEKLY;INTERVAL=2;BYDAY=MO,SU;BYHOUR=0,9",
)


async def dawns(server: WorkflowEnvironment, schedule: Recurring) -> list[datetime]:
    """The times that the server itself finds in the schedule."""
    campaign = CampaignRef(organization_id=uuid4(), campaign_id=uuid4())
    name = recurring_id(campaign.organization_id, campaign.campaign_id)
    wanted = recurring(campaign, schedule, LAUNCHED, "nobody", TypedSearchAttributes.empty)
    wanted.state.paused = True
    handle = await server.client.create_schedule(name, wanted)
    begin, end = Timestamp(), Timestamp()
    begin.FromDatetime(LAUNCHED - DAWN)
    end.FromDatetime(HORIZON)
    asked = ListScheduleMatchingTimesRequest(namespace=server.client.namespace, schedule_id=name, start_time=begin, end_time=end)
    found = await server.client.workflow_service.list_schedule_matching_times(asked)
    await handle.delete()
    return [each.ToDatetime(tzinfo=UTC) for each in found.start_time]


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("zone", ZONES)
async def test_the_days_that_the_server_opens_hold_just_the_moments_of_the_rule(server: WorkflowEnvironment, rule: str, zone: str) -> None:
    schedule = Recurring(rule=rule, zone=zone, begins_at=LAUNCHED if "INTERVAL" in rule else None)
    opened = await dawns(server, schedule)
    made = [(dawn, moment) for dawn in opened for moment in schedule.on(schedule.day_of(dawn, LAUNCHED), LAUNCHED)]
    last = opened[-1] + DAWN  # a day that begins before the horizon is opened as a whole
    expected = list(takewhile(lambda moment: moment < HORIZON, schedule.next_after(LAUNCHED, LAUNCHED)))
    assert [moment for _, moment in made if moment < HORIZON] == expected and len(expected) > 1
    assert all(dawn <= moment < dawn + DAWN for dawn, moment in made) and made[-1][1] < last


async def test_the_days_under_way_at_the_launch_are_opened_by_the_creation(server: WorkflowEnvironment) -> None:
    schedule = Recurring(rule="FREQ=DAILY;BYHOUR=0,6,12,18,23", zone="Pacific/Niue")
    backfill = first_days(LAUNCHED)
    opened = [dawn for dawn in await dawns(server, schedule) if backfill.start_at < dawn <= backfill.end_at]
    moments = [moment for dawn in opened for moment in schedule.on(schedule.day_of(dawn, LAUNCHED), LAUNCHED)]
    upcoming = list(takewhile(lambda moment: moment <= LAUNCHED + timedelta(hours=2), schedule.next_after(LAUNCHED, LAUNCHED)))
    assert moments[: len(upcoming)] == upcoming and min(moments) > LAUNCHED
