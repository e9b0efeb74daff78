"""OccurrenceWorkflow: what a recurring campaign's Temporal schedule starts on each day on which the campaign is due."""

from temporalio import workflow

from activities.contracts.campaign import OCCURRENCE_WORKFLOW, CampaignRef, Dawn, make_occurrences, start_occurrences
from activities.contracts.execution import RECORDS
from activities.contracts.search_attributes import SCHEDULED_AT


@workflow.defn(name=OCCURRENCE_WORKFLOW)
class OccurrenceWorkflow:
    """Makes each of the day's occurrences a campaign of its own, whose workflow sleeps until the moment. Over at once, whatever the
    journey waits for: Temporal leaves a day out while the one before is not over."""

    @workflow.run
    async def run(self, campaign: CampaignRef) -> None:
        scheduled_at = workflow.info().typed_search_attributes.get(SCHEDULED_AT) or workflow.info().start_time
        dawn = Dawn(
            organization_id=campaign.organization_id, campaign_id=campaign.campaign_id, scheduled_at=scheduled_at, now=workflow.now()
        )
        made = await workflow.execute_activity(make_occurrences, dawn, **RECORDS)
        if made.scopes:
            await workflow.execute_activity(start_occurrences, made, **RECORDS)
