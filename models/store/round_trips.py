"""Contacts that journeys and segments led into the same journeys again and again, until the bound on that turned them back.

Found by the entries that were refused, of which there are few, by an index of their own; only of their contacts are runs read.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

from sqlalchemy import text

from models.domain.journey.entry import LEADING
from models.store.session import OrganizationSession
from models.tables.base import utc_now

AGAIN_AND_AGAIN = 3  # entries of one contact in the hour before it was turned back: a step before it may have taken another way at times
CONTACTS_AT_MOST = 100  # of a journey, by whose runs the other journeys are found
HOUR = timedelta(hours=1)  # the bound is over so much: `models.domain.journey.entry.MAX_LED`

# A plain moment: by arithmetic with the clock PostgreSQL would not look into the index.
_TURNED_BACK = text(
    """
    WITH turned AS MATERIALIZED (
      SELECT e.journey_id, e.contact_id, min(e.decided_at) AS first, max(e.decided_at) AS last,
        row_number() OVER (PARTITION BY e.journey_id ORDER BY max(e.decided_at) DESC, e.contact_id) AS number
      FROM entries e
      WHERE e.organization_id = :o AND e.reason = 'entered_too_often' AND e.outcome = 'refused'
        AND e.decided_at > CAST(:since AS timestamptz)
      GROUP BY e.journey_id, e.contact_id),
    ways AS MATERIALIZED (
      SELECT t.journey_id, r.journey_id AS way
      FROM turned t JOIN runs r ON r.organization_id = :o AND r.contact_id = t.contact_id AND r.replay_of IS NULL
        AND r.entry_source = ANY(CAST(:leading AS text[])) AND r.created_at BETWEEN t.first - CAST(:hour AS interval) AND t.last
      WHERE t.number <= :contacts
      GROUP BY t.journey_id, t.contact_id, r.journey_id HAVING count(*) >= :often)
    SELECT t.journey_id, count(*) AS contacts, min(t.first) AS since,
      ARRAY(SELECT DISTINCT w.way FROM ways w WHERE w.journey_id = t.journey_id AND w.way <> t.journey_id ORDER BY 1) AS others
    FROM turned t GROUP BY t.journey_id ORDER BY t.journey_id
    """
)


@dataclass(frozen=True)
class RoundTrip:
    """A journey that turned contacts back in the last hour, how many and since when, and the others through which they went again and
    again meanwhile."""

    journey_id: UUID
    contacts: int
    since: datetime
    others: Sequence[UUID]


async def turned_back(session: OrganizationSession) -> list[RoundTrip]:
    """One of each journey. One statement."""
    wanted = {
        "o": session.organization_id,
        "since": utc_now() - HOUR,
        "hour": HOUR,
        "leading": list(LEADING),
        "often": AGAIN_AND_AGAIN,
        "contacts": CONTACTS_AT_MOST,
    }
    return [RoundTrip(*row) for row in await session.execute(_TURNED_BACK, wanted)]
