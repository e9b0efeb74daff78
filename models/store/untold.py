"""Runs that have not heard what was said about all: the workflow that was to tell them was closed before it did."""

from dataclasses import dataclass
from datetime import timedelta
from uuid import UUID

from sqlalchemy import text

from models.domain.findings import LOST
from models.store.journeys import CANCELLED_WITH
from models.store.run_applicability import PAUSED_ITSELF
from models.store.session import OrganizationSession
from models.tables.base import utc_now


@dataclass(frozen=True, slots=True)
class Untold:
    """A workflow that carries such runs. `parent_id`: of the campaign, where it is an occurrence of a recurring one."""

    workflow_id: str
    journey_id: UUID
    version_id: UUID
    campaign_id: UUID | None
    parent_id: UUID | None


# What is paused beneath no pause has not heard of a resumption; whoever goes on in a cancelled campaign or with a cancelled journey, not of
# that. Runs that were paused by themselves may be many, so nobody is asked about them where nothing was ever paused with all.
_UNTOLD = text(
    f"""
    WITH paused AS MATERIALIZED (
      SELECT r.id, r.workflow_id, r.journey_id, r.version_id, r.campaign_id, campaign.parent_id
      FROM runs r JOIN journeys journey ON journey.organization_id = :o AND journey.id = r.journey_id
      LEFT JOIN campaigns campaign ON campaign.organization_id = :o AND campaign.id = r.campaign_id
      WHERE r.organization_id = :o AND r.status = 'paused' AND r.updated_at < CAST(:before AS timestamptz) AND campaign.paused_at IS NULL
        AND r.journey_id = ANY(ARRAY(SELECT j.id FROM journeys j WHERE j.organization_id = :o AND j.paused_at IS NULL))
        AND (journey.pauses > 0 OR campaign.pauses > 0 OR campaign.parent_id IS NOT NULL)),
    untold AS (
      SELECT r.workflow_id, r.journey_id, r.version_id, r.campaign_id, r.parent_id FROM paused r WHERE NOT {PAUSED_ITSELF}
      UNION ALL
      SELECT r.workflow_id, r.journey_id, r.version_id, r.campaign_id, campaign.parent_id
      FROM campaigns campaign JOIN runs r ON r.organization_id = :o AND r.campaign_id = campaign.id
      WHERE campaign.organization_id = :o AND campaign.finished_at IS NULL AND campaign.cancelled_at < CAST(:before AS timestamptz)
        AND r.finished_at IS NULL AND r.updated_at < CAST(:before AS timestamptz) AND r.reason IS DISTINCT FROM :lost
      UNION ALL
      SELECT r.workflow_id, r.journey_id, r.version_id, r.campaign_id, campaign.parent_id
      FROM journeys j JOIN runs r ON r.organization_id = :o AND r.journey_id = j.id
      LEFT JOIN campaigns campaign ON campaign.organization_id = :o AND campaign.id = r.campaign_id
      WHERE j.organization_id = :o AND j.runs_cancelled_at < CAST(:before AS timestamptz) AND {CANCELLED_WITH}
        AND r.finished_at IS NULL AND r.updated_at < CAST(:before AS timestamptz) AND r.reason IS DISTINCT FROM :lost)
    SELECT * FROM (SELECT DISTINCT ON (workflow_id) * FROM untold ORDER BY workflow_id) one ORDER BY random() LIMIT :limit
    """
)


async def untold(session: OrganizationSession, longer_than: timedelta, limit: int) -> list[Untold]:
    """Up to `limit` workflows, some by chance, with runs on which nothing has been recorded for longer than this."""
    wanted = {"o": session.organization_id, "before": utc_now() - longer_than, "limit": limit, "lost": LOST}
    return [Untold(*row) for row in await session.execute(_UNTOLD, wanted)]
