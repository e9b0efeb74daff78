"""By what workflows are found: ids only, for search attributes are not encrypted."""

from temporalio.common import SearchAttributeKey

ORGANIZATION_ID = SearchAttributeKey.for_keyword("OrganizationId")
JOURNEY_ID = SearchAttributeKey.for_keyword("JourneyId")
VERSION_ID = SearchAttributeKey.for_keyword("VersionId")
CAMPAIGN_ID = SearchAttributeKey.for_keyword("CampaignId")
SCHEDULED_AT = SearchAttributeKey.for_datetime("TemporalScheduledStartTime")  # Temporal's own: what its schedule meant
SEARCH_ATTRIBUTES = (ORGANIZATION_ID, JOURNEY_ID, VERSION_ID, CAMPAIGN_ID)
