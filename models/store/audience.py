"""A campaign's audience: its snapshot, its pages, its flags and its end."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from math import ceil
from typing import Any
from uuid import UUID

from sqlalchemy import text

from models.domain.audit import NewEntry
from models.domain.errors import NotFound
from models.domain.journey import workflow_id
from models.domain.journey.run import FINISHED
from models.store import audit
from models.store.segment_sql import compile_rule
from models.store.session import OrganizationSession


@dataclass(frozen=True)
class Snapshot:
    journey_id: UUID
    version_id: UUID
    runs: int
    pages: int


_LOCK = text(
    """
    SELECT c.journey_id, c.version_id, c.segment_rule, c.page_size, c.audience, c.cancelled_at, v.definition ->> 'start' AS start,
           clock_timestamp() AS now
    FROM campaigns c JOIN journey_versions v ON v.organization_id = c.organization_id AND v.id = c.version_id
    WHERE c.organization_id = :o AND c.id = :id FOR UPDATE OF c
    """
)
# A UUIDv7: 48 bits of milliseconds, the version, and the rest of a random UUID. PostgreSQL has uuidv7() only from 18 on.
_UUID7 = """CAST(overlay(overlay(CAST(gen_random_uuid() AS text) PLACING '7' FROM 15) PLACING
    substr(s.milliseconds, 1, 8) || '-' || substr(s.milliseconds, 9, 4) FROM 1 FOR 13) AS uuid)"""
_TAKE = """
    INSERT INTO runs (id, organization_id, journey_id, version_id, campaign_id, contact_id, workflow_id, page, status, step_id,
                      sequence, variables, created_at, updated_at)
    SELECT {uuid7}, :o, :journey_id, :version_id, :campaign_id, s.contact_id, :prefix || s.page, s.page, 'active', :start,
           0, '{{}}', now(), now()
    FROM (
      SELECT c.id AS contact_id, CAST((row_number() OVER (ORDER BY c.id) - 1) / :page_size AS int) AS page,
             lpad(to_hex(CAST(extract(epoch FROM clock_timestamp()) * 1000 AS bigint)), 12, '0') AS milliseconds
      FROM contacts c WHERE c.organization_id = :o AND ({rule}) ORDER BY c.id) s
    ON CONFLICT (campaign_id, contact_id) DO NOTHING
