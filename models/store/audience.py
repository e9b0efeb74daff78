"""A campaign once its audience is taken: its pages, its flags and its end."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import text

from models.domain.audit import NewEntry
from models.domain.errors import NotFound
from models.domain.journey import workflow_id
from models.domain.journey.run import FINISHED
from models.store import audit
from models.store.session import OrganizationSession


@dataclass(frozen=True)
class PagedRun:
    id: UUID
    contact_id: UUID
    page: int
    starts_at: datetime | None = None
    begun: bool = False  # something is on record, or its workflow is gone for good


async def page_runs(session: OrganizationSession, campaign_id: UUID, first: int, end: int) -> list[PagedRun]:
    """The runs of the pages from `first` up to, not including, `end`, by page and contact."""
    names = [workflow_id.campaign_page(session.organization_id, campaign_id, page) for page in range(first, end)]
    query = """SELECT id, contact_id, page, starts_at, sequence > 0 AS begun FROM runs
               WHERE organization_id = :o AND campaign_id = :id AND workflow_id = ANY(CAST(:names AS text[])) ORDER BY page, contact_id"""
    rows = await session.execute(text(query), {"o": session.organization_id, "id": campaign_id, "names": names})
    return [PagedRun(row.id, row.contact_id, row.page, row.starts_at, row.begun) for row in rows]


@dataclass(frozen=True)
class Spread:
    """How a resumption was spread: over how long, from when on, and by which word; whoever is told of it later goes on when it says."""

    at: datetime
    over: timedelta
    request_id: UUID | None

    def stored(self) -> dict[str, Any]:
        """As the row of a journey or campaign keeps it."""
        word = None if self.request_id is None else str(self.request_id)
        return {"at": self.at.isoformat(), "over_s": self.over.total_seconds(), "request_id": word}

    @classmethod
    def read(cls, stored: Mapping[str, Any]) -> "Spread":
        word = stored["request_id"]
        return cls(datetime.fromisoformat(stored["at"]), timedelta(seconds=stored["over_s"]), None if word is None else UUID(word))


@dataclass(frozen=True)
class Flags:
    """What operators have said about a campaign and its journey."""

    held_by: frozenset[str]  # "campaign", "journey"
    cancelled: bool
    spreads: frozenset[tuple[str, Spread]] = frozenset()  # of the last resumptions, by what was resumed


async def flags(session: OrganizationSession, campaign_id: UUID) -> Flags:
    """As they stand now.

    Raises:
        NotFound: no such campaign.
    """
    query = """SELECT c.paused_at AS campaign, j.paused_at AS journey, c.cancelled_at, c.resumption AS of_campaign,
                 j.resumption AS of_journey FROM campaigns c
               JOIN journeys j ON j.organization_id = c.organization_id AND j.id = c.journey_id
               WHERE c.organization_id = :o AND c.id = :id"""
    row = (await session.execute(text(query), {"o": session.organization_id, "id": campaign_id})).one_or_none()
    if row is None:
        raise NotFound("campaign", campaign_id)
    held: dict[str, datetime | None] = {"campaign": row.campaign, "journey": row.journey}
    held_by = frozenset(kind for kind, since in held.items() if since is not None)
    return Flags(held_by, row.cancelled_at is not None, spreads(campaign=row.of_campaign, journey=row.of_journey))


def spreads(**resumptions: Mapping[str, Any] | None) -> frozenset[tuple[str, Spread]]:
    """By what was resumed, as rows keep it; nothing of what was not spread."""
    return frozenset((kind, Spread.read(stored)) for kind, stored in resumptions.items() if stored is not None)


_FINISH = text(
    """
    UPDATE campaigns c SET finished_at = now(), started_at = coalesce(c.started_at, now()),
      status = CASE WHEN c.cancelled_at IS NULL THEN 'completed' ELSE 'cancelled' END
    WHERE c.organization_id = :o AND c.id = :id AND c.audience IS NOT NULL AND c.finished_at IS NULL
      AND NOT EXISTS (SELECT 1 FROM runs r WHERE r.organization_id = :o AND r.campaign_id = :id
                      AND r.status <> ALL(CAST(:finished AS text[])))
    RETURNING c.audience, c.status
    """
)


_BEGIN = text(
    """
    UPDATE campaigns c SET started_at = now(), status = CASE WHEN c.status IN ('starting', 'scheduled') THEN 'running' ELSE c.status END
    WHERE c.organization_id = :o AND c.id = :id AND c.audience IS NOT NULL AND c.started_at IS NULL
      AND coalesce(CAST(:now AS timestamptz), now()) >= (SELECT min(coalesce(r.starts_at, r.created_at)) FROM runs r
                                                         WHERE r.organization_id = :o AND r.campaign_id = :id)
    """
)


async def finish(session: OrganizationSession, campaign_id: UUID, now: datetime | None = None) -> bool:
    """Whether no run of the campaign is unfinished (a run that needs attention is). Marks it so, once; and marks it running
    when the first of runs that were taken early has started by `now`. That a campaign was cancelled is on record since it was.

    Raises:
        NotFound: no such campaign.
    """
    parameters = {"o": session.organization_id, "id": campaign_id}
    await session.execute(_BEGIN, {**parameters, "now": now})
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
