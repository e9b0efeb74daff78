"""How many enter a journey in an hour, whatever brings them: `per_hour` of its entry rules. A run that replays another is no entry.

The callers hold the journey's lock: who enters meanwhile waits for them.
"""

import asyncio
from datetime import datetime
from typing import Final
from uuid import UUID

from sqlalchemy import text

from models.domain.pace import HOUR, Postponed, postponements
from models.store.session import OrganizationSession

_STARTS: Final = """(
      SELECT coalesce(r.starts_at, r.created_at) AS at, r.campaign_id FROM runs r
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
_NOW = text("SELECT greatest(CAST(:now AS timestamptz), clock_timestamp())")
_OTHERS = text(
    f"""SELECT at, count(*) AS starts FROM {_STARTS}
        WHERE at > :since AND campaign_id IS DISTINCT FROM CAST(:campaign_id AS uuid) GROUP BY at ORDER BY at"""
)
_MINE = "FROM runs WHERE organization_id = :o AND campaign_id = :campaign_id AND replay_of IS NULL"
_WANTED = text(f"SELECT greatest(starts_at, CAST(:now AS timestamptz)) AS at, count(*) AS starts {_MINE} GROUP BY 1 ORDER BY 1")
# The order of `models.store.snapshots`, so nobody changes pages. Places are looked up by bisection, not joined: the planner knows nothing
# of rows that are this new.
_POSTPONE = text(
    f"""
    UPDATE runs r SET starts_at = (CAST(:starts AS timestamptz[]))[w.number]
    FROM (SELECT id, place, width_bucket(place, CAST(:firsts AS bigint[])) AS number
          FROM (SELECT id, row_number() OVER (ORDER BY starts_at NULLS FIRST, contact_id) AS place {_MINE}) placed) w
    WHERE r.organization_id = :o AND r.id = w.id AND w.number > 0 AND w.place <= (CAST(:lasts AS bigint[]))[w.number]
    """
)


async def fullest_hour(session: OrganizationSession, journey_id: UUID) -> int:
    """The most starts in an hour that a start now would fall into, those that campaigns have planned included."""
    found = await session.scalar(_FULLEST, {"o": session.organization_id, "journey_id": journey_id})
    return int(found or 0)


async def postpone(session: OrganizationSession, journey_id: UUID, campaign_id: UUID, per_hour: int, now: datetime) -> list[Postponed]:
    """Of a campaign's runs, which have just been made and not started, those that are too many for an hour start later
    (`models.domain.pace`); which they are. `now`: aware UTC, when the campaign starts; no run starts before the present."""
    own = {"o": session.organization_id, "campaign_id": campaign_id}
    now = await session.scalar(_NOW, {"now": now})
    others = [(row.at, row.starts) for row in await session.execute(_OTHERS, {**own, "journey_id": journey_id, "since": now - HOUR})]
    wanted = [(row.at, row.starts) for row in await session.execute(_WANTED, {**own, "now": now})]
    found = await asyncio.to_thread(postponements, others, wanted, per_hour)  # seconds, where each of a million has a moment of its own
    if found:
        told = {"starts": [one.at for one in found], "firsts": [one.first for one in found], "lasts": [one.last for one in found]}
        await session.execute(_POSTPONE, own | told)
    return found