"""
_TAKEN = text(
    """
    UPDATE campaigns SET audience = :audience, started_at = now(),
      status = CASE WHEN cancelled_at IS NOT NULL THEN 'cancelled' WHEN :audience = 0 THEN 'completed'
                    WHEN paused_at IS NOT NULL THEN 'paused' ELSE 'running' END,
      finished_at = CASE WHEN :audience = 0 THEN now() END
    WHERE organization_id = :o AND id = :id RETURNING status
    """
)


async def snapshot(session: OrganizationSession, campaign_id: UUID) -> Snapshot:
    """A run exists for every contact that the campaign's rule selects now, in pages by contact id.

    Safe to repeat: a campaign whose audience is taken keeps it. A campaign cancelled before has no audience, and one
    that selects nobody is completed. Appends to the audit chain: call it last in a transaction.

    Raises:
        NotFound: no such campaign.
        Invalid: its rule is malformed.
    """
    campaign = (await session.execute(_LOCK, {"o": session.organization_id, "id": campaign_id})).mappings().one_or_none()
    if campaign is None:
        raise NotFound("campaign", campaign_id)
    count = campaign["audience"]
    if count is None:
        count = await _take(session, campaign_id, dict(campaign)) if campaign["cancelled_at"] is None else 0
        await _taken(session, campaign_id, count)
    return Snapshot(campaign["journey_id"], campaign["version_id"], count, ceil(count / campaign["page_size"]))


async def _take(session: OrganizationSession, campaign_id: UUID, campaign: dict[str, Any]) -> int:
    rule = campaign["segment_rule"]
    compiled = None if rule is None else compile_rule(rule, campaign["now"])
    parameters: dict[str, Any] = {
        "o": session.organization_id,
        "campaign_id": campaign_id,
        "prefix": workflow_id.campaign_page(session.organization_id, campaign_id, 0).removesuffix("0"),
        **{name: campaign[name] for name in ("journey_id", "version_id", "page_size", "start")},
    }
    statement = text(_TAKE.format(uuid7=_UUID7, rule="TRUE" if compiled is None else compiled.sql))
    inserted = await session.execute(statement, parameters | (compiled.parameters if compiled else {}))
    return int(inserted.rowcount)  # type: ignore[attr-defined]


async def _taken(session: OrganizationSession, campaign_id: UUID, count: int) -> None:
    status = await session.scalar(_TAKEN, {"o": session.organization_id, "id": campaign_id, "audience": count})
    entries = [NewEntry("campaign.started", "campaign", str(campaign_id), details={"audience": count})]
    if status == "completed":
        entries.append(NewEntry("campaign.completed", "campaign", str(campaign_id), details={"audience": 0}))
    await audit.append(session, entries)


@dataclass(frozen=True)
class PagedRun:
    id: UUID
    contact_id: UUID
    page: int


async def page_runs(session: OrganizationSession, campaign_id: UUID, first: int, end: int) -> list[PagedRun]:
    """The runs of the pages from `first` up to, not including, `end`, by page and contact."""
    names = [workflow_id.campaign_page(session.organization_id, campaign_id, page) for page in range(first, end)]
    query = """SELECT id, contact_id, page FROM runs
               WHERE organization_id = :o AND campaign_id = :id AND workflow_id = ANY(CAST(:names AS text[])) ORDER BY page, contact_id"""
    rows = await session.execute(text(query), {"o": session.organization_id, "id": campaign_id, "names": names})
    return [PagedRun(row.id, row.contact_id, row.page) for row in rows]


@dataclass(frozen=True)
class Flags:
    """What operators have said about a campaign and its journey."""

    held_by: frozenset[str]  # "campaign", "journey"
    cancelled: bool


async def flags(session: OrganizationSession, campaign_id: UUID) -> Flags:
    """As they stand now.

    Raises:
        NotFound: no such campaign.
    """
    query = """SELECT c.paused_at AS campaign, j.paused_at AS journey, c.cancelled_at FROM campaigns c
               JOIN journeys j ON j.organization_id = c.organization_id AND j.id = c.journey_id
               WHERE c.organization_id = :o AND c.id = :id"""
    row = (await session.execute(text(query), {"o": session.organization_id, "id": campaign_id})).one_or_none()
    if row is None:
        raise NotFound("campaign", campaign_id)
    held: dict[str, datetime | None] = {"campaign": row.campaign, "journey": row.journey}
    return Flags(frozenset(kind for kind, since in held.items() if since is not None), row.cancelled_at is not None)


_FINISH = text(
    """
    UPDATE campaigns c SET finished_at = now(), status = CASE WHEN c.cancelled_at IS NULL THEN 'completed' ELSE 'cancelled' END
    WHERE c.organization_id = :o AND c.id = :id AND c.audience IS NOT NULL AND c.finished_at IS NULL
      AND NOT EXISTS (SELECT 1 FROM runs r WHERE r.organization_id = :o AND r.campaign_id = :id
                      AND r.status <> ALL(CAST(:finished AS text[])))
    RETURNING c.audience, c.status
    """
)


async def finish(session: OrganizationSession, campaign_id: UUID) -> bool:
    """Whether no run of the campaign is unfinished (a run that needs attention is). Marks it so, once; that a campaign was cancelled
    is on record since it was.

    Raises:
        NotFound: no such campaign.
    """
    parameters = {"o": session.organization_id, "id": campaign_id}
    ended = (await session.execute(_FINISH, {**parameters, "finished": _finished()})).one_or_none()
    if ended is not None:
        if ended.status == "completed":
            await audit.append(
                session, [NewEntry("campaign.completed", "campaign", str(campaign_id), details={"audience": ended.audience})]
            )
        return True
    query = text("SELECT finished_at IS NOT NULL FROM campaigns WHERE organization_id = :o AND id = :id")
    finished = await session.scalar(query, parameters)
    if finished is None:
        raise NotFound("campaign", campaign_id)
    return bool(finished)


def _finished() -> Sequence[str]:
    return [str(phase) for phase in FINISHED]
