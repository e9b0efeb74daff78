"""How many enter a journey in an hour, whatever brings them: `per_hour` of its entry rules. A run that replays another is no entry.

The callers hold the journey's lock: who enters meanwhile waits for them.
"""

from datetime import datetime, timedelta
from math import ceil
from typing import Final
from uuid import UUID

from sqlalchemy import text

from models.store.session import OrganizationSession

HOUR: Final = timedelta(hours=1)
_STARTS: Final = """(
      SELECT coalesce(r.starts_at, r.created_at) AS at FROM runs r
      WHERE r.organization_id = :o AND r.journey_id = :journey_id AND r.replay_of IS NULL
        AND (r.finished_at IS NULL OR r.finished_at >= coalesce(r.starts_at, r.created_at))) s"""  # what ended before did not enter
# The hours that begin with somebody's start and have not ended, and the one that begins now.
_FULLEST = text(
    f"""
    WITH hours AS (
      SELECT at, count(*) OVER (ORDER BY at RANGE BETWEEN CURRENT ROW AND interval '59 minutes 59.999999 seconds' FOLLOWING) AS starts
      FROM {_STARTS} WHERE at > now() - interval '1 hour' AND at < now() + interval '1 hour')
    SELECT greatest(coalesce(max(starts) FILTER (WHERE at <= now()), 0), count(*) FILTER (WHERE at > now())) FROM hours
    """
)
_OTHERS = text(f"SELECT count(*) AS runs, max(at) AS last FROM {_STARTS} WHERE at > :since AND at <= :until")
# Everybody who starts, those that are there already first, is dealt out to as many lanes as may start in an hour. Within a lane each
# starts an hour after the one before, or later if that is its own time: so every hour, whenever it begins, has at most one of each lane.
RATIONED: Final = f"""
    SELECT contact_id, CASE WHEN at > own OR starts_at IS NOT NULL THEN at END AS starts_at, at > own AS postponed
    FROM (
      SELECT contact_id, starts_at, own, turn * interval '1 hour'
             + max(own - turn * interval '1 hour') OVER (PARTITION BY place % CAST(:per_hour AS bigint) ORDER BY place) AS at
      FROM (
        SELECT contact_id, starts_at, own, place, place / CAST(:per_hour AS bigint) AS turn
        FROM (
          SELECT contact_id, starts_at, own, row_number() OVER (ORDER BY contact_id IS NOT NULL, own, contact_id) - 1 AS place
          FROM (
            SELECT contact_id, starts_at, coalesce(starts_at, CAST(:now AS timestamptz)) AS own FROM placed WHERE why_not IS NULL
            UNION ALL
            SELECT NULL, NULL, at FROM {_STARTS} WHERE at > :since AND at <= :until
          ) everybody) placed_in_order) dealt) spaced
    WHERE contact_id IS NOT NULL"""


async def fullest_hour(session: OrganizationSession, journey_id: UUID) -> int:
    """The most starts in an hour that a start now would fall into, those that campaigns have planned included."""
    found = await session.scalar(_FULLEST, {"o": session.organization_id, "journey_id": journey_id})
    return int(found or 0)


async def others_until(
    session: OrganizationSession, journey_id: UUID, contacts: int, per_hour: int, latest: datetime, now: datetime
) -> dict[str, object]:
    """The parameters of `RATIONED` for so many contacts, the last of whom would start at `latest` if there were no limit: which other
    starts they could meet. All times are aware UTC."""
    others, last = 0, latest
    while True:
        until = max(latest, last) + HOUR * (ceil((contacts + others) / per_hour) + 1)
        asked = {"o": session.organization_id, "journey_id": journey_id, "since": now - HOUR, "until": until}
        found = (await session.execute(_OTHERS, asked)).one()
        if found.runs == others:
            return {"per_hour": per_hour, "now": now, "since": now - HOUR, "until": until}
        others, last = found.runs, found.last
