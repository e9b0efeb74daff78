"""CampaignWorkflow: fans a campaign's audience out. ControlWorkflow: tells every run of a campaign or journey something."""

from contextlib import suppress
from datetime import timedelta
from uuid import UUID

from temporalio import workflow

from activities.contracts.campaign import (
    CAMPAIGN_WORKFLOW,
    CampaignRef,
    PageRange,
    finish_campaign,
    plan_campaign,
    snapshot_audience,
    start_pages,
)
from activities.contracts.control import (
    CONTROL_WORKFLOW,
    Control,
    ControlPage,
    ControlTargets,
    apply_control,
    controlled_workflows,
    signal_workflows,
)
from activities.contracts.execution import RECORDS

PAGES_AT_ONCE = 20
LOOKS = 200  # how often the campaign looks whether it has finished before it continues as new
LONGEST_LOOK = timedelta(minutes=1)  # so late a campaign may be called completed


@workflow.defn(name=CAMPAIGN_WORKFLOW)
class CampaignWorkflow:
    """Sleeps until the campaign starts, takes the audience's snapshot, starts one JourneyWorkflow per page, and stays until no run
    is unfinished."""

    def __init__(self) -> None:
        self.told = False

    @workflow.signal(name="control")
    def control(self, control: Control) -> None:
        """What operators said is on the campaign's row: a reason to look at it."""
        self.told = True

    @workflow.run
    async def run(self, campaign: CampaignRef) -> None:
        if not campaign.started:
            if campaign.scheduled:
                await self._sleep_until_start(campaign)
            await self._start(campaign)
        pause = timedelta(seconds=1)
        for _ in range(LOOKS):
            progress = await workflow.execute_activity(finish_campaign, _now(campaign), **RECORDS)
            if progress.finished:
                return
            await workflow.sleep(pause, summary="until the next look at the campaign's progress")
            pause = min(pause * 1.3, LONGEST_LOOK)
        workflow.continue_as_new(campaign.model_copy(update={"started": True}))

    async def _sleep_until_start(self, campaign: CampaignRef) -> None:
        while True:
            self.told = False
            plan = await workflow.execute_activity(plan_campaign, _now(campaign), **RECORDS)
            if plan.look_at is None:
                return
            with suppress(TimeoutError):
                summary = f"until {plan.look_at:%Y-%m-%d %H:%M:%S} UTC"
                await workflow.wait_condition(lambda: self.told, timeout=plan.look_at - workflow.now(), timeout_summary=summary)

    async def _start(self, campaign: CampaignRef) -> None:
        audience = await workflow.execute_activity(snapshot_audience, _now(campaign), **RECORDS)
        for first in range(0, audience.pages, PAGES_AT_ONCE):
            pages = PageRange(scope=audience.scope, first=first, end=min(first + PAGES_AT_ONCE, audience.pages))
            await workflow.execute_activity(start_pages, pages, **RECORDS)


def _now(campaign: CampaignRef) -> CampaignRef:
    return campaign.model_copy(update={"now": workflow.now()})


@workflow.defn(name=CONTROL_WORKFLOW)
class ControlWorkflow:
    """Passes operators' words on to every run of one campaign or journey, in the order they were said.

    One per campaign or journey, started by the first word (signal-with-start), gone when none is left. Durable: an API
    process that dies after its first word does not leave half of the runs untold, and a late pause cannot overtake the
    resume that followed it.
    """

    def __init__(self) -> None:
        self.words: list[Control] = []
        self.heard: list[UUID | None] = []

    @workflow.signal(name="control")
    def control(self, control: Control) -> None:
        if control.request_id is None or control.request_id not in self.heard:
            self.heard.append(control.request_id)
            self.words.append(control)

    @workflow.run
    async def run(self) -> None:
        while self.words:
            await self._tell(self.words.pop(0))

    async def _tell(self, control: Control) -> None:
        if not await workflow.execute_activity(apply_control, control, **RECORDS):
            return
        page = ControlPage(control=control)
        while True:
            workflows = await workflow.execute_activity(controlled_workflows, page, **RECORDS)
            if workflows.workflow_ids:
                targets = ControlTargets(control=control, workflow_ids=workflows.workflow_ids)
                await workflow.execute_activity(signal_workflows, targets, **RECORDS)
            if workflows.after is None:
                return
            page = ControlPage(control=control, after=workflows.after)
