"""How many entered each journey, and how many messages it sent, over spans of time. Campaigns come in bursts and are left out."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

from sqlalchemy import text

from models.domain.findings import Span
from models.store.ids import first_id
from models.store.rowset import rowset
from models.store.session import OrganizationSession

# By the ids, which are ordered by age: no index of times is needed.
_COUNT = """
    SELECT x.journey_id, a.number, count(*) AS volume
    FROM jsonb_to_recordset(CAST(:spans AS jsonb)) AS a(number int, low uuid, high uuid)
    JOIN {table} x ON x.organization_id = :o AND x.id >= a.low AND x.id < a.high
    WHERE x.campaign_id IS NULL {test} GROUP BY x.journey_id, a.number"""
MEASURES = {
    "entries": text(_COUNT.format(table="runs", test="AND NOT x.hidden")),
    "sends": text(_COUNT.format(table="deliveries", test="AND x.state = 'accepted'")),
}
_GOING = text("SELECT id FROM journeys WHERE organization_id = :o AND paused_at IS NULL AND archived_at IS NULL")


@dataclass(frozen=True)
class Volume:
    """Of one journey: in the last span, and in each of the earlier ones."""

    journey_id: UUID
    now: int
    before: Sequence[int]


async def going(session: OrganizationSession) -> set[UUID]:
    """The journeys that are neither paused nor archived."""
    return set((await session.execute(_GOING, {"o": session.organization_id})).scalars())


async def volumes(session: OrganizationSession, measure: str, span: Span, now: datetime) -> list[Volume]:
    """Of every journey that had any in those spans, the last of which ends at `now` (aware)."""
    ends = [now - timedelta(hours=span.apart) * number for number in range(span.periods + 1)]
    spans = [
        {"number": number, "low": first_id(end - timedelta(hours=span.hours)), "high": first_id(end)} for number, end in enumerate(ends)
    ]
    counts: defaultdict[UUID, dict[int, int]] = defaultdict(dict)
    for row in await session.execute(MEASURES[measure], {"o": session.organization_id, "spans": rowset(spans)}):
        counts[row.journey_id][row.number] = row.volume
    return [Volume(id, found.get(0, 0), [found.get(each, 0) for each in range(1, len(ends))]) for id, found in counts.items()]
